//! The decision matrix: judging it, and proving it total and unambiguous.
//!
//! Judging has three values: a cell whose figure has no data is neither true nor false, and the row it stands in cannot be told
//! unless its other cells decide. Total it is by `otherwise`. That it is unambiguous is proven exactly: bounds cut each figure
//! into finitely many intervals within which no row can change its mind, so one value of each interval stands for all of it.
//!
//! Figures are named by what they are, and said so: `errors`, `users` and what has `share` in its name are shares from 0.0 to
//! 1.0; `latency` and quantiles (`p95`) are seconds; anything else is a plain number.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Bounds, Combine, Facts, Matrix, Name, Row, Ruling};

/// What the matrix says of some facts, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ruled {
    pub ruling: Ruling,
    /// The row that won; none when it was `otherwise`.
    pub row: Option<String>,
    pub reasons: Vec<String>,
    /// Rows that could not be judged for want of a figure, and would have changed the ruling had they matched.
    pub blind: Vec<String>,
}

/// A mistake in a matrix, found when it is loaded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MatrixFault {
    /// Bounds that contain nothing.
    #[error("row `{row}` can never match: `{figure}` is bounded to nothing")]
    Empty { row: String, figure: String },
    #[error("row `{row}` can never win: `{by}` matches whenever it does and is at least as severe")]
    Unreachable { row: String, by: String },
    #[error("rows `{a}` and `{b}` are equally severe and say different things for {example}")]
    Ambiguous { a: String, b: String, example: String },
}

type Figures = BTreeMap<Name, f64>;

impl Matrix {
    /// Returns what the most severe matching row says, else `otherwise`.
    ///
    /// Of equally severe rows the one that says the most drastic thing wins, which a matrix without faults leaves no room for;
    /// they are automatic only together.
    pub fn rule(&self, facts: &Facts) -> Ruled {
        let equal = self.winners(facts);
        let won = equal.first().copied();
        let (ruling, reasons) = match won {
            None => (self.otherwise.clone(), vec![format!("no row matches, so: {}", self.otherwise.call)]),
            Some(won) => {
                let automatic = equal.iter().all(|row| row.ruling.automatic);
                let reasons = equal.iter().map(|row| row.reason(facts)).collect();
                (Ruling { automatic, ..won.ruling.clone() }, reasons)
            }
        };
        let matters = |row: &Row| match won {
            None => row.ruling != ruling,
            Some(won) if row.ruling.severity == won.ruling.severity => row.ruling != ruling,
            Some(won) => row.ruling.severity < won.ruling.severity,
        };
        let blind = |row: &&Row| row.judge(&facts.issues, &facts.figures) == Told::Not && matters(row);
        let blind: Vec<&Row> = self.rows.iter().filter(blind).collect();
        let cannot = blind.iter().map(|row| row.why_blind(facts));
        Ruled {
            row: won.map(|row| row.name.clone()),
            reasons: reasons.into_iter().chain(cannot).collect(),
            blind: blind.iter().map(|row| row.name.clone()).collect(),
            ruling,
        }
    }

    /// The most severe of the rows that match; first the one whose ruling holds.
    pub(crate) fn winners(&self, facts: &Facts) -> Vec<&Row> {
        let matches = |row: &&Row| row.judge(&facts.issues, &facts.figures) == Told::Yes;
        let mut rows: Vec<&Row> = self.rows.iter().filter(matches).collect();
        rows.sort_by_key(|row| (row.ruling.severity, row.ruling.call));
        let severest = rows.first().map(|row| row.ruling.severity);
        rows.retain(|row| Some(row.ruling.severity) == severest);
        rows
    }

    /// Every mistake in it: rows that cannot match or cannot win, and rows that contradict each other, with an example.
    pub fn faults(&self) -> Vec<MatrixFault> {
        let mut faults = self.empty();
        // A row that never matches is reported as such alone.
        let rows: Vec<&Row> = self.rows.iter().filter(|row| self.reaches(row, &[]).is_some()).collect();
        faults.extend(rows.iter().enumerate().filter_map(|(i, row)| self.unreachable(row, &rows, i)));
        for (i, a) in rows.iter().enumerate() {
            faults.extend(rows[i + 1..].iter().filter_map(|b| self.ambiguous(a, b, &rows)));
        }
        faults
    }

    fn empty(&self) -> Vec<MatrixFault> {
        let of = |row: &Row| -> Vec<MatrixFault> {
            let empty = row.cells.iter().filter(|(_, bounds)| bounds.is_empty());
            let fault = |(figure, _): (&Name, &Bounds)| MatrixFault::Empty {
                row: row.name.clone(),
                figure: figure.to_string(),
            };
            empty.map(fault).collect()
        };
        self.rows.iter().flat_map(of).collect()
    }

