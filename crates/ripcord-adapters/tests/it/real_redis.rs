//! Keys on real Redis servers, found and moved with `redis-cli`: only what is declared goes, and everybody else is served meanwhile.

mod refused; // rights, replicas, no memory
mod signal; // the server, and queues in it, as signals see them

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ripcord_core::{
    Action, Available, CaptureId, CapturePurpose, CaptureRef, Component, Destroys, Draft, Failure, Holds, Loss, Made,
    Nature, Observe, Outcome, Revision, Seen, Step, Survey, Want, Wanted, Wish,
};

use crate::contract::{Child, Site, before as run_before, restore_step, run_cx};
use crate::real_daemon::{Daemon, directory, port, wait};
use crate::support::{Bench, apply, before, cx, cx_at, inventory, place, proof, step, survey};

pub struct Redis {
    daemon: Daemon,
    pub port: u16,
    login: Vec<String>,
}

impl Redis {
    pub fn start(more: &[&str]) -> Self {
        Self::start_in(&directory("redis"), port(), more)
    }

    fn start_in(dir: &std::path::Path, port: u16, more: &[&str]) -> Self {
        let (text, at) = (port.to_string(), dir.display().to_string());
        let mut argv = vec!["redis-server", "--port", &text, "--bind", "127.0.0.1", "--dir", &at, "--save", ""];
        argv.extend(more);
        let server = Self { daemon: Daemon::start(dir, &argv), port, login: vec![] };
        wait("Redis", || {
            assert!(server.daemon.runs(), "Redis did not start: {}", server.daemon.log());
            let said = server.try_cli(&["PING"], b"");
            said.contains("PONG") || said.contains("NOAUTH") || said.contains("MASTERDOWN")
        });
        server
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string(), "--no-auth-warning"]).args(&self.login).args(arguments);
        command
    }

    fn try_cli(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    pub fn cli(&self, arguments: &[&str]) -> String {
        let said = self.try_cli(arguments, b"");
        for bad in ["ERR", "NOAUTH", "NOPERM", "WRONGTYPE", "Could not connect"] {
            assert!(!said.starts_with(bad), "{arguments:?}: {said}");
        }
        said.trim_end().to_owned()
    }

    /// As many strings as wanted, at once.
    fn fill(&self, prefix: &str, count: u32) {
        let script = "for i = 1, tonumber(ARGV[2]) do redis.call('SET', ARGV[1] .. i, 'value ' .. i) end";
        for part in (0..count).step_by(50_000) {
            let many = (count - part).min(50_000).to_string();
            self.cli(&["EVAL", script, "0", &format!("{prefix}{part}:"), &many]);
        }
    }

    fn count(&self, pattern: &str) -> usize {
        let text = self.cli(&["--scan", "--pattern", pattern]);
        // While the server rehashes, a scan may name a key twice.
        text.lines().filter(|line| !line.is_empty()).collect::<std::collections::BTreeSet<_>>().len()
    }

    fn url(&self) -> String {
        format!("url: redis://127.0.0.1:{}/0", self.port)
    }
}

struct Case {
    bench: Bench,
    redis: Redis,
}

impl Case {
    fn new(more: &[&str]) -> Self {
        let bench = Bench::new();
        bench.vault();
        Self { bench, redis: Redis::start(more) }
    }

    fn part(&self, more: &str) -> Arc<dyn Component> {
        self.bench.component("redis", &format!("{}\n{more}", self.redis.url()))
    }

    async fn captured(&self, part: &dyn Component) -> (CaptureId, Made) {
        let capture = step("capture", Action::Capture { purpose: CapturePurpose::Protective });
        let made = proof(apply(part, &capture).await).capture.unwrap();
        (self.bench.record(9, made.clone()), made)
    }
}

