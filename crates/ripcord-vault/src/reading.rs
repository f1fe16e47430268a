//! A capture on its way to another machine: compared with its manifest here, once more there, and never whole in memory.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use jiff::Timestamp;
use ripcord_core::Digest;
use rustic_core::repofile::Metadata;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::guarded;
use crate::held::damaged;
use crate::offer::{PIECE, Piece};
use crate::restore::{Giving, Near};
use crate::vault::Vault;
use crate::{Manifest, SnapshotId, VaultError, What};

/// Answers that are read before they are asked for.
const AHEAD: usize = 1;
/// The most pieces in one answer.
const MOST_PIECES: usize = 1024;

/// What of an entry the manifest does not record: who owned it, and when it was modified, to the nanosecond.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outfit {
    pub owner: Option<(u32, u32)>,
    pub modified: Option<Timestamp>,
}

impl Outfit {
    pub(crate) fn of(meta: &Metadata) -> Self {
        Self { owner: meta.uid.zip(meta.gid), modified: meta.mtime }
    }
}

/// The contents of files in order, a few pieces at a time; no more of them at the end.
pub trait Contents: Send {
    fn next(&mut self) -> Result<Vec<Piece>, VaultError>;
}

impl Vault {
    /// The contents of a capture, or of one of its files, to be passed on; with an outfit for each entry, but not for the root.
    ///
    /// Each file was compared with the manifest when its last piece comes. Dropping it ends the reading.
    /// # Errors
    /// As [`Vault::verify`].
    pub fn reading(&self, manifest: &Manifest, file: Option<&str>) -> Result<(Vec<Outfit>, Reading), VaultError> {
        let (send, pieces) = sync_channel(AHEAD);
        let (say, outfits) = sync_channel(1);
        let (vault, manifest, file) = (self.clone(), manifest.clone(), file.map(str::to_owned));
        let read = move || {
            let opened = guarded(|| match &file {
                None => Near::whole(&vault, &manifest),
                Some(path) => Near::one(&vault, &manifest, path),
            });
            let mut near = match opened {
                Err(error) => return drop(say.send(Err(error))),
                Ok(near) => near,
            };
            if say.send(Ok(near.outfits())).is_err() {
                return;
            }
            let mut parcel = Parcel::default();
            let gone = || VaultError::Internal { what: "nobody reads on".to_owned() };
            let read = guarded(|| {
                near.contents(&mut |number, bytes| {
                    for full in parcel.take(number, bytes) {
                        send.send(Ok(full)).map_err(|_| gone())?;
                    }
                    Ok(())
                })
            });
            // Nobody is there to hear it, where nobody reads on.
            let _ = match read {
                Ok(()) => send.send(Ok(parcel.pieces)),
                Err(error) => send.send(Err(error)),
            };
        };
        let spawned = thread::Builder::new().name("reading a capture".to_owned()).spawn(read);
        spawned.map_err(|error| VaultError::Internal { what: error.to_string() })?;
        let silent = || VaultError::Internal { what: "reading the capture ended by itself".to_owned() };
        let outfits = outfits.recv().map_err(|_| silent())??;
        Ok((outfits, Reading { pieces, over: false }))
    }
}

/// A capture being read. Calls block.
pub struct Reading {
    pieces: Receiver<Result<Vec<Piece>, VaultError>>,
    over: bool,
}

impl Contents for Reading {
    fn next(&mut self) -> Result<Vec<Piece>, VaultError> {
        if self.over {
            return Ok(vec![]);
        }
        match self.pieces.recv() {
            Ok(Ok(pieces)) => Ok(pieces),
            Ok(Err(error)) => {
                self.over = true;
                Err(error)
            }
            // The last answer came before.
            Err(_) => {
                self.over = true;
                Ok(vec![])
            }
        }
    }
}

/// What goes into one answer.
#[derive(Default)]
struct Parcel {
    pieces: Vec<Piece>,
    size: usize,
}

