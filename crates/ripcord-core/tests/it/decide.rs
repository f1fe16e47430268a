//! From breaches to a decision, case by case.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ripcord_core::{
    Actor, Application, ComponentId, Decision, Digest, Facts, Incident, IncidentId, Known, Ledger, Memory, Name,
    Origin, RunId, Seq, Severity, TriggerId, TriggerState, Verdict, decide,
};

use crate::shop::{application, at, ledger, name, set};

/// A case: what is normal for a clear rollback, and what is different.
struct Case {
    application: Application,
    ledger: Ledger,
    incident: Option<Incident>,
    memories: BTreeMap<TriggerId, Memory>,
    facts: Facts,
    touched: Option<BTreeSet<ComponentId>>,
    attempted: bool,
    now: i64,
}

const NOW: i64 = 3_600 + 600;

fn memory(state: TriggerState, onset: i64) -> Memory {
    Memory { state, onset: Some(at(onset)), ..Memory::default() }
}

fn breached(onset: i64) -> Memory {
    memory(TriggerState::Breached { since: at(onset) }, onset)
}

fn figures(pairs: &[(&str, f64)]) -> BTreeMap<Name, f64> {
    pairs.iter().map(|(figure, value)| (name(figure), *value)).collect()
}

/// `errors-high` breached seven minutes after v1.1.0, which changed `web`.
fn clear_case() -> Case {
    Case {
        application: application(),
        ledger: ledger(),
        incident: None,
        memories: BTreeMap::from([("errors-high".parse().unwrap(), breached(3_600 + 420))]),
        facts: Facts {
            issues: set("errors"),
            figures: figures(&[("errors", 0.2), ("latency", 0.3)]),
            severity: Some(Severity(1)),
            breaches: set("errors-high"),
        },
        touched: Some(set("web")),
        attempted: false,
        now: NOW,
    }
}

fn ruled(case: &Case) -> Decision {
    let known = Known {
        application: &case.application,
        ledger: &case.ledger,
        incident: case.incident.as_ref(),
        memories: &case.memories,
        facts: &case.facts,
        evidence: Digest::of(b"evidence"),
        touched: case.touched.as_ref(),
        attempted: case.attempted,
    };
    decide(&known, at(case.now))
}

fn say(change: impl FnOnce(&mut Case)) -> String {
    let mut case = clear_case();
    change(&mut case);
    let decision = ruled(&case);
    let who = match decision.automatic {
        true => "automatic".to_owned(),
        false => format!(
            "ask {} of {:?}",
            decision.authority.quorum,
            decision.authority.roles.iter().map(Name::as_str).collect::<Vec<_>>()
        ),
    };
    let by = decision
        .act_by
        .map_or("best effort".to_owned(), |by| format!("by +{} s", by.as_second() - at(case.now).as_second()));
    let ladder: Vec<&str> = decision.ladder.iter().map(|rung| rung.name.as_str()).collect();
    format!("{} {}; {who}; {by}; {:?}\n  {}", decision.severity, decision.call, ladder, decision.reasons.join("\n  "))
}

