//! The parts of `ripcord.yaml` that do not depend on kinds, as they are written. The docs of the fields *are* the reference.
//!
//! Components, signals, checks and matrix rows hold keys that only the kinds or the file itself know; they are taken apart in
//! `resolve`, and what is common to them stands here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::read::At;
use crate::wire::{SecretFrom, Span};

/// A number or a text such as `5%`, `2s`, `500MB`: what it may be depends on what it is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Figure {
    Number(f64),
    Text(String),
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Figure {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct FigureVisitor;
        impl Visitor<'_> for FigureVisitor {
            type Value = Figure;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a figure such as `5%`, `2s` or `100`")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Figure, E> {
                Ok(Figure::Number(n as f64))
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Figure, E> {
                Ok(Figure::Number(n as f64))
            }
            fn visit_f64<E: de::Error>(self, n: f64) -> Result<Figure, E> {
                Ok(Figure::Number(n))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Figure, E> {
                Ok(Figure::Text(text.to_owned()))
            }
        }
        from.deserialize_any(FigureVisitor)
    }
}

impl JsonSchema for Figure {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Figure".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A number with the unit of what it is compared with: `5%`, `2s`, `500MB`, `100`.",
            "type": ["string", "number"]
        })
    }
}

/// A list of names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(pub Vec<At<String>>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vec::deserialize(from).map(Self)
    }
}

impl JsonSchema for Names {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Names".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "array", "items": { "type": "string" } })
    }
}

/// A mapping whose keys are names, in the order written.
#[derive(Debug, Clone)]
pub(crate) struct Each<T>(pub Vec<(At<String>, T)>);

impl<T> Default for Each<T> {
    fn default() -> Self {
        Self(vec![])
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Each<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct EachVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for EachVisitor<T> {
            type Value = Each<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Each<T>, A::Error> {
                let mut entries = vec![];
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Each(entries))
            }
        }
        from.deserialize_map(EachVisitor(std::marker::PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Each<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Each{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let each = generator.subschema_for::<T>();
        schemars::json_schema!({ "type": "object", "additionalProperties": each })
    }
}

/// What every component has beside its kind.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Component {
    /// What sort of thing it is. By default what its kind usually is.
    pub layer: Option<Layer>,
    /// The components that must be in place before this one starts.
    #[serde(default)]
    pub needs: Names,
    /// The host it is on: one of `hosts`, or a group of them. By default the machine Ripcord runs on.
    pub host: Option<At<String>>,
    /// The hosts it is on, by name or group. It has a place on each; its settings are the same, relative to each host's directory.
    pub hosts: Option<Names>,
    /// The longest one of its steps may take, where the kind's own limit does not fit.
    pub step_limit: Option<At<Span>>,
}

/// What sort of thing a component is.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Layer {
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

/// What every signal has beside its kind.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Signal {
    /// How often it is read. Default `10s`.
    pub every: Option<At<Span>>,
    /// How long one reading may take. Default `5s`.
    pub timeout: Option<At<Span>>,
    /// The host it is read on: one of `hosts`. By default the machine Ripcord runs on. (`host` is a kind of signal.)
    pub on_host: Option<At<String>>,
}

/// A machine that components are on, reached over SSH.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Host {
    /// How it is reached.
    pub ssh: Ssh,
    /// The directory on the host that relative paths in settings are relative to there. Absolute.
    pub directory: At<PathBuf>,
    /// A file on this machine that is sent as the agent. By default this very program; another is needed where the host has another
    /// architecture or older system libraries.
    pub agent: Option<At<PathBuf>>,
    /// The path of a `ripcord` of this very version that is installed on the host: then nothing is sent.
    pub installed: Option<At<PathBuf>>,
    /// How many calls may be under way there at a time. Default `8`.
    pub calls: Option<At<u32>>,
}

/// How a host is reached: by the `ssh` of this machine, with everything `~/.ssh/config` says (users, keys, agents, jump hosts).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Ssh {
    /// What `ssh` is given: `user@host`, a host, or an alias of `~/.ssh/config`.
    pub to: At<String>,
    /// By default what `ssh` takes.
    pub port: Option<At<u16>>,
    /// Another configuration than `~/.ssh/config`.
    pub config: Option<PathBuf>,
    /// Options of ssh_config(5), as for `ssh -o`: `ProxyJump=bastion`.
    #[serde(default)]
    pub options: Vec<At<String>>,
}

