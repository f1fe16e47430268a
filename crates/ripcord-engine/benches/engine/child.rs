//! The real binary in a directory with a configuration: run beside us, or run to its end and timed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::world;

/// A directory with a configuration in it; its record is beside it.
pub struct Site {
    directory: TempDir,
    ripcord: PathBuf,
}

impl Site {
    pub fn new(ripcord: &Path, configuration: &str) -> Self {
        let directory = world::directory();
        std::fs::write(directory.path().join("ripcord.yaml"), configuration).unwrap();
        std::fs::write(directory.path().join("shop.env"), "FAST_CHECKOUT=true\n").unwrap();
        Self { directory, ripcord: ripcord.canonicalize().expect("the binary") }
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join(".ripcord")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.ripcord);
        command.args(words).current_dir(self.directory.path()).env_remove("RIPCORD_STATE").stdin(Stdio::null());
        command
    }

    /// Runs the binary beside us until the answer is dropped.
    pub fn start(&self, words: &[&str]) -> Running {
        let said = self.directory.path().join("said");
        let mut command = self.command(words);
        command.stdout(Stdio::null()).stderr(File::create(&said).unwrap());
        Running { child: command.spawn().unwrap(), said }
    }

    /// How long the binary takes to its end; what it prints goes through a pipe, as into a script.
    pub fn time(&self, words: &[&str]) -> Duration {
        let mut command = self.command(words);
        let began = Instant::now();
        let output = command.output().unwrap();
        let took = began.elapsed();
        assert!(output.status.success(), "{words:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        took
    }

    /// What the binary says.
    pub fn output(&self, words: &[&str]) -> String {
        String::from_utf8_lossy(&self.command(words).output().unwrap().stdout).into_owned()
    }
}

pub struct Running {
    child: Child,
    said: PathBuf,
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops the benchmark where the process is gone, with what it said last.
    pub fn still_there(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("it ended with {status}: {}", std::fs::read_to_string(&self.said).unwrap_or_default());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
