//! The registry: every kind there is, and how settings become live objects.
//!
//! Adding a kind is one file that implements [`ComponentKind`], [`SignalKind`] or [`ChannelKind`] for its settings, and one line
//! in the table below.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ripcord_config::{KindDoc, Kinds, Mistake};
use ripcord_core::{
    CaptureId, Channel, ChannelId, Component, ComponentId, Made, Nature, Redactor, Signal, SignalId, Unit,
};
use serde::{Deserialize, Deserializer};

use crate::{channels, components, signals};

/// Where text for the person at the terminal goes: this crate never prints.
pub type Sink = Arc<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

/// The record's view of a capture; none where the record knows no such capture.
pub type Record = Arc<dyn Fn(&CaptureId) -> Option<Made> + Send + Sync>;

/// What kinds are built with.
#[derive(Clone)]
pub struct BuildCx {
    /// The directory of `ripcord.yaml`: paths in settings are relative to it.
    pub base: PathBuf,
    /// Learns every secret as it is resolved.
    pub redactor: Redactor,
    /// None where nothing is captured or restored (`check`).
    pub vault: Option<ripcord_vault::Access>,
    pub captures: Record,
    /// For revisions of files that may hold secrets: without the key nobody can test a guess against the record.
    pub revision_key: [u8; 32],
    /// How long what is set aside is kept.
    pub keep_aside: Duration,
    pub terminal: Sink,
}

/// Why settings could not become a live object.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` cannot be used: {why}")]
pub struct BuildError {
    pub name: String,
    pub why: String,
}

impl BuildError {
    pub fn new(name: impl ToString, why: impl ToString) -> Self {
        Self { name: name.to_string(), why: why.to_string() }
    }
}

/// The settings of one kind of component, and all the registry needs of it.
pub trait ComponentKind {
    const DOC: KindDoc;
    /// Mistakes that a type cannot exclude.
    fn check(&self) -> Vec<Mistake> {
        vec![]
    }
    fn nature(&self) -> Nature {
        Nature::Versioned
    }
    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError>;
}

/// The settings of one kind of signal.
pub trait SignalKind {
    const DOC: KindDoc;
    fn check(&self) -> Vec<Mistake> {
        vec![]
    }
    fn unit(&self) -> Unit;
    fn fields(&self) -> &'static [&'static str];
    fn build(&self, id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError>;
}

/// The settings of one kind of channel.
pub trait ChannelKind {
    const DOC: KindDoc;
    fn check(&self) -> Vec<Mistake> {
        vec![]
    }
    fn build(&self, id: &ChannelId, cx: &BuildCx) -> Result<Arc<dyn Channel>, BuildError>;
}

/// All kinds of this crate.
pub struct Adapters;

/// One enum of settings per sort, one variant per kind, and a function that dispatches over them.
macro_rules! table {
    ($trait:ident, $settings:ident, $docs:ident, $read:ident, $each:ident, { $($variant:ident = $module:path;)* }) => {
        #[derive(Debug, Clone)]
        pub enum $settings {
            $($variant($module),)*
        }

        static $docs: &[KindDoc] = &[$(<$module as $trait>::DOC),*];

        fn $read<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Result<$settings, D::Error> {
            $(if kind == <$module as $trait>::DOC.name {
                return <$module>::deserialize(from).map($settings::$variant);
            })*
            let known = $docs.iter().map(|doc| doc.name).collect::<Vec<_>>().join("`, `");
            Err(serde::de::Error::custom(format!("there is no kind `{kind}`\nthe kinds are `{known}`")))
        }

        macro_rules! $each {
            ($value:expr, $one:ident => $do:expr) => {
                match $value {
                    $($settings::$variant($one) => $do,)*
                }
            };
        }
    };
}

table!(ComponentKind, ComponentSettings, COMPONENTS, read_component, each_component, {
    Command = components::command::Settings;
    Compose = components::compose::Settings;
    Directory = components::directory::Settings;
    Driver = components::driver::Settings;
    EnvFile = components::env_file::Settings;
    Etcd = components::etcd::Settings;
    Git = components::git::Settings;
    HttpFlags = components::http_flags::Settings;
    HttpSwitch = components::http_switch::Settings;
    JsonFile = components::json_file::Settings;
    Migrations = components::migrations::Settings;
    Npm = components::npm::Settings;
    Pip = components::pip::Settings;
    Pm2 = components::pm2::Settings;
    Postgres = components::postgres::Settings;
    Redis = components::redis::Settings;
    Sqlite = components::sqlite::Settings;
    Systemd = components::systemd::Settings;
});

table!(SignalKind, SignalSettings, SIGNALS, read_signal, each_signal, {
    Command = signals::command::Settings;
    Container = signals::container::Settings;
    Etcd = signals::etcd::Settings;
    Host = signals::host::Settings;
    Http = signals::http::Settings;
    Journal = signals::journal::Settings;
    Log = signals::log::Settings;
    Pm2 = signals::pm2::Settings;
    Postgres = signals::postgres::Settings;
    Process = signals::process::Settings;
    Prometheus = signals::prometheus::Settings;
    Queue = signals::queue::Settings;
    Redis = signals::redis::Settings;
    Scrape = signals::scrape::Settings;
    Sql = signals::sql::Settings;
});

table!(ChannelKind, ChannelSettings, CHANNELS, read_channel, each_channel, {
    Terminal = channels::terminal::Settings;
    Webhook = channels::webhook::Settings;
});

impl Kinds for Adapters {
    type Component = ComponentSettings;
    type Signal = SignalSettings;
    type Channel = ChannelSettings;

    fn component_kinds() -> &'static [KindDoc] {
        COMPONENTS
    }
    fn signal_kinds() -> &'static [KindDoc] {
        SIGNALS
    }
    fn channel_kinds() -> &'static [KindDoc] {
        CHANNELS
    }
    fn component<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Result<ComponentSettings, D::Error> {
        read_component(kind, from)
    }
    fn signal<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Result<SignalSettings, D::Error> {
        read_signal(kind, from)
    }
    fn channel<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Result<ChannelSettings, D::Error> {
        read_channel(kind, from)
    }
    fn check_component(settings: &ComponentSettings) -> Vec<Mistake> {
        each_component!(settings, one => ComponentKind::check(one))
    }
    fn check_signal(settings: &SignalSettings) -> Vec<Mistake> {
        each_signal!(settings, one => SignalKind::check(one))
    }
    fn check_channel(settings: &ChannelSettings) -> Vec<Mistake> {
        each_channel!(settings, one => ChannelKind::check(one))
    }
    fn signal_unit(settings: &SignalSettings) -> Unit {
        each_signal!(settings, one => SignalKind::unit(one))
    }
    fn signal_fields(settings: &SignalSettings) -> &'static [&'static str] {
        each_signal!(settings, one => SignalKind::fields(one))
    }
    fn lifecycle_hint(settings: &ComponentSettings) -> Nature {
        each_component!(settings, one => ComponentKind::nature(one))
    }
}

pub fn build_component(
    id: &ComponentId,
    settings: &ComponentSettings,
    cx: &BuildCx,
) -> Result<Arc<dyn Component>, BuildError> {
    each_component!(settings, one => ComponentKind::build(one, id, cx))
}

pub fn build_signal(id: &SignalId, settings: &SignalSettings, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
    each_signal!(settings, one => SignalKind::build(one, id, cx))
}

pub fn build_channel(id: &ChannelId, settings: &ChannelSettings, cx: &BuildCx) -> Result<Arc<dyn Channel>, BuildError> {
    each_channel!(settings, one => ChannelKind::build(one, id, cx))
}
