//! Recording: the present captured so that it can be come back to, and observed so that it is known what it was.

use std::collections::BTreeMap;

use ripcord_core::{
    Action, Available, Before, Body, Capabilities, CaptureId, CapturePurpose, Destroys, Held, Inventory, Key, Ledger,
    Lifecycle, Limits, Made, Nature, Observe, OnFailure, Origin, Outcome, Phase, Place, Recorded, Redo, Release,
    ReleaseId, Revision, Seen, Shown, Standing, Step, StepId, Verdict,
};

use crate::desk::{Desk, Stop};
use crate::survey::survey_present;
use crate::{World, effect};

/// What holds the present: by place its revision and the capture it can be restored from.
pub type HeldMap = BTreeMap<Place, Recorded>;

/// Why the present cannot be recorded.
pub type Why = String;

/// Captures every place whose present no capture holds yet, and returns what holds it.
///
/// A versioned place whose revision was captured before is not captured again, provided that its capture is still there. A flowing
/// place always is: its capture is the restore point. `release` is what the captures are said to belong to.
pub async fn capture_present(
    desk: &Desk,
    release: Option<&ReleaseId>,
) -> Result<Result<(Inventory, HeldMap), Why>, Stop> {
    let world = &desk.world;
    let ledger = world.store.ledger(world.app()).await?;
    let known: Vec<&Release> = ledger.releases.iter().rev().take(10).collect();
    let seen = survey_present(world, &known).await;
    let mut map = HeldMap::new();
    for (place, found) in &seen.surveys {
        let Some(component) = world.parts.components.get(&place.component) else { continue };
        let capabilities = component.capabilities();
        if !has_revision(&capabilities) {
            continue;
        }
        let revision = match &found.seen {
            Seen::At(revision) => revision.clone(),
            Seen::Between { why } => return Ok(Err(format!("`{place}` is in no definite state: {why}"))),
            Seen::Unreachable { why } => return Ok(Err(format!("`{place}` cannot be seen: {why}"))),
        };
        let flowing = capabilities.nature == Nature::Flowing;
        let recorded = |revision: Revision, capture: Option<CaptureId>| Recorded {
            revision,
            label: found.label.clone(),
            capture,
            flowing,
        };
        if capabilities.held == Held::Nowhere || (revision == Revision::Absent && !flowing) {
            map.insert(place.clone(), recorded(revision, None));
            continue;
        }
        if !flowing && let Some(capture) = held_already(&ledger, place, &revision, found) {
            map.insert(place.clone(), recorded(revision, Some(capture)));
            continue;
        }
        match capture(desk, place, release).await? {
            Ok((capture, made)) => {
                let at = match flowing {
                    // The restore point is the capture itself, which may be a row or two after the look.
                    true => Recorded { label: made.label, ..recorded(made.revision, Some(capture)) },
                    false => recorded(revision, Some(capture)),
                };
                map.insert(place.clone(), at);
            }
            Err(why) => return Ok(Err(format!("`{place}` cannot be captured: {why}"))),
        }
    }
    Ok(Ok((seen, map)))
}

/// Whether a component belongs in a release: a process that runs what others hold has nothing of its own to come back to, and a
/// switch is on or off, not at a revision.
pub(crate) fn has_revision(capabilities: &Capabilities) -> bool {
    let exactly = capabilities.observe == Observe::Exactly && capabilities.lifecycle != Lifecycle::Switch;
    exactly || capabilities.nature == Nature::Flowing
}

/// The capture that some release recorded for this very revision, still there by the survey.
fn held_already(
    ledger: &Ledger,
    place: &Place,
    revision: &Revision,
    found: &ripcord_core::Survey,
) -> Option<CaptureId> {
    let here = found.available.iter().find_map(|(wanted, available)| {
        let same = wanted.revision == *revision && matches!(available, Available::Here { .. });
        same.then(|| wanted.capture.clone()).flatten()
    });
    here.filter(|id| ledger.releases.iter().any(|r| r.map.get(place).is_some_and(|at| at.capture.as_ref() == Some(id))))
}

