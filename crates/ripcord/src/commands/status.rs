//! Everything at a glance. Quick, because it is asked in a hurry: the record alone is read, unless `--live` looks.

use std::sync::Arc;

use jiff::Timestamp;
use ripcord_core::{CaptureRow, LeaseOn, Ledger, Recorded, Release, RunState, TriggerState};
use ripcord_engine::{Readiness, World, baking, interesting, readiness, survey};

use crate::args::Common;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::view::check::Live;
use crate::view::releases::Line;
use crate::view::run::RunView;
use crate::view::status::{Answer, Asked, Back, Bake, Held, Status, TriggerLine};
use crate::world::{Reach, Station, unrecorded};

/// How many of the latest runs are looked into for what they left off.
const RUNS: usize = 5;

pub async fn status(common: &Common, screen: &Arc<Screen>, live: bool) -> Result<Exit, Problem> {
    let reach = if live { Reach::Look } else { Reach::Record };
    let world = match Station::open_if_there(common, screen, reach).await? {
        Ok(station) => station.world,
        Err(site) => {
            screen.hint("nothing is recorded yet; `ripcord release record VERSION` records what is live");
            unrecorded(&site, screen, reach)?.0
        }
    };
    super::shown(screen, &read(&world, live).await?)
}

async fn read(world: &World, look: bool) -> Result<Status, Problem> {
    let (store, app) = (&world.store, world.app());
    let at = world.clock.now();
    let ledger = store.ledger(app).await?;
    let captures = store.captures(app).await?;
    let memories = store.memories(app).await?;
    let incident = store.incidents(app, 20).await?.into_iter().find(|incident| incident.closed.is_none());
    let mut triggers = vec![];
    let (mut triggers_ok, mut triggers_unknown) = (0, vec![]);
    for (id, rule) in &world.application.triggers {
        match memories.get(id) {
            None => triggers_unknown.push(id.clone()),
            Some(memory) if memory.state == TriggerState::Ok => triggers_ok += 1,
            Some(memory) => triggers.push(TriggerLine::of(id, rule.severity, memory)),
        }
    }
    triggers.sort_by_key(|line| line.severity);
    let (mut run, mut off) = (None, vec![]);
    for row in store.runs(app, RUNS).await? {
        let view = RunView::of(&ripcord_engine::fold(world, &row.id).await?);
        match row.state {
            RunState::Ended(_) => off.extend(view.off.into_iter().map(|off| (row.id.to_string(), off))),
            _ if run.is_none() => run = Some(view),
            _ => {}
        }
    }
    let good = ledger.last_known_good(at).ok();
    let (seen, ready) = match look {
        true => {
            let seen = Live::of(vec![], &survey(world, &interesting(&ledger, good)).await, good, vec![]);
            (Some(seen), Some(readiness(world).await?))
        }
        false => (None, None),
    };
    let holder = store.holder(&LeaseOn::App(app.clone())).await?;
    Ok(Status {
        app: app.clone(),
        at,
        live: ledger.live().map(|live| Line::of(live, &ledger, at)),
        baking: baking(world, &ledger).await?.map(|baking| Bake::of(&baking, holder.is_some())),
        back: back(&ledger, &captures, ready.as_ref(), at),
        triggers,
        triggers_ok,
        triggers_unknown,
        incident,
        run,
        off,
        holder,
        requests: store.requests(app).await?.iter().map(Asked::of).collect(),
        seen,
    })
}

/// Can we go back? By the record, and by what was seen where somebody looked.
fn back(ledger: &Ledger, captures: &[CaptureRow], ready: Option<&Readiness>, at: Timestamp) -> Back {
    let good = match ledger.last_known_good(at) {
        Ok(good) => good,
        Err(why) => return Back { answer: Answer::No, to: None, why: why.to_string(), captures: vec![] },
    };
    let held = held(good, captures);
    let spoiled = held.iter().filter(|held| held.problem.is_some()).count();
    let (answer, found) = match (spoiled, ready) {
        (0, Some(ready)) if ready.is_ready() => (Answer::Yes, "seen to be all there".to_owned()),
        (_, Some(ready)) => (Answer::No, ready.blockers.join("; ")),
        (0, None) => (Answer::Yes, "by the record; `--live` looks".to_owned()),
        (n, None) => (Answer::No, format!("{} cannot be relied on", crate::words::count(n as u64, "capture"))),
    };
    let why = format!("{} ({}), the last known good, {found}", good.version, good.id);
    Back { answer, to: Some(Line::of(good, ledger, at)), why, captures: held }
}

fn held(release: &Release, captures: &[CaptureRow]) -> Vec<Held> {
    let of = |(place, at): (&ripcord_core::Place, &Recorded)| {
        let row = captures.iter().find(|row| Some(&row.id) == at.capture.as_ref());
        let problem = match (&at.capture, row) {
            (None, _) => None, // Held by the system itself, or nothing to hold: only a look can tell.
            (Some(_), None) => Some("it is not on record".to_owned()),
            (Some(_), Some(row)) if row.pruned => Some("it was pruned".to_owned()),
            (Some(_), Some(row)) => row.spoiled.as_ref().map(|why| format!("it is spoiled: {why}")),
        };
        Held { place: place.clone(), capture: at.capture.clone(), at: row.map(|row| row.at), problem }
    };
    release.map.iter().map(of).collect()
}
