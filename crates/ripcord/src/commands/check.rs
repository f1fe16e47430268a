//! Mistakes in the configuration, and what can be seen of what it names; checks run by hand.

use std::sync::Arc;

use ripcord_adapters::Adapters;
use ripcord_adapters::hosts::Links;
use ripcord_config::Loaded;
use ripcord_core::{Check, Inventory, Reading, Store as _};
use ripcord_engine::{Board, interesting, last_baselines, run_checks, survey};
use tokio::task::JoinSet;

use crate::args::Common;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::site;
use crate::view::check::{CheckLine, Checked, HostLine, Live, SignalLine, Verified};
use crate::world::{Reach, Station};

pub async fn check(common: &Common, screen: &Arc<Screen>, live: bool) -> Result<Exit, Problem> {
    let path = site::file(common)?;
    let file = path.display().to_string();
    let loaded = ripcord_config::load::<Adapters>(&path, common.environment.as_deref());
    let mut view = match loaded {
        Ok(loaded) => checked(file, screen, &loaded),
        Err(report) => Checked {
            ok: false,
            file,
            app: None,
            environments: vec![],
            counts: vec![],
            report,
            live: None,
            colour: screen.colour(),
        },
    };
    if !view.ok {
        screen.show(&view)?;
        return Ok(Exit::Usage);
    }
    if live {
        view.live = Some(look(common, screen).await?);
    }
    screen.show(&view)?;
    Ok(match view.live.is_none_or(|live| live.is_well()) {
        true => Exit::Done,
        false => Exit::CheckFailed,
    })
}

fn checked(file: String, screen: &Screen, loaded: &Loaded<Adapters>) -> Checked {
    let application = &loaded.application;
    let counts = [
        ("component", application.components.len()),
        ("signal", application.signals.len()),
        ("trigger", application.triggers.len()),
        ("check", application.checks.len()),
        ("channel", loaded.channels.len()),
    ];
    Checked {
        ok: true,
        file,
        app: Some(application.id.clone()),
        environments: loaded.environments.clone(),
        counts: counts.into_iter().filter(|(_, n)| *n > 0).collect(),
        report: loaded.warnings.clone(),
        live: None,
        colour: screen.colour(),
    }
}

/// Looks at everything once. Without a record there is nothing to come back to, and still everything to see.
async fn look(common: &Common, screen: &Arc<Screen>) -> Result<Live, Problem> {
    screen.status("looking at every component ..");
    match Station::open_if_there(common, screen, Reach::Look).await? {
        Ok(station) => {
            let ledger = station.store.ledger(station.app()).await?;
            let now = station.world.clock.now();
            let good = ledger.last_known_good(now).ok();
            let hosts = hosts(&station.links).await;
            let seen = survey(&station.world, &interesting(&ledger, good)).await;
            Ok(Live::of(hosts, &seen, good, signals(&station.world).await))
        }
        Err(site) => {
            let (world, links) = crate::world::unrecorded(&site, screen, Reach::Look)?;
            let hosts = hosts(&links).await;
            let seen: Inventory = survey(&world, &[]).await;
            Ok(Live::of(hosts, &seen, None, signals(&world).await))
        }
    }
}

/// Connects to every host at once.
async fn hosts(links: &Links) -> Vec<HostLine> {
    let mut reaching = JoinSet::new();
    for (host, link) in links.clone() {
        reaching.spawn(async move { HostLine::of(host, link.reach().await) });
    }
    let mut lines = reaching.join_all().await;
    lines.sort_by(|a, b| a.host.cmp(&b.host));
    lines
}

/// Reads every signal once.
async fn signals(world: &ripcord_engine::World) -> Vec<SignalLine> {
    let mut reading = JoinSet::new();
    for (id, signal) in world.parts.signals.clone() {
        // Signals of checks are not among the declared ones, and have the usual limit.
        let limit = world.application.signals.get(&id).map_or(std::time::Duration::from_secs(5), |spec| spec.timeout);
        let cx = world.cx(limit);
        reading.spawn(async move {
            let read = tokio::time::timeout(limit, signal.read(&cx)).await;
            let late = Reading::Failed { why: format!("no answer within {}", ripcord_core::human(limit)) };
            SignalLine { signal: id, unit: signal.unit(), reading: read.unwrap_or(late) }
        });
    }
    let mut lines = reading.join_all().await;
    lines.sort_by(|a, b| a.signal.cmp(&b.signal));
    lines
}

/// Runs every check against what is live. Nothing of it is put on record.
pub async fn verify(common: &Common, screen: &Arc<Screen>) -> Result<Exit, Problem> {
    let (world, version) = match Station::open_if_there(common, screen, Reach::Look).await? {
        Ok(station) => {
            let ledger = station.store.ledger(station.app()).await?;
            (station.world.clone(), ledger.live().map(|live| live.version.clone()))
        }
        Err(site) => (crate::world::unrecorded(&site, screen, Reach::Look)?.0, None),
    };
    if world.application.checks.is_empty() {
        return Err(Problem::new(Exit::NothingToDo, "no check is configured")
            .help("add checks under `verify:`, or `health:` of a component"));
    }
    screen.status("checking ..");
    // As whoever holds the lease would run them: against what was normal before the newest release.
    let board = Board::with_baselines(last_baselines(&world).await?);
    let results = run_checks(&world, &board, version.as_deref().unwrap_or_default()).await;
    let passed = results.iter().all(|(_, verdict)| matches!(verdict, Check::Pass { .. }));
    let checks = results.into_iter().map(|(check, verdict)| CheckLine { check, verdict }).collect();
    screen.show(&Verified { version, passed, checks })?;
    Ok(if passed { Exit::Done } else { Exit::CheckFailed })
}
