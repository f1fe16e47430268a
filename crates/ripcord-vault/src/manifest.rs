//! What a capture consists of: enough to tell, entry by entry, whether it came back.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use jiff::Timestamp;
use ripcord_core::Digest;
use serde::{Deserialize, Serialize};

use crate::VaultError;
use crate::text;

/// The layout of [`Manifest`]; another one is refused, not guessed at.
pub(crate) const VERSION: u16 = 1;

/// Names one capture in its repository, also to restic: 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(String);

/// The record of one capture: kept outside the vault, it proves what the vault gives back.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Manifest {
    pub version: u16,
    pub snapshot: SnapshotId,
    /// Every directory right before what it holds.
    pub entries: Vec<Entry>,
    /// Over all entries with modes and link targets, but without times. See [`Manifest::tree_below`].
    pub tree: Digest,
    /// Of all files together.
    pub bytes: u64,
    /// When the capture began.
    pub at: Timestamp,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// As [`crate::path_text`] writes it; `""` is the root of a tree captured without a path of its own.
    pub path: String,
    pub what: What,
    /// The lowest twelve bits: permissions, set-user-id, set-group-id, sticky.
    pub mode: u32,
    /// Milliseconds since 1970; `None` for what never was a file. The vault itself keeps nanoseconds.
    pub modified_ms: Option<i64>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    File { size: u64, sha256: Digest },
    Directory,
    Link { target: String },
}

/// What of an entry the digest of a tree covers.
#[derive(Serialize)]
struct Covered<'a> {
    path: &'a str,
    what: &'a What,
    mode: u32,
}

impl Manifest {
    /// The digest of what lies at `path`, as if it had been captured alone: equal to [`crate::tree_digest`] of that directory.
    ///
    /// `""` gives [`Manifest::tree`]; `None` when nothing lies there.
    pub fn tree_below(&self, path: &str) -> Option<Digest> {
        let covered: Vec<_> = self.entries.iter().filter_map(|entry| entry.below(path)).collect();
        (!covered.is_empty()).then(|| Digest::of_value(&covered))
    }

    /// The entry at `path`.
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    /// Refuses a manifest that was altered or that would lead outside of where it is restored to.
    pub(crate) fn check(&self) -> Result<(), VaultError> {
        let bad = |why: String| Err(VaultError::BadManifest { why });
        if self.version != VERSION {
            return bad(format!("its version is {}, not {VERSION}", self.version));
        }
        let mut kinds: HashMap<&str, &What> = HashMap::new();
        let mut before: Option<std::path::PathBuf> = None;
        for entry in &self.entries {
            let path = text::inside(&entry.path)?;
            if entry.mode & !0o7777 != 0 {
                return bad(format!("`{}` has the mode {:o}", entry.path, entry.mode));
            }
            if matches!(&entry.what, What::Link { target } if text::name_of(target).is_none_or(|t| t.is_empty())) {
                return bad(format!("`{}` links to nothing that can be a path", entry.path));
            }
            if before.as_deref().is_some_and(|before| text::order(before, &path).is_ge()) {
                return bad(format!("`{}` is out of order", entry.path));
            }
            // Parents come first; one that is a link would lead outside.
            if let Some((parent, _)) = entry.path.rsplit_once('/') {
                if !matches!(kinds.get(parent), Some(What::Directory)) {
                    return bad(format!("`{}` lies in what is not a directory", entry.path));
                }
            } else if entry.path.is_empty() && entry.what != What::Directory {
                return bad("its root is not a directory".to_owned());
            }
            kinds.insert(&entry.path, &entry.what);
            before = Some(path);
        }
        if total(&self.entries) != Some(self.bytes) {
            return bad("its sizes do not add up".to_owned());
        }
        if digest(&self.entries) != self.tree {
            return bad("its entries are not those it has the digest of".to_owned());
        }
        Ok(())
    }
}

impl Entry {
    fn below<'a>(&'a self, path: &str) -> Option<Covered<'a>> {
        let rest = match self.path.strip_prefix(path)? {
            rest if path.is_empty() || rest.is_empty() => rest,
            rest => rest.strip_prefix('/')?,
        };
        Some(Covered { path: rest, what: &self.what, mode: self.mode })
    }
}

pub(crate) fn digest(entries: &[Entry]) -> Digest {
    let covered: Vec<_> = entries.iter().filter_map(|entry| entry.below("")).collect();
    Digest::of_value(&covered)
}

pub(crate) fn total(entries: &[Entry]) -> Option<u64> {
    entries.iter().try_fold(0_u64, |sum, entry| match entry.what {
        What::File { size, .. } => sum.checked_add(size),
        _ => Some(sum),
    })
}

