//! The scenarios, step by step.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::told::{self, Line, Summary};
use super::{DemoArgs, DemoError, Scenario, files};
use crate::load::{Load, RunningLoad};
use crate::shop::{self, Fault, Layout};

const GOOD: &str = "v1.0.0";
const BAD: &str = "v1.1.0";

/// The exit codes of `ripcord` that the story expects (docs/exit-codes.md).
const DONE: i32 = 0;
const REFUSED: i32 = 4;
const ROLLED_BACK: i32 = 6;

/// Gives the demonstration. `say` is told each line as it happens.
///
/// Whatever happens, the shop is stopped and the directory removed, unless it is to be kept.
/// # Errors
/// [`DemoError::Unexpected`] where a step came out otherwise than it should: then what is shown does not work here.
pub async fn run(args: &DemoArgs, say: &(dyn Fn(Line) + Sync)) -> Result<Summary, DemoError> {
    let stage = Stage::set(args)?;
    let told = tokio::select! {
        told = stage.tell(args.scenario, say) => told,
        _ = tokio::signal::ctrl_c() => Err(DemoError::Interrupted),
    };
    match (told, &args.keep) {
        (Ok(mut summary), Some(kept)) => {
            summary.kept = Some(kept.clone());
            stage.keep();
            Ok(summary)
        }
        (told, _) => {
            stage.strike().await;
            told
        }
    }
}

/// Where the story plays.
struct Stage {
    dir: PathBuf,
    exe: PathBuf,
    port: u16,
    /// Removes the directory when dropped; none where it is the user's own.
    temporary: Option<tempfile::TempDir>,
}

