//! Answers the requests of other processes: each is validated against the record, and turned into events or refused with a reason.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    About, Actor, Answer, Approval, Ask, Authority, Body, Consent, Event, IncidentId, Loss, Name, Plan, Priced,
    Quarantine, Reply, Request, Run, RunId, RunRow, RunState, Severity, Standing, Verb, Verdict, covers,
};

use crate::desk::Stop;
use crate::drive;
use crate::office::{Offer, Office};
use crate::propose::{NoProposal, Wanted, propose, rung};
use crate::{record, tell};

type Answered = Result<Result<Reply, Refusal>, Stop>;

struct Refusal {
    why: String,
    advice: Option<String>,
}

fn refuse(why: impl Into<String>) -> Refusal {
    Refusal { why: why.into(), advice: None }
}

fn done(said: impl Into<String>) -> Answered {
    Ok(Ok(Reply::Taken { run: None, said: said.into() }))
}

impl Office {
    pub(crate) async fn answer(&mut self, request: Request) -> Result<(), Stop> {
        let (id, by) = (request.id, request.by.clone());
        if let Some(refusal) = expired(&request, self.desk.now()) {
            return self.put_aside(id, format!("{by} {}", refusal.why), refusal).await;
        }
        let answered = match request.ask {
            Ask::Rollback { to, strategy, level, scope, reason, approve } => {
                let application = &self.desk.world.application;
                match rung(application, strategy.as_ref(), level, &scope) {
                    Err(error) => Ok(Err(refuse(said(&error)))),
                    Ok(rung) => {
                        let wanted = Wanted::Rollback { to, rung, partial: !scope.is_empty() };
                        self.propose_for(id, by, wanted, reason, approve).await
                    }
                }
            }
            Ask::Undo { run, approve } => self.propose_for(id, by, Wanted::Undo { of: run }, None, approve).await,
            Ask::Answer { run, plan, answer, reason, consent } => {
                self.answer_run(by, run, plan, answer, reason, consent).await
            }
            Ask::Run { run, verb } => self.person(by, run, verb).await,
            Ask::Declare { what, severity, issue } => self.declare(by, what, severity, issue).await,
            Ask::CloseIncident { incident, why } => self.close(by, incident, why).await,
            Ask::Record { version } => match record::observed(&self.desk, &version).await? {
                Ok(release) => done(format!("the present is recorded as {release} ({version})")),
                Err(why) => Ok(Err(refuse(why))),
            },
            Ask::Mark { release, good, why } => self.mark(by, release, good, why).await,
            Ask::Lift { version, .. } if record::quarantined(&self.desk.world, &version).await?.is_none() => {
                Ok(Err(refuse(format!("{version} is not quarantined"))))
            }
            Ask::Lift { version, why } => {
                self.desk.note(Body::Lifted { version: version.clone(), by, why }).await?;
                done(format!("{version} may be deployed again"))
            }
            Ask::Note { text } => {
                self.desk.note(Body::Noted { by, text }).await?;
                done("noted")
            }
            Ask::Proven { capture, level } => {
                let body = Body::Proven { capture: capture.clone(), level };
                self.on_capture(&capture, body, format!("{capture} is restorable")).await
            }
            Ask::Spoiled { capture, why } => {
                let body = Body::Spoiled { capture: capture.clone(), why };
                self.on_capture(&capture, body, format!("{capture} is not relied on any more")).await
            }
            Ask::Yield { to } => match self.open_run().await? {
                Some(row) if matches!(row.state, RunState::Running | RunState::Approved) => {
                    Ok(Err(refuse(format!("{} is running: wait for it, or pause it", row.id))))
                }
                // Letting go would drop the command half way.
                _ if self.deploying().await? => {
                    Ok(Err(refuse("a deployment is under way: wait for it, or end that process")))
                }
                _ => {
                    self.reply(id, Reply::Taken { run: None, said: format!("the lease is free for {to}") }).await?;
                    let why = Stop::Asked { why: format!("{to} takes over for a while") };
                    self.desk.stop(why.clone());
                    return Err(why);
                }
            },
            // What nobody had taken up is gone from the list before anything on it is answered.
            Ask::Withdraw { request } => Ok(Err(refuse(format!("request {request} does not wait: it was taken up")))),
        };
        match answered? {
            // A proposal was answered in the very batch that made it.
            Ok(Reply::Taken { run: Some(_), .. }) => Ok(()),
            Ok(reply) => self.reply(id, reply).await,
            Err(Refusal { why, advice }) => self.reply(id, Reply::Refused { why, advice }).await,
        }
    }

