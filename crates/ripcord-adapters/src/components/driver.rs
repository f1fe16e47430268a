//! Anything, through a program that speaks the driver protocol: one process per call, a JSON object in, a JSON object out.
//!
//! The protocol is described for authors of drivers in `docs/driver-protocol.md`. A driver that cannot be asked makes its
//! component unreachable, and no other. An answer that is missing, late, too large or not understood is never taken for a yes: in a
//! survey the place is unreachable, a goal cannot be told, and an effect may have happened.

mod protocol; // what is asked, and how an answer is read

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ripcord_config::wire::{SecretFrom, Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CaptureRef, Command, Component, ComponentId, Cx, Digest,
    Draft, Failure, Fut, Held, HeldIn, Holds, Host, HostError, Inventory, KindVersion, Layer, Limits, Made, Nature,
    Observation, Observe, Outcome, Phase, Place, Proof, ProofLevel, Redo, Seen, Shown, Step, Survey, TargetId, Want,
    Wanted, Wish,
};
use ripcord_vault::Source;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::protocol::{
    About, Applied, AvailableIn, CapturedIn, Described, DoneIn, HeldAnswer, OutcomeIn, Request, StepOut, Surveyed,
};
use super::files::blocking;
use super::files::captures::{Captures, made, manifest, vault_failure};
use crate::hosts::{Local, said, within};
use crate::{BuildCx, BuildError, ComponentKind};

/// How long a driver may take to say what it is.
const DESCRIBE: Duration = Duration::from_secs(5);

/// A component that a program of yours takes care of.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The driver and its arguments; no shell reads them.
    pub run: Vec<Text>,
    /// Whether the component changes by release only (`versioned`) or by use (`flowing`).
    #[serde(default)]
    pub nature: NatureSetting,
    /// Given to the driver with every call, as it is.
    #[serde(default)]
    pub settings: Value,
    #[serde(default)]
    pub directory: Option<PathBuf>,
    #[serde(default)]
    pub environment: BTreeMap<String, Text>,
    /// Environment variables of the driver whose values are secrets.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretFrom>,
    /// The longest one call may take that restores or sets.
    #[serde(default)]
    pub call_limit: Option<Span>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NatureSetting {
    #[default]
    Versioned,
    Flowing,
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "driver",
        summary: "Anything, through a program of yours that speaks the driver protocol.",
        example: "\
run: [python3, ops/symlink_driver.py]
settings: { link: /srv/site/current, releases: /srv/site/releases }
",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        if self.run.first().is_none_or(|program| program.as_str().is_empty()) {
            mistakes.push(Mistake::new("there is no driver to run").at("run").help("write `run: [program, argument]`"));
        }
        if self.call_limit.is_some_and(|limit| limit.0.is_zero()) {
            mistakes.push(Mistake::new("a call takes some time").at("call-limit"));
        }
        mistakes
    }

    fn nature(&self) -> Nature {
        match self.nature {
            NatureSetting::Versioned => Nature::Versioned,
            NatureSetting::Flowing => Nature::Flowing,
        }
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let text = |(name, value): (&String, &Text)| (name.clone(), value.to_string());
        let command = Command {
            argv: self.run.iter().map(ToString::to_string).collect(),
            directory: self.directory.clone(),
            environment: self.environment.iter().map(text).collect(),
            secrets: self.secrets.iter().map(|(name, from)| (name.clone(), from.0.clone())).collect(),
            input: None,
        };
        let speaker =
            Speaker { host: Local::new(&cx.base, cx.redactor.clone()), command, settings: self.settings.clone() };
        let described = describe(&speaker).map_err(|why| BuildError::new(id, why))?;
        let captures = Captures::new(id, cx);
        Ok(Arc::new(Driver {
            id: id.clone(),
            settings: self.clone(),
            speaker,
            described,
            captures,
            keep_aside: cx.keep_aside,
        }))
    }
}

