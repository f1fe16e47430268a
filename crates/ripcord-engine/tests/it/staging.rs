//! Making ready beside the live, everywhere, before anything live is touched; and restarts without a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::*;
use ripcord_engine::{Board, Desk, Driver, load, propose};
use ripcord_store::MemoryStore;

use crate::sim::{Made, approved, history, plain, restore, world};
use crate::universe::{self, Dice, Universe, name};

/// Two trees that are made ready beside, a process for each, a door.
fn two(readers: Readers) -> Made {
    let spec = |needs: &[&str]| ComponentSpec {
        kind: "fake".into(),
        layer: Layer::Code,
        needs: needs.iter().map(|n| name(n)).collect(),
        hosts: vec![],
        health: vec![],
        step_limit: Some(Duration::from_secs(5)),
    };
    let specs = BTreeMap::from([
        (name("door"), spec(&[])),
        (name("east"), spec(&[])),
        (name("east-web"), spec(&["east"])),
        (name("west"), spec(&[])),
        (name("west-web"), spec(&["west"])),
    ]);
    let code = universe::versioned(readers, Redo::Safe, Destroys::SetAside { keep: Duration::from_secs(60) });
    let components = BTreeMap::from([
        (name("door"), universe::switch()),
        (name("east"), code.clone()),
        (name("east-web"), universe::process()),
        (name("west"), code),
        (name("west-web"), universe::process()),
    ]);
    let both = [name("east"), name("west")];
    Made { stages: BTreeSet::from(both.clone()), ..Made::of(plain(specs), components, both) }
}

async fn begun(made: &Made) -> (Universe, Arc<Desk>, Driver) {
    let universe = Universe::new(Dice(7));
    let desk = Desk::take(world(made, &universe, MemoryStore::new()), Duration::from_secs(3600)).await.unwrap();
    history(&desk, made, &universe).await.unwrap();
    let id = approved(&desk, &restore(&made.scope)).await.unwrap();
    let events = desk.listen();
    let run = load(&desk, &id).await.unwrap();
    let driver = Driver::new(&desk, &Arc::new(Board::default()), run, events);
    (universe, desk, driver)
}

/// Effects in the order in which they were begun and done.
async fn told(desk: &Desk) -> Vec<String> {
    let events = desk.world.store.read(desk.world.app(), Seq(0), 10_000).await.unwrap();
    let told = |event: &Event| match &event.body {
        Body::Intent { step, .. } => Some(format!("begun {step}")),
        Body::Acted { step, outcome: Outcome::Done(_), .. } => Some(format!("done {step}")),
        _ => None,
    };
    events.iter().filter_map(told).collect()
}

