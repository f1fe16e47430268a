//! The driver protocol, version 1: what is asked, what may be answered, and how an answer is read.
//!
//! The formats are described for authors of drivers in `docs/driver-protocol.md`; they change only with the version.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    Action, Before, Capabilities, CaptureId, CapturePurpose, Cx, Destroys, Downtime, Failure, Held, Holds, Lifecycle,
    Loss, Nature, Observation, Observe, Place, Readers, Redo, Retry, Revision, RowLoss, Seen, Step, Wanted,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(super) const VERSION: u64 = 1;

/// One call. What a call does not need is left out.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    pub ripcord: u64,
    pub call: &'static str,
    pub settings: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<About<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Vec<WantedOut<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<StepOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<BeforeOut<'a>>,
    /// A directory to write a capture into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// A directory that holds the capture to restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl<'a> Request<'a> {
    pub(super) fn new(call: &'static str, settings: &'a Value) -> Self {
        let (about, wanted, step, before, into, from) = (None, None, None, None, None, None);
        Self { ripcord: VERSION, call, settings, about, wanted, step, before, into, from }
    }
}

#[derive(Serialize)]
pub(super) struct About<'a> {
    application: &'a str,
    environment: &'a str,
    component: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    limit_ms: u128,
}

impl<'a> About<'a> {
    pub(super) fn new(cx: &'a Cx, place: &'a Place, limit: Duration) -> Self {
        Self {
            application: cx.app.application.as_str(),
            environment: cx.app.environment.as_str(),
            component: place.component.as_str(),
            host: place.host.as_ref().map(|host| host.as_str()),
            run: cx.run.as_ref().map(|run| run.as_str()),
            version: cx.version.as_deref(),
            limit_ms: limit.as_millis(),
        }
    }
}

/// A revision is text; null is the state in which nothing is there.
fn text(revision: &Revision) -> Option<&str> {
    match revision {
        Revision::Absent => None,
        Revision::Exact(id) => Some(&id.0),
    }
}

pub(super) fn revision(text: Option<String>) -> Revision {
    text.map_or(Revision::Absent, Revision::exact)
}

#[derive(Serialize)]
pub(super) struct WantedOut<'a> {
    revision: Option<&'a str>,
    capture: Option<&'a str>,
}

impl<'a> From<&'a Wanted> for WantedOut<'a> {
    fn from(wanted: &'a Wanted) -> Self {
        Self { revision: text(&wanted.revision), capture: wanted.capture.as_ref().map(CaptureId::as_str) }
    }
}

#[derive(Serialize)]
pub(super) struct StepOut<'a> {
    id: &'a str,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<&'a BTreeMap<String, Value>>,
}

impl<'a> StepOut<'a> {
    /// None for a step that drivers do not have.
    pub(super) fn new(step: &'a Step) -> Option<Self> {
        let (action, revision, values) = match &step.action {
            Action::Prove { revision, .. } => ("prove", Some(text(revision)), None),
            Action::Capture { purpose: CapturePurpose::Protective } => ("capture", None, None),
            Action::Capture { purpose: CapturePurpose::Evidence } => ("evidence", None, None),
            Action::Pause => ("pause", None, None),
            Action::Stop => ("stop", None, None),
            Action::Restore { to, .. } => ("restore", Some(text(to)), None),
            Action::Set { values } => ("set", None, Some(values)),
            Action::Start => ("start", None, None),
            Action::Resume => ("resume", None, None),
            Action::Stage { .. } | Action::Roll | Action::Check { .. } | Action::Own { .. } => return None,
        };
        Some(Self { id: &step.id.0, action, revision, values })
    }
}

#[derive(Serialize)]
pub(super) struct BeforeOut<'a> {
    at: Timestamp,
    mark: Option<&'a str>,
    key: &'a str,
}

impl<'a> From<&'a Before> for BeforeOut<'a> {
    fn from(before: &'a Before) -> Self {
        Self { at: before.at, mark: before.mark.as_deref(), key: &before.key.0 }
    }
}

/// Reads the one JSON object that an answer is.
/// # Errors
/// In words for the author of the driver.
pub(super) fn answer<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut value: Value = serde_json::from_str(text.trim()).map_err(|error| match text.trim().is_empty() {
        true => "it answers nothing".to_owned(),
        false => format!("its answer is not one JSON object: {}", shown(&error)),
    })?;
    let Some(object) = value.as_object_mut() else { return Err("its answer is not a JSON object".to_owned()) };
    match object.remove("ripcord") {
        Some(version) if version == VERSION => {}
        Some(other) => {
            let other = shown(&other);
            return Err(format!("it speaks version {other} of the protocol, and this Ripcord version {VERSION}"));
        }
        None => {
            return Err(format!(
                "its answer does not say which version of the protocol it speaks (`\"ripcord\": {VERSION}`)"
            ));
        }
    }
    serde_json::from_value(value).map_err(|error| format!("its answer is not what was asked for: {}", shown(&error)))
}

