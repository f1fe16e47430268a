//! JSON files of flags and settings.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ripcord_core::{Action, Holds, Outcome, Seen, Wanted};
use serde_json::{Value, json};

use crate::contract::{Rig, Site, hex_noise, run_cx};
use crate::support::{place, proof, step};

pub struct Flags;

impl Rig for Flags {
    const KIND: &'static str = "json-file";
    fn settings() -> String {
        "path: flags.json".to_owned()
    }
    fn good(site: &Path) {
        let text = format!("{{\n  \"features\": {{ \"checkout\": true }},\n  \"big\": \"{}\"\n}}\n", hex_noise(60_000));
        fs::write(site.join("flags.json"), text).unwrap();
    }
    fn bad(site: &Path) {
        fs::write(site.join("flags.json"), r#"{"features":{"checkout":false,"new":1}}"#).unwrap();
    }
    fn edit(site: &Path) {
        fs::write(site.join("flags.json"), "{}").unwrap();
    }
    fn content(site: &Path) -> String {
        crate::contract::listing(&site.join("flags.json"))
    }
    fn between(site: &Path) -> bool {
        fs::write(site.join("flags.json"), "{\"features\": ").unwrap();
        true
    }
}

fn set(values: Value) -> ripcord_core::Step {
    let values: BTreeMap<String, Value> = serde_json::from_value(values).unwrap();
    step("set", Action::Set { values })
}

#[tokio::test]
async fn a_flag_is_set_and_the_rest_stays_byte_for_byte() {
    let site = Site::new("json-file", "path: flags.json");
    let text = "{\n  \"z\" : 1.50,\n  \"features\": { \"a\": true, \"b\":[1,  2] },\n  \"n\": 1e3\n}";
    fs::write(site.at("flags.json"), text).unwrap();
    let (id, made) = site.capture(1).await;
    let step = set(json!({ "/features/a": false, "/features/c": "x" }));
    proof(site.apply(2, &step).await);
    let expected = "{\n  \"z\" : 1.50,\n  \"features\": { \"a\": false, \"b\":[1,  2], \"c\":\"x\" },\n  \"n\": 1e3\n}";
    assert_eq!(fs::read_to_string(site.at("flags.json")).unwrap().replace("\"c\": ", "\"c\":"), expected);
    assert_eq!(site.component().holds(&run_cx(2), &step, None).await.holds, Holds::Target);
    site.restore(3, &id, &made).await;
    assert_eq!(fs::read_to_string(site.at("flags.json")).unwrap(), text);
}

#[tokio::test]
async fn with_pointers_only_those_values_are_the_releases() {
    let site = Site::new("json-file", "path: flags.json\npointers: [/features, /limit]");
    let path = site.at("flags.json");
    fs::write(&path, r#"{"features":{"a":1,"b":2},"visits":1}"#).unwrap();
    let (id, made) = site.capture(1).await;
    fs::write(&path, r#"{"features":{"b":2,"a":1},"visits":2}"#).unwrap();
    assert_eq!(site.seen().await, Seen::At(made.revision.clone()), "order and others' values say nothing");
    fs::write(&path, r#"{"features":{"a":0},"limit":5,"visits":3}"#).unwrap();
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let survey = site.component().survey(&run_cx(1), &place(), &[wanted]).await;
    let differs = survey.facts.values().next().unwrap();
    assert_eq!(differs, "/features/a (changed), /features/b (removed since), /limit (added since)");
    site.restore(2, &id, &made).await;
    let now: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(now, json!({"features": {"a": 1, "b": 2}, "visits": 3}));
}

#[tokio::test]
async fn what_is_not_json_is_never_put_live() {
    let site = Site::new("json-file", "path: flags.json");
    fs::write(site.at("flags.json"), "{\"a\": tru}").unwrap();
    let (id, made) = site.capture(1).await;
    assert!(matches!(site.seen().await, Seen::Between { .. }));
    fs::write(site.at("flags.json"), "{\"a\": true}").unwrap();
    let Outcome::Failed(failure) = site.apply(2, &crate::contract::restore_step(&id, &made)).await else { panic!() };
    assert!(failure.what.contains("not JSON"), "{}", failure.what);
    fs::write(site.at("flags.json"), "{\"a\": tru}").unwrap();
    let Outcome::Failed(failure) = site.apply(3, &set(json!({ "/a": false }))).await else { panic!() };
    assert!(failure.what.contains("not JSON"), "{}", failure.what);
    assert_eq!(fs::read_to_string(site.at("flags.json")).unwrap(), "{\"a\": tru}");
}
