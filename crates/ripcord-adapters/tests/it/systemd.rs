//! Units of a systemd that keeps its state honestly: see `fakes/systemctl`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    Action, Available, CapturePurpose, Holds, Lifecycle, Observe, Outcome, Reading, Retry, Revision, Seen, Signal,
    Wanted,
};

use crate::contract::{Rig, Site, before, capture_step, restore_step, run_cx};
use crate::support::{Bench, cx_at, place, proof, sample, step, why};

const SETTINGS: &str = "unit: shop.service\ndirectory: .\nsettle: 400ms\nsystemctl: [sh, ../sys/systemctl]\njournalctl: [sh, ../sys/journalctl]";

fn systemd(site: &Path) {
    let sys = site.parent().unwrap().join("sys");
    fs::create_dir_all(&sys).unwrap();
    fs::write(sys.join("systemctl"), include_str!("fakes/systemctl")).unwrap();
    fs::write(sys.join("journalctl"), include_str!("fakes/journalctl")).unwrap();
}

fn systemctl(site: &Path, words: &[&str]) {
    let output = Command::new("sh").arg("../sys/systemctl").args(words).current_dir(site).output().unwrap();
    assert!(output.status.success(), "{words:?}");
}

/// Writes the unit file, as a deployment does.
fn unit(site: &Path, runs: &str, more: &str) {
    fs::write(site.join("shop.service"), format!("[Service]\nExecStart=/{runs}\n{more}")).unwrap();
    systemctl(site, &["daemon-reload"]);
}

pub struct Unit;

impl Rig for Unit {
    const KIND: &'static str = "systemd";
    fn settings() -> String {
        SETTINGS.to_owned()
    }
    fn good(site: &Path) {
        systemd(site);
        unit(site, "good", &format!("# {}\n", "x".repeat(60_000)));
    }
    fn bad(site: &Path) {
        unit(site, "crash", "Environment=NEW=1\n");
    }
    fn edit(site: &Path) {
        unit(site, "good", "Environment=BY_HAND=1\n");
    }
    fn content(site: &Path) -> String {
        crate::contract::listing(&site.join("shop.service"))
    }
    fn between(site: &Path) -> bool {
        fs::write(site.join("shop.service"), "[Service]\nExecStart=/other\n").unwrap();
        true
    }
}

/// A unit that runs, or tries to.
fn running(runs: &str) -> Site {
    let site = Site::new("systemd", SETTINGS);
    systemd(&site.path());
    unit(&site.path(), runs, "");
    let _ =
        Command::new("sh").args(["../sys/systemctl", "start", "--", "shop.service"]).current_dir(site.path()).output();
    site
}

fn calls(site: &Site) -> Vec<String> {
    let text = fs::read_to_string(site.dir.path().join("sys/calls")).unwrap_or_default();
    let words = text.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned());
    words.filter(|word| word != "daemon-reload").collect()
}

fn flag(site: &Site, name: &str) {
    fs::write(site.dir.path().join("sys").join(name), "").unwrap();
}

fn failed(outcome: Outcome) -> ripcord_core::Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_unit_is_stopped_and_started_as_another_instance() {
    let site = running("good");
    let part = site.component();
    let can = part.capabilities();
    assert_eq!((can.lifecycle, can.observe, can.evidence), (Lifecycle::Process, Observe::Exactly, true));
    let seen = part.survey(&run_cx(1), &place(), &[]).await;
    assert_eq!((seen.running, seen.label.as_deref()), (Some(true), Some("active (running)")));
    assert_eq!(seen.facts["at boot"], "enabled; a release does not change that");
    assert_eq!(seen.facts["files"], "shop.service");
    assert!(seen.facts["files of others, left alone"].contains("10-all.conf"));

    let (stop, start, cx) = (step("stop", Action::Stop), step("start", Action::Start), run_cx(2));
    let looked = part.holds(&cx, &stop, None).await;
    assert_eq!((looked.holds, looked.mark.clone()), (Holds::Origin, seen.instance));
    let stopping = before(2, &stop, looked.mark);
    proof(part.apply(&cx, &stop, &stopping).await);
    assert_eq!(part.holds(&cx, &stop, Some(&stopping)).await.holds, Holds::Target);
    proof(part.apply(&cx, &stop, &stopping).await);

    let looked = part.holds(&cx, &start, None).await;
    assert_eq!((looked.holds, looked.mark.as_ref()), (Holds::Origin, None));
    let starting = before(2, &start, looked.mark);
    let done = proof(part.apply(&cx, &start, &starting).await);
    assert!(done.found.contains("stayed so for 400 ms"), "{}", done.found);
    assert_eq!(part.holds(&cx, &start, Some(&starting)).await.holds, Holds::Target);
    assert_eq!(calls(&site), ["start", "stop", "start"], "a stop of what is stopped is none");
}

#[tokio::test]
async fn what_runs_since_before_is_started_anew() {
    let site = running("good");
    let start = step("start", Action::Start);
    proof(site.apply(2, &start).await);
    assert_eq!(calls(&site), ["start", "restart"]);
}

