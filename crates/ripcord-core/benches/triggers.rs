//! How many samples a second the trigger state machine takes in on one core.
//!
//! Law: at least 1,000,000 samples/s for a plain for-duration rule. `items_count` makes the report say so directly.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot set itself up has to stop")]

use std::collections::BTreeSet;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use jiff::{SignedDuration, Timestamp};
use ripcord_core::{
    Clear, Condition, Follows, Hold, Memory, Missing, Reading, Rule, Sample, Severity, advance, advance_in_place,
};

fn main() {
    divan::main();
}

const SAMPLES: usize = 10_000;

fn rule(hold: Hold) -> Rule {
    Rule {
        id: "errors-high".parse().unwrap(),
        signal: "errors".parse().unwrap(),
        condition: Condition::Above(0.05),
        hold,
        clear: Some(Clear { at: 0.01, at_least: Duration::from_secs(60) }),
        at_least: Some(50.0),
        missing: Missing::Page,
        errors: Missing::Page,
        absent_for: None,
        interval: Duration::from_secs(1),
        when: None,
        severity: Severity(1),
        issue: "errors".parse().unwrap(),
        follows: Follows::Decide,
        points_at: BTreeSet::new(),
        source: None,
    }
}

/// A reading a second, bad for five minutes of every ten.
fn readings() -> Vec<(Timestamp, Reading)> {
    let start = Timestamp::from_second(1_800_000_000).unwrap();
    (0..SAMPLES)
        .map(|i| {
            let at = start + SignedDuration::from_secs(i as i64);
            let value = if i % 600 < 300 { 0.2 } else { 0.001 };
            (at, Reading::Samples(vec![Sample { n: Some(900.0), ..Sample::new(at, value) }]))
        })
        .collect()
}

fn in_place(bencher: Bencher<'_, '_>, hold: Hold) {
    let (rule, readings) = (rule(hold), readings());
    bencher.counter(ItemsCount::new(SAMPLES)).bench(|| {
        let mut memory = Memory::default();
        let mut changes = 0;
        for (at, reading) in &readings {
            changes += usize::from(advance_in_place(&rule, &mut memory, reading, None, *at).is_some());
        }
        changes
    });
}

#[divan::bench]
fn for_duration(bencher: Bencher<'_, '_>) {
    in_place(bencher, Hold::For { at_least: Duration::from_secs(180) });
}

#[divan::bench]
fn occurrences_in_a_window(bencher: Bencher<'_, '_>) {
    in_place(bencher, Hold::Times { count: 20, within: Duration::from_secs(600) });
}

#[divan::bench]
fn k_of_n(bencher: Bencher<'_, '_>) {
    in_place(bencher, Hold::Of { k: 8, n: 10 });
}

#[divan::bench]
fn for_duration_copying_the_memory(bencher: Bencher<'_, '_>) {
    let (rule, readings) = (rule(Hold::For { at_least: Duration::from_secs(180) }), readings());
    bencher.counter(ItemsCount::new(SAMPLES)).bench(|| {
        readings.iter().fold(Memory::default(), |memory, (at, reading)| advance(&rule, &memory, reading, None, *at).0)
    });
}
