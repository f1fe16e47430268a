//! The schema of a database, as migrations make it: where it is, what lies between, what each migration is to a rollback, and the way
//! down where there is one.
//!
//! A schema that code of the release gone back to runs on is left alone, unless the settings say otherwise. Where it has to go down,
//! each migration is taken back as a step of its own, by the project's own tool or, where the migrations are files of SQL, as that
//! tool would record it; with the files of the release that made it, from its capture, since the code may have been taken back
//! already. What the database's record says is never written without the schema having been moved, and a schema that is not the one
//! recorded for its head, or a migration that was begun and not finished, is for people: nothing is forced.
//! Sources: Alembic, "Commands", "Working with Branches"; Django, "django-admin and manage.py", "Writing database migrations";
//! sqlx-cli, golang-migrate, their sources; PostgreSQL manual, "Client Connection Defaults" (`lock_timeout`).

mod act; // one migration taken back or applied
mod capture; // what is kept of a release
mod catalog; // the schema of a PostgreSQL database
mod classes; // what a migration is to a rollback
mod database; // speaks to either database
mod graph; // what builds on what
mod layout; // migrations as they lie in a directory
mod offenders; // which rows stand in the way
mod record; // what the database says was applied
mod rehearse; // down and up again on a copy
mod salvage; // what is given up, for people
mod schema; // what a schema consists of
mod sql; // what a statement does
mod sqlite; // the schema of an SQLite database
mod way; // from what was seen to what is wanted

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ripcord_config::wire::{SecretFrom, Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Before, CannotPlan, Capabilities, Component, ComponentId, Cx, Draft, Failure, Fut, Held, Holds, Inventory,
    KindVersion, Layer, Observation, Outcome, Place, Proof, Readers, Revision, Seen, Step, Survey, Wanted, Wish,
};
use ripcord_vault::pattern_mistake;
use schemars::JsonSchema;
use serde::Deserialize;

use self::act::Move;
use self::database::{Database, DatabaseSettings, DbError, Table};
use self::record::{Record, Tool};
use self::schema::Schema;
use super::files::captures::Captures;
use super::files::{ReadersSetting, Stop, outcome};
use super::tool::Tool as Program;
use crate::hosts::within;
use crate::{BuildCx, BuildError, ComponentKind};

/// How long another session's lock is waited for by default.
const LOCK: Duration = Duration::from_secs(5);

/// The schema of a database, versioned by migrations.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Whose migrations these are: `alembic`, `django`, `sqlx`, `golang-migrate`, or `sql` for plain files.
    pub tool: Tool,
    /// The directory that is captured with each release, and that the tool is run in: the one with `alembic.ini` or `manage.py`, or
    /// the one with the files of SQL. A way down is run with the captured files in a directory of their own.
    pub directory: PathBuf,
    /// What in it is not part of a release (environments, uploads), as paths in which `*`, `?` and `**` may stand for names.
    #[serde(default)]
    pub except: Vec<String>,
    /// The project's tool: `[venv/bin/alembic]`, `[venv/bin/python, manage.py]`. A first word with a slash is relative to
    /// `ripcord.yaml`, the others are as the tool takes them. Not for files of SQL: those Ripcord runs itself.
    #[serde(default)]
    pub program: Vec<Text>,
    /// The interpreter that reads migrations in Python; nothing of the project is imported. Without it the `python` beside the
    /// program, else `python3`.
    #[serde(default)]
    pub python: Option<Text>,
    /// The database that the migrations are of; the tool has to work on the same.
    pub database: DatabaseSettings,
    /// Environment variables for the tool whose values are secrets, such as the address of the database.
    #[serde(default)]
    pub environment: BTreeMap<String, SecretFrom>,
    /// The tool's own table, where it does not have its usual name; `schema.name` is taken apart.
    #[serde(default)]
    pub table: Option<Text>,
    /// What a rollback does with a schema that the older code runs on: `leave` it (the default), or take it `down` all the same.
    #[serde(default)]
    pub when_rolled_back: WhenRolledBack,
    /// How long a migration may wait for another session's lock: 5 s. For Alembic and Django it is handed on in `PGOPTIONS`.
    #[serde(default)]
    pub lock_timeout: Option<Span>,
    /// What a change means for the components that need this one: `stop` before it (the default), `restart` after it, or `hot`.
    #[serde(default)]
    pub readers: Option<ReadersSetting>,
    /// Rehearses the newest migrations on a copy whenever a release is captured.
    #[serde(default)]
    pub rehearse: Option<Box<RehearseSettings>>,
}

/// A compatible schema after the code went back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenRolledBack {
    #[default]
    Leave,
    Down,
}

