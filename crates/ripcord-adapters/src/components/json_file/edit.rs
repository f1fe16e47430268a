//! Edits single values of a JSON text by their place in it, so that everything else stays byte for byte.
//!
//! The text is checked with `serde_json` first; what is left to do here is to find where values begin and end.

use std::ops::Range;

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    #[error("it is not JSON: {why}")]
    NotJson { why: String },
    #[error("`{pointer}` is no JSON pointer: it must begin with `/`, and `~` stand before 0 or 1")]
    BadPointer { pointer: String },
    #[error("`{pointer}` lies in what is neither an object nor a list")]
    NoContainer { pointer: String },
    #[error("`{pointer}` is beyond the end of its list")]
    BeyondEnd { pointer: String },
    #[error("`{pointer}` lies in an object that has the key `{key}` twice")]
    Twice { pointer: String, key: String },
}

/// The names a pointer leads through.
pub(crate) fn names(pointer: &str) -> Result<Vec<String>, EditError> {
    let bad = || EditError::BadPointer { pointer: pointer.to_owned() };
    let mut rest = pointer.strip_prefix('/').ok_or_else(bad)?.split('/');
    rest.by_ref()
        .map(|name| {
            let plain = name.replace("~1", "").replace("~0", "");
            (!plain.contains('~')).then(|| name.replace("~1", "/").replace("~0", "~")).ok_or_else(bad)
        })
        .collect()
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Value, EditError> {
    serde_json::from_slice(bytes).map_err(|error| EditError::NotJson { why: error.to_string() })
}

/// The text with `value` at `pointer`; objects missing on the way are made. Without a value what is there is taken out.
pub(crate) fn set(bytes: &[u8], pointer: &str, value: Option<&Value>) -> Result<Vec<u8>, EditError> {
    parse(bytes)?;
    let text = std::str::from_utf8(bytes).map_err(|error| EditError::NotJson { why: error.to_string() })?;
    let names = names(pointer)?;
    let edit = Edit { text, pointer };
    let mut at = edit.skip(0);
    for (depth, name) in names.iter().enumerate() {
        let last = depth + 1 == names.len();
        let container = edit.container(at)?;
        match (edit.find(&container, name)?, value) {
            (Some(i), None) if last => return Ok(edit.without(&container, i)),
            (Some(i), Some(value)) if last => return Ok(edit.replaced(&container.members[i].value, value)),
            (Some(i), _) => at = container.members[i].value.start,
            (None, None) => return Ok(bytes.to_vec()),
            (None, Some(_)) if container.list => {
                return Err(EditError::BeyondEnd { pointer: pointer.to_owned() });
            }
            (None, Some(value)) => {
                let made = names[depth + 1..]
                    .iter()
                    .rev()
                    .fold(value.clone(), |inner, name| Value::Object(std::iter::once((name.clone(), inner)).collect()));
                return Ok(edit.added(&container, name, &made));
            }
        }
    }
    Ok(bytes.to_vec())
}

struct Edit<'a> {
    text: &'a str,
    pointer: &'a str,
}

/// An object or a list, and where its members are.
struct Container {
    list: bool,
    /// Of its opening bracket.
    start: usize,
    /// Of its closing bracket.
    end: usize,
    members: Vec<Member>,
}

struct Member {
    key: String,
    /// Where the key or, in a list, the value begins.
    start: usize,
    value: Range<usize>,
}

