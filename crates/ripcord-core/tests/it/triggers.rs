//! Properties of the trigger state machine, and the entries of the runbooks' failures that are rules alone.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use ripcord_core::{
    Clear, Condition, Evidence, Follows, Hold, Memory, Missing, Reading, Rule, Sample, Severity, TriggerState, advance,
    advance_in_place, rederive,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(second)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn rule(condition: Condition, hold: Hold) -> Rule {
    Rule {
        id: "bad".parse().unwrap(),
        signal: "errors".parse().unwrap(),
        condition,
        hold,
        clear: None,
        at_least: None,
        missing: Missing::Page,
        errors: Missing::Page,
        absent_for: None,
        interval: secs(10),
        when: None,
        severity: Severity(1),
        issue: "errors".parse().unwrap(),
        follows: Follows::Decide,
        points_at: BTreeSet::new(),
        source: None,
    }
}

fn one(second: i64, value: f64) -> Reading {
    Reading::Samples(vec![Sample::new(at(second), value)])
}

/// The states a rule goes through over readings, with when.
fn states(rule: &Rule, readings: &[(i64, Reading)], baseline: Option<f64>) -> Vec<(i64, TriggerState)> {
    let mut memory = Memory::default();
    let take = |(second, reading): &(i64, Reading)| {
        advance_in_place(rule, &mut memory, reading, baseline, at(*second)).map(|state| (*second, state))
    };
    readings.iter().filter_map(take).collect()
}

fn fired(states: &[(i64, TriggerState)]) -> Vec<i64> {
    states.iter().filter(|(_, s)| matches!(s, TriggerState::Breached { .. })).map(|(second, _)| *second).collect()
}

/// What may come back from a look, at any age.
fn any_reading() -> impl Strategy<Value = (i64, Reading)> {
    let sample = (-40i64..15, 0.0f64..10.0, prop::option::of(0.0f64..100.0));
    let step = prop_oneof![20 => Just(10i64), 3 => 0i64..60, 1 => -3_000i64..3_000];
    let reading = prop_oneof![
        6 => Just(None).prop_flat_map(|_: Option<()>| (0.0f64..10.0).prop_map(|value| Some(vec![(0, value, Some(90.0))]))),
        2 => prop::collection::vec(sample, 0..4).prop_map(Some),
        1 => Just(None),
    ];
    (step, reading, any::<bool>()).prop_map(|(step, reading, failed)| {
        let reading = match reading {
            // Times are made absolute where the readings are lined up.
            Some(samples) => Reading::Samples(
                samples.into_iter().map(|(age, value, n)| Sample { n, ..Sample::new(at(age), value) }).collect(),
            ),
            None if failed => Reading::Failed { why: "refused".to_owned() },
            None => Reading::Empty,
        };
        (step, reading)
    })
}

fn any_story() -> impl Strategy<Value = Vec<(i64, Reading)>> {
    prop::collection::vec(any_reading(), 1..80).prop_map(|steps| {
        let mut now = 0;
        let place = |(step, reading): (i64, Reading)| {
            now += step;
            let moved = |sample: Sample| Sample { at: sample.at + SignedDuration::from_secs(now), ..sample };
            match reading {
                Reading::Samples(samples) => (now, Reading::Samples(samples.into_iter().map(moved).collect())),
                other => (now, other),
            }
        };
        steps.into_iter().map(place).collect()
    })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let condition = prop_oneof![
        Just(Condition::Above(5.0)),
        Just(Condition::Below(5.0)),
        Just(Condition::AboveBaseline { times: 3.0, floor: 1.0 }),
        Just(Condition::BelowBaseline { times: 0.5, floor: 1.0 }),
        Just(Condition::Absent),
    ];
    let hold = prop_oneof![
        (0u64..90).prop_map(|n| Hold::For { at_least: secs(n) }),
        (0u32..5, 0u64..90).prop_map(|(count, n)| Hold::Times { count, within: secs(n) }),
        (0u32..5, 0u32..6).prop_map(|(k, n)| Hold::Of { k, n }),
    ];
    let clear = prop::option::of((0.0f64..10.0, 0u64..60).prop_map(|(at, n)| Clear { at, at_least: secs(n) }));
    let missing = prop_oneof![Just(Missing::Ignore), Just(Missing::Hold), Just(Missing::Page)];
    let absent_for = prop::option::of((0u64..90).prop_map(secs));
    (condition, hold, clear, prop::option::of(Just(50.0)), missing.clone(), missing, absent_for).prop_map(
        |(condition, hold, clear, at_least, missing, errors, absent_for)| Rule {
            clear,
            at_least,
            missing,
            errors,
            absent_for,
            ..rule(condition, hold)
        },
    )
}

