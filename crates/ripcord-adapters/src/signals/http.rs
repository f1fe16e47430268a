//! What an endpoint answers: whether it fails, its status, its latency, or a number in its JSON.
//!
//! An endpoint that refuses the connection, breaks it off, presents a bad certificate or says nothing within the limit is a
//! sample: failing, status 0. A name that does not resolve, a missing secret or a network that is down here is the observer's
//! failure. Redirects are not followed: where one leads to is another endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::{Method, Url};
use ripcord_config::wire::{SecretFrom, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Sample, Signal, SignalId, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::failed;
use crate::http::{Answer, Caller, Headers, Request, Unanswered, Way, number_at, pointer_mistake, url};
use crate::{BuildCx, BuildError, SignalKind};

/// An HTTP request, and what is measured of its answer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub url: Text,
    /// `GET` unless there is something to send, then `POST`.
    #[serde(default)]
    pub method: Option<Verb>,
    /// What is measured: `failing` (the default), `status`, `latency`, or `{ json: /pointer }`.
    #[serde(default)]
    pub measure: Measure,
    /// What an answer must be to count as not failing. Without it: a status from 200 to 299.
    #[serde(default)]
    pub expect: Expect,
    #[serde(default)]
    pub headers: BTreeMap<String, Text>,
    #[serde(default)]
    pub secret_headers: BTreeMap<String, SecretFrom>,
    /// Sent as `Authorization: Bearer ...`.
    #[serde(default)]
    pub bearer: Option<SecretFrom>,
    /// Sent as JSON.
    #[serde(default)]
    pub json: Option<Value>,
    /// Sent as it is.
    #[serde(default)]
    pub body: Option<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// 1 when it does not answer as expected, else 0.
    #[default]
    Failing,
    /// The status; 0 when there is none.
    Status,
    /// Seconds until the whole answer was read; the time limit when there is none.
    Latency,
    /// The number at this JSON pointer. No answer or no number there is a failure of the observer: the figure is not known.
    Json(String),
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expect {
    /// One of these.
    #[serde(default)]
    pub status: Vec<u16>,
    /// By JSON pointer: exactly these values.
    #[serde(default)]
    pub json: BTreeMap<String, Value>,
}

impl Verb {
    fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
            Self::Options => Method::OPTIONS,
        }
    }
}

impl Settings {
    fn headers(&self) -> Headers<'_> {
        Headers { plain: &self.headers, secret: &self.secret_headers, bearer: self.bearer.as_ref() }
    }
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "http",
        summary: "An HTTP request: whether it fails, its status, its latency, or a number in its JSON.",
        example: "\
url: http://127.0.0.1:8080/api/health
measure: failing
expect:
  status: [200]
  json: { /status: ok }
bearer: { env: HEALTH_TOKEN }
",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = self.headers().check();
        mistakes.extend(url(&self.url, "url").err());
        if let Measure::Json(pointer) = &self.measure {
            mistakes.extend(pointer_mistake(pointer, "measure.json"));
        }
        mistakes.extend(self.expect.json.keys().filter_map(|pointer| pointer_mistake(pointer, "expect.json")));
        for status in self.expect.status.iter().filter(|status| !(100..=599).contains(*status)) {
            mistakes.push(Mistake::new(format!("{status} is no HTTP status")).at("expect.status"));
        }
        if self.json.is_some() && self.body.is_some() {
            mistakes.push(Mistake::new("`json` and `body` are both to be sent").at("body").help("keep one of them"));
        }
        mistakes
    }

    fn unit(&self) -> Unit {
        match self.measure {
            Measure::Failing => Unit::Failing,
            Measure::Latency => Unit::Seconds,
            Measure::Status | Measure::Json(_) => Unit::Number,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        &["status", "latency_ms", "json", "body", "headers", "error"]
    }

    fn build(&self, id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let url = url(&self.url, "url").map_err(|mistake| BuildError::new(id, mistake.what))?;
        let caller = Caller::new(self.headers(), Way::Direct, cx).map_err(|why| BuildError::new(id, why))?;
        Ok(Arc::new(Http { settings: self.clone(), url, caller }))
    }
}

