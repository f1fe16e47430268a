//! The vault as its callers see it, on real files.
#![allow(clippy::unwrap_used, reason = "what cannot be set up or looked at fails the test")]
mod child; // what only another process can show: killed, out of space, without permission
mod failing; // sources that fail, and data that was damaged
mod far; // a vault that is asked from another machine
mod keeping; // captures stay what they were; keys, locks, pruning
#[cfg(feature = "real")]
mod real; // restic and tar, without us
mod scratch; // trees, vaults and what is compared
mod trees; // what goes in comes out
