//! Values as people write them: `90s`, `5%`, `500MB`, `{ env: TOKEN }`. Every one refuses what could be read in two ways.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ripcord_core::SecretRef;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// A length of time with its unit: `250ms`, `90s`, `5m`, `1h30m`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A share from 0.0 to 1.0, written `5%` or `0.05`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(pub f64);

/// An amount of bytes with its unit: `500MB` (powers of 1000), `1GiB` (powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// Where a secret is: `{ env: NAME }`, `{ file: PATH }`, `{ command: [..] }` or `{ dotenv: { file: PATH, key: NAME } }`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretFrom(pub SecretRef);

/// Text taken as it is: nothing in it is replaced, so `${` in it is a mistake.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(pub String);

/// What to say where a value holds `${`.
pub(crate) const NO_INTERPOLATION: &str = "nothing is replaced inside values: name a secret with `{ env: NAME }`, write what \
     differs between environments under `environments:`, and in a shell command write `$NAME`";

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}
impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        share.0
    }
}
impl From<Size> for u64 {
    fn from(size: Size) -> Self {
        size.0
    }
}
impl From<SecretFrom> for SecretRef {
    fn from(secret: SecretFrom) -> Self {
        secret.0
    }
}
impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl Text {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Splits `12.5kB` into 12.5 and `kB`. None unless it begins with a plain decimal number.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

const SPAN_HELP: &str = "write a number and a unit: `250ms`, `90s`, `5m`, `1h30m`, `7d`";

/// Reads a length of time.
/// # Errors
/// Two lines: what is wrong, and what to write instead.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let bad = |why: &str| format!("`{text}` is not a length of time{why}\n{SPAN_HELP}");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad(""));
    }
    if rest.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(bad(": it has no unit"));
    }
    let mut total = Duration::ZERO;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, after) = (&rest[..digits], rest[digits..].trim_start());
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let unit = &after[..letters];
        let scale_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" => return Err(bad(": it has no unit")),
            other => return Err(bad(&format!(": `{other}` is no unit of time"))),
        };
        // `5m1h` is more often a slip than a wish.
        if scale_ms >= last {
            return Err(bad(": the larger unit comes first"));
        }
        last = scale_ms;
        let number: f64 = number.parse().map_err(|_| bad(""))?;
        let part =
            Duration::try_from_secs_f64(number * scale_ms as f64 / 1000.0).map_err(|_| bad(": it is too long"))?;
        total = total.checked_add(part).ok_or_else(|| bad(": it is too long"))?;
        rest = after[letters..].trim_start();
    }
    // A century: beyond it a deadline could not be written in the record.
    match total <= Duration::from_secs(100 * 366 * 86_400) {
        true => Ok(total),
        false => Err(bad(": it is too long")),
    }
}

pub(crate) fn share(text: &str) -> Result<f64, String> {
    let bad = |why: &str| format!("`{text}` is not a share{why}\nwrite `5%` or `0.05`");
    let number = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map_err(|_| bad(""))? / 100.0,
        None => text.trim().parse::<f64>().map_err(|_| bad(""))?,
    };
    match (0.0..=1.0).contains(&number) {
        true => Ok(number),
        false => Err(bad(": it must lie between 0% and 100%")),
    }
}

pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bad = |why: &str| format!("`{text}` is not a size{why}\nwrite a number and a unit: `64kB`, `500MB`, `1GiB`");
    let (number, unit) = number_and_unit(text.trim()).ok_or_else(|| bad(""))?;
    let scale: u64 = match unit {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "" => return Err(bad(": it has no unit")),
        other => return Err(bad(&format!(": `{other}` is no unit of size"))),
    };
    let bytes = number * scale as f64;
    // Up to here a double counts single bytes.
    match bytes <= 9_007_199_254_740_992.0 {
        true => Ok(bytes.round() as u64),
        false => Err(bad(": it is too large")),
    }
}

pub(crate) fn text(text: &str) -> Result<(), String> {
    match text.contains("${") {
        true => Err(format!("`${{` in a value\n{NO_INTERPOLATION}")),
        false => Ok(()),
    }
}

/// Reads a scalar: text through `read`, a bare number through `bare`.
struct Scalar<T> {
    expected: &'static str,
    read: fn(&str) -> Result<T, String>,
    bare: fn(f64) -> Result<T, String>,
}

