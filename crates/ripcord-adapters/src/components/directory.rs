//! A directory of files, or one file: a tree replaced whole, or a link `current` moved between release directories.
//!
//! A tree is made ready beside (before anything is stopped for it), compared with its recorded digest, and exchanged with the live
//! name in one instant; the former one is kept as `<name>-failed-<time>`. What `except` names is not part of a revision and is carried over as it is.
//! Source: renameat2(2), RENAME_EXCHANGE; rename(2) replaces a link atomically.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CaptureRef, Component, ComponentId, Cx, Destroys, Draft,
    Failure, Fut, Held, Holds, Inventory, KindVersion, Layer, Limits, Made, Observation, Outcome, Phase, Place, Proof,
    Readers, Redo, Revision, Seen, Shown, Step, Survey, TargetId, Want, Wanted, Wish,
};
use ripcord_vault::pattern_mistake;
use schemars::JsonSchema;
use serde::Deserialize;

use super::disk::room;
use super::files::captures::{self, Captures, vault_failure};
use super::files::{
    FileError, Halt, Live, ReadersSetting, Stop, Trying, blocking, meta, outcome, path_mistakes, point, remove,
    remove_file, rename_new, sync, sync_all,
};
use super::tidy::{Names, Sort, Sweep};
use super::tree::switch::{Begun, Switch};
use super::tree::{self, Kept, carry};
use crate::{BuildCx, BuildError, ComponentKind};

/// How it is said that a revision is in one of the release directories.
const RELEASE: &str = "release directory";

/// A directory of files, one file, or a link that leads to one of several release directories.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The directory or file, relative to `ripcord.yaml`. With `releases`, the link that leads to the live one.
    pub path: PathBuf,
    /// The directory that holds one directory for each release; `path` is then a link to one of them.
    #[serde(default)]
    pub releases: Option<PathBuf>,
    /// What in it is not part of a release (uploads, logs), as paths in which `*`, `?` and `**` may stand for names. It is neither
    /// compared nor captured, and stays when the rest is replaced.
    #[serde(default)]
    pub except: Vec<String>,
    /// What a change means for the components that need this one: `stop` before it (the default), `restart` after it, or `hot`.
    #[serde(default)]
    pub readers: Option<ReadersSetting>,
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "directory",
        summary: "A directory replaced whole, one file, or a link moved between release directories.",
        example: "path: current\nreleases: releases\nexcept:\n  - log\n  - \"**/*.pid\"\nreaders: stop\n",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let patterns = self.except.iter().enumerate().filter_map(|(i, pattern)| {
            let why = pattern_mistake(pattern)?;
            Some(Mistake::new(format!("`{pattern}` can never match: {why}")).at(format!("except.{i}")))
        });
        path_mistakes(&self.path).into_iter().chain(patterns).collect()
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        Ok(Arc::new(Directory(Arc::new(Inner {
            path: cx.base.join(&self.path),
            shown: self.path.display().to_string(),
            releases: self.releases.as_ref().map(|releases| cx.base.join(releases)),
            except: self.except.clone(),
            readers: self.readers.unwrap_or(ReadersSetting::Stop).into(),
            keep: cx.keep_aside,
            captures: Captures::new(id, cx),
        }))))
    }
}

struct Directory(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// As it is written in the settings.
    shown: String,
    releases: Option<PathBuf>,
    except: Vec<String>,
    readers: Readers,
    keep: Duration,
    captures: Captures,
}

