//! Reads SQL as far as it must be read to say what it does to a schema: it adds, it takes away, or nobody can tell.
//!
//! Nothing here is run, and what is not understood is said to be unknown: never harmless.
//! Source: PostgreSQL manual, "Lexical Structure", "ALTER TABLE"; SQLite documentation, "CREATE TRIGGER".

use serde::{Deserialize, Serialize};

/// What one statement or operation does, as far as going back is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Effect {
    pub(super) does: Does,
    pub(super) what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Does {
    /// Something that was not there and that older code need not know.
    Adds,
    /// A rule less: what was accepted still is.
    Loosens,
    /// A rule more: older code may write what is refused now.
    Tightens,
    /// The type of a column: values may be cut, and older code may not read them.
    Retypes,
    /// Older code asks for the old name.
    Renames,
    /// Something without rows of its own goes, and older code may use it.
    Removes,
    /// Rows or values go.
    Destroys,
    /// Rows are changed.
    Rows,
    /// It was not understood.
    Unknown,
}

impl Effect {
    pub(super) fn new(does: Does, what: impl Into<String>) -> Self {
        Self { does, what: what.into() }
    }
}

/// What a script does, statement by statement; empty when it does nothing at all.
pub(super) fn effects(script: &str) -> Vec<Effect> {
    statements(script).iter().flat_map(|statement| lint(statement)).collect()
}

/// Whether it can only run by itself: it begins and ends transactions, or the server runs it in none.
pub(super) fn needs_no_transaction(script: &str) -> bool {
    let first = script.lines().next().unwrap_or_default().trim();
    first.starts_with("-- no-transaction")
        || statements(script).iter().any(|statement| {
            let word = |i: usize| statement.get(i).map_or("", |token| token.key.as_str());
            matches!(word(0), "BEGIN" | "COMMIT" | "START" | "ROLLBACK" | "END" | "VACUUM")
                || statement.iter().any(|token| token.key == "CONCURRENTLY")
                || (word(0) == "ALTER" && word(1) == "SYSTEM")
                || matches!((word(0), word(1)), ("CREATE" | "DROP", "DATABASE" | "TABLESPACE"))
        })
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// Upper case for plain words, so that keywords compare; as it stands for everything else.
    pub(super) key: String,
    /// As it stands, names without their quotes.
    shown: String,
    word: bool,
}

impl Token {
    /// As people read it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }
}

/// Splits a script at its semicolons, without its comments. Bodies in quotes or dollars are one token each.
pub(super) fn statements(script: &str) -> Vec<Vec<Token>> {
    let mut all = vec![];
    let mut one: Vec<Token> = vec![];
    let (mut depth, mut block) = (0_usize, 0_usize);
    for token in tokens(script) {
        match token.key.as_str() {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            // The body of a trigger of SQLite's, or of a routine in standard SQL.
            "BEGIN" if !one.is_empty() => block += 1,
            "CASE" if block > 0 => block += 1,
            "END" if block > 0 => block -= 1,
            _ => {}
        }
        if token.key == ";" && depth == 0 && block == 0 {
            if !one.is_empty() {
                all.push(std::mem::take(&mut one));
            }
            continue;
        }
        one.push(token);
    }
    if !one.is_empty() {
        all.push(one);
    }
    all
}

fn tokens(script: &str) -> Vec<Token> {
    let mut found = vec![];
    let mut rest = script;
    while let Some(c) = rest.chars().next() {
        let length = if c.is_whitespace() {
            c.len_utf8()
        } else if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if matches!(c, '"' | '`' | '[') {
            let end = match c {
                '[' if !rest.contains(']') => 1,
                '[' => quoted(rest, ']'),
                quote => quoted(rest, quote),
            };
            let name = rest.get(1..end.saturating_sub(1)).unwrap_or_default().to_owned();
            match end {
                1 => found.push(Token { key: "[".to_owned(), shown: "[".to_owned(), word: false }),
                _ => found.push(Token { key: format!("\"{name}\""), shown: name, word: true }),
            }
            end
        } else if c == '\'' || (matches!(c, 'e' | 'E') && rest[1..].starts_with('\'')) {
            let (skip, escapes) = if c == '\'' { (0, false) } else { (1, true) };
            let end = skip + text(&rest[skip..], escapes);
            found.push(Token { key: "''".to_owned(), shown: rest[..end].to_owned(), word: false });
            end
        } else if let Some(end) = (c == '$').then(|| dollar(rest)).flatten() {
            found.push(Token { key: "$$".to_owned(), shown: "$$".to_owned(), word: false });
            end
        } else if c.is_alphanumeric() || c == '_' {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$'))).unwrap_or(rest.len());
            let word = &rest[..end];
            found.push(Token { key: word.to_uppercase(), shown: word.to_owned(), word: true });
            end
        } else {
            found.push(Token { key: c.to_string(), shown: c.to_string(), word: false });
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    found
}

/// The length of a comment, which may hold others.
fn comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a name in quotes; a doubled quote stands for itself.
fn quoted(rest: &str, quote: char) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            match chars.peek() {
                Some((_, next)) if *next == quote && quote != ']' => drop(chars.next()),
                _ => return at + 1,
            }
        }
    }
    rest.len()
}