impl Parcel {
    /// Adds what was read, and returns the answers that are full now.
    fn take(&mut self, number: usize, bytes: Option<&[u8]>) -> Vec<Vec<Piece>> {
        let mut full = vec![];
        match bytes {
            None => {
                match self.pieces.last_mut() {
                    Some(piece) if piece.number == number && !piece.last => piece.last = true,
                    _ => self.pieces.push(Piece { number, bytes: vec![], last: true }),
                }
                full.extend((self.pieces.len() >= MOST_PIECES).then(|| self.seal()));
            }
            Some(mut bytes) => {
                while !bytes.is_empty() {
                    let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.size));
                    self.pieces.push(Piece { number, bytes: now.to_vec(), last: false });
                    self.size += now.len();
                    full.extend((self.size >= PIECE).then(|| self.seal()));
                    bytes = later;
                }
            }
        }
        full
    }

    fn seal(&mut self) -> Vec<Piece> {
        self.size = 0;
        std::mem::take(&mut self.pieces)
    }
}

/// A capture that comes from another machine, compared with its manifest as it comes in.
pub(crate) struct Distant {
    outfits: Vec<Outfit>,
    contents: Box<dyn Contents>,
    snapshot: SnapshotId,
    /// Path, size and digest of each file, in order.
    files: Vec<(String, u64, Digest)>,
}

impl Distant {
    pub(crate) fn whole(manifest: &Manifest, (outfits, contents): crate::Opened) -> Result<Self, VaultError> {
        let entries = manifest.entries.iter().filter(|entry| !entry.path.is_empty());
        let files = entries.clone().filter_map(|entry| match entry.what {
            What::File { size, sha256 } => Some((entry.path.clone(), size, sha256)),
            What::Directory | What::Link { .. } => None,
        });
        let distant = Self { outfits, contents, snapshot: manifest.snapshot.clone(), files: files.collect() };
        distant.with_outfits(entries.count())
    }

    pub(crate) fn one(manifest: &Manifest, path: &str, (outfits, contents): crate::Opened) -> Result<Self, VaultError> {
        let no_file = || VaultError::NoEntry { path: path.to_owned() };
        let What::File { size, sha256 } = manifest.entry(path).ok_or_else(no_file)?.what else { return Err(no_file()) };
        let files = vec![(path.to_owned(), size, sha256)];
        Self { outfits, contents, snapshot: manifest.snapshot.clone(), files }.with_outfits(1)
    }

    fn with_outfits(self, expected: usize) -> Result<Self, VaultError> {
        match self.outfits.len() == expected {
            true => Ok(self),
            false => Err(damaged(&self.snapshot, "", "it came with another number of entries".to_owned())),
        }
    }
}

impl Giving for Distant {
    fn outfits(&self) -> Vec<Outfit> {
        self.outfits.clone()
    }

    fn contents(
        &mut self,
        sink: &mut dyn FnMut(usize, Option<&[u8]>) -> Result<(), VaultError>,
    ) -> Result<(), VaultError> {
        let (mut number, mut hash, mut size) = (0, Sha256::new(), 0);
        let wrong = |path: &str, detail: &str| damaged(&self.snapshot, path, detail.to_owned());
        while let Some((path, ..)) = self.files.get(number) {
            let pieces = self.contents.next()?;
            if pieces.is_empty() {
                return Err(wrong(path, "its content ended before it was all there"));
            }
            for piece in pieces {
                let Some((path, wanted_size, wanted)) = self.files.get(number) else {
                    return Err(wrong("", "more came than was asked for"));
                };
                if piece.number != number {
                    return Err(wrong(path, "another content came in its place"));
                }
                if !piece.bytes.is_empty() {
                    hash.update(&piece.bytes);
                    size += piece.bytes.len() as u64;
                    sink(number, Some(&piece.bytes))?;
                }
                if piece.last {
                    let sha256 = Digest::from_bytes(std::mem::take(&mut hash).finalize().into());
                    if (size, sha256) != (*wanted_size, *wanted) {
                        return Err(wrong(path, "what came is not what is recorded"));
                    }
                    sink(number, None)?;
                    (number, size) = (number + 1, 0);
                }
            }
        }
        Ok(())
    }
}
