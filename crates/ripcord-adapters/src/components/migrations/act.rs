//! One migration taken back or applied, so that whatever is killed, the database's own record says where it is.

use std::path::Path;
use std::time::Duration;

use ripcord_core::{
    Available, Before, CaptureId, CaptureRef, Cx, Destroys, Failure, Loss, Proof, Retry, Revision, Step, Wanted,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Digest as _;

use super::capture::{About, DIRTY, Files};
use super::database::{DbError, For, Session};
use super::record::{self, Applied};
use super::schema::Schema;
use super::sql::needs_no_transaction;
use super::way::{Here, There};
use super::{At, Inner, Looked, layout, offenders};
use crate::components::files::{Stop, Trying, point};
use crate::hosts::within;
use crate::secrets;

/// One step of a way, as a plan has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Move {
    pub(super) up: bool,
    pub(super) id: String,
    pub(super) name: String,
    /// Where the database is before and after it.
    pub(super) from: Revision,
    pub(super) to: Revision,
    /// The capture whose files know the way; none for those on the disk.
    pub(super) files: Option<CaptureId>,
    /// What the project's tool is given.
    pub(super) arguments: Vec<String>,
    /// The file that is run, where Ripcord runs it itself.
    pub(super) script: Option<String>,
    /// The migration before it in its line.
    pub(super) previous: Option<String>,
    /// The capture of what is gone to.
    pub(super) towards: Option<CaptureId>,
    /// The most that may be given up on the whole way.
    pub(super) ceiling: Loss,
    /// Whether this step may be the one that does.
    pub(super) gives_up: bool,
}

impl Move {
    pub(super) fn read(with: &Value) -> Result<Self, Failure> {
        serde_json::from_value(with.clone())
            .map_err(|error| Failure::never(format!("the step cannot be read: {error}")).advise("plan again"))
    }
}

impl Inner {
    pub(super) async fn prove(&self, wanted: &Wanted, limit: Duration) -> Result<Proof, Failure> {
        if let Available::Missing { why } = self.available(wanted).await {
            return Err(Failure::never(why));
        }
        let made = self.captures.wanted(wanted);
        let made = made.unwrap_or_else(|| Err(Failure::never("no capture of it was ever made")))?;
        let about = self.about_made(made).await?;
        let looked = self.look(&self.live).await?;
        clean(&looked)?;
        if !self.tool.is_files() {
            // That the interpreter and the tool are there is found out before anything is stopped.
            let program = self.at_work(&self.live, &self.cx.base, limit).await?;
            program.try_ask(&["--version"], limit).await?;
        }
        let fingerprint = about.schema.fingerprint().short();
        Ok(Proof::of(format!(
            "the captured migrations were read back; the schema recorded has fingerprint {fingerprint}"
        )))
    }

    /// A single move, as a step of its own.
    pub(super) async fn one(&self, cx: &Cx, step: &Step, way: &Move, before: &Before) -> Result<Proof, Stop> {
        let limit = within(cx.limit);
        let looked = self.look(&self.live).await?;
        clean(&looked)?;
        let is = self.revision(&looked.record);
        if is == way.to {
            return Ok(Proof::of(format!("the database is {} already", self.tool.label(&looked.record.marks))));
        }
        if is != way.from {
            let what = format!("the database is {}, not where this step begins", self.tool.label(&looked.record.marks));
            return Err(Failure::never(what)
                .advise("somebody moved it meanwhile: see what they did, then plan again")
                .into());
        }
        let towards = match &way.towards {
            Some(id) => Some(self.about(id).await?),
            None => None,
        };
        let mut lost = Loss::none();
        if let Some(about) = &towards {
            lost = self.loss(&placed(step), &looked.schema, &about.schema).await?;
            self.consented(&way.ceiling, &lost)?;
        }
        let files = match &way.files {
            Some(id) => self.unpacked(id).await?,
            None => Files::on_disk(&self.directory),
        };
        let schema = towards.as_ref().map(|about| &about.schema);
        let salvaged = match schema {
            Some(schema) if way.gives_up => self.salvage(cx, &before.key.file_name(), &looked.schema, schema).await?,
            _ => None,
        };
        let after = self.run(&self.live, way, &files.root, schema, limit).await?;
        let left = match &towards {
            Some(about) => self.loss(&placed(step), &after.schema, &about.schema).await.unwrap_or_default(),
            None => Loss::none(),
        };
        lost.rows.retain(|what, _| !left.rows.contains_key(what));
        let done = if way.up { "applied" } else { "taken back" };
        let found = format!("migration {} {done}: the database is {}", way.id, self.tool.label(&after.record.marks));
        let lost = (!lost.rows.is_empty()).then(|| Loss { other: vec![], ..lost });
        let set_aside = salvaged.iter().map(|directory| directory.display().to_string()).collect();
        Ok(Proof { lost, set_aside, ..Proof::of(found) })
    }

