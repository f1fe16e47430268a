//! How a deployment ended.

use ripcord_core::{End, ReleaseId, RunId};
use ripcord_engine::Deployed;
use serde::Serialize;

use crate::exit::Exit;
use crate::screen::{BAD, GOOD, View, WARN, paint};
use crate::words;

#[derive(Debug, Serialize)]
pub struct DeployedView {
    pub version: String,
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Good,
    Undecided,
    Refused,
    CommandFailed,
    Interrupted,
    RolledBack,
    /// A rollback is planned, and waits for somebody's yes.
    NeedsApproval,
    NeedsPerson,
}

impl DeployedView {
    /// `waits`: whether the run that was proposed waits for an answer.
    pub fn of(version: &str, deployed: &Deployed, waits: bool) -> Self {
        let (outcome, release, run, why) = match deployed.clone() {
            Deployed::Good { release } => (Outcome::Good, Some(release), None, None),
            Deployed::Undecided { release, why } => (Outcome::Undecided, Some(release), None, Some(why)),
            Deployed::Refused { why } => (Outcome::Refused, None, None, Some(why)),
            Deployed::CommandFailed { why } => (Outcome::CommandFailed, None, None, Some(why)),
            Deployed::Interrupted { release, why } => (Outcome::Interrupted, Some(release), None, Some(why)),
            Deployed::RolledBack { release, run, end: End::Succeeded } => {
                (Outcome::RolledBack, Some(release), Some(run), None)
            }
            // It was taken back in part, or not at all.
            Deployed::RolledBack { release, run, end } => {
                let why = format!("its rollback is over: {}", words::ended(&end));
                (Outcome::NeedsPerson, Some(release), Some(run), Some(why))
            }
            Deployed::NeedsPerson { release, run, why } => {
                let outcome = if waits { Outcome::NeedsApproval } else { Outcome::NeedsPerson };
                (outcome, Some(release), run, Some(why))
            }
        };
        Self { version: version.to_owned(), outcome, release, run, why }
    }

    pub fn exit(&self) -> Exit {
        match self.outcome {
            Outcome::Good => Exit::Done,
            Outcome::Undecided | Outcome::CommandFailed => Exit::CheckFailed,
            Outcome::Refused | Outcome::NeedsApproval => Exit::Refused,
            Outcome::Interrupted | Outcome::NeedsPerson => Exit::Parked,
            Outcome::RolledBack => Exit::RolledBack,
        }
    }

    /// The next command to type.
    pub fn next(&self) -> Option<String> {
        let version = &self.version;
        match (self.outcome, &self.run) {
            (Outcome::Good, _) => None,
            (Outcome::Undecided, _) => {
                Some(format!("`ripcord release mark {version} --good --why ..` judges it; triggers and checks would"))
            }
            (Outcome::Refused, _) => {
                Some("`ripcord release list` shows what is kept out, `ripcord status` what is under way".to_owned())
            }
            (Outcome::CommandFailed, _) => None,
            (Outcome::Interrupted, _) => {
                Some("`ripcord check --live` looks; `ripcord rollback` takes it back".to_owned())
            }
            (Outcome::RolledBack, Some(run)) => Some(format!("`ripcord report {run}` writes the report")),
            (Outcome::NeedsApproval, Some(run)) => {
                Some(format!("`ripcord plan {run}` shows it; `ripcord approve {run}` or `ripcord decline {run}`"))
            }
            (Outcome::RolledBack | Outcome::NeedsApproval | Outcome::NeedsPerson, _) => {
                Some("`ripcord status` shows what is needed".to_owned())
            }
        }
    }
}

impl View for DeployedView {
    fn text(&self) -> String {
        let release = self.release.as_ref().map(|release| format!(" ({release})")).unwrap_or_default();
        let state = match self.outcome {
            Outcome::Good => paint(GOOD, "is live and good"),
            Outcome::Undecided => paint(WARN, "is live, and cannot be called good"),
            Outcome::Refused => paint(BAD, "was not deployed"),
            Outcome::CommandFailed => paint(BAD, "was not deployed: its command failed, and everything is as it was"),
            Outcome::Interrupted => paint(BAD, "was deployed half way"),
            Outcome::RolledBack => paint(BAD, "went bad and was taken back"),
            Outcome::NeedsApproval => paint(BAD, "went bad, and waits for a yes to be taken back"),
            Outcome::NeedsPerson => paint(BAD, "went bad, and needs a person"),
        };
        let why = self.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        format!("{}{release} {state}{why}", self.version)
    }
}
