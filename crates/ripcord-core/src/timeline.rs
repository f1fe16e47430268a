//! What happened when, and how long each part of an incident took.
//!
//! Told for whoever reads it at night and was not there: one line each, in words, with what is behind it below. A step is told
//! once, when its outcome is known; begun alone it is told only where no outcome is on record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Answer, Authority, Body, CapturePurpose, Check, Compared, Consent, Decision, Digest, End, Event, Failure, Incident,
    Loss, Made, Means, Outcome, ParkedWhy, Plan, Proof, ProofLevel, Purpose, Release, ReleaseId, RunId, Standing, Step,
    StepId, TriggerId, TriggerState, Verb, Verdict, between, human,
};

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
    /// When the release that was live went out.
    pub released: Option<Timestamp>,
    /// The first bad sample of the trigger that breached first.
    pub onset: Option<Timestamp>,
    /// When it breached; where no trigger did, when a person said so.
    pub detected: Option<Timestamp>,
    pub declared: Option<Timestamp>,
    pub decided: Option<Timestamp>,
    /// The last approval before the run that restored began; none where none was needed.
    pub approved: Option<Timestamp>,
    pub started: Option<Timestamp>,
    /// The last effect of the run that restored: from there on everything was as it had been.
    pub restored: Option<Timestamp>,
    /// When the breached signals were seen to be back; where there was none to compare, the last check passed.
    pub verified: Option<Timestamp>,
    pub closed: Option<Timestamp>,
    /// From the first stop or pause of a run to its last start or resume, over all runs.
    #[serde(with = "crate::ms_option", rename = "downtime_ms")]
    pub downtime: Option<Duration>,
}

impl Times {
    /// From the first bad sample to the breach.
    pub fn to_detect(&self) -> Option<Duration> {
        span(self.onset, self.detected)
    }

    /// From the breach to the decision.
    pub fn to_decide(&self) -> Option<Duration> {
        span(self.detected, self.decided)
    }

    /// From the decision, people's answer included, to everything restored.
    pub fn to_restore(&self) -> Option<Duration> {
        span(self.decided.or(self.started), self.restored)
    }

    /// From everything restored to its being shown to have helped.
    pub fn to_verify(&self) -> Option<Duration> {
        span(self.restored, self.verified)
    }

    /// From the first bad sample to everything restored: what the users had of it.
    pub fn to_recover(&self) -> Option<Duration> {
        span(self.onset.or(self.detected), self.restored)
    }
}

