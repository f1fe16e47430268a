//! PostgreSQL taken back by its archive: a real server that archives, real base backups, and a server beside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ripcord_core::{Action, Available, CaptureId, CapturePurpose, Failure, HeldIn, Holds, Made, Outcome, Seen, Wanted};
use rustix::process::{Pid, Signal, kill_process};

use crate::contract::{Child, Site, before, capture_step, names, restore_step, run_cx};
use crate::real_postgres::faults::altered;
use crate::real_postgres::server::{PASSWORD, PORT, Server, bin};
use crate::real_postgres::{BAD, content, site};
use crate::support::{place, proof, step};

/// A server that archives into `wal/`, with `bases/` and `side/` beside it.
struct Bed {
    server: Server,
    site: Site,
    live: String,
}

const POINT: &str = "  captures: point\n";

fn archiving() -> Server {
    Server::start_with(|data| {
        let dir = data.parent().unwrap();
        for name in ["wal", "bases", "side"] {
            fs::create_dir(dir.join(name)).unwrap();
            let status = Command::new("chown").arg("postgres:").arg(dir.join(name)).status().unwrap();
            assert!(status.success());
        }
        let wal = dir.join("wal").display().to_string();
        format!(
            "archive_mode = on\narchive_command = 'test ! -f {wal}/%f && cp %p {wal}/.%f && mv {wal}/.%f {wal}/%f'\n"
        )
    })
}

fn based(server: &Server, name: &str) -> PathBuf {
    let path = server.dir.join("bases").join(name);
    let mut command = Command::new(bin().join("pg_basebackup"));
    command.args(["--format=plain", "--checkpoint=fast", "--no-sync", "-D"]).arg(&path);
    command.env("PGHOST", server.run()).env("PGPORT", PORT.to_string()).env("PGUSER", "ripcord");
    let output = command.env("PGPASSWORD", PASSWORD).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path
}

fn settings(server: &Server, live: &str, more: &str) -> String {
    let dir = server.dir.display();
    let own = format!("archive:\n  directory: {dir}/wal\n  bases: {dir}/bases\n  side: {dir}/side\n{more}");
    format!("{}{own}", server.settings(live))
}

impl Bed {
    fn new(more: &str) -> Self {
        let server = archiving();
        let (site, live) = site(&server, "pitr");
        let site = site.with(&settings(&server, &live, more));
        Self { server, site, live }
    }

    fn based(more: &str) -> Self {
        let bed = Self::new(more);
        based(&bed.server, "monday");
        bed
    }

    fn with(self, more: &str) -> Self {
        let site = self.site.with(&settings(&self.server, &self.live, more));
        Self { site, ..self }
    }

    fn under(self, yaml: &str) -> Self {
        Self { site: self.site.with(yaml), ..self }
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.live, sql)
    }

    fn content(&self) -> String {
        content(&self.server, &self.live)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.server.dir.join(name)
    }

    fn segments(&self) -> Vec<String> {
        names(&self.at("wal")).into_iter().filter(|name| name.len() == 24).collect()
    }

    async fn available(&self, id: &CaptureId, made: &Made) -> Available {
        self.site.available(Wanted { revision: made.revision.clone(), capture: Some(id.clone()) }).await
    }

    async fn label(&self) -> String {
        self.site.component().survey(&run_cx(1), &place(), &[]).await.label.unwrap()
    }

    /// Neither a directory nor a process nor a dump of a server beside.
    fn assert_nothing_is_left(&self, when: &str) {
        assert_eq!(names(&self.at("side")), Vec::<String>::new(), "{when}");
        assert_eq!(self.site.leftovers(), Vec::<String>::new(), "{when}");
        assert_eq!(beside(&self.at("side")), Vec::<Pid>::new(), "{when}");
    }

    /// That proof and restore are refused with these words, and nothing is touched.
    async fn refused(&self, run: u64, id: &CaptureId, made: &Made, words: &[&str]) -> Failure {
        let (was, databases) = (self.content(), self.server.databases(&self.live));
        let there = names(&self.site.path());
        let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
        let mut last = None;
        for step in [prove, restore_step(id, made)] {
            let failure = failed(self.site.apply(run, &step).await);
            assert!(words.iter().all(|word| failure.what.contains(word)), "{words:?}: {failure:?}");
            assert!(failure.advice.is_some(), "{failure:?}");
            assert_eq!((self.content(), self.server.databases(&self.live)), (was.clone(), databases.clone()));
            assert_eq!(names(&self.site.path()), there, "{words:?}");
            self.assert_nothing_is_left(&failure.what);
            last = Some(failure);
        }
        last.unwrap()
    }
}

