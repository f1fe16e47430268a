//! The whole story of a run, from its record: what was noticed, decided, done, proven and lost, and what is left to a person.
//!
//! The outcome comes first and is the honest one: what is still switched off stands above everything, "restored" is not
//! "succeeded", and what the record does not know is `unknown`. Conclusions (cause, impact in money, owners) are left to fill.

use jiff::Timestamp;
use ripcord_core::{Action, Body, Check, End, Owed, ParkedWhy, Purpose, RunState, Step, StepState};

use crate::markdown::{Page, code, text};
use crate::record::Record;
use crate::words::{self, length};
use crate::{data_loss, figures, moments, steps};

/// What a person has to write, marked so that it is found.
pub(crate) const TO_FILL: &str = "_to fill_";

/// Writes the report of a run as Markdown.
pub fn run_report(record: &Record<'_>) -> String {
    let mut page = Page::default();
    head(&mut page, record);
    summary(&mut page, record);
    timeline(&mut page, record);
    figures::decision(&mut page, record);
    steps::plan(&mut page, record);
    steps::verification(&mut page, record);
    figures::helped(&mut page, record);
    steps::kept(&mut page, record);
    data_given_up(&mut page, record);
    told(&mut page, record);
    obligations(&mut page, record);
    to_finish(&mut page, record);
    next(&mut page, record);
    page.finish()
}

fn head(page: &mut Page, record: &Record<'_>) {
    let run = record.run;
    page.heading(
        1,
        &format!("{}, {}: {}: {}", text(record.app), text(&run.id), words::aim(run), words::outcome(&run.state)),
    );
    let off: Vec<String> =
        run.obligations.values().filter(|o| !matches!(o.state, Owed::Paid { .. })).map(words::owed).collect();
    if !off.is_empty() {
        page.bullets(off);
    }
    page.para(&format!("**{}**", verdict(record)));
    if let RunState::Parked(ParkedWhy::Failed { advice: Some(advice), .. }) = &run.state {
        page.para(&format!("Advice: {}.", text(advice)));
    }
    if !run.lost.is_none() || data_loss::may_have_lost(record) {
        page.para(&format!("**Data given up: {}.** See below.", data_loss::in_short(record)));
    }
}

/// The outcome in a sentence that claims no more than the record does.
pub(crate) fn verdict(record: &Record<'_>) -> String {
    let run = record.run;
    let nothing = if record.acted() { "" } else { " Nothing was changed." };
    match &run.state {
        RunState::Ended(End::Succeeded) => {
            let compared = run
                .helped
                .as_ref()
                .is_some_and(|(verdict, compared)| matches!(verdict, Check::Pass { .. }) && !compared.is_empty());
            let helped = match compared {
                true => "the breached signals came back",
                false => "no breached signal was compared, so whether it helped was not measured",
            };
            format!("Succeeded: {}; {helped}.", done(record))
        }
        RunState::Ended(End::Insufficient) => format!("Insufficient: {}; the symptom remains.", done(record)),
        RunState::Ended(End::Declined) => format!("Declined: a person said no.{nothing}"),
        RunState::Ended(End::Expired) => format!("Expired: nobody answered in time.{nothing}"),
        RunState::Ended(End::Superseded) => format!("Superseded by another plan.{nothing}"),
        RunState::Ended(End::Abandoned { by, open }) => {
            let owed = if open.is_empty() { "nothing was left switched off" } else { "with things left switched off" };
            format!("Abandoned by {}, {owed}.{nothing}", text(by))
        }
        RunState::Parked(why) => format!("PARKED, needs a person: {}.{nothing}", words::parked(why)),
        RunState::Watching { until } => {
            format!("Not yet a success: {}; being watched until {}.", done(record), words::when(*until))
        }
        RunState::Running => "Running: this report is of an unfinished run.".to_owned(),
        RunState::Approved => "Approved and not begun.".to_owned(),
        RunState::Waiting => "Waiting for an answer; nothing was changed.".to_owned(),
    }
}

/// What was restored and checked, with what people let be or vouched for.
fn done(record: &Record<'_>) -> String {
    let run = record.run;
    let count = |wanted: fn(&StepState) -> bool| run.steps.values().filter(|state| wanted(state)).count();
    let skipped = count(|state| matches!(state, StepState::Skipped { .. }));
    let vouched = count(|state| matches!(state, StepState::Done { attempt: 0, .. }));
    let restored = match (skipped, vouched) {
        (0, 0) => "everything was restored".to_owned(),
        _ => format!(
            "not everything was restored by this run ({skipped} of {} steps skipped by a person, {vouched} done on a person's word)",
            run.steps.len()
        ),
    };
    let checks: Vec<_> = run.plan.steps.iter().filter(|step| matches!(step.action, Action::Check { .. })).collect();
    let passed = |step: &&&Step| matches!(run.steps.get(&step.id), Some(StepState::Done { attempt: 1.., .. }));
    let passed = checks.iter().filter(passed).count();
    match checks.len() {
        0 => format!("{restored}, with no check to verify it"),
        all if passed == all => format!("{restored}, and every check passed"),
        all => format!("{restored}, and {passed} of {all} checks passed"),
    }
}

