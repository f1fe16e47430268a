//! Builds histories as the engine would write them: every run is folded from its events, so that only legal ones can be told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    Action, Actor, AppId, Authority, Before, Blame, Body, Call, CaptureId, CapturePurpose, CaptureRow, Check, Climb,
    Compared, Condition, Decision, Destroys, Digest, Epoch, Event, Evidence, Facts, Failure, Follows, HeldIn, Hold,
    Incident, IncidentId, Key, Ledger, LeftAlone, Limits, Loss, Made, Means, Memory, Missing, OnFailure, Origin,
    Outcome, Phase, Place, Plan, Proof, ProofLevel, Purpose, Reading, Redo, Release, ReleaseId, Revision, Rule, Run,
    RunId, Rung, Sample, Seq, Severity, Shown, Standing, Step, StepId, TriggerId, TriggerState, Verdict,
};
use ripcord_report::Record;

/// The start of every history, in milliseconds: 2026-03-01 10:00:00 UTC.
const BEGIN: i64 = 1_772_359_200_000;

pub fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(BEGIN + ms).unwrap()
}

pub fn app() -> AppId {
    AppId { application: "shop".parse().unwrap(), environment: "production".parse().unwrap() }
}

pub fn place(name: &str) -> Place {
    Place::local(name.parse().unwrap())
}

pub fn person(user: &str) -> Actor {
    Actor::Person { user: user.to_owned(), host: "desk".to_owned() }
}

pub fn authority(automatic: bool) -> Authority {
    Authority {
        automatic,
        roles: BTreeSet::from(["on-call".parse().unwrap()]),
        quorum: 1,
        answer_within: Duration::from_secs(300),
    }
}

pub fn rung(level: u8, name: &str, scope: &[&str]) -> Rung {
    let scope = scope.iter().map(|id| id.parse().unwrap()).collect();
    Rung {
        level,
        name: name.parse().unwrap(),
        means: Means::Restore { scope },
        climb: Climb::Ask,
        budget: Duration::from_secs(900),
    }
}

/// A step at a place, after the one before it.
pub fn step(id: &str, phase: Phase, action: Action, words: &str) -> Step {
    let name = id.split_once('/').unwrap().1;
    let acts = !matches!(action, Action::Check { .. });
    Step {
        id: StepId(id.to_owned()),
        phase,
        place: acts.then(|| place(name)),
        target: None,
        kind: None,
        needs: BTreeSet::new(),
        action,
        destroys: Destroys::Nothing,
        protected_by: None,
        redo: Redo::Safe,
        limits: Limits::default(),
        on_failure: OnFailure::Park,
        shown: Shown { words: words.to_owned(), commands: vec![] },
    }
}

pub fn check(id: &str, phase: Phase) -> Step {
    let name = id.split_once('/').unwrap().1;
    step(id, phase, Action::Check { check: name.parse().unwrap() }, &format!("check {name}"))
}

pub fn plan(rung: Rung, steps: Vec<Step>) -> Plan {
    Plan {
        app: app(),
        purpose: Purpose::Rollback,
        rung,
        from: Some(ReleaseId::at(Seq(5))),
        from_version: Some("v1.1.0".to_owned()),
        to: Some(ReleaseId::at(Seq(1))),
        to_version: Some("v1.0.0".to_owned()),
        inventory: Digest::of(b"inventory"),
        config: Digest::of(b"config"),
        steps,
        ends_at: BTreeMap::new(),
        left_alone: vec![],
        puts_back: BTreeMap::new(),
        loss_at_most: Loss::none(),
    }
}

pub fn left(component: &str, why: &str) -> LeftAlone {
    LeftAlone { component: component.parse().unwrap(), why: why.to_owned() }
}

fn release(seq: u64, version: &str, ms: i64, verdict: Verdict, standing: Standing) -> Release {
    Release {
        id: ReleaseId::at(Seq(seq)),
        version: version.to_owned(),
        origin: Origin::Deployed { command: vec!["./deploy".to_owned()] },
        map: BTreeMap::new(),
        config: Digest::of(b"config"),
        verdict,
        standing,
        at: at(ms),
    }
}

/// A journal being written, and what stands beside it.
pub struct History {
    pub app: AppId,
    pub events: Vec<Event>,
    pub plans: BTreeMap<RunId, Arc<Plan>>,
    pub ledger: Ledger,
    pub captures: Vec<CaptureRow>,
    pub evidence: BTreeMap<Digest, Evidence>,
    pub incident: Option<IncidentId>,
    /// The run that events are written for.
    pub run: Option<RunId>,
}

