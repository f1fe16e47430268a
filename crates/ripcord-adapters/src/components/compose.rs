//! A service of a Compose project: observed through the Engine, recreated by Compose.
//!
//! Its revision is the image that runs and how its containers were made, read from the containers and never from the files on disk:
//! those say what somebody would put there next, and where that is something else it is said. A service that is stopped keeps its
//! revision. Nothing but the one service is touched: no `down`, no removal of orphans, no dependencies, networks and volumes left
//! as they are.
//!
//! A restore recreates the containers from a file of ours, made from what was captured and given on standard input. It stands alone, because what a file adds to
//! another (ports, variables) cannot be taken away by a third, and because the files on disk may be what is broken. The image is
//! named by its id or digest. The containers are made and not started, unless they ran: to start them is a step of its own, in the
//! order of what needs what. The tag `ripcord/keep:<project>-<service>-<id>` keeps a captured image from `docker image prune`.
//!
//! Starting what this run did not restore (a configuration changed, and this service reads it) goes through the files on disk, for a
//! `restart` reads no env file again; the image is pinned to the one that is there.

mod act; // captures, restores, starts and stops
mod ask; // what a service wants of Compose, together with others
mod back; // what would put another revision there
mod cli; // the Compose program
mod definition; // how a container was made, in Compose's words
mod gang; // one who acts for all who want the same at once
mod held; // what a capture holds, and the images that are kept for them
mod on_disk; // what the user's files come to
mod programs; // which version a Compose program is
mod ready; // waiting until a service is well
mod sight; // what the Engine has of a service

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_config::wire::{Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CapturePurpose, CaptureRef, Component, ComponentId, Cx,
    Destroys, Downtime, Draft, Failure, Fut, Held, Holds, Inventory, KindVersion, Layer, Lifecycle, Limits,
    Observation, Outcome, Phase, Place, Redo, Revision, Seen, Shown, Step, Survey, TargetId, Want, Wanted, Wish,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use self::ask::Seat;
use self::cli::Cli;
use self::sight::Sight;
use super::files::captures::Captures;
use super::files::{blocking, outcome};
use crate::docker::{Endpoint, Engine};
use crate::{BuildCx, BuildError, ComponentKind};

/// One service of a Compose project.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The service's name in the Compose file.
    pub service: Text,
    /// The project's name. Without it, as Compose derives it: `COMPOSE_PROJECT_NAME`, `name:` in the file, the directory's name.
    #[serde(default)]
    pub project: Option<Text>,
    /// The project's directory, relative to `ripcord.yaml`. Without it, that of the first file, else that of `ripcord.yaml`.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// The Compose files, relative to `ripcord.yaml`. Without them, those Compose finds in the directory.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// Files for `--env-file`, relative to `ripcord.yaml`.
    #[serde(default)]
    pub env_files: Vec<PathBuf>,
    #[serde(default)]
    pub profiles: Vec<Text>,
    /// Where the Docker Engine listens: `unix:///path` or `tcp://host:port`. Without it `DOCKER_HOST`, else the usual socket.
    #[serde(default)]
    pub engine: Option<Text>,
    /// The Compose program. Without it `docker compose`, else `docker-compose`, the one of version 2 or newer first.
    #[serde(default)]
    pub program: Option<Vec<Text>>,
    /// How long a container may take to end by itself. Without it, its own time (10 seconds where it has none).
    #[serde(default)]
    pub stop_grace: Option<Span>,
    /// How long it may take from its start until it is healthy; without a health check, until it has run a while without ending.
    /// A step's own limit counts too (60 seconds, unless the component says otherwise).
    #[serde(default = "ready")]
    pub ready: Span,
    /// Whether images that captures need are kept from pruning by a tag of ours.
    #[serde(default = "yes")]
    pub keep: bool,
}

fn ready() -> Span {
    Span(Duration::from_secs(45))
}