fn text(rest: &str, escapes: bool) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if escapes => drop(chars.next()),
            '\'' if chars.peek().is_some_and(|(_, next)| *next == '\'') => drop(chars.next()),
            '\'' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of `$tag$ .. $tag$`; none where it is none.
fn dollar(rest: &str) -> Option<usize> {
    let tag = rest[1..].find('$').map(|end| &rest[..end + 2])?;
    let name = &tag[1..tag.len() - 1];
    if !name.chars().all(|c| c.is_alphanumeric() || c == '_') || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let close = rest[tag.len()..].find(tag)?;
    Some(tag.len() + close + tag.len())
}

/// Reads along a statement.
struct Reader<'a>(&'a [Token]);

impl<'a> Reader<'a> {
    fn is(&self, word: &str) -> bool {
        self.0.first().is_some_and(|token| token.key == word)
    }
    /// Takes the words if they come next.
    fn take(&mut self, words: &[&str]) -> bool {
        let next = self.0.len() >= words.len() && words.iter().zip(self.0).all(|(word, token)| token.key == *word);
        if next {
            self.0 = &self.0[words.len()..];
        }
        next
    }
    fn word(&mut self) -> &'a str {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                &first.key
            }
            None => "",
        }
    }
    fn existence(&mut self) {
        let _ = self.take(&["IF", "NOT", "EXISTS"]) || self.take(&["IF", "EXISTS"]);
    }
    /// A name with its dots, without its quotes.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some((first, rest)) = self.0.split_first() {
            let part = if name.is_empty() || name.ends_with('.') { first.word } else { first.key == "." };
            if !part {
                break;
            }
            name.push_str(&first.shown);
            self.0 = rest;
        }
        name
    }
    fn has(&self, words: &[&str]) -> bool {
        self.0.windows(words.len()).any(|found| words.iter().zip(found).all(|(word, token)| token.key == *word))
    }
}

fn lint(statement: &[Token]) -> Vec<Effect> {
    use Does::{Adds, Destroys, Removes, Rows, Tightens, Unknown};
    let mut at = Reader(statement);
    let one = |does, what: String| vec![Effect::new(does, what)];
    match at.word() {
        "BEGIN" | "START" | "COMMIT" | "END" | "SET" | "RESET" | "COMMENT" | "GRANT" | "ANALYZE" | "VACUUM"
        | "SAVEPOINT" | "RELEASE" | "PRAGMA" | "LOCK" | "REINDEX" => vec![],
        "CREATE" => create(&mut at),
        "ALTER" => match at.word() {
            "TABLE" => alter_table(&mut at),
            "TYPE" => {
                let name = at.name();
                match at.take(&["ADD", "VALUE"]) {
                    true => one(Adds, format!("a value of type {name}")),
                    false => one(Unknown, format!("changes type {name}")),
                }
            }
            other => one(Unknown, format!("ALTER {other}")),
        },
        "DROP" => {
            let _ = at.take(&["MATERIALIZED"]) || at.take(&["FOREIGN"]);
            let kind = at.word();
            let _ = at.take(&["CONCURRENTLY"]);
            at.existence();
            let name = at.name();
            let what = format!("{} {name}", kind.to_lowercase());
            match kind {
                "TABLE" | "SCHEMA" | "DATABASE" => one(Destroys, format!("drops {what}")),
                "INDEX" => one(Does::Loosens, format!("drops {what}")),
                _ => one(Removes, format!("drops {what}")),
            }
        }
        "TRUNCATE" => {
            let _ = at.take(&["TABLE"]);
            let _ = at.take(&["ONLY"]);
            one(Destroys, format!("empties {}", at.name()))
        }
        "DELETE" => {
            let _ = at.take(&["FROM"]);
            let _ = at.take(&["ONLY"]);
            one(Destroys, format!("deletes rows of {}", at.name()))
        }
        "UPDATE" => {
            let _ = at.take(&["ONLY"]);
            one(Rows, format!("changes rows of {}", at.name()))
        }
        "INSERT" => {
            let _ = at.take(&["INTO"]);
            match at.has(&["DO", "UPDATE"]) {
                true => one(Rows, format!("changes rows of {}", at.name())),
                false => one(Adds, format!("rows in {}", at.name())),
            }
        }
        "COPY" => one(Adds, format!("rows in {}", at.name())),
        "REVOKE" => one(Tightens, "takes rights away".to_owned()),
        "SELECT" if at.has(&["SETVAL"]) || at.has(&["SET_CONFIG"]) => vec![],
        other => one(Unknown, format!("{other} ..")),
    }
}

