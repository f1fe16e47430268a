//! Events and states as a person reads them in a line.

use jiff::Timestamp;
use ripcord_core::{
    Answer, Body, Check, Condition, Destroys, End, Event, Follows, Hold, Loss, Means, Origin, Outcome, Phase,
    ProofLevel, Purpose, Reading, Release, RunState, Standing, TriggerState, Unit, Verb, Verdict, between, human,
};
use ripcord_engine::parked;

/// To the second, in UTC.
pub fn when(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// How long ago, for something that is still so.
pub fn since(at: Timestamp, now: Timestamp) -> String {
    format!("since {} ({})", when(at), human(between(at, now)))
}

/// `1 row`, `2 rows`.
pub fn count(n: u64, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// Four significant digits, without zeros that say nothing.
pub fn figure(value: f64) -> String {
    if value == 0.0 || !value.is_finite() || !(1e-6..1e15).contains(&value.abs()) {
        return format!("{value}");
    }
    let whole = value.abs().log10().floor() as i32 + 1;
    let decimals = usize::try_from(4 - whole).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A value in the unit people wrote its threshold in.
pub fn in_unit(value: f64, unit: Option<Unit>) -> String {
    match unit {
        Some(Unit::Ratio) => format!("{} %", figure(value * 100.0)),
        Some(Unit::Seconds) => format!("{} s", figure(value)),
        Some(Unit::Bytes) => format!("{} bytes", figure(value)),
        Some(Unit::Failing) if value == 0.0 => "0 (well)".to_owned(),
        Some(Unit::Failing) => format!("{} (failing)", figure(value)),
        Some(Unit::Number) | None => figure(value),
    }
}

pub fn trigger_state(state: &TriggerState, now: Option<Timestamp>) -> String {
    let from = |at: &Timestamp| now.map_or_else(|| format!("since {}", when(*at)), |now| since(*at, now));
    match state {
        TriggerState::Ok => "ok".to_owned(),
        TriggerState::Pending { since } => format!("pending {}", from(since)),
        TriggerState::Breached { since } => format!("breached {}", from(since)),
        TriggerState::Recovering { since } => format!("recovering {}", from(since)),
        TriggerState::NoData { since } => format!("no data {}", from(since)),
        TriggerState::Error { since, why } => format!("error {}: {why}", from(since)),
    }
}

pub fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Above(value) => format!("above {}", figure(*value)),
        Condition::Below(value) => format!("below {}", figure(*value)),
        Condition::AboveBaseline { times, floor } => {
            format!("above {} times the baseline, and above {}", figure(*times), figure(*floor))
        }
        Condition::BelowBaseline { times, floor } => {
            format!("below {} times a baseline that is above {}", figure(*times), figure(*floor))
        }
        Condition::Absent => "nothing at all".to_owned(),
    }
}

pub fn hold(hold: &Hold) -> String {
    match hold {
        Hold::For { at_least } => format!("for {}", human(*at_least)),
        Hold::Times { count, within } => format!("{count} times within {}", human(*within)),
        Hold::Of { k, n } => format!("{k} of {n} samples"),
    }
}

pub fn follows(follows: Follows) -> &'static str {
    match follows {
        Follows::Decide => "the matrix decides",
        Follows::Page => "a person is told",
        Follows::Shadow => "counted, never acted on",
    }
}

pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Undecided => "undecided".to_owned(),
        Verdict::Good { by, .. } => format!("good: {by}"),
        Verdict::Bad { why, .. } => format!("bad: {why}"),
    }
}

pub fn verdict_word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Undecided => "undecided",
        Verdict::Good { .. } => "good",
        Verdict::Bad { .. } => "bad",
    }
}

pub fn standing(standing: &Standing) -> String {
    match standing {
        Standing::Deploying => "deploying".to_owned(),
        Standing::Live => "live".to_owned(),
        Standing::Superseded => "superseded".to_owned(),
        Standing::RolledBack { by } => format!("rolled back by {by}"),
        Standing::Interrupted => "interrupted".to_owned(),
    }
}

