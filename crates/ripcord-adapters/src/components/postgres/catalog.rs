//! What a server says about a database: the questions, and their answers as values.
//!
//! Whether a database was written to is told without reading a row: by its tables' counters in the server's statistics, by the
//! files its tables lie in (TRUNCATE changes no counter), by its sequences and its definitions. All of them together are its
//! *state*, and the revision of a database is made from its state; so one that nobody has written to since it was captured is
//! still at what was captured.
//!
//! The counters reach the statistics up to ten seconds after a commit when the session that wrote stays idle. While there are
//! sessions that may have something in hand, or that the role may not see, the state has the server's transactions in it, and
//! equals no other.
//! Source: PostgreSQL 15, `pgstat.c` (PGSTAT_IDLE_INTERVAL); manual, "The Cumulative Statistics System".

use std::collections::BTreeMap;

use jiff::Timestamp;
use ripcord_core::{Digest, Revision};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use super::names;
use crate::postgres::{PgError, Session, literal, quoted};

/// A database as the catalog has it, seen from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) allows: bool,
    pub(super) bytes: i64,
    /// Our settings on it, without `ripcord.`.
    pub(super) marks: BTreeMap<String, String>,
}

/// What `pg_dump` leaves out of a database: what it is, apart from what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attributes {
    pub(super) owner: String,
    pub(super) encoding: String,
    pub(super) collate: String,
    pub(super) ctype: String,
    /// `c`, `i` or `b`: whose collations (PostgreSQL 15 and newer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) locale: Option<String>,
    pub(super) tablespace: String,
    pub(super) connections: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
    /// None where nobody ever granted or revoked anything: who may do what then follows from the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) grants: Option<Vec<Grant>>,
    /// Settings for everybody (without a role) and for single roles.
    pub(super) settings: Vec<Setting>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    /// None for everybody.
    pub(super) to: Option<String>,
    pub(super) privilege: String,
    pub(super) grantable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    pub(super) role: Option<String>,
    pub(super) name: String,
    pub(super) value: String,
}

/// A table's counters since the statistics began, and the file it lies in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counters {
    pub(super) inserted: i64,
    pub(super) updated: i64,
    pub(super) deleted: i64,
    pub(super) file: u32,
}

/// By `schema.table`.
pub(super) type Tables = BTreeMap<String, Counters>;

/// What tells whether a database was written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) oid: u32,
    /// When somebody, or a crash, last set the counters back.
    pub(super) reset: String,
    pub(super) tables: Tables,
    /// Of everything defined in it, expressions included.
    pub(super) definitions: Digest,
    pub(super) sequences: Digest,
    /// The server's transactions, while there are sessions whose writes the counters may not have yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unsettled: Option<String>,
}

impl State {
    pub(super) fn digest(&self) -> Digest {
        Digest::of_value(self)
    }

    /// Of the files alone: it changes when a table is emptied or rewritten.
    pub(super) fn files(&self) -> Digest {
        let files: BTreeMap<_, _> = self.tables.iter().map(|(name, counters)| (name, counters.file)).collect();
        Digest::of_value(&files)
    }

    /// The revision of a database that is in this state and has no other by being restored.
    pub(super) fn revision(&self, system: &str) -> Revision {
        Revision::exact(format!("pg:{}", Digest::of_value(&(system, self.digest())).hex()))
    }
}

/// What a restored database says of itself, as a setting on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Restored {
    pub(super) version: u16,
    pub(super) revision: Revision,
    /// The moment after the capture that it has gone on to, where it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<String>,
    /// The step that restored it.
    pub(super) key: String,
    pub(super) at: Timestamp,
    /// Its state right after the restore.
    pub(super) state: Digest,
    /// Whether all its counters were set to zero then, which only a superuser may in a database that is new.
    pub(super) zeroed: bool,
    pub(super) reset: String,
    pub(super) files: Digest,
}

/// What a database that was set aside says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Aside {
    pub(super) version: u16,
    pub(super) of: String,
    pub(super) key: String,
    pub(super) at: Timestamp,
    /// Its state before what it has more than the restored one was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<Digest>,
    /// Whether what was written to it later was looked after.
    pub(super) settled: bool,
}

