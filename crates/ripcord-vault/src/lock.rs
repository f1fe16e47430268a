//! Who may change a vault: any number of captures, or one that prunes or repairs.
//!
//! The lock is the kernel's, on a file in the vault, so it is gone with the process that held it, however that ended. Reading
//! takes none: pruning deletes in two phases with a day between, so what a reader began to read stays, and a restore never
//! waits for housekeeping.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::VaultError;
use crate::error::Trying;

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Adds only: goes along with others that add.
    Shared,
    /// Removes or rewrites: alone.
    Alone,
}

/// A capture is on the way out of an incident and outwaits housekeeping; housekeeping gives up at once and comes back.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn take(path: &Path, sharing: Sharing, patience: Duration) -> Result<Lock, VaultError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.trying("open", path)?;
    let operation = match sharing {
        Sharing::Shared => FlockOperation::NonBlockingLockShared,
        Sharing::Alone => FlockOperation::NonBlockingLockExclusive,
    };
    let until = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            Err(Errno::WOULDBLOCK) => return Err(VaultError::Locked { path: path.to_owned() }),
            Err(error) => return Err(VaultError::io("lock", path, error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_go_along_with_captures_and_with_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let now = |sharing| take(&path, sharing, Duration::ZERO);
        let first = now(Sharing::Shared).unwrap();
        let second = now(Sharing::Shared).unwrap();
        assert!(matches!(now(Sharing::Alone), Err(VaultError::Locked { .. })));
        drop((first, second));
        let alone = now(Sharing::Alone).unwrap();
        assert!(matches!(now(Sharing::Shared), Err(VaultError::Locked { .. })));
        drop(alone);
        now(Sharing::Shared).unwrap();
    }
}
