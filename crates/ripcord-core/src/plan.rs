//! Plans: what would be done, in which order, at what price; and when an approval of one still holds for another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    AppId, CaptureId, CheckId, ComponentId, Destroys, Digest, KindVersion, Loss, Name, Place, Redo, ReleaseId,
    Revision, RunId, StepId, TargetId,
};

/// What the person approves and the engine runs: nothing is decided after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub app: AppId,
    pub purpose: Purpose,
    pub rung: Rung,
    /// What is live when planned, where the ledger knows.
    pub from: Option<ReleaseId>,
    pub from_version: Option<String>,
    /// The release gone to; a plan that only sets toggles stays within the live one.
    pub to: Option<ReleaseId>,
    pub to_version: Option<String>,
    pub inventory: Digest,
    pub config: Digest,
    pub steps: Vec<Step>,
    /// Where each place of the target release will be when all steps are done: those that they change, and those that are there
    /// already. What only has a revision through others is not here.
    pub ends_at: BTreeMap<Place, Revision>,
    pub left_alone: Vec<LeftAlone>,
    /// What would put another revision back once this plan is carried out, as things stand: for people to see to. It is looked at
    /// again when everything is done.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub puts_back: BTreeMap<Place, Vec<String>>,
    pub loss_at_most: Loss,
}

/// A component that a plan does not touch, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAlone {
    pub component: ComponentId,
    pub why: String,
}

/// What a plan is for. A drill never quarantines and never tells customers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    Deploy,
    Rollback,
    Undo { of: RunId },
    Drill { of: Box<Purpose> },
}

/// One level of a ladder: how far to go, and whether the next may be climbed without a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// 1 feature toggle, 2 code, 3 full restore.
    pub level: u8,
    pub name: Name,
    pub means: Means,
    pub climb: Climb,
    /// Overrunning it tells people; it does not kill a restore half way.
    #[serde(with = "crate::ms", rename = "budget_ms")]
    pub budget: Duration,
}

/// How a rung takes a system back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// Toggles: these values in these components, everything else as it is.
    Set { values: BTreeMap<ComponentId, BTreeMap<String, Value>> },
    /// The target release's revision for each component in scope. A flowing component is restored only when named here.
    Restore { scope: BTreeSet<ComponentId> },
}

impl Rung {
    /// The components it may touch.
    pub fn scope(&self) -> BTreeSet<ComponentId> {
        match &self.means {
            Means::Set { values } => values.keys().cloned().collect(),
            Means::Restore { scope } => scope.clone(),
        }
    }
}

/// Whether a rung found insufficient may be followed by the next without a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Climb {
    Automatic,
    Ask,
}

/// One effect or check, with everything needed to do it, to know that it was done, and to say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub id: StepId,
    pub phase: Phase,
    /// Where it acts. A check of the whole application has no place.
    pub place: Option<Place>,
    /// The outside system it changes: the identity of its lock.
    pub target: Option<TargetId>,
    pub kind: Option<KindVersion>,
    pub needs: BTreeSet<StepId>,
    pub action: Action,
    pub destroys: Destroys,
    /// What must hold the present before this step may destroy it.
    pub protected_by: Option<CaptureRef>,
    pub redo: Redo,
    pub limits: Limits,
    pub on_failure: OnFailure,
    pub shown: Shown,
}

/// The phases of a component's way back: default edges, not barriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Preflight,
    /// What is gone to is made ready beside what is live, everywhere, before anything live is touched.
    Stage,
    Capture,
    Quiesce,
    Restore,
    Start,
    VerifyClosed,
    Resume,
    VerifyOpen,
}

/// What a step does. The closed part is what the planner and its checker reason about; `Own` is an adapter's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Looks whether what the plan relies on is still so (artefacts there, disk space, endpoint answering). Changes nothing.
    Prove {
        revision: Revision,
        capture: Option<CaptureId>,
    },
    /// Makes what a later step of the same place switches to ready beside what is live, which it does not touch.
    Stage {
        to: Revision,
        from: Option<CaptureRef>,
    },
    Capture {
        purpose: CapturePurpose,
    },
    /// Traffic off (maintenance page, drained).
    Pause,
    Stop,
    Restore {
        to: Revision,
        from: Option<CaptureRef>,
    },
    Set {
        values: BTreeMap<String, Value>,
    },
    Start,
    /// A restart that takes over from what runs without a gap, in place of a stop and a start.
    Roll,
    Resume,
    /// A named check, polled until it passes or its limit is over.
    Check {
        check: CheckId,
    },
    /// What only the component knows. Where it is told the most that it may lose, that stands under [`Action::CEILING`].
    Own {
        what: String,
        with: Value,
    },
}

