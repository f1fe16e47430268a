//! Why: stored evidence, and the verdict derived from it again.

use std::sync::Arc;

use ripcord_core::{Body, Digest, Event, Evidence, Run, RunId, Seq, Store as _, TriggerId, TriggerState};

use crate::args::Common;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::view::explain::{Explained, VerdictOf, memory};
use crate::words;
use crate::world::{Reach, Station};

pub async fn explain(common: &Common, screen: &Arc<Screen>, typed: &str) -> Result<Exit, Problem> {
    let station = Station::open(common, screen, Reach::Record).await?;
    let explained = match meant(&station, typed) {
        Meant::Event(seq) => event(&station, seq).await?,
        Meant::Run(run) => of_run(&station, &run).await?,
        Meant::Trigger(trigger) => of_trigger(&station, &trigger).await?,
        Meant::Nothing => {
            return Err(Problem::new(Exit::Usage, format!("`{typed}` is no trigger, event or run"))
                .help("`ripcord status` shows triggers and runs, `ripcord log` events"));
        }
    };
    screen.show(&explained)?;
    Ok(match explained.verdicts.iter().all(|verdict| verdict.agrees) {
        true => Exit::Done,
        false => Exit::CheckFailed,
    })
}

enum Meant {
    Event(Seq),
    Run(RunId),
    Trigger(TriggerId),
    Nothing,
}

fn meant(station: &Station, typed: &str) -> Meant {
    if let Ok(seq) = typed.parse() {
        return Meant::Event(Seq(seq));
    }
    match typed.parse::<TriggerId>() {
        Ok(trigger) if station.world.application.triggers.contains_key(&trigger) => Meant::Trigger(trigger),
        _ if typed.starts_with("run-") => Meant::Run(RunId::typed(typed)),
        _ => Meant::Nothing,
    }
}

async fn evidence(station: &Station, digest: &Digest) -> Result<Option<Evidence>, Problem> {
    let Some(bytes) = station.store.blob(digest).await? else { return Ok(None) };
    let evidence: Evidence = serde_json::from_slice(&bytes).map_err(|error| {
        Problem::new(Exit::Unavailable, format!("evidence {} cannot be read", digest.short()))
            .cause(error.to_string())
            .help("it may be of a newer version of Ripcord")
    })?;
    Ok(Some(evidence))
}

async fn verdict(station: &Station, event: &Event) -> Result<Option<VerdictOf>, Problem> {
    let Body::Changed { trigger, evidence: digest, .. } = &event.body else { return Ok(None) };
    let evidence = evidence(station, digest).await?;
    Ok(Some(VerdictOf::of(event.seq.0, event.at, trigger.clone(), evidence)))
}

async fn event(station: &Station, seq: Seq) -> Result<Explained, Problem> {
    let before = Seq(seq.0.saturating_sub(1));
    let found = station.store.read(station.app(), before, 1).await?.into_iter().find(|event| event.seq == seq);
    let Some(event) = found else {
        return Err(Problem::new(Exit::Refused, format!("there is no event {seq}")).help("`ripcord log` shows them"));
    };
    let decision = match &event.body {
        Body::Decided { decision } => Some((**decision).clone()),
        _ => None,
    };
    let verdicts = verdict(station, &event).await?.into_iter().collect();
    let what = format!("event {seq}, {}: {}", words::when(event.at), words::event(&event));
    Ok(Explained { what, verdicts, decision, notes: vec![] })
}

/// The last verdict that changed anything.
async fn of_trigger(station: &Station, trigger: &TriggerId) -> Result<Explained, Problem> {
    let is_ours = |event: &Event| matches!(&event.body, Body::Changed { trigger: of, .. } if of == trigger);
    let mut verdicts = vec![];
    if let Some(event) = last(station, &is_ours).await? {
        verdicts.extend(verdict(station, &event).await?);
    }
    let memories = station.store.memories(station.app()).await?;
    let notes = match memories.get(trigger) {
        Some(now) => vec![format!("now: {}", memory(now))],
        None => vec!["it was never read: `ripcord watch` reads it".to_owned()],
    };
    let what = match verdicts.is_empty() {
        true => format!("trigger {trigger} has not changed since it is on record"),
        false => format!("trigger {trigger}, when it last changed"),
    };
    Ok(Explained { what, verdicts, decision: None, notes })
}

/// The newest event that is wanted, read from the end.
async fn last(station: &Station, wanted: &dyn Fn(&Event) -> bool) -> Result<Option<Event>, Problem> {
    const PAGE: usize = 1000;
    let (mut end, _) = station.store.head(station.app()).await?;
    while end.0 > 0 {
        let from = Seq(end.0.saturating_sub(PAGE as u64));
        let page = station.store.read(station.app(), from, PAGE).await?;
        if let Some(found) = page.into_iter().rev().find(|event| event.seq <= end && wanted(event)) {
            return Ok(Some(found));
        }
        end = from;
    }
    Ok(None)
}

/// What a run was begun for: the decision, and the breaches it was made on.
async fn of_run(station: &Station, id: &RunId) -> Result<Explained, Problem> {
    let run: Run = ripcord_engine::fold(&station.world, id).await?;
    let mut explained = Explained {
        what: format!("{id} ({}), proposed by {}", ripcord_engine::aim(&run), run.by),
        verdicts: vec![],
        decision: None,
        notes: vec![],
    };
    let Some(incident) = &run.incident else {
        explained.notes.push("it was asked for by a person: no breach and no decision stand behind it".to_owned());
        return Ok(explained);
    };
    let about = station.store.incidents(station.app(), 1000).await?.into_iter().find(|known| known.id == *incident);
    let triggers = about.map(|incident| incident.triggers).unwrap_or_default();
    let mut breaches = std::collections::BTreeMap::new();
    let mut after = Seq(0);
    loop {
        let page = station.store.read(station.app(), after, 1000).await?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        for event in page.into_iter().filter(|event| event.at <= run.proposed) {
            match &event.body {
                Body::Decided { decision } if event.incident.as_ref() == Some(incident) => {
                    explained.decision = Some((**decision).clone());
                }
                // The last breach before the run is the one that counted.
                Body::Changed { trigger, state: TriggerState::Breached { .. }, .. } if triggers.contains(trigger) => {
                    breaches.insert(trigger.clone(), event);
                }
                _ => {}
            }
        }
    }
    for event in breaches.values() {
        explained.verdicts.extend(verdict(station, event).await?);
    }
    Ok(explained)
}
