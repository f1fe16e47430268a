//! Everything at a glance: what is live, whether one can go back, what is wrong, what is under way, what is off.

use jiff::Timestamp;
use ripcord_core::{
    Actor, AppId, CaptureId, Holder, Incident, Memory, Place, Request, Severity, TriggerId, TriggerState,
};
use ripcord_engine::Baking;
use serde::Serialize;

use super::check::Live;
use super::incidents::clock;
use super::releases::Line;
use super::run::{Off, RunView};
use super::table::{indent, table};
use crate::screen::{BAD, FAINT, GOOD, View, WARN, paint, strong};
use crate::words;

#[derive(Debug, Serialize)]
pub struct Status {
    pub app: AppId,
    pub at: Timestamp,
    pub live: Option<Line>,
    /// The bake of the live release, while it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baking: Option<Bake>,
    pub back: Back,
    /// Every trigger that is not ok.
    pub triggers: Vec<TriggerLine>,
    pub triggers_ok: usize,
    /// Triggers that nothing was ever heard of.
    pub triggers_unknown: Vec<TriggerId>,
    pub incident: Option<Incident>,
    /// The run that is not over.
    pub run: Option<RunView>,
    /// What former runs left off, by run.
    pub off: Vec<(String, Off)>,
    pub holder: Option<Holder>,
    /// What is asked and not answered yet.
    pub requests: Vec<Asked>,
    /// With `--live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Live>,
}

/// A release on its way to be known good.
#[derive(Debug, Serialize)]
pub struct Bake {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Whether somebody holds the lease, who carries it on.
    pub carried_on: bool,
}

impl Bake {
    pub fn of(baking: &Baking, carried_on: bool) -> Self {
        let (since, until) = match baking {
            Baking::Since { at, until } => (Some(*at), Some(*until)),
            Baking::NotBegun => (None, None),
        };
        Self { since, until, carried_on }
    }

    fn in_line(&self, at: Timestamp) -> String {
        match (self.since, self.until) {
            (Some(since), Some(until)) if self.carried_on && until > at => {
                format!("since {}, until {}", words::when(since), words::when(until))
            }
            // Its time begins when nothing is wrong any longer, and somebody has stayed for a moment.
            _ if self.carried_on => "about to begin".to_owned(),
            _ => paint(WARN, "cut off; `ripcord watch` bakes it anew, `ripcord release mark` judges it by hand"),
        }
    }
}

/// The standing answer to: can we go back?
#[derive(Debug, Serialize)]
pub struct Back {
    pub answer: Answer,
    pub to: Option<Line>,
    pub why: String,
    pub captures: Vec<Held>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// By the record; `--live` looks.
    Yes,
    No,
}

/// What the last known good release is restored from at one place.
#[derive(Debug, Serialize)]
pub struct Held {
    pub place: Place,
    pub capture: Option<CaptureId>,
    pub at: Option<Timestamp>,
    /// Why it cannot be relied on.
    pub problem: Option<String>,
}

/// A request that waits. The plan that may have come with it is not repeated.
#[derive(Debug, Serialize)]
pub struct Asked {
    pub by: Actor,
    pub at: Timestamp,
    pub what: String,
}

impl Asked {
    pub fn of(request: &Request) -> Self {
        Self { by: request.by.clone(), at: request.at, what: asked(request) }
    }
}

#[derive(Debug, Serialize)]
pub struct TriggerLine {
    pub trigger: TriggerId,
    pub severity: Severity,
    pub state: TriggerState,
    pub value: Option<f64>,
    pub baseline: Option<f64>,
}

impl TriggerLine {
    pub fn of(trigger: &TriggerId, severity: Severity, memory: &Memory) -> Self {
        let state = memory.state.clone();
        Self { trigger: trigger.clone(), severity, state, value: memory.value, baseline: memory.baseline }
    }
}

