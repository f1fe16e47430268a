//! The deployment's own command: a child in a process group of its own, ended as a whole when it must not go on.

use std::future::Future;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::AppId;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::sync::watch;

use crate::screen::Screen;

/// How long the command may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(5);

pub struct Child {
    argv: Vec<String>,
    environment: [(&'static str, String); 3],
    /// Whether it must end, and whether a person said so.
    stop: watch::Sender<Option<Why>>,
    stage: watch::Sender<Stage>,
}

/// How far the command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    NotYet,
    Running,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Interrupted,
    /// Nobody waits for it any more: the deployment was pre-empted.
    Dropped,
}

/// Ends the command when the deployment drops what waits for it.
struct StopOnDrop(watch::Sender<Option<Why>>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.send_modify(|why| *why = why.or(Some(Why::Dropped)));
    }
}

impl Child {
    pub fn new(argv: &[String], app: &AppId, version: &str) -> Self {
        Self {
            argv: argv.to_vec(),
            environment: [
                ("RIPCORD_VERSION", version.to_owned()),
                ("RIPCORD_APPLICATION", app.application.to_string()),
                ("RIPCORD_ENVIRONMENT", app.environment.to_string()),
            ],
            stop: watch::channel(None).0,
            stage: watch::channel(Stage::NotYet).0,
        }
    }

    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    pub fn interrupt(&self) {
        self.stop.send_modify(|why| *why = why.or(Some(Why::Interrupted)));
    }

    pub fn was_interrupted(&self) -> bool {
        *self.stop.borrow() == Some(Why::Interrupted)
    }

    /// Resolves when nothing of it is left.
    pub async fn gone(&self) {
        // The sender is ours, so this ends with a value.
        let _ = self.stage.subscribe().wait_for(|stage| *stage != Stage::Running).await;
    }

    /// Starts it when first polled; nothing before it is done needs it.
    pub fn run(&self, screen: &Arc<Screen>) -> impl Future<Output = Result<(), String>> + use<> {
        let mut command = Command::new(self.argv.first().map(String::as_str).unwrap_or_default());
        command.args(self.argv.iter().skip(1)).envs(self.environment.iter().map(|(key, value)| (key, value)));
        // A group of its own may not read from the terminal (it would be stopped): it gets nothing to read there.
        command.stdin(if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            Stdio::null()
        } else {
            Stdio::inherit()
        });
        command.process_group(0);
        let (stop, stage, screen) = (self.stop.clone(), self.stage.clone(), Arc::clone(screen));
        let program = self.argv.first().cloned().unwrap_or_default();
        async move {
            screen.wipe();
            let child = command.spawn().map_err(|error| format!("`{program}` could not be started: {error}"))?;
            stage.send_replace(Stage::Running);
            let _ended_if_dropped = StopOnDrop(stop.clone());
            // Its own task: ending it takes time that a dropped future has not.
            let supervised = tokio::spawn(supervise(child, stop.subscribe(), stage));
            let ended = supervised.await.map_err(|error| format!("waiting for `{program}` failed: {error}"))?;
            ended.map_err(|why| format!("`{program}` {why}"))
        }
    }
}

async fn supervise(
    mut child: tokio::process::Child,
    mut stop: watch::Receiver<Option<Why>>,
    stage: watch::Sender<Stage>,
) -> Result<(), String> {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let ended = tokio::select! {
        ended = child.wait() => ended.map_err(|error| error.to_string()).and_then(judged),
        () = told(&mut stop) => {
            end(group, Signal::TERM);
            if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                end(group, Signal::KILL);
                // It ends now, whatever it does.
                let _ = child.wait().await;
            }
            Err("was ended before it was done".to_owned())
        }
    };
    // What it left running in its group, where it was ended, goes with it.
    if stop.borrow().is_some() {
        end(group, Signal::KILL);
    }
    stage.send_replace(Stage::Over);
    ended
}

async fn told(stop: &mut watch::Receiver<Option<Why>>) {
    if stop.wait_for(Option::is_some).await.is_err() {
        // Nobody is left who could say so.
        std::future::pending::<()>().await;
    }
}

/// A group that is gone already is what was wanted.
fn end(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _ = kill_process_group(group, signal);
    }
}

fn judged(status: ExitStatus) -> Result<(), String> {
    match status.success() {
        true => Ok(()),
        // `exit status: 3`, or the signal that ended it.
        false => Err(format!("ended with {status}")),
    }
}

#[cfg(test)]
mod tests {
    use ripcord_core::{Name, Redactor};

    use super::*;

    fn child(script: &str) -> (Child, Arc<Screen>) {
        let name = |text: &str| Name::new(text).unwrap();
        let app = AppId { application: name("shop"), environment: name("production") };
        let argv = ["sh", "-c", script].map(str::to_owned);
        (Child::new(&argv, &app, "v2"), Arc::new(Screen::new(false, Redactor::default())))
    }

    #[tokio::test]
    async fn it_is_told_what_it_deploys() {
        let (child, screen) =
            child(r#"test "$RIPCORD_VERSION $RIPCORD_APPLICATION $RIPCORD_ENVIRONMENT" = "v2 shop production""#);
        assert_eq!(child.run(&screen).await, Ok(()));
    }

    #[tokio::test]
    async fn how_it_failed_is_said() {
        let (child, screen) = child("exit 3");
        assert_eq!(child.run(&screen).await, Err("`sh` ended with exit status: 3".to_owned()));
    }

    #[tokio::test]
    async fn dropped_it_is_ended_with_all_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let (child, screen) = child(&format!("sleep 600 & echo $! > {0}.part; mv {0}.part {0}; wait", pid.display()));
        let mut waiting = Box::pin(child.run(&screen));
        while !pid.exists() {
            let _ = tokio::time::timeout(Duration::from_millis(5), &mut waiting).await;
        }
        drop(waiting);
        child.gone().await;
        let pid: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        let gone = |pid| rustix::process::test_kill_process(Pid::from_raw(pid).unwrap()).is_err();
        let ended =
            || gone(pid) || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z"));
        tokio::time::timeout(Duration::from_secs(10), async {
            while !ended() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("what it started is ended");
    }
}
