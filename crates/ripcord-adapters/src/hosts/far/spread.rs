//! A component or a signal on hosts, as the engine knows it: what needs no look at the world is answered here, by the same kind
//! built from the same settings; everything else where the place is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    Action, Before, CannotPlan, Capabilities, CaptureId, CaptureRef, Component, ComponentId, Cx, Draft, Failure, Fut,
    Holds, HostId, Inventory, KindVersion, Made, Observation, Outcome, Place, Reading, Retry, Seen, Shown, Signal,
    SignalId, Step, Survey, TargetId, Unit, Wanted, Wish,
};
use serde_json::Value;

use super::link::{Link, Links, Lost, Session};
use super::words::ToAgent;
use crate::{BuildCx, BuildError, ComponentSettings, Record, SignalSettings, build_component, build_signal};

/// How long a look is worth waiting for a connection: whoever looks wants to know that it cannot be had, too.
const GLANCE: Duration = Duration::from_secs(5);

fn no_host(name: &str, host: &HostId) -> BuildError {
    BuildError::new(name, format!("there is no host `{host}`"))
}

/// The component `id` with a place on each of `hosts`.
/// # Errors
/// As those of building it here.
pub fn spread(
    id: &ComponentId,
    settings: &ComponentSettings,
    hosts: &[HostId],
    links: &Links,
    cx: &BuildCx,
) -> Result<Arc<dyn Component>, BuildError> {
    let mut on = BTreeMap::new();
    for host in hosts {
        let link = links.get(host).ok_or_else(|| no_host(id.as_str(), host))?;
        let base = match settings {
            // What it can do is asked of the program itself, and here.
            ComponentSettings::Driver(_) => cx.base.clone(),
            _ => link.directory().to_owned(),
        };
        let face = build_component(id, settings, &BuildCx { base, ..cx.clone() })?;
        on.insert(host.clone(), On { link: Arc::clone(link), face });
    }
    let first = on.values().next().map(|on| Arc::clone(&on.face));
    let first = first.ok_or_else(|| BuildError::new(id, "it is on no host"))?;
    Ok(Arc::new(Spread { id: id.clone(), on, first, record: Arc::clone(&cx.captures) }))
}

/// The signal `id`, read on `host`.
/// # Errors
/// As those of building it here.
pub fn signal_on(
    id: &SignalId,
    settings: &SignalSettings,
    host: &HostId,
    links: &Links,
    cx: &BuildCx,
) -> Result<Arc<dyn Signal>, BuildError> {
    let link = links.get(host).ok_or_else(|| no_host(id.as_str(), host))?;
    let face = build_signal(id, settings, &BuildCx { base: link.directory().to_owned(), ..cx.clone() })?;
    Ok(Arc::new(Distant { id: id.clone(), host: host.clone(), link: Arc::clone(link), face }))
}

struct Spread {
    id: ComponentId,
    on: BTreeMap<HostId, On>,
    first: Arc<dyn Component>,
    record: Record,
}

struct On {
    link: Arc<Link>,
    /// The kind as it is built here: for what it can do, and what it would propose and show.
    face: Arc<dyn Component>,
}

impl Spread {
    fn on(&self, host: Option<&HostId>) -> Result<&On, String> {
        let named = host.and_then(|host| self.on.get(host));
        named.ok_or_else(|| match host {
            Some(host) => format!("`{}` is not on `{host}` any more", self.id),
            None => format!("`{}` is on hosts, and none is named", self.id),
        })
    }

    fn of_step(&self, step: &Step) -> Result<&On, String> {
        self.on(step.place.as_ref().and_then(|place| place.host.as_ref()))
    }

    /// What the record has of captures; the agent has no record.
    fn made(&self, captures: BTreeSet<CaptureId>) -> Vec<(CaptureId, Option<Made>)> {
        let of = |id: CaptureId| {
            let made = (self.record)(&id);
            (id, made)
        };
        captures.into_iter().map(of).collect()
    }
}

/// Every capture that a step may need.
fn mentioned(step: &Step, before: Option<&Before>) -> BTreeSet<CaptureId> {
    let known = |from: &CaptureRef| match from {
        CaptureRef::Known(id) => Some(id.clone()),
        CaptureRef::MadeBy(_) => None,
    };
    let mut found = BTreeSet::new();
    match &step.action {
        Action::Prove { capture, .. } => found.extend(capture.clone()),
        Action::Stage { from, .. } | Action::Restore { from, .. } => found.extend(from.as_ref().and_then(known)),
        Action::Own { with, .. } => named_in(with, &mut found),
        _ => {}
    }
    let protecting = step.protected_by.as_ref().and_then(known);
    let made = before.into_iter().flat_map(|before| before.captures.values().cloned());
    found.into_iter().chain(protecting).chain(made).collect()
}

