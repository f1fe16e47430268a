//! Documents as a person reads them, from histories that could have happened.

#![allow(clippy::unwrap_used, reason = "a history that cannot be built is a failed test")]

mod history;
mod stories;

use ripcord_report::{data_loss_report, rollback_log_entry, run_report};

const LATER: i64 = 600_000;

#[test]
fn a_level_two_rollback_after_an_insufficient_level_one() {
    let story = stories::level_two_after_level_one();
    insta::assert_snapshot!("level_two", story.document(LATER, run_report));
    insta::assert_snapshot!("level_two_log_entry", story.document(LATER, rollback_log_entry));
    assert_eq!(story.document(LATER, data_loss_report), None);
}

#[test]
fn a_parked_run_names_what_is_off_before_anything_else() {
    let story = stories::parked_with_web_down();
    let report = story.document(LATER, run_report);
    let second = report.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap();
    assert!(second.starts_with("- **STILL OFF: start `web` (obl-18,"), "{second}");
    insta::assert_snapshot!("parked", report);
    insta::assert_snapshot!("parked_log_entry", story.document(LATER, rollback_log_entry));
}

#[test]
fn an_abandoned_run_is_no_success_and_its_downtime_is_not_over() {
    let report = stories::abandoned_with_web_down().document(LATER, run_report);
    assert!(report.lines().next().unwrap().ends_with(": ABANDONED"), "{report}");
    assert!(report.contains("**Abandoned by ana@desk, with things left switched off.**"), "{report}");
    assert!(report.contains("**not over on this record**: off for 9 min 19 s"), "{report}");
    assert!(!report.to_lowercase().contains("succeeded"), "{report}");
}

/// Taken over is not switched on: only an event that says so is.
#[test]
fn what_a_person_took_over_is_still_named_first() {
    let mut story = stories::parked_with_web_down();
    let obligation = story.fold().open_obligations().next().unwrap().id.clone();
    let verb = ripcord_core::Verb::Take { obligation, reason: "started by hand".to_owned() };
    story.of_run(50_000, ripcord_core::Body::Person { by: history::person("ana"), verb });
    let report = story.document(LATER, run_report);
    let second = report.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap();
    assert!(
        second.ends_with("taken over by ana@desk** (started by hand); whether it is on again is not on this record"),
        "{second}"
    );
    assert!(report.contains("**not over on this record**"), "{report}");
    assert!(!report.contains("ripcord take"), "{report}");
}

#[test]
fn data_given_up_is_counted_and_its_salvage_named() {
    let story = stories::data_restored_with_loss();
    insta::assert_snapshot!("data", story.document(LATER, run_report));
    insta::assert_snapshot!("data_loss", story.document(LATER, data_loss_report).unwrap());
}

#[test]
fn a_declined_run_changed_nothing_and_says_so() {
    let story = stories::declined();
    insta::assert_snapshot!("declined", story.document(LATER, run_report));
    assert_eq!(story.document(LATER, data_loss_report), None);
}

/// A restore that gives data up and was cut off in the middle: nothing lost on the record is not nothing lost.
#[test]
fn what_was_lost_is_unknown_where_the_outcome_is() {
    let mut story = stories::data_restored_with_loss();
    let cut = story.events.iter().position(
        |event| matches!(&event.body, ripcord_core::Body::Intent { step, .. } if step.0 == "restore/orders-db"),
    );
    story.events.truncate(cut.unwrap() + 1);
    let report = story.document(LATER, run_report);
    assert!(report.contains("**Unknown**: a step that may lose data was begun"), "{report}");
    assert!(report.contains("begun, and no outcome on record: restore orders-db from cap-4"), "{report}");
    let loss = story.document(LATER, data_loss_report).unwrap();
    assert!(loss.contains("at most: 25 rows in 2 tables"), "{loss}");
    let entry = story.document(LATER, rollback_log_entry);
    assert!(entry.contains("- Data given up: unknown, at most 25 rows in 2 tables"), "{entry}");
}

/// The database's old file is set aside and not given up, and yet what was written since is no longer live.
#[test]
fn a_restore_found_done_after_an_interruption_was_never_counted() {
    let mut story = stories::data_set_aside();
    let report = story.document(LATER, run_report);
    assert!(report.contains("None is recorded. The plan would have given up at most: 25 rows"), "{report}");
    story.did(72_100, 1_900, "restore/orders-db", ripcord_core::Proof::of("found done after an interruption"));
    let report = story.document(LATER, run_report);
    assert!(report.contains("**Unknown**: a step that may lose data was begun"), "{report}");
    let loss = story.document(LATER, data_loss_report).unwrap();
    assert!(loss.contains("Backup used: `cap-4` of `orders-db`"), "{loss}");
}

#[test]
fn a_success_with_a_step_skipped_says_so_first() {
    let story = stories::skipped_and_vouched_for();
    let report = story.document(LATER, run_report);
    let expected = "**Succeeded: not everything was restored by this run (1 of 5 steps skipped by a person, 1 done on a person's word), \
        and 0 of 1 checks passed; the breached signals came back.**";
    assert!(report.contains(expected), "{report}");
    assert!(report.contains("| **skipped** by ana@desk: mended by hand |"), "{report}");
    assert!(report.contains("| **passed by a person's word** | ana@desk says: I looked |"), "{report}");
}

