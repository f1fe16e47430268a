//! The other end: builds the components and signals of the configuration on this machine, and calls them as it is told.
//!
//! It has no record, no vault and no secrets: what a call needs comes with it or is asked for. It never outlives its calls: when
//! the connection ends it takes no new ones, lets those that act go on within their limits, leaves their outcomes (see `calls`),
//! and ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_config::Loaded;
use ripcord_core::{
    Action, Before, Component, ComponentId, Cx, Digest, Failure, Fut, Holds, HostId, Key, Made, Observation, Outcome,
    Redactor, Signal, SignalId, Step,
};
use ripcord_vault::Access;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::calls::{Calls, Kept};
use super::pair::{Answers, Peer, Said, start};
use super::vault::{Distant, Offers};
use super::words::{Hello, Known, Mentioned, ToAgent, ToController, Welcome, greeting, pack};
use crate::{Adapters, BuildCx, build_component, build_signal, secrets};

/// How long a controller may say nothing before it counts as gone: it says that it is there every [`PULSE`](super::words::PULSE).
///
/// What ends on its side is not always heard of here: where no packet arrives any more, or its machine lost power, the server of this
/// login would hold on for hours.
const SILENCE: Duration = Duration::from_secs(45);

/// Serves the controller at the other end of these streams; returns when it is gone and every call that acts has ended.
///
/// From the first call on, this process has secrets of its own no more: it asks for all of them.
pub async fn serve(
    read: impl AsyncRead + Send + Unpin + 'static,
    mut write: impl AsyncWrite + Send + Unpin + 'static,
) -> std::io::Result<()> {
    leave_the_session();
    write.write_all(format!("{}\n", greeting()).as_bytes()).await?;
    write.flush().await?;
    let agent = Arc::new(Agent { site: OnceLock::new(), offers: Arc::default() });
    let (_peer, serving) = start(read, write, agent, SILENCE);
    // It ends with the connection; a panic inside is one call's, and was its answer.
    let _ = serving.await;
    Ok(())
}

/// What ends the session of a login must not end the calls it began.
fn leave_the_session() {
    // Fails where this process already leads a session, as one that `sshd` started does: then there is nothing to leave.
    let _ = rustix::process::setsid();
    // Handled, not ignored: what is ignored stays so in every command that is started.
    if let Ok(mut hangup) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        tokio::spawn(async move { while hangup.recv().await.is_some() {} });
    }
}

struct Agent {
    site: OnceLock<Site>,
    offers: Arc<Offers>,
}

/// What there is once the controller has said who we are.
struct Site {
    host: HostId,
    loaded: Loaded<Adapters>,
    cx: BuildCx,
    known: Arc<RwLock<BTreeMap<ripcord_core::CaptureId, Made>>>,
    calls: Calls,
    components: Mutex<BTreeMap<ComponentId, Arc<dyn Component>>>,
    signals: Mutex<BTreeMap<SignalId, Arc<dyn Signal>>>,
}

impl Answers for Agent {
    fn answer(self: Arc<Self>, peer: Peer, (body, _): Said) -> Fut<'static, Result<Said, String>> {
        Box::pin(async move {
            let ask: ToAgent =
                serde_json::from_value(body).map_err(|error| format!("it was not understood: {error}"))?;
            match ask {
                ToAgent::Hello(hello) => value(&self.hello(peer, *hello).await?),
                ToAgent::Here => value(&()),
                ToAgent::Give { offer, numbers } => {
                    let offer = self.offers.find(offer)?;
                    let given = tokio::task::spawn_blocking(move || offer.give(&numbers)).await;
                    match given.map_err(|error| error.to_string())? {
                        Ok(pieces) => {
                            let (marks, bytes) = pack(pieces);
                            Ok((value(&Ok::<_, ()>(marks))?.0, bytes))
                        }
                        Err(error) => value(&Err::<(), _>(error.tell())),
                    }
                }
                ToAgent::Settled { offer } => {
                    let offer = self.offers.find(offer)?;
                    let settled = tokio::task::spawn_blocking(move || offer.settled()).await;
                    value(&settled.map_err(|error| error.to_string())?.map_err(|error| error.tell()))
                }
                other => self.site.get().ok_or("nobody said who this is to be")?.answer(other).await,
            }
        })
    }

    /// What acts goes on. What only looks is of use to nobody, and what captures has nowhere to go.
    fn outlives(&self, body: &Value) -> bool {
        let Some(action) = body.get("apply").map(|apply| &apply["step"]["action"]) else { return false };
        action.get("capture").is_none() && action.get("prove").is_none()
    }
}

