//! The JSON Schema of the file: made of the types that read it and of the kinds' own schemas, so that it cannot lag behind.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::resolve::SECTIONS;
use crate::{KindDoc, Kinds, file};

/// The schema of `ripcord.yaml` with the settings of every kind.
pub fn schema<K: Kinds>() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut kinds = Kindred { definitions: Map::new() };
    let mut properties = Map::new();
    for (name, doc) in SECTIONS {
        let mut section = section::<K>(name, &mut generator, &mut kinds);
        if let Value::Object(section) = &mut section {
            section.insert("description".into(), json!(doc));
        }
        properties.insert((*name).to_owned(), section);
    }
    let mut definitions = generator.take_definitions(true);
    kinds.keep_apart(&definitions);
    definitions.extend(kinds.definitions);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ripcord.yaml",
        "description": "An application that can be taken back to its last known good release.",
        "type": "object",
        "required": ["application", "components"],
        "additionalProperties": false,
        "properties": properties,
        "$defs": definitions,
    })
}

fn section<K: Kinds>(name: &str, generator: &mut SchemaGenerator, kinds: &mut Kindred) -> Value {
    fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
        generator.subschema_for::<T>().to_value()
    }
    let each = |one: Value| json!({ "type": "object", "additionalProperties": one });
    match name {
        "production" => json!({ "type": "boolean" }),
        "environments" => each(overlay()),
        "components" => {
            let mut common = common::<file::Component>(generator);
            let check = check::<K>(generator, kinds);
            let health =
                "Checks that say it is healthy, in the order asked: each reads a signal, written in place or declared.";
            common.insert("health".into(), json!({ "type": "array", "items": check, "description": health }));
            let one = kinds.one_of("component", common, K::component_kinds());
            each(json!({ "anyOf": [one, block()] }))
        }
        "signals" => {
            let common = common::<file::Signal>(generator);
            each(kinds.one_of("signal", common, K::signal_kinds()))
        }
        "hosts" => of::<file::Each<file::Host>>(generator),
        "groups" => of::<file::Each<file::Names>>(generator),
        "channels" => each(kinds.one_of("channel", Map::new(), K::channel_kinds())),
        "triggers" => of::<file::Each<file::Trigger>>(generator),
        "severities" => of::<file::Each<file::Severity>>(generator),
        "matrix" => matrix(generator),
        "strategies" => of::<file::Each<Vec<file::Rung>>>(generator),
        "verify" => {
            let check = check::<K>(generator, kinds);
            let list = |doc: &str| json!({ "type": "array", "items": check.clone(), "description": doc });
            json!({
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "closed": list("Asked before traffic is let in again."),
                    "open": list("Asked after traffic is let in again."),
                }
            })
        }
        "policy" => of::<file::Policy>(generator),
        "vault" => of::<file::Vault>(generator),
        "notify" => of::<Vec<file::Notify>>(generator),
        // `application`, `state`, `default-strategy`.
        _ => json!({ "type": "string" }),
    }
}

/// A block of components: what stands under `each` makes components of it, which is for the loader to see.
fn block() -> Value {
    let each = json!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": { "type": "object" },
        "description": "The one setting in which the components of this block differ, and under it each component by its name, which \
            is that setting's value too, with what is different beside it.",
    });
    json!({ "type": "object", "required": ["each"], "properties": { "each": each } })
}

/// What may differ in an environment: anything, in part, so that little can be said of its shape.
fn overlay() -> Value {
    let keys = SECTIONS.iter().filter(|(name, _)| !["application", "environments"].contains(name));
    let properties: Map<String, Value> =
        keys.map(|(name, doc)| ((*name).to_owned(), json!({ "description": doc }))).collect();
    json!({ "type": ["object", "null"], "properties": properties, "additionalProperties": false })
}

/// The properties of a struct that is part of something larger.
fn common<T: JsonSchema>(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut schema = T::json_schema(generator).to_value();
    match schema.get_mut("properties").map(Value::take) {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    }
}

/// The definition of a check: its own keys are the file's, and the rest are kinds.
const CHECK: &str = "check";

/// A reference to the definition of a check.
fn check<K: Kinds>(generator: &mut SchemaGenerator, kinds: &mut Kindred) -> Value {
    if !kinds.definitions.contains_key(CHECK) {
        let mut properties = common::<file::Check>(generator);
        let mut ways = vec![json!({ "required": ["signal"] })];
        for kind in K::signal_kinds() {
            properties.insert(kind.name.into(), kinds.settings("signal", kind));
            ways.push(json!({ "required": [kind.name] }));
        }
        let check = json!({ "type": "object", "properties": properties, "additionalProperties": false, "oneOf": ways });
        kinds.definitions.insert(CHECK.into(), check);
    }
    json!({ "$ref": format!("#/$defs/{CHECK}") })
}

