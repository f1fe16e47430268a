//! An application under pm2: stopped and started, or reloaded without a gap, with the environment its file says now.
//!
//! pm2 keeps the environment an application was first started with unless it is told to update it, and what it is told to take is
//! the environment of whoever calls it. So a start says `--update-env`, hands over the keys of `env-file`, and takes every other
//! variable of Ripcord's own away first; then it is read back from pm2 that the running instances have them.
//!
//! An application counts as started when all its instances are others than before, online, and stayed so for the settling time. One
//! that still runs when it is to be started is reloaded: in cluster mode its instances are replaced one after the other, so that there
//! is no gap. pm2 never takes a variable away from what it reloads: where one has to go, see `anew`.

mod anew; // without a variable that pm2 would keep

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ripcord_config::wire::{Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CapturePurpose, Component, ComponentId, Cx, Digest, Downtime,
    Draft, Failure, Fut, Holds, Inventory, KindVersion, Layer, Lifecycle, Observation, Observe, Outcome, Output, Place,
    Proof, Revision, Seen, Shown, Step, Survey, TargetId, Want, Wanted, Wish,
};
use ripcord_vault::Source;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::env_file::edit;
use super::files::captures::{self, Captures};
use super::files::{Stop, Trying, blocking, outcome};
use super::tool::{Tool, poll, program_mistake};
use crate::hosts::within;
use crate::pm2::{ANSWER, Pm2, Process, program};
use crate::{BuildCx, BuildError, ComponentKind};

/// How often an application that is to stay up is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// The most of one log that is evidence, and that comes with a failure.
const EVIDENCE: u64 = 256 << 10;
const LAST_WORDS: u64 = 2 << 10;
/// How long the log of what crashed is waited for.
const LATE_WORDS: Duration = Duration::from_secs(2);
/// What of the environment pm2 and Node need to run at all; the application gets these and what its file says.
const PASSED_ON: [&str; 14] = [
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "NODE_EXTRA_CA_CERTS",
    "NVM_DIR",
    "PATH",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_RUNTIME_DIR",
];

/// An application under pm2.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Its name in pm2.
    pub app: Text,
    /// `PM2_HOME`; without it the environment's, else `~/.pm2`.
    #[serde(default)]
    pub home: Option<PathBuf>,
    /// How pm2 is run, such as `[sudo, -n, -u, deploy, pm2]`.
    #[serde(default = "program")]
    pub program: Vec<Text>,
    /// The ecosystem file that defines it. With it a stopped application is started as the file says now; without it as pm2 knows it.
    #[serde(default)]
    pub ecosystem: Option<PathBuf>,
    /// A `KEY=value` file whose keys the application is given at each start. What the ecosystem file says goes before it.
    #[serde(default)]
    pub env_file: Option<PathBuf>,
    /// Variables that the application may have only while `env-file` or `ecosystem` says so: names, in which `*` may stand for
    /// anything. One that another release brought is gone after a start, which pm2 alone does not do.
    #[serde(default)]
    pub variables: Vec<Text>,
    /// How long all instances must stay online after a start before it counts as started.
    #[serde(default = "settle")]
    pub settle: Span,
}

