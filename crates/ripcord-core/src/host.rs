//! The ports to machines and to people's channels.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Cx, Digest, Fut, HostId, IncidentId, RunId, SecretRef, Severity};

/// A command: an argument vector, never a shell string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    pub argv: Vec<String>,
    pub directory: Option<PathBuf>,
    /// Added to the inherited environment.
    pub environment: BTreeMap<String, String>,
    /// Added to the environment, resolved only there and redacted from the output.
    pub secrets: BTreeMap<String, SecretRef>,
    pub input: Option<Vec<u8>>,
}

/// What a finished command left: bounded, and redacted of every secret known to the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code; none when a signal ended it.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// Whether something was cut from the middle of either.
    pub cut: bool,
    pub took: Duration,
}

impl Output {
    pub fn succeeded(&self) -> bool {
        self.status == Some(0)
    }
    /// The last lines a person would want to see: errors if there are any, else output.
    pub fn tail(&self) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<&str> = text.trim_end().lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

/// Why a command has no output to judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It never began: trying again cannot repeat an effect.
    #[error("`{program}` could not be started: {why}")]
    NotStarted { program: String, why: String },
    /// It was ended at its limit: what it had done, nobody knows.
    #[error("`{program}` was still running after {}", crate::human(*.limit))]
    TimedOut { program: String, limit: Duration, so_far: String },
    /// The connection to the host broke: it may still be running.
    #[error("the connection to `{host}` broke while `{program}` ran: {why}")]
    Lost { host: HostId, program: String, why: String },
}

/// A machine that commands run on. Files are reached by adapters through their own means, for the local host directly.
pub trait Host: Send + Sync {
    /// None for the machine Ripcord runs on.
    fn id(&self) -> Option<&HostId>;
    /// Runs the command in a process group of its own and ends the group at the limit or when the future is dropped.
    fn run<'a>(&'a self, command: &'a Command, limit: Duration) -> Fut<'a, Result<Output, HostError>>;
}

/// Something to tell people, kept in the outbox until delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Unique, so that telling twice is seen as once.
    pub id: String,
    pub about: About,
    pub severity: Option<Severity>,
    pub incident: Option<IncidentId>,
    pub run: Option<RunId>,
    /// One line.
    pub title: String,
    /// What is known, what was done, in what state everything is, what to do.
    pub body: String,
    pub at: Timestamp,
    /// The plan an answer is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Digest>,
    /// The channels to try, in order; the next is tried when one fails.
    pub channels: Vec<crate::ChannelId>,
}

/// What a message is about, so that channels and readers can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    Incident,
    ApprovalNeeded,
    Started,
    Progress,
    Succeeded,
    Insufficient,
    Parked,
    Ended,
    /// Monitoring is blind.
    Blind,
    /// Something is off that must come on again.
    Obligation,
    Released,
}

/// Why a message was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not delivered: {why}")]
pub struct NotDelivered {
    pub why: String,
    pub retry: crate::Retry,
}

/// Where messages go. `send` ends within `cx.limit`; sending the same message id twice should reach people once.
pub trait Channel: Send + Sync {
    fn send<'a>(&'a self, cx: &'a Cx, message: &'a Message) -> Fut<'a, Result<(), NotDelivered>>;
}
