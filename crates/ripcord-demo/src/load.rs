//! The load that keeps a shop busy: a bounded stream of requests against a shop on this machine.
//!
//! Requests leave on a schedule, not when the former answer is in: a slow shop must not slow its own measurement down.
//! Too many unanswered ones are shed, and counted. Only loopback addresses are accepted, redirects are not followed and
//! proxies not asked: a mistyped address must not become an attack on somebody.
use crate::shop::CATALOGUE;
use reqwest::{Client, StatusCode, Url, redirect::Policy};
use serde_json::json;
use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

const RATE_AT_MOST: u32 = 2_000;
const UNANSWERED_AT_MOST: usize = 128;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Percentiles are of this many last requests, so that they follow what happens and need bounded memory.
const REMEMBERED: usize = 1_000;

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// The shop, as `http://127.0.0.1:<port>`.
    pub url: String,
    /// 1 to 2000.
    pub rate_per_second: u32,
    /// Share of requests that are orders, from 0.0 to 1.0.
    pub write_share: f64,
    /// `None`: until it is stopped.
    pub at_most: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    #[error("`{url}` is not an address of a shop: {why}")]
    BadUrl { url: String, why: String },
    #[error("`{host}` is not this machine: load is sent to loopback addresses only")]
    NotLoopback { host: String },
    #[error("a rate of {rate} requests a second is outside 1 to {RATE_AT_MOST}")]
    BadRate { rate: u32 },
    #[error("a share of {share} is outside 0 to 1")]
    BadShare { share: f64 },
    #[error("cannot prepare the client")]
    Client(#[source] reqwest::Error),
}

/// What happened so far. `sent` is `ok` plus `failed` plus those still unanswered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    pub sent: u64,
    /// Answered 2xx.
    pub ok: u64,
    /// Answered otherwise, or not at all.
    pub failed: u64,
    /// The part of `failed` that got no answer: refused, cut or too late.
    pub unreachable: u64,
    /// Orders answered 201: those the shop must never lose.
    pub orders_taken: u64,
    /// Left unsent because too many were unanswered.
    pub shed: u64,
    /// Of the last thousand answered requests; nought before the first.
    pub p50_ms: f64,
    pub p95_ms: f64,
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, ok, failed, unreachable, orders_taken, shed, p50_ms, p95_ms } = self;
        write!(f, "sent {sent}, ok {ok}, failed {failed} ({unreachable} unreachable), shed {shed}, ")?;
        write!(f, "orders taken {orders_taken}, p50 {p50_ms:.1} ms, p95 {p95_ms:.1} ms")
    }
}

/// Load being sent. Dropped, it stops at once, unanswered requests being cut.
#[derive(Debug)]
pub struct RunningLoad {
    tally: Arc<Tally>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Load {
    /// Begins to send, on the runtime of the caller.
    /// # Errors
    /// Everything about the request to send load is checked here; what happens to requests is in the counters.
    pub fn start(self) -> Result<RunningLoad, LoadError> {
        if !(1..=RATE_AT_MOST).contains(&self.rate_per_second) {
            return Err(LoadError::BadRate { rate: self.rate_per_second });
        }
        if !(0.0..=1.0).contains(&self.write_share) {
            return Err(LoadError::BadShare { share: self.write_share });
        }
        let visitor = Visitor::new(&self.url)?;
        let tally = Arc::new(Tally::default());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(send(self, visitor, tally.clone(), stopped));
        Ok(RunningLoad { tally, stop: Some(stop), task })
    }
}

impl RunningLoad {
    pub fn counters(&self) -> Counters {
        self.tally.counters()
    }

    /// Sends no more, waits for what is unanswered, and returns the final count.
    pub async fn stop(mut self) -> Counters {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.finished().await
    }

