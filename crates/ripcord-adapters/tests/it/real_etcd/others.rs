//! Whoever else writes to the prefix, or compacts it, in the worst moment.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use ripcord_core::{Retry, Seen};
use serde_json::{Value, json};

use super::{Case, Cluster, failed, set};
use crate::contract::restore_step;
use crate::support::{apply, proof, survey};

/// A server in front of the real one that lets somebody else write right before a transaction.
async fn meddled(cluster: &Cluster, meddle: impl Fn(u32) + Clone + Send + Sync + 'static) -> crate::support::Server {
    use axum::extract::Request;
    let url = cluster.urls[0].clone();
    let count = std::sync::Arc::new(AtomicU32::new(0));
    let handle = move |request: Request| {
        let (url, meddle, count) = (url.clone(), meddle.clone(), count.clone());
        async move {
            let path = request.uri().path().to_owned();
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            if path.ends_with("/kv/txn") {
                let nth = count.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::task::spawn_blocking(move || meddle(nth)).await.unwrap();
            }
            let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
            let answer = client.post(format!("{url}{path}")).body(body).send().await.unwrap();
            let status = answer.status().as_u16();
            (axum::http::StatusCode::from_u16(status).unwrap(), answer.bytes().await.unwrap())
        }
    };
    crate::support::Server::start(axum::Router::new().fallback(handle)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf19_a_concurrent_writer_stops_it_before_anything_is_written() {
    let case = Case::new();
    let write = |key: &'static str, once: u32| {
        let urls = case.cluster.urls.clone();
        move |nth: u32| {
            if nth == once || once == 0 {
                let mut command = Command::new("etcdctl");
                command.env("ETCDCTL_API", "3").args(["--endpoints", &urls[0], "put", key, &format!("theirs {nth}")]);
                assert!(command.output().unwrap().status.success());
            }
        }
    };
    case.cluster.put("app/config/a", b"old");
    case.cluster.put("app/config/b", b"same");
    let (id, made) = case.captured(&*case.part("")).await;
    let through = |url: &str| format!("endpoints: ['{url}']\nprefix: app/config/");

    // A key that is to be put; one that is not touched; one that was not there.
    for key in ["app/config/a", "app/config/b", "app/config/c"] {
        case.cluster.put("app/config/a", b"new");
        case.cluster.put("app/config/b", b"same");
        case.cluster.ctl(&["del", "app/config/c"]);
        let server = meddled(&case.cluster, write(key, 1)).await;
        let part = case.bench.component("etcd", &through(&server.url));
        let failure = failed(apply(&*part, &restore_step(&id, &made)).await);
        let name = key.rsplit_once('/').unwrap().1;
        assert_eq!(failure.what, format!("`{name}` was changed by somebody else meanwhile; nothing was written"));
        assert_eq!(failure.retry, Retry::Later);
        if key != "app/config/a" {
            assert_eq!(case.cluster.ctl(&["get", "--print-value-only", "app/config/a"]), "new\n");
        }
        // The same step once they are done.
        proof(apply(&*part, &restore_step(&id, &made)).await);
        assert_eq!(case.cluster.ctl(&["get", "--prefix", "--print-value-only", "app/config/"]), "old\nsame\n");
    }

    // What lies beside the prefix is nobody's business, and what has a lease is written over by no one.
    let lease = case.cluster.ctl(&["lease", "grant", "600"]);
    let lease = lease.split_whitespace().nth(1).unwrap().to_owned();
    let urls = case.cluster.urls.clone();
    let leased = move |_| {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args([
            "--endpoints",
            &urls[0],
            "put",
            "--lease",
            &lease,
            "app/config/lock",
            "me",
        ]);
        assert!(command.output().unwrap().status.success());
    };
    case.cluster.put("app/config/a", b"new");
    leased(0);
    let once = std::sync::Arc::new(AtomicU32::new(0));
    let server = meddled(&case.cluster, move |nth| {
        if once.fetch_add(1, Ordering::SeqCst) == 0 {
            leased(nth)
        }
    })
    .await;
    let part = case.bench.component("etcd", &through(&server.url));
    let seen = survey(&*part, &[]).await;
    assert_eq!(seen.facts["with a lease, so left alone"], "lock");
    proof(apply(&*part, &restore_step(&id, &made)).await);
    assert_eq!(case.cluster.ctl(&["get", "--prefix", "--print-value-only", "app/config/"]), "old\nsame\nme\n");
    assert_eq!(survey(&*part, &[]).await.seen, Seen::At(made.revision));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_revision_is_read_anew() {
    let case = Case::new();
    let keys: Vec<_> = (0..1200).map(|n| (format!("app/config/k{n:04}"), "v".to_owned())).collect();
    case.cluster.put_many(&keys);
    // Between two pages of the first try somebody writes, and compacts what the pages are pinned to.
    let url = case.cluster.urls[0].clone();
    let ranges = std::sync::Arc::new(AtomicU32::new(0));
    let handle = move |request: axum::extract::Request| {
        let (url, ranges) = (url.clone(), ranges.clone());
        async move {
            let path = request.uri().path().to_owned();
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            if ranges.fetch_add(1, Ordering::SeqCst) == 1 {
                let ctl = |words: Vec<String>| {
                    let mut command = Command::new("etcdctl");
                    let output = command.env("ETCDCTL_API", "3").args(["--endpoints", &url]).args(words).output();
                    String::from_utf8(output.unwrap().stdout).unwrap()
                };
                let put = ctl(["put", "app/config/k0000", "w", "-w", "json"].map(str::to_owned).to_vec());
                let revision = serde_json::from_str::<Value>(&put).unwrap()["header"]["revision"].to_string();
                ctl(vec!["compaction".into(), revision]);
            }
            let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
            let answer = client.post(format!("{url}{path}")).body(body).send().await.unwrap();
            let status = axum::http::StatusCode::from_u16(answer.status().as_u16()).unwrap();
            (status, answer.bytes().await.unwrap())
        }
    };
    let server = crate::support::Server::start(axum::Router::new().fallback(handle)).await;
    let part = case.bench.component("etcd", &format!("endpoints: ['{}']\nprefix: app/config/", server.url));
    let seen = survey(&*part, &[]).await;
    assert!(seen.label.as_deref().unwrap().starts_with("1200 keys at revision "), "{seen:?}");
    assert_eq!(seen.seen, survey(&*case.part(""), &[]).await.seen, "one revision, not two halves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toggle_counts_on_its_own_keys_alone() {
    let case = Case::new();
    case.cluster.put("app/config/mode", b"fast");
    let through = |url: &str| format!("endpoints: ['{url}']\nprefix: app/config/");
    let step = set(json!({ "mode": "stable" }));
    for (key, ends) in [("app/config/another", true), ("app/config/mode", false)] {
        case.cluster.put("app/config/mode", b"fast");
        let urls = case.cluster.urls.clone();
        let server = meddled(&case.cluster, move |nth| {
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").args(["--endpoints", &urls[0], "put", key, &format!("theirs {nth}")]);
            assert!(command.output().unwrap().status.success());
        });
        let server = server.await;
        let part = case.bench.component("etcd", &through(&server.url));
        let outcome = apply(&*part, &step).await;
        let mode = case.cluster.ctl(&["get", "--print-value-only", "app/config/mode"]);
        if ends {
            proof(outcome);
            assert_eq!(mode, "stable\n");
        } else {
            assert!(failed(outcome).what.starts_with("`mode` was changed by somebody else meanwhile; nothing"));
            assert_eq!(mode, "theirs 1\n", "theirs stands");
        }
    }
}
