//! Places on other hosts. The host is this machine, and the connection a pair of pipes to an agent that is a process of its own:
//! this very test program. What only SSH can show is shown with a real server.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_adapters::hosts::far::{serve, signal_on, spread};
use ripcord_adapters::hosts::{Home, Link, Links, Transport};
use ripcord_adapters::{Adapters, BuildCx};
use ripcord_config::{Loaded, load_bytes};
use ripcord_core::{
    Action, Before, CannotPlan, Capabilities, CapturePurpose, Component, Cx, Draft, Failure, Fut, Holds, HostId,
    Inventory, Key, KindVersion, Observation, Outcome, Place, Reading, Retry, Seen, Shown, Signal, Step, StepId,
    Survey, Wanted, Wish,
};

use crate::contract::{Child, Rig, before, build_cx, capture_step, restore_step, run_cx, vault};
use crate::support::{app, cx, place, proof, runs, sample, step, until};

/// A kind on another host, for the contract.
pub struct There<R>(PhantomData<R>);

impl<R: Rig> Rig for There<R> {
    const KIND: &'static str = R::KIND;
    const WRITES: bool = R::WRITES;
    const FAR: bool = true;
    fn settings() -> String {
        R::settings()
    }
    fn good(site: &Path) {
        R::good(site);
    }
    fn bad(site: &Path) {
        R::bad(site);
    }
    fn edit(site: &Path) {
        R::edit(site);
    }
    fn content(site: &Path) -> String {
        R::content(site)
    }
    fn damage(site: &Path) {
        R::damage(site);
    }
    fn between(site: &Path) -> bool {
        R::between(site)
    }
}

/// Not a test: what stands at the other end.
#[test]
fn agent() {
    if std::env::var_os("FAR_AGENT").is_none() {
        return;
    }
    let stream = |of: &dyn AsFdOf| tokio::fs::File::from_std(fs::File::from(of.fd()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // The two outputs change places (see `argv`): what the test program itself prints stays out of the frames.
    runtime.block_on(async { serve(stream(&io::stdin()), stream(&io::stderr())).await.unwrap() });
    std::process::exit(0);
}

trait AsFdOf {
    fn fd(&self) -> std::os::fd::OwnedFd;
}
impl<T: AsFd> AsFdOf for T {
    fn fd(&self) -> std::os::fd::OwnedFd {
        self.as_fd().try_clone_to_owned().unwrap()
    }
}

/// The agent of a host whose files are below `dir`.
fn argv(dir: &Path, prefix: &[String]) -> Vec<String> {
    let state = format!("XDG_STATE_HOME={}", dir.join("state").display());
    let exe = std::env::current_exe().unwrap().display().to_string();
    let swapped = "exec 3>&1 1>&2 2>&3 3>&-; exec \"$0\" \"$@\"";
    let words = ["env", "FAR_AGENT=1", &state, "sh", "-c", swapped, &exe, "far::agent", "--exact", "--nocapture"];
    prefix.iter().cloned().chain(words.map(str::to_owned)).collect()
}

fn host() -> HostId {
    "there".parse().unwrap()
}

/// A controller of what is on one host.
struct Far {
    dir: PathBuf,
    loaded: Loaded<Adapters>,
    links: Links,
    cx: BuildCx,
}

impl Far {
    /// `parts` is the file without its first lines.
    fn new(dir: &Path, parts: &str, transport: Transport) -> Self {
        let site = dir.join("site");
        let text = format!(
            "application: shop\nenvironments: {{ test: {{}} }}\nhosts:\n  there: {{ ssh: {{ to: nobody }}, directory: {} }}\n{parts}",
            site.display()
        );
        // Secrets are found beside the configuration, which is not where the host's files are.
        let base = dir.join("here");
        let loaded = load_bytes::<Adapters>("ripcord.yaml", text.as_bytes(), &base, None);
        let loaded = loaded.unwrap_or_else(|report| panic!("{report}\n{text}"));
        let cx = BuildCx { base: base.clone(), ..build_cx(dir) };
        let home = Home {
            app: app(),
            config: text,
            config_name: "ripcord.yaml".to_owned(),
            base,
            redactor: cx.redactor.clone(),
            vault: Some(vault(dir)),
            revision_key: cx.revision_key,
        };
        let link = Link::through(transport, &host(), &loaded.hosts[&host()], &home);
        Self { dir: dir.to_owned(), loaded, links: [(host(), link)].into(), cx }
    }

    fn local(dir: &Path, parts: &str) -> Self {
        Self::new(dir, parts, Transport::Local { argv: argv(dir, &[]) })
    }

    fn component(&self) -> Arc<dyn Component> {
        let id = place().component;
        let on = &self.loaded.application.components[&id].hosts;
        let spread = spread(&id, &self.loaded.components[&id], on, &self.links, &self.cx).unwrap();
        Arc::new(OnTheHost(spread))
    }

    fn signal(&self) -> Arc<dyn Signal> {
        self.signal_of("figure")
    }

    fn signal_of(&self, id: &str) -> Arc<dyn Signal> {
        let id = id.parse().unwrap();
        signal_on(&id, &self.loaded.signals[&id], &self.loaded.signal_hosts[&id], &self.links, &self.cx).unwrap()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join("site").join(name)
    }
}

/// What was left of calls.
fn left(dir: &Path) -> Vec<String> {
    let Ok(calls) = fs::read_dir(dir.join("state/ripcord/shop/test/calls")) else { return vec![] };
    let names = calls.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".json")).collect()
}

