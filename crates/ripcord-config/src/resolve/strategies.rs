//! Strategies: ladders of levels, each going further back than the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ripcord_core::{Climb, ComponentId, Means, Name, Nature, Rung};

use super::Cx;
use super::parts::Parts;
use crate::read::{At, read};
use crate::report::Spot;
use crate::tree::Node;
use crate::{Kinds, file};

/// What the default strategy is called.
pub(crate) const STANDARD: &str = "standard";

/// The strategies, and the one that is taken when nobody names one.
pub(crate) fn strategies<K: Kinds>(cx: Cx<'_>, parts: &Parts<K>) -> (BTreeMap<Name, Vec<Rung>>, Option<Name>) {
    let mut strategies = BTreeMap::new();
    for (key, node) in cx.entries("strategies") {
        let name: Option<Name> = cx.name(key.text(), key.spot);
        let rungs = ladder(cx, parts, key, node);
        strategies.extend(name.zip(rungs));
    }
    if cx.entries("strategies").is_empty() {
        strategies.extend(standard(cx, parts));
    }
    (strategies, default(cx))
}

fn default(cx: Cx<'_>) -> Option<Name> {
    let mut known = cx.names("strategies");
    if known.is_empty() {
        known.push(STANDARD);
    }
    if let Some((key, node)) = cx.section("default-strategy") {
        let named: At<String> = read(node, key.spot, cx.findings)?;
        return cx.reference(&named, &known, "strategy");
    }
    match known.as_slice() {
        [only] => only.parse().ok(),
        all if all.contains(&STANDARD) => STANDARD.parse().ok(),
        all => {
            let spot = cx.section("strategies").map_or(cx.top(), |(key, _)| key.spot);
            let help = format!("add `default-strategy: {}`", all.first().copied().unwrap_or(STANDARD));
            cx.findings.error(spot, "none of these strategies is the one to take when nobody names one", help);
            None
        }
    }
}

/// One level that takes back whatever changes by release only.
fn standard<K: Kinds>(cx: Cx<'_>, parts: &Parts<K>) -> Option<(Name, Vec<Rung>)> {
    let scope = versioned(parts);
    if scope.is_empty() && !parts.specs.is_empty() {
        let spot = cx.section("components").map_or(cx.top(), |(key, _)| key.spot);
        let help = "every component here holds data: add `strategies:` with a level whose `restore:` names what is to be taken back";
        cx.findings.error(spot, "there is nothing that a rollback would take back by itself", help);
    }
    let rung = Rung {
        level: 2,
        name: STANDARD.parse().ok()?,
        means: Means::Restore { scope },
        climb: Climb::Ask,
        budget: budget(2),
    };
    Some((STANDARD.parse().ok()?, vec![rung]))
}

fn versioned<K: Kinds>(parts: &Parts<K>) -> BTreeSet<ComponentId> {
    let is = |(id, nature): (&ComponentId, &Nature)| (*nature == Nature::Versioned).then(|| id.clone());
    parts.natures.iter().filter_map(is).collect()
}

/// How long a level should take: the budgets that are usual for toggles, code and a full restore.
fn budget(level: u8) -> Duration {
    Duration::from_secs(match level {
        0 | 1 => 2 * 60,
        2 => 15 * 60,
        _ => 45 * 60,
    })
}

fn ladder<K: Kinds>(cx: Cx<'_>, parts: &Parts<K>, key: &Node, node: &Node) -> Option<Vec<Rung>> {
    let mut rungs = vec![];
    let mut failed = false;
    let mut below: Option<u8> = None;
    let mut names: BTreeSet<String> = BTreeSet::new();
    let items = cx.items(node);
    if items.is_empty() {
        cx.findings.error(
            key.spot,
            format!("strategy `{}` has no levels", key.text()),
            "add `- { level: 2, restore: versioned }`",
        );
        return None;
    }
    for item in items {
        let owner = item.entries().first().map_or(item.spot, |(key, _)| key.spot);
        let Some(written) = read::<file::Rung>(item, owner, cx.findings) else {
            failed = true;
            continue;
        };
        if *written.level == 0 || *written.level > 9 {
            cx.findings.error(
                written.level.spot,
                "a level is a number from 1 to 9",
                "1 toggles, 2 code, 3 full restore",
            );
        }
        if below.is_some_and(|below| *written.level <= below) {
            let what = format!("level {} follows level {}", *written.level, below.unwrap_or_default());
            cx.findings.error(written.level.spot, what, "put the levels in order, each higher than the one before");
        }
        below = Some(*written.level);
        let default = At { value: format!("level-{}", *written.level), spot: owner };
        let name = written.name.as_ref().unwrap_or(&default);
        if !names.insert(name.value.clone()) {
            let what = format!("two levels are called `{}`", name.value);
            cx.findings.error(name.spot, what, "give one of them another `name:`");
        }
        let rung = rung(cx, parts, &written, name, owner);
        failed |= rung.is_none();
        rungs.extend(rung);
    }
    (!failed).then_some(rungs)
}

fn rung<K: Kinds>(cx: Cx<'_>, parts: &Parts<K>, written: &file::Rung, name: &At<String>, owner: Spot) -> Option<Rung> {
    let means = means(cx, parts, written, owner);
    let name: Option<Name> = cx.name(name, name.spot);
    let budget = cx.positive(written.budget, budget(*written.level));
    let climb = written.then.map_or(Climb::Ask, Into::into);
    Some(Rung { level: *written.level, name: name?, means: means?, climb, budget })
}

fn means<K: Kinds>(cx: Cx<'_>, parts: &Parts<K>, written: &file::Rung, owner: Spot) -> Option<Means> {
    let known = cx.names("components");
    match (&written.set, &written.restore) {
        (Some(set), None) => {
            let mut values = BTreeMap::new();
            for (component, keys) in &set.0 {
                if keys.is_empty() {
                    cx.findings.error(component.spot, "there is nothing to set here", "write `KEY: value`");
                }
                let id: Option<ComponentId> = cx.reference(component, &known, "component");
                values.insert(id?, keys.clone());
            }
            if values.is_empty() {
                cx.findings.error(set.spot, "there is nothing to set", "write `component: { KEY: value }`");
                return None;
            }
            Some(Means::Set { values })
        }
        (None, Some(restore)) => {
            let scope = match &restore.value {
                file::Restore::Versioned => versioned(parts),
                file::Restore::Named(names) => {
                    let ids = names.0.iter().map(|name| cx.reference(name, &known, "component"));
                    ids.collect::<Vec<Option<ComponentId>>>().into_iter().collect::<Option<BTreeSet<_>>>()?
                }
            };
            if scope.is_empty() && !parts.specs.is_empty() {
                let help = "name the components to take back: `restore: [web, settings]`";
                cx.findings.error(restore.spot, "this level takes nothing back", help);
            }
            Some(Means::Restore { scope })
        }
        (Some(_), Some(restore)) => {
            cx.findings.error(restore.spot, "a level either sets values or restores", "make two levels of it");
            None
        }
        (None, None) => {
            let help = "add `restore: [component]`, `restore: versioned` or `set: { component: { KEY: value } }`";
            cx.findings.error(owner, "this level does nothing", help);
            None
        }
    }
}
