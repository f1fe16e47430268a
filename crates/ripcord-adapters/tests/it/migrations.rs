//! Migrations of SQL on SQLite, recorded as three tools do; the others need servers, see `real_migrations`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ripcord_core::{
    Action, Available, CaptureId, CapturePurpose, Cx, Destroys, Draft, Holds, Made, Outcome, Revision, Seen, Seq, Step,
    Survey, Want, Wanted, Wish,
};
use rusqlite::Connection;
use sha2::Digest as _;

use crate::contract::{Child, Site, before, capture_step, restore_step, run_cx};
use crate::support::{inventory, place, proof, step};

pub const SQL: &str = "tool: sql\ndirectory: migrations\ndatabase: { sqlite: shop.db }";

/// The shop's migrations: a good release has the first, later ones add, tighten and destroy.
const ALL: [(&str, &str, Option<&str>); 6] = [
    (
        "0001_orders",
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT NOT NULL, cents INTEGER);",
        Some("DROP TABLE orders;"),
    ),
    ("0002_note", "ALTER TABLE orders ADD COLUMN note TEXT;", Some("ALTER TABLE orders DROP COLUMN note;")),
    ("0003_by_what", "CREATE UNIQUE INDEX by_what ON orders (what);", Some("DROP INDEX by_what;")),
    ("0004_tags", "CREATE TABLE tags (id INTEGER PRIMARY KEY, tag TEXT);", Some("DROP TABLE tags;")),
    ("0005_lost", "ALTER TABLE orders DROP COLUMN cents;", Some("ALTER TABLE orders ADD COLUMN cents INTEGER;")),
    ("0006_stub", "CREATE TABLE later (x); UPDATE orders SET what = upper(what);", Some("-- to be written\n")),
];

pub fn open(site: &Path) -> Connection {
    Connection::open(site.join("shop.db")).unwrap()
}

fn execute(site: &Path, sql: &str) {
    open(site).execute_batch(sql).unwrap();
}

/// Puts the files of the first `n` migrations in their directory.
fn files(site: &Path, n: usize) {
    let directory = site.join("migrations");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    for (name, up, down) in &ALL[..n] {
        fs::write(directory.join(format!("{name}.up.sql")), up).unwrap();
        if let Some(down) = down {
            fs::write(directory.join(format!("{name}.down.sql")), down).unwrap();
        }
    }
}

/// A release as the project's own runner makes it: files, schema and record.
fn release(site: &Path, n: usize) {
    files(site, n);
    execute(site, "CREATE TABLE IF NOT EXISTS ripcord_migrations (version INTEGER PRIMARY KEY)");
    let db = open(site);
    for (number, (_, up, _)) in ALL[..n].iter().enumerate() {
        let there = db
            .execute("INSERT OR IGNORE INTO ripcord_migrations VALUES (?1)", [i64::try_from(number + 1).unwrap()])
            .unwrap()
            == 0;
        if !there {
            db.execute_batch(up).unwrap();
        }
    }
}

