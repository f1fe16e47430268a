//! One set of names in the place of another: prepared together in a directory beside, and exchanged name by name.
//!
//! Two names beside the directory, both made from the step's key: `.part` is being prepared and never trusted; the other was prepared
//! whole. Each exchange takes one instant, and whichever of the two places has the target says how far a killed try had come. In the
//! end what was live lies together under the name people find it by.

use std::fs;
use std::path::{Path, PathBuf};

use ripcord_core::{Before, Failure, Revision};

use super::state::{Names, Target};
use super::{Digests, MODULES};
use crate::components::files::{
    FileError, Live, Stop, Trying, exchange, meta, remove, rename_new, sync, sync_all, write_new,
};
use crate::components::tidy::{STAGED, TIME};

/// The digests of what was built, beside it.
const BUILT: &str = "built.json";
/// For which Node the modules beside it were used.
const NODE: &str = "node-version";

#[derive(Clone)]
pub(super) struct Area {
    /// The directory with everything in it.
    directory: PathBuf,
    /// Nothing lies here: it is the name that all names of ours begin with.
    live: Live,
    pub(super) part: PathBuf,
    ready: PathBuf,
    kept: [PathBuf; 2],
}

/// What is to do, once what a killed try left was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// Everything is so, and nothing is left to do.
    There,
    /// All that is to be exchanged is prepared.
    Ready,
    Prepare,
}

/// The name beside the directory that names of ours begin with.
pub(super) fn beside(names: &Names) -> Result<Live, FileError> {
    let directory = Live::through(&names.directory)?;
    let path = directory.beside("-npm");
    let name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    Ok(Live { path, parent: directory.parent, name })
}

/// Modules that were set aside or made ready and are exactly the target's, for the same Node; those made ready first, then the newest.
pub(super) fn kept_modules(names: &Names, target: &Target, node: Option<&str>) -> Result<Option<PathBuf>, FileError> {
    let live = beside(names)?;
    let begins = [format!("{}-failed-", live.name.display()), format!("{}{STAGED}", live.name.display())];
    let list = fs::read_dir(&live.parent).and_then(|list| list.map(|e| e.map(|e| e.file_name())).collect());
    let mut found: Vec<_> = list.trying("list", &live.parent)?;
    // A `.part` may hold modules that look whole and were never flushed or checked.
    let ours = |name: &str| begins.iter().any(|begin| name.starts_with(begin)) && !name.ends_with(".part");
    found.retain(|name: &std::ffi::OsString| name.to_str().is_some_and(ours));
    found.sort_by_key(|name| (is_staged(Path::new(name)), name.clone()));
    let suits = |path: &PathBuf| {
        let used_for = fs::read_to_string(path.with_file_name(NODE)).ok();
        path.is_dir() && used_for.as_deref().map(str::trim) == node && target.is(names, MODULES, path)
    };
    Ok(found.iter().rev().map(|name| live.parent.join(name).join(MODULES)).find(suits))
}

/// Whether it is where modules were made ready, and not what was live once.
pub(super) fn is_staged(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(STAGED))
}

impl Area {
    /// Where the modules of a revision are made ready before anybody exchanges them.
    pub(super) fn staged(names: &Names, to: &Revision) -> Result<Self, FileError> {
        let live = beside(names)?;
        let name = format!("{STAGED}{}", to.short().replace(':', "-"));
        Ok(Self {
            directory: Live::through(&names.directory)?.path,
            part: live.beside(&format!("{name}.part")),
            ready: live.beside(&name),
            kept: [PathBuf::new(), PathBuf::new()],
            live,
        })
    }

    /// Takes away what is there of it.
    pub(super) fn clear(&self) -> Result<(), FileError> {
        remove(&self.part)?;
        remove(&self.ready)
    }

    /// The modules are whole and checked.
    pub(super) fn stands(&self, node: Option<&str>) -> Result<(), Failure> {
        if let Some(node) = node {
            write_new(&self.part.join(NODE), node.as_bytes(), 0o644, None)?;
        }
        self.prepared(None)
    }

