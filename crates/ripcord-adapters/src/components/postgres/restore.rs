//! The way back of a database. What is there after a kill says how far it had come:
//!
//! ```text
//! nothing of ours                                      untouched
//! <db>_ripcord_<key>                                   begun: being built, or ready; the live database is as it was
//! <db>_before_<run>, with our mark not settled         restored; what the former got at the last moment is to be looked after
//! <db>_before_<run>, settled                           done
//! ```

use ripcord_core::{Before, CaptureRef, Cx, Failure, Loss, Made, Proof, Retry, Revision};

use super::act::Progress;
use super::catalog::{self, Aside, Building, Listed, Restored};
use super::facts::{self, About};
use super::salvage::Salvage;
use super::source::Dumped;
use super::{Desk, Postgres, names};
use crate::components::files::{Stop, point};
use crate::components::tool::poll;
use crate::hosts::{Take, within};
use crate::postgres::{Ended, PgError, argument, as_argument, quoted};

/// One restore.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) cx: &'a Cx,
    pub(super) place: &'a str,
    pub(super) to: &'a Revision,
    pub(super) from: Option<&'a CaptureRef>,
    pub(super) before: &'a Before,
}

impl Job<'_> {
    pub(super) fn run(&self) -> String {
        self.cx.run.as_ref().map_or_else(|| self.before.key.file_name(), ToString::to_string)
    }
    pub(super) fn key(&self) -> String {
        self.before.key.to_string()
    }
}

impl Postgres {
    pub(super) async fn restore(&self, job: Job<'_>) -> Result<Proof, Stop> {
        let desk = self.desk().await?;
        desk.attend(job.cx.limit / 2).await?;
        let live = self.find(&desk).await?;
        let building = names::building(desk.database(), &job.before.key);
        match self.progress(&desk, live.as_ref(), job.before).await? {
            Progress::Done => return self.settled(&desk, job, "was restored by this step").await,
            Progress::Begun(_) | Progress::Untouched => {}
        }
        if let Some(aside) = self.unsettled(&desk, job).await? {
            let lost = self.settle(&desk, job, &aside).await?;
            return self.done(&desk, job, "restored", lost).await;
        }
        let at = live.as_ref().map_or(Some(Revision::Absent), |live| live.revision().cloned());
        if at.as_ref() == Some(job.to) {
            drop_scratch(&desk, &building).await?;
            return Ok(Proof::of(format!("{} is as captured", desk.database())));
        }
        let listed = live.map(|live| live.listed);
        if *job.to == Revision::Absent {
            self.may_exchange(&desk, listed.as_ref()).await?;
            self.exchange(&desk, job, None, listed.as_ref(), None).await?;
            return self.done(&desk, job, "taken away", None).await;
        }
        let made = self.captures.find(job.from, job.before, job.to)?;
        let made = made.ok_or_else(|| Failure::never("the step names no capture to restore from"))?;
        let about = self.about_of(made.clone()).await?;
        self.preflight(&desk, listed.as_ref(), &about, &made).await?;
        let ready = self.ready(&desk, job, &about, &made, &building).await;
        let from = ready.as_ref().ok().cloned().flatten().map_or(String::new(), |from| format!(", {from}"));
        if let Err(failure) = ready {
            // What is left of it stays for the next try, or is tidied away, where it cannot be dropped now.
            if let Err(error) = drop_scratch(&desk, &building).await {
                tracing::warn!(%error, database = building, "a database that was being built stays");
            }
            return Err(failure.into());
        }
        point("ready");
        let salvage = Salvage::at(super::beside(&self.directory, desk.database(), &format!(".salvage-{}", job.run())));
        let compared = match &listed {
            Some(listed) if listed.allows => {
                self.compared(&desk, job, &about, (&building, desk.database()), &salvage).await?
            }
            _ => None,
        };
        point("compared");
        let state = compared.as_ref().map(|compared| compared.state);
        let built = Some((building.as_str(), &about));
        if let Err(stop) = self.exchange(&desk, job, built, listed.as_ref(), state).await {
            // What may pass by itself is tried again with what was built; it was the longest part.
            if matches!(&stop, Stop::Failed(failure) if failure.retry == Retry::Never) {
                salvage.remove()?;
                drop_scratch(&desk, &building).await?;
            }
            return Err(stop);
        }
        point("exchanged");
        let lost = match self.unsettled(&desk, job).await.map_err(after)? {
            Some(aside) => self.settle(&desk, job, &aside).await.map_err(unknown)?,
            None => None,
        };
        let lost = lost.or_else(|| compared.map(|compared| compared.loss));
        let lost = lost.or_else(|| {
            listed.as_ref().map(|_| super::loss::uncounted(captured_at(&made), "the database cannot be read"))
        });
        self.done(&desk, job, &format!("restored: {}{from}", about.label()), lost).await
    }

