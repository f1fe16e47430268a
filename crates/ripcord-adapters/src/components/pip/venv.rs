//! Virtual environments: what is in one, and making one.
//!
//! An environment knows its own path (the first lines of its scripts hold it), so it is made where it will stay. Its mark is written
//! when it is whole and checked; one without it was never finished and is never used.
//! Source: Python manual, `venv`; PEP 405 (`pyvenv.cfg`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord_core::{Failure, Retry, Revision};
use tokio::time::Instant;

use super::frozen::{Frozen, hashes};
use crate::components::files::{FileError, Stop, Trying, meta, point, remove, sync_all, write_new};
use crate::components::tool::Tool;

/// Says of which revision an environment is that we made.
pub(super) const MARK: &str = ".ripcord-revision";
/// The longest a look at an environment may take.
const LOOK: Duration = Duration::from_secs(30);

pub(super) struct Maker {
    pub(super) python: Tool,
    /// Passed on to `pip install`.
    pub(super) options: Vec<String>,
    pub(super) verify: Vec<String>,
}

/// An environment to be made, and from what.
pub(super) struct Order<'a> {
    pub(super) at: &'a Path,
    pub(super) frozen: &'a Frozen,
    pub(super) requirements: Option<&'a str>,
    /// Whether what it is to be like passed `pip check` itself.
    pub(super) consistent: bool,
}

fn pip(words: &[&str]) -> Vec<String> {
    let fixed = ["-m", "pip", "--disable-pip-version-check", "--no-input"];
    fixed.iter().chain(words).map(|word| (*word).to_owned()).collect()
}

fn refs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

impl Maker {
    /// The interpreter of an environment.
    fn of(&self, venv: &Path) -> Tool {
        self.python.instead([venv.join("bin/python").display()])
    }

    /// The version of the interpreter that environments are made with.
    pub(super) async fn version(&self, limit: Duration) -> Result<String, Failure> {
        let said =
            self.python.ask(&["-c", "import platform; print(platform.python_version())"], limit.min(LOOK)).await?;
        Ok(said.trim().to_owned())
    }

    /// What is in an environment.
    pub(super) async fn frozen(&self, venv: &Path, limit: Duration) -> Result<Frozen, Failure> {
        let path = venv.join("pyvenv.cfg");
        let text = fs::read_to_string(&path).trying("read", &path)?;
        let version =
            version_in(&text).ok_or_else(|| Failure::never(format!("{} names no version", path.display())))?;
        let printed = self.of(venv).ask(&refs(&pip(&["freeze", "--all"])), limit.min(LOOK)).await?;
        Ok(Frozen::read(&version, &printed))
    }

    /// Whether what is in an environment goes together; in words where it does not.
    pub(super) async fn inconsistent(&self, venv: &Path, limit: Duration) -> Result<Option<String>, Failure> {
        let output = self.of(venv).try_ask(&refs(&pip(&["check"])), limit.min(LOOK)).await?;
        Ok((!output.succeeded()).then(|| output.stdout.trim().lines().take(3).collect::<Vec<_>>().join("; ")))
    }

    /// Makes an environment, all of it or nothing: what fails leaves no trace.
    pub(super) async fn make(&self, order: &Order<'_>, deadline: Instant) -> Result<(), Failure> {
        remove(order.at)?;
        let made = self.fill(order, deadline).await;
        if made.is_err()
            && let Err(error) = remove(order.at)
        {
            tracing::warn!(%error, "an environment that could not be made could not be taken away");
        }
        made
    }

    async fn fill(&self, order: &Order<'_>, deadline: Instant) -> Result<(), Failure> {
        let at = order.at.display().to_string();
        point("venv");
        run(&self.python, &["-m", "venv", &at], deadline).await?;
        let python = self.of(order.at);
        let fresh = self.frozen(order.at, left(deadline)).await?;
        let work = order.frozen.work(&fresh, &order.requirements.map(hashes).unwrap_or_default());
        for (lines, flag) in [(&work.hashed, Some("--require-hashes")), (&work.plain, None)] {
            if lines.is_empty() {
                continue;
            }
            let list = order.at.join(".ripcord-list");
            write_new(&list, format!("{}\n", lines.join("\n")).as_bytes(), 0o600, None)?;
            let list_at = list.display().to_string();
            let mut words = pip(&["install", "--no-deps"]);
            words.extend(flag.map(str::to_owned));
            words.extend(self.options.iter().cloned());
            words.extend(["-r".to_owned(), list_at]);
            point("install");
            run(&python, &refs(&words), deadline).await?;
            remove(&list)?;
        }
        if !work.gone.is_empty() {
            let gone = pip(&["uninstall", "--yes"]).into_iter().chain(work.gone).collect::<Vec<_>>();
            run(&python, &refs(&gone), deadline).await?;
        }
        self.check(order, deadline).await?;
        point("mark");
        let Revision::Exact(id) = order.frozen.revision() else { return Ok(()) };
        sync_all(order.at)?;
        write_new(&order.at.join(MARK), id.0.as_bytes(), 0o644, None)?;
        Ok(sync_all(order.at)?)
    }

