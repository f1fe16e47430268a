//! Starting, stopping and finding the server process.
use crate::site::{PATIENCE, Site, program, until};
use ripcord_demo::shop::{
    EnvFile, Fault, Instance, ShopError, StartArgs, Started, Stopped, free_port, observe, start, stop,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    thread,
    time::Duration,
};

fn send(instance: &Instance, signal: Signal) {
    kill_process(Pid::from_raw(instance.pid).unwrap(), signal).unwrap();
}

fn shop(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shop")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn starting_twice_starts_once() {
    let mut site = Site::laid_out(Fault::None);
    let first = site.start();
    assert_eq!(site.try_start(0).unwrap(), Started::Already(first.clone()));
    assert_eq!(site.try_start(first.port).unwrap(), Started::Already(first.clone()));
    let other = free_port().unwrap();
    assert!(matches!(site.try_start(other), Err(ShopError::RunsElsewhere { .. })));
    assert_eq!(observe(site.path()).unwrap(), Some(first));
}

#[test]
fn starting_from_several_sides_at_once_starts_once() {
    let site = Site::laid_out(Fault::None);
    let started: Vec<_> = thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| site.try_start(0).unwrap())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let running = observe(site.path()).unwrap().unwrap();
    assert!(started.iter().all(|started| *started.instance() == running), "{started:?}");
    assert_eq!(started.iter().filter(|started| matches!(started, Started::New(_))).count(), 1, "{started:?}");
}

#[tokio::test]
async fn stopping_is_repeatable_and_leaves_nothing_behind() {
    let mut site = Site::laid_out(Fault::None);
    assert_eq!(site.stop(), Stopped::WasNotRunning);
    let instance = site.start();
    assert_eq!(site.stop(), Stopped::Ended(instance.clone()));
    assert_eq!(site.stop(), Stopped::WasNotRunning);
    assert_eq!(observe(site.path()).unwrap(), None);
    assert!(!site.layout().process().exists());
    assert!(!site.path().join("orders.db-wal").exists(), "a stopped shop's database is one file");
    TcpListener::bind(("127.0.0.1", instance.port)).unwrap();
    let next = site.start();
    assert_ne!(next.to_string(), instance.to_string());
}

#[tokio::test]
async fn a_recycled_pid_is_neither_running_nor_killed() {
    let mut site = Site::laid_out(Fault::None);
    let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(site.layout().process(), format!("{} 1 8080\n", bystander.id())).unwrap();
    assert_eq!(observe(site.path()).unwrap(), None);
    assert_eq!(stop(site.path(), Duration::ZERO).unwrap(), Stopped::WasNotRunning);
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander lives");
    site.start();
    site.stop();
    assert!(bystander.try_wait().unwrap().is_none());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test]
async fn a_killed_server_is_seen_as_stopped_and_starts_again_with_every_order() {
    let mut site = Site::laid_out(Fault::None);
    let instance = site.start();
    assert_eq!(site.order("ann").await.status(), 201);
    send(&instance, Signal::KILL);
    until("the end", async || observe(site.path()).unwrap().is_none()).await;
    assert_eq!(site.stop(), Stopped::WasNotRunning);
    assert_ne!(site.start(), instance);
    assert_eq!(site.json("/orders/11").await["customer"], "ann");
}

