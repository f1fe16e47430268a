//! A server as the signal sees it, and queues in it as they fill and move.

use std::time::Duration;

use super::{Case, Redis};
use crate::real_daemon::wait;
use crate::support::{cx_at, read, sample, why};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_signal_tells_how_a_server_is_and_that_it_is_down() {
    let case = Case::new(&["--maxmemory", "100mb", "--maxclients", "100"]);
    case.redis.fill("a:", 100);
    let signal = |more: &str| case.bench.signal("redis", &format!("{}\n{more}", case.redis.url()));
    let failing = signal("");
    let up = sample(read(&*failing).await);
    assert_eq!((up.value, &up.fields["role"], &up.fields["keys"]), (0.0, &"master".into(), &100.into()));
    let latency = signal("measure: latency");
    assert!((0.0..1.0).contains(&sample(read(&*latency).await).value));
    let share = sample(read(&*signal("measure: memory-share")).await).value;
    assert!(share > 0.0 && share < 0.5, "{share}");
    assert_eq!(sample(read(&*signal("measure: keys")).await).value, 100.0);
    let clients = sample(read(&*signal("measure: clients-share")).await).value;
    assert!(clients > 0.0 && clients <= 0.2, "{clients}");

    let rate = signal("measure: hit-rate");
    assert!(
        matches!(read(&*rate).await, ripcord_core::Reading::Empty),
        "one reading says nothing of what was asked since"
    );
    for key in ["a:0:1", "a:0:2", "a:0:3", "none"] {
        case.redis.cli(&["GET", key]);
    }
    let hits = sample(read(&*rate).await);
    assert_eq!((hits.value, hits.n), (0.75, Some(4.0)));

    let replication = signal("measure: replication\nreplicas: 1");
    assert_eq!(sample(read(&*replication).await).value, 1.0);
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &case.redis.port.to_string()]);
    wait("replication", || replica.count("a:*") == 100);
    assert_eq!(sample(read(&*replication).await).value, 0.0);
    let link = case.bench.signal("redis", &format!("{}\nmeasure: replication", replica.url()));
    assert_eq!(sample(read(&*link).await).value, 0.0);

    case.redis.daemon.freeze(true);
    let short = cx_at(jiff::Timestamp::now(), Duration::from_secs(1));
    assert_eq!(sample(latency.read(&short).await).value, 1.0, "the limit");
    assert_eq!(sample(failing.read(&short).await).value, 1.0);
    case.redis.daemon.freeze(false);
    case.redis.daemon.kill();
    let down = sample(read(&*failing).await);
    assert_eq!(down.value, 1.0);
    assert!(down.fields["error"].as_str().unwrap().starts_with("Redis cannot be reached"), "{:?}", down.fields);
    assert!(why(read(&*signal("measure: keys")).await).starts_with("Redis cannot be reached"), "a figure nobody knows");
    crate::support::until("the link to be down", || async { sample(read(&*link).await).value == 1.0 }).await;
    let nobody = case.bench.signal("redis", "url: redis://nobody.invalid:6379/0");
    assert!(why(read(&*nobody).await).starts_with("`nobody.invalid` is not found"), "the observer's failure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_s_length_and_whether_it_moves() {
    let case = Case::new(&[]);
    let redis = &case.redis;
    let signal = |more: &str| case.bench.signal("queue", &format!("{}\n{more}", redis.url()));
    let cx_at =
        |second: i64| cx_at(jiff::Timestamp::from_second(1_790_000_000 + second).unwrap(), Duration::from_secs(5));
    let value = |reading| sample(reading).value;

    // As Celery does it: pushed on the left, taken from the right, kept in a hash until it is acknowledged.
    redis.cli(&["LPUSH", "celery", "job-1", "job-2"]);
    redis.cli(&["LPUSH", "celery\u{6}\u{16}9", "urgent"]);
    redis.cli(&["HSET", "unacked", "tag", "job-0"]);
    let length = sample(signal("celery: celery").read(&cx_at(0)).await);
    assert_eq!((length.value, &length.fields["waiting"], &length.fields["held"]), (4.0, &3.into(), &1.into()));
    let stalled = signal("celery: celery\nmeasure: stalled");
    assert_eq!(value(stalled.read(&cx_at(0)).await), 0.0);
    redis.cli(&["LPUSH", "celery", "job-3"]);
    assert_eq!(value(stalled.read(&cx_at(30)).await), 30.0, "more came, and nobody took any");
    redis.cli(&["RPOP", "celery"]);
    redis.cli(&["LPUSH", "celery", "job-4", "job-5"]);
    assert_eq!(value(stalled.read(&cx_at(60)).await), 0.0, "it grew, and moves");
    redis.cli(&["DEL", "unacked"]);
    assert_eq!(value(stalled.read(&cx_at(70)).await), 0.0, "one was acknowledged");

    redis.cli(&["XGROUP", "CREATE", "events", "workers", "0", "MKSTREAM"]);
    for n in ["1", "2", "3"] {
        redis.cli(&["XADD", "events", &format!("{n}-0"), "n", n]);
    }
    let stream = signal("stream: events\ngroup: workers\nmeasure: stalled");
    assert_eq!(value(stream.read(&cx_at(0)).await), 0.0);
    redis.cli(&["XREADGROUP", "GROUP", "workers", "one", "COUNT", "1", "STREAMS", "events", ">"]);
    let held = sample(stream.read(&cx_at(40)).await);
    assert_eq!((held.value, &held.fields["waiting"], &held.fields["held"]), (40.0, &2.into(), &1.into()));
    redis.cli(&["XACK", "events", "workers", "1-0"]);
    assert_eq!(value(stream.read(&cx_at(50)).await), 0.0);
    // A server that cannot say how far behind the group is.
    redis.cli(&["XDEL", "events", "2-0"]);
    assert_eq!(value(signal("stream: events\ngroup: workers").read(&cx_at(0)).await), 1.0);
    let none = signal("stream: events\ngroup: nobody");
    assert!(why(none.read(&cx_at(0)).await).contains("no group `nobody`"));

    redis.cli(&["ZADD", "delayed", "1", "a", "2", "b"]);
    let set = signal("sorted-set: delayed\nmeasure: stalled");
    assert_eq!(value(set.read(&cx_at(0)).await), 0.0);
    redis.cli(&["ZADD", "delayed", "3", "c"]);
    assert_eq!(value(set.read(&cx_at(10)).await), 10.0);
    redis.cli(&["ZPOPMIN", "delayed"]);
    redis.cli(&["ZADD", "delayed", "4", "d"]);
    assert_eq!(value(set.read(&cx_at(20)).await), 0.0);

    redis.cli(&["RPUSH", "jobs", "a", "b", "c", "d"]);
    let change = signal("list: jobs\nmeasure: change");
    assert!(matches!(change.read(&cx_at(0)).await, ripcord_core::Reading::Empty));
    redis.cli(&["LPOP", "jobs", "2"]);
    assert_eq!(value(change.read(&cx_at(20)).await), -0.1, "it falls");
    assert_eq!(value(signal("list: nothing").read(&cx_at(0)).await), 0.0);
    assert!(why(signal("list: delayed").read(&cx_at(0)).await).contains("WRONGTYPE"), "no list is no empty list");
}
