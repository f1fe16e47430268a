//! What is measured: one file per kind, alphabetical. The registry is `kinds.rs`.

pub mod command; // what a program says
pub mod container; // containers of the Docker Engine
pub mod etcd; // the health of an etcd cluster
pub mod host; // the machine itself
pub mod http; // what an endpoint answers
pub mod journal; // entries of the journal, and how a unit is
pub mod log; // lines of a log file
pub mod pm2; // an application under pm2
pub mod postgres; // a PostgreSQL database
pub mod process; // a process of this machine
pub mod prometheus; // a Prometheus server's answer to a query
pub mod queue; // what waits in a queue, and whether it moves
pub mod redis; // a Redis server
pub mod scrape; // an application's own metrics page
pub mod sql; // one number from an SQLite database

use std::sync::{Mutex, MutexGuard, PoisonError};

use ripcord_core::{Reading, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

/// What a signal's values are, where its kind cannot know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnitName {
    /// 0.0 to 1.0; thresholds are written `5%`.
    Ratio,
    /// Thresholds are written `2s`.
    Seconds,
    /// Thresholds are written `500MB`.
    Bytes,
    /// A plain number.
    Number,
}

impl From<UnitName> for Unit {
    fn from(name: UnitName) -> Self {
        match name {
            UnitName::Ratio => Self::Ratio,
            UnitName::Seconds => Self::Seconds,
            UnitName::Bytes => Self::Bytes,
            UnitName::Number => Self::Number,
        }
    }
}

fn failed(why: impl Into<String>) -> Reading {
    Reading::Failed { why: why.into() }
}

/// A lock on what a signal remembers; a reading that panicked has left it whole, because it is written in one go.
fn locked<T>(memory: &Mutex<T>) -> MutexGuard<'_, T> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}
