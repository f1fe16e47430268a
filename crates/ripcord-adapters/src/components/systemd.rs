//! A systemd unit: stopped and started, seen to stay up, and its unit files taken back.
//!
//! That a start succeeded says little: `systemctl start` returns before a simple service could crash. A unit counts as started when
//! it is another instance than before, active, and stayed so for the settling time without systemd starting it again; whether it is
//! well is for its health checks. A unit that waits to be started again, or was started too often, has failed: its last journal lines
//! come with the failure.
//!
//! A reload (`ExecReload`) is never used: it leaves nothing behind by which one could tell that it happened.

mod content; // the unit's files
mod manager; // tells systemd, knows no rollback

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_config::wire::{Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CapturePurpose, CaptureRef, Component, ComponentId, Cx,
    Destroys, Downtime, Draft, Failure, Fut, Held, Holds, Inventory, KindVersion, Layer, Lifecycle, Limits, Made,
    Observation, Observe, Outcome, Phase, Place, Proof, Redo, Revision, Seen, Shown, Step, Survey, TargetId, Want,
    Wanted, Wish,
};
use ripcord_vault::Source;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use self::content::Content;
use self::manager::{Manager, left};
use super::disk::room;
use super::files::captures::{self, Captures};
use super::files::{Live, Stop, blocking, outcome};
use super::tidy::{Names, Sort, Sweep};
use super::tool::{Tool, program_mistake};
use crate::hosts::within;
use crate::systemd::{Unit, unit_mistake};
use crate::{BuildCx, BuildError, ComponentKind};

/// The revision of a unit whose files are not its own: always the same, so never a reason to act.
const UNVERSIONED: &str = "unversioned";

/// A unit of systemd.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Its full name: `shop.service`.
    pub unit: Text,
    /// Whether it belongs to the user's own manager (`systemctl --user`).
    #[serde(default)]
    pub user: bool,
    /// Whether its unit file and drop-ins belong to a release: they are captured and put back. Files of a package are never written.
    #[serde(default = "yes")]
    pub unit_files: bool,
    /// Where this machine's own unit files are: `/etc/systemd/system`, or for `user` `~/.config/systemd/user`.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// How long it must stay up after a start before it counts as started.
    #[serde(default = "settle")]
    pub settle: Span,
    /// How `systemctl` is run, such as `[sudo, -n, systemctl]`.
    #[serde(default = "systemctl")]
    pub systemctl: Vec<Text>,
    /// How `journalctl` is run.
    #[serde(default = "journalctl")]
    pub journalctl: Vec<Text>,
}

fn yes() -> bool {
    true
}

fn settle() -> Span {
    Span(Duration::from_secs(3))
}

fn systemctl() -> Vec<Text> {
    vec![Text("systemctl".to_owned())]
}

fn journalctl() -> Vec<Text> {
    vec![Text("journalctl".to_owned())]
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "systemd",
        summary: "A systemd unit: stopped, started, seen to stay up, and its unit files taken back.",
        example: "unit: shop.service\nsettle: 5s\nsystemctl: [sudo, -n, systemctl]\n",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        mistakes.extend(unit_mistake(self.unit.as_str(), "unit"));
        mistakes.extend(program_mistake(&self.systemctl, "systemctl"));
        mistakes.extend(program_mistake(&self.journalctl, "journalctl"));
        if self.settle.0 > Duration::from_secs(25) {
            let help =
                "a start has a minute for all it does; say what else must hold as a health check of the component";
            mistakes.push(Mistake::new("it would have to settle for too long").at("settle").help(help));
        }
        mistakes
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let directory = match (&self.directory, self.user) {
            (Some(directory), _) => cx.base.join(directory),
            (None, false) => PathBuf::from("/etc/systemd/system"),
            (None, true) => std::env::home_dir()
                .map(|home| home.join(".config/systemd/user"))
                .ok_or_else(|| BuildError::new(id, "this user has no home directory: give `directory`"))?,
        };
        let manager = Manager {
            systemctl: Tool::new(&self.systemctl, cx),
            journalctl: Tool::new(&self.journalctl, cx),
            unit: self.unit.to_string(),
            user: self.user,
            settle: self.settle.0,
        };
        Ok(Arc::new(Systemd(Arc::new(Inner {
            manager,
            directory,
            versioned: self.unit_files,
            keep: cx.keep_aside,
            key: cx.revision_key,
            captures: Captures::new(id, cx),
        }))))
    }
}

