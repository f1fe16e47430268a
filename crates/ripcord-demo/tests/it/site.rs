//! One shop of a test's own: in a temporary directory, on a port of its own, gone when the test is.
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use ripcord_demo::shop::{
    EnvFile, Fault, Instance, Layout, Program, ShopError, StartArgs, Started, Stopped, init_dir, start, stop, switch,
    write_release,
};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Generous: other tests and builds run on the same machine. No test is quicker for a smaller one.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Site {
    dir: TempDir,
    pub client: Client,
    port: u16,
}

impl Site {
    /// A running shop with ten orders, serving release `v1` with `fault`.
    pub fn running(fault: Fault) -> Self {
        let mut site = Self::laid_out(fault);
        site.start();
        site
    }

    pub fn laid_out(fault: Fault) -> Self {
        let dir = tempfile::tempdir().unwrap();
        init_dir(dir.path(), 10).unwrap();
        let site = Self { dir, client: Client::builder().no_proxy().timeout(PATIENCE).build().unwrap(), port: 0 };
        site.deploy("v1", fault);
        site
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn layout(&self) -> Layout {
        Layout::new(self.path())
    }

    pub fn deploy(&self, version: &str, fault: Fault) {
        write_release(&self.layout().releases().join(version), version, fault).unwrap();
        switch(self.path(), version).unwrap();
    }

    pub fn start(&mut self) -> Instance {
        let started = self.try_start(0).unwrap();
        self.port = started.instance().port;
        started.instance().clone()
    }

    pub fn try_start(&self, port: u16) -> Result<Started, ShopError> {
        start(&StartArgs { dir: self.path().to_owned(), port, program: program(), at_most: PATIENCE })
    }

    pub fn stop(&self) -> Stopped {
        stop(self.path(), PATIENCE).unwrap()
    }

    pub fn restart(&mut self) -> Instance {
        assert!(matches!(self.stop(), Stopped::Ended(_)));
        self.start()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    pub fn read(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub async fn json(&self, path: &str) -> Value {
        let response = self.read(path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    pub async fn order(&self, customer: &str) -> Response {
        self.try_order(customer).await.unwrap()
    }

    pub async fn try_order(&self, customer: &str) -> reqwest::Result<Response> {
        self.post("/orders").json(&json!({"customer": customer, "sku": "mug-blue", "quantity": 2})).send().await
    }

    /// How many of `count` orders were answered with `status`.
    pub async fn orders_answered(&self, count: usize, status: StatusCode) -> usize {
        let mut hits = 0;
        for number in 0..count {
            hits += usize::from(self.order(&format!("customer-{number}")).await.status() == status);
        }
        hits
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.read("/metrics").send().await.unwrap().text().await.unwrap())
    }

    pub fn token(&self) -> String {
        EnvFile::read(&self.layout().env()).unwrap().value("ADMIN_TOKEN").unwrap().to_owned()
    }

    pub fn set_env(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.layout().env()).unwrap();
        assert!(text.contains(from));
        fs::write(self.layout().env(), text.replace(from, to)).unwrap();
    }

    /// One number, asked of the database itself.
    pub fn sql(&self, query: &str) -> i64 {
        let connection = Connection::open(self.layout().database()).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection.query_row(query, [], |row| row.get(0)).unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.layout().log()).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = stop(self.dir.path(), Duration::ZERO);
    }
}

pub fn program() -> Program {
    Program { exe: env!("CARGO_BIN_EXE_shop").into(), prefix: Vec::new() }
}

/// Asks until `ask` says yes.
pub async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !ask().await {
        assert!(Instant::now() < deadline, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A page of metrics, read strictly: every line is a comment of the right form or a sample of a declared family.
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let sample =
            regex::Regex::new(r#"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-z]+="[^"\\\n]*"(?:,[a-z]+="[^"\\\n]*")*\})? (\S+)$"#)
                .unwrap();
        let (mut families, mut samples) = (Vec::new(), BTreeMap::new());
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(!families.contains(&name), "declared once: {line}");
                families.push(name);
            } else if !line.starts_with("# HELP ") {
                let parts = sample.captures(line).unwrap_or_else(|| panic!("not a sample: {line}"));
                let name = &parts[1];
                let of_family = |family: &&str| {
                    name == *family || ["_bucket", "_sum", "_count"].iter().any(|end| name == format!("{family}{end}"))
                };
                assert!(families.last().is_some_and(of_family), "of the family above it: {line}");
                let labels = parts.get(2).map_or("", |labels| labels.as_str());
                assert!(samples.insert(format!("{name}{labels}"), parts[3].parse().unwrap()).is_none(), "once: {line}");
            }
        }
        Self(samples)
    }

    /// Nought where there is no such series, as for a counter that nothing has raised yet.
    pub fn value(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }

    pub fn requests(&self, route: &str, method: &str, status: u16) -> f64 {
        self.value(&format!(r#"http_requests_total{{route="{route}",method="{method}",status="{status}"}}"#))
    }

    pub fn has(&self, series: &str) -> bool {
        self.0.contains_key(series)
    }
}
