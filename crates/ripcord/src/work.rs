//! How every acting command works: it leaves a request, and then either holds the lease until the work is done, or follows the
//! journal while another process does it. If that one disappears, this one takes its place.

use std::time::Duration;

use ripcord_core::{
    Actor, Ask, Body, End, Event, Holder, LeaseOn, Reply, Run, RunId, RunRow, RunState, Seq, StepState, Store as _,
    Verb,
};
use ripcord_engine::{Holding, Pace, Stop, TakeError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::exit::Exit;
use crate::problem::Problem;
use crate::progress::Progress;
use crate::words;
use crate::world::Station;

/// What a command wants done.
pub struct Errand {
    /// In words, for whoever finds this process holding the lease.
    pub doing: &'static str,
    pub ask: Option<Ask>,
    /// The run it is about, where it is about one that is there already.
    pub run: Option<RunId>,
    pub until: Until,
}

/// When it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The request is answered. A run in the middle is not walked away from.
    Answered,
    /// The run is paused and nothing of it is in flight.
    Paused,
    /// The run is over, or people must act; after the watch, or before it.
    Over { watch: bool },
}

/// How it ended.
pub struct Worked {
    /// What the holder said to the request.
    pub said: Option<String>,
    /// The run as it then stood.
    pub run: Option<Run>,
    /// Whether an interrupt at the keyboard was what ended it.
    pub interrupted: bool,
    /// Whether it is the next level of the run that was asked for, which was insufficient.
    pub climbed: bool,
}

/// How often what other processes write is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// How long a holder that is there may take to answer: longer than the longest survey.
const ANSWER: Duration = Duration::from_secs(300);
/// How long a holder that is there may take to see that a request was taken back.
const TAKING_BACK: Duration = Duration::from_secs(2);
/// How long the next level may take to be planned before an insufficient run counts as the last.
const NEXT_LEVEL: Duration = Duration::from_secs(10);

/// Leaves the request, and works or follows until it is done.
pub async fn work(station: &Station, errand: Errand) -> Result<Worked, Problem> {
    let mut work = Work::begin(station, errand).await?;
    let mut signals = Signals::new()?;
    let done = loop {
        match work.turn(&mut signals).await {
            Ok(None) => {}
            Ok(Some(worked)) => break Ok(worked),
            Err(problem) => break Err(problem),
        }
    };
    station.screen.wipe();
    work.seat.leave("its work is done").await;
    done
}

/// Whether the answer, where there is one, is to be waited for as before.
#[derive(PartialEq)]
enum Answered {
    AsAwaited,
    /// It was taken up before it could be taken back.
    TooLate,
}

struct Work<'a> {
    station: &'a Station,
    seat: Seat<'a>,
    progress: Progress,
    errand: Errand,
    request: Option<(u64, Instant)>,
    reply: Option<Reply>,
    /// The last event that was shown.
    shown: Seq,
    /// Where the journal ended when this began: a run that begins after it came of it.
    first: Seq,
    /// The run that was insufficient, since when that is known.
    insufficient: Option<(RunId, Instant)>,
    interrupted: bool,
    /// Since when what was asked is being taken back.
    taking_back: Option<Instant>,
}

impl<'a> Work<'a> {
    async fn begin(station: &'a Station, errand: Errand) -> Result<Self, Problem> {
        let (head, _) = station.store.head(station.app()).await?;
        let request = match &errand.ask {
            Some(ask) => {
                Some((station.store.request(station.app(), &station.world.holder.actor, ask).await?, Instant::now()))
            }
            None => None,
        };
        Ok(Self {
            station,
            seat: Seat::new(station, errand.doing),
            progress: Progress::new(&station.screen),
            errand,
            request,
            reply: None,
            shown: head,
            first: head,
            insufficient: None,
            interrupted: false,
            taking_back: None,
        })
    }

    /// Takes the lease where it is free, shows what happened, and waits for more, unless it is done.
    async fn turn(&mut self, signals: &mut Signals) -> Result<Option<Worked>, Problem> {
        self.seat.tend().await?;
        if self.look_for_reply().await? == Answered::TooLate {
            return self.interrupt().await;
        }
        self.show_events().await?;
        if let Some(worked) = self.done().await? {
            self.show_events().await?;
            return Ok(Some(worked));
        }
        self.progress.foot(self.station.world.clock.now());
        tokio::select! {
            () = signals.next() => return self.interrupt().await,
            why = self.seat.stopped() => self.seat.vacate(why).await?,
            _ = self.station.store.wait_changed(self.station.app(), self.shown, LOOK) => {}
        }
        Ok(None)
    }

