//! Triggers: when a signal has been bad for long enough to say so.
//!
//! Sustained means sustained: one good sample resets. No data and errors are states of their own; neither breaches nor clears
//! anything. The nouns are here; how one state follows another is in `advance`.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ComponentId, Guard, Name, Severity, SignalId, TriggerId};

/// A rule over a signal: condition, how long, how bad, and what follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub id: TriggerId,
    pub signal: SignalId,
    pub condition: Condition,
    pub hold: Hold,
    /// How it becomes good again; without it, the condition's own opposite for as long as it was held: without one bad sample
    /// for the duration or the window, or in `n` samples.
    pub clear: Option<Clear>,
    /// The least [`crate::Sample::n`] a share or quantile must rest on; fewer is no verdict, not a pass.
    pub at_least: Option<f64>,
    pub missing: Missing,
    pub errors: Missing,
    /// Breaches when there has been nothing for this long while the observer is healthy. Absence is judged only where this is set.
    #[serde(with = "crate::ms_option", rename = "absent_for_ms")]
    pub absent_for: Option<Duration>,
    /// How often readings come. A gap of more than two is no data.
    #[serde(with = "crate::ms", rename = "interval_ms")]
    pub interval: Duration,
    pub when: Option<Guard>,
    pub severity: Severity,
    /// The issue type a breach is, for the decision matrix.
    pub issue: Name,
    pub follows: Follows,
    /// The components a breach points at: what the suspect release must have touched. Empty: any.
    pub points_at: BTreeSet<ComponentId>,
    /// Where the figures come from.
    pub source: Option<String>,
}

/// What is bad. Comparisons are strict: a value equal to the threshold does not breach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    Above(f64),
    Below(f64),
    /// More than `times` the baseline and more than `floor`: a ratio alone fires on nothing over nothing.
    AboveBaseline {
        times: f64,
        floor: f64,
    },
    /// Less than `times` the baseline, which itself must be more than `floor`.
    BelowBaseline {
        times: f64,
        floor: f64,
    },
    /// Judged only by `absent_for`.
    Absent,
}

/// How long it must be bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// Without one good sample in between.
    For {
        #[serde(with = "crate::ms", rename = "for_ms")]
        at_least: Duration,
    },
    /// This many bad samples within the window, whatever came between.
    Times {
        count: u32,
        #[serde(with = "crate::ms", rename = "within_ms")]
        within: Duration,
    },
    /// `k` of the last `n` samples.
    Of { k: u32, n: u32 },
}

/// Hysteresis: a breach ends only when the value has been beyond `at` (no longer above it for `above`, no longer below it for
/// `below`) in every sample for this long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Clear {
    /// As the condition's own figure: a value, or times the baseline.
    pub at: f64,
    #[serde(with = "crate::ms", rename = "for_ms")]
    pub at_least: Duration,
}

/// What no data (or a failing observer) means. It never fires and never clears a breach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// The state says so; nobody is told.
    Ignore,
    /// What was pending stays pending for as long as the hold is, then starts anew.
    Hold,
    /// People are told that monitoring is blind.
    Page,
}

/// What a breach leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Follows {
    /// The matrix decides.
    Decide,
    /// A person is told; nothing is proposed.
    Page,
    /// Counted, never acted on.
    Shadow,
}

/// Where a trigger stands. `since` is by the clock of the samples wherever there are any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TriggerState {
    Ok,
    /// Since the first bad sample, or the first look that found nothing where absence is judged.
    Pending {
        since: Timestamp,
    },
    /// Since its onset: the first bad sample of those that made it. When it was noticed is the event's time.
    Breached {
        since: Timestamp,
    },
    /// Since the first good sample after the last bad one.
    Recovering {
        since: Timestamp,
    },
    /// Since the last sample there was.
    NoData {
        since: Timestamp,
    },
    Error {
        since: Timestamp,
        why: String,
    },
}

impl TriggerState {
    pub fn since(&self) -> Option<Timestamp> {
        match self {
            Self::Ok => None,
            Self::Pending { since }
            | Self::Breached { since }
            | Self::Recovering { since }
            | Self::NoData { since }
            | Self::Error { since, .. } => Some(*since),
        }
    }

    /// Whether nothing is known of the signal.
    pub fn is_gap(&self) -> bool {
        matches!(self, Self::NoData { .. } | Self::Error { .. })
    }
}

/// What a trigger remembers between readings; checkpointed, so that a restart forgets nothing. Its size is bounded by the hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    pub state: TriggerState,
    /// When the last reading was taken in, whatever it was.
    pub last: Option<Timestamp>,
    /// When the last sample was.
    pub last_sample: Option<Timestamp>,
    /// The state to return to when data comes back: a breach survives a gap.
    pub before_gap: Option<Box<TriggerState>>,
    /// The first bad sample of what is pending or breached; kept through recovery, for a relapse is the same breach.
    #[serde(default)]
    pub onset: Option<Timestamp>,
    /// The first and the last of the looks in a row that found nothing although the observer was healthy.
    #[serde(default)]
    pub absent: Option<(Timestamp, Timestamp)>,
    /// Verdicts of the last samples, as far as the hold looks back: the bad ones within the window, or the last `n`.
    pub recent: VecDeque<(Timestamp, bool)>,
    /// The value that made the last verdict.
    pub value: Option<f64>,
    pub n: Option<f64>,
    pub baseline: Option<f64>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            state: TriggerState::Ok,
            last: None,
            last_sample: None,
            before_gap: None,
            onset: None,
            absent: None,
            recent: VecDeque::new(),
            value: None,
            n: None,
            baseline: None,
        }
    }
}