fn matrix(generator: &mut SchemaGenerator) -> Value {
    let mut row = file::Row::json_schema(generator).to_value();
    if let Value::Object(row) = &mut row {
        let cell =
            json!({ "type": "string", "description": "The bounds of a figure: `> 5%`, `<= 1%`, `1% to 5%`, `any`." });
        row.insert("additionalProperties".into(), cell);
    }
    let otherwise = generator.subschema_for::<file::Otherwise>().to_value();
    json!({
        "type": "object",
        "required": ["otherwise"],
        "additionalProperties": false,
        "properties": {
            "figures": {
                "description": "Figures by name, and the signal that feeds each. Every signal is a figure under its own name too.",
                "type": "object",
                "additionalProperties": { "type": "string" }
            },
            "rows": { "description": "The rows, in any order.", "type": "array", "items": row },
            "otherwise": otherwise,
        }
    })
}

/// The kinds' schemas, their definitions lifted into the file's.
struct Kindred {
    definitions: Map<String, Value>,
}

impl Kindred {
    /// A mapping with one of `kinds` and the common keys, or the bare name of a kind that needs no settings.
    fn one_of(&mut self, what: &str, common: Map<String, Value>, kinds: &[KindDoc]) -> Value {
        let mut properties = common;
        let mut ways = vec![];
        let mut bare = vec![];
        for kind in kinds {
            properties.insert(kind.name.into(), self.settings(what, kind));
            ways.push(json!({ "required": [kind.name] }));
            if !self.demands(what, kind) {
                bare.push(kind.name);
            }
        }
        let mapping =
            json!({ "type": "object", "properties": properties, "additionalProperties": false, "oneOf": ways });
        match bare.is_empty() {
            true => mapping,
            false => json!({ "anyOf": [mapping, { "enum": bare }] }),
        }
    }

    /// A reference to the settings of a kind; nothing at all will do where they are all optional.
    fn settings(&mut self, what: &str, kind: &KindDoc) -> Value {
        let name = format!("{what}-{}", kind.name);
        if !self.definitions.contains_key(&name) {
            let mut schema = (kind.schema)().to_value();
            if let Value::Object(schema) = &mut schema {
                schema.remove("$schema");
                schema.remove("title");
                schema.insert("description".into(), json!(kind.summary));
                if let Some(Value::Object(own)) = schema.remove("$defs") {
                    self.lift(&name, schema, own);
                }
            }
            self.definitions.insert(name.clone(), schema);
        }
        let settings = json!({ "$ref": format!("#/$defs/{name}") });
        match self.demands(what, kind) {
            true => settings,
            false => json!({ "anyOf": [settings, { "type": "null" }] }),
        }
    }

    /// Renames what a kind calls as something else in the file is called.
    fn keep_apart(&mut self, file: &Map<String, Value>) {
        let clashes =
            self.definitions.iter().filter(|(name, value)| file.get(*name).is_some_and(|other| other != *value));
        let names: Vec<(String, String)> = clashes.map(|(name, _)| (name.clone(), format!("kind-{name}"))).collect();
        for (_, value) in self.definitions.iter_mut().filter(|(name, _)| *name != CHECK) {
            redirect(value, &names);
        }
        for (from, to) in names {
            if let Some(value) = self.definitions.remove(&from) {
                self.definitions.insert(to, value);
            }
        }
    }

    fn demands(&self, what: &str, kind: &KindDoc) -> bool {
        let definition = self.definitions.get(&format!("{what}-{}", kind.name));
        definition
            .is_some_and(|schema| schema.get("type") != Some(&json!("object")) || schema.get("required").is_some())
    }

    /// Definitions of one kind among those of all; one that differs from another of its name is named after the kind too.
    fn lift(&mut self, kind: &str, schema: &mut Map<String, Value>, own: Map<String, Value>) {
        let renamed = |name: &str, value: &Value, lifted: &Map<String, Value>| match lifted.get(name) {
            Some(other) if other != value => format!("{kind}-{name}"),
            _ => name.to_owned(),
        };
        let names: Vec<(String, String)> =
            own.iter().map(|(name, value)| (name.clone(), renamed(name, value, &self.definitions))).collect();
        let mut whole = Value::Object(std::mem::take(schema));
        redirect(&mut whole, &names);
        if let Value::Object(whole) = whole {
            *schema = whole;
        }
        for ((_, to), (_, mut value)) in names.iter().zip(own) {
            redirect(&mut value, &names);
            self.definitions.insert(to.clone(), value);
        }
    }
}

fn redirect(schema: &mut Value, names: &[(String, String)]) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref")
                && let Some(name) = target.strip_prefix("#/$defs/")
                && let Some((_, to)) = names.iter().find(|(from, _)| from == name)
            {
                *target = format!("#/$defs/{to}");
            }
            map.values_mut().for_each(|value| redirect(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redirect(item, names)),
        _ => {}
    }
}
