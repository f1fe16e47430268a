//! Containers of the Docker Engine: whether they run and are healthy, restarts, kills for want of memory, memory, processor time and
//! what they write.
//!
//! A container that is not there is down; an Engine that cannot be asked is a blind observer. The containers of a Compose service
//! are taken together. Restarts and kills are counted from one reading to the next, because the Engine forgets: its count begins
//! anew with each container, and of events it remembers 256 of all kinds, which health checks use up in seconds.
//! Source: Docker Engine API reference, "Inspect a container", "Get container stats based on resource usage", "Monitor events".

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use regex::Regex;
use ripcord_config::wire::{Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Redactor, Sample, Signal, SignalId, Unit, between};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{failed, locked};
use crate::docker::{Endpoint, Engine, EngineError};
use crate::{BuildCx, BuildError, SignalKind};

/// The most lines of a container that are looked at in one reading.
const LINES: usize = 10_000;

/// A container, or all containers of a Compose service.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The container's name.
    #[serde(default)]
    pub name: Option<Text>,
    /// The Compose project, with `service`.
    #[serde(default)]
    pub project: Option<Text>,
    #[serde(default)]
    pub service: Option<Text>,
    /// Where the Docker Engine listens: `unix:///path` or `tcp://host:port`. Without it `DOCKER_HOST`, else the usual socket.
    #[serde(default)]
    pub engine: Option<Text>,
    #[serde(default)]
    pub measure: Measure,
    /// With `log`: a regular expression; lines in which it is found are counted.
    #[serde(default)]
    pub pattern: Option<String>,
    /// How far back restarts, kills and lines count.
    #[serde(default = "window")]
    pub window: Span,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// 1 when one of them does not run or is unhealthy, or there is none.
    #[default]
    Failing,
    /// How often they were started anew within the window, as far as it was seen.
    Restarts,
    /// How often one was killed within the window because it needed more memory than it may have.
    OomKills,
    /// The share of the memory they may use that they use, without what caches could give back; of several, that of the fullest.
    Memory,
    /// The share of all processors of the machine that they used since the last reading; the first reading is empty.
    Cpu,
    /// How many lines of both their outputs have the `pattern`, of those written within the window.
    Log,
}

fn window() -> Span {
    Span(Duration::from_secs(600))
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "container",
        summary: "A container or Compose service: health, restarts, memory kills, memory, processor time, log lines.",
        example: "\
project: shop
service: api
measure: restarts
window: 10m
",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        let service = self.project.is_some() && self.service.is_some();
        if self.name.is_some() == service || self.project.is_some() != self.service.is_some() {
            let help = "give the `project` and the `service`, or the `name` of a container";
            mistakes.push(Mistake::new("it does not say which container").help(help));
        }
        match (&self.pattern, self.measure == Measure::Log) {
            (None, true) => {
                let help = "give a regular expression, such as `level=error`";
                mistakes.push(Mistake::new("it does not say which lines count").at("pattern").help(help));
            }
            (Some(_), false) => {
                let help = "take it out, or measure `log`";
                mistakes.push(Mistake::new("no lines are looked at").at("pattern").help(help));
            }
            (Some(pattern), true) => {
                let bad = Regex::new(pattern).err();
                mistakes.extend(
                    bad.map(|error| Mistake::new(format!("`pattern` is no regular expression: {error}")).at("pattern")),
                );
            }
            (None, false) => {}
        }
        mistakes.extend(Endpoint::mistake(self.engine.as_ref().map(Text::as_str)));
        mistakes
    }

    fn unit(&self) -> Unit {
        match self.measure {
            Measure::Failing => Unit::Failing,
            Measure::Restarts | Measure::OomKills | Measure::Log => Unit::Number,
            Measure::Memory | Measure::Cpu => Unit::Ratio,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        match self.measure {
            Measure::Memory => {
                &["running", "health", "restarts", "restarts_per_hour", "oom_kills", "exit_code", "used_bytes"]
            }
            Measure::Log => &["running", "health", "restarts", "restarts_per_hour", "oom_kills", "exit_code", "lines"],
            _ => &["running", "health", "restarts", "restarts_per_hour", "oom_kills", "exit_code"],
        }
    }

    fn build(&self, id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let bad = |why: String| BuildError::new(id, why);
        let endpoint = Endpoint::find(self.engine.as_ref().map(Text::as_str)).map_err(bad)?;
        let pattern = self.pattern.as_ref().map(|text| Regex::new(text)).transpose();
        Ok(Arc::new(Containers {
            engine: Engine::new(endpoint).map_err(bad)?,
            pattern: pattern.map_err(|error| bad(error.to_string()))?,
            redactor: cx.redactor.clone(),
            settings: self.clone(),
            memory: Mutex::default(),
        }))
    }
}

