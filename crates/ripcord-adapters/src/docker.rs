//! The Docker Engine's API, as far as containers are looked at, stopped and started by it.
//!
//! Spoken over the socket with the HTTP client that is here anyway: a dozen calls, whose answers are read field by field, so that an
//! Engine which says more, or an implementation which says less, is understood all the same. The version is negotiated.
//! Source: Docker Engine API reference, v1.41 and later; a path without a version means the newest, which is why one is always named.

mod logs; // what containers wrote

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode, Url};
use ripcord_config::Mistake;
use ripcord_core::Failure;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::secrets;

pub(crate) use logs::{LogLine, lines};

/// The newest version of the API that this was written against.
const NEWEST: Version = Version(1, 51);
/// The oldest with all that is asked for (Engine 20.10; of one reading of figures without waiting for a second).
const OLDEST: Version = Version(1, 41);
const SOCKET: &str = "unix:///var/run/docker.sock";
/// The most of an answer that is read.
const MOST: usize = 32 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    fn read(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Where an Engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Socket(PathBuf),
    Tcp(Url),
}

impl Endpoint {
    /// What the settings say, else what `DOCKER_HOST` says, else the usual socket.
    pub(crate) fn find(setting: Option<&str>) -> Result<Self, String> {
        match setting {
            Some(text) => Self::read(text),
            None => {
                let host = std::env::var("DOCKER_HOST").unwrap_or_default();
                let read = Self::read(if host.is_empty() { SOCKET } else { &host });
                read.map_err(|why| format!("DOCKER_HOST: {why}"))
            }
        }
    }

    fn read(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Self::Socket(path.into())),
                false => Err(format!("`{text}` names no socket: write `{SOCKET}`")),
            };
        }
        let Some(rest) = text.strip_prefix("tcp://") else {
            return Err(format!(
                "`{text}` is no endpoint that can be asked: write `unix:///path` or `tcp://host:port`"
            ));
        };
        match Url::parse(&format!("http://{rest}")) {
            Ok(url) if url.port().is_some() && url.username().is_empty() => Ok(Self::Tcp(url)),
            _ => Err(format!("`{text}` is no endpoint that can be asked: write `tcp://host:port`")),
        }
    }

    pub(crate) fn mistake(setting: Option<&str>) -> Option<Mistake> {
        let why = Self::read(setting?).err()?;
        Some(Mistake::new(why).at("engine"))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(url) => {
                write!(f, "tcp://{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or_default())
            }
        }
    }
}

/// Why the Engine did not do, or did not say, what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("the Docker Engine at {at} cannot be asked: {why}")]
    Down { at: String, why: String },
    #[error("the Docker Engine at {at} did not answer within {}", ripcord_core::human(*.limit))]
    Slow { at: String, limit: Duration },
    #[error("the Docker Engine has no such thing: {said}")]
    Missing { said: String },
    #[error("the Docker Engine refuses: {said}")]
    Refused { said: String, status: u16 },
    #[error("the Docker Engine's answer cannot be read: {why}")]
    Odd { why: String },
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let what = error.to_string();
        match error {
            EngineError::Down { why, .. } => Self::later(what).advise(match why.contains("ermission denied") {
                true => "let this user use the socket (group `docker`), or name another `engine`",
                false => "start the Engine (`systemctl start docker`), or name the right `engine`; nothing was changed by this call",
            }),
            EngineError::Slow { .. } => {
                Self::later(what).advise("see what keeps the Engine busy (`docker events`, its disk), then retry")
            }
            // 5xx is the Engine's own trouble, and it says which.
            EngineError::Refused { status: 500.., .. } => {
                Self::later(what).advise("see that the Engine is well (its log, its disk), then retry")
            }
            EngineError::Missing { .. } | EngineError::Refused { .. } | EngineError::Odd { .. } => Self::never(what),
        }
    }
}

/// One Engine.
#[derive(Debug)]
pub(crate) struct Engine {
    endpoint: Endpoint,
    client: Client,
    version: OnceCell<Version>,
}

type Answer<T> = Result<T, EngineError>;

