//! The office: takes breaches and requests to decisions, decisions to proposals, proposals to runs. One run at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    About, Actor, Answer, Body, Call, Climb, ComponentId, Decision, Digest, End, Event, Facts, Follows, Incident,
    IncidentId, Known, Ledger, Memory, Name, NoPlan, Purpose, Reading, RunId, RunRow, RunState, Rung, Seq, Severity,
    TriggerId, TriggerState, decide,
};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::desk::{Desk, Stop};
use crate::drive::{self, Driver};
use crate::propose::{NoProposal, Proposal, Wanted, propose};
use crate::{Board, tell};

/// How often requests of other processes are looked for.
const REQUESTS: Duration = Duration::from_millis(100);
/// How often people are told again of what is still off.
const OWED: Duration = Duration::from_secs(300);
/// The longest a decision left by an earlier holder waits for signals to be read first.
const UNREAD: Duration = Duration::from_secs(60);

pub struct Office {
    pub(crate) desk: Arc<Desk>,
    pub(crate) board: Arc<Board>,
    events: broadcast::Receiver<Arc<Event>>,
    /// The run this process carries on, while it does.
    driving: Option<(RunId, JoinHandle<Result<(), Stop>>)>,
    /// The decision the open incident is acted on by.
    decision: Option<(IncidentId, Decision)>,
    /// Until when an incident taken over waits to be decided on: for signals nobody has read yet.
    unread_until: Option<Instant>,
}

impl Office {
    pub fn new(desk: &Arc<Desk>, board: &Arc<Board>) -> Self {
        Self {
            desk: Arc::clone(desk),
            board: Arc::clone(board),
            events: desk.listen(),
            driving: None,
            decision: None,
            unread_until: None,
        }
    }

    /// Works until the desk stops.
    pub async fn work(mut self) -> Stop {
        let why = match self.work_on().await {
            Ok(()) => self.desk.stopped().await,
            Err(why) => why,
        };
        self.desk.stop(why.clone());
        if let Some((_, driver)) = self.driving.take() {
            // It has heard that the desk stops; what it had in flight is found on the next start.
            let _ = driver.await;
        }
        why
    }

