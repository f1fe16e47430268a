//! The store on disk.
//!
//! One thread writes, with a connection of its own; another reads beside it, which a write-ahead log lets it do without waiting. Every
//! write is one `BEGIN IMMEDIATE` transaction with `synchronous = FULL`: what was answered survives a power cut. Any number of
//! processes may have the same directory open; who may append is the lease's to say, and a process killed at any instant leaves a
//! whole journal.

mod alive; // who still lives
mod error; // what SQLite says, for the person
mod file; // where the file is
mod schema; // and how an older file is brought up to it
mod tables; // the rows
mod verify; // whether the record is what was written
mod worker; // a thread with a connection

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    AcquireError, Actor, AppId, AppendError, Ask, Batch, CaptureRow, Digest, Event, Fut, Holder, Incident, Lease,
    LeaseOn, Ledger, Memory, Outgoing, Redactor, Reply, Request, RunId, RunRow, Seq, Store, StoreError, TriggerId,
};
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::watch;
use tokio::time::Instant;

use self::alive::Alive;
use self::tables::Sql;
pub use self::verify::{Verified, VerifyError};
use self::worker::Worker;
use crate::append::append;
use crate::clock::Clock;
use crate::lease::LeaseRow;
use crate::materialise::Folds;
use crate::redact;
use crate::tables::Tables;

/// The store of a directory.
pub struct SqliteStore {
    path: PathBuf,
    reader: Worker<Connection>,
    /// None where it was opened only to be read.
    writer: Option<Worker<Writer>>,
    /// Counts this process's own commits, so that whoever waits for a change here need not wait for the next look at the file.
    commits: Arc<watch::Sender<u64>>,
    alive: Arc<Alive>,
    clock: Option<Clock>,
    redactor: Option<Redactor>,
}

/// What the writing thread has. The connection is made when first needed, so that reading commands do not pay for it.
struct Writer {
    path: PathBuf,
    connection: Option<Connection>,
    folds: Folds,
    commits: Arc<watch::Sender<u64>>,
}

impl SqliteStore {
    /// Opens the store in `directory`, which is created (for this user alone) where it is not there.
    /// # Errors
    /// [`StoreError::Unavailable`] with what to do about it, also for a network file system; [`StoreError::Newer`] for a file that a
    /// newer version wrote.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = file::prepare(directory)?;
        let mut connection = schema::connect(&path, true)?;
        schema::bring_up(&mut connection)?;
        let commits = Arc::new(watch::Sender::new(0));
        let writer =
            Writer { path: path.clone(), connection: None, folds: Folds::default(), commits: Arc::clone(&commits) };
        let writer = Worker::start("ripcord-store-write", writer).map_err(|error| no_thread(&error))?;
        Self::with(path, connection, Some(writer), commits)
    }

    /// Opens the store in `directory` to be looked at; returns none where there is none, and creates nothing.
    ///
    /// A file of an older version is brought up to this one first, as by [`Self::open`].
    pub fn open_to_read(directory: &Path) -> Result<Option<Self>, StoreError> {
        let Some(path) = file::find(directory)? else { return Ok(None) };
        let connection = schema::connect(&path, false)?;
        match schema::look(&connection)? {
            schema::Found::Current => Self::with(path, connection, None, Arc::new(watch::Sender::new(0))).map(Some),
            schema::Found::Older(_) => Self::open(directory).map(Some),
        }
    }

    fn with(
        path: PathBuf,
        connection: Connection,
        writer: Option<Worker<Writer>>,
        commits: Arc<watch::Sender<u64>>,
    ) -> Result<Self, StoreError> {
        let reader = Worker::start("ripcord-store-read", connection).map_err(|error| no_thread(&error))?;
        let alive = Arc::new(Alive::beside(&path));
        Ok(Self { path, reader, writer, commits, alive, clock: None, redactor: None })
    }

    /// Takes every secret known to `redactor`, now or later, out of what is stored: events, messages, requests, replies and the
    /// words of a lease's holder. A blob that holds one is refused, since it is known by its digest.
    #[must_use]
    pub fn with_redactor(mut self, redactor: Redactor) -> Self {
        self.redactor = Some(redactor);
        self
    }

    /// Leases expire by this clock instead of SQLite's (which is the host's).
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Reads a journal raw and recomputes every hash, the head, and what is kept beside it.
    ///
    /// `remembered` is a head known from elsewhere (a report, a message): without one, nobody can tell a journal written anew from
    /// its beginning.
    pub async fn verify_journal(
        &self,
        app: &AppId,
        remembered: Option<(Seq, Digest)>,
    ) -> Result<Verified, VerifyError> {
        let app = app.clone();
        self.aside(move |connection| verify::journal(connection, &app, remembered)).await
    }

    /// Compares every blob with its digest; returns how many there are.
    pub async fn verify_blobs(&self) -> Result<u64, VerifyError> {
        self.aside(verify::blobs).await
    }

    /// For what takes long: a thread and a connection of its own, so that nobody waits behind it.
    async fn aside<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, VerifyError> + Send + 'static,
    ) -> Result<T, VerifyError> {
        let connection = schema::connect(&self.path, false)?;
        let worker = Worker::start("ripcord-store-verify", connection).map_err(|error| no_thread(&error))?;
        worker.call(job).await.ok_or_else(stopped)?
    }

    /// Waits until the journal is longer than `after`, at most `at_most`; returns where it ends then.
    ///
    /// Commits of this process are seen at once, those of others by looking, at first every few milliseconds and then ten times a
    /// second.
    pub async fn wait_changed(&self, app: &AppId, after: Seq, at_most: Duration) -> Result<Seq, StoreError> {
        let deadline = Instant::now() + at_most;
        let mut commits = self.commits.subscribe();
        let mut pause = Duration::from_millis(5);
        loop {
            commits.mark_unchanged();
            let (head, _) = self.head(app).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if head > after || left.is_zero() {
                return Ok(head);
            }
            // Both outcomes are looked into at the top: the time over, or a commit.
            let _ = tokio::time::timeout(pause.min(left), commits.changed()).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    async fn reading<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Sql<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let clock = self.clock.clone();
        let job = move |connection: &mut Connection| {
            // One transaction, so that rows of several tables are of one moment.
            let transaction = connection.transaction().map_err(|error| error::down(&error))?;
            job(&Sql { connection: &transaction, clock })
        };
        self.reader.call(job).await.ok_or_else(stopped)?
    }

    async fn writing<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Sql<'_>, &mut Folds) -> Result<T, AppendError> + Send + 'static,
    ) -> Result<T, AppendError> {
        let Some(writer) = &self.writer else {
            return Err(StoreError::Unavailable { why: "it was opened only to be read".to_owned() }.into());
        };
        let clock = self.clock.clone();
        let done = writer.call(move |writer: &mut Writer| writer.transact(clock, job)).await;
        done.unwrap_or_else(|| Err(AppendError::InDoubt { why: "the store's writing thread has ended".to_owned() }))
    }

    fn cleaned<T: serde::Serialize + serde::de::DeserializeOwned + Clone>(&self, value: &T) -> T {
        self.redactor.as_ref().map_or_else(|| value.clone(), |redactor| redact::typed(redactor, value))
    }
}