    fn consented(&self, ceiling: &Loss, lost: &Loss) -> Result<(), Failure> {
        if ceiling.covers(lost) {
            return Ok(());
        }
        let new: Vec<_> = lost
            .rows
            .iter()
            .filter(|(what, lost)| ceiling.rows.get(*what).is_none_or(|most| lost.total() > most.total()))
            .map(|(what, lost)| format!("{} values of {what}", lost.total()))
            .chain(lost.other.iter().filter(|what| !ceiling.other.contains(what)).cloned())
            .collect();
        let what = format!("it would give up what nobody consented to: {}", new.join(", "));
        Err(Failure::never(what).advise("plan again, so that the loss is named, and consent to it; or fix forward"))
    }

    /// All that is left of the way, and the proof that the schema is the one recorded.
    pub(super) async fn restore(
        &self,
        cx: &Cx,
        step: &Step,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: &Before,
    ) -> Result<Proof, Stop> {
        let limit = within(cx.limit);
        let made = self.captures.find(from, before, to)?;
        let made = made.ok_or_else(|| Failure::never("the step names no capture to restore from"))?;
        let about = self.about_made(made).await?;
        let capture = match from {
            Some(from) => ripcord_core::resolve(from, before),
            None => None,
        };
        let capture = capture.ok_or_else(|| Failure::never("the step names no capture to restore from"))?;
        let mut looked = self.look(&self.live).await?;
        clean(&looked)?;
        let (mut done, mut salvaged) = (vec![], None);
        if self.revision(&looked.record) != *to {
            let here = self.here(&looked, before, limit).await?;
            let there = There { about: &about, capture: &capture };
            let place = placed(step);
            // Asked for by its revision: whether what is there could have stayed was for the plan to say.
            let way = self.way(&place, &looked, &here, &there, false).await?;
            if let Some(why) = way.closed {
                return Err(Failure::never(why)
                    .advise("fix forward, or restore the database to a point before it")
                    .into());
            }
            if step.destroys != Destroys::GivesUp {
                self.consented(&Loss::none(), &way.loss)?;
            }
            salvaged = self.salvage(cx, &before.key.file_name(), &looked.schema, &about.schema).await?;
            let files = match &here.files {
                Some(id) => self.unpacked(id).await?,
                None => Files::on_disk(&self.directory),
            };
            let theirs = match way.moves.iter().any(|one| one.up) {
                true => Some(self.unpacked(&capture).await?),
                false => None,
            };
            for one in &way.moves {
                let root = theirs.as_ref().filter(|_| one.up).map_or(&files.root, |files| &files.root);
                looked = self.run(&self.live, one, root, Some(&about.schema), limit).await?;
                done.push(one.id.clone());
            }
        }
        if let Some(differs) = looked.schema.differs(&about.schema) {
            let what = format!("the database says {}, and its schema is not the one recorded: {differs}", to.short());
            let advice = "compare the schema with the recorded one by hand and decide; nothing was stamped";
            return Err(Failure::never(what).advise(advice).into());
        }
        let label = self.tool.label(&looked.record.marks);
        let how = if done.is_empty() { String::new() } else { format!(" over {}", done.join(", ")) };
        let fingerprint = looked.schema.fingerprint().short();
        let set_aside = salvaged.iter().map(|directory| directory.display().to_string()).collect();
        let found = format!("the database is {label}{how}, and its schema is the one recorded ({fingerprint})");
        Ok(Proof { set_aside, ..Proof::of(found) })
    }

