//! Stories told from their events, and what they measure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ripcord_core::{
    Action, Actor, Answer, AppId, Authority, Before, Blame, Body, Call, CaptureId, CapturePurpose, Check, Compared,
    Consent, Decision, Destroys, Digest, EVENT_VERSION, End, Epoch, Event, Facts, Failure, HeldIn, Incident,
    IncidentId, Key, Limits, Loss, Made, Means, ObligationId, OnFailure, Outcome, ParkedWhy, Phase, Place, Plan, Proof,
    ProofLevel, Purpose, Quarantine, Redo, Retry, Revision, RowLoss, RunId, Seq, Severity, Shown, Standing, Step,
    StepId, TriggerState, Verb, Verdict, human, moments, times,
};

use crate::shop::{at, minutes, name, release, rung, set};

/// Lines up events: `second` of the story, the run if any, what happened.
fn story(lines: Vec<(i64, Option<u64>, Body)>) -> Vec<Event> {
    let app = AppId { application: name("shop"), environment: name("production") };
    let event = |(i, (second, run, body)): (usize, (i64, Option<u64>, Body))| Event {
        id: format!("event-{i}"),
        app: app.clone(),
        seq: Seq(i as u64 + 1),
        epoch: Epoch(1),
        at: at(second),
        run: run.map(|run| RunId::at(Seq(run))),
        incident: None,
        version: EVENT_VERSION,
        body,
        prev: Digest::ZERO,
        hash: Digest::ZERO,
    };
    lines.into_iter().enumerate().map(event).collect()
}

fn id(step: &str) -> StepId {
    StepId(step.to_owned())
}

fn alice() -> Actor {
    Actor::Person { user: "alice".to_owned(), host: "desk".to_owned() }
}

fn trigger(state: TriggerState, value: Option<f64>) -> Body {
    Body::Changed {
        trigger: "errors-high".parse().unwrap(),
        state,
        value,
        n: value.map(|_| 900.0),
        baseline: value.map(|_| 0.001),
        evidence: Digest::ZERO,
    }
}

fn plan(level: u8, title: &str, means: Means, steps: &[(&str, &str)]) -> Plan {
    let step = |(step, words): &(&str, &str)| Step {
        id: id(step),
        phase: Phase::Restore,
        place: None,
        target: None,
        kind: None,
        needs: BTreeSet::new(),
        action: Action::Stop,
        destroys: Destroys::Nothing,
        protected_by: None,
        redo: Redo::Safe,
        limits: Limits::default(),
        on_failure: OnFailure::Park,
        shown: Shown { words: (*words).to_owned(), commands: vec![] },
    };
    Plan {
        app: AppId { application: name("shop"), environment: name("production") },
        purpose: Purpose::Rollback,
        rung: rung(level, title, means),
        from: None,
        from_version: Some("v1.1.0".to_owned()),
        to: None,
        to_version: Some("v1.0.0".to_owned()),
        inventory: Digest::ZERO,
        config: Digest::ZERO,
        steps: steps.iter().map(step).collect(),
        ends_at: BTreeMap::new(),
        puts_back: BTreeMap::new(),
        left_alone: vec![ripcord_core::LeftAlone {
            component: "db".parse().unwrap(),
            why: "its schema is compatible".to_owned(),
        }],
        loss_at_most: Loss::none(),
    }
}

fn toggle_plan() -> Plan {
    plan(1, "toggle", Means::Set { values: BTreeMap::new() }, &[("restore/flags", "switch `parallel` off")])
}

fn code_plan() -> Plan {
    let steps = [
        ("capture/web", "capture web as it is"),
        ("stop/web", "stop web"),
        ("restore/web", "switch web to releases/v1.0.0"),
        ("start/web", "start web"),
        ("check/health", "web answers as v1.0.0"),
    ];
    let plan = plan(2, "code", Means::Restore { scope: set("web") }, &steps);
    let rows = BTreeMap::from([("db.orders".to_owned(), RowLoss { inserted: 3, ..RowLoss::default() })]);
    Plan { loss_at_most: Loss { rows, ..Loss::none() }, ..plan }
}

fn find(digest: &Digest) -> Option<Plan> {
    [toggle_plan(), code_plan()].into_iter().find(|plan| plan.digest() == *digest)
}

fn authority() -> Authority {
    Authority { automatic: false, roles: set("on-call lead"), quorum: 1, answer_within: minutes(5) }
}

fn proposed(plan: &Plan, automatic: bool) -> Body {
    Body::Proposed {
        plan: plan.digest(),
        purpose: plan.purpose.clone(),
        by: Actor::Policy,
        severity: Some(Severity(1)),
        authority: authority(),
        automatic,
        answer_by: (!automatic).then(|| at(1_200)),
    }
}

