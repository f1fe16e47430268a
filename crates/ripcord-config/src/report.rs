//! Mistakes as people read them: where, the line shown, what is wrong, what to do; several at once.

use std::cell::{Cell, RefCell};
use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level as Shown, Renderer, Snippet};
use serde::Serialize;

/// Everything found in one file, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub diagnostics: Vec<Diagnostic>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Diagnostic {
    pub level: Level,
    /// What is wrong, in one line.
    pub what: String,
    pub file: String,
    /// Counted from 1; absent where the mistake is not in any line (the file cannot be read).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<LineSpot>,
    /// The path of what is wrong within the file (`components.web.needs[0]`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// A place in a line, and the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineSpot {
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// How many characters it is about.
    pub width: usize,
    /// The line as written; without what stands there where that is a secret.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Error,
    Warning,
}

impl Report {
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|d| d.level == Level::Error).count()
    }

    /// The report for a terminal: each mistake with its line, then how many there are.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let parts: Vec<String> = self.diagnostics.iter().map(|d| d.render(&renderer)).collect();
        parts.join("\n\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

impl Diagnostic {
    fn render(&self, renderer: &Renderer) -> String {
        let level = match self.level {
            Level::Error => Shown::ERROR,
            Level::Warning => Shown::WARNING,
        };
        let mut group = match &self.spot {
            None => Group::with_title(level.primary_title(format!("{}: {}", self.file, self.what))),
            Some(at) => {
                let byte = |characters: usize| at.text.char_indices().nth(characters).map_or(at.text.len(), |(i, _)| i);
                let range = byte(at.column - 1)..byte(at.column - 1 + at.width);
                let mark =
                    AnnotationKind::Primary.span(range).label(self.path.as_ref().map(|path| format!("in {path}")));
                let snippet =
                    Snippet::source(at.text.as_str()).line_start(at.line).path(self.file.as_str()).annotation(mark);
                Group::with_title(level.primary_title(self.what.as_str())).element(snippet)
            }
        };
        if let Some(help) = &self.help {
            group = group.element(Shown::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// A place in the text, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Spot {
    pub start: usize,
    pub end: usize,
}

/// A mistake found, not yet tied to the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub level: Level,
    pub what: String,
    pub help: Option<String>,
    pub spot: Option<Spot>,
    /// What stands at the spot must not be shown.
    pub conceal: bool,
}

/// Where mistakes are collected while reading goes on; those beyond [`MOST`] are only counted.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    kept: RefCell<Vec<Finding>>,
    more: Cell<usize>,
}

/// Nobody mends more in one go, and a file of nothing but mistakes must not become a report of megabytes.
const MOST: usize = 100;

impl Findings {
    pub fn push(&self, finding: Finding) {
        let mut kept = self.kept.borrow_mut();
        if kept.contains(&finding) {
            return;
        }
        match kept.len() < MOST {
            true => kept.push(finding),
            false => self.more.set(self.more.get() + 1),
        }
    }
    /// Takes in what another collected.
    pub fn absorb(&self, other: Self) {
        self.more.set(self.more.get() + other.more.get());
        other.kept.into_inner().into_iter().for_each(|finding| self.push(finding));
    }
    pub fn error(&self, spot: Spot, what: impl Into<String>, help: impl Into<String>) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        self.push(Finding { level: Level::Error, what: what.into(), help, spot: Some(spot), conceal: false });
    }
    pub fn warning(&self, spot: Spot, what: impl Into<String>, help: impl Into<String>) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        self.push(Finding { level: Level::Warning, what: what.into(), help, spot: Some(spot), conceal: false });
    }
    pub fn any(&self, is: impl Fn(&Finding) -> bool) -> bool {
        self.kept.borrow().iter().any(is)
    }
    pub fn failed(&self) -> bool {
        self.any(|f| f.level == Level::Error)
    }
    pub fn into_inner(self) -> Vec<Finding> {
        let mut all = self.kept.into_inner();
        if self.more.get() > 0 {
            // Whichever were kept are a sample: there may be errors among the rest.
            let what = format!("there are {} more mistakes", self.more.get());
            let help = Some("mend these first".into());
            all.push(Finding { level: Level::Error, what, help, spot: None, conceal: false });
        }
        all
    }
}

