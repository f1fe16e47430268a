//! etcd through its JSON gateway: a prefix read at one revision, and transactions that count on what was read.
//!
//! Everything sent may be sent again: a read changes nothing, and a transaction compares the modification of each key it changes, so
//! that having happened already makes it fail. That is why a request whose answer was lost goes to the next endpoint, and on until the
//! deadline while the cluster has no leader.
//! Source: etcd documentation, "gRPC gateway" (bytes are base64, 64-bit numbers are text), "API guarantees" (a transaction is one
//! revision); `etcdserver/apply.go` and `api/v3rpc/key.go` of 3.4 (`max-txn-ops` bounds each of the three lists of a transaction).

mod keys; // read at one revision, changed if they are as they were
mod trouble; // why it did not do what it was asked
pub(crate) mod wire; // what goes over the gateway

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, Url, redirect};
use ripcord_config::Mistake;
use ripcord_config::wire::{SecretFrom, Text};
use ripcord_core::{Redactor, SecretRef};
use serde_json::{Value, json};
use tokio::time::Instant;

pub(crate) use self::keys::{Ended, Held, REQUEST, Snapshot};
pub(crate) use self::trouble::Trouble;
use crate::http::shorten;
use crate::{BuildCx, secrets};

/// What settings say of a cluster and how to get in.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) endpoints: &'a [Text],
    pub(crate) user: Option<&'a Text>,
    pub(crate) password: Option<&'a SecretFrom>,
    pub(crate) ca: Option<&'a PathBuf>,
    pub(crate) certificate: Option<&'a PathBuf>,
    pub(crate) key: Option<&'a PathBuf>,
}

impl Reach<'_> {
    pub(crate) fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        if self.endpoints.is_empty() {
            let help = "write `endpoints: [http://127.0.0.1:2379]`";
            mistakes.push(Mistake::new("no endpoint is named").at("endpoints").help(help));
        }
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            mistakes.extend(crate::http::url(endpoint, &format!("endpoints.{i}")).err());
        }
        if self.user.is_some() != self.password.is_some() {
            let (there, lacks) = if self.user.is_some() { ("user", "password") } else { ("password", "user") };
            mistakes.push(Mistake::new(format!("`{there}` is given without `{lacks}`")).at(there));
        }
        if self.certificate.is_some() != self.key.is_some() {
            let at = if self.key.is_some() { "key" } else { "certificate" };
            mistakes.push(Mistake::new("a certificate of one's own needs both `certificate` and `key`").at(at));
        }
        mistakes
    }
}

pub(crate) struct Etcd {
    endpoints: Vec<Url>,
    login: Option<(String, SecretRef)>,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    base: PathBuf,
    redactor: Redactor,
    http: OnceLock<Result<Client, String>>,
    memory: Mutex<Memory>,
}

/// What was learnt of the cluster.
struct Memory {
    token: Option<String>,
    /// The endpoint that answered last: it is asked first.
    first: usize,
    /// Where the gateway is: servers of 3.3 have it elsewhere.
    gateway: &'static str,
}

/// How one endpoint did not answer.
enum Asked {
    /// It never got the request.
    Not(String),
    /// It may have.
    Lost(String),
    Refused {
        code: i64,
        message: String,
        status: u16,
    },
}

impl Etcd {
    pub(crate) fn new(reach: &Reach<'_>, cx: &BuildCx) -> Result<Self, String> {
        let urls = reach.endpoints.iter().map(|endpoint| crate::http::url(endpoint, "endpoints"));
        let login = reach.user.zip(reach.password);
        Ok(Self {
            endpoints: urls.collect::<Result<_, Mistake>>().map_err(|mistake| mistake.what)?,
            login: login.map(|(user, password)| (user.to_string(), password.0.clone())),
            ca: reach.ca.map(|path| cx.base.join(path)),
            identity: reach.certificate.zip(reach.key).map(|(c, k)| (cx.base.join(c), cx.base.join(k))),
            base: cx.base.clone(),
            redactor: cx.redactor.clone(),
            http: OnceLock::new(),
            memory: Mutex::new(Memory { token: None, first: 0, gateway: "v3" }),
        })
    }

    pub(crate) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// The endpoints as they are named, for people.
    pub(crate) fn shown(&self) -> String {
        let names: Vec<_> = self.endpoints.iter().map(|url| url.as_str().trim_end_matches('/')).collect();
        self.redactor.clean(&names.join(", "))
    }

