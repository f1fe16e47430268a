//! SQLite databases: used by others while they are captured and restored.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ripcord_core::{
    Action, Available, CaptureId, CapturePurpose, Loss, Made, Outcome, Proof, ProofLevel, Retry, RowLoss, Seen, Wanted,
};
use rusqlite::Connection;

use crate::contract::{Child, Rig, Site, capture_step, hex_noise, names, noise, restore_step, run_cx};
use crate::support::{place, proof, step};

fn open(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    db
}

/// Everything in a database, as its user sees it. Opening it undoes what a killed writer left, as it does for any user.
fn dump(path: &Path) -> String {
    if !path.exists() {
        return "absent".to_owned();
    }
    let db = open(path);
    let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok", "{}", path.display());
    let mut text = String::new();
    let mut tables = db.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").unwrap();
    for table in tables.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap) {
        let quoted = table.replace('"', "\"\"");
        let mut rows = db.prepare(&format!("SELECT * FROM \"{quoted}\"")).unwrap();
        let columns = rows.column_count();
        let shown = rows.query_map([], |row| {
            (0..columns).map(|i| Ok(format!("{:?}", row.get_ref(i)?))).collect::<Result<Vec<_>, _>>()
        });
        let mut shown: Vec<_> = shown.unwrap().map(|row| row.unwrap().join("|")).collect();
        shown.sort();
        text.push_str(&format!("{table}: {}\n", ripcord_core::Digest::of(shown.join("\n").as_bytes()).short()));
        text.push_str(&format!("{} rows\n", shown.len()));
    }
    text
}

fn make(path: &Path, mode: &str) {
    let db = open(path);
    let _: String = db.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |row| row.get(0)).unwrap();
    db.execute_batch(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT NOT NULL, cents INTEGER);
         CREATE TABLE big (n INTEGER PRIMARY KEY, text TEXT);
         CREATE INDEX by_what ON orders (what);",
    )
    .unwrap();
    for n in 0..10 {
        db.execute("INSERT INTO orders (what, cents) VALUES (?1, ?2)", (format!("good {n}"), n)).unwrap();
    }
    for n in 0..30 {
        db.execute("INSERT INTO big VALUES (?1, ?2)", (n, hex_noise(4000))).unwrap();
    }
}

fn spoil(path: &Path) {
    open(path)
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS added (x);
             DELETE FROM orders WHERE id > 8; UPDATE orders SET cents = 666 WHERE id = 1;
             INSERT INTO orders (id, what, cents) VALUES (100, 'bad', 1), (101, 'bad', 2);
             DELETE FROM added; INSERT INTO added VALUES (1);",
        )
        .unwrap();
}

pub struct Wal;

impl Rig for Wal {
    const KIND: &'static str = "sqlite";
    fn settings() -> String {
        "path: shop.db".to_owned()
    }
    fn good(site: &Path) {
        make(&site.join("shop.db"), "WAL");
    }
    fn bad(site: &Path) {
        spoil(&site.join("shop.db"));
    }
    fn edit(site: &Path) {
        open(&site.join("shop.db")).execute_batch("DELETE FROM orders").unwrap();
    }
    fn content(site: &Path) -> String {
        dump(&site.join("shop.db"))
    }
    fn between(site: &Path) -> bool {
        let path = site.join("shop.db");
        let mut bytes = fs::read(&path).unwrap();
        bytes[100..4000].fill(0xa5);
        fs::write(&path, bytes).unwrap();
        true
    }
}

pub struct Journal;

impl Rig for Journal {
    const KIND: &'static str = "sqlite";
    fn settings() -> String {
        Wal::settings()
    }
    fn good(site: &Path) {
        make(&site.join("shop.db"), "DELETE");
    }
    fn bad(site: &Path) {
        Wal::bad(site);
    }
    fn edit(site: &Path) {
        Wal::edit(site);
    }
    fn content(site: &Path) -> String {
        Wal::content(site)
    }
    fn between(site: &Path) -> bool {
        fs::write(
            site.join("shop.db"),
            "this is no database, and it is longer than the header of one would be, by far",
        )
        .unwrap();
        true
    }
}

fn orders(path: &Path) -> i64 {
    open(path).query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap()
}

fn wanted(id: &CaptureId, made: &Made) -> Wanted {
    Wanted { revision: made.revision.clone(), capture: Some(id.clone()) }
}

