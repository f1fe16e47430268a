//! Whether the archive reaches a moment: asked before anything is begun, and answered with the file that is lacking.
//!
//! What a recovery needs is one base backup of the same cluster that ended before the moment, and every segment of the log from
//! the backup's start to the moment, on one timeline. The segment that the server is still writing comes into the archive when it is
//! switched, which we ask for and wait to see.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Failure, Made};
use tokio::time::Instant;

use super::archive::{self, ArchiveSettings, Base, Holding, Log, Lsn, Moment, Wanted};
use super::facts::{About, DUMP};
use super::{Desk, Postgres};
use crate::BuildCx;
use crate::components::files::{blocking, captures, point};
use crate::components::tool::poll;
use crate::postgres::PgError;

/// How far behind its server an archive is before that is said: the segment being written and the one being copied are none.
const BEHIND: u64 = 3;
/// Beyond the position itself: to stop there, the server reads what comes next.
const NEXT: u64 = 8 << 10;

/// An archive, as settings name it, with its places resolved.
#[derive(Debug, Clone)]
pub(super) struct Archive {
    pub(super) directory: PathBuf,
    pub(super) bases: PathBuf,
    pub(super) side: PathBuf,
    pub(super) captures: Holding,
    pub(super) until: Option<Moment>,
}

impl Archive {
    pub(super) fn new(settings: &ArchiveSettings, cx: &BuildCx) -> Self {
        Self {
            directory: cx.base.join(&settings.directory),
            bases: cx.base.join(&settings.bases),
            side: cx.base.join(&settings.side),
            captures: settings.captures,
            until: settings.until.as_ref().and_then(|until| Moment::parse(until.as_str())),
        }
    }
}

/// A way to a moment, with everything that it needs seen in its place.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) base: Base,
    pub(super) moment: Moment,
    pub(super) log: Log,
    /// The first and the last segment.
    pub(super) segments: (u64, u64),
    /// Whether it leads to the very moment of the capture, and not to a later one.
    pub(super) captured: bool,
}

impl Route {
    pub(super) fn wal_bytes(&self) -> u64 {
        (self.segments.1 + 1 - self.segments.0) * self.log.segment_bytes
    }

    /// The same however much was written since, so that a plan that says it stays the same.
    pub(super) fn words(&self) -> String {
        format!("{} from base backup `{}` and the archive", self.moment, self.base.name())
    }
}

/// Whether the server may be asked for what it has not archived yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Only looked at: what is still being written is taken to come.
    Look,
    /// Asked for, and waited for.
    Whole { at_most: Duration },
}

/// What the server says of its archiving.
struct Archiver {
    log: Log,
    now: Lsn,
    at: Timestamp,
    /// The newest segment of this timeline that it archived, where it knows.
    last: Option<u64>,
    /// Whether it archives at all; what it does not have yet may come.
    archives: bool,
    /// What is wrong with its archiving.
    trouble: Option<String>,
}

impl Postgres {
    /// Whether restores of a capture go through the archive, whatever else there is.
    pub(super) fn by_archive(&self, made: &Made) -> bool {
        self.archive.as_ref().is_some_and(|archive| archive.until.is_some()) || is_point(made)
    }

    pub(super) fn with_archive(&self) -> Result<&Archive, Failure> {
        self.archive.as_ref().ok_or_else(|| {
            Failure::never("the capture holds no dump, and no `archive` is configured")
                .advise("name the server's archive under `archive`, or choose another capture")
        })
    }

    /// The way to a capture, or beyond it to the moment that settings name.
    pub(super) async fn route(&self, desk: &Desk, about: &About, made: &Made, reach: Reach) -> Result<Route, Failure> {
        let until = self.with_archive()?.until;
        let captured = captures::manifest(made)?.at;
        self.way_to(desk, about, until.map(|until| (until, captured)), reach).await
    }

