//! From a wish to a proposal: survey, plan, check against the laws, price.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use ripcord_core::{
    Action, Advice, Application, Asked, Broken, CapturePurpose, CaptureRef, Climb, ComponentId, Inventory, Ledger,
    Means, Name, NoPlan, NoTarget, Observe, Place, Plan, Priced, Purpose, Recorded, Release, Run, RunId, Rung,
    StoreError, Target, advise, check, plan,
};

use crate::desk::Stop;
use crate::{World, fold, interesting, pricing, survey};

/// What somebody wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    Rollback { to: Option<String>, rung: Rung, partial: bool },
    Undo { of: RunId },
}

/// A plan that obeys the laws, with the survey it was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    pub priced: Priced,
    pub seen: Inventory,
    /// Whether to go back at all, as far as the change between the live release and the target tells. None where nothing is gone
    /// back from.
    pub advice: Option<Advice>,
    /// Why it may not run without a person, whatever the policy says.
    pub attended: Option<String>,
}

/// Why there is no proposal. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum NoProposal {
    #[error(transparent)]
    NoTarget(#[from] NoTarget),
    #[error(transparent)]
    NoPlan(#[from] NoPlan),
    #[error("the plan breaks a law, which is an error inside Ripcord: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unlawful(Vec<Broken>),
    #[error("`{of}` cannot be undone: {why}")]
    NoUndo { of: RunId, why: String },
    #[error("there is no strategy `{name}`; there are: {known}")]
    NoStrategy { name: Name, known: String },
    #[error("strategy `{strategy}` has no level {level}")]
    NoLevel { strategy: Name, level: u8 },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] Stop),
}

/// Surveys and plans; nothing is written and no lease is needed, so a dry run is exactly this.
pub async fn propose(world: &World, wanted: &Wanted) -> Result<Proposal, NoProposal> {
    let ledger = world.store.ledger(world.app()).await?;
    match wanted {
        Wanted::Rollback { to, rung, partial } => {
            let release = match (&rung.means, to) {
                // Toggles stay within the live release, where nothing else is asked for.
                (Means::Set { .. }, None) => ledger.live().ok_or(NoTarget::NothingRecorded)?,
                (_, to) => ledger.target(to.as_deref(), world.clock.now())?,
            };
            let target = Target::from(release);
            lawful(world, &ledger, Some(release), &target, rung, Purpose::Rollback, *partial).await
        }
        Wanted::Undo { of } => {
            let run = match fold(world, of).await {
                Err(Stop::Missing { what }) => {
                    return Err(NoProposal::NoUndo { of: of.clone(), why: format!("the record has no {what}") });
                }
                run => run?,
            };
            let (target, rung) = undo(world, &run).await?;
            lawful(world, &ledger, None, &target, &rung, Purpose::Undo { of: of.clone() }, true).await
        }
    }
}

async fn lawful(
    world: &World,
    ledger: &Ledger,
    release: Option<&Release>,
    target: &Target,
    rung: &Rung,
    purpose: Purpose,
    partial: bool,
) -> Result<Proposal, NoProposal> {
    let as_release = release.cloned().unwrap_or_else(|| pseudo(target, world.clock.now()));
    let seen = survey(world, &interesting(ledger, Some(&as_release))).await;
    let asked = Asked {
        application: &world.application,
        parts: &world.parts,
        live: ledger.live(),
        target,
        seen: &seen,
        rung,
        purpose,
        partial,
        owed: owed(world).await?,
    };
    let planned = plan(&asked)?;
    let broken = check(&planned.plan);
    if !broken.is_empty() {
        return Err(NoProposal::Unlawful(broken));
    }
    let attended = match attended(world, &planned.plan) {
        Some(why) => Some(why),
        None => unproven(world, &planned.plan).await?,
    };
    let priced = pricing::priced(world, planned, &seen).await?;
    let restores = matches!(rung.means, Means::Restore { .. }) && priced.plan.purpose == Purpose::Rollback;
    let advice = restores
        .then(|| advise(&world.application, &target.map, &priced.plan.ends_at, &seen, &priced.estimate.loss_now));
    Ok(Proposal { priced, seen, advice, attended })
}

/// How many past runs are asked for what they left off.
const RUNS: usize = 20;

/// What earlier runs switched off and nobody has switched on or taken over.
async fn owed(world: &World) -> Result<BTreeSet<Place>, NoProposal> {
    let mut owed = BTreeSet::new();
    for row in world.store.runs(world.app(), RUNS).await? {
        let run = fold(world, &row.id).await?;
        owed.extend(run.open_obligations().map(|open| open.place.clone()));
    }
    Ok(owed)
}

