//! A git working tree, taken to a commit: whole, or some of its paths.
//!
//! The target is checked out in a second working tree beside, whose repository shares the objects; it is compared with the
//! commit's tree and then exchanged with the live one in one instant. The former tree is kept as `<name>-failed-<time>`, with
//! whatever was changed in it. What git ignores, and what `keep` names, is data and is carried over as it is.
//! No branch is moved, here or at a remote: HEAD is detached, and what still points at the bad version is said.

mod capture; // a tree that no commit holds
mod client; // speaks to git, knows no rollback
mod copy; // a second working tree
mod restore; // the way back
mod state; // what a tree is at
mod upkeep; // trees that were kept long enough

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CaptureRef, Component, ComponentId, Cx, Destroys, Draft,
    Failure, Fut, Held, HeldIn, Holds, Inventory, KindVersion, Layer, Limits, Observation, Outcome, Phase, Place,
    Proof, Readers, Redo, Revision, Seen, Shown, Step, Survey, TargetId, Want, Wanted, Wish,
};
use ripcord_vault::{excepted, path_text, pattern_mistake};
use schemars::JsonSchema;
use serde::Deserialize;

use self::client::Git;
use self::state::{State, commit_of};
use super::disk::room;
use super::files::captures::Captures;
use super::files::{Live, ReadersSetting, meta, outcome, path_mistakes};
use super::tree::switch::Switch;
use crate::{BuildCx, BuildError, ComponentKind};

/// A git working tree that is deployed by checking out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The working tree, relative to `ripcord.yaml`: the directory that `.git` lies in.
    pub path: PathBuf,
    /// The files and directories in it that belong to this component; without it the whole tree does.
    #[serde(default)]
    pub paths: Vec<String>,
    /// What survives of all that git does not track, as paths in which `*`, `?` and `**` may stand for names. Without it,
    /// everything git ignores.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Whether a tree with uncommitted changes is a state that can be released: `refuse` (the default) or `record`.
    #[serde(default)]
    pub dirty: Dirty,
    /// What a change means for the components that need this one: `stop` before it (the default), `restart` after it, or `hot`.
    #[serde(default)]
    pub readers: Option<ReadersSetting>,
}

/// What uncommitted changes make of a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dirty {
    /// It is between revisions: no release is made of it.
    #[default]
    Refuse,
    /// It is a revision of its own: the changes are captured with the commit.
    Record,
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "git",
        summary: "A git working tree, taken to a commit: whole, or some of its paths.",
        example: "path: /srv/shop\nkeep:\n  - .env\n  - storage\ndirty: refuse\nreaders: stop\n",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let patterns = self.keep.iter().enumerate().filter_map(|(i, pattern)| {
            let why = pattern_mistake(pattern)?;
            Some(Mistake::new(format!("`{pattern}` can never match: {why}")).at(format!("keep.{i}")))
        });
        let paths = self.paths.iter().enumerate().filter_map(|(i, path)| {
            let why = pattern_mistake(path)?;
            Some(Mistake::new(format!("`{path}` names nothing in the tree: {why}")).at(format!("paths.{i}")))
        });
        path_mistakes(&self.path).into_iter().chain(patterns).chain(paths).collect()
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        Ok(Arc::new(Checkout {
            path: cx.base.join(&self.path),
            shown: self.path.display().to_string(),
            paths: self.paths.iter().map(|path| path.trim_end_matches('/').to_owned()).collect(),
            keep: self.keep.clone(),
            dirty: self.dirty,
            readers: self.readers.unwrap_or(ReadersSetting::Stop).into(),
            keep_aside: cx.keep_aside,
            captures: Captures::new(id, cx),
            git: Git::new(&cx.base, cx.redactor.clone()),
        }))
    }
}

struct Checkout {
    path: PathBuf,
    /// As it is written in the settings.
    shown: String,
    paths: Vec<String>,
    keep: Vec<String>,
    dirty: Dirty,
    readers: Readers,
    keep_aside: Duration,
    captures: Captures,
    git: Git,
}

/// What a look at the tree found.
struct Looked {
    state: State,
    revision: Revision,
}

