//! An application of services in memory whose every effect takes a known time, with its record on a real disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::*;
use ripcord_engine::{Board, Clock, Desk, Driver, World, load};
use ripcord_store::SqliteStore;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A directory on the disk the workspace is built on: figures of `/tmp` would often be those of memory.
pub fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// As the binary's.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// How long each effect of a service takes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Takes {
    pub stop: Duration,
    pub restore: Duration,
    pub start: Duration,
}

impl Takes {
    pub fn of(&self, action: &Action) -> Duration {
        match action {
            Action::Stop => self.stop,
            Action::Restore { .. } => self.restore,
            Action::Start => self.start,
            _ => Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Real {
    revision: String,
    on: bool,
    instance: u64,
}

/// Something that runs and has a revision: stopped, restored and started again.
pub struct Service {
    takes: Takes,
    real: Mutex<Real>,
}

impl Service {
    pub fn new(takes: Takes) -> Self {
        Self { takes, real: Mutex::new(Real { on: true, ..Real::default() }) }
    }

    /// What the deployment of a version leaves behind.
    pub fn deploy(&self, version: &str) {
        let mut real = self.real.lock().unwrap();
        *real = Real { revision: version.to_owned(), on: true, instance: real.instance + 1 };
    }

    fn now(&self) -> Real {
        self.real.lock().unwrap().clone()
    }
}

impl Component for Service {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: "service".into(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { held: Held::BySystem, lifecycle: Lifecycle::Process, ..Capabilities::NONE }
    }

    fn survey<'a>(&'a self, _: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            let real = self.now();
            let seen = Seen::At(Revision::exact(real.revision));
            let mut survey = Survey::new(place.clone(), seen, TargetId(format!("service:{place}")));
            survey.running = Some(real.on);
            survey.instance = Some(real.instance.to_string());
            survey.available =
                wanted.iter().map(|w| (w.clone(), Available::Here { how: "in memory".into() })).collect();
            survey
        })
    }

    fn propose(&self, wish: &Wish, _: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let Want::Revision { revision, capture } = &wish.want else {
            return Err(CannotPlan { place: wish.place.clone(), why: "it has no values to set".into() });
        };
        Ok(vec![Draft {
            phase: Phase::Restore,
            action: Action::Restore { to: revision.clone(), from: capture.clone().map(CaptureRef::Known) },
            destroys: Destroys::Nothing,
            redo: Redo::Safe,
            limits: Limits::default(),
            shown: Shown { words: format!("switch {} to {}", wish.place, revision.short()), commands: vec![] },
        }])
    }

    fn holds<'a>(&'a self, _: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let real = self.now();
            let mark = Some(real.instance.to_string());
            let target = match &step.action {
                Action::Restore { to, .. } => Revision::exact(real.revision) == *to,
                Action::Stop => !real.on,
                // An instance newer than the intent; before the intent nothing is new enough.
                Action::Start => before.is_some_and(|before| real.on && before.mark != mark),
                _ => false,
            };
            Observation { holds: if target { Holds::Target } else { Holds::Origin }, mark }
        })
    }

    fn apply<'a>(&'a self, _: &'a Cx, step: &'a Step, _: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move {
            let takes = self.takes.of(&step.action);
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            let mut real = self.real.lock().unwrap();
            let mut proof = Proof::of("done");
            match &step.action {
                Action::Restore { to: Revision::Exact(to), .. } => real.revision = to.0.clone(),
                Action::Restore { to: Revision::Absent, .. } => real.revision = String::new(),
                Action::Stop => real.on = false,
                Action::Start => {
                    real.on = true;
                    real.instance += 1;
                }
                Action::Capture { .. } => {
                    proof.capture = Some(Made {
                        revision: Revision::exact(real.revision.clone()),
                        label: Some(real.revision.clone()),
                        held: HeldIn::System { name: real.revision.clone() },
                        bytes: 0,
                        proof: ProofLevel::ReadBack,
                        content: Digest::of(real.revision.as_bytes()),
                    });
                }
                _ => {}
            }
            Outcome::Done(proof)
        })
    }
}

/// What is measured: services that need each other, nothing else.
pub struct Shop {
    pub services: BTreeMap<ComponentId, (Arc<Service>, Takes, BTreeSet<ComponentId>)>,
}

impl Shop {
    pub fn takes(&self, step: &Step) -> Duration {
        let service = step.place.as_ref().and_then(|place| self.services.get(&place.component));
        service.map_or(Duration::ZERO, |(_, takes, _)| takes.of(&step.action))
    }

    fn specs(&self) -> BTreeMap<ComponentId, ComponentSpec> {
        let spec = |needs: &BTreeSet<ComponentId>| ComponentSpec {
            kind: "service".into(),
            layer: Layer::Code,
            needs: needs.clone(),
            hosts: vec![],
            health: vec![],
            step_limit: None,
        };
        self.services.iter().map(|(id, (_, _, needs))| (id.clone(), spec(needs))).collect()
    }

