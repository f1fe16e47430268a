//! The files of a repository in a local directory.
//!
//! Ours, although the library's family has one: that one does not sync the directory a file is renamed into, so a loss of
//! power can take an acknowledged file; it skips what it cannot list, and a pruning that sees half the index deletes the other
//! half's data; and its errors do not tell a full disk. Layout: restic's `doc/design.rst`, "Repository Layout".
//!
//! One of these serves one operation: it remembers the first failure, because the library's threads lose it on the way, and
//! it can hold files back that must not exist before something else was proven.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustic_core::{
    ALL_FILE_TYPES, BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend,
};

use crate::error::VaultError;
use crate::place;

/// Packs kept open: small files lie next to each other in one, and several are read at once.
const OPEN_PACKS: usize = 16;
const WRITE_BUFFER: usize = 1 << 20;
/// Marks a file that is not complete; what carries it after a crash is garbage.
pub(crate) const UNFINISHED: &str = "-tmp-";

pub(crate) struct Directory {
    root: PathBuf,
    /// Where a pack is damaged: only these packs are listed, so that the library does not count on the others.
    sound: Option<BTreeSet<Id>>,
    /// Files of these types are kept in memory until they are released.
    holding: Option<FileType>,
    held: Mutex<Vec<(Id, BytesList)>>,
    failure: Mutex<Option<Failure>>,
    open: Mutex<Vec<(Id, Arc<File>)>>,
}

/// What a disk answers that cannot read its own sectors.
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

struct Failure {
    what: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl Directory {
    pub(crate) fn new(root: PathBuf) -> Self {
        let empty = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { root, sound: None, holding: None, held: empty.0, failure: empty.1, open: empty.2 }
    }

    pub(crate) fn listing_only(mut self, sound: BTreeSet<Id>) -> Self {
        self.sound = Some(sound);
        self
    }

    pub(crate) fn holding(mut self, kind: FileType) -> Self {
        self.holding = Some(kind);
        self
    }

    /// Writes what was held back.
    pub(crate) fn release(&self) -> Result<(), VaultError> {
        let Some(kind) = self.holding else { return Ok(()) };
        for (id, content) in locked(&self.held).drain(..) {
            self.write(kind, &id, &content).map_err(|failure| failure.into_error())?;
        }
        Ok(())
    }

    /// What an error of the library really was: the first thing that failed here, else what it says.
    pub(crate) fn explain(&self, error: &RusticError) -> VaultError {
        match locked(&self.failure).take() {
            Some(failure) if failure.is_damage() => {
                VaultError::Broken { detail: format!("{}: {}", failure.path.display(), failure.error) }
            }
            Some(failure) => failure.into_error(),
            None => VaultError::Broken { detail: error.display_log() },
        }
    }

    fn path(&self, kind: FileType, id: &Id) -> PathBuf {
        let hex = id.to_hex();
        match kind {
            FileType::Config => self.root.join("config"),
            FileType::Pack => self.root.join("data").join(&hex[..2]).join(hex.as_str()),
            _ => self.root.join(kind.dirname()).join(hex.as_str()),
        }
    }

    /// How long a pack is; none where there is none.
    pub(crate) fn pack_size(&self, id: &Id) -> RusticResult<Option<u64>> {
        let path = self.path(FileType::Pack, id);
        self.told(match path.metadata() {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("look at", &path)(error)),
        })
    }

    fn list_files(&self, kind: FileType, look: impl Fn(&Path) -> io::Result<u64>) -> Result<Vec<(Id, u32)>, Failure> {
        let size = |path: &Path| match look(path) {
            // Pruned since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // A pack is bounded by the format to 32 bits; larger is not ours, and none is expected to be equal to this.
            Ok(size) => Ok(Some(u32::try_from(size).unwrap_or(u32::MAX))),
            Err(error) => Err(failed("look at", path)(error)),
        };
        if kind == FileType::Config {
            let path = self.root.join("config");
            let there = path.try_exists().map_err(failed("look at", &path))?;
            return Ok(size(&path)?.filter(|_| there).map(|size| (Id::default(), size)).into_iter().collect());
        }
        let top = self.root.join(kind.dirname());
        let directories = match kind {
            FileType::Pack => {
                entries(&top)?.into_iter().filter(|path| path.file_name().is_some_and(|n| n.len() == 2)).collect()
            }
            _ => vec![top],
        };
        let mut found = Vec::new();
        for directory in directories {
            for path in entries(&directory)? {
                let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Id>().ok());
                let Some(id) = id.filter(|id| kind != FileType::Pack || self.is_sound(id)) else { continue };
                found.extend(size(&path)?.map(|size| (id, size)));
            }
        }
        Ok(found)
    }

    fn is_sound(&self, id: &Id) -> bool {
        self.sound.as_ref().is_none_or(|sound| sound.contains(id))
    }

    fn write(&self, kind: FileType, id: &Id, content: &BytesList) -> Result<(), Failure> {
        let path = self.path(kind, id);
        let temporary = {
            let unique = place::beside(&path);
            unique.with_file_name(unique.file_name().unwrap_or_default().to_string_lossy().trim_start_matches('.'))
        };
        let written = (|| {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            let mut writer = BufWriter::with_capacity(WRITE_BUFFER, file);
            content.slice().iter().try_for_each(|part| writer.write_all(part))?;
            writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
        })();
        let placed = written.and_then(|()| fs::rename(&temporary, &path));
        if placed.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        placed.map_err(failed("write", &path))?;
        let parent = place::parent(&path);
        File::open(parent).and_then(|d| d.sync_all()).map_err(failed("sync", parent))
    }

    fn pack(&self, kind: FileType, id: &Id) -> io::Result<Arc<File>> {
        let mut open = locked(&self.open);
        if let Some(at) = open.iter().position(|(known, _)| known == id) {
            let entry = open.remove(at);
            let file = Arc::clone(&entry.1);
            open.push(entry);
            return Ok(file);
        }
        let file = Arc::new(File::open(self.path(kind, id))?);
        if open.len() >= OPEN_PACKS {
            open.remove(0);
        }
        open.push((*id, Arc::clone(&file)));
        Ok(file)
    }

    /// Tells the library, and remembers the first one for [`Self::explain`].
    fn told<T>(&self, result: Result<T, Failure>) -> RusticResult<T> {
        result.map_err(|failure| {
            let said = format!("cannot {} {}: {}", failure.what, failure.path.display(), failure.error);
            let kind = failure.error.kind();
            locked(&self.failure).get_or_insert(failure);
            RusticError::with_source(ErrorKind::Backend, said, io::Error::from(kind))
        })
    }
}