impl Action {
    /// The name of a loss in `with` that may grow by the time somebody approves, as the plan's own ceiling may.
    pub const CEILING: &str = "ceiling";
}

/// Why a capture is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapturePurpose {
    /// Required: something will be set aside or given up.
    Protective,
    /// Best effort and off the critical path: logs, processes, environment.
    Evidence,
}

/// A capture known when planned, or one an earlier step of the run makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureRef {
    Known(CaptureId),
    MadeBy(StepId),
}

/// How far a capture has been shown to be restorable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProofLevel {
    Written,
    ReadBack,
    Restored,
    Drilled,
}

/// What follows when a step cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The run stops there and calls people.
    Park,
    /// For evidence and clean-up only.
    Continue { reason: String },
}

/// Time limits. A call fits in the lease; the whole need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The longest one call may take; past it the outcome is unknown.
    #[serde(with = "crate::ms", rename = "call_ms")]
    pub call: Duration,
    /// The longest the step may take with all its tries and its waiting for the goal.
    #[serde(with = "crate::ms", rename = "total_ms")]
    pub total: Duration,
    pub tries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { call: Duration::from_secs(60), total: Duration::from_secs(300), tries: 3 }
    }
}

/// A step as a person reads it: words, and the commands or calls that will run, already redacted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub words: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Vec<String>>,
}

/// A step as a component proposes it; the planner gives it identity, edges and protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub phase: Phase,
    pub action: Action,
    pub destroys: Destroys,
    pub redo: Redo,
    pub limits: Limits,
    pub shown: Shown,
}

/// What a plan will probably cost. Not part of the plan's digest: a better guess voids no approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Along the critical path.
    #[serde(with = "crate::ms", rename = "duration_ms")]
    pub duration: Duration,
    /// From the first stop or pause to the last start or resume.
    #[serde(with = "crate::ms", rename = "downtime_ms")]
    pub downtime: Duration,
    /// How many of the steps had past runs to judge by.
    pub from_past: usize,
    pub of_steps: usize,
    /// What would be lost if it were carried out this instant; [`Plan::loss_at_most`] is the ceiling.
    #[serde(default)]
    pub loss_now: Loss,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Priced {
    pub plan: Plan,
    pub estimate: Estimate,
}

impl Plan {
    pub fn digest(&self) -> Digest {
        Digest::of_value(self)
    }

    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == *id)
    }

    /// Whether running it gives anything up, so that it needs typed consent.
    pub fn gives_up(&self) -> bool {
        !self.loss_at_most.is_none() || self.steps.iter().any(|step| step.destroys == Destroys::GivesUp)
    }

    /// What would put another revision back, each once, with the places it would do so at.
    pub fn undone_by(&self) -> BTreeMap<&str, Vec<&Place>> {
        let mut by: BTreeMap<&str, Vec<&Place>> = BTreeMap::new();
        for (place, what) in self.puts_back.iter().flat_map(|(place, what)| what.iter().map(move |what| (place, what)))
        {
            by.entry(what).or_default().push(place);
        }
        by
    }

    /// Whether anything would be done at all.
    pub fn is_empty(&self) -> bool {
        !self.steps.iter().any(Step::acts)
    }
}

impl Step {
    /// Whether it changes the world (checks, proofs and captures do not).
    pub fn acts(&self) -> bool {
        !matches!(self.action, Action::Prove { .. } | Action::Capture { .. } | Action::Check { .. })
    }
}

/// Whether an approval of `approved` still holds for `replanned`, made after the world moved: the same target and purpose, no effect
/// that was not shown, no greater loss.
///
/// Steps that fell away (already so) are no objection; a step is the same when what it does and to what is the same, whatever its
/// edges. `loss_now` is what the new plan would lose this instant: it must be within the ceiling that was approved.
pub fn covers(approved: &Plan, replanned: &Plan, loss_now: &Loss) -> bool {
    let same_aim = approved.app == replanned.app
        && approved.purpose == replanned.purpose
        && approved.rung == replanned.rung
        && approved.to == replanned.to
        && approved.config == replanned.config;
    let effect = |step: &Step| (step.place.clone(), deed(&step.action), step.destroys, step.kind.clone());
    let shown: Vec<_> = approved.steps.iter().map(effect).collect();
    let subset = replanned.steps.iter().filter(|step| step.acts()).all(|step| shown.contains(&effect(step)));
    same_aim && subset && approved.loss_at_most.covers(loss_now)
}

