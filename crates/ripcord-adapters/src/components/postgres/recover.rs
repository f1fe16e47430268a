//! A recovery: whether it can be done here, and the database dumped from a server beside that was led to the moment.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ripcord_core::{Cx, Failure, Key};
use tokio::time::Instant;

use super::archive::Moment;
use super::capture::Unpacked;
use super::facts::About;
use super::reach::{Archive, Route};
use super::side::{BEHIND_SIDE, ENDING, PORT, SOCKET, Side};
use super::{Desk, Postgres, side};
use crate::components::disk::room;
use crate::components::files::{FileError, Owner, Trying, blocking, point, remove_file};
use crate::hosts::{Take, within};
use crate::postgres::{Ended, PgError, Program, Session, Way, argument, as_argument};

/// How many segments of the log a server beside keeps before it forgets those that it has gone through.
const KEPT: u64 = 32;

/// What a recovery needs, found before it is begun.
pub(super) struct Fit {
    postgres: Program,
    verify: Program,
    /// Whom it runs as: the owner of the archive's files, where we are root, whom a server refuses to run as.
    user: Option<Owner>,
    /// Settings of the live server that what is recovered may not be larger than.
    limits: String,
}

impl Postgres {
    /// Whether a recovery can be done here; `about` is of the capture, and `directory` takes the dump of what is recovered.
    pub(super) async fn fit(&self, desk: &Desk, about: &About, route: &Route, limit: Duration) -> Result<Fit, Failure> {
        let archive = self.with_archive()?;
        let spaces = desk
            .control
            .query_one("SELECT count(*) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')", &[])
            .await
            .map_err(PgError::from)?;
        if spaces.get::<_, i64>(0) > 0 {
            let what = "the server has tablespaces of its own, which a server beside it would write to as well";
            return Err(Failure::never(what).advise("restore from a capture that holds a dump"));
        }
        if !archive.side.is_dir() {
            let what = format!("{} is no directory, and a server beside is made in it", archive.side.display());
            return Err(Failure::never(what).advise("make it, on a disk with as much room as a base backup"));
        }
        let longest = SOCKET - BEHIND_SIDE;
        let place = fs::canonicalize(&archive.side).trying("find", &archive.side)?;
        if place.as_os_str().len() > longest {
            let what = format!("the path {} is too long for a socket in it", place.display());
            return Err(Failure::never(what).advise(format!("name a directory of at most {longest} bytes as `side`")));
        }
        let log = route.wal_bytes().min(route.log.segment_bytes * (KEPT + 8));
        room(&place, "the server beside", route.base.bytes + log, 2000)?;
        room(&self.directory, "the dump of what is recovered", about.bytes.unsigned_abs(), 1)?;
        let major = route.base.major;
        let postgres = self.exactly(desk, "postgres", major).await?;
        let verify = self.exactly(desk, "pg_verifybackup", major).await?;
        let user = side::user(&archive.directory.join(route.log.name(route.segments.0)))?;
        self.allowed(archive, route, &place, user, limit).await?;
        let names = ["max_connections", "max_prepared_transactions", "max_locks_per_transaction"];
        let question =
            "SELECT string_agg(format(E'%s = %s\\n', name, setting), '') FROM pg_settings WHERE name = ANY($1)";
        let row = desk.control.query_one(question, &[&names.as_slice()]).await.map_err(PgError::from)?;
        Ok(Fit { postgres, verify, user, limits: row.get(0) })
    }

    /// A program of the server's own major: no other reads its files.
    async fn exactly(&self, desk: &Desk, name: &str, major: u32) -> Result<Program, Failure> {
        let found = self.server.program(&desk.way, name, major).await?;
        match found.major == major {
            true => Ok(found),
            false => Err(Failure::never(format!("there is no `{name}` of PostgreSQL {major} here"))
                .advise("install the server's package of that version, or say where it is with `programs`")),
        }
    }

