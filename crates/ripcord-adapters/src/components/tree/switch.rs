//! One tree or file in the place of another, in one instant.
//!
//! Three names beside the live one, all made from the step's key: `.part` is being prepared and never trusted; `ready` was
//! prepared whole, and after the exchange it is what was live; the last is where that is kept for people. So whatever name is
//! there after a kill says how far it had come:
//!
//! ```text
//! part                     begin again
//! ready, live is not it    ready is the target: exchange; or it is not: it was live, keep it, begin again
//! ready, live is it        exchanged, and ready is what was live: keep it
//! ```

use std::path::{Path, PathBuf};

use ripcord_core::{Before, Revision};

use super::super::files::{
    FileError, Live, exchange, exchange_works, make_directory, meta, remove, rename_new, sync, sync_all,
};
use super::super::tidy::{STAGED, TIME};

pub(crate) struct Switch {
    live: Live,
    part: PathBuf,
    ready: PathBuf,
    kept: [PathBuf; 2],
}

/// What is to do, once what a killed try left was looked at.
pub(crate) enum Begun {
    /// The live name has the target, and nothing is left to do.
    There,
    /// The live name has the target, and what was live is not kept yet.
    Exchanged,
    /// The target is prepared.
    Ready,
    Prepare,
}

impl Switch {
    pub(crate) fn new(live: Live, before: &Before) -> Self {
        let key = before.key.file_name();
        let at = before.at.strftime(TIME);
        let tail = &key[key.len().saturating_sub(8)..];
        Self {
            part: live.beside(&format!(".ripcord-{key}.part")),
            ready: live.beside(&format!(".ripcord-{key}")),
            // The second where two runs of one second meet.
            kept: [live.beside(&format!("-failed-{at}")), live.beside(&format!("-failed-{at}-{tail}"))],
            live,
        }
    }

    /// What is made ready for a revision before anybody switches to it: `ready` is the tree, whole and compared, whoever made it.
    pub(crate) fn staged(live: &Live, to: &Revision) -> Self {
        let name = format!("{STAGED}{}", to.short().replace(':', "-"));
        Self {
            part: live.beside(&format!("{name}.part")),
            ready: live.beside(&name),
            kept: [PathBuf::new(), PathBuf::new()],
            live: live.clone(),
        }
    }

    /// Takes over what was made ready, to be prepared further: under a name that is not trusted until it is.
    pub(crate) fn adopt(&self, staged: &Self) -> Result<PathBuf, FileError> {
        let new = self.prepare()?;
        rename_new(&staged.ready, &new)?;
        remove(&staged.part)?;
        Ok(new)
    }

    /// Takes away what is there of it.
    pub(crate) fn clear(&self) -> Result<(), FileError> {
        remove(&self.part)?;
        remove(&self.ready)
    }

    pub(crate) fn live(&self) -> &Path {
        &self.live.path
    }

    /// Where the prepared tree is, or what was live: see above.
    pub(crate) fn ready(&self) -> Result<Option<&Path>, FileError> {
        Ok(meta(&self.ready)?.map(|_| self.ready.as_path()))
    }

    /// How far a try came that did not end.
    pub(crate) fn unfinished(&self) -> Result<Option<&'static str>, FileError> {
        Ok(match (meta(&self.ready)?, meta(&self.part)?) {
            (Some(_), _) => Some("a switch was begun and not finished"),
            (None, Some(_)) => Some("a preparation was begun and not finished"),
            (None, None) => None,
        })
    }

    /// Tidies what a killed try left. Both arguments say whether that name has the target.
    pub(crate) fn begin(&self, live: bool, ready: Option<bool>) -> Result<Begun, FileError> {
        remove(&self.part)?;
        match (live, ready) {
            (true, Some(false)) => return Ok(Begun::Exchanged),
            (false, Some(true)) => return Ok(Begun::Ready),
            (true, Some(true)) => remove(&self.ready)?,
            (false, Some(false)) => drop(self.keep()?),
            (_, None) => {}
        }
        Ok(if live { Begun::There } else { Begun::Prepare })
    }

    /// Takes what is prepared away, to be prepared again: what it carried over may be old by now.
    pub(crate) fn discard(&self) -> Result<(), FileError> {
        remove(&self.ready)
    }

    /// Where to prepare: a name in a directory of our own that is not there yet.
    pub(crate) fn prepare(&self) -> Result<PathBuf, FileError> {
        exchange_works(&self.part)?;
        make_directory(&self.part)?;
        Ok(self.part.join("new"))
    }

    /// Takes a preparation that failed away; the live name was not touched.
    pub(crate) fn give_up(&self) {
        if let Err(error) = remove(&self.part) {
            tracing::warn!(%error, "what was prepared could not be taken away");
        }
    }

    /// The prepared tree is whole and checked.
    pub(crate) fn prepared(&self) -> Result<(), FileError> {
        let new = self.part.join("new");
        sync_all(&self.part)?;
        rename_new(&new, &self.ready)?;
        remove(&self.part)?;
        sync(&self.live.parent)
    }

    /// The instant: before it the live name has the old, after it the new. Nothing of it failed when this fails.
    pub(crate) fn exchange(&self) -> Result<(), FileError> {
        match self.live.meta()? {
            None => rename_new(&self.ready, &self.live.path),
            Some(_) => exchange(&self.ready, &self.live.path),
        }
    }

    /// Gives what was live the name people find it under. None when nothing was.
    pub(crate) fn keep(&self) -> Result<Option<PathBuf>, FileError> {
        sync(&self.live.parent)?;
        if meta(&self.ready)?.is_none() {
            return Ok(None);
        }
        self.keep_as(&self.ready).map(Some)
    }

    /// Takes the live thing away, which is to be absent; it is kept like one that was replaced.
    pub(crate) fn take_away(&self) -> Result<Option<PathBuf>, FileError> {
        match self.live.meta()? {
            None => Ok(self.kept()),
            Some(_) => self.keep_as(&self.live.path).map(Some),
        }
    }

    fn keep_as(&self, from: &Path) -> Result<PathBuf, FileError> {
        let [first, second] = &self.kept;
        let to = if meta(first)?.is_none() { first } else { second };
        rename_new(from, to)?;
        sync(&self.live.parent)?;
        Ok(to.clone())
    }

    /// What this step set aside, if it did.
    pub(crate) fn kept(&self) -> Option<PathBuf> {
        self.kept.iter().rev().find(|path| meta(path).is_ok_and(|meta| meta.is_some())).cloned()
    }
}
