//! Commands on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use ripcord_adapters::hosts::Local;
use ripcord_core::{Command, Host, HostError, SecretRef};

use crate::support::{Bench, runs, until};

fn sh(script: &str) -> Command {
    Command { argv: ["sh", "-c", script].map(str::to_owned).to_vec(), ..Command::default() }
}

fn local(bench: &Bench) -> Local {
    Local::new(bench.dir.path(), bench.redactor.clone())
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_command_gives_its_output_and_its_exit_code() {
    let bench = Bench::new();
    let mut command = sh("cat; echo \"$PWD $A\" >&2; exit 3");
    command.input = Some(b"hello".to_vec());
    command.environment = BTreeMap::from([("A".to_owned(), "b c".to_owned())]);
    let output = local(&bench).run(&command, LONG).await.unwrap();
    assert_eq!((output.status, output.stdout.as_str(), output.cut), (Some(3), "hello", false));
    let here = bench.dir.path().canonicalize().unwrap();
    assert_eq!(output.stderr, format!("{} b c\n", here.display()));
}

#[tokio::test]
async fn no_shell_reads_an_argument() {
    let bench = Bench::new();
    let argv = ["printf", "%s|", "$HOME", "a b", "*", "'; touch x"].map(str::to_owned).to_vec();
    let output = local(&bench).run(&Command { argv, ..Command::default() }, LONG).await.unwrap();
    assert_eq!(output.stdout, "$HOME|a b|*|'; touch x|");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let bench = Bench::new();
    let why = async |command: &Command| match local(&bench).run(command, LONG).await.unwrap_err() {
        HostError::NotStarted { why, .. } => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(&Command::default()).await, "the command is empty");
    let absent = Command { argv: vec!["surely-no-such-program".to_owned()], ..Command::default() };
    assert!(why(&absent).await.contains("No such file"));
    let nowhere = Command { directory: Some("nowhere".into()), ..sh("true") };
    assert!(why(&nowhere).await.starts_with("its directory `"));
    let secret = Command { secrets: [("T".to_owned(), SecretRef::File("no".into()))].into(), ..sh("true") };
    assert!(why(&secret).await.starts_with("the secret in file `no` cannot be read"));
}

#[tokio::test]
async fn at_its_limit_the_whole_group_is_ended() {
    let bench = Bench::new();
    // Neither the command nor its child minds being asked.
    let command = sh(
        "trap '' TERM; (trap '' TERM; echo $$ > inner; while :; do sleep 0.05; done) & echo $! > child; echo begun; \
                      while :; do sleep 0.05; done",
    );
    let error = local(&bench).run(&command, Duration::from_millis(300)).await.unwrap_err();
    let HostError::TimedOut { program, so_far, .. } = error else { panic!("{error:?}") };
    assert_eq!((program.as_str(), so_far.as_str()), ("sh", "begun\n"));
    let child = bench.read("child");
    until("the child's end", || async { !runs(&child) }).await;
}

#[tokio::test]
async fn asked_to_end_it_may_tidy_up() {
    let bench = Bench::new();
    let command = sh("trap 'echo tidy > tidied; exit 0' TERM; echo begun; while :; do sleep 0.02; done");
    let error = local(&bench).run(&command, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, HostError::TimedOut { .. }), "that it ended well then does not make it done: {error:?}");
    assert_eq!(bench.read("tidied"), "tidy\n");
}

#[tokio::test]
async fn when_nobody_waits_any_more_it_is_ended() {
    let bench = Bench::new();
    let command = sh("trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done");
    let host = local(&bench);
    let running = host.run(&command, LONG);
    let begun = async {
        until("its start", || async { fs::read_to_string(bench.path("pid")).is_ok_and(|t| t.ends_with('\n')) }).await
    };
    tokio::select! {
        _ = running => panic!("it ended"),
        () = begun => {}
    }
    let pid = bench.read("pid");
    until("its end", || async { !runs(&pid) }).await;
}

#[tokio::test]
async fn what_a_command_leaves_running_delays_nobody_and_lives_on() {
    let bench = Bench::new();
    let output = local(&bench).run(&sh("sleep 30 & echo $! > pid; echo started"), LONG).await.unwrap();
    assert_eq!(output.stdout, "started\n");
    assert!(output.took < Duration::from_secs(20));
    let pid = bench.read("pid");
    assert!(runs(&pid));
    std::process::Command::new("kill").arg(pid.trim()).status().unwrap();
}

#[tokio::test]
async fn a_flood_of_output_is_bounded() {
    let bench = Bench::new();
    let output = local(&bench).run(&sh("yes 0123456789 | head -c 5000000; echo the end"), LONG).await.unwrap();
    assert!(output.cut && output.stdout.len() < 300_000);
    assert!(output.stdout.starts_with("0123456789\n") && output.stdout.ends_with("the end\n"));
}

#[tokio::test]
async fn input_that_is_not_read_harms_nobody() {
    let bench = Bench::new();
    let command = Command { input: Some(vec![b'x'; 1 << 20]), ..sh("exit 0") };
    assert!(local(&bench).run(&command, LONG).await.unwrap().succeeded());
}

#[tokio::test]
async fn rf29_a_secret_reaches_the_command_and_nothing_else() {
    let bench = Bench::new();
    bench.secret("token", "canary-9c2e71");
    let mut command = sh("echo \"it is $TOKEN\"; printf %s \"$TOKEN\" | base64 >&2; printf %s \"$TOKEN\" > got; \
                          tr '\\0' ' ' < /proc/$$/cmdline > cmdline; exit 1");
    command.secrets = BTreeMap::from([("TOKEN".to_owned(), SecretRef::File("token".into()))]);
    let output = local(&bench).run(&command, LONG).await.unwrap();
    assert_eq!(bench.read("got"), "canary-9c2e71");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("it is [redacted]\n", "[redacted]\n"));
    assert!(!bench.read("cmdline").contains("canary"));
    assert!(!format!("{output:?} {command:?} {:?}", local(&bench)).contains("canary"));
    let slow = Command { argv: sh("echo $TOKEN; sleep 9").argv, ..command };
    let error = local(&bench).run(&slow, Duration::from_millis(300)).await.unwrap_err();
    let text = format!("{error:?} {error}");
    assert!(text.contains("[redacted]") && !text.contains("canary"), "{text}");
}

/// Runs itself again with a variable set, because a test cannot set one for itself alone.
#[tokio::test]
async fn rf29_ripcord_s_own_secrets_are_not_inherited() {
    if std::env::var("RIPCORD_CANARY").is_err() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "hosts::rf29_ripcord_s_own_secrets_are_not_inherited"]);
        let output = again.env("RIPCORD_CANARY", "canary-1").env("OTHER", "kept").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let bench = Bench::new();
    let mut command = sh("echo \"${RIPCORD_CANARY-none} $OTHER $RIPCORD_KEY\"");
    command.environment = BTreeMap::from([("RIPCORD_KEY".to_owned(), "k".to_owned())]);
    assert_eq!(local(&bench).run(&command, LONG).await.unwrap().stdout, "none kept k\n");
}
