//! Sources of one machine, captured into the vault of another.
//!
//! The machine that has them offers an outline (paths, kinds, modes, times, owners); the one that has the vault makes a real
//! capture of it, whose contents it asks for as it needs them. What a capture promises is kept where it can be: that a file held
//! still, and how a producer ended, is judged by the side that reads it, at its end; sizes, digests and the reading back are the
//! vault's. Memory stays flat on both sides: a content goes by in pieces, many small files in one of them.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Telling, guarded};
use crate::source::{Content, Ending, Item, Watched, complete, items as items_of};
use crate::walk::{Is, Print, Seen};
use crate::{Source, VaultError, text};

/// The most bytes of content in one answer.
pub const PIECE: usize = 512 << 10;
/// Files up to this size travel together.
const SMALL: u64 = 64 << 10;
/// The most files in one answer.
const MOST_FILES: usize = 256;

/// One entry of an outline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offered {
    pub path: String,
    pub is: OfferedIs,
    pub mode: u32,
    pub modified: Option<Timestamp>,
    pub owner: (u32, u32),
    /// False for what never was a file.
    pub timed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OfferedIs {
    Directory,
    Link {
        target: String,
    },
    /// Without a size: a stream, of which nobody knows it yet.
    File {
        size: Option<u64>,
    },
}

/// A part of the content of one of several files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which file: its number in the outline, or among the files of a capture.
    pub number: usize,
    pub bytes: Vec<u8>,
    /// Whether the file ends here, and ended well.
    pub last: bool,
}

/// Where the contents of an offer are asked for, from the side of the vault. Calls block.
pub trait Giver: Send + Sync {
    /// The next piece of each of the entries `numbers`, in this order; of several, each whole.
    fn give(&self, numbers: &[usize]) -> Result<Vec<Piece>, VaultError>;
    /// Whether what had to hold still did; asked when all was read.
    fn settled(&self) -> Result<(), VaultError>;
}

/// Sources, ready to be captured from elsewhere.
pub struct Offer {
    entries: Vec<Offered>,
    contents: Vec<Mutex<Given>>,
    watched: Vec<Watched>,
}

/// How far a content was given.
enum Given {
    NotYet(Content),
    Partly { reader: Box<dyn Read + Send>, ending: Ending, size: u64 },
    Over,
}

impl Offer {
    /// Looks at the sources; what they hold is read when it is asked for.
    /// # Errors
    /// As those of [`crate::Vault::capture`] that concern the sources.
    pub fn of(sources: Vec<Source>) -> Result<Self, VaultError> {
        let (items, watched) = items_of(sources)?;
        let (mut entries, mut contents) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for item in items {
            entries.push(offered(&item));
            contents.push(Mutex::new(Given::NotYet(item.content)));
        }
        Ok(Self { entries, contents, watched })
    }

    pub fn entries(&self) -> &[Offered] {
        &self.entries
    }

    /// As [`Giver::give`], which asks for it.
    /// # Errors
    /// [`VaultError::SourceFailed`], [`VaultError::Changed`]: then the capture fails as a whole.
    pub fn give(&self, numbers: &[usize]) -> Result<Vec<Piece>, VaultError> {
        let none = |number: &usize| VaultError::Internal { what: format!("the outline has no entry {number}") };
        let one = |number: &usize| {
            let path = &self.entries.get(*number).ok_or_else(|| none(number))?.path;
            let content = self.contents.get(*number).ok_or_else(|| none(number))?;
            let mut content = content.lock().unwrap_or_else(PoisonError::into_inner);
            let (bytes, last) = content.next(path)?;
            Ok(Piece { number: *number, bytes, last })
        };
        guarded(|| numbers.iter().map(one).collect())
    }

    /// Whether every directory is as it was when it was offered.
    /// # Errors
    /// [`VaultError::Changed`] names what is not.
    pub fn settled(&self) -> Result<(), VaultError> {
        guarded(|| self.watched.iter().try_for_each(Watched::unchanged))
    }
}

impl Given {
    fn next(&mut self, path: &str) -> Result<(Vec<u8>, bool), VaultError> {
        let (mut reader, ending, mut size) = match std::mem::replace(self, Self::Over) {
            Self::NotYet(content) => {
                let (reader, ending) = content.open()?;
                (reader, ending, 0)
            }
            Self::Partly { reader, ending, size } => (reader, ending, size),
            Self::Over => return Err(VaultError::Internal { what: format!("`{path}` was given to its end already") }),
        };
        let mut bytes = Vec::new();
        let failed = |source| VaultError::SourceFailed { path: path.to_owned(), source };
        reader.by_ref().take(PIECE as u64).read_to_end(&mut bytes).map_err(failed)?;
        size += bytes.len() as u64;
        // A whole piece may be followed by nothing: then the next one is empty, and the last.
        let last = bytes.len() < PIECE;
        match last {
            true => ending.judge(path, size)?,
            false => *self = Self::Partly { reader, ending, size },
        }
        Ok((bytes, last))
    }
}

