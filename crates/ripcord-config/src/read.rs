//! Reads types out of the tree, going on after each mistake so that several are found at once.
//!
//! Three things serde's own deserializers do not do: an unknown key is reported with the key that was meant; a value that
//! cannot be read is reported and left out, and the rest is read all the same; and [`At`] keeps the place of what it holds.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

use crate::report::{Finding, Findings, Level, Spot, suggest};
use crate::tree::{Node, What};

/// Why a value could not be read.
#[derive(Debug)]
pub(crate) struct Wrong {
    what: String,
    help: Option<String>,
    spot: Option<Spot>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Other,
    /// Something is not there: said of the mapping it is missing from.
    Missing,
    /// What was found must not be shown.
    Secret,
    /// Already among the findings.
    Said,
}

impl Wrong {
    fn new(what: impl Into<String>, help: Option<String>) -> Self {
        Self { what: what.into(), help, spot: None, kind: Kind::Other }
    }
    fn said() -> Self {
        Self { what: String::new(), help: None, spot: None, kind: Kind::Said }
    }
    /// Gives the innermost place, which is asked first.
    fn at(mut self, spot: Spot) -> Self {
        self.spot = self.spot.or(Some(spot));
        self
    }
    /// Gives the place of a value; of what it belongs to, where something in it is missing.
    fn placed(self, node: &Node, owner: Spot) -> Self {
        let spot = if self.kind == Kind::Missing { owner } else { node.spot };
        self.at(spot)
    }
    /// Puts it among the findings.
    pub fn say(self, findings: &Findings) {
        if self.kind != Kind::Said {
            let conceal = self.kind == Kind::Secret;
            findings.push(Finding { level: Level::Error, what: self.what, help: self.help, spot: self.spot, conceal });
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        let (what, help) = message.split_once('\n').map_or((message.as_str(), None), |(w, h)| (w, Some(h.to_owned())));
        let kind = if what == crate::wire::SECRET_WRITTEN { Kind::Secret } else { Kind::Other };
        Self { kind, ..Self::new(what, help) }
    }
    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = in_words(&expected.to_string());
        let help = match (&found, expected.as_str()) {
            (Unexpected::Str(word), "`true` or `false`")
                if ["yes", "on", "y"].contains(&word.to_lowercase().as_str()) =>
            {
                Some("write `true`".to_owned())
            }
            (Unexpected::Str(word), "`true` or `false`")
                if ["no", "off", "n"].contains(&word.to_lowercase().as_str()) =>
            {
                Some("write `false`".to_owned())
            }
            (Unexpected::Str(word), "a list") if !word.contains('\n') => Some(format!("write `[{word}]`")),
            (_, expected) => how_to_write(expected),
        };
        Self::new(format!("expected {expected}, found {}", found_in_words(found)), help)
    }
    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = in_words(&expected.to_string());
        Self::new(format!("expected {expected}, found {}", found_in_words(found)), how_to_write(&expected))
    }
    fn invalid_length(length: usize, expected: &dyn de::Expected) -> Self {
        let expected = in_words(&expected.to_string());
        Self::new(format!("expected {expected}, found {length} of them"), how_to_write(&expected))
    }
    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let help = suggest(variant, expected.iter().copied(), "possible here");
        Self::new(format!("`{variant}` is not possible here"), Some(help))
    }
    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown key `{field}`"), Some(suggest(field, expected.iter().copied(), "possible here")))
    }
    fn missing_field(field: &'static str) -> Self {
        Self { kind: Kind::Missing, ..Self::new(format!("`{field}` is missing"), Some(format!("add `{field}:`"))) }
    }
    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("`{field}` is written twice"), Some("keep one of them".into()))
    }
}

/// serde's names for what was expected, as a person would say them.
fn in_words(expected: &str) -> String {
    match expected {
        "a sequence" => "a list".into(),
        "a map" | "map" => "a mapping (`key: value`)".into(),
        "a string" | "string" | "str" | "path string" | "a borrowed string" => "a text".into(),
        "a boolean" | "bool" => "`true` or `false`".into(),
        "a number" | "f64" | "f32" => "a number".into(),
        "u8" => "a whole number from 0 to 255".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" | "u64" | "usize" => "a whole number, 0 or more".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "unit" => "nothing".into(),
        _ if expected.starts_with("struct ") => "a mapping (`key: value`)".into(),
        _ if expected.starts_with("enum ") || expected.contains("variant") => "one of the words possible here".into(),
        other => other.into(),
    }
}

