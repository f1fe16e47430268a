//! Captures: a dump of one moment, streamed into the vault, with what it must turn out to be read in the same snapshot.
//!
//! `pg_dump` takes the snapshot that our session exported, so that counts, structure and rows are of one moment; the vault
//! compresses and finds what did not change, which a dump that is compressed already would hide. The dump counts when `pg_dump`
//! said that it ended well, the vault gave it back byte for byte, and `pg_restore` lists every table in what came back.

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use ripcord_core::{Before, CapturePurpose, Cx, Digest, Failure, Made, Proof, Revision};
use ripcord_vault::{Manifest, Source};
use tokio::sync::mpsc;

use super::archive::Holding;
use super::catalog::{self, State};
use super::facts::{self, ABOUT, About, DUMP};
use super::reach::is_point;
use super::source::arriving;
use super::{Desk, Postgres, preflight, schema};
use crate::components::disk::room;
use crate::components::files::captures::{self, vault_failure};
use crate::components::files::{blocking, point, remove_file};
use crate::hosts::{Take, within};
use crate::postgres::{Ended, PgError, Program, Session, argument, as_argument};

/// How long `pg_dump` waits for a table that somebody has locked.
const LOCKED: &str = "--lock-wait-timeout=60s";

impl Postgres {
    pub(super) async fn capture(&self, cx: &Cx, purpose: CapturePurpose, before: &Before) -> Result<Proof, Failure> {
        let desk = self.desk().await?;
        let Some(listed) = catalog::find(&desk.control, desk.database()).await? else {
            let absent = vec![Source::Bytes { path: "absent".to_owned(), bytes: vec![], mode: 0o600 }];
            let manifest = self.store(cx, before, absent).await?;
            let made = captures::made(Revision::Absent, None, &manifest)?;
            return Ok(Proof { capture: Some(made), ..Proof::of(format!("{} is absent", self.server.shown())) });
        };
        let session = self.server.connect(&desk.way, desk.database()).await?;
        preflight::readable(&session).await?;
        let program = self.server.program(&desk.way, "pg_dump", desk.system.major()).await?;
        // Before the snapshot: what is written in between makes the next state another one, and is never taken for captured.
        let state = catalog::state(&session).await?;
        let revision = self.revision_of(&listed, &state, &desk.system);
        let restore_point = restore_point(&desk, before).await;
        let question = format!("SELECT {}::text", position(&desk));
        let row = session.query_one(&question, &[]).await.map_err(PgError::from)?;
        let lsn: String = row.get(0);
        session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(PgError::from)?;
        let row = session.query_one("SELECT pg_export_snapshot()", &[]).await.map_err(PgError::from)?;
        let snapshot: String = row.get(0);
        let mut about = described(&desk, &session, state, revision, program.major).await?;
        // Nothing of anybody's is in the log between the two, and nobody had anything in hand.
        about.quiet = about.lsn == lsn && about.state.unsettled.is_none();
        about.restore_point = restore_point;
        about.bytes = listed.bytes;
        let text = serde_json::to_vec(&about).map_err(|error| Failure::never(error.to_string()))?;
        let about_it = Source::Bytes { path: ABOUT.to_owned(), bytes: text, mode: 0o600 };
        point("capture");
        let (manifest, also) = match &self.archive {
            Some(archive) if archive.captures == Holding::Point => {
                session.close().await;
                // It is only a capture where the archive has all of it.
                let route = self.way_to(&desk, &about, None, arriving(cx)).await?;
                (self.store(cx, before, vec![about_it]).await?, format!(", without a dump: {}", route.words()))
            }
            archive => {
                let manifest = self.dump(cx, &desk, &program, &snapshot, about_it, before).await?;
                session.close().await;
                let also = match archive {
                    None => String::new(),
                    Some(_) => match self.way_to(&desk, &about, None, arriving(cx)).await {
                        Ok(route) => format!(", and to be had by {}", route.words()),
                        Err(failure) => format!("; not to be had from the archive: {}", failure.what),
                    },
                };
                (manifest, also)
            }
        };
        let made = captures::made(about.revision.clone(), Some(about.label()), &manifest)?;
        if purpose == CapturePurpose::Protective && !is_point(&made) {
            let file = self.unpacked(&made, &before.key.file_name()).await?;
            self.listed(&desk, &about, &file.0).await?;
        }
        let point = about.restore_point.map_or(String::new(), |name| format!(", restore point {name}"));
        let label = made.label.clone().unwrap_or_default();
        let found = format!("{} captured and read back: {label}{point}{also}", desk.database());
        Ok(Proof { capture: Some(made), ..Proof::of(found) })
    }

