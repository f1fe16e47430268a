//! The port to the record. Two kinds of writers: the lease holder appends events; anyone may leave a request, which the holder
//! validates and turns into an event.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Actor, Answer, AppId, CaptureId, Consent, Digest, Epoch, Event, Fut, Incident, Ledger, Memory, Message, Name,
    NewEvent, RunId, Seq, TargetId, TriggerId, Verb,
};

/// What a lease is on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseOn {
    App(AppId),
    Target(TargetId),
    Vault(String),
}

/// A process that may hold leases: a person can tell which, and no restart is taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Unique to this start of this process.
    pub incarnation: String,
    pub actor: Actor,
    pub pid: u32,
    /// What it is doing, in words (`ripcord watch`).
    pub doing: String,
}

/// A lease held. Its epoch is compared inside every append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub on: LeaseOn,
    pub holder: Holder,
    pub epoch: Epoch,
    pub ttl: Duration,
    pub before: Predecessor,
}

/// What is known of whoever had a lease before, at the moment it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predecessor {
    /// It was free: nobody ever had it, or it was let go of. Also where it was ours already.
    None,
    /// Its process has ended: nothing of it goes on.
    Gone(Holder),
    /// Its time ran out, and nothing more is known: it may be stopped and wake up, and calls it had begun may still be carried out.
    Lapsed(Holder),
}

/// What a person or another program asks of the holder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Survey, plan and propose; run at once where `approve` covers the plan that comes out.
    Rollback {
        to: Option<String>,
        strategy: Option<Name>,
        level: Option<u8>,
        scope: Vec<crate::ComponentId>,
        reason: Option<String>,
        approve: Option<Approval>,
    },
    Undo {
        run: RunId,
        approve: Option<Approval>,
    },
    Answer {
        run: RunId,
        plan: Digest,
        answer: Answer,
        reason: Option<String>,
        consent: Option<Consent>,
    },
    Run {
        run: RunId,
        verb: Verb,
    },
    Declare {
        what: String,
        severity: Option<crate::Severity>,
        /// The issue type, for the decision matrix.
        issue: Option<Name>,
    },
    CloseIncident {
        incident: crate::IncidentId,
        why: String,
    },
    /// Records the present as a release.
    Record {
        version: String,
    },
    Mark {
        release: String,
        good: bool,
        why: String,
    },
    Lift {
        version: String,
        why: String,
    },
    Note {
        text: String,
    },
    /// What reading a capture back, or restoring it, has shown.
    Proven {
        capture: CaptureId,
        level: crate::ProofLevel,
    },
    Spoiled {
        capture: CaptureId,
        why: String,
    },
    /// Let go of the lease: somebody needs it (a deployment).
    Yield {
        to: String,
    },
    /// Takes back a request of one's own that nobody has taken up.
    Withdraw {
        request: u64,
    },
}

/// A person's yes to a plan they were shown. The plan comes with it, so that the holder can tell whether the yes still covers what
/// it plans itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub plan: Box<crate::Plan>,
    pub consent: Option<Consent>,
}

/// A request as left in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub id: u64,
    pub app: AppId,
    pub by: Actor,
    pub at: Timestamp,
    pub ask: Ask,
    pub reply: Option<Reply>,
}

/// What the holder made of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Done, or begun as this run.
    Taken {
        run: Option<RunId>,
        said: String,
    },
    Refused {
        why: String,
        advice: Option<String>,
    },
}

/// A message waiting to be delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outgoing {
    pub message: Message,
    /// How many of its channels have failed it so far.
    pub tried: u32,
    pub next_try: Timestamp,
}

/// A capture as known to the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaptureRow {
    pub id: CaptureId,
    pub of: crate::Place,
    pub purpose: crate::CapturePurpose,
    pub release: Option<crate::ReleaseId>,
    pub run: Option<RunId>,
    pub at: Timestamp,
    pub made: crate::Made,
    /// Why it is not to be relied on, where that was found.
    pub spoiled: Option<String>,
    pub pruned: bool,
}

/// A run as listed: enough for `status` without folding the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    pub id: RunId,
    pub state: crate::RunState,
    pub plan: Digest,
    pub purpose: crate::Purpose,
    pub first: Seq,
    pub proposed: Timestamp,
    pub ended: Option<Timestamp>,
    pub incident: Option<crate::IncidentId>,
}