impl SnapshotId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn of(id: rustic_core::repofile::SnapshotId) -> Self {
        Self(id.into_inner().to_hex().as_str().to_owned())
    }

    pub(crate) fn id(&self) -> Result<rustic_core::repofile::SnapshotId, VaultError> {
        self.0.parse().map_err(|_| VaultError::Missing { snapshot: self.clone() })
    }
}

impl FromStr for SnapshotId {
    type Err = VaultError;
    fn from_str(text: &str) -> Result<Self, VaultError> {
        let good = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let why = || format!("`{text}` does not name a capture: that takes 64 hexadecimal digits");
        good.then(|| Self(text.to_owned())).ok_or_else(|| VaultError::BadManifest { why: why() })
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = VaultError;
    fn try_from(text: String) -> Result<Self, VaultError> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> String {
        id.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for SnapshotId {
    /// The first eight digits, as restic shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotId({})", self.0.get(..8).unwrap_or(&self.0))
    }
}

/// Joins two texts of paths, either of which may be empty.
pub(crate) fn joined(above: &str, below: &str) -> String {
    match (above, below) {
        ("", path) | (path, "") => path.to_owned(),
        _ => format!("{above}/{below}"),
    }
}

/// Every directory that `path` lies in, outermost first; not the root.
pub(crate) fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// Sorts as [`Manifest::entries`] are sorted.
pub(crate) fn sorted_by_path<T>(mut items: Vec<T>, path: impl Fn(&T) -> &Path) -> Vec<T> {
    items.sort_by(|a, b| text::order(path(a), path(b)));
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64) -> Entry {
        Entry { path: path.into(), what: What::File { size, sha256: Digest::of(b"") }, mode: 0o644, modified_ms: None }
    }

    fn directory(path: &str) -> Entry {
        Entry { path: path.into(), what: What::Directory, mode: 0o755, modified_ms: None }
    }

    fn link(path: &str, target: &str) -> Entry {
        Entry { path: path.into(), what: What::Link { target: target.into() }, mode: 0o777, modified_ms: None }
    }

    fn manifest(entries: Vec<Entry>) -> Manifest {
        let (tree, bytes) = (digest(&entries), total(&entries).unwrap());
        let snapshot = "ab".repeat(32).parse().unwrap();
        Manifest { version: VERSION, snapshot, entries, tree, bytes, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn reads_back_as_written() {
        let written = manifest(vec![directory("a"), file("a/b", 3), link("c", "a/b")]);
        let json = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), written);
        written.check().unwrap();
    }

    #[test]
    fn an_altered_manifest_is_refused() {
        let refused = |entries: Vec<Entry>| manifest(entries).check().unwrap_err().to_string();
        assert_eq!(
            refused(vec![file("/etc/passwd", 1)]),
            "`/etc/passwd` cannot be the path of an entry: it is absolute or has an empty name in it"
        );
        assert_eq!(
            refused(vec![file("../up", 1)]),
            "`../up` cannot be the path of an entry: `.` and `..` lead elsewhere"
        );
        assert!(refused(vec![link("a", "/etc"), file("a/passwd", 1)]).contains("lies in what is not a directory"));
        assert!(refused(vec![file("a/b", 1)]).contains("lies in what is not a directory"));
        assert!(refused(vec![file("b", 1), file("a", 1)]).contains("out of order"));
        assert!(refused(vec![file("a", 1), file("a", 1)]).contains("out of order"));
        assert!(refused(vec![link("a", "")]).contains("links to nothing"));
        let mut other = manifest(vec![file("a", 1)]);
        other.entries[0].mode = 0o755;
        assert!(other.check().unwrap_err().to_string().contains("not those it has the digest of"));
        other = manifest(vec![file("a", 1)]);
        other.bytes = 2;
        assert!(other.check().unwrap_err().to_string().contains("do not add up"));
        other = manifest(vec![file("a", u64::MAX)]);
        other.entries.push(file("b", 1));
        assert!(other.check().is_err());
        other = manifest(vec![]);
        other.version = 2;
        assert!(other.check().is_err());
    }

    #[test]
    fn a_part_has_the_digest_it_would_have_alone() {
        let whole = manifest(vec![directory("app"), file("app/a", 1), directory("app-2"), file("b", 1)]);
        let alone = manifest(vec![directory(""), file("a", 1)]);
        assert_eq!(whole.tree_below("app"), Some(alone.tree));
        assert_eq!(whole.tree_below(""), Some(whole.tree));
        assert_eq!(whole.tree_below("ap"), None);
    }

    #[test]
    fn times_are_not_part_of_the_digest() {
        let mut touched = file("a", 1);
        touched.modified_ms = Some(1);
        assert_eq!(digest(&[touched]), digest(&[file("a", 1)]));
    }
}
