//! A Docker Engine of the tests' own: its data, its socket and its networks are nobody else's, and it ends with them.
//!
//! A shell guards it: whatever becomes of the tests, the shell sees its input closed, removes the containers, ends the Engine and
//! takes its directory away. Told to, it ends the Engine and starts it again.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

const GUARD: &str = r#"
export DOCKER_HOST=unix://$1/docker.sock
# An Engine that begins makes the kernel's chains anew, which all share: one of several leaves them alone.
[ -z "$3" ] || { own=--iptables=false; mkdir "$1/data"; mount -t tmpfs -o "size=$3" tmpfs "$1/data"; }
begin() {
    dockerd $own --data-root "$1/data" --exec-root "$1/exec" --host "$DOCKER_HOST" --pidfile "$1/pid" --bridge none \
        --default-address-pool "base=10.$2.0.0/16,size=26" --default-address-pool "base=10.$(($2 + 1)).0.0/16,size=26" \
        >>"$1/log" 2>&1 &
    engine=$!
}
begin "$@"
while read -r word; do
    case $word in
        end) kill -TERM $engine; wait $engine ;;
        begin) begin "$@" ;;
    esac
done
docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null 2>&1
docker network prune --force >/dev/null 2>&1
kill -TERM $engine; wait $engine
for mount in $(grep -F " $1/" /proc/self/mountinfo | cut -d ' ' -f 5); do umount -l "$mount"; done
rm -rf "$1"
"#;

pub struct Daemon {
    dir: PathBuf,
    /// Its input is closed when this process ends, however it ends.
    guard: Mutex<Child>,
}

/// The Engine of this test process, started when it is first needed.
pub fn daemon() -> &'static Daemon {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    DAEMON.get_or_init(|| Daemon::start(217, ""))
}

/// An Engine for one test alone, which it may end or fill up: its data is on a disk of `size`.
pub fn small(size: &str) -> &'static Daemon {
    static NUMBER: AtomicU8 = AtomicU8::new(0);
    let nth = NUMBER.fetch_add(1, Ordering::SeqCst);
    Box::leak(Box::new(Daemon::start(221 + 2 * nth, size)))
}

impl Daemon {
    fn start(net: u8, size: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("ripcord-engine-").tempdir().unwrap().keep();
        let mut guard = Command::new("bash");
        guard.args(["-c", GUARD, "guard"]).arg(&dir).arg(net.to_string()).arg(size).process_group(0);
        let guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let daemon = Self { guard: Mutex::new(guard), dir };
        daemon.is_up();
        daemon.images();
        daemon
    }

    fn is_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.docker(&["version"]).output().unwrap().status.success() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(3).collect();
            assert!(
                Instant::now() < deadline,
                "no Engine comes up (`dockerd` of Debian's docker.io, as root): {last:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn tell(&self, word: &str) {
        let mut guard = self.guard.lock().unwrap();
        writeln!(guard.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    /// Ends the Engine, and with it what it runs.
    pub fn end(&self) {
        self.tell("end");
        let deadline = Instant::now() + Duration::from_secs(60);
        // It answers until it has ended what it runs, and ends itself some time later.
        while self.dir.join("pid").exists() {
            assert!(Instant::now() < deadline, "the Engine does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn begin(&self) {
        self.tell("begin");
        self.is_up();
    }

    /// Where its data is.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn endpoint(&self) -> String {
        format!("unix://{}/docker.sock", self.dir.display())
    }

    fn docker(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.endpoint()).env_remove("DOCKER_CONTEXT").args(args);
        command
    }

    /// What `docker` prints; it must succeed.
    pub fn says(&self, args: &[&str]) -> String {
        succeeded(&mut self.docker(args))
    }

    /// `shop/api:v1` to `v3`: one program, and images that differ.
    fn images(&self) {
        let root = self.dir.join("root");
        fs::create_dir(&root).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/compose/server.rs");
        let flags = [
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
            "-C",
            "panic=abort",
            "-o",
        ];
        let rustc = std::env::var("RUSTC").unwrap_or("rustc".to_owned());
        succeeded(Command::new(rustc).args(flags).arg(root.join("server")).arg(source));
        let tar = self.dir.join("root.tar");
        succeeded(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("server"));
        for version in ["v1", "v2", "v3"] {
            self.image("shop/api", version);
        }
    }

    pub fn image(&self, name: &str, version: &str) {
        let tar = self.dir.join("root.tar");
        let (tar, env, tag) =
            (tar.display().to_string(), format!("ENV VERSION={version}"), format!("{name}:{version}"));
        let built = format!("LABEL of={name}");
        self.says(&["import", "-c", "ENTRYPOINT [\"/server\"]", "-c", &env, "-c", &built, &tar, &tag]);
    }
}

pub fn succeeded(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.trim().to_owned()
}
