//! A rollback of twelve services that need each other, beside the critical path of its plan.
//!
//! The plan is the planner's own; how long each step takes is known, so the longest path through it is what nobody could beat.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ripcord_core::{ComponentId, End, Plan, RunState, StepId};
use ripcord_engine::propose;

use crate::figures::{Dice, median, ms, row};
use crate::world::{self, Service, Shop, Takes};

const SERVICES: usize = 12;
const ALLOWED: f64 = 1.05;
const ALLOWED_BESIDE: Duration = Duration::from_millis(100);

/// Twelve services in about four layers; each needs up to two of those before it.
pub fn shop(mut takes: impl FnMut() -> Takes) -> Shop {
    let mut dice = Dice(12);
    let name = |n: usize| -> ComponentId { format!("service-{n:02}").parse().unwrap() };
    let services = (0..SERVICES).map(|n| {
        let needs: BTreeSet<ComponentId> =
            (0..dice.below(3)).filter(|_| n > 0).map(|_| name(dice.below(n as u64) as usize)).collect();
        let takes = takes();
        (name(n), (Arc::new(Service::new(takes)), takes, needs))
    });
    Shop { services: services.collect() }
}

/// The longest path through the plan.
fn critical_path(plan: &Plan, shop: &Shop) -> Duration {
    let mut ends: BTreeMap<&StepId, Duration> = BTreeMap::new();
    while ends.len() < plan.steps.len() {
        for step in &plan.steps {
            let needs: Option<Vec<Duration>> = step.needs.iter().map(|need| ends.get(need).copied()).collect();
            if let (Some(needs), false) = (needs, ends.contains_key(&step.id)) {
                ends.insert(&step.id, needs.into_iter().max().unwrap_or_default() + shop.takes(step));
            }
        }
    }
    ends.into_values().max().unwrap_or_default()
}

pub fn measure(rounds: usize) {
    let mut dice = Dice(7);
    let shop = shop(|| Takes { stop: dice.ms(20, 100), restore: dice.ms(100, 900), start: dice.ms(50, 200) });
    let directory = world::directory();
    let runtime = world::runtime();
    let (mut took, mut path, mut steps) = (vec![], Duration::ZERO, 0);
    runtime.block_on(async {
        let desk = shop.desk(world::app("restore"), &directory.path().join("state")).await;
        for round in 1..=rounds {
            shop.deploy(&desk, "v1.0.0", &format!("v1.{round}.0")).await;
            let plan = propose(&desk.world, &shop.everything()).await.unwrap().priced.plan;
            path = critical_path(&plan, &shop);
            steps = plan.steps.len();
            let mut driver = world::approved(&desk, &plan).await;
            // As in the binary, a run is a task of its own. The whole of it counts: from its start to its end on record.
            let driving = tokio::spawn(async move {
                let began = Instant::now();
                driver.drive().await.unwrap();
                (began.elapsed(), driver.run.state.clone())
            });
            let (run, ended) = driving.await.unwrap();
            assert_eq!(ended, RunState::Ended(End::Succeeded), "the rollback did not end");
            eprintln!("round {round}: {} for a critical path of {}", ms(run), ms(path));
            took.push(run);
        }
    });
    let took = median(&took);
    let most = path.mul_f64(ALLOWED) + ALLOWED_BESIDE;
    let figure = format!("{} for a critical path of {}", ms(took), ms(path));
    let wanted = format!("<= {ALLOWED} x + 100 ms = {}", ms(most));
    let name = format!("rollback of {SERVICES} components ({steps} steps)");
    row(&name, &figure, &wanted, took.as_secs_f64() / most.as_secs_f64());
}
