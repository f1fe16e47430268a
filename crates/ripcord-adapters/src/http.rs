//! Requests, and what it means when they are not answered: the subject's failure, or the observer's.
//!
//! A connection of its own for each request, so that a probe sees whether the subject still accepts any; redirects are answers
//! like others. A name that does not resolve, a network that is down here or a secret that is missing is the observer's failure:
//! a monitoring outage must not look like an outage.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Url, redirect};
use ripcord_config::Mistake;
use ripcord_config::wire::{SecretFrom, Text};
use ripcord_core::{Redactor, SecretRef};
use serde_json::Value;

use crate::{BuildCx, secrets};

/// The most of an answer that is read.
const BODY: usize = 1 << 20;
/// The most of an answer that is kept as text in a sample's fields.
const SHOWN: usize = 4 << 10;
/// The most of an answer that is kept as JSON in a sample's fields.
const SHOWN_JSON: usize = 64 << 10;

/// Sends requests to one subject, with the headers its settings name.
pub(crate) struct Caller {
    way: Way,
    clients: Clients,
    headers: HeaderMap,
    secret_headers: Vec<(HeaderName, SecretRef)>,
    bearer: Option<SecretRef>,
    base: PathBuf,
    redactor: Redactor,
}

/// Whether requests may go through the proxy that the environment names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The subject itself is asked, not a proxy's view of it.
    Direct,
    Proxied,
}

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: vec![], body: None }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Whether the body went on.
    pub cut: bool,
    /// Until the last byte that was read.
    pub took: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The subject did not answer. `begun`: it may have got the request, and acted on it.
    Subject { why: String, begun: bool },
    /// Nobody could ask it.
    Observer { why: String },
}

impl Unanswered {
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Subject { why, .. } | Self::Observer { why } => why,
        }
    }
}

/// The headers that settings name.
#[derive(Clone, Copy)]
pub(crate) struct Headers<'a> {
    pub plain: &'a BTreeMap<String, Text>,
    pub secret: &'a BTreeMap<String, SecretFrom>,
    pub bearer: Option<&'a SecretFrom>,
}

impl Headers<'_> {
    pub(crate) fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        for (name, value) in self.plain {
            let at = format!("headers.{name}");
            if HeaderName::try_from(name.as_str()).is_err() || HeaderValue::from_str(value.as_str()).is_err() {
                mistakes.push(Mistake::new(format!("`{name}` is no header")).at(at.clone()));
            }
            if ["authorization", "cookie", "x-api-key"].contains(&name.to_ascii_lowercase().as_str()) {
                let help =
                    format!("write `secret-headers: {{ {name}: {{ env: NAME }} }}`, or `bearer: {{ env: NAME }}`");
                mistakes.push(
                    Mistake::new(format!("`{name}` holds a secret, and secrets are never written here"))
                        .at(at)
                        .help(help),
                );
            }
        }
        for name in self.secret.keys().filter(|name| HeaderName::try_from(name.as_str()).is_err()) {
            mistakes.push(Mistake::new(format!("`{name}` is no header")).at(format!("secret-headers.{name}")));
        }
        mistakes
    }
}

