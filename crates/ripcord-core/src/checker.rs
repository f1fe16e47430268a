//! An independent pass over the laws that every plan obeys. It shares no code with the planner: what one overlooks, the other finds.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Action, CapturePurpose, CaptureRef, Destroys, OnFailure, Phase, Place, Plan, Step, StepId};

/// A law that a plan breaks: a bug of ours, so such a plan is never proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("two steps are called `{0}`")]
    SameName(StepId),
    #[error("`{step}` waits for `{missing}`, which is not in the plan")]
    MissingNeed { step: StepId, missing: StepId },
    #[error("steps wait for each other: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Cycle(Vec<StepId>),
    #[error("`{step}` may act before `{proof}` has shown that the target can be had")]
    UnprovenBefore { step: StepId, proof: StepId },
    #[error("`{step}` may touch what is live before `{stage}` is ready beside it")]
    TouchedBefore { step: StepId, stage: StepId },
    #[error("`{step}` gives up what nothing holds, and the plan names no loss")]
    Unprotected { step: StepId },
    #[error("`{place}` is switched off and never on again")]
    NeverOn { place: Place },
    #[error("`{on}` may come before `{off}`")]
    OnBeforeOff { off: StepId, on: StepId },
    #[error("traffic may be on again at `{resume}` before `{check}` has passed")]
    ResumedUnverified { resume: StepId, check: StepId },
    #[error("`{start}` may come before `{restore}`, which it waits to take up")]
    StartedTooSoon { start: StepId, restore: StepId },
    #[error("`{stop}` may come before `{pause}`")]
    StoppedInTraffic { stop: StepId, pause: StepId },
    #[error("`{step}` acts and its failure would be passed over")]
    FailureIgnored { step: StepId },
    #[error("`{place}` is restored and its end state is not `{step}`'s")]
    WrongEnd { place: Place, step: StepId },
    #[error("`{capture}` and `{restore}` of one place are not in order")]
    CapturedTooLate { capture: StepId, restore: StepId },
    #[error("`{step}` verifies the live system before everything is done")]
    OpenTooSoon { step: StepId },
}

/// Every law the plan breaks; empty for a sound plan.
pub fn check(plan: &Plan) -> Vec<Broken> {
    let mut broken = names(plan);
    if !broken.is_empty() {
        return broken; // Without sound edges nothing further can be said.
    }
    let before = match ancestors(plan) {
        Ok(before) => before,
        Err(cycle) => return vec![Broken::Cycle(cycle)],
    };
    let comes_before = |first: &StepId, second: &StepId| before.get(second).is_some_and(|set| set.contains(first));
    for step in &plan.steps {
        let others = plan.steps.iter().filter(|other| other.id != step.id);
        match &step.action {
            Action::Prove { .. } => {
                let early = others.filter(|other| other.acts() && !comes_before(&step.id, &other.id));
                broken.extend(
                    early.map(|other| Broken::UnprovenBefore { step: other.id.clone(), proof: step.id.clone() }),
                );
            }
            Action::Stage { .. } => {
                let staged = |other: &Step| matches!(other.action, Action::Stage { .. });
                let early = others.filter(|other| other.acts() && !staged(other) && !comes_before(&step.id, &other.id));
                broken.extend(
                    early.map(|other| Broken::TouchedBefore { step: other.id.clone(), stage: step.id.clone() }),
                );
            }
            Action::Capture { purpose: CapturePurpose::Protective } => {
                let late = others
                    .filter(|other| changes(other) && other.place == step.place && !comes_before(&step.id, &other.id));
                broken.extend(
                    late.map(|other| Broken::CapturedTooLate { capture: step.id.clone(), restore: other.id.clone() }),
                );
            }
            Action::Stop | Action::Pause => broken.extend(off(plan, step, &comes_before)),
            Action::Start | Action::Roll => {
                let reads = others
                    .filter(|other| changes(other) && feeds(plan, other, step) && !comes_before(&other.id, &step.id));
                broken.extend(
                    reads.map(|other| Broken::StartedTooSoon { start: step.id.clone(), restore: other.id.clone() }),
                );
            }
            Action::Resume => {
                let unverified = others.filter(|other| {
                    matches!(other.action, Action::Check { .. })
                        && matches!(other.phase, Phase::VerifyClosed | Phase::Start)
                        && !comes_before(&other.id, &step.id)
                });
                broken.extend(
                    unverified
                        .map(|other| Broken::ResumedUnverified { resume: step.id.clone(), check: other.id.clone() }),
                );
            }
            _ => {}
        }
        if step.acts() && step.on_failure != OnFailure::Park {
            broken.push(Broken::FailureIgnored { step: step.id.clone() });
        }
        if step.phase == Phase::VerifyOpen
            && plan.steps.iter().any(|other| other.acts() && !comes_before(&other.id, &step.id))
        {
            broken.push(Broken::OpenTooSoon { step: step.id.clone() });
        }
        broken.extend(destroys(plan, step, &comes_before));
        broken.extend(ends(plan, step));
    }
    broken
}

