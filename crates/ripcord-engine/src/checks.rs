//! Verification checks: a reading and an assertion, polled until it passes or its time is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::{Check, CheckSpec, Cx, GuardError, Reading, Sample, Signal};
use serde_json::Value;
use tokio::time::Instant;

use crate::effect::Backoff;

/// What assertions may name beside the sample's own fields.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The version that should be running.
    pub version: Option<String>,
    pub baseline: Option<f64>,
}

/// The longest one reading of a check may take, unless its signal says that it takes longer.
const READ: Duration = Duration::from_secs(10);

/// Polls the check until `passes` readings in a row satisfy it, or its time is over.
///
/// Only readings begun after the call count: evidence is younger than the deed it proves. At the end of its time a check that
/// last saw its assertion false has failed; one that last saw no data, a failing observer or too few samples is inconclusive. A
/// reading that only the end of that time cut short saw nothing, so what was seen before it counts.
pub async fn run(
    signal: &Arc<dyn Signal>,
    spec: &CheckSpec,
    timeout: Option<Duration>,
    cx: &Cx,
    given: &Given,
) -> Check {
    let read = timeout.unwrap_or(READ).max(READ);
    let (start, deadline) = (Instant::now(), Instant::now() + spec.within);
    let mut backoff = Backoff::default();
    let mut in_a_row = 0;
    let mut failed = None;
    loop {
        let began = Instant::now();
        let limit = read.min(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100)));
        // What a signal counts since its reading before needs to know how long that is.
        let now = cx.now.saturating_add(began - start).unwrap_or(cx.now);
        let cx = Cx { limit, now, ..cx.clone() };
        let reading = tokio::time::timeout(limit, signal.read(&cx)).await;
        let reading = reading
            .unwrap_or_else(|_| Reading::Failed { why: format!("no answer within {}", ripcord_core::human(limit)) });
        // A signal may give itself less than it was given, to be able to say so.
        let cut_short = limit < read && began.elapsed() >= limit / 2;
        let verdict = match (judge(&reading, spec, given), failed.take()) {
            (Check::Inconclusive { .. }, Some(failed)) if cut_short => failed,
            (verdict, _) => verdict,
        };
        failed = matches!(verdict, Check::Fail { .. }).then(|| verdict.clone());
        match &verdict {
            Check::Pass { .. } => in_a_row += 1,
            Check::Fail { .. } | Check::Inconclusive { .. } => in_a_row = 0,
        }
        if in_a_row >= spec.passes.max(1) || Instant::now() >= deadline {
            return match verdict {
                Check::Pass { found } if in_a_row < spec.passes => Check::Inconclusive {
                    why: format!("only {in_a_row} of {} readings in a row passed in time: {found}", spec.passes),
                },
                verdict => verdict,
            };
        }
        match in_a_row > 0 && !spec.every.is_zero() {
            true => tokio::time::sleep_until((Instant::now() + spec.every).min(deadline)).await,
            false => backoff.pause(deadline).await,
        }
    }
}

fn judge(reading: &Reading, spec: &CheckSpec, given: &Given) -> Check {
    let samples = match reading {
        Reading::Samples(samples) if !samples.is_empty() => samples,
        Reading::Samples(_) | Reading::Empty => return Check::Inconclusive { why: "there is no data".to_owned() },
        Reading::Failed { why } => return Check::Inconclusive { why: why.clone() },
    };
    let mut found = vec![];
    let mut wrong = vec![];
    for sample in samples {
        if let (Some(least), n) = (spec.at_least, sample.n.unwrap_or(0.0))
            && n < least
        {
            return Check::Inconclusive { why: format!("it rests on {n} samples, {least} are needed") };
        }
        match spec.assert.holds(&inputs(sample, given)) {
            Ok(true) => found.push(brief(sample)),
            Ok(false) => wrong.push(format!("{} is not so: {}", spec.assert, brief(sample))),
            // A field that is not there (no JSON in the answer) is an answer of the subject: it fails, and says what was there.
            Err(GuardError::Missing { input, .. }) if input != "baseline" && input != "target" => {
                wrong.push(format!("{} cannot be so: no `{input}` in {}", spec.assert, brief(sample)));
            }
            Err(error @ (GuardError::Missing { .. } | GuardError::Syntax { .. })) => {
                return Check::Inconclusive { why: error.to_string() };
            }
            Err(GuardError::Failed { why, .. }) => {
                wrong.push(format!("{} cannot be so: {why} ({})", spec.assert, brief(sample)))
            }
        }
    }
    match wrong.is_empty() {
        true => Check::Pass { found: found.join("; ") },
        false => Check::Fail { what: wrong },
    }
}