    /// Whether the user that the server runs as may read the archive and get to its own directory.
    async fn allowed(
        &self,
        archive: &Archive,
        route: &Route,
        place: &Path,
        user: Option<Owner>,
        limit: Duration,
    ) -> Result<(), Failure> {
        let last = archive.directory.join(route.log.name(route.segments.1));
        let (place, last) = (place.display().to_string(), last.display().to_string());
        let test = ["test", "-x", &place, "-a", "-r", &last];
        let mut command = side::as_user(user);
        command.args(test).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| {
            Failure::never(format!("`setpriv` cannot be run: {error}")).advise("install util-linux")
        })?;
        let status = side::waited(&mut child, limit.min(ENDING)).await;
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        let who =
            user.map_or("the user that Ripcord runs as".to_owned(), |(uid, _)| format!("the user with number {uid}"));
        Err(Failure::never(format!("{who} may not read {last}, or not enter {place}"))
            .advise("the server beside runs as that user: give it the right to both"))
    }

    /// Recovers the cluster to the route's moment on a server beside, and dumps the database from there.
    pub(super) async fn recovered(
        &self,
        desk: &Desk,
        cx: &Cx,
        about: &About,
        route: &Route,
        name: &str,
        key: &Key,
    ) -> Result<Unpacked, Failure> {
        let archive = self.with_archive()?;
        let fit = self.fit(desk, about, route, cx.limit).await?;
        let deadline = Instant::now() + within(cx.limit);
        let mut side = self.raised(desk, archive, route, fit, key, deadline).await?;
        let way = desk.way.at_socket(&side.work, PORT);
        let dumping = async {
            self.recovery_ended(&mut side, &way, route, deadline).await?;
            self.dumped(&way, about, cx, name).await
        };
        let dumped = dumping.await;
        let ended = side.end().await;
        let dump = dumped?;
        ended?;
        Ok(dump)
    }

    /// Copies the base backup, checks the copy, and starts a server on it.
    async fn raised(
        &self,
        desk: &Desk,
        archive: &Archive,
        route: &Route,
        fit: Fit,
        key: &Key,
        deadline: Instant,
    ) -> Result<Side, Failure> {
        let place = fs::canonicalize(&archive.side).trying("find", &archive.side)?;
        let work = place.join(side::name(desk, key));
        let wal = fs::canonicalize(&archive.directory).trying("find", &archive.directory)?;
        let (at, base, user, config) = (work.clone(), route.base.path.clone(), fit.user, config(route, &fit.limits));
        side::clear(&work).await?;
        let copying = blocking(move |halt| -> Result<(), FileError> {
            point("side");
            side::directory(&at, user)?;
            point("side copy");
            side::copy(&base, &at.join("data"), user, halt)
        });
        let made = async {
            copying.await??;
            point("side verify");
            let verify = vec!["--no-parse-wal".to_owned(), "--exit-on-error".to_owned(), argument(&work.join("data"))];
            let limit = deadline.saturating_duration_since(Instant::now());
            if let Ended::Badly(failure) = fit.verify.run(&verify, limit, Take::Keep).await {
                let what = format!("the base backup `{}` is damaged: {}", route.base.name(), failure.what);
                return Err(Failure { what, ..failure }
                    .advise("take it out of the directory of base backups, so that an older one is used"));
            }
            point("side config");
            side::configure(&work, &wal, &config, user)?;
            point("side start");
            side::start(&work, &fit.postgres.path, user)
        };
        match made.await {
            Ok(server) => Ok(Side { work, server }),
            Err(failure) => {
                if let Err(error) = side::clear(&work).await {
                    tracing::warn!(error = error.what, "what a recovery had begun stays");
                }
                Err(failure)
            }
        }
    }

    /// Waits until the server has come to the moment and lets sessions in.
    async fn recovery_ended(
        &self,
        side: &mut Side,
        way: &Way,
        route: &Route,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut pause = Duration::from_millis(20);
        loop {
            if side.has_ended() {
                let what = format!("the recovery to {} ended badly: {}", route.words(), side.said());
                return Err(Failure::never(what).advise("the live database was not touched; see what it says"));
            }
            match self.server.connect(way, self.server.maintenance()).await {
                Ok(session) => return arrived(session, route).await,
                Err(error @ (PgError::Unreachable { .. } | PgError::Broken { .. })) => {
                    if Instant::now() + pause >= deadline {
                        let what = format!("the recovery to {} did not end in time ({error})", route.words());
                        return Err(Failure::later(what).advise("a newer base backup has less to go through"));
                    }
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    async fn dumped(&self, way: &Way, about: &About, cx: &Cx, name: &str) -> Result<Unpacked, Failure> {
        let program = self.server.program(way, "pg_dump", about.server.unsigned_abs() / 10_000).await?;
        let path = super::beside(&self.directory, &self.server.shown(), &format!(".ripcord-{name}"));
        remove_file(&path)?;
        point("side dump");
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).trying("create", &path)?;
        let dump = Unpacked(path);
        let arguments = [
            "--format=custom".to_owned(),
            "--compress=0".to_owned(),
            "--no-password".to_owned(),
            format!("--file={}", argument(&dump.0)),
            format!("--dbname={}", as_argument(&way.database)),
        ];
        match program.run(&arguments, within(cx.limit), Take::Keep).await {
            Ended::Well { .. } => Ok(dump),
            Ended::Badly(failure) => {
                Err(Failure { what: format!("of what was recovered: {}", failure.what), ..failure })
            }
        }
    }
}

/// A server that lets sessions in has ended its recovery; one that could not get to the moment has ended itself.
async fn arrived(session: Session, route: &Route) -> Result<(), Failure> {
    let question = "SELECT pg_is_in_recovery(), system_identifier::text FROM pg_control_system()";
    let row = session.query_one(question, &[]).await.map_err(PgError::from)?;
    let (recovering, system): (bool, String) = (row.get(0), row.get(1));
    session.close().await;
    match !recovering && system == route.base.system {
        true => Ok(()),
        false => Err(Failure::never("the server beside is not what was recovered")),
    }
}

/// What the server is told. Sessions are let in only once the recovery is over, so no setting has to be as large as the live server's
/// but these; and nothing of it has to last.
fn config(route: &Route, limits: &str) -> String {
    let target = match route.moment {
        Moment::At(lsn) => format!("recovery_target_lsn = '{lsn}'\nrecovery_target_inclusive = off"),
        Moment::Time(at) => format!("recovery_target_time = '{}+00'", at.strftime("%Y-%m-%d %H:%M:%S%.f")),
    };
    let kept = (route.log.segment_bytes * KEPT) >> 20;
    format!(
        "{target}\nmax_wal_size = {kept}MB\nrecovery_target_timeline = 'current'\nrecovery_target_action = 'promote'\n\
         restore_command = 'cp \"../wal/%f\" \"%p\"'\n{limits}\
         hot_standby = off\nlisten_addresses = ''\nport = {PORT}\nunix_socket_directories = '..'\nunix_socket_permissions = 0700\n\
         hba_file = '../hba'\nident_file = '../ident'\narchive_mode = off\nmax_wal_senders = 0\nmax_logical_replication_workers = 0\n\
         shared_preload_libraries = ''\nautovacuum = off\ncluster_name = 'ripcord'\nlc_messages = 'C'\nlogging_collector = off\n\
         log_destination = 'stderr'\ndynamic_shared_memory_type = mmap\nfsync = off\nfull_page_writes = off\n\
         synchronous_commit = off\nssl = off\n"
    )
}
