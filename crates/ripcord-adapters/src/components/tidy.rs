//! What restores leave beside the live name, once nobody is to come back to it: what was set aside, and what a killed call left.
//!
//! A thing is ours by its name alone, so the patterns are strict: the live name, our mark, and a time or a key as we write them. A
//! link is never followed and never removed. Nothing goes in which something is mounted, or which the live name leads into: it is
//! not only ours any more. Rows salvaged from a database are never ours to remove: they are the users'.
//! A directory is first renamed to `<name>.removing`, so that a half of it is not taken for what was kept.
//! Source: proc(5), `/proc/pid/mountinfo`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ripcord_core::{Failure, Place};

use super::files::{FileError, Halt, Live, Trying, meta, remove, rename_new, sync};

/// How the time stands in the name of what was set aside.
pub(crate) const TIME: &str = "%Y%m%dT%H%M%SZ";
/// What stands between the live name and a revision in the name of what was made ready beside.
pub(crate) const STAGED: &str = ".ripcord-staged-";
/// At the end of the name of a directory that is being removed.
const REMOVING: &str = ".removing";

/// A name of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ours {
    /// When it was made, where the name says so. What the file system says counts too.
    pub(crate) since: Option<Timestamp>,
    pub(crate) sort: Sort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    File,
    Directory,
    Either,
}

impl Ours {
    pub(crate) const FILE: Self = Self { since: None, sort: Sort::File };
    pub(crate) const DIRECTORY: Self = Self { since: None, sort: Sort::Directory };
}

/// The names of one place: those of no other are told to be ours.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    live: OsString,
    /// The place as it stands in a key.
    place: String,
}

impl Names {
    pub(crate) fn new(live: &Live, place: &Place) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        Self { live: live.name.clone(), place: place.to_string().chars().map(plain).collect() }
    }

    /// What follows the live name in a name.
    pub(crate) fn suffix<'a>(&self, name: &'a OsStr) -> Option<&'a str> {
        let suffix = name.as_bytes().strip_prefix(self.live.as_bytes())?;
        std::str::from_utf8(suffix).ok()
    }

    /// What a switch of trees or files leaves beside the live name.
    pub(crate) fn switched(&self, name: &OsStr) -> Option<Ours> {
        let suffix = self.suffix(name)?;
        if let Some(at) = suffix.strip_prefix("-failed-") {
            return Some(Ours { since: Some(kept_since(at)?), sort: Sort::Either });
        }
        if let Some(revision) = suffix.strip_prefix(STAGED) {
            let of = is_short(revision.strip_suffix(".part").unwrap_or(revision));
            return of.then_some(Ours { since: None, sort: Sort::Either });
        }
        let key = suffix.strip_prefix(".ripcord-")?;
        self.is_key(key.strip_suffix(".part").unwrap_or(key)).then_some(Ours { since: None, sort: Sort::Either })
    }

    /// A temporary that has the step's name alone.
    pub(crate) fn temporary(&self, name: &OsStr, sort: Sort) -> Option<Ours> {
        let key = name.to_str()?.strip_prefix(".ripcord-")?;
        self.is_key(key).then_some(Ours { since: None, sort })
    }

    /// Whether it is a key of a step at this place, as a file name has it: the end of run and step, and eight digits of a digest.
    pub(crate) fn is_key(&self, text: &str) -> bool {
        let Some((step, digest)) = text.rsplit_once('-') else { return false };
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let plain = step.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if digest.len() != 8 || !digest.bytes().all(hex) || !plain || step.len() > 60 {
            return false;
        }
        // The second step of a place has a number behind it.
        let numbered = step.rsplit_once('-').filter(|(_, number)| is_number(number)).map(|(step, _)| step);
        let of_place = |step: &str| match step.strip_suffix(self.place.as_str()) {
            Some(rest) => rest.ends_with('-'),
            // Too long a name is cut at its front.
            None => step.len() == 60 && self.place.ends_with(step),
        };
        of_place(step) || numbered.is_some_and(of_place)
    }
}