/// Where migrations are rehearsed: down, up and down again on a copy of the database, which is made anew each time and taken away.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RehearseSettings {
    /// The copy. It may not be the live one; whatever is there under its name is replaced.
    pub database: DatabaseSettings,
    /// Environment variables for the tool that lead it to the copy; those that are not here are as for the live one.
    #[serde(default)]
    pub environment: BTreeMap<String, SecretFrom>,
    /// How many of the newest migrations are rehearsed.
    #[serde(default = "newest")]
    pub newest: usize,
}

fn newest() -> usize {
    3
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "migrations",
        summary: "A database's schema: left alone where older code runs on it, else taken down migration by migration.",
        example: "\
tool: alembic
directory: /srv/shop/app
except: [venv]
program: [/srv/shop/venv/bin/alembic]
database:
  postgres: { host: db.example.com, database: shop, user: shop, password: { env: PGPASSWORD } }
environment:
  DATABASE_URL: { env: DATABASE_URL }
when-rolled-back: leave
lock-timeout: 5s
",
        layer: Layer::Schema,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = self.database.check("database");
        let program = self.program.first().is_some_and(|word| !word.as_str().is_empty());
        match (self.tool.is_files(), program) {
            (true, true) => mistakes
                .push(Mistake::new("files of SQL are run by Ripcord itself").at("program").help("take `program` out")),
            (false, false) => mistakes.push(
                Mistake::new("it is not said how the tool is run")
                    .at("program")
                    .help("write `[venv/bin/alembic]` or `[venv/bin/python, manage.py]`"),
            ),
            _ => {}
        }
        let patterns = self.except.iter().enumerate().filter_map(|(i, pattern)| {
            let why = pattern_mistake(pattern)?;
            Some(Mistake::new(format!("`{pattern}` can never match: {why}")).at(format!("except.{i}")))
        });
        mistakes.extend(patterns);
        if let Some(rehearse) = &self.rehearse {
            mistakes.extend(rehearse.database.check("rehearse.database"));
            if rehearse.database.postgres.is_some() != self.database.postgres.is_some() {
                let what = "a copy is of the same kind as its database";
                mistakes.push(Mistake::new(what).at("rehearse.database").help("name one of the same kind"));
            }
            if !self.tool.is_files() && rehearse.environment.is_empty() {
                let what = "nothing leads the tool to the copy";
                let help = "set the variable it finds its database by, such as `DATABASE_URL`";
                mistakes.push(Mistake::new(what).at("rehearse.environment").help(help));
            }
        }
        mistakes
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let words: Vec<String> = self.program.iter().map(ToString::to_string).collect();
        let program: Vec<String> = match words.split_first() {
            Some((first, rest)) => std::iter::once(rooted(first, &cx.base)).chain(rest.iter().cloned()).collect(),
            None => vec![],
        };
        let python = match &self.python {
            Some(python) => rooted(python.as_str(), &cx.base),
            None => beside(program.first().map_or("", String::as_str)),
        };
        let ways = |more: &BTreeMap<String, SecretFrom>| {
            let all = self.environment.iter().chain(more);
            all.map(|(name, from)| (name.clone(), from.0.clone())).collect::<BTreeMap<_, _>>()
        };
        let live = At {
            database: self.database.place(cx),
            environment: ways(&BTreeMap::new()),
            program: Program::new(&program, cx),
        };
        let rehearsal = self.rehearse.as_ref().map(|rehearse| Rehearsal {
            at: At {
                database: rehearse.database.place(cx),
                environment: ways(&rehearse.environment),
                program: Program::new(&program, cx),
            },
            newest: rehearse.newest,
        });
        Ok(Arc::new(Migrations(Arc::new(Inner {
            tool: self.tool,
            directory: cx.base.join(&self.directory),
            except: self.except.clone(),
            python: Program::new([python], cx),
            live,
            rehearsal,
            cx: cx.clone(),
            table: self.table.as_ref().map_or_else(|| self.tool.table().to_owned(), ToString::to_string),
            leave: self.when_rolled_back == WhenRolledBack::Leave,
            lock: self.lock_timeout.map_or(LOCK, Duration::from),
            readers: self.readers.unwrap_or(ReadersSetting::Stop).into(),
            captures: Captures::new(id, cx),
        }))))
    }
}

/// A program with a path is where the settings are, whatever directory it is run in.
fn rooted(program: &str, base: &Path) -> String {
    match program.contains('/') {
        true => base.join(program).display().to_string(),
        false => program.to_owned(),
    }
}

/// The interpreter in the directory of a program of an environment.
fn beside(program: &str) -> String {
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with("python") {
        return program.to_owned();
    }
    let python = Path::new(program).with_file_name("python");
    match program.contains('/') && python.exists() {
        true => python.display().to_string(),
        false => "python3".to_owned(),
    }
}

struct Migrations(Arc<Inner>);

struct Inner {
    tool: Tool,
    directory: PathBuf,
    except: Vec<String>,
    python: Program,
    live: At,
    rehearsal: Option<Rehearsal>,
    cx: BuildCx,
    table: String,
    /// Whether a compatible schema stays when the code goes back.
    leave: bool,
    lock: Duration,
    readers: Readers,
    captures: Captures,
}

