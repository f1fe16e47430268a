//! What a person says to a run: yes, no, and everything a person may do to it.

use std::sync::Arc;

use ripcord_core::{Answer, Ask, End, ObligationId, Run, RunId, RunRow, RunState, StepId, Store as _, Verb};

use super::agree::agree;
use crate::args::{Common, Consent, OfRun, Watch};
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::view::plan::{PlanView, target};
use crate::view::run::RunView;
use crate::work::{Errand, Until, Worked, work};
use crate::world::Station;

/// The run that is not over.
pub async fn open_run(station: &Station) -> Result<Option<RunRow>, Problem> {
    let rows = station.store.runs(station.app(), 20).await?;
    Ok(rows.into_iter().find(|row| !matches!(row.state, RunState::Ended(_))))
}

async fn run_of(station: &Station, of: OfRun) -> Result<RunId, Problem> {
    if let Some(run) = of.run {
        return Ok(run);
    }
    let open = open_run(station).await?;
    open.map(|row| row.id).ok_or_else(|| {
        Problem::new(Exit::NothingToDo, "no run is under way").help("`ripcord status` shows what there is")
    })
}

/// Shows how the run then stands, and ends as it did.
pub fn finish(station: &Station, worked: &Worked) -> Result<Exit, Problem> {
    let screen = &station.screen;
    if let Some(said) = &worked.said
        && !screen.json()
        && !said.starts_with("proposed as")
    {
        screen.line(said);
    }
    let Some(run) = &worked.run else { return Ok(Exit::Done) };
    let view = RunView::of(run);
    screen.show(&view)?;
    if let Some(next) = view.next() {
        screen.hint(&next);
    }
    Ok(match worked {
        Worked { interrupted: true, .. } => Exit::Interrupted,
        // What was asked for was done and did not help; that the next level waits for people is what follows.
        Worked { climbed: true, .. } if run.state == RunState::Waiting => Exit::Insufficient,
        _ => exit_of(run),
    })
}

/// How a command ends whose work was this run.
fn exit_of(run: &Run) -> Exit {
    match &run.state {
        RunState::Ended(End::Succeeded) | RunState::Watching { .. } => Exit::Done,
        // Still on its way, in other hands or paused as was asked.
        RunState::Approved | RunState::Running => Exit::Done,
        RunState::Ended(End::Insufficient) => Exit::Insufficient,
        RunState::Parked(_) => Exit::Parked,
        RunState::Waiting => Exit::Refused,
        RunState::Ended(End::Declined | End::Expired | End::Superseded | End::Abandoned { .. }) => Exit::Refused,
    }
}

pub async fn approve(
    common: &Common,
    screen: &Arc<Screen>,
    of: OfRun,
    consent: Consent,
    digest: Option<String>,
    reason: Option<String>,
) -> Result<Exit, Problem> {
    let station = super::acting(common, screen).await?;
    let id = run_of(&station, of).await?;
    let run = ripcord_engine::fold(&station.world, &id).await?;
    if let Some(digest) = digest
        && !same_plan(&run, &digest)
    {
        let what = format!("{id} is plan {}, not {digest}", run.digest.short());
        return Err(Problem::new(Exit::Refused, what).help(format!("`ripcord plan {id}` shows it")));
    }
    if !consent.yes {
        show(&station, &run).await?;
    }
    let now = station.world.clock.now();
    let given = agree(screen, &run.plan, &consent, now, &format!("Approve {id}?"))?;
    let ask = Ask::Answer { run: id.clone(), plan: run.digest, answer: Answer::Approve, reason, consent: given };
    let until = Until::Over { watch: !consent.watch.no_watch };
    let worked = work(&station, Errand { doing: "ripcord approve", ask: Some(ask), run: Some(id), until }).await?;
    finish(&station, &worked)
}

/// Whether `typed` is the beginning of the digest, with or without its scheme; at least eight digits of it.
fn same_plan(run: &Run, typed: &str) -> bool {
    let typed = typed.strip_prefix("sha256:").unwrap_or(typed);
    typed.len() >= 8 && run.digest.hex().starts_with(typed)
}

