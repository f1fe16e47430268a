//! What npm installs for an application, and what is built with it: put back beside, compared with the lock, and exchanged.
//!
//! The revision is `package.json`, the lock and the outputs other than `node_modules`; these are captured and put back byte for byte,
//! so no build tool is needed to go back. `node_modules` is installed anew from the captured lock in a directory beside, before anything
//! is stopped for it, and is believed once it holds what the lock says. Modules that an earlier restore set aside, and that
//! are exactly these, are used again without any install.
//!
//! With `build`, the outputs are built at a restore instead, from `sources` as they are then: those belong to the revision, and must
//! have been put back before, so that nothing can be installed beforehand either.
//!
//! Everything is exchanged name by name, each in one instant; the former names are kept together, beside the directory, so that the
//! directory may be a working tree that must stay clean.

mod install; // into a directory beside
mod lock; // whether modules are what a lock says
mod state; // what is there, and what a capture holds
mod swap; // one set of names in the place of another

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_config::wire::Text;
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CaptureRef, Component, ComponentId, Cx, Destroys, Draft,
    Failure, Fut, Held, Holds, Inventory, KindVersion, Layer, Limits, Observation, Outcome, Phase, Place, Proof,
    Readers, Redo, Revision, Seen, Shown, Step, Survey, TargetId, Want, Wanted, Wish,
};
use schemars::JsonSchema;
use serde::Deserialize;

use self::state::{Names, Present, Target};
use self::swap::{Area, Begun};
use super::disk::room;
use super::files::captures::{self, Captures};
use super::files::{Live, ReadersSetting, Stop, blocking, outcome};
use super::tidy::{self, Sweep};
use super::tool::{Tool, program_mistake};
use crate::{BuildCx, BuildError, ComponentKind};

/// The output that npm installs, and no build makes.
const MODULES: &str = "node_modules";

/// The modules of a Node application, and what is built with them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Where `package.json` is.
    pub directory: PathBuf,
    #[serde(default = "lock_name")]
    pub lock: Text,
    /// Installs what the lock says into the directory it is run in.
    #[serde(default = "install")]
    pub install: Vec<Text>,
    /// Makes the outputs other than `node_modules`. Without it they are kept in the vault and put back as they were.
    #[serde(default)]
    pub build: Option<Vec<Text>>,
    /// What belongs together and is exchanged together.
    #[serde(default = "outputs")]
    pub outputs: Vec<Text>,
    /// What else in the directory the install and the build read (`src`, `patches`, workspaces). It belongs to the revision, and
    /// another component puts it back.
    #[serde(default)]
    pub sources: Vec<Text>,
    /// Run where the new modules are before they go live; any exit code but 0 refuses them. Without it `npm ls`, as far as `install`
    /// installs; an empty list runs nothing. That the modules are what the lock says is compared in any case.
    #[serde(default)]
    pub verify: Option<Vec<Text>>,
    /// What a change means for the components that need this one: `stop` before it (the default), `restart` after it, or `hot`.
    #[serde(default)]
    pub readers: Option<ReadersSetting>,
}

fn words(text: &str) -> Vec<Text> {
    text.split(' ').map(|word| Text(word.to_owned())).collect()
}

fn lock_name() -> Text {
    Text("package-lock.json".to_owned())
}

fn install() -> Vec<Text> {
    words("npm ci --prefer-offline --no-audit --no-fund")
}

fn outputs() -> Vec<Text> {
    words(MODULES)
}