/// The beginning of what holds a driver's own words: an error is on the record and on a line of a terminal, and an answer may be
/// a line of 256 KiB that steers it.
fn shown(words: &impl ToString) -> String {
    const MOST: usize = 200;
    let words = words.to_string();
    let mut plain = words.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] });
    let mut shown: String = plain.by_ref().take(MOST).collect();
    if plain.next().is_some() {
        shown.push_str("...");
    }
    shown
}

/// The words of the protocol for what the rules may call otherwise.
macro_rules! words {
    ($($name:ident for $core:ident { $($word:ident = $value:ident),* })*) => {$(
        #[derive(Debug, Clone, Copy, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub(super) enum $name { $($word),* }

        impl From<$name> for $core {
            fn from(word: $name) -> Self {
                match word {
                    $($name::$word => Self::$value,)*
                }
            }
        }
    )*};
}

words! {
    ObserveIn for Observe { Exactly = Exactly, ByMarker = ByMarker, No = No }
    HeldIn for Held { Vault = Vault, System = BySystem, Nowhere = Nowhere }
    RedoIn for Redo { Never = Never, SameKey = SameKey, Safe = Safe }
    DowntimeIn for Downtime { None = None, UntilHealthy = UntilHealthy }
    LifecycleIn for Lifecycle { None = None, Process = Process, Switch = Switch }
    ReadersIn for Readers { Hot = Hot, Restart = Restart, Stop = Stop }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Described {
    pub kind: String,
    pub version: (u16, u16),
    pub observe: ObserveIn,
    pub held: HeldIn,
    #[serde(default = "never")]
    pub redo: RedoIn,
    #[serde(default)]
    pub restore: Effect,
    #[serde(default = "no_downtime")]
    pub downtime: DowntimeIn,
    #[serde(default = "no_lifecycle")]
    pub lifecycle: LifecycleIn,
    #[serde(default = "hot")]
    pub readers: ReadersIn,
    #[serde(default)]
    pub sets: bool,
    #[serde(default)]
    pub evidence: bool,
}

/// What a restore does to the state before it.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Effect {
    #[default]
    Nothing,
    SetAside,
    GivesUp,
}

fn never() -> RedoIn {
    RedoIn::Never
}
fn no_downtime() -> DowntimeIn {
    DowntimeIn::None
}
fn no_lifecycle() -> LifecycleIn {
    LifecycleIn::None
}
fn hot() -> ReadersIn {
    ReadersIn::Hot
}

