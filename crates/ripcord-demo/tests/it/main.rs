//! The shop as others see it: a process, its files, its answers.
#![allow(clippy::unwrap_used, reason = "what a test cannot do without, in its helpers too")]
mod answers; // what it says over HTTP, and what it keeps
mod faults; // how each bad release shows
mod maintenance; // the closed door
mod processes; // starting, stopping, finding
mod site; // one shop of a test's own
mod traffic; // the load
