//! What is recorded beside a dump, in the same capture: what the restored database must turn out to be, and what tells how much was
//! written since.

use std::collections::BTreeMap;

use ripcord_core::{Digest, Failure, Made, Revision};
use serde::{Deserialize, Serialize};

use super::catalog::{Attributes, State};
use super::schema;
use crate::components::files::captures::{self, Captures};
use crate::postgres::{PgError, Session, quoted};

/// Where the dump lies in a capture, and beside it what is known of it.
pub(super) const DUMP: &str = "dump";
pub(super) const ABOUT: &str = "about.json";

/// Tables up to so many bytes are counted row by row; of others the server's estimate is recorded.
const COUNTED: i64 = 16 << 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) version: u16,
    /// The server's identifier, which a copy of its files shares.
    pub(super) system: String,
    pub(super) database: String,
    pub(super) server: i32,
    /// The major of the `pg_dump` that wrote it.
    pub(super) dumped_by: u32,
    pub(super) lsn: String,
    pub(super) timeline: i32,
    /// Whether nobody wrote while it was captured: then what the log has up to the position is what was captured, row for row.
    #[serde(default)]
    pub(super) quiet: bool,
    /// Its name in the write-ahead log, where the role may leave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) restore_point: Option<String>,
    pub(super) revision: Revision,
    pub(super) bytes: i64,
    pub(super) attributes: Attributes,
    /// Name and version.
    pub(super) extensions: BTreeMap<String, String>,
    pub(super) roles: Vec<String>,
    pub(super) tables: BTreeMap<String, Rows>,
    /// Digest and lines of the structure.
    pub(super) structure: Digest,
    pub(super) lines: Vec<String>,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Rows {
    Counted(u64),
    /// By the server's last analysis; none where it never made one.
    Estimated(Option<u64>),
}

/// What a restored database must have in common with what was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Same {
    /// Its definitions, and as many rows in each table that was counted.
    Rows,
    /// Its definitions; its rows are of another moment.
    Definitions,
}

impl About {
    pub(super) fn label(&self) -> String {
        let all = self.tables.values().map(|rows| match rows {
            Rows::Counted(n) => *n,
            Rows::Estimated(n) => n.unwrap_or_default(),
        });
        let about = if self.tables.values().all(|rows| matches!(rows, Rows::Counted(_))) { "" } else { "about " };
        format!("LSN {}, {about}{} rows, schema {}", self.lsn, all.sum::<u64>(), &self.structure.hex()[..6])
    }
}

/// What was recorded beside a capture's dump.
pub(super) fn about(captures: &Captures, made: &Made) -> Result<About, Failure> {
    let manifest = captures::manifest(made)?;
    let bytes = captures.bytes(&manifest, ABOUT)?;
    let about: About = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::never(format!("what is recorded beside the dump cannot be read: {error}")))?;
    match about.revision == made.revision {
        true => Ok(about),
        false => {
            let (is, to) = (about.revision.short(), made.revision.short());
            Err(Failure::never(format!("the capture holds {is}, not {to}")).advise("choose another capture"))
        }
    }
}

/// The tables' rows, as the session's snapshot has them.
pub(super) async fn rows(session: &Session) -> Result<BTreeMap<String, Rows>, PgError> {
    let question = "SELECT n.nspname::text, c.relname::text, pg_relation_size(c.oid), c.reltuples::float8 \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
           AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_class'::regclass AND x.objid = c.oid AND x.deptype = 'e') \
         ORDER BY 1, 2";
    let mut all = BTreeMap::new();
    for row in session.query(question, &[]).await? {
        let (space, name, estimate): (String, String, f64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
        // A table that was dropped while the list was read has no size any more.
        let Some(bytes) = row.try_get::<_, Option<i64>>(2)? else { continue };
        let rows = match bytes <= COUNTED {
            true => Rows::Counted(count(session, &space, &name).await?),
            false => Rows::Estimated((estimate >= 0.0).then_some(estimate as u64)),
        };
        all.insert(format!("{space}.{name}"), rows);
    }
    Ok(all)
}

pub(super) async fn count(session: &Session, space: &str, name: &str) -> Result<u64, PgError> {
    let question = format!("SELECT count(*) FROM ONLY {}.{}", quoted(space), quoted(name));
    let counted: i64 = session.query_one(&question, &[]).await?.try_get(0)?;
    Ok(counted.unsigned_abs())
}

pub(super) async fn extensions(session: &Session) -> Result<BTreeMap<String, String>, PgError> {
    let rows = session.query("SELECT extname::text, extversion FROM pg_extension", &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The roles that something in the database belongs or is granted to.
pub(super) async fn roles(session: &Session) -> Result<Vec<String>, PgError> {
    let question = "SELECT DISTINCT pg_get_userbyid(d.refobjid)::text FROM pg_shdepend d \
         WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype IN ('o', 'a', 'r') \
           AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1";
    let rows = session.query(question, &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Why a restored database is not what was captured; none where it is.
pub(super) async fn differs(session: &Session, about: &About, same: Same) -> Result<Option<String>, PgError> {
    let lines = schema::lines(session).await?;
    if schema::prints(&lines).0 != about.structure {
        let what = schema::differing(&about.lines, &lines).join("; ");
        return Ok(Some(format!("its definitions are not the captured ones: {what}")));
    }
    for (name, rows) in about.tables.iter().filter(|_| same == Same::Rows) {
        let Rows::Counted(captured) = rows else { continue };
        // A schema's name may have a dot in it, so the table is found by the whole.
        let question = "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname || '.' || c.relname = $1 AND c.relkind = 'r'";
        let Some(row) = session.query_opt(question, &[name]).await? else {
            return Ok(Some(format!("the table {name} is not in it")));
        };
        let restored = count(session, row.try_get(0)?, row.try_get(1)?).await?;
        if restored != *captured {
            return Ok(Some(format!("{name} has {restored} rows, and {captured} were captured")));
        }
    }
    Ok(None)
}
