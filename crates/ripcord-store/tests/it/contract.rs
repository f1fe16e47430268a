//! What every store keeps, run against both.

use std::time::Duration;

use ripcord_core::*;

use crate::sample::*;

macro_rules! contract {
    ($($name:ident)*) => {
        mod on_disk {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::sample::World::on_disk(ripcord_core::Redactor::default())).await;
            })*
        }
        mod in_memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::sample::World::in_memory(ripcord_core::Redactor::default())).await;
            })*
        }
    };
}

contract! {
    an_event_is_numbered_and_chained
    a_journal_is_read_in_pages
    a_lost_answer_can_be_asked_for_again
    a_writer_that_is_behind_is_told_where_the_journal_ends
    a_batch_is_written_whole_or_not_at_all
    an_identity_is_used_once
    a_paused_holder_cannot_write_after_another_took_over
    a_lapse_that_was_seen_stays
    a_lapse_nobody_noticed_is_renewed
    a_step_back_of_the_clock_keeps_nobody_out
    a_lease_let_go_of_is_free_at_once
    leases_on_different_things_are_apart
    releases_are_listed_as_they_now_are
    a_quarantine_holds_in_every_environment
    incidents_gather_what_joins_them
    captures_are_known_by_what_became_of_them
    a_run_is_listed_as_its_events_say
    what_cannot_follow_is_not_recorded
    a_run_needs_its_plan_in_the_store
    rf04_a_release_and_an_incident_have_one_automatic_attempt
    a_proposal_that_was_never_begun_uses_up_no_attempt
    requests_wait_for_their_reply
    what_is_reported_raises_an_incident_and_lowers_none
    messages_wait_until_delivered
    memories_are_kept
    blobs_are_found_by_digest
}

