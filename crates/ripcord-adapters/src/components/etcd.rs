//! The keys of an etcd prefix: captured at one revision, put back exactly, set one by one.
//!
//! Nothing is written that does not differ; what differs is put or deleted in one transaction, which counts on every key being as it
//! was read, so that nobody's change is written over unseen and a watcher sees the old or the new, never a mixture. What does not fit
//! into one goes in several, each as guarded, and is read back; half of it done is seen as such and carried on. Nothing is restarted:
//! who watches the prefix notices by itself.
//!
//! Keys with a lease (locks, elections, registrations of services) belong to who keeps them alive and not to a release: they are neither
//! captured nor written nor deleted, and the survey names them.

mod content; // what a prefix holds, and what differs
mod restore; // what is sent

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ripcord_config::wire::{SecretFrom, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CaptureRef, Component, ComponentId, Cx, Destroys, Draft,
    Failure, Fut, Held, Holds, Inventory, KindVersion, Layer, Limits, Made, Observation, Outcome, Phase, Place, Proof,
    Readers, Redo, Revision, Seen, Shown, Step, Survey, TargetId, Want, Wanted, Wish,
};
use ripcord_vault::Source;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use self::content::Content;
use super::files::captures::{self, Captures};
use super::files::{ReadersSetting, Stop, blocking, outcome};
use crate::etcd::{Etcd, Reach, Snapshot, Trouble};
use crate::{BuildCx, BuildError, ComponentKind};

/// Where the keys lie in a capture: each line is the body of the request that puts one.
const CONTENT: &str = "keys.jsonl";

/// The keys of an etcd prefix, through the JSON gateway of the cluster.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The cluster's client URLs. The one that answered last is asked first, the others when it does not answer.
    pub endpoints: Vec<Text>,
    /// The application's own keys: all that begin with this.
    pub prefix: Text,
    #[serde(default)]
    pub user: Option<Text>,
    #[serde(default)]
    pub password: Option<SecretFrom>,
    /// Certificates of the authority that signed the servers' own, instead of those that this machine trusts.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// A certificate of one's own, where the servers ask for one.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// The key of `certificate`.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The most operations of one transaction: what the servers are started with as `--max-txn-ops`.
    #[serde(default = "operations")]
    pub max_txn_ops: usize,
    /// What a change means for the components that need this one: `hot` where they watch the prefix (the default), `restart` after it,
    /// or `stop` before it.
    #[serde(default)]
    pub readers: Option<ReadersSetting>,
}

fn operations() -> usize {
    128
}

impl Settings {
    fn reach(&self) -> Reach<'_> {
        Reach {
            endpoints: &self.endpoints,
            user: self.user.as_ref(),
            password: self.password.as_ref(),
            ca: self.ca.as_ref(),
            certificate: self.certificate.as_ref(),
            key: self.key.as_ref(),
        }
    }
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "etcd",
        summary: "The keys of an etcd prefix: put back exactly, in one transaction where it fits, without a restart.",
        example: "\
endpoints: [http://127.0.0.1:2379]
prefix: shop/config/
user: ripcord
password: { env: ETCD_PASSWORD }
",
        layer: Layer::Config,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = self.reach().check();
        if self.prefix.as_str().is_empty() {
            let help = "name what all the application's own keys begin with, such as `shop/config/`";
            mistakes.push(Mistake::new("the prefix is empty, which is every key there is").at("prefix").help(help));
        }
        if self.max_txn_ops == 0 {
            mistakes.push(Mistake::new("a transaction of no operations changes nothing").at("max-txn-ops"));
        }
        mistakes
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        Ok(Arc::new(EtcdKeys {
            etcd: Etcd::new(&self.reach(), cx).map_err(|why| BuildError::new(id, why))?,
            prefix: self.prefix.to_string(),
            most: self.max_txn_ops,
            readers: self.readers.unwrap_or(ReadersSetting::Hot).into(),
            revision_key: cx.revision_key,
            captures: Captures::new(id, cx),
            keep: cx.keep_aside,
        }))
    }
}

