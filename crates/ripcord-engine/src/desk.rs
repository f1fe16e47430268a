//! The lease holder's desk: the world it acts on, the journal only it may write, and the lease that says so.
//!
//! Everything that runs in the holder (detector, decisions, runs, requests, messages) writes through here, one batch at a time,
//! so that the journal's order is the order in which things became true. Losing the lease ends all of it at once.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    AcquireError, AppId, AppendError, Application, Batch, Body, Cx, Digest, Event, Holder, IncidentId, Lease, LeaseOn,
    Message, NewEvent, Parts, Predecessor, Redactor, RunId, Seq, Store, StoreError, TargetId,
};
use tokio::sync::{Mutex, broadcast, watch};
use tokio::time::Instant;

use crate::Clock;

/// What the engine works on and with.
#[derive(Clone)]
pub struct World {
    pub application: Arc<Application>,
    pub parts: Parts,
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub redactor: Redactor,
    pub holder: Holder,
}

impl World {
    pub fn app(&self) -> &AppId {
        &self.application.id
    }

    pub fn cx(&self, limit: Duration) -> Cx {
        Cx { app: self.app().clone(), now: self.clock.now(), limit, run: None, version: None }
    }
}

/// Why the holder must stop. Nothing of it is retried here: another process, or the next start, takes over from the journal.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Stop {
    #[error("another process has taken over")]
    LostLease,
    #[error("the journal moved on without us, to event {at}")]
    Overtaken { at: Seq },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("an event of ours cannot follow: {0}")]
    OutOfOrder(#[from] ripcord_core::OutOfOrder),
    #[error("the record lacks {what}")]
    Missing { what: String },
    /// Something of ours panicked: nobody asked for it, and nobody can be left to believe so.
    #[error("an error inside Ripcord: {what}")]
    Broken { what: String },
    /// Asked to stop, by a signal or because somebody else needs the lease.
    #[error("stopped: {why}")]
    Asked { why: String },
}

/// Why the desk could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The longest an answer that was lost is asked for again before the store counts as down.
const IN_DOUBT_TRIES: u32 = 5;

pub struct Desk {
    pub world: World,
    lease: Lease,
    head: Arc<Mutex<Seq>>,
    /// Leases on the outside systems that runs at this desk change, kept like the desk's own.
    targets: std::sync::Mutex<BTreeMap<TargetId, Lease>>,
    events: broadcast::Sender<Arc<Event>>,
    stop: watch::Sender<Option<Stop>>,
    /// When the lease was last known to be ours, by the clock from before it was asked for.
    known_ours: std::sync::Mutex<Instant>,
}

impl Desk {
    /// Takes the lease on the application, or says who has it.
    pub async fn take(world: World, ttl: Duration) -> Result<Arc<Self>, TakeError> {
        let before = Instant::now();
        let lease = world.store.acquire(&LeaseOn::App(world.app().clone()), &world.holder, ttl).await?;
        let (head, _) = world.store.head(world.app()).await?;
        Ok(Arc::new(Self {
            world,
            lease,
            head: Arc::new(Mutex::new(head)),
            targets: std::sync::Mutex::default(),
            events: broadcast::channel(1024).0,
            stop: watch::channel(None).0,
            known_ours: std::sync::Mutex::new(before),
        }))
    }

    /// Gives the leases back, so that the next need not wait for them to expire.
    pub async fn leave(&self) -> Result<(), StoreError> {
        self.free_targets().await?;
        self.world.store.release(&self.lease).await
    }

    /// Takes the lease on an outside system, so that no run of another application or environment changes it meanwhile.
    ///
    /// One left by a process that died runs out by itself: it is waited for, no longer than that takes. Past it, the answer is
    /// who has it.
    pub async fn take_target(&self, target: &TargetId) -> Result<Option<Holder>, Stop> {
        let on = LeaseOn::Target(target.clone());
        let deadline = Instant::now() + self.lease.ttl + self.lease.ttl / 4;
        let mut backoff = crate::effect::Backoff::default();
        loop {
            self.check_stopped()?;
            match self.world.store.acquire(&on, &self.world.holder, self.lease.ttl).await {
                Ok(lease) => {
                    self.targets().insert(target.clone(), lease);
                    return Ok(None);
                }
                Err(AcquireError::Held { by }) if Instant::now() >= deadline => return Ok(Some(*by)),
                Err(AcquireError::Held { .. }) => tokio::select! {
                    why = self.stopped() => return Err(why),
                    () = backoff.pause(deadline) => {}
                },
                Err(AcquireError::Down(error)) => return Err(self.stop_with(error.into())),
            }
        }
    }

