//! Places on hosts, through a real OpenSSH server: its own keys, a free port, two hosts that are two directories of this machine.
//! Needs `sshd` (Debian: openssh-server); without it these tests fail.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::bed::{Bed, lines, until};

const SSHD: &str = "/usr/sbin/sshd";

struct Lab {
    bed: Bed,
    sshd: Child,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.end_sessions();
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

fn key(path: &Path) -> String {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(made.success());
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

impl Lab {
    /// `settings` of both hosts beside how they are reached; `components` beside code and settings.
    fn new(settings: &str, components: &str) -> Self {
        assert!(Path::new(SSHD).exists(), "install openssh-server");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let bed = Bed::with("");
        let dir = bed.path("");
        let dir = dir.display();
        bed.write(
            "ripcord.yaml",
            &format!(
                r#"
application: shop
hosts:
  web1: {{ ssh: {{ to: web1, config: ssh_config }}, directory: {dir}one{settings} }}
  web2: {{ ssh: {{ to: web2, config: ssh_config }}, directory: {dir}two{settings} }}
groups: {{ web: [web1, web2] }}
components:
  code: {{ directory: {{ path: current, releases: releases }}, hosts: [web] }}
  settings: {{ env-file: {{ path: .env }}, hosts: [web] }}
{components}
policy: {{ bake: 200ms, watch: 200ms, baseline: 100ms }}
"#
            ),
        );
        for site in ["one", "two"] {
            for version in ["1.0.0", "1.1.0"] {
                bed.write(&format!("{site}/releases/{version}/page"), &format!("page {version} of {site}\n"));
            }
            std::os::unix::fs::symlink("releases/1.0.0", bed.path(&format!("{site}/current"))).unwrap();
            bed.write(&format!("{site}/.env"), &format!("TOKEN=hunter2-{site}\nFAST=true\n"));
        }
        let (host, user) = (bed.path("host_key"), bed.path("user_key"));
        let host_key = key(&host);
        fs::write(bed.path("authorized_keys"), key(&user)).unwrap();
        bed.write("known_hosts", &format!("[127.0.0.1]:{port} {host_key}"));
        bed.write(
            "ssh_config",
            &format!(
                "Host web1 web2\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {dir}user_key\n  IdentitiesOnly yes\n  \
                 UserKnownHostsFile {dir}known_hosts\n  GlobalKnownHostsFile none\n"
            ),
        );
        bed.write(
            "sshd_config",
            &format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}host_key\nAuthorizedKeysFile {dir}authorized_keys\n\
                 PidFile none\nStrictModes no\nUsePAM no\nMaxStartups 50\n\
                 SetEnv XDG_CACHE_HOME={dir}host/cache XDG_STATE_HOME={dir}host/state\n"
            ),
        );
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let mut sshd = Command::new(SSHD);
        sshd.args(["-D", "-f"]).arg(bed.path("sshd_config")).arg("-E").arg(bed.path("sshd.log"));
        let sshd = sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let lab = Self { bed, sshd };
        until("the server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        lab
    }

    /// With the program where it is, so that it need not be sent.
    fn installed(components: &str) -> Self {
        Self::new(&format!(", installed: {}", env!("CARGO_BIN_EXE_ripcord")), components)
    }

    fn with_a_good_release(self) -> Self {
        self.bed.ok(&["release", "record", "1.0.0"]);
        self.bed.ok(&["release", "mark", "1.0.0", "--good", "--why", "it was watched"]);
        let script = "for site in one two; do ln -sfn releases/1.1.0 $site/current; echo FAST=false > $site/.env; done";
        let script = format!("{script}; for site in one two; do test ! -e $site/rules || echo two > $site/rules; done");
        let ran = self.bed.run(&["deploy", "--version", "1.1.0", "--", "sh", "-c", &script]);
        // Without triggers nobody calls it good.
        assert!(ran.code == Some(8) && ran.out.contains("1.1.0 (rel-") && ran.out.contains("is live"), "{ran:#?}");
        self
    }

    /// What users of both hosts see.
    fn seen(&self) -> Vec<String> {
        let of = |site: &str| {
            format!("{}{}", self.bed.read(&format!("{site}/current/page")), self.bed.read(&format!("{site}/.env")))
        };
        ["one", "two"].map(of).into()
    }

    /// Ends every session of the server as a network that is gone does: without a word, and not what runs in it.
    fn end_sessions(&self) -> usize {
        let mut ended = 0;
        let mut parents = vec![self.sshd.id()];
        while let Some(parent) = parents.pop() {
            for pid in children(parent) {
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                if comm.starts_with("sshd") {
                    parents.push(pid);
                    ended += 1;
                }
                if comm.starts_with("sshd")
                    && let Some(pid) = Pid::from_raw(i32::try_from(pid).unwrap())
                {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
        ended
    }
}

fn children(of: u32) -> Vec<u32> {
    let parent = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(pid) == Some(of)).collect()
}

/// Whether a text is in any file below a directory.
fn is_anywhere(dir: &Path, text: &str) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path: PathBuf = entry.unwrap().path();
        match path.is_dir() {
            true => is_anywhere(&path, text),
            false => String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(text),
        }
    })
}

#[test]
fn a_release_on_two_hosts_is_taken_back_on_both() {
    let lab = Lab::installed("");
    let good = lab.seen();
    let lab = lab.with_a_good_release();
    assert_eq!(lab.seen(), ["page 1.1.0 of one\nFAST=false\n", "page 1.1.0 of two\nFAST=false\n"]);
    let plan = lab.bed.ok(&["plan"]);
    for place in ["code@web1", "code@web2", "settings@web1", "settings@web2"] {
        assert!(plan.contains(place), "{plan}");
    }
    let ran = lab.bed.run(&["rollback", "--yes"]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(lab.seen(), good);
    // Each host got its own file back, and nothing of it lies about elsewhere.
    assert!(!is_anywhere(&lab.bed.path("host/state"), "hunter2"));
    let left = lab.bed.path("host/state/ripcord/shop/production/calls");
    let outcomes = fs::read_dir(left)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "json"));
    assert_eq!(outcomes.count(), 0, "what was heard is forgotten");
}

