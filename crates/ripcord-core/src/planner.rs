//! From a target and a survey to a plan: every choice of a rollback is made here, before anything is done.
//!
//! Components propose their own way back; the planner adds what is the same for all: proof that the target can be had, captures
//! of the present, evidence, stopping and starting what reads the restored, traffic off and on again, checks. Phases order the
//! steps of one component; across components only `needs`, captures and obligations do, so that the rest runs at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::{
    Action, Application, Available, CaptureId, CapturePurpose, CaptureRef, CheckId, Component, ComponentId, Destroys,
    Draft, Held, Inventory, Layer, LeftAlone, Lifecycle, Limits, Loss, Means, Nature, Observe, OnFailure, Parts, Phase,
    Place, Plan, Purpose, Readers, Recorded, Redo, Release, ReleaseId, Revision, Rung, Seen, Shown, Stage, Step,
    StepId, Survey, TargetId, Want, Wish,
};

/// Where a plan goes: a release, or the state captured before a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub release: Option<ReleaseId>,
    pub version: Option<String>,
    pub map: BTreeMap<Place, Recorded>,
}

impl From<&Release> for Target {
    fn from(release: &Release) -> Self {
        Self { release: Some(release.id.clone()), version: Some(release.version.clone()), map: release.map.clone() }
    }
}

/// What is asked of the planner.
pub struct Asked<'a> {
    pub application: &'a Application,
    pub parts: &'a Parts,
    pub live: Option<&'a Release>,
    pub target: &'a Target,
    pub seen: &'a Inventory,
    pub rung: &'a Rung,
    pub purpose: Purpose,
    /// Whether a person named the scope, knowing that other components stay at another release.
    pub partial: bool,
    /// The places that earlier runs switched off and still owe: this plan takes them over.
    pub owed: BTreeSet<Place>,
}

/// A plan, and what it would lose if it were carried out this instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub plan: Plan,
    pub loss_now: Loss,
}

/// Why there is no plan. Nothing was changed to find that out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoPlan {
    #[error("there is nothing to do: {}", reasons(.left_alone))]
    NothingToDo { left_alone: Vec<LeftAlone> },
    #[error("`{component}` is named in the strategy and is no component")]
    NoSuchComponent { component: ComponentId },
    #[error("`{place}` cannot be seen: {why}")]
    Unreachable { place: Place, why: String },
    #[error("`{place}` cannot be taken to {wanted}: {why}")]
    ArtefactGone { place: Place, wanted: String, why: String },
    #[error(transparent)]
    CannotPlan(#[from] crate::CannotPlan),
    #[error("the application would be left half way: {} would not be at {version}", .left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    HalfWay { left: Vec<ComponentId>, version: String },
}

fn reasons(left_alone: &[LeftAlone]) -> String {
    left_alone.iter().map(|left| format!("`{}` {}", left.component, left.why)).collect::<Vec<_>>().join("; ")
}

/// Makes the plan for one rung.
///
/// # Errors
/// [`NoPlan`]: what stands in the way, found before anything is done.
pub fn plan(asked: &Asked<'_>) -> Result<Planned, NoPlan> {
    let mut left_alone = vec![];
    let (mut touched, refused) = touched(asked, &mut left_alone)?;
    let along = along(asked, &touched);
    // What has no way of its own may come back with what holds it: a schema over which no migration leads, with its database.
    if let Some((_, why)) = refused.into_iter().find(|(place, _)| !along.contains_key(place)) {
        return Err(why);
    }
    if touched.is_empty() {
        return Err(NoPlan::NothingToDo { left_alone });
    }
    touched.retain(|place, _| !along.contains_key(place));
    left_alone.retain(|left| !along.keys().any(|place| place.component == left.component));
    left_alone.extend(along.iter().map(|(place, with)| {
        let why = format!("comes back with `{}`, which holds it", with.component);
        LeftAlone { component: place.component.clone(), why }
    }));
    refuse_half_way(asked, &touched, &along)?;
    let ends_at = ends_at(asked, &touched, &along);
    let loss_now = touched.values().fold(Loss::none(), |sum, touch| sum.and(touch.loss.clone()));
    let mut draft = Drafting::new(asked);
    draft.all(&touched);
    left_alone.extend(draft.left_alone);
    let loss_at_most = loss_now.ceiling(asked.seen.at);
    let puts_back = puts_back(asked, &draft.steps);
    let plan = Plan {
        app: asked.application.id.clone(),
        purpose: asked.purpose.clone(),
        rung: asked.rung.clone(),
        from: asked.live.map(|live| live.id.clone()),
        from_version: asked.live.map(|live| live.version.clone()),
        to: asked.target.release.clone(),
        to_version: asked.target.version.clone(),
        inventory: asked.seen.digest(),
        config: asked.application.config,
        steps: draft.steps,
        ends_at,
        left_alone,
        puts_back,
        loss_at_most,
    };
    Ok(Planned { plan, loss_now })
}

