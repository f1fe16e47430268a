//! A PostgreSQL database: whether it answers, who waits for whom, how full and how far behind it is, and what a query says.
//!
//! A server that cannot be reached, or takes nobody in, is a sample of `failing`; a refused login is the observer's failure, and so is
//! a figure that the role may not see: the server would answer it with less than there is. Sessions only read, and end a query that
//! takes longer than the reading may. What others' queries say is never kept.
//! Source: PostgreSQL manual, "The Cumulative Statistics System" and "System Administration Functions".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ripcord_config::wire::Text;
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Sample, Signal, SignalId, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_postgres::SimpleQueryMessage;

use super::{UnitName, failed, locked};
use crate::http::shorten;
use crate::postgres::{Connection, PgError, Server, Session};
use crate::{BuildCx, BuildError, SignalKind};

/// The most rows kept in a sample's fields.
const ROWS: usize = 100;

/// A PostgreSQL server and one of its databases.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The server and the database. Of the right to read statistics (`GRANT pg_monitor TO ..`) need all measures of others' sessions.
    pub connection: Box<Connection>,
    /// The value is the first column of the first row; `true` is 1. It goes through row-level security like anybody's.
    #[serde(default)]
    pub query: Option<String>,
    /// What the query's values are.
    #[serde(default)]
    pub unit: Option<UnitName>,
    /// What is measured where there is no `query`.
    #[serde(default)]
    pub measure: Option<Measure>,
    /// For `replication` and its lag: the standbys that have to be there, by their `application_name`. Any, unless they are named.
    #[serde(default)]
    pub standbys: Vec<Text>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// 1 when the server cannot be reached, starts, stops, or has no room for one more connection. Else 0.
    #[default]
    Failing,
    /// Seconds that connecting and an empty query take; the time limit when it fails.
    Latency,
    /// Connections of the server's `max_connections` that are taken, as a share.
    Connections,
    /// Sessions of this database that wait for a lock which another one holds.
    Blocked,
    /// Seconds that the oldest open transaction of this database lasts.
    LongestTransaction,
    /// Transactions since the reading before that were rolled back, as a share: where violated constraints and policies show.
    Rollbacks,
    /// Sessions since the reading before that were lost, broke or were ended, as a share of those begun. Since PostgreSQL 14.
    LostSessions,
    /// 1 when a standby is not there; on a standby, when it receives nothing from its primary. Else 0.
    Replication,
    /// Seconds that the slowest standby is behind; on a standby, it itself.
    ReplicationLag,
    /// Bytes of the log that the slowest standby has not applied; on a standby, of those that it received.
    ReplicationBytes,
}

impl Settings {
    fn measure(&self) -> Measure {
        self.measure.unwrap_or_default()
    }
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "postgres",
        summary: "A PostgreSQL database: whether it answers, blocked sessions, replication, shares of errors, or what a query says.",
        example: "\
connection: { host: localhost, database: shop, user: monitor, password: { env: PGPASSWORD } }
measure: blocked
",
        layer: Layer::Data,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = self.connection.check("connection");
        if self.query.as_ref().is_some_and(|query| query.trim().is_empty()) {
            mistakes.push(Mistake::new("the query is empty").at("query"));
        }
        if self.query.is_some() && self.measure.is_some() {
            mistakes.push(Mistake::new("`query` and `measure` are two values").at("measure").help("take one out"));
        }
        if self.query.is_none() && self.unit.is_some() {
            mistakes.push(Mistake::new("`unit` is only for a `query`").at("unit"));
        }
        use Measure::{Replication, ReplicationBytes, ReplicationLag};
        let of_standbys = matches!(self.measure(), Replication | ReplicationLag | ReplicationBytes);
        if !self.standbys.is_empty() && (self.query.is_some() || !of_standbys) {
            mistakes.push(Mistake::new("`standbys` are only for measures of the replication").at("standbys"));
        }
        mistakes
    }

    fn unit(&self) -> Unit {
        if self.query.is_some() {
            return self.unit.map_or(Unit::Number, Unit::from);
        }
        match self.measure() {
            Measure::Failing | Measure::Replication => Unit::Failing,
            Measure::Latency | Measure::LongestTransaction | Measure::ReplicationLag => Unit::Seconds,
            Measure::Connections | Measure::Rollbacks | Measure::LostSessions => Unit::Ratio,
            Measure::ReplicationBytes => Unit::Bytes,
            Measure::Blocked => Unit::Number,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        &["rows", "error"]
    }

    fn build(&self, _: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let server = Server::new(&self.connection, cx);
        Ok(Arc::new(Postgres { settings: self.clone(), server, former: Mutex::default() }))
    }
}

