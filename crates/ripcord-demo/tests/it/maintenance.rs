//! The closed door: who stays outside, who passes, and that it stays closed.
use crate::site::{Site, until};
use reqwest::StatusCode;
use ripcord_demo::{load::Load, shop::Fault};
use serde_json::json;
use std::fs;

async fn turn(site: &Site, word: &str) -> serde_json::Value {
    let response = site.post(&format!("/admin/maintenance/{word}")).bearer_auth(site.token()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

async fn status(site: &Site, path: &str) -> StatusCode {
    site.read(path).send().await.unwrap().status()
}

#[tokio::test]
async fn the_door_is_closed_to_all_but_the_keeper_also_after_a_restart() {
    let mut site = Site::running(Fault::None);
    assert_eq!(turn(&site, "enable").await, json!({"enabled": true, "inside": 0}));
    assert_eq!(turn(&site, "enable").await["enabled"], true);
    for restarted in [false, true] {
        if restarted {
            site.restart();
        }
        for path in ["/", "/orders", "/orders/1", "/api/config", "/api/flags", "/nowhere"] {
            let response = site.read(path).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}, restarted: {restarted}");
            assert_eq!(response.headers()["retry-after"], "5");
            assert!(response.text().await.unwrap().contains("Back in a moment"));
        }
        assert_eq!(site.order("ann").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(&site, "/api/health").await, StatusCode::OK);
        assert_eq!(site.metrics().await.value("shop_maintenance"), 1.0);
    }
    assert_eq!(site.sql("SELECT count(*) FROM orders"), 10);
    assert!(!site.log().contains("ERROR"), "a closed door is not an error: {}", site.log());

    // RF28: verification has to get in before customers do.
    let internal = site.read("/orders/1").header("X-Internal", site.token()).send().await.unwrap();
    assert_eq!(internal.status(), StatusCode::OK);
    for wrong in ["", "wrong", &site.token()[1..]] {
        let response = site.read("/orders/1").header("X-Internal", wrong).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{wrong:?}");
    }
    assert_eq!(turn(&site, "disable").await["enabled"], false);
    assert_eq!(status(&site, "/orders/1").await, StatusCode::OK);
    site.restart();
    assert_eq!(status(&site, "/orders/1").await, StatusCode::OK);
}

#[tokio::test]
async fn without_the_token_nothing_is_changed_or_told() {
    let site = Site::running(Fault::None);
    let token = site.token();
    for (header, value) in [
        ("authorization", "Bearer ".to_owned()),
        ("authorization", format!("Bearer {}", &token[..63])),
        ("authorization", format!("Bearer {token}0")),
        ("authorization", format!("Bearer {}", token.to_uppercase())),
        ("authorization", format!("Basic {token}")),
        ("authorization", token.clone()),
        ("x-internal", token.clone()),
        ("x-nothing", "1".to_owned()),
    ] {
        for request in [site.post("/admin/maintenance/enable"), site.read("/admin/maintenance")] {
            let response = request.header(header, &value).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{header}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
        }
    }
    assert_eq!(status(&site, "/orders").await, StatusCode::OK);
    let state = site.read("/admin/maintenance").bearer_auth(token).send().await.unwrap();
    assert_eq!(state.json::<serde_json::Value>().await.unwrap()["enabled"], false);
}

#[tokio::test]
async fn a_token_that_protects_nothing_is_refused_at_start() {
    let mut site = Site::laid_out(Fault::None);
    let line = format!("ADMIN_TOKEN={}", site.token());
    for weak in ["", "ADMIN_TOKEN=", "ADMIN_TOKEN='' # 0123456789abcdef"] {
        let before = fs::read_to_string(site.layout().env()).unwrap();
        site.set_env(&line, weak);
        assert!(site.try_start(0).unwrap_err().to_string().contains("sets no ADMIN_TOKEN"), "{weak:?}");
        fs::write(site.layout().env(), before).unwrap();
    }
    site.start();
}

#[tokio::test]
async fn rf25_nobody_reaches_the_shop_while_it_is_closed_and_all_do_after() {
    let site = Site::running(Fault::None);
    let load = Load { url: site.url(""), rate_per_second: 100, write_share: 1.0, at_most: None }.start().unwrap();
    until("orders", async || load.counters().orders_taken > 5).await;
    assert_eq!(turn(&site, "enable").await, json!({"enabled": true, "inside": 0}));
    let closed_at = site.sql("SELECT count(*) FROM orders");
    let failed = load.counters().failed;
    until("refusals", async || load.counters().failed > failed + 30).await;
    assert_eq!(site.sql("SELECT count(*) FROM orders"), closed_at, "not one order was written while closed");
    turn(&site, "disable").await;
    let (taken, failed) = (load.counters().orders_taken, site.metrics().await.requests("/orders", "POST", 503));
    until("orders again", async || load.counters().orders_taken > taken + 30).await;
    assert_eq!(site.metrics().await.requests("/orders", "POST", 503), failed, "not one was refused after");
    let counters = load.stop().await;
    assert_eq!(site.sql("SELECT count(*) FROM orders"), 10 + counters.orders_taken as i64);
}

#[tokio::test]
async fn closing_waits_for_those_inside() {
    let site = Site::running(Fault::Slow);
    let visits: Vec<_> = (0..20).map(|_| tokio::spawn(site.read("/orders").send())).collect();
    // Four of twenty take more than two seconds.
    until("the quick ones", async || site.metrics().await.requests("/orders", "GET", 200) >= 15.0).await;
    assert_eq!(turn(&site, "enable").await["inside"], 0);
    assert!(
        visits.iter().all(|visit| visit.is_finished()) || site.metrics().await.requests("/orders", "GET", 200) == 20.0
    );
    for visit in visits {
        assert_eq!(visit.await.unwrap().unwrap().status(), StatusCode::OK, "who is inside is served");
    }
}
