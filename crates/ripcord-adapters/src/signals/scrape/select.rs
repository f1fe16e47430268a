//! Selectors, as PromQL writes them: `http_requests_total{status=~"5..",route!="/health"}`.

use std::borrow::Cow;
use std::fmt;

use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::text::{Labels, Reader, Sign};

/// Which series of a page are meant.
#[derive(Clone)]
pub struct Selector {
    text: String,
    pub(super) name: String,
    matchers: Vec<Matcher>,
}

#[derive(Clone)]
enum Matcher {
    Equal { label: String, value: String, is: bool },
    Regex { label: String, regex: Regex, is: bool },
}

impl Selector {
    /// # Errors
    /// What is wrong, and on a second line what to write.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| {
            format!("`{text}` selects no series: {why}\nwrite `name`, or `name{{label=\"value\", other=~\"5..\"}}`")
        };
        let mut reader = Reader(text.trim());
        let name = reader.name().ok_or_else(|| bad("it begins with no metric's name"))?;
        reader.space();
        let mut matchers = vec![];
        if reader.take('{') {
            while {
                reader.space();
                !reader.take('}')
            } {
                let (label, sign, value) = reader.matcher().map_err(bad)?;
                matchers.push(Matcher::new(label, sign, value).map_err(|why| bad(&why))?);
                reader.space();
                if !reader.take(',') && !reader.0.starts_with('}') {
                    return Err(bad("its labels do not end"));
                }
            }
            reader.space();
        }
        if !reader.0.is_empty() {
            return Err(bad(&format!("`{}` follows it", reader.0)));
        }
        Ok(Self { text: text.trim().to_owned(), name, matchers })
    }

    pub(super) fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.name == name && self.matchers.iter().all(|matcher| matcher.matches(labels))
    }

    /// The same series of another metric: a histogram's buckets.
    #[must_use]
    pub(super) fn of(&self, name: String) -> Self {
        Self { name, ..self.clone() }
    }
}

impl Matcher {
    fn new(label: String, sign: Sign, value: String) -> Result<Self, String> {
        Ok(match sign {
            Sign::Is | Sign::IsNot => Self::Equal { label, value, is: sign == Sign::Is },
            Sign::Matches | Sign::MatchesNot => {
                // Anchored, as in PromQL.
                let regex = Regex::new(&format!("^(?s:{value})$")).map_err(|error| error.to_string())?;
                Self::Regex { label, regex, is: sign == Sign::Matches }
            }
        })
    }

    /// A label that is not there is an empty one, as in PromQL.
    fn matches(&self, labels: &Labels) -> bool {
        let found = |label: &String| labels.get(label).map_or("", String::as_str);
        match self {
            Self::Equal { label, value, is } => (found(label) == value) == *is,
            Self::Regex { label, regex, is } => regex.is_match(found(label)) == *is,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Selector {
    fn schema_name() -> Cow<'static, str> {
        "Selector".into()
    }
    fn schema_id() -> Cow<'static, str> {
        concat!(module_path!(), "::Selector").into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Series of a page of metrics: `name`, or `name{label=\"value\", other=~\"5..\"}`, as in PromQL."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_mean_what_promql_means() {
        let matches = |selector: &str, labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Selector::parse(selector).unwrap().matches("a", &labels)
        };
        assert!(matches("a", &[("b", "c")]));
        assert!(!matches("b", &[]));
        assert!(matches(r#"a{s=~"5.."}"#, &[("s", "503")]));
        assert!(!matches(r#"a{s=~"5.."}"#, &[("s", "5030")]), "anchored");
        assert!(!matches(r#"a{s=~"5|50"}"#, &[("s", "503")]), "alternatives are anchored too");
        assert!(matches(r#"a{s!="200", r!~"/health|/live",}"#, &[("s", "500"), ("r", "/orders")]));
        assert!(!matches(r#"a{r!~"/health|/live"}"#, &[("r", "/live")]));
        assert!(matches(r#"a{gone=""}"#, &[]), "a label that is not there is an empty one");
        assert!(matches(r#"a{s=~"\d+"}"#, &[("s", "42")]));
    }

    #[test]
    fn a_wrong_selector_says_what_is_wrong() {
        let why = |text: &str| Selector::parse(text).unwrap_err().lines().next().unwrap().to_owned();
        assert_eq!(why("rate(a[5m])"), "`rate(a[5m])` selects no series: `(a[5m])` follows it");
        assert_eq!(why("{a=\"b\"}"), "`{a=\"b\"}` selects no series: it begins with no metric's name");
        assert_eq!(why("a{b=c}"), "`a{b=c}` selects no series: a label's value is not quoted");
        assert!(why("a{b=~\"(\"}").starts_with("`a{b=~\"(\"}` selects no series: regex parse error"));
    }
}
