//! A JSON file of flags or settings: captured and put back, toggled value by value, the rest left byte for byte.
//!
//! With `pointers` only those values belong to the release: the revision covers them alone, and a restore sets them alone, so
//! that what others keep in the same file stays. What no reader could parse is never put live.

mod edit; // single values of a JSON text

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Component, ComponentId, Digest, Layer, Revision};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::files::ReadersSetting;
use super::files::one::{Format, OneFile};
use crate::{BuildCx, BuildError, ComponentKind};

/// A JSON file of flags or settings.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The file, relative to `ripcord.yaml`. A link is followed, and what it leads to is replaced.
    pub path: PathBuf,
    /// The values that belong to a release, as JSON pointers (`/features/checkout`); without it the whole file does.
    #[serde(default)]
    pub pointers: Vec<String>,
    /// What a change means for the components that need this one: `hot` (the default, they read it again by themselves),
    /// `restart` or `stop`.
    #[serde(default)]
    pub readers: Option<ReadersSetting>,
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "json-file",
        summary: "A JSON file of flags or settings: put back whole or in part, or toggled value by value.",
        example: "path: shared/flags.json\npointers:\n  - /features\nreaders: hot\n",
        layer: Layer::Flags,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let pointers = self.pointers.iter().enumerate().filter_map(|(i, pointer)| {
            let error = edit::names(pointer).err()?;
            Some(
                Mistake::new(error.to_string())
                    .at(format!("pointers.{i}"))
                    .help("write `/` before each name: `/features/checkout`"),
            )
        });
        super::files::path_mistakes(&self.path).into_iter().chain(pointers).collect()
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let readers = self.readers.unwrap_or(ReadersSetting::Hot).into();
        let format = JsonFormat { pointers: self.pointers.clone() };
        Ok(Arc::new(OneFile::new(id, &self.path, format, readers, cx)))
    }
}

struct JsonFormat {
    pointers: Vec<String>,
}

impl Format for JsonFormat {
    const KIND: &'static str = "json-file";

    fn revision(&self, bytes: &[u8]) -> Result<Revision, String> {
        let root = edit::parse(bytes).map_err(|error| error.to_string())?;
        let digest = match self.pointers.is_empty() {
            true => Digest::of(bytes),
            false => {
                let values: BTreeMap<_, _> =
                    self.pointers.iter().map(|pointer| (pointer, root.pointer(pointer).map(sorted))).collect();
                Digest::of_value(&values)
            }
        };
        Ok(Revision::exact(digest.to_string()))
    }

    fn restored(&self, live: Option<&[u8]>, captured: &[u8]) -> Result<Vec<u8>, String> {
        let root = edit::parse(captured).map_err(|error| error.to_string())?;
        // Where the live file cannot be parsed there is nothing of others' left to keep: the vault has it for people.
        let live = live.filter(|live| edit::parse(live).is_ok());
        match (self.pointers.as_slice(), live) {
            ([], _) | (_, None) => Ok(captured.to_vec()),
            (pointers, Some(live)) => pointers.iter().try_fold(live.to_vec(), |bytes, pointer| {
                edit::set(&bytes, pointer, root.pointer(pointer)).map_err(|error| error.to_string())
            }),
        }
    }

    fn settable(&self, values: &BTreeMap<String, Value>) -> Result<(), String> {
        values.keys().try_for_each(|pointer| edit::names(pointer).map(drop).map_err(|error| error.to_string()))
    }

    fn set(&self, live: &[u8], values: &BTreeMap<String, Value>) -> Result<Vec<u8>, String> {
        let live = if live.is_empty() { b"{}\n" } else { live };
        values.iter().try_fold(live.to_vec(), |bytes, (pointer, value)| {
            edit::set(&bytes, pointer, present(value)).map_err(|error| error.to_string())
        })
    }

    fn unlike(&self, live: &[u8], values: &BTreeMap<String, Value>) -> Result<Vec<String>, String> {
        let root = match live.is_empty() {
            true => Value::Null,
            false => edit::parse(live).map_err(|error| error.to_string())?,
        };
        let unlike = values.iter().filter(|(pointer, value)| root.pointer(pointer) != present(value));
        Ok(unlike.map(|(pointer, _)| pointer.clone()).collect())
    }

    fn facts(&self, live: &[u8]) -> BTreeMap<String, String> {
        match edit::parse(live) {
            Ok(_) => BTreeMap::new(),
            Err(error) => BTreeMap::from([("cannot be edited".to_owned(), error.to_string())]),
        }
    }

    fn differing(&self, live: &[u8], captured: &[u8]) -> Option<String> {
        let (live, captured) = (edit::parse(live).ok()?, edit::parse(captured).ok()?);
        let mut names = Vec::new();
        differ("", Some(&live), Some(&captured), &mut names);
        if !self.pointers.is_empty() {
            names.retain(|name| self.pointers.iter().any(|pointer| name.starts_with(pointer.as_str())));
        }
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// Unset is null here too, as in every kind of file: a flag that is to be JSON null is one to leave out.
fn present(value: &Value) -> Option<&Value> {
    (!value.is_null()).then_some(value)
}

/// Key order says nothing, so it is no part of a revision.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<_, _> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            Value::Object(map.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// The pointers at which two values differ, outermost that say it all.
fn differ(at: &str, a: Option<&Value>, b: Option<&Value>, names: &mut Vec<String>) {
    match (a, b) {
        (a, b) if a == b => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let name = key.replace('~', "~0").replace('/', "~1");
                differ(&format!("{at}/{name}"), a.get(key), b.get(key), names);
            }
        }
        (Some(_), None) => names.push(format!("{at} (added since)")),
        (None, Some(_)) => names.push(format!("{at} (removed since)")),
        _ => names.push(format!("{at} (changed)")),
    }
}
