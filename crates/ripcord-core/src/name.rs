//! Names and identities. All are plain text outside and distinct types inside, so that a run is never passed for a release.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a name: {why}")]
pub struct BadName {
    pub text: String,
    pub why: &'static str,
}

/// Checks the one rule all names share: 1 to 63 of `a-z`, `0-9`, `-`, `_`, `.`, beginning with a letter or digit.
///
/// 63 is the limit of a DNS label and of a PostgreSQL identifier, where names of ours end up.
fn check(text: &str) -> Result<(), BadName> {
    let bad = |why| Err(BadName { text: text.to_owned(), why });
    let Some(first) = text.bytes().next() else { return bad("it is empty") };
    if text.len() > 63 {
        return bad("it is longer than 63 characters");
    }
    if !(first.is_ascii_lowercase() || first.is_ascii_digit()) {
        return bad("it must begin with a small letter or a digit");
    }
    if text.bytes().any(|b| !(b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))) {
        return bad("only small letters, digits, `-`, `_` and `.` may appear");
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::new(text)
            }
        }
        impl std::str::FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    )*};
}

names! {
    /// A name that has no more special type: an application, an environment, a strategy, a role.
    Name
    /// One part of an application that has a revision or holds data.
    ComponentId
    /// A machine that components live on. A component without one is where Ripcord runs.
    HostId
    /// Something measured.
    SignalId
    /// A rule over a signal.
    TriggerId
    /// A verification check.
    CheckId
    /// Where messages go.
    ChannelId
}

macro_rules! numbered {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The identity of what the event numbered `seq` begins.
            ///
            /// Only the lease holder appends, so a sequence number names one thing in one application and environment:
            /// short enough to type at night, and no randomness needed.
            pub fn at(seq: Seq) -> Self {
                Self(format!(concat!($prefix, "-{}"), seq.0))
            }
            /// Takes what a person typed: the whole identity, or its number alone.
            pub fn typed(text: &str) -> Self {
                match text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
                    true => Self(format!(concat!($prefix, "-{}"), text)),
                    false => Self(text.to_owned()),
                }
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}

/// The place of an event in the journal of one application and environment; the first is 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

numbered! {
    /// One execution of a plan.
    RunId = "run"
    /// One release of an application into an environment.
    ReleaseId = "rel"
    /// Breaches and reports that belong together.
    IncidentId = "inc"
    /// Something switched off that must come on again.
    ObligationId = "obl"
    /// What makes a revision restorable.
    CaptureId = "cap"
}

/// One step of a plan: `<phase>/<place>` or with a number behind it where a place has several. Unique within its plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub String);

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The identity of an effect in the world: the same however often the step is tried, so that a second try can be told
/// from a second wish.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub String);

impl Key {
    pub fn of(app: &AppId, run: &RunId, step: &StepId) -> Self {
        Self(format!("{}/{}/{run}/{step}", app.application, app.environment))
    }
    /// The key as a file name: safe in a path, and not longer than one may be.
    pub fn file_name(&self) -> String {
        let digest = crate::Digest::of(self.0.as_bytes());
        let tail: String =
            self.0.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
        let tail = &tail[tail.len().saturating_sub(60)..];
        format!("{tail}-{}", &digest.hex()[..8])
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An application in an environment: the identity of ledger, lease, journal and incidents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AppId {
    pub application: Name,
    pub environment: Name,
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.application, self.environment)
    }
}

/// A component on a host: the smallest thing observed and acted on. Written `component` or `component@host`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place {
    pub component: ComponentId,
    pub host: Option<HostId>,
}

impl Place {
    pub fn local(component: ComponentId) -> Self {
        Self { component, host: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => f.pad(self.component.as_str()),
            Some(host) => f.pad(&format!("{}@{host}", self.component)),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        match text.split_once('@') {
            None => Ok(Self { component: ComponentId::new(text)?, host: None }),
            Some((component, host)) => Ok(Self { component: component.parse()?, host: Some(host.parse()?) }),
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> String {
        place.to_string()
    }
}

/// Who did or said something. The command line knows the operating system's user and host; authenticated surfaces know more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "actor", rename_all = "kebab-case")]
pub enum Actor {
    /// A person at a command line.
    Person { user: String, host: String },
    /// The rules, acting within the authority the configuration gives them.
    Policy,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person { user, host } => write!(f, "{user}@{host}"),
            Self::Policy => f.write_str("policy"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_wrong_with_a_text() {
        let why = |text: &str| Name::new(text).map_err(|e| e.why);
        assert_eq!(why(""), Err("it is empty"));
        assert_eq!(why("-x"), Err("it must begin with a small letter or a digit"));
        assert_eq!(why("Shop"), Err("it must begin with a small letter or a digit"));
        assert_eq!(why("a/b"), Err("only small letters, digits, `-`, `_` and `.` may appear"));
        assert_eq!(why(&"a".repeat(64)), Err("it is longer than 63 characters"));
        assert!(Name::new("l09_api-gateway.v2").is_ok());
    }

    #[test]
    fn places_read_back_as_written() {
        for text in ["web", "web@host-1"] {
            assert_eq!(Place::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        assert!(Place::try_from("web@".to_owned()).is_err());
    }

    #[test]
    fn a_number_alone_is_an_identity() {
        assert_eq!(RunId::typed("42"), RunId::at(Seq(42)));
        assert_eq!(RunId::typed("run-42"), RunId::at(Seq(42)));
    }
}
