//! An application under a stand-in for pm2: see `fakes/pm2`.

use std::fs;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    Action, CapturePurpose, Component, Holds, Lifecycle, Observe, Outcome, Reading, Revision, Seen, Signal,
};

use crate::support::{Bench, apply, before, cx, cx_at, proof, sample, step, survey};

/// A home with a pm2 in it, and its daemon.
struct Home {
    bench: Bench,
    daemon: Option<UnixListener>,
}

impl Home {
    fn new() -> Self {
        let bench = Bench::new();
        bench.write("pm2", include_str!("fakes/pm2"));
        fs::create_dir_all(bench.path("home/state")).unwrap();
        let mut home = Self { bench, daemon: None };
        home.daemon = Some(UnixListener::bind(home.bench.path("home/rpc.sock")).unwrap());
        home.put("status", "online");
        home.put("starts", "1");
        home.put("pid", "1001");
        home
    }

    fn put(&self, name: &str, text: &str) {
        self.bench.write(&format!("home/state/{name}"), &format!("{text}\n"));
    }

    fn get(&self, name: &str) -> String {
        fs::read_to_string(self.bench.path("home/state").join(name)).unwrap_or_default().trim().to_owned()
    }

    fn calls(&self) -> Vec<String> {
        self.get("calls").lines().map(str::to_owned).collect()
    }

    fn component(&self, more: &str) -> Arc<dyn Component> {
        self.bench.component("pm2", &format!("app: shop\nhome: home\nprogram: [sh, pm2]\nsettle: 300ms\n{more}"))
    }

    fn signal(&self, more: &str) -> Arc<dyn Signal> {
        self.bench.signal("pm2", &format!("app: shop\nhome: home\nprogram: [sh, pm2]\n{more}"))
    }
}

fn failed(outcome: Outcome) -> ripcord_core::Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_application_is_stopped_and_started_as_another_instance() {
    let home = Home::new();
    let part = home.component("");
    let can = part.capabilities();
    assert_eq!((can.lifecycle, can.observe, can.evidence), (Lifecycle::Process, Observe::ByMarker, true));
    let seen = survey(&*part, &[]).await;
    assert_eq!((seen.running, seen.instance.as_deref()), (Some(true), Some("0:1001:1")));
    assert_eq!(seen.label.as_deref(), Some("version 1.2.0, 1 online (fork), /srv/app.js"));
    let (stop, start) = (step("stop", Action::Stop), step("start", Action::Start));
    let stopping = before(&stop, part.holds(&cx(), &stop, None).await.mark);
    proof(part.apply(&cx(), &stop, &stopping).await);
    assert_eq!(part.holds(&cx(), &stop, Some(&stopping)).await.holds, Holds::Target);
    let starting = before(&start, part.holds(&cx(), &start, None).await.mark);
    let done = proof(part.apply(&cx(), &start, &starting).await);
    assert_eq!(done.found, "1 online, and stayed so for 300 ms");
    assert_eq!(part.holds(&cx(), &start, Some(&starting)).await.holds, Holds::Target);
    assert_eq!(home.calls(), ["stop shop", "restart shop --update-env"]);
}

#[tokio::test]
async fn a_look_never_starts_a_daemon() {
    let mut home = Home::new();
    home.daemon = None;
    let part = home.component("");
    let seen = survey(&*part, &[]).await;
    assert_eq!((seen.seen, seen.running), (Seen::At(Revision::Absent), Some(false)));
    assert_eq!(part.holds(&cx(), &step("stop", Action::Stop), None).await.holds, Holds::Target);
    assert_eq!(sample(home.signal("").read(&cx()).await).value, 1.0, "nothing runs: that is the subject's state");
    assert_eq!(home.signal("measure: memory").read(&cx()).await, Reading::Empty);
    fs::remove_file(home.bench.path("home/rpc.sock")).unwrap();
    assert_eq!(survey(&*part, &[]).await.running, Some(false));
    assert_eq!(home.get("looks"), "", "pm2 was never called");
}

#[tokio::test]
async fn rf18_the_env_file_s_values_are_in_force_or_the_start_has_failed() {
    let home = Home::new();
    home.bench.write("app.env", "MODE=\"good one\"\n");
    let part = home.component("env-file: app.env");
    assert_eq!(survey(&*part, &[]).await.facts["not in force"], "MODE of the env file");
    let start = step("start", Action::Start);
    let done = proof(apply(&*part, &start).await);
    assert_eq!(done.found, "reloaded, 1 online, and stayed so for 300 ms, 1 keys of the env file in force");
    assert_eq!((home.get("mode"), home.calls()), ("good one".to_owned(), vec!["reload shop --update-env".to_owned()]));
    assert!(!survey(&*part, &[]).await.facts.contains_key("not in force"));
    home.bench.write("app.env", "MODE=other\n");
    home.put("keeps-its-environment", "");
    let failure = failed(apply(&*part, &start).await);
    assert_eq!(failure.what, "it runs, but not with the values the env file has for MODE");
}

#[tokio::test]
async fn in_cluster_mode_a_running_application_is_reloaded_and_never_stopped() {
    let home = Home::new();
    let part = home.component("");
    assert!(!survey(&*part, &[]).await.rolls, "in fork mode a reload is a gap");
    home.put("exec_mode", "cluster_mode");
    assert!(survey(&*part, &[]).await.rolls);
    let roll = step("start", Action::Roll);
    let rolling = before(&roll, part.holds(&cx(), &roll, None).await.mark);
    let done = proof(part.apply(&cx(), &roll, &rolling).await);
    assert_eq!(done.found, "reloaded, 1 online, and stayed so for 300 ms");
    assert_eq!(part.holds(&cx(), &roll, Some(&rolling)).await.holds, Holds::Target);
    assert_eq!(home.calls(), ["reload shop --update-env"]);
    home.put("status", "errored");
    assert!(!survey(&*part, &[]).await.rolls, "what is not up has nothing to take over from");
}