struct EtcdKeys {
    etcd: Etcd,
    prefix: String,
    most: usize,
    readers: Readers,
    revision_key: [u8; 32],
    captures: Captures,
    keep: Duration,
}

fn mark_of(revision: &Revision) -> String {
    match revision {
        Revision::Absent => "absent".to_owned(),
        Revision::Exact(id) => id.0.clone(),
    }
}

/// The survey's fact from which the words of a plan are made.
fn fact_of(revision: &Revision) -> String {
    format!("to have {} back", revision.short())
}

/// Toggles as bytes by whole key; none takes a key out.
fn plain(prefix: &str, values: &BTreeMap<String, Value>) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>, String> {
    let one = |(name, value): (&String, &Value)| {
        let bytes = match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone().into_bytes()),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string().into_bytes()),
            Value::Array(_) | Value::Object(_) => {
                return Err(format!("`{name}` can only be set to text, a number, true or false: write JSON as text"));
            }
        };
        Ok((format!("{prefix}{name}").into_bytes(), bytes))
    };
    values.iter().map(one).collect()
}

impl EtcdKeys {
    async fn read(&self, deadline: Instant) -> Result<Snapshot, Trouble> {
        self.etcd.read(self.prefix.as_bytes(), deadline).await
    }

    fn revision(&self, content: &Content) -> Result<Revision, Failure> {
        content::revision(content, &self.revision_key)
    }

    fn words(&self, changes: &[crate::etcd::wire::Guarded]) -> String {
        self.etcd.redactor().clean(&content::words(self.prefix.as_bytes(), changes))
    }

    async fn survey(&self, cx: &Cx, place: &Place, wanted: &[Wanted]) -> Survey {
        let read = self.read(Instant::now() + cx.limit / 2).await.map_err(Failure::from);
        let seen = match read.as_ref().map(|now| self.revision(&content::lasting(now))) {
            Ok(Ok(revision)) => Seen::At(revision),
            Ok(Err(failure)) => Seen::Unreachable { why: failure.what },
            Err(failure) => Seen::Unreachable { why: failure.what.clone() },
        };
        let cluster = read.as_ref().map_or_else(|_| self.etcd.shown(), |now| now.cluster.clone());
        let mut survey = Survey::new(place.clone(), seen, TargetId(format!("etcd:{cluster}/{}", self.prefix)));
        for wanted in wanted {
            survey.available.push((wanted.clone(), self.available(wanted).await));
        }
        let Ok(now) = &read else { return survey };
        survey.label = Some(content::label(now));
        if let Some(names) = content::leased(self.prefix.as_bytes(), now) {
            survey.facts.insert("with a lease, so left alone".into(), self.etcd.redactor().clean(&names));
        }
        let mut most = 0;
        for wanted in wanted {
            if let Ok(former) = self.wanted(wanted).await {
                let changes = content::differences(now, &former);
                most = most.max(content::transactions(&changes, self.most).len());
                if !changes.is_empty() {
                    let several = match content::transactions(&changes, self.most).len() {
                        0 | 1 => "in one transaction".to_owned(),
                        n => format!("in {n} transactions, because they do not fit into one"),
                    };
                    survey.facts.insert(fact_of(&wanted.revision), format!("{}, {several}", self.words(&changes)));
                }
            }
        }
        // Measured: about 5 ms for a transaction of 128 keys.
        survey.reckoned = Some(Duration::from_millis(200 + 10 * u64::try_from(most).unwrap_or(0)));
        survey
    }

    async fn available(&self, wanted: &Wanted) -> Available {
        if wanted.revision == Revision::Absent {
            return Available::Here { how: "all keys of the prefix are deleted".to_owned() };
        }
        let (captures, asked) = (self.captures.clone(), wanted.clone());
        let looked = blocking(move |_| captures.available(&asked)).await;
        looked.unwrap_or_else(|failure| Available::Missing { why: failure.what })
    }

    /// The content that was asked for.
    async fn wanted(&self, wanted: &Wanted) -> Result<Content, Failure> {
        if wanted.revision == Revision::Absent {
            return Ok(Content::new());
        }
        let made = self.captures.wanted(wanted);
        self.checked(made.unwrap_or_else(|| Err(Failure::never("no capture of it was ever made")))?).await
    }