/// What an action does, without how much it may lose: that is agreed to for the plan as a whole, and more is written every moment.
fn deed(action: &Action) -> Action {
    match action {
        Action::Own { what, with: Value::Object(with) } => {
            let with = with.iter().filter(|(name, _)| *name != Action::CEILING);
            let with = with.map(|(name, value)| (name.clone(), value.clone())).collect();
            Action::Own { what: what.clone(), with: Value::Object(with) }
        }
        other => other.clone(),
    }
}

/// How long steps took before, by place and phase: the estimate's source. Newest first.
#[derive(Debug, Clone, Default)]
pub struct PastTimes(pub BTreeMap<(Option<Place>, Phase), Vec<Duration>>);

impl PastTimes {
    /// The median of what is known, or none.
    pub fn typical(&self, step: &Step) -> Option<Duration> {
        let mut known = self.0.get(&(step.place.clone(), step.phase))?.clone();
        known.sort_unstable();
        known.get(known.len() / 2).copied()
    }
}

/// Prices a plan by its critical path.
///
/// A step without history counts as its survey's reckoning in `reckoned`, else as one second: enough to rank ladders, and the
/// estimate says how much of it is history.
pub fn price(plan: Plan, loss_now: Loss, past: &PastTimes, reckoned: &BTreeMap<Place, Duration>) -> Priced {
    let mut from_past = 0;
    let stages = plan.steps.iter().filter(|step| step.phase == Phase::Stage);
    let staged: BTreeSet<&Place> = stages.filter_map(|step| step.place.as_ref()).collect();
    let mut ends: BTreeMap<&StepId, (Duration, Duration)> = BTreeMap::new();
    let mut order: Vec<&Step> = plan.steps.iter().collect();
    let mut sorted = Vec::with_capacity(order.len());
    while !order.is_empty() {
        let (ready, rest): (Vec<_>, Vec<_>) =
            order.into_iter().partition(|step| step.needs.iter().all(|need| ends.contains_key(need)));
        if ready.is_empty() {
            break; // A cycle: the checker refuses such a plan, so its price does not matter.
        }
        for step in ready {
            let takes = match past.typical(step) {
                Some(takes) => {
                    from_past += 1;
                    takes
                }
                // What is made ready beforehand takes its time then; the switch to it is short.
                None => match (&step.place, step.phase) {
                    (Some(place), phase)
                        if phase == Phase::Stage || phase == Phase::Restore && !staged.contains(place) =>
                    {
                        reckoned.get(place).copied().unwrap_or(Duration::from_secs(1))
                    }
                    _ => Duration::from_secs(1),
                },
            };
            let begins =
                step.needs.iter().filter_map(|need| ends.get(need)).map(|(_, end)| *end).max().unwrap_or_default();
            ends.insert(&step.id, (begins, begins + takes));
            sorted.push(step);
        }
        order = rest;
    }
    let duration = ends.values().map(|(_, end)| *end).max().unwrap_or_default();
    let off = sorted
        .iter()
        .filter(|s| matches!(s.action, Action::Stop | Action::Pause))
        .filter_map(|s| ends.get(&s.id))
        .map(|(b, _)| *b)
        .min();
    let on = sorted
        .iter()
        .filter(|s| matches!(s.action, Action::Start | Action::Resume))
        .filter_map(|s| ends.get(&s.id))
        .map(|(_, e)| *e)
        .max();
    let downtime = match (off, on) {
        (Some(off), Some(on)) => on.saturating_sub(off),
        _ => Duration::ZERO,
    };
    let of_steps = plan.steps.len();
    Priced { plan, estimate: Estimate { duration, downtime, from_past, of_steps, loss_now } }
}

/// Consent to what a plan gives up: by whom, when, and what they were told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    pub plan: Digest,
    pub loss: Loss,
    pub at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_of_a_components_own_is_the_same_whatever_it_may_lose_by_now() {
        let own = |to: &str, rows: u64| {
            let with = serde_json::json!({ "to": to, "ceiling": { "rows": { "orders": rows } } });
            deed(&Action::Own { what: "migrate".to_owned(), with })
        };
        assert_eq!(own("0003", 10), own("0003", 12));
        assert_ne!(own("0003", 10), own("0002", 10));
        assert_ne!(deed(&Action::Stop), deed(&Action::Start));
    }
}