    /// Streams a dump of the exported snapshot into the vault.
    async fn dump(
        &self,
        cx: &Cx,
        desk: &Desk,
        program: &Program,
        snapshot: &str,
        about_it: Source,
        before: &Before,
    ) -> Result<Manifest, Failure> {
        let arguments = [
            "--format=custom".to_owned(),
            "--compress=0".to_owned(),
            "--no-password".to_owned(),
            LOCKED.to_owned(),
            format!("--snapshot={snapshot}"),
            format!("--dbname={}", as_argument(desk.database())),
        ];

        let (pieces, read) = mpsc::channel(8);
        let (ended, told) = std::sync::mpsc::channel::<Result<(), String>>();
        let finish = move || told.recv().unwrap_or_else(|_| Err("the call was given up".to_owned()));
        let reader = Box::new(Pieces { read, left: vec![], at: 0 });
        let dump = Source::Producer { path: DUMP.to_owned(), mode: 0o600, reader, finish: Box::new(finish) };
        let dumping = async {
            let how = program.run(&arguments, within(cx.limit), Take::Pass(pieces)).await;
            let verdict = match &how {
                Ended::Well { .. } => Ok(()),
                Ended::Badly(failure) => Err(failure.what.clone()),
            };
            let _ = ended.send(verdict);
            how
        };
        let (dumped, stored) = tokio::join!(dumping, self.store(cx, before, vec![dump, about_it]));
        if let Ended::Badly(failure) = dumped {
            // Where the vault gave up first, `pg_dump` ended because nobody read it any more.
            return Err(stored.err().filter(|stored| !stored.what.contains(&failure.what)).unwrap_or(failure));
        }
        stored
    }

    async fn store(&self, cx: &Cx, before: &Before, sources: Vec<Source>) -> Result<Manifest, Failure> {
        let (captures, cx, key) = (self.captures.clone(), cx.clone(), before.key.clone());
        blocking(move |_| captures.store(&cx, &key, "the present state", sources)).await?
    }

    /// The dump of a capture as a file, whole and checked; gone when what is returned is dropped.
    pub(super) async fn unpacked(&self, made: &Made, name: &str) -> Result<Unpacked, Failure> {
        let path = super::beside(&self.directory, &self.server.shown(), &format!(".ripcord-{name}"));
        let (captures, made, directory) = (self.captures.clone(), made.clone(), self.directory.clone());
        let work = move || -> Result<Unpacked, Failure> {
            room(&directory, "the capture, while it is restored,", made.bytes, 1)?;
            remove_file(&path)?;
            point("unpack");
            let manifest = captures::manifest(&made)?;
            captures
                .vault()?
                .restore_file(&manifest, DUMP, &path, Some(0o600))
                .map_err(|error| vault_failure(&error))?;
            point("unpacked");
            Ok(Unpacked(path))
        };
        blocking(move |_| work()).await?
    }

    /// Sees that `pg_restore` can read a dump, and finds every captured table's rows in it.
    pub(super) async fn listed(&self, desk: &Desk, about: &About, dump: &Path) -> Result<usize, Failure> {
        let program = self.server.program(&desk.way, "pg_restore", about.dumped_by).await?;
        let list = program.ask(&["--list".to_owned(), argument(dump)], Duration::from_secs(120)).await?;
        let missing: Vec<&String> = about.tables.keys().filter(|name| !has_rows_of(&list, name)).take(5).collect();
        match missing.is_empty() {
            true => Ok(about.tables.len()),
            false => Err(Failure::never(format!("the dump does not have the rows of {missing:?}"))
                .advise("choose another capture")),
        }
    }
}

