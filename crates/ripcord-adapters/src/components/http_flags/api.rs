//! The service: what the flags are, writing them, and what the application makes of them.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::ETAG;
use reqwest::{Method as Verb, Url};
use ripcord_core::Failure;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Values;
use super::write::Method;
use crate::components::files::Stop;
use crate::http::{Answer, Caller, Request, Unanswered};

/// How often a write is tried again after somebody changed something else meanwhile.
const TRIES: u32 = 4;

pub(super) struct Api {
    pub(super) place: Where,
    pub(super) flags: Vec<String>,
    pub(super) method: Method,
    pub(super) caller: Caller,
    pub(super) effects: BTreeMap<String, Effect>,
    /// Without our headers, as users ask.
    pub(super) outside: Caller,
}

pub(super) enum Where {
    ByFlag { urls: BTreeMap<String, Url>, field: String },
    Document(Url),
}

pub(super) struct Effect {
    pub(super) url: Url,
    pub(super) field: String,
}

/// The flags as read: their values, and what each resource was.
pub(super) struct Read {
    pub(super) values: Values,
    /// By flag; for a document under the empty name. None where nothing is there.
    resources: BTreeMap<String, Option<Resource>>,
}

struct Resource {
    json: Value,
    etag: Option<String>,
}

/// What became of one write.
enum Written {
    Done,
    /// The precondition did not hold any more.
    Overtaken,
}

impl Read {
    /// Whether every write can demand that nobody was faster.
    pub(super) fn guarded(&self) -> bool {
        self.resources.values().all(|resource| resource.as_ref().is_none_or(|resource| resource.etag.is_some()))
    }
}

