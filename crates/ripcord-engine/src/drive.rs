//! Drives a run: `Run::next` makes every choice; this carries it out and writes it down, intent first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    About, Action, Actor, Before, Body, CaptureId, Check, Component, Cx, Destroys, Event, Failure, Holds, HostId, Key,
    Nature, Next, ObligationId, Observation, Observe, OutOfOrder, Outcome, ParkedWhy, Place, Proof, Redo, Run, RunId,
    RunState, Step, StepId, StepState, Verb,
};
use tokio::sync::broadcast;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use crate::checks::Given;
use crate::desk::{Desk, Entry, Stop};
use crate::{Board, checks, effect, tell};

/// The most often an effect is begun again after somebody died doing it, beyond the step's own tries.
const DEATHS: u32 = 10;

/// How long an outcome waits for a look at the step it lets begin, so that it and that step's intent are one commit. Who is killed
/// meanwhile leaves a step in doubt, as a moment earlier.
const TOGETHER: Duration = Duration::from_millis(2);

/// What came of a call to the world.
enum Did {
    Looked {
        attempt: u32,
        observation: Observation,
    },
    /// Nothing was begun: more would be lost than anybody consented to.
    TooMuch {
        attempt: u32,
        why: String,
    },
    Acted {
        attempt: u32,
        outcome: Outcome,
    },
    Resolved {
        attempt: u32,
        before: Before,
        holds: Holds,
    },
    Verified(Check),
}

/// A run in the hands of this process.
pub struct Driver {
    desk: Arc<Desk>,
    board: Arc<Board>,
    pub run: Run,
    events: broadcast::Receiver<Arc<Event>>,
    calls: JoinSet<Did>,
    steps: HashMap<Id, StepId>,
    on_host: BTreeMap<Option<HostId>, u32>,
    told_over_budget: bool,
    /// Whether every outside system the plan changes is locked.
    locked: bool,
    /// When the watch is over by the monotonic clock: a step of the wall clock makes it neither shorter nor longer.
    watched_until: Option<Instant>,
}

impl Driver {
    /// Takes up a run where the journal says it stands.
    pub fn new(desk: &Arc<Desk>, board: &Arc<Board>, run: Run, events: broadcast::Receiver<Arc<Event>>) -> Self {
        Self {
            desk: Arc::clone(desk),
            board: Arc::clone(board),
            run,
            events,
            calls: JoinSet::new(),
            steps: HashMap::new(),
            on_host: BTreeMap::new(),
            told_over_budget: false,
            locked: false,
            watched_until: None,
        }
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.desk
    }

