//! Channels: what reaches people, and what is said when it does not.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use jiff::Timestamp;
use ripcord_core::{About, IncidentId, Message, Retry, RunId, Secret, Seq, Severity};

use crate::support::{Bench, Server, cx, nobody};

fn message(title: &str, body: &str) -> Message {
    Message {
        id: "msg-7".to_owned(),
        about: About::Parked,
        severity: Some(Severity(1)),
        incident: Some(IncidentId::at(Seq(4))),
        run: Some(RunId::at(Seq(5))),
        title: title.to_owned(),
        body: body.to_owned(),
        at: "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap(),
        plan: None,
        channels: vec![],
    }
}

#[tokio::test]
async fn the_terminal_shows_control_characters_as_text() {
    let bench = Bench::new();
    bench.redactor.learn(&Secret::new("canary-term"));
    let terminal = bench.channel("terminal", "bell: true");
    let hostile = message("run-5 is parked", "it said:\n\u{1b}[2J\u{1b}]0;owned\u{7}\r fake prompt\tcanary-term");
    terminal.send(&cx(), &hostile).await.unwrap();
    let screen = bench.screen.lock().unwrap();
    assert_eq!(
        screen.as_str(),
        "\u{7}[P1] run-5 is parked\n  it said:\n  \\u{1b}[2J\\u{1b}]0;owned\\u{7}\\u{d} fake prompt    [redacted]\n"
    );
}

type Got = Arc<Mutex<Vec<(HeaderMap, String)>>>;

/// Answers each post with the next status, and remembers it.
async fn hook(statuses: &'static [(u16, &'static str)]) -> (Server, Got) {
    let got = Got::default();
    let seen = Arc::clone(&got);
    let answer = move |headers: HeaderMap, body: String| async move {
        let mut seen = seen.lock().unwrap();
        let (status, text) = statuses[seen.len().min(statuses.len() - 1)];
        seen.push((headers, body));
        (StatusCode::from_u16(status).unwrap(), [("retry-after", "30")], text)
    };
    (Server::start(Router::new().route("/hook", post(answer))).await, got)
}

#[tokio::test]
async fn a_webhook_gets_signed_json_with_an_idempotency_key() {
    let bench = Bench::new();
    let key = bench.secret("key", "canary-hook-key\n");
    bench.redactor.learn(&Secret::new("canary-in-body"));
    let (server, got) = hook(&[(200, "ok")]).await;
    let yaml = format!("url: {}/hook\nsign-with: {key}\nheaders: {{ x-team: payments }}", server.url);
    let cx = cx();
    bench.channel("webhook", &yaml).send(&cx, &message("parked", "the log has canary-in-body")).await.unwrap();
    let got = got.lock().unwrap();
    let (headers, body) = &got[0];
    insta::assert_snapshot!(body, @r#"{"version":1,"id":"msg-7","application":"shop","environment":"test","about":"parked","severity":"P1","incident":"inc-4","run":"run-5","plan":null,"at":"2026-01-02T03:04:05Z","title":"parked","body":"the log has [redacted]"}"#);
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!((header("idempotency-key"), header("x-team")), ("msg-7".to_owned(), "payments".to_owned()));
    assert_eq!(header("content-type"), "application/json");
    let stamp = header("x-ripcord-timestamp");
    assert_eq!(stamp, cx.now.as_second().to_string());
    // Computed by another implementation.
    let script =
        format!("printf '%s' '{stamp}.{body}' | openssl dgst -sha256 -hmac canary-hook-key -r | cut -d' ' -f1");
    if let Ok(output) = std::process::Command::new("sh").args(["-c", &script]).output()
        && output.status.success()
        && !output.stdout.is_empty()
    {
        let expected = String::from_utf8(output.stdout).unwrap();
        assert_eq!(header("x-ripcord-signature"), format!("v1={}", expected.trim()));
    }
    assert!(header("x-ripcord-signature").starts_with("v1=") && header("x-ripcord-signature").len() == 3 + 64);
}

#[tokio::test]
async fn what_is_not_delivered_says_whether_later_may_help() {
    let bench = Bench::new();
    let check = async |status: &'static [(u16, &'static str)]| {
        let (server, _) = hook(status).await;
        let failed =
            bench.channel("webhook", &format!("url: {}/hook", server.url)).send(&cx(), &message("t", "b")).await;
        let failed = failed.unwrap_err();
        (failed.retry, failed.why)
    };
    assert_eq!(
        check(&[(429, "slow down")]).await,
        (Retry::Later, "answered 429: slow down (try again in 30 s)".to_owned())
    );
    assert_eq!(check(&[(503, "")]).await.0, Retry::Later);
    assert_eq!(check(&[(404, "no such hook")]).await.0, Retry::Never);
    assert_eq!(check(&[(302, "")]).await.0, Retry::Never);
    let failed =
        bench.channel("webhook", &format!("url: {}/hook", nobody().await)).send(&cx(), &message("t", "b")).await;
    assert_eq!(failed.unwrap_err().retry, Retry::Later);
    let yaml = "url: http://127.0.0.1:1/\nsign-with: { file: absent }";
    let failed = bench.channel("webhook", yaml).send(&cx(), &message("t", "b")).await.unwrap_err();
    assert_eq!((failed.retry, failed.why.contains("file `absent`")), (Retry::Never, true));
}
