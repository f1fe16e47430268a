//! One call to the world: looking, acting, confirming. Everything here ends within its limit, and nothing here writes the journal.

use std::sync::Arc;
use std::time::Duration;

use ripcord_core::{
    Action, Before, CaptureRef, Component, Cx, Destroys, Failure, Holds, Loss, Nature, Observation, Observe, Outcome,
    Proof, Retry, Step, Wanted,
};
use tokio::time::Instant;

/// The first pause between two looks; doubled each time up to [`SLOWEST`].
const FIRST: Duration = Duration::from_millis(20);
const SLOWEST: Duration = Duration::from_secs(1);

/// Pauses that start small and grow: waiting is polling with a deadline, never one long sleep.
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    pub async fn pause(&mut self, until: Instant) {
        let wake = (Instant::now() + self.0).min(until);
        tokio::time::sleep_until(wake).await;
        self.0 = (self.0 * 2).min(SLOWEST);
    }
}

/// Looks whether the step's goal holds; a look that does not end within the limit tells nothing.
pub async fn look(component: &Arc<dyn Component>, cx: &Cx, step: &Step, before: Option<&Before>) -> Observation {
    let looked = tokio::time::timeout(cx.limit, component.holds(cx, step, before)).await;
    looked.unwrap_or_else(|_| {
        Holds::CannotTell { why: format!("no answer within {}", ripcord_core::human(cx.limit)) }.into()
    })
}

/// Acts, and confirms by looking that the goal now holds.
///
/// What is reported done but is not seen to be so within the step's total time has failed: a report is not a proof.
pub async fn act(component: Arc<dyn Component>, cx: Cx, step: Step, before: Before) -> Outcome {
    let deadline = Instant::now() + step.limits.total;
    let proof = match tokio::time::timeout(step.limits.call, component.apply(&cx, &step, &before)).await {
        Ok(Outcome::Done(proof)) => proof,
        Ok(other) => return other,
        Err(_) => {
            return Outcome::Unknown { why: format!("no answer within {}", ripcord_core::human(step.limits.call)) };
        }
    };
    if matches!(step.action, Action::Capture { .. }) || component.capabilities().observe == Observe::No {
        return Outcome::Done(proof);
    }
    let mut backoff = Backoff::default();
    loop {
        let found = match look(&component, &cx, &step, Some(&before)).await.holds {
            Holds::Target => return Outcome::Done(proof),
            Holds::Origin => "it is as before".to_owned(),
            Holds::Neither { found } => found,
            Holds::CannotTell { why } => why,
        };
        if Instant::now() >= deadline {
            let what = format!("reported done, but {} later: {found}", ripcord_core::human(step.limits.total));
            return Outcome::Failed(Failure { what, retry: Retry::Never, advice: None, output: proof.output });
        }
        backoff.pause(deadline).await;
    }
}

/// Why a restore would lose more than the ceiling, now that nothing writes any longer; none where it would not.
///
/// The ceiling was consented to while users went on writing. What is really lost is known only here, and it is compared before the
/// step is begun, not after.
pub async fn exceeds(component: &Arc<dyn Component>, cx: &Cx, step: &Step, ceiling: &Loss) -> Option<String> {
    let Action::Restore { to, from: Some(CaptureRef::Known(capture)) } = &step.action else { return None };
    if component.capabilities().nature != Nature::Flowing && step.destroys != Destroys::GivesUp {
        return None;
    }
    let place = step.place.as_ref()?;
    let wanted = [Wanted { revision: to.clone(), capture: Some(capture.clone()) }];
    let Ok(survey) = tokio::time::timeout(cx.limit, component.survey(cx, place, &wanted)).await else {
        return Some(format!("what it would lose could not be counted within {}", ripcord_core::human(cx.limit)));
    };
    let (_, loss) = survey.losses.iter().find(|(of, _)| of == capture)?;
    // The ceiling may cover other places too; this one must fit into it.
    (!ceiling.covers(loss)).then(|| {
        format!("it would lose {} rows, and consent was given to {} at most", loss.total_rows(), ceiling.total_rows())
    })
}

/// Finds out what became of a step that may have acted, for as long as the step's total time.
pub async fn resolve(component: Arc<dyn Component>, cx: Cx, step: Step, before: Before) -> Holds {
    // A capture is found by its content, which only taking it again can show; doing so harms nothing.
    if matches!(step.action, Action::Capture { .. }) {
        return Holds::Origin;
    }
    let deadline = Instant::now() + step.limits.total;
    let mut backoff = Backoff::default();
    loop {
        match look(&component, &cx, &step, Some(&before)).await.holds {
            Holds::CannotTell { .. } if Instant::now() < deadline => backoff.pause(deadline).await,
            holds => return holds,
        }
    }
}

/// Looks whether what the plan relies on is still so. Changes nothing, so it needs no intent.
pub async fn prove(component: Arc<dyn Component>, cx: Cx, step: Step, before: Before) -> ripcord_core::Check {
    use ripcord_core::Check;
    let deadline = Instant::now() + step.limits.total;
    let mut backoff = Backoff::default();
    let mut tries = 0;
    loop {
        tries += 1;
        let why = match tokio::time::timeout(step.limits.call, component.apply(&cx, &step, &before)).await {
            Ok(Outcome::Done(Proof { found, .. })) => return Check::Pass { found },
            Ok(Outcome::Failed(failure)) if failure.retry == Retry::Never => {
                return Check::Fail { what: vec![failure.what] };
            }
            Ok(Outcome::Failed(failure)) if tries >= step.limits.tries => {
                return Check::Fail { what: vec![failure.what] };
            }
            Ok(Outcome::Failed(failure)) => failure.what,
            Ok(Outcome::Unknown { why }) => why,
            Err(_) => format!("no answer within {}", ripcord_core::human(step.limits.call)),
        };
        if tries >= step.limits.tries || Instant::now() >= deadline {
            return Check::Inconclusive { why };
        }
        backoff.pause(deadline).await;
    }
}
