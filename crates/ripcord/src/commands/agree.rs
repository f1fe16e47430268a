//! Asking a person for a yes to a plan they were shown.

use jiff::Timestamp;
use ripcord_core::{Consent as Given, Plan};

use crate::args::{CONFIRM, Consent};
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;

/// The yes, and the consent to a loss where the plan gives something up.
///
/// `--yes` is a yes to the plan. What is given up needs its words: typed, or given with `--confirm`.
pub fn agree(
    screen: &Screen,
    plan: &Plan,
    consent: &Consent,
    now: Timestamp,
    question: &str,
) -> Result<Option<Given>, Problem> {
    let given = || Given { plan: plan.digest(), loss: plan.loss_at_most.clone(), at: now };
    let refused = |what: &str, help: &str| Problem::new(Exit::Refused, what).help(help);
    if !consent.yes && !screen.can_ask() {
        return Err(refused("nobody said yes to the plan", "read it, then add `--yes`"));
    }
    if plan.gives_up() {
        return match (&consent.confirm, screen.can_ask()) {
            (Some(_), _) if consent.yes => Ok(Some(given())),
            (_, true) => match screen.ask(&format!("It gives data up. Type {CONFIRM} to consent:")).as_deref() {
                Some(CONFIRM) => Ok(Some(given())),
                _ => Err(refused("the words were not typed", "nothing is given up without them")),
            },
            (None, false) | (Some(_), false) => Err(refused(
                "the plan gives data up, and nobody consented to it",
                "read what is lost, then add `--confirm \"CONFIRM DATA LOSS\"`",
            )),
        };
    }
    if consent.yes {
        return Ok(None);
    }
    match screen.ask(&format!("{question} [y/N]")).as_deref() {
        Some("y" | "Y" | "yes") => Ok(None),
        _ => Err(refused("not agreed to", "`--dry-run` only shows the plan")),
    }
}
