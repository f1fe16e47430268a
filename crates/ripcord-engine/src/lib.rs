//! What carries decisions out: the lease holder's desk, runs driven to their end, signals watched, releases deployed.

mod aftermath; // what follows when every step is settled
mod asks; // answers requests of other processes
mod bake; // takes up a bake that was cut off
mod board; // what the detector knows right now
mod checks; // verification checks
mod clock; // what time it is
mod deploy; // a deployment around somebody's own command
mod desk; // the lease holder's desk
mod detector; // reads signals, advances triggers
mod drive; // drives a run to its end
mod effect; // one call to the world
mod hold; // everything at the desk, together
mod office; // from breaches and requests to runs
mod outbox; // delivers messages
mod pricing; // what plans cost
mod propose; // from a wish to a proposal
mod readiness; // can we go back?
mod record; // captures and records the present
mod shelf; // captures in the vault
mod survey; // looking at every place
mod tell; // what people are told
mod upkeep; // reading back, pruning, tidying

pub use asks::severity_named;
pub use bake::{Baking, baking};
pub use board::{Board, Latest};
pub use clock::Clock;
pub use deploy::{Deployed, VERIFICATION_FAILED, deploy, run_checks};
pub use desk::{Desk, Entry, Stop, TakeError, World};
pub use drive::{Driver, fold, load};
pub use hold::{Holding, TTL, last_baselines};
pub use propose::{NoProposal, Proposal, Wanted, propose, rung};
pub use readiness::{Artefact, Level, PlaceReady, Price, Readiness, Target, readiness};
pub use record::quarantined;
pub use shelf::{Found, Judged, Shelf, ShelfError, manifest};
pub use survey::{interesting, survey};
pub use tell::{aim, parked};
pub use upkeep::Pace;

use ripcord_core::{Digest, Plan};

/// A plan by its digest, compared with it when read.
pub async fn read_plan(world: &World, digest: &Digest) -> Result<Option<Plan>, Stop> {
    let Some(bytes) = world.store.blob(digest).await? else { return Ok(None) };
    let damaged = |why: String| Stop::Missing { what: format!("plan {}: {why}", digest.short()) };
    let plan: Plan = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if plan.digest() != *digest {
        return Err(damaged("its content is not what was approved".to_owned()));
    }
    Ok(Some(plan))
}
