//! The rows a restore gives up, written out so that a person can bring them back: one CSV and one SQL file per table.
//!
//! In the CSV files the first column says what happened to the row, text is quoted and null is not, so that the two are told
//! apart; bytes are `x'..'`. The SQL files, run on the restored database, do again what was done since the capture.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use jiff::Timestamp;
use ripcord_core::{Failure, Loss, Revision, RowLoss};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};

use super::compare::Difference;
use super::database::{Key, SqlError, quoted};
use crate::components::files::{FileError, Owner, Trying, own, point, remove, rename_new, sync};

/// What was salvaged, for programs; the layout is versioned because it outlives us.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) version: u16,
    pub(super) database: String,
    /// The revision restored, and when its capture was made.
    pub(super) restored: Revision,
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

const SUMMARY: &str = "summary.json";

/// Writes the files, whole or not at all, to `directory`; what a killed try of ours left there is replaced.
pub(super) fn write(
    db: &Connection,
    differences: &[Difference],
    mut summary: Summary,
    directory: &Path,
    to: Owner,
) -> Result<(), Failure> {
    let mut part = directory.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    remove(part)?;
    point("salvage");
    DirBuilder::new().mode(0o700).create(part).trying("create", part)?;
    for (number, difference) in differences.iter().enumerate() {
        let stem = file_stem(&difference.table.name, number);
        let (csv, sql) = (format!("{stem}.csv"), format!("{stem}.sql"));
        let mut notes = difference.notes.clone();
        if let Err(error) =
            csv_file(db, difference, &part.join(&csv)).and_then(|()| sql_file(db, difference, &part.join(&sql)))
        {
            match error {
                Trouble::File(error) => return Err(error.into()),
                // A damaged part of the old database is no reason to keep the system down: it is set aside whole.
                Trouble::Sql(error) => notes.push(format!("not all of its rows could be read: {error}")),
            }
        }
        let table = difference.table.name.clone();
        summary.tables.push(Salvaged { table, rows: difference.loss, csv, sql, notes });
        point("salvage table");
    }
    let json = serde_json::to_vec_pretty(&summary).map_err(|error| Failure::never(error.to_string()))?;
    let path = part.join(SUMMARY);
    file(&path).and_then(|mut file| file.write_all(&json).trying("write", &path))?;
    for entry in fs::read_dir(part).and_then(|list| list.collect::<Result<Vec<_>, _>>()).trying("list", part)? {
        own(&entry.path(), to)?;
        sync(&entry.path())?;
    }
    own(part, to)?;
    sync(part)?;
    remove(directory)?;
    Ok(rename_new(part, directory)?)
}

pub(super) fn summary(directory: &Path) -> Option<Summary> {
    serde_json::from_slice(&fs::read(directory.join(SUMMARY)).ok()?).ok()
}

enum Trouble {
    File(FileError),
    Sql(SqlError),
}

impl From<FileError> for Trouble {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}
impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error.into())
    }
}

fn file(path: &Path) -> Result<File, FileError> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).trying("create", path)
}

/// A table's name as a file's: readable where it can be, unique always.
fn file_stem(table: &str, number: usize) -> String {
    let plain: String =
        table.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).take(80).collect();
    match plain == table {
        true => plain,
        false => format!("{plain}-{number}"),
    }
}

/// Asks a question and takes each row, its key's row number apart.
fn each(
    db: &Connection,
    difference: &Difference,
    question: Option<&String>,
    mut take: impl FnMut(Option<i64>, &[ValueRef<'_>]) -> Result<(), FileError>,
) -> Result<(), Trouble> {
    let Some(question) = question else { return Ok(()) };
    let numbered = matches!(difference.table.key, Key::Rowid(_));
    let mut statement = db.prepare(question)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let number = if numbered { Some(row.get(0)?) } else { None };
        let values: Vec<_> = (usize::from(numbered)..columns).map(|i| row.get_ref(i)).collect::<Result<_, _>>()?;
        take(number, &values)?;
    }
    Ok(())
}

fn csv_file(db: &Connection, difference: &Difference, path: &Path) -> Result<(), Trouble> {
    let mut out = BufWriter::new(file(path)?);
    let header: Vec<_> = difference.shown.iter().map(|name| csv_text(name)).collect();
    writeln!(out, "change,{}", header.join(",")).trying("write", path)?;
    let questions =
        [("inserted", &difference.inserted), ("updated", &difference.updated), ("deleted", &difference.deleted)];
    for (change, question) in questions {
        let columns = if change == "deleted" { &difference.shown_deleted } else { &difference.shown };
        each(db, difference, question.as_ref(), |_, values| {
            let mut line = change.to_owned();
            for name in &difference.shown {
                line.push(',');
                if let Some(i) = columns.iter().position(|column| column == name) {
                    line.push_str(&csv_value(values[i]));
                }
            }
            writeln!(out, "{line}").trying("write", path)
        })?;
    }
    Ok(out.flush().trying("write", path)?)
}

fn csv_text(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn csv_value(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => csv_text(text),
            Err(_) => literal(value),
        },
        _ => literal(value),
    }
}

