//! Captures out: compared with their manifest, durable, and in place as a whole or not at all.
//!
//! The library's own restore panics on damaged data, writes in place, syncs nothing and needs as much memory as data. Ours
//! builds beside the target, on the same file system, and renames. What a killed restore left beside a target is recognised,
//! and taken away by the next one for the same target.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::{panic, thread};

use jiff::Timestamp;
use ripcord_core::Digest;
use rustic_core::repofile::Node;
use rustix::fs::{AtFlags, CWD, FlockOperation, Gid, Mode, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use crate::error::{Trying, guarded};
use crate::held::{Held, Wanted, agrees, damaged, matched};
use crate::vault::Vault;
use crate::walk::{Is, walk};
use crate::{Entry, Manifest, Outfit, VaultError, What, manifest, place, text};

/// How much of a file is written before the disk is sent off.
const HEAD_START: usize = 16 << 20;

impl Vault {
    /// Reads a capture back and compares every byte.
    /// # Errors
    /// [`VaultError::Damaged`] names the first entry that did not come back as it was.
    pub fn verify(&self, manifest: &Manifest) -> Result<(), VaultError> {
        guarded(|| {
            manifest.check()?;
            let held = Held::open(self)?;
            let nodes = held.nodes(&manifest.snapshot, held.root(&manifest.snapshot)?)?;
            let wanted: Vec<_> = matched(manifest, &nodes)?.into_iter().map(|(_, wanted)| wanted).collect();
            held.contents(&manifest.snapshot, &wanted, |_, _| Ok(()))
        })
    }

    /// Puts a whole capture at `into`, which must not exist; its parent must.
    ///
    /// Content, modes, links and times come back; owners when run as root. On any error `into` does not exist and nothing is
    /// left beside it.
    pub fn restore(&self, manifest: &Manifest, into: &Path) -> Result<(), VaultError> {
        guarded(|| whole(manifest, into, || Near::whole(self, manifest)))
    }

    /// Writes the content of one file to `out` and returns its size. On an error what `out` got is void.
    pub fn read(&self, manifest: &Manifest, path: &str, out: &mut dyn Write) -> Result<u64, VaultError> {
        let pass = |bytes: &[u8]| out.write_all(bytes).trying("pass on", Path::new(path));
        guarded(|| bytes(manifest, || Near::one(self, manifest, path), pass))
    }

    /// Puts one file at `to`, in the place of what may be there: whole and checked, or `to` stays as it was.
    ///
    /// `mode` goes before the mode it had when it was captured.
    pub fn restore_file(
        &self,
        manifest: &Manifest,
        path: &str,
        to: &Path,
        mode: Option<u32>,
    ) -> Result<(), VaultError> {
        guarded(|| file(manifest, path, to, mode, || Near::one(self, manifest, path)))
    }
}

/// Where a capture, or one file of it, comes from.
pub(crate) trait Giving {
    /// One for each entry that is given, in order; the root has none.
    fn outfits(&self) -> Vec<Outfit>;
    /// Hands each piece of each file to `sink`, in order, then `None` once the file has proven to be the one recorded.
    fn contents(&mut self, sink: Sink<'_>) -> Result<(), VaultError>;
}

type Sink<'a> = &'a mut dyn FnMut(usize, Option<&[u8]>) -> Result<(), VaultError>;

/// A capture in a vault of this machine.
pub(crate) struct Near<'a> {
    held: Held,
    manifest: &'a Manifest,
    nodes: Vec<(PathBuf, Node)>,
    /// The only file that is given, and how it is recorded.
    only: Option<(&'a str, u64, Digest)>,
}

impl<'a> Near<'a> {
    pub(crate) fn whole(vault: &Vault, manifest: &'a Manifest) -> Result<Self, VaultError> {
        manifest.check()?;
        let held = Held::open(vault)?;
        let nodes = held.nodes(&manifest.snapshot, held.root(&manifest.snapshot)?)?;
        matched(manifest, &nodes)?;
        Ok(Self { held, manifest, nodes, only: None })
    }

    pub(crate) fn one(vault: &Vault, manifest: &'a Manifest, path: &'a str) -> Result<Self, VaultError> {
        manifest.check()?;
        let no_file = || VaultError::NoEntry { path: path.to_owned() };
        let entry = manifest.entry(path).ok_or_else(no_file)?;
        let What::File { size, sha256 } = entry.what else { return Err(no_file()) };
        let held = Held::open(vault)?;
        let node = held.node(&manifest.snapshot, path)?;
        if !agrees(entry, &node) {
            return Err(damaged(&manifest.snapshot, path, "the repository has it as something else".to_owned()));
        }
        let nodes = vec![(PathBuf::from(path), node)];
        Ok(Self { held, manifest, nodes, only: Some((path, size, sha256)) })
    }
}

impl Giving for Near<'_> {
    fn outfits(&self) -> Vec<Outfit> {
        self.nodes.iter().map(|(_, node)| Outfit::of(&node.meta)).collect()
    }

    fn contents(&mut self, sink: Sink<'_>) -> Result<(), VaultError> {
        let wanted: Vec<_> = match (self.only, self.nodes.first()) {
            (Some((path, size, sha256)), Some((_, node))) => {
                vec![Wanted { path, blobs: node.content.as_deref().unwrap_or_default(), size, sha256 }]
            }
            _ => matched(self.manifest, &self.nodes)?.into_iter().map(|(_, wanted)| wanted).collect(),
        };
        self.held.contents(&self.manifest.snapshot, &wanted, sink)
    }
}

/// Puts a whole capture at `into`.
pub(crate) fn whole<G: Giving>(
    manifest: &Manifest,
    into: &Path,
    open: impl FnOnce() -> Result<G, VaultError>,
) -> Result<(), VaultError> {
    manifest.check()?;
    if fs::symlink_metadata(into).is_ok() {
        return Err(VaultError::Exists { path: into.to_owned() });
    }
    let mut giving = open()?;
    let staging = Staging::beside(into)?;
    build(&mut giving, manifest, &staging.path)?;
    // One call for all files and directories: a sync of each of many small files takes several times as long. It
    // tells of writes that failed since Linux 5.8.
    rustix::fs::syncfs(&staging.directory).trying("sync the file system of", &staging.path)?;
    staging.rename(into)
}

/// Puts one file at `to`.
pub(crate) fn file<G: Giving>(
    manifest: &Manifest,
    path: &str,
    to: &Path,
    mode: Option<u32>,
    open: impl FnOnce() -> Result<G, VaultError>,
) -> Result<(), VaultError> {
    let entry = manifest.entry(path).ok_or_else(|| VaultError::NoEntry { path: path.to_owned() })?;
    place::file(to, mode.unwrap_or(entry.mode) & 0o7777, |file| {
        manifest.check()?;
        let mut giving = open()?;
        giving.contents(&mut |_, bytes| bytes.map_or(Ok(()), |bytes| file.write_all(bytes).trying("write", to)))?;
        let outfit = giving.outfits().into_iter().next().unwrap_or_default();
        if let Some((uid, gid)) = owner(&outfit) {
            rustix::fs::fchown(&*file, Some(uid), Some(gid)).trying("set the owner of", to)?;
        }
        match times(entry, &outfit) {
            Some(times) => rustix::fs::futimens(&*file, &times).trying("set the time of", to),
            None => Ok(()),
        }
    })
}

/// Passes the content of one file on and returns its size.
pub(crate) fn bytes<G: Giving>(
    manifest: &Manifest,
    open: impl FnOnce() -> Result<G, VaultError>,
    mut pass: impl FnMut(&[u8]) -> Result<(), VaultError>,
) -> Result<u64, VaultError> {
    manifest.check()?;
    let mut size = 0;
    open()?.contents(&mut |_, bytes| {
        let bytes = bytes.unwrap_or_default();
        size += bytes.len() as u64;
        pass(bytes)
    })?;
    Ok(size)
}

/// Builds the capture in `root`, which is there and empty.
fn build(giving: &mut impl Giving, manifest: &Manifest, root: &Path) -> Result<(), VaultError> {
    let at = |entry: &Entry| text::inside(&entry.path).map(|path| root.join(path));
    // Nodes have no root; the manifest may.
    let rootless = manifest.entries.iter().filter(|entry| !entry.path.is_empty());
    for entry in rootless.clone() {
        let path = at(entry)?;
        match &entry.what {
            What::Directory => DirBuilder::new().mode(0o700).create(&path).trying("create", &path)?,
            What::Link { target } => {
                symlink(text::name_of(target).unwrap_or_default(), &path).trying("create", &path)?
            }
            What::File { .. } => {}
        }
    }
    let files = rootless.clone().filter(|entry| matches!(entry.what, What::File { .. }));
    let paths = files.map(at).collect::<Result<Vec<_>, _>>()?;
    write(giving, manifest, &paths)?;
    // Deepest first: a mode may forbid to change what is inside, and every change inside sets the time.
    for (entry, outfit) in rootless.zip(giving.outfits()).collect::<Vec<_>>().into_iter().rev() {
        dress(&at(entry)?, entry, &outfit)?;
    }
    match manifest.entries.first().filter(|entry| entry.path.is_empty()) {
        Some(entry) => dress(root, entry, &Outfit::default())?,
        None => rustix::fs::chmod(root, Mode::from_raw_mode(0o755)).trying("set the mode of", root)?,
    }
    compare(manifest, root)
}

/// Writes the files, and has the disk begin before the last byte is there: left alone, the system waits for gigabytes.
fn write(giving: &mut impl Giving, manifest: &Manifest, paths: &[PathBuf]) -> Result<(), VaultError> {
    thread::scope(|scope| {
        let (early, begun) = sync_channel::<File>(1);
        let syncing = scope.spawn(move || begun.iter().try_for_each(|file| file.sync_data()));
        let (mut open, mut unsynced): (Option<File>, usize) = (None, 0);
        let written = giving.contents(&mut |number, bytes| {
            let path = &paths[number];
            let new = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).trying("create", path);
            let file = match &mut open {
                Some(file) => file,
                none => none.insert(new()?),
            };
            let Some(bytes) = bytes else {
                (open, unsynced) = (None, 0);
                return Ok(());
            };
            file.write_all(bytes).trying("write", path)?;
            unsynced += bytes.len();
            if unsynced >= HEAD_START
                && let Ok(file) = file.try_clone()
                && early.try_send(file).is_ok()
            {
                unsynced = 0;
            }
            Ok(())
        });
        drop(early);
        let synced = syncing.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
        written.and_then(|()| synced.trying("sync what was written for", Path::new(manifest.snapshot.as_str())))
    })
}

