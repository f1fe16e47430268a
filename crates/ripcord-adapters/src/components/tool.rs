//! A program of the machine's own that a kind works through (`systemctl`, `pm2`, `npm`, `pip`): asked, or told to act.
//!
//! Asking changes nothing, so whatever goes wrong with it is a plain failure. Acting is different: a program that was ended at its
//! limit, or by a signal, may have done what it was told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ripcord_config::Mistake;
use ripcord_config::wire::Text;
use ripcord_core::{Command, Failure, Host, HostError, Output};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::files::Stop;
use crate::BuildCx;
use crate::hosts::{Input, Local, Take, said};

/// The most that is taken of an output that is read whole: far beyond what any of them prints, and no danger to the machine.
const WHOLE: usize = 64 << 20;

#[derive(Clone)]
pub(crate) struct Tool {
    host: Local,
    program: Vec<String>,
    directory: Option<PathBuf>,
    environment: BTreeMap<String, String>,
}

impl Tool {
    pub(crate) fn new(program: impl IntoIterator<Item = impl ToString>, cx: &BuildCx) -> Self {
        Self {
            host: Local::new(&cx.base, cx.redactor.clone()),
            program: program.into_iter().map(|word| word.to_string()).collect(),
            directory: None,
            environment: BTreeMap::new(),
        }
    }

    /// The same program in another directory.
    #[must_use]
    pub(crate) fn at(&self, directory: impl Into<PathBuf>) -> Self {
        Self { directory: Some(directory.into()), ..self.clone() }
    }

    /// Another program in the same place.
    #[must_use]
    pub(crate) fn instead(&self, program: impl IntoIterator<Item = impl ToString>) -> Self {
        Self { program: program.into_iter().map(|word| word.to_string()).collect(), ..self.clone() }
    }

    #[must_use]
    pub(crate) fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    fn name(&self) -> &str {
        self.program.first().map_or("", String::as_str)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let arguments = arguments.iter().map(|word| (*word).to_owned());
        Command {
            argv: self.program.iter().cloned().chain(arguments).collect(),
            directory: self.directory.clone(),
            environment: self.environment.clone(),
            ..Command::default()
        }
    }

    /// The command as a person would type it.
    pub(crate) fn shown(&self, arguments: &[&str]) -> Vec<String> {
        self.command(arguments).argv.iter().map(|word| self.host.redactor().clean(word)).collect()
    }

    pub(crate) fn clean(&self, text: &str) -> String {
        self.host.redactor().clean(text)
    }

    /// Runs it to learn something, whatever its exit code.
    pub(crate) async fn try_ask(&self, arguments: &[&str], limit: Duration) -> Result<Output, Failure> {
        let ran = self.host.run(&self.command(arguments), limit).await;
        ran.map_err(|error| match error {
            HostError::NotStarted { .. } => not_started(&error),
            HostError::TimedOut { .. } | HostError::Lost { .. } => Failure::later(said(&error)),
        })
    }

    /// Runs it to learn something; any exit code but 0 is a failure.
    pub(crate) async fn ask(&self, arguments: &[&str], limit: Duration) -> Result<String, Failure> {
        let output = self.try_ask(arguments, limit).await?;
        match output.succeeded() {
            true => Ok(output.stdout),
            false => Err(self.failed(arguments, &output)),
        }
    }

    /// Runs it to learn something and returns all it printed, as it printed it: for programs to read, and never for the record.
    pub(crate) async fn whole(&self, arguments: &[&str], limit: Duration) -> Result<Vec<u8>, Failure> {
        let (pieces, mut read) = mpsc::channel::<Vec<u8>>(8);
        let gather = async {
            let mut whole = vec![];
            while let Some(piece) = read.recv().await {
                whole.extend(piece);
                if whole.len() > WHOLE {
                    return Err(Failure::never(format!("`{}` prints more than {} MB", self.name(), WHOLE >> 20)));
                }
            }
            Ok(whole)
        };
        let command = self.command(arguments);
        let running = self.host.run_with(&command, limit, Input::None, Take::Pass(pieces));
        let (ran, whole) = tokio::join!(running, gather);
        match ran {
            Ok(output) if output.succeeded() => whole,
            Ok(output) => Err(self.failed(arguments, &output)),
            Err(error @ HostError::NotStarted { .. }) => Err(not_started(&error)),
            Err(error) => Err(Failure::later(said(&error))),
        }
    }

    /// Runs it to do something.
    pub(crate) async fn act(&self, arguments: &[&str], limit: Duration) -> Result<Output, Stop> {
        match self.host.run(&self.command(arguments), limit).await {
            Ok(output) if output.succeeded() => Ok(output),
            Ok(output) if output.status.is_none() => Err(Stop::Unknown(self.failed(arguments, &output).what)),
            Ok(output) => Err(self.failed(arguments, &output).into()),
            Err(error @ HostError::NotStarted { .. }) => Err(not_started(&error).into()),
            Err(error) => Err(Stop::Unknown(said(&error))),
        }
    }

    /// What an exit code other than 0 means to a person.
    pub(crate) fn failed(&self, arguments: &[&str], output: &Output) -> Failure {
        let how = output.status.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
        let words: Vec<&str> = arguments.iter().copied().filter(|word| !word.starts_with('-')).take(2).collect();
        let command = self.clean(format!("{} {}", self.name(), words.join(" ")).trim());
        let tail = output.tail();
        let what = match tail.is_empty() {
            true => format!("`{command}` ended with {how}"),
            false => format!("`{command}` ended with {how}: {tail}"),
        };
        Failure { output: printed(output), ..Failure::never(what) }
    }
}

fn not_started(error: &HostError) -> Failure {
    Failure::never(error.to_string()).advise("see that the program is there, can be run, and has its directory")
}

/// All a command printed, for the record.
pub(crate) fn printed(output: &Output) -> Option<String> {
    let text = [output.stdout.trim_end(), output.stderr.trim_end()].join("\n");
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Asks until there is an answer or the deadline has passed, and returns the last; the pauses start small.
pub(crate) async fn poll<T, E, F>(deadline: Instant, mut ask: impl FnMut() -> F) -> Result<T, E>
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

/// The mistake of a setting that names no program.
pub(crate) fn program_mistake(program: &[Text], field: &str) -> Option<Mistake> {
    let none = program.first().is_none_or(|word| word.as_str().is_empty());
    none.then(|| Mistake::new(format!("`{field}` is no command")).at(field).help("write `[program, argument]`"))
}
