//! `examples/spawn-upload-app` under the real pm2, looked at from outside: a case for each level, and users who notice nothing of a
//! reload.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::bed::{Ran, ran, until};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/spawn-upload-app");

/// A copy of the example where v1.0.0 serves, and its users.
struct Site {
    dir: tempfile::TempDir,
    port: u16,
    users: Option<Child>,
}

impl Site {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-R").arg(EXAMPLE).arg(dir.path().join("site")).status().unwrap();
        assert!(copied.success());
        // What somebody who tried the example left in it.
        for left in [".ripcord", ".pm2", ".swarm", "app", "logs", "origin", "tools", "uploads"] {
            let _ = fs::remove_dir_all(dir.path().join("site").join(left));
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut site = Self { dir, port, users: None };
        site.edit("ripcord.yaml", "127.0.0.1:3000", &format!("127.0.0.1:{port}"));
        site.edit(".env", "PORT=3000", &format!("PORT={port}"));
        site.says("./setup.sh", &[]);
        site.says("./deploy.sh", &["v1.0.0"]);
        let users = site.command("node", &["load.mjs", &port.to_string()]).spawn().unwrap();
        site.users = Some(users);
        until("the users are there", || site.path("logs/users.json").exists());
        site
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("site").join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn edit(&self, path: &str, old: &str, new: &str) {
        let text = self.read(path);
        assert!(text.contains(old), "{path}: {text}");
        fs::write(self.path(path), text.replace(old, new)).unwrap();
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let here = self.path(program);
        let mut command = Command::new(if here.exists() { &here } else { Path::new(program) });
        command.current_dir(self.path("")).args(args).stdin(Stdio::null());
        command.env("PM2_HOME", self.path(".pm2")).env_remove("RIPCORD_STATE");
        command
    }

    /// What a program prints that must succeed.
    fn says(&self, program: &str, args: &[&str]) -> String {
        let ran = ran(self.command(program, args).output().unwrap());
        assert_eq!(ran.code, Some(0), "{program} {args:?}: {ran:#?}");
        ran.out.trim().to_owned()
    }

    fn ripcord(&self, args: &[&str]) -> Ran {
        // It has times of its own for everything; this is for when it should hang.
        let words = [&["-k", "5", "500", env!("CARGO_BIN_EXE_ripcord")], args].concat();
        ran(self.command("timeout", &words).output().unwrap())
    }

    fn deploy(&self, version: &str, command: &[&str]) -> Ran {
        self.ripcord(&[&["deploy", "--version", version, "--"], command].concat())
    }

    /// Deploys what nothing finds fault with. On a machine that is too busy for enough data in time, it is a person who calls it good.
    fn deploys(&self, version: &str) {
        let ran = self.deploy(version, &["./deploy.sh", version]);
        if ran.code == Some(8) {
            let marked = self.ripcord(&["release", "mark", version, "--good", "--why", "it was looked at"]);
            assert_eq!(marked.code, Some(0), "{marked:#?} {ran:#?}");
        } else {
            assert_eq!(ran.code, Some(0), "{ran:#?}");
        }
    }

    /// What somebody outside is answered: the status and the body.
    fn ask(&self, request: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let length = body.len();
        stream.write_all(format!("{request} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    fn version(&self) -> String {
        let (status, body) = self.ask("GET /api/health", "").unwrap();
        assert_eq!(status, 200, "{body}");
        let health: Value = serde_json::from_str(&body).unwrap();
        health["version"].as_str().unwrap().to_owned()
    }

    /// How many of 20 uploads of three files are not stored whole.
    fn partial(&self) -> usize {
        let files = r#"{"files":[{"name":"x","content":"1"},{"name":"y","content":"2"},{"name":"z","content":"3"}]}"#;
        (0..20).filter(|_| self.ask("POST /api/upload", files).unwrap().0 != 200).count()
    }

    /// How many requests of the users nobody answered, and how many were answered.
    fn unanswered(&self) -> (u64, u64) {
        let counts: Value = serde_json::from_str(&self.read("logs/users.json")).unwrap();
        (counts["unanswered"].as_u64().unwrap(), counts["requests"].as_u64().unwrap())
    }

    /// The names beside the application that begin with this.
    fn beside(&self, begins: &str) -> Vec<PathBuf> {
        let (directory, begins) = begins.rsplit_once('/').unwrap_or((".", begins));
        let list = fs::read_dir(self.path(directory)).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> =
            list.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(begins)).collect();
        found.sort();
        found
    }

    /// What the application that runs was given, by the list of pm2.
    fn environment(&self) -> Value {
        let list = self.says("tools/node_modules/.bin/pm2", &["jlist"]);
        let list: Value = serde_json::from_str(list.lines().last().unwrap()).unwrap();
        let [one] = list.as_array().unwrap().as_slice() else { panic!("{list}") };
        one["pm2_env"]["env"].clone()
    }

    /// How many rows of its memory such agents have.
    fn activities(&self, which: &str) -> u64 {
        let sql = format!("SELECT count(*) AS n FROM agent_activities WHERE agent {which}");
        let script = format!("new (require('libsql'))('../.swarm/memory.db').prepare(\"{sql}\").get().n");
        let ran = ran(self.command("node", &["-p", &script]).current_dir(self.path("app")).output().unwrap());
        ran.out.trim().parse().unwrap_or_else(|_| panic!("{ran:#?}"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut users) = self.users.take() {
            let _ = users.kill();
            let _ = users.wait();
        }
        // Any pm2 command, `kill` too, begins a daemon where there is none.
        if self.path(".pm2/rpc.sock").exists() {
            let _ = self.command("tools/node_modules/.bin/pm2", &["kill"]).output();
        }
    }
}

fn json_version(directory: &Path) -> String {
    let package: Value = serde_json::from_slice(&fs::read(directory.join("package.json")).unwrap()).unwrap();
    package["version"].as_str().unwrap().to_owned()
}

#[test]
fn an_application_under_pm2_is_taken_back_by_toggle_by_code_and_whole() {
    let site = Site::start();
    site.deploys("v1.0.0");
    assert_eq!((site.version().as_str(), site.partial()), ("1.0.0", 0));
    let settings = site.read(".env");

    // Level 1: uploads in parallel fail. Its toggle is enough, and the code stays.
    let bad = site.deploy("v1.1.0", &["./deploy.sh", "v1.1.0", "ENABLE_PARALLEL_UPLOADS=true"]);
    assert_eq!(bad.code, Some(6), "{bad:#?}");
    assert!(bad.err.contains("it helped: every breached signal is back to normal"), "{bad:#?}");
    assert_eq!((site.version().as_str(), site.partial()), ("1.1.0", 0));
    assert_eq!(site.read(".env"), settings, "the toggle was set in place");
    let log = site.read("logs/app.log");
    assert!(log.lines().rev().take(50).any(|line| line.contains("sequential upload")), "{log}");
    assert_eq!(site.beside("app-failed-"), Vec::<PathBuf>::new());

    // Level 1 of another feature: nobody answers at the MCP server.
    let tracking = site.deploy("v1.1.0-tracking", &["./configure.sh", "ENABLE_MCP_TRACKING=true"]);
    assert_eq!(tracking.code, Some(6), "{tracking:#?}");
    assert!(tracking.err.contains("set ENABLE_MCP_TRACKING to false"), "{tracking:#?}");
    assert_eq!((site.version().as_str(), site.read(".env")), ("1.1.0", settings.clone()));

    // Level 2: the toggle is not enough. Code, packages and settings go back, and a variable that came with the release is gone.
    let command = ["./deploy.sh", "v1.2.0", "ENABLE_PARALLEL_UPLOADS=true", "ENABLE_UPLOAD_POOL=true"];
    let worse = site.deploy("v1.2.0", &command);
    assert_eq!(worse.code, Some(6), "{worse:#?}");
    assert!(worse.err.contains("insufficient: everything was done, and the symptom remains"), "{worse:#?}");
    assert_eq!((site.version().as_str(), site.partial()), ("1.1.0", 0));
    assert_eq!(site.read(".env"), settings);
    let environment = site.environment();
    assert_eq!(
        (&environment["ENABLE_PARALLEL_UPLOADS"], environment.get("ENABLE_UPLOAD_POOL")),
        (&"false".into(), None)
    );
    assert!(!site.path("app/node_modules/p-limit").exists());
    let [aside] = site.beside("app-failed-").try_into().unwrap();
    assert_eq!(json_version(&aside), "1.2.0");
    // Three releases and three rollbacks, all of them by reload.
    let (unanswered, answered) = site.unanswered();
    assert_eq!(unanswered, 0, "{}", site.read("logs/users.log"));
    assert!(answered > 500, "{answered}");

    // The version is kept out, and trying it changes nothing.
    assert_eq!(site.deploy("v1.2.0", &command).code, Some(4));
    assert_eq!((site.version().as_str(), site.read(".env")), ("1.1.0", settings));

    // Level 3: what the agents did is spoiled, which nothing measures. It is taken back only with the words.
    let remembered = site.activities("<> ''");
    site.deploys("v1.3.0");
    let spoiled = site.activities("= ''");
    assert!(spoiled > 0 && site.version() == "1.3.0", "{spoiled}");
    // What was live before it, under the name it had then: an older one named v1.1.0 has an older memory.
    let to = ["rollback", "--to", "v1.1.0-tracking", "--strategy", "full"];
    let full = [&to[..], &["--yes", "--reason", "the agents lost their names"]].concat();
    let unconfirmed = site.ripcord(&full);
    assert_ne!(unconfirmed.code, Some(0), "{unconfirmed:#?}");
    assert_eq!(site.version(), "1.3.0");
    let whole = site.ripcord(&[&full[..], &["--confirm", "CONFIRM DATA LOSS"]].concat());
    assert_eq!(whole.code, Some(0), "{whole:#?}");
    assert_eq!((site.version().as_str(), site.partial(), site.activities("= ''")), ("1.1.0", 0, 0));
    assert!(site.activities("<> ''") >= remembered, "rows of before the release are missing");
    let aside: Vec<_> = site.beside("app-failed-").iter().map(|path| json_version(path)).collect();
    assert_eq!(aside, ["1.2.0", "1.3.0"], "every failed directory is kept");
    assert_eq!(site.beside(".swarm/memory.db.before-").len(), 1);
    assert_eq!(site.beside(".swarm/memory.db.salvage-").len(), 1);
}