    pub(crate) fn desk_arc(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    pub(crate) fn board_arc(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    pub(crate) fn events(&mut self) -> &mut broadcast::Receiver<Arc<Event>> {
        &mut self.events
    }

    /// Carries the run on until it ends, is parked, or waits for an answer.
    ///
    /// Returns in any of these states; whoever holds the run then decides whether to wait for people. Calls in flight when it is
    /// parked are let finish first, so that what is known is on the record.
    pub async fn drive(&mut self) -> Result<(), Stop> {
        self.catch_up().await?;
        if self.run.state == RunState::Approved {
            self.start().await?;
        }
        loop {
            self.catch_up().await?;
            if self.run.state == RunState::Running && !self.locked {
                self.lock_targets().await?;
                continue;
            }
            if self.run.is_ended() && self.calls.is_empty() {
                self.locked = false;
                self.desk.free_targets().await?;
            }
            if matches!(
                self.run.state,
                RunState::Waiting | RunState::Approved | RunState::Parked(_) | RunState::Ended(_)
            ) && self.calls.is_empty()
            {
                return Ok(());
            }
            let now = self.desk.now();
            let wake = match self.begin_all(now).await? {
                Flow::Again => continue,
                Flow::Wait(wake) => wake,
            };
            let wake = [wake, self.budget_over()].into_iter().flatten().min();
            self.wait(wake).await?;
            self.warn_over_budget().await?;
        }
    }

    async fn start(&mut self) -> Result<(), Stop> {
        let inherited = self.inherited().await?;
        let world = self.desk.world.clone();
        self.commit(
            |run| run.state == RunState::Approved,
            |run, entry| {
                entry.event(Some(run.id.clone()), run.incident.clone(), Body::Started);
                for (of, obligation) in inherited {
                    let verb = Verb::Take { obligation, reason: format!("{} takes it over", run.id) };
                    entry.event(Some(of), None, Body::Person { by: Actor::Policy, verb });
                }
                // Queued before the first effect: whatever becomes of the run, that it began is told.
                entry.message(tell::about_run(&world, run, About::Started, entry.at()));
            },
        )
        .await?;
        Ok(())
    }

    /// What earlier runs owe at places that this plan switches on.
    async fn inherited(&self) -> Result<Vec<(RunId, ObligationId)>, Stop> {
        let on: BTreeSet<&Place> = self
            .run
            .plan
            .steps
            .iter()
            .filter(|step| matches!(step.action, Action::Start | Action::Resume))
            .filter_map(|step| step.place.as_ref())
            .collect();
        let world = &self.desk.world;
        let mut inherited = vec![];
        for row in world.store.runs(world.app(), 20).await?.into_iter().filter(|row| row.id != self.run.id) {
            let old = fold(world, &row.id).await?;
            let ours = old.open_obligations().filter(|open| on.contains(&open.place));
            inherited.extend(ours.map(|open| (row.id.clone(), open.id.clone())));
        }
        Ok(inherited)
    }

    /// Takes the lease on every outside system the plan changes; where somebody else has one, the run is parked and says who.
    async fn lock_targets(&mut self) -> Result<(), Stop> {
        let plan = Arc::clone(&self.run.plan);
        let mut seen = BTreeSet::new();
        let acting = plan.steps.iter().filter(|step| step.acts());
        for (step, target) in acting.filter_map(|step| Some((step, step.target.as_ref()?))) {
            if !seen.insert(target) {
                continue;
            }
            if let Some(by) = self.desk.take_target(target).await? {
                self.desk.free_targets().await?;
                let what = format!(
                    "its target `{target}` is in use by {} (process {}): {}",
                    by.actor,
                    by.pid,
                    by.doing,
                    target = target.0
                );
                let advice = Some("wait for that to end, or end it, then retry".to_owned());
                return self.park(ParkedWhy::Failed { step: step.id.clone(), what, advice }).await;
            }
        }
        self.locked = true;
        Ok(())
    }

    /// Writes what `draft` makes of the run, unless what was written meanwhile speaks against it: nobody else writes between the
    /// question and the answer, so that a person's word is never overtaken. Returns whether it was written.
    pub(crate) async fn commit(
        &mut self,
        allowed: impl Fn(&Run) -> bool,
        draft: impl FnOnce(&Run, &mut Entry),
    ) -> Result<bool, Stop> {
        self.catch_up().await?;
        let desk = Arc::clone(&self.desk);
        let (run, events) = (&mut self.run, &mut self.events);
        let mut wrong = None;
        let mut missed = false;
        let mut written = false;
        desk.write(|_, entry| {
            loop {
                match events.try_recv() {
                    Ok(event) => match take(run, &event) {
                        Ok(()) => {}
                        Err(error) => return wrong = Some(error),
                    },
                    Err(broadcast::error::TryRecvError::Lagged(_)) => return missed = true,
                    Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => break,
                }
            }
            if allowed(run) {
                written = true;
                draft(run, entry);
            }
        })
        .await?;
        if let Some(error) = wrong {
            return Err(error.into());
        }
        if missed {
            // What was missed is read before the next try, which the caller makes: the state it acts by has changed.
            self.read_anew().await?;
        }
        self.catch_up().await?;
        Ok(written)
    }

    /// Takes in every event of this run written so far, by this driver or by a person.
    pub(crate) async fn catch_up(&mut self) -> Result<(), Stop> {
        loop {
            match self.events.try_recv() {
                Ok(event) => self.take_in(&event)?,
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.read_anew().await?,
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => return Ok(()),
            }
        }
    }

    pub(crate) fn take_in(&mut self, event: &Event) -> Result<(), Stop> {
        Ok(take(&mut self.run, event)?)
    }

    pub(crate) async fn read_anew(&mut self) -> Result<(), Stop> {
        let store = Arc::clone(&self.desk.world.store);
        for event in store.read_run(self.desk.world.app(), &self.run.id).await? {
            self.take_in(&event)?;
        }
        Ok(())
    }

    pub(crate) async fn write(&mut self, body: Body) -> Result<(), Stop> {
        let (run, incident) = (self.run.id.clone(), self.run.incident.clone());
        self.desk.write(|_, entry| entry.event(Some(run), incident, body)).await?;
        self.catch_up().await
    }

    /// Begins everything that may begin now.
    async fn begin_all(&mut self, now: Timestamp) -> Result<Flow, Stop> {
        let in_flight: BTreeSet<StepId> = self.steps.values().cloned().collect();
        let was = std::mem::discriminant(&self.run.state);
        let mut wake = None;
        let now = self.steady(now);
        for next in self.run.next(now, &in_flight) {
            if was != std::mem::discriminant(&self.run.state) || self.run.paused {
                return Ok(Flow::Again); // What was begun a moment ago parked it, or a person spoke.
            }
            match next {
                Next::Begin { step, attempt } => self.begin(&step, attempt).await?,
                Next::Resolve { step, attempt, before } => self.resolve(&step, attempt, before).await?,
                Next::WaitUntil(when) => wake = Some(wake.map_or(when, |w: Timestamp| w.min(when))),
                Next::Park(why) => {
                    self.park(why).await?;
                    return Ok(Flow::Again);
                }
                Next::Restored => {
                    self.restored().await?;
                    return Ok(Flow::Again);
                }
                Next::Insufficient { why } => {
                    self.open_check_failed(why).await?;
                    return Ok(Flow::Again);
                }
                Next::Succeed => {
                    self.watched().await?;
                    return Ok(Flow::Again);
                }
            }
        }
        if let RunState::Watching { .. } = self.run.state
            && self.breached_again().await?
        {
            return Ok(Flow::Again);
        }
        if was != std::mem::discriminant(&self.run.state) {
            return Ok(Flow::Again);
        }
        Ok(Flow::Wait(wake))
    }

    /// The time the watch goes by: as long as it was to last when this process first saw it, whatever the wall clock does.
    fn steady(&mut self, now: Timestamp) -> Timestamp {
        let RunState::Watching { until } = self.run.state else { return now };
        // Whoever takes a watch over sees every signal at least twice before it ends, however late it comes.
        let intervals = self.desk.world.application.triggers.values().map(|rule| rule.interval);
        let look = intervals.max().map_or(Duration::ZERO, |interval| interval * 2 + Duration::from_secs(1));
        let last = ripcord_core::between(now, until).max(look);
        let over = *self.watched_until.get_or_insert_with(|| Instant::now() + last);
        match Instant::now() >= over {
            true => now.max(until),
            false => now.min(until.checked_sub(jiff::SignedDuration::from_millis(1)).unwrap_or(now)),
        }
    }

    /// The step, and the component that carries it out where it has a place.
    fn parts(&self, id: &StepId) -> Result<(Step, Option<Arc<dyn Component>>), Stop> {
        let missing = |what: String| Stop::Missing { what };
        let step = self.run.step(id).cloned().ok_or_else(|| missing(format!("step `{id}`")))?;
        let component = match &step.place {
            None => None,
            Some(place) => {
                let found = self.desk.world.parts.components.get(&place.component).cloned();
                Some(
                    found
                        .ok_or_else(|| missing(format!("component `{}`, which step `{id}` needs", place.component)))?,
                )
            }
        };
        Ok((step, component))
    }

    fn cx(&self, step: &Step) -> Cx {
        let mut cx = self.desk.world.cx(step.limits.call);
        cx.run = Some(self.run.id.clone());
        cx.version = self.run.plan.from_version.clone();
        cx
    }

    /// Only the same major version of an adapter knows what its former self meant.
    async fn same_adapter(&mut self, step: &Step, component: &Arc<dyn Component>) -> Result<bool, Stop> {
        let (have, Some(written)) = (component.kind(), &step.kind) else { return Ok(true) };
        if written.kind == have.kind && written.major == have.major {
            return Ok(true);
        }
        let why = ParkedWhy::OtherAdapter {
            step: step.id.clone(),
            written_by: format!("{} {}", written.kind, written.major),
            have: format!("{} {}", have.kind, have.major),
        };
        self.park(why).await?;
        Ok(false)
    }

    async fn begin(&mut self, id: &StepId, attempt: u32) -> Result<(), Stop> {
        let (step, component) = self.parts(id)?;
        if let (Action::Check { check }, None) = (&step.action, &component) {
            return self.begin_check(&step, check.clone()).await;
        }
        let Some(component) = component else { return Err(Stop::Missing { what: format!("a place for step `{id}`") }) };
        if step.acts() && self.host_is_full(&step) {
            return Ok(());
        }
        if !self.same_adapter(&step, &component).await? {
            return Ok(());
        }
        let cx = self.cx(&step);
        match step.action {
            Action::Prove { .. } => {
                let before = self.before(&step, None);
                self.call(
                    &step.clone(),
                    async move { Did::Verified(effect::prove(component, cx, step, before).await) },
                );
            }
            // What cannot be told apart afterwards (a capture, a blind component) is not looked at first either.
            _ if matches!(step.action, Action::Capture { .. }) || component.capabilities().observe == Observe::No => {
                self.intend(&step, attempt, self.before(&step, None)).await?;
            }
            _ => {
                let ceiling =
                    self.run.consent.as_ref().map_or(&self.run.plan.loss_at_most, |consent| &consent.loss).clone();
                self.call(&step.clone(), async move {
                    if let Some(why) = effect::exceeds(&component, &cx, &step, &ceiling).await {
                        return Did::TooMuch { attempt, why };
                    }
                    let observation = effect::look(&component, &cx, &step, None).await;
                    Did::Looked { attempt, observation }
                });
            }
        }
        Ok(())
    }

    async fn begin_check(&mut self, step: &Step, check: ripcord_core::CheckId) -> Result<(), Stop> {
        let world = &self.desk.world;
        let spec = world.application.checks.get(&check).cloned();
        let signal = spec.as_ref().and_then(|spec| world.parts.signals.get(&spec.signal)).cloned();
        let (Some(spec), Some(signal)) = (spec, signal) else {
            let why = format!("check `{check}` is no longer configured");
            return self.write(Body::Verified { step: step.id.clone(), verdict: Check::Inconclusive { why } }).await;
        };
        let cx = self.cx(step);
        let version = self.run.plan.to_version.clone().or_else(|| self.run.plan.from_version.clone());
        let given = Given { version, baseline: self.board.baseline(&spec.signal) };
        let timeout = world.application.signals.get(&spec.signal).map(|signal| signal.timeout);
        self.call(step, async move { Did::Verified(checks::run(&signal, &spec, timeout, &cx, &given).await) });
        Ok(())
    }

    fn before(&self, step: &Step, mark: Option<String>) -> Before {
        let captures: BTreeMap<StepId, CaptureId> = match &step.action {
            Action::Restore { from: Some(ripcord_core::CaptureRef::MadeBy(by)), .. } => {
                self.run.captures.iter().filter(|(id, _)| *id == by).map(|(id, c)| (id.clone(), c.clone())).collect()
            }
            _ => BTreeMap::new(),
        };
        let key = Key::of(self.desk.world.app(), &self.run.id, &step.id);
        Before { at: self.desk.now(), mark, key, captures }
    }

    /// Commits the intent, then acts.
    async fn intend(&mut self, step: &Step, attempt: u32, before: Before) -> Result<(), Stop> {
        let intent = Body::Intent { step: step.id.clone(), attempt, before: before.clone() };
        let begun = self.commit(goes_on, |run, entry| entry.event(Some(run.id.clone()), run.incident.clone(), intent));
        if !begun.await? {
            return Ok(()); // Parked, paused or ended while it was looked at: it is as if it had not been looked at.
        }
        let (step, Some(component)) = self.parts(&step.id)? else { return Ok(()) };
        self.apply(step, component, attempt, before);
        Ok(())
    }

    /// Acts: the intent is committed.
    fn apply(&mut self, step: Step, component: Arc<dyn Component>, attempt: u32, before: Before) {
        let cx = self.cx(&step);
        self.call(&step.clone(), async move {
            Did::Acted { attempt, outcome: effect::act(component, cx, step, before).await }
        });
    }

    /// The step that begins once `done` is on record, where a look says so at once; with what was found there. A look that takes longer
    /// goes on as the step's own: a large tree is not read twice.
    async fn follower(&mut self, done: &StepId) -> Option<(Step, Arc<dyn Component>, Before)> {
        let in_flight: BTreeSet<StepId> = self.steps.values().cloned().collect();
        let next = self.run.follower(done, &in_flight)?.id.clone();
        let (step, component) = self.parts(&next).ok()?;
        let component = component?;
        let same = step.kind.as_ref().is_none_or(|written| {
            let have = component.kind();
            (&written.kind, written.major) == (&have.kind, have.major)
        });
        // What gives something up, or cannot be looked at, takes the long way.
        let can = component.capabilities();
        let plain = step.acts()
            && step.destroys != Destroys::GivesUp
            && can.nature == Nature::Versioned
            && can.observe != Observe::No;
        if !same || !plain || self.host_is_full(&step) {
            return None;
        }
        let cx = self.cx(&step);
        // In a task of its own, so that an adapter that panics is not taken for us.
        let (looking, at) = (Arc::clone(&component), step.clone());
        let mut look = tokio::spawn(async move { effect::look(&looking, &cx, &at, None).await });
        let Ok(seen) = tokio::time::timeout(TOGETHER, &mut look).await else {
            self.call(&step, async move {
                match look.await {
                    Ok(observation) => Did::Looked { attempt: 1, observation },
                    Err(broken) => match broken.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        // Everything is being shut down.
                        Err(_) => std::future::pending().await,
                    },
                }
            });
            return None;
        };
        let seen = seen.ok()?;
        match seen.holds {
            Holds::Origin | Holds::Neither { .. } => {
                let before = self.before(&step, seen.mark);
                Some((step, component, before))
            }
            Holds::Target | Holds::CannotTell { .. } => None,
        }
    }

    async fn resolve(&mut self, id: &StepId, attempt: u32, before: Before) -> Result<(), Stop> {
        let (step, Some(component)) = self.parts(id)? else { return Ok(()) };
        if !self.same_adapter(&step, &component).await? {
            return Ok(());
        }
        let cx = self.cx(&step);
        let not_before = self.wait_out(&step).await?;
        self.call(&step.clone(), async move {
            if let Some(not_before) = not_before {
                tokio::time::sleep_until(not_before).await;
            }
            let holds = effect::resolve(component, cx, step, before.clone()).await;
            Did::Resolved { attempt, before, holds }
        });
        Ok(())
    }

    /// When a step in doubt may be looked at: its call may still be carried out by a former holder that is not known to be gone, and
    /// what is seen before it has ended is not what will be.
    async fn wait_out(&mut self, step: &Step) -> Result<Option<Instant>, Stop> {
        let events = self.desk.world.store.read_run(self.desk.world.app(), &self.run.id).await?;
        let last = events.iter().rev().find(|event| match &event.body {
            Body::Intent { step: of, .. } | Body::Acted { step: of, .. } => *of == step.id,
            _ => false,
        });
        // A call whose outcome is on record has ended, whatever it was.
        let Some(Event { body: Body::Intent { .. }, epoch, at, .. }) = last else { return Ok(None) };
        let Some(until) = self.desk.may_go_on_until(*epoch, *at, step.limits.call) else { return Ok(None) };
        let text = format!(
            "`{}` may still be carried out by a former holder that is not known to be gone: it is looked at from {until} on",
            step.id
        );
        self.write(Body::Noted { by: Actor::Policy, text }).await?;
        Ok(Some(Instant::now() + self.desk.world.clock.until(until)))
    }

    fn call(&mut self, step: &Step, call: impl Future<Output = Did> + Send + 'static) {
        let id = self.calls.spawn(call).id();
        self.steps.insert(id, step.id.clone());
        *self.on_host.entry(host(step)).or_default() += u32::from(step.acts());
    }

    fn host_is_full(&self, step: &Step) -> bool {
        let running = self.on_host.get(&host(step)).copied().unwrap_or(0);
        running >= self.desk.world.application.policy.per_host.max(1)
    }

    /// Waits for a call to end, a person to speak, the next moment that matters, or the end of everything.
    async fn wait(&mut self, wake: Option<Timestamp>) -> Result<(), Stop> {
        let at_least = Duration::from_millis(1);
        let sleep = match (&self.run.state, self.watched_until) {
            (RunState::Watching { .. }, Some(over)) => {
                Some(over.saturating_duration_since(Instant::now()).max(at_least))
            }
            _ => wake.map(|when| self.desk.world.clock.until(when).max(at_least)),
        };
        let timer = async {
            match sleep {
                Some(sleep) => tokio::time::sleep(sleep).await,
                None => std::future::pending().await,
            }
        };
        let changed = self.board.changed();
        let watching = matches!(self.run.state, RunState::Watching { .. });
        tokio::select! {
            biased;
            why = self.desk.stopped() => {
                // Local children end with their calls; nothing new begins.
                self.calls.abort_all();
                return Err(why);
            }
            Some(done) = self.calls.join_next_with_id() => {
                let (id, did) = match done {
                    Ok((id, did)) => (id, Ok(did)),
                    Err(error) => (error.id(), Err(error.to_string())),
                };
                self.finish(id, did).await?;
                // Whatever ended in the meantime is written without waiting for more.
                while let Some(done) = self.calls.try_join_next_with_id() {
                    let (id, did) = match done {
                        Ok((id, did)) => (id, Ok(did)),
                        Err(error) => (error.id(), Err(error.to_string())),
                    };
                    self.finish(id, did).await?;
                }
            }
            event = self.events.recv() => match event {
                Ok(event) => self.take_in(&event)?,
                Err(broadcast::error::RecvError::Lagged(_)) => self.read_anew().await?,
                Err(broadcast::error::RecvError::Closed) => return Err(Stop::LostLease),
            },
            () = changed, if watching => {}
            () = timer => {}
        }
        Ok(())
    }

    async fn finish(&mut self, id: Id, did: Result<Did, String>) -> Result<(), Stop> {
        let Some(step_id) = self.steps.remove(&id) else { return Ok(()) };
        let (step, component) = self.parts(&step_id)?;
        if let Some(running) = self.on_host.get_mut(&host(&step)) {
            *running = running.saturating_sub(u32::from(step.acts()));
        }
        self.catch_up().await?;
        let settled = matches!(
            self.run.steps.get(&step_id),
            Some(StepState::Done { .. } | StepState::Held { .. } | StepState::Skipped { .. })
        );
        match did {
            // By a person, while it was looked at: there is nothing left to find out.
            Ok(Did::Looked { .. } | Did::TooMuch { .. } | Did::Resolved { .. } | Did::Verified(_)) if settled => Ok(()),
            Ok(Did::Looked { attempt, observation }) => self.looked(&step, attempt, observation).await,
            Ok(Did::TooMuch { .. }) if !goes_on(&self.run) => Ok(()),
            Ok(Did::TooMuch { attempt, why }) => {
                let before = self.before(&step, None);
                self.write(Body::Intent { step: step.id.clone(), attempt, before }).await?;
                let advice = "nothing was given up: abandon this run, and consent to the new plan's loss";
                self.acted(&step, attempt, Outcome::Failed(Failure::never(why).advise(advice))).await
            }
            Ok(Did::Acted { attempt, outcome }) => self.acted(&step, attempt, outcome).await,
            Ok(Did::Resolved { attempt, before, holds }) => {
                let redo = component.map_or(Redo::Never, |component| component.capabilities().redo);
                self.resolved(&step, attempt, before, holds, redo).await
            }
            Ok(Did::Verified(verdict)) => self.verified(&step, verdict).await,
            Err(why) => self.broke(&step, why).await,
        }
    }

    /// A verdict is written as it is; one that is none parks the run, and people are told in the same breath.
    async fn verified(&mut self, step: &Step, verdict: Check) -> Result<(), Stop> {
        let world = self.desk.world.clone();
        let id = step.id.clone();
        self.commit(
            |run| !run.is_ended(),
            |run, entry| {
                let body = Body::Verified { step: id.clone(), verdict: verdict.clone() };
                entry.event(Some(run.id.clone()), run.incident.clone(), body);
                if let (Check::Inconclusive { why }, RunState::Running) = (verdict, &run.state) {
                    let mut parked = run.clone();
                    parked.state = RunState::Parked(ParkedWhy::Inconclusive { step: Some(id), why });
                    entry.message(tell::about_run(&world, &parked, About::Parked, entry.at()));
                }
            },
        )
        .await
        .map(drop)
    }

    async fn looked(&mut self, step: &Step, attempt: u32, observation: Observation) -> Result<(), Stop> {
        if !goes_on(&self.run) {
            return Ok(()); // It is looked at anew when the run goes on.
        }
        match observation.holds {
            Holds::Target => {
                let found = step.shown.words.clone();
                self.write(Body::Held { step: step.id.clone(), found }).await
            }
            Holds::CannotTell { why } => {
                // Nothing was begun, so this is a plain failure, tried again like one.
                let before = self.before(step, observation.mark);
                self.write(Body::Intent { step: step.id.clone(), attempt, before }).await?;
                let outcome = Outcome::Failed(Failure::later(format!("it cannot be observed: {why}")));
                self.acted(step, attempt, outcome).await
            }
            Holds::Origin | Holds::Neither { .. } => {
                let before = self.before(step, observation.mark);
                self.intend(step, attempt, before).await
            }
        }
    }

    async fn acted(&mut self, step: &Step, attempt: u32, outcome: Outcome) -> Result<(), Stop> {
        let made = match &outcome {
            Outcome::Done(Proof { capture: Some(made), .. }) => Some(Box::new(made.clone())),
            _ => None,
        };
        let purpose = match step.action {
            Action::Capture { purpose } => Some(purpose),
            _ => None,
        };
        let awaited = |run: &Run| matches!(run.steps.get(&step.id), Some(StepState::InDoubt { .. }));
        // What restores from a capture can name it only once that is on record.
        if made.is_none()
            && matches!(outcome, Outcome::Done(_))
            && let Some((next, component, before)) = self.follower(&step.id).await
        {
            let acted = Body::Acted { step: step.id.clone(), attempt, outcome: outcome.clone() };
            let intent = Body::Intent { step: next.id.clone(), attempt: 1, before: before.clone() };
            let both = self.commit(
                |run| goes_on(run) && awaited(run),
                |run, entry| {
                    entry.event(Some(run.id.clone()), run.incident.clone(), acted);
                    entry.event(Some(run.id.clone()), run.incident.clone(), intent);
                },
            );
            if both.await? {
                self.apply(next, component, 1, before);
                return Ok(());
            }
        }
        while awaited(&self.run) {
            let (made, outcome) = (made.clone(), outcome.clone());
            let written = self.commit(awaited, |run, entry| {
                let (id, incident) = (run.id.clone(), run.incident.clone());
                if let (Some(made), Some(purpose), Some(of)) = (made, purpose, step.place.clone()) {
                    let capture = CaptureId::at(entry.next());
                    let captured =
                        Body::Captured { capture, of, purpose, release: None, step: Some(step.id.clone()), made };
                    entry.event(Some(id.clone()), incident.clone(), captured);
                }
                entry.event(Some(id), incident, Body::Acted { step: step.id.clone(), attempt, outcome });
            });
            if written.await? {
                return Ok(());
            }
        }
        // A person has settled it meanwhile, and has the last word; what came of it is worth knowing all the same.
        let text = match outcome {
            Outcome::Done(proof) => format!("`{}` was done all the same: {}", step.id, proof.found),
            Outcome::Failed(failure) => format!("`{}` has failed: {}", step.id, failure.what),
            Outcome::Unknown { why } => format!("`{}` has ended, and nobody knows how: {why}", step.id),
        };
        self.write(Body::Noted { by: Actor::Policy, text }).await
    }

    /// An effect that may have happened: what was found decides.
    async fn resolved(
        &mut self,
        step: &Step,
        attempt: u32,
        before: Before,
        holds: Holds,
        redo: Redo,
    ) -> Result<(), Stop> {
        let may_redo = attempt < step.limits.tries.max(DEATHS);
        match holds {
            Holds::Target => {
                let outcome = Outcome::Done(Proof::of("found done after an interruption"));
                self.acted(step, attempt, outcome).await
            }
            // The same key and mark as the first time: one effect, however often it is begun.
            Holds::Origin if may_redo => self.intend(step, attempt + 1, before).await,
            Holds::Neither { .. } if may_redo && redo != Redo::Never => self.intend(step, attempt + 1, before).await,
            Holds::Origin => {
                let outcome = Outcome::Failed(Failure::never(format!("begun {attempt} times, and still as before")));
                self.acted(step, attempt, outcome).await
            }
            Holds::Neither { found } | Holds::CannotTell { why: found } => {
                self.park(ParkedWhy::InDoubt { step: step.id.clone(), found }).await
            }
        }
    }

    /// An adapter panicked: our bug. An effect may have happened; a look or a check has no verdict.
    async fn broke(&mut self, step: &Step, why: String) -> Result<(), Stop> {
        let why = format!("an error inside Ripcord: {why}");
        match self.run.steps.get(&step.id) {
            Some(StepState::InDoubt { attempt, .. }) => {
                let attempt = *attempt;
                self.acted(step, attempt, Outcome::Unknown { why: why.clone() }).await?;
                self.park(ParkedWhy::InDoubt { step: step.id.clone(), found: why }).await
            }
            _ => self.park(ParkedWhy::Inconclusive { step: Some(step.id.clone()), why }).await,
        }
    }

    pub(crate) async fn park(&mut self, why: ParkedWhy) -> Result<(), Stop> {
        let world = self.desk.world.clone();
        self.commit(
            |run| !matches!(run.state, RunState::Parked(_) | RunState::Ended(_)),
            |run, entry| {
                let mut parked = run.clone();
                parked.state = RunState::Parked(why.clone());
                entry.event(Some(run.id.clone()), run.incident.clone(), Body::Parked { why });
                entry.message(tell::about_run(&world, &parked, About::Parked, entry.at()));
            },
        )
        .await
        .map(drop)
    }

    fn budget_over(&self) -> Option<Timestamp> {
        let begun = self.run.started.filter(|_| self.run.state == RunState::Running && !self.told_over_budget)?;
        Some(ripcord_core::after(begun, self.run.plan.rung.budget))
    }

    /// Overrunning a budget tells people; it never kills a restore half way.
    async fn warn_over_budget(&mut self) -> Result<(), Stop> {
        if self.budget_over().is_none_or(|over| self.desk.now() < over) {
            return Ok(());
        }
        self.told_over_budget = true;
        // By a former holder of it, perhaps.
        let told = self.desk.world.store.read_run(self.desk.world.app(), &self.run.id).await?;
        if told.iter().any(|event| matches!(event.body, Body::Overran { .. })) {
            return Ok(());
        }
        let rung = &self.run.plan.rung;
        let body = Body::Overran { what: format!("level {} ({})", rung.level, rung.name), budget: rung.budget };
        let (run, incident) = (self.run.id.clone(), self.run.incident.clone());
        let mut message = tell::about_run(&self.desk.world, &self.run, About::Progress, self.desk.now());
        message.title.push_str(&format!(", and over its budget of {}", ripcord_core::human(self.run.plan.rung.budget)));
        self.desk
            .write(|_, entry| {
                entry.event(Some(run), incident, body);
                entry.message(message);
            })
            .await?;
        self.catch_up().await
    }
}

enum Flow {
    Again,
    Wait(Option<Timestamp>),
}

fn host(step: &Step) -> Option<HostId> {
    step.place.as_ref().and_then(|place| place.host.clone())
}

fn take(run: &mut Run, event: &Event) -> Result<(), OutOfOrder> {
    if event.run.as_ref() == Some(&run.id) && event.seq > run.seq {
        run.apply(event)?;
        run.seq = event.seq;
    }
    Ok(())
}

/// Whether effects may be begun: not once a person, or a failure beside, has had it stop.
fn goes_on(run: &Run) -> bool {
    run.state == RunState::Running && !run.paused
}

/// Reads a run back from the journal.
pub async fn load(desk: &Desk, id: &RunId) -> Result<Run, Stop> {
    let world = &desk.world;
    fold(world, id).await
}

/// The fold of a run's events, for anybody who may read.
pub async fn fold(world: &crate::World, id: &RunId) -> Result<Run, Stop> {
    let missing = |what: String| Stop::Missing { what };
    let events = world.store.read_run(world.app(), id).await?;
    let first = events.first().ok_or_else(|| missing(format!("run `{id}`")))?;
    let Body::Proposed { plan, .. } = &first.body else { return Err(missing(format!("the proposal of run `{id}`"))) };
    let plan = crate::read_plan(world, plan).await?.ok_or_else(|| missing(format!("the plan of run `{id}`")))?;
    let mut run = Run::proposed(first, Arc::new(plan))?;
    for event in &events[1..] {
        run.apply(event)?;
        run.seq = event.seq;
    }
    Ok(run)
}
