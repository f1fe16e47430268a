//! A Prometheus server's answer to a query.
//!
//! The query is sent encoded, with the time it is asked for, and the answer is read by type. Whatever is not one finite number
//! per series says which it is: nothing (no data), a refusal, warnings (part of the figures is missing), several series where one
//! was expected, no number, or a figure that is too old. None of them is a value.
//! Source: Prometheus, "HTTP API": instant and range queries, and the format of their answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Method, Url};
use ripcord_config::wire::{SecretFrom, Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Sample, Signal, SignalId, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{UnitName, failed};
use crate::http::{Answer, Caller, Headers, Request, Way, shorten, url};
use crate::{BuildCx, BuildError, SignalKind};

/// The most points Prometheus gives for one series.
const MOST_POINTS: u32 = 11_000;

/// A query to a Prometheus server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Of the server, without `/api/v1`.
    pub url: Text,
    pub query: String,
    /// What the values are: `ratio`, `seconds`, `bytes` or `number`.
    #[serde(default = "number")]
    pub unit: UnitName,
    /// How many series are expected.
    #[serde(default)]
    pub series: Series,
    /// A query for how many events the value rests on (requests in the window), for `at-least:`.
    #[serde(default)]
    pub count: Option<String>,
    /// A figure older than this is not taken for the present.
    #[serde(default = "five_minutes")]
    pub stale_after: Span,
    #[serde(default)]
    pub headers: BTreeMap<String, Text>,
    #[serde(default)]
    pub secret_headers: BTreeMap<String, SecretFrom>,
    /// Sent as `Authorization: Bearer ...`.
    #[serde(default)]
    pub bearer: Option<SecretFrom>,
}

/// What several series in an answer mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Series {
    /// There must be one; several are an error.
    #[default]
    One,
    /// Each is a sample of its own, with its labels.
    Each,
    /// The greatest is the value.
    Max,
    /// The least is the value.
    Min,
}

fn number() -> UnitName {
    UnitName::Number
}

fn five_minutes() -> Span {
    Span(Duration::from_secs(300))
}

impl Settings {
    fn headers(&self) -> Headers<'_> {
        Headers { plain: &self.headers, secret: &self.secret_headers, bearer: self.bearer.as_ref() }
    }
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "prometheus",
        summary: "The answer of a Prometheus server to a query.",
        example: r#"
url: http://prometheus.internal:9090
query: |
  sum(rate(http_requests_total{job="api",status=~"5.."}[5m])) / sum(rate(http_requests_total{job="api"}[5m]))
count: sum(increase(http_requests_total{job="api"}[5m]))
unit: ratio
"#,
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = self.headers().check();
        mistakes.extend(url(&self.url, "url").err());
        for (query, field) in [(Some(&self.query), "query"), (self.count.as_ref(), "count")] {
            if query.is_some_and(|query| query.trim().is_empty()) {
                mistakes.push(Mistake::new("the query is empty").at(field));
            }
        }
        if self.count.is_some() && self.series == Series::Each {
            let help = "use `max` or `min`, or leave `count` out";
            mistakes
                .push(Mistake::new("one count cannot be told apart for each of several series").at("count").help(help));
        }
        mistakes
    }

    fn unit(&self) -> Unit {
        self.unit.into()
    }

    fn fields(&self) -> &'static [&'static str] {
        &["series"]
    }

    fn build(&self, id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        Ok(Arc::new(Prometheus::new(self, cx).map_err(|why| BuildError::new(id, why))?))
    }
}

/// A query, ready to be asked for now or for the past.
pub struct Prometheus {
    settings: Settings,
    instant: Url,
    range: Url,
    caller: Caller,
}

/// One series of an answer: its labels, and its points in order of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Points {
    pub labels: BTreeMap<String, String>,
    pub points: Vec<(Timestamp, f64)>,
}