/// A plain path inside the directory.
fn inside_mistake(path: &Text, field: String) -> Option<Mistake> {
    let parts = std::path::Path::new(path.as_str()).components();
    let plain = parts.clone().all(|part| matches!(part, std::path::Component::Normal(_))) && parts.count() > 0;
    (!plain).then(|| Mistake::new(format!("`{path}` is no name inside the directory")).at(field))
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "npm",
        summary: "What npm installs and builds: put back beside from the captured lock, checked, and exchanged.",
        example: "\
directory: /srv/shop
install: [npm, ci, --omit=dev, --prefer-offline]
outputs: [node_modules, dist]
verify: [node, -e, \"require('express')\"]
readers: stop
",
        layer: Layer::Dependencies,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = super::files::path_mistakes(&self.directory);
        for mistake in &mut mistakes {
            mistake.field = Some("directory".to_owned());
        }
        mistakes.extend(program_mistake(&self.install, "install"));
        mistakes.extend(self.build.as_ref().and_then(|build| program_mistake(build, "build")));
        mistakes.extend(inside_mistake(&self.lock, "lock".to_owned()));
        for (name, list) in [("outputs", &self.outputs), ("sources", &self.sources)] {
            mistakes
                .extend(list.iter().enumerate().filter_map(|(i, path)| inside_mistake(path, format!("{name}.{i}"))));
        }
        // One name is one thing that is exchanged: a path in a path would be exchanged twice.
        if let Some(i) = self.outputs.iter().position(|output| output.as_str().contains('/')) {
            let help = "name the whole directory, and what is in it goes with it";
            mistakes
                .push(Mistake::new(format!("`{}` lies deeper", self.outputs[i])).at(format!("outputs.{i}")).help(help));
        }
        if self.outputs.iter().all(|output| output.as_str() != MODULES) {
            mistakes.push(Mistake::new("`node_modules` is not among the outputs").at("outputs").help("name it too"));
        }
        if self.build.is_some() && self.sources.is_empty() {
            let help =
                "name what the build reads in `sources`, or leave `build` out: then the outputs are kept in the vault";
            mistakes.push(Mistake::new("nobody could tell what was built").at("build").help(help));
        }
        mistakes
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let plain = |list: &[Text]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let install = plain(&self.install);
        let verify = self.verify.as_ref().map_or_else(
            || {
                let omitted = install.iter().filter(|word| word.starts_with("--omit") || *word == "--production");
                words("npm ls --all").iter().map(ToString::to_string).chain(omitted.cloned()).collect()
            },
            |verify| plain(verify),
        );
        let built = plain(&self.outputs).into_iter().filter(|output| output != MODULES).collect();
        Ok(Arc::new(Npm(Arc::new(Inner {
            names: Names {
                directory: cx.base.join(&self.directory),
                lock: self.lock.to_string(),
                built,
                sources: plain(&self.sources),
                builds: self.build.is_some(),
                dev: !install.iter().any(|word| matches!(word.as_str(), "--omit=dev" | "--production" | "--only=prod")),
            },
            shown: self.directory.display().to_string(),
            install: Tool::new(install, cx),
            build: self.build.as_ref().map(|build| Tool::new(build, cx)),
            verify: Some(verify).filter(|verify| !verify.is_empty()).map(|verify| Tool::new(verify, cx)),
            node: Tool::new(["node"], cx),
            readers: self.readers.unwrap_or(ReadersSetting::Stop).into(),
            keep: cx.keep_aside,
            captures: Captures::new(id, cx),
        }))))
    }
}

struct Npm(Arc<Inner>);

struct Inner {
    names: Names,
    /// As it is written in the settings.
    shown: String,
    install: Tool,
    build: Option<Tool>,
    verify: Option<Tool>,
    node: Tool,
    readers: Readers,
    keep: Duration,
    captures: Captures,
}

impl Inner {
    /// The version of Node, for people, and for modules that were made for it.
    async fn node(&self, limit: Duration) -> Option<String> {
        let asked = self.node.at(&self.names.directory).ask(&["--version"], limit.min(Duration::from_secs(10))).await;
        asked.ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    async fn survey(self: &Arc<Self>, cx: &Cx, place: &Place, wanted: &[Wanted]) -> Result<Survey, Failure> {
        let node = self.node(cx.limit).await;
        let (inner, at, wanted) = (Arc::clone(self), place.clone(), wanted.to_vec());
        blocking(move |_| {
            let live = Live::through(&inner.names.directory)?;
            let mut survey = Survey::new(at, Seen::At(Revision::Absent), live.target());
            match inner.names.present()? {
                Present::At { revision, packages } => {
                    survey.seen = Seen::At(revision);
                    let node = node.as_deref().map_or(String::new(), |node| format!(", node {node}"));
                    survey.label = Some(format!("{packages} packages{node}"));
                }
                Present::Absent => {}
                Present::Between(why) => survey.seen = Seen::Between { why },
            }
            let present = survey.seen.revision().cloned();
            for one in wanted {
                let available = match &one.revision {
                    revision if Some(revision) == present.as_ref() => Available::Here { how: "it is there".to_owned() },
                    Revision::Absent => Available::Here { how: "it is taken away".to_owned() },
                    Revision::Exact(_) => inner.captures.available(&one),
                };
                survey.available.push((one, available));
            }
            survey.reckoned = Some(Duration::from_secs(20));
            Ok(survey)
        })
        .await?
    }

    fn mark(present: &Present) -> String {
        match present {
            Present::At { revision: Revision::Exact(id), .. } => id.0.clone(),
            Present::At { revision: Revision::Absent, .. } | Present::Absent => "absent".to_owned(),
            Present::Between(why) => format!("no revision: {why}"),
        }
    }

    fn observe(&self, action: &Action, before: Option<&Before>) -> Result<Observation, Failure> {
        let present = self.names.present()?;
        let mark = Self::mark(&present);
        let Action::Restore { to, .. } = action else {
            return Ok(Observation { holds: Holds::Origin, mark: Some(mark) });
        };
        let unfinished = match before {
            Some(before) => Area::new(&self.names, before)?.unfinished()?,
            None => None,
        };
        // Whoever built the outputs that are there, it was not seen from what: only our own word for it counts.
        let there = present.is(to) && (!self.names.builds || *to == Revision::Absent || self.names.stamped(to));
        let same = before.and_then(|before| before.mark.as_ref()).is_none_or(|was| *was == mark);
        let holds = match (there, unfinished, same || present.is(to)) {
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
                let (inner, wanted) =
                    (Arc::clone(self), Wanted { revision: revision.clone(), capture: capture.clone() });
                let node = self.node(cx.limit).await;
                Ok(blocking(move |_| inner.prove(&wanted, node)).await??)
            }
            Action::Capture { .. } => Ok(self.capture(cx, before).await?),
            Action::Stage { to, from } => Ok(self.stage(cx, to, from.as_ref(), before).await?),
            Action::Restore { to, from } => self.restore(cx, before, to, from.as_ref()).await,
            other => Err(Failure::never(format!("npm's modules cannot do {other:?}")).into()),
        }
    }