/// Another program that has the database open: the command-line shell's place is taken by this very binary.
struct Program(std::process::Child);

impl Program {
    fn start(path: &Path, what: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["sqlite::program", "--exact", "--nocapture"])
            .env("SQLITE_PROGRAM", format!("{what} {}", path.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let ready = std::io::BufRead::lines(std::io::BufReader::new(out))
            .map(Result::unwrap)
            .any(|line| line.contains("READY"));
        assert!(ready);
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test: what [`Program`] runs.
#[test]
fn program() {
    let Ok(task) = std::env::var("SQLITE_PROGRAM") else { return };
    let (what, path) = task.split_once(' ').unwrap();
    let db = open(Path::new(path));
    match what {
        // Connected, and nothing more.
        "idle" => drop(db.query_row("SELECT count(*) FROM orders", [], |row| row.get::<_, i64>(0)).unwrap()),
        // In the middle of a change that has reached the disk.
        "writing" => db
            .execute_batch("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN IMMEDIATE; UPDATE big SET text = 'x' || text; DELETE FROM orders WHERE id < 5;")
            .unwrap(),
        "wrote" => db.execute_batch("INSERT INTO orders (what) VALUES ('in the log')").unwrap(),
        other => panic!("{other}"),
    }
    println!("\nREADY");
    // Until killed, or the test is gone.
    let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
}

#[tokio::test]
async fn rf20_rows_in_the_log_are_in_the_capture() {
    let site = Site::of::<Wal>();
    let path = site.at("shop.db");
    let program = Program::start(&path, "wrote");
    assert!(fs::metadata(site.at("shop.db-wal")).unwrap().len() > 0, "the row is in the log alone");
    let (id, made) = site.capture(1).await;
    program.kill();
    assert_eq!(made.label.as_deref(), Some("2 tables, 41 rows"));
    Wal::edit(&site.path());
    site.restore(2, &id, &made).await;
    assert_eq!(orders(&path), 11);
}

#[tokio::test]
async fn rf20_no_leftover_log_is_replayed_into_what_was_restored() {
    let site = Site::of::<Wal>();
    let path = site.at("shop.db");
    let good = Wal::content(&site.path());
    let (id, made) = site.capture(1).await;
    // 5,000 bad rows in the log of a program that was killed.
    {
        let db = open(&path);
        db.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
        for n in 0..5000 {
            db.execute("INSERT INTO orders (what) VALUES (?1)", [format!("bad {n}")]).unwrap();
        }
        for name in ["shop.db", "shop.db-wal"] {
            fs::copy(site.at(name), site.at(&format!("{name}.copy"))).unwrap();
        }
    }
    for name in ["shop.db", "shop.db-wal"] {
        fs::rename(site.at(&format!("{name}.copy")), site.at(name)).unwrap();
    }
    let _ = fs::remove_file(site.at("shop.db-shm"));
    assert_eq!(orders(&path), 5010);
    let done = site.restore(2, &id, &made).await;
    assert_eq!(Wal::content(&site.path()), good);
    assert_eq!(done.lost.unwrap().rows["part.orders"], RowLoss { inserted: 5000, updated: 0, deleted: 0 });
    assert_eq!(orders(&site.at("shop.db.before-run-2")), 5010, "the old side has its log's rows too");
}

#[tokio::test]
async fn rf20_a_program_that_is_connected_is_waited_for_by_trying_later() {
    for (rig, what) in [("WAL", "idle"), ("WAL", "writing"), ("DELETE", "writing")] {
        let site = Site::new("sqlite", "path: shop.db");
        make(&site.at("shop.db"), rig);
        let (id, made) = site.capture(1).await;
        spoil(&site.at("shop.db"));
        let bad = Wal::content(&site.path());
        let program = Program::start(&site.at("shop.db"), what);
        let before = crate::contract::before(2, &restore_step(&id, &made), None);
        let cx = ripcord_core::Cx { limit: Duration::from_secs(2), ..run_cx(2) };
        let outcome = site.component().apply(&cx, &restore_step(&id, &made), &before).await;
        let Outcome::Failed(failure) = outcome else { panic!("{rig} {what}: {outcome:?}") };
        assert_eq!(failure.retry, Retry::Later, "{failure:?}");
        assert!(failure.what.contains(&format!("open in process {}", program.0.id())), "{}", failure.what);
        program.kill();
        assert_eq!(Wal::content(&site.path()), bad, "{rig} {what}");
        assert_eq!(
            names(&site.path()).iter().filter(|name| name.contains("before") || name.contains("ripcord")).count(),
            0
        );
        site.restore(2, &id, &made).await;
        assert_eq!(orders(&site.at("shop.db")), 10);
    }
}

#[tokio::test]
async fn rf20_a_killed_writers_hot_journal_is_undone_not_replayed() {
    let site = Site::of::<Journal>();
    let path = site.at("shop.db");
    let (good, captured) = (Journal::content(&site.path()), site.capture(1).await);
    let program = Program::start(&path, "writing");
    program.kill();
    assert!(fs::metadata(site.at("shop.db-journal")).unwrap().len() > 0, "a hot journal");
    let seen = site.seen().await;
    assert!(matches!(&seen, Seen::Between { why } if why.contains("died in the middle")), "{seen:?}");
    assert!(site.at("shop.db-journal").exists(), "a look undoes nothing");
    let (id, made) = captured;
    site.restore(2, &id, &made).await;
    assert_eq!(Journal::content(&site.path()), good);
}

#[tokio::test]
async fn an_idle_connection_of_a_journal_database_goes_on_with_the_restored_rows() {
    let site = Site::of::<Journal>();
    let path = site.at("shop.db");
    let (id, made) = site.capture(1).await;
    Journal::bad(&site.path());
    let idle = open(&path);
    let count = || idle.query_row("SELECT count(*) FROM orders", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 10);
    site.restore(2, &id, &made).await;
    idle.execute("INSERT INTO orders (what) VALUES ('after')", []).unwrap();
    assert_eq!(count(), 11);
    assert_eq!(orders(&path), 11, "it writes to the live database, not to the one that was set aside");
}

#[tokio::test]
async fn a_look_compares_with_the_target_and_with_others_while_there_is_time() {
    let site = Site::of::<Journal>();
    let (first, made_first) = site.capture(1).await;
    Journal::edit(&site.path());
    let (target, made_target) = site.capture(2).await;
    Journal::bad(&site.path());
    let asked = [wanted(&first, &made_first), wanted(&target, &made_target)];
    let hurried = ripcord_core::Cx { limit: Duration::ZERO, ..run_cx(3) };
    let survey = site.component().survey(&hurried, &place(), &asked).await;
    let [(one, uncounted), (two, counted)] = survey.losses.as_slice() else { panic!("{:?}", survey.losses) };
    assert_eq!((one, two), (&first, &target));
    assert_eq!(counted.rows["part.orders"], RowLoss { inserted: 2, updated: 0, deleted: 0 });
    assert!(!uncounted.is_none() && uncounted.rows.is_empty() && uncounted.since.is_some());
    let why = "rows written since the capture, which cannot be counted: there was no time to compare it with that capture too";
    assert_eq!(uncounted.other, [why]);
    let survey = site.component().survey(&run_cx(3), &place(), &asked).await;
    assert!(
        survey.losses.iter().all(|(_, loss)| !loss.rows.is_empty() && loss.other.is_empty()),
        "{:?}",
        survey.losses
    );
}

#[tokio::test]
async fn rf10_a_capture_made_during_the_run_is_never_its_target() {
    let site = Site::of::<Wal>();
    let path = site.at("shop.db");
    let good = Wal::content(&site.path());
    let (id, made) = site.capture(1).await;
    Wal::bad(&site.path());
    let (emergency, bad) = site.capture(2).await;
    assert_ne!(bad.revision, made.revision);
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    let survey = site.component().survey(&run_cx(3), &place(), &[wanted(&id, &made), wanted(&emergency, &bad)]).await;
    assert_eq!(survey.losses.len(), 2);
    let (ref of, ref loss) = survey.losses[0];
    assert_eq!(*of, id);
    assert_eq!(loss.rows["part.orders"], RowLoss { inserted: 2, updated: 1, deleted: 2 });
    assert_eq!(loss.rows["part.added"], RowLoss { inserted: 1, updated: 0, deleted: 0 });
    assert_eq!(loss.how.as_deref(), Some("compared with the capture row by row"));
    assert!(survey.losses[1].1.is_none(), "the emergency capture is the present state");
    let done = site.restore(4, &id, &made).await;
    assert_eq!(Wal::content(&site.path()), good);
    assert!(loss.covers(&done.lost.unwrap()), "what was consented to is what was lost");
}

#[tokio::test]
async fn rf12_a_capture_is_restored_before_it_is_believed() {
    let site = Site::of::<Wal>();
    let (id, made) = site.capture(1).await;
    assert_eq!(made.proof, ProofLevel::Restored);
    let evidence = proof(site.apply(2, &capture_step(CapturePurpose::Evidence)).await).capture.unwrap();
    assert_eq!(evidence.proof, ProofLevel::ReadBack);
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    let found = proof(site.apply(3, &prove).await).found;
    assert_eq!(found, "restored to a scratch file: sound, 2 tables, 40 rows");
    // An empty database is not a damaged one, and a damaged one is captured by nobody.
    let empty = Site::new("sqlite", "path: shop.db");
    open(&empty.at("shop.db")).execute_batch("CREATE TABLE t (x)").unwrap();
    assert_eq!(empty.capture(1).await.1.label.as_deref(), Some("1 tables, 0 rows"));
    Wal::between(&site.path());
    assert!(matches!(site.apply(4, &capture_step(CapturePurpose::Protective)).await, Outcome::Failed(_)));
    site.damage_vault();
    let available = site.available(wanted(&id, &made)).await;
    assert!(matches!(available, Available::Missing { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn rf11_every_acknowledged_row_is_accounted_for() {
    let site = Site::of::<Wal>();
    let path = site.at("shop.db");
    let (id, made) = site.capture(1).await;
    let stop = Arc::new(AtomicBool::new(false));
    // A writer that is connected half of the time, and remembers what it was told is done.
    let writer = std::thread::spawn({
        let (stop, path) = (Arc::clone(&stop), path.clone());
        move || {
            let mut acknowledged = BTreeSet::new();
            for n in 1000..200_000 {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let connected = Instant::now();
                let db = Connection::open(&path).unwrap();
                db.busy_timeout(Duration::from_millis(50)).unwrap();
                if db.execute("INSERT INTO orders (id, what) VALUES (?1, 'live')", [n]).is_ok() {
                    acknowledged.insert(n);
                }
                drop(db);
                std::thread::sleep(connected.elapsed());
            }
            acknowledged
        }
    });
    crate::support::until("rows", || async { orders(&path) > 30 }).await;
    let (run, done) = (Cell::new(1), RefCell::new(None));
    crate::support::until("a moment without a connection", || async {
        run.set(run.get() + 1);
        let Outcome::Done(proof) = site.apply(run.get(), &restore_step(&id, &made)).await else { return false };
        done.replace(Some(proof));
        true
    })
    .await;
    let (run, done) = (run.get(), done.take().unwrap());
    let after = orders(&path);
    crate::support::until("rows after", || async { orders(&path) > after + 5 }).await;
    stop.store(true, Ordering::SeqCst);
    let acknowledged = writer.join().unwrap();
    let ids = |path: &Path| -> BTreeSet<i64> {
        let db = open(path);
        let mut rows = db.prepare("SELECT id FROM orders WHERE id >= 1000").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let live = ids(&path);
    let aside = ids(&site.at(&format!("shop.db.before-run-{run}")));
    let csv = fs::read_to_string(site.at(&format!("shop.db.salvage-run-{run}/orders.csv"))).unwrap();
    let salvaged: BTreeSet<i64> =
        csv.lines().filter_map(|line| line.strip_prefix("inserted,")?.split(',').next()?.parse().ok()).collect();
    assert_eq!(acknowledged, live.union(&aside).copied().collect(), "no row is lost, none is made up");
    assert_eq!(aside, salvaged);
    assert_eq!(done.lost.unwrap().rows["part.orders"].inserted, salvaged.len() as u64);
    assert!(live.is_disjoint(&aside));
}

/// A schema with everything a comparison can stumble over.
const ODD: &str = r#"
    CREATE TABLE "it's ""odd"" é" ("a b" TEXT, "x""y" BLOB, PRIMARY KEY ("a b")) WITHOUT ROWID;
    INSERT INTO "it's ""odd"" é" VALUES ('k1', x'00ff'), ('k2', NULL), ('k3', 'text in a blob column');
    CREATE TABLE loose (v, w);
    INSERT INTO loose VALUES (1, 'one'), (NULL, NULL), (2.5, x'');
    CREATE TABLE nocase (name TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, n);
    INSERT INTO nocase VALUES ('Ann', 1), ('bob', 2);
    CREATE TABLE shadowed (rowid TEXT, _rowid_ TEXT, oid TEXT);
    INSERT INTO shadowed VALUES ('a', 'b', 'c');
    CREATE TABLE priced (id INTEGER PRIMARY KEY, net INTEGER, gross INTEGER GENERATED ALWAYS AS (net * 2) VIRTUAL, kept INTEGER AS (net * 3) STORED);
    INSERT INTO priced (net) VALUES (1), (2);
    CREATE TABLE log (what);
    CREATE TRIGGER logged AFTER INSERT ON priced BEGIN INSERT INTO log VALUES ('priced'); END;
    CREATE VIEW seen AS SELECT * FROM priced;
    CREATE VIRTUAL TABLE words USING fts5(body);
    INSERT INTO words VALUES ('hello world');
"#;

const SPOILED: &str = r#"
    DELETE FROM "it's ""odd"" é" WHERE "a b" = 'k1';
    UPDATE "it's ""odd"" é" SET "x""y" = x'010203' WHERE "a b" = 'k2';
    INSERT INTO "it's ""odd"" é" VALUES (char(233) || '''"' || char(10), 'new');
    UPDATE loose SET v = 1.0 WHERE rowid = 1;
    INSERT INTO loose VALUES ('', NULL);
    UPDATE nocase SET name = 'ANN' WHERE name = 'Ann';
    INSERT INTO shadowed VALUES ('d', 'e', 'f');
    INSERT INTO priced (net) VALUES (7);
    UPDATE priced SET net = 20 WHERE id = 2;
"#;

#[tokio::test]
async fn b16_odd_tables_are_compared_and_salvaged_so_that_the_rows_can_be_brought_back() {
    let site = Site::new("sqlite", "path: \"shop #1?.db\"");
    let path = site.at("shop #1?.db");
    open(&path).execute_batch(ODD).unwrap();
    let (id, made) = site.capture(1).await;
    open(&path).execute_batch(SPOILED).unwrap();
    let spoiled = dump(&path);
    let done = site.restore(2, &id, &made).await;
    let lost = done.lost.unwrap();
    let of = |table: &str| lost.rows.get(&format!("part.{table}")).copied().unwrap_or_default();
    let rows = |inserted, updated, deleted| RowLoss { inserted, updated, deleted };
    assert_eq!(of("it's \"odd\" é"), rows(1, 1, 1));
    assert_eq!(of("loose"), rows(1, 1, 0), "1 and 1.0 are not the same");
    assert_eq!(of("nocase"), rows(0, 1, 0), "the key's collation finds the row, and the change is seen");
    assert_eq!(of("shadowed"), rows(1, 0, 0));
    assert_eq!(of("priced"), rows(1, 1, 0));
    assert_eq!(of("log"), rows(1, 0, 0));
    let salvage = site.at("shop #1?.db.salvage-run-2");
    assert!(done.set_aside.contains(&salvage.canonicalize().unwrap().display().to_string()), "{:?}", done.set_aside);
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&salvage).unwrap()) & 0o777, 0o700);
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(salvage.join("summary.json")).unwrap()).unwrap();
    let loose = fs::read_to_string(salvage.join("loose.csv")).unwrap();
    assert_eq!(loose, "change,\"v\",\"w\"\ninserted,\"\",\nupdated,1.0,\"one\"\n");
    // All of it run again, without the trigger, is the state that was given up.
    let db = open(&path);
    db.execute_batch("DROP TRIGGER logged").unwrap();
    for table in summary["tables"].as_array().unwrap() {
        let sql = fs::read_to_string(salvage.join(table["sql"].as_str().unwrap())).unwrap();
        db.execute_batch(&sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    }
    drop(db);
    assert_eq!(dump(&path), spoiled);
}

#[tokio::test]
async fn b16_a_changed_schema_is_compared_as_far_as_both_sides_have_it() {
    let site = Site::of::<Wal>();
    let path = site.at("shop.db");
    let (id, made) = site.capture(1).await;
    open(&path)
        .execute_batch(
            "ALTER TABLE orders ADD COLUMN note TEXT; UPDATE orders SET note = 'n' WHERE id <= 3;
             DROP TABLE big; CREATE TABLE fresh (x); INSERT INTO fresh VALUES (1), (2);",
        )
        .unwrap();
    let done = site.restore(2, &id, &made).await;
    let lost = done.lost.unwrap();
    assert_eq!(lost.rows["part.orders"], RowLoss { inserted: 0, updated: 3, deleted: 0 });
    assert_eq!(lost.rows["part.big"], RowLoss { inserted: 0, updated: 0, deleted: 30 });
    assert_eq!(lost.rows["part.fresh"], RowLoss { inserted: 2, updated: 0, deleted: 0 });
    let salvage = site.at("shop.db.salvage-run-2");
    let orders = fs::read_to_string(salvage.join("orders.csv")).unwrap();
    assert!(orders.contains("updated,1,\"good 0\",0,\"n\""), "{orders}");
    let fresh = fs::read_to_string(salvage.join("fresh.sql")).unwrap();
    assert!(fresh.contains("--   CREATE TABLE fresh (x)") && fresh.contains("INSERT INTO \"fresh\""), "{fresh}");
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_whole_with_its_log() {
    let site = Site::of::<Wal>();
    let (good, captured) = (Wal::content(&site.path()), site.capture(1).await);
    let (id, made) = captured;
    fs::write(site.at("shop.db"), noise(9000)).unwrap();
    fs::write(site.at("shop.db-wal"), noise(5000)).unwrap();
    let survey = site.component().survey(&run_cx(2), &place(), &[wanted(&id, &made)]).await;
    assert!(matches!(survey.seen, Seen::Between { .. }), "{:?}", survey.seen);
    assert!(!survey.losses[0].1.is_none() && survey.losses[0].1.other[0].contains("cannot be counted"));
    let done = site.restore(2, &id, &made).await;
    assert_eq!(Wal::content(&site.path()), good);
    assert_eq!(fs::read(site.at("shop.db.before-run-2")).unwrap(), noise(9000));
    assert_eq!(fs::read(site.at("shop.db.before-run-2-wal")).unwrap(), noise(5000));
    assert!(done.lost.unwrap().other[0].contains("cannot be counted"));
}

#[tokio::test]
async fn a_damaged_database_is_replaced_whole_whenever_it_is_killed() {
    let site = Site::of::<Wal>();
    let (good, captured) = (Wal::content(&site.path()), site.capture(1).await);
    let (id, made) = captured;
    let step = restore_step(&id, &made);
    for at in 1..100 {
        let run = 100 + u64::from(at);
        let _ = fs::remove_file(site.at("shop.db"));
        fs::write(site.at("shop.db"), noise(9000)).unwrap();
        fs::write(site.at("shop.db-wal"), noise(5000)).unwrap();
        let outcome = site.in_child(run, &step, &Child { kill_at: Some(at), ..Child::default() });
        let through = outcome.is_some();
        if !through {
            let before = crate::contract::before(run, &step, None);
            proof(site.component().apply(&run_cx(run), &step, &before).await);
        }
        assert_eq!(Wal::content(&site.path()), good, "killed at {at}");
        let kept = fs::read(site.at(&format!("shop.db.before-run-{run}"))).unwrap();
        assert_eq!(kept, noise(9000), "killed at {at}");
        assert_eq!(fs::read(site.at(&format!("shop.db.before-run-{run}-wal"))).unwrap(), noise(5000), "killed at {at}");
        if through {
            return;
        }
    }
    panic!("the child never got through");
}

#[tokio::test]
async fn a_kill_after_the_copy_salvages_no_less() {
    let site = Site::of::<Wal>();
    let (id, made) = site.capture(1).await;
    let step = restore_step(&id, &made);
    let mut lost: Vec<Option<Loss>> = vec![];
    for at in 1..400 {
        let run = 100 + u64::from(at);
        Wal::bad(&site.path());
        let outcome = site.in_child(run, &step, &Child { kill_at: Some(at), ..Child::default() });
        let through = outcome.is_some();
        let done: Proof = match outcome {
            Some(outcome) => proof(outcome),
            None => {
                let before = crate::contract::before(run, &step, None);
                proof(site.component().apply(&run_cx(run), &step, &before).await)
            }
        };
        lost.push(done.lost);
        assert!(site.at(&format!("shop.db.before-run-{run}")).exists(), "killed at {at}");
        assert!(site.at(&format!("shop.db.salvage-run-{run}/summary.json")).exists(), "killed at {at}");
        if through {
            break;
        }
    }
    let rows: BTreeSet<_> = lost.iter().map(|loss| format!("{:?}", loss.as_ref().map(|loss| &loss.rows))).collect();
    assert_eq!(rows.len(), 1, "the loss is the same wherever it was killed: {rows:?}");
}
