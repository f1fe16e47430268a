//! Both stories of the demonstration, in real time: it fails where what it shows does not work.

use crate::bed::Bed;

fn told(scenario: &str) -> serde_json::Value {
    let bed = Bed::new();
    let kept = bed.path("kept");
    let ran = bed.run(&["--json", "demo", "--scenario", scenario, "--keep", kept.to_str().unwrap()]);
    let shop = kept.join("shop");
    bed.run(&["shop", "stop", "--dir", shop.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    serde_json::from_str(ran.out.trim_end().lines().last().unwrap()).unwrap()
}

#[test]
fn a_fault_is_taken_back_by_the_second_level() {
    let summary = told("release");
    let ended: Vec<&str> =
        summary["runs"].as_array().unwrap().iter().map(|run| run["ended"].as_str().unwrap()).collect();
    assert_eq!(ended, ["insufficient: the symptom remained", "succeeded"], "{summary}");
    assert_eq!(summary["lost"]["rows"], serde_json::json!({}));
}

#[test]
fn damaged_orders_are_taken_back_with_consent_and_salvaged() {
    let summary = told("data");
    assert_eq!(summary["outcome"], "succeeded", "{summary}");
    assert!(!summary["lost"]["rows"].as_object().unwrap().is_empty(), "{summary}");
    let kept = summary["kept"].as_str().unwrap();
    assert!(kept.ends_with("kept"));
}