impl Component for Directory {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: "directory".to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { held: Held::Vault, restore: self.0.destroys(), readers: self.0.readers, ..Capabilities::NONE }
    }

    fn survey<'a>(&'a self, _cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            let (inner, at, wanted) = (Arc::clone(&self.0), place.clone(), wanted.to_vec());
            let surveyed = blocking(move |_| inner.survey(&at, &wanted)).await;
            surveyed.and_then(|survey| survey.map_err(Failure::from)).unwrap_or_else(|failure| {
                let target = TargetId(format!("file:{}", self.0.path.display()));
                Survey::new(place.clone(), Seen::Unreachable { why: failure.what }, target)
            })
        })
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        self.0.propose(wish, seen)
    }

    fn holds<'a>(&'a self, _cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let (inner, action, before) = (Arc::clone(&self.0), step.action.clone(), before.cloned());
            let looked = blocking(move |_| inner.holds(&action, before.as_ref())).await;
            looked.and_then(|looked| looked).unwrap_or_else(|failure| Holds::CannotTell { why: failure.what }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move {
            let (inner, cx, action, before) = (Arc::clone(&self.0), cx.clone(), step.action.clone(), before.clone());
            match blocking(move |halt| outcome(inner.apply(&cx, &action, &before, halt))).await {
                Ok(outcome) => outcome,
                Err(failure) => Outcome::Unknown { why: failure.what },
            }
        })
    }

    fn tidy<'a>(&'a self, cx: &'a Cx, place: &'a Place, before: Timestamp) -> Fut<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            let (inner, cx, place) = (Arc::clone(&self.0), cx.clone(), place.clone());
            blocking(move |halt| inner.tidy(&cx, &place, before, halt)).await?
        })
    }
}

impl Inner {
    fn destroys(&self) -> Destroys {
        match self.releases {
            // Only a link moves: every release directory stays.
            Some(_) => Destroys::Nothing,
            None => Destroys::SetAside { keep: self.keep },
        }
    }

    fn live(&self) -> Result<Live, FileError> {
        match self.releases {
            Some(_) => Live::of(&self.path),
            None => Live::through(&self.path),
        }
    }

