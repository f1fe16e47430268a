//! A whole holder at work on a small shop: signals that read the universe, a channel that keeps what it is told, an office that decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ripcord_core::*;
use ripcord_engine::{Clock, Holding, Stop, World, load};
use ripcord_store::MemoryStore;

use crate::sim::{Made, history, plain};
use crate::universe::{self, Dice, Universe, at, name};

pub const TTL: Duration = Duration::from_secs(15);

type Script = Box<dyn Fn(&Universe, &Cx) -> Option<Reading> + Send + Sync>;

/// Reads what a test says it reads; nothing where it hangs.
pub struct Gauge {
    universe: Universe,
    script: Mutex<Script>,
}

impl Gauge {
    pub fn says(&self, script: impl Fn(&Universe, &Cx) -> Option<Reading> + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub fn value(&self, value: f64) {
        self.says(move |_, cx| Some(Reading::of(Sample::new(cx.now, value))));
    }
}

impl Signal for Gauge {
    fn unit(&self) -> Unit {
        Unit::Ratio
    }
    fn fields(&self) -> &'static [&'static str] {
        &[]
    }
    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move {
            let reading = (self.script.lock().unwrap())(&self.universe, cx);
            match reading {
                Some(reading) => reading,
                None => std::future::pending().await,
            }
        })
    }
    fn query(&self) -> String {
        "errors / requests".into()
    }
}

/// Keeps what it is told, or refuses, or hangs.
pub struct Pager {
    pub got: Mutex<Vec<Message>>,
    pub mood: Mutex<Mood>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    Takes,
    Refuses,
    Hangs,
}

impl Channel for Pager {
    fn send<'a>(&'a self, _: &'a Cx, message: &'a Message) -> Fut<'a, Result<(), NotDelivered>> {
        Box::pin(async move {
            let mood = *self.mood.lock().unwrap();
            match mood {
                Mood::Takes => {
                    self.got.lock().unwrap().push(message.clone());
                    Ok(())
                }
                Mood::Refuses => Err(NotDelivered { why: "busy".into(), retry: Retry::Later }),
                Mood::Hangs => std::future::pending().await,
            }
        })
    }
}

impl Pager {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { got: Mutex::default(), mood: Mutex::new(Mood::Takes) })
    }

    pub fn about(&self, about: About) -> Vec<Message> {
        self.got.lock().unwrap().iter().filter(|message| message.about == about).cloned().collect()
    }
}

pub struct Stage {
    pub made: Made,
    pub universe: Universe,
    pub store: MemoryStore,
    pub world: World,
    pub errors: Arc<Gauge>,
    pub pager: Arc<Pager>,
    pub holding: Option<Holding>,
}

/// Bad while the code is, unless the flag was enough to cure it.
pub fn bad_code(universe: &Universe, cx: &Cx) -> Option<Reading> {
    let bad = universe.with(|truth| truth.real[&Place::local(name("code"))].revision == "bad");
    Some(Reading::of(Sample::new(cx.now, if bad { 0.5 } else { 0.01 })))
}

/// Bad until the flag is off.
pub fn bad_flag(universe: &Universe, cx: &Cx) -> Option<Reading> {
    let bad = universe.with(|truth| truth.real[&Place::local(name("flags"))].revision == "bad");
    Some(Reading::of(Sample::new(cx.now, if bad { 0.5 } else { 0.01 })))
}

pub fn rung(level: u8, climb: Climb) -> Rung {
    let off = BTreeMap::from([("recommendations".to_owned(), serde_json::json!(false))]);
    let means = match level {
        1 => Means::Set { values: BTreeMap::from([(name("flags"), off)]) },
        2 => Means::Restore { scope: BTreeSet::from([name("code"), name("flags")]) },
        _ => Means::Restore { scope: BTreeSet::from([name("code"), name("flags"), name("data")]) },
    };
    let label = if level == 1 { "toggle" } else { "code" };
    Rung { level, name: label.parse().unwrap(), means, climb, budget: Duration::from_secs(900) }
}

pub fn trigger(id: &str) -> Rule {
    Rule {
        id: id.parse().unwrap(),
        signal: "errors".parse().unwrap(),
        condition: Condition::Above(0.05),
        hold: Hold::For { at_least: Duration::from_secs(5) },
        clear: None,
        at_least: None,
        missing: Missing::Page,
        errors: Missing::Page,
        absent_for: None,
        interval: Duration::from_secs(1),
        when: None,
        severity: Severity(1),
        issue: "errors".parse().unwrap(),
        follows: Follows::Decide,
        points_at: BTreeSet::new(),
        source: None,
    }
}

pub fn authority(automatic: bool) -> Authority {
    Authority { automatic, roles: BTreeSet::new(), quorum: 1, answer_within: Duration::from_secs(60) }
}

