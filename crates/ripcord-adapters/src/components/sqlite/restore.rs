//! The way back of a database. All names are made from the run and the step's key, so that what is there after a kill says how
//! far it had come:
//!
//! ```text
//! nothing of ours           untouched
//! <db>.ripcord-<key>        begun: the capture, found sound; the live database is wholly old or wholly new
//! only <db>.before-<run>    done
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Before, CaptureRef, Cx, Failure, Loss, Proof, Revision};
use rusqlite::Connection;

use super::Inner;
use super::capture::copy_to_new;
use super::compare::{self, CAPTURED, Difference};
use super::database::{Content, Exclusive, SqlError, beside, content, copy, open_ours, opened_by, sound, uri};
use super::salvage::{self, Summary};
use crate::components::files::captures;
use crate::components::files::{
    FileError, Halt, Live, Owner, Stop, Trying, exchange, meta, own, owner, point, remove, remove_file, rename_new,
    sync,
};

/// How long others' locks are waited for before a restore gives up.
const PATIENCE: Duration = Duration::from_secs(5);

/// The names a restore uses.
pub(super) struct Names {
    live: Live,
    /// The capture, being unpacked and then found sound.
    part: PathBuf,
    new: PathBuf,
    run: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Untouched,
    Begun,
    Done,
}

impl Names {
    pub(super) fn new(live: Live, cx: &Cx, before: &Before) -> Self {
        let key = before.key.file_name();
        Self {
            part: live.beside(&format!(".ripcord-{key}.part")),
            new: live.beside(&format!(".ripcord-{key}")),
            run: cx.run.as_ref().map_or(key, ToString::to_string),
            live,
        }
    }

    /// Where the former database is kept. Another number where a try that was killed had kept another state.
    fn aside(&self, number: usize) -> PathBuf {
        self.live.beside(&numbered(&format!(".before-{}", self.run), number))
    }

    fn salvage(&self, number: usize) -> PathBuf {
        self.live.beside(&numbered(&format!(".salvage-{}", self.run), number))
    }

    pub(super) fn progress(&self) -> Result<Progress, FileError> {
        Ok(match (meta(&self.new)?, meta(&self.aside(1))?) {
            (Some(_), _) => Progress::Begun,
            (None, Some(_)) => Progress::Done,
            (None, None) => Progress::Untouched,
        })
    }
}

fn numbered(suffix: &str, number: usize) -> String {
    if number == 1 { suffix.to_owned() } else { format!("{suffix}.{number}") }
}

/// What a restore takes beside a live database of so many bytes: the capture, the copy that is kept, SQLite's journal (which may
/// come to hold every page there was), and what the database grows by. Where there is none, the capture is renamed to it.
pub(super) fn takes(live: Option<u64>, captured: u64) -> u64 {
    live.map_or(captured, |live| captured + 2 * live + captured.saturating_sub(live))
}

/// Attaches a capture to a connection, for comparing.
pub(super) fn attached(db: Connection, capture: &Path) -> Result<Connection, SqlError> {
    attach(&db, capture)?;
    Ok(db)
}

fn attach(db: &Connection, capture: &Path) -> Result<(), SqlError> {
    db.execute(&format!("ATTACH ?1 AS {CAPTURED}"), [uri(capture, "immutable=1")])?;
    Ok(())
}

/// The sum of what tables lose.
pub(super) fn loss(place: &str, differences: &[Difference], since: Option<Timestamp>) -> Loss {
    let lost = differences.iter().filter(|difference| difference.loss.total() > 0);
    let rows: BTreeMap<_, _> = lost.map(|d| (format!("{place}.{}", d.table.name), d.loss)).collect();
    let uncounted = differences.iter().filter(|difference| difference.loss.total() == 0);
    let other: Vec<_> = uncounted.map(|d| format!("{place}.{}: {}", d.table.name, d.notes.join("; "))).collect();
    let since = since.filter(|_| !rows.is_empty() || !other.is_empty());
    Loss { rows, since, other, how: Some("compared with the capture row by row".to_owned()) }
}

