//! The tables in SQLite: plain rows for what is looked up by, JSON for the rest.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ripcord_core::{
    Actor, AppId, Ask, CaptureId, CaptureRow, Digest, Event, Incident, IncidentId, LeaseOn, Ledger, Memory, Message,
    Outgoing, Quarantine, Release, ReleaseId, Reply, Request, RunId, RunRow, Seq, StoreError, TriggerId,
};
use rusqlite::types::{FromSqlError, Type, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{damaged, down};
use crate::clock::{self, Clock};
use crate::lease::LeaseRow;
use crate::seal::Raw;
use crate::state::Rows;
use crate::tables::{Attempt, Kept, Put, RunKept, Tables};

/// A connection, in a transaction where it matters.
pub(crate) struct Sql<'c> {
    pub connection: &'c Connection,
    pub clock: Option<Clock>,
}

pub(crate) fn int(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

fn json<T: Serialize>(value: &T) -> Kept<String> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Unavailable { why: format!("cannot be written as JSON: {error}") })
}

/// Reads what is kept beside the journal. It can be folded anew, so the event named is the journal's beginning.
fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Kept<T> {
    serde_json::from_str(text).map_err(|error| damaged(Seq(0), what, error))
}

/// A row of `event` in the order of [`COLUMNS`]. Text that is no text any more is damage, not an error of SQLite's.
pub(crate) fn raw(row: &Row<'_>) -> rusqlite::Result<Kept<Raw>> {
    let seq = Seq(u64::try_from(row.get::<_, i64>(0)?).unwrap_or_default());
    let optional = |n: usize| -> rusqlite::Result<Option<String>> {
        match row.get_ref(n)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(error) => Err(rusqlite::Error::FromSqlConversionFailure(n, Type::Text, Box::new(error))),
            },
            _ => Err(rusqlite::Error::FromSqlConversionFailure(n, Type::Text, Box::new(FromSqlError::InvalidType))),
        }
    };
    let text = |n: usize| optional(n).map(Option::unwrap_or_default);
    let number = |n: usize| row.get::<_, i64>(n).map(|n| u64::try_from(n).unwrap_or_default());
    let read = || -> rusqlite::Result<Raw> {
        Ok(Raw {
            seq,
            application: text(1)?,
            environment: text(2)?,
            epoch: number(3)?,
            at: text(4)?,
            id: text(5)?,
            run: optional(6)?,
            incident: optional(7)?,
            version: number(8)?,
            kind: text(9)?,
            body: text(10)?,
            prev: text(11)?,
            hash: text(12)?,
        })
    };
    Ok(read().map_err(|error| damaged(seq, "it is not text", error)))
}

pub(crate) const COLUMNS: &str =
    "seq, application, environment, epoch, at, id, run, incident, version, kind, body, prev, hash";

