//! Reads what the repository holds, and compares it with what it should be.
//!
//! The library gives back blobs by their name; that a blob is gone, cut or altered is an error with the entry's path in it. The
//! pack it came from is noted, and another copy of the blob, if a later capture left one, is used instead.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::{thread, vec};

use bytes::Bytes;
use ripcord_core::Digest;
use rustic_core::repofile::{BlobType, Node, SnapshotFile, Tree};
use rustic_core::{BlobId, DataId, FileType, IndexedFullStatus, PackedId, Repository, RusticResult, TreeId};
use sha2::{Digest as _, Sha256};

use crate::directory::Directory;
use crate::manifest::sorted_by_path;
use crate::vault::Vault;
use crate::{Entry, Manifest, SnapshotId, VaultError, What, text};

/// Blobs a worker fetches before they are wanted. A blob is 1 MB on average and 8 MB at most.
const AHEAD: usize = 2;
/// Enough to keep a disk busy; more would only hold more memory.
const MOST_WORKERS: usize = 8;
/// The index is read while a pruning may replace it: then it is read again.
const TRIES: usize = 3;

/// The contents of a vault, as of when it was opened.
pub(crate) struct Held {
    vault: Vault,
    repository: Repository<IndexedFullStatus>,
    files: Arc<Directory>,
    /// Other ways to the same blobs; looked for when the first way fails.
    others: Mutex<Option<Vec<Arc<Way>>>>,
}

type Way = (Repository<IndexedFullStatus>, Arc<Directory>);

/// A file to be read whole, and what it must turn out to be.
pub(crate) struct Wanted<'a> {
    pub(crate) path: &'a str,
    pub(crate) blobs: &'a [DataId],
    pub(crate) size: u64,
    pub(crate) sha256: Digest,
}

