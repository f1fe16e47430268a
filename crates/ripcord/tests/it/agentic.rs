//! `examples/agentic-platform` on an Engine of its own, looked at from outside: eleven services, a release that breaks one of them,
//! a mistake in the settings, and one service taken back alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bed::{Ran, ran, until};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/agentic-platform");
const GATEWAY: u16 = 9;
/// What is published.
const PORTS: [u16; 5] = [1, GATEWAY, 10, 11, 12];

/// A copy of the example, its infrastructure up and people at its door.
struct Platform {
    dir: tempfile::TempDir,
    prefix: u16,
    load: Child,
    /// It ends when its input is closed, however this process ends.
    engine: Child,
}

impl Platform {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(EXAMPLE).arg(dir.path().join("platform")).status().unwrap();
        assert!(copied.success());
        // What somebody who tried the example left in it.
        let _ = fs::remove_dir_all(dir.path().join("platform/.ripcord"));
        let mut engine = Command::new(dir.path().join("platform/engine.sh"));
        // In a group of its own: what ends the tests by a signal must not end it before it has tidied up.
        engine.arg(dir.path().join("engine")).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let engine = engine.spawn().unwrap();
        let prefix = free_prefix();
        let mut platform = Self { prefix, load: Command::new("true").spawn().unwrap(), engine, dir };
        let at = format!("127.0.0.1:{prefix}");
        platform.edit("ripcord.yaml", "127.0.0.1:80", &at);
        platform.edit(".env.production", "PORTS=80", &format!("PORTS={prefix}"));
        until("the Engine is up (`dockerd` of Debian's docker.io, as root)", || {
            platform.command("docker", &["version"]).output().unwrap().status.success()
        });
        platform.says("service/build.sh", &["v1.0.0"]);
        platform.says("service/build.sh", &["v1.1.0", "l09-api-gateway:30"]);
        platform.says("service/build.sh", &["v1.2.0"]);
        platform.says("service/build.sh", &["stand-in"]);
        let images = ["tag", "agentic-platform/service:stand-in", "agentic-platform/infrastructure:1"];
        platform.says("docker", &images);
        platform.says("bash", &["-c", ". ./compose.sh; compose up -d postgres redis"]);
        let load = platform.path("service/build/service");
        let gateway = format!("{at}09");
        platform.load = platform.command(load.to_str().unwrap(), &["load", &gateway]).spawn().unwrap();
        platform
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("platform").join(path)
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
        let socket = format!("unix://{}/engine/docker.sock", self.dir.path().display());
        command.current_dir(self.path("")).args(args).stdin(Stdio::null());
        command.env("DOCKER_HOST", socket).env_remove("DOCKER_CONTEXT").env_remove("RIPCORD_STATE");
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
        let words = [&["-k", "5", "300", env!("CARGO_BIN_EXE_ripcord")], args].concat();
        ran(self.command("timeout", &words).output().unwrap())
    }

    fn deploy(&self, version: &str) -> Ran {
        self.ripcord(&["deploy", "--version", version, "--", "./deploy.sh", version])
    }

    /// Of each service, by its name: the container and the tag of its image.
    fn containers(&self) -> BTreeMap<String, (String, String)> {
        let format = "{{.Label \"com.docker.compose.service\"}} {{.ID}} {{.Label \"layer\"}}";
        let said = self.says("docker", &["ps", "--no-trunc", "--format", format]);
        let tags = self.says("docker", &["images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"]);
        let tag = |image: &str| {
            let of = |line: &&str| line.starts_with(image) && line.contains(" agentic-platform/service:");
            tags.lines().find(of).and_then(|line| line.rsplit_once(':')).map(|(_, tag)| tag.to_owned())
        };
        let one = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let image = self.says("docker", &["inspect", "--format", "{{.Image}}", words[1]]);
            (words[0].to_owned(), (words[1].to_owned(), tag(&image).unwrap()))
        };
        said.lines().map(one).collect()
    }

    /// What a user gets.
    fn get(&self, service: u16, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.prefix * 100 + service)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn versions(&self) -> BTreeSet<String> {
        let version = |port: &u16| {
            let answer = self.get(*port, "/version").unwrap_or_default();
            answer.split("\"version\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("none").to_owned()
        };
        PORTS.iter().map(version).collect()
    }

    /// How many of 100 requests to the gateway fail.
    fn failures(&self) -> usize {
        let fails = |_: &usize| !self.get(GATEWAY, "/").is_some_and(|answer| answer.starts_with("HTTP/1.0 200"));
        (0..100).filter(fails).count()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let _ = self.load.kill();
        let _ = self.load.wait();
        // It takes its containers and its data away.
        drop(self.engine.stdin.take());
        let _ = self.engine.wait();
    }
}

