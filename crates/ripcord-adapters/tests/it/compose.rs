//! Services of Compose projects on a real Engine, deployed by Compose 1.29 and by the newer one that `RIPCORD_TEST_COMPOSE` names.

mod daemon;
mod faults;
mod kills;
mod signal;
mod together;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ripcord_core::{
    Action, Available, CaptureId, CapturePurpose, Holds, Made, Outcome, Proof, Revision, Seen, Survey, Wanted,
};

use self::daemon::{Daemon, daemon, succeeded};
use crate::contract::{Site, before, capture_step, restore_step, run_cx};
use crate::support::{place, proof, step};

/// Which Compose.
#[derive(Clone, Copy, PartialEq)]
enum With {
    Old,
    New,
}

impl With {
    fn program(self) -> String {
        match self {
            Self::Old => "docker-compose".to_owned(),
            Self::New => std::env::var("RIPCORD_TEST_COMPOSE")
                .expect("RIPCORD_TEST_COMPOSE names a Compose of version 2 or newer"),
        }
    }
}

/// A project of two services, `api` and what it leans on.
struct Stack {
    site: Site,
    yaml: String,
    project: String,
    with: With,
    engine: &'static Daemon,
}

/// What a release's Compose file says of `api`.
#[derive(Clone)]
struct Api {
    image: &'static str,
    /// Lines of `environment`.
    environment: Vec<String>,
    /// Further lines of the service.
    more: Vec<String>,
    check: bool,
}

fn api(image: &'static str) -> Api {
    Api { image, environment: vec!["MODE: production".to_owned()], more: vec![], check: true }
}

impl Api {
    fn env(mut self, line: &str) -> Self {
        self.environment.push(line.to_owned());
        self
    }
    fn line(mut self, line: &str) -> Self {
        self.more.push(line.to_owned());
        self
    }
    fn unchecked(self) -> Self {
        Self { check: false, ..self }
    }

    fn file(&self) -> String {
        let mut text =
            format!("services:\n  api:\n    image: {}\n    init: true\n    ports: [\"127.0.0.1::8080\"]\n", self.image);
        text.push_str(
            "    networks: { default: {}, back: { aliases: [front] } }\n    volumes: [\"data:/data\", \"/scratch\"]\n",
        );
        if self.check {
            text.push_str(
                "    healthcheck: { test: [CMD, /server, check], interval: 300ms, timeout: 1s, retries: 2 }\n",
            );
        }
        text.push_str("    environment:\n");
        self.environment.iter().for_each(|line| text.push_str(&format!("      {line}\n")));
        self.more.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        text.push_str("  db:\n    image: shop/api:v1\n    init: true\nnetworks: { back: {} }\nvolumes: { data: {} }\n");
        text
    }
}

impl Stack {
    fn new(with: With) -> Self {
        Self::on(daemon(), with)
    }

    fn on(engine: &'static Daemon, with: With) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let project = format!("t{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        let yaml = settings(&engine.endpoint(), &project, &with.program(), "30s");
        Self { site: Site::new("compose", yaml.as_str()), yaml, project, with, engine }
    }

    /// With a release deployed by Compose.
    fn deployed(with: With, release: &Api) -> Self {
        let stack = Self::new(with);
        stack.deploy(release);
        stack
    }

    /// The same stack under other settings.
    fn under(&self, yaml: &str) -> Site {
        stack_site(self).with(yaml)
    }

    fn write(&self, release: &Api) {
        fs::write(self.site.at("compose.yaml"), release.file()).unwrap();
    }

    fn compose(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        command.current_dir(self.site.path()).env("DOCKER_HOST", self.engine.endpoint()).args(["-p", &self.project]);
        succeeded(command.args(["-f", "compose.yaml"]).args(args))
    }

    fn up(&self, args: &[&str]) {
        self.compose(&self.with.program(), &[&["up", "-d", "-t", "1"], args].concat());
    }

    fn deploy(&self, release: &Api) {
        self.write(release);
        self.up(&[]);
    }

