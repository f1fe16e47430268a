//! What a capture is made from.

use std::collections::HashMap;
use std::collections::hash_map;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustic_core::StringList;
use serde::{Deserialize, Serialize};

use crate::error::Trying;
use crate::manifest::{parents, sorted_by_path};
use crate::walk::{self, Is, Print, READ_BUFFER, Seen, open_seen};
use crate::{VaultError, text};

/// What a capture is called where only the repository is left: tags and a description that restic shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    pub app: String,
    pub capture: String,
    pub component: String,
    pub release: Option<String>,
    pub why: String,
}

/// Asked once all of a producer's output was read: how it ended.
pub type Finish = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// One part of a capture. `path` is where it lies in the capture, as [`crate::path_text`] writes it; missing directories above
/// it are made.
pub enum Source {
    Bytes {
        path: String,
        bytes: Vec<u8>,
        mode: u32,
    },
    Stream {
        path: String,
        mode: u32,
        reader: Box<dyn Read + Send>,
    },
    /// A stream whose end says nothing about success, as that of a pipe: `finish` is asked at the end of it, and what it
    /// refuses was never captured.
    Producer {
        path: String,
        mode: u32,
        reader: Box<dyn Read + Send>,
        finish: Finish,
    },
    /// One file; through a link, the file it leads to.
    File {
        path: String,
        from: PathBuf,
    },
    /// A directory with all it holds, except `except`, see [`crate::tree_digest`]. Its `path` may be `""`.
    Tree {
        path: String,
        root: PathBuf,
        except: Vec<String>,
    },
}

/// One entry to be written, and where its content comes from.
pub(crate) struct Item {
    pub(crate) seen: Seen,
    pub(crate) at: PathBuf,
    pub(crate) content: Content,
    /// False for what never was a file: its time is the capture's, and no manifest records it.
    pub(crate) timed: bool,
}

pub(crate) enum Content {
    None,
    Reader { reader: Box<dyn Read + Send>, size: Option<u64>, finish: Option<Finish> },
    File { from: PathBuf, print: Print },
}

/// What is asked at the end of a content.
pub(crate) struct Ending {
    /// A file that was seen longer or shorter changed meanwhile.
    expected: Option<u64>,
    finish: Option<Finish>,
}

impl Ending {
    /// Whether a content of which `size` bytes were read ended well.
    pub(crate) fn judge(self, path: &str, size: u64) -> Result<(), VaultError> {
        if let Some(Err(why)) = self.finish.map(|finish| finish()) {
            return Err(VaultError::SourceFailed { path: path.to_owned(), source: io::Error::other(why) });
        }
        match self.expected {
            Some(expected) if expected != size => Err(VaultError::Changed { path: path.to_owned() }),
            _ => Ok(()),
        }
    }
}

impl Content {
    pub(crate) fn open(self) -> Result<(Box<dyn Read + Send>, Ending), VaultError> {
        let (reader, expected, finish): (Box<dyn Read + Send>, _, _) = match self {
            Self::Reader { reader, size, finish } => (reader, size, finish),
            Self::File { from, print } => {
                let changed = || VaultError::Changed { path: text::path_text(&from) };
                let opened = open_seen(&from, &print).map_err(|source| match source.kind() {
                    io::ErrorKind::NotFound => changed(),
                    _ => VaultError::io("open", &from, source),
                });
                let file = opened.and_then(|file| file.map_err(|()| changed()))?;
                (buffered(file, print.size), Some(print.size), None)
            }
            Self::None => (Box::new(io::empty()), Some(0), None),
        };
        Ok((reader, Ending { expected, finish }))
    }
}

fn buffered(file: File, size: u64) -> Box<dyn Read + Send> {
    // One byte more than the file has, so that its end is seen with the same call.
    let wanted = usize::try_from(size).unwrap_or(READ_BUFFER).saturating_add(1).min(READ_BUFFER);
    Box::new(BufReader::with_capacity(wanted, file))
}