fn inputs(sample: &Sample, given: &Given) -> BTreeMap<String, Value> {
    let mut inputs = sample.fields.clone();
    inputs.insert("value".to_owned(), sample.value.into());
    if let Some(n) = sample.n {
        inputs.insert("n".to_owned(), n.into());
    }
    if let Some(version) = &given.version {
        inputs.insert("target".to_owned(), serde_json::json!({ "version": version }));
    }
    if let Some(baseline) = given.baseline {
        inputs.insert("baseline".to_owned(), baseline.into());
    }
    inputs
}

/// The sample in a line: what a person needs to see why a check passed or failed.
fn brief(sample: &Sample) -> String {
    let short = |value: &Value| {
        let text = match value.as_f64().filter(|_| value.is_f64()) {
            Some(number) => format!("{number:.1}"),
            None => value.to_string(),
        };
        match text.char_indices().nth(120) {
            Some((cut, _)) => format!("{}...", &text[..cut]),
            None => text,
        }
    };
    let labels = sample.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let wanted = ["status", "latency_ms", "json", "error", "lines"];
    let fields = wanted.iter().filter_map(|key| {
        let value = sample.fields.get(*key).filter(|value| !value.is_null())?;
        Some(format!("{key} {}", short(value)))
    });
    let parts: Vec<String> = labels.chain(fields).collect();
    match parts.is_empty() {
        true => format!("value {}", sample.value),
        false => parts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use jiff::Timestamp;
    use ripcord_core::{CheckId, Fut, Guard, SignalId, Stage, Unit};

    use super::*;

    /// Answers from a list, the last one for ever; each answer takes that long.
    struct Script(Mutex<Vec<Reading>>, Duration);

    impl Signal for Script {
        fn unit(&self) -> Unit {
            Unit::Number
        }
        fn fields(&self) -> &'static [&'static str] {
            &["status", "json"]
        }
        fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
            let mut script = self.0.lock().unwrap();
            let next = if script.len() > 1 { script.remove(0) } else { script[0].clone() };
            let (takes, limit) = (self.1, cx.limit / 2);
            Box::pin(async move {
                let cut = Reading::Failed { why: "it was still running".to_owned() };
                tokio::time::timeout(limit, tokio::time::sleep(takes)).await.map_or(cut, |()| next)
            })
        }
        fn query(&self) -> String {
            "script".to_owned()
        }
    }

    fn answer(status: u16, version: &str) -> Reading {
        let mut sample = Sample::new(Timestamp::UNIX_EPOCH, 0.0);
        sample.fields.insert("status".into(), status.into());
        sample.fields.insert("json".into(), serde_json::json!({ "version": version }));
        Reading::Samples(vec![sample])
    }

    async fn verdict(script: Vec<Reading>, passes: u32) -> Check {
        slow_verdict(script, passes, Duration::ZERO).await
    }

    async fn slow_verdict(script: Vec<Reading>, passes: u32, takes: Duration) -> Check {
        let signal: Arc<dyn Signal> = Arc::new(Script(Mutex::new(script), takes));
        let spec = CheckSpec {
            id: CheckId::new("health").unwrap(),
            signal: SignalId::new("health").unwrap(),
            assert: Guard::new("status == 200 && json.version == target.version").unwrap(),
            stage: Stage::Closed,
            within: Duration::from_secs(5),
            passes,
            at_least: None,
            every: Duration::from_millis(100),
        };
        let app = ripcord_core::AppId { application: "shop".parse().unwrap(), environment: "test".parse().unwrap() };
        let cx = Cx { app, now: Timestamp::UNIX_EPOCH, limit: READ, run: None, version: None };
        run(&signal, &spec, None, &cx, &Given { version: Some("v1".into()), baseline: None }).await
    }

    #[tokio::test(start_paused = true)]
    async fn rf27_only_the_right_answer_passes() {
        assert!(matches!(verdict(vec![answer(200, "v1")], 1).await, Check::Pass { .. }));
        for wrong in [answer(500, "v1"), answer(401, "v1"), answer(200, "v2")] {
            assert!(matches!(verdict(vec![wrong], 1).await, Check::Fail { .. }));
        }
        let late = vec![answer(503, "v1"), answer(503, "v1"), answer(200, "v1")];
        assert!(matches!(verdict(late, 1).await, Check::Pass { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn no_data_and_a_failing_observer_neither_pass_nor_fail() {
        assert!(matches!(verdict(vec![Reading::Empty], 1).await, Check::Inconclusive { .. }));
        assert!(matches!(verdict(vec![Reading::Failed { why: "x".into() }], 1).await, Check::Inconclusive { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_is_not_forgotten_for_a_reading_that_the_end_cut_short() {
        let takes = Duration::from_millis(900);
        assert!(matches!(slow_verdict(vec![answer(207, "v1")], 1, takes).await, Check::Fail { .. }));
        // It had all its time and was answered by nobody: that is the last thing seen.
        let gone = vec![answer(207, "v1"), Reading::Failed { why: "x".into() }];
        assert!(matches!(verdict(gone, 1).await, Check::Inconclusive { .. }));
        // Nothing was ever seen.
        let hangs = slow_verdict(vec![answer(200, "v1")], 1, Duration::from_secs(60)).await;
        assert!(matches!(hangs, Check::Inconclusive { .. }));
    }

    /// How long it is since the first reading, by what readings are told; each takes its time.
    struct Age(Mutex<Option<Timestamp>>, Duration);

    impl Signal for Age {
        fn unit(&self) -> Unit {
            Unit::Seconds
        }
        fn fields(&self) -> &'static [&'static str] {
            &[]
        }
        fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
            Box::pin(async move {
                tokio::time::sleep(self.1).await;
                let first = *self.0.lock().unwrap().get_or_insert(cx.now);
                Reading::of(Sample::new(cx.now, ripcord_core::between(first, cx.now).as_secs_f64()))
            })
        }
        fn query(&self) -> String {
            "age".to_owned()
        }
    }

    async fn age(assert: &str, takes: Duration, timeout: Option<Duration>) -> Check {
        let signal: Arc<dyn Signal> = Arc::new(Age(Mutex::default(), takes));
        let spec = CheckSpec {
            id: CheckId::new("age").unwrap(),
            signal: SignalId::new("age").unwrap(),
            assert: Guard::new(assert).unwrap(),
            stage: Stage::Open,
            within: Duration::from_secs(30),
            passes: 1,
            at_least: None,
            every: Duration::from_millis(100),
        };
        let app = ripcord_core::AppId { application: "shop".parse().unwrap(), environment: "test".parse().unwrap() };
        let cx = Cx { app, now: Timestamp::UNIX_EPOCH, limit: READ, run: None, version: None };
        run(&signal, &spec, timeout, &cx, &Given::default()).await
    }

    #[tokio::test(start_paused = true)]
    async fn time_goes_on_between_the_readings_of_a_check() {
        let aged = age("value > 5.0", Duration::from_millis(10), None).await;
        assert!(matches!(aged, Check::Pass { .. }), "{aged:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_that_says_it_takes_longer_is_given_the_time() {
        let takes = Duration::from_secs(12);
        assert!(matches!(age("value >= 0.0", takes, None).await, Check::Inconclusive { .. }));
        let patient = age("value >= 0.0", takes, Some(Duration::from_secs(20))).await;
        assert!(matches!(patient, Check::Pass { .. }), "{patient:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn passes_in_a_row_begin_anew_after_a_failure() {
        let flapping: Vec<Reading> = (0..200).map(|i| answer(if i % 2 == 0 { 200 } else { 500 }, "v1")).collect();
        assert!(!matches!(verdict(flapping, 2).await, Check::Pass { .. }));
    }
}
