//! `logs/shop.log`: one line each, `<time> <LEVEL> <message>`.
//!
//! Appended to, so truncation by a log rotator is harmless; reopened on SIGHUP, and when the path no longer leads to the
//! open file, so rotation by rename loses nothing either. A line that cannot be written is dropped: the shop sells on.
use super::ShopError;
use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

pub(super) struct Log {
    path: PathBuf,
    file: Mutex<File>,
}

impl Log {
    pub(super) fn open(path: &Path) -> Result<Self, ShopError> {
        let file = open(path).map_err(ShopError::file("open", path))?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(file) })
    }

    pub(super) fn info(&self, message: &str) {
        self.line("INFO", message);
    }

    pub(super) fn error(&self, message: &str) {
        self.line("ERROR", message);
    }

    /// Opens the path anew; keeps the open file when that fails.
    pub(super) fn reopen(&self) {
        if let Ok(file) = open(&self.path) {
            *self.lock() = file;
        }
    }

    fn line(&self, level: &str, message: &str) {
        let line = format!("{:.3} {level} {}\n", jiff::Timestamp::now(), on_one_line(message));
        let mut file = self.lock();
        if moved(&file, &self.path)
            && let Ok(new) = open(&self.path)
        {
            *file = new;
        }
        // One write call, so that lines of two processes never mix.
        let _ = file.write_all(line.as_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn moved(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else {
        return true;
    };
    (open.dev(), open.ino()) != (named.dev(), named.ino())
}

/// What customers send ends up in messages; a line break in it must not become a line of its own.
fn on_one_line(message: &str) -> String {
    message.chars().fold(String::with_capacity(message.len()), |mut line, c| {
        if c.is_control() {
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_level_and_time_and_stay_single() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.log");
        let log = Log::open(&path).unwrap();
        log.info("opened");
        log.error("customer `x\n2026-01-01T00:00:00Z ERROR fake`");
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let (time, rest) = lines[1].split_once(' ').unwrap();
        time.parse::<jiff::Timestamp>().unwrap();
        assert_eq!(rest, r"ERROR customer `x\n2026-01-01T00:00:00Z ERROR fake`");
    }

    #[test]
    fn rotation_by_rename_and_by_truncation_loses_no_later_line() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("shop.log"), dir.path().join("shop.log.1"));
        let log = Log::open(&path).unwrap();
        log.info("one");
        fs::rename(&path, &old).unwrap();
        log.info("two");
        assert!(fs::read_to_string(&old).unwrap().ends_with("INFO one\n"));
        assert!(fs::read_to_string(&path).unwrap().ends_with("INFO two\n"));
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        log.info("three");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("INFO three\n") && !text.contains('\0') && text.lines().count() == 1, "{text:?}");
        fs::remove_file(&path).unwrap();
        log.reopen();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
}
