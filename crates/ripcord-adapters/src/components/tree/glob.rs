//! Patterns over relative paths, as the vault reads its `except`.

/// Whether `path` or something it lies in is named by one of the patterns.
///
/// In the names of a pattern `*` stands for any characters and `?` for one; a name `**` for any number of names.
pub(crate) fn names(patterns: &[String], path: &str) -> bool {
    let names: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    patterns.iter().any(|pattern| {
        let pattern: Vec<&str> = pattern.trim_end_matches('/').split('/').collect();
        (1..=names.len()).any(|n| path_matches(&pattern, &names[..n]))
    })
}

fn path_matches(pattern: &[&str], names: &[&str]) -> bool {
    match (pattern, names) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=names.len()).any(|n| path_matches(rest, &names[n..])),
        ([first, rest @ ..], [name, names @ ..]) => {
            name_matches(first.as_bytes(), name.as_bytes()) && path_matches(rest, names)
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

/// Why a pattern can never match, for people who wrote it.
pub(crate) fn mistake(pattern: &str) -> Option<&'static str> {
    match pattern {
        "" => Some("it is empty"),
        p if p.starts_with('/') => Some("it is absolute; patterns are relative to the directory"),
        p if p.split('/').any(|name| name == ".." || name == ".") => Some("`.` and `..` lead elsewhere"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_what_lies_below_it() {
        let named = |pattern: &str, path: &str| names(&[pattern.to_owned()], path);
        assert!(named("data", "data") && named("data", "data/a/b") && named("data/", "data/a"));
        assert!(!named("data", "data2") && !named("data", "x/data"));
        assert!(named("**/data", "x/y/data/z") && named("**/data", "data"));
        assert!(named("*.log", "a.log") && !named("*.log", "x/a.log") && named("**/*.log", "x/a.log"));
        assert!(named("a?c", "abc") && !named("a?c", "abbc"));
    }

    #[test]
    fn patterns_that_lead_elsewhere_are_mistakes() {
        assert!(mistake("/data").is_some() && mistake("../data").is_some() && mistake("").is_some());
        assert_eq!(mistake("data/**/*.db"), None);
    }
}
