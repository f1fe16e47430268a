//! The configuration as the rest of the program and its users meet it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod broken; // each mistake, and what is said about it
mod corpus; // files that are right, and what they come to
mod fuzz_corpus; // what fuzzing kept
mod init; // what is written for a directory
mod toy; // kinds to test with