/// What a database being built says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Building {
    pub(super) version: u16,
    pub(super) key: String,
    pub(super) at: Timestamp,
    /// Restored, compared with what was captured, and analysed.
    pub(super) ready: bool,
}

impl Listed {
    fn mark<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.marks.get(name)?).ok()
    }
    pub(super) fn restored(&self) -> Option<Restored> {
        self.mark(names::RESTORED)
    }
    pub(super) fn aside(&self) -> Option<Aside> {
        self.mark(names::ASIDE)
    }
    pub(super) fn building(&self) -> Option<Building> {
        self.mark(names::BUILDING)
    }
}

/// The server itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct System {
    pub(super) identifier: String,
    /// 150018 is 15.18.
    pub(super) version: i32,
    pub(super) standby: bool,
}

impl System {
    pub(super) fn major(&self) -> u32 {
        u32::try_from(self.version / 10_000).unwrap_or_default()
    }
}

pub(super) async fn system(session: &Session) -> Result<System, PgError> {
    let question = "SELECT system_identifier::text, current_setting('server_version_num')::int4, pg_is_in_recovery() \
                    FROM pg_control_system()";
    let row = session.query_one(question, &[]).await?;
    Ok(System { identifier: row.try_get(0)?, version: row.try_get(1)?, standby: row.try_get(2)? })
}