impl Failure {
    /// A file the index counts on that is gone, too short or unreadable by the disk: nothing that passes.
    fn is_damage(&self) -> bool {
        let kinds = [io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof];
        self.what == "read" && (kinds.contains(&self.error.kind()) || self.error.raw_os_error() == Some(EIO))
    }

    fn into_error(self) -> VaultError {
        VaultError::io(self.what, &self.path, self.error)
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure { what, path: path.to_owned(), error }
}

/// A thread that panicked while it held one of these locks left a list that is still a list.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let listed = fs::read_dir(directory).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    listed.map_err(failed("list", directory))
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("root", &self.root).finish_non_exhaustive()
    }
}

impl ReadBackend for Directory {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn list(&self, kind: FileType) -> RusticResult<Vec<Id>> {
        let files = self.told(self.list_files(kind, |_| Ok(0)))?;
        Ok(files.into_iter().map(|(id, _)| id).collect())
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        self.told(self.list_files(kind, |path| Ok(path.metadata()?.len())))
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        let path = self.path(kind, id);
        self.told(fs::read(&path).map(Bytes::from).map_err(failed("read", &path)))
    }

    fn read_partial(&self, kind: FileType, id: &Id, _cacheable: bool, offset: u32, length: u32) -> RusticResult<Bytes> {
        let read = self.pack(kind, id).and_then(|file| {
            let mut bytes = vec![0; length as usize];
            file.read_exact_at(&mut bytes, offset.into())?;
            Ok(Bytes::from(bytes))
        });
        self.told(read.map_err(failed("read", &self.path(kind, id))))
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        self.path(kind, id).display().to_string()
    }
}

impl WriteBackend for Directory {
    fn create(&self) -> RusticResult<()> {
        let make = |path: PathBuf| {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed("create", &path))
        };
        let made = ALL_FILE_TYPES
            .iter()
            .filter(|kind| !matches!(kind, FileType::Config))
            .map(|kind| self.root.join(kind.dirname()))
            // restic locks what it opens, and wants the directory for it to be there.
            .chain([self.root.join("locks")])
            .chain((0..=u8::MAX).map(|first| self.root.join("data").join(format!("{first:02x}"))))
            .try_for_each(make);
        self.told(made)
    }

    fn write_bytes(&self, kind: FileType, id: &Id, _cacheable: bool, content: BytesList) -> RusticResult<()> {
        if self.holding == Some(kind) {
            locked(&self.held).push((*id, content));
            return Ok(());
        }
        self.told(self.write(kind, id, &content))
    }

    fn remove(&self, kind: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        let path = self.path(kind, id);
        self.told(fs::remove_file(&path).map_err(failed("remove", &path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(dir.path().join("repository"));
        directory.create().unwrap();
        (dir, directory)
    }

    #[test]
    fn files_come_back_as_written_and_unfinished_ones_are_not_listed() {
        let (_dir, directory) = made();
        let id: Id = "ab".repeat(32).parse().unwrap();
        directory.write_bytes(FileType::Pack, &id, false, b"0123456789".to_vec().into()).unwrap();
        fs::write(directory.path(FileType::Pack, &id).with_extension("-tmp-1-2"), b"half").unwrap();
        assert_eq!(directory.list_with_size(FileType::Pack).unwrap(), [(id, 10)]);
        assert_eq!(directory.read_full(FileType::Pack, &id).unwrap(), b"0123456789"[..]);
        assert_eq!(directory.read_partial(FileType::Pack, &id, false, 3, 4).unwrap(), b"3456"[..]);
        directory.remove(FileType::Pack, &id, false).unwrap();
        assert_eq!(directory.list(FileType::Pack).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_listed_is_an_error_not_an_absence() {
        let (_dir, directory) = made();
        fs::remove_dir(directory.root.join("index")).unwrap();
        assert!(directory.list(FileType::Index).is_err());
    }

    #[test]
    fn the_first_failure_is_remembered() {
        let (_dir, directory) = made();
        let id: Id = "ab".repeat(32).parse().unwrap();
        fs::remove_dir(directory.root.join("data/ab")).unwrap();
        fs::write(directory.root.join("data/ab"), b"").unwrap();
        let error = directory.write_bytes(FileType::Pack, &id, false, b"x".to_vec().into()).unwrap_err();
        assert!(matches!(directory.explain(&error), VaultError::Io { what: "write", .. }));
    }

    #[test]
    fn held_files_appear_when_released() {
        let (_dir, directory) = made();
        let directory = directory.holding(FileType::Snapshot);
        let id: Id = "cd".repeat(32).parse().unwrap();
        directory.write_bytes(FileType::Snapshot, &id, false, b"x".to_vec().into()).unwrap();
        assert_eq!(directory.list(FileType::Snapshot).unwrap(), []);
        directory.release().unwrap();
        assert_eq!(directory.list(FileType::Snapshot).unwrap(), [id]);
    }
}