    /// The ids of a service's containers, oldest last.
    fn ids(&self, service: &str) -> Vec<String> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={service}");
        let said =
            self.engine.says(&["ps", "--all", "--no-trunc", "--quiet", "--filter", &project, "--filter", &service]);
        said.lines().map(str::to_owned).collect()
    }

    fn id(&self) -> String {
        let ids = self.ids("api");
        assert_eq!(ids.len(), 1, "{ids:?}");
        ids[0].clone()
    }

    fn inspect(&self, what: &str, format: &str) -> String {
        self.engine.says(&["inspect", "--format", format, what])
    }

    /// What a user of the service gets. None where nobody answers.
    fn get(&self, path: &str) -> Option<String> {
        let port = r#"{{with index .NetworkSettings.Ports "8080/tcp"}}{{(index . 0).HostPort}}{{end}}"#;
        let port = self.inspect(&self.id(), port).parse::<u16>().ok()?;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    fn version(&self) -> Option<String> {
        self.get("/version")
    }

    async fn survey(&self, wanted: &[Wanted]) -> Survey {
        self.site.component().survey(&run_cx(1), &place(), wanted).await
    }

    /// As a plan does it: proven, stopped, restored, started.
    async fn rolled_back(&self, run: u64, id: &CaptureId, made: &Made) -> Vec<Proof> {
        let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
        let steps = [prove, step("stop", Action::Stop), restore_step(id, made), step("start", Action::Start)];
        let mut proofs = vec![];
        for step in steps {
            proofs.push(proof(self.site.apply(run, &step).await));
        }
        proofs
    }

    /// What of ours lies about: an empty env file beside the lock may.
    fn leftovers(&self) -> Vec<String> {
        let directory = self.site.at(".ripcord/compose");
        let mut found = vec![];
        for entry in fs::read_dir(directory).into_iter().flatten() {
            found.extend(
                fs::read_dir(entry.unwrap().path())
                    .unwrap()
                    .map(|file| file.unwrap().file_name().display().to_string()),
            );
        }
        found.retain(|name| !["empty.env", "pin.json"].contains(&name.as_str()));
        found
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // So that the Engine does not carry all tests at once; it is all gone in the end. A test that failed may have ended it.
        if std::thread::panicking() {
            return;
        }
        let ids = [self.ids("api"), self.ids("db")].concat();
        if !ids.is_empty() {
            let mut args = vec!["rm", "--force", "--volumes"];
            args.extend(ids.iter().map(String::as_str));
            let _ = self.engine.says(&args);
        }
        for network in ["default", "back"] {
            let _ = Command::new("docker")
                .env("DOCKER_HOST", self.engine.endpoint())
                .args(["network", "rm", &format!("{}_{network}", self.project)])
                .output();
        }
    }
}

fn settings(endpoint: &str, project: &str, program: &str, ready: &str) -> String {
    format!(
        "service: api\nproject: {project}\nengine: {endpoint}\nprogram: [{program}]\nstop-grace: 2s\nready: {ready}\n"
    )
}

fn failed(outcome: Outcome) -> ripcord_core::Failure {
    match outcome {
        Outcome::Failed(failure) => {
            assert!(failure.advice.is_some(), "it says what to do: {failure:?}");
            failure
        }
        other => panic!("{other:?}"),
    }
}

/// The bad release: another image, another value, a variable and a port more.
fn bad() -> Api {
    api("shop/api:v2").env("ADDED: by-the-bad-release").line("labels: { team: bad }").line("mem_limit: 96m")
}