struct Postgres {
    settings: Settings,
    server: Server,
    former: Mutex<Option<Counters>>,
}

/// What the server counts since its statistics were reset.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Counters {
    xact_commit: i64,
    xact_rollback: i64,
    /// None before PostgreSQL 14.
    sessions: Option<i64>,
    sessions_abandoned: i64,
    sessions_fatal: i64,
    sessions_killed: i64,
    stats_reset: Option<String>,
}

impl Counters {
    /// A share of what there was since `former`, and of how many; nothing when there was none, or it was counted anew meanwhile.
    fn share(&self, former: Option<&Self>, of: impl Fn(&Self) -> (i64, i64)) -> Option<(f64, f64)> {
        let former = former.filter(|former| former.stats_reset == self.stats_reset)?;
        let ((now, all), (then, before)) = (of(self), of(former));
        let (bad, all) = (now - then, all - before);
        (bad >= 0 && all > 0).then(|| ((bad as f64 / all as f64).min(1.0), all as f64))
    }
}

/// A value, of how many, and the rows that it comes from.
struct Found {
    value: Option<f64>,
    of: Option<f64>,
    rows: Vec<Value>,
}

impl Found {
    fn plain(value: f64, rows: Vec<Value>) -> Self {
        Self { value: Some(value), of: None, rows }
    }
}

const MONITOR: &str =
    "SELECT rolsuper OR pg_has_role('pg_read_all_stats', 'USAGE') FROM pg_roles WHERE rolname = current_user";
const CONNECTIONS: &str = "SELECT count(*)::float8 / current_setting('max_connections')::float8, count(*) AS connections, \
     current_setting('max_connections')::int8 AS most FROM pg_stat_activity WHERE backend_type = 'client backend'";
const BLOCKED: &str = "SELECT count(*) OVER ()::float8, a.pid, a.usename::text AS role, a.application_name AS application, \
     round(extract(epoch FROM clock_timestamp() - a.query_start)::numeric, 1)::float8 AS for_s, pg_blocking_pids(a.pid)::text AS blocked_by \
     FROM pg_stat_activity a WHERE a.datname = current_database() AND a.wait_event_type = 'Lock' \
       AND cardinality(pg_blocking_pids(a.pid)) > 0 ORDER BY a.query_start";
const LONGEST: &str = "SELECT extract(epoch FROM clock_timestamp() - a.xact_start)::float8, a.pid, a.usename::text AS role, \
     a.application_name AS application, a.state FROM pg_stat_activity a WHERE a.datname = current_database() \
       AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL ORDER BY a.xact_start LIMIT 5";
const COUNTERS: &str = "SELECT to_jsonb(d)::text FROM pg_stat_database d WHERE d.datname = current_database()";
const STANDBYS: &str = "SELECT application_name AS standby, state, sync_state, \
     CASE WHEN replay_lsn = pg_current_wal_lsn() THEN 0 ELSE extract(epoch FROM coalesce(replay_lag, '0')) END::float8 AS lag_s, \
     coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::float8 AS lag_bytes FROM pg_stat_replication ORDER BY 1";
/// One that has applied nothing since it was started is as far behind as that.
const STANDBY: &str = "SELECT 'this one' AS standby, coalesce((SELECT status FROM pg_stat_wal_receiver), 'not connected') AS state, \
     CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0 \
          ELSE extract(epoch FROM clock_timestamp() - coalesce(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())) \
     END::float8 AS lag_s, \
     coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)::float8 AS lag_bytes";

/// A value as the server writes it: what is a number or a truth is one.
fn value_of(text: Option<&str>) -> Value {
    match text {
        None => Value::Null,
        Some("t") => true.into(),
        Some("f") => false.into(),
        Some(text) => match text.parse::<f64>().ok().filter(|number| number.is_finite()) {
            Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => (number as i64).into(),
            Some(number) => number.into(),
            None => shorten(text, 500).into(),
        },
    }
}

/// The rows of an answer, and the first of each by itself.
async fn rows(session: &Session, query: &str) -> Result<Vec<(Option<String>, Map<String, Value>)>, PgError> {
    let mut all = vec![];
    for message in session.simple_query(query).await? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        if all.len() == ROWS {
            break;
        }
        let columns = row.columns().iter().enumerate();
        let fields = columns.map(|(at, column)| (column.name().to_owned(), value_of(row.get(at)))).collect();
        all.push(((!row.is_empty()).then(|| row.get(0)).flatten().map(str::to_owned), fields));
    }
    Ok(all)
}