impl Api {
    /// Reads all flags. A service that cannot be read says nothing, and that is never "off".
    pub(super) async fn read(&self, limit: Duration) -> Result<Read, Failure> {
        let mut resources = BTreeMap::new();
        let mut values = Values::new();
        match &self.place {
            Where::Document(url) => {
                let Some(resource) = self.resource(url, limit).await? else {
                    return Err(Failure::never(format!("{url} answers 404: there is no such document"))
                        .advise("see that `url` names the document"));
                };
                for flag in &self.flags {
                    values.insert(flag.clone(), resource.json.pointer(flag).cloned().unwrap_or_default());
                }
                resources.insert(String::new(), Some(resource));
            }
            Where::ByFlag { urls, field } => {
                let deadline = Instant::now() + limit;
                for (flag, url) in urls {
                    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(50));
                    let resource = self.resource(url, left).await?;
                    let value = match &resource {
                        None => Value::Null,
                        Some(resource) => resource.json.pointer(field).cloned().ok_or_else(|| {
                            let what = format!("the answer for `{flag}` has nothing at `{field}`");
                            Failure::never(what).advise("see what the service answers, and set `field`")
                        })?,
                    };
                    values.insert(flag.clone(), value);
                    resources.insert(flag.clone(), resource);
                }
            }
        }
        Ok(Read { values, resources })
    }

    async fn resource(&self, url: &Url, limit: Duration) -> Result<Option<Resource>, Failure> {
        let mut request = Request::get(url.clone());
        request.headers.push(("accept", "application/json".to_owned()));
        // A cache in between must not answer with what was.
        request.headers.push(("cache-control", "no-cache".to_owned()));
        let answer = self.caller.call(request, limit).await;
        let answer =
            answer.map_err(|error| Failure::later(format!("the flag service cannot be read: {}", error.why())))?;
        match answer.status {
            200 => {}
            404 => return Ok(None),
            _ => return Err(self.refused(&answer, "read")),
        }
        let json =
            answer.json().ok_or_else(|| Failure::never("the flag service answers something that is not JSON"))?;
        let etag = answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok());
        // A weak one says that the meaning is the same, and may not be demanded.
        let etag = etag.filter(|etag| !etag.starts_with("W/")).map(str::to_owned);
        Ok(Some(Resource { json, etag }))
    }

    fn refused(&self, answer: &Answer, what: &str) -> Failure {
        let said = format!("the flag service answers the {what} with {}", answer.said(self.caller.redactor()));
        match answer.status {
            401 | 403 => {
                Failure::never(said).advise("see that the token is the one this environment takes, and may do that")
            }
            404 => Failure::never(said).advise("see that the flag is there and that `url` leads to it"),
            405 | 415 => Failure::never(said).advise("see how it takes changes, and set `write`"),
            429 | 500.. => Failure::later(said),
            _ => Failure::never(said).advise("see what the service expects"),
        }
    }

    /// Whether these values can be written at all, told beforehand.
    pub(super) fn writable(&self, now: &Values, values: &Values) -> Result<(), Failure> {
        if matches!(self.place, Where::Document(_)) {
            return Ok(());
        }
        let gone =
            values.iter().find(|(flag, value)| value.is_null() && now.get(*flag).is_some_and(|now| !now.is_null()));
        match gone {
            None => Ok(()),
            Some((flag, _)) => {
                Err(Failure::never(format!("`{flag}` was not there then, and no flag of this service is deleted"))
                    .advise("delete it by hand, or set it to what it is to be"))
            }
        }
    }

    /// Writes what differs. `read` is what the caller judged: these flags, changed by somebody since, stop it.
    pub(super) async fn write(&self, read: Read, values: &Values, deadline: Instant) -> Result<(), Stop> {
        let judged = read.values.clone();
        let mut now = read;
        for _ in 0..TRIES {
            if !self.write_once(&now, values, deadline).await? {
                return Ok(());
            }
            now = self.read(left(deadline)).await.map_err(|failure| Stop::Unknown(failure.what))?;
            // Ours may be written already, of several; anything else is somebody's decision.
            let others = values.iter().find(|(flag, value)| {
                let is = now.values.get(*flag);
                is != Some(value) && is != judged.get(*flag)
            });
            if let Some((flag, _)) = others {
                let what = format!("`{flag}` was changed by somebody else meanwhile");
                return Err(Failure::never(what).advise("find out who and why, then retry the step").into());
            }
        }
        Err(Failure::later("the flags are changed by others all the time").into())
    }

    /// One try; true where it was overtaken.
    async fn write_once(&self, now: &Read, values: &Values, deadline: Instant) -> Result<bool, Stop> {
        let differing = values.iter().filter(|(flag, value)| now.values.get(*flag) != Some(value));
        let differing: Values = differing.map(|(flag, value)| (flag.clone(), value.clone())).collect();
        let resource = |name: &str| now.resources.get(name).and_then(Option::as_ref);
        match &self.place {
            Where::Document(_) if differing.is_empty() => Ok(false),
            Where::Document(url) => {
                let sent = self.send(url, resource(""), &differing, deadline).await?;
                Ok(matches!(sent, Written::Overtaken))
            }
            Where::ByFlag { urls, field } => {
                for (flag, value) in differing {
                    let Some(url) = urls.get(&flag) else { continue };
                    let at_field = Values::from([(field.clone(), value)]);
                    if let Written::Overtaken = self.send(url, resource(&flag), &at_field, deadline).await? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    async fn send(
        &self,
        url: &Url,
        at: Option<&Resource>,
        values: &Values,
        deadline: Instant,
    ) -> Result<Written, Stop> {
        // What is not there yet can only be put.
        let method = if at.is_some() { self.method } else { Method::Put };
        let document = at.map_or_else(|| json!({}), |resource| resource.json.clone());
        let body = method.body(&document, values).map_err(Failure::never)?;
        let mut headers = vec![("content-type", method.content_type().to_owned())];
        match at {
            Some(resource) => headers.extend(resource.etag.clone().map(|etag| ("if-match", etag))),
            None => headers.push(("if-none-match", "*".to_owned())),
        }
        let verb = if method == Method::Put { Verb::PUT } else { Verb::PATCH };
        let request = Request { method: verb, url: url.clone(), headers, body: Some(body.to_string().into_bytes()) };
        crate::components::files::point("send");
        let answer = match self.caller.call(request, left(deadline)).await {
            Ok(answer) => answer,
            Err(Unanswered::Subject { why, begun: true }) => return Err(Stop::Unknown(why)),
            Err(error) => return Err(Failure::later(error.why()).into()),
        };
        crate::components::files::point("sent");
        match answer.status {
            200..=299 => Ok(Written::Done),
            412 => Ok(Written::Overtaken),
            // A patch whose tests fail is refused with one of these, by the service's taste.
            409 | 422 if method == Method::JsonPatch => Ok(Written::Overtaken),
            500.. => Err(Stop::Unknown(self.refused(&answer, "write").what)),
            _ => Err(self.refused(&answer, "write").into()),
        }
    }

    /// The flag that the application does not have as it should, in words. None where all have effect.
    pub(super) async fn without_effect(&self, values: &Values, limit: Duration) -> Result<Option<String>, Failure> {
        let share = limit / u32::try_from(self.effects.len().max(1)).unwrap_or(u32::MAX);
        for (flag, effect) in &self.effects {
            let Some(value) = values.get(flag) else { continue };
            let answer = self.outside.call(Request::get(effect.url.clone()), share).await;
            let answer = match answer {
                Ok(answer) if answer.status == 200 => answer,
                Ok(answer) => {
                    return Ok(Some(format!("`{}` answers {}", effect.url, answer.said(self.outside.redactor()))));
                }
                Err(Unanswered::Subject { why, .. }) => {
                    return Ok(Some(format!("`{}` does not answer: {why}", effect.url)));
                }
                Err(Unanswered::Observer { why }) => return Err(Failure::later(why)),
            };
            let says = answer.json().and_then(|json| json.pointer(&effect.field).cloned()).unwrap_or_default();
            if says != *value {
                let words =
                    format!("the application has `{flag}` at {}, not {}", super::shown(&says), super::shown(value));
                return Ok(Some(self.outside.redactor().clean(&words)));
            }
        }
        Ok(None)
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(50))
}