    /// Lets go of every outside system.
    pub async fn free_targets(&self) -> Result<(), StoreError> {
        let leases = std::mem::take(&mut *self.targets());
        for lease in leases.values() {
            self.world.store.release(lease).await?;
        }
        Ok(())
    }

    fn targets(&self) -> std::sync::MutexGuard<'_, BTreeMap<TargetId, Lease>> {
        // Every change is one call on the map, so a panic leaves it whole.
        self.targets.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    pub fn epoch(&self) -> ripcord_core::Epoch {
        self.lease.epoch
    }

    /// Until when a call that was begun at `at`, under the lease of `epoch`, may still be carried out by somebody who is not known to
    /// be gone. None where it cannot be, or not any more.
    ///
    /// Of the holder right before us it is known how we came by its lease; of any before that, nothing.
    pub(crate) fn may_go_on_until(
        &self,
        epoch: ripcord_core::Epoch,
        at: Timestamp,
        call: Duration,
    ) -> Option<Timestamp> {
        let right_before = epoch.0 + 1 == self.lease.epoch.0;
        let over = !matches!(self.lease.before, Predecessor::Lapsed(_)) && right_before;
        if over || epoch == self.lease.epoch {
            return None;
        }
        let now = self.now();
        // A clock set back since then makes it no longer than one call.
        let until = ripcord_core::after(at, call).min(ripcord_core::after(now, call));
        (until > now).then_some(until)
    }

    /// Every event written from now on, in order.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    /// Ends everything that runs at this desk. The first reason counts.
    pub fn stop(&self, why: Stop) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            if first {
                *stop = Some(why);
            }
            first
        });
    }

    /// Resolves when the desk was told to stop.
    pub async fn stopped(&self) -> Stop {
        let mut stop = self.stop.subscribe();
        loop {
            if let Some(why) = stop.borrow_and_update().clone() {
                return why;
            }
            if stop.changed().await.is_err() {
                return Stop::LostLease;
            }
        }
    }

    pub fn is_running(&self) -> bool {
        self.stop.borrow().is_none()
    }

    fn check_stopped(&self) -> Result<(), Stop> {
        match &*self.stop.borrow() {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }

    /// Keeps the lease for as long as it runs; on its loss it stops the desk.
    pub async fn keep(&self) -> Stop {
        let every = self.lease.ttl / 5;
        loop {
            tokio::select! {
                why = self.stopped() => return why,
                () = tokio::time::sleep(every) => {}
            }
            let leases: Vec<Lease> = self.targets().values().cloned().collect();
            for lease in leases {
                // Gone to somebody else while this process slept: what it does to that system now is no longer ours alone.
                let lost = self.world.store.renew(&lease).await == Err(AppendError::LostLease);
                if lost && matches!(&lease.on, LeaseOn::Target(on) if self.targets().contains_key(on)) {
                    self.stop(Stop::LostLease);
                }
            }
            let before = Instant::now();
            match self.world.store.renew(&self.lease).await {
                Ok(()) => {
                    if let Ok(mut known) = self.known_ours.lock() {
                        *known = before;
                    }
                }
                Err(AppendError::LostLease) => self.stop(Stop::LostLease),
                // The store may come back before the lease is over; past that somebody else may have it.
                Err(_) if self.left() > every => {}
                Err(_) => self.stop(Stop::LostLease),
            }
            if self.left().is_zero() {
                self.stop(Stop::LostLease);
            }
        }
    }

    /// How long the lease is certainly still ours.
    pub fn left(&self) -> Duration {
        let known = self.known_ours.lock().map(|known| *known).unwrap_or_else(|poisoned| *poisoned.into_inner());
        self.lease.ttl.saturating_sub(known.elapsed())
    }

    /// Writes one batch; `draft` is given the sequence number its first event will have, for identities.
    ///
    /// While `draft` is asked nobody else writes, and whatever was written before is with those who listen. A batch left empty is
    /// not written. Whoever drops this does not cut a write in half: once drafted it is carried out.
    pub async fn write(&self, draft: impl FnOnce(Seq, &mut Entry)) -> Result<Vec<Event>, Stop> {
        let mut head = Arc::clone(&self.head).lock_owned().await;
        self.check_stopped()?;
        let mut entry = Entry { at: self.now(), batch: Batch::default(), next: head.next() };
        draft(head.next(), &mut entry);
        let batch = entry.batch;
        if is_empty(&batch) {
            return Ok(vec![]);
        }
        let (store, lease, events) = (Arc::clone(&self.world.store), self.lease.clone(), self.events.clone());
        let written = ToItsEnd(Some(Box::pin(async move {
            let written = append(&*store, &lease, *head, &batch).await?;
            if let Some(last) = written.last() {
                *head = last.seq;
            }
            for event in &written {
                // Nobody listening is fine: the journal is the record.
                let _ = events.send(Arc::new(event.clone()));
            }
            Ok(written)
        })));
        written.await.map_err(|why| self.stop_with(why))
    }

    fn stop_with(&self, why: Stop) -> Stop {
        self.stop(why.clone());
        why
    }

    /// One event that belongs to no run and no incident.
    pub async fn note(&self, body: Body) -> Result<Event, Stop> {
        let mut events = self.write(|_, entry| entry.event(None, None, body)).await?;
        events.pop().ok_or_else(|| Stop::Missing { what: "the event just written".to_owned() })
    }
}

