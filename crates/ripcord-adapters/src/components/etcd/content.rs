//! What a prefix holds, what differs between two of them, and how that is said: pure. Values are never said.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use ripcord_core::{Failure, Revision};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::base64::{decode, encode};
use crate::etcd::wire::{Change, Guarded};
use crate::etcd::{Held, REQUEST, Snapshot};
use crate::http::shorten;

/// Keys and values that a release has: those that no lease takes away.
pub(super) type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// How many names are said before they are only counted.
const NAMES: usize = 12;

pub(super) fn lasting(snapshot: &Snapshot) -> Content {
    let lasting = snapshot.keys.iter().filter(|(_, held)| held.lease == 0);
    lasting.map(|(key, held)| (key.clone(), held.value.clone())).collect()
}

/// The identity of what is there. Values may be secrets, so it is a keyed hash.
pub(super) fn revision(content: &Content, key: &[u8; 32]) -> Result<Revision, Failure> {
    if content.is_empty() {
        return Ok(Revision::Absent);
    }
    // A key of any length is taken, so this cannot fail.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| Failure::never(error.to_string()))?;
    for bytes in content.iter().flat_map(|(key, value)| [key, value]) {
        mac.update(&(bytes.len() as u64).to_be_bytes());
        mac.update(bytes);
    }
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Revision::exact(format!("hmac:{hex}")))
}

pub(super) fn label(snapshot: &Snapshot) -> String {
    let lasting = snapshot.keys.values().filter(|held| held.lease == 0);
    let newest = lasting.clone().map(|held| held.modified).max();
    match (lasting.count(), newest) {
        (1, Some(newest)) => format!("1 key at revision {newest}"),
        (keys, Some(newest)) => format!("{keys} keys at revision {newest}"),
        (_, None) => "no keys".to_owned(),
    }
}

/// A capture's text: a line for each key, which is the body of the request that puts it (`/v3/kv/put`).
pub(super) fn written(content: &Content) -> Vec<u8> {
    let line =
        |(key, value): (&Vec<u8>, &Vec<u8>)| format!("{}\n", json!({ "key": encode(key), "value": encode(value) }));
    content.iter().map(line).collect::<String>().into_bytes()
}

pub(super) fn read(text: &[u8]) -> Result<Content, Failure> {
    let bad = || Failure::never("the capture cannot be read").advise("choose another");
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    let of = |line: &Value, name: &str| line[name].as_str().and_then(decode);
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        Some((of(&line, "key")?, of(&line, "value")?))
    };
    text.lines().map(|text| line(text).ok_or_else(bad)).collect()
}

/// What takes the present to `wanted`: puts before deletes, so that nobody misses a key that only moves.
pub(super) fn differences(now: &Snapshot, wanted: &Content) -> Vec<Guarded> {
    let puts = wanted.iter().filter_map(|(key, value)| {
        let held = now.keys.get(key);
        let same = held.is_some_and(|held| held.lease == 0 && held.value == *value);
        (!same).then(|| guarded(key, held, Change::Put(value.clone())))
    });
    let gone = now.keys.iter().filter(|(key, held)| held.lease == 0 && !wanted.contains_key(*key));
    puts.chain(gone.map(|(key, held)| guarded(key, Some(held), Change::Delete))).collect()
}