impl Sql<'_> {
    pub fn execute(&self, sql: &str, params: impl Params) -> Kept<usize> {
        let done = self.connection.prepare_cached(sql).and_then(|mut statement| statement.execute(params));
        done.map_err(|error| down(&error))
    }

    pub fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Kept<Option<T>> {
        let found =
            self.connection.prepare_cached(sql).and_then(|mut statement| statement.query_row(params, read).optional());
        found.map_err(|error| down(&error))
    }

    pub fn many<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Kept<Vec<T>> {
        let found = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(params, read)?.collect::<rusqlite::Result<Vec<T>>>());
        found.map_err(|error| down(&error))
    }

    /// JSON documents of a query's only column.
    fn documents<T: DeserializeOwned>(&self, what: &str, sql: &str, params: impl Params) -> Kept<Vec<T>> {
        let texts = self.many(sql, params, |row| row.get::<_, String>(0))?;
        texts.iter().map(|text| parse(what, text)).collect()
    }

    fn document<T: DeserializeOwned>(&self, what: &str, sql: &str, params: impl Params) -> Kept<Option<T>> {
        self.one(sql, params, |row| row.get::<_, String>(0))?.map(|text| parse(what, &text)).transpose()
    }

    pub fn ledger(&self, app: &AppId) -> Kept<Ledger> {
        let sql = "SELECT kept FROM ledger WHERE application = ?1 AND environment = ?2 ORDER BY first";
        let releases = self.documents("a release", sql, names(app))?;
        Ok(Ledger { releases, quarantined: self.quarantined(app)? })
    }

    pub fn quarantined(&self, app: &AppId) -> Kept<BTreeMap<String, Quarantine>> {
        let sql = "SELECT kept FROM quarantine WHERE application = ?1";
        let found: Vec<Quarantine> = self.documents("a quarantine", sql, [app.application.as_str()])?;
        Ok(found.into_iter().map(|quarantine| (quarantine.version.clone(), quarantine)).collect())
    }

    pub fn runs(&self, app: &AppId, most: usize) -> Kept<Vec<RunRow>> {
        let sql = "SELECT kept FROM run WHERE application = ?1 AND environment = ?2 ORDER BY first DESC LIMIT ?3";
        self.documents("a run", sql, params![app.application.as_str(), app.environment.as_str(), int(most)])
    }

    pub fn incidents(&self, app: &AppId, most: usize) -> Kept<Vec<Incident>> {
        let sql = "SELECT kept FROM incident WHERE application = ?1 AND environment = ?2 ORDER BY first DESC LIMIT ?3";
        self.documents("an incident", sql, params![app.application.as_str(), app.environment.as_str(), int(most)])
    }

    pub fn captures(&self, app: &AppId) -> Kept<Vec<CaptureRow>> {
        let sql = "SELECT kept FROM capture WHERE application = ?1 AND environment = ?2 ORDER BY first";
        self.documents("a capture", sql, names(app))
    }

    pub fn memories(&self, app: &AppId) -> Kept<BTreeMap<TriggerId, Memory>> {
        let sql = "SELECT id, memory FROM memory WHERE application = ?1 AND environment = ?2";
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let found = self.many(sql, names(app), read)?;
        let parsed = found.iter().map(|(id, memory)| {
            let id = TriggerId::new(id.as_str()).map_err(|error| damaged(Seq(0), "a trigger's memory", error))?;
            Ok((id, parse("a trigger's memory", memory)?))
        });
        parsed.collect()
    }

    pub fn outbox(&self, app: &AppId, now: Timestamp) -> Kept<Vec<Outgoing>> {
        let sql = "SELECT outgoing FROM outbox WHERE application = ?1 AND environment = ?2 AND due <= ?3 ORDER BY n";
        let params = params![app.application.as_str(), app.environment.as_str(), now.as_microsecond()];
        let mut due: Vec<Outgoing> = self.documents("a message", sql, params)?;
        due.retain(|outgoing| outgoing.next_try <= now);
        due.sort_by_key(|outgoing| outgoing.next_try);
        Ok(due)
    }

    pub fn request(&self, app: &AppId, by: &Actor, ask: &Ask) -> Kept<u64> {
        let at = clock::timestamp(self.now()?).to_string();
        let sql = "INSERT INTO request (application, environment, by_whom, at, ask) VALUES (?1, ?2, ?3, ?4, ?5)";
        let (application, environment) = (app.application.as_str(), app.environment.as_str());
        self.execute(sql, params![application, environment, json(by)?, at, json(ask)?])?;
        Ok(u64::try_from(self.connection.last_insert_rowid()).unwrap_or_default())
    }

    pub fn requests(&self, app: &AppId) -> Kept<Vec<Request>> {
        let sql = "SELECT id, by_whom, at, ask FROM request
            WHERE application = ?1 AND environment = ?2 AND reply IS NULL ORDER BY id";
        let read = |row: &Row<'_>| {
            let texts = (row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?);
            Ok((row.get::<_, i64>(0)?, texts))
        };
        let found = self.many(sql, names(app), read)?;
        let parsed = found.into_iter().map(|(id, (by, at, ask))| {
            Ok(Request {
                id: u64::try_from(id).unwrap_or_default(),
                app: app.clone(),
                by: parse("a request", &by)?,
                at: at.parse().map_err(|error| damaged(Seq(0), "a request", error))?,
                ask: parse("a request", &ask)?,
                reply: None,
            })
        });
        parsed.collect()
    }

    pub fn reply(&self, app: &AppId, id: u64) -> Kept<Option<Reply>> {
        let sql = "SELECT reply FROM request
            WHERE application = ?1 AND environment = ?2 AND id = ?3 AND reply IS NOT NULL";
        self.document("a reply", sql, params![app.application.as_str(), app.environment.as_str(), int(id)])
    }

    /// Everything folded from one journal, to compare it with a new fold.
    pub fn rows(&self, app: &AppId) -> Kept<Rows> {
        let mut rows = Rows::default();
        let read = |row: &Row<'_>| Ok((Seq(row.get::<_, i64>(0)?.try_into().unwrap_or_default()), row.get(1)?));
        let of = |table: &str| -> Kept<Vec<(Seq, String)>> {
            self.many(
                &format!("SELECT first, kept FROM {table} WHERE application = ?1 AND environment = ?2"),
                names(app),
                read,
            )
        };
        for (first, text) in of("ledger")? {
            let release: Release = parse("a release", &text)?;
            rows.releases.insert(release.id.clone(), (first, release));
        }
        for (first, text) in of("incident")? {
            let incident: Incident = parse("an incident", &text)?;
            rows.incidents.insert(incident.id.clone(), (first, incident));
        }
        for (first, text) in of("capture")? {
            let capture: CaptureRow = parse("a capture", &text)?;
            rows.captures.insert(capture.id.clone(), (first, capture));
        }
        for run in self.runs(app, usize::MAX)? {
            if let Some(kept) = self.run(app, &run.id)? {
                rows.runs.insert(run.id, kept);
            }
        }
        Ok(rows)
    }
}

