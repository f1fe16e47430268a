//! An install into a directory beside: nothing that is live is touched, whatever happens to it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::{Before, CaptureRef, Cx, Failure, Holds, Proof, Retry, Revision};
use tokio::time::Instant;

use super::state::Target;
use super::swap::{Area, is_staged, kept_modules};
use super::{Digests, Inner, MODULES};
use crate::components::files::captures::vault_failure;
use crate::components::files::{
    FileError, Live, Stop, Trying, blocking, exchange_works, make_directory, meta, point, remove, rename_new, write_new,
};
use crate::components::tool::Tool;
use crate::components::tree;
use crate::hosts::within;

/// What npm itself reads beside the package and the lock.
const NPMRC: &str = ".npmrc";

impl Inner {
    /// Whether an install can come before anything is stopped for it: what it reads is all in the capture.
    pub(super) fn stages(&self) -> bool {
        !self.names.builds && self.names.sources.is_empty()
    }

    fn target(&self, to: &Revision, from: Option<&CaptureRef>, before: &Before) -> Result<Target, Failure> {
        let made = self.captures.find(from, before, to)?;
        let made = made.ok_or_else(|| Failure::never("the step names no capture to install from"))?;
        Target::captured(&self.names, &self.captures, &made)
    }

    /// Whether the target's modules are live, kept or made ready.
    fn at_hand(&self, target: &Target, node: Option<&str>) -> Result<bool, FileError> {
        let live = self.names.directory.join(MODULES);
        Ok(target.is(&self.names, MODULES, &live) || kept_modules(&self.names, target, node)?.is_some())
    }

    pub(super) async fn staged(
        self: &Arc<Self>,
        cx: &Cx,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: Option<&Before>,
    ) -> Result<Holds, Failure> {
        let Some(before) = before.cloned() else { return Ok(Holds::Origin) };
        let node = self.node(cx.limit).await;
        let (inner, to, from) = (Arc::clone(self), to.clone(), from.cloned());
        blocking(move |_| {
            let target = inner.target(&to, from.as_ref(), &before)?;
            Ok(if inner.at_hand(&target, node.as_deref())? { Holds::Target } else { Holds::Origin })
        })
        .await?
    }

    /// Installs the target's modules beside; a restore takes them as it takes those that were kept.
    pub(super) async fn stage(
        self: &Arc<Self>,
        cx: &Cx,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: &Before,
    ) -> Result<Proof, Failure> {
        let deadline = Instant::now() + within(cx.limit);
        let node = self.node(cx.limit).await;
        let (inner, limit, used_for) = (Arc::clone(self), cx.limit, node.clone());
        let (wanted, from, step) = (to.clone(), from.cloned(), before.clone());
        let (_held, area, wanting) = blocking(move |halt| -> Result<_, Failure> {
            let held = Live::of(&inner.names.directory.join(&inner.names.lock))?.lock(limit, halt)?;
            let target = inner.target(&wanted, from.as_ref(), &step)?;
            let area = Area::staged(&inner.names, &wanted)?;
            if inner.at_hand(&target, used_for.as_deref())? {
                area.give_up();
                return Ok((held, area, None));
            }
            area.clear()?;
            Ok((held, area, Some(target)))
        })
        .await??;
        let Some(target) = wanting else { return Ok(Proof::of("its modules are there")) };
        let installed = async {
            self.lay_out(&area, &target, node.as_deref()).await?;
            self.install(&area, &target, deadline).await?;
            let (area, node) = (area.clone(), node.clone());
            blocking(move |_| area.stands(node.as_deref())).await?
        };
        installed.await.inspect_err(|_: &Failure| area.give_up())?;
        Ok(Proof::of(format!("{} packages installed beside {}, and checked", target.packages, self.shown)))
    }

