//! Loads a file for one environment.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ripcord_core::{Application, ChannelId, ComponentId, Digest, HostId, Name, SignalId};

use crate::report::{Finding, Findings, Level, Report, Spot, report, suggest};
use crate::resolve::{HostSettings, Resolved, VaultSettings, resolve};
use crate::tree::{LARGEST, Node, What, parse};
use crate::{Diagnostic, Kinds};

/// A configuration without mistakes, for one environment.
pub struct Loaded<K: Kinds> {
    pub application: Application,
    /// The settings of each component, signal (those of checks too) and channel.
    pub components: BTreeMap<ComponentId, K::Component>,
    pub signals: BTreeMap<SignalId, K::Signal>,
    pub channels: BTreeMap<ChannelId, K::Channel>,
    pub hosts: BTreeMap<HostId, HostSettings>,
    /// Where signals are read that are not read on this machine.
    pub signal_hosts: BTreeMap<SignalId, HostId>,
    /// The file itself, for those who load it elsewhere.
    pub text: String,
    /// The directory that relative paths are relative to: that of the file.
    pub base: PathBuf,
    /// What is allowed and probably not meant, and what is wrong in other environments.
    pub warnings: Report,
    pub vault: VaultSettings,
    pub state: Option<PathBuf>,
    /// Every environment of the file.
    pub environments: Vec<Name>,
}

/// The one environment of a file that declares none, and the one taken where several are declared and nobody names one.
const PRODUCTION: &str = "production";

/// Loads the file at `path`. Without `environment`: the only one declared, else `production`.
///
/// Looks at nothing but the file: whether what it names is there is for whoever uses it to see.
/// # Errors
/// Every mistake found. What is wrong in other environments only is a warning: a slip in staging must not keep production from
/// being rolled back.
pub fn load<K: Kinds>(path: &Path, environment: Option<&str>) -> Result<Loaded<K>, Report> {
    let name = path.display().to_string();
    let bytes = read_bounded(path).map_err(|error| Report {
        diagnostics: vec![Diagnostic {
            level: Level::Error,
            what: format!("cannot be read: {error}"),
            file: name.clone(),
            spot: None,
            path: None,
            help: (error.kind() == std::io::ErrorKind::NotFound).then(|| "`ripcord init` writes one".into()),
        }],
    })?;
    let base = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    load_bytes(&name, &bytes, base, environment)
}

/// Loads a text as if it were the file `name`, with paths relative to `base`.
/// # Errors
/// As [`load`].
pub fn load_bytes<K: Kinds>(
    name: &str,
    bytes: &[u8],
    base: &Path,
    environment: Option<&str>,
) -> Result<Loaded<K>, Report> {
    let text = String::from_utf8_lossy(bytes);
    let root = parse(bytes).map_err(|finding| report(name, &text, vec![finding], |_| None))?;
    let all = Findings::default();
    root.refuse_interpolation(&all);
    let loaded = choose::<K>(&root, environment, &all);
    let findings = all.into_inner();
    let report = |findings| report(name, &text, findings, |spot| root.path_to(spot));
    match loaded {
        Some((resolved, environments)) if findings.iter().all(|f| f.level == Level::Warning) => Ok(Loaded {
            application: resolved.application,
            components: resolved.components,
            signals: resolved.signals,
            channels: resolved.channels,
            hosts: resolved.hosts,
            signal_hosts: resolved.signal_hosts,
            text: text.clone().into_owned(),
            base: base.to_owned(),
            warnings: report(findings),
            vault: resolved.vault.into(),
            state: resolved.state,
            environments,
        }),
        _ => Err(report(findings)),
    }
}

