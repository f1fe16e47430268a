//! A deployment around somebody's own command.

mod child; // the command itself

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::{AcquireError, Ask, Holder, Reply, RunState, Seq, Store as _};
use ripcord_engine::{Deployed, Holding, Stop, TakeError};
use tokio::time::Instant;

use self::child::{Child, Stage};
use crate::args::{Common, Deploy};
use crate::exit::Exit;
use crate::problem::Problem;
use crate::progress::Progress;
use crate::screen::Screen;
use crate::view::deployed::DeployedView;
use crate::work::Signals;
use crate::world::Station;

/// How long whoever holds the lease may take to let go of it.
const YIELD: Duration = Duration::from_secs(60);

pub async fn deploy(common: &Common, screen: &Arc<Screen>, deploy: Deploy) -> Result<Exit, Problem> {
    let station = super::acting(common, screen).await?;
    let mut signals = Signals::new()?;
    if let Some(why) = ripcord_engine::quarantined(&station.world, &deploy.version).await? {
        // Said before anybody is asked to let go of the lease.
        return ended(&station, &deploy.version, Deployed::Refused { why }).await;
    }
    let doing = format!("ripcord deploy {}", deploy.version);
    let to = format!("the deployment of {}", deploy.version);
    let holding = sit_down(&station, &doing, &to, &mut signals).await?;
    let done = run(&station, &holding, &deploy, &mut signals).await;
    screen.wipe();
    holding.finish("the deployment is over").await;
    ended(&station, &deploy.version, done?).await
}

async fn ended(station: &Station, version: &str, deployed: Deployed) -> Result<Exit, Problem> {
    let waits = match &deployed {
        Deployed::NeedsPerson { run: Some(run), .. } => {
            let rows = station.store.runs(station.app(), 20).await?;
            rows.iter().any(|row| row.id == *run && row.state == RunState::Waiting)
        }
        _ => false,
    };
    let view = DeployedView::of(version, &deployed, waits);
    station.screen.show(&view)?;
    if let Some(next) = view.next() {
        station.screen.hint(&next);
    }
    Ok(view.exit())
}

