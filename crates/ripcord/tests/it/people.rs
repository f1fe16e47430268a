//! What people do: watch, approve, decline, declare, close.

use crate::bed::{Bed, CONFIG, Running, until};

/// An outage waits for a person.
fn asking() -> Bed {
    let config = CONFIG.replace("approve: automatic", "approve: { quorum: 1 }").replace(", automatic: true", "");
    Bed::with(&config).with_two_releases()
}

fn watching(bed: &Bed) -> Running {
    let watch = bed.start(&["watch"]);
    until("somebody watches", || bed.json(&["status"])["holder"]["doing"] == "ripcord watch");
    watch
}

fn waiting(bed: &Bed) -> String {
    until("a run waits", || bed.json(&["status"])["run"]["state"] == "waiting");
    bed.json(&["status"])["run"]["run"].as_str().unwrap().to_owned()
}

#[test]
fn what_one_process_proposes_another_approves_and_follows() {
    let bed = asking();
    let watch = watching(&bed);
    bed.breaks();
    let run = waiting(&bed);
    let plan = bed.run(&["plan", &run]);
    assert!(plan.code == Some(0) && plan.out.contains("restore"), "{plan:#?}");
    // Not without a yes, and not for another plan.
    assert_eq!(bed.run(&["approve", &run]).code, Some(4));
    assert_eq!(bed.run(&["approve", &run, "--yes", "--plan", "0123456789ab"]).code, Some(4));
    let approved = bed.run(&["approve", &run, "--yes", "--reason", "go"]);
    assert_eq!((approved.code, bed.live().as_str()), (Some(0), "1.0.0"), "{approved:#?}");
    assert!(approved.err.contains("does the work; this follows"), "{approved:#?}");
    assert!(approved.err.contains("done restore/code"), "the other's steps are seen: {approved:#?}");
    watch.signal(rustix::process::Signal::INT);
    let watched = watch.ended();
    assert_eq!(watched.code, Some(0), "{watched:#?}");
    assert!(watched.out.contains("is breached") && watched.out.contains("succeeded"), "{watched:#?}");
}

#[test]
fn a_run_that_is_declined_is_not_carried_out() {
    let bed = asking();
    let watch = watching(&bed);
    bed.breaks();
    let run = waiting(&bed);
    let declined = bed.run(&["decline", &run, "--reason", "it is not the release"]);
    assert_eq!((declined.code, bed.live().as_str()), (Some(0), "1.1.0"), "{declined:#?}");
    let again = bed.run(&["approve", &run, "--yes"]);
    assert_eq!(again.code, Some(4), "{again:#?}");
    drop(watch);
}

#[test]
fn an_approval_finds_nobody_at_work_and_works_itself() {
    let bed = asking();
    let watch = watching(&bed);
    bed.breaks();
    let run = waiting(&bed);
    watch.signal(rustix::process::Signal::TERM);
    assert_eq!(watch.ended().code, Some(0));
    let approved = bed.run(&["approve", &run, "--yes"]);
    assert_eq!((approved.code, bed.live().as_str()), (Some(0), "1.0.0"), "{approved:#?}");
}

#[test]
fn a_watch_lets_a_deployment_have_the_lease_and_takes_it_again() {
    let bed = asking();
    let watch = watching(&bed);
    let deployed = bed.deploy("1.2.0");
    assert_eq!(deployed.code, Some(0), "{deployed:#?}");
    assert!(deployed.err.contains("to let go of the lease"), "{deployed:#?}");
    until("it watches again", || bed.json(&["status"])["holder"]["doing"] == "ripcord watch");
    drop(watch);
}

#[test]
fn a_declared_incident_is_decided_on_and_closed() {
    let bed = asking();
    let declared = bed.run(&["declare", "customers cannot pay", "--severity", "p1", "--issue", "payments"]);
    assert_eq!(declared.code, Some(0), "{declared:#?}");
    assert!(declared.out.contains("open at P1"), "{declared:#?}");
    let status = bed.ok(&["status"]);
    assert!(status.contains("customers cannot pay"), "{status}");
    let unknown = bed.run(&["declare", "x", "--severity", "p9"]);
    assert!(unknown.code == Some(2) && unknown.err.contains("p0, p1"), "{unknown:#?}");
    bed.ok(&["incident", "close", "--why", "it was the bank"]);
    assert!(bed.ok(&["incident", "list"]).contains("closed"));
    assert_eq!(bed.run(&["incident", "close", "--why", "again"]).code, Some(3));
}

#[test]
fn a_declared_outage_is_taken_back_by_whoever_declares_it() {
    let bed = Bed::new().with_two_releases();
    let declared = bed.run(&["declare", "the page is blank", "--severity", "p0", "--issue", "outage"]);
    assert_eq!((declared.code, bed.live().as_str()), (Some(0), "1.0.0"), "{declared:#?}");
}

#[test]
fn a_deployment_that_goes_bad_where_people_decide_ends_as_refused() {
    let bed = asking();
    let long = bed.read("ripcord.yaml").replace("bake: 600ms", "bake: 60s");
    bed.write("ripcord.yaml", &long);
    let deployed = bed.deploy_bad();
    assert_eq!((deployed.code, bed.live().as_str()), (Some(4), "2.0.0"), "{deployed:#?}");
    assert!(deployed.err.contains("ripcord approve run-"), "{deployed:#?}");
    let approved = bed.run(&["approve", "--yes"]);
    assert_eq!((approved.code, bed.live().as_str()), (Some(0), "1.0.0"), "{approved:#?}");
}
