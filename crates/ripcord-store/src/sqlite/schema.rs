//! The schema, and how an older file is brought up to it.
//!
//! The record's own tables change by hand-written steps. What is folded from the journal is never migrated: it is dropped and folded
//! anew from the events, which is also how a mistake in the folding would be mended.

use std::time::Instant;

use ripcord_core::{AppendError, Seq, StoreError};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::error::{BUSY, down};
use super::tables::{COLUMNS, Sql, int, raw};
use crate::materialise::{Folds, materialise};

/// "ripc": tells our files from anybody else's.
const OURS: i64 = 0x7269_7063;

enum Step {
    Record(&'static str),
    /// The folded tables as they now are, filled from the journal.
    Fold,
}

/// Each step makes a file of the version before it into the next. Never change one that was released; add one.
const STEPS: &[Step] = &[Step::Record(include_str!("record.sql")), Step::Fold];

/// A connection to a file that is there.
pub(crate) fn connect(path: &std::path::Path, write: bool) -> Result<Connection, StoreError> {
    let mode = if write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(64);
        // FULL: a commit acknowledged survives a power cut. Elsewhere than on macOS the last two mean nothing.
        connection.execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;
             PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;",
        )?;
        Ok(connection)
    };
    open().map_err(|error| down(&error))
}

/// How a file stands to this program.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    Current,
    /// Of this version; 0 is an empty file.
    Older(usize),
}

pub(crate) fn look(connection: &Connection) -> Result<Found, StoreError> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|error| down(&error));
    let version = number("PRAGMA user_version")?;
    if number("PRAGMA application_id")? != OURS {
        return match version == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0 {
            true => Ok(Found::Older(0)),
            false => Err(StoreError::Unavailable { why: "the file there is not one of Ripcord's".to_owned() }),
        };
    }
    match usize::try_from(version) {
        Ok(version) if version == STEPS.len() => Ok(Found::Current),
        Ok(version) if version < STEPS.len() => Ok(Found::Older(version)),
        _ => Err(StoreError::Newer {
            found: u32::try_from(version).unwrap_or(u32::MAX),
            known: u32::try_from(STEPS.len()).unwrap_or(u32::MAX),
        }),
    }
}

/// Brings the file up to this version, once, whoever else is trying.
pub(crate) fn bring_up(connection: &mut Connection) -> Result<(), StoreError> {
    if look(connection)? == Found::Current {
        return Ok(());
    }
    write_ahead(connection)?;
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| down(&error))?;
    let Found::Older(version) = look(&transaction)? else { return Ok(()) };
    tracing::info!(from = version, to = STEPS.len(), "bringing the store up to this version");
    for step in &STEPS[version..] {
        match step {
            Step::Record(sql) => transaction.execute_batch(sql).map_err(|error| down(&error))?,
            Step::Fold => fold(&transaction)?,
        }
    }
    transaction
        .execute_batch(&format!("PRAGMA application_id = {OURS}; PRAGMA user_version = {};", STEPS.len()))
        .and_then(|()| transaction.commit())
        .map_err(|error| down(&error))
}

/// The mode is kept in the file. Changing it needs the file for oneself, for which SQLite does not always wait.
fn write_ahead(connection: &Connection) -> Result<(), StoreError> {
    let deadline = Instant::now() + BUSY;
    let mut wait = std::time::Duration::from_millis(1);
    loop {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                let why = format!("the file cannot be switched to a write-ahead log (it stays in mode `{mode}`)");
                return Err(StoreError::Unavailable { why });
            }
            Err(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) if Instant::now() < deadline => {
                    std::thread::sleep(wait);
                    wait = (wait * 2).min(std::time::Duration::from_millis(50));
                }
                _ => return Err(down(&error)),
            },
        }
    }
}

/// Makes the folded tables anew from the journals, in the order in which everything was committed.
fn fold(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch(include_str!("rows.sql")).map_err(|error| down(&error))?;
    let mut sql = Sql { connection, clock: None };
    let mut folds = Folds::default();
    let page = format!("SELECT {COLUMNS}, n FROM event WHERE n > ?1 ORDER BY n LIMIT 500");
    let mut last = 0;
    loop {
        let rows = sql.many(&page, [last], |row| Ok((raw(row)?, row.get::<_, i64>(13)?)))?;
        let Some((_, n)) = rows.last() else { return Ok(()) };
        last = int(*n);
        for (raw, _) in rows {
            let event = raw?.open()?;
            materialise(&mut sql, &mut folds, &event).map_err(|error| cannot_fold(event.seq, error))?;
        }
    }
}

pub(crate) fn cannot_fold(at: Seq, error: AppendError) -> StoreError {
    match error {
        AppendError::Down(StoreError::Unavailable { why }) => StoreError::Damaged { at, why },
        AppendError::Down(error) => error,
        AppendError::LostLease | AppendError::Conflict { .. } | AppendError::InDoubt { .. } => {
            StoreError::Damaged { at, why: error.to_string() }
        }
    }
}
