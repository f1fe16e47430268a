//! What happened when, and how long each part of an incident took.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One line of a timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    pub at: Timestamp,
    /// One line, in words.
    pub what: String,
    /// More, where there is more.
    pub detail: Vec<String>,
}

/// The moments an incident is measured by, and the lengths between them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    pub released: Option<Timestamp>,
    /// The first bad sample of the trigger that breached first.
    pub onset: Option<Timestamp>,
    pub detected: Option<Timestamp>,
    pub declared: Option<Timestamp>,
    pub decided: Option<Timestamp>,
    pub approved: Option<Timestamp>,
    pub started: Option<Timestamp>,
    pub restored: Option<Timestamp>,
    pub verified: Option<Timestamp>,
    pub closed: Option<Timestamp>,
    #[serde(with = "crate::ms_option", rename = "downtime_ms")]
    pub downtime: Option<Duration>,
}