struct Containers {
    settings: Settings,
    engine: Engine,
    pattern: Option<Regex>,
    redactor: Redactor,
    memory: Mutex<Memory>,
}

/// What was seen of a container.
struct Known {
    restarts: i64,
    started: String,
    /// Whether a restart counted whose start was not seen yet: the Engine counts first and starts then.
    awaited: bool,
}

/// What is remembered from reading to reading.
#[derive(Default)]
struct Memory {
    last: Option<Timestamp>,
    known: BTreeMap<String, Known>,
    restarts: VecDeque<(Timestamp, i64)>,
    /// Kills by container and moment, so that none counts twice.
    kills: BTreeMap<(String, String), Timestamp>,
    /// Processor time of each container and of the machine.
    cpu: Option<(BTreeMap<String, u64>, u64)>,
}

impl Memory {
    /// Takes up a look. A container that is new was made, by a deployment or a rollback: that is no restart.
    fn take(&mut self, at: Timestamp, window: Duration, containers: &[Value], kills: Vec<(String, String)>) {
        let mut restarts = 0;
        for one in containers {
            let (id, started) = (text(&one["Id"]), text(&one["State"]["StartedAt"]));
            let count = one["RestartCount"].as_i64().unwrap_or_default();
            let before = self.known.get(&id);
            let counted = before.map_or(0, |before| (count - before.restarts).max(0));
            let anew = before.is_some_and(|before| before.started != started && !before.started.starts_with("0001"));
            let awaited = before.is_some_and(|before| before.awaited);
            restarts += counted.max(i64::from(anew && !awaited));
            let awaited = !anew && (awaited || counted > 0);
            self.known.insert(id.clone(), Known { restarts: count, started, awaited });
            // The flag is of the last end; an event of it may have been forgotten already.
            if one["State"]["OOMKilled"] == true {
                let ended = text(&one["State"]["FinishedAt"]);
                let told = kills.iter().any(|(killed, _)| *killed == id)
                    || self.kills.keys().any(|(killed, at)| *killed == id && near(at, &ended));
                if !told {
                    self.kills.insert((id, ended), at);
                }
            }
        }
        for (id, when) in kills {
            let same = self.kills.keys().any(|(killed, at)| *killed == id && near(at, &when));
            if !same {
                self.kills.insert((id, when), at);
            }
        }
        self.restarts.push_back((at, restarts));
        self.restarts.retain(|(seen, _)| *seen <= at && between(*seen, at) < window);
        self.kills.retain(|_, seen| *seen <= at && between(*seen, at) < window);
        let there: BTreeSet<String> = containers.iter().map(|one| text(&one["Id"])).collect();
        self.known.retain(|id, _| there.contains(id));
        self.last = Some(at);
    }