/// A place that will change, and how.
struct Touch {
    wish: Wish,
    drafts: Vec<Draft>,
    nature: Nature,
    loss: Loss,
}

/// Places that need no step of their own, with the place that brings each of them back: what is restored whole there holds them, as a
/// database holds its schema. Both are the same thing out there, and recorded of the same release.
fn along(asked: &Asked<'_>, touched: &BTreeMap<Place, Touch>) -> BTreeMap<Place, Place> {
    let thing = |place: &Place| asked.seen.surveys.get(place).map(|survey| &survey.target);
    let whole = |(place, touch): &(&Place, &Touch)| match &touch.wish.want {
        Want::Revision { revision, .. } => {
            let recorded = asked.target.map.get(*place);
            touch.nature == Nature::Flowing && recorded.is_some_and(|at| at.revision == *revision)
        }
        Want::Values(_) => false,
    };
    let versioned = asked.target.map.keys().filter(|place| has_revision(asked, place));
    versioned
        .filter_map(|place| {
            let with = touched.iter().filter(whole).find(|(whole, _)| *whole != place && thing(whole) == thing(place));
            Some((place.clone(), with?.0.clone()))
        })
        .collect()
}

fn ends_at(
    asked: &Asked<'_>,
    touched: &BTreeMap<Place, Touch>,
    along: &BTreeMap<Place, Place>,
) -> BTreeMap<Place, Revision> {
    let restored = touched.iter().filter_map(|(place, touch)| match &touch.wish.want {
        Want::Revision { revision, .. } if touch.nature == Nature::Versioned => Some((place.clone(), revision.clone())),
        _ => None,
    });
    let there = asked.target.map.iter().filter(|(place, at)| {
        let seen = asked.seen.surveys.get(place).map(|survey| &survey.seen);
        // Toggles take no release back, and may lie within what another place of the release holds.
        matches!(asked.rung.means, Means::Restore { .. })
            && has_revision(asked, place)
            && !touched.contains_key(place)
            && seen == Some(&Seen::At(at.revision.clone()))
    });
    // What serves the target as it is stays where it is, and has to be there in the end.
    let served = asked.target.map.iter().filter_map(|(place, at)| {
        let survey = asked.seen.surveys.get(place)?;
        let stays = matches!(asked.rung.means, Means::Restore { .. }) && !touched.contains_key(place);
        let stays = stays && !along.contains_key(place);
        let revision = survey.seen.revision().filter(|_| stays && survey.serves(&at.revision).is_some())?;
        Some((place.clone(), revision.clone()))
    });
    let comes = along.keys().filter_map(|place| Some((place.clone(), asked.target.map.get(place)?.revision.clone())));
    restored.chain(there.map(|(place, at)| (place.clone(), at.revision.clone()))).chain(served).chain(comes).collect()
}

/// Whether the place has a revision of its own: a process that runs what others hold has none.
fn has_revision(asked: &Asked<'_>, place: &Place) -> bool {
    asked.parts.components.get(&place.component).is_some_and(|component| {
        let capabilities = component.capabilities();
        capabilities.nature == Nature::Versioned && capabilities.observe == Observe::Exactly
    })
}

/// What would undo this, as things stand, at every place that is acted on.
fn puts_back(asked: &Asked<'_>, steps: &[Step]) -> BTreeMap<Place, Vec<String>> {
    let acted: BTreeSet<&Place> =
        steps.iter().filter(|step| step.acts()).filter_map(|step| step.place.as_ref()).collect();
    let of = asked.seen.surveys.iter().filter(|(place, survey)| acted.contains(place) && !survey.puts_back.is_empty());
    of.map(|(place, survey)| (place.clone(), survey.puts_back.clone())).collect()
}

impl Touch {
    /// What changes the live state, in order.
    fn live(&self) -> impl Iterator<Item = &Draft> {
        self.drafts.iter().filter(|draft| draft.phase != Phase::Stage)
    }
}

/// The places that will change, and those that should and have no way of their own to, with why.
type Touched = (BTreeMap<Place, Touch>, BTreeMap<Place, NoPlan>);