/// A directory that must be the same after the capture as before.
pub(crate) struct Watched {
    root: PathBuf,
    except: Vec<String>,
    seen: Vec<Seen>,
}

impl Watched {
    pub(crate) fn unchanged(&self) -> Result<(), VaultError> {
        walk::unchanged(&self.seen, &walk::walk(&self.root, &self.except)?).map_err(|error| match error {
            VaultError::Changed { path } => {
                VaultError::Changed { path: text::path_text(&self.root.join(text::inside(&path).unwrap_or_default())) }
            }
            other => other,
        })
    }
}

/// All entries of a capture in order, and what must hold still while they are read.
pub(crate) fn items(sources: Vec<Source>) -> Result<(Vec<Item>, Vec<Watched>), VaultError> {
    let now = Timestamp::now();
    let (mut items, mut watched) = (Vec::new(), Vec::new());
    for source in sources {
        match source {
            Source::Bytes { path, bytes, mode } => {
                let size = Some(bytes.len() as u64);
                let content = Content::Reader { reader: Box::new(Cursor::new(bytes)), size, finish: None };
                items.push(made(path, mode, now, content)?);
            }
            Source::Stream { path, mode, reader } => {
                items.push(made(path, mode, now, Content::Reader { reader, size: None, finish: None })?);
            }
            Source::Producer { path, mode, reader, finish } => {
                items.push(made(path, mode, now, Content::Reader { reader, size: None, finish: Some(finish) })?);
            }
            Source::File { path, from } => items.push(file(path, from)?),
            Source::Tree { path, root, except } => {
                // The path the link leads to now is the tree that is captured, whatever the link does meanwhile.
                let root = fs::canonicalize(&root).trying("find", &root)?;
                let seen = walk::walk(&root, &except)?;
                for seen in seen.clone() {
                    items.push(found(&path, &root, seen)?);
                }
                watched.push(Watched { root, except, seen });
            }
        }
    }
    Ok((complete(items, now)?, watched))
}

fn made(path: String, mode: u32, now: Timestamp, content: Content) -> Result<Item, VaultError> {
    let at = named(&path)?;
    let Content::Reader { size, .. } = &content else {
        return Err(VaultError::Internal { what: format!("`{path}` has no reader") });
    };
    let is = Is::File(Print::unknown(size.unwrap_or_default()));
    let seen = Seen { path, is, mode: mode & 0o7777, modified: Some(now), owner: ours() };
    Ok(Item { seen, at, content, timed: false })
}

fn file(path: String, from: PathBuf) -> Result<Item, VaultError> {
    let at = named(&path)?;
    let from = fs::canonicalize(&from).trying("find", &from)?;
    let meta = fs::metadata(&from).trying("look at", &from)?;
    if !meta.is_file() {
        return Err(VaultError::Unsupported { path: from.display().to_string(), what: "not a file" });
    }
    let seen = walk::seen(&from, &path, &meta)?;
    let content = Content::File { from, print: Print::of(&meta) };
    Ok(Item { seen, at, content, timed: true })
}

fn found(above: &str, root: &Path, seen: Seen) -> Result<Item, VaultError> {
    let from = root.join(text::inside(&seen.path)?);
    let seen = walk::under(above, seen);
    let at = text::inside(&seen.path)?;
    let content = match &seen.is {
        Is::File(print) => Content::File { from, print: print.clone() },
        Is::Directory | Is::Link(_) => Content::None,
    };
    Ok(Item { seen, at, content, timed: true })
}

fn named(path: &str) -> Result<PathBuf, VaultError> {
    let at = text::inside(path)?;
    match at.as_os_str().is_empty() {
        true => Err(VaultError::BadPath { path: path.to_owned(), why: "only a tree can be the whole capture" }),
        false => Ok(at),
    }
}