fn part(kind: &str, yaml: &str) -> String {
    let indented: String = yaml.lines().map(|line| format!("      {line}\n")).collect();
    let ladder = "strategies: { all: [{ level: 3, restore: [part] }] }\ndefault-strategy: all\n";
    format!("{ladder}components:\n  part:\n    hosts: [there]\n    {kind}:\n{indented}")
}

/// A directory with a site, for a host.
fn bench() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("site")).unwrap();
    fs::create_dir(dir.path().join("here")).unwrap();
    dir
}

/// A component that is on the host, for tests that know nothing of hosts.
struct OnTheHost(Arc<dyn Component>);

fn there(place: &Place) -> Place {
    Place { host: Some(host()), ..place.clone() }
}

/// As the planner names it: by its place.
fn step_there(step: &Step) -> Step {
    let id = StepId(format!("{}@{}", step.id, host()));
    Step { id, place: step.place.as_ref().map(there), ..step.clone() }
}

fn before_there(before: &Before) -> Before {
    Before { key: Key(format!("{}@{}", before.key, host())), ..before.clone() }
}

impl Component for OnTheHost {
    fn kind(&self) -> KindVersion {
        self.0.kind()
    }
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    fn survey<'a>(&'a self, cx: &'a Cx, place: &'a Place, wanted: &'a [Wanted]) -> Fut<'a, Survey> {
        Box::pin(async move {
            let survey = self.0.survey(cx, &there(place), wanted).await;
            assert_eq!(survey.place, there(place));
            Survey { place: place.clone(), ..survey }
        })
    }
    fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let surveys = seen.surveys.values().map(|survey| Survey { place: there(&survey.place), ..survey.clone() });
        let seen = Inventory { at: seen.at, surveys: surveys.map(|survey| (survey.place.clone(), survey)).collect() };
        self.0.propose(&Wish { place: there(&wish.place), want: wish.want.clone() }, &seen)
    }
    fn show(&self, place: &Place, action: &Action) -> Shown {
        self.0.show(&there(place), action)
    }
    fn holds<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: Option<&'a Before>) -> Fut<'a, Observation> {
        Box::pin(async move { self.0.holds(cx, &step_there(step), before.map(before_there).as_ref()).await })
    }
    fn apply<'a>(&'a self, cx: &'a Cx, step: &'a Step, before: &'a Before) -> Fut<'a, Outcome> {
        Box::pin(async move { self.0.apply(cx, &step_there(step), &before_there(before)).await })
    }
    fn tidy<'a>(&'a self, cx: &'a Cx, place: &'a Place, before: Timestamp) -> Fut<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move { self.0.tidy(cx, &there(place), before).await })
    }
}

/// What the contract calls a component.
pub fn component(dir: &Path, kind: &str, yaml: &str, prefix: &[String]) -> Arc<dyn Component> {
    Far::new(dir, &part(kind, yaml), Transport::Local { argv: argv(dir, prefix) }).component()
}

