//! Anything that commands can observe, capture, restore, stop and start.
//!
//! What the component can do follows from the commands that are given. Each gets `RIPCORD_APPLICATION`, `RIPCORD_ENVIRONMENT`
//! and `RIPCORD_COMPONENT`, in a run `RIPCORD_KEY` and `RIPCORD_STEP` too, and `RIPCORD_REVISION` where one is meant (empty: the
//! state in which nothing is there).
//!
//! An exit code is a report and not a proof: after `restore` the component must be seen at the revision, after `stop` no instance,
//! after `start` another instance than before. Exit code 75 (EX_TEMPFAIL of sysexits.h) says that trying again may help; any other
//! failure waits for a person.

mod world; // running the commands, and reading what they print

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ripcord_config::wire::{SecretFrom, Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CapturePurpose, CaptureRef, Component, ComponentId, Cx,
    Destroys, Downtime, Draft, Failure, Fut, Held, HeldIn, Holds, Inventory, KindVersion, Layer, Lifecycle, Limits,
    Nature, Observation, Observe, Outcome, Phase, Place, Proof, ProofLevel, Readers, Redo, Retry, Revision, Seen,
    Shown, Step, Survey, TargetId, Want, Wanted, Wish,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use self::world::{Cannot, World};
use super::files::ReadersSetting;
use super::files::captures::{Captures, made, manifest};
use super::ports;
use crate::{BuildCx, BuildError, ComponentKind};

/// The revision of what has none of its own: always the same, so never a reason to act.
const UNVERSIONED: &str = "unversioned";

/// Something that commands take care of. Each is a program with its arguments; no shell reads it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Prints the present revision on one line, and if wanted a label for people on a second; nothing where nothing is there.
    #[serde(default)]
    pub observe: Option<Vec<Text>>,
    /// Prints the present state, all that `restore` needs to bring it back. It is kept in the vault.
    #[serde(default)]
    pub capture: Option<Vec<Text>>,
    /// Goes to `RIPCORD_REVISION`. With `capture`, what that printed then is on standard input. Doing it twice must be doing it once.
    #[serde(default)]
    pub restore: Option<Vec<Text>>,
    /// Exits with 0 when `restore` can go to `RIPCORD_REVISION`. Needed where the system itself keeps its revisions (no `capture`).
    #[serde(default)]
    pub available: Option<Vec<Text>>,
    /// Starts it and returns; what runs on must not be a child that is waited for.
    #[serde(default)]
    pub start: Option<Vec<Text>>,
    #[serde(default)]
    pub stop: Option<Vec<Text>>,
    /// Prints what tells the running instance from every other (a process and its start time), nothing when none runs. Exit code 1
    /// or 3 without a word means none too, as with `pgrep` and init scripts.
    #[serde(default)]
    pub instance: Option<Vec<Text>>,
    /// TCP ports that it listens on. Before `start` is run each must be free for local callers; one that is not is waited for, and
    /// who has it is said.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Prints what helps to find the cause later (logs, process lists); kept in the vault before anything is stopped.
    #[serde(default)]
    pub evidence: Option<Vec<Text>>,
    /// What a restore means for the components that need this one: they notice (`hot`), are restarted (`restart`), or are stopped
    /// meanwhile (`stop`).
    #[serde(default)]
    pub readers: Option<ReadersSetting>,
    /// Whether it changes by release only (`versioned`) or by use (`flowing`: data, caches, queues).
    #[serde(default)]
    pub nature: NatureSetting,
    /// What a restore does to the state before it. Without it: `nothing`, or `gives-up` where it is flowing.
    #[serde(default)]
    pub destroys: Option<DestroysSetting>,
    /// Whether a restore that may have happened may be begun again.
    #[serde(default)]
    pub redo: RedoSetting,
    #[serde(default)]
    pub directory: Option<PathBuf>,
    #[serde(default)]
    pub environment: BTreeMap<String, Text>,
    /// Environment variables whose values are secrets.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretFrom>,
    /// How long a restore may take.
    #[serde(default)]
    pub limits: LimitsSetting,
    /// What it really is, whatever it is called here: two configurations that name the same never act on it at once.
    #[serde(default)]
    pub target: Option<Text>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NatureSetting {
    #[default]
    Versioned,
    Flowing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DestroysSetting {
    /// The former state can be had again (it is kept by the system, or a capture holds all of it).
    Nothing,
    /// The former state is kept beside.
    SetAside,
    /// The former state is gone: somebody must consent.
    GivesUp,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RedoSetting {
    /// At any moment.
    Safe,
    /// When `RIPCORD_KEY` is the same, which the command looks at.
    SameKey,
    /// Only when the component is seen to be as before.
    #[default]
    Never,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitsSetting {
    /// The longest one call may take.
    #[serde(default)]
    pub call: Option<Span>,
    /// The longest it may take with all its tries.
    #[serde(default)]
    pub total: Option<Span>,
    #[serde(default)]
    pub tries: Option<u32>,
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "command",
        summary: "Anything that commands can observe, capture, restore, stop and start.",
        example: "\
observe: [./ops/rules, revision]
capture: [./ops/rules, export]
restore: [./ops/rules, import]
readers: restart
secrets: { RULES_TOKEN: { env: RULES_TOKEN } }
limits: { call: 2m, total: 10m }
",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        for (name, argv) in self.commands() {
            if argv.first().is_none_or(|program| program.as_str().is_empty()) {
                mistakes
                    .push(Mistake::new(format!("`{name}` is no command")).at(name).help("write `[program, argument]`"));
            }
        }
        let mut needs = |given: bool, there: bool, what: &str, at: &str, help: &str| {
            if given && !there {
                mistakes.push(Mistake::new(what).at(at).help(help));
            }
        };
        let help = "give `observe`, which prints the present revision";
        needs(
            self.restore.is_some(),
            self.observe.is_some(),
            "nobody could tell whether `restore` did it",
            "restore",
            help,
        );
        let help = "give `capture`, or `available` where the system itself keeps its revisions";
        let held = self.capture.is_some() || self.available.is_some();
        needs(self.restore.is_some(), held, "nobody could tell what `restore` can go back to", "restore", help);
        needs(
            self.capture.is_some(),
            self.restore.is_some(),
            "what is captured is never restored",
            "capture",
            "give `restore`",
        );
        needs(self.start.is_some(), self.stop.is_some(), "what is started is never stopped", "start", "give `stop`");
        needs(self.stop.is_some(), self.start.is_some(), "what is stopped is never started", "stop", "give `start`");
        needs(
            self.instance.is_some(),
            self.start.is_some(),
            "nothing is started",
            "instance",
            "give `start` and `stop`",
        );
        needs(
            !self.ports.is_empty(),
            self.instance.is_some(),
            "nobody could tell whether it is itself that has the ports",
            "ports",
            "give `instance`, which prints what tells the running instance from every other",
        );
        let acts = self.restore.is_some() || self.start.is_some() || self.observe.is_some();
        needs(true, acts, "it can do nothing", "", "give `observe` and `restore`, or `start` and `stop`");
        for mistake in mistakes.iter_mut().filter(|mistake| mistake.field.as_deref() == Some("")) {
            mistake.field = None;
        }
        if let Some(i) = self.ports.iter().position(|port| *port == 0) {
            mistakes.push(
                Mistake::new("0 is no port").at(format!("ports.{i}")).help("write the port itself, such as `8080`"),
            );
        }
        let limits = self.limits();
        if limits.call > limits.total || limits.tries == 0 || limits.call.is_zero() {
            let help = "a call takes some time, all tries together no less than one call, and there is at least one";
            mistakes.push(Mistake::new("the limits leave no room to act").at("limits").help(help));
        }
        mistakes
    }

    fn nature(&self) -> Nature {
        match self.nature {
            NatureSetting::Versioned => Nature::Versioned,
            NatureSetting::Flowing => Nature::Flowing,
        }
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        Ok(Arc::new(Commands {
            world: World::new(id, self, cx),
            captures: Captures::new(id, cx),
            settings: self.clone(),
            keep_aside: cx.keep_aside,
        }))
    }
}

impl Settings {
    fn commands(&self) -> impl Iterator<Item = (&'static str, &Vec<Text>)> {
        let all = [
            ("observe", &self.observe),
            ("capture", &self.capture),
            ("restore", &self.restore),
            ("available", &self.available),
            ("start", &self.start),
            ("stop", &self.stop),
            ("instance", &self.instance),
            ("evidence", &self.evidence),
        ];
        all.into_iter().filter_map(|(name, argv)| Some((name, argv.as_ref()?)))
    }

    fn limits(&self) -> Limits {
        let default = Limits::default();
        let call = self.limits.call.map_or(default.call, Duration::from);
        let total = self.limits.total.map_or(default.total.max(call.saturating_mul(3)), Duration::from);
        Limits { call, total, tries: self.limits.tries.unwrap_or(default.tries) }
    }
}

struct Commands {
    settings: Settings,
    world: World,
    captures: Captures,
    keep_aside: Duration,
}

impl Commands {
    fn destroys(&self) -> Destroys {
        match (self.settings.destroys, self.settings.nature) {
            (Some(DestroysSetting::Nothing), _) | (None, NatureSetting::Versioned) => Destroys::Nothing,
            (Some(DestroysSetting::SetAside), _) => Destroys::SetAside { keep: self.keep_aside },
            (Some(DestroysSetting::GivesUp), _) | (None, NatureSetting::Flowing) => Destroys::GivesUp,
        }
    }

    fn redo(&self) -> Redo {
        match self.settings.redo {
            RedoSetting::Safe => Redo::Safe,
            RedoSetting::SameKey => Redo::SameKey,
            RedoSetting::Never => Redo::Never,
        }
    }

    async fn available(&self, cx: &Cx, wanted: &Wanted, present: Option<&Revision>) -> Available {
        if self.settings.restore.is_none() {
            return match present {
                Some(present) if *present == wanted.revision => Available::Here { how: "it is there".to_owned() },
                _ => Available::Missing { why: "there is no `restore` command".to_owned() },
            };
        }
        if self.settings.capture.is_some() && wanted.capture.is_some() {
            let (captures, wanted) = (self.captures.clone(), wanted.clone());
            let looked = super::files::blocking(move |_| captures.available(&wanted)).await;
            return looked.unwrap_or_else(|failure| Available::Missing { why: failure.what });
        }
        let Some(argv) = &self.settings.available else {
            return match present {
                Some(present) if *present == wanted.revision => Available::Here { how: "it is there now".to_owned() },
                _ => Available::Missing { why: "no capture of it was ever made".to_owned() },
            };
        };
        match self.world.run(argv, cx, None, Some(&wanted.revision)).await {
            Ok(output) if output.succeeded() => Available::Here { how: format!("`{}` says so", argv[0]) },
            Ok(output) => Available::Missing { why: world::failed(argv, &output).what },
            Err(cannot) => Available::Missing { why: cannot.why().to_owned() },
        }
    }

    /// Refuses where a port that a start needs is taken. Blocking, and as short as a look at a few files.
    async fn ports_are_free(&self) -> Result<(), Failure> {
        if self.settings.ports.is_empty() {
            return Ok(());
        }
        let ports = self.settings.ports.clone();
        match super::files::blocking(move |_| ports::taken(&ports)).await?? {
            None => Ok(()),
            Some(taken) => Err(taken.into()),
        }
    }

    /// Waits for the ports: what was just stopped may take a moment to let go. Half of the call is left for the start itself.
    async fn ports_become_free(&self, cx: &Cx) -> Result<(), Failure> {
        let deadline = Instant::now() + cx.limit / 2;
        let asked = world::poll(deadline, || async {
            match self.ports_are_free().await {
                Err(failure) if failure.retry == Retry::Later => Err(failure),
                answered => Ok(answered),
            }
        });
        asked.await?
    }

    async fn prove(&self, cx: &Cx, wanted: Wanted) -> Result<Proof, Cannot> {
        // Where it runs, the ports are its own; where it does not, they are what the start will need.
        if !self.settings.ports.is_empty() && self.world.instance(cx).await?.is_none() {
            self.ports_are_free().await?;
        }
        if let (Some(_), Some(id)) = (&self.settings.capture, &wanted.capture) {
            let found = format!("capture {id}, read back");
            let captures = self.captures.clone();
            let read = move || {
                let made = captures.wanted(&wanted).unwrap_or_else(|| Err(Failure::never("no capture is named")))?;
                captures.verify(&manifest(&made)?)
            };
            super::files::blocking(move |_| read()).await??;
            return Ok(Proof::of(found));
        }
        let present = self.world.revision(cx).await?.0;
        match self.available(cx, &wanted, Some(&present)).await {
            Available::Here { how } => Ok(Proof::of(how)),
            Available::Missing { why } => Err(Failure::never(why).into()),
        }
    }

    async fn restore(
        &self,
        cx: &Cx,
        step: &Step,
        before: &Before,
        to: &Revision,
        from: Option<&CaptureRef>,
    ) -> Result<Proof, Cannot> {
        let argv = self.settings.restore.as_ref().ok_or_else(|| Failure::never("there is no `restore` command"))?;
        let deadline = self.world.deadline(cx);
        let input = match &self.settings.capture {
            None => None,
            Some(_) => {
                let made = self.captures.find(from, before, to)?;
                let made = made.ok_or_else(|| Failure::never("no capture holds it, and `restore` needs one"))?;
                Some(self.world.content(&self.captures, made).await?)
            }
        };
        let output = self.world.act(argv, cx, Some((step, before)), Some(to), input).await?;
        let reached = world::poll(deadline, || async {
            match self.world.revision(cx).await {
                Ok((revision, _)) if revision == *to => Ok(()),
                Ok((revision, _)) => Err(revision.short()),
                Err(cannot) => Err(cannot.why().to_owned()),
            }
        })
        .await;
        let said = world::printed(&output);
        match reached {
            Ok(()) => Ok(Proof { output: said, ..Proof::of(format!("at {}", to.short())) }),
            Err(seen) => {
                let what = format!("`restore` reported success, but `observe` does not say {}: {seen}", to.short());
                Err(Failure { output: said, ..Failure::never(what) }.into())
            }
        }
    }

    async fn stop(&self, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Cannot> {
        let argv = self.settings.stop.as_ref().ok_or_else(|| Failure::never("there is no `stop` command"))?;
        let deadline = self.world.deadline(cx);
        let output = self.world.act(argv, cx, Some((step, before)), None, None).await?;
        let said = world::printed(&output);
        if self.settings.instance.is_none() {
            return Ok(Proof { output: said, ..Proof::of("`stop` reported success") });
        }
        let gone = world::poll(deadline, || async {
            match self.world.instance(cx).await {
                Ok(None) => Ok(()),
                Ok(Some(instance)) => Err(format!("but `{instance}` still runs")),
                Err(cannot) => Err(format!("but whether it still runs is not known: {}", cannot.why())),
            }
        })
        .await;
        match gone {
            Ok(()) => Ok(Proof { output: said, ..Proof::of("no instance runs") }),
            Err(seen) => {
                let failure = Failure::never(format!("`stop` reported success, {seen}"));
                Err(Failure { output: said, ..failure }.advise("stop it by hand, then retry the step").into())
            }
        }
    }

    async fn start(&self, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Cannot> {
        let argv = self.settings.start.as_ref().ok_or_else(|| Failure::never("there is no `start` command"))?;
        let deadline = self.world.deadline(cx);
        // What runs already began before the restore: it is to take it up, so it is stopped first.
        if self.settings.instance.is_some() && before.mark.is_some() && self.world.instance(cx).await? == before.mark {
            self.stop(cx, step, before).await?;
        }
        self.ports_become_free(cx).await?;
        let output = self.world.act(argv, cx, Some((step, before)), None, None).await?;
        let said = world::printed(&output);
        if self.settings.instance.is_none() {
            return Ok(Proof { output: said, ..Proof::of("`start` reported success") });
        }
        let new = world::poll(deadline, || async {
            match self.world.instance(cx).await {
                Ok(Some(now)) if before.mark.as_ref() != Some(&now) => Ok(now),
                Ok(_) => Err("but no new instance is seen".to_owned()),
                Err(cannot) => Err(format!("but whether it runs is not known: {}", cannot.why())),
            }
        })
        .await;
        match new {
            Ok(instance) => Ok(Proof { output: said, ..Proof::of(format!("runs as {instance}")) }),
            // It may still be on its way.
            Err(seen) => Err(Cannot::Tell { why: format!("`start` reported success, {seen}") }),
        }
    }

    async fn capture(&self, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Cannot> {
        let (revision, label) = self.world.revision(cx).await?;
        let Some(argv) = &self.settings.capture else { return self.held_by_system(cx, revision, label).await };
        let key = &before.key;
        let manifest = self.world.store(&self.captures, argv, cx, (step, before), key, &revision).await?;
        let (after, _) = self.world.revision(cx).await?;
        if after != revision {
            let what = format!("it went from {} to {} while it was captured", revision.short(), after.short());
            return Err(Failure::later(what).into());
        }
        let made = made(revision, label, &manifest)?;
        let found = format!("{} bytes at {}, read back", made.bytes, made.revision.short());
        Ok(Proof { capture: Some(made), ..Proof::of(found) })
    }

    /// The system keeps its own revisions: what counts is that this one can be had again.
    async fn held_by_system(&self, cx: &Cx, revision: Revision, label: Option<String>) -> Result<Proof, Cannot> {
        let wanted = Wanted { revision: revision.clone(), capture: None };
        let how = match self.available(cx, &wanted, None).await {
            Available::Here { how } => how,
            Available::Missing { why } => return Err(Failure::never(why).into()),
        };
        let name = match &revision {
            Revision::Absent => String::new(),
            Revision::Exact(id) => id.0.clone(),
        };
        let content = ripcord_core::Digest::of(name.as_bytes());
        let held = HeldIn::System { name };
        let made = ripcord_core::Made { revision, label, held, bytes: 0, proof: ProofLevel::ReadBack, content };
        Ok(Proof { capture: Some(made), ..Proof::of(format!("kept by the system: {how}")) })
    }

    async fn evidence(&self, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Cannot> {
        let argv = self.settings.evidence.as_ref().ok_or_else(|| Failure::never("there is no `evidence` command"))?;
        let output = self.world.run(argv, cx, Some((step, before)), None).await?;
        let (exit, bytes) = (output.status, output.stdout.len() + output.stderr.len());
        let manifest = self.world.keep(&self.captures, cx, &before.key, output).await?;
        let made = made(Revision::exact(format!("evidence:{}", manifest.tree.hex())), None, &manifest)?;
        let ended = if exit == Some(0) { "" } else { ", though the command failed" };
        Ok(Proof { capture: Some(made), ..Proof::of(format!("{bytes} bytes of evidence{ended}")) })
    }

    async fn act(&self, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Cannot> {
        match &step.action {
            Action::Prove { revision, capture } => {
                self.prove(cx, Wanted { revision: revision.clone(), capture: capture.clone() }).await
            }
            Action::Capture { purpose: CapturePurpose::Protective } => self.capture(cx, step, before).await,
            Action::Capture { purpose: CapturePurpose::Evidence } => self.evidence(cx, step, before).await,
            Action::Restore { to, from } => self.restore(cx, step, before, to, from.as_ref()).await,
            Action::Stop => self.stop(cx, step, before).await,
            Action::Start => self.start(cx, step, before).await,
            Action::Stage { .. }
            | Action::Pause
            | Action::Roll
            | Action::Resume
            | Action::Set { .. }
            | Action::Check { .. }
            | Action::Own { .. } => Err(Failure::never("commands have no such step").into()),
        }
    }

    async fn look(&self, cx: &Cx, step: &Step, before: Option<&Before>) -> Result<Observation, Cannot> {
        let holds = match &step.action {
            Action::Restore { to, .. } => {
                let (revision, _) = self.world.revision(cx).await?;
                let mark = Some(mark_of(&revision));
                let holds = match before {
                    _ if revision == *to => Holds::Target,
                    Some(before) if before.mark != mark => Holds::Neither { found: format!("at {}", revision.short()) },
                    Some(_) | None => Holds::Origin,
                };
                return Ok(Observation { holds, mark });
            }
            Action::Stop | Action::Start if self.settings.instance.is_none() => {
                let why = "there is no `instance` command that could tell".to_owned();
                // Before anything was begun there is nothing in doubt.
                if before.is_none() { Holds::Origin } else { Holds::CannotTell { why } }
            }
            Action::Stop => {
                let mark = self.world.instance(cx).await?;
                let holds = match (&mark, before) {
                    (None, _) => Holds::Target,
                    (Some(now), Some(before)) if before.mark.as_ref() != Some(now) => {
                        Holds::Neither { found: format!("another instance runs: {now}") }
                    }
                    (Some(_), _) => Holds::Origin,
                };
                return Ok(Observation { holds, mark });
            }
            Action::Start => {
                let mark = self.world.instance(cx).await?;
                let holds = match (&mark, before) {
                    (Some(now), Some(before)) if before.mark.as_ref() != Some(now) => Holds::Target,
                    _ => Holds::Origin,
                };
                return Ok(Observation { holds, mark });
            }
            Action::Prove { .. } | Action::Capture { .. } => Holds::Origin,
            Action::Stage { .. }
            | Action::Pause
            | Action::Roll
            | Action::Resume
            | Action::Set { .. }
            | Action::Check { .. }
            | Action::Own { .. } => Holds::CannotTell { why: "commands have no such step".to_owned() },
        };
        Ok(holds.into())
    }
}

fn mark_of(revision: &Revision) -> String {
    match revision {
        Revision::Absent => String::new(),
        Revision::Exact(id) => id.0.clone(),
    }
}

impl Component for Commands {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: Settings::DOC.name.to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        let s = &self.settings;
        let observe = match (s.start.is_some(), s.instance.is_some(), s.observe.is_some()) {
            (true, false, _) => Observe::No,
            (_, _, true) => Observe::Exactly,
            (true, true, false) => Observe::ByMarker,
            (false, _, false) => Observe::No,
        };
        let held = match (s.restore.is_some(), s.capture.is_some()) {
            (true, true) => Held::Vault,
            (true, false) => Held::BySystem,
            (false, _) => Held::Nowhere,
        };
        let runs = s.start.is_some() && s.stop.is_some();
        Capabilities {
            nature: ComponentKind::nature(s),
            observe,
            held,
            redo: self.redo(),
            restore: self.destroys(),
            downtime: if runs { Downtime::UntilHealthy } else { Downtime::None },
            lifecycle: if runs { Lifecycle::Process } else { Lifecycle::None },
            readers: s.readers.map_or(Readers::Hot, Readers::from),
            evidence: s.evidence.is_some(),
            ..Capabilities::NONE
        }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            let seen = self.world.revision(cx).await;
            let (seen, label) = match seen {
                Ok((revision, label)) => (Seen::At(revision), label),
                Err(cannot) => (Seen::Unreachable { why: cannot.why().to_owned() }, None),
            };
            let mut survey = Survey::new(place.clone(), seen, self.world.target());
            survey.label = label;
            if self.settings.instance.is_some() {
                match self.world.instance(cx).await {
                    Ok(instance) => {
                        survey.running = Some(instance.is_some());
                        survey.instance = instance;
                    }
                    Err(cannot) => survey.seen = Seen::Unreachable { why: cannot.why().to_owned() },
                }
            }
            for wanted in wanted {
                let available = self.available(cx, wanted, survey.seen.revision()).await;
                survey.available.push((wanted.clone(), available));
            }
            survey
        })
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: &str| Err(CannotPlan { place: wish.place.clone(), why: why.to_owned() });
        let (to, capture) = match &wish.want {
            Want::Revision { revision, capture } => (revision, capture),
            Want::Values(values) if values.is_empty() => return Ok(vec![]),
            Want::Values(_) => return cannot("commands have no single values to set"),
        };
        let now = seen.surveys.get(&wish.place).and_then(|survey| survey.seen.revision());
        // What changes by use is never known to be where it was: its revision names a moment, not what is there.
        if now == Some(to) && self.settings.nature == NatureSetting::Versioned {
            return Ok(vec![]);
        }
        let Some(argv) = &self.settings.restore else { return cannot("it has no `restore` command") };
        if self.settings.capture.is_some() && capture.is_none() {
            return cannot("no capture of it was ever made");
        }
        let from = capture.clone().filter(|_| self.settings.capture.is_some()).map(CaptureRef::Known);
        let action = Action::Restore { to: to.clone(), from };
        let words = format!("restore {} to {}", wish.place, to.short());
        let shown = Shown { words, commands: vec![self.world.shown(argv)] };
        let (destroys, redo, limits) = (self.destroys(), self.redo(), self.settings.limits());
        Ok(vec![Draft { phase: Phase::Restore, action, destroys, redo, limits, shown }])
    }

    fn show(&self, place: &Place, action: &Action) -> Shown {
        let (words, argv) = match action {
            Action::Prove { revision, .. } => {
                let argv = self.settings.available.as_ref().filter(|_| self.settings.capture.is_none());
                (format!("see that {} can be had for {place}", revision.short()), argv)
            }
            Action::Capture { purpose: CapturePurpose::Protective } => {
                (format!("capture {place} as it is"), self.settings.capture.as_ref())
            }
            Action::Capture { purpose: CapturePurpose::Evidence } => {
                (format!("collect evidence of {place}"), self.settings.evidence.as_ref())
            }
            Action::Stop => (format!("stop {place}"), self.settings.stop.as_ref()),
            Action::Start => (format!("start {place}"), self.settings.start.as_ref()),
            _ => (format!("nothing that commands can do at {place}"), None),
        };
        Shown { words, commands: argv.map(|argv| self.world.shown(argv)).into_iter().collect() }
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let looked = self.look(cx, step, before).await;
            looked.unwrap_or_else(|cannot| Holds::CannotTell { why: cannot.why().to_owned() }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move {
            match self.act(cx, step, before).await {
                Ok(proof) => Outcome::Done(proof),
                Err(Cannot::Do(failure)) => Outcome::Failed(failure),
                Err(Cannot::Tell { why }) => Outcome::Unknown { why },
            }
        })
    }
}

impl World {
    /// The lock's identity: what the settings say it is, else this component of this directory on this machine.
    fn target(&self) -> TargetId {
        match &self.target {
            Some(target) => TargetId(target.clone()),
            None => {
                let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                TargetId(format!("command:{host}:{}:{}", self.host.base().display(), self.component))
            }
        }
    }
}