impl Prometheus {
    /// # Errors
    /// What is wrong with the settings.
    pub fn new(settings: &Settings, cx: &BuildCx) -> Result<Self, String> {
        let base = url(&settings.url, "url").map_err(|mistake| mistake.what)?;
        let api = |name: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{}/api/v1/{name}", base.path().trim_end_matches('/')));
            url
        };
        let caller = Caller::new(settings.headers(), Way::Proxied, cx)?;
        Ok(Self { instant: api("query"), range: api("query_range"), settings: settings.clone(), caller })
    }

    /// What the query was between `from` and `to`, a point every `step`: for baselines and for judging triggers by the past.
    /// # Errors
    /// As [`Signal::read`] says in [`Reading::Failed`]; also when that would be more points than the server gives.
    pub async fn between(
        &self,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
        limit: Duration,
    ) -> Result<Vec<Points>, String> {
        let points = ripcord_core::between(from, to).as_secs_f64() / step.as_secs_f64().max(0.001);
        if points >= f64::from(MOST_POINTS) {
            return Err(format!(
                "{points:.0} points are more than a Prometheus server gives for one series ({MOST_POINTS})"
            ));
        }
        let step = step.as_secs_f64().to_string();
        let form =
            [("query", self.settings.query.as_str()), ("start", &unix(from)), ("end", &unix(to)), ("step", &step)];
        self.ask(&self.range, &form, limit).await
    }

    async fn now(&self, query: &str, cx: &Cx) -> Result<Vec<Points>, String> {
        let form = [("query", query), ("time", &unix(cx.now)), ("timeout", &format!("{}ms", cx.limit.as_millis()))];
        self.ask(&self.instant, &form, cx.limit).await
    }

    async fn ask(&self, url: &Url, form: &[(&str, &str)], limit: Duration) -> Result<Vec<Points>, String> {
        let mut encoded = url.clone();
        encoded.query_pairs_mut().clear().extend_pairs(form);
        let request = Request {
            method: Method::POST,
            url: url.clone(),
            headers: vec![("content-type", "application/x-www-form-urlencoded".to_owned())],
            body: Some(encoded.query().unwrap_or_default().as_bytes().to_vec()),
        };
        let answer = self.caller.call(request, limit).await;
        let answer = answer.map_err(|error| format!("Prometheus does not answer: {}", error.why()))?;
        points(&answer).map_err(|why| self.caller.redactor().clean(&why))
    }

    async fn reading(&self, cx: &Cx) -> Result<Reading, String> {
        let series = self.now(&self.settings.query, cx).await?;
        if series.is_empty() {
            return Ok(Reading::Empty);
        }
        let n = match &self.settings.count {
            Some(count) => Some(self.counted(count, cx).await?),
            None => None,
        };
        let many = series.len();
        let mut samples = vec![];
        for Points { labels, points } in series {
            let Some((at, value)) = points.last().copied() else { continue };
            let name = show(&labels);
            if !value.is_finite() {
                return Err(format!("the value of {name} is {value}, which is no measurement"));
            }
            if ripcord_core::between(at, cx.now) > self.settings.stale_after.0 {
                return Err(format!("the value of {name} is of {at}: too old to say anything about now"));
            }
            let fields = [("series".to_owned(), many.into())].into();
            samples.push(Sample { at, labels, value, n, fields });
        }
        match self.settings.series {
            Series::One if many > 1 => {
                let names: Vec<_> = samples.iter().take(3).map(|sample| show(&sample.labels)).collect();
                Err(format!("{many} series where one was expected: {}", names.join(", ")))
            }
            Series::One | Series::Each => Ok(Reading::Samples(samples)),
            Series::Max => Ok(pick(samples, f64::total_cmp)),
            Series::Min => Ok(pick(samples, |a, b| b.total_cmp(a))),
        }
    }

    /// Nothing there is nothing to rest on, and not an error: the value's own query says whether there is data.
    async fn counted(&self, query: &str, cx: &Cx) -> Result<f64, String> {
        let series = self.now(query, cx).await.map_err(|why| format!("`count`: {why}"))?;
        match series.as_slice() {
            [] => Ok(0.0),
            [Points { points, .. }] => match points.last() {
                Some((_, n)) if n.is_finite() => Ok(*n),
                _ => Err("`count` gives no number".to_owned()),
            },
            several => Err(format!("`count` gives {} series where one was expected", several.len())),
        }
    }
}

