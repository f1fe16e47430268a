//! The command component against real commands, files, processes and a vault.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    Action, Available, CapturePurpose, CaptureRef, Component, Destroys, Held, Holds, Key, Lifecycle, Nature, Observe,
    Outcome, Readers, Redo, Retry, Revision, RunId, Seen, Seq, StepId, Want, Wish,
};

use crate::support::{
    Bench, app, apply, before, component, cx, cx_at, inventory, place, proof, runs, step, survey, wanted,
};

/// Rules in a file, whose revision is their content, taken care of by one script.
const RULES: &str = r#"
case "$1" in
  revision) [ -e live ] && head -n 1 live ;;
  export) cat live ;;
  import) cat > live.new && mv live.new live; echo "$RIPCORD_KEY $RIPCORD_STEP $RIPCORD_REVISION $RIPCORD_APPLICATION $RIPCORD_ENVIRONMENT $RIPCORD_COMPONENT" >> calls ;;
  has) [ -e "kept/$RIPCORD_REVISION" ] ;;
  checkout) cp "kept/$RIPCORD_REVISION" live; echo "$RIPCORD_REVISION" >> calls ;;
  nothing) : ;;
  fail) echo "cannot connect" >&2; exit "$2" ;;
esac
"#;

fn rules(bench: &Bench, yaml: &str) -> Arc<dyn Component> {
    bench.write("ops", RULES);
    bench.component("command", yaml)
}

const CAPTURED: &str = "observe: [sh, ops, revision]\ncapture: [sh, ops, export]\nrestore: [sh, ops, import]";
const KEPT: &str = "observe: [sh, ops, revision]\navailable: [sh, ops, has]\nrestore: [sh, ops, checkout]";

fn restore(to: &str, from: Option<CaptureRef>) -> ripcord_core::Step {
    step("restore", Action::Restore { to: Revision::exact(to), from })
}

fn capture() -> ripcord_core::Step {
    step("capture", Action::Capture { purpose: CapturePurpose::Protective })
}

#[tokio::test]
async fn what_it_can_do_follows_from_the_commands() {
    let bench = Bench::new();
    let can = |yaml: &str| bench.component("command", yaml).capabilities();
    let captured = can(&format!("{CAPTURED}\nreaders: stop"));
    assert_eq!((captured.observe, captured.held, captured.readers), (Observe::Exactly, Held::Vault, Readers::Stop));
    assert_eq!(
        (captured.lifecycle, captured.redo, captured.restore),
        (Lifecycle::None, Redo::Never, Destroys::Nothing)
    );
    let kept = can(KEPT);
    assert_eq!((kept.observe, kept.held), (Observe::Exactly, Held::BySystem));
    let process = can("start: [a]\nstop: [b]\ninstance: [c]");
    assert_eq!(
        (process.observe, process.lifecycle, process.held),
        (Observe::ByMarker, Lifecycle::Process, Held::Nowhere)
    );
    assert_eq!(can("start: [a]\nstop: [b]").observe, Observe::No, "nobody can tell whether it runs");
    let flowing = can(&format!("{CAPTURED}\nnature: flowing\nredo: same-key\nevidence: [d]"));
    assert_eq!((flowing.nature, flowing.restore), (Nature::Flowing, Destroys::GivesUp));
    assert_eq!((flowing.redo, flowing.evidence), (Redo::SameKey, true));
}

#[test]
fn settings_that_could_not_work_are_refused() {
    use ripcord_adapters::Adapters;
    use ripcord_config::Kinds;
    let mistakes = |yaml: &str| -> Vec<String> {
        let settings: ripcord_adapters::components::command::Settings = serde_saphyr::from_str(yaml).unwrap();
        let settings = ripcord_adapters::ComponentSettings::Command(settings);
        Adapters::check_component(&settings).into_iter().map(|mistake| mistake.what).collect()
    };
    assert_eq!(mistakes("{}"), ["it can do nothing"]);
    assert_eq!(
        mistakes("restore: [a]"),
        ["nobody could tell whether `restore` did it", "nobody could tell what `restore` can go back to"]
    );
    assert_eq!(mistakes("start: [a]"), ["what is started is never stopped"]);
    assert_eq!(mistakes("observe: []"), ["`observe` is no command"]);
    let ports = "start: [a]\nstop: [b]\nports: [8080]";
    assert_eq!(mistakes(ports), ["nobody could tell whether it is itself that has the ports"]);
    assert_eq!(mistakes(&format!("{ports}\ninstance: [c]").replace("8080", "8080, 0")), ["0 is no port"]);
    assert_eq!(mistakes("observe: [a]\nlimits: { call: 10m, total: 1m }"), ["the limits leave no room to act"]);
    let unknown = serde_saphyr::from_str::<ripcord_adapters::components::command::Settings>("observ: [a]").unwrap_err();
    assert!(unknown.to_string().contains("observ"), "{unknown}");
    component("command", KEPT);
}