#[tokio::test]
async fn a_server_that_does_not_listen_to_term_is_killed() {
    let mut site = Site::laid_out(Fault::None);
    let instance = site.start();
    send(&instance, Signal::STOP);
    assert_eq!(stop(site.path(), Duration::from_millis(100)).unwrap(), Stopped::Killed(instance));
    assert_eq!(observe(site.path()).unwrap(), None);
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_said() {
    let said = |site: &Site, port| match site.try_start(port).unwrap_err() {
        ShopError::EndedAtStart { said, .. } => said,
        other => panic!("{other}"),
    };
    let site = Site::laid_out(Fault::None);
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let words = said(&site, taken.local_addr().unwrap().port());
    assert!(words.contains("ERROR cannot listen on 127.0.0.1:") && words.contains("in use"), "{words}");
    assert_eq!(observe(site.path()).unwrap(), None);

    fs::write(site.layout().flags(), "{").unwrap();
    assert!(said(&site, 0).contains("does not hold the shop's flags"));
    fs::write(site.layout().current().join("release.json"), r#"{"version": "v1"}"#).unwrap();
    assert!(said(&site, 0).contains("missing field `fault`"));
    fs::remove_file(site.layout().current()).unwrap();
    assert!(said(&site, 0).contains("cannot follow"));
    fs::remove_dir_all(site.path().join("logs")).unwrap();
    assert!(said(&site, 0).contains("cannot open"), "without a log it is said on standard error");
}

#[tokio::test]
async fn a_start_that_never_answers_is_ended_again() {
    let site = Site::laid_out(Fault::None);
    let mut program = program();
    // Becomes a process that does nothing, under the pid of the one that was started.
    program.exe = "/bin/sh".into();
    program.prefix = ["-c", "echo $$ > run/pid; exec /bin/sleep 600"].map(Into::into).into();
    let at_most = Duration::from_millis(300);
    let error = start(&StartArgs { dir: site.path().to_owned(), port: 0, program, at_most }).unwrap_err();
    assert!(matches!(error, ShopError::SilentAtStart { .. }), "{error}");
    if let Ok(pid) = fs::read_to_string(site.path().join("run/pid")) {
        assert!(!Path::new("/proc").join(pid.trim()).exists());
    }
}

#[tokio::test]
async fn the_server_is_on_its_own_and_sees_no_foreign_environment() {
    let mut site = Site::laid_out(Fault::None);
    let instance = site.start();
    let stat = fs::read_to_string(format!("/proc/{}/stat", instance.pid)).unwrap();
    let session = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap();
    assert_eq!(session, instance.pid.to_string(), "a session of its own");
    assert_eq!(fs::read(format!("/proc/{}/environ", instance.pid)).unwrap(), b"");
    let token = EnvFile::read(&site.layout().env()).unwrap().value("ADMIN_TOKEN").unwrap().to_owned();
    let arguments = fs::read(format!("/proc/{}/cmdline", instance.pid)).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(&token));
}

#[tokio::test]
async fn the_server_ends_when_its_directory_is_gone() {
    let mut site = Site::laid_out(Fault::None);
    let instance = site.start();
    let aside = site.path().with_extension("aside");
    fs::rename(site.path(), &aside).unwrap();
    until("the end", async || !answers(instance.port)).await;
    fs::rename(&aside, site.path()).unwrap();
    until("the end", async || observe(site.path()).unwrap().is_none()).await;
}

fn answers(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[tokio::test]
async fn shops_side_by_side_do_not_meet() {
    let (mut one, mut two) = (Site::laid_out(Fault::None), Site::laid_out(Fault::None));
    two.deploy("v2", Fault::None);
    assert_ne!(one.start().port, two.start().port);
    one.order("ann").await;
    assert_eq!((one.sql("SELECT count(*) FROM orders"), two.sql("SELECT count(*) FROM orders")), (11, 10));
    one.stop();
    assert_eq!(two.json("/api/health").await["version"], "v2");
}

#[tokio::test]
async fn a_graceful_stop_loses_no_order_that_was_acknowledged() {
    let mut site = Site::laid_out(Fault::None);
    for _ in 0..3 {
        site.start();
        let url = site.url("/orders");
        let customers: Vec<_> = (0..8)
            .map(|number| {
                let (client, url) = (site.client.clone(), url.clone());
                let order = serde_json::json!({"customer": format!("c{number}"), "sku": "kettle", "quantity": 1});
                tokio::spawn(async move {
                    let mut taken = Vec::new();
                    while let Ok(response) = client.post(&url).json(&order).send().await {
                        assert_eq!(response.status(), 201, "the end refuses nobody it has listened to");
                        // Cut while answering: not acknowledged.
                        let Ok(answer) = response.json::<serde_json::Value>().await else { break };
                        taken.push(answer["id"].as_i64().unwrap());
                    }
                    taken
                })
            })
            .collect();
        let before = site.metrics().await.value("shop_orders_total");
        until("orders", async || site.metrics().await.value("shop_orders_total") > before + 20.0).await;
        let path = site.path().to_owned();
        let stopped = tokio::task::spawn_blocking(move || stop(&path, PATIENCE).unwrap()).await.unwrap();
        assert!(matches!(stopped, Stopped::Ended(_)));
        let mut acknowledged = 0;
        for customer in customers {
            for id in customer.await.unwrap() {
                acknowledged += 1;
                assert_eq!(site.sql(&format!("SELECT count(*) FROM orders WHERE id = {id}")), 1, "order {id}");
            }
        }
        assert!(acknowledged > 20);
        assert!(!site.log().contains("unanswered"), "{}", site.log());
    }
}

#[tokio::test]
async fn the_commands_say_what_they_did() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("shop");
    let dir = dir.to_str().unwrap();
    let ok = |args: &[&str]| {
        let output = shop(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout).trim_end().to_owned()
    };
    assert_eq!(ok(&["init", "--dir", dir, "--orders", "4"]), format!("laid out a shop with 4 orders in {dir}"));
    assert_eq!(ok(&["status", "--dir", dir]), "stopped");
    let nobody = shop(&["instance", "--dir", dir]);
    assert_eq!((nobody.status.code(), text(&nobody.stdout)), (Some(3), ""));
    assert!(ok(&["release", "--dir", dir, "--version", "v1.0.0"]).starts_with("wrote release v1.0.0 to "));
    assert_eq!(ok(&["switch", "--dir", dir, "--version", "v1.0.0"]), "current is v1.0.0");
    assert!(ok(&["start", "--dir", dir, "--port", "0"]).starts_with("started: "));
    let instance = observe(Path::new(dir)).unwrap().unwrap();
    assert_eq!(
        ok(&["start", "--dir", dir, "--port", "0"]),
        format!("already running: {instance} on 127.0.0.1:{}", instance.port)
    );
    assert_eq!(ok(&["status", "--dir", dir]), format!("running: {instance} on 127.0.0.1:{}", instance.port));
    assert_eq!(ok(&["instance", "--dir", dir]), instance.to_string());
    let url = format!("http://127.0.0.1:{}", instance.port);
    let load = ok(&["load", "--url", &url, "--rate", "50", "--seconds", "1", "--writes", "0.2"]);
    assert!(load.starts_with("sent ") && load.contains("failed 0 (0 unreachable)"), "{load}");
    assert_eq!(ok(&["stop", "--dir", dir]), format!("stopped {instance}"));
    assert_eq!(ok(&["stop", "--dir", dir]), "was not running");

    let refused = |args: &[&str]| {
        let output = shop(args);
        (output.status.code(), text(&output.stderr).to_owned())
    };
    let (code, words) = refused(&["sell"]);
    assert!(code == Some(2) && words.starts_with("error: `sell` is not a command of the shop\nusage: "), "{words}");
    let (code, words) = refused(&["switch", "--dir", dir, "--version", "v9"]);
    assert!(code == Some(1) && words.starts_with("error: release `v9` does not exist in "), "{words}");
    let (code, words) = refused(&["load", "--url", "http://192.0.2.1", "--rate", "1", "--seconds", "1"]);
    assert!(code == Some(1) && words.contains("cause: `192.0.2.1` is not this machine"), "{words}");
}