/// A database, and how the project's tool gets there.
struct At {
    database: Database,
    environment: BTreeMap<String, ripcord_core::SecretRef>,
    program: Program,
}

struct Rehearsal {
    at: At,
    newest: usize,
}

/// What a look at a database found.
struct Looked {
    target: ripcord_core::TargetId,
    record: Record,
    schema: Schema,
    table: Table,
}

impl Inner {
    async fn look(&self, at: &At) -> Result<Looked, DbError> {
        match self.look_at(at).await {
            Ok(looked) => Ok(looked),
            Err(error) => Err(self.blocked(at, error).await),
        }
    }

    async fn look_at(&self, at: &At) -> Result<Looked, DbError> {
        let session = at.database.open(self.looking()).await?;
        let table = session.table(&self.table).await?;
        // One state of it, whatever is changed meanwhile.
        session.run("BEGIN").await?;
        let record = record::read(self.tool, &session, &table).await?;
        let schema = session.schema(&table).await?;
        session.run("COMMIT").await?;
        Ok(Looked { target: at.database.target(&session).await?, record, schema, table })
    }

    fn revision(&self, record: &Record) -> Revision {
        self.tool.revision(&record.marks)
    }

    async fn holds(&self, step: &Step, before: Option<&Before>) -> Result<Observation, Failure> {
        let looked = self.look(&self.live).await?;
        let is = self.revision(&looked.record);
        let mark = match &is {
            Revision::Exact(id) => id.0.clone(),
            Revision::Absent => "absent".to_owned(),
        };
        let as_before = before.is_none_or(|before| before.mark.as_deref().is_none_or(|was| was == mark));
        let holds = match (&step.action, &looked.record.dirty) {
            (Action::Restore { .. } | Action::Own { .. }, Some(why)) => Holds::Neither { found: why.clone() },
            (Action::Own { with, .. }, None) => {
                let way = Move::read(with)?;
                match () {
                    () if is == way.to => Holds::Target,
                    () if is == way.from => Holds::Origin,
                    () => {
                        Holds::Neither { found: format!("the database is {}", self.tool.label(&looked.record.marks)) }
                    }
                }
            }
            (Action::Restore { to, .. }, None) if is == *to => {
                match self.as_recorded(step, before, &looked.schema).await? {
                    None => Holds::Target,
                    Some(differs) => Holds::Neither { found: format!("the schema is not the one recorded: {differs}") },
                }
            }
            (Action::Restore { .. }, None) if !as_before => Holds::Neither {
                found: format!("it was begun and not finished: {}", self.tool.label(&looked.record.marks)),
            },
            _ => Holds::Origin,
        };
        Ok(Observation { holds, mark: Some(mark) })
    }

    /// How the schema differs from the one recorded with what a step restores to; none where it does not.
    async fn as_recorded(&self, step: &Step, before: Option<&Before>, is: &Schema) -> Result<Option<String>, Failure> {
        let Action::Restore { from: Some(from), .. } = &step.action else { return Ok(None) };
        let id = match (from, before) {
            (ripcord_core::CaptureRef::Known(id), _) => Some(id.clone()),
            (from, Some(before)) => ripcord_core::resolve(from, before),
            _ => None,
        };
        let Some(id) = id else { return Ok(None) };
        let about = self.about(&id).await?;
        Ok(is.differs(&about.schema))
    }

    async fn apply(self: &Arc<Self>, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Stop> {
        let limit = within(cx.limit);
        match &step.action {
            Action::Prove { revision, capture } => {
                let wanted = Wanted { revision: revision.clone(), capture: capture.clone() };
                Ok(self.prove(&wanted, limit).await?)
            }
            Action::Capture { .. } => Ok(self.capture(cx, before, limit).await?),
            Action::Own { with, .. } => self.one(cx, step, &Move::read(with)?, before).await,
            Action::Restore { to, from } => self.restore(cx, step, to, from.as_ref(), before).await,
            other => Err(Failure::never(format!("a schema cannot do {other:?}")).into()),
        }
    }
}

impl Component for Migrations {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: Settings::DOC.name.to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { held: Held::Vault, readers: self.0.readers, ..Capabilities::NONE }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            self.0.survey(cx, place, wanted).await.unwrap_or_else(|failure| {
                Survey::new(
                    place.clone(),
                    Seen::Unreachable { why: failure.what },
                    self.0.live.database.target_unseen(),
                )
            })
        })
    }

    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        self.0.propose(wish, seen)
    }

    fn holds<'a>(&'a self, _cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            let looked = self.0.holds(step, before).await;
            looked.unwrap_or_else(|failure| Holds::CannotTell { why: failure.what }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move { outcome(self.0.apply(cx, step, before).await) })
    }
}