fn yes() -> bool {
    true
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "compose",
        summary: "A service of a Docker Compose project: image and configuration.",
        example: "\
service: api
directory: shop
files: [shop/compose.yaml]
env-files: [shop/.env.production]
ready: 30s
",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        let name = |text: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            !text.is_empty() && text.bytes().all(plain) && !text.starts_with(['-', '.', '_'])
        };
        if !name(self.service.as_str()) {
            let help = "write its name as it stands under `services:`";
            mistakes.push(Mistake::new(format!("`{}` is no service", self.service)).at("service").help(help));
        }
        let lower = |text: &str| name(text) && !text.bytes().any(|b| b.is_ascii_uppercase() || b == b'.');
        if let Some(project) = self.project.as_ref().filter(|project| !lower(project.as_str())) {
            let help = "small letters, digits, `-` and `_`, as `docker compose ls` shows it";
            mistakes.push(Mistake::new(format!("`{project}` is no name of a project")).at("project").help(help));
        }
        if self.program.as_ref().is_some_and(|argv| argv.first().is_none_or(|word| word.as_str().is_empty())) {
            mistakes.push(Mistake::new("`program` is no command").at("program").help("write `[docker, compose]`"));
        }
        mistakes.extend(Endpoint::mistake(self.engine.as_ref().map(Text::as_str)));
        mistakes
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let bad = |why: String| BuildError::new(id, why);
        let endpoint = Endpoint::find(self.engine.as_ref().map(Text::as_str)).map_err(bad)?;
        Ok(Arc::new(Compose {
            cli: Cli::new(self, &endpoint, cx),
            engine: Arc::new(Engine::new(endpoint).map_err(bad)?),
            captures: Captures::new(id, cx),
            state: cx.base.join(".ripcord/compose"),
            key: cx.revision_key,
            service: self.service.to_string(),
            settings: self.clone(),
            seat: Mutex::default(),
        }))
    }
}

struct Compose {
    settings: Settings,
    service: String,
    cli: Cli,
    engine: Arc<Engine>,
    captures: Captures,
    /// Where there is a place for each service, for its lock and for what Compose must find in a file.
    state: PathBuf,
    key: [u8; 32],
    /// Held from its stop until its restore: those who are stopped one after the other are made anew together.
    seat: Mutex<Option<Seat>>,
}

impl Compose {
    fn project(&self) -> Result<String, Failure> {
        self.cli.project()
    }

    /// Takes a place among those who will want something of Compose, or gives it up.
    fn keep_seat(&self, seat: Option<Seat>) -> Option<Seat> {
        std::mem::replace(&mut self.seat.lock().unwrap_or_else(PoisonError::into_inner), seat)
    }

    async fn look(&self, deadline: Instant) -> Result<Sight, Failure> {
        let labels = [
            format!("com.docker.compose.project={}", self.project()?),
            format!("com.docker.compose.service={}", self.service),
            // What `run` made is no replica.
            "com.docker.compose.oneoff=False".to_owned(),
        ];
        let sight = Sight::of(self.engine.labelled(&labels, deadline).await?);
        sight.all.iter().for_each(|replica| replica.definition.teach(self.cli.host.redactor()));
        Ok(sight)
    }

    fn missing_service(&self) -> Failure {
        Failure::never(format!("there is no container of service `{}`", self.service))
            .advise("see that project and service are named right (`docker ps --all`), and deploy it once")
    }

    /// `shop/api:1.2.0 (sha256:ab12.., configuration 3f2a91)`, and the registry's digest where there is one.
    async fn label(&self, sight: &Sight, deadline: Instant) -> (Option<String>, Option<String>) {
        let Some(first) = sight.counted().first().copied() else { return (None, None) };
        let image = self.engine.image(&first.image, deadline).await.ok().flatten().unwrap_or_default();
        let names = held::names(&image);
        let is_name = !first.image_name.contains("sha256:") && !first.image.contains(&first.image_name);
        let name = if is_name { first.image_name.clone() } else { names.first().cloned().unwrap_or_default() };
        let id = Revision::exact(&first.image).short();
        let hash = first.definition.hash(&self.key);
        let inside = format!("{id}, configuration {}", hash.get(..6).unwrap_or_default());
        let label = if name.is_empty() { inside } else { format!("{name} ({inside})") };
        (Some(label), held::digests(&image).into_iter().next())
    }

    fn target(&self, engine_id: &str) -> TargetId {
        let project = self.project().unwrap_or_default();
        let engine = if engine_id.is_empty() { self.engine.endpoint().to_string() } else { engine_id.to_owned() };
        TargetId(format!("docker:{engine}:{project}/{}", self.service))
    }

    async fn available(&self, wanted: &Wanted, present: Option<&Revision>, deadline: Instant) -> Available {
        let missing = |why: String| Available::Missing { why };
        let image = match &wanted.revision {
            Revision::Absent => return Available::Here { how: "its containers are taken away".to_owned() },
            revision => match definition::parts(revision) {
                Some((image, _)) => image.to_owned(),
                None => return missing("it is no revision of a Compose service".to_owned()),
            },
        };
        let how = match &wanted.capture {
            None if present == Some(&wanted.revision) => return Available::Here { how: "it is there now".to_owned() },
            None => return missing("no capture of it was ever made".to_owned()),
            Some(_) => {
                let (captures, wanted) = (self.captures.clone(), wanted.clone());
                match blocking(move |_| captures.available(&wanted)).await {
                    Ok(Available::Here { how }) => how,
                    Ok(missing) => return missing,
                    Err(failure) => return missing(failure.what),
                }
            }
        };
        match self.engine.image(&image, deadline).await {
            Ok(Some(_)) => Available::Here { how: format!("{how}, and its image is here") },
            Ok(None) => missing(format!("image {} is not on this machine", Revision::exact(&image).short())),
            Err(error) => missing(error.to_string()),
        }
    }

