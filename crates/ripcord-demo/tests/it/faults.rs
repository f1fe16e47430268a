//! How each bad release shows, and what cures it.
use crate::site::Site;
use reqwest::StatusCode;
use ripcord_demo::shop::{Fault, INTEGRITY_QUERY, ShopError};

#[tokio::test]
async fn checkout_fails_for_most_less_without_the_toggle_and_only_the_old_code_cures_it() {
    let mut site = Site::running(Fault::Checkout);
    let failed = site.orders_answered(100, StatusCode::INTERNAL_SERVER_ERROR).await;
    assert!((55..=65).contains(&failed), "{failed} of 100 with the toggle on");
    assert_eq!(site.metrics().await.requests("/orders", "POST", 500), failed as f64);
    assert_eq!(site.sql("SELECT count(*) FROM orders"), 10 + 100 - failed as i64, "a failed order is not kept");
    assert_eq!(site.log().matches("ERROR POST /orders 500").count(), failed);
    assert_eq!(site.json("/api/health").await["status"], "ok", "a health check alone does not show it");

    site.set_env("FAST_CHECKOUT=true", "FAST_CHECKOUT=false");
    site.restart();
    let failed = site.orders_answered(100, StatusCode::INTERNAL_SERVER_ERROR).await;
    assert!((25..=35).contains(&failed), "{failed} of 100 with the toggle off");

    site.set_env("FAST_CHECKOUT=false", "FAST_CHECKOUT=true");
    site.deploy("v0", Fault::None);
    site.restart();
    assert_eq!(site.orders_answered(50, StatusCode::CREATED).await, 50);
}

#[tokio::test]
async fn corrupted_data_is_answered_with_success_and_shows_in_sql() {
    let site = Site::running(Fault::CorruptsData);
    assert_eq!(site.sql(INTEGRITY_QUERY), 0);
    assert_eq!(site.orders_answered(6, StatusCode::CREATED).await, 6);
    assert_eq!(site.sql(INTEGRITY_QUERY), 6);
    assert_eq!(site.sql("SELECT count(*) FROM orders WHERE total_cents < 0"), 3);
    assert_eq!(site.sql("SELECT count(*) FROM orders WHERE customer = ''"), 3);
    assert_eq!(site.sql("SELECT max(id) FROM orders WHERE total_cents < 0 OR customer = ''"), 6, "the oldest first");
    let metrics = site.metrics().await;
    assert_eq!((metrics.requests("/orders", "POST", 201), metrics.requests("/orders", "POST", 500)), (6.0, 0.0));
}

#[tokio::test]
async fn slow_puts_the_95th_percentile_above_two_seconds() {
    let site = Site::running(Fault::Slow);
    let visits = (0..40).map(|_| {
        let visit = site.read("/orders").send();
        tokio::spawn(async move { visit.await.unwrap().status() })
    });
    for visit in visits.collect::<Vec<_>>() {
        assert_eq!(visit.await.unwrap(), StatusCode::OK);
    }
    // The shop's own measurement: that a busy machine takes longer cannot make more than 95 % of requests quick.
    let metrics = site.metrics().await;
    let below =
        |le: &str| metrics.value(&format!(r#"http_request_duration_seconds_bucket{{route="/orders",le="{le}"}}"#));
    assert_eq!(below("+Inf"), 40.0);
    assert!(below("2") <= 0.9 * 40.0, "{} of 40 within two seconds", below("2"));
    assert!(metrics.requests("/api/health", "GET", 200) == 0.0 && site.json("/api/health").await["status"] == "ok");
}

#[tokio::test]
async fn crash_is_reported_with_what_this_start_logged() {
    let mut site = Site::running(Fault::None);
    site.stop();
    let before = site.log().lines().count();
    site.deploy("v2", Fault::Crash);
    let error = site.try_start(0).unwrap_err();
    let ShopError::EndedAtStart { status, said, .. } = &error else { panic!("{error}") };
    assert!(said.contains("ERROR release `v2` cannot start"), "{said}");
    assert!(!said.contains("v1"), "RF28: lines of an earlier start prove nothing: {said}");
    assert_eq!(status, "exit status: 1");
    assert_eq!(site.log().lines().count(), before + 1);

    site.deploy("v1", Fault::None);
    site.start();
    assert_eq!(site.json("/api/health").await["version"], "v1");
}

#[tokio::test]
async fn leak_grows_with_orders_and_a_sound_release_does_not() {
    let growth = async |fault| {
        let site = Site::running(fault);
        site.orders_answered(20, StatusCode::CREATED).await; // caches and buffers have their size now
        let before = site.metrics().await.value("process_resident_memory_bytes");
        site.orders_answered(100, StatusCode::CREATED).await;
        site.metrics().await.value("process_resident_memory_bytes") - before
    };
    let (leaking, sound) = tokio::join!(growth(Fault::Leak), growth(Fault::None));
    assert!(leaking >= 100.0 * 200.0 * 1024.0, "{leaking} bytes");
    assert!(sound < 8.0 * 1024.0 * 1024.0, "{sound} bytes");
}
