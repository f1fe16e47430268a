//! A Python virtual environment: made anew beside from what was frozen, checked, and switched to by its link.
//!
//! `venv` is a link into a directory of environments, each named by what is in it. A restore makes the one of the release where it is
//! not there any more (before anything is stopped for it, unless `verify` has to see the release's code), sees that `pip freeze` says exactly what was captured and that it goes together, and moves the link in one
//! instant; the former stays where it is, so that the way back from the way back needs no index. A `venv` that is a directory itself
//! becomes a link at the first restore.
//!
//! What was installed from a place and not from an index (editable, a repository, a file) may be something else by now: such an
//! environment is refused, unless told otherwise.

mod frozen; // what is in an environment
mod venv; // makes one, knows no rollback

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_config::wire::Text;
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CaptureRef, Component, ComponentId, Cx, Destroys, Draft,
    Failure, Fut, Held, Holds, Inventory, KindVersion, Layer, Limits, Made, Observation, Outcome, Phase, Place, Proof,
    Readers, Redo, Revision, Seen, Shown, Step, Survey, TargetId, Want, Wanted, Wish,
};
use ripcord_vault::Source;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::frozen::Frozen;
use self::venv::{Live as Venv, Maker, Order};
use super::disk::room;
use super::files::captures::{self, Captures};
use super::files::{
    FileError, Live, ReadersSetting, Stop, Trying, blocking, make_directory, meta, outcome, point, remove_file, sync,
};
use super::tidy::{Names, Ours, Sweep};
use super::tool::{Tool, program_mistake};
use super::tree::switch::{Begun, Switch};
use crate::hosts::within;
use crate::{BuildCx, BuildError, ComponentKind};

/// Where things lie in a capture.
const FROZEN: &str = "frozen.json";
const REQUIREMENTS: &str = "requirements.txt";
/// How it is said that an environment is to be made.
const ANEW: &str = "its environment is made anew from the index";

/// A virtual environment of Python.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The environment in use: a link to one of `venvs`. A directory becomes such a link at the first restore.
    pub venv: PathBuf,
    /// Where environments are kept, each under a name made from its content. Without it `venvs` beside `venv`.
    #[serde(default)]
    pub venvs: Option<PathBuf>,
    /// The requirements it was installed from. It is captured too, and hashes in it are demanded again.
    #[serde(default)]
    pub requirements: Option<PathBuf>,
    /// The interpreter that environments are made with.
    #[serde(default = "python")]
    pub python: Vec<Text>,
    /// Passed on to `pip install`, such as `[--no-index, --find-links, wheels]`.
    #[serde(default)]
    pub install_options: Vec<Text>,
    /// Whether packages that were installed from a place (editable, a repository, a file) are installed from there again.
    #[serde(default)]
    pub allow_direct: bool,
    /// Run with the new environment first in `PATH` before it goes live; any exit code but 0 refuses it. With it, an environment is
    /// not made before the code it may look at is back, so that what reads it waits for that.
    #[serde(default)]
    pub verify: Vec<Text>,
    /// What a change means for the components that need this one: `restart` after it (the default), `stop` before it, or `hot`.
    #[serde(default)]
    pub readers: Option<ReadersSetting>,
}

