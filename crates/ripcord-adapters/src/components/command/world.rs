//! Running the commands of a component, and reading what they print.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use ripcord_config::wire::Text;
use ripcord_core::{
    Before, Command, ComponentId, Cx, Failure, Host, HostError, Key, Made, Output, Retry, Revision, SecretRef, Step,
};
use ripcord_vault::{Manifest, Source};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Settings, UNVERSIONED};
use crate::BuildCx;
use crate::components::disk::room;
use crate::components::files::blocking;
use crate::components::files::captures::{Captures, manifest};
use crate::hosts::{Input, Local, Take, said, within};

/// EX_TEMPFAIL of sysexits.h.
const TRY_AGAIN: i32 = 75;
/// The longest name of a revision or an instance.
const NAME: usize = 256;
/// Where a capture's content lies in the vault.
const CONTENT: &str = "state";

/// Why something was not done, or not learnt.
#[derive(Debug)]
pub(super) enum Cannot {
    Do(Failure),
    /// It may have happened.
    Tell {
        why: String,
    },
}

impl Cannot {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Do(failure) => &failure.what,
            Self::Tell { why } => why,
        }
    }
}

impl From<Failure> for Cannot {
    fn from(failure: Failure) -> Self {
        Self::Do(failure)
    }
}

impl From<HostError> for Cannot {
    fn from(error: HostError) -> Self {
        match error {
            HostError::NotStarted { .. } => {
                let advice = "see that the program is there, can be run, and has its directory and secrets";
                Self::Do(Failure::never(error.to_string()).advise(advice))
            }
            HostError::TimedOut { .. } | HostError::Lost { .. } => Self::Tell { why: said(&error) },
        }
    }
}

/// A command that ended badly.
pub(super) fn failed(argv: &[Text], output: &Output) -> Failure {
    let program = argv.first().map_or("", Text::as_str);
    let how = match output.status {
        Some(code) => format!("exit code {code}"),
        None => "a signal".to_owned(),
    };
    let tail = output.tail();
    let what = if tail.is_empty() {
        format!("`{program}` ended with {how}")
    } else {
        format!("`{program}` ended with {how}: {tail}")
    };
    let retry = if output.status == Some(TRY_AGAIN) { Retry::Later } else { Retry::Never };
    Failure { retry, output: printed(output), ..Failure::never(what) }
}