fn span(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<Duration> {
    Some(between(from?, to?))
}

/// Measures the events of one incident, or of one run, in their order.
///
/// A run found insufficient restored nothing that helped: what counts is the last that came so far.
pub fn times(events: &[Event]) -> Times {
    let mut times = Times::default();
    let mut releases: Vec<&Release> = vec![];
    let mut live: Option<&ReleaseId> = None;
    let mut off: BTreeMap<&RunId, (Timestamp, Option<Timestamp>)> = BTreeMap::new();
    let mut effect: Option<Timestamp> = None;
    let mut passed: Option<Timestamp> = None;
    for event in events {
        let at = event.at;
        match &event.body {
            Body::Changed { state: TriggerState::Breached { since }, .. } if times.onset.is_none() => {
                times.onset = Some(*since);
                times.detected = Some(at);
            }
            Body::Opened { incident } => {
                times.declared = times.declared.or(Some(at));
                times.detected = times.detected.or(Some(at));
                live = live.or(incident.release.as_ref());
            }
            Body::Closed { .. } => times.closed = Some(at),
            Body::Decided { .. } => times.decided = times.decided.or(Some(at)),
            Body::Recorded { release } => releases.push(release),
            Body::Proposed { .. } => (effect, passed, times.approved) = (None, None, None),
            Body::Answered { answer: Answer::Approve, .. } => times.approved = Some(at),
            Body::Started => {
                times.started = Some(at);
                (times.restored, times.verified) = (None, None);
            }
            Body::Intent { step, .. } if matches!(verb(step), "stop" | "pause") => {
                if let Some(run) = &event.run {
                    off.entry(run).or_insert((at, None));
                }
            }
            Body::Acted { step, outcome: Outcome::Done(_), .. } if !matches!(verb(step), "capture" | "evidence") => {
                effect = Some(at);
                let on = event.run.as_ref().and_then(|run| off.get_mut(run));
                if let Some((_, on)) = on.filter(|_| matches!(verb(step), "start" | "resume")) {
                    *on = Some(at);
                }
            }
            Body::Verified { verdict: Check::Pass { .. }, .. } => passed = Some(at),
            Body::Helped { verdict, .. } => {
                times.restored = effect.or(Some(at)).filter(|_| !matches!(verdict, Check::Fail { .. }));
                times.verified = matches!(verdict, Check::Pass { .. }).then_some(at);
            }
            Body::Watching { .. } => {
                times.restored = times.restored.or(effect).or(Some(at));
                times.verified = times.verified.or(passed);
            }
            _ => {}
        }
    }
    times.released = released(&releases, live, times.detected.or(times.started));
    let lengths: Vec<Duration> = off.values().filter_map(|(from, to)| Some(between(*from, (*to)?))).collect();
    times.downtime = (!lengths.is_empty()).then(|| lengths.iter().sum());
    times
}

/// When the release that was live went out: the one the incident names, else the last one before it was noticed.
fn released(releases: &[&Release], live: Option<&ReleaseId>, noticed: Option<Timestamp>) -> Option<Timestamp> {
    let named = releases.iter().rev().find(|release| Some(&release.id) == live);
    let before = || releases.iter().rev().find(|release| noticed.is_none_or(|noticed| release.at <= noticed));
    named.or_else(before).map(|release| release.at)
}

/// What a step does, which its identity begins with.
fn verb(step: &StepId) -> &str {
    step.0.split('/').next().unwrap_or_default()
}

/// Tells events of one incident, or of one run, in their order. `plans` finds the plans that runs were made for; without one a
/// step is told by its identity.
pub fn moments(events: &[Event], plans: &dyn Fn(&Digest) -> Option<Plan>) -> Vec<Moment> {
    let mut teller = Teller {
        plans,
        runs: BTreeMap::new(),
        versions: BTreeMap::new(),
        outcomes: outcomes(events),
        begun: BTreeMap::new(),
    };
    events.iter().filter_map(|event| teller.tell(event)).collect()
}

/// The attempts whose outcome is on record.
fn outcomes(events: &[Event]) -> BTreeSet<Attempt> {
    let of = |event: &Event| match &event.body {
        Body::Acted { step, attempt, .. } => Some((event.run.clone(), step.clone(), *attempt)),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

type Attempt = (Option<RunId>, StepId, u32);

fn checked(what: &str, verdict: &Check) -> String {
    match verdict {
        Check::Pass { found } => format!("passed: {what}: {found}"),
        Check::Fail { what: wrong } => format!("failed: {what}: {}", wrong.join("; ")),
        Check::Inconclusive { why } => format!("inconclusive: {what}: {why}"),
    }
}

struct Teller<'a> {
    plans: &'a dyn Fn(&Digest) -> Option<Plan>,
    runs: BTreeMap<RunId, Plan>,
    versions: BTreeMap<ReleaseId, String>,
    outcomes: BTreeSet<Attempt>,
    begun: BTreeMap<Attempt, Timestamp>,
}

impl Teller<'_> {
    fn tell(&mut self, event: &Event) -> Option<Moment> {
        let run = event.run.as_ref().map_or("the run".to_owned(), ToString::to_string);
        let mut detail = vec![];
        let what = match &event.body {
            Body::Changed { trigger, state, value, n, baseline, .. } => {
                detail.extend(measured(*value, *n, *baseline));
                changed(trigger, state, event.at)
            }
            Body::Opened { incident } => opened(incident),
            Body::Joined { trigger, severity } => format!("`{trigger}` joined the incident, as {severity}"),
            Body::Reported { by, what, severity, issue } => {
                detail.extend(issue.as_ref().map(|issue| format!("as `{issue}`")));
                format!("{by} reported, as {severity}: {what}")
            }
            Body::Closed { by, why } => format!("incident closed by {by}: {why}"),
            Body::Decided { decision } => {
                detail = decision.reasons.clone();
                decided(decision)
            }
            Body::Recorded { release } => {
                self.versions.insert(release.id.clone(), release.version.clone());
                format!("{} recorded as {}, {}", release.version, release.id, standing(&release.standing))
            }
            Body::Judged { release, verdict } => format!("{} {}", self.version(release), judged(verdict)),
            Body::Stands { release, standing: stands } => format!("{} is {}", self.version(release), standing(stands)),
            Body::Quarantined { quarantine } => {
                format!("{} quarantined, nobody can deploy it: {}", quarantine.version, quarantine.why)
            }
            Body::Lifted { version, by, why } => format!("{by} lifted the quarantine of {version}: {why}"),
            Body::Baseline { release, figures } => {
                let figure = |(signal, of): (&crate::SignalId, &crate::Baseline)| {
                    format!("{signal}: {} (median of {} samples)", of.value, of.samples)
                };
                detail.extend(figures.iter().map(figure));
                format!("what is normal was measured before {}", self.version(release))
            }
            Body::Baking { release, until } => format!("{} bakes until {until}", self.version(release)),
            Body::Captured { capture, of, purpose, made, .. } => {
                format!("{} of {of} captured as {capture}: {}", purpose_of(*purpose), made_of(made))
            }
            Body::Proven { capture, level } => format!("{capture} {}", proven(*level)),
            Body::Spoiled { capture, why } => format!("{capture} cannot be relied on any more: {why}"),
            Body::Pruned { capture } => format!("{capture} pruned"),
            Body::Proposed { plan, purpose, by, authority, automatic, answer_by, .. } => {
                if let (Some(run), Some(plan)) = (&event.run, (self.plans)(plan)) {
                    detail.extend(
                        plan.left_alone.iter().map(|left| format!("{} left alone: {}", left.component, left.why)),
                    );
                    let at = |places: Vec<&crate::Place>| {
                        places.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                    };
                    let back = plan.undone_by().into_iter();
                    detail.extend(back.map(|(what, places)| format!("would undo it at {}: {what}", at(places))));
                    detail.extend(loss(&plan.loss_at_most).map(|loss| format!("loses at most {loss}")));
                    self.runs.insert(run.clone(), plan);
                }
                detail.push(asked(authority, *automatic, *answer_by));
                format!("{run} proposed by {by}: {}", self.aim(event, purpose))
            }
            Body::Answered { by, answer, reason, consent, .. } => {
                detail.extend(reason.clone());
                detail.extend(consent.as_ref().and_then(agreed));
                match answer {
                    Answer::Approve => format!("{run} approved by {by}"),
                    Answer::Decline => format!("{run} declined by {by}"),
                }
            }
            Body::Superseded { why, .. } => format!("{run} superseded by another plan: {why}"),
            Body::Started => format!("{run} began"),
            Body::Held { step, found } => format!("nothing to do: {}: {found}", self.step(event, step)),
            Body::Intent { step, attempt, .. } => {
                let attempt = (event.run.clone(), step.clone(), *attempt);
                self.begun.insert(attempt.clone(), event.at);
                if self.outcomes.contains(&attempt) {
                    return None;
                }
                format!("begun, and no outcome on record: {}", self.step(event, step))
            }
            Body::Acted { step, attempt, outcome } => {
                let began = self.begun.get(&(event.run.clone(), step.clone(), *attempt));
                let took = began.map(|began| format!(" ({})", human(between(*began, event.at)))).unwrap_or_default();
                let tries = if *attempt > 1 { format!(", at try {attempt}") } else { String::new() };
                let step = self.step(event, step);
                match outcome {
                    Outcome::Done(proof) => {
                        detail = proof_of(proof);
                        format!("done{tries}: {step}{took}")
                    }
                    Outcome::Failed(failure) => {
                        detail = advice(failure);
                        format!("failed{tries}: {step}{took}: {}", failure.what)
                    }
                    Outcome::Unknown { why } => format!("outcome unknown{tries}: {step}{took}: {why}"),
                }
            }
            Body::Verified { step, verdict } => {
                let step = self.step(event, step);
                checked(&step, verdict)
            }
            Body::Checked { check, verdict, .. } => checked(&format!("`{check}`"), verdict),
            Body::Helped { verdict, compared } => {
                detail.extend(compared.iter().map(comparison));
                match verdict {
                    Check::Pass { found } => format!("it helped: {found}"),
                    Check::Fail { what } => format!("it did not help: {}", what.join("; ")),
                    Check::Inconclusive { why } => format!("whether it helped cannot be told: {why}"),
                }
            }
            Body::Watching { until } => format!("everything restored; watched until {until}"),
            Body::Parked { why } => {
                detail.extend(parked_advice(why));
                format!("{run} stopped, and people called: {}", self.parked(event, why))
            }
            Body::Person { by, verb } => format!("{by} {}", self.person(event, &run, verb)),
            Body::Overran { what, budget } => format!("{what} takes longer than its {}", human(*budget)),
            Body::Ended { end } => {
                if let End::Abandoned { open, .. } = end {
                    detail.extend(open.iter().map(|open| format!("still off: {open}")));
                }
                format!("{run} ended: {}", ended(end))
            }
            Body::Told { message, channel, delivered, why } => {
                detail.extend(why.clone());
                match delivered {
                    true => format!("told `{channel}`: {message}"),
                    false => format!("could not tell `{channel}`: {message}"),
                }
            }
            Body::Noted { by, text } => format!("{by}: {text}"),
        };
        Some(Moment { at: event.at, what, detail })
    }

    fn version(&self, release: &ReleaseId) -> String {
        self.versions.get(release).cloned().unwrap_or_else(|| release.to_string())
    }

    fn plan(&self, event: &Event) -> Option<&Plan> {
        event.run.as_ref().and_then(|run| self.runs.get(run))
    }

    fn step(&self, event: &Event, id: &StepId) -> String {
        match self.plan(event).and_then(|plan| plan.step(id)) {
            Some(Step { shown, .. }) if !shown.words.is_empty() => shown.words.clone(),
            _ => id.to_string(),
        }
    }

    fn aim(&self, event: &Event, purpose: &Purpose) -> String {
        let aim = purpose_words(purpose);
        let Some(plan) = self.plan(event) else { return aim };
        let to = match (&plan.to_version, &plan.rung.means) {
            (_, Means::Set { .. }) => " by toggles alone".to_owned(),
            (Some(version), Means::Restore { .. }) => format!(" to {version}"),
            (None, Means::Restore { .. }) => String::new(),
        };
        format!("{aim}{to}, level {} `{}`", plan.rung.level, plan.rung.name)
    }

    fn parked(&self, event: &Event, why: &ParkedWhy) -> String {
        match why {
            ParkedWhy::Failed { step, what, .. } => format!("{} failed: {what}", self.step(event, step)),
            ParkedWhy::InDoubt { step, found } => {
                format!("what became of `{}` cannot be found out: {found}", self.step(event, step))
            }
            ParkedWhy::Inconclusive { step: Some(step), why } => {
                format!("{} came to no verdict: {why}", self.step(event, step))
            }
            ParkedWhy::Inconclusive { step: None, why } => format!("no verdict: {why}"),
            ParkedWhy::Insufficient { why } => format!("all is done and the symptom remains: {why}"),
            ParkedWhy::HalfWay { what } => format!("all is done and the release is not all there: {}", what.join("; ")),
            ParkedWhy::OtherAdapter { step, written_by, have } => {
                format!("{} was written by {written_by}, and here is {have}", self.step(event, step))
            }
        }
    }

    fn person(&self, event: &Event, run: &str, verb: &Verb) -> String {
        match verb {
            Verb::Pause => format!("paused {run}"),
            Verb::Resume => format!("let {run} go on"),
            Verb::Retry { step: Some(step) } => format!("has it tried again: {}", self.step(event, step)),
            Verb::Retry { step: None } => "has everything that failed tried again".to_owned(),
            Verb::Skip { step, reason } => format!("skipped {}: {reason}", self.step(event, step)),
            Verb::Done { step, evidence } => format!("says it is done: {}: {evidence}", self.step(event, step)),
            Verb::Abandon { reason } => format!("abandoned {run}: {reason}"),
            Verb::Take { obligation, reason } => format!("took {obligation} over: {reason}"),
        }
    }
}

fn changed(trigger: &TriggerId, state: &TriggerState, at: Timestamp) -> String {
    match state {
        TriggerState::Ok => format!("`{trigger}` is ok"),
        TriggerState::Pending { .. } => format!("`{trigger}` turned bad"),
        TriggerState::Breached { since } => format!("`{trigger}` breached, bad for {}", human(between(*since, at))),
        TriggerState::Recovering { .. } => format!("`{trigger}` is recovering"),
        TriggerState::NoData { since } => format!("`{trigger}` has had no data for {}", human(between(*since, at))),
        TriggerState::Error { why, .. } => format!("`{trigger}` cannot be judged: {why}"),
    }
}

fn measured(value: Option<f64>, n: Option<f64>, baseline: Option<f64>) -> Option<String> {
    let n = n.map(|n| format!(", over {n}")).unwrap_or_default();
    let baseline = baseline.map(|baseline| format!(", where {baseline} is normal")).unwrap_or_default();
    Some(format!("value {}{n}{baseline}", value?))
}

fn opened(incident: &Incident) -> String {
    let Incident { id, severity, what, by, .. } = incident;
    format!("incident {id} opened by {by}, {severity}: {what}")
}

fn decided(decision: &Decision) -> String {
    let Decision { call, severity, automatic, act_by, .. } = decision;
    let how = if *automatic { ", without asking" } else { "" };
    let by = act_by.map(|by| format!(", by {by}")).unwrap_or_default();
    format!("decided as {severity}: {call}{how}{by}")
}

fn standing(standing: &Standing) -> String {
    match standing {
        Standing::Deploying => "being deployed".to_owned(),
        Standing::Live => "live".to_owned(),
        Standing::Superseded => "superseded".to_owned(),
        Standing::RolledBack { by } => format!("rolled back by {by}"),
        Standing::Interrupted => "interrupted: what is out there was never verified".to_owned(),
    }
}

fn judged(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Undecided => "is not judged yet".to_owned(),
        Verdict::Good { by, .. } => format!("judged good by {by}"),
        Verdict::Bad { why, .. } => format!("judged bad: {why}"),
    }
}