    /// Answers every request that its maker has taken back; returns the others.
    pub(crate) async fn withdrawn(&self, mut waiting: Vec<Request>) -> Result<Vec<Request>, Stop> {
        let pair = |waiting: &[Request]| {
            waiting.iter().find_map(|withdrawal| {
                let Ask::Withdraw { request } = withdrawal.ask else { return None };
                let theirs = |other: &&Request| other.id == request && other.by == withdrawal.by;
                Some((withdrawal.id, waiting.iter().find(theirs)?.clone()))
            })
        };
        while let Some((withdrawal, request)) = pair(&waiting) {
            waiting.retain(|other| other.id != withdrawal && other.id != request.id);
            let said = format!("request {} is taken back", request.id);
            self.desk
                .write(|_, entry| {
                    entry.batch().replies.push((withdrawal, Reply::Taken { run: None, said: said.clone() }));
                    let why = "whoever asked has taken it back".to_owned();
                    entry.batch().replies.push((request.id, Reply::Refused { why, advice: None }));
                })
                .await?;
        }
        Ok(waiting)
    }

    /// Refuses a request, and has it on the record that it was made.
    async fn put_aside(&self, id: u64, text: String, refusal: Refusal) -> Result<(), Stop> {
        let Refusal { why, advice } = refusal;
        self.desk
            .write(|_, entry| {
                entry.event(None, None, Body::Noted { by: Actor::Policy, text });
                entry.batch().replies.push((id, Reply::Refused { why, advice }));
            })
            .await
            .map(drop)
    }

    async fn reply(&self, id: u64, reply: Reply) -> Result<(), Stop> {
        self.desk.write(|_, entry| entry.batch().replies.push((id, reply))).await.map(drop)
    }

