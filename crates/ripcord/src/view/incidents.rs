//! Breaches and reports.

use jiff::Timestamp;
use ripcord_core::Incident;
use serde::Serialize;

use super::table::table;
use crate::screen::{BAD, View, paint};
use crate::words;

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Incidents {
    pub incidents: Vec<Incident>,
}

impl View for Incidents {
    fn text(&self) -> String {
        let row = |incident: &Incident| {
            let state = match incident.closed {
                Some(closed) => format!("closed {}", words::when(closed)),
                None => paint(BAD, "OPEN"),
            };
            let (id, severity) = (incident.id.to_string(), incident.severity.to_string());
            vec![id, severity, words::when(incident.opened), state, incident.what.clone()]
        };
        match self.incidents.is_empty() {
            true => "no incident is on record".to_owned(),
            false => table(&self.incidents.iter().map(row).collect::<Vec<_>>()),
        }
    }
}

/// An open incident on the clock.
pub fn clock(incident: &Incident, now: Timestamp) -> String {
    let triggers: Vec<_> = incident.triggers.iter().map(|trigger| format!("`{trigger}`")).collect();
    let triggers = if triggers.is_empty() { String::new() } else { format!(" [{}]", triggers.join(", ")) };
    let opened = words::since(incident.opened, now);
    format!("{} at {} {opened}: {}{triggers}", incident.id, incident.severity, incident.what)
}
