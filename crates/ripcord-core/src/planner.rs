//! From a target and a survey to a plan.

use std::collections::BTreeMap;

use crate::{Application, Inventory, Parts, Place, Plan, Purpose, Recorded, ReleaseId, Rung};

/// Where a plan goes: a release, or the state captured before a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub release: Option<ReleaseId>,
    pub version: Option<String>,
    pub map: BTreeMap<Place, Recorded>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoPlan {
    #[error("nothing to do: {why}")]
    NothingToDo { why: String },
}

pub fn plan(
    _application: &Application,
    _parts: &Parts,
    _target: &Target,
    _seen: &Inventory,
    _rung: &Rung,
    _purpose: Purpose,
) -> Result<Plan, NoPlan> {
    Err(NoPlan::NothingToDo { why: String::new() })
}
