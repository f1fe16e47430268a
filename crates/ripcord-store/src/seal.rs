//! The chain: what exactly is hashed, and how a stored row becomes an event again.
//!
//! The canonical line of an event is its JSON without spaces, fields in the order `id, app, seq, epoch, at, run, incident, version,
//! body, prev` (`run` and `incident` only where there is one), the body exactly as stored. `hash` is `sha256:` and the SHA-256 of
//! that line; `prev` is the hash before it, or 64 zeros for the first event. An event as printed is the same line with
//! `"hash"` as its last field, so an auditor needs nothing of ours:
//!
//! ```text
//! printf %s "$line" | sed 's/,"hash":"[^"]*"}$/}/' | tr -d '\n' | sha256sum
//! ```
//!
//! A chain alone shows nothing to somebody who can rewrite all of it. The head's hash belongs in a second place (every report and
//! message may carry it), to be compared with later.

use ripcord_core::{AppId, Digest, EVENT_VERSION, Epoch, Event, NewEvent, Seq, StoreError};

/// An event as its row holds it: nothing parsed, so that every byte can be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub id: String,
    pub application: String,
    pub environment: String,
    pub seq: Seq,
    pub epoch: u64,
    pub at: String,
    pub run: Option<String>,
    pub incident: Option<String>,
    pub version: u64,
    pub kind: String,
    pub body: String,
    pub prev: String,
    pub hash: String,
}

impl Raw {
    /// The row of a new event, and the event as anybody will read it back from that row.
    /// # Errors
    /// Says why the event would not read back (a number that JSON cannot hold): such an event would poison the journal.
    pub fn seal(app: &AppId, seq: Seq, epoch: Epoch, new: &NewEvent, prev: Digest) -> Result<(Self, Event), String> {
        let body = serde_json::to_string(&new.body).map_err(|error| error.to_string())?;
        let mut raw = Self {
            id: new.id.clone(),
            application: app.application.to_string(),
            environment: app.environment.to_string(),
            seq,
            epoch: epoch.0,
            at: new.at.to_string(),
            run: new.run.as_ref().map(ToString::to_string),
            incident: new.incident.as_ref().map(ToString::to_string),
            version: u64::from(EVENT_VERSION),
            kind: kind(&body).to_owned(),
            body,
            prev: prev.to_string(),
            hash: String::new(),
        };
        raw.hash = Digest::of(raw.line().as_bytes()).to_string();
        let event = raw.open().map_err(|error| error.to_string())?;
        Ok((raw, event))
    }

