//! Where messages go: one file per kind, alphabetical. The registry is `kinds.rs`.

pub mod terminal; // the person at the terminal
pub mod webhook; // any program that takes JSON
