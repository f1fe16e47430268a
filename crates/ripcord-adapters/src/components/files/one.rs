//! A component that is one small file: captured, put back and edited as bytes in memory.
//!
//! The live name has the former bytes or the new ones at every instant; what is replaced goes to the vault first, because a
//! copy beside it could hold secrets. What the bytes mean is the [`Format`]'s business.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, Component, ComponentId, Cx, Destroys, Draft, Failure, Fut,
    Held, Holds, Inventory, Key, KindVersion, Limits, Observation, Outcome, Phase, Place, Proof, Readers, Redo,
    Revision, Seen, Shown, Step, Survey, TargetId, Want, Wanted, Wish,
};
use ripcord_vault::Source;
use serde_json::Value;

use super::captures::{self, Captures};
use super::{FileError, Halt, Live, Owner, Stop, Trying, blocking, outcome, owner, remove_file, replace};
use crate::components::disk::room;
use crate::components::tidy::{Names, Sort, Sweep};

/// What the bytes of a kind of file mean.
pub(crate) trait Format: Send + Sync + 'static {
    const KIND: &'static str;
    /// The identity of what the file says. An error says in words why it has none.
    fn revision(&self, bytes: &[u8]) -> Result<Revision, String>;
    /// What to put in the place of `live` so that it is what `captured` is. Refuses what no reader could take.
    fn restored(&self, live: Option<&[u8]>, captured: &[u8]) -> Result<Vec<u8>, String>;
    /// Whether these values can be set in this kind of file at all.
    fn settable(&self, values: &BTreeMap<String, Value>) -> Result<(), String>;
    /// `live` with the values set.
    fn set(&self, live: &[u8], values: &BTreeMap<String, Value>) -> Result<Vec<u8>, String>;
    /// The names whose values are not these.
    fn unlike(&self, live: &[u8], values: &BTreeMap<String, Value>) -> Result<Vec<String>, String>;
    /// Whether a file of these bytes has all that its readers need; none is like an empty one. An error says what it lacks, without
    /// values.
    fn complete(&self, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }
    /// What to tell people of the file, without values.
    fn facts(&self, live: &[u8]) -> BTreeMap<String, String>;
    /// The names that differ between the file and a capture, without values.
    fn differing(&self, live: &[u8], captured: &[u8]) -> Option<String>;
}

/// Where the content lies in a capture, and beside it what the vault does not keep of a file.
const CONTENT: &str = "file";
const OWNER: &str = "owner.json";
const ABSENT: &str = "absent";

/// What to do about a file that would not be complete.
const COMPLETE: &str = "choose another release, or take the key out of `require` where that release did not need it";

pub(crate) struct OneFile<F>(Arc<Inner<F>>);

struct Inner<F> {
    path: PathBuf,
    /// As it is written in the settings.
    shown: String,
    format: F,
    readers: Readers,
    keep: Duration,
    captures: Captures,
}

/// Content, and mode and owner where they are to change too.
type New = (Vec<u8>, Option<u32>, Option<Owner>);

/// A file as found: all of it in one look.
struct Found {
    bytes: Vec<u8>,
    mode: u32,
    owner: Owner,
    names: u64,
}

impl<F: Format> OneFile<F> {
    pub(crate) fn new(id: &ComponentId, path: &Path, format: F, readers: Readers, cx: &crate::BuildCx) -> Self {
        Self(Arc::new(Inner {
            path: cx.base.join(path),
            shown: path.display().to_string(),
            format,
            readers,
            keep: cx.keep_aside,
            captures: Captures::new(id, cx),
        }))
    }
}

