//! The simulator: random applications, random trouble, kills at every write and every effect, processes that were stopped and wake up
//! too late, undoing, and old copies of the record put back; the truth is compared at every stop.
//!
//! `RIPCORD_SIM_SEEDS=100000 cargo test -p ripcord-engine sim` runs more of it, `RIPCORD_SIM_SEED=42` one seed alone. A seed that ever
//! failed is kept in `seeds.txt` and replayed first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::*;
use ripcord_engine::{Board, Clock, Desk, Driver, Stop, Wanted, World, load, propose};
use ripcord_store::{Fault, MemoryStore};

use crate::universe::{self, Dice, Fake, Real, Trouble, Universe, at, name};

/// A random application: things that are read, processes that read them and need each other, perhaps data, perhaps a switch.
pub struct Made {
    pub application: Application,
    pub components: BTreeMap<ComponentId, Capabilities>,
    pub scope: BTreeSet<ComponentId>,
    /// What is made ready beside the live before it is restored, and what restarts without a gap.
    pub stages: BTreeSet<ComponentId>,
    pub rolls: BTreeSet<ComponentId>,
}

impl Made {
    pub fn of(
        application: Application,
        components: BTreeMap<ComponentId, Capabilities>,
        scope: impl IntoIterator<Item = ComponentId>,
    ) -> Self {
        Self {
            application,
            components,
            scope: scope.into_iter().collect(),
            stages: BTreeSet::new(),
            rolls: BTreeSet::new(),
        }
    }
}

pub fn application(dice: &mut Dice) -> Made {
    let mut components: BTreeMap<ComponentId, (Capabilities, BTreeSet<ComponentId>)> = BTreeMap::new();
    let mut scope = BTreeSet::new();
    let mut read = vec![];
    for n in 0..1 + dice.below(4) {
        let id = name(&format!("code-{n}"));
        let readers = dice.pick(&[Readers::Stop, Readers::Restart, Readers::Hot]);
        let redo = dice.pick(&[Redo::Safe, Redo::SameKey, Redo::Never]);
        let restore =
            dice.pick(&[Destroys::Nothing, Destroys::SetAside { keep: Duration::from_secs(60) }, Destroys::GivesUp]);
        let needs = read.iter().filter(|_| dice.chance(20)).cloned().collect();
        components.insert(id.clone(), (universe::versioned(readers, redo, restore), needs));
        scope.insert(id.clone());
        read.push(id);
    }
    if dice.chance(40) {
        let id = name("data");
        components.insert(id.clone(), (universe::data(), BTreeSet::new()));
        scope.insert(id.clone());
        read.push(id);
    }
    let mut processes: Vec<ComponentId> = vec![];
    for n in 0..dice.below(5) {
        let id = name(&format!("web-{n}"));
        let needs = read.iter().chain(&processes).filter(|_| dice.chance(50)).cloned().collect();
        components.insert(id.clone(), (universe::process(), needs));
        processes.push(id);
    }
    if dice.chance(50) {
        components.insert(name("door"), (universe::switch(), BTreeSet::new()));
    }
    let spec = |needs: &BTreeSet<ComponentId>| ComponentSpec {
        kind: "fake".into(),
        layer: Layer::Code,
        needs: needs.clone(),
        hosts: vec![],
        health: vec![],
        step_limit: Some(Duration::from_secs(5)),
    };
    let specs = components.iter().map(|(id, (_, needs))| (id.clone(), spec(needs))).collect();
    let components: BTreeMap<ComponentId, Capabilities> = components.into_iter().map(|(id, (c, _))| (id, c)).collect();
    // Dice of their own, so that a seed goes on meaning the same application and the same trouble.
    let mut dice = Dice(!dice.0);
    let mut some = |lifecycle: Lifecycle| {
        let of = components.iter().filter(|(_, c)| c.lifecycle == lifecycle && dice.chance(40));
        of.map(|(id, _)| id.clone()).collect()
    };
    let (stages, rolls) = (some(Lifecycle::None), some(Lifecycle::Process));
    Made { stages, rolls, ..Made::of(plain(specs), components, scope) }
}

