//! Copies of databases that were kept long enough, and what a killed call left beside one.
//!
//! `<db>.salvage-<run>/` stays for ever: it holds rows of users that are nowhere else, and only a person can say that they are
//! brought back or not wanted. So does what a killed call had salvaged of them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use jiff::Timestamp;
use ripcord_core::{Cx, Failure, Place};

use super::Inner;
use crate::components::files::{Halt, Live};
use crate::components::tidy::{Names, Ours, Sweep, is_number};

impl Inner {
    pub(super) fn tidy(&self, cx: &Cx, place: &Place, before: Timestamp, halt: &Halt) -> Result<Vec<String>, Failure> {
        let live = Live::through(&self.path)?;
        let _lock = live.lock(cx.limit, halt)?;
        let (names, mut sweep) = (Names::new(&live, place), Sweep::new(&live, before)?);
        let old = sweep.old(&live.parent, |name| ours(&names, name))?;
        sweep.remove_all(old, halt);
        sweep.done()
    }
}

fn ours(names: &Names, name: &OsStr) -> Option<Ours> {
    if let Some(hidden) = name.as_bytes().strip_prefix(b".") {
        return unpacked(names, names.suffix(OsStr::from_bytes(hidden))?);
    }
    let suffix = names.suffix(name)?;
    if let Some(kept) = suffix.strip_prefix(".before-") {
        return is_kept(names, kept).then_some(Ours::FILE);
    }
    let key = suffix.strip_prefix(".ripcord-")?;
    match key.strip_suffix(".capture") {
        Some(key) => names.is_key(key).then_some(Ours::DIRECTORY),
        None => names.is_key(key.strip_suffix(".part").unwrap_or(key)).then_some(Ours::FILE),
    }
}

/// What the vault was writing when it was killed.
fn unpacked(names: &Names, suffix: &str) -> Option<Ours> {
    let (key, numbers) = suffix.strip_prefix(".ripcord-")?.split_once(".part-tmp-")?;
    let (process, count) = numbers.split_once('-')?;
    (names.is_key(key) && is_number(process) && is_number(count)).then_some(Ours::FILE)
}

/// `<run>`, a number where several states were kept, and the same for SQLite's own files beside a database that was damaged.
fn is_kept(names: &Names, kept: &str) -> bool {
    let copy = unnumbered(kept);
    let database = ["-wal", "-shm", "-journal"].iter().find_map(|suffix| copy.strip_suffix(suffix));
    let run = database.map_or(copy, unnumbered);
    run.strip_prefix("run-").is_some_and(is_number) || names.is_key(run)
}

fn unnumbered(text: &str) -> &str {
    text.rsplit_once('.').filter(|(_, number)| is_number(number)).map_or(text, |(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(name: &str) -> bool {
        let live = Live { path: "/srv/shop.db".into(), parent: "/srv".into(), name: "shop.db".into() };
        ours(&Names::new(&live, &Place::try_from("data".to_owned()).unwrap()), OsStr::new(name)).is_some()
    }

    #[test]
    fn copies_kept_and_temporaries_are_ours() {
        for name in [
            "shop.db.before-run-42",
            "shop.db.before-run-42.2",
            "shop.db.before-run-42-wal",
            "shop.db.before-run-42.2-journal",
            "shop.db.before-run-42-shm.3",
            "shop.db.before-production-run-42-restore-data-0a1b2c3d",
            "shop.db.ripcord-run-42-restore-data-0a1b2c3d",
            "shop.db.ripcord-run-42-restore-data-0a1b2c3d.part",
            "shop.db.ripcord-run-42-capture-data-0a1b2c3d.capture",
            ".shop.db.ripcord-run-42-restore-data-0a1b2c3d.part-tmp-123-4",
        ] {
            assert!(is(name), "{name}");
        }
    }

    #[test]
    fn the_database_salvage_and_files_of_people_are_not() {
        for name in [
            "shop.db",
            "shop.db-wal",
            "shop.db.before",
            "shop.db.before-",
            "shop.db.before-migration",
            "shop.db.before-run-42.gz",
            "shop.db.before-run-",
            "shop.db.before-run-42-wal-copy",
            "shop.db.before-run-42.2.3",
            "shop.db.salvage-run-42",
            "shop.db.salvage-run-42.part",
            "shop.db.ripcord-run-42-restore-other-0a1b2c3d",
            "other.db.before-run-42",
            ".shop.db.ripcord-run-42-restore-data-0a1b2c3d",
            ".shop.db.part-tmp-1-2",
        ] {
            assert!(!is(name), "{name}");
        }
    }
}
