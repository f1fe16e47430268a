//! A cache in Redis: its own keys are found, counted, named and unlinked, and nobody else's.
//!
//! A server is seldom one application's alone: sessions, queues, locks and rate limits lie in the same database. So what goes is what the
//! settings' own patterns match, batch by batch, and what among it looks like a queue stands out before anybody agrees. Emptying a whole
//! database, or the server, has to be asked for, names everything else that it takes along, and needs a person's consent.
//!
//! A cache moves while it is looked at, and is filled again the moment it was emptied. So a step leaves a key of its own
//! (`ripcord:...`, which goes by itself): that is how it is seen to be done, whatever was written since.
//! Source: Redis documentation, SCAN, UNLINK, FLUSHDB, DUMP (the payload ends in a version and a checksum), RESTORE.

mod clear; // keys unlinked, databases flushed
mod keep; // keys captured and put back
mod look; // what is there, and what would go

use std::sync::Arc;
use std::time::Duration;

use ripcord_config::wire::{SecretFrom, Size, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CaptureRef, Component, ComponentId, Cx, Destroys, Draft, Fut,
    Held, Holds, Inventory, KindVersion, Layer, Limits, Nature, Observation, Observe, Outcome, Phase, Place, Readers,
    Redo, Revision, Shown, Step, Survey, Want, Wanted, Wish,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::files::captures::Captures;
use super::files::{ReadersSetting, Stop, outcome};
use crate::redis::{Reach, Server, Trouble};
use crate::{BuildCx, BuildError, ComponentKind};

/// Keys of a cache in Redis. In a rollback they are unlinked, so that the application fills them again with what the restored code makes;
/// or put back as they were captured.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The server and the database: `redis://host:port/0`, `rediss://` for TLS, or `redis+unix:///path?db=0`.
    #[serde(default)]
    pub url: Option<Text>,
    /// Where the whole URL is, where it holds a password.
    #[serde(default)]
    pub url_from: Option<SecretFrom>,
    #[serde(default)]
    pub user: Option<Text>,
    #[serde(default)]
    pub password: Option<SecretFrom>,
    /// The application's own keys: patterns as SCAN takes them (`shop:cache:*`).
    pub keys: Vec<Text>,
    /// What going back means for them.
    #[serde(default)]
    pub rollback: Back,
    /// What `rollback: clear` empties.
    #[serde(default)]
    pub what: What,
    /// The types of keys that are no loss when they go: `string`, `hash`, `set`, `zset` where nothing else is said. Keys of other types
    /// may be queues or logs: they are named, counted as lost, and need consent.
    #[serde(default = "cached")]
    pub types: Vec<Text>,
    /// The most that a capture may hold, with `rollback: restore`.
    #[serde(default = "most")]
    pub max_capture: Size,
    /// What it means for the components that need this one: `hot` where it is cleared, and `stop` where it is restored, unless it is said.
    #[serde(default)]
    pub readers: Option<ReadersSetting>,
}

/// What becomes of the keys in a rollback.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Back {
    /// They go: what is cached is made again by whoever misses it.
    #[default]
    Clear,
    /// They are as they were captured: values, types and times to live.
    Restore,
}

/// How far clearing goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The keys that the patterns match, batch by batch.
    #[default]
    Unlink,
    /// The whole database, everybody's keys.
    Flushdb,
    /// All databases of the server, everybody's keys.
    Flushall,
}

fn cached() -> Vec<Text> {
    ["string", "hash", "set", "zset"].map(|name| Text(name.to_owned())).to_vec()
}

fn most() -> Size {
    Size(64 << 20)
}

impl Settings {
    fn reach(&self) -> Reach<'_> {
        Reach {
            url: self.url.as_ref(),
            url_from: self.url_from.as_ref(),
            user: self.user.as_ref(),
            password: self.password.as_ref(),
        }
    }
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "redis",
        summary: "A cache in Redis: its own keys counted and unlinked, or captured and put back.",
        example: "\
url: redis://127.0.0.1:6379/0
password: { env: REDIS_PASSWORD }
keys: [\"shop:cache:*\", \"shop:page:*\"]
",
        layer: Layer::Cache,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = self.reach().check();
        if self.keys.is_empty() {
            let help = "name what the application's own keys look like, such as `shop:cache:*`";
            mistakes.push(Mistake::new("no keys are named").at("keys").help(help));
        }
        for (i, pattern) in self.keys.iter().enumerate() {
            let at = format!("keys.{i}");
            let all = pattern.as_str().chars().all(|c| c == '*');
            if pattern.as_str().is_empty() {
                mistakes.push(Mistake::new("a pattern is empty").at(at));
            } else if all && self.what == What::Unlink {
                let help = "name the application's own keys; the whole database is `what: flushdb`";
                mistakes.push(Mistake::new("the pattern matches every key there is").at(at).help(help));
            }
        }
        if self.rollback == Back::Restore && self.what != What::Unlink {
            mistakes.push(Mistake::new("what is restored is not flushed").at("what").help("keep one of them"));
        }
        mistakes
    }

    fn nature(&self) -> Nature {
        Nature::Flowing
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let readers = self.readers.unwrap_or(match self.rollback {
            Back::Clear => ReadersSetting::Hot,
            Back::Restore => ReadersSetting::Stop,
        });
        Ok(Arc::new(Cache {
            id: id.to_string(),
            server: Server::new(&self.reach(), cx).map_err(|why| BuildError::new(id, why))?,
            patterns: self.keys.iter().map(ToString::to_string).collect(),
            back: self.rollback,
            what: self.what,
            types: self.types.iter().map(ToString::to_string).collect(),
            most: self.max_capture.0,
            readers: readers.into(),
            revision_key: cx.revision_key,
            captures: Captures::new(id, cx),
            keep: cx.keep_aside,
        }))
    }
}

