//! The Compose program: found, asked what the files on disk say, and told to act.
//!
//! It owns what a Compose file means (merging, profiles, env files), so that is never guessed here. Always named: the project, the
//! Engine, and the files, so that nothing in this process's environment decides what is acted on; orphans are never removed.
//! Source: Docker manual, "docker compose", options and environment variables; Compose 1.29's `--help`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::Duration;

use ripcord_core::{Command, Failure, Host, HostError, Output};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::{Settings, programs};
use crate::BuildCx;
use crate::components::files::Stop;
use crate::docker::Endpoint;
use crate::hosts::{Local, said, within};

/// What is looked for, the better first.
const PROGRAMS: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
/// The oldest that reads what is written for it: the first with one schema for all versions of files.
const OLDEST: Version = Version(1, 27, 0);
const FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

impl Version {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('v');
        let numbers = text.split(['.', '-', '+']).map(str::parse::<u32>);
        let mut numbers = numbers.map_while(Result::ok);
        Some(Self(numbers.next()?, numbers.next()?, numbers.next().unwrap_or(0)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) argv: Vec<String>,
    pub(super) version: Version,
}

/// What several components of this process have together, by what makes it the same for them.
pub(super) struct Commons<K, V>(LazyLock<std::sync::Mutex<HashMap<K, Arc<V>>>>);

impl<K: Hash + Eq, V: Default> Commons<K, V> {
    pub(super) const fn new() -> Self {
        Self(LazyLock::new(std::sync::Mutex::default))
    }

    pub(super) fn of(&self, key: K) -> Arc<V> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default())
    }
}

/// The words that commands begin with, and their environment.
pub(super) type Common = (Vec<String>, BTreeMap<String, String>);

static FOUND: Commons<Common, OnceCell<Program>> = Commons::new();

/// Whose files a command is given.
pub(super) enum With<'a> {
    /// The user's.
    Theirs,
    /// The user's, and one that says what overrides them.
    TheirsAnd(&'a Path),
    /// One of ours alone, which no disk sees because it holds values of the environment; and an empty env file, so that the user's
    /// is not read.
    Ours { file: &'a [u8], empty: &'a Path },
}

/// Compose for one project.
#[derive(Debug)]
pub(super) struct Cli {
    pub(super) host: Local,
    pub(super) directory: PathBuf,
    pub(super) project: Option<String>,
    files: Vec<PathBuf>,
    pub(super) env_files: Vec<PathBuf>,
    profiles: Vec<String>,
    program: Option<Vec<String>>,
    environment: BTreeMap<String, String>,
    /// Where versions of programs are remembered.
    known: PathBuf,
}

