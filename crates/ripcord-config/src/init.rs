//! A first `ripcord.yaml` from what is found in a directory: what is certain stands in it, the rest is said in comments.
//!
//! Only kinds that exist here are used, and each part is read before it is written: what would not load is left as a comment.
//! Files are recognised by name (databases by their first bytes); nothing is run and no secret is read.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::Path;

use crate::{KindDoc, Kinds, load_bytes};

/// A file to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub text: String,
    /// What it was written from, in the order of the file.
    pub found: Vec<Found>,
}

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path below the directory.
    pub path: String,
    /// What it is, in a few words.
    pub what: &'static str,
    /// The component written for it; none where there is only a hint.
    pub component: Option<String>,
}

/// Writes a file for what is in `directory`.
/// # Errors
/// Where the directory cannot be listed.
pub fn init<K: Kinds>(directory: &Path) -> io::Result<Draft> {
    let files = listed(directory)?;
    let mut plan = Plan { parts: vec![], hints: vec![], found: vec![] };
    code::<K>(&files, &mut plan);
    settings::<K>(&files, &mut plan);
    flags::<K>(&files, &mut plan);
    databases::<K>(directory, &files, &mut plan);
    hints(&files, &mut plan);
    if plan.parts.is_empty() {
        plan.parts.extend(something::<K>());
    }
    let text = written::<K>(&name(directory, &files), &plan);
    Ok(Draft { text, found: plan.found })
}

struct Part {
    name: String,
    kind: &'static str,
    settings: String,
    why: String,
    flowing: bool,
}

struct Plan {
    parts: Vec<Part>,
    hints: Vec<String>,
    found: Vec<Found>,
}

impl Plan {
    /// Adds a component where its kind exists here and takes these settings; says so in a comment where not.
    fn add<K: Kinds>(
        &mut self,
        name: &str,
        kind: &'static str,
        path: &str,
        what: &'static str,
        why: &str,
        flowing: bool,
    ) {
        let taken = |name: &str| self.parts.iter().any(|part| part.name == name);
        let name =
            (1..).map(|n| if n == 1 { name.to_owned() } else { format!("{name}-{n}") }).find(|name| !taken(name));
        let name = name.unwrap_or_default();
        let settings = format!("{{ path: {} }}", quoted(path));
        let works = loads::<K>(&format!("components: {{ {name}: {{ {kind}: {settings} }}, other: {} }}", any::<K>()));
        self.found.push(Found { path: path.into(), what, component: works.then(|| name.clone()) });
        match works {
            true => self.parts.push(Part { name, kind, settings, why: why.into(), flowing }),
            false => self
                .hints
                .push(format!("{path} is {what}, which needs a kind of component that is not here (`{kind}`).")),
        }
    }

    fn hint(&mut self, path: &str, what: &'static str, hint: &str) {
        self.found.push(Found { path: path.into(), what, component: None });
        self.hints.push(format!("{path}: {hint}"));
    }
}

/// Files beyond this are not looked at: a directory of thousands is not an application's root.
const MOST: usize = 2_000;

/// The names in the directory, and in `data/`, `db/` and `config/` below it, sorted.
fn listed(directory: &Path) -> io::Result<Vec<String>> {
    let mut files = vec![];
    for below in ["", "config", "data", "db"] {
        let entries = match std::fs::read_dir(directory.join(below)) {
            Ok(entries) => entries,
            Err(error) if below.is_empty() => return Err(error),
            Err(_) => continue,
        };
        for entry in entries.take(MOST).flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            // A name that would be taken for a variable cannot be written.
            if !name.contains("${") {
                files.push(if below.is_empty() { name } else { format!("{below}/{name}") });
            }
        }
    }
    files.sort();
    Ok(files)
}

fn code<K: Kinds>(files: &[String], plan: &mut Plan) {
    if files.iter().any(|file| file == ".git") {
        plan.add::<K>("code", "git", ".", "a git work tree", "The code, taken back to the commit of a release.", false);
    }
}