    fn unreachable(&self, row: &Row, rows: &[&Row], index: usize) -> Option<MatrixFault> {
        // An equally severe row that says something else is a contradiction, and reported as that.
        let beats = |(i, other): (usize, &&Row)| {
            other.ruling.severity < row.ruling.severity
                || (other.ruling.severity == row.ruling.severity && other.ruling == row.ruling && i < index)
        };
        let over: Vec<&Row> =
            rows.iter().enumerate().filter(|(i, other)| beats((*i, other))).map(|(_, r)| *r).collect();
        if over.is_empty() || self.reaches(row, &over).is_some() {
            return None;
        }
        let alone = over.iter().find(|other| self.reaches(row, &[**other]).is_none());
        let by = match alone {
            Some(other) => other.name.clone(),
            None => over.iter().map(|other| other.name.as_str()).collect::<Vec<_>>().join("` or `"),
        };
        Some(MatrixFault::Unreachable { row: row.name.clone(), by })
    }

    /// Facts for which `row` matches and none of `over` does. A row matches whenever it matches with fewer issues, so the
    /// smallest sets of issues are enough to look at.
    fn reaches(&self, row: &Row, over: &[&Row]) -> Option<(BTreeSet<Name>, Figures)> {
        let cut = self.cut(&[&[row], over].concat());
        smallest(&[row]).into_iter().find_map(|issues| {
            let wanted = |figures: &Figures| row.judge(&issues, figures).and(none_of(over, &issues, figures));
            witness(&cut, &wanted, Figures::new()).map(|figures| (issues.clone(), figures))
        })
    }

    fn ambiguous(&self, a: &Row, b: &Row, rows: &[&Row]) -> Option<MatrixFault> {
        let says = |row: &Row| (row.ruling.call, row.ruling.strategy.clone(), row.ruling.within);
        if a.ruling.severity != b.ruling.severity || says(a) == says(b) {
            return None;
        }
        // Where a more severe row wins anyway, the two do not contradict each other.
        let over: Vec<&Row> = rows.iter().filter(|row| row.ruling.severity < a.ruling.severity).copied().collect();
        let cut = self.cut(&[&[a, b], over.as_slice()].concat());
        let (issues, figures) = smallest(&[a, b]).into_iter().find_map(|issues| {
            let wanted = |figures: &Figures| {
                a.judge(&issues, figures).and(b.judge(&issues, figures)).and(none_of(&over, &issues, figures))
            };
            witness(&cut, &wanted, Figures::new()).map(|figures| (issues, figures))
        })?;
        Some(MatrixFault::Ambiguous { a: a.name.clone(), b: b.name.clone(), example: example(&issues, &figures) })
    }

    /// One value of each interval into which the bounds of `rows` cut each figure.
    fn cut(&self, rows: &[&Row]) -> Vec<(Name, Vec<f64>)> {
        let mut bounds: BTreeMap<Name, Vec<f64>> = BTreeMap::new();
        for (figure, cell) in rows.iter().flat_map(|row| &row.cells) {
            bounds.entry(figure.clone()).or_default().extend([cell.above, cell.up_to].into_iter().flatten());
        }
        bounds.into_iter().map(|(figure, bounds)| (figure, values(bounds))).collect()
    }
}

/// One value of each of the half-open intervals between bounds, outermost included.
fn values(mut bounds: Vec<f64>) -> Vec<f64> {
    bounds.retain(|bound| bound.is_finite());
    bounds.sort_unstable_by(f64::total_cmp);
    bounds.dedup();
    let (Some(first), Some(last)) = (bounds.first(), bounds.last()) else { return vec![0.0] };
    let between = |pair: &[f64]| {
        // The middle reads better in an example; the upper end is in the interval whatever rounding does.
        let middle = pair[0] + (pair[1] - pair[0]) / 2.0;
        if middle > pair[0] && middle <= pair[1] { middle } else { pair[1] }
    };
    let beyond = if *last > 0.0 { last * 2.0 } else { last / 2.0 + 1.0 };
    std::iter::once(*first).chain(bounds.windows(2).map(between)).chain([beyond]).collect()
}

/// The first point for which `wanted` holds, if there is one: figures are fixed one by one, and what is decided already is
/// not looked into further.
fn witness(cut: &[(Name, Vec<f64>)], wanted: &dyn Fn(&Figures) -> Told, fixed: Figures) -> Option<Figures> {
    match (wanted(&fixed), cut.split_first()) {
        (Told::Yes, _) => Some(fixed),
        (Told::No, _) | (Told::Not, None) => None,
        (Told::Not, Some(((figure, values), rest))) => values.iter().find_map(|value| {
            let mut fixed = fixed.clone();
            fixed.insert(figure.clone(), *value);
            witness(rest, wanted, fixed)
        }),
    }
}

/// The smallest sets of open issues with which all of `rows` can match, smallest first.
fn smallest(rows: &[&Row]) -> BTreeSet<BTreeSet<Name>> {
    let add = |sets: BTreeSet<BTreeSet<Name>>, row: &&Row| -> BTreeSet<BTreeSet<Name>> {
        if row.issues.is_empty() {
            return sets;
        }
        let with = |set: &BTreeSet<Name>| -> Vec<BTreeSet<Name>> {
            row.issues.iter().map(|issue| set.iter().cloned().chain([issue.clone()]).collect()).collect()
        };
        sets.iter().flat_map(with).collect()
    };
    rows.iter().fold(BTreeSet::from([BTreeSet::new()]), add)
}

