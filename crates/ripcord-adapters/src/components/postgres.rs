//! A PostgreSQL database: captured while it is in use, restored beside the live one and exchanged with it by name.
//!
//! The live database is never loaded into and never dropped. A restore builds a new one, compares it with what was captured, and
//! only then, in one transaction that keeps newcomers waiting and ends the sessions there are, gives the live one another name,
//! `<db>_before_<run>`, and the new one its name: at each instant there is one whole database under the live name, old or new.
//! The rows that the former database has and the restored one lacks are written to `<db>.salvage-<run>/`.
//! Where a capture holds no dump, or a moment after it is wanted, the rows come from the server's own archive: a throw-away server
//! is recovered beside, dumped and gone, and all else is the same.
//! Source: PostgreSQL manual, ALTER DATABASE: the current database cannot be renamed, so the exchange is made from another one;
//! `dbcommands.c`, RenameDatabase: the lock it takes is the one every new session waits for.

mod act; // the steps
mod archive; // base backups and the segments of the log
mod attend; // one work on a database at a time
mod capture; // a dump that is whole, and what it must turn out to be
mod catalog; // what the server says of a database
mod compare; // the rows one database has and another lacks
mod facts; // what is recorded beside a dump
mod loss; // what going back would lose, by the server's statistics
mod names; // names of ours beside the live one
mod preflight; // whether it can be done, asked beforehand
mod reach; // whether the archive reaches a moment
mod recover; // a recovery, from being fit for it to a dump
mod restore; // the new database, built beside
mod salvage; // what is given up, for people
mod schema; // what is defined in a database, comparable
mod side; // a throw-away server, recovered to a moment
mod source; // where the rows of a restore come from
mod swap; // the exchange of names
mod upkeep; // databases that were kept long enough

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{
    Action, Available, Before, CannotPlan, Capabilities, CaptureRef, Component, ComponentId, Cx, Destroys, Draft,
    Failure, Fut, Held, Holds, Inventory, KindVersion, Layer, Limits, Nature, Observation, Outcome, Phase, Place,
    Readers, Redo, Revision, Seen, Shown, Step, Survey, TargetId, Want, Wanted, Wish,
};
use schemars::JsonSchema;
use serde::Deserialize;

use self::archive::ArchiveSettings;
use self::catalog::{Listed, State, System};
use self::reach::Archive;
use super::files::captures::Captures;
use super::files::{ReadersSetting, Stop, outcome};
use crate::postgres::{Connection, PgError, Server, Session, Way};
use crate::{BuildCx, BuildError, ComponentKind};

/// How far captures of it are proven.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProveSetting {
    /// Restored to a scratch database, which is compared with what was captured.
    #[default]
    Restored,
    /// Read back, and its table of contents listed: for databases that take longer to restore than there is time.
    Listed,
}

/// A PostgreSQL database. A restore keeps the one it replaces on the server as `<db>_before_<run>`, as long as anything set aside is.
/// The rows it gives up are written to `<db>.salvage-<run>/` and stay there until a person takes them away: they are the users'.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The server and the database. The role needs to be a superuser, or to have the rights that docs/postgres.md lists.
    pub connection: Connection,
    /// What a restore means for the components that need this one: `stop` before it (the default), `restart` after it, or `hot`.
    #[serde(default)]
    pub readers: Option<ReadersSetting>,
    /// The directory for salvaged rows, and for a capture while it is being restored; relative to `ripcord.yaml`, which is in it by
    /// default.
    #[serde(default)]
    pub salvage: Option<PathBuf>,
    /// How far a capture is proven before anything relies on it: `restored` (the default) or `listed`.
    #[serde(default)]
    pub prove: ProveSetting,
    /// The server's archive of its write-ahead log, where this machine has it: a way back to captures without a dump, and to moments
    /// between captures.
    #[serde(default)]
    pub archive: Option<ArchiveSettings>,
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "postgres",
        summary: "A PostgreSQL database: consistent online captures, restored beside and exchanged by name, with the rows given up salvaged.",
        example: "\
connection:
  host: localhost
  database: shop
  user: ripcord
  password: { env: PGPASSWORD }
readers: stop
",
        layer: Layer::Data,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = self.connection.check("connection");
        mistakes.extend(self.archive.iter().flat_map(|archive| archive.check("archive")));
        mistakes
    }

    fn nature(&self) -> Nature {
        Nature::Flowing
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let directory = self.salvage.clone().unwrap_or_else(|| PathBuf::from("."));
        Ok(Arc::new(Postgres {
            server: Server::new(&self.connection, cx),
            directory: cx.base.join(directory),
            readers: self.readers.unwrap_or(ReadersSetting::Stop).into(),
            prove: self.prove,
            archive: self.archive.as_ref().map(|archive| Archive::new(archive, cx)),
            keep: cx.keep_aside,
            captures: Captures::new(id, cx),
        }))
    }
}

struct Postgres {
    server: Server,
    directory: PathBuf,
    readers: Readers,
    prove: ProveSetting,
    archive: Option<Archive>,
    keep: Duration,
    captures: Captures,
}

/// What one call works with: a way to the server, and a session beside the database it is about.
struct Desk {
    way: Way,
    control: Session,
    system: System,
}

/// The database as it was found.
struct Found {
    listed: Listed,
    /// And its revision; or why it cannot be said: nobody may connect to it, or it is damaged.
    state: Result<(State, Revision), String>,
}

impl Found {
    fn revision(&self) -> Option<&Revision> {
        self.state.as_ref().ok().map(|(_, revision)| revision)
    }
}

