//! What the database itself says was applied, in the table of the project's own tool.
//!
//! Sources: Alembic (`alembic_version`: one row for each head), Django (`django_migrations`: one row for each), sqlx
//! (`_sqlx_migrations`: one row for each, `success` cleared while it runs), golang-migrate (`schema_migrations`: one row, `dirty` while
//! it runs). For plain files a table with a column `version`, one row for each.

use std::collections::BTreeSet;

use ripcord_core::{Digest, Revision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database::{DbError, Session, Table, text};

/// Whose migrations these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    Alembic,
    Django,
    /// Files `<version>_<name>.up.sql` and `.down.sql`, recorded as sqlx does.
    Sqlx,
    /// Files `<version>_<name>.up.sql` and `.down.sql`, recorded as golang-migrate does.
    GolangMigrate,
    /// Files `<version>_<name>.up.sql` and `.down.sql`, or `V<version>__<name>.sql` and `U<version>__<name>.sql`, recorded in a table
    /// `ripcord_migrations` with a column `version`.
    Sql,
}

impl Tool {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Alembic => "alembic",
            Self::Django => "django",
            Self::Sqlx => "sqlx",
            Self::GolangMigrate => "golang-migrate",
            Self::Sql => "sql",
        }
    }

    pub(super) fn table(self) -> &'static str {
        match self {
            Self::Alembic => "alembic_version",
            Self::Django => "django_migrations",
            Self::Sqlx => "_sqlx_migrations",
            Self::GolangMigrate => "schema_migrations",
            Self::Sql => "ripcord_migrations",
        }
    }

    /// Whether its migrations are files of SQL that Ripcord runs itself.
    pub(super) fn is_files(self) -> bool {
        matches!(self, Self::Sqlx | Self::GolangMigrate | Self::Sql)
    }

    /// The identity of a state: the same marks are the same revision, in whatever database.
    pub(super) fn revision(self, marks: &BTreeSet<String>) -> Revision {
        let name = self.name();
        let id = match (self, marks.len()) {
            (_, 0) => format!("{name}:base"),
            (Self::Alembic | Self::GolangMigrate, 1..=4) => {
                format!("{name}:{}", marks.iter().cloned().collect::<Vec<_>>().join("+"))
            }
            (Self::Sqlx | Self::Sql, _) => {
                let digest = Digest::of_value(marks).to_string();
                let hex = digest.rsplit(':').next().unwrap_or_default();
                format!("{name}:{}-{}", last(marks), &hex[..hex.len().min(16)])
            }
            _ => {
                let digest = Digest::of_value(marks).to_string();
                let hex = digest.rsplit(':').next().unwrap_or_default();
                format!("{name}:{}", &hex[..hex.len().min(32)])
            }
        };
        Revision::exact(id)
    }

    /// Where a database is, for a person.
    pub(super) fn label(self, marks: &BTreeSet<String>) -> String {
        match (self, marks.len()) {
            (_, 0) => "nothing applied".to_owned(),
            (Self::Alembic | Self::GolangMigrate, _) => {
                format!("at {}", marks.iter().cloned().collect::<Vec<_>>().join(" and "))
            }
            (Self::Django, n) => format!("{n} migrations applied"),
            (Self::Sqlx | Self::Sql, n) => format!("at {}, {n} migrations applied", last(marks)),
        }
    }
}

/// The newest of the versions, as numbers are ordered.
fn last(marks: &BTreeSet<String>) -> String {
    marks.iter().max_by(|a, b| by_number(a, b)).cloned().unwrap_or_default()
}

/// Versions in the order they are applied: as numbers where they are (`2` before `10`), part by part (`1.9` before `1.10`).
pub(super) fn by_number(a: &str, b: &str) -> std::cmp::Ordering {
    let key = |text: &str| {
        let parts = text.split(['.', '_']).map(|part| (part.parse::<u128>().unwrap_or(u128::MAX), part.to_owned()));
        parts.collect::<Vec<_>>()
    };
    key(a).cmp(&key(b))
}

/// A version as tools read it: `0003` is 3.
pub(super) fn short(version: &str) -> String {
    match version.trim_start_matches('0') {
        "" => "0".to_owned(),
        short => short.to_owned(),
    }
}

/// What the table said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) marks: BTreeSet<String>,
    /// Why the state is none that can be gone on from.
    pub(super) dirty: Option<String>,
}

pub(super) async fn read(tool: Tool, session: &Session, table: &Table) -> Result<Record, DbError> {
    if !table.there {
        return Ok(Record::default());
    }
    let from = table.sql();
    let asked = match tool {
        Tool::Alembic => format!("SELECT version_num FROM {from}"),
        Tool::Django => format!("SELECT app || '.' || name FROM {from}"),
        Tool::Sqlx => format!("SELECT version, CASE WHEN success THEN 'ok' ELSE 'dirty' END FROM {from}"),
        Tool::GolangMigrate => format!("SELECT version, CASE WHEN dirty THEN 'dirty' ELSE 'ok' END FROM {from}"),
        Tool::Sql => format!("SELECT version FROM {from}"),
    };
    let mut record = Record::default();
    for row in session.query(&asked).await? {
        let mut row = row.into_iter();
        let Some(mark) = row.next().flatten() else { continue };
        if row.next().flatten().as_deref() == Some("dirty") {
            record.dirty = Some(format!("migration {mark} was begun and not finished"));
        }
        // How golang-migrate says that it was on the way to nothing.
        if tool == Tool::GolangMigrate && mark.starts_with('-') {
            continue;
        }
        // Whoever records plain files may write `0003`.
        record.marks.insert(if tool == Tool::Sql { short(&mark) } else { mark });
    }
    Ok(record)
}

