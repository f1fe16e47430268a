use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use jiff::Timestamp;
use ripcord_core::{Reading, Signal, Unit};

use crate::support::{Bench, Server, cx_at, nobody, sample, why};

/// An application whose page of metrics the test writes.
struct Subject {
    bench: Bench,
    page: Arc<Mutex<(u16, String)>>,
    server: Server,
}

impl Subject {
    async fn new() -> Self {
        let page = Arc::new(Mutex::new((200, String::new())));
        let shown = Arc::clone(&page);
        let answer = move || async move {
            let (status, text) = shown.lock().unwrap().clone();
            (StatusCode::from_u16(status).unwrap(), text)
        };
        let server = Server::start(Router::new().route("/metrics", get(answer))).await;
        Self { bench: Bench::new(), page, server }
    }

    fn signal(&self, measure: &str) -> Arc<dyn Signal> {
        self.bench.signal("scrape", &format!("url: {}/metrics\nmeasure:\n  {measure}", self.server.url))
    }

    fn show(&self, status: u16, text: &str) {
        *self.page.lock().unwrap() = (status, text.to_owned());
    }

    /// Reads a page at a second of the test's own time.
    async fn read(&self, signal: &dyn Signal, second: i64, text: &str) -> Reading {
        self.show(200, text);
        let now = Timestamp::from_second(1_700_000_000 + second).unwrap();
        signal.read(&cx_at(now, Duration::from_secs(10))).await
    }
}

const ERRORS: &str = r#"ratio: { of: 'http_requests_total{status=~"5.."}', to: http_requests_total, window: 1m }"#;

fn requests(ok: u32, failed: Option<u32>) -> String {
    let failed =
        failed.map(|n| format!("http_requests_total{{route=\"/o\",status=\"500\"}} {n}\n")).unwrap_or_default();
    format!("# TYPE http_requests_total counter\nhttp_requests_total{{route=\"/o\",status=\"200\"}} {ok}\n{failed}")
}

#[tokio::test]
async fn rf03_a_share_is_errors_over_requests() {
    let subject = Subject::new().await;
    let signal = subject.signal(ERRORS);
    assert_eq!(signal.unit(), Unit::Ratio);
    assert_eq!(subject.read(&*signal, 0, &requests(100, None)).await, Reading::Empty, "one page says nothing");
    let none = sample(subject.read(&*signal, 10, &requests(200, None)).await);
    assert_eq!((none.value, none.n), (0.0, Some(100.0)), "traffic without a series of errors is no errors");
    let some = sample(subject.read(&*signal, 20, &requests(295, Some(5))).await);
    assert_eq!((some.value, some.n, &some.fields["of"]), (5.0 / 200.0, Some(200.0), &5.0.into()));
    let idle = Subject::new().await;
    let signal = idle.signal(ERRORS);
    for second in [0, 10] {
        let reading = idle.read(&*signal, second, &requests(100, Some(7))).await;
        assert_eq!(reading, Reading::Empty, "zero over zero is no data");
    }
    let reading = idle.read(&*signal, 20, "other_total 3\n").await;
    assert_eq!(reading, Reading::Empty, "no series at all is no data");
}

#[tokio::test]
async fn rf03_ten_thousand_a_second_and_one_in_ten_seconds_are_both_judged_right() {
    let busy = Subject::new().await;
    let signal = busy.signal(ERRORS);
    busy.read(&*signal, 0, &requests(0, Some(0))).await;
    let share = sample(busy.read(&*signal, 60, &requests(599_700, Some(300))).await);
    assert_eq!((share.value, share.n), (0.0005, Some(600_000.0)));
    let idle = Subject::new().await;
    let signal = idle.signal(ERRORS);
    idle.read(&*signal, 0, &requests(0, Some(0))).await;
    let share = sample(idle.read(&*signal, 60, &requests(0, Some(6))).await);
    assert_eq!((share.value, share.n), (1.0, Some(6.0)), "all failed, and the number they rest on is told");
}

#[tokio::test]
async fn rf03_a_restart_in_the_window_is_no_spike() {
    let subject = Subject::new().await;
    let signal = subject.signal(ERRORS);
    subject.read(&*signal, 0, &requests(1_000, Some(10))).await;
    subject.read(&*signal, 10, &requests(1_100, Some(10))).await;
    let after = sample(subject.read(&*signal, 20, &requests(50, None)).await);
    assert_eq!((after.value, after.n), (0.0, Some(150.0)));
}

#[tokio::test]
async fn quantiles_rates_and_values() {
    let subject = Subject::new().await;
    let quantile = subject.signal("quantile: { metric: http_seconds, q: 0.95, window: 1m }");
    assert_eq!(quantile.unit(), Unit::Seconds);
    let page = |n: [u32; 3]| {
        let [a, b, all] = n;
        format!(
            "http_seconds_bucket{{le=\"0.1\"}} {a}\nhttp_seconds_bucket{{le=\"1\"}} {b}\nhttp_seconds_bucket{{le=\"+Inf\"}} {all}\n\
                 http_seconds_sum 1\nhttp_seconds_count {all}\nup_bytes{{a=\"1\"}} 3\nup_bytes{{a=\"2\"}} 5\n"
        )
    };
    subject.read(&*quantile, 0, &page([10, 10, 10])).await;
    let p95 = sample(subject.read(&*quantile, 10, &page([60, 110, 110])).await);
    assert_eq!((p95.value, p95.n), (0.1 + 0.9 * 0.9, Some(100.0)));
    assert_eq!(subject.read(&*quantile, 200, &page([60, 110, 110])).await, Reading::Empty);
    let rate = subject.signal("rate: { metric: http_seconds_count, window: 1m }");
    subject.read(&*rate, 0, &page([0, 0, 40])).await;
    let per_second = sample(subject.read(&*rate, 20, &page([0, 0, 60])).await);
    assert_eq!((per_second.value, per_second.n), (1.0, Some(20.0)));
    for (fold, value) in [("sum", 8.0), ("max", 5.0), ("min", 3.0)] {
        let gauge = subject.signal(&format!("gauge: {{ metric: up_bytes, fold: {fold} }}"));
        assert_eq!(
            (sample(subject.read(&*gauge, 0, &page([0, 0, 0])).await).value, gauge.unit()),
            (value, Unit::Bytes)
        );
    }
    let gauge = subject.signal("gauge: { metric: gone }");
    assert_eq!(subject.read(&*gauge, 0, "a 1\n").await, Reading::Empty);
    assert_eq!(
        why(subject.read(&*gauge, 0, "gone NaN\ngone{a=\"1\"} 1\n").await),
        "the value is NaN, which is no measurement"
    );
}

#[tokio::test]
async fn rf02_a_page_that_is_none_is_a_failure_of_the_observer() {
    let subject = Subject::new().await;
    let signal = subject.signal("gauge: { metric: a }");
    let text = why(subject.read(&*signal, 0, "<!doctype html><h1>Sign in</h1>").await);
    assert!(text.starts_with("the page of metrics cannot be read: line 1 is no metric"), "{text}");
    subject.show(503, "down for maintenance");
    let now = Timestamp::now();
    let text = why(signal.read(&cx_at(now, Duration::from_secs(10))).await);
    assert_eq!(text, "the page of metrics answers 503: down for maintenance");
    let nobody =
        subject.bench.signal("scrape", &format!("url: {}\nmeasure: {{ gauge: {{ metric: a }} }}", nobody().await));
    assert!(why(nobody.read(&cx_at(now, Duration::from_secs(10))).await).contains("Connection refused"));
}