impl<T> Visitor<'_> for Scalar<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.bare)(number as f64).map_err(E::custom)
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        (self.bare)(number as f64).map_err(E::custom)
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        (self.bare)(number).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bare = |number: f64| span(&number.to_string());
        from.deserialize_any(Scalar { expected: "a length of time such as `90s` or `5m`", read: span, bare }).map(Self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bare = |number: f64| share(&number.to_string());
        from.deserialize_any(Scalar { expected: "a share such as `5%`", read: share, bare }).map(Self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bare = |number: f64| size(&number.to_string());
        from.deserialize_any(Scalar { expected: "a size such as `500MB`", read: size, bare }).map(Self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = String::deserialize(from)?;
        text(&value).map_err(de::Error::custom)?;
        Ok(Self(value))
    }
}

/// What is said of a secret that stands in the file itself; whoever shows it does not show the value.
pub(crate) const SECRET_WRITTEN: &str = "secrets are never written here";
const SECRET_HELP: &str = "say where it is: `{ env: NAME }`, `{ file: PATH }`, `{ command: [..] }` or `{ dotenv: { file: PATH, key: NAME } }`";

impl<'de> Deserialize<'de> for SecretFrom {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SecretVisitor).map(Self)
    }
}

struct SecretVisitor;

impl SecretVisitor {
    fn refuse<T, E: de::Error>() -> Result<T, E> {
        Err(E::custom(format!("{SECRET_WRITTEN}\n{SECRET_HELP}")))
    }
}

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = SecretRef;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("where the secret is, such as `{ env: NAME }`")
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<SecretRef, E> {
        Self::refuse()
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretRef, E> {
        Self::refuse()
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretRef, E> {
        Self::refuse()
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretRef, E> {
        Self::refuse()
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretRef, A::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        struct Dotenv {
            file: PathBuf,
            key: String,
        }
        /// Read as a type, so that a mistake in the key stands at the key.
        #[derive(Debug, Clone, Copy, serde::Deserialize)]
        #[serde(field_identifier, rename_all = "kebab-case")]
        enum Form {
            Env,
            File,
            Command,
            Dotenv,
        }
        let Some(form) = map.next_key::<Form>()? else {
            return Err(de::Error::custom(format!("it does not say where the secret is\n{SECRET_HELP}")));
        };
        let secret = match form {
            Form::Env => SecretRef::Env(map.next_value()?),
            Form::File => SecretRef::File(map.next_value()?),
            Form::Command => SecretRef::Command(map.next_value()?),
            Form::Dotenv => {
                let Dotenv { file, key } = map.next_value()?;
                SecretRef::Dotenv { file, key }
            }
        };
        if let SecretRef::Command(argv) = &secret
            && argv.is_empty()
        {
            return Err(de::Error::custom("the command is empty\nwrite `{ command: [program, argument, ..] }`"));
        }
        match map.next_key::<String>()? {
            None => Ok(secret),
            Some(second) => {
                let first = format!("{form:?}").to_lowercase();
                let what = format!("a secret is in one place, and this names two: `{first}` and `{second}`");
                Err(de::Error::custom(format!("{what}\nkeep one of them")))
            }
        }
    }
}

/// Named in the schema as it is in Rust, so that all settings share one definition of each.
macro_rules! schema {
    ($($name:ident => $schema:tt)*) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn schema_id() -> Cow<'static, str> {
                concat!(module_path!(), "::", stringify!($name)).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

schema! {
    Span => {
        "type": "string",
        "description": "A length of time with its unit: `250ms`, `90s`, `5m`, `1h30m`, `7d`.",
        "pattern": r"^\s*([0-9.]+\s*(ms|s|m|min|h|d)\s*)+$"
    }
    Share => {
        "description": "A share, written `5%` or `0.05`.",
        "anyOf": [{ "type": "string", "pattern": r"^\s*[0-9.]+\s*%?\s*$" }, { "type": "number", "minimum": 0, "maximum": 1 }]
    }
    Size => {
        "type": "string",
        "description": "An amount of bytes with its unit: `64kB`, `500MB` (powers of 1000), `1GiB` (powers of 1024).",
        "pattern": r"^\s*[0-9.]+\s*([kKMGT]?B|[KMGT]iB)\s*$"
    }
    SecretFrom => {
        "description": "Where a secret is. The secret itself is never written in the file.",
        "oneOf": [
            {
                "type": "object", "required": ["env"], "additionalProperties": false,
                "properties": { "env": { "type": "string", "description": "An environment variable of Ripcord's process." } }
            },
            {
                "type": "object", "required": ["file"], "additionalProperties": false,
                "properties": { "file": { "type": "string", "description": "A file; one newline at its end is left out." } }
            },
            {
                "type": "object", "required": ["command"], "additionalProperties": false,
                "properties": { "command": {
                    "type": "array", "items": { "type": "string" }, "minItems": 1,
                    "description": "A program and its arguments; its output is the secret, one newline at its end left out."
                } }
            },
            {
                "type": "object", "required": ["dotenv"], "additionalProperties": false,
                "properties": { "dotenv": {
                    "type": "object", "required": ["file", "key"], "additionalProperties": false,
                    "description": "A key of a dotenv file.",
                    "properties": { "file": { "type": "string" }, "key": { "type": "string" } }
                } }
            }
        ]
    }
    Text => { "type": ["string", "number", "boolean"] }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T: for<'de> Deserialize<'de>>(value: serde_json::Value) -> Result<T, String> {
        serde_json::from_value(value).map_err(|e| e.to_string().lines().next().unwrap_or_default().to_owned())
    }

    #[test]
    fn lengths_of_time_need_a_unit() {
        let ms = |text: &str| read::<Span>(json!(text)).map(|span| span.0.as_millis());
        assert_eq!(ms("250ms"), Ok(250));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("1.5s"), Ok(1_500));
        assert_eq!(ms("7d"), Ok(604_800_000));
        assert_eq!(ms("1h 30min"), Ok(5_400_000));
        assert_eq!(ms("90"), Err("`90` is not a length of time: it has no unit".into()));
        assert_eq!(read::<Span>(json!(90)).unwrap_err(), "`90` is not a length of time: it has no unit");
        assert_eq!(ms("5 parsecs"), Err("`5 parsecs` is not a length of time: `parsecs` is no unit of time".into()));
        assert_eq!(ms("5m1h"), Err("`5m1h` is not a length of time: the larger unit comes first".into()));
        assert_eq!(ms("99999999999999d"), Err("`99999999999999d` is not a length of time: it is too long".into()));
        assert_eq!(ms("1.2.3s"), Err("`1.2.3s` is not a length of time".into()));
    }

    #[test]
    fn shares_lie_between_nothing_and_everything() {
        assert_eq!(read::<Share>(json!("5%")), Ok(Share(0.05)));
        assert_eq!(read::<Share>(json!(0.05)), Ok(Share(0.05)));
        assert_eq!(read::<Share>(json!(5)), Err("`5` is not a share: it must lie between 0% and 100%".into()));
        assert_eq!(read::<Share>(json!("NaN")), Err("`NaN` is not a share: it must lie between 0% and 100%".into()));
        assert!(read::<Share>(json!("many")).is_err());
    }

    #[test]
    fn sizes_tell_thousands_from_powers_of_two() {
        assert_eq!(read::<Size>(json!("500MB")), Ok(Size(500_000_000)));
        assert_eq!(read::<Size>(json!("1 GiB")), Ok(Size(1 << 30)));
        assert_eq!(read::<Size>(json!("500")), Err("`500` is not a size: it has no unit".into()));
        assert_eq!(read::<Size>(json!("5 GG")), Err("`5 GG` is not a size: `GG` is no unit of size".into()));
    }

    #[test]
    fn a_secret_is_named_never_written() {
        assert_eq!(read::<SecretFrom>(json!({"env": "X"})), Ok(SecretFrom(SecretRef::Env("X".into()))));
        let dotenv = SecretRef::Dotenv { file: ".env".into(), key: "K".into() };
        assert_eq!(read::<SecretFrom>(json!({"dotenv": {"file": ".env", "key": "K"}})), Ok(SecretFrom(dotenv)));
        let error = read::<SecretFrom>(json!("hunter2")).unwrap_err();
        assert_eq!(error, "secrets are never written here");
        assert!(read::<SecretFrom>(json!({"env": "X", "file": "y"})).unwrap_err().contains("one place"));
        assert!(read::<SecretFrom>(json!({"command": []})).is_err());
        assert!(read::<SecretFrom>(json!({"vault": "x"})).unwrap_err().contains("unknown field `vault`"));
    }

    #[test]
    fn text_is_never_interpolated() {
        assert_eq!(read::<Text>(json!("$HOME/x")), Ok(Text("$HOME/x".into())));
        assert_eq!(read::<Text>(json!("${HOME}/x")), Err("`${` in a value".into()));
    }
}
