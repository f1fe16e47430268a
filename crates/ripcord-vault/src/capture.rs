//! Sources in; counted only once they were read back.
//!
//! The library drops what it fails to read with a line in a log, and writes the snapshot without it. So every source goes
//! through a reader of ours that hashes, counts and remembers a failure; a producer is asked how it ended before its stream
//! may end; and the snapshot's file is held back until what it names was read back and compared. A snapshot that exists was
//! proven, also when the process is killed anywhere in between; a capture counts once its manifest is in the journal.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use ripcord_core::Digest;
use rustic_core::repofile::{Metadata, Node, NodeType, SnapshotFile};
use rustic_core::{
    BackupOptions, DataId, ErrorKind, FileType, ParentOptions, ReadSource, ReadSourceEntry, ReadSourceOpen,
    RusticError, RusticResult, SnapshotOptions, TreeId,
};
use sha2::{Digest as _, Sha256};

use crate::directory::Directory;
use crate::error::guarded;
use crate::held::{Held, HeldFile, damaged, go_mode, matched};
use crate::lock::Sharing;
use crate::manifest::{VERSION, digest, total};
use crate::source::{Content, Ending, Item, Watched, items};
use crate::vault::Vault;
use crate::walk::{Is, Seen};
use crate::{Entry, Giver, Label, Manifest, Offered, SnapshotId, Source, VaultError, What, offer, text};

impl Vault {
    /// Writes a capture, reads every byte of it back, and returns what proves it.
    ///
    /// A capture that fails leaves no snapshot, only data that a later pruning takes away.
    /// # Errors
    /// [`VaultError::SourceFailed`] when a source or its producer failed, [`VaultError::Changed`] when a file would not hold
    /// still, [`VaultError::NoSpace`], [`VaultError::Damaged`] when something else came back than went in: what is damaged is
    /// not used again, so that another try stores it afresh.
    pub fn capture(&self, label: &Label, sources: Vec<Source>) -> Result<Manifest, VaultError> {
        guarded(|| {
            let _lock = self.lock(Sharing::Shared)?;
            let at = Timestamp::now();
            let (items, watched) = items(sources)?;
            self.captured(at, label, items, || watched.iter().try_for_each(Watched::unchanged))
        })
    }

    /// As [`Vault::capture`], of what another machine has.
    ///
    /// Contents are asked of `giver` as they are needed, from several threads; at the end it says whether what had to hold still
    /// did. Nothing it says is trusted to be well formed.
    pub fn capture_offered(
        &self,
        label: &Label,
        offered: Vec<Offered>,
        giver: Arc<dyn Giver>,
    ) -> Result<Manifest, VaultError> {
        guarded(|| {
            let _lock = self.lock(Sharing::Shared)?;
            let at = Timestamp::now();
            let items = offer::items(offered, &giver)?;
            self.captured(at, label, items, || giver.settled())
        })
    }

    /// `settled` says, once all was read, whether what had to hold still did.
    fn captured(
        &self,
        at: Timestamp,
        label: &Label,
        mut items: Vec<Item>,
        settled: impl FnOnce() -> Result<(), VaultError>,
    ) -> Result<Manifest, VaultError> {
        let stored = self.store_streams(label, &mut items)?;
        let outline: Vec<_> = items.iter().map(|item| (item.seen.clone(), item.timed)).collect();
        let archived = self.archive(label, items)?;
        let manifest = archived.manifest(at, &outline)?;
        settled()?;

        let held = Held::open(self)?;
        let nodes = held.nodes(&manifest.snapshot, archived.tree)?;
        let mut wanted = Vec::new();
        for (_, file) in matched(&manifest, &nodes)? {
            match stored.get(file.path) {
                Some(before) if before.read != (file.size, file.sha256) => {
                    let detail = "what came back of a stream is not what went in".to_owned();
                    return Err(damaged(&manifest.snapshot, file.path, detail));
                }
                // Read back already, when it was given its size.
                Some(before) if before.blobs == file.blobs => {}
                _ => wanted.push(file),
            }
        }
        held.contents(&manifest.snapshot, &wanted, |_, _| Ok(()))?;
        archived.files.release()?;
        tracing::debug!(snapshot = %manifest.snapshot, bytes = manifest.bytes, "captured and read back");
        Ok(manifest)
    }