impl<F: Format> Component for OneFile<F> {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: F::KIND.to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            held: Held::Vault,
            restore: Destroys::SetAside { keep: self.0.keep },
            readers: self.0.readers,
            sets: true,
            ..Capabilities::NONE
        }
    }

    fn survey<'a>(&'a self, _cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            let (inner, at, wanted) = (Arc::clone(&self.0), place.clone(), wanted.to_vec());
            blocking(move |_| inner.survey(at, &wanted)).await.unwrap_or_else(|failure| {
                let seen = Seen::Unreachable { why: failure.what };
                Survey::new(place.clone(), seen, TargetId(format!("file:{}", self.0.path.display())))
            })
        })
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        self.0.propose(wish, seen)
    }

    fn holds<'a>(&'a self, _cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let (inner, action, before) = (Arc::clone(&self.0), step.action.clone(), before.cloned());
            blocking(move |_| inner.holds(&action, before.as_ref()))
                .await
                .unwrap_or_else(|failure| Holds::CannotTell { why: failure.what }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move {
            let (inner, cx, action, before) = (Arc::clone(&self.0), cx.clone(), step.action.clone(), before.clone());
            match blocking(move |halt| outcome(inner.apply(&cx, &action, &before, halt))).await {
                Ok(outcome) => outcome,
                Err(failure) => Outcome::Unknown { why: failure.what },
            }
        })
    }

    fn tidy<'a>(&'a self, cx: &'a Cx, place: &'a Place, before: Timestamp) -> Fut<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            let (inner, cx, place) = (Arc::clone(&self.0), cx.clone(), place.clone());
            blocking(move |halt| inner.tidy(&cx, &place, before, halt)).await?
        })
    }
}

impl<F: Format> Inner<F> {
    fn survey(&self, place: Place, wanted: &[Wanted]) -> Survey {
        let live = match Live::through(&self.path) {
            Ok(live) => live,
            Err(error) => {
                let target = TargetId(format!("file:{}", self.path.display()));
                return Survey::new(place, Seen::Unreachable { why: error.to_string() }, target);
            }
        };
        let found = look(&live);
        let mut survey = Survey::new(place, self.seen(&found), live.target());
        survey.available = wanted.iter().map(|wanted| (wanted.clone(), self.available(wanted))).collect();
        survey.reckoned = Some(Duration::from_millis(50));
        if let Ok(Some(found)) = &found {
            survey.label = Some(format!("{} bytes, mode {:o}", found.bytes.len(), found.mode));
            survey.facts = self.format.facts(&found.bytes);
            if found.names > 1 {
                survey
                    .facts
                    .insert("hard links".into(), format!("{}; the other names keep what they hold", found.names));
            }
            for wanted in wanted {
                let Some(captured) = self.captured(wanted) else { continue };
                if let Some(names) = self.format.differing(&found.bytes, &captured) {
                    survey.facts.insert(format!("differs from {}", wanted.revision.short()), names);
                }
            }
        }
        survey
    }

    fn seen(&self, found: &Result<Option<Found>, FileError>) -> Seen {
        match found {
            Ok(None) => Seen::At(Revision::Absent),
            Ok(Some(found)) => match self.format.revision(&found.bytes) {
                Ok(revision) => Seen::At(revision),
                Err(why) => Seen::Between { why },
            },
            Err(error) => Seen::Unreachable { why: error.to_string() },
        }
    }

    fn available(&self, wanted: &Wanted) -> Available {
        match wanted.revision {
            Revision::Absent => Available::Here { how: "the file is taken away".to_owned() },
            Revision::Exact(_) => self.captures.available(wanted),
        }
    }

    fn captured(&self, wanted: &Wanted) -> Option<Vec<u8>> {
        let made = self.captures.wanted(wanted)?.ok()?;
        self.captures.bytes(&captures::manifest(&made).ok()?, CONTENT).ok()
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: String| CannotPlan { place: wish.place.clone(), why };
        let survey = seen.surveys.get(&wish.place).ok_or_else(|| cannot("it was not surveyed".to_owned()))?;
        let (action, words) = match &wish.want {
            Want::Revision { revision, .. } if survey.seen.revision() == Some(revision) => return Ok(vec![]),
            Want::Revision { revision, capture } => {
                if let Some(Available::Missing { why }) = survey.available(revision) {
                    return Err(cannot(why.clone()));
                }
                let from = capture.clone().map(ripcord_core::CaptureRef::Known);
                let words = match revision {
                    Revision::Absent => format!("take {} away", self.shown),
                    Revision::Exact(_) if from.is_none() => return Err(cannot("no capture holds it".to_owned())),
                    Revision::Exact(_) => format!("put the captured {} in place of the present one", self.shown),
                };
                (Action::Restore { to: revision.clone(), from }, words)
            }
            Want::Values(values) => {
                self.format.settable(values).map_err(cannot)?;
                let words = values.iter().map(|(name, value)| match value {
                    Value::Null => format!("unset {name}"),
                    value => format!("set {name} to {}", shown(value)),
                });
                let words = words.collect::<Vec<_>>().join(", ");
                (Action::Set { values: values.clone() }, format!("{words} in {}", self.shown))
            }
        };
        Ok(vec![Draft {
            phase: Phase::Restore,
            action,
            destroys: Destroys::SetAside { keep: self.keep },
            redo: Redo::Safe,
            limits: Limits::default(),
            shown: Shown { words, commands: vec![] },
        }])
    }

