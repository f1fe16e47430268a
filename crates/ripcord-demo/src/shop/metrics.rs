//! Counters and histograms, as Prometheus text.
//!
//! Source: Prometheus, "Exposition formats", text format 0.0.4. Routes and methods come from fixed lists, so the number
//! of series is bounded whatever clients ask for.
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Upper bounds in seconds. There is one at 2 because that is where the shop counts as slow.
const BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0];

pub(super) struct Metrics {
    version: String,
    started_at_seconds: f64,
    numbers: Mutex<Numbers>,
}

#[derive(Default)]
struct Numbers {
    requests: BTreeMap<Series, u64>,
    durations: BTreeMap<String, Histogram>,
    orders: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Default)]
struct Histogram {
    /// One for each bound, not yet cumulative; what is above the last bound is only in `count`.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum_seconds: f64,
}

impl Metrics {
    pub(super) fn new(version: &str) -> Self {
        let started_at_seconds = jiff::Timestamp::now().as_millisecond() as f64 / 1e3;
        Self { version: version.to_owned(), started_at_seconds, numbers: Mutex::default() }
    }

    pub(super) fn answered(&self, route: &str, method: &'static str, status: u16, took: Duration) {
        let mut numbers = self.lock();
        *numbers.requests.entry(Series { route: route.to_owned(), method, status }).or_default() += 1;
        let histogram = numbers.durations.entry(route.to_owned()).or_default();
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            histogram.buckets[bucket] += 1;
        }
        histogram.count += 1;
        histogram.sum_seconds += seconds;
    }

    pub(super) fn order_taken(&self) {
        self.lock().orders += 1;
    }

    /// The whole page. Without `/proc` the memory is left out rather than shown as nought.
    pub(super) fn text(&self, maintenance: bool) -> String {
        let mut page = String::new();
        let numbers = self.lock();
        heading(&mut page, "http_requests_total", "counter", "Requests answered.");
        for (Series { route, method, status }, count) in &numbers.requests {
            line(
                &mut page,
                "http_requests_total",
                &format!(r#"route="{route}",method="{method}",status="{status}""#),
                count,
            );
        }
        heading(&mut page, "http_request_duration_seconds", "histogram", "Time from request to answer.");
        for (route, histogram) in &numbers.durations {
            histogram.write(&mut page, route);
        }
        heading(&mut page, "shop_orders_total", "counter", "Orders taken by this process.");
        line(&mut page, "shop_orders_total", "", numbers.orders);
        heading(&mut page, "shop_maintenance", "gauge", "1 while maintenance is on.");
        line(&mut page, "shop_maintenance", "", u8::from(maintenance));
        heading(&mut page, "shop_release_info", "gauge", "The release this process serves.");
        line(&mut page, "shop_release_info", &format!(r#"version="{}""#, self.version), 1);
        heading(&mut page, "process_start_time_seconds", "gauge", "Start of the process, in seconds since the epoch.");
        line(&mut page, "process_start_time_seconds", "", format_args!("{:.3}", self.started_at_seconds));
        if let Some(bytes) = resident_bytes() {
            heading(&mut page, "process_resident_memory_bytes", "gauge", "Resident memory.");
            line(&mut page, "process_resident_memory_bytes", "", bytes);
        }
        page
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Histogram {
    fn write(&self, page: &mut String, route: &str) {
        let name = "http_request_duration_seconds";
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(self.buckets) {
            below += count;
            line(page, &format!("{name}_bucket"), &format!(r#"route="{route}",le="{bound}""#), below);
        }
        line(page, &format!("{name}_bucket"), &format!(r#"route="{route}",le="+Inf""#), self.count);
        line(page, &format!("{name}_sum"), &format!(r#"route="{route}""#), self.sum_seconds);
        line(page, &format!("{name}_count"), &format!(r#"route="{route}""#), self.count);
    }
}

fn heading(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(page: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = match labels {
        "" => writeln!(page, "{name} {value}"),
        _ => writeln!(page, "{name}{{{labels}}} {value}"),
    };
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative_and_its_bounds_are_inclusive() {
        let metrics = Metrics::new("v1");
        for milliseconds in [1, 5, 6, 2_000, 2_400, 60_000] {
            metrics.answered("/orders", "POST", 201, Duration::from_millis(milliseconds));
        }
        metrics.answered("/orders", "POST", 500, Duration::from_millis(1));
        let text = metrics.text(false);
        let value = |series: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{series} in {text}")).to_owned()
        };
        let bucket = |le: &str| value(&format!(r#"http_request_duration_seconds_bucket{{route="/orders",le="{le}"}}"#));
        assert_eq!(
            [bucket("0.005"), bucket("0.01"), bucket("1"), bucket("2"), bucket("2.5"), bucket("10"), bucket("+Inf")],
            ["3", "4", "4", "5", "6", "6", "7"]
        );
        assert_eq!(value(r#"http_request_duration_seconds_count{route="/orders"}"#), "7");
        assert_eq!(value(r#"http_requests_total{route="/orders",method="POST",status="201"}"#), "6");
        assert_eq!(value(r#"http_requests_total{route="/orders",method="POST",status="500"}"#), "1");
        assert_eq!(value(r#"shop_release_info{version="v1"}"#), "1");
        assert!(value("process_resident_memory_bytes").parse::<u64>().unwrap() > 100_000);
    }
}