/// Whether it is a revision as names have it: its scheme, and twelve digits.
fn is_short(text: &str) -> bool {
    let (scheme, digits) = text.rsplit_once('-').unwrap_or(("", text));
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digits.len() == 12 && digits.bytes().all(hex) && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

pub(crate) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() < 20 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// When something was set aside, by the end of its name: the time, and where two met in one second the end of a key.
fn kept_since(text: &str) -> Option<Timestamp> {
    let (time, tail) = text.split_at_checked("20260101T000000Z".len())?;
    let hex = |tail: &str| tail.len() == 8 && tail.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !(tail.is_empty() || tail.strip_prefix('-').is_some_and(hex)) {
        return None;
    }
    let at = DateTime::strptime(TIME, time).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    (at.strftime(TIME).to_string() == time).then_some(at)
}

/// Finds and removes what is older than a moment.
pub(crate) struct Sweep {
    live: PathBuf,
    before: Timestamp,
    mounts: Vec<PathBuf>,
    removed: Vec<String>,
    failed: Option<Failure>,
}

impl Sweep {
    /// The place must be locked: a call that is at work there owns what looks like a leftover.
    pub(crate) fn new(live: &Live, before: Timestamp) -> Result<Self, FileError> {
        Ok(Self {
            live: fs::canonicalize(&live.path).unwrap_or_else(|_| live.path.clone()),
            before,
            mounts: mounts()?,
            removed: vec![],
            failed: None,
        })
    }

    /// What in a directory is ours, and older.
    pub(crate) fn old(
        &self,
        directory: &Path,
        ours: impl Fn(&OsStr) -> Option<Ours>,
    ) -> Result<Vec<PathBuf>, FileError> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .and_then(|list| list.map(|entry| entry.map(|entry| entry.file_name())).collect())
            .trying("list", directory)?;
        // Backwards, so that a removal that was cut short comes before what would take its name.
        names.sort_by(|a: &OsString, b| b.cmp(a));
        let mut old = vec![];
        for name in names {
            let (plain, begun) = match name.as_bytes().strip_suffix(REMOVING.as_bytes()) {
                Some(plain) => (OsStr::from_bytes(plain), true),
                None => (name.as_os_str(), false),
            };
            let Some(ours) = ours(plain) else { continue };
            let path = directory.join(&name);
            if self.may_go(&path, ours, begun)? {
                old.push(path);
            }
        }
        Ok(old)
    }

    fn may_go(&self, path: &Path, ours: Ours, begun: bool) -> Result<bool, FileError> {
        let Some(is) = meta(path)? else { return Ok(false) };
        let sort = match ours.sort {
            Sort::File => is.is_file(),
            Sort::Directory => is.is_dir(),
            Sort::Either => is.is_file() || is.is_dir(),
        };
        // Whatever touched it last, somebody may still be looking: the time in the name and the file system's must both be past.
        let changed = Timestamp::new(is.ctime(), 0).unwrap_or(Timestamp::MAX);
        let old = (begun && is.is_dir()) || (changed < self.before && ours.since.is_none_or(|at| at < self.before));
        let free = !self.live.starts_with(path) && !self.mounts.iter().any(|mount| mount.starts_with(path));
        if sort && old && !free {
            tracing::warn!(path = %path.display(), "kept: something is mounted in it, or the live name leads into it");
        }
        Ok(sort && old && free)
    }

    /// Removes all of them; what cannot be removed stays, and is told when nothing else was.
    pub(crate) fn remove_all(&mut self, old: Vec<PathBuf>, halt: &Halt) {
        for path in old {
            if halt.check().is_err() {
                return;
            }
            self.remove(&path);
        }
    }

    pub(crate) fn remove(&mut self, path: &Path) {
        match gone(path) {
            Ok(()) => {
                let path = path.display().to_string();
                self.removed.push(path.strip_suffix(REMOVING).unwrap_or(&path).to_owned());
            }
            Err(error) => {
                tracing::warn!(%error, "what was set aside could not be removed");
                self.failed.get_or_insert(error.into());
            }
        }
    }

    pub(crate) fn done(self) -> Result<Vec<String>, Failure> {
        match self.failed {
            Some(failure) if self.removed.is_empty() => Err(failure),
            _ => Ok(self.removed),
        }
    }
}