    fn holds(&self, action: &Action, before: Option<&Before>) -> Observation {
        let found = match Live::through(&self.path).and_then(|live| look(&live)) {
            Ok(found) => found,
            Err(error) => return Holds::CannotTell { why: error.to_string() }.into(),
        };
        let mark = self.mark(found.as_ref());
        let reached = match action {
            Action::Restore { to, .. } => self.is_at(found.as_ref(), to),
            Action::Set { values } => {
                let bytes = found.as_ref().map_or(&[][..], |found| &found.bytes);
                self.format.unlike(bytes, values).is_ok_and(|unlike| unlike.is_empty())
            }
            // Looking and capturing leave nothing behind that could hold: they are simply done again.
            _ => false,
        };
        let same = before.and_then(|before| before.mark.as_ref()).is_none_or(|was| *was == mark);
        let holds = match (reached, same) {
            (true, _) => Holds::Target,
            (false, true) => Holds::Origin,
            (false, false) => Holds::Neither { found: format!("{} was changed by somebody else", self.shown) },
        };
        Observation { holds, mark: Some(mark) }
    }

    fn is_at(&self, found: Option<&Found>, revision: &Revision) -> bool {
        match found {
            None => *revision == Revision::Absent,
            Some(found) => self.format.revision(&found.bytes).as_ref() == Ok(revision),
        }
    }

    /// Tells any two contents apart, also those without a revision.
    fn mark(&self, found: Option<&Found>) -> String {
        match found.map(|found| self.format.revision(&found.bytes)) {
            None => "absent".to_owned(),
            Some(Ok(Revision::Exact(id))) => id.0,
            Some(Ok(Revision::Absent)) => "absent".to_owned(),
            Some(Err(why)) => format!("no revision: {why}"),
        }
    }

    fn apply(&self, cx: &Cx, action: &Action, before: &Before, halt: &Halt) -> Result<Proof, Stop> {
        match action {
            Action::Prove { revision, capture } => self.prove(revision, capture.as_ref()),
            Action::Capture { .. } => self.capture(cx, &before.key),
            Action::Restore { to, from } => {
                let captured = match to {
                    Revision::Absent => None,
                    Revision::Exact(_) => Some(self.checked(self.captures.find(from.as_ref(), before, to)?, to)?),
                };
                self.change(cx, before, halt, |live| match &captured {
                    None => Ok(None),
                    Some((bytes, mode, owner)) => {
                        let restored = self.format.restored(live, bytes)?;
                        Ok(Some((restored, Some(*mode), *owner)))
                    }
                })
            }
            Action::Set { values } => self.change(cx, before, halt, |live| {
                let edited = self.format.set(live.unwrap_or_default(), values)?;
                Ok(Some((edited, None, None)))
            }),
            other => Err(Failure::never(format!("a file cannot do {other:?}")).into()),
        }
    }

    /// What was set aside is in the vault; beside the file only what a killed call was writing can be left.
    fn tidy(&self, cx: &Cx, place: &Place, before: Timestamp, halt: &Halt) -> Result<Vec<String>, Failure> {
        let live = Live::through(&self.path)?;
        let _lock = live.lock(cx.limit, halt)?;
        let (names, mut sweep) = (Names::new(&live, place), Sweep::new(&live, before)?);
        let old = sweep.old(&live.parent, |name| names.temporary(name, Sort::File))?;
        sweep.remove_all(old, halt);
        sweep.done()
    }

