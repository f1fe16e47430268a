//! A connection to a host: one for all that is there, opened when it is first needed and made again when it broke.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_config::HostSettings;
use ripcord_core::{AppId, CaptureId, ComponentId, Digest, HostId, Key, Made, Redactor, SecretRef};
use ripcord_vault::Vault;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::desk::Desk;
use super::pair::{Cut, Peer, start};
use super::words::{Hello, Known, Mentioned, PULSE, ToAgent, Welcome};
use crate::hosts::ssh::{Dialled, Leading, LinkError, Program, Said, Ssh, Transport};

/// The first pause between two tries; doubled each time up to [`SLOWEST`].
const FIRST: Duration = Duration::from_millis(100);
const SLOWEST: Duration = Duration::from_secs(2);
/// How long an agent may take to build what it needs of the configuration.
const HELLO: Duration = Duration::from_secs(30);
/// How long an agent may take to forget an outcome.
const FORGET: Duration = Duration::from_secs(1);

/// What all links of an application have in common.
#[derive(Clone)]
pub struct Home {
    pub app: AppId,
    /// The configuration as it was loaded here, and what it is called in messages.
    pub config: String,
    pub config_name: String,
    /// Its directory: secrets and files to be sent are found from there.
    pub base: PathBuf,
    pub redactor: Redactor,
    /// Where what is on hosts is captured; it and its key stay here.
    pub vault: Option<Vault>,
    pub revision_key: [u8; 32],
}

/// Every host of an application.
pub type Links = BTreeMap<HostId, Arc<Link>>;

/// The way to one host.
pub struct Link {
    id: HostId,
    directory: PathBuf,
    secrets: BTreeSet<SecretRef>,
    components: BTreeSet<ComponentId>,
    transport: Transport,
    home: Home,
    calls: Semaphore,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    /// How the last try failed, and when.
    failed: Option<(Instant, LinkError)>,
}

/// One connection, from its login to its end.
pub(super) struct Session {
    peer: Peer,
    desk: Arc<Desk>,
    said: Said,
    /// Captures that the agent was told of.
    told: Mutex<BTreeMap<CaptureId, Digest>>,
    welcome: Welcome,
    login: Duration,
    ahead_ms: i64,
    _leading: Leading,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.peer.close();
    }
}

/// What was found of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The agent's process there.
    pub pid: u32,
    /// How long it took from nothing until the agent was ready.
    pub login: Duration,
    /// By how much its clock is ahead of ours, in milliseconds; the way there and back is half of what is uncertain.
    pub ahead_ms: i64,
}

/// Why a call has no answer.
#[derive(Debug, Clone)]
pub(super) enum Lost {
    /// It never began.
    NotBegun(LinkError),
    /// It may go on there.
    Midway(String),
    /// The agent cannot do it.
    Refused(String),
}

impl Lost {
    pub(super) fn why(&self) -> String {
        match self {
            Self::NotBegun(error) => match &error.advice {
                Some(advice) => format!("{error}: {advice}"),
                None => error.to_string(),
            },
            Self::Midway(why) | Self::Refused(why) => why.clone(),
        }
    }
}

impl Link {
    /// Nothing is connected yet.
    pub fn new(id: &HostId, settings: &HostSettings, home: &Home) -> Arc<Self> {
        let program = match (&settings.installed, &settings.agent) {
            (Some(path), _) => Program::Installed(path.clone()),
            (None, Some(path)) => Program::File(home.base.join(path)),
            (None, None) => Program::This,
        };
        let ssh = &settings.ssh;
        let config = ssh.config.as_ref().map(|path| home.base.join(path));
        let (to, options) = (ssh.to.clone(), ssh.options.clone());
        let transport = Transport::Ssh(Ssh { to, port: ssh.port, config, options, program });
        Self::through(transport, id, settings, home)
    }

    /// As [`Link::new`], by another way than the settings name.
    pub fn through(transport: Transport, id: &HostId, settings: &HostSettings, home: &Home) -> Arc<Self> {
        Arc::new(Self {
            id: id.clone(),
            directory: settings.directory.clone(),
            secrets: settings.secrets.clone(),
            components: settings.components.clone(),
            transport,
            home: home.clone(),
            calls: Semaphore::new(usize::try_from(settings.calls).unwrap_or(1).max(1)),
            state: tokio::sync::Mutex::default(),
        })
    }

    /// The directory on the host that settings are relative to.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// Connects if there is no connection, and says what was found. Tries once.
    /// # Errors
    /// Why not, and what to do about it.
    pub async fn reach(self: &Arc<Self>) -> Result<Reached, LinkError> {
        let session = self.session(Duration::ZERO).await?;
        Ok(Reached { pid: session.welcome.pid, login: session.login, ahead_ms: session.ahead_ms })
    }

    /// A connection, made now if there is none; tried again, after pauses, for as long as `patience` lasts.
    pub(super) async fn session(self: &Arc<Self>, patience: Duration) -> Result<Arc<Session>, LinkError> {
        let deadline = Instant::now() + patience;
        let mut pause = FIRST;
        loop {
            // In a task of its own: a caller that gives up leaves a connection half made to those who come after it.
            let tried = tokio::spawn(Arc::clone(self).try_once(Instant::now())).await;
            let error = match tried {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => error,
                Err(error) => LinkError::passing(format!("connecting to `{}` failed inside Ripcord: {error}", self.id)),
            };
            if error.lasting || Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(SLOWEST);
        }
    }

