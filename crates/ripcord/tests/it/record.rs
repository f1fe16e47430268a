//! The journal, captures and documents.

use crate::bed::{Bed, until};

#[test]
fn the_journal_is_whole_until_a_byte_is_changed() {
    let bed = Bed::new().with_two_releases();
    let whole = bed.json(&["log", "verify"]);
    assert_eq!(whole["whole"], true);
    let journal = rusqlite::Connection::open(bed.path(".ripcord/ripcord.db")).unwrap();
    let changed = journal
        .execute("UPDATE event SET body = replace(body, 'it was watched', 'it was wicked!') WHERE body LIKE '%it was watched%'", [])
        .unwrap();
    assert!(changed >= 1);
    let tampered = bed.run(&["log", "verify"]);
    assert_eq!(tampered.code, Some(8), "{tampered:#?}");
    assert!(tampered.out.contains("the record was changed at event"), "{tampered:#?}");
}

#[test]
fn the_journal_reads_as_what_happened() {
    let bed = Bed::new().with_two_releases();
    let run = bed.json(&["rollback", "--yes"])["run"].as_str().unwrap().to_owned();
    let log = bed.run(&["log", "--run", &run]);
    assert!(log.out.starts_with("     ") && log.out.lines().next().unwrap().contains("rollback proposed"), "{log:#?}");
    assert!(log.out.contains("`restore/code` done: current -> releases/1.0.0"), "{log:#?}");
    // As JSON, a line for each event, and from where one likes.
    let all = bed.ok(&["log", "--json"]);
    let events: Vec<serde_json::Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.first().unwrap()["seq"], 1);
    let some = bed.ok(&["log", "--json", "--since", "3"]);
    assert_eq!(some.lines().count(), events.len() - 3);
    assert_eq!(bed.run(&["log", "--since", "yesterday"]).code, Some(2));
    let explained = bed.run(&["explain", &run]);
    assert!(explained.out.contains("asked for by a person"), "{explained:#?}");
}

#[test]
fn rf29_no_secret_is_said_or_kept() {
    let bed = Bed::new().with_two_releases();
    bed.write(".env", "TOKEN=another-secret-9\nFAST=true\n");
    let said = [
        bed.run(&["plan"]),
        bed.run(&["rollback", "--yes"]),
        bed.run(&["log", "--json"]),
        bed.run(&["status", "--live"]),
        bed.run(&["check", "--live"]),
        bed.run(&["capture", "list"]),
    ];
    let mut kept = vec![];
    let mut open = vec![bed.path(".ripcord")];
    while let Some(path) = open.pop() {
        match path.is_dir() {
            true => open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path())),
            false => kept.extend(std::fs::read(path).unwrap()),
        }
    }
    for secret in ["hunter2hunter2", "another-secret-9"] {
        for ran in &said {
            assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{ran:#?}");
        }
        assert!(!kept.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} is on disk in clear");
    }
}

#[test]
fn captures_are_verified_restored_beside_and_exported() {
    let bed = Bed::new().with_two_releases();
    let list = bed.json(&["capture", "list", "code"]);
    let first = list.as_array().unwrap().last().unwrap()["capture"].as_str().unwrap().to_owned();
    assert!(bed.ok(&["capture", "verify"]).contains("whole"));
    bed.ok(&["capture", "restore", &first, "--to", "beside"]);
    let found = walk(&bed.path("beside"));
    assert!(found.iter().any(|text| text == "page 1.0.0\n"), "{found:?}");
    assert_eq!(bed.run(&["capture", "restore", &first, "--to", "beside"]).code, Some(9), "never over what is there");
    let tar = bed.command(&["capture", "export", &first]).output().unwrap();
    assert!(tar.status.success() && tar.stdout.windows(10).any(|window| window == b"page 1.0.0"));
    assert_eq!(bed.run(&["capture", "verify", "cap-999"]).code, Some(4));
}

fn walk(directory: &std::path::Path) -> Vec<String> {
    let mut found = vec![];
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(std::fs::read_to_string(path).unwrap()),
        }
    }
    found
}

