//! This machine: commands as argument vectors, each in a process group of its own, bounded in time and output.
//!
//! No shell reads a command. At its limit, or when nobody waits for it any more, the whole group is asked to end (TERM) and is
//! killed two seconds later. A command also ends when Ripcord is killed. A process that outlives its command because it was meant to (a server just started) is left alone,
//! and that it keeps the output open delays nobody.
//! Source: tokio's `process::Child` reaps what it started; until then the group's number cannot be given to another.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ripcord_core::{Command, Fut, Host, HostError, HostId, Output, Redactor};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::output::Kept;
use crate::secrets;

/// How long a group may take to end by itself once it was asked to.
const GRACE: Duration = Duration::from_secs(2);
/// How long output may still come after the command itself has ended: what it left running may hold the pipes open for ever.
const LATE_OUTPUT: Duration = Duration::from_millis(200);
/// How often a group that was asked to end is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The time a command may be given inside a call that has `limit`: ending it must fit in as well.
pub fn within(limit: Duration) -> Duration {
    let ending = GRACE + Duration::from_secs(1);
    limit.saturating_sub(ending).max(limit / 2)
}

/// The machine Ripcord runs on.
#[derive(Debug, Clone)]
pub struct Local {
    base: PathBuf,
    redactor: Redactor,
}

/// What a command reads.
pub(crate) enum Input {
    None,
    Bytes(Vec<u8>),
    File(File),
}

/// What becomes of a command's standard output.
pub(crate) enum Take {
    /// Kept as text, bounded and redacted.
    Keep,
    /// Passed on as it is, in pieces, and not kept.
    Pass(mpsc::Sender<Vec<u8>>),
}

impl Local {
    /// Relative paths, of directories and of secrets, are taken from `base`.
    pub fn new(base: impl Into<PathBuf>, redactor: Redactor) -> Self {
        Self { base: base.into(), redactor }
    }

    pub(crate) fn base(&self) -> &std::path::Path {
        &self.base
    }

    pub(crate) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// [`Host::run`], with a choice of what is read and where the output goes; `command.input` is not looked at.
    pub(crate) async fn run_with(
        &self,
        command: &Command,
        limit: Duration,
        input: Input,
        take: Take,
    ) -> Result<Output, HostError> {
        let program = command.argv.first().cloned().unwrap_or_default();
        let not_started = |why: String| HostError::NotStarted { program: program.clone(), why };
        let deadline = Instant::now() + limit;
        let prepared = timeout(limit, self.prepare(command, &input)).await;
        let mut process =
            prepared.unwrap_or_else(|_| Err("its secrets took too long".to_owned())).map_err(not_started)?;
        let bytes = match input {
            Input::Bytes(bytes) => Some(bytes),
            Input::File(file) => {
                process.stdin(file);
                None
            }
            Input::None => None,
        };
        let began = Instant::now();
        let mut group = Group::start(process).map_err(|error| not_started(error.to_string()))?;
        let (stdout, stderr) = (Mutex::default(), Mutex::default());
        let pipes = group.pipes();
        let reading = async {
            let out = async {
                match take {
                    Take::Keep => keep(pipes.1, &stdout).await,
                    Take::Pass(to) => pass(pipes.1, to).await,
                }
            };
            tokio::join!(feed(pipes.0, bytes), out, keep(pipes.2, &stderr));
        };
        tokio::pin!(reading);
        let mut read = false;
        let status = loop {
            tokio::select! {
                status = group.wait() => break Some(status),
                () = &mut reading, if !read => read = true,
                () = sleep_until(deadline) => break None,
            }
        };
        if status.is_none() {
            let ended = group.end();
            tokio::pin!(ended);
            loop {
                tokio::select! {
                    () = &mut ended => break,
                    () = &mut reading, if !read => read = true,
                }
            }
        }
        if !read {
            let _ = timeout(LATE_OUTPUT, &mut reading).await;
        }
        let text = |kept: &Mutex<Kept>| kept.lock().unwrap_or_else(PoisonError::into_inner).text(&self.redactor);
        let ((stdout, cut_out), (stderr, cut_err)) = (text(&stdout), text(&stderr));
        let Some(status) = status else {
            let so_far = if stderr.trim().is_empty() { stdout } else { stderr };
            return Err(HostError::TimedOut { program, limit, so_far });
        };
        // Reaped by somebody else, as in a process that ignores SIGCHLD: it ran, and nobody can say how it ended.
        let status = status.ok().and_then(|status| status.code());
        Ok(Output { status, stdout, stderr, cut: cut_out || cut_err, took: began.elapsed() })
    }

