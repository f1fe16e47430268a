use std::process::{Child, Command};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Reading, Signal};

use crate::support::{Bench, cx_at, sample, why};

struct Sleeper(Child);

impl Sleeper {
    /// Sleeps for so many seconds: that makes a command line of its own, in one process that never forks.
    fn start(bench: &Bench, seconds: &str) -> Self {
        let child = Command::new("sleep").arg(seconds).spawn().unwrap();
        bench.write("run.pid", &format!("{}\n", child.id()));
        Self(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn at(signal: &dyn Signal, second: i64) -> Reading {
    let now = Timestamp::from_second(1_700_000_000 + second).unwrap();
    signal.read(&cx_at(now, Duration::from_secs(10))).await
}

#[tokio::test]
async fn a_process_runs_or_not_and_its_restarts_are_seen() {
    let bench = Bench::new();
    let failing = bench.signal("process", "pid-file: run.pid");
    let restarts = bench.signal("process", "pid-file: run.pid\nname: sleep\nmeasure: restarts\nwindow: 1h");
    assert_eq!(sample(at(&*failing, 0).await).value, 1.0, "no pid file, no process");
    let first = Sleeper::start(&bench, "600");
    assert_eq!(sample(at(&*failing, 1).await).value, 0.0);
    assert_eq!(sample(at(&*restarts, 1).await).value, 0.0, "what was there at first was not restarted");
    drop(first);
    assert_eq!(sample(at(&*failing, 2).await).value, 1.0);
    assert_eq!(sample(at(&*restarts, 2).await).value, 0.0);
    let second = Sleeper::start(&bench, "600");
    assert_eq!(sample(at(&*restarts, 3).await).value, 1.0);
    assert_eq!(sample(at(&*restarts, 4).await).value, 1.0);
    assert_eq!(sample(at(&*restarts, 4_000).await).value, 0.0, "out of the window");
    drop(second);
    bench.write("run.pid", "not a number");
    assert!(why(at(&*failing, 5).await).contains("holds no process number"));
}

#[tokio::test]
async fn a_zombie_and_a_number_given_again_do_not_run() {
    let bench = Bench::new();
    let mut child = Command::new("true").spawn().unwrap();
    bench.write("run.pid", &child.id().to_string());
    let signal = bench.signal("process", "pid-file: run.pid");
    crate::support::until("the zombie", || async { sample(at(&*signal, 0).await).value == 1.0 }).await;
    child.wait().unwrap();
    let _sleeper = Sleeper::start(&bench, "600");
    let other = bench.signal("process", "pid-file: run.pid\nname: nginx");
    assert_eq!(sample(at(&*other, 0).await).value, 1.0, "the number belongs to another program");
}

#[tokio::test]
async fn figures_are_those_of_all_that_match() {
    let bench = Bench::new();
    let mark = format!("600.{}", std::process::id());
    let measure = |what: &str| bench.signal("process", &format!("cmdline: '^sleep {mark}$'\nmeasure: {what}"));
    let (memory, files, cpu) = (measure("memory"), measure("open-files"), measure("cpu"));
    assert_eq!(at(&*memory, 0).await, Reading::Empty);
    let one = Sleeper::start(&bench, &mark);
    let of_one = sample(at(&*memory, 1).await).value;
    assert!(of_one > 100_000.0, "{of_one}");
    let _two = Sleeper::start(&bench, &mark);
    let both = sample(at(&*memory, 2).await);
    assert!(both.value > of_one, "{} and {of_one}", both.value);
    assert_eq!(both.fields["pids"].as_array().unwrap().len(), 2);
    assert!(sample(at(&*files, 2).await).value >= 2.0);
    assert_eq!(at(&*cpu, 1).await, Reading::Empty, "a share needs two looks");
    crate::support::until("a tick of the clock", || async {
        matches!(at(&*cpu, 2).await, Reading::Samples(samples) if (0.0..=1.0).contains(&samples[0].value))
    })
    .await;
    drop(one);
}