    async fn look_for_reply(&mut self) -> Result<Answered, Problem> {
        let (Some((id, asked)), None) = (self.request, &self.reply) else { return Ok(Answered::AsAwaited) };
        self.reply = self.station.store.reply(self.station.app(), id).await?;
        let taking_back = self.taking_back.is_some();
        match &self.reply {
            Some(Reply::Refused { .. }) if taking_back => {
                Err(Problem::new(Exit::Interrupted, "interrupted").state("what was asked was not begun"))
            }
            Some(Reply::Refused { why, advice }) => {
                let problem = Problem::new(Exit::Refused, why.clone());
                Err(match advice {
                    Some(advice) => problem.help(advice.clone()),
                    None => problem,
                })
            }
            Some(Reply::Taken { run, .. }) => {
                self.errand.run = run.clone().or(self.errand.run.take());
                // Somebody was quicker: it is for the run now to be stopped, where there is one.
                (self.taking_back, self.interrupted) = (None, self.interrupted && !taking_back);
                match taking_back && self.errand.run.is_some() {
                    true => Ok(Answered::TooLate),
                    false => Ok(Answered::AsAwaited),
                }
            }
            None if self.taking_back.is_some_and(|since| since.elapsed() > TAKING_BACK) && !self.seat.is_holding() => {
                Err(Problem::new(Exit::Interrupted, "interrupted")
                    .cause(format!("{} holds the lease and is silent", self.seat.who()))
                    .state("what was asked is taken back, unless it was being taken up at this moment")
                    .help("`ripcord status` shows it"))
            }
            None if asked.elapsed() > ANSWER => Err(Problem::new(Exit::Unavailable, "the request is not answered")
                .cause(format!("{} holds the lease and is silent", self.seat.who()))
                .state("the request stays in the record: it is answered when somebody can")
                .help("end that process if it hangs; whatever holds the lease next answers")),
            None => Ok(Answered::AsAwaited),
        }
    }

    async fn show_events(&mut self) -> Result<(), Problem> {
        loop {
            let page = self.station.store.read(self.station.app(), self.shown, 200).await?;
            let Some(last) = page.last() else { return Ok(()) };
            self.shown = last.seq;
            for event in &page {
                if self.follows(event) {
                    self.progress.take(self.station, event).await?;
                }
            }
        }
    }

    /// Whether the person who waits for this wants to see it: all of a run, and nothing of a mere request.
    fn follows(&self, event: &Event) -> bool {
        match self.errand.until {
            Until::Over { .. } | Until::Paused => true,
            Until::Answered => event.run.is_some() || matches!(event.body, Body::Decided { .. } | Body::Opened { .. }),
        }
    }

    async fn done(&mut self) -> Result<Option<Worked>, Problem> {
        if self.request.is_some() && self.reply.is_none() {
            return Ok(None);
        }
        let Some(row) = self.row().await? else {
            // A request about no run; the reply is all there is to wait for.
            return Ok(Some(self.worked(None).await?));
        };
        let over = match (&row.state, self.errand.until) {
            (RunState::Ended(End::Insufficient), _) if self.may_climb(&row).await? => false,
            (RunState::Ended(_) | RunState::Parked(_) | RunState::Waiting, _) => true,
            (_, Until::Answered) if !self.seat.is_holding() => true,
            (RunState::Watching { .. }, Until::Over { watch }) => !watch,
            (RunState::Watching { .. }, Until::Answered | Until::Paused) => true,
            // Paused, it stands still until somebody lets it go on: that may be long, and somebody else.
            (RunState::Approved | RunState::Running, Until::Paused | Until::Answered) => {
                self.is_at_rest(&row.id).await?
            }
            (RunState::Approved | RunState::Running, Until::Over { .. }) => false,
        };
        match over {
            true => Ok(Some(self.worked(Some(&row.id)).await?)),
            false => Ok(None),
        }
    }

    /// The run that matters: the one asked about, one that came of the request, or the next level of it.
    async fn row(&self) -> Result<Option<RunRow>, Problem> {
        let rows = self.station.store.runs(self.station.app(), 50).await?;
        let newest = rows.iter().find(|row| row.first > self.first || !matches!(row.state, RunState::Ended(_)));
        let named = self.errand.run.as_ref().and_then(|id| rows.iter().find(|row| row.id == *id));
        Ok(match (named, newest) {
            (Some(named), Some(newest)) if follows_from(named, newest) => Some(newest.clone()),
            (Some(named), _) => Some(named.clone()),
            (None, newest) => newest.cloned(),
        })
    }

