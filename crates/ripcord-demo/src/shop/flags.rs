//! `flags.json`: what may be changed without a restart, in force with the next request.
//!
//! Looked at on every request instead of watched: nothing runs in between, and nothing is missed. A file that cannot be
//! used is complained about once and the last good flags stay in force.
use super::ShopError;
use serde::Deserialize;
use serde_json::Value;
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// The flags that the shop acts on. Others may be in the file; they are shown and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Flags {
    /// The most of one article that an order may ask for.
    pub max_quantity: u32,
    /// Drops the charge for sending.
    pub free_shipping: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Self { max_quantity: 20, free_shipping: false }
    }
}

pub(super) struct FlagFile {
    path: PathBuf,
    seen: Mutex<Seen>,
}

struct Seen {
    stamp: Option<Stamp>,
    bytes: Vec<u8>,
    shown: Value,
    flags: Flags,
}

/// Tells one state of a file from another, as far as the file system's clock can.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size_bytes: u64,
    modified: SystemTime,
}

/// Two writes within one tick of the file system's clock leave the same stamp, so a stamp younger than this proves
/// nothing and the content is compared (git's "racy" index entries, same reason; a tick is at most 10 ms on Linux).
const TRUSTED_AFTER: Duration = Duration::from_secs(1);

impl FlagFile {
    /// # Errors
    /// A shop does not start on flags that cannot be read: there are no last good ones yet.
    pub(super) fn open(path: &Path) -> Result<Self, ShopError> {
        let bytes = fs::read(path).map_err(ShopError::file("read", path))?;
        let (shown, flags) =
            understand(&bytes).map_err(|source| ShopError::BadFlags { path: path.to_owned(), source })?;
        // No stamp: the first look reads the file again rather than trust a stamp taken after the content.
        let seen = Mutex::new(Seen { stamp: None, bytes, shown, flags });
        Ok(Self { path: path.to_owned(), seen })
    }

    /// The flags in force and the file as JSON. `complain` hears, once for each such content, why a file is not used.
    pub(super) fn look(&self, complain: impl FnOnce(String)) -> (Flags, Value) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(why) = self.refresh(&mut seen) {
            complain(format!("flags in {} are not usable, the former ones stay: {why}", self.path.display()));
        }
        (seen.flags, seen.shown.clone())
    }

    fn refresh(&self, seen: &mut Seen) -> Result<(), String> {
        let (stamp, bytes) = match self.read_if_changed(seen.stamp) {
            Ok(None) => return Ok(()),
            Ok(Some((stamp, bytes))) => (stamp, bytes),
            // A file that is gone has the content "nothing", so that it too is complained about once.
            Err(error) if seen.bytes.is_empty() && error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                (seen.stamp, seen.bytes) = (None, Vec::new());
                return Err(error.to_string());
            }
        };
        seen.stamp = stamp;
        if bytes == seen.bytes {
            return Ok(());
        }
        seen.bytes = bytes;
        (seen.shown, seen.flags) = understand(&seen.bytes).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// `None` when nothing changed; otherwise the content and, where it can be trusted, the stamp it had before it was read.
    fn read_if_changed(&self, known: Option<Stamp>) -> io::Result<Option<(Option<Stamp>, Vec<u8>)>> {
        let metadata = fs::metadata(&self.path)?;
        let modified = metadata.modified()?;
        let stamp = Stamp { inode: metadata.ino(), size_bytes: metadata.len(), modified };
        if known == Some(stamp) {
            return Ok(None);
        }
        let settled = modified.elapsed().is_ok_and(|age| age > TRUSTED_AFTER);
        Ok(Some((settled.then_some(stamp), fs::read(&self.path)?)))
    }
}

fn understand(bytes: &[u8]) -> serde_json::Result<(Value, Flags)> {
    let shown: Value = serde_json::from_slice(bytes)?;
    if !shown.is_object() {
        // Serde would take a list for a struct whose fields all have defaults.
        return Err(serde::de::Error::custom("not a JSON object"));
    }
    let flags = Flags::deserialize(&shown)?;
    Ok((shown, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn max(file: &FlagFile, complaints: &mut Vec<String>) -> u32 {
        file.look(|complaint| complaints.push(complaint)).0.max_quantity
    }

    #[test]
    fn every_change_is_seen_and_a_bad_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flags.json");
        fs::write(&path, r#"{"max_quantity": 10, "colour": "red"}"#).unwrap();
        let file = FlagFile::open(&path).unwrap();
        let mut complaints = Vec::new();
        assert_eq!(
            file.look(|_| ()),
            (
                Flags { max_quantity: 10, free_shipping: false },
                serde_json::json!({"max_quantity": 10, "colour": "red"})
            )
        );

        // Same inode, same size, one tick of the clock: the stamp alone cannot tell these apart.
        let now = SystemTime::now();
        for number in 11..60 {
            fs::write(&path, format!(r#"{{"max_quantity": {number}, "colour": "red"}}"#)).unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(now).unwrap();
            assert_eq!(max(&file, &mut complaints), number);
        }
        assert_eq!(complaints, Vec::<String>::new());

        for bad in ["{", "[]", r#"{"max_quantity": "many"}"#, ""] {
            fs::write(&path, bad).unwrap();
            complaints.clear();
            assert_eq!((max(&file, &mut complaints), max(&file, &mut complaints)), (59, 59));
            assert_eq!(complaints.len(), 1, "one complaint for {bad:?}: {complaints:?}");
        }
        fs::write(&path, "{}").unwrap();
        assert_eq!(max(&file, &mut complaints), Flags::default().max_quantity);
        fs::remove_file(&path).unwrap();
        complaints.clear();
        assert_eq!((max(&file, &mut complaints), max(&file, &mut complaints)), (20, 20));
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        fs::write(&path, r#"{"max_quantity": 3}"#).unwrap();
        assert_eq!(max(&file, &mut complaints), 3);
    }

    #[test]
    fn an_old_file_is_read_once_and_a_replacement_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flags.json");
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        };
        put("flags.json", r#"{"max_quantity": 4}"#);
        let file = FlagFile::open(&path).unwrap();
        assert_eq!(max(&file, &mut Vec::new()), 4);
        let stamp = file.seen.lock().unwrap().stamp;
        assert!(file.read_if_changed(stamp).unwrap().is_none(), "a settled file is not read again");
        // A restore keeps times and often the size; only the inode differs.
        put("new.json", r#"{"max_quantity": 5}"#);
        fs::rename(dir.path().join("new.json"), &path).unwrap();
        assert_eq!(max(&file, &mut Vec::new()), 5);
    }
}
