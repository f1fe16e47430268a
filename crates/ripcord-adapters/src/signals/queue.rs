//! A queue, in Redis or in a table of a database: how much waits, how that changes, and for how long nothing was taken out of it.
//!
//! Length alone says little: a queue may be long and fast. So each reading remembers a little of the one before: of a list its length and
//! its two ends, of a stream how much its group has acknowledged. A list from which something was taken is shorter, or both its ends are
//! others than before, or one end is while it has not grown; a list to which things are only added has one new end and is longer.
//! What entries hold is never kept: ends are compared by their hashes. Of a table of jobs people say what counts those that wait, and
//! what grows with each that is done.
//! Source: Redis documentation, XINFO GROUPS; kombu, `transport/redis.py` (a Celery queue is a list, with a list beside it for each
//! further priority; what workers hold and have not acknowledged is in the hash `unacked`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use ripcord_config::wire::{SecretFrom, Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Digest, Fut, Layer, Reading, Redactor, Sample, Signal, SignalId, Unit, between};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{failed, locked, postgres, sql};
use crate::postgres::Connection;
use crate::redis::{Reach, Server, Session, Trouble};
use crate::{BuildCx, BuildError, SignalKind};

/// A queue in Redis (a list, a stream, a sorted set, or one of Celery's), or a table of jobs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The server and the database: `redis://host:port/0`, `rediss://` for TLS, or `redis+unix:///path?db=0`.
    #[serde(default)]
    pub url: Option<Text>,
    /// Where the whole URL is, where it holds a password.
    #[serde(default)]
    pub url_from: Option<SecretFrom>,
    #[serde(default)]
    pub user: Option<Text>,
    #[serde(default)]
    pub password: Option<SecretFrom>,
    /// The key of a list.
    #[serde(default)]
    pub list: Option<Text>,
    /// The key of a stream, with `group`.
    #[serde(default)]
    pub stream: Option<Text>,
    /// The consumers whose work the stream is.
    #[serde(default)]
    pub group: Option<Text>,
    /// The key of a sorted set (delayed or prioritised jobs).
    #[serde(default)]
    pub sorted_set: Option<Text>,
    /// The name of a Celery queue (`celery`, unless the application says otherwise).
    #[serde(default)]
    pub celery: Option<Text>,
    /// A table of jobs in a database, instead of Redis.
    #[serde(default)]
    pub jobs: Option<Box<Jobs>>,
    #[serde(default)]
    pub measure: Measure,
    /// For `measure: change`: over how long. A minute, unless it is said.
    #[serde(default)]
    pub window: Option<Span>,
}

/// Jobs in a table: where it is, and what is asked.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Jobs {
    /// A PostgreSQL server and database.
    #[serde(default)]
    pub connection: Option<Connection>,
    /// The file of an SQLite database, in the place of `connection`; relative to `ripcord.yaml`.
    #[serde(default)]
    pub sqlite: Option<PathBuf>,
    /// How many jobs wait: `SELECT count(*) FROM jobs WHERE state = 'waiting'`.
    pub waiting: String,
    /// How many a worker has and has not finished.
    #[serde(default)]
    pub held: Option<String>,
    /// A number that is another whenever jobs were done (how many, or when the last one was): for `measure: stalled`.
    #[serde(default)]
    pub done: Option<String>,
}

impl Jobs {
    fn check(&self, measure: Measure) -> Vec<Mistake> {
        let mut mistakes = match (&self.connection, &self.sqlite) {
            (Some(connection), None) => connection.check("jobs.connection"),
            (None, Some(_)) => vec![],
            (Some(_), Some(_)) => vec![Mistake::new("`connection` and `sqlite` are two places").at("jobs.sqlite")],
            (None, None) => {
                let help = "give a `connection` to PostgreSQL, or the path of an `sqlite` database";
                vec![Mistake::new("nothing says where the table is").at("jobs").help(help)]
            }
        };
        let queries = [
            ("jobs.waiting", Some(&self.waiting)),
            ("jobs.held", self.held.as_ref()),
            ("jobs.done", self.done.as_ref()),
        ];
        let empty = queries.into_iter().filter(|(_, query)| query.is_some_and(|query| query.trim().is_empty()));
        mistakes.extend(empty.map(|(at, _)| Mistake::new("the query is empty").at(at)));
        if measure == Measure::Stalled && self.done.is_none() {
            let help = "add a query such as `SELECT count(*) FROM jobs WHERE state = 'done'`";
            mistakes.push(Mistake::new("nothing says whether jobs are done: `done` is missing").at("jobs").help(help));
        }
        mistakes
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// What waits, and what workers hold and have not acknowledged.
    #[default]
    Length,
    /// How the length changed over the window, each second: below 0 where it falls.
    Change,
    /// Seconds since something was last seen to be taken or acknowledged; 0 while nothing waits.
    Stalled,
}

impl Settings {
    fn reach(&self) -> Reach<'_> {
        Reach {
            url: self.url.as_ref(),
            url_from: self.url_from.as_ref(),
            user: self.user.as_ref(),
            password: self.password.as_ref(),
        }
    }