/// Reads a URL out of settings.
pub(crate) fn url(text: &Text, field: &str) -> Result<Url, Mistake> {
    let bad = |why: String| Mistake::new(format!("`{text}` is no URL: {why}")).at(field);
    let url =
        Url::parse(text.as_str()).map_err(|error| bad(error.to_string()).help("write `http://host:port/path`"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(format!("`{}` is not http or https", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let help = "name the whole header: `secret-headers: { authorization: { env: NAME } }`";
        return Err(Mistake::new("secrets are never written here, and this URL holds one").at(field).help(help));
    }
    Ok(url)
}

impl Caller {
    pub(crate) fn new(headers: Headers<'_>, way: Way, cx: &BuildCx) -> Result<Self, String> {
        let name = |name: &str| HeaderName::try_from(name).map_err(|_| format!("`{name}` is no header"));
        let mut plain = HeaderMap::new();
        for (header, value) in headers.plain {
            let text = HeaderValue::from_str(value.as_str())
                .map_err(|_| format!("`{header}` has no value that can be sent"))?;
            plain.insert(name(header)?, text);
        }
        let secret = headers.secret.iter().map(|(header, from)| Ok((name(header)?, from.0.clone())));
        Ok(Self {
            way,
            clients: Clients::default(),
            headers: plain,
            secret_headers: secret.collect::<Result<_, String>>()?,
            bearer: headers.bearer.map(|from| from.0.clone()),
            base: cx.base.clone(),
            redactor: cx.redactor.clone(),
        })
    }

    pub(crate) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Sends one request and reads the answer, all within `limit`.
    pub(crate) async fn call(&self, request: Request, limit: Duration) -> Result<Answer, Unanswered> {
        // A little less than the whole: who waits for us gives up at the limit, and would not learn why.
        let limit = limit - limit / 20;
        let began = Instant::now();
        let slow = || Unanswered::Observer { why: "the secrets for the request took too long".to_owned() };
        let headers = tokio::time::timeout(limit, self.headers(&request)).await.map_err(|_| slow())??;
        let left = limit.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
        let client = self.clients.to(&request.url, self.way)?;
        let mut sent = client.request(request.method, request.url).headers(headers).timeout(left);
        if let Some(body) = request.body {
            sent = sent.body(body);
        }
        let asked = Instant::now();
        let mut response = sent.send().await.map_err(|error| self.unanswered(error, left))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let (mut body, mut cut) = (vec![], false);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unanswered(error, left))? {
            let room = BODY - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                cut = true;
                break;
            }
        }
        Ok(Answer { status, headers, body, cut, took: asked.elapsed() })
    }

    async fn headers(&self, request: &Request) -> Result<HeaderMap, Unanswered> {
        let mut headers = self.headers.clone();
        for (name, value) in &request.headers {
            let value = HeaderValue::from_str(value).map_err(|_| observer(format!("`{name}` cannot be sent")))?;
            headers.insert(*name, value);
        }
        for (name, from) in &self.secret_headers {
            headers.insert(name, self.secret(from, "").await?);
        }
        if let Some(from) = &self.bearer {
            headers.insert(AUTHORIZATION, self.secret(from, "Bearer ").await?);
        }
        Ok(headers)
    }

    async fn secret(&self, from: &SecretRef, prefix: &str) -> Result<HeaderValue, Unanswered> {
        let secret = secrets::resolve(from, &self.base, &self.redactor).await;
        let secret = secret.map_err(|error| observer(secrets::chain(&error)))?;
        let value = HeaderValue::from_str(&format!("{prefix}{}", secret.reveal()));
        let mut value = value.map_err(|_| observer(format!("the secret in {from} cannot be sent in a header")))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn unanswered(&self, error: reqwest::Error, limit: Duration) -> Unanswered {
        // The URL is shown by whoever shows this, without its query.
        let error = error.without_url();
        let why = self.redactor.clean(&secrets::chain(&error));
        if error.is_timeout() {
            let (what, begun) = if error.is_connect() { ("no connection", false) } else { ("no answer", true) };
            return Unanswered::Subject { why: format!("{what} within {}", ripcord_core::human(limit)), begun };
        }
        let here = error.is_builder() || error.is_dns() || io_error(&error).is_some_and(is_ours);
        match here {
            true => Unanswered::Observer { why },
            false => Unanswered::Subject { why, begun: !error.is_connect() },
        }
    }
}

/// Built when first needed, each only as able as it must be: a machine without any certificates can still ask by plain HTTP.
#[derive(Default)]
struct Clients {
    plain: OnceLock<Result<Client, String>>,
    plain_direct: OnceLock<Result<Client, String>>,
    tls: OnceLock<Result<Client, String>>,
    tls_direct: OnceLock<Result<Client, String>>,
}

impl Clients {
    fn to(&self, url: &Url, way: Way) -> Result<&Client, Unanswered> {
        // No proxy reaches this machine's own addresses.
        let direct = way == Way::Direct || is_here(url);
        let tls = url.scheme() == "https";
        let client = match (tls, direct) {
            (false, false) => &self.plain,
            (false, true) => &self.plain_direct,
            (true, false) => &self.tls,
            (true, true) => &self.tls_direct,
        };
        client.get_or_init(|| build(tls, direct)).as_ref().map_err(|why| observer(why.clone()))
    }
}

fn build(tls: bool, direct: bool) -> Result<Client, String> {
    let agent = concat!("ripcord/", env!("CARGO_PKG_VERSION"));
    let mut client = Client::builder().user_agent(agent).redirect(redirect::Policy::none()).pool_max_idle_per_host(0);
    if direct {
        client = client.no_proxy();
    }
    if !tls {
        client = client.tls_certs_only([]);
    }
    client.build().map_err(|error| format!("no requests can be made: {}", secrets::chain(&error)))
}

fn is_here(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost" || host.ends_with(".localhost"), |address| address.is_loopback())
}

fn observer(why: String) -> Unanswered {
    Unanswered::Observer { why }
}

fn io_error(error: &dyn Error) -> Option<&io::Error> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

/// Whether an error of a connection is this machine's: out of sockets, without a network.
fn is_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, NetworkDown, NetworkUnreachable, OutOfMemory, PermissionDenied};
    let kind =
        [AddrNotAvailable, NetworkDown, NetworkUnreachable, OutOfMemory, PermissionDenied].contains(&error.kind());
    let code = error.raw_os_error();
    kind || code == Some(rustix::io::Errno::MFILE.raw_os_error())
        || code == Some(rustix::io::Errno::NFILE.raw_os_error())
}

