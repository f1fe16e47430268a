//! What revisions can be restored from.

use jiff::Timestamp;
use ripcord_core::{CaptureId, CapturePurpose, CaptureRow, HeldIn, Place, ProofLevel, ReleaseId, RunId};
use serde::Serialize;

use super::table::table;
use crate::screen::{BAD, FAINT, GOOD, View, paint};
use crate::words;

#[derive(Debug, Serialize)]
pub struct Line {
    pub capture: CaptureId,
    pub of: Place,
    pub at: Timestamp,
    pub purpose: CapturePurpose,
    pub revision: String,
    pub bytes: u64,
    pub proof: ProofLevel,
    /// `vault`, or the name the system itself keeps it under.
    pub held: String,
    pub release: Option<ReleaseId>,
    pub run: Option<RunId>,
    pub spoiled: Option<String>,
    pub pruned: bool,
    /// The last known good release or the live one needs it.
    pub pinned: bool,
}

impl Line {
    pub fn of(row: &CaptureRow, pinned: bool) -> Self {
        Self {
            capture: row.id.clone(),
            of: row.of.clone(),
            at: row.at,
            purpose: row.purpose,
            revision: row.made.label.clone().unwrap_or_else(|| row.made.revision.short()),
            bytes: row.made.bytes,
            proof: row.made.proof,
            held: match &row.made.held {
                HeldIn::Vault { .. } => "vault".to_owned(),
                HeldIn::System { name } => name.clone(),
            },
            release: row.release.clone(),
            run: row.run.clone(),
            spoiled: row.spoiled.clone(),
            pruned: row.pruned,
            pinned,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct List {
    pub captures: Vec<Line>,
}

impl View for List {
    fn text(&self) -> String {
        let row = |line: &Line| {
            let state = match (&line.spoiled, line.pruned) {
                (Some(why), _) => paint(BAD, format!("SPOILED: {why}")),
                (None, true) => paint(FAINT, "pruned"),
                (None, false) => words::proof(line.proof).to_owned(),
            };
            let bytes = format!("{} bytes", line.bytes);
            let purpose = match line.purpose {
                CapturePurpose::Protective if line.pinned => "pinned",
                CapturePurpose::Protective => "",
                CapturePurpose::Evidence => "evidence",
            };
            vec![
                line.capture.to_string(),
                line.of.to_string(),
                words::when(line.at),
                line.revision.clone(),
                bytes,
                line.held.clone(),
                state,
                paint(FAINT, purpose),
            ]
        };
        match self.captures.is_empty() {
            true => "no capture is on record".to_owned(),
            false => table(&self.captures.iter().map(row).collect::<Vec<_>>()),
        }
    }
}

/// Captures read back.
#[derive(Debug, Serialize)]
pub struct Verified {
    pub captures: Vec<Read>,
}

#[derive(Debug, Serialize)]
pub struct Read {
    pub capture: CaptureId,
    pub of: Place,
    pub whole: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl View for Verified {
    fn text(&self) -> String {
        let row = |read: &Read| {
            let state = match &read.why {
                None => paint(GOOD, "whole"),
                Some(why) => paint(BAD, format!("DAMAGED: {why}")),
            };
            vec![read.capture.to_string(), read.of.to_string(), state]
        };
        match self.captures.is_empty() {
            true => "the vault holds no capture".to_owned(),
            false => table(&self.captures.iter().map(row).collect::<Vec<_>>()),
        }
    }
}

/// What was forgotten, or would be.
#[derive(Debug, Serialize)]
pub struct Pruned {
    pub captures: Vec<Line>,
    pub dry_run: bool,
}

impl Pruned {
    pub fn of(rows: &[CaptureRow], dry_run: bool) -> Self {
        Self { captures: rows.iter().map(|row| Line::of(row, false)).collect(), dry_run }
    }
}

impl View for Pruned {
    fn text(&self) -> String {
        let names: Vec<String> = self.captures.iter().map(|line| format!("{} of {}", line.capture, line.of)).collect();
        match (names.is_empty(), self.dry_run) {
            (true, _) => "every capture is needed, or too young to be forgotten".to_owned(),
            (false, true) => format!("would be forgotten: {}", names.join(", ")),
            // The vault frees the space in the next pruning after a day: until then a reader may still need it.
            (false, false) => format!("forgotten: {}; their space comes free a day later", names.join(", ")),
        }
    }
}
