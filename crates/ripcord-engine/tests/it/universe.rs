//! A world of fakes: it does what it is told, fails when the dice say so, and remembers everything that was done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::*;
use tokio::sync::Notify;

/// Small, fast and good enough to roll dice with (SplitMix64).
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// What a place really is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Real {
    pub revision: String,
    /// Half way between two states.
    pub torn: bool,
    pub on: bool,
    pub instance: u64,
}

/// How much goes wrong, in percent of calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    pub fails: u64,
    pub fails_for_good: u64,
    pub unknown: u64,
    pub hangs: u64,
    pub tears: u64,
    pub kills: u64,
    pub blind: u64,
}

pub struct Truth {
    pub real: BTreeMap<Place, Real>,
    pub captures: BTreeMap<String, Vec<String>>,
    /// How often each effect was completed.
    pub effects: BTreeMap<Key, u32>,
    pub violations: Vec<String>,
    pub dice: Dice,
    pub trouble: Trouble,
    /// The processes that must be off while a place is restored.
    pub readers: BTreeMap<Place, BTreeSet<Place>>,
    pub applied: u64,
    /// Steps that fail for good whenever they are begun.
    pub refuses: BTreeSet<String>,
    /// How long steps take, where it is not up to the dice.
    pub takes: BTreeMap<String, Duration>,
    /// Steps being carried out, and the most there ever were at once.
    pub busy: u32,
    pub busiest: u32,
    /// Revisions that can no longer be had.
    pub gone: BTreeSet<String>,
    /// How a step goes the next time it is begun, where it is not up to the dice.
    pub fates: BTreeMap<String, Fate>,
    /// What is being done by somebody who goes on with it whatever becomes of us, the next time it is begun.
    pub orphans: BTreeSet<String>,
    /// Whether components panic when they are asked what they can do.
    pub breaks: bool,
    /// What is made ready beside the live before it is restored, and what restarts without a gap.
    pub stages: BTreeSet<ComponentId>,
    pub rolls: BTreeSet<ComponentId>,
    /// What would undo a restore, by place.
    pub puts_back: BTreeMap<Place, Vec<String>>,
    /// What serves every revision as it is, and what going without a capture loses.
    pub serves: BTreeSet<ComponentId>,
    /// What holds what else: the one restored whole brings the other back.
    pub holds: BTreeMap<ComponentId, ComponentId>,
    pub empties: BTreeMap<ComponentId, Loss>,
    /// Those with no way of their own to anything else.
    pub stuck: BTreeSet<ComponentId>,
    /// What is ready beside the live.
    pub staged: BTreeSet<(Place, Revision)>,
    /// What was set aside, by place, and what tidying it comes to.
    pub aside: BTreeMap<Place, Result<Vec<String>, String>>,
}

/// How an effect goes whose outcome nobody is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    Acts,
    DoesNothing,
    Tears,
}

#[derive(Clone)]
pub struct Universe {
    pub truth: Arc<Mutex<Truth>>,
    /// Somebody pulled the plug.
    pub killed: Arc<Notify>,
}

impl Universe {
    pub fn new(dice: Dice) -> Self {
        let truth = Truth {
            real: BTreeMap::new(),
            captures: BTreeMap::new(),
            effects: BTreeMap::new(),
            violations: vec![],
            dice,
            trouble: Trouble::default(),
            readers: BTreeMap::new(),
            applied: 0,
            refuses: BTreeSet::new(),
            takes: BTreeMap::new(),
            busy: 0,
            busiest: 0,
            gone: BTreeSet::new(),
            fates: BTreeMap::new(),
            orphans: BTreeSet::new(),
            breaks: false,
            stages: BTreeSet::new(),
            rolls: BTreeSet::new(),
            puts_back: BTreeMap::new(),
            serves: BTreeSet::new(),
            holds: BTreeMap::new(),
            empties: BTreeMap::new(),
            stuck: BTreeSet::new(),
            staged: BTreeSet::new(),
            aside: BTreeMap::new(),
        };
        Self { truth: Arc::new(Mutex::new(truth)), killed: Arc::new(Notify::new()) }
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Truth) -> T) -> T {
        look(&mut self.truth.lock().unwrap())
    }
}

/// A component that lives in a universe.
#[derive(Clone)]
pub struct Fake {
    pub universe: Universe,
    pub capabilities: Capabilities,
    pub major: u16,
}

