//! From a breach to a run, and what becomes of it.

use std::time::Duration;

use ripcord_core::*;

use crate::stage::{Stage, authority, bad_code, bad_flag, ended, parked, rung, seconds, trigger, watching};

fn answer(run: &Run, answer: Answer, reason: Option<&str>) -> Ask {
    Ask::Answer { run: run.id.clone(), plan: run.digest, answer, reason: reason.map(str::to_owned), consent: None }
}

#[tokio::test(start_paused = true)]
async fn a_breach_is_decided_on_climbed_helped_watched_closed_and_kept_out() {
    let stage = Stage::new(|_| {}).await;
    stage.errors.says(bad_code);
    let run = stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    seconds(2).await;
    let runs = stage.runs().await;
    assert_eq!(runs.len(), 2, "the toggle was insufficient, the restore followed: {runs:?}");
    assert_eq!(runs[0].state, RunState::Ended(End::Insufficient));
    assert!(run.automatic && matches!(run.helped, Some((Check::Pass { .. }, _))));
    assert_eq!((stage.revision("code").as_str(), stage.on("web"), stage.on("door")), ("good", true, true));
    let ledger = stage.ledger().await;
    assert_eq!(ledger.live().unwrap().version, "good");
    assert!(ledger.quarantined.contains_key("bad"));
    let incidents = stage.incidents().await;
    assert_eq!(incidents.len(), 1);
    assert!(incidents[0].closed.is_some());
    for about in [About::Incident, About::Started, About::Insufficient, About::Succeeded] {
        assert!(!stage.pager.about(about).is_empty(), "nobody was told {about:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_toggle_that_is_enough_is_where_it_stops() {
    let stage = Stage::new(|_| {}).await;
    stage.errors.says(bad_flag);
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    seconds(120).await;
    assert_eq!(stage.runs().await.len(), 1);
    assert_eq!(stage.revision("code"), "bad", "the code was left alone");
}

#[tokio::test(start_paused = true)]
async fn rf04_a_breach_of_an_hour_is_one_run_and_one_climb() {
    let stage = Stage::new(|app| {
        let ladder = vec![rung(2, Climb::Ask)];
        app.strategies.insert("standard".parse().unwrap(), ladder);
    })
    .await;
    stage.errors.value(0.5);
    seconds(3600).await;
    let runs = stage.runs().await;
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0].state, RunState::Ended(End::Insufficient));
    let incidents = stage.incidents().await;
    assert_eq!(incidents.len(), 1);
    assert!(incidents[0].closed.is_none(), "people look at it");
    let started = stage.pager.about(About::Started);
    assert_eq!(started.len(), 1, "announced once, before the first effect");
}

#[tokio::test(start_paused = true)]
async fn rf04_a_rollback_that_fails_is_told_and_not_tried_again_by_itself_even_after_a_restart() {
    let mut stage = Stage::new(|app| {
        app.strategies.insert("standard".parse().unwrap(), vec![rung(2, Climb::Automatic)]);
    })
    .await;
    stage.universe.with(|truth| truth.refuses.insert("restore/code".into()));
    stage.errors.value(0.5);
    let run = stage.until(parked).await;
    seconds(60).await;
    assert_eq!(stage.pager.about(About::Parked).len(), 1);
    stage.restart().await;
    seconds(60).await;
    stage.taken(Ask::Run { run: run.id, verb: Verb::Abandon { reason: "by hand".into() } }).await;
    seconds(5).await;
    stage.errors.value(0.01);
    seconds(60).await;
    stage.errors.value(0.5);
    seconds(120).await;
    stage.restart().await;
    seconds(120).await;
    assert_eq!(stage.runs().await.len(), 1, "one automatic attempt (B10)");
    assert_eq!(stage.pager.about(About::Ended).len(), 1, "that it was abandoned was told");
}

