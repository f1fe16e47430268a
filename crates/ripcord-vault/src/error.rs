//! What can go wrong with a vault, told apart where a caller or a person must do something else.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::SnapshotId;

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("the key does not open the vault at {}", directory.display())]
    WrongKey { directory: PathBuf },
    #[error("not usable as a vault key: {why}")]
    BadKey { why: String },
    #[error("{} is not a vault: {why}", directory.display())]
    NotAVault { directory: PathBuf, why: &'static str },
    #[error("capture `{snapshot}` is damaged at `{path}`: {detail}")]
    Damaged { snapshot: SnapshotId, path: String, detail: String },
    /// Not one capture but the vault's own bookkeeping, or data nobody can name a path for.
    #[error("the vault is damaged: {detail}")]
    Broken { detail: String },
    #[error("the vault holds no capture `{snapshot}`")]
    Missing { snapshot: SnapshotId },
    /// Reading a source failed, or its producer said afterwards that it had failed.
    #[error("the source of `{path}` failed")]
    SourceFailed { path: String, source: io::Error },
    #[error("`{path}` changed while it was read")]
    Changed { path: String },
    #[error("`{path}` is {what}, which a capture cannot hold")]
    Unsupported { path: String, what: &'static str },
    #[error("`{path}` cannot be the path of an entry: {why}")]
    BadPath { path: String, why: &'static str },
    #[error("the manifest contradicts itself: {why}")]
    BadManifest { why: String },
    #[error("the capture holds no file `{path}`")]
    NoEntry { path: String },
    #[error("{} is already there", path.display())]
    Exists { path: PathBuf },
    #[error("no space left to {what} {}", path.display())]
    NoSpace { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is in use by another process", path.display())]
    Locked { path: PathBuf },
    #[error("refusing to forget every capture: {snapshots} are held and none is named to be kept")]
    KeepsNothing { snapshots: usize },
    #[error("cannot {what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("unexpected: {what}")]
    Internal { what: String },
    /// What went wrong where the vault is, or where what is captured is, when that is not here.
    #[error("{}", .0.what)]
    Told(Telling),
}

/// An error as it is told to another machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telling {
    /// With its causes.
    pub what: String,
    pub advice: Option<String>,
    pub may_pass: bool,
}

impl VaultError {
    /// What a person should do; `None` where only the cause can tell.
    pub fn advice(&self) -> Option<&str> {
        Some(match self {
            Self::WrongKey { .. } => "name the key this vault was created with",
            Self::BadKey { .. } => "generate a key file, and keep a copy of it away from this machine",
            Self::NotAVault { .. } => "name the directory of an existing vault, or an empty one to create it",
            Self::Damaged { .. } => "choose another capture; capturing again stores the damaged parts afresh",
            Self::Broken { .. } => "run a repair, then a check that reads all data; look at the disk",
            Self::Missing { .. } => "list what the vault holds: it may be another vault, or the capture was pruned",
            Self::SourceFailed { .. } => "put right what makes the source fail, then capture again",
            Self::Changed { .. } => "stop what writes there, or except the path, then capture again",
            Self::Unsupported { .. } => "except the path from the capture",
            Self::BadPath { .. } | Self::NoEntry { .. } => "paths are relative, without `.` and `..`",
            Self::BadManifest { .. } => "the record of this capture was altered: choose another capture",
            Self::Exists { .. } => "restore to a path that does not exist yet",
            Self::NoSpace { .. } => "free space or raise the limit; nothing was counted, what was there is whole",
            Self::Locked { .. } => "try again when it is done",
            Self::KeepsNothing { .. } => "name what to keep, or say explicitly that nothing is kept",
            Self::Io { .. } | Self::Internal { .. } => return None,
            Self::Told(telling) => return telling.advice.as_deref(),
        })
    }

    /// The error in words that survive a connection.
    pub fn tell(&self) -> Telling {
        if let Self::Told(telling) = self {
            return telling.clone();
        }
        let mut what = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            what = format!("{what}: {cause}");
            source = cause.source();
        }
        Telling { what, advice: self.advice().map(str::to_owned), may_pass: self.may_pass() }
    }

    /// Whether the same call may succeed later without anybody doing anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Changed { .. } | Self::Locked { .. } => true,
            Self::Told(telling) => telling.may_pass,
            _ => false,
        }
    }

    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        // A quota and a limit on the size of files are no more passed by trying again than a full disk is.
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::NoSpace { what, path, source }
            }
            _ => Self::Io { what, path, source },
        }
    }
}

/// Adds what was tried, and where, to an error of the operating system.
pub(crate) trait Trying<T> {
    fn trying(self, what: &'static str, path: &Path) -> Result<T, VaultError>;
}

impl<T> Trying<T> for io::Result<T> {
    fn trying(self, what: &'static str, path: &Path) -> Result<T, VaultError> {
        self.map_err(|source| VaultError::io(what, path, source))
    }
}

impl<T> Trying<T> for Result<T, rustix::io::Errno> {
    fn trying(self, what: &'static str, path: &Path) -> Result<T, VaultError> {
        self.map_err(io::Error::from).trying(what, path)
    }
}

/// Runs what calls into the library below, which panics on some damaged data: here that is an error like any other.
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T, VaultError>) -> Result<T, VaultError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(VaultError::Internal { what: panic_text(&*panic) }))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    said.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let failing = |errno: rustix::io::Errno| VaultError::io("write", Path::new("/v"), errno.into());
        assert!(matches!(failing(rustix::io::Errno::NOSPC), VaultError::NoSpace { .. }));
        assert!(matches!(failing(rustix::io::Errno::DQUOT), VaultError::NoSpace { .. }));
        assert!(matches!(failing(rustix::io::Errno::FBIG), VaultError::NoSpace { .. }));
        assert!(matches!(failing(rustix::io::Errno::IO), VaultError::Io { .. }));
    }

    #[test]
    fn a_panic_below_becomes_an_error() {
        let error = guarded::<()>(|| std::panic::resume_unwind(Box::new("no such blob"))).unwrap_err();
        assert_eq!(error.to_string(), "unexpected: no such blob");
    }
}
