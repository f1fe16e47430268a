//! Down, up and down again on a copy, when a release is captured: what nobody tried is not known to work.
//!
//! The copy is made anew each time, and is taken away afterwards. A project's tool is asked where it is before it is told to do
//! anything: the record is hidden in the copy, and a tool that still sees it works on another database.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use ripcord_core::{Digest, Failure};
use rusqlite::backup::Backup;
use rusqlite::{Connection as Sqlite, OpenFlags};

use super::classes::{Body, Judged};
use super::database::{Database, DbError, For, Session, name};
use super::graph::Graph;
use super::record::Tool;
use super::way::single;
use super::{At, Inner, Rehearsal};
use crate::components::files::{Stop, Trying, blocking, meta, remove_file};
use crate::postgres::{Server, as_argument, literal, quoted};

/// Up to here a copy has the rows too; beyond it has the schema and the tool's record.
const WITH_ROWS: u64 = 256 << 20;
/// How a copy of ours is known: by its comment on a server, by this number in a file.
const OURS: &str = "a copy for rehearsals, made and taken away by Ripcord";
const OURS_NUMBER: i32 = 0x5269_7063;

impl Inner {
    /// Rehearses the newest migrations that have a way down, and writes what came of it into what is known of them; says it in words.
    pub(super) async fn rehearse(
        &self,
        rehearsal: &Rehearsal,
        graph: &Graph,
        marks: &BTreeSet<String>,
        judged: &mut BTreeMap<String, Judged>,
        limit: Duration,
    ) -> Result<String, Failure> {
        // A schema that a release left ahead of these files, because it serves them: there is nothing of theirs to go down by.
        let applied = match graph.applied(self.tool, marks) {
            Ok(applied) => applied,
            Err(why) => return Ok(format!("nothing can be rehearsed: {why}")),
        };
        let own: BTreeSet<String> = applied.iter().filter(|id| graph.0.contains_key(*id)).cloned().collect();
        let mut newest = graph.in_order(own.into_iter());
        newest.reverse();
        let can = |id: &String| {
            let noop = graph.0.get(id).is_some_and(|migration| matches!(migration.down, Body::Noop(_)));
            noop || judged.get(id).is_some_and(|judged| judged.way.is_open())
        };
        let tried: Vec<String> = newest.into_iter().take(rehearsal.newest).take_while(can).collect();
        if tried.is_empty() {
            return Ok("there is nothing to rehearse".to_owned());
        }
        let with_rows = self.copy(rehearsal, limit).await?;
        let done = self.on_copy(rehearsal, graph, &applied, &tried, judged, with_rows, limit).await;
        let away = self.away(rehearsal).await;
        let passed = done?;
        away?;
        if self.look(&self.live).await?.record.marks != *marks {
            return Err(Failure::never("the live database moved while its copy was rehearsed on")
                .advise("see who migrated it, and that `rehearse.environment` leads the tool to the copy alone"));
        }
        Ok(format!("{passed} of {} rehearsed on a copy", tried.len()))
    }

    #[expect(clippy::too_many_arguments, reason = "one rehearsal, told once")]
    async fn on_copy(
        &self,
        rehearsal: &Rehearsal,
        graph: &Graph,
        applied: &BTreeSet<String>,
        tried: &[String],
        judged: &mut BTreeMap<String, Judged>,
        with_rows: bool,
        limit: Duration,
    ) -> Result<usize, Failure> {
        self.sees_the_copy(&rehearsal.at, limit).await?;
        let mut applied = applied.clone();
        let mut passed = 0;
        for id in tried {
            let mut before = applied.clone();
            before.remove(id);
            let outcome = self.down_up_down(rehearsal, graph, id, &applied, &before, limit).await;
            let rows = if with_rows { "with its rows" } else { "without rows" };
            let stops = outcome.is_err();
            if let Some(judged) = judged.get_mut(id) {
                judged.rehearsed(outcome.map(|what| format!("rehearsed on a copy {rows}: {what}")));
            }
            if stops {
                break;
            }
            passed += 1;
            applied = before;
        }
        Ok(passed)
    }