pub fn applied(site: &Path) -> Vec<i64> {
    let db = open(site);
    let mut asked = db.prepare("SELECT version FROM ripcord_migrations ORDER BY version").unwrap();
    asked.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

pub fn wanted(id: &CaptureId, made: &Made) -> Wanted {
    Wanted { revision: made.revision.clone(), capture: Some(id.clone()) }
}

/// As the engine looks before a plan: what is live, and last what is gone to.
pub async fn survey(site: &Site, asked: &[Wanted]) -> Survey {
    site.component().survey(&run_cx(1), &place(), asked).await
}

/// What is proposed for the last of the wanted.
pub fn drafts(site: &Site, survey: Survey, to: &Wanted) -> Result<Vec<Draft>, String> {
    let want = Want::Revision { revision: to.revision.clone(), capture: to.capture.clone() };
    let proposed = site.component().propose(&Wish { place: place(), want }, &inventory(survey));
    proposed.map_err(|why| why.to_string())
}

pub fn as_step(number: usize, draft: Draft) -> Step {
    Step { destroys: draft.destroys, shown: draft.shown, ..step(&format!("restore-{number}"), draft.action) }
}

/// Goes all the way that is proposed, as a run does; the words of each step's proof.
pub async fn carried_out(site: &Site, run: u64, drafts: Vec<Draft>) -> Vec<String> {
    let mut found = vec![];
    for (number, draft) in drafts.into_iter().enumerate() {
        let step = as_step(number, draft);
        let (component, cx) = (site.component(), run_cx(run));
        let looked = component.holds(&cx, &step, None).await;
        assert!(matches!(looked.holds, Holds::Origin | Holds::Target), "{:?}", looked.holds);
        let before = before(run, &step, looked.mark);
        found.push(proof(component.apply(&cx, &step, &before).await).found);
        assert_eq!(component.holds(&cx, &step, Some(&before)).await.holds, Holds::Target, "{found:?}");
    }
    found
}

/// Captured as a release is, outside any run, and put on the record.
pub async fn released(site: &Site, id: u64) -> (CaptureId, Made, String) {
    let (component, step) = (site.component(), capture_step(CapturePurpose::Protective));
    let cx = Cx { run: None, limit: Duration::from_secs(120), ..run_cx(id) };
    let done = proof(component.apply(&cx, &step, &before(id, &step, None)).await);
    let (id, made) = (CaptureId::at(Seq(id)), done.capture.unwrap());
    let path = site.dir.path().join("captures.json");
    let mut record: BTreeMap<CaptureId, Made> =
        fs::read(&path).map_or_else(|_| BTreeMap::new(), |bytes| serde_json::from_slice(&bytes).unwrap());
    record.insert(id.clone(), made.clone());
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    (id, made, done.found)
}

/// Why a capture of a release was refused.
pub async fn not_released(site: &Site, id: u64) -> String {
    let step = capture_step(CapturePurpose::Protective);
    let cx = Cx { run: None, limit: Duration::from_secs(120), ..run_cx(id) };
    failed(site.component().apply(&cx, &step, &before(id, &step, None)).await)
}

pub fn failed(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) => format!("{}; {}", failure.what, failure.advice.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

/// A site with a capture of the release with `good` migrations, then the release with `bad`, captured too.
async fn two(good: usize, bad: usize, settings: &str) -> (Site, [(CaptureId, Made); 2]) {
    let site = Site::new("migrations", settings);
    release(&site.path(), good);
    let one = site.capture(1).await;
    release(&site.path(), bad);
    execute(&site.path(), "INSERT INTO orders (what) VALUES ('tea'), ('milk')");
    let two = site.capture(2).await;
    (site, [one, two])
}

#[tokio::test]
async fn a_schema_that_was_only_added_to_is_left_alone() {
    let (site, [(id, made), (bad_id, bad)]) = two(1, 2, SQL).await;
    let asked = [wanted(&bad_id, &bad), wanted(&id, &made)];
    let seen = survey(&site, &asked).await;
    assert_eq!(seen.seen, Seen::At(bad.revision.clone()));
    assert_eq!(seen.label.as_deref(), Some("at 2, 2 migrations applied"));
    let why = seen.serves(&made.revision).unwrap();
    assert_eq!(why, "`2` (note): it only adds or loosens: column orders.note");
    assert!(matches!(seen.available(&made.revision), Some(Available::Here { .. })));
    assert_eq!(drafts(&site, seen, &asked[1]).unwrap(), []);
    assert_eq!(applied(&site.path()), [1, 2]);
}

#[tokio::test]
async fn rf22_it_goes_down_over_any_number_with_the_bad_release_s_files() {
    for bad in [1, 2, 4] {
        let (site, [(id, made), (bad_id, now)]) = two(1, bad, &format!("{SQL}\nwhen-rolled-back: down")).await;
        // The code, and with it the files, was taken back first.
        files(&site.path(), 1);
        let asked = [wanted(&bad_id, &now), wanted(&id, &made)];
        let proposed = drafts(&site, survey(&site, &asked).await, &asked[1]).unwrap();
        assert_eq!(proposed.len(), if bad == 1 { 0 } else { bad }, "one step a migration, and one that compares");
        assert!(proposed.iter().all(|draft| draft.destroys == Destroys::Nothing), "nothing was in what goes");
        let found = carried_out(&site, 3, proposed).await;
        assert_eq!(applied(&site.path()), [1]);
        assert_eq!(site.seen().await, Seen::At(made.revision.clone()), "{found:?}");
        if bad > 1 {
            assert!(found.last().unwrap().contains("its schema is the one recorded"), "{found:?}");
        }
        // And up again, for who takes the rollback back: with the files of where it goes.
        let asked = [wanted(&id, &made), wanted(&bad_id, &now)];
        let proposed = drafts(&site, survey(&site, &asked).await, &asked[1]).unwrap();
        carried_out(&site, 4, proposed).await;
        assert_eq!(site.seen().await, Seen::At(now.revision));
    }
}

#[tokio::test]
async fn rf22_what_has_no_way_back_is_refused_with_the_reason() {
    for (bad, why) in [
        (
            5,
            "there is no way back over `5` (lost): what it took away comes back from a restore point only: drops column orders.cents",
        ),
        (6, "there is no way back over `6` (stub): its way down is empty"),
    ] {
        let (site, [(id, made), (bad_id, now)]) = two(4, bad, SQL).await;
        let asked = [wanted(&bad_id, &now), wanted(&id, &made)];
        let seen = survey(&site, &asked).await;
        let Some(Available::Missing { why: said }) = seen.available(&made.revision) else { panic!("{seen:?}") };
        assert!(
            said.starts_with(why) && said.ends_with("fix forward, or restore the database to a point before it"),
            "{said}"
        );
        assert!(drafts(&site, seen, &asked[1]).unwrap_err().contains(why));
        let refused = failed(site.apply(3, &restore_step(&id, &made)).await);
        assert!(refused.contains(why), "{refused}");
        assert_eq!(applied(&site.path()).len(), bad);
    }
}

#[tokio::test]
async fn rf22_a_filled_column_is_given_up_only_with_consent_to_its_count() {
    let (site, [(id, made), (bad_id, now)]) = two(1, 3, SQL).await;
    execute(&site.path(), "UPDATE orders SET note = 'hot' WHERE what = 'tea'");
    let asked = [wanted(&bad_id, &now), wanted(&id, &made)];
    let seen = survey(&site, &asked).await;
    let (of, loss) = seen.losses[0].clone();
    assert_eq!((of, loss.rows["part.orders.note"].deleted, loss.total_rows()), (id.clone(), 1, 1));

    // Nobody consented to anything.
    let refused = failed(site.apply(3, &restore_step(&id, &made)).await);
    assert!(refused.contains("what nobody consented to: 1 values of part.orders.note"), "{refused}");
    assert_eq!(applied(&site.path()), [1, 2, 3]);

    let mut proposed = drafts(&site, seen, &asked[1]).unwrap();
    let gives: Vec<_> = proposed.iter().map(|draft| draft.destroys == Destroys::GivesUp).collect();
    assert_eq!(gives, [false, true, false]);
    assert!(proposed[1].shown.words.contains("1 values of part.orders.note are given up"), "{:?}", proposed[1].shown);
    // Consent was to 1 and what may come until it is done, not to anything.
    let db = open(&site.path());
    for n in 0..500 {
        db.execute("INSERT INTO orders (what, note) VALUES (?1, 'x')", [format!("more {n}")]).unwrap();
    }
    let refused = failed(site.apply(3, &as_step(0, proposed[0].clone())).await);
    assert!(refused.contains("501 values of part.orders.note"), "{refused}");
    db.execute_batch("DELETE FROM orders WHERE note = 'x'").unwrap();
    drop(db);
    let last = proposed.split_off(1);
    carried_out(&site, 4, proposed).await;
    let step = as_step(1, last[0].clone());
    let done = proof(site.apply(4, &step).await);
    assert_eq!(done.lost.unwrap().rows["part.orders.note"].deleted, 1);
    // B16: the value is written out with its row, and stays where it is when the step is seen to again.
    let kept = |aside: &str| std::fs::read_to_string(Path::new(aside).join("orders.note.csv")).unwrap();
    let [aside] = &done.set_aside[..] else { panic!("{:?}", done.set_aside) };
    let written = kept(aside);
    let lines: Vec<&str> = written.lines().collect();
    assert!(lines[0].contains("\"note\"") && lines.len() == 2, "{written}");
    assert!(lines[1].contains("\"hot\"") && lines[1].contains("\"tea\""), "{written}");
    carried_out(&site, 4, last).await;
    assert_eq!(site.seen().await, Seen::At(made.revision));
    assert_eq!(kept(aside), written);
}

#[tokio::test]
async fn rf22_a_record_that_is_not_the_schema_parks() {
    let (site, [(id, made), (bad_id, now)]) = two(1, 2, SQL).await;
    let asked = [wanted(&bad_id, &now), wanted(&id, &made)];
    // Somebody changed it by hand.
    execute(&site.path(), "CREATE TABLE by_hand (x)");
    let seen = survey(&site, &asked).await;
    let Seen::Between { why } = &seen.seen else { panic!("{:?}", seen.seen) };
    assert!(
        why.contains("the schema is not the one recorded there: column by_hand.x is new; table by_hand is new"),
        "{why}"
    );
    assert!(drafts(&site, seen, &asked[1]).is_err());
    execute(&site.path(), "DROP TABLE by_hand");
    // Stamped, and not moved.
    execute(&site.path(), "DELETE FROM ripcord_migrations WHERE version = 2");
    let seen = survey(&site, &asked).await;
    assert!(
        matches!(&seen.seen, Seen::Between { why } if why.contains("column orders.note is new")),
        "{:?}",
        seen.seen
    );
    let refused = failed(site.apply(3, &restore_step(&id, &made)).await);
    assert!(refused.contains("column orders.note is new") && refused.contains("nothing was stamped"), "{refused}");
    let held = site.component().holds(&run_cx(3), &restore_step(&id, &made), None).await.holds;
    assert!(matches!(held, Holds::Neither { .. }), "{held:?}");
    assert_eq!(applied(&site.path()), [1]);
}

#[tokio::test]
async fn rf22_an_old_database_under_a_new_code_is_seen_and_upgraded() {
    let (site, [_, (bad_id, now)]) = two(1, 4, SQL).await;
    // Restored from a backup of the release before.
    fs::remove_file(site.at("shop.db")).unwrap();
    release(&site.path(), 1);
    files(&site.path(), 4);
    let asked = [wanted(&bad_id, &now)];
    let seen = survey(&site, &asked).await;
    assert_ne!(seen.seen, Seen::At(now.revision.clone()));
    let proposed = drafts(&site, seen, &asked[0]).unwrap();
    assert_eq!(proposed.len(), 4);
    carried_out(&site, 3, proposed).await;
    assert_eq!(applied(&site.path()), [1, 2, 3, 4]);
    assert_eq!(site.seen().await, Seen::At(now.revision));
}

#[tokio::test]
async fn rows_that_stand_in_the_way_are_named_by_their_keys() {
    let (site, [(id, made), (bad_id, now)]) = two(2, 3, SQL).await;
    let asked = [wanted(&bad_id, &now), wanted(&id, &made)];
    let proposed = drafts(&site, survey(&site, &asked).await, &asked[1]).unwrap();
    carried_out(&site, 3, proposed).await;
    execute(
        &site.path(),
        "INSERT INTO orders (id, what, note) VALUES (70, 'tea', 'canary-9a'), (71, 'tea', 'canary-9b')",
    );
    let asked = [wanted(&id, &made), wanted(&bad_id, &now)];
    let proposed = drafts(&site, survey(&site, &asked).await, &asked[1]).unwrap();
    let refused = failed(site.apply(4, &as_step(0, proposed[0].clone())).await);
    assert!(refused.contains("3 rows of orders have the same what: id 1, 70, 71"), "{refused}");
    assert!(!refused.contains("canary"), "{refused}");
    assert_eq!(applied(&site.path()), [1, 2], "nothing of it was done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_not_had_is_an_error_in_time() {
    let settings = format!("{SQL}\nlock-timeout: 100ms\nwhen-rolled-back: down");
    let (site, [(id, made), (bad_id, now)]) = two(1, 2, &settings).await;
    let asked = [wanted(&bad_id, &now), wanted(&id, &made)];
    let proposed = drafts(&site, survey(&site, &asked).await, &asked[1]).unwrap();
    let holder = open(&site.path());
    holder.execute_batch("BEGIN IMMEDIATE; INSERT INTO orders (what) VALUES ('held')").unwrap();
    let outcome = site.apply(3, &as_step(0, proposed[0].clone())).await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.retry, ripcord_core::Retry::Later, "{failure:?}");
    assert!(failure.what.contains("a lock was not had within 100 ms"), "{failure:?}");
    holder.execute_batch("ROLLBACK").unwrap();
    assert_eq!(applied(&site.path()), [1, 2]);
    carried_out(&site, 3, proposed).await;
    assert_eq!(applied(&site.path()), [1]);
}

#[tokio::test]
async fn rf15_killed_anywhere_the_record_and_the_schema_agree_and_it_goes_on() {
    let (site, [(id, made), _]) = two(1, 4, SQL).await;
    let step = restore_step(&id, &made);
    for at in 1.. {
        assert!(at < 60, "the child never gets through");
        let run = 100 + u64::from(at);
        let through = site.in_child(run, &step, &Child { kill_at: Some(at), ..Child::default() });
        let known = applied(&site.path());
        let tables: i64 = open(&site.path())
            .query_row("SELECT count(*) FROM sqlite_master WHERE name IN ('tags', 'by_what')", [], |row| row.get(0))
            .unwrap();
        assert_eq!(
            usize::try_from(tables).unwrap(),
            known.iter().filter(|n| **n > 2).count(),
            "killed at {at}: {known:?}"
        );
        let (component, cx) = (site.component(), run_cx(run));
        let holds = component.holds(&cx, &step, Some(&before(run, &step, None))).await.holds;
        assert!(!matches!(holds, Holds::CannotTell { .. }), "{holds:?}");
        proof(component.apply(&cx, &step, &before(run, &step, None)).await);
        assert_eq!(applied(&site.path()), [1], "killed at {at}");
        if through.is_some() {
            assert!(at > 4, "it has places to be killed at");
            return;
        }
        release(&site.path(), 4);
    }
}

fn columns(site: &Path, table: &str) -> Vec<BTreeMap<String, String>> {
    let db = open(site);
    let mut asked = db.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
    let names: Vec<String> = asked.column_names().map(str::to_owned).collect();
    let rows = asked.query_map([], |row| {
        let value = |(i, name): (usize, &String)| Ok((name.clone(), format!("{:?}", row.get_ref(i)?)));
        names.iter().enumerate().map(value).collect()
    });
    rows.unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn sqlx_finds_its_table_as_it_left_it() {
    let site = Site::new("migrations", "tool: sqlx\ndirectory: migrations\ndatabase: { sqlite: shop.db }");
    let path = site.path();
    files(&path, 1);
    let db = open(&path);
    db.execute_batch(
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, execution_time BIGINT NOT NULL)",
    )
    .unwrap();
    let apply = |n: usize| {
        let (name, up, _) = ALL[n - 1];
        db.execute_batch(up).unwrap();
        let said = name.split_once('_').unwrap().1.replace('_', " ");
        let sum = sha2::Sha384::digest(up.as_bytes()).to_vec();
        let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (?1, ?2, TRUE, ?3, -1)";
        db.execute(insert, (i64::try_from(n).unwrap(), said, sum)).unwrap();
    };
    apply(1);
    let (id, made) = site.capture(1).await;
    files(&path, 3);
    apply(2);
    apply(3);
    let (bad_id, now) = site.capture(2).await;
    let there = columns(&path, "_sqlx_migrations");

    let asked = [wanted(&bad_id, &now), wanted(&id, &made)];
    let proposed = drafts(&site, survey(&site, &asked).await, &asked[1]).unwrap();
    carried_out(&site, 3, proposed).await;
    assert_eq!(columns(&path, "_sqlx_migrations"), there[..1]);
    let asked = [wanted(&id, &made), wanted(&bad_id, &now)];
    let proposed = drafts(&site, survey(&site, &asked).await, &asked[1]).unwrap();
    carried_out(&site, 4, proposed).await;
    let again = columns(&path, "_sqlx_migrations");
    for (one, was) in again.iter().zip(&there) {
        let plain = |row: &BTreeMap<String, String>| {
            row.iter()
                .filter(|(name, _)| *name != "installed_on")
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(plain(one), plain(was));
    }
    // Begun and not finished.
    db.execute("UPDATE _sqlx_migrations SET success = FALSE WHERE version = 3", []).unwrap();
    let seen = survey(&site, &asked).await;
    assert!(
        matches!(&seen.seen, Seen::Between { why } if why.starts_with("migration 3 was begun and not finished")),
        "{seen:?}"
    );
    let refused = failed(site.apply(5, &restore_step(&id, &made)).await);
    assert!(refused.contains("Ripcord never does"), "{refused}");
}

#[tokio::test]
async fn a_capture_says_when_the_files_are_another_release_s() {
    let site = Site::new("migrations", SQL);
    release(&site.path(), 3);
    files(&site.path(), 1);
    let done = proof(site.apply(1, &capture_step(CapturePurpose::Protective)).await);
    assert!(done.found.contains("the files are not those that made it: they do not know `2`"), "{}", done.found);
    assert_eq!(done.capture.unwrap().label.as_deref(), Some("at 3, 3 migrations applied"));
}

#[tokio::test]
async fn what_is_missing_or_damaged_is_said_before_anything() {
    let (site, [(id, made), _]) = two(1, 3, SQL).await;
    let never = Revision::exact("sql:never");
    for capture in [None, Some(id.clone())] {
        let available = site.available(Wanted { revision: never.clone(), capture }).await;
        assert!(matches!(available, Available::Missing { .. }), "{available:?}");
    }
    // Without the bad release's capture, and with the files gone.
    files(&site.path(), 1);
    let available = site.available(wanted(&id, &made)).await;
    let Available::Missing { why } = available else { panic!("{available:?}") };
    assert_eq!(why, "the migration files of what is there do not know `3`");
    site.damage_vault();
    assert!(matches!(site.available(wanted(&id, &made)).await, Available::Missing { .. }));
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    assert!(matches!(site.apply(3, &prove).await, Outcome::Failed(_)));
    assert!(matches!(site.apply(3, &restore_step(&id, &made)).await, Outcome::Failed(_)));
    assert_eq!(applied(&site.path()), [1, 2, 3]);
    fs::remove_file(site.at("shop.db")).unwrap();
    assert!(matches!(site.seen().await, Seen::Unreachable { .. }));
}

#[tokio::test]
async fn a_rehearsal_makes_evidence_of_what_was_only_read() {
    let settings = format!("{SQL}\nrehearse: {{ database: {{ sqlite: copy.db }}, newest: 2 }}");
    let site = Site::new("migrations", settings);
    release(&site.path(), 2);
    execute(&site.path(), "INSERT INTO orders (what) VALUES ('tea')");
    let (id, made) = site.capture(1).await;
    release(&site.path(), 4);
    let (bad_id, now, found) = released(&site, 2).await;
    assert!(found.ends_with("2 of 2 rehearsed on a copy"), "{found}");
    let asked = [wanted(&bad_id, &now), wanted(&id, &made)];
    let seen = survey(&site, &asked).await;
    let said: Vec<_> =
        seen.facts.iter().filter(|(name, _)| name.starts_with("between")).map(|(_, words)| words.as_str()).collect();
    let rehearsed = "down-tested (rehearsed on a copy with its rows: down, up and down again, with the schema and the rows as before)";
    assert!(said.iter().any(|words| words.starts_with(rehearsed)), "{said:?}");
    assert_eq!(applied(&site.path()), [1, 2, 3, 4], "the live one was not touched");
    assert!(!site.at("copy.db").exists() && !site.at("copy.part").exists());

    // A way down that reads well and loses what it should not.
    fs::write(site.at("migrations/0004_tags.down.sql"), "DROP TABLE tags; UPDATE orders SET what = what || '!';")
        .unwrap();
    let (worse_id, worse, _) = released(&site, 4).await;
    let asked = [wanted(&worse_id, &worse), wanted(&id, &made)];
    let seen = survey(&site, &asked).await;
    let Some(Available::Missing { why }) = seen.available(&made.revision) else { panic!("{seen:?}") };
    assert!(why.contains("its rehearsal failed: rows of orders are others"), "{why}");

    // What is not a copy of ours is not replaced, the live database least of all.
    for name in ["copy.db", "shop.db"] {
        let site = Site::new("migrations", format!("{SQL}\nrehearse: {{ database: {{ sqlite: {name} }} }}"));
        release(&site.path(), 3);
        if name == "copy.db" {
            Connection::open(site.at(name)).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
        }
        let refused = not_released(&site, 5).await;
        assert!(refused.contains("is no copy of Ripcord's: it is not replaced"), "{refused}");
        assert_eq!(applied(&site.path()), [1, 2, 3]);
    }
}
