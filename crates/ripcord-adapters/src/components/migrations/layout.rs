//! Reads a directory of migrations: SQL by itself, Python by its syntax alone, through the project's interpreter.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ripcord_core::Failure;
use serde::Deserialize;

use super::classes::Body;
use super::graph::{Graph, Migration};
use super::record::{Tool, by_number, short};
use super::sql::{Does, Effect, effects};
use crate::components::files::{FileError, Trying};
use crate::components::tool::Tool as Program;

/// Run by the interpreter; it imports nothing of the project.
const SCRIPT: &str = include_str!("read.py");

pub(super) async fn graph(tool: Tool, python: &Program, directory: &Path, limit: Duration) -> Result<Graph, Failure> {
    match tool.is_files() {
        true => files(tool, directory),
        false => python_files(tool, python, directory, limit).await,
    }
}

/// The ways of one version, by the file each is in.
#[derive(Default)]
struct Ways {
    name: String,
    up: Option<String>,
    down: Option<String>,
}

fn files(tool: Tool, directory: &Path) -> Result<Graph, Failure> {
    let mut found: BTreeMap<String, Ways> = BTreeMap::new();
    let list =
        fs::read_dir(directory).and_then(|list| list.collect::<Result<Vec<_>, _>>()).trying("list", directory)?;
    let mut names: Vec<String> = list.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    for file in names {
        let Some((version, name, up)) = named(&file) else { continue };
        let ways = found.entry(version.clone()).or_default();
        let way = if up { &mut ways.up } else { &mut ways.down };
        if let Some(other) = way {
            let what = format!("`{other}` and `{file}` are both version {version}");
            return Err(Failure::never(what).advise("give each migration a version of its own"));
        }
        *way = Some(file.clone());
        ways.name = name;
    }
    let mut versions: Vec<String> = found.keys().cloned().collect();
    versions.sort_by(|a, b| by_number(a, b));
    let mut graph = Graph::default();
    let mut previous: Option<String> = None;
    for version in versions {
        let Some(ways) = found.remove(&version) else { continue };
        let body = |file: &Option<String>| -> Result<Body, FileError> {
            let Some(file) = file else { return Ok(Body::Missing) };
            let path = directory.join(file);
            Ok(Body::of(effects(&fs::read_to_string(&path).trying("read", &path)?)))
        };
        let migration = Migration {
            id: version.clone(),
            name: ways.name.clone(),
            // golang-migrate has one version: everything before it is applied. The others record each by itself.
            along: previous.iter().filter(|_| tool == Tool::GolangMigrate).cloned().collect(),
            needs: previous.iter().filter(|_| tool != Tool::GolangMigrate).cloned().collect(),
            up: body(&ways.up)?,
            down: body(&ways.down)?,
            file: ways.up,
            down_file: ways.down,
        };
        previous = Some(version.clone());
        graph.0.insert(version, migration);
    }
    Ok(graph)
}

/// Version, name and direction of a file; none where it is no migration.
fn named(file: &str) -> Option<(String, String, bool)> {
    let stem = file.strip_suffix(".sql")?;
    // `V1.2__add_notes.sql`, and `U1.2__add_notes.sql` to undo it.
    if let Some((first, rest)) = stem.split_at_checked(1)
        && matches!(first, "V" | "U")
        && let Some((version, name)) = rest.split_once("__")
        && version.starts_with(|c: char| c.is_ascii_digit())
    {
        return Some((short(version), name.to_owned(), first == "V"));
    }
    let (stem, up) = match (stem.strip_suffix(".up"), stem.strip_suffix(".down")) {
        (Some(stem), _) => (stem, true),
        (_, Some(stem)) => (stem, false),
        _ => (stem, true),
    };
    let (version, name) = stem.split_once('_')?;
    let number = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    number.then(|| (short(version), name.to_owned(), up))
}

