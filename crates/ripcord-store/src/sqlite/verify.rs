//! Whether the record is what was written: every row of a journal read raw, hashed again and folded again.

use ripcord_core::{AppId, Body, Digest, Seq, StoreError};
use rusqlite::{Connection, params};

use super::error::down;
use super::schema::cannot_fold;
use super::tables::{COLUMNS, Sql, int, raw};
use crate::materialise::{Folds, materialise};
use crate::state::{Rows, State};
use crate::tables::Tables;

/// A journal found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    pub events: u64,
    pub head: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The first event at which the record is not what was written.
    #[error("the record was changed at event {at}: {why}")]
    Tampered { at: Seq, why: String },
    #[error(transparent)]
    Down(#[from] StoreError),
}

fn tampered<T>(at: Seq, why: impl Into<String>) -> Result<T, VerifyError> {
    Err(VerifyError::Tampered { at, why: why.into() })
}

/// Damage found is tampering; a store that cannot be read is not.
fn found(error: StoreError) -> VerifyError {
    match error {
        StoreError::Damaged { at, why } => VerifyError::Tampered { at, why },
        error => VerifyError::Down(error),
    }
}

pub(crate) fn journal(
    connection: &mut Connection,
    app: &AppId,
    remembered: Option<(Seq, Digest)>,
) -> Result<Verified, VerifyError> {
    // One transaction: what others append meanwhile is not seen.
    let transaction = connection.transaction().map_err(|error| down(&error))?;
    let sql = Sql { connection: &transaction, clock: None };
    let mut state = State::default();
    let mut folds = Folds::default();
    let (mut seq, mut prev) = (Seq(0), Digest::ZERO);
    let mut seen_remembered = remembered.is_none_or(|at| at == (seq, prev));
    let page = format!(
        "SELECT {COLUMNS} FROM event WHERE application = ?1 AND environment = ?2 AND seq > ?3 ORDER BY seq LIMIT 500"
    );
    let (application, environment) = (app.application.as_str(), app.environment.as_str());
    // Numbers below the first would otherwise not be looked at.
    let mut after = i64::MIN;
    loop {
        let rows = sql.many(&page, params![application, environment, after], raw)?;
        if rows.is_empty() {
            break;
        }
        for raw in rows {
            let raw = raw.map_err(found)?;
            seq = seq.next();
            if raw.seq != seq {
                return tampered(seq, format!("it is missing, the next one there is {}", raw.seq));
            }
            if raw.prev != prev.to_string() {
                return tampered(seq, format!("it follows {}, but the event before it is {prev}", raw.prev));
            }
            let event = raw.open().map_err(found)?;
            prev = event.hash;
            seen_remembered |= remembered == Some((seq, prev));
            if let Body::Proposed { plan, .. } = &event.body
                && let Some(bytes) = sql.blob(plan)?
            {
                if Digest::of(&bytes) != *plan {
                    return tampered(seq, "the plan it names is not the one in the store");
                }
                state.put_blob(plan, &bytes)?;
            }
            if event.run.is_some() {
                state.put_event(&raw, &event)?;
            }
            materialise(&mut state, &mut folds, &event).map_err(|error| found(cannot_fold(seq, error)))?;
        }
        after = int(seq.0);
    }
    let head = sql.head(app).map_err(found)?;
    if head != (seq, prev) {
        return tampered(
            seq.next(),
            format!("the journal ends at {seq} ({prev}), recorded is {} ({})", head.0, head.1),
        );
    }
    if !seen_remembered {
        return tampered(seq, "what was remembered of this journal is not in it: it was written anew");
    }
    beside(&sql.rows(app).map_err(found)?, &state.rows(app), seq)?;
    quarantine(&sql, app, seq)?;
    Ok(Verified { events: seq.0, head: prev })
}

/// What `status` reads must be what the journal says.
fn beside(kept: &Rows, folded: &Rows, seq: Seq) -> Result<(), VerifyError> {
    let differs = |what: &str, same: bool| match same {
        true => Ok(()),
        false => tampered(seq, format!("{what} kept beside the journal are not what it says")),
    };
    differs("the releases", kept.releases == folded.releases)?;
    differs("the runs", kept.runs == folded.runs)?;
    differs("the incidents", kept.incidents == folded.incidents)?;
    differs("the captures", kept.captures == folded.captures)
}

/// The quarantine comes from the journals of all environments.
fn quarantine(sql: &Sql<'_>, app: &AppId, seq: Seq) -> Result<(), VerifyError> {
    let mut quarantined = std::collections::BTreeMap::new();
    let query =
        format!("SELECT {COLUMNS} FROM event WHERE application = ?1 AND kind IN ('quarantined', 'lifted') ORDER BY n");
    for raw in sql.many(&query, [app.application.as_str()], raw)? {
        match raw.and_then(|raw| raw.open()).map_err(found)?.body {
            Body::Quarantined { quarantine } => {
                quarantined.insert(quarantine.version.clone(), quarantine);
            }
            Body::Lifted { version, .. } => {
                quarantined.remove(&version);
            }
            _ => {}
        }
    }
    match quarantined == sql.quarantined(app).map_err(found)? {
        true => Ok(()),
        false => tampered(seq, "the quarantine kept beside the journal is not what it says"),
    }
}

/// Compares every blob with its digest; returns how many there are.
pub(crate) fn blobs(connection: &mut Connection) -> Result<u64, VerifyError> {
    let mut statement = connection.prepare("SELECT digest, bytes FROM blob").map_err(|error| down(&error))?;
    let mut rows = statement.query([]).map_err(|error| down(&error))?;
    let mut count = 0;
    while let Some(row) = rows.next().map_err(|error| down(&error))? {
        let digest: String = row.get(0).map_err(|error| down(&error))?;
        let bytes = row.get_ref(1).and_then(|bytes| Ok(bytes.as_blob()?)).map_err(|error| down(&error))?;
        if Digest::of(bytes).to_string() != digest {
            return tampered(Seq(0), format!("blob {digest} holds something else"));
        }
        count += 1;
    }
    Ok(count)
}
