//! What serves the target as it is, and what is emptied without a capture.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::*;
use ripcord_engine::{Board, Desk, Driver, NoProposal, load, propose};
use ripcord_store::MemoryStore;

use crate::sim::{Made, approved, history, plain, restore, world};
use crate::universe::{self, Dice, Universe, name};

/// Code, the schema it needs, and a cache beside.
fn made(scope: &[&str]) -> Made {
    let spec = |layer, needs: &[&str]| ComponentSpec {
        kind: "fake".into(),
        layer,
        needs: needs.iter().map(|n| name(n)).collect(),
        hosts: vec![],
        health: vec![],
        step_limit: Some(Duration::from_secs(5)),
    };
    let specs = BTreeMap::from([
        (name("cache"), spec(Layer::Cache, &[])),
        (name("code"), spec(Layer::Code, &["schema"])),
        (name("schema"), spec(Layer::Schema, &[])),
    ]);
    let aside = Destroys::SetAside { keep: Duration::from_secs(60) };
    let cache = Capabilities { held: Held::Nowhere, restore: Destroys::Nothing, ..universe::data() };
    let components = BTreeMap::from([
        (name("cache"), cache),
        (name("code"), universe::versioned(Readers::Hot, Redo::Safe, aside)),
        (name("schema"), universe::versioned(Readers::Hot, Redo::Safe, aside)),
    ]);
    Made::of(plain(specs), components, scope.iter().map(|n| name(n)))
}

async fn desk(made: &Made) -> (Universe, Arc<Desk>) {
    let universe = Universe::new(Dice(7));
    let desk = Desk::take(world(made, &universe, MemoryStore::new()), Duration::from_secs(3600)).await.unwrap();
    history(&desk, made, &universe).await.unwrap();
    (universe, desk)
}

#[tokio::test(start_paused = true)]
async fn c6_a_schema_that_does_not_serve_the_target_is_not_left_behind() {
    let made = made(&["code"]);
    let (_, desk) = desk(&made).await;
    let refused = propose(&desk.world, &restore(&made.scope)).await;
    let Err(NoProposal::NoPlan(NoPlan::HalfWay { left, .. })) = refused else { panic!("{refused:?}") };
    assert_eq!(left, [name("schema")]);
}