impl Inner {
    pub(super) fn restore(
        &self,
        cx: &Cx,
        place: &str,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: &Before,
        halt: &Halt,
    ) -> Result<Proof, Stop> {
        let live = Live::through(&self.path)?;
        let _lock = live.lock(cx.limit, halt)?;
        let names = Names::new(live, cx, before);
        remove(&names.part)?;
        if names.progress()? == Progress::Done {
            return Ok(self.proof(&names, "was restored by this step"));
        }
        let is_at = |found: &super::Looked| matches!(found, Ok(Some(content)) if content.revision == *to);
        let looked = Self::look(&names.live);
        if matches!((&looked, to), (Ok(None), Revision::Absent)) || is_at(&looked) {
            self.settle(&names, to)?;
            return Ok(self.proof(&names, "is as captured"));
        }
        if *to == Revision::Absent {
            return self.take_away(&names);
        }
        let made = self.captures.find(from, before, to)?;
        let made = made.ok_or_else(|| Failure::never("the step names no capture to restore from"))?;
        let manifest = captures::manifest(&made)?;
        let captured = self.unpacked(&names, &manifest, to)?;
        halt.check()?;
        let done = match &looked {
            Ok(None) => self.put(&names).map(|()| None),
            _ => match Exclusive::take(&names.live.path, PATIENCE.min(cx.limit / 4)) {
                Ok(locked) => self.put_into(&names, locked, place, to, manifest.at, cx, halt).map(Some),
                Err(SqlError::Damaged(error)) => {
                    self.put_in_place_of(&names, &SqlError::Damaged(error), manifest.at).map(Some)
                }
                Err(error) => Err(self.busy(&names, error)),
            },
        };
        let lost = match done {
            Ok(lost) => lost,
            Err(stop) => {
                if matches!(stop, Stop::Failed(_)) {
                    self.give_up(&names)?;
                }
                return Err(stop);
            }
        };
        remove_file(&names.new).and_then(|()| sync(&names.live.parent)).map_err(|error| Stop::after(&error))?;
        let proof = self.proof(&names, &format!("restored: {}", captured.label()));
        Ok(Proof { lost: lost.or(proof.lost), ..proof })
    }

    /// What lies under the name of the new database when the live one has the target: it, or what was exchanged for it.
    fn settle(&self, names: &Names, to: &Revision) -> Result<(), FileError> {
        match sound(&names.new) {
            _ if meta(&names.new)?.is_none() => Ok(()),
            Ok(content) if content.revision == *to => remove(&names.new),
            _ => self.keep_former(names),
        }
    }

    /// Only what was found sound gets the name of the new database, so that anything else there was exchanged for it.
    fn keep_former(&self, names: &Names) -> Result<(), FileError> {
        let mut number = 1;
        while meta(&names.aside(number))?.is_some() {
            number += 1;
        }
        rename_new(&names.new, &names.aside(number))?;
        sync(&names.live.parent)
    }

    /// The live database is as it was: copies of it, and what was prepared, are not needed. Other states that were kept stay, and
    /// then the prepared one does too, so that nobody takes them for a restore that was done.
    fn give_up(&self, names: &Names) -> Result<(), FileError> {
        let present = Self::look(&names.live).ok().flatten();
        let mut others = false;
        for number in (1..).take_while(|number| meta(&names.aside(*number)).is_ok_and(|meta| meta.is_some())) {
            let kept = sound(&names.aside(number)).ok();
            match kept.is_some() && kept == present {
                true => {
                    remove(&names.salvage(number))?;
                    remove(&names.aside(number))?;
                }
                false => others = true,
            }
        }
        if others { Ok(()) } else { remove(&names.new) }
    }

    /// The capture beside the live database, found sound and to be what is wanted.
    fn unpacked(&self, names: &Names, manifest: &ripcord_vault::Manifest, to: &Revision) -> Result<Content, Failure> {
        if meta(&names.new)?.is_some() {
            match sound(&names.new) {
                Ok(content) if content.revision == *to => return Ok(content),
                _ => self.keep_former(names)?,
            }
        }
        let (mut mode, mut belongs) = self.had(manifest);
        if let Some(is) = names.live.meta()? {
            (mode, belongs) = (is.mode() & 0o7777, Some(owner(&is)));
        }
        point("unpack");
        self.unpack(manifest, &names.part, 0o600).inspect_err(|_| {
            let _ = fs::remove_file(&names.part);
        })?;
        let content = sound(&names.part).inspect_err(|_| {
            let _ = fs::remove_file(&names.part);
        })?;
        if content.revision != *to {
            remove(&names.part)?;
            let (is, to) = (content.revision.short(), to.short());
            return Err(Failure::never(format!("the capture holds {is}, not {to}")).advise("choose another capture"));
        }
        if let Some(belongs) = belongs.filter(|_| rustix::process::geteuid().is_root()) {
            own(&names.part, belongs)?;
        }
        fs::set_permissions(&names.part, fs::Permissions::from_mode(mode)).trying("set the mode of", &names.part)?;
        sync(&names.part)?;
        rename_new(&names.part, &names.new)?;
        sync(&names.live.parent)?;
        Ok(content)
    }

