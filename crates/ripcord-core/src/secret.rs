//! Secrets: settings say where one is, types keep it unprintable, and redaction takes it out of everything that is kept.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use serde::{Deserialize, Serialize};

/// Where a secret is. The secret itself is never in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretRef {
    /// An environment variable of the Ripcord process.
    Env(String),
    /// A file; one newline at its end is not part of the secret.
    File(PathBuf),
    /// Standard output of a command; one newline at its end is not part of the secret.
    Command(Vec<String>),
    /// A key of a dotenv file, `path#KEY`: the application's own secret where it already is.
    Dotenv { file: PathBuf, key: String },
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable `{name}`"),
            Self::File(path) => write!(f, "file `{}`", path.display()),
            Self::Command(argv) => write!(f, "command `{}`", argv.join(" ")),
            Self::Dotenv { file, key } => write!(f, "`{key}` of `{}`", file.display()),
        }
    }
}

/// A secret in memory. It has no `Serialize`, and prints as `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The secret itself: for the one call that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// All secrets resolved so far in this process, taken out of any text that is stored, logged or shown.
///
/// Known forms: as it is, percent-encoded, base64 (standard and URL alphabets, with and without padding), JSON-escaped, and each
/// line of a secret of several. Secrets shorter than four characters are not looked for: they would blot out ordinary text.
#[derive(Debug, Clone, Default)]
pub struct Redactor(Arc<RwLock<Vec<Needle>>>);

#[derive(Clone, PartialEq, Eq)]
struct Needle(String);

impl fmt::Debug for Needle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What stands where a secret stood.
pub const REDACTED: &str = "[redacted]";

impl Redactor {
    /// From now on `secret` is taken out of every text.
    pub fn learn(&self, secret: &Secret) {
        let mut forms = forms(secret.reveal());
        let Ok(mut needles) = self.0.write() else { return };
        forms.retain(|form| !needles.contains(form));
        needles.extend(forms);
        // A longer form first, so that no half of it is left behind by a shorter one.
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.0.len()));
    }

    pub fn clean(&self, text: &str) -> String {
        let Ok(needles) = self.0.read() else { return REDACTED.to_owned() };
        // All places first, and then what they cover together: where two secrets overlap, no half of either is left.
        let mut places: Vec<(usize, usize)> = needles
            .iter()
            .flat_map(|needle| text.match_indices(&needle.0).map(|(at, found)| (at, at + found.len())))
            .collect();
        if places.is_empty() {
            return text.to_owned();
        }
        places.sort_unstable();
        let (mut cleaned, mut done) = (String::with_capacity(text.len()), 0);
        for (from, to) in places {
            if from >= done {
                cleaned.push_str(&text[done..from]);
                cleaned.push_str(REDACTED);
            }
            done = done.max(to);
        }
        cleaned.push_str(&text[done..]);
        cleaned
    }

    /// Every string in a JSON value, keys too.
    pub fn clean_value(&self, value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => *text = self.clean(text),
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| self.clean_value(item)),
            serde_json::Value::Object(map) => {
                for (key, mut item) in std::mem::take(map) {
                    self.clean_value(&mut item);
                    map.insert(self.clean(&key), item);
                }
            }
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
        }
    }
}

fn forms(secret: &str) -> Vec<Needle> {
    let mut forms = vec![];
    let lines = secret.lines().map(str::trim).filter(|line| *line != secret);
    for text in std::iter::once(secret).chain(lines) {
        if text.len() < 4 {
            continue;
        }
        let json = serde_json::to_string(text).unwrap_or_default();
        let standard = base64(text.as_bytes(), b"+/");
        let url = base64(text.as_bytes(), b"-_");
        let unpadded = |text: &str| text.trim_end_matches('=').to_owned();
        forms.extend([
            text.to_owned(),
            percent(text),
            unpadded(&standard),
            standard,
            unpadded(&url),
            url,
            // Without its own quotes, and with those of the secret, escaped, whole.
            json.get(1..json.len().saturating_sub(1)).unwrap_or_default().to_owned(),
        ]);
    }
    forms.sort();
    forms.dedup();
    forms.into_iter().filter(|form| form.len() >= 4).map(Needle).collect()
}

fn percent(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|b| if keep(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

fn base64(bytes: &[u8], last_two: &[u8; 2]) -> String {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let letter = |six: u32| {
        let six = six as usize & 63;
        LETTERS.get(six).copied().unwrap_or_else(|| last_two[six & 1]) as char
    };
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let three = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            text.push(if i <= chunk.len() { letter(three >> (18 - 6 * i)) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rf29_no_form_of_a_secret_survives() {
        let redactor = Redactor::default();
        redactor.learn(&Secret::new("pa ss\"word/1?"));
        let encoded = [
            "pa ss\"word/1?",
            "pa%20ss%22word%2F1%3F",
            "cGEgc3Mid29yZC8xPw==",
            "cGEgc3Mid29yZC8xPw",
            r#"pa ss\"word/1?"#,
        ];
        for form in encoded {
            assert_eq!(redactor.clean(&format!("a {form} b")), "a [redacted] b", "{form}");
        }
    }

    #[test]
    fn where_secrets_overlap_or_meet_nothing_of_either_is_left() {
        let redactor = Redactor::default();
        redactor.learn(&Secret::new("abcd1234"));
        redactor.learn(&Secret::new("1234efgh"));
        assert_eq!(redactor.clean("x abcd1234efgh y abcd1234 z"), "x [redacted] y [redacted] z");
        assert_eq!(redactor.clean("abcd1234"), "[redacted]");
        redactor.learn(&Secret::new("quoted\""));
        assert_eq!(redactor.clean(r#"{"a":"quoted\""}"#), r#"{"a":"[redacted]"}"#);
    }

    #[test]
    fn each_line_of_a_key_is_a_secret() {
        let redactor = Redactor::default();
        redactor.learn(&Secret::new("-----BEGIN-----\nabcdefgh\nijklmnop\n"));
        assert_eq!(redactor.clean("error near ijklmnop"), "error near [redacted]");
    }

    #[test]
    fn base64_is_the_standard_one() {
        assert_eq!([base64(b"f", b"+/"), base64(b"fo", b"+/"), base64(b"foobar", b"+/")], ["Zg==", "Zm8=", "Zm9vYmFy"]);
        assert_eq!(base64(&[0xff, 0xef, 0xbe], b"-_"), "_---");
    }

    #[test]
    fn json_is_cleaned_in_keys_and_values() {
        let redactor = Redactor::default();
        redactor.learn(&Secret::new("hunter22"));
        let mut value = serde_json::json!({"a": ["xhunter22x"], "hunter22": 1});
        redactor.clean_value(&mut value);
        assert_eq!(value, serde_json::json!({"a": ["x[redacted]x"], "[redacted]": 1}));
    }
}
