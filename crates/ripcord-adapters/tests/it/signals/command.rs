use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::Reading;

use crate::support::{Bench, cx_at, read, sample, why};

async fn reading(script: &str, more: &str) -> Reading {
    let bench = Bench::new();
    read(&*bench.signal("command", &format!("run: [sh, -c, '{script}']\n{more}"))).await
}

#[tokio::test]
async fn a_program_fails_or_not() {
    assert_eq!(sample(reading("exit 0", "").await).value, 0.0);
    let failing = sample(reading("echo 3 failed >&2; exit 4", "").await);
    assert_eq!(
        (failing.value, &failing.fields["exit"], &failing.fields["stderr"]),
        (1.0, &4.into(), &"3 failed\n".into())
    );
    assert_eq!(sample(reading("exit 4", "measure: exit").await).value, 4.0);
}

#[tokio::test]
async fn rf01_a_number_is_a_number_and_nothing_else() {
    let number = "measure: number\nunit: seconds";
    assert_eq!(sample(reading("echo 0.5", number).await).value, 0.5);
    for (script, expected) in [
        ("echo 0.5s", "the program printed no number: `0.5s`"),
        ("true", "the program printed no number: ``"),
        ("echo 1 2", "the program printed no number: `1 2`"),
        ("echo nan", "the value is NaN, which is no measurement"),
        ("echo inf", "the value is inf, which is no measurement"),
        ("echo 1; echo broken >&2; exit 3", "the program failed with exit code 3: broken"),
    ] {
        assert_eq!(why(reading(script, number).await), expected, "{script}");
    }
    let json = "measure: { json: /queue/depth }";
    assert_eq!(sample(reading(r#"echo "{\"queue\":{\"depth\":7}}""#, json).await).value, 7.0);
    assert_eq!(why(reading("echo 7", json).await), "there is nothing at `/queue/depth`");
    assert_eq!(why(reading("echo x", json).await), "the program printed no JSON: `x`");
}

#[tokio::test]
async fn a_program_that_cannot_run_or_does_not_end_measured_nothing() {
    let bench = Bench::new();
    let absent = bench.signal("command", "run: [surely-no-such-program]");
    assert!(why(read(&*absent).await).starts_with("`surely-no-such-program` could not be started"));
    let slow = bench.signal("command", "run: [sh, -c, 'echo half; sleep 60']");
    let reading = slow.read(&cx_at(Timestamp::now(), Duration::from_millis(600))).await;
    assert_eq!(why(reading), "`sh` was still running after 300 ms; the last it said: half");
    assert_eq!(why(self::reading("kill -9 $$", "").await), "a signal ended the program");
}
