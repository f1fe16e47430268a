//! Reads and edits `KEY=value` files without disturbing what it was not asked to change.
//!
//! A written value is spelled so that a dotenv library, Compose and a shell read the same; where no such spelling exists the
//! edit is refused. When a key is defined twice the last one counts, as it does for a shell; some libraries take the first, so
//! a set leaves one.
//! Source: Docker manual, "Interpolation", env file syntax; POSIX shell, section 2.2.

use std::collections::BTreeMap;
use std::ops::Range;

/// Why a text cannot be read or edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    #[error("line {line} has a quote that is not closed")]
    Unclosed { line: usize },
    #[error("it is not UTF-8")]
    NotText,
    #[error("`{key}` is not a name a shell takes")]
    BadKey { key: String },
    #[error("the value for `{key}` has no spelling that dotenv, Compose and a shell all read alike")]
    NoSpelling { key: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

/// One active definition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Definition {
    key: String,
    value: String,
    quote: Quote,
    /// From its line's first byte to behind its last line's end.
    lines: Range<usize>,
    /// From behind the key to behind the value: what a set replaces.
    assigned: Range<usize>,
}

const BOM: char = '\u{feff}';

/// The values a reader gets: of two definitions the last.
pub(crate) fn read(bytes: &[u8]) -> Result<BTreeMap<String, String>, EditError> {
    Ok(definitions(text(bytes)?)?.into_iter().map(|found| (found.key, found.value)).collect())
}

/// How many active definitions `key` has.
pub(crate) fn count(bytes: &[u8], key: &str) -> Result<usize, EditError> {
    Ok(definitions(text(bytes)?)?.iter().filter(|found| found.key == key).count())
}

/// The text with `key` defined exactly once, as `value`, or not at all.
pub(crate) fn set(bytes: &[u8], key: &str, value: Option<&str>) -> Result<Vec<u8>, EditError> {
    let text = text(bytes)?;
    if !is_key(key) {
        return Err(EditError::BadKey { key: key.to_owned() });
    }
    let mut found: Vec<_> = definitions(text)?.into_iter().filter(|found| found.key == key).collect();
    let Some(value) = value else { return Ok(without(text, &found).into_bytes()) };
    let Some(last) = found.pop() else { return Ok(appended(text, key, &spell(key, value, Quote::None)?).into_bytes()) };
    let spelled = spell(key, value, last.quote)?;
    let mut edited = without(&text[..last.assigned.start], &found);
    edited.push('=');
    edited.push_str(&spelled);
    edited.push_str(&text[last.assigned.end..]);
    Ok(edited.into_bytes())
}

fn text(bytes: &[u8]) -> Result<&str, EditError> {
    std::str::from_utf8(bytes).map_err(|_| EditError::NotText)
}

/// Whether a line can define it, for a reader of some kind: some take names that a shell does not.
pub(crate) fn names_a_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(in_a_key)
}

fn in_a_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// Whether a shell takes it as a variable's name.
pub(crate) fn is_key(key: &str) -> bool {
    let mut chars = key.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn without(text: &str, definitions: &[Definition]) -> String {
    let mut left = String::with_capacity(text.len());
    let mut at = 0;
    for definition in definitions {
        left.push_str(&text[at..definition.lines.start]);
        at = definition.lines.end;
    }
    left.push_str(&text[at..]);
    left
}

fn appended(text: &str, key: &str, spelled: &str) -> String {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    // A key put right behind an unfinished line would be glued to its value; the file keeps ending as it did.
    match text.is_empty() || text.ends_with('\n') || text == BOM.to_string() {
        true => format!("{text}{key}={spelled}{end}"),
        false => format!("{text}{end}{key}={spelled}"),
    }
}

/// Spells a value, in the quotes it had where they can carry it.
fn spell(key: &str, value: &str, had: Quote) -> Result<String, EditError> {
    let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "_./:@%+,=-".contains(c));
    let single = !value.contains('\'');
    // Readers agree on `\"` alone: of `\$`, `\\` and `` \` `` each knows others.
    let double = !value.contains(['$', '`', '\\', '!']);
    let control = value.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    match had {
        _ if control => Err(EditError::NoSpelling { key: key.to_owned() }),
        Quote::None if plain => Ok(value.to_owned()),
        Quote::Double if double => Ok(format!("\"{}\"", value.replace('"', "\\\""))),
        _ if single => Ok(format!("'{value}'")),
        _ if double => Ok(format!("\"{}\"", value.replace('"', "\\\""))),
        _ => Err(EditError::NoSpelling { key: key.to_owned() }),
    }
}

