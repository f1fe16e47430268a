//! The file as a tree that remembers where everything stands.
//!
//! Everything the parser is asked for is here; what comes after it works on the tree: merging an environment in, reading types
//! out of it (`read`), and the canonical form that is digested. So several mistakes can be found in one go, and the parser can
//! be changed in one place.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Error, Location, Spanned};

use crate::report::{Finding, Findings, Level, Spot};
use crate::wire::NO_INTERPOLATION;

/// A file larger than this is no configuration.
pub(crate) const LARGEST: usize = 1 << 20;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub spot: Spot,
    pub what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Null,
    Bool(bool),
    /// A number, and how it was written (`1.10` is a version before it is a number).
    Number(serde_json::Number, String),
    Text(String),
    List(Vec<Node>),
    /// In the order written; keys are [`What::Text`].
    Map(Vec<(Node, Node)>),
}

impl Node {
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.what {
            What::Map(entries) => entries,
            _ => &[],
        }
    }
    pub fn text(&self) -> &str {
        match &self.what {
            What::Text(text) | What::Number(_, text) => text,
            _ => "",
        }
    }
    pub fn get(&self, key: &str) -> Option<(&Node, &Node)> {
        self.entries().iter().find(|(k, _)| k.text() == key).map(|(k, v)| (k, v))
    }

    /// What a person would call it.
    pub fn called(&self) -> String {
        match &self.what {
            What::Null => "nothing".into(),
            What::Bool(b) => format!("`{b}`"),
            What::Number(_, raw) => format!("the number `{raw}`"),
            What::Text(text) if text.chars().count() <= 40 && !text.contains('\n') => format!("the text `{text}`"),
            What::Text(_) => "a text".into(),
            What::List(_) => "a list".into(),
            What::Map(_) => "a mapping".into(),
        }
    }

    /// The value without places, comments and formatting; keys sorted.
    pub fn canonical(&self) -> Value {
        match &self.what {
            What::Null => Value::Null,
            What::Bool(b) => Value::Bool(*b),
            What::Number(number, _) => Value::Number(number.clone()),
            What::Text(text) => Value::String(text.clone()),
            What::List(items) => items.iter().map(Node::canonical).collect(),
            What::Map(entries) => {
                let sorted: std::collections::BTreeMap<String, Value> =
                    entries.iter().map(|(k, v)| (k.text().to_owned(), v.canonical())).collect();
                Value::Object(sorted.into_iter().collect())
            }
        }
    }

    /// This with `over` laid on it: mappings key by key, everything else replaced; `null` takes a key away.
    pub fn overlaid(&self, over: &Node) -> Node {
        let (What::Map(base), What::Map(changes)) = (&self.what, &over.what) else { return over.clone() };
        let mut merged = base.clone();
        for (key, change) in changes {
            let at = merged.iter().position(|(k, _)| k.text() == key.text());
            match (at, &change.what) {
                (Some(at), What::Null) => {
                    merged.remove(at);
                }
                (None, What::Null) => {}
                (Some(at), _) => {
                    let value = merged[at].1.overlaid(change);
                    merged[at] = (key.clone(), value);
                }
                (None, _) => merged.push((key.clone(), change.clone())),
            }
        }
        // The place stays that of the base, where the reader looks first.
        Node { spot: self.spot, what: What::Map(merged) }
    }

    /// The path of what begins at `spot`, its last part left out where that is a key.
    pub fn path_to(&self, spot: Spot) -> Option<String> {
        fn walk(node: &Node, at: usize, path: &mut Vec<String>) -> bool {
            // A mapping in block style begins where its first key does: then the key is meant, and the path is the same.
            let is = |node: &Node| {
                node.spot.start == at && node.entries().first().is_none_or(|(key, _)| key.spot.start != at)
            };
            let down = |part: String, value: &Node, path: &mut Vec<String>| {
                path.push(part);
                let found = is(value) || walk(value, at, path);
                if !found {
                    path.pop();
                }
                found
            };
            match &node.what {
                What::Map(entries) => entries.iter().any(|(key, value)| {
                    let dot = if path.is_empty() { "" } else { "." };
                    key.spot.start == at || down(format!("{dot}{}", key.text()), value, path)
                }),
                What::List(items) => items.iter().enumerate().any(|(i, item)| down(format!("[{i}]"), item, path)),
                _ => false,
            }
        }
        let mut path = vec![];
        walk(self, spot.start, &mut path).then(|| path.concat()).filter(|path| !path.is_empty())
    }

    /// Every `${`, which would be taken for a variable and is none.
    pub fn refuse_interpolation(&self, findings: &Findings) {
        match &self.what {
            What::Text(text) if text.contains("${") => findings.error(self.spot, "`${` in a value", NO_INTERPOLATION),
            What::List(items) => items.iter().for_each(|item| item.refuse_interpolation(findings)),
            What::Map(entries) => entries.iter().for_each(|(key, value)| {
                key.refuse_interpolation(findings);
                value.refuse_interpolation(findings);
            }),
            _ => {}
        }
    }
}

