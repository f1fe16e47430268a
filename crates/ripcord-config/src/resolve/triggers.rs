//! Triggers: rules over signals, their figures in the unit of the signal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ripcord_core::{
    Clear, ComponentId, Condition, Follows, Guard, Hold, Missing, Name, Rule, Severity, SignalId, TriggerId, Unit,
};

use super::matrix::Severities;
use super::parts::{Measured, Parts};
use super::{Cx, checks};
use crate::read::{At, read};
use crate::report::Spot;
use crate::{Kinds, figure, file};

pub(crate) fn triggers<K: Kinds>(
    cx: Cx<'_>,
    parts: &Parts<K>,
    severities: &Severities,
    otherwise: Option<Severity>,
) -> BTreeMap<TriggerId, Rule> {
    let mut rules = BTreeMap::new();
    for (key, node) in cx.entries("triggers") {
        let id: Option<TriggerId> = cx.name(key.text(), key.spot);
        let Some(written) = read::<file::Trigger>(node, key.spot, cx.findings) else { continue };
        let one = One { cx, key: key.spot, written: &written };
        // Each part says its own mistakes, so all are asked before any is given up.
        let signal: Option<SignalId> = cx.reference(&written.signal, &cx.names("signals"), "signal");
        let measured = signal.as_ref().and_then(|signal| parts.measured.get(signal)).copied();
        let condition = one.condition(measured);
        let hold = one.hold(condition);
        let clear = one.clear(condition, measured, hold);
        let when = written.when.as_ref().map(|when| one.guard(when));
        let severity = match &written.severity {
            Some(name) => severities.of(cx, name),
            None => otherwise,
        };
        let issue: Option<Name> = match &written.issue {
            Some(issue) => cx.name(issue, issue.spot),
            None => key.text().parse().ok(),
        };
        let at_least = written.at_least.as_ref().map(|at| cx.fault(at.spot, figure::events(at)));
        let points_at = one.points_at();
        let (Some(id), Some(signal), Some(condition), Some(hold), Some(severity), Some(issue)) =
            (id, signal, condition, hold, severity, issue)
        else {
            continue;
        };
        let Some(spec) = parts.signal_specs.get(&signal) else { continue };
        let rule = Rule {
            id: id.clone(),
            signal,
            condition,
            hold,
            clear,
            at_least: at_least.flatten(),
            missing: written.missing.map_or(Missing::Page, Into::into),
            errors: written.errors.map_or(Missing::Page, Into::into),
            absent_for: written.absent_for.map(|span| cx.positive(Some(span), Duration::ZERO)),
            interval: spec.every,
            when: when.flatten(),
            severity,
            issue,
            follows: written.then.map_or(Follows::Decide, Into::into),
            points_at,
            source: written.source.clone(),
        };
        rules.insert(id, rule);
    }
    rules
}

/// One trigger as written.
struct One<'a> {
    cx: Cx<'a>,
    key: Spot,
    written: &'a file::Trigger,
}