fn none_of(rows: &[&Row], issues: &BTreeSet<Name>, figures: &Figures) -> Told {
    rows.iter().fold(Told::Yes, |told, row| told.and(row.judge(issues, figures).not()))
}

/// Whether something is so, as far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Yes,
    No,
    /// Not to be told for want of data.
    Not,
}

impl Told {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Not,
        }
    }

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Not => Self::Not,
        }
    }

    fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }
}

impl Bounds {
    fn is_empty(self) -> bool {
        let numbers = [self.above, self.up_to].into_iter().flatten();
        let upside_down = matches!((self.above, self.up_to), (Some(above), Some(up_to)) if above >= up_to);
        upside_down
            || numbers.into_iter().any(f64::is_nan)
            || self.above == Some(f64::INFINITY)
            || self.up_to == Some(f64::NEG_INFINITY)
    }

    /// A cell without bounds is `any`: it needs no data.
    fn judge(self, value: Option<f64>) -> Told {
        match value.filter(|value| value.is_finite()) {
            _ if self == Self::default() => Told::Yes,
            None if self.is_empty() => Told::No,
            None => Told::Not,
            Some(value) if self.contain(value) => Told::Yes,
            Some(_) => Told::No,
        }
    }

    fn words(self, figure: &Name) -> String {
        match (self.above, self.up_to) {
            (Some(above), Some(up_to)) => format!("above {} and at most {}", said(figure, above), said(figure, up_to)),
            (Some(above), None) => format!("above {}", said(figure, above)),
            (None, Some(up_to)) => format!("at most {}", said(figure, up_to)),
            (None, None) => "anything".to_owned(),
        }
    }
}

impl Row {
    fn judge(&self, issues: &BTreeSet<Name>, figures: &Figures) -> Told {
        if !self.issues.is_empty() && self.issues.is_disjoint(issues) {
            return Told::No;
        }
        let cells = self.cells.iter().map(|(figure, bounds)| bounds.judge(figures.get(figure).copied()));
        match self.combine {
            Combine::Any if self.cells.is_empty() => Told::Yes,
            Combine::Any => cells.fold(Told::No, Told::or),
            Combine::All => cells.fold(Told::Yes, Told::and),
        }
    }

    /// Why it matches: the issue and the cells that are true, as figures.
    fn reason(&self, facts: &Facts) -> String {
        let issues = self.issues.intersection(&facts.issues).map(|issue| format!("issue `{issue}`"));
        let cells = self.cells.iter().filter(|(_, bounds)| **bounds != Bounds::default());
        let cells = cells.filter_map(|(figure, bounds)| {
            let value = facts.figures.get(figure).copied()?;
            let so = bounds.judge(Some(value)) == Told::Yes;
            so.then(|| format!("{figure} {} is {}", said(figure, value), bounds.words(figure)))
        });
        let because: Vec<String> = issues.chain(cells).collect();
        match because.is_empty() {
            true => format!("row `{}` holds always", self.name),
            false => format!("row `{}`: {}", self.name, because.join(", ")),
        }
    }

    fn why_blind(&self, facts: &Facts) -> String {
        let missing =
            self.cells.iter().filter(|(figure, bounds)| bounds.judge(facts.figures.get(*figure).copied()) == Told::Not);
        let missing: Vec<String> = missing.map(|(figure, _)| format!("`{figure}`")).collect();
        format!(
            "row `{}` ({}) cannot be told: there is no data for {}",
            self.name,
            self.ruling.call,
            missing.join(", ")
        )
    }
}

fn example(issues: &BTreeSet<Name>, figures: &Figures) -> String {
    let issues = issues.iter().map(|issue| format!("issue `{issue}`"));
    let figures = figures.iter().map(|(figure, value)| format!("{figure} {}", said(figure, *value)));
    let all: Vec<String> = issues.chain(figures).collect();
    match all.is_empty() {
        true => "anything".to_owned(),
        false => all.join(", "),
    }
}

/// A figure as a person says it, by what its name says that it is.
fn said(figure: &Name, value: f64) -> String {
    let name = figure.as_str();
    let quantile =
        name.strip_prefix('p').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
    let share = ["error", "users", "share"].iter().any(|what| name.contains(what)) && (0.0..=1.0).contains(&value);
    match () {
        () if share => format!("{} %", trimmed(value * 100.0)),
        () if !(quantile || name.contains("latency")) => trimmed(value),
        () if value < 1.0 => format!("{} ms", trimmed(value * 1000.0)),
        () => format!("{} s", trimmed(value)),
    }
}

/// To at most four decimals, which is finer than any bound a person writes.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