#[test]
fn a_clear_case_goes_back_at_once() {
    insta::assert_snapshot!(say(|_| {}), @r#"
    P1 rollback; automatic; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
    "#);
    insta::assert_snapshot!(say(|case| case.touched = None), @r#"
    P1 rollback; automatic; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
    "#);
}

#[test]
fn what_is_not_the_release_is_not_rolled_back() {
    insta::assert_snapshot!(say(|case| {
        case.memories.insert("errors-high".parse().unwrap(), breached(3_000));
    }), @r#"
    P1 do not roll back; ask 1 of ["engineering-lead"]; by +300 s; []
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.0.0 is the last known good
      it is not the release: `errors-high` was bad 10 min before v1.1.0 went live
    "#);
    insta::assert_snapshot!(say(|case| case.touched = Some(set("db"))), @r#"
    P1 do not roll back; ask 1 of ["engineering-lead"]; by +300 s; []
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.0.0 is the last known good
      it is not the release: `errors-high` points at `web`, and v1.1.0 changed only `db`
    "#);
    insta::assert_snapshot!(say(|case| case.touched = Some(BTreeSet::new())), @r#"
    P1 do not roll back; ask 1 of ["engineering-lead"]; by +300 s; []
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.0.0 is the last known good
      it is not the release: v1.1.0 changed nothing
    "#);
    // One breach that accuses the release is enough, whatever was there before.
    insta::assert_snapshot!(say(|case| {
        case.facts.breaches = set("slow errors-high");
        case.facts.issues = set("slow errors");
        case.memories.insert("slow".parse().unwrap(), breached(100));
    }), @r#"
    P1 rollback; automatic; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
    "#);
}

/// Rolling code back does not bring a database back, unless the release touched it; the errors that a lost database makes
/// everywhere do not accuse the release either.
#[test]
fn a_lost_database_is_rolled_back_only_where_the_release_touched_it() {
    let lost = |touched: &'static str| {
        move |case: &mut Case| {
            case.facts.breaches = set("db-lost errors-high");
            case.facts.issues = set("database-lost errors");
            case.memories.insert("db-lost".parse().unwrap(), breached(4_000));
            case.touched = Some(set(touched));
        }
    };
    insta::assert_snapshot!(say(lost("web")), @r#"
    P0 do not roll back; ask 1 of ["on-call"]; by +0 s; []
      row `database lost`: issue `database-lost`
      v1.0.0 is the last known good
      it is not the release: `db-lost` points at `db`, and v1.1.0 changed only `web`
    "#);
    insta::assert_snapshot!(say(lost("web db")), @r#"
    P0 rollback; automatic; by +0 s; ["toggle", "code"]
      row `database lost`: issue `database-lost`
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
    "#);
}

#[test]
fn an_old_release_is_not_suspected_without_a_person() {
    insta::assert_snapshot!(say(|case| {
        case.now = 3_600 + 25 * 3_600;
        case.memories.insert("errors-high".parse().unwrap(), breached(3_600 + 24 * 3_600));
    }), @r#"
    P1 evaluate; ask 1 of ["engineering-lead"]; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.0.0 is the last known good
      v1.1.0 has been live for 1 d 1 h, and a release is suspected for 1 d only
    "#);
}

#[test]
fn without_a_target_there_is_nothing_to_go_back_to() {
    insta::assert_snapshot!(say(|case| case.ledger.releases[0].verdict = Verdict::Undecided), @r#"
    P1 fix forward; ask 1 of ["engineering-lead"]; by +300 s; ["toggle"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      there is nothing to go back to: no earlier release has baked to good: v1.0.0 (never judged good)
    "#);
    insta::assert_snapshot!(say(|case| {
        case.ledger.releases.remove(0);
        case.now = 3_600 + 25 * 3_600;
    }), @r#"
    P1 investigate; ask 1 of ["engineering-lead"]; by +300 s; ["toggle"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      there is nothing to go back to: no earlier release has baked to good: there is none before the live one
      v1.1.0 has been live for 1 d 1 h, and a release is suspected for 1 d only
    "#);
    insta::assert_snapshot!(say(|case| case.ledger = Ledger::default()), @r#"
    P1 investigate; ask 1 of ["engineering-lead"]; by +300 s; ["toggle"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      no release is on record that could be the cause
      there is nothing to go back to: no release of this environment has been recorded
    "#);
}

#[test]
fn there_is_one_automatic_attempt() {
    insta::assert_snapshot!(say(|case| case.attempted = true), @r#"
    P1 evaluate; ask 1 of ["engineering-lead"]; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
      an automatic attempt was made for this release or incident, and there is one only
    "#);
    insta::assert_snapshot!(say(|case| case.ledger.releases[1].origin = Origin::Restored { run: RunId::at(Seq(7)) }), @r#"
    P1 evaluate; ask 1 of ["engineering-lead"]; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
      what is live was put there by run-7: no going back and forth
    "#);
}

#[test]
fn nothing_is_begun_blind() {
    insta::assert_snapshot!(say(|case| {
        let state = TriggerState::NoData { since: at(4_100) };
        let before_gap = Some(Box::new(TriggerState::Breached { since: at(4_020) }));
        case.memories.insert("errors-high".parse().unwrap(), Memory { before_gap, ..memory(state, 4_020) });
    }), @r#"
    P1 evaluate; ask 1 of ["engineering-lead"]; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
      `errors-high` has had no data since 2027-01-15T09:08:20Z
    "#);
    insta::assert_snapshot!(say(|case| {
        let state = TriggerState::Error { since: at(4_100), why: "HTTP 502".to_owned() };
        case.memories.insert("errors-high".parse().unwrap(), memory(state, 4_020));
    }), @r#"
    P1 evaluate; ask 1 of ["engineering-lead"]; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
      `errors-high` cannot be judged since 2027-01-15T09:08:20Z: HTTP 502
    "#);
    insta::assert_snapshot!(say(|case| case.memories.clear()), @r#"
    P1 evaluate; ask 1 of ["engineering-lead"]; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
      nothing is remembered of `errors-high`
    "#);
    insta::assert_snapshot!(say(|case| {
        let row = &mut case.application.matrix.rows[1];
        row.issues.clear();
        row.cells = BTreeMap::from([(name("rows-lost"), crate::shop::above(0.0))]);
    }), @r#"
    P1 evaluate; ask 1 of ["engineering-lead"]; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      row `corruption` (rollback) cannot be told: there is no data for `rows-lost`
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
      nothing is begun while part of the matrix is blind
    "#);
}

#[test]
fn people_are_asked_where_the_matrix_or_the_severity_leaves_it_to_them() {
    insta::assert_snapshot!(say(|case| case.facts.issues = set("corruption")), @r#"
    P0 rollback; ask 1 of ["on-call"]; by +0 s; ["toggle", "code"]
      row `corruption`: issue `corruption`
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
      the matrix leaves this case to people
    "#);
    insta::assert_snapshot!(say(|case| {
        case.application.severities.get_mut(&Severity(1)).unwrap().authority.automatic = false;
    }), @r#"
    P1 rollback; ask 1 of ["engineering-lead"]; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
      P1 asks for the approval of engineering-lead
    "#);
    insta::assert_snapshot!(say(|case| {
        case.application.severities.clear();
    }), @r#"
    P1 rollback; ask 1 of []; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      nobody is named for P1, so it escalates at once
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
      P1 asks for the approval of a person
    "#);
}

#[test]
fn a_strategy_without_rungs_is_no_way_back() {
    insta::assert_snapshot!(say(|case| case.application.default_strategy = name("bare")), @r#"
    P1 evaluate; ask 1 of ["engineering-lead"]; by +300 s; []
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
      the strategy has no rung to climb
    "#);
}

#[test]
fn other_calls_stand_and_offer_what_they_name() {
    insta::assert_snapshot!(say(|case| case.facts.issues = set("nothing-known")), @r#"
    P1 evaluate; ask 1 of ["engineering-lead"]; best effort; []
      no row matches, so: evaluate
    "#);
    insta::assert_snapshot!(say(|case| {
        case.facts = Facts { issues: set("slow"), figures: figures(&[("latency", 3.0)]), ..Facts::default() };
        case.application.matrix.rows[3].ruling.strategy = Some(name("usual"));
    }), @r#"
    P2 investigate; ask 2 of ["engineering-lead", "ops-lead"]; by +900 s; ["toggle", "code"]
      row `slow`: issue `slow`, latency 3 s is above 2 s
    "#);
}

#[test]
fn the_severest_of_ruling_breach_and_incident_says_who_decides() {
    insta::assert_snapshot!(say(|case| {
        case.facts.severity = Some(Severity(2));
        case.incident = Some(Incident {
            id: IncidentId::at(Seq(40)),
            opened: at(4_000),
            severity: Severity(0),
            what: "customers cannot pay".to_owned(),
            triggers: BTreeSet::new(),
            release: None,
            issue: None,
            by: Actor::Policy,
            closed: None,
        });
    }), @r#"
    P0 rollback; automatic; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
    "#);
}

#[test]
fn a_persons_report_without_a_breach_suspects_a_young_release() {
    insta::assert_snapshot!(say(|case| {
        case.facts.breaches.clear();
        case.memories.clear();
    }), @r#"
    P1 rollback; automatic; by +300 s; ["toggle", "code"]
      row `clear spike`: issue `errors`, errors 20 % is above 5 %
      v1.1.0 is the suspect: it went live 10 min ago
      v1.0.0 is the last known good
    "#);
}

/// No single condition of an automatic rollback can be left out: each of the cases above differs from the clear one in one thing.
#[test]
fn rf04_automatic_needs_every_condition() {
    type Change = fn(&mut Case);
    let changes: [Change; 9] = [
        |case| case.application.matrix.rows[0].ruling.automatic = false,
        |case| case.application.severities.get_mut(&Severity(1)).unwrap().authority.automatic = false,
        |case| case.now += 30 * 24 * 3_600,
        |case| case.touched = Some(set("db")),
        |case| case.ledger.releases[0].verdict = Verdict::Bad { why: "crashed".to_owned(), at: at(9) },
        |case| case.attempted = true,
        |case| case.memories.clear(),
        |case| case.facts.figures.clear(),
        |case| case.facts.issues.clear(),
    ];
    assert!(ruled(&clear_case()).automatic);
    for (i, change) in changes.into_iter().enumerate() {
        let mut case = clear_case();
        change(&mut case);
        assert!(!ruled(&case).automatic, "condition {i}");
    }
    let mut just_old_enough = clear_case();
    just_old_enough.now = 3_600 + i64::try_from(Duration::from_secs(24 * 3_600).as_secs()).unwrap();
    assert!(ruled(&just_old_enough).automatic, "at most as old as the policy says");
}