/// What the driver is, or why it cannot be asked.
///
/// What a kind can do must be known before anything is planned, so it is asked once, here, where nothing waits: on a thread with a
/// runtime of its own, because building is no future.
fn describe(speaker: &Speaker) -> Result<Result<Described, String>, String> {
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| format!("no runtime to ask the driver with: {error}"))?;
            let request = Request::new("describe", &speaker.settings);
            Ok(runtime.block_on(speaker.ask::<Described>(&request, DESCRIBE)).map_err(|error| error.why().to_owned()))
        });
        asking.join().unwrap_or_else(|_| Err("asking the driver ended by itself".to_owned()))
    })
}

/// A text as the answer to each call there is, in our terms. For the fuzzer.
#[doc(hidden)]
pub fn read_answer(text: &str) -> Vec<Result<String, String>> {
    let kept = Duration::ZERO;
    let described = |is: Described| format!("{:?} {:?}", is.kind, is.capabilities(Nature::Versioned, kept));
    let surveyed = |is: Surveyed| {
        let losses = is.losses.into_iter().map(|loss| loss.map(ripcord_core::Loss::from)).collect::<Vec<_>>();
        format!("{:?} {:?} {:?} {losses:?} {:?}", Seen::from(is.seen), is.target, is.available, is.facts)
    };
    let held = |is: HeldAnswer| format!("{:?}", Observation::from(is));
    let applied = |is: Applied| match is.outcome {
        OutcomeIn::Failed(failed) => format!("{:?}", Failure::from(failed)),
        outcome => format!("{outcome:?}"),
    };
    vec![
        protocol::answer(text).map(described),
        protocol::answer(text).map(surveyed),
        protocol::answer(text).map(held),
        protocol::answer(text).map(applied),
    ]
}

/// Why there is no answer.
#[derive(Debug)]
enum Unsaid {
    /// The driver never began.
    NotStarted { why: String },
    /// What it did, nobody knows.
    Unknown { why: String },
}

impl Unsaid {
    fn why(&self) -> &str {
        match self {
            Self::NotStarted { why } | Self::Unknown { why } => why,
        }
    }
}

/// One process per call.
struct Speaker {
    host: Local,
    command: Command,
    settings: Value,
}

impl Speaker {
    async fn ask<T: DeserializeOwned>(&self, request: &Request<'_>, limit: Duration) -> Result<T, Unsaid> {
        let input = serde_json::to_vec(request).map_err(|error| Unsaid::NotStarted { why: error.to_string() })?;
        let command = Command { input: Some(input), ..self.command.clone() };
        let call = request.call;
        let output = self.host.run(&command, limit).await.map_err(|error| {
            let why = format!("`{call}`: {}", said(&error));
            match error {
                HostError::NotStarted { .. } => Unsaid::NotStarted { why },
                HostError::TimedOut { .. } | HostError::Lost { .. } => Unsaid::Unknown { why },
            }
        })?;
        let unknown = |why: String| Unsaid::Unknown { why: format!("the driver's `{call}`: {why}") };
        if !output.succeeded() {
            let how = output.status.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
            return Err(unknown(format!("it ended with {how}: {}", output.tail())));
        }
        if output.cut {
            return Err(unknown("its answer is larger than 256 KiB".to_owned()));
        }
        protocol::answer(&output.stdout).map_err(unknown)
    }
}

struct Driver {
    id: ComponentId,
    settings: Settings,
    speaker: Speaker,
    described: Result<Described, String>,
    captures: Captures,
    keep_aside: Duration,
}

/// The target of a component whose driver cannot say: nothing is done to it anyway.
fn unknown_target(id: &ComponentId) -> TargetId {
    TargetId(format!("driver:unknown:{id}"))
}

impl Driver {
    fn held(&self) -> Held {
        self.described.as_ref().map_or(Held::Nowhere, |described| described.held.into())
    }

    fn limits(&self) -> Limits {
        let default = Limits::default();
        let call = self.settings.call_limit.map_or(default.call, Duration::from);
        Limits { call, total: default.total.max(call.saturating_mul(3)), ..default }
    }