fn purpose_of(purpose: CapturePurpose) -> &'static str {
    match purpose {
        CapturePurpose::Protective => "present state",
        CapturePurpose::Evidence => "evidence",
    }
}

fn made_of(made: &Made) -> String {
    format!(
        "{}, {} bytes, {}",
        made.label.clone().unwrap_or_else(|| made.revision.short()),
        made.bytes,
        proven(made.proof)
    )
}

fn proven(level: ProofLevel) -> &'static str {
    match level {
        ProofLevel::Written => "written, not yet read back",
        ProofLevel::ReadBack => "read back and compared",
        ProofLevel::Restored => "restored on trial",
        ProofLevel::Drilled => "proven in a drill",
    }
}

fn purpose_words(purpose: &Purpose) -> String {
    match purpose {
        Purpose::Deploy => "deploy".to_owned(),
        Purpose::Rollback => "roll back".to_owned(),
        Purpose::Undo { of } => format!("undo {of}"),
        Purpose::Drill { of } => format!("drill: {}", purpose_words(of)),
    }
}

fn asked(authority: &Authority, automatic: bool, answer_by: Option<Timestamp>) -> String {
    if automatic {
        return "goes ahead without an answer".to_owned();
    }
    let roles: Vec<String> = authority.roles.iter().map(ToString::to_string).collect();
    let whom = if roles.is_empty() { "a person".to_owned() } else { roles.join(" or ") };
    let many = if authority.quorum > 1 { format!("{} of ", authority.quorum) } else { String::new() };
    let by = answer_by.map(|by| format!(", by {by}")).unwrap_or_default();
    format!("waits for {many}{whom}{by}")
}