/// What a port of four or five digits may begin with so that all eleven are free.
fn free_prefix() -> u16 {
    let free = |prefix: &u16| PORTS.iter().all(|port| TcpListener::bind(("127.0.0.1", prefix * 100 + port)).is_ok());
    // Below the ports that the system gives out by itself; not always the same ones first.
    let first = 110 + u16::try_from(std::process::id() % 100).unwrap();
    (first..310).find(free).expect("some ports are free")
}

fn one(version: &str) -> BTreeSet<String> {
    BTreeSet::from([version.to_owned()])
}

fn infrastructure(containers: &BTreeMap<String, (String, String)>) -> Vec<&(String, String)> {
    ["postgres", "redis"].iter().map(|name| &containers[*name]).collect()
}

/// The services whose containers are not the same.
fn recreated(
    before: &BTreeMap<String, (String, String)>,
    after: &BTreeMap<String, (String, String)>,
) -> BTreeSet<String> {
    assert!(before.keys().eq(after.keys()), "{before:?} {after:?}");
    before.iter().filter(|(name, one)| after[*name] != **one).map(|(name, _)| name.clone()).collect()
}

#[test]
fn a_platform_of_eleven_services_is_taken_back() {
    let platform = Platform::start();
    let settings = platform.read(".env.production");
    let good = platform.deploy("v1.0.0");
    assert_eq!(good.code, Some(0), "{good:#?}");
    assert_eq!((platform.versions(), platform.failures()), (one("v1.0.0"), 0));
    let first = platform.containers();
    assert_eq!(first.len(), 13, "{first:?}");

    // The complete rollback: the gateway fails 30 of 100 requests, which nobody has to notice.
    let bad = platform.deploy("v1.1.0");
    assert_eq!(bad.code, Some(6), "{bad:#?}");
    assert!(bad.err.contains("it helped: every breached signal is back to normal"), "{bad:#?}");
    assert_eq!((platform.versions(), platform.failures()), (one("v1.0.0"), 0));
    let back = platform.containers();
    let elsewhere = back.iter().filter(|(_, (_, tag))| tag != "v1.0.0").map(|(name, _)| name.as_str());
    assert_eq!(elsewhere.collect::<Vec<_>>(), ["postgres", "redis"], "{back:?}");
    assert_eq!(infrastructure(&back), infrastructure(&first));
    assert!(recreated(&first, &back).contains("l09-api-gateway"));
    assert_eq!(platform.read(".env.production"), settings);

    // The version is kept out, and trying it changes nothing.
    let refused = platform.deploy("v1.1.0");
    assert_eq!(refused.code, Some(4), "{refused:#?}");
    assert_eq!(platform.ripcord(&["release", "check", "v1.1.0"]).code, Some(4));
    assert_eq!(platform.containers(), back);

    // Configuration: a mistake in the file, which its two readers take up and are made anew without.
    let mistake = ["./configure.sh", "DATA_LAYER=l01-data-layer:9999"];
    let deploy = [&["deploy", "--version", "v1.0.0-settings.2", "--"], &mistake[..]].concat();
    let configured = platform.ripcord(&deploy);
    assert_eq!(configured.code, Some(6), "{configured:#?}");
    assert!(configured.err.contains("restore/environment"), "{configured:#?}");
    assert_eq!((platform.read(".env.production"), platform.failures()), (settings.clone(), 0));
    let mended = platform.containers();
    let readers = ["l09-api-gateway", "l11-integration"].map(str::to_owned);
    assert_eq!(recreated(&back, &mended), BTreeSet::from(readers));

    // One service: a person takes it back alone, and nothing else.
    platform.says("./deploy.sh", &["v1.2.0"]);
    let recorded = platform.ripcord(&["release", "record", "v1.2.0"]);
    assert_eq!(recorded.code, Some(0), "{recorded:#?}");
    let newer = platform.containers();
    assert_eq!(platform.versions(), one("v1.2.0"));
    let scope = ["rollback", "--scope", "l09-api-gateway", "--to", "v1.0.0", "--yes", "--reason", "the gateway alone"];
    let partial = platform.ripcord(&scope);
    assert_eq!(partial.code, Some(0), "{partial:#?}");
    let after = platform.containers();
    assert_eq!(recreated(&newer, &after), one("l09-api-gateway"));
    assert_eq!((after["l09-api-gateway"].1.as_str(), platform.failures()), ("v1.0.0", 0));
    assert_eq!(infrastructure(&after), infrastructure(&first));
}