impl Engine {
    pub(crate) fn new(endpoint: Endpoint) -> Result<Self, String> {
        let agent = concat!("ripcord/", env!("CARGO_PKG_VERSION"));
        let mut client = Client::builder().user_agent(agent).no_proxy().tls_certs_only([]);
        if let Endpoint::Socket(path) = &endpoint {
            client = client.unix_socket(path.as_path());
        }
        let client = client.build().map_err(|error| format!("no requests can be made: {}", secrets::chain(&error)))?;
        Ok(Self { endpoint, client, version: OnceCell::new() })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Answer<Url> {
        let base = match &self.endpoint {
            Endpoint::Socket(_) => "http://docker".to_owned(),
            Endpoint::Tcp(url) => url.as_str().trim_end_matches('/').to_owned(),
        };
        let mut url =
            Url::parse(&format!("{base}{path}")).map_err(|error| EngineError::Odd { why: error.to_string() })?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<Value>,
        deadline: Instant,
    ) -> Answer<(StatusCode, Vec<u8>)> {
        let began = Instant::now();
        let asked = async {
            let mut request = self.client.request(method, url);
            if let Some(body) = body {
                request = request.json(&body);
            }
            let mut response = request.send().await?;
            let (status, mut bytes) = (response.status(), vec![]);
            while let Some(chunk) = response.chunk().await? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > MOST {
                    break;
                }
            }
            Ok::<_, reqwest::Error>((status, bytes))
        };
        let at = || self.endpoint.to_string();
        match tokio::time::timeout_at(deadline, asked).await {
            Err(_) => Err(EngineError::Slow { at: at(), limit: deadline.saturating_duration_since(began) }),
            Ok(Err(error)) => Err(EngineError::Down { at: at(), why: secrets::chain(&error.without_url()) }),
            Ok(Ok((_, bytes))) if bytes.len() > MOST => Err(EngineError::Odd { why: "it is too long".to_owned() }),
            Ok(Ok(answer)) => Ok(answer),
        }
    }

    async fn version(&self, deadline: Instant) -> Answer<Version> {
        let ask = || async {
            let (status, bytes) = self.send(Method::GET, self.url("/version", &[])?, None, deadline).await?;
            let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let read = |name: &str| Version::read(said[name].as_str()?);
            let Some(theirs) = read("ApiVersion").filter(|_| status.is_success()) else {
                let why = format!("`/version` is answered by {status} and no version: is it a Docker Engine?");
                return Err(EngineError::Odd { why });
            };
            let least = read("MinAPIVersion").unwrap_or(Version(1, 0));
            if theirs < OLDEST || least > NEWEST {
                let why = format!(
                    "it speaks versions {least} to {theirs} of its API, and {OLDEST} to {NEWEST} are understood here"
                );
                return Err(EngineError::Odd { why });
            }
            Ok(theirs.min(NEWEST))
        };
        self.version.get_or_try_init(ask).await.copied()
    }