/// Code, flags, a process that reads both, a door; one signal, one trigger; a ladder of a toggle and a restore, both automatic.
pub fn shop() -> Made {
    let spec = |needs: &[&str]| ComponentSpec {
        kind: "fake".into(),
        layer: Layer::Code,
        needs: needs.iter().map(|n| name(n)).collect(),
        hosts: vec![],
        health: vec![],
        step_limit: Some(Duration::from_secs(5)),
    };
    let specs = BTreeMap::from([
        (name("code"), spec(&[])),
        (name("flags"), spec(&[])),
        (name("data"), spec(&[])),
        (name("door"), spec(&[])),
        (name("web"), spec(&["code"])),
    ]);
    let aside = Destroys::SetAside { keep: Duration::from_secs(60) };
    let components = BTreeMap::from([
        (name("code"), universe::versioned(Readers::Stop, Redo::Safe, aside)),
        (name("flags"), universe::versioned(Readers::Hot, Redo::Safe, aside)),
        (name("data"), universe::data()),
        (name("door"), universe::switch()),
        (name("web"), universe::process()),
    ]);
    let mut application = plain(specs);
    let every = Duration::from_secs(1);
    application
        .signals
        .insert("errors".parse().unwrap(), SignalSpec { kind: "fake".into(), every, timeout: Duration::from_secs(2) });
    application.triggers.insert("errors-high".parse().unwrap(), trigger("errors-high"));
    let ruling = Ruling {
        call: Call::Rollback,
        severity: Severity(1),
        within: Within::Immediate,
        strategy: None,
        automatic: true,
    };
    application.matrix.rows.push(Row {
        name: "errors".into(),
        issues: BTreeSet::from(["errors".parse().unwrap()]),
        cells: BTreeMap::new(),
        combine: Combine::All,
        ruling,
    });
    let rule = |n: u8| SeverityRule {
        severity: Severity(n),
        name: format!("p{n}").parse().unwrap(),
        respond_within: Duration::from_secs(60),
        authority: authority(true),
    };
    application.severities = [1, 2].map(|n| (Severity(n), rule(n))).into();
    application.strategies.insert("standard".parse().unwrap(), vec![rung(1, Climb::Automatic), rung(2, Climb::Ask)]);
    application.notify =
        vec![Notify { about: BTreeSet::new(), at_least: None, channels: vec!["pager".parse().unwrap()] }];
    application.policy.watch = Duration::from_secs(30);
    application.policy.helps_within = Duration::from_secs(20);
    application.policy.bake = Duration::from_secs(30);
    application.policy.baseline = Duration::ZERO;
    Made::of(application, components, [name("code"), name("flags")])
}

impl Stage {
    /// A shop whose live release is bad, and nobody at the desk yet.
    pub async fn empty(configure: impl FnOnce(&mut Application)) -> Self {
        let mut made = shop();
        configure(&mut made.application);
        let universe = Universe::new(Dice(7));
        let base = tokio::time::Instant::now();
        let store = MemoryStore::new().with_clock(Arc::new(move || 1_800_000_000.0 + base.elapsed().as_secs_f64()));
        let errors =
            Arc::new(Gauge { universe: universe.clone(), script: Mutex::new(Box::new(|_, _| Some(Reading::Empty))) });
        errors.value(0.01);
        let pager = Pager::new();
        let mut world = crate::sim::world(&made, &universe, store.clone());
        world.parts.signals.insert("errors".parse().unwrap(), errors.clone());
        world.parts.channels.insert("pager".parse().unwrap(), pager.clone());
        world.clock = Clock::simulated(at(0));
        Self { made, universe, store, world, errors, pager, holding: None }
    }

    pub async fn new(configure: impl FnOnce(&mut Application)) -> Self {
        let mut stage = Self::empty(configure).await;
        stage.open().await;
        let desk = stage.desk();
        history(&desk, &stage.made, &stage.universe).await.unwrap();
        stage
    }

    /// One more signal, which reads 0.01 until it is told otherwise.
    pub fn gauge(&mut self, id: &str) -> Arc<Gauge> {
        let gauge = Arc::new(Gauge {
            universe: self.universe.clone(),
            script: Mutex::new(Box::new(|_, _| Some(Reading::Empty))),
        });
        gauge.value(0.01);
        self.world.parts.signals.insert(id.parse().unwrap(), gauge.clone());
        gauge
    }

    pub fn desk(&self) -> Arc<ripcord_engine::Desk> {
        Arc::clone(&self.holding.as_ref().unwrap().desk)
    }

