//! The application as configured and validated: everything the rules need to know of it, and nothing of where it was read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    About, AppId, Channel, ChannelId, CheckId, Component, ComponentId, Digest, Guard, HostId, Layer, Matrix, Name,
    Place, ProofLevel, Rule, Rung, Severity, SeverityRule, Signal, SignalId, TriggerId,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Application {
    pub id: AppId,
    /// The digest of the resolved configuration: part of every plan.
    pub config: Digest,
    /// Whether this environment is production: drills are refused there.
    pub production: bool,
    pub components: BTreeMap<ComponentId, ComponentSpec>,
    pub signals: BTreeMap<SignalId, SignalSpec>,
    pub triggers: BTreeMap<TriggerId, Rule>,
    /// Which signal feeds which figure of the matrix.
    pub figures: BTreeMap<Name, SignalId>,
    pub matrix: Matrix,
    pub severities: BTreeMap<Severity, SeverityRule>,
    /// Ladders by name, lowest rung first.
    pub strategies: BTreeMap<Name, Vec<Rung>>,
    /// The strategy a rollback takes when nobody names one.
    pub default_strategy: Name,
    pub checks: BTreeMap<CheckId, CheckSpec>,
    pub policy: Policy,
    /// Who is told what.
    pub notify: Vec<Notify>,
}

/// What the planner knows of a component beside what its kind can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentSpec {
    pub kind: String,
    pub layer: Layer,
    /// What must be in place before it starts.
    pub needs: BTreeSet<ComponentId>,
    /// Where it is; empty: on the machine Ripcord runs on.
    pub hosts: Vec<HostId>,
    /// Checks that say it is healthy, in the order asked.
    pub health: Vec<CheckId>,
    /// Longest time for one of its steps, where the kind's own is not wanted.
    #[serde(with = "crate::ms_option", rename = "step_limit_ms")]
    pub step_limit: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalSpec {
    pub kind: String,
    #[serde(with = "crate::ms", rename = "every_ms")]
    pub every: Duration,
    #[serde(with = "crate::ms", rename = "timeout_ms")]
    pub timeout: Duration,
}

/// Something asked of the world to verify a state: a reading and an assertion over it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckSpec {
    pub id: CheckId,
    pub signal: SignalId,
    /// Over the sample's `value`, `n`, its fields, and `target.version`, `baseline`.
    pub assert: Guard,
    pub stage: Stage,
    /// How long it may take until it passes.
    #[serde(with = "crate::ms", rename = "within_ms")]
    pub within: Duration,
    /// How many readings in a row must pass.
    pub passes: u32,
    /// Fewer than this under the reading is inconclusive.
    pub at_least: Option<f64>,
    #[serde(with = "crate::ms", rename = "every_ms")]
    pub every: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Of one component, right after it starts.
    Health,
    /// Before traffic is resumed.
    Closed,
    /// After traffic is resumed.
    Open,
}

/// The figures the rules go by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// A release older than this is not suspected without a person.
    #[serde(with = "crate::ms", rename = "suspect_for_ms")]
    pub suspect_for: Duration,
    /// How long a release must be healthy, with data, to be judged good.
    #[serde(with = "crate::ms", rename = "bake_ms")]
    pub bake: Duration,
    /// How long the triggers are watched after a rollback before it is called a success.
    #[serde(with = "crate::ms", rename = "watch_ms")]
    pub watch: Duration,
    /// How long after everything is restored the breached signals may take to recover; past it the rung was insufficient.
    #[serde(with = "crate::ms", rename = "helps_within_ms")]
    pub helps_within: Duration,
    /// The share of the baseline to which a breached signal must return: 1.5 is "no more than half worse".
    pub recovered_at: f64,
    /// How many steps may run on one host at a time.
    pub per_host: u32,
    /// What a capture must have been proven to, to be relied on without a person.
    pub automatic_proof: ProofLevel,
    /// Captures not pinned are kept this long.
    #[serde(with = "crate::ms", rename = "keep_captures_ms")]
    pub keep_captures: Duration,
    /// What is set aside is kept this long.
    #[serde(with = "crate::ms", rename = "keep_aside_ms")]
    pub keep_aside: Duration,
    /// How often a capture that somebody may have to go back to is read back.
    #[serde(with = "crate::ms", rename = "prove_every_ms")]
    pub prove_every: Duration,
    /// How long a deployment measures every signal for what is normal, right before it runs its command.
    #[serde(with = "crate::ms", rename = "baseline_ms")]
    pub baseline: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            suspect_for: minutes(24 * 60),
            bake: minutes(30),
            watch: minutes(15),
            helps_within: minutes(5),
            recovered_at: 1.5,
            per_host: 8,
            automatic_proof: ProofLevel::ReadBack,
            keep_captures: minutes(30 * 24 * 60),
            keep_aside: minutes(7 * 24 * 60),
            prove_every: minutes(24 * 60),
            baseline: Duration::from_secs(30),
        }
    }
}

/// Where messages about something go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// Empty: everything.
    pub about: BTreeSet<About>,
    /// At this severity or worse; none: at any.
    pub at_least: Option<Severity>,
    /// In order: the next is tried when one fails.
    pub channels: Vec<ChannelId>,
}

impl Application {
    /// Every place, in order.
    pub fn places(&self) -> Vec<Place> {
        let of = |(id, spec): (&ComponentId, &ComponentSpec)| -> Vec<Place> {
            match spec.hosts.is_empty() {
                true => vec![Place::local(id.clone())],
                false => {
                    spec.hosts.iter().map(|host| Place { component: id.clone(), host: Some(host.clone()) }).collect()
                }
            }
        };
        self.components.iter().flat_map(of).collect()
    }

    /// All that `id` needs, directly or through others.
    pub fn needs_of(&self, id: &ComponentId) -> BTreeSet<ComponentId> {
        let mut found = BTreeSet::new();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            for need in self.components.get(id).into_iter().flat_map(|spec| &spec.needs) {
                if found.insert(need.clone()) {
                    open.push(need);
                }
            }
        }
        found
    }

    /// Everything that needs `id`, directly or through others.
    pub fn needed_by(&self, id: &ComponentId) -> BTreeSet<ComponentId> {
        self.components.keys().filter(|other| self.needs_of(other).contains(id)).cloned().collect()
    }
}

/// The live objects behind an application's names. Built by the binary, which alone knows which kinds exist.
#[derive(Clone, Default)]
pub struct Parts {
    pub components: BTreeMap<ComponentId, Arc<dyn Component>>,
    pub signals: BTreeMap<SignalId, Arc<dyn Signal>>,
    pub channels: BTreeMap<ChannelId, Arc<dyn Channel>>,
}