async fn a_bad_release_is_taken_back(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1").env("DOLLAR: a$$b").env("ODD: \"1e3\""));
    let (id, made) = stack.site.capture(1).await;
    assert_eq!(stack.site.seen().await, Seen::At(made.revision.clone()));
    assert!(made.label.as_deref().unwrap().starts_with("shop/api:v1 (sha256:"), "{:?}", made.label);
    let db = stack.ids("db");
    stack.deploy(&bad());
    let file = fs::read(stack.site.at("compose.yaml")).unwrap();
    assert_eq!(stack.version().as_deref(), Some("v2"));
    let seen = stack.site.seen().await;
    assert!(matches!(&seen, Seen::At(revision) if *revision != made.revision), "{seen:?}");
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    assert!(matches!(stack.site.available(wanted).await, Available::Here { .. }));

    // Looking and proving change nothing.
    let container = stack.id();
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    proof(stack.site.apply(2, &prove).await);
    assert_eq!(stack.id(), container);

    proof(stack.site.apply(2, &step("stop", Action::Stop)).await);
    let stopped = stack.survey(&[]).await;
    assert_eq!((stopped.running, stopped.seen), (Some(false), seen), "what is stopped is still what it was");
    let restore = restore_step(&id, &made);
    let (component, cx) = (stack.site.component(), run_cx(2));
    let looked = component.holds(&cx, &restore, None).await;
    assert_eq!(looked.holds, Holds::Origin);
    let before = before(2, &restore, looked.mark);
    proof(component.apply(&cx, &restore, &before).await);
    assert_eq!(component.holds(&cx, &restore, Some(&before)).await.holds, Holds::Target);
    let made_and_not_started = stack.survey(&[]).await;
    assert_eq!(made_and_not_started.running, Some(false), "to start it is a step of its own");
    assert_eq!(made_and_not_started.seen, Seen::At(made.revision.clone()));

    let start = step("start", Action::Start);
    let started = proof(stack.site.apply(2, &start).await);
    assert!(started.found.contains("started as restored, and well"), "{}", started.found);
    assert_eq!(stack.version().as_deref(), Some("v1"));
    assert_eq!(stack.get("/env/ADDED").as_deref(), Some(""), "what the bad release added is gone");
    assert_eq!(stack.get("/env/DOLLAR").as_deref(), Some("a$b"));
    assert_eq!(stack.get("/env/ODD").as_deref(), Some("1e3"));
    assert_eq!(stack.site.seen().await, Seen::At(made.revision.clone()));
    let aliases = stack
        .inspect(&stack.id(), &format!("{{{{(index .NetworkSettings.Networks \"{}_back\").Aliases}}}}", stack.project));
    assert!(aliases.contains("front") && aliases.contains("api"), "{aliases}");

    // Nobody else was touched, and nothing is left.
    assert_eq!(stack.ids("db"), db);
    assert_eq!(fs::read(stack.site.at("compose.yaml")).unwrap(), file, "the user's file is the user's");
    assert_eq!(stack.leftovers(), Vec::<String>::new());
    let survey = stack.survey(&[]).await;
    assert!(survey.facts["on disk"].contains("names shop/api:v2"), "{:?}", survey.facts);
    // Whoever runs `up` next, gets the bad release again: that is said.
    let back = survey.puts_back.join("; ");
    assert!(back.contains("the Compose file on disk names shop/api:v2 (sha256:") && back.contains("ADDED"), "{back}");

    // Twice is once: the same step again, and another run's.
    let container = stack.id();
    stack.site.restore(2, &id, &made).await;
    stack.site.restore(3, &id, &made).await;
    assert_eq!(stack.id(), container, "what is there already is not made again");
    assert_eq!(stack.version().as_deref(), Some("v1"));
}

async fn what_runs_is_restored_running(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1"));
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&bad());
    let done = stack.site.restore(2, &id, &made).await;
    assert!(done.found.contains("and well"), "{}", done.found);
    assert_eq!(stack.version().as_deref(), Some("v1"));
    assert_eq!(stack.survey(&[]).await.running, Some(true));
}

/// RF08: the tag is somewhere else by now, and nothing can be fetched.
async fn rf08_the_image_is_pinned_whatever_its_tag_names(with: With) {
    let stack = Stack::new(with);
    let tag = format!("{}/api:stable", stack.project);
    stack.engine.says(&["tag", "shop/api:v1", &tag]);
    let release = api("shop/api:v1");
    fs::write(stack.site.at("compose.yaml"), release.file().replacen("shop/api:v1", &tag, 1)).unwrap();
    stack.up(&[]);
    let (id, made) = stack.site.capture(1).await;
    stack.engine.says(&["tag", "shop/api:v2", &tag]);
    stack.up(&[]);
    assert_eq!(stack.version().as_deref(), Some("v2"));
    stack.rolled_back(2, &id, &made).await;
    assert_eq!(stack.version().as_deref(), Some("v1"));
    assert_eq!(stack.site.seen().await, Seen::At(made.revision));
}

async fn replicas_are_taken_together(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1"));
    stack.up(&["--scale", "api=3"]);
    let (id, made) = stack.site.capture(1).await;
    stack.write(&bad());
    stack.up(&["--scale", "api=3"]);
    assert_eq!(stack.ids("api").len(), 3);
    stack.rolled_back(2, &id, &made).await;
    assert_eq!(stack.ids("api").len(), 3, "as many as there were");
    assert_eq!(stack.site.seen().await, Seen::At(made.revision.clone()));
    // One that is another: mixed, which is no revision, and no state to capture.
    let one = stack.ids("api")[0].clone();
    let (labels, network) = (stack.inspect(&one, "{{json .Config.Labels}}"), format!("{}_default", stack.project));
    let labels: std::collections::BTreeMap<String, String> = serde_json::from_str(&labels).unwrap();
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("--label={name}={value}")).collect();
    let mut args = vec!["run", "--detach", "--network", &network, "--name"];
    let name = format!("{}-odd", stack.project);
    args.push(&name);
    args.extend(labels.iter().map(String::as_str));
    args.push("shop/api:v3");
    stack.engine.says(&args);
    let Seen::Between { why } = stack.site.seen().await else { panic!("{:?}", stack.site.seen().await) };
    assert!(why.contains(&name), "{why}");
    let refused = failed(stack.site.apply(3, &capture_step(CapturePurpose::Protective)).await);
    assert!(refused.what.contains("its containers differ"), "{refused:?}");
}