    fn busy(&self, names: &Names, error: SqlError) -> Stop {
        let holders = opened_by(&names.live.path);
        let mut failure = Failure::from(error);
        if !holders.is_empty() {
            failure.what.push_str(&format!(" (open in process {})", holders.join(", ")));
        }
        Stop::Failed(failure)
    }

    /// Over the live database, as one change of it.
    #[expect(clippy::too_many_arguments, reason = "one caller; the parts of one restore")]
    fn put_into(
        &self,
        names: &Names,
        mut locked: Exclusive,
        place: &str,
        to: &Revision,
        since: Timestamp,
        cx: &Cx,
        halt: &Halt,
    ) -> Result<Loss, Stop> {
        point("locked");
        let prepared = self.prepare(names, &locked, place, to, since, cx).and_then(|lost| {
            halt.check()?;
            Ok(lost)
        });
        let lost = match prepared {
            Ok(lost) => lost,
            Err(failure) => {
                locked.let_go();
                return Err(failure.into());
            }
        };
        let copied = open_ours(&names.new).and_then(|new| copy(&new, &mut locked.connection));
        if let Err(error) = copied {
            // SQLite undid the transaction: the live database is wholly old.
            locked.let_go();
            return Err(Failure::from(error).into());
        }
        point("copied");
        let unknown = |error: SqlError| Stop::Unknown(error.to_string());
        let is = content(&locked.connection).map_err(unknown)?;
        let mode = locked.connection.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
        if mode.map_err(|error| unknown(error.into()))? == "wal" {
            // The capture was in write-ahead mode, and so is the database now: SQLite forgets the journal of the change, which
            // is over.
            let [_, _, journal] = beside(&names.live.path);
            remove_file(&journal).map_err(|error| Stop::after(&error))?;
        }
        drop(locked);
        match is.revision == *to {
            true => Ok(lost),
            false => Err(Stop::Unknown(format!("the database is {} after the restore", is.revision.short()))),
        }
    }

    /// With everybody locked out: the present database kept beside, and what is given up counted and written down.
    fn prepare(
        &self,
        names: &Names,
        locked: &Exclusive,
        place: &str,
        to: &Revision,
        since: Timestamp,
        cx: &Cx,
    ) -> Result<Loss, Failure> {
        let db = &locked.connection;
        // A part of it may be damaged; then it has no revision, and what can be copied of it is kept anew at each try.
        let present = content(db).ok();
        let number = self.keep(names, db, present.as_ref())?;
        attach(db, &names.new)?;
        let differences = compare::differences(db).map_err(Failure::from);
        let written = differences.and_then(|differences| {
            let mut lost = loss(place, &differences, Some(since));
            if present.is_none() {
                lost.other.push("rows in damaged parts of the database".to_owned());
                lost.since = Some(since);
            }
            if !differences.is_empty() {
                let summary = Summary {
                    version: 1,
                    database: self.shown.clone(),
                    restored: to.clone(),
                    captured_at: Some(since),
                    at: cx.now,
                    tables: vec![],
                    loss: lost.clone(),
                };
                salvage::write(db, &differences, summary, &names.salvage(number), owner_of(&names.live)?)?;
            }
            Ok(lost)
        });
        db.execute_batch(&format!("DETACH {CAPTURED}")).map_err(SqlError::from)?;
        written
    }

    /// Copies the present database aside, unless a killed try did; returns under which number.
    fn keep(&self, names: &Names, db: &Connection, present: Option<&Content>) -> Result<usize, Failure> {
        let mut number = 1;
        loop {
            let aside = names.aside(number);
            if meta(&aside)?.is_none() {
                break;
            }
            let same = sound(&aside).is_ok_and(|kept| present == Some(&kept));
            if same {
                return Ok(number);
            }
            number += 1;
        }
        let aside = names.aside(number);
        copy_to_new(db, &names.part)?;
        if let Some(present) = present {
            let kept = sound(&names.part)?;
            if kept != *present {
                return Err(Failure::never("the copy set aside differs from the database"));
            }
        }
        let is = fs::symlink_metadata(&names.live.path).trying("look at", &names.live.path)?;
        own(&names.part, owner(&is))?;
        fs::set_permissions(&names.part, is.permissions()).trying("set the mode of", &names.part)?;
        sync(&names.part)?;
        rename_new(&names.part, &aside)?;
        sync(&names.live.parent)?;
        tracing::debug!(path = %aside.display(), "database kept");
        Ok(number)
    }

