//! From the tree to the application: every reference followed, every rule of the configuration checked, all mistakes together.
//!
//! A section that could not be read does not hide what is wrong in another: references are checked against the names that are
//! written, not against what could be read.

mod checks; // health and verification
mod hosts; // machines and groups of them
mod matrix; // severities, figures, rows
mod notify; // channels and who is told
mod parts; // what has a kind: components, signals
mod strategies; // ladders
mod triggers; // rules over signals

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ripcord_core::{
    AppId, Application, BadName, ChannelId, ComponentId, Digest, HostId, Name, Policy, SecretRef, SignalId,
};

pub use self::hosts::{HostSettings, SshSettings};
use crate::Kinds;
use crate::figure::{self, Fault};
use crate::file;
use crate::read::{At, read};
use crate::report::{Findings, Spot, suggest};
use crate::tree::{Node, What};
use crate::wire::Span;

/// The top level of the file: each key, and what it is for. The schema and the reference are made from it too.
pub(crate) const SECTIONS: &[(&str, &str)] = &[
    ("application", "The application's name."),
    (
        "production",
        "Whether this is production, where drills are refused. Default: only in the environment named `production`.",
    ),
    (
        "environments",
        "The environments, and what differs in each. A mapping is laid over the rest of the file key by key, anything \
      else replaces what is there, and `null` takes a key away. Without this section there is one environment, `production`.",
    ),
    (
        "state",
        "Where Ripcord keeps its record. By default `.ripcord` beside this file; `$RIPCORD_STATE` goes before both.",
    ),
    ("vault", "Where captures are kept."),
    (
        "components",
        "What is taken back: every part that has a revision or holds data. Each has one of the kinds below.",
    ),
    (
        "hosts",
        "Machines that components are on, reached over SSH; see `docs/hosts.md`. Host keys must be known, and nobody is asked for a \
      password: `ssh` must get in by itself.",
    ),
    ("groups", "Hosts that belong together, by a name that can stand for them. A group may hold groups."),
    ("signals", "What is measured. Each has one of the kinds below."),
    ("triggers", "When a signal has been bad for long enough to say so."),
    (
        "severities",
        "How bad things can be, the worst first: how soon somebody must respond, and who may say yes. \
      By default `p0` (5m), `p1` (15m), `p2` (1h) and `p3` (7d), each needing one person.",
    ),
    (
        "matrix",
        "What is done about which issue. Of the rows that match, the most severe wins. \
      By default a person evaluates everything.",
    ),
    (
        "strategies",
        "Ladders by name, the lowest level first. By default `standard`: one level that takes back every component \
      that changes by release only.",
    ),
    ("default-strategy", "The strategy taken when nobody names one. By default `standard`, or the only one."),
    ("verify", "Checks of the whole application: `closed` before traffic is let in again, `open` after."),
    ("policy", "The figures the rules go by."),
    ("channels", "Where messages go. Each has one of the kinds below."),
    ("notify", "Who is told what. A message goes by every entry that fits."),
];

/// What the sections come to.
pub(crate) struct Resolved<K: Kinds> {
    pub application: Application,
    pub components: BTreeMap<ComponentId, K::Component>,
    pub signals: BTreeMap<SignalId, K::Signal>,
    pub channels: BTreeMap<ChannelId, K::Channel>,
    pub hosts: BTreeMap<HostId, HostSettings>,
    /// Where signals are read that are not read here.
    pub signal_hosts: BTreeMap<SignalId, HostId>,
    pub vault: Option<file::Vault>,
    pub state: Option<PathBuf>,
}

/// What every part of the work needs: the merged file and where mistakes go.
#[derive(Clone, Copy)]
pub(crate) struct Cx<'a> {
    pub root: &'a Node,
    pub findings: &'a Findings,
}

impl<'a> Cx<'a> {
    fn section(self, name: &str) -> Option<(&'a Node, &'a Node)> {
        self.root.get(name)
    }
    /// Where something is said to be missing from the file.
    fn top(self) -> Spot {
        self.root.entries().first().map_or(self.root.spot, |(key, _)| key.spot)
    }
    /// The entries of a section that is a mapping of names.
    fn entries(self, section: &str) -> &'a [(Node, Node)] {
        let Some((key, node)) = self.section(section) else { return &[] };
        match &node.what {
            What::Map(entries) => entries,
            What::Null => &[],
            _ => {
                let what = format!("expected a mapping of names, found {}", node.called());
                self.findings.error(node.spot, what, format!("write `{}: {{ name: .. }}`", key.text()));
                &[]
            }
        }
    }
    /// The items of a section that is a list.
    fn items(self, node: &'a Node) -> &'a [Node] {
        match &node.what {
            What::List(items) => items,
            What::Null => &[],
            _ => {
                let what = format!("expected a list, found {}", node.called());
                self.findings.error(node.spot, what, "write each item on its own line behind `- `");
                &[]
            }
        }
    }
    fn names(self, section: &str) -> Vec<&'a str> {
        self.section(section).map_or(vec![], |(_, node)| node.entries().iter().map(|(key, _)| key.text()).collect())
    }

    /// A name as it is written, if it is one.
    fn name<T: FromStr<Err = BadName>>(self, text: &str, spot: Spot) -> Option<T> {
        let bad = |bad: BadName| {
            self.findings.error(
                spot,
                bad.to_string(),
                "names are like `web-1`: small letters, digits, `-`, `_` and `.`",
            );
        };
        text.parse().map_err(bad).ok()
    }
    /// A name that must be one of `known`.
    fn reference<T: FromStr<Err = BadName>>(self, to: &At<String>, known: &[&str], what: &str) -> Option<T> {
        if known.contains(&to.value.as_str()) {
            // A declared name that is none was said where it is declared.
            return to.value.parse().ok();
        }
        let help = suggest(to, known.iter().copied(), "declared");
        self.findings.error(to.spot, format!("there is no {what} `{}`", to.value), help);
        None
    }
    /// Says a fault of a figure at its place.
    fn fault<T>(self, spot: Spot, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|(what, help)| self.findings.error(spot, what, help)).ok()
    }
    /// A time that must be more than nothing.
    fn positive(self, span: Option<At<Span>>, default: Duration) -> Duration {
        let Some(span) = span else { return default };
        if span.value.0.is_zero() {
            self.findings.error(span.spot, "this time must be more than nothing", "write a time such as `10s`");
        }
        span.value.0
    }
}

