//! Migrations and what each builds on: which are applied, and which lie between two states.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::classes::{Body, Judged, judge};
use super::record::Tool;
use super::sql::Does;

/// One migration, as its files say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Migration {
    pub(super) id: String,
    /// For people.
    pub(super) name: String,
    /// What it follows, in its own line of migrations.
    pub(super) along: Vec<String>,
    /// What must be there before it besides.
    pub(super) needs: Vec<String>,
    /// Where its ways are written, below the directory of migrations.
    pub(super) file: Option<String>,
    pub(super) down_file: Option<String>,
    pub(super) up: Body,
    pub(super) down: Body,
}

impl Migration {
    pub(super) fn judged(&self) -> Judged {
        judge(&self.up, &self.down)
    }

    /// Whether one of its ways may take values along, or cannot be read.
    pub(super) fn may_destroy(&self, up: bool) -> bool {
        let body = if up { &self.up } else { &self.down };
        matches!(body, Body::Does(effects) if effects.iter().any(|e| matches!(e.does, Does::Destroys | Does::Retypes | Does::Unknown)))
    }

    fn before(&self) -> impl Iterator<Item = &String> {
        self.along.iter().chain(&self.needs)
    }
}

/// All migrations that a directory knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Graph(pub(super) BTreeMap<String, Migration>);

/// What lies between two states: taken back first, the newest first; then applied, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Between {
    pub(super) down: Vec<String>,
    pub(super) up: Vec<String>,
}

impl Graph {
    /// Everything that is applied where the database's record says `marks`.
    /// # Errors
    /// In words, where the files do not know a mark.
    pub(super) fn applied(&self, tool: Tool, marks: &BTreeSet<String>) -> Result<BTreeSet<String>, String> {
        if matches!(tool, Tool::Django | Tool::Sqlx | Tool::Sql) {
            return Ok(marks.clone());
        }
        let mut applied = BTreeSet::new();
        let mut open: Vec<&String> = marks.iter().collect();
        while let Some(id) = open.pop() {
            let Some(migration) = self.0.get(id) else { return Err(format!("they do not know `{id}`")) };
            if applied.insert(id.clone()) {
                open.extend(migration.before());
            }
        }
        Ok(applied)
    }

    /// What the database's record says where `applied` is applied.
    pub(super) fn marks(&self, tool: Tool, applied: &BTreeSet<String>) -> BTreeSet<String> {
        if matches!(tool, Tool::Django | Tool::Sqlx | Tool::Sql) {
            return applied.clone();
        }
        let followed: BTreeSet<&String> =
            applied.iter().filter_map(|id| self.0.get(id)).flat_map(|migration| &migration.along).collect();
        applied.iter().filter(|id| !followed.contains(id)).cloned().collect()
    }

    /// How far from the beginning: what builds on another comes after it.
    fn depth(&self, id: &str, known: &mut BTreeMap<String, usize>, trail: usize) -> usize {
        if let Some(depth) = known.get(id) {
            return *depth;
        }
        // No chain is longer than all migrations together: a circle ends here.
        let deepest = match self.0.get(id) {
            Some(migration) if trail <= self.0.len() => {
                migration.before().map(|before| self.depth(before, known, trail + 1) + 1).max().unwrap_or(0)
            }
            _ => 0,
        };
        known.insert(id.to_owned(), deepest);
        deepest
    }

    /// The oldest first.
    pub(super) fn in_order(&self, ids: impl Iterator<Item = String>) -> Vec<String> {
        let mut known = BTreeMap::new();
        let mut ids: Vec<(usize, String)> = ids.map(|id| (self.depth(&id, &mut known, 0), id)).collect();
        ids.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| super::record::by_number(&a.1, &b.1)));
        ids.into_iter().map(|(_, id)| id).collect()
    }
}

