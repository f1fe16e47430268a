//! What a rollback is, without the world it happens in: no I/O, no clock, no randomness.

mod advance; // how a trigger goes from one state to the next
mod advice; // rollback or fix forward
mod application; // an application as configured and validated
mod baseline; // what was normal before a release
mod checker; // an independent pass over the laws that every plan obeys
mod component; // the port to what has a revision
mod decide; // from breaches to a decision
mod decision; // call, matrix, authority, incident
mod digest; // content addresses
mod duration; // lengths of time in the record and for people
mod event; // the only record
mod evidence; // what a verdict was made from, and deriving it again
mod guard; // conditions in CEL
mod host; // the ports to machines and to people's channels
mod matrix; // the decision matrix: judging it, and proving it total
mod name; // names and identities
mod plan; // steps, their order, their digest
mod planner; // from a target and a survey to a plan
mod release; // releases and the last known good
mod retention; // which captures are kept
mod revision; // what a place is at, can go to and would lose
mod run; // one execution of a plan: the fold of its events
mod secret; // where secrets are, and redaction
mod signal; // the port to what is measured
mod store; // the port to the record
mod timeline; // what happened when, and how long it took
mod trigger; // when a signal has been bad for long enough

pub use advance::{advance, advance_in_place, blind};
pub use advice::{Advice, Lean, Reason, advise};
pub use application::{Application, CheckSpec, ComponentSpec, Notify, Parts, Policy, SignalSpec, Stage};
pub use baseline::Baseline;
pub use checker::{Broken, check};
pub use component::{
    Before, CannotPlan, Capabilities, Component, Cx, Destroys, Downtime, Failure, Fut, Held, HeldIn, Holds,
    KindVersion, Layer, Lifecycle, Made, Nature, Observation, Observe, Outcome, Proof, Readers, Redo, Retry, Want,
    Wish, resolve,
};
pub use decide::{Known, blame, decide};
pub use decision::{
    Authority, Blame, Bounds, Call, Combine, Decision, Facts, Incident, Matrix, Row, Ruling, Severity, SeverityRule,
    Within,
};
pub use digest::{BadDigest, Digest};
pub use duration::{after, between, human, ms, ms_option};
pub use event::{Answer, Body, Check, Compared, EVENT_VERSION, End, Epoch, Event, NewEvent, ParkedWhy, Verb};
pub use evidence::{Disagrees, ENGINE_VERSION, Evidence, rederive};
pub use guard::{Guard, GuardError};
pub use host::{About, Channel, Command, Host, HostError, Message, NotDelivered, Output};
pub use matrix::{MatrixFault, Ruled};
pub use name::{
    Actor, AppId, BadName, CaptureId, ChannelId, CheckId, ComponentId, HostId, IncidentId, Key, Name, ObligationId,
    Place, ReleaseId, RunId, Seq, SignalId, StepId, TriggerId,
};
pub use plan::{
    Action, CapturePurpose, CaptureRef, Climb, Consent, Draft, Estimate, LeftAlone, Limits, Means, OnFailure,
    PastTimes, Phase, Plan, Priced, ProofLevel, Purpose, Rung, Shown, Step, covers, price,
};
pub use planner::{Asked, NoPlan, Planned, Target, plan};
pub use release::{Ledger, NoTarget, Origin, Quarantine, Recorded, Release, Standing, Verdict};
pub use retention::{Kept, retention};
pub use revision::{Available, Inventory, Loss, Revision, RevisionId, RowLoss, Seen, Survey, TargetId, Wanted};
pub use run::{Next, Obligation, OutOfOrder, Owed, Run, RunState, StepState};
pub use secret::{REDACTED, Redactor, Secret, SecretRef};
pub use signal::{Reading, Sample, Signal, Unit};
pub use store::{
    AcquireError, AppendError, Approval, Ask, Batch, CaptureRow, Holder, Lease, LeaseOn, Outgoing, Predecessor, Reply,
    Request, RunRow, Store, StoreError,
};
pub use timeline::{HALF_WAY, Moment, Times, moments, times};
pub use trigger::{Clear, Condition, Follows, Hold, Memory, Missing, Rule, TriggerState};
