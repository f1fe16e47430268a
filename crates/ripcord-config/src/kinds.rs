//! The seam to the crate that implements the kinds: their settings, schemas and examples.
//!
//! Generic over the deserializer rather than erased, so that an error raised deep inside a kind's settings keeps its place.

use ripcord_core::{Layer, Nature, Unit};
use serde::Deserializer;

/// The kinds that exist. The three settings types are typed values, not yet live objects.
///
/// In a message given to `serde::de::Error::custom`, the first line says what is wrong and a second, if there is one, what to do.
pub trait Kinds {
    type Component;
    type Signal;
    type Channel;

    fn component_kinds() -> &'static [KindDoc];
    fn signal_kinds() -> &'static [KindDoc];
    fn channel_kinds() -> &'static [KindDoc];

    /// Reads the settings of a component of `kind`, one of [`Kinds::component_kinds`].
    fn component<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Result<Self::Component, D::Error>;
    fn signal<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Result<Self::Signal, D::Error>;
    fn channel<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Result<Self::Channel, D::Error>;

    /// Mistakes that only the kind can see, in settings that were read without error.
    fn check_component(settings: &Self::Component) -> Vec<Mistake>;
    fn check_signal(settings: &Self::Signal) -> Vec<Mistake>;
    fn check_channel(settings: &Self::Channel) -> Vec<Mistake>;

    /// What the signal's values are, so that thresholds are checked against it.
    fn signal_unit(settings: &Self::Signal) -> Unit;
    /// The fields a sample carries beside `value` and `n`, so that assertions are checked against them.
    fn signal_fields(settings: &Self::Signal) -> &'static [&'static str];
    /// Whether the component changes by release or by use.
    fn lifecycle_hint(settings: &Self::Component) -> Nature;
}

/// What a kind says of itself: the reference and the schema are made from it.
#[derive(Debug, Clone, Copy)]
pub struct KindDoc {
    /// As it is written in the file.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Settings of this kind in YAML, as they stand under its name and without it. A test reads every one.
    pub example: &'static str,
    /// Where a component of this kind stands unless its `layer:` says otherwise. Nothing for signals and channels.
    pub layer: Layer,
    /// The settings' schema: `|| schemars::schema_for!(Settings)`.
    pub schema: fn() -> schemars::Schema,
}

/// A mistake in settings that were read; the place is added by configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub what: String,
    /// The path of the field within the settings as written (`url`, `headers.accept`, `steps.0.path`); none: all of them.
    pub field: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Mistake {
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), field: None, help: None }
    }
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
