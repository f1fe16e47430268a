//! The tables in memory: what [`crate::MemoryStore`] keeps, and what a journal is folded into when it is verified.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use ripcord_core::{
    Actor, AppId, Ask, CaptureId, CaptureRow, Digest, Event, Incident, IncidentId, LeaseOn, Ledger, Memory, Message,
    Name, Outgoing, Quarantine, Release, ReleaseId, Reply, Request, RunId, RunRow, Seq, TriggerId,
};

use crate::clock::{self, Clock};
use crate::lease::LeaseRow;
use crate::seal::Raw;
use crate::tables::{Attempt, Kept, Put, RunKept, Tables};

/// Cloned for every append, so that one that fails half way leaves nothing behind; what is large is shared.
#[derive(Clone, Default)]
pub(crate) struct State {
    pub clock: Option<Clock>,
    journals: BTreeMap<AppId, Journal>,
    quarantined: BTreeMap<Name, BTreeMap<String, Quarantine>>,
    blobs: BTreeMap<Digest, Arc<[u8]>>,
    event_ids: BTreeSet<Arc<str>>,
    leases: BTreeMap<LeaseOn, LeaseRow>,
    requests: Vec<Arc<Request>>,
}

#[derive(Clone, Default)]
struct Journal {
    head: Option<(Seq, Digest)>,
    events: Vec<Arc<Event>>,
    rows: Rows,
    memories: BTreeMap<TriggerId, Memory>,
    /// In the order added.
    outbox: Vec<(String, Outgoing)>,
}

/// What is folded from a journal, each with the event that first made it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rows {
    pub releases: BTreeMap<ReleaseId, (Seq, Release)>,
    pub runs: BTreeMap<RunId, RunKept>,
    pub incidents: BTreeMap<IncidentId, (Seq, Incident)>,
    pub captures: BTreeMap<CaptureId, (Seq, CaptureRow)>,
}

impl State {
    fn journal(&self, app: &AppId) -> Option<&Journal> {
        self.journals.get(app)
    }

    fn journal_mut(&mut self, app: &AppId) -> &mut Journal {
        self.journals.entry(app.clone()).or_default()
    }

    pub fn rows(&self, app: &AppId) -> Rows {
        self.journal(app).map(|journal| journal.rows.clone()).unwrap_or_default()
    }

    pub fn ledger(&self, app: &AppId) -> Ledger {
        Ledger {
            releases: in_order(self.rows(app).releases),
            quarantined: self.quarantined.get(&app.application).cloned().unwrap_or_default(),
        }
    }

    pub fn runs(&self, app: &AppId, most: usize) -> Vec<RunRow> {
        let mut runs: Vec<RunRow> = self.rows(app).runs.into_values().map(|kept| kept.row).collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.first));
        runs.truncate(most);
        runs
    }

    pub fn incidents(&self, app: &AppId, most: usize) -> Vec<Incident> {
        let mut incidents = in_order(self.rows(app).incidents);
        incidents.reverse();
        incidents.truncate(most);
        incidents
    }

    pub fn captures(&self, app: &AppId) -> Vec<CaptureRow> {
        in_order(self.rows(app).captures)
    }

    pub fn memories(&self, app: &AppId) -> BTreeMap<TriggerId, Memory> {
        self.journal(app).map(|journal| journal.memories.clone()).unwrap_or_default()
    }

    pub fn outbox(&self, app: &AppId, now: Timestamp) -> Vec<Outgoing> {
        let waiting = self.journal(app).map(|journal| journal.outbox.as_slice()).unwrap_or_default();
        let mut due: Vec<Outgoing> =
            waiting.iter().map(|(_, outgoing)| outgoing).filter(|o| o.next_try <= now).cloned().collect();
        due.sort_by_key(|outgoing| outgoing.next_try);
        due
    }

    pub fn request(&mut self, app: &AppId, by: &Actor, ask: &Ask) -> Kept<u64> {
        let id = self.requests.len() as u64 + 1;
        let at = clock::timestamp(self.now()?);
        let request = Request { id, app: app.clone(), by: by.clone(), at, ask: ask.clone(), reply: None };
        self.requests.push(Arc::new(request));
        Ok(id)
    }

    pub fn requests(&self, app: &AppId) -> Vec<Request> {
        let open = self.requests.iter().filter(|request| request.app == *app && request.reply.is_none());
        open.map(|request| (**request).clone()).collect()
    }

    pub fn reply(&self, app: &AppId, id: u64) -> Option<Reply> {
        self.requests.iter().find(|request| request.app == *app && request.id == id)?.reply.clone()
    }
}

