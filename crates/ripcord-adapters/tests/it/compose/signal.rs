//! The signal `container` on a real Engine.

use std::sync::Arc;
use std::time::Duration;

use ripcord_core::{Reading, Sample, Signal};

use super::{Stack, With, api, succeeded};
use crate::support::{Bench, read, sample, until, why};

fn signal(stack: &Stack, more: &str) -> Arc<dyn Signal> {
    let which = format!("project: {}\nservice: api\nengine: {}\n{more}", stack.project, stack.engine.endpoint());
    Bench::new().signal("container", &which)
}

async fn one(signal: &Arc<dyn Signal>) -> Sample {
    sample(read(&**signal).await)
}

fn field(sample: &Sample, name: &str) -> serde_json::Value {
    sample.fields[name].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_read_and_what_is_not_there_is_down() {
    let stack = Stack::deployed(With::New, &api("shop/api:v1"));
    let signal = signal(&stack, "");
    until("health", async || field(&one(&signal).await, "health") == "healthy").await;
    let well = one(&signal).await;
    assert_eq!((well.value, field(&well, "running")), (0.0, 1.into()));
    stack.engine.says(&["stop", "-t", "1", &stack.id()]);
    let stopped = one(&signal).await;
    assert_eq!(
        (stopped.value, field(&stopped, "running"), field(&stopped, "health")),
        (1.0, 0.into(), "exited".into())
    );
    stack.engine.says(&["rm", &stack.id()]);
    let missing = one(&signal).await;
    assert_eq!((missing.value, field(&missing, "health")), (1.0, "missing".into()), "down is a value");
    stack.deploy(&api("shop/api:v1").env("FAIL: \"1\""));
    until("ill health", async || field(&one(&signal).await, "health") == "unhealthy").await;
    assert_eq!(one(&signal).await.value, 1.0);
    assert_eq!(
        signal.query(),
        format!("failure of the containers of {}/api at {}", stack.project, stack.engine.endpoint())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_cannot_be_asked_is_a_blind_observer() {
    let signal = Bench::new().signal("container", "name: x\nengine: unix:///nonexistent/docker.sock");
    assert!(why(read(&*signal).await).contains("cannot be asked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_found_by_its_name_too() {
    let stack = Stack::deployed(With::Old, &api("shop/api:v1").unchecked());
    let name = stack.inspect(&stack.id(), "{{.Name}}");
    let by_name =
        |name: &str| Bench::new().signal("container", &format!("name: {name}\nengine: {}", stack.engine.endpoint()));
    let there = one(&by_name(name.trim_start_matches('/'))).await;
    assert_eq!((there.value, field(&there, "health")), (0.0, "none".into()));
    assert_eq!(one(&by_name("no-such-container")).await.value, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_are_counted() {
    let stack = Stack::deployed(With::New, &api("shop/api:v1").unchecked().line("restart: always"));
    let signal = signal(&stack, "measure: restarts\nwindow: 1h");
    assert_eq!(one(&signal).await.value, 0.0);
    let pid = stack.inspect(&stack.id(), "{{.State.Pid}}");
    succeeded(std::process::Command::new("kill").args(["-9", &pid]));
    until("a restart", async || one(&signal).await.value == 1.0).await;
    let restarted = one(&signal).await;
    assert_eq!((field(&restarted, "restarts"), field(&restarted, "restarts_per_hour")), (1.into(), 1.0.into()));
    // A deployment makes another container: that is none.
    stack.deploy(&api("shop/api:v2").unchecked());
    assert_eq!(one(&signal).await.value, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_for_want_of_memory_are_counted_once() {
    let greedy = api("shop/api:v1").env("MEM: \"128\"").line("mem_limit: 24m").line("memswap_limit: 24m").unchecked();
    let stack = Stack::deployed(With::New, &greedy);
    let signal = signal(&stack, "measure: oom-kills\nwindow: 1h");
    until("a kill", async || one(&signal).await.value == 1.0).await;
    // Past the second in which the event and the flag were told.
    let begun = tokio::time::Instant::now();
    until("some looks", async || {
        assert_eq!(one(&signal).await.value, 1.0);
        begun.elapsed() > Duration::from_secs(2)
    })
    .await;
    let killed = one(&signal).await;
    assert_eq!((field(&killed, "exit_code"), field(&killed, "oom_kills")), (137.into(), 1.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_processor_time_are_shares() {
    let stack = Stack::deployed(With::New, &api("shop/api:v1").env("MEM: \"32\"").line("mem_limit: 128m").unchecked());
    let memory = signal(&stack, "measure: memory");
    until("its memory", async || one(&memory).await.value > 0.2).await;
    let used = one(&memory).await;
    assert!(used.value < 0.5, "{used:?}");
    assert!(field(&used, "used_bytes").as_u64().unwrap() > 32 << 20, "{used:?}");
    let cpu = signal(&stack, "measure: cpu");
    assert_eq!(read(&*cpu).await, Reading::Empty, "it takes two");
    until("a share", async || matches!(read(&*cpu).await, Reading::Samples(_))).await;
    stack.engine.says(&["stop", "-t", "1", &stack.id()]);
    assert_eq!(read(&*memory).await, Reading::Empty, "no share of nothing");
    assert_eq!(read(&*cpu).await, Reading::Empty);
}

/// RF05: both outputs, a window, how many lines were seen, and silence is no good news.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf05_lines_of_both_outputs_are_counted() {
    let stack = Stack::deployed(With::New, &api("shop/api:v1").env("EXIT: \"3\"").unchecked());
    let errors = signal(&stack, "measure: log\npattern: level=error\nwindow: 5m");
    until("its last line", async || {
        matches!(read(&*errors).await, Reading::Samples(_)) && one(&errors).await.value == 1.0
    })
    .await;
    let counted = one(&errors).await;
    assert_eq!(
        (counted.value, counted.n, field(&counted, "lines")),
        (1.0, Some(2.0), 2.into()),
        "one is on standard error"
    );
    let none = signal(&stack, "measure: log\npattern: level=fatal\nwindow: 5m");
    assert_eq!(one(&none).await.value, 0.0, "lines were seen");
    stack.engine.says(&["rm", "--force", &stack.id()]);
    assert_eq!(read(&*errors).await, Reading::Empty, "nothing written is neither good nor bad news");
}