    /// The place of a step: the planner gives every step of ours one.
    fn place(&self, step: &Step) -> Place {
        step.place.clone().unwrap_or_else(|| Place::local(self.id.clone()))
    }

    async fn surveyed(&self, cx: &Cx, place: &Place, wanted: &[Wanted]) -> Result<Survey, String> {
        self.described.as_ref().map_err(Clone::clone)?;
        let limit = within(cx.limit);
        let mut request = Request::new("survey", &self.speaker.settings);
        request.about = Some(About::new(cx, place, limit));
        request.wanted = Some(wanted.iter().map(Into::into).collect());
        let answer: Surveyed = self.speaker.ask(&request, limit).await.map_err(|error| error.why().to_owned())?;
        let (asked, told) = (wanted.len(), answer.available.len());
        if asked != told {
            return Err(format!(
                "the driver's `survey`: {asked} revisions are wanted, and it tells of {told} whether they can be had"
            ));
        }
        if !answer.losses.is_empty() && answer.losses.len() != asked {
            return Err(format!(
                "the driver's `survey`: {asked} revisions are wanted, and it tells {} losses",
                answer.losses.len()
            ));
        }
        if answer.target.is_empty() {
            return Err("the driver's `survey`: the target is empty, and nothing could be locked".to_owned());
        }
        let mut survey = Survey::new(place.clone(), answer.seen.into(), TargetId(answer.target));
        (survey.label, survey.instance, survey.running) = (answer.label, answer.instance, answer.running);
        (survey.facts, survey.reckoned) = (answer.facts, answer.reckoned_ms.map(Duration::from_millis));
        for (wanted, available) in wanted.iter().zip(answer.available) {
            let available = match available {
                // What the vault holds is for the vault to say.
                _ if self.held() == Held::Vault => {
                    self.in_vault(wanted, survey.seen.revision() == Some(&wanted.revision)).await
                }
                AvailableIn::Here(how) => Available::Here { how },
                AvailableIn::Missing(why) => Available::Missing { why },
            };
            survey.available.push((wanted.clone(), available));
        }
        let losses = wanted.iter().zip(answer.losses);
        survey.losses = losses.filter_map(|(wanted, loss)| Some((wanted.capture.clone()?, loss?.into()))).collect();
        Ok(survey)
    }

    async fn in_vault(&self, wanted: &Wanted, present: bool) -> Available {
        if wanted.capture.is_none() && present {
            return Available::Here { how: "it is there now".to_owned() };
        }
        let (captures, wanted) = (self.captures.clone(), wanted.clone());
        let looked = blocking(move |_| captures.available(&wanted)).await;
        looked.unwrap_or_else(|failure| Available::Missing { why: failure.what })
    }

    async fn looked(&self, cx: &Cx, step: &Step, before: Option<&Before>) -> Result<Observation, String> {
        self.described.as_ref().map_err(Clone::clone)?;
        let (limit, place) = (within(cx.limit), self.place(step));
        let mut request = Request::new("holds", &self.speaker.settings);
        request.about = Some(About::new(cx, &place, limit));
        request.step = Some(StepOut::new(step).ok_or("drivers have no such step")?);
        request.before = before.map(Into::into);
        let held: HeldAnswer = self.speaker.ask(&request, limit).await.map_err(|error| error.why().to_owned())?;
        Ok(held.into())
    }

