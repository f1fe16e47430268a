//! Keys: a prefix read at one revision, and changes that count on what was read.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::wire::{self, Guarded};
use super::{Etcd, Trouble};
use crate::base64::encode;

/// How many keys are asked for at a time.
const PAGE: i64 = 500;
/// The most that is read into memory of one prefix: configuration is far below it.
const MOST: usize = 256 << 20;
/// How often reading begins again because the revision it was pinned to was compacted away.
const AGAIN: u32 = 4;
/// A server takes requests of 1.5 MiB where nothing else is set (`--max-request-bytes`).
pub(crate) const REQUEST: usize = 1_400_000;

/// A key's value, and what the cluster knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) value: Vec<u8>,
    pub(crate) modified: i64,
    /// 0 for a key that stays until somebody deletes it.
    pub(crate) lease: i64,
}

/// All keys of a prefix at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) cluster: String,
    pub(crate) revision: i64,
    pub(crate) keys: BTreeMap<Vec<u8>, Held>,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Done as this revision.
    At(i64),
    /// A comparison did not hold, so nothing was done.
    Overtaken,
}

impl Etcd {
    /// All keys that begin with `prefix`, at one revision however many answers that takes.
    pub(crate) async fn read(&self, prefix: &[u8], deadline: Instant) -> Result<Snapshot, Trouble> {
        let mut tries = 0;
        loop {
            match self.read_once(prefix, deadline).await {
                // Somebody compacted while we read: what is there now is as good.
                Err(trouble) if trouble.compacted() && tries < AGAIN => tries += 1,
                read => return read,
            }
        }
    }

    async fn read_once(&self, prefix: &[u8], deadline: Instant) -> Result<Snapshot, Trouble> {
        let unread = || Trouble::Refused { code: -1, message: "its answer cannot be read".to_owned() };
        let end = encode(&wire::end_of(prefix));
        let (mut page, mut bytes) = (PAGE, 0);
        let mut next = prefix.to_vec();
        let mut snapshot = Snapshot { cluster: String::new(), revision: 0, keys: BTreeMap::new() };
        loop {
            let body = json!({
                "key": encode(&next), "range_end": end, "limit": page.to_string(),
                "revision": snapshot.revision.to_string(),
            });
            let answer = match self.call("kv/range", &body, deadline).await {
                Err(trouble) if trouble.too_large() && page > 1 => {
                    page /= 2;
                    continue;
                }
                answer => answer?,
            };
            if snapshot.revision == 0 {
                snapshot.revision = wire::number(&answer["header"]["revision"]).ok_or_else(unread)?;
                snapshot.cluster = wire::identity(&answer["header"]["cluster_id"]).ok_or_else(unread)?;
            }
            let none = vec![];
            let found = answer["kvs"].as_array().unwrap_or(&none);
            for one in found {
                let key = wire::bytes(&one["key"]).ok_or_else(unread)?;
                let value = wire::bytes(&one["value"]).ok_or_else(unread)?;
                let modified = wire::number(&one["mod_revision"]).ok_or_else(unread)?;
                let lease = wire::number(&one["lease"]).ok_or_else(unread)?;
                bytes += key.len() + value.len();
                next = [&key[..], &[0]].concat();
                snapshot.keys.insert(key, Held { value, modified, lease });
            }
            if bytes > MOST {
                let message = format!("the prefix holds more than {} MB, which is no configuration", MOST >> 20);
                return Err(Trouble::Refused { code: -1, message });
            }
            if answer["more"] != json!(true) || found.is_empty() {
                return Ok(snapshot);
            }
        }
    }

    /// Makes all these changes at once, if each key is as it was when that was decided. `whole` guards a prefix besides: no key in it
    /// was put after that revision.
    pub(crate) async fn change(
        &self,
        changes: &[Guarded],
        whole: Option<(&[u8], i64)>,
        deadline: Instant,
    ) -> Result<Ended, Trouble> {
        let mut compare: Vec<Value> = changes.iter().map(Guarded::compare).collect();
        compare.extend(whole.map(|(prefix, revision)| {
            json!({
                "key": encode(prefix), "range_end": encode(&wire::end_of(prefix)),
                "target": "MOD", "result": "LESS", "mod_revision": (revision + 1).to_string(),
            })
        }));
        let success: Vec<Value> = changes.iter().map(Guarded::operation).collect();
        let answer = self.call("kv/txn", &json!({ "compare": compare, "success": success }), deadline).await?;
        match answer["succeeded"] == json!(true) {
            false => Ok(Ended::Overtaken),
            true => wire::number(&answer["header"]["revision"])
                .map(Ended::At)
                .ok_or_else(|| Trouble::Unanswered("its answer cannot be read".to_owned())),
        }
    }

    /// Whether these changes would be allowed: a transaction whose condition never holds is checked like any other.
    pub(crate) async fn may_change(&self, changes: &[Guarded], deadline: Instant) -> Result<(), Trouble> {
        let Some(first) = changes.first() else { return Ok(()) };
        let never = json!({ "key": encode(&first.key), "target": "VERSION", "result": "LESS", "version": "0" });
        let success: Vec<Value> = changes.iter().map(Guarded::operation).collect();
        self.call("kv/txn", &json!({ "compare": [never], "success": success }), deadline).await.map(drop)
    }
}
