use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Redirect;
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use ripcord_core::Secret;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::{Bench, Server, cx_at, nobody, read, sample, why};

async fn server() -> Server {
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        "late"
    };
    let token = |headers: HeaderMap| async move {
        let told = headers.get("authorization").and_then(|value| value.to_str().ok()) == Some("Bearer canary-probe");
        let token = headers.get("x-key").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        (if told { StatusCode::OK } else { StatusCode::UNAUTHORIZED }, [("x-echo", token.clone())], token)
    };
    let router = Router::new()
        .route(
            "/ok",
            get(|| async { Json(json!({"status": "ok", "version": "v1", "queue": {"depth": 12, "full": true}})) }),
        )
        .route("/unhealthy", get(|| async { Json(json!({"status": "unhealthy"})) }))
        .route("/error", get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "boom") }))
        .route("/html", get(|| async { "<html>sorry</html>" }))
        .route("/moved", get(|| async { Redirect::temporary("/ok") }))
        .route("/slow", get(slow))
        .route("/token", get(token))
        .route("/large", get(|| async { "x".repeat(3 << 20) }))
        .route("/echo", post(|Json(body): Json<Value>| async move { Json(json!({"got": body})) }));
    Server::start(router).await
}

#[tokio::test]
async fn rf27_200_is_not_yet_healthy() {
    let (bench, server) = (Bench::new(), server().await);
    let check = async |path: &str, expect: &str| {
        let signal = bench.signal("http", &format!("url: {}{path}\n{expect}", server.url));
        let sample = sample(read(&*signal).await);
        (sample.value, sample.fields["error"].as_str().unwrap_or_default().to_owned())
    };
    let ok = (0.0, String::new());
    let failing = |why: &str| (1.0, why.to_owned());
    assert_eq!(check("/ok", "").await, ok);
    assert_eq!(check("/ok", "expect: { json: { /status: ok, /version: v1, /queue/depth: 12 } }").await, ok);
    assert_eq!(
        check("/ok", "expect: { json: { /version: v2 } }").await,
        failing("`/version` is \"v1\" and not \"v2\"")
    );
    assert_eq!(
        check("/unhealthy", "expect: { json: { /status: ok } }").await,
        failing("`/status` is \"unhealthy\" and not \"ok\"")
    );
    assert_eq!(check("/html", "expect: { json: { /status: ok } }").await, failing("the answer is no JSON"));
    assert_eq!(check("/error", "").await, failing("status 500"));
    assert_eq!(check("/error", "expect: { status: [500] }").await, ok);
    assert_eq!(check("/moved", "").await, failing("status 307"), "redirects are not followed");
    assert_eq!(check("/nothing", "").await, failing("status 404"));
}

#[tokio::test]
async fn an_unreachable_subject_is_a_sample() {
    let (bench, url) = (Bench::new(), nobody().await);
    let down = sample(read(&*bench.signal("http", &format!("url: {url}"))).await);
    assert_eq!((down.value, &down.fields["status"]), (1.0, &json!(0)));
    assert!(down.fields["error"].as_str().unwrap().contains("Connection refused"), "{:?}", down.fields);
    let status = sample(read(&*bench.signal("http", &format!("url: {url}\nmeasure: status"))).await);
    assert_eq!(status.value, 0.0);
    let latency = sample(read(&*bench.signal("http", &format!("url: {url}\nmeasure: latency"))).await);
    assert_eq!(latency.value, 20.0, "no answer is as slow as it may be, and not as fast as a refusal");
    let json = why(read(&*bench.signal("http", &format!("url: {url}\nmeasure: {{ json: /a }}"))).await);
    assert!(json.starts_with("no answer: "), "{json}");
}