struct Systemd(Arc<Inner>);

struct Inner {
    manager: Manager,
    directory: PathBuf,
    /// Whether its files belong to it.
    versioned: bool,
    keep: Duration,
    key: [u8; 32],
    captures: Captures,
}

/// The unit, its files, and the revision those are.
struct Looked {
    unit: Unit,
    content: Content,
    revision: Revision,
}

impl Inner {
    fn content(&self) -> Result<(Content, Revision), Failure> {
        if !self.versioned {
            return Ok((Content::default(), Revision::exact(UNVERSIONED)));
        }
        let content = Content::of(&self.directory, &self.manager.unit)?;
        let revision = content.revision(&self.key)?;
        Ok((content, revision))
    }

    async fn look(&self, cx: &Cx) -> Result<Looked, Failure> {
        let mut unit = self.manager.look(within(cx.limit)).await?;
        let (content, revision) = self.content()?;
        unit.stale |= content.is_unread(&unit);
        Ok(Looked { unit, content, revision })
    }

    fn target(&self) -> TargetId {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let whose = match self.manager.user {
            true => format!("user {}", rustix::process::getuid().as_raw()),
            false => "system".to_owned(),
        };
        TargetId(format!("systemd:{host}:{whose}:{}", self.manager.unit))
    }

    async fn survey(&self, cx: &Cx, place: &Place, wanted: &[Wanted]) -> Survey {
        let looked = self.look(cx).await;
        let seen = match &looked {
            Ok(Looked { unit, .. }) if !self.versioned && !unit.is_there() => {
                Seen::Unreachable { why: format!("systemd knows no unit `{}`", self.manager.unit) }
            }
            Ok(Looked { unit, content, .. }) if unit.stale && self.versioned => Seen::Between {
                why: format!("{} changed since systemd read them (`systemctl daemon-reload`)", content.names()),
            },
            Ok(looked) => Seen::At(looked.revision.clone()),
            Err(failure) => Seen::Unreachable { why: failure.what.clone() },
        };
        let mut survey = Survey::new(place.clone(), seen, self.target());
        for wanted in wanted {
            let available = self.available(wanted, looked.as_ref().ok().map(|looked| &looked.revision)).await;
            survey.available.push((wanted.clone(), available));
        }
        let Ok(Looked { unit, content, .. }) = looked else { return survey };
        survey.label = Some(unit.words());
        survey.running = Some(unit.is_up());
        survey.instance = unit.instance().cloned();
        let mut fact = |name: &str, words: String| survey.facts.insert(name.to_owned(), words);
        fact("at boot", format!("{}; a release does not change that", unit.enabled));
        if self.versioned && !content.is_empty() {
            fact("files", content.names());
        }
        let elsewhere = |path: &&String| !std::path::Path::new(path).starts_with(&self.directory);
        let others: Vec<_> = unit.fragment.iter().chain(&unit.drop_ins).filter(elsewhere).map(String::as_str).collect();
        if !others.is_empty() {
            fact("files of others, left alone", others.join(", "));
        }
        survey.reckoned = Some(Duration::from_millis(200));
        survey
    }

    async fn available(&self, wanted: &Wanted, present: Option<&Revision>) -> Available {
        match &wanted.revision {
            revision if Some(revision) == present => Available::Here { how: "it is there".to_owned() },
            Revision::Absent => Available::Here { how: "its files are taken away".to_owned() },
            Revision::Exact(_) => {
                let (captures, wanted) = (self.captures.clone(), wanted.clone());
                let looked = blocking(move |_| captures.available(&wanted)).await;
                looked.unwrap_or_else(|failure| Available::Missing { why: failure.what })
            }
        }
    }

