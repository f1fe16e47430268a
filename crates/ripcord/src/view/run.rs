//! How a run stands.

use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Actor, IncidentId, Loss, Owed, Run, RunId, RunState, StepState, between, human};
use serde::Serialize;

use crate::screen::{BAD, GOOD, View, WARN, paint};
use crate::words;

#[derive(Debug, Serialize)]
pub struct RunView {
    pub run: RunId,
    pub aim: String,
    pub by: Actor,
    pub incident: Option<IncidentId>,
    pub state: RunState,
    pub paused: bool,
    pub from: Option<String>,
    pub to: Option<String>,
    pub plan: String,
    pub steps: Steps,
    /// What is in flight, failed or in doubt.
    pub now: Vec<StepLine>,
    pub proposed: Timestamp,
    pub started: Option<Timestamp>,
    pub restored: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// From its start until everything was restored, or until it ended.
    #[serde(rename = "took_ms", serialize_with = "ripcord_core::ms_option::serialize")]
    pub took: Option<Duration>,
    pub lost: Loss,
    pub off: Vec<Off>,
    pub answer_by: Option<Timestamp>,
    pub approved_by: Vec<Actor>,
    pub approvals_needed: u32,
}

#[derive(Debug, Default, Serialize)]
pub struct Steps {
    pub all: usize,
    pub done: usize,
    pub already: usize,
    pub skipped: usize,
    pub failed: usize,
}

#[derive(Debug, Serialize)]
pub struct StepLine {
    pub step: String,
    pub words: String,
    pub state: String,
}

/// Something switched off and owed.
#[derive(Debug, Serialize)]
pub struct Off {
    pub obligation: String,
    pub owed: String,
    pub since: Timestamp,
}

impl RunView {
    pub fn of(run: &Run) -> Self {
        let mut steps = Steps { all: run.steps.len(), ..Steps::default() };
        let mut now = vec![];
        for step in &run.plan.steps {
            let Some(state) = run.steps.get(&step.id) else { continue };
            let in_words = match state {
                StepState::Pending => None,
                StepState::Done { .. } => {
                    steps.done += 1;
                    None
                }
                StepState::Held { .. } => {
                    steps.already += 1;
                    None
                }
                StepState::Skipped { .. } => {
                    steps.skipped += 1;
                    None
                }
                StepState::InDoubt { since, why: None, .. } => Some(format!("begun {}", words::when(*since))),
                StepState::InDoubt { why: Some(why), .. } => Some(format!("in doubt: {why}")),
                StepState::Failed { failure, .. } => {
                    steps.failed += 1;
                    Some(format!("failed: {}", failure.what))
                }
            };
            if let Some(state) = in_words {
                now.push(StepLine { step: step.id.to_string(), words: step.shown.words.clone(), state });
            }
        }
        let owed = run.obligations.values().filter(|o| o.state == Owed::Open);
        Self {
            run: run.id.clone(),
            aim: ripcord_engine::aim(run),
            by: run.by.clone(),
            incident: run.incident.clone(),
            state: run.state.clone(),
            paused: run.paused,
            from: run.plan.from_version.clone(),
            to: run.plan.to_version.clone(),
            plan: run.digest.to_string(),
            steps,
            now,
            proposed: run.proposed,
            started: run.started,
            restored: run.restored,
            ended: run.ended,
            took: run.started.zip(run.restored.or(run.ended)).map(|(from, to)| between(from, to)),
            lost: run.lost.clone(),
            off: owed.map(|o| Off { obligation: o.id.to_string(), owed: o.owed.clone(), since: o.since }).collect(),
            answer_by: run.answer_by,
            approved_by: run.approvals.iter().map(|(by, _)| by.clone()).collect(),
            approvals_needed: run.authority.quorum.max(1),
        }
    }

    /// How it stands, in a line.
    pub fn headline(&self) -> String {
        let state = words::state(&self.state);
        let state = match &self.state {
            RunState::Ended(ripcord_core::End::Succeeded) | RunState::Watching { .. } => paint(GOOD, state),
            RunState::Parked(_) | RunState::Ended(_) => paint(BAD, state),
            RunState::Waiting => paint(WARN, state),
            RunState::Approved | RunState::Running if self.paused => paint(WARN, "paused"),
            RunState::Approved | RunState::Running => state,
        };
        format!("{} ({}): {state}", self.run, self.aim)
    }

    /// What there is to say below it.
    pub fn details(&self, now: Timestamp) -> Vec<String> {
        let steps = &self.steps;
        let mut parts = vec![format!("{} of {} steps done", steps.done + steps.already + steps.skipped, steps.all)];
        let some = [(steps.already, "so already"), (steps.skipped, "skipped"), (steps.failed, "failed")];
        parts.extend(some.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
        if let Some(took) = self.took {
            parts.push(format!("{} until restored", human(took)));
        }
        let mut lines = vec![parts.join(", ")];
        lines.extend(self.now.iter().map(|step| format!("{}: {}", step.step, step.state)));
        if !self.lost.is_none() {
            lines.push(paint(BAD, format!("given up: {}", words::loss(&self.lost, now))));
        }
        lines.extend(self.off.iter().map(|off| {
            paint(BAD, format!("OFF: {} is owed ({}), {}", off.owed, off.obligation, words::since(off.since, now)))
        }));
        if self.state == RunState::Waiting {
            let missing = u64::from(self.approvals_needed).saturating_sub(self.approved_by.len() as u64);
            let by = self.answer_by.map(|by| format!(" until {}", words::when(by))).unwrap_or_default();
            lines.push(format!("needs {}{by}", words::count(missing, "approval")));
        }
        lines
    }

    /// The next command to type.
    pub fn next(&self) -> Option<String> {
        let run = &self.run;
        Some(match &self.state {
            RunState::Waiting => {
                format!("`ripcord plan {run}` shows it; `ripcord approve {run}` or `ripcord decline {run}`")
            }
            RunState::Approved | RunState::Running if self.paused => format!("`ripcord resume {run}` lets it go on"),
            RunState::Approved | RunState::Running => "`ripcord status` shows how it goes".to_owned(),
            RunState::Watching { .. } => "`ripcord watch` goes on watching".to_owned(),
            RunState::Parked(_) => format!(
                "look, then `ripcord retry {run}`, `ripcord skip {run} STEP --reason ..`, `ripcord done {run} STEP --evidence ..` or `ripcord abandon {run}`"
            ),
            RunState::Ended(ripcord_core::End::Succeeded) => format!("`ripcord report {run}` writes the report"),
            RunState::Ended(ripcord_core::End::Insufficient) => {
                "`ripcord plan` shows the levels; it may not be the release: `ripcord explain` the triggers".to_owned()
            }
            RunState::Ended(_) => return None,
        })
    }
}

impl View for RunView {
    fn text(&self) -> String {
        let now = self.ended.or(self.restored).unwrap_or(self.proposed);
        let mut lines = vec![self.headline()];
        lines.extend(self.details(now).iter().map(|line| format!("  {line}")));
        lines.join("\n")
    }
}
