//! The configuration, and what can be seen of what it names.

use jiff::Timestamp;
use ripcord_adapters::hosts::{LinkError, Reached};
use ripcord_config::Report;
use ripcord_core::{AppId, Available, CheckId, HostId, Inventory, Name, Place, Reading, Release, Seen, SignalId, Unit};
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostLine>,
    pub places: Vec<PlaceLine>,
    pub signals: Vec<SignalLine>,
    pub last_known_good: Option<String>,
}

/// A host, and how it was reached or why not.
#[derive(Debug, Serialize)]
pub struct HostLine {
    pub host: HostId,
    pub reached: bool,
    /// The agent there is this very version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_ms: Option<u128>,
    /// By how much its clock is ahead of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// A clock that is further off than this makes times in the record misleading.
const CLOCK_OFF_MS: i64 = 2_000;

impl HostLine {
    pub fn of(host: HostId, reached: Result<Reached, LinkError>) -> Self {
        let line = Self {
            host,
            reached: reached.is_ok(),
            version: None,
            pid: None,
            login_ms: None,
            clock_ahead_ms: None,
            why: None,
            advice: None,
        };
        match reached {
            Ok(reached) => Self {
                version: Some(env!("CARGO_PKG_VERSION")),
                pid: Some(reached.pid),
                login_ms: Some(reached.login.as_millis()),
                clock_ahead_ms: Some(reached.ahead_ms),
                ..line
            },
            Err(error) => Self { why: Some(error.what), advice: error.advice, ..line },
        }
    }

    fn in_words(&self) -> Vec<String> {
        let said = match (&self.why, self.login_ms) {
            (Some(why), _) => paint(BAD, format!("cannot be reached: {why}")),
            (None, login) => {
                let login = std::time::Duration::from_millis(login.and_then(|ms| ms.try_into().ok()).unwrap_or(0));
                format!("reached in {}, agent {}", ripcord_core::human(login), self.version.unwrap_or_default())
            }
        };
        let off = self.clock_ahead_ms.unwrap_or(0);
        let by = ripcord_core::human(std::time::Duration::from_millis(off.unsigned_abs()));
        let clock = match off {
            off if off > CLOCK_OFF_MS => paint(WARN, format!("its clock is {by} ahead")),
            off if off < -CLOCK_OFF_MS => paint(WARN, format!("its clock is {by} behind")),
            _ => String::new(),
        };
        vec![self.host.to_string(), said, clock]
    }
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
    pub fn of(hosts: Vec<HostLine>, seen: &Inventory, good: Option<&Release>, signals: Vec<SignalLine>) -> Self {
        let line = |(place, survey): (&Place, &ripcord_core::Survey)| PlaceLine {
            place: place.clone(),
            seen: survey.seen.clone(),
            label: survey.label.clone(),
            running: survey.running,
            target: good.and_then(|good| good.map.get(place)).and_then(|at| survey.available(&at.revision)).cloned(),
        };
        Self {
            at: seen.at,
            hosts,
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
        self.hosts.iter().all(|line| line.reached)
            && self.places.iter().all(place)
            && self.signals.iter().all(|line| !matches!(line.reading, Reading::Failed { .. }))
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
            if !live.hosts.is_empty() {
                out.push(format!("\n{}", strong("hosts")));
                out.push(table(&live.hosts.iter().map(HostLine::in_words).collect::<Vec<_>>()));
                let advice = live.hosts.iter().filter_map(|line| Some((&line.host, line.advice.as_ref()?)));
                out.extend(advice.map(|(host, advice)| format!("{host}: {advice}")));
            }
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
