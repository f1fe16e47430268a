//! Rollback or fix forward: what lies between the live release and the target says of it, in reasons that a person can weigh (C4).
//!
//! The rules are those of the reference systems' runbooks: a slip of configuration and a change of one file are mended; what involves
//! a migration, changed several things or has no known cause is taken back, unless a fix is known and can be out within half an hour.
//! What cannot go back is mended whatever else is so. It is advice: nothing is decided by it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Application, ComponentId, Inventory, Layer, Loss, Place, Recorded, Revision, Seen};

/// Which way the reasons lean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lean {
    Rollback,
    FixForward,
    /// Going back would change nothing, so it can mend nothing.
    Neither,
}

/// The advice, and every reason there is, the one that decides first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    pub lean: Lean,
    pub reasons: Vec<Reason>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub lean: Lean,
    pub why: String,
}

/// Weighs what lies between what is there and `target`, and what going back would lose now. `ends_at` is where the plan leaves each
/// place: what could stay, and comes back with what holds it, does not stay.
pub fn advise(
    application: &Application,
    target: &BTreeMap<Place, Recorded>,
    ends_at: &BTreeMap<Place, Revision>,
    seen: &Inventory,
    loss_now: &Loss,
) -> Advice {
    let layer = |place: &Place| application.components.get(&place.component).map(|spec| spec.layer);
    let differs = |(place, at): &(&Place, &Recorded)| {
        let survey = seen.surveys.get(*place);
        !at.flowing && survey.is_some_and(|survey| survey.seen != Seen::At(at.revision.clone()))
    };
    let changed: Vec<(&Place, &Recorded)> = target.iter().filter(differs).collect();
    let named = |places: &[&Place]| {
        let names: BTreeSet<String> = places.iter().map(|place| format!("`{}`", place.component)).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    let mut reasons = vec![];
    let mut say = |lean: Lean, why: String| reasons.push(Reason { lean, why });
    if changed.is_empty() {
        say(Lean::Neither, "nothing that is recorded differs from the target: it may not be the release".to_owned());
    }
    let of = |wanted: &[Layer]| -> Vec<&Place> {
        let within = |place: &&Place| layer(place).is_some_and(|layer| wanted.contains(&layer));
        changed.iter().map(|(place, _)| *place).filter(within).collect()
    };
    let schema = of(&[Layer::Schema]);
    let served = |(place, at): &&(&Place, &Recorded)| {
        let survey = seen.surveys.get(*place).filter(|survey| survey.serves(&at.revision).is_some());
        survey.is_some_and(|survey| ends_at.get(*place) == survey.seen.revision())
    };
    let stays: Vec<&Place> = changed.iter().filter(served).map(|(place, _)| *place).collect();
    let moves: Vec<&Place> = schema.iter().copied().filter(|place| !stays.contains(place)).collect();
    if !moves.is_empty() && moves.len() == changed.len() {
        // What runs is at the target already: a deployment that ended between its migrations and its code.
        let why = format!(
            "only {} differs: a migration that failed is mended first; else it is taken down, and the database is restored last",
            named(&moves)
        );
        say(Lean::FixForward, why);
    } else if !moves.is_empty() {
        say(Lean::Rollback, format!("a migration is involved: {} goes back too", named(&moves)));
    }
    let slips = of(&[Layer::Config, Layer::Flags]);
    if !changed.is_empty() && slips.len() == changed.len() {
        say(Lean::FixForward, format!("only configuration differs ({}): a slip in it is soon mended", named(&slips)));
    }
    // By component: what is on several hosts is one thing.
    let mut files: BTreeMap<&ComponentId, Option<u64>> = BTreeMap::new();
    for (place, at) in changed.iter().filter(|(place, _)| !stays.contains(place)) {
        let between = seen.surveys.get(*place).and_then(|survey| survey.files_between(&at.revision));
        let most = files.entry(&place.component).or_default();
        *most = (*most).max(between);
    }
    if let [(component, Some(1))] = files.iter().collect::<Vec<_>>()[..] {
        say(Lean::FixForward, format!("one file differs, of `{component}`"));
    }
    if files.len() > 1 {
        let names: Vec<String> = files.keys().map(|component| format!("`{component}`")).collect();
        say(Lean::Rollback, format!("several things differ: {}", names.join(", ")));
    }
    for (component, many) in files.iter().filter_map(|(component, files)| Some((component, files.filter(|n| *n > 1)?)))
    {
        say(Lean::Rollback, format!("{many} files of `{component}` differ"));
    }
    if reasons.is_empty() {
        let why = "its cause is not known; a fix that is known and can be out within 30 min would be better";
        reasons.push(Reason { lean: Lean::Rollback, why: why.to_owned() });
    }
    let lean = reasons[0].lean;
    let mut also = |lean: Lean, why: String| reasons.push(Reason { lean, why });
    if !stays.is_empty() {
        also(Lean::Rollback, format!("{} serves the target as it is", named(&stays)));
    }
    if !loss_now.is_none() {
        let why = match loss_now.total_rows() {
            0 => format!("going back gives up {}", loss_now.other.join("; ")),
            rows => format!("going back gives up {rows} rows"),
        };
        also(Lean::FixForward, why);
    }
    Advice { lean, reasons }
}