#[tokio::test]
async fn a_unit_that_crashes_again_and_again_has_failed() {
    for runs in ["crash", "late"] {
        let site = running(runs);
        let failure = failed(site.apply(2, &step("start", Action::Start)).await);
        assert!(failure.what.contains("does not stay up"), "{runs}: {}", failure.what);
        assert!(failure.output.as_deref().is_some_and(|said| said.contains("no such file")), "{runs}: {failure:?}");
        assert_eq!(failure.retry, Retry::Never);
    }
}

#[tokio::test]
async fn a_unit_that_was_started_too_often_gets_new_tries_and_then_advice() {
    let site = running("crash");
    // Left alone it reaches its limit.
    for _ in 0..5 {
        systemctl(&site.path(), &["show"]);
    }
    let seen = site.component().survey(&run_cx(1), &place(), &[]).await;
    assert_eq!(seen.running, Some(false));
    assert!(seen.label.as_ref().is_some_and(|label| label.contains("given up after 4 restarts")), "{seen:?}");
    unit(&site.path(), "good", "");
    proof(site.apply(2, &step("start", Action::Start)).await);
    assert_eq!(calls(&site), ["start", "reset-failed", "start"]);

    unit(&site.path(), "nothing", "");
    proof(site.apply(3, &step("stop", Action::Stop)).await);
    let failure = failed(site.apply(3, &step("start", Action::Start)).await);
    assert!(failure.what.contains("exit code 1: Job for shop.service failed."), "{}", failure.what);
    assert!(failure.advice.is_some_and(|advice| advice.contains("journalctl -u shop.service")));
}

#[tokio::test]
async fn rf26_a_stop_that_does_not_stop_is_told() {
    let site = running("good");
    flag(&site, "will-not-stop");
    let (part, stop) = (site.component(), step("stop", Action::Stop));
    let cx = cx_at(Timestamp::now(), Duration::from_secs(4));
    let failure = failed(part.apply(&cx, &stop, &before(2, &stop, None)).await);
    assert_eq!(failure.what, "`systemctl stop` reported success, but it is active (running)");
}

#[tokio::test]
async fn rf18_a_changed_drop_in_is_read_before_the_start() {
    let site = running("good");
    let (id, made) = site.capture(1).await;
    fs::create_dir(site.at("shop.service.d")).unwrap();
    fs::write(site.at("shop.service.d/10-bad.conf"), "ExecStart=/crash\n").unwrap();
    assert!(matches!(site.seen().await, Seen::Between { .. }), "written and not read: no state of the process");
    systemctl(&site.path(), &["daemon-reload"]);
    assert!(matches!(site.seen().await, Seen::At(revision) if revision != made.revision));
    site.restore(2, &id, &made).await;
    assert!(!site.at("shop.service.d/10-bad.conf").exists(), "what the release added goes");
    assert_eq!(fs::read_to_string(site.dir.path().join("sys/loaded")).unwrap(), "[Service]\nExecStart=/good\n");
    // Changed once more, by hand and without daemon-reload: the start takes what is written.
    fs::write(site.at("shop.service.d/20-hand.conf"), "ExecStart=/nothing\n").unwrap();
    proof(site.apply(3, &step("stop", Action::Stop)).await);
    failed(site.apply(3, &step("start", Action::Start)).await);
}

#[tokio::test]
async fn a_restore_that_was_killed_before_systemd_read_the_files_is_not_done() {
    let site = running("good");
    let (id, made) = site.capture(1).await;
    let good = fs::read(site.at("shop.service")).unwrap();
    unit(&site.path(), "crash", "");
    let (part, cx, restore) = (site.component(), run_cx(2), restore_step(&id, &made));
    let looked = part.holds(&cx, &restore, None).await;
    let before = before(2, &restore, looked.mark);
    fs::write(site.at("shop.service"), good).unwrap();
    let found = part.holds(&cx, &restore, Some(&before)).await.holds;
    assert_eq!(found, Holds::Neither { found: "the files are there, and systemd has not read them".into() });
    proof(part.apply(&cx, &restore, &before).await);
    assert_eq!(part.holds(&cx, &restore, Some(&before)).await.holds, Holds::Target);
}

#[tokio::test]
async fn without_unit_files_it_is_a_process_and_nothing_else() {
    let site = running("good").with(&format!("{SETTINGS}\nunit-files: false"));
    let part = site.component();
    assert_eq!(part.capabilities().observe, Observe::ByMarker);
    assert_eq!(site.seen().await, Seen::At(Revision::exact("unversioned")));
    unit(&site.path(), "late", "");
    assert_eq!(site.seen().await, Seen::At(Revision::exact("unversioned")), "its files are others' business");
    let wanted = Wanted { revision: Revision::exact("unversioned"), capture: None };
    assert!(matches!(site.available(wanted).await, Available::Here { .. }));
}

#[tokio::test]
async fn evidence_is_its_journal_and_how_it_is() {
    let site = running("crash");
    let done = proof(site.apply(2, &capture_step(CapturePurpose::Evidence)).await);
    assert!(done.capture.is_some() && done.found.contains("journal"), "{done:?}");
}

