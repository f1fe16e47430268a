//! Which rows stand in the way of a migration, by their keys alone: what else is in them is nobody's business here.

use std::sync::OnceLock;

use regex::Regex;

use super::database::{Session, name};
use super::schema::{COLUMN, Schema};
use crate::postgres::quoted;

/// The most rows that are named.
const MOST: usize = 20;

/// Whether a tool or a server says that a lock was not to be had.
pub(super) fn is_lock(said: &str) -> bool {
    ["lock timeout", "55P03", "LockNotAvailable", "database is locked", "database table is locked"]
        .iter()
        .any(|words| said.contains(words))
}

/// The sessions with a transaction open, the oldest first.
pub(super) async fn holders(session: &Session) -> Vec<String> {
    if !session.is_postgres() {
        return vec![];
    }
    let asked = "SELECT pid, usename, coalesce(nullif(application_name, ''), 'unnamed'), state, extract(epoch FROM now() - xact_start)::int \
        FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL \
        ORDER BY xact_start LIMIT 5";
    let rows = session.query(asked).await.unwrap_or_default();
    let one = |row: Vec<Option<String>>| {
        let said: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
        match said.as_slice() {
            [pid, user, program, state, age] => format!("process {pid} ({user}, {program}, {state}, open for {age} s)"),
            _ => said.join(" "),
        }
    };
    rows.into_iter().map(one).collect()
}

/// What a violated rule asks of a table: the condition that rows in the way fulfil.
struct Violated {
    table: Vec<String>,
    what: String,
    condition: String,
}

/// The rows that violate the rule an error tells of. None where it tells of none, or the rule is not known.
pub(super) async fn rows(session: &Session, said: &str, towards: Option<&Schema>) -> Option<String> {
    let schema = towards?;
    let violated = violated(said, schema)?;
    let table = name(&violated.table);
    let keys = key(schema, &violated.table);
    let shown = match keys.as_slice() {
        [] if session.is_postgres() => vec!["ctid".to_owned()],
        [] => vec!["rowid".to_owned()],
        keys => keys.iter().map(|key| quoted(key)).collect(),
    };
    let columns = shown.join(", ");
    let counted = session.one(&format!("SELECT count(*) FROM {table} WHERE {}", violated.condition)).await.ok()??;
    let asked = format!("SELECT {columns} FROM {table} WHERE {} ORDER BY {columns} LIMIT {MOST}", violated.condition);
    let found = session.query(&asked).await.ok()?;
    if found.is_empty() {
        return None;
    }
    let row = |row: Vec<Option<String>>| {
        let values: Vec<String> = row.into_iter().map(|value| value.unwrap_or_else(|| "null".to_owned())).collect();
        values.join("/")
    };
    let more = if counted.parse::<usize>().is_ok_and(|all| all > found.len()) { ", .." } else { "" };
    let list: Vec<String> = found.into_iter().map(row).collect();
    let key = if keys.is_empty() { "row" } else { &keys.join("/") };
    let table = violated.table.join(".");
    Some(format!("{counted} rows of {table} {}: {key} {}{more}", violated.what, list.join(", ")))
}

fn patterns() -> Option<&'static [Regex; 7]> {
    static PATTERNS: OnceLock<Option<[Regex; 7]>> = OnceLock::new();
    let made = PATTERNS.get_or_init(|| {
        let all = [
            r#"column "([^"]+)" of relation "([^"]+)" contains null values"#,
            r#"could not create unique index "([^"]+)""#,
            r#"check constraint "([^"]+)" of relation "[^"]+" is violated by some row"#,
            r#"on table "[^"]+" violates foreign key constraint "([^"]+)""#,
            r"NOT NULL constraint failed: ([^\s.]+)\.([^\s,]+)",
            r"UNIQUE constraint failed: ([^\s.]+)\.([^\n]+)",
            r#"null value in column "([^"]+)" of relation "([^"]+)" violates not-null"#,
        ];
        let made: Vec<Regex> = all.iter().filter_map(|pattern| Regex::new(pattern).ok()).collect();
        made.try_into().ok()
    });
    made.as_ref()
}

fn violated(said: &str, schema: &Schema) -> Option<Violated> {
    let [null, unique, check, foreign, null_lite, unique_lite, null_row] = patterns()?;
    if let Some(found) = null.captures(said).or_else(|| null_row.captures(said)) {
        return null_in(schema.table(&found[2])?, &found[1]);
    }
    if let Some(found) = null_lite.captures(said) {
        return null_in(rebuilt(schema, &found[1])?, found[2].trim_end_matches([')', '\'', '"', '.']));
    }
    if let Some(found) = unique_lite.captures(said) {
        let table = rebuilt(schema, &found[1])?;
        let plain =
            |column: &str| column.rsplit('.').next().map(|c| c.trim_end_matches([')', '\'', '"']).trim().to_owned());
        let columns: Vec<String> = found[2].split(", ").filter_map(plain).map(|column| quoted(&column)).collect();
        return Some(twice(table, &columns.join(", "), None));
    }
    if let Some(found) = unique.captures(said) {
        let (table, is) = schema.rule(&found[1])?;
        return Some(twice(table, inside(is)?, is.split_once(" WHERE ").map(|(_, filter)| filter)));
    }
    if let Some(found) = check.captures(said) {
        let (table, is) = schema.rule(&found[1])?;
        let condition = format!("NOT ({})", inside(is)?);
        return Some(Violated { table: table.to_vec(), what: format!("violate {}", &found[1]), condition });
    }
    let found = foreign.captures(said)?;
    let (table, is) = schema.rule(&found[1])?;
    let (own, rest) = is.split_once(" REFERENCES ")?;
    let (other, _) = rest.split_once('(')?;
    let (own, theirs) = (names(inside(own)?), names(inside(rest)?));
    let given = own.iter().map(|column| format!("{column} IS NOT NULL"));
    let same = own.iter().zip(&theirs).map(|(own, theirs)| format!("found.{theirs} = {}.{own}", name(table)));
    let condition = format!(
        "{} AND NOT EXISTS (SELECT 1 FROM {other} found WHERE {})",
        given.collect::<Vec<_>>().join(" AND "),
        same.collect::<Vec<_>>().join(" AND ")
    );
    Some(Violated { table: table.to_vec(), what: format!("lead nowhere by {}", &found[1]), condition })
}

