//! What people are told: every message says what is known, in what state everything is, and what to do.

use jiff::Timestamp;
use ripcord_core::{
    About, Call, CaptureRow, ChannelId, Decision, End, HALF_WAY, Incident, Message, ParkedWhy, Purpose, Run, RunState,
    Severity, human,
};

use crate::World;

/// The channels for something at a severity, in the order of the configuration, each once.
fn channels(world: &World, about: About, severity: Option<Severity>) -> Vec<ChannelId> {
    let mut channels = vec![];
    for notify in &world.application.notify {
        let about_fits = notify.about.is_empty() || notify.about.contains(&about);
        // What has no severity is told to everybody who asked for its kind.
        let bad_enough = match (notify.at_least, severity) {
            (Some(least), Some(severity)) => severity <= least,
            _ => true,
        };
        if about_fits && bad_enough {
            channels.extend(notify.channels.iter().filter(|c| !channels.contains(*c)).cloned().collect::<Vec<_>>());
        }
    }
    channels
}

fn message(
    world: &World,
    about: About,
    severity: Option<Severity>,
    title: String,
    body: String,
    at: Timestamp,
) -> Message {
    Message {
        id: uuid::Uuid::now_v7().to_string(),
        about,
        severity,
        incident: None,
        run: None,
        title: format!("{}: {title}", world.app()),
        body,
        at,
        plan: None,
        channels: channels(world, about, severity),
    }
}

/// About a run, as it stands.
pub fn about_run(world: &World, run: &Run, about: About, at: Timestamp) -> Message {
    let mut body = vec![state_of(run)];
    let open: Vec<String> = run.open_obligations().map(|o| format!("{} ({})", o.owed, o.id)).collect();
    match open.is_empty() {
        true => body.push("Nothing is switched off by this run.".to_owned()),
        false => body.push(format!("Switched off and owed: {}.", open.join("; "))),
    }
    body.extend(advice(run));
    Message {
        incident: run.incident.clone(),
        run: Some(run.id.clone()),
        plan: (about == About::ApprovalNeeded).then_some(run.digest),
        ..message(world, about, run.severity, title_of(run), body.join("\n"), at)
    }
}

/// About what would undo a run that is done: for whoever owns it.
pub fn puts_back(world: &World, run: &Run, what: &[String], at: Timestamp) -> Message {
    let version = run.plan.to_version.as_deref().unwrap_or("what it restored");
    let body = format!(
        "It is at {version} now, and this would put something else back: {}. To do: have whoever owns it take it back too.",
        what.join("; ")
    );
    Message {
        incident: run.incident.clone(),
        run: Some(run.id.clone()),
        ..message(world, About::Progress, run.severity, format!("{} ({}) may be undone", run.id, aim(run)), body, at)
    }
}

/// What the run is doing, in a few words.
pub fn aim(run: &Run) -> String {
    let to = run.plan.to_version.as_deref().unwrap_or("the state before");
    let level = format!("level {} ({})", run.plan.rung.level, run.plan.rung.name);
    match (&run.plan.purpose, &run.plan.rung.means) {
        (Purpose::Undo { of }, _) => format!("undo of {of}"),
        (Purpose::Drill { .. }, _) => format!("drill, {level}"),
        (_, ripcord_core::Means::Set { .. }) => level,
        (_, ripcord_core::Means::Restore { .. }) => format!("rollback to {to}, {level}"),
    }
}

fn title_of(run: &Run) -> String {
    let state = match &run.state {
        RunState::Waiting => "waits for approval",
        RunState::Approved | RunState::Running => "is running",
        RunState::Watching { .. } => "is done and being watched",
        RunState::Parked(_) => "is PARKED: it needs a person",
        RunState::Ended(End::Succeeded) => "succeeded",
        RunState::Ended(End::Insufficient) => "was insufficient: the symptom remains",
        RunState::Ended(End::Declined) => "was declined",
        RunState::Ended(End::Expired) => "expired unanswered",
        RunState::Ended(End::Superseded) => "was superseded",
        RunState::Ended(End::Abandoned { .. }) => "was abandoned",
    };
    format!("{} ({}) {state}", run.id, aim(run))
}

fn state_of(run: &Run) -> String {
    let count = |wanted: fn(&ripcord_core::StepState) -> bool| run.steps.values().filter(|state| wanted(state)).count();
    use ripcord_core::StepState as S;
    let done = count(|s| matches!(s, S::Done { .. } | S::Held { .. } | S::Skipped { .. }));
    let mut text = format!("{done} of {} steps are done.", run.steps.len());
    if let RunState::Parked(why) = &run.state {
        text.push_str(&format!(" Parked: {}.", parked(why)));
    }
    if !run.lost.is_none() {
        text.push_str(&format!(" Given up: {} rows.", run.lost.total_rows()));
    }
    text
}

