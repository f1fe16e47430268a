//! What is shown of the story, and what is read back from the journal at its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord_core::{AppId, End, Event, Loss, RunState, Seq, Store, Times, human, times};
use ripcord_store::SqliteStore;
use serde::Serialize;

use super::DemoError;

/// One line of the story.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// What happens next, for the reader.
    Chapter { text: String },
    /// A command, as a user would type it.
    Command { argv: Vec<String> },
    /// What a command printed.
    Output { text: String },
    /// How the customers fare.
    Customers { text: String },
}

/// The end of the story, from the record.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub outcome: String,
    pub runs: Vec<RunLine>,
    /// From the first bad sample to the breach.
    pub to_detect_ms: Option<u64>,
    pub to_decide_ms: Option<u64>,
    /// From the decision to everything restored, over all levels.
    pub to_restore_ms: Option<u64>,
    /// From restored to verified and helped.
    pub to_verify_ms: Option<u64>,
    pub downtime_ms: Option<u64>,
    pub lost: Loss,
    pub report: Option<PathBuf>,
    pub requests: u64,
    pub requests_failed: u64,
    /// The directory, where it was kept.
    pub kept: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize)]
pub struct RunLine {
    pub id: String,
    pub ended: String,
}

/// What the journal says of the incident and its runs.
pub(super) async fn read(dir: &Path) -> Result<Summary, DemoError> {
    let record = |error: &dyn std::fmt::Display| DemoError::Record(error.to_string());
    let store = SqliteStore::open(&dir.join(".ripcord")).map_err(|e| record(&e))?;
    let name = |text: &str| text.parse().map_err(|e: ripcord_core::BadName| record(&e));
    let app = AppId { application: name("shop")?, environment: name("production")? };
    let events = store.read(&app, Seq(0), usize::MAX >> 1).await.map_err(|e| record(&e))?;
    let mut rows = store.runs(&app, 20).await.map_err(|e| record(&e))?;
    rows.reverse();
    let ended = |state: &RunState| match state {
        RunState::Ended(End::Succeeded) => "succeeded".to_owned(),
        RunState::Ended(End::Insufficient) => "insufficient: the symptom remained".to_owned(),
        RunState::Ended(End::Superseded) => "superseded".to_owned(),
        other => format!("{other:?}"),
    };
    let runs: Vec<RunLine> =
        rows.iter().map(|row| RunLine { id: row.id.to_string(), ended: ended(&row.state) }).collect();
    let clock: Times = times(&since_the_last_release(&events));
    let ms = |duration: Option<Duration>| duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let lost = events.iter().filter_map(lost).fold(Loss::none(), Loss::and);
    Ok(Summary {
        outcome: runs.last().map_or("no run".to_owned(), |run| run.ended.clone()),
        runs,
        to_detect_ms: ms(clock.to_detect()),
        to_decide_ms: ms(clock.to_decide()),
        to_restore_ms: ms(clock.to_restore()),
        to_verify_ms: ms(clock.to_verify()),
        downtime_ms: ms(clock.downtime),
        lost,
        report: None,
        requests: 0,
        requests_failed: 0,
        kept: None,
    })
}

/// The incident's part of the journal: what came after the last deployment began.
fn since_the_last_release(events: &[Event]) -> Vec<Event> {
    let deployed = |event: &Event| match &event.body {
        ripcord_core::Body::Recorded { release } => release.standing == ripcord_core::Standing::Deploying,
        _ => false,
    };
    let from = events.iter().rposition(deployed).unwrap_or(0);
    events[from..].to_vec()
}

fn lost(event: &Event) -> Option<Loss> {
    match &event.body {
        ripcord_core::Body::Acted { outcome: ripcord_core::Outcome::Done(proof), .. } => proof.lost.clone(),
        _ => None,
    }
}

impl Summary {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let said = |ms: Option<u64>| ms.map_or("unknown".to_owned(), |ms| human(Duration::from_millis(ms)));
        let mut lines: Vec<String> = self.runs.iter().map(|run| format!("{:<9} {}", run.id, run.ended)).collect();
        lines.push(format!("detected   {} after the first bad sample", said(self.to_detect_ms)));
        lines.push(format!("decided    {} later", said(self.to_decide_ms)));
        lines.push(format!("restored   {} after the decision", said(self.to_restore_ms)));
        lines.push(format!("verified   {} after the restore", said(self.to_verify_ms)));
        lines.push(format!("downtime   {}", said(self.downtime_ms)));
        lines.push(format!(
            "customers  {} requests, {} failed or were turned away",
            self.requests, self.requests_failed
        ));
        match self.lost.total_rows() {
            0 => lines.push("data       nothing was given up".to_owned()),
            rows => {
                let tables =
                    self.lost.rows.iter().map(|(table, loss)| format!("{table}: {}", loss.total())).collect::<Vec<_>>();
                lines.push(format!("data       {rows} rows were given up, with consent ({})", tables.join(", ")));
            }
        }
        if let Some(report) = &self.report {
            lines.push(format!("report     {}", report.display()));
        }
        lines
    }
}
