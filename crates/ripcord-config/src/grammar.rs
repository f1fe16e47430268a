//! What the parser says, in words for whoever wrote the file. The parser speaks to programmers (anchors, events, policies).

use std::borrow::Cow;

use serde_saphyr::{Error, Location, MessageFormatter, UserMessageFormatter};

use crate::report::{Finding, Level, Spot};
use crate::tree::spot_of;

/// A parser's error as a mistake in the file.
pub(crate) fn fault(error: &Error, text: &str) -> Finding {
    let location = match innermost(error) {
        // The reference is where a person can do something about an alias.
        Error::AliasError { locations, .. } => locations.primary_location(),
        other => other.location(),
    };
    let mut spot = location.filter(|l| l.line() > 0).map(|location| place(location, text));
    let (mut what, mut help) = (Words.format_message(unwrapped(error)).into_owned(), advice(unwrapped(error)));
    if let Some(tab) = tab_before(text, spot)
        && matches!(
            unwrapped(error),
            Error::ExternalMessage { .. } | Error::Unexpected { .. } | Error::IndentationError { .. }
        )
    {
        (what, help) = ("a tab is used for indentation".into(), "indent with spaces".into());
        spot = Some(tab);
    } else if let Error::ExternalMessage { msg, .. } = unwrapped(error)
        && ["did not find expected key", "did not find expected '-'"].iter().any(|part| msg.contains(part))
        && let Some(line) = misfit(text)
    {
        // The parser says where the mapping begins, which may be pages above.
        what = "the indentation of this line fits no line above it".into();
        help = "indent what belongs together by the same number of spaces".into();
        spot = Some(line);
    }
    Finding { level: Level::Error, what, help: Some(help.into_owned()), spot, conceal: false }
}

/// The place of an error. Those of the scanner come with line and column only.
fn place(location: Location, text: &str) -> Spot {
    if location.span().byte_offset().is_some() {
        return spot_of(location);
    }
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).saturating_sub(1);
    let (line, column) = (number(location.line()), number(location.column()));
    let start = text.split_inclusive('\n').take(line).map(str::len).sum::<usize>();
    let rest = text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
    let within = rest.char_indices().nth(column).map_or(rest.len(), |(i, _)| i);
    // At the end of the text: the last line that says something.
    match rest.is_empty() && start >= text.len() {
        true => {
            let end = text.trim_end().len();
            let last = text[..end].rfind('\n').map_or(0, |i| i + 1);
            Spot { start: last, end: end.max(last + 1) }
        }
        false => Spot { start: start + within, end: start + within + 1 },
    }
}

fn innermost(error: &Error) -> &Error {
    match error {
        Error::WithSnippet { error, .. } => innermost(error),
        error => error,
    }
}

fn unwrapped(error: &Error) -> &Error {
    match error {
        Error::WithSnippet { error, .. } | Error::AliasError { error, .. } => unwrapped(error),
        error => error,
    }
}

/// A tab in the indentation of the line in question, or of the one before it.
fn tab_before(text: &str, spot: Option<Spot>) -> Option<Spot> {
    let at = spot.map_or(text.len(), |spot| spot.start.min(text.len()));
    let line = text.get(..at)?.matches('\n').count();
    let mut start = 0;
    let mut found = None;
    for (number, content) in text.split('\n').enumerate().take(line + 1) {
        let indentation = content.len() - content.trim_start().len();
        if let Some(tab) = content[..indentation].find('\t')
            && number + 1 >= line
            && !content.trim().is_empty()
        {
            found = Some(Spot { start: start + tab, end: start + tab + 1 });
        }
        start += content.len() + 1;
    }
    found
}

/// The first line that is indented as no open line above it is.
fn misfit(text: &str) -> Option<Spot> {
    let mut open = vec![];
    let mut start = 0;
    for line in text.split('\n') {
        let indentation = line.len() - line.trim_start_matches(' ').len();
        let content = line.trim();
        if !content.is_empty() && !content.starts_with('#') {
            while open.last().is_some_and(|top| *top > indentation) {
                open.pop();
                if open.last().is_none_or(|top| *top < indentation) {
                    return Some(Spot { start: start + indentation, end: start + line.len() });
                }
            }
            if open.last() != Some(&indentation) {
                open.push(indentation);
            }
        }
        start += line.len() + 1;
    }
    None
}