    async fn work_on(&mut self) -> Result<(), Stop> {
        self.take_up().await?;
        let mut owed = tokio::time::interval(OWED);
        owed.tick().await;
        loop {
            tokio::select! {
                why = self.desk.stopped() => return Err(why),
                event = self.events.recv() => match event {
                    Ok(event) => self.heard(&event).await?,
                    // What was missed is found in the record, as after a start.
                    Err(broadcast::error::RecvError::Lagged(_)) => self.take_up().await?,
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                done = ended(&mut self.driving) => self.driven(done).await?,
                () = tokio::time::sleep(REQUESTS) => {
                    self.answer_requests().await?;
                    self.escalate().await?;
                    if self.unread_until.is_some_and(|until| Instant::now() >= until || self.all_read()) {
                        self.unread_until = None;
                        self.left_undecided().await?;
                    }
                }
                _ = owed.tick() => self.remind().await?,
            }
        }
    }

    /// Takes up what an earlier holder left: a run under way, a breach nobody decided on.
    async fn take_up(&mut self) -> Result<(), Stop> {
        if let Some(row) = self.open_run().await? {
            self.go_on(&row).await?;
        }
        // What nobody has read since the start is missing from a decision: it waits for the first readings, not for long.
        let signals = self.desk.world.application.signals.values();
        let longest = signals.map(|spec| spec.every + spec.timeout).max().unwrap_or_default();
        self.unread_until = Some(Instant::now() + longest.min(UNREAD));
        Ok(())
    }

    fn all_read(&self) -> bool {
        let application = &self.desk.world.application;
        let watched = application.triggers.values().map(|rule| &rule.signal).chain(application.figures.values());
        watched.collect::<BTreeSet<_>>().into_iter().all(|signal| self.board.latest(signal).is_some())
    }

    /// Takes up what an earlier holder left undecided: a breach without an incident, an incident without a decision, a decision
    /// that was not carried out, a level that was insufficient and not followed.
    async fn left_undecided(&mut self) -> Result<(), Stop> {
        for trigger in self.unheard().await? {
            self.breached(&trigger).await?;
        }
        let Some(incident) = self.open_incident().await? else { return Ok(()) };
        let runs = self.desk.world.store.runs(self.desk.world.app(), 50).await?;
        let last = runs.iter().find(|row| row.incident.as_ref() == Some(&incident.id));
        let decision = self.last_decision(&incident).await?;
        self.decision = decision.clone().map(|decision| (incident.id.clone(), decision));
        match (last, decision) {
            (None, None) => self.consider(&incident).await,
            // Once no level is left the decision is another, so that people are not called at every start.
            (None, Some(decision)) if decision.call == Call::Rollback => self.consider(&incident).await,
            (Some(row), Some(decision))
                if decision.call == Call::Rollback && row.state == RunState::Ended(End::Insufficient) =>
            {
                self.climb(&row.id, &incident.id).await
            }
            _ => Ok(()),
        }
    }

    /// The triggers that are breached and belong to no incident since they are.
    async fn unheard(&self) -> Result<Vec<TriggerId>, Stop> {
        let incidents = self.desk.world.store.incidents(self.desk.world.app(), 20).await?;
        let heard = |id: &TriggerId, since: Timestamp| {
            let known = |i: &Incident| i.triggers.contains(id) && i.closed.is_none_or(|closed| closed >= since);
            incidents.iter().any(known)
        };
        let memories = self.board.memories().into_iter();
        let unheard = memories.filter_map(|(id, memory)| match memory.state {
            TriggerState::Breached { since } if !heard(&id, since) => Some(id),
            _ => None,
        });
        Ok(unheard.collect())
    }

    pub(crate) async fn open_run(&self) -> Result<Option<RunRow>, Stop> {
        let rows = self.desk.world.store.runs(self.desk.world.app(), 10).await?;
        Ok(rows.into_iter().find(|row| !matches!(row.state, RunState::Ended(_))))
    }

    pub(crate) async fn open_incident(&self) -> Result<Option<Incident>, Stop> {
        let incidents = self.desk.world.store.incidents(self.desk.world.app(), 20).await?;
        Ok(incidents.into_iter().find(|incident| incident.closed.is_none()))
    }

    async fn last_decision(&self, incident: &Incident) -> Result<Option<Decision>, Stop> {
        let decision = |event: Event| match event.body {
            Body::Decided { decision } => Some(*decision),
            _ => None,
        };
        Ok(self.of_incident(incident).await?.into_iter().filter_map(decision).next_back())
    }

    /// What people and checks reported it as, beside what it was opened for.
    async fn reported(&self, incident: &Incident) -> Result<BTreeSet<Name>, Stop> {
        let issue = |event: Event| match event.body {
            Body::Reported { issue, .. } => issue,
            _ => None,
        };
        Ok(self.of_incident(incident).await?.into_iter().filter_map(issue).collect())
    }

    async fn of_incident(&self, incident: &Incident) -> Result<Vec<Event>, Stop> {
        let world = &self.desk.world;
        let mut after = begun_by(incident.id.as_str());
        let mut found = vec![];
        loop {
            let page = world.store.read(world.app(), after, 1000).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.seq;
            found.extend(page.into_iter().filter(|event| event.incident.as_ref() == Some(&incident.id)));
        }
    }

    /// Carries a run on, unless it waits for people.
    pub(crate) async fn go_on(&mut self, row: &RunRow) -> Result<(), Stop> {
        if self.driving.is_some()
            || !matches!(row.state, RunState::Approved | RunState::Running | RunState::Watching { .. })
        {
            return Ok(());
        }
        // Listening begins before reading, so that no event falls between.
        let events = self.desk.listen();
        let run = drive::load(&self.desk, &row.id).await?;
        let mut driver = Driver::new(&self.desk, &self.board, run, events);
        let id = row.id.clone();
        self.driving = Some((id, tokio::spawn(async move { driver.drive().await })));
        Ok(())
    }

    async fn driven(&mut self, done: Result<Result<(), Stop>, String>) -> Result<(), Stop> {
        self.driving = None;
        match done {
            Ok(result) => result?,
            Err(why) => return Err(Stop::Broken { what: format!("driving a run failed: {why}") }),
        }
        // Parked or ended; or a person spoke just as it returned, and it goes on.
        match self.open_run().await? {
            Some(row) => self.go_on(&row).await,
            None => Ok(self.desk.free_targets().await?),
        }
    }

    async fn heard(&mut self, event: &Event) -> Result<(), Stop> {
        match &event.body {
            Body::Changed { trigger, state: TriggerState::Breached { .. }, .. } => self.breached(trigger).await,
            Body::Changed { trigger, state: TriggerState::Ok, .. } => self.recovered(trigger).await,
            Body::Ended { end: End::Insufficient } => match (&event.run, &event.incident) {
                (Some(run), Some(incident)) => self.climb(run, incident).await,
                _ => self.undecided().await,
            },
            Body::Answered { .. } | Body::Person { .. } => match self.open_run().await? {
                Some(row) => self.go_on(&row).await,
                None => {
                    if self.driving.is_none() {
                        self.desk.free_targets().await?;
                    }
                    self.undecided().await
                }
            },
            Body::Ended { .. } => self.undecided().await,
            _ => Ok(()),
        }
    }

    /// A breach that came while another run was under way has had no decision yet; now nothing is in its way.
    async fn undecided(&mut self) -> Result<(), Stop> {
        let Some(incident) = self.open_incident().await? else { return Ok(()) };
        if self.decision.as_ref().is_some_and(|(of, _)| *of == incident.id) {
            return Ok(());
        }
        match self.last_decision(&incident).await? {
            Some(decision) => self.decision = Some((incident.id.clone(), decision)),
            None => self.consider(&incident).await?,
        }
        Ok(())
    }

    /// A signal that recovers by itself while its rollback waits for an answer: whoever is about to answer should know.
    async fn recovered(&self, trigger: &TriggerId) -> Result<(), Stop> {
        let Some(row) = self.open_run().await?.filter(|row| row.state == RunState::Waiting) else { return Ok(()) };
        let Some(incident) = self.open_incident().await?.filter(|open| row.incident.as_ref() == Some(&open.id)) else {
            return Ok(());
        };
        if !incident.triggers.contains(trigger) {
            return Ok(());
        }
        let text = format!("`{trigger}` has recovered by itself while {} waits for approval", row.id);
        let mut message = tell::about_incident(&self.desk.world, &incident, None, self.desk.now());
        message.title = format!("{}: {text}", self.desk.world.app());
        message.body.push_str(&format!("\n{text}: it may not be needed any more."));
        self.desk
            .write(|_, entry| {
                entry.event(None, Some(incident.id.clone()), Body::Noted { by: Actor::Policy, text });
                entry.message(message);
            })
            .await
            .map(drop)
    }

    /// Whether nothing that the incident was opened for is wrong any longer.
    pub(crate) async fn has_recovered(&self, incident: &IncidentId) -> Result<bool, Stop> {
        let Some(incident) = self.open_incident().await?.filter(|open| open.id == *incident) else { return Ok(false) };
        let well = |id: &TriggerId| self.board.memory(id).is_some_and(|memory| memory.state == TriggerState::Ok);
        Ok(!incident.triggers.is_empty() && incident.triggers.iter().all(well))
    }

    async fn breached(&mut self, trigger: &TriggerId) -> Result<(), Stop> {
        let Some(rule) = self.desk.world.application.triggers.get(trigger).cloned() else { return Ok(()) };
        if rule.follows == Follows::Shadow {
            return Ok(());
        }
        let incident = match self.open_incident().await? {
            None => self.open(&rule.id, rule.severity, format!("`{trigger}` breached"), Actor::Policy).await?,
            Some(incident) if incident.triggers.contains(trigger) => incident,
            Some(mut incident) => {
                let body = Body::Joined { trigger: trigger.clone(), severity: rule.severity };
                let id = incident.id.clone();
                self.desk.write(|_, entry| entry.event(None, Some(id), body)).await?;
                incident.triggers.insert(trigger.clone());
                incident.severity = incident.severity.min(rule.severity);
                incident
            }
        };
        match rule.follows {
            Follows::Decide => self.consider(&incident).await,
            Follows::Page | Follows::Shadow => {
                let message = tell::about_incident(&self.desk.world, &incident, None, self.desk.now());
                self.desk.write(|_, entry| entry.message(message)).await.map(drop)
            }
        }
    }

    async fn open(&self, trigger: &TriggerId, severity: Severity, what: String, by: Actor) -> Result<Incident, Stop> {
        self.open_with(BTreeSet::from([trigger.clone()]), None, severity, what, by).await
    }

    pub(crate) async fn open_with(
        &self,
        triggers: BTreeSet<TriggerId>,
        issue: Option<Name>,
        severity: Severity,
        what: String,
        by: Actor,
    ) -> Result<Incident, Stop> {
        let ledger = self.ledger().await?;
        let release = ledger.live().map(|live| live.id.clone());
        let mut opened = None;
        self.desk
            .write(|seq, entry| {
                let incident = Incident {
                    id: IncidentId::at(seq),
                    opened: entry.at(),
                    severity,
                    what,
                    triggers,
                    issue,
                    release,
                    by,
                    closed: None,
                };
                entry.event(None, Some(incident.id.clone()), Body::Opened { incident: incident.clone() });
                opened = Some(incident);
            })
            .await?;
        opened.ok_or_else(|| Stop::Missing { what: "the incident just opened".to_owned() })
    }

    pub(crate) async fn ledger(&self) -> Result<Ledger, Stop> {
        Ok(self.desk.world.store.ledger(self.desk.world.app()).await?)
    }

    /// Decides on an incident, tells, and acts where the decision says so and nothing is under way.
    pub(crate) async fn consider(&mut self, incident: &Incident) -> Result<(), Stop> {
        if self.open_run().await?.is_some() {
            return Ok(()); // It goes on; the breach has joined the incident and counts when it is judged whether it helped.
        }
        let decision = self.decided(incident).await?;
        let world = self.desk.world.clone();
        let message = tell::about_incident(&world, incident, Some(&decision), self.desk.now());
        let (id, body) = (incident.id.clone(), Body::Decided { decision: Box::new(decision.clone()) });
        self.desk
            .write(|_, entry| {
                entry.event(None, Some(id), body);
                entry.message(message);
            })
            .await?;
        self.decision = Some((incident.id.clone(), decision.clone()));
        if decision.call != Call::Rollback {
            return Ok(());
        }
        self.climb_from(incident, &decision, None, true).await
    }

    async fn decided(&self, incident: &Incident) -> Result<Decision, Stop> {
        let world = &self.desk.world;
        let ledger = self.ledger().await?;
        let memories = self.board.memories();
        let facts = self.facts(incident, &memories, self.reported(incident).await?);
        let touched = touched(&ledger);
        let attempted = self.attempted(incident, &ledger).await?;
        let known = Known {
            application: &world.application,
            ledger: &ledger,
            incident: Some(incident),
            memories: &memories,
            facts: &facts,
            evidence: Digest::of_value(&(&facts, &memories)),
            touched: touched.as_ref(),
            attempted,
        };
        Ok(decide(&known, self.desk.now()))
    }

    fn facts(&self, incident: &Incident, memories: &BTreeMap<TriggerId, Memory>, reported: BTreeSet<Name>) -> Facts {
        let application = &self.desk.world.application;
        let open = |id: &&TriggerId| {
            let state = memories.get(*id).map(|memory| &memory.state);
            incident.triggers.contains(*id) || matches!(state, Some(TriggerState::Breached { .. }))
        };
        let breaches: BTreeSet<TriggerId> = application.triggers.keys().filter(open).cloned().collect();
        let figures =
            application.figures.iter().filter_map(|(name, signal)| match self.board.latest(signal)?.reading {
                Reading::Samples(samples) => Some((name.clone(), samples.iter().map(|s| s.value).reduce(f64::max)?)),
                Reading::Empty | Reading::Failed { .. } => None,
            });
        Facts {
            issues: breaches
                .iter()
                .filter_map(|id| application.triggers.get(id))
                .map(|rule| rule.issue.clone())
                .chain(incident.issue.clone())
                .chain(reported)
                .collect(),
            figures: figures.collect(),
            severity: Some(incident.severity),
            breaches,
        }
    }

    /// Law 7: one automatic attempt for each release and each incident.
    async fn attempted(&self, incident: &Incident, ledger: &Ledger) -> Result<bool, Stop> {
        let world = &self.desk.world;
        let live = ledger.live().map(|live| live.id.clone());
        for row in world.store.runs(world.app(), 50).await? {
            let same_incident = row.incident.as_ref() == Some(&incident.id);
            let plan = crate::read_plan(world, &row.plan).await?;
            if same_incident || plan.is_some_and(|plan| plan.purpose == Purpose::Rollback && plan.from == live) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a level of this ladder was already climbed by itself for this release or incident: the record takes one only.
    async fn rivalled(&self, plan: &ripcord_core::Plan, incident: &Incident) -> Result<bool, Stop> {
        let world = &self.desk.world;
        for row in world.store.runs(world.app(), 50).await? {
            let run = drive::load(&self.desk, &row.id).await?;
            let same =
                row.incident.as_ref() == Some(&incident.id) || (plan.from.is_some() && run.plan.from == plan.from);
            if run.automatic && same && run.plan.rung.level == plan.rung.level {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A rung was insufficient: the next one, where there is one, by itself only where the policy lets it.
    async fn climb(&mut self, run: &RunId, incident: &IncidentId) -> Result<(), Stop> {
        let Some(incident) = self.open_incident().await?.filter(|open| open.id == *incident) else { return Ok(()) };
        if self.decision.as_ref().is_none_or(|(of, _)| *of != incident.id) {
            self.decision = self.last_decision(&incident).await?.map(|decision| (incident.id.clone(), decision));
        }
        let Some((_, decision)) = self.decision.clone() else { return Ok(()) };
        let run = drive::load(&self.desk, run).await?;
        if run.plan.purpose != Purpose::Rollback {
            return Ok(()); // Whoever undid something did not ask for more of it.
        }
        // What a person began, a person takes further.
        self.climb_from(&incident, &decision, Some(&run.plan.rung), run.automatic).await
    }

    /// Proposes the lowest rung above `last` that has anything to do.
    async fn climb_from(
        &mut self,
        incident: &Incident,
        decision: &Decision,
        last: Option<&Rung>,
        by_itself: bool,
    ) -> Result<(), Stop> {
        let mut allowed = decision.automatic && by_itself && last.is_none_or(|last| last.climb == Climb::Automatic);
        let above: Vec<Rung> =
            decision.ladder.iter().filter(|rung| last.is_none_or(|last| rung.level > last.level)).cloned().collect();
        for rung in above {
            let climb = rung.climb;
            let wanted = Wanted::Rollback { to: None, rung: rung.clone(), partial: false };
            match propose(&self.desk.world, &wanted).await {
                Ok(proposal) => return self.put_forward(incident, decision, proposal, allowed).await,
                // So already, or it does not reach as far as the release did: as good as tried, and the next may follow under the
                // same rule.
                Err(NoProposal::NoPlan(NoPlan::NothingToDo { .. } | NoPlan::HalfWay { .. })) => {
                    allowed = allowed && climb == Climb::Automatic;
                }
                Err(NoProposal::Record(why)) => return Err(why),
                Err(NoProposal::Store(error)) => return Err(error.into()),
                Err(error) => {
                    let what = format!("level {} ({}) cannot be planned: {error}", rung.level, rung.name);
                    return self.call_people(incident, what, decision).await;
                }
            }
        }
        let what =
            "every level was tried or has nothing to do, and the symptom remains: it may not be the release".to_owned();
        self.call_people(incident, what, decision).await
    }

    async fn call_people(&mut self, incident: &Incident, what: String, decision: &Decision) -> Result<(), Stop> {
        let mut decision = decision.clone();
        decision.automatic = false;
        decision.call = Call::Investigate;
        decision.reasons = vec![what.clone()];
        let message = tell::about_incident(&self.desk.world, incident, Some(&decision), self.desk.now());
        let id = incident.id.clone();
        self.decision = Some((id.clone(), decision.clone()));
        self.desk
            .write(|_, entry| {
                entry.event(None, Some(id.clone()), Body::Noted { by: Actor::Policy, text: what });
                entry.event(None, Some(id), Body::Decided { decision: Box::new(decision) });
                entry.message(message);
            })
            .await
            .map(drop)
    }

    async fn put_forward(
        &mut self,
        incident: &Incident,
        decision: &Decision,
        proposal: Proposal,
        allowed: bool,
    ) -> Result<(), Stop> {
        let plan = &proposal.priced.plan;
        let automatic = allowed && proposal.attended.is_none() && !self.rivalled(plan, incident).await?;
        let offer = Offer {
            by: Actor::Policy,
            incident: Some(incident.id.clone()),
            severity: Some(decision.severity),
            authority: decision.authority.clone(),
            automatic,
            answer: None,
            request: None,
            supersedes: None,
        };
        self.write_proposal(proposal, offer).await.map(drop)
    }

    /// Puts a proposal on the record, answered at once where the answer came with it, and carries it on.
    pub(crate) async fn write_proposal(&mut self, proposal: Proposal, offer: Offer) -> Result<RunId, Stop> {
        let plan = proposal.priced.plan;
        let digest = plan.digest();
        let world = self.desk.world.clone();
        let mut id = None;
        let now = self.desk.now();
        let waits = !offer.automatic && offer.answer.is_none();
        let answer_by = waits.then(|| ripcord_core::after(now, offer.authority.answer_within));
        let events = self
            .desk
            .write(|_, entry| {
                entry.blob(&plan);
                entry.blob(&proposal.seen);
                if let Some((old, open)) = &offer.supersedes {
                    let why = format!("by a new plan of {}; it takes over what is off: {open}", offer.by);
                    entry.event(Some(old.clone()), offer.incident.clone(), Body::Superseded { by: digest, why });
                }
                let run = RunId::at(entry.next());
                let body = Body::Proposed {
                    plan: digest,
                    purpose: plan.purpose.clone(),
                    by: offer.by.clone(),
                    severity: offer.severity,
                    authority: offer.authority.clone(),
                    automatic: offer.automatic,
                    answer_by,
                };
                entry.event(Some(run.clone()), offer.incident.clone(), body);
                if let Some((reason, consent)) = offer.answer {
                    let body =
                        Body::Answered { plan: digest, by: offer.by.clone(), answer: Answer::Approve, reason, consent };
                    entry.event(Some(run.clone()), offer.incident.clone(), body);
                }
                if let Some(request) = offer.request {
                    let said = format!("proposed as {run}");
                    entry.batch().replies.push((request, ripcord_core::Reply::Taken { run: Some(run.clone()), said }));
                }
                id = Some(run);
            })
            .await?;
        let id = id.ok_or_else(|| Stop::Missing { what: "the run just proposed".to_owned() })?;
        if waits && let Some(proposed) = events.iter().find(|event| matches!(event.body, Body::Proposed { .. })) {
            let run = ripcord_core::Run::proposed(proposed, Arc::new(plan))?;
            let message = tell::about_run(&world, &run, About::ApprovalNeeded, now);
            self.desk.write(|_, entry| entry.message(message)).await?;
        }
        if let Some(row) = self.open_run().await? {
            self.go_on(&row).await?;
        }
        Ok(id)
    }

    /// Nobody answered in time: the question is asked again, louder. Silence never approves.
    async fn escalate(&mut self) -> Result<(), Stop> {
        let Some(row) = self.open_run().await?.filter(|row| row.state == RunState::Waiting) else { return Ok(()) };
        let run = drive::load(&self.desk, &row.id).await?;
        let Some(answer_by) = run.answer_by else { return Ok(()) };
        let now = self.desk.now();
        // Where nobody is named the answer is late at once; asking every second would only teach people not to listen.
        let within = run.authority.answer_within.max(Duration::from_secs(60));
        let reminders = run.reminders;
        let due = ripcord_core::after(answer_by, within.saturating_mul(reminders));
        if now < due {
            return Ok(());
        }
        let mut message = tell::about_run(&self.desk.world, &run, About::ApprovalNeeded, now);
        message
            .title
            .push_str(&format!(", unanswered for {}", ripcord_core::human(ripcord_core::between(run.proposed, now))));
        let text = format!("nobody answered {} by {due}: asked again", run.id);
        self.desk
            .write(|_, entry| {
                entry.event(Some(run.id.clone()), run.incident.clone(), Body::Noted { by: Actor::Policy, text });
                entry.message(message);
            })
            .await
            .map(drop)
    }

    /// What is off must come on: people are told again until somebody takes it over by name.
    async fn remind(&mut self) -> Result<(), Stop> {
        let world = self.desk.world.clone();
        for row in world.store.runs(world.app(), 5).await? {
            if !matches!(row.state, RunState::Parked(_) | RunState::Ended(_)) {
                continue;
            }
            let run = drive::load(&self.desk, &row.id).await?;
            if let Some(message) = tell::obligation(&world, &run, self.desk.now()) {
                self.desk.write(|_, entry| entry.message(message)).await?;
            }
        }
        Ok(())
    }

    /// Answers what is asked, oldest first. Asked for anew after each answer: answering may take long, and what is taken back
    /// meanwhile is not carried out.
    async fn answer_requests(&mut self) -> Result<(), Stop> {
        let world = self.desk.world.clone();
        let mut answered = 0;
        loop {
            let waiting = self.withdrawn(world.store.requests(world.app()).await?).await?;
            let Some(next) = waiting.into_iter().find(|request| request.id > answered) else { return Ok(()) };
            answered = next.id;
            self.answer(next).await?;
        }
    }
}

/// Right before the event that an identity is numbered by.
pub(crate) fn begun_by(id: &str) -> Seq {
    let number = id.rsplit('-').next().and_then(|number| number.parse::<u64>().ok());
    Seq(number.unwrap_or(0).saturating_sub(1))
}

/// How a proposal is put on the record.
pub(crate) struct Offer {
    pub by: Actor,
    pub incident: Option<IncidentId>,
    pub severity: Option<Severity>,
    pub authority: ripcord_core::Authority,
    pub automatic: bool,
    /// A person's yes that came with it: reason and consent.
    pub answer: Option<(Option<String>, Option<ripcord_core::Consent>)>,
    pub request: Option<u64>,
    /// A run that this one replaces, and what that one left off.
    pub supersedes: Option<(RunId, String)>,
}

/// The end of the driver, or never where there is none.
async fn ended(driving: &mut Option<(RunId, JoinHandle<Result<(), Stop>>)>) -> Result<Result<(), Stop>, String> {
    match driving {
        Some((_, driver)) => driver.await.map_err(|error| error.to_string()),
        None => std::future::pending().await,
    }
}

/// The components that the live release changed, where the release before it is known.
fn touched(ledger: &Ledger) -> Option<BTreeSet<ComponentId>> {
    let live = ledger.live().filter(|live| !live.map.is_empty())?; // Empty while it is being put out.
    let before = ledger.releases.iter().rev().find(|release| release.at < live.at && release.id != live.id)?;
    let changed = live
        .map
        .iter()
        .filter(|(place, at)| !at.flowing && before.map.get(*place).map(|b| &b.revision) != Some(&at.revision));
    Some(changed.map(|(place, _)| place.component.clone()).collect())
}