/// All databases whose name is `name`, or begins with `prefix`.
pub(super) async fn listed(session: &Session, name: &str, prefix: &str) -> Result<Vec<Listed>, PgError> {
    let question = "SELECT d.oid, d.datname::text, d.datallowconn, \
             CASE WHEN has_database_privilege(d.oid, 'CONNECT') THEN pg_database_size(d.oid) ELSE 0 END, \
             coalesce((SELECT array_agg(s) FROM pg_db_role_setting r, unnest(r.setconfig) s \
                       WHERE r.setdatabase = d.oid AND r.setrole = 0 AND s LIKE 'ripcord.%'), '{}') \
         FROM pg_database d WHERE d.datname = $1 OR starts_with(d.datname::text, $2) ORDER BY d.datname";
    let rows = session.query(question, &[&name, &prefix]).await?;
    Ok(rows.iter().map(listed_row).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// `None` for a database that was dropped while the list was read: it has no size any more.
fn listed_row(row: &Row) -> Result<Option<Listed>, PgError> {
    let Some(bytes) = row.try_get(3)? else { return Ok(None) };
    let marks: Vec<String> = row.try_get(4)?;
    let marks = marks.iter().filter_map(|mark| mark.strip_prefix("ripcord.")?.split_once('='));
    Ok(Some(Listed {
        oid: row.try_get(0)?,
        name: row.try_get(1)?,
        allows: row.try_get(2)?,
        bytes,
        marks: marks.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }))
}

/// One database by its name.
pub(super) async fn find(session: &Session, name: &str) -> Result<Option<Listed>, PgError> {
    Ok(listed(session, name, name).await?.into_iter().find(|found| found.name == name))
}

/// The statement that leaves a mark of ours on a database.
pub(super) fn marking(database: &str, name: &str, mark: &impl Serialize) -> Result<String, PgError> {
    let text = serde_json::to_string(mark).map_err(|error| PgError::Settings(error.to_string()))?;
    Ok(format!("ALTER DATABASE {} SET ripcord.{name} = {};", quoted(database), literal(&text)))
}

/// The state of the database the session is in.
pub(super) async fn state(session: &Session) -> Result<State, PgError> {
    session.batch_execute("SELECT pg_stat_clear_snapshot()").await?;
    let question = "SELECT d.oid, \
             concat_ws(' ', (SELECT stats_reset FROM pg_stat_database WHERE datid = d.oid), \
                            (SELECT stats_reset FROM pg_stat_bgwriter)), \
             CASE WHEN EXISTS (SELECT FROM pg_stat_activity a \
                     WHERE a.datid = d.oid AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend' \
                       AND a.application_name <> 'ripcord' \
                       AND (a.backend_xid IS NOT NULL OR a.state IS NULL OR a.state = 'disabled' OR a.state LIKE 'idle in%' \
                            OR a.state_change > now() - interval '11s')) \
                  THEN pg_current_snapshot()::text END \
         FROM pg_database d WHERE d.datname = current_database()";
    let row = session.query_one(question, &[]).await?;
    let (oid, reset, unsettled) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let question = "SELECT n.nspname || '.' || c.relname, s.n_tup_ins, s.n_tup_upd, s.n_tup_del, \
             coalesce(pg_relation_filenode(c.oid), 0::oid) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid \
         WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' \
           AND (n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') OR c.oid = 'pg_largeobject'::regclass)";
    let mut tables = Tables::new();
    for row in session.query(question, &[]).await? {
        let count = |at| -> Result<i64, PgError> { Ok(row.try_get::<_, Option<i64>>(at)?.unwrap_or_default()) };
        let counters = Counters { inserted: count(1)?, updated: count(2)?, deleted: count(3)?, file: row.try_get(4)? };
        tables.insert(row.try_get(0)?, counters);
    }
    let question = "SELECT coalesce(string_agg(format('%I.%I=%s', schemaname, sequencename, last_value), E'\\n' \
             ORDER BY schemaname, sequencename), '') FROM pg_sequences";
    let sequences: String = session.query_one(question, &[]).await?.try_get(0)?;
    let (_, definitions) = super::schema::fingerprints(session).await?;
    Ok(State { oid, reset, tables, definitions, sequences: Digest::of(sequences.as_bytes()), unsettled })
}

pub(super) async fn attributes(session: &Session, system: &System, name: &str) -> Result<Attributes, PgError> {
    let (provider, locale) = match system.major() {
        17.. => ("d.datlocprovider::text", "d.datlocale::text"),
        15 | 16 => ("d.datlocprovider::text", "d.daticulocale::text"),
        _ => ("NULL::text", "NULL::text"),
    };
    let question = format!(
        "SELECT pg_get_userbyid(d.datdba)::text, pg_encoding_to_char(d.encoding)::text, d.datcollate::text, d.datctype::text, \
             {provider}, {locale}, t.spcname::text, d.datconnlimit, shobj_description(d.oid, 'pg_database'), d.datacl IS NULL, d.oid \
         FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = $1"
    );
    let row = session.query_one(&question, &[&name]).await?;
    let oid: u32 = row.try_get(10)?;
    let grants = match row.try_get(9)? {
        true => None,
        false => {
            let question = "SELECT CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee)::text END, a.privilege_type, \
                     a.is_grantable FROM pg_database d, aclexplode(d.datacl) a WHERE d.oid = $1 ORDER BY 1, 2, 3";
            let rows = session.query(question, &[&oid]).await?;
            let grant = |row: &Row| -> Result<Grant, PgError> {
                Ok(Grant { to: row.try_get(0)?, privilege: row.try_get(1)?, grantable: row.try_get(2)? })
            };
            Some(rows.iter().map(grant).collect::<Result<_, _>>()?)
        }
    };
    let question = "SELECT CASE WHEN r.setrole <> 0 THEN pg_get_userbyid(r.setrole)::text END, u.s \
         FROM pg_db_role_setting r, unnest(r.setconfig) WITH ORDINALITY AS u(s, o) \
         WHERE r.setdatabase = $1 AND s NOT LIKE 'ripcord.%' ORDER BY 1, o";
    let mut settings = vec![];
    for row in session.query(question, &[&oid]).await? {
        let text: String = row.try_get(1)?;
        if let Some((name, value)) = text.split_once('=') {
            settings.push(Setting { role: row.try_get(0)?, name: name.to_owned(), value: value.to_owned() });
        }
    }
    Ok(Attributes {
        owner: row.try_get(0)?,
        encoding: row.try_get(1)?,
        collate: row.try_get(2)?,
        ctype: row.try_get(3)?,
        provider: row.try_get(4)?,
        locale: row.try_get(5)?,
        tablespace: row.try_get(6)?,
        connections: row.try_get(7)?,
        comment: row.try_get(8)?,
        grants,
        settings,
    })
}

impl Attributes {
    /// A new and empty database with what can only be said when it is made.
    pub(super) fn creating(&self, name: &str) -> String {
        let mut text = format!(
            "CREATE DATABASE {} TEMPLATE template0 OWNER {} ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            quoted(name),
            quoted(&self.owner),
            literal(&self.encoding),
            literal(&self.collate),
            literal(&self.ctype),
        );
        // To name the default one takes a right that using it does not.
        if self.tablespace != "pg_default" {
            text.push_str(&format!(" TABLESPACE {}", quoted(&self.tablespace)));
        }
        match (self.provider.as_deref(), &self.locale) {
            (Some("i"), Some(locale)) => text.push_str(&format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(locale))),
            (Some("b"), Some(locale)) => {
                text.push_str(&format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(locale)));
            }
            (Some("c"), _) => text.push_str(" LOCALE_PROVIDER libc"),
            _ => {}
        }
        text
    }

    /// Gives a new database the rest.
    pub(super) fn dressing(&self, name: &str) -> Vec<String> {
        let database = quoted(name);
        let mut all = vec![format!("ALTER DATABASE {database} CONNECTION LIMIT {}", self.connections)];
        if let Some(comment) = &self.comment {
            all.push(format!("COMMENT ON DATABASE {database} IS {}", literal(comment)));
        }
        if let Some(grants) = &self.grants {
            all.push(format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"));
            all.push(format!("REVOKE ALL ON DATABASE {database} FROM {}", quoted(&self.owner)));
            for grant in grants {
                let to = grant.to.as_deref().map_or("PUBLIC".to_owned(), quoted);
                let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
                all.push(format!("GRANT {} ON DATABASE {database} TO {to}{option}", grant.privilege));
            }
        }
        for Setting { role, name, value } in &self.settings {
            let whose = match role {
                Some(role) => format!("ROLE {} IN DATABASE {database}", quoted(role)),
                None => format!("DATABASE {database}"),
            };
            all.push(format!("ALTER {whose} SET {} = {}", parameter(name), setting_value(name, value)));
        }
        all
    }
}

/// A parameter's name: `work_mem`, or `app.tenant`, each part quoted by itself.
fn parameter(name: &str) -> String {
    name.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

/// The parameters whose value is a list of names: given as one text, they would be one name.
/// Source: PostgreSQL 15, `dumputils.c`, `variable_is_guc_list_quote`.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

fn setting_value(name: &str, value: &str) -> String {
    if !LISTS.contains(&name.to_ascii_lowercase().as_str()) {
        return literal(value);
    }
    // The catalog has the names as they were written, in quotes where they need them.
    let names = split_names(value);
    match names.is_empty() {
        true => "''".to_owned(),
        false => names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", "),
    }
}

fn split_names(value: &str) -> Vec<String> {
    let (mut names, mut name, mut inside, mut any) = (vec![], String::new(), false, false);
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if inside && chars.peek() == Some(&'"') => {
                chars.next();
                name.push('"');
            }
            '"' => {
                inside = !inside;
                any = true;
            }
            ',' if !inside => {
                names.push(std::mem::take(&mut name));
                any = false;
            }
            c if c.is_whitespace() && !inside => {}
            c => name.push(c),
        }
    }
    if any || !name.is_empty() {
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_schemas_stays_one() {
        assert_eq!(setting_value("search_path", "\"$user\", public, \"a\"\"b,c\""), "'$user', 'public', 'a\"b,c'");
        assert_eq!(setting_value("search_path", "\"\""), "''");
        assert_eq!(setting_value("app.tenant", "a, b"), "'a, b'");
        assert_eq!(parameter("app.tenant"), "\"app\".\"tenant\"");
    }

    #[test]
    fn a_state_is_another_one_after_any_write() {
        let table = Counters { inserted: 1, updated: 0, deleted: 0, file: 7 };
        let state = State {
            oid: 1,
            reset: String::new(),
            tables: [("public.t".to_owned(), table)].into(),
            definitions: Digest::of(b""),
            sequences: Digest::of(b""),
            unsettled: None,
        };
        let with = |change: fn(&mut State)| {
            let mut other = state.clone();
            change(&mut other);
            assert_ne!(other.revision("1"), state.revision("1"));
            other
        };
        with(|state| state.tables.values_mut().for_each(|t| t.deleted += 1));
        let emptied = with(|state| state.tables.values_mut().for_each(|t| t.file += 1));
        assert_ne!(emptied.files(), state.files());
        with(|state| state.unsettled = Some("12".to_owned()));
        with(|state| state.reset = "2026".to_owned());
        assert_ne!(state.revision("1"), state.revision("2"), "two servers");
    }
}
