//! What SQLite says, for the person: whether trying again helps, and what to do.

use ripcord_core::{Seq, StoreError};
use rusqlite::{Error, ErrorCode};

/// How long a statement waits for another process before it gives up.
pub(crate) const BUSY: std::time::Duration = std::time::Duration::from_secs(10);

pub(crate) fn down(error: &Error) -> StoreError {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("another process kept it locked for {}; nothing was written, trying again is safe", ripcord_core::human(BUSY))
        }
        Some(ErrorCode::DiskFull) => "the disk is full: free some space, nothing is lost".to_owned(),
        Some(ErrorCode::ReadOnly) => "it can only be read: check its permissions and the mount".to_owned(),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            "it cannot be opened: check that it exists and its permissions".to_owned()
        }
        Some(ErrorCode::SystemIoFailure) => "the disk reports errors: check the disk and the free space".to_owned(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "the file is damaged: stop all processes, keep a copy of it with its `-wal` beside it, and put a backup in its place".to_owned()
        }
        _ => "this is not expected; trying again may help".to_owned(),
    };
    StoreError::Unavailable { why: format!("{advice} (SQLite: {error})") }
}

/// An error at the commit itself: most are certain, a failing disk is not.
pub(crate) fn in_doubt(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::SystemIoFailure))
}

/// A row that does not say what this program writes.
pub(crate) fn damaged(at: Seq, what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged { at, why: format!("{what}: {error}") }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn each_cause_has_its_advice() {
        let said = |code| {
            let error = Error::SqliteFailure(ffi::Error::new(code), None);
            down(&error).to_string()
        };
        for (code, words) in [
            (ffi::SQLITE_BUSY, "locked for 10 s"),
            (ffi::SQLITE_FULL, "free some space"),
            (ffi::SQLITE_READONLY, "permissions and the mount"),
            (ffi::SQLITE_CANTOPEN, "check that it exists"),
            (ffi::SQLITE_IOERR, "check the disk"),
            (ffi::SQLITE_CORRUPT, "put a backup in its place"),
            (ffi::SQLITE_NOTADB, "put a backup in its place"),
        ] {
            assert!(said(code).contains(words), "{}", said(code));
        }
    }
}