    /// The lease holder's desk over a record in `state`.
    pub async fn desk(&self, id: AppId, state: &Path) -> Arc<Desk> {
        let mut parts = Parts::default();
        for (id, (service, _, _)) in &self.services {
            parts.components.insert(id.clone(), Arc::clone(service) as Arc<dyn Component>);
        }
        desk(application(id, self.specs()), parts, state).await
    }

    /// Puts `good` and the release `bad` that is live on the record, and every service at `bad`.
    pub async fn deploy(&self, desk: &Desk, good: &str, bad: &str) {
        let release = |seq: Seq, at: Timestamp, version: &str, verdict, standing| Release {
            id: ReleaseId::at(seq),
            version: version.into(),
            origin: Origin::Observed,
            map: self.services.keys().map(|id| (Place::local(id.clone()), recorded(version))).collect(),
            config: Digest::ZERO,
            verdict,
            standing,
            at,
        };
        let live = desk.world.store.ledger(desk.world.app()).await.unwrap().live().map(|live| live.id.clone());
        let write = |_: Seq, entry: &mut ripcord_engine::Entry| {
            if let Some(release) = live {
                entry.event(None, None, Body::Stands { release, standing: Standing::Superseded });
            }
            let at = entry.at();
            let verdict = Verdict::Good { by: "the benchmark".into(), at };
            let old = release(entry.next(), at, good, verdict, Standing::Superseded);
            entry.event(None, None, Body::Recorded { release: Box::new(old) });
            let new = release(entry.next(), at, bad, Verdict::Undecided, Standing::Live);
            entry.event(None, None, Body::Recorded { release: Box::new(new) });
        };
        desk.write(write).await.unwrap();
        self.services.values().for_each(|(service, _, _)| service.deploy(bad));
    }

    /// Everything, back to the last known good release.
    pub fn everything(&self) -> ripcord_engine::Wanted {
        let means = Means::Restore { scope: self.services.keys().cloned().collect() };
        ripcord_engine::Wanted::Rollback { to: None, rung: rung(means), partial: false }
    }
}

fn recorded(version: &str) -> Recorded {
    Recorded { revision: Revision::exact(version), label: Some(version.into()), capture: None, flowing: false }
}

pub fn rung(means: Means) -> Rung {
    let name = "code".parse().unwrap();
    Rung { level: 2, name, means, climb: Climb::Ask, budget: Duration::from_secs(900) }
}

pub fn app(application: &str) -> AppId {
    AppId { application: application.parse().unwrap(), environment: "production".parse().unwrap() }
}

pub fn application(id: AppId, components: BTreeMap<ComponentId, ComponentSpec>) -> Application {
    let otherwise = Ruling {
        call: Call::Evaluate,
        severity: Severity(2),
        within: Within::BestEffort,
        strategy: None,
        automatic: false,
    };
    // As many steps at once as there are components: the critical path is compared with, not the width of a host.
    let policy = Policy { watch: Duration::ZERO, per_host: 64, ..Policy::default() };
    Application {
        id,
        config: Digest::of(b"configuration"),
        production: true,
        components,
        signals: BTreeMap::new(),
        triggers: BTreeMap::new(),
        figures: BTreeMap::new(),
        matrix: Matrix { rows: vec![], otherwise },
        severities: BTreeMap::new(),
        strategies: BTreeMap::new(),
        default_strategy: "standard".parse().unwrap(),
        checks: BTreeMap::new(),
        policy,
        notify: vec![],
    }
}

pub async fn desk(application: Application, parts: Parts, state: &Path) -> Arc<Desk> {
    let actor = Actor::Person { user: "bench".into(), host: "here".into() };
    let world = World {
        application: Arc::new(application),
        parts,
        store: Arc::new(SqliteStore::open(state).unwrap()),
        clock: Clock::System,
        redactor: Redactor::default(),
        holder: Holder {
            incarnation: uuid::Uuid::now_v7().to_string(),
            actor,
            pid: std::process::id(),
            doing: "a benchmark".into(),
        },
    };
    Desk::take(world, Duration::from_secs(3600)).await.unwrap()
}

/// Puts a plan on the record as approved by the rules, and takes it up.
pub async fn approved(desk: &Arc<Desk>, plan: &Plan) -> Driver {
    let mut id = None;
    let write = |seq: Seq, entry: &mut ripcord_engine::Entry| {
        let digest = entry.blob(plan);
        let run = RunId::at(seq);
        let answer_within = Duration::from_secs(60);
        let body = Body::Proposed {
            plan: digest,
            purpose: plan.purpose.clone(),
            by: Actor::Policy,
            severity: None,
            authority: Authority { automatic: true, roles: BTreeSet::new(), quorum: 1, answer_within },
            automatic: true,
            answer_by: None,
        };
        entry.event(Some(run.clone()), None, body);
        id = Some(run);
    };
    desk.write(write).await.unwrap();
    let events = desk.listen();
    let run = load(desk, &id.unwrap()).await.unwrap();
    Driver::new(desk, &Arc::new(Board::default()), run, events)
}