    /// The keys that a capture holds, once they were shown to be what it is said to hold.
    async fn checked(&self, made: Made) -> Result<Content, Failure> {
        let (captures, to) = (self.captures.clone(), made.revision.clone());
        let bytes = blocking(move |_| captures.bytes(&captures::manifest(&made)?, CONTENT)).await??;
        let content = content::read(&bytes)?;
        let is = self.revision(&content)?;
        if is != to {
            return Err(Failure::never(format!("the capture holds {}, not {}", is.short(), to.short())));
        }
        match content.keys().find(|key| !key.starts_with(self.prefix.as_bytes())) {
            None => Ok(content),
            Some(key) => {
                let key = content::name(b"", key);
                Err(Failure::never(format!("the capture holds `{key}`, which does not begin with `{}`", self.prefix))
                    .advise("set `prefix` to what it was then, or choose a newer release"))
            }
        }
    }

    async fn find(&self, from: Option<&CaptureRef>, before: &Before, to: &Revision) -> Result<Content, Failure> {
        if *to == Revision::Absent {
            return Ok(Content::new());
        }
        let made = self.captures.find(from, before, to)?;
        self.checked(made.ok_or_else(|| Failure::never("the step names no capture to restore from"))?).await
    }

    async fn observe(&self, cx: &Cx, step: &Step, before: Option<&Before>) -> Result<Observation, Failure> {
        let now = self.read(Instant::now() + cx.limit - cx.limit / 8).await?;
        let mark = mark_of(&self.revision(&content::lasting(&now))?);
        let reached = match &step.action {
            Action::Restore { to, .. } => mark_of(to) == mark,
            Action::Set { values } => {
                let values = plain(&self.prefix, values).map_err(Failure::never)?;
                content::settings(&now, &values).is_empty()
            }
            _ => false,
        };
        let same = before.and_then(|before| before.mark.as_ref()).is_none_or(|was| *was == mark);
        let holds = match (reached, same) {
            (true, _) => Holds::Target,
            (false, true) => Holds::Origin,
            (false, false) => {
                let found = "some keys were written and others not, or somebody else wrote some".to_owned();
                Holds::Neither { found }
            }
        };
        Ok(Observation { holds, mark: Some(mark) })
    }

