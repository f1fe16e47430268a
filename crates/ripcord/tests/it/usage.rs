//! Help, mistakes, and what is made from the program itself.

use crate::bed::Bed;

#[test]
fn help_lists_the_commands_and_the_exit_codes() {
    let bed = Bed::new();
    insta::assert_snapshot!(bed.masked(&bed.run(&["--help"])));
}

#[test]
fn bad_usage_ends_with_two() {
    let bed = Bed::new();
    for args in
        [&["no-such-command"][..], &["rollback", "--level", "x"], &["deploy", "--version", "1"], &["shop", "sell"]]
    {
        assert_eq!(bed.run(args).code, Some(2), "{args:?}");
    }
}

#[test]
fn a_mistake_in_the_configuration_is_shown_with_its_line() {
    let bed = Bed::with("application: shop\ncomponents:\n  code: { directory: { pth: current } }\n");
    let ran = bed.run(&["status"]);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(ran.err.contains("ripcord.yaml:3:"), "{ran:#?}");
    assert!(ran.err.contains("did you mean `path`?"), "{ran:#?}");
    let check = bed.run(&["check", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&check.out).unwrap();
    assert_eq!(
        (check.code, &found["ok"], &found["report"]["diagnostics"][0]["spot"]["line"]),
        (Some(2), &false.into(), &3.into())
    );
}

#[test]
fn without_a_configuration_the_way_to_one_is_said() {
    let bed = Bed::new();
    std::fs::remove_file(bed.path("ripcord.yaml")).unwrap();
    let ran = bed.run(&["status"]);
    insta::assert_snapshot!(bed.masked(&ran));
    let init = bed.run(&["init", "--name", "shop"]);
    assert_eq!(init.code, Some(0), "{init:#?}");
    let checked = bed.run(&["check", "--live"]);
    assert_eq!(checked.code, Some(0), "{checked:#?}");
    let found: Vec<_> = ["code", "settings", "flags"].iter().filter(|name| checked.out.contains(**name)).collect();
    assert_eq!(found.len(), 3, "{checked:#?}");
    assert_eq!(bed.run(&["init"]).code, Some(4), "nothing is overwritten");
}

#[test]
fn the_configuration_is_found_from_below() {
    let bed = Bed::new();
    let ran = bed.command(&["check"]).current_dir(bed.path("releases/1.0.0")).output().unwrap();
    assert!(ran.status.success());
}

#[test]
fn the_state_goes_where_it_is_told() {
    let bed = Bed::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let state = elsewhere.path().join("state");
    let ran = bed.command(&["release", "record", "1.0.0"]).env("RIPCORD_STATE", &state).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert!(state.join("ripcord.db").exists() && state.join("vault").exists() && !bed.path(".ripcord").exists());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&state).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn check_looks_at_everything_there_is() {
    let bed = Bed::new();
    let well = bed.run(&["check", "--live"]);
    assert_eq!(well.code, Some(0), "{well:#?}");
    std::fs::remove_file(bed.path("current")).unwrap();
    std::fs::write(bed.path("current"), "not a link").unwrap();
    let broken = bed.run(&["check", "--live"]);
    assert_eq!(broken.code, Some(8), "{broken:#?}");
}

#[test]
fn checks_are_run_by_hand() {
    let verify =
        "verify:\n  open:\n    - { name: front-page, command: { run: [grep, -q, page, current/page] }, within: 1s }\n";
    let bed = Bed::with(&(crate::bed::CONFIG.to_owned() + verify));
    let passed = bed.run(&["verify"]);
    assert_eq!(passed.code, Some(0), "{passed:#?}");
    bed.switch("2.0.0");
    let failed = bed.run(&["verify"]);
    assert_eq!(failed.code, Some(8), "{failed:#?}");
    assert!(failed.out.contains("front-page"), "{failed:#?}");
}

#[test]
fn schema_reference_completions_and_manual_are_made_from_the_program() {
    let bed = Bed::new();
    let schema: serde_json::Value = serde_json::from_str(&bed.ok(&["schema"])).unwrap();
    assert!(schema["properties"]["components"].is_object(), "{schema:#}");
    assert_eq!(
        bed.ok(&["reference"]).trim_end(),
        include_str!("../../../../docs/configuration.md").trim_end(),
        "write it anew: `ripcord reference > docs/configuration.md`"
    );
    for shell in ["bash", "zsh", "fish"] {
        assert!(bed.ok(&["completions", shell]).contains("rollback"), "{shell}");
    }
    assert!(bed.ok(&["man"]).contains(".TH ripcord"));
    bed.ok(&["man", "--dir", "pages"]);
    assert!(bed.path("pages/ripcord-rollback.1").exists());
}

#[test]
fn an_error_for_a_program_is_json() {
    let bed = Bed::new();
    let ran = bed.run(&["--json", "report", "run-1"]);
    let error: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(error["state"], "nothing was changed");
    assert_eq!(ran.out, "");
}

#[test]
fn a_check_against_the_baseline_is_run_by_hand_against_what_was_normal_before_the_release() {
    // The figure is how many lines the page has: one is normal.
    let signal = "  lines: { command: { run: [sh, -c, \"wc -l < current/page\"], measure: number }, every: 100ms }\n";
    let verify =
        "verify:\n  open:\n    - { name: as-long, signal: lines, assert: value <= 2.0 * baseline, within: 1s }\n";
    let config = crate::bed::CONFIG.replace("signals:\n", &format!("signals:\n{signal}"));
    let config = config.replace(
        "triggers:\n",
        "triggers:\n  longer: { signal: lines, above: 1000, for: 1s, severity: p1, issue: long }\n",
    );
    let bed = Bed::with(&(config + verify));
    let deployed = bed.deploy("1.1.0");
    assert_eq!(deployed.code, Some(0), "{deployed:#?}");
    let passed = bed.run(&["verify"]);
    assert_eq!(passed.code, Some(0), "{passed:#?}");
    bed.write("current/page", "1\n2\n3\n");
    let failed = bed.run(&["verify"]);
    assert!(failed.code == Some(8) && failed.out.contains("as-long"), "{failed:#?}");
}
