//! Deployments: recorded before, observed after, verified, baked, judged, and taken back.

use std::time::Duration;

use ripcord_core::*;
use ripcord_engine::{Deployed, VERIFICATION_FAILED, deploy};

use crate::stage::{Stage, bad_code, ended, parked, rung, seconds};
use crate::universe::{Universe, name};

/// What a deployment's command does to the world.
fn put_out(universe: &Universe, revision: &str) {
    let place = Place::local(name("code"));
    universe.with(|truth| truth.real.get_mut(&place).unwrap().revision = revision.into());
}

async fn deployed(stage: &Stage, version: &str, command: impl Future<Output = Result<(), String>>) -> Deployed {
    let (desk, board) = (stage.desk(), std::sync::Arc::clone(&stage.holding.as_ref().unwrap().board));
    deploy(&desk, &board, version, vec!["make".into(), version.into()], command).await.unwrap()
}

/// A shop whose live release is fine.
async fn fine(configure: impl FnOnce(&mut Application)) -> Stage {
    let stage = Stage::new(|app| {
        app.strategies.insert("standard".parse().unwrap(), vec![rung(2, Climb::Ask)]);
        configure(app);
    })
    .await;
    seconds(2).await;
    stage
}

#[tokio::test(start_paused = true)]
async fn a_release_that_bakes_with_data_is_good_and_can_be_gone_back_to() {
    let stage = fine(|_| {}).await;
    let universe = stage.universe.clone();
    let done = deployed(&stage, "v3", async move {
        put_out(&universe, "v3");
        Ok(())
    })
    .await;
    let Deployed::Good { release } = done else { panic!("{done:?}") };
    let ledger = stage.ledger().await;
    let release = ledger.find(&release).unwrap();
    assert_eq!((release.standing.clone(), release.version.as_str()), (Standing::Live, "v3"));
    assert!(matches!(release.verdict, Verdict::Good { .. }));
    let code = &release.map[&Place::local(name("code"))];
    assert_eq!(code.revision, Revision::exact("v3"));
    assert!(code.capture.is_some(), "what is live is captured, or there is no way back to it");
}