fn value(answer: &impl Serialize) -> Result<Said, String> {
    Ok((serde_json::to_value(answer).map_err(|error| error.to_string())?, vec![]))
}

impl Agent {
    async fn hello(&self, peer: Peer, hello: Hello) -> Result<Welcome, String> {
        if !hello.directory.is_dir() {
            return Err(format!(
                "`{}` is no directory on `{}`: make it, or name another",
                hello.directory.display(),
                hello.host
            ));
        }
        let environment = hello.app.environment.as_str();
        let text = hello.config.as_bytes();
        let loaded =
            ripcord_config::load_bytes::<Adapters>(&hello.config_name, text, &hello.directory, Some(environment));
        let loaded = loaded.map_err(|report| format!("the configuration was not understood here:\n{report}"))?;
        let calls = Calls::open(&hello.app);
        let calls = calls.map_err(|error| format!("nothing can be kept of calls on `{}`: {error}", hello.host))?;
        let known: Arc<RwLock<BTreeMap<_, Made>>> = Arc::default();
        let record = Arc::clone(&known);
        let cx = BuildCx {
            base: hello.directory,
            redactor: Redactor::default(),
            vault: Some(Access::Far(Arc::new(Distant::new(peer.clone(), Arc::clone(&self.offers))))),
            captures: Arc::new(move |id| record.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()),
            revision_key: key(&hello.revision_key).ok_or("the key of revisions is none")?,
            keep_aside: loaded.application.policy.keep_aside,
            terminal: Arc::new(|_| Ok(())),
        };
        secrets::ask_elsewhere(Arc::new(move |from| {
            let peer = peer.clone();
            Box::pin(async move {
                let answer = peer.call::<String>(&ToController::Secret { from }, &[]).await;
                answer.map(|(secret, _)| secret).map_err(|cut| cut.to_string())
            })
        }));
        let site = Site {
            host: hello.host,
            loaded,
            cx,
            known,
            calls,
            components: Mutex::default(),
            signals: Mutex::default(),
        };
        self.site.set(site).map_err(|_| "it was said before who this is")?;
        Ok(Welcome { pid: std::process::id(), machine: machine(), now: Timestamp::now() })
    }
}