fn no_thread(error: &std::io::Error) -> StoreError {
    StoreError::Unavailable { why: format!("no thread can be started: {error}") }
}

fn stopped() -> StoreError {
    StoreError::Unavailable { why: "the store's thread has ended".to_owned() }
}

/// For writes whose caller has no better word: nobody is told that nothing happened where that is not known.
fn plain(error: AppendError) -> StoreError {
    match error {
        AppendError::Down(error) => error,
        error => StoreError::Unavailable { why: error.to_string() },
    }
}

impl Writer {
    /// One transaction: committed when the job succeeds, and when it lost the lease, so that a lapse seen is on record.
    fn transact<T>(
        &mut self,
        clock: Option<Clock>,
        job: impl FnOnce(&mut Sql<'_>, &mut Folds) -> Result<T, AppendError>,
    ) -> Result<T, AppendError> {
        let result = self.attempt(clock, job);
        match &result {
            Ok(_) => self.commits.send_modify(|count| *count += 1),
            Err(AppendError::LostLease | AppendError::Conflict { .. }) => self.folds.forget(),
            Err(AppendError::Down(_) | AppendError::InDoubt { .. }) => {
                self.folds.forget();
                // Whatever was wrong with this connection, the next try has a new one.
                self.connection = None;
            }
        }
        result
    }

    fn attempt<T>(
        &mut self,
        clock: Option<Clock>,
        job: impl FnOnce(&mut Sql<'_>, &mut Folds) -> Result<T, AppendError>,
    ) -> Result<T, AppendError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => empty.insert(schema::connect(&self.path, true)?),
        };
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| error::down(&error))?;
        let result = job(&mut Sql { connection: &transaction, clock }, &mut self.folds);
        if matches!(result, Ok(_) | Err(AppendError::LostLease)) {
            transaction.commit().map_err(|error| match error::in_doubt(&error) {
                true => AppendError::InDoubt { why: error::down(&error).to_string() },
                false => AppendError::Down(error::down(&error)),
            })?;
        }
        result
    }
}