    async fn propose_for(
        &mut self,
        request: u64,
        by: Actor,
        wanted: Wanted,
        reason: Option<String>,
        approve: Option<Approval>,
    ) -> Answered {
        let supersedes = match self.open_run().await? {
            None => None,
            // An approved rollback may take the place of one that stands still, and takes over what it left off.
            Some(row) if matches!(row.state, RunState::Parked(_) | RunState::Waiting) && approve.is_some() => {
                Some(self.left_off(&row).await?)
            }
            Some(row) => {
                let advice = Some(format!(
                    "`ripcord status` shows it; `ripcord pause {0}` or `ripcord abandon {0}` first",
                    row.id
                ));
                return Ok(Err(Refusal { why: format!("{} is under way", row.id), advice }));
            }
        };
        let proposal = match propose(&self.desk.world, &wanted).await {
            Ok(proposal) => proposal,
            Err(NoProposal::Record(why)) => return Err(why),
            Err(NoProposal::Store(error)) => return Err(error.into()),
            Err(error) => return Ok(Err(refuse(said(&error)))),
        };
        let answer = match &approve {
            None => None,
            Some(approval) => match agreed(approval, &proposal.priced) {
                Ok(consent) => Some((reason, consent)),
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        let incident = self.desk.world.store.incidents(self.desk.world.app(), 20).await?;
        let incident = incident.into_iter().find(|incident| incident.closed.is_none());
        let offer = Offer {
            by,
            severity: incident.as_ref().map(|incident| incident.severity),
            incident: incident.map(|incident| incident.id),
            authority: self.authority_of_people(),
            automatic: false,
            answer,
            request: Some(request),
            supersedes,
        };
        let run = self.write_proposal(proposal, offer).await?;
        Ok(Ok(Reply::Taken { run: Some(run), said: String::new() }))
    }

    /// A person at the command line acts with the authority of the most urgent severity: one yes, given with the request.
    fn authority_of_people(&self) -> Authority {
        let rules = &self.desk.world.application.severities;
        let most_urgent = rules.values().next().map(|rule| rule.authority.clone());
        let one = Authority {
            automatic: false,
            roles: BTreeSet::new(),
            quorum: 1,
            answer_within: std::time::Duration::from_secs(900),
        };
        Authority { automatic: false, quorum: 1, ..most_urgent.unwrap_or(one) }
    }

    async fn left_off(&self, row: &RunRow) -> Result<(RunId, String), Stop> {
        let run = drive::load(&self.desk, &row.id).await?;
        let open: Vec<String> = run.open_obligations().map(|o| o.owed.clone()).collect();
        let open = if open.is_empty() { "nothing".to_owned() } else { open.join(", ") };
        Ok((row.id.clone(), open))
    }

    async fn answer_run(
        &mut self,
        by: Actor,
        id: RunId,
        plan: ripcord_core::Digest,
        answer: Answer,
        reason: Option<String>,
        consent: Option<Consent>,
    ) -> Answered {
        let run = match self.load(&id).await? {
            Ok(run) => run,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if run.state != RunState::Waiting {
            return Ok(Err(refuse(format!("{id} does not wait for an answer: {}", in_words(&run.state)))));
        }
        if plan != run.digest {
            return Ok(Err(refuse(format!(
                "the answer is to plan {}, {id} is plan {}",
                plan.short(),
                run.digest.short()
            ))));
        }
        if answer == Answer::Approve {
            if consent.as_ref().is_some_and(|consent| consent.plan != run.digest) {
                return Ok(Err(refuse("the consent is to another plan")));
            }
            if let (Some(incident), None) = (&run.incident, &reason)
                && self.has_recovered(incident).await?
            {
                return Ok(Err(Refusal {
                    why: format!("everything {incident} was opened for has recovered since {id} was proposed"),
                    advice: Some(format!(
                        "`ripcord decline {id}`; or approve it with `--reason` saying why it is needed all the same"
                    )),
                }));
            }
            if let Err(refusal) = consented(&run.plan, &Loss::none(), consent.as_ref()) {
                return Ok(Err(refusal));
            }
            if let Some(refusal) = self.moved(&run).await? {
                return Ok(Err(refusal));
            }
        }
        let body = Body::Answered { plan, by, answer, reason, consent };
        self.say(&run, body.clone()).await?;
        let mut after = run.clone();
        after.apply(&self.trial(&run, body))?;
        match answer {
            Answer::Approve if after.state == RunState::Waiting => {
                let quorum = after.authority.quorum;
                done(format!("{id} has {} of {quorum} approvals; it waits for another person", after.approvals.len()))
            }
            Answer::Approve => done(format!("{id} is approved")),
            Answer::Decline => done(format!("{id} is declined")),
        }
    }

    /// Time has passed since the plan was made: an approval holds only for a world in which the plan would still be this one.
    async fn moved(&self, run: &Run) -> Result<Option<Refusal>, Stop> {
        let wanted = match &run.plan.purpose {
            ripcord_core::Purpose::Undo { of } => Wanted::Undo { of: of.clone() },
            _ => Wanted::Rollback {
                to: run.plan.to.as_ref().map(ToString::to_string),
                rung: run.plan.rung.clone(),
                partial: true,
            },
        };
        match propose(&self.desk.world, &wanted).await {
            Ok(now) if covers(&run.plan, &now.priced.plan, &now.priced.estimate.loss_now) => Ok(None),
            Ok(_) => Ok(Some(Refusal {
                why: format!("the world has moved since {} was planned: its plan would do other things now", run.id),
                advice: Some(format!("`ripcord decline {}`, then `ripcord rollback` to plan anew", run.id)),
            })),
            Err(NoProposal::Record(why)) => Err(why),
            Err(NoProposal::Store(error)) => Err(error.into()),
            Err(error) => {
                Ok(Some(refuse(format!("the world has moved since {} was planned: {}", run.id, said(&error)))))
            }
        }
    }

    async fn load(&self, id: &RunId) -> Result<Result<Run, Refusal>, Stop> {
        match drive::load(&self.desk, id).await {
            Ok(run) => Ok(Ok(run)),
            Err(Stop::Missing { what }) => Ok(Err(Refusal {
                why: format!("the record has no {what}"),
                advice: Some("`ripcord status` lists the runs".to_owned()),
            })),
            Err(why) => Err(why),
        }
    }

    /// A person's verb: tried on a copy first, so that what cannot follow is refused and never written.
    async fn person(&mut self, by: Actor, id: RunId, verb: Verb) -> Answered {
        let run = match self.load(&id).await? {
            Ok(run) => run,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let taking = matches!(verb, Verb::Take { .. });
        if run.is_ended() && !taking {
            if verb == Verb::Resume {
                // It went on by itself the moment somebody took the lease, and is done: that is what was asked for.
                return done(format!("{id} has ended: `ripcord status` shows how"));
            }
            return Ok(Err(refuse(format!("{id} has ended"))));
        }
        let steps = matches!(verb, Verb::Retry { .. } | Verb::Skip { .. } | Verb::Done { .. });
        if steps && !matches!(run.state, RunState::Running | RunState::Parked(_)) {
            return Ok(Err(refuse(format!("{id} has no step under way: {}", in_words(&run.state)))));
        }
        let body = Body::Person { by, verb: verb.clone() };
        if let Err(error) = run.clone().apply(&self.trial(&run, body.clone())) {
            return Ok(Err(refuse(error.what)));
        }
        self.say(&run, body).await?;
        done(match verb {
            Verb::Pause => format!("{id} is paused: what is in flight is let finish"),
            Verb::Resume => format!("{id} goes on"),
            Verb::Retry { .. } => format!("{id} tries again"),
            Verb::Skip { step, .. } => format!("{id} goes on without `{step}`"),
            Verb::Done { step, .. } => format!("`{step}` of {id} counts as done"),
            Verb::Abandon { .. } => format!("{id} is abandoned"),
            Verb::Take { obligation, .. } => format!("{obligation} is yours now"),
        })
    }

    /// The event as it would be, to be tried on a copy.
    fn trial(&self, run: &Run, body: Body) -> Event {
        Event {
            id: String::new(),
            app: self.desk.world.app().clone(),
            seq: run.seq.next(),
            epoch: self.desk.epoch(),
            at: self.desk.now(),
            run: Some(run.id.clone()),
            incident: run.incident.clone(),
            version: ripcord_core::EVENT_VERSION,
            body,
            prev: ripcord_core::Digest::ZERO,
            hash: ripcord_core::Digest::ZERO,
        }
    }

    /// Writes what a person said of a run. Where it ends the run, those who were told that it began are told so too.
    async fn say(&self, run: &Run, body: Body) -> Result<(), Stop> {
        let mut after = run.clone();
        after.apply(&self.trial(run, body.clone()))?;
        let ended = after.is_ended() && !run.is_ended();
        let world = &self.desk.world;
        self.desk
            .write(|_, entry| {
                entry.event(Some(run.id.clone()), run.incident.clone(), body);
                if ended {
                    entry.message(tell::about_run(world, &after, About::Ended, entry.at()));
                }
            })
            .await
            .map(drop)
    }

    async fn deploying(&self) -> Result<bool, Stop> {
        Ok(self.ledger().await?.releases.iter().any(|release| release.standing == Standing::Deploying))
    }

    async fn close(&mut self, by: Actor, id: IncidentId, why: String) -> Answered {
        let world = &self.desk.world;
        let incidents = world.store.incidents(world.app(), 1000).await?;
        match incidents.iter().find(|incident| incident.id == id).map(|incident| incident.closed) {
            None => Ok(Err(refuse(format!("there is no incident `{id}`")))),
            Some(Some(closed)) => Ok(Err(refuse(format!("{id} is closed since {closed}")))),
            Some(None) => {
                self.desk.write(|_, entry| entry.event(None, Some(id.clone()), Body::Closed { by, why })).await?;
                done(format!("{id} is closed"))
            }
        }
    }

    async fn on_capture(&self, capture: &ripcord_core::CaptureId, body: Body, said: String) -> Answered {
        let world = &self.desk.world;
        if !world.store.captures(world.app()).await?.iter().any(|row| row.id == *capture && !row.pruned) {
            let advice = Some("`ripcord capture list` shows them".to_owned());
            return Ok(Err(Refusal { why: format!("there is no capture `{capture}`"), advice }));
        }
        self.desk.note(body).await?;
        done(said)
    }

    async fn declare(&mut self, by: Actor, what: String, severity: Option<Severity>, issue: Option<Name>) -> Answered {
        let severity = severity.unwrap_or(Severity(1));
        if let Some(open) = self.open_incident().await? {
            // One incident at a time: a report joins it, and counts in what is decided from here on.
            let body = Body::Reported { by, what, severity, issue };
            self.desk.write(|_, entry| entry.event(None, Some(open.id.clone()), body)).await?;
            let open = ripcord_core::Incident { severity: open.severity.min(severity), ..open };
            self.consider(&open).await?;
            return done(format!("it is part of {}, which is open at {}", open.id, open.severity));
        }
        let incident = self.open_with(BTreeSet::new(), issue, severity, what, by).await?;
        self.consider(&incident).await?;
        done(format!("{} is open at {severity}", incident.id))
    }

    async fn mark(&mut self, by: Actor, release: String, good: bool, why: String) -> Answered {
        let ledger = self.ledger().await?;
        let Some(found) = ledger.typed(&release).cloned() else {
            let advice = Some("`ripcord release list` shows them".to_owned());
            return Ok(Err(Refusal { why: format!("`{release}` names no recorded release"), advice }));
        };
        let at = self.desk.now();
        let verdict = match good {
            true => Verdict::Good { by: format!("{by}: {why}"), at },
            false => Verdict::Bad { why: format!("{by}: {why}"), at },
        };
        self.desk
            .write(|_, entry| {
                entry.event(None, None, Body::Judged { release: found.id.clone(), verdict });
                if !good {
                    let quarantine = Quarantine { version: found.version.clone(), why, at };
                    entry.event(None, None, Body::Quarantined { quarantine });
                }
            })
            .await?;
        let kept_out = if good { "" } else { "; its version cannot be deployed until lifted" };
        done(format!("{} ({}) is {}{kept_out}", found.id, found.version, if good { "good" } else { "bad" }))
    }
}

/// How long a request for action waits to be taken up. Past it whoever asked is gone, and so is the moment they asked in: what they
/// saw then is no reason to begin anything now. Longer than a holder ever needs to see it.
const STALE: Duration = Duration::from_secs(15 * 60);

/// Why a request is not carried out any more, where it is not.
fn expired(request: &Request, now: Timestamp) -> Option<Refusal> {
    let what = begins(&request.ask)?;
    (ripcord_core::between(request.at, now) > STALE).then(|| Refusal {
        why: format!("asked {what} at {} and nobody took it up: it is not carried out any more", request.at),
        advice: Some("ask again, if it is still wanted".to_owned()),
    })
}

/// What a request sets going, or says of the present; none of one that is as true later as when it was made: a report, an answer
/// that names its plan, a judgement, a word that only stops or settles something.
fn begins(ask: &Ask) -> Option<String> {
    match ask {
        Ask::Rollback { .. } => Some("for a rollback".to_owned()),
        Ask::Undo { run, .. } => Some(format!("to undo {run}")),
        Ask::Run { run, verb } => match verb {
            Verb::Resume => Some(format!("{run} to go on")),
            Verb::Retry { .. } => Some(format!("{run} to try again")),
            Verb::Skip { step, .. } => Some(format!("{run} to go on without `{step}`")),
            Verb::Done { step, .. } => Some(format!("{run} to go on after `{step}`")),
            Verb::Pause | Verb::Abandon { .. } | Verb::Take { .. } => None,
        },
        Ask::Record { version } => Some(format!("for the present to be recorded as {version}")),
        Ask::Yield { to } => Some(format!("for the lease for {to}")),
        Ask::Answer { .. }
        | Ask::Declare { .. }
        | Ask::CloseIncident { .. }
        | Ask::Mark { .. }
        | Ask::Lift { .. }
        | Ask::Note { .. }
        | Ask::Proven { .. }
        | Ask::Spoiled { .. }
        | Ask::Withdraw { .. } => None,
    }
}

/// Whether a yes given to the plan that was shown holds for the plan that is.
fn agreed(approval: &Approval, priced: &Priced) -> Result<Option<Consent>, Refusal> {
    let (plan, loss_now) = (&priced.plan, &priced.estimate.loss_now);
    if approval.plan.digest() != plan.digest() && !covers(&approval.plan, plan, loss_now) {
        return Err(Refusal {
            why: "the world has moved since the plan was shown: it would do other things now".to_owned(),
            advice: Some("run the command again to see the new plan".to_owned()),
        });
    }
    if approval.consent.as_ref().is_some_and(|consent| consent.plan != approval.plan.digest()) {
        return Err(refuse("the consent is to another plan"));
    }
    consented(plan, loss_now, approval.consent.as_ref())?;
    Ok(approval.consent.clone())
}

/// What gives data up needs consent that names the loss, whoever asks. What is lost by now must be within it; the run compares once
/// more when nothing writes any longer.
fn consented(plan: &Plan, loss_now: &Loss, consent: Option<&Consent>) -> Result<(), Refusal> {
    if !plan.gives_up() {
        return Ok(());
    }
    match consent {
        Some(consent) if consent.loss.covers(loss_now) => Ok(()),
        Some(_) => Err(Refusal {
            why: "the consent names a smaller loss than the plan would cause by now".to_owned(),
            advice: Some("run the command again to see the new plan".to_owned()),
        }),
        None => Err(Refusal {
            why: "the plan gives data up and nobody has consented to it".to_owned(),
            advice: Some("read the loss in the plan, then add `--confirm \"CONFIRM DATA LOSS\"`".to_owned()),
        }),
    }
}

/// An error with its causes, in one line.
pub(crate) fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}

fn in_words(state: &RunState) -> &'static str {
    match state {
        RunState::Waiting => "it waits for an answer",
        RunState::Approved => "it is approved",
        RunState::Running => "it is running",
        RunState::Watching { .. } => "it is done and being watched",
        RunState::Parked(_) => "it is parked",
        RunState::Ended(_) => "it has ended",
    }
}

/// The name a level of severity goes by here, where a person typed one.
pub fn severity_named(application: &ripcord_core::Application, name: &Name) -> Option<Severity> {
    application.severities.values().find(|rule| rule.name == *name).map(|rule| rule.severity)
}
