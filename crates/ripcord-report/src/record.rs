//! What a document is written from: the record of one run and its incident, and how things are found in it.
//!
//! Whoever builds a [`Record`] may hand over more events than belong to the run (a whole journal): what is not about this run, its
//! incident, that incident's triggers or the release it was against is passed over here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    AppId, Body, CaptureRow, Decision, Digest, Event, Evidence, IncidentId, Ledger, Owed, Release, Run, RunState,
    Severity, StepId, StepState, Times, TriggerId, TriggerState,
};

/// One run as it is on the record, with everything around it that a document tells.
pub struct Record<'a> {
    pub app: &'a AppId,
    /// In the order of the journal: those of the run and of its incident, trigger changes, and releases.
    pub events: &'a [Event],
    pub run: &'a Run,
    pub ledger: &'a Ledger,
    pub captures: &'a [CaptureRow],
    /// The stored evidence of a verdict, where the record still has it.
    pub evidence: &'a dyn Fn(&Digest) -> Option<Evidence>,
    pub generated: Timestamp,
}

/// The incident of a run, as far as it is told by events.
pub(crate) struct Happened<'a> {
    pub(crate) id: &'a IncidentId,
    pub(crate) opened: Option<Timestamp>,
    pub(crate) what: Option<&'a str>,
    pub(crate) severity: Option<Severity>,
    pub(crate) triggers: BTreeSet<&'a TriggerId>,
    pub(crate) closed: Option<Timestamp>,
}

/// A trigger that breached: the event that says so.
pub(crate) struct Breach<'a> {
    pub(crate) trigger: &'a TriggerId,
    pub(crate) at: Timestamp,
    pub(crate) since: Timestamp,
    pub(crate) value: Option<f64>,
    pub(crate) n: Option<f64>,
    pub(crate) baseline: Option<f64>,
    pub(crate) evidence: Digest,
}

impl<'a> Record<'a> {
    /// The events of this run, the proposal first.
    pub(crate) fn of_run(&self) -> impl Iterator<Item = &'a Event> + use<'a> {
        let run = self.run;
        self.events.iter().filter(move |event| event.run.as_ref() == Some(&run.id))
    }

    fn of_incident(&self) -> impl Iterator<Item = &'a Event> + use<'a> {
        let incident = self.run.incident.as_ref();
        self.events.iter().filter(move |event| incident.is_some() && event.incident.as_ref() == incident)
    }

