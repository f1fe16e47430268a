//! The process at the desk: its lease, what it locks, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use ripcord_core::*;
use ripcord_engine::{Board, Desk, Driver, Stop, load};
use ripcord_store::{Fault, MemoryStore};

use crate::sim::{Made, approved, history, plain, restore, world};
use crate::stage::{Stage, TTL, bad_code, ended, parked, rung, seconds, trigger};
use crate::universe::{self, Dice, Universe, name};

#[tokio::test(start_paused = true)]
async fn a_target_in_use_by_another_is_not_touched_and_the_message_says_whose() {
    let stage = Stage::new(|_| {}).await;
    let other = Holder {
        incarnation: "another".into(),
        actor: Actor::Person { user: "eve".into(), host: "elsewhere".into() },
        pid: 4711,
        doing: "ripcord rollback of another shop".into(),
    };
    let on = LeaseOn::Target(TargetId("fake:code".into()));
    let held = stage.store.acquire(&on, &other, Duration::from_secs(3600)).await.unwrap();
    stage.taken(stage.rollback(2).await).await;
    let run = stage.until(parked).await;
    let RunState::Parked(ParkedWhy::Failed { what, advice, .. }) = &run.state else { panic!("{:?}", run.state) };
    assert!(what.contains("eve@elsewhere") && what.contains("4711"), "{what}");
    assert!(advice.is_some());
    assert_eq!(stage.universe.with(|truth| truth.applied), 0, "nothing was begun");
    stage.store.release(&held).await.unwrap();
    stage.taken(Ask::Run { run: run.id, verb: Verb::Retry { step: None } }).await;
    let run = stage.until(|state| *state == RunState::Running).await;
    seconds(1).await;
    assert!(stage.store.holder(&on).await.unwrap().is_some(), "locked while {} runs", run.id);
    stage.until(ended).await;
    seconds(1).await;
    assert!(stage.store.holder(&on).await.unwrap().is_none(), "free again");
}

