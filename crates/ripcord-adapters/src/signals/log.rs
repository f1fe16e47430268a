//! Lines of a log file: how many matched within a window, which share of all lines that is, or for how long there was none.
//!
//! Reading begins at the file's end: what was written before is no evidence about now. A file that is renamed away is read to its
//! end before the new one is begun, one that is truncated is read from its start. No lines at all are no data, not health; so is a
//! file that is not there.

mod lines; // what was added to a file since the last look

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use regex::Regex;
use ripcord_config::wire::Span;
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Redactor, Sample, Signal, SignalId, Unit, between};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::lines::Tail;
use super::{failed, locked};
use crate::http::shorten;
use crate::{BuildCx, BuildError, SignalKind};

/// Lines added to a log file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The file. `*` in its name stands for anything, and must lead to one file.
    pub path: PathBuf,
    /// Which lines count.
    #[serde(rename = "match")]
    pub matching: Match,
    #[serde(default)]
    pub measure: Measure,
    /// How far back lines count.
    #[serde(default = "minute")]
    pub window: Span,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// Lines of one of these levels: the field `level` (`severity`, `lvl`, `levelname`) of JSON lines, `level=` of key-value lines,
    /// else a word near a line's beginning that is set apart as levels are (`ERROR`, `[error]`, `error:`).
    Level(Vec<String>),
    /// Lines that this regular expression is found in.
    Regex(String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Matching lines within the window.
    #[default]
    Count,
    /// Matching lines over all lines within the window.
    Share,
    /// Seconds since the last matching line, or since watching began.
    Silence,
}

fn minute() -> Span {
    Span(Duration::from_secs(60))
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "log",
        summary: "Lines of a log file: how many matched, which share of all, or for how long there was none.",
        example: "\
path: /var/log/shop/shop.log
match: { level: [error, fatal] }
measure: share
window: 2m
",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        match &self.matching {
            Match::Regex(text) => {
                if let Err(error) = Regex::new(text) {
                    mistakes
                        .push(Mistake::new(format!("`{text}` is no regular expression: {error}")).at("match.regex"));
                }
            }
            Match::Level(levels) if levels.is_empty() => {
                mistakes
                    .push(Mistake::new("no level is named").at("match.level").help("write `level: [error, fatal]`"));
            }
            Match::Level(_) => {}
        }
        if self.path.parent().is_some_and(|parent| parent.to_string_lossy().contains('*')) {
            mistakes.push(Mistake::new("only the file's name may hold `*`, not its directory").at("path"));
        }
        mistakes
    }

    fn unit(&self) -> Unit {
        match self.measure {
            Measure::Count => Unit::Number,
            Measure::Share => Unit::Ratio,
            Measure::Silence => Unit::Seconds,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        &["matched", "lines", "last", "behind_bytes"]
    }

    fn build(&self, id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let matcher = Matcher::new(&self.matching).map_err(|why| BuildError::new(id, why))?;
        let path = cx.base.join(&self.path);
        let watch = Watch { matcher, memory: Mutex::default(), redactor: cx.redactor.clone() };
        Ok(Arc::new(Log { settings: self.clone(), path, watch: Arc::new(watch) }))
    }
}

enum Matcher {
    Level(Vec<String>),
    Regex(Regex),
}

impl Matcher {
    fn new(matching: &Match) -> Result<Self, String> {
        Ok(match matching {
            Match::Level(levels) => Self::Level(levels.iter().map(|level| level.to_ascii_lowercase()).collect()),
            Match::Regex(text) => Self::Regex(Regex::new(text).map_err(|error| error.to_string())?),
        })
    }

    fn matches(&self, line: &str) -> bool {
        match self {
            Self::Regex(regex) => regex.is_match(line),
            Self::Level(levels) => level(line).is_some_and(|found| levels.contains(&found)),
        }
    }
}

