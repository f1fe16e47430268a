//! The rows a restore gives up, written out so that a person can bring them back: one CSV and one SQL file per table.
//!
//! In the CSV files the first column says what happened to the row; text is quoted and null is not, so that the two are told apart.
//! The SQL files, run on the restored database, do again what was done since the capture; a row that somebody brought back already
//! is left alone. A thread of its own writes, as rows are found; the directory gets its name when all of it is on the disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ripcord_core::{Failure, Loss, Revision, RowLoss};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::components::files::{FileError, Trying, point, remove, rename_new, sync};
use crate::postgres::{literal, quoted};

const SUMMARY: &str = "summary.json";
const README: &str = "README";
/// The tables in which tools keep which migrations a schema has had.
const RECORDS: [&str; 5] =
    ["_sqlx_migrations", "alembic_version", "django_migrations", "ripcord_migrations", "schema_migrations"];
const OF_A_RECORD: &str = "the record of a migration tool: its statements are commented out, because what they would claim of the schema \
    is not so in the restored database";

/// What was salvaged, for programs; the layout is versioned because it outlives us.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) version: u16,
    pub(super) database: String,
    /// The revision restored, and when its capture was made.
    pub(super) restored: Revision,
    /// The step that restored it.
    pub(super) key: String,
    pub(super) captured_at: Option<Timestamp>,
    pub(super) at: Timestamp,
    pub(super) tables: Vec<Salvaged>,
    pub(super) loss: Loss,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Salvaged {
    pub(super) table: String,
    pub(super) rows: RowLoss,
    pub(super) csv: String,
    pub(super) sql: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
}

/// What happened to a row since the capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Inserted,
    Updated,
    Deleted,
}

/// A table with rows to salvage.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) space: String,
    pub(super) name: String,
    pub(super) columns: Vec<String>,
    /// Those a statement can write in the restored table.
    pub(super) written: Vec<String>,
    /// What finds a row again; empty where only the whole row does.
    pub(super) key: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// What the thread that writes is told, in this order.
#[derive(Debug)]
pub(super) enum Event {
    Table(Box<Table>),
    Row(Change, Vec<Option<String>>),
    TableEnd(RowLoss),
    End(Box<Summary>),
}

/// Where a run's salvage goes.
pub(super) struct Salvage {
    path: PathBuf,
}

impl Salvage {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn summary(&self) -> Option<Summary> {
        serde_json::from_slice(&fs::read(self.path.join(SUMMARY)).ok()?).ok()
    }

    /// Takes away what was written for an exchange that was never made.
    pub(super) fn remove(&self) -> Result<(), FileError> {
        remove(&self.path)
    }

    /// Begins to write; what an earlier try wrote there is replaced. Nothing is there when nothing was given up.
    pub(super) fn begin(&self) -> (mpsc::Sender<Event>, JoinHandle<Result<(), Failure>>) {
        let (events, told) = mpsc::channel(256);
        let path = self.path.clone();
        (events, tokio::task::spawn_blocking(move || write(&path, told)))
    }
}

fn write(directory: &Path, mut told: mpsc::Receiver<Event>) -> Result<(), Failure> {
    let mut part = directory.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    remove(part)?;
    let mut tables: Vec<Salvaged> = vec![];
    let mut open: Option<Open> = None;
    while let Some(event) = told.blocking_recv() {
        match event {
            Event::Table(table) => {
                if tables.is_empty() {
                    point("salvage directory");
                    DirBuilder::new().mode(0o700).create(part).trying("create", part)?;
                }
                open = Some(Open::new(part, *table, tables.len())?);
            }
            Event::Row(change, values) => {
                if let Some(open) = &mut open {
                    open.row(change, &values)?;
                }
            }
            Event::TableEnd(rows) => {
                if let Some(open) = open.take() {
                    tables.push(open.end(rows)?);
                    point("salvage table");
                }
            }
            Event::End(summary) => return finish(directory, part, Summary { tables, ..*summary }),
        }
    }
    Ok(remove(part)?)
}

fn finish(directory: &Path, part: &Path, summary: Summary) -> Result<(), Failure> {
    let parent = directory.parent().unwrap_or(Path::new("."));
    if summary.loss.is_none() {
        return Ok(remove(directory)?);
    }
    if summary.tables.is_empty() {
        DirBuilder::new().mode(0o700).create(part).trying("create", part)?;
    }
    let json = serde_json::to_vec_pretty(&summary).map_err(|error| Failure::never(error.to_string()))?;
    let readme = readme(&summary);
    for (name, bytes) in [(SUMMARY, json.as_slice()), (README, readme.as_bytes())] {
        let path = part.join(name);
        file(&path).and_then(|mut file| file.write_all(bytes).trying("write", &path))?;
    }
    for entry in fs::read_dir(part).and_then(|list| list.collect::<Result<Vec<_>, _>>()).trying("list", part)? {
        sync(&entry.path())?;
    }
    sync(part)?;
    remove(directory)?;
    rename_new(part, directory)?;
    Ok(sync(parent)?)
}