    /// Waits for the end of `at_most`; without one, for ever.
    pub async fn finished(mut self) -> Counters {
        // Fails only when the runtime is shutting down; what was counted stays counted.
        let _ = (&mut self.task).await;
        self.tally.counters()
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn send(load: Load, visitor: Visitor, tally: Arc<Tally>, mut stopped: oneshot::Receiver<()>) {
    let visitor = Arc::new(visitor);
    let slots = Arc::new(Semaphore::new(UNANSWERED_AT_MOST));
    let deadline = load.at_most.map(|at_most| Instant::now() + at_most);
    let mut ticks = interval(Duration::from_secs(1) / load.rate_per_second);
    // After a hiccup of this machine the rate is resumed, not made up for: a burst would look like a fault of the shop.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut requests = JoinSet::new();
    for number in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            // The sender is kept by `RunningLoad` unless it asks to stop.
            _ = &mut stopped => break,
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        while requests.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            tally.lock().counters.shed += 1;
            continue;
        };
        tally.lock().counters.sent += 1;
        let (visitor, tally) = (visitor.clone(), tally.clone());
        let kind = Request::nth(number, load.write_share);
        requests.spawn(async move {
            let started = Instant::now();
            let answer = visitor.ask(kind).await;
            tally.lock().count(kind, answer, started.elapsed());
            drop(slot);
        });
    }
    while requests.join_next().await.is_some() {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Order { number: u64 },
    ShowOrder,
    ListOrders,
    Page,
}

impl Request {
    /// Orders are spread evenly, so that their share holds in any stretch; the rest takes turns.
    fn nth(number: u64, write_share: f64) -> Self {
        let orders_before = |number: u64| (number as f64 * write_share).floor();
        if orders_before(number + 1) > orders_before(number) {
            return Self::Order { number };
        }
        match number % 3 {
            0 => Self::ShowOrder,
            1 => Self::ListOrders,
            _ => Self::Page,
        }
    }
}

/// One client with its connections.
struct Visitor {
    client: Client,
    base: Url,
    last_order: AtomicI64,
}

impl Visitor {
    fn new(url: &str) -> Result<Self, LoadError> {
        let bad = |why: String| LoadError::BadUrl { url: url.to_owned(), why };
        let base = Url::parse(url).map_err(|error| bad(error.to_string()))?;
        if base.scheme() != "http" {
            return Err(bad("it does not begin with http://".into()));
        }
        let host = base.host_str().unwrap_or_default();
        let literal: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        if host != "localhost" && !literal.is_some_and(|ip| ip.is_loopback()) {
            return Err(LoadError::NotLoopback { host: host.to_owned() });
        }
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            // The name means this machine here, whatever a resolver says. Port 0 stands for the one in the address.
            .resolve("localhost", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .timeout(ANSWER_WITHIN)
            .build()
            .map_err(LoadError::Client)?;
        Ok(Self { client, base, last_order: AtomicI64::new(1) })
    }

    /// The status of the answer, `None` without one.
    async fn ask(&self, request: Request) -> Option<StatusCode> {
        let mut url = self.base.clone();
        let request = match request {
            Request::Order { number } => {
                url.set_path("/orders");
                let (sku, _) = CATALOGUE[(number % CATALOGUE.len() as u64) as usize];
                let order =
                    json!({"customer": format!("visitor-{}", number % 50), "sku": sku, "quantity": 1 + number % 3});
                self.client.post(url).json(&order)
            }
            Request::ShowOrder => {
                url.set_path(&format!("/orders/{}", self.last_order.load(Ordering::Relaxed)));
                self.client.get(url)
            }
            Request::ListOrders => {
                url.set_path("/orders");
                url.set_query(Some("limit=10"));
                self.client.get(url)
            }
            Request::Page => self.client.get(url),
        };
        let response = request.send().await.ok()?;
        let status = response.status();
        // Read to the end: only then is the answer whole, and the connection free for the next request.
        let body = response.bytes().await.ok()?;
        if status == StatusCode::CREATED
            && let Ok(order) = serde_json::from_slice::<serde_json::Value>(&body)
            && let Some(id) = order["id"].as_i64()
        {
            self.last_order.store(id, Ordering::Relaxed);
        }
        Some(status)
    }
}

#[derive(Debug, Default)]
struct Tally(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    counters: Counters,
    last: VecDeque<Duration>,
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counters(&self) -> Counters {
        let sums = self.lock();
        let mut sorted: Vec<_> = sums.last.iter().copied().collect();
        sorted.sort_unstable();
        Counters { p50_ms: percentile_ms(&sorted, 50), p95_ms: percentile_ms(&sorted, 95), ..sums.counters }
    }
}

impl Sums {
    fn count(&mut self, request: Request, answer: Option<StatusCode>, took: Duration) {
        let counters = &mut self.counters;
        match answer {
            Some(status) if status.is_success() => counters.ok += 1,
            Some(_) => counters.failed += 1,
            None => (counters.failed, counters.unreachable) = (counters.failed + 1, counters.unreachable + 1),
        }
        if matches!(request, Request::Order { .. }) && answer == Some(StatusCode::CREATED) {
            counters.orders_taken += 1;
        }
        // A refused connection is over at once; counted in, an outage would look fast.
        if answer.is_some() {
            if self.last.len() == REMEMBERED {
                self.last.pop_front();
            }
            self.last.push_back(took);
        }
    }
}

/// Nearest rank.
fn percentile_ms(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |took| took.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked() {
        let ask = |url: &str| Visitor::new(url).err().map(|error| error.to_string());
        for accepted in ["http://127.0.0.1:8080", "http://127.9.9.9", "http://[::1]:80/", "http://localhost:1"] {
            assert_eq!(ask(accepted), None, "{accepted}");
        }
        for refused in [
            "http://192.168.0.1",
            "http://example.org",
            "http://127.0.0.1.example.org",
            "http://[2001:db8::1]",
            "http://0.0.0.0",
            "http://127.0.0.1@example.org/",
            "http://localhost.example.org",
        ] {
            assert!(ask(refused).unwrap().contains("is not this machine"), "{refused}");
        }
        for refused in ["https://127.0.0.1", "127.0.0.1:80", "ftp://127.0.0.1", ""] {
            assert!(ask(refused).unwrap().contains("is not an address of a shop"), "{refused}");
        }
    }

    #[test]
    fn limits_are_checked_before_anything_is_sent() {
        let load = Load { url: "http://127.0.0.1:1".into(), rate_per_second: 10, write_share: 0.5, at_most: None };
        for rate_per_second in [0, RATE_AT_MOST + 1] {
            assert!(matches!(Load { rate_per_second, ..load.clone() }.start(), Err(LoadError::BadRate { .. })));
        }
        for write_share in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(Load { write_share, ..load.clone() }.start(), Err(LoadError::BadShare { .. })));
        }
    }