struct Cache {
    id: String,
    server: Server,
    patterns: Vec<String>,
    back: Back,
    what: What,
    types: Vec<String>,
    most: u64,
    readers: Readers,
    revision_key: [u8; 32],
    captures: Captures,
    keep: Duration,
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Lost(_) => Self::Unknown(trouble.why()),
            other => Self::Failed(other.into()),
        }
    }
}

impl Component for Cache {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: Settings::DOC.name.to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        let restore = match (self.back, self.what) {
            (Back::Restore, _) => Destroys::SetAside { keep: self.keep },
            (Back::Clear, What::Unlink) => Destroys::Nothing,
            (Back::Clear, What::Flushdb | What::Flushall) => Destroys::GivesUp,
        };
        Capabilities {
            nature: Nature::Flowing,
            observe: Observe::ByMarker,
            held: Held::Vault,
            restore,
            readers: self.readers,
            sets: true,
            ..Capabilities::NONE
        }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(self.survey(cx, place, wanted))
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: String| CannotPlan { place: wish.place.clone(), why };
        let survey = seen.surveys.get(&wish.place).ok_or_else(|| cannot("it was not surveyed".to_owned()))?;
        let fact = |name: &str| survey.facts.get(name).cloned();
        let stands_out = fact(look::QUEUES);
        let where_at = self.server.shown();
        let draft = |action: Action, destroys: Destroys, words: String, command: Vec<String>| Draft {
            phase: Phase::Restore,
            action,
            destroys,
            redo: Redo::Safe,
            limits: Limits { call: Duration::from_secs(600), total: Duration::from_secs(1800), tries: 3 },
            shown: Shown { words: self.server.redactor().clean(&words), commands: vec![command] },
        };
        let command = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match &wish.want {
            Want::Values(values) if values.is_empty() => Ok(vec![]),
            Want::Values(values) => {
                for (name, value) in values {
                    if !self.patterns.contains(name) {
                        return Err(cannot(format!("`{name}` is not among its `keys`")));
                    }
                    if !value.is_null() {
                        return Err(cannot(format!("`{name}` can only be cleared: write `null`")));
                    }
                }
                if let Some(queues) = stands_out {
                    return Err(cannot(format!("among the keys are lists or streams, which may be queues: {queues}")));
                }
                let names: Vec<_> = values.keys().map(String::as_str).collect();
                let words = format!("unlink the keys {} at {where_at}", names.join(", "));
                let action = Action::Set { values: values.clone() };
                Ok(vec![draft(action, Destroys::Nothing, words, command(&["UNLINK"]))])
            }
            Want::Revision { revision, capture } => {
                if let Some(Available::Missing { why }) = survey.available(revision) {
                    return Err(cannot(why.clone()));
                }
                let counted = survey.label.clone().unwrap_or_else(|| "the keys".to_owned());
                let from = capture.clone().map(CaptureRef::Known);
                let action = Action::Restore { to: revision.clone(), from };
                if let Revision::Exact(_) = revision {
                    if capture.is_none() {
                        return Err(cannot("no capture holds it".to_owned()));
                    }
                    let words = format!(
                        "put the keys {} at {where_at} back as captured, in place of {counted}",
                        self.patterns.join(", ")
                    );
                    let destroys = Destroys::SetAside { keep: self.keep };
                    return Ok(vec![draft(action, destroys, words, command(&["RESTORE"]))]);
                }
                if fact(look::EMPTY).is_some() {
                    return Ok(vec![]);
                }
                let loses = survey.losses.iter().any(|(id, loss)| Some(id) == capture.as_ref() && !loss.is_none());
                let destroys = if loses || self.what != What::Unlink { Destroys::GivesUp } else { Destroys::Nothing };
                let out =
                    stands_out.map(|queues| format!("; among them what may be queues: {queues}")).unwrap_or_default();
                let detail = fact(look::COUNTED).map(|detail| format!(": {detail}")).unwrap_or_default();
                let (verb, command) = match self.what {
                    What::Unlink => (format!("unlink {counted} at {where_at}{detail}"), command(&["UNLINK"])),
                    What::Flushdb => {
                        let all = fact(look::EVERYTHING).unwrap_or_default();
                        (
                            format!("empty the whole database at {where_at}, everybody's keys: {all}"),
                            command(&["FLUSHDB", "ASYNC"]),
                        )
                    }
                    What::Flushall => {
                        let all = fact(look::EVERYTHING).unwrap_or_default();
                        (
                            format!("empty all databases at {where_at}, everybody's keys: {all}"),
                            command(&["FLUSHALL", "ASYNC"]),
                        )
                    }
                };
                Ok(vec![draft(action, destroys, format!("{verb}{out}"), command)])
            }
        }
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let looked = self.observe(cx, step, before).await;
            looked.unwrap_or_else(|trouble| Holds::CannotTell { why: trouble.why() }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move { outcome(self.act(cx, step, before).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rf23_settings_that_would_take_everything_are_refused() {
        let mistakes = |yaml: &str| -> Vec<String> {
            let settings: Settings = serde_saphyr::from_str(&format!("url: redis://x\n{yaml}")).unwrap();
            settings.check().into_iter().map(|mistake| mistake.what).collect()
        };
        assert_eq!(mistakes("keys: []"), ["no keys are named"]);
        assert_eq!(mistakes("keys: ['*']"), ["the pattern matches every key there is"]);
        assert_eq!(mistakes("keys: ['']"), ["a pattern is empty"]);
        assert_eq!(mistakes("keys: ['*']\nwhat: flushdb"), Vec::<String>::new());
        assert_eq!(mistakes("keys: [a]\nwhat: flushall\nrollback: restore"), ["what is restored is not flushed"]);
    }
}
