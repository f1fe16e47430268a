//! What plans cost, from how long steps took before.

use std::collections::BTreeMap;
use std::time::Duration;

use ripcord_core::{Inventory, PastTimes, Place, Planned, Priced, StepState, StoreError, between, price};

use crate::{World, fold};

/// How many past runs are asked.
const RUNS: usize = 10;

/// Prices a plan from the runs before it.
pub async fn priced(world: &World, planned: Planned, seen: &Inventory) -> Result<Priced, StoreError> {
    let reckoned: BTreeMap<Place, Duration> =
        seen.surveys.iter().filter_map(|(place, survey)| Some((place.clone(), survey.reckoned?))).collect();
    Ok(price(planned.plan, planned.loss_now, &past_times(world).await?, &reckoned))
}

async fn past_times(world: &World) -> Result<PastTimes, StoreError> {
    let mut past = PastTimes::default();
    for row in world.store.runs(world.app(), RUNS).await? {
        // A run that cannot be read back prices nothing; `ripcord log verify` is where that is found out.
        let Ok(run) = fold(world, &row.id).await else { continue };
        for step in &run.plan.steps {
            if let Some(StepState::Done { began: Some(began), at, .. }) = run.steps.get(&step.id) {
                past.0.entry((step.place.clone(), step.phase)).or_default().push(between(*began, *at));
            }
        }
    }
    Ok(past)
}
