//! A Redis server: whether it answers, how fast, and what it says of itself.
//!
//! A server that cannot be reached, breaks the connection off, or is still reading its data is a sample: failing. A refused login or a
//! missing right is the observer's failure. What is counted since the server began (hits, evictions) is compared with the reading before;
//! a server that began anew in between has no former reading.
//! Source: Redis documentation, INFO.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use jiff::Timestamp;
use ripcord_config::wire::{SecretFrom, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Sample, Signal, SignalId, Unit, between};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{failed, locked};
use crate::redis::{About, Reach, Refusal, Server, Trouble};
use crate::{BuildCx, BuildError, SignalKind};

/// A Redis server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The server: `redis://host:port/0`, `rediss://` for TLS, or `redis+unix:///path?db=0`.
    #[serde(default)]
    pub url: Option<Text>,
    /// Where the whole URL is, where it holds a password.
    #[serde(default)]
    pub url_from: Option<SecretFrom>,
    #[serde(default)]
    pub user: Option<Text>,
    #[serde(default)]
    pub password: Option<SecretFrom>,
    #[serde(default)]
    pub measure: Measure,
    /// How many replicas a primary is to have, for `measure: replication`.
    #[serde(default)]
    pub replicas: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// 1 when it does not answer PING, else 0.
    #[default]
    Failing,
    /// Seconds until PING was answered; the time limit when it was not.
    Latency,
    /// Memory used of `maxmemory`, as a share. Without `maxmemory` there is none.
    MemoryShare,
    /// Memory used, in bytes.
    Memory,
    /// Connected clients.
    Clients,
    /// Connected clients of `maxclients`, as a share.
    ClientsShare,
    /// Keys of the database.
    Keys,
    /// Of the look-ups since the reading before, how many found a key, as a share.
    HitRate,
    /// Keys thrown out for want of memory, each second since the reading before.
    Evictions,
    /// 1 when a replica has lost its primary, or a primary has fewer than `replicas`; else 0.
    Replication,
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

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "redis",
        summary: "A Redis server: whether and how fast it answers, memory, clients, hit rate, evictions, replication.",
        example: "\
url: redis://127.0.0.1:6379/0
password: { env: REDIS_PASSWORD }
measure: memory-share
",
        layer: Layer::Cache,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        self.reach().check()
    }

    fn unit(&self) -> Unit {
        match self.measure {
            Measure::Failing | Measure::Replication => Unit::Failing,
            Measure::Latency => Unit::Seconds,
            Measure::MemoryShare | Measure::ClientsShare | Measure::HitRate => Unit::Ratio,
            Measure::Memory => Unit::Bytes,
            Measure::Clients | Measure::Keys | Measure::Evictions => Unit::Number,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        &["latency_ms", "role", "version", "memory_bytes", "clients", "keys", "link", "replicas", "error"]
    }

    fn build(&self, id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let server = Server::new(&self.reach(), cx).map_err(|why| BuildError::new(id, why))?;
        Ok(Arc::new(Redis { settings: self.clone(), server, former: Mutex::default() }))
    }
}

struct Redis {
    settings: Settings,
    server: Server,
    former: Mutex<Option<Former>>,
}

/// What the reading before saw.
#[derive(Debug, Clone, PartialEq)]
struct Former {
    at: Timestamp,
    /// The server's name for this run of its process.
    run: Option<String>,
    hits: f64,
    misses: f64,
    evicted: f64,
}

impl Former {
    fn of(at: Timestamp, about: &About) -> Option<Self> {
        let number = |name: &str| about.number(name);
        Some(Self {
            at,
            run: about.text("run_id").map(str::to_owned),
            hits: number("keyspace_hits")?,
            misses: number("keyspace_misses")?,
            evicted: number("evicted_keys")?,
        })
    }
}

/// What a server said, and how long PING took.
struct Said {
    about: About,
    ping_s: f64,
    database: i64,
}

/// A value, nothing, or why there is none.
type Measured = Result<Option<(f64, Option<f64>)>, String>;