/// The captures that an adapter's own step names, wherever in its words.
fn named_in(with: &Value, found: &mut BTreeSet<CaptureId>) {
    match with {
        Value::String(text) => {
            let number = text.strip_prefix("cap-").filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            found.extend(number.map(|_| CaptureId::typed(text)));
        }
        Value::Array(items) => items.iter().for_each(|item| named_in(item, found)),
        Value::Object(fields) => fields.values().for_each(|value| named_in(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A file is a machine's own: without its name two machines that are set up alike would be taken for one.
fn of_machine(mut survey: Survey, session: &Session) -> Survey {
    if let Some(file) = survey.target.0.strip_prefix("file:") {
        survey.target = TargetId(format!("file@{}:{file}", session.machine()));
    }
    survey
}

fn unreachable(cx: &Cx, place: &Place, why: String) -> Survey {
    // Nothing is known of what it is, so the name it is locked by must meet no other's.
    let target = TargetId(format!("unknown:{}/{}/{place}", cx.app.application, cx.app.environment));
    Survey::new(place.clone(), Seen::Unreachable { why }, target)
}

fn late(cx: &Cx) -> String {
    format!("no answer within {}", ripcord_core::human(cx.limit))
}

impl Component for Spread {
    fn kind(&self) -> KindVersion {
        self.first.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.first.capabilities()
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            let on = match self.on(place.host.as_ref()) {
                Ok(on) => on,
                Err(why) => return unreachable(cx, place, why),
            };
            let captures = self.made(wanted.iter().filter_map(|wanted| wanted.capture.clone()).collect());
            let ask = |captures| ToAgent::Survey {
                component: self.id.clone(),
                cx: cx.clone(),
                place: place.clone(),
                wanted: wanted.to_vec(),
                captures,
            };
            let surveyed = on.link.call::<Survey>(GLANCE.min(cx.limit / 2), captures, ask);
            match tokio::time::timeout(cx.limit, surveyed).await {
                Ok(Ok((survey, session))) if survey.place == *place => of_machine(survey, &session),
                Ok(Ok(_)) => unreachable(cx, place, "the agent looked at another place".to_owned()),
                Ok(Err(lost)) => unreachable(cx, place, lost.why()),
                Err(_) => unreachable(cx, place, late(cx)),
            }
        })
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let on = self.on(wish.place.host.as_ref());
        on.map_err(|why| CannotPlan { place: wish.place.clone(), why })?.face.propose(wish, seen)
    }

    fn show(&self, place: &Place, action: &Action) -> Shown {
        self.on(place.host.as_ref()).map_or(&self.first, |on| &on.face).show(place, action)
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let on = match self.of_step(step) {
                Ok(on) => on,
                Err(why) => return Holds::CannotTell { why }.into(),
            };
            let ask = |captures| ToAgent::Holds {
                component: self.id.clone(),
                cx: cx.clone(),
                step: Box::new(step.clone()),
                before: before.cloned(),
                captures,
            };
            let captures = self.made(mentioned(step, before));
            match tokio::time::timeout(cx.limit, on.link.call(cx.limit / 2, captures, ask)).await {
                Ok(Ok((observation, _))) => observation,
                Ok(Err(lost)) => Holds::CannotTell { why: lost.why() }.into(),
                Err(_) => Holds::CannotTell { why: late(cx) }.into(),
            }
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move {
            let on = match self.of_step(step) {
                Ok(on) => on,
                Err(why) => return Outcome::Failed(Failure::never(why)),
            };
            let ask = |captures| ToAgent::Apply {
                component: self.id.clone(),
                cx: cx.clone(),
                step: Box::new(step.clone()),
                before: before.clone(),
                captures,
            };
            let captures = self.made(mentioned(step, Some(before)));
            match on.link.call(cx.limit / 2, captures, ask).await {
                Ok((outcome, session)) => {
                    session.heard(before.key.clone(), before.at).await;
                    outcome
                }
                Err(lost) => ended(lost),
            }
        })
    }

    fn tidy<'a>(&'a self, cx: &'a Cx, place: &'a Place, before: Timestamp) -> Fut<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            let on = self.on(place.host.as_ref()).map_err(Failure::never)?;
            let ask = |_| ToAgent::Tidy { component: self.id.clone(), cx: cx.clone(), place: place.clone(), before };
            match on.link.call::<Result<Vec<String>, Failure>>(GLANCE.min(cx.limit / 2), vec![], ask).await {
                Ok((tidied, _)) => tidied,
                Err(lost) => Err(Failure::later(lost.why())),
            }
        })
    }
}

fn ended(lost: Lost) -> Outcome {
    match lost {
        // One that failed inside may have acted before it did.
        Lost::Midway(why) | Lost::Refused(why) => Outcome::Unknown { why },
        Lost::NotBegun(error) => {
            let retry = if error.lasting { Retry::Never } else { Retry::Later };
            Outcome::Failed(Failure { what: error.what, retry, advice: error.advice, output: None })
        }
    }
}

struct Distant {
    id: SignalId,
    host: HostId,
    link: Arc<Link>,
    face: Arc<dyn Signal>,
}

impl Signal for Distant {
    fn unit(&self) -> Unit {
        self.face.unit()
    }

    fn fields(&self) -> &'static [&'static str] {
        self.face.fields()
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move {
            let ask = |_| ToAgent::Read { signal: self.id.clone(), cx: cx.clone() };
            let read = self.link.call(GLANCE.min(cx.limit / 2), vec![], ask);
            match tokio::time::timeout(cx.limit, read).await {
                Ok(Ok((reading, _))) => reading,
                // A host that does not answer says nothing about what is measured there: the observer failed.
                Ok(Err(lost)) => Reading::Failed { why: lost.why() },
                Err(_) => Reading::Failed { why: late(cx) },
            }
        })
    }

    fn query(&self) -> String {
        format!("on {}: {}", self.host, self.face.query())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_adapters_own_step_names_goes_with_it() {
        let with = serde_json::json!({"files": "cap-12", "towards": ["cap-7"], "to": "cap-x", "n": 1, "no": "a cap-3"});
        let mut found = BTreeSet::new();
        named_in(&with, &mut found);
        assert_eq!(found.into_iter().map(|id| id.to_string()).collect::<Vec<_>>(), ["cap-12", "cap-7"]);
    }
}