#[tokio::test]
async fn a_captured_state_comes_back_byte_for_byte() {
    let bench = Bench::new();
    bench.vault();
    let part = rules(&bench, CAPTURED);
    let good: Vec<u8> = b"good\n\0\xff\r\nlast line without an end".to_vec();
    fs::write(bench.path("live"), &good).unwrap();
    let made = proof(apply(&*part, &capture()).await).capture.unwrap();
    assert_eq!((made.revision.clone(), made.bytes), (Revision::exact("good"), good.len() as u64));
    let id = bench.record(9, made);

    bench.write("live", "bad\n");
    let seen = survey(&*part, &[wanted("good", Some(&id)), wanted("other", None), wanted("bad", None)]).await;
    assert_eq!(seen.seen, Seen::At(Revision::exact("bad")));
    let available: Vec<_> = seen.available.iter().map(|(_, available)| available.clone()).collect();
    assert_eq!(available[0], Available::Here { how: "capture cap-9, read back".into() });
    assert!(matches!(&available[1], Available::Missing { why } if why == "no capture of it was ever made"));
    assert_eq!(available[2], Available::Here { how: "it is there now".into() });

    let want = Want::Revision { revision: Revision::exact("good"), capture: Some(id.clone()) };
    let drafts = part.propose(&Wish { place: place(), want }, &inventory(seen)).unwrap();
    assert_eq!(drafts.len(), 1);
    assert_eq!(
        drafts[0].action,
        Action::Restore { to: Revision::exact("good"), from: Some(CaptureRef::Known(id.clone())) }
    );
    assert_eq!(drafts[0].shown.commands, [["sh", "ops", "import"]]);

    let prove = step("prove", Action::Prove { revision: Revision::exact("good"), capture: Some(id.clone()) });
    assert_eq!(proof(apply(&*part, &prove).await).found, "capture cap-9, read back");
    let restore = restore("good", Some(CaptureRef::Known(id)));
    assert_eq!(proof(apply(&*part, &restore).await).found, "at good");
    assert_eq!(fs::read(bench.path("live")).unwrap(), good);
    let key = Key::of(&app(), &RunId::at(Seq(3)), &StepId("restore/part".into()));
    assert_eq!(bench.read("calls"), format!("{key} restore/part good shop test part\n"));
}

#[tokio::test]
async fn rf09_a_step_done_twice_is_done_once() {
    let bench = Bench::new();
    let part = rules(&bench, KEPT);
    fs::create_dir(bench.path("kept")).unwrap();
    bench.write("kept/v1", "v1\n");
    bench.write("live", "v2\n");
    let step = restore("v1", None);
    let first = part.holds(&cx(), &step, None).await;
    assert_eq!((first.holds, first.mark.as_deref()), (Holds::Origin, Some("v2")));
    let before = before(&step, first.mark);
    assert_eq!(part.holds(&cx(), &step, Some(&before)).await.holds, Holds::Origin, "a step that never began");
    proof(part.apply(&cx(), &step, &before).await);
    assert_eq!(part.holds(&cx(), &step, Some(&before)).await.holds, Holds::Target);
    assert_eq!(part.holds(&cx(), &step, None).await.holds, Holds::Target, "the next run finds nothing to do");
    proof(part.apply(&cx(), &step, &before).await);
    assert_eq!(bench.read("live"), "v1\n");
    bench.write("live", "v3\n");
    let found = part.holds(&cx(), &step, Some(&before)).await.holds;
    assert_eq!(found, Holds::Neither { found: "at v3".into() }, "somebody else was here");
    let seen = inventory(survey(&*part, &[]).await);
    let wish = |revision: &str| Wish {
        place: place(),
        want: Want::Revision { revision: Revision::exact(revision), capture: None },
    };
    assert_eq!(part.propose(&wish("v3"), &seen).unwrap(), [], "at the target already");
    assert_eq!(part.propose(&wish("v1"), &seen).unwrap().len(), 1);
}