/// How that is written which was expected.
fn how_to_write(expected: &str) -> Option<String> {
    Some(match expected {
        "a list" => "write `[one, another]`, or each item on a line of its own behind `- `".into(),
        "a text" => "write one value, in quotes where it holds `: ` or ` #`".into(),
        "`true` or `false`" => "write `true` or `false` without quotes".into(),
        "a mapping (`key: value`)" => {
            "write `key: value` on lines of their own, further in, or `{ key: value }`".into()
        }
        other if other.starts_with("a number") || other.starts_with("a whole number") => {
            "write the number without quotes and without a unit".into()
        }
        other => format!("write {other}"),
    })
}

fn found_in_words(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(b) => format!("`{b}`"),
        Unexpected::Unsigned(n) => format!("the number `{n}`"),
        Unexpected::Signed(n) => format!("the number `{n}`"),
        Unexpected::Float(n) => format!("the number `{n}`"),
        Unexpected::Str(text) if text.chars().count() <= 40 && !text.contains('\n') => format!("the text `{text}`"),
        Unexpected::Str(_) | Unexpected::Char(_) | Unexpected::Bytes(_) => "a text".into(),
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map | Unexpected::NewtypeStruct => "a mapping".into(),
        other => other.to_string(),
    }
}

/// Reads a `T` from `node`; what is wrong goes to the findings. `owner` is where something missing is said to be missing.
pub(crate) fn read<'de, T: Deserialize<'de>>(node: &'de Node, owner: Spot, findings: &Findings) -> Option<T> {
    read_with(node, owner, findings, |reader| T::deserialize(reader))
}

/// More mistakes than this in one value are not looked for.
const MOST: usize = 64;

/// Reads a value with `how`. After a mistake it is read again without what was wrong, until nothing new is found: serde's
/// visitors are used once, so a list or a mapping cannot go on by itself behind an item that it could not read.
pub(crate) fn read_with<'de, T>(
    node: &'de Node,
    owner: Spot,
    findings: &Findings,
    how: impl Fn(Reader<'de, '_>) -> Result<T, Wrong>,
) -> Option<T> {
    let pass = Pass { findings, left_out: RefCell::default(), grew: Cell::new(false), failed: Cell::new(false) };
    for _ in 0..MOST {
        pass.grew.set(false);
        match how(Reader { node, owner, pass: &pass }) {
            Ok(value) if !pass.failed.get() => return Some(value),
            Ok(_) => return None,
            Err(wrong) if wrong.kind == Kind::Said && pass.grew.get() => pass.failed.set(true),
            Err(wrong) => {
                wrong.placed(node, owner).say(findings);
                return None;
            }
        }
    }
    None
}

/// What the attempts at one value have in common.
struct Pass<'p> {
    findings: &'p Findings,
    /// Values that could not be read, by their address in the tree.
    left_out: RefCell<BTreeSet<usize>>,
    /// Whether this attempt left out something more.
    grew: Cell<bool>,
    failed: Cell<bool>,
}

impl Pass<'_> {
    fn leaves_out(&self, node: &Node) -> bool {
        self.left_out.borrow().contains(&std::ptr::from_ref(node).addr())
    }
    /// Says what is wrong with `node`, and leaves it out of the next attempt. Where something inside it was said and left out in
    /// this attempt, `node` itself gets another chance.
    fn refuse(&self, node: &Node, owner: Spot, wrong: Wrong) -> Wrong {
        let wrong = wrong.placed(node, owner);
        let inside = wrong.kind == Kind::Said && self.grew.get();
        if !inside {
            wrong.say(self.findings);
            self.left_out.borrow_mut().insert(std::ptr::from_ref(node).addr());
            self.grew.set(true);
        }
        Wrong::said()
    }
}

/// The deserializer over a node.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'de, 'p> {
    node: &'de Node,
    owner: Spot,
    pass: &'p Pass<'p>,
}

impl<'de, 'p> Reader<'de, 'p> {
    fn of(self, node: &'de Node, owner: Spot) -> Self {
        Self { node, owner, pass: self.pass }
    }
    fn place<T>(self, result: Result<T, Wrong>) -> Result<T, Wrong> {
        result.map_err(|wrong| wrong.placed(self.node, self.owner))
    }
    fn wrong_type<T>(self, expected: &dyn de::Expected) -> Result<T, Wrong> {
        let found = match &self.node.what {
            What::Null => Unexpected::Unit,
            What::Bool(b) => Unexpected::Bool(*b),
            What::Number(n, _) => n.as_f64().map_or(Unexpected::Unit, Unexpected::Float),
            What::Text(text) => Unexpected::Str(text),
            What::List(_) => Unexpected::Seq,
            What::Map(_) => Unexpected::Map,
        };
        self.place(Err(de::Error::invalid_type(found, expected)))
    }