/// An application with nothing but components.
pub fn plain(components: BTreeMap<ComponentId, ComponentSpec>) -> Application {
    let otherwise = Ruling {
        call: Call::Evaluate,
        severity: Severity(2),
        within: Within::BestEffort,
        strategy: None,
        automatic: false,
    };
    Application {
        id: AppId { application: "shop".parse().unwrap(), environment: "test".parse().unwrap() },
        config: Digest::of(b"configuration"),
        production: false,
        components,
        signals: BTreeMap::new(),
        triggers: BTreeMap::new(),
        figures: BTreeMap::new(),
        matrix: Matrix { rows: vec![], otherwise },
        severities: BTreeMap::new(),
        strategies: BTreeMap::new(),
        default_strategy: "standard".parse().unwrap(),
        checks: BTreeMap::new(),
        policy: Policy { watch: Duration::from_secs(2), per_host: 3, ..Policy::default() },
        notify: vec![],
    }
}

pub fn world(made: &Made, universe: &Universe, store: MemoryStore) -> World {
    let mut parts = Parts::default();
    for (id, capabilities) in &made.components {
        let fake = Fake { universe: universe.clone(), capabilities: capabilities.clone(), major: 1 };
        parts.components.insert(id.clone(), Arc::new(fake));
    }
    let actor = Actor::Person { user: "op".into(), host: "here".into() };
    World {
        application: Arc::new(made.application.clone()),
        parts,
        store: Arc::new(store),
        clock: Clock::simulated(at(0)),
        redactor: Redactor::default(),
        holder: Holder { incarnation: uuid::Uuid::now_v7().to_string(), actor, pid: 1, doing: "simulation".into() },
    }
}

/// Puts a good release and the bad one that is live on the record, and the world at the bad one.
pub async fn history(desk: &Desk, made: &Made, universe: &Universe) -> Result<(), Stop> {
    let recorded = |revision: &str, flowing: bool| Recorded {
        revision: Revision::exact(revision),
        label: None,
        capture: flowing.then(|| CaptureId::typed("cap-good")),
        flowing,
    };
    let map = |version: &str| -> BTreeMap<Place, Recorded> {
        let held = made.components.iter().filter(|(_, c)| c.held == Held::Vault);
        held.map(|(id, c)| (Place::local(id.clone()), recorded(version, c.nature == Nature::Flowing))).collect()
    };
    let release = |seq: Seq, version: &str, verdict, standing| Release {
        id: ReleaseId::at(seq),
        version: version.into(),
        origin: Origin::Observed,
        map: map(version),
        config: Digest::ZERO,
        verdict,
        standing,
        at: at(0),
    };
    desk.write(|seq, entry| {
        let good = Verdict::Good { by: "test".into(), at: at(0) };
        let (old, new) = (
            release(seq, "good", good, Standing::Superseded),
            release(seq.next(), "bad", Verdict::Undecided, Standing::Live),
        );
        entry.event(None, None, Body::Recorded { release: Box::new(old) });
        entry.event(None, None, Body::Recorded { release: Box::new(new) });
    })
    .await?;
    universe.with(|truth| {
        (truth.stages, truth.rolls) = (made.stages.clone(), made.rolls.clone());
        for (id, capabilities) in &made.components {
            let on = capabilities.lifecycle != Lifecycle::None;
            truth.real.insert(Place::local(id.clone()), Real { revision: "bad".into(), torn: false, on, instance: 1 });
        }
    });
    Ok(())
}

pub fn restore(scope: &BTreeSet<ComponentId>) -> Wanted {
    let rung = Rung {
        level: 2,
        name: "code".parse().unwrap(),
        means: Means::Restore { scope: scope.clone() },
        climb: Climb::Ask,
        budget: Duration::from_secs(900),
    };
    Wanted::Rollback { to: None, rung, partial: false }
}

