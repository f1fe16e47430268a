//! Which keys there are: found batch by batch, counted by type, and those that look like more than a cache named.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Session, Trouble};

/// How much of the keyspace the server looks through at a time: a millisecond or so, in which nobody else is served.
const BATCH: usize = 1000;
/// How many keys are named before they are only counted.
const NAMES: usize = 8;
/// What all keys of our own begin with: they say which step was done, and go by themselves.
pub(crate) const OURS: &[u8] = b"ripcord:";

/// A walk through the keys that match a pattern.
pub(crate) struct Walk {
    pattern: String,
    cursor: u64,
    begun: bool,
}

impl Walk {
    pub(crate) fn new(pattern: &str) -> Self {
        Self { pattern: pattern.to_owned(), cursor: 0, begun: false }
    }

    /// The next keys, perhaps none and perhaps some again; nothing at the end.
    pub(crate) async fn next(&mut self, session: &mut Session) -> Result<Option<Vec<Vec<u8>>>, Trouble> {
        if self.begun && self.cursor == 0 {
            return Ok(None);
        }
        self.begun = true;
        let mut scan = redis::cmd("SCAN");
        scan.arg(self.cursor).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(BATCH);
        let (cursor, mut keys): (u64, Vec<Vec<u8>>) = session.ask(&scan).await?;
        self.cursor = cursor;
        keys.retain(|key| !key.starts_with(OURS));
        Ok(Some(keys))
    }
}

/// Keys that patterns match, by type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) by_type: BTreeMap<String, u64>,
    /// By pattern.
    pub(crate) by_pattern: BTreeMap<String, u64>,
    /// Lists and streams, with how many entries they have: they may be queues.
    pub(crate) queues: Vec<(String, u64)>,
    /// Whether everything was looked at before the time was over.
    pub(crate) whole: bool,
}

impl Counted {
    pub(crate) fn total(&self) -> u64 {
        self.by_type.values().sum()
    }

    pub(crate) fn label(&self) -> String {
        let least = if self.whole { "" } else { "at least " };
        match self.total() {
            0 if self.whole => "no keys".to_owned(),
            1 => format!("{least}1 key"),
            n => format!("{least}{n} keys"),
        }
    }

    /// `300 string, 12 hash`.
    pub(crate) fn types(&self) -> String {
        self.by_type.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn patterns(&self) -> String {
        self.by_pattern.iter().map(|(pattern, count)| format!("{pattern} ({count})")).collect::<Vec<_>>().join(", ")
    }

    /// What looks like a queue, in words.
    pub(crate) fn standing_out(&self) -> Option<String> {
        let of = |kind: &str| self.by_type.get(kind).copied().unwrap_or(0);
        let count = of("list") + of("stream");
        if count == 0 {
            return None;
        }
        let mut words: Vec<_> = self.queues.iter().map(|(name, length)| format!("{name} ({length} entries)")).collect();
        let named = u64::try_from(words.len()).unwrap_or(0);
        if count > named {
            words.push(format!("and {} more", count - named));
        }
        Some(words.join(", "))
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "by-type": self.by_type, "by-pattern": self.by_pattern, "lists and streams": self.queues })
    }
}

/// Counts what the patterns match, each key once, until the deadline.
pub(crate) async fn count(session: &mut Session, patterns: &[String], deadline: Instant) -> Result<Counted, Trouble> {
    let mut counted = Counted { whole: true, ..Counted::default() };
    let mut met = HashSet::new();
    for pattern in patterns {
        let mut walk = Walk::new(pattern);
        let mut matched = 0;
        while let Some(mut keys) = walk.next(session).await? {
            // A walk may give a key twice, and two patterns may match it.
            keys.retain(|key| met.insert(hash(key)));
            matched += u64::try_from(keys.len()).unwrap_or(0);
            count_types(session, &keys, &mut counted).await?;
            if Instant::now() >= deadline {
                counted.whole = false;
                break;
            }
        }
        counted.by_pattern.insert(pattern.clone(), matched);
    }
    Ok(counted)
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

async fn count_types(session: &mut Session, keys: &[Vec<u8>], counted: &mut Counted) -> Result<(), Trouble> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut asked = redis::pipe();
    for key in keys {
        asked.cmd("TYPE").arg(key);
    }
    let types: Vec<String> = session.ask_all(&asked).await?;
    for (key, kind) in keys.iter().zip(types) {
        // Gone since it was found.
        if kind == "none" {
            continue;
        }
        if let "list" | "stream" = kind.as_str()
            && counted.queues.len() < NAMES
        {
            let command = if kind == "list" { "LLEN" } else { "XLEN" };
            let length: u64 = session.ask(redis::cmd(command).arg(key)).await?;
            counted.queues.push((shown(key), length));
        }
        *counted.by_type.entry(kind).or_default() += 1;
    }
    Ok(())
}

/// Whether the patterns match any key at all.
pub(crate) async fn any(session: &mut Session, patterns: &[String]) -> Result<bool, Trouble> {
    for pattern in patterns {
        let mut walk = Walk::new(pattern);
        while let Some(keys) = walk.next(session).await? {
            if !keys.is_empty() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A key's name as text that is fit for a line.
pub(crate) fn shown(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    let safe: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    crate::http::shorten(&safe, 120)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rf23_what_looks_like_a_queue_stands_out() {
        let mut counted = Counted { whole: true, ..Counted::default() };
        assert_eq!((counted.label(), counted.standing_out()), ("no keys".to_owned(), None));
        counted.by_type = [("string".to_owned(), 300), ("list".to_owned(), 2), ("stream".to_owned(), 1)].into();
        counted.queues = vec![("jobs".to_owned(), 12), ("events".to_owned(), 0)];
        counted.by_pattern = [("shop:*".to_owned(), 303)].into();
        assert_eq!(counted.label(), "303 keys");
        assert_eq!(counted.types(), "2 list, 1 stream, 300 string");
        assert_eq!(counted.standing_out().unwrap(), "jobs (12 entries), events (0 entries), and 1 more");
        counted.whole = false;
        assert_eq!(counted.label(), "at least 303 keys");
    }

    #[test]
    fn names_are_fit_for_a_line() {
        assert_eq!(shown(b"a\nb\xff"), "a\u{fffd}b\u{fffd}");
    }
}