#[test]
fn a_capture_that_cannot_be_had_any_more_offers_no_way_back() {
    let mut story = stories::data_restored_with_loss();
    let back = "`ripcord capture restore cap-17 --to DIR`";
    assert!(story.document(LATER, run_report).contains(&format!("| read back | kept | {back} |")));
    story.captures[0].spoiled = Some("checksum differs".to_owned());
    let report = story.document(LATER, run_report);
    assert!(report.contains("| **not to be relied on**: checksum differs |"), "{report}");
    story.captures[0].spoiled = None;
    story.captures[0].pruned = true;
    let report = story.document(LATER, run_report);
    assert!(report.contains("| read back | **pruned** | gone |"), "{report}");
    assert!(!report.contains(back), "{report}");
    story.captures[0].pruned = false;
    story.captures[0].made.held = ripcord_core::HeldIn::System { name: "releases/v1.1.0".to_owned() };
    let report = story.document(LATER, run_report);
    assert!(report.contains("| kept by the system itself as `releases/v1.1.0` |"), "{report}");
}

/// Manifests and outputs are kept in the record; a report that is mailed around is no place for them.
#[test]
fn neither_blobs_nor_outputs_are_printed() {
    let mut story = stories::data_set_aside();
    let proof =
        ripcord_core::Proof { output: Some("OUTPUT-OF-THE-COMMAND".to_owned()), ..ripcord_core::Proof::of("done") };
    story.did(72_100, 1_900, "restore/orders-db", proof);
    let report = story.document(LATER, run_report);
    assert!(report.contains("cap-17") && !report.contains("never") && !report.contains("OUTPUT-OF"), "{report}");
}

#[test]
fn a_verdict_whose_evidence_is_gone_is_unknown_not_left_out() {
    let mut story = stories::level_two_after_level_one();
    story.evidence.clear();
    let report = story.document(LATER, run_report);
    assert!(report.contains("- threshold, query and samples: unknown"), "{report}");
    assert!(report.contains("ripcord explain sha256:"), "{report}");
}

#[test]
fn an_engine_that_judges_otherwise_says_so() {
    let mut story = stories::level_two_after_level_one();
    for evidence in story.evidence.values_mut() {
        evidence.memory_after.value = Some(0.01);
    }
    assert!(story.document(LATER, run_report).contains("cannot be derived again"));
}

/// Other incidents, other triggers and other runs of a whole journal do not get into the story.
#[test]
fn a_whole_journal_tells_the_same_story() {
    let story = stories::level_two_after_level_one();
    let report = story.document(LATER, run_report);
    let mut whole = stories::level_two_after_level_one();
    let run = whole.run.replace(ripcord_core::RunId::typed("run-900"));
    let incident = whole.incident.replace(ripcord_core::IncidentId::typed("inc-899"));
    whole.told(500_000, "about something else", None);
    whole.of_incident(
        500_100,
        ripcord_core::Body::Noted { by: history::person("ana"), text: "about something else".into() },
    );
    whole.breach(510_000);
    (whole.run, whole.incident) = (run, incident);
    let other = whole.document(LATER, run_report);
    let body =
        |report: &str| report.lines().filter(|line| !line.starts_with("Written ")).collect::<Vec<_>>().join("\n");
    assert_eq!(body(&other), body(&report));
}

#[test]
fn nothing_from_outside_breaks_out_of_its_place() {
    let evil = "x | y `z` \\| <script>alert(1)</script>\n# Forged\n\n| a | b |\n```\n- **item** [l](javascript:1) \u{202e}\u{1b}[2J";
    let story = stories::hostile(evil);
    let documents = [
        story.document(LATER, run_report),
        story.document(LATER, |record| data_loss_report(record).unwrap()),
        story.document(LATER, rollback_log_entry),
    ];
    let plain = stories::hostile("plain");
    let clean = [
        plain.document(LATER, run_report),
        plain.document(LATER, |record| data_loss_report(record).unwrap()),
        plain.document(LATER, rollback_log_entry),
    ];
    for (document, clean) in documents.iter().zip(&clean) {
        assert!(document.contains("Forged"), "the text is there: {document}");
        assert!(!document.contains(['\u{202e}', '\u{1b}']), "{document}");
        assert_eq!(shape(document), shape(clean), "{document}");
    }
}

/// What a reader's eye sees of the structure: the kind of each line, columns counted. What is inside a fence has none.
fn shape(document: &str) -> Vec<String> {
    let mut fence: Option<usize> = None;
    let mut shape = vec![];
    for line in document.lines() {
        let ticks = line.len() - line.trim_start_matches('`').len();
        match fence {
            Some(open) if ticks >= open && line.chars().all(|c| c == '`') => fence = None,
            Some(_) => {
                shape.push("inside".to_owned());
                continue;
            }
            None if ticks >= 3 => fence = Some(ticks),
            None => {}
        }
        let free = unescaped(line);
        assert!(!free.contains('<') && !free.contains("]("), "{line}");
        let kind = match line {
            _ if line.starts_with('#') => line.chars().take_while(|c| *c == '#').collect(),
            _ if line.starts_with('|') => format!("| {}", free.matches('|').count()),
            _ if line.starts_with("- ") => "-".to_owned(),
            _ if ticks >= 3 => "fence".to_owned(),
            "" => String::new(),
            _ => "text".to_owned(),
        };
        shape.push(kind);
    }
    assert_eq!(fence, None, "a fence is open at the end");
    shape
}

/// The line without its escaped characters.
fn unescaped(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                rest.next();
            }
            c => out.push(c),
        }
    }
    out
}
