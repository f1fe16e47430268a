//! PostgreSQL, for the kinds that work on it: where a server is, how to speak to it, and its own programs.
//!
//! It knows no rollback. Passwords come from where settings say they are, go to the server through the protocol and to the
//! programs through their environment, and are known to the redactor before either.

mod error; // what the server says, for people
mod programs; // pg_dump, pg_restore and the others
mod tls; // encrypted, and to whom

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord_config::Mistake;
use ripcord_config::wire::{SecretFrom, Text};
use ripcord_core::{Redactor, Secret};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};

pub(crate) use self::error::PgError;
pub(crate) use self::programs::{Ended, Program, argument};

use crate::{BuildCx, secrets};

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// What our sessions call themselves.
pub(crate) const NAME: &str = "ripcord";
const PORT: u16 = 5432;

/// Whether a connection is encrypted, and whether the server has to show who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    Disable,
    /// Encrypted; anybody could be at the other end.
    Require,
    /// Encrypted, and the server's certificate is signed by `root-certificate` and has the name of `host`.
    VerifyFull,
}

/// Where a PostgreSQL server is, and as whom to go there.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Connection {
    /// The whole connection as a secret, `postgresql://user:password@host:port/database`, in the place of `host`, `port`, `socket`,
    /// `user`, `password` and `database`.
    #[serde(default)]
    pub url: Option<SecretFrom>,
    /// `localhost` when neither it nor `socket` is given.
    #[serde(default)]
    pub host: Option<Text>,
    /// The directory of the server's socket, in the place of `host`. A relative one is taken from `ripcord.yaml`.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// 5432 by default.
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default)]
    pub database: Option<Text>,
    #[serde(default)]
    pub user: Option<Text>,
    /// Where the password is; without it the server must let the user in by other means (`peer`, `trust`).
    #[serde(default)]
    pub password: Option<SecretFrom>,
    /// `disable` on a socket and on the machine itself, else `require`.
    #[serde(default)]
    pub sslmode: Option<Encryption>,
    /// A file with the certificates that sign the server's, in PEM.
    #[serde(default)]
    pub root_certificate: Option<PathBuf>,
    /// A database that is always there, for what is done to others. Not the one of `database`.
    #[serde(default = "maintenance")]
    pub maintenance_database: Text,
    /// The directory of `pg_dump` and `pg_restore`; looked for on the path and where packages put them when it is not given.
    #[serde(default)]
    pub programs: Option<PathBuf>,
}

fn maintenance() -> Text {
    Text("postgres".to_owned())
}

impl Connection {
    /// Mistakes; `at` is the setting that holds the connection.
    pub(crate) fn check(&self, at: &str) -> Vec<Mistake> {
        let mistake = |what: &str, field: &str| Mistake::new(what).at(format!("{at}.{field}"));
        let mut mistakes = vec![];
        let parts = [
            ("host", self.host.is_some()),
            ("socket", self.socket.is_some()),
            ("port", self.port.is_some()),
            ("database", self.database.is_some()),
            ("user", self.user.is_some()),
            ("password", self.password.is_some()),
        ];
        if self.url.is_some() {
            for (name, _) in parts.into_iter().filter(|(_, given)| *given) {
                mistakes.push(mistake("`url` says it already", name).help("take one of the two out"));
            }
        } else {
            for (name, missing) in [("database", self.database.is_none()), ("user", self.user.is_none())] {
                if missing {
                    mistakes.push(Mistake::new(format!("`{name}` is missing")).at(at).help("add it, or give a `url`"));
                }
            }
        }
        if self.host.is_some() && self.socket.is_some() {
            mistakes.push(mistake("`host` and `socket` are two places", "socket").help("take one of the two out"));
        }
        if self.database.as_ref() == Some(&self.maintenance_database) {
            let help = "name another one that is always there, such as `template1`";
            mistakes.push(mistake("a database cannot be renamed through itself", "maintenance-database").help(help));
        }
        if (self.sslmode == Some(Encryption::VerifyFull)) != self.root_certificate.is_some() {
            let what = "`sslmode: verify-full` and `root-certificate` need each other";
            mistakes.push(mistake(what, "sslmode"));
        }
        mistakes
    }
}

/// A server, as settings name it.
#[derive(Clone)]
pub(crate) struct Server {
    settings: Connection,
    base: PathBuf,
    redactor: Redactor,
}

/// Everything needed to go there, secrets included: made for one call, and dropped after it.
pub(crate) struct Way {
    config: Config,
    encryption: Encryption,
    tls: Option<tls::Connector>,
    /// For the server's own programs, the password among them.
    pub(crate) environment: BTreeMap<String, String>,
    /// The database that the settings are about.
    pub(crate) database: String,
    /// The server in words.
    pub(crate) endpoint: String,
}

