//! The steps: looking, capturing, proving and restoring, as the planner orders them.

use std::time::Duration;

use ripcord_core::{
    Action, Available, Before, CaptureId, Cx, Failure, Holds, Observation, Place, Proof, Revision, Seen, Step, Survey,
    Wanted,
};

use super::reach::Reach;
use super::restore::Job;
use super::source::recovering;
use super::{Desk, Found, Postgres, ProveSetting, catalog, names};
use crate::components::files::Stop;
use crate::postgres::PgError;

/// What is restored and compared in a second: measured, a database of 326 MB (3 million rows) took 31 seconds on two busy cores.
const BYTES_A_SECOND: u64 = 10 << 20;

pub(super) fn reckoned(bytes: i64) -> Duration {
    Duration::from_secs(2 + bytes.unsigned_abs() / BYTES_A_SECOND)
}

impl Postgres {
    pub(super) async fn look_at(&self, cx: &Cx, place: &Place, wanted: &[Wanted]) -> Result<Survey, Failure> {
        let within = cx.limit - cx.limit / 8;
        let desk = tokio::time::timeout(within, self.desk())
            .await
            .map_err(|_| Failure::later("the server does not answer"))??;
        let found = tokio::time::timeout(within, self.find(&desk)).await;
        let found = found.map_err(|_| Failure::later("the database does not answer"))?;
        let (seen, found) = match found {
            Ok(None) => (Seen::At(Revision::Absent), None),
            Ok(Some(found)) => {
                let seen = match &found.state {
                    Ok((_, revision)) => Seen::At(revision.clone()),
                    Err(why) => Seen::Between { why: self.server.clean(why) },
                };
                (seen, Some(found))
            }
            Err(error) => return Err(error.into()),
        };
        let mut survey = Survey::new(place.clone(), seen, desk.target());
        let trouble = self.archive_trouble(&desk).await.map_or(String::new(), |why| format!("; its archive: {why}"));
        survey.label = found.as_ref().map(|found| label(&desk, found) + &trouble);
        let mut longest = Duration::ZERO;
        for one in wanted {
            let Looked { available, about, recovering } = self.available(&desk, one).await?;
            longest = longest.max(recovering);
            if let (Some(id), Some(about)) = (&one.capture, about) {
                survey.losses.push((id.clone(), self.loss(&place.to_string(), found.as_ref(), &about, id)));
            }
            survey.available.push((one.clone(), available));
        }
        survey.reckoned = found.as_ref().map(|found| reckoned(found.listed.bytes) + longest);
        Ok(survey)
    }

    /// Whether a wanted revision can be had, what is recorded beside its dump, and what a recovery would take.
    async fn available(&self, desk: &Desk, wanted: &Wanted) -> Result<Looked, Failure> {
        let looked = |available| Looked { available, about: None, recovering: Duration::ZERO };
        if wanted.revision == Revision::Absent {
            return Ok(looked(Available::Here { how: "the database is taken away, and kept".to_owned() }));
        }
        let (captures, of) = (self.captures.clone(), wanted.clone());
        let (found, made) =
            crate::components::files::blocking(move |_| (captures.available(&of), captures.wanted(&of))).await?;
        let Some(Ok(made)) = made else { return Ok(looked(found)) };
        let about = match (&found, self.about_of(made.clone()).await) {
            (_, Ok(about)) => about,
            (Available::Missing { .. }, Err(_)) => return Ok(looked(found)),
            (_, Err(failure)) => return Ok(looked(Available::Missing { why: failure.what })),
        };
        let how = match &found {
            Available::Here { .. } if !self.by_archive(&made) => {
                return Ok(Looked { about: Some(about), ..looked(found) });
            }
            Available::Missing { .. } if self.archive.is_none() => return Ok(looked(found)),
            Available::Here { how } => how.clone(),
            Available::Missing { why } => format!("though its dump cannot be had ({why})"),
        };
        Ok(match self.route(desk, &about, &made, Reach::Look).await {
            Ok(route) => Looked {
                available: Available::Here { how: format!("{how}, by {}", route.words()) },
                about: Some(about),
                recovering: recovering(&route),
            },
            Err(failure) => looked(Available::Missing { why: failure.what }),
        })
    }

    pub(super) async fn about_of(&self, made: ripcord_core::Made) -> Result<super::facts::About, Failure> {
        let (captures, made) = (self.captures.clone(), made);
        crate::components::files::blocking(move |_| super::facts::about(&captures, &made)).await?
    }

    pub(super) async fn observe(
        &self,
        cx: &Cx,
        action: &Action,
        before: Option<&Before>,
    ) -> Result<Observation, Failure> {
        let within = cx.limit - cx.limit / 8;
        let looking = async {
            let desk = self.desk().await?;
            let found = self.find(&desk).await?;
            Ok::<_, PgError>((desk, found))
        };
        let looked = tokio::time::timeout(within, looking).await;
        let (desk, found) = looked.map_err(|_| Failure::later("the server does not answer"))??;
        let revision = match &found {
            None => Some(Revision::Absent),
            Some(found) => found.revision().cloned(),
        };
        let mark = Some(match &revision {
            Some(Revision::Exact(id)) => id.0.clone(),
            Some(Revision::Absent) => "absent".to_owned(),
            None => "closed".to_owned(),
        });
        let Action::Restore { to, .. } = action else { return Ok(Observation { holds: Holds::Origin, mark }) };
        let progress = match before {
            Some(before) => self.progress(&desk, found.as_ref(), before).await?,
            None => Progress::Untouched,
        };
        // A database moves by itself: that it is not as it was when the step began says nothing.
        let holds = match progress {
            Progress::Begun(found) => Holds::Neither { found },
            // Written to since, or it would be as it was restored.
            Progress::Done => Holds::Target,
            Progress::Untouched if revision.as_ref() == Some(to) => Holds::Target,
            Progress::Untouched => Holds::Origin,
        };
        Ok(Observation { holds, mark })
    }