/// A future that is carried to its end also when whoever awaits it is dropped half way: by a task of its own then, and without one in
/// the ordinary case, where a task would cost more than what it does.
struct ToItsEnd<T>(Option<Pin<Box<dyn Future<Output = T> + Send>>>)
where
    T: Send + 'static;

impl<T: Send + 'static> Future for ToItsEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(inner) = &mut self.0 else { return Poll::Pending };
        let polled = inner.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for ToItsEnd<T> {
    fn drop(&mut self) {
        // Without a runtime everything ends, and the journal says how far it came.
        if let (Some(inner), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(inner);
        }
    }
}

/// Appends, asking again for an answer that was lost.
async fn append(store: &dyn Store, lease: &Lease, head: Seq, batch: &Batch) -> Result<Vec<Event>, Stop> {
    let mut tries = 0;
    loop {
        match store.append(lease, head, batch).await {
            Ok(events) => return Ok(events),
            Err(AppendError::InDoubt { .. }) if tries < IN_DOUBT_TRIES => tries += 1,
            Err(AppendError::InDoubt { why }) => return Err(StoreError::Unavailable { why }.into()),
            Err(AppendError::LostLease) => return Err(Stop::LostLease),
            Err(AppendError::Conflict { at }) => return Err(Stop::Overtaken { at }),
            Err(AppendError::Down(error)) => return Err(error.into()),
        }
    }
}

fn is_empty(batch: &Batch) -> bool {
    let Batch { events, messages, blobs, replies, memories, outbox } = batch;
    events.is_empty()
        && messages.is_empty()
        && blobs.is_empty()
        && replies.is_empty()
        && memories.is_empty()
        && outbox.is_empty()
}

/// A batch being drafted.
pub struct Entry {
    at: Timestamp,
    batch: Batch,
    next: Seq,
}

impl Entry {
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The sequence number the next event of this batch will have.
    pub fn next(&self) -> Seq {
        self.next
    }

    pub fn event(&mut self, run: Option<RunId>, incident: Option<IncidentId>, body: Body) {
        self.batch.events.push(NewEvent { id: uuid::Uuid::now_v7().to_string(), at: self.at, run, incident, body });
        self.next = self.next.next();
    }

    /// Keeps `value` under its digest.
    pub fn blob<T: serde::Serialize>(&mut self, value: &T) -> Digest {
        let bytes = serde_json::to_vec(value).unwrap_or_default();
        let digest = Digest::of(&bytes);
        self.batch.blobs.push(bytes);
        digest
    }

    pub fn message(&mut self, message: Message) {
        if !message.channels.is_empty() {
            self.batch.messages.push(message);
        }
    }

    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }
}
