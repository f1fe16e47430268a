//! Redis: a connection, what is known of the server, and what its refusals mean.
//!
//! Keys are found with SCAN and never with KEYS, which stands in everybody's way while it runs. What the server says of itself (INFO)
//! is read before anything is done: a member of a cluster holds a part of the keys, and a replica takes no writes.
//! Source: Redis documentation, SCAN (guarantees: what is there from begin to end is returned, possibly twice), UNLINK, INFO.

pub(crate) mod keys; // which keys there are, of what types

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo,
    RedisError, ServerErrorKind,
};
use ripcord_config::Mistake;
use ripcord_config::wire::{SecretFrom, Text};
use ripcord_core::{Failure, Redactor, SecretRef};

use crate::{BuildCx, secrets};

/// What settings say of a server and how to get in.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) url: Option<&'a Text>,
    pub(crate) url_from: Option<&'a SecretFrom>,
    pub(crate) user: Option<&'a Text>,
    pub(crate) password: Option<&'a SecretFrom>,
}

impl Reach<'_> {
    pub(crate) fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        match (self.url, self.url_from) {
            (None, None) => {
                let help = "write `url: redis://127.0.0.1:6379/0`, or `url-from: { env: REDIS_URL }` where it holds a password";
                mistakes.push(Mistake::new("no server is named").at("url").help(help));
            }
            (Some(_), Some(_)) => {
                mistakes.push(Mistake::new("`url` and `url-from` both name a server").at("url-from").help("keep one"));
            }
            (Some(url), None) => mistakes.extend(url_mistake(url)),
            (None, Some(_)) => {}
        }
        if self.user.is_some() && self.password.is_none() {
            mistakes.push(Mistake::new("`user` is given without `password`").at("user"));
        }
        mistakes
    }
}

fn url_mistake(url: &Text) -> Option<Mistake> {
    let info = match url.as_str().into_connection_info() {
        Ok(info) => info,
        Err(_) => {
            let help = "write `redis://host:port/database`, `rediss://` for TLS, or `redis+unix:///path/to/socket`";
            return Some(Mistake::new(format!("`{url}` is no URL of a Redis server")).at("url").help(help));
        }
    };
    let secret = info.redis_settings().password().is_some();
    let help = "name where the password is: `password: { env: NAME }`, or the whole URL: `url-from: { env: NAME }`";
    secret.then(|| Mistake::new("secrets are never written here, and this URL holds one").at("url").help(help))
}

/// Why a server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It cannot be reached, so nothing was done.
    Unreachable(String),
    /// The connection broke or the time was over: what was sent may have been done.
    Lost(String),
    /// It said no, in its own words.
    Refused { kind: Refusal, message: String },
    /// It could not be asked: a secret is missing here.
    Observer(String),
}

/// Refusals that mean something to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Login,
    Rights,
    ReadOnly,
    /// It is reading its data, or waits for a script.
    Busy,
    /// It has no memory left to write anything into.
    Full,
    Other,
}

impl Trouble {
    pub(crate) fn why(&self) -> String {
        match self {
            Self::Unreachable(why) => format!("Redis cannot be reached: {why}"),
            Self::Lost(why) => format!("Redis did not answer: {why}"),
            Self::Refused { message, .. } => format!("Redis refuses: {message}"),
            Self::Observer(why) => why.clone(),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Refused { kind: Refusal::Full, .. })
    }

    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::Refused { kind: Refusal::Other, message: message.into() }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let what = trouble.why();
        match trouble {
            Trouble::Unreachable(_) | Trouble::Lost(_) | Trouble::Refused { kind: Refusal::Busy, .. } => Self::later(what),
            Trouble::Refused { kind: Refusal::Login, .. } => {
                Self::never(what).advise("see that `user` and `password` are those that the server knows")
            }
            Trouble::Refused { kind: Refusal::Rights, .. } => Self::never(what).advise(
                "give the user the rights: ~ripcord:* and ~ with each pattern of `keys`; +@read +@connection +info +time +multi +exec +discard +set \
                 +unlink, +restore where keys are put back, +flushdb or +flushall where that is asked for",
            ),
            Trouble::Refused { kind: Refusal::ReadOnly, .. } => {
                Self::never(what).advise("name the primary: what is deleted on a replica comes back")
            }
            Trouble::Refused { kind: Refusal::Full, .. } => Self::later(what).advise("raise `maxmemory`, or clear something"),
            Trouble::Refused { kind: Refusal::Other, .. } | Trouble::Observer(_) => Self::never(what),
        }
    }
}

