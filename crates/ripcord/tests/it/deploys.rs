//! Deployments around a command: good, bad, failing, kept out.

use crate::bed::{Bed, CONFIG, is_gone, until};

#[test]
fn a_release_that_stays_well_bakes_to_good() {
    let bed = Bed::new();
    let ran = bed.deploy("1.1.0");
    insta::assert_snapshot!(bed.masked(&ran));
    let list = bed.json(&["release", "list"]);
    let line = |n: usize, key: &str| list["releases"][n][key].as_str().map(str::to_owned);
    assert_eq!((line(0, "version"), line(0, "standing")), (Some("1.1.0".into()), Some("live".into())));
    assert_eq!(line(1, "version").as_deref(), Some("before-1.1.0"), "what was there before is on record");
}

#[test]
fn a_release_that_goes_bad_is_taken_back_without_anybody() {
    let bed = Bed::with(&CONFIG.replace("bake: 600ms", "bake: 60s")).with_two_releases();
    bed.ok(&["release", "mark", "1.1.0", "--good", "--why", "it was watched too"]);
    let ran = bed.deploy_bad();
    assert_eq!(ran.code, Some(6), "{ran:#?}");
    assert_eq!(bed.live(), "1.1.0");
    insta::assert_snapshot!(bed.masked(&bed.run(&["release", "list"])));
    // What it was taken back for can be derived again.
    let trigger = bed.run(&["explain", "broken"]);
    assert!(trigger.code == Some(0) && trigger.out.contains("again by engine"), "{trigger:#?}");
    let runs = bed.json(&["status"]);
    assert!(runs["run"].is_null() && runs["incident"].is_null(), "nothing is left open: {runs:#}");
    // And the bad version is kept out, by the deployment and for a pipeline, until somebody lets it in.
    let again = bed.deploy("2.0.0");
    assert_eq!(again.code, Some(4), "{again:#?}");
    let check = bed.run(&["release", "check", "2.0.0"]);
    insta::assert_snapshot!("a_version_kept_out", bed.masked(&check));
    bed.ok(&["release", "lift", "2.0.0", "--why", "it was the wrong page"]);
    assert_eq!(bed.run(&["release", "check", "2.0.0"]).code, Some(0));
}

#[test]
fn a_command_that_fails_and_changes_nothing_leaves_everything_as_it_was() {
    let bed = Bed::new();
    assert_eq!(bed.deploy("1.0.0").code, Some(0));
    let ran = bed.run(&["deploy", "--version", "1.1.0", "--", "sh", "-c", "echo cannot >&2; exit 3"]);
    assert_eq!(ran.code, Some(8), "{ran:#?}");
    assert!(ran.err.contains("cannot\n"), "what the command says is seen: {ran:#?}");
    assert!(ran.out.contains("ended with exit status: 3"), "{ran:#?}");
    assert_eq!(bed.json(&["status"])["live"]["version"], "1.0.0");
}

#[test]
fn a_command_that_fails_half_way_needs_a_person() {
    let bed = Bed::new();
    assert_eq!(bed.deploy("1.0.0").code, Some(0));
    let ran = bed.run(&["deploy", "--version", "1.1.0", "--", "sh", "-c", "ln -sfn releases/1.1.0 current; exit 1"]);
    assert_eq!(ran.code, Some(5), "{ran:#?}");
    assert!(ran.out.contains("changed: `code`"), "{ran:#?}");
    // And it can be taken back at once.
    let back = bed.run(&["rollback", "--yes"]);
    assert_eq!((back.code, bed.live().as_str()), (Some(0), "1.0.0"), "{back:#?}");
}

#[test]
fn a_command_that_is_not_there_is_said_to_be() {
    let bed = Bed::new();
    let ran = bed.run(&["deploy", "--version", "1.1.0", "--", "no-such-command"]);
    assert_eq!(ran.code, Some(8), "{ran:#?}");
    assert!(ran.out.contains("`no-such-command` could not be started"), "{ran:#?}");
}

#[test]
fn without_triggers_nothing_is_called_good() {
    let bed = Bed::with(
        "application: shop\ncomponents:\n  code: { directory: { path: current, releases: releases } }\npolicy: { bake: 50ms }\n",
    );
    let ran = bed.deploy("1.1.0");
    insta::assert_snapshot!(bed.masked(&ran));
    assert_eq!(bed.live(), "1.1.0");
}

#[test]
fn an_interrupt_ends_the_command_with_all_it_started() {
    let bed = Bed::new();
    assert_eq!(bed.deploy("1.0.0").code, Some(0));
    let running = bed.start(&["deploy", "--version", "1.1.0", "--", "sh", "-c", "sleep 600 & echo $! > pid; wait"]);
    until("the command runs", || bed.path("pid").exists() && !bed.read("pid").trim().is_empty());
    running.signal(rustix::process::Signal::INT);
    let ran = running.ended();
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    assert!(
        ran.err.contains("everything is as it was before") || ran.err.contains("everything is as it was"),
        "{ran:#?}"
    );
    assert!(is_gone(bed.read("pid").trim()), "what it started is ended too");
}

#[test]
fn status_says_who_deploys_while_it_does() {
    let bed = Bed::new();
    let script = "until [ -e go ]; do sleep 0.02; done; ln -sfn releases/1.1.0 current";
    let running = bed.start(&["deploy", "--version", "1.1.0", "--", "sh", "-c", script]);
    until("it deploys", || {
        let ran = bed.run(&["--json", "status"]);
        ran.out.contains("\"deploying\"")
    });
    let status = bed.run(&["status"]);
    assert!(status.out.contains("ripcord deploy 1.1.0"), "{status:#?}");
    // A second deployment does not push it aside while its command runs.
    bed.write("go", "");
    assert_eq!(running.ended().code, Some(0));
}

#[test]
fn a_bake_that_was_cut_off_is_shown_and_taken_up_by_whoever_watches() {
    let bed = Bed::with(&CONFIG.replace("bake: 600ms", "bake: 5s"));
    let script = "ln -sfn releases/1.1.0 current";
    let deploying = bed.start(&["deploy", "--version", "1.1.0", "--", "sh", "-c", script]);
    until("it bakes", || bed.json(&["status"])["baking"]["carried_on"] == true);
    assert!(bed.ok(&["status"]).contains("baking    since "));
    deploying.signal(rustix::process::Signal::KILL);
    deploying.ended();
    until("its lease is free", || bed.json(&["status"])["holder"].is_null());
    let status = bed.ok(&["status"]);
    assert!(status.contains("cut off; `ripcord watch` bakes it anew"), "{status}");
    let watch = bed.start(&["watch"]);
    until("it is judged", || !bed.json(&["status"])["live"]["verdict"]["good"].is_null());
    watch.signal(rustix::process::Signal::TERM);
    assert_eq!(watch.ended().code, Some(0));
    assert!(bed.json(&["status"])["baking"].is_null());
}