#[tokio::test]
async fn a_systemd_that_cannot_be_asked_is_no_stopped_unit() {
    let site = Site::new("systemd", "unit: shop.service\ndirectory: .\nsystemctl: [sh, no-such-script]");
    assert!(matches!(site.seen().await, Seen::Unreachable { .. }));
    let holds = site.component().holds(&run_cx(1), &step("stop", Action::Stop), None).await.holds;
    assert!(matches!(holds, Holds::CannotTell { .. }), "{holds:?}");
}

const JOURNAL: &str = "units: [shop.service]\nsystemctl: [sh, ../sys/systemctl]\njournalctl: [sh, ../sys/journalctl]";

async fn at(signal: &dyn Signal, second: i64) -> Reading {
    let now = Timestamp::from_second(1_700_000_000 + second).unwrap();
    signal.read(&cx_at(now, Duration::from_secs(20))).await
}

/// A journal signal in a bench whose directory is `site` of a place with a systemd.
struct Watched {
    bench: Bench,
    site: std::path::PathBuf,
}

impl Watched {
    fn new() -> Self {
        let bench = Bench::new();
        let site = bench.path("site");
        fs::create_dir(&site).unwrap();
        systemd(&site);
        unit(&site, "good", "");
        systemctl(&site, &["start", "--", "shop.service"]);
        Self { bench, site }
    }

    fn signal(&self, more: &str) -> std::sync::Arc<dyn Signal> {
        // Commands run where the configuration is.
        let cx = ripcord_adapters::BuildCx { base: self.site.clone(), ..self.bench.cx(None) };
        let settings = crate::support::signal("journal", &format!("{JOURNAL}\n{more}"));
        ripcord_adapters::build_signal(&"figure".parse().unwrap(), &settings, &cx).unwrap()
    }

    fn entries(&self, entries: &[(&str, &str)]) {
        let path = self.bench.path("sys/entries");
        let mut text = fs::read_to_string(&path).unwrap_or_default();
        for (priority, message) in entries {
            let n = text.lines().count() + 1;
            text.push_str(&format!(
                "{{\"__CURSOR\":\"n={n}\",\"PRIORITY\":\"{priority}\",\"MESSAGE\":\"{message}\"}}\n"
            ));
        }
        fs::write(path, text).unwrap();
    }
}

#[tokio::test]
async fn rf05_entries_are_counted_from_the_journal_s_end_on() {
    let watched = Watched::new();
    watched.entries(&[("3", "from last week")]);
    let signal = watched.signal("priority: err\nmeasure: share");
    assert_eq!(at(&*signal, 0).await, Reading::Empty, "what was there before is no evidence");
    watched.entries(&[("6", "order 1"), ("6", "errors=0"), ("3", "order 2 failed"), ("2", "out of memory")]);
    let share = sample(at(&*signal, 10).await);
    assert_eq!((share.value, share.n), (0.5, Some(4.0)));
    assert_eq!((&share.fields["last"], &share.fields["active"]), (&"out of memory".into(), &true.into()));
    let same = sample(at(&*signal, 20).await);
    assert_eq!(same.n, Some(4.0), "an entry counts once");
    assert_eq!(at(&*signal, 90).await, Reading::Empty, "no entries is no data, and not health");
    let counted = watched.signal("pattern: 'order [0-9]+ failed'");
    at(&*counted, 0).await;
    watched.entries(&[("6", "order 3 failed"), ("3", "something else")]);
    assert_eq!(sample(at(&*counted, 5).await).value, 1.0);
}

#[tokio::test]
async fn units_that_are_down_or_start_again_are_seen() {
    let watched = Watched::new();
    let (failing, restarts) = (watched.signal("measure: failing"), watched.signal("measure: restarts\nwindow: 10m"));
    assert_eq!(sample(at(&*failing, 0).await).value, 0.0);
    assert_eq!(sample(at(&*restarts, 0).await).value, 0.0);
    unit(&watched.site, "crash", "");
    systemctl(&watched.site, &["restart", "--", "shop.service"]);
    let down = sample(at(&*failing, 10).await);
    assert_eq!(down.value, 1.0);
    assert!(down.fields["states"]["shop.service"].as_str().unwrap().contains("auto-restart"), "{down:?}");
    assert!(sample(at(&*restarts, 10).await).value >= 1.0);
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_and_a_unit_nobody_knows_are_no_health() {
    let watched = Watched::new();
    let signal = watched.signal("");
    at(&*signal, 0).await;
    fs::write(watched.bench.path("sys/broken"), "").unwrap();
    assert!(why(at(&*signal, 10).await).contains("Permission denied"));
    let none = watched.signal("measure: failing");
    fs::remove_file(watched.site.join("shop.service")).unwrap();
    systemctl(&watched.site, &["daemon-reload"]);
    assert_eq!(why(at(&*none, 0).await), "systemd knows no unit `shop.service` (not-found)");
}
