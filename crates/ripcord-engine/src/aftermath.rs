//! What follows when every step is settled: is it consistent, is it on the record, did it help, does it stay that way.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use ripcord_core::{
    About, Actor, Body, Check, Compared, Condition, End, Ledger, Means, Nature, Origin, ParkedWhy, Place, Purpose,
    Quarantine, Recorded, Release, ReleaseId, Revision, RunState, Seen, Standing, TriggerId, TriggerState, Verdict,
    after,
};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::desk::{Entry, Stop};
use crate::drive::Driver;
use crate::{record, survey, tell};

/// How many good samples in a row, taken after the restore, show that a signal has recovered.
const RECOVERED: u32 = 3;

impl Driver {
    /// Every step is settled: consistency, the ledger, and whether it helped.
    pub(crate) async fn restored(&mut self) -> Result<(), Stop> {
        let Some(restored) = self.on_the_ledger().await? else { return Ok(()) };
        let (verdict, compared) = self.helped(restored).await?;
        if self.run.state != RunState::Running {
            return Ok(()); // Abandoned by a person while we watched.
        }
        let body = Body::Helped { verdict: verdict.clone(), compared };
        let running = |run: &ripcord_core::Run| run.state == RunState::Running;
        let said = |run: &ripcord_core::Run, entry: &mut Entry| {
            entry.event(Some(run.id.clone()), run.incident.clone(), body);
        };
        if !self.commit(running, said).await? {
            return Ok(());
        }
        match verdict {
            Check::Pass { .. } => self.helps().await,
            Check::Fail { what } => self.insufficient(what.join("; ")).await,
            Check::Inconclusive { why } => self.park(ParkedWhy::Inconclusive { step: None, why }).await,
        }
    }

    /// A check of the live system failed after everything was restored.
    pub(crate) async fn open_check_failed(&mut self, why: String) -> Result<(), Stop> {
        if self.on_the_ledger().await?.is_some() {
            self.insufficient(why).await?;
        }
        Ok(())
    }

    /// Checks the end state and records it; none when the run was parked for it. Returns when it was restored.
    async fn on_the_ledger(&mut self) -> Result<Option<Timestamp>, Stop> {
        let world = self.desk().world.clone();
        let ledger = world.store.ledger(world.app()).await?;
        let ours = |r: &&Release| r.origin == Origin::Restored { run: self.run.id.clone() };
        if let Some(recorded) = ledger.releases.iter().find(ours) {
            return Ok(Some(recorded.at)); // Recorded before an interruption.
        }
        let seen = survey(&world, &[]).await;
        // B2: the release is back, not this or that service: what was at it before the run counts as well as what the run changed.
        let elsewhere = |(place, revision): (&Place, &Revision)| {
            let found = seen.surveys.get(place).map(|survey| &survey.seen);
            let there = found == Some(&Seen::At(revision.clone()));
            (!there).then(|| format!("`{place}` should be at {} and is {}", revision.short(), said(found)))
        };
        let what: Vec<String> = self.run.plan.ends_at.iter().filter_map(elsewhere).collect();
        if !what.is_empty() {
            self.park(ParkedWhy::HalfWay { what }).await?;
            return Ok(None);
        }
        let release = self.release(&ledger, &seen);
        let back = self.puts_back(&seen);
        let superseded = ledger.live().map(|live| live.id.clone());
        let standing = match self.run.plan.rung.means {
            Means::Restore { .. } => Standing::RolledBack { by: self.run.id.clone() },
            Means::Set { .. } => Standing::Superseded,
        };
        let (run, incident) = (self.run.id.clone(), self.run.incident.clone());
        let told = (!back.is_empty()).then(|| tell::puts_back(&world, &self.run, &back, world.clock.now()));
        let written = self
            .desk()
            .write(|_, entry| {
                if let Some(superseded) = superseded {
                    entry.event(Some(run.clone()), incident.clone(), Body::Stands { release: superseded, standing });
                }
                let at = entry.at();
                let release = Release { id: ReleaseId::at(entry.next()), at, ..release };
                entry.event(Some(run.clone()), incident.clone(), Body::Recorded { release: Box::new(release) });
                if let Some(message) = told {
                    let text = format!("this would put something else back: {}", back.join("; "));
                    entry.event(Some(run), incident, Body::Noted { by: Actor::Policy, text });
                    entry.message(message);
                }
            })
            .await?;
        self.catch_up().await?;
        Ok(written.last().map(|event| event.at))
    }