/// Parses a file's bytes.
/// # Errors
/// What is wrong, in words for whoever wrote the file; one mistake only, since nothing after it can be trusted.
pub(crate) fn parse(bytes: &[u8]) -> Result<Node, Finding> {
    let fault = |what: &str, help: &str, spot| {
        Err(Finding { level: Level::Error, what: what.into(), help: Some(help.into()), spot, conceal: false })
    };
    if bytes.len() > LARGEST {
        return fault("the file is larger than 1 MiB", "this is hardly a configuration: check the path", None);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.valid_up_to();
            return fault("this is not UTF-8", "save the file as UTF-8", Some(Spot { start: at, end: at + 1 }));
        }
    };
    if let Some(at) = text.find('\0') {
        return fault("a zero byte: this is not a text file", "check the path", Some(Spot { start: at, end: at + 1 }));
    }
    let raw: Spanned<Raw> = match serde_saphyr::from_str_with_options(text, options()) {
        Ok(raw) => raw,
        Err(Error::Eof { .. }) => return fault("the file is empty", EMPTY_HELP, None),
        Err(error) => return Err(crate::grammar::fault(&error, text)),
    };
    let node = raw.value.tied(text, raw.referenced, raw.defined);
    match node.what {
        What::Map(_) => Ok(node),
        What::Null => fault("the file is empty", EMPTY_HELP, None),
        _ => {
            let what = format!("expected a mapping (`key: value` lines), found {}", node.called());
            fault(&what, "begin with `application: name`", Some(node.spot))
        }
    }
}

const EMPTY_HELP: &str = "`ripcord init` writes one from what it finds";

fn options() -> serde_saphyr::Options {
    use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
    // A configuration of a hundred components stays below a tenth of these; a bomb passes them in milliseconds.
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 100_000,
            max_nodes: 50_000,
            max_depth: 40,
            flow_nesting_limit: 40,
            max_documents: 2,
            max_aliases: 2_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
            max_recorded_anchor_events: 100_000,
            max_total_scalar_bytes: LARGEST,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 50_000,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: 1_000,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

pub(crate) fn spot_of(location: Location) -> Spot {
    let span = location.span();
    let index = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
    let start = index(span.byte_offset());
    Spot { start, end: start + index(span.byte_len()).max(1) }
}

/// A value as the parser gives it.
enum Raw {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl Raw {
    fn tied(self, text: &str, referenced: Location, defined: Location) -> Node {
        let spot = spot_of(referenced);
        let written = |number: &serde_json::Number| {
            let Spot { start, end } = spot_of(defined);
            match text.get(start..end).map(str::trim) {
                // Only what reads back as this number is how it was written; a tag or an anchor before it is not.
                Some(raw) if raw.bytes().next().is_some_and(|b| b.is_ascii_digit() || b"+-.".contains(&b)) => {
                    raw.to_owned()
                }
                _ => number.to_string(),
            }
        };
        let what = match self {
            Self::Null => What::Null,
            Self::Bool(b) => What::Bool(b),
            Self::Number(number) => {
                let raw = written(&number);
                What::Number(number, raw)
            }
            Self::Text(text) => What::Text(text),
            Self::List(items) => {
                What::List(items.into_iter().map(|item| item.value.tied(text, item.referenced, item.defined)).collect())
            }
            Self::Map(entries) => What::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let key = Node { spot: spot_of(key.referenced), what: What::Text(key.value) };
                        (key, value.value.tied(text, value.referenced, value.defined))
                    })
                    .collect(),
            ),
        };
        Node { spot, what }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_bool<E: de::Error>(self, b: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(b))
    }
    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Raw, E> {
        Ok(Raw::Number(n.into()))
    }
    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Raw, E> {
        Ok(Raw::Number(n.into()))
    }
    fn visit_f64<E: de::Error>(self, n: f64) -> Result<Raw, E> {
        Ok(serde_json::Number::from_f64(n).map_or_else(|| Raw::Text(n.to_string()), Raw::Number))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = vec![];
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = vec![];
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
