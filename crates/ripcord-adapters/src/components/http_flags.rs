//! Feature flags over HTTP: read, set value by value, taken back to what they were, and seen to have effect.
//!
//! The flags are read before each write, and only what differs is written. Where the service offers an ETag, it is demanded again
//! with If-Match, so that nobody's change is written over unseen: a change elsewhere is taken in and the write repeated, a change of
//! these very flags stops the step. That a write was answered is a report; what counts is what is read afterwards, and where `effects`
//! are given, what the application itself says.
//!
//! Source: RFC 7396 (JSON Merge Patch), RFC 6902 (JSON Patch), RFC 9110, 13.1.1 (If-Match).

mod api; // speaks to the service, knows no rollback
mod write; // what is sent

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use ripcord_config::wire::{SecretFrom, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CaptureRef, Component, ComponentId, Cx, Destroys, Digest,
    Draft, Failure, Fut, Held, Holds, Inventory, KindVersion, Layer, Limits, Made, Observation, Outcome, Phase, Place,
    Proof, Redo, Revision, Seen, Shown, Step, Survey, TargetId, Want, Wanted, Wish,
};
use ripcord_vault::Source;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use self::api::{Api, Effect, Where};
use self::write::Method;
use super::files::captures::{self, Captures};
use super::files::{Stop, blocking, outcome};
use super::tool::poll;
use crate::http::{Caller, Headers, Way, pointer_mistake, url};
use crate::{BuildCx, BuildError, ComponentKind};

/// Where the values lie in a capture.
const CONTENT: &str = "flags.json";
/// What stands in a URL where the flag's name goes.
const FLAG: &str = "{flag}";

/// By the name that settings give a flag. Null is a flag that is not there.
type Values = BTreeMap<String, Value>;

/// Flags of a service that is read and written over HTTP.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Where a flag is read and written, with `{flag}` in place of its name; or one document that holds them all.
    pub url: Text,
    /// The flags that belong to a release: names where the URL has `{flag}`, else JSON pointers into the document (`/checkout/new`).
    pub flags: Vec<String>,
    /// Where in the answer for one flag its value is, by JSON pointer. Only with `{flag}` in the URL.
    #[serde(default = "enabled")]
    pub field: String,
    #[serde(default)]
    pub write: Method,
    /// Where the application itself says what it makes of a flag, by flag.
    #[serde(default)]
    pub effects: BTreeMap<String, EffectSetting>,
    #[serde(default)]
    pub headers: BTreeMap<String, Text>,
    #[serde(default)]
    pub secret_headers: BTreeMap<String, SecretFrom>,
    /// Sent as `Authorization: Bearer ...`, but not where effects are read.
    #[serde(default)]
    pub bearer: Option<SecretFrom>,
}

/// What shows that a flag is in force.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EffectSetting {
    pub get: Text,
    /// Where in the JSON answer the flag's value is to be found, by JSON pointer.
    pub field: String,
}

fn enabled() -> String {
    "/enabled".to_owned()
}

impl Settings {
    fn headers(&self) -> Headers<'_> {
        Headers { plain: &self.headers, secret: &self.secret_headers, bearer: self.bearer.as_ref() }
    }

    fn by_flag(&self) -> bool {
        self.url.as_str().contains(FLAG)
    }

    fn place(&self) -> Result<Where, Mistake> {
        if !self.by_flag() {
            return Ok(Where::Document(url(&self.url, "url")?));
        }
        let of = |flag: &String| {
            let text = Text(self.url.as_str().replace(FLAG, &percent(flag)));
            Ok((flag.clone(), url(&text, "url")?))
        };
        let urls = self.flags.iter().map(of).collect::<Result<BTreeMap<String, Url>, Mistake>>()?;
        Ok(Where::ByFlag { urls, field: self.field.clone() })
    }
}

