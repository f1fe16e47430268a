//! Kills, damage, dumps of something else, and roles that may not.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ripcord_core::{
    Action, Available, CaptureId, CapturePurpose, Failure, HeldIn, Holds, Made, Outcome, Retry, Seen, Seq, Wanted,
};
use ripcord_vault::{Label, Manifest, Source};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::server::{PASSWORD, Server, shared};
use super::{BAD, GOOD, content, fresh, site};
use crate::contract::{Site, before, capture_step, names, restore_step, run_cx, vault};
use crate::support::{proof, step, until};

fn failed(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

/// A capture like another, with its dump and what is recorded beside it changed; on the record, and whole as far as the vault knows.
pub fn altered(
    site: &Site,
    like: &Made,
    id: u64,
    dump: impl FnOnce(Vec<u8>) -> Vec<u8>,
    about: impl FnOnce(&mut Value),
) -> (CaptureId, Made) {
    let HeldIn::Vault { manifest } = &like.held else { panic!("{like:?}") };
    let manifest: Manifest = serde_json::from_value(manifest.clone()).unwrap();
    let vault = vault(site.dir.path());
    let read = |path: &str| {
        let mut bytes = vec![];
        vault.read(&manifest, path, &mut bytes).unwrap();
        bytes
    };
    let mut recorded: Value = serde_json::from_slice(&read("about.json")).unwrap();
    about(&mut recorded);
    let source = |path: &str, bytes| Source::Bytes { path: path.to_owned(), bytes, mode: 0o600 };
    let sources =
        vec![source("dump", dump(read("dump"))), source("about.json", serde_json::to_vec(&recorded).unwrap())];
    let label = Label {
        app: "shop/test".into(),
        capture: id.to_string(),
        component: "part".into(),
        release: None,
        why: "altered".into(),
    };
    let manifest = vault.capture(&label, sources).unwrap();
    let made = Made {
        bytes: manifest.bytes,
        content: manifest.tree,
        held: HeldIn::Vault { manifest: serde_json::to_value(&manifest).unwrap() },
        ..like.clone()
    };
    let path = site.dir.path().join("captures.json");
    let mut record: BTreeMap<CaptureId, Made> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let id = CaptureId::at(Seq(id));
    record.insert(id.clone(), made.clone());
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    (id, made)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf12_a_dump_that_is_not_what_was_captured_is_refused_before_anything() {
    let server = shared();
    let (site, live) = site(server, "dumps");
    let (_, made) = site.capture(1).await;
    let (other, other_name) = super::site(server, "other");
    server.sql(&other_name, "DROP TABLE big; CREATE TABLE strange (n int)");
    let (_, other_made) = other.capture(1).await;
    let mut other_dump = vec![];
    let HeldIn::Vault { manifest } = &other_made.held else { panic!() };
    vault(other.dir.path()).read(&serde_json::from_value(manifest.clone()).unwrap(), "dump", &mut other_dump).unwrap();
    server.sql(&live, BAD);
    let (bad, there) = (content(server, &live), names(&site.path()));
    let nothing = |_: &mut Value| {};
    let cases = [
        ("cut short", altered(&site, &made, 11, |dump| dump[..dump.len() * 2 / 3].to_vec(), nothing)),
        ("empty", altered(&site, &made, 12, |_| vec![], nothing)),
        ("no dump", altered(&site, &made, 13, |_| b"SELECT 1; -- a script".to_vec(), nothing)),
        ("another database's", altered(&site, &made, 14, |_| other_dump, nothing)),
        (
            "one row less",
            altered(&site, &made, 15, |dump| dump, |about| about["tables"]["public.orders"] = json!({"counted": 11})),
        ),
        ("a newer server's", altered(&site, &made, 16, |dump| dump, |about| about["server"] = json!(990_000))),
        ("a newer program's", altered(&site, &made, 17, |dump| dump, |about| about["dumped_by"] = json!(99))),
        (
            "of an extension that is gone",
            altered(&site, &made, 18, |dump| dump, |about| about["extensions"]["no_such"] = json!("1.0")),
        ),
        (
            "of a role that is gone",
            altered(&site, &made, 19, |dump| dump, |about| about["roles"] = json!(["no_such_role"])),
        ),
        (
            "of something else",
            altered(&site, &made, 20, |dump| dump, |about| about["revision"] = json!({"exact": "pg:0"})),
        ),
        ("of a future layout", altered(&site, &made, 21, |dump| dump, |about| *about = json!({"version": 2}))),
    ];
    for (number, (what, (id, made))) in cases.into_iter().enumerate() {
        let run = 100 + number as u64;
        let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
        let refused = failed(site.apply(run, &prove).await);
        assert_eq!(refused.retry, Retry::Never, "{what}: {refused:?}");
        let refused = failed(site.apply(run, &restore_step(&id, &made)).await);
        assert!(!refused.what.is_empty() && refused.retry == Retry::Never, "{what}: {refused:?}");
        assert_eq!(content(server, &live), bad, "{what}");
        assert_eq!(server.databases(&live), std::slice::from_ref(&live), "{what}: {refused:?}");
        assert_eq!(names(&site.path()), there, "{what}");
    }
}

/// A capture whose restore takes a while: each row of one table waits.
async fn slow(server: &Server, stem: &str) -> (Site, String, CaptureId, Made) {
    let (site, live) = site(server, stem);
    server.sql(
        &live,
        "CREATE FUNCTION slow(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN true; END $$;
         CREATE TABLE slowly (n int); INSERT INTO slowly SELECT generate_series(1, 300); ALTER TABLE slowly ADD CHECK (public.slow(n))",
    );
    let (id, made) = site.capture(1).await;
    server.sql(&live, BAD);
    (site, live, id, made)
}

/// The process whose arguments have all of these.
fn process(words: &[&str]) -> Option<Pid> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).ok()?).replace('\0', " ");
        words.iter().all(|word| line.contains(word)).then(|| Pid::from_raw(pid)).flatten()
    })
}

