//! Units of a real systemd: each site has a machine of its own, a container in which systemd is the first process and whose unit
//! directory is the site. What is asked of it goes by `nsenter`, which is as `ssh` to it would be, and quicker.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Action, CapturePurpose, Failure, Holds, Outcome, Reading, Retry, Seen, Signal};

use crate::contract::{Rig, Site, before, capture_step, restore_step, run_cx};
use crate::support::{Bench, cx_at, place, proof, sample, step, until};

const MACHINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/agents-orchestration");

/// An Engine of the tests' own. Its guard takes it and all machines away when its input is closed, however this process ends.
struct Engine {
    dir: PathBuf,
    _guard: Child,
}

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let dir = tempfile::Builder::new().prefix("ripcord-machines-").tempdir().unwrap().keep();
        let mut guard = Command::new(format!("{MACHINES}/engine.sh"));
        let guard = guard.arg(&dir).process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let engine = Engine { dir, _guard: guard };
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !engine.command("docker").arg("version").output().unwrap().status.success() {
            assert!(std::time::Instant::now() < deadline, "no Engine comes up (`dockerd` of docker.io, as root)");
            std::thread::sleep(Duration::from_millis(50));
        }
        engine
    })
}

impl Engine {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", format!("unix://{}/docker.sock", self.dir.display())).env_remove("DOCKER_CONTEXT");
        command.env("MACHINE_IMAGE", concat!(env!("CARGO_TARGET_TMPDIR"), "/machine.tar")).stdin(Stdio::null());
        command
    }
}

fn succeeded(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.trim().to_owned()
}

