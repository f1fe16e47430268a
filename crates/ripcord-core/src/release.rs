//! Releases and the ledger of them: what was live when, how it turned out, and which one is the last known good.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{CaptureId, Digest, Place, ReleaseId, Revision, RunId};

/// A map from place to revision, recorded from what was observed to run, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub id: ReleaseId,
    pub version: String,
    pub origin: Origin,
    pub map: BTreeMap<Place, Recorded>,
    /// The configuration it was recorded under.
    pub config: Digest,
    pub verdict: Verdict,
    pub standing: Standing,
    pub at: Timestamp,
}

/// One place in a release: its revision, the words for it, and the capture that makes it restorable.
///
/// For a flowing place (a database) the revision is its restore point and the capture was taken just before the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    pub revision: Revision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureId>,
    /// Whether the place changes by use (data): then two releases at the same version may differ here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flowing: bool,
}

/// How a release came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// `ripcord deploy` ran a command around which the state was captured and observed.
    Deployed { command: Vec<String> },
    /// A person had the present state recorded.
    Observed,
    /// A completed run left the places in this state.
    Restored { run: RunId },
}

/// Whether a release is known to be good. Good comes only from a bake that had data, or from a person by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Undecided,
    Good { by: String, at: Timestamp },
    Bad { why: String, at: Timestamp },
}

/// Where a release stands in the life of its environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    Deploying,
    Live,
    Superseded,
    RolledBack {
        by: RunId,
    },
    /// The deployment did not end: what is out there was never verified to be this release.
    Interrupted,
}

/// A version nobody may deploy until a named person lifts it. It holds for the application, in every environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    pub version: String,
    pub why: String,
    pub at: Timestamp,
}

/// The releases of one application and environment in order of time, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub releases: Vec<Release>,
    pub quarantined: BTreeMap<String, Quarantine>,
}

impl Release {
    /// Whether every versioned place is at the same revision in both.
    pub fn same_state(&self, other: &Self) -> bool {
        let versioned = |r: &Self| -> BTreeMap<Place, Revision> {
            r.map.iter().filter(|(_, at)| !at.flowing).map(|(place, at)| (place.clone(), at.revision.clone())).collect()
        };
        self.version == other.version && versioned(self) == versioned(other)
    }
}

/// Why there is no release to go back to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    #[error("no release of this environment has been recorded")]
    NothingRecorded,
    #[error("no earlier release has baked to good: {}", seen(.passed_over))]
    NeverGood { passed_over: Vec<(String, String)> },
    #[error("`{typed}` names no recorded release")]
    Unknown { typed: String },
    #[error("`{version}` cannot be a target: {why}")]
    Unfit { version: String, why: String },
}

fn seen(passed_over: &[(String, String)]) -> String {
    match passed_over.is_empty() {
        true => "there is none before the live one".to_owned(),
        false => passed_over.iter().map(|(v, why)| format!("{v} ({why})")).collect::<Vec<_>>().join(", "),
    }
}

impl Ledger {
    /// The release that is out there now: live, or being put out.
    pub fn live(&self) -> Option<&Release> {
        self.releases
            .iter()
            .rev()
            .find(|r| matches!(r.standing, Standing::Live | Standing::Deploying | Standing::Interrupted))
    }

    pub fn find(&self, id: &ReleaseId) -> Option<&Release> {
        self.releases.iter().find(|r| r.id == *id)
    }

    /// The release a person means: by identity, by number, or the newest of that version.
    pub fn typed(&self, text: &str) -> Option<&Release> {
        self.find(&ReleaseId::typed(text)).or_else(|| self.releases.iter().rev().find(|r| r.version == text))
    }

    /// Returns the newest good release other than what is live now: never simply "the one before".
    ///
    /// `at` is the moment of the question: a release judged good only later does not count. A release of the live version
    /// or of a quarantined one is passed over. Whether its artefacts are still there is the survey's to say; see
    /// [`crate::plan()`].
    /// # Errors
    /// [`NoTarget`] lists each release passed over with the reason, newest first.
    pub fn last_known_good(&self, at: Timestamp) -> Result<&Release, NoTarget> {
        if self.releases.is_empty() {
            return Err(NoTarget::NothingRecorded);
        }
        let live = self.live();
        let mut passed_over = vec![];
        for release in self.releases.iter().rev() {
            if live.is_some_and(|live| live.id == release.id) {
                continue;
            }
            match self.unfit(release, live, at) {
                None => return Ok(release),
                Some(why) => passed_over.push((release.version.clone(), why)),
            }
        }
        Err(NoTarget::NeverGood { passed_over })
    }

    fn unfit(&self, release: &Release, live: Option<&Release>, at: Timestamp) -> Option<String> {
        if let Some(quarantine) = self.quarantined.get(&release.version) {
            return Some(format!("quarantined: {}", quarantine.why));
        }
        match &release.verdict {
            Verdict::Undecided => return Some("never judged good".to_owned()),
            Verdict::Bad { why, .. } => return Some(format!("bad: {why}")),
            Verdict::Good { at: judged, .. } if *judged > at => return Some("judged good only later".to_owned()),
            Verdict::Good { .. } => {}
        }
        if live.is_some_and(|live| live.same_state(release)) {
            return Some("it is what is live".to_owned());
        }
        None
    }

    /// The release a rollback goes to: what a person typed, or the last known good.
    ///
    /// A person may name a release that is not known good; never one that is quarantined.
    pub fn target(&self, typed: Option<&str>, at: Timestamp) -> Result<&Release, NoTarget> {
        let Some(text) = typed else { return self.last_known_good(at) };
        let release = self.typed(text).ok_or_else(|| NoTarget::Unknown { typed: text.to_owned() })?;
        match self.quarantined.get(&release.version) {
            Some(quarantine) => Err(NoTarget::Unfit {
                version: release.version.clone(),
                why: format!("it is quarantined: {}", quarantine.why),
            }),
            None => Ok(release),
        }
    }

    /// The captures that nothing may prune: those of the live release and of the last known good.
    pub fn pinned(&self, at: Timestamp) -> BTreeSet<CaptureId> {
        let releases = self.live().into_iter().chain(self.last_known_good(at).ok());
        releases.flat_map(|r| r.map.values().filter_map(|recorded| recorded.capture.clone())).collect()
    }
}