fn touched(asked: &Asked<'_>, left_alone: &mut Vec<LeftAlone>) -> Result<Touched, NoPlan> {
    let scope = asked.rung.scope();
    if let Some(component) = scope.iter().find(|id| !asked.application.components.contains_key(*id)) {
        return Err(NoPlan::NoSuchComponent { component: component.clone() });
    }
    let (mut touched, mut refused) = (BTreeMap::new(), BTreeMap::new());
    for place in asked.application.places() {
        let mut leave = |why: String| left_alone.push(LeftAlone { component: place.component.clone(), why });
        let Some(component) = asked.parts.components.get(&place.component) else { continue };
        let capabilities = component.capabilities();
        if !scope.contains(&place.component) {
            if capabilities.lifecycle == Lifecycle::None || asked.target.map.contains_key(&place) {
                leave(format!("is not in the scope of level {}", asked.rung.level));
            }
            continue;
        }
        let survey = seen(asked.seen, &place)?;
        let wish = match &asked.rung.means {
            Means::Set { values } => {
                let values = values.get(&place.component).cloned().unwrap_or_default();
                Wish { place: place.clone(), want: Want::Values(values) }
            }
            Means::Restore { .. } => match asked.target.map.get(&place) {
                None => {
                    leave("is not part of the target release".to_owned());
                    continue;
                }
                Some(at)
                    if capabilities.nature == Nature::Versioned && survey.seen == Seen::At(at.revision.clone()) =>
                {
                    leave(format!("is at {} already", at.label.clone().unwrap_or_else(|| at.revision.short())));
                    continue;
                }
                Some(at) if capabilities.nature == Nature::Versioned && survey.serves(&at.revision).is_some() => {
                    let to = at.label.clone().unwrap_or_else(|| at.revision.short());
                    let why = survey.serves(&at.revision).unwrap_or_default();
                    leave(format!("stays as it is, which serves {to} too: {why}"));
                    continue;
                }
                Some(at) => Wish {
                    place: place.clone(),
                    want: Want::Revision { revision: at.revision.clone(), capture: at.capture.clone() },
                },
            },
        };
        let loss = match &wish.want {
            Want::Values(_) => Loss::none(),
            Want::Revision { revision, capture } => {
                if let Err(why) = available(survey, &place, revision) {
                    refused.insert(place, why);
                    continue;
                }
                loss(survey, capabilities.nature, capture.as_ref(), &place)
            }
        };
        let drafts = match component.propose(&wish, asked.seen) {
            Ok(drafts) => drafts,
            Err(why) => {
                refused.insert(place, why.into());
                continue;
            }
        };
        if drafts.is_empty() {
            leave("is so already".to_owned());
            continue;
        }
        touched.insert(place, Touch { wish, drafts, nature: capabilities.nature, loss });
    }
    Ok((touched, refused))
}

fn seen<'a>(inventory: &'a Inventory, place: &Place) -> Result<&'a Survey, NoPlan> {
    let unreachable = |why: &str| NoPlan::Unreachable { place: place.clone(), why: why.to_owned() };
    let survey = inventory.surveys.get(place).ok_or_else(|| unreachable("it was not surveyed"))?;
    match &survey.seen {
        Seen::Unreachable { why } => Err(unreachable(why)),
        Seen::At(_) | Seen::Between { .. } => Ok(survey),
    }
}

fn available(survey: &Survey, place: &Place, revision: &Revision) -> Result<(), NoPlan> {
    let gone = |why: &str| NoPlan::ArtefactGone { place: place.clone(), wanted: revision.short(), why: why.to_owned() };
    match survey.available(revision) {
        Some(Available::Here { .. }) => Ok(()),
        Some(Available::Missing { why }) => Err(gone(why)),
        None => Err(gone("whether it is still there was not surveyed")),
    }
}

/// What going back loses. A flowing place whose loss is unknown loses everything since its capture: never nothing.
fn loss(survey: &Survey, nature: Nature, capture: Option<&CaptureId>, place: &Place) -> Loss {
    let of_capture = capture.and_then(|capture| survey.losses.iter().find(|(of, _)| of == capture));
    let known = match capture {
        Some(_) => of_capture.map(|(_, loss)| loss),
        None => survey.empties.as_ref(),
    };
    match (known, capture) {
        (Some(loss), _) => loss.clone(),
        (None, _) if nature == Nature::Versioned => Loss::none(),
        (None, Some(capture)) => Loss {
            other: vec![format!("everything written to `{place}` since {capture}, not counted")],
            ..Loss::none()
        },
        (None, None) => Loss { other: vec![format!("everything in `{place}`, not counted")], ..Loss::none() },
    }
}

/// B2: a release goes back, not a service. Only a person who named the scope may leave part of it behind.
fn refuse_half_way(
    asked: &Asked<'_>,
    touched: &BTreeMap<Place, Touch>,
    along: &BTreeMap<Place, Place>,
) -> Result<(), NoPlan> {
    let Means::Restore { scope } = &asked.rung.means else { return Ok(()) };
    if asked.partial {
        return Ok(());
    }
    let behind = |(place, at): (&Place, &Recorded)| {
        let versioned = has_revision(asked, place);
        let there = matches!(&asked.seen.surveys.get(place)?.seen, Seen::At(revision) if *revision == at.revision);
        let serves = asked.seen.surveys.get(place).is_some_and(|survey| survey.serves(&at.revision).is_some());
        let goes = touched.contains_key(place) || along.contains_key(place);
        let left = versioned && !there && !serves && !scope.contains(&place.component) && !goes;
        left.then(|| place.component.clone())
    };
    let left: BTreeSet<ComponentId> = asked.target.map.iter().filter_map(behind).collect();
    match left.is_empty() {
        true => Ok(()),
        false => Err(NoPlan::HalfWay {
            left: left.into_iter().collect(),
            version: asked.target.version.clone().unwrap_or_else(|| "the target".to_owned()),
        }),
    }
}