fn settle() -> Span {
    Span(Duration::from_secs(3))
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "pm2",
        summary: "An application under pm2: stopped, started or reloaded with the environment its file says now.",
        example: "app: shop\nhome: /srv/deploy/.pm2\necosystem: current/ecosystem.config.js\nenv-file: shared/app.env\nvariables: [\"ENABLE_*\"]\nsettle: 5s\n",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        let app = self.app.as_str();
        // These name all applications, or one by its number in today's list.
        if app.is_empty() || app == "all" || app.starts_with('-') || app.bytes().all(|byte| byte.is_ascii_digit()) {
            mistakes.push(
                Mistake::new(format!("`{app}` is no application's name")).at("app").help("write its name in pm2"),
            );
        }
        mistakes.extend(program_mistake(&self.program, "program"));
        if !self.variables.is_empty() && self.ecosystem.is_none() {
            let help = "give `ecosystem` too: only what a file defines can be started anew without what it had";
            mistakes.push(Mistake::new("pm2 would keep them").at("variables").help(help));
        }
        if self.settle.0 > Duration::from_secs(25) {
            let help =
                "a start has a minute for all it does; say what else must hold as a health check of the component";
            mistakes.push(Mistake::new("it would have to settle for too long").at("settle").help(help));
        }
        mistakes
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let pm2 = Pm2::new(&self.program, self.home.as_deref(), &self.app, cx);
        Ok(Arc::new(Application {
            pm2: pm2.map_err(|why| BuildError::new(id, why))?,
            program: self.program.iter().map(ToString::to_string).collect(),
            ecosystem: self.ecosystem.as_ref().map(|path| cx.base.join(path)),
            env_file: self.env_file.as_ref().map(|path| cx.base.join(path)),
            variables: self.variables.iter().map(ToString::to_string).collect(),
            settle: self.settle.0,
            captures: Captures::new(id, cx),
        }))
    }
}

struct Application {
    pm2: Pm2,
    program: Vec<String>,
    ecosystem: Option<PathBuf>,
    env_file: Option<PathBuf>,
    variables: Vec<String>,
    settle: Duration,
    captures: Captures,
}

type Environment = BTreeMap<String, String>;

/// The running instances as one mark; none where nothing runs.
fn mark(processes: &[Process]) -> Option<String> {
    let up: Vec<String> = processes.iter().filter(|process| process.is_up()).map(Process::instance).collect();
    (!up.is_empty()).then(|| up.join(" "))
}

/// Whether all run, and none of them is of before.
fn all_new(processes: &[Process], before: Option<&String>) -> bool {
    let old = |process: &Process| before.is_some_and(|mark| mark.split(' ').any(|one| one == process.instance()));
    !processes.is_empty() && processes.iter().all(|process| process.is_online() && !old(process))
}

fn words(processes: &[Process]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for process in processes {
        *counts.entry(&process.status).or_default() += 1;
    }
    let counts: Vec<_> = counts.into_iter().map(|(status, n)| format!("{n} {status}")).collect();
    if counts.is_empty() { "not known to pm2".to_owned() } else { counts.join(", ") }
}

impl Application {
    async fn look(&self, limit: Duration) -> Result<Vec<Process>, Failure> {
        self.pm2.processes(limit).await
    }

    fn environment(&self) -> Result<Environment, Failure> {
        let Some(path) = &self.env_file else { return Ok(Environment::new()) };
        let bytes = fs::read(path).trying("read", path)?;
        edit::read(&bytes).map_err(|error| Failure::never(format!("{}: {error}", path.display())))
    }

    /// The keys that a running instance has otherwise than the file says. An application without instances has none right.
    fn unlike(environment: &Environment, processes: &[Process]) -> Vec<String> {
        let is_so = |key: &String, value: &String| {
            !processes.is_empty() && processes.iter().all(|process| process.environment.get(key) == Some(value))
        };
        environment.iter().filter(|(key, value)| !is_so(key, value)).map(|(key, _)| key.clone()).collect()
    }

    /// pm2 with the environment that an application is to get. Names are in its arguments and values are not.
    fn starter(&self, environment: &Environment) -> Tool {
        let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let gone = ours.filter(|name| {
            !PASSED_ON.contains(&name.as_str()) && name != "PM2_HOME" && !environment.contains_key(name)
        });
        let unset = gone.flat_map(|name| ["-u".to_owned(), name]);
        let program = std::iter::once("env".to_owned()).chain(unset).chain(self.program.iter().cloned());
        let tool = self.pm2.tool.instead(program);
        let tool = environment.iter().fold(tool, |tool, (name, value)| tool.with(name, value));
        match self.ecosystem.as_deref().and_then(Path::parent) {
            Some(directory) => tool.at(directory),
            None => tool,
        }
    }