    /// The canonical line: what is hashed.
    pub fn line(&self) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let mut line = format!(
            r#"{{"id":{},"app":{{"application":{},"environment":{}}},"seq":{},"epoch":{},"at":{}"#,
            text(&self.id),
            text(&self.application),
            text(&self.environment),
            self.seq,
            self.epoch,
            text(&self.at),
        );
        for (name, value) in [("run", &self.run), ("incident", &self.incident)] {
            if let Some(value) = value {
                line.push_str(&format!(r#","{name}":{}"#, text(value)));
            }
        }
        line.push_str(&format!(r#","version":{},"body":{},"prev":{}}}"#, self.version, self.body, text(&self.prev)));
        line
    }

    /// Whether the row is what was sealed.
    pub fn check(&self) -> Result<(), String> {
        let found = Digest::of(self.line().as_bytes()).to_string();
        if found != self.hash {
            return Err(format!("its hash is {found}, recorded is {}", self.hash));
        }
        // The only column that is not part of the line.
        match kind(&self.body) == self.kind {
            true => Ok(()),
            false => Err(format!("its kind is {:?}, recorded is {:?}", kind(&self.body), self.kind)),
        }
    }

    /// The event, checked against its own hash.
    /// # Errors
    /// [`StoreError::Damaged`] where it is not what was sealed; [`StoreError::Newer`] for a version this engine does not know.
    pub fn open(&self) -> Result<Event, StoreError> {
        let damaged = |why: String| StoreError::Damaged { at: self.seq, why };
        self.check().map_err(damaged)?;
        if self.version > u64::from(EVENT_VERSION) {
            let found = u32::try_from(self.version).unwrap_or(u32::MAX);
            return Err(StoreError::Newer { found, known: u32::from(EVENT_VERSION) });
        }
        let mut line = self.line();
        line.pop();
        line.push_str(&format!(r#","hash":"{}"}}"#, self.hash));
        serde_json::from_str(&line).map_err(|error| damaged(format!("it cannot be read: {error}")))
    }
}

/// The name of the variant a body's JSON begins with: `"started"` or `{"acted":...`.
fn kind(body: &str) -> &str {
    body.trim_start_matches('{').split('"').nth(1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ripcord_core::{Actor, Body, IncidentId, RunId};

    use super::*;

    fn new(body: Body) -> NewEvent {
        NewEvent {
            id: "e\"1".into(),
            at: "2026-11-21T10:00:00.25Z".parse().unwrap(),
            run: Some(RunId::at(Seq(3))),
            incident: Some(IncidentId::at(Seq(2))),
            body,
        }
    }

    fn app() -> AppId {
        AppId { application: "shop".parse().unwrap(), environment: "production".parse().unwrap() }
    }

    #[test]
    fn the_line_is_written_down() {
        let noted = Body::Noted { by: Actor::Policy, text: "line one\nline \"two\" é".into() };
        let (raw, _) = Raw::seal(&app(), Seq(4), Epoch(2), &new(noted), Digest::ZERO).unwrap();
        insta::assert_snapshot!(raw.line(), @r#"{"id":"e\"1","app":{"application":"shop","environment":"production"},"seq":4,"epoch":2,"at":"2026-11-21T10:00:00.25Z","run":"run-3","incident":"inc-2","version":1,"body":{"noted":{"by":{"actor":"policy"},"text":"line one\nline \"two\" é"}},"prev":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}"#);
        assert_eq!(raw.kind, "noted");
    }

    #[test]
    fn an_event_as_printed_is_the_line_and_its_hash() {
        for body in [Body::Started, Body::Noted { by: Actor::Policy, text: String::new() }] {
            let (raw, event) = Raw::seal(&app(), Seq(1), Epoch(1), &new(body), Digest::of(b"before")).unwrap();
            let printed = serde_json::to_string(&event).unwrap();
            assert_eq!(printed.replace(&format!(",\"hash\":\"{}\"}}", event.hash), "}"), raw.line());
            assert_eq!(event.hash, Digest::of(raw.line().as_bytes()));
        }
    }

    #[test]
    fn figures_read_back_to_the_last_digit() {
        for value in [0.1 + 0.2, 5e-324, 123_456_789.123_456_78, f64::MAX] {
            let body = Body::Changed {
                trigger: "errors".parse().unwrap(),
                state: ripcord_core::TriggerState::Ok,
                value: Some(value),
                n: None,
                baseline: None,
                evidence: Digest::ZERO,
            };
            let (_, event) = Raw::seal(&app(), Seq(1), Epoch(1), &new(body.clone()), Digest::ZERO).unwrap();
            assert_eq!(event.body, body);
        }
    }

    #[test]
    fn what_would_not_read_back_is_not_written() {
        let at = "2026-11-21T10:00:00Z".parse().unwrap();
        let figure = ripcord_core::Baseline { value: f64::NAN, samples: 1, from: at, to: at };
        let body = Body::Baseline {
            release: ripcord_core::ReleaseId::at(Seq(1)),
            figures: [("errors".parse().unwrap(), figure)].into(),
        };
        assert!(Raw::seal(&app(), Seq(1), Epoch(1), &new(body), Digest::ZERO).is_err());
    }

    #[test]
    fn an_event_of_a_newer_engine_is_refused() {
        let (mut raw, _) = Raw::seal(&app(), Seq(1), Epoch(1), &new(Body::Started), Digest::ZERO).unwrap();
        raw.version = 99;
        raw.hash = Digest::of(raw.line().as_bytes()).to_string();
        assert_eq!(raw.open(), Err(StoreError::Newer { found: 99, known: u32::from(EVENT_VERSION) }));
    }
}