impl Cli {
    pub(super) fn new(settings: &Settings, endpoint: &Endpoint, cx: &BuildCx) -> Self {
        let at = |path: &PathBuf| cx.base.join(path);
        let files: Vec<PathBuf> = settings.files.iter().map(at).collect();
        let directory = match (&settings.directory, files.first().and_then(|file| file.parent())) {
            (Some(directory), _) => at(directory),
            (None, Some(parent)) => parent.to_owned(),
            (None, None) => cx.base.clone(),
        };
        let environment = [
            ("DOCKER_HOST", endpoint.to_string().as_str()),
            ("COMPOSE_IGNORE_ORPHANS", "true"),
            ("COMPOSE_REMOVE_ORPHANS", "false"),
            ("COMPOSE_ANSI", "never"),
            ("COMPOSE_PROGRESS", "plain"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            host: Local::new(&cx.base, cx.redactor.clone()),
            directory: fs::canonicalize(&directory).unwrap_or(directory),
            project: settings.project.as_ref().map(ToString::to_string),
            files,
            env_files: settings.env_files.iter().map(at).collect(),
            profiles: settings.profiles.iter().map(ToString::to_string).collect(),
            program: settings.program.as_ref().map(|argv| argv.iter().map(ToString::to_string).collect()),
            environment: environment.into(),
            known: cx.base.join(".ripcord/compose-programs.json"),
        }
    }

    /// The project's name, as Compose derives it.
    pub(super) fn project(&self) -> Result<String, Failure> {
        if let Some(project) = &self.project {
            return Ok(project.clone());
        }
        let unclear = |why: String| Failure::never(why).advise("name the `project`, as `docker compose ls` shows it");
        let stated = std::env::var("COMPOSE_PROJECT_NAME").ok().filter(|name| !name.is_empty());
        let dotenv = fs::read_to_string(self.directory.join(".env")).unwrap_or_default();
        let dotenv = dotenv.lines().find_map(|line| line.trim().strip_prefix("COMPOSE_PROJECT_NAME=").map(unquoted));
        let named = self.files()?.iter().rev().find_map(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines().find_map(|line| line.strip_prefix("name:").map(unquoted))
        });
        match stated.or(dotenv).or(named) {
            Some(name) if name.contains('$') => Err(unclear(format!("the project's name `{name}` holds a variable"))),
            Some(name) => Ok(name),
            None => {
                let name =
                    self.directory.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
                let kept =
                    name.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'));
                let name: String = kept.collect::<String>().trim_start_matches(['-', '_']).to_owned();
                match name.is_empty() {
                    true => Err(unclear(format!("no name of a project follows from {}", self.directory.display()))),
                    false => Ok(name),
                }
            }
        }
    }