    fn named(&self) -> Option<Queue> {
        let text = |text: &Text| text.to_string();
        match (&self.list, &self.stream, &self.sorted_set, &self.celery) {
            (Some(key), None, None, None) => Some(Queue::List(text(key))),
            (None, Some(key), None, None) => Some(Queue::Stream { key: text(key), group: text(self.group.as_ref()?) }),
            (None, None, Some(key), None) => Some(Queue::SortedSet(text(key))),
            (None, None, None, Some(name)) => Some(Queue::Celery(text(name))),
            _ => None,
        }
    }
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "queue",
        summary: "A queue (Redis list, stream or sorted set, Celery, a table of jobs): how much waits, and whether it moves.",
        example: "\
url: redis://127.0.0.1:6379/0
celery: celery
measure: stalled
",
        layer: Layer::Data,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = match &self.jobs {
            Some(jobs) => jobs.check(self.measure),
            None => self.reach().check(),
        };
        if self.jobs.is_some() {
            let places = [self.url.is_some(), self.url_from.is_some(), self.user.is_some(), self.password.is_some()];
            let queues = [self.list.is_some(), self.stream.is_some(), self.sorted_set.is_some(), self.celery.is_some()];
            if [places, queues].concat().contains(&true) {
                mistakes
                    .push(Mistake::new("`jobs` is another queue than one in Redis").at("jobs").help("take one out"));
            }
        } else if self.stream.is_some() && self.group.is_none() {
            let help = "name the consumer group: without one nothing says what was done";
            mistakes.push(Mistake::new("`stream` is given without `group`").at("stream").help(help));
        } else if self.named().is_none() {
            let help = "name one of `list`, `stream`, `sorted-set`, `celery` and `jobs`";
            mistakes.push(Mistake::new("it is not one queue that is named").help(help));
        }
        if self.group.is_some() && self.stream.is_none() {
            mistakes.push(Mistake::new("`group` is given without `stream`").at("group"));
        }
        if self.window.is_some() && self.measure != Measure::Change {
            mistakes.push(Mistake::new("`window` is only for `measure: change`").at("window"));
        }
        mistakes
    }

    fn unit(&self) -> Unit {
        match self.measure {
            Measure::Length | Measure::Change => Unit::Number,
            Measure::Stalled => Unit::Seconds,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        &["length", "waiting", "held", "stalled_s"]
    }

    fn build(&self, id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let place = match &self.jobs {
            Some(jobs) => Where::Table(Box::new(Table {
                jobs: Jobs::clone(jobs),
                server: jobs.connection.as_ref().map(|connection| crate::postgres::Server::new(connection, cx)),
                file: cx.base.join(jobs.sqlite.clone().unwrap_or_default()),
            })),
            None => {
                let queue = self.named().ok_or_else(|| BuildError::new(id, "it is not one queue that is named"))?;
                Where::Redis(queue, Server::new(&self.reach(), cx).map_err(|why| BuildError::new(id, why))?)
            }
        };
        let window = self.window.map_or(std::time::Duration::from_secs(60), |window| window.0);
        let redactor = cx.redactor.clone();
        Ok(Arc::new(Depth { measure: self.measure, window, place, redactor, memory: Mutex::default() }))
    }
}

enum Where {
    Redis(Queue, Server),
    Table(Box<Table>),
}

struct Table {
    jobs: Jobs,
    /// None where the table is in `file`.
    server: Option<crate::postgres::Server>,
    file: PathBuf,
}