/// How a server is reached, and who asks.
pub(crate) struct Server {
    url: Result<String, SecretRef>,
    user: Option<String>,
    password: Option<SecretRef>,
    base: PathBuf,
    redactor: Redactor,
}

/// A connection, and which database of which server it is of.
pub(crate) struct Session {
    connection: MultiplexedConnection,
    pub(crate) address: String,
    pub(crate) database: i64,
    redactor: Redactor,
}

impl Server {
    pub(crate) fn new(reach: &Reach<'_>, cx: &BuildCx) -> Result<Self, String> {
        let url = match (reach.url, reach.url_from) {
            (Some(url), _) => Ok(url.to_string()),
            (None, Some(from)) => Err(from.0.clone()),
            (None, None) => return Err("no server is named".to_owned()),
        };
        Ok(Self {
            url,
            user: reach.user.map(ToString::to_string),
            password: reach.password.map(|from| from.0.clone()),
            base: cx.base.clone(),
            redactor: cx.redactor.clone(),
        })
    }

    pub(crate) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// The server as it is named, for people.
    pub(crate) fn shown(&self) -> String {
        match &self.url {
            Ok(url) => self.redactor.clean(url),
            Err(from) => format!("the server in {from}"),
        }
    }

    async fn secret(&self, from: &SecretRef) -> Result<String, Trouble> {
        let secret = secrets::resolve(from, &self.base, &self.redactor).await;
        secret.map(|secret| secret.reveal().to_owned()).map_err(|error| Trouble::Observer(secrets::chain(&error)))
    }

    async fn info(&self) -> Result<ConnectionInfo, Trouble> {
        let url = match &self.url {
            Ok(url) => url.clone(),
            Err(from) => self.secret(from).await?,
        };
        let bad = |_| Trouble::Observer(format!("{} has no URL of a Redis server", self.shown()));
        let info = url.into_connection_info().map_err(bad)?;
        let mut settings = info.redis_settings().clone();
        if let Some(password) = settings.password() {
            self.redactor.learn(&ripcord_core::Secret::new(password));
        }
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(from) = &self.password {
            settings = settings.set_password(self.secret(from).await?);
        }
        Ok(info.set_redis_settings(settings))
    }

    /// Connects; every answer over this connection comes within `limit` or counts as lost.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<Session, Trouble> {
        let info = self.info().await?;
        let address = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
            ConnectionAddr::Unix(path) => path.display().to_string(),
            _ => "redis".to_owned(),
        };
        // A name that does not resolve is our failure, and says nothing of the server.
        if let ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } = info.addr() {
            let found = tokio::net::lookup_host((host.as_str(), *port)).await.map(drop);
            found.map_err(|error| Trouble::Observer(format!("`{host}` is not found: {error}")))?;
        }
        let database = info.redis_settings().db();
        let client = Client::open(info).map_err(|error| self.trouble(&error))?;
        let connect = limit.min(Duration::from_secs(5));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect))
            .set_response_timeout(Some(limit - limit / 10));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        let connection = connection.map_err(|error| match self.trouble(&error) {
            // It was never asked anything yet.
            Trouble::Lost(why) => Trouble::Unreachable(format!("{address}: {why}")),
            other => other,
        })?;
        Ok(Session { connection, address, database, redactor: self.redactor.clone() })
    }

    fn trouble(&self, error: &RedisError) -> Trouble {
        trouble(error, &self.redactor)
    }
}