    /// Stores what has no size yet, and makes it something that has one: a file read back from the vault.
    ///
    /// The library writes an entry's size before it reads the content, and restic restores a file of size zero as an empty
    /// one: with one pass only, a person with restic alone would get every dump back empty. The second pass writes nothing
    /// twice, and is the reading back that a capture needs anyway.
    fn store_streams(&self, label: &Label, items: &mut [Item]) -> Result<HashMap<String, Stored>, VaultError> {
        let endless = |item: &&mut Item| matches!(item.content, Content::Reader { size: None, .. });
        let streams: Vec<_> = items
            .iter_mut()
            .filter(endless)
            .map(|item| {
                let content = std::mem::replace(&mut item.content, Content::None);
                Item { seen: item.seen.clone(), at: item.at.clone(), content, timed: item.timed }
            })
            .collect();
        if streams.is_empty() {
            return Ok(HashMap::new());
        }
        let archived = self.archive(label, streams)?;
        let held = Arc::new(Held::open(self)?);
        let mut stored = HashMap::new();
        for (path, node) in held.nodes(&archived.snapshot, archived.tree)? {
            let path = text::path_text(&path);
            if let Some(read) = archived.read.get(&path) {
                stored.insert(path, Stored { read: *read, blobs: node.content.unwrap_or_default() });
            }
        }
        for item in items {
            if let (Content::None, Is::File(print)) = (&item.content, &mut item.seen.is) {
                let gone = || damaged(&archived.snapshot, &item.seen.path, "it is not in the repository".to_owned());
                let stored = stored.get(&item.seen.path).ok_or_else(gone)?;
                let reader = Box::new(HeldFile::new(Arc::clone(&held), stored.blobs.clone()));
                print.size = stored.read.0;
                item.content = Content::Reader { reader, size: Some(print.size), finish: None };
            }
        }
        Ok(stored)
    }

    fn archive(&self, label: &Label, items: Vec<Item>) -> Result<Archived, VaultError> {
        let (repository, files) = self.known(self.files().holding(FileType::Snapshot))?;
        let reading = Arc::new(Reading::default());
        let plan = Plan { items: Mutex::new(items), reading: Arc::clone(&reading) };
        // Without a parent: it would let the library skip files whose times look unchanged, and we promise to read them all.
        let options = BackupOptions::default().no_scan(true).parent_opts(ParentOptions::default().force(true));
        let archived = repository
            .archive(&options, &plan, snapshot_file(label)?, &[PathBuf::from("/")])
            .map_err(|error| files.explain(&error));
        // Its own threads saw our readers' failures only as something to skip: ours is the cause of whatever it says.
        reading.failure().map_or(Ok(()), Err)?;
        let archived = archived?;
        let read = std::mem::take(&mut *reading.read.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Archived { files, snapshot: SnapshotId::of(archived.id), tree: archived.tree, read })
    }
}

/// Content that is in the vault already.
struct Stored {
    read: (u64, Digest),
    blobs: Vec<DataId>,
}

/// Written, but not counted: its snapshot is held back in `files`.
struct Archived {
    files: Arc<Directory>,
    snapshot: SnapshotId,
    tree: TreeId,
    /// Size and hash of each file that was read to its end.
    read: HashMap<String, (u64, Digest)>,
}

impl Archived {
    fn manifest(&self, at: Timestamp, outline: &[(Seen, bool)]) -> Result<Manifest, VaultError> {
        let entry = |(seen, timed): &(Seen, bool)| {
            let what = match &seen.is {
                Is::Directory => What::Directory,
                Is::Link(target) => What::Link { target: text::text_of(target) },
                Is::File(_) => {
                    let unread = || VaultError::Internal { what: format!("`{}` was never read to its end", seen.path) };
                    let (size, sha256) = *self.read.get(&seen.path).ok_or_else(unread)?;
                    What::File { size, sha256 }
                }
            };
            let modified_ms = seen.modified.filter(|_| *timed).map(Timestamp::as_millisecond);
            Ok(Entry { path: seen.path.clone(), what, mode: seen.mode, modified_ms })
        };
        let entries = outline.iter().map(entry).collect::<Result<Vec<_>, VaultError>>()?;
        let too_large = || VaultError::Internal { what: "the capture is larger than can be counted".to_owned() };
        let (tree, bytes) = (digest(&entries), total(&entries).ok_or_else(too_large)?);
        Ok(Manifest { version: VERSION, snapshot: self.snapshot.clone(), entries, tree, bytes, at })
    }
}

fn snapshot_file(label: &Label) -> Result<SnapshotFile, VaultError> {
    // Named, because by default the library records our command line, which is nobody's business but the operator's.
    let options = SnapshotOptions::default().command("ripcord".to_owned()).label(label.capture.clone());
    let made = options.to_snapshot().map_err(|error| VaultError::Internal { what: error.display_log() });
    made.map(|mut file| {
        file.tags = label.tags();
        file.description = Some(label.why.clone());
        file
    })
}