/// The parser's messages in our words.
struct Words;

impl MessageFormatter for Words {
    fn format_message<'a>(&self, error: &'a Error) -> Cow<'a, str> {
        match error {
            Error::DuplicateMappingKey { key: Some(key), .. } => {
                format!("`{key}` is written twice in one mapping").into()
            }
            Error::DuplicateMappingKey { .. } => "a key is written twice in one mapping".into(),
            Error::MultipleDocuments { .. } => "there is a second document in the file (after `---` or `...`)".into(),
            Error::UnknownAnchor { .. } => "this `*name` refers to an `&name` that is not there".into(),
            Error::RecursiveReferencesRequireWeakTypes { .. } => "this `*name` contains itself".into(),
            Error::UnsupportedTag { tag, .. } => format!("the tag `{tag}` means nothing here").into(),
            Error::NullIntoString { .. } | Error::Unexpected { .. } => "a key must be a text".into(),
            Error::MergeValueNotMapOrSeqOfMaps { .. } => "`<<` can only take in a mapping".into(),
            Error::AliasReplayCounterOverflow { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasExpansionLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. }
            | Error::Budget { .. } => budget(error),
            Error::ExternalMessage { msg, .. } => format!("this is not valid YAML: {}", scanner(msg)).into(),
            other => format!("this is not valid YAML: {}", UserMessageFormatter.format_message(other)).into(),
        }
    }
}

fn budget(error: &Error) -> Cow<'static, str> {
    use serde_saphyr::budget::BudgetBreach as Breach;
    match error {
        Error::Budget { breach: Breach::Depth { .. }, .. } => "it is nested too deeply".into(),
        Error::Budget { breach: Breach::Documents { .. }, .. } => "there are several documents in the file".into(),
        Error::Budget { breach: Breach::Events { .. } | Breach::Nodes { .. } | Breach::ScalarBytes { .. }, .. } => {
            "there is more in the file than any configuration holds".into()
        }
        _ => "the `&name` and `*name` in the file multiply to more than any configuration holds".into(),
    }
}

/// The scanner's texts, those that people meet.
fn scanner(message: &str) -> String {
    let lower = message.to_lowercase();
    let has = |part: &str| lower.contains(part);
    if has("mapping values are not allowed") {
        "a `: ` where no key can stand; a text that holds one needs quotes".into()
    } else if has("recursion limit") || has("nesting") {
        "it is nested too deeply".into()
    } else if has("simple key expected") || has("could not find expected ':'") {
        "a line without `: ` where `key: value` is expected".into()
    } else if has("quoted scalar") {
        "a quote is opened and not closed".into()
    } else if has("expected ',' or '}'") || has("expected ',' or ']'") || has("unclosed bracket") {
        "a bracket is opened and not closed, or a comma is missing".into()
    } else if has("misplaced bracket") {
        "a bracket where none can stand; a `:` needs a space after it, and a text that begins with a bracket needs quotes".into()
    } else if has("did not find expected key") || has("invalid indentation") || has("block entries are not allowed") {
        "the indentation fits no line above it".into()
    } else if has("tabs disallowed") || has("tab") && has("indent") {
        "a tab is used for indentation".into()
    } else {
        message.to_owned()
    }
}

fn advice(error: &Error) -> Cow<'static, str> {
    match error {
        Error::DuplicateMappingKey { .. } => "keep one of them, or give one another name".into(),
        Error::MultipleDocuments { .. } => {
            "one file holds one application; what differs between environments goes under `environments:`".into()
        }
        Error::UnknownAnchor { .. } => "a text that begins with `*` needs quotes".into(),
        Error::RecursiveReferencesRequireWeakTypes { .. } => "write it out".into(),
        Error::UnsupportedTag { .. } => "a text that begins with `!` needs quotes".into(),
        Error::NullIntoString { .. } | Error::Unexpected { .. } => "write `key: value`".into(),
        Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::Budget { .. } => "write less of it, or write it out".into(),
        _ => "look at this line and the one above: indentation, quotes, brackets, and a space after each `:`".into(),
    }
}
