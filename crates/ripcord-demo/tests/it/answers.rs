//! What the shop says over HTTP, and what it keeps.
use crate::site::{Site, until};
use reqwest::{Method, StatusCode};
use ripcord_demo::shop::Fault;
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

#[tokio::test]
async fn health_names_the_release_that_runs_and_the_page_shows_it() {
    let mut site = Site::running(Fault::None);
    let health = site.json("/api/health").await;
    assert_eq!((health["status"].as_str(), health["version"].as_str()), (Some("ok"), Some("v1")));
    health["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let keys: BTreeSet<_> = health.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, BTreeSet::from(["status", "timestamp", "version"].map(str::to_owned)));

    // RF27: the version is that of the process, whatever `current` says by now.
    site.deploy("v2", Fault::None);
    assert_eq!(site.json("/api/health").await["version"], "v1");
    site.restart();
    assert_eq!(site.json("/api/health").await["version"], "v2");
    assert!(site.read("/").send().await.unwrap().text().await.unwrap().contains(">v2<"));
    assert!(site.metrics().await.has(r#"shop_release_info{version="v2"}"#));
}

#[tokio::test]
async fn health_follows_the_database() {
    let site = Site::running(Fault::None);
    let (database, aside) = (site.layout().database(), site.path().join("aside.db"));
    fs::rename(&database, &aside).unwrap();
    let response = site.read("/api/health").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let health: serde_json::Value = response.json().await.unwrap();
    assert_eq!((health["status"].as_str(), health["version"].as_str()), (Some("unhealthy"), Some("v1")));
    assert_eq!(site.order("ann").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let log = site.log();
    assert!(log.contains("ERROR GET /api/health 503") && log.contains("ERROR POST /orders 503"), "{log}");

    fs::rename(&aside, &database).unwrap();
    assert_eq!(site.json("/api/health").await["status"], "ok");
}

#[tokio::test]
async fn orders_are_taken_shown_listed_and_outlive_the_process() {
    let mut site = Site::running(Fault::None);
    let response = site.order("ann").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["location"], "/orders/11");
    assert_eq!(response.json::<serde_json::Value>().await.unwrap(), json!({"id": 11, "total_cents": 2 * 1_450 + 490}));
    let shown = site.json("/orders/11").await;
    assert_eq!((&shown["customer"], &shown["sku"], &shown["quantity"]), (&json!("ann"), &json!("mug-blue"), &json!(2)));

    site.restart();
    assert_eq!(site.json("/orders/11").await, shown);
    let newest = site.json("/orders?limit=2").await;
    assert_eq!((&newest[0], &newest[1]["id"], newest.as_array().unwrap().len()), (&shown, &json!(10), 2));
    assert_eq!(site.json("/orders").await.as_array().unwrap().len(), 11);
    assert_eq!(site.sql("SELECT count(*) FROM customers WHERE name = 'ann'"), 1);
}

#[tokio::test]
async fn what_cannot_be_sold_is_refused() {
    let site = Site::running(Fault::None);
    let refused = async |order: serde_json::Value| site.post("/orders").json(&order).send().await.unwrap().status();
    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    assert_eq!(refused(json!({"customer": "", "sku": "kettle", "quantity": 1})).await, unprocessable);
    assert_eq!(refused(json!({"customer": "ann", "sku": "gold", "quantity": 1})).await, unprocessable);
    assert_eq!(refused(json!({"customer": "ann", "sku": "kettle", "quantity": 0})).await, unprocessable);
    assert_eq!(refused(json!({"customer": "ann", "sku": "kettle", "quantity": -1})).await, unprocessable);
    assert_eq!(refused(json!({"customer": "ann", "sku": "kettle"})).await, unprocessable);
    let much = json!({"customer": "x".repeat(20_000), "sku": "kettle", "quantity": 1});
    assert_eq!(refused(much).await, StatusCode::PAYLOAD_TOO_LARGE);
    let broken = site.post("/orders").header("content-type", "application/json").body("{").send().await.unwrap();
    assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
    assert_eq!(site.read("/orders/999").send().await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(site.sql("SELECT count(*) FROM orders"), 10);
}

#[tokio::test]
async fn metrics_are_well_formed_and_rise_with_what_happens() {
    let site = Site::running(Fault::None);
    let before = site.metrics().await;
    let kind = site.read("/metrics").send().await.unwrap().headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    for number in 0..3 {
        site.order(&format!("customer {number}")).await;
        site.read(&format!("/orders/{number}")).send().await.unwrap();
    }
    for path in ["/nowhere/1", "/nowhere/2"] {
        site.read(path).send().await.unwrap();
    }
    let odd = Method::from_bytes(b"BREW").unwrap();
    site.client.request(odd, site.url("/orders")).send().await.unwrap();

    let after = site.metrics().await;
    let rise = |series: &str| after.value(series) - before.value(series);
    assert_eq!(after.requests("/orders", "POST", 201), 3.0);
    assert_eq!(after.requests("/orders/{id}", "GET", 200), 2.0, "orders 1 and 2");
    assert_eq!(after.requests("/orders/{id}", "GET", 404), 1.0, "order 0");
    assert_eq!(after.requests("other", "GET", 404), 2.0, "unknown paths share one series");
    assert_eq!(after.requests("/orders", "OTHER", 405), 1.0);
    assert_eq!(rise("shop_orders_total"), 3.0);
    assert_eq!(rise(r#"http_request_duration_seconds_count{route="/orders"}"#), 4.0);
    assert_eq!(rise(r#"http_request_duration_seconds_bucket{route="/orders",le="+Inf"}"#), 4.0);
    assert!(rise(r#"http_request_duration_seconds_sum{route="/orders"}"#) > 0.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 600.0..=now).contains(&after.value("process_start_time_seconds")));
}

#[tokio::test]
async fn rf18_settings_shown_are_those_in_force_and_rf29_no_value_but_a_toggle_is_shown() {
    let mut site = Site::running(Fault::None);
    let token = site.token();
    let config = site.json("/api/config").await;
    assert_eq!(config, json!({"keys": ["ADMIN_TOKEN", "FAST_CHECKOUT"], "toggles": {"FAST_CHECKOUT": true}}));

    site.set_env(
        "FAST_CHECKOUT=true",
        "FAST_CHECKOUT=true\nexport FAST_CHECKOUT = 'false' # later wins\nCANARY=s3cret",
    );
    assert_eq!(site.json("/api/config").await, config, "changing the file changes nothing in the process");
    site.restart();
    let config = site.json("/api/config").await;
    assert_eq!(config["toggles"], json!({"FAST_CHECKOUT": false}));
    assert_eq!(config["keys"], json!(["ADMIN_TOKEN", "CANARY", "FAST_CHECKOUT"]));

    site.read("/admin/maintenance").bearer_auth("wrong").send().await.unwrap();
    for path in ["/", "/api/health", "/api/flags", "/api/config", "/metrics", "/orders", "/admin/maintenance"] {
        let text = site.read(path).send().await.unwrap().text().await.unwrap();
        assert!(!text.contains(&token) && !text.contains("s3cret"), "{path}");
    }
    let written = [site.layout().log(), site.layout().stdout(), site.layout().stderr(), site.layout().process()];
    for file in written {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(&token) && !text.contains("s3cret"), "{}", file.display());
    }
}

#[tokio::test]
async fn flags_are_in_force_as_soon_as_they_are_written() {
    let site = Site::running(Fault::None);
    let quantity = async |quantity: u32| {
        let order = json!({"customer": "ann", "sku": "kettle", "quantity": quantity});
        site.post("/orders").json(&order).send().await.unwrap()
    };
    assert_eq!(quantity(20).await.status(), StatusCode::CREATED);
    assert_eq!(quantity(21).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    fs::write(site.layout().flags(), r#"{"max_quantity": 30, "free_shipping": true, "colour": "red"}"#).unwrap();
    let taken: serde_json::Value = quantity(21).await.json().await.unwrap();
    assert_eq!(taken["total_cents"], 21 * 4_990);
    assert_eq!(site.json("/api/flags").await["colour"], "red");

    fs::write(site.layout().flags(), "{\"max_quantity\":").unwrap();
    assert_eq!(site.json("/api/flags").await["max_quantity"], 30, "a file that is being written changes nothing");
    assert_eq!(site.log().matches("ERROR flags in ").count(), 1);
}

#[tokio::test]
async fn the_log_follows_its_path_over_a_rotation() {
    let site = Site::running(Fault::None);
    let (log, old) = (site.layout().log(), site.path().join("logs/shop.log.1"));
    fs::rename(&log, &old).unwrap();
    let pid = ripcord_demo::shop::observe(site.path()).unwrap().unwrap().pid;
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    until("a new log", async || log.exists()).await;
    assert_eq!(site.json("/api/health").await["status"], "ok", "SIGHUP does not end it");
    site.stop();
    assert!(site.log().contains("INFO release v1 ends") && !site.log().contains(" serves on "));
    assert!(fs::read_to_string(old).unwrap().contains("INFO release v1 serves on"));
}
