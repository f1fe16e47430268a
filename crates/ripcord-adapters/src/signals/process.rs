//! A process of this machine, from `/proc`: whether it runs, how often it was started anew, its memory, processor time and files.
//!
//! All that is asked for must hold: a pid file alone may name a number that another process has by now. Several processes (workers)
//! are taken together.
//! Source: proc(5), `/proc/pid/stat`, `/proc/pid/status`, `/proc/stat`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use regex::Regex;
use ripcord_config::wire::{Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Redactor, Sample, Signal, SignalId, Unit, between};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{failed, locked};
use crate::{BuildCx, BuildError, SignalKind};

/// A process, by its pid file, its name or its command line.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    #[serde(default)]
    pub pid_file: Option<PathBuf>,
    /// The name of its program, as `ps -o comm` shows it.
    #[serde(default)]
    pub name: Option<Text>,
    /// A regular expression that is found in its command line.
    #[serde(default)]
    pub cmdline: Option<String>,
    #[serde(default)]
    pub measure: Measure,
    /// How far back starts count.
    #[serde(default = "hour")]
    pub window: Span,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// 1 when no such process runs.
    #[default]
    Failing,
    /// How many such processes were started within the window, as far as they were seen; those there at first do not count.
    Restarts,
    /// Resident memory.
    Memory,
    /// The share of all processors of this machine that it used since the last reading.
    Cpu,
    /// Open files, sockets and pipes.
    OpenFiles,
}

fn hour() -> Span {
    Span(Duration::from_secs(3600))
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "process",
        summary: "A process of this machine: whether it runs, its restarts, memory, processor time and open files.",
        example: "\
pid-file: run/shop.pid
name: shop
measure: restarts
window: 1h
",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        if self.pid_file.is_none() && self.name.is_none() && self.cmdline.is_none() {
            let help = "name its `pid-file`, its `name`, its `cmdline`, or several of them";
            mistakes.push(Mistake::new("it does not say which process").help(help));
        }
        if let Some(Err(error)) = self.cmdline.as_ref().map(|text| Regex::new(text)) {
            mistakes.push(Mistake::new(format!("`cmdline` is no regular expression: {error}")).at("cmdline"));
        }
        mistakes
    }

    fn unit(&self) -> Unit {
        match self.measure {
            Measure::Failing => Unit::Failing,
            Measure::Restarts | Measure::OpenFiles => Unit::Number,
            Measure::Memory => Unit::Bytes,
            Measure::Cpu => Unit::Ratio,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        &["pids", "restarts"]
    }

    fn build(&self, id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let cmdline = self.cmdline.as_ref().map(|text| Regex::new(text)).transpose();
        let watch = Watch {
            pid_file: self.pid_file.as_ref().map(|path| cx.base.join(path)),
            name: self.name.as_ref().map(ToString::to_string),
            cmdline: cmdline.map_err(|error| BuildError::new(id, error))?,
            memory: Mutex::default(),
        };
        Ok(Arc::new(Process { settings: self.clone(), watch: Arc::new(watch), redactor: cx.redactor.clone() }))
    }
}

struct Process {
    settings: Settings,
    watch: Arc<Watch>,
    redactor: Redactor,
}

struct Watch {
    pid_file: Option<PathBuf>,
    name: Option<String>,
    cmdline: Option<Regex>,
    memory: Mutex<Memory>,
}

/// A process and no other: its number may be given again, its start time with it not.
type Identity = (u32, u64);

#[derive(Default)]
struct Memory {
    known: Option<BTreeSet<Identity>>,
    started: VecDeque<(Timestamp, usize)>,
    /// Processor time of each process and of the machine, in the kernel's ticks.
    ticks: Option<(BTreeMap<Identity, u64>, u64)>,
}

/// One line of `/proc/pid/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    /// A zombie or a dead one does not run.
    runs: bool,
    ticks: u64,
    started: u64,
}

fn stat(text: &str) -> Option<Stat> {
    // The name is in brackets and may itself hold brackets and spaces: the last one closes it.
    let (name, rest) = text.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // proc(5) counts from 1, and the name is the second: field `n` is here at `n - 3`.
    let number = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
    let runs = !matches!(*fields.first()?, "Z" | "X" | "x");
    Some(Stat { name: name.to_owned(), runs, ticks: number(14)? + number(15)?, started: number(22)? })
}

/// None where the process is gone, which it may be at any moment.
fn of_process(pid: u32, file: &str) -> io::Result<Option<String>> {
    match fs::read(format!("/proc/{pid}/{file}")) {
        Err(error) if matches!(error.raw_os_error(), Some(2 | 3)) => Ok(None),
        read => read.map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned())),
    }
}

impl Watch {
    fn look(&self, at: Timestamp, window: Duration, measure: Measure) -> Result<Reading, String> {
        let found = self.find().map_err(|error| format!("the processes cannot be read: {error}"))?;
        let mut memory = locked(&self.memory);
        let now: BTreeSet<Identity> = found.keys().copied().collect();
        let started = memory.known.as_ref().map_or(0, |known| now.difference(known).count());
        // While none runs the former ones are remembered: the next start is one of them coming back.
        if !now.is_empty() || memory.known.is_none() {
            memory.known = Some(now);
        }
        memory.started.retain(|(seen, _)| *seen <= at && between(*seen, at) < window);
        memory.started.push_back((at, started));
        let restarts: usize = memory.started.iter().map(|(_, n)| n).sum();
        let value = match measure {
            Measure::Failing => Some(f64::from(u8::from(found.is_empty()))),
            Measure::Restarts => Some(restarts as f64),
            Measure::Memory => sum(&found, resident)?,
            Measure::OpenFiles => sum(&found, open_files)?,
            Measure::Cpu => {
                let ticks = found.iter().map(|(identity, stat)| (*identity, stat.ticks)).collect();
                memory.share(ticks)?
            }
        };
        let Some(value) = value else { return Ok(Reading::Empty) };
        let pids: Vec<u32> = found.keys().map(|(pid, _)| *pid).collect();
        let fields = [("pids".to_owned(), pids.into()), ("restarts".to_owned(), restarts.into())].into();
        Ok(Reading::of(Sample { fields, ..Sample::new(at, value) }))
    }

