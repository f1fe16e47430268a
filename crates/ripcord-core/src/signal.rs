//! The port to everything measured, and what a measurement is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Cx, Fut};

/// The answer of one look at a signal.
///
/// A probe that cannot reach its *subject* answers with a sample that says so (down); `Failed` is the *observer's* failure: the
/// monitoring is blind, which is neither bad news nor good news about the subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    Samples(Vec<Sample>),
    /// The observer answered, and there is nothing: no series, no lines, zero over zero.
    Empty,
    Failed {
        why: String,
    },
}

/// One measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When the value was true, by the observer's clock: evidence has an age.
    pub at: Timestamp,
    /// What distinguishes several samples of one reading (series labels, a provider's name).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Ratios from 0.0 to 1.0, durations in seconds, counts as they are. Never NaN or infinite: that is [`Reading::Failed`].
    pub value: f64,
    /// How many events the value rests on (requests in the window), where it is a share or a quantile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<f64>,
    /// What else was seen, for assertions (`status`, `json`, `latency_ms`); bounded and redacted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Value>,
}

impl Sample {
    pub fn new(at: Timestamp, value: f64) -> Self {
        Self { at, labels: BTreeMap::new(), value, n: None, fields: BTreeMap::new() }
    }
}

impl Reading {
    /// One value, or the failure that a value which is not a finite number is.
    pub fn of(sample: Sample) -> Self {
        match sample.value.is_finite() {
            true => Self::Samples(vec![sample]),
            false => Self::Failed { why: format!("the value is {}, which is no measurement", sample.value) },
        }
    }
}

/// What a signal's values are, so that thresholds can be checked against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// 0.0 to 1.0, written `5%`.
    Ratio,
    /// Seconds, written `2s`.
    Seconds,
    /// Bytes, written `500MB`.
    Bytes,
    /// A plain number.
    Number,
    /// 1 when the subject is failing, 0 when not.
    Failing,
}

/// One kind of measurement. `read` only looks; it ends within `cx.limit`.
///
/// An implementation may keep what it needs between readings (a counter's former values); readings of one signal never overlap.
pub trait Signal: Send + Sync {
    fn unit(&self) -> Unit;
    /// The names that [`Sample::fields`] carries beside `value`, so that assertions are checked when loaded.
    fn fields(&self) -> &'static [&'static str];
    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading>;
    /// The query in full, as resolved, without secrets: part of the evidence.
    fn query(&self) -> String;
}
