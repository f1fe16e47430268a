//! The server's own programs: the oldest that is not older than the server, wherever packages put them.
//!
//! `pg_dump` refuses a server that is newer than itself, and what a newer one writes an older `pg_restore` cannot always read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord_core::{Command, Failure, Host as _};

use super::{Server, Way};
use crate::hosts::{Input, Local, Take, said};

/// Where packages of Debian, Red Hat and PostgreSQL itself put programs, a directory for each major.
const ROOTS: [(&str, &str); 2] = [("/usr/lib/postgresql", "bin"), ("/usr", "bin")];

/// A program found fit for a server.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) major: u32,
    host: Local,
    environment: BTreeMap<String, String>,
}

/// `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is of 15.
fn major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL)")?.1.trim_start();
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl Server {
    fn directories(&self) -> Vec<PathBuf> {
        if let Some(directory) = &self.settings.programs {
            return vec![self.base.join(directory)];
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut found: Vec<PathBuf> = std::env::split_paths(&path).filter(|path| path.is_absolute()).collect();
        for (root, below) in ROOTS {
            let Ok(list) = std::fs::read_dir(root) else { continue };
            let named = list.flatten().map(|entry| entry.path());
            let ours = |path: &PathBuf| root != "/usr" || path.to_string_lossy().contains("/pgsql-");
            found.extend(named.filter(ours).map(|path| path.join(below)));
        }
        found
    }

    /// The program `name` of major `least` or the next newer one there is.
    pub(crate) async fn program(&self, way: &Way, name: &str, least: u32) -> Result<Program, Failure> {
        let host = Local::new(&self.base, self.redactor.clone());
        let mut found: Vec<(u32, PathBuf)> = vec![];
        for directory in self.directories() {
            let path = directory.join(name);
            if !path.is_file() || found.iter().any(|(_, known)| *known == path) {
                continue;
            }
            let command =
                Command { argv: vec![path.display().to_string(), "--version".to_owned()], ..Command::default() };
            let ran = host.run(&command, Duration::from_secs(10)).await;
            if let Some(major) = ran.ok().filter(ripcord_core::Output::succeeded).and_then(|out| major(&out.stdout)) {
                found.push((major, path));
            }
        }
        found.sort();
        match found.iter().find(|(major, _)| *major >= least) {
            Some((major, path)) => {
                Ok(Program { path: path.clone(), major: *major, host, environment: way.environment.clone() })
            }
            None => {
                let there: Vec<_> = found.iter().map(|(_, path)| path.display().to_string()).collect();
                let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
                let what = format!("there is no `{name}` of PostgreSQL {least} or newer here (found: {there})");
                Err(Failure::never(what)
                    .advise("install the client package of that version, or say where it is with `programs`"))
            }
        }
    }
}

/// How a program ended.
pub(crate) enum Ended {
    Well { complaints: String },
    Badly(Failure),
}

impl Program {
    /// Runs it; what it prints is passed on or kept as `take` says. Whether what it did can be undone is for the caller to know.
    pub(crate) async fn run(&self, arguments: &[String], limit: Duration, take: Take) -> Ended {
        let mut argv = vec![self.path.display().to_string()];
        argv.extend_from_slice(arguments);
        let command = Command { argv, environment: self.environment.clone(), ..Command::default() };
        let name = self.path.file_name().unwrap_or_default().display();
        match self.host.run_with(&command, limit, Input::None, take).await {
            Ok(output) if output.succeeded() => Ended::Well { complaints: output.stderr },
            Ok(output) => {
                let how = output
                    .status
                    .map_or("was ended by a signal".to_owned(), |code| format!("ended with exit code {code}"));
                let failure = Failure::never(format!("`{name}` {how}: {}", output.tail()));
                Ended::Badly(Failure { output: Some(output.stderr), ..failure })
            }
            Err(error) => Ended::Badly(Failure::later(said(&error))),
        }
    }

    /// Runs it and returns what it printed.
    pub(crate) async fn ask(&self, arguments: &[String], limit: Duration) -> Result<String, Failure> {
        let mut argv = vec![self.path.display().to_string()];
        argv.extend_from_slice(arguments);
        let command = Command { argv, environment: self.environment.clone(), ..Command::default() };
        let name = self.path.file_name().unwrap_or_default().display();
        match self.host.run(&command, limit).await {
            Ok(output) if output.succeeded() => Ok(output.stdout),
            Ok(output) => Err(Failure::never(format!("`{name}` refuses it: {}", output.tail()))),
            Err(error) => Err(Failure::later(said(&error))),
        }
    }
}

/// The path of a file as an argument.
pub(crate) fn argument(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_packages_print() {
        assert_eq!(major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("pg_restore (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("pg_dump 15"), None);
    }
}