    fn find(&self) -> io::Result<BTreeMap<Identity, Stat>> {
        let pids = match &self.pid_file {
            Some(path) => match fs::read_to_string(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
                text => {
                    let text = text?;
                    let bad = || io::Error::other(format!("`{}` holds no process number", path.display()));
                    vec![text.trim().parse().map_err(|_| bad())?]
                }
            },
            None => {
                let names = fs::read_dir("/proc")?.flatten().map(|entry| entry.file_name());
                names.filter_map(|name| name.to_str()?.parse().ok()).collect()
            }
        };
        let mut found = BTreeMap::new();
        for pid in pids {
            // Ripcord's own command line may hold the very expression.
            let by_search = self.pid_file.is_none();
            if by_search && pid == std::process::id() {
                continue;
            }
            let Some(stat) = of_process(pid, "stat")?.as_deref().and_then(stat) else { continue };
            if !stat.runs || self.name.as_ref().is_some_and(|name| *name != stat.name) {
                continue;
            }
            if let Some(pattern) = &self.cmdline {
                let Some(cmdline) = of_process(pid, "cmdline")? else { continue };
                if !pattern.is_match(&cmdline.trim_end_matches('\0').replace('\0', " ")) {
                    continue;
                }
            }
            found.insert((pid, stat.started), stat);
        }
        Ok(found)
    }
}

impl Memory {
    /// The share of the machine's processor time since the last look; none at the first.
    fn share(&mut self, ticks: BTreeMap<Identity, u64>) -> Result<Option<f64>, String> {
        let text = fs::read_to_string("/proc/stat").map_err(|error| format!("`/proc/stat` cannot be read: {error}"))?;
        let line = text.lines().next().unwrap_or_default();
        // The last two, guest and guest_nice, are in user and nice already.
        let all: u64 = line.split_ascii_whitespace().skip(1).take(8).filter_map(|word| word.parse::<u64>().ok()).sum();
        let before = self.ticks.replace((ticks.clone(), all));
        let Some((before, all_before)) = before.filter(|(_, before)| *before < all) else { return Ok(None) };
        if ticks.is_empty() {
            return Ok(None);
        }
        let used: u64 = ticks.iter().map(|(id, now)| now.saturating_sub(before.get(id).copied().unwrap_or(0))).sum();
        Ok(Some((used as f64 / (all - all_before) as f64).min(1.0)))
    }
}

/// None where there is no process.
fn sum(found: &BTreeMap<Identity, Stat>, of: fn(u32) -> io::Result<Option<u64>>) -> Result<Option<f64>, String> {
    let mut total = None;
    for (pid, _) in found.keys() {
        let one = of(*pid).map_err(|error| format!("process {pid} cannot be looked at: {error}"))?;
        if let Some(one) = one {
            total = Some(total.unwrap_or(0.0) + one as f64);
        }
    }
    Ok(total)
}

fn resident(pid: u32) -> io::Result<Option<u64>> {
    let Some(status) = of_process(pid, "status")? else { return Ok(None) };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).map(|kib| kib * 1024))
}

fn open_files(pid: u32) -> io::Result<Option<u64>> {
    match fs::read_dir(format!("/proc/{pid}/fd")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        entries => Ok(Some(entries?.count() as u64)),
    }
}

impl Signal for Process {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        let (watch, at) = (Arc::clone(&self.watch), cx.now);
        let (window, measure) = (self.settings.window.0, self.settings.measure);
        Box::pin(async move {
            match tokio::task::spawn_blocking(move || watch.look(at, window, measure)).await {
                Ok(Ok(reading)) => reading,
                Ok(Err(why)) => failed(why),
                Err(error) => failed(format!("the processes could not be read: {error}")),
            }
        })
    }

    fn query(&self) -> String {
        let mut which = vec![];
        which.extend(self.watch.pid_file.as_ref().map(|path| format!("in {}", path.display())));
        which.extend(self.watch.name.as_ref().map(|name| format!("called {name}")));
        which.extend(self.watch.cmdline.as_ref().map(|pattern| format!("with /{pattern}/")));
        let measure = match self.settings.measure {
            Measure::Failing => "absence".to_owned(),
            Measure::Restarts => format!("starts within {}", ripcord_core::human(self.settings.window.0)),
            Measure::Memory => "resident memory".to_owned(),
            Measure::Cpu => "processor share".to_owned(),
            Measure::OpenFiles => "open files".to_owned(),
        };
        self.redactor.clean(&format!("{measure} of the process {}", which.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_brackets() {
        let fields =
            (3..=52).map(|n| if n == 3 { "S".to_owned() } else { n.to_string() }).collect::<Vec<_>>().join(" ");
        let read = stat(&format!("42 (a) b (c)) {fields}\n"));
        assert_eq!(read, Some(Stat { name: "a) b (c)".into(), runs: true, ticks: 14 + 15, started: 22 }));
        assert_eq!(stat(&format!("42 (a) {}", fields.replacen('S', "Z", 1))).map(|stat| stat.runs), Some(false));
        assert_eq!(stat("42 (a) S 1 2"), None);
    }
}
