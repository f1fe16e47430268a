//! One execution of a plan: the fold of its events, and every choice the executor has.
//!
//! Until the outcome of an effect is recorded nobody knows whether it acted, so a step with an intent and no outcome is *in
//! doubt*: whoever resumes observes before anything else. What cannot follow is an error that says what it saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Action, Actor, Answer, Authority, Before, Body, CaptureId, Check, Compared, Consent, Digest, End, Event, Failure,
    IncidentId, Loss, ObligationId, OnFailure, Outcome, ParkedWhy, Phase, Place, Plan, Proof, Retry, RunId, Seq,
    Severity, Step, StepId, Verb,
};

/// A run as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub id: RunId,
    pub incident: Option<IncidentId>,
    pub plan: Arc<Plan>,
    pub digest: Digest,
    pub by: Actor,
    pub severity: Option<Severity>,
    pub authority: Authority,
    pub automatic: bool,
    pub answer_by: Option<Timestamp>,
    /// How often people were asked again for an answer.
    pub reminders: u32,
    pub state: RunState,
    pub paused: bool,
    pub steps: BTreeMap<StepId, StepState>,
    /// Captures made by steps of this run.
    pub captures: BTreeMap<StepId, CaptureId>,
    pub obligations: BTreeMap<ObligationId, Obligation>,
    pub approvals: Vec<(Actor, Timestamp)>,
    pub consent: Option<Consent>,
    pub helped: Option<(Check, Vec<Compared>)>,
    pub lost: Loss,
    pub proposed: Timestamp,
    pub started: Option<Timestamp>,
    pub restored: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub seq: Seq,
    front: Front,
}

/// Where the work is, kept beside the fold so that choosing the next step does not look at every step of a long plan.
#[derive(Debug, Clone, PartialEq)]
struct Front {
    /// Positions in the plan by identity, and who waits for whom.
    at: Arc<BTreeMap<StepId, usize>>,
    waiting: Arc<BTreeMap<StepId, Vec<StepId>>>,
    /// How many needs of each step are not settled.
    blocked: BTreeMap<StepId, usize>,
    /// Not settled, and all needs are.
    open: BTreeSet<StepId>,
    unsettled: usize,
}

impl Front {
    fn of(plan: &Plan) -> Self {
        let at = plan.steps.iter().enumerate().map(|(n, step)| (step.id.clone(), n)).collect();
        let mut waiting: BTreeMap<StepId, Vec<StepId>> = BTreeMap::new();
        for step in &plan.steps {
            for need in &step.needs {
                waiting.entry(need.clone()).or_default().push(step.id.clone());
            }
        }
        Self {
            at: Arc::new(at),
            waiting: Arc::new(waiting),
            blocked: plan.steps.iter().map(|step| (step.id.clone(), step.needs.len())).collect(),
            open: plan.steps.iter().filter(|step| step.needs.is_empty()).map(|step| step.id.clone()).collect(),
            unsettled: plan.steps.len(),
        }
    }

