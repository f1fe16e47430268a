use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Reading, Secret, Signal};

use crate::support::{Bench, cx_at, sample, why};

fn append(bench: &Bench, name: &str, text: &str) {
    File::options().create(true).append(true).open(bench.path(name)).unwrap().write_all(text.as_bytes()).unwrap();
}

async fn at(signal: &dyn Signal, second: i64) -> Reading {
    let now = Timestamp::from_second(1_700_000_000 + second).unwrap();
    signal.read(&cx_at(now, Duration::from_secs(10))).await
}

const ERRORS: &str = "path: shop.log\nmatch: { level: [error, fatal] }\nwindow: 1m\n";

#[tokio::test]
async fn rf05_lines_of_a_level_are_counted_and_not_a_word() {
    let bench = Bench::new();
    append(&bench, "shop.log", "2025-01-01T00:00:00Z ERROR from last year\n");
    let signal = bench.signal("log", ERRORS);
    assert_eq!(at(&*signal, 0).await, Reading::Empty, "what was there before is no evidence");
    append(&bench, "shop.log", &"2026-01-01T00:00:00Z INFO batch done, errors=0\n".repeat(100));
    let quiet = sample(at(&*signal, 10).await);
    assert_eq!((quiet.value, quiet.n), (0.0, Some(100.0)));
    append(&bench, "shop.log", "2026-01-01T00:00:00Z ERROR order failed\n");
    let one = sample(at(&*signal, 20).await);
    assert_eq!(
        (one.value, one.n, &one.fields["last"]),
        (1.0, Some(101.0), &"2026-01-01T00:00:00Z ERROR order failed".into())
    );
    let last = sample(at(&*signal, 75).await);
    assert_eq!((last.value, last.n), (1.0, Some(1.0)), "the lines of second 10 are out of the window");
    assert_eq!(at(&*signal, 90).await, Reading::Empty, "zero lines is no data, and not health");
}

#[tokio::test]
async fn rf05_a_share_needs_lines() {
    let bench = Bench::new();
    append(&bench, "shop.log", "");
    let signal = bench.signal("log", &format!("{ERRORS}measure: share"));
    assert_eq!(at(&*signal, 0).await, Reading::Empty);
    append(&bench, "shop.log", "INFO a\nERROR b\nINFO c\nINFO d\n");
    let share = sample(at(&*signal, 10).await);
    assert_eq!((share.value, share.n), (0.25, Some(4.0)));
    fs::rename(bench.path("shop.log"), bench.path("shop.log.1")).unwrap();
    append(&bench, "shop.log.1", "ERROR written after the rename\n");
    append(&bench, "shop.log", "INFO e\n");
    let share = sample(at(&*signal, 20).await);
    assert_eq!((share.value, share.n), (2.0 / 6.0, Some(6.0)), "rotation in the window loses nothing");
}

#[tokio::test]
async fn rf05_a_name_that_leads_nowhere_or_to_several_is_no_health() {
    let bench = Bench::new();
    let signal = bench.signal("log", "path: 'shop-*.log'\nmatch: { regex: 'unavailable' }");
    assert_eq!(at(&*signal, 0).await, Reading::Empty);
    append(&bench, "shop-1.log", "MCP unavailable\n");
    let found = sample(at(&*signal, 10).await);
    assert_eq!((found.value, found.n), (1.0, Some(1.0)), "a file that comes later is new from its first line");
    append(&bench, "shop-2.log", "x\n");
    assert!(why(at(&*signal, 20).await).contains("leads to 2 files"));
    let directory = bench.signal("log", "path: .\nmatch: { regex: x }");
    assert!(why(at(&*directory, 0).await).ends_with("it is not a file"));
}

#[tokio::test]
async fn silence_is_measured_from_the_last_line_that_matched() {
    let bench = Bench::new();
    append(&bench, "audit.log", "audit: before\n");
    let signal = bench.signal("log", "path: audit.log\nmatch: { regex: '^audit:' }\nmeasure: silence");
    assert_eq!(sample(at(&*signal, 0).await).value, 0.0);
    assert_eq!(sample(at(&*signal, 30).await).value, 30.0, "none since watching began");
    append(&bench, "audit.log", "audit: login\n");
    assert_eq!(sample(at(&*signal, 40).await).value, 0.0);
    append(&bench, "audit.log", "other\n");
    assert_eq!(sample(at(&*signal, 700).await).value, 660.0);
}

#[tokio::test]
async fn rf28_only_what_came_after_the_first_look_counts() {
    let bench = Bench::new();
    append(&bench, "shop.log", "sequential spawning enabled\n");
    let signal = bench.signal("log", "path: shop.log\nmatch: { regex: 'sequential spawning' }");
    assert_eq!(at(&*signal, 0).await, Reading::Empty);
    assert_eq!(at(&*signal, 10).await, Reading::Empty, "last week's line proves nothing");
    append(&bench, "shop.log", "sequential spawning enabled\n");
    assert_eq!(sample(at(&*signal, 20).await).value, 1.0);
}

#[tokio::test]
async fn rf29_a_secret_in_a_line_is_not_kept() {
    let bench = Bench::new();
    bench.redactor.learn(&Secret::new("canary-in-log"));
    append(&bench, "shop.log", "");
    let signal = bench.signal("log", ERRORS);
    at(&*signal, 0).await;
    append(&bench, "shop.log", "ERROR token canary-in-log refused\n");
    let sample = sample(at(&*signal, 10).await);
    assert_eq!(sample.fields["last"], "ERROR token [redacted] refused");
}