/// Proposes, and puts the proposal on the record as approved by the rules.
pub async fn approved(desk: &Desk, wanted: &Wanted) -> Result<RunId, Stop> {
    let proposal = propose(&desk.world, wanted).await.unwrap();
    let plan = proposal.priced.plan;
    let digest = plan.digest();
    let mut id = None;
    desk.write(|seq, entry| {
        entry.blob(&plan);
        let run = RunId::at(seq);
        let authority =
            Authority { automatic: true, roles: BTreeSet::new(), quorum: 1, answer_within: Duration::from_secs(60) };
        let body = Body::Proposed {
            plan: digest,
            purpose: plan.purpose.clone(),
            by: Actor::Policy,
            severity: None,
            authority,
            automatic: true,
            answer_by: None,
        };
        entry.event(Some(run.clone()), None, body);
        id = Some(run);
    })
    .await?;
    Ok(id.unwrap())
}

/// What stands still although it ran before, and is on nobody's list.
fn forgotten(universe: &Universe, made: &Made, run: &Run) -> Vec<String> {
    let owed: BTreeSet<Place> =
        run.obligations.values().filter(|o| o.state == Owed::Open).map(|o| o.place.clone()).collect();
    let running = |id: &ComponentId| made.components[id].lifecycle != Lifecycle::None;
    universe.with(|truth| {
        let off =
            truth.real.iter().filter(|(place, real)| running(&place.component) && !real.on && !owed.contains(*place));
        off.map(|(place, _)| place.to_string()).collect()
    })
}

/// One life of one seed, to its end.
async fn live(seed: u64) -> Result<(), String> {
    let mut dice = Dice(seed);
    let made = application(&mut dice);
    let universe = Universe::new(Dice(dice.roll()));
    let base = tokio::time::Instant::now();
    let fate = dice.roll();
    let calm_after = 12 + dice.below(30);
    let store = MemoryStore::new()
        .with_clock(Arc::new(move || 1_800_000_000.0 + base.elapsed().as_secs_f64()))
        .with_faults(move |n| {
            // The first writes set the scene.
            if n < 4 || n > calm_after {
                return Fault::None;
            }
            match Dice(fate ^ n.wrapping_mul(0x9E37_79B9)).below(30) {
                0 => Fault::FailBefore,
                1 => Fault::CommitThenLoseReply,
                2 | 3 => Fault::CrashBefore,
                4 | 5 => Fault::CrashAfter,
                _ => Fault::None,
            }
        });
    let ttl = Duration::from_secs(15);
    let desk = Desk::take(world(&made, &universe, store.restart()), ttl).await.map_err(|e| e.to_string())?;
    history(&desk, &made, &universe).await.map_err(|e| e.to_string())?;
    let id = match propose(&desk.world, &restore(&made.scope)).await {
        Ok(_) => approved(&desk, &restore(&made.scope)).await.map_err(|e| e.to_string())?,
        Err(error) => return Err(format!("no plan: {error}")),
    };
    let plan = load(&desk, &id).await.map_err(|e| e.to_string())?.plan;
    universe.with(|truth| {
        truth.trouble = TROUBLE;
        for step in plan.steps.iter().filter(|step| matches!(step.action, Action::Restore { .. })) {
            let place = step.place.clone().unwrap();
            let stops = step.needs.iter().filter_map(|need| plan.step(need)).filter(|s| s.action == Action::Stop);
            truth.readers.insert(place, stops.filter_map(|s| s.place.clone()).collect());
        }
    });
    drop(desk);
    let outcome = whole_life(&made, &universe, &store, &id, &mut dice).await;
    let violations = universe.with(|truth| std::mem::take(&mut truth.violations));
    match (outcome, violations.is_empty()) {
        (Ok(()), true) => Ok(()),
        (Ok(()), false) => Err(violations.join("; ")),
        (Err(why), true) => Err(why),
        (Err(why), false) => Err(format!("{why}; {}", violations.join("; "))),
    }
}

const TROUBLE: Trouble = Trouble { fails: 5, fails_for_good: 2, unknown: 6, hangs: 3, tears: 3, kills: 6, blind: 4 };