    fn prove(&self, wanted: &Wanted, node: Option<String>) -> Result<Proof, Failure> {
        let live = Live::through(&self.names.directory)?;
        let Some(made) = self.captures.wanted(wanted).transpose()? else {
            return match self.names.present()?.is(&wanted.revision) || wanted.revision == Revision::Absent {
                true => Ok(Proof::of("nothing is needed for it")),
                false => Err(Failure::never("no capture of it was ever made")),
            };
        };
        let manifest = captures::manifest(&made)?;
        self.captures.verify(&manifest)?;
        let target = Target::captured(&self.names, &self.captures, &made)?;
        // What npm will write nobody knows; the modules that are there are a good guess.
        room(&live.parent, "the restore", made.bytes, manifest.entries.len() as u64 + target.packages as u64)?;
        let kept = swap::kept_modules(&self.names, &target, node.as_deref())?;
        let how = match kept.is_some() && !self.names.builds {
            true => "its modules are kept from before",
            false => "its modules are installed from npm's cache or the registry",
        };
        Ok(Proof::of(format!("the captured lock was read back, {} packages; {how}", target.packages)))
    }

    async fn capture(self: &Arc<Self>, cx: &Cx, before: &Before) -> Result<Proof, Failure> {
        let node = self.node(cx.limit).await;
        let (inner, cx, key) = (Arc::clone(self), cx.clone(), before.key.clone());
        blocking(move |_| {
            let before = inner.names.present()?;
            let (revision, label) = match &before {
                Present::At { revision, packages } => (revision.clone(), format!("{packages} packages")),
                Present::Absent => (Revision::Absent, "nothing".to_owned()),
                Present::Between(why) => return Err(Failure::never(format!("it is at no revision: {why}"))),
            };
            let sources = inner.names.sources(node.as_deref())?;
            let manifest = inner.captures.store(&cx, &key, "the present state", sources)?;
            if !inner.names.present()?.is(&revision) {
                return Err(Failure::later("it was changed while it was captured"));
            }
            let made = captures::made(revision.clone(), Some(label.clone()), &manifest)?;
            if revision != Revision::Absent {
                Target::captured(&inner.names, &inner.captures, &made)?;
            }
            let found = format!("the lock of {} ({label}) captured and read back, {} bytes", inner.shown, made.bytes);
            Ok(Proof { capture: Some(made), ..Proof::of(found) })
        })
        .await?
    }

