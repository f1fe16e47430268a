//! From a fault to a decision, with the real binary: the endpoint begins to fail at a random moment between two readings.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Body, Event, Seq, Store, TriggerState};
use ripcord_store::SqliteStore;

use crate::child::{Running, Site};
use crate::figures::{Dice, ms, percentile, row};
use crate::server::Server;
use crate::world;

const FOR: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(200);
/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(30);

fn configuration(at: &str) -> String {
    format!(
        "application: detected
components:
  code: {{ env-file: {{ path: shop.env }} }}
signals:
  down:
    http: {{ url: \"http://{at}/health\" }}
    every: 200ms
    timeout: 1s
triggers:
  down: {{ signal: down, for: 1s, severity: p1, issue: outage }}
severities:
  p1: {{ respond-within: 5m }}
matrix:
  otherwise: {{ call: evaluate, within: 1h, severity: p1 }}
"
    )
}

/// What is written in the journal, as it grows.
struct Reader {
    store: SqliteStore,
    after: Seq,
}

impl Reader {
    fn open(site: &Site, watching: &mut Running) -> Self {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            watching.still_there();
            if let Ok(Some(store)) = SqliteStore::open_to_read(&site.state()) {
                return Self { store, after: Seq(0) };
            }
            assert!(std::time::Instant::now() < deadline, "there is no record");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The next event that is as wanted.
    async fn next(&mut self, wanted: impl Fn(&Body) -> bool) -> Event {
        let app = world::app("detected");
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            for event in self.store.read(&app, self.after, 100).await.unwrap() {
                self.after = event.seq;
                if wanted(&event.body) {
                    return event;
                }
            }
            assert!(std::time::Instant::now() < deadline, "what was waited for did not come");
            self.store.wait_changed(&app, self.after, Duration::from_secs(1)).await.unwrap();
        }
    }
}

pub fn measure(ripcord: &Path, runs: usize) {
    let server = Server::start();
    let site = Site::new(ripcord, &configuration(&server.at.to_string()));
    let mut watching = site.start(&["watch"]);
    let mut reader = Reader::open(&site, &mut watching);
    let mut dice = Dice(30);
    let mut latencies = vec![];
    // The first readings find everything well, and write nothing.
    std::thread::sleep(Duration::from_secs(2));
    world::runtime().block_on(async {
        for run in 1..=runs {
            tokio::time::sleep(dice.ms(0, EVERY.as_millis() as u64)).await;
            let fault = Timestamp::now();
            server.failing.store(true, Ordering::SeqCst);
            let decided = reader.next(|body| matches!(body, Body::Decided { .. })).await;
            server.failing.store(false, Ordering::SeqCst);
            let latency = Duration::try_from(decided.at.duration_since(fault)).unwrap();
            eprintln!("run {run}: {}", ms(latency));
            latencies.push(latency);
            watching.still_there();
            reader.next(|body| matches!(body, Body::Changed { state: TriggerState::Ok, .. })).await;
        }
    });
    let most = FOR + EVERY;
    let (p50, p95) = (percentile(&latencies, 0.5), percentile(&latencies, 0.95));
    let worst = percentile(&latencies, 1.0);
    let figure = format!("p50 {}, p95 {}, worst {}", ms(p50), ms(p95), ms(worst));
    let wanted = format!("<= for 1 s + interval 200 ms = {}", ms(most));
    row(
        &format!("detection: fault to decision, {runs} runs"),
        &figure,
        &wanted,
        p95.as_secs_f64() / most.as_secs_f64(),
    );
}
