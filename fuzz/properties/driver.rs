//! What a driver says is understood in one way, or refused with a reason that can be shown.

use ripcord_adapters::components::driver::read_answer;

/// Of an error: it stands in the record and on a line of the terminal.
const WHY: usize = 1_000;

pub fn judge(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let answers = read_answer(&text);
    assert_eq!(answers, read_answer(&text));
    let understood: Vec<&String> = answers.iter().flatten().collect();
    assert!(understood.len() <= 1, "the answer to one call is taken for that to another: {understood:?}");
    for why in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert!(!why.is_empty() && why.len() <= WHY, "a reason of {} bytes", why.len());
        assert!(!why.contains(char::is_control), "{why:?}");
    }
    if !understood.is_empty() {
        let value: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(value["ripcord"], 1, "an answer of no known version is understood");
    }
}
