//! What a server says, for people: what, whether trying again helps, what to do. Never a row of anybody's.

use ripcord_core::{Failure, Retry};
use tokio_postgres::error::SqlState;

use crate::secrets::{SecretError, chain};

/// What can go wrong with a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PgError {
    #[error("{0}")]
    Secret(String),
    #[error("{0}")]
    Settings(String),
    #[error("the server at {endpoint} cannot be reached: {why}")]
    Unreachable { endpoint: String, why: String },
    #[error("there is no database `{database}` on the server at {endpoint}")]
    NoDatabase { database: String, endpoint: String },
    #[error("the server at {endpoint} lets nobody into `{database}`: {why}")]
    Refused { endpoint: String, database: String, why: String },
    /// The session ended under a call: what the call was about to do may have been done.
    #[error("the session with the server broke: {why}")]
    Broken { why: String },
    #[error("{what}")]
    Said { what: String, code: SqlState },
    /// The answer is none that we can read.
    #[error("the server's answer cannot be read: {why}")]
    Odd { why: String },
    #[error("{}", .0.what)]
    Failed(Box<Failure>),
}

impl From<SecretError> for PgError {
    fn from(error: SecretError) -> Self {
        Self::Secret(chain(&error))
    }
}

impl From<Failure> for PgError {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl From<tokio_postgres::Error> for PgError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            // The administrator's orders to end come as errors of a session that is over.
            Some(said) if [&SqlState::ADMIN_SHUTDOWN, &SqlState::CRASH_SHUTDOWN].contains(&said.code()) => {
                Self::Broken { why: said.message().to_owned() }
            }
            // The detail is left out: it repeats values of rows.
            Some(said) => {
                let hint = said.hint().map_or(String::new(), |hint| format!(" ({hint})"));
                let code = said.code().clone();
                Self::Said { what: format!("{}{hint} [{}]", said.message(), code.code()), code }
            }
            None if error.is_closed() || is_io(&error) => Self::Broken { why: chain(&error) },
            None => Self::Odd { why: chain(&error) },
        }
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

impl PgError {
    /// What an error means that came instead of a session.
    pub(super) fn connecting(endpoint: &str, database: &str, error: tokio_postgres::Error) -> Self {
        let (endpoint, database) = (endpoint.to_owned(), database.to_owned());
        let Some(said) = error.as_db_error() else {
            return Self::Unreachable { endpoint, why: chain(&error) };
        };
        let why = said.message().to_owned();
        match said.code() {
            code if *code == SqlState::UNDEFINED_DATABASE => Self::NoDatabase { database, endpoint },
            // Starting, stopping, recovering, full.
            code if ["57P03", "57P01", "57P02", "53300"].contains(&code.code()) => Self::Unreachable { endpoint, why },
            _ => Self::Refused { endpoint, database, why },
        }
    }

    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Said { code, .. } => Some(code.code()),
            _ => None,
        }
    }
}

impl From<PgError> for Failure {
    fn from(error: PgError) -> Self {
        let what = error.to_string();
        let (retry, advice) = match error {
            PgError::Failed(failure) => return *failure,
            PgError::Secret(_) | PgError::Settings(_) => (Retry::Never, None),
            PgError::Unreachable { .. } => {
                (Retry::Later, Some("see that the server runs and can be reached from here"))
            }
            PgError::NoDatabase { .. } => (Retry::Never, Some("see that `database` names the right one")),
            PgError::Refused { .. } => {
                (Retry::Never, Some("see `user`, `password`, `sslmode` and the server's pg_hba.conf"))
            }
            PgError::Odd { .. } => (Retry::Never, None),
            PgError::Broken { .. } => (Retry::Later, Some("see the server's log, then retry")),
            PgError::Said { code, .. } => match code.code() {
                "42501" => (
                    Retry::Never,
                    Some("give the role the right, or let Ripcord use one that has it (docs/postgres.md)"),
                ),
                "53100" => (
                    Retry::Never,
                    Some("free space on the server's disk, then retry; the live database was not touched"),
                ),
                "55P03" | "55006" | "57014" | "40001" | "40P01" | "53300" => (Retry::Later, None),
                _ => (Retry::Never, None),
            },
        };
        Self { what, retry, advice: advice.map(str::to_owned), output: None }
    }
}
