//! Documents from the record.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ripcord_core::{Body, Digest, Event, Evidence, RunId, Seq, Store as _};
use ripcord_report::{Record, run_report};
use serde::Serialize;

use crate::args::Common;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::{Screen, View};
use crate::world::{Reach, Station};

/// A document, and where it was written to.
#[derive(Serialize)]
struct Document {
    run: RunId,
    markdown: String,
}

impl View for Document {
    fn text(&self) -> String {
        self.markdown.clone()
    }
}

pub async fn report(common: &Common, screen: &Arc<Screen>, id: &RunId, out: Option<&Path>) -> Result<Exit, Problem> {
    let station = Station::open(common, screen, Reach::Record).await?;
    let run = ripcord_engine::fold(&station.world, id).await?;
    let events = journal(&station).await?;
    let evidence = evidence(&station, &events).await?;
    let ledger = station.store.ledger(station.app()).await?;
    let captures = station.store.captures(station.app()).await?;
    let markdown = run_report(&Record {
        app: station.app(),
        events: &events,
        run: &run,
        ledger: &ledger,
        captures: &captures,
        evidence: &|digest| evidence.get(digest).cloned(),
        generated: station.world.clock.now(),
    });
    let markdown = screen.redactor().clean(&markdown);
    match out {
        Some(path) => {
            std::fs::write(path, markdown).map_err(|error| Problem::io("write", path, &error))?;
            screen.line(&format!("the report of {id} is in {}", path.display()));
            Ok(Exit::Done)
        }
        None => super::shown(screen, &Document { run: id.clone(), markdown }),
    }
}

async fn journal(station: &Station) -> Result<Vec<Event>, Problem> {
    let mut events: Vec<Event> = vec![];
    loop {
        let after = events.last().map_or(Seq(0), |event| event.seq);
        let page = station.store.read(station.app(), after, 1000).await?;
        if page.is_empty() {
            return Ok(events);
        }
        events.extend(page);
    }
}

/// The evidence of every verdict in the journal that the record still has. What cannot be read is as good as lost.
async fn evidence(station: &Station, events: &[Event]) -> Result<BTreeMap<Digest, Evidence>, Problem> {
    let mut found = BTreeMap::new();
    for event in events {
        if let Body::Changed { evidence, .. } = &event.body
            && let Some(bytes) = station.store.blob(evidence).await?
            && let Ok(known) = serde_json::from_slice(&bytes)
        {
            found.insert(*evidence, known);
        }
    }
    Ok(found)
}