    /// What is there now; an error says why it is neither one revision nor another.
    fn look(&self, live: &Live) -> Result<Revision, ripcord_vault::VaultError> {
        if self.releases.is_none() {
            return tree::revision(&live.path, &self.except);
        }
        let unsupported = |what| ripcord_vault::VaultError::Unsupported { path: live.path.display().to_string(), what };
        match fs::symlink_metadata(&live.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Revision::Absent),
            Ok(meta) if !meta.is_symlink() => Err(unsupported("not a link to a release directory")),
            _ => match fs::canonicalize(&live.path) {
                Ok(leads) => tree::revision(&leads, &self.except),
                Err(_) => Err(unsupported("a link that leads nowhere")),
            },
        }
    }

    fn survey(&self, place: &Place, wanted: &[Wanted]) -> Result<Survey, FileError> {
        let live = self.live()?;
        let looked = self.look(&live);
        let mut survey = Survey::new(place.clone(), tree::seen(&looked), live.target());
        if let Ok(leads) = fs::read_link(&live.path) {
            survey.facts.insert("leads to".into(), leads.display().to_string());
            survey.label = leads.file_name().map(|name| name.display().to_string());
        }
        let at = looked.as_ref().ok();
        let mut digests = None;
        for one in wanted {
            let available = match at == Some(&one.revision) {
                true => Available::Here { how: "it is live".to_owned() },
                false => self.available(one, &mut digests),
            };
            survey.available.push((one.clone(), available));
        }
        let bytes = wanted.iter().filter_map(|one| self.captures.wanted(one)?.ok()).map(|made| made.bytes).max();
        survey.reckoned = bytes.map(|bytes| match self.releases {
            Some(_) => Duration::from_millis(50),
            // Measured: about 80 MB a second written, compared and flushed; more for many small files.
            None => Duration::from_millis(200 + bytes / 80_000),
        });
        Ok(survey)
    }

    /// `digests` is filled at the first question that needs it: it reads every release directory.
    fn available(&self, wanted: &Wanted, digests: &mut Option<BTreeMap<Revision, PathBuf>>) -> Available {
        if wanted.revision == Revision::Absent {
            return Available::Here { how: "it is taken away".to_owned() };
        }
        if let Some(releases) = &self.releases {
            let digests = digests.get_or_insert_with(|| self.release_directories(releases));
            if let Some(found) = digests.get(&wanted.revision) {
                let name = found.file_name().unwrap_or_default().display().to_string();
                return Available::Here { how: format!("{RELEASE} {name}, compared file by file") };
            }
        }
        self.captures.available(wanted)
    }

    /// The release directories by revision. One that cannot be read is none; of equal ones the last name counts.
    fn release_directories(&self, releases: &Path) -> BTreeMap<Revision, PathBuf> {
        let Ok(list) = fs::read_dir(releases) else { return BTreeMap::new() };
        let mut paths: Vec<_> = list.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let hidden = |path: &Path| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let directory = |path: &Path| meta(path).is_ok_and(|meta| meta.is_some_and(|meta| meta.is_dir()));
        let mut found = BTreeMap::new();
        for path in paths.into_iter().filter(|path| !hidden(path) && directory(path)) {
            match tree::revision(&path, &self.except) {
                Ok(revision) => drop(found.insert(revision, path)),
                Err(error) => tracing::debug!(%error, path = %path.display(), "not a release directory"),
            }
        }
        found
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: &str| CannotPlan { place: wish.place.clone(), why: why.to_owned() };
        let survey = seen.surveys.get(&wish.place).ok_or_else(|| cannot("it was not surveyed"))?;
        let Want::Revision { revision, capture } = &wish.want else {
            return Err(cannot("a directory has no single values to set"));
        };
        if survey.seen.revision() == Some(revision) {
            return Ok(vec![]);
        }
        let how = match survey.available(revision) {
            Some(Available::Missing { why }) => return Err(cannot(why)),
            Some(Available::Here { how }) => how.clone(),
            None => return Err(cannot("nobody looked whether it can be had")),
        };
        let words = match (revision, &self.releases) {
            (Revision::Absent, _) => format!("take {} away, and keep it", self.shown),
            (_, Some(_)) => format!("lead {} to {} ({how})", self.shown, revision.short()),
            (_, None) => format!("exchange {} for {} ({how}), and keep the former", self.shown, revision.short()),
        };
        let from = capture.clone().map(CaptureRef::Known);
        let restore = Draft {
            phase: Phase::Restore,
            action: Action::Restore { to: revision.clone(), from: from.clone() },
            destroys: self.destroys(),
            redo: Redo::Safe,
            limits: Limits { call: Duration::from_secs(600), total: Duration::from_secs(1800), tries: 3 },
            shown: Shown { words, commands: vec![] },
        };
        let unpacks = *revision != Revision::Absent && from.is_some() && !how.starts_with(RELEASE);
        let stage = unpacks.then(|| Draft {
            phase: Phase::Stage,
            action: Action::Stage { to: revision.clone(), from },
            destroys: Destroys::Nothing,
            shown: Shown { words: format!("unpack {} beside {}", revision.short(), self.shown), commands: vec![] },
            ..restore.clone()
        });
        Ok(stage.into_iter().chain([restore]).collect())
    }

    fn holds(&self, action: &Action, before: Option<&Before>) -> Result<Observation, Failure> {
        let live = self.live()?;
        if let Action::Stage { to, .. } = action {
            return Ok(if self.staged(&live, to)? { Holds::Target } else { Holds::Origin }.into());
        }
        let looked = self.look(&live);
        let mark = match &looked {
            Ok(Revision::Exact(id)) => id.0.clone(),
            Ok(Revision::Absent) => "absent".to_owned(),
            Err(error) => format!("no revision: {}", vault_failure(error).what),
        };
        let Action::Restore { to, .. } = action else {
            return Ok(Observation { holds: Holds::Origin, mark: Some(mark) });
        };
        let unfinished = match before {
            Some(before) if self.releases.is_none() => Switch::new(live, before).unfinished()?,
            _ => None,
        };
        let same = before.and_then(|before| before.mark.as_ref()).is_none_or(|was| *was == mark);
        let holds = match (looked.is_ok_and(|is| is == *to), unfinished, same) {
            (_, Some(what), _) => Holds::Neither { found: what.to_owned() },
            (true, None, _) => Holds::Target,
            (false, None, true) => Holds::Origin,
            (false, None, false) => Holds::Neither { found: format!("{} was changed by somebody else", self.shown) },
        };
        Ok(Observation { holds, mark: Some(mark) })
    }

    fn apply(&self, cx: &Cx, action: &Action, before: &Before, halt: &Halt) -> Result<Proof, Stop> {
        match action {
            Action::Prove { revision, capture } => {
                let wanted = Wanted { revision: revision.clone(), capture: capture.clone() };
                Ok(self.prove(&wanted)?)
            }
            Action::Capture { .. } => Ok(self.capture(cx, before)?),
            Action::Stage { to, from } => {
                let live = self.live()?;
                let _lock = live.lock(cx.limit, halt)?;
                Ok(self.stage(&live, to, from.as_ref(), before)?)
            }
            Action::Restore { to, from } => {
                let live = self.live()?;
                let _lock = live.lock(cx.limit, halt)?;
                match &self.releases {
                    Some(releases) => self.relink(&live, releases, to, from.as_ref(), before, halt),
                    None => self.replace(live, to, from.as_ref(), before, halt),
                }
            }
            other => Err(Failure::never(format!("a directory cannot do {other:?}")).into()),
        }
    }

    fn tidy(&self, cx: &Cx, place: &Place, before: Timestamp, halt: &Halt) -> Result<Vec<String>, Failure> {
        let live = self.live()?;
        let _lock = live.lock(cx.limit, halt)?;
        let (names, mut sweep) = (Names::new(&live, place), Sweep::new(&live, before)?);
        let old = match &self.releases {
            None => sweep.old(&live.parent, |name| names.switched(name))?,
            // Release directories are the releases themselves: only where one was being unpacked may be left.
            Some(releases) => sweep.old(releases, |name| names.temporary(name, Sort::Directory))?,
        };
        sweep.remove_all(old, halt);
        sweep.done()
    }

    fn prove(&self, wanted: &Wanted) -> Result<Proof, Failure> {
        let how = match self.available(wanted, &mut None) {
            Available::Missing { why } => return Err(Failure::never(why)),
            Available::Here { how } => how,
        };
        let live = self.live()?;
        let made = self.captures.wanted(wanted).transpose()?;
        // Where a release directory serves, its capture need not be whole, and a link is all that is written.
        let Some(made) = made.filter(|_| !how.starts_with(RELEASE)) else {
            room(&live.parent, "the restore", 0, 1)?;
            return Ok(Proof::of(how));
        };
        let manifest = captures::manifest(&made)?;
        room(
            self.releases.as_deref().unwrap_or(&live.parent),
            "the restore",
            made.bytes,
            manifest.entries.len() as u64,
        )?;
        self.captures.verify(&manifest)?;
        Ok(Proof::of(how))
    }

    fn capture(&self, cx: &Cx, before: &Before) -> Result<Proof, Failure> {
        let live = self.live()?;
        let label = fs::read_link(&live.path).ok().and_then(|leads| Some(leads.file_name()?.display().to_string()));
        // A link is followed once, so that all of the capture is of one release.
        let from = match self.releases {
            Some(_) if live.meta()?.is_some() => fs::canonicalize(&live.path).trying("follow", &live.path)?,
            _ => live.path,
        };
        let sources = tree::sources(&from, &self.except)?;
        let manifest = self.captures.store(cx, &before.key, "the present state", sources)?;
        let made = captures::made(tree::captured(&manifest), label, &manifest)?;
        let found = format!("{} captured and read back, {} bytes", self.shown, made.bytes);
        Ok(Proof { capture: Some(made), ..Proof::of(found) })
    }

    fn replace(
        &self,
        live: Live,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: &Before,
        halt: &Halt,
    ) -> Result<Proof, Stop> {
        let switch = Switch::new(live.clone(), before);
        if *to == Revision::Absent {
            let kept = switch.take_away()?;
            return Ok(proof(format!("{} taken away", self.shown), kept));
        }
        let is = |path: &Path| tree::revision(path, &self.except).is_ok_and(|revision| revision == *to);
        match switch.begin(is(switch.live()), switch.ready()?.map(is))? {
            Begun::There => return Ok(proof(format!("{} is {}", self.shown, to.short()), switch.kept())),
            Begun::Exchanged => return self.finish(&switch, to),
            Begun::Ready if self.except.is_empty() => {}
            Begun::Ready | Begun::Prepare => {
                switch.discard()?;
                if let Err(failure) = self.prepare(&live, &switch, to, from, before) {
                    switch.give_up();
                    return Err(failure.into());
                }
            }
        }
        halt.check()?;
        switch.exchange()?;
        self.finish(&switch, to)
    }

    /// After the exchange: what came to the excepted files between the preparation and it, and the name for what was live.
    fn finish(&self, switch: &Switch, to: &Revision) -> Result<Proof, Stop> {
        let after = |error: FileError| Stop::after(&error);
        if let Some(former) = switch.ready().map_err(after)?.filter(|former| former.is_dir()) {
            let late = carry(former, switch.live(), &|path| Kept::named(&self.except, path));
            late.map_err(|failure| Stop::Unknown(failure.what))?;
        }
        let kept = switch.keep().map_err(after)?;
        Ok(proof(format!("{} exchanged for {}", self.shown, to.short()), kept))
    }

    /// Whether the target is ready beside the live one.
    fn staged(&self, live: &Live, to: &Revision) -> Result<bool, FileError> {
        let is = |path: &Path| tree::revision(path, &self.except).is_ok_and(|revision| revision == *to);
        Ok(match &self.releases {
            Some(releases) => self.release_directories(releases).contains_key(to),
            None => Switch::staged(live, to).ready()?.is_some_and(is),
        })
    }

    fn stage(&self, live: &Live, to: &Revision, from: Option<&CaptureRef>, before: &Before) -> Result<Proof, Failure> {
        if self.staged(live, to)? {
            return Ok(Proof::of(format!("{} was ready", to.short())));
        }
        let Some(releases) = &self.releases else {
            let switch = Switch::staged(live, to);
            switch.clear()?;
            let unpacked = self.unpack_to(&switch, to, from, before).and_then(|_| Ok(switch.prepared()?));
            unpacked.inspect_err(|_| switch.give_up())?;
            return Ok(Proof::of(format!("{} unpacked beside {} and compared", to.short(), self.shown)));
        };
        let scratch = releases.join(format!(".ripcord-{}", before.key.file_name()));
        remove(&scratch)?;
        let release = self.unpack_release(live, releases, &scratch, to, from, before).inspect_err(|_| {
            let _ = remove(&scratch);
        })?;
        Ok(Proof::of(format!("{} unpacked to {} and compared", to.short(), release.display())))
    }

    fn prepare(
        &self,
        live: &Live,
        switch: &Switch,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: &Before,
    ) -> Result<(), Failure> {
        let new = match self.staged(live, to)? {
            true => switch.adopt(&Switch::staged(live, to))?,
            false => self.unpack_to(switch, to, from, before)?,
        };
        if meta(switch.live())?.is_some_and(|meta| meta.is_dir()) {
            carry(switch.live(), &new, &|path| Kept::named(&self.except, path))?;
        }
        Ok(switch.prepared()?)
    }

    fn unpack_to(
        &self,
        switch: &Switch,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: &Before,
    ) -> Result<PathBuf, Failure> {
        let made = self.captures.find(from, before, to)?;
        let made = made.ok_or_else(|| Failure::never("the step names no capture to restore from"))?;
        let new = switch.prepare()?;
        self.unpack(&made, to, &new)?;
        Ok(new)
    }

    /// Puts a capture's content at `new`, compared with its digest. The vault gives back whole captures, so what holds the
    /// content is made beside it.
    fn unpack(&self, made: &Made, to: &Revision, new: &Path) -> Result<(), Failure> {
        let whole = new.with_extension("capture");
        let manifest = captures::manifest(made)?;
        point("unpack");
        self.captures.vault()?.restore(&manifest, &whole).map_err(|error| vault_failure(&error))?;
        rename_new(&whole.join(tree::CONTENT), new)?;
        remove(&whole)?;
        let is = tree::revision(new, &self.except).map_err(|error| vault_failure(&error))?;
        match is == *to {
            true => Ok(()),
            false => Err(Failure::never(format!("the capture gave back {}, not {}", is.short(), to.short()))),
        }
    }

    fn relink(
        &self,
        live: &Live,
        releases: &Path,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: &Before,
        halt: &Halt,
    ) -> Result<Proof, Stop> {
        let key = before.key.file_name();
        let temporary = live.parent.join(format!(".ripcord-{key}"));
        remove_file(&temporary)?;
        let is = live.meta()?;
        if is.as_ref().is_some_and(|meta| !meta.is_symlink()) {
            return Err(Failure::never(format!("{} is not a link to a release directory", self.shown))
                .advise("move it into `releases` and put a link in its place, or take `releases` out of the settings")
                .into());
        }
        let former = fs::read_link(&live.path).ok();
        if *to == Revision::Absent {
            let kept = Switch::new(live.clone(), before).take_away()?;
            return Ok(proof(format!("{} taken away", self.shown), kept));
        }
        let scratch = releases.join(format!(".ripcord-{key}"));
        remove(&scratch)?;
        if self.look(live).is_ok_and(|is| is == *to) {
            return Ok(Proof::of(format!("{} is {}", self.shown, to.short())));
        }
        let release = match self.release_directories(releases).remove(to) {
            Some(found) => found,
            None => self.unpack_release(live, releases, &scratch, to, from, before).inspect_err(|_| {
                let _ = remove(&scratch);
            })?,
        };
        let leads = self.led(live, former.as_deref(), &release)?;
        point("link");
        std::os::unix::fs::symlink(&leads, &temporary).trying("create", &temporary)?;
        halt.check()?;
        point("relink");
        fs::rename(&temporary, &live.path).trying("replace", &live.path)?;
        sync(&live.parent).map_err(|error| Stop::after(&error))?;
        let words = format!("{} -> {}", self.shown, leads.display());
        let former = former.map(|former| format!("{} (release directory, left as it is)", former.display()));
        Ok(Proof { set_aside: former.into_iter().collect(), ..Proof::of(words) })
    }

    /// What the link is to say: relative where the former one was.
    fn led(&self, live: &Live, former: Option<&Path>, release: &Path) -> Result<PathBuf, FileError> {
        let release = fs::canonicalize(release).trying("find", release)?;
        let relative = former.is_none_or(|former| former.is_relative());
        Ok(match release.strip_prefix(&live.parent) {
            Ok(inside) if relative => inside.to_owned(),
            _ => release,
        })
    }

    /// The release directory is gone or was changed: makes it again from its capture, under a name that is free.
    fn unpack_release(
        &self,
        live: &Live,
        releases: &Path,
        scratch: &Path,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: &Before,
    ) -> Result<PathBuf, Failure> {
        let made = self.captures.find(from, before, to)?;
        let made = made.ok_or_else(|| Failure::never("no release directory is it, and the step names no capture"))?;
        super::files::make_directory(scratch)?;
        let new = scratch.join("new");
        self.unpack(&made, to, &new)?;
        if let Ok(present) = fs::canonicalize(&live.path) {
            carry(&present, &new, &|path| Kept::named(&self.except, path))?;
        }
        sync_all(scratch)?;
        let digest = to.short().replace(':', "-");
        let plain = |label: &String| !label.is_empty() && !label.starts_with('.') && !label.contains('/');
        let label = made.label.clone().filter(plain);
        let names = [label.clone(), Some(format!("{}-{digest}", label.as_deref().unwrap_or("restored")))];
        let last = format!("restored-{}", before.key.file_name());
        for name in names.into_iter().flatten().chain([last]) {
            let release = releases.join(OsString::from(name));
            if meta(&release)?.is_none() {
                rename_new(&new, &release)?;
                remove(scratch)?;
                sync(releases)?;
                return Ok(release);
            }
        }
        Err(Failure::never(format!("no name is free in {}", releases.display())))
    }
}

fn proof(found: String, kept: Option<PathBuf>) -> Proof {
    Proof { set_aside: kept.iter().map(|kept| kept.display().to_string()).collect(), ..Proof::of(found) }
}
