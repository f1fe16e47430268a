//! What going back would lose: the rows of one database that another does not have, table by table.

use std::collections::BTreeMap;

use ripcord_core::RowLoss;
use rusqlite::Connection;

use super::database::{Key, SqlError, Table, quoted, tables};

/// The schema name under which the capture's database is attached.
pub(super) const CAPTURED: &str = "captured";

/// How one table differs, and the questions that list its rows.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) table: Table,
    pub(super) loss: RowLoss,
    /// Rows of the live table that the capture lacks; rows of it that the capture has otherwise; rows of the capture that it
    /// lacks. Each lists [`Difference::shown`], where the key is a row number that first.
    pub(super) inserted: Option<String>,
    pub(super) updated: Option<String>,
    pub(super) deleted: Option<String>,
    /// The columns a row is shown with, of the live table; for deleted rows those the capture has too.
    pub(super) shown: Vec<String>,
    pub(super) shown_deleted: Vec<String>,
    /// The columns a statement can write in the restored table.
    pub(super) written: Vec<String>,
    /// Whether the restored database will have the table.
    pub(super) restored: bool,
    pub(super) notes: Vec<String>,
}

/// Compares the tables of `main` with those of [`CAPTURED`]. A table that cannot be compared says so in its notes.
pub(super) fn differences(db: &Connection) -> Result<Vec<Difference>, SqlError> {
    let by_name = |schema| -> Result<BTreeMap<String, Table>, SqlError> {
        Ok(tables(db, schema)?.into_iter().map(|table| (table.name.to_lowercase(), table)).collect())
    };
    let (live, mut captured) = (by_name("main")?, by_name(CAPTURED)?);
    let mut found = Vec::new();
    for (name, live) in live {
        found.push(both(db, live, captured.remove(&name)));
    }
    for (_, gone) in captured {
        found.push(only_captured(db, gone));
    }
    Ok(found.into_iter().filter(|difference| difference.loss.total() > 0 || !difference.notes.is_empty()).collect())
}

fn list(prefix: &str, names: &[String]) -> Vec<String> {
    names.iter().map(|name| format!("{prefix}.{}", quoted(name))).collect()
}