fn names(plan: &Plan) -> Vec<Broken> {
    let mut seen = BTreeSet::new();
    let mut broken: Vec<Broken> =
        plan.steps.iter().filter(|step| !seen.insert(&step.id)).map(|step| Broken::SameName(step.id.clone())).collect();
    for step in &plan.steps {
        let missing = step.needs.iter().filter(|need| !seen.contains(need));
        broken.extend(missing.map(|need| Broken::MissingNeed { step: step.id.clone(), missing: need.clone() }));
    }
    broken
}

/// For each step all that certainly come before it, or the steps that wait for each other.
fn ancestors(plan: &Plan) -> Result<BTreeMap<StepId, BTreeSet<StepId>>, Vec<StepId>> {
    let mut known: BTreeMap<StepId, BTreeSet<StepId>> = BTreeMap::new();
    let mut rest: Vec<&Step> = plan.steps.iter().collect();
    while !rest.is_empty() {
        let (ready, wait): (Vec<&Step>, Vec<&Step>) =
            rest.iter().copied().partition(|step| step.needs.iter().all(|need| known.contains_key(need)));
        if ready.is_empty() {
            return Err(wait.into_iter().map(|step| step.id.clone()).collect());
        }
        for step in ready {
            let mut all: BTreeSet<StepId> = step.needs.clone();
            all.extend(step.needs.iter().filter_map(|need| known.get(need)).flatten().cloned());
            known.insert(step.id.clone(), all);
        }
        rest = wait;
    }
    Ok(known)
}

/// Whether the step changes what a place holds.
fn changes(step: &Step) -> bool {
    matches!(step.action, Action::Restore { .. } | Action::Set { .. } | Action::Own { .. })
}

/// Whether what `restore` changes is taken up by `start`: its own place, or one that was stopped for it.
fn feeds(plan: &Plan, restore: &Step, start: &Step) -> bool {
    if restore.place == start.place {
        return true;
    }
    // A stop that the restore waits for was made for the restore's sake, and that stop's start belongs to it.
    plan.steps
        .iter()
        .any(|stop| stop.action == Action::Stop && stop.place == start.place && restore.needs.contains(&stop.id))
}

fn off(plan: &Plan, step: &Step, comes_before: &dyn Fn(&StepId, &StepId) -> bool) -> Vec<Broken> {
    let Some(place) = &step.place else { return vec![] };
    let on = match step.action {
        Action::Stop => Action::Start,
        _ => Action::Resume,
    };
    let mut broken = vec![];
    match plan.steps.iter().find(|other| other.action == on && other.place.as_ref() == Some(place)) {
        None => broken.push(Broken::NeverOn { place: place.clone() }),
        Some(on) if !comes_before(&step.id, &on.id) => {
            broken.push(Broken::OnBeforeOff { off: step.id.clone(), on: on.id.clone() });
        }
        Some(_) => {}
    }
    if step.action == Action::Pause {
        let stops =
            plan.steps.iter().filter(|other| other.action == Action::Stop && !comes_before(&step.id, &other.id));
        broken.extend(stops.map(|stop| Broken::StoppedInTraffic { stop: stop.id.clone(), pause: step.id.clone() }));
    }
    broken
}

/// Law 4: nothing is given up without a proven replacement, a protective capture, or consent that names the loss.
fn destroys(plan: &Plan, step: &Step, comes_before: &dyn Fn(&StepId, &StepId) -> bool) -> Option<Broken> {
    if step.destroys != Destroys::GivesUp {
        return None;
    }
    let protected = match &step.protected_by {
        Some(CaptureRef::Known(_)) => true,
        Some(CaptureRef::MadeBy(capture)) => {
            let protective = plan.step(capture).is_some_and(|capture| {
                capture.action == Action::Capture { purpose: CapturePurpose::Protective }
                    && capture.on_failure == OnFailure::Park
            });
            protective && comes_before(capture, &step.id)
        }
        None => false,
    };
    let named = !plan.loss_at_most.is_none();
    (!protected && !named).then(|| Broken::Unprotected { step: step.id.clone() })
}

fn ends(plan: &Plan, step: &Step) -> Option<Broken> {
    let place = step.place.as_ref()?;
    let Action::Restore { to, .. } = &step.action else { return None };
    let end = plan.ends_at.get(place)?;
    (end != to).then(|| Broken::WrongEnd { place: place.clone(), step: step.id.clone() })
}