    /// The user's files: those of the settings, or what Compose would find.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        if !self.files.is_empty() {
            return Ok(self.files.clone());
        }
        let first = |names: [&str; 4]| names.iter().map(|name| self.directory.join(name)).find(|path| path.is_file());
        match first(FILES) {
            Some(file) => Ok([Some(file), first(OVERRIDES)].into_iter().flatten().collect()),
            None => {
                let what = format!("there is no Compose file in {}", self.directory.display());
                Err(Failure::never(what).advise("name the `files`, or the `directory` they are in"))
            }
        }
    }

    fn candidates(&self) -> Vec<Vec<String>> {
        match &self.program {
            Some(argv) => vec![argv.clone()],
            None => PROGRAMS.iter().map(|argv| argv.iter().map(|word| (*word).to_owned()).collect()).collect(),
        }
    }

    /// Finds the program, once for all that look for the same.
    pub(super) async fn program(&self, limit: Duration) -> Result<Program, Failure> {
        let looked_for = self.candidates().join(&"or".to_owned());
        let found = FOUND.of((looked_for, self.environment.clone()));
        found.get_or_try_init(|| self.probe(limit.min(Duration::from_secs(20)))).await.cloned()
    }

    async fn probe(&self, limit: Duration) -> Result<Program, Failure> {
        let candidates = self.candidates();
        let (mut older, mut reasons) = (None, vec![]);
        for argv in candidates {
            let file = programs::file_of(&argv, &self.environment);
            if let Some(version) = file.as_ref().and_then(|file| programs::version_of(&self.known, file)) {
                match version {
                    Version(2.., ..) => return Ok(Program { argv, version }),
                    _ => older = older.or(Some(Program { argv, version })),
                }
                continue;
            }
            let asked = [argv.clone(), vec!["version".to_owned(), "--short".to_owned()]].concat();
            let command = Command { argv: asked, environment: self.environment.clone(), ..Command::default() };
            let shown = argv.join(" ");
            match self.host.run(&command, limit).await {
                Ok(output) if output.succeeded() => match Version::read(&output.stdout) {
                    Some(version) if version >= OLDEST => {
                        if let Some(file) = file {
                            programs::remember(&self.known, file, version);
                        }
                        match version {
                            Version(2.., ..) => return Ok(Program { argv, version }),
                            _ => older = older.or(Some(Program { argv, version })),
                        }
                    }
                    _ => reasons.push(format!("`{shown}` is `{}`, which is too old", output.stdout.trim())),
                },
                Ok(output) => {
                    let first = output.tail().lines().next().unwrap_or_default().to_owned();
                    reasons.push(format!("`{shown}` fails: {first}"));
                }
                Err(error) => reasons.push(said(&error)),
            }
        }
        older.ok_or_else(|| {
            Failure::never(format!("there is no Compose here: {}", reasons.join("; ")))
                .advise("install Compose 2 (or 1.27 and newer), or name the `program`")
        })
    }

    /// The words of a command.
    pub(super) fn argv(
        &self,
        program: &Program,
        project: &str,
        with: &With<'_>,
        words: &[String],
    ) -> Result<Vec<String>, Failure> {
        let mut argv = program.argv.clone();
        let mut add = |name: &str, value: &Path| argv.extend([name.to_owned(), value.display().to_string()]);
        add("--project-name", Path::new(project));
        add("--project-directory", &self.directory);
        match with {
            With::Ours { empty, .. } => {
                add("--env-file", empty);
                // Standard input.
                add("--file", Path::new("-"));
            }
            With::Theirs | With::TheirsAnd(_) => {
                self.env_files.iter().for_each(|file| add("--env-file", file));
                self.files()?.iter().for_each(|file| add("--file", file));
                if let With::TheirsAnd(file) = with {
                    add("--file", file);
                }
                self.profiles.iter().for_each(|profile| add("--profile", Path::new(profile)));
            }
        }
        argv.extend_from_slice(words);
        Ok(argv)
    }

    /// Runs Compose and takes nothing but success.
    pub(super) async fn run(
        &self,
        project: &str,
        with: &With<'_>,
        words: &[String],
        limit: Duration,
    ) -> Result<Output, Stop> {
        let deadline = Instant::now() + limit;
        let program = self.program(limit).await?;
        let argv = self.argv(&program, project, with, words)?;
        let directory = Some(self.directory.clone());
        let input = match with {
            With::Ours { file, .. } => Some(file.to_vec()),
            With::Theirs | With::TheirsAnd(_) => None,
        };
        let command = Command { argv, directory, environment: self.environment.clone(), input, ..Command::default() };
        let left = within(deadline.saturating_duration_since(Instant::now()));
        match self.host.run(&command, left).await {
            Ok(output) if output.succeeded() => Ok(output),
            Ok(output) if output.status.is_some() => Err(failed(&program.argv, words, &output).into()),
            Ok(_) => Err(Stop::Unknown(format!("`{}` was ended by a signal", program.argv.join(" ")))),
            Err(error @ HostError::NotStarted { .. }) => {
                Err(Failure::never(said(&error)).advise("see that the directory and the program are there").into())
            }
            Err(error) => Err(Stop::Unknown(said(&error))),
        }
    }

    /// What is the same for all who would run these commands, whichever program is found.
    pub(super) fn common(&self, project: &str, with: &With<'_>) -> Result<Common, Failure> {
        let any = Program { argv: self.candidates().concat(), version: OLDEST };
        Ok((self.argv(&any, project, with, &[])?, self.environment.clone()))
    }
}

fn unquoted(text: &str) -> String {
    let text = text.split(" #").next().unwrap_or_default();
    text.trim().trim_matches(['"', '\'']).to_owned()
}