    /// How far a step has come, by what is on the server.
    pub(super) async fn progress(
        &self,
        desk: &Desk,
        live: Option<&Found>,
        before: &Before,
    ) -> Result<Progress, PgError> {
        let (key, name) = (before.key.to_string(), desk.database());
        let all = catalog::listed(&desk.control, name, names::prefix(name)).await?;
        let aside = all.iter().find(|one| {
            names::is_aside(name, &one.name) && one.aside().is_some_and(|aside| aside.key == key && aside.of == name)
        });
        let restored = live.and_then(|live| live.listed.restored()).is_some_and(|restored| restored.key == key);
        let building = names::building(name, &before.key);
        if all.iter().any(|one| one.name == building) {
            return Ok(Progress::Begun(
                "a restore was begun and not finished: the live database was not touched".to_owned(),
            ));
        }
        Ok(match aside.and_then(catalog::Listed::aside) {
            Some(aside) if aside.settled => Progress::Done,
            Some(_) => Progress::Begun(
                "restored; what the former one got at the last moment is not looked after yet".to_owned(),
            ),
            None if restored => Progress::Done,
            None => Progress::Untouched,
        })
    }

    pub(super) async fn act(&self, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Stop> {
        match &step.action {
            Action::Prove { revision, capture } => Ok(self.prove(cx, revision, capture.as_ref(), before).await?),
            Action::Capture { purpose } => Ok(self.capture(cx, *purpose, before).await?),
            Action::Restore { to, from } => {
                let place = step.place.as_ref().map_or_else(|| self.server.shown(), ToString::to_string);
                self.restore(Job { cx, place: &place, to, from: from.as_ref(), before }).await
            }
            other => Err(Failure::never(format!("a database cannot do {other:?}")).into()),
        }
    }

    /// Restores the capture to a scratch database and compares: nothing less shows that it can be restored.
    async fn prove(
        &self,
        cx: &Cx,
        revision: &Revision,
        capture: Option<&CaptureId>,
        before: &Before,
    ) -> Result<Proof, Failure> {
        let desk = self.desk().await?;
        let live = catalog::find(&desk.control, desk.database()).await?;
        let Some(id) = capture.filter(|_| *revision != Revision::Absent) else {
            if *revision != Revision::Absent {
                return Err(Failure::never("no capture of it was ever made"));
            }
            self.may_exchange(&desk, live.as_ref()).await?;
            return Ok(Proof::of("nothing is needed to take the database away"));
        };
        let made = self.captures.wanted(&Wanted { revision: revision.clone(), capture: Some(id.clone()) });
        let made = made.ok_or_else(|| Failure::never("no capture of it was ever made"))??;
        let about = self.about_of(made.clone()).await?;
        self.preflight(&desk, live.as_ref(), &about, &made).await?;
        // Reads every byte of it back, or looks at every segment.
        let file = format!("{}-proof", before.key.file_name());
        let source = self.source(&desk, cx, &about, &made, &file).await?;
        let takes = reckoned(about.bytes) + source.takes();
        if self.prove == ProveSetting::Listed || takes > cx.limit / 2 {
            let why = match self.prove {
                ProveSetting::Listed => "as `prove: listed` says".to_owned(),
                ProveSetting::Restored => format!("which would take about {}", ripcord_core::human(takes)),
            };
            return Ok(Proof::of(format!("{}; not restored on trial, {why}", source.seen())));
        }
        let name = names::trial(desk.database(), &before.key);
        let dumped = self.dump_of(&desk, cx, &about, source, (&file, before)).await?;
        let built = self.build(&desk, cx, &about, &dumped, &name, before).await;
        let dropped = super::restore::drop_scratch(&desk, &name).await;
        built?;
        dropped?;
        let from = dumped.from.map_or(String::new(), |from| format!("{from}, "));
        Ok(Proof::of(format!("{from}restored to a scratch database and compared: {}", about.label())))
    }
}

/// What was found of a wanted revision.
struct Looked {
    available: Available,
    about: Option<super::facts::About>,
    recovering: Duration,
}

/// How far a restore has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Untouched,
    Begun(String),
    Done,
}

fn label(desk: &Desk, found: &Found) -> String {
    let bytes = found.listed.bytes;
    let tables = found.state.as_ref().map_or(0, |(state, _)| state.tables.len());
    let restored = match (found.listed.restored(), found.revision()) {
        (Some(restored), Some(revision)) if restored.revision == *revision => ", as restored",
        (Some(_), _) => ", written to since it was restored",
        (None, _) => "",
    };
    format!("PostgreSQL {}, {tables} tables, {} MB{restored}", desk.system.major(), bytes / 1_000_000)
}
