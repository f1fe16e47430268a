//! No known secret reaches the record: texts are cleaned before they are hashed and stored.
//!
//! What only a name fits into (a component called as its own database's password, a state's tag) stays as it is where the cleaned
//! text could not be read back: a name from the configuration gives nothing away, and a record that cannot be written helps nobody.
//! A blob is never changed, since events and approvals name it by its digest: one with a secret in it is refused.

use ripcord_core::{Batch, NewEvent, Redactor, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The batch without known secrets.
/// # Errors
/// A blob that holds one, named by its digest.
pub(crate) fn batch(redactor: &Redactor, batch: &Batch) -> Result<Batch, StoreError> {
    for blob in &batch.blobs {
        let text = String::from_utf8_lossy(blob);
        if redactor.clean(&text) != text {
            let why = format!(
                "{} holds a secret and was not stored: whoever makes it must clean it first",
                ripcord_core::Digest::of(blob)
            );
            return Err(StoreError::Unavailable { why });
        }
    }
    Ok(Batch {
        events: batch
            .events
            .iter()
            .map(|event| NewEvent { body: typed(redactor, &event.body), ..event.clone() })
            .collect(),
        messages: batch.messages.iter().map(|message| typed(redactor, message)).collect(),
        blobs: batch.blobs.clone(),
        replies: batch.replies.iter().map(|(id, reply)| (*id, typed(redactor, reply))).collect(),
        memories: batch.memories.iter().map(|(id, memory)| (id.clone(), typed(redactor, memory))).collect(),
        outbox: batch
            .outbox
            .iter()
            .map(|(id, outgoing)| (id.clone(), outgoing.as_ref().map(|outgoing| typed(redactor, outgoing))))
            .collect(),
    })
}

/// The value with every text cleaned that may be.
pub(crate) fn typed<T: Serialize + DeserializeOwned + Clone>(redactor: &Redactor, value: &T) -> T {
    let Ok(json) = serde_json::to_value(value) else { return value.clone() };
    let mut cleaned = json.clone();
    let edits = clean(redactor, &mut cleaned, &|_| true);
    if edits == 0 {
        return value.clone();
    }
    if let Ok(cleaned) = serde_json::from_value(cleaned) {
        return cleaned;
    }
    // Somewhere only a name fits: find out where by trying each place by itself.
    let with = |places: &[usize]| {
        let mut cleaned = json.clone();
        clean(redactor, &mut cleaned, &|place| places.contains(&place));
        serde_json::from_value::<T>(cleaned)
    };
    let mut kept = vec![];
    for place in 0..edits {
        kept.push(place);
        if with(&kept).is_err() {
            kept.pop();
        }
    }
    with(&kept).unwrap_or_else(|_| value.clone())
}

/// Cleans the texts and keys for whose number `wanted` says so; returns how many there are to clean.
fn clean(redactor: &Redactor, value: &mut Value, wanted: &dyn Fn(usize) -> bool) -> usize {
    fn text(redactor: &Redactor, text: &mut String, n: &mut usize, wanted: &dyn Fn(usize) -> bool) {
        let cleaned = redactor.clean(text);
        if cleaned != *text {
            if wanted(*n) {
                *text = cleaned;
            }
            *n += 1;
        }
    }
    fn walk(redactor: &Redactor, value: &mut Value, n: &mut usize, wanted: &dyn Fn(usize) -> bool) {
        match value {
            Value::String(s) => text(redactor, s, n, wanted),
            Value::Array(items) => items.iter_mut().for_each(|item| walk(redactor, item, n, wanted)),
            Value::Object(map) => {
                for (mut key, mut item) in std::mem::take(map) {
                    walk(redactor, &mut item, n, wanted);
                    text(redactor, &mut key, n, wanted);
                    map.insert(key, item);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut n = 0;
    walk(redactor, value, &mut n, wanted);
    n
}

#[cfg(test)]
mod tests {
    use ripcord_core::{Actor, Body, ComponentId, Place, REDACTED, Secret};

    use super::*;

    fn redactor(secret: &str) -> Redactor {
        let redactor = Redactor::default();
        redactor.learn(&Secret::new(secret));
        redactor
    }

    #[test]
    fn texts_are_cleaned_in_keys_and_values() {
        let noted = Body::Noted { by: Actor::Policy, text: "password is hunter22, twice: hunter22".into() };
        let cleaned = typed(&redactor("hunter22"), &noted);
        let text = format!("password is {REDACTED}, twice: {REDACTED}");
        assert_eq!(cleaned, Body::Noted { by: Actor::Policy, text });
    }

    #[test]
    fn a_name_that_is_also_a_password_stays_where_only_a_name_fits() {
        let place = Place::local(ComponentId::new("postgres").unwrap());
        let loss = vec![(place.clone(), "postgres said: wrong password postgres".to_owned())];
        let cleaned = typed(&redactor("postgres"), &loss);
        assert_eq!(cleaned, [(place, format!("{REDACTED} said: wrong password {REDACTED}"))]);
    }

    #[test]
    fn a_blob_with_a_secret_is_refused_without_repeating_it() {
        let with = Batch { blobs: vec![b"GET /?token=hunter22".to_vec()], ..Batch::default() };
        let error = batch(&redactor("hunter22"), &with).unwrap_err().to_string();
        assert!(error.contains("holds a secret") && !error.contains("hunter22"), "{error}");
    }
}