/// Captures one place, and puts it on the record.
async fn capture(
    desk: &Desk,
    place: &Place,
    release: Option<&ReleaseId>,
) -> Result<Result<(CaptureId, Made), Why>, Stop> {
    let world = &desk.world;
    let Some(component) = world.parts.components.get(&place.component).cloned() else {
        return Ok(Err("it is no component".to_owned()));
    };
    let limit = world.application.components.get(&place.component).and_then(|spec| spec.step_limit);
    let limits = Limits { call: limit.unwrap_or(std::time::Duration::from_secs(3600)), ..Limits::default() };
    let action = Action::Capture { purpose: CapturePurpose::Protective };
    let id = StepId(format!("capture/{place}"));
    let step = Step {
        id: id.clone(),
        phase: Phase::Capture,
        place: Some(place.clone()),
        target: None,
        kind: Some(component.kind()),
        needs: std::collections::BTreeSet::new(),
        shown: Shown { words: format!("capture {place}"), commands: vec![] },
        action,
        destroys: Destroys::Nothing,
        protected_by: None,
        redo: Redo::Safe,
        limits,
        on_failure: OnFailure::Park,
    };
    let key = Key(format!("{}/{}/record/{}", world.app().application, world.app().environment, id));
    let before = Before { at: desk.now(), mark: None, key, captures: BTreeMap::new() };
    let cx = world.cx(limits.call);
    match effect::act(component, cx, step, before).await {
        Outcome::Done(proof) => match proof.capture {
            Some(made) => {
                let mut id = None;
                let (of, release, kept) = (place.clone(), release.cloned(), made.clone());
                desk.write(|seq, entry| {
                    let capture = CaptureId::at(seq);
                    id = Some(capture.clone());
                    let purpose = CapturePurpose::Protective;
                    entry.event(
                        None,
                        None,
                        Body::Captured { capture, of, purpose, release, step: None, made: Box::new(kept) },
                    );
                })
                .await?;
                Ok(id.map(|id| (id, made)).ok_or_else(|| "it was not written".to_owned()))
            }
            None => Ok(Err("it reported done and made none".to_owned())),
        },
        Outcome::Failed(failure) => Ok(Err(failure.what)),
        Outcome::Unknown { why } => Ok(Err(why)),
    }
}

/// Records the present as a release that is live, because a person says so.
pub async fn observed(desk: &Desk, version: &str) -> Result<Result<ReleaseId, Why>, Stop> {
    let world = &desk.world;
    if let Some(why) = quarantined(world, version).await? {
        return Ok(Err(why));
    }
    let map = match capture_present(desk, None).await? {
        Ok((_, map)) => map,
        Err(why) => return Ok(Err(why)),
    };
    let ledger = world.store.ledger(world.app()).await?;
    let superseded = ledger.live().map(|live| live.id.clone());
    let config = world.application.config;
    let mut id = None;
    desk.write(|_, entry| {
        if let Some(release) = superseded {
            entry.event(None, None, Body::Stands { release, standing: Standing::Superseded });
        }
        let release = Release {
            id: ReleaseId::at(entry.next()),
            version: version.to_owned(),
            origin: Origin::Observed,
            map,
            config,
            verdict: Verdict::Undecided,
            standing: Standing::Live,
            at: entry.at(),
        };
        id = Some(release.id.clone());
        entry.event(None, None, Body::Recorded { release: Box::new(release) });
    })
    .await?;
    Ok(id.ok_or_else(|| "it was not written".to_owned()))
}

/// Why a version may not be deployed, where it may not.
pub async fn quarantined(world: &World, version: &str) -> Result<Option<Why>, Stop> {
    let ledger = world.store.ledger(world.app()).await?;
    let found = ledger.quarantined.get(version);
    Ok(found.map(|q| format!("{version} is quarantined since {}: {}", q.at, q.why)))
}