/// A machine whose unit directory is `site`, and in `sys` beside that the way to its systemd.
fn machine(site: &Path) {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    static MACHINES_OF: Mutex<Vec<(String, PathBuf)>> = Mutex::new(vec![]);
    // The first makes the image; the others wait for it.
    static IMAGE: OnceLock<()> = OnceLock::new();
    let start = || {
        let name = format!("m{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        // Those whose test has ended are only in the way.
        let (used, idle): (Vec<_>, Vec<_>) =
            std::mem::take(&mut *MACHINES_OF.lock().unwrap()).into_iter().partition(|(_, site)| site.exists());
        MACHINES_OF.lock().unwrap().extend(used.into_iter().chain([(name.clone(), site.to_owned())]));
        if !idle.is_empty() {
            let names = idle.iter().map(|(name, _)| name);
            succeeded(engine().command("docker").args(["rm", "--force", "--volumes"]).args(names));
        }
        let site = site.display();
        let mut command = engine().command(&format!("{MACHINES}/machine.sh"));
        command.args([&name, "--network", "none", "--volume", &format!("{site}:{site}")]);
        succeeded(command.args(["--env", &format!("SYSTEMD_UNIT_PATH={site}:")]));
        succeeded(engine().command("docker").args(["inspect", "--format", "{{.State.Pid}}", &name]))
    };
    let mut first = None;
    IMAGE.get_or_init(|| first = Some(start()));
    let pid = first.unwrap_or_else(start);
    let sys = site.parent().unwrap().join("sys");
    fs::create_dir_all(&sys).unwrap();
    for program in ["systemctl", "journalctl"] {
        let there = format!("exec nsenter --target {pid} --mount --uts --ipc --net --pid -- {program} \"$@\"\n");
        fs::write(sys.join(program), there).unwrap();
    }
}

const SETTINGS: &str = "unit: shop.service\ndirectory: .\nsettle: 400ms\nsystemctl: [sh, ../sys/systemctl]\njournalctl: [sh, ../sys/journalctl]";

fn systemctl(site: &Path, words: &[&str]) -> String {
    succeeded(Command::new("sh").arg("../sys/systemctl").args(words).current_dir(site))
}

/// Writes the unit file as a deployment does; `script` is what it runs.
fn unit(site: &Path, script: &str, more: &str) {
    fs::write(site.join("shop.service"), format!("[Service]\nExecStart=/bin/sh -c '{script}'\n{more}")).unwrap();
    systemctl(site, &["daemon-reload"]);
}

const GOOD: &str = "exec sleep 100000";
const CRASH: &str = "echo cannot open /srv/shop: no such file; exit 3";
/// Tried again at once, and until systemd gives up.
const AGAIN: &str = "Restart=on-failure\nRestartSec=20ms\n";

pub struct Unit;

impl Rig for Unit {
    const KIND: &'static str = "systemd";
    fn settings() -> String {
        SETTINGS.to_owned()
    }
    fn good(site: &Path) {
        machine(site);
        unit(site, GOOD, &format!("# {}\n", "x".repeat(60_000)));
        // What does not run systemd need not have in memory, and then it has nothing to read anew.
        systemctl(site, &["start", "--", "shop.service"]);
    }
    fn bad(site: &Path) {
        unit(site, CRASH, "Environment=NEW=1\n");
    }
    fn edit(site: &Path) {
        unit(site, GOOD, "Environment=BY_HAND=1\n");
    }
    fn content(site: &Path) -> String {
        crate::contract::listing(&site.join("shop.service"))
    }
    fn between(site: &Path) -> bool {
        fs::write(site.join("shop.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
        true
    }
}

/// A machine whose unit does this, and was started.
fn running(script: &str, more: &str) -> Site {
    let site = Site::new("systemd", SETTINGS);
    machine(&site.path());
    unit(&site.path(), script, more);
    start_it(&site);
    site
}

/// By hand: what it is refused or how it ends is the test's business.
fn start_it(site: &Site) {
    let mut command = Command::new("sh");
    command.args(["../sys/systemctl", "start", "--", "shop.service"]).current_dir(site.path()).output().unwrap();
}

fn shown(site: &Path, property: &str) -> String {
    systemctl(site, &["show", &format!("--property={property}"), "--value", "--", "shop.service"])
}

async fn becomes(site: &Path, property: &str, value: &str) {
    until(&format!("{property} is {value}"), async || shown(site, property) == value).await;
}

fn failed(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_unit_is_stopped_and_started_as_another_instance() {
    let site = running(GOOD, "");
    let (part, cx) = (site.component(), run_cx(2));
    let seen = part.survey(&run_cx(1), &place(), &[]).await;
    assert_eq!((seen.running, seen.label.as_deref()), (Some(true), Some("active (running)")));
    assert_eq!(seen.facts["at boot"], "static; a release does not change that");
    assert_eq!(seen.facts["files"], "shop.service");
    assert!(!seen.facts.contains_key("files of others, left alone"), "{:?}", seen.facts);

    let (stop, start) = (step("stop", Action::Stop), step("start", Action::Start));
    let looked = part.holds(&cx, &stop, None).await;
    assert_eq!((looked.holds, looked.mark.clone()), (Holds::Origin, seen.instance));
    let stopping = before(2, &stop, looked.mark);
    proof(part.apply(&cx, &stop, &stopping).await);
    assert_eq!(part.holds(&cx, &stop, Some(&stopping)).await.holds, Holds::Target);
    assert_eq!(shown(&site.path(), "ActiveState"), "inactive");
    proof(part.apply(&cx, &stop, &stopping).await);

    let looked = part.holds(&cx, &start, None).await;
    assert_eq!((looked.holds, looked.mark.as_ref()), (Holds::Origin, None));
    let starting = before(2, &start, looked.mark);
    let done = proof(part.apply(&cx, &start, &starting).await);
    assert!(done.found.contains("stayed so for 400 ms"), "{}", done.found);
    assert_eq!(part.holds(&cx, &start, Some(&starting)).await.holds, Holds::Target);

    // It runs: started once more, it is another process.
    let pid = shown(&site.path(), "MainPID");
    proof(site.apply(3, &start).await);
    assert_ne!(shown(&site.path(), "MainPID"), pid);
}

#[tokio::test]
async fn a_unit_that_crashes_again_and_again_has_failed() {
    let site = running(GOOD, "");
    for (script, more, says) in [
        (CRASH, AGAIN, ""),
        ("sleep 0.2; echo cannot open /srv/shop: no such file; exit 3", AGAIN, "started again"),
        (CRASH, "", "failed (failed), exit-code, its process ended with exit code 3"),
        ("echo cannot open /srv/shop: no such file; kill -ABRT $$$$", "", "signal 6"),
    ] {
        unit(&site.path(), script, more);
        let failure = failed(site.apply(2, &step("start", Action::Start)).await);
        assert!(failure.what.contains("does not stay up") && failure.what.contains(says), "{script}: {}", failure.what);
        assert!(failure.output.as_deref().is_some_and(|said| said.contains("no such file")), "{script}: {failure:?}");
        assert_eq!(failure.retry, Retry::Never);
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said() {
    let site = running(GOOD, "");
    for kind in ["simple", "exec"] {
        fs::write(site.at("shop.service"), format!("[Service]\nType={kind}\nExecStart=/no/such/program\n")).unwrap();
        let failure = failed(site.apply(2, &step("start", Action::Start)).await);
        assert!(failure.what.contains("exit code 203"), "{kind}: {failure:?}");
        assert!(failure.output.is_some_and(|said| said.contains("/no/such/program: No such file")), "{kind}");
    }
}

#[tokio::test]
async fn a_unit_that_systemd_gave_up_gets_new_tries() {
    let site = running(CRASH, AGAIN);
    becomes(&site.path(), "ActiveState", "failed").await;
    let label = site.component().survey(&run_cx(1), &place(), &[]).await.label.unwrap();
    assert!(label.contains("failed (failed), exit-code") && label.contains("given up after 5 restarts"), "{label}");
    // Still bad: the failure says that systemd will not try again.
    let failure = failed(site.apply(2, &step("start", Action::Start)).await);
    assert!(failure.what.contains("does not stay up"), "{failure:?}");
    becomes(&site.path(), "ActiveState", "failed").await;
    unit(&site.path(), GOOD, AGAIN);
    proof(site.apply(3, &step("start", Action::Start)).await);
    assert_eq!((shown(&site.path(), "ActiveState"), shown(&site.path(), "NRestarts")), ("active".into(), "0".into()));
}

#[tokio::test]
async fn a_unit_in_the_middle_of_its_tries_is_started_whatever_it_used_up() {
    // It comes up for a moment each time, so it is found active as often as not.
    let site = running(
        "sleep 0.1; exit 3",
        &format!("{AGAIN}RestartSec=100ms\n[Unit]\nStartLimitBurst=4\nStartLimitIntervalSec=60\n"),
    );
    until("it is at its last try", async || shown(&site.path(), "NRestarts") == "3").await;
    unit(&site.path(), GOOD, "[Unit]\nStartLimitBurst=4\nStartLimitIntervalSec=60\n");
    proof(site.apply(2, &step("start", Action::Start)).await);
    assert_eq!(shown(&site.path(), "ActiveState"), "active");
}

#[tokio::test]
async fn rf26_a_stop_that_does_not_stop_is_told() {
    // It does not mind being asked, and systemd is told not to kill it: systemd calls it failed, and it lives.
    let stubborn = "trap \"\" TERM; while :; do sleep 0.1; done";
    let site = running(stubborn, "TimeoutStopSec=200ms\nSendSIGKILL=no\n");
    let (part, stop) = (site.component(), step("stop", Action::Stop));
    let cx = cx_at(Timestamp::now(), Duration::from_secs(6));
    let failure = failed(part.apply(&cx, &stop, &before(2, &stop, None)).await);
    let told = "`systemctl stop` reported success, but it is failed (failed), timeout";
    assert!(failure.what.starts_with(told) && failure.what.contains("still run"), "{failure:?}");
    let holds = part.holds(&cx, &stop, None).await.holds;
    assert!(matches!(&holds, Holds::Neither { found } if found.contains("still run")), "{holds:?}");
    systemctl(&site.path(), &["kill", "--signal=KILL", "shop.service"]);
    proof(site.apply(3, &stop).await);
}

#[tokio::test]
async fn what_is_meant_to_outlive_its_unit_does_not_hinder_a_stop() {
    let site = running("sleep 1000 & wait", "KillMode=process\n");
    proof(site.apply(2, &step("stop", Action::Stop)).await);
    proof(site.apply(2, &step("start", Action::Start)).await);
}

#[tokio::test]
async fn a_stop_that_takes_longer_than_it_may_is_not_known_to_be_done() {
    let site = running("trap \"\" TERM; while :; do sleep 0.1; done", "TimeoutStopSec=30\n");
    let (part, stop) = (site.component(), step("stop", Action::Stop));
    let cx = cx_at(Timestamp::now(), Duration::from_secs(3));
    let outcome = part.apply(&cx, &stop, &before(2, &stop, None)).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    assert_eq!(part.holds(&run_cx(2), &stop, None).await.holds, Holds::Origin);
    assert_eq!(shown(&site.path(), "ActiveState"), "deactivating", "systemd goes on");
    systemctl(&site.path(), &["kill", "--signal=KILL", "shop.service"]);
    proof(site.apply(2, &stop).await);
}

#[tokio::test]
async fn rf18_a_changed_drop_in_is_read_before_the_start() {
    let site = running(GOOD, "");
    let (id, made) = site.capture(1).await;
    fs::create_dir(site.at("shop.service.d")).unwrap();
    let bad = format!("[Service]\nExecStart=\nExecStart=/bin/sh -c '{CRASH}'\n");
    fs::write(site.at("shop.service.d/10-bad.conf"), bad).unwrap();
    assert!(matches!(site.seen().await, Seen::Between { .. }), "written and not read: no state of the process");
    systemctl(&site.path(), &["daemon-reload"]);
    assert!(matches!(site.seen().await, Seen::At(revision) if revision != made.revision));
    failed(site.apply(2, &step("start", Action::Start)).await);
    site.restore(3, &id, &made).await;
    assert!(!site.at("shop.service.d/10-bad.conf").exists(), "what the release added goes");
    assert_eq!(shown(&site.path(), "DropInPaths"), "", "and systemd has seen that");
    proof(site.apply(3, &step("start", Action::Start)).await);
    // Changed once more, by hand and without daemon-reload: the start takes what is written.
    let by_hand = "[Service]\nEnvironment=BY=hand\n";
    fs::write(site.at("shop.service.d/20-hand.conf"), by_hand).unwrap();
    proof(site.apply(4, &step("start", Action::Start)).await);
    assert_eq!(shown(&site.path(), "Environment"), "BY=hand");
}

#[tokio::test]
async fn a_restore_that_was_killed_before_systemd_read_the_files_is_not_done() {
    let site = running(GOOD, "");
    let (id, made) = site.capture(1).await;
    let good = fs::read(site.at("shop.service")).unwrap();
    unit(&site.path(), CRASH, "");
    let (part, cx, restore) = (site.component(), run_cx(2), restore_step(&id, &made));
    let looked = part.holds(&cx, &restore, None).await;
    let before = before(2, &restore, looked.mark);
    fs::write(site.at("shop.service"), good).unwrap();
    let found = part.holds(&cx, &restore, Some(&before)).await.holds;
    assert_eq!(found, Holds::Neither { found: "the files are there, and systemd has not read them".into() });
    proof(part.apply(&cx, &restore, &before).await);
    assert_eq!(part.holds(&cx, &restore, Some(&before)).await.holds, Holds::Target);
    assert!(shown(&site.path(), "ExecStart").contains(GOOD));
}

#[tokio::test]
async fn an_older_file_that_was_put_back_by_hand_is_read_before_the_start() {
    let site = running(GOOD, "");
    let (file, kept) = (site.at("shop.service"), site.dir.path().join("kept"));
    succeeded(Command::new("touch").args(["--date", "1 hour ago"]).arg(&file));
    succeeded(Command::new("cp").arg("--preserve=timestamps").args([&file, &kept]));
    unit(&site.path(), CRASH, "");
    // With the time it had: systemd compares times, and sees nothing to read.
    succeeded(Command::new("cp").arg("--preserve=timestamps").args([&kept, &file]));
    assert_eq!(shown(&site.path(), "NeedDaemonReload"), "no");
    proof(site.apply(2, &step("start", Action::Start)).await);
    assert!(shown(&site.path(), "ExecStart").contains(GOOD));
}

#[tokio::test]
async fn what_cannot_be_loaded_or_does_not_stay_is_no_service() {
    let site = running(GOOD, "");
    let start = step("start", Action::Start);
    fs::write(site.at("shop.service"), "[Service]\nRestart=always\n").unwrap();
    systemctl(&site.path(), &["daemon-reload"]);
    proof(site.apply(2, &step("stop", Action::Stop)).await);
    let failure = failed(site.apply(2, &start).await);
    assert_eq!(failure.what, "systemd cannot load `shop.service`: bad-setting");
    unit(&site.path(), "exit 0", "Type=oneshot\n");
    let failure = failed(site.apply(3, &start).await);
    assert_eq!(failure.what, "`shop.service` ends when it is done, and nothing can tell afterwards whether it ran");
    unit(&site.path(), "exit 0", "Type=oneshot\nRemainAfterExit=yes\n");
    proof(site.apply(4, &start).await);
    let looked = site.component().holds(&run_cx(5), &step("stop", Action::Stop), None).await;
    assert_eq!(looked.holds, Holds::Origin, "it stands until it is stopped");
}

#[tokio::test]
async fn evidence_is_its_journal_and_how_it_is() {
    let site = running(CRASH, "");
    becomes(&site.path(), "ActiveState", "failed").await;
    let done = proof(site.apply(2, &capture_step(CapturePurpose::Evidence)).await);
    let bytes = done.capture.unwrap().bytes;
    // `systemctl show` alone is some 10 000.
    assert!(bytes > 5000 && done.found.contains("journal"), "{}", done.found);
}

/// A unit that says what is written into its file, and a signal on its journal.
struct Watched {
    bench: Bench,
    site: PathBuf,
}

impl Watched {
    fn new() -> Self {
        let bench = Bench::new();
        let site = bench.path("site");
        fs::create_dir(&site).unwrap();
        machine(&site);
        fs::write(site.join("lines"), "<3>from last week\n").unwrap();
        unit(
            &site,
            &format!("exec tail -n +1 -f {}", site.join("lines").display()),
            "Restart=always\nRestartSec=50ms\n",
        );
        systemctl(&site, &["start", "--", "shop.service"]);
        Self { bench, site }
    }

    fn signal(&self, more: &str) -> std::sync::Arc<dyn Signal> {
        let cx = ripcord_adapters::BuildCx { base: self.site.clone(), ..self.bench.cx(None) };
        let yaml = "units: [shop.service]\nsystemctl: [sh, ../sys/systemctl]\njournalctl: [sh, ../sys/journalctl]";
        let settings = crate::support::signal("journal", &format!("{yaml}\n{more}"));
        ripcord_adapters::build_signal(&"figure".parse().unwrap(), &settings, &cx).unwrap()
    }

    /// Lines with their priorities, in the journal when this returns.
    async fn says(&self, lines: &str) {
        use std::io::Write;
        let mut file = fs::OpenOptions::new().append(true).open(self.site.join("lines")).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
        let last = lines.trim_end().lines().last().unwrap();
        let (_, last) = last.split_once('>').unwrap();
        until(last, async || {
            let read = ["../sys/journalctl", "--no-pager", "--output=cat", "--unit=shop.service"];
            succeeded(Command::new("sh").args(read).current_dir(&self.site)).lines().any(|line| line == last)
        })
        .await;
    }
}

async fn at(signal: &dyn Signal, second: i64) -> Reading {
    let now = Timestamp::from_second(1_700_000_000 + second).unwrap();
    signal.read(&cx_at(now, Duration::from_secs(20))).await
}

#[tokio::test]
async fn rf05_entries_are_counted_from_the_journal_s_end_on() {
    let watched = Watched::new();
    watched.says("<3>from an hour ago\n").await;
    let signal = watched.signal("priority: err\nmeasure: share");
    // The journal ends with an entry of somebody else's.
    systemctl(&watched.site, &["start", "systemd-tmpfiles-clean.service"]);
    assert_eq!(at(&*signal, 0).await, Reading::Empty, "what was there before is no evidence");
    watched.says("<6>order 1\n<6>errors=0\n<3>order 2 failed\n<2>out of memory\n").await;
    let share = sample(at(&*signal, 10).await);
    assert_eq!((share.value, share.n), (0.5, Some(4.0)));
    assert_eq!((&share.fields["last"], &share.fields["active"]), (&"out of memory".into(), &true.into()));
    assert_eq!(sample(at(&*signal, 20).await).n, Some(4.0), "an entry counts once");
    assert_eq!(at(&*signal, 90).await, Reading::Empty, "no entries is no data, and not health");
    let counted = watched.signal("pattern: 'order [0-9]+ failed'");
    at(&*counted, 0).await;
    watched.says("<6>order 3 failed\n<3>something else\n").await;
    assert_eq!(sample(at(&*counted, 5).await).value, 1.0);
    // Files of the journal come and go; what was read is found again.
    for words in [&["--rotate"][..], &["--vacuum-files=1"]] {
        succeeded(Command::new("sh").arg("../sys/journalctl").args(words).current_dir(&watched.site));
    }
    watched.says("<6>order 4 failed\n").await;
    assert_eq!(sample(at(&*counted, 6).await).value, 2.0);
}

#[tokio::test]
async fn units_that_are_down_or_start_again_are_seen() {
    let watched = Watched::new();
    let (failing, restarts) = (watched.signal("measure: failing"), watched.signal("measure: restarts\nwindow: 10m"));
    assert_eq!(sample(at(&*failing, 0).await).value, 0.0);
    assert_eq!(sample(at(&*restarts, 0).await).value, 0.0);
    systemctl(&watched.site, &["kill", "--signal=KILL", "shop.service"]);
    becomes(&watched.site, "NRestarts", "1").await;
    becomes(&watched.site, "ActiveState", "active").await;
    assert_eq!(sample(at(&*failing, 10).await).value, 0.0);
    assert_eq!(sample(at(&*restarts, 10).await).value, 1.0);
    systemctl(&watched.site, &["stop", "--", "shop.service"]);
    let down = sample(at(&*failing, 20).await);
    assert_eq!((down.value, &down.fields["states"]["shop.service"]), (1.0, &"inactive (dead)".into()));
    // Somebody's own start begins the count anew, and is none of systemd's.
    systemctl(&watched.site, &["start", "--", "shop.service"]);
    assert_eq!(sample(at(&*restarts, 30).await).value, 1.0);
}
