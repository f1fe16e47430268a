//! Everything that runs at the holder's desk, together: lease, detector, office, messages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::{Baseline, Body, Seq, SignalId};
use tokio::task::JoinSet;

use crate::desk::{Desk, Stop, TakeError, World};
use crate::office::Office;
use crate::{Board, deploy, detector, outbox};

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
        let board = Arc::new(Board::default());
        board.set_baselines(last_baselines(&desk.world).await?);
        // Before anybody decides by them: what is not remembered counts as not known.
        board.set_memories(desk.world.store.memories(desk.world.app()).await?);
        if let Err(why) = deploy::interrupted(&desk).await {
            desk.stop(why); // What stopped it is found by whoever waits for the end.
        }
        let mut tasks = JoinSet::new();
        let office = Office::new(&desk, &board);
        let (a, b, c) = (Arc::clone(&desk), Arc::clone(&desk), Arc::clone(&desk));
        let watched = Arc::clone(&board);
        tasks.spawn(async move { a.keep().await });
        tasks.spawn(detector::watch(b, watched));
        tasks.spawn(outbox::deliver(c));
        tasks.spawn(office.work());
        Ok(Self { desk, board, tasks })
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
async fn last_baselines(world: &World) -> Result<BTreeMap<SignalId, Baseline>, ripcord_core::StoreError> {
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