fn share(of: Option<f64>, whole: Option<f64>, what: &str) -> Measured {
    match (of, whole) {
        (Some(of), Some(whole)) if whole > 0.0 => Ok(Some((of / whole, None))),
        _ => Err(format!("the server has no `{what}`, so there is no share of it")),
    }
}

fn measured(settings: &Settings, said: &Said, former: Option<&Former>, now: Option<&Former>) -> Measured {
    let about = &said.about;
    let number = |name: &str| about.number(name).ok_or_else(|| format!("the server does not say `{name}`"));
    let plain = |value: f64| Ok(Some((value, None)));
    let pair = || match (former, now) {
        (Some(former), Some(now)) if former.run == now.run && former.at < now.at => Some((former, now)),
        _ => None,
    };
    match settings.measure {
        Measure::Failing => plain(0.0),
        Measure::Latency => plain(said.ping_s),
        Measure::MemoryShare => share(about.number("used_memory"), about.number("maxmemory"), "maxmemory"),
        Measure::Memory => plain(number("used_memory")?),
        Measure::Clients => plain(number("connected_clients")?),
        Measure::ClientsShare => share(about.number("connected_clients"), about.number("maxclients"), "maxclients"),
        Measure::Keys => plain(about.databases().get(&said.database).copied().unwrap_or(0) as f64),
        Measure::HitRate => Ok(pair().and_then(|(former, now)| {
            let (hits, misses) = (now.hits - former.hits, now.misses - former.misses);
            let asked = hits + misses;
            // Nobody asked, or the counters were reset.
            (asked > 0.0 && hits >= 0.0 && misses >= 0.0).then(|| (hits / asked, Some(asked)))
        })),
        Measure::Evictions => Ok(pair().and_then(|(former, now)| {
            let (evicted, over) = (now.evicted - former.evicted, between(former.at, now.at).as_secs_f64());
            (evicted >= 0.0).then(|| (evicted / over, None))
        })),
        Measure::Replication => {
            let bad = match about.text("role") {
                Some("slave") => about.text("master_link_status") != Some("up"),
                _ => number("connected_slaves")? < f64::from(settings.replicas),
            };
            plain(f64::from(u8::from(bad)))
        }
    }
}

impl Redis {
    async fn ask(&self, cx: &Cx) -> Result<Said, Trouble> {
        let mut session = self.server.connect(cx.limit - cx.limit / 10).await?;
        let began = Instant::now();
        session.ask::<()>(&redis::cmd("PING")).await?;
        let ping_s = began.elapsed().as_secs_f64();
        // Whether and how fast it answers needs no right but to ask that.
        let about = match self.settings.measure {
            Measure::Failing | Measure::Latency => session.about().await.unwrap_or_default(),
            _ => session.about().await?,
        };
        Ok(Said { about, ping_s, database: session.database })
    }

    fn fields(&self, said: &Said) -> BTreeMap<String, Value> {
        let about = &said.about;
        let text = |name: &str| about.text(name).map_or(Value::Null, Value::from);
        let number = |name: &str| about.number(name).map_or(Value::Null, Value::from);
        let fields = [
            ("latency_ms", (said.ping_s * 1000.0).into()),
            ("role", text("role")),
            ("version", text("redis_version")),
            ("memory_bytes", number("used_memory")),
            ("clients", number("connected_clients")),
            ("keys", about.databases().get(&said.database).copied().unwrap_or(0).into()),
            ("link", text("master_link_status")),
            ("replicas", number("connected_slaves")),
            ("error", Value::Null),
        ];
        fields.map(|(name, value)| (name.to_owned(), value)).into()
    }

    fn down(&self, cx: &Cx, trouble: &Trouble) -> Reading {
        let why = trouble.why();
        let subject = matches!(
            trouble,
            Trouble::Unreachable(_) | Trouble::Lost(_) | Trouble::Refused { kind: Refusal::Busy, .. }
        );
        let value = match self.settings.measure {
            Measure::Failing | Measure::Replication if subject => 1.0,
            Measure::Latency if subject => cx.limit.as_secs_f64(),
            _ => return failed(why),
        };
        let names = SignalKind::fields(&self.settings).iter();
        let mut fields: BTreeMap<String, Value> = names.map(|name| ((*name).to_owned(), Value::Null)).collect();
        fields.insert("error".to_owned(), why.into());
        Reading::of(Sample { fields, ..Sample::new(cx.now, value) })
    }
}

