//! Markdown that says what the data says, whatever the data is.
//!
//! Names, outputs and reasons come from outside: a pipe in one must not add a column, a line break no heading, a tag no HTML. Every
//! text from the record goes through [`text`] or [`code`]; commands, which must stay copyable, go into a fence. Invisible characters
//! (control, direction, zero width) are shown as their code, for a line that reads differently than it runs is an attack.
//! Source: CommonMark 0.31, sections 2.4 (backslash escapes) and 4.5 (fences); GitHub Flavored Markdown, Tables.

use std::fmt::{Display, Write as _};

/// Plain text on one line, in which nothing has a meaning but a plain name between backticks: sentences of ours quote names so, and
/// a name of letters, digits and `-_./:@` cannot end its span early.
pub(crate) fn text(data: impl Display) -> String {
    let line = one_line(&data.to_string());
    let mut out = String::with_capacity(line.len() + 8);
    let mut before = ' ';
    let mut rest = line.chars().peekable();
    let mut at = 0;
    let mut span_ends = 0;
    while let Some(c) = rest.next() {
        let here = at;
        at += c.len_utf8();
        if c == '`' && here >= span_ends {
            span_ends = span(&line, here);
        }
        if here < span_ends {
            out.push(c);
            before = c;
            continue;
        }
        let inside_word = before.is_alphanumeric() && rest.peek().is_some_and(|next| next.is_alphanumeric());
        let special = match c {
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|' | '~' | '&' | '$' => true,
            '_' => !inside_word,
            // What begins a heading, a list or a rule where the text begins a line.
            '#' | '+' | '-' | '=' => out.is_empty(),
            '.' | ')' => {
                let number = !out.is_empty() && out.chars().all(|c| c.is_ascii_digit());
                number && rest.peek().is_none_or(|next| *next == ' ')
            }
            _ => false,
        };
        if special {
            out.push('\\');
        }
        out.push(c);
        before = c;
    }
    out
}

/// Where the quoted name that begins at `here` ends; `here` itself where none does.
fn span(line: &str, here: usize) -> usize {
    let name = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    let rest = &line[here + 1..];
    let length = rest.find(|c| !name(c)).unwrap_or(rest.len());
    // A backtick right before or behind would make it a longer run, which pairs with others.
    let alone = !line[..here].ends_with('`') && !rest[length..].starts_with("``");
    if length > 0 && alone && rest[length..].starts_with('`') { here + length + 2 } else { here }
}

/// A name or a command word in monospace; plain text where it holds what a code span in a table cannot.
pub(crate) fn code(data: impl Display) -> String {
    let data = data.to_string();
    let plain = data.contains(['`', '|']) || data.trim() != data || data.is_empty() || data.chars().any(is_invisible);
    if plain { text(data) } else { format!("`{data}`") }
}

/// An argument vector as one would type it: quoted only where a shell needs it, line breaks and the like in `$'...'`.
pub(crate) fn typed(argv: &[String]) -> String {
    argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if !word.chars().any(is_invisible) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let mut out = "$'".to_owned();
    for c in word.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\'' | '\\' => out.extend(['\\', c]),
            c if is_invisible(c) => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "'"
}

fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn one_line(data: &str) -> String {
    let mut out = String::with_capacity(data.len());
    for c in data.trim().chars() {
        match c {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c if is_invisible(c) => {
                let _ = write!(out, "(U+{:04X})", u32::from(c));
            }
            c => out.push(c),
        }
    }
    match out.is_empty() {
        true => "(empty)".to_owned(),
        false => out,
    }
}

/// A document being written. What is handed to it is Markdown already.
#[derive(Default)]
pub(crate) struct Page(String);

impl Page {
    pub(crate) fn heading(&mut self, level: usize, words: &str) {
        let _ = writeln!(self.0, "{} {words}\n", "#".repeat(level));
    }

    pub(crate) fn para(&mut self, words: &str) {
        let _ = writeln!(self.0, "{words}\n");
    }

    pub(crate) fn bullets(&mut self, items: impl IntoIterator<Item = String>) {
        for item in items {
            let _ = writeln!(self.0, "- {item}");
        }
        self.0.push('\n');
    }

    pub(crate) fn table(&mut self, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let _ = writeln!(self.0, "| {} |", head.join(" | "));
        let _ = writeln!(self.0, "|{}", "---|".repeat(head.len()));
        for row in rows {
            debug_assert_eq!(row.len(), head.len());
            let _ = writeln!(self.0, "| {} |", row.join(" | "));
        }
        self.0.push('\n');
    }

    /// Lines as they are, between fences longer than any in them.
    pub(crate) fn fence(&mut self, language: &str, lines: &[String]) {
        let ticks = lines.iter().flat_map(|line| line.split(|c| c != '`')).map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(ticks.max(2) + 1);
        let _ = writeln!(self.0, "{fence}{language}\n{}\n{fence}\n", lines.join("\n"));
    }

    pub(crate) fn finish(self) -> String {
        format!("{}\n", self.0.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_stays_text() {
        let check = |data: &str, expected: &str| assert_eq!(text(data), expected, "{data:?}");
        check("a|b", r"a\|b");
        check(r"a\|b", r"a\\\|b");
        check("`x`", "`x`");
        check("`restore/web` failed", "`restore/web` failed");
        check("`a`b`c`", r"`a`b`c`");
        check("``x``", r"\`\`x\`\`");
        check("`x``", r"\`x\`\`");
        check("`a b`", r"\`a b\`");
        check("`<b>`", r"\`\<b\>\`");
        check("`x|y`", r"\`x\|y\`");
        check("`", r"\`");
        check("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>");
        check("&lt;", r"\&lt;");
        check("one\n# two", "one # two");
        check("# one", r"\# one");
        check("- one", r"\- one");
        check("1. one", r"1\. one");
        check("v1.0.0 of 3.5", "v1.0.0 of 3.5");
        check("![x](y)", r"!\[x\](y)");
        check("*bold* _too_ snake_case", r"\*bold\* \_too\_ snake_case");
        check("a\u{202e}b\u{1b}[31m", r"a(U+202E)b(U+001B)\[31m");
        check(" \n ", "(empty)");
    }

    #[test]
    fn code_never_ends_early_and_adds_no_column() {
        assert_eq!(code("restore/web"), "`restore/web`");
        assert_eq!(code("a`b"), r"a\`b");
        assert_eq!(code("a|b"), r"a\|b");
        assert_eq!(code("a\nb"), "a b");
        assert_eq!(code(""), "(empty)");
    }

    #[test]
    fn commands_can_be_typed_again() {
        let check = |argv: &[&str], expected: &str| {
            assert_eq!(typed(&argv.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()), expected);
        };
        check(&["git", "checkout", "--", "v1.0.0"], "git checkout -- v1.0.0");
        check(&["sh", "-c", "echo 'a' | b"], r"sh -c 'echo '\''a'\'' | b'");
        check(&["printf", "a\nb'", ""], r"printf $'a\nb\'' ''");
    }

    #[test]
    fn a_fence_is_longer_than_what_it_holds() {
        let mut page = Page::default();
        page.fence("sh", &["echo '````'".to_owned()]);
        assert_eq!(page.finish(), "`````sh\necho '````'\n`````\n");
    }
}