    /// What `former` has and `restored` lacks. None where the former cannot be read: it is set aside as it is, and that it is damaged
    /// is no reason to keep the system down.
    async fn compared(
        &self,
        desk: &Desk,
        job: Job<'_>,
        about: &About,
        (restored, former): (&str, &str),
        salvage: &Salvage,
    ) -> Result<Option<super::compare::Compared>, Stop> {
        match self.compare(desk, job, about, restored, former, salvage).await {
            Ok(compared) => Ok(Some(compared)),
            Err(PgError::Failed(failure)) => Err((*failure).into()),
            Err(error @ (PgError::Said { .. } | PgError::Odd { .. })) => {
                tracing::warn!(%error, "the former database cannot be compared with the restored one");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The new database, built or found ready; where its rows came from, if not from the capture's dump.
    async fn ready(
        &self,
        desk: &Desk,
        job: Job<'_>,
        about: &About,
        made: &Made,
        name: &str,
    ) -> Result<Option<String>, Failure> {
        let there = catalog::find(&desk.control, name).await?;
        let is_ready = |one: &Listed| {
            one.building().is_some_and(|building| building.ready && building.key == job.key())
                && one.restored().is_some_and(|restored| restored.revision == *job.to && restored.until == self.until())
        };
        if there.as_ref().is_some_and(is_ready) {
            return Ok(None);
        }
        let file = job.before.key.file_name();
        let source = self.source(desk, job.cx, about, made, &file).await?;
        let dumped = self.dump_of(desk, job.cx, about, source, (&file, job.before)).await?;
        self.build(desk, job.cx, about, &dumped, name, job.before).await?;
        let from = dumped.from;
        drop(dumped.dump);
        self.finish(desk, job, name).await?;
        Ok(from)
    }

    /// Builds the captured database under a name of ours and compares it with what was captured.
    pub(super) async fn build(
        &self,
        desk: &Desk,
        cx: &Cx,
        about: &About,
        dumped: &Dumped,
        name: &str,
        before: &Before,
    ) -> Result<(), Failure> {
        drop_scratch(desk, name).await?;
        point("create");
        let program = self.server.program(&desk.way, "pg_restore", about.dumped_by.max(desk.system.major())).await?;
        desk.control.batch_execute(&about.attributes.creating(name)).await.map_err(PgError::from)?;
        let building = Building { version: 1, key: before.key.to_string(), at: cx.now, ready: false };
        point("created");
        desk.control
            .batch_execute(&catalog::marking(name, names::BUILDING, &building)?)
            .await
            .map_err(PgError::from)?;
        let jobs = std::thread::available_parallelism().map_or(2, usize::from).min(4);
        let arguments = [
            "--exit-on-error".to_owned(),
            "--no-password".to_owned(),
            format!("--jobs={jobs}"),
            format!("--dbname={}", as_argument(name)),
            argument(&dumped.dump.0),
        ];
        point("load");
        match program.run(&arguments, within(cx.limit), Take::Keep).await {
            Ended::Well { complaints } if complaints.trim().is_empty() => {}
            Ended::Well { complaints } => tracing::warn!(complaints, "pg_restore had something to say"),
            Ended::Badly(failure) => {
                return Err(
                    failure.advise("the live database was not touched; see what it says, or choose another capture")
                );
            }
        }
        point("loaded");
        let session = self.server.connect(&desk.way, name).await?;
        session.batch_execute("ANALYZE").await.map_err(PgError::from)?;
        let differs = facts::differs(&session, about, dumped.same).await?;
        session.close().await;
        match differs {
            None => Ok(()),
            Some(why) => Err(Failure::never(format!("the restored database is not what was captured: {why}"))
                .advise("the live database was not touched; choose another capture")),
        }
    }

    /// Has the new database say what it is: its counters begin at zero, so that they say what is written from now on.
    async fn finish(&self, desk: &Desk, job: Job<'_>, name: &str) -> Result<(), Failure> {
        // Sessions report what they did as they end, which may be a moment after their program has.
        let alone = || async {
            let question =
                "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'";
            match desk.control.query_one(question, &[&name]).await.map_err(PgError::from)?.get::<_, i64>(0) {
                0 => Ok(()),
                n => Err(Failure::later(format!("{n} sessions of the restore do not end"))),
            }
        };
        poll(tokio::time::Instant::now() + std::time::Duration::from_secs(30), alone).await?;
        let session = self.server.connect(&desk.way, name).await?;
        let zeroed = match session.batch_execute("SELECT pg_stat_reset()").await.map_err(PgError::from) {
            Ok(()) => true,
            Err(error) if error.code() == Some("42501") => false,
            Err(error) => return Err(error.into()),
        };
        let state = catalog::state(&session).await?;
        session.close().await;
        let restored = Restored {
            version: 1,
            revision: job.to.clone(),
            until: self.until(),
            key: job.key(),
            at: job.cx.now,
            state: state.digest(),
            zeroed,
            reset: state.reset.clone(),
            files: state.files(),
        };
        let building = Building { version: 1, key: job.key(), at: job.cx.now, ready: true };
        let statements =
            [catalog::marking(name, names::RESTORED, &restored)?, catalog::marking(name, names::BUILDING, &building)?];
        point("mark");
        // Both or neither: statements sent at once are one transaction.
        Ok(desk.control.batch_execute(&statements.concat()).await.map_err(PgError::from)?)
    }

    /// The database this step set aside and did not settle.
    async fn unsettled(&self, desk: &Desk, job: Job<'_>) -> Result<Option<(Listed, Aside)>, PgError> {
        let all = catalog::listed(&desk.control, desk.database(), names::prefix(desk.database())).await?;
        let ours = all.into_iter().filter(|one| names::is_aside(desk.database(), &one.name));
        let mut ours = ours.filter_map(|one| one.aside().map(|aside| (one, aside)));
        Ok(ours.find(|(_, aside)| aside.key == job.key() && aside.of == desk.database() && !aside.settled))
    }

    /// Looks after what the former database got between its comparison and the exchange.
    async fn settle(&self, desk: &Desk, job: Job<'_>, aside: &(Listed, Aside)) -> Result<Option<Loss>, Stop> {
        let (listed, mark) = aside;
        let mut lost = None;
        if let Some(compared) = mark.state {
            let session = self.server.connect(&desk.way, &listed.name).await?;
            let state = catalog::state(&session).await?;
            session.close().await;
            let salvage =
                Salvage::at(super::beside(&self.directory, desk.database(), &format!(".salvage-{}", job.run())));
            if state.digest() != compared {
                let made = self.captures.find(job.from, job.before, job.to)?;
                let made = made.ok_or_else(|| Failure::never("the step names no capture to restore from"))?;
                let about = self.about_of(made).await?;
                let compared = self.compared(desk, job, &about, (desk.database(), &listed.name), &salvage).await?;
                lost = compared.map(|compared| compared.loss);
            } else {
                lost = salvage.summary().map(|summary| summary.loss);
            }
        }
        let mark = Aside { settled: true, ..mark.clone() };
        point("settle");
        desk.control
            .batch_execute(&catalog::marking(&listed.name, names::ASIDE, &mark)?)
            .await
            .map_err(PgError::from)?;
        Ok(lost)
    }

    async fn settled(&self, desk: &Desk, job: Job<'_>, words: &str) -> Result<Proof, Stop> {
        self.done(desk, job, words, None).await
    }

    /// What is there of a restore that is done.
    async fn done(&self, desk: &Desk, job: Job<'_>, words: &str, lost: Option<Loss>) -> Result<Proof, Stop> {
        let all =
            catalog::listed(&desk.control, desk.database(), names::prefix(desk.database())).await.map_err(after)?;
        let ours = all.iter().filter(|one| {
            names::is_aside(desk.database(), &one.name) && one.aside().is_some_and(|aside| aside.key == job.key())
        });
        let mut set_aside: Vec<String> = ours.map(|one| format!("database {}", quoted(&one.name))).collect();
        let salvage = Salvage::at(super::beside(&self.directory, desk.database(), &format!(".salvage-{}", job.run())));
        let summary = salvage.summary().filter(|summary| summary.key == job.key());
        if summary.is_some() {
            set_aside.push(salvage.path().display().to_string());
        }
        let lost = lost.or_else(|| summary.map(|summary| summary.loss));
        Ok(Proof { set_aside, lost, ..Proof::of(format!("{} {words}", desk.database())) })
    }
}

fn captured_at(made: &Made) -> Option<jiff::Timestamp> {
    crate::components::files::captures::manifest(made).ok().map(|manifest| manifest.at)
}

/// An error after the exchange: what is left to do is for the next look to find.
fn after(error: PgError) -> Stop {
    Stop::Unknown(error.to_string())
}

fn unknown(stop: Stop) -> Stop {
    match stop {
        Stop::Failed(failure) => Stop::Unknown(failure.what),
        unknown @ Stop::Unknown(_) => unknown,
    }
}

/// Drops a database that was being built. It need not be there.
pub(super) async fn drop_scratch(desk: &Desk, name: &str) -> Result<(), PgError> {
    if !names::is_scratch(desk.database(), name) || catalog::find(&desk.control, name).await?.is_none() {
        return Ok(());
    }
    point("drop");
    let force = if desk.system.major() >= 13 { " WITH (FORCE)" } else { "" };
    Ok(desk.control.batch_execute(&format!("DROP DATABASE IF EXISTS {}{force}", quoted(name))).await?)
}