/// The running components that read what is restored: when each must be down, and why it is started.
struct Affected {
    /// Stopped before the restore.
    stop: BTreeSet<Place>,
    /// Stopped and started after it.
    restart: BTreeSet<Place>,
    /// Restarted after it without a gap.
    roll: BTreeSet<Place>,
}

struct Drafting<'a> {
    asked: &'a Asked<'a>,
    steps: Vec<Step>,
    left_alone: Vec<LeftAlone>,
}

impl<'a> Drafting<'a> {
    fn new(asked: &'a Asked<'a>) -> Self {
        Self { asked, steps: vec![], left_alone: vec![] }
    }

    fn all(&mut self, touched: &BTreeMap<Place, Touch>) {
        let affected = self.affected(touched);
        let proofs = self.proofs(touched);
        let evidence = self.evidence(touched, &affected);
        let stands: BTreeSet<Place> =
            self.asked.owed.iter().filter(|place| self.stands_still(place)).cloned().collect();
        let down: BTreeSet<&Place> = affected.stop.iter().chain(&affected.restart).chain(&stands).collect();
        let ready = self.stages(touched, &proofs);
        // A door that an earlier run left shut is opened by this one, whether or not it stops anything itself.
        let shut = self.asked.owed.iter().any(|place| self.is_switch(&place.component));
        let pauses = if down.is_empty() && !shut { vec![] } else { self.pauses(&ready, !down.is_empty()) };
        self.stops(&affected, touched, &ready, &evidence, &pauses);
        self.captures(touched, &affected);
        self.restores(touched, &ready, &affected);
        let started = self.starts(&down, &affected.roll);
        let healthy = self.health(&started, touched);
        let closed = self.closed(&healthy);
        let resumed = self.resumes(&pauses, &closed);
        self.open(&resumed, &closed);
    }

    /// Whether the process there was stopped by an earlier run and not started since.
    fn stands_still(&self, place: &Place) -> bool {
        self.is_process(&place.component) && self.survey(place).is_some_and(|survey| survey.running == Some(false))
    }