/// What gives single keys these values; none takes a key out.
pub(super) fn settings(now: &Snapshot, values: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Vec<Guarded> {
    let change = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| {
        let held = now.keys.get(key);
        match value {
            Some(value) if held.is_none_or(|held| held.lease != 0 || held.value != *value) => {
                Some(guarded(key, held, Change::Put(value.clone())))
            }
            None if held.is_some() => Some(guarded(key, held, Change::Delete)),
            _ => None,
        }
    };
    values.iter().filter_map(change).collect()
}

fn guarded(key: &[u8], held: Option<&Held>, change: Change) -> Guarded {
    Guarded { key: key.to_vec(), modified: held.map_or(0, |held| held.modified), change }
}

/// The changes in as few transactions as they fit in.
pub(super) fn transactions(changes: &[Guarded], most: usize) -> Vec<&[Guarded]> {
    let mut parts = vec![];
    let (mut from, mut bytes) = (0, 0);
    for (at, change) in changes.iter().enumerate() {
        let full = at - from >= most.max(1) || bytes + change.bytes() > REQUEST;
        if full && at > from {
            parts.push(&changes[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += change.bytes();
    }
    if from < changes.len() {
        parts.push(&changes[from..]);
    }
    parts
}

/// The key that somebody else changed: it was `before`, is something else now, and not what we want it to be either. Of all keys where
/// the whole is wanted, else of those that are.
pub(super) fn intruded(before: &Snapshot, now: &Snapshot, wanted: &[Guarded], whole: bool) -> Option<Vec<u8>> {
    // What has a lease comes and goes by itself.
    let lasts = |held: Option<&Held>| held.is_some_and(|held| held.lease == 0);
    let moved = |key: &Vec<u8>| {
        let (was, is) = (before.keys.get(key), now.keys.get(key));
        (lasts(was) || lasts(is)) && was.map(|held| held.modified) != is.map(|held| held.modified)
    };
    let as_wanted = |key: &Vec<u8>| {
        let held = now.keys.get(key);
        wanted.iter().any(|one| {
            let so = match &one.change {
                Change::Put(value) => held.is_some_and(|held| held.lease == 0 && held.value == *value),
                Change::Delete => held.is_none(),
            };
            one.key == *key && so
        })
    };
    let concerns = |key: &Vec<u8>| whole || wanted.iter().any(|one| one.key == *key);
    let all = before.keys.keys().chain(now.keys.keys());
    all.filter(|key| concerns(key)).find(|key| moved(key) && !as_wanted(key)).cloned()
}

/// Names of keys relative to their prefix, as text that is fit for a line.
pub(super) fn name(prefix: &[u8], key: &[u8]) -> String {
    let rest = key.strip_prefix(prefix).unwrap_or(key);
    let text: String = String::from_utf8_lossy(rest)
        .chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect();
    let text = shorten(&text, 200);
    if text.is_empty() { "(the prefix itself)".to_owned() } else { text }
}

fn names<'a>(prefix: &[u8], keys: impl Iterator<Item = &'a [u8]>) -> String {
    let keys: Vec<&[u8]> = keys.collect();
    let mut words: Vec<String> = keys.iter().take(NAMES).map(|key| name(prefix, key)).collect();
    if keys.len() > NAMES {
        words.push(format!("and {} more", keys.len() - NAMES));
    }
    words.join(", ")
}

pub(super) fn leased(prefix: &[u8], snapshot: &Snapshot) -> Option<String> {
    let keys: Vec<&[u8]> =
        snapshot.keys.iter().filter(|(_, held)| held.lease != 0).map(|(key, _)| key.as_slice()).collect();
    (!keys.is_empty()).then(|| names(prefix, keys.into_iter()))
}

/// Changes in words: how many keys, and which.
pub(super) fn words(prefix: &[u8], changes: &[Guarded]) -> String {
    let of = |delete: bool| changes.iter().filter(move |one| (one.change == Change::Delete) == delete);
    let part = |verb: &str, delete: bool| {
        let count = of(delete).count();
        let noun = if count == 1 { "key" } else { "keys" };
        (count > 0)
            .then(|| format!("{verb} {count} {noun} ({})", names(prefix, of(delete).map(|one| one.key.as_slice()))))
    };
    let parts: Vec<String> = [part("put", false), part("delete", true)].into_iter().flatten().collect();
    if parts.is_empty() { "nothing differs".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(keys: &[(&str, &str, i64, i64)]) -> Snapshot {
        let held = |value: &str, modified, lease| Held { value: value.as_bytes().to_vec(), modified, lease };
        let keys =
            keys.iter().map(|(key, value, modified, lease)| (key.as_bytes().to_vec(), held(value, *modified, *lease)));
        Snapshot { cluster: "c".into(), revision: 9, keys: keys.collect() }
    }

    fn content(keys: &[(&str, &str)]) -> Content {
        keys.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn rf19_changed_is_put_added_is_deleted_and_the_same_is_left() {
        let now = snapshot(&[("p/a", "1", 3, 0), ("p/b", "2", 4, 0), ("p/new", "x", 5, 0), ("p/lock", "me", 6, 77)]);
        let changes = differences(&now, &content(&[("p/a", "1"), ("p/b", "old"), ("p/gone", "")]));
        assert_eq!(words(b"p/", &changes), "put 2 keys (b, gone), delete 1 key (new)");
        let guards: Vec<_> = changes.iter().map(|one| one.modified).collect();
        assert_eq!(guards, [4, 0, 5], "what is not there is counted on not to be");
        assert_eq!(differences(&now, &lasting(&now)), [], "a key with a lease is nobody's release");
    }

    #[test]
    fn a_key_that_has_a_lease_now_and_had_none_is_put() {
        let now = snapshot(&[("p/a", "1", 3, 77)]);
        assert_eq!(words(b"p/", &differences(&now, &content(&[("p/a", "1")]))), "put 1 key (a)");
    }

    #[test]
    fn a_revision_is_of_names_and_values_and_where_they_meet() {
        let of = |keys: &[(&str, &str)]| revision(&content(keys), &[7; 32]).unwrap();
        assert_eq!(of(&[("a", "1"), ("b", "2")]), of(&[("b", "2"), ("a", "1")]));
        assert_ne!(of(&[("a", "b"), ("c", "")]), of(&[("a", ""), ("bc", "")]));
        assert_ne!(of(&[("ab", "c")]), of(&[("a", "bc")]));
        assert_ne!(of(&[("a", "1")]), revision(&content(&[("a", "1")]), &[8; 32]).unwrap());
        assert_eq!(of(&[]), Revision::Absent);
    }

    #[test]
    fn rf19_a_capture_comes_back_byte_for_byte() {
        let odd: Content = [
            (b"p/binary".to_vec(), (0..=255).collect()),
            (b"p/empty".to_vec(), vec![]),
            (b"p/a=b".to_vec(), b"c=d\ne\\f\"".to_vec()),
            (vec![b'p', 0xff, b'\n'], vec![0]),
        ]
        .into();
        assert_eq!(read(&written(&odd)).unwrap(), odd);
        assert!(read(b"{\"key\":\"!\"}\n").is_err());
        assert_eq!(read(b"").unwrap(), Content::new());
    }

    #[test]
    fn transactions_are_as_few_as_they_fit_in() {
        let change = |bytes: usize| Guarded { key: vec![b'k'], modified: 0, change: Change::Put(vec![0; bytes]) };
        let sizes =
            |changes: &[Guarded], most| transactions(changes, most).iter().map(|part| part.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&vec![change(1); 128], 128), [128]);
        assert_eq!(sizes(&vec![change(1); 129], 128), [128, 1]);
        assert_eq!(sizes(&[change(1 << 20), change(1 << 20), change(1)], 128), [1, 2]);
        assert_eq!(sizes(&[change(5 << 20)], 128), [1], "what no server takes is for the server to say");
        assert!(transactions(&[], 128).is_empty());
    }

    #[test]
    fn somebody_else_is_told_from_ourselves() {
        let before = snapshot(&[("p/a", "1", 3, 0), ("p/b", "2", 4, 0), ("p/lock", "me", 6, 77)]);
        let wanted = differences(&before, &content(&[("p/a", "old")]));
        let check = |now: &[(&str, &str, i64, i64)], who: Option<&[u8]>| {
            assert_eq!(intruded(&before, &snapshot(now), &wanted, true).as_deref(), who, "{now:?}");
        };
        check(&[("p/a", "1", 3, 0), ("p/b", "2", 4, 0), ("p/lock", "you", 9, 78)], None);
        check(&[("p/a", "old", 8, 0), ("p/lock", "me", 6, 77)], None);
        check(&[("p/a", "theirs", 8, 0), ("p/b", "2", 4, 0)], Some(b"p/a"));
        check(&[("p/a", "1", 3, 0), ("p/b", "2", 4, 0), ("p/c", "3", 9, 0)], Some(b"p/c"));
        check(&[("p/b", "2", 4, 0)], Some(b"p/a"));
        let others = snapshot(&[("p/a", "1", 3, 0), ("p/b", "theirs", 9, 0)]);
        let single = settings(&before, &[(b"p/a".to_vec(), Some(b"old".to_vec()))].into());
        assert_eq!(intruded(&before, &others, &single, true).as_deref(), Some(b"p/b".as_slice()));
        assert_eq!(
            intruded(&before, &others, &single, false),
            None,
            "where only `a` is to be set, `b` is their business"
        );
    }

    #[test]
    fn names_are_fit_for_a_line() {
        assert_eq!(name(b"p/", b"p/a\nb\x07"), "a\\nb\\u{7}");
        assert_eq!(name(b"p/", b"p/"), "(the prefix itself)");
        let keys: Content = (0..20).map(|n| (format!("p/{n:02}").into_bytes(), vec![])).collect();
        let words = words(b"p/", &differences(&snapshot(&[]), &keys));
        assert!(words.ends_with("10, 11, and 8 more)"), "{words}");
    }
}