    pub(crate) fn endpoints(&self) -> &[Url] {
        &self.endpoints
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn http(&self) -> Result<&Client, Trouble> {
        self.http.get_or_init(|| self.connect()).as_ref().map_err(|why| Trouble::Observer(why.clone()))
    }

    fn connect(&self) -> Result<Client, String> {
        let agent = concat!("ripcord/", env!("CARGO_PKG_VERSION"));
        // The cluster itself is asked, not a proxy's view of it.
        let mut client = Client::builder().user_agent(agent).redirect(redirect::Policy::none()).no_proxy();
        client = client.connect_timeout(Duration::from_secs(2));
        let read =
            |path: &PathBuf| fs::read(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()));
        if let Some(path) = &self.ca {
            let bad = |error: reqwest::Error| format!("`{}` is no bundle of certificates: {error}", path.display());
            client = client.tls_certs_only(Certificate::from_pem_bundle(&read(path)?).map_err(bad)?);
        } else if self.endpoints.iter().all(|url| url.scheme() == "http") {
            // A machine without any certificates can still ask by plain HTTP.
            client = client.tls_certs_only([]);
        }
        if let Some((certificate, key)) = &self.identity {
            let pem = [read(key)?, b"\n".to_vec(), read(certificate)?].concat();
            let bad = |_| format!("`{}` and its key are no certificate of one's own", certificate.display());
            client = client.identity(Identity::from_pem(&pem).map_err(bad)?);
        }
        client.build().map_err(|error| format!("no requests can be made: {}", secrets::chain(&error)))
    }

