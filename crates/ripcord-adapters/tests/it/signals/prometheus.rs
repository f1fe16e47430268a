use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use ripcord_core::{Condition, Reading, Signal};

use crate::support::{Bench, Server, cx, nobody, read, sample, why};

/// A Prometheus that gives one answer, and remembers what it was asked.
struct Fake {
    bench: Bench,
    server: Server,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    async fn new(status: u16, answer: &str) -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (seen, answer) = (Arc::clone(&asked), answer.to_owned());
        let give = move |body: String| async move {
            seen.lock().unwrap().push(body);
            (StatusCode::from_u16(status).unwrap(), answer)
        };
        let server = Server::start(Router::new().route("/prom/api/v1/query", post(give))).await;
        Self { bench: Bench::new(), server, asked }
    }

    fn signal(&self, more: &str) -> Arc<dyn Signal> {
        self.bench.signal("prometheus", &format!("url: {}/prom/\nquery: 'up'\n{more}", self.server.url))
    }
}

fn vector(series: &[(&str, &str)]) -> String {
    let now = jiff::Timestamp::now().as_second();
    let series =
        series.iter().map(|(pod, value)| format!(r#"{{"metric":{{"pod":"{pod}"}},"value":[{now}.5,"{value}"]}}"#));
    let series = series.collect::<Vec<_>>().join(",");
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}"#)
}

async fn reading(status: u16, answer: &str, more: &str) -> Reading {
    let fake = Fake::new(status, answer).await;
    read(&*fake.signal(more)).await
}

#[tokio::test]
async fn rf02_the_query_arrives_as_it_was_written() {
    let fake = Fake::new(200, &vector(&[])).await;
    let query = r#"sum(rate(a{b=~"x+",c!="{}"}[5m])) / 2 % 3 & "ü""#;
    let yaml = format!("url: {}/prom\nquery: '{query}'", fake.server.url);
    let cx = cx();
    fake.bench.signal("prometheus", &yaml).read(&cx).await;
    let asked = fake.asked.lock().unwrap();
    let form: Vec<(String, String)> =
        reqwest::Url::parse(&format!("http://x/?{}", asked[0])).unwrap().query_pairs().into_owned().collect();
    let time = format!("{}.{:03}", cx.now.as_second(), cx.now.subsec_millisecond());
    assert_eq!(form[..2], [("query".to_owned(), query.to_owned()), ("time".to_owned(), time)]);
}

#[tokio::test]
async fn rf02_every_answer_that_is_no_value_is_told_apart() {
    let failed = async |status, answer: &str| why(reading(status, answer, "").await);
    assert_eq!(reading(200, &vector(&[]), "").await, Reading::Empty);
    assert_eq!(
        failed(400, r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#).await,
        "Prometheus refuses the query (400): bad_data: parse error"
    );
    assert_eq!(
        failed(200, r#"{"status":"error","errorType":"timeout","error":"slow"}"#).await,
        "Prometheus refuses the query (200): timeout: slow"
    );
    assert_eq!(
        failed(502, "<html>Bad Gateway</html>").await,
        "Prometheus answers 502 with something that is not JSON: <html>Bad Gateway</html>"
    );
    assert_eq!(failed(200, "").await, "Prometheus answers 200 with something that is not JSON: ");
    let warned = vector(&[("a", "0.5")]).replace(r#""data""#, r#""warnings":["store-1 did not answer"],"data""#);
    assert_eq!(
        failed(200, &warned).await,
        r#"Prometheus answers with warnings, so part of the figures may be missing: "store-1 did not answer""#
    );
    assert_eq!(
        failed(200, &vector(&[("a", "NaN")])).await,
        r#"the value of {pod="a"} is NaN, which is no measurement"#
    );
    assert_eq!(
        failed(200, &vector(&[("a", "+Inf")])).await,
        r#"the value of {pod="a"} is inf, which is no measurement"#
    );
    assert_eq!(
        failed(200, &vector(&[("a", "1"), ("b", "2")])).await,
        r#"2 series where one was expected: {pod="a"}, {pod="b"}"#
    );
    let text = failed(200, &vector(&[("a", "one")])).await;
    assert!(text.starts_with("Prometheus answers something else than the API describes"), "{text}");
    let string = r#"{"status":"success","data":{"resultType":"string","result":[1,"x"]}}"#;
    assert_eq!(failed(200, string).await, "the query gives a string and not numbers");
    let old = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"pod":"a"},"value":[1700000000,"1"]}]}}"#;
    assert!(failed(200, old).await.ends_with("too old to say anything about now"));
    let bench = Bench::new();
    let nobody = bench.signal("prometheus", &format!("url: {}\nquery: up", nobody().await));
    assert!(why(read(&*nobody).await).starts_with("Prometheus does not answer: "));
}

#[tokio::test]
async fn rf01_a_value_is_a_number_and_is_compared_as_one() {
    let above = |reading: Reading| match (Condition::Above(0.01), reading) {
        (Condition::Above(threshold), Reading::Samples(samples)) => Some(samples[0].value > threshold),
        _ => None,
    };
    for (value, breaches) in
        [("0.001", Some(false)), ("0.01", Some(false)), ("0.0100001", Some(true)), ("1e-3", Some(false))]
    {
        assert_eq!(above(reading(200, &vector(&[("a", value)]), "").await), breaches, "{value}");
    }
    for nothing in ["NaN", "+Inf", "-Inf", "", "0.02%", "0,02"] {
        assert_eq!(above(reading(200, &vector(&[("a", nothing)]), "").await), None, "{nothing}");
    }
}