    /// The three ways, with what must be the same compared after each.
    async fn down_up_down(
        &self,
        rehearsal: &Rehearsal,
        graph: &Graph,
        id: &str,
        applied: &BTreeSet<String>,
        before: &BTreeSet<String>,
        limit: Duration,
    ) -> Result<String, String> {
        let at = &rehearsal.at;
        let state = |applied: &BTreeSet<String>| self.tool.revision(&graph.marks(self.tool, applied));
        let said = |stop: Stop| match stop {
            Stop::Failed(failure) => failure.what,
            Stop::Unknown(why) => why,
        };
        let (new, old) = (state(applied), state(before));
        let missing = || format!("its files do not know `{id}`");
        let down = single(self.tool, graph, id, false, &new, &old).ok_or_else(missing)?;
        let up = single(self.tool, graph, id, true, &old, &new).ok_or_else(missing)?;
        let failed = |error: DbError| error.to_string();
        let first = self.look(at).await.map_err(failed)?.schema;
        let was = self.columns(at, &first.shared(&first)).await.map_err(failed)?;
        let lower = self.run(at, &down, &self.directory, None, limit).await.map_err(said)?.schema;
        let stays = first.shared(&lower);
        let kept = self.contents(at, &stays).await.map_err(failed)?;
        let again = self.run(at, &up, &self.directory, None, limit).await.map_err(said)?.schema;
        if let Some(differs) = again.differs(&first) {
            return Err(format!("down and up again is another schema: {differs}"));
        }
        let back = self.columns(at, &stays).await.map_err(failed)?;
        if let Some(table) = changed(&was, &back) {
            return Err(format!("rows of {table} are others after down and up again"));
        }
        let last = self.run(at, &down, &self.directory, None, limit).await.map_err(said)?.schema;
        if let Some(differs) = last.differs(&lower) {
            return Err(format!("down a second time is another schema: {differs}"));
        }
        let twice = self.contents(at, &stays).await.map_err(failed)?;
        if let Some(table) = changed(&kept, &twice) {
            return Err(format!("rows of {table} are others after down a second time"));
        }
        Ok("down, up and down again, with the schema and the rows as before".to_owned())
    }

    /// Asks a project's tool where it is, while the copy says that nothing was applied.
    async fn sees_the_copy(&self, at: &At, limit: Duration) -> Result<(), Failure> {
        if self.tool.is_files() {
            return Ok(());
        }
        let looked = self.look(at).await?;
        if !looked.table.there {
            return Ok(());
        }
        let session = at.database.open(For::Acting { lock: self.lock, statement: limit }).await?;
        let hidden = "ripcord_hides_this";
        let own = looked.table.path.last().cloned().unwrap_or_default();
        let mut there = looked.table.path.clone();
        session.run(&format!("ALTER TABLE {} RENAME TO {}", looked.table.sql(), quoted(hidden))).await?;
        let program = self.at_work(at, &self.directory, limit).await?;
        let asked: &[&str] = match self.tool {
            Tool::Django => &["showmigrations", "--plan"],
            _ => &["current"],
        };
        let said = program.ask(asked, limit).await?;
        there.pop();
        there.push(hidden.to_owned());
        session.run(&format!("ALTER TABLE {} RENAME TO {}", name(&there), quoted(&own))).await?;
        let sees = match self.tool {
            Tool::Django => said.lines().any(|line| line.trim_start().starts_with("[X]")),
            _ => looked.record.marks.iter().any(|mark| said.contains(mark.as_str())),
        };
        match sees {
            false => Ok(()),
            true => Err(Failure::never("the tool does not work on the copy, but on another database").advise(
                "set in `rehearse.environment` the variable that the project finds its database by; nothing was done",
            )),
        }
    }

