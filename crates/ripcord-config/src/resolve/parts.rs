//! What has a kind: components and signals. Which kinds there are, and what their settings mean, only `Kinds` knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ripcord_core::{ComponentId, ComponentSpec, HostId, Nature, SecretRef, SignalId, SignalSpec, Unit};
use serde::Deserialize;

use super::Cx;
use super::hosts::{Hosts, secrets};
use crate::read::{At, fields_of, read as read_node, read_with};
use crate::report::{Spot, nearest, suggest};
use crate::tree::{Node, What};
use crate::{KindDoc, Kinds, Mistake, file};

pub(crate) const EVERY: Duration = Duration::from_secs(10);
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Components and signals as far as they could be read.
pub(crate) struct Parts<K: Kinds> {
    pub specs: BTreeMap<ComponentId, ComponentSpec>,
    pub components: BTreeMap<ComponentId, K::Component>,
    pub natures: BTreeMap<ComponentId, Nature>,
    pub signal_specs: BTreeMap<SignalId, SignalSpec>,
    pub signals: BTreeMap<SignalId, K::Signal>,
    /// What the rules need to know of the signals.
    pub measured: BTreeMap<SignalId, Measured>,
    pub signal_hosts: BTreeMap<SignalId, HostId>,
    /// The secrets that the settings of what is on a host name.
    pub secrets: BTreeMap<HostId, BTreeSet<SecretRef>>,
}

#[derive(Clone, Copy)]
pub(crate) struct Measured {
    pub unit: Unit,
    pub fields: &'static [&'static str],
}

pub(crate) fn read<K: Kinds>(cx: Cx<'_>, hosts: &Hosts) -> Parts<K> {
    let mut parts = Parts {
        specs: BTreeMap::new(),
        components: BTreeMap::new(),
        natures: BTreeMap::new(),
        signal_specs: BTreeMap::new(),
        signals: BTreeMap::new(),
        measured: BTreeMap::new(),
        signal_hosts: BTreeMap::new(),
        secrets: BTreeMap::new(),
    };
    signals(cx, hosts, &mut parts);
    components(cx, hosts, &mut parts);
    parts
}

/// A value taken apart into its kind's settings and what is common to all kinds.
pub(crate) struct Split {
    pub kind: &'static KindDoc,
    pub key: Spot,
    pub settings: Node,
}

/// Takes `node` apart. `common` are the keys that are not a kind's; they are returned as a mapping of their own, even where the
/// kind is missing or unknown. `optional`: whether it may be without a kind.
pub(crate) fn split<'de, T: Deserialize<'de>>(
    cx: Cx<'_>,
    (key, node): (&Node, &Node),
    kinds: &'static [KindDoc],
    optional: bool,
) -> (Option<Split>, Node) {
    let rest = |entries| Node { spot: node.spot, what: What::Map(entries) };
    let names = || kinds.iter().map(|kind| kind.name);
    let there_are = || {
        let names: Vec<String> = names().map(|name| format!("`{name}`")).collect();
        format!("there are {}", names.join(", "))
    };
    let entries = match &node.what {
        What::Map(entries) => entries.as_slice(),
        // `here: terminal`: a kind with all settings at their defaults.
        What::Text(text) if !optional && let Some(kind) = kinds.iter().find(|kind| kind.name == text) => {
            let settings = Node { spot: node.spot, what: What::Null };
            return (Some(Split { kind, key: node.spot, settings }), rest(vec![]));
        }
        What::Null if !optional => &[],
        _ => {
            let what = format!("expected a mapping with its kind, found {}", node.called());
            let near = Some(node.text()).filter(|text| !text.is_empty()).and_then(|text| nearest(text, names()));
            let help = near.map_or_else(there_are, |name| format!("did you mean `{name}`?"));
            cx.findings.error(node.spot, what, help);
            return (None, rest(vec![]));
        }
    };
    let fields = fields_of::<T>();
    let (mut found, mut common): (Option<Split>, Vec<(Node, Node)>) = (None, vec![]);
    let mut unknown = false;
    for (k, value) in entries {
        match (kinds.iter().find(|kind| kind.name == k.text()), &found) {
            (Some(kind), None) => found = Some(Split { kind, key: k.spot, settings: value.clone() }),
            (Some(kind), Some(first)) => {
                let what = format!("this is of two kinds: `{}` and `{}`", first.kind.name, kind.name);
                let help = format!(
                    "keep one; what an environment changes to another kind loses the old one by `{}: null`",
                    first.kind.name
                );
                cx.findings.error(k.spot, what, help);
            }
            (None, _) if fields.contains(&k.text()) => common.push((k.clone(), value.clone())),
            (None, _) => {
                unknown = true;
                let known: Vec<&str> = fields.iter().copied().chain(names()).collect();
                cx.findings.error(
                    k.spot,
                    format!("unknown key `{}`", k.text()),
                    suggest(k.text(), known, "possible here"),
                );
            }
        }
    }
    // An unknown key is probably the kind, misspelt.
    if found.is_none() && !optional && !unknown {
        cx.findings.error(key.spot, format!("`{}` has no kind", key.text()), there_are());
    }
    (found, rest(common))
}

