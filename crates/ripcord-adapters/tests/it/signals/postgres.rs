//! PostgreSQL as it is for others, seen on a real server.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ripcord_core::{Reading, Signal};
use serde_json::json;

use crate::real_postgres::server::{PASSWORD, PORT, Server, bin, shared};
use crate::support::{Bench, cx_at, sample, why};

/// A database of its own on a server, with settings that name it.
struct Case<'a> {
    server: &'a Server,
    database: String,
    bench: Bench,
}

impl<'a> Case<'a> {
    fn new(server: &'a Server, database: &str) -> Self {
        let database = format!("{database}_{}", std::process::id());
        server.sql("postgres", &format!("CREATE DATABASE {database}"));
        let bench = Bench::new();
        bench.secret("password", PASSWORD);
        Self { server, database, bench }
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql)
    }

    fn signal(&self, more: &str) -> std::sync::Arc<dyn Signal> {
        self.bench.signal("postgres", &format!("{}{more}", self.server.settings(&self.database)))
    }

    /// Ends the sessions of those who said everything, once there is one. The server does not see that a program of theirs is gone.
    async fn end_those_who_sleep(&self) {
        let began = Instant::now();
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name = 'somebody' AND datname = current_database() AND wait_event = 'PgSleep'";
        while self.sql(end) == "0" {
            assert!(began.elapsed() < Duration::from_secs(60), "nobody came");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Somebody who says this and stays.
    fn says(&self, sql: &str) -> Somebody {
        let mut command = Command::new(bin().join("psql"));
        command.args(["-XAtq", "-c", sql, "-c", "SELECT pg_sleep(600)"]).env("PGHOST", self.server.run());
        command.env("PGPORT", PORT.to_string()).env("PGUSER", "ripcord").env("PGPASSWORD", PASSWORD);
        command.env("PGDATABASE", &self.database).env("PGAPPNAME", "somebody");
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Somebody(quiet.spawn().unwrap())
    }
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        let _ = self.server.try_sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.database));
    }
}

struct Somebody(Child);