impl History {
    /// v1.0.0, good, and v1.1.0, released a minute before the beginning.
    pub fn new() -> Self {
        let good = Verdict::Good { by: "bake".to_owned(), at: at(-3_600_000) };
        Self {
            app: app(),
            events: vec![],
            plans: BTreeMap::new(),
            ledger: Ledger {
                releases: vec![
                    release(1, "v1.0.0", -86_400_000, good, Standing::Superseded),
                    release(5, "v1.1.0", -60_000, Verdict::Undecided, Standing::Live),
                ],
                quarantined: BTreeMap::new(),
            },
            captures: vec![],
            evidence: BTreeMap::new(),
            incident: None,
            run: None,
        }
    }

    fn next(&self) -> Seq {
        Seq(10 + self.events.len() as u64)
    }

    fn push(&mut self, ms: i64, run: Option<RunId>, incident: Option<IncidentId>, body: Body) {
        let seq = self.next();
        let (id, prev, hash) = (format!("event-{seq}"), Digest::ZERO, Digest::ZERO);
        let app = self.app.clone();
        self.events.push(Event {
            id,
            app,
            seq,
            epoch: Epoch(1),
            at: at(ms),
            run,
            incident,
            version: 1,
            body,
            prev,
            hash,
        });
    }

    /// An event of no run and no incident.
    pub fn around(&mut self, ms: i64, body: Body) {
        self.push(ms, None, None, body);
    }

    /// An event of the incident.
    pub fn of_incident(&mut self, ms: i64, body: Body) {
        self.push(ms, None, self.incident.clone(), body);
    }

    /// An event of the run.
    pub fn of_run(&mut self, ms: i64, body: Body) {
        self.push(ms, self.run.clone(), self.incident.clone(), body);
    }

    /// Errors above 5 % for 10 s, found by really judging the readings; the breach opens the incident.
    pub fn breach(&mut self, ms: i64) {
        let rule = rule();
        let mut memory = Memory::default();
        for second in 0..=12 {
            let now = at(ms + second * 1000);
            let mut sample = Sample::new(now, 0.25);
            sample.n = Some(120.0);
            let reading = Reading::Samples(vec![sample]);
            let query = "rate(errors[1m]) / rate(requests[1m])";
            let evidence = Evidence::of(&rule, query, &memory, &reading, Some(0.002), now);
            let changed = evidence.memory_after.state != memory.state;
            memory = evidence.memory_after.clone();
            if changed {
                let digest = evidence.digest();
                self.evidence.insert(digest, evidence);
                let changed = Body::Changed {
                    trigger: rule.id.clone(),
                    state: memory.state.clone(),
                    value: memory.value,
                    n: memory.n,
                    baseline: memory.baseline,
                    evidence: digest,
                };
                self.around(ms + second * 1000, changed);
            }
        }
        assert!(matches!(memory.state, TriggerState::Breached { .. }), "{:?}", memory.state);
    }

    pub fn open(&mut self, ms: i64, what: &str) {
        let id = IncidentId::at(self.next());
        self.incident = Some(id.clone());
        let incident = Incident {
            id,
            opened: at(ms),
            severity: Severity(0),
            what: what.to_owned(),
            triggers: BTreeSet::from([rule().id]),
            issue: None,
            release: Some(ReleaseId::at(Seq(5))),
            by: Actor::Policy,
            closed: None,
        };
        self.of_incident(ms, Body::Opened { incident });
    }

    pub fn decide(&mut self, ms: i64, automatic: bool, ladder: Vec<Rung>) {
        let decision = Decision {
            incident: self.incident.clone(),
            call: Call::Rollback,
            severity: Severity(0),
            reasons: vec!["row `critical feature down`: errors 0.25 is above 0.05".to_owned()],
            act_by: Some(at(ms + 300_000)),
            strategy: Some("standard".parse().unwrap()),
            ladder,
            authority: authority(automatic),
            automatic,
            facts: Facts { figures: BTreeMap::from([("errors".parse().unwrap(), 0.25)]), ..Facts::default() },
            blame: Blame::Suspect { release: ReleaseId::at(Seq(5)), version: "v1.1.0".to_owned(), age_ms: 72_000 },
            evidence: Digest::of(b"facts"),
        };
        self.of_incident(ms, Body::Decided { decision: Box::new(decision) });
    }