/// A table, also where it is being made anew under a name beside it, as SQLite needs it.
fn rebuilt<'a>(schema: &'a Schema, table: &str) -> Option<&'a [String]> {
    let table = table.trim_matches('"');
    let plain = ["_alembic_tmp_", "new__", "new_"].iter().find_map(|prefix| table.strip_prefix(prefix));
    schema.table(table).or_else(|| schema.table(plain?))
}

fn null_in(table: &[String], column: &str) -> Option<Violated> {
    let condition = format!("{} IS NULL", quoted(column));
    Some(Violated { table: table.to_vec(), what: format!("have no {column}"), condition })
}

fn twice(table: &[String], columns: &str, filter: Option<&str>) -> Violated {
    let table_sql = name(table);
    let (here, there) = match filter {
        Some(filter) => (format!("{filter} AND "), format!(" WHERE {filter}")),
        None => (String::new(), String::new()),
    };
    let condition = format!(
        "{here}({columns}) IN (SELECT {columns} FROM {table_sql}{there} GROUP BY {columns} HAVING count(*) > 1)"
    );
    Violated { table: table.to_vec(), what: format!("have the same {}", columns.replace('"', "")), condition }
}

/// What stands in the last pair of parentheses that begins outside all others, up to a condition.
fn inside(definition: &str) -> Option<&str> {
    let definition = definition.split(" WHERE ").next()?;
    let open = definition.find('(')?;
    let mut depth = 0_usize;
    for (at, c) in definition[open..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth -= 1;
                if depth == 0 {
                    return Some(&definition[open + 1..open + at]);
                }
            }
            _ => {}
        }
    }
    None
}

fn names(list: &str) -> Vec<&str> {
    list.split(',').map(str::trim).collect()
}

/// The columns of a table's primary key.
fn key(schema: &Schema, table: &[String]) -> Vec<String> {
    let of = |path: &[String]| path.split_last().is_some_and(|(_, of)| of == table);
    let constraint = schema.0.iter().find_map(|(part, is)| {
        let primary = is.strip_prefix("PRIMARY KEY")?;
        (part.kind == "constraint" && of(&part.path)).then_some(primary)
    });
    if let Some(primary) = constraint.and_then(inside) {
        return names(primary).into_iter().map(|name| name.trim_matches('"').to_owned()).collect();
    }
    let keyed = schema.0.iter().filter(|(part, is)| part.kind == COLUMN && of(&part.path) && is.contains(" key "));
    keyed.filter_map(|(part, _)| part.path.last().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::schema::Part;
    use super::*;

    fn schema() -> Schema {
        let part = |kind: &str, path: &str, is: &str| {
            let path = path.split('.').map(str::to_owned).collect();
            (Part { kind: kind.to_owned(), path }, is.to_owned())
        };
        Schema(
            [
                part("table", "public.orders", "rp"),
                part("constraint", "public.orders.orders_pkey", "PRIMARY KEY (id)"),
                part("constraint", "public.orders.qty", "CHECK ((qty > 0))"),
                part(
                    "constraint",
                    "public.orders.buyer",
                    "FOREIGN KEY (buyer_id) REFERENCES public.users(id) ON DELETE CASCADE",
                ),
                part(
                    "index",
                    "public.orders.code",
                    "CREATE UNIQUE INDEX code ON public.orders USING btree (lower(code)) WHERE live",
                ),
            ]
            .into(),
        )
    }

    #[test]
    fn a_violated_rule_becomes_a_question_for_its_rows() {
        let check = |said: &str, expected: &str| {
            let found = violated(said, &schema()).unwrap();
            assert_eq!(
                (found.table.join("."), found.condition.as_str()),
                ("public.orders".to_owned(), expected),
                "{said}"
            );
        };
        check(r#"column "note" of relation "orders" contains null values"#, "\"note\" IS NULL");
        check(r#"check constraint "qty" of relation "orders" is violated by some row"#, "NOT ((qty > 0))");
        check(
            r#"could not create unique index "code""#,
            "live AND (lower(code)) IN (SELECT lower(code) FROM \"public\".\"orders\" WHERE live GROUP BY lower(code) HAVING count(*) > 1)",
        );
        check(
            r#"insert or update on table "orders" violates foreign key constraint "buyer""#,
            "buyer_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM public.users found WHERE found.id = \"public\".\"orders\".buyer_id)",
        );
        check("NOT NULL constraint failed: _alembic_tmp_orders.note", "\"note\" IS NULL");
        assert!(violated("syntax error", &schema()).is_none());
        assert_eq!(key(&schema(), &["public".to_owned(), "orders".to_owned()]), ["id"]);
    }
}