fn python() -> Vec<Text> {
    vec![Text("python3".to_owned())]
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "pip",
        summary: "A Python virtual environment: made anew beside from the frozen list, checked, switched by its link.",
        example: "\
venv: /srv/shop/venv
requirements: /srv/shop/requirements.txt
python: [python3.11]
install-options: [--find-links, /srv/wheels]
verify: [python, -c, \"import shop\"]
readers: restart
",
        layer: Layer::Dependencies,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = super::files::path_mistakes(&self.venv);
        for mistake in &mut mistakes {
            mistake.field = Some("venv".to_owned());
        }
        mistakes.extend(program_mistake(&self.python, "python"));
        mistakes
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let venv = cx.base.join(&self.venv);
        let beside = || venv.parent().map_or_else(|| PathBuf::from("venvs"), |parent| parent.join("venvs"));
        let plain = |list: &[Text]| list.iter().map(ToString::to_string).collect();
        Ok(Arc::new(Pip(Arc::new(Inner {
            venvs: self.venvs.as_ref().map_or_else(beside, |venvs| cx.base.join(venvs)),
            venv,
            shown: self.venv.display().to_string(),
            requirements: self.requirements.as_ref().map(|path| cx.base.join(path)),
            maker: Maker {
                python: Tool::new(&self.python, cx),
                options: plain(&self.install_options),
                verify: plain(&self.verify),
            },
            allow_direct: self.allow_direct,
            readers: self.readers.unwrap_or(ReadersSetting::Restart).into(),
            keep: cx.keep_aside,
            captures: Captures::new(id, cx),
        }))))
    }
}

struct Pip(Arc<Inner>);

struct Inner {
    venv: PathBuf,
    venvs: PathBuf,
    /// As it is written in the settings.
    shown: String,
    requirements: Option<PathBuf>,
    maker: Maker,
    allow_direct: bool,
    readers: Readers,
    keep: Duration,
    captures: Captures,
}

/// What a capture holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Captured {
    frozen: Frozen,
    /// Whether it passed `pip check`.
    consistent: bool,
    #[serde(skip)]
    requirements: Option<String>,
}

/// The environment in use.
enum Looked {
    Absent,
    At(Frozen),
    Between(String),
}

impl Looked {
    fn revision(&self) -> Option<Revision> {
        match self {
            Self::Absent => Some(Revision::Absent),
            Self::At(frozen) => Some(frozen.revision()),
            Self::Between(_) => None,
        }
    }

    fn mark(&self) -> String {
        match (self, self.revision()) {
            (Self::Between(why), _) => format!("no revision: {why}"),
            (_, Some(Revision::Exact(id))) => id.0,
            _ => "absent".to_owned(),
        }
    }
}

/// The name of an environment, made from what is in it.
fn name_of(revision: &Revision) -> String {
    match revision {
        Revision::Absent => "absent".to_owned(),
        Revision::Exact(id) => id.0.trim_start_matches("sha256:").chars().take(16).collect(),
    }
}

