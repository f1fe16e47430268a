//! The decision tables of five real systems' rollback procedures, row by row and gap by gap.
//!
//! Where a procedure contradicts itself or leaves a gap, a comment says what holds and why. `otherwise` always means: evaluate,
//! and a person is paged.

use std::time::Duration;

use ripcord_core::{
    Call, Combine, Condition, Hold, Matrix, Memory, Reading, Rule, Sample, TriggerState, Within, advance_in_place,
};

use crate::matrix::{faults, say};
use crate::shop::{above, at, automatic, from_to, minutes, row, rule, says, strategy, up_to, within};

fn table(matrix: &Matrix, cases: &[&str]) -> String {
    assert_eq!(faults(matrix), "", "the table contradicts itself");
    cases.iter().map(|case| format!("{case}\n    {}", say(matrix, case))).collect::<Vec<_>>().join("\n")
}

/// Docker Compose, eleven services. Either cell is enough for the critical and the major feature, all are needed for the last
/// three rows. Each answer has a severity of its own, because two answers of one severity would contradict each other when two
/// issues are open at once.
fn agentic_platform() -> Matrix {
    let critical = [("errors", above(0.05)), ("latency", above(5.0))];
    Matrix {
        rows: vec![
            row(
                "complete outage, data corruption or security breach",
                "outage data-corruption security-breach",
                Combine::All,
                &[],
                says(0, Call::Rollback, Within::Immediate),
            ),
            // Goes back only where the release touched schema or data, which blame sees to; see `decide`.
            row(
                "replication broken",
                "replication-broken",
                Combine::All,
                &[],
                says(0, Call::Rollback, Within::Immediate),
            ),
            row("critical feature down", "critical-feature-down", Combine::Any, &critical, {
                says(1, Call::Rollback, within(5))
            }),
            row(
                "major feature down",
                "major-feature-down",
                Combine::Any,
                &[("errors", above(0.02)), ("latency", above(2.0))],
                says(2, Call::Evaluate, within(15)),
            ),
            row(
                "performance degradation",
                "slow",
                Combine::All,
                &[("errors", up_to(0.01)), ("latency", above(2.0))],
                says(2, Call::Evaluate, within(15)),
            ),
            row(
                "minor feature down",
                "minor-feature-down",
                Combine::All,
                &[("errors", up_to(0.01)), ("latency", up_to(1.0))],
                says(3, Call::Monitor, within(30)),
            ),
            row(
                "user interface glitch",
                "glitch",
                Combine::All,
                &[("errors", up_to(0.001)), ("latency", up_to(0.5))],
                says(4, Call::Monitor, Within::BestEffort),
            ),
        ],
        // "Consider" of the procedure: errors of 1 to 5 %, twice to ten times slower, within half an hour.
        otherwise: says(2, Call::Evaluate, within(30)),
    }
}