async fn what_was_absent_is_taken_away_and_comes_back(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1"));
    let (id, made) = stack.site.capture(1).await;
    let db = stack.ids("db");
    let away = step("restore", Action::Restore { to: Revision::Absent, from: None });
    let done = proof(stack.site.apply(2, &away).await);
    assert!(done.found.contains("taken away"), "{}", done.found);
    assert_eq!(stack.site.seen().await, Seen::At(Revision::Absent));
    proof(stack.site.apply(2, &away).await);
    assert_eq!(stack.ids("db"), db);
    let (_, absent) = stack.site.capture(3).await;
    assert_eq!(absent.revision, Revision::Absent);
    stack.site.restore(4, &id, &made).await;
    proof(stack.site.apply(4, &step("start", Action::Start)).await);
    assert_eq!(stack.version().as_deref(), Some("v1"));
    assert_eq!(stack.site.seen().await, Seen::At(made.revision));
}

/// A `restart` reads no env file again; this does, and brings in nothing else.
async fn a_start_takes_up_what_env_files_say_now(with: With) {
    let stack = Stack::new(with);
    fs::write(stack.site.at("app.env"), "FLAG=off\n").unwrap();
    stack.deploy(&api("shop/api:v1").line("env_file: [app.env]"));
    let (seen, container) = (stack.site.seen().await, stack.id());
    fs::write(stack.site.at("app.env"), "FLAG=on\n").unwrap();
    // The tag that the file names is not what runs: it must not come in by the way.
    stack.write(&api("shop/api:v2").line("env_file: [app.env]"));
    proof(stack.site.apply(2, &step("stop", Action::Stop)).await);
    let start = step("start", Action::Start);
    let (component, cx) = (stack.site.component(), run_cx(2));
    let looked = component.holds(&cx, &start, None).await;
    let before = before(2, &start, looked.mark);
    let started = proof(component.apply(&cx, &start, &before).await);
    assert_eq!(component.holds(&cx, &start, Some(&before)).await.holds, Holds::Target);
    assert!(started.found.contains("environment.FLAG"), "{}", started.found);
    assert_eq!((stack.get("/env/FLAG").as_deref(), stack.version().as_deref()), (Some("on"), Some("v1")));
    assert_ne!(stack.id(), container);
    assert_ne!(stack.site.seen().await, seen);
    assert_eq!(stack.leftovers(), Vec::<String>::new());
    // What an earlier run restored stays as it was restored, while the files are still the bad release's.
    let (id, made) = stack.site.capture(3).await;
    stack.deploy(&api("shop/api:v3").env("BROKEN: \"1\""));
    stack.rolled_back(4, &id, &made).await;
    proof(stack.site.apply(5, &step("stop", Action::Stop)).await);
    let started = proof(stack.site.apply(5, &start).await);
    assert!(started.found.contains("as an earlier run restored it"), "{}", started.found);
    assert_eq!((stack.get("/env/BROKEN").as_deref(), stack.version().as_deref()), (Some(""), Some("v1")));
}