/// Takes the lease for `doing`; who has it is asked to let go of it, for `to`.
pub(super) async fn sit_down(
    station: &Station,
    doing: &str,
    to: &str,
    signals: &mut Signals,
) -> Result<Holding, Problem> {
    let deadline = Instant::now() + YIELD.max(station.ttl * 2);
    let mut asked: Option<u64> = None;
    loop {
        match Holding::begin(station.world_for(doing), station.ttl).await {
            Ok(holding) => match asked {
                Some(id) if station.store.reply(station.app(), id).await?.is_none() => {
                    // Who was asked is gone, so that the request comes to us: once it is answered the lease is free again.
                    let mut holding = holding;
                    holding.ended().await;
                    holding.finish("it was asked to let go by itself").await;
                    asked = None;
                    continue;
                }
                _ => return Ok(holding),
            },
            Err(TakeError::Acquire(AcquireError::Held { by })) => {
                asked = Some(ask_to_yield(station, to, asked, &by).await?);
                if Instant::now() > deadline {
                    return Err(Problem::new(Exit::Unavailable, "the lease is not let go")
                        .cause(format!("{} (process {}) holds it: {}", by.actor, by.pid, by.doing))
                        .help("`ripcord status` shows what it does; end that process if it hangs"));
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = signals.next() => {
                if let Some(request) = asked {
                    // Nobody is to let go of the lease for somebody who does not come any more.
                    let actor = &station.world.holder.actor;
                    station.store.request(station.app(), actor, &Ask::Withdraw { request }).await?;
                }
                return Err(Problem::new(Exit::Interrupted, "interrupted"));
            }
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}

async fn ask_to_yield(station: &Station, to: &str, asked: Option<u64>, by: &Holder) -> Result<u64, Problem> {
    let Some(id) = asked else {
        station.screen.hint(&format!("asking {} (process {}: {}) to let go of the lease", by.actor, by.pid, by.doing));
        let actor = &station.world.holder.actor;
        return Ok(station.store.request(station.app(), actor, &Ask::Yield { to: to.to_owned() }).await?);
    };
    match station.store.reply(station.app(), id).await? {
        Some(Reply::Refused { why, advice }) => {
            let problem = Problem::new(Exit::Refused, format!("the lease cannot be had for {to}")).cause(why);
            Err(match advice {
                Some(advice) => problem.help(advice),
                None => problem.help("`ripcord status` shows it"),
            })
        }
        Some(Reply::Taken { .. }) | None => Ok(id),
    }
}

/// Deploys, and shows how it goes.
async fn run(
    station: &Station,
    holding: &Holding,
    deploy: &Deploy,
    signals: &mut Signals,
) -> Result<Deployed, Problem> {
    let (mut shown, _) = station.store.head(station.app()).await?;
    let mut progress = Progress::new(&station.screen);
    let child = Child::new(&deploy.command, station.app(), &deploy.version);
    let (desk, board) = (Arc::clone(&holding.desk), Arc::clone(&holding.board));
    let argv = deploy.command.clone();
    let ended = {
        let mut deploying =
            pin!(ripcord_engine::deploy(&desk, &board, &deploy.version, argv, child.run(&station.screen)));
        loop {
            show(station, &mut progress, &mut shown).await?;
            tokio::select! {
                ended = &mut deploying => break ended,
                () = signals.next() => interrupted(station, &child, &deploy.version).await?,
                _ = station.store.wait_changed(station.app(), shown, Duration::from_millis(200)) => {}
            }
            if child.stage() != Stage::Running {
                progress.foot(station.world.clock.now());
            }
        }
    };
    // Where it was dropped, what it had started is ended before this process is.
    child.gone().await;
    show(station, &mut progress, &mut shown).await?;
    match (ended, child.was_interrupted()) {
        (Ok(Deployed::CommandFailed { .. }), true) => Err(Problem::new(Exit::Interrupted, "interrupted")
            .state("the command was ended, and everything is as it was before")),
        (Ok(Deployed::Interrupted { release, why }), true) => Err(Problem::new(Exit::Interrupted, "interrupted")
            .cause(why)
            .state(format!("the command was ended half way; {release} is on record as interrupted"))
            .help("`ripcord rollback` takes it back")),
        (Ok(deployed), _) => Ok(deployed),
        (Err(Stop::Missing { what }), _) => Err(Problem::new(Exit::Internal, format!("the record lacks {what}"))),
        (Err(stop), _) => Err(stop.into()),
    }
}

async fn show(station: &Station, progress: &mut Progress, shown: &mut Seq) -> Result<(), Problem> {
    loop {
        let page = station.store.read(station.app(), *shown, 200).await?;
        let Some(last) = page.last() else { return Ok(()) };
        *shown = last.seq;
        for event in &page {
            progress.take(station, event).await?;
        }
    }
}

/// While the command runs, it is ended; a rollback that has begun is let go on; a bake is left.
async fn interrupted(station: &Station, child: &Child, version: &str) -> Result<(), Problem> {
    match child.stage() {
        Stage::NotYet => return Err(Problem::new(Exit::Interrupted, "interrupted").state("nothing was deployed")),
        Stage::Running => {
            station.screen.warn("ending the command");
            child.interrupt();
            return Ok(());
        }
        Stage::Over => {}
    }
    let runs = station.store.runs(station.app(), 5).await?;
    if let Some(row) = runs.iter().find(|row| matches!(row.state, RunState::Approved | RunState::Running)) {
        station.screen.warn(&format!("{} is taking it back; `ripcord pause {}` stops that", row.id, row.id));
        return Ok(());
    }
    Err(Problem::new(Exit::Interrupted, "interrupted")
        .state(format!("{version} is live, and nobody has judged it: its bake was left"))
        .help(format!(
            "`ripcord watch` bakes it anew and judges it; `ripcord release mark {version} --good --why ..` judges it by hand"
        )))
}
