//! The plan and what became of it: steps, checks, captures, and what was set aside.

use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    Action, Body, CaptureRow, Climb, HeldIn, OnFailure, Place, RunState, Step, StepId, StepState, between, human,
};

use crate::markdown::{Page, code, text, typed};
use crate::record::Record;
use crate::words::{self, UNKNOWN};

pub(crate) fn plan(page: &mut Page, record: &Record<'_>) {
    let (run, plan) = (record.run, &record.run.plan);
    page.heading(2, "Plan");
    let target = match &plan.to {
        Some(id) => format!("{} ({})", words::version(plan.to_version.as_deref()), text(id)),
        None => "none: it stays within the live release".to_owned(),
    };
    let climb = match plan.rung.climb {
        Climb::Automatic => "the next level may follow by itself where this one is insufficient",
        Climb::Ask => "the next level only by a person",
    };
    let ran = if run.started.is_some() { "what was approved is what ran" } else { "nothing of it was run" };
    let spent = match run.started {
        None => "not begun".to_owned(),
        started => format!("steps took {}", words::length(words::apart(started, record.last_effect()))),
    };
    page.bullets([
        format!("Digest: `{}` ({ran})", run.digest),
        format!("Level {} ({}): {climb}", plan.rung.level, text(&plan.rung.name)),
        format!("Target: {target}"),
        format!("Budget: {}; {spent}", human(plan.rung.budget)),
        format!("Loss at most: {}", words::loss(&plan.loss_at_most)),
        format!("Configuration: `{}`", plan.config),
    ]);
    as_run(page, record);
    commands(page, record);
    left_alone(page, record);
    puts_back(page, record);
}

/// The steps in the order in which they began; what never began comes last, in the order of the plan.
fn as_run(page: &mut Page, record: &Record<'_>) {
    page.heading(3, "Steps as run");
    let steps = in_order(record);
    if steps.is_empty() {
        page.para("The plan has no steps.");
        return;
    }
    let rows = steps.iter().enumerate().map(|(n, step)| {
        let (attempts, took, outcome) = became(record, step);
        let place = step.place.as_ref().map_or_else(|| "the application".to_owned(), code);
        vec![
            (n + 1).to_string(),
            words::phase(step.phase).to_owned(),
            place,
            said(step),
            words::destroys(step.destroys),
            attempts,
            took,
            outcome,
        ]
    });
    page.table(&["#", "Phase", "Place", "What", "Destroys", "Attempts", "Took", "Outcome"], rows);
}

fn in_order<'a>(record: &Record<'a>) -> Vec<&'a Step> {
    let first = |step: &StepId| {
        let of = |event: &&ripcord_core::Event| match &event.body {
            Body::Intent { step: of, .. } | Body::Held { step: of, .. } | Body::Verified { step: of, .. } => of == step,
            Body::Person { verb, .. } => {
                matches!(verb, ripcord_core::Verb::Skip { step: of, .. } | ripcord_core::Verb::Done { step: of, .. } if of == step)
            }
            _ => false,
        };
        record.of_run().find(of).map_or(u64::MAX, |event| event.seq.0)
    };
    let mut steps: Vec<&Step> = record.run.plan.steps.iter().collect();
    steps.sort_by_cached_key(|step| first(&step.id));
    steps
}

fn said(step: &Step) -> String {
    match step.shown.words.is_empty() {
        true => code(&step.id),
        false => format!("{} ({})", text(&step.shown.words), code(&step.id)),
    }
}