    /// Acts. Captures go through a directory of their own, which is gone afterwards.
    async fn act(&self, cx: &Cx, step: &Step, before: &Before) -> Result<Outcome, Failure> {
        if let Err(why) = &self.described {
            return Err(Failure::never(why.clone()).advise("see that the driver can be run, then retry"));
        }
        let Some(out) = StepOut::new(step) else { return Err(Failure::never("drivers have no such step")) };
        if let (Action::Prove { revision, capture: Some(id) }, Held::Vault) = (&step.action, self.held()) {
            let wanted = Wanted { revision: revision.clone(), capture: Some(id.clone()) };
            return self.prove(wanted).await.map(Outcome::Done);
        }
        let scratch =
            tempfile::tempdir().map_err(|error| Failure::never(format!("no directory for captures: {error}")))?;
        let (limit, place) = (within(cx.limit), self.place(step));
        let mut request = Request::new("apply", &self.speaker.settings);
        request.about = Some(About::new(cx, &place, limit));
        request.step = Some(out);
        request.before = Some(before.into());
        let evidence = matches!(step.action, Action::Capture { purpose: ripcord_core::CapturePurpose::Evidence });
        match &step.action {
            Action::Capture { .. } if evidence || self.held() == Held::Vault => {
                let into = scratch.path().join("capture");
                std::fs::create_dir(&into)
                    .map_err(|error| Failure::never(format!("no directory for captures: {error}")))?;
                request.into = Some(utf8(&into)?);
            }
            Action::Restore { to, from } if self.held() == Held::Vault => {
                let made = self.captures.find(from.as_ref(), before, to)?;
                let made =
                    made.ok_or_else(|| Failure::never("no capture holds it, and this driver restores from captures"))?;
                let from = scratch.path().join("capture");
                request.from = Some(utf8(&from)?);
                self.fetch(made, from).await?;
            }
            _ => {}
        }
        let into = request.into.clone();
        let applied: Applied = match self.speaker.ask(&request, limit).await {
            Ok(applied) => applied,
            Err(Unsaid::NotStarted { why }) => return Err(Failure::never(why).advise("see that the driver can be run")),
            Err(Unsaid::Unknown { why }) => return Ok(Outcome::Unknown { why }),
        };
        match applied.outcome {
            OutcomeIn::Failed(failed) => Err(failed.into()),
            OutcomeIn::Unknown(why) => Ok(Outcome::Unknown { why }),
            OutcomeIn::Done(DoneIn { found, set_aside, lost, captured }) => {
                let capture = match (&step.action, captured) {
                    (Action::Capture { .. }, Some(captured)) => {
                        Some(self.keep(cx, before, captured, into, evidence).await?)
                    }
                    (Action::Capture { .. }, None) => {
                        return Err(Failure::never("the driver does not say what it captured"));
                    }
                    _ => None,
                };
                Ok(Outcome::Done(Proof { found, capture, set_aside, lost: lost.map(Into::into), output: None }))
            }
        }
    }

    async fn prove(&self, wanted: Wanted) -> Result<Proof, Failure> {
        let captures = self.captures.clone();
        blocking(move |_| {
            let made = captures.wanted(&wanted).unwrap_or_else(|| Err(Failure::never("no capture is named")))?;
            captures.verify(&manifest(&made)?)
        })
        .await??;
        Ok(Proof::of("the capture was read back"))
    }

    async fn fetch(&self, made: Made, into: PathBuf) -> Result<(), Failure> {
        let captures = self.captures.clone();
        blocking(move |_| {
            let manifest = manifest(&made)?;
            captures.vault()?.restore(&manifest, &into).map_err(|error| vault_failure(&error))
        })
        .await?
    }

    async fn keep(
        &self,
        cx: &Cx,
        before: &Before,
        captured: CapturedIn,
        into: Option<String>,
        evidence: bool,
    ) -> Result<Made, Failure> {
        let revision = protocol::revision(captured.revision);
        let Some(into) = into else {
            let name = captured
                .name
                .ok_or_else(|| Failure::never("the driver does not say what the system calls its capture"))?;
            let content = Digest::of(name.as_bytes());
            let held = HeldIn::System { name };
            return Ok(Made { revision, label: captured.label, held, bytes: 0, proof: ProofLevel::Written, content });
        };
        let (captures, cx, key) = (self.captures.clone(), cx.clone(), before.key.clone());
        blocking(move |_| {
            let source = Source::Tree { path: String::new(), root: PathBuf::from(into), except: vec![] };
            let why = if evidence { "evidence".to_owned() } else { format!("state at {}", revision.short()) };
            let manifest = captures.store(&cx, &key, &why, vec![source])?;
            made(revision, captured.label, &manifest)
        })
        .await?
    }
}