#[tokio::test]
async fn silence_and_a_broken_connection_are_samples() {
    let (bench, server) = (Bench::new(), server().await);
    let slow = bench.signal("http", &format!("url: {}/slow", server.url));
    let sample_of = sample(slow.read(&cx_at(Timestamp::now(), Duration::from_millis(300))).await);
    assert_eq!((sample_of.value, &sample_of.fields["status"]), (1.0, &json!(0)));
    assert!(sample_of.fields["error"].as_str().unwrap().starts_with("no answer within "), "{:?}", sample_of.fields);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let breaks = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
    });
    let broken = sample(read(&*bench.signal("http", &format!("url: {url}"))).await);
    assert_eq!(broken.value, 1.0, "half an answer is none");
    breaks.await.unwrap();
}

#[tokio::test]
async fn the_observer_s_failures_are_not_the_subject_s() {
    let (bench, server) = (Bench::new(), server().await);
    let unknown = why(read(&*bench.signal("http", "url: http://no-such-host.invalid/")).await);
    assert!(unknown.contains("dns") || unknown.contains("lookup"), "{unknown}");
    let secret =
        why(read(&*bench.signal("http", &format!("url: {}/ok\nbearer: {{ file: absent }}", server.url))).await);
    assert!(secret.starts_with("the secret in file `absent` cannot be read"), "{secret}");
}

#[tokio::test]
async fn numbers_come_from_the_answer() {
    let (bench, server) = (Bench::new(), server().await);
    let measure = async |path: &str, measure: &str| {
        read(&*bench.signal("http", &format!("url: {}{path}\nmeasure: {measure}", server.url))).await
    };
    assert_eq!(sample(measure("/ok", "{ json: /queue/depth }").await).value, 12.0);
    assert_eq!(sample(measure("/ok", "{ json: /queue/full }").await).value, 1.0);
    assert_eq!(sample(measure("/error", "status").await).value, 500.0);
    let latency = sample(measure("/ok", "latency").await).value;
    assert!(latency > 0.0 && latency < 20.0);
    assert_eq!(why(measure("/ok", "{ json: /status }").await), "`/status` is no number but text (status 200)");
    assert_eq!(why(measure("/ok", "{ json: /none }").await), "there is nothing at `/none` (status 200)");
    assert_eq!(why(measure("/html", "{ json: /a }").await), "the answer is no JSON (200: <html>sorry</html>)");
}

#[tokio::test]
async fn a_functional_call_posts_json() {
    let (bench, server) = (Bench::new(), server().await);
    let yaml = format!("url: {}/echo\njson: {{ item: 3 }}\nexpect: {{ json: {{ /got: {{ item: 3 }} }} }}", server.url);
    let sample = sample(read(&*bench.signal("http", &yaml)).await);
    assert_eq!((sample.value, &sample.fields["json"]), (0.0, &json!({"got": {"item": 3}})));
}

#[tokio::test]
async fn a_large_answer_is_bounded() {
    let (bench, server) = (Bench::new(), server().await);
    let sample = sample(read(&*bench.signal("http", &format!("url: {}/large", server.url))).await);
    assert_eq!((sample.value, sample.fields["body"].as_str().unwrap().len()), (0.0, 4 << 10));
}

#[tokio::test]
async fn rf29_secrets_are_sent_and_not_kept() {
    let (bench, server) = (Bench::new(), server().await);
    let (token, key) = (bench.secret("token", "canary-probe\n"), bench.secret("key", "canary-header"));
    let yaml = format!("url: {}/token\nbearer: {token}\nsecret-headers: {{ x-key: {key} }}", server.url);
    let signal = bench.signal("http", &yaml);
    let sample = sample(read(&*signal).await);
    assert_eq!(
        (sample.value, &sample.fields["body"]),
        (0.0, &json!("[redacted]")),
        "sent, and redacted where it came back"
    );
    assert!(!format!("{sample:?} {}", signal.query()).contains("canary"));
    bench.redactor.learn(&Secret::new("in-the-query"));
    let signal = bench.signal("http", &format!("url: {}/ok?key=in-the-query", server.url));
    assert!(!signal.query().contains("in-the-query"));
    assert!(!format!("{:?}", read(&*signal).await).contains("in-the-query"));
}