    /// One call; the answer's bytes. 304 is an answer: it is so already.
    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
        deadline: Instant,
    ) -> Answer<Vec<u8>> {
        let version = self.version(deadline).await?;
        let url = self.url(&format!("/v{version}{path}"), query)?;
        let (status, bytes) = self.send(method, url, body, deadline).await?;
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(bytes);
        }
        let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let said = match said["message"].as_str() {
            Some(message) => message.trim().to_owned(),
            None => crate::http::shorten(&String::from_utf8_lossy(&bytes), 500),
        };
        match status {
            StatusCode::NOT_FOUND => Err(EngineError::Missing { said }),
            status => Err(EngineError::Refused { said, status: status.as_u16() }),
        }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)], deadline: Instant) -> Answer<Value> {
        let bytes = self.call(Method::GET, path, query, None, deadline).await?;
        serde_json::from_slice(&bytes).map_err(|error| EngineError::Odd { why: error.to_string() })
    }

    /// What it is and has: `ID`, `DockerRootDir`.
    pub(crate) async fn info(&self, deadline: Instant) -> Answer<Value> {
        self.get("/info", &[], deadline).await
    }

    /// Containers that have all of these labels (`name=value`), in full, in no order; also those that do not run. One that goes
    /// away while it is looked at is left out.
    pub(crate) async fn labelled(&self, labels: &[String], deadline: Instant) -> Answer<Vec<Value>> {
        let filters = json!({ "label": labels }).to_string();
        let list = self.get("/containers/json", &[("all", "1"), ("filters", &filters)], deadline).await?;
        let mut found = vec![];
        for one in list.as_array().into_iter().flatten() {
            let Some(id) = one["Id"].as_str() else { continue };
            found.extend(self.container(id, deadline).await?);
        }
        Ok(found)
    }

    /// What the containers that run were made from, as they name it.
    pub(crate) async fn running_images(&self, deadline: Instant) -> Answer<Vec<String>> {
        let list = self.get("/containers/json", &[], deadline).await?;
        let images = list.as_array().into_iter().flatten().filter_map(|one| one["Image"].as_str());
        Ok(images.map(str::to_owned).collect())
    }

    /// The names of the containers that have a port of this machine published, of those that run.
    pub(crate) async fn publishing(&self, port: u16, deadline: Instant) -> Answer<Vec<String>> {
        let filters = json!({ "publish": [port.to_string()] }).to_string();
        let list = self.get("/containers/json", &[("filters", &filters)], deadline).await?;
        let names = list.as_array().into_iter().flatten().filter_map(|one| one["Names"][0].as_str());
        Ok(names.map(|name| name.trim_start_matches('/').to_owned()).collect())
    }

    /// A container in full, by id or name; none where there is none.
    pub(crate) async fn container(&self, id: &str, deadline: Instant) -> Answer<Option<Value>> {
        absent(self.get(&format!("/containers/{}/json", part(id)), &[], deadline).await)
    }

    /// An image in full, by id, digest or tag; none where this Engine has none.
    pub(crate) async fn image(&self, name: &str, deadline: Instant) -> Answer<Option<Value>> {
        absent(self.get(&format!("/images/{}/json", path_of(name)), &[], deadline).await)
    }

    /// The tags that images have in one repository: `(tag, image)`.
    pub(crate) async fn tags(&self, repository: &str, deadline: Instant) -> Answer<Vec<(String, String)>> {
        let filters = json!({ "reference": [repository] }).to_string();
        let list = self.get("/images/json", &[("filters", &filters)], deadline).await?;
        let mut tags = vec![];
        for image in list.as_array().into_iter().flatten() {
            let Some(id) = image["Id"].as_str() else { continue };
            let names = image["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let ours = names.filter_map(|name| name.strip_prefix(repository)?.strip_prefix(':'));
            tags.extend(ours.map(|tag| (tag.to_owned(), id.to_owned())));
        }
        Ok(tags)
    }

    pub(crate) async fn tag(&self, image: &str, repository: &str, tag: &str, deadline: Instant) -> Answer<()> {
        let query = [("repo", repository), ("tag", tag)];
        self.call(Method::POST, &format!("/images/{}/tag", path_of(image)), &query, None, deadline).await.map(drop)
    }

    /// Takes a tag away; where it was the image's last name, the image with it.
    pub(crate) async fn untag(&self, name: &str, deadline: Instant) -> Answer<()> {
        self.call(Method::DELETE, &format!("/images/{}", path_of(name)), &[], None, deadline).await.map(drop)
    }

    /// Makes a container and does not start it; one of that name that is there already is left as it is.
    pub(crate) async fn create(&self, name: &str, body: Value, deadline: Instant) -> Answer<()> {
        match self.call(Method::POST, "/containers/create", &[("name", name)], Some(body), deadline).await {
            Err(EngineError::Refused { status: 409, .. }) => Ok(()),
            made => made.map(drop),
        }
    }

    pub(crate) async fn network(&self, name: &str, deadline: Instant) -> Answer<Option<Value>> {
        absent(self.get(&format!("/networks/{}", part(name)), &[], deadline).await)
    }

    pub(crate) async fn volume(&self, name: &str, deadline: Instant) -> Answer<Option<Value>> {
        absent(self.get(&format!("/volumes/{}", part(name)), &[], deadline).await)
    }

    pub(crate) async fn connect(&self, network: &str, body: Value, deadline: Instant) -> Answer<()> {
        let path = format!("/networks/{}/connect", part(network));
        self.call(Method::POST, &path, &[], Some(body), deadline).await.map(drop)
    }

    pub(crate) async fn start(&self, id: &str, deadline: Instant) -> Answer<()> {
        self.call(Method::POST, &format!("/containers/{}/start", part(id)), &[], None, deadline).await.map(drop)
    }

    /// Asks it to end and kills it after `grace`, by default the container's own; returns when it has ended.
    pub(crate) async fn stop(&self, id: &str, grace: Option<Duration>, deadline: Instant) -> Answer<()> {
        let seconds = grace.map(|grace| grace.as_secs_f64().ceil().to_string());
        let query: Vec<(&str, &str)> = seconds.iter().map(|seconds| ("t", seconds.as_str())).collect();
        self.call(Method::POST, &format!("/containers/{}/stop", part(id)), &query, None, deadline).await.map(drop)
    }

    /// Removes a container that does not run.
    pub(crate) async fn remove(&self, id: &str, deadline: Instant) -> Answer<()> {
        self.call(Method::DELETE, &format!("/containers/{}", part(id)), &[], None, deadline).await.map(drop)
    }

    /// The last lines a container wrote, both streams in the order they were written, from `since` on (seconds since 1970).
    pub(crate) async fn logs(
        &self,
        container: &Value,
        most: usize,
        since: Option<i64>,
        deadline: Instant,
    ) -> Answer<Vec<LogLine>> {
        let Some(id) = container["Id"].as_str() else { return Ok(vec![]) };
        let (most, since) = (most.to_string(), since.map(|since| since.to_string()));
        let mut query = vec![("stdout", "1"), ("stderr", "1"), ("timestamps", "1"), ("tail", most.as_str())];
        query.extend(since.iter().map(|since| ("since", since.as_str())));
        let bytes = self.call(Method::GET, &format!("/containers/{}/logs", part(id)), &query, None, deadline).await?;
        Ok(lines(&bytes, container["Config"]["Tty"].as_bool().unwrap_or(false)))
    }

    /// The figures of a running container, of this moment.
    pub(crate) async fn stats(&self, id: &str, deadline: Instant) -> Answer<Value> {
        self.get(&format!("/containers/{}/stats", part(id)), &[("stream", "false"), ("one-shot", "true")], deadline)
            .await
    }

    /// What happened between two moments (seconds since 1970), as far as the Engine remembers: its last 256 events of any kind.
    pub(crate) async fn events(&self, since: i64, until: i64, filters: Value, deadline: Instant) -> Answer<Vec<Value>> {
        let (since, until, filters) = (since.to_string(), until.to_string(), filters.to_string());
        let query = [("since", since.as_str()), ("until", until.as_str()), ("filters", filters.as_str())];
        let bytes = self.call(Method::GET, "/events", &query, None, deadline).await?;
        Ok(serde_json::Deserializer::from_slice(&bytes).into_iter().filter_map(Result::ok).collect())
    }
}

