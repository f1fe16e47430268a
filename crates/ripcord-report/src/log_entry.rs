//! One entry of the rollback log: the fields every procedure keeps, from the record, with those only people know left to fill.

use ripcord_core::{Owed, human};

use crate::data_loss;
use crate::markdown::{Page, code, text};
use crate::record::Record;
use crate::run_report::{TO_FILL, verdict};
use crate::words::{self, UNKNOWN};

/// Writes the log entry as a section, to be appended to a log.
pub fn rollback_log_entry(record: &Record<'_>) -> String {
    let run = record.run;
    let mut page = Page::default();
    page.heading(
        2,
        &format!(
            "{} {}, {}: {}",
            words::when(run.proposed),
            text(record.app),
            text(&run.id),
            words::outcome(&run.state)
        ),
    );
    let trigger = match record.incident() {
        Some(incident) if !incident.triggers.is_empty() => {
            incident.triggers.iter().map(code).collect::<Vec<_>>().join(", ")
        }
        Some(incident) => incident.what.map_or_else(|| UNKNOWN.to_owned(), text),
        None => format!("asked for by {}", text(&run.by)),
    };
    let severity = run.severity.map_or_else(|| UNKNOWN.to_owned(), |severity| severity.to_string());
    let scope = run.plan.rung.scope().iter().map(code).collect::<Vec<_>>().join(", ");
    let off = run.obligations.values().filter(|o| !matches!(o.state, Owed::Paid { .. })).count();
    let downtime = match (record.downtime(), off) {
        (_, 1..) => "**not over on this record**".to_owned(),
        (Some(downtime), 0) => human(downtime),
        (None, 0) if !record.acted() => "none".to_owned(),
        (None, 0) => UNKNOWN.to_owned(),
    };
    page.bullets([
        format!("Kind: {}", words::aim(run)),
        format!("Outcome: {}", verdict(record)),
        format!("Trigger: {trigger}"),
        format!("Severity: {severity}"),
        format!("Scope: level {} ({}): {scope}", run.plan.rung.level, text(&run.plan.rung.name)),
        format!("Rollback time: {}", words::length(words::apart(run.started, record.last_effect()))),
        format!("Downtime: {downtime}"),
        format!("Data given up: {}", data_loss::in_short(record)),
        format!("Root cause: {TO_FILL}"),
        format!("Prevention: {TO_FILL}"),
    ]);
    page.finish()
}