#[tokio::test]
async fn several_series_where_they_are_wanted() {
    let two = vector(&[("a", "1"), ("b", "2")]);
    let Reading::Samples(each) = reading(200, &two, "series: each").await else { panic!() };
    let each: Vec<_> = each.iter().map(|sample| (sample.labels["pod"].as_str(), sample.value)).collect();
    assert_eq!(each, [("a", 1.0), ("b", 2.0)]);
    assert_eq!(sample(reading(200, &two, "series: max").await).labels["pod"], "b");
    assert_eq!(sample(reading(200, &two, "series: min").await).labels["pod"], "a");
    let one_is_nothing = vector(&[("a", "1"), ("b", "NaN")]);
    assert!(
        why(reading(200, &one_is_nothing, "series: max").await).contains("NaN"),
        "the greatest of a number and none is unknown"
    );
}

#[tokio::test]
async fn the_count_tells_what_a_value_rests_on() {
    assert_eq!(sample(reading(200, &vector(&[("a", "7")]), "count: sum(b)").await).n, Some(7.0));
    let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[TIME,"3"]}}"#;
    let scalar = scalar.replace("TIME", &jiff::Timestamp::now().as_second().to_string());
    assert_eq!(sample(reading(200, &scalar, "").await).value, 3.0);
}

/// Runs itself again with other variables, because a test cannot set one for itself alone.
#[tokio::test]
async fn this_machine_is_asked_without_a_proxy_and_without_certificates() {
    let name = "signals::prometheus::this_machine_is_asked_without_a_proxy_and_without_certificates";
    if std::env::var("HTTP_PROXY").as_deref() != Ok("http://127.0.0.1:1") {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", name]).env("HTTP_PROXY", "http://127.0.0.1:1").env("http_proxy", "http://127.0.0.1:1");
        let output = again.env("SSL_CERT_FILE", "/nowhere").env("SSL_CERT_DIR", "/nowhere").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    assert_eq!(sample(reading(200, &vector(&[("a", "1")]), "").await).value, 1.0);
    let bench = Bench::new();
    let secure = bench.signal("prometheus", "url: https://127.0.0.1:1\nquery: up");
    let why = why(read(&*secure).await);
    assert!(why.starts_with("Prometheus does not answer: no requests can be made"), "{why}");
    let secure = bench.signal("http", "url: https://127.0.0.1:1");
    assert!(
        matches!(read(&*secure).await, Reading::Failed { .. }),
        "that this machine trusts nobody is not the subject's fault"
    );
}

/// Against Prometheus itself, as Debian ships it.
#[cfg(feature = "real")]
mod real {
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;
    use jiff::Timestamp;
    use ripcord_adapters::SignalSettings;
    use ripcord_adapters::signals::prometheus::Prometheus;
    use ripcord_core::Reading;

    use crate::support::{Bench, Server, read, sample, signal, until, why};

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    async fn prometheus(bench: &Bench) -> (Running, String, Server) {
        let page = || async {
            let second = Timestamp::now().as_second() as u64 % 100_000;
            format!(
                "a_total{{status=\"200\"}} {}\na_total{{status=\"500\"}} {}\nb{{pod=\"x\"}} 1\nb{{pod=\"y\"}} 2\n",
                second * 98,
                second * 2
            )
        };
        let subject = Server::start(Router::new().route("/metrics", get(page))).await;
        let target = subject.url.trim_start_matches("http://");
        bench.write(
            "prometheus.yml",
            &format!("global: {{ scrape_interval: 1s }}\nscrape_configs:\n- job_name: t\n  static_configs: [{{ targets: ['{target}'] }}]\n"),
        );
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", bench.path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", bench.path("data").display()))
            .arg(format!("--web.listen-address={free}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs Debian's package `prometheus`");
        (Running(child), format!("http://{free}"), subject)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rf02_the_real_one_agrees() {
        let bench = Bench::new();
        let (_running, url, _subject) = prometheus(&bench).await;
        let ask =
            async |query: &str| read(&*bench.signal("prometheus", &format!("url: {url}\nquery: '{query}'"))).await;
        until("two scrapes", || async {
            matches!(ask(r#"sum(increase(a_total{status=~"2.."}[30s]))"#).await, Reading::Samples(s) if s[0].value > 0.0)
        })
        .await;
        let share = sample(ask(r#"sum(rate(a_total{status=~"5.."}[30s])) / sum(rate(a_total[30s]))"#).await);
        assert!((share.value - 0.02).abs() < 1e-9, "{}", share.value);
        assert_eq!(ask("no_such_metric").await, Reading::Empty);
        assert!(why(ask("sum(rate(").await).starts_with("Prometheus refuses the query (400): bad_data: "));
        assert!(why(ask("b").await).starts_with("2 series where one was expected"));
        assert!(why(ask("sum(b) / 0").await).ends_with("is inf, which is no measurement"));
        assert!(why(ask("0 * sum(b) / 0").await).ends_with("is NaN, which is no measurement"));

        let SignalSettings::Prometheus(settings) = signal("prometheus", &format!("url: {url}\nquery: sum(b)")) else {
            panic!()
        };
        let (now, second) = (Timestamp::now(), Duration::from_secs(1));
        let past = Prometheus::new(&settings, &bench.cx(None)).unwrap();
        let series = past.between(now - second * 60, now, second, second * 10).await.unwrap();
        assert!(
            series.len() == 1
                && series[0].points.iter().all(|(_, value)| *value == 3.0)
                && !series[0].points.is_empty()
        );
        let far = past.between(now - second * 86_400, now, second, second * 10).await.unwrap_err();
        assert!(far.starts_with("86400 points are more"), "{far}");
    }
}