    /// Makes the copy; whether the rows are in it too.
    async fn copy(&self, rehearsal: &Rehearsal, limit: Duration) -> Result<bool, Failure> {
        match (&self.live.database, &rehearsal.at.database) {
            (Database::Sqlite(live), Database::Sqlite(copy)) => {
                let (live, copy) = (live.clone(), copy.clone());
                blocking(move |_| copy_file(&live, &copy)).await??;
                Ok(true)
            }
            (Database::Postgres(live), Database::Postgres(copy)) => self.copy_database(live, copy, limit).await,
            _ => Err(Failure::never("a copy is of the same kind as its database")),
        }
    }

    async fn copy_database(&self, live: &Server, copy: &Server, limit: Duration) -> Result<bool, Failure> {
        let (from, to) = (live.way().await?, copy.way().await?);
        let session = live.connect(&from, &from.database).await?;
        let session = Session::Postgres(session);
        let ours = self.live.database.target(&session).await?;
        let target = |text: Option<String>| format!("postgres:{}/{}", text.unwrap_or_default(), to.database);
        let desk = Session::Postgres(copy.connect(&to, copy.maintenance()).await?);
        let there = target(desk.one("SELECT system_identifier FROM pg_control_system()").await?);
        if there == ours.0 {
            return Err(Failure::never("the copy to rehearse on is the live database")
                .advise("name another in `rehearse.database`"));
        }
        gone(&desk, &to.database).await?;
        let size = session.one("SELECT pg_database_size(current_database())").await?;
        let with_rows = size.and_then(|text| text.parse::<u64>().ok()).is_some_and(|bytes| bytes <= WITH_ROWS);
        let version = session.one("SELECT current_setting('server_version_num')").await?;
        let major = version.and_then(|text| text.parse::<u32>().ok()).unwrap_or_default() / 10_000;
        let table = session.table(&self.table).await?;
        let dump = live.program(&from, "pg_dump", major).await?;
        let restore = copy.program(&to, "pg_restore", dump.major).await?;
        let made = format!("CREATE DATABASE {} TEMPLATE template0", quoted(&to.database));
        desk.run(&made).await?;
        desk.run(&format!("COMMENT ON DATABASE {} IS {}", quoted(&to.database), literal(OURS))).await?;
        let scratch =
            tempfile::tempdir().map_err(|error| Failure::never(format!("no temporary directory: {error}")))?;
        let mut parts: Vec<(&str, Vec<String>)> = vec![];
        match with_rows {
            true => parts.push(("all", vec![])),
            false => {
                parts.push(("schema", vec!["--schema-only".to_owned()]));
                parts.push(("record", vec!["--data-only".to_owned(), format!("--table={}", table.sql())]));
            }
        }
        for (part, options) in parts {
            let file = scratch.path().join(part).display().to_string();
            let mut arguments = vec!["-Fc".to_owned(), "--no-password".to_owned(), "-f".to_owned(), file.clone()];
            arguments.extend(options);
            dump.ask(&arguments, limit).await?;
            let words = ["--exit-on-error", "--no-password", "--no-owner", "-d"].map(str::to_owned);
            let arguments: Vec<String> = words.into_iter().chain([as_argument(&to.database), file]).collect();
            restore.ask(&arguments, limit).await?;
        }
        Ok(with_rows)
    }

    /// What the rows say, of each table in the columns given.
    async fn contents(&self, at: &At, of: &BTreeMap<Vec<String>, Vec<String>>) -> Result<Contents, DbError> {
        let session = at.database.open(self.looking()).await?;
        let mut found = BTreeMap::new();
        for (table, columns) in of {
            found.insert((table.clone(), columns.clone()), rows(&session, table, columns).await?);
        }
        Ok(found)
    }