    async fn survey_all(&self, cx: &Cx, place: &Place, wanted: &[Wanted]) -> Survey {
        let deadline = Instant::now() + cx.limit - cx.limit / 10;
        let looked = async {
            let sight = self.look(deadline).await?;
            let info = self.engine.info(deadline).await?;
            Ok::<_, Failure>((sight, info["ID"].as_str().unwrap_or_default().to_owned()))
        };
        let (sight, id) = match looked.await {
            Ok(looked) => looked,
            Err(failure) => {
                let mut survey =
                    Survey::new(place.clone(), Seen::Unreachable { why: failure.what.clone() }, self.target(""));
                let none = |wanted: &Wanted| (wanted.clone(), Available::Missing { why: failure.what.clone() });
                survey.available = wanted.iter().map(none).collect();
                return survey;
            }
        };
        let mut survey = Survey::new(place.clone(), sight.seen(&self.key), self.target(&id));
        survey.running = Some(sight.runs());
        survey.instance = sight.instance();
        let digest;
        (survey.label, digest) = self.label(&sight, deadline).await;
        let drift = self.drift(&sight, cx.limit / 2, deadline).await;
        let updaters = self.updaters(&sight, deadline).await;
        let told = updaters.iter().filter(|one| one.told).map(|one| one.name).collect::<Vec<_>>().join(", ");
        let told = (!told.is_empty()).then(|| format!("{told} is told to put a newer image there by itself"));
        let other = wanted.last().filter(|wanted| survey.seen.revision() != Some(&wanted.revision));
        survey.puts_back = self.puts_back(&sight, drift.as_deref(), &updaters, other);
        let facts = [("registry digest", digest), ("on disk", drift), ("updated by", told)];
        survey.facts = facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), fact?))).collect();
        for wanted in wanted {
            let available = self.available(wanted, survey.seen.revision(), deadline).await;
            survey.available.push((wanted.clone(), available));
        }
        survey
    }

    async fn look_for(&self, cx: &Cx, step: &Step, before: Option<&Before>) -> Result<Observation, Failure> {
        let sight = self.look(Instant::now() + cx.limit - cx.limit / 10).await?;
        let well =
            || !sight.counted().is_empty() && sight.counted().iter().all(|one| one.fares() == sight::Fares::Well);
        let neither = |found: String| Holds::Neither { found };
        Ok(match &step.action {
            Action::Restore { to, .. } => {
                let mark = act::mark(&sight, &self.key);
                let ran = before.and_then(|before| before.mark.as_deref()).is_some_and(act::ran);
                let reached =
                    sight.is_at(to, &self.key) && sight.is_whole() && (!ran || *to == Revision::Absent || well());
                let holds = match before {
                    _ if reached => Holds::Target,
                    Some(before) if before.mark.as_ref().is_some_and(|was| *was != mark) => {
                        let ails = sight.all.first().map_or("nothing is there".to_owned(), sight::Replica::ails);
                        neither(format!("{} containers; {ails}", sight.all.len()))
                    }
                    _ => Holds::Origin,
                };
                Observation { holds, mark: Some(mark) }
            }
            Action::Stop => {
                let mark = sight.instance();
                let holds = match (&mark, before) {
                    (None, _) => Holds::Target,
                    (Some(now), Some(before)) if before.mark.as_ref().is_some_and(|was| was != now) => {
                        neither(format!("another instance runs: {now}"))
                    }
                    (Some(_), _) => Holds::Origin,
                };
                Observation { holds, mark }
            }
            Action::Start => {
                let mark = sight.instance();
                let new = before.is_some_and(|before| before.mark != mark);
                let holds = match (&mark, new) {
                    (Some(_), true) if well() => Holds::Target,
                    (Some(_), true) => {
                        let sick = sight.counted().into_iter().find(|one| one.fares() != sight::Fares::Well);
                        neither(sick.map_or(String::new(), |one| format!("`{}` {}", one.name, one.ails())))
                    }
                    _ => Holds::Origin,
                };
                Observation { holds, mark }
            }
            Action::Prove { .. } | Action::Capture { .. } => Holds::Origin.into(),
            Action::Stage { .. }
            | Action::Pause
            | Action::Roll
            | Action::Resume
            | Action::Set { .. }
            | Action::Check { .. }
            | Action::Own { .. } => Holds::CannotTell { why: "a Compose service has no such step".to_owned() }.into(),
        })
    }

    fn shown(&self, verb: &[&str]) -> Vec<String> {
        let program = self.settings.program.as_ref().map(|argv| argv.iter().map(ToString::to_string).collect());
        let program: Vec<String> = program.unwrap_or_else(|| vec!["docker".to_owned(), "compose".to_owned()]);
        let project = self.project().unwrap_or_default();
        let rest = ["-p".to_owned(), project].into_iter().chain(verb.iter().map(|word| (*word).to_owned()));
        program.into_iter().chain(rest).chain([self.service.clone()]).collect()
    }
}