fn intent(step: &str, attempt: u32) -> Body {
    Body::Intent {
        step: id(step),
        attempt,
        before: Before { at: at(0), mark: None, key: Key("key".to_owned()), captures: BTreeMap::new() },
    }
}

fn acted(step: &str, attempt: u32, outcome: Outcome) -> Body {
    Body::Acted { step: id(step), attempt, outcome }
}

fn done(found: &str) -> Outcome {
    Outcome::Done(Proof::of(found))
}

fn compared(now: f64, recovered: bool) -> Vec<Compared> {
    let trigger = "errors-high".parse().unwrap();
    vec![Compared { trigger, baseline: Some(0.001), breached_at: Some(0.2), now: Some(now), recovered }]
}

fn incident() -> Incident {
    Incident {
        id: IncidentId::at(Seq(5)),
        opened: at(780),
        severity: Severity(1),
        what: "`errors-high` breached".to_owned(),
        triggers: set("errors-high"),
        release: None,
        issue: None,
        by: Actor::Policy,
        closed: None,
    }
}

fn decision() -> Decision {
    Decision {
        incident: None,
        call: Call::Rollback,
        severity: Severity(1),
        reasons: vec!["row `clear spike`: errors 20 % is above 5 %".to_owned()],
        act_by: Some(at(1_080)),
        strategy: Some(name("usual")),
        ladder: vec![],
        authority: authority(),
        automatic: true,
        facts: Facts::default(),
        blame: Blame::NoRelease,
        evidence: Digest::ZERO,
    }
}

/// A bad release: the toggle does not help, the code does.
fn bad_release() -> Vec<Event> {
    let good = Verdict::Good { by: "bake".to_owned(), at: at(-1_000) };
    let (toggle, code) = (toggle_plan(), code_plan());
    let (t, c) = (Some(9), Some(20));
    story(vec![
        (-9_000, None, Body::Recorded { release: Box::new(release(1, "v1.0.0", good, Standing::Live, -9_000)) }),
        (0, None, Body::Recorded { release: Box::new(release(3, "v1.1.0", Verdict::Undecided, Standing::Live, 0)) }),
        (600, None, trigger(TriggerState::Pending { since: at(600) }, Some(0.2))),
        (780, None, trigger(TriggerState::Breached { since: at(600) }, Some(0.21))),
        (780, None, Body::Opened { incident: incident() }),
        (781, None, Body::Decided { decision: Box::new(decision()) }),
        (782, t, proposed(&toggle, true)),
        (783, t, Body::Started),
        (784, t, intent("restore/flags", 1)),
        (785, t, acted("restore/flags", 1, done("parallel=false"))),
        (
            800,
            t,
            Body::Helped {
                verdict: Check::Fail { what: vec!["`errors-high` has not recovered".to_owned()] },
                compared: compared(0.19, false),
            },
        ),
        (801, t, Body::Ended { end: End::Insufficient }),
        (802, c, proposed(&code, false)),
        (
            900,
            c,
            Body::Answered {
                plan: code.digest(),
                by: alice(),
                answer: Answer::Approve,
                reason: Some("go".to_owned()),
                consent: Some(Consent { plan: code.digest(), loss: code.loss_at_most.clone(), at: at(900) }),
            },
        ),
        (901, c, Body::Started),
        (902, c, intent("capture/web", 1)),
        (
            903,
            c,
            Body::Captured {
                capture: CaptureId::at(Seq(17)),
                of: Place::local("web".parse().unwrap()),
                purpose: CapturePurpose::Protective,
                release: None,
                step: Some(id("capture/web")),
                made: Box::new(Made {
                    revision: Revision::exact("abc"),
                    label: Some("v1.1.0".to_owned()),
                    held: HeldIn::System { name: "releases/v1.1.0".to_owned() },
                    bytes: 4_096,
                    proof: ProofLevel::ReadBack,
                    content: Digest::ZERO,
                }),
            },
        ),
        (903, c, acted("capture/web", 1, done("releases/v1.1.0"))),
        (904, c, intent("stop/web", 1)),
        (906, c, acted("stop/web", 1, done("gone"))),
        (907, c, intent("restore/web", 1)),
        (
            908,
            c,
            acted(
                "restore/web",
                1,
                Outcome::Failed(Failure {
                    what: "disk full".to_owned(),
                    retry: Retry::Later,
                    advice: Some("free 10 MB".to_owned()),
                    output: None,
                }),
            ),
        ),
        (909, c, intent("restore/web", 2)),
        (
            911,
            c,
            acted(
                "restore/web",
                2,
                Outcome::Done(Proof {
                    set_aside: vec!["app-failed-1".to_owned()],
                    ..Proof::of("current -> releases/v1.0.0")
                }),
            ),
        ),
        (912, c, intent("start/web", 1)),
        (914, c, acted("start/web", 1, done("pid 12"))),
        (
            915,
            c,
            Body::Verified {
                step: id("check/health"),
                verdict: Check::Pass { found: "status 200, version v1.0.0".to_owned() },
            },
        ),
        (
            930,
            c,
            Body::Helped {
                verdict: Check::Pass { found: "every signal is back".to_owned() },
                compared: compared(0.001, true),
            },
        ),
        (930, c, Body::Watching { until: at(1_830) }),
        (
            931,
            None,
            Body::Stands {
                release: ripcord_core::ReleaseId::at(Seq(3)),
                standing: Standing::RolledBack { by: RunId::at(Seq(20)) },
            },
        ),
        (
            931,
            None,
            Body::Quarantined {
                quarantine: Quarantine { version: "v1.1.0".to_owned(), why: "errors".to_owned(), at: at(931) },
            },
        ),
        (960, None, trigger(TriggerState::Ok, Some(0.001))),
        (1_830, c, Body::Ended { end: End::Succeeded }),
        (1_900, None, Body::Closed { by: alice(), why: "stable".to_owned() }),
    ])
}