/// Counts the effects being carried out, also of those that are dropped.
struct Busy<'a>(Option<&'a Universe>);

impl<'a> Busy<'a> {
    fn new(universe: &'a Universe, step: &Step) -> Self {
        if !step.acts() {
            return Self(None);
        }
        universe.with(|truth| {
            truth.busy += 1;
            truth.busiest = truth.busiest.max(truth.busy);
        });
        Self(Some(universe))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(universe) = self.0 {
            universe.with(|truth| truth.busy -= 1);
        }
    }
}

enum Luck {
    Good,
    Fails(Retry),
    Unknown { acted: bool },
    Hangs { acted: bool },
    Tears,
    Kills { acted: bool },
}

impl Fake {
    fn luck(&self) -> Luck {
        self.universe.with(|truth| {
            truth.applied += 1;
            let trouble = truth.trouble;
            let dice = &mut truth.dice;
            let acted = dice.chance(50);
            let mut at = dice.below(100);
            let mut falls = |percent: u64| {
                let hit = at < percent;
                at = at.saturating_sub(percent).max(if hit { 100 } else { 0 });
                hit
            };
            if falls(trouble.fails) {
                Luck::Fails(Retry::Later)
            } else if falls(trouble.fails_for_good) {
                Luck::Fails(Retry::Never)
            } else if falls(trouble.unknown) {
                Luck::Unknown { acted }
            } else if falls(trouble.hangs) {
                Luck::Hangs { acted }
            } else if falls(trouble.tears) {
                Luck::Tears
            } else if falls(trouble.kills) {
                Luck::Kills { acted }
            } else {
                Luck::Good
            }
        })
    }

    fn sees(&self, step: &Step, before: Option<&Before>) -> Observation {
        let Some(place) = &step.place else { return Holds::CannotTell { why: "no place".into() }.into() };
        self.universe.with(|truth| {
            let real = truth.real.get(place).cloned().unwrap_or_default();
            let mark = Some(real.instance.to_string());
            if real.torn {
                return Observation { holds: Holds::Neither { found: "torn".into() }, mark };
            }
            let is = |held: bool| if held { Holds::Target } else { Holds::Origin };
            let holds = match &step.action {
                Action::Restore { to, .. } => is(Revision::exact(real.revision.clone()) == *to),
                Action::Set { values } => is(real.revision == set_to(values)),
                Action::Stop | Action::Pause => is(!real.on),
                Action::Resume => is(real.on),
                Action::Stage { to, .. } => is(truth.staged.contains(&(place.clone(), to.clone()))),
                Action::Start | Action::Roll => match before {
                    // An instance newer than the intent; before the intent nothing is new enough.
                    Some(before) => is(real.on && before.mark != mark),
                    None => Holds::Origin,
                },
                _ => Holds::Origin,
            };
            Observation { holds, mark }
        })
    }

