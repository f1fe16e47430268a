//! The board: what the detector knows right now, for everybody in the process to read.

use std::collections::BTreeMap;
use std::sync::RwLock;

use jiff::Timestamp;
use ripcord_core::{Baseline, Memory, Reading, SignalId, TriggerId};
use tokio::sync::watch;

use crate::detector::History;

/// One signal as last read.
#[derive(Debug, Clone)]
pub struct Latest {
    pub at: Timestamp,
    pub reading: Reading,
}

#[derive(Default)]
struct Known {
    memories: BTreeMap<TriggerId, Memory>,
    latest: BTreeMap<SignalId, Latest>,
    baselines: BTreeMap<SignalId, Baseline>,
    history: BTreeMap<SignalId, History>,
    /// How many samples of each trigger have been good without a break.
    good: BTreeMap<TriggerId, u32>,
}

pub struct Board {
    known: RwLock<Known>,
    changes: watch::Sender<u64>,
}

impl Default for Board {
    fn default() -> Self {
        Self { known: RwLock::default(), changes: watch::channel(0).0 }
    }
}

impl Board {
    /// A board on which nothing was read yet, beside what is normal.
    pub fn with_baselines(baselines: BTreeMap<SignalId, Baseline>) -> Self {
        let board = Self::default();
        board.set_baselines(baselines);
        board
    }

    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        // A writer that panicked left whole values behind: each is replaced in one assignment.
        let known = self.known.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        look(&known)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.write().unwrap_or_else(|poisoned| poisoned.into_inner()));
        self.changes.send_modify(|n| *n += 1);
    }

    /// Resolves at the next change after the call.
    pub async fn changed(&self) {
        let mut changes = self.changes.subscribe();
        // The sender lives as long as `self`, so this ends with a change.
        let _ = changes.changed().await;
    }

    pub fn memory(&self, trigger: &TriggerId) -> Option<Memory> {
        self.read(|known| known.memories.get(trigger).cloned())
    }

    pub fn memories(&self) -> BTreeMap<TriggerId, Memory> {
        self.read(|known| known.memories.clone())
    }

    pub fn latest(&self, signal: &SignalId) -> Option<Latest> {
        self.read(|known| known.latest.get(signal).cloned())
    }

    /// The same by the name a guard knows the signal by: CEL has no `-` and `.` in names, so they are written `_`.
    pub fn latest_by_variable(&self, variable: &str) -> Option<Latest> {
        let same = |signal: &SignalId| signal.as_str().replace(['-', '.'], "_") == variable;
        self.read(|known| known.latest.iter().find(|(signal, _)| same(signal)).map(|(_, latest)| latest.clone()))
    }

    pub fn baseline(&self, signal: &SignalId) -> Option<f64> {
        self.read(|known| known.baselines.get(signal).map(|baseline| baseline.value))
    }

    pub fn baselines(&self) -> BTreeMap<SignalId, Baseline> {
        self.read(|known| known.baselines.clone())
    }

    /// How many samples in a row have been good, since [`Self::begin_anew`] where that was called.
    pub fn good(&self, trigger: &TriggerId) -> u32 {
        self.read(|known| known.good.get(trigger).copied().unwrap_or(0))
    }

    /// Counts good samples of these triggers from nothing: only what comes now shows whether something helped.
    pub fn begin_anew(&self, triggers: &[TriggerId]) {
        self.change(|known| known.good.retain(|trigger, _| !triggers.contains(trigger)));
    }

    pub(crate) fn set_memories(&self, memories: BTreeMap<TriggerId, Memory>) {
        self.change(|known| known.memories = memories);
    }

    /// The baseline of every signal over the window that began at `from`; a signal with fewer than three samples in it has none.
    pub fn baselines_since(&self, from: Timestamp) -> BTreeMap<SignalId, Baseline> {
        let of =
            |(signal, history): (&SignalId, &History)| Some((signal.clone(), Baseline::of(&history.since(from), 3)?));
        self.read(|known| known.history.iter().filter_map(of).collect())
    }

    pub(crate) fn set_baselines(&self, baselines: BTreeMap<SignalId, Baseline>) {
        self.change(|known| known.baselines = baselines);
    }

    /// Everything one reading changed, at once.
    pub(crate) fn took(&self, signal: &SignalId, latest: Latest, judged: Vec<(TriggerId, Memory, Option<bool>)>) {
        self.change(|known| {
            for (trigger, memory, good) in judged {
                match good {
                    Some(true) => {
                        *known.good.entry(trigger.clone()).or_default() += 1;
                    }
                    Some(false) => {
                        known.good.remove(&trigger);
                    }
                    // No verdict is neither: it breaks no row of good ones, and adds none.
                    None => {}
                }
                known.memories.insert(trigger, memory);
            }
            known.history.entry(signal.clone()).or_default().add(latest.at, &latest.reading);
            known.latest.insert(signal.clone(), latest);
        });
    }
}
