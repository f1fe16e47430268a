//! `.env`, read as dotenv reads it: the last definition of a key wins.
//!
//! Understood: comments, blank lines, `export`, spaces around `=`, single and double quotes (over several lines too),
//! `\n`, `\t`, `\r`, `\"` and `\\` within double quotes, CRLF, a byte order mark, no final newline. A line that defines
//! nothing is skipped, as dotenv skips it. There is no expansion of `$NAME`.
//! Source: README of motdotla/dotenv; for `#` the rule of Compose and python-dotenv, which want a blank before it.
use super::ShopError;
use std::{collections::BTreeMap, fmt, fs, path::Path};

/// The settings of a shop. Printed, it shows keys only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EnvFile {
    values: BTreeMap<String, String>,
}

impl EnvFile {
    /// # Errors
    /// [`ShopError::File`] when the file cannot be read; bytes that are not UTF-8 are replaced, not refused.
    pub fn read(path: &Path) -> Result<Self, ShopError> {
        let bytes = fs::read(path).map_err(ShopError::file("read", path))?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    pub fn parse(text: &str) -> Self {
        let mut values = BTreeMap::new();
        let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        while !rest.is_empty() {
            let (entry, after) = next_entry(rest);
            values.extend(entry);
            rest = after;
        }
        Self { values }
    }

    /// The value of `key`: empty where it was set to nothing, `None` where it was not set.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The keys that are plainly `true` or `false`. No other value is ever safe to show.
    pub fn toggles(&self) -> BTreeMap<&str, bool> {
        self.values.iter().filter_map(|(key, value)| Some((key.as_str(), as_toggle(value)?))).collect()
    }

    /// Whether the toggle `key` is on; anything but `true` is off.
    pub fn is_on(&self, key: &str) -> bool {
        self.value(key).and_then(as_toggle).unwrap_or(false)
    }
}

impl fmt::Debug for EnvFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.keys().map(|key| (key, "[redacted]"))).finish()
    }
}

fn as_toggle(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The definition at the head of `text`, if there is one, and what follows it.
fn next_entry(text: &str) -> (Option<(String, String)>, &str) {
    let (line, after_line) = text.split_once('\n').unwrap_or((text, ""));
    let Some((key, value)) = split_key(line) else {
        return (None, after_line);
    };
    // A quoted value may go on past the line, so it is looked for in the whole text.
    let from_value = &text[line.len() - value.len()..];
    match quoted(from_value) {
        Some((value, rest)) => (Some((key, value)), rest.split_once('\n').map_or("", |(_, after)| after)),
        None => (Some((key, unquoted(value))), after_line),
    }
}

/// `[export] KEY =`, and the part of the line behind it with leading blanks removed.
fn split_key(line: &str) -> Option<(String, &str)> {
    let (left, right) = line.split_once('=')?;
    let left = left.trim();
    let key = match left.strip_prefix("export") {
        Some(name) if name.starts_with([' ', '\t']) => name.trim_start(),
        _ => left,
    };
    let well_formed = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    well_formed.then(|| (key.to_owned(), right.trim_start()))
}

/// The value between quotes at the head of `text`, and what follows. `None` without an opening or a closing quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Some((value, &text[at + 1..])),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                escaped @ ('"' | '\\') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            _ => value.push(c),
        }
    }
    None
}

fn unquoted(value: &str) -> String {
    let comment = value.char_indices().find(|(at, c)| *c == '#' && (*at == 0 || value[..*at].ends_with([' ', '\t'])));
    value[..comment.map_or(value.len(), |(at, _)| at)].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let seen = EnvFile::parse(text);
        let seen: Vec<_> = seen.values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(seen, expected, "reading {text:?}");
    }

    // RF17: whatever a toggle's line looks like, the process must read the value that the writer meant.
    #[test]
    fn rf17_each_way_of_writing_a_line_is_read_as_dotenv_reads_it() {
        check("A=1\nA=2\n", &[("A", "2")]);
        check("A=1\nexport A=2\n", &[("A", "2")]);
        check("A=1\n# A=2\n  # A=3\n", &[("A", "1")]);
        check("A=1", &[("A", "1")]);
        check("\u{feff}A=1\r\nB = two words \r\n", &[("A", "1"), ("B", "two words")]);
        check("A=\nB=''\nC=\"\"\n", &[("A", ""), ("B", ""), ("C", "")]);
        check("A=x # comment\nB=x#y\nC=#z\n", &[("A", "x"), ("B", "x#y"), ("C", "")]);
        check("A='x # y' # comment\nB=\"x # y\"\n", &[("A", "x # y"), ("B", "x # y")]);
        check("A=a=b=c\n", &[("A", "a=b=c")]);
        check(r#"A="a\nb\t\"c\"\\ \d""#, &[("A", "a\nb\t\"c\"\\ \\d")]);
        check(r"A='a\nb'", &[("A", r"a\nb")]);
        check("A=\"one\ntwo\"\nB=1\n", &[("A", "one\ntwo"), ("B", "1")]);
        check("A='one\r\ntwo' trailing\nB=1\n", &[("A", "one\r\ntwo"), ("B", "1")]);
        check("A=\"never closed\nB=1\n", &[("A", "\"never closed"), ("B", "1")]);
        check("A=it's\n", &[("A", "it's")]);
        check("just words\n=1\nA B=1\nexport\n\nC=1\n", &[("C", "1")]);
        check("export\tA=1\nexported=2\n", &[("A", "1"), ("exported", "2")]);
        check("A=é # ü\n", &[("A", "é")]);
        // The trap of appending to a file without a final newline: both values are lost, and seen to be lost.
        check("A=trueB=false", &[("A", "trueB=false")]);
        check("", &[]);
    }

    #[test]
    fn rf29_only_true_and_false_are_shown() {
        let env = EnvFile::parse("ON=True\nOFF=false\nTOKEN=hunter2\nNUMBER=1\n");
        assert_eq!(env.toggles(), BTreeMap::from([("ON", true), ("OFF", false)]));
        assert!(env.is_on("ON") && !env.is_on("OFF") && !env.is_on("TOKEN") && !env.is_on("ABSENT"));
        let shown = format!("{env:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}