impl Table {
    async fn look(&self, limit: std::time::Duration) -> Result<Look, String> {
        let queries = [Some(&self.jobs.waiting), self.jobs.held.as_ref(), self.jobs.done.as_ref()];
        let mut numbers = [None; 3];
        match &self.server {
            Some(server) => {
                let asked = async {
                    let session = postgres::reader(server, limit).await?;
                    for (number, query) in numbers.iter_mut().zip(queries) {
                        if let Some(query) = query {
                            *number = postgres::number(&session, query).await?.0;
                        }
                    }
                    session.close().await;
                    Ok::<_, crate::postgres::PgError>(())
                };
                let asked = tokio::time::timeout(limit, asked).await;
                asked
                    .map_err(|_| format!("no answer within {}", ripcord_core::human(limit)))?
                    .map_err(|error| error.to_string())?;
            }
            None => {
                for (number, query) in numbers.iter_mut().zip(queries) {
                    if let Some(query) = query {
                        *number = sql::ask(self.file.clone(), query.clone(), limit / 3).await?.0;
                    }
                }
            }
        }
        let [waiting, held, done] = numbers;
        let waiting = waiting.ok_or("the query `waiting` gives no number")?;
        let count = |number: f64| number.max(0.0) as u64;
        let done = match (&self.jobs.done, done) {
            // A moment has fractions that count too.
            (Some(_), done) => Some((done.unwrap_or(0.0) * 1000.0) as i64),
            (None, _) => None,
        };
        Ok(Look { waiting: count(waiting), held: held.map_or(0, count), done, ..Look::default() })
    }

    fn shown(&self) -> String {
        let place = self.server.as_ref().map_or(self.file.display().to_string(), crate::postgres::Server::shown);
        format!("jobs in {place} ({})", self.jobs.waiting.trim())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Queue {
    List(String),
    Stream { key: String, group: String },
    SortedSet(String),
    Celery(String),
}

struct Depth {
    measure: Measure,
    window: std::time::Duration,
    place: Where,
    redactor: Redactor,
    memory: Mutex<Memory>,
}

/// A queue at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Look {
    waiting: u64,
    /// By workers, and not acknowledged.
    held: u64,
    /// What tells whether something was taken, list by list.
    lists: Vec<List>,
    /// How much a group has acknowledged in all, where the server counts that.
    acknowledged: Option<i64>,
    /// Up to where a group was given entries.
    given: Option<String>,
    /// Of a table, what is another when something was done.
    done: Option<i64>,
}

/// A list's length, and its ends by their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List {
    length: u64,
    ends: Option<(Digest, Digest)>,
}

impl Look {
    fn length(&self) -> u64 {
        self.waiting + self.held
    }

    /// Whether something was taken or acknowledged since `before`.
    fn moved_since(&self, before: &Self) -> bool {
        if self.done.is_some() || before.done.is_some() {
            return self.done != before.done;
        }
        let acknowledged = match (before.acknowledged, self.acknowledged) {
            (Some(then), Some(now)) => now > then,
            // Servers before 7.0 do not count: fewer are held, or others were given and no more are held.
            _ => self.held < before.held || (self.given != before.given && self.held <= before.held),
        };
        let taken = |(then, now): (&List, &List)| {
            let Some((first, last)) = &then.ends else { return false };
            let ends = now.ends.as_ref().map_or(2, |(f, l)| u8::from(f != first) + u8::from(l != last));
            now.length < then.length || ends == 2 || (ends == 1 && now.length == then.length)
        };
        acknowledged || before.lists.iter().zip(&self.lists).any(taken)
    }
}

/// What readings before saw.
#[derive(Debug, Default)]
struct Memory {
    last: Option<Look>,
    /// Since when nothing is seen to move.
    still_since: Option<Timestamp>,
    /// Lengths within the window.
    lengths: Vec<(Timestamp, u64)>,
}

impl Memory {
    /// Takes a look in; returns since when nothing moved.
    fn push(&mut self, at: Timestamp, look: Look, window: std::time::Duration) -> std::time::Duration {
        // A clock set back: what was remembered is of no known age.
        if self.lengths.last().is_some_and(|(before, _)| *before >= at) {
            *self = Self::default();
        }
        let moves = self.last.as_ref().is_none_or(|before| look.length() == 0 || look.moved_since(before));
        if moves || self.still_since.is_none() {
            self.still_since = Some(at);
        }
        self.lengths.push((at, look.length()));
        // The one right at or before the window's begin stays: the change is counted from there.
        while self.lengths.get(1).is_some_and(|(second, _)| between(*second, at) >= window) {
            self.lengths.remove(0);
        }
        self.last = Some(look);
        self.still_since.map_or(std::time::Duration::ZERO, |since| between(since, at))
    }