/// Gives what was built its owner, mode and time, in this order: each takes away from the one before.
fn dress(path: &Path, entry: &Entry, outfit: &Outfit) -> Result<(), VaultError> {
    if let Some((uid, gid)) = owner(outfit) {
        rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .trying("set the owner of", path)?;
    }
    if !matches!(entry.what, What::Link { .. }) {
        rustix::fs::chmod(path, Mode::from_raw_mode(entry.mode)).trying("set the mode of", path)?;
    }
    match times(entry, outfit) {
        Some(times) => {
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).trying("set the time of", path)
        }
        None => Ok(()),
    }
}

/// The owner it had, where we may give files away.
fn owner(outfit: &Outfit) -> Option<(Uid, Gid)> {
    let (uid, gid) = outfit.owner.filter(|_| rustix::process::geteuid().is_root())?;
    Some((Uid::from_raw(uid), Gid::from_raw(gid)))
}

/// The time it had: to the nanosecond as the repository has it, if that is the time the manifest has.
fn times(entry: &Entry, outfit: &Outfit) -> Option<Timestamps> {
    let recorded = Timestamp::from_millisecond(entry.modified_ms?).ok()?;
    let exact = outfit.modified.filter(|time| time.as_millisecond() == recorded.as_millisecond()).unwrap_or(recorded);
    // Below the epoch a time of jiff counts its nanoseconds backwards; the kernel always counts forwards.
    let nanoseconds = exact.as_nanosecond();
    let last_modification = Timespec {
        tv_sec: i64::try_from(nanoseconds.div_euclid(1_000_000_000)).ok()?,
        tv_nsec: i64::try_from(nanoseconds.rem_euclid(1_000_000_000)).ok()?,
    };
    Some(Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification })
}