/// Whether an environment's name is one that we give.
fn is_ours(name: &str) -> bool {
    let hex = |text: &str, n: usize| {
        text.len() == n && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    match name.split_once('-') {
        None => hex(name, 16),
        Some((name, tail)) => hex(name, 16) && hex(tail, 8),
    }
}

impl Inner {
    async fn look(&self, limit: Duration) -> Result<Looked, Failure> {
        if Venv::at(&self.venv)? == Venv::Nothing {
            return Ok(Looked::Absent);
        }
        // An environment that cannot be asked is exactly what one wants to go back from.
        let frozen = self.maker.frozen(&self.venv, limit).await;
        Ok(frozen.map_or_else(|failure| Looked::Between(failure.what), Looked::At))
    }

    /// What a capture holds, once it was shown to be what it is said to be.
    async fn captured(&self, made: Made) -> Result<Captured, Failure> {
        let captures = self.captures.clone();
        blocking(move |_| {
            let manifest = captures::manifest(&made)?;
            let mut captured: Captured = serde_json::from_slice(&captures.bytes(&manifest, FROZEN)?)
                .map_err(|error| Failure::never(format!("the capture cannot be read: {error}")))?;
            if manifest.entry(REQUIREMENTS).is_some() {
                let bytes = captures.bytes(&manifest, REQUIREMENTS)?;
                captured.requirements = Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            let is = captured.frozen.revision();
            match is == made.revision {
                true => Ok(captured),
                false => {
                    Err(Failure::never(format!("the capture holds {}, not {}", is.short(), made.revision.short())))
                }
            }
        })
        .await?
    }

    /// Refuses what an index cannot give back.
    fn installable(&self, captured: &Captured) -> Result<(), Failure> {
        let direct = captured.frozen.direct();
        if self.allow_direct || direct.is_empty() {
            return Ok(());
        }
        let what = format!("it was installed from places that may hold something else by now: {}", direct.join(", "));
        let advice = "publish these as versions of an index or a directory of wheels, or set `allow-direct: true`";
        Err(Failure::never(what).advise(advice))
    }

    /// An environment that is kept and is exactly this.
    async fn kept(&self, frozen: &Frozen, limit: Duration) -> Option<PathBuf> {
        let name = name_of(&frozen.revision());
        let list = fs::read_dir(&self.venvs).ok()?;
        let mut names: Vec<String> = list.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|found| is_ours(found) && found.starts_with(&name));
        names.sort();
        for name in names {
            let at = self.venvs.join(name);
            if venv::mark(&at).as_ref() != Some(&frozen.revision()) {
                continue;
            }
            match self.maker.frozen(&at, limit).await {
                Ok(is) if frozen.differs(&is).is_none() => return Some(at),
                Ok(_) | Err(_) => {
                    tracing::warn!(at = %at.display(), "a kept environment was changed since: it is not used")
                }
            }
        }
        None
    }

    /// Whether an environment can be had: kept, or made.
    async fn how(&self, captured: &Captured, limit: Duration) -> Result<&'static str, Failure> {
        if self.kept(&captured.frozen, limit).await.is_some() {
            return Ok("its environment is kept");
        }
        self.installable(captured)?;
        let version = self.maker.version(limit).await?;
        let now = Frozen { python: version, packages: captured.frozen.packages.clone() };
        match now.minor() == captured.frozen.minor() {
            true => Ok(ANEW),
            false => {
                let (is, was) = (now.minor(), captured.frozen.minor());
                let failure = Failure::never(format!("its environment was of Python {was}, and `python` is {is}"));
                Err(failure.advise(format!("give `python: [python{was}]`, and see that it is installed")))
            }
        }
    }

    async fn available(&self, wanted: &Wanted, present: Option<&Revision>, limit: Duration) -> Available {
        let missing = |why: String| Available::Missing { why };
        match &wanted.revision {
            revision if Some(revision) == present => return Available::Here { how: "it is in use".to_owned() },
            Revision::Absent => return Available::Here { how: "the link is taken away".to_owned() },
            Revision::Exact(_) => {}
        }
        let (captures, asked) = (self.captures.clone(), wanted.clone());
        let looked = blocking(move |_| captures.available(&asked)).await;
        let capture = match looked.unwrap_or_else(|failure| missing(failure.what)) {
            Available::Here { how } => how,
            missing @ Available::Missing { .. } => return missing,
        };
        let made =
            self.captures.wanted(wanted).unwrap_or_else(|| Err(Failure::never("no capture of it was ever made")));
        let how = async { self.how(&self.captured(made?).await?, limit).await };
        match how.await {
            Ok(how) => Available::Here { how: format!("{capture}; {how}") },
            Err(failure) => missing(failure.what),
        }
    }

    async fn survey(&self, cx: &Cx, place: &Place, wanted: &[Wanted]) -> Result<Survey, Failure> {
        let live = Live::of(&self.venv)?;
        let looked = self.look(cx.limit).await?;
        let seen = match &looked {
            Looked::Between(why) => Seen::Between { why: why.clone() },
            at => Seen::At(at.revision().unwrap_or(Revision::Absent)),
        };
        let mut survey = Survey::new(place.clone(), seen, live.target());
        if let Looked::At(frozen) = &looked {
            survey.label = Some(format!("{} packages, Python {}", frozen.packages.len(), frozen.python));
            let direct = frozen.direct();
            if !direct.is_empty() {
                survey.facts.insert("installed from places".into(), direct.join(", "));
            }
        }
        match Venv::at(&self.venv)? {
            Venv::Link(to) => drop(survey.facts.insert("leads to".into(), to.display().to_string())),
            Venv::Directory => {
                let words = format!(
                    "a directory; at the first restore it goes to {}, and a link takes its place",
                    self.venvs.display()
                );
                survey.facts.insert("is".into(), words);
            }
            Venv::Nothing => {}
        }
        let present = survey.seen.revision().cloned();
        for one in wanted {
            let available = self.available(one, present.as_ref(), cx.limit).await;
            survey.available.push((one.clone(), available));
        }
        survey.reckoned = Some(Duration::from_secs(30));
        Ok(survey)
    }

    async fn observe(&self, cx: &Cx, step: &Step, before: Option<&Before>) -> Result<Observation, Failure> {
        let to = match &step.action {
            Action::Stage { to, from } => return Ok(self.staged(to, from.as_ref(), before, cx.limit).await.into()),
            Action::Restore { to, .. } => to,
            _ => return Ok(Holds::Origin.into()),
        };
        let looked = self.look(cx.limit).await?;
        let mark = looked.mark();
        let unfinished = match before {
            Some(before) => Switch::new(Live::of(&self.venv)?, before).unfinished()?,
            None => None,
        };
        let same = before.and_then(|before| before.mark.as_ref()).is_none_or(|was| *was == mark);
        let holds = match (looked.revision().as_ref() == Some(to), unfinished, same) {
            (_, Some(what), _) => Holds::Neither { found: what.to_owned() },
            (true, None, _) => Holds::Target,
            (false, None, true) => Holds::Origin,
            (false, None, false) => Holds::Neither { found: format!("{} was changed by somebody else", self.shown) },
        };
        Ok(Observation { holds, mark: Some(mark) })
    }

    async fn act(self: &Arc<Self>, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Stop> {
        match &step.action {
            Action::Prove { revision, capture } => {
                let wanted = Wanted { revision: revision.clone(), capture: capture.clone() };
                Ok(self.prove(cx, wanted).await?)
            }
            Action::Capture { .. } => Ok(self.capture(cx, before).await?),
            Action::Stage { to, from } => Ok(self.stage(cx, before, to, from.as_ref()).await?),
            Action::Restore { to, from } => self.restore(cx, before, to, from.as_ref()).await,
            other => Err(Failure::never(format!("an environment cannot do {other:?}")).into()),
        }
    }

    /// Whether the environment of the release is there beside the one in use.
    async fn staged(
        &self,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: Option<&Before>,
        limit: Duration,
    ) -> Holds {
        let Some(before) = before else { return Holds::Origin };
        let found = async {
            let made = self.captures.find(from, before, to).ok()??;
            self.kept(&self.captured(made).await.ok()?.frozen, limit).await
        };
        if found.await.is_some() { Holds::Target } else { Holds::Origin }
    }

    async fn stage(
        &self,
        cx: &Cx,
        before: &Before,
        to: &Revision,
        from: Option<&CaptureRef>,
    ) -> Result<Proof, Failure> {
        let deadline = Instant::now() + within(cx.limit);
        let (locking, limit) = (Live::of(&self.venv)?, cx.limit);
        let _lock = blocking(move |halt| locking.lock(limit, halt)).await??;
        let made = self.captures.find(from, before, to)?;
        let made = made.ok_or_else(|| Failure::never("the step names no capture to make it from"))?;
        let (at, how) = self.environment(&self.captured(made).await?, before, deadline).await?;
        Ok(Proof::of(format!("{}, {how}", at.display())))
    }

    async fn prove(&self, cx: &Cx, wanted: Wanted) -> Result<Proof, Failure> {
        let looked = self.look(cx.limit).await?;
        if looked.revision().as_ref() == Some(&wanted.revision) || wanted.revision == Revision::Absent {
            return Ok(Proof::of("nothing is needed for it"));
        }
        let made = self.captures.wanted(&wanted);
        let made = made.unwrap_or_else(|| Err(Failure::never("no capture of it was ever made")))?;
        let (captures, manifest) = (self.captures.clone(), captures::manifest(&made)?);
        blocking(move |_| captures.verify(&manifest)).await??;
        let captured = self.captured(made).await?;
        let how = self.how(&captured, cx.limit).await?;
        let parent =
            if self.venvs.is_dir() { self.venvs.as_path() } else { self.venvs.parent().unwrap_or(Path::new("/")) };
        // An empty environment with pip in it; what goes into it nobody knows.
        room(parent, "the environment", 20_000_000, 1000)?;
        Ok(Proof::of(format!("the frozen list was read back, {} packages; {how}", captured.frozen.packages.len())))
    }

    async fn capture(&self, cx: &Cx, before: &Before) -> Result<Proof, Failure> {
        let frozen = match self.look(cx.limit).await? {
            Looked::At(frozen) => frozen,
            Looked::Absent => {
                let (captures, cx, key) = (self.captures.clone(), cx.clone(), before.key.clone());
                // Going back to nothing needs nothing of it: it says that there was nothing.
                let nothing = vec![Source::Bytes { path: "absent".to_owned(), bytes: vec![], mode: 0o600 }];
                let manifest = blocking(move |_| captures.store(&cx, &key, "the present state", nothing)).await??;
                let made = captures::made(Revision::Absent, Some("(absent)".to_owned()), &manifest)?;
                return Ok(Proof { capture: Some(made), ..Proof::of(format!("{} (absent) captured", self.shown)) });
            }
            Looked::Between(why) => return Err(Failure::never(format!("what is in it cannot be told: {why}"))),
        };
        let consistent = self.maker.inconsistent(&self.venv, cx.limit).await?.is_none();
        let file = |path: &str, bytes: Vec<u8>| Source::Bytes { path: path.to_owned(), bytes, mode: 0o600 };
        let captured = Captured { frozen, consistent, requirements: None };
        let bytes = serde_json::to_vec(&captured).map_err(|error| Failure::never(error.to_string()))?;
        let mut sources = vec![file(FROZEN, bytes)];
        if let Some(path) = self.requirements.as_ref().filter(|path| path.exists()) {
            sources.push(file(REQUIREMENTS, fs::read(path).trying("read", path)?));
        }
        let (captures, cx_, key) = (self.captures.clone(), cx.clone(), before.key.clone());
        let manifest = blocking(move |_| captures.store(&cx_, &key, "the present state", sources)).await??;
        let label = format!("{} packages, Python {}", captured.frozen.packages.len(), captured.frozen.python);
        let made = captures::made(captured.frozen.revision(), Some(label.clone()), &manifest)?;
        let direct = match captured.frozen.direct().len() {
            0 => String::new(),
            n => format!("; {n} of them are from places that may hold something else later"),
        };
        Ok(Proof { capture: Some(made), ..Proof::of(format!("{label}: frozen, captured and read back{direct}")) })
    }

    async fn restore(
        self: &Arc<Self>,
        cx: &Cx,
        before: &Before,
        to: &Revision,
        from: Option<&CaptureRef>,
    ) -> Result<Proof, Stop> {
        let deadline = Instant::now() + within(cx.limit);
        let live = Live::of(&self.venv)?;
        let (locking, limit) = (live.clone(), cx.limit);
        let _lock = blocking(move |halt| locking.lock(limit, halt)).await??;
        let switch = Switch::new(live.clone(), before);
        remove_file(&self.temporary(&live, before))?;
        if *to == Revision::Absent {
            let kept = switch.take_away()?;
            let set_aside = kept.iter().map(|kept| kept.display().to_string()).collect();
            return Ok(Proof { set_aside, ..Proof::of(format!("{} taken away", self.shown)) });
        }
        let former = self.look(cx.limit).await?;
        let there = former.revision().as_ref() == Some(to);
        // Whether the exchange of a directory for a link was begun: what is ready is then the one or the other.
        let ready = switch.ready()?.map(Path::is_symlink);
        let is_so = || Proof::of(format!("{} is {}", self.shown, to.short()));
        match switch.begin(there, ready)? {
            Begun::There => return Ok(is_so()),
            Begun::Exchanged => return Ok(Proof { set_aside: vec![self.settle(&switch)?], ..is_so() }),
            // Only a link, and it is not known any more where it leads.
            Begun::Ready => switch.discard()?,
            Begun::Prepare => {}
        }
        let made = self.captures.find(from, before, to)?;
        let captured =
            self.captured(made.ok_or_else(|| Failure::never("the step names no capture to restore from"))?).await?;
        let (at, how) = self.environment(&captured, before, deadline).await?;
        let set_aside = match Venv::at(&self.venv)? {
            Venv::Directory => {
                let new = switch.prepare()?;
                symlink(self.led(&live, None, &at)?, &new).trying("create", &new)?;
                switch.prepared()?;
                switch.exchange()?;
                vec![self.settle(&switch)?]
            }
            Venv::Link(former) => {
                self.relink(&live, Some(&former), &at, before)?;
                vec![format!("the former environment {} is left as it is", former.display())]
            }
            Venv::Nothing => {
                self.relink(&live, None, &at, before)?;
                vec![]
            }
        };
        let is = self.look(left(deadline)).await.map_err(|failure| Stop::Unknown(failure.what))?;
        if is.revision().as_ref() != Some(to) {
            return Err(Stop::Unknown(format!("{} was changed by somebody else meanwhile", self.shown)));
        }
        Ok(Proof { set_aside, ..Proof::of(format!("{} -> {}, {how}", self.shown, at.display())) })
    }

    /// Where the environment of the release is, made where it has to be.
    async fn environment(
        &self,
        captured: &Captured,
        before: &Before,
        deadline: Instant,
    ) -> Result<(PathBuf, &'static str), Failure> {
        if let Some(kept) = self.kept(&captured.frozen, left(deadline)).await {
            return Ok((kept, "which was kept"));
        }
        self.how(captured, left(deadline)).await?;
        if meta(&self.venvs)?.is_none() {
            make_directory(&self.venvs)?;
        }
        let name = name_of(&captured.frozen.revision());
        let key = before.key.file_name();
        let mut at = self.venvs.join(&name);
        // One that has the name and was changed since may be in use: it is let be.
        let in_use = fs::canonicalize(&self.venv).is_ok_and(|leads| fs::canonicalize(&at).is_ok_and(|at| at == leads));
        if in_use || venv::mark(&at).is_some() {
            at = self.venvs.join(format!("{name}-{}", &key[key.len().saturating_sub(8)..]));
        }
        let order = Order {
            at: &at,
            frozen: &captured.frozen,
            requirements: captured.requirements.as_deref(),
            consistent: captured.consistent,
        };
        self.maker.make(&order, deadline).await?;
        Ok((at, "which was made anew and checked"))
    }

    fn temporary(&self, live: &Live, before: &Before) -> PathBuf {
        live.parent.join(format!(".ripcord-{}", before.key.file_name()))
    }

    /// What the link is to say: relative where the former one was, or where there was none.
    fn led(&self, live: &Live, former: Option<&Path>, at: &Path) -> Result<PathBuf, FileError> {
        let at = fs::canonicalize(at).trying("find", at)?;
        Ok(match at.strip_prefix(&live.parent) {
            Ok(inside) if former.is_none_or(Path::is_relative) => inside.to_owned(),
            _ => at,
        })
    }

    fn relink(&self, live: &Live, former: Option<&Path>, at: &Path, before: &Before) -> Result<(), Stop> {
        let temporary = self.temporary(live, before);
        point("link");
        symlink(self.led(live, former, at)?, &temporary).trying("create", &temporary)?;
        point("relink");
        fs::rename(&temporary, &live.path).trying("replace", &live.path)?;
        sync(&live.parent).map_err(|error| Stop::after(&error))
    }

    /// After a directory was exchanged for a link: keeps it.
    fn settle(&self, switch: &Switch) -> Result<String, Stop> {
        let kept = switch.keep().map_err(|error| Stop::after(&error))?;
        Ok(kept.map_or_else(String::new, |kept| kept.display().to_string()))
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100))
}

