//! A server's archive on this machine: base backups, and the segments of the write-ahead log that its `archive_command` puts into a
//! directory; and whether the two of them reach a moment.
//!
//! A base backup tells by its own files what it is of and from where to where it needs the log, so nothing has to be configured
//! about it and nothing is guessed from names or times.
//! Source: PostgreSQL manual, "Backup Manifest Format" (`WAL-Ranges`); `pg_control.h` (a control file begins with the system's
//! identifier); `xlog_internal.h` (how segments are named).

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ripcord_config::Mistake;
use ripcord_config::wire::Text;
use ripcord_core::Failure;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::components::files::{FileError, Trying};

/// What a capture holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Holding {
    /// A dump; the archive is a second way back.
    #[default]
    Dump,
    /// A point in the archive and no dump: for databases that take too long to be dumped at every release.
    Point,
}

/// A server's archive, on the machine that Ripcord or its agent runs on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ArchiveSettings {
    /// The directory that the server's `archive_command` copies finished segments of the write-ahead log into, as they are and under
    /// their own names.
    pub directory: PathBuf,
    /// The directory of base backups: each a directory that `pg_basebackup --format=plain` made, with its `backup_manifest`.
    pub bases: PathBuf,
    /// An empty directory where a throw-away server is made for as long as a recovery takes: as much room as a base backup.
    pub side: PathBuf,
    /// Whether captures hold a `dump` (the default), or only a `point` in the archive.
    #[serde(default)]
    pub captures: Holding,
    /// Restores go on to this moment after the capture: a time (`2026-11-21T13:49:59Z`) or a position in the write-ahead log
    /// (`0/3000060`). Take it out again once it is done.
    #[serde(default)]
    pub until: Option<Text>,
}

impl ArchiveSettings {
    pub(super) fn check(&self, at: &str) -> Vec<Mistake> {
        let wrong = self.until.as_ref().filter(|until| Moment::parse(until.as_str()).is_none());
        let mistake = |until: &Text| {
            Mistake::new(format!("`{until}` is neither a time nor a position"))
                .at(format!("{at}.until"))
                .help("write `2026-11-21T13:49:59Z`, with its offset from UTC, or `0/3000060`")
        };
        wrong.map(mistake).into_iter().collect()
    }
}

/// A moment that a database can be recovered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before whatever begins at this position.
    At(Lsn),
    /// With what was committed up to this time.
    Time(Timestamp),
}

impl Moment {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Lsn::parse(text).map(Self::At).or_else(|| text.parse().ok().map(Self::Time))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(lsn) => write!(f, "LSN {lsn}"),
            Self::Time(at) => write!(f, "{at}"),
        }
    }
}

/// A position in the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lsn(pub(super) u64);

impl Lsn {
    /// `16/B374D848`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let half = |text: &str| {
            let plain = (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        Some(Self(half(high)? << 32 | half(low)?))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A timeline's log, cut into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) timeline: u32,
    pub(super) segment_bytes: u64,
}

impl Log {
    pub(super) fn segment(self, at: Lsn) -> u64 {
        at.0 / self.segment_bytes
    }

    pub(super) fn name(self, segment: u64) -> String {
        let per = (1 << 32) / self.segment_bytes;
        format!("{:08X}{:08X}{:08X}", self.timeline, segment / per, segment % per)
    }

    /// The number of a segment of this timeline by its file's name.
    pub(super) fn number(self, name: &str) -> Option<u64> {
        let part = |at: usize| u64::from_str_radix(name.get(at..at + 8)?, 16).ok();
        let number = part(8)? * ((1 << 32) / self.segment_bytes) + part(16)?;
        (name.len() == 24 && part(0)? == u64::from(self.timeline)).then_some(number)
    }

    /// The first of these segments that the directory does not have whole.
    pub(super) fn gap(self, directory: &Path, mut segments: std::ops::RangeInclusive<u64>) -> Option<u64> {
        segments.find(|segment| !self.has(directory, *segment))
    }

    pub(super) fn has(self, directory: &Path, segment: u64) -> bool {
        // One that is still being copied is shorter.
        fs::metadata(directory.join(self.name(segment))).is_ok_and(|is| is.is_file() && is.len() == self.segment_bytes)
    }
}

/// A base backup, as its own files tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) path: PathBuf,
    /// The identifier of the system it is of, as the server prints it.
    pub(super) system: String,
    pub(super) major: u32,
    pub(super) timeline: u32,
    /// What it needs of the log to be consistent.
    pub(super) start: Lsn,
    pub(super) end: Lsn,
    pub(super) bytes: u64,
}