impl Component for Checkout {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: "git".to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            held: Held::BySystem,
            restore: Destroys::SetAside { keep: self.keep_aside },
            readers: self.readers,
            ..Capabilities::NONE
        }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            let unreachable = |why: String| {
                let target = TargetId(format!("file:{}", self.path.display()));
                Survey::new(place.clone(), Seen::Unreachable { why }, target)
            };
            match Live::through(&self.path) {
                Ok(live) => self.survey_live(cx, place, wanted, &live).await,
                Err(error) => unreachable(error.to_string()),
            }
        })
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        self.plan(wish, seen)
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let looked = self.observe(cx, &step.action, before).await;
            looked.unwrap_or_else(|failure| Holds::CannotTell { why: failure.what }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move {
            let ended = match &step.action {
                Action::Prove { revision, capture } => {
                    let wanted = Wanted { revision: revision.clone(), capture: capture.clone() };
                    self.prove(cx, &wanted).await.map_err(Into::into)
                }
                Action::Capture { .. } => self.capture(cx, before).await.map_err(Into::into),
                Action::Stage { to, from } => self.stage(cx, to, from.as_ref(), before).await.map_err(Into::into),
                Action::Restore { to, from } => self.restore(cx, to, from.as_ref(), before).await,
                other => Err(Failure::never(format!("a git working tree cannot do {other:?}")).into()),
            };
            outcome(ended)
        })
    }

    fn tidy<'a>(&'a self, cx: &'a Cx, place: &'a Place, before: Timestamp) -> Fut<'a, Result<Vec<String>, Failure>> {
        Box::pin(self.remove_old(cx, place, before))
    }
}

impl Checkout {
    /// Whether an untracked path is declared to be data.
    fn kept(&self, path: &Path) -> bool {
        excepted(&path_text(path), &self.keep)
    }

    /// Looks at a working tree, the live one or a prepared one.
    async fn look(&self, cx: &Cx, tree: &Path) -> Result<Looked, Failure> {
        repository(tree)?;
        let state = State::of(&self.git, tree, &|path| self.kept(path), cx.limit).await?;
        let revision = match self.paths.is_empty() {
            true => state.revision(tree)?,
            false => state::revision_of(&state::present(&self.git, tree, &self.paths, cx.limit).await?),
        };
        Ok(Looked { state, revision })
    }

    async fn survey_live(&self, cx: &Cx, place: &Place, wanted: &[Wanted], live: &Live) -> Survey {
        let looked = match live.meta() {
            Ok(None) => Ok(None),
            Ok(Some(_)) => self.look(cx, &live.path).await.map(Some),
            Err(error) => Err(error.into()),
        };
        let seen = match &looked {
            Ok(None) => Seen::At(Revision::Absent),
            Ok(Some(looked)) if self.paths.is_empty() && !looked.state.is_clean() && self.dirty == Dirty::Refuse => {
                Seen::Between { why: format!("changed since the commit: {}", looked.state.changes()) }
            }
            Ok(Some(looked)) => Seen::At(looked.revision.clone()),
            Err(failure) => Seen::Unreachable { why: failure.what.clone() },
        };
        let mut survey = Survey::new(place.clone(), seen, live.target());
        if let Ok(Some(looked)) = &looked {
            survey.label = Some(self.label(cx, live, &looked.state).await);
            if let Some(branch) = &looked.state.branch {
                survey.facts.insert("branch".into(), branch.clone());
            }
            if !looked.state.is_clean() {
                survey.facts.insert("changed".into(), looked.state.changes());
            }
            // The last is the one to go to.
            if let Some(to) = wanted.last()
                && let Some(files) = self.files_between(cx, live, &to.revision).await
            {
                survey.between.push((to.revision.clone(), files));
            }
            let leaves = wanted.iter().any(|one| one.revision != looked.revision);
            survey.puts_back = self.puts_back(cx, live, &looked.state, leaves).await;
        }
        for one in wanted {
            let available = self.available(cx, live, one).await;
            survey.available.push((one.clone(), available));
        }
        survey.reckoned = Some(Duration::from_secs(2));
        survey
    }