async fn an_event_is_numbered_and_chained(world: World) {
    let lease = world.lease("a").await;
    let first = world.append(&lease, &batch([note("one"), note("two")])).await.unwrap();
    let second = world.append(&lease, &batch([note("three")])).await.unwrap();
    let all = [first, second].concat();
    assert_eq!(all.iter().map(|event| event.seq.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(all.iter().map(|event| event.epoch).collect::<Vec<_>>(), [lease.epoch; 3]);
    assert_eq!([all[0].prev, all[1].prev, all[2].prev], [Digest::ZERO, all[0].hash, all[1].hash]);
    assert_eq!(world.other.read(&app(), Seq(0), 10).await.unwrap(), all);
    assert_eq!(world.other.head(&app()).await.unwrap(), (Seq(3), all[2].hash));
    assert_eq!(world.store.head(&staging()).await.unwrap(), (Seq(0), Digest::ZERO));
}

async fn a_journal_is_read_in_pages(world: World) {
    let lease = world.lease("a").await;
    world.append(&lease, &batch((1..=7).map(|n| note(&n.to_string())))).await.unwrap();
    let read = async |after, most| {
        let events = world.store.read(&app(), Seq(after), most).await.unwrap();
        events.iter().map(|event| event.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(read(0, 3).await, [1, 2, 3]);
    assert_eq!(read(3, 3).await, [4, 5, 6]);
    assert_eq!(read(6, 3).await, [7]);
    assert!(read(7, 3).await.is_empty());
    assert_eq!(read(0, usize::MAX).await.len(), 7);
}

async fn a_lost_answer_can_be_asked_for_again(world: World) {
    let lease = world.lease("a").await;
    let batch = Batch { messages: vec![message("m", 0)], ..batch([note("one"), note("two")]) };
    let written = world.store.append(&lease, Seq(0), &batch).await.unwrap();
    // Delivered meanwhile: repeating the append must not send it again.
    let delivered = Batch { outbox: vec![("m".into(), None)], ..Batch::default() };
    world.append(&lease, &delivered).await.unwrap();
    assert_eq!(world.store.append(&lease, Seq(0), &batch).await.unwrap(), written);
    assert_eq!(world.head().await, Seq(2));
    assert_eq!(world.store.outbox(&app(), at(100)).await.unwrap(), []);
}

async fn a_writer_that_is_behind_is_told_where_the_journal_ends(world: World) {
    let lease = world.lease("a").await;
    world.append(&lease, &batch([note("one"), note("two")])).await.unwrap();
    for (after, events) in [(0, vec![note("x")]), (1, vec![note("two"), note("x")]), (5, vec![note("x")]), (1, vec![])]
    {
        let result = world.store.append(&lease, Seq(after), &batch(events)).await;
        assert_eq!(result, Err(AppendError::Conflict { at: Seq(2) }));
    }
    assert_eq!(world.head().await, Seq(2));
}

async fn a_batch_is_written_whole_or_not_at_all(world: World) {
    let lease = world.lease("a").await;
    world.append(&lease, &batch([note("before")])).await.unwrap();
    let head = world.store.head(&app()).await.unwrap();
    let full = Batch {
        messages: vec![message("m", 0)],
        blobs: vec![b"evidence".to_vec()],
        memories: [("errors".parse().unwrap(), Memory::default())].into(),
        ..batch([recorded(&release(2, "v1")), note("one")])
    };
    let no_request = Batch { replies: vec![(77, Reply::Taken { run: None, said: "yes".into() })], ..full.clone() };
    let mut no_release = full.clone();
    let judged = Body::Judged { release: ReleaseId::at(Seq(99)), verdict: Verdict::Undecided };
    no_release.events.push(event("judged", judged));
    for bad in [no_request, no_release] {
        let error = world.append(&lease, &bad).await.unwrap_err();
        assert!(error.to_string().contains("there is no re"), "{error}");
        assert_eq!(world.store.head(&app()).await.unwrap(), head);
        assert_eq!(world.store.ledger(&app()).await.unwrap(), Ledger::default());
        assert_eq!(world.store.outbox(&app(), at(9)).await.unwrap(), []);
        assert!(world.store.memories(&app()).await.unwrap().is_empty());
        assert_eq!(world.store.blob(&Digest::of(b"evidence")).await.unwrap(), None);
    }
    world.append(&lease, &full).await.unwrap();
    assert_eq!(world.head().await, Seq(3));
}

async fn an_identity_is_used_once(world: World) {
    let lease = world.lease("a").await;
    world.append(&lease, &batch([note("one"), note("two")])).await.unwrap();
    let error = world.append(&lease, &batch([note("one")])).await.unwrap_err();
    assert!(error.to_string().contains("the identity `one` was used before"), "{error}");
}

async fn a_paused_holder_cannot_write_after_another_took_over(world: World) {
    let a = world.lease("a").await;
    world.append(&a, &batch([note("a's")])).await.unwrap();
    let refused = world.other.acquire(&a.on, &holder("b"), TTL).await;
    assert_eq!(refused, Err(AcquireError::Held { by: Box::new(holder("a")) }));
    world.step_clock(15.0);
    let b = world.other.acquire(&a.on, &holder("b"), TTL).await.unwrap();
    assert_eq!(b.epoch, Epoch(a.epoch.0 + 1));
    assert_eq!((&a.before, &b.before), (&Predecessor::None, &Predecessor::Lapsed(holder("a"))));
    // A wakes up, and its clock says what it likes.
    for step in [0.0, -15.0, -1.0] {
        world.step_clock(step);
        assert_eq!(world.append(&a, &batch([note("late")])).await, Err(AppendError::LostLease));
        assert_eq!(world.store.renew(&a).await, Err(AppendError::LostLease));
    }
    world.store.release(&a).await.unwrap();
    let written = world.other.append(&b, Seq(1), &batch([note("b's")])).await.unwrap();
    assert_eq!(written[0].epoch, b.epoch);
    // Nor by repeating what it wrote before.
    assert_eq!(world.store.append(&a, Seq(0), &batch([note("a's")])).await, Err(AppendError::LostLease));
}

async fn a_lapse_that_was_seen_stays(world: World) {
    let a = world.lease("a").await;
    world.step_clock(16.0);
    assert_eq!(world.append(&a, &batch([note("late")])).await, Err(AppendError::LostLease));
    world.step_clock(-10.0);
    assert_eq!(world.append(&a, &batch([note("late")])).await, Err(AppendError::LostLease));
    assert_eq!(world.store.holder(&a.on).await, Ok(None));
    world.other.acquire(&a.on, &holder("b"), TTL).await.unwrap();
    assert_eq!(world.store.renew(&a).await, Err(AppendError::LostLease));
}

async fn a_lapse_nobody_noticed_is_renewed(world: World) {
    let a = world.lease("a").await;
    world.step_clock(10.0);
    world.store.renew(&a).await.unwrap();
    world.step_clock(10.0);
    assert_eq!(world.other.holder(&a.on).await.unwrap(), Some(holder("a")));
    world.step_clock(100.0);
    assert_eq!(world.other.holder(&a.on).await.unwrap(), None);
    world.store.renew(&a).await.unwrap();
    world.append(&a, &batch([note("nobody came")])).await.unwrap();
    assert_eq!(world.lease("a").await.epoch, a.epoch);
}

async fn a_step_back_of_the_clock_keeps_nobody_out(world: World) {
    let a = world.lease("a").await;
    world.step_clock(-3600.0);
    let b = world.other.acquire(&a.on, &holder("b"), TTL).await.unwrap();
    assert_eq!(world.append(&a, &batch([note("late")])).await, Err(AppendError::LostLease));
    world.append(&b, &batch([note("b's")])).await.unwrap();
}

async fn a_lease_let_go_of_is_free_at_once(world: World) {
    let a = world.lease("a").await;
    world.store.release(&a).await.unwrap();
    assert_eq!(world.append(&a, &batch([note("late")])).await, Err(AppendError::LostLease));
    assert_eq!(world.store.renew(&a).await, Err(AppendError::LostLease));
    let again = world.lease("a").await;
    assert_eq!((again.epoch, &again.before), (Epoch(a.epoch.0 + 1), &Predecessor::None));
    assert_eq!(world.append(&a, &batch([note("late")])).await, Err(AppendError::LostLease));
}

async fn leases_on_different_things_are_apart(world: World) {
    let journal = world.lease("a").await;
    let things = [LeaseOn::App(staging()), LeaseOn::Target(TargetId("db".into())), LeaseOn::Vault("db".into())];
    for thing in things {
        let lease = world.other.acquire(&thing, &holder("b"), TTL).await.unwrap();
        assert_eq!(lease.epoch, Epoch(1));
        assert_eq!(world.store.holder(&thing).await.unwrap(), Some(holder("b")));
        if !matches!(thing, LeaseOn::App(_)) {
            assert!(world.store.append(&lease, Seq(0), &batch([note("x")])).await.is_err());
        }
    }
    assert_eq!(world.store.holder(&journal.on).await.unwrap(), Some(holder("a")));
}

async fn releases_are_listed_as_they_now_are(world: World) {
    let lease = world.lease("a").await;
    let (one, two) = (release(1, "v1.0.0"), release(2, "v1.1.0"));
    world.append(&lease, &batch([recorded(&one), recorded(&two)])).await.unwrap();
    let good = Verdict::Good { by: "anna".into(), at: at(5) };
    let judged = Body::Judged { release: one.id.clone(), verdict: good.clone() };
    let stands = Body::Stands { release: one.id.clone(), standing: Standing::Superseded };
    world.append(&lease, &batch([event("judged", judged), event("stands", stands)])).await.unwrap();
    // The newest word on a release counts, and does not move it.
    let again = Release { version: "v1.0.1".into(), verdict: good.clone(), standing: Standing::Superseded, ..one };
    let mut event = recorded(&again);
    event.id = "again".into();
    world.append(&lease, &batch([event])).await.unwrap();
    let ledger = world.other.ledger(&app()).await.unwrap();
    assert_eq!(ledger.releases, [again, two]);
    assert_eq!(world.other.ledger(&staging()).await.unwrap(), Ledger::default());
}

async fn a_quarantine_holds_in_every_environment(world: World) {
    let lease = world.lease("a").await;
    let quarantine = Quarantine { version: "v1.1.0".into(), why: "errors 40 %".into(), at: at(1) };
    let quarantined = Body::Quarantined { quarantine: quarantine.clone() };
    world.append(&lease, &batch([event("q", quarantined)])).await.unwrap();
    assert_eq!(world.other.ledger(&staging()).await.unwrap().quarantined["v1.1.0"], quarantine);
    let elsewhere = AppId { application: "till".parse().unwrap(), ..app() };
    assert!(world.other.ledger(&elsewhere).await.unwrap().quarantined.is_empty());
    let there = world.store.acquire(&LeaseOn::App(staging()), &holder("a"), TTL).await.unwrap();
    let lifted = Body::Lifted { version: "v1.1.0".into(), by: anna(), why: "fixed outside".into() };
    world.append(&there, &batch([event("l", lifted)])).await.unwrap();
    assert!(world.other.ledger(&app()).await.unwrap().quarantined.is_empty());
}

async fn incidents_gather_what_joins_them(world: World) {
    let lease = world.lease("a").await;
    let of = |id: &str, n: u64, body| NewEvent { incident: Some(IncidentId::at(Seq(n))), ..event(id, body) };
    let opened = |n| of(&format!("opened {n}"), n, Body::Opened { incident: incident(n) });
    let joined = |rank| Body::Joined { trigger: format!("p{rank}").parse().unwrap(), severity: Severity(rank) };
    world.append(&lease, &batch([opened(1), of("worse", 1, joined(1)), of("milder", 1, joined(3))])).await.unwrap();
    world
        .append(&lease, &batch([opened(4), of("closed", 4, Body::Closed { by: anna(), why: "over".into() })]))
        .await
        .unwrap();
    let mut raised = incident(1);
    raised.severity = Severity(1);
    raised.triggers.extend(["p1".parse().unwrap(), "p3".parse().unwrap()]);
    let closed = Incident { closed: Some(at(0)), ..incident(4) };
    assert_eq!(world.other.incidents(&app(), 10).await.unwrap(), [closed.clone(), raised]);
    assert_eq!(world.other.incidents(&app(), 1).await.unwrap(), [closed]);
}

async fn what_is_reported_raises_an_incident_and_lowers_none(world: World) {
    let lease = world.lease("a").await;
    let of = |id: &str, body| NewEvent { incident: Some(IncidentId::at(Seq(1))), ..event(id, body) };
    let reported = |rank| Body::Reported { by: anna(), what: "slow".into(), severity: Severity(rank), issue: None };
    let before = incident(1);
    let opened = of("opened", Body::Opened { incident: before.clone() });
    world.append(&lease, &batch([opened, of("milder", reported(before.severity.0 + 1))])).await.unwrap();
    assert_eq!(world.other.incidents(&app(), 10).await.unwrap()[0], before);
    world.append(&lease, &batch([of("worse", reported(before.severity.0 - 1))])).await.unwrap();
    let raised = Incident { severity: Severity(before.severity.0 - 1), ..before };
    assert_eq!(world.other.incidents(&app(), 10).await.unwrap(), [raised]);
}

async fn captures_are_known_by_what_became_of_them(world: World) {
    let lease = world.lease("a").await;
    let id = |n| CaptureId::at(Seq(n));
    world.append(&lease, &batch((1..=3).map(|n| event(&n.to_string(), captured(n))))).await.unwrap();
    let proven = |level| Body::Proven { capture: id(1), level };
    let later = [
        event("p1", proven(ProofLevel::Restored)),
        event("p2", proven(ProofLevel::ReadBack)),
        event("s", Body::Spoiled { capture: id(2), why: "checksum".into() }),
        event("x", Body::Pruned { capture: id(3) }),
    ];
    world.append(&lease, &batch(later)).await.unwrap();
    let captures = world.other.captures(&app()).await.unwrap();
    assert_eq!(captures.iter().map(|c| c.id.clone()).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    assert_eq!(captures[0].made.proof, ProofLevel::Restored, "what was shown once stays shown");
    assert_eq!(captures[1].spoiled.as_deref(), Some("checksum"));
    assert_eq!(captures.iter().map(|c| c.pruned).collect::<Vec<_>>(), [false, false, true]);
}

async fn a_run_is_listed_as_its_events_say(world: World) {
    let lease = world.lease("a").await;
    let plan = a_plan(2, None);
    let state = async || world.other.runs(&app(), 1).await.unwrap()[0].state.clone();
    let proposal = Batch {
        blobs: vec![blob(&plan)],
        ..batch([of_run("p", 1, proposed(&plan, false)), of_run("n", 1, note("n").body)])
    };
    world.append(&lease, &proposal).await.unwrap();
    assert_eq!(state().await, RunState::Waiting);
    let answered =
        Body::Answered { plan: plan.digest(), by: anna(), answer: Answer::Approve, reason: None, consent: None };
    world.append(&lease, &batch([of_run("a", 1, answered)])).await.unwrap();
    assert_eq!(state().await, RunState::Approved);
    let begun = [of_run("s", 1, Body::Started), of_run("i", 1, intent("stop")), of_run("d", 1, acted("stop", "done"))];
    world.append(&lease, &batch(begun)).await.unwrap();
    assert_eq!(state().await, RunState::Running);
    // Another process goes on, knowing nothing but the journal: what is off is listed as open.
    let verb = Verb::Abandon { reason: "by hand".into() };
    let abandoned = of_run("x", 1, Body::Person { by: anna(), verb });
    world.other.append(&lease, Seq(6), &batch([abandoned])).await.unwrap();
    let open = vec![ObligationId::at(Seq(5))];
    assert_eq!(state().await, RunState::Ended(End::Abandoned { by: anna(), open }));
    let row = &world.store.runs(&app(), 10).await.unwrap()[0];
    assert_eq!((row.first, row.proposed, row.ended, row.plan), (Seq(1), at(0), Some(at(0)), plan.digest()));
    assert_eq!(world.store.read_run(&app(), &row.id).await.unwrap().len(), 7);
    assert!(world.store.read_run(&app(), &RunId::at(Seq(2))).await.unwrap().is_empty());
}

async fn what_cannot_follow_is_not_recorded(world: World) {
    let lease = world.lease("a").await;
    let plan = a_plan(2, None);
    let proposal = Batch { blobs: vec![blob(&plan)], ..batch([of_run("p", 1, proposed(&plan, true))]) };
    world.append(&lease, &proposal).await.unwrap();
    for bad in [
        of_run("bad", 1, acted("stop", "done")),
        of_run("bad", 1, intent("no such step")),
        of_run("bad", 1, proposed(&plan, false)),
        of_run("bad", 7, Body::Started),
        event("bad", Body::Started),
        event("bad", Body::Pruned { capture: CaptureId::at(Seq(1)) }),
        event("bad", Body::Closed { by: anna(), why: "no incident".into() }),
    ] {
        let error = world.append(&lease, &batch([bad])).await.unwrap_err();
        assert!(error.to_string().contains("refused: "), "{error}");
    }
    // The fold is none the worse for it.
    world.append(&lease, &batch([of_run("s", 1, Body::Started), of_run("i", 1, intent("stop"))])).await.unwrap();
    assert_eq!(world.head().await, Seq(3));
}

async fn a_run_needs_its_plan_in_the_store(world: World) {
    let lease = world.lease("a").await;
    let error = world.append(&lease, &batch([of_run("p", 1, proposed(&a_plan(2, None), true))])).await.unwrap_err();
    assert!(error.to_string().contains("is not in the store"), "{error}");
}

async fn rf04_a_release_and_an_incident_have_one_automatic_attempt(world: World) {
    let lease = world.lease("a").await;
    let propose = async |run: u64, level, from, incident: Option<u64>, automatic| {
        let plan = a_plan(level, from);
        let incident = incident.map(|n| IncidentId::at(Seq(n)));
        let event = NewEvent { incident, ..of_run(&format!("p{run}"), run, proposed(&plan, automatic)) };
        let start = of_run(&format!("s{run}"), run, Body::Started);
        let events = if automatic { vec![event, start] } else { vec![event] };
        world.append(&lease, &Batch { blobs: vec![blob(&plan)], ..batch(events) }).await.map(|_| ())
    };
    propose(1, 1, Some(5), Some(7), true).await.unwrap();
    // The next rung of the same ladder is not a second attempt.
    propose(2, 2, Some(5), Some(7), true).await.unwrap();
    // From another release in the same incident would be toggling; the same release in another incident, trying again.
    for (from, incident) in [(Some(6), Some(7)), (Some(5), Some(8)), (None, Some(7)), (Some(5), None)] {
        let error = propose(3, 2, from, incident, true).await.unwrap_err();
        assert!(error.to_string().contains("`run-2` was already an automatic rollback at level 2"), "{error}");
    }
    // Another release in another incident is a case of its own, and a person may always.
    propose(4, 2, Some(6), Some(8), true).await.unwrap();
    propose(5, 2, Some(5), Some(7), false).await.unwrap();
    // It does not come back when the run is over.
    world.append(&lease, &batch([of_run("e", 2, Body::Ended { end: End::Insufficient })])).await.unwrap();
    propose(6, 2, Some(5), Some(7), true).await.unwrap_err();
    assert_eq!(world.store.runs(&app(), 9).await.unwrap().len(), 4);
}

async fn a_proposal_that_was_never_begun_uses_up_no_attempt(world: World) {
    let lease = world.lease("a").await;
    let plan = a_plan(2, Some(5));
    let propose =
        |run| Batch { blobs: vec![blob(&plan)], ..batch([of_run(&format!("p{run}"), run, proposed(&plan, true))]) };
    world.append(&lease, &propose(1)).await.unwrap();
    world.append(&lease, &propose(2)).await.unwrap_err();
    let superseded = Body::Superseded { by: Digest::of(b"another"), why: "the world moved".into() };
    world.append(&lease, &batch([of_run("x", 1, superseded)])).await.unwrap();
    world.append(&lease, &propose(3)).await.unwrap();
}

async fn requests_wait_for_their_reply(world: World) {
    let lease = world.lease("a").await;
    let ask = Ask::Note { text: "look at the queue".into() };
    // Anybody may, holder or not.
    let first = world.other.request(&app(), &anna(), &ask).await.unwrap();
    let second = world.other.request(&app(), &anna(), &Ask::Record { version: "v1".into() }).await.unwrap();
    world.other.request(&staging(), &anna(), &ask).await.unwrap();
    let open = world.store.requests(&app()).await.unwrap();
    assert_eq!(open.iter().map(|request| request.id).collect::<Vec<_>>(), [first, second]);
    assert_eq!((&open[0].ask, &open[0].by, open[0].at, &open[0].app), (&ask, &anna(), at(0), &app()));
    let taken = Reply::Taken { run: Some(RunId::at(Seq(1))), said: "noted".into() };
    let replying = Batch { replies: vec![(first, taken.clone())], ..batch([note("noted")]) };
    world.append(&lease, &replying).await.unwrap();
    assert_eq!(world.store.requests(&app()).await.unwrap().len(), 1);
    // The first reply stands.
    let refused = Reply::Refused { why: "no".into(), advice: None };
    world.append(&lease, &Batch { replies: vec![(first, refused)], ..Batch::default() }).await.unwrap();
    assert_eq!(world.other.reply(&app(), first).await.unwrap(), Some(taken));
    assert_eq!(world.other.reply(&app(), second).await.unwrap(), None);
    assert_eq!(world.other.reply(&staging(), first).await.unwrap(), None);
}

async fn messages_wait_until_delivered(world: World) {
    let lease = world.lease("a").await;
    let two = Batch { messages: vec![message("late", 60), message("now", 0), message("now", 0)], ..Batch::default() };
    world.append(&lease, &two).await.unwrap();
    let due = async |second| {
        let due = world.other.outbox(&app(), at(second)).await.unwrap();
        due.into_iter().map(|outgoing| (outgoing.message.id, outgoing.tried)).collect::<Vec<_>>()
    };
    assert_eq!(due(0).await, [("now".to_owned(), 0)]);
    assert_eq!(due(60).await, [("now".to_owned(), 0), ("late".to_owned(), 0)]);
    let again = Outgoing { message: message("now", 0), tried: 1, next_try: at(90) };
    let changed = Batch { outbox: vec![("now".into(), Some(again)), ("late".into(), None)], ..Batch::default() };
    world.append(&lease, &changed).await.unwrap();
    assert_eq!(due(89).await, []);
    assert_eq!(due(90).await, [("now".to_owned(), 1)]);
    assert_eq!(world.store.outbox(&staging(), at(99)).await.unwrap(), []);
}

async fn memories_are_kept(world: World) {
    let lease = world.lease("a").await;
    let errors: TriggerId = "errors".parse().unwrap();
    let pending = Memory { state: TriggerState::Pending { since: at(1) }, value: Some(0.1 + 0.2), ..Memory::default() };
    for memory in [Memory::default(), pending.clone()] {
        let kept = Batch { memories: [(errors.clone(), memory)].into(), ..Batch::default() };
        world.append(&lease, &kept).await.unwrap();
    }
    assert_eq!(world.other.memories(&app()).await.unwrap(), [(errors, pending)].into());
    assert!(world.other.memories(&staging()).await.unwrap().is_empty());
}

async fn blobs_are_found_by_digest(world: World) {
    let lease = world.lease("a").await;
    let bytes = vec![0, 159, 146, 150, 255];
    let twice = Batch { blobs: vec![bytes.clone(), bytes.clone(), vec![]], ..Batch::default() };
    world.append(&lease, &twice).await.unwrap();
    assert_eq!(world.other.blob(&Digest::of(&bytes)).await.unwrap(), Some(bytes));
    assert_eq!(world.other.blob(&Digest::of(b"")).await.unwrap(), Some(vec![]));
    assert_eq!(world.other.blob(&Digest::of(b"x")).await.unwrap(), None);
}

/// A secret in every text that is stored is in none of them afterwards.
async fn no_secret_is_kept(world: &World, canary: &str) {
    let lease_holder = Holder { doing: format!("ripcord --token {canary}"), ..holder("a") };
    let lease = world.store.acquire(&LeaseOn::App(app()), &lease_holder, TTL).await.unwrap();
    let ask = Ask::Note { text: format!("it is {canary}") };
    let request = world.store.request(&app(), &anna(), &ask).await.unwrap();
    let text = format!("https://x/?password={canary}");
    let secret_message = Message { body: text.clone(), title: text.clone(), ..message("m", 0) };
    let full = Batch {
        messages: vec![secret_message.clone()],
        outbox: vec![("m".into(), Some(Outgoing { message: secret_message, tried: 1, next_try: at(0) }))],
        replies: vec![(request, Reply::Refused { why: text.clone(), advice: Some(text.clone()) })],
        memories: [(
            "errors".parse().unwrap(),
            Memory { state: TriggerState::Error { since: at(0), why: text.clone() }, ..Memory::default() },
        )]
        .into(),
        ..batch([note("plain"), event("n", Body::Noted { by: anna(), text: text.clone() })])
    };
    let written = world.append(&lease, &full).await.unwrap();
    assert_eq!(written[1].body, Body::Noted { by: anna(), text: format!("https://x/?password={REDACTED}") });
    let blob = Batch { blobs: vec![text.into_bytes()], ..batch([note("with a blob")]) };
    let error = world.append(&lease, &blob).await.unwrap_err().to_string();
    assert!(error.contains("holds a secret") && !error.contains(canary), "{error}");
    assert_eq!(world.head().await, Seq(2));
    let shown = format!(
        "{:?}{:?}{:?}{:?}{:?}",
        world.store.read(&app(), Seq(0), 9).await,
        world.store.outbox(&app(), at(9)).await,
        world.store.reply(&app(), request).await,
        world.store.memories(&app()).await,
        world.store.holder(&lease.on).await,
    );
    assert!(shown.contains(REDACTED) && !shown.contains(canary), "{shown}");
}

#[tokio::test]
async fn rf29_no_secret_is_kept_in_memory() {
    let redactor = Redactor::default();
    let world = World::in_memory(redactor.clone());
    redactor.learn(&Secret::new("canary-4711"));
    no_secret_is_kept(&world, "canary-4711").await;
}

#[tokio::test]
async fn rf29_no_secret_is_kept_on_disk() {
    let redactor = Redactor::default();
    let world = World::on_disk(redactor.clone());
    redactor.learn(&Secret::new("canary-4711"));
    no_secret_is_kept(&world, "canary-4711").await;
    let (mut files, mut open) = (0, vec![world.directory.as_ref().unwrap().path().to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let bytes = std::fs::read(path).unwrap();
            assert!(!bytes.windows(11).any(|window| window == b"canary-4711"));
            files += 1;
        }
    }
    assert!(files >= 2, "the log beside the file was looked at too");
}

#[tokio::test]
async fn of_a_holder_whose_process_has_ended_it_is_known_that_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let open = || ripcord_store::SqliteStore::open(directory.path()).unwrap();
    let (first, second) = (open(), open());
    let on = LeaseOn::App(app());
    let target = LeaseOn::Target(TargetId("db".into()));
    let lease = first.acquire(&on, &holder("a"), TTL).await.unwrap();
    first.acquire(&target, &holder("a"), TTL).await.unwrap();
    assert_eq!(second.holder(&on).await.unwrap(), Some(holder("a")));
    // As a process ends that is killed: it lets go of no lease, and the kernel of its files.
    drop(first);
    std::fs::File::create(directory.path().join("alive/a")).unwrap();
    assert_eq!(second.holder(&on).await.unwrap(), None, "nobody follows one that is gone");
    let next = second.acquire(&on, &holder("b"), TTL).await.unwrap();
    assert_eq!((next.epoch, next.before), (Epoch(lease.epoch.0 + 1), Predecessor::Gone(holder("a"))));
    let other = second.acquire(&target, &holder("b"), TTL).await.unwrap();
    assert_eq!(other.before, Predecessor::Gone(holder("a")), "whatever else it had is free, too");
}

#[tokio::test]
async fn a_follower_sees_what_another_process_writes() {
    let directory = tempfile::tempdir().unwrap();
    let open = || ripcord_store::SqliteStore::open(directory.path()).unwrap();
    let (writer, follower) = (open(), open());
    let app = app();
    let lease = writer.acquire(&LeaseOn::App(app.clone()), &holder("a"), TTL).await.unwrap();
    let nothing = Duration::from_millis(20);
    assert_eq!(follower.wait_changed(&app, Seq(0), nothing).await.unwrap(), Seq(0));
    for n in 0..3 {
        let (seen, written) = tokio::join!(follower.wait_changed(&app, Seq(n), Duration::from_secs(60)), async {
            tokio::task::yield_now().await;
            writer.append(&lease, Seq(n), &batch([note(&n.to_string())])).await
        });
        assert_eq!((seen.unwrap(), written.unwrap().len()), (Seq(n + 1), 1));
    }
}
