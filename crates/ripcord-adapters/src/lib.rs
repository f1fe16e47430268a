//! Components, signals, channels and hosts: one file per kind, leaves of the tree.
//!
//! The only crate that speaks to the systems being taken back. It decides nothing: what a kind can do is data that the rules read
//! beforehand, what it found is on the record, and what it does is what a plan showed.

mod base64; // bytes as text
pub mod channels; // where messages go
pub mod components; // what has a revision
mod docker; // the Docker Engine
mod etcd; // etcd, through its JSON gateway
pub mod hosts; // where commands run
mod http; // requests, and what their failures mean
mod kinds; // the registry: one line per kind
mod pm2; // what pm2 says of an application
mod postgres; // PostgreSQL servers, and their programs
mod redis; // Redis servers, and what they refuse
pub mod secrets; // from where a secret is to the secret
pub mod signals; // what is measured
mod systemd; // what systemd says of a unit

pub use kinds::{
    Adapters, BuildCx, BuildError, ChannelKind, ChannelSettings, ComponentKind, ComponentSettings, Record, SignalKind,
    SignalSettings, Sink, build_channel, build_component, build_signal,
};
