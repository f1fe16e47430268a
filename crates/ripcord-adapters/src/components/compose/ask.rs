//! What a service wants of Compose, made from a file of ours alone, and had in one process with what others want meanwhile.
//!
//! What goes wrong for several together is asked for again by each alone, so that each has the error that is its own.

use std::path::Path;

use ripcord_core::{Failure, Output};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::cli::{Cli, Common, Commons, With};
use super::gang::{Coming, Gang};
use crate::components::files::Stop;

type OfProject = Gang<Ask, Result<Output, Stop>>;

/// One at a time works with Compose on a project.
static GANGS: Commons<Common, OfProject> = Commons::new();

/// What one service wants of Compose, to be had together with what others want.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) does: Does,
    pub(super) service: String,
    /// A whole file for this service alone.
    pub(super) file: Value,
    pub(super) containers: usize,
    pub(super) until: Instant,
    /// With nobody else.
    pub(super) alone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// Says whether it takes the file.
    Check,
    /// Makes the containers anew, and lets them be; those that run may take so many seconds to end.
    Recreate { grace: u64 },
}

impl Ask {
    /// Whether it can be had in one file with those.
    fn fits(&self, taken: &[Self]) -> bool {
        let alike = |other: &Self| {
            let section = |ask: &Self, name: &str| ask.file[name].as_object().cloned().unwrap_or_default();
            let agree = |name| {
                let (ours, theirs) = (section(self, name), section(other, name));
                ours.iter().all(|(key, value)| theirs.get(key).is_none_or(|other| other == value))
            };
            self.does == other.does && self.service != other.service && agree("networks") && agree("volumes")
        };
        taken.iter().all(|other| !self.alone && !other.alone && alike(other))
    }

    fn words(together: &[Self]) -> Vec<String> {
        let mut words: Vec<String> = match together.first().map(|first| first.does) {
            None | Some(Does::Check) => return ["config", "--quiet"].map(str::to_owned).into(),
            Some(Does::Recreate { grace }) => {
                // Compose 1.29 sends fractions of seconds where it is not told, which some Engines refuse.
                let timeout = grace.to_string();
                let words = ["up", "--no-start", "--force-recreate", "--no-deps", "--no-build", "--timeout", &timeout];
                words.map(str::to_owned).into()
            }
        };
        let several = together.iter().filter(|ask| ask.containers != 1);
        words.extend(several.flat_map(|ask| ["--scale".to_owned(), format!("{}={}", ask.service, ask.containers)]));
        words.extend(together.iter().map(|ask| ask.service.clone()));
        words
    }

    /// One file for all of them.
    fn file(together: &[Self]) -> Value {
        let mut all = Map::new();
        for (name, section) in together.iter().filter_map(|ask| ask.file.as_object()).flatten() {
            let into = all.entry(name.clone()).or_insert_with(|| json!({}));
            if let (Value::Object(into), Value::Object(section)) = (into, section) {
                into.extend(section.clone());
            }
        }
        all.into()
    }
}

/// A service that is about to want something of Compose.
pub(super) type Seat = Coming<Ask, Result<Output, Stop>>;

impl Cli {
    /// Says that something will be wanted of Compose: those who began together are served together.
    pub(super) fn seat(&self, project: &str) -> Result<Seat, Failure> {
        let ours = With::Ours { file: &[], empty: Path::new("") };
        Ok(GANGS.of(self.common(project, &ours)?).coming())
    }

    /// Has Compose do what is asked, from files of ours alone, in one process with what others ask meanwhile. None where that went
    /// wrong for all of them together: then it is for each to see what became of it, and to ask alone.
    pub(super) async fn done(&self, project: &str, seat: Seat, ask: Ask, empty: &Path) -> Option<Result<String, Stop>> {
        let service = ask.service.clone();
        let work = |together: Vec<Ask>| async move {
            let file = serde_json::to_vec(&Ask::file(&together)).map_err(|error| Failure::never(error.to_string()))?;
            let left = |ask: &Ask| ask.until.saturating_duration_since(Instant::now());
            let limit = together.iter().map(left).min().unwrap_or_default();
            self.run(project, &With::Ours { file: &file, empty }, &Ask::words(&together), limit).await
        };
        let told = seat.done(ask, |taken, one| one.fits(taken), work).await?;
        match &*told.came {
            Ok(output) => Some(Ok(said_of(&service, output, told.together))),
            Err(_) if told.together > 1 => None,
            Err(Stop::Failed(failure)) => Some(Err(Stop::Failed(failure.clone()))),
            Err(Stop::Unknown(why)) => Some(Err(Stop::Unknown(why.clone()))),
        }
    }
}

/// What Compose said of one service, where it worked for several.
fn said_of(service: &str, output: &Output, together: usize) -> String {
    let lines = output.stdout.lines().chain(output.stderr.lines()).map(str::trim_end).filter(|line| !line.is_empty());
    let own: Vec<&str> = lines.filter(|line| together == 1 || line.contains(service)).collect();
    own.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(service: &str, networks: Value) -> Ask {
        let mut file = json!({ "services": { service: { "image": "sha256:ab" } } });
        if networks != json!({}) {
            file["networks"] = networks;
        }
        let until = Instant::now();
        Ask {
            does: Does::Recreate { grace: 10 },
            service: service.to_owned(),
            file,
            containers: 1,
            until,
            alone: false,
        }
    }

    fn shop() -> Value {
        json!({ "default": { "name": "shop_default", "external": true } })
    }

    #[test]
    fn what_is_wanted_together_is_one_file_and_one_command() {
        let two = Ask { containers: 3, ..ask("web", json!({})) };
        let together = [ask("api", shop()), two];
        assert!(together[1].fits(&together[..1]));
        assert_eq!(
            Ask::words(&together).join(" "),
            "up --no-start --force-recreate --no-deps --no-build --timeout 10 --scale web=3 api web"
        );
        let services = json!({ "api": { "image": "sha256:ab" }, "web": { "image": "sha256:ab" } });
        assert_eq!(Ask::file(&together), json!({ "services": services, "networks": shop() }));
    }

    #[test]
    fn what_does_not_go_together_is_not_had_together() {
        let api = [ask("api", shop())];
        assert!(!ask("api", shop()).fits(&api), "twice the same");
        assert!(ask("web", shop()).fits(&api));
        let elsewhere = json!({ "default": { "name": "other_default", "external": true } });
        assert!(!ask("web", elsewhere).fits(&api), "one name for two networks");
        assert!(!Ask { does: Does::Check, ..ask("web", shop()) }.fits(&api));
        assert!(!Ask { does: Does::Recreate { grace: 3 }, ..ask("web", shop()) }.fits(&api));
        assert!(!Ask { alone: true, ..ask("web", shop()) }.fits(&api));
    }

    #[test]
    fn each_is_told_what_was_said_of_it() {
        let text = "Recreating shop_api_1 ... done\n\nRecreating shop_web_1 ... done\n".to_owned();
        let output =
            Output { status: Some(0), stdout: String::new(), stderr: text, cut: false, took: Default::default() };
        assert_eq!(said_of("web", &output, 2), "Recreating shop_web_1 ... done");
        assert_eq!(said_of("web", &output, 1).lines().count(), 2);
    }
}