fn definitions(text: &str) -> Result<Vec<Definition>, EditError> {
    let mut found = Vec::new();
    let mut at = if text.starts_with(BOM) { BOM.len_utf8() } else { 0 };
    while at < text.len() {
        let end = line_end(text, at);
        match definition(text, at)? {
            Some(definition) => {
                at = definition.lines.end;
                found.push(definition);
            }
            None => at = end,
        }
    }
    Ok(found)
}

/// Behind the line that `at` lies in, its line feed included.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |n| at + n + 1)
}

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start_matches([' ', '\t']).len()
}

fn definition(text: &str, start: usize) -> Result<Option<Definition>, EditError> {
    let mut at = start + blanks(&text[start..]);
    if let Some(rest) = text[at..].strip_prefix("export")
        && blanks(rest) > 0
    {
        at += "export".len() + blanks(rest);
    }
    let key_end = text[at..].find(|c| !in_a_key(c)).map_or(text.len(), |n| at + n);
    let key = &text[at..key_end];
    let sign = key_end + blanks(&text[key_end..]);
    if key.is_empty() || !text[sign..].starts_with('=') {
        return Ok(None);
    }
    let value_at = sign + 1 + blanks(&text[sign + 1..]);
    let (value, quote, value_end) = value(text, value_at)?;
    // An empty value ends at its sign: a blank between that and a comment belongs to the comment.
    let value_end = if value_end == value_at { sign + 1 } else { value_end };
    let lines = start..line_end(text, value_end);
    Ok(Some(Definition { key: key.to_owned(), value, quote, lines, assigned: key_end..value_end }))
}

/// The value that begins at `at`: what it means, how it is quoted, and where its spelling ends.
fn value(text: &str, at: usize) -> Result<(String, Quote, usize), EditError> {
    let unclosed = || EditError::Unclosed { line: text[..at].matches('\n').count() + 1 };
    let rest = &text[at..];
    match rest.chars().next() {
        Some('\'') => {
            let end = rest[1..].find('\'').ok_or_else(unclosed)? + 1;
            Ok((rest[1..end].to_owned(), Quote::Single, glued(text, at + end + 1)))
        }
        Some('"') => {
            let (mut value, mut chars) = (String::new(), rest.char_indices().skip(1));
            while let Some((i, c)) = chars.next() {
                match c {
                    '"' => return Ok((value, Quote::Double, glued(text, at + i + 1))),
                    '\\' => match chars.next() {
                        Some((_, c @ ('"' | '\\' | '$' | '`'))) => value.push(c),
                        Some((_, '\n')) => {}
                        Some((_, c)) => value.extend(['\\', c]),
                        None => return Err(unclosed()),
                    },
                    c => value.push(c),
                }
            }
            Err(unclosed())
        }
        _ => {
            let line = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
            let comment = line.match_indices('#').map(|(i, _)| i).find(|i| line[..*i].ends_with([' ', '\t']));
            // Nothing but a comment behind the sign: the value is empty.
            let comment = comment.or_else(|| (line.starts_with('#') && text[..at].ends_with([' ', '\t'])).then_some(0));
            let value = line[..comment.unwrap_or(line.len())].trim_end();
            Ok((value.to_owned(), Quote::None, at + value.len()))
        }
    }
}