    async fn observe(&self, cx: &Cx, step: &Step, before: Option<&Before>) -> Result<Observation, Failure> {
        let Looked { unit, revision, .. } = self.look(cx).await?;
        let instance = unit.instance().cloned();
        Ok(match &step.action {
            Action::Restore { to, .. } => {
                let mark = mark_of(&revision);
                let same = before.and_then(|before| before.mark.as_ref()).is_none_or(|was| *was == mark);
                let holds = match (revision == *to, unit.stale, same) {
                    (true, false, _) => Holds::Target,
                    (true, true, _) => {
                        Holds::Neither { found: "the files are there, and systemd has not read them".to_owned() }
                    }
                    (false, _, true) => Holds::Origin,
                    (false, _, false) => Holds::Neither { found: format!("its files are {}", revision.short()) },
                };
                Observation { holds, mark: Some(mark) }
            }
            // Whichever instance it is: a unit that crashes is another one every few seconds.
            Action::Stop if instance.is_some() || unit.is_up() => Observation { holds: Holds::Origin, mark: instance },
            Action::Stop if unit.left_behind() > 0 => Holds::Neither { found: unit.words() }.into(),
            Action::Stop => Holds::Target.into(),
            Action::Start => {
                let new = before.is_some_and(|before| before.mark != instance) && instance.is_some();
                let holds = if new && unit.is_active() { Holds::Target } else { Holds::Origin };
                Observation { holds, mark: instance }
            }
            Action::Prove { .. } | Action::Capture { .. } => Holds::Origin.into(),
            _ => Holds::CannotTell { why: "a unit has no such step".to_owned() }.into(),
        })
    }

