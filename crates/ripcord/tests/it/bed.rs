//! A small application in a directory of its own: releases behind a link, settings, flags, a database, rules kept by commands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use regex::Regex;

pub struct Bed {
    directory: tempfile::TempDir,
}

/// A configuration in which a page with the word `broken` is an outage that needs nobody to be taken back, once there is a file
/// `outage`: so that a test says when it begins.
pub const CONFIG: &str = r#"
application: shop
components:
  code: { directory: { path: current, releases: releases } }
  settings: { env-file: { path: .env } }
  flags: { json-file: { path: flags.json } }
signals:
  page:
    command: { run: [sh, -c, "! test -e outage || ! grep -q broken current/page"] }
    every: 100ms
    timeout: 5s
triggers:
  broken: { signal: page, for: 200ms, severity: p0, issue: outage, points-at: [code] }
severities:
  p0: { respond-within: 5m, approve: automatic }
  p1: { respond-within: 15m }
matrix:
  rows:
    - { name: outage, issue: [outage], call: rollback, severity: p0, automatic: true }
  otherwise: { call: evaluate, severity: p1 }
policy: { bake: 600ms, watch: 500ms, baseline: 400ms, helps-within: 10s }
"#;

/// A component whose restore waits for the file `go`, so that a test can act in the middle of it.
pub const SLOW: &str = r#"
  rules:
    command:
      observe: [sh, -c, "cat rules"]
      capture: [sh, -c, "cat rules"]
      restore: [sh, -c, "echo begun >> restores; cat > rules.new; until [ -e go ]; do sleep 0.02; done; mv rules.new rules"]
"#;

/// How a process ended, and what it said.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Bed {
    pub fn new() -> Self {
        Self::with(CONFIG)
    }

    /// As [`Bed::new`], and with the component `rules`.
    pub fn slow() -> Self {
        let bed = Self::with(&CONFIG.replace("\nsignals:", &format!("{SLOW}signals:")));
        bed.write("rules", "one\n");
        bed
    }

    pub fn with(config: &str) -> Self {
        let bed = Self { directory: tempfile::tempdir().unwrap() };
        bed.write("ripcord.yaml", config);
        for version in ["1.0.0", "1.1.0", "1.2.0"] {
            bed.write(&format!("releases/{version}/page"), &format!("page {version}\n"));
        }
        bed.write("releases/2.0.0/page", "broken\n");
        bed.switch("1.0.0");
        bed.write(".env", "TOKEN=hunter2hunter2\nFAST=true\n");
        bed.write("flags.json", "{\"max\": 20}\n");
        bed
    }

    /// As [`Bed::new`], where 1.0.0 is known to be good and 1.1.0 is live.
    pub fn with_two_releases(self) -> Self {
        self.ok(&["release", "record", "1.0.0"]);
        self.ok(&["release", "mark", "1.0.0", "--good", "--why", "it was watched"]);
        self.switch("1.1.0");
        if self.path("rules").exists() {
            self.write("rules", "two\n");
        }
        self.ok(&["release", "record", "1.1.0"]);
        self
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Points `current` at a release, as a deployment script would.
    pub fn switch(&self, version: &str) {
        let link = self.path("current.new");
        std::os::unix::fs::symlink(format!("releases/{version}"), &link).unwrap();
        fs::rename(link, self.path("current")).unwrap();
    }

    pub fn live(&self) -> String {
        fs::read_link(self.path("current")).unwrap().file_name().unwrap().to_str().unwrap().to_owned()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ripcord"));
        command.args(args).current_dir(self.directory.path()).stdin(Stdio::null());
        command.env_remove("RIPCORD_STATE").env_remove("RIPCORD_LOG").env("RIPCORD_LEASE", "2s");
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.start(args).ended()
    }

    /// Runs what must end with 0, and returns its result.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:#?}");
        ran.out
    }

    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let mut args = args.to_vec();
        args.insert(0, "--json");
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// A deployment script for `version`.
    pub fn deploy(&self, version: &str) -> Ran {
        let script = format!("ln -sfn releases/{version} current");
        self.run(&["deploy", "--version", version, "--", "sh", "-c", &script])
    }

    /// Deploys 2.0.0, which goes bad as soon as it is live.
    pub fn deploy_bad(&self) -> Ran {
        let deploying = self.start(&["deploy", "--version", "2.0.0", "--", "ln", "-sfn", "releases/2.0.0", "current"]);
        until("it is live", || {
            let live = self.json(&["status"])["live"].take();
            live["version"] == "2.0.0" && live["standing"] == "live"
        });
        self.write("outage", "");
        deploying.ended()
    }

    /// What is live goes bad.
    pub fn breaks(&self) {
        self.write("outage", "");
        self.write("current/page", "broken\n");
    }

    pub fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child: Some(child) }
    }

    /// What was said, without what differs from run to run.
    pub fn masked(&self, ran: &Ran) -> String {
        let text = format!("exit {}\n--- out\n{}--- err\n{}", ran.code.unwrap_or(-1), ran.out, ran.err);
        let text = text.replace(&self.directory.path().display().to_string(), "[DIR]");
        let masks = [
            (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z", "[TIME]"),
            (r"sha256:[0-9a-f]{8,64}", "[DIGEST]"),
            (r"hmac:[0-9a-f]{8,64}", "[DIGEST]"),
            (r"plan [0-9a-f]{12}", "plan [DIGEST]"),
            (r"\b(rel|run|cap|inc|obl)-\d+", "$1-N"),
            (r"[a-z0-9_-]+@[A-Za-z0-9_.-]+", "[USER]"),
            (r"\(process \d+\)", "(process N)"),
            (r"at most \d+ rows", "at most N rows"),
            (r"\b\d+(\.\d+)? (ms|s)\b", "[SPAN]"),
            // Columns are as wide as what was masked in them.
            (r"(\S) {2,}", "$1  "),
            (r" +\n", "\n"),
        ];
        masks.iter().fold(text, |text, (mask, with)| Regex::new(mask).unwrap().replace_all(&text, *with).into_owned())
    }
}

pub fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A process that is waited for, and ended whatever becomes of the test.
pub struct Running {
    child: Option<Child>,
}

impl Running {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.as_ref().unwrap().id();
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for its end; one that hangs is killed, and what it had said is shown.
    pub fn ended(mut self) -> Ran {
        let child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        // Reading what it says at the same time: a full pipe would stop it.
        std::thread::spawn(move || tell.send(child.wait_with_output()));
        let output = told.recv_timeout(Duration::from_secs(90));
        if output.is_err() {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            panic!("it does not end: {:#?}", ran(told.recv().unwrap().unwrap()));
        }
        ran(output.unwrap().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits for something, for a time that no slow machine needs.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Whether a process has ended, collected by its parent or not yet.
pub fn is_gone(pid: &str) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    }
}
