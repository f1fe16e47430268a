//! The journal of systemd units: how many entries matched within a window, which share of all that is, for how long there was none;
//! and whether the units are active, and how often systemd started them again.
//!
//! Reading begins at the journal's end: what was written before is no evidence about now. No entries at all are no data, not health;
//! a unit that systemd does not know is the observer's mistake, and no healthy unit.
//! Source: journalctl(1), `--cursor`; systemd.journal-fields(7): a message that is no text is an array of bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use regex::Regex;
use ripcord_config::wire::{Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Sample, Signal, SignalId, Unit as Measured, between};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{failed, locked};
use crate::components::tool::{Tool, program_mistake};
use crate::hosts::within;
use crate::http::shorten;
use crate::systemd::{Unit, unit_mistake};
use crate::{BuildCx, BuildError, SignalKind};

/// Entries of the journal.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The units, by their full names.
    pub units: Vec<Text>,
    /// Whether they belong to the user's own manager.
    #[serde(default)]
    pub user: bool,
    /// Entries of this priority or a more urgent one count.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// Entries whose message this regular expression is found in count.
    #[serde(default)]
    pub pattern: Option<String>,
    #[serde(default)]
    pub measure: Measure,
    /// How far back entries and restarts count.
    #[serde(default = "minute")]
    pub window: Span,
    /// How `systemctl` is run, such as `[sudo, -n, systemctl]`.
    #[serde(default = "systemctl")]
    pub systemctl: Vec<Text>,
    /// How `journalctl` is run.
    #[serde(default = "journalctl")]
    pub journalctl: Vec<Text>,
}

/// As syslog has them, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    Emerg,
    Alert,
    Crit,
    Err,
    Warning,
    Notice,
    Info,
    Debug,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Matching entries within the window.
    #[default]
    Count,
    /// Matching entries over all entries within the window.
    Share,
    /// Seconds since the last matching entry, or since watching began.
    Silence,
    /// 1 while one of the units is not active.
    Failing,
    /// How often systemd itself started them again within the window, as far as it was seen.
    Restarts,
}

fn minute() -> Span {
    Span(Duration::from_secs(60))
}

fn systemctl() -> Vec<Text> {
    vec![Text("systemctl".to_owned())]
}

fn journalctl() -> Vec<Text> {
    vec![Text("journalctl".to_owned())]
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "journal",
        summary: "Entries of the journal of systemd units, whether the units are active, and their restarts.",
        example: "\
units: [shop.service]
priority: err
pattern: \"order .* failed\"
measure: count
window: 2m
",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        if self.units.is_empty() {
            mistakes.push(Mistake::new("no unit is named").at("units").help("write `units: [shop.service]`"));
        }
        for (i, unit) in self.units.iter().enumerate() {
            mistakes.extend(unit_mistake(unit.as_str(), &format!("units.{i}")));
        }
        if let Some(Err(error)) = self.pattern.as_ref().map(|text| Regex::new(text)) {
            mistakes.push(Mistake::new(format!("`pattern` is no regular expression: {error}")).at("pattern"));
        }
        if self.measure == Measure::Share && self.pattern.is_none() && self.priority.is_none() {
            let help = "give `priority` or `pattern`";
            mistakes.push(Mistake::new("every entry matches, so the share is always 100%").at("measure").help(help));
        }
        mistakes.extend(program_mistake(&self.systemctl, "systemctl"));
        mistakes.extend(program_mistake(&self.journalctl, "journalctl"));
        mistakes
    }

    fn unit(&self) -> Measured {
        match self.measure {
            Measure::Count | Measure::Restarts => Measured::Number,
            Measure::Share => Measured::Ratio,
            Measure::Silence => Measured::Seconds,
            Measure::Failing => Measured::Failing,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        &["matched", "lines", "last", "active", "states", "restarts"]
    }

    fn build(&self, id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let pattern = self.pattern.as_ref().map(|text| Regex::new(text)).transpose();
        Ok(Arc::new(Journal {
            settings: self.clone(),
            pattern: pattern.map_err(|error| BuildError::new(id, error))?,
            systemctl: Tool::new(&self.systemctl, cx),
            journalctl: Tool::new(&self.journalctl, cx),
            memory: Mutex::default(),
        }))
    }
}

struct Journal {
    settings: Settings,
    pattern: Option<Regex>,
    systemctl: Tool,
    journalctl: Tool,
    memory: Mutex<Memory>,
}