/// Why a run is parked, in a sentence.
pub fn parked(why: &ParkedWhy) -> String {
    match why {
        ParkedWhy::Failed { step, what, .. } => format!("step `{step}` failed: {what}"),
        ParkedWhy::InDoubt { step, found } => format!("what step `{step}` did cannot be found out: {found}"),
        ParkedWhy::Inconclusive { step: Some(step), why } => format!("`{step}` came to no verdict: {why}"),
        ParkedWhy::Inconclusive { step: None, why } => format!("no verdict: {why}"),
        ParkedWhy::Insufficient { why } => format!("everything was done and the symptom remains: {why}"),
        ParkedWhy::HalfWay { what } => {
            format!("everything was done and the release is not all there: {}", what.join("; "))
        }
        ParkedWhy::OtherAdapter { step, written_by, have } => {
            format!("step `{step}` was planned by {written_by}, and this is {have}")
        }
    }
}

fn advice(run: &Run) -> Vec<String> {
    let id = &run.id;
    match &run.state {
        RunState::Waiting => vec![format!(
            "To do: `ripcord plan {id}` to read it, then `ripcord approve {id}` or `ripcord decline {id}`."
        )],
        RunState::Parked(why) => {
            let mut advice = vec![];
            match why {
                ParkedWhy::Failed { advice: Some(text), .. } => advice.push(format!("Advice: {text}.")),
                ParkedWhy::HalfWay { .. } => advice.push(format!("Advice: {HALF_WAY}.")),
                _ => {}
            }
            advice.push(format!(
                "To do: look, then `ripcord retry {id}`, `ripcord skip {id} STEP --reason ...`, `ripcord done {id} STEP --evidence ...` or `ripcord abandon {id}`."
            ));
            advice
        }
        _ => vec![],
    }
}

/// About an incident and what was decided.
pub fn about_incident(world: &World, incident: &Incident, decision: Option<&Decision>, at: Timestamp) -> Message {
    let mut body = vec![format!("{}, opened {}.", incident.what, incident.opened)];
    if let Some(decision) = decision {
        body.push(format!("Decision: {}{}.", decision.call, if decision.automatic { ", automatic" } else { "" }));
        body.extend(decision.reasons.iter().map(|reason| format!("- {reason}")));
        if let Some(by) = decision.act_by {
            body.push(format!("To be acted on by {by}."));
        }
        if decision.call == Call::Rollback && !decision.automatic {
            body.push("A person must decide: `ripcord status` shows the plan.".to_owned());
        }
    }
    let severity = incident.severity;
    Message {
        incident: Some(incident.id.clone()),
        ..message(
            world,
            About::Incident,
            Some(severity),
            format!("{} {severity}: {}", incident.id, incident.what),
            body.join("\n"),
            at,
        )
    }
}

/// Monitoring is blind: neither bad news nor good news.
pub fn blind(world: &World, what: &str, severity: Severity, at: Timestamp) -> Message {
    let body = format!(
        "{what}\nNothing is rolled back on missing data, and nothing passes on it. To do: look at the observer."
    );
    message(world, About::Blind, Some(severity), format!("monitoring is blind: {what}"), body, at)
}

/// About a release.
pub fn about_release(world: &World, version: &str, what: &str, at: Timestamp) -> Message {
    message(world, About::Released, None, format!("release {version}: {what}"), String::new(), at)
}

/// A capture that somebody may have to go back to is not what it was.
pub fn spoiled(world: &World, row: &CaptureRow, why: &str, needed: &[String], at: Timestamp) -> Message {
    // Nothing is wrong yet, and when something is it will be too late to find out.
    let severity = world.application.severities.keys().next().copied();
    let title = format!("{} of `{}` is SPOILED: there may be no way back", row.id, row.of);
    let body = format!(
        "It was read back and is not what was captured: {why}.\nWhat is restored from it: {}.\nTo do: `ripcord status` says \
         whether one can still go back; `ripcord release record VERSION` captures what is live anew.",
        needed.join(", ")
    );
    message(world, About::Incident, severity, title, body, at)
}

/// What is kept could not be looked after: nobody knows whether it is whole.
pub fn upkeep_failed(world: &World, what: &str, at: Timestamp) -> Message {
    let severity = world.application.severities.keys().next_back().copied();
    let body = format!("{what}\nIt is tried again by itself; this is said once.");
    message(world, About::Blind, severity, what.to_owned(), body, at)
}

/// Something is off and nobody has taken it over.
pub fn obligation(world: &World, run: &Run, at: Timestamp) -> Option<Message> {
    let oldest = run.open_obligations().map(|o| o.since).min()?;
    let mut message = about_run(world, run, About::Obligation, at);
    let since = human(ripcord_core::between(oldest, at));
    message.title = format!("{}: still off after {since}, from {}", world.app(), run.id);
    message.body.push_str(&format!(
        "\nTo do: switch it on, or take it over with `ripcord take {} OBLIGATION --reason ...`.",
        run.id
    ));
    Some(message)
}