/// Ties findings to the text they are about.
pub(crate) fn report(
    file: &str,
    text: &str,
    findings: Vec<Finding>,
    path_of: impl Fn(Spot) -> Option<String>,
) -> Report {
    let mut findings = findings;
    // What is about the whole file comes first where it is alone, and last where it sums up.
    findings.sort_by_key(|f| (f.spot.is_none(), f.spot, f.level));
    let diagnostics = findings
        .into_iter()
        .map(|finding| Diagnostic {
            level: finding.level,
            what: printable(&finding.what),
            file: file.to_owned(),
            spot: finding.spot.map(|spot| line_spot(text, spot, finding.conceal)),
            path: finding.spot.and_then(&path_of).map(|path| printable(&path)),
            help: finding.help.as_deref().map(printable),
        })
        .collect();
    Report { diagnostics }
}

/// Text out of a file must not steer the terminal it is shown on.
fn printable(text: &str) -> String {
    let plain = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if plain(c) { c.to_string() } else { c.escape_debug().to_string() }).collect()
}

/// The line as it is, but for what a terminal would obey: one sign for one, so that columns stay.
fn harmless(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// The longest line shown whole; of a longer one, the surroundings.
const SHOWN_BYTES: usize = 2_000;

fn line_spot(text: &str, spot: Spot, conceal: bool) -> LineSpot {
    let floor = |at: usize| (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    let (start, end) = (floor(spot.start), floor(spot.end.max(spot.start)));
    let begin = text[..start].rfind('\n').map_or(0, |i| i + 1);
    let finish = text[start..].find('\n').map_or(text.len(), |i| i + start);
    let line = text[..begin].bytes().filter(|b| *b == b'\n').count() + 1;
    let column = text[begin..start].chars().count() + 1;
    // What goes on over several lines is marked to the end of the first.
    let end = end.min(finish);
    let width = text[start..end].trim_end().chars().count().max(1);
    // A line of a megabyte is cut before anything is done with it; its column stays that of the file.
    let finish = floor(finish.min(begin + SHOWN_BYTES.max(end - begin)));
    let shown = text[begin..finish].trim_end_matches('\r');
    match conceal {
        false => LineSpot { line, column, width, text: harmless(shown) },
        true => LineSpot { line, column, width: REDACTED.len(), text: format!("{}{REDACTED}", &text[begin..start]) },
    }
}

const REDACTED: &str = ripcord_core::REDACTED;

/// The one of `known` that was probably meant by `written`.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase().replace('_', "-");
    let limit = written.chars().count().div_ceil(3).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (distance(&written, name), name))
        .filter(|(far, name)| *far <= limit || (written.len() > 2 && name.starts_with(&written)))
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words. Words beyond any name's length are far away.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(80).collect(), b.chars().take(80).collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// `did you mean ...?` where one is near, else what there is.
pub(crate) fn suggest<'a>(written: &str, known: impl IntoIterator<Item = &'a str> + Clone, there_are: &str) -> String {
    match nearest(written, known.clone()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => {
            let names: Vec<String> = known.into_iter().take(24).map(|name| format!("`{name}`")).collect();
            match names.is_empty() {
                true => format!("{there_are}: none"),
                false => format!("{there_are}: {}", names.join(", ")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["needs", "health", "layer", "at-least", "environments"];
        assert_eq!(nearest("need", known), Some("needs"));
        assert_eq!(nearest("haelth", known), Some("health"));
        assert_eq!(nearest("at_least", known), Some("at-least"));
        assert_eq!(nearest("env", known), Some("environments"));
        assert_eq!(nearest("colour", known), None);
    }

    #[test]
    fn places_are_counted_in_characters_and_secrets_are_not_shown() {
        let text = "a: 1\nkäse: hunter2\n";
        let start = text.find("hunter2").unwrap();
        let at = line_spot(text, Spot { start, end: start + 7 }, false);
        assert_eq!((at.line, at.column, at.width, at.text.as_str()), (2, 7, 7, "käse: hunter2"));
        assert_eq!(line_spot(text, Spot { start, end: start + 7 }, true).text, "käse: [redacted]");
        // Whatever is given, a place is found.
        assert_eq!(line_spot(text, Spot { start: 7, end: 999 }, false).line, 2);
        assert_eq!(line_spot("", Spot { start: 7, end: 3 }, false).line, 1);
    }

    #[test]
    fn nothing_in_a_message_steers_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb"), "a\\u{1b}[31mb");
    }
}
