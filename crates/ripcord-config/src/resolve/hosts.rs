//! Machines and groups of them: how each is reached, and which a name stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ripcord_core::{ComponentId, ComponentSpec, HostId, SecretRef};

use super::Cx;
use crate::file;
use crate::read::{At, read as read_node};
use crate::report::{Findings, Spot, suggest};
use crate::tree::{Node, What};
use crate::wire::SecretFrom;

const CALLS: u32 = 8;

/// A machine that components are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    pub ssh: SshSettings,
    /// Absolute, on the host.
    pub directory: PathBuf,
    /// A file of this machine to send in place of this program, relative to the directory of the configuration.
    pub agent: Option<PathBuf>,
    /// Where a `ripcord` is installed on the host.
    pub installed: Option<PathBuf>,
    pub calls: u32,
    /// What is there.
    pub components: BTreeSet<ComponentId>,
    /// The secrets that the settings of what is there name: those it may ask for.
    pub secrets: BTreeSet<SecretRef>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSettings {
    pub to: String,
    pub port: Option<u16>,
    /// Relative to the directory of the configuration.
    pub config: Option<PathBuf>,
    pub options: Vec<String>,
}

/// What a name can stand for.
pub(crate) struct Hosts {
    settings: BTreeMap<HostId, HostSettings>,
    /// Every name that is declared, and the hosts it stands for, in order; none where a mistake in it was said.
    named: BTreeMap<String, Vec<HostId>>,
}

pub(crate) fn read(cx: Cx<'_>) -> Hosts {
    let mut hosts = Hosts { settings: BTreeMap::new(), named: BTreeMap::new() };
    for (key, node) in cx.entries("hosts") {
        let id: Option<HostId> = cx.name(key.text(), key.spot);
        let written: Option<file::Host> = read_node(node, key.spot, cx.findings);
        let named = id.iter().cloned().collect();
        hosts.named.insert(key.text().to_owned(), named);
        if let (Some(id), Some(written)) = (id, written) {
            hosts.settings.insert(id, host(cx, written));
        }
    }
    groups(cx, &mut hosts);
    hosts
}

impl Hosts {
    fn known(&self) -> Vec<&str> {
        self.named.keys().map(String::as_str).collect()
    }

    /// The hosts that the names stand for, each once.
    pub(crate) fn all(&self, cx: Cx<'_>, names: &[&At<String>]) -> Vec<HostId> {
        let mut found: Vec<HostId> = vec![];
        for (i, name) in names.iter().enumerate() {
            if names[..i].iter().any(|earlier| earlier.value == name.value) {
                cx.findings.error(name.spot, format!("`{}` is named twice", name.value), "take one of them away");
            }
            for host in self.hosts_of(cx, name, "host or group") {
                if !found.contains(host) {
                    found.push(host.clone());
                }
            }
        }
        found
    }

    /// One host: a group stands for several.
    pub(crate) fn one(&self, cx: Cx<'_>, name: &At<String>) -> Option<HostId> {
        if self.named.contains_key(&name.value) && !cx.names("hosts").contains(&name.value.as_str()) {
            let help = "name one host: a signal is read in one place";
            cx.findings.error(name.spot, format!("`{}` is a group", name.value), help);
            return None;
        }
        self.hosts_of(cx, name, "host").first().cloned()
    }

    fn hosts_of(&self, cx: Cx<'_>, name: &At<String>, what: &str) -> &[HostId] {
        if let Some(found) = self.named.get(&name.value) {
            return found;
        }
        let help = match self.named.is_empty() {
            true => "declare it under `hosts:`; what is on the machine Ripcord runs on needs no host".to_owned(),
            false => suggest(&name.value, self.known(), "declared"),
        };
        cx.findings.error(name.spot, format!("there is no {what} `{}`", name.value), help);
        &[]
    }

