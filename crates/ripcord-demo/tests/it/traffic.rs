//! The load, against a shop that is well, that fails, and that is not there.
use crate::site::{Site, until};
use reqwest::StatusCode;
use ripcord_demo::{
    load::{Counters, Load},
    shop::Fault,
};
use std::time::Duration;

fn load(site: &Site, rate_per_second: u32, write_share: f64) -> Load {
    Load { url: site.url("/"), rate_per_second, write_share, at_most: None }
}

#[tokio::test]
async fn the_counters_agree_with_the_shop() {
    let site = Site::running(Fault::None);
    let running = load(&site, 200, 0.25).start().unwrap();
    until("requests", async || running.counters().sent >= 100).await;
    let counters = running.stop().await;
    let Counters { sent, ok, failed, unreachable, orders_taken, p50_ms, p95_ms, .. } = counters;
    assert_eq!((sent, failed, unreachable), (ok, 0, 0), "{counters}");
    assert!((sent as f64 * 0.25 - orders_taken as f64).abs() <= 1.0, "{counters}");
    assert!(p50_ms > 0.0 && p95_ms >= p50_ms, "{counters}");
    let metrics = site.metrics().await;
    assert_eq!(metrics.requests("/orders", "POST", 201), orders_taken as f64);
    for (route, method) in [("/orders/{id}", "GET"), ("/orders", "GET"), ("/", "GET")] {
        assert!(metrics.requests(route, method, 200) > 10.0, "{method} {route}");
    }
    assert_eq!(site.sql("SELECT count(*) FROM orders"), 10 + orders_taken as i64);
}

#[tokio::test]
async fn failures_and_absence_are_told_apart() {
    let site = Site::running(Fault::Checkout);
    let running = load(&site, 200, 1.0).start().unwrap();
    until("failures", async || running.counters().failed >= 30).await;
    assert_eq!(running.counters().unreachable, 0);
    let path = site.path().to_owned();
    tokio::task::spawn_blocking(move || ripcord_demo::shop::stop(&path, Duration::from_secs(60)))
        .await
        .unwrap()
        .unwrap();
    until("nobody there", async || running.counters().unreachable >= 10).await;
    let counters = running.stop().await;
    assert_eq!(counters.sent, counters.ok + counters.failed);
    assert_eq!(counters.ok, counters.orders_taken);
    assert_eq!(site.sql("SELECT count(*) FROM orders"), 10 + counters.orders_taken as i64);
}

#[tokio::test]
async fn it_ends_by_itself_and_when_dropped() {
    let site = Site::running(Fault::None);
    let at_most = Some(Duration::from_millis(300));
    let counters = Load { at_most, ..load(&site, 50, 0.0) }.start().unwrap().finished().await;
    assert!((1..=16).contains(&counters.sent) && counters.ok == counters.sent, "{counters}");

    let running = load(&site, 500, 1.0).start().unwrap();
    until("orders", async || running.counters().orders_taken > 0).await;
    drop(running);
    let count = async || site.metrics().await.value("shop_orders_total");
    assert_eq!(site.orders_answered(50, StatusCode::CREATED).await, 50);
    let settled = count().await;
    assert_eq!(site.orders_answered(200, StatusCode::CREATED).await, 200);
    assert_eq!(count().await, settled + 200.0, "at 500 a second there would be more");
}

#[tokio::test]
async fn a_shop_that_does_not_answer_gets_no_more_than_it_can_hold() {
    // Accepts connections, as the kernel does for it, and never says a word.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let running = Load { url, rate_per_second: 1_000, write_share: 0.0, at_most: None }.start().unwrap();
    until("shedding", async || running.counters().shed > 0).await;
    let counters = running.counters();
    assert!(counters.sent - counters.failed <= 128 && counters.ok == 0, "{counters}");
}