    /// A new process at the desk; it waits for the lease of one that died.
    pub async fn open(&mut self) {
        self.world.holder.incarnation = uuid::Uuid::now_v7().to_string();
        for _ in 0..100 {
            match Holding::begin(self.world.clone(), TTL).await {
                Ok(holding) => return self.holding = Some(holding),
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
        panic!("the lease was never free");
    }

    /// The process is gone in the middle of what it did: it writes nothing more and lets go of nothing.
    pub fn kill(&mut self) {
        let holding = self.holding.take().unwrap();
        holding.desk.stop(Stop::LostLease);
    }

    /// Replaces the record by what it was right after the first event that is `last`, as if the process had died there (or an old
    /// copy of the record had been put back).
    pub async fn rewind(&mut self, last: impl Fn(&Body) -> bool) {
        let events = self.events().await;
        let keep = events.iter().position(|event| last(&event.body)).expect("there is no such event") + 1;
        let memories = self.store.memories(self.world.app()).await.unwrap();
        if self.holding.is_some() {
            self.kill();
            seconds(20).await;
        }
        let old = self.store.clone();
        let base = tokio::time::Instant::now();
        self.store = MemoryStore::new().with_clock(Arc::new(move || 1_900_000_000.0 + base.elapsed().as_secs_f64()));
        self.world.store = Arc::new(self.store.clone());
        let desk = ripcord_engine::Desk::take(self.world.clone(), TTL).await.unwrap();
        for event in &events[..keep] {
            let plan: Option<Plan> = match &event.body {
                Body::Proposed { plan, .. } => {
                    let blob = old.blob(plan).await.unwrap().unwrap();
                    Some(serde_json::from_slice(&blob).unwrap())
                }
                _ => None,
            };
            desk.write(|_, entry| {
                if let Some(plan) = plan {
                    entry.blob(&plan);
                }
                entry.event(event.run.clone(), event.incident.clone(), event.body.clone());
            })
            .await
            .unwrap();
        }
        desk.write(|_, entry| entry.batch().memories = memories).await.unwrap();
        desk.leave().await.unwrap();
    }

    pub async fn restart(&mut self) {
        self.kill();
        self.open().await;
    }

    pub async fn runs(&self) -> Vec<RunRow> {
        let mut runs = self.store.runs(self.world.app(), 1000).await.unwrap();
        runs.reverse();
        runs
    }

    pub async fn last(&self) -> Run {
        let rows = self.runs().await;
        let id = &rows.last().expect("there is no run").id;
        ripcord_engine::fold(&self.world, id).await.unwrap()
    }

    pub async fn loaded(&self, id: &RunId) -> Run {
        load(&self.desk(), id).await.unwrap()
    }

    pub async fn ledger(&self) -> Ledger {
        self.store.ledger(self.world.app()).await.unwrap()
    }

    pub async fn incidents(&self) -> Vec<Incident> {
        self.store.incidents(self.world.app(), 100).await.unwrap()
    }

    pub async fn events(&self) -> Vec<Event> {
        self.store.read(self.world.app(), Seq(0), 100_000).await.unwrap()
    }

    /// Waits until the newest run is as described.
    pub async fn until(&self, wanted: impl Fn(&RunState) -> bool) -> Run {
        for _ in 0..6000 {
            if let Some(row) = self.runs().await.last()
                && wanted(&row.state)
            {
                return self.last().await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let events: Vec<String> = self.events().await.iter().map(|event| format!("{:?}", event.body)).collect();
        panic!("it never came to that: {:?}; last was {:#?}", self.runs().await, events.last_chunk::<3>());
    }

    pub async fn ask(&self, ask: Ask) -> Reply {
        let id = self.leave("op", &ask).await;
        self.reply(id).await
    }

    /// Leaves a request, whether or not there is anybody to answer it.
    pub async fn leave(&self, user: &str, ask: &Ask) -> u64 {
        let by = Actor::Person { user: user.into(), host: "here".into() };
        self.store.request(self.world.app(), &by, ask).await.unwrap()
    }

    pub async fn reply(&self, id: u64) -> Reply {
        for _ in 0..3000 {
            if let Some(reply) = self.store.reply(self.world.app(), id).await.unwrap() {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("nobody answered request {id}");
    }

    pub async fn taken(&self, ask: Ask) -> Option<RunId> {
        match self.ask(ask).await {
            Reply::Taken { run, .. } => run,
            Reply::Refused { why, .. } => panic!("refused: {why}"),
        }
    }

    pub async fn refused(&self, ask: Ask) -> String {
        match self.ask(ask).await {
            Reply::Refused { why, .. } => why,
            Reply::Taken { said, .. } => panic!("taken: {said}"),
        }
    }

    pub fn revision(&self, component: &str) -> String {
        self.universe.with(|truth| truth.real[&Place::local(name(component))].revision.clone())
    }

    pub fn on(&self, component: &str) -> bool {
        self.universe.with(|truth| truth.real[&Place::local(name(component))].on)
    }

    /// A rollback as the command line asks for one: planned, shown, agreed to.
    pub async fn rollback(&self, level: u8) -> Ask {
        let chosen = ripcord_engine::rung(&self.world.application, None, Some(level), &[]).unwrap();
        let wanted = ripcord_engine::Wanted::Rollback { to: None, rung: chosen, partial: false };
        let plan = ripcord_engine::propose(&self.world, &wanted).await.unwrap().priced.plan;
        Ask::Rollback {
            to: None,
            strategy: None,
            level: Some(level),
            scope: vec![],
            reason: None,
            approve: Some(Approval { plan: Box::new(plan), consent: None }),
        }
    }
}

pub async fn seconds(n: u64) {
    tokio::time::sleep(Duration::from_secs(n)).await;
}

pub fn ended(state: &RunState) -> bool {
    matches!(state, RunState::Ended(_))
}

pub fn parked(state: &RunState) -> bool {
    matches!(state, RunState::Parked(_))
}

pub fn watching(state: &RunState) -> bool {
    matches!(state, RunState::Watching { .. })
}