fn settings<K: Kinds>(files: &[String], plan: &mut Plan) {
    let sample = |name: &str| ["example", "sample", "template", "dist", "test"].iter().any(|word| name.contains(word));
    let is = |file: &&String| {
        let name = file.rsplit('/').next().unwrap_or(file);
        (name == ".env" || name.starts_with(".env.")) && !sample(name)
    };
    for file in files.iter().filter(is) {
        let why = "Settings: put back whole, or key by key. Values never leave the vault.";
        plan.add::<K>("settings", "env-file", file, "a file of settings", why, false);
    }
}

fn flags<K: Kinds>(files: &[String], plan: &mut Plan) {
    let names = ["flags.json", "features.json", "feature-flags.json", "feature_flags.json", "toggles.json"];
    for file in files.iter().filter(|file| names.iter().any(|name| file.rsplit('/').next() == Some(name))) {
        plan.add::<K>("flags", "json-file", file, "a file of feature flags", "Feature flags.", false);
    }
}

fn databases<K: Kinds>(directory: &Path, files: &[String], plan: &mut Plan) {
    let endings = [".db", ".sqlite", ".sqlite3"];
    for file in files.iter().filter(|file| endings.iter().any(|ending| file.ends_with(ending))) {
        if !is_sqlite(&directory.join(file)) {
            continue;
        }
        let stem = file.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(stem, _)| stem);
        let name = slug(stem).unwrap_or_else(|| "data".into());
        let why = "Data: left alone by a rollback, unless a level of a strategy names it.";
        plan.add::<K>(&name, "sqlite", file, "a SQLite database", why, true);
    }
}

fn is_sqlite(path: &Path) -> bool {
    let mut start = [0; 16];
    // Only a plain file is opened: reading from a pipe would wait for ever.
    let plain = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    plain
        && std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && &start == b"SQLite format 3\0"
}

fn hints(files: &[String], plan: &mut Plan) {
    let hints: &[(&[&str], &str, &str)] = &[
        (
            &["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"],
            "a Compose file",
            "Ripcord does not read it yet. Commands can stop and start its services (`docker compose stop web`).",
        ),
        (
            &["package.json"],
            "a Node package",
            "what runs it can be a component of its own, by the commands that start and stop it.",
        ),
        (
            &["pyproject.toml", "requirements.txt"],
            "a Python project",
            "what runs it can be a component of its own, by the commands that start and stop it.",
        ),
        (
            &["alembic.ini"],
            "Alembic migrations",
            "Ripcord does not run them yet. A release that migrates is taken back safely only if old code runs on the new schema.",
        ),
    ];
    for (names, what, hint) in hints {
        if let Some(file) = files.iter().find(|file| names.contains(&file.as_str())) {
            plan.hint(file, what, hint);
        }
    }
}

/// A component to begin with where nothing was found: the first example that loads.
fn something<K: Kinds>() -> Option<Part> {
    let preferred = |kind: &&KindDoc| kind.name == "directory";
    let kinds = K::component_kinds();
    let ordered = kinds.iter().filter(preferred).chain(kinds.iter().filter(|kind| !preferred(kind)));
    ordered
        .map(|kind| Part {
            name: "app".into(),
            kind: kind.name,
            settings: inline(kind.example),
            why: "Nothing was recognised here: this is an example, to be replaced.".into(),
            flowing: false,
        })
        .find(|part| loads::<K>(&format!("components: {{ {}: {{ {}: {} }} }}", part.name, part.kind, part.settings)))
}

/// A component of any kind, so that another one can be tried beside it.
fn any<K: Kinds>() -> String {
    something::<K>().map_or("{}".into(), |part| format!("{{ {}: {} }}", part.kind, part.settings))
}

/// An example as one line. Examples are YAML, of which JSON is a part.
fn inline(example: &str) -> String {
    crate::tree::parse(example.as_bytes()).map_or_else(|_| "{}".into(), |node| node.canonical().to_string())
}

fn loads<K: Kinds>(rest: &str) -> bool {
    load_bytes::<K>("", format!("application: name\n{rest}\n").as_bytes(), Path::new("."), None).is_ok()
}

