//! What the tests of this crate share: a directory with a vault, calls, steps, and servers on free ports.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use jiff::Timestamp;
use ripcord_adapters::{
    Adapters, BuildCx, ChannelSettings, ComponentSettings, SignalSettings, build_channel, build_component, build_signal,
};
use ripcord_config::Kinds;
use ripcord_core::{
    Action, AppId, Before, CaptureId, Channel, Component, ComponentId, Cx, Destroys, Inventory, Key, Limits, Made,
    Name, OnFailure, Outcome, Phase, Place, Proof, Reading, Redactor, Redo, Revision, RunId, Sample, Seq, Shown,
    Signal, Step, StepId, Survey, Wanted,
};
use ripcord_vault::{Vault, VaultKey};
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A directory, and everything kinds are built with.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub redactor: Redactor,
    /// The record of captures.
    pub captures: Arc<Mutex<BTreeMap<CaptureId, Made>>>,
    /// What was written to the terminal.
    pub screen: Arc<Mutex<String>>,
    /// Opened when it is first needed.
    vault: OnceLock<Vault>,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            dir,
            redactor: Redactor::default(),
            captures: Arc::default(),
            screen: Arc::default(),
            vault: OnceLock::new(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A file only its owner can read, with a secret in it; returns how settings name it.
    pub fn secret(&self, name: &str, value: &str) -> String {
        let path = self.write(name, value);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        format!("{{ file: {name} }}")
    }

    pub fn cx(&self, with: Option<Vault>) -> BuildCx {
        let (captures, screen) = (Arc::clone(&self.captures), Arc::clone(&self.screen));
        BuildCx {
            base: self.dir.path().to_owned(),
            redactor: self.redactor.clone(),
            vault: with.map(Into::into),
            captures: Arc::new(move |id| captures.lock().unwrap().get(id).cloned()),
            revision_key: [7; 32],
            keep_aside: Duration::from_secs(3600),
            terminal: Arc::new(move |text| {
                screen.lock().unwrap().push_str(text);
                Ok(())
            }),
        }
    }

    pub fn vault(&self) -> Vault {
        let open = || {
            let key = VaultKey::generate_file(&self.path("vault.key")).unwrap();
            Vault::open_or_create(&self.path("vault"), &key).unwrap()
        };
        self.vault.get_or_init(open).clone()
    }

    /// With the vault, where the test has opened it.
    pub fn component(&self, kind: &str, yaml: &str) -> Arc<dyn Component> {
        let cx = self.cx(self.vault.get().cloned());
        build_component(&"part".parse().unwrap(), &component(kind, yaml), &cx).unwrap()
    }

    pub fn signal(&self, kind: &str, yaml: &str) -> Arc<dyn Signal> {
        build_signal(&"figure".parse().unwrap(), &signal(kind, yaml), &self.cx(None)).unwrap()
    }

    pub fn channel(&self, kind: &str, yaml: &str) -> Arc<dyn Channel> {
        build_channel(&"desk".parse().unwrap(), &channel(kind, yaml), &self.cx(None)).unwrap()
    }

    /// Puts a capture on the record.
    pub fn record(&self, id: u64, made: Made) -> CaptureId {
        let id = CaptureId::at(Seq(id));
        self.captures.lock().unwrap().insert(id.clone(), made);
        id
    }
}

/// Reads settings as they stand in a file, under their kind's name, and refuses what configuration refuses.
macro_rules! reader {
    ($name:ident, $settings:ty, $read:ident, $check:ident) => {
        pub fn $name(kind: &str, yaml: &str) -> $settings {
            struct Under($settings);
            struct Kind;
            struct Of(String);
            impl<'de> DeserializeSeed<'de> for Of {
                type Value = $settings;
                fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<$settings, D::Error> {
                    Adapters::$read(&self.0, from)
                }
            }
            impl<'de> Visitor<'de> for Kind {
                type Value = Under;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a kind and its settings")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Under, A::Error> {
                    let kind = map.next_key::<String>()?.unwrap();
                    map.next_value_seed(Of(kind)).map(Under)
                }
            }
            impl<'de> Deserialize<'de> for Under {
                fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    from.deserialize_map(Kind)
                }
            }
            let indented: String = yaml.lines().map(|line| format!("  {line}\n")).collect();
            let read = serde_saphyr::from_str::<Under>(&format!("{kind}:\n{indented}"));
            let Under(settings) = read.unwrap_or_else(|error| panic!("{kind}: {error}\n{yaml}"));
            assert_eq!(Adapters::$check(&settings), [], "{kind}: {yaml}");
            settings
        }
    };
}

reader!(component, ComponentSettings, component, check_component);
reader!(signal, SignalSettings, signal, check_signal);
reader!(channel, ChannelSettings, channel, check_channel);

pub fn app() -> AppId {
    let name = |text: &str| Name::new(text).unwrap();
    AppId { application: name("shop"), environment: name("test") }
}

pub fn cx() -> Cx {
    cx_at(Timestamp::now(), Duration::from_secs(20))
}

pub fn cx_at(now: Timestamp, limit: Duration) -> Cx {
    Cx { app: app(), now, limit, run: Some(RunId::at(Seq(3))), version: Some("v1".to_owned()) }
}

pub fn place() -> Place {
    Place::local(ComponentId::new("part").unwrap())
}

pub fn step(name: &str, action: Action) -> Step {
    Step {
        id: StepId(format!("{name}/part")),
        phase: Phase::Restore,
        place: Some(place()),
        target: None,
        kind: None,
        needs: [].into(),
        action,
        destroys: Destroys::Nothing,
        protected_by: None,
        redo: Redo::Safe,
        limits: Limits::default(),
        on_failure: OnFailure::Park,
        shown: Shown::default(),
    }
}

pub fn before(step: &Step, mark: Option<String>) -> Before {
    let key = Key::of(&app(), &RunId::at(Seq(3)), &step.id);
    Before { at: Timestamp::now(), mark, key, captures: BTreeMap::new() }
}

/// A step as the engine does it: looked at, its mark taken, applied.
pub async fn apply(component: &dyn Component, step: &Step) -> Outcome {
    let cx = cx();
    let seen = component.holds(&cx, step, None).await;
    component.apply(&cx, step, &before(step, seen.mark)).await
}

pub fn proof(outcome: Outcome) -> Proof {
    match outcome {
        Outcome::Done(proof) => proof,
        other => panic!("not done: {other:?}"),
    }
}

pub async fn survey(component: &dyn Component, wanted: &[Wanted]) -> Survey {
    component.survey(&cx(), &place(), wanted).await
}

pub fn inventory(survey: Survey) -> Inventory {
    Inventory { at: Timestamp::now(), surveys: [(survey.place.clone(), survey)].into() }
}

pub fn wanted(revision: &str, capture: Option<&CaptureId>) -> Wanted {
    Wanted { revision: Revision::exact(revision), capture: capture.cloned() }
}

pub async fn read(signal: &dyn Signal) -> Reading {
    signal.read(&cx()).await
}

/// The one sample of a reading.
pub fn sample(reading: Reading) -> Sample {
    match reading {
        Reading::Samples(mut samples) if samples.len() == 1 => samples.remove(0),
        other => panic!("not one sample: {other:?}"),
    }
}

pub fn why(reading: Reading) -> String {
    match reading {
        Reading::Failed { why } => why,
        other => panic!("not failed: {other:?}"),
    }
}

/// A server on a free port, gone when dropped.
pub struct Server {
    pub url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(router: Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A URL that nothing listens at.
pub async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Waits until it is so; panics when that takes implausibly long.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} never came true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process runs (and is no zombie).
pub fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|text| !text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}
