//! What the file kinds do to a disk: one function per effect, each durable or not done, each a place to be killed at.
//!
//! Names are resolved once ([`Live`]), so that whatever happens to links meanwhile, one work is about one place.

pub(crate) mod captures; // captures as the kinds of files use them
pub(crate) mod one; // a component that is one small file

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ripcord_config::Mistake;
use ripcord_core::{Failure, Outcome, Proof, Readers, Retry, TargetId};
use rustix::fs::{AtFlags, CWD, FlockOperation, Gid, RenameFlags, Uid};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::Deserialize;

/// What a restore means for the components that need this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReadersSetting {
    /// They notice by themselves.
    Hot,
    /// They go on running, and are restarted after it.
    Restart,
    /// They are stopped before it and started after it.
    Stop,
}

impl From<ReadersSetting> for Readers {
    fn from(setting: ReadersSetting) -> Self {
        match setting {
            ReadersSetting::Hot => Self::Hot,
            ReadersSetting::Restart => Self::Restart,
            ReadersSetting::Stop => Self::Stop,
        }
    }
}

/// Mistakes in a `path` of settings.
pub(crate) fn path_mistakes(path: &Path) -> Vec<Mistake> {
    let mistake = match path.components().next_back() {
        None => Some("the path is empty"),
        Some(Component::Normal(_)) => None,
        Some(_) => Some("the path has no name at its end"),
    };
    let help = "name the file or directory itself, such as `shared/app.env`";
    mistake.map(|what| Mistake::new(what).at("path").help(help)).into_iter().collect()
}

/// What can go wrong with files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("no space to {what} {}: {source}", path.display())]
    NoSpace { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is on a file system that cannot exchange two names at once", path.display())]
    NoExchange { path: PathBuf },
    #[error("another work on {} is not done yet", path.display())]
    Busy { path: PathBuf },
    #[error("{} has no name of its own", path.display())]
    NoName { path: PathBuf },
    #[error("the caller gave up waiting")]
    Halted,
}

impl FileError {
    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::NoSpace { what, path, source }
            }
            _ => Self::Io { what, path, source },
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let advice = match &error {
            FileError::NoSpace { .. } => {
                Some("free space or raise the limit, then retry; the live state was not touched")
            }
            FileError::NoExchange { .. } => Some("keep it on ext4, xfs, btrfs or tmpfs"),
            FileError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run as the owner of the place, or give this user the right to write there")
            }
            _ => None,
        };
        let retry = match &error {
            FileError::Busy { .. } | FileError::Halted => Retry::Later,
            FileError::Io { source, .. } if source.kind() == io::ErrorKind::Interrupted => Retry::Later,
            _ => Retry::Never,
        };
        Self { what: error.to_string(), retry, advice: advice.map(str::to_owned), output: None }
    }
}

/// How a work ended short of its goal: certainly before it, or nobody can say.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Failure),
    Unknown(String),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<FileError> for Stop {
    fn from(error: FileError) -> Self {
        Self::Failed(error.into())
    }
}

impl Stop {
    /// For errors after the goal was reached: what is left to tidy is for the next look to find.
    pub(crate) fn after(error: &FileError) -> Self {
        Self::Unknown(error.to_string())
    }
}

pub(crate) fn outcome(ended: Result<Proof, Stop>) -> Outcome {
    match ended {
        Ok(proof) => Outcome::Done(proof),
        Err(Stop::Failed(failure)) => Outcome::Failed(failure),
        Err(Stop::Unknown(why)) => Outcome::Unknown { why },
    }
}

/// Adds what was tried, and where, to an error of the operating system.
pub(crate) trait Trying<T> {
    fn trying(self, what: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T> Trying<T> for io::Result<T> {
    fn trying(self, what: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError::io(what, path, source))
    }
}

impl<T> Trying<T> for Result<T, Errno> {
    fn trying(self, what: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(io::Error::from).trying(what, path)
    }
}

/// Whether the caller still waits: asked between effects, so that a dropped call ends soon.
#[derive(Clone, Default)]
pub(crate) struct Halt(Arc<AtomicBool>);

impl Halt {
    pub(crate) fn check(&self) -> Result<(), FileError> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(FileError::Halted),
            false => Ok(()),
        }
    }

    /// Halts when what is returned is dropped.
    pub(crate) fn on_drop(&self) -> HaltOnDrop {
        HaltOnDrop(self.clone())
    }
}

pub(crate) struct HaltOnDrop(Halt);