/// A migration of files that is taken back or applied.
pub(super) struct Applied<'a> {
    pub(super) version: &'a str,
    pub(super) name: &'a str,
    /// The script's SHA-384, in hexadecimal.
    pub(super) checksum: &'a str,
    /// The version before it, as golang-migrate counts.
    pub(super) previous: Option<&'a str>,
}

/// The statements that record a migration as its tool would, for the transaction that runs it.
pub(super) fn recorded(tool: Tool, table: &Table, of: &Applied<'_>, up: bool, postgres: bool) -> String {
    let (into, version) = (table.sql(), text(of.version));
    match (tool, up) {
        (Tool::Sqlx, true) => {
            let checksum = if postgres { format!("'\\x{}'", of.checksum) } else { format!("x'{}'", of.checksum) };
            let name = text(&of.name.replace('_', " "));
            format!(
                "INSERT INTO {into} (version, description, success, checksum, execution_time) VALUES ({}, {name}, TRUE, {checksum}, -1)",
                of.version
            )
        }
        (Tool::Sqlx, false) => format!("DELETE FROM {into} WHERE version = {}", of.version),
        (Tool::GolangMigrate, up) => {
            let now = if up { Some(of.version) } else { of.previous };
            set(table, now, false)
        }
        (_, true) => format!("INSERT INTO {into} (version) VALUES ({version})"),
        (_, false) => {
            let bare = text(of.version.trim_start_matches('0'));
            format!("DELETE FROM {into} WHERE ltrim(CAST(version AS TEXT), '0') = {bare}")
        }
    }
}

/// Marks a migration that runs outside a transaction as begun; none where the tool has no such mark.
pub(super) fn begun(tool: Tool, table: &Table, of: &Applied<'_>, up: bool) -> Option<String> {
    match tool {
        Tool::GolangMigrate => Some(set(table, if up { Some(of.version) } else { of.previous }, true)),
        Tool::Sqlx if !up => Some(format!("UPDATE {} SET success = FALSE WHERE version = {}", table.sql(), of.version)),
        _ => None,
    }
}

/// How golang-migrate keeps its one row.
fn set(table: &Table, version: Option<&str>, dirty: bool) -> String {
    let into = table.sql();
    match version {
        Some(version) => format!("DELETE FROM {into}; INSERT INTO {into} (version, dirty) VALUES ({version}, {dirty})"),
        None if dirty => format!("DELETE FROM {into}; INSERT INTO {into} (version, dirty) VALUES (-1, {dirty})"),
        None => format!("DELETE FROM {into}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|mark| (*mark).to_owned()).collect()
    }

    #[test]
    fn a_revision_is_told_by_what_was_applied() {
        let id = |tool: Tool, list: &[&str]| tool.revision(&marks(list));
        assert_eq!(id(Tool::Alembic, &[]), Revision::exact("alembic:base"));
        assert_eq!(id(Tool::Alembic, &["b", "a"]), Revision::exact("alembic:a+b"));
        assert_eq!(id(Tool::GolangMigrate, &["12"]), Revision::exact("golang-migrate:12"));
        assert_ne!(id(Tool::Sqlx, &["1", "3"]), id(Tool::Sqlx, &["1", "2", "3"]), "one that was left out is seen");
        assert_eq!(Tool::Sqlx.label(&marks(&["2", "10"])), "at 10, 2 migrations applied");
        assert_ne!(id(Tool::Django, &["a.0001"]), id(Tool::Django, &["b.0001"]));
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        let mut list = vec!["10", "9", "1.10", "1.9", "20240101120000"];
        list.sort_by(|a, b| by_number(a, b));
        assert_eq!(list, ["1.9", "1.10", "9", "10", "20240101120000"]);
    }

    #[test]
    fn the_tools_own_tables_are_kept_as_the_tools_keep_them() {
        let table = Table { there: true, path: vec!["t".to_owned()] };
        let of = Applied { version: "3", name: "add_x", checksum: "ab", previous: Some("2") };
        let first = Applied { previous: None, ..of };
        let said = |tool, up| recorded(tool, &table, &of, up, true);
        assert_eq!(said(Tool::Sql, false), "DELETE FROM \"t\" WHERE ltrim(CAST(version AS TEXT), '0') = '3'");
        assert!(
            said(Tool::Sqlx, true).ends_with("VALUES (3, 'add x', TRUE, '\\xab', -1)"),
            "{}",
            said(Tool::Sqlx, true)
        );
        let down = "DELETE FROM \"t\"; INSERT INTO \"t\" (version, dirty) VALUES (2, false)";
        assert_eq!(said(Tool::GolangMigrate, false), down);
        assert_eq!(recorded(Tool::GolangMigrate, &table, &first, false, true), "DELETE FROM \"t\"");
        assert!(begun(Tool::GolangMigrate, &table, &first, false).unwrap().contains("(-1, true)"));
    }
}
