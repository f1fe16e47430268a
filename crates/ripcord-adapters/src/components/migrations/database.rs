//! Speaks to the database whose schema it is, PostgreSQL or SQLite, through one small set of calls; knows no rollback.
//!
//! Everything read comes as text, so that what is compared and recorded is the same for both.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ripcord_config::Mistake;
use ripcord_core::{Failure, TargetId};
use rusqlite::types::ValueRef;
use rusqlite::{Connection as Sqlite, ErrorCode, OpenFlags};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_postgres::SimpleQueryMessage;

use super::schema::Schema;
use super::{catalog, sqlite};
use crate::BuildCx;
use crate::components::files::{Live, blocking};
use crate::postgres::{Connection, PgError, Server, Session as Postgres, literal, quoted};

/// Which database the migrations are of.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DatabaseSettings {
    /// A PostgreSQL database.
    #[serde(default)]
    pub postgres: Option<Box<Connection>>,
    /// An SQLite database file, relative to `ripcord.yaml`.
    #[serde(default)]
    pub sqlite: Option<PathBuf>,
}

impl DatabaseSettings {
    pub(super) fn check(&self, at: &str) -> Vec<Mistake> {
        match (&self.postgres, &self.sqlite) {
            (Some(connection), None) => connection.check(&format!("{at}.postgres")),
            (None, Some(_)) => vec![],
            (None, None) => {
                vec![Mistake::new("it does not say which database").at(at).help("add `postgres` or `sqlite`")]
            }
            (Some(_), Some(_)) => vec![Mistake::new("these are two databases").at(at).help("take one of the two out")],
        }
    }

    pub(super) fn place(&self, cx: &BuildCx) -> Database {
        match (&self.postgres, &self.sqlite) {
            (Some(connection), _) => Database::Postgres(Box::new(Server::new(connection, cx))),
            (None, path) => Database::Sqlite(cx.base.join(path.as_deref().unwrap_or(Path::new("")))),
        }
    }
}

/// Where a database is.
#[derive(Clone)]
pub(super) enum Database {
    Postgres(Box<Server>),
    Sqlite(PathBuf),
}

/// What can go wrong with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum DbError {
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("{}", .0.what)]
    Other(Box<Failure>),
}

impl From<Failure> for DbError {
    fn from(failure: Failure) -> Self {
        Self::Other(Box::new(failure))
    }
}

impl From<tokio_postgres::Error> for DbError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

impl DbError {
    /// Somebody else holds a lock, and it was not let go in time.
    pub(super) fn is_locked(&self) -> bool {
        match self {
            Self::Postgres(error) => error.code() == Some("55P03"),
            Self::Sqlite(error) => {
                matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
            }
            Self::Other(_) => false,
        }
    }

    /// The session ended under a call: what it was about to do may have been done.
    pub(super) fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Postgres(PgError::Broken { .. }))
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        let locked = error.is_locked();
        match error {
            DbError::Other(failure) => *failure,
            DbError::Postgres(error) => error.into(),
            DbError::Sqlite(error) if locked => {
                Self::later(error.to_string()).advise("stop what writes to the database, then retry")
            }
            DbError::Sqlite(error) => Self::never(error.to_string()),
        }
    }
}

pub(super) type Rows = Vec<Vec<Option<String>>>;

/// A session; what is open in it is undone when it is dropped.
pub(super) enum Session {
    Postgres(Postgres),
    Sqlite(Arc<Mutex<Sqlite>>),
}

/// Whether a session is to change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Looking {
        lock: Duration,
    },
    /// With the project's own settings, as its tool would have them, and this long for a lock and for a statement.
    Acting {
        lock: Duration,
        statement: Duration,
    },
}