    fn prove(&self, revision: &Revision, capture: Option<&ripcord_core::CaptureId>) -> Result<Proof, Stop> {
        let wanted = Wanted { revision: revision.clone(), capture: capture.cloned() };
        if let Available::Missing { why } = self.available(&wanted) {
            return Err(Failure::never(why).into());
        }
        let Some(made) = self.captures.wanted(&wanted).transpose()? else {
            self.format
                .complete(b"")
                .map_err(|why| Failure::never(format!("without {}: {why}", self.shown)).advise(COMPLETE))?;
            return Ok(Proof::of("nothing is needed to take the file away"));
        };
        let (bytes, ..) = self.checked(Some(made), revision)?;
        self.format
            .complete(&bytes)
            .map_err(|why| Failure::never(format!("the captured {}: {why}", self.shown)).advise(COMPLETE))?;
        room(&Live::through(&self.path)?.parent, "the restore", bytes.len() as u64, 1)?;
        Ok(Proof::of(format!("the capture was read back, {} bytes", bytes.len())))
    }

    /// A capture's content, mode and owner, once it was shown to be what it is said to be.
    fn checked(
        &self,
        made: Option<ripcord_core::Made>,
        to: &Revision,
    ) -> Result<(Vec<u8>, u32, Option<Owner>), Failure> {
        let made = made.ok_or_else(|| Failure::never("the step names no capture to restore from"))?;
        let manifest = captures::manifest(&made)?;
        let bytes = self.captures.bytes(&manifest, CONTENT)?;
        let revision = self.format.revision(&bytes).map_err(|why| Failure::never(format!("the capture: {why}")))?;
        if revision != *to {
            return Err(Failure::never(format!("the capture holds {}, not {}", revision.short(), to.short()))
                .advise("choose another capture; was the key for revisions replaced?"));
        }
        self.format.restored(None, &bytes).map_err(|why| Failure::never(format!("the capture: {why}")))?;
        let mode = manifest.entry(CONTENT).map_or(0o600, |entry| entry.mode);
        let owner = match manifest.entry(OWNER) {
            None => None,
            Some(_) => serde_json::from_slice(&self.captures.bytes(&manifest, OWNER)?).ok(),
        };
        Ok((bytes, mode, owner))
    }

    fn capture(&self, cx: &Cx, key: &Key) -> Result<Proof, Stop> {
        let found = look(&Live::through(&self.path)?)?;
        let revision = match &found {
            None => Revision::Absent,
            Some(found) => self.revision_of_any(&found.bytes),
        };
        let manifest = self.captures.store(cx, key, "the present state", sources(found.as_ref())?)?;
        let what = found.as_ref().map_or("absent".to_owned(), |found| format!("{} bytes", found.bytes.len()));
        let made = captures::made(revision, Some(what.clone()), &manifest)?;
        let found = format!("{} ({what}) captured and read back", self.shown);
        Ok(Proof { capture: Some(made), ..Proof::of(found) })
    }

    /// What cannot be read has no revision to go to, but is captured all the same: for people.
    fn revision_of_any(&self, bytes: &[u8]) -> Revision {
        self.format
            .revision(bytes)
            .unwrap_or_else(|_| Revision::exact(format!("unreadable:{}", ripcord_core::Digest::of(bytes).hex())))
    }