impl Store for SqliteStore {
    fn append<'a>(
        &'a self,
        lease: &'a Lease,
        after: Seq,
        batch: &'a Batch,
    ) -> Fut<'a, Result<Vec<Event>, AppendError>> {
        Box::pin(async move {
            let batch = match &self.redactor {
                Some(redactor) => redact::batch(redactor, batch)?,
                None => batch.clone(),
            };
            let lease = lease.clone();
            self.writing(move |sql, folds| append(sql, folds, &lease, after, &batch)).await
        })
    }

    fn read<'a>(&'a self, app: &'a AppId, after: Seq, most: usize) -> Fut<'a, Result<Vec<Event>, StoreError>> {
        let app = app.clone();
        Box::pin(self.reading(move |sql| sql.events(&app, after, most)))
    }

    fn read_run<'a>(&'a self, app: &'a AppId, run: &'a RunId) -> Fut<'a, Result<Vec<Event>, StoreError>> {
        let (app, run) = (app.clone(), run.clone());
        Box::pin(self.reading(move |sql| sql.run_events(&app, &run)))
    }

    fn head<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<(Seq, Digest), StoreError>> {
        let app = app.clone();
        Box::pin(self.reading(move |sql| sql.head(&app)))
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> Fut<'a, Result<Option<Vec<u8>>, StoreError>> {
        let digest = *digest;
        Box::pin(self.reading(move |sql| sql.blob(&digest)))
    }

    fn ledger<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<Ledger, StoreError>> {
        let app = app.clone();
        Box::pin(self.reading(move |sql| sql.ledger(&app)))
    }

    fn runs<'a>(&'a self, app: &'a AppId, most: usize) -> Fut<'a, Result<Vec<RunRow>, StoreError>> {
        let app = app.clone();
        Box::pin(self.reading(move |sql| sql.runs(&app, most)))
    }

    fn incidents<'a>(&'a self, app: &'a AppId, most: usize) -> Fut<'a, Result<Vec<Incident>, StoreError>> {
        let app = app.clone();
        Box::pin(self.reading(move |sql| sql.incidents(&app, most)))
    }

    fn captures<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<Vec<CaptureRow>, StoreError>> {
        let app = app.clone();
        Box::pin(self.reading(move |sql| sql.captures(&app)))
    }

    fn memories<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<BTreeMap<TriggerId, Memory>, StoreError>> {
        let app = app.clone();
        Box::pin(self.reading(move |sql| sql.memories(&app)))
    }

    fn request<'a>(&'a self, app: &'a AppId, by: &'a Actor, ask: &'a Ask) -> Fut<'a, Result<u64, StoreError>> {
        let (app, by, ask) = (app.clone(), by.clone(), self.cleaned(ask));
        Box::pin(async move { self.writing(move |sql, _| Ok(sql.request(&app, &by, &ask)?)).await.map_err(plain) })
    }

    fn requests<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<Vec<Request>, StoreError>> {
        let app = app.clone();
        Box::pin(self.reading(move |sql| sql.requests(&app)))
    }

    fn reply<'a>(&'a self, app: &'a AppId, id: u64) -> Fut<'a, Result<Option<Reply>, StoreError>> {
        let app = app.clone();
        Box::pin(self.reading(move |sql| sql.reply(&app, id)))
    }

    fn outbox<'a>(&'a self, app: &'a AppId, now: Timestamp) -> Fut<'a, Result<Vec<Outgoing>, StoreError>> {
        let app = app.clone();
        Box::pin(self.reading(move |sql| sql.outbox(&app, now)))
    }

    fn acquire<'a>(
        &'a self,
        on: &'a LeaseOn,
        holder: &'a Holder,
        ttl: Duration,
    ) -> Fut<'a, Result<Lease, AcquireError>> {
        let (on, holder) = (on.clone(), self.cleaned(holder));
        let alive = Arc::clone(&self.alive);
        Box::pin(async move {
            let taking = self.writing(move |sql, _| {
                // Shown before the lease is: nobody may find it held by somebody who seems to be gone.
                alive.show(&holder.incarnation);
                let now = sql.now()?;
                let gone = |by: &Holder| alive.is_gone(&by.incarnation);
                match LeaseRow::take(sql.lease(&on)?.as_ref(), &holder, ttl, now, gone) {
                    Ok((row, before)) => {
                        sql.put_lease(&on, &row)?;
                        Ok(Ok(row.lease(&on, &holder, before)))
                    }
                    Err(by) => Ok(Err(AcquireError::Held { by: Box::new(by) })),
                }
            });
            taking.await.map_err(plain)?
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> Fut<'a, Result<(), AppendError>> {
        let lease = lease.clone();
        Box::pin(self.writing(move |sql, _| {
            let now = sql.now()?;
            let row = sql.lease(&lease.on)?.and_then(|row| row.renewed(&lease, now)).ok_or(AppendError::LostLease)?;
            Ok(sql.put_lease(&lease.on, &row)?)
        }))
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> Fut<'a, Result<(), StoreError>> {
        let lease = lease.clone();
        Box::pin(async move {
            let letting_go =
                self.writing(move |sql, _| match sql.lease(&lease.on)?.and_then(|row| row.released(&lease)) {
                    Some(row) => Ok(sql.put_lease(&lease.on, &row)?),
                    // Somebody else has it: there is nothing left to let go of.
                    None => Ok(()),
                });
            letting_go.await.map_err(plain)
        })
    }

    fn holder<'a>(&'a self, on: &'a LeaseOn) -> Fut<'a, Result<Option<Holder>, StoreError>> {
        let (on, alive) = (on.clone(), Arc::clone(&self.alive));
        Box::pin(self.reading(move |sql| {
            let now = sql.now()?;
            let standing = sql.lease(&on)?.and_then(|row| row.standing(now).cloned());
            // Nobody follows one that was killed until its time is over.
            Ok(standing.filter(|by| !alive.is_gone(&by.incarnation)))
        }))
    }
}