fn told(events: &[Event]) -> String {
    let line = |moment: ripcord_core::Moment| {
        let second = moment.at.as_second() - at(0).as_second();
        let detail: String = moment.detail.iter().map(|line| format!("\n       {line}")).collect();
        format!("{second:>6} {}{detail}", moment.what)
    };
    moments(events, &find).into_iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_bad_release_is_told_from_deployment_to_the_end() {
    insta::assert_snapshot!(told(&bad_release()), @r"
    -9000 v1.0.0 recorded as rel-1, live
        0 v1.1.0 recorded as rel-3, live
      600 `errors-high` turned bad
          value 0.2, over 900, where 0.001 is normal
      780 `errors-high` breached, bad for 3 min
          value 0.21, over 900, where 0.001 is normal
      780 incident inc-5 opened by policy, P1: `errors-high` breached
      781 decided as P1: rollback, without asking, by 2027-01-15T08:18:00Z
          row `clear spike`: errors 20 % is above 5 %
      782 run-9 proposed by policy: roll back by toggles alone, level 1 `toggle`
          db left alone: its schema is compatible
          goes ahead without an answer
      783 run-9 began
      785 done: switch `parallel` off (1 s)
          parallel=false
      800 it did not help: `errors-high` has not recovered
          `errors-high` not recovered: 0.19 now, 0.2 when it breached, 0.001 before
      801 run-9 ended: insufficient: all is done and consistent, and the symptom remains
      802 run-20 proposed by policy: roll back to v1.0.0, level 2 `code`
          db left alone: its schema is compatible
          loses at most 3 rows
          waits for lead or on-call, by 2027-01-15T08:20:00Z
      900 run-20 approved by alice@desk
          go
          agreed to lose at most 3 rows
      901 run-20 began
      903 present state of web captured as cap-17: v1.1.0, 4096 bytes, read back and compared
      903 done: capture web as it is (1 s)
          releases/v1.1.0
      906 done: stop web (2 s)
          gone
      908 failed: switch web to releases/v1.0.0 (1 s): disk full
          what to do: free 10 MB
      911 done, at try 2: switch web to releases/v1.0.0 (2 s)
          current -> releases/v1.0.0
          set aside: app-failed-1
      914 done: start web (2 s)
          pid 12
      915 passed: web answers as v1.0.0: status 200, version v1.0.0
      930 it helped: every signal is back
          `errors-high` recovered: 0.001 now, 0.2 when it breached, 0.001 before
      930 everything restored; watched until 2027-01-15T08:30:30Z
      931 v1.1.0 is rolled back by run-20
      931 v1.1.0 quarantined, nobody can deploy it: errors
      960 `errors-high` is ok
          value 0.001, over 900, where 0.001 is normal
     1830 run-20 ended: succeeded
     1900 incident closed by alice@desk: stable
    ");
}

fn measured(events: &[Event]) -> String {
    let times = times(events);
    let say = |length: Option<Duration>| length.map_or("-".to_owned(), human);
    format!(
        "detect {}, decide {}, restore {}, verify {}, recover {}, down {}",
        say(times.to_detect()),
        say(times.to_decide()),
        say(times.to_restore()),
        say(times.to_verify()),
        say(times.to_recover()),
        say(times.downtime),
    )
}

#[test]
fn the_parts_of_an_incident_are_measured() {
    let events = bad_release();
    insta::assert_snapshot!(measured(&events), @"detect 3 min, decide 1 s, restore 2 min 13 s, verify 16 s, recover 5 min 14 s, down 10 s");
    let all = times(&events);
    let second = |at: Option<jiff::Timestamp>| at.map(|at| at.as_second() - crate::shop::at(0).as_second());
    let moments = [
        all.released,
        all.onset,
        all.detected,
        all.declared,
        all.decided,
        all.approved,
        all.started,
        all.restored,
        all.verified,
        all.closed,
    ];
    assert_eq!(moments.map(second), [0, 600, 780, 780, 781, 900, 901, 914, 930, 1_900].map(Some));
    // A run whose every step was done and that did not help has restored nothing.
    let insufficient: Vec<Event> = events.into_iter().take(12).collect();
    insta::assert_snapshot!(measured(&insufficient), @"detect 3 min, decide 1 s, restore -, verify -, recover -, down -");
    assert_eq!(times(&[]), ripcord_core::Times::default());
}

#[test]
fn what_goes_wrong_is_told_with_what_to_do() {
    let run = Some(20);
    let code = code_plan();
    let open = ObligationId::at(Seq(33));
    let person = |verb| Body::Person { by: alice(), verb };
    let lines = vec![
        (1, run, proposed(&code, false)),
        (2, run, Body::Noted { by: Actor::Policy, text: "asked again".to_owned() }),
        (
            3,
            run,
            Body::Told {
                message: "approve run-20?".to_owned(),
                channel: "ops".parse().unwrap(),
                delivered: false,
                why: Some("HTTP 500".to_owned()),
            },
        ),
        (
            4,
            run,
            Body::Told {
                message: "approve run-20?".to_owned(),
                channel: "mail".parse().unwrap(),
                delivered: true,
                why: None,
            },
        ),
        (
            5,
            run,
            Body::Answered {
                plan: code.digest(),
                by: alice(),
                answer: Answer::Decline,
                reason: Some("hotfix known".to_owned()),
                consent: None,
            },
        ),
        (6, run, Body::Superseded { by: Digest::ZERO, why: "the world moved".to_owned() }),
        (10, run, Body::Started),
        (11, run, Body::Held { step: id("stop/web"), found: "not running".to_owned() }),
        (12, run, intent("restore/web", 1)),
        (42, run, acted("restore/web", 1, Outcome::Unknown { why: "no answer in 30 s".to_owned() })),
        (
            43,
            run,
            Body::Parked { why: ParkedWhy::InDoubt { step: id("restore/web"), found: "half switched".to_owned() } },
        ),
        (44, run, person(Verb::Retry { step: Some(id("restore/web")) })),
        (45, run, intent("restore/web", 2)),
        (46, run, person(Verb::Done { step: id("restore/web"), evidence: "looked".to_owned() })),
        (
            47,
            run,
            Body::Verified { step: id("check/health"), verdict: Check::Fail { what: vec!["status 500".to_owned()] } },
        ),
        (
            48,
            run,
            Body::Verified { step: id("check/other"), verdict: Check::Inconclusive { why: "3 requests".to_owned() } },
        ),
        (
            49,
            run,
            Body::Parked {
                why: ParkedWhy::Failed {
                    step: id("check/health"),
                    what: "status 500".to_owned(),
                    advice: Some("see its log".to_owned()),
                },
            },
        ),
        (50, run, Body::Parked { why: ParkedWhy::Inconclusive { step: None, why: "no traffic".to_owned() } }),
        (51, run, Body::Parked { why: ParkedWhy::Insufficient { why: "errors 19 %".to_owned() } }),
        (
            52,
            run,
            Body::Parked {
                why: ParkedWhy::OtherAdapter {
                    step: id("start/web"),
                    written_by: "process 1".to_owned(),
                    have: "process 2".to_owned(),
                },
            },
        ),
        (53, run, person(Verb::Pause)),
        (54, run, person(Verb::Resume)),
        (55, run, person(Verb::Retry { step: None })),
        (56, run, person(Verb::Skip { step: id("check/health"), reason: "known".to_owned() })),
        (57, run, person(Verb::Take { obligation: open.clone(), reason: "by hand".to_owned() })),
        (58, run, Body::Overran { what: "`code`".to_owned(), budget: minutes(2) }),
        (59, run, Body::Helped { verdict: Check::Inconclusive { why: "no traffic".to_owned() }, compared: vec![] }),
        (60, run, person(Verb::Abandon { reason: "by hand".to_owned() })),
        (61, run, Body::Ended { end: End::Abandoned { by: alice(), open: vec![open] } }),
        (62, None, Body::Joined { trigger: "slow".parse().unwrap(), severity: Severity(2) }),
        (63, None, trigger(TriggerState::NoData { since: at(3) }, None)),
        (64, None, trigger(TriggerState::Error { since: at(64), why: "HTTP 502".to_owned() }, None)),
        (65, None, trigger(TriggerState::Recovering { since: at(65) }, Some(0.01))),
        (
            66,
            None,
            Body::Judged {
                release: ripcord_core::ReleaseId::at(Seq(3)),
                verdict: Verdict::Bad { why: "errors".to_owned(), at: at(66) },
            },
        ),
        (67, None, Body::Lifted { version: "v1.1.0".to_owned(), by: alice(), why: "repaired".to_owned() }),
        (
            68,
            None,
            Body::Baseline {
                release: ripcord_core::ReleaseId::at(Seq(3)),
                figures: BTreeMap::from([(
                    "errors".parse().unwrap(),
                    ripcord_core::Baseline { value: 0.001, samples: 60, from: at(0), to: at(60) },
                )]),
            },
        ),
        (69, None, Body::Proven { capture: CaptureId::at(Seq(17)), level: ProofLevel::Restored }),
        (70, None, Body::Spoiled { capture: CaptureId::at(Seq(17)), why: "checksum differs".to_owned() }),
        (
            71,
            None,
            Body::Reported {
                by: alice(),
                what: "customers cannot pay".to_owned(),
                severity: Severity(0),
                issue: "outage".parse().ok(),
            },
        ),
        (72, None, Body::Baking { release: ripcord_core::ReleaseId::at(Seq(3)), until: at(90) }),
        (73, None, Body::Pruned { capture: CaptureId::at(Seq(17)) }),
        (74, Some(40), Body::Ended { end: End::Expired }),
    ];
    insta::assert_snapshot!(told(&story(lines)), @r"
     1 run-20 proposed by policy: roll back to v1.0.0, level 2 `code`
       db left alone: its schema is compatible
       loses at most 3 rows
       waits for lead or on-call, by 2027-01-15T08:20:00Z
     2 policy: asked again
     3 could not tell `ops`: approve run-20?
       HTTP 500
     4 told `mail`: approve run-20?
     5 run-20 declined by alice@desk
       hotfix known
     6 run-20 superseded by another plan: the world moved
    10 run-20 began
    11 nothing to do: stop web: not running
    42 outcome unknown: switch web to releases/v1.0.0 (30 s): no answer in 30 s
    43 run-20 stopped, and people called: what became of `switch web to releases/v1.0.0` cannot be found out: half switched
    44 alice@desk has it tried again: switch web to releases/v1.0.0
    45 begun, and no outcome on record: switch web to releases/v1.0.0
    46 alice@desk says it is done: switch web to releases/v1.0.0: looked
    47 failed: web answers as v1.0.0: status 500
    48 inconclusive: check/other: 3 requests
    49 run-20 stopped, and people called: web answers as v1.0.0 failed: status 500
       what to do: see its log
    50 run-20 stopped, and people called: no verdict: no traffic
    51 run-20 stopped, and people called: all is done and the symptom remains: errors 19 %
    52 run-20 stopped, and people called: start web was written by process 1, and here is process 2
    53 alice@desk paused run-20
    54 alice@desk let run-20 go on
    55 alice@desk has everything that failed tried again
    56 alice@desk skipped web answers as v1.0.0: known
    57 alice@desk took obl-33 over: by hand
    58 `code` takes longer than its 2 min
    59 whether it helped cannot be told: no traffic
    60 alice@desk abandoned run-20: by hand
    61 run-20 ended: abandoned by alice@desk
       still off: obl-33
    62 `slow` joined the incident, as P2
    63 `errors-high` has had no data for 1 min
    64 `errors-high` cannot be judged: HTTP 502
    65 `errors-high` is recovering
       value 0.01, over 900, where 0.001 is normal
    66 rel-3 judged bad: errors
    67 alice@desk lifted the quarantine of v1.1.0: repaired
    68 what is normal was measured before rel-3
       errors: 0.001 (median of 60 samples)
    69 cap-17 restored on trial
    70 cap-17 cannot be relied on any more: checksum differs
    71 alice@desk reported, as P0: customers cannot pay
       as `outage`
    72 rel-3 bakes until 2027-01-15T08:01:30Z
    73 cap-17 pruned
    74 run-40 ended: nobody answered in time, nothing was done
    ");
}