    /// A step settles once.
    fn settle(&mut self, id: &StepId) {
        self.open.remove(id);
        self.unsettled = self.unsettled.saturating_sub(1);
        for waiting in self.waiting.get(id).into_iter().flatten() {
            if let Some(blocked) = self.blocked.get_mut(waiting) {
                *blocked = blocked.saturating_sub(1);
                if *blocked == 0 {
                    self.open.insert(waiting.clone());
                }
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Waiting for an answer.
    Waiting,
    /// Approved, and not begun.
    Approved,
    Running,
    Watching {
        until: Timestamp,
    },
    Parked(ParkedWhy),
    Ended(End),
}

#[expect(clippy::large_enum_variant, reason = "most steps end as the large variant")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    Pending,
    /// Begun; the outcome is not recorded, or was recorded as unknown.
    InDoubt {
        attempt: u32,
        since: Timestamp,
        before: Before,
        why: Option<String>,
    },
    Done {
        attempt: u32,
        began: Option<Timestamp>,
        at: Timestamp,
        proof: Proof,
    },
    /// The goal held before the step was begun.
    Held {
        at: Timestamp,
        found: String,
    },
    Failed {
        attempt: u32,
        first: Timestamp,
        at: Timestamp,
        failure: Failure,
    },
    /// A person let it be.
    Skipped {
        by: Actor,
        reason: String,
    },
}

impl StepState {
    /// Whether what comes after may go ahead.
    fn settled(&self, step: &Step) -> bool {
        match self {
            Self::Done { .. } | Self::Held { .. } | Self::Skipped { .. } => true,
            Self::Failed { .. } => matches!(step.on_failure, OnFailure::Continue { .. }),
            Self::Pending | Self::InDoubt { .. } => false,
        }
    }
}

/// Something switched off by this run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obligation {
    pub id: ObligationId,
    pub place: Place,
    /// What must happen, in words (`start web`, `resume traffic at maintenance`).
    pub owed: String,
    pub since: Timestamp,
    pub state: Owed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owed {
    Open,
    Paid {
        at: Timestamp,
    },
    /// A person took it over, by name.
    Taken {
        by: Actor,
        reason: String,
    },
}

/// An event that cannot follow what was before it: a bug of ours or a tampered journal, never passed over.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("event {seq} cannot follow: {what}")]
pub struct OutOfOrder {
    pub seq: Seq,
    pub what: String,
}

/// What the executor is to do now.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Look whether the goal holds already; if not, commit the intent, then act.
    Begin {
        step: StepId,
        attempt: u32,
    },
    /// An effect that may have happened: observe, then decide.
    Resolve {
        step: StepId,
        attempt: u32,
        before: Before,
    },
    /// Nothing before this moment, unless something in flight ends.
    WaitUntil(Timestamp),
    Park(ParkedWhy),
    /// Every step is settled: see whether it helped.
    Restored,
    /// A check of the live system failed after everything was restored.
    Insufficient {
        why: String,
    },
    /// The watch window is over.
    Succeed,
}

impl Run {
    /// The run that a [`Body::Proposed`] event begins.
    /// # Errors
    /// [`OutOfOrder`] for any other event, or one whose plan is not `plan`.
    pub fn proposed(event: &Event, plan: Arc<Plan>) -> Result<Self, OutOfOrder> {
        let wrong = |what: &str| OutOfOrder { seq: event.seq, what: what.to_owned() };
        let Body::Proposed { plan: digest, by, severity, authority, automatic, answer_by, .. } = &event.body else {
            return Err(wrong("a run begins with a proposal"));
        };
        if plan.digest() != *digest {
            return Err(wrong("the plan given is not the one proposed"));
        }
        let id = event.run.clone().ok_or_else(|| wrong("a proposal without a run"))?;
        let steps = plan.steps.iter().map(|step| (step.id.clone(), StepState::Pending)).collect();
        Ok(Self {
            id,
            incident: event.incident.clone(),
            front: Front::of(&plan),
            plan,
            digest: *digest,
            by: by.clone(),
            severity: *severity,
            authority: authority.clone(),
            automatic: *automatic,
            answer_by: *answer_by,
            reminders: 0,
            state: if *automatic { RunState::Approved } else { RunState::Waiting },
            paused: false,
            steps,
            captures: BTreeMap::new(),
            obligations: BTreeMap::new(),
            approvals: vec![],
            consent: None,
            helped: None,
            lost: Loss::none(),
            proposed: event.at,
            started: None,
            restored: None,
            ended: None,
            seq: event.seq,
        })
    }

    /// A step of the plan, without looking through all of them.
    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.front.at.get(id).and_then(|n| self.plan.steps.get(*n))
    }