#[tokio::test(start_paused = true)]
async fn rf04_two_holders_at_once_are_one_run() {
    let mut first = Stage::new(|_| {}).await;
    first.errors.says(bad_code);
    let other = ripcord_engine::Holding::begin(
        ripcord_engine::World {
            holder: Holder { incarnation: "other".into(), ..first.world.holder.clone() },
            ..first.world.clone()
        },
        crate::stage::TTL,
    )
    .await;
    assert!(matches!(other.map(drop), Err(ripcord_engine::TakeError::Acquire(AcquireError::Held { .. }))));
    first.until(|state| *state == RunState::Running).await;
    first.restart().await;
    first.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    let levels: Vec<RunState> = first.runs().await.into_iter().map(|row| row.state).collect();
    assert_eq!(levels, [RunState::Ended(End::Insufficient), RunState::Ended(End::Succeeded)]);
    assert!(first.universe.with(|truth| truth.violations.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn monitoring_that_is_out_pages_and_never_rolls_back() {
    for outage in [Some(Reading::Empty), Some(Reading::Failed { why: "502".into() }), None] {
        let stage = Stage::new(|_| {}).await;
        seconds(10).await;
        stage.errors.says(move |_, _| outage.clone());
        seconds(300).await;
        assert_eq!(stage.runs().await.len(), 0);
        assert_eq!(stage.incidents().await.len(), 0);
        assert_eq!(stage.pager.about(About::Blind).len(), 1, "told once for one gap");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_after_a_breach_does_not_help_and_does_not_climb() {
    let stage = Stage::new(|_| {}).await;
    stage.errors.value(0.5);
    stage.until(|state| *state == RunState::Running).await;
    stage.errors.says(|_, _| Some(Reading::Failed { why: "the observer is down".into() }));
    let run = stage.until(parked).await;
    assert!(matches!(run.state, RunState::Parked(ParkedWhy::Inconclusive { step: None, .. })), "{:?}", run.state);
    assert_eq!(run.plan.rung.level, 1);
    seconds(2).await;
    assert_eq!(stage.pager.about(About::Parked).len(), 1);
    // The data is back and good: whoever tries again is given the whole time to see it.
    stage.errors.value(0.01);
    stage.taken(Ask::Run { run: run.id, verb: Verb::Retry { step: None } }).await;
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
}

#[tokio::test(start_paused = true)]
async fn b6_waiting_for_an_answer_disarms_nothing_and_silence_approves_nothing() {
    let stage = Stage::new(|app| {
        app.severities.get_mut(&Severity(1)).unwrap().authority = authority(false);
        let mut slow = trigger("more-errors");
        slow.condition = Condition::Above(0.7);
        app.triggers.insert(slow.id.clone(), slow);
    })
    .await;
    stage.errors.value(0.5);
    let run = stage.until(|state| *state == RunState::Waiting).await;
    seconds(600).await;
    assert_eq!(stage.last().await.state, RunState::Waiting, "silence is no yes");
    let asked = stage.pager.about(About::ApprovalNeeded);
    assert!((4..=11).contains(&asked.len()), "asked again, and not without end: {}", asked.len());
    assert!(asked.iter().all(|message| message.plan == Some(run.digest)));
    stage.errors.value(0.9);
    seconds(30).await;
    assert_eq!(stage.incidents().await[0].triggers.len(), 2, "the other breach has joined meanwhile");
    stage.taken(answer(&run, Answer::Decline, None)).await;
    seconds(5).await;
    assert_eq!(stage.last().await.state, RunState::Ended(End::Declined));
    assert_eq!(stage.pager.about(About::Ended).len(), 1, "that it was declined is told (B13)");
}

#[tokio::test(start_paused = true)]
async fn what_recovers_by_itself_is_said_and_not_approved_blindly() {
    let stage = Stage::new(|app| app.severities.get_mut(&Severity(1)).unwrap().authority = authority(false)).await;
    stage.errors.value(0.5);
    let run = stage.until(|state| *state == RunState::Waiting).await;
    stage.errors.value(0.01);
    seconds(30).await;
    let said = stage.pager.about(About::Incident);
    assert!(said.iter().any(|message| message.title.contains("recovered by itself")), "{said:?}");
    let why = stage.refused(answer(&run, Answer::Approve, None)).await;
    assert!(why.contains("recovered"), "{why}");
    stage.taken(answer(&run, Answer::Approve, Some("it comes and goes"))).await;
    stage.until(ended).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_another_plan_or_to_what_is_over_is_refused() {
    let stage = Stage::new(|app| app.severities.get_mut(&Severity(1)).unwrap().authority = authority(false)).await;
    stage.errors.says(bad_code);
    let run = stage.until(|state| *state == RunState::Waiting).await;
    let mut wrong = run.clone();
    wrong.digest = Digest::of(b"another");
    assert!(stage.refused(answer(&wrong, Answer::Approve, None)).await.contains("is plan"));
    let consent = Consent { plan: wrong.digest, loss: Loss::none(), at: stage.world.clock.now() };
    let other = Ask::Answer {
        run: run.id.clone(),
        plan: run.digest,
        answer: Answer::Approve,
        reason: None,
        consent: Some(consent),
    };
    assert!(stage.refused(other).await.contains("another plan"));
    // Somebody changes the world: what was shown is no longer what would be done.
    let flags = Place::local(crate::universe::name("flags"));
    stage.universe.with(|truth| truth.real.get_mut(&flags).unwrap().torn = true);
    stage.taken(answer(&run, Answer::Decline, Some("no"))).await;
    assert!(stage.refused(answer(&run, Answer::Approve, None)).await.contains("does not wait"));
}

#[tokio::test(start_paused = true)]
async fn a_level_that_may_not_climb_by_itself_asks_for_the_next() {
    let stage = Stage::new(|app| {
        app.strategies.insert("standard".parse().unwrap(), vec![rung(1, Climb::Ask), rung(2, Climb::Ask)]);
    })
    .await;
    stage.errors.says(bad_code);
    let run = stage.until(|state| *state == RunState::Waiting).await;
    assert_eq!((run.plan.rung.level, run.automatic), (2, false));
    stage.taken(answer(&run, Answer::Approve, None)).await;
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
}

#[tokio::test(start_paused = true)]
async fn a_level_with_nothing_to_do_is_passed_over() {
    let stage = Stage::new(|app| {
        let mut nothing = rung(2, Climb::Automatic);
        nothing.level = 1;
        nothing.means = Means::Restore { scope: [crate::universe::name("web")].into() };
        app.strategies.insert("standard".parse().unwrap(), vec![nothing, rung(2, Climb::Ask)]);
        // The lowest level names only what has no revision, so there is nothing to restore.
    })
    .await;
    stage.errors.says(bad_code);
    let run = stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert_eq!((run.plan.rung.level, stage.runs().await.len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_level_that_would_leave_the_release_half_way_is_passed_over() {
    for (climb, state, automatic) in
        [(Climb::Automatic, RunState::Ended(End::Succeeded), true), (Climb::Ask, RunState::Waiting, false)]
    {
        let stage = Stage::new(move |app| {
            let mut short = rung(2, climb);
            short.level = 1;
            short.means = Means::Restore { scope: [crate::universe::name("flags")].into() };
            app.strategies.insert("standard".parse().unwrap(), vec![short, rung(2, Climb::Ask)]);
        })
        .await;
        stage.errors.says(bad_code);
        let run = stage.until(|now| *now == state).await;
        assert_eq!((run.plan.rung.level, run.automatic, stage.runs().await.len()), (2, automatic, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn when_no_level_is_left_people_are_called_and_not_again_at_every_start() {
    let mut stage = Stage::new(|app| {
        app.strategies.insert("standard".parse().unwrap(), vec![rung(1, Climb::Automatic)]);
    })
    .await;
    stage.errors.value(0.5);
    stage.until(|state| *state == RunState::Ended(End::Insufficient)).await;
    seconds(10).await;
    let called = |stage: &Stage| {
        let told = stage.pager.about(About::Incident);
        told.iter().filter(|message| message.body.contains("may not be the release")).count()
    };
    assert_eq!(called(&stage), 1);
    for _ in 0..3 {
        stage.restart().await;
        seconds(30).await;
    }
    assert_eq!(called(&stage), 1);
    assert_eq!(stage.runs().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_dies_between_two_levels_is_followed_by_one_that_climbs() {
    let mut stage = Stage::new(|_| {}).await;
    stage.errors.value(0.5);
    stage.until(|state| *state == RunState::Ended(End::Insufficient)).await;
    stage.rewind(|body| *body == Body::Ended { end: End::Insufficient }).await;
    assert_eq!(stage.runs().await.len(), 1);
    let code = Place::local(crate::universe::name("code"));
    stage.universe.with(|truth| truth.real.get_mut(&code).unwrap().revision = "bad".into());
    stage.errors.says(bad_code);
    stage.open().await;
    let run = stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert_eq!((run.plan.rung.level, run.automatic, stage.runs().await.len()), (2, true, 2));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_dies_right_after_a_breach_is_followed_by_one_that_hears_it() {
    let mut stage = Stage::new(|app| app.severities.get_mut(&Severity(1)).unwrap().authority = authority(false)).await;
    stage.errors.says(bad_code);
    stage.until(|state| *state == RunState::Waiting).await;
    stage.rewind(|body| matches!(body, Body::Changed { state: TriggerState::Breached { .. }, .. })).await;
    assert_eq!(stage.incidents().await.len(), 0, "nobody had heard of it yet");
    stage.open().await;
    stage.until(|state| *state == RunState::Waiting).await;
    assert_eq!(stage.incidents().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_relapse_during_the_watch_is_no_success() {
    let stage = Stage::new(|app| {
        app.strategies.insert("standard".parse().unwrap(), vec![rung(2, Climb::Ask)]);
        let rule = app.triggers.values_mut().next().unwrap();
        // Slow to clear: it is still recovering, with the onset it had, when it breaks again.
        rule.clear = Some(Clear { at: 0.05, at_least: Duration::from_secs(25) });
    })
    .await;
    stage.errors.says(bad_code);
    stage.until(watching).await;
    stage.errors.value(0.5);
    let run = stage.until(ended).await;
    assert_eq!(run.state, RunState::Ended(End::Insufficient));
    assert!(stage.incidents().await[0].closed.is_none());
}

#[tokio::test(start_paused = true)]
async fn another_breach_during_the_watch_is_no_success_either() {
    let stage = Stage::new(|app| {
        app.strategies.insert("standard".parse().unwrap(), vec![rung(2, Climb::Ask)]);
        let mut other = trigger("few");
        other.condition = Condition::Below(0.001);
        app.triggers.insert(other.id.clone(), other);
    })
    .await;
    stage.errors.says(bad_code);
    stage.until(watching).await;
    stage.errors.value(0.0);
    assert_eq!(stage.until(ended).await.state, RunState::Ended(End::Insufficient));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_goes_dark_is_no_success_and_no_failure() {
    let stage = Stage::new(|_| {}).await;
    stage.errors.says(bad_code);
    stage.until(watching).await;
    stage.errors.says(|_, _| Some(Reading::Empty));
    let run = stage.until(|state| parked(state) || ended(state)).await;
    assert!(matches!(run.state, RunState::Parked(ParkedWhy::Inconclusive { .. })), "{:?}", run.state);
    assert!(stage.incidents().await[0].closed.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_taken_over_late_looks_before_it_is_over() {
    let mut stage = Stage::new(|_| {}).await;
    stage.errors.says(bad_code);
    stage.until(watching).await;
    stage.kill();
    seconds(300).await; // The window passes with nobody watching, and it goes bad meanwhile.
    stage.errors.value(0.5);
    stage.open().await;
    let run = stage.until(|state| ended(state) || parked(state)).await;
    assert_ne!(run.state, RunState::Ended(End::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn an_hour_forward_or_back_on_the_clock_neither_helps_nor_hinders() {
    use std::sync::atomic::Ordering;
    for step in [3_600_000, -3_600_000] {
        let stage = Stage::new(|app| {
            app.strategies.insert("standard".parse().unwrap(), vec![rung(2, Climb::Ask)]);
        })
        .await;
        stage.errors.says(bad_code);
        stage.until(|state| *state == RunState::Running).await;
        let ripcord_engine::Clock::Simulated { stepped_ms, .. } = &stage.world.clock else { panic!() };
        stepped_ms.store(step, Ordering::SeqCst);
        let began = tokio::time::Instant::now();
        let run = stage.until(|state| ended(state) || parked(state)).await;
        assert_eq!(run.state, RunState::Ended(End::Succeeded), "a step of {step} ms");
        assert!(began.elapsed() >= Duration::from_secs(30), "the watch was {:?} long", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(600), "it took {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_gives_data_up_is_asked_for_and_where_it_did_not_help_nothing_climbs() {
    let stage = Stage::new(|app| {
        app.strategies.insert("standard".parse().unwrap(), vec![rung(3, Climb::Automatic), rung(4, Climb::Automatic)]);
    })
    .await;
    stage.errors.value(0.5);
    let run = stage.until(|state| *state == RunState::Waiting).await;
    assert!(!run.automatic && run.plan.gives_up(), "no automatic run gives data up");
    let why = stage.refused(answer(&run, Answer::Approve, None)).await;
    assert!(why.contains("nobody has consented"), "{why}");
    let consent = Some(Consent { plan: run.digest, loss: run.plan.loss_at_most.clone(), at: stage.world.clock.now() });
    let (id, plan) = (run.id.clone(), run.digest);
    stage.taken(Ask::Answer { run: id, plan, answer: Answer::Approve, reason: None, consent }).await;
    let run = stage.until(parked).await;
    assert!(matches!(run.state, RunState::Parked(ParkedWhy::Insufficient { .. })), "{:?}", run.state);
    seconds(60).await;
    assert_eq!(stage.runs().await.len(), 1, "people go on from here");
}

/// Two recorded releases, the older one good, with captures that were read back and no more; the younger one is bad.
async fn with_captures(asked: ProofLevel) -> Stage {
    let stage = Stage::new(|app| {
        app.policy.automatic_proof = asked;
        app.strategies.insert("standard".parse().unwrap(), vec![rung(2, Climb::Ask)]);
    })
    .await;
    stage.taken(Ask::Record { version: "v3".into() }).await;
    stage.taken(Ask::Mark { release: "v3".into(), good: true, why: "it is fine".into() }).await;
    let code = Place::local(crate::universe::name("code"));
    stage.universe.with(|truth| truth.real.get_mut(&code).unwrap().revision = "v4".into());
    stage.taken(Ask::Record { version: "v4".into() }).await;
    stage
}

/// What is bad as long as code is at v4.
fn since_v4(universe: &crate::universe::Universe, cx: &Cx) -> Option<Reading> {
    let code = Place::local(crate::universe::name("code"));
    let bad = universe.with(|truth| truth.real[&code].revision == "v4");
    Some(Reading::of(Sample::new(cx.now, if bad { 0.5 } else { 0.01 })))
}

#[tokio::test(start_paused = true)]
async fn what_is_not_proven_far_enough_is_asked_for_and_not_begun_by_itself() {
    let stage = with_captures(ProofLevel::Restored).await;
    stage.errors.says(since_v4);
    let run = stage.until(|state| *state == RunState::Waiting).await;
    assert!(!run.automatic);
    seconds(2).await;
    assert_eq!(stage.pager.about(About::ApprovalNeeded).len(), 1, "a person is called instead");
    assert_eq!(stage.revision("code"), "v4");
    stage.taken(answer(&run, Answer::Approve, None)).await;
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert_eq!(stage.revision("code"), "bad", "what code was when v3 was recorded");
}

#[tokio::test(start_paused = true)]
async fn what_is_proven_as_far_as_asked_needs_nobody() {
    let stage = with_captures(ProofLevel::Restored).await;
    for row in stage.store.captures(stage.world.app()).await.unwrap() {
        stage.taken(Ask::Proven { capture: row.id, level: ProofLevel::Restored }).await;
    }
    stage.errors.says(since_v4);
    let run = stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert!(run.automatic);
    let stage = with_captures(ProofLevel::ReadBack).await;
    stage.errors.says(since_v4);
    let run = stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert!(run.automatic);
}

#[tokio::test(start_paused = true)]
async fn two_approvers_are_two_people() {
    let stage = Stage::new(|app| {
        app.severities.get_mut(&Severity(1)).unwrap().authority = Authority { quorum: 2, ..authority(false) };
        app.strategies.insert("standard".parse().unwrap(), vec![rung(2, Climb::Ask)]);
    })
    .await;
    stage.errors.says(bad_code);
    let run = stage.until(|state| *state == RunState::Waiting).await;
    let yes = answer(&run, Answer::Approve, None);
    for _ in 0..2 {
        let id = stage.leave("anna", &yes).await;
        let reply = stage.reply(id).await;
        assert!(matches!(&reply, Reply::Taken { said, .. } if said.contains("1 of 2")), "{reply:?}");
        seconds(30).await;
        assert_eq!(stage.last().await.state, RunState::Waiting, "one person counts once");
    }
    assert_eq!(stage.revision("code"), "bad");
    let id = stage.leave("bert", &yes).await;
    let reply = stage.reply(id).await;
    assert!(matches!(&reply, Reply::Taken { said, .. } if said.contains("is approved")), "{reply:?}");
    let run = stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert_eq!(run.approvals.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_reported_raises_the_incident_also_for_the_next_holder() {
    let mut stage = Stage::new(|app| {
        app.matrix.rows[0].issues = [Name::new("wrong-prices").unwrap()].into();
        app.triggers.values_mut().for_each(|rule| rule.severity = Severity(2));
    })
    .await;
    stage.errors.says(bad_code);
    seconds(20).await;
    assert_eq!(stage.incidents().await[0].severity, Severity(2));
    let issue = Name::new("wrong-prices").ok();
    stage.taken(Ask::Declare { what: "prices are wrong".into(), severity: Some(Severity(1)), issue }).await;
    assert_eq!(stage.incidents().await[0].severity, Severity(1));
    stage.until(ended).await;
    // As if the holder had died before it decided.
    stage.rewind(|body| matches!(body, Body::Reported { .. })).await;
    assert_eq!((stage.incidents().await[0].severity, stage.runs().await.len()), (Severity(1), 0));
    stage.universe.with(|truth| truth.real.values_mut().for_each(|real| real.revision = "bad".into()));
    stage.open().await;
    stage.taken(Ask::Declare { what: "still".into(), severity: Some(Severity(2)), issue: None }).await;
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    assert_eq!(stage.incidents().await[0].severity, Severity(1), "a milder report lowers nothing");
}