impl Database {
    pub(super) async fn open(&self, purpose: For) -> Result<Session, DbError> {
        match self {
            Self::Postgres(server) => {
                let way = server.way().await?;
                let session = server.connect(&way, &way.database).await?;
                let ms = |time: Duration| time.as_millis().clamp(1, i32::MAX as u128);
                match purpose {
                    For::Looking { lock } => {
                        let set = format!("SET lock_timeout = {}; SET statement_timeout = '60s'", ms(lock));
                        session.batch_execute(&set).await?;
                    }
                    For::Acting { lock, statement } => {
                        let (lock, statement) = (ms(lock), ms(statement));
                        let set = format!("RESET ALL; SET lock_timeout = {lock}; SET statement_timeout = {statement}");
                        session.batch_execute(&set).await?;
                    }
                }
                Ok(Session::Postgres(session))
            }
            Self::Sqlite(path) => {
                let path = path.clone();
                let opened = blocking(move |_| {
                    let flags = match purpose {
                        For::Looking { .. } => OpenFlags::SQLITE_OPEN_READ_ONLY,
                        For::Acting { .. } => OpenFlags::SQLITE_OPEN_READ_WRITE,
                    };
                    let db = Sqlite::open_with_flags(&path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
                    db.busy_timeout(match purpose {
                        For::Looking { lock } | For::Acting { lock, .. } => lock,
                    })?;
                    Ok::<_, rusqlite::Error>(db)
                });
                Ok(Session::Sqlite(Arc::new(Mutex::new(opened.await??))))
            }
        }
    }

    /// What it is, whatever it is called in a configuration.
    pub(super) async fn target(&self, session: &Session) -> Result<TargetId, DbError> {
        match self {
            Self::Postgres(_) => {
                // As the kind `postgres` has it: neither acts on a database while the other does.
                let asked = "SELECT system_identifier::text || '/' || current_database() FROM pg_control_system()";
                let found = session.one(asked).await?;
                Ok(TargetId(format!("postgres:{}", found.unwrap_or_default())))
            }
            Self::Sqlite(path) => Ok(sqlite_target(path)),
        }
    }

    /// The same where it cannot be asked.
    pub(super) fn target_unseen(&self) -> TargetId {
        match self {
            Self::Postgres(server) => TargetId(format!("postgres:{}", server.shown())),
            Self::Sqlite(path) => sqlite_target(path),
        }
    }
}

fn sqlite_target(path: &Path) -> TargetId {
    // As the kind `sqlite` has it.
    Live::through(path).map_or_else(|_| TargetId(format!("file:{}", path.display())), |live| live.target())
}

impl Session {
    pub(super) async fn query(&self, sql: &str) -> Result<Rows, DbError> {
        match self {
            Self::Postgres(session) => {
                let messages = session.simple_query(sql).await?;
                let row = |message| match message {
                    SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect::<Vec<_>>())
                    }
                    _ => None,
                };
                Ok(messages.into_iter().filter_map(row).collect())
            }
            Self::Sqlite(db) => {
                let (db, sql) = (Arc::clone(db), sql.to_owned());
                Ok(blocking(move |_| rows(&db.lock().unwrap_or_else(PoisonError::into_inner), &sql)).await??)
            }
        }
    }

    /// The rows of a question as they were at one moment, so many at a time.
    pub(super) async fn pages(&self, asked: &str, rows: usize) -> Result<Pages<'_>, DbError> {
        match self {
            Self::Postgres(_) => {
                self.run(&format!("BEGIN READ ONLY; DECLARE ripcord_pages NO SCROLL CURSOR FOR {asked}")).await?;
            }
            Self::Sqlite(_) => self.run("BEGIN").await?,
        }
        Ok(Pages { session: self, asked: asked.to_owned(), rows, at: 0 })
    }

    /// The first value of the first row.
    pub(super) async fn one(&self, sql: &str) -> Result<Option<String>, DbError> {
        Ok(self.query(sql).await?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    /// Runs a script of any number of statements.
    pub(super) async fn run(&self, script: &str) -> Result<(), DbError> {
        match self {
            Self::Postgres(session) => Ok(session.batch_execute(script).await?),
            Self::Sqlite(db) => {
                let (db, script) = (Arc::clone(db), script.to_owned());
                let run = blocking(move |_| db.lock().unwrap_or_else(PoisonError::into_inner).execute_batch(&script));
                Ok(run.await??)
            }
        }
    }

    /// The schema, without the table `own` and what belongs to it.
    pub(super) async fn schema(&self, own: &Table) -> Result<Schema, DbError> {
        let mut schema = match self {
            Self::Postgres(_) => catalog::schema(self.query(catalog::ALL).await?),
            Self::Sqlite(db) => {
                let db = Arc::clone(db);
                blocking(move |_| sqlite::schema(&db.lock().unwrap_or_else(PoisonError::into_inner))).await??
            }
        };
        schema.0.retain(|part, _| part.path != own.path && part.path.split_last().is_none_or(|(_, of)| of != own.path));
        // The sequence or index that belongs to it under a name of its own.
        schema.0.retain(|part, is| part.kind != "sequence" || !is.ends_with(&format!(" of {}", own.path.join("."))));
        Ok(schema)
    }

    /// Finds the table that `name` means to the project's own tool.
    pub(super) async fn table(&self, name: &str) -> Result<Table, DbError> {
        match self {
            Self::Postgres(_) => {
                let split: Vec<String> = name.split('.').map(quoted).collect();
                let asked = format!(
                    "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                     WHERE c.oid = pg_catalog.to_regclass({})",
                    literal(&split.join("."))
                );
                // The search path of the role and the database, which the tool has too.
                let found = self.query(&format!("RESET search_path; {asked}")).await?;
                let path = found.into_iter().next().map(|row| row.into_iter().flatten().collect::<Vec<_>>());
                self.run("SET search_path = pg_catalog").await?;
                Ok(Table { there: path.is_some(), path: path.unwrap_or_else(|| vec![name.to_owned()]) })
            }
            Self::Sqlite(_) => {
                let asked = format!(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND lower(name) = lower({})",
                    text(name)
                );
                let found = self.one(&asked).await?;
                Ok(Table { there: found.is_some(), path: vec![found.unwrap_or_else(|| name.to_owned())] })
            }
        }
    }

    pub(super) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

/// The rows of a question, as they are taken.
pub(super) struct Pages<'a> {
    session: &'a Session,
    asked: String,
    rows: usize,
    at: usize,
}

impl Pages<'_> {
    /// The next rows; none when there are no more.
    pub(super) async fn next(&mut self) -> Result<Option<Rows>, DbError> {
        let asked = match self.session {
            Session::Postgres(_) => format!("FETCH {} FROM ripcord_pages", self.rows),
            Session::Sqlite(_) => format!("{} LIMIT {} OFFSET {}", self.asked, self.rows, self.at),
        };
        let rows = self.session.query(&asked).await?;
        self.at += rows.len();
        if rows.is_empty() {
            self.session.run("COMMIT").await?;
            return Ok(None);
        }
        Ok(Some(rows))
    }
}

/// A table, whether or not it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) there: bool,
    pub(super) path: Vec<String>,
}

impl Table {
    pub(super) fn sql(&self) -> String {
        name(&self.path)
    }
}

/// A name of several parts as SQL takes it.
pub(super) fn name(path: &[String]) -> String {
    path.iter().map(|part| quoted(part)).collect::<Vec<_>>().join(".")
}

/// A text that both servers read alike.
pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn rows(db: &Sqlite, sql: &str) -> Result<Rows, rusqlite::Error> {
    let mut statement = db.prepare(sql)?;
    let columns = statement.column_count();
    let mut found = statement.query([])?;
    let mut rows = vec![];
    while let Some(row) = found.next()? {
        let value = |i| {
            Ok(match row.get_ref(i)? {
                ValueRef::Null => None,
                ValueRef::Integer(n) => Some(n.to_string()),
                ValueRef::Real(x) => Some(x.to_string()),
                ValueRef::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                ValueRef::Blob(bytes) => Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
            })
        };
        rows.push((0..columns).map(value).collect::<Result<Vec<_>, rusqlite::Error>>()?);
    }
    Ok(rows)
}