#[tokio::test]
async fn a_system_that_keeps_its_revisions_is_asked_for_them() {
    let bench = Bench::new();
    let part = rules(&bench, KEPT);
    fs::create_dir(bench.path("kept")).unwrap();
    bench.write("kept/v2", "v2\n");
    bench.write("live", "v2\n");
    let seen = survey(&*part, &[wanted("v2", None), wanted("v1", None)]).await;
    assert_eq!(seen.available[0].1, Available::Here { how: "`sh` says so".into() });
    assert!(matches!(&seen.available[1].1, Available::Missing { why } if why.contains("exit code 1")));
    let gone = step("prove", Action::Prove { revision: Revision::exact("v1"), capture: None });
    assert!(matches!(apply(&*part, &gone).await, Outcome::Failed(failure) if failure.retry == Retry::Never));
    let made = proof(apply(&*part, &capture()).await).capture.unwrap();
    assert_eq!(made.held, ripcord_core::HeldIn::System { name: "v2".into() });
    fs::remove_file(bench.path("kept/v2")).unwrap();
    assert!(
        matches!(apply(&*part, &capture()).await, Outcome::Failed(_)),
        "a present that cannot be had again is not captured"
    );
}

#[tokio::test]
async fn rf12_a_capture_that_failed_is_none() {
    let bench = Bench::new();
    bench.vault();
    let check = async |script: &str| {
        bench.write("live", "good\n");
        let yaml = format!("observe: [sh, ops, revision]\ncapture: [sh, -c, '{script}']\nrestore: [sh, ops, import]");
        match apply(&*rules(&bench, &yaml), &capture()).await {
            Outcome::Failed(failure) => failure.what,
            other => panic!("{script}: {other:?}"),
        }
    };
    assert_eq!(check("exit 3").await, "`sh` ended with exit code 3");
    assert_eq!(check("cat live; echo half way >&2; exit 3").await, "`sh` ended with exit code 3: half way");
    assert_eq!(check("head -c 300000 /dev/zero; exit 3").await, "`sh` ended with exit code 3");
    assert_eq!(check("cat live; echo bad > live").await, "it went from good to bad while it was captured");
    assert!(check("cat live; kill -9 $$").await.starts_with("`sh` ended with a signal"));
    assert!(
        bench.vault().list().unwrap().len() <= 1,
        "only the one that changed meanwhile was stored, and it is on no record"
    );
}

