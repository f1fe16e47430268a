//! Incidents: declared by a person, listed, closed.

use std::sync::Arc;

use ripcord_core::{Ask, Name, Severity, Store as _};

use super::answer::finish;
use super::request;
use crate::args::{Common, Incident};
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::view::incidents::Incidents;
use crate::view::said::Said;
use crate::world::{Reach, Station};

/// Waits no longer than for the decision, unless what was decided begins at once and is carried out here.
pub async fn declare(
    common: &Common,
    screen: &Arc<Screen>,
    what: String,
    severity: Option<Name>,
    issue: Option<Name>,
) -> Result<Exit, Problem> {
    let station = super::acting(common, screen).await?;
    let severity = severity.map(|name| named(&station, &name)).transpose()?;
    let worked = request(&station, "ripcord declare", Ask::Declare { what, severity, issue }).await?;
    match &worked.run {
        None => super::shown(screen, &Said::new(worked.said.unwrap_or_default())),
        Some(run) => {
            let waiting = run.state == ripcord_core::RunState::Waiting;
            let exit = finish(&station, &worked)?;
            // What was asked for is done: the incident is open. That its answer waits for people is no failure of this.
            Ok(if waiting { Exit::Done } else { exit })
        }
    }
}

fn named(station: &Station, name: &Name) -> Result<Severity, Problem> {
    let application = &station.world.application;
    ripcord_engine::severity_named(application, name).ok_or_else(|| {
        let known: Vec<_> = application.severities.values().map(|rule| rule.name.to_string()).collect();
        Problem::new(Exit::Usage, format!("there is no severity `{name}`"))
            .help(format!("there are: {}", known.join(", ")))
    })
}

pub async fn incident(common: &Common, screen: &Arc<Screen>, incident: Incident) -> Result<Exit, Problem> {
    match incident {
        Incident::List => {
            let station = Station::open(common, screen, Reach::Record).await?;
            let incidents = station.store.incidents(station.app(), 100).await?;
            super::shown(screen, &Incidents { incidents })
        }
        Incident::Close { incident, why } => {
            let station = super::acting(common, screen).await?;
            let known = station.store.incidents(station.app(), 100).await?;
            let found = match &incident {
                Some(id) => known.iter().find(|incident| incident.id == *id),
                None => known.iter().find(|incident| incident.closed.is_none()),
            };
            let Some(found) = found else {
                let what = incident.map_or_else(|| "no incident is open".to_owned(), |id| format!("there is no {id}"));
                return Err(Problem::new(Exit::NothingToDo, what).help("`ripcord incident list` shows them"));
            };
            if found.closed.is_some() {
                return Err(Problem::new(Exit::NothingToDo, format!("{} is closed already", found.id)));
            }
            let ask = Ask::CloseIncident { incident: found.id.clone(), why };
            let worked = request(&station, "ripcord incident close", ask).await?;
            super::shown(screen, &Said::new(worked.said.unwrap_or_default()))
        }
    }
}