impl Described {
    pub(super) fn capabilities(&self, nature: Nature, keep: Duration) -> Capabilities {
        Capabilities {
            nature,
            observe: self.observe.into(),
            held: self.held.into(),
            redo: self.redo.into(),
            restore: match self.restore {
                Effect::Nothing => Destroys::Nothing,
                Effect::SetAside => Destroys::SetAside { keep },
                Effect::GivesUp => Destroys::GivesUp,
            },
            downtime: self.downtime.into(),
            lifecycle: self.lifecycle.into(),
            readers: self.readers.into(),
            sets: self.sets,
            evidence: self.evidence,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Surveyed {
    pub seen: SeenIn,
    pub target: String,
    #[serde(default)]
    pub label: Option<String>,
    #[serde(default)]
    pub instance: Option<String>,
    #[serde(default)]
    pub running: Option<bool>,
    /// One for each wanted, in the order asked.
    #[serde(default)]
    pub available: Vec<AvailableIn>,
    /// One for each wanted, in the order asked, or none at all.
    #[serde(default)]
    pub losses: Vec<Option<LossIn>>,
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    #[serde(default)]
    pub reckoned_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SeenIn {
    At(Option<String>),
    Between(String),
    Unreachable(String),
}

impl From<SeenIn> for Seen {
    fn from(seen: SeenIn) -> Self {
        match seen {
            SeenIn::At(text) => Self::At(revision(text)),
            SeenIn::Between(why) => Self::Between { why },
            SeenIn::Unreachable(why) => Self::Unreachable { why },
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AvailableIn {
    Here(String),
    Missing(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LossIn {
    #[serde(default)]
    pub rows: BTreeMap<String, RowsIn>,
    #[serde(default)]
    pub since: Option<Timestamp>,
    #[serde(default)]
    pub other: Vec<String>,
    #[serde(default)]
    pub how: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RowsIn {
    #[serde(default)]
    pub inserted: u64,
    #[serde(default)]
    pub updated: u64,
    #[serde(default)]
    pub deleted: u64,
}

impl From<LossIn> for Loss {
    fn from(loss: LossIn) -> Self {
        let row = |RowsIn { inserted, updated, deleted }| RowLoss { inserted, updated, deleted };
        let rows = loss.rows.into_iter().map(|(table, rows)| (table, row(rows))).collect();
        Self { rows, since: loss.since, other: loss.other, how: loss.how }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct HeldAnswer {
    pub holds: HoldsIn,
    #[serde(default)]
    pub mark: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HoldsIn {
    Target,
    Origin,
    Neither(String),
    CannotTell(String),
}

impl From<HeldAnswer> for Observation {
    fn from(held: HeldAnswer) -> Self {
        let holds = match held.holds {
            HoldsIn::Target => Holds::Target,
            HoldsIn::Origin => Holds::Origin,
            HoldsIn::Neither(found) => Holds::Neither { found },
            HoldsIn::CannotTell(why) => Holds::CannotTell { why },
        };
        Self { holds, mark: held.mark }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Applied {
    pub outcome: OutcomeIn,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OutcomeIn {
    Done(DoneIn),
    Failed(FailedIn),
    Unknown(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DoneIn {
    pub found: String,
    #[serde(default)]
    pub set_aside: Vec<String>,
    #[serde(default)]
    pub lost: Option<LossIn>,
    #[serde(default)]
    pub captured: Option<CapturedIn>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct CapturedIn {
    pub revision: Option<String>,
    #[serde(default)]
    pub label: Option<String>,
    /// What the system calls it, where the system keeps it.
    #[serde(default)]
    pub name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FailedIn {
    pub what: String,
    #[serde(default)]
    pub retry: Again,
    #[serde(default)]
    pub advice: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Again {
    Later,
    #[default]
    Never,
}

impl From<FailedIn> for Failure {
    fn from(failed: FailedIn) -> Self {
        let retry = match failed.retry {
            Again::Later => Retry::Later,
            Again::Never => Retry::Never,
        };
        Self { what: failed.what, retry, advice: failed.advice, output: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn why<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
        answer::<T>(text).unwrap_err()
    }

    #[test]
    fn a_wrong_answer_says_what_is_wrong_with_it() {
        assert_eq!(why::<HeldAnswer>(" \n"), "it answers nothing");
        assert_eq!(why::<HeldAnswer>("[1]"), "its answer is not a JSON object");
        assert_eq!(
            why::<HeldAnswer>("{} {}"),
            "its answer is not one JSON object: trailing characters at line 1 column 4"
        );
        assert_eq!(
            why::<HeldAnswer>(r#"{"holds":"target"}"#),
            "its answer does not say which version of the protocol it speaks (`\"ripcord\": 1`)"
        );
        assert_eq!(
            why::<HeldAnswer>(r#"{"ripcord":2,"holds":"target"}"#),
            "it speaks version 2 of the protocol, and this Ripcord version 1"
        );
        let long = why::<HeldAnswer>(&format!(r#"{{"ripcord":"{}","holds":"target"}}"#, "9".repeat(9_000)));
        assert!(long.starts_with("it speaks version \"999") && long.contains("...") && long.len() < 300, "{long}");
        let steering = why::<HeldAnswer>(r#"{"ripcord":1,"holds":"\u001b[2J"}"#);
        assert!(steering.contains(r"\u{1b}[2J"), "{steering}");
        for bad in [r#""tagret""#, r#"{"neither":3}"#, "null", r#"{"target":"x"}"#] {
            let text = format!(r#"{{"ripcord":1,"holds":{bad}}}"#);
            assert!(why::<HeldAnswer>(&text).starts_with("its answer is not what was asked for: "), "{text}");
        }
        assert!(why::<HeldAnswer>(r#"{"ripcord":1,"holds":"target","marc":"1"}"#).contains("unknown field `marc`"));
    }

    #[test]
    fn answers_mean_what_the_document_says() {
        let held: HeldAnswer = answer(r#"{"ripcord":1,"holds":{"cannot-tell":"no route"},"mark":"7"}"#).unwrap();
        let expected = Observation { holds: Holds::CannotTell { why: "no route".into() }, mark: Some("7".into()) };
        assert_eq!(Observation::from(held), expected);
        let surveyed: Surveyed = answer(r#"{"ripcord":1,"seen":{"at":null},"target":"t"}"#).unwrap();
        assert_eq!(Seen::from(surveyed.seen), Seen::At(Revision::Absent));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_stumble(text in ".*", json in r#"\{"ripcord":1,"(holds|seen|outcome|kind)":[\[\]{}":,a-z0-9]{0,30}\}"#) {
            for text in [&text, &json] {
                let _ = answer::<Described>(text);
                let _ = answer::<Surveyed>(text);
                let _ = answer::<HeldAnswer>(text);
                let _ = answer::<Applied>(text);
            }
        }
    }
}