fn create(at: &mut Reader<'_>) -> Vec<Effect> {
    let replaces = at.take(&["OR", "REPLACE"]);
    while ["TEMP", "TEMPORARY", "UNLOGGED", "GLOBAL", "LOCAL", "MATERIALIZED", "VIRTUAL", "FOREIGN", "RECURSIVE"]
        .iter()
        .any(|word| at.take(&[word]))
    {}
    let unique = at.take(&["UNIQUE"]);
    let kind = at.word();
    let _ = at.take(&["CONCURRENTLY"]);
    at.existence();
    let name = at.name();
    let what = format!("{} {name}", kind.to_lowercase());
    let effect = match kind {
        "INDEX" if unique => Effect::new(Does::Tightens, format!("unique index {name}")),
        "TABLE" | "INDEX" | "SEQUENCE" | "TYPE" | "DOMAIN" | "EXTENSION" | "SCHEMA" | "COLLATION" | "STATISTICS" => {
            Effect::new(Does::Adds, what)
        }
        "VIEW" | "FUNCTION" | "PROCEDURE" | "AGGREGATE" if !replaces => Effect::new(Does::Adds, what),
        "VIEW" | "FUNCTION" | "PROCEDURE" | "AGGREGATE" => Effect::new(Does::Unknown, format!("replaces {what}")),
        "POLICY" => Effect::new(Does::Tightens, what),
        "TRIGGER" | "RULE" => Effect::new(Does::Unknown, format!("{what} acts on what older code writes")),
        other => Effect::new(Does::Unknown, format!("CREATE {other}")),
    };
    vec![effect]
}

fn alter_table(at: &mut Reader<'_>) -> Vec<Effect> {
    at.existence();
    let _ = at.take(&["ONLY"]);
    let table = at.name();
    let mut effects = vec![];
    let (mut depth, mut from) = (0_usize, 0);
    for (i, token) in at.0.iter().enumerate() {
        match token.key.as_str() {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            "," if depth == 0 => {
                effects.extend(alteration(&table, Reader(&at.0[from..i])));
                from = i + 1;
            }
            _ => {}
        }
    }
    effects.extend(alteration(&table, Reader(&at.0[from..])));
    effects
}

