//! Single behaviours of a run, each in the smallest application that can show it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::*;
use ripcord_engine::{Board, Desk, Driver, load};
use ripcord_store::MemoryStore;

use crate::sim::{Made, approved, history, plain, restore, world};
use crate::universe::{self, Dice, Fate, Trouble, Universe, name};

/// One thing that is read, one process that reads it, one switch.
fn small() -> Made {
    let spec = |needs: &[&str]| ComponentSpec {
        kind: "fake".into(),
        layer: Layer::Code,
        needs: needs.iter().map(|n| name(n)).collect(),
        hosts: vec![],
        health: vec![],
        step_limit: Some(Duration::from_secs(5)),
    };
    let specs = BTreeMap::from([(name("code"), spec(&[])), (name("door"), spec(&[])), (name("web"), spec(&["code"]))]);
    let code = universe::versioned(Readers::Stop, Redo::Safe, Destroys::SetAside { keep: Duration::from_secs(60) });
    let components =
        BTreeMap::from([(name("code"), code), (name("door"), universe::switch()), (name("web"), universe::process())]);
    Made::of(plain(specs), components, [name("code")])
}

async fn begun() -> (Made, Universe, Arc<Desk>, Driver) {
    begun_with(small()).await
}

async fn begun_with(made: Made) -> (Made, Universe, Arc<Desk>, Driver) {
    let universe = Universe::new(Dice(7));
    let desk = Desk::take(world(&made, &universe, MemoryStore::new()), Duration::from_secs(3600)).await.unwrap();
    history(&desk, &made, &universe).await.unwrap();
    let id = approved(&desk, &restore(&made.scope)).await.unwrap();
    let events = desk.listen();
    let run = load(&desk, &id).await.unwrap();
    let driver = Driver::new(&desk, &Arc::new(Board::default()), run, events);
    (made, universe, desk, driver)
}

async fn bodies(desk: &Desk) -> Vec<String> {
    let events = desk.world.store.read(desk.world.app(), Seq(0), 10_000).await.unwrap();
    let step = |event: &Event| match &event.body {
        Body::Intent { step, .. } => Some(format!("intent {step}")),
        Body::Acted { step, outcome: Outcome::Done(_), .. } => Some(format!("done {step}")),
        Body::Verified { step, .. } => Some(format!("verified {step}")),
        _ => None,
    };
    events.iter().filter_map(step).collect()
}

#[tokio::test(start_paused = true)]
async fn a_rollback_goes_through_its_phases_in_order() {
    let (_, universe, desk, mut driver) = begun().await;
    driver.drive().await.unwrap();
    assert_eq!(driver.run.state, RunState::Ended(End::Succeeded));
    let order = bodies(&desk).await;
    let at = |what: &str| order.iter().position(|line| line == what).unwrap_or_else(|| panic!("{what} in {order:?}"));
    assert!(at("verified prove/code") < at("intent pause/door"));
    assert!(at("done pause/door") < at("intent stop/web"));
    assert!(at("done stop/web") < at("intent restore/code"));
    assert!(at("done capture/code") < at("intent restore/code"));
    assert!(at("done restore/code") < at("intent start/web"));
    assert!(at("done start/web") < at("intent resume/door"));
    universe.with(|truth| assert_eq!(truth.real[&Place::local(name("code"))].revision, "good"));
}

#[tokio::test(start_paused = true)]
async fn the_bad_version_is_judged_and_kept_out_and_the_good_one_is_live() {
    let (_, _, desk, mut driver) = begun().await;
    driver.drive().await.unwrap();
    let ledger = desk.world.store.ledger(desk.world.app()).await.unwrap();
    let live = ledger.live().unwrap();
    assert_eq!((live.version.as_str(), &live.origin), ("good", &Origin::Restored { run: driver.run.id.clone() }));
    assert!(matches!(live.verdict, Verdict::Good { .. }), "its state was proven before: {:?}", live.verdict);
    assert!(ledger.quarantined.contains_key("bad"));
}