#[test]
fn a_damaged_capture_is_found_put_on_record_and_answers_the_question() {
    let bed = Bed::new().with_two_releases();
    assert_eq!(bed.json(&["status"])["back"]["answer"], "yes");
    // Whatever is in the vault's packs is not what it was.
    let mut packs = vec![bed.path(".ripcord/vault/repository/data")];
    while let Some(path) = packs.pop() {
        if path.is_dir() {
            packs.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
        let mut permissions = std::fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        std::fs::set_permissions(&path, permissions).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let verified = bed.run(&["capture", "verify"]);
    assert_eq!(verified.code, Some(8), "{verified:#?}");
    assert!(bed.ok(&["capture", "list"]).contains("SPOILED"));
    assert_eq!(bed.json(&["status"])["back"]["answer"], "no");
}

#[test]
fn a_run_has_a_report() {
    let bed = Bed::new().with_two_releases();
    let run = bed.json(&["rollback", "--yes"])["run"].as_str().unwrap().to_owned();
    bed.ok(&["report", &run, "--out", "report.md"]);
    let report = bed.read("report.md");
    assert_eq!(bed.ok(&["report", &run]).lines().next(), report.lines().next());
    assert!(report.contains("1.1.0") && report.contains("1.0.0") && report.contains(&run), "{report}");
    assert_eq!(bed.run(&["report", "run-999"]).code, Some(4));
}

#[test]
fn two_releases_are_compared() {
    let bed = Bed::new().with_two_releases();
    insta::assert_snapshot!(bed.masked(&bed.run(&["release", "diff", "1.0.0", "1.1.0"])));
    let shown = bed.ok(&["release", "show", "1.0.0"]);
    assert!(shown.contains("it was watched") && shown.contains("cap-"), "{shown}");
}

#[test]
fn what_nothing_needs_is_forgotten_and_the_way_back_is_not() {
    let bed = Bed::with(&crate::bed::CONFIG.replace("policy: {", "policy: { keep-captures: 1ms,"));
    bed.ok(&["release", "record", "1.0.0"]);
    // Never judged, and superseded: nobody goes back to it.
    bed.switch("1.1.0");
    bed.ok(&["release", "record", "1.1.0"]);
    bed.ok(&["release", "mark", "1.0.0", "--good", "--why", "it was watched"]);
    bed.switch("1.2.0");
    bed.ok(&["release", "record", "1.2.0"]);
    let would = bed.ok(&["capture", "prune", "--dry-run"]);
    assert!(would.starts_with("would be forgotten: cap-") && would.matches("of code").count() == 1, "{would}");
    let forgotten = bed.ok(&["capture", "prune"]);
    assert!(forgotten.starts_with("forgotten: cap-"), "{forgotten}");
    assert!(bed.ok(&["capture", "prune"]).starts_with("every capture is needed"));
    bed.ok(&["capture", "verify"]);
    std::fs::remove_dir_all(bed.path("releases/1.0.0")).unwrap();
    let back = bed.run(&["rollback", "--yes"]);
    assert_eq!(back.code, Some(0), "from the vault: {back:#?}");
    assert_eq!(bed.read("current/page"), "page 1.0.0\n");
}

#[test]
fn whoever_watches_reads_back_what_one_goes_back_to_and_forgets_what_nobody_needs() {
    let bed = Bed::with(&crate::bed::CONFIG.replace("policy: {", "policy: { keep-captures: 1ms,"));
    bed.ok(&["release", "record", "1.0.0"]);
    // Never judged, and superseded: nobody goes back to it.
    bed.switch("1.1.0");
    bed.ok(&["release", "record", "1.1.0"]);
    bed.ok(&["release", "mark", "1.0.0", "--good", "--why", "it was watched"]);
    bed.switch("1.2.0");
    bed.ok(&["release", "record", "1.2.0"]);
    let watch = bed.start(&["watch", "--upkeep-after", "100ms"]);
    let state = |version: &str| {
        let capture = bed.json(&["release", "show", version])["map"]["code"]["capture"].take();
        let list = bed.json(&["capture", "list", "code"]);
        list.as_array().unwrap().iter().find(|line| line["capture"] == capture).cloned().unwrap_or_default()
    };
    until("what nobody needs is forgotten", || state("1.1.0")["pruned"] == true);
    assert_eq!((&state("1.0.0")["pruned"], &state("1.2.0")["pruned"]), (&false.into(), &false.into()));
    watch.signal(rustix::process::Signal::TERM);
    let watched = watch.ended();
    assert_eq!(watched.code, Some(0), "{watched:#?}");
    assert!(watched.out.contains("pruned"), "{watched:#?}");
    bed.ok(&["capture", "verify"]);
}