    async fn check(&self, order: &Order<'_>, deadline: Instant) -> Result<(), Failure> {
        let is = self.frozen(order.at, left(deadline)).await?;
        if let Some(differs) = order.frozen.differs(&is) {
            return Err(
                Failure::never(format!("the new environment is not what was frozen: {differs}")).advise(UNTOUCHED)
            );
        }
        if order.consistent
            && let Some(why) = self.inconsistent(order.at, left(deadline)).await?
        {
            return Err(Failure::never(format!("the new environment does not go together: {why}")).advise(UNTOUCHED));
        }
        if self.verify.is_empty() {
            return Ok(());
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", order.at.join("bin").display());
        let tool =
            self.python.instead(&self.verify).with("PATH", path).with("VIRTUAL_ENV", order.at.display().to_string());
        run(&tool, &[], deadline).await
    }

    pub(super) fn shown(&self, at: &Path) -> Vec<Vec<String>> {
        let mut install = pip(&["install", "--no-deps"]);
        install.extend(self.options.iter().cloned());
        install.extend(["-r".to_owned(), "(the frozen list)".to_owned()]);
        let at_text = at.display().to_string();
        vec![self.python.shown(&["-m", "venv", &at_text]), self.of(at).shown(&refs(&install))]
    }
}

const UNTOUCHED: &str = "the environment in use was not touched; see what the index has now, then retry the step";

/// Runs a tool on an environment that nothing uses yet: whatever goes wrong is a plain failure.
async fn run(tool: &Tool, words: &[&str], deadline: Instant) -> Result<(), Failure> {
    let advice =
        |failure: Failure| Failure { advice: failure.advice.clone().or(Some(UNTOUCHED.to_owned())), ..failure };
    match tool.act(words, left(deadline)).await {
        Ok(_) => Ok(()),
        Err(Stop::Failed(failure)) => Err(advice(failure)),
        Err(Stop::Unknown(why)) => Err(advice(Failure { retry: Retry::Later, ..Failure::never(why) })),
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100))
}

/// The version that `pyvenv.cfg` names.
fn version_in(text: &str) -> Option<String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let mut pairs = pairs.map(|(name, value)| (name.trim(), value.trim()));
    let version = pairs.find(|(name, _)| matches!(*name, "version" | "version_info"))?.1;
    let numbers: Vec<&str> = version.split('.').take(3).collect();
    (numbers.len() >= 2).then(|| numbers.join("."))
}

/// The revision an environment is marked with.
pub(super) fn mark(venv: &Path) -> Option<Revision> {
    fs::read_to_string(venv.join(MARK)).ok().map(|text| Revision::exact(text.trim()))
}

/// What is at the name of the environment in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Live {
    Nothing,
    Link(PathBuf),
    Directory,
}

impl Live {
    pub(super) fn at(path: &Path) -> Result<Self, FileError> {
        Ok(match meta(path)? {
            None => Self::Nothing,
            Some(meta) if meta.is_symlink() => Self::Link(fs::read_link(path).trying("read the link", path)?),
            Some(meta) if meta.is_dir() => Self::Directory,
            Some(_) => return Err(FileError::io("use", path, std::io::Error::other("it is no virtual environment"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_several_tools_write_it() {
        let read = |text: &str| version_in(text);
        assert_eq!(read("home = /usr/bin\nversion = 3.11.2\n").as_deref(), Some("3.11.2"));
        assert_eq!(read("version_info = 3.12.1.final.0\n").as_deref(), Some("3.12.1"));
        assert_eq!(read("home = /usr/bin\n"), None);
    }
}