/// Adds the directories that nobody captured, and refuses two things in one place.
pub(crate) fn complete(items: Vec<Item>, now: Timestamp) -> Result<Vec<Item>, VaultError> {
    let mut by_path: HashMap<String, Item> = HashMap::new();
    let mut above = Vec::new();
    for item in items {
        above.extend(parents(&item.seen.path).map(str::to_owned));
        match by_path.entry(item.seen.path.clone()) {
            hash_map::Entry::Vacant(free) => {
                free.insert(item);
            }
            hash_map::Entry::Occupied(taken) => {
                return Err(VaultError::BadPath { path: taken.key().clone(), why: "two sources lay claim to it" });
            }
        }
    }
    for path in above {
        let at = text::inside(&path)?;
        let item = by_path.entry(path.clone()).or_insert_with(|| {
            let seen = Seen { path: path.clone(), is: Is::Directory, mode: 0o755, modified: Some(now), owner: ours() };
            Item { seen, at, content: Content::None, timed: false }
        });
        if item.seen.is != Is::Directory {
            return Err(VaultError::BadPath { path, why: "another source lies in it, but it is not a directory" });
        }
    }
    Ok(sorted_by_path(by_path.into_values().collect(), |item| &item.at))
}

/// Who owns what did not come from a file.
fn ours() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

const TAGS: [&str; 4] = ["app", "capture", "component", "release"];

impl Label {
    pub(crate) fn tags(&self) -> StringList {
        let mut tags = StringList::default();
        let values = [Some(&self.app), Some(&self.capture), Some(&self.component), self.release.as_ref()];
        for (name, value) in TAGS.iter().zip(values) {
            if let Some(value) = value {
                tags.add(format!("{name}:{value}"));
            }
        }
        tags
    }

    /// The label a snapshot was given; `None` when it was not made by a capture.
    pub(crate) fn of(tags: &StringList, description: Option<&str>) -> Option<Self> {
        let value = |name: &str| {
            let mut values = tags.iter().filter_map(|tag| tag.strip_prefix(name)?.strip_prefix(':'));
            values.next().map(str::to_owned)
        };
        let [app, capture, component, release] = TAGS.map(value);
        let why = description.unwrap_or_default().to_owned();
        Some(Self { app: app?, capture: capture?, component: component?, release, why })
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the content: it may be a secret.
        let (kind, path) = match self {
            Self::Bytes { path, .. } => ("Bytes", path),
            Self::Stream { path, .. } => ("Stream", path),
            Self::Producer { path, .. } => ("Producer", path),
            Self::File { path, .. } => ("File", path),
            Self::Tree { path, .. } => ("Tree", path),
        };
        f.debug_struct(kind).field("path", path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(path: &str) -> Source {
        Source::Bytes { path: path.into(), bytes: Vec::new(), mode: 0o644 }
    }

    #[test]
    fn missing_directories_are_added_in_order() {
        let (items, _) = items(vec![bytes("b"), bytes("a/x/y"), bytes("a-b")]).unwrap();
        let paths: Vec<_> = items.iter().map(|i| i.seen.path.as_str()).collect();
        assert_eq!(paths, ["a", "a/x", "a/x/y", "a-b", "b"]);
    }

    #[test]
    fn two_things_in_one_place_are_refused() {
        let refused = |sources| items(sources).map(|_| ()).unwrap_err().to_string();
        assert!(refused(vec![bytes("a"), bytes("a")]).contains("two sources"));
        assert!(refused(vec![bytes("a"), bytes("a/b")]).contains("not a directory"));
        assert!(refused(vec![bytes("a/b"), bytes("a")]).contains("not a directory"));
        assert!(refused(vec![bytes("")]).contains("only a tree"));
        assert!(refused(vec![bytes("../a")]).contains("lead elsewhere"));
    }

    #[test]
    fn a_label_survives_as_tags() {
        let mut label = Label {
            app: "shop/prod".into(),
            capture: "cap-7".into(),
            component: "db".into(),
            release: Some("rel-1, the second".into()),
            why: "before the rollback".into(),
        };
        assert_eq!(Label::of(&label.tags(), Some(&label.why)), Some(label.clone()));
        label.release = None;
        assert_eq!(Label::of(&label.tags(), Some(&label.why)), Some(label));
        assert_eq!(Label::of(&StringList::default(), None), None);
    }
}
