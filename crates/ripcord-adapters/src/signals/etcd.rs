//! An etcd cluster: whether it can decide anything, which of its members answer, its alarms, and how full it is.
//!
//! A member's own health check is a read that the cluster has to agree on, so one healthy member shows that there is a leader and a
//! majority. A cluster none of whose members can be reached is a sample: failing. A refused login is the observer's failure.
//! Source: etcd documentation, "Monitoring" (`/health`, `/metrics`), "Maintenance" (alarms, space quota).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Url;
use ripcord_config::wire::{SecretFrom, Size, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Sample, Signal, SignalId, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::failed;
use crate::etcd::wire::number;
use crate::etcd::{Etcd, Reach, Trouble};
use crate::{BuildCx, BuildError, SignalKind};

/// An etcd cluster.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The client URLs of all members: each is asked.
    pub endpoints: Vec<Text>,
    #[serde(default)]
    pub measure: Measure,
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
    /// How large the database may become (`--quota-backend-bytes`), where the servers do not say it in `/metrics`.
    #[serde(default)]
    pub quota: Option<Size>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// 1 when no member can have anything decided: no leader, no majority, or none that answers. Else 0.
    #[default]
    Failing,
    /// How many of the members do not answer well.
    MembersDown,
    /// Seconds that the fastest member takes to have a read agreed on; the time limit when none does.
    Latency,
    /// Alarms that are raised (`NOSPACE`, `CORRUPT`).
    Alarms,
    /// The largest member's database of its quota, as a share.
    DbShare,
    /// The largest member's database, in bytes.
    DbSize,
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

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "etcd",
        summary: "An etcd cluster: whether it has a leader and a majority, members down, alarms, how full it is.",
        example: "\
endpoints: [http://10.0.0.1:2379, http://10.0.0.2:2379, http://10.0.0.3:2379]
measure: failing
",
        layer: Layer::Config,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        self.reach().check()
    }

    fn unit(&self) -> Unit {
        match self.measure {
            Measure::Failing => Unit::Failing,
            Measure::Latency => Unit::Seconds,
            Measure::DbShare => Unit::Ratio,
            Measure::DbSize => Unit::Bytes,
            Measure::MembersDown | Measure::Alarms => Unit::Number,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        &["members", "alarms", "error"]
    }

    fn build(&self, id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let etcd = Etcd::new(&self.reach(), cx).map_err(|why| BuildError::new(id, why))?;
        Ok(Arc::new(Cluster { settings: self.clone(), etcd }))
    }
}

struct Cluster {
    settings: Settings,
    etcd: Etcd,
}

/// One member, as far as it says anything.
struct Member {
    url: String,
    /// How long its health check took, or why it is not well.
    health: Result<Duration, String>,
    size: Option<f64>,
    quota: Option<f64>,
    status: Value,
}

impl Member {
    fn shown(&self) -> Value {
        let leader = &self.status["leader"];
        let leads = !leader.is_null() && *leader == self.status["header"]["member_id"];
        json!({
            "endpoint": self.url,
            "healthy": self.health.is_ok(),
            "error": self.health.as_ref().err(),
            "leads": leads,
            "version": self.status["version"],
            "db_bytes": self.size,
        })
    }
}

/// What `/health` says: its words where it says that it is not well.
fn healthy(status: u16, body: &[u8]) -> Result<(), String> {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    match (status, json["health"].as_str()) {
        (200, Some("true")) => Ok(()),
        (_, Some(_)) => {
            let why = json["reason"].as_str().filter(|why| !why.is_empty());
            Err(why.map_or_else(|| "it says that it is not healthy".to_owned(), str::to_owned))
        }
        (status, None) => Err(format!("what answers `/health` with {status} is no etcd")),
    }
}

