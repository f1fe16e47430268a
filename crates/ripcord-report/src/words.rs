//! States, lengths and figures as a person says them. What comes back is Markdown already, unless it says otherwise.

use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    Authority, Blame, Check, Condition, Destroys, End, Hold, Loss, Means, Obligation, Owed, ParkedWhy, Phase,
    ProofLevel, Purpose, Rule, Run, RunState, between, human,
};

use crate::markdown::{code, text};

pub(crate) const UNKNOWN: &str = "unknown";

/// To the second, in UTC.
pub(crate) fn when(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

pub(crate) fn when_known(at: Option<Timestamp>) -> String {
    at.map_or_else(|| UNKNOWN.to_owned(), when)
}

/// `T+1:02.5`, `T-0:10.0`, `T+1:00:00.0`.
pub(crate) fn offset(zero: Timestamp, at: Timestamp) -> String {
    let (sign, apart) = if at < zero { ('-', between(at, zero)) } else { ('+', between(zero, at)) };
    let tenths = apart.as_millis() / 100;
    let (h, min, s, tenth) = (tenths / 36_000, tenths / 600 % 60, tenths / 10 % 60, tenths % 10);
    match h {
        0 => format!("T{sign}{min}:{s:02}.{tenth}"),
        _ => format!("T{sign}{h}:{min:02}:{s:02}.{tenth}"),
    }
}

pub(crate) fn length(length: Option<Duration>) -> String {
    length.map_or_else(|| UNKNOWN.to_owned(), human)
}

/// From one moment to the next, where both are known.
pub(crate) fn apart(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<Duration> {
    Some(between(from?, to?))
}

/// Four significant digits, without zeros that say nothing.
pub(crate) fn figure(value: Option<f64>) -> String {
    let Some(value) = value else { return UNKNOWN.to_owned() };
    if value == 0.0 || !value.is_finite() {
        return format!("{}", value + 0.0);
    }
    // A journal may hold any number: past these the digits would be a line of zeros.
    if !(1e-6..1e15).contains(&value.abs()) {
        return format!("{value:.3e}");
    }
    let whole = value.abs().log10().floor() as i32 + 1;
    let decimals = usize::try_from(4 - whole).unwrap_or(0);
    let said = format!("{value:.decimals$}");
    match said.contains('.') {
        true => said.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => said,
    }
}

pub(crate) fn version(version: Option<&str>) -> String {
    version.map_or_else(|| "an unknown version".to_owned(), text)
}

/// What the run was for, in a few words.
pub(crate) fn aim(run: &Run) -> String {
    let plan = &run.plan;
    let level = format!("level {} ({})", plan.rung.level, text(&plan.rung.name));
    let what = match &plan.rung.means {
        Means::Set { .. } => format!("{level} within {}", version(plan.from_version.as_deref())),
        Means::Restore { .. } => {
            format!("from {} to {}", version(plan.from_version.as_deref()), version(plan.to_version.as_deref()))
        }
    };
    match &plan.purpose {
        Purpose::Rollback => format!("rollback {what}"),
        Purpose::Deploy => format!("deployment {what}"),
        Purpose::Undo { of } => format!("undo of {}", text(of)),
        Purpose::Drill { .. } => format!("drill: rollback {what}"),
    }
}

/// How the run stands, in a word or two. `Rolled back` is never said for `succeeded`, nor the other way round.
pub(crate) fn outcome(state: &RunState) -> &'static str {
    match state {
        RunState::Waiting => "waiting for an answer",
        RunState::Approved => "approved, not begun",
        RunState::Running => "running",
        RunState::Watching { .. } => "restored, being watched",
        RunState::Parked(_) => "PARKED",
        RunState::Ended(End::Succeeded) => "succeeded",
        RunState::Ended(End::Insufficient) => "insufficient",
        RunState::Ended(End::Declined) => "declined",
        RunState::Ended(End::Expired) => "expired unanswered",
        RunState::Ended(End::Superseded) => "superseded",
        RunState::Ended(End::Abandoned { .. }) => "ABANDONED",
    }
}

pub(crate) fn parked(why: &ParkedWhy) -> String {
    match why {
        ParkedWhy::Failed { step, what, .. } => format!("step {} failed: {}", code(step), text(what)),
        ParkedWhy::InDoubt { step, found } => {
            format!("what step {} did cannot be found out: {}", code(step), text(found))
        }
        ParkedWhy::Inconclusive { step: Some(step), why } => {
            format!("{} came to no verdict: {}", code(step), text(why))
        }
        ParkedWhy::Inconclusive { step: None, why } => format!("no verdict: {}", text(why)),
        ParkedWhy::Insufficient { why } => format!("everything was done and the symptom remains: {}", text(why)),
        ParkedWhy::HalfWay { what } => {
            format!("everything was done and the release is not all there: {}", text(what.join("; ")))
        }
        ParkedWhy::OtherAdapter { step, written_by, have } => {
            format!("step {} was planned by {}, and this is {}", code(step), text(written_by), text(have))
        }
    }
}

pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Preflight => "preflight",
        Phase::Stage => "stage",
        Phase::Capture => "capture",
        Phase::Quiesce => "quiesce",
        Phase::Restore => "restore",
        Phase::Start => "start",
        Phase::VerifyClosed => "verify closed",
        Phase::Resume => "resume",
        Phase::VerifyOpen => "verify open",
    }
}