fn names(app: &AppId) -> [&str; 2] {
    [app.application.as_str(), app.environment.as_str()]
}

/// The place a row has is the one it first had.
fn put<T: Serialize>(sql: &Sql<'_>, table: &str, app: &AppId, id: &str, first: Seq, row: &T) -> Kept<()> {
    let statement = format!(
        "INSERT INTO {table} (application, environment, id, first, kept) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET kept = excluded.kept"
    );
    let (application, environment) = (app.application.as_str(), app.environment.as_str());
    sql.execute(&statement, params![application, environment, id, int(first.0), json(row)?])?;
    Ok(())
}

fn kept<T: DeserializeOwned>(sql: &Sql<'_>, table: &str, app: &AppId, id: &str) -> Kept<Option<T>> {
    let statement = format!("SELECT kept FROM {table} WHERE application = ?1 AND environment = ?2 AND id = ?3");
    sql.document(table, &statement, [app.application.as_str(), app.environment.as_str(), id])
}

impl Tables for Sql<'_> {
    fn now(&self) -> Kept<f64> {
        match &self.clock {
            Some(clock) => Ok(clock()),
            None => Ok(self.one("SELECT unixepoch('subsec')", [], |row| row.get(0))?.unwrap_or_else(clock::host)),
        }
    }

    fn lease(&self, on: &LeaseOn) -> Kept<Option<LeaseRow>> {
        let read = |row: &Row<'_>| {
            let times = (row.get::<_, f64>(2)?, row.get::<_, f64>(3)?);
            Ok((row.get::<_, Option<String>>(0)?, row.get::<_, i64>(1)?, times))
        };
        let found = self.one("SELECT holder, epoch, expires, ttl FROM lease WHERE what = ?1", [json(on)?], read)?;
        let Some((holder, epoch, (expires, ttl))) = found else { return Ok(None) };
        let holder = holder.map(|holder| parse("a lease", &holder)).transpose()?;
        Ok(Some(LeaseRow { holder, epoch: u64::try_from(epoch).unwrap_or_default(), expires, ttl }))
    }

    fn put_lease(&mut self, on: &LeaseOn, row: &LeaseRow) -> Kept<()> {
        let holder = row.holder.as_ref().map(json).transpose()?;
        self.execute(
            "INSERT OR REPLACE INTO lease (what, holder, epoch, expires, ttl) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![json(on)?, holder, int(row.epoch), row.expires, row.ttl],
        )?;
        Ok(())
    }

    fn head(&self, app: &AppId) -> Kept<(Seq, Digest)> {
        let sql = "SELECT seq, hash FROM head WHERE application = ?1 AND environment = ?2";
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?));
        let Some((seq, hash)) = self.one(sql, names(app), read)? else { return Ok((Seq(0), Digest::ZERO)) };
        let seq = Seq(u64::try_from(seq).unwrap_or_default());
        Ok((seq, hash.parse().map_err(|error| damaged(seq, "the head", error))?))
    }

    fn put_head(&mut self, app: &AppId, seq: Seq, hash: Digest) -> Kept<()> {
        let (application, environment) = (app.application.as_str(), app.environment.as_str());
        self.execute(
            "INSERT OR REPLACE INTO head (application, environment, seq, hash) VALUES (?1, ?2, ?3, ?4)",
            params![application, environment, int(seq.0), hash.to_string()],
        )?;
        Ok(())
    }

    fn events(&self, app: &AppId, after: Seq, most: usize) -> Kept<Vec<Event>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM event
             WHERE application = ?1 AND environment = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4"
        );
        let (application, environment) = (app.application.as_str(), app.environment.as_str());
        let rows = self.many(&sql, params![application, environment, int(after.0), int(most)], raw)?;
        rows.into_iter().map(|raw| raw?.open()).collect()
    }

    fn run_events(&self, app: &AppId, run: &RunId) -> Kept<Vec<Event>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM event WHERE application = ?1 AND environment = ?2 AND run = ?3 ORDER BY seq"
        );
        let rows = self.many(&sql, [app.application.as_str(), app.environment.as_str(), run.as_str()], raw)?;
        rows.into_iter().map(|raw| raw?.open()).collect()
    }

    fn put_event(&mut self, raw: &Raw, _: &Event) -> Kept<Put> {
        let sql = format!(
            "INSERT INTO event ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (id) DO NOTHING"
        );
        let written = self.execute(
            &sql,
            params![
                int(raw.seq.0),
                raw.application,
                raw.environment,
                int(raw.epoch),
                raw.at,
                raw.id,
                raw.run,
                raw.incident,
                int(raw.version),
                raw.kind,
                raw.body,
                raw.prev,
                raw.hash
            ],
        )?;
        Ok(if written == 1 { Put::Done } else { Put::UsedBefore })
    }

    fn blob(&self, digest: &Digest) -> Kept<Option<Vec<u8>>> {
        self.one("SELECT bytes FROM blob WHERE digest = ?1", [digest.to_string()], |row| row.get(0))
    }

    fn put_blob(&mut self, digest: &Digest, bytes: &[u8]) -> Kept<()> {
        let sql = "INSERT INTO blob (digest, bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.execute(sql, params![digest.to_string(), bytes])?;
        Ok(())
    }

    fn release(&self, app: &AppId, id: &ReleaseId) -> Kept<Option<Release>> {
        kept(self, "ledger", app, id.as_str())
    }

    fn put_release(&mut self, app: &AppId, first: Seq, release: &Release) -> Kept<()> {
        put(self, "ledger", app, release.id.as_str(), first, release)
    }

    fn put_quarantine(&mut self, app: &AppId, version: &str, quarantine: Option<&Quarantine>) -> Kept<()> {
        let application = app.application.as_str();
        match quarantine {
            Some(quarantine) => self.execute(
                "INSERT OR REPLACE INTO quarantine (application, version, kept) VALUES (?1, ?2, ?3)",
                params![application, version, json(quarantine)?],
            )?,
            None => {
                self.execute("DELETE FROM quarantine WHERE application = ?1 AND version = ?2", [application, version])?
            }
        };
        Ok(())
    }

    fn run(&self, app: &AppId, id: &RunId) -> Kept<Option<RunKept>> {
        let sql = "SELECT kept, last, level, of_release, of_incident FROM run
            WHERE application = ?1 AND environment = ?2 AND id = ?3";
        let read = |row: &Row<'_>| {
            let attempt =
                (row.get::<_, Option<i64>>(2)?, row.get::<_, Option<String>>(3)?, row.get::<_, Option<String>>(4)?);
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, attempt))
        };
        let found = self.one(sql, [app.application.as_str(), app.environment.as_str(), id.as_str()], read)?;
        let Some((row, last, (level, release, incident))) = found else { return Ok(None) };
        let attempt = level.map(|level| Attempt {
            release: release.map(|id: String| ReleaseId::typed(&id)),
            incident: incident.map(|id: String| IncidentId::typed(&id)),
            level: u8::try_from(level).unwrap_or(u8::MAX),
        });
        Ok(Some(RunKept { row: parse("a run", &row)?, last: Seq(last.try_into().unwrap_or_default()), attempt }))
    }

    fn put_run(&mut self, app: &AppId, run: &RunKept) -> Kept<()> {
        let attempt = run.attempt.as_ref();
        let release = attempt.and_then(|a| a.release.as_ref()).map(ReleaseId::as_str);
        let incident = attempt.and_then(|a| a.incident.as_ref()).map(IncidentId::as_str);
        self.execute(
            "INSERT OR ABORT INTO run
                 (application, environment, id, first, last, level, of_release, of_incident, kept)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (application, environment, id) DO UPDATE SET last = excluded.last, level = excluded.level,
                 of_release = excluded.of_release, of_incident = excluded.of_incident, kept = excluded.kept",
            params![
                app.application.as_str(),
                app.environment.as_str(),
                run.row.id.as_str(),
                int(run.row.first.0),
                int(run.last.0),
                attempt.map(|a| a.level),
                release,
                incident,
                json(&run.row)?
            ],
        )?;
        Ok(())
    }

    fn rival(&self, app: &AppId, attempt: &Attempt) -> Kept<Option<RunId>> {
        // A null equals nothing, as it should.
        let sql = "SELECT id FROM run WHERE application = ?1 AND environment = ?2 AND level = ?3
            AND (of_release = ?4 OR of_incident = ?5)";
        let release = attempt.release.as_ref().map(ReleaseId::as_str);
        let incident = attempt.incident.as_ref().map(IncidentId::as_str);
        let params = params![app.application.as_str(), app.environment.as_str(), attempt.level, release, incident];
        let found: Option<String> = self.one(sql, params, |row| row.get(0))?;
        Ok(found.map(|id| RunId::typed(&id)))
    }

    fn incident(&self, app: &AppId, id: &IncidentId) -> Kept<Option<Incident>> {
        kept(self, "incident", app, id.as_str())
    }

    fn put_incident(&mut self, app: &AppId, first: Seq, incident: &Incident) -> Kept<()> {
        put(self, "incident", app, incident.id.as_str(), first, incident)
    }

    fn capture(&self, app: &AppId, id: &CaptureId) -> Kept<Option<CaptureRow>> {
        kept(self, "capture", app, id.as_str())
    }

    fn put_capture(&mut self, app: &AppId, first: Seq, capture: &CaptureRow) -> Kept<()> {
        put(self, "capture", app, capture.id.as_str(), first, capture)
    }

    fn put_memory(&mut self, app: &AppId, trigger: &TriggerId, memory: &Memory) -> Kept<()> {
        let (application, environment) = (app.application.as_str(), app.environment.as_str());
        self.execute(
            "INSERT OR REPLACE INTO memory (application, environment, id, memory) VALUES (?1, ?2, ?3, ?4)",
            params![application, environment, trigger.as_str(), json(memory)?],
        )?;
        Ok(())
    }

    fn add_message(&mut self, app: &AppId, message: &Message) -> Kept<()> {
        let outgoing = Outgoing { message: message.clone(), tried: 0, next_try: message.at };
        let (application, environment) = (app.application.as_str(), app.environment.as_str());
        let due = outgoing.next_try.as_microsecond();
        self.execute(
            "INSERT INTO outbox (application, environment, id, due, outgoing) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
            params![application, environment, message.id, due, json(&outgoing)?],
        )?;
        Ok(())
    }

    fn put_outgoing(&mut self, app: &AppId, id: &str, outgoing: Option<&Outgoing>) -> Kept<()> {
        let (application, environment) = (app.application.as_str(), app.environment.as_str());
        let is = "WHERE application = ?1 AND environment = ?2 AND id = ?3";
        match outgoing {
            None => self.execute(&format!("DELETE FROM outbox {is}"), [application, environment, id])?,
            Some(outgoing) => self.execute(
                &format!("UPDATE outbox SET due = ?4, outgoing = ?5 {is}"),
                params![application, environment, id, outgoing.next_try.as_microsecond(), json(outgoing)?],
            )?,
        };
        Ok(())
    }

    fn answer(&mut self, app: &AppId, id: u64, reply: &Reply) -> Kept<bool> {
        let (application, environment) = (app.application.as_str(), app.environment.as_str());
        // The first reply stands.
        let sql = "UPDATE request SET reply = coalesce(reply, ?4)
            WHERE application = ?1 AND environment = ?2 AND id = ?3";
        Ok(self.execute(sql, params![application, environment, int(id), json(reply)?])? > 0)
    }
}
