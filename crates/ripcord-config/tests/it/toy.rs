//! Kinds that do nothing, with settings of every shape that real ones have.
#![expect(dead_code, reason = "that the settings are read is what is tested")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use ripcord_config::wire::{SecretFrom, Share, Size, Span, Text};
use ripcord_config::{KindDoc, Kinds, Mistake};
use ripcord_core::{Layer, Nature, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

#[derive(Debug)]
pub struct Toy;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    /// The file or directory.
    pub path: PathBuf,
    /// Where releases are.
    pub releases: Option<PathBuf>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Git {
    /// The work tree. Default `.`.
    pub path: Option<PathBuf>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Command {
    /// Starts it.
    pub start: Vec<Text>,
    /// Stops it.
    #[serde(default)]
    pub stop: Vec<Text>,
    /// Added to its environment.
    #[serde(default)]
    pub environment: BTreeMap<String, Text>,
    /// How long it may take. Default `30s`.
    pub limit: Option<Span>,
    /// The most output that is kept.
    pub output: Option<Size>,
    pub token: Option<SecretFrom>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Http {
    /// What is asked.
    pub url: Text,
    pub bearer: Option<SecretFrom>,
    /// What is measured. Default `failing`.
    #[serde(default)]
    pub measure: Measure,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Whether it fails.
    #[default]
    Failing,
    /// How long it takes.
    Latency,
    /// A number in its JSON, by pointer.
    Json(Text),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scrape {
    pub url: Text,
    pub ratio: Option<Ratio>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
// Called as a part of the file is: in the schema neither may stand for the other.
#[schemars(rename = "Clear")]
pub struct Ratio {
    /// The counter of what is bad.
    pub of: Text,
    /// The counter of everything.
    pub to: Text,
    pub least: Option<Share>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Terminal {
    /// Whether it rings.
    #[serde(default)]
    pub bell: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Webhook {
    pub url: Text,
    pub secret: Option<SecretFrom>,
}

#[derive(Debug)]
pub enum Component {
    Git(Git),
    File(File),
    Data(File),
    Command(Command),
}

#[derive(Debug)]
pub enum Signal {
    Http(Http),
    Scrape(Scrape),
}

#[derive(Debug)]
pub enum Channel {
    Terminal(Terminal),
    Webhook(Webhook),
}

const fn doc(
    name: &'static str,
    summary: &'static str,
    example: &'static str,
    layer: Layer,
    schema: fn() -> schemars::Schema,
) -> KindDoc {
    KindDoc { name, summary, example, layer, schema }
}

impl Kinds for Toy {
    type Component = Component;
    type Signal = Signal;
    type Channel = Channel;

    fn component_kinds() -> &'static [KindDoc] {
        static KINDS: &[KindDoc] = &[
            doc(
                "command",
                "Anything, by commands.",
                "start: [systemctl, start, web]\nlimit: 30s\n",
                Layer::Code,
                || schemars::schema_for!(Command),
            ),
            doc("directory", "A directory.", "path: current\nreleases: releases\n", Layer::Code, || {
                schemars::schema_for!(File)
            }),
            doc("env-file", "A file of `KEY=value` lines.", "path: .env\n", Layer::Config, || {
                schemars::schema_for!(File)
            }),
            doc("git", "A work tree.", "path: .\n", Layer::Code, || schemars::schema_for!(Git)),
            doc("sqlite", "A database.", "path: shop.db\n", Layer::Data, || schemars::schema_for!(File)),
        ];
        KINDS
    }
    fn signal_kinds() -> &'static [KindDoc] {
        static KINDS: &[KindDoc] = &[
            doc(
                "http",
                "An HTTP request.",
                "url: http://127.0.0.1:8080/health\nmeasure: latency\n",
                Layer::Code,
                || schemars::schema_for!(Http),
            ),
            doc(
                "scrape",
                "A page of metrics.",
                "url: http://127.0.0.1:8080/metrics\nratio: { of: failed, to: all }\n",
                Layer::Code,
                || schemars::schema_for!(Scrape),
            ),
        ];
        KINDS
    }
    fn channel_kinds() -> &'static [KindDoc] {
        static KINDS: &[KindDoc] = &[
            doc("terminal", "The terminal.", "{}", Layer::Code, || schemars::schema_for!(Terminal)),
            doc(
                "webhook",
                "A web hook.",
                "url: https://chat.example/hook\nsecret: { env: HOOK }\n",
                Layer::Code,
                || schemars::schema_for!(Webhook),
            ),
        ];
        KINDS
    }

    fn component<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Result<Component, D::Error> {
        match kind {
            "git" => Git::deserialize(from).map(Component::Git),
            "command" => Command::deserialize(from).map(Component::Command),
            "sqlite" => File::deserialize(from).map(Component::Data),
            _ => File::deserialize(from).map(Component::File),
        }
    }
    fn signal<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Result<Signal, D::Error> {
        match kind {
            "http" => Http::deserialize(from).map(Signal::Http),
            _ => Scrape::deserialize(from).map(Signal::Scrape),
        }
    }
    fn channel<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Result<Channel, D::Error> {
        match kind {
            "terminal" => Terminal::deserialize(from).map(Channel::Terminal),
            _ => Webhook::deserialize(from).map(Channel::Webhook),
        }
    }

    fn check_component(settings: &Component) -> Vec<Mistake> {
        match settings {
            Component::Command(command) => {
                let bad = command.start.iter().position(|argument| argument.as_str().is_empty());
                bad.map(|i| Mistake::new("an argument is empty").at(format!("start.{i}")).help("take it away"))
                    .into_iter()
                    .collect()
            }
            _ => vec![],
        }
    }
    fn check_signal(settings: &Signal) -> Vec<Mistake> {
        let url = match settings {
            Signal::Http(http) => &http.url,
            Signal::Scrape(scrape) => &scrape.url,
        };
        match url.as_str().starts_with("http") {
            true => vec![],
            false => {
                vec![Mistake::new(format!("`{url}` is no URL")).at("url").help("begin with `http://` or `https://`")]
            }
        }
    }
    fn check_channel(_: &Channel) -> Vec<Mistake> {
        vec![]
    }
    fn signal_unit(settings: &Signal) -> Unit {
        match settings {
            Signal::Http(Http { measure: Measure::Failing, .. }) => Unit::Failing,
            Signal::Http(Http { measure: Measure::Latency, .. }) => Unit::Seconds,
            Signal::Http(Http { measure: Measure::Json(_), .. }) => Unit::Number,
            Signal::Scrape(Scrape { ratio: Some(_), .. }) => Unit::Ratio,
            Signal::Scrape(_) => Unit::Bytes,
        }
    }
    fn signal_fields(settings: &Signal) -> &'static [&'static str] {
        match settings {
            Signal::Http(_) => &["status", "json", "latency_ms"],
            Signal::Scrape(_) => &[],
        }
    }
    fn lifecycle_hint(settings: &Component) -> Nature {
        match settings {
            Component::Data(_) => Nature::Flowing,
            _ => Nature::Versioned,
        }
    }
}
