//! What the shared rules need of a store, in one transaction: the seam between the one append and its two implementations.

use ripcord_core::{
    AppId, CaptureId, CaptureRow, Digest, Event, Incident, IncidentId, LeaseOn, Memory, Message, Outgoing, Quarantine,
    Release, ReleaseId, Reply, RunId, RunRow, Seq, StoreError, TriggerId,
};

use crate::lease::LeaseRow;
use crate::seal::Raw;

/// A run as kept beside the journal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunKept {
    pub row: RunRow,
    /// Its last event taken in.
    pub last: Seq,
    /// What it takes up of the automatic attempts there are, while it counts as one.
    pub attempt: Option<Attempt>,
}

/// An automatic rollback: there is one at each level for a release, and one for an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub release: Option<ReleaseId>,
    pub incident: Option<IncidentId>,
    pub level: u8,
}

impl Attempt {
    /// Whether both cannot be.
    pub fn rivals(&self, other: &Self) -> bool {
        let same_release = self.release.is_some() && self.release == other.release;
        let same_incident = self.incident.is_some() && self.incident == other.incident;
        self.level == other.level && (same_release || same_incident)
    }
}

/// What became of an event to be put down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Done,
    /// Its identity is another event's: nothing was written.
    UsedBefore,
}

pub(crate) type Kept<T> = Result<T, StoreError>;

/// One transaction's view. Nothing written is seen by others before it is committed.
pub(crate) trait Tables {
    fn now(&self) -> Kept<f64>;
    fn lease(&self, on: &LeaseOn) -> Kept<Option<LeaseRow>>;
    fn put_lease(&mut self, on: &LeaseOn, row: &LeaseRow) -> Kept<()>;

    fn head(&self, app: &AppId) -> Kept<(Seq, Digest)>;
    fn put_head(&mut self, app: &AppId, seq: Seq, hash: Digest) -> Kept<()>;
    fn events(&self, app: &AppId, after: Seq, most: usize) -> Kept<Vec<Event>>;
    fn run_events(&self, app: &AppId, run: &RunId) -> Kept<Vec<Event>>;
    fn put_event(&mut self, raw: &Raw, event: &Event) -> Kept<Put>;

    fn blob(&self, digest: &Digest) -> Kept<Option<Vec<u8>>>;
    fn put_blob(&mut self, digest: &Digest, bytes: &[u8]) -> Kept<()>;

    fn release(&self, app: &AppId, id: &ReleaseId) -> Kept<Option<Release>>;
    /// `first` is the event that first recorded it; later ones keep its place in the order.
    fn put_release(&mut self, app: &AppId, first: Seq, release: &Release) -> Kept<()>;
    fn put_quarantine(&mut self, app: &AppId, version: &str, quarantine: Option<&Quarantine>) -> Kept<()>;
    fn run(&self, app: &AppId, id: &RunId) -> Kept<Option<RunKept>>;
    fn put_run(&mut self, app: &AppId, run: &RunKept) -> Kept<()>;
    /// Another run that takes up the same attempt.
    fn rival(&self, app: &AppId, attempt: &Attempt) -> Kept<Option<RunId>>;
    fn incident(&self, app: &AppId, id: &IncidentId) -> Kept<Option<Incident>>;
    fn put_incident(&mut self, app: &AppId, first: Seq, incident: &Incident) -> Kept<()>;
    fn capture(&self, app: &AppId, id: &CaptureId) -> Kept<Option<CaptureRow>>;
    fn put_capture(&mut self, app: &AppId, first: Seq, capture: &CaptureRow) -> Kept<()>;

    fn put_memory(&mut self, app: &AppId, trigger: &TriggerId, memory: &Memory) -> Kept<()>;
    /// One that is waiting already stays as it is.
    fn add_message(&mut self, app: &AppId, message: &Message) -> Kept<()>;
    fn put_outgoing(&mut self, app: &AppId, id: &str, outgoing: Option<&Outgoing>) -> Kept<()>;
    /// Whether there is such a request.
    fn answer(&mut self, app: &AppId, id: u64, reply: &Reply) -> Kept<bool>;
}
