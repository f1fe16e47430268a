//! Servers that tests start: on free ports of their own, gone with the test, and with the process of the tests however that ends.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Runs what it is given and ends it once nobody holds its standard input any more.
const GUARD: &str = r#"
dir=$1; shift
"$@" >>"$dir/log" 2>&1 & pid=$!
echo $pid
read -r word
kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
[ "$word" = keep ] || rm -rf "$dir"
"#;

/// A server with a directory of its own.
pub struct Daemon {
    guard: Child,
    input: Option<ChildStdin>,
    pub pid: u32,
    pub dir: PathBuf,
}

impl Daemon {
    /// Starts `argv`, whose output is kept as `log` in `dir`.
    pub fn start(dir: &Path, argv: &[&str]) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guard"]).arg(dir).args(argv);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir(dir);
        let mut guard = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().unwrap_or_else(|_| panic!("{argv:?} was not started"));
        Self { input: guard.stdin.take(), guard, pid, dir: dir.to_owned() }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn runs(&self) -> bool {
        crate::support::runs(&self.pid.to_string())
    }

    /// Ends it as a power failure would, and waits until it is gone.
    pub fn kill(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        crate::real_daemon::wait("the server's end", || !self.runs());
    }

    /// Stands still until it is let go on.
    pub fn freeze(&self, frozen: bool) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid).unwrap()).unwrap();
        let signal = if frozen { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn end(&mut self, word: &[u8]) {
        use std::io::Write;
        if let Some(mut input) = self.input.take() {
            let _ = input.write_all(word);
        }
        let _ = self.guard.wait();
    }

    /// Ends it and keeps its directory, to be started again.
    pub fn end_and_keep(mut self) -> PathBuf {
        self.end(b"keep\n");
        self.dir.clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end(b"");
    }
}

pub fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A directory that is removed by whoever runs in it.
pub fn directory(name: &str) -> PathBuf {
    tempfile::Builder::new().prefix(&format!("ripcord-{name}-")).tempdir().unwrap().keep()
}

/// Waits until it is so, without a runtime; panics when that takes implausibly long.
pub fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "{what} never came");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
