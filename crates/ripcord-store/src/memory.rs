//! A store in memory, with faults on order: for the engine's simulator and for tests.
//!
//! It keeps every promise of [`Store`] but durability, through the same rules as the one on disk. A fault strikes at an append: the
//! answer is lost, or the whole process is killed before or after the commit. A killed process stays killed: nothing it awaits ever
//! ends. [`MemoryStore::restart`] is the next process on the same data.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    AcquireError, Actor, AppId, AppendError, Ask, Batch, CaptureRow, Digest, Event, Fut, Holder, Incident, Lease,
    LeaseOn, Ledger, Memory, Outgoing, Redactor, Reply, Request, RunId, RunRow, Seq, Store, StoreError, TriggerId,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::append::append;
use crate::clock::Clock;
use crate::lease::LeaseRow;
use crate::materialise::Folds;
use crate::redact;
use crate::state::State;
use crate::tables::Tables;

/// What strikes an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The store answers that it cannot; nothing is written.
    FailBefore,
    /// Everything is written; the answer is [`AppendError::InDoubt`].
    CommitThenLoseReply,
    /// The process is killed; nothing is written.
    CrashBefore,
    /// The process is killed right after the commit.
    CrashAfter,
}

type Faults = Arc<dyn Fn(u64) -> Fault + Send + Sync>;

/// Clones are the same process on the same data; see [`Self::restart`] for another one.
#[derive(Clone)]
pub struct MemoryStore {
    data: Arc<Mutex<Data>>,
    killed: Arc<watch::Sender<bool>>,
    faults: Option<Faults>,
    redactor: Option<Redactor>,
}

#[derive(Default)]
struct Data {
    state: State,
    folds: Folds,
    appends: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { data: Arc::default(), killed: Arc::new(watch::Sender::new(false)), faults: None, redactor: None }
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// `before_commit` is asked with the number of the append, counted from 1 over all processes on this data.
    #[must_use]
    pub fn with_faults(mut self, before_commit: impl Fn(u64) -> Fault + Send + Sync + 'static) -> Self {
        self.faults = Some(Arc::new(before_commit));
        self
    }

    /// Leases expire by this clock instead of the host's.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        self.lock().state.clock = Some(clock);
        self
    }

    /// Takes every secret known to `redactor` out of what is stored.
    #[must_use]
    pub fn with_redactor(mut self, redactor: Redactor) -> Self {
        self.redactor = Some(redactor);
        self
    }

    /// The next process on the same data.
    #[must_use]
    pub fn restart(&self) -> Self {
        Self { killed: Arc::new(watch::Sender::new(false)), ..self.clone() }
    }

    /// Returns once a fault has killed this process.
    pub async fn killed(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.killed.subscribe().wait_for(|killed| *killed).await;
    }

    fn lock(&self) -> MutexGuard<'_, Data> {
        // No state is left half changed by a panic: an append works on a copy.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data, for a process that is alive; a killed one waits for ever.
    async fn alive(&self) -> &Self {
        if *self.killed.borrow() {
            std::future::pending::<()>().await;
        }
        self
    }

    async fn kill<T>(&self) -> T {
        self.killed.send_replace(true);
        std::future::pending().await
    }

    fn cleaned<T: Serialize + DeserializeOwned + Clone>(&self, value: &T) -> T {
        self.redactor.as_ref().map_or_else(|| value.clone(), |redactor| redact::typed(redactor, value))
    }

    /// Appends unless a fault prevents it.
    fn appended(&self, lease: &Lease, after: Seq, batch: &Batch) -> (Fault, Result<Vec<Event>, AppendError>) {
        let mut data = self.lock();
        data.appends += 1;
        let fault = self.faults.as_ref().map_or(Fault::None, |faults| faults(data.appends));
        if matches!(fault, Fault::FailBefore | Fault::CrashBefore) {
            let why = "a fault was ordered".to_owned();
            return (fault, Err(StoreError::Unavailable { why }.into()));
        }
        let mut state = data.state.clone();
        let result = append(&mut state, &mut data.folds, lease, after, batch);
        match result {
            Ok(_) | Err(AppendError::LostLease) => data.state = state,
            Err(_) => data.folds.forget(),
        }
        (fault, result)
    }
}