    /// The hosts, each with what is there.
    pub(crate) fn with(
        self,
        specs: &BTreeMap<ComponentId, ComponentSpec>,
        mut secrets: BTreeMap<HostId, BTreeSet<SecretRef>>,
    ) -> BTreeMap<HostId, HostSettings> {
        let with = |(id, settings): (HostId, HostSettings)| {
            let there =
                specs.iter().filter(|(_, spec)| spec.hosts.contains(&id)).map(|(component, _)| component.clone());
            let (components, secrets) = (there.collect(), secrets.remove(&id).unwrap_or_default());
            (id, HostSettings { components, secrets, ..settings })
        };
        self.settings.into_iter().map(with).collect()
    }
}

fn host(cx: Cx<'_>, written: file::Host) -> HostSettings {
    let error = |spot: Spot, what: String, help: &str| cx.findings.error(spot, what, help);
    let file::Host { ssh, directory, agent, installed, calls } = written;
    let absolute = |path: &At<PathBuf>| {
        if !path.value.is_absolute() {
            let what = format!("`{}` is not absolute", path.value.display());
            error(path.spot, what, "write a path on the host that begins with `/`");
        }
    };
    absolute(&directory);
    installed.iter().for_each(absolute);
    if let (Some(_), Some(installed)) = (&agent, &installed) {
        let what = "`agent` and `installed` exclude each other".to_owned();
        error(installed.spot, what, "keep `installed` where the host has its own `ripcord`, else `agent`");
    }
    if let Some(calls) = calls.filter(|calls| calls.value == 0) {
        error(calls.spot, "no call could ever be made".to_owned(), "write `1` or more");
    }
    if let Some(why) = not_a_destination(&ssh.to.value) {
        error(ssh.to.spot, format!("`{}` is nothing to reach by `ssh`: {why}", ssh.to.value), "write `user@host`");
    }
    if let Some(port) = ssh.port.filter(|port| port.value == 0) {
        error(port.spot, "`0` is no port".to_owned(), "write the port of the SSH server, or leave it out");
    }
    for option in &ssh.options {
        if let Some((why, help)) = not_an_option(&option.value) {
            error(option.spot, format!("`{}` {why}", option.value), help);
        }
    }
    HostSettings {
        ssh: SshSettings {
            to: ssh.to.value,
            port: ssh.port.map(|port| port.value),
            config: ssh.config,
            options: ssh.options.into_iter().map(|option| option.value).collect(),
        },
        directory: directory.value,
        agent: agent.map(|path| path.value),
        installed: installed.map(|path| path.value),
        calls: calls.map_or(CALLS, |calls| calls.value),
        components: BTreeSet::new(),
        secrets: BTreeSet::new(),
    }
}

/// It becomes a word of a command: nothing may be taken for an option of it.
fn not_a_destination(to: &str) -> Option<&'static str> {
    match () {
        () if to.is_empty() => Some("it is empty"),
        () if to.starts_with('-') => Some("it begins with `-`"),
        () if to.contains(|c: char| c.is_whitespace() || c.is_control()) => Some("there is a space in it"),
        () => None,
    }
}

/// What the connection rests on, and what it is for, is not for options to change.
const OURS: [&str; 9] = [
    "batchmode",
    "forkafterauthentication",
    "forwardagent",
    "remotecommand",
    "requesttty",
    "sessiontype",
    "stdinnull",
    "stricthostkeychecking",
    "verifyhostkeydns",
];

fn not_an_option(option: &str) -> Option<(&'static str, &'static str)> {
    let Some((name, value)) = option.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty())
    else {
        return Some(("is no option", "write `Name=value`, as for `ssh -o`"));
    };
    if !name.bytes().all(|b| b.is_ascii_alphanumeric()) || value.contains(char::is_control) {
        return Some(("is no option", "write `Name=value`, as for `ssh -o`"));
    }
    OURS.contains(&name.to_ascii_lowercase().as_str()).then_some((
        "cannot be set here",
        "take it away: host keys are always checked, and nobody is asked; put the host's key into `known_hosts`",
    ))
}

