//! Killed and interrupted in the middle of a rollback: whoever comes next finishes it, once.

use rustix::process::Signal;

use crate::bed::{Bed, Running, lines, until};

/// A rollback that is in the middle of restoring `rules`.
fn in_the_middle(bed: &Bed) -> Running {
    let running = bed.start(&["rollback", "--yes"]);
    until("its restore has begun", || lines(&bed.path("restores")) == 1);
    running
}

fn killed() -> Bed {
    let bed = Bed::slow().with_two_releases();
    let running = in_the_middle(&bed);
    running.signal(Signal::KILL);
    assert_eq!(running.ended().code, None);
    bed
}

fn is_back(bed: &Bed) {
    assert_eq!((bed.live().as_str(), bed.read("rules").as_str()), ("1.0.0", "one\n"));
    assert_eq!(bed.json(&["log", "verify"])["whole"], true);
}

#[test]
fn a_rollback_that_was_killed_is_gone_on_with_by_the_next() {
    let bed = killed();
    bed.write("go", "");
    let next = bed.run(&["rollback", "--yes"]);
    assert_eq!(next.code, Some(0), "{next:#?}");
    is_back(&bed);
    // One run, not two: what was begun is finished.
    let proposed = bed.ok(&["log"]).lines().filter(|line| line.contains("rollback proposed")).count();
    assert_eq!(proposed, 1);
}

#[test]
fn resume_goes_on_with_a_run_that_was_killed() {
    let bed = killed();
    bed.write("go", "");
    let resumed = bed.run(&["resume"]);
    assert_eq!(resumed.code, Some(0), "{resumed:#?}");
    is_back(&bed);
}

#[test]
fn a_watch_goes_on_with_a_run_that_was_killed() {
    let bed = killed();
    bed.write("go", "");
    let watch = bed.start(&["watch"]);
    until("the run is over", || {
        bed.json(&["status"])["run"].is_null() && bed.path("current").exists() && bed.live() == "1.0.0"
    });
    watch.signal(Signal::TERM);
    assert_eq!(watch.ended().code, Some(0));
    is_back(&bed);
}

#[test]
fn an_interrupt_lets_the_step_in_flight_finish_and_pauses() {
    let bed = Bed::slow().with_two_releases();
    let running = in_the_middle(&bed);
    running.signal(Signal::INT);
    until("it is asked to pause", || bed.ok(&["log"]).contains("paused it"));
    bed.write("go", "");
    let ran = running.ended();
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    assert_eq!(bed.read("rules"), "one\n", "the step in flight was let finish");
    let status = bed.ok(&["status"]);
    assert!(status.contains("paused") && status.contains("ripcord resume run-"), "{status}");
    let resumed = bed.run(&["resume"]);
    assert_eq!(resumed.code, Some(0), "{resumed:#?}");
    is_back(&bed);
    assert_eq!(lines(&bed.path("restores")), 1, "and was not done twice");
}

#[test]
fn a_follower_takes_the_place_of_a_holder_that_vanishes() {
    let bed = Bed::slow().with_two_releases();
    let first = in_the_middle(&bed);
    let second = bed.start(&["rollback", "--yes"]);
    first.signal(Signal::KILL);
    first.ended();
    bed.write("go", "");
    let ran = second.ended();
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    is_back(&bed);
}

#[test]
fn a_step_that_fails_parks_the_run_until_a_person_acts() {
    let bed = Bed::slow().with_two_releases();
    let failing = bed.read("ripcord.yaml").replace("echo begun >> restores;", "[ -e allowed ] || exit 3;");
    bed.write("ripcord.yaml", &failing);
    bed.write("go", "");
    let ran = bed.run(&["rollback", "--yes"]);
    assert_eq!(ran.code, Some(5), "{ran:#?}");
    assert!(ran.out.contains("PARKED") && ran.err.contains("ripcord retry run-"), "{ran:#?}");
    let still = bed.run(&["retry"]);
    assert_eq!(still.code, Some(5), "{still:#?}");
    bed.write("allowed", "");
    let retried = bed.run(&["retry"]);
    assert_eq!(retried.code, Some(0), "{retried:#?}");
    is_back(&bed);
}

#[test]
fn a_person_may_do_a_step_by_hand_skip_it_or_abandon_the_run() {
    let bed = Bed::slow().with_two_releases();
    let failing = bed.read("ripcord.yaml").replace("echo begun >> restores;", "exit 3;");
    bed.write("ripcord.yaml", &failing);
    let parked = |bed: &Bed| {
        assert_eq!(bed.run(&["rollback", "--yes"]).code, Some(5));
        bed.json(&["status"])["run"]["run"].as_str().unwrap().to_owned()
    };
    let run = parked(&bed);
    let abandoned = bed.run(&["abandon", &run, "--reason", "later"]);
    assert_eq!(abandoned.code, Some(0), "{abandoned:#?}");
    assert!(abandoned.out.contains("abandoned by"), "{abandoned:#?}");
    let run = parked(&bed);
    bed.write("rules", "one\n");
    let done = bed.run(&["done", &run, "restore/rules", "--evidence", "copied by hand"]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    is_back(&bed);
}

#[test]
fn what_a_command_asked_for_is_taken_back_by_an_interrupt() {
    let bed = Bed::slow().with_two_releases();
    let first = bed.start(&["--lease", "600s", "rollback", "--yes"]);
    until("it restores", || lines(&bed.path("restores")) == 1);
    // It stands still and answers nobody, and its lease has long to go.
    first.signal(Signal::STOP);
    let second = bed.start(&["declare", "it is slow"]);
    until("it has asked", || bed.ok(&["status"]).contains("declare: it is slow"));
    second.signal(Signal::INT);
    let ran = second.ended();
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    assert!(ran.err.contains("taking back what was asked"), "{ran:#?}");
    first.signal(Signal::KILL);
    first.ended();
    bed.write("go", "");
    let resumed = bed.run(&["resume"]);
    assert_eq!(resumed.code, Some(0), "{resumed:#?}");
    is_back(&bed);
    assert!(!bed.ok(&["incident", "list"]).contains("it is slow"));
}