fn loss(loss: &Loss) -> Option<String> {
    let rows = match loss.total_rows() {
        0 => None,
        1 => Some("1 row".to_owned()),
        n => Some(format!("{n} rows")),
    };
    let since = loss.since.map(|since| format!("changes since {since}"));
    let all: Vec<String> = rows.into_iter().chain(since).chain(loss.other.iter().cloned()).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn agreed(consent: &Consent) -> Option<String> {
    loss(&consent.loss).map(|loss| format!("agreed to lose at most {loss}"))
}

fn proof_of(proof: &Proof) -> Vec<String> {
    let found = Some(proof.found.clone()).filter(|found| !found.is_empty());
    let aside = proof.set_aside.iter().map(|aside| format!("set aside: {aside}"));
    let lost = proof.lost.as_ref().and_then(loss).map(|loss| format!("lost: {loss}"));
    found.into_iter().chain(aside).chain(lost).collect()
}

fn advice(failure: &Failure) -> Vec<String> {
    failure.advice.iter().map(|advice| format!("what to do: {advice}")).collect()
}

/// What a person does about a release that is not all there.
pub const HALF_WAY: &str =
    "find out what else changes it, have it stop, put back what it changed, and have the run look again";

fn parked_advice(why: &ParkedWhy) -> Option<String> {
    match why {
        ParkedWhy::Failed { advice, .. } => advice.as_ref().map(|advice| format!("what to do: {advice}")),
        ParkedWhy::HalfWay { .. } => Some(format!("what to do: {HALF_WAY}")),
        ParkedWhy::InDoubt { .. }
        | ParkedWhy::Inconclusive { .. }
        | ParkedWhy::Insufficient { .. }
        | ParkedWhy::OtherAdapter { .. } => None,
    }
}

fn comparison(compared: &Compared) -> String {
    let figure = |figure: Option<f64>| figure.map_or("no data".to_owned(), |figure| figure.to_string());
    let Compared { trigger, baseline, breached_at, now, recovered } = compared;
    let so = if *recovered { "recovered" } else { "not recovered" };
    format!(
        "`{trigger}` {so}: {} now, {} when it breached, {} before",
        figure(*now),
        figure(*breached_at),
        figure(*baseline)
    )
}

fn ended(end: &End) -> String {
    match end {
        End::Succeeded => "succeeded".to_owned(),
        End::Insufficient => "insufficient: all is done and consistent, and the symptom remains".to_owned(),
        End::Declined => "declined, nothing was done".to_owned(),
        End::Expired => "nobody answered in time, nothing was done".to_owned(),
        End::Superseded => "superseded by another plan".to_owned(),
        End::Abandoned { by, .. } => format!("abandoned by {by}"),
    }
}