    async fn try_once(self: Arc<Self>, asked: Instant) -> Result<Arc<Session>, LinkError> {
        let mut state = self.state.lock().await;
        if let Some(session) = state.session.as_ref().filter(|session| !session.peer.is_closed()) {
            return Ok(Arc::clone(session));
        }
        state.session = None;
        // Whoever waited while another tried learns what that one learnt.
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(session) => {
                let session = Arc::new(session);
                state.session = Some(Arc::clone(&session));
                Ok(session)
            }
            Err(error) => {
                tracing::info!(host = %self.id, error = %error.what, "a host cannot be reached");
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Session, LinkError> {
        let began = Instant::now();
        let home = &self.home;
        let Dialled { leading, read, write, said } = self.transport.dial(&self.id, &home.redactor).await?;
        let desk = Arc::new(Desk {
            host: self.id.clone(),
            app: home.app.clone(),
            base: home.base.clone(),
            redactor: home.redactor.clone(),
            vault: home.vault.clone(),
            secrets: self.secrets.clone(),
            components: self.components.clone(),
            handed: Mutex::default(),
            readings: super::desk::Readings::default(),
        });
        // That a host is silent is noticed by `ssh`.
        let (peer, _) = start(read, write, Arc::clone(&desk) as _, Duration::MAX);
        let hello = Hello {
            app: home.app.clone(),
            host: self.id.clone(),
            config: home.config.clone(),
            config_name: home.config_name.clone(),
            directory: self.directory.clone(),
            revision_key: home.revision_key.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let before = Timestamp::now();
        let welcomed = timeout(HELLO, peer.call::<Welcome>(&ToAgent::Hello(Box::new(hello)), &[])).await;
        let after = Timestamp::now();
        let (welcome, _) = match welcomed {
            Ok(Ok(welcome)) => welcome,
            Ok(Err(Cut::Refused(why))) => {
                return Err(LinkError::lasting(why, format!("see to it on `{}`, then try again", self.id)));
            }
            Ok(Err(cut)) => return Err(LinkError::passing(self.broke(&cut, &said))),
            Err(_) => return Err(LinkError::passing(format!("the agent on `{}` does not answer", self.id))),
        };
        let middle = (before.as_millisecond() + after.as_millisecond()) / 2;
        let ahead_ms = welcome.now.as_millisecond() - middle;
        let login = began.elapsed();
        tracing::info!(host = %self.id, pid = welcome.pid, login_ms = login.as_millis(), ahead_ms, "connected");
        tokio::spawn(be_there(peer.clone()));
        Ok(Session { peer, desk, said, told: Mutex::default(), welcome, login, ahead_ms, _leading: leading })
    }

    fn broke(&self, cut: &Cut, said: &Said) -> String {
        match said.last() {
            Some(last) => format!("`{}`: {cut}: {last}", self.id),
            None => format!("`{}`: {cut}", self.id),
        }
    }

    /// Calls the agent. `ask` is given what the agent is to be told of the captures that the call mentions.
    pub(super) async fn call<A: DeserializeOwned>(
        self: &Arc<Self>,
        patience: Duration,
        captures: Vec<(CaptureId, Option<Made>)>,
        ask: impl FnOnce(Mentioned) -> ToAgent,
    ) -> Result<(A, Arc<Session>), Lost> {
        let session = self.session(patience).await.map_err(Lost::NotBegun)?;
        let busy = || Lost::NotBegun(LinkError::passing(format!("`{}` takes no calls any more", self.id)));
        let _permit = self.calls.acquire().await.map_err(|_| busy())?;
        let mentioned = session.mention(&captures);
        match session.peer.call::<A>(&ask(mentioned), &[]).await {
            Ok((answer, _)) => {
                session.has_told(&captures);
                Ok((answer, session))
            }
            Err(cut @ Cut::Before) => Err(Lost::NotBegun(LinkError::passing(self.broke(&cut, &session.said)))),
            Err(cut @ Cut::Midway) => {
                session.said.to_the_end().await;
                Err(Lost::Midway(self.broke(&cut, &session.said)))
            }
            Err(Cut::Refused(why)) => Err(Lost::Refused(format!("`{}`: {why}", self.id))),
        }
    }
}

/// Says that somebody is there until the conversation is over: an agent that hears nothing takes the controller for gone.
async fn be_there(peer: Peer) {
    loop {
        let said = async {
            sleep(PULSE).await;
            peer.tell(&ToAgent::Here).await;
        };
        tokio::select! {
            () = said => {}
            () = peer.closed() => return,
        }
    }
}

impl Session {
    /// Tells machines apart, whatever they are called.
    pub(super) fn machine(&self) -> &str {
        &self.welcome.machine
    }

    /// Has the agent forget an outcome, now that it was heard. One that stays there is gone after a week.
    pub(super) async fn heard(&self, key: Key, at: Timestamp) {
        // Waited for: whoever has its outcome may end at once, and would take the word back.
        let forgotten = timeout(FORGET, self.peer.call::<()>(&ToAgent::Heard { key, at }, &[])).await;
        if !matches!(forgotten, Ok(Ok(_))) {
            tracing::debug!("an outcome that was heard is still kept on its host");
        }
    }

    fn mention(&self, captures: &[(CaptureId, Option<Made>)]) -> Mentioned {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mention = |(id, made): &(CaptureId, Option<Made>)| {
            let known = match made {
                None => Known::Nothing,
                Some(made) if told.get(id) == Some(&made.content) => Known::AsBefore,
                Some(made) => {
                    self.desk.hand(made);
                    Known::Made(Box::new(made.clone()))
                }
            };
            (id.clone(), known)
        };
        captures.iter().map(mention).collect()
    }

    /// Only once it was answered: until then a call that overtakes must not count on it.
    fn has_told(&self, captures: &[(CaptureId, Option<Made>)]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, made) in captures {
            match made {
                Some(made) => _ = told.insert(id.clone(), made.content),
                None => _ = told.remove(id),
            }
        }
    }
}
