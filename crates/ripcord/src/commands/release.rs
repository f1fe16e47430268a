//! The ledger: what was released, how it turned out, and which versions are kept out.

use std::collections::BTreeMap;
use std::sync::Arc;

use ripcord_core::{Ask, Ledger, Release as Recorded, Store as _};

use super::request;
use crate::args::{Common, Release};
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::view::releases::{Diff, Line, List, Show};
use crate::view::said::Said;
use crate::world::{Reach, Station};

pub async fn release(common: &Common, screen: &Arc<Screen>, release: Release) -> Result<Exit, Problem> {
    match release {
        Release::List => list(common, screen).await,
        Release::Show { release } => show(common, screen, &release).await,
        Release::Record { version } => {
            let station = Station::open(common, screen, Reach::Act).await?;
            asked(&station, "ripcord release record", Ask::Record { version }).await
        }
        Release::Mark { release, good, bad: _, why } => {
            let station = super::acting(common, screen).await?;
            asked(&station, "ripcord release mark", Ask::Mark { release, good, why }).await
        }
        Release::Diff { from, to } => {
            let station = Station::open(common, screen, Reach::Record).await?;
            let ledger = station.store.ledger(station.app()).await?;
            super::shown(screen, &Diff::of(find(&ledger, &from)?, find(&ledger, &to)?))
        }
        Release::Check { version } => may_deploy(common, screen, &version).await,
        Release::Lift { version, why } => {
            let station = super::acting(common, screen).await?;
            asked(&station, "ripcord release lift", Ask::Lift { version, why }).await
        }
    }
}

async fn asked(station: &Station, doing: &'static str, ask: Ask) -> Result<Exit, Problem> {
    let worked = request(station, doing, ask).await?;
    super::shown(&station.screen, &Said::new(worked.said.unwrap_or_else(|| "done".to_owned())))
}

async fn list(common: &Common, screen: &Arc<Screen>) -> Result<Exit, Problem> {
    let station = Station::open(common, screen, Reach::Record).await?;
    let ledger = station.store.ledger(station.app()).await?;
    let now = station.world.clock.now();
    let releases = ledger.releases.iter().rev().map(|release| Line::of(release, &ledger, now)).collect();
    super::shown(screen, &List { releases, quarantined: ledger.quarantined.values().cloned().collect() })
}

async fn show(common: &Common, screen: &Arc<Screen>, typed: &str) -> Result<Exit, Problem> {
    let station = Station::open(common, screen, Reach::Record).await?;
    let ledger = station.store.ledger(station.app()).await?;
    let release = find(&ledger, typed)?;
    let mut spoiled = BTreeMap::new();
    for row in station.store.captures(station.app()).await? {
        let why = row.spoiled.or_else(|| row.pruned.then(|| "pruned".to_owned()));
        if let Some(why) = why.filter(|_| release.map.values().any(|at| at.capture.as_ref() == Some(&row.id))) {
            spoiled.insert(row.id, why);
        }
    }
    let line = Line::of(release, &ledger, station.world.clock.now());
    let (map, config) = (release.map.clone(), release.config.to_string());
    super::shown(screen, &Show { release: line, map, config, spoiled })
}

fn find<'a>(ledger: &'a Ledger, typed: &str) -> Result<&'a Recorded, Problem> {
    ledger.typed(typed).ok_or_else(|| {
        Problem::new(Exit::Refused, format!("`{typed}` names no recorded release"))
            .help("`ripcord release list` shows them")
    })
}

/// For a pipeline, which asks before it builds or deploys. A version nobody has heard of may be deployed.
async fn may_deploy(common: &Common, screen: &Arc<Screen>, version: &str) -> Result<Exit, Problem> {
    if let Ok(station) = Station::open_if_there(common, screen, Reach::Record).await?
        && let Some(why) = ripcord_engine::quarantined(&station.world, version).await?
    {
        return Err(Problem::new(Exit::Refused, format!("version {version} may not be deployed"))
            .cause(why)
            .help(format!("`ripcord release lift {version} --why ..` lets it in again")));
    }
    super::shown(screen, &Said::new(format!("version {version} may be deployed")))
}
