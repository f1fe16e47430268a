//! What a vault needs besides captures: to be listed, checked, repaired and pruned.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustic_core::repofile::SnapshotFile;
use rustic_core::{CheckOptions, CheckResults, FileType, Id, PruneOptions, ReadBackend, RepairIndexOptions};

use serde::{Deserialize, Serialize};

use crate::directory::UNFINISHED;
use crate::error::{Trying, guarded};
use crate::lock::Sharing;
use crate::vault::Vault;
use crate::{Label, SnapshotId, VaultError};

/// A snapshot found in the repository, whether or not the journal knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub snapshot: SnapshotId,
    /// `None` when it was not made by a capture.
    pub label: Option<Label>,
    /// When it was begun.
    pub at: Timestamp,
}

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Files that a killed process left half written.
    pub unfinished: usize,
    /// Damaged packs that nothing needs any more, set aside in `damaged/`.
    pub set_aside: Vec<String>,
    /// Damaged packs that some capture still needs: their whole parts are used, their damaged parts are lost.
    pub still_needed: Vec<String>,
}

/// Which captures a pruning keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    Only(BTreeSet<SnapshotId>),
    /// These, and any that was begun at or after a moment: a capture that is not in the journal yet cannot be among the named.
    AndSince(BTreeSet<SnapshotId>, Timestamp),
    /// None at all, said explicitly.
    Nothing,
}

/// What a pruning did. Space comes free in the pruning after the next day: until then a reader may still need it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    pub forgotten: Vec<SnapshotId>,
    pub kept: usize,
    /// Bytes given back now, marked by an earlier pruning.
    pub freed: u64,
    /// Bytes that a later pruning gives back.
    pub marked: u64,
}

impl Vault {
    /// Every snapshot in the repository, oldest first.
    pub fn list(&self) -> Result<Vec<Found>, VaultError> {
        guarded(|| {
            let mut found: Vec<_> = self.snapshots()?.iter().map(found).collect();
            found.sort_by(|a, b| (a.at, &a.snapshot).cmp(&(b.at, &b.snapshot)));
            Ok(found)
        })
    }

    /// The captures of one component, oldest first.
    pub fn list_of(&self, component: &str) -> Result<Vec<Found>, VaultError> {
        let of = |found: &Found| found.label.as_ref().is_some_and(|label| label.component == component);
        Ok(self.list()?.into_iter().filter(of).collect())
    }

    /// Puts right what a killed process left: half-written files, and packs that no index names, which the next capture of the
    /// same content then need not write again.
    ///
    /// # Errors
    /// [`VaultError::Locked`] while a capture runs; a capture may be taken without a repair, it only costs more.
    pub fn repair(&self) -> Result<Repaired, VaultError> {
        guarded(|| {
            let _lock = self.lock(Sharing::Alone)?;
            let unfinished = self.sweep()?;
            self.repair_index(None)?;
            let (set_aside, still_needed) = self.retire_suspects()?;
            Ok(Repaired { unfinished, set_aside, still_needed })
        })
    }

    /// Forgets every snapshot but those kept, and gives back the space of what nothing needs any more.
    ///
    /// # Errors
    /// [`VaultError::Locked`] while a capture runs, [`VaultError::Missing`] when one to be kept is not here,
    /// [`VaultError::KeepsNothing`] when nothing would be left without that having been said, [`VaultError::Broken`] while
    /// damaged packs are in use: which copy of a blob is the whole one is for a repair to settle.
    pub fn prune(&self, keep: &Keep) -> Result<Pruned, VaultError> {
        guarded(|| {
            let _lock = self.lock(Sharing::Alone)?;
            self.sweep()?;
            if !self.suspects()?.is_empty() {
                let detail = "packs known to be damaged are in use; repair first".to_owned();
                return Err(VaultError::Broken { detail });
            }
            let held: Vec<_> = self.snapshots()?.iter().map(found).collect();
            let (kept, forgotten) = divide(keep, held)?;
            let files = Arc::new(self.files());
            let repository = self.open_with(&files)?;
            let ids = forgotten.iter().map(SnapshotId::id).collect::<Result<Vec<_>, _>>()?;
            let options = PruneOptions::default();
            let pruned = repository.delete_snapshots(&ids).and_then(|()| {
                let plan = repository.prune_plan(&options)?;
                let freed = plan.stats.size_to_delete.remove;
                let marked =
                    plan.stats.size_sum().remove + plan.stats.size_sum().repackrm + plan.stats.size_to_delete.keep;
                repository.prune(&options, plan).map(|()| (freed, marked))
            });
            let (freed, marked) = pruned.map_err(|error| files.explain(&error))?;
            Ok(Pruned { forgotten, kept: kept.len(), freed, marked })
        })
    }