fn readme(summary: &Summary) -> String {
    let when = summary.captured_at.map_or("its capture".to_owned(), |at| at.to_string());
    let mut text = format!(
        "The database {} was taken back to what it was at {when}.\n\
         These are the rows that were written to it since, and are not in it now.\n\n\
         *.csv  to be looked at: the first column says what happened to the row\n\
         *.sql  to be run on the restored database, in the order below that its foreign keys need:\n\
         \u{20}      psql --set ON_ERROR_STOP=1 --single-transaction --file FILE\n\n",
        summary.database
    );
    for table in &summary.tables {
        let RowLoss { inserted, updated, deleted } = table.rows;
        text.push_str(&format!("{}: {inserted} inserted, {updated} updated, {deleted} deleted\n", table.sql));
        table.notes.iter().for_each(|note| text.push_str(&format!("    {note}\n")));
    }
    text.push_str("\nSequences are as they were captured: set them beyond the numbers you bring back.\n");
    text
}

fn file(path: &Path) -> Result<File, FileError> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).trying("create", path)
}

/// A table's name as a file's: readable where it can be, unique always.
fn file_stem(table: &str, number: usize) -> String {
    let plain: String =
        table.chars().map(|c| if c.is_ascii_alphanumeric() || "_.".contains(c) { c } else { '-' }).take(80).collect();
    match plain == table && !plain.starts_with('.') {
        true => plain,
        false => format!("{}-{number}", plain.trim_start_matches('.')),
    }
}

/// The two files of one table.
struct Open {
    table: Table,
    csv: (PathBuf, BufWriter<File>),
    sql: (PathBuf, BufWriter<File>),
}

impl Open {
    fn new(directory: &Path, mut table: Table, number: usize) -> Result<Self, FileError> {
        if RECORDS.contains(&table.name.as_str()) {
            table.notes.push(OF_A_RECORD.to_owned());
        }
        let stem = file_stem(&format!("{}.{}", table.space, table.name), number);
        let create = |extension: &str| {
            let path = directory.join(format!("{stem}.{extension}"));
            file(&path).map(|file| (path, BufWriter::new(file)))
        };
        let mut open = Self { csv: create("csv")?, sql: create("sql")?, table };
        let header: Vec<String> = open.table.columns.iter().map(|name| csv_text(name)).collect();
        open.csv(&format!("change,{}", header.join(",")))?;
        open.sql("-- Does again, in the restored database, what was done since the capture.")?;
        for note in open.table.notes.clone() {
            open.sql(&format!("-- {}", note.replace(['\n', '\r'], " ")))?;
        }
        open.sql("SET standard_conforming_strings = on;")?;
        Ok(open)
    }

    fn csv(&mut self, line: &str) -> Result<(), FileError> {
        writeln!(self.csv.1, "{line}").trying("write", &self.csv.0)
    }

    fn sql(&mut self, line: &str) -> Result<(), FileError> {
        writeln!(self.sql.1, "{line}").trying("write", &self.sql.0)
    }

    fn row(&mut self, change: Change, values: &[Option<String>]) -> Result<(), FileError> {
        let named = match change {
            Change::Inserted => "inserted",
            Change::Updated => "updated",
            Change::Deleted => "deleted",
        };
        let shown = (0..self.table.columns.len())
            .map(|at| values.get(at).and_then(Option::as_deref).map_or(String::new(), csv_text));
        let line = format!("{named},{}", shown.collect::<Vec<_>>().join(","));
        self.csv(&line)?;
        let statement = statement(&self.table, change, values);
        match RECORDS.contains(&self.table.name.as_str()) {
            true => self.sql(&format!("-- {}", statement.replace(['\n', '\r'], " "))),
            false => self.sql(&statement),
        }
    }

    fn end(mut self, rows: RowLoss) -> Result<Salvaged, FileError> {
        self.csv.1.flush().trying("write", &self.csv.0)?;
        self.sql.1.flush().trying("write", &self.sql.0)?;
        let name = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
        let table = format!("{}.{}", self.table.space, self.table.name);
        Ok(Salvaged { table, rows, csv: name(&self.csv.0), sql: name(&self.sql.0), notes: self.table.notes })
    }
}

