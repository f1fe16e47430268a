//! An SQLite database: captured while it is in use, restored as one change of it, with what that gives up counted and kept.
//!
//! A database is never replaced under its name while it can be opened. A connection waiting for a lock would go on with the old
//! file, and its journal would lie, and be taken, for the new one's; so the capture is copied over the live database in one
//! transaction of SQLite's own, with everybody else locked out. Before it, the live database is copied aside as
//! `<db>.before-<run>`, and the rows that are given up are written to `<db>.salvage-<run>/`. Only a database too damaged to be
//! opened is exchanged by name, its log and all, and only when no process has it open.
//! Source: SQLite documentation, "How To Corrupt An SQLite Database File" 2.4 (unlinking or renaming a database in use),
//! "Online Backup API".

mod capture; // a copy that is whole, and proven to be
mod compare; // what going back would lose
mod database; // speaks SQLite, knows no rollback
mod restore; // the way back
mod salvage; // what is given up, for people
mod upkeep; // copies that were kept long enough

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CaptureId, CaptureRef, Component, ComponentId, Cx, Destroys,
    Draft, Failure, Fut, Held, Holds, Inventory, KindVersion, Layer, Limits, Loss, Made, Nature, Observation, Outcome,
    Phase, Place, Proof, Readers, Redo, Revision, Seen, Shown, Step, Survey, TargetId, Want, Wanted, Wish,
};
use schemars::JsonSchema;
use serde::Deserialize;

use self::database::{Content, SqlError};
use super::disk::room;
use super::files::captures::{self, Captures};
use super::files::{FileError, Halt, Live, ReadersSetting, Stop, blocking, outcome, path_mistakes};
use crate::{BuildCx, BuildError, ComponentKind};

/// An SQLite database. What a restore replaces is kept beside it as `<db>.before-<run>`, as long as anything set aside is. The rows
/// it gives up are written to `<db>.salvage-<run>/` and stay there until a person takes them away: they are the users'.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The database file, relative to `ripcord.yaml`. A link is followed.
    pub path: PathBuf,
    /// What a restore means for the components that need this one: `stop` before it (the default), `restart` after it, or `hot`.
    #[serde(default)]
    pub readers: Option<ReadersSetting>,
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "sqlite",
        summary: "An SQLite database: consistent online captures, restored with the rows given up counted and salvaged.",
        example: "path: shared/shop.db\nreaders: stop\n",
        layer: Layer::Data,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        path_mistakes(&self.path)
    }

    fn nature(&self) -> Nature {
        Nature::Flowing
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        Ok(Arc::new(Sqlite(Arc::new(Inner {
            path: cx.base.join(&self.path),
            shown: self.path.display().to_string(),
            readers: self.readers.unwrap_or(ReadersSetting::Stop).into(),
            keep: cx.keep_aside,
            captures: Captures::new(id, cx),
        }))))
    }
}

struct Sqlite(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// As it is written in the settings.
    shown: String,
    readers: Readers,
    keep: Duration,
    captures: Captures,
}