    /// How many files the tree and a commit differ in; none where that is no commit that is there.
    async fn files_between(&self, cx: &Cx, live: &Live, to: &Revision) -> Option<u64> {
        let Revision::Exact(id) = to else { return None };
        let commit = id.0.as_str();
        if commit.len() < 40 || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let args = ["diff", "--shortstat", commit, "--"];
        let paths = self.paths.iter().map(String::as_str);
        let said =
            self.git.line(&live.path, &args.into_iter().chain(paths).collect::<Vec<_>>(), cx.limit).await.ok()?;
        match said.split_whitespace().next() {
            None => Some(0),
            Some(files) => files.parse().ok(),
        }
    }

    /// The newest tag at or before the commit, the branch, the commit.
    async fn label(&self, cx: &Cx, live: &Live, state: &State) -> String {
        let describe = ["describe", "--tags", "--always", "--abbrev=7", "HEAD"];
        let short = &state.head[..7];
        let tag = self.git.line(&live.path, &describe, cx.limit).await.unwrap_or_else(|_| short.to_owned());
        let mut label = match &state.branch {
            Some(branch) => format!("{tag} ({branch} at {short})"),
            None => format!("{tag} (detached at {short})"),
        };
        let changed = state.dirty().count();
        if changed > 0 {
            label.push_str(&format!(", {changed} files modified"));
        }
        label
    }

    /// Whether a wanted revision can be had from the clone as it is, or from the vault.
    async fn available(&self, cx: &Cx, live: &Live, wanted: &Wanted) -> Available {
        let missing = |why: String| Available::Missing { why };
        if wanted.revision == Revision::Absent {
            return Available::Here { how: "the tree is taken away".to_owned() };
        }
        let made = match self.captures.wanted(wanted).transpose() {
            Ok(made) => made,
            Err(failure) => return missing(failure.what),
        };
        if matches!(&made, Some(made) if matches!(made.held, HeldIn::Vault { .. }))
            && let Available::Missing { why } = self.captures.available(wanted)
        {
            return missing(why);
        }
        let commit = match self.commit(&wanted.revision, made.as_ref()) {
            Ok(Some(commit)) => commit,
            Ok(None) => return self.captures.available(wanted),
            Err(failure) => return missing(failure.what),
        };
        match state::missing(&self.git, &live.path, &commit, None, cx.limit).await {
            Ok(None) => Available::Here { how: format!("commit {} in the clone, all files there", &commit[..12]) },
            Ok(Some(why)) => missing(why),
            Err(failure) => missing(failure.what),
        }
    }

    /// The commit a revision is made from. None where the vault holds all of it.
    fn commit(&self, revision: &Revision, made: Option<&ripcord_core::Made>) -> Result<Option<String>, Failure> {
        if let Some((commit, dirty)) = commit_of(revision) {
            return match (dirty, made) {
                (true, None) => Err(Failure::never("its uncommitted changes were never captured")),
                _ => Ok(Some(commit.to_owned())),
            };
        }
        match made.map(|made| &made.held) {
            Some(HeldIn::System { name }) => Ok(Some(name.clone())),
            Some(HeldIn::Vault { .. }) => Ok(None),
            None => Err(Failure::never("no capture says which commit has these files")),
        }
    }

    fn plan(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: &str| CannotPlan { place: wish.place.clone(), why: why.to_owned() };
        let survey = seen.surveys.get(&wish.place).ok_or_else(|| cannot("it was not surveyed"))?;
        let Want::Revision { revision, capture } = &wish.want else {
            return Err(cannot("a working tree has no single values to set"));
        };
        if survey.seen.revision() == Some(revision) {
            return Ok(vec![]);
        }
        let how = match survey.available(revision) {
            Some(Available::Here { how }) => how,
            Some(Available::Missing { why }) => return Err(cannot(why)),
            None => return Err(cannot("nobody looked whether it can be had")),
        };
        let what = if self.paths.is_empty() { String::new() } else { format!(" of {}", self.paths.join(", ")) };
        // What is there already is only exchanged; some paths alone are laid over the present tree, which may change until then.
        let stages =
            *revision != Revision::Absent && self.paths.is_empty() && survey.seen != Seen::At(Revision::Absent);
        let first = if stages { "" } else { "check it out beside, " };
        let words =
            format!("{first}exchange {} for {}{what}, and keep the former ({how})", self.shown, revision.short(),);
        let commands = match commit_of(revision) {
            Some((commit, _)) => vec![["git", "checkout", "--detach", commit].map(str::to_owned).to_vec()],
            None => vec![],
        };
        let from = capture.clone().map(CaptureRef::Known);
        let restore = Draft {
            phase: Phase::Restore,
            action: Action::Restore { to: revision.clone(), from: from.clone() },
            destroys: Destroys::SetAside { keep: self.keep_aside },
            redo: Redo::Safe,
            limits: Limits { call: Duration::from_secs(600), total: Duration::from_secs(1800), tries: 3 },
            shown: Shown { words, commands: if stages { vec![] } else { commands.clone() } },
        };
        let stage = stages.then(|| Draft {
            phase: Phase::Stage,
            action: Action::Stage { to: revision.clone(), from },
            destroys: Destroys::Nothing,
            shown: Shown { words: format!("check out {} beside {}", revision.short(), self.shown), commands },
            ..restore.clone()
        });
        Ok(stage.into_iter().chain([restore]).collect())
    }