impl Answer {
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok().filter(|_| !self.cut)
    }

    /// The beginning of the body as text, without secrets.
    pub(crate) fn text(&self, redactor: &Redactor) -> String {
        shorten(&redactor.clean(&String::from_utf8_lossy(&self.body)), SHOWN)
    }

    /// What a person wants to know of an unwelcome answer: its status, and the beginning of what it says.
    pub(crate) fn said(&self, redactor: &Redactor) -> String {
        let text = self.text(redactor);
        let line = shorten(text.trim().lines().next().unwrap_or_default(), 200);
        if line.is_empty() { self.status.to_string() } else { format!("{}: {line}", self.status) }
    }

    /// How long the server asks to be left alone, where it says so in seconds.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    pub(crate) fn fields(&self, redactor: &Redactor) -> BTreeMap<String, Value> {
        let json = if self.body.len() <= SHOWN_JSON { self.json() } else { None };
        let mut json = json.unwrap_or(Value::Null);
        redactor.clean_value(&mut json);
        let shown = |name: &HeaderName| !["set-cookie", "authorization", "www-authenticate"].contains(&name.as_str());
        let headers = self.headers.iter().filter(|(name, _)| shown(name)).take(50);
        let headers: serde_json::Map<_, _> = headers
            .map(|(name, value)| {
                let value = redactor.clean(&String::from_utf8_lossy(value.as_bytes()));
                (name.to_string(), shorten(&value, 500).into())
            })
            .collect();
        BTreeMap::from([
            ("status".to_owned(), self.status.into()),
            ("latency_ms".to_owned(), (self.took.as_secs_f64() * 1000.0).into()),
            ("json".to_owned(), json),
            ("body".to_owned(), self.text(redactor).into()),
            ("headers".to_owned(), headers.into()),
        ])
    }
}

/// At most `most` bytes of `text`, never half a character.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

/// A number in JSON, by pointer: truth is 1 and 0.
pub(crate) fn number_at(json: &Value, pointer: &str) -> Result<f64, String> {
    match json.pointer(pointer) {
        Some(Value::Number(number)) => number.as_f64().ok_or_else(|| format!("`{pointer}` is too large")),
        Some(Value::Bool(truth)) => Ok(f64::from(u8::from(*truth))),
        Some(other) => Err(format!("`{pointer}` is no number but {}", kind_of(other))),
        None => Err(format!("there is nothing at `{pointer}`")),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
        Value::Bool(_) | Value::Number(_) => "a number",
    }
}

/// The mistake of a JSON pointer that cannot lead anywhere.
pub(crate) fn pointer_mistake(pointer: &str, field: &str) -> Option<Mistake> {
    let good = pointer.is_empty() || pointer.starts_with('/');
    (!good)
        .then(|| Mistake::new(format!("`{pointer}` is no JSON pointer")).at(field).help(format!("write `/{pointer}`")))
}
