//! What a server refuses: without rights, as a replica or a member of a cluster, without memory.

use ripcord_core::{Action, Outcome, Retry, Revision, Seen};

use super::{Case, Redis, drafted, failed, proposed};
use crate::real_daemon::wait;
use crate::support::{apply, proof, step, survey};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_and_every_right_that_is_needed_are_asked_for_before_anything() {
    let mut case = Case::new(&["--requirepass", "canary-root"]);
    case.redis.login = vec!["-a".into(), "canary-root".into()];
    case.redis.fill("shop:", 5);
    let keys = "keys: ['shop:*']";
    let Seen::Unreachable { why } = survey(&*case.part(keys), &[]).await.seen else { panic!("there was no login") };
    assert!(why.contains("NOAUTH") || why.contains("Authentication required"), "{why}");
    let wrong = format!("{keys}\npassword: {}", case.bench.secret("wrong", "canary-wrong"));
    let Seen::Unreachable { why } = survey(&*case.part(&wrong), &[]).await.seen else { panic!("a wrong password") };
    assert!(!why.contains("canary"), "{why}");

    let url = format!("redis://:canary-root@127.0.0.1:{}/0", case.redis.port);
    let whole = format!("url-from: {}\n{keys}", case.bench.secret("url", &url));
    let root = case.bench.component("redis", &whole);
    let (id, made) = case.captured(&*root).await;
    let (drafts, _, _) = proposed(&*root, &id, &made).await;
    assert!(!drafts[0].shown.words.contains("canary"), "{}", drafts[0].shown.words);

    case.redis.cli(&["ACL", "SETUSER", "app", "on", ">canary-app", "~shop:*", "~ripcord:*", "+@all", "-unlink"]);
    let login = format!("{keys}\nuser: app\npassword: {}", case.bench.secret("app", "canary-app"));
    let part = case.part(&login);
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    let failure = failed(apply(&*part, &prove).await);
    assert!(failure.what.contains("unlink") && failure.advice.unwrap().contains("+unlink"), "{}", failure.what);
    let failure = failed(apply(&*part, &drafted(&drafts)).await);
    assert!(failure.what.contains("unlink"), "{}", failure.what);
    assert_eq!(case.redis.count("shop:*"), 5);
    case.redis.cli(&["ACL", "SETUSER", "app", "resetkeys", "~shop:other:*", "~ripcord:*", "+unlink"]);
    let failure = failed(apply(&*part, &prove).await);
    assert_eq!(failure.retry, Retry::Never, "keys of others: {}", failure.what);
    // The rights that the documentation names, and no others.
    let rights =
        "resetkeys ~ripcord:* ~shop:* -@all +@read +@connection +info +time +multi +exec +discard +set +unlink";
    let user: Vec<&str> = ["ACL", "SETUSER", "app"].into_iter().chain(rights.split(' ')).collect();
    case.redis.cli(&user);
    proof(apply(&*part, &prove).await);
    case.captured(&*part).await;
    case.captured(&*case.part(&format!("{login}\nrollback: restore"))).await;
    proof(apply(&*part, &drafted(&drafts)).await);
    assert_eq!(case.redis.count("shop:*"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_and_a_member_of_a_cluster_are_refused_by_name() {
    let case = Case::new(&[]);
    case.redis.fill("shop:", 5);
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &case.redis.port.to_string()]);
    wait("replication", || replica.count("shop:*") == 5);
    let part = case.bench.component("redis", &format!("{}\nkeys: ['shop:*']", replica.url()));
    let Seen::Unreachable { why } = survey(&*part, &[]).await.seen else { panic!("it is a replica") };
    assert_eq!(why, format!("Redis refuses: it is a replica of 127.0.0.1:{}", case.redis.port));
    let clear = step("clear", Action::Restore { to: Revision::Absent, from: None });
    let failure = failed(apply(&*part, &clear).await);
    assert!(failure.advice.unwrap().contains("name the primary"));
    assert_eq!(replica.count("shop:*"), 5);
    // Where the primary is cleared, the replica follows.
    proof(apply(&*case.part("keys: ['shop:*']"), &clear).await);
    wait("the replica", || replica.count("shop:*") == 0);

    let member = Redis::start(&["--cluster-enabled", "yes"]);
    let part = case.bench.component("redis", &format!("{}\nkeys: ['shop:*']", member.url()));
    let Seen::Unreachable { why } = survey(&*part, &[]).await.seen else { panic!("it is a member of a cluster") };
    assert!(why.contains("it is a member of a cluster"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_without_memory_is_cleared_and_takes_writes_again() {
    let case = Case::new(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]);
    for what in ["unlink", "flushdb"] {
        case.redis.cli(&["FLUSHALL"]);
        let full = "for i = 1, 100000 do if not pcall(redis.call, 'SET', 'shop:' .. i, string.rep('x', 1000)) then return i end end";
        case.redis.try_cli(&["EVAL", full, "0"], b"");
        assert!(case.redis.try_cli(&["SET", "one-more", "1"], b"").contains("OOM"), "it is full");
        let part = case.part(&format!("keys: ['shop:*']\nwhat: {what}"));
        let (id, made) = case.captured(&*part).await;
        let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
        proof(apply(&*part, &prove).await);
        let (drafts, _, _) = proposed(&*part, &id, &made).await;
        proof(apply(&*part, &drafted(&drafts)).await);
        assert_eq!(case.redis.count("shop:*"), 0, "{what}");
        assert_eq!(case.redis.cli(&["SET", "one-more", "1"]), "OK");
    }
    // What is put back needs room: it says so, and how far it came is seen.
    case.redis.cli(&["FLUSHALL"]);
    case.redis.fill("app:", 100);
    let part = case.part("keys: ['app:*']\nrollback: restore");
    let (id, made) = case.captured(&*part).await;
    let full = "for i = 1, 100000 do if not pcall(redis.call, 'SET', 'others:' .. i, string.rep('x', 1000)) then return i end end";
    case.redis.try_cli(&["EVAL", full, "0"], b"");
    case.redis.cli(&["CONFIG", "SET", "maxmemory", "2mb"]);
    let restore = crate::contract::restore_step(&id, &made);
    let outcome = apply(&*part, &restore).await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert!(failure.what.contains("maxmemory") && failure.retry == Retry::Later, "{failure:?}");
    case.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    proof(apply(&*part, &restore).await);
    assert_eq!(case.redis.count("app:*"), 100);
}
