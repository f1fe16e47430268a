//! Speaks to git; knows no rollback.
//!
//! The repository is named, never discovered, so that a directory without one is not taken for a part of the one around it.
//! No hook, pager, prompt, background upkeep or lazy fetch runs on our account, and nothing of the caller's `GIT_*` is heard.
//! Source: git manual, "Environment Variables"; gitformat of `status --porcelain=v2`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord_core::{Command, Failure, HostError, Redactor};
use tokio::sync::mpsc;

use crate::hosts::{Input, Local, Take, within};

/// More output than this is no list of files any more.
const MOST: usize = 512 << 20;

pub(super) struct Git {
    host: Local,
}

/// One call: what is said to git beside its arguments.
#[derive(Default)]
pub(super) struct With<'a> {
    pub(super) environment: Vec<(&'a str, String)>,
    pub(super) input: Option<Vec<u8>>,
}

impl Git {
    pub(super) fn new(base: &Path, redactor: Redactor) -> Self {
        Self { host: Local::new(base, redactor) }
    }

    /// Standard output of a git that succeeded.
    pub(super) async fn ask(&self, tree: &Path, arguments: &[&str], limit: Duration) -> Result<Vec<u8>, Failure> {
        self.ask_with(tree, arguments, With::default(), limit).await
    }

    pub(super) async fn ask_with(
        &self,
        tree: &Path,
        arguments: &[&str],
        with: With<'_>,
        limit: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        let mut too_much = false;
        self.stream(tree, arguments, with, limit, |piece| {
            too_much |= all.len() + piece.len() > MOST;
            if !too_much {
                all.extend_from_slice(piece);
            }
        })
        .await?;
        match too_much {
            true => Err(Failure::never(format!("`git {}` says more than can be read", arguments.join(" ")))),
            false => Ok(all),
        }
    }

    /// The first line, for questions with one answer.
    pub(super) async fn line(&self, tree: &Path, arguments: &[&str], limit: Duration) -> Result<String, Failure> {
        let said = self.ask(tree, arguments, limit).await?;
        Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned())
    }

    /// Whether git succeeded; for questions answered by the exit code.
    pub(super) async fn holds(&self, tree: &Path, arguments: &[&str], limit: Duration) -> bool {
        self.ask(tree, arguments, limit).await.is_ok()
    }

    /// Passes standard output on in pieces.
    pub(super) async fn stream(
        &self,
        tree: &Path,
        arguments: &[&str],
        with: With<'_>,
        limit: Duration,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let command = command(tree, arguments, &with)?;
        let input = with.input.map_or(Input::None, Input::Bytes);
        let (pass, mut pieces) = mpsc::channel::<Vec<u8>>(16);
        let taking = async {
            while let Some(piece) = pieces.recv().await {
                take(&piece);
            }
        };
        let running = self.host.run_with(&command, within(limit), input, Take::Pass(pass));
        let (ran, ()) = tokio::join!(running, taking);
        let said = format!("`git {}`", arguments.first().copied().unwrap_or_default());
        match ran {
            Ok(output) if output.succeeded() => Ok(()),
            Ok(output) => {
                let tail = output.tail();
                let why = tail.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
                let failure = match tail.contains(".lock") {
                    true => Failure::later(format!("{said} failed: {why}"))
                        .advise("another git is at work there, or one died: look for it, then remove the lock file"),
                    false => Failure::never(format!("{said} failed: {why}")),
                };
                Err(Failure { output: Some(tail), ..failure })
            }
            Err(error @ HostError::NotStarted { .. }) => {
                Err(Failure::never(error.to_string()).advise("install git where Ripcord runs"))
            }
            Err(error) => Err(Failure::later(error.to_string())),
        }
    }
}

fn command(tree: &Path, arguments: &[&str], with: &With<'_>) -> Result<Command, Failure> {
    let utf8 = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| Failure::never(format!("{} is not a path git can be told as text", path.display())))
    };
    let mut argv = vec!["env".to_owned()];
    let heard = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in heard.filter(|name| name.starts_with("GIT_")) {
        argv.extend(["-u".to_owned(), name]);
    }
    let mut environment = BTreeMap::from([
        ("GIT_DIR", utf8(&tree.join(".git"))?),
        ("GIT_WORK_TREE", utf8(tree)?),
        ("GIT_TERMINAL_PROMPT", "0".to_owned()),
        ("GIT_OPTIONAL_LOCKS", "0".to_owned()),
        ("GIT_NO_LAZY_FETCH", "1".to_owned()),
        ("GIT_LITERAL_PATHSPECS", "1".to_owned()),
        ("GIT_NO_REPLACE_OBJECTS", "1".to_owned()),
        ("LC_ALL", "C".to_owned()),
    ]);
    environment.extend(with.environment.iter().cloned());
    // Given to `env` rather than through the environment: it takes the caller's away first.
    argv.extend(environment.iter().map(|(name, value)| format!("{name}={value}")));
    argv.push("git".to_owned());
    let off =
        ["core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false", "core.pager=cat"];
    for setting in off {
        argv.extend(["-c".to_owned(), setting.to_owned()]);
    }
    argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Ok(Command { argv, directory: Some(tree.to_owned()), ..Command::default() })
}

/// The entries of a list that git ends with zero bytes.
pub(super) fn entries(said: &[u8]) -> impl Iterator<Item = &[u8]> {
    said.split(|byte| *byte == 0).filter(|entry| !entry.is_empty())
}

pub(super) fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

pub(super) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