    /// Takes in an event of this run (events of other kinds are let pass).
    pub fn apply(&mut self, event: &Event) -> Result<(), OutOfOrder> {
        let wrong = |what: String| Err(OutOfOrder { seq: event.seq, what });
        match &event.body {
            Body::Answered { plan, by, answer, consent, .. } => {
                if *plan != self.digest {
                    return wrong("the answer is to another plan".into());
                }
                if self.state != RunState::Waiting && self.state != RunState::Approved {
                    return wrong(format!("an answer to a run that is {:?}", self.state));
                }
                match answer {
                    Answer::Approve => {
                        if !self.approvals.iter().any(|(who, _)| who == by) {
                            self.approvals.push((by.clone(), event.at));
                        }
                        self.consent = consent.clone().or(self.consent.take());
                        if self.approvals.len() >= self.authority.quorum.max(1) as usize {
                            self.state = RunState::Approved;
                        }
                    }
                    Answer::Decline => self.end(End::Declined, event.at),
                }
            }
            Body::Started => match self.state {
                RunState::Approved => {
                    self.state = RunState::Running;
                    self.started = Some(event.at);
                    self.inherit(event);
                }
                _ => return wrong(format!("a start of a run that is {:?}", self.state)),
            },
            Body::Held { step, found } => {
                self.move_step(event, step, |state, _| match state {
                    StepState::Pending | StepState::Failed { .. } => {
                        Some(StepState::Held { at: event.at, found: found.clone() })
                    }
                    _ => None,
                })?;
                self.pay(step, event.at);
            }
            Body::Intent { step, attempt, before } => {
                self.move_step(event, step, |state, _| match state {
                    StepState::Pending | StepState::Failed { .. } | StepState::InDoubt { .. } => {
                        Some(StepState::InDoubt {
                            attempt: *attempt,
                            since: match state {
                                StepState::InDoubt { since, .. } => *since,
                                _ => event.at,
                            },
                            before: before.clone(),
                            why: None,
                        })
                    }
                    _ => None,
                })?;
                self.owe(step, event);
            }
            Body::Acted { step, attempt, outcome } => {
                self.move_step(event, step, |state, _| match (state, outcome) {
                    (StepState::InDoubt { since, .. }, Outcome::Done(proof)) => Some(StepState::Done {
                        attempt: *attempt,
                        began: Some(*since),
                        at: event.at,
                        proof: proof.clone(),
                    }),
                    (StepState::InDoubt { since, .. }, Outcome::Failed(failure)) => Some(StepState::Failed {
                        attempt: *attempt,
                        first: *since,
                        at: event.at,
                        failure: failure.clone(),
                    }),
                    (StepState::InDoubt { since, before, .. }, Outcome::Unknown { why }) => Some(StepState::InDoubt {
                        attempt: *attempt,
                        since: *since,
                        before: before.clone(),
                        why: Some(why.clone()),
                    }),
                    _ => None,
                })?;
                if let Outcome::Done(proof) = outcome {
                    self.pay(step, event.at);
                    if let Some(lost) = &proof.lost {
                        self.lost = std::mem::take(&mut self.lost).and(lost.clone());
                    }
                }
            }
            Body::Verified { step, verdict } => {
                self.move_step(event, step, |state, step| match (state, verdict) {
                    (StepState::Done { .. } | StepState::Skipped { .. }, _) => None,
                    _ if step.acts() => None,
                    (_, Check::Pass { found }) => {
                        Some(StepState::Done { attempt: 1, began: None, at: event.at, proof: Proof::of(found.clone()) })
                    }
                    (_, Check::Fail { what }) => Some(failed(event.at, what.join("; "))),
                    (_, Check::Inconclusive { why }) => Some(failed(event.at, format!("inconclusive: {why}"))),
                })?;
                // Whoever ended or parked it first has the last word; a verdict that comes late does not bring it back.
                if let (Check::Inconclusive { why }, RunState::Running) = (verdict, &self.state) {
                    self.state =
                        RunState::Parked(ParkedWhy::Inconclusive { step: Some(step.clone()), why: why.clone() });
                }
            }
            Body::Captured { capture, step: Some(step), .. } => {
                // Written in the same transaction as the outcome of the step that made it, right before it.
                if !matches!(self.steps.get(step), Some(StepState::InDoubt { .. })) {
                    return wrong(format!("a capture by step `{step}`, which was not begun"));
                }
                self.captures.insert(step.clone(), capture.clone());
            }
            Body::Helped { verdict, compared } => self.helped = Some((verdict.clone(), compared.clone())),
            Body::Watching { until } => {
                self.restored = self.restored.or(Some(event.at));
                self.state = RunState::Watching { until: *until };
            }
            Body::Parked { why } => {
                if matches!(self.state, RunState::Ended(_)) {
                    return wrong("a run that has ended cannot be parked".into());
                }
                self.state = RunState::Parked(why.clone());
            }
            Body::Person { by, verb } => self.person(event, by, verb)?,
            Body::Noted { by: Actor::Policy, .. } if self.state == RunState::Waiting => self.reminders += 1,
            Body::Ended { end } => self.end(end.clone(), event.at),
            Body::Superseded { .. } => self.end(End::Superseded, event.at),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: End, at: Timestamp) {
        self.state = RunState::Ended(end);
        self.ended = Some(at);
    }

    fn move_step(
        &mut self,
        event: &Event,
        id: &StepId,
        to: impl FnOnce(&StepState, &Step) -> Option<StepState>,
    ) -> Result<(), OutOfOrder> {
        let wrong = |what: String| OutOfOrder { seq: event.seq, what };
        let step = self.front.at.get(id).and_then(|n| self.plan.steps.get(*n));
        let step = step.ok_or_else(|| wrong(format!("the plan has no step `{id}`")))?;
        let state = self.steps.get_mut(id).ok_or_else(|| wrong(format!("the plan has no step `{id}`")))?;
        match to(state, step) {
            Some(next) => {
                let settles = !state.settled(step) && next.settled(step);
                *state = next;
                if settles {
                    self.front.settle(id);
                }
                Ok(())
            }
            None => Err(wrong(format!("step `{id}` is {state:?}"))),
        }
    }

    /// Whatever is stopped or paused is owed from its intent on: from there it may be off.
    fn owe(&mut self, id: &StepId, event: &Event) {
        let Some(step) = self.step(id) else { return };
        let Some(place) = step.place.clone() else { return };
        let owed = match step.action {
            Action::Stop => format!("start `{place}`"),
            Action::Pause => format!("resume traffic at `{place}`"),
            _ => return,
        };
        if self.obligations.values().any(|o| o.place == place && o.state == Owed::Open) {
            return;
        }
        let id = ObligationId::at(event.seq);
        self.obligations.insert(id.clone(), Obligation { id, place, owed, since: event.at, state: Owed::Open });
    }

    /// What the plan switches on without having switched it off stands still already: from now on this run owes it.
    fn inherit(&mut self, event: &Event) {
        let off: BTreeSet<&Place> = self
            .plan
            .steps
            .iter()
            .filter(|step| matches!(step.action, Action::Stop | Action::Pause))
            .filter_map(|step| step.place.as_ref())
            .collect();
        let mut inherited = vec![];
        for step in &self.plan.steps {
            let owed = match (&step.action, &step.place) {
                (Action::Start, Some(place)) if !off.contains(place) => (place.clone(), format!("start `{place}`")),
                (Action::Resume, Some(place)) if !off.contains(place) => {
                    (place.clone(), format!("resume traffic at `{place}`"))
                }
                _ => continue,
            };
            inherited.push(owed);
        }
        for (n, (place, owed)) in inherited.into_iter().enumerate() {
            let id = ObligationId::typed(&format!("{}-{}", ObligationId::at(event.seq), n + 1));
            self.obligations.insert(id.clone(), Obligation { id, place, owed, since: event.at, state: Owed::Open });
        }
    }

    fn pay(&mut self, id: &StepId, at: Timestamp) {
        let Some(step) = self.step(id) else { return };
        if !matches!(step.action, Action::Start | Action::Resume) {
            return;
        }
        let place = step.place.clone();
        for obligation in self.obligations.values_mut() {
            if Some(&obligation.place) == place.as_ref() && obligation.state == Owed::Open {
                obligation.state = Owed::Paid { at };
            }
        }
    }

    fn person(&mut self, event: &Event, by: &Actor, verb: &Verb) -> Result<(), OutOfOrder> {
        let wrong = |what: String| Err(OutOfOrder { seq: event.seq, what });
        match verb {
            Verb::Pause => self.paused = true,
            Verb::Resume => self.paused = false,
            Verb::Retry { step } => {
                for id in self.front.open.clone() {
                    let named = step.as_ref().is_none_or(|step| *step == id);
                    if let Some(state @ StepState::Failed { .. }) = self.steps.get_mut(&id).filter(|_| named) {
                        *state = StepState::Pending;
                    }
                }
                self.unpark();
            }
            Verb::Skip { step, reason } => {
                self.move_step(event, step, |state, _| match state {
                    StepState::Done { .. } | StepState::Held { .. } | StepState::Skipped { .. } => None,
                    _ => Some(StepState::Skipped { by: by.clone(), reason: reason.clone() }),
                })?;
                self.unpark();
            }
            Verb::Done { step, evidence } => {
                let proof = Proof::of(format!("{by} says: {evidence}"));
                self.move_step(event, step, |state, _| match state {
                    StepState::Done { .. } | StepState::Held { .. } => None,
                    _ => Some(StepState::Done { attempt: 0, began: None, at: event.at, proof }),
                })?;
                self.pay(step, event.at);
                self.unpark();
            }
            Verb::Abandon { .. } => {
                let open = self.open_obligations().map(|o| o.id.clone()).collect();
                self.end(End::Abandoned { by: by.clone(), open }, event.at);
            }
            Verb::Take { obligation, reason } => match self.obligations.get_mut(obligation) {
                Some(owed) => owed.state = Owed::Taken { by: by.clone(), reason: reason.clone() },
                None => return wrong(format!("there is no obligation `{obligation}`")),
            },
        }
        Ok(())
    }

    fn unpark(&mut self) {
        if matches!(self.state, RunState::Parked(_)) {
            self.state = RunState::Running;
        }
    }

    pub fn open_obligations(&self) -> impl Iterator<Item = &Obligation> {
        self.obligations.values().filter(|o| o.state == Owed::Open)
    }

    pub fn is_ended(&self) -> bool {
        matches!(self.state, RunState::Ended(_))
    }

    /// Every choice there is, given the time and what is in flight in this process.
    ///
    /// A step in doubt that is not in flight was left behind by somebody who died: it is resolved before anything new begins.
    pub fn next(&self, now: Timestamp, in_flight: &BTreeSet<StepId>) -> Vec<Next> {
        match &self.state {
            RunState::Running if self.paused => vec![],
            RunState::Running => self.next_running(now, in_flight),
            RunState::Watching { until } if now >= *until => vec![Next::Succeed],
            RunState::Watching { until } => vec![Next::WaitUntil(*until)],
            RunState::Waiting | RunState::Approved | RunState::Parked(_) | RunState::Ended(_) => vec![],
        }
    }

    /// The step that begins as soon as `done` is on record as done, where that is plain: one step waits for it and for nothing else,
    /// and nothing has failed or was left behind, which would come first.
    pub fn follower(&self, done: &StepId, in_flight: &BTreeSet<StepId>) -> Option<&Step> {
        if self.state != RunState::Running || self.paused {
            return None;
        }
        let plain = |id: &StepId| self.steps.get(id) == Some(&StepState::Pending) || in_flight.contains(id);
        if !self.front.open.iter().all(|id| id == done || plain(id)) {
            return None;
        }
        let mut freed = self.front.waiting.get(done)?.iter().filter(|id| self.front.blocked.get(*id) == Some(&1));
        let (Some(only), None) = (freed.next(), freed.next()) else { return None };
        self.step(only).filter(|step| self.steps.get(&step.id) == Some(&StepState::Pending))
    }

    fn next_running(&self, now: Timestamp, in_flight: &BTreeSet<StepId>) -> Vec<Next> {
        if self.front.unsettled == 0 {
            return vec![Next::Restored];
        }
        let mut open: Vec<(&Step, &StepState)> = self
            .front
            .open
            .iter()
            .filter(|id| !in_flight.contains(*id))
            .filter_map(|id| Some((self.plan.steps.get(*self.front.at.get(id)?)?, self.steps.get(id)?)))
            .collect();
        // Where not all can begin at once, what others wait for goes first.
        open.sort_by_key(|(step, _)| step.phase);
        let left_behind: Vec<Next> = open
            .iter()
            .filter_map(|(step, state)| match state {
                StepState::InDoubt { attempt, before, .. } => {
                    Some(Next::Resolve { step: step.id.clone(), attempt: *attempt, before: before.clone() })
                }
                _ => None,
            })
            .collect();
        if !left_behind.is_empty() {
            return left_behind;
        }
        let mut next = vec![];
        let mut wait: Option<Timestamp> = None;
        for (step, state) in open {
            match state {
                StepState::Failed { attempt, first, at, failure } => {
                    match try_again(step, *attempt, *first, *at, failure, now) {
                        Some(when) if when <= now => {
                            next.push(Next::Begin { step: step.id.clone(), attempt: attempt + 1 })
                        }
                        Some(when) => wait = Some(wait.map_or(when, |w| w.min(when))),
                        // What is in flight is let finish first; its outcome belongs on the record before people are called.
                        None if !in_flight.is_empty() => return vec![],
                        None if step.phase == Phase::VerifyOpen => {
                            return vec![Next::Insufficient { why: format!("`{}`: {}", step.id, failure.what) }];
                        }
                        None => {
                            let (what, advice) = (failure.what.clone(), failure.advice.clone());
                            return vec![Next::Park(ParkedWhy::Failed { step: step.id.clone(), what, advice })];
                        }
                    }
                }
                StepState::Pending => next.push(Next::Begin { step: step.id.clone(), attempt: 1 }),
                _ => {}
            }
        }
        next.extend(wait.map(Next::WaitUntil));
        next
    }
}

fn failed(at: Timestamp, what: String) -> StepState {
    StepState::Failed { attempt: 1, first: at, at, failure: Failure::never(what) }
}

/// When a failed step is tried again, if ever: with a back-off that starts small, within its tries and its total time.
fn try_again(
    step: &Step,
    attempt: u32,
    first: Timestamp,
    at: Timestamp,
    failure: &Failure,
    now: Timestamp,
) -> Option<Timestamp> {
    if failure.retry == Retry::Never || attempt >= step.limits.tries {
        return None;
    }
    // A failure in the future: the clock was set back, and what it says of waiting is worth nothing. The tries still bound it.
    if at > now {
        return Some(now);
    }
    let wait = Duration::from_millis(200).saturating_mul(1 << attempt.min(8));
    let when = crate::after(at, wait);
    (crate::between(first, when) <= step.limits.total).then_some(when)
}
