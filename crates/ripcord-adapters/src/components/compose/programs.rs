//! Which version a Compose program is, remembered by its file: the older one takes half a second to say it.
//!
//! Only of a program that is one file: `docker compose` is a plug-in of another, which is not seen from here, and answers fast.
//! What cannot be read or kept is asked again.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use serde::{Deserialize, Serialize};

use super::cli::Version;

/// A file, as long as nobody writes it anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds of the last write, and of the last change of any kind.
    written: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Known(BTreeMap<PathBuf, (Identity, Version)>);

/// The file that a command of one word is, found as a shell finds it.
pub(super) fn file_of(argv: &[String], environment: &BTreeMap<String, String>) -> Option<(PathBuf, Identity)> {
    let [word] = argv else { return None };
    let paths = environment.get("PATH").cloned().or_else(|| env::var("PATH").ok())?;
    let places: Vec<PathBuf> = match word.contains('/') {
        true => vec![PathBuf::from(word)],
        false => env::split_paths(&paths).map(|place| place.join(word)).collect(),
    };
    let runs = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0);
    let path = fs::canonicalize(places.into_iter().find(runs)?).ok()?;
    let meta = fs::metadata(&path).ok()?;
    let identity = Identity {
        device: meta.dev(),
        inode: meta.ino(),
        length: meta.len(),
        written: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    };
    Some((path, identity))
}

fn read(known: &Path) -> Known {
    fs::read(known).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

pub(super) fn version_of(known: &Path, (path, identity): &(PathBuf, Identity)) -> Option<Version> {
    let (kept, version) = read(known).0.remove(path)?;
    (kept == *identity).then_some(version)
}

pub(super) fn remember(known: &Path, (path, identity): (PathBuf, Identity), version: Version) {
    let mut all = read(known);
    all.0.insert(path, (identity, version));
    let Ok(bytes) = serde_json::to_vec(&all) else { return };
    // Others may write it at the same time: either is right.
    let temporary = known.with_extension(process::id().to_string());
    let parent = known.parent().map(fs::create_dir_all);
    if parent.is_some_and(|made| made.is_ok()) && fs::write(&temporary, bytes).is_ok() {
        let _ = fs::rename(&temporary, known);
    }
    let _ = fs::remove_file(&temporary);
}