#[tokio::test]
async fn a_damaged_capture_is_refused_and_nothing_is_touched() {
    let bench = Bench::new();
    bench.vault();
    let part = rules(&bench, CAPTURED);
    bench.write("live", "good\n");
    let made = proof(apply(&*part, &capture()).await).capture.unwrap();
    let id = bench.record(9, made);
    bench.write("live", "bad\n");
    let packs = walk(&bench.path("vault/repository/data"));
    assert!(!packs.is_empty());
    for pack in packs {
        let mut bytes = fs::read(&pack).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    let outcome = apply(&*part, &restore("good", Some(CaptureRef::Known(id.clone())))).await;
    assert!(matches!(&outcome, Outcome::Failed(failure) if failure.retry == Retry::Never), "{outcome:?}");
    assert_eq!(bench.read("live"), "bad\n");
    assert!(!bench.path("calls").exists(), "`restore` was never run");
    let seen = survey(&*part, &[wanted("good", Some(&id))]).await;
    assert!(matches!(&seen.available[0].1, Available::Missing { .. }));
}

fn walk(at: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn rf27_a_restore_that_only_says_so_has_failed() {
    let bench = Bench::new();
    bench.write("live", "bad\n");
    let part = |command: &str| {
        rules(
            &bench,
            &format!("observe: [sh, ops, revision]\navailable: [sh, ops, nothing]\nrestore: [sh, ops, {command}]"),
        )
    };
    let step = restore("good", None);
    let lies = part("nothing");
    let outcome =
        lies.apply(&cx_at(Timestamp::now(), Duration::from_secs(1)), &step, &before(&step, Some("bad".into()))).await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.what, "`restore` reported success, but `observe` does not say good: bad");
    let Outcome::Failed(failure) = apply(&*part("fail, '3'"), &step).await else { panic!() };
    assert_eq!((failure.what.as_str(), failure.retry), ("`sh` ended with exit code 3: cannot connect", Retry::Never));
    assert_eq!(failure.output.as_deref(), Some("cannot connect"));
    let Outcome::Failed(failure) = apply(&*part("fail, '75'"), &step).await else { panic!() };
    assert_eq!(failure.retry, Retry::Later, "EX_TEMPFAIL");
}

#[tokio::test]
async fn what_may_have_happened_is_unknown() {
    let bench = Bench::new();
    bench.write("live", "bad\n");
    let yaml =
        "observe: [sh, ops, revision]\navailable: [sh, ops, nothing]\nrestore: [sh, -c, 'echo good > live; sleep 60']";
    let part = rules(&bench, yaml);
    let step = restore("good", None);
    let before = before(&step, Some("bad".into()));
    let outcome = part.apply(&cx_at(Timestamp::now(), Duration::from_secs(1)), &step, &before).await;
    assert!(matches!(&outcome, Outcome::Unknown { why } if why.contains("still running after")), "{outcome:?}");
    assert_eq!(part.holds(&cx(), &step, Some(&before)).await.holds, Holds::Target, "it had happened");
    let absent = rules(&bench, "observe: [no-such-program]\navailable: [a]\nrestore: [no-such-program]");
    assert!(
        matches!(absent.apply(&cx(), &step, &before).await, Outcome::Failed(failure) if failure.retry == Retry::Never)
    );
    assert!(matches!(absent.holds(&cx(), &step, Some(&before)).await.holds, Holds::CannotTell { .. }));
    assert!(matches!(survey(&*absent, &[]).await.seen, Seen::Unreachable { .. }));
}

#[tokio::test]
async fn revisions_are_one_line_and_nothing_is_a_state() {
    let bench = Bench::new();
    let seen = async |script: &str| {
        let part = bench.component("command", &format!("observe: [sh, -c, '{script}']"));
        let survey = survey(&*part, &[]).await;
        (survey.seen, survey.label)
    };
    let at = |revision: &str| Seen::At(Revision::exact(revision));
    assert_eq!(seen("echo  abc ").await, (at("abc"), None));
    assert_eq!(seen("echo abc; echo version 1").await, (at("abc"), Some("version 1".into())));
    assert_eq!(seen("true").await, (Seen::At(Revision::Absent), None));
    let unreachable = async |script: &str| match seen(script).await.0 {
        Seen::Unreachable { why } => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        unreachable("echo a; echo b; echo c").await,
        "`observe` prints more than a revision and a label: 3 lines"
    );
    assert_eq!(unreachable("echo abc; exit 1").await, "`sh` ended with exit code 1: abc");
}

/// A server that its script starts and stops, and that others may start too.
const SERVER: &str = r#"
case "$1" in
  start) (trap '' HUP; exec sleep 600) > /dev/null 2>&1 & echo $! > pid ;;
  stop) kill "$(cat pid)"; rm pid ;;
  instance) [ -e pid ] && [ -d "/proc/$(cat pid)" ] && echo "$(cat pid)@$(cut -d' ' -f22 /proc/$(cat pid)/stat)" || true ;;
  lie) : ;;
esac
"#;

struct Serving(Bench);

impl Drop for Serving {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(self.0.path("pid")) {
            let _ = std::process::Command::new("kill").arg(pid.trim()).status();
        }
    }
}

fn serving(start: &str, stop: &str) -> (Serving, Arc<dyn Component>) {
    let bench = Bench::new();
    bench.write("srv", SERVER);
    let yaml = format!("start: [sh, srv, {start}]\nstop: [sh, srv, {stop}]\ninstance: [sh, srv, instance]");
    let part = bench.component("command", &yaml);
    (Serving(bench), part)
}