struct Http {
    settings: Settings,
    url: Url,
    caller: Caller,
}

impl Http {
    fn request(&self) -> Request {
        let (body, kind) = match (&self.settings.json, &self.settings.body) {
            (Some(json), _) => (Some(json.to_string().into_bytes()), Some("application/json")),
            (None, Some(text)) => (Some(text.as_str().as_bytes().to_vec()), None),
            (None, None) => (None, None),
        };
        let method = match (self.settings.method, &body) {
            (Some(verb), _) => verb.method(),
            (None, Some(_)) => Method::POST,
            (None, None) => Method::GET,
        };
        let headers = kind.map(|kind| ("content-type", kind.to_owned())).into_iter().collect();
        Request { method, url: self.url.clone(), headers, body }
    }

    /// What is wrong with an answer, if anything is.
    fn unexpected(&self, answer: &Answer) -> Option<String> {
        let expect = &self.settings.expect;
        let status = match expect.status.as_slice() {
            [] => (200..300).contains(&answer.status),
            wanted => wanted.contains(&answer.status),
        };
        if !status {
            return Some(format!("status {}", answer.status));
        }
        if expect.json.is_empty() {
            return None;
        }
        let Some(json) = answer.json() else { return Some("the answer is no JSON".to_owned()) };
        expect.json.iter().find_map(|(pointer, wanted)| match json.pointer(pointer) {
            Some(found) if found == wanted => None,
            Some(found) => Some(format!("`{pointer}` is {found} and not {wanted}")),
            None => Some(format!("there is nothing at `{pointer}`")),
        })
    }

    fn judge(&self, cx: &Cx, answer: &Answer) -> Reading {
        let unexpected = self.unexpected(answer);
        let value = match &self.settings.measure {
            Measure::Failing => f64::from(u8::from(unexpected.is_some())),
            Measure::Status => f64::from(answer.status),
            Measure::Latency => answer.took.as_secs_f64(),
            Measure::Json(pointer) => {
                let Some(json) = answer.json() else {
                    return failed(format!("the answer is no JSON ({})", answer.said(self.caller.redactor())));
                };
                match number_at(&json, pointer) {
                    Ok(value) => value,
                    Err(why) => return failed(format!("{why} (status {})", answer.status)),
                }
            }
        };
        let mut fields = answer.fields(self.caller.redactor());
        let error = unexpected.map_or(Value::Null, |why| self.caller.redactor().clean(&why).into());
        fields.insert("error".to_owned(), error);
        Reading::of(Sample { fields, ..Sample::new(cx.now, value) })
    }

    fn down(&self, cx: &Cx, why: String) -> Reading {
        let value = match self.settings.measure {
            Measure::Failing => 1.0,
            Measure::Status => 0.0,
            Measure::Latency => cx.limit.as_secs_f64(),
            Measure::Json(_) => return failed(format!("no answer: {why}")),
        };
        let fields = BTreeMap::from([
            ("status".to_owned(), 0.into()),
            ("latency_ms".to_owned(), Value::Null),
            ("json".to_owned(), Value::Null),
            ("body".to_owned(), "".into()),
            ("headers".to_owned(), Value::Object(serde_json::Map::new())),
            ("error".to_owned(), why.into()),
        ]);
        Reading::of(Sample { fields, ..Sample::new(cx.now, value) })
    }
}

impl Signal for Http {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move {
            match self.caller.call(self.request(), cx.limit).await {
                Ok(answer) => self.judge(cx, &answer),
                Err(Unanswered::Subject { why, .. }) => self.down(cx, why),
                Err(Unanswered::Observer { why }) => failed(why),
            }
        })
    }

    fn query(&self) -> String {
        let measure = match &self.settings.measure {
            Measure::Failing => "failing".to_owned(),
            Measure::Status => "status".to_owned(),
            Measure::Latency => "latency".to_owned(),
            Measure::Json(pointer) => format!("json {pointer}"),
        };
        self.caller.redactor().clean(&format!("{measure} of {} {}", self.request().method, self.url))
    }
}
