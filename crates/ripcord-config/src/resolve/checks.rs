//! Checks: a signal, written in place or declared, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ripcord_core::{CheckId, CheckSpec, ComponentId, Digest, Guard, SignalId, SignalSpec, Stage, Unit};

use super::Cx;
use super::parts::{Measured, Parts, TIMEOUT, signal, split};
use crate::figure;
use crate::read::{At, read};
use crate::report::{Spot, suggest};
use crate::tree::{Node, What};
use crate::{Kinds, file};

const WITHIN: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(1);

/// What an assertion may speak of beside the fields of its signal.
const ALWAYS: &[&str] = &["value", "n", "target", "baseline"];

/// Every check of the file; the health checks' names go to their components, the signals written in place to the others.
pub(crate) fn checks<K: Kinds>(cx: Cx<'_>, parts: &mut Parts<K>) -> BTreeMap<CheckId, CheckSpec> {
    let mut all = Checks { cx, declared: cx.names("signals"), found: BTreeMap::new(), taken: BTreeSet::new() };
    for (key, node) in cx.entries("components") {
        let Some((_, health)) = node.get("health") else { continue };
        let mut ids = vec![];
        for (i, item) in cx.items(health).iter().enumerate() {
            let default = health_name(key.text(), i + 1);
            ids.extend(all.check(parts, item, default, Stage::Health));
        }
        if let Some(spec) = key.text().parse::<ComponentId>().ok().and_then(|id| parts.specs.get_mut(&id)) {
            spec.health = ids;
        }
    }
    if let Some((_, verify)) = cx.section("verify") {
        let stages = [("closed", Stage::Closed), ("open", Stage::Open)];
        for (key, list) in verify.entries() {
            match stages.iter().find(|(name, _)| *name == key.text()) {
                Some((name, stage)) => {
                    for (i, item) in cx.items(list).iter().enumerate() {
                        all.check(parts, item, format!("{name}-{}", i + 1), *stage);
                    }
                }
                None => {
                    let help = suggest(key.text(), ["closed", "open"], "possible here");
                    cx.findings.error(key.spot, format!("unknown key `{}`", key.text()), help);
                }
            }
        }
        if verify.entries().is_empty() && !matches!(verify.what, What::Null | What::Map(_)) {
            let what = format!("expected a mapping, found {}", verify.called());
            cx.findings.error(
                verify.spot,
                what,
                "write `closed: [..]`, checked before traffic returns, and `open: [..]`, after",
            );
        }
    }
    all.found
}

/// `check-<component>-<n>`, within the length of a name.
fn health_name(component: &str, n: usize) -> String {
    let whole = format!("check-{component}-{n}");
    match whole.len() <= 63 {
        true => whole,
        false => {
            let start: String = component.chars().take(40).collect();
            format!("check-{start}-{}-{n}", &Digest::of(component.as_bytes()).hex()[..8])
        }
    }
}

struct Checks<'a> {
    cx: Cx<'a>,
    declared: Vec<&'a str>,
    found: BTreeMap<CheckId, CheckSpec>,
    /// Every name given so far, also by checks that are otherwise wrong.
    taken: BTreeSet<String>,
}

