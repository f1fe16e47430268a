//! Captures: what makes a revision restorable, deduplicated, encrypted, checked, and restorable without Ripcord.
//!
//! A vault is a directory that holds a restic-format repository. What is in it was read back and compared with what went in
//! before it counted; what comes out is compared again before it takes its place. All calls block.
//! The traps of the library below, which decided these rules, are named where each is avoided.
mod access; // a vault from wherever it is used
mod capture; // sources in, read back, then counted
mod directory; // the repository's files: durable writes, honest errors
mod error; // what can go wrong, and what to do then
mod export; // a capture as a tar stream
mod held; // reading what the repository holds
mod key; // the vault's secret
mod lock; // who may change the vault
mod manifest; // what a capture consists of
mod offer; // sources of one machine, captured into the vault of another
mod place; // putting a file in its place, whole or not at all
mod reading; // a capture on its way to another machine
mod restore; // captures out
mod source; // what a capture is made from
mod text; // names of any bytes as text, paths that stay inside, patterns over them
mod upkeep; // list, check, repair, prune
mod vault; // opening one
mod walk; // what a directory holds

pub use access::{Access, Far, Opened};
pub use error::{Telling, VaultError};
pub use key::VaultKey;
pub use manifest::{Entry, Manifest, SnapshotId, What};
pub use offer::{Giver, Offer, Offered, OfferedIs, PIECE, Piece};
pub use reading::{Contents, Outfit, Reading};
pub use source::{Finish, Label, Source};
pub use text::{excepted, path_text, pattern_mistake};
pub use upkeep::{Found, Keep, Pruned, Repaired};
pub use vault::Vault;
pub use walk::tree_digest;