    fn act(&self, step: &Step, before: &Before, torn: bool) -> Outcome {
        let seen = self.sees(step, Some(before));
        let Some(place) = step.place.clone() else { return Outcome::Failed(Failure::never("no place")) };
        self.universe.with(|truth| {
            if seen.holds == Holds::Target {
                truth.violations.push(format!("`{}` was done again although its goal held", step.id));
            }
            if step.destroys == Destroys::GivesUp {
                let held = match &step.protected_by {
                    Some(CaptureRef::MadeBy(by)) => truth.captures.contains_key(&by.0),
                    Some(CaptureRef::Known(_)) => true,
                    None => false,
                };
                if !held {
                    truth.violations.push(format!("`{}` destroyed what nothing held", step.id));
                }
            }
            if let Action::Restore { to, .. } = &step.action {
                let staged = truth.staged.contains(&(place.clone(), to.clone()));
                if truth.stages.contains(&place.component) && !staged {
                    truth.violations.push(format!("`{}` was done before it was ready", step.id));
                }
                for reader in truth.readers.get(&place).cloned().unwrap_or_default() {
                    if truth.real.get(&reader).is_some_and(|real| real.on) {
                        truth.violations.push(format!("`{}` was done while `{reader}` ran", step.id));
                    }
                }
            }
            let real = truth.real.entry(place.clone()).or_default();
            if torn {
                real.torn = true;
                return Outcome::Unknown { why: "torn".into() };
            }
            real.torn = false;
            let mut proof = Proof::of("done");
            if step.destroys == Destroys::GivesUp {
                proof.lost = Some(Loss { other: vec!["what was written since".into()], ..Loss::none() });
            }
            match &step.action {
                Action::Restore { to: Revision::Exact(to), .. } => {
                    real.revision = to.0.clone();
                    if let Some(held) = truth.holds.get(&place.component) {
                        truth.real.entry(Place::local(held.clone())).or_default().revision = to.0.clone();
                    }
                }
                Action::Restore { to: Revision::Absent, .. } => real.revision = String::new(),
                Action::Set { values } => real.revision = set_to(values),
                Action::Stop | Action::Pause => real.on = false,
                Action::Resume => real.on = true,
                Action::Stage { to, .. } => drop(truth.staged.insert((place.clone(), to.clone()))),
                Action::Start | Action::Roll => {
                    real.on = true;
                    real.instance += 1;
                }
                Action::Capture { .. } => {
                    let (revision, id) = (real.revision.clone(), step.id.0.clone());
                    truth.captures.entry(id).or_default().push(revision.clone());
                    proof.capture = Some(Made {
                        revision: Revision::exact(revision.clone()),
                        label: None,
                        held: HeldIn::System { name: revision.clone() },
                        bytes: 1,
                        proof: ProofLevel::ReadBack,
                        content: Digest::of(revision.as_bytes()),
                    });
                    return Outcome::Done(proof);
                }
                _ => {}
            }
            *truth.effects.entry(before.key.clone()).or_default() += 1;
            if truth.effects[&before.key] > 1 {
                truth.violations.push(format!("`{}` took effect twice under one key", step.id));
            }
            Outcome::Done(proof)
        })
    }
}

fn set_to(values: &BTreeMap<String, serde_json::Value>) -> String {
    serde_json::to_string(values).unwrap()
}