impl Component for Postgres {
    fn kind(&self) -> KindVersion {
        KindVersion { kind: "postgres".to_owned(), major: 1, minor: 0 }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            nature: Nature::Flowing,
            held: Held::Vault,
            restore: Destroys::SetAside { keep: self.keep },
            readers: self.readers,
            ..Capabilities::NONE
        }
    }

    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            self.look_at(cx, place, wanted).await.unwrap_or_else(|failure| {
                let target = TargetId(format!("postgres:{}", self.server.shown()));
                Survey::new(place.clone(), Seen::Unreachable { why: self.server.clean(&failure.what) }, target)
            })
        })
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
        let name = self.server.shown();
        let words = match (revision, capture) {
            (Revision::Absent, _) => format!("take {name} away, and keep it"),
            (_, None) => return Err(cannot("no capture holds it")),
            (_, Some(capture)) => {
                let rows = survey.losses.iter().find(|(id, _)| id == capture).map_or(0, |(_, loss)| loss.total_rows());
                let until =
                    self.until().map_or(String::new(), |moment| format!(", gone on to {moment} from the archive,"));
                format!(
                    "restore {name} from {capture}{until} beside the live one, end all sessions, exchange the two by name, keep the \
                     former, and write the {rows} rows changed since to files"
                )
            }
        };
        // What it is reckoned to take says little on a busy machine, and an overrun would leave it to be done again.
        let call = survey.reckoned.unwrap_or_default() * 6;
        let call = call.clamp(Duration::from_secs(900), Duration::from_secs(24 * 3600));
        Ok(vec![Draft {
            phase: Phase::Restore,
            action: Action::Restore { to: revision.clone(), from: capture.clone().map(CaptureRef::Known) },
            destroys: Destroys::SetAside { keep: self.keep },
            redo: Redo::Safe,
            limits: Limits { call, total: call * 3, tries: 3 },
            shown: Shown { words, commands: vec![] },
        }])
    }

    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move {
            self.observe(cx, &step.action, before)
                .await
                .unwrap_or_else(|failure| Holds::CannotTell { why: self.server.clean(&failure.what) }.into())
        })
    }

    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move {
            match outcome(self.act(cx, step, before).await) {
                Outcome::Failed(failure) => Outcome::Failed(Failure {
                    what: self.server.clean(&failure.what),
                    output: failure.output.map(|output| self.server.clean(&output)),
                    ..failure
                }),
                Outcome::Unknown { why } => Outcome::Unknown { why: self.server.clean(&why) },
                done @ Outcome::Done(_) => done,
            }
        })
    }

    fn tidy<'a>(&'a self, cx: &'a Cx, place: &'a Place, before: Timestamp) -> Fut<'a, Result<Vec<String>, Failure>> {
        Box::pin(self.sweep(cx, place, before))
    }
}

impl From<PgError> for Stop {
    fn from(error: PgError) -> Self {
        Self::Failed(error.into())
    }
}

impl Desk {
    fn database(&self) -> &str {
        &self.way.database
    }

    fn target(&self) -> TargetId {
        TargetId(format!("postgres:{}/{}", self.system.identifier, self.way.database))
    }
}

impl Postgres {
    async fn desk(&self) -> Result<Desk, PgError> {
        let way = self.server.way().await?;
        let control = self.server.connect(&way, self.server.maintenance()).await?;
        let system = catalog::system(&control).await?;
        Ok(Desk { way, control, system })
    }

    /// The live database; none where there is none.
    async fn find(&self, desk: &Desk) -> Result<Option<Found>, PgError> {
        let Some(listed) = catalog::find(&desk.control, desk.database()).await? else { return Ok(None) };
        if !listed.allows {
            return Ok(Some(Found { listed, state: Err("the database allows no connections".to_owned()) }));
        }
        let looking = async {
            let session = self.server.connect(&desk.way, desk.database()).await?;
            let state = catalog::state(&session).await;
            session.close().await;
            state
        };
        let state = match looking.await {
            Ok(state) => {
                let revision = self.revision_of(&listed, &state, &desk.system);
                Ok((state, revision))
            }
            // The server answers, and only this database of it does not: that it can be replaced is what we are for.
            Err(error @ (PgError::Said { .. } | PgError::Odd { .. })) => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        Ok(Some(Found { listed, state }))
    }

    /// What it was restored to, if nothing was written to it since; else what its state says. One that has gone on to another moment
    /// than settings name now is not there yet; once they name none, it is where it was taken.
    fn revision_of(&self, listed: &Listed, state: &State, system: &System) -> Revision {
        let until = self.until();
        match listed.restored() {
            Some(restored) if restored.state == state.digest() && (until.is_none() || restored.until == until) => {
                restored.revision
            }
            _ => state.revision(&system.identifier),
        }
    }

    /// The moment that restores go on to.
    fn until(&self) -> Option<String> {
        self.archive.as_ref()?.until.map(|until| until.to_string())
    }
}

/// The directory where a run's salvage goes, and a capture while it is restored.
fn beside(directory: &std::path::Path, database: &str, suffix: &str) -> PathBuf {
    // A database's name can be anything, and a file's cannot.
    let plain: String =
        database.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let plain = plain.trim_start_matches('.');
    let name = match plain == database {
        true => plain.to_owned(),
        false => format!("{plain}-{}", &ripcord_core::Digest::of(database.as_bytes()).hex()[..8]),
    };
    directory.join(format!("{name}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_stay_beside_whatever_the_database_is_called() {
        let at = |name: &str| beside(std::path::Path::new("/srv"), name, ".salvage-run-1").display().to_string();
        assert_eq!(at("shop"), "/srv/shop.salvage-run-1");
        assert!(at("../etc").starts_with("/srv/-etc-"), "{}", at("../etc"));
        assert_ne!(at("a b"), at("a\"b"));
    }
}
