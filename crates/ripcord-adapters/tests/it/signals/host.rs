//! The machine the tests run on.

use std::time::Duration;

use jiff::Timestamp;
use ripcord_adapters::{Adapters, SignalSettings};
use ripcord_config::Kinds;
use ripcord_core::{Reading, Unit};

use crate::support::{Bench, cx_at, read, sample, until, why};

#[tokio::test]
async fn every_measure_of_this_machine_is_a_plausible_one() {
    let bench = Bench::new();
    for (yaml, fields) in [
        ("measure: memory", &["available_bytes", "total_bytes"][..]),
        ("measure: disk\npath: .", &["free_bytes", "total_bytes"]),
        ("measure: load", &["five_minutes", "fifteen_minutes", "processors"]),
    ] {
        let signal = bench.signal("host", yaml);
        let sample = sample(read(&*signal).await);
        match signal.unit() {
            Unit::Ratio => assert!(sample.value > 0.0 && sample.value < 1.0, "{yaml}: {}", sample.value),
            _ => assert!(sample.value >= 0.0, "{yaml}: {}", sample.value),
        }
        assert_eq!(signal.fields(), fields);
        for name in fields {
            assert!(sample.fields[*name].as_f64().unwrap() >= 0.0, "{yaml}: {name}");
        }
    }
    let free = sample(read(&*bench.signal("host", "measure: disk\npath: .")).await).fields["free_bytes"].as_u64();
    let disk = rustix::fs::statvfs(bench.dir.path()).unwrap();
    let (free, now) = (free.unwrap() as f64, (disk.f_bavail * disk.f_frsize) as f64);
    assert!((free - now).abs() < 0.05 * (disk.f_blocks * disk.f_frsize) as f64, "{free} and {now}");
    let inodes = read(&*bench.signal("host", "measure: inodes\npath: .")).await;
    assert!(matches!(inodes, Reading::Empty | Reading::Samples(_)), "{inodes:?}");
}

#[tokio::test]
async fn processor_time_takes_two_readings() {
    let bench = Bench::new();
    let signal = bench.signal("host", "measure: cpu");
    let at = |second: i64| cx_at(Timestamp::from_second(1_700_000_000 + second).unwrap(), Duration::from_secs(10));
    assert_eq!(signal.read(&at(0)).await, Reading::Empty, "the first is no share, and not zero");
    until("a tick of the clock", || async {
        matches!(signal.read(&at(1)).await, Reading::Samples(samples) if (0.0..=1.0).contains(&samples[0].value))
    })
    .await;
}

#[tokio::test]
async fn a_path_that_is_not_there_is_the_observer_s_failure() {
    let bench = Bench::new();
    let signal = bench.signal("host", "measure: disk\npath: gone/away");
    let why = why(read(&*signal).await);
    assert!(why.contains("gone/away` cannot be looked at: No such file"), "{why}");
    assert_eq!(signal.query(), "share of the disk of gone/away in use");
}

#[test]
fn a_path_goes_with_disks_and_with_nothing_else() {
    let mistakes = |yaml: &str| -> Vec<String> {
        let settings = SignalSettings::Host(serde_saphyr::from_str(yaml).unwrap());
        Adapters::check_signal(&settings).into_iter().map(|mistake| mistake.what).collect()
    };
    assert_eq!(mistakes("measure: inodes"), ["it does not say which file system"]);
    assert_eq!(mistakes("measure: load\npath: /"), ["this is measured for the whole machine, not for a path"]);
    assert!(mistakes("measure: disk\npath: /").is_empty() && mistakes("measure: cpu").is_empty());
}