    /// The same of each column by itself: which columns stay is not known before the way down.
    async fn columns(&self, at: &At, of: &BTreeMap<Vec<String>, Vec<String>>) -> Result<Contents, DbError> {
        let session = at.database.open(self.looking()).await?;
        let mut found = BTreeMap::new();
        for (table, columns) in of {
            for column in columns {
                let one = vec![column.clone()];
                let said = rows(&session, table, &one).await?;
                found.insert((table.clone(), one), said);
            }
        }
        Ok(found)
    }

    /// Takes the copy away.
    async fn away(&self, rehearsal: &Rehearsal) -> Result<(), Failure> {
        match &rehearsal.at.database {
            Database::Sqlite(path) => {
                let path = path.clone();
                blocking(move |_| take_file(&path)).await?
            }
            Database::Postgres(server) => {
                let way = server.way().await?;
                let desk = Session::Postgres(server.connect(&way, server.maintenance()).await?);
                gone(&desk, &way.database).await
            }
        }
    }
}

/// Takes a copy of ours away; anything else of that name stays, and is an error.
async fn gone(desk: &Session, database: &str) -> Result<(), Failure> {
    let asked = format!(
        "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = {}",
        literal(database)
    );
    match desk.one(&asked).await?.as_deref() {
        None => Ok(()),
        Some(OURS) => Ok(desk.run(&format!("DROP DATABASE {} WITH (FORCE)", quoted(database))).await?),
        Some(_) => Err(not_ours(database)),
    }
}

fn not_ours(database: &str) -> Failure {
    Failure::never(format!("`{database}` is there and is no copy of Ripcord's: it is not replaced"))
        .advise("name a database that is not there in `rehearse.database`")
}

fn copy_file(live: &Path, copy: &Path) -> Result<(), Failure> {
    take_file(copy)?;
    let part = copy.with_extension("part");
    remove_file(&part)?;
    let made = || -> Result<(), rusqlite::Error> {
        let from = Sqlite::open_with_flags(live, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut to = Sqlite::open(&part)?;
        Backup::new(&from, &mut to)?.run_to_completion(1000, Duration::from_millis(1), None)?;
        to.pragma_update(None, "journal_mode", "DELETE")?;
        to.pragma_update(None, "application_id", OURS_NUMBER)
    };
    made().map_err(|error| Failure::never(format!("{} could not be copied: {error}", live.display())))?;
    std::fs::rename(&part, copy).trying("rename", &part)?;
    Ok(())
}

fn take_file(copy: &Path) -> Result<(), Failure> {
    if meta(copy)?.is_none() {
        return Ok(());
    }
    let number = Sqlite::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|db| db.query_row("PRAGMA application_id", [], |row| row.get::<_, i32>(0)));
    if number.ok() != Some(OURS_NUMBER) {
        return Err(not_ours(&copy.display().to_string()));
    }
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut path = copy.as_os_str().to_owned();
        path.push(suffix);
        remove_file(Path::new(&path))?;
    }
    Ok(())
}

/// By table and columns, a digest of the rows in no order.
type Contents = BTreeMap<(Vec<String>, Vec<String>), String>;

async fn rows(session: &Session, table: &[String], columns: &[String]) -> Result<String, DbError> {
    let list = columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
    let from = name(table);
    if session.is_postgres() {
        let asked = format!(
            "SELECT count(*) || ':' || coalesce(md5(string_agg(h, '' ORDER BY h COLLATE \"C\")), '') \
             FROM (SELECT md5(ROW({list})::text) AS h FROM {from}) rows"
        );
        return Ok(session.one(&asked).await?.unwrap_or_default());
    }
    let mut rows = session.query(&format!("SELECT {list} FROM {from}")).await?;
    rows.sort();
    Ok(Digest::of_value(&rows).to_string())
}

/// The first table whose rows are not as they were; what only one of the two knows is not compared.
fn changed(was: &Contents, is: &Contents) -> Option<String> {
    let other = was.iter().find(|(of, rows)| is.get(*of).is_some_and(|now| now != *rows));
    other.map(|((table, _), _)| table.join("."))
}