/// What lies between. The way down is told by the files of what is there, the way up by those of what is gone to.
/// # Errors
/// In words, where the files do not know the way.
pub(super) fn between(
    tool: Tool,
    (here, present): (&Graph, &BTreeSet<String>),
    (there, target): (&Graph, &BTreeSet<String>),
) -> Result<Between, String> {
    let applied = here.applied(tool, present).map_err(|why| format!("the migration files of what is there: {why}"))?;
    // Where the target is behind, the files of what is there know it too; its own are asked only where they do not.
    let wanted = match here.applied(tool, target) {
        Ok(wanted) => wanted,
        Err(_) => there.applied(tool, target).map_err(|why| format!("the migration files of the target: {why}"))?,
    };
    let known = |graph: &Graph, id: &String, whose: &str| match graph.0.contains_key(id) {
        true => Ok(()),
        false => Err(format!("the migration files of {whose} do not know `{id}`")),
    };
    let mut down = here.in_order(applied.difference(&wanted).cloned());
    down.reverse();
    down.iter().try_for_each(|id| known(here, id, "what is there"))?;
    let up = there.in_order(wanted.difference(&applied).cloned());
    up.iter().try_for_each(|id| known(there, id, "the target"))?;
    Ok(Between { down, up })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn graph(list: &[(&str, &[&str])]) -> Graph {
        let one = |(id, along): &(&str, &[&str])| {
            let migration = Migration {
                id: (*id).to_owned(),
                name: (*id).to_owned(),
                along: along.iter().map(|id| (*id).to_owned()).collect(),
                needs: vec![],
                file: None,
                down_file: None,
                up: Body::Empty,
                down: Body::Empty,
            };
            ((*id).to_owned(), migration)
        };
        Graph(list.iter().map(one).collect())
    }

    fn set(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn rf22_any_number_of_migrations_lies_between() {
        let graph = graph(&[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["a"]), ("m", &["c", "d"])]);
        let check = |present: &[&str], target: &[&str], down: &[&str], up: &[&str]| {
            let found = between(Tool::Alembic, (&graph, &set(present)), (&graph, &set(target))).unwrap();
            assert_eq!(
                (found.down, found.up),
                (down.iter().map(|s| (*s).to_owned()).collect(), up.iter().map(|s| (*s).to_owned()).collect())
            );
        };
        check(&["b"], &["b"], &[], &[]);
        check(&["b"], &["a"], &["b"], &[]);
        check(&["c"], &[], &["c", "b", "a"], &[]);
        check(&["m"], &["b"], &["m", "c", "d"], &[]);
        check(&["m"], &["c", "d"], &["m"], &[]);
        check(&["b"], &["m"], &[], &["d", "c", "m"]);
        check(&["c"], &["d"], &["c", "b"], &["d"]);
        assert_eq!(graph.marks(Tool::Alembic, &set(&["a", "b", "c", "d"])), set(&["c", "d"]));
    }

    #[test]
    fn what_no_file_knows_is_said() {
        let (old, new) = (graph(&[("1", &[])]), graph(&[("1", &[]), ("2", &["1"])]));
        let (one, two) = (set(&["1"]), set(&["1", "2"]));
        let why = between(Tool::Sqlx, (&old, &two), (&old, &one)).unwrap_err();
        assert_eq!(why, "the migration files of what is there do not know `2`");
        assert_eq!(between(Tool::Sqlx, (&new, &two), (&old, &one)).unwrap().down, ["2"]);
        let why = between(Tool::Alembic, (&old, &set(&["x"])), (&old, &one)).unwrap_err();
        assert_eq!(why, "the migration files of what is there: they do not know `x`");
    }

    #[test]
    fn a_circle_ends() {
        let graph = graph(&[("a", &["b"]), ("b", &["a"])]);
        assert_eq!(graph.in_order(["a".to_owned(), "b".to_owned()].into_iter()).len(), 2);
        assert_eq!(graph.applied(Tool::Alembic, &set(&["a"])).unwrap().len(), 2);
    }
}