/// The run, and for some seeds what may come after it: it is undone, or an old copy of the record is put back and carried on.
async fn whole_life(
    made: &Made,
    universe: &Universe,
    store: &MemoryStore,
    id: &RunId,
    dice: &mut Dice,
) -> Result<(), String> {
    carry_on(made, universe, store, id, dice).await?;
    match dice.below(4) {
        0 => undone(made, universe, store, id, dice).await,
        1 => {
            let old = old_copy(made, universe, store, dice).await?;
            // What was done under a key is done again under it: the record that said so is lost. It is looked at first all the same.
            universe.with(|truth| {
                truth.effects.clear();
                truth.trouble = TROUBLE;
            });
            carry_on(made, universe, &old, id, dice).await.map_err(|why| format!("on an old copy of the record: {why}"))
        }
        _ => Ok(()),
    }
}

async fn free_desk(world: &World) -> Arc<Desk> {
    take_desk(world, Duration::from_secs(15)).await
}

async fn take_desk(world: &World, ttl: Duration) -> Arc<Desk> {
    loop {
        match Desk::take(world.clone(), ttl).await {
            Ok(desk) => return desk,
            Err(_) => tokio::time::sleep(ttl / 15).await, // The dead one's lease runs out.
        }
    }
}

async fn undone(
    made: &Made,
    universe: &Universe,
    store: &MemoryStore,
    of: &RunId,
    dice: &mut Dice,
) -> Result<(), String> {
    let store = store.clone().with_faults(|_| Fault::None).restart();
    universe.with(|truth| truth.trouble = Trouble::default());
    let desk = free_desk(&world(made, universe, store.clone())).await;
    let wanted = Wanted::Undo { of: of.clone() };
    let id = match propose(&desk.world, &wanted).await {
        Ok(_) => approved(&desk, &wanted).await.map_err(|e| e.to_string())?,
        // Nothing was captured because nothing had to be changed.
        Err(
            ripcord_engine::NoProposal::NoUndo { .. } | ripcord_engine::NoProposal::NoPlan(NoPlan::NothingToDo { .. }),
        ) => {
            return Ok(());
        }
        Err(error) => return Err(format!("it cannot be undone: {error}")),
    };
    universe.with(|truth| truth.trouble = TROUBLE);
    drop(desk);
    carry_on(made, universe, &store, &id, dice).await.map_err(|why| format!("while it was undone: {why}"))
}

/// The record as it was at some moment after the run was proposed: the world is ahead of it.
async fn old_copy(
    made: &Made,
    universe: &Universe,
    store: &MemoryStore,
    dice: &mut Dice,
) -> Result<MemoryStore, String> {
    let world = world(made, universe, store.restart());
    let events = world.store.read(world.app(), Seq(0), 100_000).await.map_err(|e| e.to_string())?;
    let proposed = events.iter().position(|event| matches!(event.body, Body::Proposed { .. })).unwrap_or_default();
    let keep = proposed + 1 + dice.below((events.len() - proposed - 1) as u64) as usize;
    let base = tokio::time::Instant::now();
    let old = MemoryStore::new().with_clock(Arc::new(move || 1_900_000_000.0 + base.elapsed().as_secs_f64()));
    let desk = free_desk(&World { store: Arc::new(old.clone()), ..world.clone() }).await;
    for event in &events[..keep] {
        let plan: Option<Plan> = match &event.body {
            Body::Proposed { plan, .. } => ripcord_engine::read_plan(&world, plan).await.map_err(|e| e.to_string())?,
            _ => None,
        };
        desk.write(|_, entry| {
            if let Some(plan) = &plan {
                entry.blob(plan);
            }
            entry.event(event.run.clone(), event.incident.clone(), event.body.clone());
        })
        .await
        .map_err(|e| e.to_string())?;
    }
    desk.leave().await.map_err(|e| e.to_string())?;
    Ok(old)
}

