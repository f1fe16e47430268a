//! A condition, whatever is written, is refused when it is loaded or has the same answer whenever it is judged.
//!
//! The first line is the condition, the rest a JSON object of what it is judged over.

use std::collections::BTreeMap;

use ripcord_core::{Guard, GuardError};
use serde_json::{Value, json};

pub fn judge(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (condition, given) = text.split_once('\n').unwrap_or((&text, ""));
    let guard = match (Guard::new(condition), Guard::new(condition)) {
        (Ok(guard), Ok(again)) => {
            assert_eq!((&guard, guard.inputs()), (&again, again.inputs()));
            guard
        }
        (Err(error), Err(again)) => {
            assert_eq!(error, again);
            assert!(matches!(&error, GuardError::Syntax { why, .. } if !why.is_empty()), "{error:?}");
            return;
        }
        _ => panic!("it is a condition once, and once it is not"),
    };
    let stored: Guard = serde_json::from_value(serde_json::to_value(&guard).unwrap()).unwrap();
    assert_eq!(stored, guard);
    if !guard.inputs().is_empty() {
        assert!(matches!(guard.holds(&BTreeMap::new()), Err(GuardError::Missing { .. })));
    }
    match serde_json::from_str::<BTreeMap<String, Value>>(given) {
        Ok(given) => same_twice(&guard, &given),
        Err(_) => some_values().iter().for_each(|value| {
            same_twice(&guard, &guard.inputs().iter().map(|input| (input.clone(), value.clone())).collect());
        }),
    }
}

fn same_twice(guard: &Guard, given: &BTreeMap<String, Value>) {
    let answer = guard.holds(given);
    let again = guard.holds(given);
    // The interpreter goes through the keys of a map in no order, so an answer that hangs on their order is not the same twice.
    let ordered = !guard.text().contains('{') && given.values().all(one_key);
    assert!(answer == again || !ordered, "{answer:?} and then {again:?}");
    let missing = guard.inputs().iter().any(|input| given.get(input).is_none_or(Value::is_null));
    assert_eq!(matches!(answer, Err(GuardError::Missing { .. })), missing, "{answer:?}");
}

fn one_key(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.len() <= 1 && map.values().all(one_key),
        Value::Array(items) => items.iter().all(one_key),
        _ => true,
    }
}

fn some_values() -> [Value; 6] {
    [
        json!(0.5),
        json!(-1e308),
        json!("v1.2"),
        json!(true),
        json!([1, "b", null, [2]]),
        json!({ "a": { "b": [3, "c"] } }),
    ]
}