    fn list<V: Visitor<'de>>(self, items: &'de [Node], visitor: V) -> Result<V::Value, Wrong> {
        let mut access = Items { reader: self, items: items.iter(), failed: false };
        let result = visitor.visit_seq(&mut access);
        // A shorter list than there was is the consequence of what was already said.
        let failed = access.failed;
        self.place(result.map_err(|wrong| if failed { Wrong::said() } else { wrong }))
    }

    fn map<V: Visitor<'de>>(
        self,
        entries: &'de [(Node, Node)],
        known: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let mut access = Entries { reader: self, entries: entries.iter(), known, value: None, failed: false };
        let result = visitor.visit_map(&mut access);
        // What the whole finds wrong with itself may be the consequence of what was left out.
        let failed = access.failed;
        self.place(result.map_err(|wrong| if failed && wrong.spot.is_none() { Wrong::said() } else { wrong }))
    }

    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.what {
            What::Number(n, _) => {
                let result = match (n.as_u64(), n.as_i64(), n.as_f64()) {
                    (Some(n), ..) => visitor.visit_u64(n),
                    (_, Some(n), _) => visitor.visit_i64(n),
                    (.., Some(n)) => visitor.visit_f64(n),
                    _ => return self.wrong_type(&visitor),
                };
                self.place(result)
            }
            _ => self.wrong_type(&visitor),
        }
    }
}

/// The name under which [`At`] asks for the place.
const AT: &str = "$ripcord::At";

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            self.number(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.what {
            What::Null => self.place(visitor.visit_unit()),
            What::Bool(b) => self.place(visitor.visit_bool(*b)),
            What::Number(..) => self.number(visitor),
            What::Text(text) => self.place(visitor.visit_borrowed_str(text)),
            What::List(items) => self.list(items, visitor),
            What::Map(entries) => self.map(entries, None, visitor),
        }
    }
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.what {
            What::Bool(b) => self.place(visitor.visit_bool(*b)),
            _ => self.wrong_type(&visitor),
        }
    }
    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_f32 deserialize_f64
    }
    /// A number or a truth where a text is wanted is taken as it was written: `version: 1.10`, `[echo, true]`.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.what {
            What::Text(text) | What::Number(_, text) => self.place(visitor.visit_borrowed_str(text)),
            What::Bool(b) => self.place(visitor.visit_borrowed_str(if *b { "true" } else { "false" })),
            _ => self.wrong_type(&visitor),
        }
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.what {
            What::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.what {
            What::Null => visitor.visit_unit(),
            _ => self.wrong_type(&visitor),
        }
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.what {
            What::Map(entries) if entries.is_empty() => visitor.visit_unit(),
            _ => self.deserialize_unit(visitor),
        }
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        match name {
            AT => visitor.visit_seq(Placed { reader: self, asked: 0 }),
            _ => visitor.visit_newtype_struct(self),
        }
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.what {
            What::List(items) => self.list(items, visitor),
            What::Null => self.list(&[], visitor),
            _ => self.wrong_type(&visitor),
        }
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.what {
            What::Map(entries) => self.map(entries, None, visitor),
            What::Null => self.map(&[], None, visitor),
            _ => self.wrong_type(&visitor),
        }
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match &self.node.what {
            What::Map(entries) => self.map(entries, Some(fields), visitor),
            // `terminal:` with nothing behind it: all settings at their defaults.
            What::Null => self.map(&[], Some(fields), visitor),
            _ => self.wrong_type(&visitor),
        }
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match &self.node.what {
            What::Text(_) | What::Number(..) | What::Bool(_) => {
                self.place(visitor.visit_enum(Variant { reader: self, tag: self.node, value: None }))
            }
            What::Map(entries) if entries.len() == 1 => {
                let (tag, value) = &entries[0];
                self.place(visitor.visit_enum(Variant { reader: self, tag, value: Some(value) }))
            }
            _ => {
                let names: Vec<String> = variants.iter().map(|name| format!("`{name}`")).collect();
                let (one, found) = (names.join(", "), self.node.called());
                self.place(Err(Wrong::new(
                    format!("expected one of {one}, found {found}"),
                    Some("write one of them".into()),
                )))
            }
        }
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }
}

struct Items<'de, 'p> {
    reader: Reader<'de, 'p>,
    items: std::slice::Iter<'de, Node>,
    failed: bool,
}

impl<'de> SeqAccess<'de> for &mut Items<'de, '_> {
    type Error = Wrong;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        for item in self.items.by_ref() {
            if self.reader.pass.leaves_out(item) {
                self.failed = true;
                continue;
            }
            let read = seed.deserialize(self.reader.of(item, item.spot));
            return read.map(Some).map_err(|wrong| self.reader.pass.refuse(item, item.spot, wrong));
        }
        Ok(None)
    }
}