    /// Each second, over the window. None until there are two readings, and after a gap much longer than the window.
    fn change(&self, window: std::time::Duration) -> Option<f64> {
        let (from, to) = (self.lengths.first()?, self.lengths.last()?);
        let over = between(from.0, to.0);
        let fit = self.lengths.len() > 1 && over <= window.saturating_mul(2);
        fit.then(|| (to.1 as f64 - from.1 as f64) / over.as_secs_f64())
    }
}

async fn list(session: &mut Session, key: &str) -> Result<List, Trouble> {
    // At once: between three questions the ends might be another list's.
    let mut asked = redis::pipe();
    asked.atomic();
    asked.cmd("LLEN").arg(key).cmd("LINDEX").arg(key).arg(0).cmd("LINDEX").arg(key).arg(-1);
    let (length, first, last): (u64, Option<Vec<u8>>, Option<Vec<u8>>) = session.ask_all(&asked).await?;
    Ok(List { length, ends: first.zip(last).map(|(first, last)| (Digest::of(&first), Digest::of(&last))) })
}

fn of_lists(lists: Vec<List>, held: u64) -> Look {
    Look { waiting: lists.iter().map(|list| list.length).sum(), held, lists, ..Look::default() }
}

/// The group of a stream, out of the answer to XINFO GROUPS.
fn group_of(groups: &[BTreeMap<String, redis::Value>], name: &str) -> Option<BTreeMap<String, redis::Value>> {
    let is = |value: &redis::Value| matches!(value, redis::Value::BulkString(bytes) if bytes == name.as_bytes());
    groups.iter().find(|group| group.get("name").is_some_and(is)).cloned()
}

impl Queue {
    async fn look(&self, server: &Server, limit: std::time::Duration) -> Result<Look, Trouble> {
        let mut session = server.connect(limit).await?;
        match self {
            Self::List(key) => Ok(of_lists(vec![list(&mut session, key).await?], 0)),
            Self::Celery(name) => {
                let mut lists = vec![list(&mut session, name).await?];
                for priority in ["3", "6", "9"] {
                    lists.push(list(&mut session, &format!("{name}\u{6}\u{16}{priority}")).await?);
                }
                let held = session.ask(redis::cmd("HLEN").arg("unacked")).await?;
                Ok(of_lists(lists, held))
            }
            Self::SortedSet(key) => {
                let mut asked = redis::pipe();
                asked.atomic();
                asked.cmd("ZCARD").arg(key).cmd("ZRANGE").arg(key).arg(0).arg(0);
                let (length, first): (u64, Vec<Vec<u8>>) = session.ask_all(&asked).await?;
                // Taken from below. Its other end may be anywhere, so it is said to be as it was.
                let lowest = first.first().map(|first| Digest::of(first));
                let gone = lowest.map(|lowest| (lowest, Digest::of(b"")));
                Ok(of_lists(vec![List { length, ends: gone }], 0))
            }
            Self::Stream { key, group } => {
                let groups = session.ask(redis::cmd("XINFO").arg("GROUPS").arg(key)).await;
                let groups: Vec<BTreeMap<String, redis::Value>> = groups?;
                let found = group_of(&groups, group);
                let found =
                    found.ok_or_else(|| Trouble::other(format!("the stream `{key}` has no group `{group}`")))?;
                let number = |name: &str| match found.get(name) {
                    Some(redis::Value::Int(number)) => Some(*number),
                    _ => None,
                };
                let given = found.get("last-delivered-id").map(|id| format!("{id:?}"));
                let held = number("pending").unwrap_or(0);
                let waiting = match number("lag") {
                    Some(lag) => lag,
                    // Unknown after entries were deleted, and to servers before 7.0: what comes after the last one given is counted.
                    None => {
                        let last: String = found
                            .get("last-delivered-id")
                            .and_then(|id| redis::from_redis_value(id.clone()).ok())
                            .unwrap_or_else(|| "0-0".to_owned());
                        let mut range = redis::cmd("XRANGE");
                        range.arg(key).arg(format!("({last}")).arg("+").arg("COUNT").arg(10_000);
                        let after: Vec<redis::Value> = session.ask(&range).await?;
                        i64::try_from(after.len()).unwrap_or(i64::MAX)
                    }
                };
                let acknowledged = number("entries-read").map(|read| read - held);
                let count = |number: i64| u64::try_from(number).unwrap_or(0);
                Ok(Look { waiting: count(waiting), held: count(held), acknowledged, given, ..Look::default() })
            }
        }
    }
}

