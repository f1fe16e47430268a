//! `examples/agents-orchestration` on an Engine of its own, looked at from outside: a machine with systemd that is reached over SSH, and
//! each of its scenarios.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::bed::{Ran, ran, until};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/agents-orchestration");
const CONFIRM: [&str; 3] = ["--yes", "--confirm", "CONFIRM DATA LOSS"];

/// A copy of the example, its machine up and users at its door.
struct Agents {
    dir: tempfile::TempDir,
    users: Option<Child>,
    /// It ends when its input is closed, however this process ends.
    engine: Child,
}

impl Agents {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(EXAMPLE).arg(dir.path().join("agents")).status().unwrap();
        assert!(copied.success());
        // What somebody who tried the example left in it.
        let _ = fs::remove_dir_all(dir.path().join("agents/.ripcord"));
        let mut engine = Command::new(dir.path().join("agents/engine.sh"));
        // In a group of its own: what ends the tests by a signal must not end it before it has tidied up.
        engine.arg(dir.path().join("engine")).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let mut agents = Self { engine: engine.spawn().unwrap(), users: None, dir };
        until("the Engine is up (`dockerd` of Debian's docker.io, as root)", || {
            agents.command("docker", &["version"]).output().unwrap().status.success()
        });
        agents.says("./setup.sh", &[]);
        agents.come();
        agents
    }

    /// Users come.
    fn come(&mut self) {
        self.users = Some(self.command("./users.sh", &[]).stdout(Stdio::null()).spawn().unwrap());
        let path = self.path("users");
        until("the users are answered", || fs::read_to_string(&path).is_ok_and(|said| said.contains("200")));
    }

    fn leave(&mut self) {
        let _ = fs::remove_file(self.path("users"));
        if let Some(mut users) = self.users.take() {
            let _ = users.wait();
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("agents").join(path)
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let here = self.path(program);
        let mut command = Command::new(if here.exists() { &here } else { Path::new(program) });
        let socket = format!("unix://{}/engine/docker.sock", self.dir.path().display());
        command.current_dir(self.path("")).args(args).stdin(Stdio::null());
        // Made once for all tests that want one: it takes longer than they do.
        command.env("MACHINE_IMAGE", concat!(env!("CARGO_TARGET_TMPDIR"), "/machine.tar"));
        command.env("DOCKER_HOST", socket).env_remove("DOCKER_CONTEXT").env_remove("RIPCORD_STATE");
        command
    }

    /// What a program prints that must succeed.
    fn says(&self, program: &str, args: &[&str]) -> String {
        let ran = ran(self.command(program, args).output().unwrap());
        assert_eq!(ran.code, Some(0), "{program} {args:?}: {ran:#?}");
        ran.out.trim().to_owned()
    }

    /// What a command line on the machine prints.
    fn there(&self, line: &str) -> String {
        self.says("ssh", &["-F", "ssh_config", "app", &format!("cd /srv/agents && {line}")])
    }

    fn ripcord(&self, args: &[&str]) -> Ran {
        self.ripcord_of("ripcord.yaml", args)
    }

    fn ripcord_of(&self, file: &str, args: &[&str]) -> Ran {
        // It has times of its own for everything; this is for when it should hang.
        let words = [&["-k", "5", "300", env!("CARGO_BIN_EXE_ripcord"), "--file", file], args].concat();
        ran(self.command("timeout", &words).output().unwrap())
    }

    fn deploy(&self, version: &str, command: &[&str]) -> Ran {
        self.ripcord(&[&["deploy", "--version", version, "--"], command].concat())
    }

    /// Deploys what goes bad, and is taken back by itself.
    fn deploy_bad(&self, version: &str, command: &[&str]) -> Ran {
        let deployed = self.deploy(version, command);
        assert_eq!(deployed.code, Some(6), "{deployed:#?}");
        assert!(deployed.err.contains("it helped: every breached signal is back to normal"), "{deployed:#?}");
        deployed
    }

    /// What a user gets: the status, and the answer.
    fn get(&self, path: &str) -> (String, Value) {
        let port = fs::read_to_string(self.path("port")).unwrap();
        let url = format!("http://127.0.0.1:{}/{path}", port.trim());
        let output = self.command("curl", &["-s", "-m", "10", "-w", "\n%{http_code}", &url]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let (answer, status) = said.rsplit_once('\n').unwrap();
        (status.to_owned(), serde_json::from_str(answer).unwrap_or_default())
    }

    /// The version of the service, and that of the library it runs with.
    fn version(&self) -> (String, String) {
        let health = self.get("health").1;
        let word = |name: &str| health[name].as_str().unwrap_or("none").to_owned();
        (word("version"), word("orchestra"))
    }

    /// How many of 20 tasks fail.
    fn failures(&self) -> usize {
        (0..20).filter(|_| self.get("run").0 != "200").count()
    }

    fn is_well_at(&self, version: &str) {
        assert_eq!((self.version(), self.failures()), ((version.to_owned(), "1.0.0".to_owned()), 0));
    }

    /// What is replaced whole keeps the former beside it, so that one sees what was replaced.
    fn set_aside(&self) -> Vec<String> {
        self.there("find . -maxdepth 2 -name '*failed-*' | sort").lines().map(str::to_owned).collect()
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.leave();
        // It takes its containers and its data away.
        drop(self.engine.stdin.take());
        let _ = self.engine.wait();
    }
}

#[test]
fn agents_under_systemd_are_taken_back() {
    let mut agents = Agents::start();
    let good = agents.deploy("v1.0.0", &["./deploy.sh", "v1.0.0"]);
    assert_eq!(good.code, Some(0), "{good:#?}");
    agents.is_well_at("v1.0.0");
    for step in 1..=3 {
        assert_eq!(agents.get("advance").1["steps"], step);
    }
    let (config, unit) =
        (agents.there("cat config/agents.json"), agents.there("cat /etc/systemd/system/agents.service"));

    // Code: it passes its tests and does not start. Back go the code and the library that it wants, and nothing else.
    let bad = agents.deploy_bad("v1.1.0", &["./deploy.sh", "v1.1.0"]);
    for restored in ["restore/code@app", "restore/dependencies@app", "start/service@app"] {
        assert!(bad.err.contains(restored), "{restored}: {bad:#?}");
    }
    assert!(!bad.err.contains("restore/config") && !bad.err.contains("restore/artefacts"), "{bad:#?}");
    agents.is_well_at("v1.0.0");
    let aside = agents.set_aside();
    assert!(matches!(&aside[..], [app] if app.starts_with("./app-failed-")), "{aside:?}");
    assert_eq!(agents.ripcord(&["release", "check", "v1.1.0"]).code, Some(4), "it is kept out");
    let (commit, venv) = (agents.there("git -C app rev-parse HEAD"), agents.there("readlink venv"));

    // Configuration: it is no JSON; and a canary of 10 % whose model answers nothing.
    let torn = r#"{ "agents": { "writer": { "model": "large-1" } "reviewer": { "model": "small-1" } } }"#;
    let bad = agents.deploy_bad("v1.0.0-config.2", &["./configure.sh", torn]);
    assert!(bad.err.contains("restore/config@app") && !bad.err.contains("restore/code@app"), "{bad:#?}");
    let canary = config.replace(
        r#""canary": { "model": "large-1", "percent": 0 }"#,
        r#""canary": { "model": "large-2-preview", "percent": 10 }"#,
    );
    assert_ne!(canary, config);
    let bad = agents.deploy_bad("v1.0.0-canary.1", &["./configure.sh", &canary]);
    assert!(bad.err.contains("`canary-fails` breached"), "{bad:#?}");
    agents.is_well_at("v1.0.0");
    assert_eq!(agents.there("cat config/agents.json"), config);

    // Dependencies: a package that cannot be imported. Back goes the environment.
    let bad = agents.deploy_bad("v1.0.0-deps.2", &["./upgrade.sh", "orchestra==2.0.0"]);
    assert!(bad.err.contains("restore/dependencies@app") && !bad.err.contains("restore/code@app"), "{bad:#?}");
    agents.is_well_at("v1.0.0");
    assert_ne!(agents.there("readlink venv"), venv, "what was changed by hand is not trusted again");
    assert_eq!(agents.there("git -C app rev-parse HEAD"), commit, "the code stayed");

    // State: cut off in the middle. Nobody but a person gives up what was done since, and says so.
    agents.there("head -c 9 artefacts/workflow.json > artefacts/torn && mv artefacts/torn artefacts/workflow.json");
    assert_eq!(agents.failures(), 20);
    let state = ["rollback", "--to", "v1.0.0", "--strategy", "state", "--reason", "it cannot be read"];
    assert_eq!(agents.ripcord(&[&state[..], &["--yes"]].concat()).code, Some(4), "a yes alone is no consent");
    assert_eq!(agents.failures(), 20);
    let back = agents.ripcord(&[&state[..], &CONFIRM].concat());
    assert_eq!(back.code, Some(0), "{back:#?}");
    agents.is_well_at("v1.0.0");
    assert_eq!(agents.get("run").1["after"], 3);
    let failed = agents.set_aside().into_iter().find(|name| name.starts_with("./failed-")).unwrap();
    assert_eq!(agents.there(&format!("cat {failed}/artefacts/workflow.json")), "{\"steps\":");
    assert!(!agents.there(&format!("cat {failed}/logs/runs.log | tail -n 1")).is_empty());

    // Its tests fail: the deployment ends half way, the service runs on, and a person takes it back.
    let half = agents.deploy("v1.2.0", &["./deploy.sh", "v1.2.0"]);
    assert_eq!(half.code, Some(5), "{half:#?}");
    assert!(half.err.contains("test_writer"), "{half:#?}");
    assert_ne!(agents.there("git -C app rev-parse HEAD"), commit);
    let back = agents.ripcord(&["rollback", "--strategy", "code", "--yes", "--reason", "its tests fail"]);
    assert_eq!(back.code, Some(0), "{back:#?}");
    assert_eq!(agents.there("git -C app rev-parse HEAD"), commit);
    agents.is_well_at("v1.0.0");

    // One file of a good release, from a commit, with its test; the rest of the release stays.
    let next = agents.deploy("v1.3.0", &["./deploy.sh", "v1.3.0"]);
    assert_eq!(next.code, Some(0), "{next:#?}");
    let file =
        ["./partial.sh", "agents/writer.py", "v1.0.0", "tests.test_agents.Answers.test_writer", "v1.3.0-writer.1"];
    let partial = agents.deploy("v1.3.0-writer.1", &file);
    assert_eq!(partial.code, Some(0), "{partial:#?}");
    agents.is_well_at("v1.3.0");
    assert_eq!(agents.there("git -C app diff --stat v1.0.0 -- agents/writer.py"), "");
    assert_ne!(agents.there("git -C app diff --stat v1.0.0 -- agents/reviewer.py"), "");
    let commit = agents.there("git -C app rev-parse HEAD");

    // The machine is lost. Another one in its place has what is in the image and a clone; the rest comes from the record.
    agents.leave();
    agents.says("./host.sh", &[]);
    agents.says("./bare.sh", &[]);
    assert_eq!(agents.there("ls"), "app\nconfig\nlogs\nstate.sh\nvenvs");
    let lost = ["rollback", "--to", "v1.3.0-writer.1", "--strategy", "full", "--reason", "the machine is lost"];
    let full = agents.ripcord(&[&lost[..], &CONFIRM].concat());
    assert_eq!(full.code, Some(0), "{full:#?}");
    agents.is_well_at("v1.3.0");
    assert_eq!((agents.get("run").1["after"].clone(), agents.there("git -C app rev-parse HEAD")), (3.into(), commit));
    assert_eq!(agents.there("cat config/agents.json"), config);
    assert_eq!(agents.there("cat /etc/systemd/system/agents.service"), unit);
    assert_eq!(agents.there("stat -c %a .env; cat .env"), "600\nPORT=8000\nMODEL_KEY=not-a-real-key");
}

#[test]
fn b12_traffic_goes_back_to_the_side_that_still_stands_and_nothing_stops() {
    let mut agents = Agents::start();
    agents.leave();
    agents.says("blue-green/setup.sh", &["v1.0.0"]);
    agents.come();
    let sides = |args: &[&str]| agents.ripcord_of("blue-green/ripcord.yaml", args);
    let good = sides(&["deploy", "--version", "v1.0.0", "--", "true"]);
    assert_eq!(good.code, Some(0), "{good:#?}");
    agents.is_well_at("v1.0.0");
    let running = || agents.there("systemctl show -p MainPID --value side@blue.service front.service");
    let before = running();
    let bad = sides(&["deploy", "--version", "v1.4.0", "--", "blue-green/deploy.sh", "v1.4.0"]);
    assert_eq!(bad.code, Some(6), "{bad:#?}");
    // What was good before is good at once: it does not bake again.
    assert!(bad.err.contains("had this state and was good"), "{bad:#?}");
    agents.is_well_at("v1.0.0");
    assert_eq!(agents.there("readlink /srv/sides/live"), "slots/blue");
    assert_eq!(running(), before, "nothing was restarted for it");
    assert_eq!(
        agents.there("systemctl is-active side@green.service"),
        "active",
        "the bad side is there to be looked at"
    );
    // Nobody was ever turned away: what failed is what v1.4.0 answered.
    let said = fs::read_to_string(agents.path("users")).unwrap();
    let other: Vec<&str> = said.lines().filter(|status| !matches!(*status, "200" | "500")).collect();
    assert!(said.contains("500") && other.is_empty(), "{other:?}");
}