impl Held {
    pub(crate) fn open(vault: &Vault) -> Result<Self, VaultError> {
        let mut tries = 1;
        loop {
            match vault.readable() {
                Ok((repository, files)) => {
                    return Ok(Self { vault: vault.clone(), repository, files, others: Mutex::default() });
                }
                Err(VaultError::Broken { .. }) if tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The tree a capture's snapshot names.
    pub(crate) fn root(&self, snapshot: &SnapshotId) -> Result<TreeId, VaultError> {
        let file: RusticResult<SnapshotFile> = self.repository.get_file(&snapshot.id()?);
        file.map(|file| file.tree).map_err(|error| {
            let path = self.vault.repository().join(FileType::Snapshot.dirname()).join(snapshot.as_str());
            match (self.files.explain(&error), path.try_exists()) {
                (_, Ok(false)) => VaultError::Missing { snapshot: snapshot.clone() },
                (VaultError::Broken { detail }, _) => damaged(snapshot, "", detail),
                (other, _) => other,
            }
        })
    }

    /// Everything in a snapshot's tree, each directory right before what it holds.
    pub(crate) fn nodes(&self, snapshot: &SnapshotId, root: TreeId) -> Result<Vec<(PathBuf, Node)>, VaultError> {
        let mut found = Vec::new();
        let mut open = vec![(PathBuf::new(), root)];
        while let Some((above, tree)) = open.pop() {
            for node in self.tree(&tree).map_err(|error| at(error, snapshot, &text::path_text(&above)))?.nodes {
                let path = above.join(node.name());
                if let Some(tree) = node.subtree {
                    open.push((path.clone(), tree));
                }
                found.push((path, node));
            }
        }
        Ok(sorted_by_path(found, |(path, _)| path))
    }

    /// The node at one path, reading only the directories that lead there.
    pub(crate) fn node(&self, snapshot: &SnapshotId, path: &str) -> Result<Node, VaultError> {
        let gone = || damaged(snapshot, path, "it is not in the repository".to_owned());
        let (mut tree, mut found) = (Some(self.root(snapshot)?), None);
        for name in &text::inside(path)? {
            let nodes = self.tree(&tree.ok_or_else(gone)?).map_err(|error| at(error, snapshot, path))?.nodes;
            let node = nodes.into_iter().find(|node| node.name() == name).ok_or_else(gone)?;
            tree = node.subtree;
            found = Some(node);
        }
        found.ok_or_else(gone)
    }

    /// Reads `files` in their order and hands each piece to `sink`, then `None` once the file has proven to be the one wanted.
    ///
    /// Blobs are fetched in parallel; memory holds a few of them per processor, however large the files are.
    pub(crate) fn contents(
        &self,
        snapshot: &SnapshotId,
        files: &[Wanted<'_>],
        mut sink: impl FnMut(usize, Option<&[u8]>) -> Result<(), VaultError>,
    ) -> Result<(), VaultError> {
        let blobs: Vec<&DataId> = files.iter().flat_map(|file| file.blobs).collect();
        let workers = thread::available_parallelism().map_or(2, usize::from).clamp(1, MOST_WORKERS).min(blobs.len());
        thread::scope(|scope| {
            // Worker `w` fetches every blob whose number is `w` modulo their count, so the order needs no bookkeeping. A worker
            // stops when nobody listens any more; one that panics hangs up, and the scope passes its panic on.
            let fetched: Vec<_> = (0..workers)
                .map(|worker| {
                    let (send, receive) = sync_channel(AHEAD);
                    let mut mine = blobs.iter().skip(worker).step_by(workers);
                    scope.spawn(move || mine.try_for_each(|id| send.send(self.blob(id))));
                    receive
                })
                .collect();
            let mut turns = fetched.iter().cycle();
            for (number, file) in files.iter().enumerate() {
                let (mut hash, mut size) = (Sha256::new(), 0);
                for _ in file.blobs {
                    let hung_up = || VaultError::Internal { what: "a reader of the vault stopped".to_owned() };
                    let blob = turns.next().and_then(|worker| worker.recv().ok()).ok_or_else(hung_up)?;
                    let blob = blob.map_err(|error| at(error, snapshot, file.path))?;
                    hash.update(&blob);
                    size += blob.len() as u64;
                    sink(number, Some(&blob))?;
                }
                let sha256 = Digest::from_bytes(hash.finalize().into());
                if (size, sha256) != (file.size, file.sha256) {
                    let detail =
                        format!("{size} bytes {sha256} were read, {} bytes {} are recorded", file.size, file.sha256);
                    return Err(damaged(snapshot, file.path, detail));
                }
                sink(number, None)?;
            }
            Ok(())
        })
    }

    fn tree(&self, id: &TreeId) -> Result<Tree, VaultError> {
        self.fetch(id, |repository| repository.get_tree(id))
    }

    fn blob(&self, id: &DataId) -> Result<Bytes, VaultError> {
        self.fetch(id, |repository| repository.get_blob_cached(&BlobId::from(**id), BlobType::Data))
    }

    fn fetch<I: PackedId, T>(
        &self,
        id: &I,
        get: impl Fn(&Repository<IndexedFullStatus>) -> RusticResult<T>,
    ) -> Result<T, VaultError> {
        let error = match get(&self.repository) {
            Ok(got) => return Ok(got),
            Err(error) => self.files.explain(&error),
        };
        if !matches!(error, VaultError::Broken { .. }) {
            return Err(error);
        }
        if let Ok(entry) = self.repository.get_index_entry(id) {
            self.vault.suspect(&entry.pack);
        }
        for way in self.other_ways()? {
            match get(&way.0) {
                Ok(got) => return Ok(got),
                Err(error) => drop(way.1.explain(&error)),
            }
        }
        Err(error)
    }

    /// Without the packs that are suspected by now, where a later capture may have left a copy; and with all of them, since a
    /// pack that is damaged in one place is whole in others.
    fn other_ways(&self) -> Result<Vec<Arc<Way>>, VaultError> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ways) = &*others {
            return Ok(ways.clone());
        }
        let ways = vec![Arc::new(self.vault.readable()?), Arc::new(self.vault.readable_at_all()?)];
        *others = Some(ways.clone());
        Ok(ways)
    }
}

/// One file of a vault as a stream. An error of the vault's is inside the one it gives.
pub(crate) struct HeldFile {
    held: Arc<Held>,
    blobs: vec::IntoIter<DataId>,
    current: Bytes,
}

impl HeldFile {
    pub(crate) fn new(held: Arc<Held>, blobs: Vec<DataId>) -> Self {
        Self { held, blobs: blobs.into_iter(), current: Bytes::new() }
    }
}

impl Read for HeldFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let Some(next) = self.blobs.next() else { return Ok(0) };
            self.current = self.held.blob(&next).map_err(io::Error::other)?;
        }
        let part = self.current.split_to(buffer.len().min(self.current.len()));
        buffer[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}

/// The files of a capture, once every entry was found in the repository as the manifest has it.
pub(crate) fn matched<'a>(
    manifest: &'a Manifest,
    nodes: &'a [(PathBuf, Node)],
) -> Result<Vec<(usize, Wanted<'a>)>, VaultError> {
    let no = |path: &str, detail: &str| Err(damaged(&manifest.snapshot, path, detail.to_owned()));
    let mut nodes = nodes.iter();
    let mut wanted = Vec::new();
    for (number, entry) in manifest.entries.iter().enumerate() {
        if entry.path.is_empty() {
            // A repository has no place for the root's own mode and time; the manifest has.
            continue;
        }
        let Some((path, node)) = nodes.next() else { return no(&entry.path, "it is not in the repository") };
        if *path != text::inside(&entry.path)? {
            return no(&entry.path, &format!("the repository has `{}` in its place", text::path_text(path)));
        }
        if !agrees(entry, node) {
            return no(&entry.path, "the repository has it as something else");
        }
        if let What::File { size, sha256 } = entry.what {
            let blobs = node.content.as_deref().unwrap_or_default();
            wanted.push((number, Wanted { path: &entry.path, blobs, size, sha256 }));
        }
    }
    match nodes.next() {
        None => Ok(wanted),
        Some((path, _)) => no(&text::path_text(path), "the manifest does not have it"),
    }
}

