//! The append: every rule about what may be written, once for all stores.

use ripcord_core::{AppId, AppendError, Batch, Event, Lease, LeaseOn, Seq, StoreError};

use crate::lease::Admitted;
use crate::materialise::{Folds, materialise};
use crate::seal::Raw;
use crate::tables::{Put, Tables};

/// Appends within one transaction. The caller commits on success and on [`AppendError::LostLease`], by which a lapse seen is
/// written down and nothing else is; on any other error it rolls back and forgets `folds`.
pub(crate) fn append(
    tables: &mut impl Tables,
    folds: &mut Folds,
    lease: &Lease,
    after: Seq,
    batch: &Batch,
) -> Result<Vec<Event>, AppendError> {
    let LeaseOn::App(app) = &lease.on else {
        return Err(refused("a journal is written under its application's lease, not under another"));
    };
    admit(tables, lease)?;
    let (head, mut prev) = tables.head(app)?;
    if head != after {
        return written_before(tables, app, after, batch)?.ok_or(AppendError::Conflict { at: head });
    }
    // Before the events: a proposal's plan comes in the same batch.
    for blob in &batch.blobs {
        tables.put_blob(&ripcord_core::Digest::of(blob), blob)?;
    }
    let mut events = Vec::with_capacity(batch.events.len());
    let mut seq = head;
    for new in &batch.events {
        seq = seq.next();
        let (raw, event) = Raw::seal(app, seq, lease.epoch, new, prev)
            .map_err(|why| refused(format!("event {seq} would not read back: {why}")))?;
        if tables.put_event(&raw, &event)? == Put::UsedBefore {
            return Err(refused(format!("event {seq}: the identity `{}` was used before", new.id)));
        }
        materialise(tables, folds, &event)?;
        prev = event.hash;
        events.push(event);
    }
    if !events.is_empty() {
        tables.put_head(app, seq, prev)?;
    }
    beside(tables, app, batch)?;
    Ok(events)
}

fn admit(tables: &mut impl Tables, lease: &Lease) -> Result<(), AppendError> {
    let Some(row) = tables.lease(&lease.on)? else { return Err(AppendError::LostLease) };
    match row.admits(lease, tables.now()?) {
        Admitted::Yes => Ok(()),
        Admitted::No => Err(AppendError::LostLease),
        Admitted::TooLate => {
            tables.put_lease(&lease.on, &row.lapsed())?;
            Err(AppendError::LostLease)
        }
    }
}

/// The events as a former try wrote them, where they are right after `after`.
fn written_before(
    tables: &impl Tables,
    app: &AppId,
    after: Seq,
    batch: &Batch,
) -> Result<Option<Vec<Event>>, AppendError> {
    if batch.events.is_empty() {
        return Ok(None);
    }
    let there = tables.events(app, after, batch.events.len())?;
    let same = there.iter().map(|event| &event.id).eq(batch.events.iter().map(|event| &event.id));
    Ok(same.then_some(there))
}

/// What is kept beside the journal and not folded from it.
fn beside(tables: &mut impl Tables, app: &AppId, batch: &Batch) -> Result<(), AppendError> {
    for message in &batch.messages {
        tables.add_message(app, message)?;
    }
    for (id, outgoing) in &batch.outbox {
        tables.put_outgoing(app, id, outgoing.as_ref())?;
    }
    for (trigger, memory) in &batch.memories {
        tables.put_memory(app, trigger, memory)?;
    }
    for (id, reply) in &batch.replies {
        if !tables.answer(app, *id, reply)? {
            return Err(refused(format!("there is no request {id} of `{app}` to reply to")));
        }
    }
    Ok(())
}

/// Something that must not be on the record: a mistake of the writer's, that trying again does not mend.
pub(crate) fn refused(why: impl Into<String>) -> AppendError {
    AppendError::Down(StoreError::Unavailable { why: format!("refused: {}", why.into()) })
}
