//! A chain of empty steps beside two bare commits a step, on the same disk.
//!
//! Each step of a run is an intent committed before it and an outcome after it: two commits. What the engine, the fold, the hash
//! chain and the tables add is the difference to a program that does nothing but commit. The two alternate, so that what else the
//! machine does hits both.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ripcord_core::*;
use ripcord_store::SqliteStore;
use rusqlite::Connection;

use crate::figures::{median, ms, row};
use crate::world;

/// The work allowed beside the commits.
const ALLOWED: f64 = 1.3;

/// A component whose steps do nothing, and can tell that they did.
#[derive(Default)]
struct Nothing(Mutex<HashSet<Key>>);

impl Component for Nothing {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: "nothing".into(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { observe: Observe::ByMarker, ..Capabilities::NONE }
    }

    fn survey<'a>(&'a self, _: &'a Cx, place: &'a Place, _: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move { Survey::new(place.clone(), Seen::At(Revision::Absent), TargetId("nothing".into())) })
    }

    fn propose(&self, _: &Wish, _: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        Ok(vec![])
    }

    fn holds<'a>(&'a self, _: &'a Cx, _: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let done = before.is_some_and(|before| self.0.lock().unwrap().contains(&before.key));
            if done { Holds::Target.into() } else { Holds::Origin.into() }
        })
    }

    fn apply<'a>(&'a self, _: &'a Cx, _: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move {
            self.0.lock().unwrap().insert(before.key.clone());
            Outcome::Done(Proof::of("nothing to do"))
        })
    }
}

fn component() -> ComponentId {
    "nothing".parse().unwrap()
}

/// Steps that each need the one before.
fn plan(steps: usize) -> Plan {
    let id = |n: usize| StepId(format!("nothing/{n:05}"));
    let step = |n: usize| Step {
        id: id(n),
        phase: Phase::Restore,
        place: Some(Place::local(component())),
        target: Some(TargetId("nothing".into())),
        kind: Some(Nothing::default().kind()),
        needs: n.checked_sub(1).map(id).into_iter().collect(),
        action: Action::Own { what: "do nothing at".into(), with: n.into() },
        destroys: Destroys::Nothing,
        protected_by: None,
        redo: Redo::Safe,
        limits: Limits::default(),
        on_failure: OnFailure::Park,
        shown: Shown { words: "do nothing".into(), commands: vec![] },
    };
    Plan {
        app: world::app("chain"),
        purpose: Purpose::Rollback,
        rung: world::rung(Means::Restore { scope: BTreeSet::from([component()]) }),
        from: None,
        from_version: None,
        to: None,
        to_version: None,
        inventory: Digest::ZERO,
        config: Digest::ZERO,
        steps: (0..steps).map(step).collect(),
        ends_at: BTreeMap::new(),
        left_alone: vec![],
        puts_back: BTreeMap::new(),
        loss_at_most: Loss::none(),
    }
}

/// Drives the chain; returns how long the run took from its start to its end.
fn chain(state: &Path, steps: usize) -> Duration {
    let spec = ComponentSpec {
        kind: "nothing".into(),
        layer: Layer::Code,
        needs: BTreeSet::new(),
        hosts: vec![],
        health: vec![],
        step_limit: None,
    };
    let mut parts = Parts::default();
    parts.components.insert(component(), Arc::new(Nothing::default()));
    let application = world::application(world::app("chain"), BTreeMap::from([(component(), spec)]));
    let runtime = world::runtime();
    runtime.block_on(async {
        let desk = world::desk(application, parts, state).await;
        let mut driver = world::approved(&desk, &plan(steps)).await;
        // As in the binary, a run is a task of its own.
        let driving = tokio::spawn(async move {
            let began = Instant::now();
            driver.drive().await.unwrap();
            (began.elapsed(), driver.run.state.clone())
        });
        let (took, ended) = driving.await.unwrap();
        assert_eq!(ended, RunState::Ended(End::Succeeded), "the chain did not end");
        took
    })
}

/// As the store opens its own file.
fn bare(directory: &Path) -> Connection {
    let connection = Connection::open(directory.join("bare.db")).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE event (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);",
        )
        .unwrap();
    connection
}

/// Commits one row at a time, each as large as an event of the chain, with nothing around it.
fn commits(directory: &Path, count: usize) -> Duration {
    let connection = bare(directory);
    let payload = "x".repeat(500);
    let began = Instant::now();
    for _ in 0..count {
        connection.prepare_cached("INSERT INTO event (payload) VALUES (?1)").unwrap().execute([&payload]).unwrap();
    }
    began.elapsed()
}

/// Appends one event at a time by the store, which has its hash chain and lease to see to.
fn appends(state: &Path, count: usize) -> Duration {
    let store = SqliteStore::open(state).unwrap();
    let app = world::app("appends");
    world::runtime().block_on(async {
        let holder = Holder { incarnation: "bench".into(), actor: Actor::Policy, pid: 1, doing: "bench".into() };
        let lease = store.acquire(&LeaseOn::App(app), &holder, Duration::from_secs(3600)).await.unwrap();
        let began = Instant::now();
        for seq in 0..count as u64 {
            let event = NewEvent {
                id: uuid::Uuid::now_v7().to_string(),
                at: jiff::Timestamp::now(),
                run: None,
                incident: None,
                body: Body::Noted { by: Actor::Policy, text: "x".repeat(100) },
            };
            let batch = Batch { events: vec![event], ..Batch::default() };
            store.append(&lease, Seq(seq), &batch).await.unwrap();
        }
        began.elapsed()
    })
}

pub fn compare(steps: usize, rounds: usize) {
    let (mut chains, mut bares, mut stores) = (vec![], vec![], vec![]);
    for round in 0..rounds {
        // Each on a fresh record, so that none pays for what another left.
        let directory = world::directory();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("bare")).unwrap();
        chains.push(chain(&at("chain"), steps));
        bares.push(commits(&at("bare"), 2 * steps));
        stores.push(appends(&at("store"), 2 * steps));
        let (chain, bare, store) = (chains[round], bares[round], stores[round]);
        eprintln!("round {}: chain {}, bare commits {}, store {}", round + 1, ms(chain), ms(bare), ms(store));
    }
    let (chain, bare, store) = (median(&chains), median(&bares), median(&stores));
    let times = |other: Duration| chain.as_secs_f64() / other.as_secs_f64();
    let each = |whole: Duration| ms(whole / steps as u32).replace(" ms", "");
    let wanted = format!("<= {ALLOWED} x two bare commits");
    let figure = format!("{} ms a step, {} ms of bare commits: {:.2} x", each(chain), each(bare), times(bare));
    row(&format!("engine: chain of {steps} empty steps"), &figure, &wanted, times(bare) / ALLOWED);
    let figure = format!("{} ms of appends: {:.2} x", each(store), times(store));
    row("  the same beside the store's own appends", &figure, &wanted, times(store) / ALLOWED);
}

pub fn chain_once(steps: usize) {
    let directory = world::directory();
    eprintln!("{}", ms(chain(&directory.path().join("chain"), steps)));
}

pub fn commits_once(steps: usize) {
    let directory = world::directory();
    eprintln!("{}", ms(commits(directory.path(), 2 * steps)));
}