    /// The files that know what is there: of a capture made earlier in this run, or on the disk.
    async fn here(&self, looked: &Looked, before: &Before, limit: Duration) -> Result<Here, Failure> {
        for id in before.captures.values() {
            if let Ok(about) = self.about(id).await
                && about.marks == looked.record.marks
                && knows(&about)
            {
                return Ok(Here::of(&about, id));
            }
        }
        Ok(Here::on_disk(layout::graph(self.tool, &self.python, &self.directory, limit).await?))
    }

    /// The project's program in a directory, with its secrets and its limits.
    pub(super) async fn at_work(
        &self,
        at: &At,
        directory: &Path,
        limit: Duration,
    ) -> Result<crate::components::tool::Tool, Failure> {
        let mut program = at.program.at(directory);
        for (name, from) in &at.environment {
            let secret = secrets::resolve(from, &self.cx.base, &self.cx.redactor).await;
            let secret = secret.map_err(|error| Failure::never(secrets::chain(&error)))?;
            program = program.with(name, secret.reveal());
        }
        let (lock, statement) = (self.lock.as_millis(), limit.as_millis());
        Ok(program
            .with("PGOPTIONS", format!("-c lock_timeout={lock} -c statement_timeout={statement}"))
            .with("PYTHONDONTWRITEBYTECODE", "1"))
    }

    /// Carries out one move, and returns what is there after it: exactly where the move leads.
    pub(super) async fn run(
        &self,
        at: &At,
        way: &Move,
        root: &Path,
        towards: Option<&Schema>,
        limit: Duration,
    ) -> Result<Looked, Stop> {
        point("migration");
        let ran = match self.tool.is_files() {
            true => self.run_file(at, way, root, limit).await,
            false => {
                let program = self.at_work(at, root, limit).await?;
                let arguments: Vec<&str> = way.arguments.iter().map(String::as_str).collect();
                program.act(&arguments, limit).await.map(drop)
            }
        };
        point("migration done");
        if let Err(stop) = ran {
            return Err(match stop {
                Stop::Failed(failure) => Stop::Failed(self.explained(at, way, failure, towards).await),
                unknown => unknown,
            });
        }
        let looked = self.look(at).await.map_err(|error| Stop::Unknown(error.to_string()))?;
        match self.revision(&looked.record) == way.to {
            true => Ok(looked),
            false => {
                let what = format!(
                    "migration {} was reported done, and the database is {}",
                    way.id,
                    self.tool.label(&looked.record.marks)
                );
                let advice = "see that the tool works on the database that `database` names";
                Err(Failure::never(what).advise(advice).into())
            }
        }
    }

