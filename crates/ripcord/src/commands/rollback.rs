//! Plans: shown, agreed to, carried out.

use std::sync::Arc;

use ripcord_core::{Approval, Ask, Name, NoPlan, RunId, RunState, Rung, Store as _};
use ripcord_engine::{NoProposal, Proposal, Wanted, propose, rung};

use super::agree::agree;
use super::answer::{finish, open_run};
use crate::args::{Aim, Common, Consent};
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::view::plan::{PlanView, Target, ladder, target};
use crate::view::run::RunView;
use crate::work::{Errand, Until, work};
use crate::world::{Reach, Station};

pub async fn plan(common: &Common, screen: &Arc<Screen>, run: Option<RunId>, aim: Aim) -> Result<Exit, Problem> {
    let Some(run) = run else { return rollback_shown(common, screen, &aim).await };
    if aim.is_given() {
        return Err(Problem::new(Exit::Usage, "a run has its plan: nothing of it can be chosen"));
    }
    let station = Station::open(common, screen, Reach::Record).await?;
    let run = ripcord_engine::fold(&station.world, &run).await?;
    screen.line(&RunView::of(&run).headline());
    let ledger = station.store.ledger(station.app()).await?;
    let now = station.world.clock.now();
    let plan = (*run.plan).clone();
    let view = PlanView {
        at: now,
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
    super::shown(screen, &view)
}

async fn rollback_shown(common: &Common, screen: &Arc<Screen>, aim: &Aim) -> Result<Exit, Problem> {
    let station = Station::open(common, screen, Reach::Look).await?;
    let (_, view) = proposed(&station, aim).await?;
    super::shown(screen, &view)
}

pub async fn rollback(
    common: &Common,
    screen: &Arc<Screen>,
    aim: Aim,
    consent: Consent,
    dry_run: bool,
    reason: Option<String>,
) -> Result<Exit, Problem> {
    if dry_run {
        return rollback_shown(common, screen, &aim).await;
    }
    let station = super::acting(common, screen).await?;
    if let Some(exit) = go_on(&station, &consent).await? {
        return Ok(exit);
    }
    let (proposal, view) = proposed(&station, &aim).await?;
    show_before(screen, &view)?;
    let plan = proposal.priced.plan;
    let level = plan.rung.level;
    let given = agree(screen, &plan, &consent, station.world.clock.now(), "Roll back?")?;
    let approve = Some(Approval { plan: Box::new(plan), consent: given });
    let level = if aim.scope.is_empty() { Some(level) } else { aim.level };
    let Aim { to, scope, strategy, .. } = aim;
    let ask = Ask::Rollback { to, strategy, level, scope, reason, approve };
    carry_out(&station, "ripcord rollback", ask, &consent).await
}

pub async fn undo(
    common: &Common,
    screen: &Arc<Screen>,
    run: RunId,
    consent: Consent,
    dry_run: bool,
) -> Result<Exit, Problem> {
    let reach = if dry_run { Reach::Look } else { Reach::Act };
    let station = Station::open(common, screen, reach).await?;
    let proposal = propose(&station.world, &Wanted::Undo { of: run.clone() }).await?;
    let why = format!("where {run} began, as it was captured then");
    let view = PlanView {
        at: station.world.clock.now(),
        target: Target { version: proposal.priced.plan.to_version.clone(), why, ..Target::default() },
        strategy: None,
        ladder: vec![],
        digest: proposal.priced.plan.digest().to_string(),
        estimate: Some(proposal.priced.estimate.clone()),
        advice: proposal.advice.clone(),
        attended: proposal.attended.clone(),
        gives_data_up: proposal.priced.plan.gives_up(),
        plan: proposal.priced.plan.clone(),
    };
    if dry_run {
        return super::shown(screen, &view);
    }
    show_before(screen, &view)?;
    let plan = proposal.priced.plan;
    let given = agree(screen, &plan, &consent, station.world.clock.now(), "Undo it?")?;
    let ask = Ask::Undo { run, approve: Some(Approval { plan: Box::new(plan), consent: given }) };
    carry_out(&station, "ripcord undo", ask, &consent).await
}

/// A run left in the middle by a process that vanished is finished, not planned anew.
async fn go_on(station: &Station, consent: &Consent) -> Result<Option<Exit>, Problem> {
    let Some(row) = open_run(station).await? else { return Ok(None) };
    if !matches!(row.state, RunState::Approved | RunState::Running) {
        return Ok(None);
    }
    let on = ripcord_core::LeaseOn::App(station.app().clone());
    if let Some(holder) = station.store.holder(&on).await? {
        // Until its lease is over nobody can tell a holder that vanished from one that works.
        station.screen.warn(&format!(
            "{} is under way: {} (process {}) has it; following it, and taking it over should that be gone",
            row.id, holder.actor, holder.pid
        ));
    } else {
        station.screen.warn(&format!("{} was left in the middle: going on with it", row.id));
    }
    let until = Until::Over { watch: !consent.watch.no_watch };
    let worked = work(station, Errand { doing: "ripcord rollback", ask: None, run: Some(row.id), until }).await?;
    finish(station, &worked).map(Some)
}

async fn carry_out(station: &Station, doing: &'static str, ask: Ask, consent: &Consent) -> Result<Exit, Problem> {
    let until = Until::Over { watch: !consent.watch.no_watch };
    let worked = work(station, Errand { doing, ask: Some(ask), run: None, until }).await?;
    finish(station, &worked)
}

/// The plan before the question: with `--json` only the outcome is the result.
fn show_before(screen: &Screen, view: &PlanView) -> Result<(), Problem> {
    match screen.json() {
        true => Ok(()),
        false => screen.show(view),
    }
}

/// The plan of the level that was named, else of the lowest that does anything and takes back all that the release changed. None is
/// chosen for anybody that gives data up.
async fn lowest(station: &Station, aim: &Aim) -> Result<Proposal, Problem> {
    let application = &station.world.application;
    let first = rung(application, aim.strategy.as_ref(), aim.level, &aim.scope)?;
    let named = aim.level.is_some() || !aim.scope.is_empty();
    let strategy = aim.strategy.as_ref().unwrap_or(&application.default_strategy);
    let ladder = application.strategies.get(strategy).into_iter().flatten();
    let above: Vec<_> = ladder.filter(|rung| !named && rung.level > first.level).cloned().collect();
    let wanted = |rung: Rung| Wanted::Rollback { to: aim.to.clone(), rung, partial: !aim.scope.is_empty() };
    let why = match propose(&station.world, &wanted(first.clone())).await {
        Err(why @ NoProposal::NoPlan(NoPlan::NothingToDo { .. } | NoPlan::HalfWay { .. })) => why,
        proposal => return Ok(proposal?),
    };
    for rung in above {
        match propose(&station.world, &wanted(rung)).await {
            Ok(proposal) if !proposal.priced.plan.gives_up() => {
                station.screen.warn(&format!("level {} ({}) is passed over: {why}", first.level, first.name));
                return Ok(proposal);
            }
            Err(NoProposal::NoPlan(NoPlan::NothingToDo { .. } | NoPlan::HalfWay { .. })) => {}
            _ => break,
        }
    }
    Err(why.into())
}

async fn proposed(station: &Station, aim: &Aim) -> Result<(Proposal, PlanView), Problem> {
    let world = &station.world;
    let strategy: Name = aim.strategy.clone().unwrap_or_else(|| world.application.default_strategy.clone());
    station.screen.status("looking at every component ..");
    let proposal = lowest(station, aim).await?;
    station.screen.status("pricing every level ..");
    let ledger = station.store.ledger(station.app()).await?;
    let now = world.clock.now();
    let plan = proposal.priced.plan.clone();
    let view = PlanView {
        at: now,
        target: target(&ledger, aim.to.as_deref(), &plan, now),
        ladder: ladder(world, &strategy, aim.to.as_deref(), &proposal).await,
        strategy: Some(strategy),
        digest: plan.digest().to_string(),
        estimate: Some(proposal.priced.estimate.clone()),
        advice: proposal.advice.clone(),
        attended: proposal.attended.clone(),
        gives_data_up: plan.gives_up(),
        plan,
    };
    station.screen.wipe();
    Ok((proposal, view))
}