fn summary(page: &mut Page, record: &Record<'_>) {
    page.heading(2, "Summary");
    let (run, times) = (record.run, moments::times(record));
    let incident = record.incident();
    let released = match record.from() {
        Some(release) => format!("{} ({}), {}", text(&release.version), text(&release.id), words::when(release.at)),
        None => words::version(run.plan.from_version.as_deref()),
    };
    let wrong = match &incident {
        None => "no incident is recorded for this run".to_owned(),
        Some(incident) => {
            let severity = incident.severity.map_or_else(|| words::UNKNOWN.to_owned(), |severity| severity.to_string());
            format!(
                "{} ({}, {severity})",
                incident.what.map_or_else(|| words::UNKNOWN.to_owned(), text),
                text(incident.id)
            )
        }
    };
    let severity = run.severity.map_or_else(|| words::UNKNOWN.to_owned(), |severity| severity.to_string());
    let mut lines = vec![
        format!("What was live: {released}"),
        format!("What went wrong: {wrong}"),
        format!(
            "What this run was: {}, level {} ({}), severity {severity}",
            words::aim(run),
            run.plan.rung.level,
            text(&run.plan.rung.name)
        ),
        format!("Who proposed it: {}; who decided: {}", text(&run.by), decided_by(record)),
    ];
    if matches!(run.plan.purpose, Purpose::Drill { .. }) {
        lines.push("This was a drill.".to_owned());
    }
    for other in record.other_runs() {
        let proposed = record.proposal().map_or(run.seq, |event| event.seq);
        let before = if other.seq < proposed { "before" } else { "after" };
        lines.push(format!("Another run of this incident, {before} this one: {}", other_run(record, other)));
    }
    page.bullets(lines);

    let answers = record.of_run().filter(|event| matches!(event.body, Body::Answered { .. }));
    let answered = answers.last().map(|event| event.at);
    let between = |from, to| length(words::apart(from, to));
    let reached = |moment: Option<Timestamp>, how_long| {
        if moment.is_some() { length(how_long) } else { "not reached".to_owned() }
    };
    let rows = [
        ("From the release to the first bad sample", between(times.released, times.onset)),
        ("To detect (first bad sample to breach)", length(times.to_detect())),
        ("To decide (breach or report to decision)", length(times.to_decide())),
        (
            "To answer (proposal to yes or no)",
            if run.automatic { "none needed".to_owned() } else { between(Some(run.proposed), answered) },
        ),
        ("To restore (decision, with the answer, to last effect)", reached(times.restored, times.to_restore())),
        (
            "Of that the steps (start to last effect)",
            reached(record.last_effect(), words::apart(run.started, record.last_effect())),
        ),
        ("To verify (last effect to signals back)", reached(times.verified, times.to_verify())),
        ("To recover (first bad sample or report to last effect)", reached(times.restored, times.to_recover())),
        ("Downtime by this run (first off to last on)", downtime(record)),
        ("Users and requests affected", format!("{} ({TO_FILL})", words::UNKNOWN)),
    ];
    page.table(&["What", "How long, how many"], rows.map(|(what, how_long)| vec![what.to_owned(), how_long]));
}

fn downtime(record: &Record<'_>) -> String {
    let run = record.run;
    let open = run.obligations.values().filter(|o| !matches!(o.state, Owed::Paid { .. })).map(|o| o.since).min();
    match (record.downtime(), open) {
        (_, Some(since)) => {
            format!("**not over on this record**: off for {}", ripcord_core::human(steps::off_for(record, since)))
        }
        (Some(none), None) if none.is_zero() => "none: nothing was switched off".to_owned(),
        (None, None) if !record.acted() => "none: nothing was switched off".to_owned(),
        (known, None) => length(known),
    }
}

fn decided_by(record: &Record<'_>) -> String {
    let run = record.run;
    if run.automatic {
        return "policy, without a person".to_owned();
    }
    let answered = record.of_run().filter_map(|event| match &event.body {
        Body::Answered { by, answer: ripcord_core::Answer::Decline, .. } => Some(format!("{} (declined)", text(by))),
        Body::Answered { by, .. } => Some(format!("{} (approved)", text(by))),
        _ => None,
    });
    let answered: Vec<String> = answered.collect();
    if answered.is_empty() { "nobody".to_owned() } else { answered.join(", ") }
}