/// Groups, those inside others included; each circle is said once.
fn groups(cx: Cx<'_>, hosts: &mut Hosts) {
    let mut written: BTreeMap<&str, Vec<At<String>>> = BTreeMap::new();
    for (key, node) in cx.entries("groups") {
        let id: Option<HostId> = cx.name(key.text(), key.spot);
        let names: Option<file::Names> = read_node(node, key.spot, cx.findings);
        if hosts.named.contains_key(key.text()) {
            let help = "give the group another name";
            cx.findings.error(key.spot, format!("`{}` is a host already", key.text()), help);
        } else if let (Some(_), Some(names)) = (id, names) {
            if names.0.is_empty() {
                cx.findings.error(
                    key.spot,
                    format!("`{}` has no hosts", key.text()),
                    "name hosts in it, or take it away",
                );
            }
            written.insert(key.text(), names.0);
        } else {
            written.insert(key.text(), vec![]);
        }
    }
    for name in written.keys().copied().collect::<Vec<_>>() {
        let mut way = vec![];
        unfold(cx, name, &written, hosts, &mut way);
    }
}

/// How deep groups may hold groups.
const DEEPEST: usize = 8;

/// Finds the hosts of a group, those of the groups in it first.
fn unfold<'a>(
    cx: Cx<'_>,
    name: &'a str,
    written: &'a BTreeMap<&'a str, Vec<At<String>>>,
    hosts: &mut Hosts,
    way: &mut Vec<&'a str>,
) {
    if hosts.named.contains_key(name) {
        return;
    }
    way.push(name);
    let members = written.get(name).map_or(&[] as &[_], Vec::as_slice);
    let mut around = false;
    for member in members {
        let inner = member.value.as_str();
        if let Some(from) = way.iter().position(|on| *on == inner) {
            around = true;
            let what = match &way[from..] {
                [_] => format!("`{inner}` holds itself"),
                circle => format!("these groups hold each other in a circle: {} -> {inner}", circle.join(" -> ")),
            };
            cx.findings.error(member.spot, what, "take one of them away");
        } else if way.len() > DEEPEST {
            around = true;
            let what = format!("groups are nested more than {DEEPEST} deep");
            cx.findings.error(member.spot, what, "name hosts in the outer groups directly");
        } else if written.contains_key(inner) {
            unfold(cx, inner, written, hosts, way);
        }
    }
    way.pop();
    let good: Vec<&At<String>> = match around {
        // Said above; what is left of it is no group.
        true => vec![],
        false => members.iter().collect(),
    };
    // Names that a later group will declare are known too.
    let unknown = good.iter().filter(|member| !hosts.named.contains_key(&member.value));
    let known: Vec<&str> = hosts.known().into_iter().chain(written.keys().copied()).collect();
    for member in unknown.filter(|member| !written.contains_key(member.value.as_str())) {
        let help = suggest(&member.value, known.clone(), "declared");
        cx.findings.error(member.spot, format!("there is no host or group `{}`", member.value), help);
    }
    let there: Vec<&At<String>> = good.into_iter().filter(|member| hosts.named.contains_key(&member.value)).collect();
    let found = hosts.all(cx, &there);
    hosts.named.insert(name.to_owned(), found);
}

/// Every secret that settings name, wherever in them.
pub(crate) fn secrets(settings: &Node) -> BTreeSet<SecretRef> {
    let mut found = BTreeSet::new();
    let mut open = vec![settings];
    while let Some(node) = open.pop() {
        match &node.what {
            What::Map(entries) => {
                // Whatever else it may be: what is written there in full may be asked for.
                let quiet = Findings::default();
                found.extend(read_node::<SecretFrom>(node, node.spot, &quiet).map(|secret| secret.0));
                open.extend(entries.iter().map(|(_, value)| value));
            }
            What::List(items) => open.extend(items),
            _ => {}
        }
    }
    found
}
