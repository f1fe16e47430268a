//! The journal, a line for each event.

use ripcord_core::Event;
use serde::Serialize;

use crate::screen::{BAD, FAINT, GOOD, View, paint};
use crate::words;

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct EventLine<'a>(pub &'a Event);

impl View for EventLine<'_> {
    fn text(&self) -> String {
        let Self(event) = self;
        format!("{} {} {}", paint(FAINT, format!("{:>6}", event.seq.0)), words::when(event.at), words::event(event))
    }
}

/// What checking the journal found.
#[derive(Debug, Serialize)]
pub struct Whole {
    pub whole: bool,
    pub events: u64,
    pub head: Option<String>,
    pub blobs: u64,
    /// The first event that is not what was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tampered_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl View for Whole {
    fn text(&self) -> String {
        match (&self.why, self.tampered_at) {
            (Some(why), Some(at)) => format!("{} at event {at}: {why}", paint(BAD, "the record was changed")),
            (Some(why), None) => format!("{}: {why}", paint(BAD, "the record was changed")),
            (None, _) => format!(
                "{}: {} and {} are what was written; head {}",
                paint(GOOD, "whole"),
                words::count(self.events, "event"),
                words::count(self.blobs, "blob"),
                self.head.as_deref().unwrap_or("none")
            ),
        }
    }
}
