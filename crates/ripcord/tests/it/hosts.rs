//! Many hosts, and what goes wrong between them: each a real OpenSSH server on an address of its own, in a network that belongs to the
//! test alone, so that packets can be dropped as a cable does it that is pulled: without a word to either end.
//! Needs root, `sshd` (Debian: openssh-server), `unshare`, `ip` and `iptables`; without them these tests fail.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::bed::{Bed, Ran, lines, until};

const SSHD: &str = "/usr/sbin/sshd";
/// Every server's: the network has nothing else in it.
const PORT: u16 = 2222;
const INSIDE: &str = "HOSTS_TEST_INSIDE";

/// Carries a test out in a network, a process tree and mounts of its own, all of which are gone when it ends, however it ends.
/// `name` is the test's, from this file on.
fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        sh("ip link set lo up");
        return test();
    }
    let mut again = Command::new("unshare");
    again.args(["--net", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    again.arg(std::env::current_exe().unwrap()).args(["--exact", "--nocapture", &format!("hosts::{name}")]);
    let output = again.env(INSIDE, "1").output().unwrap_or_else(|error| panic!("there is no `unshare`: {error}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "there is no such test: {said}");
}

fn sh(script: &str) {
    let ran = Command::new("sh").args(["-euc", script]).output().unwrap();
    assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn key(path: &Path) -> String {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(made.success());
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

/// Hosts `h1`, `h2`, .. in directories of these names, with 1.0.0 good and 1.1.0 live on all of them.
struct Lab {
    bed: Bed,
    count: usize,
    servers: Vec<Option<Child>>,
}

/// What restarts on every host: it waits for the file `go` there where there is one that is called `slow`.
const SERVICE: &str = r#"
  service:
    command:
      start: [sh, -c, "echo begun >> starts; while test -e slow && ! test -e go; do sleep 0.02; done; echo $$ > up"]
      stop: [sh, -c, "rm -f up"]
      instance: [sh, -c, "cat up 2> /dev/null || exit 1"]
    needs: [code]
    hosts: [all]
    step-limit: 20s
"#;

impl Lab {
    fn new(count: usize, components: &str) -> Self {
        Self::with(count, components, true)
    }

    /// `installed`: whether the program is there, so that it need not be sent.
    fn with(count: usize, components: &str, installed: bool) -> Self {
        assert!(Path::new(SSHD).exists(), "install openssh-server");
        let bed = Bed::with("");
        let dir = bed.path("").display().to_string();
        let names: Vec<String> = (1..=count).map(|n| format!("h{n}")).collect();
        let program = match installed {
            true => format!(", installed: {}", env!("CARGO_BIN_EXE_ripcord")),
            false => String::new(),
        };
        let hosts: String = names
            .iter()
            .map(|name| {
                format!("  {name}: {{ ssh: {{ to: {name}, config: ssh_config }}, directory: {dir}{name}{program} }}\n")
            })
            .collect();
        bed.write(
            "ripcord.yaml",
            &format!(
                "application: shop\nhosts:\n{hosts}groups: {{ all: [{}] }}\ncomponents:\n  \
                 code: {{ directory: {{ path: current, releases: releases, readers: restart }}, hosts: [all], step-limit: 20s }}\n\
                 {components}policy: {{ bake: 200ms, watch: 200ms, baseline: 100ms }}\n",
                names.join(", ")
            ),
        );
        let user_key = key(&bed.path("user_key"));
        fs::write(bed.path("authorized_keys"), user_key).unwrap();
        let mut config = String::new();
        for (n, name) in (1..).zip(&names) {
            for version in ["1.0.0", "1.1.0"] {
                bed.write(&format!("{name}/releases/{version}/page"), &format!("page {version} of {name}\n"));
            }
            std::os::unix::fs::symlink("releases/1.0.0", bed.path(&format!("{name}/current"))).unwrap();
            bed.write(&format!("{name}/up"), "1\n");
            config += &format!("Host {name}\n  HostName {}\n", address(n));
        }
        config += &format!(
            "Host *\n  Port {PORT}\n  IdentityFile {dir}user_key\n  IdentitiesOnly yes\n  UserKnownHostsFile {dir}known_hosts\n  \
             GlobalKnownHostsFile none\n"
        );
        bed.write("ssh_config", &config);
        fs::create_dir_all("/run/sshd").unwrap();
        let mut lab = Self { bed, count, servers: names.iter().map(|_| None).collect() };
        (1..=count).for_each(|n| lab.serve(n));
        lab.knows(1..=count);
        lab
    }

    /// Has the server of a host run; with the key it has, if it has one.
    fn serve(&mut self, n: usize) {
        let dir = self.bed.path("").display().to_string();
        let name = format!("h{n}");
        let host_key = self.bed.path(&format!("{name}_key"));
        if !host_key.exists() {
            key(&host_key);
        }
        self.bed.write(
            &format!("{name}.sshd"),
            &format!(
                "Port {PORT}\nListenAddress {}\nHostKey {dir}{name}_key\nAuthorizedKeysFile {dir}authorized_keys\nPidFile none\n\
                 StrictModes no\nUsePAM no\nSetEnv XDG_CACHE_HOME={dir}{name}/cache XDG_STATE_HOME={dir}{name}/state HOST={name}\n",
                address(n)
            ),
        );
        let mut sshd = Command::new(SSHD);
        sshd.args(["-D", "-f"]).arg(self.bed.path(&format!("{name}.sshd"))).arg("-E").arg(self.bed.path("sshd.log"));
        let sshd = sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.servers[n - 1] = Some(sshd);
        until("the server listens", || TcpStream::connect((address(n), PORT)).is_ok());
    }

    /// The controller is told the keys of these hosts as they are now.
    fn knows(&self, hosts: impl IntoIterator<Item = usize>) {
        let line = |n: usize| format!("[{}]:{PORT} {}", address(n), self.bed.read(&format!("h{n}_key.pub")));
        self.bed.write("known_hosts", &hosts.into_iter().map(line).collect::<String>());
    }

    fn with_a_good_release(self) -> Self {
        self.bed.ok(&["release", "record", "1.0.0"]);
        self.bed.ok(&["release", "mark", "1.0.0", "--good", "--why", "it was watched"]);
        for n in 1..=self.count {
            sh(&format!("cd {} && ln -sfn releases/1.1.0 current", self.bed.path(&format!("h{n}")).display()));
        }
        self.bed.ok(&["release", "record", "1.1.0"]);
        self
    }

    /// What users of the hosts see, as the versions that are live on each.
    fn seen(&self) -> Vec<String> {
        let page = |n| self.bed.read(&format!("h{n}/current/page"));
        (1..=self.count).map(|n| page(n).split(' ').nth(1).unwrap().to_owned()).collect()
    }

    fn all(&self, version: &str) -> Vec<String> {
        vec![version.to_owned(); self.count]
    }

    fn at(&self, n: usize, path: &str) -> PathBuf {
        self.bed.path(&format!("h{n}/{path}"))
    }

    /// No packet to or from the host arrives any more, and nobody is told.
    fn unplug(&self, n: usize) {
        sh(&format!("for end in s d; do iptables -w -I INPUT -$end {} -j DROP; done", address(n)));
    }

    fn plug_in(&self, n: usize) {
        sh(&format!("for end in s d; do iptables -w -D INPUT -$end {} -j DROP; done", address(n)));
    }

    /// The host loses its power: everything that runs there ends without a word.
    fn dies(&mut self, n: usize) {
        self.unplug(n);
        let name = format!("HOST=h{n}");
        let server = self.servers[n - 1].take();
        // The server's sessions first, by what they were started from; then what they had started.
        let mut server = server.unwrap();
        let sessions = descendants(server.id());
        let started = pids().filter(|pid| has_variable(*pid, &name));
        for pid in [server.id()].into_iter().chain(sessions).chain(started) {
            sh(&format!("kill -KILL {pid} 2> /dev/null || true"));
        }
        server.wait().unwrap();
        until("all of it has ended", || !pids().any(|pid| has_variable(pid, &name)));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for server in self.servers.iter_mut().flatten() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn address(n: usize) -> String {
    format!("127.0.0.{}", 10 + n)
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
}

fn descendants(of: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let children: Vec<u32> = pids().filter(|pid| parent(*pid) == Some(of)).collect();
    children.iter().flat_map(|child| [*child].into_iter().chain(descendants(*child))).collect()
}

fn has_variable(pid: u32, variable: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|found| found == variable.as_bytes())
}

fn said(ran: &Ran) -> String {
    format!("{}{}", ran.out, ran.err)
}

/// Whether any event of the record says so.
fn on_record(lab: &Lab, text: &str) -> bool {
    lab.bed.ok(&["--json", "log"]).lines().any(|event| event.contains(text))
}

#[test]
fn a_cable_that_is_pulled_is_noticed_and_nothing_is_begun_twice() {
    alone("a_cable_that_is_pulled_is_noticed_and_nothing_is_begun_twice", || {
        let lab = Lab::new(2, &SERVICE.replace("20s", "45s")).with_a_good_release();
        fs::write(lab.at(2, "slow"), "").unwrap();
        let running = lab.bed.start(&["rollback", "--yes"]);
        until("the restart is under way", || lines(&lab.at(2, "starts")) == 1);
        lab.unplug(2);
        // No end of the connection is ever heard of: only that nothing is answered shows it.
        until("it is noticed", || {
            on_record(&lab, "`h2`: the connection broke: Timeout, server 127.0.0.12 not responding.")
        });
        assert_eq!(lines(&lab.at(2, "starts")), 1);
        fs::write(lab.at(2, "go"), "").unwrap();
        until("it goes on there all the same", || lab.at(2, "up").exists());
        lab.plug_in(2);
        let ran = running.ended();
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        assert_eq!(lab.seen(), lab.all("1.0.0"));
        assert_eq!([1, 2].map(|n| lines(&lab.at(n, "starts"))), [1, 1], "{ran:#?}");
        assert!(on_record(&lab, "found done after an interruption"));
    });
}

#[test]
fn a_controller_that_is_gone_for_good_leaves_no_agent_behind_and_the_next_goes_on() {
    alone("a_controller_that_is_gone_for_good_leaves_no_agent_behind_and_the_next_goes_on", || {
        let lab = Lab::new(2, SERVICE).with_a_good_release();
        fs::write(lab.at(2, "slow"), "").unwrap();
        let running = lab.bed.start(&["rollback", "--yes"]);
        until("the restart is under way", || lines(&lab.at(2, "starts")) == 1);
        // Its machine loses power: nothing of it is heard of on the host.
        lab.unplug(2);
        running.signal(Signal::KILL);
        running.ended();
        fs::write(lab.at(2, "go"), "").unwrap();
        until("it goes on there all the same", || lab.at(2, "up").exists());
        until("the agent ends", || !pids().any(|pid| has_variable(pid, "HOST=h2")));
        lab.plug_in(2);
        lab.bed.ok(&["resume"]);
        assert_eq!(lab.seen(), lab.all("1.0.0"));
        assert_eq!([1, 2].map(|n| lines(&lab.at(n, "starts"))), [1, 1]);
    });
}

#[test]
fn one_of_twelve_hosts_that_is_dead_before_is_named_and_nothing_is_begun() {
    alone("one_of_twelve_hosts_that_is_dead_before_is_named_and_nothing_is_begun", || {
        let lab = Lab::new(12, SERVICE).with_a_good_release();
        lab.unplug(7);
        let ran = lab.bed.run(&["rollback", "--yes"]);
        assert_eq!(ran.code, Some(4), "{ran:#?}");
        assert!(said(&ran).contains("@h7") && said(&ran).contains("timed out"), "{ran:#?}");
        assert_eq!(lab.seen(), lab.all("1.1.0"), "nothing was begun");
        assert!(lab.bed.json(&["status"])["run"].is_null());
        lab.plug_in(7);
        lab.bed.ok(&["rollback", "--yes"]);
        assert_eq!(lab.seen(), lab.all("1.0.0"));
        assert!((1..=12).all(|n| lines(&lab.at(n, "starts")) == 1));
    });
}

#[test]
fn one_of_twelve_hosts_that_dies_in_the_middle_parks_the_run_with_the_others_known() {
    alone("one_of_twelve_hosts_that_dies_in_the_middle_parks_the_run_with_the_others_known", || {
        let mut lab = Lab::new(12, SERVICE).with_a_good_release();
        fs::write(lab.at(7, "slow"), "").unwrap();
        let running = lab.bed.start(&["rollback", "--yes"]);
        until("the last restart is under way", || (1..=12).all(|n| lines(&lab.at(n, "starts")) == 1));
        lab.dies(7);
        let ran = running.ended();
        assert_eq!(ran.code, Some(5), "{ran:#?}");
        let run = lab.bed.json(&["status"])["run"].take();
        let open: Vec<&str> =
            run["now"].as_array().unwrap().iter().map(|line| line["step"].as_str().unwrap()).collect();
        assert_eq!(open, ["start/service@h7"], "{run:#}");
        assert_eq!(run["steps"]["done"].as_u64().unwrap() + 1, run["steps"]["all"].as_u64().unwrap(), "{run:#}");
        let off: Vec<&str> = run["off"].as_array().unwrap().iter().map(|off| off["owed"].as_str().unwrap()).collect();
        assert!(matches!(off.as_slice(), [owed] if owed.contains("service@h7")), "{run:#}");
        assert!(said(&ran).contains("service@h7"), "{ran:#?}");

        // As long as it is gone, the run stays where it is.
        let ran = lab.bed.run(&["retry"]);
        assert_eq!(ran.code, Some(5), "{ran:#?}");
        fs::remove_file(lab.at(7, "slow")).unwrap();
        lab.plug_in(7);
        lab.serve(7);
        let ran = lab.bed.run(&["retry"]);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        let status = lab.bed.json(&["status"]);
        assert!(status["run"].is_null() && status["off"].as_array().unwrap().is_empty(), "{status:#}");
        assert_eq!(lab.seen(), lab.all("1.0.0"));
        // Its own had never come up; no other was touched again.
        let starts: Vec<usize> = (1..=12).map(|n| lines(&lab.at(n, "starts"))).collect();
        assert_eq!(starts, [1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1]);
        assert!((1..=12).all(|n| lab.at(n, "up").exists()));
    });
}

#[test]
fn a_host_that_comes_back_with_another_key_is_not_spoken_with() {
    alone("a_host_that_comes_back_with_another_key_is_not_spoken_with", || {
        let mut lab = Lab::new(2, SERVICE).with_a_good_release();
        fs::write(lab.at(2, "slow"), "").unwrap();
        let running = lab.bed.start(&["rollback", "--yes"]);
        until("the restart is under way", || lines(&lab.at(2, "starts")) == 1);
        lab.dies(2);
        fs::remove_file(lab.at(2, "slow")).unwrap();
        fs::remove_file(lab.bed.path("h2_key")).unwrap();
        lab.plug_in(2);
        lab.serve(2);
        let ran = running.ended();
        assert_eq!(ran.code, Some(5), "{ran:#?}");
        assert!(said(&ran).contains("the host key of `h2` is not the one that is known"), "{ran:#?}");
        assert!(said(&ran).contains("find out why before anything else"), "{ran:#?}");
        assert_eq!(lines(&lab.at(2, "starts")), 1, "nothing was begun there");
        // Somebody has compared it with its owner's.
        lab.knows(1..=2);
        lab.bed.ok(&["retry"]);
        assert_eq!(lab.seen(), lab.all("1.0.0"));
    });
}

/// A small file system in memory at `at`, with what was there before.
fn small(at: &Path) {
    let at = at.display().to_string();
    let at = at.trim_end_matches('/');
    sh(&format!(
        "mkdir -p {at}; cp -a {at} {at}.was; mount -t tmpfs -o size=8m,mode=0755 tmpfs {at}; cp -a {at}.was/. {at}; rm -r {at}.was"
    ));
}

/// `settings` are restored after `rules`, whose restore waits for the file `go`.
const ONE_AFTER_THE_OTHER: &str = r#"
  rules:
    hosts: [h1]
    command:
      observe: [sh, -c, "cat rules"]
      capture: [sh, -c, "cat rules"]
      restore: [sh, -c, "echo begun >> restores; cat > rules.new; until [ -e go ]; do sleep 0.02; done; mv rules.new rules"]
      readers: hot
  settings: { env-file: { path: .env, readers: hot }, hosts: [all], needs: [rules] }
"#;

#[test]
fn a_disk_that_is_full_on_one_host_fails_there_and_goes_on_once_there_is_room() {
    alone("a_disk_that_is_full_on_one_host_fails_there_and_goes_on_once_there_is_room", || {
        let lab = Lab::new(3, ONE_AFTER_THE_OTHER);
        (1..=3).for_each(|n| fs::write(lab.at(n, ".env"), format!("FAST=true\nHOST=h{n}\n")).unwrap());
        fs::write(lab.at(1, "rules"), "one\n").unwrap();
        // Its state is there too: nothing at all can be written on this host.
        small(&lab.at(2, ""));
        let lab = lab.with_a_good_release();
        (1..=3).for_each(|n| fs::write(lab.at(n, ".env"), "FAST=false\n").unwrap());
        fs::write(lab.at(1, "rules"), "two\n").unwrap();
        lab.bed.ok(&["release", "record", "1.1.1"]);
        let live = |n: usize| fs::read_to_string(lab.at(n, ".env")).unwrap();
        let filler = lab.at(2, "filler");
        let fill = || sh(&format!("cat /dev/zero > {} 2> /dev/null || true", filler.display()));

        // Full before: seen by the proof, while nothing has been touched anywhere.
        fill();
        let ran = lab.bed.run(&["rollback", "--to", "1.0.0", "--yes"]);
        assert_eq!(ran.code, Some(5), "{ran:#?}");
        assert!(said(&ran).contains("FAILED prove/settings@h2") && said(&ran).contains("0 bytes are free"), "{ran:#?}");
        assert_eq!(lab.seen(), lab.all("1.1.0"));
        assert_eq!([1, 2, 3].map(live), ["FAST=false\n"; 3]);
        lab.bed.run(&["abandon", "--reason", "there is no room"]);
        fs::remove_file(&filler).unwrap();

        // Full in the middle: it fails there alone, and nothing there is half written.
        let running = lab.bed.start(&["rollback", "--to", "1.0.0", "--yes"]);
        until("the first restore is under way", || lines(&lab.at(1, "restores")) == 1);
        fill();
        fs::write(lab.at(1, "go"), "").unwrap();
        let ran = running.ended();
        assert_eq!(ran.code, Some(5), "{ran:#?}");
        assert!(
            said(&ran).contains("restore/settings@h2") && said(&ran).contains("No space left on device"),
            "{ran:#?}"
        );
        assert_eq!(live(2), "FAST=false\n");
        fs::remove_file(&filler).unwrap();
        let ran = lab.bed.run(&["retry"]);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        assert_eq!([1, 2, 3].map(live), [1, 2, 3].map(|n| format!("FAST=true\nHOST=h{n}\n")));
        assert_eq!(lab.seen(), lab.all("1.0.0"));
    });
}

#[test]
fn an_agent_that_finds_no_room_is_said_to_and_leaves_nothing_half_sent() {
    alone("an_agent_that_finds_no_room_is_said_to_and_leaves_nothing_half_sent", || {
        let lab = Lab::with(1, "", false);
        small(&lab.at(1, "cache"));
        let ran = lab.bed.run(&["check", "--live"]);
        assert_eq!(ran.code, Some(8), "{ran:#?}");
        assert!(said(&ran).contains("the agent could not be put on `h1`"), "{ran:#?}");
        assert!(said(&ran).contains("see that there is room in `~/.cache/ripcord` there"), "{ran:#?}");
        assert_eq!(fs::read_dir(lab.at(1, "cache/ripcord")).unwrap().count(), 0);
    });
}

#[test]
fn what_the_users_own_configuration_says_of_ways_and_keys_holds() {
    alone("what_the_users_own_configuration_says_of_ways_and_keys_holds", || {
        let service = SERVICE.replace(
            "echo begun >> starts;",
            "echo begun >> starts; env | grep -c ^SSH_AUTH_SOCK > forwarded || true;",
        );
        let lab = Lab::new(1, &service);
        let dir = lab.bed.path("").display().to_string();
        // The configuration in its usual place: the user's home directory is this one.
        lab.bed.write("ripcord.yaml", &lab.bed.read("ripcord.yaml").replace(", config: ssh_config", ""));
        fs::create_dir(lab.bed.path("home")).unwrap();
        fs::create_dir(lab.bed.path("home/.ssh")).unwrap();
        sh(&format!(
            "sed 's,^root:.*,root:x:0:0:root:{dir}home:/bin/sh,' /etc/passwd > {dir}passwd; mount --bind {dir}passwd /etc/passwd"
        ));
        // The key is only in an agent.
        let agent =
            Command::new("ssh-agent").args(["-D", "-a"]).arg(lab.bed.path("agent")).stdout(Stdio::null()).spawn();
        let _agent = Ended(agent.unwrap());
        until("it listens", || lab.bed.path("agent").exists());
        sh(&format!("SSH_AUTH_SOCK={dir}agent ssh-add -q {dir}user_key; rm {dir}user_key {dir}user_key.pub"));
        // The host is to be reached from the jump host only, which lets in who may do nothing but pass.
        lab.bed.write(
            "jump.sshd",
            &format!(
                "Port {PORT}\nListenAddress 127.0.0.99\nHostKey {dir}h1_key\nAuthorizedKeysFile {dir}authorized_keys\nPidFile none\n\
                 StrictModes no\nUsePAM no\nAllowUsers nobody\n"
            ),
        );
        let mut jump = Command::new(SSHD);
        jump.args(["-D", "-f"]).arg(lab.bed.path("jump.sshd")).arg("-E").arg(lab.bed.path("jump.log"));
        let _jump = Ended(jump.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("the jump host listens", || TcpStream::connect(("127.0.0.99", PORT)).is_ok());
        sh(&format!(
            "iptables -w -A OUTPUT -p tcp -d {} --dport {PORT} -m owner ! --uid-owner nobody -j REJECT",
            address(1)
        ));
        let known = lab.bed.read("known_hosts");
        lab.bed.write("home/.ssh/known_hosts", &format!("{known}{}", known.replace(&address(1), "127.0.0.99")));
        lab.bed.write(
            "home/.ssh/config",
            &format!(
                "Host jump\n  HostName 127.0.0.99\n  User nobody\nHost h1\n  HostName {}\n  ProxyJump jump\n  ForwardAgent yes\n\
                 Host *\n  Port {PORT}\n  IdentityAgent {dir}agent\n",
                address(1)
            ),
        );
        let lab = lab.with_a_good_release();
        lab.bed.ok(&["rollback", "--yes"]);
        assert_eq!(lab.seen(), lab.all("1.0.0"));
        assert_eq!(fs::read_to_string(lab.at(1, "forwarded")).unwrap(), "0\n", "the agent stays here");
        // And it was by that way.
        sh("iptables -w -A INPUT -d 127.0.0.99 -j REJECT");
        let ran = lab.bed.run(&["check", "--live"]);
        assert!(ran.code == Some(8) && said(&ran).contains("cannot be reached: `ssh h1` failed"), "{ran:#?}");
    });
}

/// Ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
