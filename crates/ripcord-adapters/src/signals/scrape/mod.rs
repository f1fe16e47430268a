//! An application's own page of metrics, without a Prometheus server in between.
//!
//! Shares, rates and quantiles are over a window, from the pages this signal has read: the first one after a start says nothing
//! yet. Zero over something is zero; zero over zero, and series that are not there at all, are no data. A page that cannot be
//! had or read is a failure of the observer: the figures are unknown, not bad. That the endpoint is down is for an `http` signal
//! to say.

mod history; // what counters did within a window
mod select; // which series are meant
mod text; // the page

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Url;
use ripcord_config::wire::{SecretFrom, Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Sample, Signal, SignalId, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

pub use select::Selector;

use self::history::History;
use self::text::Line;
use super::{UnitName, failed, locked};
use crate::http::{Caller, Headers, Request, Way, url};
use crate::{BuildCx, BuildError, SignalKind};

/// A figure from a page of metrics in Prometheus' text format or OpenMetrics.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub url: Text,
    pub measure: Measure,
    /// What the values are. Without it: by the metric's name (`_seconds`, `_bytes`, `_ratio`), else a plain number.
    #[serde(default)]
    pub unit: Option<UnitName>,
    /// Sent as `Authorization: Bearer ...`.
    #[serde(default)]
    pub bearer: Option<SecretFrom>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The growth of some counters over the growth of all: `of` must be part of `to`. Rests on the growth of `to`.
    Ratio(Ratio),
    /// The growth of counters per second.
    Rate(Rate),
    /// A quantile of a histogram. Rests on the number of observations.
    Quantile(Quantile),
    /// A value as it is.
    Gauge(Gauge),
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ratio {
    pub of: Selector,
    pub to: Selector,
    pub window: Span,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rate {
    pub metric: Selector,
    pub window: Span,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Quantile {
    /// The histogram's name, without `_bucket`.
    pub metric: Selector,
    /// 0.95 is the p95.
    pub q: f64,
    pub window: Span,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gauge {
    pub metric: Selector,
    /// What several series make together.
    #[serde(default)]
    pub fold: Fold,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fold {
    #[default]
    Sum,
    Max,
    Min,
}

impl Measure {
    fn window(&self) -> Duration {
        match self {
            Self::Ratio(Ratio { window, .. })
            | Self::Rate(Rate { window, .. })
            | Self::Quantile(Quantile { window, .. }) => window.0,
            Self::Gauge(_) => Duration::ZERO,
        }
    }

    fn needs(&self, line: &Line) -> bool {
        match self {
            Self::Ratio(ratio) => [&ratio.of, &ratio.to].iter().any(|s| s.matches(&line.name, &line.labels)),
            Self::Rate(rate) => rate.metric.matches(&line.name, &line.labels),
            Self::Quantile(quantile) => quantile.buckets().matches(&line.name, &line.labels),
            Self::Gauge(_) => false,
        }
    }

    /// What a page read at `now` comes to, after those read before it.
    fn measured(&self, now: Timestamp, lines: Vec<Line>, history: &Mutex<History>) -> Reading {
        if let Self::Gauge(gauge) = self {
            return gauge.read(now, &lines);
        }
        let mut history = locked(history);
        history.push(now, lines, |line| self.needs(line), self.window());
        let Some(growth) = history.growth() else { return Reading::Empty };
        let seconds = growth.over.as_secs_f64();
        let sample = |value, n: Option<f64>, fields: &[(&str, f64)]| {
            // Counters only rise, and not beyond every number: a share of such growth would be nought, which looks like health.
            if let Some((_, strange)) = fields.iter().find(|(_, growth)| !(growth.is_finite() && *growth >= 0.0)) {
                return failed(format!("counters grew by {strange}, which is no measurement"));
            }
            let fields =
                fields.iter().chain(&[("seconds", seconds)]).map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
            Reading::of(Sample { n, fields, ..Sample::new(now, value) })
        };
        match self {
            Self::Ratio(ratio) => match growth.sum(&ratio.to) {
                None | Some(0.0) => Reading::Empty,
                Some(to) => {
                    let of = growth.sum(&ratio.of).unwrap_or(0.0);
                    // Two counters of one event are not raised in one instant: a page may show the first and not yet the second.
                    sample((of / to).min(1.0), Some(to), &[("of", of), ("to", to)])
                }
            },
            Self::Rate(rate) => match growth.sum(&rate.metric) {
                None => Reading::Empty,
                Some(grown) => sample(grown / seconds, Some(grown), &[("of", grown)]),
            },
            Self::Quantile(quantile) => match growth.quantile(&quantile.buckets(), quantile.q) {
                None | Some((_, 0.0)) => Reading::Empty,
                Some((value, n)) => sample(value, Some(n), &[("to", n)]),
            },
            Self::Gauge(_) => Reading::Empty,
        }
    }
}

impl Quantile {
    fn buckets(&self) -> Selector {
        let name = self.metric.name.strip_suffix("_bucket").unwrap_or(&self.metric.name);
        self.metric.of(format!("{name}_bucket"))
    }
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "scrape",
        summary: "A share, rate, quantile or value from an application's own page of metrics (Prometheus text, OpenMetrics).",
        example: r#"
url: http://127.0.0.1:8080/metrics
measure:
  ratio:
    of: http_requests_total{status=~"5.."}
    to: http_requests_total
    window: 1m
"#,
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes: Vec<Mistake> = url(&self.url, "url").err().into_iter().collect();
        if self.measure.window() < Duration::from_secs(1) && !matches!(self.measure, Measure::Gauge(_)) {
            mistakes.push(Mistake::new("the window is shorter than a second").at("measure").help("write `window: 1m`"));
        }
        if let Measure::Quantile(Quantile { q, .. }) = &self.measure
            && !(*q > 0.0 && *q < 1.0)
        {
            mistakes.push(Mistake::new(format!("{q} is no quantile")).at("measure.quantile.q").help("the p95 is 0.95"));
        }
        mistakes
    }

    fn unit(&self) -> Unit {
        let by_name = |name: &str| match name {
            name if name.ends_with("_seconds") => Unit::Seconds,
            name if name.ends_with("_bytes") => Unit::Bytes,
            name if name.ends_with("_ratio") => Unit::Ratio,
            _ => Unit::Number,
        };
        match (&self.unit, &self.measure) {
            (Some(unit), _) => (*unit).into(),
            (None, Measure::Ratio(_)) => Unit::Ratio,
            (None, Measure::Rate(_)) => Unit::Number,
            (None, Measure::Quantile(quantile)) => by_name(quantile.metric.name.trim_end_matches("_bucket")),
            (None, Measure::Gauge(gauge)) => by_name(&gauge.metric.name),
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        &["of", "to", "seconds", "series"]
    }

    fn build(&self, id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let url = url(&self.url, "url").map_err(|mistake| BuildError::new(id, mistake.what))?;
        let (none, nothing) = (Default::default(), Default::default());
        let headers = Headers { plain: &none, secret: &nothing, bearer: self.bearer.as_ref() };
        let caller = Caller::new(headers, Way::Direct, cx).map_err(|why| BuildError::new(id, why))?;
        Ok(Arc::new(Scrape { settings: self.clone(), url, caller, history: Mutex::default() }))
    }
}

/// A series of a page: name, labels, value.
#[doc(hidden)]
pub type Series = (String, BTreeMap<String, String>, f64);

/// The series of a page. For the fuzzer.
/// # Errors
/// Which line is none, as a reading tells it.
#[doc(hidden)]
pub fn read_page(text: &str) -> Result<Vec<Series>, String> {
    Ok(text::page(text)?.into_iter().map(|line| (line.name, line.labels, line.value)).collect())
}

/// What pages read one after the other come to, each in turn. For the fuzzer.
#[doc(hidden)]
pub fn read_pages(measure: &Measure, pages: &[(Timestamp, &str)]) -> Vec<Reading> {
    let history = Mutex::default();
    let reading = |(at, page): &(Timestamp, &str)| match text::page(page) {
        Ok(lines) => measure.measured(*at, lines, &history),
        Err(why) => failed(why),
    };
    pages.iter().map(reading).collect()
}

struct Scrape {
    settings: Settings,
    url: Url,
    caller: Caller,
    history: Mutex<History>,
}

impl Scrape {
    async fn page(&self, cx: &Cx) -> Result<Vec<Line>, String> {
        let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4".to_owned();
        let request = Request { headers: vec![("accept", accept)], ..Request::get(self.url.clone()) };
        let answer = self.caller.call(request, cx.limit).await.map_err(|error| error.why().to_owned())?;
        if answer.status != 200 {
            return Err(format!("the page of metrics answers {}", answer.said(self.caller.redactor())));
        }
        if answer.cut {
            return Err("the page of metrics is larger than 1 MiB".to_owned());
        }
        let text = std::str::from_utf8(&answer.body).map_err(|_| "the page of metrics is no text".to_owned())?;
        text::page(text)
            .map_err(|why| format!("the page of metrics cannot be read: {}", self.caller.redactor().clean(&why)))
    }
}

impl Gauge {
    fn read(&self, now: Timestamp, lines: &[Line]) -> Reading {
        let values = lines.iter().filter(|line| self.metric.matches(&line.name, &line.labels)).map(|line| line.value);
        let values: Vec<f64> = values.collect();
        let folded = match self.fold {
            Fold::Sum => values.iter().copied().reduce(|a, b| a + b),
            Fold::Max => values.iter().copied().reduce(f64::max),
            Fold::Min => values.iter().copied().reduce(f64::min),
        };
        let Some(mut value) = folded else { return Reading::Empty };
        // The greatest of a number and of no number is not known.
        if let Some(strange) = values.iter().find(|value| !value.is_finite()) {
            value = *strange;
        }
        let fields = [("series".to_owned(), values.len().into())].into();
        Reading::of(Sample { fields, ..Sample::new(now, value) })
    }
}

impl Signal for Scrape {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move {
            match self.page(cx).await {
                Ok(lines) => self.settings.measure.measured(cx.now, lines, &self.history),
                Err(why) => failed(why),
            }
        })
    }

    fn query(&self) -> String {
        let over = |window: &Span| ripcord_core::human(window.0);
        let what = match &self.settings.measure {
            Measure::Ratio(Ratio { of, to, window }) => {
                format!("growth of {of} / growth of {to} over {}", over(window))
            }
            Measure::Rate(Rate { metric, window }) => format!("growth of {metric} per second over {}", over(window)),
            Measure::Quantile(Quantile { metric, q, window }) => {
                format!("quantile {q} of {metric} over {}", over(window))
            }
            Measure::Gauge(Gauge { metric, fold: Fold::Sum }) => format!("sum of {metric}"),
            Measure::Gauge(Gauge { metric, fold: Fold::Max }) => format!("greatest of {metric}"),
            Measure::Gauge(Gauge { metric, fold: Fold::Min }) => format!("least of {metric}"),
        };
        self.caller.redactor().clean(&format!("{what}, from {}", self.url))
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn growth_that_no_counter_has_is_a_failure_and_not_a_share_of_nought() {
        let check = |second: &str, why: &str| {
            let ratio = r#"{"ratio":{"of":"a{b=\"5\"}","to":"a","window":"15s"}}"#;
            let measure: Measure = serde_json::from_str(ratio).unwrap();
            let first = "a{b=\"5\"} 1\na{b=\"2\"} 1\na{b=\"3\"} 1";
            let later = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(10);
            let readings = read_pages(&measure, &[(Timestamp::UNIX_EPOCH, first), (later, second)]);
            assert_eq!(readings, [Reading::Empty, failed(why)], "{second}");
        };
        check("a{b=\"2\"} 1e308\na{b=\"3\"} 1e308", "counters grew by inf, which is no measurement");
        check("a{b=\"5\"} -1\na{b=\"2\"} 9", "counters grew by -1, which is no measurement");
    }
}