    async fn run_file(&self, at: &At, way: &Move, root: &Path, limit: Duration) -> Result<(), Stop> {
        let Some(file) = &way.script else {
            return Err(Failure::never(format!("migration {} has no script for this way", way.id)).into());
        };
        let path = root.join(file);
        let script = std::fs::read_to_string(&path).trying("read", &path)?;
        let checksum: String =
            sha2::Sha384::digest(script.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let session = at.database.open(For::Acting { lock: self.lock, statement: limit }).await?;
        // Found before the script can change the search path.
        let table = session.table(&self.table).await?;
        if session.is_postgres() {
            session.run("RESET search_path").await?;
        }
        let of = Applied { version: &way.id, name: &way.name, checksum: &checksum, previous: way.previous.as_deref() };
        let recorded = record::recorded(self.tool, &table, &of, way.up, session.is_postgres());
        if needs_no_transaction(&script) {
            if let Some(begun) = record::begun(self.tool, &table, &of, way.up) {
                transaction(&session, &[&begun]).await?;
            }
            point("migration begun");
            session.run(&script).await.map_err(stop)?;
            point("migration run");
            return transaction(&session, &[&recorded]).await.map_err(|stop| match stop {
                // The script is done and nothing says so.
                Stop::Failed(failure) => Stop::Unknown(failure.what),
                unknown => unknown,
            });
        }
        transaction(&session, &[&script, &recorded]).await
    }

    /// Who may hold a lock that was not to be had.
    async fn who_locks(&self, session: &Session) -> String {
        let holders = offenders::holders(session).await;
        let who = match (session.is_postgres(), holders.is_empty()) {
            (true, true) => "no other session has a transaction open any more".to_owned(),
            (true, false) => format!("sessions with a transaction open: {}", holders.join("; ")),
            (false, _) => "another process is writing to the database".to_owned(),
        };
        format!("a lock was not had within {}: {who}", ripcord_core::human(self.lock))
    }

    /// An error of a look; where it is a lock, with who may hold it.
    pub(super) async fn blocked(&self, at: &At, error: DbError) -> DbError {
        if !error.is_locked() {
            return error;
        }
        let Ok(session) = at.database.open(self.looking()).await else { return error };
        let what = format!("it cannot be looked at: {error}; {}", self.who_locks(&session).await);
        Failure::later(what).advise("end those sessions or wait for them, then retry").into()
    }

    pub(super) fn looking(&self) -> For {
        For::Looking { lock: self.lock }
    }

    /// A failure with what stood in the way: rows that violate a rule, or who holds a lock.
    async fn explained(&self, at: &At, way: &Move, failure: Failure, towards: Option<&Schema>) -> Failure {
        let text = format!("{}\n{}", failure.what, failure.output.as_deref().unwrap_or_default());
        let mut failure = Failure { what: format!("migration {}: {}", way.id, failure.what), ..failure };
        let Ok(session) = at.database.open(self.looking()).await else { return failure };
        if offenders::is_lock(&text) {
            failure.retry = Retry::Later;
            failure.what = format!("{}; {}", failure.what, self.who_locks(&session).await);
            return failure
                .advise("end those sessions or wait for them, then retry; nothing was changed by this migration");
        }
        match offenders::rows(&session, &text, towards).await {
            Some(rows) => {
                failure.what = format!("{}; {rows}", failure.what);
                failure.advise("put these rows right, then retry; nothing was changed by this migration")
            }
            None => failure,
        }
    }
}

/// Whether the files of a capture know what its database had.
fn knows(about: &About) -> bool {
    about
        .graph
        .applied(about.tool, &about.marks)
        .is_ok_and(|applied| applied.iter().any(|id| about.graph.0.contains_key(id)))
        || about.marks.is_empty()
}

/// The place as losses name it: the ceiling was counted at the same.
fn placed(step: &Step) -> String {
    step.place.as_ref().map_or_else(String::new, ToString::to_string)
}

fn clean(looked: &Looked) -> Result<(), Failure> {
    match &looked.record.dirty {
        None => Ok(()),
        Some(why) => Err(Failure::never(format!("the schema is no revision: {why}")).advise(DIRTY)),
    }
}

fn stop(error: DbError) -> Stop {
    match error.is_in_doubt() {
        true => Stop::Unknown(error.to_string()),
        false => Stop::Failed(error.into()),
    }
}

/// Runs scripts as one change: all of them, or none.
async fn transaction(session: &Session, scripts: &[&str]) -> Result<(), Stop> {
    let begin = if session.is_postgres() { "BEGIN" } else { "BEGIN IMMEDIATE" };
    session.run(begin).await.map_err(stop)?;
    for script in scripts {
        if let Err(error) = session.run(script).await {
            // What cannot be said to the server is undone by it when the session is gone.
            let _ = session.run("ROLLBACK").await;
            return Err(stop(error));
        }
        point("migration statement");
    }
    session.run("COMMIT").await.map_err(stop)
}

impl From<DbError> for Stop {
    fn from(error: DbError) -> Self {
        stop(error)
    }
}
