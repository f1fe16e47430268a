//! What a step of a rollback pays for being on record, and what `status` pays for a long history.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::path::Path;
use std::time::Duration;

use divan::Bencher;
use ripcord_core::*;
use ripcord_store::{MemoryStore, SqliteStore};
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

fn app() -> AppId {
    AppId { application: "shop".parse().unwrap(), environment: "production".parse().unwrap() }
}

fn note(seq: u64) -> NewEvent {
    NewEvent {
        id: format!("event {seq}"),
        at: jiff::Timestamp::UNIX_EPOCH,
        run: None,
        incident: None,
        body: Body::Noted { by: Actor::Policy, text: "readable, 12 rows; current -> releases/v1.0.0".repeat(4) },
    }
}

fn release(n: u64) -> NewEvent {
    let release = Release {
        id: ReleaseId::at(Seq(n)),
        version: format!("v1.{n}.0"),
        origin: Origin::Observed,
        map: (0..8)
            .map(|place| {
                let place = Place::local(format!("component-{place}").parse().unwrap());
                let revision = Revision::exact(format!("sha256:{n:064}"));
                (place, Recorded { revision, label: None, capture: None, flowing: false })
            })
            .collect(),
        config: Digest::ZERO,
        verdict: Verdict::Undecided,
        standing: Standing::Superseded,
        at: jiff::Timestamp::UNIX_EPOCH,
    };
    NewEvent { body: Body::Recorded { release: Box::new(release) }, ..note(n) }
}

fn lease(runtime: &Runtime, store: &dyn Store) -> Lease {
    let holder = Holder { incarnation: "bench".into(), actor: Actor::Policy, pid: 1, doing: "bench".into() };
    runtime.block_on(store.acquire(&LeaseOn::App(app()), &holder, Duration::from_secs(3600))).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Two events for each commit, as an intent and its outcome beside others'.
fn two_events(bencher: Bencher, store: &dyn Store) {
    let runtime = runtime();
    let lease = lease(&runtime, store);
    let mut head = 0;
    bencher.bench_local(|| {
        let batch = Batch { events: vec![note(head + 1), note(head + 2)], ..Batch::default() };
        runtime.block_on(store.append(&lease, Seq(head), &batch)).unwrap();
        head += 2;
    });
}

#[divan::bench(sample_count = 500)]
fn append_on_disk(bencher: Bencher) {
    let directory = tempfile::tempdir().unwrap();
    two_events(bencher, &SqliteStore::open(directory.path()).unwrap());
}

#[divan::bench(sample_count = 500)]
fn append_in_memory(bencher: Bencher) {
    two_events(bencher, &MemoryStore::new());
}

/// 10,000 events, 200 of them releases.
fn history() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).unwrap();
    let runtime = runtime();
    let lease = lease(&runtime, &store);
    for page in 0..100 {
        let seqs = (1..=100).map(|n| page * 100 + n);
        let events = seqs.map(|seq| if seq % 50 == 0 { release(seq) } else { note(seq) }).collect();
        let batch = Batch { events, ..Batch::default() };
        runtime.block_on(store.append(&lease, Seq(page * 100), &batch)).unwrap();
    }
    directory
}

/// What a fresh process does before it can say how things stand.
fn status(directory: &Path) -> usize {
    let store = SqliteStore::open_to_read(directory).unwrap().unwrap();
    let app = app();
    runtime().block_on(async {
        let ledger = store.ledger(&app).await.unwrap();
        let runs = store.runs(&app, 10).await.unwrap();
        let incidents = store.incidents(&app, 10).await.unwrap();
        let holder = store.holder(&LeaseOn::App(app.clone())).await.unwrap();
        ledger.releases.len() + runs.len() + incidents.len() + usize::from(holder.is_some())
    })
}

#[divan::bench]
fn status_over_10_000_events(bencher: Bencher) {
    let directory = history();
    bencher.bench_local(|| status(directory.path()));
}

#[divan::bench(sample_count = 10)]
fn verify_10_000_events(bencher: Bencher) {
    let directory = history();
    let store = SqliteStore::open_to_read(directory.path()).unwrap().unwrap();
    let runtime = runtime();
    bencher.bench_local(|| runtime.block_on(store.verify_journal(&app(), None)).unwrap());
}
