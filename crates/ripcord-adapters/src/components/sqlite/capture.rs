//! Captures: a copy made with SQLite's own online backup, found sound, and shown to come back.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use ripcord_core::{Before, CaptureId, CapturePurpose, Cx, Failure, Made, Proof, ProofLevel, Revision};
use ripcord_vault::{Manifest, Source};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use super::Inner;
use super::database::{SqlError, beside, copy, open_to_read, open_to_write, sound};
use crate::components::disk::room;
use crate::components::files::captures::{self, vault_failure};
use crate::components::files::{FileError, Live, Owner, Trying, make_directory, meta, owner, point, remove};

/// Where the database lies in a capture, and beside it what the vault does not keep of a file.
const CONTENT: &str = "database";
const ABOUT: &str = "about.json";

impl Inner {
    pub(super) fn capture(&self, cx: &Cx, purpose: CapturePurpose, before: &Before) -> Result<Proof, Failure> {
        let live = Live::through(&self.path)?;
        let Some(is) = live.meta()? else {
            let absent = vec![Source::Bytes { path: "absent".to_owned(), bytes: vec![], mode: 0o600 }];
            let manifest = self.captures.store(cx, &before.key, "the present state", absent)?;
            let made = captures::made(Revision::Absent, None, &manifest)?;
            return Ok(Proof { capture: Some(made), ..Proof::of(format!("{} is absent", self.shown)) });
        };
        room(&live.parent, "a copy of the database", size(&live)?.unwrap_or(0), 2)?;
        // Beside the database; others may not look in.
        let scratch = live.beside(&format!(".ripcord-{}.capture", before.key.file_name()));
        remove(&scratch)?;
        make_directory(&scratch)?;
        let made = private(&scratch).and_then(|()| self.capture_through(cx, purpose, before, &live, &is, &scratch));
        remove(&scratch)?;
        let made = made?;
        let how = if made.proof >= ProofLevel::Restored {
            "captured, restored to a scratch file and sound"
        } else {
            "captured and read back"
        };
        let label = made.label.clone().unwrap_or_default();
        Ok(Proof { capture: Some(made), ..Proof::of(format!("{} {how}: {label}", self.shown)) })
    }

    fn capture_through(
        &self,
        cx: &Cx,
        purpose: CapturePurpose,
        before: &Before,
        live: &Live,
        is: &fs::Metadata,
        scratch: &Path,
    ) -> Result<Made, Failure> {
        let path = scratch.join("copy");
        backup(&live.path, &path, cx.limit / 2)?;
        let content = sound(&path)?;
        point("capture");
        let about = json!({ "owner": owner(is), "tables": content.tables, "rows": content.rows });
        let about = serde_json::to_vec(&about).map_err(|error| Failure::never(error.to_string()))?;
        let reader = Box::new(File::open(&path).trying("open", &path)?);
        let sources = vec![
            Source::Stream { path: CONTENT.to_owned(), mode: is.mode() & 0o7777, reader },
            Source::Bytes { path: ABOUT.to_owned(), bytes: about, mode: 0o600 },
        ];
        let manifest = self.captures.store(cx, &before.key, "the present state", sources)?;
        let made = captures::made(content.revision.clone(), Some(content.label()), &manifest)?;
        if purpose == CapturePurpose::Evidence {
            return Ok(made);
        }
        remove(&path)?;
        self.captures.vault()?.restore_file(&manifest, CONTENT, &path, Some(0o600)).map_err(|e| vault_failure(&e))?;
        let back = sound(&path)?;
        match back == content {
            true => Ok(Made { proof: ProofLevel::Restored, ..made }),
            false => Err(Failure::never(format!("the capture came back as {}", back.revision.short()))),
        }
    }

    /// Restores a capture to a scratch file that is gone afterwards.
    pub(super) fn with_capture<T>(
        &self,
        id: &CaptureId,
        work: impl FnOnce(&Path) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let made = self.captures.record(id);
        let made = made.ok_or_else(|| Failure::never(format!("the record knows no capture `{id}`")))?;
        let scratch =
            tempfile::tempdir().map_err(|error| Failure::never(format!("no temporary directory: {error}")))?;
        let path = scratch.path().join("captured");
        room(scratch.path(), "reading the capture", made.bytes, 1)?;
        self.unpack(&captures::manifest(&made)?, &path, 0o600)?;
        work(&path)
    }

    /// Puts a capture's database at `path`, byte for byte.
    pub(super) fn unpack(&self, manifest: &Manifest, path: &Path, mode: u32) -> Result<(), Failure> {
        self.captures.vault()?.restore_file(manifest, CONTENT, path, Some(mode)).map_err(|error| vault_failure(&error))
    }

    /// The mode and owner the database had when it was captured.
    pub(super) fn had(&self, manifest: &Manifest) -> (u32, Option<Owner>) {
        let mode = manifest.entry(CONTENT).map_or(0o600, |entry| entry.mode);
        let about = self.captures.bytes(manifest, ABOUT).ok();
        let about: Option<serde_json::Value> = about.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        (mode, about.and_then(|about| serde_json::from_value(about.get("owner")?.clone()).ok()))
    }
}

/// What the live database takes: the file, and what is only in its log yet. None where there is none.
pub(super) fn size(live: &Live) -> Result<Option<u64>, FileError> {
    let [log, _, _] = beside(&live.path);
    let log = meta(&log)?.map_or(0, |log| log.len());
    Ok(live.meta()?.map(|file| file.len() + log))
}

fn private(directory: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).trying("set the mode of", directory)?;
    Ok(())
}

/// Copies the live database as of one moment, its log included, while others use it.
fn backup(live: &Path, to: &Path, patience: Duration) -> Result<(), SqlError> {
    // One that may write undoes what a dead writer left half done; where we may not, reading must do.
    let from = open_to_write(live, patience).or_else(|_| open_to_read(live))?;
    copy_to_new(&from, to)
}

/// Copies a database to a new file of our own, whole and on the disk. It is made without a journal: a half one is thrown away, and
/// a journal left by a kill could be taken for the next one's.
pub(super) fn copy_to_new(from: &Connection, to: &Path) -> Result<(), SqlError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copied = Connection::open_with_flags(to, flags)?;
    copied.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = FULL")?;
    copy(from, &mut copied)
}
