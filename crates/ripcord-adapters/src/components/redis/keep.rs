//! Keys captured and put back: each with its value, its type and when it goes, as the server itself writes them.
//!
//! A capture is no single moment of the whole: keys are read batch by batch while the application goes on. Each key is whole.
//! The server's own form of a value is what puts it back, and is no identity: members of a set have no order, and a value may be kept in
//! one of several encodings. So what a value is, is told from its members.

use std::collections::{BTreeMap, BTreeSet};

use hmac::{Hmac, KeyInit, Mac};
use ripcord_core::{Before, CaptureRef, Cx, Digest, Failure, Loss, Made, Place, Proof, Revision, RowLoss, Wanted};
use ripcord_vault::Source;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::time::Instant;

use super::Cache;
use super::look::{BEGUN, DONE};
use crate::base64::{decode, encode};
use crate::components::files::captures;
use crate::components::files::{Stop, blocking, point};
use crate::redis::keys::Walk;
use crate::redis::{About, Session, Trouble};

/// Where the keys lie in a capture: a line about it, then one for each key.
const CONTENT: &str = "keys.jsonl";
/// How many keys are read or written at a time.
const BATCH: usize = 100;
/// What a payload ends in: the version of its format and a checksum.
const FOOTER: usize = 10;

/// A key as the server dumps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    dump: Vec<u8>,
    /// Of its type and its members, whatever the form they are kept in.
    value: String,
    /// When it goes, in milliseconds since the epoch.
    expires: Option<i64>,
}

pub(super) type Keys = BTreeMap<Vec<u8>, Kept>;

/// What was read, or why not.
pub(super) enum Present {
    Keys(Keys),
    TooLarge,
}