    /// Prepares all that differs, and says how in words.
    pub(super) async fn prepare(
        self: &Arc<Self>,
        cx: &Cx,
        area: &Area,
        target: &mut Target,
        node: Option<&str>,
    ) -> Result<&'static str, Failure> {
        let deadline = Instant::now() + within(cx.limit);
        if target.revision == Revision::Absent {
            make_directory(&area.part)?;
            area.prepared(None)?;
            return Ok("taken away");
        }
        let kept = self.lay_out(area, target, node).await?;
        let installs = kept.is_none() && (self.names.builds || !area.has(&self.names, target, MODULES));
        if installs {
            self.install(area, target, deadline).await?;
        }
        let (inner, area, mut wanted) = (Arc::clone(self), area.clone(), target.clone());
        let (outputs, how) = blocking(move |_| -> Result<(Digests, &'static str), Failure> {
            let built = match inner.names.builds {
                true => Some(inner.built(&area.part, &mut wanted)?),
                false => {
                    inner.unpack(&area, &wanted)?;
                    None
                }
            };
            for name in inner.names.sources.iter().map(String::as_str).chain([NPMRC]) {
                if !inner.names.all().any(|other| other == name) {
                    remove(&area.part.join(name))?;
                }
            }
            let how = match (&kept, installs) {
                (Some(_), _) => "its modules were kept from before",
                (None, true) => "its modules were installed anew",
                (None, false) => "its modules were there",
            };
            // The last of all: a preparation that is begun again is taken away.
            if let Some(kept) = &kept {
                rename_new(kept, &area.part.join(MODULES))?;
                if let Some(staged) = kept.parent().filter(|parent| is_staged(parent)) {
                    remove(staged)?;
                }
            }
            area.prepared(built.as_ref())?;
            Ok((wanted.outputs, how))
        })
        .await??;
        target.outputs = outputs;
        Ok(how)
    }

    /// Lays out what the install reads; returns modules that can be used as they are.
    async fn lay_out(
        self: &Arc<Self>,
        area: &Area,
        target: &Target,
        node: Option<&str>,
    ) -> Result<Option<PathBuf>, Failure> {
        let (inner, area, target, node) = (Arc::clone(self), area.clone(), target.clone(), node.map(str::to_owned));
        blocking(move |_| {
            exchange_works(&area.part)?;
            make_directory(&area.part)?;
            for (name, bytes) in &target.files {
                if let Some(bytes) = bytes {
                    let mode = target.mode_of(name, &inner.names);
                    write_new(&area.part.join(name), bytes, mode, None)?;
                }
            }
            for name in inner.names.sources.iter().map(String::as_str).chain([NPMRC]) {
                copy(&area.directory().join(name), &area.part.join(name))?;
            }
            // What is built is built with modules that were installed for it.
            let usable = !inner.names.builds && !area.has(&inner.names, &target, MODULES);
            Ok(if usable { kept_modules(&inner.names, &target, node.as_deref())? } else { None })
        })
        .await?
    }

    async fn install(&self, area: &Area, target: &Target, deadline: Instant) -> Result<(), Failure> {
        let advice = "nothing live was touched; see that the registry can be reached, or that npm's cache has what the lock names, \
                      then retry the step";
        point("install");
        run(&self.install, &area.part, deadline, advice).await?;
        point("installed");
        let modules = area.part.join(MODULES);
        if let Some(why) = target.modules_differ(&self.names, &modules) {
            let failure = Failure::never(format!("the install ended well, but {why}"));
            return Err(failure.advise("see that `install` installs from the lock, as `npm ci` does"));
        }
        // Where nothing is to be installed, npm makes no directory.
        if meta(&modules)?.is_none() {
            make_directory(&modules)?;
        }
        if let Some(build) = &self.build {
            run(build, &area.part, deadline, "nothing live was touched; see what the build lacks, then retry the step")
                .await?;
            point("built");
        }
        if let Some(verify) = &self.verify {
            run(verify, &area.part, deadline, "nothing live was touched; the new modules do not pass their check")
                .await?;
        }
        Ok(())
    }

    /// Looks at what was built, and says in it of what revision it is.
    fn built(&self, part: &Path, target: &mut Target) -> Result<Digests, Failure> {
        target.stamp(&part.join(MODULES))?;
        let mut digests = Digests::new();
        for name in &self.names.built {
            let revision = tree::revision(&part.join(name), &[]).map_err(|error| vault_failure(&error))?;
            if revision == Revision::Absent {
                return Err(Failure::never(format!("the build ended well, but made no `{name}`")));
            }
            digests.insert(name.clone(), revision);
        }
        target.outputs = digests.clone();
        Ok(digests)
    }

    /// Puts the outputs that the vault keeps beside the modules, compared with their digests.
    fn unpack(&self, area: &Area, target: &Target) -> Result<(), Failure> {
        let wanted = target
            .outputs
            .iter()
            .filter(|(name, revision)| **revision != Revision::Absent && !area.has(&self.names, target, name));
        let wanted: Vec<_> = wanted.collect();
        let Some(manifest) = target.manifest.as_ref().filter(|_| !wanted.is_empty()) else { return Ok(()) };
        let whole = area.part.join(".ripcord-capture");
        point("unpack");
        self.captures.vault()?.restore(manifest, &whole).map_err(|error| vault_failure(&error))?;
        for (name, revision) in wanted {
            let new = area.part.join(name);
            rename_new(&Target::output_in(&whole, name), &new)?;
            let is = tree::revision(&new, &[]).map_err(|error| vault_failure(&error))?;
            if is != *revision {
                return Err(Failure::never(format!("the capture gave back another `{name}` than it was said to hold")));
            }
        }
        Ok(remove(&whole)?)
    }
}

/// Runs a tool in the directory that is prepared. Nothing live is in reach of it, so whatever goes wrong is a plain failure.
async fn run(tool: &Tool, part: &Path, deadline: Instant, advice: &str) -> Result<(), Failure> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    match tool.at(part).act(&[], left).await {
        Ok(_) => Ok(()),
        Err(Stop::Failed(failure)) => {
            Err(Failure { advice: failure.advice.clone().or(Some(advice.to_owned())), ..failure })
        }
        Err(Stop::Unknown(why)) => Err(Failure { retry: Retry::Later, ..Failure::never(why).advise(advice) }),
    }
}

/// Copies what is there, so that whatever reads it beside cannot change it where it lives. Modules in it are left out: they are
/// installed anew.
fn copy(from: &Path, to: &Path) -> Result<(), FileError> {
    let Some(is) = meta(from)? else { return Ok(()) };
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).trying("create", parent)?;
    }
    if is.is_symlink() {
        let leads = fs::read_link(from).trying("read the link", from)?;
        return symlink(leads, to).trying("create", to);
    }
    if is.is_file() {
        return fs::copy(from, to).trying("copy", from).map(drop);
    }
    if !is.is_dir() {
        return Ok(());
    }
    fs::create_dir(to).trying("create", to)?;
    let names: Vec<_> =
        fs::read_dir(from).and_then(|list| list.map(|e| e.map(|e| e.file_name())).collect()).trying("list", from)?;
    for name in names.into_iter().filter(|name| name != MODULES) {
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}