pub fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Deployed { command } => format!("deployed by `{}`", command.join(" ")),
        Origin::Observed => "recorded as it was seen".to_owned(),
        Origin::Restored { run } => format!("restored by {run}"),
    }
}

pub fn state(state: &RunState) -> String {
    match state {
        RunState::Waiting => "waiting for approval".to_owned(),
        RunState::Approved => "approved, not begun".to_owned(),
        RunState::Running => "running".to_owned(),
        RunState::Watching { until } => format!("restored, watched until {}", when(*until)),
        RunState::Parked(why) => format!("PARKED: {}", parked(why)),
        RunState::Ended(end) => ended(end),
    }
}

pub fn ended(end: &End) -> String {
    match end {
        End::Succeeded => "succeeded".to_owned(),
        End::Insufficient => "insufficient: everything was done, and the symptom remains".to_owned(),
        End::Declined => "declined".to_owned(),
        End::Expired => "expired unanswered".to_owned(),
        End::Superseded => "superseded by another plan".to_owned(),
        End::Abandoned { by, open } if open.is_empty() => format!("abandoned by {by}"),
        End::Abandoned { by, open } => {
            let open: Vec<_> = open.iter().map(ToString::to_string).collect();
            format!("abandoned by {by}; still off: {}", open.join(", "))
        }
    }
}

pub fn phase(phase: Phase) -> &'static str {
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

pub fn proof(level: ProofLevel) -> &'static str {
    match level {
        ProofLevel::Written => "written",
        ProofLevel::ReadBack => "read back",
        ProofLevel::Restored => "restored in a trial",
        ProofLevel::Drilled => "proven by a drill",
    }
}

pub fn destroys(destroys: Destroys) -> Option<String> {
    match destroys {
        Destroys::Nothing => None,
        Destroys::SetAside { keep } => Some(format!("what is there is set aside for {}", human(keep))),
        Destroys::GivesUp => Some("WHAT IS THERE IS GIVEN UP".to_owned()),
    }
}