fn both(db: &Connection, live: Table, captured: Option<Table>) -> Difference {
    let name = quoted(&live.name);
    let all: Vec<String> = live.columns.iter().map(|column| column.name.clone()).collect();
    let stored: Vec<String> = live.stored().map(str::to_owned).collect();
    let rowid = match &live.key {
        Key::Rowid(rowid) => Some(*rowid),
        _ => None,
    };
    let select = |from: &str, columns: &[String]| {
        let number = rowid.map(|rowid| format!("{from}.{rowid}"));
        number.into_iter().chain(list(from, columns)).collect::<Vec<_>>().join(", ")
    };
    let Some(captured) = captured else {
        let inserted = format!("SELECT {} FROM main.{name} AS l", select("l", &all));
        let notes = vec!["the restored database does not have this table".to_owned()];
        let difference = Difference {
            loss: RowLoss::default(),
            inserted: Some(inserted),
            updated: None,
            deleted: None,
            shown: all,
            shown_deleted: vec![],
            written: stored,
            restored: false,
            notes: vec![],
            table: live,
        };
        let mut difference = counted(db, difference);
        if difference.loss.total() > 0 {
            difference.notes.extend(notes);
        }
        return difference;
    };
    let has = |table: &Table, name: &str| table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(name));
    let common: Vec<String> =
        stored.iter().filter(|name| captured.stored().any(|c| c.eq_ignore_ascii_case(name))).cloned().collect();
    let added: Vec<String> = stored.iter().filter(|name| !has(&captured, name)).cloned().collect();
    let shown_deleted: Vec<String> = all.iter().filter(|name| has(&captured, name)).cloned().collect();
    let mut notes = Vec::new();
    if !added.is_empty() {
        notes.push(format!("columns the restored table does not have: {}", added.join(", ")));
    }
    let same_key = match (&live.key, &captured.key) {
        (Key::Columns(a), Key::Columns(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.eq_ignore_ascii_case(b))
        }
        (Key::Rowid(a), Key::Rowid(b)) => a == b,
        _ => false,
    };
    let matched = match &live.key {
        Key::Columns(names) if same_key => {
            let names = names.iter().map(|name| quoted(name));
            names.map(|name| format!("l.{name} IS c.{name}")).collect::<Vec<_>>().join(" AND ")
        }
        Key::Rowid(rowid) if same_key => format!("l.{rowid} = c.{rowid}"),
        // Rows without an identity that both sides know: equal ones are the same.
        _ => match common.is_empty() {
            true => "FALSE".to_owned(),
            false => common.iter().map(|name| same(name)).collect::<Vec<_>>().join(" AND "),
        },
    };
    if !same_key {
        notes.push(
            "no key tells its rows apart, so that a changed row counts as one deleted and one inserted".to_owned(),
        );
    }
    let differs: Vec<String> = common
        .iter()
        .map(|name| format!("NOT ({})", same(name)))
        .chain(added.iter().map(|name| format!("l.{} IS NOT NULL", quoted(name))))
        .collect();
    let differs = if differs.is_empty() { "FALSE".to_owned() } else { differs.join(" OR ") };
    let (live_rows, captured_rows) =
        (format!("main.{name} AS l"), format!("{CAPTURED}.{} AS c", quoted(&captured.name)));
    let difference = Difference {
        loss: RowLoss::default(),
        inserted: Some(format!(
            "SELECT {} FROM {live_rows} WHERE NOT EXISTS (SELECT 1 FROM {captured_rows} WHERE {matched})",
            select("l", &all)
        )),
        updated: Some(format!(
            "SELECT {} FROM {live_rows} JOIN {captured_rows} ON {matched} WHERE {differs}",
            select("l", &all)
        )),
        deleted: Some(format!(
            "SELECT {} FROM {captured_rows} WHERE NOT EXISTS (SELECT 1 FROM {live_rows} WHERE {matched})",
            select("c", &shown_deleted)
        )),
        shown: all,
        shown_deleted,
        written: common,
        restored: true,
        notes: vec![],
        table: live,
    };
    let mut difference = counted(db, difference);
    if difference.loss.total() > 0 {
        difference.notes.extend(notes);
    }
    difference
}

/// A comparison that sees every difference: bytes, not the column's collation, and 1 is not 1.0.
fn same(name: &str) -> String {
    let name = quoted(name);
    format!("(l.{name} COLLATE BINARY IS c.{name} AND typeof(l.{name}) = typeof(c.{name}))")
}

fn only_captured(db: &Connection, captured: Table) -> Difference {
    let all: Vec<String> = captured.columns.iter().map(|column| column.name.clone()).collect();
    let columns = list("c", &all).join(", ");
    let number = match &captured.key {
        Key::Rowid(rowid) => format!("c.{rowid}, "),
        _ => String::new(),
    };
    let deleted = format!("SELECT {number}{columns} FROM {CAPTURED}.{} AS c", quoted(&captured.name));
    let difference = Difference {
        loss: RowLoss::default(),
        inserted: None,
        updated: None,
        deleted: Some(deleted),
        shown: all.clone(),
        shown_deleted: all,
        written: vec![],
        restored: true,
        notes: vec![],
        table: captured,
    };
    let mut difference = counted(db, difference);
    if difference.loss.total() > 0 {
        difference.notes.push("the live database did not have this table any more".to_owned());
    }
    difference
}

fn counted(db: &Connection, mut difference: Difference) -> Difference {
    let count = |question: &Option<String>| -> Result<u64, SqlError> {
        let Some(question) = question else { return Ok(0) };
        let counted: i64 = db.query_row(&format!("SELECT count(*) FROM ({question})"), [], |row| row.get(0))?;
        Ok(counted.unsigned_abs())
    };
    let counts = (count(&difference.inserted), count(&difference.updated), count(&difference.deleted));
    match counts {
        (Ok(inserted), Ok(updated), Ok(deleted)) => difference.loss = RowLoss { inserted, updated, deleted },
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            difference.notes.push(format!("its rows could not be compared: {error}"));
        }
    }
    difference
}