async fn evidence_is_taken_before_the_containers_go(with: With) {
    let release = api("shop/api:v1").env("EXIT: \"3\"").env("DB_PASSWORD: swordfish-0815").unchecked();
    let stack = Stack::deployed(with, &release);
    crate::support::until("its end", async || stack.inspect(&stack.id(), "{{.State.Status}}") == "exited").await;
    let done = proof(stack.site.apply(2, &capture_step(CapturePurpose::Evidence)).await);
    assert!(done.found.contains("2 log lines") && done.found.contains("ended with exit code 3"), "{}", done.found);
    assert!(!done.found.contains("swordfish"), "{}", done.found);
    let ripcord_core::HeldIn::Vault { manifest } = done.capture.unwrap().held else { panic!("not in the vault") };
    let manifest = serde_json::from_value(manifest).unwrap();
    let read = |path: &str| {
        let mut bytes = vec![];
        crate::contract::vault(stack.site.dir.path()).read(&manifest, path, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let name = stack.inspect(&stack.id(), "{{.Name}}");
    let log = read(&format!("{}.log", name.trim_start_matches('/')));
    assert!(
        log.contains("stdout level=info version v1 begins") && log.contains("stderr level=error cannot go on"),
        "{log}"
    );
    assert!(read("events.json").contains("\"die\""));
    assert!(read("containers.json").contains("\"ExitCode\": 3"));
}

async fn an_image_is_kept_until_no_capture_needs_it(with: With) {
    let stack = Stack::new(with);
    let name = format!("{}/kept", stack.project);
    stack.engine.image(&name, "v1");
    let tag = format!("{name}:v1");
    fs::write(stack.site.at("compose.yaml"), api("shop/api:v1").file().replacen("shop/api:v1", &tag, 1)).unwrap();
    stack.up(&[]);
    let image = stack.inspect(&stack.id(), "{{.Image}}");
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&api("shop/api:v2"));
    // Of this image alone: other tests' are there too. Its last name is ours now; of two, pruning leaves either.
    stack.engine.says(&["rmi", &tag]);
    let label = format!("label=of={name}");
    stack.engine.says(&["image", "prune", "--all", "--force", "--filter", &label]);
    let short = &image["sha256:".len()..][..12];
    let keep = format!("ripcord/keep:{}-api-{short}", stack.project);
    assert_eq!(stack.engine.says(&["image", "inspect", "--format", "{{.RepoTags}}", &image]), format!("[{keep}]"));
    assert_eq!(stack.site.tidy("2200-01-01T00:00:00Z").await, Vec::<String>::new(), "a capture needs it");
    stack.rolled_back(2, &id, &made).await;
    assert_eq!(stack.inspect(&stack.id(), "{{.Image}}"), image);
    stack.deploy(&api("shop/api:v2"));

    let vault = crate::contract::vault(stack.site.dir.path());
    let other = vault.list().unwrap().into_iter().map(|found| found.snapshot).collect::<Vec<_>>();
    assert_eq!(other.len(), 1);
    vault.prune(&ripcord_vault::Keep::Nothing).unwrap();
    assert_eq!(stack.site.tidy("2020-01-01T00:00:00Z").await, Vec::<String>::new(), "nothing is so old");
    let removed = stack.site.tidy("2200-01-01T00:00:00Z").await;
    assert!(removed.contains(&keep) && removed.iter().any(|name| name.starts_with("ripcord-keep-")), "{removed:?}");
    let gone =
        Command::new("docker").env("DOCKER_HOST", stack.engine.endpoint()).args(["image", "inspect", &image]).output();
    assert!(!gone.unwrap().status.success(), "with its last name the image goes");
    assert_eq!(stack.site.tidy("2200-01-01T00:00:00Z").await, Vec::<String>::new(), "twice is once");
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id) };
    assert!(matches!(stack.site.available(wanted).await, Available::Missing { .. }));
}

async fn what_one_compose_made_the_other_brings_back(with: With) {
    let other = if with == With::Old { With::New } else { With::Old };
    let stack = Stack::deployed(other, &api("shop/api:v1"));
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&bad());
    let yaml = settings(&stack.engine.endpoint(), &stack.project, &with.program(), "30s");
    let here = stack.under(&yaml);
    let restore = restore_step(&id, &made);
    proof(here.apply(2, &step("stop", Action::Stop)).await);
    proof(here.apply(2, &restore).await);
    proof(here.apply(2, &step("start", Action::Start)).await);
    assert_eq!(stack.version().as_deref(), Some("v1"));
    assert_eq!(here.seen().await, Seen::At(made.revision));
}

/// The record and the vault of a stack in a place of its own: a site cannot be had twice.
fn stack_site(stack: &Stack) -> Site {
    let copy = Site::new("compose", "");
    succeeded(Command::new("cp").arg("-a").arg(format!("{}/.", stack.site.dir.path().display())).arg(copy.dir.path()));
    copy
}

/// Every check once for each Compose.
macro_rules! each {
    ($($check:ident)*) => {
        mod compose_1_29 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                super::$check(super::With::Old).await;
            })*
        }
        mod compose_newer {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                super::$check(super::With::New).await;
            })*
        }
    };
}
pub(crate) use each;

each! {
    a_bad_release_is_taken_back
    what_runs_is_restored_running
    rf08_the_image_is_pinned_whatever_its_tag_names
    replicas_are_taken_together
    what_was_absent_is_taken_away_and_comes_back
    a_start_takes_up_what_env_files_say_now
    evidence_is_taken_before_the_containers_go
    an_image_is_kept_until_no_capture_needs_it
    what_one_compose_made_the_other_brings_back
}