#[tokio::test(start_paused = true)]
async fn a_bake_without_data_is_no_verdict() {
    let stage = fine(|_| {}).await;
    stage.errors.says(|_, _| Some(Reading::Empty));
    let universe = stage.universe.clone();
    let done = deployed(&stage, "v3", async move {
        put_out(&universe, "v3");
        Ok(())
    })
    .await;
    assert!(matches!(done, Deployed::Undecided { .. }), "{done:?}");
    seconds(1).await;
    assert_eq!(stage.pager.about(About::Released).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_and_changed_nothing_leaves_what_was_live() {
    let stage = fine(|_| {}).await;
    let before = stage.ledger().await.live().unwrap().id.clone();
    let done = deployed(&stage, "v3", async { Err("exit 1".to_owned()) }).await;
    assert!(matches!(done, Deployed::CommandFailed { .. }), "{done:?}");
    assert_eq!(stage.ledger().await.live().unwrap().id, before);
    // And can be tried again.
    let again = deployed(&stage, "v3", async { Err("exit 1".to_owned()) }).await;
    assert!(matches!(again, Deployed::CommandFailed { .. }), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_half_way_is_interrupted_and_told() {
    let stage = fine(|_| {}).await;
    let universe = stage.universe.clone();
    let done = deployed(&stage, "v3", async move {
        put_out(&universe, "half");
        Err("exit 1".to_owned())
    })
    .await;
    let Deployed::Interrupted { release, why } = done else { panic!("{done:?}") };
    assert!(why.contains("`code`"), "{why}");
    assert_eq!(stage.ledger().await.find(&release).unwrap().standing, Standing::Interrupted);
    seconds(1).await;
    assert!(stage.pager.about(About::Released)[0].title.contains("half way"));
}

#[tokio::test(start_paused = true)]
async fn a_breach_while_the_command_runs_drops_it_and_goes_back() {
    let stage = fine(|_| {}).await;
    let universe = stage.universe.clone();
    stage.errors.says(|universe, cx| {
        let bad = universe.with(|truth| truth.real[&Place::local(name("code"))].revision == "v3");
        Some(Reading::of(Sample::new(cx.now, if bad { 0.5 } else { 0.01 })))
    });
    let done = deployed(&stage, "v3", async move {
        put_out(&universe, "v3");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        put_out(&universe, "v3-later");
        Ok(())
    })
    .await;
    let Deployed::RolledBack { release, end: End::Succeeded, .. } = done else { panic!("{done:?}") };
    assert_eq!(stage.revision("code"), "good");
    let ledger = stage.ledger().await;
    assert!(matches!(ledger.find(&release).unwrap().standing, Standing::RolledBack { .. }));
    assert!(ledger.quarantined.contains_key("v3"));
    let again = deployed(&stage, "v3", async { Ok(()) }).await;
    assert!(matches!(&again, Deployed::Refused { why } if why.contains("quarantined")), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_breach_during_the_bake_goes_back() {
    let stage = fine(|_| {}).await;
    stage.errors.says(|universe, cx| {
        let bad = universe.with(|truth| truth.real[&Place::local(name("code"))].revision == "v3");
        Some(Reading::of(Sample::new(cx.now, if bad { 0.5 } else { 0.01 })))
    });
    let universe = stage.universe.clone();
    let done = deployed(&stage, "v3", async move {
        put_out(&universe, "v3");
        Ok(())
    })
    .await;
    assert!(matches!(done, Deployed::RolledBack { end: End::Succeeded, .. }), "{done:?}");
}

/// A check of the version that code is at.
fn checked(app: &mut Application) {
    let spec = CheckSpec {
        id: "errors-low".parse().unwrap(),
        signal: "errors".parse().unwrap(),
        assert: Guard::new("value < 0.3").unwrap(),
        stage: ripcord_core::Stage::Closed,
        within: Duration::from_secs(3),
        passes: 1,
        at_least: None,
        every: Duration::from_millis(100),
    };
    app.checks.insert(spec.id.clone(), spec);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_its_verification_is_an_incident_of_the_most_urgent_severity() {
    let stage = fine(|app| {
        checked(app);
        let row = &mut app.matrix.rows[0];
        row.issues.insert(VERIFICATION_FAILED.parse().unwrap());
        // Slow to breach: it is the verification that finds it.
        app.triggers.values_mut().for_each(|rule| rule.hold = Hold::For { at_least: Duration::from_secs(3600) });
    })
    .await;
    stage.errors.says(|universe, cx| {
        let bad = universe.with(|truth| truth.real[&Place::local(name("code"))].revision == "v3");
        Some(Reading::of(Sample::new(cx.now, if bad { 0.5 } else { 0.01 })))
    });
    let universe = stage.universe.clone();
    let done = deployed(&stage, "v3", async move {
        put_out(&universe, "v3");
        Ok(())
    })
    .await;
    assert!(matches!(done, Deployed::RolledBack { end: End::Succeeded, .. }), "{done:?}");
    let incident = &stage.incidents().await[0];
    assert_eq!(incident.severity, Severity(1), "the most urgent one configured");
    assert_eq!(incident.issue.as_ref().map(ToString::to_string).as_deref(), Some(VERIFICATION_FAILED));
}

#[tokio::test(start_paused = true)]
async fn an_incident_nobody_acts_on_ends_the_bake_with_a_call_for_a_person() {
    let stage = fine(|app| app.matrix.rows[0].ruling.call = Call::Evaluate).await;
    stage.errors.says(|universe, cx| {
        let bad = universe.with(|truth| truth.real[&Place::local(name("code"))].revision == "v3");
        Some(Reading::of(Sample::new(cx.now, if bad { 0.5 } else { 0.01 })))
    });
    let universe = stage.universe.clone();
    let done = deployed(&stage, "v3", async move {
        put_out(&universe, "v3");
        Ok(())
    })
    .await;
    assert!(matches!(done, Deployed::NeedsPerson { run: None, .. }), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deployed_over_a_run_that_is_not_over() {
    let stage = Stage::new(|_| {}).await;
    stage.universe.with(|truth| truth.refuses.insert("restore/flags".into()));
    stage.errors.says(bad_code);
    stage.until(parked).await;
    let done = deployed(&stage, "v3", async { panic!("the command must not run") }).await;
    assert!(matches!(done, Deployed::Refused { .. }), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_changed_by_hand_is_recorded_as_what_it_is() {
    let stage = fine(|_| {}).await;
    put_out(&stage.universe, "patched");
    let universe = stage.universe.clone();
    deployed(&stage, "v3", async move {
        put_out(&universe, "v3");
        Ok(())
    })
    .await;
    let ledger = stage.ledger().await;
    let versions: Vec<&str> = ledger.releases.iter().map(|release| release.version.as_str()).collect();
    assert_eq!(versions, ["good", "bad", "bad+changed", "v3"]);
    assert_eq!(ledger.releases[2].verdict, Verdict::Undecided);
    let code = &ledger.releases[2].map[&Place::local(name("code"))];
    assert_eq!(code.revision, Revision::exact("patched"));
}

#[tokio::test(start_paused = true)]
async fn the_first_deployment_ever_records_what_was_there_before() {
    let mut stage = Stage::empty(|_| {}).await;
    stage.universe.with(|truth| {
        for component in ["code", "flags", "web", "door"] {
            let real = crate::universe::Real { revision: "old".into(), torn: false, on: true, instance: 1 };
            truth.real.insert(Place::local(name(component)), real);
        }
    });
    stage.open().await;
    seconds(2).await;
    let universe = stage.universe.clone();
    let done = deployed(&stage, "v1", async move {
        put_out(&universe, "v1");
        Ok(())
    })
    .await;
    assert!(matches!(done, Deployed::Good { .. }), "{done:?}");
    let ledger = stage.ledger().await;
    assert_eq!(ledger.releases[0].version, "before-v1");
    assert!(ledger.releases[0].map[&Place::local(name("code"))].capture.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_deployment_cut_off_is_interrupted_at_the_next_start_and_never_a_target() {
    let mut stage = fine(|_| {}).await;
    let universe = stage.universe.clone();
    let (desk, board) = (stage.desk(), std::sync::Arc::clone(&stage.holding.as_ref().unwrap().board));
    let deploying = tokio::spawn(async move {
        let command = async move {
            put_out(&universe, "half");
            std::future::pending().await
        };
        deploy(&desk, &board, "v3", vec![], command).await
    });
    seconds(10).await;
    assert_eq!(stage.ledger().await.live().unwrap().standing, Standing::Deploying);
    let to = "another".to_owned();
    assert!(stage.refused(Ask::Yield { to }).await.contains("deployment"), "it is not dropped for another");
    stage.kill();
    assert!(deploying.await.unwrap().is_err());
    stage.open().await;
    seconds(2).await;
    let ledger = stage.ledger().await;
    let cut = ledger.releases.iter().find(|release| release.version == "v3").unwrap();
    assert_eq!(cut.standing, Standing::Interrupted);
    assert!(stage.pager.about(About::Released)[0].title.contains("cut off"));
    // What it left is not taken for it by the next deployment.
    let universe = stage.universe.clone();
    deployed(&stage, "v4", async move {
        put_out(&universe, "v4");
        Ok(())
    })
    .await;
    let ledger = stage.ledger().await;
    assert!(ledger.releases.iter().any(|release| release.version == "v3+changed"));
    assert!(ledger.releases.iter().find(|release| release.version == "v3").unwrap().map.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deployed_while_what_was_restored_is_watched() {
    let stage = Stage::new(|app| app.policy.watch = Duration::from_secs(300)).await;
    stage.errors.says(bad_code);
    let run = stage.until(crate::stage::watching).await;
    let done = deployed(&stage, "v3", async { panic!("the command must not run") }).await;
    assert!(matches!(&done, Deployed::Refused { why } if why.contains("abandon")), "{done:?}");
    stage.taken(Ask::Run { run: run.id, verb: Verb::Abandon { reason: "v3 mends it".into() } }).await;
    stage.until(ended).await;
    let done = deployed(&stage, "v3", async { Err("only to see".to_owned()) }).await;
    assert!(matches!(done, Deployed::CommandFailed { .. }), "{done:?}");
}

/// A deployment of v3 whose process is killed in the middle of its bake.
async fn killed_in_its_bake(configure: impl FnOnce(&mut Application)) -> Stage {
    let mut stage = fine(configure).await;
    let universe = stage.universe.clone();
    let (desk, board) = (stage.desk(), std::sync::Arc::clone(&stage.holding.as_ref().unwrap().board));
    let deploying = tokio::spawn(async move {
        let command = async move {
            put_out(&universe, "v3");
            Ok(())
        };
        deploy(&desk, &board, "v3", vec![], command).await
    });
    for _ in 0..600 {
        if bakes(&stage).await.len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    seconds(10).await;
    stage.kill();
    assert!(deploying.await.unwrap().is_err());
    stage
}

/// Until when v3 was to bake, each time somebody began.
async fn bakes(stage: &Stage) -> Vec<jiff::Timestamp> {
    let until = |event: Event| match event.body {
        Body::Baking { until, .. } => Some(until),
        _ => None,
    };
    stage.events().await.into_iter().filter_map(until).collect()
}

async fn verdict(stage: &Stage) -> Verdict {
    stage.ledger().await.typed("v3").unwrap().verdict.clone()
}

async fn until_judged(stage: &Stage) -> Verdict {
    for _ in 0..6000 {
        if verdict(stage).await != Verdict::Undecided {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    verdict(stage).await
}

#[tokio::test(start_paused = true)]
async fn a_bake_cut_off_is_given_a_whole_new_time_by_the_next_holder() {
    let mut stage = killed_in_its_bake(|_| {}).await;
    seconds(3600).await; // Nobody looks: this counts for nothing.
    stage.open().await;
    let taken_up = stage.world.clock.now();
    seconds(10).await;
    let baking = ripcord_engine::baking(&stage.world, &stage.ledger().await).await.unwrap();
    let Some(ripcord_engine::Baking::Since { until, .. }) = baking else { panic!("{baking:?}") };
    assert_eq!(bakes(&stage).await.len(), 2);
    let bake = stage.world.application.policy.bake;
    assert!(between(taken_up, until) >= bake, "{taken_up} to {until}");
    assert_eq!(verdict(&stage).await, Verdict::Undecided);
    let Verdict::Good { at, .. } = until_judged(&stage).await else { panic!() };
    assert!(between(taken_up, at) >= bake, "{taken_up} to {at}");
    assert_eq!(ripcord_engine::baking(&stage.world, &stage.ledger().await).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_leaves_at_once_takes_up_no_bake() {
    let mut stage = killed_in_its_bake(|_| {}).await;
    seconds(20).await;
    for _ in 0..20 {
        stage.open().await;
        seconds(2).await;
        stage.holding.take().unwrap().finish("its work is over").await;
    }
    assert_eq!((bakes(&stage).await.len(), verdict(&stage).await), (1, Verdict::Undecided));
}

#[tokio::test(start_paused = true)]
async fn a_bake_taken_up_without_data_ends_without_a_verdict_and_is_told_once() {
    let mut stage = killed_in_its_bake(|_| {}).await;
    stage.errors.says(|_, _| Some(Reading::Empty));
    stage.open().await;
    seconds(120).await;
    let told = |stage: &Stage| {
        let about = stage.pager.about(About::Released);
        about.iter().filter(|message| message.title.contains("nobody can call it good")).count()
    };
    assert_eq!((verdict(&stage).await, told(&stage)), (Verdict::Undecided, 1));
    stage.errors.value(0.01);
    stage.restart().await;
    seconds(120).await;
    assert_eq!(
        (verdict(&stage).await, told(&stage)),
        (Verdict::Undecided, 1),
        "it came to its end; a person is to say"
    );
    stage.taken(Ask::Mark { release: "v3".into(), good: true, why: "seen by hand".into() }).await;
    assert!(matches!(verdict(&stage).await, Verdict::Good { .. }));
}

#[tokio::test(start_paused = true)]
async fn what_breaches_in_a_bake_taken_up_is_taken_back() {
    let mut stage = killed_in_its_bake(|_| {}).await;
    stage.open().await;
    seconds(12).await;
    stage.errors.says(|universe, cx| {
        let bad = universe.with(|truth| truth.real[&Place::local(name("code"))].revision == "v3");
        Some(Reading::of(Sample::new(cx.now, if bad { 0.5 } else { 0.01 })))
    });
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert_eq!(stage.revision("code"), "good");
    seconds(120).await;
    assert!(matches!(verdict(&stage).await, Verdict::Bad { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_bake_in_which_something_was_reported_begins_anew_when_that_is_over() {
    let mut stage = killed_in_its_bake(|_| {}).await;
    stage.open().await;
    seconds(15).await;
    stage.taken(Ask::Declare { what: "it is slow".into(), severity: Some(Severity(2)), issue: None }).await;
    seconds(120).await;
    assert_eq!(verdict(&stage).await, Verdict::Undecided, "not while something is open about it");
    let incident = stage.incidents().await[0].id.clone();
    stage.taken(Ask::CloseIncident { incident, why: "it was the network".into() }).await;
    let closed = stage.world.clock.now();
    let Verdict::Good { at, .. } = until_judged(&stage).await else { panic!() };
    assert!(between(closed, at) >= stage.world.application.policy.bake);
}
