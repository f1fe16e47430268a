//! No known form of a learned secret is left in a text, wherever it stands.
//!
//! Parts with a line `---` in between: all but the last are secrets, the last is a text, in which `@` stands for each form in turn.

use ripcord_core::{REDACTED, Redactor, Secret};
use serde_json::Value;

pub fn judge(data: &[u8]) {
    let all = String::from_utf8_lossy(data);
    let mut secrets: Vec<&str> = all.split("\n---\n").collect();
    let text = secrets.pop().unwrap_or_default();
    let forms: Vec<String> = secrets.iter().flat_map(|secret| forms(secret)).collect();
    // The replacement itself may hold such a form, or make one with what is beside it; nothing of the secret is in that.
    if forms.iter().any(|form| form.contains(['[', ']']) || REDACTED.contains(form.as_str())) {
        return;
    }
    let redactor = Redactor::default();
    secrets.iter().for_each(|secret| redactor.learn(&Secret::new(*secret)));
    clean(&redactor, &forms, text);
    for form in &forms {
        clean(&redactor, &forms, form);
        clean(&redactor, &forms, &text.replace('@', form));
    }
}

fn clean(redactor: &Redactor, forms: &[String], text: &str) {
    let cleaned = redactor.clean(text);
    let left = |text: &str| forms.iter().find(|form| text.contains(form.as_str())).cloned();
    assert_eq!(left(&cleaned), None, "left in {cleaned:?}");
    assert_eq!(redactor.clean(&cleaned), cleaned, "cleaning twice is cleaning once");
    let nothing = left(text).is_none();
    assert!(!nothing || cleaned == text, "where there is no secret nothing is taken out: {text:?} {cleaned:?}");
    if let Ok(mut value) = serde_json::from_str::<Value>(text) {
        redactor.clean_value(&mut value);
        strings(&value, &mut |text| assert_eq!(left(text), None, "left in {text:?}"));
    }
}

fn strings(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, each)),
        Value::Object(map) => map.iter().for_each(|(key, item)| {
            each(key);
            strings(item, each);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The forms the documentation of [`Redactor`] names, made without it.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![];
    for text in std::iter::once(secret).chain(secret.lines().map(str::trim)).filter(|text| text.len() >= 4) {
        let json = serde_json::to_string(text).unwrap();
        let percent = |b: u8| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        };
        let standard = base64(text.as_bytes());
        let url = standard.replace('+', "-").replace('/', "_");
        forms.extend([text.to_owned(), json[1..json.len() - 1].to_owned(), text.bytes().map(percent).collect()]);
        forms.extend([standard.trim_end_matches('=').to_owned(), url.trim_end_matches('=').to_owned(), standard, url]);
    }
    forms
}

/// Bit by bit, as the standard tells it.
fn base64(bytes: &[u8]) -> String {
    let alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let bits: Vec<u8> = bytes.iter().flat_map(|b| (0..8).rev().map(move |i| b >> i & 1)).collect();
    let letter = |six: &[u8]| alphabet[(0..6).fold(0, |n, i| n << 1 | usize::from(six.get(i).copied().unwrap_or(0)))];
    let mut text: String = bits.chunks(6).map(letter).collect();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}
