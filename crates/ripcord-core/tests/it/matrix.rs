//! The decision matrix: three-valued judging, and the proof that nothing in it contradicts itself.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ripcord_core::{Bounds, Call, Combine, Facts, Matrix, MatrixFault, Name, Row, Ruling, Severity, Within};

use crate::shop::{above, automatic, from_to, name, row, says, set, strategy, up_to, within};

fn matrix(rows: Vec<Row>) -> Matrix {
    Matrix { rows, otherwise: says(2, Call::Evaluate, within(15)) }
}

/// `errors, slow | errors 0.032, latency 6`
pub fn facts(text: &str) -> Facts {
    let (issues, figures) = text.split_once('|').unwrap();
    let figure = |pair: &str| {
        let (figure, value) = pair.trim().split_once(' ').unwrap();
        (name(figure), value.parse().unwrap())
    };
    let figures = figures.split(',').filter(|pair| !pair.trim().is_empty()).map(figure).collect();
    Facts { issues: set(&issues.replace(',', " ")), figures, ..Facts::default() }
}

pub fn say(matrix: &Matrix, text: &str) -> String {
    let ruled = matrix.rule(&facts(text));
    let Ruling { call, severity, within, strategy, automatic } = &ruled.ruling;
    let within = match within {
        Within::Immediate => "immediate".to_owned(),
        Within::At { most } => format!("within {}", ripcord_core::human(*most)),
        Within::BestEffort => "best effort".to_owned(),
    };
    let strategy = strategy.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
    let automatic = if *automatic { ", automatic" } else { "" };
    format!("{severity} {call}, {within}{strategy}{automatic}: {}", ruled.reasons.join("; "))
}

