//! Reads a page of metrics: Prometheus' text format 0.0.4 and OpenMetrics 1.0.
//!
//! One line that is neither makes the whole page unreadable, as it does for Prometheus: half a page could look like health.
//! Source: Prometheus, "Exposition formats"; OpenMetrics 1.0, "Text format".

use std::collections::BTreeMap;

pub(super) type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

/// The most series a page may have; a page of more is a fault of its own.
const SERIES: usize = 200_000;

/// Every sample of the page. Exemplars and timestamps are read over.
/// # Errors
/// Which line is not a metric, and its beginning.
pub(super) fn page(text: &str) -> Result<Vec<Line>, String> {
    let mut lines = vec![];
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |why: &str| {
            let shown: String = line.chars().take(60).collect();
            format!("line {} is no metric ({why}): `{shown}`", number + 1)
        };
        lines.push(sample(line).map_err(bad)?);
        if lines.len() > SERIES {
            return Err(format!("it has more than {SERIES} series"));
        }
    }
    Ok(lines)
}

fn sample(line: &str) -> Result<Line, &'static str> {
    let mut reader = Reader(line);
    let name = reader.name().ok_or("it has no name")?;
    let mut labels = Labels::new();
    reader.space();
    if reader.take('{') {
        while {
            reader.space();
            !reader.take('}')
        } {
            let (name, matcher, value) = reader.matcher()?;
            if matcher != Sign::Is {
                return Err("a label has no value");
            }
            if labels.insert(name, value).is_some() {
                return Err("a label is there twice");
            }
            reader.space();
            if !reader.take(',') && !reader.0.starts_with('}') {
                return Err("its labels do not end");
            }
        }
    }
    let mut words = reader.0.split_ascii_whitespace();
    let value = words.next().and_then(number).ok_or("it has no value")?;
    match words.next() {
        None => {}
        Some(word) if word.starts_with('#') => {}
        // Milliseconds, or in OpenMetrics seconds with a fraction.
        Some(word) => {
            word.parse::<f64>().map_err(|_| "its timestamp is no number")?;
            if words.next().is_some_and(|word| !word.starts_with('#')) {
                return Err("something follows it");
            }
        }
    }
    Ok(Line { name, labels, value })
}

fn number(word: &str) -> Option<f64> {
    // Rust also reads `infinity` and the like; the formats do not.
    match word {
        "NaN" => Some(f64::NAN),
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ if word.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) => word.parse().ok(),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Is,
    IsNot,
    Matches,
    MatchesNot,
}

/// Reads names and labels from the front of a text, for pages and for selectors.
pub(super) struct Reader<'a>(pub &'a str);

impl Reader<'_> {
    pub(super) fn space(&mut self) {
        self.0 = self.0.trim_start();
    }

    pub(super) fn take(&mut self, c: char) -> bool {
        match self.0.strip_prefix(c) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    pub(super) fn name(&mut self) -> Option<String> {
        let end = self.0.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        let first = name.chars().next()?;
        if first.is_ascii_digit() {
            return None;
        }
        self.0 = rest;
        Some(name.to_owned())
    }

    /// `name="value"`, with any of the four signs.
    pub(super) fn matcher(&mut self) -> Result<(String, Sign, String), &'static str> {
        let name = self.name().ok_or("a label has no name")?;
        self.space();
        let signs = [("=~", Sign::Matches), ("!~", Sign::MatchesNot), ("!=", Sign::IsNot), ("=", Sign::Is)];
        let (text, sign) =
            signs.into_iter().find(|(text, _)| self.0.starts_with(text)).ok_or("a label has no value")?;
        self.0 = &self.0[text.len()..];
        self.space();
        if !self.take('"') {
            return Err("a label's value is not quoted");
        }
        let mut value = String::new();
        let mut chars = self.0.char_indices();
        loop {
            match chars.next() {
                Some((at, '"')) => {
                    self.0 = &self.0[at + 1..];
                    return Ok((name, sign, value));
                }
                Some((_, '\\')) => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('"' | '\\'))) => value.push(c),
                    // As Prometheus does: an unknown escape stands for itself, which regular expressions rely on.
                    Some((_, c)) => value.extend(['\\', c]),
                    None => return Err("a label's value does not end"),
                },
                Some((_, c)) => value.push(c),
                None => return Err("a label's value does not end"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Read = (String, Vec<(String, String)>, f64);

    fn one(text: &str) -> Result<Read, String> {
        let lines = page(text)?;
        let [line] = lines.as_slice() else { return Err(format!("{} lines", lines.len())) };
        Ok((line.name.clone(), line.labels.clone().into_iter().collect(), line.value))
    }

    #[test]
    fn both_formats_are_read() {
        let check = |text: &str, labels: &[(&str, &str)], value: f64| {
            let (name, found, number) = one(text).unwrap();
            let labels: Vec<_> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!((name.as_str(), found, number), ("a_total", labels, value), "{text}");
        };
        check("# HELP a_total x\n# TYPE a_total counter\na_total 3\n", &[], 3.0);
        check("a_total{} 3e2", &[], 300.0);
        check("a_total { b = \"c\" , d=\"e\", } 1 1700000000000", &[("b", "c"), ("d", "e")], 1.0);
        check(r#"a_total{p="C:\\x \"q\" \n}"} 1"#, &[("p", "C:\\x \"q\" \n}")], 1.0);
        check("a_total{le=\"0.1\"} 8 1.5 # {trace=\"x\"} 0.06 1.4\n# EOF\n", &[("le", "0.1")], 8.0);
        check("a_total 8 # {trace=\"x\"} 0.06", &[], 8.0);
        check("a_total +Inf", &[], f64::INFINITY);
        assert!(one("a_total NaN").unwrap().2.is_nan());
    }

    #[test]
    fn rf01_what_is_no_page_of_metrics_is_refused_with_its_line() {
        let why = |text: &str| page(text).unwrap_err();
        assert_eq!(why("a 1\n<!doctype html>"), "line 2 is no metric (it has no name): `<!doctype html>`");
        assert_eq!(why(r#"{"status":"error"}"#), r#"line 1 is no metric (it has no name): `{"status":"error"}`"#);
        assert_eq!(why("a{b=\"c\" 1"), "line 1 is no metric (its labels do not end): `a{b=\"c\" 1`");
        for bad in [
            "a",
            "a x",
            "a{b=c} 1",
            "a{b=\"c} 1",
            "a{b=\"c\",b=\"d\"} 1",
            "a 1 2 3",
            "a 1 x",
            "a infinity",
            "1a 2",
            "a{b!=\"c\"} 1",
        ] {
            assert!(page(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_page_makes_the_reader_stumble(text in ".*", lines in prop::collection::vec(r#"[a-z_]{1,3}(\{[a-z="\\,{} ]{0,20}\})? ?[0-9.eE+#Inf NaN-]{0,12}"#, 0..6)) {
            let _ = page(&text);
            let _ = page(&lines.join("\n"));
        }

        #[test]
        fn what_was_written_is_read(name in "[a-z_:][a-z0-9_:]{0,10}", label in "[a-z_][a-z0-9_]{0,5}", value in "[^\r]{0,12}", number in -1e12..1e12) {
            prop_assume!(!value.chars().any(|c| c != '\n' && c.is_control()) && value.lines().count() < 20);
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            prop_assume!(escaped.lines().count() <= 1);
            let read = one(&format!("{name}{{{label}=\"{escaped}\"}} {number}")).unwrap();
            prop_assert_eq!(read, (name, vec![(label, value)], number));
        }
    }
}