impl Store for MemoryStore {
    fn append<'a>(
        &'a self,
        lease: &'a Lease,
        after: Seq,
        batch: &'a Batch,
    ) -> Fut<'a, Result<Vec<Event>, AppendError>> {
        Box::pin(async move {
            let this = self.alive().await;
            let (fault, result) = match &this.redactor {
                Some(redactor) => this.appended(lease, after, &redact::batch(redactor, batch)?),
                None => this.appended(lease, after, batch),
            };
            match fault {
                Fault::None | Fault::FailBefore => result,
                Fault::CommitThenLoseReply => {
                    Err(AppendError::InDoubt { why: "a fault was ordered: the answer was lost".into() })
                }
                Fault::CrashBefore | Fault::CrashAfter => self.kill().await,
            }
        })
    }

    fn read<'a>(&'a self, app: &'a AppId, after: Seq, most: usize) -> Fut<'a, Result<Vec<Event>, StoreError>> {
        Box::pin(async move { self.alive().await.lock().state.events(app, after, most) })
    }

    fn read_run<'a>(&'a self, app: &'a AppId, run: &'a RunId) -> Fut<'a, Result<Vec<Event>, StoreError>> {
        Box::pin(async move { self.alive().await.lock().state.run_events(app, run) })
    }

    fn head<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<(Seq, Digest), StoreError>> {
        Box::pin(async move { self.alive().await.lock().state.head(app) })
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> Fut<'a, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(async move { self.alive().await.lock().state.blob(digest) })
    }

    fn ledger<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<Ledger, StoreError>> {
        Box::pin(async move { Ok(self.alive().await.lock().state.ledger(app)) })
    }

    fn runs<'a>(&'a self, app: &'a AppId, most: usize) -> Fut<'a, Result<Vec<RunRow>, StoreError>> {
        Box::pin(async move { Ok(self.alive().await.lock().state.runs(app, most)) })
    }

    fn incidents<'a>(&'a self, app: &'a AppId, most: usize) -> Fut<'a, Result<Vec<Incident>, StoreError>> {
        Box::pin(async move { Ok(self.alive().await.lock().state.incidents(app, most)) })
    }

    fn captures<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<Vec<CaptureRow>, StoreError>> {
        Box::pin(async move { Ok(self.alive().await.lock().state.captures(app)) })
    }

    fn memories<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<BTreeMap<TriggerId, Memory>, StoreError>> {
        Box::pin(async move { Ok(self.alive().await.lock().state.memories(app)) })
    }

    fn request<'a>(&'a self, app: &'a AppId, by: &'a Actor, ask: &'a Ask) -> Fut<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let ask = self.cleaned(ask);
            self.alive().await.lock().state.request(app, by, &ask)
        })
    }

    fn requests<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<Vec<Request>, StoreError>> {
        Box::pin(async move { Ok(self.alive().await.lock().state.requests(app)) })
    }

    fn reply<'a>(&'a self, app: &'a AppId, id: u64) -> Fut<'a, Result<Option<Reply>, StoreError>> {
        Box::pin(async move { Ok(self.alive().await.lock().state.reply(app, id)) })
    }

    fn outbox<'a>(&'a self, app: &'a AppId, now: Timestamp) -> Fut<'a, Result<Vec<Outgoing>, StoreError>> {
        Box::pin(async move { Ok(self.alive().await.lock().state.outbox(app, now)) })
    }

    fn acquire<'a>(
        &'a self,
        on: &'a LeaseOn,
        holder: &'a Holder,
        ttl: Duration,
    ) -> Fut<'a, Result<Lease, AcquireError>> {
        Box::pin(async move {
            let holder = self.cleaned(holder);
            let state = &mut self.alive().await.lock().state;
            let now = state.now()?;
            let taken = LeaseRow::take(state.lease(on)?.as_ref(), &holder, ttl, now, |_| false);
            let (row, before) = taken.map_err(|by| AcquireError::Held { by: Box::new(by) })?;
            state.put_lease(on, &row)?;
            Ok(row.lease(on, &holder, before))
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> Fut<'a, Result<(), AppendError>> {
        Box::pin(async move {
            let state = &mut self.alive().await.lock().state;
            let now = state.now()?;
            let row = state.lease(&lease.on)?.and_then(|row| row.renewed(lease, now)).ok_or(AppendError::LostLease)?;
            Ok(state.put_lease(&lease.on, &row)?)
        })
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> Fut<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let state = &mut self.alive().await.lock().state;
            match state.lease(&lease.on)?.and_then(|row| row.released(lease)) {
                Some(row) => state.put_lease(&lease.on, &row),
                // Somebody else has it: there is nothing left to let go of.
                None => Ok(()),
            }
        })
    }

    fn holder<'a>(&'a self, on: &'a LeaseOn) -> Fut<'a, Result<Option<Holder>, StoreError>> {
        Box::pin(async move {
            let state = &self.alive().await.lock().state;
            let now = state.now()?;
            Ok(state.lease(on)?.and_then(|row| row.standing(now).cloned()))
        })
    }
}
