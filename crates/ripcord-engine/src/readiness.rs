//! The standing answer to "can we go back?": to what, whether everything for it is there, at what price, and what stands in the way.
//!
//! Nothing is written and no lease is needed: the survey, the record and the planner are asked, as a rollback would ask them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ripcord_core::{
    Available, CaptureId, NoPlan, Place, Recorded, Release, ReleaseId, Revision, Rung, Seen, StoreError, Survey,
    Verdict,
};

use crate::desk::Stop;
use crate::propose::{NoProposal, Wanted, propose, rung};
use crate::{World, interesting, survey};

/// Whether the way back is open.
#[derive(Debug, Clone, PartialEq)]
pub struct Readiness {
    pub at: Timestamp,
    /// The last known good.
    pub target: Option<Target>,
    /// Each place, as it is and as the target needs it.
    pub places: Vec<PlaceReady>,
    /// What a rollback by each level of the default strategy would cost, or why there is no plan for it.
    pub levels: Vec<Level>,
    /// What stands in the way, in words; empty when a rollback can begin at once.
    pub blockers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub release: ReleaseId,
    pub version: String,
    /// Since when it is known good.
    pub good_since: Option<Timestamp>,
}

/// One place, and whether what the target had there can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceReady {
    pub place: Place,
    pub now: Seen,
    pub label: Option<String>,
    /// What the target has there; none where the place is no part of it.
    pub wanted: Option<Revision>,
    pub artefact: Artefact,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Artefact {
    /// It is there already, and is no part of what changes by use.
    InPlace,
    Here {
        how: String,
    },
    /// It was there, and is not any more.
    Gone {
        why: String,
    },
    /// Its capture was found damaged or gone, whatever the place itself says.
    Spoiled {
        capture: CaptureId,
        why: String,
    },
    /// The target has nothing there.
    NotPart,
    /// The place was not to be seen.
    Unknown {
        why: String,
    },
}

/// What one level would cost now.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    pub rung: Rung,
    /// None where everything is so already.
    pub plan: Result<Option<Price>, String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    pub estimate: ripcord_core::Estimate,
    /// Whether it gives data up: past this point there is no going back without consent to the loss.
    pub gives_up: bool,
    /// Why it could not run without a person.
    pub attended: Option<String>,
}

impl Readiness {
    /// Whether a rollback can begin at once.
    pub fn is_ready(&self) -> bool {
        self.target.is_some() && self.blockers.is_empty()
    }
}

/// Looks at everything a rollback needs, and asks the planner what it would do.
/// # Errors
/// [`Stop`] only where the record cannot be read: what stands in the way of a rollback is an answer, not an error.
pub async fn readiness(world: &World) -> Result<Readiness, Stop> {
    let at = world.clock.now();
    let ledger = world.store.ledger(world.app()).await?;
    let good = ledger.last_known_good(at);
    let seen = survey(world, &interesting(&ledger, good.as_ref().ok().copied())).await;
    let spoiled = spoiled(world).await?;
    let mut blockers = vec![];
    if let Err(why) = &good {
        blockers.push(why.to_string());
    }
    let good = good.ok();
    let mut places = vec![];
    for (place, found) in &seen.surveys {
        let wanted = good.and_then(|good| good.map.get(place));
        let artefact = artefact(found, wanted, &spoiled);
        match &artefact {
            Artefact::Gone { why } => blockers.push(format!("`{place}`: what the target needs is gone: {why}")),
            Artefact::Spoiled { capture, why } => {
                blockers.push(format!("`{place}`: {capture} cannot be relied on: {why}"));
            }
            Artefact::Unknown { why } => blockers.push(format!("`{place}` cannot be seen: {why}")),
            Artefact::InPlace | Artefact::Here { .. } | Artefact::NotPart => {}
        }
        places.push(PlaceReady {
            place: place.clone(),
            now: found.seen.clone(),
            label: found.label.clone(),
            wanted: wanted.map(|at| at.revision.clone()),
            artefact,
        });
    }
    blockers.extend(under_way(world).await?);
    let levels = match good {
        Some(_) => levels(world).await?,
        None => vec![],
    };
    let restores = levels.iter().filter(|level| matches!(level.rung.means, ripcord_core::Means::Restore { .. }));
    blockers.extend(restores.filter_map(|level| {
        let why = level.plan.as_ref().err()?;
        Some(format!("level {} ({}) has no plan: {why}", level.rung.level, level.rung.name))
    }));
    Ok(Readiness { at, target: good.map(target), places, levels, blockers })
}

