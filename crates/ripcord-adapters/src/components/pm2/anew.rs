//! Starts an application anew without a gap, where a reload would keep a variable that has to go.
//!
//! What pm2 reloads keeps all it ever had, and deleting it first is a gap. So another application of the same definition stands in
//! meanwhile: instances in cluster mode share their port with whatever the same daemon runs. It is begun before anything of the
//! application's own is touched, and ended once that is up again; one that a kill left behind is ended by the next start.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord_core::{Failure, Output};
use tokio::time::Instant;

use super::{Application, Environment, LOOK, left, words};
use crate::components::files::{Stop, remove_file, write_new};
use crate::components::tool::Tool;
use crate::pm2::Process;

/// Whether a name fits a pattern, in which `*` may stand for anything.
fn fits(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.any(|at| fits(&name[at..], rest))
        }),
    }
}

fn ours(name: &str, patterns: &[String], environment: &Environment) -> bool {
    !environment.contains_key(name) && patterns.iter().any(|pattern| fits(name, pattern))
}

/// The variables of running instances that no env file says, of those that may be there only where a file does.
pub(super) fn left_over(patterns: &[String], environment: &Environment, processes: &[Process]) -> BTreeSet<String> {
    let names = processes.iter().flat_map(|process| process.environment.keys());
    names.filter(|name| ours(name, patterns, environment)).cloned().collect()
}

/// Those that pm2's daemon was started with: whatever it starts has them, unless a file says otherwise, and its list does not show it.
pub(super) fn inherited(
    patterns: &[String],
    environment: &Environment,
    processes: &[Process],
    home: &Path,
) -> Vec<String> {
    // Without the right to look there is nothing to be said.
    let daemon = fs::read_to_string(home.join("pm2.pid")).unwrap_or_default();
    let Ok(pid) = daemon.trim().parse::<u32>() else { return vec![] };
    let all = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let names = all.split(|byte| *byte == 0).map(|one| String::from_utf8_lossy(one));
    let names = names.filter_map(|one| one.split_once('=').map(|(name, _)| name.to_owned()));
    let said = |name: &String| processes.iter().any(|process| process.environment.contains_key(name));
    names.filter(|name| ours(name, patterns, environment) && !said(name)).collect()
}

impl Application {
    fn stand_in(&self) -> String {
        format!("{}.ripcord", self.pm2.app)
    }

    fn stand_in_file(&self) -> PathBuf {
        // pm2 knows by its name what sort of file it is.
        self.pm2.home.join(format!("{}.config.js", self.stand_in()))
    }

    pub(super) async fn anew(&self, tool: &Tool, file: &str, deadline: Instant) -> Result<Output, Stop> {
        let (app, stand_in) = (self.pm2.app.as_str(), self.stand_in());
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let definition = format!(
            "const all = require({});\nconst apps = [].concat(all.apps ?? all.pm2 ?? all);\n\
             module.exports = {{ apps: apps.filter((one) => one.name === {}).map((one) => ({{ ...one, name: {} }})) }};\n",
            quoted(file),
            quoted(app),
            quoted(&stand_in)
        );
        let path = self.stand_in_file();
        remove_file(&path).map_err(Failure::from)?;
        write_new(&path, definition.as_bytes(), 0o644, None).map_err(Failure::from)?;
        let begun = path.display().to_string();
        let up = match tool.act(&["start", &begun, "--only", &stand_in, "--update-env"], left(deadline)).await {
            Ok(_) => self.stands_in(deadline).await,
            Err(stop) => Err(stop),
        };
        if let Err(stop) = up {
            // Nothing of the application's own was touched.
            self.without_stand_in(deadline).await?;
            return Err(stop);
        }
        self.pm2.tool.act(&["delete", app], left(deadline)).await?;
        tool.act(&["start", file, "--only", app, "--update-env"], left(deadline)).await
    }

    /// Waits until the one that stands in serves.
    async fn stands_in(&self, deadline: Instant) -> Result<(), Stop> {
        let mut since: Option<(Instant, Vec<String>)> = None;
        loop {
            let processes = self.pm2.named(&self.stand_in(), left(deadline)).await?;
            let online = !processes.is_empty() && processes.iter().all(Process::is_online);
            let instances: Vec<_> = processes.iter().map(Process::instance).collect();
            let (now, was) = (Instant::now(), since.take());
            if online {
                let began = was.filter(|(_, were)| *were == instances).map_or(now, |(began, _)| began);
                if now.duration_since(began) >= self.settle.min(Duration::from_secs(1)) {
                    return Ok(());
                }
                since = Some((began, instances));
            }
            if now + LOOK >= deadline || processes.iter().any(|process| process.status == "errored") {
                return Err(self.crashing(&processes).await.into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends what stands in, where it does.
    pub(super) async fn without_stand_in(&self, deadline: Instant) -> Result<(), Stop> {
        if self.variables.is_empty() {
            return Ok(());
        }
        let stand_in = self.stand_in();
        let processes =
            self.pm2.named(&stand_in, left(deadline)).await.map_err(|failure| Stop::Unknown(failure.what))?;
        if !processes.is_empty() {
            tracing::debug!(found = words(&processes), "ending what stood in");
            self.pm2.tool.act(&["delete", &stand_in], left(deadline)).await?;
        }
        remove_file(&self.stand_in_file()).map_err(Failure::from)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns() {
        for (name, pattern, does) in [
            ("ENABLE_X", "ENABLE_*", true),
            ("ENABLE_", "ENABLE_*", true),
            ("MY_ENABLE_X", "ENABLE_*", false),
            ("MY_ENABLE_X", "*ENABLE*", true),
            ("ENABLE_X", "ENABLE_X", true),
            ("ENABLE_XY", "ENABLE_X", false),
            ("A_X_B_X", "A*X", true),
            ("A_X_B", "A*X", false),
        ] {
            assert_eq!(fits(name, pattern), does, "{name} {pattern}");
        }
    }
}