/// Processes that work below a directory.
fn beside(side: &Path) -> Vec<Pid> {
    let list = fs::read_dir("/proc").unwrap().flatten();
    let numbers = list.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let there = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(side));
    numbers.filter(there).filter_map(Pid::from_raw).collect()
}

/// Waits until it is so, on a machine that may have much else to do.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(180);
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} never came true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn failed(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_without_a_dump_comes_back_from_the_archive() {
    let bed = Bed::based(POINT);
    bed.sql("INSERT INTO orders (what, cents) VALUES ('after the base backup', 7)");
    let good = bed.content();
    let (id, made) = bed.site.capture(1).await;
    let HeldIn::Vault { manifest } = &made.held else { panic!("{made:?}") };
    assert!(!manifest.to_string().contains("\"dump\""), "{manifest}");
    let found = bed.available(&id, &made).await;
    assert!(matches!(&found, Available::Here { how } if how.contains("from base backup `monday`")), "{found:?}");
    bed.sql(BAD);
    let bad = bed.content();
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    let said = proof(bed.site.apply(2, &prove).await).found;
    assert!(
        said.contains("on a server beside") && said.contains("restored to a scratch database and compared"),
        "{said}"
    );
    assert_eq!(bed.content(), bad, "proving changes nothing");
    bed.assert_nothing_is_left("proven");
    let done = bed.site.restore(3, &id, &made).await;
    assert!(done.found.contains("from base backup `monday`"), "{done:?}");
    assert_eq!(bed.content(), good);
    assert_eq!(bed.site.seen().await, Seen::At(made.revision.clone()));
    let lost = done.lost.unwrap();
    assert_eq!(lost.rows["part.public.orders"].inserted, 2, "{lost:?}");
    assert!(done.set_aside.iter().any(|place| place.contains(".salvage-")), "{:?}", done.set_aside);
    bed.assert_nothing_is_left("restored");
    // A proof with too little time looks at all that is needed, and says what it left out.
    let listed = bed.site.with(&format!("{}prove: listed\n", settings(&bed.server, &bed.live, POINT)));
    let said = proof(listed.apply(4, &prove).await).found;
    assert!(said.contains("the archive reaches LSN ") && said.contains("not restored on trial"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_between_captures_is_gone_on_to() {
    let bed = Bed::based("");
    let (id, made) = bed.site.capture(1).await;
    bed.sql("INSERT INTO orders (what, cents) VALUES ('after the capture', 1)");
    let then = bed.content();
    let moment = bed.sql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    let position = bed.sql("SELECT pg_current_wal_insert_lsn()");
    bed.sql("DELETE FROM orders");
    let later = bed.sql("SELECT pg_current_wal_insert_lsn()");
    bed.sql("INSERT INTO big VALUES (1000, 'later still')");
    let (late_id, late) = bed.site.capture(2).await;
    let before_late = bed.content();
    let mut bed = bed;
    for (run, until) in [(10, &moment), (11, &position)] {
        bed = bed.with(&format!("  until: \"{until}\"\n"));
        let done = bed.site.restore(run, &id, &made).await;
        assert!(done.found.contains("on a server beside"), "{done:?}");
        assert_eq!(bed.content(), then, "{until}");
        bed.assert_nothing_is_left(until);
        // It is at the release of the capture, as far as anybody can tell.
        assert_eq!(bed.site.seen().await, Seen::At(made.revision.clone()));
        // To the later one by its dump, for the next.
        bed = bed.with("");
        bed.site.restore(run + 10, &late_id, &late).await;
        assert_eq!(bed.content(), before_late);
    }
    // Another moment, where nothing was written since the first.
    bed = bed.with(&format!("  until: \"{position}\"\n"));
    bed.site.restore(30, &id, &made).await;
    assert_eq!(bed.content(), then);
    bed = bed.with(&format!("  until: \"{later}\"\n"));
    bed.site.restore(31, &id, &made).await;
    assert_eq!(bed.sql("SELECT count(*) FROM orders"), "0");
    bed = bed.with("");
    assert_eq!(
        bed.site.seen().await,
        Seen::At(made.revision.clone()),
        "once it is taken out, it is where it was taken"
    );
    let bed = bed.with(&format!("  until: \"{moment}\"\n"));
    bed.refused(40, &late_id, &late, &["`archive.until`", "is before the capture"]).await;
    let bed = bed.with("  until: \"2999-01-01T00:00:00Z\"\n");
    bed.refused(41, &id, &made, &["`archive.until`", "is not there yet"]).await;
    let bed = bed.with("  until: \"FFFF/0\"\n");
    bed.refused(42, &id, &made, &["is not there yet: the server is at LSN"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_in_the_archive_is_named_before_anything() {
    let bed = Bed::based(POINT);
    let (id, made) = bed.site.capture(1).await;
    bed.sql(BAD);
    let segment = bed.segments().pop().unwrap();
    let (here, away) = (bed.at("wal").join(&segment), bed.at(&segment));
    fs::rename(&here, &away).unwrap();
    let gap = format!("lacks {segment}");
    bed.refused(2, &id, &made, &["the archive has a gap", &gap, "`monday`"]).await;
    let found = bed.available(&id, &made).await;
    assert!(matches!(&found, Available::Missing { why } if why.contains(&gap)), "{found:?}");
    let whole = fs::read(&away).unwrap();
    fs::write(&here, &whole[..whole.len() / 2]).unwrap();
    bed.refused(3, &id, &made, &[&gap, "is not whole"]).await;
    fs::rename(&here, bed.at("wal").join(format!("{segment}.gz"))).unwrap();
    bed.refused(4, &id, &made, &[&gap, ".gz, which is not read"]).await;
    fs::rename(&away, &here).unwrap();
    // Whole, and the server beside may not read it.
    fs::set_permissions(&here, fs::Permissions::from_mode(0o000)).unwrap();
    if rustix::process::geteuid().is_root() {
        bed.refused(5, &id, &made, &["may not read", &segment]).await;
    }
    fs::set_permissions(&here, fs::Permissions::from_mode(0o600)).unwrap();
    // Of its length, and its content another's: found out beside, with the live one as it was.
    fs::write(&here, vec![0; whole.len()]).unwrap();
    let bad = bed.content();
    let failure = failed(bed.site.apply(6, &restore_step(&id, &made)).await);
    assert!(failure.what.contains("the recovery to LSN") && failure.what.contains("ended badly"), "{failure:?}");
    assert_eq!(bed.content(), bad);
    bed.assert_nothing_is_left("a segment of zeros");
    fs::write(&here, whole).unwrap();
    bed.site.restore(7, &id, &made).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_backup_that_does_not_fit_is_named_before_anything() {
    let bed = Bed::new(POINT);
    let refused = failed(bed.site.apply(1, &capture_step(CapturePurpose::Protective)).await);
    assert!(
        refused.what.contains("no base backup of PostgreSQL") && refused.what.contains("there is none"),
        "{refused:?}"
    );
    assert!(refused.advice.unwrap().contains("pg_basebackup"));
    // With a dump it is a capture, and says that the archive is none.
    let bed = bed.with("");
    let (id, made) = bed.site.capture(1).await;
    let bed = bed.with("  until: \"2999-01-01T00:00:00Z\"\n");
    bed.sql("DELETE FROM orders WHERE id < 5");
    based(&bed.server, "late");
    let position = bed.sql("SELECT pg_current_wal_insert_lsn()");
    let moment = bed.sql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    let bed = bed.with(&format!("  until: \"{moment}\"\n"));
    bed.refused(2, &id, &made, &["`late`: it ended at", "after that"]).await;
    // A base backup that ended before the moment, if after the capture, is one to begin with: known of positions.
    let bed = bed.with(&format!("  until: \"{position}\"\n"));
    let bad = bed.content();
    bed.site.restore(3, &id, &made).await;
    assert_eq!(bed.content(), bad);
    // A migration came in between.
    bed.sql("CREATE TABLE added (x int)");
    let position = bed.sql("SELECT pg_current_wal_insert_lsn()");
    let bed = bed.with(&format!("  until: \"{position}\"\n"));
    bed.refused(4, &id, &made, &["its definitions are not the captured ones", "public.added"]).await;

    let bed = bed.with(POINT);
    let (id, made) = bed.site.capture(5).await;
    bed.sql("INSERT INTO added VALUES (1)");
    let others = archiving();
    let other = based(&others, "others");
    fs::rename(bed.at("bases/late"), bed.at("late")).unwrap();
    let status = Command::new("cp").arg("-a").arg(&other).arg(bed.at("bases")).status().unwrap();
    assert!(status.success());
    bed.refused(15, &id, &made, &["`others`: it is of another cluster"]).await;
    assert!(bed.label().await.contains("its archive: no base backup"), "{}", bed.label().await);
    fs::remove_dir_all(bed.at("bases/others")).unwrap();
    fs::rename(bed.at("late"), bed.at("bases/late")).unwrap();
    fs::write(bed.at("bases/late/PG_VERSION"), "14\n").unwrap();
    bed.refused(16, &id, &made, &["`late`: it is of PostgreSQL 14"]).await;
    fs::write(bed.at("bases/late/PG_VERSION"), "15\n").unwrap();
    std::os::unix::fs::symlink("/nowhere", bed.at("bases/late/pg_tblspc/1")).unwrap();
    bed.refused(7, &id, &made, &["`late`: it has tablespaces"]).await;
    fs::remove_file(bed.at("bases/late/pg_tblspc/1")).unwrap();
    let manifest = fs::read_to_string(bed.at("bases/late/backup_manifest")).unwrap();
    fs::write(bed.at("bases/late/backup_manifest"), &manifest[..manifest.len() / 2]).unwrap();
    bed.refused(8, &id, &made, &["`late`: `backup_manifest` cannot be read"]).await;
    fs::write(bed.at("bases/late/backup_manifest"), manifest).unwrap();
    // One byte of it is another: seen before the server beside is started.
    let path = bed.at("bases/late/global/pg_filenode.map");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    bed.refused(9, &id, &made, &["the base backup `late` is damaged", "pg_filenode.map"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_does_not_keep_up_is_no_capture() {
    let bed = Bed::based(POINT);
    let (id, made) = bed.site.capture(1).await;
    assert!(!bed.label().await.contains("its archive"), "{}", bed.label().await);
    bed.server.sql("postgres", "ALTER SYSTEM SET archive_command = 'false'; SELECT pg_reload_conf()");
    bed.sql("INSERT INTO orders (what, cents) VALUES ('not archived', 1)");
    bed.server.sql("postgres", "SELECT pg_switch_wal()");
    until("archiving fails", || async { bed.label().await.contains("`archive_command` fails: 0000") }).await;
    let refused = failed(bed.site.apply(2, &capture_step(CapturePurpose::Protective)).await);
    assert!(
        refused.what.contains("the archive has a gap") && refused.what.contains("`archive_command` fails"),
        "{refused:?}"
    );
    // What was archived before is a way back as ever.
    bed.site.restore(3, &id, &made).await;
    let bed = bed.with("");
    let said = proof(bed.site.apply(4, &capture_step(CapturePurpose::Protective)).await).found;
    assert!(said.contains("not to be had from the archive"), "{said}");
    bed.server.sql("postgres", "ALTER SYSTEM RESET archive_command; SELECT pg_reload_conf()");
    until("the archive keeps up", || async { !bed.label().await.contains("its archive") }).await;
    let said = proof(bed.site.apply(5, &capture_step(CapturePurpose::Protective)).await).found;
    assert!(said.contains("and to be had by LSN"), "{said}");
    // A directory that is not the one it archives to.
    let elsewhere = settings(&bed.server, &bed.live, "").replace("/wal\n", "/bases\n");
    let site = bed.site.with(&elsewhere);
    let label = site.component().survey(&run_cx(1), &place(), &[]).await.label.unwrap();
    assert!(label.contains("it copies it to another place"), "{label}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_dump_is_made_good_by_the_archive() {
    let bed = Bed::based("");
    let good = bed.content();
    let (_, made) = bed.site.capture(1).await;
    let (id, made) = altered(&bed.site, &made, 11, |_| b"no dump".to_vec(), |_| {});
    bed.sql(BAD);
    let done = bed.site.restore(2, &id, &made).await;
    assert!(done.found.contains("the dump cannot be had") && done.found.contains("on a server beside"), "{done:?}");
    assert_eq!(bed.content(), good);
    bed.assert_nothing_is_left("restored");
    bed.sql(BAD);
    fs::rename(bed.at("bases/monday"), bed.at("monday")).unwrap();
    bed.refused(3, &id, &made, &["and the archive is no way back: no base backup"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_without_room_or_leave_changes_nothing() {
    let bed = Bed::based(POINT);
    let (id, made) = bed.site.capture(1).await;
    bed.sql(BAD);
    let bad = bed.content();
    let child = Child { file_blocks: Some(100), ..Child::default() };
    let outcome = tokio::task::block_in_place(|| bed.site.in_child(2, &restore_step(&id, &made), &child));
    let failure = failed(outcome.unwrap());
    assert!(failure.what.contains("no space") || failure.what.contains("File too large"), "{failure:?}");
    assert_eq!(bed.content(), bad);
    bed.assert_nothing_is_left("no room");
    let there = settings(&bed.server, &bed.live, POINT);
    let bed = bed.under(&there.replace("/side\n", "/nowhere\n"));
    bed.refused(3, &id, &made, &["nowhere is no directory"]).await;
    let long = "x".repeat(80);
    fs::create_dir(bed.at(&long)).unwrap();
    let bed = bed.under(&there.replace("/side\n", &format!("/{long}\n")));
    bed.refused(4, &id, &made, &["too long for a socket"]).await;
    // Where its user may not go.
    if rustix::process::geteuid().is_root() {
        fs::create_dir(bed.at("closed")).unwrap();
        fs::set_permissions(bed.at("closed"), fs::Permissions::from_mode(0o700)).unwrap();
        let closed = bed.under(&there.replace("/side\n", "/closed\n"));
        closed.refused(5, &id, &made, &["not enter"]).await;
        assert_eq!(names(&closed.at("closed")), Vec::<String>::new());
        return tablespaces(closed.under(&there), &id, &made).await;
    }
    tablespaces(bed.under(&there), &id, &made).await;
}

/// Replaying the log would write where the live server's are.
async fn tablespaces(bed: Bed, id: &CaptureId, made: &Made) {
    fs::create_dir(bed.at("space")).unwrap();
    assert!(Command::new("chown").arg("postgres:").arg(bed.at("space")).status().unwrap().success());
    bed.server.sql("postgres", &format!("CREATE TABLESPACE more LOCATION '{}'", bed.at("space").display()));
    bed.refused(6, id, made, &["the server has tablespaces of its own"]).await;
    bed.server.sql("postgres", "DROP TABLESPACE more");
    bed.site.restore(7, id, made).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf15_killed_anywhere_in_a_recovery_it_converges_and_leaves_nothing() {
    let bed = Bed::based(POINT);
    let good = bed.content();
    let (id, made) = bed.site.capture(1).await;
    let step = restore_step(&id, &made);
    bed.sql(BAD);
    let bad = bed.content();
    let mut left = 0;
    for at in 1..200 {
        // One step, begun again and again as a person would who has no luck, and killed a little later each time.
        let child = Child { kill_at: Some(at), ..Child::default() };
        let outcome = tokio::task::block_in_place(|| bed.site.in_child(2, &step, &child));
        // The kernel tells the server to end; it does so by itself.
        until("no server is left", || async { beside(&bed.at("side")).is_empty() }).await;
        left += names(&bed.at("side")).len();
        if outcome.is_some() {
            panic!("it got through before it came to the new database");
        }
        assert_eq!(bed.content(), bad, "killed at {at}");
        let looked = bed.site.component().holds(&run_cx(2), &step, Some(&before(2, &step, None))).await.holds;
        assert!(!matches!(looked, Holds::CannotTell { .. } | Holds::Target), "killed at {at}: {looked:?}");
        if bed.server.databases(&bed.live).len() > 1 {
            break;
        }
    }
    assert!(left > 3, "some kills leave a server beside: {left}");
    let done = proof(bed.site.component().apply(&run_cx(2), &step, &before(2, &step, None)).await);
    assert!(done.found.contains("on a server beside"), "{done:?}");
    assert_eq!(bed.content(), good);
    bed.assert_nothing_is_left("carried on");

    // What a run left that is never carried on is tidied away.
    bed.sql(BAD);
    let mut at = 4;
    while names(&bed.at("side")).is_empty() {
        assert!(at < 40, "no kill leaves a server beside");
        let child = Child { kill_at: Some(at), ..Child::default() };
        tokio::task::block_in_place(|| bed.site.in_child(3, &step, &child));
        at += 2;
    }
    let theirs = bed.at("side").join("ripcord-notes");
    fs::create_dir(&theirs).unwrap();
    assert_eq!(bed.site.tidy("2020-01-01T00:00:00Z").await, Vec::<String>::new(), "nothing is so old");
    let removed = bed.site.tidy("2200-01-01T00:00:00Z").await;
    assert!(removed.iter().any(|path| path.contains("/side/ripcord-")), "{removed:?}");
    fs::remove_dir(&theirs).unwrap();
    bed.assert_nothing_is_left("tidied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf21_a_server_beside_that_is_killed_or_not_waited_for_leaves_nothing() {
    let bed = Bed::based(POINT);
    let good = bed.content();
    let (id, made) = bed.site.capture(1).await;
    bed.sql(BAD);
    let bad = bed.content();
    let restore = restore_step(&id, &made);
    let (side, runs) = (bed.at("side"), |side: PathBuf| async move { !beside(&side).is_empty() });
    let (outcome, number) = tokio::join!(bed.site.apply(2, &restore), async {
        // Its own file has the number of its process first, and that of its shared memory at the end of the seventh line.
        let told = || {
            let work = names(&side).pop()?;
            let text = fs::read_to_string(side.join(work).join("data/postmaster.pid")).ok()?;
            let memory = text.lines().nth(6)?.split_whitespace().last()?.to_owned();
            Some((Pid::from_raw(text.lines().next()?.parse().ok()?)?, memory))
        };
        until("the server runs", || async { told().is_some() }).await;
        let (first, number) = told().unwrap();
        kill_process(first, Signal::KILL).unwrap();
        number
    });
    let failure = failed(outcome);
    assert!(failure.what.contains("the recovery to LSN") || failure.what.contains("pg_dump"), "{failure:?}");
    assert_eq!(bed.content(), bad);
    bed.assert_nothing_is_left("killed");
    let memory = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    assert!(!memory.lines().any(|line| line.split_whitespace().nth(1) == Some(&number)), "{number}:\n{memory}");
    // Given up on by the caller, as when its time is over.
    tokio::select! {
        outcome = bed.site.apply(3, &restore) => panic!("{outcome:?}"),
        () = until("the server runs", || runs(side.clone())) => {}
    }
    until("nothing is left", || async { beside(&side).is_empty() && names(&side).is_empty() }).await;
    assert_eq!(bed.content(), bad);
    bed.site.restore(3, &id, &made).await;
    assert_eq!(bed.content(), good);
    bed.assert_nothing_is_left("restored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_while_it_is_captured_is_no_difference() {
    let bed = Bed::based(POINT);
    bed.sql("CREATE TABLE written (n bigserial PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())");
    let (mut config, live) = (tokio_postgres::Config::new(), bed.live.clone());
    config.host_path(bed.server.run()).port(PORT).user("ripcord").password(PASSWORD).dbname(&live);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let ends = tokio::spawn(connection);
    let writing =
        tokio::spawn(async move { while client.execute("INSERT INTO written DEFAULT VALUES", &[]).await.is_ok() {} });
    until("rows are written", || async { bed.sql("SELECT count(*) > 20 FROM written") == "t" }).await;
    let (id, made) = bed.site.capture(1).await;
    let by_then: i64 = bed.sql("SELECT count(*) FROM written").parse().unwrap();
    bed.server.sql(
        "postgres",
        &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{live}' AND query LIKE 'INSERT%'"
        ),
    );
    writing.await.unwrap();
    let _ = ends.await;
    bed.site.restore(2, &id, &made).await;
    // None is missing in between: what was committed first is there, up to one moment.
    let kept = bed.sql("SELECT count(*), max(n) FROM written");
    let (count, last) = kept.split_once('|').unwrap();
    assert_eq!(count, last, "{kept}");
    assert!((20..=by_then).contains(&count.parse().unwrap()), "{kept}, of {by_then}");
}

#[test]
fn a_moment_that_is_none_is_a_mistake() {
    let read = |until: &str| {
        let yaml = format!(
            "connection: {{ database: a, user: b }}\narchive: {{ directory: w, bases: b, side: s, until: \"{until}\" }}\n"
        );
        std::panic::catch_unwind(|| crate::support::component("postgres", &yaml)).is_ok()
    };
    assert!(read("2026-11-21T13:49:59Z") && read("0/3000060"));
    assert!(!read("yesterday") && !read("2026-11-21 13:49:59"));
}
