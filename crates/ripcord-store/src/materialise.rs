//! What is kept beside the journal so that nobody has to fold it to see where things stand: releases, runs, incidents, captures.
//!
//! Every row changes in the transaction of the event that changes it, and only here. Runs go through [`Run::apply`], the fold the
//! engine itself goes by, so a listed state cannot differ from the real one, and an event that cannot follow is refused before it is
//! on the record.

use std::collections::HashMap;
use std::sync::Arc;

use ripcord_core::{
    AppId, AppendError, Body, CaptureRow, Digest, Event, Plan, Purpose, Release, ReleaseId, Run, RunId, RunRow, Seq,
    StoreError,
};

use crate::append::refused;
use crate::tables::{Attempt, RunKept, Tables};

/// Runs folded so far, so that an append need not read a run from its beginning. Only ever a shortcut: one that is behind its row
/// is folded anew.
#[derive(Debug, Default)]
pub(crate) struct Folds(HashMap<(AppId, RunId), (Run, Seq)>);

impl Folds {
    /// To be called whenever a transaction was not committed.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

/// Takes one event into the rows.
pub(crate) fn materialise(tables: &mut impl Tables, folds: &mut Folds, event: &Event) -> Result<(), AppendError> {
    let app = &event.app;
    match &event.body {
        Body::Recorded { release } => tables.put_release(app, event.seq, release)?,
        Body::Judged { release, verdict } => {
            let mut known = release_known(tables, event, release)?;
            known.verdict = verdict.clone();
            tables.put_release(app, event.seq, &known)?;
        }
        Body::Stands { release, standing } => {
            let mut known = release_known(tables, event, release)?;
            known.standing = standing.clone();
            tables.put_release(app, event.seq, &known)?;
        }
        Body::Quarantined { quarantine } => tables.put_quarantine(app, &quarantine.version, Some(quarantine))?,
        Body::Lifted { version, .. } => tables.put_quarantine(app, version, None)?,
        Body::Opened { incident } => tables.put_incident(app, event.seq, incident)?,
        Body::Joined { .. } | Body::Reported { .. } | Body::Closed { .. } => incident(tables, event)?,
        Body::Captured { capture, of, purpose, release, made, .. } => {
            let row = CaptureRow {
                id: capture.clone(),
                of: of.clone(),
                purpose: *purpose,
                release: release.clone(),
                run: event.run.clone(),
                at: event.at,
                made: (**made).clone(),
                spoiled: None,
                pruned: false,
            };
            tables.put_capture(app, event.seq, &row)?;
        }
        Body::Proven { capture, .. } | Body::Spoiled { capture, .. } | Body::Pruned { capture } => {
            let Some(mut row) = tables.capture(app, capture)? else {
                return Err(cannot(event, format!("there is no capture `{capture}`")));
            };
            match &event.body {
                Body::Proven { level, .. } => row.made.proof = row.made.proof.max(*level),
                Body::Spoiled { why, .. } => row.spoiled = Some(why.clone()),
                _ => row.pruned = true,
            }
            tables.put_capture(app, event.seq, &row)?;
        }
        _ => {}
    }
    run(tables, folds, event)
}

fn cannot(event: &Event, why: impl std::fmt::Display) -> AppendError {
    refused(format!("event {} cannot be recorded: {why}", event.seq))
}

fn release_known(tables: &impl Tables, event: &Event, id: &ReleaseId) -> Result<Release, AppendError> {
    tables.release(&event.app, id)?.ok_or_else(|| cannot(event, format!("there is no release `{id}`")))
}

fn incident(tables: &mut impl Tables, event: &Event) -> Result<(), AppendError> {
    let Some(id) = &event.incident else { return Err(cannot(event, "it names no incident")) };
    let Some(mut incident) = tables.incident(&event.app, id)? else {
        return Err(cannot(event, format!("there is no incident `{id}`")));
    };
    match &event.body {
        Body::Joined { trigger, severity } => {
            incident.triggers.insert(trigger.clone());
            // 0 is the worst: joining raises, never lowers.
            incident.severity = incident.severity.min(*severity);
        }
        Body::Reported { severity, .. } => incident.severity = incident.severity.min(*severity),
        _ => incident.closed = Some(event.at),
    }
    tables.put_incident(&event.app, event.seq, &incident)?;
    Ok(())
}

fn run(tables: &mut impl Tables, folds: &mut Folds, event: &Event) -> Result<(), AppendError> {
    let Some(id) = &event.run else {
        return match of_a_run(&event.body) {
            true => Err(cannot(event, "it names no run")),
            false => Ok(()),
        };
    };
    let kept = tables.run(&event.app, id)?;
    let (kept, folded) = match (kept, &event.body) {
        (Some(_), Body::Proposed { .. }) => return Err(cannot(event, format!("`{id}` was proposed before"))),
        (None, Body::Proposed { .. }) => proposed(tables, event, id)?,
        (None, body) if of_a_run(body) => return Err(cannot(event, format!("there is no run `{id}`"))),
        (None, _) => return Ok(()),
        (Some(mut kept), _) => {
            let mut run = match folds.0.remove(&(event.app.clone(), id.clone())) {
                Some((run, last)) if last == kept.last => run,
                _ => fold(tables, event, id, kept.last)?,
            };
            run.apply(event).map_err(|error| refused(error.to_string()))?;
            kept.row.state = run.state.clone();
            kept.row.ended = run.ended;
            // A proposal that fell before it was begun has used up nothing.
            if run.is_ended() && run.started.is_none() {
                kept.attempt = None;
            }
            (kept, run)
        }
    };
    let kept = RunKept { last: event.seq, ..kept };
    tables.put_run(&event.app, &kept)?;
    if !folded.is_ended() {
        folds.0.insert((event.app.clone(), id.clone()), (folded, event.seq));
    }
    Ok(())
}

fn proposed(tables: &impl Tables, event: &Event, id: &RunId) -> Result<(RunKept, Run), AppendError> {
    let Body::Proposed { plan: digest, purpose, automatic, .. } = &event.body else {
        return Err(cannot(event, "it is no proposal"));
    };
    let plan = plan(tables, event, digest)?;
    let attempt = (*automatic && *purpose == Purpose::Rollback).then(|| Attempt {
        release: plan.from.clone(),
        incident: event.incident.clone(),
        level: plan.rung.level,
    });
    if let Some(attempt) = &attempt
        && let Some(rival) = tables.rival(&event.app, attempt)?
    {
        let why = format!(
            "`{rival}` was already an automatic rollback at level {} of this release or incident; a person must decide now",
            attempt.level
        );
        return Err(cannot(event, why));
    }
    let run = Run::proposed(event, Arc::new(plan)).map_err(|error| refused(error.to_string()))?;
    let row = RunRow {
        id: id.clone(),
        state: run.state.clone(),
        plan: *digest,
        purpose: purpose.clone(),
        first: event.seq,
        proposed: event.at,
        ended: None,
        incident: event.incident.clone(),
    };
    Ok((RunKept { row, last: event.seq, attempt }, run))
}

/// A plan that is not in the store could not be resumed by anybody else, so a run is not begun on one.
fn plan(tables: &impl Tables, event: &Event, digest: &Digest) -> Result<Plan, AppendError> {
    let blob = tables.blob(digest)?.ok_or_else(|| cannot(event, format!("its plan {digest} is not in the store")))?;
    serde_json::from_slice(&blob).map_err(|error| cannot(event, format!("its plan cannot be read: {error}")))
}

/// Folds a run from its beginning up to `last`.
fn fold(tables: &impl Tables, event: &Event, id: &RunId, last: Seq) -> Result<Run, AppendError> {
    let events = tables.run_events(&event.app, id)?;
    let mut events = events.iter().filter(|earlier| earlier.seq <= last);
    let damaged = |why: String| AppendError::Down(StoreError::Damaged { at: last, why });
    let first = events.next().ok_or_else(|| damaged(format!("the events of `{id}` are gone")))?;
    let Body::Proposed { plan: digest, .. } = &first.body else {
        return Err(damaged(format!("`{id}` does not begin with a proposal")));
    };
    let plan = plan(tables, first, digest)?;
    let mut run = Run::proposed(first, Arc::new(plan)).map_err(|error| damaged(error.to_string()))?;
    for event in events {
        run.apply(event).map_err(|error| damaged(error.to_string()))?;
    }
    Ok(run)
}

/// Whether the event is about the run it names and makes no sense without one.
fn of_a_run(body: &Body) -> bool {
    match body {
        Body::Proposed { .. }
        | Body::Answered { .. }
        | Body::Superseded { .. }
        | Body::Started
        | Body::Held { .. }
        | Body::Intent { .. }
        | Body::Acted { .. }
        | Body::Verified { .. }
        | Body::Helped { .. }
        | Body::Watching { .. }
        | Body::Parked { .. }
        | Body::Person { .. }
        | Body::Overran { .. }
        | Body::Ended { .. } => true,
        Body::Changed { .. }
        | Body::Opened { .. }
        | Body::Joined { .. }
        | Body::Reported { .. }
        | Body::Closed { .. }
        | Body::Decided { .. }
        | Body::Recorded { .. }
        | Body::Judged { .. }
        | Body::Stands { .. }
        | Body::Quarantined { .. }
        | Body::Lifted { .. }
        | Body::Baseline { .. }
        | Body::Baking { .. }
        | Body::Checked { .. }
        | Body::Captured { .. }
        | Body::Proven { .. }
        | Body::Spoiled { .. }
        | Body::Pruned { .. }
        | Body::Told { .. }
        | Body::Noted { .. } => false,
    }
}