/// What the script prints of one migration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    id: String,
    name: String,
    file: String,
    along: Vec<String>,
    needs: Vec<String>,
    up: SaidBody,
    down: SaidBody,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum SaidBody {
    Missing(#[expect(dead_code, reason = "always true")] bool),
    Refuses(String),
    Noop(String),
    Does(Vec<(String, String)>),
}

async fn python_files(tool: Tool, python: &Program, directory: &Path, limit: Duration) -> Result<Graph, Failure> {
    let at = directory.display().to_string();
    // Isolated: neither the directory it runs in nor the environment decide what is imported.
    let printed = python.whole(&["-I", "-c", SCRIPT, tool.name(), &at], limit).await.map_err(|failure| {
        let what = format!("the migrations in {at} could not be read: {}", failure.what);
        Failure { what, ..failure }.advise("see that `python` names an interpreter of Python 3.9 or newer")
    })?;
    let said: Vec<Said> = serde_json::from_slice(&printed).map_err(|error| {
        Failure::never(format!("what was read of the migrations in {at} is not understood: {error}"))
    })?;
    let mut graph = Graph::default();
    for one in said {
        let (up, down) = (body(one.up), body(one.down));
        let migration = Migration {
            id: one.id.clone(),
            name: one.name,
            along: one.along,
            needs: one.needs,
            file: Some(one.file),
            down_file: None,
            up,
            down,
        };
        if let Some(other) = graph.0.insert(one.id.clone(), migration) {
            let other = other.file.unwrap_or_default();
            return Err(Failure::never(format!("two files are migration `{}`, one of them {other}", one.id)));
        }
    }
    Ok(graph)
}

fn body(said: SaidBody) -> Body {
    match said {
        SaidBody::Missing(_) => Body::Missing,
        SaidBody::Refuses(why) => Body::Refuses(why),
        SaidBody::Noop(what) => Body::Noop(what),
        SaidBody::Does(list) => Body::of(list.into_iter().flat_map(|(does, what)| effect(&does, what)).collect()),
    }
}

fn effect(does: &str, what: String) -> Vec<Effect> {
    let does = match does {
        "sql" => return effects(&what),
        "adds" => Does::Adds,
        "loosens" => Does::Loosens,
        "tightens" => Does::Tightens,
        "retypes" => Does::Retypes,
        "renames" => Does::Renames,
        "destroys" => Does::Destroys,
        _ => Does::Unknown,
    };
    vec![Effect::new(does, what)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_names() {
        let check = |file: &str, expected: Option<(&str, &str, bool)>| {
            let expected = expected.map(|(version, name, up)| (version.to_owned(), name.to_owned(), up));
            assert_eq!(named(file), expected, "{file}");
        };
        check("0003_add_notes.up.sql", Some(("3", "add_notes", true)));
        check("0003_add_notes.down.sql", Some(("3", "add_notes", false)));
        check("20240101120000_init.sql", Some(("20240101120000", "init", true)));
        check("V1.2__add.sql", Some(("1.2", "add", true)));
        check("U1.2__add.sql", Some(("1.2", "add", false)));
        check("0000_base.sql", Some(("0", "base", true)));
        check("README.md", None);
        check("views.sql", None);
        check("_x.sql", None);
        check("Version__x.sql", None);
    }

    #[test]
    fn rf22_a_missing_or_empty_way_down_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("0001_init.up.sql", "CREATE TABLE a (x int);");
        write("0001_init.down.sql", "DROP TABLE a;");
        write("0002_b.up.sql", "ALTER TABLE a ADD b int;");
        write("0010_c.up.sql", "ALTER TABLE a ADD c int;");
        write("0010_c.down.sql", "-- later\n");
        let graph = files(Tool::Sqlx, dir.path()).unwrap();
        assert_eq!(graph.0["2"].down, Body::Missing);
        assert_eq!(graph.0["10"].down, Body::Empty);
        assert_eq!(graph.0["10"].needs, ["2"]);
        write("2_other.up.sql", "");
        assert!(files(Tool::Sqlx, dir.path()).unwrap_err().what.contains("both version 2"));
    }
}
