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

use rustix::fs::{FlockOperation, flock};

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
        let gone = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if gone {
            // Never reused: an incarnation is unique to one start of one process.
            let _ = std::fs::remove_file(path);
        }
        gone
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
        assert!(b.is_gone("a-1"));
        assert!(!b.is_gone("a-1"), "it is known once, by whoever then takes its lease");
        assert!(!b.is_gone("../x"));
    }
}
