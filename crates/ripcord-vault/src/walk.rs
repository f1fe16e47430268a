//! What a directory holds, and its digest: the same one that a capture of it has.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ripcord_core::Digest;
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use crate::error::Trying;
use crate::manifest::{self, joined, sorted_by_path};
use crate::{Entry, VaultError, What, text};

/// How often a file that changes under the reader is read again before it is given up.
const TRIES: usize = 3;
pub(crate) const READ_BUFFER: usize = 1 << 17;

/// Something found in a directory. Two finds are equal when nothing that a capture holds changed between them.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Relative to where the walk began, which is `""`.
    pub(crate) path: String,
    pub(crate) is: Is,
    pub(crate) mode: u32,
    pub(crate) modified: Option<Timestamp>,
    pub(crate) owner: (u32, u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Is {
    Directory,
    Link(OsString),
    File(Print),
}

/// Changes whenever the content of a file may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Print {
    pub(crate) size: u64,
    file: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        // The time of a directory changes with what is excepted from it, and with a file that came and went.
        (&self.path, &self.is, self.mode) == (&other.path, &other.is, other.mode)
    }
}

impl Print {
    /// Of what never was a file.
    pub(crate) fn unknown(size: u64) -> Self {
        Self { size, file: (0, 0), modified: (0, 0), changed: (0, 0) }
    }

    pub(crate) fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.len(),
            file: (meta.dev(), meta.ino()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// Returns the digest of a directory and what it is made of; a capture of it has the same, see [`crate::Manifest::tree_below`].
///
/// `except` are relative paths, in which `*`, `?` and `**` may stand for names; what lies below an excepted path is excepted.
/// When `root` is a link, the directory it leads to is meant.
/// # Errors
/// [`VaultError::Changed`] when a file would not hold still, [`VaultError::Unsupported`] for sockets, devices and pipes.
pub fn tree_digest(root: &Path, except: &[String]) -> Result<(Digest, Vec<Entry>), VaultError> {
    let seen = walk(root, except)?;
    let entries = seen.iter().map(|seen| entry(root, seen)).collect::<Result<Vec<_>, _>>()?;
    unchanged(&seen, &walk(root, except)?)?;
    Ok((manifest::digest(&entries), entries))
}

/// The first thing that differs between two walks, as an error.
pub(crate) fn unchanged(before: &[Seen], after: &[Seen]) -> Result<(), VaultError> {
    let different = before.iter().zip(after).find(|(a, b)| a != b).map(|(a, b)| a.path.as_str().min(&b.path));
    let more = || match before.len().cmp(&after.len()) {
        std::cmp::Ordering::Less => Some(after[before.len()].path.as_str()),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(before[after.len()].path.as_str()),
    };
    match different.or_else(more) {
        None => Ok(()),
        Some(path) => Err(VaultError::Changed { path: path.to_owned() }),
    }
}

/// Everything in `root`, itself first, each directory right before what it holds.
pub(crate) fn walk(root: &Path, except: &[String]) -> Result<Vec<Seen>, VaultError> {
    let meta = fs::metadata(root).trying("look at", root)?;
    if !meta.is_dir() {
        return Err(VaultError::Unsupported { path: root.display().to_string(), what: "not a directory" });
    }
    let mut found = vec![(PathBuf::new(), seen(root, "", &meta)?)];
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let at = root.join(&directory);
        for name in fs::read_dir(&at)
            .and_then(|list| list.map(|e| Ok(e?.file_name())).collect::<io::Result<Vec<_>>>())
            .trying("list", &at)?
        {
            let path = directory.join(&name);
            let text = text::path_text(&path);
            if text::excepted(&text, except) {
                continue;
            }
            let at = root.join(&path);
            let meta = match fs::symlink_metadata(&at) {
                // It went between the listing and the look; the comparison of two walks tells when that matters.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                meta => meta.trying("look at", &at)?,
            };
            if meta.is_dir() {
                open.push(path.clone());
            }
            found.push((path, seen(&at, &text, &meta)?));
        }
    }
    Ok(sorted_by_path(found, |(path, _)| path).into_iter().map(|(_, seen)| seen).collect())
}

pub(crate) fn seen(at: &Path, path: &str, meta: &Metadata) -> Result<Seen, VaultError> {
    let kind = meta.file_type();
    let unsupported = |what| Err(VaultError::Unsupported { path: at.display().to_string(), what });
    let is = match () {
        () if kind.is_dir() => Is::Directory,
        () if kind.is_file() => Is::File(Print::of(meta)),
        () if kind.is_symlink() => Is::Link(fs::read_link(at).trying("read the link", at)?.into_os_string()),
        () if kind.is_socket() => return unsupported("a socket"),
        () if kind.is_fifo() => return unsupported("a pipe"),
        () => return unsupported("a device"),
    };
    // Linux has no modes of links; what it reports for them is a constant that not every file system agrees on.
    let mode = if kind.is_symlink() { 0o777 } else { meta.mode() & 0o7777 };
    Ok(Seen { path: path.to_owned(), is, mode, modified: modified(meta), owner: (meta.uid(), meta.gid()) })
}

pub(crate) fn modified(meta: &Metadata) -> Option<Timestamp> {
    Timestamp::new(meta.mtime(), i32::try_from(meta.mtime_nsec()).ok()?).ok()
}

/// Opens a file that is to be read through as it was seen: no link in its place, no waiting for a pipe.
pub(crate) fn open_seen(path: &Path, print: &Print) -> io::Result<Result<File, ()>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let same = Print::of(&file.metadata()?) == *print;
    Ok(if same { Ok(file) } else { Err(()) })
}