    /// The share of the machine's processor time since the last look; none at the first.
    fn share(&mut self, used: BTreeMap<String, u64>, all: u64) -> Option<f64> {
        let (before, all_before) = self.cpu.replace((used.clone(), all))?;
        let passed = all.checked_sub(all_before).filter(|passed| *passed > 0)?;
        let mine: u64 = used.iter().map(|(id, now)| now.saturating_sub(before.get(id).copied().unwrap_or(*now))).sum();
        Some((mine as f64 / passed as f64).min(1.0))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Whether two moments are of the same end: the Engine writes the event and the container's state one after the other.
fn near(a: &str, b: &str) -> bool {
    match (a.parse::<Timestamp>(), b.parse::<Timestamp>()) {
        (Ok(a), Ok(b)) => between(a, b).max(between(b, a)) < Duration::from_secs(2),
        _ => a == b,
    }
}

/// Memory that is used and could not be given back, and how much may be used.
fn memory_of(stats: &Value) -> Option<(u64, u64)> {
    let memory = &stats["memory_stats"];
    let (usage, limit) = (memory["usage"].as_u64()?, memory["limit"].as_u64().filter(|limit| *limit > 0)?);
    // The first of these is what the older control groups call it.
    let cache = ["total_inactive_file", "inactive_file"].iter().find_map(|name| memory["stats"][name].as_u64());
    Some((usage.saturating_sub(cache.unwrap_or_default()), limit))
}

fn health(one: &Value) -> &str {
    match one["State"]["Status"].as_str().unwrap_or_default() {
        "running" => one["State"]["Health"]["Status"].as_str().unwrap_or("none"),
        other => other,
    }
}

fn fails(one: &Value) -> bool {
    !matches!(health(one), "healthy" | "starting" | "none")
}

impl Containers {
    async fn find(&self, deadline: Instant) -> Result<Vec<Value>, EngineError> {
        if let Some(name) = &self.settings.name {
            return Ok(self.engine.container(name.as_str(), deadline).await?.into_iter().collect());
        }
        let label = |name: &str, value: &Option<Text>| {
            format!("com.docker.compose.{name}={}", value.as_ref().map_or("", Text::as_str))
        };
        let labels = [
            label("project", &self.settings.project),
            label("service", &self.settings.service),
            "com.docker.compose.oneoff=False".to_owned(),
        ];
        self.engine.labelled(&labels, deadline).await
    }

    /// Kills for want of memory since the last look, as far as the Engine remembers: container and moment.
    async fn kills(
        &self,
        at: Timestamp,
        ids: &[String],
        deadline: Instant,
    ) -> Result<Vec<(String, String)>, EngineError> {
        if ids.is_empty() {
            return Ok(vec![]);
        }
        let since = locked(&self.memory)
            .last
            .map_or(at.as_second() - self.settings.window.0.as_secs().cast_signed(), |last| last.as_second() - 1);
        let filters = json!({ "type": ["container"], "event": ["oom"], "container": ids });
        let events = self.engine.events(since, at.as_second(), filters, deadline).await?;
        let one = |event: &Value| {
            let nanos = event["timeNano"].as_i64()?;
            let when = Timestamp::from_nanosecond(i128::from(nanos)).ok()?;
            Some((event["Actor"]["ID"].as_str()?.to_owned(), when.to_string()))
        };
        Ok(events.iter().filter_map(one).collect())
    }

    async fn look(&self, at: Timestamp, deadline: Instant) -> Result<Reading, EngineError> {
        let containers = self.find(deadline).await?;
        let running: Vec<&Value> = containers.iter().filter(|one| one["State"]["Running"] == true).collect();
        let window = self.settings.window.0;
        let ids: Vec<String> = containers.iter().map(|one| text(&one["Id"])).collect();
        // A kill that only the event tells is missed where events cannot be had; the flag is read all the same.
        let kills = match self.kills(at, &ids, deadline).await {
            Err(error @ (EngineError::Down { .. } | EngineError::Odd { .. })) => return Err(error),
            kills => kills.unwrap_or_default(),
        };
        let (restarts, oom_kills) = {
            let mut memory = locked(&self.memory);
            memory.take(at, window, &containers, kills);
            (memory.restarts.iter().map(|(_, n)| n).sum::<i64>(), memory.kills.len())
        };
        let worst = containers.iter().find(|one| fails(one)).or(containers.first());
        let mut fields: BTreeMap<String, Value> = [
            ("running", json!(running.len())),
            ("health", json!(worst.map_or("missing", health))),
            ("restarts", json!(restarts)),
            ("restarts_per_hour", json!(restarts as f64 / window.as_secs_f64() * 3600.0)),
            ("oom_kills", json!(oom_kills)),
            ("exit_code", worst.map_or(Value::Null, |one| one["State"]["ExitCode"].clone())),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let value = match self.settings.measure {
            Measure::Failing => Some(f64::from(u8::from(containers.is_empty() || containers.iter().any(fails)))),
            Measure::Restarts => Some(restarts as f64),
            Measure::OomKills => Some(oom_kills as f64),
            Measure::Memory => self.memory(&running, &mut fields, deadline).await?,
            Measure::Cpu => self.cpu(&running, deadline).await?,
            Measure::Log => self.log(&containers, at, &mut fields, deadline).await?,
        };
        let n = fields.get("lines").and_then(Value::as_f64);
        Ok(match value {
            Some(value) => Reading::of(Sample { fields, n, ..Sample::new(at, value) }),
            None => Reading::Empty,
        })
    }

    async fn memory(
        &self,
        running: &[&Value],
        fields: &mut BTreeMap<String, Value>,
        deadline: Instant,
    ) -> Result<Option<f64>, EngineError> {
        let (mut fullest, mut used_bytes) = (None, 0);
        for one in running {
            let stats = self.engine.stats(&text(&one["Id"]), deadline).await?;
            let Some((used, limit)) = memory_of(&stats) else { continue };
            used_bytes += used;
            fullest = Some((used as f64 / limit as f64).max(fullest.unwrap_or(0.0)));
        }
        fields.insert("used_bytes".to_owned(), used_bytes.into());
        Ok(fullest)
    }

    async fn cpu(&self, running: &[&Value], deadline: Instant) -> Result<Option<f64>, EngineError> {
        let (mut used, mut all) = (BTreeMap::new(), 0);
        for one in running {
            let id = text(&one["Id"]);
            let stats = self.engine.stats(&id, deadline).await?;
            let cpu = &stats["cpu_stats"];
            let (Some(mine), Some(machine)) =
                (cpu["cpu_usage"]["total_usage"].as_u64(), cpu["system_cpu_usage"].as_u64())
            else {
                continue;
            };
            used.insert(id, mine);
            all = machine;
        }
        Ok(if used.is_empty() { None } else { locked(&self.memory).share(used, all) })
    }

    /// None where nothing was written: no lines are neither good nor bad news.
    async fn log(
        &self,
        containers: &[Value],
        at: Timestamp,
        fields: &mut BTreeMap<String, Value>,
        deadline: Instant,
    ) -> Result<Option<f64>, EngineError> {
        let Some(pattern) = &self.pattern else { return Ok(None) };
        let since = at.as_second() - self.settings.window.0.as_secs().cast_signed();
        let (mut lines, mut found) = (0_usize, 0_usize);
        for one in containers {
            let written = self.engine.logs(one, LINES, Some(since), deadline).await?;
            lines += written.len();
            found += written.iter().filter(|line| pattern.is_match(&line.text)).count();
        }
        fields.insert("lines".to_owned(), lines.into());
        Ok((lines > 0).then_some(found as f64))
    }
}

impl Signal for Containers {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move {
            let deadline = Instant::now() + cx.limit - cx.limit / 20;
            match self.look(cx.now, deadline).await {
                Ok(reading) => reading,
                Err(error) => failed(error.to_string()),
            }
        })
    }

    fn query(&self) -> String {
        let s = &self.settings;
        let which = match (&s.name, &s.project, &s.service) {
            (Some(name), ..) => format!("container {name}"),
            (None, Some(project), Some(service)) => format!("the containers of {project}/{service}"),
            _ => "no container".to_owned(),
        };
        let within = ripcord_core::human(s.window.0);
        let measure = match s.measure {
            Measure::Failing => "failure".to_owned(),
            Measure::Restarts => format!("restarts within {within}"),
            Measure::OomKills => format!("kills for want of memory within {within}"),
            Measure::Memory => "share of memory".to_owned(),
            Measure::Cpu => "share of processor time".to_owned(),
            Measure::Log => format!("lines with /{}/ within {within}", s.pattern.as_deref().unwrap_or_default()),
        };
        self.redactor.clean(&format!("{measure} of {which} at {}", self.engine.endpoint()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn one(restarts: i64, started: i64) -> Value {
        json!({ "Id": "a", "RestartCount": restarts, "State": { "StartedAt": at(started).to_string() } })
    }

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn restarts_are_counted_from_one_look_to_the_next() {
        let mut memory = Memory::default();
        let mut count = |second: i64, container: Value| {
            memory.take(at(second), WINDOW, &[container], vec![]);
            memory.restarts.iter().map(|(_, n)| n).sum::<i64>()
        };
        assert_eq!(count(0, one(7, 0)), 0, "what was before the first look is not known");
        assert_eq!(count(8, one(9, 0)), 2, "counted, and not started yet");
        assert_eq!(count(10, one(9, 8)), 2);
        assert_eq!(count(20, one(9, 8)), 2);
        assert_eq!(count(30, one(0, 25)), 3, "by hand: the Engine's count begins anew");
        assert_eq!(count(67, one(0, 25)), 3);
        assert_eq!(count(71, one(0, 25)), 1, "only within the window");
        let mut other = one(0, 72);
        other["Id"] = json!("b");
        assert_eq!(count(75, other), 1, "another container was made by a deployment");
    }

    #[test]
    fn a_kill_counts_once_whoever_tells_it() {
        let mut memory = Memory::default();
        let killed = |ended: i64| {
            let state =
                json!({ "StartedAt": at(0).to_string(), "OOMKilled": true, "FinishedAt": at(ended).to_string() });
            json!({ "Id": "a", "RestartCount": 0, "State": state })
        };
        let event = |second: i64| ("a".to_owned(), at(second).to_string());
        memory.take(at(5), WINDOW, &[killed(4)], vec![event(4)]);
        assert_eq!(memory.kills.len(), 1);
        memory.take(at(6), WINDOW, &[killed(4)], vec![event(4)]);
        assert_eq!(memory.kills.len(), 1);
        // The event alone (it runs again already), and the flag alone (the event is forgotten).
        memory.take(at(20), WINDOW, &[one(1, 19)], vec![event(18)]);
        assert_eq!(memory.kills.len(), 2);
        memory.take(at(30), WINDOW, &[killed(29)], vec![]);
        assert_eq!(memory.kills.len(), 3);
        memory.take(at(70), WINDOW, &[one(1, 19)], vec![]);
        assert_eq!(memory.kills.len(), 2, "only within the window");
    }

    #[test]
    fn processor_time_is_a_share_of_the_machine_s() {
        let mut memory = Memory::default();
        let used = |a: u64, b: u64| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        assert_eq!(memory.share(used(100, 0), 1_000), None);
        assert_eq!(memory.share(used(200, 150), 2_000), Some(0.25));
        assert_eq!(memory.share([("c".to_owned(), 900)].into(), 3_000), Some(0.0), "a new one has no past");
        assert_eq!(memory.share([("c".to_owned(), 900)].into(), 3_000), None, "no time passed");
    }

    #[test]
    fn caches_are_not_used_memory() {
        let old = json!({ "memory_stats": { "usage": 100, "limit": 200, "stats": { "total_inactive_file": 40, "inactive_file": 1 } } });
        assert_eq!(memory_of(&old), Some((60, 200)));
        let new = json!({ "memory_stats": { "usage": 100, "limit": 200, "stats": { "inactive_file": 30 } } });
        assert_eq!(memory_of(&new), Some((70, 200)));
        assert_eq!(memory_of(&json!({ "memory_stats": {} })), None);
    }

    #[test]
    fn states_are_judged() {
        let is = |state: Value| fails(&json!({ "State": state }));
        assert!(!is(json!({ "Status": "running" })));
        assert!(!is(json!({ "Status": "running", "Health": { "Status": "healthy" } })));
        assert!(!is(json!({ "Status": "running", "Health": { "Status": "starting" } })));
        assert!(is(json!({ "Status": "running", "Health": { "Status": "unhealthy" } })));
        for status in ["exited", "restarting", "paused", "created", "dead"] {
            assert!(is(json!({ "Status": status, "Health": { "Status": "healthy" } })), "{status}");
        }
    }

    #[test]
    fn mistakes_are_found_when_settings_are_read() {
        let mistakes = |yaml: &str| {
            let settings: Settings = serde_saphyr::from_str(yaml).unwrap();
            SignalKind::check(&settings).into_iter().map(|mistake| mistake.what).collect::<Vec<_>>()
        };
        assert_eq!(mistakes(Settings::DOC.example), Vec::<String>::new());
        assert_eq!(mistakes("project: shop"), ["it does not say which container"]);
        assert_eq!(mistakes("name: x\nproject: shop\nservice: api"), ["it does not say which container"]);
        assert_eq!(mistakes("name: x\nmeasure: log"), ["it does not say which lines count"]);
        assert_eq!(mistakes("name: x\npattern: error"), ["no lines are looked at"]);
        assert!(mistakes("name: x\nmeasure: log\npattern: '('")[0].starts_with("`pattern` is no regular expression"));
    }
}