fn gone(path: &Path) -> Result<(), FileError> {
    let directory = meta(path)?.is_some_and(|meta| meta.is_dir());
    if !directory || is_being_removed(path) {
        return remove(path);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(REMOVING);
    let removing = PathBuf::from(name);
    rename_new(path, &removing)?;
    if let Some(parent) = path.parent() {
        sync(parent)?;
    }
    remove(&removing)
}

/// Whether its removal was begun, by its name.
pub(crate) fn is_being_removed(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(REMOVING.as_bytes())
}

/// Where something is mounted, as this process sees it.
fn mounts() -> Result<Vec<PathBuf>, FileError> {
    let path = Path::new("/proc/self/mountinfo");
    Ok(mount_points(&fs::read(path).trying("read", path)?))
}

fn mount_points(text: &[u8]) -> Vec<PathBuf> {
    let fifth = |line: &[u8]| Some(unescaped(line.split(|byte| *byte == b' ').nth(4)?));
    text.split(|byte| *byte == b'\n').filter_map(fifth).collect()
}

/// The kernel writes blanks, tabs, line feeds and backslashes as three octal digits behind a backslash.
fn unescaped(text: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (vec![], text);
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match (first, octal) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use ripcord_core::{AppId, Key, Name, RunId, Seq, StepId};

    use super::*;

    fn names(live: &str, place: &str) -> Names {
        let live = Live { path: live.into(), parent: "/srv".into(), name: live.into() };
        Names::new(&live, &Place::try_from(place.to_owned()).unwrap())
    }

    fn key(step: &str) -> String {
        let name = |text: &str| Name::new(text).unwrap();
        let app = AppId { application: name("shop"), environment: name("production") };
        Key::of(&app, &RunId::at(Seq(42)), &StepId(step.to_owned())).file_name()
    }

    #[test]
    fn names_of_ours_are_recognised() {
        let app = names("app", "code");
        let ours = |name: &str| app.switched(OsStr::new(name)).is_some();
        assert!(ours("app-failed-20261121T120000Z") && ours("app-failed-20261121T120000Z-0a1b2c3d"));
        let key = key("restore/code");
        assert!(ours(&format!("app.ripcord-{key}")) && ours(&format!("app.ripcord-{key}.part")));
        assert!(app.temporary(OsStr::new(&format!(".ripcord-{key}")), Sort::File).is_some());
        let since = app.switched(OsStr::new("app-failed-20261121T120000Z")).unwrap().since;
        assert_eq!(since, Some("2026-11-21T12:00:00Z".parse().unwrap()));
    }

    #[test]
    fn a_user_s_file_is_never_ours() {
        let app = names("app", "code");
        let key = key("restore/code");
        for name in [
            "app",
            "app-failed",
            "app-failed-",
            "app-failed-20261121",
            "app-failed-20261121T120000Z-notes",
            "app-failed-20261121T120000Z.tar",
            "app-failed-20261321T120000Z",
            "app-failed-20261121T120000",
            "my-app-failed-20261121T120000Z",
            "app2-failed-20261121T120000Z",
            "app.ripcord-",
            "app.ripcord-backup",
            "app.ripcord-restore-code-0a1b2c3",
            "app.ripcord-restore-code-0A1B2C3D",
            "app.ripcord-restore code-0a1b2c3d",
            &format!("app.ripcord-{key}.bak"),
            &format!("app.ripcord.{key}"),
            ".ripcord-restore-data-0a1b2c3d",
        ] {
            assert_eq!(app.switched(OsStr::new(name)), None, "{name}");
            assert_eq!(app.temporary(OsStr::new(name), Sort::File), None, "{name}");
        }
    }

    #[test]
    fn a_key_names_its_place() {
        let is = |place: &str, step: &str| names("x", place).is_key(&key(step));
        assert!(is("code", "restore/code") && is("code", "restore/code/2") && is("code", "capture/code"));
        assert!(is("code@web-1", "restore/code@web-1") && !is("code", "restore/code@web-1"));
        assert!(!is("code", "restore/data") && !is("ode", "restore/code"));
        let long = "n".repeat(63);
        assert!(
            is(&long, &format!("restore/{long}")) && !is(&long, "restore/n") && !is("n", &format!("restore/{long}"))
        );
    }

    #[test]
    fn both_the_name_and_the_file_system_must_say_that_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let live = Live::of(&dir.path().join("app")).unwrap();
        let past: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
        let future: Timestamp = "2200-01-01T00:00:00Z".parse().unwrap();
        let names = Names::new(&live, &Place::try_from("code".to_owned()).unwrap());
        for name in ["app-failed-20190101T000000Z", "app-failed-21990101T000000Z", "app-failed-22010101T000000Z"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let old = |before| Sweep::new(&live, before).unwrap().old(&live.parent, |name| names.switched(name)).unwrap();
        assert_eq!(old(past), Vec::<PathBuf>::new(), "old by its name, and made just now");
        let found: Vec<_> = old(future).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(found, ["app-failed-21990101T000000Z", "app-failed-20190101T000000Z"]);
    }

    #[test]
    fn what_the_live_name_leads_into_stays() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("app-failed-20190101T000000Z");
        fs::create_dir_all(kept.join("below")).unwrap();
        std::os::unix::fs::symlink(kept.join("below"), dir.path().join("app")).unwrap();
        let live = Live::of(&dir.path().join("app")).unwrap();
        let names = Names::new(&live, &Place::try_from("code".to_owned()).unwrap());
        let sweep = Sweep::new(&live, Timestamp::MAX).unwrap();
        assert_eq!(sweep.old(&live.parent, |name| names.switched(name)).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_removal_that_was_cut_short_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let live = Live::of(&dir.path().join("app")).unwrap();
        let names = Names::new(&live, &Place::try_from("code".to_owned()).unwrap());
        for name in ["app-failed-20190101T000000Z.removing", "app-failed-20190101T000000Z", "app.removing"] {
            fs::create_dir_all(dir.path().join(name).join("inside")).unwrap();
        }
        // It was decided once: that the removal itself touched it says nothing.
        let mut sweep = Sweep::new(&live, Timestamp::UNIX_EPOCH).unwrap();
        let old = sweep.old(&live.parent, |name| names.switched(name)).unwrap();
        sweep.remove_all(old, &Halt::default());
        let removed = sweep.done().unwrap();
        assert_eq!(removed, [live.parent.join("app-failed-20190101T000000Z").display().to_string()]);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["app-failed-20190101T000000Z", "app.removing"]);
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let text = b"36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n37 35 0:5 / /c\\134d rw - tmpfs x rw\n";
        assert_eq!(mount_points(text), [PathBuf::from("/mnt/a b"), PathBuf::from("/c\\d")]);
        assert!(mounts().unwrap().contains(&PathBuf::from("/")));
    }
}