    /// What would put another revision in the place of what the run restored, seen once it is there (B11).
    fn puts_back(&self, seen: &ripcord_core::Inventory) -> Vec<String> {
        let plan = &self.run.plan;
        let acted = plan.steps.iter().filter(|step| step.acts()).filter_map(|step| step.place.as_ref());
        let concerned: BTreeSet<&Place> = plan.ends_at.keys().chain(acted).collect();
        let ours = seen.surveys.iter().filter(|(place, _)| concerned.contains(place));
        let mut by: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (place, what) in ours.flat_map(|(place, survey)| survey.puts_back.iter().map(move |what| (place, what))) {
            by.entry(what).or_default().push(place.to_string());
        }
        by.into_iter().map(|(what, places)| format!("{}: {what}", places.join(", "))).collect()
    }

    /// The state reached, as a release: what was restored as the target had it, everything else as it was seen.
    fn release(&self, ledger: &Ledger, seen: &ripcord_core::Inventory) -> Release {
        let plan = &self.run.plan;
        let target = plan.to.as_ref().and_then(|id| ledger.find(id));
        let live = ledger.live();
        let mut map: BTreeMap<Place, Recorded> = live.map(|live| live.map.clone()).unwrap_or_default();
        let components = &self.desk().world.parts.components;
        for (place, survey) in &seen.surveys {
            let (Some(component), Seen::At(revision)) = (components.get(&place.component), &survey.seen) else {
                continue;
            };
            let capabilities = component.capabilities();
            if !record::has_revision(&capabilities) || capabilities.nature == Nature::Flowing {
                continue;
            }
            // The capture that holds this very revision, wherever it was recorded.
            let held = [target, live]
                .into_iter()
                .flatten()
                .filter_map(|r| r.map.get(place))
                .find(|at| at.revision == *revision);
            let capture = held.and_then(|at| at.capture.clone());
            map.insert(
                place.clone(),
                Recorded { revision: revision.clone(), label: survey.label.clone(), capture, flowing: false },
            );
        }
        if let Means::Restore { scope } = &plan.rung.means {
            let restored = target
                .into_iter()
                .flat_map(|t| &t.map)
                .filter(|(place, at)| at.flowing && scope.contains(&place.component));
            map.extend(restored.map(|(place, at)| (place.clone(), at.clone())));
        }
        let version =
            plan.to_version.clone().or_else(|| plan.from_version.clone()).unwrap_or_else(|| "unknown".to_owned());
        Release {
            id: ReleaseId::at(self.run.seq),
            version,
            origin: Origin::Restored { run: self.run.id.clone() },
            map,
            config: plan.config,
            verdict: Verdict::Undecided,
            standing: Standing::Live,
            at: self.desk().now(),
        }
    }

    /// The triggers this run was begun for.
    async fn symptoms(&self) -> Result<Vec<TriggerId>, Stop> {
        let Some(id) = &self.run.incident else { return Ok(vec![]) };
        let world = &self.desk().world;
        let incidents = world.store.incidents(world.app(), 50).await?;
        let incident = incidents.into_iter().find(|incident| incident.id == *id);
        Ok(incident.map(|incident| incident.triggers.into_iter().collect()).unwrap_or_default())
    }

    /// Compares the breached signals, from samples taken after the restore, with what was normal before the release.
    async fn helped(&mut self, restored: Timestamp) -> Result<(Check, Vec<Compared>), Stop> {
        let symptoms = self.symptoms().await?;
        if matches!(self.run.plan.purpose, Purpose::Undo { .. }) {
            // Whoever undoes a rollback knows what it was for.
            return Ok((Check::Pass { found: "an undo is not meant to cure anything".to_owned() }, vec![]));
        }
        if symptoms.is_empty() {
            return Ok((
                Check::Pass { found: "no signal was breached, so there is none to compare".to_owned() },
                vec![],
            ));
        }
        self.board().begin_anew(&symptoms);
        // From now and not from the restore: whoever takes over, or tries again, needs the whole time to see enough. By the
        // monotonic clock: a step of the wall clock is no evidence.
        let began = self.desk().now();
        let deadline = Instant::now() + self.desk().world.application.policy.helps_within;
        loop {
            let compared: Vec<Compared> = symptoms.iter().map(|trigger| self.compare(trigger)).collect();
            if compared.iter().all(|c| c.recovered) {
                return Ok((Check::Pass { found: "every breached signal is back to normal".to_owned() }, compared));
            }
            if Instant::now() >= deadline {
                return Ok((self.did_not_recover(&compared, restored.max(began)), compared));
            }
            self.wait_for_board(deadline).await?;
            if self.run.state != RunState::Running {
                return Ok((Check::Inconclusive { why: "a person ended it".to_owned() }, compared));
            }
        }
    }