/// What our readers saw, whatever the library makes of it.
#[derive(Default)]
struct Reading {
    read: Mutex<HashMap<String, (u64, Digest)>>,
    failed: Mutex<Option<VaultError>>,
    /// Set with the first failure: nobody needs the rest.
    stop: AtomicBool,
}

impl Reading {
    fn fail(&self, error: VaultError) -> io::Error {
        let told = io::Error::other(error.to_string());
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.store(true, Ordering::Release);
        told
    }

    fn failure(&self) -> Option<VaultError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The items of a capture as the library takes them.
struct Plan {
    items: Mutex<Vec<Item>>,
    reading: Arc<Reading>,
}

struct Entries {
    items: std::vec::IntoIter<Item>,
    reading: Arc<Reading>,
}

impl ReadSource for Plan {
    type Open = Opening;
    type Iter = Entries;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Entries {
        let items = std::mem::take(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner));
        Entries { items: items.into_iter(), reading: Arc::clone(&self.reading) }
    }
}

impl Iterator for Entries {
    type Item = RusticResult<ReadSourceEntry<Opening>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let item = self.items.next()?;
            if self.reading.stop.load(Ordering::Acquire) {
                return None;
            }
            // The root of the repository's tree is nobody's node.
            let Some(name) = item.at.file_name() else { continue };
            let node = Node::new_node(name, node_type(&item.seen), metadata(&item.seen));
            let reading = Arc::clone(&self.reading);
            let open = match item.content {
                Content::None => None,
                content => Some(Opening { path: item.seen.path, content, reading }),
            };
            return Some(Ok(ReadSourceEntry { path: item.at, node, open }));
        }
    }
}

fn node_type(seen: &Seen) -> NodeType {
    match &seen.is {
        Is::Directory => NodeType::Dir,
        Is::Link(target) => NodeType::from_link(Path::new(target)),
        Is::File(_) => NodeType::File,
    }
}

fn metadata(seen: &Seen) -> Metadata {
    Metadata {
        mode: Some(go_mode(seen.mode, &seen.is)),
        mtime: seen.modified,
        atime: seen.modified,
        ctime: seen.modified,
        uid: Some(seen.owner.0),
        gid: Some(seen.owner.1),
        // Of a stream nobody knows it yet; the manifest has it.
        size: if let Is::File(print) = &seen.is { print.size } else { 0 },
        links: 1,
        ..Metadata::default()
    }
}

/// A file not opened yet: there may be more of them than may be open at once.
struct Opening {
    path: String,
    content: Content,
    reading: Arc<Reading>,
}

impl ReadSourceOpen for Opening {
    type Reader = Through;

    fn open(self) -> RusticResult<Through> {
        let told = |error: VaultError| {
            let error = self.reading.fail(error);
            RusticError::with_source(ErrorKind::InputOutput, error.to_string(), error)
        };
        let (reader, ending) = self.content.open().map_err(told)?;
        let hash = Some(Sha256::new());
        Ok(Through { path: self.path, reader, ending: Some(ending), size: 0, hash, reading: self.reading })
    }
}

/// Hashes and counts what passes through; has the last word on whether it ended well.
struct Through {
    path: String,
    reader: Box<dyn Read + Send>,
    ending: Option<Ending>,
    size: u64,
    /// `None` once the end was seen.
    hash: Option<Sha256>,
    reading: Arc<Reading>,
}

impl Through {
    fn end(&mut self) -> io::Result<()> {
        let Some(hash) = self.hash.take() else { return Ok(()) };
        if let Some(Err(error)) = self.ending.take().map(|ending| ending.judge(&self.path, self.size)) {
            return Err(self.reading.fail(error));
        }
        let sha256 = Digest::from_bytes(hash.finalize().into());
        self.reading.read.lock().unwrap_or_else(PoisonError::into_inner).insert(self.path.clone(), (self.size, sha256));
        Ok(())
    }
}

impl Read for Through {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.reading.stop.load(Ordering::Acquire) {
            return Err(io::Error::other("another source of the capture failed"));
        }
        let Some(hash) = self.hash.as_mut().filter(|_| !buffer.is_empty()) else { return Ok(0) };
        match self.reader.read(buffer) {
            Ok(0) => self.end().map(|()| 0),
            Ok(read) => {
                self.size += read as u64;
                hash.update(&buffer[..read]);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(source) => {
                let failed = |source| VaultError::SourceFailed { path: self.path.clone(), source };
                // A stream that is read back tells what is wrong with the vault.
                Err(self.reading.fail(source.downcast::<VaultError>().unwrap_or_else(failed)))
            }
        }
    }
}