    /// Asks until somebody answers: each endpoint in turn, and again while the cluster has no leader.
    pub(crate) async fn call(&self, path: &str, body: &Value, deadline: Instant) -> Result<Value, Trouble> {
        let mut pause = Duration::from_millis(50);
        // Of what only looks, no doubt is left.
        let changes = path == "kv/txn";
        let mut doubt = false;
        let mut logged_in = false;
        loop {
            let mut said = vec![];
            let mut may_pass = false;
            let first = self.memory().first;
            let mut turn = 0;
            while turn < self.endpoints.len() {
                let at = (first + turn) % self.endpoints.len();
                let token = self.token(deadline).await?;
                match self.ask(&self.endpoints[at], path, body, token.as_deref(), deadline).await? {
                    Ok(answer) => {
                        self.memory().first = at;
                        return Ok(answer);
                    }
                    Err(Asked::Not(why)) => said.push(why),
                    Err(Asked::Lost(why)) => {
                        (doubt, may_pass) = (changes, true);
                        said.push(why);
                    }
                    // No leader, a change of leader, a time-out within the cluster.
                    Err(Asked::Refused { code: 14, message, .. }) => {
                        (doubt, may_pass) = (changes, true);
                        said.push(message);
                    }
                    // A token lives for minutes, and one that a server does not know was given by it before it began anew.
                    Err(Asked::Refused { code: 16, .. }) if self.login.is_some() && !logged_in => {
                        self.memory().token = None;
                        logged_in = true;
                        continue;
                    }
                    Err(Asked::Refused { status: 404, .. }) if self.other_gateway() => continue,
                    Err(Asked::Refused { code, message, .. }) => return Err(Trouble::Refused { code, message }),
                }
                turn += 1;
            }
            said.dedup();
            let why = self.redactor.clean(&said.join("; "));
            if !may_pass || Instant::now() + pause >= deadline {
                return Err(if doubt { Trouble::Unanswered(why) } else { Trouble::Unreachable(why) });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Whether there is another place to look for the gateway.
    fn other_gateway(&self) -> bool {
        let mut memory = self.memory();
        let other = memory.gateway == "v3";
        if other {
            memory.gateway = "v3beta";
        }
        other
    }

    /// One request to one endpoint.
    async fn ask(
        &self,
        endpoint: &Url,
        path: &str,
        body: &Value,
        token: Option<&str>,
        deadline: Instant,
    ) -> Result<Result<Value, Asked>, Trouble> {
        let left = deadline.saturating_duration_since(Instant::now());
        // One that hangs must leave time for the others.
        let limit = (left / 3).max(Duration::from_millis(500)).min(left.max(Duration::from_millis(50)));
        let gateway = self.memory().gateway;
        let url = format!("{}/{gateway}/{path}", endpoint.as_str().trim_end_matches('/'));
        let mut request = self.http()?.post(url).timeout(limit).body(body.to_string());
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let lost = |error: reqwest::Error| {
            let host = endpoint.host_str().unwrap_or_default();
            let port = endpoint.port_or_known_default().unwrap_or_default();
            let why = match error.is_timeout() {
                true => format!("{host}:{port}: no answer within {}", ripcord_core::human(limit)),
                false => format!("{host}:{port}: {}", innermost(&error)),
            };
            if error.is_connect() { Asked::Not(why) } else { Asked::Lost(why) }
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Ok(Err(lost(error))),
        };
        let status = response.status().as_u16();
        let bytes = match response.bytes().await {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(lost(error))),
        };
        let json: Option<Value> = serde_json::from_slice(&bytes).ok();
        if status == 200 {
            return Ok(json.ok_or_else(|| Asked::Refused {
                code: -1,
                message: "what answers is no etcd".into(),
                status,
            }));
        }
        let of = |name: &str| json.as_ref().and_then(|json| json[name].as_str()).map(str::to_owned);
        let message = of("message").or_else(|| of("error")).unwrap_or_else(|| {
            let text = String::from_utf8_lossy(&bytes);
            format!("status {status}: {}", shorten(text.trim().lines().next().unwrap_or_default(), 200))
        });
        let message = self.redactor.clean(&message);
        let code = json.as_ref().and_then(|json| wire::number(&json["code"])).unwrap_or(-1);
        let code = match (code, status) {
            (-1 | 0, 502..=504) => 14,
            (-1 | 0, 401) => 16,
            _ if message.contains("invalid auth token") || message.contains("revision of auth store is old") => 16,
            (code, _) => code,
        };
        Ok(Err(Asked::Refused { code, message, status }))
    }

    /// The token to show, fetched where there is none yet.
    async fn token(&self, deadline: Instant) -> Result<Option<String>, Trouble> {
        let Some((user, password)) = &self.login else { return Ok(None) };
        if let Some(token) = self.memory().token.clone() {
            return Ok(Some(token));
        }
        let password = secrets::resolve(password, &self.base, &self.redactor).await;
        let password = password.map_err(|error| Trouble::Observer(secrets::chain(&error)))?;
        let body = json!({ "name": user, "password": password.reveal() });
        let mut said = vec![];
        for endpoint in &self.endpoints {
            match self.ask(endpoint, "auth/authenticate", &body, None, deadline).await? {
                Ok(answer) => {
                    let token = answer["token"].as_str().unwrap_or_default().to_owned();
                    self.redactor.learn(&ripcord_core::Secret::new(token.clone()));
                    self.memory().token = Some(token.clone());
                    return Ok(Some(token));
                }
                Err(Asked::Not(why) | Asked::Lost(why) | Asked::Refused { code: 14, message: why, .. }) => {
                    said.push(why)
                }
                Err(Asked::Refused { status: 404, .. }) if self.other_gateway() => {
                    return Box::pin(self.token(deadline)).await;
                }
                Err(Asked::Refused { code, message, .. }) => return Err(Trouble::Refused { code, message }),
            }
        }
        Err(Trouble::Unreachable(self.redactor.clean(&said.join("; "))))
    }

    /// What one endpoint says to a GET, such as of its health.
    pub(crate) async fn look(&self, endpoint: &Url, path: &str, limit: Duration) -> Result<(u16, Vec<u8>), Trouble> {
        let url = format!("{}/{path}", endpoint.as_str().trim_end_matches('/'));
        let lost = |error: reqwest::Error| match (error.is_timeout(), error.is_dns()) {
            (true, _) => Trouble::Unreachable(format!("no answer within {}", ripcord_core::human(limit))),
            // A name that does not resolve is our failure, and says nothing of the cluster.
            (false, true) => Trouble::Observer(self.redactor.clean(&innermost(&error))),
            (false, false) => Trouble::Unreachable(self.redactor.clean(&innermost(&error))),
        };
        let response = self.http()?.get(url).timeout(limit).send().await.map_err(lost)?;
        let status = response.status().as_u16();
        Ok((status, response.bytes().await.map_err(lost)?.to_vec()))
    }

    /// What one endpoint says of itself, where that takes no login.
    pub(crate) async fn ask_one(
        &self,
        endpoint: &Url,
        path: &str,
        body: &Value,
        limit: Duration,
    ) -> Result<Value, Trouble> {
        let deadline = Instant::now() + limit * 3;
        let token = self.token(deadline).await?;
        match self.ask(endpoint, path, body, token.as_deref(), deadline).await? {
            Ok(answer) => Ok(answer),
            Err(Asked::Not(why) | Asked::Lost(why)) => Err(Trouble::Unreachable(why)),
            Err(Asked::Refused { code, message, .. }) => Err(Trouble::Refused { code, message }),
        }
    }
}

/// The cause at the end of the chain: what lies between only repeats that a request failed.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
