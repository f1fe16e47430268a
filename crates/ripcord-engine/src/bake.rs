//! A bake that was cut off: the release is live, its deployment's process is gone, and nobody has judged it.
//!
//! Whoever holds the lease next, and stays, gives it a whole new bake time. What was seen before the cut counts for nothing: between
//! then and now nobody looked. What goes wrong meanwhile is the office's business as ever, and the time begins anew after it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Body, Event, Ledger, Origin, Release, ReleaseId, Seq, Standing, StoreError, Verdict};
use tokio::time::Instant;

use crate::desk::{Desk, Stop};
use crate::{Board, World, deploy};

/// A holder that leaves before this was there for something else, and puts nothing about a bake on the record.
const STAY: Duration = Duration::from_secs(5);
/// How often it is looked whether something has come in between.
const LOOK: Duration = Duration::from_secs(1);
/// How many events from the end are looked through for the bake of the live release, where a quick answer is wanted.
const LATEST: u64 = 2000;

/// Where the bake of the live release stands, by the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Baking {
    Since {
        at: Timestamp,
        until: Timestamp,
    },
    /// Nobody has put it on the record yet: its deployment was cut off right before.
    NotBegun,
}

/// The bake of the live release, where it has one that nobody has ended. Whether somebody is there to carry it on is another matter.
pub async fn baking(world: &World, ledger: &Ledger) -> Result<Option<Baking>, StoreError> {
    let Some(release) = unjudged(ledger) else { return Ok(None) };
    let (head, _) = world.store.head(world.app()).await?;
    let from = Seq(head.0.saturating_sub(LATEST)).max(crate::office::begun_by(release.id.as_str()));
    Ok(match last_word(world, &release.id, from).await? {
        Some(Event { body: Body::Judged { .. }, .. }) => None,
        Some(Event { body: Body::Baking { until, .. }, at, .. }) => Some(Baking::Since { at, until }),
        _ => Some(Baking::NotBegun),
    })
}

/// The release whose bake nobody carries on: whoever did held the lease that is now ours.
pub(crate) async fn cut_off(world: &World) -> Result<Option<Release>, StoreError> {
    Ok(unjudged(&world.store.ledger(world.app()).await?).cloned())
}

/// The live release, where a deployment put it out and no verdict on it was reached.
fn unjudged(ledger: &Ledger) -> Option<&Release> {
    let deployed = |live: &&Release| {
        matches!(live.origin, Origin::Deployed { .. })
            && live.standing == Standing::Live
            && live.verdict == Verdict::Undecided
    };
    ledger.live().filter(deployed)
}

/// The last event about the bake of a release after `after`: that it began, or was judged; undecided, too, is a judgement.
async fn last_word(world: &World, release: &ReleaseId, mut after: Seq) -> Result<Option<Event>, StoreError> {
    let mut found = None;
    loop {
        let page = world.store.read(world.app(), after, 1000).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = last.seq;
        let mut about = page.into_iter().filter(|event| match &event.body {
            Body::Baking { release: of, .. } | Body::Judged { release: of, .. } => of == release,
            _ => false,
        });
        found = about.next_back().or(found);
    }
}

/// Carries the bake on to its end, then waits for the desk's.
pub(crate) async fn take_up(desk: Arc<Desk>, board: Arc<Board>, release: Release) -> Stop {
    match bake(&desk, &board, &release).await {
        Ok(()) => desk.stopped().await,
        Err(why) => {
            desk.stop(why.clone());
            why
        }
    }
}

/// A time in which nothing came in between.
struct Quiet {
    began: Instant,
    since: Timestamp,
    on_record: bool,
}

async fn bake(desk: &Desk, board: &Board, release: &Release) -> Result<(), Stop> {
    let begun = crate::office::begun_by(release.id.as_str());
    if matches!(last_word(&desk.world, &release.id, begun).await?, Some(Event { body: Body::Judged { .. }, .. })) {
        return Ok(()); // Its bake came to an end without a verdict; a person is to say.
    }
    let time = desk.world.application.policy.bake;
    let mut quiet: Option<Quiet> = None;
    loop {
        let ledger = desk.world.store.ledger(desk.world.app()).await?;
        if unjudged(&ledger).is_none_or(|live| live.id != release.id) {
            return Ok(()); // Judged by a person, taken back, or another is being put out.
        }
        let disturbed =
            deploy::incident_since(&desk.world, release).await?.is_some() || deploy::acted_on(&desk.world).await?;
        match &mut quiet {
            _ if disturbed => quiet = None,
            None => quiet = Some(Quiet { began: Instant::now(), since: desk.now(), on_record: false }),
            Some(quiet) if quiet.began.elapsed() >= time => {
                return deploy::judge(desk, board, release, quiet.since).await.map(drop);
            }
            Some(quiet) if !quiet.on_record && quiet.began.elapsed() >= STAY => {
                quiet.on_record = true;
                deploy::begun(desk, &release.id, quiet.since).await?;
            }
            Some(_) => {}
        }
        tokio::select! {
            why = desk.stopped() => return Err(why),
            () = tokio::time::sleep(LOOK.min(time.max(Duration::from_millis(50)))) => {}
        }
    }
}
