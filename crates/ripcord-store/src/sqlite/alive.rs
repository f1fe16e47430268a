//! Who is still alive: a file that each holder of a lease keeps locked for as long as its process lives.
//!
//! The kernel lets go of the lock when the process ends, however it ends, so a holder that was killed is known to be gone at once
//! instead of after the rest of its lease. The lock only shortens that wait: who may write is still the epoch's to say, and a holder
//! without a file (an older version, a directory that could not be written) is simply waited for.
//! Source: flock(2): the lock belongs to the open file description; ours is opened close-on-exec, so no command inherits it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// How long the file of one that is gone is kept: longer than any lease.
const KEPT: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Alive {
    directory: PathBuf,
    held: Mutex<BTreeMap<String, File>>,
}

impl Alive {
    /// Files are kept in `alive/` beside the store's file.
    pub fn beside(store: &Path) -> Self {
        Self { directory: store.with_file_name("alive"), held: Mutex::default() }
    }

    /// Shows from now on, for as long as this store is open, that `incarnation` lives.
    pub fn show(&self, incarnation: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = self.path(incarnation).filter(|_| !held.contains_key(incarnation)) else { return };
        self.sweep();
        // Without the file the lease is merely waited out, so nothing that fails here is worth failing for.
        let made = std::fs::create_dir_all(&self.directory);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        if let (Ok(()), Ok(file)) = (made, opened)
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            held.insert(incarnation.to_owned(), file);
        }
    }

    /// Whether `incarnation` certainly lives no more.
    pub fn is_gone(&self, incarnation: &str) -> bool {
        let Some(path) = self.path(incarnation) else { return false };
        let Ok(file) = File::open(&path) else { return false };
        flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Removes what those left behind that have long been gone. Not at once: a process may have had several leases, and whoever takes
    /// the last of them wants to know it too.
    fn sweep(&self) {
        let Ok(found) = std::fs::read_dir(&self.directory) else { return };
        for entry in found.flatten() {
            let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > KEPT) && entry.file_name().to_str().is_some_and(|name| self.is_gone(name)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// None for what is no file name.
    fn path(&self, incarnation: &str) -> Option<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (!incarnation.is_empty() && incarnation.len() <= 64 && incarnation.chars().all(plain))
            .then(|| self.directory.join(incarnation))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        for incarnation in std::mem::take(held).into_keys() {
            let path = self.directory.join(incarnation);
            // The lock goes with the file; a file left behind is removed by whoever looks at it.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_lets_go_of_its_file_is_gone_and_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("ripcord.db");
        let (a, b) = (Alive::beside(&store), Alive::beside(&store));
        a.show("a-1");
        assert!(!b.is_gone("a-1"), "it holds its file");
        assert!(!b.is_gone("c-1"), "of one that never had a file nothing is known");
        a.held.lock().unwrap().clear();
        assert!(b.is_gone("a-1") && b.is_gone("a-1"), "whoever looks sees it");
        assert!(!b.is_gone("../x"));
    }

    #[test]
    fn what_those_left_behind_that_have_long_been_gone_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let alive = Alive::beside(&directory.path().join("ripcord.db"));
        alive.show("a-1");
        let there = |name: &str| directory.path().join("alive").join(name).exists();
        for (name, age) in [("long-gone", KEPT * 2), ("just-gone", KEPT / 2)] {
            let file = File::create(directory.path().join("alive").join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        }
        alive.held.lock().unwrap()["a-1"].set_modified(std::time::SystemTime::now() - KEPT * 2).unwrap();
        alive.show("b-1");
        assert_eq!((there("a-1"), there("long-gone"), there("just-gone")), (true, false, true));
    }
}
