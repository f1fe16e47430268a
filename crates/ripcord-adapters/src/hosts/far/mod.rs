//! Places on other hosts: taken care of by the same adapters, which run there.
//!
//! One connection for each host; at its other end this very program, as an *agent*. It builds a component from the same
//! configuration and is called instead of the component here; what it needs and must not have (secrets, the vault's key) it asks
//! for. `docs/hosts.md` describes what is on the wire and what is left on the host.

mod agent; // the other end: builds and calls components and signals there
mod calls; // what became of calls that nobody heard the end of
mod desk; // this end: what an agent may ask for
mod link; // a connection to a host, made again when it breaks
mod pair; // calls both ways over one pair of streams
mod spread; // a component or a signal on hosts, as the engine knows it
mod vault; // the vault as an agent uses it, and captures of what is there
pub(super) mod words; // what is said

pub use agent::serve;
pub use link::{Home, Link, Links, Reached};
pub use spread::{signal_on, spread};
