//! What was added to a file since the last look, through renames and truncations.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// The most read in one look; the rest waits for the next.
const AT_ONCE: u64 = 8 << 20;
/// A line longer than this is judged by its beginning.
const LINE: usize = 64 << 10;
/// How much of what was read last is remembered, to notice that the file was written anew.
const PRINT: usize = 64;

/// A place in a file.
#[derive(Default)]
pub(super) struct Tail {
    open: Option<Open>,
    /// A line whose end was not there yet.
    begun: Vec<u8>,
    /// Whether the beginning of that line was judged already, so that the rest of it is passed over.
    passing: bool,
}

struct Open {
    /// Held open: while it is, no other file can get its number, and what is written after a rename is still read.
    file: File,
    id: (u64, u64),
    offset: u64,
    /// The bytes right before `offset`.
    print: Vec<u8>,
}

impl Open {
    fn at(file: File, offset: u64) -> io::Result<Self> {
        let meta = file.metadata()?;
        let length = offset.min(PRINT as u64);
        let mut print = vec![0; length as usize];
        file.read_exact_at(&mut print, offset - length)?;
        Ok(Self { file, id: (meta.dev(), meta.ino()), offset, print })
    }

    /// Whether what was read is still what stands before `offset`: a file that was truncated and written anew is another.
    fn continues(&self) -> io::Result<bool> {
        let from = self.offset - self.print.len() as u64;
        let mut now = vec![0; self.print.len()];
        match self.file.read_exact_at(&mut now, from) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            result => result.map(|()| now == self.print),
        }
    }
}

impl Tail {
    /// Gives every whole line added since the last look to `line`, and returns how many bytes wait for the next one.
    ///
    /// `first`: what is in the file already is passed over. A file that comes later is read from its start.
    /// # Errors
    /// In words; that there is no file is no error.
    pub(super) fn read(&mut self, path: Option<&Path>, first: bool, mut line: impl FnMut(&str)) -> Result<u64, String> {
        let cannot = |error: io::Error| {
            let path = path.map_or_else(String::new, |path| format!(" `{}`", path.display()));
            format!("the log{path} cannot be read: {error}")
        };
        self.step(path, first, &mut line).map_err(cannot)
    }

    fn step(&mut self, path: Option<&Path>, first: bool, line: &mut dyn FnMut(&str)) -> io::Result<u64> {
        let mut budget = AT_ONCE;
        // What is left in the file that was open, which may have been renamed since.
        if self.drain(&mut budget, line)? > 0 {
            return self.behind();
        }
        let meta = match path.map(fs::metadata) {
            None => return Ok(0),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Some(meta) => meta?,
        };
        if self.open.as_ref().is_some_and(|open| open.id == (meta.dev(), meta.ino())) {
            return Ok(0);
        }
        let Some(path) = path else { return Ok(0) };
        if !meta.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let mut file = File::open(path)?;
        let offset = if first { file.seek(SeekFrom::End(0))? } else { 0 };
        let open = Open::at(file, offset)?;
        self.begun.clear();
        // The rest of a line that was half written is no line.
        self.passing = open.print.last().is_some_and(|last| *last != b'\n');
        self.open = Some(open);
        self.drain(&mut budget, line)?;
        self.behind()
    }

    fn behind(&self) -> io::Result<u64> {
        let Some(open) = &self.open else { return Ok(0) };
        Ok(open.file.metadata()?.len().saturating_sub(open.offset))
    }