/// A dump put where `pg_restore` can read it.
pub(super) struct Unpacked(pub(super) std::path::PathBuf);

impl Drop for Unpacked {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a capture that was unpacked stays");
        }
    }
}

/// A line of the list: `3318; 0 16385 TABLE DATA public orders shop`.
fn has_rows_of(list: &str, table: &str) -> bool {
    // Dots may be in the names too, and control characters are not printed as they are.
    let wanted = format!(" {} ", spaced(table));
    list.lines().any(|line| line.split_once(" TABLE DATA").is_some_and(|(_, rest)| spaced(rest).starts_with(&wanted)))
}

fn spaced(text: &str) -> String {
    text.chars().map(|c| if c == '.' || c.is_control() { ' ' } else { c }).collect()
}

/// Names the moment in the write-ahead log, for those who restore from it. Not every role may, and nothing depends on it.
async fn restore_point(desk: &Desk, before: &Before) -> Option<String> {
    if desk.system.standby {
        return None;
    }
    let name = format!("ripcord_{}", &Digest::of(before.key.to_string().as_bytes()).hex()[..16]);
    let made = desk.control.query_one("SELECT pg_create_restore_point($1)::text", &[&name]).await;
    match made {
        Ok(_) => Some(name),
        Err(error) => {
            tracing::debug!(error = %PgError::from(error), "no restore point was made");
            None
        }
    }
}

/// Where the server is in its log, in SQL.
fn position(desk: &Desk) -> &'static str {
    match desk.system.standby {
        true => "coalesce(pg_last_wal_replay_lsn(), '0/0')",
        false => "pg_current_wal_insert_lsn()",
    }
}

async fn described(
    desk: &Desk,
    session: &Session,
    state: State,
    revision: Revision,
    dumped_by: u32,
) -> Result<About, PgError> {
    // What the last checkpoint says lags behind a promotion.
    let timeline = match desk.system.standby {
        true => "(SELECT timeline_id FROM pg_control_checkpoint())",
        false => "('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int4",
    };
    let question = format!("SELECT {}::text, {timeline}", position(desk));
    let at = session.query_one(&question, &[]).await?;
    let lines = schema::lines(session).await?;
    let (structure, _) = schema::prints(&lines);
    Ok(About {
        version: 1,
        system: desk.system.identifier.clone(),
        database: desk.database().to_owned(),
        server: desk.system.version,
        dumped_by,
        lsn: at.try_get(0)?,
        timeline: at.try_get(1)?,
        quiet: false,
        restore_point: None,
        revision,
        bytes: 0,
        attributes: catalog::attributes(&desk.control, &desk.system, desk.database()).await?,
        extensions: facts::extensions(session).await?,
        roles: facts::roles(session).await?,
        tables: facts::rows(session).await?,
        structure,
        lines: lines.into_iter().map(|(line, _)| line).filter(|line| !line.is_empty()).collect(),
        state,
    })
}

/// What comes through a channel, as a reader for the vault's thread.
struct Pieces {
    read: mpsc::Receiver<Vec<u8>>,
    left: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.left.len() {
            let Some(piece) = self.read.blocking_recv() else { return Ok(0) };
            (self.left, self.at) = (piece, 0);
        }
        let n = buffer.len().min(self.left.len() - self.at);
        buffer[..n].copy_from_slice(&self.left[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_in_the_list_by_its_whole_name() {
        let list = "; Dumped\n3318; 0 16385 TABLE DATA public orders shop\n3319; 0 16390 TABLE DATA a.b c d shop\n";
        assert!(has_rows_of(list, "public.orders"));
        assert!(has_rows_of(list, "a.b.c d"));
        assert!(!has_rows_of(list, "public.order"));
        assert!(!has_rows_of(list, "orders.public"));
    }
}