struct Entries<'de, 'p> {
    reader: Reader<'de, 'p>,
    entries: std::slice::Iter<'de, (Node, Node)>,
    known: Option<&'static [&'static str]>,
    value: Option<(&'de Node, &'de Node)>,
    failed: bool,
}

impl<'de> MapAccess<'de> for &mut Entries<'de, '_> {
    type Error = Wrong;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        let pass = self.reader.pass;
        for (key, value) in self.entries.by_ref() {
            if let Some(known) = self.known
                && !known.contains(&key.text())
            {
                let help = suggest(key.text(), known.iter().copied(), "possible here");
                pass.findings.error(key.spot, format!("unknown key `{}`", key.text()), help);
                pass.failed.set(true);
                self.failed = true;
                continue;
            }
            if pass.leaves_out(value) {
                self.failed = true;
                continue;
            }
            self.value = Some((key, value));
            return seed
                .deserialize(self.reader.of(key, key.spot))
                .map(Some)
                .map_err(|wrong| pass.refuse(value, key.spot, wrong));
        }
        Ok(None)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Wrong> {
        let Some((key, value)) = self.value.take() else { return Err(Wrong::new("a value without its key", None)) };
        seed.deserialize(self.reader.of(value, key.spot))
            .map_err(|wrong| self.reader.pass.refuse(value, key.spot, wrong))
    }
}

struct Variant<'de, 'p> {
    reader: Reader<'de, 'p>,
    tag: &'de Node,
    value: Option<&'de Node>,
}

impl<'de, 'p> EnumAccess<'de> for Variant<'de, 'p> {
    type Error = Wrong;
    type Variant = Self;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Wrong> {
        let tag = seed.deserialize(self.reader.of(self.tag, self.tag.spot))?;
        Ok((tag, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de, '_> {
    type Error = Wrong;
    fn unit_variant(self) -> Result<(), Wrong> {
        match self.value {
            None => Ok(()),
            Some(value) if matches!(value.what, What::Null) => Ok(()),
            Some(value) => {
                let what = format!("`{}` takes nothing behind it", self.tag.text());
                Err(Wrong::new(what, Some(format!("write `{}` alone", self.tag.text()))).at(value.spot))
            }
        }
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Wrong> {
        match self.value {
            Some(value) => seed.deserialize(self.reader.of(value, self.tag.spot)),
            None => {
                let tag = self.tag.text();
                Err(Wrong::new(format!("`{tag}` needs something behind it"), Some(format!("write `{tag}: ..`")))
                    .at(self.tag.spot))
            }
        }
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            Some(value) => self.reader.of(value, self.tag.spot).deserialize_seq(visitor),
            None => self.reader.list(&[], visitor),
        }
    }
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            Some(value) => self.reader.of(value, self.tag.spot).deserialize_struct("", fields, visitor),
            None => self.reader.map(&[], Some(fields), visitor),
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At<T> {
    pub value: T,
    pub spot: Spot,
}

impl<T> std::ops::Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// Gives [`At`] its place, then its value.
struct Placed<'de, 'p> {
    reader: Reader<'de, 'p>,
    asked: u8,
}

impl<'de> SeqAccess<'de> for Placed<'de, '_> {
    type Error = Wrong;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        self.asked += 1;
        let Spot { start, end } = self.reader.node.spot;
        let number = |n: usize| IntoDeserializer::<Wrong>::into_deserializer(n);
        match self.asked {
            1 => seed.deserialize(number(start)).map(Some),
            2 => seed.deserialize(number(end)).map(Some),
            _ => seed.deserialize(self.reader).map(Some),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct AtVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for AtVisitor<T> {
            type Value = At<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<At<T>, A::Error> {
                let none = || de::Error::custom("a place without its value");
                let start = seq.next_element()?.ok_or_else(none)?;
                let end = seq.next_element()?.ok_or_else(none)?;
                let value = seq.next_element()?.ok_or_else(none)?;
                Ok(At { value, spot: Spot { start, end } })
            }
        }
        from.deserialize_newtype_struct(AT, AtVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// The fields of a struct, as they are written in the file.
pub(crate) fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Ask<'a>(&'a Cell<&'static [&'static str]>);
    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = Wrong;
        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Wrong> {
            Err(Wrong::said())
        }
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Wrong> {
            self.0.set(fields);
            Err(Wrong::said())
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let fields = Cell::new(&[] as &[&str]);
    // It never succeeds: it only asks.
    drop(T::deserialize(Ask(&fields)));
    fields.get()
}