impl Edit<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.text.as_bytes().get(at).copied().unwrap_or_default()
    }

    fn skip(&self, at: usize) -> usize {
        let rest = &self.text[at..];
        at + rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len()
    }

    /// Behind the value that begins at `at`. The text is known to be JSON, so only strings and brackets matter.
    fn value_end(&self, at: usize) -> usize {
        match self.byte(at) {
            b'"' => self.string_end(at),
            b'{' | b'[' => {
                let (mut depth, mut i) = (0_usize, at);
                loop {
                    match self.byte(i) {
                        b'"' => {
                            i = self.string_end(i);
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                    i += 1;
                    if depth == 0 || i >= self.text.len() {
                        return i;
                    }
                }
            }
            _ => {
                let end = self.text[at..].find([',', '}', ']', ' ', '\t', '\r', '\n']);
                end.map_or(self.text.len(), |n| at + n)
            }
        }
    }

    fn string_end(&self, at: usize) -> usize {
        let mut i = at + 1;
        while i < self.text.len() {
            match self.byte(i) {
                b'\\' => i += 2,
                b'"' => return i + 1,
                _ => i += 1,
            }
        }
        i
    }

    fn container(&self, at: usize) -> Result<Container, EditError> {
        let list = match self.byte(at) {
            b'[' => true,
            b'{' => false,
            _ => return Err(EditError::NoContainer { pointer: self.pointer.to_owned() }),
        };
        let mut members: Vec<Member> = Vec::new();
        let mut i = self.skip(at + 1);
        while !matches!(self.byte(i), b'}' | b']' | 0) {
            let start = i;
            let key = match list {
                true => members.len().to_string(),
                false => {
                    let end = self.string_end(i);
                    let key = serde_json::from_str(&self.text[i..end])
                        .map_err(|error| EditError::NotJson { why: error.to_string() })?;
                    i = self.skip(self.skip(end) + 1);
                    key
                }
            };
            let value = i..self.value_end(i);
            i = self.skip(value.end);
            members.push(Member { key, start, value });
            if self.byte(i) == b',' {
                i = self.skip(i + 1);
            }
        }
        Ok(Container { list, start: at, end: i, members })
    }

    fn find(&self, container: &Container, name: &str) -> Result<Option<usize>, EditError> {
        let mut found = container.members.iter().enumerate().filter(|(_, member)| member.key == name).map(|(i, _)| i);
        match (found.next(), found.next()) {
            // Readers differ in which one they take.
            (Some(_), Some(_)) => Err(EditError::Twice { pointer: self.pointer.to_owned(), key: name.to_owned() }),
            (first, _) => Ok(first),
        }
    }

    fn replaced(&self, place: &Range<usize>, value: &Value) -> Vec<u8> {
        // An equal value stays as it is spelled.
        if serde_json::from_str::<Value>(&self.text[place.clone()]).is_ok_and(|is| is == *value) {
            return self.text.as_bytes().to_vec();
        }
        format!("{}{value}{}", &self.text[..place.start], &self.text[place.end..]).into_bytes()
    }

    fn without(&self, container: &Container, i: usize) -> Vec<u8> {
        let members = &container.members;
        let taken = match (i.checked_sub(1).and_then(|before| members.get(before)), members.get(i + 1)) {
            // From behind the one before, so that its comma goes too; else up to the next.
            (Some(before), _) => before.value.end..members[i].value.end,
            (None, Some(next)) => members[i].start..next.start,
            (None, None) => container.start + 1..container.end,
        };
        format!("{}{}", &self.text[..taken.start], &self.text[taken.end..]).into_bytes()
    }

    fn added(&self, container: &Container, name: &str, value: &Value) -> Vec<u8> {
        let key = Value::String(name.to_owned());
        let (at, added) = match container.members.last() {
            Some(last) => {
                // Set off as its neighbours are.
                let blank = |from: usize, to: usize| self.text[from..to].to_owned();
                let lead = match container.members.len() {
                    1 => blank(container.start + 1, last.start),
                    n => {
                        let before = container.members[n - 2].value.end;
                        blank(before, last.start).replacen(',', "", 1)
                    }
                };
                let lead =
                    if lead.is_empty() && self.text[..last.value.start].ends_with(' ') { " ".into() } else { lead };
                let colon = if self.text[..last.value.start].ends_with(' ') { ": " } else { ":" };
                (last.value.end, format!(",{lead}{key}{colon}{value}"))
            }
            None => (container.start + 1, format!("{key}: {value}")),
        };
        format!("{}{added}{}", &self.text[..at], &self.text[at..]).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(before: &str, pointer: &str, value: Option<Value>, after: &str) {
        let edited = set(before.as_bytes(), pointer, value.as_ref()).unwrap();
        assert_eq!(String::from_utf8(edited.clone()).unwrap(), after);
        assert_eq!(parse(&edited).unwrap().pointer(pointer), value.as_ref());
        assert_eq!(set(&edited, pointer, value.as_ref()).unwrap(), edited, "twice is once");
    }

    #[test]
    fn everything_else_stays_byte_for_byte() {
        check(
            r#"{ "b":1.50,  "x" : true,"a":[1, 2]}"#,
            "/x",
            Some(json!(false)),
            r#"{ "b":1.50,  "x" : false,"a":[1, 2]}"#,
        );
        check(
            "{\n  \"f\": {\n    \"x\": true\n  }\n}\n",
            "/f/x",
            Some(json!(false)),
            "{\n  \"f\": {\n    \"x\": false\n  }\n}\n",
        );
        check("{\r\n\t\"a\": \"}\\\"\"\r\n}", "/a", Some(json!("é")), "{\r\n\t\"a\": \"é\"\r\n}");
        check(r#"{"a":[{"b":1},{"b":2}]}"#, "/a/1/b", Some(json!(3)), r#"{"a":[{"b":1},{"b":3}]}"#);
        check(r#"{"a/b":{"~":1}}"#, "/a~1b/~0", Some(json!(null)), r#"{"a/b":{"~":null}}"#);
    }

    #[test]
    fn a_new_key_is_set_off_as_its_neighbours_are() {
        check("{\n  \"a\": 1\n}\n", "/b", Some(json!(2)), "{\n  \"a\": 1,\n  \"b\": 2\n}\n");
        check(r#"{"a":1,"b":2}"#, "/c", Some(json!(3)), r#"{"a":1,"b":2,"c":3}"#);
        check(r#"{"a": 1, "b": 2}"#, "/c", Some(json!(3)), r#"{"a": 1, "b": 2, "c": 3}"#);
        check("{}", "/f/x", Some(json!(false)), r#"{"f": {"x":false}}"#);
    }

    #[test]
    fn taking_a_key_out_leaves_no_comma() {
        check(r#"{"a":1,"b":2,"c":3}"#, "/b", None, r#"{"a":1,"c":3}"#);
        check(r#"{"a":1,"b":2}"#, "/a", None, r#"{"b":2}"#);
        check(r#"{"a":1}"#, "/a", None, "{}");
        check("{\n  \"a\": 1,\n  \"b\": 2\n}", "/b", None, "{\n  \"a\": 1\n}");
        check("{}", "/a/b", None, "{}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let why = |text: &str, pointer: &str| set(text.as_bytes(), pointer, Some(&json!(1))).unwrap_err().to_string();
        assert!(why("{", "/a").starts_with("it is not JSON"));
        assert!(why("{}", "a").contains("no JSON pointer"));
        assert!(why("{}", "/~2").contains("no JSON pointer"));
        assert!(why(r#"{"a":1}"#, "/a/b").contains("neither an object nor a list"));
        assert!(why("[1]", "/3").contains("beyond the end"));
        assert!(why(r#"{"a":1,"a":2}"#, "/a").contains("twice"));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|b| json!(b)),
            any::<i32>().prop_map(|n| json!(n)),
            ".{0,6}".prop_map(|s| json!(s))
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::btree_map("[a-c\"\\\\]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn only_the_named_value_changes(mut root in proptest::collection::btree_map("[a-c]", value(), 0..4), pretty: bool, put in value()) {
            let whole = Value::Object(root.clone().into_iter().collect());
            let text = if pretty { serde_json::to_string_pretty(&whole).unwrap() } else { whole.to_string() };
            let edited = set(text.as_bytes(), "/b", Some(&put)).unwrap();
            root.insert("b".into(), put);
            prop_assert_eq!(parse(&edited).unwrap(), Value::Object(root.clone().into_iter().collect()));
            let taken = set(&edited, "/b", None).unwrap();
            root.remove("b");
            prop_assert_eq!(parse(&taken).unwrap(), Value::Object(root.into_iter().collect()));
        }
    }
}