#[derive(Debug, Clone, Default)]
struct Memory {
    /// Behind what was read last. Empty where the journal was empty.
    cursor: Option<String>,
    began: Option<Timestamp>,
    /// Entries and matching entries, by the reading that found them.
    found: VecDeque<(Timestamp, u64, u64)>,
    last: Option<(Timestamp, String)>,
    /// What systemd counted for each unit at the last look, and what was added to it by when.
    counted: BTreeMap<String, u64>,
    restarted: VecDeque<(Timestamp, u64)>,
}

/// One line of `journalctl -o json`.
struct Entry {
    cursor: String,
    message: String,
    /// 0 is the most urgent.
    priority: u8,
}

impl Entry {
    fn read(line: &[u8]) -> Option<Self> {
        let entry: Value = serde_json::from_slice(line).ok()?;
        let cursor = entry.get("__CURSOR")?.as_str()?.to_owned();
        let message = match entry.get("MESSAGE") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(bytes)) => {
                let byte = |byte: &Value| byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
                String::from_utf8_lossy(&bytes.iter().filter_map(byte).collect::<Vec<_>>()).into_owned()
            }
            _ => String::new(),
        };
        let priority = entry.get("PRIORITY").and_then(Value::as_str).and_then(|text| text.parse().ok());
        // What a service prints without saying how urgent it is counts as information.
        Some(Self { cursor, message, priority: priority.unwrap_or(Priority::Info as u8) })
    }
}

impl Journal {
    fn matches(&self, entry: &Entry) -> bool {
        self.settings.priority.is_none_or(|least| entry.priority <= least as u8)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&entry.message))
    }

    fn user(&self) -> Vec<&str> {
        self.settings.user.then_some("--user").into_iter().collect()
    }

    /// Where the journal ends now, of whatever unit. Empty where it is empty.
    async fn end(&self, limit: Duration) -> Result<String, String> {
        let arguments = [&self.user()[..], &["--no-pager", "--quiet", "--lines=0", "--show-cursor"]].concat();
        let printed = self.journalctl.ask(&arguments, limit).await.map_err(|failure| failure.what)?;
        let cursor = printed.lines().find_map(|line| line.strip_prefix("-- cursor: "));
        Ok(cursor.unwrap_or_default().trim().to_owned())
    }

    async fn entries(&self, cursor: &str, limit: Duration) -> Result<Vec<Entry>, String> {
        let mut arguments = self.user();
        arguments.extend(["--no-pager", "--quiet", "--output=json"]);
        // Not `--after-cursor`: it leaves out one entry whether or not that is the cursor's, so the first one where the cursor's was
        // another unit's or is gone from the journal.
        let from = format!("--cursor={cursor}");
        if !cursor.is_empty() {
            arguments.push(&from);
        }
        for unit in &self.settings.units {
            arguments.extend(["--unit", unit.as_str()]);
        }
        let printed = self.journalctl.whole(&arguments, limit).await.map_err(|failure| failure.what)?;
        let entries = printed.split(|byte| *byte == b'\n').filter_map(Entry::read);
        Ok(entries.skip_while(|entry| entry.cursor == cursor).collect())
    }

    async fn units(&self, limit: Duration) -> Result<BTreeMap<String, Unit>, String> {
        let mut units = BTreeMap::new();
        for name in &self.settings.units {
            let arguments = [&self.user()[..], &Unit::question(name.as_str())].concat();
            let text = self.systemctl.ask(&arguments, limit).await.map_err(|failure| failure.what)?;
            let unit = Unit::read(&text).ok_or_else(|| format!("systemd says nothing of `{name}`"))?;
            if !unit.is_there() {
                return Err(format!("systemd knows no unit `{name}` ({})", unit.load));
            }
            units.insert(name.to_string(), unit);
        }
        Ok(units)
    }

    async fn look(&self, at: Timestamp, limit: Duration) -> Result<Reading, String> {
        let (mut memory, share) = (locked(&self.memory).clone(), limit / 3);
        let units = self.units(share).await?;
        match &memory.cursor {
            None => memory.cursor = Some(self.end(share).await?),
            Some(cursor) => {
                let entries = self.entries(cursor, share).await?;
                let matching: Vec<&Entry> = entries.iter().filter(|entry| self.matches(entry)).collect();
                memory.found.push_back((at, entries.len() as u64, matching.len() as u64));
                if let Some(last) = matching.last() {
                    memory.last = Some((at, self.journalctl.clean(&shorten(&last.message, 500))));
                }
                memory.cursor = entries.last().map(|entry| entry.cursor.clone()).or(memory.cursor);
            }
        }
        memory.began.get_or_insert(at);
        memory.count(&units, at);
        let window = self.settings.window.0;
        memory.found.retain(|(found, ..)| *found <= at && between(*found, at) < window);
        memory.restarted.retain(|(found, _)| *found <= at && between(*found, at) < window);
        let reading = memory.reading(&units, at, self.settings.measure);
        *locked(&self.memory) = memory;
        Ok(reading)
    }
}