fn absent(answer: Answer<Value>) -> Answer<Option<Value>> {
    match answer {
        Err(EngineError::Missing { .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

/// A name as one part of a path: no character of it leads elsewhere.
fn part(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b':' | b'@');
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The name of an image, whose slashes are the path's own.
fn path_of(image: &str) -> String {
    image.split('/').filter(|part| !matches!(*part, "" | "." | "..")).map(part).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_refused() {
        let read = |text: &str| Endpoint::read(text).map(|endpoint| endpoint.to_string());
        assert_eq!(read("unix:///run/docker.sock"), Ok("unix:///run/docker.sock".into()));
        assert_eq!(read("tcp://10.0.0.7:2375"), Ok("tcp://10.0.0.7:2375".into()));
        for bad in
            ["", "docker.sock", "unix://docker.sock", "tcp://host", "ssh://host", "tcp://u@host:1", "https://h:1"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_cannot_lead_elsewhere() {
        assert_eq!(part("a/../b?x#y z"), "a%2F..%2Fb%3Fx%23y%20z");
        assert_eq!(path_of("reg.example:5000/shop/api@sha256:ab"), "reg.example:5000/shop/api@sha256:ab");
        assert_eq!(path_of("../../containers/x"), "containers/x");
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let engine = Engine::new(Endpoint::Socket(path.clone())).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let error = engine.info(deadline).await.unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with(&format!("the Docker Engine at unix://{} cannot be asked: ", path.display())),
            "{said}"
        );
        let failure = Failure::from(error);
        assert_eq!(failure.retry, ripcord_core::Retry::Later);
        assert!(failure.advice.unwrap().contains("start the Engine"));
    }
}