    fn revision(processes: &[Process]) -> Revision {
        let Some(first) = processes.first() else { return Revision::Absent };
        let definition = (&first.script, &first.directory, &first.version, first.cluster, processes.len());
        Revision::exact(Digest::of_value(&definition).to_string())
    }

    async fn survey(&self, cx: &Cx, place: &Place, wanted: &[Wanted]) -> Survey {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let target = TargetId(format!("pm2:{host}:{}:{}", self.pm2.home.display(), self.pm2.app));
        let looked = self.look(within(cx.limit)).await;
        let seen = match &looked {
            Ok(processes) => Seen::At(Self::revision(processes)),
            Err(failure) => Seen::Unreachable { why: failure.what.clone() },
        };
        let mut survey = Survey::new(place.clone(), seen, target);
        survey.reckoned = Some(Duration::from_secs(2));
        if let Ok(processes) = &looked {
            survey.instance = mark(processes);
            survey.running = Some(survey.instance.is_some());
            survey.rolls = !processes.is_empty() && processes.iter().all(|one| one.cluster && one.is_online());
            let mut label = words(processes);
            if let Some(first) = processes.first() {
                let version = first.version.as_deref().map_or(String::new(), |version| format!("version {version}, "));
                let mode = if first.cluster { "cluster" } else { "fork" };
                label = format!("{version}{label} ({mode}), {}", first.script);
            }
            survey.label = Some(label);
            let unlike = self.environment().map(|environment| Self::unlike(&environment, processes));
            match unlike {
                Ok(keys) if !keys.is_empty() && !processes.is_empty() => {
                    survey.facts.insert("not in force".into(), format!("{} of the env file", keys.join(", ")));
                }
                Ok(_) => {}
                Err(failure) => drop(survey.facts.insert("env file".into(), failure.what)),
            }
        }
        if self.pm2.home.join("dump.pm2").exists() {
            survey.puts_back.push(
                "`pm2 resurrect`, as at boot, starts what `pm2 save` kept last, in the environment it had then"
                    .to_owned(),
            );
        }
        let at = survey.seen.revision().cloned();
        let available = |wanted: &Wanted| match Some(&wanted.revision) == at.as_ref() {
            true => Available::Here { how: "it is there".to_owned() },
            false => Available::Missing { why: "what pm2 runs is kept by what defines it".to_owned() },
        };
        survey.available = wanted.iter().map(|wanted| (wanted.clone(), available(wanted))).collect();
        survey
    }

    async fn observe(&self, cx: &Cx, step: &Step, before: Option<&Before>) -> Result<Observation, Failure> {
        let processes = self.look(within(cx.limit)).await?;
        let mark = mark(&processes);
        let holds = match &step.action {
            Action::Stop if mark.is_none() => Holds::Target,
            Action::Stop => Holds::Origin,
            Action::Start | Action::Roll => {
                let done = before.is_some_and(|before| all_new(&processes, before.mark.as_ref()))
                    && Self::unlike(&self.environment()?, &processes).is_empty();
                if done { Holds::Target } else { Holds::Origin }
            }
            Action::Prove { .. } | Action::Capture { .. } => Holds::Origin,
            _ => Holds::CannotTell { why: "an application under pm2 has no such step".to_owned() },
        };
        Ok(Observation { holds, mark })
    }