#[tokio::test]
async fn a_process_is_started_stopped_and_told_from_its_former_self() {
    let (bench, part) = serving("start", "stop");
    let (start, stop) = (step("start", Action::Start), step("stop", Action::Stop));
    assert_eq!(survey(&*part, &[]).await.running, Some(false));
    assert_eq!(part.holds(&cx(), &stop, None).await.holds, Holds::Target, "what does not run is stopped");

    let first = proof(apply(&*part, &start).await);
    assert!(first.found.starts_with("runs as "), "{}", first.found);
    let now = survey(&*part, &[]).await;
    assert_eq!((now.running, now.seen), (Some(true), Seen::At(Revision::exact("unversioned"))));
    let instance = now.instance.unwrap();

    // To be started while it runs is to be started anew: what runs has not taken up what was restored.
    let seen = part.holds(&cx(), &start, None).await;
    assert_eq!((seen.holds, seen.mark.as_deref()), (Holds::Origin, Some(instance.as_str())));
    let before_start = before(&start, Some(instance.clone()));
    proof(part.apply(&cx(), &start, &before_start).await);
    let second = part.holds(&cx(), &start, Some(&before_start)).await;
    assert_eq!(second.holds, Holds::Target);
    assert_ne!(second.mark.as_deref(), Some(instance.as_str()));
    assert!(!runs(instance.split('@').next().unwrap()), "the former is gone");

    let before_stop = before(&stop, second.mark);
    assert_eq!(part.holds(&cx(), &stop, Some(&before_stop)).await.holds, Holds::Origin);
    assert_eq!(proof(part.apply(&cx(), &stop, &before_stop).await).found, "no instance runs");
    assert_eq!(part.holds(&cx(), &stop, Some(&before_stop)).await.holds, Holds::Target);
    drop(bench);
}

/// The server, with a port that a test may have, and its restore.
fn serving_at(port: u16) -> (Serving, Arc<dyn Component>) {
    let bench = Bench::new();
    bench.write("srv", SERVER);
    bench.write("live", "v1\n");
    let instance = "instance: [sh, -c, 'touch asked; exec sh srv instance']";
    let kept = "observe: [head, -n, '1', live]\navailable: ['true']\nrestore: ['true']";
    let yaml = format!("start: [sh, srv, start]\nstop: [sh, srv, stop]\n{instance}\nports: [{port}]\n{kept}");
    let part = bench.component("command", &yaml);
    (Serving(bench), part)
}

#[tokio::test]
async fn a_start_whose_port_is_taken_is_not_begun_and_says_by_whom() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (bench, part) = serving_at(port);
    let start = step("start", Action::Start);
    let outcome = part.apply(&cx_at(Timestamp::now(), Duration::from_secs(1)), &start, &before(&start, None)).await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    let own = std::process::id();
    let begins = format!("port {port} is in use by ");
    assert!(failure.what.starts_with(&begins), "{}", failure.what);
    assert!(failure.what.ends_with(&format!("(process {own})")), "{}", failure.what);
    assert!(failure.retry == Retry::Later && failure.advice.is_some());
    assert!(!bench.0.path("pid").exists(), "`start` was never run");

    let prove = step("prove", Action::Prove { revision: Revision::exact("v1"), capture: None });
    let Outcome::Failed(failure) = apply(&*part, &prove).await else { panic!("it is stopped, and could not start") };
    assert!(failure.what.starts_with(&begins), "{}", failure.what);
    drop(taken);
    // A child that another test starts may hold the port for a moment longer.
    crate::support::until("the free port", || async { matches!(apply(&*part, &prove).await, Outcome::Done(_)) }).await;
    crate::support::until("the start", || async { matches!(apply(&*part, &start).await, Outcome::Done(_)) }).await;
}

#[tokio::test]
async fn a_port_that_is_let_go_meanwhile_is_waited_for() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let (bench, part) = serving_at(taken.local_addr().unwrap().port());
    let start = step("start", Action::Start);
    let (cx, before) = (cx(), before(&start, Some("a former instance".into())));
    let asked = bench.0.path("asked");
    let let_go = async {
        // It looks for its former instance, and then at the port.
        crate::support::until("the start", || async { asked.exists() }).await;
        drop(taken);
    };
    let (outcome, ()) = tokio::join!(part.apply(&cx, &start, &before), let_go);
    assert!(proof(outcome).found.starts_with("runs as "));
}

#[tokio::test]
async fn a_running_instance_has_its_ports_itself() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let (_bench, part) = serving_at(port);
    proof(apply(&*part, &step("start", Action::Start)).await);
    // As the instance would have it.
    let _own = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let prove = step("prove", Action::Prove { revision: Revision::exact("v1"), capture: None });
    proof(apply(&*part, &prove).await);
}

#[tokio::test]
async fn rf26_a_stop_that_does_not_stop_is_detected() {
    let (_bench, part) = serving("start", "lie");
    proof(apply(&*part, &step("start", Action::Start)).await);
    let stop = step("stop", Action::Stop);
    let mark = part.holds(&cx(), &stop, None).await.mark;
    let before = before(&stop, mark.clone());
    let outcome = part.apply(&cx_at(Timestamp::now(), Duration::from_secs(1)), &stop, &before).await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.what, format!("`stop` reported success, but `{}` still runs", mark.unwrap()));
    assert_eq!(part.holds(&cx(), &stop, Some(&before)).await.holds, Holds::Origin);
}