fn offered(item: &Item) -> Offered {
    let is = match (&item.seen.is, &item.content) {
        (Is::Directory, _) => OfferedIs::Directory,
        (Is::Link(target), _) => OfferedIs::Link { target: text::text_of(target) },
        (Is::File(_), Content::Reader { size, .. }) => OfferedIs::File { size: *size },
        (Is::File(print), _) => OfferedIs::File { size: Some(print.size) },
    };
    let Seen { path, mode, modified, owner, .. } = item.seen.clone();
    Offered { path, is, mode, modified, owner, timed: item.timed }
}

/// What the library is to capture of an outline. It came from another machine: paths, order and kinds are checked like sources.
pub(crate) fn items(offered: Vec<Offered>, giver: &Arc<dyn Giver>) -> Result<Vec<Item>, VaultError> {
    let sizes = offered.iter().map(|entry| if let OfferedIs::File { size } = entry.is { size } else { None });
    let pump = Arc::new(Pump {
        giver: Arc::clone(giver),
        sizes: sizes.collect(),
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    let mut items = Vec::with_capacity(offered.len());
    for (number, entry) in offered.into_iter().enumerate() {
        let at = text::inside(&entry.path)?;
        let (is, content) = match entry.is {
            OfferedIs::Directory => (Is::Directory, Content::None),
            OfferedIs::Link { target } => {
                let bad =
                    || VaultError::BadPath { path: entry.path.clone(), why: "it links to nothing that can be a path" };
                (Is::Link(text::name_of(&target).filter(|t| !t.is_empty()).ok_or_else(bad)?), Content::None)
            }
            OfferedIs::File { .. } if at.as_os_str().is_empty() => {
                return Err(VaultError::BadPath { path: entry.path, why: "only a tree can be the whole capture" });
            }
            OfferedIs::File { size } => {
                let reader = Box::new(Pumped { pump: Arc::clone(&pump), number, piece: vec![], at: 0, over: false });
                let content = Content::Reader { reader, size, finish: None };
                (Is::File(Print::unknown(size.unwrap_or_default())), content)
            }
        };
        let Offered { path, mode, modified, owner, timed, .. } = entry;
        let seen = Seen { path, is, mode: mode & 0o7777, modified, owner };
        items.push(Item { seen, at, content, timed });
    }
    complete(items, Timestamp::now())
}

/// Asks for contents: large ones piece by piece, small ones together with those that come after them, since a file a question
/// would take as long as there are files times the way there and back.
struct Pump {
    giver: Arc<dyn Giver>,
    sizes: Vec<Option<u64>>,
    /// Small files that were asked for together with another.
    state: Mutex<HashMap<usize, Small>>,
    changed: Condvar,
}

enum Small {
    Asked,
    Here(Vec<u8>),
    Failed(Telling),
    Taken,
}

impl Pump {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Small>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_small(&self, number: usize) -> bool {
        self.sizes.get(number).copied().flatten().is_some_and(|size| size <= SMALL)
    }

    /// The next piece of a content, and whether it is the last.
    fn next(&self, number: usize) -> Result<(Vec<u8>, bool), VaultError> {
        if self.is_small(number) {
            return self.small(number).map(|bytes| (bytes, true));
        }
        let pieces = self.giver.give(&[number])?;
        match <[Piece; 1]>::try_from(pieces) {
            Ok([piece]) if piece.number == number => Ok((piece.bytes, piece.last)),
            _ => Err(other_answer()),
        }
    }

    fn small(&self, number: usize) -> Result<Vec<u8>, VaultError> {
        let mut state = self.lock();
        loop {
            match state.get(&number) {
                None => break,
                Some(Small::Asked) => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Some(Small::Failed(telling)) => return Err(VaultError::Told(telling.clone())),
                Some(Small::Taken) => {
                    return Err(VaultError::Internal { what: "a content was asked for twice".to_owned() });
                }
                Some(Small::Here(_)) => {
                    let Some(Small::Here(bytes)) = state.insert(number, Small::Taken) else {
                        return Err(other_answer());
                    };
                    return Ok(bytes);
                }
            }
        }
        let numbers = self.together(number, &state);
        numbers.iter().for_each(|number| _ = state.insert(*number, Small::Asked));
        drop(state);
        let given = self.giver.give(&numbers).and_then(|pieces| match answers(&pieces, &numbers) {
            true => Ok(pieces),
            false => Err(other_answer()),
        });
        let mut state = self.lock();
        let taken = match given {
            Ok(pieces) => {
                state.extend(pieces.into_iter().map(|piece| (piece.number, Small::Here(piece.bytes))));
                match state.insert(number, Small::Taken) {
                    Some(Small::Here(bytes)) => Ok(bytes),
                    _ => Err(other_answer()),
                }
            }
            Err(error) => {
                state.extend(numbers.iter().map(|number| (*number, Small::Failed(error.tell()))));
                Err(error)
            }
        };
        self.changed.notify_all();
        taken
    }

    /// This file and the small ones after it that nobody asked for yet, as many as fit in one answer.
    fn together(&self, number: usize, state: &HashMap<usize, Small>) -> Vec<usize> {
        let (mut numbers, mut room) = (vec![number], PIECE as u64);
        for next in number + 1..self.sizes.len() {
            let size = self.sizes.get(next).copied().flatten().filter(|size| *size <= SMALL);
            let Some(size) = size.filter(|_| !state.contains_key(&next)) else { continue };
            if size > room || numbers.len() >= MOST_FILES {
                break;
            }
            room -= size;
            numbers.push(next);
        }
        numbers
    }
}

fn answers(pieces: &[Piece], numbers: &[usize]) -> bool {
    pieces.len() == numbers.len()
        && pieces.iter().zip(numbers).all(|(piece, number)| piece.number == *number && piece.last)
}

fn other_answer() -> VaultError {
    VaultError::Internal { what: "another content was given than was asked for".to_owned() }
}

/// One content of an offer as a stream.
struct Pumped {
    pump: Arc<Pump>,
    number: usize,
    piece: Vec<u8>,
    at: usize,
    over: bool,
}

impl Read for Pumped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.over {
                return Ok(0);
            }
            let (piece, last) = self.pump.next(self.number).map_err(io::Error::other)?;
            (self.piece, self.at, self.over) = (piece, 0, last);
        }
        let n = buffer.len().min(self.piece.len() - self.at);
        buffer[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Here(Offer, Mutex<Vec<usize>>);

    impl Giver for Here {
        fn give(&self, numbers: &[usize]) -> Result<Vec<Piece>, VaultError> {
            self.1.lock().unwrap().push(numbers.len());
            self.0.give(numbers)
        }
        fn settled(&self) -> Result<(), VaultError> {
            self.0.settled()
        }
    }

    fn read_all(sources: Vec<Source>) -> (Vec<(String, Vec<u8>)>, Vec<usize>) {
        let offer = Offer::of(sources).unwrap();
        let outline = offer.entries().to_vec();
        let here = Arc::new(Here(offer, Mutex::default()));
        let giver: Arc<dyn Giver> = Arc::clone(&here) as _;
        let mut read = vec![];
        for item in items(outline, &giver).unwrap() {
            let (mut reader, _) = item.content.open().unwrap();
            let mut bytes = vec![];
            reader.read_to_end(&mut bytes).unwrap();
            read.push((item.seen.path, bytes));
        }
        let asked = here.1.lock().unwrap().clone();
        (read, asked)
    }

    fn bytes(path: &str, length: usize) -> Source {
        Source::Bytes { path: path.into(), bytes: vec![7; length], mode: 0o644 }
    }

    #[test]
    fn small_files_travel_together_and_large_ones_in_pieces() {
        let mut sources: Vec<_> = (0..300).map(|n| bytes(&format!("small-{n:03}"), n)).collect();
        sources.push(bytes("large", PIECE * 2));
        sources.push(bytes("empty", 0));
        let (read, asked) = read_all(sources);
        assert_eq!(read.len(), 302);
        let length = |path: &str| read.iter().find(|(at, _)| at == path).unwrap().1.len();
        assert_eq!((length("small-299"), length("large"), length("empty")), (299, PIECE * 2, 0));
        // The empty file brings the first small ones along; two pieces of the large one, and one that says it was all.
        assert_eq!(asked, [256, 1, 1, 1, 45]);
    }

    #[test]
    fn an_outline_that_leads_elsewhere_is_refused() {
        let offer = Offer::of(vec![bytes("a", 1)]).unwrap();
        let good = offer.entries()[0].clone();
        let giver: Arc<dyn Giver> = Arc::new(Here(offer, Mutex::default()));
        let refused = |entries: Vec<Offered>| items(entries, &giver).map(|_| ()).unwrap_err().to_string();
        assert!(refused(vec![Offered { path: "../a".into(), ..good.clone() }]).contains("lead elsewhere"));
        assert!(refused(vec![Offered { path: String::new(), ..good.clone() }]).contains("only a tree"));
        assert!(refused(vec![good.clone(), good.clone()]).contains("two sources"));
        let link = OfferedIs::Link { target: String::new() };
        assert!(refused(vec![Offered { is: link, ..good }]).contains("links to nothing"));
    }
}