/// The first column of the first row, and all rows.
pub(super) async fn number(session: &Session, query: &str) -> Result<(Option<f64>, Vec<Value>), PgError> {
    let rows = rows(session, query).await?;
    let value = match rows.first().and_then(|(first, _)| first.as_deref()) {
        None => None,
        Some("t") => Some(1.0),
        Some("f") => Some(0.0),
        Some(text) => {
            let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
            let why = || PgError::Settings("the first column of the query's first row is no number".to_owned());
            Some(number.ok_or_else(why)?)
        }
    };
    Ok((value, rows.into_iter().map(|(_, fields)| Value::Object(fields)).collect()))
}

/// A session that only reads, as its role sees things, and ends what takes longer than there is time.
pub(super) async fn reader(server: &Server, limit: Duration) -> Result<Session, PgError> {
    let way = server.way().await?;
    let session = server.connect(&way, &way.database).await?;
    let limit = limit.as_millis();
    let settings = format!(
        "RESET search_path; SET row_security = on; SET default_transaction_read_only = on; \
         SET statement_timeout = {limit}; SET lock_timeout = {limit}"
    );
    session.batch_execute(&settings).await?;
    Ok(session)
}

/// To a role without the right, the server shows fewer sessions than there are, and says nothing of it.
async fn may_see_others(session: &Session) -> Result<(), PgError> {
    match number(session, MONITOR).await?.0 {
        Some(1.0) => Ok(()),
        _ => {
            let what = "the role may not see others' sessions: `GRANT pg_monitor` to it";
            Err(PgError::Settings(what.to_owned()))
        }
    }
}

async fn of_others(session: &Session, query: &str) -> Result<(Option<f64>, Vec<Value>), PgError> {
    may_see_others(session).await?;
    number(session, query).await
}

impl Postgres {
    async fn ask(&self, limit: Duration) -> Result<Found, PgError> {
        let began = Instant::now();
        let session = reader(&self.server, limit).await?;
        let found = self.found(&session, began).await;
        session.close().await;
        found
    }

    async fn found(&self, session: &Session, began: Instant) -> Result<Found, PgError> {
        if let Some(query) = &self.settings.query {
            let (value, rows) = number(session, query).await?;
            return Ok(Found { value, of: None, rows });
        }
        let of = |(value, rows): (Option<f64>, Vec<Value>)| Found::plain(value.unwrap_or(0.0), rows);
        match self.settings.measure() {
            Measure::Failing | Measure::Latency => {
                number(session, "SELECT 1").await?;
                let latency = self.settings.measure() == Measure::Latency;
                Ok(Found::plain(if latency { began.elapsed().as_secs_f64() } else { 0.0 }, vec![]))
            }
            Measure::Connections => Ok(of(of_others(session, CONNECTIONS).await?)),
            Measure::Blocked => Ok(of(of_others(session, BLOCKED).await?)),
            Measure::LongestTransaction => Ok(of(of_others(session, LONGEST).await?)),
            measure @ (Measure::Rollbacks | Measure::LostSessions) => self.counted(session, measure).await,
            measure => self.replication(session, measure).await,
        }
    }

    async fn counted(&self, session: &Session, measure: Measure) -> Result<Found, PgError> {
        let said = rows(session, COUNTERS).await?.into_iter().next().and_then(|(first, _)| first);
        let said = said.ok_or_else(|| PgError::Odd { why: "it counts nothing of this database".to_owned() })?;
        let now: Counters = serde_json::from_str(&said).map_err(|error| PgError::Odd { why: error.to_string() })?;
        if measure == Measure::LostSessions && now.sessions.is_none() {
            return Err(PgError::Settings("the server counts no lost sessions: it is older than 14".to_owned()));
        }
        let mut former = locked(&self.former);
        let share = now.share(former.as_ref(), |counters| match measure {
            Measure::Rollbacks => (counters.xact_rollback, counters.xact_commit + counters.xact_rollback),
            _ => {
                let lost = counters.sessions_abandoned + counters.sessions_fatal + counters.sessions_killed;
                (lost, counters.sessions.unwrap_or(0))
            }
        });
        *former = Some(now);
        Ok(Found { value: share.map(|(share, _)| share), of: share.map(|(_, of)| of), rows: vec![] })
    }

