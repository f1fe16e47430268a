//! Where the rows of a restore come from: the capture's dump, or the server's archive, by way of a server beside.
//!
//! The archive is taken where settings name a moment after the capture, where the capture holds no dump, and where its dump cannot
//! be read back or is not one. Either way there is a dump in the end, and what follows is the same.

use std::time::Duration;

use ripcord_core::{Before, Cx, Failure, Made, human};

use super::capture::Unpacked;
use super::facts::{About, Same};
use super::reach::{Reach, Route};
use super::{Desk, Postgres};

/// How long the archive is waited for to have what the server has still to bring.
const ARRIVES: Duration = Duration::from_secs(60);
/// What is copied and gone through in a second by a server beside.
const BYTES_A_SECOND: u64 = 30 << 20;

/// With the time there is to wait for the server's archiver.
pub(super) fn arriving(cx: &Cx) -> Reach {
    Reach::Whole { at_most: ARRIVES.min(cx.limit / 4) }
}

pub(super) enum Source {
    /// Read back, and its tables listed.
    Dump {
        dump: Unpacked,
        tables: usize,
    },
    Archive {
        route: Route,
        instead: Option<String>,
    },
}

/// A dump to restore from, what the restored database must have in common with the capture, and in words where it is from.
pub(super) struct Dumped {
    pub(super) dump: Unpacked,
    pub(super) same: Same,
    pub(super) from: Option<String>,
}

impl Source {
    /// What it takes beside restoring it.
    pub(super) fn takes(&self) -> Duration {
        match self {
            Self::Dump { .. } => Duration::ZERO,
            Self::Archive { route, .. } => recovering(route),
        }
    }

    /// What was seen of it without restoring it.
    pub(super) fn seen(&self) -> String {
        match self {
            Self::Dump { tables, .. } => format!("read back, {tables} tables listed"),
            Self::Archive { route, instead } => format!("{}the archive reaches {}", because(instead), went(route)),
        }
    }
}

/// What a recovery is reckoned to take.
pub(super) fn recovering(route: &Route) -> Duration {
    Duration::from_secs(2 + (route.base.bytes * 2 + route.wal_bytes()) / BYTES_A_SECOND)
}

fn went(route: &Route) -> String {
    format!("{} ({} MB of the log)", route.words(), route.wal_bytes() >> 20)
}

fn because(instead: &Option<String>) -> String {
    instead.as_ref().map_or(String::new(), |why| format!("the dump cannot be had ({why}); "))
}

impl Postgres {
    /// Finds out where the rows of a capture come from, and reads back or looks at all of it.
    pub(super) async fn source(
        &self,
        desk: &Desk,
        cx: &Cx,
        about: &About,
        made: &Made,
        name: &str,
    ) -> Result<Source, Failure> {
        let reach = arriving(cx);
        if self.by_archive(made) {
            let route = self.route(desk, about, made, reach).await?;
            self.fit(desk, about, &route, cx.limit).await?;
            return Ok(Source::Archive { route, instead: None });
        }
        let unpacking = async {
            let dump = self.unpacked(made, name).await?;
            let tables = self.listed(desk, about, &dump.0).await?;
            Ok::<_, Failure>(Source::Dump { dump, tables })
        };
        let failure = match unpacking.await {
            Ok(source) => return Ok(source),
            Err(failure) if self.archive.is_none() => return Err(failure),
            Err(failure) => failure,
        };
        let way = async {
            let route = self.route(desk, about, made, reach).await?;
            self.fit(desk, about, &route, cx.limit).await?;
            Ok::<_, Failure>(route)
        };
        match way.await {
            Ok(route) => Ok(Source::Archive { route, instead: Some(failure.what) }),
            Err(second) => {
                let what = format!("{}; and the archive is no way back: {}", failure.what, second.what);
                Err(Failure { what, advice: failure.advice.or(second.advice), ..failure })
            }
        }
    }

    /// A dump of what the source has.
    pub(super) async fn dump_of(
        &self,
        desk: &Desk,
        cx: &Cx,
        about: &About,
        source: Source,
        (name, before): (&str, &Before),
    ) -> Result<Dumped, Failure> {
        match source {
            Source::Dump { dump, .. } => Ok(Dumped { dump, same: Same::Rows, from: None }),
            Source::Archive { route, instead } => {
                let began = tokio::time::Instant::now();
                let dump = self.recovered(desk, cx, about, &route, name, &before.key).await?;
                self.listed(desk, about, &dump.0).await?;
                // A capture made while others wrote is of a moment a little before the position that was recorded with it.
                let same = if route.captured && about.quiet { Same::Rows } else { Same::Definitions };
                let took = human(began.elapsed());
                let from = format!("{}recovered to {} on a server beside, in {took}", because(&instead), went(&route));
                Ok(Dumped { dump, same, from: Some(from) })
            }
        }
    }
}