impl Cache {
    fn revision(&self, keys: &Keys) -> Result<Revision, Failure> {
        if keys.is_empty() {
            return Ok(Revision::Absent);
        }
        // A key of any length is taken, so this cannot fail.
        let mac = Hmac::<Sha256>::new_from_slice(&self.revision_key);
        let mut mac = mac.map_err(|error| Failure::never(error.to_string()))?;
        for bytes in keys.iter().flat_map(|(key, kept)| [key.as_slice(), kept.value.as_bytes()]) {
            mac.update(&(bytes.len() as u64).to_be_bytes());
            mac.update(bytes);
        }
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Revision::exact(format!("hmac:{hex}")))
    }

    /// All keys that the patterns match, unless they are more than a capture may hold.
    async fn present(&self, session: &mut Session) -> Result<Present, Trouble> {
        let mut keys = Keys::new();
        let mut bytes: u64 = 0;
        for pattern in &self.patterns {
            let mut walk = Walk::new(pattern);
            while let Some(found) = walk.next(session).await? {
                for some in found.chunks(BATCH) {
                    for (key, kept) in batch(session, some).await? {
                        bytes += u64::try_from(key.len() + kept.dump.len()).unwrap_or(u64::MAX);
                        keys.insert(key, kept);
                    }
                    if bytes > self.most {
                        return Ok(Present::TooLarge);
                    }
                }
            }
        }
        Ok(Present::Keys(keys))
    }

    pub(super) async fn is_at(&self, session: &mut Session, to: &Revision) -> Result<bool, Trouble> {
        match self.present(session).await? {
            Present::Keys(keys) => Ok(self.revision(&keys).is_ok_and(|is| is == *to)),
            Present::TooLarge => Ok(false),
        }
    }

    pub(super) async fn capture(&self, cx: &Cx, before: &Before) -> Result<Proof, Failure> {
        let (mut session, about) = self.fit(cx).await?;
        let Present::Keys(keys) = self.present(&mut session).await? else {
            let what = format!(
                "the keys are more than {} MB together, the most that a capture may hold",
                self.most / 1_000_000
            );
            return Err(Failure::never(what).advise("raise `max-capture`, name fewer keys, or set `rollback: clear`"));
        };
        let version = about.text("redis_version").unwrap_or("unknown");
        let bytes = written(&keys, version, &self.patterns);
        let source = Source::Bytes { path: CONTENT.to_owned(), bytes, mode: 0o600 };
        let (captures, cx, key) = (self.captures.clone(), cx.clone(), before.key.clone());
        let manifest = blocking(move |_| captures.store(&cx, &key, "the present state", vec![source])).await??;
        let label = format!("{} keys", keys.len());
        let made = captures::made(self.revision(&keys)?, Some(label.clone()), &manifest)?;
        Ok(Proof { capture: Some(made), ..Proof::of(format!("{label} captured and read back")) })
    }

    /// The keys that a capture holds, once they were shown to be what it is said to hold and this server to be able to take them.
    pub(super) async fn read_back(&self, made: Made, about: &About) -> Result<Keys, Failure> {
        let (captures, to) = (self.captures.clone(), made.revision.clone());
        let bytes = blocking(move |_| captures.bytes(&captures::manifest(&made)?, CONTENT)).await??;
        let (version, patterns, keys) = read(&bytes)?;
        let is = self.revision(&keys)?;
        if is != to {
            return Err(Failure::never(format!("the capture holds {}, not {}", is.short(), to.short())));
        }
        if let Some(pattern) = patterns.iter().find(|pattern| !self.patterns.contains(pattern)) {
            return Err(Failure::never(format!(
                "the capture holds keys of `{pattern}`, which is not among `keys` any more"
            ))
            .advise("name it again, or choose a newer release"));
        }
        let here = about.text("redis_version").unwrap_or_default();
        if major(here) < major(&version) {
            let what = format!("the capture is of Redis {version}, and what that writes Redis {here} cannot read");
            return Err(Failure::never(what));
        }
        Ok(keys)
    }

    pub(super) async fn restore(
        &self,
        cx: &Cx,
        before: &Before,
        to: &Revision,
        from: Option<&CaptureRef>,
        deadline: Instant,
    ) -> Result<Proof, Stop> {
        let made = self.captures.find(from, before, to)?;
        let made = made.ok_or_else(|| Failure::never("the step names no capture to restore from"))?;
        let (mut session, about) = self.fit(cx).await.map_err(Failure::from)?;
        let keys = self.read_back(made, &about).await?;
        if self.marked(&mut session, before).await.map_err(Failure::from)?.as_deref() == Some(DONE) {
            return Ok(Proof::of("was put back already by this step"));
        }
        point("begin");
        session.ask::<()>(&self.mark(before, BEGUN)).await?;
        let all: Vec<_> = keys.iter().collect();
        for some in all.chunks(BATCH) {
            let mut puts = redis::pipe();
            for (key, kept) in some {
                let at = kept.expires.unwrap_or(0);
                // What would be gone by now is taken away by this too.
                puts.cmd("RESTORE").arg(key).arg(at).arg(&kept.dump).arg("REPLACE").arg("ABSTTL");
            }
            point("put");
            session.ask_all::<Vec<redis::Value>>(&puts).await?;
            if Instant::now() >= deadline {
                return Err(Failure::later("some keys were put back in the time there was, and others are left").into());
            }
        }
        let unlinked = self.unlink_others(&mut session, &keys).await?;
        point("mark");
        session.ask::<()>(&self.mark(before, DONE)).await?;
        let same = if self.is_at(&mut session, to).await? { "; read back, and the same" } else { "" };
        let put = keys.len();
        Ok(Proof::of(format!("put {put} keys back, unlinked {unlinked} that were not there then{same}")))
    }

    async fn unlink_others(&self, session: &mut Session, keys: &Keys) -> Result<u64, Stop> {
        let mut unlinked: u64 = 0;
        for pattern in &self.patterns {
            let mut walk = Walk::new(pattern);
            while let Some(mut found) = walk.next(session).await? {
                found.retain(|key| !keys.contains_key(key));
                if !found.is_empty() {
                    point("unlink");
                    unlinked += session.ask::<u64>(redis::cmd("UNLINK").arg(found)).await?;
                }
            }
        }
        Ok(unlinked)
    }

    /// What going back to a capture loses, key by key where that can be compared. `now` is read when it is first needed.
    pub(super) async fn loss_by_comparison(
        &self,
        session: &mut Session,
        about: &About,
        now: &mut Option<Present>,
        (place, wanted): (&Place, &Wanted),
        deadline: Instant,
    ) -> Loss {
        let made = self.recorded(wanted);
        let since = made.as_ref().ok().and_then(|made| captures::manifest(made).ok()).map(|manifest| manifest.at);
        let compared = tokio::time::timeout_at(deadline, async {
            let former = self.read_back(made?, about).await?;
            let now = match now {
                Some(now) => now,
                None => now.insert(self.present(session).await?),
            };
            match now {
                Present::Keys(now) => Ok(differences(now, &former)),
                Present::TooLarge => Err(Failure::never("there are more keys than a capture may hold")),
            }
        });
        match compared.await.unwrap_or_else(|_| Err(Failure::later("there was no time to compare them"))) {
            Ok(rows) if rows.total() == 0 => Loss { how: Some("compared key by key".to_owned()), ..Loss::none() },
            Ok(rows) => Loss {
                rows: [(format!("{place}: keys"), rows)].into(),
                since,
                how: Some("compared key by key".to_owned()),
                ..Loss::none()
            },
            Err(failure) => {
                let other = vec![format!("keys written since the capture, which cannot be counted: {}", failure.what)];
                Loss { since, other, how: Some("not comparable".to_owned()), ..Loss::none() }
            }
        }
    }
}

