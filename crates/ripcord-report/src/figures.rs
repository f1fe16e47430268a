//! What was decided by which figures, and whether the figures came back.

use ripcord_core::{Body, Compared, Evidence, Reading, rederive};

use crate::markdown::{Page, code, text};
use crate::record::{Breach, Record};
use crate::words::{self, UNKNOWN, figure};

pub(crate) fn decision(page: &mut Page, record: &Record<'_>) {
    page.heading(2, "Decision");
    let run = record.run;
    match record.decision() {
        None => page.para(&format!(
            "No decision of the rules is on the record for this run: it was proposed by {}.",
            text(&run.by)
        )),
        Some((at, decision)) => {
            page.para(&format!("**{}** ({}), decided {}.", decision.call, decision.severity, words::when(at)));
            let strategy = decision.strategy.as_ref().map_or_else(|| UNKNOWN.to_owned(), code);
            let ladder = decision.ladder.iter().map(|rung| format!("{} ({})", rung.level, text(&rung.name)));
            let ladder: Vec<String> = ladder.collect();
            let ladder = if ladder.is_empty() { "none".to_owned() } else { ladder.join(", then ") };
            let act_by = decision.act_by.map_or_else(|| "no deadline".to_owned(), words::when);
            let automatic =
                if decision.automatic { "the first level may start without a person" } else { "a person must say yes" };
            page.bullets([
                format!("To be acted on by: {act_by}"),
                format!("Strategy: {strategy}; levels: {ladder}"),
                format!("Authority: {}; {automatic}", words::authority(&decision.authority)),
                format!("Blame: {}", words::blame(&decision.blame)),
                format!("Evidence of the decision: `{}`", decision.evidence),
            ]);
            page.para("Reasons:");
            match decision.reasons.is_empty() {
                true => page.para("None are recorded."),
                false => page.bullets(decision.reasons.iter().map(text)),
            }
            if !decision.facts.figures.is_empty() {
                let rows = decision.facts.figures.iter().map(|(name, value)| vec![code(name), figure(Some(*value))]);
                page.table(&["Figure", "As last measured"], rows);
            }
        }
    }
    answers(page, record);
    evidence(page, record);
}

/// Who said yes or no, and to what.
fn answers(page: &mut Page, record: &Record<'_>) {
    let mut lines: Vec<String> = record
        .of_run()
        .filter_map(|event| match &event.body {
            Body::Answered { by, answer, reason, consent, .. } => {
                let said = match answer {
                    ripcord_core::Answer::Approve => "approved",
                    ripcord_core::Answer::Decline => "declined",
                };
                let reason = reason.as_ref().map_or_else(|| "no reason given".to_owned(), text);
                let consent = consent.as_ref().map(|consent| {
                    format!("; consented at {} to lose {}", words::when(consent.at), words::loss(&consent.loss))
                });
                Some(format!(
                    "{said} by {} at {} ({reason}){}",
                    text(by),
                    words::when(event.at),
                    consent.unwrap_or_default()
                ))
            }
            _ => None,
        })
        .collect();
    if record.run.automatic {
        lines.insert(0, "no answer was needed: policy let this level start by itself".to_owned());
    }
    if lines.is_empty() {
        lines.push("nobody has answered".to_owned());
    }
    page.para("Answers:");
    page.bullets(lines);
}

fn evidence(page: &mut Page, record: &Record<'_>) {
    let breaches = record.breaches();
    page.heading(3, "Evidence");
    if breaches.is_empty() {
        page.para("No breach of a trigger belongs to this run.");
        return;
    }
    page.para("Shares are from 0 to 1, times in seconds.");
    for breach in breaches {
        page.heading(4, &code(breach.trigger));
        page.bullets(one_breach(&breach, (record.evidence)(&breach.evidence).as_ref()));
    }
}

fn one_breach(breach: &Breach<'_>, evidence: Option<&Evidence>) -> Vec<String> {
    let mut lines = vec![format!("breached {}, bad since {}", words::when(breach.at), words::when(breach.since))];
    let least =
        evidence.and_then(|e| e.rule.at_least).map(|least| format!(" (at least {} needed)", figure(Some(least))));
    let n = match breach.n {
        Some(_) => format!(", n = {}{}", figure(breach.n), least.unwrap_or_default()),
        None => String::new(),
    };
    lines.push(format!("value: {}{n}", figure(breach.value)));
    lines.push(format!("baseline: {}", figure(breach.baseline)));
    match evidence {
        None => lines.push(
            "threshold, query and samples: unknown (the evidence itself is not in the record any more)".to_owned(),
        ),
        Some(evidence) => {
            lines.push(format!("threshold: {}", words::condition(&evidence.rule)));
            lines.push(format!("query: {}", code(&evidence.query)));
            lines.push(format!("reading: {}", reading(evidence)));
            lines.push(match rederive(evidence) {
                Ok(()) => "this version derives the same verdict from it".to_owned(),
                Err(disagrees) => format!("**{}**", text(disagrees)),
            });
        }
    }
    let digest = breach.evidence;
    lines.push(format!("evidence: `{digest}`, read it with `ripcord explain {digest}`"));
    lines
}

fn reading(evidence: &Evidence) -> String {
    match &evidence.reading {
        Reading::Empty => "nothing was there".to_owned(),
        Reading::Failed { why } => format!("the observer failed: {}", text(why)),
        Reading::Samples(samples) => {
            let newest = samples.iter().map(|sample| sample.at).max();
            let age = words::length(words::apart(newest, Some(evidence.at)));
            let plural = if samples.len() == 1 { "" } else { "s" };
            format!("{} sample{plural}, the newest {age} old", samples.len())
        }
    }
}

/// Whether the breached signals came back.
pub(crate) fn helped(page: &mut Page, record: &Record<'_>) {
    page.heading(2, "Did it help?");
    let Some((verdict, compared)) = &record.run.helped else {
        page.para("Unknown: the run did not come to the comparison.");
        return;
    };
    let (_, found) = words::check(verdict);
    page.para(&match verdict {
        ripcord_core::Check::Pass { .. } if compared.is_empty() => format!("**Not measured**: {found}."),
        ripcord_core::Check::Pass { .. } => format!("**Yes**: {found}."),
        ripcord_core::Check::Fail { .. } => format!("**No**: {found}."),
        ripcord_core::Check::Inconclusive { .. } => format!("**Unknown**: {found}."),
    });
    if compared.is_empty() {
        return;
    }
    let breaches = record.breaches();
    let row = |c: &Compared| {
        // The engine leaves the figure of the breach to the breach's own event.
        let breached =
            c.breached_at.or_else(|| breaches.iter().find(|b| *b.trigger == c.trigger).and_then(|b| b.value));
        let baseline = c.baseline.map_or_else(|| UNKNOWN.to_owned(), |value| figure(Some(value)));
        let recovered = if c.recovered { "yes" } else { "**no**" };
        vec![code(&c.trigger), baseline, figure(breached), figure(c.now), recovered.to_owned()]
    };
    page.table(
        &["Trigger", "Before the release", "At the breach", "After the run", "Recovered"],
        compared.iter().map(row),
    );
}