/// Says the mistakes of a kind at the fields they are about.
pub(crate) fn mistakes(cx: Cx<'_>, split: &Split, mistakes: Vec<Mistake>) {
    for Mistake { what, field, help } in mistakes {
        let spot = field.as_deref().and_then(|field| place_of(&split.settings, field)).unwrap_or(split.key);
        cx.findings.error(spot, what, help.unwrap_or_default());
    }
}

/// The place of a field given by its path; of the last part that is there.
fn place_of(node: &Node, path: &str) -> Option<Spot> {
    let (part, rest) = path.split_once('.').map_or((path, None), |(part, rest)| (part, Some(rest)));
    let (own, next) = match &node.what {
        // A key may hold dots itself.
        What::Map(_) => match (node.get(path), node.get(part)) {
            (Some((_, value)), _) => return Some(value.spot),
            (None, Some((key, value))) => (key.spot, value),
            (None, None) => return None,
        },
        What::List(items) => {
            let item = items.get(part.parse::<usize>().ok()?)?;
            (item.spot, item)
        }
        _ => return None,
    };
    match rest {
        None => Some(next.spot),
        Some(rest) => place_of(next, rest).or(Some(own)),
    }
}

fn signals<K: Kinds>(cx: Cx<'_>, hosts: &Hosts, parts: &mut Parts<K>) {
    for (key, node) in cx.entries("signals") {
        let id: Option<SignalId> = cx.name(key.text(), key.spot);
        let (split, common) = split::<file::Signal>(cx, (key, node), K::signal_kinds(), false);
        let common: Option<file::Signal> = read_node(&common, key.spot, cx.findings);
        let named = split.as_ref().map(|split| secrets(&split.settings)).unwrap_or_default();
        let settings = split.and_then(|split| signal::<K>(cx, &split).map(|settings| (split.kind.name, settings)));
        let host = common.as_ref().and_then(|common| common.on_host.as_ref()).and_then(|host| hosts.one(cx, host));
        let (Some(id), Some(common), Some((kind, settings))) = (id, common, settings) else { continue };
        if let Some(host) = host {
            parts.secrets.entry(host.clone()).or_default().extend(named);
            parts.signal_hosts.insert(id.clone(), host);
        }
        let every = cx.positive(common.every, EVERY);
        let timeout = cx.positive(common.timeout, TIMEOUT);
        parts.add_signal(id, SignalSpec { kind: kind.into(), every, timeout }, settings);
    }
}

/// The settings of a signal, read and checked.
pub(crate) fn signal<K: Kinds>(cx: Cx<'_>, split: &Split) -> Option<K::Signal> {
    let name = split.kind.name;
    let settings = read_with(&split.settings, split.key, cx.findings, |reader| K::signal(name, reader))?;
    mistakes(cx, split, K::check_signal(&settings));
    Some(settings)
}

impl<K: Kinds> Parts<K> {
    pub fn add_signal(&mut self, id: SignalId, spec: SignalSpec, settings: K::Signal) {
        let measured = Measured { unit: K::signal_unit(&settings), fields: K::signal_fields(&settings) };
        self.measured.insert(id.clone(), measured);
        self.signal_specs.insert(id.clone(), spec);
        self.signals.insert(id, settings);
    }
}

