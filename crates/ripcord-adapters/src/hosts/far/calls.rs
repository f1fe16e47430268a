//! What became of calls that nobody heard the end of.
//!
//! A connection that breaks ends no call that acts: it goes on within its limit, and its outcome is left here until somebody hears
//! of it. While a call runs its agent holds a lock under the call's key, so that an agent that comes later waits for it instead of
//! doing the same at the same time. An agent that is killed loses the lock with its life; its commands die with it.
//!
//! Left in `$XDG_STATE_HOME/ripcord/<application>/<environment>/calls`, for this user alone: locks (empty but for a process number)
//! and outcomes (what the journal would hold, redacted). What is older than a week is removed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use ripcord_core::{AppId, Digest, Key, Outcome};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The slowest a lock is looked at while somebody holds it.
const SLOWEST: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub(crate) struct Calls {
    directory: PathBuf,
}

/// Nobody else carries out a call of this key, until this is dropped.
pub(crate) struct Locked(#[expect(dead_code, reason = "closing it lets go of the lock")] File);

/// Why a call cannot be begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Kept {
    #[error("it is still being carried out by process {by}")]
    Busy { by: String },
    #[error("cannot lock {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

#[derive(Serialize, Deserialize)]
struct Left {
    key: Key,
    at: Timestamp,
    outcome: Outcome,
}

impl Calls {
    /// Makes the directory, and takes away what is old in it.
    pub(crate) fn open(app: &AppId) -> io::Result<Self> {
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || std::env::home_dir().map(|home| home.join(".local/state"));
        let no_home = || io::Error::new(io::ErrorKind::NotFound, "there is no home directory");
        let state = state.or_else(home).ok_or_else(no_home)?;
        let directory =
            state.join("ripcord").join(app.application.as_str()).join(app.environment.as_str()).join("calls");
        Self::at(directory)
    }

    fn at(directory: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let calls = Self { directory };
        if let Err(error) = calls.prune(SystemTime::now()) {
            tracing::debug!(%error, "old outcomes could not be removed");
        }
        Ok(calls)
    }

    fn path(&self, key: &Key, end: &str) -> PathBuf {
        let digest = Digest::of(key.0.as_bytes()).hex();
        self.directory.join(format!("{}{end}", digest.get(..32).unwrap_or(&digest)))
    }

    fn outcome_path(&self, key: &Key, at: Timestamp) -> PathBuf {
        self.path(key, &format!("-{}.json", at.as_millisecond()))
    }

    /// Waits until no other call of this key runs.
    pub(crate) async fn lock(&self, key: &Key, limit: Duration) -> Result<Locked, Kept> {
        let path = self.path(key, ".lock");
        let failed = |source| Kept::Io { path: path.clone(), source };
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(5);
        loop {
            let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).to_owned();
            let file = options.open(&path).map_err(failed)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_still(&file, &path) => {
                    // Only for who waits to read: where the disk is full it is locked all the same.
                    if let Err(error) = file.set_len(0).and_then(|()| write!(&file, "{}", std::process::id())) {
                        tracing::debug!(%error, "a lock does not say whose it is");
                    }
                    return Ok(Locked(file));
                }
                // It was removed for its age between our opening and our locking it.
                Ok(()) => continue,
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
            if Instant::now() + pause >= deadline {
                let mut by = String::new();
                let _ = (&file).take(20).read_to_string(&mut by);
                return Err(Kept::Busy { by });
            }
            sleep(pause).await;
            pause = (pause * 2).min(SLOWEST);
        }
    }

    /// How this very call ended, if nobody heard of it.
    pub(crate) fn outcome(&self, key: &Key, at: Timestamp) -> Option<Outcome> {
        let bytes = fs::read(self.outcome_path(key, at)).ok()?;
        let left: Left = serde_json::from_slice(&bytes).ok()?;
        (left.key == *key && left.at == at).then_some(left.outcome)
    }

    /// Leaves an outcome, for whoever asks after this connection.
    ///
    /// Not synced: it need not survive this machine. What was done before the power was lost says nothing of what is so after it, and is
    /// to be looked at then; and every step on every host would wait for its disk.
    pub(crate) fn leave(&self, key: &Key, at: Timestamp, outcome: &Outcome) -> io::Result<()> {
        let path = self.outcome_path(key, at);
        let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
        let left = serde_json::to_vec(&Left { key: key.clone(), at, outcome: outcome.clone() })?;
        let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let written = open.and_then(|mut file| file.write_all(&left)).and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            // Of no use to anybody, and in the way where there was no room for it.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Somebody heard of it.
    pub(crate) fn forget(&self, key: &Key, at: Timestamp) {
        if let Err(error) = fs::remove_file(self.outcome_path(key, at))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "an outcome that was heard of could not be removed");
        }
    }

    fn prune(&self, now: SystemTime) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let age = fs::symlink_metadata(&path)?.modified()?;
            if now.duration_since(age).unwrap_or_default() < KEPT {
                continue;
            }
            // A lock that somebody holds is in use, however old.
            let held = File::open(&path);
            let free = held
                .as_ref()
                .is_ok_and(|file| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok());
            if free {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// Whether the file that was opened is the one that is there.
fn is_still(file: &File, path: &Path) -> bool {
    let one = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(opened), Ok(there)) => one(opened) == one(there),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use ripcord_core::Proof;

    use super::*;

    fn calls() -> (tempfile::TempDir, Calls) {
        let dir = tempfile::tempdir().unwrap();
        let calls = Calls::at(dir.path().join("state/calls")).unwrap();
        (dir, calls)
    }

    #[tokio::test]
    async fn a_call_of_a_key_waits_for_the_one_that_runs() {
        let (_dir, calls) = calls();
        let (one, other) = (Key("shop/run-1/a".into()), Key("shop/run-1/b".into()));
        let held = calls.lock(&one, Duration::ZERO).await.unwrap();
        let Err(Kept::Busy { by }) = calls.lock(&one, Duration::from_millis(20)).await else { panic!("it is locked") };
        assert_eq!(by, std::process::id().to_string());
        calls.lock(&other, Duration::ZERO).await.unwrap();
        let (again, ()) = tokio::join!(calls.lock(&one, Duration::from_secs(10)), async {
            sleep(Duration::from_millis(10)).await;
            drop(held);
        });
        again.unwrap();
    }

    #[tokio::test]
    async fn where_nothing_can_be_kept_nothing_is_locked() {
        let (dir, calls) = calls();
        fs::remove_dir_all(dir.path().join("state")).unwrap();
        let Err(Kept::Io { source, .. }) = calls.lock(&Key("a".into()), Duration::ZERO).await else {
            panic!("no place")
        };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn an_outcome_that_cannot_be_left_leaves_nothing() {
        let (_dir, calls) = calls();
        let (key, at) = (Key("a".into()), Timestamp::from_second(1_800_000_000).unwrap());
        // What stands in its place cannot be replaced by a file.
        fs::create_dir(calls.outcome_path(&key, at)).unwrap();
        calls.leave(&key, at, &Outcome::Unknown { why: String::new() }).unwrap_err();
        assert_eq!(fs::read_dir(&calls.directory).unwrap().count(), 1);
    }

    #[test]
    fn an_outcome_is_that_of_one_call_until_it_is_heard() {
        let (_dir, calls) = calls();
        let (key, at) = (Key("shop/run-1/a".into()), Timestamp::from_second(1_800_000_000).unwrap());
        let outcome = Outcome::Done(Proof::of("done"));
        assert_eq!(calls.outcome(&key, at), None);
        calls.leave(&key, at, &outcome).unwrap();
        assert_eq!(calls.outcome(&key, at), Some(outcome));
        let later = Timestamp::from_second(1_800_000_001).unwrap();
        assert_eq!(calls.outcome(&key, later), None, "another attempt");
        assert_eq!(calls.outcome(&Key("shop/run-2/a".into()), at), None);
        calls.forget(&key, at);
        calls.forget(&key, at);
        assert_eq!(calls.outcome(&key, at), None);
    }

    #[tokio::test]
    async fn only_what_is_old_and_free_goes() {
        let (_dir, calls) = calls();
        let key = |text: &str| Key(text.into());
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        calls.leave(&key("a"), at, &Outcome::Unknown { why: String::new() }).unwrap();
        let _held = calls.lock(&key("held"), Duration::ZERO).await.unwrap();
        drop(calls.lock(&key("free"), Duration::ZERO).await.unwrap());
        let count = || fs::read_dir(&calls.directory).unwrap().count();
        calls.prune(SystemTime::now()).unwrap();
        assert_eq!(count(), 3);
        calls.prune(SystemTime::now() + KEPT + Duration::from_secs(60)).unwrap();
        assert_eq!(count(), 1);
        assert!(matches!(calls.lock(&key("held"), Duration::ZERO).await, Err(Kept::Busy { .. })));
    }
}
