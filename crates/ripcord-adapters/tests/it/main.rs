//! The kinds against real files, processes and servers of this machine.
#![allow(clippy::unwrap_used, reason = "where it is not so, the test has failed")]

mod channels;
mod command;
#[cfg(feature = "real")]
mod compose;
mod contract;
mod directory;
mod driver;
mod env_file;
mod far;
mod fuzz_corpus;
mod git;
mod hosts;
mod http_flags;
mod http_switch;
mod json_file;
mod kinds;
mod migrations;
mod npm;
mod pip;
mod pm2;
#[cfg(feature = "real")]
mod real;
#[cfg(feature = "real")]
mod real_daemon;
#[cfg(feature = "real")]
mod real_etcd;
#[cfg(feature = "real")]
mod real_migrations;
#[cfg(feature = "real")]
mod real_pitr;
#[cfg(feature = "real")]
mod real_postgres;
#[cfg(feature = "real")]
mod real_redis;
#[cfg(feature = "real")]
mod real_systemd;
#[cfg(feature = "real")]
mod real_tools;
mod signals;
mod sqlite;
mod support;
mod systemd;