    pub(super) fn new(names: &Names, before: &Before) -> Result<Self, FileError> {
        let live = beside(names)?;
        let key = before.key.file_name();
        let at = before.at.strftime(TIME);
        let tail = &key[key.len().saturating_sub(8)..];
        Ok(Self {
            directory: Live::through(&names.directory)?.path,
            part: live.beside(&format!(".ripcord-{key}.part")),
            ready: live.beside(&format!(".ripcord-{key}")),
            // The second where two runs of one second meet.
            kept: [live.beside(&format!("-failed-{at}")), live.beside(&format!("-failed-{at}-{tail}"))],
            live,
        })
    }

    /// How far a try came that did not end.
    pub(super) fn unfinished(&self) -> Result<Option<&'static str>, FileError> {
        Ok(match (meta(&self.ready)?, meta(&self.part)?) {
            (Some(_), _) => Some("an exchange was begun and not finished"),
            (None, Some(_)) => Some("an install was begun and not finished"),
            (None, None) => None,
        })
    }

    /// What this step set aside, if it did.
    pub(super) fn kept(&self) -> Option<&PathBuf> {
        self.kept.iter().rev().find(|path| meta(path).is_ok_and(|meta| meta.is_some()))
    }

    /// Tidies what a killed try left.
    pub(super) fn begin(&self, names: &Names, target: &mut Target) -> Result<Begun, Stop> {
        remove(&self.part)?;
        if meta(&self.ready)?.is_some() {
            if let Some(built) =
                fs::read(self.ready.join(BUILT)).ok().and_then(|text| serde_json::from_slice(&text).ok())
            {
                target.outputs = built;
            }
            let known = |name: &str| {
                target.is(names, name, &self.directory.join(name)) || target.is(names, name, &self.ready.join(name))
            };
            if names.all().all(known) {
                return Ok(Begun::Ready);
            }
            // Somebody changed what was exchanged: what is here was live, and is kept like it.
            self.keep(None)?;
        }
        let unbuilt = names.builds && target.revision != Revision::Absent;
        let there = |name: &str| {
            let said = unbuilt && names.is_built(name) && names.stamped(&target.revision);
            said || target.is(names, name, &self.directory.join(name))
        };
        Ok(if names.all().all(there) { Begun::There } else { Begun::Prepare })
    }

    /// Whether the live name has what is wanted already, so that nothing needs to be prepared for it.
    pub(super) fn has(&self, names: &Names, target: &Target, name: &str) -> bool {
        target.is(names, name, &self.directory.join(name))
    }

    /// The preparation is whole and checked.
    pub(super) fn prepared(&self, built: Option<&Digests>) -> Result<(), Failure> {
        if let Some(built) = built {
            let text = serde_json::to_vec(built).map_err(|error| Failure::never(error.to_string()))?;
            write_new(&self.part.join(BUILT), &text, 0o600, None)?;
        }
        sync_all(&self.part)?;
        rename_new(&self.part, &self.ready)?;
        Ok(sync(&self.live.parent)?)
    }

    /// Takes a preparation that failed away; nothing live was touched.
    pub(super) fn give_up(&self) {
        if let Err(error) = remove(&self.part) {
            tracing::warn!(%error, "what was prepared could not be taken away");
        }
    }

    /// Exchanges what is not so yet.
    pub(super) fn exchange(&self, names: &Names, target: &Target) -> Result<(), Stop> {
        for name in names.all() {
            let (live, ready) = (self.directory.join(name), self.ready.join(name));
            if target.is(names, name, &live) {
                continue;
            }
            match (meta(&live)?, meta(&ready)?) {
                (Some(_), Some(_)) => exchange(&ready, &live)?,
                (None, Some(_)) => rename_new(&ready, &live)?,
                (Some(_), None) => rename_new(&live, &ready)?,
                (None, None) => {}
            }
            if !target.is(names, name, &live) {
                return Err(Stop::Unknown(format!("`{name}` was changed by somebody else meanwhile")));
            }
        }
        sync(&self.directory).map_err(|error| Stop::after(&error))
    }

    /// Gives what was live the name people find it under.
    pub(super) fn keep(&self, node: Option<&str>) -> Result<PathBuf, FileError> {
        if let Some(node) = node {
            let path = self.ready.join(NODE);
            remove(&path)?;
            write_new(&path, node.as_bytes(), 0o644, None)?;
        }
        remove(&self.ready.join(BUILT))?;
        let [first, second] = &self.kept;
        let to = if meta(first)?.is_none() { first } else { second };
        rename_new(&self.ready, to)?;
        sync(&self.live.parent)?;
        Ok(to.clone())
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}