impl One<'_> {
    fn error<T>(&self, spot: Spot, what: &str, help: &str) -> Option<T> {
        self.cx.findings.error(spot, what, help);
        None
    }

    fn condition(&self, measured: Option<Measured>) -> Option<Condition> {
        let Self { cx, written, .. } = self;
        let given = [&written.above, &written.below, &written.above_baseline, &written.below_baseline];
        let mut given = given.into_iter().flatten();
        if let (Some(_), Some(second)) = (given.next(), given.next()) {
            return self.error(
                second.spot,
                "a trigger has one of `above`, `below`, `above-baseline` and `below-baseline`",
                "make two triggers of it",
            );
        }
        if let (Some(floor), None, None) = (&written.floor, &written.above_baseline, &written.below_baseline) {
            return self.error(
                floor.spot,
                "`floor` belongs to a baseline",
                "add `above-baseline: 3x`, or take it away",
            );
        }
        let value = |at: &At<file::Figure>| cx.fault(at.spot, figure::threshold(at, measured?.unit));
        let floor = || written.floor.as_ref().map_or(Some(0.0), value);
        let times = |at: &At<file::Figure>| cx.fault(at.spot, figure::multiple(at));
        if let Some(at) = &written.above {
            return Some(Condition::Above(value(at)?));
        }
        if let Some(at) = &written.below {
            return Some(Condition::Below(value(at)?));
        }
        if let Some(at) = written.above_baseline.as_ref().or(written.below_baseline.as_ref())
            && measured.is_some_and(|measured| measured.unit == Unit::Failing)
        {
            let what = "this signal says whether something fails: it has no baseline";
            return self.error(at.spot, what, "write `above: 0`");
        }
        if let Some(at) = &written.above_baseline {
            if written.floor.is_none() {
                // Three times nothing is nothing: any single event would breach.
                let help = "add `floor:` with a figure that is never bad, such as `1%`";
                return self.error(
                    at.spot,
                    "`above-baseline` needs a `floor`: several times nothing is still nothing",
                    help,
                );
            }
            return Some(Condition::AboveBaseline { times: times(at)?, floor: floor()? });
        }
        if let Some(at) = &written.below_baseline {
            return Some(Condition::BelowBaseline { times: times(at)?, floor: floor()? });
        }
        match measured.map(|measured| measured.unit) {
            Some(Unit::Failing) if written.absent_for.is_none() => Some(Condition::Above(0.0)),
            _ if written.absent_for.is_some() => Some(Condition::Absent),
            Some(_) => self.error(
                self.key,
                "this trigger does not say what is bad",
                "add `above:`, `below:`, `above-baseline:`, `below-baseline:` or `absent-for:`",
            ),
            None => None,
        }
    }

    fn hold(&self, condition: Option<Condition>) -> Option<Hold> {
        let Self { cx, written, .. } = self;
        let spots = [
            written.hold.as_ref().map(|at| at.spot),
            written.times.as_ref().map(|at| at.spot),
            written.occurs.as_ref().map(|at| at.spot),
            written.of.as_ref().map(|at| at.spot),
        ];
        let mut spots = spots.into_iter().flatten();
        if let (Some(_), Some(second)) = (spots.next(), spots.next()) {
            return self.error(second, "a trigger has one of `for`, `times`, `occurs` and `of`", "keep one of them");
        }
        if let Some(span) = &written.hold {
            return Some(Hold::For { at_least: span.value.0 });
        }
        if let Some(times) = &written.times {
            let Some(within) = written.within else {
                return self.error(times.spot, "`times` needs `within`", "add `within: 10m`");
            };
            let within = cx.positive(Some(within), Duration::ZERO);
            return self.times(times.spot, times.value, within);
        }
        if let Some(within) = &written.within {
            return self.error(within.spot, "`within` needs `times`", "add `times: 2`, or write `for:` for how long");
        }
        if let Some(text) = &written.occurs {
            let (count, within) = cx.fault(text.spot, figure::occurs(text))?;
            return self.times(text.spot, count, within);
        }
        if let Some(text) = &written.of {
            let (k, n) = cx.fault(text.spot, figure::of(text))?;
            return Some(Hold::Of { k, n });
        }
        let acts = matches!(written.then, None | Some(file::Follows::Decide));
        if acts && !matches!(condition, None | Some(Condition::Absent)) {
            let help = "add `for: 2m`, `occurs: 2 times within 10m` or `of: 3 of 5`; or `for: 0s` if this is meant";
            cx.findings.warning(self.key, "one bad reading is enough for this trigger", help);
        }
        Some(Hold::For { at_least: Duration::ZERO })
    }

    fn times(&self, spot: Spot, count: u32, within: Duration) -> Option<Hold> {
        if count == 0 {
            return self.error(spot, "no bad reading at all would be enough", "write `1` or more");
        }
        Some(Hold::Times { count, within })
    }

    /// Hysteresis lies on the good side of the threshold, or a breach would end while it lasts.
    fn clear(&self, condition: Option<Condition>, measured: Option<Measured>, hold: Option<Hold>) -> Option<Clear> {
        let clear = self.written.clear.as_ref()?;
        let bad_is_above = match condition? {
            Condition::Above(_) | Condition::AboveBaseline { .. } => true,
            Condition::Below(_) | Condition::BelowBaseline { .. } => false,
            Condition::Absent => {
                return self.error(clear.spot, "this trigger is over as soon as there is data", "take `clear` away");
            }
        };
        let (right, wrong, side) = match bad_is_above {
            true => (&clear.below, &clear.above, "below"),
            false => (&clear.above, &clear.below, "above"),
        };
        if let Some(wrong) = wrong {
            let what = format!("what is bad on one side is good on the other: `clear` needs `{side}`");
            return self.error(wrong.spot, &what, &format!("write `{side}:`"));
        }
        let Some(right) = right else {
            return self.error(clear.spot, &format!("`clear` needs `{side}`"), &format!("add `{side}:`"));
        };
        let at = match condition? {
            Condition::Above(_) | Condition::Below(_) => {
                self.cx.fault(right.spot, figure::threshold(right, measured?.unit))?
            }
            _ => self.cx.fault(right.spot, figure::multiple(right))?,
        };
        let fits = match condition? {
            Condition::Above(bad) | Condition::AboveBaseline { times: bad, .. } => at <= bad,
            Condition::Below(bad) | Condition::BelowBaseline { times: bad, .. } => at >= bad,
            Condition::Absent => true,
        };
        if !fits {
            let what = format!("`{}` is still bad: a breach would end while it lasts", right.value);
            let help = format!(
                "write a figure that is not {} the trigger's own",
                if bad_is_above { "above" } else { "below" }
            );
            return self.error(right.spot, &what, &help);
        }
        let own = match hold {
            Some(Hold::For { at_least }) => at_least,
            _ => Duration::ZERO,
        };
        Some(Clear { at, at_least: clear.hold.map_or(own, |span| span.value.0) })
    }

    /// Over the declared signals. CEL reads `-` as minus, so a name is given there with `_`.
    fn guard(&self, text: &At<String>) -> Option<Guard> {
        let written: Vec<String> =
            self.cx.names("signals").into_iter().map(|name| name.replace(['-', '.'], "_")).collect();
        let known: Vec<&str> = written.iter().map(String::as_str).collect();
        checks::guard(self.cx, text, &known, "declared signals")
    }

    fn points_at(&self) -> BTreeSet<ComponentId> {
        let known = self.cx.names("components");
        self.written.points_at.0.iter().filter_map(|to| self.cx.reference(to, &known, "component")).collect()
    }
}
