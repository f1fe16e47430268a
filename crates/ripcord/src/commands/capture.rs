//! What revisions can be restored from: listed, read back, restored beside everything that is live, exported.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use ripcord_core::{Ask, CaptureId, CaptureRow, ComponentId, HeldIn, ProofLevel, Store as _};
use ripcord_engine::{Found, Shelf, manifest};
use ripcord_vault::{Vault, VaultError};

use super::deploy::sit_down;
use super::request;
use crate::args::{Capture, Common};
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::view::captures::{Line, List, Pruned, Read, Verified};
use crate::view::said::Said;
use crate::work::Signals;
use crate::world::{Reach, Station};

pub async fn capture(common: &Common, screen: &Arc<Screen>, capture: Capture) -> Result<Exit, Problem> {
    match capture {
        Capture::List { component } => list(common, screen, component.as_ref()).await,
        Capture::Verify { capture } => verify(common, screen, capture.as_ref()).await,
        Capture::Restore { capture, to } => restore(common, screen, &capture, &to).await,
        Capture::Export { capture } => export(common, screen, &capture).await,
        Capture::Prune { dry_run } => prune(common, screen, dry_run).await,
    }
}

async fn list(common: &Common, screen: &Arc<Screen>, component: Option<&ComponentId>) -> Result<Exit, Problem> {
    let station = Station::open(common, screen, Reach::Record).await?;
    let pinned = station.store.ledger(station.app()).await?.pinned(station.world.clock.now());
    let mut rows = station.store.captures(station.app()).await?;
    rows.retain(|row| component.is_none_or(|component| row.of.component == *component));
    rows.sort_by_key(|row| std::cmp::Reverse(row.at));
    super::shown(screen, &List { captures: rows.iter().map(|row| Line::of(row, pinned.contains(&row.id))).collect() })
}

/// What was found is put on record: `status` answers by it.
async fn verify(common: &Common, screen: &Arc<Screen>, capture: Option<&CaptureId>) -> Result<Exit, Problem> {
    let station = super::acting(common, screen).await?;
    let rows: Vec<CaptureRow> = match capture {
        Some(id) => vec![find(&station, id).await?],
        None => {
            let rows = station.store.captures(station.app()).await?.into_iter();
            rows.filter(|row| !row.pruned && matches!(row.made.held, HeldIn::Vault { .. })).collect()
        }
    };
    let shelf = shelf(&station)?;
    let mut findings = vec![];
    for row in &rows {
        screen.status(&format!("reading {} back ..", row.id));
        match shelf.read_back(row).await? {
            Found::Whole => findings.push((row, None)),
            Found::Spoiled { why } => findings.push((row, Some(why))),
        }
    }
    screen.wipe();
    record(&station, &findings).await?;
    let read = |(row, why): &(&CaptureRow, Option<String>)| Read {
        capture: row.id.clone(),
        of: row.of.clone(),
        whole: why.is_none(),
        why: why.clone(),
    };
    let view = Verified { captures: findings.iter().map(read).collect() };
    screen.show(&view)?;
    Ok(match view.captures.iter().all(|read| read.whole) {
        true => Exit::Done,
        false => Exit::CheckFailed,
    })
}

/// Puts on record what is news: a capture found spoiled, or proven further than it was known to be.
async fn record(station: &Station, findings: &[(&CaptureRow, Option<String>)]) -> Result<(), Problem> {
    let mut news: Vec<Ask> = findings
        .iter()
        .filter_map(|(row, why)| match why {
            Some(why) if row.spoiled.is_none() => Some(Ask::Spoiled { capture: row.id.clone(), why: why.clone() }),
            None if row.made.proof < ProofLevel::ReadBack => {
                Some(Ask::Proven { capture: row.id.clone(), level: ProofLevel::ReadBack })
            }
            _ => None,
        })
        .collect();
    let Some(last) = news.pop() else { return Ok(()) };
    // Requests are answered in order, so that the answer to the last is the answer to all.
    for ask in news {
        station.store.request(station.app(), &station.world.holder.actor, &ask).await?;
    }
    request(station, "ripcord capture verify", last).await.map(drop)
}

async fn restore(common: &Common, screen: &Arc<Screen>, id: &CaptureId, to: &Path) -> Result<Exit, Problem> {
    let station = Station::open(common, screen, Reach::Look).await?;
    let row = find(&station, id).await?;
    let (vault, manifest, into) = (vault(&station)?, manifest(&row)?, to.to_owned());
    let entries = manifest.entries.len();
    blocking(move || vault.restore(&manifest, &into)).await??;
    let what = format!("{id} of `{}` is restored to {}: files, directories and links: {entries}", row.of, to.display());
    super::shown(screen, &Said::new(what))
}

async fn export(common: &Common, screen: &Arc<Screen>, id: &CaptureId) -> Result<Exit, Problem> {
    if std::io::stdout().is_terminal() {
        return Err(Problem::new(Exit::Usage, "an archive is not for a terminal")
            .help(format!("`ripcord capture export {id} > {id}.tar`")));
    }
    let station = Station::open(common, screen, Reach::Look).await?;
    let row = find(&station, id).await?;
    let (vault, manifest) = (vault(&station)?, manifest(&row)?);
    blocking(move || {
        let mut out = std::io::stdout().lock();
        vault.export(&manifest, &mut out)?;
        out.flush().map_err(|source| VaultError::Io { what: "write", path: "standard output".into(), source })
    })
    .await??;
    Ok(Exit::Done)
}

/// Forgets what nothing needs, under the lease: nobody may begin to need it meanwhile.
async fn prune(common: &Common, screen: &Arc<Screen>, dry_run: bool) -> Result<Exit, Problem> {
    let station = super::acting(common, screen).await?;
    let shelf = shelf(&station)?;
    if dry_run {
        let judged = shelf.judged(&station.world, station.world.clock.now()).await?;
        return super::shown(screen, &Pruned::of(&judged.go, true));
    }
    let mut signals = Signals::new()?;
    let holding = sit_down(&station, "ripcord capture prune", "pruning captures", &mut signals).await?;
    let done = shelf.forget(&holding.desk).await;
    holding.finish("the pruning is over").await;
    let (gone, _) = done?;
    super::shown(screen, &Pruned::of(&gone, false))
}

async fn find(station: &Station, id: &CaptureId) -> Result<CaptureRow, Problem> {
    let rows = station.store.captures(station.app()).await?;
    let row = rows.into_iter().find(|row| row.id == *id);
    row.ok_or_else(|| {
        Problem::new(Exit::Refused, format!("there is no capture `{id}`")).help("`ripcord capture list` shows them")
    })
}

fn vault(station: &Station) -> Result<Vault, Problem> {
    shelf(station).map(|shelf| shelf.vault)
}

fn shelf(station: &Station) -> Result<Shelf, Problem> {
    station.shelf().ok_or_else(|| {
        Problem::new(Exit::Refused, "there is no vault yet").place(station.site.vault_directory().display().to_string())
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Problem::new(Exit::Internal, "the vault's work broke off").cause(error.to_string()))
}
