//! Rollbacks asked for by a person.

use crate::bed::Bed;

#[test]
fn the_plan_is_shown_with_its_prices_and_changes_nothing() {
    let bed = Bed::new().with_two_releases();
    let ran = bed.run(&["rollback", "--dry-run"]);
    insta::assert_snapshot!(bed.masked(&ran));
    let plan = bed.run(&["plan"]);
    assert_eq!(bed.masked(&plan), bed.masked(&ran), "`plan` is the same");
    assert_eq!(bed.live(), "1.1.0");
}

#[test]
fn nobody_said_yes() {
    let bed = Bed::new().with_two_releases();
    let ran = bed.run(&["rollback"]);
    assert_eq!((ran.code, bed.live().as_str()), (Some(4), "1.1.0"), "{ran:#?}");
    assert!(ran.err.contains("add `--yes`"), "{ran:#?}");
}

#[test]
fn a_yes_takes_it_back() {
    let bed = Bed::new().with_two_releases();
    let ran = bed.run(&["rollback", "--yes", "--reason", "customers complain"]);
    insta::assert_snapshot!(bed.masked(&ran));
    assert_eq!(bed.live(), "1.0.0");
    let nothing = bed.run(&["rollback", "--to", "1.0.0", "--yes"]);
    assert_eq!(nothing.code, Some(3), "{nothing:#?}");
    assert!(bed.ok(&["log"]).contains("customers complain"));
}

#[test]
fn with_json_the_outcome_is_the_result_and_nothing_else() {
    let bed = Bed::new().with_two_releases();
    let plan = bed.json(&["rollback", "--dry-run"]);
    assert_eq!((&plan["target"]["version"], &plan["ladder"][0]["chosen"]), (&"1.0.0".into(), &true.into()));
    let outcome = bed.json(&["rollback", "--yes", "--no-watch"]);
    assert_eq!(outcome["to"], "1.0.0");
    assert!(outcome["state"]["watching"]["until"].is_string(), "{outcome:#}");
    assert_eq!(outcome["plan"], plan["digest"], "the plan shown is the plan run");
}

#[test]
fn only_what_is_in_scope_goes_back() {
    let bed = Bed::new().with_two_releases();
    bed.write("flags.json", "{\"max\": 5}\n");
    let ran = bed.run(&["rollback", "--scope", "flags", "--yes"]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!((bed.read("flags.json").as_str(), bed.live().as_str()), ("{\"max\": 20}\n", "1.1.0"));
}

#[test]
fn a_level_that_has_nothing_to_do_is_passed_over_unless_it_was_named() {
    let bed = Bed::new().with_two_releases();
    let ladder = "\nstrategies:\n  standard:\n    - { level: 1, name: flags, restore: [flags] }\n    - { level: 2, name: all, restore: versioned }\n";
    bed.write("ripcord.yaml", &format!("{}{ladder}", bed.read("ripcord.yaml")));
    let named = bed.run(&["rollback", "--level", "1", "--yes"]);
    assert_ne!(named.code, Some(0), "{named:#?}");
    assert_eq!(bed.live(), "1.1.0");
    let ran = bed.run(&["rollback", "--yes"]);
    assert_eq!((ran.code, bed.live().as_str()), (Some(0), "1.0.0"), "{ran:#?}");
    assert!(ran.err.contains("level 1 (flags) is passed over"), "{ran:#?}");
}

#[test]
fn a_rollback_can_be_undone() {
    let bed = Bed::new().with_two_releases();
    let outcome = bed.json(&["rollback", "--yes"]);
    let run = outcome["run"].as_str().unwrap();
    assert_eq!(bed.live(), "1.0.0");
    let shown = bed.ok(&["undo", run, "--dry-run"]);
    assert!(shown.contains(&format!("undo of {run}")), "{shown}");
    let undone = bed.run(&["undo", run, "--yes"]);
    assert_eq!((undone.code, bed.live().as_str()), (Some(0), "1.1.0"), "{undone:#?}");
}

#[test]
fn what_cannot_be_a_target_is_refused_with_what_to_do() {
    let bed = Bed::new();
    let nothing = bed.run(&["rollback", "--yes"]);
    insta::assert_snapshot!("no_target_is_recorded", bed.masked(&nothing));
    let bed = bed.with_two_releases();
    let unknown = bed.run(&["rollback", "--to", "9.9.9", "--yes"]);
    assert_eq!(unknown.code, Some(4), "{unknown:#?}");
    bed.ok(&["release", "mark", "1.0.0", "--bad", "--why", "it leaked"]);
    let quarantined = bed.run(&["rollback", "--to", "1.0.0", "--yes"]);
    assert_eq!(quarantined.code, Some(4), "{quarantined:#?}");
    assert!(quarantined.err.contains("it leaked"), "{quarantined:#?}");
    let level = bed.run(&["rollback", "--level", "7", "--yes"]);
    assert_eq!(level.code, Some(2), "{level:#?}");
}

#[test]
fn status_says_whether_one_can_go_back() {
    let bed = Bed::new();
    bed.ok(&["release", "record", "1.0.0"]);
    assert_eq!(bed.json(&["status"])["back"]["answer"], "no");
    let bed = bed.with_two_releases();
    let status = bed.run(&["status"]);
    insta::assert_snapshot!(bed.masked(&status));
    let live = bed.run(&["status", "--live"]);
    assert!(live.out.contains("seen to be all there"), "{live:#?}");
    // The release directory is gone, and so is its capture's word for it: only a look tells.
    std::fs::remove_dir_all(bed.path("releases/1.0.0")).unwrap();
    let gone = bed.json(&["status", "--live"]);
    assert_eq!(gone["seen"]["places"][0]["place"], "code");
}
