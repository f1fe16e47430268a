//! The demonstration: a shop is deployed, goes bad, and is taken back, by the commands a user would type.
//!
//! Nothing here is staged: every step runs the `ripcord` program itself, in a directory laid out like a user's, against a real
//! server under load. What it prints of times and outcomes is read from the journal afterwards.

mod files; // what the directory holds: ripcord.yaml, deploy.sh
mod story; // the scenarios, step by step
mod told; // what is shown of it

use std::path::PathBuf;
use std::str::FromStr;

pub use story::run;
pub use told::{Line, Summary};

/// Which story is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// A release with a fault: the toggle is insufficient, code and configuration go back.
    Release,
    /// A release that corrupts data: the database is restored from its capture, what is lost is counted and salvaged.
    Data,
}

impl FromStr for Scenario {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "release" => Ok(Self::Release),
            "data" => Ok(Self::Data),
            other => Err(format!("there is no scenario `{other}`: `release` or `data`")),
        }
    }
}

/// How the demonstration is to be run.
#[derive(Debug, Clone)]
pub struct DemoArgs {
    /// The `ripcord` program to demonstrate.
    pub exe: PathBuf,
    pub scenario: Scenario,
    /// Leaves everything running, in this directory.
    pub keep: Option<PathBuf>,
}

/// Why the demonstration could not be given.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Shop(#[from] crate::shop::ShopError),
    #[error(transparent)]
    Load(#[from] crate::load::LoadError),
    #[error("{what} `{path}`")]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("`{command}` could not be started")]
    NotStarted { command: String, source: std::io::Error },
    /// A step of the story came out otherwise than it should: the output says why.
    #[error("`{command}` ended with {code}, and {expected} was expected")]
    Unexpected { command: String, code: String, expected: String },
    #[error("`{0}` is not empty: choose a directory that is")]
    NotEmpty(PathBuf),
    #[error("the journal cannot be read: {0}")]
    Record(String),
    #[error("interrupted; everything was stopped and removed")]
    Interrupted,
}
