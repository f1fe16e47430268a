//! What people ask for while a run is under way, and what is refused.

use std::time::Duration;

use ripcord_core::*;

use crate::stage::{Stage, bad_code, ended, parked, rung, seconds};
use crate::universe::name;

fn of(run: &Run, verb: Verb) -> Ask {
    Ask::Run { run: run.id.clone(), verb }
}

async fn parked_at(step: &str) -> (Stage, Run) {
    let stage = Stage::new(|_| {}).await;
    stage.universe.with(|truth| truth.refuses.insert(step.to_owned()));
    stage.taken(stage.rollback(2).await).await;
    let run = stage.until(parked).await;
    (stage, run)
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_paused_begins_nothing_until_it_is_resumed() {
    let stage = Stage::new(|_| {}).await;
    stage.universe.with(|truth| {
        truth.takes.insert("stop/web".into(), Duration::from_secs(3));
    });
    stage.taken(stage.rollback(2).await).await;
    let run = stage.until(|state| *state == RunState::Running).await;
    seconds(2).await;
    stage.taken(of(&run, Verb::Pause)).await;
    seconds(5).await;
    let applied = stage.universe.with(|truth| truth.applied);
    seconds(60).await;
    assert_eq!(stage.universe.with(|truth| truth.applied), applied, "nothing was begun");
    assert_eq!(stage.last().await.state, RunState::Running);
    stage.taken(of(&run, Verb::Resume)).await;
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
}

#[tokio::test(start_paused = true)]
async fn a_step_is_retried_done_or_skipped_at_a_persons_word() {
    let (stage, run) = parked_at("restore/code").await;
    stage.taken(of(&run, Verb::Retry { step: None })).await;
    seconds(5).await;
    assert!(parked(&stage.last().await.state), "it still refuses");
    // By hand, and said to be done: what the place is at the end is looked at all the same.
    let step = StepId("restore/code".into());
    stage.taken(of(&run, Verb::Done { step: step.clone(), evidence: "copied by hand".into() })).await;
    let run = stage.until(parked).await;
    assert!(matches!(&run.state, RunState::Parked(ParkedWhy::HalfWay { what }) if what[0].contains("should be at")));
    stage.universe.with(|truth| {
        truth.real.get_mut(&Place::local(name("code"))).unwrap().revision = "good".into();
    });
    stage.taken(of(&run, Verb::Retry { step: None })).await;
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert!(stage.on("web") && stage.on("door"));
}

#[tokio::test(start_paused = true)]
async fn what_is_skipped_stays_on_the_list() {
    let (stage, run) = parked_at("start/web").await;
    let step = StepId("start/web".into());
    stage.taken(of(&run, Verb::Skip { step, reason: "started elsewhere".into() })).await;
    let run = stage.until(ended).await;
    let open: Vec<String> = run.open_obligations().map(|open| open.owed.clone()).collect();
    assert_eq!(open, ["start `web`"]);
    seconds(700).await;
    let told = stage.pager.about(About::Obligation);
    assert!(told.len() >= 2, "told again until somebody takes it over");
    let id = run.open_obligations().next().unwrap().id.clone();
    stage.taken(of(&run, Verb::Take { obligation: id, reason: "mine".into() })).await;
    let told = stage.pager.about(About::Obligation).len();
    seconds(900).await;
    assert_eq!(stage.pager.about(About::Obligation).len(), told);
    let none = Verb::Take { obligation: ObligationId::typed("obl-0"), reason: "?".into() };
    assert!(stage.refused(of(&run, none)).await.contains("no obligation"));
}

#[tokio::test(start_paused = true)]
async fn a_verb_that_cannot_follow_is_refused_and_harms_nobody() {
    let (stage, run) = parked_at("restore/code").await;
    let skip = |step: &str| Verb::Skip { step: StepId(step.into()), reason: "?".into() };
    assert!(stage.refused(of(&run, skip("nonsense"))).await.contains("no step"));
    assert!(stage.refused(of(&run, skip("capture/code"))).await.contains("capture/code"));
    let close = Ask::CloseIncident { incident: IncidentId::typed("inc-99"), why: "?".into() };
    assert!(stage.refused(close).await.contains("no incident"));
    let undo = Ask::Undo { run: RunId::typed("run-99"), approve: None };
    stage.taken(of(&run, Verb::Abandon { reason: "enough".into() })).await;
    assert!(stage.refused(undo).await.contains("run-99"));
    assert!(stage.refused(of(&run, Verb::Pause)).await.contains("has ended"));
    assert!(stage.refused(Ask::Lift { version: "v9".into(), why: "?".into() }).await.contains("not quarantined"));
    let capture = CaptureId::typed("cap-99");
    assert!(stage.refused(Ask::Spoiled { capture, why: "?".into() }).await.contains("no capture"));
    let mark = Ask::Mark { release: "v9".into(), good: true, why: "?".into() };
    assert!(stage.refused(mark).await.contains("no recorded release"));
    assert!(stage.desk().is_running(), "a request that makes no sense stops nobody");
}

#[tokio::test(start_paused = true)]
async fn b10_abandoning_in_the_middle_begins_nothing_more() {
    let stage = Stage::new(|_| {}).await;
    stage.universe.with(|truth| {
        truth.takes.insert("stop/web".into(), Duration::from_secs(4));
    });
    stage.taken(stage.rollback(2).await).await;
    let run = stage.until(|state| *state == RunState::Running).await;
    seconds(2).await;
    stage.taken(of(&run, Verb::Abandon { reason: "wrong shop".into() })).await;
    seconds(30).await;
    assert_eq!(stage.revision("code"), "bad", "nothing was begun after it");
    let run = stage.last().await;
    let RunState::Ended(End::Abandoned { .. }) = &run.state else { panic!("{:?}", run.state) };
    let places: Vec<String> = run.open_obligations().map(|open| open.place.to_string()).collect();
    assert_eq!(places, ["door", "web"], "what was switched off is on the list");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_in_the_place_of_a_parked_one_takes_over_what_is_off() {
    let (stage, old) = parked_at("restore/code").await;
    assert!(!stage.on("web") && !stage.on("door"));
    stage.universe.with(|truth| truth.refuses.clear());
    stage.taken(stage.rollback(2).await).await;
    let run = stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert_ne!(run.id, old.id);
    assert!(stage.on("web"), "what the old run stopped is started");
    assert!(stage.on("door"), "and the door it closed is opened");
    let old = stage.loaded(&old.id).await;
    assert_eq!(old.state, RunState::Ended(End::Superseded));
    assert_eq!(old.open_obligations().count(), 0, "the new run owed it, and paid");
    assert_eq!(run.open_obligations().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_an_abandoned_run_left_off_is_owed_by_the_next_until_it_is_on() {
    let (stage, old) = parked_at("restore/code").await;
    stage.taken(of(&old, Verb::Abandon { reason: "later".into() })).await;
    stage.taken(stage.rollback(2).await).await; // Fails at the same step.
    let run = stage.until(parked).await;
    assert_ne!(run.id, old.id);
    let owed: Vec<String> = run.open_obligations().map(|open| open.owed.clone()).collect();
    assert_eq!(owed, ["start `web`", "resume traffic at `door`"]);
    assert_eq!(stage.loaded(&old.id).await.open_obligations().count(), 0, "on one list, not on two");
}

#[tokio::test(start_paused = true)]
async fn a_run_is_undone_from_what_it_captured() {
    for level in [1, 2] {
        let stage = Stage::new(|_| {}).await;
        stage.taken(stage.rollback(level).await).await;
        let run = stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
        assert_ne!(stage.revision("flags"), "bad");
        let wanted = ripcord_engine::Wanted::Undo { of: run.id.clone() };
        let plan = ripcord_engine::propose(&stage.world, &wanted).await.unwrap().priced.plan;
        let approve = Some(Approval { plan: Box::new(plan), consent: None });
        let undo = stage.taken(Ask::Undo { run: run.id, approve }).await.unwrap();
        let run = stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
        assert_eq!(run.id, undo);
        assert_eq!(
            (stage.revision("flags").as_str(), stage.revision("code").as_str()),
            ("bad", "bad"),
            "level {level}"
        );
        assert!(stage.on("web") && stage.on("door"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_does_not_climb_again() {
    let stage = Stage::new(|app| {
        app.strategies.insert("standard".parse().unwrap(), vec![rung(1, Climb::Automatic), rung(2, Climb::Automatic)]);
        app.policy.watch = Duration::from_secs(300);
    })
    .await;
    stage.errors.says(crate::stage::bad_flag);
    let run = stage.until(crate::stage::watching).await;
    stage.taken(of(&run, Verb::Abandon { reason: "the flag is needed".into() })).await;
    let wanted = ripcord_engine::Wanted::Undo { of: run.id.clone() };
    let plan = ripcord_engine::propose(&stage.world, &wanted).await.unwrap().priced.plan;
    let approve = Some(Approval { plan: Box::new(plan), consent: None });
    stage.taken(Ask::Undo { run: run.id, approve }).await;
    stage.until(ended).await;
    seconds(300).await;
    let runs = stage.runs().await;
    assert_eq!(runs.len(), 2, "a person put it back, and it stays there: {runs:?}");
    assert!(stage.incidents().await[0].closed.is_none(), "an undo cures nothing");
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_let_go_of_unless_something_is_running() {
    let mut stage = Stage::new(|_| {}).await;
    stage.taken(stage.rollback(2).await).await;
    stage.until(|state| *state == RunState::Running).await;
    assert!(stage.refused(Ask::Yield { to: "a deployment".into() }).await.contains("is running"));
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    stage.taken(Ask::Yield { to: "a deployment".into() }).await;
    let why = stage.holding.as_mut().unwrap().ended().await;
    assert!(matches!(why, ripcord_engine::Stop::Asked { .. }), "{why:?}");
}

#[tokio::test(start_paused = true)]
async fn a_report_joins_the_open_incident_and_counts_in_what_is_decided() {
    let stage = Stage::new(|app| app.matrix.rows[0].issues = [Name::new("wrong-prices").unwrap()].into()).await;
    stage.errors.says(bad_code);
    seconds(20).await;
    assert_eq!((stage.incidents().await.len(), stage.runs().await.len()), (1, 0), "the matrix only evaluates errors");
    let issue = Name::new("wrong-prices").ok();
    stage.taken(Ask::Declare { what: "prices are wrong".into(), severity: Some(Severity(1)), issue }).await;
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert_eq!(stage.incidents().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_took_up_in_time_begins_nothing_hours_later() {
    let mut stage = Stage::new(|_| {}).await;
    let rollback = stage.rollback(2).await;
    stage.kill();
    let late = stage.leave("op", &rollback).await;
    let record = stage.leave("op", &Ask::Record { version: "v9".into() }).await;
    let lease = stage.leave("op", &Ask::Yield { to: "a deployment".into() }).await;
    seconds(16 * 60).await;
    let timely = stage.leave("op", &Ask::Note { text: "look at the queue".into() }).await;
    stage.open().await;
    for (id, what) in [(late, "for a rollback"), (record, "recorded as v9"), (lease, "the lease for a deployment")] {
        let reply = stage.reply(id).await;
        let Reply::Refused { why, advice: Some(advice) } = &reply else { panic!("{reply:?}") };
        assert!(why.contains(what) && why.contains("nobody took it up") && advice.contains("ask again"), "{reply:?}");
        let noted =
            |event: &Event| matches!(&event.body, Body::Noted { by: Actor::Policy, text } if text.contains(what));
        assert!(stage.events().await.iter().any(noted), "that it was asked is on the record: {what}");
    }
    assert!(matches!(stage.reply(timely).await, Reply::Taken { .. }));
    assert_eq!(stage.runs().await.len(), 0);
    assert!(stage.desk().is_running(), "the lease is nobody's to let go of any more");
}

#[tokio::test(start_paused = true)]
async fn what_was_left_a_moment_ago_is_taken_up_by_the_next_holder() {
    let mut stage = Stage::new(|_| {}).await;
    let rollback = stage.rollback(2).await;
    stage.kill();
    let id = stage.leave("op", &rollback).await;
    seconds(5 * 60).await;
    stage.open().await;
    assert!(matches!(stage.reply(id).await, Reply::Taken { run: Some(_), .. }));
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_and_an_answer_that_names_its_plan_hold_however_late_they_are_heard() {
    let mut stage = Stage::new(|app| {
        app.severities.get_mut(&Severity(1)).unwrap().authority = crate::stage::authority(false);
        app.strategies.insert("standard".parse().unwrap(), vec![rung(2, Climb::Ask)]);
    })
    .await;
    stage.errors.says(bad_code);
    let run = stage.until(|state| *state == RunState::Waiting).await;
    stage.kill();
    let answer = Answer::Approve;
    let yes = Ask::Answer { run: run.id.clone(), plan: run.digest, answer, reason: None, consent: None };
    let yes = stage.leave("op", &yes).await;
    let what = "customers call".to_owned();
    let report = stage.leave("op", &Ask::Declare { what, severity: Some(Severity(1)), issue: None }).await;
    seconds(3600).await;
    stage.open().await;
    assert!(matches!(stage.reply(yes).await, Reply::Taken { .. }));
    assert!(matches!(stage.reply(report).await, Reply::Taken { .. }));
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_is_taken_back_by_its_maker_before_anybody_takes_it_up() {
    let mut stage = Stage::new(|_| {}).await;
    let rollback = stage.rollback(2).await;
    stage.kill();
    let id = stage.leave("op", &rollback).await;
    let back = stage.leave("op", &Ask::Withdraw { request: id }).await;
    stage.open().await;
    assert!(matches!(stage.reply(back).await, Reply::Taken { .. }));
    assert!(matches!(stage.reply(id).await, Reply::Refused { why, .. } if why.contains("taken it back")));
    seconds(60).await;
    assert_eq!(stage.runs().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_taken_back_by_another_nor_when_it_was_taken_up() {
    let mut stage = Stage::new(|_| {}).await;
    let rollback = stage.rollback(2).await;
    stage.kill();
    let id = stage.leave("op", &rollback).await;
    let others = stage.leave("eve", &Ask::Withdraw { request: id }).await;
    stage.open().await;
    assert!(matches!(stage.reply(id).await, Reply::Taken { run: Some(_), .. }));
    assert!(matches!(stage.reply(others).await, Reply::Refused { .. }));
    assert!(stage.refused(Ask::Withdraw { request: id }).await.contains("was taken up"));
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
}

#[tokio::test(start_paused = true)]
async fn a_step_skipped_in_the_middle_harms_nobody_when_it_ends() {
    let stage = Stage::new(|_| {}).await;
    stage.universe.with(|truth| {
        truth.takes.insert("stop/web".into(), Duration::from_secs(4));
    });
    stage.taken(stage.rollback(2).await).await;
    for _ in 0..100 {
        let run = stage.last().await;
        if matches!(run.steps.get(&StepId("stop/web".into())), Some(StepState::InDoubt { .. })) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let run = stage.last().await;
    let step = StepId("stop/web".into());
    stage.taken(of(&run, Verb::Skip { step, reason: "it is not needed".into() })).await;
    stage.until(ended).await;
    assert!(stage.desk().is_running());
    let events = stage.events().await;
    let said =
        |event: &Event| matches!(&event.body, Body::Noted { text, .. } if text.contains("was done all the same"));
    assert!(events.iter().any(said), "what came of it is on the record");
}