fn key(hex: &str) -> Option<[u8; 32]> {
    let digits = hex.as_bytes();
    let mut key = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

/// A name for this machine and no other. The number itself is not given away.
/// Source: machine-id(5), which asks for this.
fn machine() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").ok().filter(|id| !id.trim().is_empty());
    let id = id.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    Digest::of(format!("ripcord machine {}", id.trim()).as_bytes()).short()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Site {
    async fn answer(&self, ask: ToAgent) -> Result<Said, String> {
        match ask {
            ToAgent::Survey { component, cx, place, wanted, captures } => {
                self.learn(captures);
                value(&self.component(&component).await?.survey(&cx, &place, &wanted).await)
            }
            ToAgent::Holds { component, cx, step, before, captures } => {
                self.learn(captures);
                value(&self.holds(&*self.component(&component).await?, &cx, &step, before.as_ref()).await)
            }
            ToAgent::Apply { component, cx, step, before, captures } => {
                self.learn(captures);
                value(&match self.component(&component).await {
                    Ok(component) => self.apply(&*component, &cx, &step, &before).await,
                    Err(why) => Outcome::Failed(Failure::never(self.on_host(&why))),
                })
            }
            ToAgent::Heard { key, at } => {
                self.calls.forget(&key, at);
                value(&())
            }
            ToAgent::Tidy { component, cx, place, before } => {
                value(&self.component(&component).await?.tidy(&cx, &place, before).await)
            }
            ToAgent::Read { signal, cx } => value(&self.signal(&signal)?.read(&cx).await),
            ToAgent::Hello(_) | ToAgent::Here | ToAgent::Give { .. } | ToAgent::Settled { .. } => {
                Err("it is not for the site to answer".to_owned())
            }
        }
    }

    fn learn(&self, captures: Mentioned) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for (id, what) in captures {
            match what {
                Known::AsBefore => {}
                Known::Made(made) => _ = known.insert(id, *made),
                Known::Nothing => _ = known.remove(&id),
            }
        }
    }

    async fn component(&self, id: &ComponentId) -> Result<Arc<dyn Component>, String> {
        if let Some(built) = locked(&self.components).get(id) {
            return Ok(Arc::clone(built));
        }
        let settings = self.loaded.components.get(id).ok_or_else(|| format!("there is no component `{id}`"))?.clone();
        let (of, cx) = (id.clone(), self.cx.clone());
        // Building may run a program and wait for it.
        let built = tokio::task::spawn_blocking(move || build_component(&of, &settings, &cx)).await;
        let built = built.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        Ok(Arc::clone(locked(&self.components).entry(id.clone()).or_insert(built)))
    }

    /// Kept from reading to reading: some remember what they saw last.
    fn signal(&self, id: &SignalId) -> Result<Arc<dyn Signal>, String> {
        let mut signals = locked(&self.signals);
        if let Some(built) = signals.get(id) {
            return Ok(Arc::clone(built));
        }
        let settings = self.loaded.signals.get(id).ok_or_else(|| format!("there is no signal `{id}`"))?;
        let built = build_signal(id, settings, &self.cx).map_err(|error| error.to_string())?;
        signals.insert(id.clone(), Arc::clone(&built));
        Ok(built)
    }

    fn on_host(&self, why: &impl std::fmt::Display) -> String {
        format!("on `{}`: {why}", self.host)
    }

    async fn holds(&self, component: &dyn Component, cx: &Cx, step: &Step, before: Option<&Before>) -> Observation {
        let key = before.map(|before| before.key.clone());
        let key = key.or_else(|| cx.run.as_ref().map(|run| Key::of(&cx.app, run, &step.id)));
        if let Some(key) = key {
            // What an earlier agent still does to this place would be seen half done.
            match self.calls.lock(&key, cx.limit).await {
                Ok(lock) => drop(lock),
                Err(kept) => return Holds::CannotTell { why: self.on_host(&kept) }.into(),
            }
        }
        component.holds(cx, step, before).await
    }

    async fn apply(&self, component: &dyn Component, cx: &Cx, step: &Step, before: &Before) -> Outcome {
        if matches!(step.action, Action::Prove { .. }) {
            return component.apply(cx, step, before).await;
        }
        let _lock = match self.calls.lock(&before.key, cx.limit).await {
            Ok(lock) => lock,
            Err(kept @ Kept::Busy { .. }) => return Outcome::Unknown { why: self.on_host(&kept) },
            Err(kept @ Kept::Io { .. }) => {
                let advice = "see that there is room in `~/.local/state` there, and that this user may write in it";
                return Outcome::Failed(Failure::later(self.on_host(&kept)).advise(advice));
            }
        };
        if let Some(outcome) = self.calls.outcome(&before.key, before.at) {
            return outcome;
        }
        // Here, since whoever asked may be gone before the limit is.
        let late = || Outcome::Unknown { why: format!("no answer within {}", ripcord_core::human(cx.limit)) };
        let outcome =
            tokio::time::timeout(cx.limit, component.apply(cx, step, before)).await.unwrap_or_else(|_| late());
        if let Err(error) = self.calls.leave(&before.key, before.at, &outcome) {
            tracing::warn!(%error, "the outcome of a call cannot be left for who did not hear it");
        }
        outcome
    }
}
