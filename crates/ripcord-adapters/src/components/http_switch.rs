//! Maintenance mode, or any other switch in the way of traffic, by HTTP.
//!
//! That the switch says "on" is a report: where `prove` is given, a request from outside must meet the closed door as well, and
//! after `off` must not meet it any more.
//!
//! A 4xx answer is a refusal, and nothing happened. Of a 5xx answer, or of none after the request was sent, nobody knows what it
//! did: the switch is looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Url};
use ripcord_config::wire::{SecretFrom, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, Component, ComponentId, Cx, Draft, Failure, Fut, Held, Holds,
    Inventory, KindVersion, Layer, Lifecycle, Observation, Observe, Outcome, Place, Proof, Revision, Seen, Shown, Step,
    Survey, TargetId, Want, Wanted, Wish,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::http::{Caller, Headers, Request, Unanswered, Way, pointer_mistake, url};
use crate::{BuildCx, BuildError, ComponentKind};

/// A switch that requests turn on and off.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Closes the door: maintenance on.
    pub on: Call,
    /// Opens it again.
    pub off: Call,
    /// Says how it is.
    pub observe: Look,
    /// A request as users make it, to see that the door is closed when it is said to be, and open when not.
    #[serde(default)]
    pub prove: Option<Prove>,
    #[serde(default)]
    pub headers: BTreeMap<String, Text>,
    #[serde(default)]
    pub secret_headers: BTreeMap<String, SecretFrom>,
    /// Sent as `Authorization: Bearer ...`, but not with `prove`.
    #[serde(default)]
    pub bearer: Option<SecretFrom>,
}

