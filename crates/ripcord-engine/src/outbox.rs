//! Delivers what is in the outbox. Telling never blocks doing: this runs beside everything else, and a failed channel falls over
//! to the next.

use std::sync::Arc;
use std::time::Duration;

use ripcord_core::{Body, Outgoing, Retry, StoreError, after};

use crate::desk::{Desk, Stop};

const SEND: Duration = Duration::from_secs(10);
/// How often the outbox is looked at.
const EVERY: Duration = Duration::from_millis(200);
/// A message is given up after this many failed deliveries over all its channels: hours, with the pauses between.
const TRIES: u32 = 30;

/// Delivers until the desk stops.
pub async fn deliver(desk: Arc<Desk>) -> Stop {
    loop {
        if let Err(why) = flush(&desk).await {
            return why;
        }
        tokio::select! {
            why = desk.stopped() => return why,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Delivers everything due, once each, oldest first.
pub async fn flush(desk: &Desk) -> Result<(), Stop> {
    let due = match desk.world.store.outbox(desk.world.app(), desk.now()).await {
        Ok(due) => due,
        // What cannot be read now is read later; that the store is down is for those to say who must write to it.
        Err(StoreError::Unavailable { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for outgoing in due {
        deliver_one(desk, outgoing).await?;
    }
    Ok(())
}

async fn deliver_one(desk: &Desk, outgoing: Outgoing) -> Result<(), Stop> {
    let channels = &outgoing.message.channels;
    // The next channel each time: one that is down holds nothing up.
    let Some(channel) = channels.get(outgoing.tried as usize % channels.len().max(1)).cloned() else { return Ok(()) };
    let sent = match desk.world.parts.channels.get(&channel) {
        None => Err(("it is no longer configured".to_owned(), Retry::Never)),
        Some(to) => {
            let cx = desk.world.cx(SEND);
            match tokio::time::timeout(SEND, to.send(&cx, &outgoing.message)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err((error.why, error.retry)),
                Err(_) => Err(("no answer within 10 s".to_owned(), Retry::Later)),
            }
        }
    };
    let tried = outgoing.tried + 1;
    let all_tried = tried as usize >= channels.len();
    let next = match &sent {
        Ok(()) => None,
        // Every channel refuses it for good: there is nobody left to tell.
        Err((_, Retry::Never)) if all_tried && channels.len() == 1 => None,
        Err(_) if tried >= TRIES => None,
        Err(_) => {
            let round = tried / u32::try_from(channels.len().max(1)).unwrap_or(1);
            let wait =
                if all_tried { Duration::from_secs(1).saturating_mul(1 << round.min(8)) } else { Duration::ZERO };
            Some(Outgoing { tried, next_try: after(desk.now(), wait), ..outgoing.clone() })
        }
    };
    let (run, incident, id) =
        (outgoing.message.run.clone(), outgoing.message.incident.clone(), outgoing.message.id.clone());
    let why = sent.as_ref().err().map(|(why, _)| why.clone());
    // The first failure of each channel and every end is on the record; the tries in between are not worth a line each.
    let record = sent.is_ok() || next.is_none() || tried as usize <= channels.len();
    desk.write(|_, entry| {
        if record {
            entry.event(
                run,
                incident,
                Body::Told { message: outgoing.message.title, channel, delivered: sent.is_ok(), why },
            );
        }
        entry.batch().outbox.push((id, next));
    })
    .await?;
    Ok(())
}
