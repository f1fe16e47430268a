//! Paths as text: lossless for names of any bytes, and never leading outside; and patterns that name some of them.
//!
//! A path is written with `/` between names. Valid UTF-8 stands for itself, except that `\` is written `\\`; a byte that is
//! not part of valid UTF-8 is written `\xNN`. Every path has exactly one text, so that two texts that differ name two files.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::VaultError;

/// The text of a path as it stands in a manifest and in a [`crate::Source`].
pub fn path_text(path: &Path) -> String {
    text_of(path.as_os_str())
}

pub(crate) fn text_of(name: &OsStr) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.as_bytes().utf8_chunks() {
        text.extend(
            chunk.valid().split('\\').enumerate().flat_map(|(i, part)| [if i == 0 { "" } else { "\\\\" }, part]),
        );
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// The bytes behind a text; `None` when [`text_of`] would not have written it so.
pub(crate) fn name_of(text: &str) -> Option<OsString> {
    if !text.contains('\\') {
        return Some(OsString::from(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        rest = match after.strip_prefix('\\') {
            Some(rest) => {
                bytes.push(b'\\');
                rest
            }
            None => {
                let hex = after.strip_prefix('x')?;
                bytes.push(u8::from_str_radix(hex.get(..2)?, 16).ok()?);
                hex.get(2..)?
            }
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    let name = OsString::from_vec(bytes);
    (text_of(&name) == text).then_some(name)
}

/// The relative path behind `text`, which names something inside and nothing else; `""` is the inside itself.
pub(crate) fn inside(text: &str) -> Result<PathBuf, VaultError> {
    let bad = |why| VaultError::BadPath { path: text.to_owned(), why };
    let path = name_of(text)
        .ok_or_else(|| bad("`\\` must be written `\\\\`, and only bytes that are not UTF-8 as `\\xNN`"))?;
    if path.is_empty() {
        return Ok(PathBuf::new());
    }
    for name in path.as_bytes().split(|byte| *byte == b'/') {
        match name {
            b"" => return Err(bad("it is absolute or has an empty name in it")),
            b"." | b".." => return Err(bad("`.` and `..` lead elsewhere")),
            _ if name.contains(&0) => return Err(bad("it contains a zero byte")),
            _ => {}
        }
    }
    Ok(PathBuf::from(path))
}

/// Orders paths so that a directory comes right before all it holds: `a`, `a/b`, `a-b`.
pub(crate) fn order(a: &Path, b: &Path) -> Ordering {
    // No name contains `/` or zero, so with `/` as the smallest byte the order of bytes is the order of names.
    let key =
        |path: &Path| path.as_os_str().as_bytes().iter().map(|b| if *b == b'/' { 0 } else { *b }).collect::<Vec<_>>();
    key(a).cmp(&key(b))
}

/// Whether `path` or something it lies in is named by one of the patterns.
///
/// A pattern is a relative path; in its names `*` stands for any characters and `?` for one; a name `**` for any number of names.
pub fn excepted(path: &str, patterns: &[String]) -> bool {
    let names: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    patterns.iter().any(|pattern| {
        let pattern: Vec<&str> = pattern.trim_end_matches('/').split('/').collect();
        (1..=names.len()).any(|n| names_match(&pattern, &names[..n]))
    })
}

fn names_match(pattern: &[&str], names: &[&str]) -> bool {
    match (pattern, names) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=names.len()).any(|n| names_match(rest, &names[n..])),
        ([first, rest @ ..], [name, names @ ..]) => {
            name_matches(first.as_bytes(), name.as_bytes()) && names_match(rest, names)
        }
        _ => false,
    }
}

fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|n| name_matches(rest, &name[n..])),
        ([b'?', rest @ ..], [_, name @ ..]) => name_matches(rest, name),
        ([a, rest @ ..], [b, name @ ..]) => a == b && name_matches(rest, name),
        _ => false,
    }
}

/// Why a pattern can never match, for the person who wrote it.
pub fn pattern_mistake(pattern: &str) -> Option<&'static str> {
    match pattern {
        "" => Some("it is empty"),
        p if p.starts_with('/') => Some("it is absolute; patterns are relative to the directory"),
        p if p.split('/').any(|name| name == ".." || name == ".") => Some("`.` and `..` lead elsewhere"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn odd_names_have_one_text() {
        let text = |bytes: &[u8]| text_of(OsStr::from_bytes(bytes));
        assert_eq!(text(b"a b\n\xc3\xa9"), "a b\n\u{e9}");
        assert_eq!(text(b"a\\b\xff"), "a\\\\b\\xff");
        for other in ["\\x41", "\\xFF", "\\", "\\x4", "a\\q", "\\xé"] {
            assert_eq!(name_of(other), None, "{other}");
        }
    }

    #[test]
    fn nothing_leads_outside() {
        for text in ["/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a/.", "a\0b"] {
            assert!(inside(text).is_err(), "{text:?}");
        }
        for text in ["", "a", "a/..b", "...", "a/\\xff"] {
            assert!(inside(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_directory_comes_right_before_what_it_holds() {
        let mut paths = ["a-b", "a/b", "a", "a/b/c", "a.c"].map(Path::new);
        paths.sort_by(|a, b| order(a, b));
        assert_eq!(paths, ["a", "a/b", "a/b/c", "a-b", "a.c"].map(Path::new));
    }

    #[test]
    fn patterns_except_paths_and_what_they_hold() {
        let check = |pattern: &str, path: &str| excepted(path, &[pattern.to_owned()]);
        assert!(check("cache", "cache") && check("cache/", "cache/a/b") && !check("cache", "src/cache"));
        assert!(check("**/cache", "cache") && check("**/cache", "src/x/cache/y"));
        assert!(check("*.log", "a.log") && !check("*.log", "a/b.log") && check("logs/?.log", "logs/1.log"));
        assert!(!check("a*c", "abd") && check("a*c", "abcc") && check("**", "anything/at/all"));
        assert!(check("data", "data/") && !check("data", "data2") && check("**/data", "x/y/data/z"));
        assert!(check("**/*.log", "x/a.log") && check("a?c", "abc") && !check("a?c", "abbc"));
    }

    #[test]
    fn patterns_that_lead_elsewhere_are_mistakes() {
        for pattern in ["/data", "../data", "a/./b", ""] {
            assert!(pattern_mistake(pattern).is_some(), "{pattern}");
        }
        assert_eq!(pattern_mistake("data/**/*.db"), None);
    }

    proptest! {
        #[test]
        fn any_name_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let name = OsString::from_vec(bytes);
            prop_assert_eq!(name_of(&text_of(&name)), Some(name));
        }
    }
}