    async fn replication(&self, session: &Session, measure: Measure) -> Result<Found, PgError> {
        let standby = number(session, "SELECT pg_is_in_recovery()").await?.0 == Some(1.0);
        may_see_others(session).await?;
        let rows = rows(session, if standby { STANDBY } else { STANDBYS }).await?;
        let rows: Vec<Value> = rows.into_iter().map(|(_, fields)| Value::Object(fields)).collect();
        let wanted = |row: &&Value| standby || self.settings.standbys.is_empty() || self.names(row);
        let counted: Vec<&Value> = rows.iter().filter(wanted).collect();
        let streams = |row: &&&Value| row["state"] == "streaming";
        let most = |name: &str| counted.iter().filter_map(|row| row[name].as_f64()).fold(0.0, f64::max);
        let there = match standby || self.settings.standbys.is_empty() {
            true => counted.iter().any(|row| streams(&row)),
            false => self
                .settings
                .standbys
                .iter()
                .all(|name| counted.iter().filter(streams).any(|row| row["standby"] == name.as_str())),
        };
        let value = match measure {
            Measure::ReplicationLag | Measure::ReplicationBytes if counted.is_empty() => {
                let what = "there is no such standby, so nothing is known of how far behind it is";
                return Err(PgError::Settings(what.to_owned()));
            }
            Measure::ReplicationLag => most("lag_s"),
            Measure::ReplicationBytes => most("lag_bytes"),
            _ => f64::from(u8::from(!there)),
        };
        Ok(Found::plain(value, rows))
    }

    fn names(&self, row: &Value) -> bool {
        self.settings.standbys.iter().any(|name| row["standby"] == name.as_str())
    }

    fn down(&self, cx: &Cx, why: String) -> Reading {
        let value = match (&self.settings.query, self.settings.measure()) {
            (None, Measure::Failing | Measure::Replication) => 1.0,
            (None, Measure::Latency) => cx.limit.as_secs_f64(),
            _ => return failed(why),
        };
        let fields = [("rows".to_owned(), json!([])), ("error".to_owned(), why.into())];
        Reading::of(Sample { fields: fields.into(), ..Sample::new(cx.now, value) })
    }
}

impl Signal for Postgres {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move {
            let limit = cx.limit - cx.limit / 10;
            let asked = tokio::time::timeout(limit, self.ask(limit)).await;
            let found = match asked {
                Err(_) => return self.down(cx, format!("no answer within {}", ripcord_core::human(limit))),
                Ok(Err(error @ (PgError::Unreachable { .. } | PgError::Broken { .. }))) => {
                    return self.down(cx, self.server.clean(&error.to_string()));
                }
                Ok(Err(error)) => return failed(self.server.clean(&error.to_string())),
                Ok(Ok(found)) => found,
            };
            let Some(value) = found.value else { return Reading::Empty };
            let mut rows = Value::Array(found.rows);
            self.server.redactor().clean_value(&mut rows);
            let fields = BTreeMap::from([("rows".to_owned(), rows), ("error".to_owned(), Value::Null)]);
            Reading::of(Sample { fields, n: found.of, ..Sample::new(cx.now, value) })
        })
    }

    fn query(&self) -> String {
        let what = match &self.settings.query {
            Some(query) => query.trim().to_owned(),
            None => format!("{:?}", self.settings.measure()),
        };
        self.server.clean(&format!("{what} (in {})", self.server.shown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_was_since_the_reading_before() {
        let counters = |commit, rollback, reset: &str| Counters {
            xact_commit: commit,
            xact_rollback: rollback,
            stats_reset: Some(reset.to_owned()),
            ..Counters::default()
        };
        let share = |now: &Counters, former: Option<&Counters>| {
            now.share(former, |counters| (counters.xact_rollback, counters.xact_commit + counters.xact_rollback))
        };
        let before = counters(100, 10, "a");
        assert_eq!(share(&before, None), None, "nothing is known of before");
        assert_eq!(share(&counters(130, 20, "a"), Some(&before)), Some((0.25, 40.0)));
        assert_eq!(share(&before, Some(&before)), None, "there was none");
        assert_eq!(share(&counters(130, 20, "b"), Some(&before)), None, "it was counted anew");
        assert_eq!(share(&counters(130, 2, "a"), Some(&before)), None, "a server that crashed counts anew too");
    }

    #[test]
    fn settings_that_could_not_work_are_refused() {
        let mistakes = |yaml: &str| -> Vec<String> {
            let yaml = format!("connection: {{ database: shop, user: ripcord }}\n{yaml}");
            let settings: Settings = serde_saphyr::from_str(&yaml).unwrap();
            settings.check().into_iter().map(|mistake| mistake.what).collect()
        };
        assert_eq!(mistakes("measure: blocked"), Vec::<String>::new());
        assert_eq!(mistakes("query: SELECT 1\nunit: seconds"), Vec::<String>::new());
        assert_eq!(mistakes("query: ' '"), ["the query is empty"]);
        assert_eq!(mistakes("query: SELECT 1\nmeasure: blocked"), ["`query` and `measure` are two values"]);
        assert_eq!(mistakes("unit: seconds"), ["`unit` is only for a `query`"]);
        assert_eq!(mistakes("standbys: [a]"), ["`standbys` are only for measures of the replication"]);
    }
}
