//! The values that a way down gives up, written out before it does: one CSV file per table, and per column that goes from a table
//! that stays (with the rest of its row, so that a person finds where it belongs).
//!
//! Each file gets its name when all of it is on the disk. One that an earlier try wrote is replaced as long as the values are there to
//! be written again, and stays when they are not. Text is quoted and null is not, so that the two are told apart.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ripcord_core::{Cx, Digest, Failure};

use super::Inner;
use super::database::{Session, name};
use super::schema::{Goes, Schema};
use crate::components::files::{FileError, Trying, blocking, point, sync};
use crate::postgres::quoted;

/// How many rows are in memory at once.
const ROWS: usize = 10_000;

impl Inner {
    /// Writes what `is` holds and `target` has no place for. Returns the directory, where anything was written.
    pub(super) async fn salvage(
        &self,
        cx: &Cx,
        key: &str,
        is: &Schema,
        target: &Schema,
    ) -> Result<Option<PathBuf>, Failure> {
        let goes = is.goes(target);
        if goes.is_empty() {
            return Ok(None);
        }
        let run = cx.run.as_ref().map_or_else(|| key.to_owned(), ToString::to_string);
        let directory = self.cx.base.join(format!("{}.salvage-{run}", self.captures.component()));
        let session = self.live.database.open(self.looking()).await?;
        let mut written = false;
        for one in &goes {
            let columns = is.columns(one.table());
            written |= table(&session, one, &columns, &directory).await?;
            point("salvaged");
        }
        Ok(written.then_some(directory))
    }
}

/// Writes a table's rows. Whether there were any.
async fn table(session: &Session, goes: &Goes, columns: &[String], directory: &Path) -> Result<bool, Failure> {
    let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    let from = name(goes.table());
    let wanted = match goes {
        Goes::Table(_) => String::new(),
        Goes::Column { column, .. } => format!(" WHERE {} IS NOT NULL", quoted(column)),
    };
    let asked = format!("SELECT {} FROM {from}{wanted}", names.join(", "));
    let mut file: Option<Csv> = None;
    let mut pages = session.pages(&asked, ROWS).await?;
    while let Some(rows) = pages.next().await? {
        let (open, directory, shown) = (file.take(), directory.to_owned(), goes.shown());
        let columns = columns.to_vec();
        let write = move |_: &_| -> Result<Csv, FileError> {
            let mut csv = match open {
                Some(csv) => csv,
                None => Csv::create(&directory, &shown, &columns)?,
            };
            rows.iter().try_for_each(|row| csv.line(row.iter().map(Option::as_deref)))?;
            Ok(csv)
        };
        file = Some(blocking(write).await??);
    }
    let Some(csv) = file else { return Ok(false) };
    blocking(move |_| csv.end()).await??;
    Ok(true)
}

/// A file while it is written.
struct Csv {
    out: BufWriter<fs::File>,
    part: PathBuf,
    path: PathBuf,
}

impl Csv {
    fn create(directory: &Path, shown: &str, columns: &[String]) -> Result<Self, FileError> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).trying("create", directory)?;
        let stem = stem(shown);
        let (path, part) = (directory.join(format!("{stem}.csv")), directory.join(format!("{stem}.csv.part")));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
        let mut csv = Self { out: BufWriter::new(file.trying("create", &part)?), part, path };
        csv.line(columns.iter().map(|column| Some(column.as_str())))?;
        Ok(csv)
    }

    fn line<'a>(&mut self, values: impl Iterator<Item = Option<&'a str>>) -> Result<(), FileError> {
        let words =
            values.map(|value| value.map(|text| format!("\"{}\"", text.replace('"', "\"\""))).unwrap_or_default());
        let line = words.collect::<Vec<_>>().join(",");
        writeln!(self.out, "{line}").trying("write", &self.part)
    }

    fn end(mut self) -> Result<(), FileError> {
        self.out.flush().trying("write", &self.part)?;
        drop(self.out);
        sync(&self.part)?;
        fs::rename(&self.part, &self.path).trying("rename", &self.part)?;
        sync(self.path.parent().unwrap_or(Path::new(".")))
    }
}

/// A name of a table or column as a file's: readable where it can be, its own always.
fn stem(shown: &str) -> String {
    let plain: String =
        shown.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).take(80).collect();
    let plain = plain.trim_start_matches('.').to_owned();
    match plain == shown {
        true => plain,
        false => format!("{plain}-{}", &Digest::of(shown.as_bytes()).hex()[..8]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_what_is_in_them_and_stay_where_they_are() {
        assert_eq!(stem("public.tasks.note"), "public.tasks.note");
        assert_ne!(stem("a/b"), stem("a?b"));
        assert!(!stem("../../etc").contains('/'));
    }

    #[test]
    fn null_is_told_from_empty_text() {
        let dir = tempfile::tempdir().unwrap();
        let mut csv = Csv::create(&dir.path().join("x"), "t", &["id".into(), "say \"hi\"".into()]).unwrap();
        csv.line([Some("1"), None].into_iter()).unwrap();
        csv.line([Some("2"), Some("")].into_iter()).unwrap();
        csv.end().unwrap();
        let text = std::fs::read_to_string(dir.path().join("x/t.csv")).unwrap();
        assert_eq!(text, "\"id\",\"say \"\"hi\"\"\"\n\"1\",\n\"2\",\"\"\n");
        assert_eq!(std::fs::read_dir(dir.path().join("x")).unwrap().count(), 1);
    }
}
