//! The detector: reads every signal at its interval, advances the triggers, and writes down what changed.
//!
//! It never sleeps: nothing that waits, verifies or restores holds it up, for each signal is read by a task of its own. Evidence is
//! kept with every change, so that a verdict can be derived again by anybody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use ripcord_core::{
    Body, Evidence, GuardError, Memory, Reading, Rule, SignalId, SignalSpec, TriggerId, TriggerState, advance_in_place,
    blind,
};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::desk::{Desk, Stop};
use crate::{Board, Latest, tell};

/// A pending that comes and goes is written at most this often for one trigger.
const PENDING_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// A trigger in the hands of the task that reads its signal.
struct Armed {
    id: TriggerId,
    rule: Rule,
    memory: Memory,
    /// The gap people were already told of.
    told_blind: Option<Timestamp>,
    wrote_pending: Option<Timestamp>,
    /// Since when its guard cannot be judged.
    unguarded: Option<Timestamp>,
}

/// Watches until the desk stops.
pub async fn watch(desk: Arc<Desk>, board: Arc<Board>) -> Stop {
    let remembered = match desk.world.store.memories(desk.world.app()).await {
        Ok(remembered) => remembered,
        Err(error) => return error.into(),
    };
    board.set_memories(remembered.clone());
    let mut tasks = JoinSet::new();
    for (signal, spec) in desk.world.application.signals.clone() {
        let armed = armed(&desk, &signal, &remembered);
        let needed = !armed.is_empty() || desk.world.application.figures.values().any(|figure| *figure == signal);
        if needed {
            tasks.spawn(watch_one(Arc::clone(&desk), Arc::clone(&board), signal, spec, armed));
        }
    }
    tokio::select! {
        why = desk.stopped() => why,
        Some(done) = tasks.join_next() => {
            // A task ends only with a reason to stop; one that panicked must not leave the system unwatched unnoticed.
            let why = done.unwrap_or_else(|error| Stop::Broken { what: format!("watching failed: {error}") });
            desk.stop(why.clone());
            why
        }
    }
}

fn armed(desk: &Desk, signal: &SignalId, remembered: &BTreeMap<TriggerId, Memory>) -> Vec<Armed> {
    let of = desk.world.application.triggers.iter().filter(|(_, rule)| rule.signal == *signal);
    of.map(|(id, rule)| Armed {
        id: id.clone(),
        rule: rule.clone(),
        memory: remembered.get(id).cloned().unwrap_or_default(),
        told_blind: None,
        wrote_pending: None,
        unguarded: None,
    })
    .collect()
}

async fn watch_one(desk: Arc<Desk>, board: Arc<Board>, id: SignalId, spec: SignalSpec, mut armed: Vec<Armed>) -> Stop {
    let Some(signal) = desk.world.parts.signals.get(&id).cloned() else {
        return Stop::Missing { what: format!("signal `{id}`") };
    };
    let query = signal.query();
    let mut ticks = tokio::time::interval(spec.every.max(std::time::Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            why = desk.stopped() => return why,
            _ = ticks.tick() => {}
        }
        let cx = desk.world.cx(spec.timeout);
        let reading = tokio::time::timeout(spec.timeout, signal.read(&cx)).await;
        let late = || Reading::Failed { why: format!("no answer within {}", ripcord_core::human(spec.timeout)) };
        let reading = reading.unwrap_or_else(|_| late());
        if let Err(why) = take_in(&desk, &board, &id, &query, reading, &mut armed).await {
            return why;
        }
    }
}