/// Whether kind, target and mode are those of the entry; content is compared when it is read.
pub(crate) fn agrees(entry: &Entry, node: &Node) -> bool {
    match &entry.what {
        What::File { .. } => node.is_file() && mode_of(node) == entry.mode,
        What::Directory => node.is_dir() && mode_of(node) == entry.mode,
        What::Link { target } => {
            let target = text::name_of(target);
            node.is_symlink() && target.is_some_and(|target| node.node_type.to_link() == Path::new(&target))
        }
    }
}

/// Where Go's `fs.FileMode`, which the format uses, has the three bits above the permissions.
const GO_BITS: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
const GO_DIRECTORY: u32 = 1 << 31;
const GO_LINK: u32 = 1 << 27;

pub(crate) fn go_mode(mode: u32, is: &crate::walk::Is) -> u32 {
    let kind = match is {
        crate::walk::Is::Directory => GO_DIRECTORY,
        crate::walk::Is::Link(_) => GO_LINK,
        crate::walk::Is::File(_) => 0,
    };
    GO_BITS.iter().filter(|(ours, _)| mode & ours != 0).fold(mode & 0o777 | kind, |all, (_, go)| all | go)
}

fn mode_of(node: &Node) -> u32 {
    let go = node.meta.mode.unwrap_or_default();
    GO_BITS.iter().filter(|(_, bit)| go & bit != 0).fold(go & 0o777, |mode, (ours, _)| mode | ours)
}

pub(crate) fn damaged(snapshot: &SnapshotId, path: &str, detail: String) -> VaultError {
    VaultError::Damaged { snapshot: snapshot.clone(), path: path.to_owned(), detail }
}

/// Names the entry at which the vault turned out to be damaged.
fn at(error: VaultError, snapshot: &SnapshotId, path: &str) -> VaultError {
    match error {
        VaultError::Broken { detail } => damaged(snapshot, path, detail),
        other => other,
    }
}
