//! Puts a file in its place: whole, checked by the writer, and on the disk, or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags};

use crate::VaultError;
use crate::error::Trying;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// A name beside `path` that no other process and no other call uses. All of them end in `-tmp-...`, so that a sweep knows them.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    // Long names leave no room for a suffix; the number alone already makes this one unique.
    name.push(path.file_name().filter(|name| name.len() < 200).unwrap_or_default());
    name.push(format!("-tmp-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

/// The directory that `path` is an entry of.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes what happened to the entries of a directory last over a loss of power.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), VaultError> {
    File::open(directory).and_then(|d| d.sync_all()).trying("sync", directory)
}

/// Writes a file that must not be there yet.
pub(crate) fn new_file<T>(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> Result<T, VaultError>,
) -> Result<T, VaultError> {
    written(path, mode, write, |temporary| {
        match rustix::fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => Err(VaultError::Exists { path: path.to_owned() }),
            done => done.trying("create", path),
        }
    })
}

/// Writes a file, in the place of the one that may be there.
pub(crate) fn file<T>(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> Result<T, VaultError>,
) -> Result<T, VaultError> {
    written(path, mode, write, |temporary| fs::rename(temporary, path).trying("replace", path))
}

fn written<T>(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> Result<T, VaultError>,
    put: impl FnOnce(&Path) -> Result<(), VaultError>,
) -> Result<T, VaultError> {
    let temporary = beside(path);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).trying("create", &temporary)?;
    let done = write(&mut file)
        .and_then(|value| {
            // After the writing: the mode may forbid writing, and changing the owner takes set-user-id bits away.
            rustix::fs::fchmod(&file, mode.into()).trying("set the mode of", &temporary)?;
            file.sync_all().trying("sync", &temporary)?;
            Ok(value)
        })
        .and_then(|value| put(&temporary).map(|()| value));
    if done.is_err() {
        // The first error is the one to tell; a leftover is swept later.
        let _ = fs::remove_file(&temporary);
    }
    let value = done?;
    sync_directory(parent(path))?;
    Ok(value)
}