    fn component(&self, place: &Place) -> Option<&'a dyn Component> {
        self.asked.parts.components.get(&place.component).map(|component| &**component)
    }

    fn survey(&self, place: &Place) -> Option<&'a Survey> {
        self.asked.seen.surveys.get(place)
    }

    fn target_of(&self, place: &Place) -> Option<TargetId> {
        self.survey(place).map(|survey| survey.target.clone())
    }

    fn limits(&self, place: &Place) -> Limits {
        let spec = self.asked.application.components.get(&place.component);
        match spec.and_then(|spec| spec.step_limit) {
            Some(limit) => Limits { call: limit, total: limit.saturating_mul(3), ..Limits::default() },
            None => Limits::default(),
        }
    }

    /// Adds a step at a place and returns its identity.
    fn add(
        &mut self,
        name: &str,
        place: &Place,
        phase: Phase,
        action: Action,
        needs: impl IntoIterator<Item = StepId>,
    ) -> StepId {
        let id = StepId(format!("{name}/{place}"));
        let component = self.component(place);
        self.steps.push(Step {
            id: id.clone(),
            phase,
            place: Some(place.clone()),
            target: self.target_of(place),
            kind: component.map(Component::kind),
            needs: needs.into_iter().collect(),
            shown: component.map(|component| component.show(place, &action)).unwrap_or_default(),
            action,
            destroys: Destroys::Nothing,
            protected_by: None,
            redo: component.map_or(Redo::Never, |component| component.capabilities().redo),
            limits: self.limits(place),
            on_failure: OnFailure::Park,
        });
        id
    }

    fn has(&self, id: &StepId) -> bool {
        self.steps.iter().any(|step| step.id == *id)
    }

    /// The steps of these names that exist.
    fn named(&self, names: impl IntoIterator<Item = String>) -> Vec<StepId> {
        names.into_iter().map(StepId).filter(|id| self.has(id)).collect()
    }

    fn affected(&self, touched: &BTreeMap<Place, Touch>) -> Affected {
        let mut affected = Affected { stop: BTreeSet::new(), restart: BTreeSet::new(), roll: BTreeSet::new() };
        let places = self.asked.application.places();
        let process = |id: &ComponentId| self.is_process(id);
        for place in touched.keys() {
            let Some(component) = self.component(place) else { continue };
            let capabilities = component.capabilities();
            if capabilities.lifecycle == Lifecycle::Process {
                match self.rolls(place) {
                    true => affected.restart.insert(place.clone()),
                    false => affected.stop.insert(place.clone()),
                };
            }
            if capabilities.readers == Readers::Hot {
                continue;
            }
            for reader in readers_of(self.asked.application, &place.component, &process) {
                // A reader on another host reads that host's own copy.
                let same_host = |p: &&Place| {
                    p.component == reader && (p.host == place.host || p.host.is_none() || place.host.is_none())
                };
                for at in places.iter().filter(same_host) {
                    match capabilities.readers {
                        Readers::Stop => affected.stop.insert(at.clone()),
                        Readers::Restart | Readers::Hot => affected.restart.insert(at.clone()),
                    };
                }
            }
        }
        // What needs a process that is stopped first is stopped before it anyway: it cannot go on running until later.
        let application = self.asked.application;
        let first: Vec<ComponentId> = affected.stop.iter().map(|place| place.component.clone()).collect();
        let (early, late): (BTreeSet<Place>, BTreeSet<Place>) = std::mem::take(&mut affected.restart)
            .into_iter()
            .filter(|place| !affected.stop.contains(place))
            .partition(|place| first.iter().any(|id| application.needs_of(&place.component).contains(id)));
        affected.stop.extend(early);
        (affected.roll, affected.restart) = late.into_iter().partition(|place| self.rolls(place));
        affected
    }

    /// Whether the process there runs and can be restarted without a gap.
    fn rolls(&self, place: &Place) -> bool {
        self.survey(place).is_some_and(|survey| survey.rolls && survey.running == Some(true))
    }

    /// All preconditions come before the first effect (RF26).
    fn proofs(&mut self, touched: &BTreeMap<Place, Touch>) -> Vec<StepId> {
        let mut proofs = vec![];
        for (place, touch) in touched {
            let Want::Revision { revision, capture } = &touch.wish.want else { continue };
            let action = Action::Prove { revision: revision.clone(), capture: capture.clone() };
            proofs.push(self.add("prove", place, Phase::Preflight, action, []));
            // What takes long to restore takes long to be restored on trial. Coarsely: a limit is part of the plan, which is the same
            // a minute later.
            let reckoned = self.survey(place).and_then(|survey| survey.reckoned).unwrap_or_default();
            let coarse = reckoned.as_secs().saturating_mul(3).checked_next_power_of_two().unwrap_or(u64::MAX / 1_000);
            if let Some(step) = self.steps.last_mut() {
                step.limits.call = step.limits.call.max(Duration::from_secs(coarse));
                step.limits.total = step.limits.total.max(step.limits.call);
            }
        }
        proofs
    }

    /// What can be made ready beside the live is, on every host, before anything live is touched: the time that nothing runs is
    /// shorter by it, and where one host cannot get ready none is switched.
    fn stages(&mut self, touched: &BTreeMap<Place, Touch>, proofs: &[StepId]) -> Vec<StepId> {
        let mut ready = proofs.to_vec();
        for (place, touch) in touched {
            for (number, draft) in touch.drafts.iter().filter(|draft| draft.phase == Phase::Stage).enumerate() {
                let id = numbered("stage", place, number);
                self.draft(id.clone(), place, draft, proofs.iter().cloned().collect());
                ready.push(id);
            }
        }
        ready
    }

    /// A step as its component drafted it.
    fn draft(&mut self, id: StepId, place: &Place, draft: &Draft, needs: BTreeSet<StepId>) {
        self.steps.push(Step {
            id,
            phase: draft.phase,
            place: Some(place.clone()),
            target: self.target_of(place),
            kind: self.component(place).map(Component::kind),
            needs,
            action: draft.action.clone(),
            destroys: draft.destroys,
            protected_by: None,
            redo: draft.redo,
            limits: draft.limits,
            on_failure: OnFailure::Park,
            shown: draft.shown.clone(),
        });
    }

    /// Evidence is taken before anything stops, with a time limit so short that nobody waits for it in vain.
    fn evidence(&mut self, touched: &BTreeMap<Place, Touch>, affected: &Affected) -> Vec<(Place, StepId)> {
        let places: BTreeSet<&Place> =
            touched.keys().chain(&affected.stop).chain(&affected.restart).chain(&affected.roll).collect();
        let mut taken = vec![];
        for place in places {
            if !self.component(place).is_some_and(|component| component.capabilities().evidence) {
                continue;
            }
            let action = Action::Capture { purpose: CapturePurpose::Evidence };
            let id = self.add("evidence", place, Phase::Capture, action, []);
            if let Some(step) = self.steps.last_mut() {
                step.limits = Limits { call: Duration::from_secs(5), total: Duration::from_secs(5), tries: 1 };
                step.on_failure = OnFailure::Continue { reason: "evidence is best effort".to_owned() };
            }
            taken.push((place.clone(), id));
        }
        taken
    }

    /// Closes every door where something goes `down`; those found shut by an earlier run of ours are opened in any case.
    fn pauses(&mut self, ready: &[StepId], down: bool) -> Vec<Place> {
        let mut paused = vec![];
        for place in self.asked.application.places() {
            let Some(component) = self.component(&place) else { continue };
            if component.capabilities().lifecycle != Lifecycle::Switch {
                continue;
            }
            let why = match self.survey(&place) {
                // An earlier run of ours closed it and never came to open it: that is for this one to do now.
                Some(Survey { running: Some(false), .. }) if self.asked.owed.contains(&place) => {
                    paused.push(place);
                    continue;
                }
                _ if !down => continue,
                Some(Survey { running: Some(false), .. }) => {
                    "was off before: it is left so, and somebody must switch it on"
                }
                // A crashed application cannot be asked to close its door; the rollback must not wait for it to.
                Some(Survey { seen: Seen::Unreachable { .. }, .. }) => "cannot be reached, so it is not switched",
                _ => {
                    self.add("pause", &place, Phase::Quiesce, Action::Pause, ready.to_vec());
                    paused.push(place);
                    continue;
                }
            };
            self.left_alone.push(LeftAlone { component: place.component.clone(), why: why.to_owned() });
        }
        paused
    }

    fn stops(
        &mut self,
        affected: &Affected,
        touched: &BTreeMap<Place, Touch>,
        ready: &[StepId],
        evidence: &[(Place, StepId)],
        pauses: &[Place],
    ) {
        let application = self.asked.application;
        let down: Vec<Place> = affected.stop.union(&affected.restart).cloned().collect();
        // What already stands still is not stopped, but is started.
        let standing = |place: &Place| self.survey(place).is_some_and(|survey| survey.running == Some(false));
        let stopping: Vec<Place> = down.into_iter().filter(|place| !standing(place)).collect();
        for place in &stopping {
            let mut needs: Vec<StepId> = ready.to_vec();
            needs.extend(self.named(pauses.iter().map(|p| format!("pause/{p}"))));
            needs.extend(evidence.iter().filter(|(at, _)| at == place).map(|(_, id)| id.clone()));
            let dependents = stopping.iter().filter(|p| application.needs_of(&p.component).contains(&place.component));
            needs.extend(dependents.map(|p| StepId(format!("stop/{p}"))));
            if affected.restart.contains(place) {
                // A cache is cleared while nobody fills it.
                let waits = |at: &Place| self.reads(place, &at.component) && !self.is_hot_cache(at);
                let restored = touched.iter().filter(|(at, _)| waits(at));
                needs.extend(restored.map(|(at, touch)| last_restore(at, touch)));
            }
            self.add("stop", place, Phase::Quiesce, Action::Stop, needs);
        }
    }

    /// The present is captured before it is changed, so that the rollback itself can be undone.
    ///
    /// What changes only by release is captured while everything still runs, and while the target is still being proven: that
    /// changes nothing. What changes by use is captured once nothing writes to it any more (RF11).
    fn captures(&mut self, touched: &BTreeMap<Place, Touch>, affected: &Affected) {
        for (place, touch) in touched {
            let Some(component) = self.component(place) else { continue };
            if component.capabilities().held == Held::Nowhere {
                continue;
            }
            let needs = match touch.nature {
                Nature::Flowing => self.readers_stopped(place, affected),
                Nature::Versioned => vec![],
            };
            let action = Action::Capture { purpose: CapturePurpose::Protective };
            self.add("capture", place, Phase::Capture, action, needs);
        }
    }

    /// The stops of everything that reads `place` and must be down while it is restored.
    fn readers_stopped(&self, place: &Place, affected: &Affected) -> Vec<StepId> {
        let stops = self.component(place).is_some_and(|component| component.capabilities().readers == Readers::Stop);
        let reads = |p: &&Place| **p == *place || (stops && self.reads(p, &place.component));
        self.named(affected.stop.iter().filter(reads).map(|p| format!("stop/{p}")))
    }

    fn is_process(&self, id: &ComponentId) -> bool {
        let component = self.asked.parts.components.get(id);
        component.is_some_and(|component| component.capabilities().lifecycle == Lifecycle::Process)
    }

    fn is_switch(&self, id: &ComponentId) -> bool {
        let component = self.asked.parts.components.get(id);
        component.is_some_and(|component| component.capabilities().lifecycle == Lifecycle::Switch)
    }

    /// Whether the process at `place` reads `id`, directly or through components that do not run.
    fn reads(&self, place: &Place, id: &ComponentId) -> bool {
        readers_of(self.asked.application, id, &|other| self.is_process(other)).contains(&place.component)
    }

    fn restores(&mut self, touched: &BTreeMap<Place, Touch>, ready: &[StepId], affected: &Affected) {
        for (place, touch) in touched {
            let capture = StepId(format!("capture/{place}"));
            let protected_by = self.has(&capture).then(|| CaptureRef::MadeBy(capture.clone()));
            let mut before: Option<StepId> = None;
            for (number, draft) in touch.live().enumerate() {
                let mut needs: Vec<StepId> = match &before {
                    Some(before) => vec![before.clone()],
                    None => ready.to_vec(),
                };
                needs.extend(self.has(&capture).then(|| capture.clone()));
                needs.extend(self.readers_stopped(place, affected));
                if before.is_none() {
                    needs.extend(self.in_line(place, touched));
                    needs.extend(self.before_cleared(place, touched, affected));
                }
                let id = numbered("restore", place, number);
                self.draft(id.clone(), place, draft, needs.into_iter().collect());
                if let Some(step) = self.steps.last_mut() {
                    step.protected_by.clone_from(&protected_by);
                }
                before = Some(id);
            }
        }
    }

    fn is_hot_cache(&self, place: &Place) -> bool {
        let spec = self.asked.application.components.get(&place.component);
        let hot = self.component(place).is_some_and(|component| component.capabilities().readers == Readers::Hot);
        hot && spec.is_some_and(|spec| spec.layer == Layer::Cache)
    }

    /// A cache that goes is not to be filled again by what is being taken back: everything else is back before, and what is stopped
    /// anyway and fills it stands still.
    fn before_cleared(&self, place: &Place, touched: &BTreeMap<Place, Touch>, affected: &Affected) -> Vec<StepId> {
        if !self.is_hot_cache(place) {
            return vec![];
        }
        let application = self.asked.application;
        let waits_for_it = |other: &Place| {
            let made_from_it = application.needs_of(&other.component).contains(&place.component);
            self.is_hot_cache(other) || (made_from_it && !self.is_process(&other.component))
        };
        let others = touched.iter().filter(|(other, _)| *other != place && !waits_for_it(other));
        let fills = affected.stop.iter().chain(&affected.restart).filter(|p| self.reads(p, &place.component));
        let stops = self.named(fills.map(|p| format!("stop/{p}")));
        others.map(|(other, touch)| last_restore(other, touch)).chain(stops).collect()
    }

    /// What must have happened to others before `place` is restored, where neither runs: what it is made from is back (packages are
    /// installed by the lock file of the code they are for), and what is made from it was captured as it is.
    fn in_line(&self, place: &Place, touched: &BTreeMap<Place, Touch>) -> Vec<StepId> {
        let application = self.asked.application;
        let still = |id: &ComponentId| !self.is_process(id);
        if !still(&place.component) {
            return vec![];
        }
        let mut needs = vec![];
        for (other, touch) in touched.iter().filter(|(other, _)| still(&other.component)) {
            if application.needs_of(&place.component).contains(&other.component) {
                needs.push(last_restore(other, touch));
            }
            if application.needs_of(&other.component).contains(&place.component) {
                needs.extend(self.named([format!("capture/{other}")]));
            }
        }
        needs
    }

    /// Everything that was (or stands) still and reads what was restored is started, what it needs first.
    fn starts(&mut self, down: &BTreeSet<&Place>, roll: &BTreeSet<Place>) -> Vec<Place> {
        let application = self.asked.application;
        let in_order = in_start_order(application, &down.iter().copied().chain(roll).collect());
        for place in &in_order {
            let read = application.needs_of(&place.component);
            let relevant = |step: &&Step| {
                step.place.as_ref().is_some_and(|at| read.contains(&at.component) || at == place)
                    && matches!(step.action, Action::Restore { .. } | Action::Set { .. } | Action::Own { .. })
            };
            let mut needs: Vec<StepId> = self.steps.iter().filter(relevant).map(|step| step.id.clone()).collect();
            needs.extend(self.named([format!("stop/{place}")]));
            for other in in_order.iter().filter(|other| read.contains(&other.component)) {
                needs.push(StepId(format!("start/{other}")));
                needs.extend(self.health_of(&other.component));
            }
            let action = if roll.contains(place) { Action::Roll } else { Action::Start };
            let id = self.add("start", place, Phase::Start, action, needs);
            self.add_health(&place.component, [id]);
        }
        in_order
    }

    fn health_of(&self, component: &ComponentId) -> Vec<StepId> {
        let checks =
            self.asked.application.components.get(component).map(|spec| spec.health.as_slice()).unwrap_or_default();
        self.named(checks.iter().map(|check| format!("check/{check}")))
    }

    /// The health checks of a component, each gating whatever needs the component.
    fn add_health(&mut self, component: &ComponentId, after: impl IntoIterator<Item = StepId> + Clone) {
        let checks =
            self.asked.application.components.get(component).map(|spec| spec.health.clone()).unwrap_or_default();
        for check in checks {
            self.add_check(&check, Phase::Start, after.clone());
        }
    }

    fn add_check(&mut self, check: &CheckId, phase: Phase, needs: impl IntoIterator<Item = StepId>) -> Option<StepId> {
        let spec = self.asked.application.checks.get(check)?;
        let id = StepId(format!("check/{check}"));
        if let Some(step) = self.steps.iter_mut().find(|step| step.id == id) {
            step.needs.extend(needs); // One check of a component on several hosts waits for all of them.
            return Some(id);
        }
        self.steps.push(Step {
            id: id.clone(),
            phase,
            place: None,
            target: None,
            kind: None,
            needs: needs.into_iter().collect(),
            action: Action::Check { check: check.clone() },
            destroys: Destroys::Nothing,
            protected_by: None,
            redo: Redo::Safe,
            limits: Limits { call: spec.within, total: spec.within, tries: 1 },
            on_failure: OnFailure::Park,
            shown: Shown {
                words: format!("check that {} within {}", spec.assert, crate::human(spec.within)),
                commands: vec![],
            },
        });
        Some(id)
    }

    /// Health of what is restored or started gates nothing but the verification; health of all the rest is verified too.
    fn health(&mut self, started: &[Place], touched: &BTreeMap<Place, Touch>) -> Vec<StepId> {
        let acted: Vec<StepId> = self.steps.iter().filter(|step| step.acts()).map(|step| step.id.clone()).collect();
        for place in touched.keys().filter(|place| !started.contains(place)) {
            self.add_health(&place.component, acted.clone());
        }
        for (id, spec) in &self.asked.application.components {
            if started.iter().any(|place| place.component == *id) {
                continue;
            }
            for check in spec.health.clone() {
                self.add_check(&check, Phase::VerifyClosed, acted.clone());
            }
        }
        let all = self.steps.iter().filter(|step| step.acts() || matches!(step.action, Action::Check { .. }));
        all.map(|step| step.id.clone()).collect()
    }

    fn staged(&self, stage: Stage) -> Vec<CheckId> {
        let of = self.asked.application.checks.values().filter(|check| check.stage == stage);
        of.map(|check| check.id.clone()).collect()
    }

    fn closed(&mut self, healthy: &[StepId]) -> Vec<StepId> {
        let mut closed = healthy.to_vec();
        for check in self.staged(Stage::Closed) {
            closed.extend(self.add_check(&check, Phase::VerifyClosed, healthy.to_vec()));
        }
        closed
    }

    fn resumes(&mut self, pauses: &[Place], closed: &[StepId]) -> Vec<StepId> {
        pauses.iter().map(|place| self.add("resume", place, Phase::Resume, Action::Resume, closed.to_vec())).collect()
    }

    fn open(&mut self, resumed: &[StepId], closed: &[StepId]) {
        for check in self.staged(Stage::Open) {
            let needs = resumed.iter().chain(closed).cloned().collect::<Vec<_>>();
            self.add_check(&check, Phase::VerifyOpen, needs);
        }
    }
}

