//! A run as it goes by on the terminal: a line for each step as it ends, with the time it took; below, what is going on.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ripcord_core::{Body, Check, Event, Outcome, Plan, RunId, StepId, between, human};

use crate::problem::Problem;
use crate::screen::{BAD, FAINT, GOOD, Screen, WARN, paint};
use crate::words;
use crate::world::Station;

/// Follows the journal; what it shows comes from there alone, whoever does the work.
pub struct Progress {
    screen: Arc<Screen>,
    /// The plan of the run that goes by.
    plan: Option<(RunId, Plan)>,
    /// Steps in flight, since when.
    begun: BTreeMap<StepId, Timestamp>,
    settled: usize,
    /// Everything is restored, and watched until then.
    watched: Option<Timestamp>,
}

impl Progress {
    pub fn new(screen: &Arc<Screen>) -> Self {
        Self { screen: Arc::clone(screen), plan: None, begun: BTreeMap::new(), settled: 0, watched: None }
    }

    pub async fn take(&mut self, station: &Station, event: &Event) -> Result<(), Problem> {
        if let Some(run) = &event.run
            && self.plan.as_ref().is_none_or(|(known, _)| known != run)
        {
            self.turn_to(station, run).await?;
        }
        if let Some(line) = self.line(event) {
            self.screen.line(&line);
        }
        Ok(())
    }

    async fn turn_to(&mut self, station: &Station, run: &RunId) -> Result<(), Problem> {
        let folded = ripcord_engine::fold(&station.world, run).await?;
        self.plan = Some((run.clone(), (*folded.plan).clone()));
        self.begun.clear();
        self.settled = 0;
        self.watched = None;
        Ok(())
    }

    /// What is worth a line, and the bookkeeping of what is in flight.
    fn line(&mut self, event: &Event) -> Option<String> {
        if let Body::Watching { until } = &event.body {
            self.watched = Some(*until);
        } else if matches!(event.body, Body::Ended { .. } | Body::Parked { .. }) {
            self.watched = None;
        }
        match &event.body {
            Body::Intent { step, attempt, .. } => {
                self.begun.entry(step.clone()).or_insert(event.at);
                (*attempt > 1).then(|| self.step(WARN, "again", step, &format!("attempt {attempt}"), None))
            }
            Body::Held { step, .. } => {
                self.settle(step);
                Some(self.step(FAINT, "already", step, "it is so", None))
            }
            Body::Acted { step, outcome, .. } => {
                let took = self.settle(step).map(|began| human(between(began, event.at)));
                Some(match outcome {
                    Outcome::Done(proof) => self.step(GOOD, "done", step, &proof.found, took),
                    Outcome::Failed(failure) => self.step(BAD, "FAILED", step, &failure.what, took),
                    Outcome::Unknown { why } => self.step(BAD, "UNKNOWN", step, why, took),
                })
            }
            Body::Verified { step, verdict } => {
                self.settle(step);
                Some(match verdict {
                    Check::Pass { found } => self.step(GOOD, "passed", step, found, None),
                    Check::Fail { what } => self.step(BAD, "FAILED", step, &what.join("; "), None),
                    Check::Inconclusive { why } => self.step(WARN, "unclear", step, why, None),
                })
            }
            // Behind the scenes: `ripcord log` has them.
            Body::Captured { .. }
            | Body::Told { delivered: true, .. }
            | Body::Baseline { .. }
            | Body::Stands { .. } => None,
            Body::Parked { .. } | Body::Spoiled { .. } => Some(paint(BAD, words::event(event))),
            _ => Some(shortened(&words::event(event))),
        }
    }

    /// Takes a step out of what is in flight.
    fn settle(&mut self, step: &StepId) -> Option<Timestamp> {
        self.settled += 1;
        self.begun.remove(step)
    }

    fn step(&self, style: anstyle::Style, word: &str, step: &StepId, found: &str, took: Option<String>) -> String {
        let shown = self.plan.as_ref().and_then(|(_, plan)| plan.step(step)).map(|step| step.shown.words.as_str());
        let what = match shown {
            Some(words) if words != found && !found.is_empty() => shortened(&format!("{words}: {}", first_line(found))),
            Some(words) => words.to_owned(),
            None => shortened(first_line(found)),
        };
        let took = took.map(|took| format!(" {}", paint(FAINT, format!("({took})")))).unwrap_or_default();
        format!("  {} {step:<24} {what}{took}", paint(style, format!("{word:>7}")))
    }

    /// The line at the foot: what is in flight, and for how long.
    pub fn foot(&self, now: Timestamp) {
        let steps = self.plan.as_ref().map_or(0, |(_, plan)| plan.steps.len());
        let flying: Vec<String> =
            self.begun.iter().map(|(step, began)| format!("{step} {}", human(between(*began, now)))).collect();
        match (flying.is_empty(), self.watched) {
            (false, _) => self.screen.status(&format!("  {}/{steps}  {}", self.settled.min(steps), flying.join(", "))),
            (true, Some(until)) if until > now => {
                let left = std::time::Duration::from_secs(between(now, until).as_secs() + 1);
                self.screen
                    .status(&format!("  restored; watching for {} more, Ctrl-C leaves that to the next", human(left)));
            }
            (true, _) => self.screen.wipe(),
        }
    }
}

/// What a line has room for. The journal has the whole.
fn shortened(text: &str) -> String {
    const ROOM: usize = 180;
    match text.char_indices().nth(ROOM) {
        Some((end, _)) => format!("{} ..", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
