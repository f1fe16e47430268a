//! The timeline of a run, and the events it is told and measured from.
//!
//! The steps of the incident's other runs are in their own reports: of those runs only what they were and came to is told here.

use jiff::Timestamp;
use ripcord_core::{Body, Event, Moment, Times};

use crate::markdown::text;
use crate::record::{Happened, Record};

/// The lines of the timeline as Markdown, in order.
pub(crate) fn timeline(record: &Record<'_>) -> Vec<(Timestamp, String)> {
    let told = story(record, Whose::AllRuns);
    let plan = &record.run.plan;
    let plans = |digest: &ripcord_core::Digest| (*digest == record.run.digest).then(|| (**plan).clone());
    let lines = ripcord_core::moments(&told, &plans);
    // The ledger knows the release even where its event was not handed over.
    let is_told = told
        .iter()
        .any(|event| matches!(&event.body, Body::Recorded { release } if Some(&release.id) == plan.from.as_ref()));
    let released = record
        .from()
        .filter(|_| !is_told)
        .map(|release| (release.at, format!("{} released as {}", text(&release.version), text(&release.id))));
    let mut lines: Vec<_> =
        released.into_iter().chain(lines.into_iter().map(|moment| (moment.at, line(&moment)))).collect();
    // Stable, so that what the journal wrote at one moment keeps the journal's order.
    lines.sort_by_key(|(at, _)| *at);
    lines
}

fn line(moment: &Moment) -> String {
    let mut line = text(&moment.what);
    for more in &moment.detail {
        line.push_str("; ");
        line.push_str(&text(more));
    }
    line
}

/// What this run is measured by: its own events, not those of the runs before and after it.
pub(crate) fn times(record: &Record<'_>) -> Times {
    let times = ripcord_core::times(&story(record, Whose::ThisRun));
    let released = record.from().map(|release| release.at).or(times.released);
    Times { released, downtime: record.downtime(), ..times }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    ThisRun,
    AllRuns,
}

/// The events that belong to the story, in the order of the journal.
fn story(record: &Record<'_>, whose: Whose) -> Vec<Event> {
    let incident = record.incident();
    let belongs = |event: &&Event| match event.run.as_ref() {
        Some(run) if *run == record.run.id => true,
        Some(_) => whose == Whose::AllRuns && concerns_incident(record, event) && is_of_a_life(&event.body),
        None => concerns_incident(record, event) || is_around(record, incident.as_ref(), event),
    };
    let mut story: Vec<Event> = record.events.iter().filter(belongs).cloned().collect();
    figures_at_breach(record, &mut story);
    story
}

/// The engine leaves the figure of the breach to the breach's own event; beside the others it is needed here.
fn figures_at_breach(record: &Record<'_>, story: &mut [Event]) {
    let breaches = record.breaches();
    for event in story {
        let Body::Helped { compared, .. } = &mut event.body else { continue };
        for of in compared.iter_mut().filter(|of| of.breached_at.is_none()) {
            of.breached_at =
                breaches.iter().find(|breach| *breach.trigger == of.trigger).and_then(|breach| breach.value);
        }
    }
}

fn concerns_incident(record: &Record<'_>, event: &Event) -> bool {
    record.run.incident.is_some() && event.incident == record.run.incident
}

/// Events of no run and no incident that are part of this story all the same.
fn is_around(record: &Record<'_>, incident: Option<&Happened<'_>>, event: &Event) -> bool {
    let from = record.run.plan.from.as_ref();
    match &event.body {
        Body::Changed { trigger, .. } => {
            incident.is_some_and(|incident| incident.triggers.contains(trigger) && record.in_time(event.at, incident))
        }
        Body::Recorded { release } => Some(&release.id) == from,
        Body::Judged { release, .. } | Body::Stands { release, .. } | Body::Baseline { release, .. } => {
            Some(release) == from
        }
        Body::Opened { incident } => Some(&incident.id) == record.run.incident.as_ref(),
        _ => false,
    }
}

/// What a run was and came to, without its steps.
fn is_of_a_life(body: &Body) -> bool {
    matches!(
        body,
        Body::Proposed { .. }
            | Body::Answered { .. }
            | Body::Superseded { .. }
            | Body::Started
            | Body::Helped { .. }
            | Body::Parked { .. }
            | Body::Person { .. }
            | Body::Ended { .. }
            | Body::Told { .. }
            | Body::Noted { .. }
            | Body::Closed { .. }
    )
}