impl Signal for Depth {
    fn unit(&self) -> Unit {
        match self.measure {
            Measure::Length | Measure::Change => Unit::Number,
            Measure::Stalled => Unit::Seconds,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        &["length", "waiting", "held", "stalled_s"]
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move {
            // That the server is down says nothing about how much waits: the figure is not known.
            let limit = cx.limit - cx.limit / 10;
            let looked = match &self.place {
                Where::Redis(queue, server) => queue.look(server, limit).await.map_err(|trouble| trouble.why()),
                Where::Table(table) => table.look(limit).await,
            };
            let look = match looked {
                Ok(look) => look,
                Err(why) => return failed(self.redactor.clean(&why)),
            };
            let (length, waiting, held) = (look.length(), look.waiting, look.held);
            let mut memory = locked(&self.memory);
            let stalled = memory.push(cx.now, look, self.window).as_secs_f64();
            let value = match self.measure {
                Measure::Length => Some(length as f64),
                Measure::Stalled => Some(stalled),
                Measure::Change => memory.change(self.window),
            };
            let Some(value) = value else { return Reading::Empty };
            let fields: [(&str, Value); 4] = [
                ("length", length.into()),
                ("waiting", waiting.into()),
                ("held", held.into()),
                ("stalled_s", stalled.into()),
            ];
            let fields = fields.map(|(name, value)| (name.to_owned(), value)).into();
            Reading::of(Sample { fields, ..Sample::new(cx.now, value) })
        })
    }