    /// Reads on in the open file; returns how much is left there.
    fn drain(&mut self, budget: &mut u64, line: &mut dyn FnMut(&str)) -> io::Result<u64> {
        let Some(open) = &mut self.open else { return Ok(0) };
        if !open.continues()? {
            (open.offset, open.print) = (0, vec![]);
            self.begun.clear();
            self.passing = false;
        }
        let mut buffer = vec![0; 64 << 10];
        while *budget > 0 {
            open.file.seek(SeekFrom::Start(open.offset))?;
            let n = open.file.read(&mut buffer)?;
            if n == 0 {
                return Ok(0);
            }
            open.offset += n as u64;
            *budget = budget.saturating_sub(n as u64);
            open.print.extend_from_slice(&buffer[..n]);
            let surplus = open.print.len().saturating_sub(PRINT);
            open.print.drain(..surplus);
            for part in buffer[..n].split_inclusive(|b| *b == b'\n') {
                let ends = part.ends_with(b"\n");
                if !self.passing {
                    self.begun.extend_from_slice(part);
                }
                if !self.passing && (ends || self.begun.len() > LINE) {
                    let text = String::from_utf8_lossy(&self.begun);
                    let text = text.trim_end_matches(['\n', '\r']);
                    if !text.trim().is_empty() {
                        line(text);
                    }
                    self.begun.clear();
                    self.passing = true;
                }
                if ends {
                    self.passing = false;
                }
            }
        }
        self.behind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    struct Case {
        dir: tempfile::TempDir,
        tail: Tail,
        first: bool,
    }

    impl Case {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap(), tail: Tail::default(), first: true }
        }
        fn path(&self) -> std::path::PathBuf {
            self.dir.path().join("log")
        }
        fn append(&self, text: &str) {
            File::options().create(true).append(true).open(self.path()).unwrap().write_all(text.as_bytes()).unwrap();
        }
        fn look(&mut self) -> Vec<String> {
            let mut lines = vec![];
            let path = self.path();
            self.tail.read(Some(&path), self.first, |line| lines.push(line.to_owned())).unwrap();
            self.first = false;
            lines
        }
    }

    #[test]
    fn reading_begins_at_the_end_and_waits_for_whole_lines() {
        let mut case = Case::new();
        case.append("old\nhalf");
        assert_eq!(case.look(), [""; 0]);
        case.append(" a line\nnext\nbeg");
        assert_eq!(case.look(), ["next"]);
        case.append("un\r\n\n");
        assert_eq!(case.look(), ["begun"]);
        assert_eq!(case.look(), [""; 0]);
    }

    #[test]
    fn a_file_that_comes_later_is_read_from_its_start() {
        let mut case = Case::new();
        assert_eq!(case.look(), [""; 0]);
        case.append("one\n");
        assert_eq!(case.look(), ["one"]);
    }

    #[test]
    fn rf05_rotation_loses_no_line() {
        let mut case = Case::new();
        case.append("a\n");
        case.look();
        case.append("b\n");
        fs::rename(case.path(), case.dir.path().join("log.1")).unwrap();
        case.append("c\n");
        assert_eq!(case.look(), ["b", "c"]);
        fs::rename(case.path(), case.dir.path().join("log.1")).unwrap();
        let mut old = File::options().append(true).open(case.dir.path().join("log.1")).unwrap();
        assert_eq!(case.look(), [""; 0], "between the rename and the new file there is none");
        old.write_all(b"late\n").unwrap();
        case.append("d\n");
        assert_eq!(case.look(), ["late", "d"]);
        fs::remove_file(case.path()).unwrap();
        case.append("e\n");
        assert_eq!(case.look(), ["e"]);
    }

    #[test]
    fn a_truncated_file_is_read_from_its_start() {
        let mut case = Case::new();
        case.append("a\nb\nc\n");
        case.look();
        fs::write(case.path(), "d\n").unwrap();
        assert_eq!(case.look(), ["d"]);
        fs::write(case.path(), "longer than before\nand more\n").unwrap();
        assert_eq!(case.look(), ["longer than before", "and more"], "even when it has grown past the old place");
        fs::write(case.path(), "").unwrap();
        assert_eq!(case.look(), [""; 0]);
        case.append("e\n");
        assert_eq!(case.look(), ["e"]);
    }

    #[test]
    fn an_endless_line_is_one_line() {
        let mut case = Case::new();
        case.append("");
        case.look();
        case.append(&"x".repeat(3 * LINE));
        let lines = case.look();
        assert!(lines.len() == 1 && lines[0].len() <= 2 * LINE);
        case.append("still the same\nnext\n");
        assert_eq!(case.look(), ["next"]);
    }

    #[test]
    fn a_flood_is_read_in_pieces() {
        let mut case = Case::new();
        case.append("");
        case.look();
        case.append(&"0123456789abcde\n".repeat(1 << 20));
        let (mut seen, path) = (0, case.path());
        let behind = case.tail.read(Some(&path), false, |_| seen += 1).unwrap();
        assert_eq!((seen, behind), (1 << 19, 8 << 20));
        assert_eq!(case.tail.read(Some(&path), false, |_| seen += 1).unwrap(), 0);
        assert_eq!(seen, 1 << 20);
    }

    #[test]
    fn a_directory_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let why = Tail::default().read(Some(dir.path()), true, |_| {}).unwrap_err();
        assert!(why.ends_with("cannot be read: it is not a file"), "{why}");
    }
}