#[test]
fn the_program_is_sent_once_and_found_the_next_time() {
    let lab = Lab::new("", "");
    let hosts = || lab.bed.json(&["check", "--live"])["live"]["hosts"].take();
    let first = hosts();
    for host in [&first[0], &first[1]] {
        assert_eq!((&host["reached"], &host["version"]), (&true.into(), &env!("CARGO_PKG_VERSION").into()), "{first}");
        assert!(host["clock_ahead_ms"].as_i64().unwrap().abs() < 60_000);
    }
    let agents = || -> Vec<(PathBuf, fs::Metadata)> {
        let entries = fs::read_dir(lab.bed.path("host/cache/ripcord")).unwrap();
        entries.map(|entry| entry.unwrap()).map(|entry| (entry.path(), entry.metadata().unwrap())).collect()
    };
    let sent = agents();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0].1.permissions().mode() & 0o777, 0o700);
    let size = fs::metadata(env!("CARGO_BIN_EXE_ripcord")).unwrap().len();
    assert_eq!(sent[0].1.len(), size);
    assert_eq!(hosts()[0]["reached"], true);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(agents()[0].1.ino(), sent[0].1.ino(), "it is the one that was there");
}

#[test]
fn a_host_that_is_not_the_known_one_is_refused() {
    let lab = Lab::installed("");
    let check = || {
        let ran = lab.bed.run(&["check", "--live"]);
        assert_eq!(ran.code, Some(8), "{ran:#?}");
        ran.out
    };
    let known = lab.bed.read("known_hosts");
    let (name, _) = known.split_once(' ').unwrap();
    lab.bed.write("known_hosts", &format!("{name} {}", key(&lab.bed.path("other_key"))));
    let out = check();
    assert!(out.contains("the host key of `web1` is not the one that is known"), "{out}");
    assert!(out.contains("find out why before anything else"), "{out}");
    lab.bed.write("known_hosts", "");
    let out = check();
    assert!(out.contains("the host key of `web2` is not known"), "{out}");
    assert!(out.contains("ssh-keyscan web2"), "{out}");
    lab.bed.write("known_hosts", &known);
    lab.bed.write("authorized_keys", "");
    let out = check();
    assert!(out.contains("`web1` does not let this user in"), "{out}");
    assert!(!lab.bed.path("host").exists(), "nobody was let in");
}

#[test]
fn a_host_that_is_gone_is_said_to_be_and_nothing_is_begun() {
    let mut lab = Lab::installed("").with_a_good_release();
    let before = lab.seen();
    lab.sshd.kill().unwrap();
    lab.sshd.wait().unwrap();
    lab.end_sessions();
    let ran = lab.bed.run(&["check", "--live"]);
    assert_eq!(ran.code, Some(8), "{ran:#?}");
    assert!(
        ran.out.contains("cannot be reached: `ssh web1` failed") && ran.out.contains("Connection refused"),
        "{ran:#?}"
    );
    let ran = lab.bed.run(&["rollback", "--yes"]);
    assert_ne!(ran.code, Some(0), "{ran:#?}");
    assert!(format!("{}{}", ran.out, ran.err).contains("Connection refused"), "{ran:#?}");
    assert_eq!(lab.seen(), before);
}

/// Its restore waits for the file `go`, so that a test can act in the middle of it.
const SLOW: &str = r#"
  rules:
    hosts: [web1]
    command:
      observe: [sh, -c, "cat rules"]
      capture: [sh, -c, "cat rules"]
      restore: [sh, -c, "echo begun >> restores; cat > rules.new; until [ -e go ]; do sleep 0.02; done; mv rules.new rules"]
"#;

#[test]
fn a_connection_that_breaks_in_the_middle_of_a_command_ends_and_repeats_nothing() {
    let lab = Lab::installed(SLOW);
    lab.bed.write("one/rules", "one\n");
    let lab = lab.with_a_good_release();
    let restores = lab.bed.path("one/restores");
    let running = lab.bed.start(&["rollback", "--yes"]);
    until("the restore is under way", || lines(&restores) == 1);
    assert!(lab.end_sessions() > 0, "there was a session to end");
    lab.bed.write("one/go", "");
    let ran = running.ended();
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!((lab.bed.read("one/rules").as_str(), lines(&restores)), ("one\n", 1), "{ran:#?}");
    assert!(lab.seen()[0].starts_with("page 1.0.0"), "{:?}", lab.seen());
}

#[test]
fn killed_in_the_middle_of_a_command_the_next_finds_what_became_of_it() {
    let lab = Lab::installed(SLOW);
    lab.bed.write("one/rules", "one\n");
    let lab = lab.with_a_good_release();
    let restores = lab.bed.path("one/restores");
    let running = lab.bed.start(&["rollback", "--yes"]);
    until("the restore is under way", || lines(&restores) == 1);
    running.signal(Signal::KILL);
    running.ended();
    // Nobody waits for it, and it goes on; whoever resumes waits for its end and does not begin it again.
    let resumed = lab.bed.start(&["resume"]);
    lab.bed.write("one/go", "");
    let ran = resumed.ended();
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!((lab.bed.read("one/rules").as_str(), lines(&restores)), ("one\n", 1), "{ran:#?}");
}