/// Starts a process, lets it be killed, starts the next, until the run has ended.
async fn carry_on(
    made: &Made,
    universe: &Universe,
    store: &MemoryStore,
    id: &RunId,
    dice: &mut Dice,
) -> Result<(), String> {
    // Some leases run out while a call that somebody stopped had begun is still under way.
    let ttl = dice.pick(&[Duration::from_secs(15), Duration::from_millis(150)]);
    for life in 0..200 {
        if life > 25 {
            universe.with(|truth| truth.trouble = Trouble::default());
        }
        let store = store.restart();
        let world = world(made, universe, store.clone());
        let desk = take_desk(&world, ttl).await;
        if life < 25 && dice.chance(10) {
            continue; // Killed before it did anything: the lease it took runs out unused.
        }
        let keeper = tokio::spawn({
            let desk = Arc::clone(&desk);
            async move { desk.keep().await }
        });
        let events = desk.listen();
        let run = load(&desk, id).await.map_err(|e| e.to_string())?;
        let mut driver = Driver::new(&desk, &Arc::new(Board::default()), run, events);
        let lived = tokio::select! {
            lived = driver.drive() => Some(lived),
            () = store.killed() => None,
            () = universe.killed.notified() => None,
            () = tokio::time::sleep(Duration::from_secs(3600)) => return Err(format!("stuck in {:?}", driver.run.state)),
        };
        keeper.abort();
        let run = driver.run.clone();
        if lived.is_none() && dice.chance(30) {
            // Not dead but stopped, and woken up when somebody else has the lease: it may finish its sentence, and is not heard.
            tokio::spawn(async move { driver.drive().await });
        }
        match lived {
            None | Some(Err(_)) => continue, // Killed, or the store failed it: the next one reads the journal.
            Some(Ok(())) => {}
        }
        let forgotten = forgotten(universe, made, &run);
        if !forgotten.is_empty() {
            return Err(format!("off and on no list: {}", forgotten.join(", ")));
        }
        match &run.state {
            RunState::Ended(End::Succeeded) => {
                let _ = desk.leave().await;
                return arrived(universe, &run);
            }
            RunState::Parked(_) => {
                // A person mends what is torn, and has it tried again.
                universe.with(|truth| truth.real.values_mut().for_each(|real| real.torn = false));
                let by = Actor::Person { user: "op".into(), host: "here".into() };
                let body = Body::Person { by, verb: Verb::Retry { step: None } };
                tokio::select! {
                    _ = desk.write(|_, entry| entry.event(Some(id.clone()), None, body)) => {}
                    () = store.killed() => {}
                }
            }
            other => return Err(format!("the run came to rest in {other:?}")),
        }
    }
    Err("it did not end in 200 lives".into())
}

fn arrived(universe: &Universe, run: &Run) -> Result<(), String> {
    let wrong: Vec<String> = universe.with(|truth| {
        let elsewhere = |(place, revision): (&Place, &Revision)| {
            let real = truth.real.get(place)?;
            (Revision::exact(real.revision.clone()) != *revision).then(|| format!("`{place}` is at {}", real.revision))
        };
        run.plan.ends_at.iter().filter_map(elsewhere).collect()
    });
    if !wrong.is_empty() {
        return Err(format!("succeeded, but {}", wrong.join(", ")));
    }
    match run.open_obligations().next() {
        Some(open) => Err(format!("succeeded, and still owes: {}", open.owed)),
        None => Ok(()),
    }
}

fn simulate(seed: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(live(seed)).map_err(|why| format!("seed {seed}: {why}"))
}

#[test]
fn sim_converges_or_parks_with_everything_on_the_list() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kept: Vec<u64> =
        include_str!("seeds.txt").lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    let seeds: Vec<u64> = match number("RIPCORD_SIM_SEED") {
        Some(seed) => vec![seed],
        None => kept.into_iter().chain(0..number("RIPCORD_SIM_SEEDS").unwrap_or(1_000)).collect(),
    };
    // Seeds share nothing, so every processor takes its part.
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let part = |n: usize| -> Vec<String> {
        seeds.iter().skip(n).step_by(workers).filter_map(|seed| simulate(*seed).err()).take(5).collect()
    };
    let part = &part;
    let failed: Vec<String> = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..workers).map(|n| scope.spawn(move || part(n))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("a seed panicked")).collect()
    });
    assert!(failed.is_empty(), "keep these in seeds.txt:\n{}", failed.join("\n"));
}