/// All a command printed, for the record.
pub(super) fn printed(output: &Output) -> Option<String> {
    let text = [output.stdout.trim_end(), output.stderr.trim_end()].join("\n");
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Asks until it is so or the deadline has passed, and returns the last answer; the pauses start small.
pub(super) async fn poll<T, E, F>(deadline: Instant, mut ask: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut pause = Duration::from_millis(20);
    loop {
        let answer = ask().await;
        let next = Instant::now() + pause;
        if answer.is_ok() || next >= deadline {
            return answer;
        }
        tokio::time::sleep_until(next).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// The step a command belongs to.
type Of<'a> = Option<(&'a Step, &'a Before)>;

pub(super) struct World {
    pub(super) host: Local,
    pub(super) component: ComponentId,
    pub(super) target: Option<String>,
    observe: Option<Vec<Text>>,
    instance: Option<Vec<Text>>,
    directory: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    secrets: BTreeMap<String, SecretRef>,
}

impl World {
    pub(super) fn new(component: &ComponentId, settings: &Settings, cx: &BuildCx) -> Self {
        Self {
            host: Local::new(&cx.base, cx.redactor.clone()),
            component: component.clone(),
            target: settings.target.as_ref().map(ToString::to_string),
            observe: settings.observe.clone(),
            instance: settings.instance.clone(),
            directory: settings.directory.clone(),
            environment: settings.environment.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
            secrets: settings.secrets.iter().map(|(name, from)| (name.clone(), from.0.clone())).collect(),
        }
    }

    pub(super) fn shown(&self, argv: &[Text]) -> Vec<String> {
        argv.iter().map(|word| self.host.redactor().clean(word.as_str())).collect()
    }

    /// Until when a call that begins now may wait for what it did to show.
    pub(super) fn deadline(&self, cx: &Cx) -> Instant {
        Instant::now() + within(cx.limit)
    }

    fn command(&self, argv: &[Text], cx: &Cx, of: Of<'_>, revision: Option<&Revision>) -> Command {
        let mut environment = self.environment.clone();
        let mut add = |name: &str, value: String| environment.insert(name.to_owned(), value);
        add("RIPCORD_APPLICATION", cx.app.application.to_string());
        add("RIPCORD_ENVIRONMENT", cx.app.environment.to_string());
        add("RIPCORD_COMPONENT", self.component.to_string());
        if let Some((step, before)) = of {
            add("RIPCORD_KEY", before.key.to_string());
            add("RIPCORD_STEP", step.id.to_string());
        }
        if let Some(revision) = revision {
            add("RIPCORD_REVISION", super::mark_of(revision));
        }
        let argv = argv.iter().map(ToString::to_string).collect();
        Command { argv, directory: self.directory.clone(), environment, secrets: self.secrets.clone(), input: None }
    }

    /// Runs a command, whatever its exit code.
    pub(super) async fn run(
        &self,
        argv: &[Text],
        cx: &Cx,
        of: Of<'_>,
        revision: Option<&Revision>,
    ) -> Result<Output, Cannot> {
        Ok(self.host.run(&self.command(argv, cx, of, revision), within(cx.limit)).await?)
    }

    /// Runs a command that acts: any exit code but 0 is a failure, and a signal leaves open what it did.
    pub(super) async fn act(
        &self,
        argv: &[Text],
        cx: &Cx,
        of: Of<'_>,
        revision: Option<&Revision>,
        input: Option<File>,
    ) -> Result<Output, Cannot> {
        let input = input.map_or(Input::None, Input::File);
        let output =
            self.host.run_with(&self.command(argv, cx, of, revision), within(cx.limit), input, Take::Keep).await?;
        match output.status {
            Some(0) => Ok(output),
            Some(_) => Err(failed(argv, &output).into()),
            None => Err(Cannot::Tell { why: failed(argv, &output).what }),
        }
    }

    /// The present revision and its label.
    pub(super) async fn revision(&self, cx: &Cx) -> Result<(Revision, Option<String>), Cannot> {
        let Some(argv) = &self.observe else {
            return Ok((Revision::exact(UNVERSIONED), Some("has no revision of its own".to_owned())));
        };
        let output = self.run(argv, cx, None, None).await?;
        if !output.succeeded() {
            return Err(failed(argv, &output).into());
        }
        let lines: Vec<&str> = output.stdout.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        match lines.as_slice() {
            [] => Ok((Revision::Absent, None)),
            [revision, label @ ..] if label.len() <= 1 && revision.len() <= NAME => {
                Ok((Revision::exact(*revision), label.first().map(|label| (*label).to_owned())))
            }
            _ => {
                let what = format!("`observe` prints more than a revision and a label: {} lines", lines.len());
                Err(Failure { output: printed(&output), ..Failure::never(what) }.into())
            }
        }
    }

    /// The running instance.
    pub(super) async fn instance(&self, cx: &Cx) -> Result<Option<String>, Cannot> {
        let Some(argv) = &self.instance else { return Ok(None) };
        let output = self.run(argv, cx, None, None).await?;
        let silent = output.stdout.trim().is_empty() && output.stderr.trim().is_empty();
        // 1 is pgrep's "none", 3 is "not running" by the Linux Standard Base (init scripts, systemctl).
        if matches!(output.status, Some(1 | 3)) && silent {
            return Ok(None);
        }
        if !output.succeeded() {
            return Err(failed(argv, &output).into());
        }
        let mut names: Vec<&str> = output.stdout.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        names.sort_unstable();
        let name = names.join(" ");
        match name.len() {
            0 => Ok(None),
            1..=NAME => Ok(Some(name)),
            _ => Err(Failure::never("`instance` prints more than names an instance").into()),
        }
    }

    /// Runs `capture` and stores what it prints, as it prints it. What a failing command printed was never captured.
    pub(super) async fn store(
        &self,
        captures: &Captures,
        argv: &[Text],
        cx: &Cx,
        of: (&Step, &Before),
        key: &Key,
        revision: &Revision,
    ) -> Result<Manifest, Cannot> {
        let (pieces, read) = mpsc::channel(8);
        let (ended, told) = std::sync::mpsc::channel::<Result<(), String>>();
        let finish = move || told.recv().unwrap_or_else(|_| Err("the call was given up".to_owned()));
        let reader = Box::new(Pieces { read, left: vec![], at: 0 });
        let source = Source::Producer { path: CONTENT.to_owned(), mode: 0o600, reader, finish: Box::new(finish) };
        let (captures, cx_, key) = (captures.clone(), cx.clone(), key.clone());
        let why = format!("state at {}", revision.short());
        let storing = blocking(move |_| captures.store(&cx_, &key, &why, vec![source]));
        let command = self.command(argv, cx, Some(of), Some(revision));
        let running = async {
            let ran = self.host.run_with(&command, within(cx.limit), Input::None, Take::Pass(pieces)).await;
            let verdict = match &ran {
                Ok(output) if output.succeeded() => Ok(()),
                Ok(output) => Err(failed(argv, output).what),
                Err(error) => Err(said(error)),
            };
            let _ = ended.send(verdict);
            ran
        };
        let (ran, stored) = tokio::join!(running, storing);
        match ran {
            // Capturing changes nothing, so a capture that was cut short has certainly not happened.
            Err(error) => Err(Failure::later(said(&error)).into()),
            Ok(output) if !output.succeeded() => Err(failed(argv, &output).into()),
            Ok(_) => Ok(stored??),
        }
    }

    /// Stores what a command for evidence printed.
    pub(super) async fn keep(
        &self,
        captures: &Captures,
        cx: &Cx,
        key: &Key,
        output: Output,
    ) -> Result<Manifest, Cannot> {
        let (captures, cx, key) = (captures.clone(), cx.clone(), key.clone());
        let file =
            |path: &str, text: String| Source::Bytes { path: path.to_owned(), bytes: text.into_bytes(), mode: 0o600 };
        let sources = vec![file("stderr", output.stderr), file("stdout", output.stdout)];
        Ok(blocking(move |_| captures.store(&cx, &key, "evidence", sources)).await??)
    }

    /// A capture's content as a file that has no name any more: whole, checked, and gone when it is closed.
    pub(super) async fn content(&self, captures: &Captures, made: Made) -> Result<File, Cannot> {
        let captures = captures.clone();
        let fetch = move || -> Result<File, Failure> {
            let manifest = manifest(&made)?;
            let trouble = |error: io::Error| Failure::never(format!("the capture cannot be put ready: {error}"));
            let directory = tempfile::tempdir().map_err(trouble)?;
            room(directory.path(), "the captured state", made.bytes, 1)?;
            let path = directory.path().join(CONTENT);
            let restored = captures.vault()?.restore_file(&manifest, CONTENT, &path, Some(0o600));
            restored.map_err(|error| crate::components::files::captures::vault_failure(&error))?;
            File::open(&path).map_err(trouble)
        };
        Ok(blocking(move |_| fetch()).await??)
    }
}

/// What comes through a channel, as a reader for the vault's thread.
struct Pieces {
    read: mpsc::Receiver<Vec<u8>>,
    left: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.left.len() {
            let Some(piece) = self.read.blocking_recv() else { return Ok(0) };
            (self.left, self.at) = (piece, 0);
        }
        let n = buffer.len().min(self.left.len() - self.at);
        buffer[..n].copy_from_slice(&self.left[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