/// Looks at what was built, additions and modes included. Its content was compared on the way in.
fn compare(manifest: &Manifest, root: &Path) -> Result<(), VaultError> {
    let mut built = Vec::with_capacity(manifest.entries.len());
    let mut recorded = manifest.entries.iter().peekable();
    for seen in walk(root, &[])? {
        let entry = recorded.next_if(|entry| entry.path == seen.path);
        if seen.path.is_empty() && entry.is_none() {
            continue;
        }
        let what = match (seen.is, entry.map(|entry| &entry.what)) {
            (Is::Directory, _) => What::Directory,
            (Is::Link(target), _) => What::Link { target: text::text_of(&target) },
            (Is::File(print), Some(What::File { sha256, .. })) => What::File { size: print.size, sha256: *sha256 },
            (Is::File(print), _) => What::File { size: print.size, sha256: Digest::ZERO },
        };
        built.push(Entry { path: seen.path, what, mode: seen.mode, modified_ms: None });
    }
    match manifest::digest(&built) == manifest.tree {
        true => Ok(()),
        false => {
            Err(VaultError::Internal { what: format!("what was built at {} is not what was captured", root.display()) })
        }
    }
}

/// A directory beside a target, gone when dropped unless it took the target's place.
struct Staging {
    path: PathBuf,
    /// Locked while we are at work, so that the next one can tell a leftover from a neighbour.
    directory: File,
    kept: bool,
}

