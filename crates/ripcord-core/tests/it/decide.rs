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
    insta::assert_snapshot!(say(|_| {}), @"");
    insta::assert_snapshot!(say(|case| case.touched = None), @"");
}

#[test]
fn what_is_not_the_release_is_not_rolled_back() {
    insta::assert_snapshot!(say(|case| {
        case.memories.insert("errors-high".parse().unwrap(), breached(3_000));
    }), @"");
    insta::assert_snapshot!(say(|case| case.touched = Some(set("db"))), @"");
    insta::assert_snapshot!(say(|case| case.touched = Some(BTreeSet::new())), @"");
    // Rolling code back does not bring a database back, unless the release touched it.
    insta::assert_snapshot!(say(|case| {
        case.facts.breaches = set("db-lost");
        case.memories.insert("db-lost".parse().unwrap(), breached(4_000));
    }), @"");
    // One breach that accuses the release is enough, whatever was there before.
    insta::assert_snapshot!(say(|case| {
        case.facts.breaches = set("db-lost errors-high");
        case.memories.insert("db-lost".parse().unwrap(), breached(100));
    }), @"");
}

#[test]
fn an_old_release_is_not_suspected_without_a_person() {
    insta::assert_snapshot!(say(|case| {
        case.now = 3_600 + 25 * 3_600;
        case.memories.insert("errors-high".parse().unwrap(), breached(3_600 + 24 * 3_600));
    }), @"");
}

#[test]
fn without_a_target_there_is_nothing_to_go_back_to() {
    insta::assert_snapshot!(say(|case| case.ledger.releases[0].verdict = Verdict::Undecided), @"");
    insta::assert_snapshot!(say(|case| {
        case.ledger.releases.remove(0);
        case.now = 3_600 + 25 * 3_600;
    }), @"");
    insta::assert_snapshot!(say(|case| case.ledger = Ledger::default()), @"");
}

#[test]
fn there_is_one_automatic_attempt() {
    insta::assert_snapshot!(say(|case| case.attempted = true), @"");
    insta::assert_snapshot!(say(|case| case.ledger.releases[1].origin = Origin::Restored { run: RunId::at(Seq(7)) }), @"");
}

#[test]
fn nothing_is_begun_blind() {
    insta::assert_snapshot!(say(|case| {
        let state = TriggerState::NoData { since: at(4_100) };
        let before_gap = Some(Box::new(TriggerState::Breached { since: at(4_020) }));
        case.memories.insert("errors-high".parse().unwrap(), Memory { before_gap, ..memory(state, 4_020) });
    }), @"");
    insta::assert_snapshot!(say(|case| {
        let state = TriggerState::Error { since: at(4_100), why: "HTTP 502".to_owned() };
        case.memories.insert("errors-high".parse().unwrap(), memory(state, 4_020));
    }), @"");
    insta::assert_snapshot!(say(|case| case.memories.clear()), @"");
    insta::assert_snapshot!(say(|case| {
        let row = &mut case.application.matrix.rows[1];
        row.issues.clear();
        row.cells = BTreeMap::from([(name("rows-lost"), crate::shop::above(0.0))]);
    }), @"");
}

#[test]
fn people_are_asked_where_the_matrix_or_the_severity_leaves_it_to_them() {
    insta::assert_snapshot!(say(|case| case.facts.issues = set("corruption")), @"");
    insta::assert_snapshot!(say(|case| {
        case.application.severities.get_mut(&Severity(1)).unwrap().authority.automatic = false;
    }), @"");
    insta::assert_snapshot!(say(|case| {
        case.application.severities.clear();
    }), @"");
}

#[test]
fn a_strategy_without_rungs_is_no_way_back() {
    insta::assert_snapshot!(say(|case| case.application.default_strategy = name("bare")), @"");
}

#[test]
fn other_calls_stand_and_offer_what_they_name() {
    insta::assert_snapshot!(say(|case| case.facts.issues = set("nothing-known")), @"");
    insta::assert_snapshot!(say(|case| {
        case.facts = Facts { issues: set("slow"), figures: figures(&[("latency", 3.0)]), ..Facts::default() };
        case.application.matrix.rows[2].ruling.strategy = Some(name("usual"));
    }), @"");
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
            by: Actor::Policy,
            closed: None,
        });
    }), @"");
}

#[test]
fn a_persons_report_without_a_breach_suspects_a_young_release() {
    insta::assert_snapshot!(say(|case| {
        case.facts.breaches.clear();
        case.memories.clear();
    }), @"");
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