    pub(crate) fn incident(&self) -> Option<Happened<'a>> {
        let id = self.run.incident.as_ref()?;
        let mut found =
            Happened { id, opened: None, what: None, severity: None, triggers: BTreeSet::new(), closed: None };
        for event in self.events {
            match &event.body {
                Body::Opened { incident } if incident.id == *id => {
                    found.opened = Some(incident.opened);
                    found.what = Some(&incident.what);
                    found.severity = Some(incident.severity);
                    found.triggers.extend(&incident.triggers);
                }
                Body::Joined { trigger, severity } if event.incident.as_ref() == Some(id) => {
                    found.severity = Some(found.severity.map_or(*severity, |worst| worst.min(*severity)));
                    found.triggers.insert(trigger);
                }
                Body::Reported { severity, .. } if event.incident.as_ref() == Some(id) => {
                    found.severity = Some(found.severity.map_or(*severity, |worst| worst.min(*severity)));
                }
                Body::Closed { .. } if event.incident.as_ref() == Some(id) => found.closed = Some(event.at),
                _ => {}
            }
        }
        Some(found)
    }

    /// The decision this run acts on: the last one before it was proposed.
    pub(crate) fn decision(&self) -> Option<(Timestamp, &'a Decision)> {
        let proposed = self.proposal().map_or(self.run.seq, |event| event.seq);
        let before = self.of_incident().take_while(move |event| event.seq <= proposed);
        before
            .filter_map(|event| match &event.body {
                Body::Decided { decision } => Some((event.at, &**decision)),
                _ => None,
            })
            .last()
    }

    pub(crate) fn proposal(&self) -> Option<&'a Event> {
        self.of_run().find(|event| matches!(event.body, Body::Proposed { .. }))
    }

    /// Every trigger of the incident, with its first breach after the release it was against.
    pub(crate) fn breaches(&self) -> Vec<Breach<'a>> {
        let Some(incident) = self.incident() else { return vec![] };
        let mut first: BTreeMap<&TriggerId, Breach<'a>> = BTreeMap::new();
        for event in self.events.iter().filter(|event| self.in_time(event.at, &incident)) {
            let Body::Changed { trigger, state: TriggerState::Breached { since }, value, n, baseline, evidence } =
                &event.body
            else {
                continue;
            };
            if incident.triggers.contains(trigger) {
                first.entry(trigger).or_insert(Breach {
                    trigger,
                    at: event.at,
                    since: *since,
                    value: *value,
                    n: *n,
                    baseline: *baseline,
                    evidence: *evidence,
                });
            }
        }
        let mut breaches: Vec<_> = first.into_values().collect();
        breaches.sort_by_key(|breach| breach.at);
        breaches
    }

    /// A trigger breaches more than once in its life: only what came between the release and the end of the incident belongs here.
    pub(crate) fn in_time(&self, at: Timestamp, incident: &Happened<'_>) -> bool {
        self.from().is_none_or(|release| at >= release.at) && incident.closed.is_none_or(|closed| at <= closed)
    }

    /// The release that was taken back.
    pub(crate) fn from(&self) -> Option<&'a Release> {
        self.run.plan.from.as_ref().and_then(|id| self.ledger.find(id))
    }

    /// The release gone to.
    pub(crate) fn to(&self) -> Option<&'a Release> {
        self.run.plan.to.as_ref().and_then(|id| self.ledger.find(id))
    }

    /// The other runs of the incident, in order: what was tried before and after.
    pub(crate) fn other_runs(&self) -> Vec<&'a Event> {
        let other = |event: &&Event| event.run.as_ref() != Some(&self.run.id);
        self.of_incident().filter(other).filter(|event| matches!(event.body, Body::Proposed { .. })).collect()
    }

    /// Whether anything may have been changed by this run.
    pub(crate) fn acted(&self) -> bool {
        let acts = |step: &StepId| self.run.plan.step(step).is_none_or(ripcord_core::Step::acts);
        self.of_run().any(|event| matches!(&event.body, Body::Intent { step, .. } if acts(step)))
    }

    /// When the last step that changes the world was settled, once all are.
    pub(crate) fn last_effect(&self) -> Option<Timestamp> {
        let settled = |step: &StepId| match self.run.steps.get(step)? {
            StepState::Done { at, .. } | StepState::Held { at, .. } => Some(Some(*at)),
            StepState::Skipped { .. } => Some(None),
            StepState::Pending | StepState::InDoubt { .. } | StepState::Failed { .. } => None,
        };
        let acting = self.run.plan.steps.iter().filter(|step| step.acts());
        acting.map(|step| settled(&step.id)).collect::<Option<Vec<_>>>()?.into_iter().flatten().max()
    }

    /// From the first thing switched off to the last one on again; unknown while one is still off, nothing where none was.
    pub(crate) fn downtime(&self) -> Option<Duration> {
        let mut ended = vec![];
        for obligation in self.run.obligations.values() {
            match obligation.state {
                Owed::Paid { at } => ended.push(at),
                // Whether a person who took it over switched it on is not on the record.
                Owed::Open | Owed::Taken { .. } => return None,
            }
        }
        let began = self.run.obligations.values().map(|obligation| obligation.since).min();
        match (began, ended.into_iter().max()) {
            (Some(began), Some(ended)) => Some(ripcord_core::between(began, ended)),
            _ => self.run.started.map(|_| Duration::ZERO),
        }
    }

    /// The moment T of the timeline, and what it is.
    pub(crate) fn zero(&self, times: &Times) -> (Timestamp, &'static str) {
        match (times.onset, times.detected) {
            (Some(onset), _) => (onset, "the first bad sample"),
            (None, Some(detected)) => (detected, "the moment the incident was opened"),
            (None, None) => (self.run.proposed, "the moment the run was proposed"),
        }
    }

    /// How often a step was begun, and when first. The fold forgets former tries once a person asks for another.
    pub(crate) fn begun(&self, step: &StepId) -> (u32, Option<Timestamp>) {
        let mut intents =
            self.of_run().filter(|event| matches!(&event.body, Body::Intent { step: of, .. } if of == step));
        match intents.next() {
            None => (0, None),
            Some(first) => (1 + u32::try_from(intents.count()).unwrap_or(u32::MAX - 1), Some(first.at)),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.run.state, RunState::Ended(_))
    }
}