fn components<K: Kinds>(cx: Cx<'_>, hosts: &Hosts, parts: &mut Parts<K>) {
    if cx.entries("components").is_empty() && !cx.findings.failed() {
        let spot = cx.section("components").map_or(cx.top(), |(key, _)| key.spot);
        cx.findings.error(spot, "there are no components", "add `components:` with what is to be taken back");
    }
    let known = cx.names("components");
    let mut needs: BTreeMap<&str, Vec<At<String>>> = BTreeMap::new();
    for (key, node) in cx.entries("components") {
        let id: Option<ComponentId> = cx.name(key.text(), key.spot);
        let (split, common) = split::<ComponentKeys>(cx, (key, node), K::component_kinds(), false);
        let common: Option<file::Component> = read_node(&without(common, "health"), key.spot, cx.findings);
        let named = split.as_ref().map(|split| secrets(&split.settings)).unwrap_or_default();
        let settings = split.and_then(|split| component::<K>(cx, &split).map(|settings| (split.kind, settings)));
        let Some(common) = common else { continue };
        let needed = common.needs.0.iter().filter_map(|need| cx.reference(need, &known, "component")).collect();
        needs.insert(key.text(), common.needs.0.clone());
        let written: Vec<_> = common.host.iter().chain(common.hosts.iter().flat_map(|hosts| &hosts.0)).collect();
        let on = hosts.all(cx, &written);
        for host in &on {
            parts.secrets.entry(host.clone()).or_default().extend(named.iter().cloned());
        }
        let step_limit = common.step_limit.map(|limit| cx.positive(Some(limit), Duration::ZERO));
        let (Some(id), Some((kind, settings))) = (id, settings) else { continue };
        let spec = ComponentSpec {
            kind: kind.name.into(),
            layer: common.layer.map_or(kind.layer, Into::into),
            needs: needed,
            hosts: on,
            health: vec![],
            step_limit,
        };
        parts.natures.insert(id.clone(), K::lifecycle_hint(&settings));
        parts.components.insert(id.clone(), settings);
        parts.specs.insert(id, spec);
    }
    cycles(cx, &needs);
}

/// The keys of a component that are no kind's: those read here, and `health`, which `checks` reads.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only the names of the fields are asked for")]
struct ComponentKeys {
    layer: (),
    needs: (),
    host: (),
    hosts: (),
    step_limit: (),
    health: (),
}

fn without(mut node: Node, name: &str) -> Node {
    if let What::Map(entries) = &mut node.what {
        entries.retain(|(key, _)| key.text() != name);
    }
    node
}

fn component<K: Kinds>(cx: Cx<'_>, split: &Split) -> Option<K::Component> {
    let name = split.kind.name;
    let settings = read_with(&split.settings, split.key, cx.findings, |reader| K::component(name, reader))?;
    mistakes(cx, split, K::check_component(&settings));
    Some(settings)
}

/// Says each cycle of `needs` once, all around, at the reference that closes it.
fn cycles(cx: Cx<'_>, needs: &BTreeMap<&str, Vec<At<String>>>) {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for &start in needs.keys() {
        // The way here, and which need of each is looked at next; not by recursion, since a chain may be as long as the file.
        let mut way: Vec<(&str, usize)> = vec![];
        if done.insert(start) {
            way.push((start, 0));
        }
        while let Some((at, next)) = way.last_mut() {
            let Some(need) = needs.get(at).and_then(|needs| needs.get(*next)) else {
                way.pop();
                continue;
            };
            *next += 1;
            let name = need.value.as_str();
            if let Some(from) = way.iter().position(|(on, _)| *on == name) {
                circle(cx, need.spot, way[from..].iter().map(|(on, _)| *on).collect());
            } else if needs.contains_key(name) && done.insert(name) {
                way.push((name, 0));
            }
        }
    }
}

fn circle(cx: Cx<'_>, spot: Spot, around: Vec<&str>) {
    let what = match around.as_slice() {
        [one] => format!("`{one}` needs itself"),
        [first, ..] => format!("these components need each other in a circle: {} -> {first}", around.join(" -> ")),
        [] => return,
    };
    cx.findings.error(spot, what, "take one of these needs away: nothing in a circle could start first");
}