impl View for Status {
    fn text(&self) -> String {
        let mut out = vec![];
        let mut say = |label: &str, text: String| {
            let mut lines = text.lines();
            out.push(format!("{:<9} {}", label, lines.next().unwrap_or_default()));
            out.extend(lines.map(|line| format!("{:<9} {line}", "")));
        };
        say("app", strong(&self.app));
        say(
            "live",
            match &self.live {
                Some(live) => format!(
                    "{} ({}), {}, {}, {}",
                    strong(&live.version),
                    live.release,
                    live.standing(),
                    live.verdict(),
                    words::since(live.at, self.at)
                ),
                None => "nothing is recorded as live".to_owned(),
            },
        );
        if let Some(baking) = &self.baking {
            say("baking", baking.in_line(self.at));
        }
        say("go back?", self.back.in_lines());
        if let Some(seen) = &self.seen {
            say("seen", seen.in_lines());
        }
        say("triggers", self.triggers_in_lines());
        if let Some(incident) = &self.incident {
            say("incident", paint(BAD, clock(incident, self.at)));
        }
        if let Some(run) = &self.run {
            let mut lines = vec![run.headline()];
            lines.extend(run.details(self.at));
            lines.extend(run.next());
            say("run", lines.join("\n"));
        }
        for (run, off) in &self.off {
            let text = format!("{} ({}, from {run}), {}", off.owed, off.obligation, words::since(off.since, self.at));
            say("OFF", paint(BAD, text));
        }
        say(
            "at work",
            match &self.holder {
                Some(holder) => format!("{} (process {}): {}", holder.actor, holder.pid, holder.doing),
                None => paint(FAINT, "nobody watches; `ripcord watch` does"),
            },
        );
        for request in &self.requests {
            say("asked", format!("{} by {}: {}", words::since(request.at, self.at), request.by, request.what));
        }
        out.join("\n")
    }
}

impl Status {
    fn triggers_in_lines(&self) -> String {
        let row = |line: &TriggerLine| {
            let state = words::trigger_state(&line.state, Some(self.at));
            let state = match line.state {
                TriggerState::Breached { .. } => paint(BAD, state),
                _ => paint(WARN, state),
            };
            let value = line.value.map(|value| format!("at {}", words::figure(value))).unwrap_or_default();
            vec![line.trigger.to_string(), line.severity.to_string(), state, value]
        };
        let mut lines = vec![];
        if !self.triggers.is_empty() {
            lines.push(table(&self.triggers.iter().map(row).collect::<Vec<_>>()));
        }
        if self.triggers_ok > 0 {
            lines.push(paint(GOOD, format!("{} ok", self.triggers_ok)));
        }
        if !self.triggers_unknown.is_empty() {
            let names: Vec<_> = self.triggers_unknown.iter().map(ToString::to_string).collect();
            lines.push(paint(WARN, format!("never read: {}", names.join(", "))));
        }
        match lines.is_empty() {
            true => paint(WARN, "none are configured"),
            false => lines.join("\n"),
        }
    }
}

impl Back {
    fn in_lines(&self) -> String {
        let answer = match self.answer {
            Answer::Yes => paint(GOOD, "yes"),
            Answer::No => paint(BAD, "NO"),
        };
        let mut lines = vec![format!("{answer}: {}", self.why)];
        let problem = |held: &Held| {
            let capture = held.capture.as_ref().map(ToString::to_string).unwrap_or_default();
            Some(paint(BAD, format!("{} {capture}: {}", held.place, held.problem.as_ref()?)))
        };
        lines.extend(self.captures.iter().filter_map(problem).map(|line| indent(&line, 2)));
        lines.join("\n")
    }
}

/// A request in a few words.
fn asked(request: &Request) -> String {
    use ripcord_core::Ask;
    match &request.ask {
        Ask::Rollback { to, .. } => format!("rollback to {}", to.as_deref().unwrap_or("the last known good")),
        Ask::Undo { run, .. } => format!("undo {run}"),
        Ask::Answer { run, answer, .. } => format!("{answer:?} {run}").to_lowercase(),
        Ask::Run { run, verb } => format!("{verb:?} for {run}").to_lowercase(),
        Ask::Declare { what, .. } => format!("declare: {what}"),
        Ask::CloseIncident { incident, .. } => format!("close {incident}"),
        Ask::Record { version } => format!("record {version}"),
        Ask::Mark { release, good, .. } => format!("mark {release} {}", if *good { "good" } else { "bad" }),
        Ask::Lift { version, .. } => format!("lift {version}"),
        Ask::Note { text } => format!("note: {text}"),
        Ask::Proven { capture, .. } => format!("{capture} was proven"),
        Ask::Spoiled { capture, .. } => format!("{capture} is spoiled"),
        Ask::Yield { to } => format!("the lease for {to}"),
        Ask::Withdraw { request } => format!("request {request} taken back"),
    }
}