impl Stage {
    fn set(args: &DemoArgs) -> Result<Self, DemoError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| DemoError::Io { what, path, source }
        };
        let (dir, temporary) = match &args.keep {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(io("cannot make", dir))?;
                let dir = dir.canonicalize().map_err(io("cannot find", dir))?;
                if std::fs::read_dir(&dir).map_err(io("cannot read", &dir))?.next().is_some() {
                    return Err(DemoError::NotEmpty(dir));
                }
                (dir, None)
            }
            None => {
                let made = tempfile::Builder::new().prefix("ripcord-demo-").tempdir();
                let made = made.map_err(io("cannot make a directory below", &std::env::temp_dir()))?;
                (made.path().to_owned(), Some(made))
            }
        };
        let port = shop::free_port().map_err(io("cannot find a free port for", &dir))?;
        shop::init_dir(&dir.join("shop"), 200)?;
        files::write(&dir, port, &args.exe)?;
        Ok(Self { dir, exe: args.exe.clone(), port, temporary })
    }

    async fn tell(&self, scenario: Scenario, say: &(dyn Fn(Line) + Sync)) -> Result<Summary, DemoError> {
        let chapter = |text: &str| say(Line::Chapter { text: text.to_owned() });
        chapter("A shop: a web server over SQLite, an .env with toggles, a flag file. Its configuration is checked.");
        self.ripcord(&["check"], DONE, say).await?;

        chapter(
            "v1.0.0 is deployed by the shop's own script. Ripcord captures what was there, verifies, and lets it bake to good.",
        );
        shop::write_release(&self.dir.join("shop/releases").join(GOOD), GOOD, Fault::None)?;
        // Customers come as soon as there is a shop, which is while it bakes.
        let deploy = self.ripcord(&["deploy", "--version", GOOD, "--", "./deploy.sh", GOOD], DONE, say);
        let (deployed, load) = tokio::join!(deploy, self.load_once_open());
        deployed?;
        let load = load?;
        customers(&load, say);

        let told = match scenario {
            Scenario::Release => self.bad_release(&load, say).await,
            Scenario::Data => self.bad_data(&load, say).await,
        };
        let counters = load.stop().await;
        told?;
        let mut summary = told::read(&self.dir).await?;
        summary.requests = counters.sent;
        summary.requests_failed = counters.failed + counters.unreachable;
        summary.report = self.report(&summary, say).await?;
        Ok(summary)
    }

    async fn bad_release(&self, load: &RunningLoad, say: &(dyn Fn(Line) + Sync)) -> Result<(), DemoError> {
        let chapter = |text: &str| say(Line::Chapter { text: text.to_owned() });
        chapter(
            "v1.1.0 has a fault in its checkout. Watch: pending, breached, level 1 (a toggle) is not enough, level 2 is.",
        );
        shop::write_release(&self.dir.join("shop/releases").join(BAD), BAD, Fault::Checkout)?;
        self.ripcord(&["deploy", "--version", BAD, "--", "./deploy.sh", BAD], ROLLED_BACK, say).await?;
        customers(load, say);
        chapter("v1.1.0 is quarantined: nobody deploys it again until a person lifts that by name.");
        self.ripcord(&["deploy", "--version", BAD, "--", "./deploy.sh", BAD], REFUSED, say).await?;
        self.ripcord(&["status"], DONE, say).await
    }

    async fn bad_data(&self, load: &RunningLoad, say: &(dyn Fn(Line) + Sync)) -> Result<(), DemoError> {
        let chapter = |text: &str| say(Line::Chapter { text: text.to_owned() });
        chapter(
            "v1.1.0 answers every request, and damages the orders it touches. No automatic run gives data up: people are called.",
        );
        shop::write_release(&self.dir.join("shop/releases").join(BAD), BAD, Fault::CorruptsData)?;
        self.ripcord(&["deploy", "--version", BAD, "--", "./deploy.sh", BAD], REFUSED, say).await?;
        customers(load, say);
        chapter("The plan says what would be lost, table by table, before anybody consents.");
        self.ripcord(&["plan", "--strategy", "data", "--level", "3"], DONE, say).await?;
        chapter(
            "A person consents to the loss in words. The rows written since are salvaged beside the restored database.",
        );
        let consented = ["rollback", "--strategy", "data", "--level", "3", "--yes", "--confirm", "CONFIRM DATA LOSS"];
        self.ripcord(&consented, DONE, say).await?;
        self.ripcord(&["status"], DONE, say).await
    }

    /// The load, once the shop answers; past a minute it begins anyway, and counts what is refused.
    async fn load_once_open(&self) -> Result<RunningLoad, DemoError> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if tokio::time::Instant::now() >= deadline {
                break;
            }
            pause.tick().await;
        }
        self.load()
    }

    fn load(&self) -> Result<RunningLoad, DemoError> {
        let url = format!("http://127.0.0.1:{}", self.port);
        // Bounded: four minutes at most, whatever becomes of the story.
        let load = Load { url, rate_per_second: 60, write_share: 0.5, at_most: Some(Duration::from_secs(240)) };
        Ok(load.start()?)
    }

    /// The report of the last run, beside the configuration; in a temporary directory it is shown instead of kept.
    async fn report(&self, summary: &Summary, say: &(dyn Fn(Line) + Sync)) -> Result<Option<PathBuf>, DemoError> {
        let Some(run) = summary.runs.last() else { return Ok(None) };
        let to = match &self.temporary {
            None => self.dir.join("report.md"),
            Some(_) => std::env::temp_dir().join(format!("ripcord-demo-report-{}.md", std::process::id())),
        };
        let out = to.display().to_string();
        self.ripcord(&["report", &run.id, "--out", &out], DONE, say).await?;
        Ok(Some(to))
    }

    /// Runs `ripcord` as a user would, line by line.
    async fn ripcord(&self, words: &[&str], expected: i32, say: &(dyn Fn(Line) + Sync)) -> Result<(), DemoError> {
        let argv: Vec<String> = std::iter::once("ripcord").chain(words.iter().copied()).map(str::to_owned).collect();
        say(Line::Command { argv: argv.clone() });
        let command = argv.join(" ");
        let mut child = Command::new(&self.exe)
            .args(words)
            .current_dir(&self.dir)
            .env("NO_COLOR", "1")
            .env_remove("RIPCORD_STATE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| DemoError::NotStarted { command: command.clone(), source })?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        tokio::join!(lines(out, say), lines(err, say));
        let status = child.wait().await.map_err(|source| DemoError::NotStarted { command: command.clone(), source })?;
        if status.code() == Some(expected) {
            return Ok(());
        }
        Err(DemoError::Unexpected { command, code: status.to_string(), expected: format!("exit code {expected}") })
    }

    fn keep(mut self) {
        if let Some(temporary) = self.temporary.take() {
            let _ = temporary.keep();
        }
    }

    /// Stops the shop and removes everything.
    async fn strike(self) {
        let dir = Layout::new(self.dir.join("shop"));
        // A shop that cannot be stopped ends by itself when its directory goes.
        let _ = tokio::task::spawn_blocking(move || shop::stop(dir.dir(), Duration::from_secs(5))).await;
    }
}

async fn lines(from: Option<impl tokio::io::AsyncRead + Unpin>, say: &(dyn Fn(Line) + Sync)) {
    let Some(from) = from else { return };
    let mut lines = BufReader::new(from).lines();
    // A line that is not UTF-8 ends the showing, not the command.
    while let Ok(Some(text)) = lines.next_line().await {
        say(Line::Output { text });
    }
}

fn customers(load: &RunningLoad, say: &(dyn Fn(Line) + Sync)) {
    let c = load.counters();
    let text = format!(
        "customers so far: {} requests, {} failed or were turned away, p95 {:.0} ms",
        c.sent,
        c.failed + c.unreachable,
        c.p95_ms
    );
    say(Line::Customers { text });
}
