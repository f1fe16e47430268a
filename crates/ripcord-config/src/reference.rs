//! The configuration reference in Markdown, written from the schema: what is said there is what is read.

use std::fmt::Write as _;

use serde_json::Value;

use crate::resolve::SECTIONS;
use crate::schema::schema;
use crate::{KindDoc, Kinds};

/// The reference of `ripcord.yaml` with every kind.
pub fn reference<K: Kinds>() -> String {
    let schema = schema::<K>();
    let page = Page { definitions: &schema["$defs"] };
    let mut text = String::from(INTRODUCTION);
    for (name, doc) in SECTIONS {
        let section = &schema["properties"][*name];
        // Writing to a `String` cannot fail.
        let _ = write!(text, "\n## `{name}`\n\n{}\n", wrapped(doc));
        match *name {
            "components" => {
                text += "\nEvery component:\n\n";
                text += &page.table(page.entry(section), K::component_kinds());
                text += BLOCKS;
                text += &page.kinds("component", "components", K::component_kinds());
            }
            "signals" => {
                text += "\nEvery signal:\n\n";
                text += &page.table(page.entry(section), K::signal_kinds());
                text += &page.kinds("signal", "signals", K::signal_kinds());
            }
            "channels" => text += &page.kinds("channel", "channels", K::channel_kinds()),
            "verify" => {
                text += &format!("\n{}", page.table(section, &[]));
                text += "\nA check, here and in the `health` of a component, has one of the kinds of signals or `signal:`, and:\n\n";
                text += &page.table(&page.definitions["check"], K::signal_kinds());
            }
            "environments" => text += ENVIRONMENTS,
            _ => {
                let table = page.table(section, &[]);
                if !table.is_empty() {
                    text += &format!("\n{table}");
                }
            }
        }
    }
    text
}

const INTRODUCTION: &str = "\
# Configuration

`ripcord.yaml` describes one application. `ripcord init` writes one from what it finds, `ripcord check` says what is wrong with
it, and `ripcord schema` prints its JSON Schema for editors. The smallest file has a name and components:

```yaml
application: shop
components:
  code: { git: { path: . } }
```

Keys that are not known here are errors. Nothing is replaced inside values (`${...}` is an error): a secret is named by
`{ env: NAME }`, `{ file: PATH }`, `{ command: [PROGRAM, ARGUMENT] }` or `{ dotenv: { file: PATH, key: NAME } }` and is never
written in the file. Relative paths are relative to the directory of the file. Anchors (`&name`), aliases (`*name`) and merges
(`<<`) work as usual in YAML.

Values are written with their units: a *time* is `250ms`, `90s`, `5m`, `1h30m` or `7d`; a *share* is `5%` or `0.05`; a *size* is
`64kB`, `500MB` (powers of 1000) or `1GiB` (powers of 1024); a *figure* is whichever of these its signal measures, or a plain
number. Names are made of small letters, digits, `-`, `_` and `.`.
";

const BLOCKS: &str = "
Components that are alike but for one setting may be written as one block: `each` names the setting, and under it each component by
its name, which is that setting's value too, with what is different beside it. The block itself is no component.

```yaml
components:
  stack:
    compose: { project: shop }
    each:
      service:
        api: {}
        worker: { needs: [api] }
```
";

const ENVIRONMENTS: &str = "
```yaml
environments:
  production: {}
  staging:
    policy: { bake: 5m }
    components:
      web: { health: [] }
      search: null
```

The environment is chosen on the command line; without that it is the only one, or `production`.
";

struct Page<'a> {
    definitions: &'a Value,
}