#[tokio::test]
async fn what_pm2_saved_would_put_another_environment_back() {
    let home = Home::new();
    assert!(survey(&*home.component(""), &[]).await.puts_back.is_empty());
    home.bench.write("home/dump.pm2", "[]");
    let found = survey(&*home.component(""), &[]).await.puts_back;
    assert!(found[0].contains("`pm2 save`"), "{found:?}");
}

#[tokio::test]
async fn rf29_the_application_gets_none_of_our_own_variables() {
    let home = Home::new();
    home.bench.write("app.env", "MODE=good\nHOME_PAGE=x\n");
    home.bench.write("eco.js", "");
    proof(apply(&*home.component("ecosystem: eco.js"), &step("start", Action::Start)).await);
    let names = home.get("names");
    let ours: Vec<_> = names.lines().filter(|name| name.starts_with("CARGO") || name.starts_with("RUST")).collect();
    assert!(ours.is_empty(), "{ours:?}");
    assert!(names.lines().any(|name| name == "PATH") && names.lines().any(|name| name == "PM2_HOME"));
}

#[tokio::test]
async fn what_stands_still_is_started_as_its_ecosystem_file_says_now() {
    let home = Home::new();
    home.bench.write("eco.js", "");
    let (part, eco) = (home.component("ecosystem: eco.js"), home.bench.path("eco.js"));
    proof(apply(&*part, &step("stop", Action::Stop)).await);
    proof(apply(&*part, &step("start", Action::Start)).await);
    let start = format!("start {} --only shop --update-env", eco.display());
    assert_eq!(home.calls(), ["stop shop", "delete shop", &start]);
    // Taken out of pm2's list by a kill in between: it is defined all the same.
    fs::remove_file(home.bench.path("home/state/status")).unwrap();
    proof(apply(&*part, &step("start", Action::Start)).await);
    fs::remove_file(home.bench.path("home/state/status")).unwrap();
    let failure = failed(apply(&*home.component(""), &step("start", Action::Start)).await);
    assert_eq!(failure.what, "pm2 knows no application `shop`, and no file says what it is");
}

#[tokio::test]
async fn an_application_that_does_not_stay_up_has_failed() {
    for how in ["crashes", "flaps"] {
        let home = Home::new();
        home.put(how, "");
        let failure = failed(apply(&*home.component(""), &step("start", Action::Start)).await);
        assert!(failure.what.starts_with("`shop` does not stay up"), "{how}: {}", failure.what);
        if how == "crashes" {
            assert!(failure.output.is_some_and(|said| said.contains("Cannot find module")));
        }
    }
}

#[tokio::test]
async fn rf26_a_stop_that_does_not_stop_is_told() {
    let home = Home::new();
    home.put("will-not-stop", "");
    let (part, stop) = (home.component(""), step("stop", Action::Stop));
    let short = cx_at(Timestamp::now(), Duration::from_secs(4));
    let failure = failed(part.apply(&short, &stop, &before(&stop, None)).await);
    assert_eq!(failure.what, "`pm2 stop` reported success, but 1 online still run");
}

#[tokio::test]
async fn rf29_evidence_holds_logs_and_no_values_of_the_environment() {
    let home = Home::new();
    let vault = home.bench.vault();
    home.bench.write("home/error.log", "Error: order 7 failed\n");
    let evidence = step("evidence", Action::Capture { purpose: CapturePurpose::Evidence });
    let made = proof(apply(&*home.component(""), &evidence).await).capture.unwrap();
    let ripcord_core::HeldIn::Vault { manifest } = made.held else { panic!() };
    let manifest: ripcord_vault::Manifest = serde_json::from_value(manifest).unwrap();
    let mut kept = String::new();
    for entry in manifest.entries.iter().filter(|entry| matches!(entry.what, ripcord_vault::What::File { .. })) {
        let mut bytes = vec![];
        vault.read(&manifest, &entry.path, &mut bytes).unwrap();
        kept.push_str(&String::from_utf8(bytes).unwrap());
    }
    assert!(kept.contains("order 7 failed") && kept.contains("TOKEN"), "{kept}");
    assert!(!kept.contains("canary-token"));
}

#[tokio::test]
async fn figures_are_of_the_application_and_counted_from_the_first_look() {
    let home = Home::new();
    home.put("restarts", "7");
    let at = async |signal: &dyn Signal, second: i64| {
        let now = Timestamp::from_second(1_700_000_000 + second).unwrap();
        sample(signal.read(&cx_at(now, Duration::from_secs(20))).await)
    };
    let restarts = home.signal("measure: restarts\nwindow: 1m");
    assert_eq!(at(&*restarts, 0).await.value, 0.0, "what it had before is no evidence");
    home.put("restarts", "9");
    let two = at(&*restarts, 10).await;
    assert_eq!((two.value, &two.fields["status"]), (2.0, &serde_json::json!(["online"])));
    assert_eq!(at(&*restarts, 80).await.value, 0.0);
    assert_eq!(at(&*home.signal("measure: memory"), 0).await.value, 52_428_800.0);
    assert_eq!(at(&*home.signal("measure: cpu"), 0).await.value, 0.125);
    home.put("status", "errored");
    assert_eq!(at(&*home.signal(""), 0).await.value, 1.0);
}