/// A value as SQL takes it, exactly.
fn literal(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(x) if x.is_infinite() => if x > 0.0 { "9e999" } else { "-9e999" }.to_owned(),
        ValueRef::Real(x) => format!("{x:?}"),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            // A zero byte would end the statement.
            Ok(text) if !text.contains('\0') => format!("'{}'", text.replace('\'', "''")),
            _ => format!("CAST({} AS TEXT)", hex(bytes)),
        },
        ValueRef::Blob(bytes) => hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = "x'".to_owned();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\'');
    text
}

fn sql_file(db: &Connection, difference: &Difference, path: &Path) -> Result<(), Trouble> {
    let mut out = BufWriter::new(file(path)?);
    let mut put = |text: &str| writeln!(out, "{text}").trying("write", path);
    let table = quoted(&difference.table.name);
    put("-- Does again, in the restored database, what was done since the capture.")?;
    for note in &difference.notes {
        put(&format!("-- {}", note.replace('\n', " ")))?;
    }
    for trigger in triggers(db, &difference.table.name)? {
        put(&format!(
            "-- trigger {} will run: drop it first if its effects are among the other tables' rows",
            trigger.replace('\n', " ")
        ))?;
    }
    if !difference.restored {
        put("-- It was defined as:")?;
        for line in difference.table.sql.lines() {
            put(&format!("--   {line}"))?;
        }
    }
    put("BEGIN;")?;
    let at = |columns: &[String], name: &String| columns.iter().position(|column| column == name);
    let written = &difference.written;
    each(db, difference, difference.inserted.as_ref(), |_, values| {
        let row = written.iter().filter_map(|name| at(&difference.shown, name)).map(|i| literal(values[i]));
        let names = written.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        put(&format!("INSERT INTO {table} ({names}) VALUES ({});", row.collect::<Vec<_>>().join(", ")))
    })?;
    each(db, difference, difference.updated.as_ref(), |number, values| {
        let row = written.iter().filter_map(|name| Some((name, at(&difference.shown, name)?)));
        let set =
            row.map(|(name, i)| format!("{} = {}", quoted(name), literal(values[i]))).collect::<Vec<_>>().join(", ");
        put(&format!("UPDATE {table} SET {set} WHERE {};", condition(difference, &difference.shown, number, values)))
    })?;
    each(db, difference, difference.deleted.as_ref(), |number, values| {
        put(&format!("DELETE FROM {table} WHERE {};", condition(difference, &difference.shown_deleted, number, values)))
    })?;
    put("COMMIT;")?;
    Ok(out.flush().trying("write", path)?)
}

/// What finds a row again.
fn condition(difference: &Difference, columns: &[String], number: Option<i64>, values: &[ValueRef<'_>]) -> String {
    let is = |name: &String| {
        let value = columns.iter().position(|column| column == name).map_or(ValueRef::Null, |i| values[i]);
        format!("{} IS {}", quoted(name), literal(value))
    };
    match (&difference.table.key, number) {
        (Key::Rowid(rowid), Some(number)) => format!("{rowid} = {number}"),
        (Key::Columns(names), _) => names.iter().map(is).collect::<Vec<_>>().join(" AND "),
        _ => columns.iter().map(is).collect::<Vec<_>>().join(" AND "),
    }
}

fn triggers(db: &Connection, table: &str) -> Result<Vec<String>, rusqlite::Error> {
    let question =
        "SELECT name FROM main.sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(?1) ORDER BY name";
    let mut statement = db.prepare(question)?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_spelled_so_that_sqlite_reads_them_back() {
        let db = Connection::open_in_memory().unwrap();
        let values = [
            ValueRef::Null,
            ValueRef::Integer(i64::MIN + 1),
            ValueRef::Real(0.1),
            ValueRef::Real(1.0),
            ValueRef::Real(1e300),
            ValueRef::Real(f64::INFINITY),
            ValueRef::Text("it's \"quoted\"; é\n".as_bytes()),
            ValueRef::Text(b"a\0b"),
            ValueRef::Text(b"\xff"),
            ValueRef::Text(b""),
            ValueRef::Blob(b"\x00\xff"),
            ValueRef::Blob(b""),
        ];
        for value in values {
            let mut statement = db.prepare(&format!("SELECT {}", literal(value))).unwrap();
            let mut rows = statement.query([]).unwrap();
            assert_eq!(rows.next().unwrap().unwrap().get_ref(0).unwrap(), value, "{}", literal(value));
        }
    }

    #[test]
    fn null_is_told_from_empty_text() {
        assert_eq!(csv_value(ValueRef::Null), "");
        assert_eq!(csv_value(ValueRef::Text(b"")), "\"\"");
        assert_eq!(csv_value(ValueRef::Text(b"a \"b\"")), "\"a \"\"b\"\"\"");
    }

    #[test]
    fn tables_with_odd_names_have_files_of_their_own() {
        assert_eq!(file_stem("orders", 3), "orders");
        assert_ne!(file_stem("a/b", 0), file_stem("a?b", 1));
        assert!(!file_stem("../../etc", 0).contains(['/', '.']));
    }
}
