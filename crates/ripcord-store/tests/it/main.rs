//! What the store promises, on disk and in memory.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

mod contract; // what every store keeps, run against both
mod crash; // killed, or out of disk
mod faults; // the faults that can be ordered
mod file; // directory, permissions, versions
mod random; // both stores do the same, whatever they are asked
mod sample; // events to write
mod tamper; // what verification finds
mod together; // several processes at once