proptest! {
    #[test]
    fn a_flap_never_fires_a_for_duration(good_every in 2usize..6, samples in 10usize..200) {
        // Bad for `good_every - 1` samples at a time, which lasts one interval less than the hold.
        let rule = rule(Condition::Above(5.0), Hold::For { at_least: secs(10 * (good_every as u64 - 1)) });
        let value = |i: usize| if i.is_multiple_of(good_every) { 1.0 } else { 9.0 };
        let readings: Vec<_> = (0..samples).map(|i| (i as i64 * 10, one(i as i64 * 10, value(i)))).collect();
        prop_assert_eq!(fired(&states(&rule, &readings, None)), Vec::<i64>::new());
    }

    #[test]
    fn a_constant_breach_fires_once_at_the_first_sample_past_the_hold(hold in 0u64..300, every in 1i64..=20, good in 0i64..5) {
        let rule = rule(Condition::Above(5.0), Hold::For { at_least: secs(hold) });
        let readings: Vec<_> = (0..400).map(|i| (i * every, one(i * every, if i < good { 1.0 } else { 9.0 }))).collect();
        let first = good * every;
        let due = first + (hold as i64 + every - 1) / every * every;
        prop_assert_eq!(fired(&states(&rule, &readings, None)), vec![due]);
    }

    #[test]
    fn no_data_never_fires_and_never_clears(rule in any_rule(), story in any_story(), dark in prop::collection::vec(any::<bool>(), 1..30)) {
        let rule = Rule { absent_for: None, ..rule };
        let mut memory = Memory::default();
        let mut now = 0;
        for (second, reading) in &story {
            now = *second;
            advance_in_place(&rule, &mut memory, reading, Some(2.0), at(now));
        }
        let before = memory.breached_since();
        for failed in dark {
            now += 10;
            let reading = if failed { Reading::Failed { why: "refused".to_owned() } } else { Reading::Empty };
            advance_in_place(&rule, &mut memory, &reading, Some(2.0), at(now));
            prop_assert_eq!(memory.breached_since(), before);
        }
    }

    #[test]
    fn a_restart_at_any_point_changes_nothing(rule in any_rule(), story in any_story(), baseline in prop::option::of(0.0f64..3.0)) {
        let mut running = Memory::default();
        let mut restarted = Memory::default();
        for (second, reading) in &story {
            let stored = serde_json::to_string(&restarted).unwrap();
            restarted = serde_json::from_str(&stored).unwrap();
            let a = advance_in_place(&rule, &mut running, reading, baseline, at(*second));
            let b = advance_in_place(&rule, &mut restarted, reading, baseline, at(*second));
            prop_assert_eq!(a, b);
            prop_assert_eq!(&running, &restarted);
        }
    }

    #[test]
    fn a_memory_is_bounded_by_its_hold(rule in any_rule(), story in any_story()) {
        let most = match rule.hold {
            Hold::For { .. } => 0,
            Hold::Times { count, .. } => count.max(1),
            Hold::Of { n, .. } => n.max(1),
        };
        let mut memory = Memory::default();
        for (second, reading) in &story {
            advance_in_place(&rule, &mut memory, reading, Some(2.0), at(*second));
            prop_assert!(memory.recent.len() <= most as usize);
            prop_assert!(memory.before_gap.as_deref().is_none_or(|state| !state.is_gap()), "a gap is remembered in a gap");
            prop_assert_eq!(memory.before_gap.is_some(), memory.state.is_gap());
        }
    }

    #[test]
    fn a_verdict_is_derived_again_from_its_stored_evidence(rule in any_rule(), story in any_story(), baseline in prop::option::of(0.0f64..3.0)) {
        let mut memory = Memory::default();
        for (second, reading) in &story {
            let evidence = Evidence::of(&rule, "errors / requests", &memory, reading, baseline, at(*second));
            let stored: Evidence = serde_json::from_str(&serde_json::to_string(&evidence).unwrap()).unwrap();
            prop_assert_eq!(rederive(&stored), Ok(()));
            prop_assert_eq!(stored.digest(), evidence.digest());
            memory = evidence.memory_after;
        }
    }
}

#[test]
fn an_engine_that_disagrees_with_the_record_says_so() {
    let rule = rule(Condition::Above(0.01), Hold::For { at_least: secs(0) });
    let mut evidence = Evidence::of(&rule, "errors", &Memory::default(), &one(0, 0.5), None, at(0));
    assert_eq!(rederive(&evidence), Ok(()));
    evidence.memory_after.state = TriggerState::Ok;
    evidence.engine_version = "0.0.9".to_owned();
    insta::assert_snapshot!(rederive(&evidence).unwrap_err(), @"the verdict on `bad` cannot be derived again: version 0.0.9 recorded ok, value 0.5, this one (0.1.0) says breached since 2027-01-15T08:00:00Z, value 0.5");
}

