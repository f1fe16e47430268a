//! What goes over the JSON gateway: base64 for bytes, text for 64-bit numbers, and nothing at all for zero.

use serde_json::{Value, json};

use crate::base64::{decode, encode};

/// A 64-bit number: text, or a number from servers that write one; what is left out is zero.
pub(crate) fn number(at: &Value) -> Option<i64> {
    match at {
        Value::Null => Some(0),
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_i64(),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A number that has the range of an unsigned one (the identity of a cluster), as it is written.
pub(crate) fn identity(at: &Value) -> Option<String> {
    match at {
        Value::String(text) => text.parse::<u64>().ok().map(|id| format!("{id:x}")),
        Value::Number(number) => number.as_u64().map(|id| format!("{id:x}")),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Bytes of an answer; what is left out is empty.
pub(crate) fn bytes(at: &Value) -> Option<Vec<u8>> {
    match at {
        Value::Null => Some(vec![]),
        Value::String(text) => decode(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The first key after all that begin with `prefix`.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // "Every key from here on": the API's own way to say it.
    vec![0]
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Vec<u8>),
    Delete,
}

/// A change, and the modification that it was decided on: 0 for a key that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guarded {
    pub(crate) key: Vec<u8>,
    pub(crate) modified: i64,
    pub(crate) change: Change,
}

impl Guarded {
    /// About what it takes in a request: the key stands in it twice.
    pub(crate) fn bytes(&self) -> usize {
        let value = if let Change::Put(value) = &self.change { value.len() } else { 0 };
        2 * self.key.len() + value + 64
    }

    pub(crate) fn compare(&self) -> Value {
        json!({ "key": encode(&self.key), "target": "MOD", "result": "EQUAL", "mod_revision": self.modified.to_string() })
    }

    pub(crate) fn operation(&self) -> Value {
        let key = encode(&self.key);
        match &self.change {
            Change::Put(value) => json!({ "request_put": { "key": key, "value": encode(value) } }),
            Change::Delete => json!({ "request_delete_range": { "key": key } }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_right_after_it() {
        assert_eq!(end_of(b"config/"), b"config0");
        assert_eq!(end_of(&[1, 0xff, 0xff]), [2]);
        assert_eq!(end_of(&[0xff]), [0]);
        assert_eq!(end_of(b""), [0]);
    }

    #[test]
    fn what_is_left_out_is_zero() {
        let answer = json!({ "revision": "812", "big": "14841639068965178418" });
        assert_eq!(number(&answer["revision"]), Some(812));
        assert_eq!(number(&answer["lease"]), Some(0));
        assert_eq!(number(&json!("x")), None);
        assert_eq!(identity(&answer["big"]).as_deref(), Some("cdf818194e3a8c32"));
        assert_eq!(bytes(&answer["value"]), Some(vec![]));
    }
}