fn failed(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

async fn proposed(part: &dyn Component, id: &CaptureId, made: &Made) -> (Vec<Draft>, Loss, Survey) {
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let seen = survey(part, std::slice::from_ref(&wanted)).await;
    assert!(matches!(seen.available(&made.revision), Some(Available::Here { .. })), "{:?}", seen.available);
    let loss = seen.losses.iter().find(|(of, _)| of == id).unwrap().1.clone();
    let want = Want::Revision { revision: wanted.revision, capture: wanted.capture };
    (part.propose(&Wish { place: place(), want }, &inventory(seen.clone())).unwrap(), loss, seen)
}

fn drafted(drafts: &[Draft]) -> Step {
    step("restore", drafts[0].action.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf23_only_the_declared_keys_vanish_and_the_queue_is_whole() {
    let case = Case::new(&[]);
    let redis = &case.redis;
    redis.fill("shop:cache:", 2_500);
    redis.cli(&["HSET", "shop:page:1", "title", "a"]);
    redis.cli(&["SET", "shop:session:7", "somebody"]);
    redis.cli(&["RPUSH", "celery", "job 1", "job 2", "job 3"]);
    redis.cli(&["XADD", "shop:events", "*", "k", "v"]);
    redis.fill("other-app:cache:", 700);
    redis.cli(&["-n", "3", "SET", "elsewhere", "1"]);
    let part = case.part("keys: ['shop:cache:*', 'shop:page:*']");
    assert_eq!((part.capabilities().nature, part.capabilities().observe), (Nature::Flowing, Observe::ByMarker));
    let (id, made) = case.captured(&*part).await;
    assert_eq!(made.revision, Revision::Absent);
    assert_eq!(made.label.as_deref(), Some("2501 keys, cleared on a rollback"));

    let (drafts, loss, _) = proposed(&*part, &id, &made).await;
    assert!(loss.is_none(), "what is cached is made again: {loss:?}");
    assert_eq!(drafts[0].destroys, Destroys::Nothing);
    let words = &drafts[0].shown.words;
    let expected = ": shop:cache:* (2500), shop:page:* (1); 1 hash, 2500 string";
    assert!(words.starts_with("unlink 2501 keys at redis://127.0.0.1:") && words.ends_with(expected), "{words}");
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    proof(apply(&*part, &prove).await);
    assert_eq!(redis.count("shop:*"), 2_503, "proving changes nothing");

    let clear = drafted(&drafts);
    let looked = part.holds(&cx(), &clear, None).await;
    assert_eq!(looked.holds, Holds::Origin);
    let before = before(&clear, looked.mark);
    let done = proof(part.apply(&cx(), &clear, &before).await);
    assert!(done.found.starts_with("unlinked 2501 keys: ") && done.found.ends_with("; none is left"), "{}", done.found);
    assert_eq!(done.lost, Some(ripcord_core::Loss::none()), "said, not left open");
    assert_eq!((redis.count("shop:cache:*"), redis.count("shop:page:*")), (0, 0));
    assert_eq!(redis.cli(&["LRANGE", "celery", "0", "-1"]), "job 1\njob 2\njob 3");
    assert_eq!(
        (redis.cli(&["GET", "shop:session:7"]), redis.cli(&["XLEN", "shop:events"])),
        ("somebody".into(), "1".into())
    );
    assert_eq!((redis.count("other-app:*"), redis.cli(&["-n", "3", "GET", "elsewhere"])), (700, "1".to_owned()));

    // The application fills it again: that does not undo what was done, and is not cleared by the same step.
    redis.cli(&["SET", "shop:cache:new", "1"]);
    assert_eq!(part.holds(&cx(), &clear, Some(&before)).await.holds, Holds::Target);
    proof(part.apply(&cx(), &clear, &before).await);
    assert_eq!(redis.cli(&["GET", "shop:cache:new"]), "1");
    // What says so goes by itself.
    let marker = redis.cli(&["--scan", "--pattern", "ripcord:*"]);
    let left: u64 = redis.cli(&["TTL", &marker]).parse().unwrap();
    assert!(left > 3000, "{marker}: {left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf23_what_looks_like_a_queue_stands_out_and_is_a_loss() {
    let case = Case::new(&[]);
    case.redis.fill("shop:", 10);
    case.redis.cli(&["RPUSH", "shop:jobs", "a", "b"]);
    case.redis.cli(&["XADD", "shop:events", "*", "k", "v"]);
    let part = case.part("keys: ['shop:*']");
    let (id, made) = case.captured(&*part).await;
    let (drafts, loss, seen) = proposed(&*part, &id, &made).await;
    assert_eq!(loss.total_rows(), 2);
    assert_eq!(loss.rows.keys().collect::<Vec<_>>(), ["part: keys of type list", "part: keys of type stream"]);
    assert_eq!(drafts[0].destroys, Destroys::GivesUp, "that needs somebody's consent");
    let words = &drafts[0].shown.words;
    assert!(words.contains("among them what may be queues: ") && words.contains("shop:jobs (2 entries)"), "{words}");
    // A toggle never takes such along.
    let want = Want::Values([("shop:*".to_owned(), serde_json::Value::Null)].into());
    let why = part.propose(&Wish { place: place(), want }, &inventory(seen)).unwrap_err().why;
    assert!(why.starts_with("among the keys are lists or streams"), "{why}");

    let known = case.part("keys: ['shop:*']\ntypes: [string, list, stream]");
    let (drafts, loss, _) = proposed(&*known, &id, &made).await;
    assert!(loss.is_none() && drafts[0].destroys == Destroys::Nothing, "said to be a cache of such");
    let done = proof(apply(&*part, &drafted(&drafts)).await);
    assert_eq!(done.lost.unwrap().total_rows(), 2, "what was really given up is on the record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf23_a_large_keyspace_does_not_stand_in_anybody_s_way() {
    let case = Case::new(&[]);
    case.redis.fill("shop:cache:", 200_000);
    case.redis.fill("others:", 1_000);
    let part = case.part("keys: ['shop:cache:*']");
    let (id, made) = case.captured(&*part).await;
    let (drafts, _, _) = proposed(&*part, &id, &made).await;
    assert!(drafts[0].shown.words.starts_with("unlink 200000 keys"), "{}", drafts[0].shown.words);
    // Somebody asks all the while; the longest wait is kept.
    let over = Arc::new(AtomicBool::new(false));
    let (port, ended) = (case.redis.port, Arc::clone(&over));
    let asking = std::thread::spawn(move || {
        let (mut longest, mut times) = (Duration::ZERO, 0_u32);
        let client = redis::Client::open(("127.0.0.1", port)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            while !ended.load(Ordering::SeqCst) {
                let began = Instant::now();
                let said: String = redis::cmd("PING").query_async(&mut connection).await.unwrap();
                assert_eq!(said, "PONG");
                longest = longest.max(began.elapsed());
                times += 1;
            }
        });
        (longest, times)
    });
    proof(apply(&*part, &drafted(&drafts)).await);
    over.store(true, Ordering::SeqCst);
    let (longest, times) = asking.join().unwrap();
    assert_eq!((case.redis.count("shop:cache:*"), case.redis.count("others:*")), (0, 1_000));
    // Two hundred batches: between any two of them others had their turn.
    assert!(times >= 100, "others were served {times} times, {longest:?} was the longest wait");
    let slow = case.redis.cli(&["SLOWLOG", "GET", "128"]);
    assert!(!slow.contains("KEYS") && !slow.contains("FLUSH"), "{slow}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf23_flushing_names_everything_it_takes_along_and_gives_it_up() {
    let case = Case::new(&[]);
    let fill = || {
        case.redis.cli(&["FLUSHALL"]);
        case.redis.fill("shop:cache:", 20);
        case.redis.fill("others:", 30);
        case.redis.cli(&["-n", "5", "RPUSH", "queue", "job"]);
    };
    for (what, left, tables) in [
        ("flushdb", 1, vec!["part: other keys of database 0"]),
        ("flushall", 0, vec!["part: all keys of database 5", "part: other keys of database 0"]),
    ] {
        fill();
        let part = case.part(&format!("keys: ['shop:cache:*']\nwhat: {what}"));
        assert_eq!(part.capabilities().restore, Destroys::GivesUp);
        let (id, made) = case.captured(&*part).await;
        let (drafts, loss, _) = proposed(&*part, &id, &made).await;
        assert_eq!(loss.rows.keys().collect::<Vec<_>>(), tables);
        assert_eq!(drafts[0].destroys, Destroys::GivesUp);
        let words = &drafts[0].shown.words;
        assert!(words.contains("everybody's keys: 50 keys in database 0"), "{words}");
        assert_eq!(words.contains("1 keys in database 5"), what == "flushall", "{words}");
        let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
        proof(apply(&*part, &prove).await);
        assert_eq!(case.redis.count("*"), 50, "asking whether it may was no flush");
        let clear = drafted(&drafts);
        let before = before(&clear, None);
        let done = proof(part.apply(&cx(), &clear, &before).await);
        assert!(done.lost.unwrap().total_rows() >= 30);
        assert_eq!(part.holds(&cx(), &clear, Some(&before)).await.holds, Holds::Target);
        assert_eq!(case.redis.count("*"), 1, "the mark of the step");
        assert_eq!(case.redis.cli(&["-n", "5", "DBSIZE"]), left.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_come_back_with_their_types_their_bytes_and_their_time_to_live() {
    let case = Case::new(&[]);
    let redis = &case.redis;
    let script = "redis.call('SET', 'app:binary', string.char(0, 255, 10, 13, 92))\n\
                  redis.call('SET', 'app:' .. string.char(255, 10), 'odd name')\n\
                  redis.call('HSET', 'app:hash', 'a', '1', 'b', '')\nfor i = 1, 1000 do redis.call('SADD', 'app:set', 'm' .. i) end\n\
                  redis.call('ZADD', 'app:zset', 1.5, 'm', 2, 'n')\nredis.call('RPUSH', 'app:list', 'one', 'two')\n\
                  redis.call('XADD', 'app:stream', '1-1', 'k', 'v')\nredis.call('XGROUP', 'CREATE', 'app:stream', 'g', '0')\n\
                  redis.call('SET', 'app:large', string.rep('x', 1048576))\nredis.call('SET', 'app:expiring', '1', 'EX', 5000)";
    redis.cli(&["EVAL", script, "0"]);
    redis.cli(&["SET", "others", "1"]);
    let part = case.part("keys: ['app:*']\nrollback: restore");
    let (id, made) = case.captured(&*part).await;
    assert_eq!(made.label.as_deref(), Some("9 keys"));
    let members = "local t = redis.call('KEYS', 'app:*') table.sort(t) local o = {} for _, k in ipairs(t) do \
                   local y = redis.call('TYPE', k).ok local v \
                   if y == 'string' then v = {redis.call('GET', k)} elseif y == 'hash' then v = redis.call('HGETALL', k) \
                   elseif y == 'set' then v = redis.call('SMEMBERS', k) table.sort(v) \
                   elseif y == 'zset' then v = redis.call('ZRANGE', k, 0, -1, 'WITHSCORES') \
                   elseif y == 'list' then v = redis.call('LRANGE', k, 0, -1) else v = {redis.call('DUMP', k)} end \
                   o[#o+1] = k .. redis.sha1hex(table.concat(v, '|')) end return table.concat(o, ' ')";
    let digest = || redis.cli(&["EVAL", members, "0"]);
    let good = digest();

    redis.cli(&["SET", "app:large", "small"]);
    redis.cli(&["DEL", "app:zset", "app:expiring"]);
    redis.cli(&["SET", "app:added", "1"]);
    redis.cli(&["HSET", "app:hash", "c", "3"]);
    let (drafts, loss, seen) = proposed(&*part, &id, &made).await;
    let rows = loss.rows["part: keys"];
    assert_eq!((rows.inserted, rows.updated, rows.deleted), (1, 2, 2), "{loss:?}");
    assert!(loss.since.is_some());
    assert!(matches!(drafts[0].destroys, Destroys::SetAside { .. }), "{seen:?}");
    let restore = drafted(&drafts);
    let done = proof(apply(&*part, &restore).await);
    assert_eq!(done.found, "put 9 keys back, unlinked 1 that were not there then; read back, and the same");
    assert_eq!(digest(), good);
    let left: u64 = redis.cli(&["TTL", "app:expiring"]).parse().unwrap();
    assert!((4000..=5000).contains(&left), "{left}");
    assert_eq!((redis.cli(&["TTL", "app:set"]), redis.cli(&["GET", "others"])), ("-1".to_owned(), "1".to_owned()));
    assert!(redis.cli(&["XINFO", "GROUPS", "app:stream"]).contains('g'), "consumer groups are part of a stream");
    assert_eq!(proposed(&*part, &id, &made).await.1.total_rows(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_is_bounded_and_what_is_damaged_or_of_others_is_refused() {
    let case = Case::new(&[]);
    case.redis.fill("app:", 200);
    let small = case.part("keys: ['app:*']\nrollback: restore\nmax-capture: 1kB");
    let capture = step("capture", Action::Capture { purpose: CapturePurpose::Protective });
    let failure = failed(apply(&*small, &capture).await);
    assert!(failure.what.contains("the most that a capture may hold"), "{}", failure.what);
    assert!(failure.advice.unwrap().contains("max-capture"));

    let part = case.part("keys: ['app:*']\nrollback: restore");
    let (id, made) = case.captured(&*part).await;
    let other = case.part("keys: ['web:*']\nrollback: restore");
    let failure = failed(apply(&*other, &restore_step(&id, &made)).await);
    assert!(failure.what.contains("`app:*`, which is not among `keys` any more"), "{}", failure.what);
    let lie = Made { revision: Revision::exact("hmac:00"), ..made };
    let id = case.bench.record(10, lie.clone());
    let failure = failed(apply(&*part, &restore_step(&id, &lie)).await);
    assert!(failure.what.starts_with("the capture holds hmac:"), "{}", failure.what);
    let from = Some(CaptureRef::Known(CaptureId::at(ripcord_core::Seq(77))));
    let unknown = step("restore", Action::Restore { to: lie.revision, from });
    assert!(failed(apply(&*part, &unknown).await).what.contains("the record knows no capture"));
    assert_eq!(case.redis.count("app:*"), 200);
}

/// Runs a step in children that are killed at each effect in turn, and again to its end.
async fn killed_anywhere(yaml: &str, redis: &Redis, bad: impl Fn(), good: impl Fn() -> bool) {
    let site = Site::new("redis", format!("{}\n{yaml}", redis.url()));
    let (id, made) = site.capture(1).await;
    let step = restore_step(&id, &made);
    for at in 1_u32.. {
        assert!(at < 60, "the child never gets through");
        let run = 100 + u64::from(at);
        bad();
        let outcome = site.in_child(run, &step, &Child { kill_at: Some(at), ..Child::default() });
        let before = run_before(run, &step, None);
        let holds = site.component().holds(&run_cx(run), &step, Some(&before)).await.holds;
        if let Some(outcome) = outcome {
            proof(outcome);
            assert_eq!(holds, Holds::Target);
            assert!(good(), "it got through");
            assert!(at > 3, "the step has places to be killed at");
            return;
        }
        assert!(!matches!(holds, Holds::CannotTell { .. }), "killed at {at}: {holds:?}");
        proof(site.component().apply(&run_cx(run), &step, &before).await);
        assert!(good(), "killed at {at}, then carried on");
        assert_eq!(site.component().holds(&run_cx(run), &step, Some(&before)).await.holds, Holds::Target);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clearing_killed_anywhere_is_carried_on() {
    let redis = Redis::start(&[]);
    redis.fill("others:", 10);
    let good = || redis.count("shop:cache:*") == 0 && redis.count("others:*") == 10;
    killed_anywhere("keys: ['shop:cache:*']", &redis, || redis.fill("shop:cache:", 3_000), good).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn putting_back_killed_anywhere_is_carried_on() {
    let redis = Redis::start(&[]);
    redis.fill("app:", 250);
    let bad = || {
        redis.cli(&[
            "EVAL",
            "for i = 1, 100 do redis.call('SET', 'app:0:' .. i, 'bad') redis.call('SET', 'app:new:' .. i, 1) end",
            "0",
        ]);
    };
    let good = || redis.count("app:*") == 250 && redis.cli(&["GET", "app:0:7"]) == "value 7";
    killed_anywhere("keys: ['app:*']\nrollback: restore", &redis, bad, good).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_killed_anywhere_is_never_in_doubt() {
    let redis = Redis::start(&[]);
    let good = || redis.count("shop:*") == 0;
    let bad = || redis.fill("shop:", 30);
    // Only two places: before it and after it.
    let site = Site::new("redis", format!("{}\nkeys: ['shop:*']\nwhat: flushdb", redis.url()));
    let (id, made) = site.capture(1).await;
    let step = restore_step(&id, &made);
    for (at, expected) in [(1, Holds::Origin), (2, Holds::Target)] {
        bad();
        assert!(site.in_child(100 + at, &step, &Child { kill_at: Some(at as u32), ..Child::default() }).is_none());
        let before = run_before(100 + at, &step, None);
        assert_eq!(site.component().holds(&run_cx(100 + at), &step, Some(&before)).await.holds, expected);
        proof(site.component().apply(&run_cx(100 + at), &step, &before).await);
        assert!(good(), "killed at {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_comes_back_and_is_cleared_to_the_end() {
    // What was unlinked is in the log of writes, so it stays unlinked.
    let aof = ["--appendonly", "yes", "--appendfsync", "always"];
    let case = Case::new(&aof);
    case.redis.fill("shop:", 30_000);
    case.redis.fill("others:", 100);
    let part = case.part("keys: ['shop:*']");
    let clear = step("clear", Action::Restore { to: Revision::Absent, from: None });
    let before = before(&clear, None);
    let (acting, step, at) = (Arc::clone(&part), clear.clone(), before.clone());
    let acting = tokio::spawn(async move {
        let cx = cx_at(jiff::Timestamp::now(), Duration::from_secs(20));
        acting.apply(&cx, &step, &at).await
    });
    let size = || case.redis.cli(&["DBSIZE"]).parse::<u64>().unwrap();
    wait("some keys to go", || size() < 30_000);
    case.redis.daemon.kill();
    let outcome = acting.await.unwrap();
    assert!(matches!(outcome, Outcome::Unknown { .. } | Outcome::Failed(_)), "{outcome:?}");
    assert!(matches!(part.holds(&cx(), &clear, Some(&before)).await.holds, Holds::CannotTell { .. }));
    let Seen::Unreachable { why } = survey(&*part, &[]).await.seen else { panic!("it is dead") };
    assert!(why.starts_with("Redis cannot be reached: 127.0.0.1:"), "{why}");

    let Case { bench, redis } = case;
    let port = redis.port;
    let dir = redis.daemon.end_and_keep();
    let redis = Redis::start_in(&dir, port, &aof);
    assert_eq!(part.holds(&cx(), &clear, Some(&before)).await.holds, Holds::Origin);
    proof(part.apply(&cx(), &clear, &before).await);
    assert_eq!((redis.count("shop:*"), redis.count("others:*")), (0, 100));
    drop(bench);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_can_be_cleared_as_a_toggle() {
    let case = Case::new(&[]);
    case.redis.fill("shop:cache:", 5);
    case.redis.fill("shop:page:", 5);
    let part = case.part("keys: ['shop:cache:*', 'shop:page:*']");
    assert!(part.capabilities().sets);
    let seen = inventory(survey(&*part, &[]).await);
    let want = |name: &str, value: serde_json::Value| Wish {
        place: place(),
        want: Want::Values([(name.to_owned(), value)].into()),
    };
    let drafts = part.propose(&want("shop:page:*", serde_json::Value::Null), &seen).unwrap();
    proof(apply(&*part, &drafted(&drafts)).await);
    assert_eq!((case.redis.count("shop:cache:*"), case.redis.count("shop:page:*")), (5, 0));
    let why = part.propose(&want("others:*", serde_json::Value::Null), &seen).unwrap_err().why;
    assert_eq!(why, "`others:*` is not among its `keys`");
    assert!(part.propose(&want("shop:page:*", 1.into()), &seen).unwrap_err().why.contains("only be cleared"));
}
