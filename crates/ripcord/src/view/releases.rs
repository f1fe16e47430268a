//! The ledger: releases, one release, and what differs between two.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use ripcord_core::{
    CaptureId, Ledger, Origin, Place, Quarantine, Recorded, Release, ReleaseId, Revision, Standing, Verdict,
};
use serde::Serialize;

use super::table::{indent, table};
use crate::screen::{BAD, FAINT, GOOD, View, WARN, paint, strong};
use crate::words;

/// A release in a line.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub release: ReleaseId,
    pub version: String,
    pub at: Timestamp,
    pub verdict: Verdict,
    pub standing: Standing,
    pub origin: Origin,
    pub last_known_good: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<String>,
}

impl Line {
    pub fn of(release: &Release, ledger: &Ledger, now: Timestamp) -> Self {
        Self {
            release: release.id.clone(),
            version: release.version.clone(),
            at: release.at,
            verdict: release.verdict.clone(),
            standing: release.standing.clone(),
            origin: release.origin.clone(),
            last_known_good: ledger.last_known_good(now).is_ok_and(|good| good.id == release.id),
            quarantined: ledger.quarantined.get(&release.version).map(|quarantine| quarantine.why.clone()),
        }
    }

    pub fn verdict(&self) -> String {
        let word = words::verdict_word(&self.verdict);
        match &self.verdict {
            Verdict::Undecided => paint(WARN, word),
            Verdict::Good { .. } => paint(GOOD, word),
            Verdict::Bad { .. } => paint(BAD, word),
        }
    }

    /// Where it stands, once: what was rolled back and is also bad is said by its verdict.
    pub fn standing(&self) -> String {
        let standing = words::standing(&self.standing);
        match self.standing {
            Standing::Live | Standing::Deploying => strong(standing),
            Standing::Interrupted => paint(BAD, standing),
            Standing::Superseded | Standing::RolledBack { .. } => standing,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct List {
    pub releases: Vec<Line>,
    pub quarantined: Vec<Quarantine>,
}

impl View for List {
    fn text(&self) -> String {
        if self.releases.is_empty() {
            return "no release is on record".to_owned();
        }
        let row = |line: &Line| {
            let mut marks = vec![];
            if line.last_known_good {
                marks.push("last known good");
            }
            if line.quarantined.is_some() {
                marks.push("quarantined");
            }
            let (id, version) = (line.release.to_string(), line.version.clone());
            vec![id, version, words::when(line.at), line.verdict(), line.standing(), paint(FAINT, marks.join(", "))]
        };
        let mut text = table(&self.releases.iter().map(row).collect::<Vec<_>>());
        for quarantine in &self.quarantined {
            let at = words::when(quarantine.at);
            text.push_str(&format!("\nversion {} is kept out since {at}: {}", quarantine.version, quarantine.why));
        }
        text
    }
}

/// One release, with where every place was.
#[derive(Debug, Serialize)]
pub struct Show {
    pub release: Line,
    pub map: BTreeMap<Place, Recorded>,
    pub config: String,
    /// Captures of it that are not to be relied on, and why.
    pub spoiled: BTreeMap<CaptureId, String>,
}

impl View for Show {
    fn text(&self) -> String {
        let line = &self.release;
        let mut out = vec![
            format!("{} {}", strong(&line.release), strong(&line.version)),
            format!("  recorded  {}, {}", words::when(line.at), words::origin(&line.origin)),
            format!("  stands    {}", line.standing()),
            format!("  verdict   {}", words::verdict(&line.verdict)),
        ];
        if line.last_known_good {
            out.push("            it is the last known good release".to_owned());
        }
        if let Some(why) = &line.quarantined {
            out.push(format!("  kept out  {}", paint(BAD, why)));
        }
        let row = |(place, at): (&Place, &Recorded)| {
            let held = match &at.capture {
                Some(capture) => match self.spoiled.get(capture) {
                    Some(why) => paint(BAD, format!("{capture}: {why}")),
                    None => capture.to_string(),
                },
                None => "no capture".to_owned(),
            };
            let label = at.label.clone().unwrap_or_default();
            let flowing = if at.flowing { "restore point" } else { "" };
            vec![place.to_string(), at.revision.short(), label, held, paint(FAINT, flowing)]
        };
        out.push(indent(&table(&self.map.iter().map(row).collect::<Vec<_>>()), 2));
        out.join("\n")
    }
}

/// What differs between two releases.
#[derive(Debug, Serialize)]
pub struct Diff {
    pub from: String,
    pub to: String,
    pub changed: Vec<Change>,
    pub same: Vec<Place>,
    pub configuration_changed: bool,
}

#[derive(Debug, Serialize)]
pub struct Change {
    pub place: Place,
    pub from: Option<Recorded>,
    pub to: Option<Recorded>,
}

impl Diff {
    pub fn of(from: &Release, to: &Release) -> Self {
        let places: BTreeSet<&Place> = from.map.keys().chain(to.map.keys()).collect();
        let revision = |release: &Release, place: &Place| release.map.get(place).map(|at| at.revision.clone());
        let (same, changed): (Vec<&Place>, Vec<&Place>) =
            places.into_iter().partition(|place| revision(from, place) == revision(to, place));
        let change = |place: &Place| Change {
            place: place.clone(),
            from: from.map.get(place).cloned(),
            to: to.map.get(place).cloned(),
        };
        Self {
            from: format!("{} ({})", from.version, from.id),
            to: format!("{} ({})", to.version, to.id),
            changed: changed.into_iter().map(change).collect(),
            same: same.into_iter().cloned().collect(),
            configuration_changed: from.config != to.config,
        }
    }
}

impl View for Diff {
    fn text(&self) -> String {
        let said = |at: &Option<Recorded>| match at {
            None => "(not recorded)".to_owned(),
            Some(Recorded { revision: Revision::Absent, .. }) => "(absent)".to_owned(),
            Some(at) => at.label.clone().unwrap_or_else(|| at.revision.short()),
        };
        let row =
            |change: &Change| vec![change.place.to_string(), said(&change.from), "->".to_owned(), said(&change.to)];
        let mut out = vec![format!("from {} to {}", strong(&self.from), strong(&self.to))];
        match self.changed.is_empty() {
            true => out.push("  nothing differs".to_owned()),
            false => out.push(indent(&table(&self.changed.iter().map(row).collect::<Vec<_>>()), 2)),
        }
        if !self.same.is_empty() {
            let same: Vec<_> = self.same.iter().map(ToString::to_string).collect();
            out.push(paint(FAINT, format!("  the same: {}", same.join(", "))));
        }
        if self.configuration_changed {
            out.push("  recorded under another configuration".to_owned());
        }
        out.join("\n")
    }
}