#[test]
fn agentic_platform_decides_as_its_table_says() {
    let cases = [
        "outage |",
        "data-corruption | errors 0, latency 0.1",
        "security-breach |",
        "replication-broken |",
        "critical-feature-down | errors 0.06, latency 0.2",
        "critical-feature-down | errors 0.01, latency 5.1",
        "critical-feature-down | latency 6",
        "critical-feature-down | errors 0.05, latency 5",
        "major-feature-down | errors 0.021, latency 0.2",
        "major-feature-down | errors 0.02, latency 2",
        "minor-feature-down | errors 0.009, latency 0.9",
        "minor-feature-down | errors 0.009, latency 1.5",
        "minor-feature-down | errors 0.009",
        "slow | errors 0.001, latency 2.5",
        "slow | errors 0.03, latency 2.5",
        "glitch | errors 0.0005, latency 0.4",
        "glitch | errors 0.005, latency 0.4",
        "glitch, critical-feature-down | errors 0.06, latency 0.4",
        "| errors 0.03, latency 0.4",
    ];
    insta::assert_snapshot!(table(&agentic_platform(), &cases), @r"
    outage |
        P0 rollback, immediate: row `complete outage, data corruption or security breach`: issue `outage`
    data-corruption | errors 0, latency 0.1
        P0 rollback, immediate: row `complete outage, data corruption or security breach`: issue `data-corruption`
    security-breach |
        P0 rollback, immediate: row `complete outage, data corruption or security breach`: issue `security-breach`
    replication-broken |
        P0 rollback, immediate: row `replication broken`: issue `replication-broken`
    critical-feature-down | errors 0.06, latency 0.2
        P1 rollback, within 5 min: row `critical feature down`: issue `critical-feature-down`, errors 6 % is above 5 %
    critical-feature-down | errors 0.01, latency 5.1
        P1 rollback, within 5 min: row `critical feature down`: issue `critical-feature-down`, latency 5.1 s is above 5 s
    critical-feature-down | latency 6
        P1 rollback, within 5 min: row `critical feature down`: issue `critical-feature-down`, latency 6 s is above 5 s
    critical-feature-down | errors 0.05, latency 5
        P2 evaluate, within 30 min: no row matches, so: evaluate
    major-feature-down | errors 0.021, latency 0.2
        P2 evaluate, within 15 min: row `major feature down`: issue `major-feature-down`, errors 2.1 % is above 2 %
    major-feature-down | errors 0.02, latency 2
        P2 evaluate, within 30 min: no row matches, so: evaluate
    minor-feature-down | errors 0.009, latency 0.9
        P3 monitor, within 30 min: row `minor feature down`: issue `minor-feature-down`, errors 0.9 % is at most 1 %, latency 900 ms is at most 1 s
    minor-feature-down | errors 0.009, latency 1.5
        P2 evaluate, within 30 min: no row matches, so: evaluate
    minor-feature-down | errors 0.009
        P2 evaluate, within 30 min: no row matches, so: evaluate; row `minor feature down` (monitor) cannot be told: there is no data for `latency`
    slow | errors 0.001, latency 2.5
        P2 evaluate, within 15 min: row `performance degradation`: issue `slow`, errors 0.1 % is at most 1 %, latency 2.5 s is above 2 s
    slow | errors 0.03, latency 2.5
        P2 evaluate, within 30 min: no row matches, so: evaluate
    glitch | errors 0.0005, latency 0.4
        P4 monitor, best effort: row `user interface glitch`: issue `glitch`, errors 0.05 % is at most 0.1 %, latency 400 ms is at most 500 ms
    glitch | errors 0.005, latency 0.4
        P2 evaluate, within 30 min: no row matches, so: evaluate
    glitch, critical-feature-down | errors 0.06, latency 0.4
        P1 rollback, within 5 min: row `critical feature down`: issue `critical-feature-down`, errors 6 % is above 5 %
    | errors 0.03, latency 0.4
        P2 evaluate, within 30 min: no row matches, so: evaluate
    ");
}

/// Node under pm2. A share of users between 10 and 25 % counts as major, which the procedure leaves open; `slowdown` is how much
/// slower than before the release (0.5: half as long again).
fn spawn_upload_app() -> Matrix {
    let major = [("errors", from_to(0.01, 0.05)), ("slowdown", above(0.5)), ("users", above(0.1))];
    let minor = [("errors", from_to(0.0, 0.01)), ("slowdown", from_to(0.25, 0.5)), ("users", from_to(0.0, 0.1))];
    Matrix {
        rows: vec![
            row(
                "crash, loss, vulnerability or a feature gone for all",
                "crash data-loss vulnerability feature-gone",
                Combine::All,
                &[],
                says(0, Call::Rollback, Within::Immediate),
            ),
            row(
                "errors over 5 %",
                "",
                Combine::All,
                &[("errors", above(0.05))],
                says(0, Call::Rollback, Within::Immediate),
            ),
            row(
                "memory leak or critical bugs",
                "memory-leak critical-bug",
                Combine::All,
                &[],
                says(1, Call::Evaluate, within(30)),
            ),
            row("major", "", Combine::Any, &major, says(1, Call::Evaluate, within(30))),
            row("small faults", "small-fault", Combine::All, &[], says(2, Call::Monitor, Within::BestEffort)),
            row("minor", "", Combine::Any, &minor, says(2, Call::Monitor, Within::BestEffort)),
        ],
        otherwise: says(1, Call::Evaluate, within(30)),
    }
}

#[test]
fn spawn_upload_app_decides_as_its_criteria_say() {
    let cases = [
        "crash |",
        "feature-gone | errors 0.001, slowdown 0, users 1",
        "| errors 0.051, slowdown 0, users 0.01",
        "| errors 0.05, slowdown 0, users 0.01",
        "| errors 0.011, slowdown 0, users 0",
        "| errors 0, slowdown 0.51, users 0",
        "| errors 0, slowdown 0.5, users 0",
        "| errors 0, slowdown 0, users 0.26",
        "| errors 0, slowdown 0, users 0.2",
        "| errors 0, slowdown 0, users 0.1",
        "memory-leak | errors 0, slowdown 0, users 0",
        "critical-bug |",
        "| errors 0.009, slowdown 0, users 0",
        "small-fault | errors 0, slowdown 0, users 0",
        "| errors 0, slowdown 0.2, users 0",
        "| errors 0.009",
        "|",
    ];
    insta::assert_snapshot!(table(&spawn_upload_app(), &cases), @r"
    crash |
        P0 rollback, immediate: row `crash, loss, vulnerability or a feature gone for all`: issue `crash`
    feature-gone | errors 0.001, slowdown 0, users 1
        P0 rollback, immediate: row `crash, loss, vulnerability or a feature gone for all`: issue `feature-gone`
    | errors 0.051, slowdown 0, users 0.01
        P0 rollback, immediate: row `errors over 5 %`: errors 5.1 % is above 5 %
    | errors 0.05, slowdown 0, users 0.01
        P1 evaluate, within 30 min: row `major`: errors 5 % is above 1 % and at most 5 %
    | errors 0.011, slowdown 0, users 0
        P1 evaluate, within 30 min: row `major`: errors 1.1 % is above 1 % and at most 5 %
    | errors 0, slowdown 0.51, users 0
        P1 evaluate, within 30 min: row `major`: slowdown 0.51 is above 0.5
    | errors 0, slowdown 0.5, users 0
        P2 monitor, best effort: row `minor`: slowdown 0.5 is above 0.25 and at most 0.5
    | errors 0, slowdown 0, users 0.26
        P1 evaluate, within 30 min: row `major`: users 26 % is above 10 %
    | errors 0, slowdown 0, users 0.2
        P1 evaluate, within 30 min: row `major`: users 20 % is above 10 %
    | errors 0, slowdown 0, users 0.1
        P2 monitor, best effort: row `minor`: users 10 % is above 0 % and at most 10 %
    memory-leak | errors 0, slowdown 0, users 0
        P1 evaluate, within 30 min: row `memory leak or critical bugs`: issue `memory-leak`
    critical-bug |
        P1 evaluate, within 30 min: row `memory leak or critical bugs`: issue `critical-bug`; row `errors over 5 %` (rollback) cannot be told: there is no data for `errors`
    | errors 0.009, slowdown 0, users 0
        P2 monitor, best effort: row `minor`: errors 0.9 % is above 0 % and at most 1 %
    small-fault | errors 0, slowdown 0, users 0
        P2 monitor, best effort: row `small faults`: issue `small-fault`
    | errors 0, slowdown 0.2, users 0
        P1 evaluate, within 30 min: no row matches, so: evaluate
    | errors 0.009
        P2 monitor, best effort: row `minor`: errors 0.9 % is above 0 % and at most 1 %; row `major` (evaluate) cannot be told: there is no data for `slowdown`, `users`
    |
        P1 evaluate, within 30 min: no row matches, so: evaluate; row `errors over 5 %` (rollback) cannot be told: there is no data for `errors`; row `minor` (monitor) cannot be told: there is no data for `errors`, `slowdown`, `users`
    ");
}

/// Kubernetes on AWS. Of the automatic gates, a lost database is one only where blame holds: rolling code back does not bring a
/// database back. Errors of 0.5 to 1 %, and more without latency over 5 s, are gaps of the table: evaluated within 5 minutes.
fn squad_api() -> Matrix {
    let spike = [("errors", above(0.01)), ("latency", above(5.0))];
    Matrix {
        rows: vec![
            row(
                "data corruption or breach",
                "data-corruption breach",
                Combine::All,
                &[],
                says(0, Call::Rollback, Within::Immediate),
            ),
            row(
                "database lost",
                "database-lost",
                Combine::All,
                &[],
                automatic(says(0, Call::Rollback, Within::Immediate)),
            ),
            row("all providers down", "providers-down", Combine::All, &[("errors", above(0.01))], {
                automatic(says(0, Call::Rollback, Within::Immediate))
            }),
            row("high error spike", "", Combine::All, &spike, automatic(says(1, Call::Rollback, within(2)))),
            row("errors over 0.5 %", "", Combine::All, &[("errors", above(0.005))], says(2, Call::Evaluate, within(5))),
            row("degraded latency", "", Combine::All, &[("errors", up_to(0.005)), ("latency", above(3.0))], {
                says(3, Call::Investigate, within(5))
            }),
            row(
                "rate limiting",
                "rate-limiting",
                Combine::All,
                &[("errors", up_to(0.005)), ("latency", up_to(3.0))],
                says(4, Call::Monitor, within(10)),
            ),
        ],
        otherwise: says(2, Call::Evaluate, within(5)),
    }
}

#[test]
fn squad_api_decides_as_its_table_says() {
    let cases = [
        "data-corruption |",
        "breach | errors 0, latency 0.1",
        "database-lost | errors 0.9, latency 9",
        "database-lost, data-corruption |",
        "providers-down | errors 0.02, latency 0.1",
        "providers-down | errors 0.01, latency 0.1",
        "providers-down |",
        "error-spike | errors 0.011, latency 5.1",
        "error-spike | errors 0.011, latency 5",
        "error-spike | errors 0.011",
        "| errors 0.01, latency 1",
        "| errors 0.007, latency 9",
        "| errors 0.005, latency 3.1",
        "rate-limiting | errors 0.004, latency 0.5",
        "rate-limiting | errors 0.004, latency 4",
        "| errors 0.004, latency 0.5",
    ];
    insta::assert_snapshot!(table(&squad_api(), &cases), @r"
    data-corruption |
        P0 rollback, immediate: row `data corruption or breach`: issue `data-corruption`
    breach | errors 0, latency 0.1
        P0 rollback, immediate: row `data corruption or breach`: issue `breach`
    database-lost | errors 0.9, latency 9
        P0 rollback, immediate, automatic: row `database lost`: issue `database-lost`
    database-lost, data-corruption |
        P0 rollback, immediate: row `data corruption or breach`: issue `data-corruption`; row `database lost`: issue `database-lost`
    providers-down | errors 0.02, latency 0.1
        P0 rollback, immediate, automatic: row `all providers down`: issue `providers-down`, errors 2 % is above 1 %
    providers-down | errors 0.01, latency 0.1
        P2 evaluate, within 5 min: row `errors over 0.5 %`: errors 1 % is above 0.5 %
    providers-down |
        P2 evaluate, within 5 min: no row matches, so: evaluate; row `all providers down` (rollback) cannot be told: there is no data for `errors`; row `high error spike` (rollback) cannot be told: there is no data for `errors`, `latency`; row `degraded latency` (investigate) cannot be told: there is no data for `errors`, `latency`
    error-spike | errors 0.011, latency 5.1
        P1 rollback, within 2 min, automatic: row `high error spike`: errors 1.1 % is above 1 %, latency 5.1 s is above 5 s
    error-spike | errors 0.011, latency 5
        P2 evaluate, within 5 min: row `errors over 0.5 %`: errors 1.1 % is above 0.5 %
    error-spike | errors 0.011
        P2 evaluate, within 5 min: row `errors over 0.5 %`: errors 1.1 % is above 0.5 %; row `high error spike` (rollback) cannot be told: there is no data for `latency`
    | errors 0.01, latency 1
        P2 evaluate, within 5 min: row `errors over 0.5 %`: errors 1 % is above 0.5 %
    | errors 0.007, latency 9
        P2 evaluate, within 5 min: row `errors over 0.5 %`: errors 0.7 % is above 0.5 %
    | errors 0.005, latency 3.1
        P3 investigate, within 5 min: row `degraded latency`: errors 0.5 % is at most 0.5 %, latency 3.1 s is above 3 s
    rate-limiting | errors 0.004, latency 0.5
        P4 monitor, within 10 min: row `rate limiting`: issue `rate-limiting`, errors 0.4 % is at most 0.5 %, latency 500 ms is at most 3 s
    rate-limiting | errors 0.004, latency 4
        P3 investigate, within 5 min: row `degraded latency`: errors 0.4 % is at most 0.5 %, latency 4 s is above 3 s
    | errors 0.004, latency 0.5
        P2 evaluate, within 5 min: no row matches, so: evaluate
    ");
}

/// API, worker and dashboard on Compose or Render. P2 is 5 to 10 % of errors (the criteria), not less than 5 % (the table):
/// less is P3. P2 goes back within the hour, unless a fix is known; who knows one declines. `slowdown` is p95 by the baseline.
fn agents_platform() -> Matrix {
    let five = "health-failing errors-5xx database-timeouts queue-stalled oom-kills";
    let p0 = "outage data-corruption vulnerability authentication-down migration-corrupted";
    let p1 = "agent-execution webhooks integration-failing restarts";
    Matrix {
        rows: vec![
            row("P0", p0, Combine::All, &[], says(0, Call::Rollback, within(5))),
            row("the automatic five", five, Combine::All, &[], automatic(says(0, Call::Rollback, within(5)))),
            row("P1", p1, Combine::All, &[], says(1, Call::Rollback, within(15))),
            row("P1 by figures", "", Combine::Any, &[("errors", above(0.1)), ("slowdown", above(3.0))], {
                says(1, Call::Rollback, within(15))
            }),
            row("P2", "dashboard reports cpu-high", Combine::All, &[], says(2, Call::Rollback, within(60))),
            row(
                "P2 by figures",
                "",
                Combine::Any,
                &[("errors", from_to(0.05, 0.1)), ("slowdown", from_to(2.0, 3.0))],
                says(2, Call::Rollback, within(60)),
            ),
            row("P3", "", Combine::All, &[("errors", up_to(0.05)), ("slowdown", up_to(2.0))], {
                says(3, Call::FixForward, Within::BestEffort)
            }),
        ],
        otherwise: says(2, Call::Evaluate, within(60)),
    }
}

#[test]
fn agents_platform_decides_by_severity() {
    // `otherwise` says something else than the P2 rows, and may: it holds only where no row matches.
    let cases = [
        "outage |",
        "health-failing | errors 0.01, slowdown 1",
        "errors-5xx | errors 0.06, slowdown 1",
        "database-timeouts |",
        "queue-stalled |",
        "oom-kills |",
        "oom-kills, data-corruption |",
        "webhooks | errors 0, slowdown 1",
        "| errors 0.11, slowdown 1",
        "| errors 0, slowdown 3.1",
        "dashboard | errors 0, slowdown 1",
        "| errors 0.1, slowdown 1",
        "| errors 0.051, slowdown 1",
        "| errors 0, slowdown 3",
        "| errors 0.05, slowdown 2",
        "cosmetic | errors 0, slowdown 1",
        "cosmetic |",
    ];
    insta::assert_snapshot!(table(&agents_platform(), &cases), @r"
    outage |
        P0 rollback, within 5 min: row `P0`: issue `outage`
    health-failing | errors 0.01, slowdown 1
        P0 rollback, within 5 min, automatic: row `the automatic five`: issue `health-failing`
    errors-5xx | errors 0.06, slowdown 1
        P0 rollback, within 5 min, automatic: row `the automatic five`: issue `errors-5xx`
    database-timeouts |
        P0 rollback, within 5 min, automatic: row `the automatic five`: issue `database-timeouts`
    queue-stalled |
        P0 rollback, within 5 min, automatic: row `the automatic five`: issue `queue-stalled`
    oom-kills |
        P0 rollback, within 5 min, automatic: row `the automatic five`: issue `oom-kills`
    oom-kills, data-corruption |
        P0 rollback, within 5 min: row `P0`: issue `data-corruption`; row `the automatic five`: issue `oom-kills`
    webhooks | errors 0, slowdown 1
        P1 rollback, within 15 min: row `P1`: issue `webhooks`
    | errors 0.11, slowdown 1
        P1 rollback, within 15 min: row `P1 by figures`: errors 11 % is above 10 %
    | errors 0, slowdown 3.1
        P1 rollback, within 15 min: row `P1 by figures`: slowdown 3.1 is above 3
    dashboard | errors 0, slowdown 1
        P2 rollback, within 1 h: row `P2`: issue `dashboard`
    | errors 0.1, slowdown 1
        P2 rollback, within 1 h: row `P2 by figures`: errors 10 % is above 5 % and at most 10 %
    | errors 0.051, slowdown 1
        P2 rollback, within 1 h: row `P2 by figures`: errors 5.1 % is above 5 % and at most 10 %
    | errors 0, slowdown 3
        P2 rollback, within 1 h: row `P2 by figures`: slowdown 3 is above 2 and at most 3
    | errors 0.05, slowdown 2
        P3 fix forward, best effort: row `P3`: errors 5 % is at most 5 %, slowdown 2 is at most 2
    cosmetic | errors 0, slowdown 1
        P3 fix forward, best effort: row `P3`: errors 0 % is at most 5 %, slowdown 1 is at most 2
    cosmetic |
        P2 evaluate, within 1 h: no row matches, so: evaluate; row `P1 by figures` (rollback) cannot be told: there is no data for `errors`, `slowdown`; row `P2 by figures` (rollback) cannot be told: there is no data for `errors`, `slowdown`; row `P3` (fix forward) cannot be told: there is no data for `errors`, `slowdown`
    ");
}

/// Python under systemd. The table's times are downtimes, which are the strategies' budgets; a deadline it names only for the
/// critical case, which needs no approval.
fn agents_orchestration() -> Matrix {
    let case = |title: &str, issue: &str, ruling| row(title, issue, Combine::All, &[], ruling);
    let by_and_by = |severity, how| strategy(says(severity, Call::Rollback, Within::BestEffort), how);
    Matrix {
        rows: vec![
            case("critical", "system-wide", automatic(strategy(says(0, Call::Rollback, Within::Immediate), "full"))),
            case("high", "several-agents", by_and_by(1, "code")),
            case("medium", "one-agent", by_and_by(2, "partial")),
            case("low", "configuration", by_and_by(3, "configuration")),
        ],
        otherwise: says(2, Call::Evaluate, Within::BestEffort),
    }
}

#[test]
fn agents_orchestration_takes_the_strategy_of_the_severity() {
    let cases = [
        "system-wide |",
        "several-agents |",
        "one-agent |",
        "configuration |",
        "configuration, one-agent |",
        "something-else |",
    ];
    insta::assert_snapshot!(table(&agents_orchestration(), &cases), @r"
    system-wide |
        P0 rollback, immediate, full, automatic: row `critical`: issue `system-wide`
    several-agents |
        P1 rollback, best effort, code: row `high`: issue `several-agents`
    one-agent |
        P2 rollback, best effort, partial: row `medium`: issue `one-agent`
    configuration |
        P3 rollback, best effort, configuration: row `low`: issue `configuration`
    configuration, one-agent |
        P2 rollback, best effort, partial: row `medium`: issue `one-agent`
    something-else |
        P2 evaluate, best effort: no row matches, so: evaluate
    ");
}

/// When a rule first fires over a constant value sampled every ten seconds, in seconds.
fn fires_after(rule: &Rule, value: f64, baseline: Option<f64>, lasting: Duration) -> Option<i64> {
    let mut memory = Memory::default();
    (0..=lasting.as_secs() as i64).step_by(10).find(|second| {
        let reading = Reading::Samples(vec![Sample { n: Some(500.0), ..Sample::new(at(*second), value) }]);
        let changed = advance_in_place(rule, &mut memory, &reading, baseline, at(*second));
        matches!(changed, Some(TriggerState::Breached { .. }))
    })
}

fn sustained(condition: Condition, mins: u64) -> Rule {
    Rule { condition, hold: Hold::For { at_least: minutes(mins) }, ..rule("rule", "errors", "") }
}

/// System 1: "ten times slower" and "over 5 s" are two triggers, and either is enough.
#[test]
fn ten_times_slower_and_over_five_seconds_are_two_triggers() {
    let times = sustained(Condition::AboveBaseline { times: 10.0, floor: 0.5 }, 2);
    let seconds = sustained(Condition::Above(5.0), 2);
    let fires = |value, baseline| {
        [&times, &seconds].map(|rule| fires_after(rule, value, Some(baseline), minutes(10)).is_some())
    };
    assert_eq!(fires(2.1, 0.2), [true, false]);
    assert_eq!(fires(5.1, 1.0), [false, true]);
    assert_eq!(fires(12.0, 1.0), [true, true]);
    assert_eq!(fires(0.4, 0.01), [false, false], "ten times almost nothing is under the floor");
}

/// System 2: more than 5 % for less than five minutes stays pending.
#[test]
fn five_percent_for_less_than_five_minutes_stays_pending() {
    let rule = sustained(Condition::Above(0.05), 5);
    assert_eq!(fires_after(&rule, 0.06, None, Duration::from_secs(299)), None);
    assert_eq!(fires_after(&rule, 0.06, None, minutes(5)), Some(300));
}

/// System 4: the automatic 5 % for 3 minutes fires before the manual 10 % for 5 minutes; that is intended.
#[test]
fn the_automatic_rule_fires_before_the_manual_one() {
    let automatic = sustained(Condition::Above(0.05), 3);
    let manual = sustained(Condition::Above(0.1), 5);
    assert_eq!(fires_after(&automatic, 0.2, None, minutes(10)), Some(180));
    assert_eq!(fires_after(&manual, 0.2, None, minutes(10)), Some(300));
}