impl Component for Sqlite {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: "sqlite".to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            nature: Nature::Flowing,
            held: Held::Vault,
            restore: Destroys::SetAside { keep: self.0.keep },
            readers: self.0.readers,
            ..Capabilities::NONE
        }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            let (inner, at, wanted, within) = (Arc::clone(&self.0), place.clone(), wanted.to_vec(), cx.limit / 4);
            let surveyed = blocking(move |_| inner.survey(&at, &wanted, within)).await;
            surveyed.and_then(|survey| survey.map_err(Failure::from)).unwrap_or_else(|failure| {
                let target = TargetId(format!("file:{}", self.0.path.display()));
                Survey::new(place.clone(), Seen::Unreachable { why: failure.what }, target)
            })
        })
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        self.0.propose(wish, seen)
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let (inner, cx, action, before) = (Arc::clone(&self.0), cx.clone(), step.action.clone(), before.cloned());
            let looked = blocking(move |_| inner.holds(&cx, &action, before.as_ref())).await;
            looked.and_then(|looked| looked).unwrap_or_else(|failure| Holds::CannotTell { why: failure.what }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move {
            let (inner, cx, step, before) = (Arc::clone(&self.0), cx.clone(), step.clone(), before.clone());
            match blocking(move |halt| outcome(inner.apply(&cx, &step, &before, halt))).await {
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

fn captured_at(made: &Made) -> Option<Timestamp> {
    captures::manifest(made).ok().map(|manifest| manifest.at)
}

/// A loss whose size nobody knows; that is never taken for none.
fn uncounted(since: Option<Timestamp>, why: &str) -> Loss {
    let other = vec![format!("rows written since the capture, which cannot be counted: {why}")];
    Loss { since, other, how: Some("not comparable".to_owned()), ..Loss::none() }
}

/// What a look found: nothing, or what the database says, or why it says nothing.
type Looked = Result<Option<Content>, SqlError>;

impl Inner {
    fn look(live: &Live) -> Looked {
        match live.meta() {
            Ok(None) => Ok(None),
            // What the file system says is left to SQLite, which asks it again.
            Ok(Some(_)) | Err(_) => database::content(&database::open_to_read(&live.path)?).map(Some),
        }
    }

    fn survey(&self, place: &Place, wanted: &[Wanted], within: Duration) -> Result<Survey, FileError> {
        let began = Instant::now();
        let live = Live::through(&self.path)?;
        let looked = Self::look(&live);
        let seen = match &looked {
            Ok(None) => Seen::At(Revision::Absent),
            Ok(Some(content)) => Seen::At(content.revision.clone()),
            Err(error @ (SqlError::Damaged(_) | SqlError::Hot)) => Seen::Between { why: error.to_string() },
            Err(error) => Seen::Unreachable { why: error.to_string() },
        };
        let mut survey = Survey::new(place.clone(), seen, live.target());
        survey.label = looked.as_ref().ok().and_then(|found| found.as_ref().map(Content::label));
        survey.available = wanted.iter().map(|one| (one.clone(), self.available(one))).collect();
        // The last is the one to go to. It is always compared; the others as long as that leaves the look time to end.
        for one in wanted.iter().rev() {
            if let (Some(id), Some(Ok(made))) = (&one.capture, self.captures.wanted(one)) {
                let loss = match survey.losses.is_empty() || began.elapsed() < within {
                    true => self.loss(place, &live, &looked, one, id),
                    false => uncounted(captured_at(&made), "there was no time to compare it with that capture too"),
                };
                survey.losses.push((id.clone(), loss));
            }
        }
        survey.losses.reverse();
        let bytes = live.meta()?.map_or(0, |meta| meta.len());
        // Measured: copied, compared, copied aside and copied in at about 50 MB a second together.
        survey.reckoned = Some(Duration::from_millis(200 + bytes / 50_000));
        Ok(survey)
    }

    fn available(&self, wanted: &Wanted) -> Available {
        match wanted.revision {
            Revision::Absent => Available::Here { how: "the database is taken away, and kept".to_owned() },
            Revision::Exact(_) => self.captures.available(wanted),
        }
    }

    /// What going back to a capture would lose, counted row by row where that can be done.
    fn loss(&self, place: &Place, live: &Live, looked: &Looked, wanted: &Wanted, id: &CaptureId) -> Loss {
        let at = looked.as_ref().ok().and_then(|found| found.as_ref().map(|content| &content.revision));
        let how = Some("compared with the capture row by row".to_owned());
        match (looked, at == Some(&wanted.revision)) {
            (_, true) => return Loss { how, ..Loss::none() },
            (Ok(None), _) => return Loss { how: Some("there is no database to lose".to_owned()), ..Loss::none() },
            _ => {}
        }
        let since = self.captures.record(id).and_then(|made| captured_at(&made));
        let compared = looked.as_ref().map_err(ToString::to_string).map(drop).and_then(|()| {
            self.with_capture(id, |capture| {
                let db = restore::attached(database::open_to_read(&live.path)?, capture)?;
                Ok(compare::differences(&db)?)
            })
            .map_err(|failure| failure.what)
        });
        match compared {
            Ok(differences) => restore::loss(&place.to_string(), &differences, since),
            Err(why) => uncounted(since, &why),
        }
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: &str| CannotPlan { place: wish.place.clone(), why: why.to_owned() };
        let survey = seen.surveys.get(&wish.place).ok_or_else(|| cannot("it was not surveyed"))?;
        let Want::Revision { revision, capture } = &wish.want else {
            return Err(cannot("a database has no single values to set"));
        };
        if survey.seen.revision() == Some(revision) {
            return Ok(vec![]);
        }
        match survey.available(revision) {
            Some(Available::Here { .. }) => {}
            Some(Available::Missing { why }) => return Err(cannot(why)),
            None => return Err(cannot("nobody looked whether it can be had")),
        }
        let words = match (revision, capture) {
            (Revision::Absent, _) => format!("take {} away, and keep it", self.shown),
            (_, None) => return Err(cannot("no capture holds it")),
            (_, Some(capture)) => {
                let rows = survey.losses.iter().find(|(id, _)| id == capture).map_or(0, |(_, loss)| loss.total_rows());
                format!(
                    "restore {} from {capture}, keep the former beside, and write the {rows} rows changed since to files",
                    self.shown
                )
            }
        };
        Ok(vec![Draft {
            phase: Phase::Restore,
            action: Action::Restore { to: revision.clone(), from: capture.clone().map(CaptureRef::Known) },
            destroys: Destroys::SetAside { keep: self.keep },
            redo: Redo::Safe,
            limits: Limits { call: Duration::from_secs(900), total: Duration::from_secs(3600), tries: 3 },
            shown: Shown { words, commands: vec![] },
        }])
    }

    fn holds(&self, cx: &Cx, action: &Action, before: Option<&Before>) -> Result<Observation, Failure> {
        let live = Live::through(&self.path)?;
        let looked = Self::look(&live);
        let revision = match &looked {
            Ok(None) => Some(Revision::Absent),
            Ok(Some(content)) => Some(content.revision.clone()),
            Err(_) => None,
        };
        let mark = match (&revision, &looked) {
            (Some(Revision::Exact(id)), _) => id.0.clone(),
            (Some(Revision::Absent), _) => "absent".to_owned(),
            (None, Err(error)) => error.to_string(),
            (None, Ok(_)) => String::new(),
        };
        let Action::Restore { to, .. } = action else {
            return Ok(Observation { holds: Holds::Origin, mark: Some(mark) });
        };
        let progress = match before {
            Some(before) => restore::Names::new(live, cx, before).progress()?,
            None => restore::Progress::Untouched,
        };
        // A database moves by itself: that it is not as it was when the step began says nothing.
        let holds = match (progress, revision.as_ref() == Some(to), looked) {
            (restore::Progress::Begun, ..) => {
                Holds::Neither { found: "a restore was begun and not finished".to_owned() }
            }
            // Written to since, or it would be as it was restored.
            (restore::Progress::Done, ..) | (_, true, _) => Holds::Target,
            (restore::Progress::Untouched, false, Err(error @ (SqlError::Busy(_) | SqlError::Other(_)))) => {
                Holds::CannotTell { why: error.to_string() }
            }
            (restore::Progress::Untouched, false, _) => Holds::Origin,
        };
        Ok(Observation { holds, mark: Some(mark) })
    }

    fn apply(&self, cx: &Cx, step: &Step, before: &Before, halt: &Halt) -> Result<Proof, Stop> {
        match &step.action {
            Action::Prove { revision, capture } => {
                let wanted = Wanted { revision: revision.clone(), capture: capture.clone() };
                Ok(self.prove(&wanted)?)
            }
            Action::Capture { purpose } => Ok(self.capture(cx, *purpose, before)?),
            Action::Restore { to, from } => {
                let place = step.place.as_ref().map_or_else(|| self.shown.clone(), ToString::to_string);
                self.restore(cx, &place, to, from.as_ref(), before, halt)
            }
            other => Err(Failure::never(format!("a database cannot do {other:?}")).into()),
        }
    }

    /// Restores the capture to a scratch file and asks SQLite: nothing less shows that it can be restored.
    fn prove(&self, wanted: &Wanted) -> Result<Proof, Failure> {
        if let Available::Missing { why } = self.available(wanted) {
            return Err(Failure::never(why));
        }
        let Some(id) = wanted.capture.as_ref().filter(|_| wanted.revision != Revision::Absent) else {
            return Ok(Proof::of("nothing is needed to take the database away"));
        };
        let (content, bytes, dangling) = self.with_capture(id, |path| {
            let content = database::sound(path)?;
            let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
            Ok((content, bytes, database::dangling(path)?))
        })?;
        if content.revision != wanted.revision {
            let (is, to) = (content.revision.short(), wanted.revision.short());
            return Err(Failure::never(format!("the capture holds {is}, not {to}")));
        }
        let live = Live::through(&self.path)?;
        room(&live.parent, "the restore", restore::takes(capture::size(&live)?, bytes), 8)?;
        let mut found = format!("restored to a scratch file: sound, {}", content.label());
        if dangling > 0 {
            found.push_str(&format!("; {dangling} foreign keys lead nowhere, as when it was captured"));
        }
        Ok(Proof::of(found))
    }
}