    async fn observe(&self, cx: &Cx, action: &Action, before: Option<&Before>) -> Result<Observation, Failure> {
        let live = Live::through(&self.path)?;
        if let Action::Stage { to, .. } = action {
            return Ok(if self.staged(cx, &live, to).await { Holds::Target } else { Holds::Origin }.into());
        }
        let revision = match live.meta()? {
            None => Revision::Absent,
            Some(_) => self.look(cx, &live.path).await?.revision,
        };
        let mark = match &revision {
            Revision::Absent => "absent".to_owned(),
            Revision::Exact(id) => id.0.clone(),
        };
        let Action::Restore { to, .. } = action else {
            return Ok(Observation { holds: Holds::Origin, mark: Some(mark) });
        };
        let unfinished = match before {
            Some(before) => Switch::new(live, before).unfinished()?,
            None => None,
        };
        let same = before.and_then(|before| before.mark.as_ref()).is_none_or(|was| *was == mark);
        let holds = match (revision == *to, unfinished, same) {
            (_, Some(what), _) => Holds::Neither { found: what.to_owned() },
            (true, None, _) => Holds::Target,
            (false, None, true) => Holds::Origin,
            (false, None, false) => Holds::Neither { found: format!("{} was changed by somebody else", self.shown) },
        };
        Ok(Observation { holds, mark: Some(mark) })
    }

    async fn prove(&self, cx: &Cx, wanted: &Wanted) -> Result<Proof, Failure> {
        let live = Live::through(&self.path)?;
        repository(&live.path)?;
        if let Available::Missing { why } = self.available(cx, &live, wanted).await {
            return Err(Failure::never(why));
        }
        let made = self.captures.wanted(wanted).transpose()?;
        let mut read = 0;
        if let Ok(Some(commit)) = self.commit(&wanted.revision, made.as_ref())
            && let Some(why) = state::missing(&self.git, &live.path, &commit, Some(&mut read), cx.limit).await?
        {
            return Err(Failure::never(why));
        }
        room(&live.parent, "the restore", read, 0)?;
        Ok(Proof::of(format!("{} is in the clone and was read, {read} bytes", wanted.revision.short())))
    }
}

/// Refuses what is not a working tree with a repository of its own.
fn repository(tree: &Path) -> Result<(), Failure> {
    let git = tree.join(".git");
    let refuse = |what: &str, advice: &str| Err(Failure::never(format!("{} {what}", tree.display())).advise(advice));
    match meta(&git)? {
        Some(meta) if meta.is_dir() && git.join("commondir").exists() => {
            refuse("shares its repository with another working tree", "deploy from a clone of its own")
        }
        Some(meta) if meta.is_dir() => Ok(()),
        Some(_) => refuse(
            "is a linked working tree or a submodule: its repository lies elsewhere",
            "deploy from a clone of its own, or use the kind `directory`",
        ),
        None if tree.join("HEAD").is_file() && tree.join("objects").is_dir() => {
            refuse("is a bare repository: there is no working tree to take back", "name the working tree")
        }
        None => refuse("is no git working tree", "name the directory that `.git` lies in"),
    }
}