fn trouble(error: &RedisError, redactor: &Redactor) -> Trouble {
    let said = redactor.clean(&secrets::chain(error));
    let code = error.code().unwrap_or_default();
    let refused = |kind| Trouble::Refused { kind, message: said.clone() };
    match (error.kind(), code) {
        (_, "NOAUTH" | "WRONGPASS") | (ErrorKind::AuthenticationFailed, _) => refused(Refusal::Login),
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) | (_, "NOPERM") => refused(Refusal::Rights),
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => refused(Refusal::ReadOnly),
        (ErrorKind::Server(ServerErrorKind::BusyLoading), _) | (_, "BUSY" | "MASTERDOWN") => refused(Refusal::Busy),
        (_, "OOM") => refused(Refusal::Full),
        // A transaction is refused for the reason that one of its commands was.
        (ErrorKind::Server(ServerErrorKind::ExecAbort), _) if said.contains("OOM") => refused(Refusal::Full),
        (ErrorKind::Io, _) => Trouble::Lost(said),
        _ => refused(Refusal::Other),
    }
}

impl Session {
    pub(crate) async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Trouble> {
        command.query_async(&mut self.connection).await.map_err(|error| trouble(&error, &self.redactor))
    }

    pub(crate) async fn ask_all<T: FromRedisValue>(&mut self, pipeline: &redis::Pipeline) -> Result<T, Trouble> {
        pipeline.query_async(&mut self.connection).await.map_err(|error| trouble(&error, &self.redactor))
    }

    /// What the server says of itself, name by name.
    pub(crate) async fn about(&mut self) -> Result<About, Trouble> {
        let text: String = self.ask(&redis::cmd("INFO")).await?;
        Ok(About::read(&text))
    }

    /// The name of what this connection is of: the same for all that reach it by this address.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.address, self.database)
    }
}

/// The answer to INFO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct About(BTreeMap<String, String>);

impl About {
    pub(crate) fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.text(name)?.parse().ok()
    }

    /// How many keys each database has, by its number.
    pub(crate) fn databases(&self) -> BTreeMap<i64, u64> {
        let keys = |line: &str| line.split(',').find_map(|part| part.strip_prefix("keys=")?.parse().ok());
        let found =
            self.0.iter().filter_map(|(name, line)| Some((name.strip_prefix("db")?.parse().ok()?, keys(line)?)));
        found.collect()
    }

    /// Why nothing can be deleted or written here, if so.
    pub(crate) fn unfit(&self) -> Option<Trouble> {
        if self.text("cluster_enabled") == Some("1") {
            return Some(Trouble::other(
                "it is a member of a cluster, which holds only a part of the keys: clusters are not taken back",
            ));
        }
        if self.text("role") == Some("slave") {
            let host = self.text("master_host").unwrap_or("its primary");
            let port = self.text("master_port").unwrap_or("?");
            let message = format!("it is a replica of {host}:{port}");
            return Some(Trouble::Refused { kind: Refusal::ReadOnly, message });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_itself() {
        let about = About::read(
            "# Server\r\nredis_version:7.0.15\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n# Keyspace\r\n\
             db0:keys=12,expires=3,avg_ttl=0\r\ndb15:keys=1,expires=0,avg_ttl=0\r\nmem_ratio:1.5\r\n",
        );
        assert_eq!(about.databases(), [(0, 12), (15, 1)].into());
        assert_eq!(about.number("mem_ratio"), Some(1.5));
        assert_eq!(about.unfit().unwrap().why(), "Redis refuses: it is a replica of 10.0.0.1:6379");
        assert_eq!(About::read("role:master\r\ncluster_enabled:0").unfit(), None);
        assert!(About::read("cluster_enabled:1").unfit().unwrap().why().contains("cluster"));
    }

    #[test]
    fn settings_that_could_not_work_are_refused() {
        let mistakes = |url: Option<&str>| -> Vec<String> {
            let url = url.map(|url| Text(url.to_owned()));
            let reach = Reach { url: url.as_ref(), url_from: None, user: None, password: None };
            reach.check().into_iter().map(|mistake| mistake.what).collect()
        };
        assert_eq!(mistakes(None), ["no server is named"]);
        assert_eq!(mistakes(Some("http://x")), ["`http://x` is no URL of a Redis server"]);
        assert_eq!(mistakes(Some("redis://:p@x")), ["secrets are never written here, and this URL holds one"]);
        for good in ["redis://127.0.0.1:6379/3", "rediss://cache", "redis+unix:///run/redis.sock?db=1"] {
            assert_eq!(mistakes(Some(good)), Vec::<String>::new());
        }
    }
}