fn entry(root: &Path, seen: &Seen) -> Result<Entry, VaultError> {
    let what = match &seen.is {
        Is::Directory => What::Directory,
        Is::Link(target) => What::Link { target: text::text_of(target) },
        Is::File(print) => hashed(&root.join(text::inside(&seen.path)?), print, &seen.path)?,
    };
    Ok(Entry { path: seen.path.clone(), what, mode: seen.mode, modified_ms: seen.modified.map(|t| t.as_millisecond()) })
}

fn hashed(at: &Path, print: &Print, path: &str) -> Result<What, VaultError> {
    for _ in 0..TRIES {
        let Ok(mut file) = open_seen(at, print).trying("open", at)? else { break };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; READ_BUFFER.min(print.size as usize + 1)];
        let mut size = 0;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    hash.update(&buffer[..read]);
                    size += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(VaultError::io("read", at, error)),
            }
        }
        if Print::of(&file.metadata().trying("look at", at)?) == *print && size == print.size {
            return Ok(What::File { size, sha256: Digest::from_bytes(hash.finalize().into()) });
        }
    }
    Err(VaultError::Changed { path: path.to_owned() })
}

/// A find as part of something larger.
pub(crate) fn under(path: &str, mut seen: Seen) -> Seen {
    seen.path = joined(path, &seen.path);
    seen
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/empty")).unwrap();
        fs::write(dir.path().join("a/file"), "hello").unwrap();
        fs::write(dir.path().join("a-b"), "").unwrap();
        symlink("nowhere", dir.path().join("link")).unwrap();
        dir
    }

    #[test]
    fn directories_come_before_what_they_hold() {
        let dir = tree();
        let (_, entries) = tree_digest(dir.path(), &[]).unwrap();
        let paths: Vec<_> = entries.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["", "a", "a/empty", "a/file", "a-b", "link"]);
        assert_eq!(entries[3].what, What::File { size: 5, sha256: Digest::of(b"hello") });
        assert_eq!(entries[5].what, What::Link { target: "nowhere".into() });
    }

    #[test]
    fn every_difference_that_counts_changes_the_digest() {
        use std::os::unix::fs::PermissionsExt;
        let changes: [fn(&Path); 6] = [
            |root| fs::write(root.join("a/file"), "hellO").unwrap(),
            |root| fs::write(root.join("new"), "").unwrap(),
            |root| fs::remove_dir(root.join("a/empty")).unwrap(),
            |root| fs::set_permissions(root.join("a/file"), fs::Permissions::from_mode(0o400)).unwrap(),
            |root| fs::rename(root.join("a-b"), root.join("a-c")).unwrap(),
            |root| {
                fs::remove_file(root.join("link")).unwrap();
                symlink("elsewhere", root.join("link")).unwrap();
            },
        ];
        for change in changes {
            let dir = tree();
            let before = tree_digest(dir.path(), &[]).unwrap().0;
            assert_eq!(tree_digest(dir.path(), &[]).unwrap().0, before);
            change(dir.path());
            assert_ne!(tree_digest(dir.path(), &[]).unwrap().0, before);
        }
    }

    #[test]
    fn excepted_paths_do_not_count_and_may_be_anything() {
        let dir = tree();
        let except = ["a/*".to_owned(), "*.sock".to_owned()];
        let before = tree_digest(dir.path(), &except).unwrap().0;
        fs::write(dir.path().join("a/other"), "x").unwrap();
        let _socket = UnixListener::bind(dir.path().join("app.sock")).unwrap();
        assert_eq!(tree_digest(dir.path(), &except).unwrap().0, before);
    }

    #[test]
    fn a_socket_is_refused_by_name() {
        let dir = tree();
        let _socket = UnixListener::bind(dir.path().join("a/app.sock")).unwrap();
        let error = tree_digest(dir.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("a/app.sock` is a socket"), "{error}");
    }

    #[test]
    fn a_change_between_two_walks_is_named() {
        let dir = tree();
        let before = walk(dir.path(), &[]).unwrap();
        fs::write(dir.path().join("a/late"), "").unwrap();
        let after = walk(dir.path(), &[]).unwrap();
        assert_eq!(unchanged(&before, &after).unwrap_err().to_string(), "`a-b` changed while it was read");
        assert!(unchanged(&before, &before).is_ok());
    }
}