/// One of `post`, `put`, `patch`, `delete`, with its URL.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Call {
    #[serde(default)]
    pub post: Option<Text>,
    #[serde(default)]
    pub put: Option<Text>,
    #[serde(default)]
    pub patch: Option<Text>,
    #[serde(default)]
    pub delete: Option<Text>,
    /// Sent as JSON.
    #[serde(default)]
    pub json: Option<Value>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Look {
    pub get: Text,
    /// Where in the JSON answer the state is, by JSON pointer.
    pub field: String,
    /// Its value when the switch is on; any other is off.
    #[serde(default = "yes")]
    pub on: Value,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Prove {
    pub url: Text,
    /// What is answered while the door is closed.
    #[serde(default = "unavailable")]
    pub status: u16,
}

fn yes() -> Value {
    Value::Bool(true)
}

fn unavailable() -> u16 {
    503
}

impl Call {
    fn method(&self) -> Result<(Method, &Text), String> {
        let all = [
            (Method::POST, &self.post),
            (Method::PUT, &self.put),
            (Method::PATCH, &self.patch),
            (Method::DELETE, &self.delete),
        ];
        let mut given = all.into_iter().filter_map(|(method, url)| Some((method, url.as_ref()?)));
        match (given.next(), given.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err("it says no request".to_owned()),
            (Some((a, _)), Some((b, _))) => Err(format!("it says two requests: {a} and {b}")),
        }
    }

    fn request(&self, field: &str) -> Result<Request, Mistake> {
        let help = "write one of `post`, `put`, `patch`, `delete`, with its URL";
        let (method, text) = self.method().map_err(|why| Mistake::new(why).at(field).help(help))?;
        let at = format!("{field}.{}", method.as_str().to_ascii_lowercase());
        let url = url(text, &at)?;
        let body = self.json.as_ref().map(|json| json.to_string().into_bytes());
        let headers = body.as_ref().map(|_| ("content-type", "application/json".to_owned())).into_iter().collect();
        Ok(Request { method, url, headers, body })
    }
}

impl Settings {
    fn headers(&self) -> Headers<'_> {
        Headers { plain: &self.headers, secret: &self.secret_headers, bearer: self.bearer.as_ref() }
    }
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "http-switch",
        summary: "Maintenance mode by HTTP: traffic off before a rollback, on again after it.",
        example: "\
on: { post: http://127.0.0.1:8080/admin/maintenance/enable }
off: { post: http://127.0.0.1:8080/admin/maintenance/disable }
observe: { get: http://127.0.0.1:8080/admin/maintenance, field: /enabled }
prove: { url: http://127.0.0.1:8080/, status: 503 }
bearer: { dotenv: { file: shared/.env, key: ADMIN_TOKEN } }
",
        layer: Layer::Traffic,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = self.headers().check();
        mistakes.extend(self.on.request("on").err());
        mistakes.extend(self.off.request("off").err());
        mistakes.extend(url(&self.observe.get, "observe.get").err());
        mistakes.extend(pointer_mistake(&self.observe.field, "observe.field"));
        if let Some(prove) = &self.prove {
            mistakes.extend(url(&prove.url, "prove.url").err());
            if !(400..=599).contains(&prove.status) {
                let mistake = Mistake::new(format!("{} does not turn users away", prove.status));
                mistakes.push(mistake.at("prove.status").help("the usual status is 503"));
            }
        }
        mistakes
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let bad = |mistake: Mistake| BuildError::new(id, mistake.what);
        let prove = match &self.prove {
            None => None,
            Some(prove) => {
                let (none, nothing) = (BTreeMap::new(), BTreeMap::new());
                let outside = Headers { plain: &none, secret: &nothing, bearer: None };
                let caller = Caller::new(outside, Way::Direct, cx).map_err(|why| BuildError::new(id, why))?;
                Some(Outside { caller, url: url(&prove.url, "prove.url").map_err(bad)?, status: prove.status })
            }
        };
        Ok(Arc::new(HttpSwitch {
            on: self.on.request("on").map_err(bad)?,
            off: self.off.request("off").map_err(bad)?,
            observe: url(&self.observe.get, "observe.get").map_err(bad)?,
            field: self.observe.field.clone(),
            value_on: self.observe.on.clone(),
            caller: Caller::new(self.headers(), Way::Direct, cx).map_err(|why| BuildError::new(id, why))?,
            prove,
        }))
    }
}

struct HttpSwitch {
    on: Request,
    off: Request,
    observe: Url,
    field: String,
    value_on: Value,
    caller: Caller,
    prove: Option<Outside>,
}

/// A user's view.
struct Outside {
    caller: Caller,
    url: Url,
    status: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    On,
    Off,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

impl Outside {
    /// None when users see what the state says; else what they see.
    async fn disagrees(&self, state: State, limit: Duration) -> Result<Option<String>, String> {
        let seen = match self.caller.call(Request::get(self.url.clone()), limit).await {
            Ok(answer) => answer.status,
            // A refused connection is no closed door with a notice on it, and no open one either.
            Err(Unanswered::Subject { why, .. }) => {
                return Ok(Some(format!("a request from outside got no answer: {why}")));
            }
            Err(Unanswered::Observer { why }) => return Err(why),
        };
        let closed = seen == self.status;
        let agrees = match state {
            State::On => closed,
            // An open door with trouble behind it (500, a redirect to a login) is open: what is behind it others check.
            State::Off => !closed,
        };
        Ok((!agrees).then(|| format!("a request from outside got {seen}")))
    }
}

impl HttpSwitch {
    async fn state(&self, limit: Duration) -> Result<State, String> {
        let request = Request::get(self.observe.clone());
        let answer = self.caller.call(request, limit).await.map_err(|error| error.why().to_owned())?;
        if answer.status != 200 {
            return Err(format!("the switch answers {}", answer.said(self.caller.redactor())));
        }
        let Some(json) = answer.json() else { return Err("the switch answers something that is not JSON".to_owned()) };
        match json.pointer(&self.field) {
            Some(value) if *value == self.value_on => Ok(State::On),
            Some(_) => Ok(State::Off),
            None => Err(format!("the switch's answer has nothing at `{}`", self.field)),
        }
    }

    /// Whether the switch is in `wanted`, also as users see it.
    async fn look(&self, wanted: State, limit: Duration) -> Observation {
        let cannot = |why: String| Observation::from(Holds::CannotTell { why });
        // Two requests one after the other must fit in.
        let share = limit / if self.prove.is_some() { 2 } else { 1 };
        let state = match self.state(share).await {
            Ok(state) => state,
            Err(why) => return cannot(why),
        };
        let mark = Some(state.word().to_owned());
        if state != wanted {
            return Observation { holds: Holds::Origin, mark };
        }
        let Some(outside) = &self.prove else { return Observation { holds: Holds::Target, mark } };
        match outside.disagrees(wanted, share).await {
            Ok(None) => Observation { holds: Holds::Target, mark },
            Ok(Some(seen)) => Observation {
                holds: Holds::Neither { found: format!("the switch says {}, but {seen}", wanted.word()) },
                mark,
            },
            Err(why) => cannot(why),
        }
    }

    async fn switch(&self, cx: &Cx, wanted: State) -> Outcome {
        let deadline = Instant::now() + cx.limit - cx.limit / 10;
        let request = match wanted {
            State::On => self.on.clone(),
            State::Off => self.off.clone(),
        };
        let said = match self.caller.call(request, cx.limit / 2).await {
            Err(Unanswered::Observer { why }) => return Outcome::Failed(Failure::later(why)),
            Err(Unanswered::Subject { why, begun: false }) => return Outcome::Failed(Failure::later(why)),
            Err(Unanswered::Subject { why, begun: true }) => return Outcome::Unknown { why },
            Ok(answer) => match answer.status {
                200..=299 => "it answered success",
                429 => {
                    return Outcome::Failed(Failure::later(format!(
                        "the switch answers {}",
                        answer.said(self.caller.redactor())
                    )));
                }
                500.. => {
                    return Outcome::Unknown {
                        why: format!("the switch answers {}", answer.said(self.caller.redactor())),
                    };
                }
                status => {
                    let what = format!("the switch answers {}", answer.said(self.caller.redactor()));
                    let advice = match status {
                        401 | 403 => "see that the token is the one this environment takes",
                        404 | 405 => "see that `on` and `off` name the right request",
                        _ => "see what the switch expects",
                    };
                    return Outcome::Failed(Failure::never(what).advise(advice));
                }
            },
        };
        let mut pause = Duration::from_millis(20);
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(50));
            let seen = match self.look(wanted, left).await.holds {
                Holds::Target => return Outcome::Done(Proof::of(self.words(wanted))),
                Holds::Origin => format!("it is still {}", other(wanted).word()),
                Holds::Neither { found } => found,
                Holds::CannotTell { why } => why,
            };
            let next = Instant::now() + pause;
            if next >= deadline {
                return Outcome::Failed(Failure::never(format!("{said}, but {seen}")));
            }
            tokio::time::sleep_until(next).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn words(&self, state: State) -> String {
        let seen = match (&self.prove, state) {
            (None, _) => String::new(),
            (Some(outside), State::On) => format!(", and users get {}", outside.status),
            (Some(_), State::Off) => ", and users get in".to_owned(),
        };
        format!("the switch is {}{seen}", state.word())
    }

    fn wanted(action: &Action) -> Option<State> {
        match action {
            Action::Pause => Some(State::On),
            Action::Resume => Some(State::Off),
            _ => None,
        }
    }
}

fn other(state: State) -> State {
    match state {
        State::On => State::Off,
        State::Off => State::On,
    }
}

/// A switch has no revision of its own: it is always at this one.
fn revision() -> Revision {
    Revision::exact("switch")
}

impl Component for HttpSwitch {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: Settings::DOC.name.to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            observe: Observe::Exactly,
            held: Held::Nowhere,
            lifecycle: Lifecycle::Switch,
            ..Capabilities::NONE
        }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            let target = TargetId(format!("http:{}", self.caller.redactor().clean(self.observe.as_str())));
            let state = self.state(cx.limit).await;
            let seen = match &state {
                Ok(_) => Seen::At(revision()),
                Err(why) => Seen::Unreachable { why: why.clone() },
            };
            let mut survey = Survey::new(place.clone(), seen, target);
            if let Ok(state) = state {
                survey.running = Some(state == State::Off);
                survey.label = Some(label(state).to_owned());
            }
            let available = |wanted: &Wanted| match wanted.revision == revision() {
                true => Available::Here { how: "it is there".to_owned() },
                false => Available::Missing { why: "a switch has no revisions".to_owned() },
            };
            survey.available = wanted.iter().map(|wanted| (wanted.clone(), available(wanted))).collect();
            survey
        })
    }

    fn propose(&self, wish: &Wish, _: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        match &wish.want {
            Want::Revision { revision: wanted, .. } if *wanted == revision() => Ok(vec![]),
            Want::Values(values) if values.is_empty() => Ok(vec![]),
            _ => {
                Err(CannotPlan { place: wish.place.clone(), why: "a switch has no revisions and no values".to_owned() })
            }
        }
    }

    fn show(&self, place: &Place, action: &Action) -> Shown {
        let request = match action {
            Action::Pause => Some(&self.on),
            Action::Resume => Some(&self.off),
            _ => None,
        };
        let words = match action {
            Action::Pause => format!("traffic off at {place}"),
            Action::Resume => format!("traffic on at {place}"),
            _ => format!("nothing that a switch can do at {place}"),
        };
        let shown =
            |request: &Request| vec![request.method.to_string(), self.caller.redactor().clean(request.url.as_str())];
        Shown { words, commands: request.map(shown).into_iter().collect() }
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, _: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            match Self::wanted(&step.action) {
                Some(wanted) => self.look(wanted, cx.limit).await,
                None => Holds::CannotTell { why: "a switch has no such step".to_owned() }.into(),
            }
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, _: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move {
            match Self::wanted(&step.action) {
                Some(wanted) => self.switch(cx, wanted).await,
                None => Outcome::Failed(Failure::never("a switch has no such step")),
            }
        })
    }
}

fn label(state: State) -> &'static str {
    match state {
        State::On => "on: users are turned away",
        State::Off => "off: users get in",
    }
}
