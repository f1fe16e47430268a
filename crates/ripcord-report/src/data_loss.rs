//! What was given up: which rows, over which time, where they were put beside, and what a person must do about it.

use ripcord_core::{Action, CaptureRef, Destroys, Proof, Step, StepState};

use crate::markdown::{Page, code, text};
use crate::record::Record;
use crate::run_report::TO_FILL;
use crate::steps;
use crate::words::{self, UNKNOWN};

/// Writes the data-loss report; none where the run gave nothing up.
///
/// A run that was stopped in the middle of giving data up has one too: what is not known to be whole is reported as lost.
pub fn data_loss_report(record: &Record<'_>) -> Option<String> {
    if record.run.lost.is_none() && !may_have_lost(record) {
        return None;
    }
    let run = record.run;
    let mut page = Page::default();
    page.heading(1, &format!("Data loss: {}, {}: {}", text(record.app), text(&run.id), words::outcome(&run.state)));
    let off: Vec<String> = run.open_obligations().map(words::owed).collect();
    if !off.is_empty() {
        page.bullets(off);
    }
    page.bullets([
        format!("Date: {}", words::when(run.started.unwrap_or(run.proposed))),
        format!("Run: {}, plan `{}`", words::aim(run), run.digest),
        format!("Backup used: {}", backups(record)),
        format!("Consent: {}", consent(record)),
    ]);
    page.heading(2, "What was lost");
    rows(&mut page, record);
    page.heading(2, "What a person must do");
    page.bullets(to_do(record));
    page.para(&format!("Users told: {TO_FILL}"));
    page.para(&format!("Transactions reviewed: {TO_FILL}"));
    page.para(&format!("Recovered by hand: {TO_FILL}"));
    page.para(&format!(
        "Written {} from the record. Timeline and steps: `ripcord report {}`.",
        words::when(record.generated),
        run.id
    ));
    Some(page.finish())
}

/// The steps by which the plan may lose data: those that give it up, and restores of what changes by use, where the former state
/// is set aside but what was written since is no longer live.
fn losing<'a>(record: &Record<'a>) -> impl Iterator<Item = &'a Step> {
    let (plan, to) = (&record.run.plan, record.to());
    plan.steps.iter().filter(move |step| {
        let flowing = || step.place.as_ref().and_then(|place| to?.map.get(place)).is_some_and(|at| at.flowing);
        let restores = matches!(step.action, Action::Restore { .. });
        step.destroys == Destroys::GivesUp || (restores && !plan.loss_at_most.is_none() && flowing())
    })
}

fn proof<'a>(record: &Record<'a>, step: &Step) -> Option<&'a Proof> {
    match record.run.steps.get(&step.id) {
        Some(StepState::Done { proof, .. }) => Some(proof),
        _ => None,
    }
}

/// Whether a step that may lose data was begun without its outcome telling what was lost.
///
/// So it is with a step that was cut off, and with one found done after an interruption: it is done, and nobody counted.
pub(crate) fn may_have_lost(record: &Record<'_>) -> bool {
    losing(record).any(|step| {
        let said = proof(record, step).is_some_and(|proof| proof.lost.is_some());
        record.begun(&step.id).0 > 0 && !said
    })
}

/// What was lost in one line: never `nothing` where nobody counted.
pub(crate) fn in_short(record: &Record<'_>) -> String {
    let most = || words::loss(&record.run.plan.loss_at_most);
    match (may_have_lost(record), record.run.lost.is_none()) {
        (false, _) => words::loss(&record.run.lost),
        (true, true) => format!("{UNKNOWN}, at most {}", most()),
        (true, false) => format!("{}, and more that is not counted", words::loss(&record.run.lost)),
    }
}

/// Tables with counts, window, salvage.
pub(crate) fn rows(page: &mut Page, record: &Record<'_>) {
    let lost = &record.run.lost;
    if may_have_lost(record) {
        let most = words::loss(&record.run.plan.loss_at_most);
        page.para(&format!("**Not all is counted: a step that may lose data was begun, and no outcome says what was lost.** The plan allows at most: {most}."));
    }
    if lost.rows.is_empty() {
        page.para("Rows: not counted.");
    } else {
        let row = |(table, rows): (&String, &ripcord_core::RowLoss)| {
            vec![
                code(table),
                rows.inserted.to_string(),
                rows.updated.to_string(),
                rows.deleted.to_string(),
                rows.total().to_string(),
            ]
        };
        let total = vec![
            "**all**".to_owned(),
            String::new(),
            String::new(),
            String::new(),
            format!("**{}**", lost.total_rows()),
        ];
        let head = ["Table", "Inserts lost", "Updates lost", "Deletes undone", "Rows"];
        page.table(&head, lost.rows.iter().map(row).chain([total]));
    }
    let until = restored_at(record);
    let window = match (lost.since, until) {
        (Some(since), Some(until)) => format!(
            "{} to {} ({})",
            words::when(since),
            words::when(until),
            ripcord_core::human(ripcord_core::between(since, until))
        ),
        (Some(since), None) => format!("since {}; until {UNKNOWN}", words::when(since)),
        (None, _) => UNKNOWN.to_owned(),
    };
    let other = match lost.other.is_empty() {
        true => "none recorded".to_owned(),
        false => lost.other.iter().map(text).collect::<Vec<_>>().join("; "),
    };
    page.bullets([
        format!("Window: changes made {window}"),
        format!("Not counted in rows: {other}"),
        format!("How the figures were found: {}", lost.how.as_ref().map_or_else(|| UNKNOWN.to_owned(), text)),
    ]);
    let salvage = salvage(record);
    match salvage.is_empty() {
        true => page.para("Salvage: none is recorded."),
        false => {
            page.para("Salvage: set aside by the steps that lost data, and captured from the same places:");
            page.bullets(salvage);
        }
    }
}

