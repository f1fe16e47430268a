//! Events to write, and a world to write them in: a store, the same data seen by another process, and a clock that stands still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::*;
use ripcord_store::{Clock, MemoryStore, SqliteStore};

pub const TTL: Duration = Duration::from_secs(15);

pub fn app() -> AppId {
    AppId { application: "shop".parse().unwrap(), environment: "production".parse().unwrap() }
}

pub fn staging() -> AppId {
    AppId { environment: "staging".parse().unwrap(), ..app() }
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

pub fn anna() -> Actor {
    Actor::Person { user: "anna".into(), host: "laptop".into() }
}

pub fn holder(incarnation: &str) -> Holder {
    Holder { incarnation: incarnation.into(), actor: anna(), pid: 42, doing: "ripcord watch".into() }
}

/// An event; `id` makes it unique.
pub fn event(id: &str, body: Body) -> NewEvent {
    NewEvent { id: id.into(), at: at(0), run: None, incident: None, body }
}

pub fn of_run(id: &str, run: u64, body: Body) -> NewEvent {
    NewEvent { run: Some(RunId::at(Seq(run))), ..event(id, body) }
}

pub fn note(text: &str) -> NewEvent {
    event(text, Body::Noted { by: anna(), text: text.into() })
}

pub fn batch(events: impl IntoIterator<Item = NewEvent>) -> Batch {
    Batch { events: events.into_iter().collect(), ..Batch::default() }
}

pub fn release(n: u64, version: &str) -> Release {
    let place = Place::local("web".parse().unwrap());
    let recorded =
        Recorded { revision: Revision::exact(format!("sha256:{n:064}")), label: None, capture: None, flowing: false };
    Release {
        id: ReleaseId::at(Seq(n)),
        version: version.into(),
        origin: Origin::Observed,
        map: [(place, recorded)].into(),
        config: Digest::of(b"configuration"),
        verdict: Verdict::Undecided,
        standing: Standing::Live,
        at: at(0),
    }
}

pub fn recorded(release: &Release) -> NewEvent {
    let id = format!("recorded {} {:?}", release.id, release.standing);
    event(&id, Body::Recorded { release: Box::new(release.clone()) })
}

fn step(id: &str, phase: Phase, action: Action, needs: &[&str]) -> Step {
    let checks = matches!(action, Action::Check { .. });
    Step {
        id: StepId(id.into()),
        phase,
        place: (!checks).then(|| Place::local("web".parse().unwrap())),
        target: None,
        kind: None,
        needs: needs.iter().map(|need| StepId((*need).into())).collect(),
        action,
        destroys: Destroys::Nothing,
        protected_by: None,
        redo: Redo::Safe,
        limits: Limits::default(),
        on_failure: OnFailure::Park,
        shown: Shown::default(),
    }
}

/// Stop, restore, start, check.
pub fn a_plan(level: u8, from: Option<u64>) -> Plan {
    let web: ComponentId = "web".parse().unwrap();
    let to = Revision::exact("sha256:0123");
    Plan {
        app: app(),
        purpose: Purpose::Rollback,
        rung: Rung {
            level,
            name: "code".parse().unwrap(),
            means: Means::Restore { scope: BTreeSet::from([web.clone()]) },
            climb: Climb::Automatic,
            budget: Duration::from_secs(900),
        },
        from: from.map(|n| ReleaseId::at(Seq(n))),
        from_version: None,
        to: Some(ReleaseId::at(Seq(1))),
        to_version: Some("v1.0.0".into()),
        inventory: Digest::of(b"inventory"),
        config: Digest::of(b"configuration"),
        steps: vec![
            step("stop", Phase::Quiesce, Action::Stop, &[]),
            step("restore", Phase::Restore, Action::Restore { to: to.clone(), from: None }, &["stop"]),
            step("start", Phase::Start, Action::Start, &["restore"]),
            step("check", Phase::VerifyOpen, Action::Check { check: "home".parse().unwrap() }, &["start"]),
        ],
        ends_at: BTreeMap::from([(Place::local(web), to)]),
        left_alone: vec![],
        puts_back: BTreeMap::new(),
        loss_at_most: Loss::none(),
    }
}

pub fn blob(plan: &Plan) -> Vec<u8> {
    serde_json::to_vec(plan).unwrap()
}

pub fn proposed(plan: &Plan, automatic: bool) -> Body {
    Body::Proposed {
        plan: plan.digest(),
        purpose: plan.purpose.clone(),
        by: Actor::Policy,
        severity: None,
        authority: Authority {
            automatic: true,
            roles: BTreeSet::new(),
            quorum: 1,
            answer_within: Duration::from_secs(300),
        },
        automatic,
        answer_by: None,
    }
}

pub fn intent(step: &str) -> Body {
    let before = Before { at: at(0), mark: None, key: Key("key".into()), captures: BTreeMap::new() };
    Body::Intent { step: StepId(step.into()), attempt: 1, before }
}

/// Through JSON, so that it holds whatever shape the outcome has in memory.
pub fn acted(step: &str, outcome: &str) -> Body {
    let outcome = match outcome {
        "done" => serde_json::json!({"done": {"found": "it is there"}}),
        "failed" => serde_json::json!({"failed": {"what": "exit code 1", "retry": "later"}}),
        _ => serde_json::json!({"unknown": {"why": "cut off"}}),
    };
    serde_json::from_value(serde_json::json!({"acted": {"step": step, "attempt": 1, "outcome": outcome}})).unwrap()
}

pub fn incident(n: u64) -> Incident {
    Incident {
        id: IncidentId::at(Seq(n)),
        opened: at(0),
        severity: Severity(2),
        what: "errors".into(),
        issue: None,
        triggers: ["errors".parse().unwrap()].into(),
        release: None,
        by: Actor::Policy,
        closed: None,
    }
}

pub fn captured(n: u64) -> Body {
    serde_json::from_value(serde_json::json!({"captured": {
        "capture": format!("cap-{n}"), "of": "db", "purpose": "protective", "release": null,
        "made": {"revision": {"exact": "sha256:1"}, "held": {"system": {"name": "x"}}, "bytes": 5,
            "proof": "written", "content": Digest::ZERO},
    }}))
    .unwrap()
}

pub fn message(id: &str, second: i64) -> Message {
    Message {
        id: id.into(),
        about: About::Started,
        severity: None,
        incident: None,
        run: None,
        title: "a rollback began".into(),
        body: "shop/production goes back to v1.0.0".into(),
        at: at(second),
        plan: None,
        channels: vec!["pager".parse().unwrap()],
    }
}

/// A store, the same data as another process sees it, and the clock of both.
pub struct World {
    pub store: Arc<dyn Store>,
    pub other: Arc<dyn Store>,
    pub now: Arc<Mutex<f64>>,
    pub directory: Option<tempfile::TempDir>,
}

impl World {
    pub fn in_memory(redactor: Redactor) -> Self {
        let (now, clock) = clock();
        let store = MemoryStore::new().with_clock(clock).with_redactor(redactor);
        Self { other: Arc::new(store.restart()), store: Arc::new(store), now, directory: None }
    }

    pub fn on_disk(redactor: Redactor) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (now, clock) = clock();
        let open = || {
            let store = SqliteStore::open(directory.path()).unwrap();
            Arc::new(store.with_clock(Arc::clone(&clock)).with_redactor(redactor.clone()))
        };
        Self { store: open(), other: open(), now, directory: Some(directory) }
    }

    pub fn step_clock(&self, by: f64) {
        *self.now.lock().unwrap() += by;
    }

    pub async fn lease(&self, incarnation: &str) -> Lease {
        self.store.acquire(&LeaseOn::App(app()), &holder(incarnation), TTL).await.unwrap()
    }

    pub async fn head(&self) -> Seq {
        self.store.head(&app()).await.unwrap().0
    }

    /// Appends at the head.
    pub async fn append(&self, lease: &Lease, batch: &Batch) -> Result<Vec<Event>, AppendError> {
        let LeaseOn::App(app) = &lease.on else { panic!("not an application's lease") };
        let (head, _) = self.store.head(app).await.unwrap();
        self.store.append(lease, head, batch).await
    }
}

fn clock() -> (Arc<Mutex<f64>>, Clock) {
    let now = Arc::new(Mutex::new(1_795_000_000.0));
    let read = Arc::clone(&now);
    (now, Arc::new(move || *read.lock().unwrap()))
}