/// What every check has beside the signal it reads: one of the signal kinds, written in place, or `signal:` with the name of a
/// declared one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Check {
    /// What it is called in reports. By default `check-<component>-<n>`, `closed-<n>` or `open-<n>`.
    pub name: Option<At<String>>,
    /// A declared signal to read.
    pub signal: Option<At<String>>,
    /// The condition that must hold, in CEL, over `value`, `n`, the fields of the signal's kind, `target.version` and `baseline`.
    /// For a signal that says whether something is failing: by default that it is not.
    pub assert: Option<At<String>>,
    /// How long it may take until it passes. Default `1m`.
    pub within: Option<At<Span>>,
    /// How many readings in a row must pass. Default `1`.
    pub passes: Option<At<u32>>,
    /// How often it is read. Default `1s`; for a declared signal, the signal's own.
    pub every: Option<At<Span>>,
    /// How long one reading may take. Default `5s`. For signals written in place.
    pub timeout: Option<At<Span>>,
    /// What a reading must rest on (`50 requests`); less is no verdict.
    pub at_least: Option<At<Figure>>,
}

/// When a signal has been bad for long enough to say so.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Trigger {
    /// The signal it judges.
    pub signal: At<String>,
    /// Bad is more than this: `5%` of a share, `2s` of a time, `500MB` of a size, a number otherwise.
    pub above: Option<At<Figure>>,
    /// Bad is less than this.
    pub below: Option<At<Figure>>,
    /// Bad is more than this many times what was normal before the release: `3x`.
    pub above_baseline: Option<At<Figure>>,
    /// Bad is less than this many times what was normal before the release: `0.5x`.
    pub below_baseline: Option<At<Figure>>,
    /// With a baseline: values up to this are never bad (for `below-baseline`: a baseline up to this says nothing).
    pub floor: Option<At<Figure>>,
    /// How long it must be bad without one good reading in between.
    #[serde(rename = "for")]
    pub hold: Option<At<Span>>,
    /// How many bad readings within `within` are enough, whatever came between.
    pub times: Option<At<u32>>,
    /// The window of `times`.
    pub within: Option<At<Span>>,
    /// `times` and `within` in words: `2 times within 10m`.
    pub occurs: Option<At<String>>,
    /// How many of the last readings must be bad: `3 of 5`.
    pub of: Option<At<String>>,
    /// What a reading must rest on (`50 requests`); less is no verdict.
    pub at_least: Option<At<Figure>>,
    /// When it is good again. By default when the condition has not held for as long as it was held.
    pub clear: Option<At<Clear>>,
    /// What no data means. Default `page`.
    pub missing: Option<Missing>,
    /// What a failing observer means. Default `page`.
    pub errors: Option<Missing>,
    /// Bad is also: nothing for this long, while the observer is healthy.
    pub absent_for: Option<At<Span>>,
    /// A condition in CEL over the values of declared signals, without which nothing counts. A `-` or `.` in a signal's name is
    /// written `_`.
    pub when: Option<At<String>>,
    /// How bad it is: one of `severities`. By default that of the matrix's `otherwise`.
    pub severity: Option<At<String>>,
    /// The issue a breach is, for the matrix. By default the trigger's own name.
    pub issue: Option<At<String>>,
    /// The components a breach points at: what the suspect release must have touched. Default: any.
    #[serde(default)]
    pub points_at: Names,
    /// What a breach leads to. Default `decide`.
    pub then: Option<Follows>,
    /// Where the figures come from.
    pub source: Option<String>,
}

/// When a breach is over.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Clear {
    /// For `above` (`1%`) and `above-baseline` (`1.2x`): good is at most this.
    pub below: Option<At<Figure>>,
    /// For `below` and `below-baseline`: good is at least this.
    pub above: Option<At<Figure>>,
    /// For how long. By default as long as the trigger's `for`.
    #[serde(rename = "for")]
    pub hold: Option<At<Span>>,
}

/// What no data, or a failing observer, means. It never starts a rollback.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Missing {
    /// It is shown; nobody is told.
    Ignore,
    /// What was pending stays pending for a while.
    Hold,
    /// People are told that monitoring is blind.
    Page,
}

/// What a breach leads to.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Follows {
    /// The matrix decides.
    Decide,
    /// A person is told; nothing is proposed.
    Page,
    /// Counted, never acted on: for trying a trigger out.
    Shadow,
}

/// One severity. The first in the file is the worst.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Severity {
    /// How soon somebody must respond.
    pub respond_within: At<Span>,
    /// Who may say yes. Default: one person, whoever it is, within `respond-within`.
    pub approve: Option<At<Approve>>,
}

/// Who may say yes: `automatic`, or who.
#[derive(Debug, Clone)]
pub(crate) enum Approve {
    Automatic,
    By(ApproveBy),
}

/// Who may say yes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ApproveBy {
    /// Whether rows of the matrix marked `automatic` may go ahead without a person. Default `false`.
    #[serde(default)]
    pub automatic: bool,
    /// The roles that may approve. Default: anybody.
    #[serde(default)]
    pub roles: Names,
    /// How many different people must approve. Default `1`.
    pub quorum: Option<At<u32>>,
    /// An answer later than this escalates; silence never approves. Default: `respond-within`.
    pub within: Option<At<Span>>,
}

