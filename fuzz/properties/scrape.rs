//! A page of metrics, whatever is in it, is read whole or refused, and what it comes to can be written down.
//!
//! The first line is what to measure, in JSON (without it: one measure of each sort); the rest are pages, with `---` in between.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use ripcord_adapters::signals::scrape::{Measure, read_page, read_pages};
use ripcord_core::Reading;

/// Of an error: it stands in the record and on a line of the terminal.
const WHY: usize = 1_000;

const MEASURES: [&str; 6] = [
    r#"{"ratio":{"of":"a{b=~\"5..\"}","to":"a","window":"15s"}}"#,
    r#"{"rate":{"metric":"a","window":"15s"}}"#,
    r#"{"quantile":{"metric":"a","q":0.95,"window":"15s"}}"#,
    r#"{"gauge":{"metric":"a"}}"#,
    r#"{"gauge":{"metric":"a{b!=\"\"}","fold":"max"}}"#,
    r#"{"gauge":{"metric":"a{b!~\"c|d\"}","fold":"min"}}"#,
];

pub fn judge(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let (measures, text) = match serde_json::from_str::<Measure>(first) {
        Ok(measure) => (vec![measure], rest),
        Err(_) => (MEASURES.map(|measure| serde_json::from_str(measure).unwrap()).into(), &*text),
    };
    let mut at = Timestamp::UNIX_EPOCH;
    let mut pages = vec![];
    for page in text.split("\n---\n") {
        read(page);
        pages.push((at, page));
        at += SignedDuration::from_secs(10);
    }
    for measure in measures {
        let readings = read_pages(&measure, &pages);
        assert_eq!(readings, read_pages(&measure, &pages));
        readings.iter().for_each(|reading| written_down(&measure, reading));
    }
}

/// What was read, written as the format has it, is read the same.
fn read(page: &str) {
    let lines = match read_page(page) {
        Ok(lines) => lines,
        Err(why) => return assert!(!why.is_empty() && why.len() <= WHY, "{why}"),
    };
    let mut written = String::new();
    for (name, labels, value) in &lines {
        write!(written, "{name}{{").unwrap();
        for (label, value) in labels {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(written, "{label}=\"{value}\",").unwrap();
        }
        let value = match value {
            value if value.is_nan() => "NaN".to_owned(),
            value if value.is_infinite() => if *value > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
            value => format!("{value:e}"),
        };
        writeln!(written, "}} {value}").unwrap();
    }
    let again = read_page(&written).unwrap_or_else(|why| panic!("{why}\n{written}"));
    // As text, where what is no number equals itself.
    assert_eq!(format!("{again:?}"), format!("{lines:?}"));
}

/// Evidence is stored and judged again: what is read back must be what was judged.
fn written_down(measure: &Measure, reading: &Reading) {
    let stored = serde_json::to_string(reading).unwrap();
    assert_eq!(serde_json::from_str::<Reading>(&stored).ok().as_ref(), Some(reading), "{stored}");
    match reading {
        Reading::Failed { why } => assert!(!why.is_empty() && why.len() <= WHY, "{why}"),
        Reading::Empty => {}
        Reading::Samples(samples) => {
            for sample in samples {
                assert!(sample.value.is_finite());
                assert!(!matches!(measure, Measure::Ratio(_)) || (0.0..=1.0).contains(&sample.value), "{sample:?}");
            }
        }
    }
}
