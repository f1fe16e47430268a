//! Deciding: from breaches and the state of the ledger to a call, a ladder and whoever may say yes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Actor, Digest, IncidentId, Name, ReleaseId, Rung, TriggerId};

/// How bad it is: 0 is the worst. What the ranks are called is the configuration's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Severity(pub u8);

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{}", self.0)
    }
}

/// What a severity means: how soon somebody must respond, and who may decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeverityRule {
    pub severity: Severity,
    pub name: Name,
    #[serde(with = "crate::ms", rename = "respond_within_ms")]
    pub respond_within: Duration,
    pub authority: Authority,
}

/// Who may say yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Whether the listed clear cases may go ahead without a person.
    pub automatic: bool,
    pub roles: BTreeSet<Name>,
    /// How many different people must approve.
    pub quorum: u32,
    /// An answer later than this escalates. Silence never approves.
    #[serde(with = "crate::ms", rename = "answer_within_ms")]
    pub answer_within: Duration,
}

/// What is to be done, most drastic first where severities are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    Rollback,
    Evaluate,
    Investigate,
    Monitor,
    FixForward,
    DoNotRollBack,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rollback => "rollback",
            Self::Evaluate => "evaluate",
            Self::Investigate => "investigate",
            Self::Monitor => "monitor",
            Self::FixForward => "fix forward",
            Self::DoNotRollBack => "do not roll back",
        })
    }
}

/// By when: at once, within a time, or as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Within {
    Immediate,
    At {
        #[serde(with = "crate::ms", rename = "most_ms")]
        most: Duration,
    },
    BestEffort,
}

/// The decision matrix: issue type and figures in, a call out. Of the rows that match, the most severe wins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matrix {
    pub rows: Vec<Row>,
    /// What holds where no row matches: mandatory, so that the matrix is total.
    pub otherwise: Ruling,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    /// The issue types it is about; empty: any.
    pub issues: BTreeSet<Name>,
    /// Figures by name (`errors`, `latency`, `users`), each with its bounds.
    pub cells: BTreeMap<Name, Bounds>,
    pub combine: Combine,
    pub ruling: Ruling,
}

/// What a row (or `otherwise`) says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    pub call: Call,
    pub severity: Severity,
    pub within: Within,
    /// The strategy whose ladder is climbed; for calls other than rollback, what a person would be offered.
    pub strategy: Option<Name>,
    /// Whether this case is one of the clear ones that need no person, provided blame holds.
    pub automatic: bool,
}

/// Half-open: more than `above`, at most `up_to`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    pub above: Option<f64>,
    pub up_to: Option<f64>,
}

impl Bounds {
    pub fn contain(self, value: f64) -> bool {
        self.above.is_none_or(|above| value > above) && self.up_to.is_none_or(|up_to| value <= up_to)
    }
}

/// Whether one cell is enough, or all are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    Any,
    All,
}

/// What is known when a decision is asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The issues of the open breaches.
    pub issues: BTreeSet<Name>,
    /// Figures as last measured; a figure without data is not here.
    pub figures: BTreeMap<Name, f64>,
    /// The severest open breach or report.
    pub severity: Option<Severity>,
    pub breaches: BTreeSet<TriggerId>,
}

/// Whether the live release can be the cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// Young enough, and it touched what the breaches point at.
    Suspect { release: ReleaseId, version: String, age_ms: u64 },
    /// It is too old, or touched nothing they point at: rolling back would not help.
    Unlikely { why: String },
    /// There is no release to blame.
    NoRelease,
}

/// What was decided, by which reasons, by when, with which authority.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub incident: Option<IncidentId>,
    pub call: Call,
    pub severity: Severity,
    pub reasons: Vec<String>,
    pub act_by: Option<Timestamp>,
    pub strategy: Option<Name>,
    /// What may be done, lowest level first.
    pub ladder: Vec<Rung>,
    pub authority: Authority,
    /// Whether the first rung may start without a person.
    pub automatic: bool,
    pub facts: Facts,
    pub blame: Blame,
    /// The digest of the evidence the figures came from.
    pub evidence: Digest,
}

/// Breaches and reports about one application and environment. While it is open, new breaches join it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    pub id: IncidentId,
    pub opened: Timestamp,
    pub severity: Severity,
    pub what: String,
    pub triggers: BTreeSet<TriggerId>,
    /// The issue type it was reported as, where a person or a verification reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issue: Option<Name>,
    /// The release that was live when it opened.
    pub release: Option<ReleaseId>,
    pub by: Actor,
    pub closed: Option<Timestamp>,
}
