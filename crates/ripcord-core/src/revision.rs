//! What a place is at, what it can go to, and what it would lose: the answers of a survey.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{CaptureId, Digest, Place};

/// The identity of a state: an image id, a commit, a content hash, a migration head, a restore point.
///
/// For equality only; what people read is the label beside it. Of a file that may hold secrets it is a keyed hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevisionId(pub String);

/// The state of a place. That nothing is there is a state too: a rollback may have to remove what a release added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revision {
    Absent,
    Exact(RevisionId),
}

impl Revision {
    pub fn exact(id: impl Into<String>) -> Self {
        Self::Exact(RevisionId(id.into()))
    }

    /// At most 19 characters for a line of a table; never compared.
    pub fn short(&self) -> String {
        match self {
            Self::Absent => "(absent)".to_owned(),
            Self::Exact(RevisionId(id)) => {
                let (prefix, digits) = id.split_once(':').map_or(("", id.as_str()), |(p, d)| (p, d));
                let digits: String = digits.chars().take(12).collect();
                if prefix.is_empty() { digits } else { format!("{prefix}:{digits}") }
            }
        }
    }
}

/// What was seen when a place was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    At(Revision),
    /// Neither one nor another: half switched, locally modified, parts that differ.
    Between {
        why: String,
    },
    /// The place did not answer, so nothing is known of it.
    Unreachable {
        why: String,
    },
}

impl Seen {
    pub fn revision(&self) -> Option<&Revision> {
        match self {
            Self::At(revision) => Some(revision),
            Self::Between { .. } | Self::Unreachable { .. } => None,
        }
    }
}

/// What an outside system is, whatever it is called in a configuration: database system identifier, device and inode, engine id
/// and project. Two configurations that name the same thing differently meet at the same lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetId(pub String);

/// A revision somebody may want to go to, and the capture that is said to hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub revision: Revision,
    pub capture: Option<CaptureId>,
}

/// Whether a wanted revision can be had, checked and not assumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Available {
    /// `how` says where it comes from (`release directory releases/v1.0.0`, `capture cap-12, read back`).
    Here {
        how: String,
    },
    Missing {
        why: String,
    },
}

/// Rows of one table that going back would lose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowLoss {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

impl RowLoss {
    pub fn total(self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}

/// How long a person may take from reading a plan to its restore, before what they consented to must be asked anew.
const HEADROOM: Duration = Duration::from_secs(15 * 60);
/// Changes that are always allowed for: the rate of a quiet table says little.
const FEW: u64 = 100;

fn two_digits_up(count: u64) -> u64 {
    let unit = 10u64.pow(count.max(1).ilog10().saturating_sub(1));
    count.div_ceil(unit) * unit
}

/// What a plan would give up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// By place and table.
    pub rows: BTreeMap<String, RowLoss>,
    /// Changes made after this moment are what is lost.
    pub since: Option<Timestamp>,
    /// What is lost that is not counted in rows (`in-memory state`, `files written since`).
    pub other: Vec<String>,
    /// How the figures were found (`compared with the capture row by row`, `estimated from statistics`).
    pub how: Option<String>,
}

impl Loss {
    pub fn none() -> Self {
        Self::default()
    }

    pub fn is_none(&self) -> bool {
        self.rows.values().all(|loss| loss.total() == 0) && self.other.is_empty() && self.since.is_none()
    }

    pub fn total_rows(&self) -> u64 {
        self.rows.values().map(|loss| loss.total()).sum()
    }

    /// Both losses together; the window is the longer one.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (table, loss) in other.rows {
            let sum = self.rows.entry(table).or_default();
            sum.inserted += loss.inserted;
            sum.updated += loss.updated;
            sum.deleted += loss.deleted;
        }
        self.since = match (self.since, other.since) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.other.extend(other.other);
        self.how = self.how.or(other.how);
        self
    }

    /// What may be lost by the time a plan made at `now` is carried out, while users go on writing: the ceiling a person consents to.
    ///
    /// Each table's changes go on at their rate since the capture for [`HEADROOM`], and at least [`FEW`] more; rounded up to two
    /// digits, so that it reads as the bound it is and not as a count.
    #[must_use]
    pub fn ceiling(&self, now: Timestamp) -> Self {
        let elapsed = self.since.map_or(HEADROOM, |since| crate::between(since, now)).as_secs_f64().max(1.0);
        let grow = |count: u64| match count {
            0 => 0,
            count => two_digits_up(count + FEW + (count as f64 / elapsed * HEADROOM.as_secs_f64()) as u64),
        };
        let grown = |loss: &RowLoss| RowLoss {
            inserted: grow(loss.inserted),
            updated: grow(loss.updated),
            deleted: grow(loss.deleted),
        };
        Self { rows: self.rows.iter().map(|(table, loss)| (table.clone(), grown(loss))).collect(), ..self.clone() }
    }

    /// Whether consent to `self` as a ceiling covers losing `actual`.
    ///
    /// The kinds and the window must be the same. Rows may not exceed the ceiling, table by table: a table that was not named
    /// was not consented to.
    pub fn covers(&self, actual: &Self) -> bool {
        let rows = actual.rows.iter().all(|(table, lost)| {
            lost.total() == 0 || self.rows.get(table).is_some_and(|most| lost.total() <= most.total())
        });
        let window = match (self.since, actual.since) {
            (_, None) => true,
            (Some(most), Some(lost)) => lost >= most,
            (None, Some(_)) => false,
        };
        rows && window && actual.other.iter().all(|kind| self.other.contains(kind))
    }
}