fn other_run(record: &Record<'_>, proposed: &ripcord_core::Event) -> String {
    let of = |event: &&ripcord_core::Event| event.run == proposed.run;
    let mut ends = record.events.iter().filter(of).filter_map(|event| match &event.body {
        Body::Ended { end } => Some(words::outcome(&RunState::Ended(end.clone()))),
        Body::Superseded { .. } => Some("superseded"),
        Body::Answered { answer: ripcord_core::Answer::Decline, .. } => Some("declined"),
        _ => None,
    });
    let id = proposed.run.as_ref().map_or_else(|| words::UNKNOWN.to_owned(), text);
    format!("{id}, {}", ends.next_back().unwrap_or("not ended on this record"))
}

fn timeline(page: &mut Page, record: &Record<'_>) {
    page.heading(2, "Timeline");
    let (zero, is) = record.zero(&moments::times(record));
    page.para(&format!("T is {is}, {}. Times are UTC.", words::when(zero)));
    let rows = moments::timeline(record)
        .into_iter()
        .map(|(at, what)| vec![at.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(), words::offset(zero, at), what]);
    page.table(&["Time", "T", "What"], rows);
}

fn data_given_up(page: &mut Page, record: &Record<'_>) {
    page.heading(2, "Data given up");
    let plan = &record.run.plan;
    if !record.run.lost.is_none() {
        data_loss::rows(page, record);
        return;
    }
    let ceiling = words::loss(&plan.loss_at_most);
    page.para(&match (plan.gives_up(), data_loss::may_have_lost(record)) {
        (false, _) => "None: the plan gives nothing up.".to_owned(),
        (true, false) => format!("None is recorded. The plan would have given up at most: {ceiling}."),
        (true, true) => format!("**Unknown**: a step that may lose data was begun, and no outcome says what was lost. The plan allows at most: {ceiling}."),
    });
}

fn told(page: &mut Page, record: &Record<'_>) {
    page.heading(2, "Who was told");
    let ours = |event: &&ripcord_core::Event| {
        event.run.as_ref() == Some(&record.run.id)
            || (event.run.is_none() && event.incident.is_some() && event.incident == record.run.incident)
    };
    let rows: Vec<Vec<String>> = record
        .events
        .iter()
        .filter(ours)
        .filter_map(|event| match &event.body {
            Body::Told { message, channel, delivered, why } => {
                let how = match (delivered, why) {
                    (true, _) => "delivered".to_owned(),
                    (false, Some(why)) => format!("**not delivered**: {}", text(why)),
                    (false, None) => "**not delivered**".to_owned(),
                };
                Some(vec![words::when(event.at), code(channel), text(message), how])
            }
            _ => None,
        })
        .collect();
    match rows.is_empty() {
        true => page.para("**Nobody, as far as the record knows.**"),
        false => page.table(&["When", "Channel", "Message", "Delivered"], rows),
    }
}

fn obligations(page: &mut Page, record: &Record<'_>) {
    page.heading(2, "Switched off by this run");
    match record.run.obligations.is_empty() {
        true => page.para("Nothing."),
        false => page.bullets(record.run.obligations.values().map(words::owed)),
    }
}

/// What only people know.
fn to_finish(page: &mut Page, record: &Record<'_>) {
    page.heading(2, "Root cause");
    page.para(TO_FILL);
    page.heading(2, "Contributing factors");
    page.para(TO_FILL);
    page.para(&format!("Why it was not caught earlier: testing {TO_FILL}, monitoring {TO_FILL}, review {TO_FILL}."));
    page.heading(2, "Action items");
    let fix = match &record.run.plan.from_version {
        Some(version) => format!("Fix: mend {} before it is deployed again", text(version)),
        None => "Fix: remove the cause".to_owned(),
    };
    let items = [
        fix,
        "Checklist: what would have caught it before the release".to_owned(),
        "Tests: one that fails on this fault".to_owned(),
        "Alerts: earlier, or clearer".to_owned(),
        "Procedures: what was slow or unclear in this run".to_owned(),
    ];
    let rows = items.into_iter().map(|item| vec![item, TO_FILL.to_owned(), TO_FILL.to_owned()]);
    page.table(&["Action", "Owner", "Due"], rows);
}

fn next(page: &mut Page, record: &Record<'_>) {
    page.heading(2, "Next commands");
    let owed = record.run.open_obligations().map(|o| format!("ripcord take {} {} --reason TEXT", record.run.id, o.id));
    let lines: Vec<String> = owed.chain(steps::next_commands(record)).collect();
    page.fence("sh", &lines);
    page.para(&format!(
        "Written {} from the journal of {}, events up to number {}.",
        words::when(record.generated),
        text(record.app),
        record.events.last().map_or(record.run.seq, |event| event.seq)
    ));
}
