//! `ripcord status` in a new process, over a journal of 10,000 events.
//!
//! The journal is a real one: some forty rollbacks of twelve services driven by the engine, their releases and captures, and for
//! the rest changes of triggers.

use std::collections::BTreeMap;
use std::path::Path;

use ripcord_core::{Body, Digest, End, Memory, RunState, Seq, TriggerId, TriggerState};
use ripcord_engine::{Desk, Entry, propose};

use crate::child::Site;
use crate::figures::{median, ms, percentile, row};
use crate::restore;
use crate::world::{self, Shop, Takes};

const EVENTS: u64 = 10_000;
const TRIGGERS: usize = 20;
const WANTED: std::time::Duration = std::time::Duration::from_millis(50);

fn configuration(shop: &Shop) -> String {
    let mut text = String::from("application: long\ncomponents:\n");
    for (id, (_, _, needs)) in &shop.services {
        let needs: Vec<String> = needs.iter().map(ToString::to_string).collect();
        text += &format!("  {id}:\n    command: {{ start: [./run, {id}], stop: [./halt, {id}] }}\n");
        text += &format!("    needs: [{}]\n", needs.join(", "));
    }
    text += "signals:\n  errors:\n    http: { url: http://127.0.0.1:9/ }\n    every: 5s\ntriggers:\n";
    for n in 0..TRIGGERS {
        text += &format!("  t{n}: {{ signal: errors, for: {}s, severity: p2 }}\n", 60 + n);
    }
    text += "severities:\n  p1: { respond-within: 5m }\n  p2: { respond-within: 15m }\n";
    text += "matrix:\n  otherwise: { call: evaluate, within: 1h, severity: p2 }\n";
    text
}

async fn head(desk: &Desk) -> u64 {
    desk.world.store.head(desk.world.app()).await.unwrap().0.0
}

/// Rollbacks for half of the events.
async fn rollbacks(desk: &std::sync::Arc<Desk>, shop: &Shop) -> usize {
    let mut count = 0;
    while head(desk).await < EVENTS / 2 {
        count += 1;
        shop.deploy(desk, "v1.0.0", &format!("v1.{count}.0")).await;
        let plan = propose(&desk.world, &shop.everything()).await.unwrap().priced.plan;
        let mut driver = world::approved(desk, &plan).await;
        driver.drive().await.unwrap();
        assert_eq!(driver.run.state, RunState::Ended(End::Succeeded), "a rollback did not end");
    }
    count
}

/// Triggers that become pending and well again, up to the last event.
async fn changes(desk: &Desk) {
    while head(desk).await < EVENTS {
        let write = |first: Seq, entry: &mut Entry| {
            let many = (EVENTS + 1 - first.0).min(100);
            for n in 0..many {
                let at = entry.at();
                let trigger: TriggerId = format!("t{}", n as usize % TRIGGERS).parse().unwrap();
                let state = if n % 2 == 0 { TriggerState::Pending { since: at } } else { TriggerState::Ok };
                let memory = Memory { state: state.clone(), last: Some(at), value: Some(0.07), ..Memory::default() };
                let body = Body::Changed {
                    trigger: trigger.clone(),
                    state,
                    value: Some(0.07),
                    n: Some(900.0),
                    baseline: Some(0.01),
                    evidence: Digest::ZERO,
                };
                entry.event(None, None, body);
                entry.batch().memories.insert(trigger, memory);
            }
        };
        desk.write(write).await.unwrap();
    }
}

pub fn measure(ripcord: &Path, runs: usize) {
    let shop = restore::shop(Takes::default);
    let site = Site::new(ripcord, &configuration(&shop));
    let runtime = world::runtime();
    let (events, count) = runtime.block_on(async {
        let desk = shop.desk(world::app("long"), &site.state()).await;
        let count = rollbacks(&desk, &shop).await;
        changes(&desk).await;
        desk.leave().await.unwrap();
        (head(&desk).await, count)
    });
    drop(runtime);
    eprintln!("{events} events, {count} rollbacks");
    eprintln!("{}", site.output(&["status"]));
    let took: Vec<_> = (0..runs).map(|_| site.time(&["status"])).collect();
    let json: Vec<_> = (0..runs).map(|_| site.time(&["status", "--json"])).collect();
    let version: Vec<_> = (0..runs).map(|_| site.time(&["--version"])).collect();
    let each = BTreeMap::from([("status", &took), ("status --json", &json), ("--version", &version)]);
    for (what, took) in each {
        eprintln!("{what}: median {}, p95 {}", ms(median(took)), ms(percentile(took, 0.95)));
    }
    let figure = format!("{}, p95 {}", ms(median(&took)), ms(percentile(&took, 0.95)));
    let name = format!("status: new process, {events} events");
    row(&name, &figure, "50 ms", median(&took).as_secs_f64() / WANTED.as_secs_f64());
}