pub fn means(means: &Means) -> String {
    match means {
        Means::Set { values } => {
            let set = values.iter().flat_map(|(component, values)| {
                values.iter().map(move |(key, value)| format!("{key}={} in `{component}`", plain(value)))
            });
            format!("sets {}", set.collect::<Vec<_>>().join(", "))
        }
        Means::Restore { scope } => {
            format!("restores {}", scope.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
    }
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What is lost, in one line: `12 rows of orders.orders; everything since ..`.
pub fn loss(loss: &Loss, now: Timestamp) -> String {
    if loss.is_none() {
        return "none".to_owned();
    }
    let mut parts: Vec<String> = loss
        .rows
        .iter()
        .filter(|(_, rows)| rows.total() > 0)
        .map(|(table, rows)| format!("{} of {table}", count(rows.total(), "row")))
        .collect();
    parts.extend(loss.other.iter().cloned());
    if let Some(since) = loss.since {
        parts.push(format!("what was written {}", self::since(since, now)));
    }
    parts.join("; ")
}

pub fn purpose(purpose: &Purpose) -> String {
    match purpose {
        Purpose::Deploy => "deployment".to_owned(),
        Purpose::Rollback => "rollback".to_owned(),
        Purpose::Undo { of } => format!("undo of {of}"),
        Purpose::Drill { of } => format!("drill of a {}", self::purpose(of)),
    }
}

pub fn reading(reading: &Reading, unit: Option<Unit>, now: Timestamp) -> String {
    match reading {
        Reading::Samples(samples) => {
            let sample = |s: &ripcord_core::Sample| {
                let labels: Vec<_> = s.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let labels = if labels.is_empty() { String::new() } else { format!(" {{{}}}", labels.join(", ")) };
                let n = s.n.map(|n| format!(" over {}", figure(n))).unwrap_or_default();
                format!("{}{labels}{n}, {} old", in_unit(s.value, unit), human(between(s.at, now)))
            };
            samples.iter().map(sample).collect::<Vec<_>>().join("; ")
        }
        Reading::Empty => "nothing".to_owned(),
        Reading::Failed { why } => format!("the observer failed: {why}"),
    }
}

pub fn check(verdict: &Check) -> String {
    match verdict {
        Check::Pass { found } => format!("passed: {found}"),
        Check::Fail { what } => format!("FAILED: {}", what.join("; ")),
        Check::Inconclusive { why } => format!("no verdict: {why}"),
    }
}

/// What an event says, in a line without its time.
pub fn event(event: &Event) -> String {
    let run = event.run.as_ref().map(|run| format!("{run}: ")).unwrap_or_default();
    let incident = event.incident.as_ref().map(ToString::to_string).unwrap_or_default();
    match &event.body {
        Body::Changed { trigger, state, value, n, baseline, .. } => {
            let mut text = format!("trigger `{trigger}` is {}", trigger_state(state, None));
            if let Some(value) = value {
                text.push_str(&format!(", at {}", figure(*value)));
            }
            if let Some(n) = n {
                text.push_str(&format!(" over {}", figure(*n)));
            }
            if let Some(baseline) = baseline {
                text.push_str(&format!(", normally {}", figure(*baseline)));
            }
            text
        }
        Body::Opened { incident } => {
            format!("{} opened at {} by {}: {}", incident.id, incident.severity, incident.by, incident.what)
        }
        Body::Reported { by, what, severity, issue } => {
            let issue = issue.as_ref().map(|issue| format!(" ({issue})")).unwrap_or_default();
            format!("{incident}: reported by {by} at {severity}{issue}: {what}")
        }
        Body::Joined { trigger, severity } => format!("{incident}: `{trigger}` joined at {severity}"),
        Body::Closed { by, why } => format!("{incident} closed by {by}: {why}"),
        Body::Decided { decision } => {
            let automatic = if decision.automatic { ", without asking" } else { "" };
            format!("{incident}: decided: {}{automatic}; {}", decision.call, decision.reasons.join("; "))
        }
        Body::Recorded { release } => format!("{} ({}) recorded: {}", release.id, release.version, recorded(release)),
        Body::Judged { release, verdict } => format!("{release} judged {}", self::verdict(verdict)),
        Body::Stands { release, standing } => format!("{release} is {}", self::standing(standing)),
        Body::Quarantined { quarantine } => format!("version {} quarantined: {}", quarantine.version, quarantine.why),
        Body::Lifted { version, by, why } => format!("version {version} may be deployed again, says {by}: {why}"),
        Body::Baseline { release, figures } => {
            let figures: Vec<_> = figures.iter().map(|(id, b)| format!("`{id}` {}", figure(b.value))).collect();
            match figures.is_empty() {
                true => format!("nothing was measured before {release}: there is no baseline"),
                false => format!("normal before {release}: {}", figures.join(", ")),
            }
        }
        Body::Baking { release, until } => format!("{release} bakes until {}", when(*until)),
        Body::Captured { capture, of, made, .. } => format!("{run}{capture}: `{of}` captured, {} bytes", made.bytes),
        Body::Proven { capture, level } => format!("{capture} proven: {}", proof(*level)),
        Body::Spoiled { capture, why } => format!("{capture} is SPOILED: {why}"),
        Body::Pruned { capture } => format!("{capture} pruned"),
        Body::Proposed { plan, purpose, by, automatic, answer_by, .. } => {
            let waits = match (automatic, answer_by) {
                (true, _) => "; needs nobody".to_owned(),
                (false, Some(by)) => format!("; waits for an answer until {}", when(*by)),
                (false, None) => String::new(),
            };
            format!("{run}{} proposed by {by}, plan {}{waits}", self::purpose(purpose), plan.short())
        }
        Body::Answered { by, answer, reason, consent, .. } => {
            let word = match answer {
                Answer::Approve => "approved",
                Answer::Decline => "declined",
            };
            let loss = if consent.is_some() { ", with consent to the loss" } else { "" };
            format!("{run}{word} by {by}{loss}{}", because(reason.as_deref()))
        }
        Body::Superseded { why, .. } => format!("{run}superseded {why}"),
        Body::Started => format!("{run}started"),
        Body::Held { step, found } => format!("{run}`{step}` is so already: {found}"),
        Body::Intent { step, attempt: 1, .. } => format!("{run}`{step}` begun"),
        Body::Intent { step, attempt, .. } => format!("{run}`{step}` begun, attempt {attempt}"),
        Body::Acted { step, outcome, .. } => match outcome {
            Outcome::Done(proof) => format!("{run}`{step}` done: {}", proof.found),
            Outcome::Failed(failure) => format!("{run}`{step}` FAILED: {}", failure.what),
            Outcome::Unknown { why } => format!("{run}`{step}`: whether it was done is not known: {why}"),
        },
        Body::Verified { step, verdict } => format!("{run}`{step}` {}", check(verdict)),
        Body::Checked { check: name, verdict, .. } => format!("`{name}` {}", check(verdict)),
        Body::Helped { verdict, .. } => match verdict {
            Check::Pass { found } => format!("{run}it helped: {found}"),
            Check::Fail { what } => format!("{run}it did NOT help: {}", what.join("; ")),
            Check::Inconclusive { why } => format!("{run}whether it helped cannot be told: {why}"),
        },
        Body::Watching { until } => format!("{run}restored; watched until {}", when(*until)),
        Body::Parked { why } => format!("{run}PARKED: {}", parked(why)),
        Body::Person { by, verb } => format!("{run}{by} {}", self::verb(verb)),
        Body::Overran { what, budget } => format!("{run}{what} takes longer than its {}", human(*budget)),
        Body::Ended { end } => format!("{run}{}", ended(end)),
        Body::Told { channel, delivered: true, .. } => format!("told by `{channel}`"),
        Body::Told { channel, delivered: false, why, .. } => {
            format!("could NOT be told by `{channel}`{}", because(why.as_deref()))
        }
        Body::Noted { by, text } => format!("{run}{by}: {text}"),
    }
}

fn recorded(release: &Release) -> String {
    let at = release.map.iter().map(|(place, at)| {
        let label = at.label.clone().unwrap_or_else(|| at.revision.short());
        format!("`{place}` {label}")
    });
    let at = at.collect::<Vec<_>>().join(", ");
    match at.is_empty() {
        true => standing(&release.standing),
        false => format!("{}; {at}", standing(&release.standing)),
    }
}

fn because(why: Option<&str>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

fn verb(verb: &Verb) -> String {
    match verb {
        Verb::Pause => "paused it".to_owned(),
        Verb::Resume => "lets it go on".to_owned(),
        Verb::Retry { step: None } => "lets it try again".to_owned(),
        Verb::Retry { step: Some(step) } => format!("lets it try `{step}` again"),
        Verb::Skip { step, reason } => format!("skipped `{step}`: {reason}"),
        Verb::Done { step, evidence } => format!("says `{step}` is done: {evidence}"),
        Verb::Abandon { reason } => format!("abandoned it: {reason}"),
        Verb::Take { obligation, reason } => format!("took over {obligation}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use ripcord_core::RowLoss;

    use super::*;

    #[test]
    fn figures_have_four_digits() {
        let said: Vec<_> = [0.0, 0.25, 1.0 / 3.0, 12.3456, 98765.4, 1e-9].map(figure).into();
        assert_eq!(said, ["0", "0.25", "0.3333", "12.35", "98765", "0.000000001"]);
    }

    #[test]
    fn a_loss_names_tables_rows_and_since_when() {
        let now = Timestamp::from_second(1_700_000_090).unwrap();
        let rows = |inserted| RowLoss { inserted, ..RowLoss::default() };
        let loss = Loss {
            rows: [("orders.orders".to_owned(), rows(12)), ("orders.stock".to_owned(), rows(0))].into(),
            since: Timestamp::from_second(1_700_000_000).ok(),
            other: vec!["sessions".to_owned()],
            how: None,
        };
        let said = self::loss(&loss, now);
        assert_eq!(
            said,
            "12 rows of orders.orders; sessions; what was written since 2023-11-14 22:13:20Z (1 min 30 s)"
        );
        assert_eq!(self::loss(&Loss::none(), now), "none");
    }
}