impl Staging {
    fn beside(into: &Path) -> Result<Self, VaultError> {
        let no_name = || VaultError::BadPath { path: into.display().to_string(), why: "it has no name to restore to" };
        let digest = Digest::of(into.file_name().ok_or_else(no_name)?.as_encoded_bytes());
        let path = into.with_file_name(OsString::from(format!(".ripcord-restoring-{}", digest.short())));
        if let Ok(left) = File::open(&path) {
            match rustix::fs::flock(&left, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Err(VaultError::Locked { path }),
                taken => taken.trying("lock", &path)?,
            }
            remove_tree(&path)?;
        }
        DirBuilder::new().mode(0o700).create(&path).trying("create", &path)?;
        let directory = File::open(&path).trying("open", &path)?;
        rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).trying("lock", &path)?;
        Ok(Self { path, directory, kept: false })
    }

    fn rename(mut self, into: &Path) -> Result<(), VaultError> {
        match rustix::fs::renameat_with(CWD, &self.path, CWD, into, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => return Err(VaultError::Exists { path: into.to_owned() }),
            done => done.trying("create", into)?,
        }
        self.kept = true;
        rustix::fs::flock(&self.directory, FlockOperation::Unlock).trying("unlock", into)?;
        place::sync_directory(place::parent(into))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = remove_tree(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "what a failed restore built could not be removed");
        }
    }
}

/// Removes a tree whose directories may forbid it.
fn remove_tree(root: &Path) -> Result<(), VaultError> {
    if fs::remove_dir_all(root).is_ok() {
        return Ok(());
    }
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        rustix::fs::chmod(&directory, Mode::RWXU).trying("set the mode of", &directory)?;
        for entry in fs::read_dir(&directory).trying("list", &directory)? {
            let entry = entry.trying("list", &directory)?;
            if entry.file_type().trying("look at", &entry.path())?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(root).trying("remove", root)
}