/// Resolves the merged file for one environment. The result is there only where no mistake was found.
pub(crate) fn resolve<K: Kinds>(
    root: &Node,
    environment: &Name,
    production: bool,
    config: Digest,
    findings: &Findings,
) -> Option<Resolved<K>> {
    let cx = Cx { root, findings };
    unknown_sections(cx);
    let application = application_name(cx);

    let hosts = hosts::read(cx);
    let mut parts = parts::read::<K>(cx, &hosts);
    let severities = matrix::severities(cx);
    let checks = checks::checks::<K>(cx, &mut parts);
    let (strategies, default_strategy) = strategies::strategies(cx, &parts);
    let (matrix, figures) = matrix::matrix(cx, &parts, &severities, default_strategy.as_ref());
    let otherwise = matrix.as_ref().map(|matrix| matrix.otherwise.severity);
    let triggers = triggers::triggers(cx, &parts, &severities, otherwise);
    let channels = notify::channels::<K>(cx);
    let notify = notify::notify(cx, &severities);
    let policy = policy(cx);
    let vault = cx.section("vault").and_then(|(key, node)| read::<file::Vault>(node, key.spot, findings));
    let state = cx.section("state").and_then(|(key, node)| read::<PathBuf>(node, key.spot, findings));

    if findings.failed() {
        return None;
    }
    let hosts = hosts.with(&parts.specs, parts.secrets);
    Some(Resolved {
        application: Application {
            id: AppId { application: application?, environment: environment.clone() },
            config,
            production,
            components: parts.specs,
            signals: parts.signal_specs,
            triggers,
            figures,
            matrix: matrix?,
            severities: severities.rules,
            strategies,
            default_strategy: default_strategy?,
            checks,
            policy,
            notify,
        },
        components: parts.components,
        signals: parts.signals,
        channels,
        hosts,
        signal_hosts: parts.signal_hosts,
        vault,
        state,
    })
}

fn unknown_sections(cx: Cx<'_>) {
    let known = || SECTIONS.iter().map(|(name, _)| *name);
    for (key, _) in cx.root.entries() {
        if !known().any(|name| name == key.text()) {
            let help = suggest(key.text(), known().collect::<Vec<_>>(), "possible here");
            cx.findings.error(key.spot, format!("unknown key `{}`", key.text()), help);
        }
    }
}

fn application_name(cx: Cx<'_>) -> Option<Name> {
    let Some((key, node)) = cx.section("application") else {
        cx.findings.error(cx.top(), "`application` is missing", "begin the file with `application: name`");
        return None;
    };
    let text: At<String> = read(node, key.spot, cx.findings)?;
    cx.name(&text, text.spot)
}

fn policy(cx: Cx<'_>) -> Policy {
    let mut policy = Policy::default();
    let Some((key, node)) = cx.section("policy") else { return policy };
    let Some(written) = read::<file::Policy>(node, key.spot, cx.findings) else { return policy };
    policy.suspect_for = cx.positive(written.suspect_for, policy.suspect_for);
    policy.bake = written.bake.map_or(policy.bake, |span| span.value.0);
    policy.watch = written.watch.map_or(policy.watch, |span| span.value.0);
    policy.helps_within = cx.positive(written.helps_within, policy.helps_within);
    policy.keep_captures = cx.positive(written.keep_captures, policy.keep_captures);
    policy.keep_aside = cx.positive(written.keep_aside, policy.keep_aside);
    policy.prove_every = cx.positive(written.prove_every, policy.prove_every);
    policy.baseline = cx.positive(written.baseline, policy.baseline);
    if let Some(at) = &written.recovered_at
        && let Some(times) = cx.fault(at.spot, figure::multiple(at))
    {
        if times < 1.0 {
            let help = "write `1x` or more: a signal need not become better than it was before the release";
            cx.findings.error(at.spot, format!("`{}` is less than what was normal", at.value), help);
        }
        policy.recovered_at = times;
    }
    if let Some(per_host) = written.per_host {
        if *per_host == 0 {
            cx.findings.error(per_host.spot, "no step could ever run", "write `1` or more");
        }
        policy.per_host = *per_host;
    }
    if let Some(proof) = written.automatic_proof {
        policy.automatic_proof = proof.into();
    }
    policy
}

/// Where the vault is and how it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultSettings {
    /// Relative to the directory of the file, unless it is absolute.
    pub directory: PathBuf,
    pub key: SecretRef,
}

impl From<Option<file::Vault>> for VaultSettings {
    fn from(written: Option<file::Vault>) -> Self {
        let (directory, key) = written.map_or((None, None), |vault| (vault.directory, vault.key));
        Self {
            directory: directory.unwrap_or_else(|| ".ripcord/vault".into()),
            key: key.map_or_else(|| SecretRef::File(".ripcord/vault.key".into()), |key| key.0),
        }
    }
}