/// Everything learnt by looking at one place, before anything is planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    pub place: Place,
    pub seen: Seen,
    /// The revision in words (`v1.1.0`, `main at 3f2a, 2 files modified`).
    pub label: Option<String>,
    pub target: TargetId,
    /// The running instance (a process and its start time), where the place has one.
    pub instance: Option<String>,
    /// Whether it runs, where the place is something that runs.
    pub running: Option<bool>,
    /// Whether it could now be restarted without a gap ([`crate::Action::Roll`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolls: bool,
    /// What would put another revision in the place of the live one, or of the one that was asked for, in words: a branch that is
    /// pulled, a file that names something else, a program that updates by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub puts_back: Vec<String>,
    /// One entry for each [`Wanted`] that was asked, in the order asked.
    pub available: Vec<(Wanted, Available)>,
    /// Revisions other than the one seen that what is there serves as well, each with the reason: a schema that has only been
    /// added to serves the code written for the one before it. Going back to such a revision leaves the place alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serves: Vec<(Revision, String)>,
    /// What going back to each asked capture would lose: at flowing places, and where a way down gives data up.
    pub losses: Vec<(CaptureId, Loss)>,
    /// What going back loses where no capture is needed for it: a cache that is emptied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empties: Option<Loss>,
    /// How many files differ between what is there and a revision, where the place is made of files and that was counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub between: Vec<(Revision, u64)>,
    /// What the adapter wants to know again when it proposes; part of the plan's digest.
    pub facts: BTreeMap<String, String>,
    /// How long restoring took or is reckoned to take; not part of any digest.
    #[serde(with = "crate::ms_option", rename = "reckoned_ms", default, skip_serializing_if = "Option::is_none")]
    pub reckoned: Option<Duration>,
}

impl Survey {
    /// A survey that says only where the place is; the rest is filled in by the adapter.
    pub fn new(place: Place, seen: Seen, target: TargetId) -> Self {
        Self {
            place,
            seen,
            label: None,
            target,
            instance: None,
            running: None,
            rolls: false,
            puts_back: vec![],
            available: vec![],
            serves: vec![],
            losses: vec![],
            empties: None,
            between: vec![],
            facts: BTreeMap::new(),
            reckoned: None,
        }
    }

    pub fn available(&self, revision: &Revision) -> Option<&Available> {
        self.available.iter().find(|(wanted, _)| wanted.revision == *revision).map(|(_, available)| available)
    }

    pub fn files_between(&self, revision: &Revision) -> Option<u64> {
        self.between.iter().find(|(to, _)| to == revision).map(|(_, files)| *files)
    }

    /// Why what is there serves `revision` too; none where it does not.
    pub fn serves(&self, revision: &Revision) -> Option<&str> {
        let known = matches!(self.seen, Seen::At(_));
        self.serves.iter().find(|(served, _)| known && served == revision).map(|(_, why)| why.as_str())
    }
}

/// The recorded, immutable result of a survey of all places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    pub at: Timestamp,
    pub surveys: BTreeMap<Place, Survey>,
}

impl Inventory {
    /// The digest of what was found, without when and without reckonings: the same world has the same digest a minute later.
    pub fn digest(&self) -> Digest {
        let timeless: Vec<Survey> =
            self.surveys.values().map(|survey| Survey { reckoned: None, ..survey.clone() }).collect();
        Digest::of_value(&timeless)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(orders: u64) -> Loss {
        let rows = BTreeMap::from([("orders".to_owned(), RowLoss { inserted: orders, ..RowLoss::default() })]);
        Loss { rows, ..Loss::none() }
    }

    #[test]
    fn consent_covers_no_more_than_it_names() {
        assert!(loss(5).covers(&loss(5)));
        assert!(loss(5).covers(&loss(3)));
        assert!(!loss(5).covers(&loss(6)));
        assert!(!Loss::none().covers(&loss(1)));
        assert!(Loss::none().covers(&loss(0)));
        let since = |s| Loss { since: Some(Timestamp::from_second(s).unwrap()), ..loss(1) };
        assert!(since(10).covers(&since(10)));
        assert!(!since(10).covers(&since(9)), "an older capture loses more than was agreed to");
    }

    #[test]
    fn a_ceiling_allows_for_the_time_a_person_takes() {
        let since = Timestamp::from_second(1_000).unwrap();
        let now = Timestamp::from_second(1_060).unwrap();
        let seen = Loss { since: Some(since), ..loss(60) };
        let ceiling = seen.ceiling(now);
        // 60 so far, 100 always, one a second for 15 minutes: 1060, rounded up.
        assert_eq!(ceiling.rows["orders"].inserted, 1_100);
        assert!(ceiling.covers(&seen));
        assert_eq!(Loss::none().ceiling(now), Loss::none());
    }

    #[test]
    fn short_keeps_the_scheme_and_twelve_digits() {
        assert_eq!(Revision::exact("sha256:0123456789abcdef").short(), "sha256:0123456789ab");
        assert_eq!(Revision::exact("3f2a9c0d1e2f3a4b5c6d").short(), "3f2a9c0d1e2f");
    }
}