async fn loading(live: &str) -> Pid {
    let scratch = format!("dbname='{live}_ripcord_");
    let is = || process(&["pg_restore", "--exit-on-error", &scratch]);
    until("pg_restore runs", || async { is().is_some() }).await;
    is().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf21_a_program_or_session_killed_while_it_restores_leaves_the_live_one_as_it_was() {
    let server = shared();
    let (site, live, id, made) = slow(server, "killed").await;
    let bad = content(server, &live);
    let restore = restore_step(&id, &made);
    for how in ["program", "session"] {
        let outcome = tokio::join!(site.apply(2, &restore), async {
            let pid = loading(&live).await;
            if how == "program" {
                kill_process(pid, Signal::KILL).unwrap();
                return;
            }
            let end = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE '{live}_ripcord%' AND query LIKE 'COPY%'"
            );
            // One, or several that load at once.
            until("a session loads", || async { server.sql("postgres", &end).lines().any(|ended| ended == "t") }).await;
        });
        let failure = failed(outcome.0);
        assert!(failure.what.contains("pg_restore"), "{how}: {failure:?}");
        assert_eq!(content(server, &live), bad, "{how}");
        assert_eq!(server.databases(&live), std::slice::from_ref(&live), "{how}: nothing half is left");
        assert_eq!(site.leftovers(), Vec::<String>::new(), "{how}");
        let looked = site.component().holds(&run_cx(2), &restore, Some(&before(2, &restore, None))).await.holds;
        assert_eq!(looked, Holds::Origin, "{how}");
    }
    site.restore(2, &id, &made).await;
    assert_eq!(site.seen().await, Seen::At(made.revision));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf21_a_server_killed_while_it_restores_comes_back_with_the_live_one_whole() {
    let server = Server::start();
    let (site, live, id, made) = slow(&server, "crash").await;
    let (bad, restore) = (content(&server, &live), restore_step(&id, &made));
    let old_pid = server.pid();
    let (outcome, ()) = tokio::join!(site.apply(2, &restore), async {
        loading(&live).await;
        kill_process(Pid::from_raw(old_pid).unwrap(), Signal::KILL).unwrap();
    });
    assert!(!matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    let down = site.component().survey(&run_cx(1), &crate::support::place(), &[]).await.seen;
    assert!(matches!(&down, Seen::Unreachable { .. } | Seen::At(_)), "{down:?}");
    let holds = site.component().holds(&run_cx(2), &restore, Some(&before(2, &restore, None))).await.holds;
    assert!(!matches!(holds, Holds::Target), "{holds:?}");
    let pid = old_pid.to_string();
    until("it is gone", || async { !std::path::Path::new("/proc").join(&pid).exists() }).await;
    // Its children end by themselves once they see that it is gone; until then it refuses to start.
    let old = fs::read_to_string(server.dir.join("data/postmaster.pid")).unwrap();
    let shm = old.lines().nth(6).unwrap().split_whitespace().last().unwrap().to_owned();
    until("the children end", || async {
        let attached = fs::read_to_string("/proc/sysvipc/shm").unwrap();
        !attached.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1) == Some(&shm.as_str()) && fields.get(6) != Some(&"0")
        })
    })
    .await;
    server.up();
    assert_eq!(content(&server, &live), bad);
    site.restore(2, &id, &made).await;
    assert_eq!(site.seen().await, Seen::At(made.revision));
    let scratch: Vec<String> = server.databases(&live).into_iter().filter(|name| name.contains("_ripcord_")).collect();
    assert_eq!(scratch, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_keep_the_database_from_being_exchanged_is_named_beforehand() {
    let server = Server::start();
    let (site, live) = site(&server, "held");
    let (id, made) = site.capture(1).await;
    server.sql(&live, BAD);
    // In this order: making a slot waits for what is prepared.
    server.sql(&live, "SELECT pg_create_logical_replication_slot('stream', 'pgoutput')");
    server.sql(&live, "BEGIN; INSERT INTO added VALUES (2); PREPARE TRANSACTION 'two phases'");
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    for refused in [failed(site.apply(2, &prove).await), failed(site.apply(2, &restore_step(&id, &made)).await)] {
        assert!(refused.what.contains("the prepared transaction `two phases`"), "{refused:?}");
        assert!(refused.what.contains("the logical replication slot `stream`"), "{refused:?}");
        assert!(refused.advice.is_some());
    }
    server.sql(&live, "ROLLBACK PREPARED 'two phases'; SELECT pg_drop_replication_slot('stream')");
    site.restore(2, &id, &made).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf12_a_role_that_does_not_see_all_is_refused() {
    let server = shared();
    let live = fresh("roles");
    server.sql("postgres", &format!("CREATE DATABASE \"{live}\""));
    server.sql(&live, &format!("{GOOD} CREATE TABLE hidden (n int); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;"));
    let role = fresh("role");
    server.sql("postgres", &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_read_all_data"));
    let settings = server.settings(&live).replace("user: ripcord", &format!("user: {role}"));
    let site = Site::new("postgres", settings);
    super::found(&site.path(), &live);
    let capture = capture_step(CapturePurpose::Protective);
    let refused = failed(site.apply(1, &capture).await);
    assert!(
        refused
            .what
            .contains(&format!("the role `{role}` sees only the rows that policies let it see of public.hidden")),
        "{refused:?}"
    );
    assert!(refused.advice.as_ref().unwrap().contains("BYPASSRLS"));
    server.sql("postgres", &format!("ALTER ROLE \"{role}\" BYPASSRLS; REVOKE pg_read_all_data FROM \"{role}\""));
    let refused = failed(site.apply(1, &capture).await);
    assert!(refused.what.contains("may not read") && refused.what.contains("public.big"), "{refused:?}");
    server.sql("postgres", &format!("GRANT pg_read_all_data TO \"{role}\""));
    let (id, made) = site.capture(2).await;
    server.sql(&live, "DELETE FROM orders");
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    for refused in [failed(site.apply(3, &prove).await), failed(site.apply(3, &restore_step(&id, &made)).await)] {
        for right in ["CREATEDB", "pg_signal_backend", "SET ON PARAMETER", "be a member of its owner"] {
            assert!(refused.what.contains(right), "{refused:?}");
        }
    }
    // And with the rights it asks for, it is not in need of more.
    server.sql(
        &live,
        &format!(
            "ALTER ROLE \"{role}\" CREATEDB; GRANT pg_signal_backend, pg_read_all_stats TO \"{role}\"; DROP TABLE hidden;
             GRANT SET ON PARAMETER ripcord.restored, ripcord.aside, ripcord.building TO \"{role}\";
             ALTER DATABASE \"{live}\" OWNER TO \"{role}\";
             ALTER TABLE orders OWNER TO \"{role}\"; ALTER TABLE big OWNER TO \"{role}\";"
        ),
    );
    server.sql(&live, "INSERT INTO orders (what, cents) VALUES ('one', 1)");
    let (id, made) = site.capture(4).await;
    server.sql(&live, "DELETE FROM orders");
    site.restore(5, &id, &made).await;
    assert_eq!(server.sql(&live, "SELECT count(*) FROM orders"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_or_database_that_is_not_there_is_told_apart() {
    let server = shared();
    let (site, live) = site(server, "away");
    let (id, made) = site.capture(1).await;
    let wrong = site.with(&server.settings(&live).replace("file: password", "file: wrong"));
    super::found(&wrong.path(), &live);
    fs::write(wrong.at("wrong"), "not-the-password-0815").unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(wrong.at("wrong"), fs::Permissions::from_mode(0o600)).unwrap();
    let Seen::Unreachable { why } = wrong.seen().await else { panic!() };
    assert!(why.contains("lets nobody into `postgres`") && !why.contains("0815"), "{why}");
    let nowhere = wrong.with(&server.settings(&live).replace(&server.run().display().to_string(), "/nowhere"));
    let Seen::Unreachable { why } = nowhere.seen().await else { panic!() };
    assert!(why.contains("cannot be reached"), "{why}");
    let holds = nowhere.component().holds(&run_cx(2), &restore_step(&id, &made), None).await.holds;
    assert!(matches!(holds, Holds::CannotTell { .. }), "{holds:?}");
    let failure = failed(nowhere.apply(2, &restore_step(&id, &made)).await);
    assert_eq!(failure.retry, Retry::Later);
    let gone = nowhere.with(&server.settings("never there"));
    assert_eq!(gone.seen().await, Seen::At(ripcord_core::Revision::Absent));
    let closed = gone.with(&server.settings(&live));
    server.sql("postgres", &format!("ALTER DATABASE \"{live}\" ALLOW_CONNECTIONS false"));
    assert!(matches!(closed.seen().await, Seen::Between { .. }));
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    assert!(matches!(closed.available(wanted).await, Available::Here { .. }));
    let lost = closed.restore(3, &id, &made).await.lost.unwrap();
    assert!(lost.other[0].contains("cannot be counted"), "{lost:?}");
    assert_eq!(server.sql(&live, "SELECT count(*) FROM orders"), "10");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf29_the_password_is_in_no_argument_and_no_text() {
    let server = shared();
    let (site, live, id, made) = slow(server, "canary").await;
    let (stop, mut seen) = (Arc::new(AtomicBool::new(false)), vec![]);
    let watching = {
        let stop = Arc::clone(&stop);
        tokio::task::spawn_blocking(move || {
            let mut programs = std::collections::BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                for entry in fs::read_dir("/proc").unwrap().flatten() {
                    let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
                    let line = String::from_utf8_lossy(&line).replace('\0', " ");
                    assert!(!line.contains(PASSWORD), "{line}");
                    for program in ["pg_dump", "pg_restore"] {
                        if line.contains(&live) && line.contains(program) {
                            programs.insert(program);
                        }
                    }
                }
            }
            programs
        })
    };
    seen.push(serde_json::to_string(&proof(site.apply(2, &capture_step(CapturePurpose::Protective)).await)).unwrap());
    seen.push(serde_json::to_string(&site.restore(3, &id, &made).await).unwrap());
    stop.store(true, Ordering::Relaxed);
    let programs = watching.await.unwrap();
    assert!(programs.contains("pg_restore"), "it looked while they ran: {programs:?}");
    assert!(seen.iter().all(|text| !text.contains(PASSWORD)));
    let files = crate::contract::listing(&site.path());
    assert!(!files.is_empty());
    for name in names(&site.path()).into_iter().filter(|name| name.contains(".salvage-")) {
        for file in names(&site.at(&name)) {
            assert!(!fs::read_to_string(site.at(&name).join(file)).unwrap().contains(PASSWORD));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_to_show_who_it_is_is_believed_no_other() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::start_with(|data| {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
        openssl.args(["-addext", "subjectAltName=DNS:localhost", "-keyout", "server.key", "-out", "server.crt"]);
        let output = openssl.current_dir(data).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for file in ["server.key", "server.crt"] {
            let status = std::process::Command::new("chown").arg("postgres:").arg(data.join(file)).status().unwrap();
            assert!(status.success());
        }
        let hba = data.join("pg_hba.conf");
        fs::write(&hba, "local all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n").unwrap();
        format!("ssl = on\nlisten_addresses = '127.0.0.1'\nport = {port}\n")
    });
    // Where the socket is, too, the port is another one now.
    let over = |more: &str| {
        format!(
            "connection:\n  host: localhost\n  port: {port}\n  database: shop\n  user: ripcord\n  password: {{ file: password }}\n{more}"
        )
    };
    let site = Site::new("postgres", over("  sslmode: verify-full\n  root-certificate: root.pem\n"));
    super::found(&site.path(), "shop");
    fs::copy(server.dir.join("data/server.crt"), site.at("root.pem")).unwrap();
    let absent = Seen::At(ripcord_core::Revision::Absent);
    assert_eq!(site.seen().await, absent, "the certificate is the one it trusts");

    let other = Server::start_with(|data| {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
        openssl.args(["-keyout", "other.key", "-out", "other.crt"]);
        assert!(openssl.current_dir(data).output().unwrap().status.success());
        String::new()
    });
    fs::copy(other.dir.join("data/other.crt"), site.at("root.pem")).unwrap();
    let Seen::Unreachable { why } = site.seen().await else { panic!("a certificate that nobody signed") };
    assert!(why.contains("certificate"), "{why}");
    fs::write(site.at("root.pem"), "no certificate").unwrap();
    let Seen::Unreachable { why } = site.seen().await else { panic!() };
    assert!(why.contains("`root-certificate`"), "{why}");

    let site = site.with(&over("  sslmode: require\n"));
    assert_eq!(site.seen().await, absent, "encrypted, with anybody");
    let site = site.with(&over(""));
    let Seen::Unreachable { why } = site.seen().await else { panic!("it takes nothing that is not encrypted") };
    assert!(why.contains("no encryption"), "{why}");

    // The whole in one secret, and a capture and restore through it: the programs are led there too.
    fs::write(site.at("url"), format!("postgresql://ripcord:{PASSWORD}@localhost:{port}/shop?sslmode=require"))
        .unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(site.at("url"), fs::Permissions::from_mode(0o600)).unwrap();
    let site = site.with("connection: { url: { file: url } }");
    assert_eq!(site.seen().await, absent);
    let psql = |database: &str, sql: &str| server.sql_at(port, database, sql).unwrap();
    psql("postgres", "CREATE DATABASE shop");
    psql("shop", GOOD);
    let (id, made) = site.capture(1).await;
    psql("shop", BAD);
    site.restore(2, &id, &made).await;
    assert_eq!(psql("shop", "SELECT count(*) FROM orders"), "10");
    assert_eq!(site.seen().await, Seen::At(made.revision));
}