    /// The way to the position that is recorded, or to a moment after it and after the time of the capture.
    pub(super) async fn way_to(
        &self,
        desk: &Desk,
        about: &About,
        until: Option<(Moment, Timestamp)>,
        reach: Reach,
    ) -> Result<Route, Failure> {
        let archive = self.with_archive()?;
        if desk.system.standby {
            return Err(Failure::never("the server is a standby, which has no log of its own")
                .advise("name the primary in `connection`"));
        }
        if desk.system.major() < 13 {
            return Err(Failure::never(format!("the server is PostgreSQL {}", desk.system.major()))
                .advise("recovery to a moment needs PostgreSQL 13 or newer"));
        }
        if about.system != desk.system.identifier {
            return Err(Failure::never("the capture is of another cluster, whose log this archive does not have")
                .advise("choose a capture that holds a dump"));
        }
        let point = Lsn::parse(&about.lsn)
            .ok_or_else(|| Failure::never(format!("the capture's position `{}` cannot be read", about.lsn)))?;
        let server = archiver(desk, &archive.directory).await?;
        let moment = until.map_or(Moment::At(point), |(moment, _)| moment);
        if let Some((moment, captured)) = until {
            within_reach(moment, (point, captured), about, &server)?;
        }
        let by = if let Moment::At(at) = moment { at } else { point };
        let log = Log { timeline: about.timeline.unsigned_abs(), ..server.log };
        let (bases, system, major) =
            (archive.bases.clone(), about.system.clone(), about.server.unsigned_abs() / 10_000);
        let base =
            blocking(move |_| archive::choose(&bases, &Wanted { system: &system, major, timeline: log.timeline, by }));
        let base = base.await??;
        let first = log.segment(base.start);
        let mut last = match moment {
            Moment::At(at) => log.segment(Lsn(at.0 + NEXT)),
            Moment::Time(_) => log.segment(server.now),
        };
        if log == server.log {
            match reach {
                // What the server has not archived yet, it will.
                Reach::Look => last = last.min(server.last.unwrap_or(last)).max(first),
                Reach::Whole { at_most } => {
                    last = self.closed(desk, archive, &server, moment, last, at_most).await?;
                }
            }
        }
        let directory = archive.directory.clone();
        let gap = blocking(move |_| log.gap(&directory, first..=last)).await?;
        if let Some(gap) = gap {
            return Err(lacking(archive, log, gap, &base, server.trouble.as_deref()));
        }
        Ok(Route { base, moment, log, segments: (first, last), captured: until.is_none() })
    }

    /// Sees that what is needed of the log is in the archive, and returns the last segment of it.
    async fn closed(
        &self,
        desk: &Desk,
        archive: &Archive,
        server: &Archiver,
        moment: Moment,
        last: u64,
        at_most: Duration,
    ) -> Result<u64, Failure> {
        // To stop at a time, the server must come upon something that was committed later.
        let timed = matches!(moment, Moment::Time(_));
        if !timed && server.log.has(&archive.directory, last) {
            return Ok(last);
        }
        let mut last = last;
        if timed || server.log.segment(server.now) <= last {
            point("switch");
            if let Some(ended) = switched(desk).await? {
                let ended = server.log.segment(Lsn(ended.0.saturating_sub(1)));
                last = if timed { ended } else { ended.min(last) };
            }
        }
        let arrived = || async {
            match server.log.has(&archive.directory, last) {
                true => Ok(()),
                false => Err(()),
            }
        };
        // A gap further back is found at once; only what the server has still to bring is waited for.
        if server.archives && server.last.is_none_or(|archived| archived < last) {
            let _ = poll(Instant::now() + at_most, arrived).await;
        }
        Ok(last)
    }

    /// What is wrong with the archiving of the server, for people; none where nothing is.
    pub(super) async fn archive_trouble(&self, desk: &Desk) -> Option<String> {
        let archive = self.archive.as_ref().filter(|_| !desk.system.standby)?;
        let server = match archiver(desk, &archive.directory).await {
            Ok(server) => server,
            Err(error) => return Some(error.to_string()),
        };
        if !archive.side.is_dir() {
            return Some(format!(
                "{} is no directory, and a server beside would be made in it",
                archive.side.display()
            ));
        }
        let (bases, system, major) = (archive.bases.clone(), desk.system.identifier.clone(), desk.system.major());
        let want = (server.log.timeline, server.now);
        let base = blocking(move |_| {
            archive::choose(&bases, &Wanted { system: &system, major, timeline: want.0, by: want.1 }).err()
        });
        server.trouble.or(base.await.ok().flatten().map(|failure| failure.what))
    }
}

/// Whether a capture holds no dump.
pub(super) fn is_point(made: &Made) -> bool {
    captures::manifest(made).is_ok_and(|manifest| !manifest.entries.iter().any(|entry| entry.path == DUMP))
}

/// Refuses a moment that settings name and that the archive cannot have, or that is not after the capture: one that was left in
/// the settings from another day must not be taken for today's.
fn within_reach(
    moment: Moment,
    (point, captured): (Lsn, Timestamp),
    about: &About,
    server: &Archiver,
) -> Result<(), Failure> {
    let (early, late) = match moment {
        Moment::At(at) => (at < point, at > server.now),
        Moment::Time(at) => (at < captured, at >= server.at),
    };
    if early {
        let what = format!("`archive.until` ({moment}) is before the capture (LSN {point}, {captured})");
        return Err(Failure::never(what).advise("choose an older capture, or take `until` out of the settings"));
    }
    if late {
        let what =
            format!("`archive.until` ({moment}) is not there yet: the server is at LSN {}, {}", server.now, server.at);
        return Err(Failure::never(what).advise("name a moment that has passed, by the server's clock"));
    }
    if about.timeline.unsigned_abs() != server.log.timeline {
        let (was, is) = (about.timeline, server.log.timeline);
        let what = format!("the server has gone from timeline {was} to {is} since the capture");
        return Err(Failure::never(what)
            .advise("choose a capture made since, or take `until` out and go back to the capture itself"));
    }
    Ok(())
}

