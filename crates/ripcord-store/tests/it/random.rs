//! Whatever they are asked, both stores do the same; what is kept beside the journal is what the journal says; the chain holds.

use std::sync::Arc;

use proptest::prelude::*;
use ripcord_core::*;
use ripcord_store::{MemoryStore, SqliteStore};

use crate::sample::*;

/// One batch as drawn. Its events are numbers, made into events by where the history stands.
#[derive(Debug, Clone)]
struct Drawn {
    events: Vec<(u8, u8)>,
    repeat: bool,
    restart: bool,
}

fn histories() -> impl Strategy<Value = Vec<Drawn>> {
    let events = prop_oneof![
        4 => prop::collection::vec((0..40_u8, any::<u8>()), 1..2),
        1 => prop::collection::vec((0..40_u8, any::<u8>()), 2..4),
    ];
    let drawn = (events, prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    prop::collection::vec(drawn.prop_map(|(events, repeat, restart)| Drawn { events, repeat, restart }), 1..60)
}

/// Where the newest run stands on its way, as far as what was asked for was taken.
#[derive(Clone, Copy, Default)]
struct Way {
    run: u64,
    stage: u8,
}

const STEPS: [&str; 4] = ["stop", "restore", "start", "check"];

impl Way {
    /// What usually comes next: a run that is proposed, approved, begun, and goes through its steps.
    fn on(&mut self, pick: u8, plan: &Plan) -> Body {
        let stage = self.stage;
        self.stage = (stage + 1) % 13;
        match stage {
            0 => {
                self.run += 1;
                proposed(plan, pick.is_multiple_of(4))
            }
            1 => {
                let answer = if pick.is_multiple_of(9) { Answer::Decline } else { Answer::Approve };
                Body::Answered { plan: plan.digest(), by: anna(), answer, reason: None, consent: None }
            }
            2 => Body::Started,
            3 | 5 | 7 => intent(STEPS[usize::from(stage - 3) / 2]),
            4 | 6 | 8 => {
                let outcome = ["done", "done", "done", "failed", "unknown"][usize::from(pick) % 5];
                if outcome != "done" {
                    self.stage = stage - 1;
                }
                acted(STEPS[usize::from(stage - 4) / 2], outcome)
            }
            9 => Body::Verified { step: StepId("check".into()), verdict: verdict(pick) },
            10 => Body::Helped { verdict: verdict(pick), compared: vec![] },
            11 => Body::Watching { until: at(90) },
            _ => Body::Ended { end: if pick.is_multiple_of(2) { End::Succeeded } else { End::Insufficient } },
        }
    }
}

fn verdict(pick: u8) -> Check {
    match pick % 3 {
        0 => Check::Pass { found: "200".into() },
        1 => Check::Fail { what: vec!["500".into()] },
        _ => Check::Inconclusive { why: "too few".into() },
    }
}

/// What may come at any time, sense or nonsense; the flag says whether it is the run's.
fn aside(kind: u8, pick: u8) -> (bool, Body) {
    let id = || StepId(STEPS[usize::from(pick) % 4].into());
    let release_id = ReleaseId::at(Seq(u64::from(pick % 3)));
    let version = format!("v{}", pick % 2);
    let capture = CaptureId::at(Seq(u64::from(pick % 3)));
    let verb = |verb| (true, Body::Person { by: anna(), verb });
    match kind {
        0 | 1 => (false, Body::Recorded { release: Box::new(release(u64::from(pick % 3), "v1")) }),
        2 => (false, Body::Judged { release: release_id, verdict: Verdict::Good { by: "bake".into(), at: at(1) } }),
        3 => (false, Body::Stands { release: release_id, standing: Standing::Superseded }),
        4 => (false, Body::Quarantined { quarantine: Quarantine { version, why: "errors".into(), at: at(2) } }),
        5 => (false, Body::Lifted { version, by: anna(), why: "fixed".into() }),
        6 => (false, Body::Noted { by: anna(), text: format!("note {pick}") }),
        7 => (false, captured(u64::from(pick % 3))),
        8 => (false, Body::Proven { capture, level: ProofLevel::ReadBack }),
        9 => (false, Body::Spoiled { capture, why: "checksum".into() }),
        10 => (false, Body::Pruned { capture }),
        11 => (false, Body::Opened { incident: incident(u64::from(pick % 2)) }),
        12 => (false, Body::Joined { trigger: "errors".parse().unwrap(), severity: Severity(pick % 4) }),
        13 => (false, Body::Closed { by: anna(), why: "over".into() }),
        14 => (true, Body::Held { step: id(), found: "was so".into() }),
        15 => (true, Body::Verified { step: id(), verdict: verdict(pick) }),
        16 => (true, Body::Parked { why: ParkedWhy::Insufficient { why: "still red".into() } }),
        17 => verb(Verb::Retry { step: None }),
        18 => verb(Verb::Skip { step: id(), reason: "by hand".into() }),
        19 => verb(Verb::Done { step: id(), evidence: "seen".into() }),
        20 if pick.is_multiple_of(3) => verb(Verb::Abandon { reason: "enough".into() }),
        _ => (true, Body::Noted { by: anna(), text: "of the run".into() }),
    }
}

fn batch_of(n: usize, drawn: &Drawn, way: &mut Way) -> Batch {
    let plan = a_plan(2, None);
    let new = |(i, (kind, pick)): (usize, &(u8, u8))| {
        let (in_run, body) = match kind {
            22.. => (true, way.on(*pick, &plan)),
            kind => aside(*kind, *pick),
        };
        let id = format!("{n}/{i}");
        let event = if in_run { of_run(&id, way.run, body) } else { event(&id, body) };
        NewEvent { incident: (!in_run).then(|| IncidentId::at(Seq(u64::from(pick % 2)))), ..event }
    };
    let events: Vec<NewEvent> = drawn.events.iter().enumerate().map(new).collect();
    Batch { blobs: vec![blob(&plan)], ..batch(events) }
}

/// The state of a run by the fold alone, without anything that the store keeps.
async fn fold(store: &dyn Store, run: &RunRow) -> RunState {
    let events = store.read_run(&app(), &run.id).await.unwrap();
    let plan = store.blob(&run.plan).await.unwrap().unwrap();
    let mut folded = Run::proposed(&events[0], Arc::new(serde_json::from_slice(&plan).unwrap())).unwrap();
    events[1..].iter().for_each(|event| folded.apply(event).unwrap());
    folded.state
}

async fn play(history: Vec<Drawn>) {
    let directory = tempfile::tempdir().unwrap();
    let mut disk = SqliteStore::open(directory.path()).unwrap();
    let memory = MemoryStore::new();
    let on = LeaseOn::App(app());
    let leases = [
        disk.acquire(&on, &holder("a"), TTL * 100).await.unwrap(),
        memory.acquire(&on, &holder("a"), TTL * 100).await.unwrap(),
    ];
    let mut way = Way::default();
    for (n, drawn) in history.iter().enumerate() {
        let (after, _) = memory.head(&app()).await.unwrap();
        let mut further = way;
        let batch = batch_of(n, drawn, &mut further);
        for _ in 0..=u8::from(drawn.repeat) {
            let written = disk.append(&leases[0], after, &batch).await;
            assert_eq!(written, memory.append(&leases[1], after, &batch).await);
            if written.is_ok() {
                way = further;
            }
        }
        if drawn.restart {
            // Whoever comes next knows only what is on disk.
            disk = SqliteStore::open(directory.path()).unwrap();
        }
        // After a run that ended comes another.
        if memory.runs(&app(), 1).await.unwrap().first().is_some_and(|run| matches!(run.state, RunState::Ended(_))) {
            way.stage = 0;
        }
    }
    assert_eq!(disk.head(&app()).await, memory.head(&app()).await);
    assert_eq!(disk.ledger(&app()).await, memory.ledger(&app()).await);
    assert_eq!(disk.captures(&app()).await, memory.captures(&app()).await);
    assert_eq!(disk.incidents(&app(), 9).await, memory.incidents(&app(), 9).await);
    let runs = disk.runs(&app(), 100).await.unwrap();
    assert_eq!(runs, memory.runs(&app(), 100).await.unwrap());
    for run in &runs {
        assert_eq!(run.state, fold(&disk, run).await);
    }
    let head = disk.head(&app()).await.unwrap();
    let verified = disk.verify_journal(&app(), Some(head)).await.unwrap();
    assert_eq!((Seq(verified.events), verified.head), head);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_do_the_same_and_the_record_verifies(history in histories()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(history));
    }
}