pub fn faults(matrix: &Matrix) -> String {
    matrix.faults().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn spike() -> Matrix {
    matrix(vec![
        row("spike", "errors", Combine::All, &[("errors", above(0.01)), ("latency", above(5.0))], {
            automatic(says(0, Call::Rollback, within(2)))
        }),
        row("either", "errors", Combine::Any, &[("errors", above(0.005)), ("latency", above(3.0))], {
            says(1, Call::Evaluate, within(5))
        }),
        row("little", "", Combine::All, &[("errors", up_to(0.005)), ("users", from_to(0.0, 0.1))], {
            says(3, Call::Monitor, Within::BestEffort)
        }),
    ])
}

#[test]
fn the_most_severe_row_wins_and_says_why() {
    let matrix = spike();
    insta::assert_snapshot!(say(&matrix, "errors | errors 0.032, latency 6"), @"P0 rollback, within 2 min, automatic: row `spike`: issue `errors`, errors 3.2 % is above 1 %, latency 6 s is above 5 s");
    insta::assert_snapshot!(say(&matrix, "errors | errors 0.01, latency 6"), @"P1 evaluate, within 5 min: row `either`: issue `errors`, errors 1 % is above 0.5 %, latency 6 s is above 3 s");
    insta::assert_snapshot!(say(&matrix, "errors | errors 0.001, latency 0.4, users 0.02"), @"P3 monitor, best effort: row `little`: errors 0.1 % is at most 0.5 %, users 2 % is above 0 % and at most 10 %");
    insta::assert_snapshot!(say(&matrix, "| errors 0.9, latency 6"), @"P2 evaluate, within 15 min: no row matches, so: evaluate");
    assert_eq!(faults(&matrix), "");
}

#[test]
fn a_figure_without_data_is_neither_true_nor_false() {
    let matrix = spike();
    // Errors alone decide nothing of `spike`, enough of `either`.
    insta::assert_snapshot!(say(&matrix, "errors | errors 0.032"), @"P1 evaluate, within 5 min: row `either`: issue `errors`, errors 3.2 % is above 0.5 %; row `spike` (rollback) cannot be told: there is no data for `latency`");
    // What is false already needs no further figure.
    insta::assert_snapshot!(say(&matrix, "errors | errors 0.004, users 0.5"), @"P2 evaluate, within 15 min: no row matches, so: evaluate; row `either` (evaluate) cannot be told: there is no data for `latency`");
    insta::assert_snapshot!(say(&matrix, "errors | latency 1"), @"P2 evaluate, within 15 min: no row matches, so: evaluate; row `either` (evaluate) cannot be told: there is no data for `errors`; row `little` (monitor) cannot be told: there is no data for `errors`, `users`");
    insta::assert_snapshot!(say(&matrix, "errors | errors NaN, latency 4"), @"P1 evaluate, within 5 min: row `either`: issue `errors`, latency 4 s is above 3 s");
    // A less severe row that cannot be told changes nothing.
    assert_eq!(matrix.rule(&facts("errors | errors 0.004, latency 4")).blind, Vec::<String>::new());
}

#[test]
fn rows_that_say_the_same_may_match_together() {
    let equal = |automatic| {
        matrix(vec![
            row("a", "x", Combine::All, &[], says(0, Call::Rollback, Within::Immediate)),
            row("b", "y", Combine::All, &[], Ruling { automatic, ..says(0, Call::Rollback, Within::Immediate) }),
        ])
    };
    insta::assert_snapshot!(say(&equal(false), "x, y |"), @"P0 rollback, immediate: row `a`: issue `x`; row `b`: issue `y`");
    // Automatic only together: the other case was left to people.
    insta::assert_snapshot!(say(&equal(true), "x, y |"), @"P0 rollback, immediate: row `a`: issue `x`; row `b`: issue `y`");
    insta::assert_snapshot!(say(&equal(true), "y |"), @"P0 rollback, immediate, automatic: row `b`: issue `y`");
    assert_eq!(faults(&equal(true)), "");
}

#[test]
fn mistakes_are_found_when_it_is_loaded() {
    let p = |severity| says(severity, Call::Monitor, within(5));
    let cases = [
        ("upside down", vec![row("a", "", Combine::All, &[("errors", from_to(0.05, 0.05))], p(1))]),
        ("not a number", vec![row("a", "", Combine::All, &[("errors", above(f64::NAN))], p(1))]),
        (
            "half-open bounds that meet",
            vec![
                row("low", "", Combine::All, &[("errors", up_to(0.01))], p(1)),
                row("high", "", Combine::All, &[("errors", above(0.01))], says(1, Call::Rollback, within(5))),
            ],
        ),
        (
            "bounds that overlap",
            vec![
                row("low", "", Combine::All, &[("errors", up_to(0.02))], p(1)),
                row("high", "", Combine::All, &[("errors", above(0.01))], says(1, Call::Rollback, within(5))),
            ],
        ),
        (
            "two issues at once",
            vec![
                row("a", "x", Combine::All, &[], p(1)),
                row("b", "y z", Combine::All, &[], says(1, Call::Monitor, within(10))),
            ],
        ),
        (
            "another strategy",
            vec![
                row("a", "x", Combine::All, &[], p(1)),
                row("b", "x", Combine::All, &[("users", above(0.1))], strategy(p(1), "full")),
            ],
        ),
        (
            "a contradiction that a more severe row covers",
            vec![
                row("a", "", Combine::All, &[("errors", up_to(0.02))], p(1)),
                row("b", "", Combine::All, &[("errors", above(0.01))], says(1, Call::Rollback, within(5))),
                row("c", "", Combine::All, &[("errors", from_to(0.005, 0.02))], p(0)),
            ],
        ),
        (
            "either cell",
            vec![
                row("a", "", Combine::Any, &[("errors", above(0.02)), ("latency", above(2.0))], p(1)),
                row(
                    "b",
                    "",
                    Combine::All,
                    &[("errors", up_to(0.02)), ("latency", up_to(2.0))],
                    says(1, Call::Evaluate, within(5)),
                ),
            ],
        ),
        (
            "covered by one",
            vec![
                row("narrow", "x", Combine::All, &[("errors", from_to(0.02, 0.03))], p(2)),
                row("wide", "x y", Combine::All, &[("errors", above(0.01))], p(1)),
            ],
        ),
        (
            "covered for one of two issues only",
            vec![
                row("narrow", "x z", Combine::All, &[("errors", from_to(0.02, 0.03))], p(2)),
                row("wide", "x y", Combine::All, &[("errors", above(0.01))], p(1)),
            ],
        ),
        (
            "covered by two together",
            vec![
                row("any", "", Combine::All, &[], p(3)),
                row("low", "", Combine::All, &[("errors", up_to(0.01))], p(1)),
                row("high", "", Combine::Any, &[("errors", above(0.01)), ("users", above(0.5))], p(2)),
            ],
        ),
        (
            "the same twice",
            vec![
                row("a", "x", Combine::All, &[("errors", above(0.01))], p(1)),
                row("b", "x", Combine::All, &[("errors", above(0.01))], p(1)),
            ],
        ),
    ];
    let lines: Vec<String> = cases
        .into_iter()
        .map(|(what, rows)| {
            format!(
                "{what}: {}",
                match faults(&matrix(rows)).as_str() {
                    "" => "fine",
                    faults => faults,
                }
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    upside down: row `a` can never match: `errors` is bounded to nothing
    not a number: row `a` can never match: `errors` is bounded to nothing
    half-open bounds that meet: fine
    bounds that overlap: rows `low` and `high` are equally severe and say different things for errors 1.5 %
    two issues at once: rows `a` and `b` are equally severe and say different things for issue `x`, issue `y`
    another strategy: rows `a` and `b` are equally severe and say different things for issue `x`, users 20 %
    a contradiction that a more severe row covers: fine
    either cell: fine
    covered by one: row `narrow` can never win: `wide` matches whenever it does and is at least as severe
    covered for one of two issues only: fine
    covered by two together: row `any` can never win: `low` or `high` matches whenever it does and is at least as severe
    the same twice: row `b` can never win: `a` matches whenever it does and is at least as severe
    ");
}

const ISSUES: [&str; 3] = ["x", "y", "z"];
const FIGURES: [&str; 2] = ["errors", "latency"];
/// Small whole numbers, so that bounds meet often.
const GRID: std::ops::RangeInclusive<i8> = 0..=4;

fn any_row() -> impl Strategy<Value = Row> {
    let bound = || prop::option::of(GRID.prop_map(f64::from));
    let bounds = (bound(), bound()).prop_map(|(above, up_to)| Bounds { above, up_to });
    let cells = prop::collection::btree_map(prop::sample::select(&FIGURES[..]).prop_map(name), bounds, 0..=2);
    let issues = prop::collection::btree_set(prop::sample::select(&ISSUES[..]).prop_map(name), 0..=2);
    let call = prop::sample::select(&[Call::Rollback, Call::Evaluate][..]);
    (issues, cells, any::<bool>(), call, 0u8..3, any::<bool>()).prop_map(
        |(issues, cells, any, call, severity, automatic)| Row {
            name: String::new(),
            issues,
            cells,
            combine: if any { Combine::Any } else { Combine::All },
            ruling: Ruling { automatic, ..says(severity, call, Within::Immediate) },
        },
    )
}

fn any_matrix() -> impl Strategy<Value = Matrix> {
    prop::collection::vec(any_row(), 0..5).prop_map(|rows| {
        let named = |(i, row): (usize, Row)| Row { name: format!("r{i}"), ..row };
        matrix(rows.into_iter().enumerate().map(named).collect())
    })
}

/// Every set of issues, and every point of a grid finer than the bounds.
fn everything() -> Vec<Facts> {
    let mut all = vec![];
    for chosen in 0..8 {
        let issues: BTreeSet<Name> = (0..3).filter(|i| chosen >> i & 1 == 1).map(|i| name(ISSUES[i])).collect();
        for errors in -1..=10 {
            for latency in -1..=10 {
                let figures = BTreeMap::from([
                    (name("errors"), f64::from(errors) / 2.0),
                    (name("latency"), f64::from(latency) / 2.0),
                ]);
                all.push(Facts { issues: issues.clone(), figures, ..Facts::default() });
            }
        }
    }
    all
}

/// Whether a row alone matches, by the plain reading of the table.
fn plainly(row: &Row, facts: &Facts) -> bool {
    let issue = row.issues.is_empty() || row.issues.iter().any(|issue| facts.issues.contains(issue));
    let mut cells = row.cells.iter().map(|(figure, bounds)| bounds.contain(facts.figures[figure]));
    issue
        && match row.combine {
            Combine::All => cells.all(|cell| cell),
            Combine::Any => row.cells.is_empty() || cells.any(|cell| cell),
        }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The faults found by interval arithmetic are those that trying everything finds.
    #[test]
    fn faults_are_found_exactly(matrix in any_matrix()) {
        let mut wins: BTreeSet<&str> = BTreeSet::new();
        let mut contradict: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut matches: BTreeSet<&str> = BTreeSet::new();
        for facts in everything() {
            let matching: Vec<&Row> = matrix.rows.iter().filter(|row| plainly(row, &facts)).collect();
            matches.extend(matching.iter().map(|row| row.name.as_str()));
            let severest = matching.iter().map(|row| row.ruling.severity).min().unwrap_or(Severity(9));
            let first: Vec<&&Row> = matching.iter().filter(|row| row.ruling.severity == severest).collect();
            for (i, a) in first.iter().enumerate() {
                if !first[..i].iter().any(|earlier| earlier.ruling == a.ruling) {
                    wins.insert(&a.name);
                }
                for b in &first[i + 1..] {
                    if a.ruling.call != b.ruling.call {
                        contradict.insert((&a.name, &b.name));
                    }
                }
            }
        }
        let found = matrix.faults();
        let ambiguous: BTreeSet<(&str, &str)> = found.iter().filter_map(|fault| match fault {
            MatrixFault::Ambiguous { a, b, .. } => Some((a.as_str(), b.as_str())),
            _ => None,
        }).collect();
        prop_assert_eq!(ambiguous, contradict);
        let unreachable: BTreeSet<&str> = found.iter().filter_map(|fault| match fault {
            MatrixFault::Unreachable { row, .. } => Some(row.as_str()),
            _ => None,
        }).collect();
        let never: BTreeSet<&str> = matches.difference(&wins).copied().collect();
        prop_assert_eq!(unreachable, never);
    }

    /// The ruling is there for any facts, the same each time, and that of the most severe row that matches.
    #[test]
    fn ruling_is_total_and_deterministic(matrix in any_matrix()) {
        for facts in everything() {
            let ruled = matrix.rule(&facts);
            prop_assert_eq!(&ruled, &matrix.rule(&facts));
            prop_assert!(ruled.blind.is_empty(), "every figure is there");
            let severest = matrix.rows.iter().filter(|row| plainly(row, &facts)).map(|row| row.ruling.severity).min();
            prop_assert_eq!(ruled.row.is_some(), severest.is_some());
            prop_assert_eq!(ruled.ruling.severity, severest.unwrap_or(matrix.otherwise.severity));
        }
    }

    /// A ruling without a figure, where no row is blind, is the ruling whatever the figure would have been.
    #[test]
    fn what_is_not_blind_is_settled(matrix in any_matrix(), missing in prop::sample::select(&FIGURES[..])) {
        prop_assume!(!matrix.faults().iter().any(|fault| matches!(fault, MatrixFault::Ambiguous { .. })));
        for facts in everything() {
            let mut blind = facts.clone();
            blind.figures.remove(&name(missing));
            let partly = matrix.rule(&blind);
            if partly.blind.is_empty() {
                prop_assert_eq!(partly.ruling, matrix.rule(&facts).ruling);
            }
        }
    }
}