    /// Checks that every snapshot is complete, and with `read_data` that every pack in use holds what it should.
    ///
    /// # Errors
    /// [`VaultError::Broken`] with the first few findings.
    pub fn check(&self, read_data: bool) -> Result<(), VaultError> {
        guarded(|| {
            let files = Arc::new(self.files());
            let repository = self.open_with(&files)?;
            let results = repository.check(CheckOptions::default().read_data(read_data));
            sound(results.map_err(|error| files.explain(&error))?)
        })
    }

    fn snapshots(&self) -> Result<Vec<SnapshotFile>, VaultError> {
        let files = Arc::new(self.files());
        self.open_with(&files)?.get_all_snapshots().map_err(|error| files.explain(&error))
    }

    /// Removes half-written files: with the lock held alone, nobody is writing them.
    fn sweep(&self) -> Result<usize, VaultError> {
        let mut removed = 0;
        let repository = self.repository();
        let data = repository.join("data");
        let mut directories = vec![self.directory().to_owned(), repository.clone()];
        directories.extend(["index", "keys", "snapshots"].map(|name| repository.join(name)));
        directories.extend(entries(&data)?);
        for directory in directories {
            for path in entries(&directory)? {
                if path.file_name().is_some_and(|name| name.to_string_lossy().contains(UNFINISHED)) {
                    fs::remove_file(&path).trying("remove", &path)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Makes the index name the packs that are there: all of them, or only those given.
    fn repair_index(&self, only: Option<BTreeSet<Id>>) -> Result<(), VaultError> {
        let files = match only {
            Some(only) => self.files().listing_only(only),
            None => self.files(),
        };
        let files = Arc::new(files);
        let repository = self.open_with(&files)?;
        let repaired = repository.repair_index(&RepairIndexOptions::default(), false);
        repaired.map_err(|error| files.explain(&error))
    }

    /// Sets damaged packs aside once every snapshot is complete without them.
    fn retire_suspects(&self) -> Result<(Vec<String>, Vec<String>), VaultError> {
        let suspects = self.suspects()?;
        let all = self.files().list(FileType::Pack).map_err(|error| self.files().explain(&error))?;
        let (suspects, others): (BTreeSet<_>, BTreeSet<_>) = all.into_iter().partition(|id| suspects.contains(id));
        let names = suspects.iter().map(|id| id.to_hex().as_str().to_owned()).collect();
        if suspects.is_empty() {
            self.forget_suspects()?;
            return Ok((Vec::new(), names));
        }
        if !self.complete_with(&others)? {
            return Ok((Vec::new(), names));
        }
        self.repair_index(Some(others))?;
        let aside = self.directory().join("damaged");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&aside).trying("create", &aside)?;
        for name in &names {
            let pack = self.repository().join("data").join(&name[..2]).join(name);
            fs::rename(&pack, aside.join(name)).trying("set aside", &pack)?;
        }
        self.forget_suspects()?;
        Ok((names, Vec::new()))
    }

    fn forget_suspects(&self) -> Result<(), VaultError> {
        let path = self.suspects_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.trying("remove", &path),
        }
    }

    /// Whether every snapshot finds all it needs in these packs.
    fn complete_with(&self, packs: &BTreeSet<Id>) -> Result<bool, VaultError> {
        let files = Arc::new(self.files().listing_only(packs.clone()));
        let repository = self.open_with(&files)?.to_indexed_checked().map_err(|error| files.explain(&error))?;
        let mut seen = HashSet::new();
        let mut open: Vec<_> = self.snapshots()?.iter().map(|snapshot| snapshot.tree).collect();
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            let Ok(tree) = repository.get_tree(&id) else { return Ok(false) };
            for node in tree.nodes {
                open.extend(node.subtree);
                if node.content.unwrap_or_default().iter().any(|blob| repository.get_index_entry(blob).is_err()) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

fn found(file: &SnapshotFile) -> Found {
    let label = Label::of(&file.tags, file.description.as_deref());
    Found { snapshot: SnapshotId::of(file.id), label, at: file.time.timestamp() }
}

/// The captures to keep and those to forget.
fn divide(keep: &Keep, held: Vec<Found>) -> Result<(Vec<SnapshotId>, Vec<SnapshotId>), VaultError> {
    let nothing = BTreeSet::new();
    let (named, since) = match keep {
        Keep::Only(named) => (named, None),
        Keep::AndSince(named, since) => (named, Some(*since)),
        Keep::Nothing => (&nothing, None),
    };
    let known: BTreeSet<_> = held.iter().map(|found| &found.snapshot).collect();
    if let Some(gone) = named.iter().find(|id| !known.contains(id)) {
        // Most likely this is another vault than the caller believes; then everything in it would go.
        return Err(VaultError::Missing { snapshot: gone.clone() });
    }
    let snapshots = held.len();
    let keeps = |found: &Found| named.contains(&found.snapshot) || since.is_some_and(|since| found.at >= since);
    let (kept, forgotten): (Vec<_>, Vec<_>) = held.into_iter().partition(keeps);
    if kept.is_empty() && !forgotten.is_empty() && *keep != Keep::Nothing {
        return Err(VaultError::KeepsNothing { snapshots });
    }
    let ids = |found: Vec<Found>| found.into_iter().map(|found| found.snapshot).collect();
    Ok((ids(kept), ids(forgotten)))
}

/// Enough to know where to look; a broken disk has thousands.
const FINDINGS: usize = 5;

fn sound(results: CheckResults) -> Result<(), VaultError> {
    let is_error = |finding: &_| matches!(finding, (level, _) if format!("{level:?}") == "Error");
    let errors: Vec<_> =
        results.0.iter().filter(|finding| is_error(finding)).map(|(_, error)| error.to_string()).collect();
    match errors.len() {
        0 => Ok(()),
        more if more > FINDINGS => Err(VaultError::Broken {
            detail: format!("{}; and {} more", errors[..FINDINGS].join("; "), more - FINDINGS),
        }),
        _ => Err(VaultError::Broken { detail: errors.join("; ") }),
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, VaultError> {
    let listed = fs::read_dir(directory).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    listed.trying("list", directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> SnapshotId {
        String::from(digit).repeat(64).parse().unwrap()
    }

    fn held() -> Vec<Found> {
        let at = |second| Timestamp::from_second(second).unwrap();
        ['a', 'b', 'c'].into_iter().zip(1..).map(|(d, s)| Found { snapshot: id(d), label: None, at: at(s) }).collect()
    }

    #[test]
    fn only_what_is_named_is_kept_and_nothing_only_when_said() {
        let forgotten = |keep: Keep| divide(&keep, held()).map(|(_, forgotten)| forgotten);
        assert_eq!(forgotten(Keep::Only([id('b')].into())).unwrap(), [id('a'), id('c')]);
        let since = Timestamp::from_second(3).unwrap();
        assert_eq!(forgotten(Keep::AndSince([id('a')].into(), since)).unwrap(), [id('b')]);
        assert_eq!(forgotten(Keep::Nothing).unwrap().len(), 3);
        assert!(matches!(forgotten(Keep::Only(BTreeSet::new())), Err(VaultError::KeepsNothing { snapshots: 3 })));
        assert!(matches!(forgotten(Keep::Only([id('d')].into())), Err(VaultError::Missing { .. })));
        assert!(divide(&Keep::Only(BTreeSet::new()), Vec::new()).is_ok());
    }
}
