//! `ripcord.yaml` to a validated application, with errors that point at the line.
//!
//! Configuration knows no kind of component, signal or channel by name: [`Kinds`] supplies them, so that a kind is added
//! without touching this crate, and its settings are still checked with line and column.

mod each; // one block, several components
mod figure; // thresholds, bounds and multiples with their units
mod file; // the parts of the file as they are written
mod grammar; // the parser's messages in words for people
mod init; // a first file from what is found
mod kinds; // the seam to the crate that implements the kinds
mod load; // a file, an environment, an application
mod read; // types out of the tree, going on after mistakes
mod reference; // the reference, from the schema
mod report; // mistakes with their lines
mod resolve; // references followed, rules checked
mod schema; // the JSON Schema, from the types and the kinds
mod tree; // the file with the place of everything
pub mod wire; // lengths of time, shares, sizes and secrets as people write them

pub use init::{Draft, Found, init};
pub use kinds::{KindDoc, Kinds, Mistake};
pub use load::{Loaded, load, load_bytes};
pub use reference::reference;
pub use report::{Diagnostic, Level, LineSpot, Report};
pub use resolve::{HostSettings, SshSettings, VaultSettings};
pub use schema::schema;