impl Component for Compose {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: Settings::DOC.name.to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            held: Held::Vault,
            redo: Redo::Safe,
            restore: Destroys::Nothing,
            downtime: Downtime::UntilHealthy,
            lifecycle: Lifecycle::Process,
            evidence: true,
            ..Capabilities::NONE
        }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(self.survey_all(cx, place, wanted))
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: &str| CannotPlan { place: wish.place.clone(), why: why.to_owned() };
        let (to, capture) = match &wish.want {
            Want::Revision { revision, capture } => (revision, capture),
            Want::Values(values) if values.is_empty() => return Ok(vec![]),
            Want::Values(_) => return Err(cannot("a service has no single values to set: set them in its env file")),
        };
        let survey = seen.surveys.get(&wish.place).ok_or_else(|| cannot("it was not surveyed"))?;
        if survey.seen.revision() == Some(to) {
            return Ok(vec![]);
        }
        if let Some(Available::Missing { why }) = survey.available(to) {
            return Err(cannot(why));
        }
        let from = capture.clone().map(CaptureRef::Known);
        let (words, commands) = match to {
            Revision::Absent => (format!("take the containers of {} away", wish.place), vec![]),
            Revision::Exact(_) if from.is_none() => return Err(cannot("no capture holds it")),
            Revision::Exact(_) => {
                let words = format!("recreate {} from image {} as it was captured", wish.place, to.short());
                let verb = ["-f", "-", "up", "--no-start", "--force-recreate", "--no-deps", "--no-build"];
                (words, vec![self.shown(&verb)])
            }
        };
        let ready = Duration::from(self.settings.ready);
        let limits = Limits::default();
        let call = limits.call.max(ready + Duration::from_secs(30));
        Ok(vec![Draft {
            phase: Phase::Restore,
            action: Action::Restore { to: to.clone(), from },
            destroys: Destroys::Nothing,
            redo: Redo::Safe,
            limits: Limits { call, total: limits.total.max(call * 3), ..limits },
            shown: Shown { words, commands },
        }])
    }

    fn show(&self, place: &Place, action: &Action) -> Shown {
        let words = match action {
            Action::Prove { revision, .. } => {
                format!(
                    "see that image {} is here, and that Compose takes what was captured of {place}",
                    revision.short()
                )
            }
            Action::Capture { purpose: CapturePurpose::Protective } => {
                format!("keep the image of {place}, and how its containers were made")
            }
            Action::Capture { purpose: CapturePurpose::Evidence } => {
                format!("keep the last log lines, the containers' state and events of {place}")
            }
            Action::Stop => format!("stop the containers of {place}, through the Engine"),
            Action::Start => format!("start {place} and wait until it is healthy"),
            _ => format!("nothing that a Compose service can do at {place}"),
        };
        Shown { words, commands: vec![] }
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let looked = self.look_for(cx, step, before).await;
            looked.unwrap_or_else(|failure| Holds::CannotTell { why: failure.what }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move { outcome(self.act(cx, step, before).await) })
    }

    fn tidy<'a>(&'a self, cx: &'a Cx, _place: &'a Place, before: Timestamp) -> Fut<'a, Result<Vec<String>, Failure>> {
        Box::pin(self.remove_old(cx, before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_found_when_settings_are_read() {
        let mistakes = |yaml: &str| {
            let settings: Settings = serde_saphyr::from_str(yaml).unwrap();
            ComponentKind::check(&settings).into_iter().map(|mistake| mistake.what).collect::<Vec<_>>()
        };
        assert_eq!(mistakes(Settings::DOC.example), Vec::<String>::new());
        assert_eq!(mistakes("service: -x"), ["`-x` is no service"]);
        assert_eq!(mistakes("service: api\nproject: My Shop"), ["`My Shop` is no name of a project"]);
        assert_eq!(mistakes("service: api\nprogram: []"), ["`program` is no command"]);
        let ssh = mistakes("service: api\nengine: ssh://host");
        assert!(ssh[0].starts_with("`ssh://host` is no endpoint that can be asked"), "{ssh:?}");
    }
}
