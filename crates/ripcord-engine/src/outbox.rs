//! Delivers what is in the outbox. Telling never blocks doing: this runs beside everything else, and a failed channel falls over
//! to the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::{Body, ChannelId, Outgoing, Retry, StoreError, after};

use tokio::task::JoinSet;

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

/// Delivers everything due, once each: oldest first on each channel, all channels beside each other, so that one that hangs holds up
/// nobody else.
pub async fn flush(desk: &Arc<Desk>) -> Result<(), Stop> {
    let due = match desk.world.store.outbox(desk.world.app(), desk.now()).await {
        Ok(due) => due,
        // What cannot be read now is read later; that the store is down is for those to say who must write to it.
        Err(StoreError::Unavailable { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut queues: BTreeMap<ChannelId, Vec<Outgoing>> = BTreeMap::new();
    for outgoing in due {
        let channels = &outgoing.message.channels;
        // The next channel each time: one that is down holds nothing up.
        if let Some(channel) = channels.get(outgoing.tried as usize % channels.len().max(1)) {
            queues.entry(channel.clone()).or_default().push(outgoing);
        }
    }
    let mut sending: JoinSet<Result<(), Stop>> = JoinSet::new();
    for (channel, queue) in queues {
        let desk = Arc::clone(desk);
        sending.spawn(async move {
            for outgoing in queue {
                let sent = send(&desk, &channel, &outgoing).await;
                let hangs = matches!(sent, Err((_, Retry::Later)));
                sent_or_not(&desk, &channel, outgoing, sent).await?;
                if hangs {
                    break; // What is left for it is due at the next look, when it may be back.
                }
            }
            Ok(())
        });
    }
    while let Some(done) = sending.join_next().await {
        // A channel that panicked is an error of its own; its message is due again.
        done.unwrap_or(Ok(()))?;
    }
    Ok(())
}

type Sent = Result<(), (String, Retry)>;

async fn send(desk: &Desk, channel: &ChannelId, outgoing: &Outgoing) -> Sent {
    match desk.world.parts.channels.get(channel) {
        None => Err(("it is no longer configured".to_owned(), Retry::Never)),
        Some(to) => {
            let cx = desk.world.cx(SEND);
            match tokio::time::timeout(SEND, to.send(&cx, &outgoing.message)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err((error.why, error.retry)),
                Err(_) => Err(("no answer within 10 s".to_owned(), Retry::Later)),
            }
        }
    }
}

/// Writes what became of a delivery, and when it is tried again.
async fn sent_or_not(desk: &Desk, channel: &ChannelId, outgoing: Outgoing, sent: Sent) -> Result<(), Stop> {
    let channels = &outgoing.message.channels;
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
            let told =
                Body::Told { message: outgoing.message.title, channel: channel.clone(), delivered: sent.is_ok(), why };
            entry.event(run, incident, told);
        }
        entry.batch().outbox.push((id, next));
    })
    .await?;
    Ok(())
}