impl Component for Fake {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: "fake".into(), major: self.major, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        let breaks = self.universe.with(|truth| truth.breaks);
        assert!(!breaks, "it breaks");
        self.capabilities.clone()
    }

    fn survey<'a>(&'a self, _: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            let real = self.universe.with(|truth| truth.real.get(place).cloned().unwrap_or_default());
            let seen = match real.torn {
                true => Seen::Between { why: "torn".into() },
                false => Seen::At(Revision::exact(real.revision.clone())),
            };
            let holder = |truth: &mut Truth| {
                let holder = truth.holds.iter().find(|(_, held)| **held == place.component);
                holder.map_or_else(|| place.to_string(), |(holder, _)| holder.to_string())
            };
            let target = TargetId(format!("fake:{}", self.universe.with(holder)));
            let mut survey = Survey::new(place.clone(), seen, target);
            if self.capabilities.lifecycle != Lifecycle::None {
                survey.running = Some(real.on);
                survey.instance = Some(real.instance.to_string());
                survey.rolls = self.universe.with(|truth| truth.rolls.contains(&place.component));
            }
            survey.puts_back = self.universe.with(|truth| truth.puts_back.get(place).cloned().unwrap_or_default());
            if self.universe.with(|truth| truth.serves.contains(&place.component)) {
                let others = wanted.iter().filter(|w| Some(&w.revision) != survey.seen.revision());
                survey.serves = others.map(|w| (w.revision.clone(), "only added to".to_owned())).collect();
            }
            survey.empties = self.universe.with(|truth| truth.empties.get(&place.component).cloned());
            let had = |w: &Wanted| match self.universe.with(|truth| truth.gone.contains(&w.revision.short())) {
                true => Available::Missing { why: "somebody deleted it".into() },
                false => Available::Here { how: "made of thin air".into() },
            };
            survey.available = wanted.iter().map(|w| (w.clone(), had(w))).collect();
            survey
        })
    }

    fn propose(&self, wish: &Wish, _: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        if self.universe.with(|truth| truth.stuck.contains(&wish.place.component)) {
            return Err(CannotPlan { place: wish.place.clone(), why: "no way back".to_owned() });
        }
        let action = match &wish.want {
            Want::Revision { revision, capture } => {
                Action::Restore { to: revision.clone(), from: capture.clone().map(CaptureRef::Known) }
            }
            Want::Values(values) => Action::Set { values: values.clone() },
        };
        let limits = Limits { call: Duration::from_secs(5), total: Duration::from_secs(10), tries: 3 };
        let stage = match &action {
            Action::Restore { to, from }
                if self.universe.with(|truth| truth.stages.contains(&wish.place.component)) =>
            {
                Some(Action::Stage { to: to.clone(), from: from.clone() })
            }
            _ => None,
        };
        let draft =
            |phase, action, destroys, redo| Draft { phase, action, destroys, redo, limits, shown: Shown::default() };
        let stage = stage.map(|action| draft(Phase::Stage, action, Destroys::Nothing, Redo::Safe));
        let restore = draft(Phase::Restore, action, self.capabilities.restore, self.capabilities.redo);
        Ok(stage.into_iter().chain([restore]).collect())
    }

    fn holds<'a>(&'a self, _: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let blind = self.universe.with(|truth| {
                let percent = truth.trouble.blind;
                truth.dice.chance(percent)
            });
            match blind {
                true => Holds::CannotTell { why: "fog".into() }.into(),
                false => self.sees(step, before),
            }
        })
    }

    fn apply<'a>(&'a self, _: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move {
            // Effects take time, so that steps really run beside each other.
            let takes = self.universe.with(|truth| {
                let dice = Duration::from_millis(truth.dice.below(400));
                truth.takes.get(&step.id.0).copied().unwrap_or(dice)
            });
            let _busy = Busy::new(&self.universe, step);
            if self.universe.with(|truth| truth.orphans.remove(&step.id.0)) {
                let (other, step, before) = (self.clone(), step.clone(), before.clone());
                let doing = tokio::spawn(async move {
                    tokio::time::sleep(takes).await;
                    other.act(&step, &before, false)
                });
                return doing.await.unwrap();
            }
            tokio::time::sleep(takes).await;
            if self.universe.with(|truth| truth.refuses.contains(&step.id.0)) {
                return Outcome::Failed(Failure::never("it refuses"));
            }
            if matches!(step.action, Action::Prove { .. }) {
                return Outcome::Done(Proof::of("there"));
            }
            let fate = self.universe.with(|truth| truth.fates.remove(&step.id.0));
            let luck = match fate {
                Some(Fate::Acts) => Luck::Unknown { acted: true },
                Some(Fate::DoesNothing) => Luck::Unknown { acted: false },
                Some(Fate::Tears) => Luck::Tears,
                None => self.luck(),
            };
            match luck {
                Luck::Good => self.act(step, before, false),
                Luck::Fails(retry) => Outcome::Failed(Failure { retry, ..Failure::never("bad luck") }),
                Luck::Unknown { acted } => {
                    if acted {
                        self.act(step, before, false);
                    }
                    Outcome::Unknown { why: "the line went dead".into() }
                }
                Luck::Hangs { acted } => {
                    if acted {
                        self.act(step, before, false);
                    }
                    std::future::pending().await
                }
                Luck::Tears if matches!(step.action, Action::Restore { .. }) => self.act(step, before, true),
                Luck::Tears => Outcome::Unknown { why: "the line went dead".into() },
                Luck::Kills { acted } => {
                    if acted {
                        self.act(step, before, false);
                    }
                    self.universe.killed.notify_one();
                    std::future::pending().await
                }
            }
        })
    }

    fn tidy<'a>(&'a self, _: &'a Cx, place: &'a Place, _: Timestamp) -> Fut<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            match self.universe.with(|truth| truth.aside.remove(place)) {
                Some(found) => found.map_err(Failure::later),
                None => Ok(vec![]),
            }
        })
    }
}

pub fn name(text: &str) -> ComponentId {
    ComponentId::new(text).unwrap()
}

/// Code or configuration that something reads.
pub fn versioned(readers: Readers, redo: Redo, restore: Destroys) -> Capabilities {
    Capabilities { held: Held::Vault, readers, redo, restore, sets: true, ..Capabilities::NONE }
}

pub fn process() -> Capabilities {
    Capabilities { observe: Observe::ByMarker, lifecycle: Lifecycle::Process, evidence: true, ..Capabilities::NONE }
}

pub fn switch() -> Capabilities {
    Capabilities { observe: Observe::Exactly, lifecycle: Lifecycle::Switch, ..Capabilities::NONE }
}

pub fn data() -> Capabilities {
    Capabilities {
        nature: Nature::Flowing,
        held: Held::Vault,
        readers: Readers::Stop,
        restore: Destroys::GivesUp,
        redo: Redo::Safe,
        ..Capabilities::NONE
    }
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}