impl Checks<'_> {
    fn check<K: Kinds>(&mut self, parts: &mut Parts<K>, node: &Node, default: String, stage: Stage) -> Option<CheckId> {
        let cx = self.cx;
        if !matches!(node.what, What::Map(_)) {
            let what = format!("expected a check, found {}", node.called());
            cx.findings.error(node.spot, what, "write `{ signal: name, assert: condition }`");
            return None;
        }
        let (split, common) = split::<file::Check>(cx, (node, node), K::signal_kinds(), true);
        let written: file::Check = read(&common, node.spot, cx.findings)?;
        let id = self.id(written.name.as_ref(), default, node.spot)?;

        let (signal_id, every) = match (&split, &written.signal) {
            (Some(split), None) => {
                let settings = signal::<K>(cx, split)?;
                let signal_id: SignalId = cx.name(id.as_str(), node.spot)?;
                let every = cx.positive(written.every, EVERY);
                let timeout = cx.positive(written.timeout, TIMEOUT);
                if self.declared.contains(&signal_id.as_str()) {
                    let what = format!("check `{id}` has the name of a declared signal");
                    cx.findings.error(node.spot, what, "give the check another `name:`");
                    return None;
                }
                parts.add_signal(
                    signal_id.clone(),
                    SignalSpec { kind: split.kind.name.into(), every, timeout },
                    settings,
                );
                (signal_id, every)
            }
            (None, Some(name)) => {
                if let Some(timeout) = written.timeout {
                    let help = format!("write it at the signal `{}`", name.value);
                    cx.findings.error(timeout.spot, "a declared signal has its own `timeout`", help);
                }
                let signal_id: SignalId = cx.reference(name, &self.declared, "signal")?;
                let own = parts.signal_specs.get(&signal_id)?.every;
                (signal_id, cx.positive(written.every, own))
            }
            (Some(split), Some(name)) => {
                let what = format!("this check reads two signals: `{}` and `{}`", split.kind.name, name.value);
                cx.findings.error(name.spot, what, "keep one of them");
                return None;
            }
            (None, None) => {
                let kinds: Vec<String> = K::signal_kinds().iter().map(|kind| format!("`{}`", kind.name)).collect();
                let help =
                    format!("name a declared signal with `signal:`, or write one in place: {}", kinds.join(", "));
                cx.findings.error(node.spot, "this check reads no signal", help);
                return None;
            }
        };
        let measured = *parts.measured.get(&signal_id)?;
        let assert = self.assertion(written.assert.as_ref(), measured, node.spot)?;
        let spec = CheckSpec {
            id: id.clone(),
            signal: signal_id,
            assert,
            stage,
            within: cx.positive(written.within, WITHIN),
            passes: self.passes(written.passes),
            at_least: written.at_least.as_ref().and_then(|at| cx.fault(at.spot, figure::events(at))),
            every,
        };
        self.found.insert(id.clone(), spec);
        Some(id)
    }

    fn id(&mut self, written: Option<&At<String>>, default: String, spot: Spot) -> Option<CheckId> {
        let (text, spot) = written.map_or((default.as_str(), spot), |name| (name.value.as_str(), name.spot));
        let id: CheckId = self.cx.name(text, spot)?;
        if !self.taken.insert(text.to_owned()) {
            self.cx.findings.error(spot, format!("two checks are called `{text}`"), "give one of them another `name:`");
            return None;
        }
        Some(id)
    }

    fn passes(&self, written: Option<At<u32>>) -> u32 {
        let Some(passes) = written else { return 1 };
        if *passes == 0 {
            self.cx.findings.error(passes.spot, "a check that need not pass checks nothing", "write `1` or more");
        }
        *passes
    }

    fn assertion(&self, written: Option<&At<String>>, measured: Measured, spot: Spot) -> Option<Guard> {
        match written {
            Some(text) => {
                let known: Vec<&str> = ALWAYS.iter().chain(measured.fields).copied().collect();
                guard(self.cx, text, &known, "known here")
            }
            None if measured.unit == Unit::Failing => Guard::new("value == 0").ok(),
            None => {
                let help = "add `assert:` with a condition such as `value < 0.01` or `status == 200`";
                self.cx.findings.error(spot, "this check does not say what must be true", help);
                None
            }
        }
    }
}

/// A condition in CEL whose every name is one of `known`.
pub(crate) fn guard(cx: Cx<'_>, text: &At<String>, known: &[&str], there_are: &str) -> Option<Guard> {
    let guard = match Guard::new(text.value.as_str()) {
        Ok(guard) => guard,
        Err(error) => {
            let what = match error {
                ripcord_core::GuardError::Syntax { why, .. } => format!("this is not a condition: {}", in_words(&why)),
                other => other.to_string(),
            };
            cx.findings.error(text.spot, what, "write a condition in CEL, such as `status == 200 && value < 0.5`");
            return None;
        }
    };
    let unknown: Vec<&String> = guard.inputs().iter().filter(|input| !known.contains(&input.as_str())).collect();
    for input in &unknown {
        let what = format!("the condition speaks of `{input}`, which is not known here");
        cx.findings.error(text.spot, what, suggest(input, known.iter().copied(), there_are));
    }
    unknown.is_empty().then_some(guard)
}

/// The part of the CEL parser's message that says something to a person: without the list of every token there is.
fn in_words(why: &str) -> String {
    let why = why.split(" expecting ").next().unwrap_or(why);
    let (place, message) = why.split_once(": Syntax error: ").unwrap_or(("", why));
    let message = match message {
        "mismatched input '<EOF>'" => "it ends too early",
        other => other,
    };
    match place.split_once(':') {
        Some((_, column)) => format!("{message} (at character {column})"),
        None => message.to_owned(),
    }
}