async fn take_in(
    desk: &Desk,
    board: &Board,
    signal: &SignalId,
    query: &str,
    reading: Reading,
    armed: &mut [Armed],
) -> Result<(), Stop> {
    let at = desk.now();
    let baseline = board.baseline(signal);
    let mut judged = Vec::with_capacity(armed.len());
    let mut changed = vec![];
    let mut dark = vec![];
    for trigger in armed.iter_mut() {
        let before = trigger.memory.clone();
        let guarded = guarded(board, &trigger.rule);
        if !matches!(guarded, Guarded::Unknown { .. }) {
            trigger.unguarded = None;
        }
        let mut judged_by = None;
        let state = match guarded {
            Guarded::Armed => advance_in_place(&trigger.rule, &mut trigger.memory, &reading, baseline, at),
            Guarded::Disarmed => disarm(&mut trigger.memory, at),
            // Whether it is armed cannot be told. For a moment what is known stays as it is; for longer the observer has failed.
            Guarded::Unknown { why } => {
                let since = *trigger.unguarded.get_or_insert(at);
                match ripcord_core::between(since, at) > trigger.rule.interval * 2 {
                    false => None,
                    true => {
                        let failed = Reading::Failed { why: format!("whether it is armed cannot be told: {why}") };
                        let state = advance_in_place(&trigger.rule, &mut trigger.memory, &failed, baseline, at);
                        judged_by = Some(failed);
                        state
                    }
                }
            }
        };
        let last_sample = trigger.memory.last_sample;
        let good = match last_sample.is_some() && last_sample != before.last_sample {
            false => None,
            true => Some(matches!(trigger.memory.state, TriggerState::Ok | TriggerState::Recovering { .. })),
        };
        judged.push((trigger.id.clone(), trigger.memory.clone(), good));
        if let Some(state) = state
            && worth_writing(trigger, &state, at)
        {
            let evidence =
                Evidence::of(&trigger.rule, query, &before, judged_by.as_ref().unwrap_or(&reading), baseline, at);
            changed.push((trigger.id.clone(), state, trigger.memory.clone(), evidence));
        }
        match blind(&trigger.rule, &trigger.memory, at) {
            None => trigger.told_blind = None,
            Some(what) if trigger.told_blind.is_none() => {
                trigger.told_blind = Some(at);
                dark.push(tell::blind(&desk.world, &what, trigger.rule.severity, at));
            }
            Some(_) => {}
        }
    }
    board.took(signal, Latest { at, reading }, judged);
    if changed.is_empty() && dark.is_empty() {
        return Ok(());
    }
    desk.write(|_, entry| {
        for (trigger, state, memory, evidence) in changed {
            let digest = entry.blob(&evidence);
            let (value, n, baseline) = (memory.value, memory.n, memory.baseline);
            entry.event(
                None,
                None,
                Body::Changed { trigger: trigger.clone(), state, value, n, baseline, evidence: digest },
            );
            entry.batch().memories.insert(trigger, memory);
        }
        dark.into_iter().for_each(|message| entry.message(message));
    })
    .await?;
    Ok(())
}

/// Every change is written, but for a pending that comes and goes.
fn worth_writing(trigger: &mut Armed, state: &TriggerState, at: Timestamp) -> bool {
    if !matches!(state, TriggerState::Pending { .. }) {
        return true;
    }
    let lately = trigger.wrote_pending.is_some_and(|wrote| ripcord_core::between(wrote, at) < PENDING_EVERY);
    if !lately {
        trigger.wrote_pending = Some(at);
    }
    !lately
}

enum Guarded {
    Armed,
    Disarmed,
    Unknown { why: String },
}

/// Judges `when:` over the latest value of each signal it names.
fn guarded(board: &Board, rule: &Rule) -> Guarded {
    let Some(guard) = &rule.when else { return Guarded::Armed };
    let value = |name: &String| {
        let latest = board.latest_by_variable(name)?;
        match latest.reading {
            Reading::Samples(samples) => samples.iter().map(|sample| sample.value).reduce(f64::max),
            Reading::Empty | Reading::Failed { .. } => None,
        }
    };
    let given = guard.inputs().iter().filter_map(|name| Some((name.clone(), value(name)?.into()))).collect();
    match guard.holds(&given) {
        Ok(true) => Guarded::Armed,
        Ok(false) => Guarded::Disarmed,
        Err(error @ (GuardError::Missing { .. } | GuardError::Failed { .. } | GuardError::Syntax { .. })) => {
            Guarded::Unknown { why: error.to_string() }
        }
    }
}

/// A trigger whose guard is false begins anew.
fn disarm(memory: &mut Memory, at: Timestamp) -> Option<TriggerState> {
    let was_ok = memory.state == TriggerState::Ok;
    *memory = Memory { last: Some(at), ..Memory::default() };
    (!was_ok).then_some(TriggerState::Ok)
}

/// Values of one signal over time, for baselines: bounded, oldest forgotten first.
#[derive(Debug, Clone, Default)]
pub(crate) struct History(VecDeque<(Timestamp, f64)>);

impl History {
    /// At one reading a second this is more than an hour.
    const MOST: usize = 4096;

    pub(crate) fn add(&mut self, at: Timestamp, reading: &Reading) {
        let Reading::Samples(samples) = reading else { return };
        let Some(worst) = samples.iter().map(|sample| sample.value).reduce(f64::max) else { return };
        if self.0.len() >= Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back((at, worst));
    }

    pub(crate) fn since(&self, from: Timestamp) -> Vec<(Timestamp, f64)> {
        self.0.iter().filter(|(at, _)| *at >= from).copied().collect()
    }
}