    /// Where there is no database: what SQLite may have left beside an earlier one must not be taken for part of this.
    fn put(&self, names: &Names) -> Result<(), Stop> {
        self.clear_beside(names)?;
        rename_new(&names.new, &names.live.path)?;
        sync(&names.live.parent).map_err(|error| Stop::after(&error))
    }

    /// In the place of a database that SQLite cannot open: nobody can be using it, and nothing of it can be counted.
    fn put_in_place_of(&self, names: &Names, damage: &SqlError, since: Timestamp) -> Result<Loss, Stop> {
        self.not_open(names)?;
        self.clear_beside(names)?;
        exchange(&names.new, &names.live.path)?;
        let kept = sync(&names.live.parent).and_then(|()| self.keep_former(names));
        kept.map_err(|error| Stop::after(&error))?;
        let what = format!("rows written since the capture, which cannot be counted: {damage}");
        Ok(Loss { since: Some(since), other: vec![what], how: Some("not comparable".to_owned()), ..Loss::none() })
    }

    fn take_away(&self, names: &Names) -> Result<Proof, Stop> {
        self.not_open(names)?;
        match Exclusive::take(&names.live.path, PATIENCE) {
            Ok(locked) => drop(locked),
            Err(SqlError::Damaged(_)) => self.clear_beside(names)?,
            Err(error) => return Err(self.busy(names, error)),
        }
        self.not_open(names)?;
        rename_new(&names.live.path, &names.aside(1))?;
        sync(&names.live.parent).map_err(|error| Stop::after(&error))?;
        Ok(self.proof(names, "taken away"))
    }

    fn not_open(&self, names: &Names) -> Result<(), Failure> {
        let holders = opened_by(&names.live.path);
        match holders.is_empty() {
            true => Ok(()),
            false => Err(Failure::later(format!("{} is open in process {}", self.shown, holders.join(", ")))
                .advise("stop what uses the database, then retry")),
        }
    }

    /// Puts a log or journal without its database beside what is kept.
    fn clear_beside(&self, names: &Names) -> Result<(), FileError> {
        let kept = beside(&names.aside(1));
        for (from, to) in beside(&names.live.path).iter().zip(kept) {
            if meta(from)?.is_none() {
                continue;
            }
            match meta(&to)? {
                None => rename_new(from, &to)?,
                Some(_) => {
                    let mut number = 2;
                    while meta(&with_number(&to, number))?.is_some() {
                        number += 1;
                    }
                    rename_new(from, &with_number(&to, number))?;
                }
            }
        }
        sync(&names.live.parent)
    }

    /// What is there of a restore that is done.
    fn proof(&self, names: &Names, words: &str) -> Proof {
        let there = |path: &PathBuf| meta(path).is_ok_and(|meta| meta.is_some());
        let mut set_aside = Vec::new();
        let mut lost = None;
        for number in (1..).take_while(|number| there(&names.aside(*number))) {
            set_aside.push(names.aside(number).display().to_string());
            let salvage = names.salvage(number);
            if let Some(summary) = salvage::summary(&salvage) {
                set_aside.push(salvage.display().to_string());
                lost = Some(summary.loss);
            }
        }
        Proof { set_aside, lost, ..Proof::of(format!("{} {words}", self.shown)) }
    }
}

fn with_number(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn owner_of(live: &Live) -> Result<Owner, FileError> {
    Ok(owner(&fs::symlink_metadata(&live.path).trying("look at", &live.path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_takes_room_for_the_capture_the_kept_copy_the_journal_and_the_growth() {
        assert_eq!(takes(None, 10), 10);
        assert_eq!(takes(Some(0), 10), 20, "the capture, and as much again in the empty database");
        assert_eq!(takes(Some(10), 10), 30);
        assert_eq!(takes(Some(100), 10), 210, "every page that was there may come to lie in the journal");
        assert_eq!(takes(Some(10), 100), 210);
    }
}