impl<'de> Deserialize<'de> for Approve {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ApproveVisitor;
        impl<'de> Visitor<'de> for ApproveVisitor {
            type Value = Approve;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`automatic` or a mapping such as `{ roles: [lead], quorum: 1 }`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Approve, E> {
                match text {
                    "automatic" => Ok(Approve::Automatic),
                    other => Err(E::unknown_variant(other, &["automatic"])),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Approve, A::Error> {
                ApproveBy::deserialize(de::value::MapAccessDeserializer::new(map)).map(Approve::By)
            }
        }
        from.deserialize_any(ApproveVisitor)
    }
}

impl JsonSchema for Approve {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Approve".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let by = generator.subschema_for::<ApproveBy>();
        schemars::json_schema!({
            "description": "`automatic` (rows marked so need no person), or who may say yes.",
            "anyOf": [{ "const": "automatic" }, by]
        })
    }
}

/// What a row of the matrix has beside its cells. Every other key is a figure with its bounds: `> 5%`, `<= 1%`, `1% to 5%`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Row {
    /// What it is called in decisions.
    pub name: At<String>,
    /// The issues it is about. Default: any.
    #[serde(default)]
    pub issue: Names,
    /// Whether one figure within its bounds is enough (`any`) or all must be (`all`). Default `all`.
    #[serde(rename = "match")]
    pub combine: Option<Combine>,
    /// What is to be done.
    pub call: At<Call>,
    /// By when: `immediate`, a time such as `5m`, or `best-effort`. Default `immediate` for a rollback, else `best-effort`.
    pub within: Option<At<Within>>,
    /// How bad it is: one of `severities`.
    pub severity: At<String>,
    /// The strategy whose ladder is climbed, or offered to the person who decides. By default the default strategy.
    pub strategy: Option<At<String>>,
    /// Whether this is a clear case that needs no person. Default `false`.
    pub automatic: Option<At<bool>>,
}

/// What holds where no row matches.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Otherwise {
    /// What is to be done.
    pub call: At<Call>,
    /// By when: `immediate`, a time such as `5m`, or `best-effort`. Default `immediate` for a rollback, else `best-effort`.
    pub within: Option<At<Within>>,
    /// How bad it is: one of `severities`.
    pub severity: At<String>,
    /// The strategy that is offered. By default the default strategy.
    pub strategy: Option<At<String>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Combine {
    Any,
    All,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Call {
    /// Roll back.
    Rollback,
    /// A person decides; a rollback is offered.
    Evaluate,
    /// Find the cause first.
    Investigate,
    /// Watch.
    Monitor,
    /// Repair and release anew.
    FixForward,
    /// A rollback would make it worse.
    DoNotRollBack,
}

/// By when.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Within {
    Immediate,
    BestEffort,
    Most(Span),
}

impl<'de> Deserialize<'de> for Within {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Figure::deserialize(from)? {
            Figure::Text(text) if text == "immediate" => Ok(Self::Immediate),
            Figure::Text(text) if text == "best-effort" => Ok(Self::BestEffort),
            other => {
                let span = crate::wire::span(&other.to_string()).map_err(|why| {
                    let what = why.lines().next().unwrap_or_default();
                    de::Error::custom(format!("{what}\nwrite `immediate`, `best-effort` or a time such as `5m`"))
                })?;
                Ok(Self::Most(Span(span)))
            }
        }
    }
}

impl JsonSchema for Within {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Within".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let span = generator.subschema_for::<Span>();
        schemars::json_schema!({
            "description": "`immediate`, `best-effort`, or a time such as `5m`.",
            "anyOf": [{ "enum": ["immediate", "best-effort"] }, span]
        })
    }
}

/// One level of a strategy: how far to go back, and whether the next level may follow without a person.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rung {
    /// Its height: 1 toggles, 2 code and configuration, 3 full restore. Levels rise from one to the next.
    pub level: At<u8>,
    /// What it is called. Default `level-<n>`.
    pub name: Option<At<String>>,
    /// Values to set, by component: `settings: { FAST_CHECKOUT: "false" }`. Nothing else is touched.
    pub set: Option<At<Each<BTreeMap<String, Value>>>>,
    /// The components to take back, by name, or `versioned` for every one that changes by release only. Data is taken back only
    /// where its component is named.
    pub restore: Option<At<Restore>>,
    /// How long it should take; overrunning tells people, it stops nothing. Default `2m`, `15m`, `45m` for levels 1, 2, 3.
    pub budget: Option<At<Span>>,
    /// Whether the next level may follow without a person where this one did not help. Default `ask`.
    pub then: Option<Then>,
}