/// What the steps that lost data put beside, and the protective captures of the same places.
fn salvage(record: &Record<'_>) -> Vec<String> {
    let losing = lost_by(record);
    let aside = steps::set_aside(record).into_iter().filter(|(id, _)| losing.iter().any(|step| step.id == **id));
    let mut found: Vec<String> = aside.map(|(_, place)| code(place)).collect();
    for row in record.captures.iter().filter(|row| row.run.as_ref() == Some(&record.run.id) && !row.pruned) {
        if losing.iter().any(|step| step.place.as_ref() == Some(&row.of)) {
            let spoiled = row.spoiled.as_ref().map(|why| format!("; **not to be relied on**: {}", text(why)));
            found.push(format!(
                "{}, captured {} ({}): {}{}",
                code(&row.id),
                words::when(row.at),
                words::proof(row.made.proof),
                code(format!("ripcord capture restore {} --to DIR", row.id)),
                spoiled.unwrap_or_default()
            ));
        }
    }
    found
}

/// The steps that lost data or may have.
fn lost_by<'a>(record: &Record<'a>) -> Vec<&'a Step> {
    let may: Vec<_> = losing(record).map(|step| &step.id).collect();
    let said = |step: &&Step| proof(record, step).is_some_and(|proof| proof.lost.is_some());
    record.run.plan.steps.iter().filter(|step| may.contains(&&step.id) || said(step)).collect()
}

/// When the last of them began: what was written before that moment is what was lost.
fn restored_at(record: &Record<'_>) -> Option<jiff::Timestamp> {
    lost_by(record).into_iter().filter_map(|step| record.begun(&step.id).1).max()
}

fn backups(record: &Record<'_>) -> String {
    let used = lost_by(record).into_iter().filter_map(|step| match &step.action {
        Action::Restore { from: Some(CaptureRef::Known(capture)), .. } => Some(capture.clone()),
        Action::Restore { from: Some(CaptureRef::MadeBy(by)), .. } => record.run.captures.get(by).cloned(),
        _ => None,
    });
    let said: Vec<String> = used
        .map(|capture| match record.captures.iter().find(|row| row.id == capture) {
            Some(row) => format!(
                "{} of {}, taken {}, {}",
                code(&capture),
                code(&row.of),
                words::when(row.at),
                words::proof(row.made.proof)
            ),
            None => format!("{}, of which the record knows no more", code(&capture)),
        })
        .collect();
    if said.is_empty() { UNKNOWN.to_owned() } else { said.join("; ") }
}

fn consent(record: &Record<'_>) -> String {
    let by = record.run.approvals.iter().map(|(who, _)| text(who)).collect::<Vec<_>>().join(", ");
    match &record.run.consent {
        Some(consent) => format!("to lose {}, given {} by {by}", words::loss(&consent.loss), words::when(consent.at)),
        None => "**none is on the record**".to_owned(),
    }
}

fn to_do(record: &Record<'_>) -> Vec<String> {
    let run = record.run;
    let mut lines = vec![];
    lines.extend(run.open_obligations().map(|o| format!("{}: it is still off ({})", text(&o.owed), text(&o.id))));
    lines.push("Tell the users whose changes fall in the window.".to_owned());
    lines.push(match salvage(record).is_empty() {
        true => "Review the transactions of the window from logs and partners: no salvage is recorded.".to_owned(),
        false => "Review what was salvaged, and bring back by hand what must not stay lost.".to_owned(),
    });
    if let Some((consent, lost)) = run.consent.as_ref().map(|consent| (&consent.loss, &run.lost))
        && !consent.covers(lost)
    {
        lines.push(format!(
            "**More was lost than was consented to**: {} instead of {}. Find out why.",
            words::loss(lost),
            words::loss(consent)
        ));
    }
    lines
}
