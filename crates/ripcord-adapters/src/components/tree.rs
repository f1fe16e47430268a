//! Directories as revisions, and what must survive inside them when they are replaced.

pub(crate) mod switch; // one tree in the place of another, in one instant

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use jiff::Timestamp;
use ripcord_core::{Digest, Failure, Revision, Seen};
use ripcord_vault::{Entry, Manifest, Source, VaultError, What, excepted, path_text, tree_digest};

use super::files::captures::vault_failure;
use super::files::{FileError, Trying, meta, own, owner, point};

/// Where a tree or a file lies in its capture.
pub(crate) const CONTENT: &str = "tree";
/// What a capture of nothing holds.
const ABSENT: &str = "absent";

/// The revision of what is at `path`: a directory's or a file's digest, without what is excepted.
pub(crate) fn revision(path: &Path, except: &[String]) -> Result<Revision, VaultError> {
    let io = |error: FileError| VaultError::Io {
        what: "look at",
        path: path.to_owned(),
        source: std::io::Error::other(error.to_string()),
    };
    let Some(meta) = meta(path).map_err(io)? else { return Ok(Revision::Absent) };
    let digest = match meta.is_file() {
        true => file_digest(path, &meta)?,
        false => tree_digest(path, except)?.0,
    };
    Ok(Revision::exact(digest.to_string()))
}

/// The digest a capture of this one file has: through the same types, so that it is the same by construction.
fn file_digest(path: &Path, meta: &fs::Metadata) -> Result<Digest, VaultError> {
    let io = |source| VaultError::Io { what: "read", path: path.to_owned(), source };
    let mut hashing = Hashing::default();
    let size = fs::File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut hashing)).map_err(io)?;
    let what = What::File { size, sha256: hashing.digest() };
    let entry = Entry { path: CONTENT.to_owned(), what, mode: meta.mode() & 0o7777, modified_ms: None };
    let snapshot = "0".repeat(64).parse()?;
    let alone = Manifest {
        version: 1,
        snapshot,
        entries: vec![entry],
        tree: Digest::ZERO,
        bytes: size,
        at: Timestamp::UNIX_EPOCH,
    };
    alone.tree_below(CONTENT).ok_or_else(|| VaultError::NoEntry { path: CONTENT.to_owned() })
}

#[derive(Default)]
pub(crate) struct Hashing(sha2::Sha256);

impl Hashing {
    pub(crate) fn digest(self) -> Digest {
        use sha2::Digest as _;
        Digest::from_bytes(self.0.finalize().into())
    }
}

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        use sha2::Digest as _;
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What was seen, where a look at a tree may fail for what the tree is.
pub(crate) fn seen(looked: &Result<Revision, VaultError>) -> Seen {
    match looked {
        Ok(revision) => Seen::At(revision.clone()),
        Err(error @ (VaultError::Changed { .. } | VaultError::Unsupported { .. })) => {
            Seen::Between { why: error.to_string() }
        }
        Err(error) => Seen::Unreachable { why: vault_failure(error).what },
    }
}

/// What a capture of the place is made of.
pub(crate) fn sources(path: &Path, except: &[String]) -> Result<Vec<Source>, FileError> {
    Ok(vec![match meta(path)? {
        None => Source::Bytes { path: ABSENT.to_owned(), bytes: vec![], mode: 0o600 },
        Some(meta) if meta.is_file() => Source::File { path: CONTENT.to_owned(), from: path.to_owned() },
        Some(_) => Source::Tree { path: CONTENT.to_owned(), root: path.to_owned(), except: except.to_vec() },
    }])
}

/// The revision that a capture of a place holds.
pub(crate) fn captured(manifest: &Manifest) -> Revision {
    match manifest.tree_below(CONTENT) {
        None => Revision::Absent,
        Some(digest) => Revision::exact(digest.to_string()),
    }
}

/// What became of the things that had to survive.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    pub(crate) files: u64,
    /// What the new tree has itself, or what cannot be carried: it stays in the former tree only.
    pub(crate) left: Vec<String>,
}

/// Carries what `kept` names from one tree into another: files by hard link, so that they stay the same files, directories made
/// anew, links copied. What is there already stays, unless it is an older one: a file that was replaced in `from` since it was
/// carried over is another file now.
pub(crate) fn carry(from: &Path, to: &Path, kept: &dyn Fn(&str) -> Kept) -> Result<Carried, Failure> {
    let mut carried = Carried::default();
    walk(from, to, Path::new(""), kept, Kept::Below, &mut carried)?;
    Ok(carried)
}

