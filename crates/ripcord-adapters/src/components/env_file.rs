//! A file of `KEY=value` lines: captured and put back as bytes, toggled key by key.
//!
//! It may hold secrets: its revision is a keyed hash, what is said of it are names, and copies of it are in the vault alone.
//! A process reads its environment once, so readers are restarted unless the settings say that they notice by themselves.

pub(super) mod edit; // KEY=value text

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Component, ComponentId, Layer, Revision};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;

use super::files::ReadersSetting;
use super::files::one::{Format, OneFile};
use crate::{BuildCx, BuildError, ComponentKind};

/// A file of `KEY=value` lines, as read by shells, Compose and dotenv libraries.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The file, relative to `ripcord.yaml`. A link is followed, and what it leads to is replaced.
    pub path: PathBuf,
    /// The keys that the file must have, none of them empty, for its readers to start. A release whose file lacks one is not
    /// gone back to.
    #[serde(default)]
    pub require: Vec<String>,
    /// What a change means for the components that need this one: `restart` (the default), `stop` before it, or `hot` where
    /// they read the file again by themselves.
    #[serde(default)]
    pub readers: Option<ReadersSetting>,
}

impl ComponentKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "env-file",
        summary: "A file of `KEY=value` lines: put back whole, or toggled key by key.",
        example: "path: shared/app.env\nrequire: [DATABASE_URL, SECRET_KEY]\nreaders: restart\n",
        layer: Layer::Config,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let keys = self.require.iter().enumerate().filter(|(_, key)| !edit::names_a_key(key)).map(|(i, key)| {
            Mistake::new(format!("`{key}` is no key"))
                .at(format!("require.{i}"))
                .help("write the name alone, such as `DATABASE_URL`")
        });
        super::files::path_mistakes(&self.path).into_iter().chain(keys).collect()
    }

    fn build(&self, id: &ComponentId, cx: &BuildCx) -> Result<Arc<dyn Component>, BuildError> {
        let readers = self.readers.unwrap_or(ReadersSetting::Restart).into();
        let format = EnvFormat { key: cx.revision_key, require: self.require.clone() };
        Ok(Arc::new(OneFile::new(id, &self.path, format, readers, cx)))
    }
}

struct EnvFormat {
    key: [u8; 32],
    require: Vec<String>,
}

impl Format for EnvFormat {
    const KIND: &'static str = "env-file";

    fn revision(&self, bytes: &[u8]) -> Result<Revision, String> {
        // A key of any length is taken, so this cannot fail.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(|error| error.to_string())?;
        mac.update(bytes);
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Revision::exact(format!("hmac:{hex}")))
    }

    fn restored(&self, _live: Option<&[u8]>, captured: &[u8]) -> Result<Vec<u8>, String> {
        Ok(captured.to_vec())
    }

    fn settable(&self, values: &BTreeMap<String, Value>) -> Result<(), String> {
        self.set(b"", values).map(drop)
    }

    fn set(&self, live: &[u8], values: &BTreeMap<String, Value>) -> Result<Vec<u8>, String> {
        values.iter().try_fold(live.to_vec(), |bytes, (key, value)| {
            let value = plain(key, value)?;
            edit::set(&bytes, key, value.as_deref()).map_err(|error| error.to_string())
        })
    }

    fn unlike(&self, live: &[u8], values: &BTreeMap<String, Value>) -> Result<Vec<String>, String> {
        let found = edit::read(live).map_err(|error| error.to_string())?;
        let mut unlike = Vec::new();
        for (key, value) in values {
            let value = plain(key, value)?;
            let once = edit::count(live, key).map_err(|error| error.to_string())? <= 1;
            if found.get(key) != value.as_ref() || !once {
                unlike.push(key.clone());
            }
        }
        Ok(unlike)
    }

    fn complete(&self, bytes: &[u8]) -> Result<(), String> {
        if self.require.is_empty() {
            return Ok(());
        }
        let found = edit::read(bytes).map_err(|error| error.to_string())?;
        let lacks = self.require.iter().filter_map(|key| match found.get(key).map(|value| value.trim()) {
            None => Some(format!("`{key}` is not there")),
            Some("") => Some(format!("`{key}` is empty")),
            Some(_) => None,
        });
        let lacks: Vec<_> = lacks.collect();
        if lacks.is_empty() { Ok(()) } else { Err(lacks.join(", ")) }
    }

    fn facts(&self, live: &[u8]) -> BTreeMap<String, String> {
        let fact = match edit::read(live) {
            Ok(found) => ("keys", found.keys().cloned().collect::<Vec<_>>().join(", ")),
            Err(error) => ("cannot be edited", error.to_string()),
        };
        let lacks = self.complete(live).err().map(|why| ("required, and lacking", why));
        [Some(fact), lacks].into_iter().flatten().map(|(name, words)| (name.to_owned(), words)).collect()
    }

    fn differing(&self, live: &[u8], captured: &[u8]) -> Option<String> {
        let (live, captured) = (edit::read(live).ok()?, edit::read(captured).ok()?);
        let mut names = Vec::new();
        for key in live.keys().chain(captured.keys().filter(|key| !live.contains_key(*key))) {
            match (live.get(key), captured.get(key)) {
                (Some(a), Some(b)) if a == b => {}
                (Some(_), Some(_)) => names.push(format!("{key} (changed)")),
                (Some(_), None) => names.push(format!("{key} (added since)")),
                (None, _) => names.push(format!("{key} (removed since)")),
            }
        }
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// A toggle's value as text; none unsets it.
fn plain(key: &str, value: &Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Bool(_) | Value::Number(_) => Ok(Some(value.to_string())),
        Value::Array(_) | Value::Object(_) => Err(format!("`{key}` can only be set to text, a number, true or false")),
    }
}