impl Component for Pip {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: Settings::DOC.name.to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        let restore = Destroys::SetAside { keep: self.0.keep };
        Capabilities { held: Held::Vault, restore, readers: self.0.readers, ..Capabilities::NONE }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            self.0.survey(cx, place, wanted).await.unwrap_or_else(|failure| {
                let target = TargetId(format!("file:{}", self.0.venv.display()));
                Survey::new(place.clone(), Seen::Unreachable { why: failure.what }, target)
            })
        })
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: &str| CannotPlan { place: wish.place.clone(), why: why.to_owned() };
        let survey = seen.surveys.get(&wish.place).ok_or_else(|| cannot("it was not surveyed"))?;
        let Want::Revision { revision, capture } = &wish.want else {
            return Err(cannot("an environment has no single values to set"));
        };
        if survey.seen.revision() == Some(revision) {
            return Ok(vec![]);
        }
        match (survey.available(revision), revision, capture) {
            (Some(Available::Missing { why }), ..) => return Err(cannot(why)),
            (_, Revision::Exact(_), None) => return Err(cannot("no capture holds its frozen list")),
            _ => {}
        }
        let converted = match survey.facts.get("is") {
            Some(_) => format!("; {} becomes a link, and the directory is kept beside", self.0.shown),
            None => String::new(),
        };
        let at = self.0.venvs.join(name_of(revision));
        let (words, commands) = match revision {
            Revision::Absent => (format!("take {} away, and keep it", self.0.shown), vec![]),
            Revision::Exact(_) => {
                let words = format!(
                    "make {} from the frozen list unless it is kept, and lead {} to it{converted}",
                    at.display(),
                    self.0.shown
                );
                (words, self.0.maker.shown(&at))
            }
        };
        let from = capture.clone().map(CaptureRef::Known);
        let anew = matches!(survey.available(revision), Some(Available::Here { how }) if how.ends_with(ANEW));
        let stages = anew && self.0.maker.verify.is_empty();
        let restore = Draft {
            phase: Phase::Restore,
            action: Action::Restore { to: revision.clone(), from: from.clone() },
            destroys: Destroys::SetAside { keep: self.0.keep },
            redo: Redo::Safe,
            limits: Limits { call: Duration::from_secs(900), total: Duration::from_secs(2700), tries: 3 },
            shown: Shown { words, commands: if stages { vec![] } else { commands.clone() } },
        };
        let stage = stages.then(|| Draft {
            phase: Phase::Stage,
            action: Action::Stage { to: revision.clone(), from },
            destroys: Destroys::Nothing,
            shown: Shown { words: format!("make {} from the frozen list", at.display()), commands },
            ..restore.clone()
        });
        Ok(stage.into_iter().chain([restore]).collect())
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

    fn tidy<'a>(&'a self, cx: &'a Cx, place: &'a Place, before: Timestamp) -> Fut<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            let (inner, limit, place) = (Arc::clone(&self.0), cx.limit, place.clone());
            blocking(move |halt| {
                let live = Live::of(&inner.venv)?;
                let _lock = live.lock(limit, halt)?;
                let (names, mut sweep) = (Names::new(&live, &place), Sweep::new(&live, before)?);
                let mut old = sweep.old(&live.parent, |name| names.switched(name))?;
                if inner.venvs.is_dir() {
                    // Whole environments are the releases themselves: only where one was being made may be left.
                    let unfinished = |name: &std::ffi::OsStr| {
                        let plain = name.to_str().filter(|name| is_ours(name))?;
                        venv::mark(&inner.venvs.join(plain)).is_none().then_some(Ours::DIRECTORY)
                    };
                    old.extend(sweep.old(&inner.venvs, unfinished)?);
                }
                sweep.remove_all(old, halt);
                sweep.done()
            })
            .await?
        })
    }
}