    fn query(&self) -> String {
        let measure = match self.measure {
            Measure::Length => "length".to_owned(),
            Measure::Change => format!("change over {}", ripcord_core::human(self.window)),
            Measure::Stalled => "stalled".to_owned(),
        };
        let queue = match &self.place {
            Where::Redis(Queue::List(key), server) => format!("list {key} at {}", server.shown()),
            Where::Redis(Queue::Stream { key, group }, server) => {
                format!("stream {key}, group {group} at {}", server.shown())
            }
            Where::Redis(Queue::SortedSet(key), server) => format!("sorted set {key} at {}", server.shown()),
            Where::Redis(Queue::Celery(name), server) => format!("Celery queue {name} at {}", server.shown()),
            Where::Table(table) => table.shown(),
        };
        self.redactor.clean(&format!("{measure} of {queue}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Entries from the left to the right.
    fn list_of(entries: &[&str]) -> Look {
        let digest = |entry: &&str| Digest::of(entry.as_bytes());
        let ends = entries.first().map(digest).zip(entries.last().map(digest));
        of_lists(vec![List { length: entries.len() as u64, ends }], 0)
    }

    #[test]
    fn a_list_moves_when_something_was_taken_from_it() {
        let check = |before: &[&str], after: &[&str], moved: bool| {
            assert_eq!(list_of(after).moved_since(&list_of(before)), moved, "{before:?} -> {after:?}");
        };
        check(&["a", "b"], &["a", "b"], false);
        check(&["a", "b"], &["c", "a", "b"], false);
        check(&["a", "b"], &["a", "b", "c", "d"], false);
        check(&["a", "b"], &["a"], true);
        check(&["a", "b"], &[], true);
        check(&["a", "b"], &["b", "c"], true);
        check(&["a", "b"], &["c", "d", "e", "f", "a"], true);
        check(&["a", "b"], &["a", "c"], true);
        check(&["a"], &["b"], true);
        check(&[], &["a"], false);
    }

    fn stream(waiting: u64, held: u64, acknowledged: Option<i64>, given: &str) -> Look {
        Look { waiting, held, acknowledged, given: Some(given.to_owned()), ..Look::default() }
    }

    #[test]
    fn a_stream_moves_when_something_was_acknowledged() {
        let before = stream(5, 2, Some(10), "1-1");
        assert!(stream(4, 2, Some(11), "1-2").moved_since(&before));
        assert!(!stream(3, 4, Some(10), "1-3").moved_since(&before), "taken and not done is no progress");
        let old = stream(5, 2, None, "1-1");
        assert!(stream(5, 1, None, "1-1").moved_since(&old));
        assert!(stream(4, 2, None, "1-2").moved_since(&old));
        assert!(!stream(4, 3, None, "1-2").moved_since(&old));
        assert!(!stream(9, 2, None, "1-1").moved_since(&old));
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn stalled_is_how_long_nothing_moved_while_something_waited() {
        let mut memory = Memory::default();
        let window = Duration::from_secs(60);
        let mut push = |second, entries: &[&str]| memory.push(at(second), list_of(entries), window).as_secs();
        assert_eq!(push(0, &["a"]), 0, "nothing is known of before");
        assert_eq!(push(10, &["b", "a"]), 10);
        assert_eq!(push(20, &["c", "b", "a"]), 20);
        assert_eq!(push(30, &["c", "b"]), 0, "one was taken");
        assert_eq!(push(40, &["c", "b"]), 10);
        assert_eq!(push(50, &[]), 0);
        assert_eq!(push(500, &[]), 0, "nothing waits, nothing is late");
        assert_eq!(push(510, &["d"]), 10, "it may have waited since the reading before");
        assert_eq!(push(100, &["d"]), 0, "a clock set back begins anew");
    }

    #[test]
    fn change_is_over_the_window() {
        let mut memory = Memory::default();
        let window = Duration::from_secs(60);
        let mut push = |second: i64, length: u64| {
            let look = Look { waiting: length, ..Look::default() };
            memory.push(at(second), look, window);
            memory.change(window)
        };
        assert_eq!(push(0, 100), None);
        assert_eq!(push(10, 80), Some(-2.0));
        assert_eq!(push(60, 100), Some(0.0));
        assert_eq!(push(120, 160), Some(1.0));
        assert_eq!(push(600, 0), None, "a gap is no answer about the last minute");
    }

    #[test]
    fn settings_that_could_not_work_are_refused() {
        let mistakes = |yaml: &str| -> Vec<String> {
            let settings: Settings = serde_saphyr::from_str(&format!("url: redis://x\n{yaml}")).unwrap();
            settings.check().into_iter().map(|mistake| mistake.what).collect()
        };
        assert_eq!(mistakes("list: a"), Vec::<String>::new());
        assert_eq!(mistakes("list: a\ncelery: b"), ["it is not one queue that is named"]);
        assert_eq!(mistakes("stream: a"), ["`stream` is given without `group`"]);
        assert_eq!(mistakes("list: a\ngroup: g"), ["`group` is given without `stream`"]);
        assert_eq!(mistakes("list: a\nwindow: 1m"), ["`window` is only for `measure: change`"]);

        let mistakes = |yaml: &str| -> Vec<String> {
            let settings: Settings = serde_saphyr::from_str(yaml).unwrap();
            settings.check().into_iter().map(|mistake| mistake.what).collect()
        };
        assert_eq!(mistakes("jobs: { sqlite: a.db, waiting: SELECT 1 }"), Vec::<String>::new());
        assert_eq!(mistakes("jobs: { waiting: SELECT 1 }"), ["nothing says where the table is"]);
        assert_eq!(mistakes("jobs: { sqlite: a.db, waiting: '' }"), ["the query is empty"]);
        let stalled = "jobs: { sqlite: a.db, waiting: SELECT 1 }\nmeasure: stalled";
        assert_eq!(mistakes(stalled), ["nothing says whether jobs are done: `done` is missing"]);
        let both = "list: a\njobs: { sqlite: a.db, waiting: SELECT 1 }";
        assert_eq!(mistakes(both), ["`jobs` is another queue than one in Redis"]);
    }

    #[tokio::test]
    async fn a_table_of_jobs_moves_when_some_are_done() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("jobs.db");
        let db = rusqlite::Connection::open(&file).unwrap();
        db.execute_batch("CREATE TABLE jobs (state TEXT); INSERT INTO jobs VALUES ('waiting'), ('waiting'), ('held')")
            .unwrap();
        let count = |state: &str| format!("SELECT count(*) FROM jobs WHERE state = '{state}'");
        let jobs = Jobs {
            connection: None,
            sqlite: Some(file.clone()),
            waiting: count("waiting"),
            held: Some(count("held")),
            done: Some(count("done")),
        };
        let table = Table { jobs, server: None, file };
        let limit = Duration::from_secs(60);
        let first = table.look(limit).await.unwrap();
        assert_eq!((first.waiting, first.held, first.done), (2, 1, Some(0)));
        db.execute_batch("INSERT INTO jobs VALUES ('waiting')").unwrap();
        let second = table.look(limit).await.unwrap();
        assert!(second.length() == 4 && !second.moved_since(&first), "more wait, and none was done");
        db.execute_batch("UPDATE jobs SET state = 'done' WHERE state = 'held'").unwrap();
        assert!(table.look(limit).await.unwrap().moved_since(&second));
        db.execute_batch("DROP TABLE jobs").unwrap();
        assert!(table.look(limit).await.unwrap_err().contains("no such table"));
    }
}