fn lacking(archive: &Archive, log: Log, gap: u64, base: &Base, trouble: Option<&str>) -> Failure {
    let name = log.name(gap);
    let mut what = format!(
        "the archive has a gap: {} lacks {name}, which a recovery from base backup `{}` needs",
        archive.directory.display(),
        base.name()
    );
    let packed = ["gz", "zst", "lz4", "bz2", "xz", "partial"].map(|end| format!("{name}.{end}"));
    if let Some(found) = packed.iter().find(|packed| archive.directory.join(packed).exists()) {
        what = format!("{what} (there is {found}, which is not read)");
    } else if archive.directory.join(&name).exists() {
        what = format!("{what} (what is there under that name is not whole)");
    }
    if let Some(trouble) = trouble {
        what = format!("{what}; {trouble}");
    }
    Failure::never(what).advise(
        "bring that file back from wherever it was copied to, or make a new base backup for the releases to come",
    )
}

/// Has the server commit something that changes nothing, and begin a new segment, so that the one with everything so far is
/// archived; where it ended. None where we may not ask for it: then it comes when it is full, or after `archive_timeout`.
pub(super) async fn switched(desk: &Desk) -> Result<Option<Lsn>, PgError> {
    desk.control.query_one("SELECT txid_current()", &[]).await?;
    match desk.control.query_one("SELECT pg_switch_wal()::text", &[]).await.map_err(PgError::from) {
        Ok(row) => Ok(Lsn::parse(row.try_get::<_, String>(0)?.as_str())),
        Err(error) if error.code() == Some("42501") => Ok(None),
        Err(error) => Err(error),
    }
}

async fn archiver(desk: &Desk, directory: &Path) -> Result<Archiver, PgError> {
    let question = "SELECT pg_current_wal_insert_lsn()::text, pg_walfile_name(pg_current_wal_insert_lsn()), \
             (SELECT setting::int8 FROM pg_settings WHERE name = 'wal_segment_size'), \
             (extract(epoch FROM clock_timestamp()) * 1000)::int8, current_setting('archive_mode') = 'off', \
             coalesce(current_setting('archive_command', true), '') = '' \
                 AND coalesce(current_setting('archive_library', true), '') = '', \
             last_archived_wal, last_failed_wal, \
             coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) \
         FROM pg_stat_archiver";
    let row = desk.control.query_one(question, &[]).await?;
    let (now, file): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let odd = |what: &str| PgError::Odd { why: format!("{what} is no position") };
    let now = Lsn::parse(&now).ok_or_else(|| odd(&now))?;
    let timeline = file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(|| odd(&file))?;
    let segment_bytes = row.try_get::<_, i64>(2)?.unsigned_abs();
    if !segment_bytes.is_power_of_two() || segment_bytes > 1 << 32 {
        return Err(PgError::Odd { why: format!("{segment_bytes} is no size of a segment") });
    }
    let at = Timestamp::from_millisecond(row.try_get(3)?).map_err(|error| PgError::Odd { why: error.to_string() })?;
    let log = Log { timeline, segment_bytes };
    let newest: Option<String> = row.try_get(6)?;
    let last = newest.as_deref().and_then(|name| log.number(name.get(..24)?));
    let failing = match (row.try_get::<_, bool>(8)?, row.try_get::<_, Option<String>>(7)?) {
        (true, Some(wal)) => Some(format!("`archive_command` fails: {wal} is not archived; see the server's log")),
        _ => None,
    };
    let (off, empty) = (row.try_get(4)?, row.try_get(5)?);
    let trouble = match (off, empty) {
        (true, _) => Some("the server does not archive its log (`archive_mode` is off)".to_owned()),
        (_, true) => Some("the server does not archive its log (`archive_command` is empty)".to_owned()),
        _ => failing.or_else(|| amiss(log, now, last, directory)),
    };
    Ok(Archiver { log, now, at, last, archives: !off && !empty, trouble })
}

fn amiss(log: Log, now: Lsn, last: Option<u64>, directory: &Path) -> Option<String> {
    let last = last?;
    if log.segment(now).saturating_sub(last) > BEHIND {
        return Some(format!("the archive is more than {BEHIND} segments behind the server"));
    }
    (!log.has(directory, last)).then(|| {
        let (name, place) = (log.name(last), directory.display());
        format!("the server archived {name}, and {place} does not have it: it copies it to another place")
    })
}