#[tokio::test(start_paused = true)]
async fn everything_is_ready_everywhere_before_anything_live_is_touched() {
    let (universe, desk, mut driver) = begun(&two(Readers::Stop)).await;
    universe.with(|truth| truth.takes = BTreeMap::from([("stage/west".to_owned(), Duration::from_secs(4))]));
    driver.drive().await.unwrap();
    assert_eq!(driver.run.state, RunState::Ended(End::Succeeded));
    let told = told(&desk).await;
    let at = |what: &str| told.iter().position(|line| line == what).unwrap_or_else(|| panic!("{what} in {told:?}"));
    let ready = at("done stage/east").max(at("done stage/west"));
    for live in ["pause/door", "stop/east-web", "stop/west-web", "restore/east", "restore/west"] {
        assert!(ready < at(&format!("begun {live}")), "{live}: {told:?}");
    }
    // The present is captured meanwhile: it does not wait for the one that takes long.
    assert!(at("done capture/east") < at("done stage/west"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn where_one_cannot_get_ready_none_is_touched() {
    let (universe, _, mut driver) = begun(&two(Readers::Stop)).await;
    let before = universe.with(|truth| {
        truth.refuses.insert("stage/west".to_owned());
        truth.real.clone()
    });
    driver.drive().await.unwrap();
    let RunState::Parked(ParkedWhy::Failed { step, .. }) = &driver.run.state else { panic!("{:?}", driver.run.state) };
    assert_eq!(step.0, "stage/west");
    assert_eq!(universe.with(|truth| truth.real.clone()), before);
    assert_eq!(driver.run.open_obligations().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_rolls_is_restarted_without_a_stop_and_the_door_stays_open() {
    let mut made = two(Readers::Restart);
    made.rolls = BTreeSet::from([name("east-web")]);
    let (universe, desk, mut driver) = begun(&made).await;
    let plan = driver.run.plan.clone();
    let actions_at = |at: &str| -> Vec<Action> {
        let of = plan.steps.iter().filter(|step| step.place == Some(Place::local(name(at))));
        of.filter(|step| step.acts()).map(|step| step.action.clone()).collect()
    };
    assert_eq!(actions_at("east-web"), [Action::Roll]);
    assert_eq!(actions_at("west-web"), [Action::Stop, Action::Start]);
    driver.drive().await.unwrap();
    assert_eq!(driver.run.state, RunState::Ended(End::Succeeded));
    let told = told(&desk).await;
    let at = |what: &str| told.iter().position(|line| line == what).unwrap_or_else(|| panic!("{what} in {told:?}"));
    assert!(at("done restore/east") < at("begun start/east-web"), "{told:?}");
    assert_eq!(universe.with(|truth| truth.real[&Place::local(name("east-web"))].instance), 2, "it is a new one");

    // Where everything rolls nothing is down, and nobody is kept out.
    made.rolls = BTreeSet::from([name("east-web"), name("west-web")]);
    let (_, desk, driver) = begun(&made).await;
    assert!(!driver.run.plan.steps.iter().any(|step| matches!(step.action, Action::Stop | Action::Pause)));
    let proposal = propose(&desk.world, &restore(&made.scope)).await.unwrap();
    assert_eq!(proposal.priced.estimate.downtime, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_must_be_down_is_stopped_even_if_it_could_roll() {
    let mut made = two(Readers::Stop);
    made.rolls = BTreeSet::from([name("east-web"), name("west-web")]);
    let (_, _, driver) = begun(&made).await;
    assert!(!driver.run.plan.steps.iter().any(|step| step.action == Action::Roll));
    assert_eq!(driver.run.plan.steps.iter().filter(|step| step.action == Action::Stop).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_touches_the_live_before_all_is_ready_breaks_a_law() {
    let (_, _, driver) = begun(&two(Readers::Stop)).await;
    let mut plan = Plan::clone(&driver.run.plan);
    assert_eq!(check(&plan), []);
    let stage = StepId("stage/west".to_owned());
    for step in &mut plan.steps {
        if step.id.0 == "stop/east-web" || step.id.0 == "pause/door" {
            step.needs.remove(&stage);
        }
    }
    let broken = check(&plan);
    assert!(
        broken.iter().any(|law| matches!(law, Broken::TouchedBefore { stage: of, .. } if *of == stage)),
        "{broken:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn b2_a_run_succeeds_only_where_the_whole_release_is_back() {
    let made = two(Readers::Hot);
    let universe = Universe::new(Dice(7));
    let desk = Desk::take(world(&made, &universe, MemoryStore::new()), Duration::from_secs(3600)).await.unwrap();
    history(&desk, &made, &universe).await.unwrap();
    let west = Place::local(name("west"));
    let set = |revision: &str| universe.with(|truth| truth.real.get_mut(&west).unwrap().revision = revision.to_owned());
    // One of the two is at the target already: the plan leaves it alone, and counts on it.
    set("good");
    let id = approved(&desk, &restore(&made.scope)).await.unwrap();
    let events = desk.listen();
    let run = load(&desk, &id).await.unwrap();
    assert!(!run.plan.steps.iter().any(|step| step.place.as_ref() == Some(&west)));
    assert_eq!(run.plan.ends_at[&west], Revision::exact("good"));
    set("another");
    let mut driver = Driver::new(&desk, &Arc::new(Board::default()), run, events);
    driver.drive().await.unwrap();
    let RunState::Parked(ParkedWhy::HalfWay { what }) = &driver.run.state else { panic!("{:?}", driver.run.state) };
    assert_eq!(*what, ["`west` should be at good and is at another"]);
    // Put back, it is looked at again.
    set("good");
    let by = Actor::Person { user: "op".into(), host: "here".into() };
    let body = Body::Person { by, verb: Verb::Retry { step: None } };
    desk.write(|_, entry| entry.event(Some(id.clone()), None, body)).await.unwrap();
    let run = load(&desk, &id).await.unwrap();
    let events = desk.listen();
    let mut driver = Driver::new(&desk, &Arc::new(Board::default()), run, events);
    driver.drive().await.unwrap();
    assert_eq!(driver.run.state, RunState::Ended(End::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn b11_what_would_undo_it_is_in_the_plan_and_told_when_it_is_still_there() {
    let (universe, desk, mut driver) = begun(&two(Readers::Hot)).await;
    assert_eq!(driver.run.plan.puts_back, BTreeMap::new());
    let (east, west) = (Place::local(name("east")), Place::local(name("west")));
    let note = |place: &Place, what: &str| (place.clone(), vec![what.to_owned()]);
    let both = BTreeMap::from([note(&east, "a branch"), note(&west, "an updater")]);
    universe.with(|truth| truth.puts_back = both.clone());
    let scope = restore(&[name("east"), name("west")].into());
    let proposal = propose(&desk.world, &scope).await.unwrap();
    assert_eq!(proposal.priced.plan.puts_back, both);
    // What is only restarted may bring something back too.
    let web = Place::local(name("east-web"));
    universe.with(|truth| truth.puts_back.extend([note(&web, "a saved list")]));
    let restarted = two(Readers::Restart);
    let (other, _, _) = begun(&restarted).await;
    other.with(|truth| truth.puts_back.extend([note(&web, "a saved list")]));
    let elsewhere = Desk::take(world(&restarted, &other, MemoryStore::new()), Duration::from_secs(3600)).await.unwrap();
    history(&elsewhere, &restarted, &other).await.unwrap();
    let plan = propose(&elsewhere.world, &scope).await.unwrap().priced.plan;
    assert_eq!(plan.puts_back, BTreeMap::from([note(&web, "a saved list")]));
    // The one is mended by the time the run is done.
    universe.with(|truth| truth.puts_back.remove(&east));
    driver.drive().await.unwrap();
    let events = desk.world.store.read(desk.world.app(), Seq(0), 10_000).await.unwrap();
    let noted = events.iter().filter_map(|event| match &event.body {
        Body::Noted { text, .. } if text.contains("put something else back") => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(noted.collect::<Vec<_>>(), ["this would put something else back: west: an updater"]);
}

#[tokio::test(start_paused = true)]
async fn toggles_count_on_nothing_but_what_they_set() {
    let made = two(Readers::Hot);
    let (_, desk, _) = begun(&made).await;
    let off = BTreeMap::from([("fast".to_owned(), serde_json::json!(false))]);
    let means = Means::Set { values: BTreeMap::from([(name("east"), off)]) };
    let rung =
        Rung { level: 1, name: "toggle".parse().unwrap(), means, climb: Climb::Ask, budget: Duration::from_secs(120) };
    let wanted = ripcord_engine::Wanted::Rollback { to: None, rung, partial: false };
    let plan = propose(&desk.world, &wanted).await.unwrap().priced.plan;
    assert_eq!(plan.ends_at, BTreeMap::new());
}