fn csv_text(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn statement(table: &Table, change: Change, values: &[Option<String>]) -> String {
    let value = |name: &String| {
        let at = table.columns.iter().position(|column| column == name);
        at.and_then(|at| values.get(at)).and_then(Option::as_deref)
    };
    let spelled = |name: &String| value(name).map_or("NULL".to_owned(), literal);
    let into = format!("{}.{}", quoted(&table.space), quoted(&table.name));
    // Of a deleted row only the columns that both sides have were read.
    let known = &table.columns[..values.len().min(table.columns.len())];
    let condition = || {
        let by = if table.key.is_empty() { known } else { table.key.as_slice() };
        // As text, because not every type can be compared; a key's own comparison is what its index is for.
        let is = |name: &String| match (value(name), table.key.is_empty()) {
            (None, _) => format!("{} IS NULL", quoted(name)),
            (Some(text), true) => format!("{}::text = {}", quoted(name), literal(text)),
            (Some(text), false) => format!("{} = {}", quoted(name), literal(text)),
        };
        by.iter().map(is).collect::<Vec<_>>().join(" AND ")
    };
    match change {
        Change::Inserted => {
            let names = table.written.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
            let row = table.written.iter().map(spelled).collect::<Vec<_>>().join(", ");
            format!("INSERT INTO {into} ({names}) OVERRIDING SYSTEM VALUE VALUES ({row}) ON CONFLICT DO NOTHING;")
        }
        Change::Updated => {
            let set = table.written.iter().filter(|name| !table.key.contains(name));
            let set = set.map(|name| format!("{} = {}", quoted(name), spelled(name))).collect::<Vec<_>>().join(", ");
            match set.is_empty() {
                true => format!("-- a row of {into} differs only in what cannot be written"),
                false => format!("UPDATE {into} SET {set} WHERE {};", condition()),
            }
        }
        // Where only the whole row finds it, one of several equal ones.
        Change::Deleted if table.key.is_empty() => {
            format!("DELETE FROM {into} WHERE ctid = (SELECT ctid FROM {into} WHERE {} LIMIT 1);", condition())
        }
        Change::Deleted => format!("DELETE FROM {into} WHERE {};", condition()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(key: &[&str]) -> Table {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Table {
            space: "public".into(),
            name: "or\"ders".into(),
            columns: names(&["id", "what", "sum"]),
            written: names(&["id", "what"]),
            key: names(key),
            notes: vec![],
        }
    }

    fn values(of: &[Option<&str>]) -> Vec<Option<String>> {
        of.iter().map(|value| value.map(str::to_owned)).collect()
    }

    #[test]
    fn statements_do_again_what_was_done() {
        let row = values(&[Some("1"), Some("it's"), Some("7")]);
        let keyed = table(&["id"]);
        insta::assert_snapshot!(statement(&keyed, Change::Inserted, &row), @r#"INSERT INTO "public"."or""ders" ("id", "what") OVERRIDING SYSTEM VALUE VALUES ('1', 'it''s') ON CONFLICT DO NOTHING;"#);
        insta::assert_snapshot!(statement(&keyed, Change::Updated, &values(&[Some("1"), None, None])), @r#"UPDATE "public"."or""ders" SET "what" = NULL WHERE "id" = '1';"#);
        insta::assert_snapshot!(statement(&keyed, Change::Deleted, &row), @r#"DELETE FROM "public"."or""ders" WHERE "id" = '1';"#);
        insta::assert_snapshot!(statement(&table(&[]), Change::Deleted, &values(&[Some("1"), None])), @r#"DELETE FROM "public"."or""ders" WHERE ctid = (SELECT ctid FROM "public"."or""ders" WHERE "id"::text = '1' AND "what" IS NULL LIMIT 1);"#);
    }

    #[test]
    fn null_is_told_from_empty_text_and_names_from_paths() {
        assert_eq!(csv_text("a \"b\""), "\"a \"\"b\"\"\"");
        assert_eq!(file_stem("public.orders", 3), "public.orders");
        assert_ne!(file_stem("public.a/b", 0), file_stem("public.a?b", 1));
        assert!(!file_stem("../../etc", 0).starts_with('.') && !file_stem("../../etc", 0).contains('/'));
    }

    #[test]
    fn the_record_of_a_migration_tool_is_kept_and_not_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let written = |name: &str| {
            let table = Table { name: name.into(), ..table(&["id"]) };
            let mut open = Open::new(dir.path(), table, 0).unwrap();
            open.row(Change::Inserted, &values(&[Some("1"), Some("two\nlines"), Some("7")])).unwrap();
            let salvaged = open.end(RowLoss { inserted: 1, ..RowLoss::default() }).unwrap();
            let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
            (read(&salvaged.csv), read(&salvaged.sql), salvaged.notes)
        };
        let (csv, sql, notes) = written("alembic_version");
        assert!(csv.contains("two\nlines"), "{csv}");
        let does = |line: &&str| !line.starts_with("--") && !line.starts_with("SET ");
        assert_eq!(sql.lines().filter(does).count(), 0, "{sql}");
        assert!(sql.contains("-- INSERT INTO") && notes[0].starts_with("the record of a migration tool"), "{sql}");
        let (_, sql, notes) = written("orders");
        assert!(sql.contains("\nINSERT INTO") && notes.is_empty(), "{sql}");
    }
}