/// The level a line says it has.
///
/// `errors=0` and `no error` have none: the word must stand where levels stand.
fn level(line: &str) -> Option<String> {
    const NAMES: [&str; 4] = ["level", "severity", "lvl", "levelname"];
    const KNOWN: [&str; 16] = [
        "trace",
        "debug",
        "info",
        "information",
        "notice",
        "warn",
        "warning",
        "error",
        "err",
        "critical",
        "crit",
        "fatal",
        "panic",
        "alert",
        "emerg",
        "severe",
    ];
    if line.trim_start().starts_with('{') {
        let json: Value = serde_json::from_str(line).ok()?;
        let found = NAMES.iter().find_map(|name| json.get(name))?;
        return match found {
            Value::String(text) => Some(text.to_ascii_lowercase()),
            // Node's loggers write numbers: 30 info, 40 warn, 50 error, 60 fatal.
            Value::Number(number) => match number.as_u64()? {
                60.. => Some("fatal".to_owned()),
                50.. => Some("error".to_owned()),
                40.. => Some("warn".to_owned()),
                30.. => Some("info".to_owned()),
                _ => Some("debug".to_owned()),
            },
            _ => None,
        };
    }
    let named = line.split_ascii_whitespace().find_map(|word| {
        let (name, value) = word.split_once('=')?;
        NAMES.contains(&name).then(|| value.trim_matches('"').to_ascii_lowercase())
    });
    named.or_else(|| {
        let spaced = line.replace('|', " | ");
        let words: Vec<&str> = spaced.split_ascii_whitespace().take(8).collect();
        words.iter().enumerate().find_map(|(at, word)| {
            let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            let beside =
                |at: Option<usize>| at.and_then(|at| words.get(at)).is_some_and(|word| matches!(*word, "|" | "-"));
            // In running text a small `error` is a word like others; a level is set apart.
            let apart = bare.bytes().all(|b| b.is_ascii_uppercase())
                || word.starts_with(['[', '<', '('])
                || word.ends_with(':')
                || (beside(at.checked_sub(1)) && beside(Some(at + 1)));
            let bare = bare.to_ascii_lowercase();
            (apart && KNOWN.contains(&bare.as_str())).then_some(bare)
        })
    })
}

struct Log {
    settings: Settings,
    path: PathBuf,
    watch: Arc<Watch>,
}

struct Watch {
    matcher: Matcher,
    memory: Mutex<Memory>,
    redactor: Redactor,
}

#[derive(Default)]
struct Memory {
    tail: Option<Tail>,
    began: Option<Timestamp>,
    /// Lines and matching lines, by the reading that found them.
    found: VecDeque<(Timestamp, u64, u64)>,
    last: Option<(Timestamp, String)>,
}

/// What `*` leads to.
enum Leads {
    To(PathBuf),
    Nowhere,
    Several(Vec<PathBuf>),
}

fn leads(path: &Path) -> Result<Leads, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !name.contains('*') {
        return Ok(Leads::To(path.to_owned()));
    }
    let parts: Vec<String> = name.split('*').map(regex::escape).collect();
    let pattern = Regex::new(&format!("^{}$", parts.join(".*"))).map_err(|error| error.to_string())?;
    let parent = path.parent().unwrap_or(Path::new("."));
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Leads::Nowhere),
        entries => entries.map_err(|error| format!("`{}` cannot be listed: {error}", parent.display()))?,
    };
    let matching = |entry: &fs::DirEntry| pattern.is_match(&entry.file_name().to_string_lossy());
    let mut found: Vec<_> = entries.flatten().filter(matching).map(|entry| entry.path()).collect();
    found.sort();
    Ok(match found.as_slice() {
        [] => Leads::Nowhere,
        [_] => Leads::To(found.remove(0)),
        _ => Leads::Several(found),
    })
}