impl Drop for HaltOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Runs blocking work off the runtime. When the future is dropped the work is told to halt; it holds the lock of its place until
/// it did, so that nobody else begins there meanwhile.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce(&Halt) -> T + Send + 'static,
{
    let halt = Halt::default();
    let _guard = halt.on_drop();
    let inner = halt.clone();
    tokio::task::spawn_blocking(move || work(&inner))
        .await
        .map_err(|error| Failure::never(format!("unexpected: the work ended by itself ({error})")))
}

/// A place in the file system: a resolved directory and a name in it, whether or not something is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) path: PathBuf,
    pub(crate) parent: PathBuf,
    pub(crate) name: OsString,
}

impl Live {
    /// The place itself, even if it is a link.
    pub(crate) fn of(path: &Path) -> Result<Self, FileError> {
        let absolute = std::path::absolute(path).trying("resolve", path)?;
        let mut parts = absolute.components();
        let Some(Component::Normal(name)) = parts.next_back() else {
            return Err(FileError::NoName { path: path.to_owned() });
        };
        let parent = fs::canonicalize(parts.as_path()).trying("find", parts.as_path())?;
        Ok(Self { path: parent.join(name), parent, name: name.to_owned() })
    }

    /// The place a link leads to, through any number of links; also where nothing is yet.
    pub(crate) fn through(path: &Path) -> Result<Self, FileError> {
        let mut live = Self::of(path)?;
        for _ in 0..40 {
            match fs::read_link(&live.path) {
                Ok(target) => live = Self::of(&live.parent.join(target))?,
                Err(_) => return Ok(live),
            }
        }
        Err(FileError::io("follow", path, Errno::LOOP.into()))
    }

    /// The name beside this one, built from it: `<name><suffix>`.
    pub(crate) fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.name.clone();
        name.push(suffix);
        self.parent.join(name)
    }

    /// The directory and the name: what is at the place is exchanged by a restore, so its own inode identifies nothing.
    pub(crate) fn target(&self) -> TargetId {
        let parent = fs::metadata(&self.parent);
        let (device, inode) = parent.map_or((0, 0), |meta| (meta.dev(), meta.ino()));
        TargetId(format!("file:{device:x}:{inode:x}/{}", self.name.display()))
    }

    /// What is there, itself and not what it may link to.
    pub(crate) fn meta(&self) -> Result<Option<fs::Metadata>, FileError> {
        meta(&self.path)
    }

    /// Keeps other works of ours away from this directory until dropped, in this process and in others.
    pub(crate) fn lock(&self, limit: Duration, halt: &Halt) -> Result<File, FileError> {
        let directory = File::open(&self.parent).trying("open", &self.parent)?;
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        loop {
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(directory),
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(FileError::io("lock", &self.parent, errno.into())),
            }
            halt.check()?;
            if Instant::now() + pause >= deadline {
                return Err(FileError::Busy { path: self.path.clone() });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

pub(crate) fn meta(path: &Path) -> Result<Option<fs::Metadata>, FileError> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(FileError::io("look at", path, error)),
    }
}

/// User and group.
pub(crate) type Owner = (u32, u32);

pub(crate) fn owner(meta: &fs::Metadata) -> Owner {
    (meta.uid(), meta.gid())
}

/// Gives a thing its owner, where it has another. Only root can, and only root needs to.
pub(crate) fn own(path: &Path, (user, group): Owner) -> Result<(), FileError> {
    let is = fs::symlink_metadata(path).trying("look at", path)?;
    if owner(&is) == (user, group) {
        return Ok(());
    }
    let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    rustix::fs::chownat(CWD, path, user, group, AtFlags::SYMLINK_NOFOLLOW).trying("set the owner of", path)
}

/// Writes a new file, whole and on the disk.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> Result<(), FileError> {
    point("write");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).trying("create", path)?;
    point("write half");
    file.write_all(bytes).trying("write", path)?;
    if let Some(owner) = owner {
        own(path, owner)?;
    }
    // After the owner: changing it clears the set-user-id bits.
    file.set_permissions(fs::Permissions::from_mode(mode & 0o7777)).trying("set the mode of", path)?;
    file.sync_all().trying("sync", path)
}

/// Puts bytes in the place of what may be there: a reader sees the old or the new, whole.
pub(crate) fn replace(
    live: &Live,
    temporary: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<Owner>,
) -> Result<(), FileError> {
    remove_file(temporary)?;
    let written = write_new(temporary, bytes, mode, owner);
    if let Err(error) = written {
        let _ = fs::remove_file(temporary);
        return Err(error);
    }
    point("replace");
    if let Err(error) = fs::rename(temporary, &live.path).trying("replace", &live.path) {
        let _ = fs::remove_file(temporary);
        return Err(error);
    }
    sync(&live.parent)
}