    async fn prepare(&self, command: &Command, input: &Input) -> Result<tokio::process::Command, String> {
        let [program, arguments @ ..] = command.argv.as_slice() else { return Err("the command is empty".to_owned()) };
        if program.is_empty() {
            return Err("the command's first word is empty".to_owned());
        }
        let directory = match &command.directory {
            Some(directory) => self.base.join(directory),
            None => self.base.clone(),
        };
        // The system would say "no such file" and leave open which.
        if !directory.is_dir() {
            return Err(format!("its directory `{}` is not there", directory.display()));
        }
        let mut process = tokio::process::Command::new(program);
        process.args(arguments).current_dir(directory).process_group(0).envs(&command.environment);
        // Ripcord's own secrets (the vault's key, tokens) are no business of the commands it runs.
        for (name, _) in std::env::vars_os() {
            let ours = name.to_str().is_some_and(|n| n.starts_with("RIPCORD_") && !command.environment.contains_key(n));
            if ours {
                process.env_remove(name);
            }
        }
        for (name, from) in &command.secrets {
            let secret =
                secrets::resolve(from, &self.base, &self.redactor).await.map_err(|error| secrets::chain(&error))?;
            process.env(name, secret.reveal());
        }
        let stdin = if matches!(input, Input::Bytes(_)) { Stdio::piped() } else { Stdio::null() };
        process.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(process)
    }
}

impl Host for Local {
    fn id(&self) -> Option<&HostId> {
        None
    }

    fn run<'a>(&'a self, command: &'a Command, limit: Duration) -> Fut<'a, Result<Output, HostError>> {
        let input = command.input.clone().map_or(Input::None, Input::Bytes);
        Box::pin(self.run_with(command, limit, input, Take::Keep))
    }
}

/// A command and everything it started, ended with it unless it ended first.
struct Group {
    child: Option<Child>,
    pid: Option<Pid>,
}

impl Group {
    fn start(mut process: tokio::process::Command) -> io::Result<Self> {
        dies_with_us(&mut process);
        let child = process.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self { child: Some(child), pid })
    }

    fn pipes(&mut self) -> (Option<ChildStdin>, Option<impl AsyncRead + use<>>, Option<impl AsyncRead + use<>>) {
        match &mut self.child {
            Some(child) => (child.stdin.take(), child.stdout.take(), child.stderr.take()),
            None => (None, None, None),
        }
    }

    /// Waits for the command itself, not for what it leaves running, which is let be from then on.
    async fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        let Some(child) = &mut self.child else { return Err(io::ErrorKind::NotFound.into()) };
        let status = child.wait().await;
        self.child = None;
        status
    }

    /// Ends the whole group.
    async fn end(&mut self) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        let gone = async {
            if let Some(child) = &mut self.child {
                let _ = child.wait().await;
            }
            while self.pid.is_some_and(|pid| test_kill_process_group(pid).is_ok()) {
                sleep(LOOK).await;
            }
        };
        if tokio::time::timeout_at(deadline, gone).await.is_err() {
            self.signal(Signal::KILL);
            if let Some(child) = &mut self.child {
                // One that is stuck in the kernel is not waited for: whoever comes next observes.
                let _ = timeout(Duration::from_millis(500), child.wait()).await;
            }
        }
        self.child = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    /// Nobody waits any more, and here nothing can be awaited: a thread of its own sees the group end.
    fn drop(&mut self) {
        let (Some(mut child), Some(pid)) = (self.child.take(), self.pid) else { return };
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill_process_group(pid, Signal::TERM);
        let ending = thread::Builder::new().name("ending a command".to_owned()).spawn(move || {
            let deadline = std::time::Instant::now() + GRACE;
            while std::time::Instant::now() < deadline {
                let reaped = !matches!(child.try_wait(), Ok(None));
                if reaped && test_kill_process_group(pid).is_err() {
                    return;
                }
                thread::sleep(LOOK);
            }
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = child.try_wait();
        });
        if ending.is_err() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// A command does not outlive a Ripcord that was killed: whoever resumes must not find it still acting. What the command itself started
/// and let go of (a server) is not touched.
/// Source: prctl(2), PR_SET_PDEATHSIG: sent when the thread that started it ends; the runtime's threads end with the process.
#[expect(unsafe_code, reason = "what runs between fork and exec is one prctl, which is async-signal-safe")]
pub(super) fn dies_with_us(process: &mut tokio::process::Command) {
    let hook = || rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
    // SAFETY: the hook allocates nothing, takes no lock, and calls nothing but prctl.
    unsafe {
        process.pre_exec(hook);
    }
}

async fn feed(to: Option<ChildStdin>, bytes: Option<Vec<u8>>) {
    if let (Some(mut to), Some(bytes)) = (to, bytes) {
        // A command that does not read its input to the end is no failure of ours: its exit code says what it made of it.
        let _ = to.write_all(&bytes).await;
        let _ = to.shutdown().await;
    }
}

async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &Mutex<Kept>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        kept.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..n]);
    }
}

async fn pass(from: Option<impl AsyncRead + Unpin>, to: mpsc::Sender<Vec<u8>>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if to.send(buffer[..n].to_vec()).await.is_err() {
            return;
        }
    }
}
