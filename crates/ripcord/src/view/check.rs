//! The configuration, and what can be seen of what it names.

use jiff::Timestamp;
use ripcord_config::Report;
use ripcord_core::{AppId, Available, CheckId, Inventory, Name, Place, Reading, Release, Seen, SignalId, Unit};
use serde::Serialize;

use super::table::{indent, table};
use crate::screen::{BAD, GOOD, View, WARN, paint, strong};
use crate::words;

#[derive(Debug, Serialize)]
pub struct Checked {
    pub ok: bool,
    pub file: String,
    pub app: Option<AppId>,
    pub environments: Vec<Name>,
    /// How many there are of what, in the order of the file.
    pub counts: Vec<(&'static str, usize)>,
    pub report: Report,
    /// With `--live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
    /// Whether the report is to be coloured.
    #[serde(skip)]
    pub colour: bool,
}

/// What was found out there.
#[derive(Debug, Serialize)]
pub struct Live {
    pub at: Timestamp,
    pub places: Vec<PlaceLine>,
    pub signals: Vec<SignalLine>,
    pub last_known_good: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct PlaceLine {
    pub place: Place,
    pub seen: Seen,
    pub label: Option<String>,
    pub running: Option<bool>,
    /// Whether what the last known good release had here can be had.
    pub target: Option<Available>,
}

#[derive(Debug, Serialize)]
pub struct SignalLine {
    pub signal: SignalId,
    pub unit: Unit,
    pub reading: Reading,
}

impl Live {
    pub fn of(seen: &Inventory, good: Option<&Release>, signals: Vec<SignalLine>) -> Self {
        let line = |(place, survey): (&Place, &ripcord_core::Survey)| PlaceLine {
            place: place.clone(),
            seen: survey.seen.clone(),
            label: survey.label.clone(),
            running: survey.running,
            target: good.and_then(|good| good.map.get(place)).and_then(|at| survey.available(&at.revision)).cloned(),
        };
        Self {
            at: seen.at,
            places: seen.surveys.iter().map(line).collect(),
            signals,
            last_known_good: good.map(|good| format!("{} ({})", good.version, good.id)),
        }
    }

    /// Whether everything can be seen, and nothing that a rollback needs is missing.
    pub fn is_well(&self) -> bool {
        let place = |line: &PlaceLine| {
            !matches!(line.seen, Seen::Unreachable { .. } | Seen::Between { .. })
                && !matches!(line.target, Some(Available::Missing { .. }))
        };
        self.places.iter().all(place) && self.signals.iter().all(|line| !matches!(line.reading, Reading::Failed { .. }))
    }

    pub fn in_lines(&self) -> String {
        let row = |line: &PlaceLine| {
            let seen = match &line.seen {
                Seen::At(revision) => line.label.clone().unwrap_or_else(|| revision.short()),
                Seen::Between { why } => paint(WARN, format!("in no definite state: {why}")),
                Seen::Unreachable { why } => paint(BAD, format!("cannot be seen: {why}")),
            };
            let running = match line.running {
                None => "",
                Some(true) => "runs",
                Some(false) => "stopped",
            };
            let target = match &line.target {
                None => String::new(),
                Some(Available::Here { how }) => paint(GOOD, format!("back: {how}")),
                Some(Available::Missing { why }) => paint(BAD, format!("NO WAY BACK: {why}")),
            };
            vec![line.place.to_string(), seen, running.to_owned(), target]
        };
        let mut text = table(&self.places.iter().map(row).collect::<Vec<_>>());
        if !self.signals.is_empty() {
            let row = |line: &SignalLine| {
                let reading = words::reading(&line.reading, Some(line.unit), self.at);
                let reading = match line.reading {
                    Reading::Failed { .. } => paint(BAD, reading),
                    Reading::Samples(_) | Reading::Empty => reading,
                };
                vec![line.signal.to_string(), reading]
            };
            text.push_str(&format!("\n\n{}\n", strong("signals")));
            text.push_str(&table(&self.signals.iter().map(row).collect::<Vec<_>>()));
        }
        text
    }
}

impl View for Checked {
    fn text(&self) -> String {
        let mut out = vec![];
        if !self.report.is_empty() {
            out.push(self.report.render(self.colour));
            out.push(String::new());
        }
        if let Some(app) = &self.app {
            let counts: Vec<_> = self.counts.iter().map(|(what, n)| words::count(*n as u64, what)).collect();
            out.push(format!("{}: {} ({}), {}", self.file, paint(GOOD, "no mistakes"), app, counts.join(", ")));
        } else {
            out.push(format!("{}: {}", self.file, paint(BAD, words::count(self.report.errors() as u64, "mistake"))));
        }
        if let Some(live) = &self.live {
            out.push(format!("\n{}", strong("components")));
            out.push(live.in_lines());
            out.push(match &live.last_known_good {
                Some(good) => format!("\nlast known good: {good}"),
                None => {
                    format!("\n{}", paint(WARN, "no release is known to be good: there is nothing to go back to yet"))
                }
            });
        }
        out.join("\n")
    }
}

/// Checks run by hand.
#[derive(Debug, Serialize)]
pub struct Verified {
    pub version: Option<String>,
    pub passed: bool,
    pub checks: Vec<CheckLine>,
}

#[derive(Debug, Serialize)]
pub struct CheckLine {
    pub check: CheckId,
    pub verdict: ripcord_core::Check,
}

impl View for Verified {
    fn text(&self) -> String {
        let row = |line: &CheckLine| {
            let style = match line.verdict {
                ripcord_core::Check::Pass { .. } => GOOD,
                ripcord_core::Check::Fail { .. } => BAD,
                ripcord_core::Check::Inconclusive { .. } => WARN,
            };
            vec![line.check.to_string(), paint(style, words::check(&line.verdict))]
        };
        let head = match &self.version {
            Some(version) => format!("checked against {version}, which is live"),
            None => "checked; no release is on record as live".to_owned(),
        };
        let rows = indent(&table(&self.checks.iter().map(row).collect::<Vec<_>>()), 2);
        format!("{head}\n{rows}")
    }
}