/// Runs a step by an agent of its own. None when that was killed on the way.
pub fn in_agent(dir: &Path, kind: &str, yaml: &str, run: u64, step: &Step, with: &Child) -> Option<Outcome> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut prefix = vec![];
    if with.unprivileged && rustix::process::geteuid().is_root() {
        prefix.extend(words(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]));
        prefix.extend(words(&["env", "TMPDIR=/tmp", "HOME=/nonexistent"]));
    }
    if let Some(blocks) = with.file_blocks {
        // Ignoring the signal makes the write fail instead, as on a full disk.
        let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        prefix.extend(words(&["sh", "-c", &limited]));
    }
    if let Some(at) = with.kill_at {
        prefix.extend(words(&["env", &format!("RIPCORD_KILL_AT={at}")]));
    }
    let applied = std::thread::scope(|scope| {
        let applying = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                let component = component(dir, kind, yaml, &prefix);
                component.apply(&run_cx(run), step, &before(run, step, None)).await
            })
        });
        applying.join().unwrap()
    });
    match applied {
        Outcome::Unknown { why } => {
            assert!(why.contains("the connection broke"), "{why}");
            assert!(with.kill_at.is_some(), "{why}");
            None
        }
        ended => Some(ended),
    }
}

/// A way to an agent that can be cut: as the network does it, with the agent alive behind it.
fn cuttable(dir: &Path) -> Transport {
    let relay = format!("echo $$ > {}; cat | \"$0\" \"$@\" | cat", dir.join("relay").display());
    let argv = ["sh", "-c", &relay].map(str::to_owned).into_iter().chain(argv(dir, &[])).collect();
    Transport::Local { argv }
}

fn cut(dir: &Path) {
    let pid: i32 = fs::read_to_string(dir.join("relay")).unwrap().trim().parse().unwrap();
    let group = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
}

