//! Holding the lease: signals are read, breaches decided on, requests answered, runs carried out, captures looked after, until
//! interrupted.

use std::sync::Arc;
use std::time::Duration;

use ripcord_core::{Body, RunState, Seq, Store as _};
use ripcord_engine::Pace;

use super::answer::open_run;
use crate::args::Common;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::view::log::EventLine;
use crate::work::{Seat, Signals};
use crate::world::Station;

pub async fn watch(common: &Common, screen: &Arc<Screen>, upkeep_after: Option<Duration>) -> Result<Exit, Problem> {
    let station = super::acting(common, screen).await?;
    let mut signals = Signals::new()?;
    let pace = Pace { prove: station.world.application.policy.prove_every, ..Pace::default() };
    let pace = Pace { first: upkeep_after.unwrap_or(pace.first), look: upkeep_after.unwrap_or(pace.look), ..pace };
    let mut seat = Seat::new(&station, "ripcord watch").with_upkeep(pace);
    let (mut shown, _) = station.store.head(station.app()).await?;
    let triggers = station.world.application.triggers.len() as u64;
    screen.hint(&format!("watching {}: {}; Ctrl-C ends it", station.app(), crate::words::count(triggers, "trigger")));
    let mut ending = false;
    let ended = loop {
        match turn(&station, &mut seat, &mut signals, &mut shown, &mut ending).await {
            Ok(true) => {}
            Ok(false) => break Ok(Exit::Done),
            Err(problem) => break Err(problem),
        }
    };
    seat.leave("watching ends").await;
    ended
}

/// One round. Returns whether there is another.
async fn turn(
    station: &Station,
    seat: &mut Seat<'_>,
    signals: &mut Signals,
    shown: &mut Seq,
    ending: &mut bool,
) -> Result<bool, Problem> {
    seat.tend().await?;
    show(station, shown).await?;
    if *ending && !in_the_middle(station, seat).await? {
        return Ok(false);
    }
    tokio::select! {
        () = signals.next() => {
            if *ending || !in_the_middle(station, seat).await? {
                return Ok(false);
            }
            *ending = true;
            station.screen.warn("a run is in the middle: ending after it; once more leaves it to the next holder");
        }
        why = seat.stopped() => seat.vacate(why).await?,
        _ = station.store.wait_changed(station.app(), *shown, Duration::from_millis(200)) => {}
    }
    Ok(true)
}

/// Whether this process carries out a run that has steps left.
async fn in_the_middle(station: &Station, seat: &Seat<'_>) -> Result<bool, Problem> {
    let open = open_run(station).await?;
    let running = open.is_some_and(|row| matches!(row.state, RunState::Approved | RunState::Running));
    Ok(seat.is_holding() && running)
}

async fn show(station: &Station, shown: &mut Seq) -> Result<(), Problem> {
    loop {
        let page = station.store.read(station.app(), *shown, 200).await?;
        let Some(last) = page.last() else { return Ok(()) };
        *shown = last.seq;
        // The beginning of a step is news only where its end never comes.
        for event in page.iter().filter(|event| !matches!(event.body, Body::Intent { .. })) {
            station.screen.show_line(&EventLine(event))?;
        }
    }
}