/// At most one byte more than is allowed, so that a device or a log given by mistake is not read to its end.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    std::fs::File::open(path)?.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Resolves the environment asked for; what is wrong in the others becomes warnings.
fn choose<K: Kinds>(root: &Node, asked: Option<&str>, all: &Findings) -> Option<(Resolved<K>, Vec<Name>)> {
    let declared = environments(root, all)?;
    let names: Vec<&str> = declared.iter().map(|(name, _, _)| name.as_str()).collect();
    let spot = root.get("environments").map(|(key, _)| key.spot);
    let chosen = match asked {
        Some(asked) => names.iter().position(|name| *name == asked).ok_or_else(|| {
            (format!("there is no environment `{asked}`"), suggest(asked, names.iter().copied(), "declared"))
        }),
        None => names.iter().position(|name| *name == PRODUCTION || names.len() == 1).ok_or_else(|| {
            let all = names.join("`, `");
            (
                "there are several environments, none of them named".to_owned(),
                format!("name one with `--environment`: `{all}`"),
            )
        }),
    };
    let chosen = match chosen {
        Ok(chosen) => chosen,
        Err((what, help)) => {
            all.push(Finding { level: Level::Error, what, help: Some(help), spot, conceal: false });
            return None;
        }
    };
    let mut resolved = None;
    let mut others = vec![];
    for (i, (name, _, overlay)) in declared.iter().enumerate() {
        let findings = Findings::default();
        let result = one::<K>(root, name, overlay.as_ref(), &findings);
        match i == chosen {
            true => {
                resolved = result;
                all.absorb(findings);
            }
            false => others.extend(findings.into_inner().into_iter().map(|finding| (name, finding))),
        }
    }
    for (name, finding) in others {
        let what = format!("in environment `{name}`: {}", finding.what);
        let same = |f: &Finding| f.what == finding.what && f.spot == finding.spot;
        if finding.level == Level::Error && !all.any(same) {
            all.push(Finding { level: Level::Warning, what, ..finding });
        }
    }
    Some((resolved?, declared.into_iter().map(|(name, _, _)| name).collect()))
}

/// What is written of each environment; one without anything where none is declared.
fn environments(root: &Node, all: &Findings) -> Option<Vec<(Name, Spot, Option<Node>)>> {
    let Some((key, node)) = root.get("environments") else {
        return Some(vec![(PRODUCTION.parse().ok()?, root.spot, None)]);
    };
    let mut found = vec![];
    let mut failed = false;
    for (key, overlay) in node.entries() {
        match key.text().parse::<Name>() {
            Ok(name) => found.push((name, key.spot, checked(overlay, all))),
            Err(bad) => {
                failed = true;
                all.error(
                    key.spot,
                    bad.to_string(),
                    "names are like `staging`: small letters, digits, `-`, `_` and `.`",
                );
            }
        }
    }
    if found.is_empty() && !failed {
        all.error(
            key.spot,
            "there are no environments here",
            "name one (`production: {}`), or take `environments` away",
        );
        return None;
    }
    (!failed).then_some(found)
}

/// An environment's overlay, if there is anything in it that can be laid over the file.
fn checked(overlay: &Node, all: &Findings) -> Option<Node> {
    match &overlay.what {
        What::Null => return None,
        What::Map(_) => {}
        _ => {
            let what = format!("expected what is different in this environment, found {}", overlay.called());
            all.error(overlay.spot, what, "write `production: {}`, or the keys that differ");
            return None;
        }
    }
    for (key, _) in overlay.entries() {
        if ["application", "environments"].contains(&key.text()) {
            let what = format!("`{}` cannot differ between environments", key.text());
            all.error(key.spot, what, "take it away here");
        }
    }
    Some(overlay.clone())
}

fn one<K: Kinds>(root: &Node, name: &Name, overlay: Option<&Node>, findings: &Findings) -> Option<Resolved<K>> {
    let mut base = root.clone();
    if let What::Map(entries) = &mut base.what {
        entries.retain(|(key, _)| key.text() != "environments");
    }
    let merged = overlay.map_or_else(|| base.clone(), |overlay| base.overlaid(overlay));
    let kinds: Vec<&str> = K::component_kinds().iter().map(|kind| kind.name).collect();
    let merged = crate::each::written_out(&merged, &kinds, findings);
    let production = match merged.get("production") {
        Some((key, node)) => crate::read::read::<bool>(node, key.spot, findings).unwrap_or(true),
        None => name.as_str() == PRODUCTION,
    };
    // What the plan's digest covers: the file as it counts here, whatever its comments and formatting.
    let config = Digest::of_value(&(name, production, merged.canonical()));
    resolve::<K>(&merged, name, production, config, findings)
}
