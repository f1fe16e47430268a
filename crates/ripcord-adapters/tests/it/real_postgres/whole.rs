//! What is equal after a restore, and that everything that is not is accounted for.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ripcord_core::{Action, CapturePurpose, Holds, Loss, RowLoss, Seen, Wanted};
use tokio_postgres::{Config, NoTls};

use super::server::{PASSWORD, PORT, Server, bin, shared};
use super::{BAD, content, fresh, name, site, site_named};
use crate::contract::{Child, Site, before, capture_step, names, restore_step, run_cx};
use crate::support::{place, proof, step, until};

const RICH: &str = r#"
    CREATE SCHEMA "a.b c"; CREATE EXTENSION pg_trgm; CREATE EXTENSION hstore SCHEMA "a.b c";
    CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE "a.b c"."Table "" x" ("Sp alte" text PRIMARY KEY, v varchar(9) CHECK (v IN ('x', 'y')), m mood, p positive, j jsonb, b bytea, t timestamptz, f float8);
    INSERT INTO "a.b c"."Table "" x" VALUES ('ä''ö\', 'x', 'ok', 3, '{"a": [1, null]}', '\x00ff', '2026-01-01 12:00+02', 'NaN'), ('', NULL, NULL, NULL, NULL, NULL, NULL, 0.1);
    CREATE TABLE parts (id bigserial, at date NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE parts_26 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO parts (at) SELECT '2026-02-01'::date + n FROM generate_series(1, 20) n;
    CREATE TABLE dropped (a int, b int, c int); ALTER TABLE dropped DROP COLUMN b; INSERT INTO dropped VALUES (1, 2), (1, 2);
    CREATE VIEW cheap WITH (security_barrier) AS SELECT id, what FROM orders WHERE cents < 5;
    CREATE MATERIALIZED VIEW sums AS SELECT sum(cents) FROM orders;
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN NEW.what := NEW.what || '!'; RETURN NEW; END $$;
    CREATE TRIGGER noted BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE orders DISABLE TRIGGER noted;
    CREATE TABLE tenants (id int PRIMARY KEY, owner text); ALTER TABLE tenants ENABLE ROW LEVEL SECURITY; ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
    CREATE POLICY own ON tenants FOR SELECT TO pgt_reader USING (owner = current_user); INSERT INTO tenants VALUES (1, 'pgt_reader'), (2, 'other');
    ALTER TABLE tenants OWNER TO pgt_owner; GRANT SELECT (id), UPDATE ON tenants TO pgt_reader WITH GRANT OPTION; GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO pgt_reader;
    ALTER DEFAULT PRIVILEGES FOR ROLE pgt_owner GRANT SELECT ON TABLES TO pgt_reader; REVOKE ALL ON FUNCTION note() FROM PUBLIC;
    SELECT setval('parts_id_seq', 4711); CREATE STATISTICS s ON id, at FROM parts; COMMENT ON TABLE orders IS 'it''s';
    SELECT lo_from_bytea(0, 'a large one'); CREATE PUBLICATION pub FOR TABLE orders; CREATE UNLOGGED TABLE quick (n int);
    CREATE TABLE later (a int PRIMARY KEY, b int REFERENCES later DEFERRABLE INITIALLY DEFERRED); ALTER TABLE later ADD CONSTRAINT nv CHECK (a > 0) NOT VALID;
"#;

/// Roles are the server's, not a database's: made once for all tests.
fn roles(server: &Server) {
    for role in ["pgt_owner", "pgt_reader"] {
        let _ = server.try_sql("postgres", &format!("CREATE ROLE {role}"));
    }
}

/// All there is to a database, as `pg_dump` says it; without what it makes up anew each time.
fn dumped(server: &Server, database: &str) -> String {
    let mut command = Command::new(bin().join("pg_dump"));
    command.args([
        "--create",
        "--dbname",
        &format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'")),
    ]);
    command
        .env("PGHOST", server.run())
        .env("PGPORT", PORT.to_string())
        .env("PGUSER", "ripcord")
        .env("PGPASSWORD", PASSWORD);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // `v IN ('x', 'y')` is printed in another way once it was dumped and read again; our own mark is no part of the content.
    let made_up =
        |line: &&str| line.starts_with("\\restrict") || line.starts_with("\\unrestrict") || line.contains("ANY (");
    let ours = |line: &&str| line.contains("SET \"ripcord.") || line.contains("SET ripcord.");
    text.lines().filter(|line| !made_up(line) && !ours(line)).collect::<Vec<_>>().join("\n")
}

fn same(before: &str, after: &str) {
    let only = |a: &str, b: &str| {
        a.lines().filter(|line| !b.lines().any(|other| other == *line)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((only(before, after), only(after, before)), (vec![], vec![]));
    // The order of what is independent follows the server's own numbers.
    assert_eq!(before.lines().count(), after.lines().count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf21_all_of_a_database_is_equal_afterwards_whatever_it_is_called() {
    let server = shared();
    roles(server);
    let number = fresh("");
    let long =
        |c: char, bytes: usize| format!("{}{}", c.to_string().repeat((bytes - number.len()) / c.len_utf8()), number);
    for live in
        [format!("Größe \"der\" Läden' \\{number}"), long('x', 63), long('ü', 62), format!("postgresql://a=b{number}")]
    {
        let site = site_named(server, &live);
        let quoted = live.replace('"', "\"\"");
        server.sql(&live, RICH);
        server.sql(
            "postgres",
            &format!(
                "ALTER DATABASE \"{quoted}\" SET search_path = \"$user\", public, \"a.b c\"; ALTER DATABASE \"{quoted}\" SET app.tenant = 'a, \"b\"';
                 ALTER ROLE pgt_reader IN DATABASE \"{quoted}\" SET work_mem = '5MB'; ALTER DATABASE \"{quoted}\" CONNECTION LIMIT 40;
                 COMMENT ON DATABASE \"{quoted}\" IS 'the shop''s'; ALTER DATABASE \"{quoted}\" OWNER TO pgt_owner;
                 REVOKE CONNECT ON DATABASE \"{quoted}\" FROM PUBLIC; GRANT CONNECT, TEMP ON DATABASE \"{quoted}\" TO pgt_reader WITH GRANT OPTION;"
            ),
        );
        let whole = dumped(server, &live);
        let (id, made) = site.capture(1).await;
        assert_eq!(site.seen().await, Seen::At(made.revision.clone()), "{live}");
        server.sql(&live, "DROP TABLE later; DROP POLICY own ON tenants; DELETE FROM \"a.b c\".\"Table \"\" x\"; SELECT nextval('parts_id_seq')");
        server.sql(
            "postgres",
            &format!("ALTER DATABASE \"{quoted}\" RESET app.tenant; COMMENT ON DATABASE \"{quoted}\" IS NULL"),
        );
        assert_ne!(site.seen().await, Seen::At(made.revision.clone()), "{live}");
        let done = site.restore(2, &id, &made).await;
        same(&whole, &dumped(server, &live));
        assert_eq!(site.seen().await, Seen::At(made.revision), "{live}");
        let aside = done.set_aside.iter().find(|place| place.starts_with("database ")).unwrap();
        let aside = aside.strip_prefix("database \"").unwrap().strip_suffix('"').unwrap().replace("\"\"", "\"");
        assert!(aside.len() <= 63);
        assert_eq!(
            server.sql(&aside, "SELECT count(*) FROM pg_policy"),
            "0",
            "{live}: the former one is whole, and can be read"
        );
        assert!(server.try_sql(&aside, "DELETE FROM orders").unwrap_err().contains("read-only"), "{live}");
        let there = server.databases(&live.chars().take(5).collect::<String>());
        assert!(!there.iter().any(|one| one.contains("_ripcord_")), "{there:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_database_is_told_from_an_empty_dump() {
    let server = shared();
    let live = fresh("empty");
    server.sql("postgres", &format!("CREATE DATABASE \"{live}\""));
    let site = Site::new("postgres", server.settings(&live));
    super::found(&site.path(), &live);
    let (id, made) = site.capture(1).await;
    assert!(made.bytes > 500, "an empty database has a dump with a head: {}", made.bytes);
    server.sql(&live, "CREATE TABLE t AS SELECT 1 AS n");
    let done = site.restore(2, &id, &made).await;
    assert_eq!(server.sql(&live, "SELECT count(*) FROM pg_class WHERE relname = 't'"), "0");
    assert_eq!(done.lost.unwrap().total_rows(), 1);
}

async fn losses(site: &Site, wanted: &Wanted) -> Loss {
    let survey = site.component().survey(&run_cx(1), &place(), std::slice::from_ref(wanted)).await;
    assert_eq!(survey.losses.len(), 1, "{survey:?}");
    survey.losses[0].1.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_is_counted_and_comes_back() {
    let server = shared();
    let (site, live) = site(server, "lost");
    server.sql(&live, "CREATE TABLE plain (a int, b text); INSERT INTO plain VALUES (1, NULL), (1, NULL), (2, 'x')");
    let (id, made) = site.capture(1).await;
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    assert!(losses(&site, &wanted).await.is_none());
    server.sql(&live, BAD);
    server.sql(
        &live,
        "DELETE FROM plain WHERE ctid = '(0,1)'; INSERT INTO plain VALUES (3, E'it''s \\\\ \"q\"\\n'); DROP TABLE added;
         INSERT INTO orders (what, cents) VALUES ('new', 5); UPDATE orders SET what = 'newer' WHERE what = 'new'; ALTER TABLE big ADD COLUMN note text",
    );
    let bad = content(server, &live);
    let surveyed = losses(&site, &wanted).await;
    let counted =
        |loss: &Loss, table: &str| loss.rows.get(&format!("part.public.{table}")).copied().unwrap_or_default();
    let orders = RowLoss { inserted: 3, updated: 2, deleted: 2 };
    assert_eq!(counted(&surveyed, "orders"), orders, "changes, as the server counted them: {surveyed:?}");
    assert!(surveyed.how.as_ref().unwrap().starts_with("from the server's statistics since 20"), "{surveyed:?}");
    assert!(surveyed.since.is_some());

    let done = site.restore(2, &id, &made).await;
    let lost = done.lost.clone().unwrap();
    assert_eq!(
        counted(&lost, "orders"),
        RowLoss { inserted: 3, updated: 1, deleted: 2 },
        "rows, as they are: {lost:?}"
    );
    assert_eq!(counted(&lost, "plain"), RowLoss { inserted: 1, updated: 0, deleted: 1 });
    assert_eq!(lost.rows.len(), 2, "{lost:?}");
    let salvage = std::path::PathBuf::from(done.set_aside.iter().find(|place| place.contains(".salvage-")).unwrap());
    use std::os::unix::fs::MetadataExt;
    for name in names(&salvage) {
        assert_eq!(fs::metadata(salvage.join(&name)).unwrap().mode() & 0o077, 0, "{name}");
    }
    assert!(
        fs::read_to_string(salvage.join("README"))
            .unwrap()
            .contains("public.orders.sql: 3 inserted, 1 updated, 2 deleted")
    );
    for file in names(&salvage).into_iter().filter(|name| name.ends_with(".sql")) {
        let sql = fs::read_to_string(salvage.join(&file)).unwrap();
        server.sql(&live, &sql);
        if file.contains("orders") {
            // What inserts runs a second time and does nothing.
            server.sql(&live, &sql);
        }
    }
    server.sql(&live, "ALTER TABLE big ADD COLUMN note text");
    assert_eq!(content(server, &live), bad, "all rows are back");
    let surveyed = losses(&site, &wanted).await;
    assert!(
        counted(&surveyed, "orders").inserted >= 3,
        "what is written after a restore is counted from it: {surveyed:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_statistics_cannot_tell_is_said() {
    let server = shared();
    let (site, live) = site(server, "stats");
    let (id, made) = site.capture(1).await;
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    server.sql(&live, "TRUNCATE big");
    let loss = losses(&site, &wanted).await;
    assert_eq!(loss.other, ["part.public.big was emptied or rewritten, which is not counted in rows"]);
    assert!(loss.since.is_some() && !loss.is_none());
    server.sql(&live, "SELECT pg_stat_reset()");
    let loss = losses(&site, &wanted).await;
    assert!(loss.other[0].contains("cannot be counted: the server's statistics were reset since"), "{loss:?}");
    assert_eq!(loss.how.as_deref(), Some("not comparable"));
    // The restore itself compares rows, and counts what was rewritten too.
    let lost = site.restore(2, &id, &made).await.lost.unwrap();
    assert_eq!(lost.rows["part.public.big"], RowLoss { inserted: 0, updated: 0, deleted: 60 });
    server.sql(&live, "TRUNCATE big");
    assert!(!losses(&site, &wanted).await.is_none(), "as it was restored, and then emptied");
    assert!(!matches!(site.seen().await, Seen::At(revision) if revision == made.revision));
}

/// Users of a database who come back whatever happens, and know what was acknowledged.
struct Pool {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<(BTreeSet<i64>, BTreeSet<String>)>>,
    written: Arc<AtomicU64>,
}

impl Pool {
    fn start(server: &Server, database: &str, users: i64) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut config = Config::new();
        config.host_path(server.run()).port(PORT).user("ripcord").password(PASSWORD).dbname(database);
        let tasks = (0..users).map(|user| {
            let (stop, written, config) = (Arc::clone(&stop), Arc::clone(&written), config.clone());
            tokio::spawn(async move {
                let (mut acknowledged, mut errors, mut number) = (BTreeSet::new(), BTreeSet::new(), user * 1_000_000);
                while !stop.load(Ordering::Relaxed) {
                    let (client, connection) = match config.connect(NoTls).await {
                        Ok(connected) => connected,
                        Err(error) => {
                            errors.insert(
                                error.code().map_or_else(|| "closed".to_owned(), |code| code.code().to_owned()),
                            );
                            tokio::time::sleep(Duration::from_millis(2)).await;
                            continue;
                        }
                    };
                    let ends = tokio::spawn(connection);
                    while !stop.load(Ordering::Relaxed) {
                        number += 1;
                        match client.execute("INSERT INTO written VALUES ($1)", &[&number]).await {
                            Ok(_) => {
                                acknowledged.insert(number);
                                written.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => {
                                errors.insert(
                                    error.code().map_or_else(|| "closed".to_owned(), |code| code.code().to_owned()),
                                );
                                break;
                            }
                        }
                    }
                    drop(client);
                    let _ = ends.await;
                }
                (acknowledged, errors)
            })
        });
        let tasks = tasks.collect();
        Self { stop, tasks, written }
    }

    async fn more(&self, rows: u64) {
        let from = self.written.load(Ordering::Relaxed);
        until("the pool writes", || async { self.written.load(Ordering::Relaxed) >= from + rows }).await;
    }

    async fn end(self) -> (BTreeSet<i64>, BTreeSet<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut all, mut errors) = (BTreeSet::new(), BTreeSet::new());
        for task in self.tasks {
            let (acknowledged, said) = task.await.unwrap();
            all.extend(acknowledged);
            errors.extend(said);
        }
        (all, errors)
    }
}

fn numbers(text: &str) -> BTreeSet<i64> {
    text.lines().filter(|line| !line.is_empty()).map(|line| line.trim_matches('"').parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf11_every_acknowledged_row_is_accounted_for() {
    let server = shared();
    let (site, live) = site(server, "pool");
    server.sql(&live, "CREATE TABLE written (n bigint PRIMARY KEY)");
    let pool = Pool::start(server, &live, 4);
    pool.more(50).await;
    // Captured while they write: what it has is of one moment.
    let (id, made) = site.capture(1).await;
    pool.more(200).await;
    assert!(!matches!(site.seen().await, Seen::At(revision) if revision == made.revision), "written to since");
    let done = site.restore(2, &id, &made).await;
    pool.more(50).await;
    let (acknowledged, errors) = pool.end().await;
    // Ended; or let in after the exchange under a name that was the former's.
    let expected: BTreeSet<String> = ["57P01", "3D000", "closed"].map(str::to_owned).into();
    assert!(errors.is_subset(&expected), "{errors:?}");
    let aside = &server.databases(&live)[1];
    assert!(aside.contains("_before_"), "{aside}");
    let now = numbers(&server.sql(&live, "SELECT n FROM written"));
    let former = numbers(&server.sql(aside, "SELECT n FROM written"));
    assert!(acknowledged.iter().all(|n| now.contains(n) || former.contains(n)), "a row is nowhere");
    let csv = site.at(&names(&site.path()).into_iter().find(|name| name.contains(".salvage-")).unwrap());
    let csv = fs::read_to_string(csv.join("public.written.csv")).unwrap();
    let salvaged =
        numbers(&csv.lines().filter_map(|line| line.strip_prefix("inserted,")).collect::<Vec<_>>().join("\n"));
    let missing: Vec<_> = acknowledged.iter().filter(|n| !now.contains(n) && !salvaged.contains(n)).collect();
    assert!(missing.is_empty(), "not salvaged, though set aside: {missing:?}");
    assert_eq!(done.lost.unwrap().rows["part.public.written"].inserted, u64::try_from(salvaged.len()).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf11_killed_anywhere_with_users_connected_none_is_kept_out_and_no_row_is_lost() {
    let server = shared();
    let (site, live) = site(server, "users");
    server.sql(&live, "CREATE TABLE written (n bigint PRIMARY KEY)");
    let (id, made) = site.capture(1).await;
    let (step, pool) = (restore_step(&id, &made), Pool::start(server, &live, 3));
    let mut through = false;
    for at in (1..400).step_by(4) {
        let run = 100 + u64::from(at);
        pool.more(20).await;
        let child = Child { kill_at: Some(at), ..Child::default() };
        through = tokio::task::block_in_place(|| site.in_child(run, &step, &child)).is_some();
        // Whatever it was killed at, there is a database under the live name, and it takes what is written.
        pool.more(5).await;
        if through {
            break;
        }
        let before = before(run, &step, None);
        let holds = site.component().holds(&run_cx(run), &step, Some(&before)).await.holds;
        assert!(!matches!(holds, Holds::CannotTell { .. }), "killed at {at}: {holds:?}");
        if holds != Holds::Target {
            proof(site.component().apply(&run_cx(run), &step, &before).await);
        }
        assert_eq!(
            site.component().holds(&run_cx(run), &step, Some(&before)).await.holds,
            Holds::Target,
            "killed at {at}"
        );
    }
    assert!(through, "the child never gets through");
    let (acknowledged, _) = pool.end().await;
    let mut kept = BTreeSet::new();
    for database in server.databases(&live) {
        assert!(database == live || database.contains("_before_"), "{database} is left");
        kept.extend(numbers(&server.sql(&database, "SELECT n FROM written")));
    }
    assert!(acknowledged.is_subset(&kept), "lost: {:?}", acknowledged.difference(&kept).take(5).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf12_what_cannot_be_read_of_the_former_does_not_keep_the_system_down() {
    let server = Server::start();
    let (site, live) = site(&server, "broken");
    let (id, made) = site.capture(1).await;
    server.sql(&live, BAD);
    let file = server.sql(&live, "CHECKPOINT; SELECT pg_relation_filepath('big')");
    fs::remove_file(server.dir.join("data").join(file)).unwrap();
    // What is in memory is forgotten with a restart.
    rustix::process::kill_process(rustix::process::Pid::from_raw(server.pid()).unwrap(), rustix::process::Signal::QUIT)
        .unwrap();
    let pid = server.pid();
    until("the server ends", || async { !crate::support::runs(&pid.to_string()) }).await;
    server.up();
    let refused = site.apply(2, &capture_step(CapturePurpose::Protective)).await;
    assert!(matches!(refused, ripcord_core::Outcome::Failed(_)), "half a dump is no capture: {refused:?}");
    let done = site.restore(3, &id, &made).await;
    assert_eq!(server.sql(&live, "SELECT count(*) FROM big"), "60");
    let lost = done.lost.unwrap();
    assert!(
        lost.other.iter().any(|other| other.starts_with("part.public.big: not all of its rows could be read")),
        "{lost:?}"
    );
    assert_eq!(lost.rows["part.public.orders"].inserted, 2, "and the others were compared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_restores_on_trial_and_leaves_nothing() {
    let server = shared();
    let (site, live) = site(server, "proof");
    let (id, made) = site.capture(1).await;
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    let found = proof(site.apply(2, &prove).await).found;
    assert!(found.starts_with("restored to a scratch database and compared: LSN "), "{found}");
    assert_eq!(server.databases(&live), std::slice::from_ref(&live));
    assert_eq!(names(&site.path()), ["name", "password"]);
    assert_eq!(name(&site.path()), live);
    let listed = site.with(&format!("{}prove: listed", server.settings(&live)));
    let found = proof(listed.apply(3, &prove).await).found;
    assert!(found.contains("read back, 2 tables listed; not restored on trial"), "{found}");
}
