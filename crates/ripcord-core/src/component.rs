//! The port to everything that has a revision or holds data: what a kind can do, and the one method that acts.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Action, AppId, CaptureId, CapturePurpose, CaptureRef, Digest, Draft, Inventory, Key, Loss, Place, ProofLevel,
    Revision, RunId, Shown, Step, Survey, Wanted,
};

/// A boxed future, so that the ports stay `dyn`.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What sort of thing a component is: where it stands when scope is chosen and results are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    Code,
    Config,
    Flags,
    Dependencies,
    Schema,
    Data,
    Ui,
    Cache,
    Traffic,
}

/// An adapter's kind and version. A step is resumed only by the same major.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KindVersion {
    pub kind: String,
    pub major: u16,
    pub minor: u16,
}

/// What a kind can do, as data that the planner reads beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    pub nature: Nature,
    pub observe: Observe,
    pub held: Held,
    pub redo: Redo,
    /// What restoring does to what was there.
    pub restore: Destroys,
    pub downtime: Downtime,
    pub lifecycle: Lifecycle,
    /// What a restore here means for the running components that need this one.
    pub readers: Readers,
    /// Whether single values can be set without a former revision (level 1: toggles).
    pub sets: bool,
    /// Whether it has evidence of its own to collect before anything stops (logs, process list).
    pub evidence: bool,
}

impl Capabilities {
    /// A component that can be looked at and nothing else; kinds name what they add to this.
    pub const NONE: Self = Self {
        nature: Nature::Versioned,
        observe: Observe::Exactly,
        held: Held::Nowhere,
        redo: Redo::Safe,
        restore: Destroys::Nothing,
        downtime: Downtime::None,
        lifecycle: Lifecycle::None,
        readers: Readers::Hot,
        sets: false,
        evidence: false,
    };
}

/// How a component changes: only by release, or by use (data, cache, queue). A flowing one is in scope only when named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nature {
    Versioned,
    Flowing,
}

/// Whether one can tell afterwards that a step was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observe {
    /// The state itself is comparable.
    Exactly,
    /// The step leaves its key, or an instance newer than its intent (restarts, flushes, invalidations).
    ByMarker,
    /// One cannot tell: such a component runs attended only.
    No,
}

/// Where former revisions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    Vault,
    BySystem,
    Nowhere,
}

/// Whether an effect that may have happened may be begun again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redo {
    Safe,
    /// Safe when the same key is presented.
    SameKey,
    Never,
}

/// What an effect does to what was there before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destroys {
    Nothing,
    /// The former state is kept beside for this long.
    SetAside {
        #[serde(with = "crate::ms", rename = "keep_ms")]
        keep: Duration,
    },
    /// The former state is gone: needs a protective capture and consent that names the loss.
    GivesUp,
}

/// What a restore costs the users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Downtime {
    None,
    /// From its stop until it is healthy again.
    UntilHealthy,
}

/// What can be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifecycle {
    None,
    /// It runs: it can be stopped and started.
    Process,
    /// It is a switch in the way of traffic: [`crate::Action::Pause`] and [`crate::Action::Resume`].
    Switch,
}

/// What happens to the running components that need this one while it is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readers {
    /// They notice by themselves.
    Hot,
    /// They go on running, and are restarted after it to take it up.
    Restart,
    /// They are stopped before it and started after it.
    Stop,
}

/// What a rollback wants of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub place: Place,
    pub want: Want,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Back to what a release recorded, from the capture that holds it where there is one.
    Revision { revision: Revision, capture: Option<CaptureId> },
    /// These values, whatever the rest is (toggles). Names are the adapter's: keys of an env file, JSON pointers.
    Values(BTreeMap<String, Value>),
}

/// Why a component cannot propose a way to a wish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{place}` cannot be taken there: {why}")]
pub struct CannotPlan {
    pub place: Place,
    pub why: String,
}

/// What a call to a component is made with. `limit` is the longest the call may take: the engine gives up on it then, and
/// whatever it had begun counts as unknown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cx {
    pub app: AppId,
    pub now: Timestamp,
    #[serde(with = "crate::ms", rename = "limit_ms")]
    pub limit: Duration,
    /// The run and the release it belongs to, for the names of things set aside; absent in a survey.
    pub run: Option<RunId>,
    pub version: Option<String>,
}

/// What was found before an effect was begun; committed with the intent, given back to [`Component::holds`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    pub at: Timestamp,
    /// The adapter's own words: an instance, a generation, a modification number.
    pub mark: Option<String>,
    pub key: Key,
    /// Captures made earlier in this run, by the step that made them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub captures: BTreeMap<crate::StepId, CaptureId>,
}

/// Whether a step's goal holds, and the mark that tells instances apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub holds: Holds,
    pub mark: Option<String>,
}