fn numbered(name: &str, place: &Place, number: usize) -> StepId {
    match number {
        0 => StepId(format!("{name}/{place}")),
        n => StepId(format!("{name}/{place}/{}", n + 1)),
    }
}

fn last_restore(place: &Place, touch: &Touch) -> StepId {
    numbered("restore", place, touch.live().count().saturating_sub(1))
}

/// The processes that need `id`, directly or through components that do not run: a service behind a service does not read its code.
fn readers_of(
    application: &Application,
    id: &ComponentId,
    process: &dyn Fn(&ComponentId) -> bool,
) -> BTreeSet<ComponentId> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![id.clone()];
    while let Some(id) = open.pop() {
        for (other, spec) in &application.components {
            if !spec.needs.contains(&id) || !seen.insert(other.clone()) {
                continue;
            }
            match process(other) {
                true => {
                    found.insert(other.clone());
                }
                false => open.push(other.clone()),
            }
        }
    }
    found
}

/// Those that are needed before those that need them. `needs` has no cycles: that is checked when a configuration is loaded.
fn in_start_order(application: &Application, places: &BTreeSet<&Place>) -> Vec<Place> {
    let mut rest: Vec<&Place> = places.iter().copied().collect();
    let mut order: Vec<Place> = vec![];
    while !rest.is_empty() {
        let blocked = |place: &&Place| {
            let needs = application.needs_of(&place.component);
            rest.iter().any(|other| needs.contains(&other.component) && other.component != place.component)
        };
        let (wait, ready): (Vec<&Place>, Vec<&Place>) = rest.iter().copied().partition(blocked);
        if ready.is_empty() {
            order.extend(wait.into_iter().cloned());
            break;
        }
        order.extend(ready.into_iter().cloned());
        rest = wait;
    }
    order
}
