//! What a schema consists of, in words that can be compared: the same however it came about, and whatever order its columns have.

use std::collections::BTreeMap;

use ripcord_core::Digest;
use serde::{Deserialize, Serialize};

/// One part of a schema: a table, a column, a constraint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) kind: String,
    /// Where it belongs: schema, table, its own name, as far as it has them.
    pub(super) path: Vec<String>,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.path.join("."))
    }
}

/// All parts with their definitions, without the migration tool's own table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Schema(pub(super) BTreeMap<Part, String>);

impl Serialize for Schema {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(&self.0)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vec::<(Part, String)>::deserialize(from).map(|list| Self(list.into_iter().collect()))
    }
}

pub(super) const TABLE: &str = "table";
pub(super) const COLUMN: &str = "column";

/// Values that would go with a part that one schema has and another has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goes {
    Table(Vec<String>),
    Column { table: Vec<String>, column: String },
}

impl Goes {
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Table(path) => path.join("."),
            Self::Column { table, column } => format!("{}.{column}", table.join(".")),
        }
    }

    pub(super) fn table(&self) -> &[String] {
        match self {
            Self::Table(table) | Self::Column { table, .. } => table,
        }
    }
}

impl Schema {
    pub(super) fn fingerprint(&self) -> Digest {
        Digest::of_value(self)
    }

    /// In words, what of `self` is not as in `recorded`; none when they are the same.
    pub(super) fn differs(&self, recorded: &Self) -> Option<String> {
        const SHOWN: usize = 6;
        let added = self.0.keys().filter(|part| !recorded.0.contains_key(part)).map(|part| format!("{part} is new"));
        let gone = recorded.0.keys().filter(|part| !self.0.contains_key(part)).map(|part| format!("{part} is missing"));
        let other = self.0.iter().filter_map(|(part, is)| {
            let was = recorded.0.get(part)?;
            (was != is).then(|| format!("{part} is `{}`, recorded `{}`", brief(is), brief(was)))
        });
        let all: Vec<String> = added.chain(gone).chain(other).collect();
        if all.is_empty() {
            return None;
        }
        let mut text = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
        if all.len() > SHOWN {
            text.push_str(&format!("; and {} more", all.len() - SHOWN));
        }
        Some(text)
    }

    /// What holds values here and is not in `target`: tables whole, and columns of tables that stay.
    pub(super) fn goes(&self, target: &Self) -> Vec<Goes> {
        let gone = |part: &&Part| !target.0.contains_key(part);
        let of = |kind: &'static str| self.0.keys().filter(move |part| part.kind == kind);
        let tables: Vec<_> = of(TABLE).filter(gone).map(|part| part.path.clone()).collect();
        let columns = of(COLUMN).filter(gone).filter_map(|part| {
            let (column, table) = part.path.split_last()?;
            let whole = tables.iter().any(|gone| gone.as_slice() == table);
            (!whole).then(|| Goes::Column { table: table.to_vec(), column: column.clone() })
        });
        let columns: Vec<_> = columns.collect();
        tables.into_iter().map(Goes::Table).chain(columns).collect()
    }

    pub(super) fn columns(&self, table: &[String]) -> Vec<String> {
        let of = |part: &&Part| part.kind == COLUMN && part.path.split_last().is_some_and(|(_, of)| of == table);
        self.0.keys().filter(of).filter_map(|part| part.path.last().cloned()).collect()
    }

    /// The columns of each table that both have, for a comparison of their rows.
    pub(super) fn shared(&self, other: &Self) -> BTreeMap<Vec<String>, Vec<String>> {
        let mut shared: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
        for part in self.0.keys().filter(|part| part.kind == COLUMN && other.0.contains_key(part)) {
            if let Some((column, table)) = part.path.split_last() {
                shared.entry(table.to_vec()).or_default().push(column.clone());
            }
        }
        shared.retain(|table, _| {
            let part = Part { kind: TABLE.to_owned(), path: table.clone() };
            self.0.contains_key(&part) && other.0.contains_key(&part)
        });
        shared
    }

    /// The definition of a constraint or index, and the table it belongs to; names are compared as they stand.
    pub(super) fn rule(&self, name: &str) -> Option<(&[String], &str)> {
        self.0.iter().find_map(|(part, is)| {
            let (own, table) = part.path.split_last()?;
            (matches!(part.kind.as_str(), "constraint" | "index") && own == name).then_some((table, is.as_str()))
        })
    }

    /// The table of this name, whatever schema it is in.
    pub(super) fn table(&self, name: &str) -> Option<&[String]> {
        let found = |part: &&Part| part.kind == TABLE && part.path.last().is_some_and(|last| last == name);
        self.0.keys().find(found).map(|part| part.path.as_slice())
    }

    pub(super) fn tables(&self) -> usize {
        self.0.keys().filter(|part| part.kind == TABLE).count()
    }
}

fn brief(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}..", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(parts: &[(&str, &str, &str)]) -> Schema {
        let part = |(kind, path, is): &(&str, &str, &str)| {
            let path = path.split('.').map(str::to_owned).collect();
            (Part { kind: (*kind).to_owned(), path }, (*is).to_owned())
        };
        Schema(parts.iter().map(part).collect())
    }

    #[test]
    fn what_differs_is_named() {
        let was = schema(&[("table", "a", ""), ("column", "a.x", "int"), ("column", "a.y", "text")]);
        let is = schema(&[("table", "a", ""), ("column", "a.x", "text"), ("column", "a.z", "int")]);
        assert_eq!(is.differs(&is), None);
        let said = is.differs(&was).unwrap();
        assert_eq!(said, "column a.z is new; column a.y is missing; column a.x is `text`, recorded `int`");
        assert_ne!(is.fingerprint(), was.fingerprint());
        let json = serde_json::to_string(&is).unwrap();
        assert_eq!(serde_json::from_str::<Schema>(&json).unwrap(), is);
    }

    #[test]
    fn a_table_that_goes_takes_its_columns_along() {
        let now = schema(&[
            ("table", "a", ""),
            ("column", "a.x", ""),
            ("column", "a.y", ""),
            ("table", "b", ""),
            ("column", "b.x", ""),
        ]);
        let then = schema(&[("table", "a", ""), ("column", "a.x", "")]);
        let shown: Vec<_> = now.goes(&then).iter().map(Goes::shown).collect();
        assert_eq!(shown, ["b", "a.y"]);
        assert_eq!(then.goes(&now), []);
        assert_eq!(now.shared(&then), [(vec!["a".to_owned()], vec!["x".to_owned()])].into());
    }
}
