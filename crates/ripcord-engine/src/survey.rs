//! Looking at every place before anything is planned.

use std::collections::BTreeMap;
use std::time::Duration;

use ripcord_core::{AppId, Inventory, Ledger, Nature, Place, Release, Seen, Survey, TargetId, Wanted};
use tokio::task::JoinSet;

use crate::World;

/// The longest one place may take to be looked at; past it, it counts as unreachable.
pub const LOOK: Duration = Duration::from_secs(60);

/// Looks at all places at once.
///
/// For each, what every release in `interesting` had there is asked after, so that the answer says what can be had. A place
/// that does not answer is in the inventory as unreachable: a survey never fails, it finds.
pub async fn survey(world: &World, interesting: &[&Release]) -> Inventory {
    look(world, interesting, |_| true).await
}

/// As [`survey`], without asking what going back would lose: counting that reads every row of a database, once for each restore
/// point.
pub async fn survey_present(world: &World, interesting: &[&Release]) -> Inventory {
    look(world, interesting, |nature| nature == Nature::Versioned).await
}

async fn look(world: &World, interesting: &[&Release], asked_after: impl Fn(Nature) -> bool) -> Inventory {
    let mut looking = JoinSet::new();
    for place in world.application.places() {
        let Some(component) = world.parts.components.get(&place.component).cloned() else { continue };
        let wanted = match asked_after(component.capabilities().nature) {
            true => wanted(interesting, &place),
            false => vec![],
        };
        let cx = world.cx(LOOK);
        looking.spawn(async move {
            let surveyed = tokio::time::timeout(LOOK, component.survey(&cx, &place, &wanted)).await;
            surveyed.unwrap_or_else(|_| unreachable(&cx.app, &place, "it did not answer within 60 s"))
        });
    }
    let mut surveys = BTreeMap::new();
    while let Some(done) = looking.join_next().await {
        // A task that panicked has no answer; its place is filled in below.
        if let Ok(survey) = done {
            surveys.insert(survey.place.clone(), survey);
        }
    }
    for place in world.application.places() {
        surveys
            .entry(place.clone())
            .or_insert_with(|| unreachable(world.app(), &place, "looking at it failed inside Ripcord"));
    }
    Inventory { at: world.clock.now(), surveys }
}

fn unreachable(app: &AppId, place: &Place, why: &str) -> Survey {
    // Nothing is known of what it is, so the name it is locked by must meet no other's.
    let target = TargetId(format!("unknown:{}/{}/{place}", app.application, app.environment));
    Survey::new(place.clone(), Seen::Unreachable { why: why.to_owned() }, target)
}

fn wanted(interesting: &[&Release], place: &Place) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = vec![];
    for at in interesting.iter().filter_map(|release| release.map.get(place)) {
        let want = Wanted { revision: at.revision.clone(), capture: at.capture.clone() };
        if !wanted.contains(&want) {
            wanted.push(want);
        }
    }
    wanted
}

/// The releases worth asking after: the live one and, last, the one to go to; adapters that cannot look at all in time look at the
/// last.
pub fn interesting<'a>(ledger: &'a Ledger, target: Option<&'a Release>) -> Vec<&'a Release> {
    ledger.live().into_iter().chain(target).collect()
}
