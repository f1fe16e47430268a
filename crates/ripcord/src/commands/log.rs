//! The journal: in words, as it grows, and whether it is what was written.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Event, Seq, Store as _};
use ripcord_store::VerifyError;

use crate::args::{Common, LogCommand, LogShow};
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::view::log::{EventLine, Whole};
use crate::work::Signals;
use crate::world::{Reach, Station};

pub async fn log(
    common: &Common,
    screen: &Arc<Screen>,
    command: Option<LogCommand>,
    show: LogShow,
) -> Result<Exit, Problem> {
    match command {
        Some(LogCommand::Verify) => verify(common, screen).await,
        Some(LogCommand::Show(show)) => print(common, screen, &show).await,
        None => print(common, screen, &show).await,
    }
}

/// From where on events are wanted.
#[derive(Debug, PartialEq)]
enum From {
    After(Seq),
    At(Timestamp),
}

fn from(typed: Option<&str>) -> Result<From, Problem> {
    let Some(typed) = typed else { return Ok(From::After(Seq(0))) };
    match (typed.parse(), typed.parse()) {
        (Ok(seq), _) => Ok(From::After(Seq(seq))),
        (_, Ok(at)) => Ok(From::At(at)),
        (Err(_), Err(error)) => {
            let error: jiff::Error = error;
            Err(Problem::new(Exit::Usage, format!("`{typed}` is neither an event nor a moment"))
                .cause(error.to_string())
                .help("an event is a number, a moment is written 2026-01-31T12:00:00Z"))
        }
    }
}

async fn print(common: &Common, screen: &Arc<Screen>, show: &LogShow) -> Result<Exit, Problem> {
    let from = from(show.since.as_deref())?;
    let station = Station::open(common, screen, Reach::Record).await?;
    let wanted = |event: &Event| {
        let late = match &from {
            From::After(_) => true,
            From::At(at) => event.at >= *at,
        };
        late && show.run.as_ref().is_none_or(|run| event.run.as_ref() == Some(run))
    };
    let mut after = match &from {
        From::After(seq) => *seq,
        From::At(_) => Seq(0),
    };
    let mut signals = Signals::new()?;
    loop {
        let page = station.store.read(station.app(), after, 500).await?;
        if let Some(last) = page.last() {
            after = last.seq;
            for event in page.iter().filter(|event| wanted(event)) {
                screen.show_line(&EventLine(event))?;
            }
            continue;
        }
        if !show.follow {
            return Ok(Exit::Done);
        }
        tokio::select! {
            () = signals.next() => return Ok(Exit::Done),
            _ = station.store.wait_changed(station.app(), after, Duration::from_secs(60)) => {}
        }
    }
}

async fn verify(common: &Common, screen: &Arc<Screen>) -> Result<Exit, Problem> {
    let station = Station::open(common, screen, Reach::Record).await?;
    let journal = station.store.verify_journal(station.app(), None).await;
    let blobs = station.store.verify_blobs().await;
    let broken = |at: Option<u64>, why: String| Whole {
        whole: false,
        events: 0,
        head: None,
        blobs: 0,
        tampered_at: at,
        why: Some(why),
    };
    let view = match (journal, blobs) {
        (Err(VerifyError::Down(error)), _) | (_, Err(VerifyError::Down(error))) => return Err(error.into()),
        (Err(VerifyError::Tampered { at, why }), _) => broken(Some(at.0), why),
        // A blob belongs to no one event.
        (Ok(_), Err(VerifyError::Tampered { why, .. })) => broken(None, why),
        (Ok(journal), Ok(blobs)) => Whole {
            whole: true,
            events: journal.events,
            head: Some(journal.head.to_string()),
            blobs,
            tampered_at: None,
            why: None,
        },
    };
    screen.show(&view)?;
    Ok(if view.whole { Exit::Done } else { Exit::CheckFailed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_an_event_and_a_moment_is_a_moment() {
        assert_eq!(from(Some("12")).unwrap(), From::After(Seq(12)));
        assert!(matches!(from(Some("2026-01-31T12:00:00Z")).unwrap(), From::At(_)));
        assert!(from(Some("yesterday")).is_err());
    }
}
