//! A verdict is stored evidence: what was asked, what came back, what was known before, and what followed.
//!
//! Whoever has it can derive the verdict again with a pure function; an engine that disagrees with the record says so instead of
//! silently reading the past its own way.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::advance::{advance, no_measurement};
use crate::{Digest, Memory, Reading, Rule, TriggerId, TriggerState};

/// The version of the rules by which verdicts are made here.
pub const ENGINE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything one verdict of a trigger was made from. Kept under its digest, which the event names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub rule: Rule,
    pub engine_version: String,
    /// The query in full, as resolved, without secrets.
    pub query: String,
    pub reading: Reading,
    pub baseline: Option<f64>,
    pub memory_before: Memory,
    pub memory_after: Memory,
    pub at: Timestamp,
}

/// This engine comes to another verdict than the one recorded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "the verdict on `{trigger}` cannot be derived again: version {recorded_by} recorded {}, this one ({ENGINE_VERSION}) says {}",
    words(.recorded),
    words(.derived)
)]
pub struct Disagrees {
    pub trigger: TriggerId,
    pub recorded_by: String,
    pub recorded: Box<Memory>,
    pub derived: Box<Memory>,
}

fn words(memory: &Memory) -> String {
    let value = memory.value.map(|value| format!(", value {value}")).unwrap_or_default();
    match &memory.state {
        TriggerState::Ok => format!("ok{value}"),
        TriggerState::Pending { since } => format!("pending since {since}{value}"),
        TriggerState::Breached { since } => format!("breached since {since}{value}"),
        TriggerState::Recovering { since } => format!("recovering since {since}{value}"),
        TriggerState::NoData { since } => format!("no data since {since}"),
        TriggerState::Error { since, why } => format!("an error since {since} ({why})"),
    }
}

impl Evidence {
    /// Takes the reading in and keeps what the verdict was made from.
    pub fn of(
        rule: &Rule,
        query: impl Into<String>,
        memory: &Memory,
        reading: &Reading,
        baseline: Option<f64>,
        at: Timestamp,
    ) -> Self {
        let reading = match reading {
            // JSON has no word for a figure that is no number; its failure is what it is judged as anyway.
            Reading::Samples(samples) => match no_measurement(samples) {
                Some(why) => Reading::Failed { why },
                None => reading.clone(),
            },
            Reading::Empty | Reading::Failed { .. } => reading.clone(),
        };
        let baseline = baseline.filter(|baseline| baseline.is_finite());
        let (memory_after, _) = advance(rule, memory, &reading, baseline, at);
        Self {
            rule: rule.clone(),
            engine_version: ENGINE_VERSION.to_owned(),
            query: query.into(),
            reading,
            baseline,
            memory_before: memory.clone(),
            memory_after,
            at,
        }
    }

    pub fn digest(&self) -> Digest {
        Digest::of_value(self)
    }
}

/// Derives a recorded verdict again from what it was made from.
/// # Errors
/// [`Disagrees`] with both verdicts where this engine comes to another.
pub fn rederive(evidence: &Evidence) -> Result<(), Disagrees> {
    let Evidence { rule, memory_before, reading, baseline, at, .. } = evidence;
    let (derived, _) = advance(rule, memory_before, reading, *baseline, *at);
    if derived == evidence.memory_after {
        return Ok(());
    }
    Err(Disagrees {
        trigger: rule.id.clone(),
        recorded_by: evidence.engine_version.clone(),
        recorded: Box::new(evidence.memory_after.clone()),
        derived: Box::new(derived),
    })
}
