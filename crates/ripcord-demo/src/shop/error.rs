//! What can go wrong in the shop. One enum: its commands are few and all end at the same printer.
use crate::load::LoadError;
use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShopError {
    /// The person's mistake; the usage text helps.
    #[error("{why}")]
    Usage { why: String },
    #[error("cannot {doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "`{version}` cannot name a release: use letters, digits and `.-+_`, at most 64, not starting with `.` or `-`"
    )]
    BadVersion { version: String },
    #[error("release `{version}` does not exist in {}", releases.display())]
    NoRelease { version: String, releases: PathBuf },
    #[error("{} does not describe a release", path.display())]
    BadRelease {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{} already holds a shop", dir.display())]
    AlreadyLaidOut { dir: PathBuf },
    #[error("{} sets no ADMIN_TOKEN of at least {at_least} characters", path.display())]
    NoToken { path: PathBuf, at_least: usize },
    #[error("{} does not hold the shop's flags", path.display())]
    BadFlags {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot use the orders database {}", path.display())]
    Database {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("cannot listen on 127.0.0.1:{port}")]
    Listen {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("release `{version}` cannot start: checkout module missing")]
    ReleaseCrashes { version: String },
    #[error("a shop already runs in {}", dir.display())]
    AlreadyRuns { dir: PathBuf },
    #[error("the shop in {} runs on port {runs_on}, not {asked}: stop it first", dir.display())]
    RunsElsewhere { dir: PathBuf, runs_on: u16, asked: u16 },
    #[error("the shop in {} ended while starting ({status}); it said: {said}", dir.display())]
    EndedAtStart { dir: PathBuf, status: String, said: String },
    #[error("the shop in {} did not answer within {waited_ms} ms and was stopped again; it said: {said}", dir.display())]
    SilentAtStart { dir: PathBuf, waited_ms: u128, said: String },
    #[error("process {pid} of the shop in {} does not end, even when killed", dir.display())]
    DoesNotEnd { dir: PathBuf, pid: i32 },
    #[error("cannot signal process {pid}")]
    Signal {
        pid: i32,
        #[source]
        source: io::Error,
    },
    #[error("the server failed")]
    Server {
        #[source]
        source: io::Error,
    },
    #[error("load on the shop failed")]
    Load(#[from] LoadError),
}

impl ShopError {
    /// Names what was tried on which file; for `map_err`.
    pub(super) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }
}