impl From<Holds> for Observation {
    fn from(holds: Holds) -> Self {
        Self { holds, mark: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// The goal holds: nothing to do.
    Target,
    /// Everything is as before the step: it may be done.
    Origin,
    /// Something else: half done, or somebody else was here.
    Neither {
        found: String,
    },
    CannotTell {
        why: String,
    },
}

/// How an effect ended, as far as the caller can know.
#[expect(clippy::large_enum_variant, reason = "an outcome is made once for each step and moved a few times")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Done(Proof),
    /// It certainly did not reach its goal. Whether anything changed is for `holds` to say.
    Failed(Failure),
    /// Time-out, crash, connection cut: it may have happened.
    Unknown {
        why: String,
    },
}

/// What shows that a step was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// In words for the timeline (`current -> releases/v1.0.0`, `readable, 12 rows`).
    pub found: String,
    /// What was captured, where the step was a capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Made>,
    /// What was set aside, and where a person finds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<String>,
    /// Rows really given up, where the step gave data up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Loss>,
    /// Output of commands, redacted and bounded, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl Proof {
    pub fn of(found: impl Into<String>) -> Self {
        Self { found: found.into(), ..Self::default() }
    }
}

/// A capture just made: where it is held, what it holds, and how far it was proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub revision: Revision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub held: HeldIn,
    pub bytes: u64,
    pub proof: ProofLevel,
    /// The content's address, compared whenever the capture is relied on.
    pub content: Digest,
}

/// Where a capture's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldIn {
    /// In the vault; the manifest is the vault's own, kept whole so that it can be compared.
    Vault { manifest: Value },
    /// Kept by the system itself, under this name (a commit, a release directory, an image).
    System { name: String },
}

/// A step that ended badly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub what: String,
    pub retry: Retry,
    /// What a person should do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// Would trying again help?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    /// The cause may pass by itself.
    Later,
    /// Somebody must change something first.
    Never,
}

impl Failure {
    pub fn never(what: impl Into<String>) -> Self {
        Self { what: what.into(), retry: Retry::Never, advice: None, output: None }
    }
    pub fn later(what: impl Into<String>) -> Self {
        Self { retry: Retry::Later, ..Self::never(what) }
    }
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// One kind of thing that can be taken back.
///
/// Promises: `survey` and `holds` only look. `propose` is pure. `apply` is the only method that acts; called again with the same
/// key after a kill at any instant it converges, as far as [`Capabilities::redo`] says. Every call ends within `cx.limit` or may
/// be dropped at any await point; whatever a dropped `apply` had begun is found by `holds`.
pub trait Component: Send + Sync {
    fn kind(&self) -> KindVersion;
    fn capabilities(&self) -> Capabilities;
    /// Looks at the place: where it is, and whether each of `wanted` can be had (checked, not assumed).
    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey>;
    /// The steps from what was seen to the wish: [`crate::Action::Restore`], [`crate::Action::Set`] or an action of its own, in
    /// order. Stopping, starting, capturing and checking are the planner's to add.
    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan>;
    /// What the planner's own steps are at this place, for people: in words, with the commands or calls that will run.
    fn show(&self, place: &Place, action: &Action) -> Shown {
        let words = match action {
            Action::Prove { revision, .. } => format!("see that {} can be had for {place}", revision.short()),
            Action::Capture { purpose: CapturePurpose::Protective } => format!("capture {place} as it is"),
            Action::Capture { purpose: CapturePurpose::Evidence } => format!("collect evidence of {place}"),
            Action::Pause => format!("traffic off at {place}"),
            Action::Stop => format!("stop {place}"),
            Action::Restore { to, .. } => format!("restore {place} to {}", to.short()),
            Action::Set { values } => {
                format!("set {} of {place}", values.keys().cloned().collect::<Vec<_>>().join(", "))
            }
            Action::Stage { to, .. } => format!("make {} ready beside {place}", to.short()),
            Action::Start => format!("start {place}"),
            Action::Roll => format!("restart {place} without a gap"),
            Action::Resume => format!("traffic on at {place}"),
            Action::Check { check } => format!("check {check}"),
            Action::Own { what, .. } => format!("{what} {place}"),
        };
        Shown { words, commands: vec![] }
    }
    /// Whether the step's goal holds. Before the intent `before` is none; afterwards it is what was committed with the intent.
    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation>;
    /// Acts. `before` was committed to the journal; its key names this effect, the first time and every later one.
    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome>;
    /// Removes what this component set aside before `before`, and what a killed call of its own left lying about; returns what was
    /// removed, in words. Only what bears its own names, and nothing that the live state or a capture needs.
    fn tidy<'a>(&'a self, _cx: &'a Cx, _place: &'a Place, _before: Timestamp) -> Fut<'a, Result<Vec<String>, Failure>> {
        Box::pin(async { Ok(vec![]) })
    }
}

/// Resolves the capture a step restores from: known when planned, or made by an earlier step of the same run.
pub fn resolve(from: &CaptureRef, before: &Before) -> Option<CaptureId> {
    match from {
        CaptureRef::Known(id) => Some(id.clone()),
        CaptureRef::MadeBy(step) => before.captures.get(step).cloned(),
    }
}