    async fn restore(
        self: &Arc<Self>,
        cx: &Cx,
        before: &Before,
        to: &Revision,
        from: Option<&CaptureRef>,
    ) -> Result<Proof, Stop> {
        let (inner, limit) = (Arc::clone(self), cx.limit);
        let (wanted, from, step) = (to.clone(), from.cloned(), before.clone());
        // The lock is held by what this returns, until the whole is done.
        let (lock, mut target, area) = blocking(move |halt| -> Result<_, Stop> {
            let held = Live::of(&inner.names.directory.join(&inner.names.lock))?.lock(limit, halt)?;
            let mut target = match &wanted {
                Revision::Absent => Target::nothing(),
                Revision::Exact(_) => {
                    let made = inner.captures.find(from.as_ref(), &step, &wanted)?;
                    let made = made.ok_or_else(|| Failure::never("the step names no capture to restore from"))?;
                    inner.captures.verify(&captures::manifest(&made)?)?;
                    Target::captured(&inner.names, &inner.captures, &made)?
                }
            };
            let area = Area::new(&inner.names, &step)?;
            let begun = area.begin(&inner.names, &mut target)?;
            if begun == Begun::Prepare {
                target.sources_are_there(&inner.names)?;
            }
            Ok(((held, begun), target, area))
        })
        .await??;
        let mut how = "what was prepared before";
        let node = self.node(cx.limit).await;
        let (_held, begun) = lock;
        match begun {
            Begun::There => {
                let kept: Vec<_> = area.kept().iter().map(|path| path.display().to_string()).collect();
                return Ok(Proof { set_aside: kept, ..Proof::of(format!("{} is {}", self.shown, to.short())) });
            }
            Begun::Ready => {}
            Begun::Prepare => match self.prepare(cx, &area, &mut target, node.as_deref()).await {
                Ok(words) => how = words,
                Err(failure) => {
                    area.give_up();
                    return Err(failure.into());
                }
            },
        }
        let (inner, place) = (Arc::clone(self), Live::through(&self.names.directory)?);
        let kept = blocking(move |halt| -> Result<_, Stop> {
            // Nobody exchanges the directory itself meanwhile.
            let _parent = place.lock(limit, halt)?;
            halt.check()?;
            area.exchange(&inner.names, &target)?;
            area.keep(node.as_deref()).map_err(|error| Stop::after(&error))
        })
        .await??;
        let words = format!("{} at {}: {how}, and checked", self.shown, to.short());
        Ok(Proof { set_aside: vec![kept.display().to_string()], ..Proof::of(words) })
    }
}

impl Component for Npm {
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
                let target = TargetId(format!("file:{}", self.0.names.directory.display()));
                Survey::new(place.clone(), Seen::Unreachable { why: failure.what }, target)
            })
        })
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: &str| CannotPlan { place: wish.place.clone(), why: why.to_owned() };
        let survey = seen.surveys.get(&wish.place).ok_or_else(|| cannot("it was not surveyed"))?;
        let Want::Revision { revision, capture } = &wish.want else {
            return Err(cannot("modules have no single values to set"));
        };
        if survey.seen.revision() == Some(revision) {
            return Ok(vec![]);
        }
        match (survey.available(revision), revision, capture) {
            (Some(Available::Missing { why }), ..) => return Err(cannot(why)),
            (_, Revision::Exact(_), None) => return Err(cannot("no capture holds its lock")),
            _ => {}
        }
        let words = match revision {
            Revision::Absent => format!("take the modules and the lock of {} away, and keep them", self.0.shown),
            Revision::Exact(_) => {
                let first = if self.0.stages() { "" } else { "install it beside, check it, " };
                format!("{first}exchange {} for {}, and keep the former", self.0.shown, revision.short())
            }
        };
        let stages = self.0.stages() && *revision != Revision::Absent;
        let tools = [Some(&self.0.install), self.0.build.as_ref(), self.0.verify.as_ref()];
        let commands = match revision {
            Revision::Absent => vec![],
            Revision::Exact(_) => tools.into_iter().flatten().map(|tool| tool.shown(&[])).collect(),
        };
        let from = capture.clone().map(CaptureRef::Known);
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
            shown: Shown {
                words: format!(
                    "install the modules of {} beside {}, unless they are kept",
                    revision.short(),
                    self.0.shown
                ),
                commands,
            },
            ..restore.clone()
        });
        Ok(stage.into_iter().chain([restore]).collect())
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let (inner, action, before) = (Arc::clone(&self.0), step.action.clone(), before.cloned());
            let looked = match &step.action {
                Action::Stage { to, from } => {
                    inner.staged(cx, to, from.as_ref(), before.as_ref()).await.map(Observation::from)
                }
                _ => blocking(move |_| inner.observe(&action, before.as_ref())).await.and_then(|looked| looked),
            };
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
                let _lock = Live::of(&inner.names.directory.join(&inner.names.lock))?.lock(limit, halt)?;
                let live = swap::beside(&inner.names)?;
                let (names, mut sweep) = (tidy::Names::new(&live, &place), Sweep::new(&live, before)?);
                let old = sweep.old(&live.parent, |name| names.switched(name))?;
                sweep.remove_all(old, halt);
                sweep.done()
            })
            .await?
        })
    }
}

/// Outputs by name, and what each is.
type Digests = BTreeMap<String, Revision>;