    async fn wait_for_board(&mut self, deadline: Instant) -> Result<(), Stop> {
        let (desk, board) = (self.desk_arc(), self.board_arc());
        tokio::select! {
            why = desk.stopped() => return Err(why),
            () = board.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
            event = self.events().recv() => match event {
                Ok(event) => self.take_in(&event)?,
                Err(broadcast::error::RecvError::Lagged(_)) => self.read_anew().await?,
                Err(broadcast::error::RecvError::Closed) => return Err(Stop::LostLease),
            },
        }
        Ok(())
    }

    fn compare(&self, trigger: &TriggerId) -> Compared {
        let world = &self.desk().world;
        let memory = self.board().memory(trigger).unwrap_or_default();
        let rule = world.application.triggers.get(trigger);
        let baseline = rule.and_then(|rule| self.board().baseline(&rule.signal)).or(memory.baseline);
        let good = self.board().good(trigger);
        let normal = match (baseline, memory.value, rule) {
            (Some(baseline), Some(value), Some(rule)) if baseline > 0.0 => {
                as_before(rule, value, baseline, world.application.policy.recovered_at)
            }
            _ => true,
        };
        Compared {
            trigger: trigger.clone(),
            baseline,
            breached_at: None,
            now: memory.value,
            recovered: good >= RECOVERED && normal,
        }
    }

    fn did_not_recover(&self, compared: &[Compared], restored: Timestamp) -> Check {
        let fresh = |c: &&Compared| {
            let memory = self.board().memory(&c.trigger).unwrap_or_default();
            // A signal that has gone dark since says nothing of how things are now.
            !memory.state.is_gap() && memory.last_sample.is_some_and(|at| at > restored)
        };
        let (fresh, blind): (Vec<&Compared>, Vec<&Compared>) =
            compared.iter().filter(|c| !c.recovered).partition(fresh);
        let figure = |value: Option<f64>| value.map_or("no data".to_owned(), |value| format!("{value:.4}"));
        match fresh.is_empty() {
            true => {
                let names: Vec<String> = blind.iter().map(|c| c.trigger.to_string()).collect();
                Check::Inconclusive { why: format!("there is no data since the restore for {}", names.join(", ")) }
            }
            false => Check::Fail {
                what: fresh
                    .iter()
                    .map(|c| {
                        format!("`{}` is {} (before the release: {})", c.trigger, figure(c.now), figure(c.baseline))
                    })
                    .collect(),
            },
        }
    }

    /// It helped: the bad release is judged and kept out, and the watch begins.
    async fn helps(&mut self) -> Result<(), Stop> {
        let world = self.desk().world.clone();
        let plan = self.run.plan.clone();
        let until = after(self.desk().now(), world.application.policy.watch);
        let bad = match (&plan.purpose, &plan.rung.means) {
            (Purpose::Rollback, Means::Restore { .. }) if plan.from_version != plan.to_version => {
                plan.from.clone().zip(plan.from_version.clone())
            }
            _ => None,
        };
        self.commit(
            |run| run.state == RunState::Running,
            |run, entry| {
                let at = entry.at();
                let (id, incident) = (run.id.clone(), run.incident.clone());
                let why = match &incident {
                    Some(incident) => format!("rolled back by {id} in {incident}"),
                    None => format!("rolled back by {id}"),
                };
                if let Some((release, version)) = bad {
                    let verdict = Verdict::Bad { why: why.clone(), at };
                    entry.event(Some(id.clone()), incident.clone(), Body::Judged { release, verdict });
                    let quarantine = Quarantine { version, why, at };
                    entry.event(Some(id), incident, Body::Quarantined { quarantine });
                }
                entry.event(Some(run.id.clone()), run.incident.clone(), Body::Watching { until });
                let mut watched = run.clone();
                watched.state = RunState::Watching { until };
                entry.message(tell::about_run(&world, &watched, About::Progress, at));
            },
        )
        .await
        .map(drop)
    }

    /// Everything was done and is consistent, and the symptom remains. Where data was given up, nothing climbs by itself.
    async fn insufficient(&mut self, why: String) -> Result<(), Stop> {
        if !self.run.lost.is_none() {
            return self.park(ParkedWhy::Insufficient { why }).await;
        }
        self.end(End::Insufficient, About::Insufficient, vec![]).await
    }