#[tokio::test(start_paused = true)]
async fn rf26_a_failure_half_way_parks_with_what_is_off_on_the_list() {
    let (_, universe, _, mut driver) = begun().await;
    // Everything up to the restore works; the restore fails for good.
    universe.with(|truth| truth.trouble = Trouble { fails_for_good: 100, ..Trouble::default() });
    driver.drive().await.unwrap();
    let RunState::Parked(ParkedWhy::Failed { .. }) = &driver.run.state else { panic!("{:?}", driver.run.state) };
    for (place, real) in universe.with(|truth| truth.real.clone()) {
        let owed = driver.run.open_obligations().any(|o| o.place == place);
        assert!(real.on || owed || place.component == name("code"), "`{place}` is off and on no list");
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_major_of_an_adapter_began_is_parked() {
    let (made, universe, desk, driver) = begun().await;
    let id = driver.run.id.clone();
    drop(driver);
    let mut newer = world(&made, &universe, MemoryStore::new());
    for (id, capabilities) in &made.components {
        let fake = universe::Fake { universe: universe.clone(), capabilities: capabilities.clone(), major: 2 };
        newer.parts.components.insert(id.clone(), Arc::new(fake));
    }
    newer.store = Arc::clone(&desk.world.store);
    desk.leave().await.unwrap();
    let desk = Desk::take(newer, Duration::from_secs(3600)).await.unwrap();
    let events = desk.listen();
    let run = load(&desk, &id).await.unwrap();
    let mut driver = Driver::new(&desk, &Arc::new(Board::default()), run, events);
    driver.drive().await.unwrap();
    assert!(matches!(driver.run.state, RunState::Parked(ParkedWhy::OtherAdapter { .. })), "{:?}", driver.run.state);
}

#[tokio::test(start_paused = true)]
async fn a_person_pauses_skips_and_abandons() {
    let (_, universe, desk, mut driver) = begun().await;
    universe.with(|truth| truth.trouble = Trouble { fails_for_good: 100, ..Trouble::default() });
    driver.drive().await.unwrap();
    let by = Actor::Person { user: "op".into(), host: "here".into() };
    let say = |verb: Verb| {
        let (desk, id, by) = (Arc::clone(&desk), driver.run.id.clone(), by.clone());
        async move { desk.write(|_, entry| entry.event(Some(id), None, Body::Person { by, verb })).await.unwrap() }
    };
    say(Verb::Abandon { reason: "enough".into() }).await;
    driver.drive().await.unwrap();
    let RunState::Ended(End::Abandoned { open, .. }) = &driver.run.state else { panic!("{:?}", driver.run.state) };
    assert_eq!(open.len(), driver.run.open_obligations().count());
}

#[tokio::test(start_paused = true)]
async fn a_stale_holder_cannot_write() {
    let (made, universe, desk, mut driver) = begun().await;
    desk.leave().await.unwrap();
    let mut other = world(&made, &universe, MemoryStore::new());
    other.store = Arc::clone(&desk.world.store);
    let _other = Desk::take(other, Duration::from_secs(3600)).await.unwrap();
    assert_eq!(driver.drive().await, Err(ripcord_engine::Stop::LostLease));
    let applied = universe.with(|truth| truth.applied);
    assert_eq!(applied, 0, "nothing may be begun without the lease");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_and_the_intent_it_lets_begin_are_one_commit() {
    let (_, universe, desk, mut driver) = begun().await;
    universe.with(|truth| truth.trouble = Trouble::default());
    let mut written = desk.listen();
    driver.drive().await.unwrap();
    let mut events = vec![];
    while let Ok(event) = written.try_recv() {
        events.push(event);
    }
    // Every batch has one moment; the start of the one reader follows from the restore and from nothing else.
    let at = |found: &dyn Fn(&Body) -> bool| events.iter().find(|event| found(&event.body)).unwrap();
    let done = at(&|body| matches!(body, Body::Acted { step, .. } if step.0 == "restore/code"));
    let begun = at(&|body| matches!(body, Body::Intent { step, .. } if step.0 == "start/web"));
    assert_eq!((begun.seq, begun.at), (done.seq.next(), done.at));
}

/// The same world, in which every adapter is of another major version, and its desk.
async fn newer(made: &Made, universe: &Universe, desk: Arc<Desk>) -> Arc<Desk> {
    let mut newer = world(made, universe, MemoryStore::new());
    for (id, capabilities) in &made.components {
        let fake = universe::Fake { universe: universe.clone(), capabilities: capabilities.clone(), major: 2 };
        newer.parts.components.insert(id.clone(), Arc::new(fake));
    }
    newer.store = Arc::clone(&desk.world.store);
    desk.leave().await.unwrap();
    Desk::take(newer, Duration::from_secs(3600)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_step_in_doubt_of_another_major_is_parked_and_nothing_is_begun() {
    let (made, universe, desk, mut driver) = begun().await;
    let id = driver.run.id.clone();
    universe.with(|truth| truth.trouble.kills = 100);
    tokio::select! {
        _ = driver.drive() => panic!("it was to be killed"),
        () = universe.killed.notified() => {}
    }
    drop(driver);
    universe.with(|truth| truth.trouble = Trouble::default());
    let desk = newer(&made, &universe, desk).await;
    let run = load(&desk, &id).await.unwrap();
    assert!(run.steps.values().any(|state| matches!(state, StepState::InDoubt { .. })), "{:?}", run.steps);
    let (applied, events) = (universe.with(|truth| truth.applied), desk.listen());
    let mut driver = Driver::new(&desk, &Arc::new(Board::default()), run, events);
    driver.drive().await.unwrap();
    let RunState::Parked(ParkedWhy::OtherAdapter { have, .. }) = &driver.run.state else {
        panic!("{:?}", driver.run.state)
    };
    assert_eq!(have, "fake 2");
    assert_eq!(universe.with(|truth| truth.applied), applied, "nothing was begun");
}

/// How often a step was begun, and how it then stood, when the outcome of its first try was not known.
async fn unknown(fate: Fate, redo: Redo) -> (Run, usize) {
    let mut made = small();
    made.components.get_mut(&name("code")).unwrap().redo = redo;
    let (_, universe, desk, mut driver) = begun_with(made).await;
    universe.with(|truth| truth.fates.insert("restore/code".into(), fate));
    driver.drive().await.unwrap();
    let begun = bodies(&desk).await.iter().filter(|line| *line == "intent restore/code").count();
    assert_eq!(universe.with(|truth| truth.violations.clone()), Vec::<String>::new());
    (driver.run, begun)
}

#[tokio::test(start_paused = true)]
async fn an_outcome_nobody_knows_is_found_by_looking() {
    let code = StepId("restore/code".into());
    let (run, begun) = unknown(Fate::Acts, Redo::Never).await;
    assert_eq!((&run.state, begun), (&RunState::Ended(End::Succeeded), 1), "the goal holds: it was done");
    let StepState::Done { proof, .. } = &run.steps[&code] else { panic!("{:?}", run.steps[&code]) };
    assert!(proof.found.contains("found done"), "{proof:?}");

    let (run, begun) = unknown(Fate::DoesNothing, Redo::Never).await;
    assert_eq!((&run.state, begun), (&RunState::Ended(End::Succeeded), 2), "as before: it is begun again");

    let (run, begun) = unknown(Fate::Tears, Redo::Safe).await;
    assert_eq!((&run.state, begun), (&RunState::Ended(End::Succeeded), 2), "half way, and it may be done again");

    let (run, begun) = unknown(Fate::Tears, Redo::Never).await;
    assert_eq!(begun, 1, "half way, and nobody may do it again");
    let RunState::Parked(ParkedWhy::InDoubt { step, found }) = &run.state else { panic!("{:?}", run.state) };
    assert_eq!((step, found.as_str()), (&code, "torn"));
}

#[tokio::test(start_paused = true)]
async fn what_is_made_from_something_is_restored_after_it_and_captured_before_it() {
    let spec = |needs: &[&str]| ComponentSpec {
        kind: "fake".into(),
        layer: Layer::Code,
        needs: needs.iter().map(|n| name(n)).collect(),
        hosts: vec![],
        health: vec![],
        step_limit: Some(Duration::from_secs(5)),
    };
    // By name the packages come first, and would be begun first.
    let specs = BTreeMap::from([(name("packages"), spec(&["source"])), (name("source"), spec(&[]))]);
    let versioned =
        || universe::versioned(Readers::Stop, Redo::Safe, Destroys::SetAside { keep: Duration::from_secs(60) });
    let components = BTreeMap::from([(name("packages"), versioned()), (name("source"), versioned())]);
    let scope = BTreeSet::from([name("packages"), name("source")]);
    let made = Made::of(plain(specs), components, scope);
    let universe = Universe::new(Dice(7));
    let desk = Desk::take(world(&made, &universe, MemoryStore::new()), Duration::from_secs(3600)).await.unwrap();
    history(&desk, &made, &universe).await.unwrap();
    let id = approved(&desk, &restore(&made.scope)).await.unwrap();
    let events = desk.listen();
    let run = load(&desk, &id).await.unwrap();
    let mut driver = Driver::new(&desk, &Arc::new(Board::default()), run, events);
    driver.drive().await.unwrap();
    let order = bodies(&desk).await;
    let at = |what: &str| order.iter().position(|line| line == what).unwrap_or_else(|| panic!("{what} in {order:?}"));
    assert!(at("done capture/packages") < at("intent restore/source"));
    assert!(at("done restore/source") < at("intent restore/packages"));
}
