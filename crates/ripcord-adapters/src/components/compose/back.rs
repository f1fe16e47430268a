//! What would put another revision in the place of a service: files on disk that say something else, programs that update by
//! themselves, and an Engine that starts again what was stopped.
//!
//! Nothing of it is changed: the files are the user's. It is said in the plan, and again once the service is restored.

use std::collections::BTreeMap;
use std::time::Duration;

use ripcord_core::{Revision, Wanted};
use tokio::time::Instant;

use super::Compose;
use super::sight::{Sight, WATCHTOWER};

/// A program that exchanges containers for newer images by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Updater {
    pub(super) name: &'static str,
    /// By a label of the containers themselves.
    pub(super) told: bool,
}

impl Compose {
    /// What the files on disk would put there, where that is not what is there.
    pub(super) async fn drift(&self, sight: &Sight, limit: Duration, deadline: Instant) -> Option<String> {
        let first = sight.counted().first().copied()?;
        let project = self.project().ok()?;
        let on_disk = match self.cli.on_disk(&project, limit).await {
            Ok(on_disk) => on_disk,
            Err(failure) => {
                let first = failure.what.lines().next().unwrap_or_default();
                return Some(format!("the Compose file cannot be read: {first}"));
            }
        };
        let Some(service) = on_disk.service(&self.service) else {
            return Some("the Compose file on disk has no such service (any more, or in these profiles)".to_owned());
        };
        let mut says = vec![];
        if let Some(image) = &service.image {
            match self.engine.image(image, deadline).await {
                Ok(Some(found)) if found["Id"] == first.image.as_str() => {}
                Ok(Some(found)) => {
                    let id = Revision::exact(found["Id"].as_str().unwrap_or_default()).short();
                    says.push(format!("names {image} ({id})"));
                }
                Ok(None) => says.push(format!("names {image}, which is not on this machine")),
                Err(_) => {}
            }
        }
        let is: BTreeMap<&str, &str> = first.definition.environment().collect();
        let stated = service.environment.iter().flatten();
        // Compose doubles the dollar signs that it prints.
        let unlike = stated.filter(|(key, value)| {
            value.as_ref().is_some_and(|value| is.get(key.as_str()).is_none_or(|is| *is != value.replace("$$", "$")))
        });
        let unlike: Vec<&str> = unlike.map(|(key, _)| key.as_str()).collect();
        if !unlike.is_empty() {
            says.push(format!("sets {} otherwise", unlike.join(", ")));
        }
        (!says.is_empty()).then(|| format!("the Compose file on disk {}", says.join(" and ")))
    }

    /// Who updates the service, because its containers say so or because it updates all that do not refuse.
    pub(super) async fn updaters(&self, sight: &Sight, deadline: Instant) -> Vec<Updater> {
        let mut found: Vec<Updater> = sight.updaters().into_iter().map(|name| Updater { name, told: true }).collect();
        let known = found.iter().any(|one| one.name == WATCHTOWER.name);
        if !known && !sight.refuses(&WATCHTOWER) {
            let running = self.engine.running_images(deadline).await.unwrap_or_default();
            let runs = running.iter().any(|image| image.contains("watchtower"));
            found.extend(runs.then_some(Updater { name: WATCHTOWER.name, told: false }));
        }
        found
    }

    /// All of it, where the service is as seen and where it is to go to another revision.
    pub(super) fn puts_back(
        &self,
        sight: &Sight,
        drift: Option<&str>,
        updaters: &[Updater],
        other: Option<&Wanted>,
    ) -> Vec<String> {
        let mut found: Vec<String> =
            drift.map(|drift| format!("{drift}: the next `up` applies that")).into_iter().collect();
        let Some(first) = sight.counted().first().copied() else { return found };
        if let (None, Some(_)) = (drift, other) {
            found.push(format!(
                "the Compose files on disk still say what is live now ({}): the next `up` applies that, unless they go back too",
                first.image_name
            ));
        }
        if other.is_some() && !sight.runs() && first.restarts_with_the_engine() {
            found.push("it is stopped, and starts again when the Engine does (`restart: always`)".to_owned());
        }
        found.extend(updaters.iter().map(|one| match one.told {
            true => format!("{} is told to put a newer image there by itself", one.name),
            false => format!("{} runs on this Engine, and exchanges what does not refuse for a newer image", one.name),
        }));
        found
    }
}