impl Page<'_> {
    /// The mapping that an entry of a section is.
    fn entry<'s>(&self, section: &'s Value) -> &'s Value {
        let one = &section["additionalProperties"];
        if one["anyOf"].is_array() { &one["anyOf"][0] } else { one }
    }

    fn kinds(&self, what: &str, section: &str, kinds: &[KindDoc]) -> String {
        let mut text = String::new();
        for kind in kinds {
            let settings = &self.definitions[format!("{what}-{}", kind.name).as_str()];
            let _ = write!(text, "\n### `{}`\n\n{}\n\n", kind.name, wrapped(kind.summary));
            let example = kind.example.trim();
            let body = match example.lines().count() {
                0 => String::new(),
                1 if example.starts_with('{') => format!(" {example}"),
                _ => example.lines().fold(String::new(), |text, line| match line.is_empty() {
                    true => text + "\n",
                    false => text + "\n      " + line,
                }),
            };
            let _ = write!(text, "```yaml\n{section}:\n  name:\n    {}:{body}\n```\n", kind.name);
            let table = self.table(settings, &[]);
            if !table.is_empty() {
                let _ = write!(text, "\n{table}");
            }
        }
        text
    }

    /// The keys of a mapping, those of mappings in it behind dots; without the keys of kinds, which have their own tables.
    fn table(&self, schema: &Value, kinds: &[KindDoc]) -> String {
        let mut rows = vec![];
        self.rows(schema, "", kinds, 0, &mut rows);
        if rows.is_empty() {
            return String::new();
        }
        let mut text = String::from("| key | value | |\n|---|---|---|\n");
        for (key, value, doc) in rows {
            let _ = writeln!(text, "| `{key}` | {} | {} |", value.replace('|', "\\|"), doc.replace('|', "\\|"));
        }
        text
    }

    fn rows(
        &self,
        schema: &Value,
        prefix: &str,
        kinds: &[KindDoc],
        depth: usize,
        rows: &mut Vec<(String, String, String)>,
    ) {
        // Deeper than people nest; also the end of types that hold themselves.
        if depth > 6 {
            return;
        }
        let (schema, _) = self.followed(schema);
        for alternative in ["anyOf", "oneOf"].into_iter().flat_map(|way| schema[way].as_array().into_iter().flatten()) {
            self.rows(alternative, prefix, kinds, depth + 1, rows);
        }
        if schema["items"].is_object() && !explained(self.followed(&schema["items"]).1) {
            self.rows(&schema["items"], &format!("{prefix}[]"), kinds, depth + 1, rows);
        }
        let join = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
        if schema["additionalProperties"].is_object() {
            let each = &schema["additionalProperties"];
            let (target, name) = self.followed(each);
            if name.is_none() || target["properties"].is_object() || target["items"].is_object() {
                let key = join("<name>");
                if each["description"].is_string() {
                    rows.push((key.clone(), self.called(each), described(each, target)));
                }
                self.rows(each, &key, kinds, depth + 1, rows);
            }
        }
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, value) in schema["properties"].as_object().into_iter().flatten() {
            if kinds.iter().any(|kind| kind.name == key) {
                continue;
            }
            let (target, name) = self.followed(value);
            let needed = if required.contains(&key.as_str()) { ", required" } else { "" };
            let path = join(key);
            rows.push((
                path.clone(),
                format!("{}{needed}", self.called(value)),
                if explained(name) { described(value, value) } else { described(value, target) },
            ));
            // What has a table of its own, or is explained at the top, is not taken apart here.
            if !explained(name) {
                self.rows(value, &path, kinds, depth + 1, rows);
            }
        }
    }

    /// As `resolved`, through a choice between something and nothing.
    fn followed<'s>(&'s self, schema: &'s Value) -> (&'s Value, Option<&'s str>) {
        let mut something = schema["anyOf"].as_array().into_iter().flatten().filter(|one| one["type"] != "null");
        match (something.next(), something.next()) {
            (Some(one), None) => self.followed(one),
            _ => match schema["$ref"].as_str().and_then(|target| target.strip_prefix("#/$defs/")) {
                Some(name) => (&self.definitions[name], Some(name)),
                None => (schema, None),
            },
        }
    }

    /// What a value is called.
    fn called(&self, schema: &Value) -> String {
        let (schema, name) = self.followed(schema);
        if let Some((_, called)) = KNOWN.iter().find(|(known, _)| Some(*known) == name) {
            return (*called).to_owned();
        }
        let words = |values: &Vec<Value>| -> Vec<String> {
            values
                .iter()
                .filter(|v| !v.is_null())
                .map(|v| format!("`{}`", v.as_str().map_or(v.to_string(), str::to_owned)))
                .collect()
        };
        if let Some(values) = schema["enum"].as_array() {
            return words(values).join(", ");
        }
        if !schema["const"].is_null() {
            return words(&vec![schema["const"].clone()]).concat();
        }
        let ways =
            schema["anyOf"].as_array().or(schema["oneOf"].as_array()).filter(|_| !schema["properties"].is_object());
        if let Some(ways) = ways {
            let mut called: Vec<String> =
                ways.iter().filter(|way| way["type"] != "null").map(|way| self.called(way)).collect();
            called.dedup();
            return called.join(" or ");
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(all) => all.iter().filter_map(Value::as_str).filter(|one| *one != "null").collect(),
            _ => vec![],
        };
        let called: Vec<String> = types
            .iter()
            .map(|one| match *one {
                "string" => "text".to_owned(),
                "integer" => "whole number".to_owned(),
                "number" => "number".to_owned(),
                "boolean" => "`true` or `false`".to_owned(),
                "array" => format!("list of {}", plural(&self.called(&schema["items"]))),
                "object" => match schema["properties"].as_object().filter(|own| own.len() == 1) {
                    Some(own) => own.keys().map(|key| format!("`{key}:`")).collect(),
                    None => "mapping".to_owned(),
                },
                other => other.to_owned(),
            })
            .collect();
        if called.is_empty() { "anything".to_owned() } else { called.join(" or ") }
    }
}

/// The values explained at the top of the page.
const KNOWN: &[(&str, &str)] = &[
    ("Span", "time"),
    ("Share", "share"),
    ("Size", "size"),
    ("SecretFrom", "secret"),
    ("Figure", "figure"),
    ("Text", "text"),
    ("Within", "`immediate`, `best-effort` or time"),
    ("check", "check"),
];

fn explained(name: Option<&str>) -> bool {
    KNOWN.iter().any(|(known, _)| Some(*known) == name)
}

fn plural(one: &str) -> String {
    match one {
        "text" => "texts".into(),
        "mapping" => "mappings".into(),
        "check" => "checks".into(),
        "whole number" => "whole numbers".into(),
        other => other.into(),
    }
}

fn described(own: &Value, target: &Value) -> String {
    let text = own["description"].as_str().or(target["description"].as_str()).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Lines of at most 120 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| line.len() + 1 + word.len() > 120) {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}