/// The application's name: of its package, else of its directory.
fn name(directory: &Path, files: &[String]) -> String {
    let has = |name: &str| files.iter().any(|file| file == name);
    let read = |name: &str| {
        let mut text = String::new();
        let file = std::fs::File::open(directory.join(name)).ok()?;
        file.take(crate::tree::LARGEST as u64).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let package = || {
        let text = has("package.json").then(|| read("package.json")).flatten()?;
        let package: serde_json::Value = serde_json::from_str(&text).ok()?;
        // `@scope/name` is named `name`.
        slug(package["name"].as_str()?.rsplit('/').next()?)
    };
    let project = || {
        let text = has("pyproject.toml").then(|| read("pyproject.toml")).flatten()?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("name")?.trim().strip_prefix('='))?;
        slug(line.trim().trim_matches(['"', '\'']))
    };
    let own = || slug(&std::fs::canonicalize(directory).ok()?.file_name()?.to_string_lossy());
    package().or_else(project).or_else(own).unwrap_or_else(|| "app".into())
}

/// The nearest name to a text, if any of it can be kept.
fn slug(text: &str) -> Option<String> {
    let kept: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .collect();
    let slug: String = kept.trim_matches(['-', '_', '.']).chars().take(40).collect();
    ripcord_core::Name::new(slug).ok().map(String::from)
}

/// A text as YAML: bare where that is certainly the same text, else in quotes.
fn quoted(text: &str) -> String {
    let bare = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b));
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'.' || b == b'/');
    // `.5` and `.inf` are numbers; a word may be a truth.
    let word = ["true", "false", "null"].contains(&text.to_lowercase().as_str()) || text.parse::<f64>().is_ok();
    let special = [".inf", ".nan"].contains(&text.to_lowercase().as_str());
    match bare && first && !word && !special {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

fn written<K: Kinds>(application: &str, plan: &Plan) -> String {
    let mut text = format!(
        "# What Ripcord takes back, and when. `ripcord check` says what is wrong with this file, `ripcord schema` prints the\n\
         # schema that editors complete it from.\n\
         # yaml-language-server: $schema=ripcord.schema.json\n\n\
         application: {}\n\n\
         # Every part that has a revision or holds data. `needs:` names what must be in place before it starts.\n\
         components:\n",
        quoted(application)
    );
    // Writing to a `String` cannot fail.
    for part in &plan.parts {
        let _ = write!(text, "  # {}\n  {}: {{ {}: {} }}\n", part.why, part.name, part.kind, part.settings);
    }
    for hint in &plan.hints {
        let _ = writeln!(text, "  # {hint}");
    }
    text += &strategies(plan);
    text += &suggestions::<K>();
    text
}

/// Where there is data, a level that takes it back too: never by itself.
fn strategies(plan: &Plan) -> String {
    let all: Vec<&str> = plan.parts.iter().map(|part| part.name.as_str()).collect();
    let versioned = plan.parts.iter().any(|part| !part.flowing);
    if plan.parts.iter().all(|part| !part.flowing) {
        return String::new();
    }
    let mut text = String::from(
        "\n# How far a rollback goes: the lowest level first, the next only when a person says so.\nstrategies:\n  standard:\n",
    );
    if versioned {
        text += "    - { level: 2, name: release, restore: versioned }\n";
    }
    let _ = writeln!(text, "    # Data written since the capture is given up: asked for, and typed, every time.");
    let _ = writeln!(text, "    - {{ level: 3, name: everything, restore: [{}] }}", all.join(", "));
    text
}

/// What to add next, as comments.
fn suggestions<K: Kinds>() -> String {
    let mut text = String::new();
    let signal = ["scrape", "http"].iter().find_map(|name| K::signal_kinds().iter().find(|kind| kind.name == *name));
    if let Some(kind) = signal.or(K::signal_kinds().first()) {
        let indented: String = kind.example.trim().lines().map(|line| format!("#       {line}\n")).collect();
        let _ = write!(
            text,
            "\n# What is measured, and when it has been bad for long enough.\n\
             # signals:\n#   errors:\n#     {}:\n{indented}#     every: 10s\n\
             # triggers:\n#   error-rate: {{ signal: errors, above: 5%, for: 2m, at-least: 50 requests }}\n",
            kind.name
        );
    }
    if K::channel_kinds().iter().any(|kind| kind.name == "terminal")
        && loads::<K>(&format!("components: {{ a: {} }}\nchannels: {{ here: terminal }}", any::<K>()))
    {
        text += "\n# Who is told.\nchannels:\n  here: terminal\nnotify:\n  - { to: [here] }\n";
    }
    text
}