impl Way {
    /// To the same database as the same role, on another server of this machine that lets in whoever reaches its socket.
    pub(crate) fn at_socket(&self, directory: &Path, port: u16) -> Self {
        let mut config = Config::new();
        config.host_path(directory).port(port).dbname(&self.database).ssl_mode(SslMode::Disable);
        config.user(self.config.get_user().unwrap_or_default()).application_name(NAME).connect_timeout(CONNECT);
        let place = directory.display().to_string();
        let mut environment = self.environment.clone();
        let there = [
            ("PGHOST", place.clone()),
            ("PGPORT", port.to_string()),
            ("PGSSLMODE", "disable".to_owned()),
            ("PGPASSWORD", String::new()),
        ];
        environment.extend(there.map(|(name, value)| (name.to_owned(), value)));
        let (encryption, endpoint) = (Encryption::Disable, format!("{place}:{port}"));
        Self { config, encryption, tls: None, environment, database: self.database.clone(), endpoint }
    }
}

/// A session of ours; it ends when it is dropped.
pub(crate) struct Session {
    client: Client,
    ends: tokio::task::JoinHandle<()>,
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Session {
    /// Ends the session in good order and waits until the server was told: a database with sessions cannot be renamed.
    pub(crate) async fn close(self) {
        drop(self.client);
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ends).await;
    }
}

impl Server {
    pub(crate) fn new(settings: &Connection, cx: &BuildCx) -> Self {
        Self { settings: settings.clone(), base: cx.base.clone(), redactor: cx.redactor.clone() }
    }

    pub(crate) fn maintenance(&self) -> &str {
        self.settings.maintenance_database.as_str()
    }

    /// The database as settings name it, where that is no secret.
    pub(crate) fn shown(&self) -> String {
        self.settings.database.as_ref().map_or("the database".to_owned(), ToString::to_string)
    }

    pub(crate) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    pub(crate) fn clean(&self, text: &str) -> String {
        self.redactor.clean(text)
    }

    /// Resolves the secrets.
    pub(crate) async fn way(&self) -> Result<Way, PgError> {
        let settings = &self.settings;
        let mut config = match &settings.url {
            Some(from) => {
                let url = secrets::resolve(&from.0, &self.base, &self.redactor).await?;
                // The error of the library could repeat what it could not read.
                let config: Config = url.reveal().parse().map_err(|_| {
                    PgError::Settings(
                        "the secret in `url` is no `postgresql://user:password@host:port/database`".to_owned(),
                    )
                })?;
                if let Some(password) = config.get_password().and_then(|password| std::str::from_utf8(password).ok()) {
                    self.redactor.learn(&Secret::new(password));
                }
                config
            }
            None => self.named().await?,
        };
        let [host] = config.get_hosts() else {
            return Err(PgError::Settings("`url` has to name one host".to_owned()));
        };
        let (place, near) = match host {
            Host::Unix(path) => (path.display().to_string(), true),
            Host::Tcp(name) => (name.clone(), name == "localhost" || is_loopback(name)),
        };
        let port = config.get_ports().first().copied().unwrap_or(PORT);
        let missing = |what: &str| PgError::Settings(format!("`url` names no {what}"));
        let database = config.get_dbname().ok_or_else(|| missing("database"))?.to_owned();
        if database == self.maintenance() {
            let what =
                format!("a database cannot be renamed through itself: `maintenance-database` is `{database}` too");
            return Err(PgError::Settings(what));
        }
        let user = config.get_user().ok_or_else(|| missing("user"))?.to_owned();
        let asked = match config.get_ssl_mode() {
            SslMode::Disable => Some(Encryption::Disable),
            SslMode::Require => Some(Encryption::Require),
            _ => None,
        };
        let encryption =
            settings.sslmode.or(asked).unwrap_or(if near { Encryption::Disable } else { Encryption::Require });
        let root = settings.root_certificate.as_ref().map(|path| self.base.join(path));
        let (mode, tls) = match encryption {
            Encryption::Disable => (SslMode::Disable, None),
            Encryption::Require => (SslMode::Require, Some(tls::to_anybody()?)),
            Encryption::VerifyFull => {
                let root = root.as_deref();
                let missing = || PgError::Settings("`sslmode: verify-full` needs a `root-certificate`".to_owned());
                (SslMode::Require, Some(tls::signed_by(root.ok_or_else(missing)?)?))
            }
        };
        config.ssl_mode(mode).application_name(NAME).connect_timeout(CONNECT);
        // A server that is gone without a word is found out.
        config
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3);
        let mut environment = BTreeMap::from([
            ("PGHOST".to_owned(), place.clone()),
            ("PGPORT".to_owned(), port.to_string()),
            ("PGUSER".to_owned(), user),
            ("PGDATABASE".to_owned(), database.clone()),
            ("PGAPPNAME".to_owned(), NAME.to_owned()),
            ("PGCONNECT_TIMEOUT".to_owned(), CONNECT.as_secs().to_string()),
            // What Ripcord itself was started with must not lead its children elsewhere.
            ("PGHOSTADDR".to_owned(), String::new()),
            ("PGOPTIONS".to_owned(), String::new()),
            ("PGCLIENTENCODING".to_owned(), String::new()),
        ]);
        environment.insert(
            "PGSSLMODE".to_owned(),
            match encryption {
                Encryption::Disable => "disable",
                Encryption::Require => "require",
                Encryption::VerifyFull => "verify-full",
            }
            .to_owned(),
        );
        environment.insert("PGSSLROOTCERT".to_owned(), root.map_or(String::new(), |path| path.display().to_string()));
        let password = config.get_password().and_then(|password| std::str::from_utf8(password).ok());
        environment.insert("PGPASSWORD".to_owned(), password.unwrap_or_default().to_owned());
        Ok(Way { config, encryption, tls, environment, database, endpoint: format!("{place}:{port}") })
    }

    /// What is written out in the settings.
    async fn named(&self) -> Result<Config, PgError> {
        let settings = &self.settings;
        let mut config = Config::new();
        match (&settings.socket, &settings.host) {
            (Some(directory), _) => {
                let directory = self.base.join(directory);
                config.host_path(std::path::absolute(&directory).unwrap_or(directory));
            }
            (None, Some(host)) => {
                config.host(host.as_str());
            }
            (None, None) => {
                config.host("localhost");
            }
        }
        config.port(settings.port.unwrap_or(PORT));
        config.user(settings.user.as_ref().map_or("", Text::as_str));
        config.dbname(settings.database.as_ref().map_or("", Text::as_str));
        if let Some(from) = &settings.password {
            config.password(secrets::resolve(&from.0, &self.base, &self.redactor).await?.reveal());
        }
        if settings.sslmode.is_none() {
            config.ssl_mode(SslMode::Prefer);
        }
        Ok(config)
    }

    /// A session in `database`.
    pub(crate) async fn connect(&self, way: &Way, database: &str) -> Result<Session, PgError> {
        let mut config = way.config.clone();
        config.dbname(database);
        let unreachable = |error: tokio_postgres::Error| PgError::connecting(&way.endpoint, database, error);
        let (client, ends) = match &way.tls {
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(unreachable)?;
                (client, tokio::spawn(async move { ended(connection.await) }))
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(unreachable)?;
                (client, tokio::spawn(async move { ended(connection.await) }))
            }
        };
        let session = Session { client, ends };
        session.batch_execute(OURS).await?;
        tracing::debug!(endpoint = way.endpoint, database, encryption = ?way.encryption, "connected");
        Ok(session)
    }
}

