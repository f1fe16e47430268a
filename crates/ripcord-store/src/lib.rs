//! The record: journal, ledger, runs, leases, requests and outbox, on disk in SQLite or in memory.

mod append; // every rule about what may be written
mod clock; // by which leases expire
mod lease; // who may write
mod materialise; // what is kept folded beside the journal
mod memory; // a store in memory, with faults on order
mod redact; // no secret reaches the record
mod seal; // the hash chain
mod sqlite; // the store on disk
mod state; // the tables in memory
mod tables; // what the rules need of a store

pub use clock::Clock;
pub use memory::{Fault, MemoryStore};
pub use sqlite::{SqliteStore, Verified, VerifyError};
