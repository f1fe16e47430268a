//! Everything that runs at the holder's desk, together: lease, detector, office, messages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::{Baseline, Body, Seq, SignalId};
use tokio::task::JoinSet;

use crate::desk::{Desk, Stop, TakeError, World};
use crate::office::Office;
use crate::shelf::Shelf;
use crate::upkeep::{self, Pace};
use crate::{Board, bake, deploy, detector, outbox};

/// How long a lease lasts without being renewed.
pub const TTL: Duration = Duration::from_secs(15);

/// A desk in use.
pub struct Holding {
    pub desk: Arc<Desk>,
    pub board: Arc<Board>,
    tasks: JoinSet<Stop>,
}

impl Holding {
    /// Takes the lease and begins to work: whatever an earlier holder left is taken up.
    pub async fn begin(world: World, ttl: Duration) -> Result<Self, TakeError> {
        let desk = Desk::take(world, ttl).await?;
        let board = Arc::new(Board::with_baselines(last_baselines(&desk.world).await?));
        // Before anybody decides by them: what is not remembered counts as not known.
        board.set_memories(desk.world.store.memories(desk.world.app()).await?);
        if let Err(why) = deploy::interrupted(&desk).await {
            desk.stop(why); // What stopped it is found by whoever waits for the end.
        }
        let cut_off = bake::cut_off(&desk.world).await?;
        let mut holding = Self { desk, board, tasks: JoinSet::new() };
        let (desk, board) = (Arc::clone(&holding.desk), Arc::clone(&holding.board));
        let keeper = Arc::clone(&desk);
        holding.spawn("keeping the lease", async move { keeper.keep().await });
        holding.spawn("watching", detector::watch(Arc::clone(&desk), Arc::clone(&board)));
        holding.spawn("delivering messages", outbox::deliver(Arc::clone(&desk)));
        holding.spawn("deciding", Office::new(&desk, &board).work());
        if let Some(release) = cut_off {
            holding.spawn("baking a release", bake::take_up(desk, board, release));
        }
        Ok(holding)
    }

    /// Does the upkeep of what is kept, for as long as this is held: captures are read back and pruned, what was set aside is tidied
    /// away. All of it yields to runs and deployments.
    pub fn keep_up(&mut self, shelf: Shelf, pace: Pace) {
        let desk = Arc::clone(&self.desk);
        self.spawn("upkeep", upkeep::keep_up(desk, shelf, pace));
    }

    /// Works beside the rest. What panics stops the desk: the rest would go on as if it were still there.
    fn spawn(&mut self, what: &'static str, work: impl Future<Output = Stop> + Send + 'static) {
        let desk = Arc::clone(&self.desk);
        self.tasks.spawn(async move {
            let mut alone = JoinSet::new(); // Dropped with this task, and the work with it.
            alone.spawn(work);
            match alone.join_next().await {
                Some(Ok(why)) => why,
                Some(Err(error)) => {
                    let why = Stop::Broken { what: format!("{what} failed: {error}") };
                    desk.stop(why.clone());
                    why
                }
                None => desk.stopped().await,
            }
        });
    }

    /// Resolves when the work has ended, with the reason.
    pub async fn ended(&mut self) -> Stop {
        self.desk.stopped().await
    }

    /// Ends the work, delivers what can be delivered, and gives the lease back.
    pub async fn finish(mut self, why: &str) -> Stop {
        if self.desk.is_running() {
            // What was just said still has to reach people; a channel that is down is the next holder's business.
            let _ = tokio::time::timeout(Duration::from_secs(3), outbox::flush(&self.desk)).await;
        }
        self.desk.stop(Stop::Asked { why: why.to_owned() });
        let why = self.desk.stopped().await;
        // Tasks end by themselves on the stop; the limit is for one that hangs in the outside world.
        let _ = tokio::time::timeout(Duration::from_secs(5), async { while self.tasks.join_next().await.is_some() {} })
            .await;
        self.tasks.abort_all();
        if why != Stop::LostLease {
            // If this fails the lease runs out by itself.
            let _ = self.desk.leave().await;
        }
        why
    }
}

/// The baselines measured before the newest release, read from the end of the journal.
pub async fn last_baselines(world: &World) -> Result<BTreeMap<SignalId, Baseline>, ripcord_core::StoreError> {
    const PAGE: u64 = 1000;
    let (head, _) = world.store.head(world.app()).await?;
    let mut end = head.0;
    while end > 0 {
        let from = end.saturating_sub(PAGE);
        let page = world.store.read(world.app(), Seq(from), usize::try_from(PAGE).unwrap_or(usize::MAX)).await?;
        for event in page.into_iter().rev().filter(|event| event.seq.0 <= end) {
            if let Body::Baseline { figures, .. } = event.body {
                return Ok(figures);
            }
        }
        end = from;
    }
    Ok(BTreeMap::new())
}