impl Signal for Redis {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move {
            let said = match self.ask(cx).await {
                Ok(said) => said,
                Err(trouble) => return self.down(cx, &trouble),
            };
            let now = Former::of(cx.now, &said.about);
            let former = std::mem::replace(&mut *locked(&self.former), now.clone());
            match measured(&self.settings, &said, former.as_ref(), now.as_ref()) {
                Err(why) => failed(why),
                Ok(None) => Reading::Empty,
                Ok(Some((value, n))) => {
                    Reading::of(Sample { n, fields: self.fields(&said), ..Sample::new(cx.now, value) })
                }
            }
        })
    }

    fn query(&self) -> String {
        let measure = format!("{:?}", self.settings.measure);
        let words: String = measure.chars().enumerate().fold(String::new(), |mut text, (at, c)| {
            if c.is_uppercase() && at > 0 {
                text.push('-');
            }
            text.push(c.to_ascii_lowercase());
            text
        });
        format!("{words} of {}", self.server.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn former(second: i64, run: &str, hits: f64, misses: f64, evicted: f64) -> Former {
        let at = Timestamp::from_second(second).unwrap();
        Former { at, run: Some(run.to_owned()), hits, misses, evicted }
    }

    #[track_caller]
    fn check(measure: Measure, info: &str, former: Option<&Former>, now: Option<&Former>, expected: Measured) {
        let settings = Settings { url: None, url_from: None, user: None, password: None, measure, replicas: 2 };
        let said = Said { about: About::read(info), ping_s: 0.5, database: 3 };
        assert_eq!(super::measured(&settings, &said, former, now), expected);
    }

    #[test]
    fn shares_are_of_what_there_is() {
        check(Measure::MemoryShare, "used_memory:50\nmaxmemory:200", None, None, Ok(Some((0.25, None))));
        let none = Err("the server has no `maxmemory`, so there is no share of it".to_owned());
        check(Measure::MemoryShare, "used_memory:50\nmaxmemory:0", None, None, none);
        check(Measure::Keys, "db3:keys=7,expires=0", None, None, Ok(Some((7.0, None))));
        check(Measure::Keys, "db0:keys=7,expires=0", None, None, Ok(Some((0.0, None))));
        check(Measure::Latency, "", None, None, Ok(Some((0.5, None))));
    }

    #[test]
    fn counters_are_compared_with_the_reading_before_of_the_same_process() {
        let before = former(100, "a", 10.0, 10.0, 5.0);
        let after = former(110, "a", 40.0, 20.0, 25.0);
        check(Measure::HitRate, "", Some(&before), Some(&after), Ok(Some((0.75, Some(40.0)))));
        check(Measure::Evictions, "", Some(&before), Some(&after), Ok(Some((2.0, None))));
        check(Measure::HitRate, "", None, Some(&after), Ok(None));
        check(Measure::HitRate, "", Some(&before), Some(&before), Ok(None));
        let anew = former(110, "b", 40.0, 20.0, 25.0);
        check(Measure::Evictions, "", Some(&before), Some(&anew), Ok(None));
        let reset = former(110, "a", 0.0, 1.0, 0.0);
        check(Measure::HitRate, "", Some(&before), Some(&reset), Ok(None));
    }

    #[test]
    fn replication_is_a_link_that_is_up_and_enough_replicas() {
        let check =
            |info: &str, bad: f64| super::tests::check(Measure::Replication, info, None, None, Ok(Some((bad, None))));
        check("role:slave\nmaster_link_status:up", 0.0);
        check("role:slave\nmaster_link_status:down", 1.0);
        check("role:master\nconnected_slaves:1", 1.0);
        check("role:master\nconnected_slaves:2", 0.0);
    }
}
