//! What a rollback is, without the world it happens in: no I/O, no clock, no randomness.
mod digest; // content addresses
mod name; // names and identities

pub use digest::{BadDigest, Digest};
pub use name::{
    Actor, AppId, BadName, CaptureId, ChannelId, CheckId, ComponentId, HostId, IncidentId, Key, Name, ObligationId, Place,
    ReleaseId, RunId, Seq, SignalId, StepId, TriggerId,
};
