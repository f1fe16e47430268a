//! The engine against fakes that tell the truth about what was done to them.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod asks;
mod deploy;
mod holder;
mod incident;
mod outbox;
mod readiness;
mod run;
mod serves;
mod sim;
mod stage;
mod staging;
mod universe;
mod upkeep;