fn in_order<K, T>(rows: BTreeMap<K, (Seq, T)>) -> Vec<T> {
    let mut rows: Vec<(Seq, T)> = rows.into_values().collect();
    rows.sort_by_key(|(first, _)| *first);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Puts a row in the place it had.
fn put<K: Ord, T>(rows: &mut BTreeMap<K, (Seq, T)>, id: K, first: Seq, row: T) {
    let first = rows.get(&id).map_or(first, |(first, _)| *first);
    rows.insert(id, (first, row));
}

impl Tables for State {
    fn now(&self) -> Kept<f64> {
        Ok(self.clock.as_ref().map_or_else(clock::host, |clock| clock()))
    }

    fn lease(&self, on: &LeaseOn) -> Kept<Option<LeaseRow>> {
        Ok(self.leases.get(on).cloned())
    }

    fn put_lease(&mut self, on: &LeaseOn, row: &LeaseRow) -> Kept<()> {
        self.leases.insert(on.clone(), row.clone());
        Ok(())
    }

    fn head(&self, app: &AppId) -> Kept<(Seq, Digest)> {
        Ok(self.journal(app).and_then(|journal| journal.head).unwrap_or((Seq(0), Digest::ZERO)))
    }

    fn put_head(&mut self, app: &AppId, seq: Seq, hash: Digest) -> Kept<()> {
        self.journal_mut(app).head = Some((seq, hash));
        Ok(())
    }

    fn events(&self, app: &AppId, after: Seq, most: usize) -> Kept<Vec<Event>> {
        let events = self.journal(app).map(|journal| journal.events.as_slice()).unwrap_or_default();
        let from = usize::try_from(after.0).unwrap_or(usize::MAX);
        Ok(events.iter().skip(from).take(most).map(|event| (**event).clone()).collect())
    }

    fn run_events(&self, app: &AppId, run: &RunId) -> Kept<Vec<Event>> {
        let events = self.journal(app).map(|journal| journal.events.as_slice()).unwrap_or_default();
        Ok(events.iter().filter(|event| event.run.as_ref() == Some(run)).map(|event| (**event).clone()).collect())
    }

    fn put_event(&mut self, raw: &Raw, event: &Event) -> Kept<Put> {
        if !self.event_ids.insert(raw.id.as_str().into()) {
            return Ok(Put::UsedBefore);
        }
        self.journal_mut(&event.app).events.push(Arc::new(event.clone()));
        Ok(Put::Done)
    }

    fn blob(&self, digest: &Digest) -> Kept<Option<Vec<u8>>> {
        Ok(self.blobs.get(digest).map(|bytes| bytes.to_vec()))
    }

    fn put_blob(&mut self, digest: &Digest, bytes: &[u8]) -> Kept<()> {
        self.blobs.entry(*digest).or_insert_with(|| bytes.into());
        Ok(())
    }

    fn release(&self, app: &AppId, id: &ReleaseId) -> Kept<Option<Release>> {
        Ok(self.journal(app).and_then(|j| j.rows.releases.get(id)).map(|(_, release)| release.clone()))
    }

    fn put_release(&mut self, app: &AppId, first: Seq, release: &Release) -> Kept<()> {
        put(&mut self.journal_mut(app).rows.releases, release.id.clone(), first, release.clone());
        Ok(())
    }

    fn put_quarantine(&mut self, app: &AppId, version: &str, quarantine: Option<&Quarantine>) -> Kept<()> {
        let quarantined = self.quarantined.entry(app.application.clone()).or_default();
        match quarantine {
            Some(quarantine) => quarantined.insert(version.to_owned(), quarantine.clone()),
            None => quarantined.remove(version),
        };
        Ok(())
    }

    fn run(&self, app: &AppId, id: &RunId) -> Kept<Option<RunKept>> {
        Ok(self.journal(app).and_then(|j| j.rows.runs.get(id)).cloned())
    }

    fn put_run(&mut self, app: &AppId, run: &RunKept) -> Kept<()> {
        self.journal_mut(app).rows.runs.insert(run.row.id.clone(), run.clone());
        Ok(())
    }

    fn rival(&self, app: &AppId, attempt: &Attempt) -> Kept<Option<RunId>> {
        let Some(journal) = self.journal(app) else { return Ok(None) };
        let rivals = |kept: &&RunKept| kept.attempt.as_ref().is_some_and(|other| other.rivals(attempt));
        Ok(journal.rows.runs.values().find(rivals).map(|kept| kept.row.id.clone()))
    }

    fn incident(&self, app: &AppId, id: &IncidentId) -> Kept<Option<Incident>> {
        Ok(self.journal(app).and_then(|j| j.rows.incidents.get(id)).map(|(_, incident)| incident.clone()))
    }

    fn put_incident(&mut self, app: &AppId, first: Seq, incident: &Incident) -> Kept<()> {
        put(&mut self.journal_mut(app).rows.incidents, incident.id.clone(), first, incident.clone());
        Ok(())
    }

    fn capture(&self, app: &AppId, id: &CaptureId) -> Kept<Option<CaptureRow>> {
        Ok(self.journal(app).and_then(|j| j.rows.captures.get(id)).map(|(_, capture)| capture.clone()))
    }

    fn put_capture(&mut self, app: &AppId, first: Seq, capture: &CaptureRow) -> Kept<()> {
        put(&mut self.journal_mut(app).rows.captures, capture.id.clone(), first, capture.clone());
        Ok(())
    }

    fn put_memory(&mut self, app: &AppId, trigger: &TriggerId, memory: &Memory) -> Kept<()> {
        self.journal_mut(app).memories.insert(trigger.clone(), memory.clone());
        Ok(())
    }

    fn add_message(&mut self, app: &AppId, message: &Message) -> Kept<()> {
        let outbox = &mut self.journal_mut(app).outbox;
        if !outbox.iter().any(|(id, _)| *id == message.id) {
            let outgoing = Outgoing { message: message.clone(), tried: 0, next_try: message.at };
            outbox.push((message.id.clone(), outgoing));
        }
        Ok(())
    }

    fn put_outgoing(&mut self, app: &AppId, id: &str, outgoing: Option<&Outgoing>) -> Kept<()> {
        let outbox = &mut self.journal_mut(app).outbox;
        match outgoing {
            None => outbox.retain(|(other, _)| other != id),
            Some(outgoing) => {
                if let Some((_, waiting)) = outbox.iter_mut().find(|(other, _)| other == id) {
                    *waiting = outgoing.clone();
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, app: &AppId, id: u64, reply: &Reply) -> Kept<bool> {
        let found = self.requests.iter_mut().find(|request| request.id == id && request.app == *app);
        let Some(request) = found else { return Ok(false) };
        if request.reply.is_none() {
            Arc::make_mut(request).reply = Some(reply.clone());
        }
        Ok(true)
    }
}