pub(crate) fn proof(level: ProofLevel) -> &'static str {
    match level {
        ProofLevel::Written => "written, not read back",
        ProofLevel::ReadBack => "read back",
        ProofLevel::Restored => "restored in a trial",
        ProofLevel::Drilled => "proven in a drill",
    }
}

pub(crate) fn destroys(destroys: Destroys) -> String {
    match destroys {
        Destroys::Nothing => "nothing".to_owned(),
        Destroys::SetAside { keep } => format!("sets aside, kept {}", human(keep)),
        Destroys::GivesUp => "**gives up**".to_owned(),
    }
}

/// The verdict in a word, and what was found.
pub(crate) fn check(verdict: &Check) -> (&'static str, String) {
    match verdict {
        Check::Pass { found } => ("passed", text(found)),
        Check::Fail { what } => ("**failed**", what.iter().map(text).collect::<Vec<_>>().join("; ")),
        Check::Inconclusive { why } => ("**no verdict**", text(why)),
    }
}

/// What is owed, in one line; what is still off stands out.
pub(crate) fn owed(obligation: &Obligation) -> String {
    let what = format!("{} ({}, since {})", text(&obligation.owed), text(&obligation.id), when(obligation.since));
    match &obligation.state {
        Owed::Open => format!("**STILL OFF: {what}**"),
        Owed::Paid { at } => format!("{what}: on again at {}", when(*at)),
        Owed::Taken { by, reason } => {
            format!(
                "**{what}: taken over by {}** ({}); whether it is on again is not on this record",
                text(by),
                text(reason)
            )
        }
    }
}

pub(crate) fn blame(blame: &Blame) -> String {
    match blame {
        Blame::Suspect { release, version, age_ms } => {
            let age = human(Duration::from_millis(*age_ms));
            format!("{} ({}), {age} old at the time, is the suspect", text(version), text(release))
        }
        Blame::Unlikely { why } => format!("the live release is unlikely to be the cause: {}", text(why)),
        Blame::NoRelease => "there was no release to blame".to_owned(),
    }
}

pub(crate) fn authority(authority: &Authority) -> String {
    let roles = match authority.roles.is_empty() {
        true => "anybody".to_owned(),
        false => authority.roles.iter().map(text).collect::<Vec<_>>().join(", "),
    };
    let automatic = if authority.automatic { "clear cases need no person; otherwise " } else { "" };
    format!("{automatic}{} of: {roles}, within {}", authority.quorum.max(1), human(authority.answer_within))
}

pub(crate) fn condition(rule: &Rule) -> String {
    let number = |value: f64| figure(Some(value));
    let what = match rule.condition {
        Condition::Above(at) => format!("above {}", number(at)),
        Condition::Below(at) => format!("below {}", number(at)),
        Condition::AboveBaseline { times, floor } => {
            format!("above {} times the baseline and above {}", number(times), number(floor))
        }
        Condition::BelowBaseline { times, floor } => {
            format!("below {} times the baseline, which is above {}", number(times), number(floor))
        }
        Condition::Absent => match rule.absent_for {
            Some(absent) => return format!("nothing seen for {}", human(absent)),
            None => return "absence, for no given time".to_owned(),
        },
    };
    match rule.hold {
        Hold::For { at_least } if at_least.is_zero() => what,
        Hold::For { at_least } => format!("{what} for {}", human(at_least)),
        Hold::Times { count, within } => format!("{what}, {count} times within {}", human(within)),
        Hold::Of { k, n } => format!("{what} in {k} of {n} samples"),
    }
}

/// A loss in one line.
pub(crate) fn loss(loss: &Loss) -> String {
    if loss.is_none() {
        return "nothing".to_owned();
    }
    let mut parts = vec![];
    if !loss.rows.is_empty() {
        let tables = loss.rows.values().filter(|rows| rows.total() > 0).count();
        let (rows, s) = (loss.total_rows(), |n: u64| if n == 1 { "" } else { "s" });
        parts.push(format!("{rows} row{} in {tables} table{}", s(rows), s(tables as u64)));
    }
    parts.extend(loss.other.iter().map(text));
    if let Some(since) = loss.since {
        parts.push(format!("changes since {}", when(since)));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_four_digits() {
        let say = |value| figure(Some(value));
        assert_eq!(
            [
                say(0.0),
                say(0.05),
                say(0.123_456),
                say(12.0),
                say(345.678),
                say(123_456.7),
                say(-0.5),
                say(1e-9),
                say(1e300)
            ],
            ["0", "0.05", "0.1235", "12", "345.7", "123457", "-0.5", "1.000e-9", "1.000e300"]
        );
        assert_eq!(figure(None), "unknown");
    }

    #[test]
    fn offsets_are_read_from_a_clock() {
        let zero = Timestamp::from_second(10_000).unwrap();
        let say = |ms: i64| offset(zero, Timestamp::from_millisecond(10_000_000 + ms).unwrap());
        assert_eq!(
            [say(0), say(62_540), say(-10_000), say(3_600_000)],
            ["T+0:00.0", "T+1:02.5", "T-0:10.0", "T+1:00:00.0"]
        );
    }
}
