//! A unit as systemd is told to act on it.

use std::time::Duration;

use ripcord_core::{Failure, Output};
use tokio::time::Instant;

use crate::components::files::Stop;
use crate::components::tool::{Tool, poll};
use crate::systemd::Unit;

/// How often a unit that is to stay up is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The longest one question to systemd may take.
const ANSWER: Duration = Duration::from_secs(10);

/// One unit of one manager.
pub(super) struct Manager {
    pub(super) systemctl: Tool,
    pub(super) journalctl: Tool,
    pub(super) unit: String,
    pub(super) user: bool,
    pub(super) settle: Duration,
}

impl Manager {
    /// The arguments of a call, with the manager it is for before them.
    fn arguments<'a>(&self, words: &[&'a str]) -> Vec<&'a str> {
        self.user.then_some("--user").into_iter().chain(words.iter().copied()).collect()
    }

    pub(super) fn shown(&self, verb: &str) -> Vec<String> {
        let unit = (verb != "daemon-reload").then_some(self.unit.as_str());
        let words: Vec<&str> = std::iter::once(verb).chain(unit).collect();
        self.systemctl.shown(&self.arguments(&words))
    }

    pub(super) async fn look(&self, limit: Duration) -> Result<Unit, Failure> {
        let words = Unit::question(&self.unit);
        let text = self.systemctl.ask(&self.arguments(&words), limit.min(ANSWER)).await.map_err(|failure| {
            let advice = match self.user {
                true => "see that this user's manager runs (`loginctl enable-linger`) and that XDG_RUNTIME_DIR is set",
                false => "see that systemd runs on this machine and that this user may ask it",
            };
            failure.advise(advice)
        })?;
        Unit::read(&text).ok_or_else(|| Failure::never(format!("systemd says nothing of `{}`", self.unit)))
    }

    async fn tell(&self, verb: &str, limit: Duration) -> Result<Output, Stop> {
        let words: &[&str] = if verb == "daemon-reload" { &[verb] } else { &[verb, "--", &self.unit] };
        self.systemctl.act(&self.arguments(words), limit).await
    }

    pub(super) async fn daemon_reload(&self, limit: Duration) -> Result<(), Stop> {
        self.tell("daemon-reload", limit).await.map(drop)
    }

    pub(super) async fn stop(&self, deadline: Instant) -> Result<Unit, Stop> {
        if self.look(left(deadline)).await?.is_up() {
            self.tell("stop", left(deadline)).await?;
        }
        let gone = poll(deadline, || async {
            match self.look(left(deadline)).await {
                Ok(unit) if !unit.is_up() && unit.left_behind() == 0 => Ok(unit),
                Ok(unit) => Err(format!("it is {}", unit.words())),
                Err(failure) => Err(failure.what),
            }
        });
        gone.await.map_err(|seen| {
            let failure = Failure::never(format!("`systemctl stop` reported success, but {seen}"));
            failure.advise(format!("stop it by hand (`systemctl kill {}`), then retry the step", self.unit)).into()
        })
    }

    /// Starts it, or starts it anew where the instance of before still runs, and sees that the new one stays. `unread` says that its
    /// files may not be what systemd has read.
    pub(super) async fn start(&self, before: Option<&String>, unread: bool, deadline: Instant) -> Result<Unit, Stop> {
        if unread {
            self.daemon_reload(left(deadline)).await?;
        }
        let found = self.look(left(deadline)).await?;
        if !found.is_there() {
            let failure = Failure::never(format!("systemd cannot load `{}`: {}", self.unit, found.load));
            return Err(failure.advise(format!("see `systemctl status {}` on its machine", self.unit)).into());
        }
        if found.passing {
            let what = format!("`{}` ends when it is done, and nothing can tell afterwards whether it ran", self.unit);
            return Err(Failure::never(what)
                .advise("write `RemainAfterExit=yes` into it, or run it by a `command`")
                .into());
        }
        // What crashed too often is refused whatever it has become since: what is started now has the right to its own tries. One that
        // never failed is not asked about: systemd may not have it in memory, which it calls a mistake.
        if found.has_used_tries() {
            self.tell("reset-failed", left(deadline)).await?;
        }
        let running = found.is_up() && found.invocation.as_ref() == before;
        let verb = if running || !found.is_active() && found.is_up() { "restart" } else { "start" };
        if let Err(stop) = self.tell(verb, left(deadline)).await {
            return Err(self.explained(stop).await);
        }
        self.settled(before, deadline).await
    }

    /// The instance that is active, once it was so for the settling time without a restart.
    async fn settled(&self, before: Option<&String>, deadline: Instant) -> Result<Unit, Stop> {
        let mut up: Option<(Instant, Unit)> = None;
        loop {
            let unit = self.look(left(deadline)).await.map_err(|failure| Stop::Unknown(failure.what))?;
            let waits = unit.sub == "auto-restart" || unit.sub == "auto-restart-queued";
            let again =
                up.as_ref().is_some_and(|(_, was)| was.invocation != unit.invocation || was.restarts != unit.restarts);
            if waits || again || !unit.is_up() {
                return Err(self.looping(&unit).await.into());
            }
            let now = Instant::now();
            if unit.is_active() && unit.instance() != before {
                let (since, _) = up.get_or_insert((now, unit.clone()));
                if now.duration_since(*since) >= self.settle {
                    return Ok(unit);
                }
            }
            if now + LOOK >= deadline {
                let what = format!("`{}` is {} when the time is up", self.unit, unit.words());
                return Err(Stop::Unknown(what));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A start that systemd refused, with what the unit itself said.
    async fn explained(&self, stop: Stop) -> Stop {
        let Stop::Failed(failure) = stop else { return stop };
        match self.look(ANSWER).await {
            Ok(unit) => {
                let looping = self.looping(&unit).await;
                Stop::Failed(Failure { what: format!("{}; {}", failure.what, looping.what), ..looping })
            }
            Err(_) => Stop::Failed(failure),
        }
    }

    /// A unit that does not stay up.
    async fn looping(&self, unit: &Unit) -> Failure {
        let mut what = format!("`{}` does not stay up: {}", self.unit, unit.words());
        match unit.restarts {
            0 => {}
            1 => what.push_str(", started again once"),
            _ if unit.is_given_up() => {}
            restarts => what.push_str(&format!(", started again {restarts} times")),
        }
        let advice = match unit.is_given_up() {
            true => {
                format!("find the cause in its journal, then `systemctl reset-failed {}` and retry the step", self.unit)
            }
            false => format!("find the cause in its journal: `journalctl -u {}`", self.unit),
        };
        Failure { output: self.journal(20).await.ok(), ..Failure::never(what) }.advise(advice)
    }

    /// The last lines of its journal.
    pub(super) async fn journal(&self, lines: u32) -> Result<String, Failure> {
        let count = format!("--lines={lines}");
        let words = ["--no-pager", "--output=short-iso", &count, "--unit", &self.unit];
        self.journalctl.ask(&self.arguments(&words), ANSWER).await
    }

    /// What `systemctl` says to people; the exit code says whether it runs, not whether it could be asked.
    pub(super) async fn said(&self, verb: &str) -> Result<String, Failure> {
        let words = [verb, "--no-pager", "--full", "--", &self.unit];
        Ok(self.systemctl.try_ask(&self.arguments(&words), ANSWER).await?.stdout)
    }
}

pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100))
}
