//! A restore that is killed on its way, and resumed: at each of our own effects, and at each thing that happens in the Engine.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ripcord_core::{Action, CapturePurpose, Holds, Made, Outcome, Seen, Step};

use super::{Stack, With, api, bad, each};
use crate::contract::{Child, before, capture_step, restore_step, run_cx};
use crate::support::{proof, step};

/// After a kill: it can be told where it stands, the same key takes it to its end, and one container is left.
async fn resumed(stack: &Stack, run: u64, restore: &Step, mark: Option<String>, made: &Made, killed: &str) {
    let (component, cx) = (stack.site.component(), run_cx(run));
    let before = before(run, restore, mark);
    let holds = component.holds(&cx, restore, Some(&before)).await.holds;
    assert!(!matches!(holds, Holds::CannotTell { .. }), "killed {killed}: {holds:?}");
    if holds != Holds::Target {
        proof(component.apply(&cx, restore, &before).await);
    }
    assert_eq!(component.holds(&cx, restore, Some(&before)).await.holds, Holds::Target, "killed {killed}");
    assert_eq!(stack.site.seen().await, Seen::At(made.revision.clone()), "killed {killed}");
    assert_eq!(stack.ids("api").len(), 1, "killed {killed}");
    proof(stack.site.apply(run, &step("start", Action::Start)).await);
    assert_eq!(stack.version().as_deref(), Some("v1"), "killed {killed}");
    assert_eq!(stack.leftovers(), Vec::<String>::new(), "killed {killed}");
    let name = stack.inspect(&stack.id(), "{{.Name}}");
    let odd =
        name.trim_start_matches('/').split('_').next().is_some_and(|first| first.len() == 12 && !first.contains('-'));
    assert!(!odd, "killed {killed}: `{name}` is a name of Compose's own half way");
}

/// The good state captured, and how it is come back to.
async fn captured(stack: &Stack) -> (Step, Made) {
    let (id, made) = stack.site.capture(1).await;
    (restore_step(&id, &made), made)
}

async fn rf15_killed_at_any_effect_of_ours_it_converges(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1"));
    let (restore, made) = captured(&stack).await;
    for at in 1..40 {
        let run = 100 + u64::from(at);
        stack.deploy(&bad());
        proof(stack.site.apply(run, &step("stop", Action::Stop)).await);
        let mark = stack.site.component().holds(&run_cx(run), &restore, None).await.mark;
        let through = stack.site.in_child(run, &restore, &Child { kill_at: Some(at), ..Child::default() }).is_some();
        resumed(&stack, run, &restore, mark, &made, &format!("at {at}")).await;
        if through {
            assert!(at > 4, "the step has places to be killed at");
            return;
        }
    }
    panic!("the child never got through");
}

/// Compose is killed too, and with it whatever it was in the middle of: containers under odd names, made and not started.
async fn rf15_killed_at_any_event_of_the_engine_it_converges(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1"));
    let (restore, made) = captured(&stack).await;
    // While it runs, so that there is most to be half way through.
    // Each round of the older one takes seconds.
    for nth in (1..30).step_by(if with == With::Old { 2 } else { 1 }) {
        let run = 200 + nth;
        stack.deploy(&bad());
        let mark = stack.site.component().holds(&run_cx(run), &restore, None).await.mark;
        let killed = killed_at(&stack, run, &restore, nth);
        resumed(&stack, run, &restore, mark, &made, &format!("at event {nth}")).await;
        if !killed {
            assert!(nth > 4, "there are events to be killed at");
            return;
        }
    }
    panic!("the child never got through");
}

/// Runs the step in a process of its own and kills it at the n-th event of the service's containers. Whether it was killed.
fn killed_at(stack: &Stack, run: u64, restore: &Step, nth: u64) -> bool {
    let filters = [
        format!("label=com.docker.compose.project={}", stack.project),
        "label=com.docker.compose.service=api".to_owned(),
        "type=container".to_owned(),
    ];
    let mut events = Command::new("docker");
    events.env("DOCKER_HOST", stack.engine.endpoint()).args(["events", "--format", "{{.Action}}"]);
    filters.iter().for_each(|filter| {
        events.args(["--filter", filter]);
    });
    let mut events = events.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let task = serde_json::json!({
        "dir": stack.site.dir.path(), "kind": "compose", "yaml": stack.yaml, "run": run, "step": restore,
    });
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["contract::child", "--exact", "--nocapture"]).env("CONTRACT_CHILD", task.to_string());
    let child = child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let counted = std::thread::spawn(move || {
        let what =
            lines.map_while(Result::ok).filter(|line| !line.starts_with("exec_") && !line.starts_with("health_"));
        if what.take(usize::try_from(nth).unwrap()).count() == usize::try_from(nth).unwrap() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    let through = String::from_utf8_lossy(&output.stdout).contains("OUTCOME ");
    events.kill().unwrap();
    events.wait().unwrap();
    counted.join().unwrap();
    !through
}

async fn a_capture_killed_anywhere_is_made_again(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1"));
    let capture = capture_step(CapturePurpose::Protective);
    for at in 1..40 {
        let run = 100 + u64::from(at);
        let outcome = stack.site.in_child(run, &capture, &Child { kill_at: Some(at), ..Child::default() });
        assert_eq!(stack.version().as_deref(), Some("v1"), "killed at {at}");
        let through = outcome.is_some();
        let done = match outcome {
            Some(outcome) => proof(outcome),
            None => proof(stack.site.apply(run, &capture).await),
        };
        assert_eq!(stack.site.seen().await, Seen::At(done.capture.unwrap().revision));
        if through {
            assert!(at > 2, "the step has places to be killed at");
            return;
        }
    }
    panic!("the child never got through");
}

async fn two_at_once_end_where_one_does(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1"));
    let (restore, made) = captured(&stack).await;
    stack.deploy(&bad());
    let elsewhere = stack.under(&stack.yaml);
    let (one, other) = tokio::join!(stack.site.apply(2, &restore), stack.site.apply(3, &restore));
    for outcome in [&one, &other] {
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }
    assert_eq!(stack.site.seen().await, Seen::At(made.revision.clone()));
    assert_eq!(stack.ids("api").len(), 1);
    // From another place, which shares no lock: it finds it done.
    proof(elsewhere.apply(4, &restore).await);
    assert_eq!(stack.site.seen().await, Seen::At(made.revision));
    assert_eq!(stack.version().as_deref(), Some("v1"));
}

each! {
    rf15_killed_at_any_effect_of_ours_it_converges
    rf15_killed_at_any_event_of_the_engine_it_converges
    a_capture_killed_anywhere_is_made_again
    two_at_once_end_where_one_does
}