/// Where a quoted value ends for a shell, which takes what follows the quote without a blank as part of it.
fn glued(text: &str, end: usize) -> usize {
    text[end..].find(|c: char| c.is_whitespace()).map_or(text.len(), |n| end + n)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(before: &str, key: &str, value: Option<&str>, after: &str) {
        let edited = set(before.as_bytes(), key, value).unwrap();
        assert_eq!(String::from_utf8(edited.clone()).unwrap(), after);
        assert_eq!(read(&edited).unwrap().get(key).map(String::as_str), value);
        assert_eq!(set(&edited, key, value).unwrap(), edited, "twice is once");
    }

    #[test]
    fn rf17_sets_in_place_with_one_definition() {
        check("A=1\nX=old\nB=2\n", "X", Some("new"), "A=1\nX=new\nB=2\n");
        check("A=1\n", "X", Some("on"), "A=1\nX=on\n");
        check("X=1\nA=1\nX=2\nX=3\n", "X", Some("on"), "A=1\nX=on\n");
        check("# X=1\n", "X", Some("on"), "# X=1\nX=on\n");
        check("export X=1 # why\n", "X", Some("on"), "export X=on # why\n");
        check("X=\"1\"\n", "X", Some("on"), "X=\"on\"\n");
        check("X='1'\n", "X", Some("on"), "X='on'\n");
        check("X=\"a\nb\"\nY=1\n", "X", Some("on"), "X=\"on\"\nY=1\n");
        check("X=1\r\nY=2\r\n", "X", Some("on"), "X=on\r\nY=2\r\n");
        check("X=1\r\n", "Y", Some("on"), "X=1\r\nY=on\r\n");
        check("X=1", "Y", Some("on"), "X=1\nY=on");
        check("X=1", "X", Some("on"), "X=on");
        check("", "X", Some("on"), "X=on\n");
        check("X = 1\n", "X", Some("on"), "X=on\n");
        check("X=\n", "X", Some("on"), "X=on\n");
        check("X= # nothing\n", "X", Some("on"), "X=on # nothing\n");
        check("\u{feff}X=1\n", "X", Some("on"), "\u{feff}X=on\n");
        check("XY=1\nX.Y=2\n", "X", Some("on"), "XY=1\nX.Y=2\nX=on\n");
    }

    #[test]
    fn rf17_values_are_spelled_for_every_reader() {
        check("X=1\n", "X", Some("a=b"), "X=a=b\n");
        check("X=1\n", "X", Some("a b #c"), "X='a b #c'\n");
        check("X=1\n", "X", Some("it's"), "X=\"it's\"\n");
        check("X=1\n", "X", Some(""), "X=\n");
        check("X=\"1\"\n", "X", Some("a$b"), "X='a$b'\n");
        check("X=1\n", "X", Some("a\nb"), "X='a\nb'\n");
        check("X=\"1\"\n", "X", Some("say \"no\""), "X=\"say \\\"no\\\"\"\n");
        let refused = set(b"X=1\n", "X", Some("it's $5"));
        assert_eq!(refused, Err(EditError::NoSpelling { key: "X".into() }));
        assert_eq!(set(b"", "X-Y", Some("1")), Err(EditError::BadKey { key: "X-Y".into() }));
        assert_eq!(set(b"A=1\nX=\"1\n", "A", Some("2")), Err(EditError::Unclosed { line: 2 }));
    }

    #[test]
    fn rf17_unset_restores_absence() {
        check("A=1\nX=1\nB=2\nexport X=2", "X", None, "A=1\nB=2\n");
        check("A=1\n", "X", None, "A=1\n");
    }

    proptest! {
        #[test]
        fn other_definitions_read_as_before(text in "([A-C]=('[a-z \n]{0,3}'|\"[a-z]{0,3}\"|[a-z]{0,3})( #[a-z]{0,3})?(\n|\r\n)){0,6}", value in "[a-z ]{0,4}") {
            let before = read(text.as_bytes()).unwrap();
            let edited = set(text.as_bytes(), "B", Some(&value)).unwrap();
            let mut expected = before;
            expected.insert("B".into(), value);
            prop_assert_eq!(read(&edited).unwrap(), expected);
            prop_assert_eq!(count(&edited, "B").unwrap(), 1);
        }
    }
}