    /// Puts what `new` makes of the present bytes in their place; none takes the file away.
    fn change(
        &self,
        cx: &Cx,
        before: &Before,
        halt: &Halt,
        new: impl Fn(Option<&[u8]>) -> Result<Option<New>, String>,
    ) -> Result<Proof, Stop> {
        let live = Live::through(&self.path)?;
        let _lock = live.lock(cx.limit, halt)?;
        let temporary = live.parent.join(format!(".ripcord-{}", before.key.file_name()));
        remove_file(&temporary)?;
        let found = look(&live)?;
        let present = found.as_ref().map(|found| found.bytes.as_slice());
        let new = new(present).map_err(|why| Failure::never(format!("{}: {why}", self.shown)))?;
        let Some((bytes, mode, put_owner)) = new else { return self.take_away(cx, before, &live, found.as_ref()) };
        let mode = mode.or(found.as_ref().map(|found| found.mode)).unwrap_or(0o600);
        // Only root may give files away; anybody else leaves the owner as it is.
        let put_owner = put_owner.filter(|_| root()).or(found.as_ref().map(|found| found.owner));
        let unchanged = found.as_ref().is_some_and(|found| {
            found.bytes == bytes && found.mode == mode && put_owner.is_none_or(|owner| owner == found.owner)
        });
        if unchanged {
            return Ok(Proof::of(format!("{} is already so", self.shown)));
        }
        let set_aside = self.set_aside(cx, before, found.as_ref())?;
        halt.check()?;
        replace(&live, &temporary, &bytes, mode, put_owner)?;
        let after = look(&live).map_err(|error| Stop::after(&error))?;
        if after.as_ref().is_none_or(|after| after.bytes != bytes) {
            return Err(Stop::Unknown(format!("{} was changed by somebody else meanwhile", self.shown)));
        }
        let mut said = format!("{} replaced, {} bytes", self.shown, bytes.len());
        if found.as_ref().is_some_and(|found| found.names > 1) {
            said.push_str("; its other hard links keep the former content");
        }
        Ok(Proof { set_aside, ..Proof::of(said) })
    }

    fn take_away(&self, cx: &Cx, before: &Before, live: &Live, found: Option<&Found>) -> Result<Proof, Stop> {
        if found.is_none() {
            return Ok(Proof::of(format!("{} is not there", self.shown)));
        }
        let set_aside = self.set_aside(cx, before, found)?;
        remove_file(&live.path)?;
        super::sync(&live.parent).map_err(|error| Stop::after(&error))?;
        Ok(Proof { set_aside, ..Proof::of(format!("{} taken away", self.shown)) })
    }

    fn set_aside(&self, cx: &Cx, before: &Before, found: Option<&Found>) -> Result<Vec<String>, Failure> {
        let Some(found) = found else { return Ok(vec![]) };
        let manifest = self.captures.store(cx, &before.key, "set aside", sources(Some(found))?)?;
        let id: String = manifest.snapshot.to_string().chars().take(12).collect();
        Ok(vec![format!("the former {} as snapshot {id} in the vault", self.shown)])
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn sources(found: Option<&Found>) -> Result<Vec<Source>, Failure> {
    let Some(found) = found else {
        return Ok(vec![Source::Bytes { path: ABSENT.to_owned(), bytes: vec![], mode: 0o600 }]);
    };
    let owner = serde_json::to_vec(&found.owner).map_err(|error| Failure::never(error.to_string()))?;
    Ok(vec![
        Source::Bytes { path: CONTENT.to_owned(), bytes: found.bytes.clone(), mode: found.mode },
        Source::Bytes { path: OWNER.to_owned(), bytes: owner, mode: 0o600 },
    ])
}

/// Reads the file as it stands. Some programs write in place: what changed while it was read is read again.
fn look(live: &Live) -> Result<Option<Found>, FileError> {
    let mut last = None;
    for _ in 0..5 {
        let mut file = match File::open(&live.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.trying("open", &live.path)?,
        };
        let meta = file.metadata().trying("look at", &live.path)?;
        if !meta.is_file() {
            return Err(FileError::io("read", &live.path, std::io::Error::other("it is not a file")));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).trying("read", &live.path)?;
        let print = |meta: &fs::Metadata| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        let after = file.metadata().trying("look at", &live.path)?;
        let found = Found { bytes, mode: meta.mode() & 0o7777, owner: owner(&meta), names: meta.nlink() };
        if print(&meta) == print(&after) && found.bytes.len() as u64 == meta.len() {
            return Ok(Some(found));
        }
        last = Some(found);
    }
    match last {
        None => Ok(None),
        Some(_) => Err(FileError::io(
            "read",
            &live.path,
            std::io::Error::new(std::io::ErrorKind::Interrupted, "it keeps changing"),
        )),
    }
}