/// Attempts, time taken and outcome.
fn became(record: &Record<'_>, step: &Step) -> (String, String, String) {
    let (intents, first) = record.begun(&step.id);
    let attempts = if intents == 0 { "-".to_owned() } else { intents.to_string() };
    let took = |until: Timestamp| first.map_or_else(|| UNKNOWN.to_owned(), |first| human(between(first, until)));
    match record.run.steps.get(&step.id) {
        None | Some(StepState::Pending) if intents == 0 => ("-".to_owned(), "-".to_owned(), "not begun".to_owned()),
        None | Some(StepState::Pending) => (attempts, UNKNOWN.to_owned(), "to be tried again".to_owned()),
        Some(StepState::Held { found, .. }) => (attempts, "-".to_owned(), format!("already so: {}", text(found))),
        Some(StepState::Done { attempt: 0, at, proof, .. }) => {
            (attempts, took(*at), format!("**done by a person**: {}", text(&proof.found)))
        }
        Some(StepState::Done { at, proof, .. }) => (attempts, took(*at), format!("done: {}", text(&proof.found))),
        Some(StepState::Failed { at, failure, .. }) => {
            let goes_on = match &step.on_failure {
                OnFailure::Park => String::new(),
                OnFailure::Continue { reason } => format!("; the run goes on ({})", text(reason)),
            };
            let advice =
                failure.advice.as_ref().map(|advice| format!("; advice: {}", text(advice))).unwrap_or_default();
            (attempts, took(*at), format!("**failed**: {}{advice}{goes_on}", text(&failure.what)))
        }
        Some(StepState::InDoubt { why, .. }) => {
            let why = why.as_ref().map_or_else(|| "no outcome was recorded".to_owned(), text);
            (attempts, UNKNOWN.to_owned(), format!("**outcome unknown**: {why}"))
        }
        Some(StepState::Skipped { by, reason }) => {
            (attempts, UNKNOWN.to_owned(), format!("**skipped** by {}: {}", text(by), text(reason)))
        }
    }
}

fn commands(page: &mut Page, record: &Record<'_>) {
    let with: Vec<&Step> = in_order(record).into_iter().filter(|step| !step.shown.commands.is_empty()).collect();
    if with.is_empty() {
        return;
    }
    page.heading(3, "Commands and calls of the steps");
    for step in with {
        page.para(&format!("{}:", code(&step.id)));
        let lines: Vec<String> = step.shown.commands.iter().map(|argv| typed(argv)).collect();
        page.fence("sh", &lines);
    }
}

fn left_alone(page: &mut Page, record: &Record<'_>) {
    page.heading(3, "Left alone");
    let left = &record.run.plan.left_alone;
    match left.is_empty() {
        true => page.para("No component was left alone."),
        false => page.bullets(left.iter().map(|left| format!("{} {}", code(&left.component), text(&left.why)))),
    }
}

fn puts_back(page: &mut Page, record: &Record<'_>) {
    let back = record.run.plan.undone_by();
    if back.is_empty() {
        return;
    }
    page.heading(3, "Would undo it afterwards");
    page.para("Nobody but a person sees to these:");
    let at = |places: Vec<&Place>| places.into_iter().map(code).collect::<Vec<_>>().join(", ");
    page.bullets(back.into_iter().map(|(what, places)| format!("{}: {}", at(places), text(what))));
}

/// Each check and proof, with what was found.
pub(crate) fn verification(page: &mut Page, record: &Record<'_>) {
    page.heading(2, "Verification");
    let looks = |step: &&Step| matches!(step.action, Action::Check { .. } | Action::Prove { .. });
    let steps: Vec<&Step> = in_order(record).into_iter().filter(looks).collect();
    if steps.is_empty() {
        page.para("The plan has no checks: nothing was verified.");
        return;
    }
    page.table(&["Check", "Phase", "When", "Verdict", "Found"], steps.into_iter().map(|step| verified(record, step)));
}

fn verified(record: &Record<'_>, step: &Step) -> Vec<String> {
    let last = record.of_run().filter_map(|event| match &event.body {
        Body::Verified { step: of, verdict } if *of == step.id => Some((event.at, verdict)),
        _ => None,
    });
    let (at, verdict, found) = match (last.last(), record.run.steps.get(&step.id)) {
        (_, Some(StepState::Skipped { by, reason })) => {
            ("-".to_owned(), "**skipped**", format!("by {}: {}", text(by), text(reason)))
        }
        (_, Some(StepState::Done { attempt: 0, at, proof, .. })) => {
            (words::when(*at), "**passed by a person's word**", text(&proof.found))
        }
        (Some((at, verdict)), _) => {
            let (word, found) = words::check(verdict);
            (words::when(at), word, found)
        }
        (None, _) => ("-".to_owned(), "not run", "-".to_owned()),
    };
    vec![code(&step.id), words::phase(step.phase).to_owned(), at, verdict.to_owned(), found]
}