    async fn act(self: &Arc<Self>, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Stop> {
        let deadline = Instant::now() + within(cx.limit);
        match &step.action {
            Action::Prove { revision, capture } => {
                let wanted = Wanted { revision: revision.clone(), capture: capture.clone() };
                Ok(self.prove(cx, wanted).await?)
            }
            Action::Capture { purpose: CapturePurpose::Protective } => {
                let proof = self.store(cx, before, "the present state").await?;
                Ok(proof)
            }
            Action::Capture { purpose: CapturePurpose::Evidence } => Ok(self.evidence(cx, before).await?),
            Action::Stop => {
                let unit = self.manager.stop(deadline).await?;
                Ok(Proof::of(unit.words()))
            }
            Action::Start => {
                let looked = self.look(cx).await?;
                let unread = looked.unit.stale || looked.content.keeps_times(&self.directory).map_err(Failure::from)?;
                let unit = self.manager.start(before.mark.as_ref(), unread, deadline).await?;
                let instance = unit.invocation.as_deref().unwrap_or("no instance");
                let stayed = ripcord_core::human(self.manager.settle);
                Ok(Proof::of(format!("{} as {instance}, and stayed so for {stayed}", unit.words())))
            }
            Action::Restore { to, from } => self.restore(cx, before, to, from.as_ref(), deadline).await,
            other => Err(Failure::never(format!("a unit cannot do {other:?}")).into()),
        }
    }

    async fn prove(self: &Arc<Self>, cx: &Cx, wanted: Wanted) -> Result<Proof, Failure> {
        let looked = self.look(cx).await?;
        if let Available::Missing { why } = self.available(&wanted, Some(&looked.revision)).await {
            return Err(Failure::never(why));
        }
        if looked.revision == wanted.revision {
            return Ok(Proof::of("its files are so already"));
        }
        let inner = Arc::clone(self);
        blocking(move |_| {
            let bytes = match inner.captures.wanted(&wanted).transpose()? {
                None => 0,
                Some(made) => {
                    inner.checked(&made, &wanted.revision)?;
                    made.bytes
                }
            };
            room(&inner.directory, "the restore", bytes, 1)?;
            Ok(Proof::of("the captured unit files were read back"))
        })
        .await?
    }

    /// A capture's files, once they were shown to be what they are said to be.
    fn checked(&self, made: &Made, to: &Revision) -> Result<Content, Failure> {
        let content = Content::captured(&self.captures, &captures::manifest(made)?, &self.manager.unit)?;
        let revision = content.revision(&self.key)?;
        match revision == *to {
            true => Ok(content),
            false => Err(Failure::never(format!("the capture holds {}, not {}", revision.short(), to.short()))
                .advise("choose another capture; was the key for revisions replaced?")),
        }
    }

    async fn store(self: &Arc<Self>, cx: &Cx, before: &Before, why: &'static str) -> Result<Proof, Failure> {
        let (inner, cx, key) = (Arc::clone(self), cx.clone(), before.key.clone());
        blocking(move |_| {
            let (content, revision) = inner.content()?;
            let manifest = inner.captures.store(&cx, &key, why, content.sources()?)?;
            let made = captures::made(revision, Some(content.names()), &manifest)?;
            let found = format!("{} captured and read back", content.names());
            let id: String = manifest.snapshot.to_string().chars().take(12).collect();
            let set_aside = vec![format!("the former unit files as snapshot {id} in the vault")];
            Ok(Proof { capture: Some(made), set_aside, ..Proof::of(found) })
        })
        .await?
        .map(|proof| match why == SET_ASIDE {
            true => Proof { capture: None, ..proof },
            false => Proof { set_aside: vec![], ..proof },
        })
    }

    async fn evidence(&self, cx: &Cx, before: &Before) -> Result<Proof, Failure> {
        let (journal, status, show) =
            tokio::join!(self.manager.journal(1000), self.manager.said("status"), self.manager.said("show"));
        let text = |found: Result<String, Failure>| found.unwrap_or_else(|failure| failure.what).into_bytes();
        let files = [("journal", journal), ("show", show), ("status", status)];
        let sources =
            files.map(|(path, found)| Source::Bytes { path: path.to_owned(), bytes: text(found), mode: 0o600 });
        let (captures, cx, key) = (self.captures.clone(), cx.clone(), before.key.clone());
        let stored = blocking(move |_| captures.store(&cx, &key, "evidence", sources.into())).await??;
        let made = captures::made(Revision::exact(format!("evidence:{}", stored.tree.hex())), None, &stored)?;
        let found = format!("{} bytes: the journal's last lines, status and properties", made.bytes);
        Ok(Proof { capture: Some(made), ..Proof::of(found) })
    }

    async fn restore(
        self: &Arc<Self>,
        cx: &Cx,
        before: &Before,
        to: &Revision,
        from: Option<&CaptureRef>,
        deadline: Instant,
    ) -> Result<Proof, Stop> {
        if !self.versioned {
            return Err(Failure::never("its unit files are not part of a release").into());
        }
        let (inner, wanted) = (Arc::clone(self), to.clone());
        let (from, at) = (from.cloned(), before.clone());
        let content = blocking(move |_| match &wanted {
            Revision::Absent => Ok(Content::default()),
            Revision::Exact(_) => {
                let made = inner.captures.find(from.as_ref(), &at, &wanted)?;
                inner.checked(&made.ok_or_else(|| Failure::never("the step names no capture"))?, &wanted)
            }
        })
        .await??;
        let looked = self.look(cx).await?;
        if looked.revision == *to && !looked.unit.stale {
            return Ok(Proof::of("its files are so already"));
        }
        let mut set_aside = vec![];
        if looked.revision != *to {
            set_aside = self.store(cx, before, SET_ASIDE).await?.set_aside;
            let (inner, limit, key) = (Arc::clone(self), cx.limit, before.key.file_name());
            blocking(move |halt| -> Result<(), Failure> {
                let _lock = Live::of(&inner.directory.join(&inner.manager.unit))?.lock(limit, halt)?;
                Ok(content.put(&inner.directory, &inner.manager.unit, &key, halt)?)
            })
            .await??;
        }
        self.manager.daemon_reload(left(deadline)).await?;
        let after = self.look(cx).await.map_err(|failure| Stop::Unknown(failure.what))?;
        match after.revision == *to && !after.unit.stale {
            true => Ok(Proof { set_aside, ..Proof::of(format!("{}, read by systemd", after.content.names())) }),
            false => Err(Stop::Unknown("its files were changed by somebody else meanwhile".to_owned())),
        }
    }
}

/// Why a capture is stored by a restore itself.
const SET_ASIDE: &str = "set aside";

fn mark_of(revision: &Revision) -> String {
    match revision {
        Revision::Absent => "absent".to_owned(),
        Revision::Exact(id) => id.0.clone(),
    }
}

impl Component for Systemd {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: Settings::DOC.name.to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        let versioned = self.0.versioned;
        Capabilities {
            observe: if versioned { Observe::Exactly } else { Observe::ByMarker },
            held: if versioned { Held::Vault } else { Held::Nowhere },
            restore: if versioned { Destroys::SetAside { keep: self.0.keep } } else { Destroys::Nothing },
            downtime: Downtime::UntilHealthy,
            lifecycle: Lifecycle::Process,
            evidence: true,
            ..Capabilities::NONE
        }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(self.0.survey(cx, place, wanted))
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: &str| CannotPlan { place: wish.place.clone(), why: why.to_owned() };
        let survey = seen.surveys.get(&wish.place).ok_or_else(|| cannot("it was not surveyed"))?;
        let (to, capture) = match &wish.want {
            Want::Values(values) if values.is_empty() => return Ok(vec![]),
            Want::Values(_) => return Err(cannot("a unit has no single values to set")),
            Want::Revision { revision, .. } if survey.seen.revision() == Some(revision) => return Ok(vec![]),
            Want::Revision { revision, capture } => (revision, capture),
        };
        if !self.0.versioned {
            return Err(cannot("its unit files are not part of a release"));
        }
        match (survey.available(to), to, capture) {
            (Some(Available::Missing { why }), ..) => return Err(cannot(why)),
            (_, Revision::Exact(_), None) => return Err(cannot("no capture holds it")),
            _ => {}
        }
        let unit = &self.0.manager.unit;
        let words = match to {
            Revision::Absent => format!("take the unit files of {unit} away"),
            Revision::Exact(_) => format!("put the captured unit files of {unit} in place of the present ones"),
        };
        Ok(vec![Draft {
            phase: Phase::Restore,
            action: Action::Restore { to: to.clone(), from: capture.clone().map(CaptureRef::Known) },
            destroys: Destroys::SetAside { keep: self.0.keep },
            redo: Redo::Safe,
            limits: Limits::default(),
            shown: Shown { words, commands: vec![self.0.manager.shown("daemon-reload")] },
        }])
    }