#[tokio::test(start_paused = true)]
async fn a_schema_that_serves_the_target_stays_whether_it_is_in_scope_or_not() {
    for scope in [&["code"][..], &["code", "schema"]] {
        let made = made(scope);
        let (universe, desk) = desk(&made).await;
        universe.with(|truth| truth.serves = BTreeSet::from([name("schema")]));
        let id = approved(&desk, &restore(&made.scope)).await.unwrap();
        let events = desk.listen();
        let run = load(&desk, &id).await.unwrap();
        let plan = Plan::clone(&run.plan);
        let schema = Place::local(name("schema"));
        assert_eq!(plan.ends_at.get(&schema), Some(&Revision::exact("bad")), "it has to be there in the end, as it is");
        assert!(!plan.steps.iter().any(|step| step.acts() && step.place.as_ref() == Some(&schema)), "{plan:?}");
        if scope.len() > 1 {
            let left = plan.left_alone.iter().find(|left| left.component == name("schema")).unwrap();
            assert_eq!(left.why, "stays as it is, which serves good too: only added to");
        }
        let mut driver = Driver::new(&desk, &Arc::new(Board::default()), run, events);
        driver.drive().await.unwrap();
        assert_eq!(driver.run.state, RunState::Ended(End::Succeeded));
        let live = desk.world.store.ledger(desk.world.app()).await.unwrap().live().cloned().unwrap();
        assert_eq!(live.map[&schema].revision, Revision::exact("bad"), "the release says what is really there");
        assert_eq!(live.map[&Place::local(name("code"))].revision, Revision::exact("good"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_emptied_loses_what_its_component_says_and_never_nothing_by_silence() {
    let made = made(&["cache", "code", "schema"]);
    let (universe, desk) = desk(&made).await;
    let cache = Place::local(name("cache"));
    let recorded = |map: &mut BTreeMap<Place, Recorded>| {
        map.insert(cache.clone(), Recorded { revision: Revision::Absent, label: None, capture: None, flowing: true });
    };
    let ledger = desk.world.store.ledger(desk.world.app()).await.unwrap();
    let mut good = ledger.releases[0].clone();
    recorded(&mut good.map);
    good.id = ReleaseId::typed("rel-90");
    let body = Body::Recorded { release: Box::new(good) };
    desk.write(|_, entry| entry.event(None, None, body)).await.unwrap();
    let loss = |proposal: &ripcord_engine::Proposal| proposal.priced.estimate.loss_now.clone();
    let silent = propose(&desk.world, &restore(&made.scope)).await.unwrap();
    assert_eq!(loss(&silent).other, ["everything in `cache`, not counted"]);
    universe.with(|truth| truth.empties = BTreeMap::from([(name("cache"), Loss::none())]));
    let said = propose(&desk.world, &restore(&made.scope)).await.unwrap();
    assert_eq!(loss(&said), Loss::none());
}

#[tokio::test(start_paused = true)]
async fn a_schema_comes_back_with_the_database_that_holds_it() {
    for scope in [&["code", "data"][..], &["code", "data", "schema"]] {
        let mut made = made(scope);
        let spec = made.application.components[&name("schema")].clone();
        made.application.components.insert(name("data"), ComponentSpec { layer: Layer::Data, ..spec });
        made.components.insert(name("data"), universe::data());
        let (universe, desk) = desk(&made).await;
        // It would serve as it is; but it is not left as it is.
        universe.with(|truth| {
            truth.serves = BTreeSet::from([name("schema")]);
            truth.holds = BTreeMap::from([(name("data"), name("schema"))]);
        });
        let id = approved(&desk, &restore(&made.scope)).await.unwrap();
        let events = desk.listen();
        let run = load(&desk, &id).await.unwrap();
        let plan = Plan::clone(&run.plan);
        let schema = Place::local(name("schema"));
        assert_eq!(plan.ends_at.get(&schema), Some(&Revision::exact("good")));
        assert!(!plan.steps.iter().any(|step| step.place.as_ref() == Some(&schema)), "{plan:?}");
        let why: Vec<_> = plan.left_alone.iter().filter(|left| left.component == name("schema")).collect();
        assert!(matches!(&why[..], [one] if one.why == "comes back with `data`, which holds it"), "{why:?}");
        let mut driver = Driver::new(&desk, &Arc::new(Board::default()), run, events);
        driver.drive().await.unwrap();
        assert_eq!(driver.run.state, RunState::Ended(End::Succeeded));
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_no_way_of_its_own_comes_back_with_what_holds_it_or_not_at_all() {
    let mut made = made(&["code", "data", "schema"]);
    let spec = made.application.components[&name("schema")].clone();
    made.application.components.insert(name("data"), ComponentSpec { layer: Layer::Data, ..spec });
    made.components.insert(name("data"), universe::data());
    let (universe, desk) = desk(&made).await;
    universe.with(|truth| truth.stuck = BTreeSet::from([name("schema")]));
    let refused = propose(&desk.world, &restore(&made.scope)).await;
    let Err(NoProposal::NoPlan(why)) = refused else { panic!("{refused:?}") };
    assert!(why.to_string().contains("no way back"), "{why}");
    universe.with(|truth| truth.holds = BTreeMap::from([(name("data"), name("schema"))]));
    let plan = propose(&desk.world, &restore(&made.scope)).await.unwrap().priced.plan;
    let schema = Place::local(name("schema"));
    assert!(!plan.steps.iter().any(|step| step.place.as_ref() == Some(&schema)), "{plan:?}");
    assert_eq!(plan.ends_at.get(&schema), Some(&Revision::exact("good")));
}

#[tokio::test(start_paused = true)]
async fn a_cache_is_cleared_once_everything_else_is_back_and_before_it_is_filled_again() {
    for readers in [Readers::Hot, Readers::Restart, Readers::Stop] {
        let mut made = made(&["cache", "code", "schema", "web"]);
        let spec = made.application.components[&name("code")].clone();
        let needs = [name("cache"), name("code")].into();
        made.application.components.insert(name("web"), ComponentSpec { needs, ..spec });
        made.components.insert(name("web"), universe::process());
        let aside = Destroys::SetAside { keep: Duration::from_secs(60) };
        made.components.insert(name("code"), universe::versioned(readers, Redo::Safe, aside));
        let cache = Capabilities { readers: Readers::Hot, restore: Destroys::Nothing, ..universe::data() };
        made.components.insert(name("cache"), cache);
        let (universe, desk) = desk(&made).await;
        universe.with(|truth| truth.empties = BTreeMap::from([(name("cache"), Loss::none())]));
        let plan = propose(&desk.world, &restore(&made.scope)).await.unwrap().priced.plan;
        let after = |second: &str, first: &str| {
            let mut open = vec![StepId(second.to_owned())];
            let mut seen = BTreeSet::new();
            while let Some(id) = open.pop() {
                if id.0 == first {
                    return true;
                }
                let step = plan.step(&id).unwrap_or_else(|| panic!("no {id} in {plan:?}"));
                open.extend(step.needs.iter().filter(|need| seen.insert((*need).clone())).cloned());
            }
            false
        };
        assert!(after("restore/cache", "restore/code") && after("restore/cache", "restore/schema"), "{readers:?}");
        if readers != Readers::Hot {
            assert!(after("restore/cache", "stop/web") && after("start/web", "restore/cache"), "{readers:?}");
        }
    }
}