#[test]
fn rf01_a_value_is_compared_as_a_number_or_not_at_all() {
    let rule = rule(Condition::Above(0.01), Hold::For { at_least: secs(0) });
    // What an adapter makes of an answer: a number, or the failure to be one.
    let read = |text: &str| match text.parse::<f64>() {
        Ok(value) => Reading::Samples(vec![Sample::new(at(0), value)]),
        Err(why) => Reading::Failed { why: why.to_string() },
    };
    let state = |text: &str| match advance(&rule, &Memory::default(), &read(text), None, at(0)).0.state {
        TriggerState::Ok => "ok".to_owned(),
        TriggerState::Breached { .. } => "breached".to_owned(),
        TriggerState::Error { why, .. } => format!("error: {why}"),
        other => format!("{other:?}"),
    };
    let answers = ["0.001", "0.01", "0.0100001", "NaN", "+Inf", "", "<html>", r#"{"status":"error"}"#];
    let lines: Vec<String> = answers.iter().map(|text| format!("{text:20} {}", state(text))).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    0.001                ok
    0.01                 ok
    0.0100001            breached
    NaN                  error: the value is NaN, which is no measurement
    +Inf                 error: the value is inf, which is no measurement
                         error: cannot parse float from empty string
    <html>               error: invalid float literal
    {"status":"error"}   error: invalid float literal
    "#);
}

#[test]
fn rf02_a_failing_monitor_is_no_verdict_however_long() {
    let rule = rule(Condition::Above(0.01), Hold::For { at_least: secs(60) });
    let failing = |i: i64| Reading::Failed { why: format!("HTTP 400 at {i}") };
    let readings: Vec<_> = (0..100).map(|i| (i * 10, failing(i))).collect();
    let states = states(&rule, &readings, None);
    assert!(matches!(states.as_slice(), [(0, TriggerState::Error { .. })]), "{states:?}");
}

#[test]
fn rf03_a_share_rests_on_enough_requests_or_is_no_verdict() {
    let rule = Rule { at_least: Some(50.0), ..rule(Condition::Above(0.001), Hold::For { at_least: secs(60) }) };
    let end = |reading: &dyn Fn(i64) -> Reading| {
        let mut memory = Memory::default();
        for second in (0..300).step_by(10) {
            advance_in_place(&rule, &mut memory, &reading(second), None, at(second));
        }
        memory.state
    };
    let share = |second, value, n| Reading::Samples(vec![Sample { n: Some(n), ..Sample::new(at(second), value) }]);
    assert_eq!(end(&|t| share(t, 0.0005, 100_000.0)), TriggerState::Ok, "busy and healthy passes");
    assert_eq!(
        end(&|t| share(t, 1.0, 1.0)),
        TriggerState::NoData { since: at(0) },
        "idle and broken is too little to say"
    );
    assert_eq!(end(&|t| share(t, 0.0, 900.0)), TriggerState::Ok, "zero over something is zero");
    assert_eq!(end(&|_| Reading::Empty), TriggerState::NoData { since: at(0) }, "zero over zero is no data");
}

#[test]
fn rf04_an_hour_of_breach_sampled_each_second_fires_once() {
    let rule = Rule { interval: secs(1), ..rule(Condition::Above(0.01), Hold::For { at_least: secs(120) }) };
    let readings: Vec<_> = (0..3_600).map(|t| (t, one(t, 0.5))).collect();
    assert_eq!(fired(&states(&rule, &readings, None)), [120]);
    let single: Vec<_> = (0..600).map(|t| (t, one(t, if t == 300 { 0.5 } else { 0.0 }))).collect();
    assert_eq!(fired(&states(&rule, &single, None)), Vec::<i64>::new(), "one bad reading is not two minutes");
}

#[test]
fn rf05_a_dead_service_scores_no_perfect_zero() {
    // No lines seen is no data; a log signal says zero errors only where it saw lines.
    let rule = Rule { at_least: Some(1.0), ..rule(Condition::Above(0.0), Hold::For { at_least: secs(0) }) };
    let breached = one(0, 3.0);
    let Reading::Samples(mut samples) = breached else { unreachable!() };
    samples[0].n = Some(100.0);
    let mut memory = Memory::default();
    advance_in_place(&rule, &mut memory, &Reading::Samples(samples), None, at(0));
    for t in 1..30 {
        let nothing = Reading::Samples(vec![Sample { n: Some(0.0), ..Sample::new(at(t * 10), 0.0) }]);
        advance_in_place(&rule, &mut memory, &nothing, None, at(t * 10));
    }
    assert_eq!(memory.state, TriggerState::NoData { since: at(0) });
    assert_eq!(memory.breached_since(), Some(at(0)), "the stopped container has not healed");
}