/// A figure of `/metrics`.
fn figure(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

impl Cluster {
    fn sizes(&self) -> bool {
        matches!(self.settings.measure, Measure::DbShare | Measure::DbSize)
    }

    /// # Errors
    /// Only where nobody could be asked.
    async fn member(&self, endpoint: &Url, limit: Duration) -> Result<Member, String> {
        let began = Instant::now();
        let health = match self.etcd.look(endpoint, "health", limit).await {
            Ok((status, body)) => healthy(status, &body).map(|()| began.elapsed()),
            Err(Trouble::Observer(why)) => return Err(why),
            Err(Trouble::Unreachable(why)) => Err(why),
            Err(trouble) => Err(trouble.why()),
        };
        let mut status = Value::Null;
        let (mut size, mut quota) = (None, self.settings.quota.map(|quota| quota.0 as f64));
        if health.is_ok() {
            status = match self.etcd.ask_one(endpoint, "maintenance/status", &json!({}), limit).await {
                Ok(status) => status,
                Err(trouble) if self.sizes() => return Err(trouble.why()),
                // Not needed for what is measured.
                Err(_) => Value::Null,
            };
            size = number(&status["dbSize"]).map(|bytes| bytes as f64).filter(|bytes| *bytes > 0.0);
        }
        if self.settings.measure == Measure::DbShare && quota.is_none() && health.is_ok() {
            let metrics = self.etcd.look(endpoint, "metrics", limit).await;
            let text = metrics.map(|(_, body)| String::from_utf8_lossy(&body).into_owned()).unwrap_or_default();
            quota = figure(&text, "etcd_server_quota_backend_bytes").filter(|quota| *quota > 0.0);
        }
        let url = self.etcd.redactor().clean(endpoint.as_str().trim_end_matches('/'));
        Ok(Member { url, health, size, quota, status })
    }

    async fn alarms(&self, limit: Duration) -> Result<Vec<String>, String> {
        let deadline = tokio::time::Instant::now() + limit;
        let answer = self.etcd.call("maintenance/alarm", &json!({ "action": "GET" }), deadline).await;
        let answer = answer.map_err(|trouble| trouble.why())?;
        let none = vec![];
        let names = answer["alarms"].as_array().unwrap_or(&none).iter().filter_map(|one| one["alarm"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    async fn ask(&self, cx: &Cx) -> Result<Reading, String> {
        let count = u32::try_from(self.etcd.endpoints().len()).unwrap_or(1).max(1);
        let share = cx.limit / (3 * count + 1);
        let mut members = vec![];
        for endpoint in self.etcd.endpoints() {
            members.push(self.member(endpoint, share).await?);
        }
        let down = members.iter().filter(|member| member.health.is_err()).count();
        let all_down = down == members.len();
        let alarms = if self.settings.measure == Measure::Alarms { self.alarms(share).await? } else { vec![] };
        let largest = |of: &dyn Fn(&Member) -> Option<f64>| members.iter().filter_map(of).reduce(f64::max);
        let value = match self.settings.measure {
            Measure::Failing => f64::from(u8::from(all_down)),
            Measure::MembersDown => down as f64,
            Measure::Latency => {
                let fastest = members.iter().filter_map(|member| member.health.as_ref().ok()).min();
                fastest.copied().unwrap_or(cx.limit).as_secs_f64()
            }
            Measure::Alarms => alarms.len() as f64,
            Measure::DbSize => largest(&|member| member.size).ok_or("no member says how large its database is")?,
            Measure::DbShare => largest(&|member| Some(member.size? / member.quota?))
                .ok_or("no member says how large its database is and may become: set `quota`")?,
        };
        let errors: Vec<_> = members
            .iter()
            .filter_map(|member| Some(format!("{}: {}", member.url, member.health.as_ref().err()?)))
            .collect();
        let error = if errors.is_empty() { Value::Null } else { errors.join("; ").into() };
        let shown: Vec<Value> = members.iter().map(Member::shown).collect();
        let fields: BTreeMap<String, Value> = [("members", shown.into()), ("alarms", alarms.into()), ("error", error)]
            .map(|(name, value): (&str, Value)| (name.to_owned(), value))
            .into();
        Ok(Reading::of(Sample { fields, ..Sample::new(cx.now, value) }))
    }
}

impl Signal for Cluster {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move { self.ask(cx).await.unwrap_or_else(|why| failed(self.etcd.redactor().clean(&why))) })
    }

    fn query(&self) -> String {
        let measure = match self.settings.measure {
            Measure::Failing => "failing",
            Measure::MembersDown => "members-down",
            Measure::Latency => "latency",
            Measure::Alarms => "alarms",
            Measure::DbShare => "db-share",
            Measure::DbSize => "db-size",
        };
        format!("{measure} of etcd at {}", self.etcd.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_is_read_as_it_is_written() {
        assert_eq!(healthy(200, br#"{"health":"true"}"#), Ok(()));
        assert_eq!(healthy(200, br#"{"health":"true","reason":""}"#), Ok(()));
        let no_leader = healthy(503, br#"{"health":"false","reason":"RAFT NO LEADER"}"#);
        assert_eq!(no_leader, Err("RAFT NO LEADER".to_owned()));
        assert!(healthy(503, br#"{"health":"false"}"#).unwrap_err().contains("not healthy"));
        assert_eq!(healthy(404, b"<html>"), Err("what answers `/health` with 404 is no etcd".to_owned()));
    }

    #[test]
    fn a_figure_is_the_line_of_that_name() {
        let text = "# HELP etcd_server_quota_backend_bytes x\netcd_server_quota_backend_bytes_other 1\n\
                    etcd_server_quota_backend_bytes 2.147483648e+09\n";
        assert_eq!(figure(text, "etcd_server_quota_backend_bytes"), Some(2_147_483_648.0));
        assert_eq!(figure(text, "nothing"), None);
    }
}
