//! Any program that takes JSON by HTTP.
//!
//! The message's identity goes with it as `Idempotency-Key`, so that a delivery whose answer was lost can be repeated. With
//! `sign-with`, `X-Ripcord-Signature` is `v1=` and the HMAC-SHA256, in hexadecimal, of the timestamp header, a full stop and the
//! body: the receiver compares it and refuses an old timestamp.
//! Source: RFC 9110 on 429, 503 and Retry-After; RFC 2104 for HMAC.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, Url};
use ripcord_config::wire::{SecretFrom, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{About, Channel, ChannelId, Cx, Fut, Layer, Message, NotDelivered, Redactor, Retry, SecretRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::http::{Caller, Headers, Request, Unanswered, Way, url};
use crate::{BuildCx, BuildError, ChannelKind, secrets};

/// A URL that messages are posted to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub url: Text,
    #[serde(default)]
    pub headers: BTreeMap<String, Text>,
    #[serde(default)]
    pub secret_headers: BTreeMap<String, SecretFrom>,
    /// Sent as `Authorization: Bearer ...`.
    #[serde(default)]
    pub bearer: Option<SecretFrom>,
    /// The key of the signature that tells the receiver who sent this.
    #[serde(default)]
    pub sign_with: Option<SecretFrom>,
}

impl Settings {
    fn headers(&self) -> Headers<'_> {
        Headers { plain: &self.headers, secret: &self.secret_headers, bearer: self.bearer.as_ref() }
    }
}

impl ChannelKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "webhook",
        summary: "Posts each message as JSON, signed if wanted.",
        example: "\
url: https://hooks.example.com/ripcord
sign-with: { env: HOOK_KEY }
headers: { x-team: payments }
",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = self.headers().check();
        mistakes.extend(url(&self.url, "url").err());
        mistakes
    }

    fn build(&self, id: &ChannelId, cx: &BuildCx) -> Result<Arc<dyn Channel>, BuildError> {
        Ok(Arc::new(Webhook {
            url: url(&self.url, "url").map_err(|mistake| BuildError::new(id, mistake.what))?,
            caller: Caller::new(self.headers(), Way::Proxied, cx).map_err(|why| BuildError::new(id, why))?,
            key: self.sign_with.as_ref().map(|from| from.0.clone()),
            base: cx.base.clone(),
        }))
    }
}

/// The message as sent: a format of its own, so that the record can change without the receivers.
#[derive(Serialize)]
struct Posted<'a> {
    version: u16,
    id: &'a str,
    application: String,
    environment: String,
    about: About,
    severity: Option<String>,
    incident: Option<&'a str>,
    run: Option<&'a str>,
    plan: Option<String>,
    at: String,
    title: String,
    body: String,
}

struct Webhook {
    url: Url,
    caller: Caller,
    key: Option<SecretRef>,
    base: PathBuf,
}

impl Webhook {
    fn body(&self, cx: &Cx, message: &Message) -> Result<Vec<u8>, NotDelivered> {
        let clean = |text: &str| self.redactor().clean(text);
        let posted = Posted {
            version: 1,
            id: &message.id,
            application: cx.app.application.to_string(),
            environment: cx.app.environment.to_string(),
            about: message.about,
            severity: message.severity.map(|severity| severity.to_string()),
            incident: message.incident.as_ref().map(|incident| incident.as_str()),
            run: message.run.as_ref().map(|run| run.as_str()),
            plan: message.plan.as_ref().map(ToString::to_string),
            at: message.at.to_string(),
            title: clean(&message.title),
            body: clean(&message.body),
        };
        serde_json::to_vec(&posted).map_err(|error| NotDelivered { why: error.to_string(), retry: Retry::Never })
    }

    fn redactor(&self) -> &Redactor {
        self.caller.redactor()
    }

    async fn post(&self, cx: &Cx, message: &Message) -> Result<(), NotDelivered> {
        let body = self.body(cx, message)?;
        let mut headers =
            vec![("content-type", "application/json".to_owned()), ("idempotency-key", message.id.clone())];
        if let Some(key) = &self.key {
            let secret = secrets::resolve(key, &self.base, self.redactor()).await;
            let secret = secret.map_err(|e| NotDelivered { why: secrets::chain(&e), retry: Retry::Never })?;
            // The time of this delivery and not the message's: a receiver refuses old ones, and a delivery may be late.
            let stamp = cx.now.as_second().to_string();
            headers.push(("x-ripcord-signature", signature(secret.reveal(), &stamp, &body)?));
            headers.push(("x-ripcord-timestamp", stamp));
        }
        let request = Request { method: Method::POST, url: self.url.clone(), headers, body: Some(body) };
        let answer = self.caller.call(request, cx.limit).await.map_err(|error| match error {
            Unanswered::Subject { why, .. } => NotDelivered { why, retry: Retry::Later },
            // A network that is down comes back; for a secret that is missing the next channel is tried meanwhile.
            Unanswered::Observer { why } => NotDelivered { why, retry: Retry::Later },
        })?;
        let after = answer.retry_after().map(wait).unwrap_or_default();
        let why = format!("answered {}{after}", answer.said(self.redactor()));
        match answer.status {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500.. => Err(NotDelivered { why, retry: Retry::Later }),
            _ => Err(NotDelivered { why, retry: Retry::Never }),
        }
    }
}

fn wait(after: Duration) -> String {
    format!(" (try again in {})", ripcord_core::human(after))
}

/// `v1=` and the HMAC-SHA256 of `<timestamp>.<body>`.
fn signature(key: &str, stamp: &str, body: &[u8]) -> Result<String, NotDelivered> {
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes());
    let mut mac = mac.map_err(|error| NotDelivered { why: error.to_string(), retry: Retry::Never })?;
    mac.update(stamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut text = "v1=".to_owned();
    for byte in mac.finalize().into_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

impl Channel for Webhook {
    fn send<'a>(&'a self, cx: &'a Cx, message: &'a Message) -> Fut<'a, Result<(), NotDelivered>> {
        Box::pin(self.post(cx, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_others_compute() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        let signed = signature("key", "1700000000", br#"{"a":1}"#).unwrap();
        assert_eq!(signed, "v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03");
    }
}