    /// Whether the office may still be planning the next level of an insufficient run.
    async fn may_climb(&mut self, row: &RunRow) -> Result<bool, Problem> {
        if row.incident.is_none() {
            return Ok(false);
        }
        if self.insufficient.as_ref().is_none_or(|(run, _)| *run != row.id) {
            self.insufficient = Some((row.id.clone(), Instant::now()));
        }
        let since = self.insufficient.as_ref().map_or_else(Instant::now, |(_, since)| *since);
        let last = self.station.store.read(self.station.app(), row.first, 10_000).await?;
        let ended = last.iter().position(|e| e.run.as_ref() == Some(&row.id) && matches!(e.body, Body::Ended { .. }));
        // When it has come to the end of its ladder it says so.
        let gave_up = last
            .iter()
            .skip(ended.unwrap_or(0))
            .any(|event| event.incident == row.incident && matches!(event.body, Body::Noted { by: Actor::Policy, .. }));
        Ok(!gave_up && since.elapsed() < NEXT_LEVEL)
    }

    async fn is_at_rest(&self, run: &RunId) -> Result<bool, Problem> {
        let run = ripcord_engine::fold(&self.station.world, run).await?;
        Ok(run.paused && !run.steps.values().any(|state| matches!(state, StepState::InDoubt { .. })))
    }

    async fn worked(&self, run: Option<&RunId>) -> Result<Worked, Problem> {
        let said = match &self.reply {
            Some(Reply::Taken { said, .. }) if !said.is_empty() => Some(said.clone()),
            _ => None,
        };
        let run = match run {
            Some(id) => Some(ripcord_engine::fold(&self.station.world, id).await?),
            None => None,
        };
        let climbed = match (&self.errand.run, &run) {
            (Some(named), Some(run)) => *named != run.id,
            _ => false,
        };
        Ok(Worked { said, run, interrupted: self.interrupted, climbed })
    }

    /// The first interrupt lets what is in flight finish, the second does not.
    async fn interrupt(&mut self) -> Result<Option<Worked>, Problem> {
        let row = self.row().await?;
        let screen = &self.station.screen;
        let stopped = |state: String, help: &str| {
            Err(Problem::new(Exit::Interrupted, "interrupted").state(state).help(help.to_owned()))
        };
        let running = row.as_ref().is_some_and(|row| matches!(row.state, RunState::Approved | RunState::Running));
        if let (Some((request, _)), None, None) = (self.request, &self.reply, self.taking_back) {
            // Asked, and nobody has taken it up: whoever does next is to find it taken back, and not begin it hours later.
            let ask = Ask::Withdraw { request };
            self.station.store.request(self.station.app(), &self.station.world.holder.actor, &ask).await?;
            if !(running && self.seat.is_holding()) {
                (self.taking_back, self.interrupted) = (Some(Instant::now()), true);
                screen.warn("taking back what was asked; once more stops at once");
                return Ok(None);
            }
        }
        if !self.seat.is_holding() {
            let state = match &row {
                Some(row) => format!("{} goes on in the hands of {}", row.id, self.seat.who()),
                None => format!("{} has the request", self.seat.who()),
            };
            return stopped(state, "`ripcord status` shows how it goes");
        }
        match row {
            Some(row) if matches!(row.state, RunState::Approved | RunState::Running) && !self.interrupted => {
                self.interrupted = true;
                screen.warn(&format!("pausing {} when the step in flight has ended; once more stops at once", row.id));
                let ask = Ask::Run { run: row.id.clone(), verb: Verb::Pause };
                let id = self.station.store.request(self.station.app(), &self.station.world.holder.actor, &ask).await?;
                self.request = Some((id, Instant::now()));
                self.reply = None;
                self.errand.run = Some(row.id);
                self.errand.until = Until::Paused;
                Ok(None)
            }
            Some(row) if matches!(row.state, RunState::Approved | RunState::Running) => stopped(
                format!("{} stands where it was; a step in flight is observed before anything else is done", row.id),
                &format!("`ripcord resume {}` goes on with it", row.id),
            ),
            Some(row) if matches!(row.state, RunState::Watching { .. }) => stopped(
                format!("everything is restored; {}: left to whoever holds the lease next", words::state(&row.state)),
                "`ripcord watch` goes on watching",
            ),
            _ if self.reply.is_none() && self.request.is_some() => stopped(
                "what was asked is taken back by whoever holds the lease next".to_owned(),
                "`ripcord status` shows it",
            ),
            _ => stopped("what was asked stands in the record".to_owned(), "`ripcord status` shows it"),
        }
    }
}