    async fn act(&self, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Stop> {
        let deadline = Instant::now() + within(cx.limit);
        match &step.action {
            Action::Stop => self.stop(deadline).await,
            Action::Start | Action::Roll => self.start(before.mark.as_ref(), deadline).await,
            Action::Capture { purpose: CapturePurpose::Evidence } => Ok(self.evidence(cx, before).await?),
            other => Err(Failure::never(format!("an application under pm2 cannot do {other:?}")).into()),
        }
    }

    async fn stop(&self, deadline: Instant) -> Result<Proof, Stop> {
        if mark(&self.look(left(deadline)).await?).is_none() {
            return Ok(Proof::of("it does not run"));
        }
        self.pm2.tool.act(&["stop", &self.pm2.app], left(deadline)).await?;
        let gone = poll(deadline, || async {
            match self.look(left(deadline)).await {
                Ok(processes) if mark(&processes).is_none() => Ok(words(&processes)),
                Ok(processes) => Err(format!("{} still run", words(&processes))),
                Err(failure) => Err(failure.what),
            }
        });
        let advice = "stop it by hand, then retry the step";
        let failed = |seen| Failure::never(format!("`pm2 stop` reported success, but {seen}")).advise(advice).into();
        gone.await.map(Proof::of).map_err(failed)
    }

    async fn start(&self, before: Option<&String>, deadline: Instant) -> Result<Proof, Stop> {
        let environment = self.environment()?;
        let found = self.look(left(deadline)).await?;
        // Instances of before that still run are to take up what was restored.
        let runs = !found.is_empty() && found.iter().all(Process::is_online);
        let (tool, app) = (self.starter(&environment), self.pm2.app.as_str());
        let ecosystem = self.ecosystem.as_ref().map(|path| path.display().to_string());
        // Whatever starts the daemon leaves it its own environment, and every application has that for good.
        if !self.pm2.daemon_runs()? {
            self.starter(&Environment::new()).act(&["ping"], left(deadline)).await?;
        }
        let left_over = anew::left_over(&self.variables, &environment, &found);
        let began = match (&ecosystem, runs) {
            (Some(file), true) if !left_over.is_empty() => self.anew(&tool, file, deadline).await,
            (Some(file), true) => self.reload(&tool, file, &environment, deadline).await,
            (Some(file), false) => {
                // A restart keeps the script, the mode and the number of instances that pm2 knows; only a new start takes the file's.
                if !found.is_empty() {
                    self.pm2.tool.act(&["delete", app], left(deadline)).await?;
                }
                tool.act(&["start", file, "--only", app, "--update-env"], left(deadline)).await
            }
            (None, true) => tool.act(&["reload", app, "--update-env"], left(deadline)).await,
            (None, false) if found.is_empty() => {
                let failure = Failure::never(format!("pm2 knows no application `{app}`, and no file says what it is"));
                return Err(failure.advise("give `ecosystem`, or start it once by hand").into());
            }
            (None, false) => tool.act(&["restart", app, "--update-env"], left(deadline)).await,
        };
        began?;
        let processes = self.settled(before, deadline).await?;
        self.without_stand_in(deadline).await?;
        let unlike = Self::unlike(&environment, &processes);
        if !unlike.is_empty() {
            let what = format!("it runs, but not with the values the env file has for {}", unlike.join(", "));
            return Err(Failure::never(what).advise("see whether the ecosystem file sets these itself").into());
        }
        let inherited = anew::inherited(&self.variables, &environment, &processes, &self.pm2.home);
        if !inherited.is_empty() {
            let what =
                format!("it runs, but pm2's daemon has {} itself, and so has whatever it starts", inherited.join(", "));
            return Err(Failure::never(what).advise("have the daemon started anew without them: `pm2 update`").into());
        }
        let how = match (runs, left_over.is_empty()) {
            (true, true) => "reloaded, ".to_owned(),
            (true, false) => format!("started anew beside, without {}, ", Vec::from_iter(left_over).join(", ")),
            (false, _) => String::new(),
        };
        let keys = match environment.len() {
            0 => String::new(),
            n => format!(", {n} keys of the env file in force"),
        };
        let stayed = ripcord_core::human(self.settle);
        Ok(Proof::of(format!("{how}{}, and stayed so for {stayed}{keys}", words(&processes))))
    }

    /// Reloads a running application as its ecosystem file says now.
    ///
    /// With a file pm2 takes the environment that the file says and nothing of its caller's; with a name it is the other way round.
    async fn reload(
        &self,
        tool: &Tool,
        file: &str,
        environment: &Environment,
        deadline: Instant,
    ) -> Result<Output, Stop> {
        let app = self.pm2.app.as_str();
        let output = tool.act(&["reload", file, "--only", app, "--update-env"], left(deadline)).await?;
        let processes = self.look(left(deadline)).await.map_err(|failure| Stop::Unknown(failure.what))?;
        match Self::unlike(environment, &processes).is_empty() {
            true => Ok(output),
            false => tool.act(&["reload", app, "--update-env"], left(deadline)).await,
        }
    }

    /// The instances, once all were online for the settling time without a restart.
    async fn settled(&self, before: Option<&String>, deadline: Instant) -> Result<Vec<Process>, Stop> {
        let mut up: Option<(Instant, Option<String>)> = None;
        loop {
            let processes = self.look(left(deadline)).await.map_err(|failure| Stop::Unknown(failure.what))?;
            let gave_up = processes.iter().any(|process| process.status == "errored");
            let again = up.as_ref().is_some_and(|(_, was)| *was != mark(&processes));
            if gave_up || again {
                return Err(self.crashing(&processes).await.into());
            }
            let now = Instant::now();
            if all_new(&processes, before) {
                let (since, _) = up.get_or_insert_with(|| (now, mark(&processes)));
                if now.duration_since(*since) >= self.settle {
                    return Ok(processes);
                }
            }
            if now + LOOK >= deadline {
                return Err(Stop::Unknown(format!("it is {} when the time is up", words(&processes))));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn crashing(&self, processes: &[Process]) -> Failure {
        let restarts: u64 = processes.iter().map(|process| process.unstable.max(process.restarts)).sum();
        let what = format!("`{}` does not stay up: {}, started again {restarts} times", self.pm2.app, words(processes));
        // pm2 writes down what an instance said last a moment after it has noticed its end.
        let said = poll(Instant::now() + LATE_WORDS, || async {
            let logs = self.logs(processes, LAST_WORDS).into_iter().filter(|(_, text)| !text.trim().is_empty());
            let logs: Vec<_> = logs.map(|(name, text)| format!("{name}\n{text}")).collect();
            if logs.is_empty() { Err(()) } else { Ok(logs.join("\n")) }
        });
        let output = said.await.ok();
        let failure = Failure::never(what).advise(format!("find the cause in its log: `pm2 logs {}`", self.pm2.app));
        Failure { output, ..failure }
    }

    /// The ends of its log files, without secrets, each under its name.
    fn logs(&self, processes: &[Process], most: u64) -> BTreeMap<String, String> {
        let paths = processes.iter().flat_map(|process| &process.logs);
        let read = |path: &PathBuf| -> std::io::Result<String> {
            let mut file = File::open(path)?;
            let size = file.metadata()?.len();
            file.seek(SeekFrom::Start(size.saturating_sub(most)))?;
            let mut bytes = vec![];
            file.take(most).read_to_end(&mut bytes)?;
            Ok(self.pm2.tool.clean(&String::from_utf8_lossy(&bytes)))
        };
        let name = |path: &PathBuf| path.file_name().map(|name| name.display().to_string());
        let mut logs: BTreeMap<_, _> = paths
            .filter_map(|path| Some((name(path)?, read(path).unwrap_or_else(|error| error.to_string()))))
            .collect();
        // In cluster mode what ends before it has begun is heard of nowhere else.
        if let Ok(text) = read(&self.pm2.home.join("pm2.log")) {
            let (app, named) = (format!("[{}:", self.pm2.app), format!("name:{} ", self.pm2.app));
            let lines: Vec<_> = text.lines().filter(|line| line.contains(&app) || line.contains(&named)).collect();
            logs.insert("pm2.log".to_owned(), lines.join("\n"));
        }
        logs
    }

    async fn evidence(&self, cx: &Cx, before: &Before) -> Result<Proof, Failure> {
        let processes = self.look(within(cx.limit).min(ANSWER)).await?;
        let list: Vec<_> = processes
            .iter()
            .map(|p| {
                json!({
                    "id": p.id, "pid": p.pid, "status": p.status, "restarts": p.restarts, "unstable": p.unstable, "script": p.script,
                    "directory": p.directory, "version": p.version, "memory-bytes": p.memory_bytes, "cpu-percent": p.cpu_percent,
                    "environment": p.environment.keys().collect::<Vec<_>>(),
                })
            })
            .collect();
        let mut files = vec![("list.json".to_owned(), json!(list).to_string())];
        files.extend(self.logs(&processes, EVIDENCE).into_iter().map(|(name, text)| (format!("log-{name}"), text)));
        let file = |(path, text): (String, String)| Source::Bytes { path, bytes: text.into_bytes(), mode: 0o600 };
        let sources: Vec<_> = files.into_iter().map(file).collect();
        let (captures, cx, key) = (self.captures.clone(), cx.clone(), before.key.clone());
        let stored = blocking(move |_| captures.store(&cx, &key, "evidence", sources)).await??;
        let made = captures::made(Revision::exact(format!("evidence:{}", stored.tree.hex())), None, &stored)?;
        let found = format!("{} bytes: the list and the ends of the logs", made.bytes);
        Ok(Proof { capture: Some(made), ..Proof::of(found) })
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100))
}

impl Component for Application {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: Settings::DOC.name.to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            observe: Observe::ByMarker,
            downtime: Downtime::UntilHealthy,
            lifecycle: Lifecycle::Process,
            evidence: true,
            ..Capabilities::NONE
        }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(self.survey(cx, place, wanted))
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let now = seen.surveys.get(&wish.place).and_then(|survey| survey.seen.revision());
        match &wish.want {
            Want::Revision { revision, .. } if now == Some(revision) => Ok(vec![]),
            Want::Values(values) if values.is_empty() => Ok(vec![]),
            _ => Err(CannotPlan {
                place: wish.place.clone(),
                why: "it runs what others hold, and has no revisions or values of its own".to_owned(),
            }),
        }
    }

    fn show(&self, place: &Place, action: &Action) -> Shown {
        let app = self.pm2.app.as_str();
        let ecosystem = self.ecosystem.as_ref().map(|path| path.display().to_string());
        let settle = ripcord_core::human(self.settle);
        let (words, commands) = match action {
            Action::Stop => (format!("stop {place}"), vec![self.pm2.tool.shown(&["stop", app])]),
            Action::Roll => {
                let command = match &ecosystem {
                    Some(file) => self.pm2.tool.shown(&["reload", file, "--only", app, "--update-env"]),
                    None => self.pm2.tool.shown(&["reload", app, "--update-env"]),
                };
                (format!("reload {place} without a gap, and see that it stays online for {settle}"), vec![command])
            }
            Action::Start => {
                let command = match &ecosystem {
                    Some(file) => self.pm2.tool.shown(&["start", file, "--only", app, "--update-env"]),
                    None => self.pm2.tool.shown(&["restart", app, "--update-env"]),
                };
                let words =
                    format!("start {place} (reload it where it runs), and see that it stays online for {settle}");
                (words, vec![command])
            }
            Action::Capture { purpose: CapturePurpose::Evidence } => {
                (format!("collect the list and logs of {place}"), vec![])
            }
            _ => (format!("nothing that pm2 can do at {place}"), vec![]),
        };
        Shown { words, commands }
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let looked = self.observe(cx, step, before).await;
            looked.unwrap_or_else(|failure| Holds::CannotTell { why: failure.what }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move { outcome(self.act(cx, step, before).await) })
    }
}
