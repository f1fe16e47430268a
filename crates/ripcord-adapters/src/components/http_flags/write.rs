//! What is sent to make flags have values: pure.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Values;

/// How the service takes changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// `PATCH` with a JSON Merge Patch: an object with what changes, null for what goes.
    #[default]
    MergePatch,
    /// `PATCH` with a JSON Patch, which names the former values too: where one of them was changed meanwhile, it is refused.
    JsonPatch,
    /// `PUT` of the whole, as it was read, with the changes in it.
    Put,
}

impl Method {
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::MergePatch | Self::JsonPatch => "PATCH",
            Self::Put => "PUT",
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::MergePatch => "application/merge-patch+json",
            Self::JsonPatch => "application/json-patch+json",
            Self::Put => "application/json",
        }
    }

    /// The body that takes `document` to one with these values, by JSON pointer. Null takes out.
    pub(super) fn body(self, document: &Value, values: &Values) -> Result<Value, String> {
        match self {
            Self::MergePatch => merge_patch(document, values),
            Self::JsonPatch => json_patch(document, values),
            Self::Put => values.iter().try_fold(document.clone(), |document, (pointer, value)| {
                set(document, &names(pointer), value).ok_or_else(|| unreachable_in(pointer))
            }),
        }
    }
}

fn unreachable_in(pointer: &str) -> String {
    format!("`{pointer}` leads through something that is no object")
}

/// The names a pointer leads through.
fn names(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
}

/// A merge patch cannot reach into lists, and cannot set an object without merging with the one that is there.
fn merge_patch(document: &Value, values: &Values) -> Result<Value, String> {
    let mut patch = json!({});
    for (pointer, value) in values {
        let mut at = Some(document);
        for name in names(pointer) {
            if at.is_some_and(|at| !at.is_object() && !at.is_null()) {
                return Err(format!("{}: `write: json-patch` or `put` can do it", unreachable_in(pointer)));
            }
            at = at.and_then(|at| at.get(&name));
        }
        let value = merging(at, value);
        let path = names(pointer);
        if path.is_empty() {
            return Ok(value);
        }
        patch = set_raw(patch, &path, value).ok_or_else(|| unreachable_in(pointer))?;
    }
    Ok(patch)
}

/// What merged into `from` gives `to`: keys that `to` has not are named as null.
fn merging(from: Option<&Value>, to: &Value) -> Value {
    let (Some(Value::Object(from)), Value::Object(to)) = (from, to) else { return to.clone() };
    let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let kept = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    gone.chain(kept.map(|(key, value)| (key.clone(), merging(from.get(key), value)))).collect::<Map<_, _>>().into()
}

fn json_patch(document: &Value, values: &Values) -> Result<Value, String> {
    let mut patch = vec![];
    for (pointer, value) in values {
        let now = document.pointer(pointer);
        patch.extend(now.map(|now| json!({ "op": "test", "path": pointer, "value": now })));
        match (now, value) {
            (None, Value::Null) => {}
            (Some(_), Value::Null) => patch.push(json!({ "op": "remove", "path": pointer })),
            (Some(_), value) => patch.push(json!({ "op": "replace", "path": pointer, "value": value })),
            (None, value) => {
                // Objects on the way that are not there have to be made one by one.
                let path: Vec<&str> = pointer.split('/').skip(1).collect();
                for depth in 1..path.len() {
                    let above = format!("/{}", path[..depth].join("/"));
                    let made = json!({ "op": "add", "path": above, "value": {} });
                    match document.pointer(&above) {
                        Some(Value::Object(_)) => {}
                        Some(_) => return Err(unreachable_in(pointer)),
                        None if patch.contains(&made) => {}
                        None => patch.push(made),
                    }
                }
                patch.push(json!({ "op": "add", "path": pointer, "value": value }));
            }
        }
    }
    Ok(patch.into())
}