impl Drop for Somebody {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn read(signal: &dyn Signal) -> Reading {
    signal.read(&cx_at(Timestamp::now(), Duration::from_secs(60))).await
}

async fn value(signal: &dyn Signal) -> f64 {
    sample(read(signal).await).value
}

/// Reads until the value is as wanted.
async fn until(signal: &dyn Signal, what: &str, wanted: impl Fn(f64) -> bool) {
    let began = Instant::now();
    loop {
        let reading = read(signal).await;
        if let Reading::Samples(samples) = &reading
            && samples.iter().any(|sample| wanted(sample.value))
        {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {reading:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_gives_one_number_and_only_reads() {
    let case = Case::new(shared(), "signal_query");
    case.sql("CREATE TABLE orders (id int, note text); INSERT INTO orders VALUES (1, 'a'), (2, NULL)");
    let query = |sql: &str| case.signal(&format!("query: \"{sql}\""));
    let found = sample(read(&*query("SELECT count(*), max(note) AS note, true AS yes FROM orders")).await);
    assert_eq!((found.value, &found.fields["rows"]), (2.0, &json!([{ "count": 2, "note": "a", "yes": true }])));
    assert_eq!(value(&*query("SELECT count(*) > 5 FROM orders")).await, 0.0, "a truth is a number");
    assert_eq!(read(&*query("SELECT note FROM orders WHERE id = 2")).await, Reading::Empty);
    assert_eq!(read(&*query("SELECT 1 FROM orders WHERE id = 9")).await, Reading::Empty);
    let text = why(read(&*query("SELECT note FROM orders")).await);
    assert!(text.contains("is no number"), "{text}");
    let text = why(read(&*query("DELETE FROM orders RETURNING id")).await);
    assert!(text.contains("read-only transaction"), "{text}");
    assert_eq!(case.sql("SELECT count(*) FROM orders"), "2");
    let text = why(read(&*query("SELECT 1 FROM none")).await);
    assert!(text.contains("\"none\" does not exist"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_hold_for_a_query_and_others_are_not_seen_without_the_right() {
    let case = Case::new(shared(), "signal_role");
    let role = format!("watcher_{}", std::process::id());
    case.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; CREATE TABLE rows (tenant int); INSERT INTO rows VALUES (1), (2), (2);
         ALTER TABLE rows ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON rows USING (tenant = 1); GRANT SELECT ON rows TO {role}"
    ));
    let settings = case.server.settings(&case.database).replace("user: ripcord", &format!("user: {role}"));
    let signal = |more: &str| case.bench.signal("postgres", &format!("{settings}{more}"));
    assert_eq!(value(&*signal("query: SELECT count(*) FROM rows")).await, 1.0);
    let text = why(read(&*signal("measure: blocked")).await);
    assert!(text.contains("GRANT pg_monitor"), "{text}");
    case.sql(&format!("GRANT pg_monitor TO {role}"));
    assert_eq!(value(&*signal("measure: blocked")).await, 0.0);
    // Not the subject's failure: nobody knows how it is.
    let wrong = settings.replace("{ file: password }", "{ file: wrong }");
    case.bench.secret("wrong", "not the password");
    let text = why(read(&*case.bench.signal("postgres", &wrong)).await);
    assert!(text.contains("lets nobody into") && !text.contains("not the password"), "{text}");
    case.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_whom_is_counted() {
    let case = Case::new(shared(), "signal_blocked");
    case.sql("CREATE TABLE held (n int)");
    let (blocked, longest) = (case.signal("measure: blocked"), case.signal("measure: longest-transaction"));
    assert_eq!((value(&*blocked).await, value(&*longest).await), (0.0, 0.0));
    let _holder = case.says("BEGIN; LOCK TABLE held");
    until(&*longest, "a transaction is open", |seconds| seconds > 0.0).await;
    let _waiter = case.says("SELECT * FROM held");
    until(&*blocked, "one waits", |count| count == 1.0).await;
    let row = sample(read(&*blocked).await).fields["rows"][0].clone();
    assert_eq!(
        (&row["application"], row["blocked_by"].as_str().map(|pids| pids.starts_with('{'))),
        (&json!("somebody"), Some(true))
    );
    assert!(!row.to_string().contains("held"), "what others ask is not kept: {row}");
    case.end_those_who_sleep().await;
    until(&*blocked, "none waits", |count| count == 0.0).await;
    let share = value(&*case.signal("measure: connections")).await;
    assert!(share > 0.0 && share < 1.0, "{share}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_a_share_of_what_was() {
    let case = Case::new(shared(), "signal_shares");
    case.sql("CREATE TABLE once (id int PRIMARY KEY); INSERT INTO once VALUES (1)");
    let (rollbacks, lost) = (case.signal("measure: rollbacks"), case.signal("measure: lost-sessions"));
    assert_eq!((read(&*rollbacks).await, read(&*lost).await), (Reading::Empty, Reading::Empty), "of what was before");
    for _ in 0..20 {
        assert!(case.server.try_sql(&case.database, "INSERT INTO once VALUES (1)").is_err());
    }
    until(&*rollbacks, "constraints were violated", |share| share > 0.0 && share <= 1.0).await;
    drop(case.says("SELECT 1"));
    drop(case.says("SELECT 1"));
    let ended = || {
        case.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'somebody' AND datname = current_database()")
    };
    let _somebody = case.says("SELECT 1");
    let began = Instant::now();
    while ended() == "0" {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until(&*lost, "a session was ended", |share| share > 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_fails() {
    let server = Server::start();
    let case = Case::new(&server, "signal_gone");
    let (failing, latency) = (case.signal(""), case.signal("measure: latency"));
    let query = case.signal("query: SELECT 1");
    assert_eq!((value(&*failing).await, value(&*query).await), (0.0, 1.0));
    assert!(value(&*latency).await < 60.0);
    rustix::process::kill_process(rustix::process::Pid::from_raw(server.pid()).unwrap(), rustix::process::Signal::INT)
        .unwrap();
    until(&*failing, "it is gone", |value| value == 1.0).await;
    assert_eq!(value(&*latency).await, 60.0, "as long as there is time");
    let said = sample(read(&*failing).await);
    assert!(said.fields["error"].as_str().is_some_and(|text| text.contains("cannot be reached")), "{said:?}");
    let text = why(read(&*query).await);
    assert!(text.contains("cannot be reached"), "what a query would say is not known: {text}");
}

/// A copy of a server that follows it.
struct Standby<'a>(&'a Server);

impl<'a> Standby<'a> {
    const PORT: u16 = PORT + 1;

    fn of(server: &'a Server) -> Self {
        let to = server.dir.join("standby");
        let source = format!("host={} port={PORT} user=ripcord application_name=spare", server.run().display());
        let copied = Self::run(
            "pg_basebackup",
            &["-D", to.to_str().unwrap(), "-R", "-X", "stream", "-c", "fast", "-d", &source],
        );
        assert!(copied, "pg_basebackup");
        let standby = Self(server);
        let started = Self::run(
            "pg_ctl",
            &[
                "-D",
                to.to_str().unwrap(),
                "-w",
                "-s",
                "-l",
                to.join("log").to_str().unwrap(),
                "-o",
                &format!("-p {}", Self::PORT),
                "start",
            ],
        );
        assert!(started, "{}", std::fs::read_to_string(to.join("log")).unwrap_or_default());
        standby
    }

    /// As the server's own user, whose directory it is.
    fn run(program: &str, arguments: &[&str]) -> bool {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(bin().join(program)).args(arguments).current_dir("/");
        command.env("PGPASSWORD", PASSWORD).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    }

    fn stop(&self) {
        Self::run("pg_ctl", &["-D", self.0.dir.join("standby").to_str().unwrap(), "-m", "immediate", "-s", "stop"]);
    }
}

impl Drop for Standby<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_a_standby_is_behind_is_seen_from_both() {
    let server = Server::start();
    // The copy is made there, as the server's user.
    assert!(Command::new("chown").arg("postgres:").arg(&server.dir).status().unwrap().success());
    let case = Case::new(&server, "signal_standby");
    let missing = case.signal("measure: replication");
    assert_eq!(value(&*missing).await, 1.0);
    let text = why(read(&*case.signal("measure: replication-lag")).await);
    assert!(text.contains("no such standby"), "{text}");

    let standby = Standby::of(&server);
    until(&*missing, "it streams", |value| value == 0.0).await;
    assert_eq!(value(&*case.signal("measure: replication\nstandbys: [spare]")).await, 0.0);
    assert_eq!(value(&*case.signal("measure: replication\nstandbys: [spare, other]")).await, 1.0);
    let at_standby =
        server.settings(&case.database).replace(&format!("port: {PORT}"), &format!("port: {}", Standby::PORT));
    let there = |more: &str| case.bench.signal("postgres", &format!("{at_standby}{more}"));
    until(&*there("measure: replication"), "it receives", |value| value == 0.0).await;

    let bytes = case.signal("measure: replication-bytes");
    until(&*bytes, "it has everything", |behind| behind == 0.0).await;
    server.sql_at(Standby::PORT, "postgres", "SELECT pg_wal_replay_pause()").unwrap();
    case.sql("CREATE TABLE more AS SELECT generate_series(1, 10000)");
    until(&*bytes, "it lags", |behind| behind > 100_000.0).await;
    until(&*there("measure: replication-bytes"), "it knows", |behind| behind > 100_000.0).await;
    until(&*there("measure: replication-lag"), "it knows since when", |seconds| seconds > 0.0).await;
    server.sql_at(Standby::PORT, "postgres", "SELECT pg_wal_replay_resume()").unwrap();
    until(&*bytes, "it caught up", |behind| behind == 0.0).await;
    assert_eq!(value(&*case.signal("measure: replication-lag")).await, 0.0);

    standby.stop();
    until(&*missing, "it is gone", |value| value == 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_jobs_is_a_queue() {
    let case = Case::new(shared(), "signal_jobs");
    case.sql(
        "CREATE TABLE jobs (id int, state text); INSERT INTO jobs SELECT n, 'waiting' FROM generate_series(1, 5) n",
    );
    let connection =
        case.server.settings(&case.database).replace("\n  ", "\n    ").replace("connection:", "  connection:");
    let count = |state: &str| format!("SELECT count(*) FROM jobs WHERE state = '{state}'");
    let jobs = format!(
        "jobs:\n{connection}  waiting: {}\n  held: {}\n  done: {}\n",
        count("waiting"),
        count("held"),
        count("done")
    );
    let queue = |measure: &str| case.bench.signal("queue", &format!("{jobs}measure: {measure}"));
    assert_eq!(value(&*queue("length")).await, 5.0);
    let stalled = queue("stalled");
    assert_eq!(value(&*stalled).await, 0.0, "nothing is known of before");
    until(&*stalled, "nothing is done", |seconds| seconds > 0.0).await;
    case.sql("UPDATE jobs SET state = 'held' WHERE id = 1");
    assert!(value(&*stalled).await > 0.0, "taken and not done is no progress");
    case.sql("UPDATE jobs SET state = 'done' WHERE id = 1");
    assert_eq!(value(&*stalled).await, 0.0);
    assert_eq!(value(&*queue("length")).await, 4.0);
}