    fn show(&self, place: &Place, action: &Action) -> Shown {
        let manager = &self.0.manager;
        let settle = ripcord_core::human(manager.settle);
        let (words, verb) = match action {
            Action::Stop => (format!("stop {place}"), Some("stop")),
            Action::Start => (format!("start {place}, and see that it stays up for {settle}"), Some("start")),
            Action::Capture { purpose: CapturePurpose::Protective } => {
                (format!("capture the unit files of {place}"), None)
            }
            Action::Capture { purpose: CapturePurpose::Evidence } => {
                (format!("collect the journal and status of {place}"), None)
            }
            Action::Prove { revision, .. } => (format!("see that {} can be had for {place}", revision.short()), None),
            _ => (format!("nothing that a unit can do at {place}"), None),
        };
        Shown { words, commands: verb.map(|verb| manager.shown(verb)).into_iter().collect() }
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let looked = self.0.observe(cx, step, before).await;
            looked.unwrap_or_else(|failure| Holds::CannotTell { why: failure.what }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move { outcome(self.0.act(cx, step, before).await) })
    }

    /// What was set aside is in the vault; beside the files only what a killed call was writing can be left.
    fn tidy<'a>(&'a self, cx: &'a Cx, place: &'a Place, before: Timestamp) -> Fut<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            if !self.0.versioned {
                return Ok(vec![]);
            }
            let (inner, limit, place) = (Arc::clone(&self.0), cx.limit, place.clone());
            blocking(move |halt| {
                let unit = &inner.manager.unit;
                let live = Live::of(&inner.directory.join(unit))?;
                let _lock = live.lock(limit, halt)?;
                let (names, mut sweep) = (Names::new(&live, &place), Sweep::new(&live, before)?);
                let below = live.parent.join(format!("{unit}.d"));
                let mut old = sweep.old(&live.parent, |name| names.temporary(name, Sort::File))?;
                if below.is_dir() {
                    old.extend(sweep.old(&below, |name| names.temporary(name, Sort::File))?);
                }
                sweep.remove_all(old, halt);
                sweep.done()
            })
            .await?
        })
    }
}