/// What Compose's failures mean to people.
fn failed(program: &[String], words: &[String], output: &Output) -> Failure {
    let tail = output.tail();
    let verb = words.first().map_or("", String::as_str);
    let all = format!("{}\n{}", output.stdout, output.stderr);
    let has = |texts: &[&str]| texts.iter().any(|text| all.contains(text));
    let advice = if has(&["port is already allocated", "address already in use"]) {
        "stop what has the port, then retry"
    } else if has(&["No such image", "no such image", "pull access denied", "registry"]) {
        "the image is not on this machine: load it or pull it by its digest, then retry"
    } else if has(&["no space left on device"]) {
        "free space under the Engine's directory (`docker system df`), then retry; images under `ripcord/keep` are needed"
    } else if has(&["Cannot connect to the Docker daemon", "Couldn't connect to Docker daemon"]) {
        "start the Engine, then retry"
    } else if verb == "config" {
        "put the Compose file right (`docker compose config` says where it is wrong)"
    } else {
        "see what it said, put that right, then retry"
    };
    let what = format!("`{} {verb}` ended with exit code {}: {tail}", program.join(" "), output.status.unwrap_or(-1));
    let output = [output.stdout.trim_end(), output.stderr.trim_end()].join("\n");
    Failure { output: Some(output.trim().to_owned()), ..Failure::never(what) }.advise(advice)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ripcord_core::Redactor;

    use super::*;

    fn cli(base: &Path, path: &str, program: Option<&[&str]>) -> Cli {
        Cli {
            host: Local::new(base, Redactor::default()),
            directory: base.to_owned(),
            project: None,
            files: vec![],
            env_files: vec![],
            profiles: vec![],
            program: program.map(|argv| argv.iter().map(|word| (*word).to_owned()).collect()),
            environment: [("PATH".to_owned(), path.to_owned())].into(),
            known: base.join("known/programs.json"),
        }
    }

    /// Programs that answer `version --short`, in a directory of their own.
    fn programs(base: &Path, scripts: &[(&str, &str)]) -> String {
        let bin = base.join("bin");
        fs::create_dir_all(&bin).unwrap();
        for (name, script) in scripts {
            fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        bin.display().to_string()
    }

    async fn found(scripts: &[(&str, &str)], program: Option<&[&str]>) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = programs(dir.path(), scripts);
        let cli = cli(dir.path(), &path, program);
        match cli.program(Duration::from_secs(20)).await {
            Ok(Program { argv, version: Version(a, b, c) }) => Ok(format!("{} {a}.{b}.{c}", argv.join(" "))),
            Err(failure) => Err(failure.what),
        }
    }

    #[tokio::test]
    async fn the_newer_compose_is_preferred() {
        let plugin = ("docker", "[ \"$1\" = compose ] && echo v2.40.1-desktop.1");
        let none = ("docker", "echo \"docker: 'compose' is not a docker command.\" >&2; exit 1");
        let (old, standalone) = (("docker-compose", "echo 1.29.2"), ("docker-compose", "echo 5.6.1"));
        assert_eq!(found(&[plugin, old], None).await, Ok("docker compose 2.40.1".into()));
        assert_eq!(found(&[none, standalone], None).await, Ok("docker-compose 5.6.1".into()));
        assert_eq!(found(&[none, old], None).await, Ok("docker-compose 1.29.2".into()));
        assert_eq!(found(&[old], None).await, Ok("docker-compose 1.29.2".into()));
        assert_eq!(found(&[plugin, old], Some(&["docker-compose"])).await, Ok("docker-compose 1.29.2".into()));
    }

    #[tokio::test]
    async fn where_there_is_none_each_that_was_tried_is_named() {
        let none = ("docker", "echo \"docker: 'compose' is not a docker command.\" >&2; exit 1");
        let why = found(&[none, ("docker-compose", "echo 1.25.0")], None).await.unwrap_err();
        assert!(
            why.contains("'compose' is not a docker command") && why.contains("`1.25.0`, which is too old"),
            "{why}"
        );
        let why = found(&[], None).await.unwrap_err();
        assert!(why.contains("`docker` could not be started") && why.contains("`docker-compose` could not"), "{why}");
    }

    #[tokio::test]
    async fn a_program_says_its_version_once_until_its_file_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let asked = dir.path().join("asked");
        let script = |version: &str| format!("echo >> {}; echo {version}", asked.display());
        let path = programs(dir.path(), &[("docker-compose", &script("1.29.2"))]);
        // As another process would: what this one has found is kept by what it was called with.
        let version = |environment: &str| {
            let mut cli = cli(dir.path(), &path, None);
            cli.environment.insert("OF".into(), environment.into());
            async move { cli.program(Duration::from_secs(20)).await.unwrap().version }
        };
        let times = || fs::read_to_string(&asked).unwrap().lines().count();
        assert_eq!(version("a").await, Version(1, 29, 2));
        assert_eq!((version("b").await, times()), (Version(1, 29, 2), 1), "it is known by its file");
        programs(dir.path(), &[("docker-compose", &script("5.6.1"))]);
        assert_eq!((version("c").await, times()), (Version(5, 6, 1), 2), "another file is another program");
        fs::write(dir.path().join("known/programs.json"), "nonsense").unwrap();
        assert_eq!((version("d").await, times()), (Version(5, 6, 1), 3));
    }

    #[test]
    fn versions_are_read_as_they_are_printed() {
        assert_eq!(Version::read("v2.22.0\n"), Some(Version(2, 22, 0)));
        assert_eq!(Version::read("2.26.1-4"), Some(Version(2, 26, 1)));
        assert_eq!(Version::read("1.29"), Some(Version(1, 29, 0)));
        assert_eq!(Version::read("docker-compose"), None);
    }

    #[test]
    fn the_project_is_named_as_compose_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("_My Shop.v2");
        fs::create_dir(&base).unwrap();
        let name = |cli: &Cli| cli.project().map_err(|failure| failure.what);
        let mut cli = cli(&base, "", None);
        assert!(name(&cli).unwrap_err().starts_with("there is no Compose file in "));
        fs::write(base.join("docker-compose.yml"), "services: {}\n").unwrap();
        assert_eq!(name(&cli), Ok("myshopv2".into()));
        fs::write(base.join("compose.yaml"), "name: \"shop\" # ours\nservices: {}\n").unwrap();
        assert_eq!(name(&cli), Ok("shop".into()));
        fs::write(base.join("compose.override.yml"), "name: other\n").unwrap();
        assert_eq!(name(&cli), Ok("other".into()));
        fs::write(base.join("compose.override.yml"), "name: ${STAGE}\n").unwrap();
        assert_eq!(name(&cli), Err("the project's name `${STAGE}` holds a variable".into()));
        fs::write(base.join(".env"), "COMPOSE_PROJECT_NAME='env'\n").unwrap();
        assert_eq!(name(&cli), Ok("env".into()));
        cli.project = Some("set".into());
        assert_eq!(name(&cli), Ok("set".into()));
    }

    #[test]
    fn commands_name_project_directory_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().display().to_string();
        fs::write(dir.path().join("compose.yaml"), "services: {}\n").unwrap();
        let mut cli = cli(dir.path(), "", None);
        cli.env_files = vec![dir.path().join("prod.env")];
        cli.profiles = vec!["web".into()];
        let program = Program { argv: vec!["docker".into(), "compose".into()], version: Version(2, 0, 0) };
        let shown = |with: &With<'_>| {
            let argv = cli.argv(&program, "shop", with, &["up".to_owned(), "api".to_owned()]).unwrap();
            argv.join(" ").replace(&base, "~")
        };
        let start = "docker compose --project-name shop --project-directory ~";
        let theirs = "--env-file ~/prod.env --file ~/compose.yaml";
        assert_eq!(shown(&With::Theirs), format!("{start} {theirs} --profile web up api"));
        assert_eq!(
            shown(&With::TheirsAnd(Path::new("/pin"))),
            format!("{start} {theirs} --file /pin --profile web up api")
        );
        let ours = With::Ours { file: b"{}", empty: Path::new("/none") };
        assert_eq!(shown(&ours), format!("{start} --env-file /none --file - up api"), "nothing of theirs is read");
    }
}