    async fn act(&self, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Stop> {
        let deadline = Instant::now() + cx.limit - cx.limit / 8;
        match &step.action {
            Action::Prove { revision, capture } => {
                let wanted = Wanted { revision: revision.clone(), capture: capture.clone() };
                Ok(self.prove(&self.wanted(&wanted).await?, deadline).await?)
            }
            Action::Capture { .. } => Ok(self.capture(cx, before, deadline).await?),
            Action::Restore { to, from } => {
                let wanted = self.find(from.as_ref(), before, to).await?;
                self.restore(cx, before, &restore::Goal::Whole(&wanted), deadline).await
            }
            Action::Set { values } => {
                let values = plain(&self.prefix, values).map_err(Failure::never)?;
                self.restore(cx, before, &restore::Goal::Single(&values), deadline).await
            }
            other => Err(Failure::never(format!("keys of etcd cannot do {other:?}")).into()),
        }
    }

    async fn prove(&self, wanted: &Content, deadline: Instant) -> Result<Proof, Failure> {
        let now = self.read(deadline).await?;
        let changes = content::differences(&now, wanted);
        for part in content::transactions(&changes, self.most) {
            self.etcd.may_change(part, deadline).await?;
        }
        let keys = wanted.len();
        Ok(Proof::of(format!("the capture was read back, {keys} keys; the cluster answers and would take the changes")))
    }

    async fn store(&self, cx: &Cx, before: &Before, why: &'static str, now: &Snapshot) -> Result<Made, Failure> {
        let content = content::lasting(now);
        let bytes = content::written(&content);
        let source = Source::Bytes { path: CONTENT.to_owned(), bytes, mode: 0o600 };
        let (captures, cx, key) = (self.captures.clone(), cx.clone(), before.key.clone());
        let manifest = blocking(move |_| captures.store(&cx, &key, why, vec![source])).await??;
        captures::made(self.revision(&content)?, Some(content::label(now)), &manifest)
    }

    async fn capture(&self, cx: &Cx, before: &Before, deadline: Instant) -> Result<Proof, Failure> {
        let now = self.read(deadline).await?;
        let made = self.store(cx, before, "the present state", &now).await?;
        let found = format!("{} captured and read back", content::label(&now));
        Ok(Proof { capture: Some(made), ..Proof::of(found) })
    }
}

impl Component for EtcdKeys {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: Settings::DOC.name.to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        let restore = Destroys::SetAside { keep: self.keep };
        Capabilities { held: Held::Vault, restore, sets: true, readers: self.readers, ..Capabilities::NONE }
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
                plain(&self.prefix, values).map_err(cannot)?;
                let names: Vec<_> = values.keys().map(String::as_str).collect();
                (Action::Set { values: values.clone() }, format!("set {} of {}", names.join(", "), self.prefix))
            }
            Want::Revision { revision, .. } if survey.seen.revision() == Some(revision) => return Ok(vec![]),
            Want::Revision { revision, capture } => {
                if let Some(Available::Missing { why }) = survey.available(revision) {
                    return Err(cannot(why.clone()));
                }
                if capture.is_none() && *revision != Revision::Absent {
                    return Err(cannot("no capture holds it".to_owned()));
                }
                let words = match survey.facts.get(&fact_of(revision)) {
                    Some(changes) => format!("restore {}: {changes}", self.prefix),
                    None => format!("restore {} as it was captured", self.prefix),
                };
                let from = capture.clone().map(CaptureRef::Known);
                (Action::Restore { to: revision.clone(), from }, words)
            }
        };
        let command = vec!["POST".to_owned(), format!("{}/v3/kv/txn", self.etcd.shown())];
        Ok(vec![Draft {
            phase: Phase::Restore,
            action,
            destroys: Destroys::SetAside { keep: self.keep },
            redo: Redo::Safe,
            limits: Limits::default(),
            shown: Shown { words: self.etcd.redactor().clean(&words), commands: vec![command] },
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

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unanswered(_) => Self::Unknown(trouble.why()),
            other => Self::Failed(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toggles_are_text_and_their_names_relative() {
        let values = |json: Value| serde_json::from_value::<BTreeMap<String, Value>>(json).unwrap();
        let plain = |json| super::plain("shop/", &values(json));
        let found = plain(serde_json::json!({ "a": "x=1\n", "b": true, "c": null, "d": 0.5 })).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|(key, value)| {
                let value = value.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                (String::from_utf8_lossy(key).into_owned(), value)
            })
            .collect();
        let expected = [("shop/a", Some("x=1\n")), ("shop/b", Some("true")), ("shop/c", None), ("shop/d", Some("0.5"))];
        let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned))).collect();
        assert_eq!(shown, expected);
        assert!(plain(serde_json::json!({ "a": {} })).unwrap_err().contains("write JSON as text"));
    }

    #[test]
    fn settings_that_could_not_work_are_refused() {
        let mistakes = |yaml: &str| -> Vec<String> {
            let settings: Settings = serde_saphyr::from_str(yaml).unwrap();
            settings.check().into_iter().map(|mistake| mistake.what).collect()
        };
        assert_eq!(mistakes("endpoints: []\nprefix: a"), ["no endpoint is named"]);
        assert_eq!(mistakes("endpoints: [http://x]\nprefix: ''"), ["the prefix is empty, which is every key there is"]);
        assert_eq!(mistakes("endpoints: [http://x]\nprefix: a\nuser: u"), ["`user` is given without `password`"]);
        assert_eq!(mistakes("endpoints: [http://u:p@x]\nprefix: a").len(), 1, "a password is never written here");
        let none = mistakes("endpoints: [http://x]\nprefix: a\nmax-txn-ops: 0");
        assert_eq!(none, ["a transaction of no operations changes nothing"]);
    }
}
