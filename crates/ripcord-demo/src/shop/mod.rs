//! A small shop: a real HTTP server over a real SQLite database, with releases that can be good or bad.
//!
//! Everything one shop owns lies in one directory ([`Layout`]), so several run side by side. The server is a process of
//! its own that outlives the command that started it; it ends on TERM, on INT, and when its directory disappears.
//! Nothing here prints: a command returns its words and its exit code in an [`Outcome`].
mod command; // the words after `shop`, parsed and carried out
mod env; // `.env`, read as dotenv reads it
mod error; // what can go wrong, for all of the shop
mod fault; // how a bad release misbehaves
mod flags; // `flags.json`, in force as soon as it is written
mod layout; // what lies where in a shop's directory, and laying it out
mod log; // `logs/shop.log`
mod maintenance; // the closed door, and who may pass it
mod metrics; // counters and histograms as Prometheus text
mod orders; // the database, on a thread of its own
mod process; // starting, stopping and finding the server process
mod release; // release directories and the switch between them
mod routes; // what the shop answers over HTTP
mod serve; // the life of the server process

pub use command::{Outcome, ShopCommand, USAGE, parse, run};
pub use env::EnvFile;
pub use error::ShopError;
pub use layout::{Layout, init_dir};
pub use orders::{CATALOGUE, INTEGRITY_QUERY};
pub use process::{Instance, Program, StartArgs, Started, Stopped, free_port, observe, start, stop};
pub use release::{Fault, Release, switch, write_release};
pub use serve::{ServeArgs, Session, serve};