/// Whether a path is carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It, and what it holds.
    All,
    /// Not it, but perhaps something it holds.
    Below,
    Nothing,
}

impl Kept {
    pub(crate) fn named(patterns: &[String], path: &str) -> Self {
        if excepted(path, patterns) { Self::All } else { Self::Below }
    }
}

fn walk(
    from: &Path,
    to: &Path,
    directory: &Path,
    kept: &dyn Fn(&str) -> Kept,
    inside: Kept,
    carried: &mut Carried,
) -> Result<(), Failure> {
    let here = from.join(directory);
    let mut names: Vec<_> = fs::read_dir(&here)
        .and_then(|list| list.map(|entry| entry.map(|entry| entry.file_name())).collect())
        .trying("list", &here)?;
    names.sort();
    for name in names {
        let path = directory.join(&name);
        let (source, target) = (from.join(&path), to.join(&path));
        let text = path_text(&path);
        let taken = match (inside, kept(&text)) {
            (_, Kept::Nothing) => Kept::Nothing,
            (Kept::All, _) => Kept::All,
            (_, taken) => taken,
        };
        let Some(meta) = meta(&source)? else { continue };
        if meta.is_dir() {
            if taken == Kept::All {
                make_directories(from, to, &path)?;
            }
            if taken != Kept::Nothing {
                walk(from, to, &path, kept, taken, carried)?;
            }
        } else if taken == Kept::All {
            carry_one(from, to, &path, &meta, carried).map_err(|error| crossing(error, &target))?;
        }
    }
    Ok(())
}

fn carry_one(from: &Path, to: &Path, path: &Path, is: &fs::Metadata, carried: &mut Carried) -> Result<(), FileError> {
    let (source, target) = (from.join(path), to.join(path));
    if let Some(there) = meta(&target)? {
        let time = |meta: &fs::Metadata| (meta.mtime(), meta.mtime_nsec());
        let same = (there.dev(), there.ino()) == (is.dev(), is.ino());
        if !same && is.is_file() && there.is_file() && time(is) > time(&there) {
            let newer = target.with_file_name(format!(".ripcord-carried-{}", is.ino()));
            super::files::remove_file(&newer)?;
            point("link");
            fs::hard_link(&source, &newer).trying("link", &source)?;
            fs::rename(&newer, &target).trying("replace", &target)?;
            carried.files += 1;
        } else if !same {
            carried.left.push(path_text(path));
        }
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directories(from, to, parent)?;
    }
    if is.is_symlink() {
        let leads = fs::read_link(&source).trying("read the link", &source)?;
        std::os::unix::fs::symlink(leads, &target).trying("create", &target)?;
        own(&target, owner(is))?;
    } else if is.is_file() {
        point("link");
        fs::hard_link(&source, &target).trying("link", &source)?;
    } else {
        // Sockets and pipes belong to processes, which make their own.
        carried.left.push(path_text(path));
        return Ok(());
    }
    carried.files += 1;
    Ok(())
}

/// Makes the directories of a path as they are in the other tree.
fn make_directories(from: &Path, to: &Path, path: &Path) -> Result<(), FileError> {
    let mut at = std::path::PathBuf::new();
    for part in path.components() {
        at.push(part);
        let (source, target) = (from.join(&at), to.join(&at));
        match meta(&target)? {
            Some(there) if there.is_dir() => {}
            Some(_) => {
                return Err(FileError::io("create", &target, std::io::Error::other("the new tree has a file there")));
            }
            None => {
                let is = fs::symlink_metadata(&source).trying("look at", &source)?;
                fs::create_dir(&target).trying("create", &target)?;
                own(&target, owner(&is))?;
                let mode = fs::Permissions::from_mode(is.mode() & 0o7777);
                fs::set_permissions(&target, mode).trying("set the mode of", &target)?;
            }
        }
    }
    Ok(())
}

fn crossing(error: FileError, target: &Path) -> Failure {
    match &error {
        FileError::Io { source, .. } if source.kind() == std::io::ErrorKind::CrossesDevices => {
            Failure::never(format!("{} lies on another file system, so it cannot be carried along", target.display()))
                .advise("mount it outside the tree and link to it")
        }
        _ => error.into(),
    }
}