/// A list of components, or `versioned`.
#[derive(Debug, Clone)]
pub(crate) enum Restore {
    Versioned,
    Named(Names),
}

impl<'de> Deserialize<'de> for Restore {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct RestoreVisitor;
        impl<'de> Visitor<'de> for RestoreVisitor {
            type Value = Restore;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of components, or `versioned`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Restore, E> {
                match text {
                    "versioned" => Ok(Restore::Versioned),
                    other => Err(E::custom(format!(
                        "expected a list of components, or `versioned`, found the text `{other}`\nwrite `[{other}]`"
                    ))),
                }
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Restore, A::Error> {
                Names::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Restore::Named)
            }
        }
        from.deserialize_any(RestoreVisitor)
    }
}

impl JsonSchema for Restore {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Restore".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "const": "versioned" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Then {
    Automatic,
    Ask,
}

/// The figures the rules go by.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Policy {
    /// A release older than this is not suspected without a person. Default `24h`.
    pub suspect_for: Option<At<Span>>,
    /// How long a release must be healthy, with data, to be judged good. Default `30m`.
    pub bake: Option<At<Span>>,
    /// How long the triggers are watched after a rollback before it is called a success. Default `15m`.
    pub watch: Option<At<Span>>,
    /// How long the breached signals may take to recover once everything is restored. Default `5m`.
    pub helps_within: Option<At<Span>>,
    /// How near to what was normal a breached signal must come: `1.5x` is no more than half worse. Default `1.5x`.
    pub recovered_at: Option<At<Figure>>,
    /// How many steps may run at a time on one machine. Default `8`.
    pub per_host: Option<At<u32>>,
    /// How far a capture must have been proven to be relied on without a person. Default `read-back`.
    pub automatic_proof: Option<Proof>,
    /// Captures that nothing needs are kept this long. Default `30d`.
    pub keep_captures: Option<At<Span>>,
    /// What was set aside is kept this long. Default `7d`.
    pub keep_aside: Option<At<Span>>,
    /// How often `ripcord watch` reads back what one may have to go back to. Default `24h`.
    pub prove_every: Option<At<Span>>,
    /// How long a deployment measures every signal for what is normal, right before it runs its command. Default `30s`.
    pub baseline: Option<At<Span>>,
}

/// How far a capture has been shown to be restorable.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Proof {
    Written,
    ReadBack,
    Restored,
    Drilled,
}

/// Where captures are kept.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Vault {
    /// The vault's directory. Default `.ripcord/vault`.
    pub directory: Option<PathBuf>,
    /// Where its key is. By default the file `.ripcord/vault.key`, made when it is first needed.
    pub key: Option<SecretFrom>,
}

/// Who is told what.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Notify {
    /// What it is about. Default: everything.
    #[serde(default)]
    pub about: Vec<About>,
    /// Only at this severity or worse. Default: any.
    pub at_least: Option<At<String>>,
    /// The channels, in order: the next is tried when one fails.
    pub to: At<Names>,
}

/// What a message is about.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum About {
    Incident,
    ApprovalNeeded,
    Started,
    Progress,
    Succeeded,
    Insufficient,
    Parked,
    Ended,
    Blind,
    Obligation,
    Released,
}

macro_rules! same {
    ($($ours:ident { $($variant:ident)* })*) => {$(
        impl From<$ours> for ripcord_core::$ours {
            fn from(ours: $ours) -> Self {
                match ours {
                    $($ours::$variant => Self::$variant,)*
                }
            }
        }
    )*};
}

same! {
    Layer { Code Config Flags Dependencies Schema Data Ui Cache Traffic }
    Missing { Ignore Hold Page }
    Follows { Decide Page Shadow }
    Combine { Any All }
    Call { Rollback Evaluate Investigate Monitor FixForward DoNotRollBack }
    About { Incident ApprovalNeeded Started Progress Succeeded Insufficient Parked Ended Blind Obligation Released }
}

impl From<Then> for ripcord_core::Climb {
    fn from(then: Then) -> Self {
        match then {
            Then::Automatic => Self::Automatic,
            Then::Ask => Self::Ask,
        }
    }
}

impl From<Proof> for ripcord_core::ProofLevel {
    fn from(proof: Proof) -> Self {
        match proof {
            Proof::Written => Self::Written,
            Proof::ReadBack => Self::ReadBack,
            Proof::Restored => Self::Restored,
            Proof::Drilled => Self::Drilled,
        }
    }
}

impl From<Within> for ripcord_core::Within {
    fn from(within: Within) -> Self {
        match within {
            Within::Immediate => Self::Immediate,
            Within::BestEffort => Self::BestEffort,
            Within::Most(Span(most)) => Self::At { most },
        }
    }
}