fn utf8(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Failure::never(format!("`{}` cannot be written in JSON: set TMPDIR to another path", path.display()))
    })
}

impl Component for Driver {
    fn kind(&self) -> KindVersion {
        match &self.described {
            Ok(Described { kind, version: (major, minor), .. }) => {
                KindVersion { kind: format!("driver/{kind}"), major: *major, minor: *minor }
            }
            Err(_) => KindVersion { kind: "driver".to_owned(), major: 0, minor: 0 },
        }
    }

    fn capabilities(&self) -> Capabilities {
        let nature = ComponentKind::nature(&self.settings);
        match &self.described {
            Ok(described) => described.capabilities(nature, self.keep_aside),
            Err(_) => Capabilities { nature, observe: Observe::No, redo: Redo::Never, ..Capabilities::NONE },
        }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            self.surveyed(cx, place, wanted).await.unwrap_or_else(|why| {
                let missing = Available::Missing { why: why.clone() };
                let mut survey = Survey::new(place.clone(), Seen::Unreachable { why }, unknown_target(&self.id));
                survey.available = wanted.iter().map(|wanted| (wanted.clone(), missing.clone())).collect();
                survey
            })
        })
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: &str| Err(CannotPlan { place: wish.place.clone(), why: why.to_owned() });
        let described = match &self.described {
            Ok(described) => described,
            Err(why) => return cannot(why),
        };
        let (action, words) = match &wish.want {
            Want::Values(values) if values.is_empty() => return Ok(vec![]),
            Want::Values(_) if !described.sets => return cannot("its driver sets no single values"),
            Want::Values(values) => {
                let names = values.keys().cloned().collect::<Vec<_>>().join(", ");
                (Action::Set { values: values.clone() }, format!("set {names} of {}", wish.place))
            }
            Want::Revision { revision, capture } => {
                let now = seen.surveys.get(&wish.place).and_then(|survey| survey.seen.revision());
                if now == Some(revision) && self.settings.nature == NatureSetting::Versioned {
                    return Ok(vec![]);
                }
                if self.held() == Held::Vault && capture.is_none() {
                    return cannot("no capture of it was ever made");
                }
                let from = capture.clone().map(CaptureRef::Known);
                let words = format!("restore {} to {}", wish.place, revision.short());
                (Action::Restore { to: revision.clone(), from }, words)
            }
        };
        let destroys = self.capabilities().restore;
        let shown = Shown { words, commands: vec![self.argv()] };
        Ok(vec![Draft {
            phase: Phase::Restore,
            action,
            destroys,
            redo: described.redo.into(),
            limits: self.limits(),
            shown,
        }])
    }

    fn show(&self, place: &Place, action: &Action) -> Shown {
        let words = match action {
            Action::Prove { revision, .. } => format!("see that {} can be had for {place}", revision.short()),
            Action::Capture { .. } => format!("capture {place} as it is"),
            Action::Pause => format!("traffic off at {place}"),
            Action::Stop => format!("stop {place}"),
            Action::Start => format!("start {place}"),
            Action::Resume => format!("traffic on at {place}"),
            _ => format!("ask the driver of {place}"),
        };
        Shown { words, commands: vec![self.argv()] }
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let looked = self.looked(cx, step, before).await;
            looked.unwrap_or_else(|why| Holds::CannotTell { why }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move { self.act(cx, step, before).await.unwrap_or_else(Outcome::Failed) })
    }
}

impl Driver {
    fn argv(&self) -> Vec<String> {
        self.speaker.command.argv.iter().map(|word| self.speaker.host.redactor().clean(word)).collect()
    }
}