/// A name as one part of a path.
fn percent(name: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    name.bytes().map(|b| if keep(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "http-flags",
        summary: "Feature flags over HTTP: set, taken back to what they were, and seen to have effect.",
        example: "\
url: \"http://127.0.0.1:8080/api/flags/{flag}\"
flags: [new-checkout, parallel-uploads]
field: /enabled
write: merge-patch
effects:
  new-checkout: { get: http://127.0.0.1:8080/version, field: /features/checkout }
bearer: { dotenv: { file: shared/.env, key: FLAGS_TOKEN } }
",
        layer: Layer::Flags,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = self.headers().check();
        mistakes.extend(self.place().err());
        if self.flags.is_empty() {
            mistakes.push(Mistake::new("no flag is named").at("flags").help("name the flags that belong to a release"));
        }
        for (i, flag) in self.flags.iter().enumerate() {
            let at = format!("flags.{i}");
            if self.flags[..i].contains(flag) {
                mistakes.push(Mistake::new(format!("`{flag}` is named twice")).at(&at));
            }
            match (self.by_flag(), flag.is_empty()) {
                (_, true) => mistakes.push(Mistake::new("a flag has no name").at(at)),
                (true, false) => {}
                (false, false) => mistakes.extend(pointer_mistake(flag, &at)),
            }
        }
        if !self.by_flag() {
            for (i, flag) in self.flags.iter().enumerate() {
                let inside = |other: &&String| flag.starts_with(&format!("{other}/"));
                if let Some(other) = self.flags.iter().find(inside) {
                    mistakes.push(Mistake::new(format!("`{flag}` is part of `{other}`")).at(format!("flags.{i}")));
                }
            }
        }
        mistakes.extend(pointer_mistake(&self.field, "field"));
        for (flag, effect) in &self.effects {
            if !self.flags.contains(flag) {
                mistakes.push(Mistake::new(format!("`{flag}` is not among `flags`")).at(format!("effects.{flag}")));
            }
            mistakes.extend(url(&effect.get, &format!("effects.{flag}.get")).err());
            mistakes.extend(pointer_mistake(&effect.field, &format!("effects.{flag}.field")));
        }
        mistakes
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let bad = |mistake: Mistake| BuildError::new(id, mistake.what);
        let caller = |headers| Caller::new(headers, Way::Proxied, cx).map_err(|why| BuildError::new(id, why));
        let (none, nothing) = (BTreeMap::new(), BTreeMap::new());
        let effect = |(flag, effect): (&String, &EffectSetting)| {
            let url = url(&effect.get, "effects").map_err(bad)?;
            Ok((flag.clone(), Effect { url, field: effect.field.clone() }))
        };
        let api = Api {
            place: self.place().map_err(bad)?,
            flags: self.flags.clone(),
            method: self.write,
            caller: caller(self.headers())?,
            effects: self.effects.iter().map(effect).collect::<Result<_, _>>()?,
            outside: caller(Headers { plain: &none, secret: &nothing, bearer: None })?,
        };
        Ok(Arc::new(HttpFlags {
            shown: self.url.to_string(),
            api,
            captures: Captures::new(id, cx),
            keep: cx.keep_aside,
        }))
    }
}

struct HttpFlags {
    /// As it is written in the settings.
    shown: String,
    api: Api,
    captures: Captures,
    keep: Duration,
}

/// The identity of the flags' values. Flags are no secrets, so anybody may recompute it.
fn revision(values: &Values) -> Revision {
    let canonical: BTreeMap<_, _> = values.iter().map(|(flag, value)| (flag, sorted(value))).collect();
    Revision::exact(Digest::of_value(&canonical).to_string())
}

/// The order of keys says nothing.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<_, _> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            Value::Object(map.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

fn mark_of(revision: &Revision) -> String {
    match revision {
        Revision::Absent => "absent".to_owned(),
        Revision::Exact(id) => id.0.clone(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "(not there)".to_owned(),
        other => other.to_string(),
    }
}

impl HttpFlags {
    async fn survey(&self, cx: &Cx, place: &Place, wanted: &[Wanted]) -> Survey {
        let read = self.api.read(cx.limit).await;
        let seen = match &read {
            Ok(read) => Seen::At(revision(&read.values)),
            Err(failure) => Seen::Unreachable { why: failure.what.clone() },
        };
        let target = TargetId(format!("http:{}", self.api.caller.redactor().clean(&self.shown)));
        let mut survey = Survey::new(place.clone(), seen, target);
        if let Ok(read) = &read {
            let words: Vec<_> = read.values.iter().map(|(flag, value)| format!("{flag} {}", shown(value))).collect();
            survey.label = Some(self.api.caller.redactor().clean(&words.join(", ")));
            let absent: Vec<_> =
                read.values.iter().filter(|(_, value)| value.is_null()).map(|(flag, _)| flag.as_str()).collect();
            if !absent.is_empty() {
                survey.facts.insert("not there".into(), absent.join(", "));
            }
            if !read.guarded() {
                let words = "it offers no ETag: a change that somebody makes in the same moment may be written over";
                survey.facts.insert("unguarded".into(), words.to_owned());
            }
            for wanted in wanted {
                let Some(Ok(made)) = self.captures.wanted(wanted) else { continue };
                let Ok(former) = self.checked(made).await else { continue };
                let differ: Vec<_> =
                    former.iter().filter(|(flag, value)| read.values.get(*flag) != Some(value)).collect();
                if !differ.is_empty() {
                    let words: Vec<_> = differ.iter().map(|(flag, value)| format!("{flag} {}", shown(value))).collect();
                    let words = self.api.caller.redactor().clean(&words.join(", "));
                    survey.facts.insert(format!("had in {}", wanted.revision.short()), words);
                }
            }
        }
        for wanted in wanted {
            let (captures, asked) = (self.captures.clone(), wanted.clone());
            let looked = blocking(move |_| captures.available(&asked)).await;
            let available = looked.unwrap_or_else(|failure| Available::Missing { why: failure.what });
            survey.available.push((wanted.clone(), available));
        }
        survey.reckoned = Some(Duration::from_millis(200));
        survey
    }

    /// The values that a capture holds, once they were shown to be what it is said to hold.
    async fn checked(&self, made: Made) -> Result<Values, Failure> {
        let captures = self.captures.clone();
        let to = made.revision.clone();
        let bytes = blocking(move |_| captures.bytes(&captures::manifest(&made)?, CONTENT)).await??;
        let values: Values = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::never(format!("the capture cannot be read: {error}")))?;
        let is = revision(&values);
        if is != to {
            return Err(Failure::never(format!("the capture holds {}, not {}", is.short(), to.short())));
        }
        // The list of flags may have changed since: what it had then is all that can be put back.
        match values.keys().find(|flag| !self.api.flags.contains(flag)) {
            None => Ok(values),
            Some(flag) => {
                Err(Failure::never(format!("the capture holds `{flag}`, which is not among `flags` any more"))
                    .advise("name it again, or choose a newer release"))
            }
        }
    }

    async fn found(&self, from: Option<&CaptureRef>, before: &Before, to: &Revision) -> Result<Values, Failure> {
        let made = self.captures.find(from, before, to)?;
        self.checked(made.ok_or_else(|| Failure::never("the step names no capture to restore from"))?).await
    }

    async fn observe(&self, cx: &Cx, step: &Step, before: Option<&Before>) -> Result<Observation, Failure> {
        let read = self.api.read(cx.limit / 2).await?;
        let mark = mark_of(&revision(&read.values));
        let reached = match &step.action {
            Action::Restore { to, .. } => mark_of(to) == mark,
            Action::Set { values } => values.iter().all(|(flag, value)| read.values.get(flag) == Some(value)),
            _ => false,
        };
        let same = before.and_then(|before| before.mark.as_ref()).is_none_or(|was| *was == mark);
        let holds = match (reached, same) {
            (true, _) => match self.api.without_effect(&read.values, cx.limit / 3).await {
                Ok(None) => Holds::Target,
                Ok(Some(found)) => Holds::Neither { found },
                Err(failure) => Holds::CannotTell { why: failure.what },
            },
            (false, true) => Holds::Origin,
            (false, false) => Holds::Neither { found: "the flags were changed by somebody else".to_owned() },
        };
        Ok(Observation { holds, mark: Some(mark) })
    }

    async fn act(&self, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Stop> {
        match &step.action {
            Action::Prove { revision, capture } => {
                let wanted = Wanted { revision: revision.clone(), capture: capture.clone() };
                let made = self.captures.wanted(&wanted);
                let made = made.unwrap_or_else(|| Err(Failure::never("no capture of it was ever made")))?;
                let values = self.checked(made).await?;
                let now = self.api.read(cx.limit / 2).await?;
                self.api.writable(&now.values, &values)?;
                Ok(Proof::of(format!("the capture was read back, {} flags; the service answers", values.len())))
            }
            Action::Capture { .. } => Ok(self.capture(cx, before).await?),
            Action::Restore { to, from } => {
                let values = self.found(from.as_ref(), before, to).await?;
                self.change(cx, before, &values).await
            }
            Action::Set { values } => self.change(cx, before, values).await,
            other => Err(Failure::never(format!("flags cannot do {other:?}")).into()),
        }
    }

    async fn store(&self, cx: &Cx, before: &Before, why: &'static str, values: &Values) -> Result<Made, Failure> {
        let bytes = serde_json::to_vec(values).map_err(|error| Failure::never(error.to_string()))?;
        let source = Source::Bytes { path: CONTENT.to_owned(), bytes, mode: 0o600 };
        let (captures, cx, key) = (self.captures.clone(), cx.clone(), before.key.clone());
        let manifest = blocking(move |_| captures.store(&cx, &key, why, vec![source])).await??;
        captures::made(revision(values), Some(format!("{} flags", values.len())), &manifest)
    }

    async fn capture(&self, cx: &Cx, before: &Before) -> Result<Proof, Failure> {
        let read = self.api.read(cx.limit / 2).await?;
        let made = self.store(cx, before, "the present state", &read.values).await?;
        let found = format!("{} flags captured and read back", read.values.len());
        Ok(Proof { capture: Some(made), ..Proof::of(found) })
    }

    /// Makes the flags these values, and sees that they are.
    async fn change(&self, cx: &Cx, before: &Before, values: &Values) -> Result<Proof, Stop> {
        let deadline = Instant::now() + cx.limit - cx.limit / 8;
        let now = self.api.read(left(deadline)).await?;
        let differs = |now: &Values| values.iter().any(|(flag, value)| now.get(flag) != Some(value));
        let mut set_aside = vec![];
        if differs(&now.values) {
            self.api.writable(&now.values, values)?;
            if self.captures.vault().is_ok() {
                let made = self.store(cx, before, "set aside", &now.values).await?;
                let id: String = made.content.short();
                set_aside.push(format!("the former values in the vault, content {id}"));
            }
            self.api.write(now, values, deadline).await?;
        }
        let seen = poll(deadline, || async {
            let now = self.api.read(left(deadline)).await.map_err(|failure| failure.what)?;
            if differs(&now.values) {
                return Err("the flags do not have these values".to_owned());
            }
            match self.api.without_effect(&now.values, left(deadline)).await {
                Ok(None) => Ok(()),
                Ok(Some(found)) => Err(found),
                Err(failure) => Err(failure.what),
            }
        });
        seen.await.map_err(|seen| Failure::never(format!("the write was answered well, but {seen}")))?;
        let words: Vec<_> = values.iter().map(|(flag, value)| format!("{flag} {}", shown(value))).collect();
        let found = self.api.caller.redactor().clean(&words.join(", "));
        let effect = if self.api.effects.is_empty() { "" } else { "; the application says so" };
        Ok(Proof { set_aside, ..Proof::of(format!("{found}{effect}")) })
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(50))
}

impl Component for HttpFlags {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: Settings::DOC.name.to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        let restore = Destroys::SetAside { keep: self.keep };
        Capabilities { held: Held::Vault, restore, sets: true, ..Capabilities::NONE }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(self.survey(cx, place, wanted))
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: String| CannotPlan { place: wish.place.clone(), why };
        let survey = seen.surveys.get(&wish.place).ok_or_else(|| cannot("it was not surveyed".to_owned()))?;
        let (action, words) = match &wish.want {
            Want::Values(values) if values.is_empty() => return Ok(vec![]),
            Want::Values(values) => {
                if let Some(flag) = values.keys().find(|flag| !self.api.flags.contains(flag)) {
                    return Err(cannot(format!("`{flag}` is not among its `flags`")));
                }
                let words: Vec<_> = values.iter().map(|(flag, value)| format!("{flag} to {}", shown(value))).collect();
                (Action::Set { values: values.clone() }, format!("set {} at {}", words.join(", "), self.shown))
            }
            Want::Revision { revision, .. } if survey.seen.revision() == Some(revision) => return Ok(vec![]),
            Want::Revision { revision, capture } => {
                if let Some(Available::Missing { why }) = survey.available(revision) {
                    return Err(cannot(why.clone()));
                }
                let Some(capture) = capture else { return Err(cannot("no capture holds it".to_owned())) };
                let had = survey.facts.get(&format!("had in {}", revision.short()));
                let words = match had {
                    Some(had) => format!("put the flags at {} back: {had}", self.shown),
                    None => format!("put the flags at {} back as they were captured", self.shown),
                };
                let from = Some(CaptureRef::Known(capture.clone()));
                (Action::Restore { to: revision.clone(), from }, words)
            }
        };
        let command = vec![self.api.method.verb().to_owned(), self.api.caller.redactor().clean(&self.shown)];
        Ok(vec![Draft {
            phase: Phase::Restore,
            action,
            destroys: Destroys::SetAside { keep: self.keep },
            redo: Redo::Safe,
            limits: Limits::default(),
            shown: Shown { words, commands: vec![command] },
        }])
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let looked = self.observe(cx, step, before).await;
            looked.unwrap_or_else(|failure| Holds::CannotTell { why: failure.what }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move { outcome(self.act(cx, step, before).await) })
    }
}