/// The document with a value at a path; null takes out. None where the path leads through something that is no container.
fn set(document: Value, path: &[String], value: &Value) -> Option<Value> {
    let [name, rest @ ..] = path else { return Some(value.clone()) };
    match document {
        Value::Array(mut items) => {
            let item = items.get_mut(name.parse::<usize>().ok()?)?;
            *item = set(item.take(), rest, value)?;
            Some(items.into())
        }
        Value::Object(mut map) => {
            match (rest.is_empty(), value) {
                (true, Value::Null) => drop(map.remove(name)),
                (false, Value::Null) if !map.contains_key(name) => {}
                _ => {
                    let inner = map.remove(name).unwrap_or_else(|| json!({}));
                    map.insert(name.clone(), set(inner, rest, value)?);
                }
            }
            Some(map.into())
        }
        _ => None,
    }
}

/// Like [`set`] in a patch, where null is a word like others.
fn set_raw(patch: Value, path: &[String], value: Value) -> Option<Value> {
    let [name, rest @ ..] = path else { return Some(value) };
    let Value::Object(mut map) = patch else { return None };
    let inner = map.remove(name).unwrap_or_else(|| json!({}));
    map.insert(name.clone(), set_raw(inner, rest, value)?);
    Some(map.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(of: Value) -> Values {
        serde_json::from_value(of).unwrap()
    }

    #[track_caller]
    fn check(method: Method, document: Value, put: Value, body: Value) {
        assert_eq!(method.body(&document, &values(put)).unwrap(), body);
    }

    #[test]
    fn a_merge_patch_names_what_changes_and_null_for_what_goes() {
        let document = json!({ "a": { "x": true, "y": 1 }, "b": 2 });
        check(Method::MergePatch, document.clone(), json!({ "/a/x": false }), json!({ "a": { "x": false } }));
        check(Method::MergePatch, document.clone(), json!({ "/a/x": null }), json!({ "a": { "x": null } }));
        check(Method::MergePatch, document.clone(), json!({ "/n/m~1": 1 }), json!({ "n": { "m/": 1 } }));
        // An object is merged with what is there: what is to go is named.
        check(
            Method::MergePatch,
            document,
            json!({ "/a": { "x": true, "z": 3 } }),
            json!({ "a": { "y": null, "z": 3 } }),
        );
        let why = Method::MergePatch.body(&json!({ "a": [1] }), &values(json!({ "/a/0": 2 }))).unwrap_err();
        assert!(why.contains("json-patch"), "{why}");
    }

    #[test]
    fn a_json_patch_names_the_former_values_too() {
        let document = json!({ "a": [{ "x": true }], "b": 2 });
        let replaced = json!([{ "op": "test", "path": "/a/0/x", "value": true }, { "op": "replace", "path": "/a/0/x", "value": false }]);
        check(Method::JsonPatch, document.clone(), json!({ "/a/0/x": false }), replaced);
        let removed = json!([{ "op": "test", "path": "/b", "value": 2 }, { "op": "remove", "path": "/b" }]);
        check(Method::JsonPatch, document.clone(), json!({ "/b": null }), removed);
        let made = json!([
            { "op": "add", "path": "/n", "value": {} },
            { "op": "add", "path": "/n/m", "value": 1 },
            { "op": "add", "path": "/n/o", "value": 2 },
        ]);
        check(Method::JsonPatch, document, json!({ "/n/m": 1, "/n/o": 2 }), made);
    }

    #[test]
    fn a_put_is_the_whole_with_the_changes_in_it() {
        let document = json!({ "a": [{ "x": true, "y": 1 }], "b": 2 });
        let put = json!({ "/a/0/x": false, "/b": null, "/c/d": 1, "/e/f": null });
        check(Method::Put, document, put, json!({ "a": [{ "x": false, "y": 1 }], "c": { "d": 1 } }));
        assert!(Method::Put.body(&json!({ "a": 1 }), &values(json!({ "/a/b": 2 }))).is_err());
    }
}