/// Whether `newest` is the next level of `named`, or took its place.
fn follows_from(named: &RunRow, newest: &RunRow) -> bool {
    let climbed = matches!(named.state, RunState::Ended(End::Insufficient)) && newest.incident == named.incident;
    newest.first > named.first && climbed && newest.incident.is_some()
}

/// Where this process sits: at the desk, or beside it.
pub struct Seat<'a> {
    station: &'a Station,
    doing: &'static str,
    holding: Option<Holding>,
    /// Who holds the lease, as last seen.
    other: Option<Holder>,
    /// Not before this moment: somebody else was promised the lease.
    not_before: Instant,
    /// How often it was given up.
    given: u32,
    /// How often what is kept is looked after while this holds the lease, where it is.
    upkeep: Option<Pace>,
}

impl<'a> Seat<'a> {
    pub fn new(station: &'a Station, doing: &'static str) -> Self {
        Self { station, doing, holding: None, other: None, not_before: Instant::now(), given: 0, upkeep: None }
    }

    /// One that stays: it looks after what is kept, too.
    pub fn with_upkeep(mut self, pace: Pace) -> Self {
        self.upkeep = Some(pace);
        self
    }

    pub fn is_holding(&self) -> bool {
        self.holding.is_some()
    }

    pub fn who(&self) -> String {
        match &self.other {
            Some(holder) => format!("{} (process {}: {})", holder.actor, holder.pid, holder.doing),
            None => "another process".to_owned(),
        }
    }

    /// Takes the lease where nobody has it.
    pub async fn tend(&mut self) -> Result<(), Problem> {
        if self.holding.is_some() || Instant::now() < self.not_before {
            return Ok(());
        }
        let station = self.station;
        if let Some(holder) = station.store.holder(&LeaseOn::App(station.app().clone())).await? {
            if self.other.as_ref() != Some(&holder) {
                // Somebody did take what was let go.
                self.given = 0;
                self.other = Some(holder);
                station.screen.hint(&format!("{} does the work; this follows", self.who()));
            }
            return Ok(());
        }
        match Holding::begin(station.world_for(self.doing), station.ttl).await {
            Ok(mut holding) => {
                if let (Some(pace), Some(shelf)) = (self.upkeep, station.shelf()) {
                    holding.keep_up(shelf, pace);
                }
                if self.other.is_some() {
                    station.screen.hint(&format!("{} is gone: going on in its place", self.who()));
                }
                self.other = None;
                self.holding = Some(holding);
                Ok(())
            }
            // Somebody was quicker.
            Err(TakeError::Acquire(ripcord_core::AcquireError::Held { .. })) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The end of the work at the desk, or never where this process only follows.
    pub async fn stopped(&mut self) -> Stop {
        match &mut self.holding {
            Some(holding) => holding.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Gets up, and says whether it may sit down again.
    pub async fn vacate(&mut self, why: Stop) -> Result<(), Problem> {
        self.leave("its desk was closed").await;
        match why {
            Stop::Asked { why } if self.given < 3 => {
                self.given += 1;
                self.station.screen.hint(&why);
                // Whoever asked needs a moment to sit down; a holder is waited for without this.
                self.not_before = Instant::now() + Duration::from_secs(3);
                Ok(())
            }
            Stop::LostLease | Stop::Overtaken { .. } => {
                self.station.screen.warn(&why.to_string());
                self.not_before = Instant::now() + Duration::from_secs(1);
                Ok(())
            }
            why => Err(why.into()),
        }
    }

    pub async fn leave(&mut self, why: &str) {
        if let Some(holding) = self.holding.take() {
            holding.finish(why).await;
        }
    }
}

/// Interrupts by the keyboard or by whoever ends this process: from the first one on they are ours to answer.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub fn new() -> Result<Self, Problem> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Problem::new(Exit::Internal, "signals cannot be listened for").cause(error.to_string())
            })
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    pub async fn next(&mut self) {
        let _ = tokio::select! {
            one = self.interrupt.recv() => one,
            one = self.terminate.recv() => one,
        };
    }
}