pub(crate) fn make_directory(path: &Path) -> Result<(), FileError> {
    point("make directory");
    fs::create_dir(path).trying("create", path)
}

/// Removes a file of ours; it need not be there.
pub(crate) fn remove_file(path: &Path) -> Result<(), FileError> {
    point("remove");
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Removes what we prepared at `path`, file or directory; it need not be there.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    let Some(meta) = meta(path)? else { return Ok(()) };
    if !meta.is_dir() {
        return remove_file(path);
    }
    point("remove tree");
    fs::remove_dir_all(path).trying("remove", path)
}

/// Renames to a name that is free.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<(), FileError> {
    point("rename");
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems lack the flag. The place is locked against our own works, so the look before suffices.
        Err(Errno::INVAL | Errno::NOSYS) if meta(to)?.is_none() => fs::rename(from, to).trying("rename", from),
        done => done.trying("rename", from),
    }
}

/// Exchanges two names in one instant: neither is ever absent.
pub(crate) fn exchange(a: &Path, b: &Path) -> Result<(), FileError> {
    point("exchange");
    match rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(FileError::NoExchange { path: a.to_owned() }),
        done => done.trying("exchange", a),
    }
}

/// Tries an exchange with two files of its own in a directory beside, so that a file system without it is found out before anything.
pub(crate) fn exchange_works(scratch: &Path) -> Result<(), FileError> {
    remove(scratch)?;
    make_directory(scratch)?;
    let (a, b) = (scratch.join("a"), scratch.join("b"));
    let tried = fs::write(&a, "a")
        .and_then(|()| fs::write(&b, "b"))
        .trying("write in", scratch)
        .and_then(|()| exchange(&a, &b))
        .map_err(|error| match error {
            FileError::NoExchange { .. } => FileError::NoExchange { path: scratch.to_owned() },
            other => other,
        });
    remove(scratch)?;
    tried
}

/// Makes the entries of a directory, or a file's content, last over a loss of power.
pub(crate) fn sync(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|file| file.sync_all()).trying("sync", path)
}

/// Makes everything written so far on the file system of `path` last: one call however many files a tree has.
pub(crate) fn sync_all(path: &Path) -> Result<(), FileError> {
    let file = File::open(path).trying("open", path)?;
    rustix::fs::syncfs(&file).trying("sync", path)
}

/// A place to be killed at: tests end the process here with SIGKILL, at each in turn.
#[cfg(feature = "failpoints")]
pub(crate) fn point(name: &'static str) {
    use std::sync::atomic::AtomicU64;
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let Some(at) = std::env::var("RIPCORD_KILL_AT").ok().and_then(|at| at.parse::<u64>().ok()) else { return };
    if PASSED.fetch_add(1, Ordering::SeqCst) + 1 == at {
        tracing::debug!(name, at, "killed here on purpose");
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn point(_name: &'static str) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_followed_to_where_nothing_is_yet() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("etc/app.env", dir.path().join("env")).unwrap();
        let live = Live::through(&dir.path().join("env")).unwrap();
        assert_eq!(live.path, fs::canonicalize(dir.path()).unwrap().join("etc/app.env"));
        assert_eq!(Live::of(&dir.path().join("env")).unwrap().name, "env");
        std::os::unix::fs::symlink("b", dir.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("b")).unwrap();
        assert!(Live::through(&dir.path().join("a")).is_err());
    }

    #[test]
    fn two_spellings_of_a_place_are_one_target() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("x")).unwrap();
        let plain = Live::of(&dir.path().join("app")).unwrap();
        let crooked = Live::of(&dir.path().join("x/../app")).unwrap();
        assert_eq!(plain.target(), crooked.target());
        assert_ne!(plain.target(), Live::of(&dir.path().join("app2")).unwrap().target());
    }

    #[test]
    fn a_replaced_file_is_whole_and_has_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let live = Live::of(&dir.path().join("f")).unwrap();
        replace(&live, &dir.path().join("t"), b"one", 0o640, None).unwrap();
        replace(&live, &dir.path().join("t"), b"two", 0o600, None).unwrap();
        assert_eq!(fs::read(&live.path).unwrap(), b"two");
        assert_eq!(live.meta().unwrap().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_is_locked_for_one_work_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let live = Live::of(&dir.path().join("f")).unwrap();
        let held = live.lock(Duration::from_secs(5), &Halt::default()).unwrap();
        let second = live.lock(Duration::from_millis(5), &Halt::default());
        assert!(matches!(second, Err(FileError::Busy { .. })));
        drop(held);
        live.lock(Duration::from_secs(5), &Halt::default()).unwrap();
    }

    #[test]
    fn exchange_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        exchange_works(&dir.path().join("probe")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
