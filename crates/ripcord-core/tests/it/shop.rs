//! A small application to decide about: a web process, its settings and its database.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ripcord_core::{
    AppId, Application, Authority, Bounds, Call, Climb, Combine, Condition, Digest, Follows, Hold, Ledger, Matrix,
    Means, Missing, Name, Origin, Policy, Release, ReleaseId, Row, Rule, Ruling, Rung, Seq, Severity, SeverityRule,
    Standing, Verdict, Within,
};

/// Seconds after the story's beginning.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(second)
}

pub fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A set of names of whatever type is asked for.
pub fn set<T: std::str::FromStr<Err: std::fmt::Debug> + Ord>(names: &str) -> BTreeSet<T> {
    names.split_whitespace().map(|text| text.parse().unwrap()).collect()
}

pub fn above(at: f64) -> Bounds {
    Bounds { above: Some(at), up_to: None }
}

pub fn up_to(at: f64) -> Bounds {
    Bounds { above: None, up_to: Some(at) }
}

pub fn from_to(above: f64, up_to: f64) -> Bounds {
    Bounds { above: Some(above), up_to: Some(up_to) }
}

pub fn within(mins: u64) -> Within {
    Within::At { most: minutes(mins) }
}

/// What a row says: `P1` is severity 1.
pub fn says(severity: u8, call: Call, within: Within) -> Ruling {
    Ruling { call, severity: Severity(severity), within, strategy: None, automatic: false }
}

pub fn automatic(ruling: Ruling) -> Ruling {
    Ruling { automatic: true, ..ruling }
}

pub fn strategy(ruling: Ruling, strategy: &str) -> Ruling {
    Ruling { strategy: Some(name(strategy)), ..ruling }
}

pub fn row(title: &str, issues: &str, combine: Combine, cells: &[(&str, Bounds)], ruling: Ruling) -> Row {
    let cells = cells.iter().map(|(figure, bounds)| (name(figure), *bounds)).collect();
    Row { name: title.to_owned(), issues: set(issues), cells, combine, ruling }
}

pub fn rule(id: &str, issue: &str, points_at: &str) -> Rule {
    Rule {
        id: id.parse().unwrap(),
        signal: "errors".parse().unwrap(),
        condition: Condition::Above(0.05),
        hold: Hold::For { at_least: minutes(3) },
        clear: None,
        at_least: None,
        missing: Missing::Page,
        errors: Missing::Page,
        absent_for: None,
        interval: Duration::from_secs(10),
        when: None,
        severity: Severity(1),
        issue: name(issue),
        follows: Follows::Decide,
        points_at: set(points_at),
        source: None,
    }
}

pub fn rung(level: u8, title: &str, means: Means) -> Rung {
    Rung { level, name: name(title), means, climb: Climb::Automatic, budget: minutes(2) }
}

pub fn application() -> Application {
    let authority =
        |automatic, roles: &str, quorum| Authority { automatic, roles: set(roles), quorum, answer_within: minutes(5) };
    let severity = |n, title: &str, authority| {
        let respond_within = minutes(5);
        (Severity(n), SeverityRule { severity: Severity(n), name: name(title), respond_within, authority })
    };
    let toggle = Means::Set { values: BTreeMap::from([("flags".parse().unwrap(), BTreeMap::new())]) };
    let code = Means::Restore { scope: set("web flags") };
    Application {
        id: AppId { application: name("shop"), environment: name("production") },
        config: Digest::of(b"configuration"),
        production: true,
        components: BTreeMap::new(),
        signals: BTreeMap::new(),
        triggers: [("errors-high", "errors", "web"), ("slow", "slow", ""), ("db-lost", "database-lost", "db")]
            .into_iter()
            .map(|(id, issue, points_at)| (id.parse().unwrap(), rule(id, issue, points_at)))
            .collect(),
        figures: BTreeMap::new(),
        matrix: Matrix {
            rows: vec![
                row("clear spike", "errors", Combine::All, &[("errors", above(0.05))], {
                    automatic(says(1, Call::Rollback, within(5)))
                }),
                row("corruption", "corruption", Combine::All, &[], says(0, Call::Rollback, Within::Immediate)),
                row("database lost", "database-lost", Combine::All, &[], {
                    automatic(says(0, Call::Rollback, Within::Immediate))
                }),
                row("slow", "slow", Combine::All, &[("latency", above(2.0))], says(2, Call::Investigate, within(15))),
            ],
            otherwise: says(2, Call::Evaluate, Within::BestEffort),
        },
        severities: BTreeMap::from([
            severity(0, "p0", authority(true, "on-call", 1)),
            severity(1, "p1", authority(true, "engineering-lead", 1)),
            severity(2, "p2", authority(false, "engineering-lead ops-lead", 2)),
        ]),
        strategies: BTreeMap::from([
            (name("usual"), vec![rung(1, "toggle", toggle), rung(2, "code", code)]),
            (name("bare"), vec![]),
        ]),
        default_strategy: name("usual"),
        checks: BTreeMap::new(),
        policy: Policy::default(),
        notify: vec![],
    }
}

pub fn release(number: u64, version: &str, verdict: Verdict, standing: Standing, second: i64) -> Release {
    Release {
        id: ReleaseId::at(Seq(number)),
        version: version.to_owned(),
        origin: Origin::Observed,
        map: BTreeMap::new(),
        config: Digest::of(b"configuration"),
        verdict,
        standing,
        at: at(second),
    }
}

/// v1.0.0 is good; v1.1.0 went live at second 3600.
pub fn ledger() -> Ledger {
    let good = Verdict::Good { by: "bake".to_owned(), at: at(1_800) };
    Ledger {
        releases: vec![
            release(1, "v1.0.0", good, Standing::Superseded, 0),
            release(9, "v1.1.0", Verdict::Undecided, Standing::Live, 3_600),
        ],
        quarantined: BTreeMap::new(),
    }
}