impl Watch {
    /// Takes in what was written since the last look.
    fn look(&self, path: &Path, at: Timestamp, window: Duration, measure: Measure) -> Reading {
        let path = match leads(path) {
            Ok(Leads::To(path)) => Some(path),
            Ok(Leads::Nowhere) => None,
            Ok(Leads::Several(found)) => {
                let names: Vec<_> = found.iter().take(4).map(|path| path.display().to_string()).collect();
                return failed(format!("`{}` leads to {} files: {}", path.display(), found.len(), names.join(", ")));
            }
            Err(why) => return failed(why),
        };
        let mut memory = locked(&self.memory);
        let memory = &mut *memory;
        let first = memory.began.is_none();
        let tail = memory.tail.get_or_insert_with(Tail::default);
        let (mut lines, mut matched) = (0, 0);
        let mut last = None;
        let read = tail.read(path.as_deref(), first, |line| {
            lines += 1;
            if self.matcher.matches(line) {
                matched += 1;
                last = Some(shorten(line, 500));
            }
        });
        // What was read before the error was read: it counts.
        memory.found.retain(|(found, ..)| *found <= at && between(*found, at) < window);
        memory.found.push_back((at, lines, matched));
        if let Some(last) = last {
            memory.last = Some((at, self.redactor.clean(&last)));
        }
        match read {
            Ok(behind) => {
                memory.began.get_or_insert(at);
                memory.reading(at, measure, behind)
            }
            Err(why) => failed(why),
        }
    }
}

impl Memory {
    fn reading(&self, at: Timestamp, measure: Measure, behind: u64) -> Reading {
        let lines: u64 = self.found.iter().map(|(_, lines, _)| lines).sum();
        let matched: u64 = self.found.iter().map(|(_, _, matched)| matched).sum();
        let value = match measure {
            Measure::Count | Measure::Share if lines == 0 => return Reading::Empty,
            Measure::Count => matched as f64,
            Measure::Share => matched as f64 / lines as f64,
            Measure::Silence => {
                let since = self.last.as_ref().map(|(at, _)| *at).or(self.began).unwrap_or(at);
                between(since, at).as_secs_f64()
            }
        };
        let last = self.last.as_ref().map_or(Value::Null, |(_, line)| line.as_str().into());
        let fields =
            [("matched", matched.into()), ("lines", lines.into()), ("last", last), ("behind_bytes", behind.into())];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Reading::of(Sample { n: Some(lines as f64), fields, ..Sample::new(at, value) })
    }
}

impl Signal for Log {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        let (watch, path, at) = (Arc::clone(&self.watch), self.path.clone(), cx.now);
        let (window, measure) = (self.settings.window.0, self.settings.measure);
        Box::pin(async move {
            let looked = tokio::task::spawn_blocking(move || watch.look(&path, at, window, measure)).await;
            looked.unwrap_or_else(|error| failed(format!("the log could not be read: {error}")))
        })
    }

    fn query(&self) -> String {
        let what = match &self.settings.matching {
            Match::Level(levels) => format!("lines of level {}", levels.join(", ")),
            Match::Regex(text) => format!("lines with /{text}/"),
        };
        let window = ripcord_core::human(self.settings.window.0);
        let path = self.path.display();
        let query = match self.settings.measure {
            Measure::Count => format!("number of {what} in {path} over {window}"),
            Measure::Share => format!("share of {what} in {path} over {window}"),
            Measure::Silence => format!("time since {what} in {path}"),
        };
        self.watch.redactor.clean(&query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rf05_a_level_is_not_the_word_error() {
        let found = |line: &str| level(line);
        for line in [
            "2026-01-01T00:00:00Z ERROR orders failed",
            "[ERROR] orders failed",
            "2026-01-01 00:00:00,123 - shop - ERROR - failed",
            "ERROR: failed",
            r#"{"time":1,"level":"ERROR","msg":"x"}"#,
            r#"{"severity":"error"}"#,
            r#"{"level":50,"msg":"x"}"#,
            "ts=1 level=error msg=\"x\"",
            "2026/01/01 00:00:00 [error] 12#0: open() failed",
            "2026-01-01 | Error | x",
            "2026-01-01|error|x",
            "error: no such table",
        ] {
            assert_eq!(found(line).as_deref(), Some("error"), "{line}");
        }
        for line in [
            "2026-01-01T00:00:00Z INFO batch done, errors=0",
            "2026-01-01T00:00:00Z INFO no error",
            r#"{"level":"info","msg":"error"}"#,
            r#"{"msg":"error"}"#,
            "ts=1 level=info error=0",
            "handled 17 requests with 0 error responses since the last time",
        ] {
            assert_ne!(found(line).as_deref(), Some("error"), "{line}");
        }
    }
}