    #[test]
    fn the_share_of_orders_holds_in_any_stretch() {
        for share in [0.0, 0.25, 0.5, 0.9, 1.0] {
            for start in [0_u64, 7, 1_000] {
                let orders = (start..start + 100).filter(|n| matches!(Request::nth(*n, share), Request::Order { .. }));
                assert!((orders.count() as f64 - share * 100.0).abs() <= 1.0);
            }
        }
        let reads: std::collections::HashSet<_> = (0..3).map(|n| format!("{:?}", Request::nth(n, 0.0))).collect();
        assert_eq!(reads.len(), 3);
    }

    #[test]
    fn percentiles_are_of_the_last_answers() {
        let tally = Tally::default();
        let page = |answer, ms| tally.lock().count(Request::Page, answer, Duration::from_millis(ms));
        assert_eq!(tally.counters(), Counters::default());
        for _ in 0..REMEMBERED {
            page(Some(StatusCode::INTERNAL_SERVER_ERROR), 5_000);
        }
        for ms in 1..=1_000 {
            page(Some(StatusCode::OK), ms);
        }
        page(None, 9_999);
        let counters = tally.counters();
        assert_eq!((counters.p50_ms, counters.p95_ms), (500.0, 950.0));
        assert_eq!((counters.ok, counters.failed, counters.unreachable), (1_000, 1_001, 1));
    }
}