/// What is read of a manifest; a base's own program checks the rest of it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    files: Vec<Listed>,
    #[serde(rename = "WAL-Ranges")]
    ranges: Vec<Range>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Range {
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

impl Base {
    /// Reads what a directory with a manifest is.
    fn read(path: &Path) -> Result<Self, String> {
        let read = |name: &str| fs::read(path.join(name)).map_err(|error| format!("`{name}` cannot be read: {error}"));
        let manifest: Manifest = serde_json::from_slice(&read("backup_manifest")?)
            .map_err(|error| format!("`backup_manifest` cannot be read: {error}"))?;
        let [range] = manifest.ranges.as_slice() else {
            return Err("it was made while the timeline changed".to_owned());
        };
        let lsn = |text: &str| Lsn::parse(text).ok_or_else(|| format!("`{text}` in `backup_manifest` is no position"));
        let (start, end) = (lsn(&range.start)?, lsn(&range.end)?);
        read("backup_label")?;
        let version = String::from_utf8(read("PG_VERSION")?).unwrap_or_default();
        let major = version.trim().parse().map_err(|_| "`PG_VERSION` is no version".to_owned())?;
        let links = fs::read_dir(path.join("pg_tblspc")).map_err(|error| format!("`pg_tblspc`: {error}"))?;
        if links.count() > 0 {
            return Err("it has tablespaces of its own, which a server beside would share with the live one".to_owned());
        }
        let mut system = [0; 8];
        let control = path.join("global/pg_control");
        File::open(control)
            .and_then(|mut file| file.read_exact(&mut system))
            .map_err(|error| format!("`global/pg_control` cannot be read: {error}"))?;
        Ok(Self {
            path: path.to_owned(),
            system: i64::from_ne_bytes(system).to_string(),
            major,
            timeline: range.timeline,
            start,
            end,
            bytes: manifest.files.iter().map(|file| file.size).sum(),
        })
    }

    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().display().to_string()
    }

    /// Why it cannot be the beginning of a recovery; none where it can.
    fn unfit(&self, want: &Wanted<'_>) -> Option<String> {
        if self.system != want.system {
            return Some(format!("it is of another cluster (system {})", self.system));
        }
        if self.major != want.major {
            return Some(format!("it is of PostgreSQL {}", self.major));
        }
        if self.timeline != want.timeline {
            return Some(format!("it is of timeline {}", self.timeline));
        }
        (self.end > want.by).then(|| format!("it ended at {}, after that", self.end))
    }
}

/// What a base backup has to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) system: &'a str,
    pub(super) major: u32,
    pub(super) timeline: u32,
    /// The last position it may have ended at.
    pub(super) by: Lsn,
}

/// The newest base backup below `bases` that ended in time.
pub(super) fn choose(bases: &Path, want: &Wanted<'_>) -> Result<Base, Failure> {
    let mut unfit = vec![];
    let mut best: Option<Base> = None;
    for path in with_manifest(bases)? {
        let base = match Base::read(&path) {
            Ok(base) => base,
            Err(why) => {
                unfit.push(format!("`{}`: {why}", path.file_name().unwrap_or_default().display()));
                continue;
            }
        };
        match base.unfit(want) {
            Some(why) => unfit.push(format!("`{}`: {why}", base.name())),
            None if best.as_ref().is_none_or(|best| best.end < base.end) => best = Some(base),
            None => {}
        }
    }
    best.ok_or_else(|| {
        unfit.sort();
        let found = if unfit.is_empty() { "there is none".to_owned() } else { unfit.join("; ") };
        let (place, Wanted { major, timeline, by, .. }) = (bases.display(), want);
        let what = format!(
            "no base backup of PostgreSQL {major}, timeline {timeline}, that ended by {by} is in {place} ({found})"
        );
        Failure::never(what).advise(
            "make one with `pg_basebackup --format=plain`, so that there is one for the releases to come; for this one, bring \
             back an older base backup, or choose a later capture",
        )
    })
}

fn with_manifest(bases: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut found = vec![];
    for entry in fs::read_dir(bases).trying("list", bases)? {
        let path = entry.trying("list", bases)?.path();
        if path.join("backup_manifest").is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Log = Log { timeline: 3, segment_bytes: 16 << 20 };

    #[test]
    fn segments_are_named_as_the_server_names_them() {
        let at = Lsn::parse("16/B374D848").unwrap();
        assert_eq!(at.to_string(), "16/B374D848");
        assert_eq!(LOG.name(LOG.segment(at)), "0000000300000016000000B3");
        assert_eq!(LOG.number("0000000300000016000000B3"), Some(LOG.segment(at)));
        assert_eq!(LOG.number("0000000200000016000000B3"), None, "another timeline's");
        assert_eq!(LOG.number("00000003.history"), None);
        let large = Log { segment_bytes: 1 << 30, ..LOG };
        assert_eq!(large.name(large.segment(at)), "000000030000001600000002");
    }

    #[test]
    fn a_moment_is_a_time_with_its_offset_or_a_position() {
        assert_eq!(Moment::parse("0/3000060"), Some(Moment::At(Lsn(0x300_0060))));
        assert!(matches!(Moment::parse("2026-11-21T13:49:59+01:00"), Some(Moment::Time(_))));
        for wrong in ["", "0/", "/0", "0/123456789", "+1/2", "yesterday", "2026-11-21 13:49:59"] {
            assert_eq!(Moment::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_segment_that_is_not_whole_is_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log { timeline: 1, segment_bytes: 1 << 20 };
        for segment in 1..=3 {
            fs::write(dir.path().join(log.name(segment)), vec![0; 1 << 20]).unwrap();
        }
        assert_eq!(log.gap(dir.path(), 1..=3), None);
        assert_eq!(log.gap(dir.path(), 1..=4), Some(4));
        fs::write(dir.path().join(log.name(2)), "half").unwrap();
        assert_eq!(log.gap(dir.path(), 1..=3), Some(2));
    }
}