fn target(good: &Release) -> Target {
    let good_since = match &good.verdict {
        Verdict::Good { at, .. } => Some(*at),
        Verdict::Undecided | Verdict::Bad { .. } => None,
    };
    Target { release: good.id.clone(), version: good.version.clone(), good_since }
}

async fn spoiled(world: &World) -> Result<BTreeMap<CaptureId, String>, StoreError> {
    let rows = world.store.captures(world.app()).await?;
    let unfit = rows.into_iter().filter_map(|row| match (row.spoiled, row.pruned) {
        (Some(why), _) => Some((row.id, why)),
        (None, true) => Some((row.id, "it was pruned".to_owned())),
        (None, false) => None,
    });
    Ok(unfit.collect())
}

fn artefact(found: &Survey, wanted: Option<&Recorded>, spoiled: &BTreeMap<CaptureId, String>) -> Artefact {
    let Some(wanted) = wanted else { return Artefact::NotPart };
    if let Seen::Unreachable { why } = &found.seen {
        return Artefact::Unknown { why: why.clone() };
    }
    if !wanted.flowing && found.seen.revision() == Some(&wanted.revision) {
        return Artefact::InPlace;
    }
    if let Some(why) = found.serves(&wanted.revision).filter(|_| !wanted.flowing) {
        return Artefact::Here { how: format!("what is there serves it: {why}") };
    }
    if let Some((capture, why)) = wanted.capture.as_ref().and_then(|id| spoiled.get_key_value(id)) {
        return Artefact::Spoiled { capture: capture.clone(), why: why.clone() };
    }
    match found.available(&wanted.revision) {
        Some(Available::Here { how }) => Artefact::Here { how: how.clone() },
        Some(Available::Missing { why }) => Artefact::Gone { why: why.clone() },
        None => Artefact::Unknown { why: "whether it is still there was not found out".to_owned() },
    }
}

/// What is under way or left standing, which a rollback would have to wait for or take over.
async fn under_way(world: &World) -> Result<Vec<String>, StoreError> {
    let runs = world.store.runs(world.app(), 10).await?;
    let open = runs.into_iter().filter(|row| !matches!(row.state, ripcord_core::RunState::Ended(_)));
    Ok(open.map(|row| format!("{} is not over", row.id)).collect())
}

async fn levels(world: &World) -> Result<Vec<Level>, Stop> {
    let application = &world.application;
    let ladder = application.strategies.get(&application.default_strategy).cloned().unwrap_or_default();
    let mut levels = vec![];
    for found in ladder {
        let wanted = match rung(application, None, Some(found.level), &[]) {
            Ok(rung) => Wanted::Rollback { to: None, rung, partial: false },
            Err(error) => {
                levels.push(Level { rung: found, plan: Err(error.to_string()) });
                continue;
            }
        };
        let plan = match propose(world, &wanted).await {
            Ok(proposal) => Ok(Some(Price {
                gives_up: proposal.priced.plan.gives_up(),
                estimate: proposal.priced.estimate,
                attended: proposal.attended,
            })),
            Err(NoProposal::NoPlan(NoPlan::NothingToDo { .. })) => Ok(None),
            Err(NoProposal::Store(error)) => return Err(error.into()),
            Err(NoProposal::Record(why)) => return Err(why),
            Err(error) => Err(crate::asks::said(&error)),
        };
        levels.push(Level { rung: found, plan });
    }
    Ok(levels)
}