fn alteration(table: &str, mut at: Reader<'_>) -> Option<Effect> {
    use Does::{Adds, Destroys, Loosens, Renames, Retypes, Tightens, Unknown};
    let rules = ["CONSTRAINT", "UNIQUE", "PRIMARY", "FOREIGN", "CHECK", "EXCLUDE"];
    let (does, what) = match at.word() {
        "ADD" if rules.iter().any(|rule| at.is(rule)) => (Tightens, format!("a constraint of {table}")),
        "ADD" => {
            let _ = at.take(&["COLUMN"]);
            at.existence();
            let column = format!("column {table}.{}", at.name());
            let filled = at.has(&["DEFAULT"]) || at.has(&["GENERATED"]) || at.has(&["IDENTITY"]);
            match () {
                () if at.has(&["UNIQUE"]) || at.has(&["PRIMARY", "KEY"]) => (Tightens, format!("{column}, unique")),
                () if at.has(&["NOT", "NULL"]) && !filled => (Tightens, format!("{column}, not null without default")),
                () => (Adds, column),
            }
        }
        "DROP" if at.take(&["CONSTRAINT"]) => (Loosens, format!("drops a constraint of {table}")),
        "DROP" => {
            let _ = at.take(&["COLUMN"]);
            at.existence();
            (Destroys, format!("drops column {table}.{}", at.name()))
        }
        "ALTER" => {
            let _ = at.take(&["COLUMN"]);
            let column = format!("{table}.{}", at.name());
            match () {
                () if at.take(&["SET", "NOT", "NULL"]) => (Tightens, format!("{column} not null")),
                () if at.take(&["DROP", "NOT", "NULL"]) => (Loosens, format!("{column} may be null")),
                () if at.take(&["SET", "DEFAULT"]) => (Loosens, format!("default of {column}")),
                () if at.take(&["DROP", "DEFAULT"]) => (Tightens, format!("{column} without default")),
                () if at.take(&["TYPE"]) || at.take(&["SET", "DATA", "TYPE"]) => {
                    (Retypes, format!("{column} becomes {}", at.name()))
                }
                () => (Unknown, format!("changes {column}")),
            }
        }
        "RENAME" => (Renames, format!("renames {table} or a part of it")),
        "ENABLE" | "FORCE" => (Tightens, format!("rules for rows of {table}")),
        "DISABLE" | "NO" => (Loosens, format!("rules for rows of {table}")),
        "VALIDATE" | "OWNER" | "CLUSTER" => return None,
        "SET" if at.take(&["SCHEMA"]) => (Renames, format!("moves {table}")),
        other => (Unknown, format!("ALTER TABLE {table} {other}")),
    };
    Some(Effect::new(does, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(script: &str) -> String {
        let list: Vec<_> = effects(script).iter().map(|e| format!("{:?}: {}", e.does, e.what)).collect();
        list.join("; ")
    }

    #[test]
    fn statements_are_told_by_what_they_do() {
        let check = |script: &str, expected: &str| assert_eq!(said(script), expected, "{script}");
        check("CREATE TABLE a (id int, b text);", "Adds: table a");
        check("create unique index if not exists i on a(b)", "Tightens: unique index i");
        check("CREATE INDEX CONCURRENTLY i ON a (b)", "Adds: index i");
        check("ALTER TABLE a ADD COLUMN b text", "Adds: column a.b");
        check("ALTER TABLE a ADD b int NOT NULL DEFAULT 0", "Adds: column a.b");
        check("ALTER TABLE a ADD b int NOT NULL", "Tightens: column a.b, not null without default");
        check(
            "ALTER TABLE ONLY public.\"A\" DROP COLUMN IF EXISTS b, ALTER c SET NOT NULL, ALTER COLUMN d TYPE varchar(3)",
            "Destroys: drops column public.A.b; Tightens: public.A.c not null; Retypes: public.A.d becomes varchar",
        );
        check("ALTER TABLE a RENAME b TO c", "Renames: renames a or a part of it");
        check("ALTER TABLE a ADD CONSTRAINT c CHECK (x > 0, y)", "Tightens: a constraint of a");
        check("DROP TABLE IF EXISTS a CASCADE", "Destroys: drops table a");
        check(
            "DELETE FROM a WHERE x = ';'; UPDATE a SET b = 1;",
            "Destroys: deletes rows of a; Rows: changes rows of a",
        );
        check("INSERT INTO a VALUES (1); COMMENT ON TABLE a IS 'x'", "Adds: rows in a");
        check("DO $body$ BEGIN DROP TABLE a; END $body$", "Unknown: DO ..");
        check(
            "CREATE OR REPLACE FUNCTION f() RETURNS int AS $$ select 1; $$ LANGUAGE sql",
            "Unknown: replaces function f",
        );
        check("BEGIN; CREATE TABLE a (x int); COMMIT;", "Adds: table a");
        check("ALTER TYPE mood ADD VALUE 'new'", "Adds: a value of type mood");
    }

    #[test]
    fn comments_and_white_space_do_nothing() {
        assert_eq!(said(""), "");
        assert_eq!(said("-- drop table a;\n/* DROP TABLE b; /* nested */ */ ;\n"), "");
    }

    #[test]
    fn a_trigger_of_sqlite_is_one_statement() {
        let script = "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET x = CASE WHEN 1 THEN 2 END; DELETE FROM b; END; DROP TABLE a;";
        assert_eq!(said(script), "Unknown: trigger t acts on what older code writes; Destroys: drops table a");
    }

    #[test]
    fn scripts_that_cannot_be_wrapped_are_found() {
        assert!(needs_no_transaction("BEGIN;\nCREATE TABLE a(); COMMIT;"));
        assert!(needs_no_transaction("create index concurrently i on a(b)"));
        assert!(needs_no_transaction("-- no-transaction\nselect 1"));
        assert!(!needs_no_transaction(
            "CREATE FUNCTION f() RETURNS int AS $$ BEGIN RETURN 1; END $$ LANGUAGE plpgsql;"
        ));
        assert!(!needs_no_transaction("CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; END;"));
    }

    #[test]
    fn odd_text_neither_panics_nor_is_harmless() {
        for script in
            ["'", "\"", "$a$", "/*", "é'é", "$", "[", "E'\\'", "(((", ";;;", "ALTER TABLE", "CREATE", "a.b.", "$1$"]
        {
            let _ = effects(script);
        }
        assert_eq!(said("frobnicate a"), "Unknown: FROBNICATE ..");
    }
}
