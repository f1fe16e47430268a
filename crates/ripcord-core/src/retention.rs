//! Which captures are kept, and which may go.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::{CaptureId, CaptureRow, Digest, HeldIn, Ledger, RunId, between};

/// Why a capture is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The live release or the last known good goes back to it: nothing prunes it.
    Pinned,
    /// A run that is not over made it.
    OfOpenRun,
    Young,
    /// Another capture that is kept holds the same content in the same place of the vault.
    SharedContent,
}

/// Judges every capture that is not pruned yet: kept and why, or none where it may go.
///
/// Age alone never lets a capture go: what is pinned, or belongs to a run that is not over, is kept however old it is.
pub fn retention<'a>(
    rows: &'a [CaptureRow],
    ledger: &Ledger,
    open_runs: &BTreeSet<RunId>,
    keep: Duration,
    now: Timestamp,
) -> Vec<(&'a CaptureRow, Option<Kept>)> {
    let pinned: BTreeSet<CaptureId> = ledger.pinned(now);
    let alone = |row: &CaptureRow| {
        if pinned.contains(&row.id) {
            Some(Kept::Pinned)
        } else if row.run.as_ref().is_some_and(|run| open_runs.contains(run)) {
            Some(Kept::OfOpenRun)
        } else {
            (between(row.at, now) < keep).then_some(Kept::Young)
        }
    };
    let standing: Vec<&CaptureRow> = rows.iter().filter(|row| !row.pruned).collect();
    let held: BTreeSet<Digest> =
        standing.iter().filter(|row| alone(row).is_some()).map(|row| place_held(row)).collect();
    let judge = |row: &'a CaptureRow| {
        let shared = || held.contains(&place_held(row)).then_some(Kept::SharedContent);
        (row, alone(row).or_else(shared))
    };
    standing.into_iter().map(judge).collect()
}

/// What is really held: two records of one snapshot are one thing in the vault.
fn place_held(row: &CaptureRow) -> Digest {
    match &row.made.held {
        HeldIn::Vault { manifest } => Digest::of_value(manifest),
        HeldIn::System { name } => Digest::of_value(&(&row.of, name)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        CapturePurpose, Made, Origin, Place, ProofLevel, Recorded, Release, ReleaseId, Revision, Standing, Verdict,
    };

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(day * 86_400).unwrap()
    }

    fn row(id: &str, day: i64, content: &str, run: Option<&str>) -> CaptureRow {
        CaptureRow {
            id: CaptureId::typed(id),
            of: Place::local("db".parse().unwrap()),
            purpose: CapturePurpose::Protective,
            release: None,
            run: run.map(RunId::typed),
            at: at(day),
            made: Made {
                revision: Revision::exact(content),
                label: None,
                held: HeldIn::System { name: content.to_owned() },
                bytes: 1,
                proof: ProofLevel::ReadBack,
                content: Digest::of(content.as_bytes()),
            },
            spoiled: None,
            pruned: false,
        }
    }

    fn release(id: &str, capture: &str, verdict: Verdict, standing: Standing) -> Release {
        let place = Place::local("db".parse().unwrap());
        let recorded = Recorded {
            revision: Revision::exact(id),
            label: None,
            capture: Some(CaptureId::typed(capture)),
            flowing: true,
        };
        Release {
            id: ReleaseId::typed(id),
            version: id.to_owned(),
            origin: Origin::Observed,
            map: BTreeMap::from([(place, recorded)]),
            config: Digest::ZERO,
            verdict,
            standing,
            at: at(1),
        }
    }

    #[test]
    fn the_way_back_is_pinned_however_old_it_is() {
        let good = Verdict::Good { by: "bake".into(), at: at(1) };
        let releases = vec![
            release("rel-1", "cap-1", good, Standing::Superseded),
            release("rel-2", "cap-2", Verdict::Undecided, Standing::Live),
        ];
        let ledger = Ledger { releases, ..Ledger::default() };
        let rows = [
            row("cap-1", 1, "a", None),
            row("cap-2", 2, "b", None),
            row("cap-3", 3, "c", None),
            row("cap-4", 3, "d", Some("run-9")),
            row("cap-5", 99, "e", None),
            row("cap-6", 3, "a", None),
        ];
        let open = BTreeSet::from([RunId::typed("run-9")]);
        let judged = retention(&rows, &ledger, &open, Duration::from_secs(30 * 86_400), at(100));
        let said: Vec<String> = judged.iter().map(|(row, kept)| format!("{} {kept:?}", row.id)).collect();
        assert_eq!(
            said,
            [
                "cap-1 Some(Pinned)",
                "cap-2 Some(Pinned)",
                "cap-3 None",
                "cap-4 Some(OfOpenRun)",
                "cap-5 Some(Young)",
                "cap-6 Some(SharedContent)"
            ]
        );
    }
}
