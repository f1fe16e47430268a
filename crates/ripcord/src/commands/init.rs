//! A first configuration, from what lies in the directory. Nothing in it is guessed that `ripcord check` would not accept.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use ripcord_core::{BadName, Name};
use serde::Serialize;

use crate::args::Common;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::{Screen, View, paint};
use crate::site::FILE;
use crate::view::table::{indent, table};

/// What was written.
#[derive(Serialize)]
struct Written {
    file: String,
    application: Name,
    components: Vec<Found>,
}

/// A component that was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Found {
    name: &'static str,
    kind: &'static str,
    path: String,
}

impl View for Written {
    fn text(&self) -> String {
        let row = |found: &Found| vec![found.name.to_owned(), found.kind.to_owned(), found.path.clone()];
        let found = indent(&table(&self.components.iter().map(row).collect::<Vec<_>>()), 2);
        format!("{} {} for `{}`, with\n{found}", paint(crate::screen::GOOD, "wrote"), self.file, self.application)
    }
}

pub fn init(common: &Common, screen: &Arc<Screen>, name: Option<String>) -> Result<Exit, Problem> {
    let file = common.file.clone().unwrap_or_else(|| FILE.into());
    let directory = match file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => parent.to_owned(),
        None => ".".into(),
    };
    let directory = directory.canonicalize().map_err(|error| Problem::io("find", &directory, &error))?;
    let application = match name {
        Some(name) => Name::new(name)?,
        None => named_after(&directory)?,
    };
    let components = found(&directory);
    let text = text(&application, &components);
    let written = OpenOptions::new().write(true).create_new(true).open(&file);
    let mut out = written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Problem::new(Exit::Refused, format!("`{}` is there already", file.display()))
                .help("`ripcord check` looks at it")
        }
        _ => Problem::io("write", &file, &error),
    })?;
    out.write_all(text.as_bytes()).map_err(|error| Problem::io("write", &file, &error))?;
    screen.show(&Written { file: file.display().to_string(), application, components })?;
    screen.hint("say in it what is measured and when that is bad, then `ripcord check --live`");
    Ok(Exit::Done)
}

/// The directory's name made into one of ours.
fn named_after(directory: &Path) -> Result<Name, BadName> {
    let name = directory.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).take(63).collect();
    let name = name.trim_start_matches(['-', '_', '.']);
    Name::new(if name.is_empty() { "app" } else { name })
}

/// What can be told apart by its name. The code comes first: the rest is beside it or in it.
fn found(directory: &Path) -> Vec<Found> {
    let is = |path: &str| directory.join(path).exists();
    let component = |name, kind, path: &str| Found { name, kind, path: path.to_owned() };
    let mut found = vec![];
    if is("current") && is("releases") {
        found.push(component("code", "directory", "current"));
    } else if let Some(path) = checkout(directory) {
        found.push(component("code", "git", &path));
    } else {
        // Something must go back by release; where it is, the person knows.
        found.push(component("code", "directory", "app"));
    }
    let first = |paths: &[&str]| paths.iter().find(|path| is(path)).map(|path| (*path).to_owned());
    if let Some(path) = first(&[".env", ".env.production", "shared/.env"]) {
        found.push(component("settings", "env-file", &path));
    }
    if let Some(path) = first(&["flags.json", "config/flags.json", "config/features.json"]) {
        found.push(component("flags", "json-file", &path));
    }
    if let Some(path) = database(directory) {
        found.push(component("data", "sqlite", &path));
    }
    found
}

/// The first checkout in a directory of its own. The one that this directory itself may be is none: it is exchanged whole, and
/// would take the configuration and the record with it.
fn checkout(directory: &Path) -> Option<String> {
    let entries = std::fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join(".git").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names.into_iter().next()
}

/// The first file here that begins as an SQLite database does (sqlite.org/fileformat.html, 1.3.1).
fn database(directory: &Path) -> Option<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| [".db", ".sqlite", ".sqlite3"].iter().any(|end| name.ends_with(end)))
        .collect();
    names.sort();
    names.into_iter().find(|name| {
        let mut start = [0; 16];
        let read =
            std::fs::File::open(directory.join(name)).and_then(|mut f| std::io::Read::read_exact(&mut f, &mut start));
        read.is_ok() && start == *b"SQLite format 3\0"
    })
}

fn text(application: &Name, components: &[Found]) -> String {
    let mut text = format!(
        "# What Ripcord takes back, and when. `ripcord reference` explains every key, `ripcord check` finds mistakes.\n\
         application: {application}\n\n\
         # Every part that has a revision or holds data.\ncomponents:\n"
    );
    for Found { name, kind, path } in components {
        let more = match (*kind, path.as_str()) {
            ("directory", "current") => ", releases: releases",
            _ => "",
        };
        // Quoted, because a file may be called anything.
        let path = serde_json::Value::from(path.as_str());
        let _ = writeln!(text, "  {name}:\n    {kind}: {{ path: {path}{more} }}");
    }
    text.push_str(
        "\n# What is measured, and when that is bad for long enough to act on it.\n\
         # signals:\n\
         #   health:\n\
         #     http: { url: http://127.0.0.1:8080/health }\n\
         #     every: 5s\n\
         # triggers:\n\
         #   down: { signal: health, for: 30s, severity: p0 }\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use ripcord_adapters::Adapters;

    use super::*;

    /// Writes a configuration for a directory with these files, and reads it back.
    fn check(files: &[(&str, &[u8])]) -> String {
        let directory = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let components = found(directory.path());
        let text = text(&Name::new("shop").unwrap(), &components);
        let loaded = ripcord_config::load_bytes::<Adapters>("ripcord.yaml", text.as_bytes(), directory.path(), None);
        if let Err(report) = loaded {
            panic!("{report}\n{text}");
        }
        components.iter().map(|f| format!("{}={}:{}", f.name, f.kind, f.path)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_lies_there_becomes_components_without_mistakes() {
        assert_eq!(check(&[]), "code=directory:app");
        assert_eq!(check(&[("site/.git/HEAD", b""), (".env", b"")]), "code=git:site settings=env-file:.env");
        // A checkout that holds the configuration itself cannot be exchanged under it.
        assert_eq!(check(&[(".git/HEAD", b"")]), "code=directory:app");
        let flags: (&str, &[u8]) = ("config/flags.json", b"{}");
        assert_eq!(
            check(&[("releases/1/x", b""), ("current/x", b""), flags]),
            "code=directory:current flags=json-file:config/flags.json"
        );
    }

    #[test]
    fn only_a_database_is_taken_for_one() {
        assert_eq!(
            check(&[("a.db", b"SQLite format 3"), ("b.db", b"SQLite format 3\0 and more")]),
            "code=directory:app data=sqlite:b.db"
        );
    }

    #[test]
    fn a_name_is_made_from_any_directory() {
        let named = |path: &str| named_after(Path::new(path)).unwrap().to_string();
        assert_eq!(named("/srv/My Shop"), "my-shop");
        assert_eq!(named("/srv/_x"), "x");
        assert_eq!(named("/"), "app");
    }
}
