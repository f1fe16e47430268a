//! The schema of an SQLite database. The text of a table's definition is not compared: it depends on how the table came about.

use rusqlite::Connection;

use super::schema::{COLUMN, Part, Schema, TABLE};
use super::sql::statements;
use crate::postgres::quoted;

type Result<T> = std::result::Result<T, rusqlite::Error>;

pub(super) fn schema(db: &Connection) -> Result<Schema> {
    let mut schema = Schema::default();
    let mut list = db.prepare(
        "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let objects: Vec<(String, String, String, String)> =
        list.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?.collect::<Result<_>>()?;
    for (kind, name, table, sql) in objects {
        match kind.as_str() {
            TABLE => of_table(db, &name, &sql, &mut schema)?,
            "view" => drop(schema.0.insert(part("view", &[&name]), words(&sql))),
            other => drop(schema.0.insert(part(other, &[&table, &name]), words(&sql))),
        }
    }
    Ok(schema)
}

fn part(kind: &str, path: &[&str]) -> Part {
    Part { kind: kind.to_owned(), path: path.iter().map(|part| (*part).to_owned()).collect() }
}

/// A definition without its comments and white space.
fn words(sql: &str) -> String {
    let all = statements(sql);
    all.iter().flatten().map(super::sql::Token::shown).collect::<Vec<_>>().join(" ")
}

fn of_table(db: &Connection, table: &str, sql: &str, schema: &mut Schema) -> Result<()> {
    let upper: Vec<String> = statements(sql).into_iter().flatten().map(|token| token.key).collect();
    let says = |words: &[&str]| upper.windows(words.len()).any(|found| found == words);
    let mut is = String::new();
    for (words, what) in
        [(&["WITHOUT", "ROWID"][..], "without rowid"), (&["STRICT"], "strict"), (&["AUTOINCREMENT"], "autoincrement")]
    {
        if says(words) {
            is.push_str(what);
        }
    }
    if says(&["CREATE", "VIRTUAL"]) {
        is = words(sql);
    }
    schema.0.insert(part(TABLE, &[table]), is);
    let mut asked = db.prepare(&format!("PRAGMA table_xinfo({})", quoted(table)))?;
    let mut rows = asked.query([])?;
    while let Some(row) = rows.next()? {
        let (name, kind): (String, String) = (row.get(1)?, row.get(2)?);
        let default: Option<String> = row.get(4)?;
        let (not_null, key, hidden): (bool, i64, i64) = (row.get(3)?, row.get(5)?, row.get(6)?);
        let mut is = kind.to_uppercase();
        if not_null {
            is.push_str(" not null");
        }
        if let Some(default) = default {
            is.push_str(&format!(" default {default}"));
        }
        if key > 0 {
            is.push_str(&format!(" key {key}"));
        }
        if hidden > 0 {
            is.push_str(&format!(" hidden {hidden}"));
        }
        schema.0.insert(part(COLUMN, &[table, &name]), is);
    }
    drop(rows);
    let rules = [
        (
            format!(
                "SELECT group_concat(\"from\" || ' -> ' || \"table\" || '.' || coalesce(\"to\", '') || ' ' || on_update || ' ' || on_delete, ', ') \
            FROM pragma_foreign_key_list({table}) GROUP BY id ORDER BY 1",
                table = literal(table)
            ),
            "foreign key",
        ),
        // Of a constraint and not of an index somebody made, which has a definition of its own.
        (
            format!(
                "SELECT (SELECT group_concat(coalesce(i.name, '?')) FROM pragma_index_info(l.name) i) FROM pragma_index_list({}) l \
            WHERE l.origin = 'u' ORDER BY 1",
                literal(table)
            ),
            "unique",
        ),
    ];
    for (asked, kind) in rules {
        let mut asked = db.prepare(&asked)?;
        let found: Vec<Option<String>> = asked.query_map([], |row| row.get(0))?.collect::<Result<_>>()?;
        for is in found.into_iter().flatten() {
            schema.0.insert(part("constraint", &[table, &format!("{kind} {is}")]), is);
        }
    }
    for check in checks(sql) {
        schema.0.insert(part("constraint", &[table, &format!("check {check}")]), check);
    }
    Ok(())
}

fn literal(text: &str) -> String {
    super::database::text(text)
}

/// What stands in the parentheses after each `CHECK`.
fn checks(sql: &str) -> Vec<String> {
    let tokens: Vec<_> = statements(sql).into_iter().flatten().collect();
    let mut found = vec![];
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| token.key == "CHECK") {
        let (mut depth, mut words) = (0_usize, vec![]);
        for token in &tokens[at + 1..] {
            match token.key.as_str() {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ => {}
            }
            words.push(token.shown());
            if depth == 0 {
                break;
            }
        }
        found.push(words.join(" "));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(script: &str) -> Schema {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(script).unwrap();
        schema(&db).unwrap()
    }

    #[test]
    fn the_same_schema_is_the_same_however_it_came_about() {
        let made = of(
            "CREATE TABLE a (x INTEGER PRIMARY KEY, y TEXT NOT NULL CHECK (y <> ''), z INT REFERENCES a (x)); CREATE INDEX i ON a (y);",
        );
        let grown = of("CREATE TABLE a (x integer primary key, y text not null check (y <> '') -- a note\n);
             ALTER TABLE a ADD COLUMN z int references a(x); CREATE INDEX i  ON a(y);");
        assert_eq!(grown.differs(&made), None);
        let other = of(
            "CREATE TABLE a (x INTEGER PRIMARY KEY, y TEXT, z INT REFERENCES a (x)); CREATE UNIQUE INDEX i ON a (y);",
        );
        let said = other.differs(&made).unwrap();
        assert!(said.contains("column a.y is `TEXT`, recorded `TEXT not null`"), "{said}");
        assert!(said.contains("index a.i is") && said.contains("is missing"), "{said}");
    }
}