fn pick(samples: Vec<Sample>, order: impl Fn(&f64, &f64) -> std::cmp::Ordering) -> Reading {
    match samples.into_iter().max_by(|a, b| order(&a.value, &b.value)) {
        Some(sample) => Reading::Samples(vec![sample]),
        None => Reading::Empty,
    }
}

fn unix(at: Timestamp) -> String {
    format!("{}.{:03}", at.as_second(), at.subsec_millisecond())
}

fn show(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    shorten(&format!("{{{}}}", labels.join(",")), 200)
}

/// Reads an answer: every way in which it is not simply data has words of its own.
fn points(answer: &Answer) -> Result<Vec<Points>, String> {
    let text = || shorten(String::from_utf8_lossy(&answer.body).trim(), 200);
    let Some(json) = answer.json() else {
        return Err(match answer.cut {
            true => "Prometheus answers with more than 1 MiB: the query gives too many series".to_owned(),
            false => format!("Prometheus answers {} with something that is not JSON: {}", answer.status, text()),
        });
    };
    let word = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default();
    if word("status") != "success" || answer.status != 200 {
        let why = if word("error").is_empty() { text() } else { format!("{}: {}", word("errorType"), word("error")) };
        return Err(format!("Prometheus refuses the query ({}): {why}", answer.status));
    }
    let warnings: Vec<_> =
        json.get("warnings").and_then(Value::as_array).into_iter().flatten().map(ToString::to_string).collect();
    if !warnings.is_empty() {
        return Err(format!(
            "Prometheus answers with warnings, so part of the figures may be missing: {}",
            warnings.join("; ")
        ));
    }
    let odd = || format!("Prometheus answers something else than the API describes: {}", text());
    let data = json.get("data").ok_or_else(odd)?;
    let result = data.get("result").ok_or_else(odd)?;
    match data.get("resultType").and_then(Value::as_str) {
        Some("scalar") => Ok(vec![Points { labels: BTreeMap::new(), points: vec![point(result).ok_or_else(odd)?] }]),
        Some("vector") => read(result, |series| Some(vec![point(series.get("value")?)?])).ok_or_else(odd),
        Some("matrix") => {
            read(result, |series| series.get("values")?.as_array()?.iter().map(point).collect()).ok_or_else(odd)
        }
        Some(other) => Err(format!("the query gives a {other} and not numbers")),
        None => Err(odd()),
    }
}

fn read(result: &Value, values: impl Fn(&Value) -> Option<Vec<(Timestamp, f64)>>) -> Option<Vec<Points>> {
    let series = result.as_array()?.iter().map(|series| {
        let labels = series.get("metric")?.as_object()?.iter();
        let labels =
            labels.map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect::<Option<_>>()?;
        // A native histogram is no number, and an answer that holds one besides is not one to be half read.
        let points = values(series)?;
        Some(Points { labels, points })
    });
    series.collect()
}

fn point(value: &Value) -> Option<(Timestamp, f64)> {
    let [at, value] = value.as_array()?.as_slice() else { return None };
    let at = Timestamp::from_millisecond((at.as_f64()? * 1000.0).round() as i64).ok()?;
    let value = match value.as_str()? {
        "NaN" => f64::NAN,
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    Some((at, value))
}

impl Signal for Prometheus {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move { self.reading(cx).await.unwrap_or_else(failed) })
    }

    fn query(&self) -> String {
        let count =
            self.settings.count.as_ref().map(|count| format!(", resting on {}", count.trim())).unwrap_or_default();
        self.caller.redactor().clean(&format!("{}{count}, asked of {}", self.settings.query.trim(), self.instant))
    }
}