/// Reads some keys, each with its type, its members and when it goes; those that are gone by now are left out.
async fn batch(session: &mut Session, some: &[Vec<u8>]) -> Result<Vec<(Vec<u8>, Kept)>, Trouble> {
    let mut asked = redis::pipe();
    for key in some {
        asked.cmd("TYPE").arg(key);
    }
    let types: Vec<String> = session.ask_all(&asked).await?;
    let (seconds, micros): (i64, i64) = session.ask(&redis::cmd("TIME")).await?;
    let now = seconds * 1000 + micros / 1000;
    let mut asked = redis::pipe();
    for (key, kind) in some.iter().zip(&types) {
        asked.cmd("PTTL").arg(key).cmd("DUMP").arg(key);
        match kind.as_str() {
            "string" => asked.cmd("GET").arg(key),
            "list" => asked.cmd("LRANGE").arg(key).arg(0).arg(-1),
            "set" => asked.cmd("SMEMBERS").arg(key),
            "hash" => asked.cmd("HGETALL").arg(key),
            "zset" => asked.cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES"),
            // Streams, and what modules add: their own form is all there is.
            _ => asked.cmd("EXISTS").arg(key),
        };
    }
    let answers: Vec<redis::Value> = session.ask_all(&asked).await?;
    let mut read = vec![];
    for ((key, kind), three) in some.iter().zip(&types).zip(answers.chunks(3)) {
        let [redis::Value::Int(left), redis::Value::BulkString(dump), members] = three else { continue };
        let value = identity(kind, dump, members);
        let expires = (*left >= 0).then_some(now + left);
        read.push((key.clone(), Kept { dump: dump.clone(), value, expires }));
    }
    Ok(read)
}

/// What a value is, whatever the form it is kept in.
fn identity(kind: &str, dump: &[u8], members: &redis::Value) -> String {
    let mut parts: Vec<Vec<u8>> = match members {
        redis::Value::BulkString(bytes) => vec![bytes.clone()],
        redis::Value::Array(items) => items.iter().map(bytes_of).collect(),
        _ => vec![dump[..dump.len().saturating_sub(FOOTER)].to_vec()],
    };
    match kind {
        "set" => parts.sort_unstable(),
        "hash" => {
            let mut pairs: Vec<Vec<Vec<u8>>> = parts.chunks(2).map(<[_]>::to_vec).collect();
            pairs.sort_unstable();
            parts = pairs.concat();
        }
        _ => {}
    }
    let mut all = kind.as_bytes().to_vec();
    for part in parts {
        all.extend((part.len() as u64).to_be_bytes());
        all.extend(part);
    }
    Digest::of(&all).to_string()
}

fn bytes_of(item: &redis::Value) -> Vec<u8> {
    match item {
        redis::Value::BulkString(bytes) => bytes.clone(),
        other => format!("{other:?}").into_bytes(),
    }
}

fn differences(now: &Keys, former: &Keys) -> RowLoss {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let (mine, theirs): (BTreeSet<_>, BTreeSet<_>) = (now.keys().collect(), former.keys().collect());
    let changed = mine.intersection(&theirs).filter(|key| now[**key].value != former[**key].value);
    RowLoss {
        inserted: count(mine.difference(&theirs).count()),
        updated: count(changed.count()),
        deleted: count(theirs.difference(&mine).count()),
    }
}

fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
}

/// A capture's text.
fn written(keys: &Keys, version: &str, patterns: &[String]) -> Vec<u8> {
    let mut text = format!("{}\n", json!({ "redis": version, "patterns": patterns }));
    for (key, kept) in keys {
        let line = json!({
            "key": encode(key), "dump": encode(&kept.dump), "value": kept.value, "expires-ms": kept.expires,
        });
        text.push_str(&format!("{line}\n"));
    }
    text.into_bytes()
}

fn read(text: &[u8]) -> Result<(String, Vec<String>, Keys), Failure> {
    let bad = || Failure::never("the capture cannot be read").advise("choose another");
    let mut lines = std::str::from_utf8(text).map_err(|_| bad())?.lines();
    let about: Value = lines.next().and_then(|line| serde_json::from_str(line).ok()).ok_or_else(bad)?;
    let version = about["redis"].as_str().ok_or_else(bad)?.to_owned();
    let patterns = serde_json::from_value(about["patterns"].clone()).map_err(|_| bad())?;
    let bytes = |line: &Value, name: &str| line[name].as_str().and_then(decode);
    let one = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let value = line["value"].as_str()?.to_owned();
        let kept = Kept { dump: bytes(&line, "dump")?, value, expires: line["expires-ms"].as_i64() };
        Some((bytes(&line, "key")?, kept))
    };
    let keys = lines.map(|line| one(line).ok_or_else(bad)).collect::<Result<Keys, _>>()?;
    Ok((version, patterns, keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(value: &str, expires: Option<i64>) -> Kept {
        Kept { dump: value.as_bytes().to_vec(), value: value.to_owned(), expires }
    }

    #[test]
    fn a_capture_comes_back_byte_for_byte() {
        let keys: Keys =
            [(vec![0, 0xff, b'\n'], kept("x\0\n", None)), (b"b".to_vec(), kept("", Some(1_790_000_000_123)))].into();
        let patterns = vec!["a:*".to_owned(), "b".to_owned()];
        let (version, read_patterns, back) = read(&written(&keys, "7.0.15", &patterns)).unwrap();
        assert_eq!((version.as_str(), read_patterns, back), ("7.0.15", patterns, keys));
        assert!(read(b"").is_err() && read(b"{}\n").is_err());
    }

    #[test]
    fn what_differs_is_the_value_and_neither_its_form_nor_when_it_goes() {
        let of = |keys: [(&str, Kept); 3]| keys.map(|(key, kept)| (key.as_bytes().to_vec(), kept)).into();
        let now: Keys = of([("same", kept("1", Some(5))), ("new", kept("1", None)), ("c", kept("2", None))]);
        let same = Kept { dump: vec![9], ..kept("1", None) };
        let former: Keys = of([("same", same), ("c", kept("1", None)), ("gone", kept("1", None))]);
        assert_eq!(differences(&now, &former), RowLoss { inserted: 1, updated: 1, deleted: 1 });
    }

    #[test]
    fn members_of_sets_and_hashes_have_no_order_and_those_of_lists_have() {
        let items = |items: &[&str]| {
            redis::Value::Array(items.iter().map(|item| redis::Value::BulkString(item.as_bytes().to_vec())).collect())
        };
        let same = |kind: &str, one: &[&str], other: &[&str]| {
            identity(kind, b"1", &items(one)) == identity(kind, b"2", &items(other))
        };
        assert!(same("set", &["a", "b"], &["b", "a"]));
        assert!(same("hash", &["k", "1", "l", "2"], &["l", "2", "k", "1"]));
        assert!(!same("hash", &["k", "1", "l", "2"], &["k", "2", "l", "1"]));
        assert!(!same("list", &["a", "b"], &["b", "a"]));
        assert!(!same("set", &["ab"], &["a", "b"]));
        let stream = |dump: &[u8]| identity("stream", dump, &redis::Value::Int(1));
        assert_eq!(stream(b"x0123456789"), stream(b"x9876543210"), "the footer is the server's, not the value's");
        assert_ne!(stream(b"x0123456789"), stream(b"y0123456789"));
    }
}