#[tokio::test(start_paused = true)]
async fn targets_stay_locked_for_as_long_as_the_run_stands_still() {
    let stage = Stage::new(|_| {}).await;
    stage.universe.with(|truth| truth.refuses.insert("restore/code".into()));
    stage.taken(stage.rollback(2).await).await;
    let run = stage.until(parked).await;
    let on = LeaseOn::Target(TargetId("fake:code".into()));
    seconds(300).await; // Many times its length: it is renewed.
    assert!(stage.store.holder(&on).await.unwrap().is_some());
    stage.taken(Ask::Run { run: run.id, verb: Verb::Abandon { reason: "enough".into() } }).await;
    seconds(1).await;
    assert!(stage.store.holder(&on).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_what_is_in_flight_and_writes_nothing() {
    let mut stage = Stage::new(|_| {}).await;
    stage.universe.with(|truth| {
        truth.takes.insert("stop/web".into(), Duration::from_secs(4));
    });
    stage.taken(stage.rollback(2).await).await;
    for _ in 0..200 {
        if stage.universe.with(|truth| truth.busy) > 0 && !stage.on("door") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(stage.universe.with(|truth| truth.busy) > 0);
    let desk = stage.desk();
    desk.leave().await.unwrap();
    let other = Holder { incarnation: "another".into(), ..stage.world.holder.clone() };
    stage.store.acquire(&LeaseOn::App(stage.world.app().clone()), &other, TTL).await.unwrap();
    let written = stage.events().await.len();
    assert_eq!(stage.holding.as_mut().unwrap().ended().await, Stop::LostLease);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(stage.universe.with(|truth| truth.busy), 0, "what was in flight was dropped");
    seconds(60).await;
    assert!(stage.on("web"));
    assert_eq!(stage.events().await.len(), written);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_stops_the_holder_and_the_next_one_goes_on() {
    for failing in [28, 31, 34, 37, 40] {
        let mut stage = Stage::empty(|_| {}).await;
        let store =
            stage.store.clone().with_faults(move |n| if n == failing { Fault::FailBefore } else { Fault::None });
        stage.store = store.clone();
        stage.world.store = Arc::new(store);
        stage.open().await;
        history(&stage.desk(), &stage.made, &stage.universe).await.unwrap();
        stage.errors.says(bad_code);
        let ended = tokio::time::timeout(Duration::from_secs(3600), stage.holding.as_mut().unwrap().ended());
        let why = ended.await.unwrap_or_else(|_| panic!("there was no append {failing}"));
        assert!(matches!(why, Stop::Store(StoreError::Unavailable { .. })), "{why:?}");
        stage.holding.take().unwrap().finish("the store failed").await;
        stage.open().await;
        let run = stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
        assert_eq!(run.open_obligations().count(), 0);
        assert!(stage.universe.with(|truth| truth.violations.is_empty()), "failing at {failing}");
    }
}

/// Eight places on one host that can all be restored at once.
fn wide() -> Made {
    let spec = ComponentSpec {
        kind: "fake".into(),
        layer: Layer::Code,
        needs: Default::default(),
        hosts: vec![],
        health: vec![],
        step_limit: None,
    };
    let ids: Vec<ComponentId> = (0..8).map(|n| name(&format!("code-{n}"))).collect();
    let code = universe::versioned(Readers::Hot, Redo::Safe, Destroys::Nothing);
    let application = plain(ids.iter().map(|id| (id.clone(), spec.clone())).collect());
    let components = ids.iter().map(|id| (id.clone(), code.clone())).collect();
    Made::of(application, components, ids)
}

#[tokio::test(start_paused = true)]
async fn no_more_steps_than_allowed_run_on_one_host_and_as_many_do() {
    for most in [1, 3] {
        let mut made = wide();
        made.application.policy.per_host = most;
        let universe = Universe::new(Dice(3));
        let desk = Desk::take(world(&made, &universe, MemoryStore::new()), Duration::from_secs(3600)).await.unwrap();
        history(&desk, &made, &universe).await.unwrap();
        universe.with(|truth| {
            for id in &made.scope {
                truth.takes.insert(format!("restore/{id}"), Duration::from_secs(1));
            }
        });
        let id = approved(&desk, &restore(&made.scope)).await.unwrap();
        let events = desk.listen();
        let run = load(&desk, &id).await.unwrap();
        let mut driver = Driver::new(&desk, &Arc::new(Board::default()), run, events);
        driver.drive().await.unwrap();
        assert_eq!(driver.run.state, RunState::Ended(End::Succeeded));
        assert_eq!(universe.with(|truth| truth.busiest), most);
    }
}

#[tokio::test(start_paused = true)]
async fn an_overrun_budget_is_told_once_and_kills_nothing() {
    let stage = Stage::new(|app| {
        let mut short = rung(2, Climb::Ask);
        short.budget = Duration::from_secs(2);
        app.strategies.insert("standard".parse().unwrap(), vec![short]);
    })
    .await;
    stage.universe.with(|truth| {
        truth.takes.insert("restore/code".into(), Duration::from_secs(4));
    });
    stage.errors.says(bad_code);
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    let over = stage.pager.about(About::Progress);
    assert_eq!(over.iter().filter(|message| message.title.contains("over its budget")).count(), 1, "{over:?}");
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_a_while_is_tried_again_with_growing_pauses() {
    let made = wide();
    let universe = Universe::new(Dice(11));
    let desk = Desk::take(world(&made, &universe, MemoryStore::new()), Duration::from_secs(3600)).await.unwrap();
    history(&desk, &made, &universe).await.unwrap();
    let id = approved(&desk, &restore(&made.scope)).await.unwrap();
    universe.with(|truth| truth.trouble.fails = 100);
    let events = desk.listen();
    let run = load(&desk, &id).await.unwrap();
    let mut driver = Driver::new(&desk, &Arc::new(Board::default()), run, events);
    driver.drive().await.unwrap();
    assert!(parked(&driver.run.state));
    let events = desk.world.store.read_run(desk.world.app(), &id).await.unwrap();
    let step = driver.run.steps.iter().find(|(_, state)| matches!(state, StepState::Failed { attempt: 3, .. }));
    let step = step.expect("its tries are used up").0.clone();
    let begun: Vec<jiff::Timestamp> = events
        .iter()
        .filter(|event| matches!(&event.body, Body::Intent { step: of, .. } if *of == step))
        .map(|event| event.at)
        .collect();
    let pauses: Vec<Duration> = begun.windows(2).map(|two| between(two[0], two[1])).collect();
    assert_eq!(begun.len(), 3);
    assert!(pauses[0] >= Duration::from_millis(400) && pauses[1] >= Duration::from_millis(800), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_is_false_disarms_and_one_that_cannot_be_told_pages() {
    let mut stage = Stage::empty(|app| {
        let every = Duration::from_secs(1);
        let spec = SignalSpec { kind: "fake".into(), every, timeout: every };
        app.signals.insert("traffic".parse().unwrap(), spec);
        app.triggers.values_mut().next().unwrap().when = Some(Guard::new("traffic > 10.0").unwrap());
        // A signal is read where a trigger or a figure needs it.
        app.figures.insert("traffic".parse().unwrap(), "traffic".parse().unwrap());
    })
    .await;
    let traffic = stage.gauge("traffic");
    traffic.value(1.0);
    stage.open().await;
    history(&stage.desk(), &stage.made, &stage.universe).await.unwrap();
    stage.errors.says(bad_code);
    seconds(60).await;
    assert_eq!(stage.runs().await.len(), 0, "nobody is there to notice");
    traffic.says(|_, _| Some(Reading::Failed { why: "502".into() }));
    seconds(60).await;
    assert_eq!(stage.runs().await.len(), 0, "and nobody knows");
    assert_eq!(stage.pager.about(About::Blind).len(), 1, "which people are told");
    traffic.value(100.0);
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_triggers_over_twenty_signals_stay_cheap() {
    let mut stage = Stage::empty(|app| {
        let every = Duration::from_secs(1);
        app.triggers.clear();
        for n in 0..20 {
            let spec = SignalSpec { kind: "fake".into(), every, timeout: every };
            app.signals.insert(format!("s{n}").parse().unwrap(), spec);
            for m in 0..50 {
                let mut rule = trigger(&format!("t{n}-{m}"));
                rule.signal = format!("s{n}").parse().unwrap();
                app.triggers.insert(rule.id.clone(), rule);
            }
        }
    })
    .await;
    for n in 0..20 {
        stage.gauge(&format!("s{n}"));
    }
    stage.open().await;
    seconds(60).await;
    let board = &stage.holding.as_ref().unwrap().board;
    assert_eq!(board.memories().len(), 1000);
    assert!(board.memories().values().all(|memory| memory.last_sample.is_some()));
    assert_eq!(stage.events().await.len(), 0, "what does not change is not written");
}

#[tokio::test(start_paused = true)]
async fn a_baseline_measured_before_a_release_judges_it_also_after_a_restart() {
    let mut stage = Stage::new(|app| {
        app.policy.baseline = Duration::from_secs(10);
        app.strategies.insert("standard".parse().unwrap(), vec![rung(2, Climb::Ask)]);
        let rule = app.triggers.values_mut().next().unwrap();
        rule.condition = Condition::AboveBaseline { times: 3.0, floor: 0.001 };
    })
    .await;
    stage.errors.value(0.01);
    seconds(5).await;
    let (desk, board) = (stage.desk(), Arc::clone(&stage.holding.as_ref().unwrap().board));
    let universe = stage.universe.clone();
    let deploying = tokio::spawn(async move {
        let command = async move {
            let code = Place::local(name("code"));
            universe.with(|truth| truth.real.get_mut(&code).unwrap().revision = "v3".into());
            Ok(())
        };
        ripcord_engine::deploy(&desk, &board, "v3", vec![], command).await
    });
    seconds(20).await;
    stage.restart().await;
    assert!(deploying.await.unwrap().is_err(), "its process is gone");
    let baseline = stage.holding.as_ref().unwrap().board.baseline(&"errors".parse().unwrap());
    assert_eq!(baseline, Some(0.01));
    stage.errors.says(|universe, cx| {
        let bad = universe.with(|truth| truth.real[&Place::local(name("code"))].revision == "v3");
        Some(Reading::of(Sample::new(cx.now, if bad { 0.04 } else { 0.01 })))
    });
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert_eq!(stage.revision("code"), "good");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_above_the_floor_has_recovered() {
    let stage = Stage::new(|app| {
        app.policy.baseline = Duration::from_secs(10);
        app.strategies.insert("standard".parse().unwrap(), vec![rung(2, Climb::Ask)]);
        let rule = app.triggers.values_mut().next().unwrap();
        rule.condition = Condition::AboveBaseline { times: 3.0, floor: 0.05 };
    })
    .await;
    // Restored, it is four times what was normal: more than the policy calls recovered, and nothing that was ever bad.
    let was_bad = std::sync::atomic::AtomicBool::new(false);
    stage.errors.says(move |universe, cx| {
        let bad = universe.with(|truth| truth.real[&Place::local(name("code"))].revision == "v3");
        let was = was_bad.fetch_or(bad, std::sync::atomic::Ordering::SeqCst);
        let value = if bad {
            0.4
        } else if was {
            0.04
        } else {
            0.01
        };
        Some(Reading::of(Sample::new(cx.now, value)))
    });
    let (desk, board) = (stage.desk(), Arc::clone(&stage.holding.as_ref().unwrap().board));
    let universe = stage.universe.clone();
    tokio::spawn(async move {
        let command = async move {
            let code = Place::local(name("code"));
            universe.with(|truth| truth.real.get_mut(&code).unwrap().revision = "v3".into());
            Ok(())
        };
        ripcord_engine::deploy(&desk, &board, "v3", vec![], command).await
    });
    let run = stage.until(|state| matches!(state, RunState::Ended(_))).await;
    assert_eq!((run.state, stage.revision("code").as_str()), (RunState::Ended(End::Succeeded), "good"));
}

/// A rollback in the middle of which the process is stopped, while what it had begun is carried out by somebody else.
async fn orphaned() -> Stage {
    let stage = Stage::new(|app| {
        let slow = Some(Duration::from_secs(60));
        app.components.values_mut().for_each(|component| component.step_limit = slow);
    })
    .await;
    stage.universe.with(|truth| {
        truth.takes.insert("stop/web".into(), Duration::from_secs(40));
        truth.orphans.insert("stop/web".into());
    });
    stage.taken(stage.rollback(2).await).await;
    for _ in 0..600 {
        let run = stage.last().await;
        if matches!(run.steps.get(&StepId("stop/web".into())), Some(StepState::InDoubt { .. })) {
            return stage;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it was never begun: {:?}", stage.last().await.steps)
}

async fn waited(stage: &Stage) -> usize {
    let events = stage.events().await;
    let said =
        |event: &&Event| matches!(&event.body, Body::Noted { text, .. } if text.contains("not known to be gone"));
    events.iter().filter(said).count()
}

#[tokio::test(start_paused = true)]
async fn what_a_holder_not_known_to_be_gone_had_begun_is_waited_out() {
    let mut stage = orphaned().await;
    let began = tokio::time::Instant::now();
    stage.kill();
    stage.open().await;
    assert!(began.elapsed() < Duration::from_secs(30), "the lease ran out while the effect was still under way");
    assert!(stage.on("web"));
    let run = stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert_eq!(waited(&stage).await, 1);
    let StepState::Done { attempt, .. } = &run.steps[&StepId("stop/web".into())] else { panic!("{:?}", run.steps) };
    assert_eq!(*attempt, 1, "it was not done beside the other");
    assert_eq!(stage.universe.with(|truth| truth.violations.clone()), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn after_a_holder_that_let_go_nothing_is_waited_for() {
    let mut stage = orphaned().await;
    stage.holding.take().unwrap().finish("its work is over").await;
    // What it had begun ended with it.
    stage.universe.with(|truth| truth.takes.clear());
    stage.open().await;
    seconds(3).await;
    assert_eq!(waited(&stage).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_overrun_budget_is_not_told_again_by_the_next_holder() {
    let mut stage = Stage::new(|app| {
        let mut short = rung(2, Climb::Ask);
        short.budget = Duration::from_secs(2);
        app.strategies.insert("standard".parse().unwrap(), vec![short]);
    })
    .await;
    stage.universe.with(|truth| {
        truth.takes.insert("restore/code".into(), Duration::from_secs(4));
    });
    stage.errors.says(bad_code);
    let overran = |events: &[Event]| events.iter().filter(|event| matches!(event.body, Body::Overran { .. })).count();
    for _ in 0..600 {
        if overran(&stage.events().await) > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stage.restart().await;
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert_eq!(overran(&stage.events().await), 1);
    let over = stage.pager.about(About::Progress);
    assert_eq!(over.iter().filter(|message| message.title.contains("over its budget")).count(), 1, "{over:?}");
}

#[tokio::test(start_paused = true)]
async fn what_panics_inside_ends_the_holder_and_is_called_what_it_is() {
    // While a run is driven.
    let mut stage = Stage::new(|_| {}).await;
    stage.universe.with(|truth| {
        truth.takes.insert("stop/web".into(), Duration::from_secs(3));
    });
    stage.taken(stage.rollback(2).await).await;
    stage.until(|state| *state == RunState::Running).await;
    stage.universe.with(|truth| truth.breaks = true);
    let why = stage.holding.as_mut().unwrap().ended().await;
    assert!(matches!(why, Stop::Broken { .. }), "{why:?}");
    assert!(why.to_string().starts_with("an error inside Ripcord: "), "{why}");
    // While a request is looked into, where nobody drives anything.
    let mut stage = Stage::new(|_| {}).await;
    let rollback = stage.rollback(2).await;
    stage.universe.with(|truth| truth.breaks = true);
    stage.leave("op", &rollback).await;
    let ended = tokio::time::timeout(Duration::from_secs(60), stage.holding.as_mut().unwrap().ended()).await;
    assert!(matches!(ended, Ok(Stop::Broken { .. })), "{ended:?}");
}