/// Why this plan may not run unattended (laws 4 and 3).
fn attended(world: &World, plan: &Plan) -> Option<String> {
    if plan.gives_up() {
        return Some("it gives data up".to_owned());
    }
    let blind = plan.steps.iter().filter(|step| step.acts()).find_map(|step| {
        let place = step.place.as_ref()?;
        let component = world.parts.components.get(&place.component)?;
        (component.capabilities().observe == Observe::No).then(|| place.clone())
    });
    blind.map(|place| format!("what happens at `{place}` cannot be observed"))
}

/// The capture the plan relies on that was not shown to be restorable as far as the policy asks of a run without a person.
async fn unproven(world: &World, plan: &Plan) -> Result<Option<String>, StoreError> {
    let least = world.application.policy.automatic_proof;
    let rows = world.store.captures(world.app()).await?;
    let relied_on = plan.steps.iter().filter_map(|step| match &step.action {
        Action::Restore { from: Some(CaptureRef::Known(capture)), .. } => Some(capture),
        _ => None,
    });
    for capture in relied_on {
        match rows.iter().find(|row| row.id == *capture) {
            Some(row) if row.made.proof >= least && row.spoiled.is_none() => {}
            Some(row) if row.spoiled.is_some() => return Ok(Some(format!("{capture} was found not to be restorable"))),
            Some(_) => return Ok(Some(format!("{capture} was not proven as far as `policy.automatic-proof` asks"))),
            None => return Ok(Some(format!("{capture} is not on record"))),
        }
    }
    Ok(None)
}

/// The state captured before a run, as something to go to.
fn pseudo(target: &Target, at: Timestamp) -> Release {
    Release {
        id: ripcord_core::ReleaseId::typed("undo"),
        version: target.version.clone().unwrap_or_default(),
        origin: ripcord_core::Origin::Observed,
        map: target.map.clone(),
        config: ripcord_core::Digest::ZERO,
        verdict: ripcord_core::Verdict::Undecided,
        standing: ripcord_core::Standing::Superseded,
        at,
    }
}

/// Where a run began, from the captures it made before it changed anything.
async fn undo(world: &World, run: &Run) -> Result<(Target, Rung), NoProposal> {
    let no = |why: &str| NoProposal::NoUndo { of: run.id.clone(), why: why.to_owned() };
    if matches!(run.plan.purpose, Purpose::Undo { .. }) {
        return Err(no("it is an undo itself: roll back to a release instead"));
    }
    let rows = world.store.captures(world.app()).await?;
    let mut map: BTreeMap<Place, Recorded> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.run.as_ref() == Some(&run.id) && row.purpose == CapturePurpose::Protective)
    {
        let flowing = world
            .parts
            .components
            .get(&row.of.component)
            .is_some_and(|component| component.capabilities().nature == ripcord_core::Nature::Flowing);
        let (revision, label) = (row.made.revision.clone(), row.made.label.clone());
        map.insert(row.of.clone(), Recorded { revision, label, capture: Some(row.id.clone()), flowing });
    }
    if map.is_empty() {
        return Err(no("it captured nothing before it ended"));
    }
    let scope = map.keys().map(|place| place.component.clone()).collect();
    let target = Target { release: run.plan.from.clone(), version: run.plan.from_version.clone(), map };
    let name = Name::new("undo").map_err(|_| no("its name is no name"))?;
    let rung = Rung {
        level: run.plan.rung.level,
        name,
        means: Means::Restore { scope },
        climb: Climb::Ask,
        budget: run.plan.rung.budget,
    };
    Ok((target, rung))
}

/// The rung somebody means: of a strategy, by level, or the cheapest that restores; narrowed to `scope` where one is named.
pub fn rung(
    application: &Application,
    strategy: Option<&Name>,
    level: Option<u8>,
    scope: &[ComponentId],
) -> Result<Rung, NoProposal> {
    let name = strategy.unwrap_or(&application.default_strategy);
    let ladder = application.strategies.get(name).ok_or_else(|| NoProposal::NoStrategy {
        name: name.clone(),
        known: application.strategies.keys().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    })?;
    let restores = |rung: &&Rung| matches!(rung.means, Means::Restore { .. });
    let found = match level {
        Some(level) => ladder.iter().find(|rung| rung.level == level),
        None => ladder.iter().find(restores).or(ladder.first()),
    };
    let no_level = || NoProposal::NoLevel { strategy: name.clone(), level: level.unwrap_or(0) };
    let mut rung = found.cloned().ok_or_else(no_level)?;
    if !scope.is_empty() {
        rung.means = Means::Restore { scope: scope.iter().cloned().collect() };
    }
    Ok(rung)
}
