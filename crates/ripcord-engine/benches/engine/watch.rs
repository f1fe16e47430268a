//! What `ripcord watch` costs while nothing is wrong: 1,000 triggers over 20 signals, each read once a second.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::child::Site;
use crate::figures::row;
use crate::server::Server;

const SIGNALS: usize = 20;
const TRIGGERS_EACH: usize = 50;
const CORE_SHARE: f64 = 0.05;
const MEGABYTES: f64 = 60.0;
/// Start, first readings, first lease: not what is measured.
const WARM_UP: Duration = Duration::from_secs(5);

/// Kinds of figure in turn, and triggers of every sort: shares, rates, quantiles, plain values.
fn configuration(at: &str) -> String {
    let mut text =
        String::from("application: watched\ncomponents:\n  code: { env-file: { path: shop.env } }\nsignals:\n");
    for n in 0..SIGNALS {
        let measure = match n % 4 {
            0 => format!(
                r#"ratio: {{ of: 'http_requests_total{{route="/r{n}",status="500"}}', to: 'http_requests_total{{route="/r{n}"}}', window: 30s }}"#
            ),
            1 => format!(r#"rate: {{ metric: 'http_requests_total{{route="/r{n}",status="404"}}', window: 30s }}"#),
            2 => "quantile: { metric: http_request_duration_seconds, q: 0.95, window: 30s }".to_owned(),
            _ => "gauge: { metric: process_resident_memory_bytes }".to_owned(),
        };
        text += &format!(
            "  s{n}:\n    scrape:\n      url: http://{at}/metrics\n      measure:\n        {measure}\n    every: 1s\n    timeout: 2s\n"
        );
    }
    text += "triggers:\n";
    for n in 0..SIGNALS {
        for t in 0..TRIGGERS_EACH {
            let above = match n % 4 {
                0 => format!("{}%", 5 + t),
                1 => format!("{}", 100 + t),
                2 => format!("{}s", 2 + t),
                _ => format!("{}MB", 500 + t),
            };
            let hold = match t % 3 {
                0 => "for: 3m",
                1 => "occurs: 5 times within 10m",
                _ => "of: 8 of 10",
            };
            text += &format!("  t{n}-{t}: {{ signal: s{n}, above: {above}, {hold}, severity: p2 }}\n");
        }
    }
    text += "severities:\n  p1: { respond-within: 5m }\n  p2: { respond-within: 15m }\n";
    text += "matrix:\n  otherwise: { call: evaluate, within: 1h, severity: p2 }\n";
    text
}

/// Processor time used so far.
/// Source: proc(5), `/proc/pid/stat`: fields 14 and 15, in ticks of 10 ms on Linux.
fn processor(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, in parentheses, may hold anything; it is field 2.
    let after = text.rsplit_once(')').unwrap().1;
    let ticks: u64 = after.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// A figure of `/proc/pid/status`, in megabytes.
fn megabytes(pid: u32, name: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

pub fn measure(ripcord: &Path, seconds: usize) {
    let server = Server::start();
    let site = Site::new(ripcord, &configuration(&server.at.to_string()));
    // A vault is made once, with a password that takes 128 MB to stretch; after that a start has none of it.
    site.time(&["release", "record", "v1"]);
    let mut watching = site.start(&["watch"]);
    let pid = watching.id();
    std::thread::sleep(WARM_UP);
    watching.still_there();
    let (began, before) = (Instant::now(), processor(pid));
    let mut most: f64 = 0.0;
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        watching.still_there();
        most = most.max(megabytes(pid, "VmRSS:"));
    }
    let share = (processor(pid) - before).as_secs_f64() / began.elapsed().as_secs_f64();
    // The most since its start, which may have been before the warm-up was over.
    let start = megabytes(pid, "VmHWM:");
    // Were the signals not read, nothing would have been measured.
    let log = site.output(&["status"]);
    eprintln!("{log}");
    let name = format!("watch: {} triggers, {SIGNALS} signals at 1 s", SIGNALS * TRIGGERS_EACH);
    row(&name, &format!("{:.1} % of a core", share * 100.0), "< 5 % of a core", share / CORE_SHARE);
    let figure = format!("{most:.1} MB while watching, {start:.1} MB the most since its start");
    row("  its memory", &figure, "< 60 MB", most / MEGABYTES);
}