/// What this run captured, what it restored from, and what it set aside: the ways forward again.
pub(crate) fn kept(page: &mut Page, record: &Record<'_>) {
    page.heading(2, "Captures and what was set aside");
    let ours: Vec<&CaptureRow> = record.captures.iter().filter(|row| of_run(record, row)).collect();
    match ours.is_empty() {
        true => page.para("This run captured nothing."),
        false => {
            let head = ["Capture", "Of", "Why", "Taken", "Bytes", "Proof", "State", "To get it back"];
            page.table(&head, ours.iter().map(|row| captured(row)));
        }
    }
    let known: Vec<String> = restored_from(record);
    if !known.is_empty() {
        page.para("Restored from:");
        page.bullets(known);
    }
    let aside = set_aside(record);
    match aside.is_empty() {
        true => page.para("Nothing was set aside."),
        false => {
            page.para("Set aside, where it was:");
            page.bullets(aside.into_iter().map(|(step, place)| format!("{} ({})", code(place), code(step))));
        }
    }
}

fn of_run(record: &Record<'_>, row: &CaptureRow) -> bool {
    row.run.as_ref() == Some(&record.run.id) || record.run.captures.values().any(|capture| *capture == row.id)
}

fn captured(row: &CaptureRow) -> Vec<String> {
    let purpose = match row.purpose {
        ripcord_core::CapturePurpose::Protective => "protective",
        ripcord_core::CapturePurpose::Evidence => "evidence",
    };
    let state = match (&row.spoiled, row.pruned) {
        (Some(why), _) => format!("**not to be relied on**: {}", text(why)),
        (None, true) => "**pruned**".to_owned(),
        (None, false) => "kept".to_owned(),
    };
    let back = match (&row.made.held, row.pruned) {
        (_, true) => "gone".to_owned(),
        (HeldIn::System { name }, false) => format!("kept by the system itself as {}", code(name)),
        (HeldIn::Vault { .. }, false) => code(format!("ripcord capture restore {} --to DIR", row.id)),
    };
    vec![
        code(&row.id),
        code(&row.of),
        purpose.to_owned(),
        words::when(row.at),
        row.made.bytes.to_string(),
        words::proof(row.made.proof).to_owned(),
        state,
        back,
    ]
}

/// The captures that settled restores went back to.
fn restored_from(record: &Record<'_>) -> Vec<String> {
    let from = record.run.plan.steps.iter().filter_map(|step| match &step.action {
        Action::Restore { from: Some(ripcord_core::CaptureRef::Known(capture)), .. } => Some((step, capture)),
        _ => None,
    });
    let done = from.filter(|(step, _)| matches!(record.run.steps.get(&step.id), Some(StepState::Done { .. })));
    done.map(|(step, capture)| {
        let taken = record.captures.iter().find(|row| row.id == *capture).map(|row| row.at);
        format!("{}, taken {} ({})", code(capture), words::when_known(taken), code(&step.id))
    })
    .collect()
}

/// Where things were set aside, with the step that did it. A step done twice after an interruption may have said so twice.
pub(crate) fn set_aside<'a>(record: &Record<'a>) -> Vec<(&'a StepId, &'a str)> {
    let mut found: Vec<(&StepId, &str)> = vec![];
    for (step, state) in &record.run.steps {
        let StepState::Done { proof, .. } = state else { continue };
        for place in &proof.set_aside {
            if !found.contains(&(step, place.as_str())) {
                found.push((step, place));
            }
        }
    }
    found
}

/// The commands that fit the state the run is in.
pub(crate) fn next_commands(record: &Record<'_>) -> Vec<String> {
    let id = record.run.id.as_str();
    let mut lines = match &record.run.state {
        RunState::Waiting => {
            vec![format!("ripcord plan {id}"), format!("ripcord approve {id}"), format!("ripcord decline {id}")]
        }
        RunState::Approved | RunState::Running | RunState::Watching { .. } => vec!["ripcord status".to_owned()],
        RunState::Parked(_) => vec![
            "ripcord status".to_owned(),
            format!("ripcord retry {id}"),
            format!("ripcord skip {id} STEP --reason TEXT"),
            format!("ripcord done {id} STEP --evidence TEXT"),
            format!("ripcord abandon {id}"),
        ],
        RunState::Ended(_) => vec!["ripcord status".to_owned()],
    };
    if record.is_over() && record.acted() {
        lines.push(format!("ripcord undo {id}"));
    }
    lines.push("ripcord log verify".to_owned());
    lines
}

/// How long a thing has been owed, where it still is.
pub(crate) fn off_for(record: &Record<'_>, since: Timestamp) -> Duration {
    between(since, record.generated)
}