const SLOW_START: &str = r#"start: [sh, -c, "touch begun; until test -e go; do sleep 0.02; done; sleep 0.2; echo started >> lines"]
instance: [sh, -c, "cat lines 2> /dev/null || exit 1"]
stop: ["true"]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_orphans_nothing_and_starts_nothing_twice() {
    let dir = bench();
    let far = Far::new(dir.path(), &part("command", SLOW_START), cuttable(dir.path()));
    let component = far.component();
    let start = step("start", Action::Start);
    let before = before(7, &start, None);
    let applying = tokio::spawn({
        let (component, start, before) = (Arc::clone(&component), start.clone(), before.clone());
        async move { component.apply(&run_cx(7), &start, &before).await }
    });
    until("it begins", async || far.at("begun").exists()).await;
    cut(dir.path());
    let Outcome::Unknown { why } = applying.await.unwrap() else { panic!("nobody can know") };
    assert!(why.contains("`there`: the connection broke"), "{why}");

    // While it goes on, nobody can tell how it ends, and it is not begun again.
    let hurried = Cx { limit: Duration::from_millis(1500), ..run_cx(7) };
    let Holds::CannotTell { why } = component.holds(&hurried, &start, Some(&before)).await.holds else {
        panic!("it is still being carried out")
    };
    assert!(why.starts_with("on `there`: it is still being carried out by process "), "{why}");
    let Outcome::Unknown { why } = component.apply(&hurried, &start, &before).await else { panic!("it is not begun") };
    assert!(why.contains("still being carried out"), "{why}");
    let (agent, _) = why.split_once("process ").map(|(_, pid)| (pid.to_owned(), ())).unwrap();
    assert!(runs(&agent));

    // Whoever comes back waits for it.
    let patient = run_cx(7);
    let (holds, ()) = tokio::join!(component.holds(&patient, &start, Some(&before)), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fs::write(far.at("go"), "").unwrap();
    });
    assert_eq!(holds.holds, Holds::Target);
    let lines = || fs::read_to_string(far.at("lines")).unwrap();
    assert_eq!(lines(), "started\n");
    until("the agent that nobody heard ends", async || !runs(&agent)).await;

    // The very same call has its outcome, once: it is not done again.
    assert_eq!(left(dir.path()).len(), 1);
    let outcome = component.apply(&run_cx(7), &start, &before).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    assert_eq!(lines(), "started\n");
    assert_eq!(left(dir.path()), Vec::<String>::new(), "what was heard is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_given_up_is_ended_there() {
    let dir = bench();
    let far = Far::local(dir.path(), &part("command", SLOW_START));
    let component = far.component();
    let start = step("start", Action::Start);
    let before = before(7, &start, None);
    let (given_up, begins) = (run_cx(7), async {
        until("it begins", async || far.at("begun").exists()).await;
    });
    tokio::select! {
        outcome = component.apply(&given_up, &start, &before) => panic!("{outcome:?}"),
        () = begins => {}
    }
    fs::write(far.at("go"), "").unwrap();
    // The same connection goes on.
    let holds = component.holds(&run_cx(7), &start, Some(&before)).await.holds;
    assert!(matches!(holds, Holds::Origin | Holds::Neither { .. }), "{holds:?}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!far.at("lines").exists(), "its command was ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_whose_connection_breaks_is_none_and_is_made_anew() {
    let dir = bench();
    // What it prints is longer than what any buffer on the way takes.
    let stuck = r#"observe: [cat, state]
capture: [sh, -c, "head -c 3000000 /dev/zero; touch ../begun; test -e ../go || sleep 60; cat state"]
restore: [sh, -c, "tail -c 2 > state"]
"#;
    let far = Far::new(dir.path(), &part("command", stuck), cuttable(dir.path()));
    fs::write(far.at("state"), "1\n").unwrap();
    let component = far.component();
    let capture = capture_step(CapturePurpose::Protective);
    let before = before(7, &capture, None);
    let applying = tokio::spawn({
        let (component, capture, before) = (Arc::clone(&component), capture.clone(), before.clone());
        async move { component.apply(&run_cx(7), &capture, &before).await }
    });
    until("it begins", async || dir.path().join("begun").exists()).await;
    cut(dir.path());
    assert!(matches!(applying.await.unwrap(), Outcome::Unknown { .. }));
    let snapshots = || fs::read_dir(dir.path().join("vault/repository/snapshots")).unwrap().count();
    assert_eq!(snapshots(), 0);
    fs::write(dir.path().join("go"), "").unwrap();
    // Another attempt: the intent of another moment.
    let again = Before { at: before.at + Duration::from_secs(1), ..before };
    let made = proof(component.apply(&run_cx(7), &capture, &again).await).capture.unwrap();
    assert_eq!((snapshots(), made.bytes), (1, 3_000_002));
    // And back, through the link.
    fs::write(far.at("state"), "2\n").unwrap();
    let id = ripcord_core::CaptureId::at(ripcord_core::Seq(1));
    let record = BTreeMap::from([(id.clone(), made.clone())]);
    fs::write(dir.path().join("captures.json"), serde_json::to_vec(&record).unwrap()).unwrap();
    let restore = restore_step(&id, &made);
    proof(component.apply(&run_cx(8), &restore, &crate::contract::before(8, &restore, None)).await);
    assert_eq!(fs::read_to_string(far.at("state")).unwrap(), "1\n");
}

/// Whether a text is in any file below a directory.
fn is_anywhere(dir: &Path, text: &str) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => is_anywhere(&path, text),
            false => String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(text),
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf29_a_secret_is_asked_for_and_is_nowhere_on_the_host() {
    let dir = bench();
    let yaml = r#"start: [sh, -c, "echo the token is $TOKEN; test $TOKEN = swordfish-0815 && echo up > up"]
instance: [sh, -c, "cat up 2> /dev/null || exit 1"]
stop: [rm, up]
secrets: { TOKEN: { file: token } }
"#;
    let far = Far::local(dir.path(), &part("command", yaml));
    let token = dir.path().join("here/token");
    fs::write(&token, "swordfish-0815\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let start = step("start", Action::Start);
    let done = proof(far.component().apply(&run_cx(7), &start, &before(7, &start, None)).await);
    let output = done.output.unwrap();
    assert!(output.contains("the token is [redacted]"), "{output}");
    assert!(!is_anywhere(&dir.path().join("state"), "swordfish"));
    assert!(!is_anywhere(&dir.path().join("site"), "swordfish"));
    assert_eq!(far.cx.redactor.clean("swordfish-0815"), "[redacted]", "the controller knows it too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_is_read_on_its_host_and_remembers_there() {
    let dir = bench();
    let parts = r#"components:
  part: { directory: { path: app }, hosts: [there] }
signals:
  figure: { command: { run: [sh, -c, "test ! -e failing"] }, on-host: there }
  memory: { log: { path: app.log, match: { level: [error] }, measure: count }, on-host: there }
"#;
    let far = Far::local(dir.path(), parts);
    let signal = far.signal();
    assert_eq!(sample(signal.read(&cx()).await).value, 0.0);
    fs::write(far.at("failing"), "").unwrap();
    assert_eq!(sample(signal.read(&cx()).await).value, 1.0);
    assert!(signal.query().starts_with("on there: "), "{}", signal.query());
    // A log is read on from where the last reading ended.
    let log = far.signal_of("memory");
    fs::write(far.at("app.log"), "").unwrap();
    log.read(&cx()).await;
    fs::write(far.at("app.log"), "ERROR one\nERROR two\n").unwrap();
    assert_eq!(sample(log.read(&cx()).await).value, 2.0);
}

fn dead_end(script: &str) -> Transport {
    Transport::Local { argv: ["sh", "-c", script].map(str::to_owned).to_vec() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_cannot_be_reached_is_said_to_be_and_nothing_is_taken_for_done() {
    let dir = bench();
    let far = Far::new(dir.path(), &part("directory", "path: app"), dead_end("echo no route to host >&2; exit 1"));
    let component = far.component();
    let quick = Cx { limit: Duration::from_millis(500), ..run_cx(7) };
    let Seen::Unreachable { why } = component.survey(&quick, &place(), &[]).await.seen else {
        panic!("nobody is there")
    };
    assert_eq!(why, "the agent on `there` ended before it spoke: no route to host");
    let start = step("start", Action::Start);
    let holds = component.holds(&quick, &start, None).await.holds;
    assert_eq!(holds, Holds::CannotTell { why: why.clone() });
    let Outcome::Failed(failure) = component.apply(&quick, &start, &before(7, &start, None)).await else {
        panic!("it never began")
    };
    assert_eq!((failure.what, failure.retry), (why, Retry::Later));
    let parts = "components:\n  part: { directory: { path: app }, hosts: [there] }\nsignals:\n  figure: { command: { run: [\"true\"] }, on-host: there }\n";
    let far = Far::new(dir.path(), parts, dead_end("exit 1"));
    assert!(matches!(far.signal().read(&quick).await, Reading::Failed { .. }), "it says nothing about the subject");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_is_not_spoken_with() {
    let dir = bench();
    let far = Far::new(
        dir.path(),
        &part("directory", "path: app"),
        dead_end("echo Welcome; printf hi; echo ripcord-agent 1 0.0.1; cat"),
    );
    let error = far.links[&host()].reach().await.unwrap_err();
    assert!(error.lasting && error.what.contains("is Ripcord 0.0.1"), "{error:?}");
    assert!(error.advice.unwrap().contains("install the same version"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_an_agent_from_running_is_told_with_what_to_do() {
    let dir = bench();
    let check = async |script: &str, what: &str, advice: &str| {
        let far = Far::new(dir.path(), &part("directory", "path: app"), dead_end(script));
        let error = far.links[&host()].reach().await.unwrap_err();
        assert!(error.lasting && error.what.contains(what), "{error:?}");
        assert!(error.advice.as_ref().unwrap().contains(advice), "{error:?}");
    };
    check("echo 'sh: 1: exec: agent: Exec format error' >&2; exit 126", "does not run on `there`", "agent:").await;
    check("echo \"libc.so.6: version 'GLIBC_2.38' not found\" >&2; exit 1", "GLIBC_2.38", "installed:").await;
    check("echo 'No ED25519 host key is known for x' >&2; exit 255", "is not known", "ssh-keyscan").await;
    check(
        "echo '@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @' >&2; exit 255",
        "not the one that is known",
        "find out why",
    )
    .await;
    check("echo 'x@y: Permission denied (publickey).' >&2; exit 255", "does not let this user in", "BatchMode").await;
    fs::remove_dir(dir.path().join("site")).unwrap();
    let far = Far::local(dir.path(), &part("directory", "path: app"));
    let error = far.links[&host()].reach().await.unwrap_err();
    assert!(error.what.contains("is no directory on `there`"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_is_made_again_by_the_next_call() {
    let dir = bench();
    let far = Far::new(dir.path(), &part("directory", "path: app"), cuttable(dir.path()));
    fs::create_dir(far.at("app")).unwrap();
    let component = far.component();
    let first = far.links[&host()].reach().await.unwrap();
    assert_eq!(far.links[&host()].reach().await.unwrap(), first, "one connection serves all");
    cut(dir.path());
    until("another agent answers", async || {
        let seen = component.survey(&run_cx(7), &place(), &[]).await.seen;
        matches!(seen, Seen::At(_)) && far.links[&host()].reach().await.unwrap().pid != first.pid
    })
    .await;
    until("the first agent ends", async || !runs(&first.pid.to_string())).await;
}