/// What the text of values and definitions depends on is the same in all our sessions, whatever the role's or the database's
/// settings are; and none of them ends a long query of ours.
const OURS: &str = "SET search_path = pg_catalog; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; \
    SET timezone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex'; SET xmloption = 'content'; \
    SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = '60s'; \
    SET row_security = off; SET lc_monetary = 'C'; SET quote_all_identifiers = off";

fn ended(how: Result<(), tokio_postgres::Error>) {
    if let Err(error) = how {
        tracing::debug!(error = %PgError::from(error), "a session ended");
    }
}

fn is_loopback(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An identifier in SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL, whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// A database's name as an argument of a program: one that looks like a connection string must not be taken for one.
pub(crate) fn as_argument(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(text: &str) -> Connection {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn names_and_texts_are_quoted_so_that_they_end_nowhere_else() {
        assert_eq!(quoted("sh\"op; --"), "\"sh\"\"op; --\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
        assert_eq!(as_argument("postgresql://x"), "dbname='postgresql://x'");
        assert_eq!(as_argument("it's \\"), "dbname='it\\'s \\\\'");
    }

    #[test]
    fn two_ways_of_saying_where_are_refused() {
        let said = |text: &str| {
            let mistakes = connection(text).check("connection");
            mistakes.iter().map(|mistake| mistake.what.clone()).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(said("database: shop\nuser: shop"), "");
        assert_eq!(said("url: { env: URL }"), "");
        assert_eq!(said("url: { env: URL }\nport: 5433"), "`url` says it already");
        assert_eq!(said("host: db"), "`database` is missing; `user` is missing");
        assert_eq!(said("host: db\nsocket: run\ndatabase: a\nuser: b"), "`host` and `socket` are two places");
        assert_eq!(said("database: postgres\nuser: b"), "a database cannot be renamed through itself");
        let alone = "`sslmode: verify-full` and `root-certificate` need each other";
        assert_eq!(said("database: a\nuser: b\nsslmode: verify-full"), alone);
    }
}