#[tokio::test]
async fn a_start_that_does_not_start_is_not_done() {
    let (_bench, part) = serving("lie", "stop");
    let start = step("start", Action::Start);
    let before = before(&start, None);
    let outcome = part.apply(&cx_at(Timestamp::now(), Duration::from_secs(1)), &start, &before).await;
    assert!(matches!(&outcome, Outcome::Unknown { why } if why.ends_with("no new instance is seen")), "{outcome:?}");
    assert_eq!(part.holds(&cx(), &start, Some(&before)).await.holds, Holds::Origin);
}

#[tokio::test]
async fn rf26_an_instance_that_came_back_is_not_the_one_that_was_stopped() {
    let (bench, part) = serving("start", "stop");
    proof(apply(&*part, &step("start", Action::Start)).await);
    let stop = step("stop", Action::Stop);
    let before = before(&stop, part.holds(&cx(), &stop, None).await.mark);
    proof(part.apply(&cx(), &stop, &before).await);
    std::process::Command::new("sh").args(["srv", "start"]).current_dir(bench.0.dir.path()).status().unwrap();
    let found = part.holds(&cx(), &stop, Some(&before)).await.holds;
    assert!(matches!(&found, Holds::Neither { found } if found.starts_with("another instance runs: ")), "{found:?}");
}

#[tokio::test]
async fn pgrep_says_that_none_runs_by_its_exit_code() {
    let bench = Bench::new();
    let instance = async |script: &str| {
        let part = bench.component("command", &format!("start: [a]\nstop: [b]\ninstance: [sh, -c, '{script}']"));
        let survey = survey(&*part, &[]).await;
        (survey.running, survey.instance)
    };
    assert_eq!(instance("exit 1").await, (Some(false), None));
    assert_eq!(instance("echo 12; echo 11").await, (Some(true), Some("11 12".into())));
    assert_eq!(instance("echo broken >&2; exit 1").await, (None, None), "an error is not an absence");
}

#[tokio::test]
async fn rf14_evidence_is_kept_in_the_vault_even_of_what_fails() {
    let bench = Bench::new();
    bench.vault();
    let part = bench
        .component("command", "observe: [echo, v1]\nevidence: [sh, -c, 'echo last words; echo trouble >&2; exit 2']");
    assert!(part.capabilities().evidence);
    let evidence = step("evidence", Action::Capture { purpose: CapturePurpose::Evidence });
    let proof = proof(apply(&*part, &evidence).await);
    assert_eq!(proof.found, "19 bytes of evidence, though the command failed");
    let ripcord_core::HeldIn::Vault { manifest } = proof.capture.unwrap().held else { panic!() };
    let mut kept = vec![];
    bench.vault().read(&serde_json::from_value(manifest).unwrap(), "stdout", &mut kept).unwrap();
    assert_eq!(kept, b"last words\n");
}

#[tokio::test]
async fn rf29_a_secret_is_in_no_outcome() {
    let bench = Bench::new();
    let token = bench.secret("token", "canary-31337");
    let yaml = format!(
        "observe: [sh, -c, 'echo $T']\navailable: [sh, -c, 'echo $T >&2; exit 1']\nrestore: [sh, -c, 'echo $T; echo $T >&2; exit 3']\n\
         start: [sh, -c, 'echo $T']\nstop: [sh, -c, 'echo $T; exit 1']\ninstance: [sh, -c, 'echo $T']\nsecrets: {{ T: {token} }}"
    );
    let part = bench.component("command", &yaml);
    let mut all = format!("{:?}", survey(&*part, &[wanted("x", None)]).await);
    for action in [Action::Restore { to: Revision::exact("x"), from: None }, Action::Stop, Action::Start] {
        let step = step("s", action);
        all += &format!("{:?}", part.holds(&cx(), &step, None).await);
        let short = cx_at(Timestamp::now(), Duration::from_secs(1));
        all += &format!("{:?}", part.apply(&short, &step, &before(&step, None)).await);
        all += &format!("{:?}", part.show(&place(), &step.action));
    }
    assert!(all.contains("[redacted]") && !all.contains("canary"), "{all}");
}