/// One transaction's worth: events, messages, blobs and checkpoints become visible together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub events: Vec<NewEvent>,
    pub messages: Vec<Message>,
    /// Content-addressed: plans, evidence, outputs, inventories.
    pub blobs: Vec<Vec<u8>>,
    /// Replies to requests, by their number.
    pub replies: Vec<(u64, Reply)>,
    pub memories: BTreeMap<TriggerId, Memory>,
    /// Messages delivered or given up (`None`), or to be tried again.
    pub outbox: Vec<(String, Option<Outgoing>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Another holder has the lease: stop at once.
    #[error("the lease was lost to another holder")]
    LostLease,
    /// The journal's head is not where the writer thought.
    #[error("the journal has moved on to {at}")]
    Conflict { at: Seq },
    /// The answer was lost: repeat the same events, whose identities make that safe.
    #[error("whether the events were written is not known: {why}")]
    InDoubt { why: String },
    #[error(transparent)]
    Down(#[from] StoreError),
}

/// The store cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the store cannot be used: {why}")]
    Unavailable { why: String },
    #[error("the journal is damaged at event {at}: {why}")]
    Damaged { at: Seq, why: String },
    #[error("written by a newer version (schema {found}, this one knows {known})")]
    Newer { found: u32, known: u32 },
}

/// Why a lease was not had.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AcquireError {
    #[error("{} (process {}) holds it: {}", .by.actor, .by.pid, .by.doing)]
    Held { by: Box<Holder> },
    #[error(transparent)]
    Down(#[from] StoreError),
}

/// The record. Every method's answer is of a committed state.
pub trait Store: Send + Sync {
    /// Appends under the lease; returns the events as written.
    ///
    /// `after` is where the writer thinks the journal ends. Events whose identities are already there right after `after` count as
    /// written (the answer of a former try was lost).
    fn append<'a>(&'a self, lease: &'a Lease, after: Seq, batch: &'a Batch)
    -> Fut<'a, Result<Vec<Event>, AppendError>>;
    /// Events after `after`, oldest first, at most `most`.
    fn read<'a>(&'a self, app: &'a AppId, after: Seq, most: usize) -> Fut<'a, Result<Vec<Event>, StoreError>>;
    /// Events of one run, oldest first.
    fn read_run<'a>(&'a self, app: &'a AppId, run: &'a RunId) -> Fut<'a, Result<Vec<Event>, StoreError>>;
    fn head<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<(Seq, Digest), StoreError>>;
    fn blob<'a>(&'a self, digest: &'a Digest) -> Fut<'a, Result<Option<Vec<u8>>, StoreError>>;

    fn ledger<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<Ledger, StoreError>>;
    /// Newest first.
    fn runs<'a>(&'a self, app: &'a AppId, most: usize) -> Fut<'a, Result<Vec<RunRow>, StoreError>>;
    fn incidents<'a>(&'a self, app: &'a AppId, most: usize) -> Fut<'a, Result<Vec<Incident>, StoreError>>;
    fn captures<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<Vec<CaptureRow>, StoreError>>;
    fn memories<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<BTreeMap<TriggerId, Memory>, StoreError>>;

    fn request<'a>(&'a self, app: &'a AppId, by: &'a Actor, ask: &'a Ask) -> Fut<'a, Result<u64, StoreError>>;
    /// Unanswered requests, oldest first.
    fn requests<'a>(&'a self, app: &'a AppId) -> Fut<'a, Result<Vec<Request>, StoreError>>;
    fn reply<'a>(&'a self, app: &'a AppId, id: u64) -> Fut<'a, Result<Option<Reply>, StoreError>>;

    fn outbox<'a>(&'a self, app: &'a AppId, now: Timestamp) -> Fut<'a, Result<Vec<Outgoing>, StoreError>>;

    fn acquire<'a>(
        &'a self,
        on: &'a LeaseOn,
        holder: &'a Holder,
        ttl: Duration,
    ) -> Fut<'a, Result<Lease, AcquireError>>;
    fn renew<'a>(&'a self, lease: &'a Lease) -> Fut<'a, Result<(), AppendError>>;
    fn release<'a>(&'a self, lease: &'a Lease) -> Fut<'a, Result<(), StoreError>>;
    fn holder<'a>(&'a self, on: &'a LeaseOn) -> Fut<'a, Result<Option<Holder>, StoreError>>;
}
