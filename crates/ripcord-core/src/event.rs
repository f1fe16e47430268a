//! Events: the only record. Every state that matters is a fold of these.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Actor, AppId, Authority, Before, CaptureId, CapturePurpose, ChannelId, CheckId, Consent, Decision, Digest,
    Incident, IncidentId, Made, Name, ObligationId, Outcome, Place, ProofLevel, Purpose, Quarantine, Release,
    ReleaseId, RunId, Seq, Severity, Standing, StepId, TriggerId, TriggerState, Verdict,
};

/// One entry of a journal. `hash` covers everything else, `prev` is the hash before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unique in the world, so that an append whose answer was lost can be repeated.
    pub id: String,
    pub app: AppId,
    pub seq: Seq,
    pub epoch: Epoch,
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    pub version: u16,
    pub body: Body,
    pub prev: Digest,
    pub hash: Digest,
}

/// What the lease holder asks to have appended: the store adds sequence, epoch and hashes.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    pub id: String,
    pub at: Timestamp,
    pub run: Option<RunId>,
    pub incident: Option<IncidentId>,
    pub body: Body,
}

/// How often the lease has changed hands: a stale holder's is lower, and its appends are refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The version of event bodies this engine writes. Older ones are upcast when read, newer ones refused.
pub const EVENT_VERSION: u16 = 1;

/// What happened. Externally tagged, so that a body names its kind first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    // Watching.
    Changed {
        trigger: TriggerId,
        state: TriggerState,
        value: Option<f64>,
        n: Option<f64>,
        baseline: Option<f64>,
        evidence: Digest,
    },
    /// Somebody (or a rule) says something is wrong.
    Opened {
        incident: Incident,
    },
    Joined {
        trigger: TriggerId,
        severity: Severity,
    },
    /// A person or a check reports what is part of an incident that is open: its severity is no milder from here on.
    Reported {
        by: Actor,
        what: String,
        severity: Severity,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        issue: Option<Name>,
    },
    Closed {
        by: Actor,
        why: String,
    },
    Decided {
        decision: Box<Decision>,
    },

    // Releases.
    /// A release as it now is: the newest such event of an identity holds.
    Recorded {
        release: Box<Release>,
    },
    Judged {
        release: ReleaseId,
        verdict: Verdict,
    },
    Stands {
        release: ReleaseId,
        standing: Standing,
    },
    Quarantined {
        quarantine: Quarantine,
    },
    Lifted {
        version: String,
        by: Actor,
        why: String,
    },
    /// Figures measured over the window before a release, for comparison later.
    Baseline {
        release: ReleaseId,
        figures: BTreeMap<crate::SignalId, crate::Baseline>,
    },

    /// The release bakes from here on: if nothing goes wrong until then, and there was data, it is good. Written anew by whoever
    /// takes up a bake that was cut off.
    Baking {
        release: ReleaseId,
        until: Timestamp,
    },
    /// A check of the release, outside any run: its verification, or its bake.
    Checked {
        release: ReleaseId,
        check: CheckId,
        verdict: Check,
    },

    // Captures.
    Captured {
        capture: CaptureId,
        of: Place,
        purpose: CapturePurpose,
        release: Option<ReleaseId>,
        /// The step that made it, where a run did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepId>,
        made: Box<Made>,
    },
    Proven {
        capture: CaptureId,
        level: ProofLevel,
    },
    /// Found damaged or gone: not relied on any more.
    Spoiled {
        capture: CaptureId,
        why: String,
    },
    Pruned {
        capture: CaptureId,
    },

    // Runs. The run is the event's.
    Proposed {
        plan: Digest,
        purpose: Purpose,
        by: Actor,
        severity: Option<Severity>,
        authority: Authority,
        automatic: bool,
        answer_by: Option<Timestamp>,
    },
    Answered {
        plan: Digest,
        by: Actor,
        answer: Answer,
        reason: Option<String>,
        consent: Option<Consent>,
    },
    Superseded {
        by: Digest,
        why: String,
    },
    Started,
    /// A step's goal held before it was begun: nothing was done.
    Held {
        step: StepId,
        found: String,
    },
    Intent {
        step: StepId,
        attempt: u32,
        before: Before,
    },
    Acted {
        step: StepId,
        attempt: u32,
        outcome: Outcome,
    },
    /// A check or a proof came to its verdict.
    Verified {
        step: StepId,
        verdict: Check,
    },
    /// Whether the breached signals came back after everything was restored.
    Helped {
        verdict: Check,
        compared: Vec<Compared>,
    },
    Watching {
        until: Timestamp,
    },
    Parked {
        why: ParkedWhy,
    },
    Person {
        by: Actor,
        verb: Verb,
    },
    /// A budget was overrun: people are told, nothing is killed.
    Overran {
        what: String,
        #[serde(with = "crate::ms", rename = "budget_ms")]
        budget: Duration,
    },
    Ended {
        end: End,
    },

    // Telling.
    Told {
        message: String,
        channel: ChannelId,
        delivered: bool,
        why: Option<String>,
    },
    Noted {
        by: Actor,
        text: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Approve,
    Decline,
}

/// What a person may do to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    Pause,
    Resume,
    Retry {
        step: Option<StepId>,
    },
    Skip {
        step: StepId,
        reason: String,
    },
    Done {
        step: StepId,
        evidence: String,
    },
    Abandon {
        reason: String,
    },
    /// Takes an open obligation over by name.
    Take {
        obligation: ObligationId,
        reason: String,
    },
}

/// A verdict: two ways to be sure, and one to say that there is no telling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    Pass { found: String },
    Fail { what: Vec<String> },
    Inconclusive { why: String },
}

/// A breached signal after a restore, beside what it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    pub trigger: TriggerId,
    pub baseline: Option<f64>,
    pub breached_at: Option<f64>,
    pub now: Option<f64>,
    pub recovered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParkedWhy {
    /// A step failed, and trying again does not help.
    Failed { step: StepId, what: String, advice: Option<String> },
    /// What a step did cannot be found out, and doing it again may do harm.
    InDoubt { step: StepId, found: String },
    /// A check could not come to a verdict.
    Inconclusive { step: Option<StepId>, why: String },
    /// The symptom remains and policy lets nobody but a person go further.
    Insufficient { why: String },
    /// Everything was done, and the components are not all at one release: something else changes them.
    HalfWay { what: Vec<String> },
    /// The step was written by another major version of its adapter.
    OtherAdapter { step: StepId, written_by: String, have: String },
}

/// How a run ended. "Rolled back" and "helped" are different things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    Succeeded,
    /// Everything was done and is consistent; the symptom remains.
    Insufficient,
    Declined,
    Expired,
    Superseded,
    Abandoned {
        by: Actor,
        open: Vec<ObligationId>,
    },
}