    async fn end(&mut self, end: End, about: About, also: Vec<Body>) -> Result<(), Stop> {
        let world = self.desk().world.clone();
        self.commit(
            |run| matches!(run.state, RunState::Running | RunState::Watching { .. }),
            |run, entry| {
                let mut ended = run.clone();
                ended.state = RunState::Ended(end.clone());
                for body in also {
                    entry.event(Some(run.id.clone()), run.incident.clone(), body);
                }
                entry.event(Some(run.id.clone()), run.incident.clone(), Body::Ended { end });
                entry.message(tell::about_run(&world, &ended, about, entry.at()));
            },
        )
        .await
        .map(drop)
    }

    /// The watch is over: what was restored is good, if there was data to say so or it had been proven before.
    pub(crate) async fn watched(&mut self) -> Result<(), Stop> {
        let world = self.desk().world.clone();
        let ledger = world.store.ledger(world.app()).await?;
        let ours = ledger.releases.iter().find(|r| r.origin == Origin::Restored { run: self.run.id.clone() });
        let cures = self.run.plan.purpose == Purpose::Rollback;
        let symptoms = if cures { self.symptoms().await? } else { vec![] };
        let memory = |trigger: &TriggerId| self.board().memory(trigger).unwrap_or_default();
        let dark: Vec<String> =
            symptoms.iter().filter(|id| memory(id).state.is_gap()).map(|id| format!("`{id}`")).collect();
        if !dark.is_empty() {
            // No data is not good news either (law 14): the watch ends without having seen anything.
            let why = format!("the watch ended without data for {}", dark.join(", "));
            return self.park(ParkedWhy::Inconclusive { step: None, why }).await;
        }
        let had_data = !symptoms.is_empty() && symptoms.iter().all(|trigger| self.board().good(trigger) > 0);
        let by = ours.and_then(|ours| {
            let proven =
                |r: &&Release| r.id != ours.id && matches!(r.verdict, Verdict::Good { .. }) && r.same_state(ours);
            match ledger.releases.iter().find(proven) {
                Some(proven) => Some(format!("{} had this state and was good", proven.id)),
                None if had_data => Some(format!("the watch after {}", self.run.id)),
                None => None,
            }
        });
        let at = self.desk().now();
        let mut also = vec![];
        if let (Some(ours), Some(by), Verdict::Undecided) = (ours, by, ours.map_or(&Verdict::Undecided, |o| &o.verdict))
        {
            also.push(Body::Judged { release: ours.id.clone(), verdict: Verdict::Good { by, at } });
        }
        if self.run.incident.is_some() && cures {
            also.push(Body::Closed { by: Actor::Policy, why: format!("{} succeeded", self.run.id) });
        }
        self.end(End::Succeeded, About::Succeeded, also).await
    }

    /// Whether a symptom came back during the watch; if so the run has ended as insufficient.
    pub(crate) async fn breached_again(&mut self) -> Result<bool, Stop> {
        if self.run.plan.purpose != Purpose::Rollback {
            return Ok(false);
        }
        // All were seen good before the watch began, so whatever is breached now is so again, or newly; a relapse keeps the onset
        // it had, so its age says nothing.
        let breached = |id: &TriggerId| {
            let state = self.board().memory(id).map(|memory| memory.state);
            matches!(state, Some(TriggerState::Breached { .. }))
        };
        if !self.desk().world.application.triggers.keys().any(breached) {
            return Ok(false); // The record is asked only where there is something to find.
        }
        let symptoms = self.symptoms().await?;
        let again = symptoms.iter().find(|id| {
            let state = self.board().memory(id).map(|memory| memory.state);
            matches!(state, Some(TriggerState::Breached { .. }))
        });
        match again {
            None => Ok(false),
            Some(id) => {
                let why = format!("`{id}` breached during the watch");
                self.insufficient(why).await?;
                Ok(true)
            }
        }
    }
}

/// Whether a value is near enough to what it was before the release.
fn as_before(rule: &ripcord_core::Rule, value: f64, baseline: f64, within: f64) -> bool {
    let cleared = rule.clear.is_some_and(|clear| match rule.condition {
        Condition::Above(_) => value <= clear.at,
        Condition::Below(_) => value >= clear.at,
        _ => false,
    });
    match rule.condition {
        Condition::Above(_) => cleared || value <= baseline * within,
        // Not above the floor is not bad, whatever was normal before.
        Condition::AboveBaseline { floor, .. } => cleared || value <= (baseline * within).max(floor),
        Condition::Below(_) | Condition::BelowBaseline { .. } => cleared || value >= baseline / within,
        Condition::Absent => true,
    }
}

fn said(seen: Option<&Seen>) -> String {
    match seen {
        Some(Seen::At(revision)) => format!("at {}", revision.short()),
        Some(Seen::Between { why } | Seen::Unreachable { why }) => why.clone(),
        None => "not there".to_owned(),
    }
}