async fn show(station: &Station, run: &Run) -> Result<(), Problem> {
    let ledger = station.store.ledger(station.app()).await?;
    let plan = (*run.plan).clone();
    let view = PlanView {
        at: station.world.clock.now(),
        target: target(&ledger, None, &plan, run.proposed),
        strategy: None,
        ladder: vec![],
        digest: run.digest.to_string(),
        estimate: None,
        advice: None,
        attended: None,
        gives_data_up: plan.gives_up(),
        plan,
    };
    match station.screen.json() {
        true => Ok(()),
        false => station.screen.show(&view),
    }
}

pub async fn decline(
    common: &Common,
    screen: &Arc<Screen>,
    of: OfRun,
    reason: Option<String>,
) -> Result<Exit, Problem> {
    let station = super::acting(common, screen).await?;
    let id = run_of(&station, of).await?;
    let run = ripcord_engine::fold(&station.world, &id).await?;
    let ask = Ask::Answer { run: id.clone(), plan: run.digest, answer: Answer::Decline, reason, consent: None };
    let errand = Errand { doing: "ripcord decline", ask: Some(ask), run: Some(id), until: Until::Answered };
    done_when_said(&station, errand).await
}

/// For what is done once it is said, however the run then stands.
async fn done_when_said(station: &Station, errand: Errand) -> Result<Exit, Problem> {
    let worked = work(station, errand).await?;
    finish(station, &worked)?;
    Ok(if worked.interrupted { Exit::Interrupted } else { Exit::Done })
}

fn errand(doing: &'static str, run: RunId, verb: Verb, until: Until) -> Errand {
    Errand { doing, ask: Some(Ask::Run { run: run.clone(), verb }), run: Some(run), until }
}

async fn carry_on(
    common: &Common,
    screen: &Arc<Screen>,
    doing: &'static str,
    of: OfRun,
    verb: Verb,
    watch: Watch,
) -> Result<Exit, Problem> {
    let station = super::acting(common, screen).await?;
    let run = run_of(&station, of).await?;
    let worked = work(&station, errand(doing, run, verb, Until::Over { watch: !watch.no_watch })).await?;
    finish(&station, &worked)
}

pub async fn pause(common: &Common, screen: &Arc<Screen>, of: OfRun) -> Result<Exit, Problem> {
    let station = super::acting(common, screen).await?;
    let run = run_of(&station, of).await?;
    done_when_said(&station, errand("ripcord pause", run, Verb::Pause, Until::Paused)).await
}

pub async fn resume(common: &Common, screen: &Arc<Screen>, of: OfRun, watch: Watch) -> Result<Exit, Problem> {
    carry_on(common, screen, "ripcord resume", of, Verb::Resume, watch).await
}

pub async fn retry(
    common: &Common,
    screen: &Arc<Screen>,
    of: OfRun,
    step: Option<StepId>,
    watch: Watch,
) -> Result<Exit, Problem> {
    carry_on(common, screen, "ripcord retry", of, Verb::Retry { step }, watch).await
}

pub async fn skip(
    common: &Common,
    screen: &Arc<Screen>,
    run: RunId,
    step: StepId,
    reason: String,
    watch: Watch,
) -> Result<Exit, Problem> {
    carry_on(common, screen, "ripcord skip", OfRun { run: Some(run) }, Verb::Skip { step, reason }, watch).await
}

pub async fn done(
    common: &Common,
    screen: &Arc<Screen>,
    run: RunId,
    step: StepId,
    evidence: String,
    watch: Watch,
) -> Result<Exit, Problem> {
    carry_on(common, screen, "ripcord done", OfRun { run: Some(run) }, Verb::Done { step, evidence }, watch).await
}

pub async fn take(
    common: &Common,
    screen: &Arc<Screen>,
    run: RunId,
    obligation: ObligationId,
    reason: String,
) -> Result<Exit, Problem> {
    let station = super::acting(common, screen).await?;
    done_when_said(&station, errand("ripcord take", run, Verb::Take { obligation, reason }, Until::Answered)).await
}

pub async fn abandon(common: &Common, screen: &Arc<Screen>, of: OfRun, reason: String) -> Result<Exit, Problem> {
    let station = super::acting(common, screen).await?;
    let run = run_of(&station, of).await?;
    done_when_said(&station, errand("ripcord abandon", run, Verb::Abandon { reason }, Until::Answered)).await
}