    pub fn propose(&mut self, ms: i64, by: Actor, automatic: bool, plan: Plan) {
        self.run = Some(RunId::at(self.next()));
        let digest = plan.digest();
        self.plans.insert(self.run.clone().unwrap(), Arc::new(plan));
        let answer_by = (!automatic).then(|| at(ms + 300_000));
        let body = Body::Proposed {
            plan: digest,
            purpose: Purpose::Rollback,
            by,
            severity: Some(Severity(0)),
            authority: authority(automatic),
            automatic,
            answer_by,
        };
        self.of_run(ms, body);
    }

    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plans[self.run.as_ref().unwrap()])
    }

    pub fn begin(&mut self, ms: i64, step: &str, attempt: u32) {
        let step = StepId(step.to_owned());
        let key = Key::of(&self.app, self.run.as_ref().unwrap(), &step);
        let before = Before { at: at(ms), mark: None, key, captures: BTreeMap::new() };
        self.of_run(ms, Body::Intent { step, attempt, before });
    }

    pub fn ends(&mut self, ms: i64, step: &str, attempt: u32, outcome: Outcome) {
        self.of_run(ms, Body::Acted { step: StepId(step.to_owned()), attempt, outcome });
    }

    /// Begun, and done as long after as said.
    pub fn did(&mut self, ms: i64, took: i64, step: &str, proof: Proof) {
        self.begin(ms, step, 1);
        self.ends(ms + took, step, 1, Outcome::Done(proof));
    }

    pub fn failed(&mut self, ms: i64, took: i64, step: &str, failure: Failure) {
        self.begin(ms, step, 1);
        self.ends(ms + took, step, 1, Outcome::Failed(failure));
    }

    /// A protective capture, as the engine writes one: right before the outcome of its step.
    pub fn captured(&mut self, ms: i64, took: i64, step: &str, bytes: u64, proof: ProofLevel) {
        self.begin(ms, step, 1);
        let of = place(step.split_once('/').unwrap().1);
        let made = Made {
            revision: Revision::exact("sha256:0123456789abcdef"),
            label: None,
            held: HeldIn::Vault { manifest: serde_json::json!({ "never": "printed" }) },
            bytes,
            proof,
            content: Digest::of(b"content"),
        };
        let id = CaptureId::at(self.next());
        let purpose = CapturePurpose::Protective;
        self.captures.push(CaptureRow {
            id: id.clone(),
            of: of.clone(),
            purpose,
            release: None,
            run: self.run.clone(),
            at: at(ms + took),
            made: made.clone(),
            spoiled: None,
            pruned: false,
        });
        let by = Some(StepId(step.to_owned()));
        let body = Body::Captured { capture: id, of, purpose, release: None, step: by, made: Box::new(made.clone()) };
        self.of_run(ms + took, body);
        let proof = Proof { capture: Some(made), ..Proof::of(format!("{bytes} bytes, read back")) };
        self.ends(ms + took, step, 1, Outcome::Done(proof));
    }

    pub fn verified(&mut self, ms: i64, step: &str, verdict: Check) {
        self.of_run(ms, Body::Verified { step: StepId(step.to_owned()), verdict });
    }

    pub fn helped(&mut self, ms: i64, verdict: Check, now: f64, recovered: bool) {
        let compared =
            Compared { trigger: rule().id, baseline: Some(0.002), breached_at: None, now: Some(now), recovered };
        self.of_run(ms, Body::Helped { verdict, compared: vec![compared] });
    }

    pub fn told(&mut self, ms: i64, message: &str, failure: Option<&str>) {
        let body = Body::Told {
            message: message.to_owned(),
            channel: "ops".parse().unwrap(),
            delivered: failure.is_none(),
            why: failure.map(str::to_owned),
        };
        self.of_run(ms, body);
    }

    /// The fold of a run's events; a history that could not have happened fails here.
    pub fn fold(&self) -> Run {
        let id = self.run.as_ref().unwrap();
        let mut of = self.events.iter().filter(|event| event.run.as_ref() == Some(id));
        let mut run = Run::proposed(of.next().unwrap(), self.plan()).unwrap();
        for event in of {
            run.apply(event).unwrap();
            run.seq = event.seq;
        }
        run
    }

    /// Hands the record of the current run to `write`, as of `ms`.
    pub fn document<T>(&self, ms: i64, write: impl Fn(&Record<'_>) -> T) -> T {
        let run = self.fold();
        let evidence = |digest: &Digest| self.evidence.get(digest).cloned();
        write(&Record {
            app: &self.app,
            events: &self.events,
            run: &run,
            ledger: &self.ledger,
            captures: &self.captures,
            evidence: &evidence,
            generated: at(ms),
        })
    }
}

fn rule() -> Rule {
    Rule {
        id: TriggerId::new("errors-high").unwrap(),
        signal: "errors".parse().unwrap(),
        condition: Condition::Above(0.05),
        hold: Hold::For { at_least: Duration::from_secs(10) },
        clear: None,
        at_least: Some(50.0),
        missing: Missing::Page,
        errors: Missing::Page,
        absent_for: None,
        interval: Duration::from_secs(1),
        when: None,
        severity: Severity(0),
        issue: "critical".parse().unwrap(),
        follows: Follows::Decide,
        points_at: BTreeSet::new(),
        source: None,
    }
}