impl Memory {
    fn count(&mut self, units: &BTreeMap<String, Unit>, at: Timestamp) {
        let mut added = 0;
        for (name, unit) in units {
            // Somebody's own start begins the count anew.
            added += match self.counted.insert(name.clone(), unit.restarts) {
                Some(before) if unit.restarts >= before => unit.restarts - before,
                Some(_) => unit.restarts,
                None => 0,
            };
        }
        self.restarted.push_back((at, added));
    }

    fn reading(&self, units: &BTreeMap<String, Unit>, at: Timestamp, measure: Measure) -> Reading {
        let lines: u64 = self.found.iter().map(|(_, lines, _)| lines).sum();
        let matched: u64 = self.found.iter().map(|(_, _, matched)| matched).sum();
        let restarts: u64 = self.restarted.iter().map(|(_, n)| n).sum();
        let active = units.values().all(Unit::is_active);
        let value = match measure {
            Measure::Count | Measure::Share if lines == 0 => return Reading::Empty,
            Measure::Count => matched as f64,
            Measure::Share => matched as f64 / lines as f64,
            Measure::Silence => {
                let since = self.last.as_ref().map(|(at, _)| *at).or(self.began).unwrap_or(at);
                between(since, at).as_secs_f64()
            }
            Measure::Failing => f64::from(u8::from(!active)),
            Measure::Restarts => restarts as f64,
        };
        let last = self.last.as_ref().map_or(Value::Null, |(_, line)| line.as_str().into());
        let states: serde_json::Map<_, _> =
            units.iter().map(|(name, unit)| (name.clone(), unit.words().into())).collect();
        let fields = [
            ("matched", matched.into()),
            ("lines", lines.into()),
            ("last", last),
            ("active", active.into()),
            ("states", states.into()),
            ("restarts", restarts.into()),
        ];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let n = matches!(measure, Measure::Count | Measure::Share).then_some(lines as f64);
        Reading::of(Sample { n, fields, ..Sample::new(at, value) })
    }
}

impl Signal for Journal {
    fn unit(&self) -> Measured {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move { self.look(cx.now, within(cx.limit)).await.unwrap_or_else(failed) })
    }

    fn query(&self) -> String {
        let units: Vec<_> = self.settings.units.iter().map(Text::as_str).collect();
        let units = units.join(", ");
        let window = ripcord_core::human(self.settings.window.0);
        let mut what = "entries".to_owned();
        if let Some(priority) = self.settings.priority {
            what.push_str(&format!(" of priority {} or more urgent", format!("{priority:?}").to_lowercase()));
        }
        if let Some(pattern) = &self.settings.pattern {
            what.push_str(&format!(" with /{pattern}/"));
        }
        let query = match self.settings.measure {
            Measure::Count => format!("number of {what} of {units} over {window}"),
            Measure::Share => format!("share of {what} of {units} over {window}"),
            Measure::Silence => format!("time since {what} of {units}"),
            Measure::Failing => format!("whether {units} is not active"),
            Measure::Restarts => format!("restarts of {units} by systemd over {window}"),
        };
        self.journalctl.clean(&query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_whatever_its_message_is() {
        let read = |line: &str| Entry::read(line.as_bytes()).map(|entry| (entry.message, entry.priority));
        assert_eq!(
            read(r#"{"__CURSOR":"s=1","MESSAGE":"order failed","PRIORITY":"3"}"#),
            Some(("order failed".into(), 3))
        );
        assert_eq!(read(r#"{"__CURSOR":"s=1","MESSAGE":[104,105,255]}"#), Some(("hi\u{fffd}".into(), 6)));
        assert_eq!(read(r#"{"__CURSOR":"s=1","MESSAGE":null}"#), Some((String::new(), 6)));
        assert_eq!(read("-- No entries --"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn priorities_are_syslog_s() {
        assert_eq!((Priority::Emerg as u8, Priority::Err as u8, Priority::Debug as u8), (0, 3, 7));
    }
}
