//! A deployment around somebody's own command: recorded before, observed after, verified, baked, and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use ripcord_core::{
    Actor, Body, Check, Cx, End, Event, Follows, Incident, Origin, Release, ReleaseId, RunId, RunState, Severity,
    Standing, TriggerState, Verdict,
};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::checks::{self, Given};
use crate::desk::{Desk, Stop};
use crate::record::{self, HeldMap};
use crate::{Board, World};

/// The issue that a failed verification is, for the decision matrix.
pub const VERIFICATION_FAILED: &str = "verification-failed";

/// How a deployment ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Deployed {
    /// It baked to good.
    Good { release: ReleaseId },
    /// Live, and its bake time over, without what it takes to call it good.
    Undecided { release: ReleaseId, why: String },
    /// Nothing was deployed, and nothing changed.
    Refused { why: String },
    /// The command failed and left everything as it was.
    CommandFailed { why: String },
    /// The command failed and left things changed: a person must look.
    Interrupted { release: ReleaseId, why: String },
    /// It went bad and was taken back.
    RolledBack { release: ReleaseId, run: RunId, end: End },
    /// It went bad, and a person must decide or help.
    NeedsPerson { release: ReleaseId, run: Option<RunId>, why: String },
}

/// Runs `command` as the deployment of `version`.
///
/// The detector and the office work at the same desk meanwhile: a rollback they begin pre-empts the command, which is dropped, and
/// then the bake.
/// # Errors
/// [`Stop`] when the desk stops; the release then stays as the journal says, and the next holder goes on watching it.
pub async fn deploy(
    desk: &Arc<Desk>,
    board: &Arc<Board>,
    version: &str,
    argv: Vec<String>,
    command: impl Future<Output = Result<(), String>>,
) -> Result<Deployed, Stop> {
    if let Some(why) = record::quarantined(&desk.world, version).await? {
        return Ok(Deployed::Refused { why });
    }
    if let Some(why) = busy(&desk.world).await? {
        return Ok(Deployed::Refused { why });
    }
    take_baseline(desk, board).await?;
    let before = match before(desk, version).await? {
        Ok(before) => before,
        Err(why) => return Ok(Deployed::Refused { why }),
    };
    let mut events = desk.listen();
    let (release, previous) = begin(desk, board, version, argv).await?;
    let ended = tokio::select! {
        biased;
        why = desk.stopped() => return Err(why),
        () = pre_empted(desk, &mut events) => return taken_back(desk, &release.id).await,
        ended = command => ended,
    };
    if let Err(why) = ended {
        return failed(desk, &release, previous, &before, why).await;
    }
    let id = release.id.clone();
    // A rollback that begins while the new state is being looked at takes it back: what was seen of it is no release.
    let observed = tokio::select! {
        biased;
        why = desk.stopped() => return Err(why),
        () = pre_empted(desk, &mut events) => return taken_back(desk, &id).await,
        observed = observe(desk, release) => observed?,
    };
    let release = match observed {
        Ok(release) => release,
        Err((release, why)) => return Ok(Deployed::Interrupted { release, why }),
    };
    let wrong = tokio::select! {
        biased;
        why = desk.stopped() => return Err(why),
        () = pre_empted(desk, &mut events) => return taken_back(desk, &id).await,
        wrong = verify(desk, board, &release) => wrong?,
    };
    if !wrong.is_empty() {
        tokio::select! {
            biased;
            why = desk.stopped() => return Err(why),
            () = pre_empted(desk, &mut events) => return taken_back(desk, &id).await,
            reported = report_failure(desk, &wrong) => reported?,
        }
    }
    bake(desk, board, &release, events).await
}

/// A deployment that nobody carries on: whoever did held the lease that is now ours, so it ended half way.
pub(crate) async fn interrupted(desk: &Desk) -> Result<(), Stop> {
    let ledger = desk.world.store.ledger(desk.world.app()).await?;
    for release in ledger.releases.iter().filter(|release| release.standing == Standing::Deploying) {
        let what = "its deployment was cut off, and what is out there is not known to be it";
        let message = crate::tell::about_release(&desk.world, &release.version, what, desk.now());
        desk.write(|_, entry| {
            let (release, standing) = (release.id.clone(), Standing::Interrupted);
            entry.event(None, None, Body::Stands { release, standing });
            entry.message(message);
        })
        .await?;
    }
    Ok(())
}

async fn busy(world: &World) -> Result<Option<String>, Stop> {
    let runs = world.store.runs(world.app(), 10).await?;
    let open = runs.into_iter().find(|row| !matches!(row.state, RunState::Ended(_)));
    Ok(open.map(|row| match row.state {
        // The watch judges what was restored; a release over it would be judged in its place.
        RunState::Watching { until } => {
            format!("what {0} restored is watched until {until}; `ripcord abandon {0}` ends the watch", row.id)
        }
        _ => format!("{} is not over: `ripcord status` shows what it needs", row.id),
    }))
}

/// Samples every signal for the baseline window, unless enough was seen already.
async fn take_baseline(desk: &Desk, board: &Board) -> Result<(), Stop> {
    let window = desk.world.application.policy.baseline;
    let (from, until) = (desk.now(), Instant::now() + window);
    let needed: BTreeSet<_> = desk.world.application.triggers.values().map(|rule| rule.signal.clone()).collect();
    if needed.is_empty() || window.is_zero() {
        return Ok(());
    }
    desk.note(Body::Noted {
        by: Actor::Policy,
        text: format!("measuring what is normal, for {}", ripcord_core::human(window)),
    })
    .await?;
    tokio::select! {
        why = desk.stopped() => return Err(why),
        () = tokio::time::sleep_until(until) => {}
    }
    let measured = board.baselines_since(from);
    if !measured.is_empty() {
        board.set_baselines(measured);
    }
    Ok(())
}

/// What is live before the deployment, captured: the way back.
async fn before(desk: &Desk, version: &str) -> Result<Result<HeldMap, String>, Stop> {
    let world = &desk.world;
    let live = world.store.ledger(world.app()).await?.live().cloned();
    let map = match record::capture_present(desk, live.as_ref().map(|live| &live.id)).await? {
        Ok((_, map)) => map,
        Err(why) => return Ok(Err(why)),
    };
    let empty = map.values().all(|at| at.flowing || at.revision == ripcord_core::Revision::Absent);
    let drifted = live.as_ref().is_some_and(|live| drift(live, &map));
    match live {
        // The same state with fresh restore points: it stays the release it was.
        Some(live) if !drifted => {
            let release = Box::new(Release { map: map.clone(), ..live });
            desk.note(Body::Recorded { release }).await?;
        }
        // Somebody changed what was released: what runs now is recorded as what it is, and judged by nobody yet.
        Some(_) | None if !empty => {
            let name = match &live {
                Some(live) => format!("{}+changed", live.version),
                None => format!("before-{version}"),
            };
            if let Some(live) = &live {
                desk.note(Body::Stands { release: live.id.clone(), standing: Standing::Superseded }).await?;
            }
            let config = world.application.config;
            let map = map.clone();
            desk.write(|_, entry| {
                let release = Release {
                    id: ReleaseId::at(entry.next()),
                    version: name,
                    origin: Origin::Observed,
                    map,
                    config,
                    verdict: Verdict::Undecided,
                    standing: Standing::Live,
                    at: entry.at(),
                };
                entry.event(None, None, Body::Recorded { release: Box::new(release) });
            })
            .await?;
        }
        Some(_) | None => {}
    }
    Ok(Ok(map))
}

/// Whether a versioned place is elsewhere than the release recorded it, or nobody knows whether it ever was there.
fn drift(live: &Release, map: &HeldMap) -> bool {
    live.standing == Standing::Interrupted
        || map
            .iter()
            .any(|(place, at)| !at.flowing && live.map.get(place).is_some_and(|was| was.revision != at.revision))
}

/// Puts the release on the record as being deployed; returns it, and what was live before.
async fn begin(
    desk: &Desk,
    board: &Board,
    version: &str,
    command: Vec<String>,
) -> Result<(Release, Option<ReleaseId>), Stop> {
    let world = &desk.world;
    let previous = world.store.ledger(world.app()).await?.live().map(|live| live.id.clone());
    let config = world.application.config;
    let figures = board.baselines();
    let command = command.iter().map(|word| world.redactor.clean(word)).collect();
    let mut begun = None;
    desk.write(|_, entry| {
        if let Some(release) = previous.clone() {
            entry.event(None, None, Body::Stands { release, standing: Standing::Superseded });
        }
        let release = Release {
            id: ReleaseId::at(entry.next()),
            version: version.to_owned(),
            origin: Origin::Deployed { command },
            map: BTreeMap::new(),
            config,
            verdict: Verdict::Undecided,
            standing: Standing::Deploying,
            at: entry.at(),
        };
        entry.event(None, None, Body::Recorded { release: Box::new(release.clone()) });
        entry.event(None, None, Body::Baseline { release: release.id.clone(), figures });
        begun = Some(release);
    })
    .await?;
    let begun = begun.ok_or_else(|| Stop::Missing { what: "the release just begun".to_owned() })?;
    Ok((begun, previous))
}

/// Resolves when a run begins, which pre-empts the deployment.
async fn pre_empted(desk: &Desk, events: &mut broadcast::Receiver<Arc<Event>>) {
    loop {
        match events.recv().await {
            Ok(event) => {
                if event.body == Body::Started {
                    return;
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let runs = desk.world.store.runs(desk.world.app(), 1).await.unwrap_or_default();
                if runs.iter().any(|row| row.state == RunState::Running) {
                    return;
                }
            }
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The command failed: whether it changed anything is observed, not assumed.
async fn failed(
    desk: &Desk,
    release: &Release,
    previous: Option<ReleaseId>,
    before: &HeldMap,
    why: String,
) -> Result<Deployed, Stop> {
    let world = &desk.world;
    let seen = crate::survey(world, &[]).await;
    let changed: Vec<String> = before
        .iter()
        .filter(|(_, at)| !at.flowing)
        .filter(|(place, at)| seen.surveys.get(*place).and_then(|s| s.seen.revision()) != Some(&at.revision))
        .map(|(place, _)| format!("`{place}`"))
        .collect();
    let at = desk.now();
    let verdict = Verdict::Bad { why: format!("its deployment failed: {why}"), at };
    let untouched = changed.is_empty();
    let what = match untouched {
        true => format!("its deployment failed and changed nothing: {why}"),
        false => format!("its deployment failed half way ({why}); changed: {}", changed.join(", ")),
    };
    let message = crate::tell::about_release(world, &release.version, &what, at);
    desk.write(|_, entry| {
        entry.message(message);
        entry.event(None, None, Body::Judged { release: release.id.clone(), verdict });
        entry.event(None, None, Body::Stands { release: release.id.clone(), standing: Standing::Interrupted });
        if let Some(previous) = previous.filter(|_| untouched) {
            // Nothing moved: what was live before still is.
            entry.event(None, None, Body::Stands { release: release.id.clone(), standing: Standing::Superseded });
            entry.event(None, None, Body::Stands { release: previous, standing: Standing::Live });
        }
    })
    .await?;
    Ok(match untouched {
        true => Deployed::CommandFailed { why },
        false => Deployed::Interrupted {
            release: release.id.clone(),
            why: format!("{why}; changed: {}", changed.join(", ")),
        },
    })
}

/// Looks at what the command left, captures it, and records it as live.
async fn observe(desk: &Desk, release: Release) -> Result<Result<Release, (ReleaseId, String)>, Stop> {
    let (id, world) = (release.id.clone(), &desk.world);
    let map = match record::capture_present(desk, Some(&id)).await? {
        Ok((_, map)) => map,
        Err(why) => {
            let what = format!("deployed, and what is out there cannot be recorded: {why}");
            let message = crate::tell::about_release(world, &release.version, &what, desk.now());
            desk.write(|_, entry| {
                entry.event(None, None, Body::Stands { release: id.clone(), standing: Standing::Interrupted });
                entry.message(message);
            })
            .await?;
            return Ok(Err((id, why)));
        }
    };
    // It keeps the moment its deployment began: what turned bad after that may be its doing, whenever we had looked at it.
    let release = Release { map, standing: Standing::Live, ..release };
    desk.note(Body::Recorded { release: Box::new(release.clone()) }).await?;
    Ok(Ok(release))
}

/// Runs every check of the application, and returns what did not pass.
pub async fn verify(desk: &Desk, board: &Board, release: &Release) -> Result<Vec<String>, Stop> {
    let results = run_checks(&desk.world, board, &release.version).await;
    desk.write(|_, entry| {
        for (check, verdict) in &results {
            let (release, check, verdict) = (release.id.clone(), check.clone(), verdict.clone());
            entry.event(None, None, Body::Checked { release, check, verdict });
        }
    })
    .await?;
    let wrong = |(check, verdict): (ripcord_core::CheckId, Check)| match verdict {
        Check::Pass { .. } => None,
        Check::Fail { what } => Some(format!("`{check}` failed: {}", what.join("; "))),
        Check::Inconclusive { why } => Some(format!("`{check}` came to no verdict: {why}")),
    };
    Ok(results.into_iter().filter_map(wrong).collect())
}

/// Every check at once, in the order of their names. Writes nothing.
pub async fn run_checks(world: &World, board: &Board, version: &str) -> Vec<(ripcord_core::CheckId, Check)> {
    let mut running = JoinSet::new();
    for (id, spec) in world.application.checks.clone() {
        let signal = world.parts.signals.get(&spec.signal).cloned();
        let cx = Cx { version: Some(version.to_owned()), ..world.cx(spec.within) };
        let given = Given { version: Some(version.to_owned()), baseline: board.baseline(&spec.signal) };
        let timeout = world.application.signals.get(&spec.signal).map(|signal| signal.timeout);
        running.spawn(async move {
            let verdict = match signal {
                Some(signal) => checks::run(&signal, &spec, timeout, &cx, &given).await,
                None => Check::Inconclusive { why: format!("signal `{}` is not there", spec.signal) },
            };
            (id, verdict)
        });
    }
    let mut results: Vec<_> = vec![];
    while let Some(done) = running.join_next().await {
        results.extend(done.ok());
    }
    results.sort_by(|(a, _), (b, _)| a.cmp(b));
    results
}

/// A failed verification is an incident like a breach: the office decides on it.
async fn report_failure(desk: &Desk, wrong: &[String]) -> Result<(), Stop> {
    let ask = ripcord_core::Ask::Declare {
        what: format!("the new release does not pass its verification: {}", wrong.join("; ")),
        // The most urgent there is here: a release that fails its own checks is not waited with.
        severity: Some(desk.world.application.severities.keys().next().copied().unwrap_or(Severity(0))),
        issue: ripcord_core::Name::new(VERIFICATION_FAILED).ok(),
    };
    let (store, app) = (&desk.world.store, desk.world.app());
    let id = store.request(app, &Actor::Policy, &ask).await?;
    // Answered once it is decided on, so that nothing judges the release before.
    while store.reply(app, id).await?.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Waits out the bake time. Good comes only from time that had data.
async fn bake(
    desk: &Arc<Desk>,
    board: &Arc<Board>,
    release: &Release,
    mut events: broadcast::Receiver<Arc<Event>>,
) -> Result<Deployed, Stop> {
    // By the monotonic clock: a step of the wall clock neither bakes a release nor keeps it in the oven.
    let until = Instant::now() + desk.world.application.policy.bake;
    begun(desk, &release.id, desk.now()).await?;
    let mut left_alone: Option<Instant> = None;
    loop {
        if let Some(ended) = gone_wrong(desk, release).await? {
            return Ok(ended);
        }
        let incident = incident_since(&desk.world, release).await?;
        let now = Instant::now();
        match &incident {
            None if now >= until => return judge(desk, board, release, release.at).await,
            None => left_alone = None,
            Some(incident) if !acted_on(&desk.world).await? => {
                // The office may be planning yet: it is given the time that looking at everything takes.
                let since = *left_alone.get_or_insert(now);
                if now.duration_since(since) > crate::survey::LOOK {
                    let why =
                        format!("{} is open and nothing is done about it by itself: {}", incident.id, incident.what);
                    return Ok(Deployed::NeedsPerson { release: release.id.clone(), run: None, why });
                }
            }
            Some(_) => left_alone = None,
        }
        let wake = (now + std::time::Duration::from_secs(1)).min(until.max(now + std::time::Duration::from_millis(50)));
        tokio::select! {
            why = desk.stopped() => return Err(why),
            () = pre_empted(desk, &mut events) => return taken_back(desk, &release.id).await,
            () = tokio::time::sleep_until(wake) => {}
        }
    }
}

/// Puts on the record that a release bakes, and since when.
pub(crate) async fn begun(desk: &Desk, release: &ReleaseId, since: Timestamp) -> Result<(), Stop> {
    let until = ripcord_core::after(since, desk.world.application.policy.bake);
    desk.note(Body::Baking { release: release.clone(), until }).await.map(drop)
}

/// The incident that opened since the release began: what was wrong before it says nothing of it.
pub(crate) async fn incident_since(world: &World, release: &Release) -> Result<Option<Incident>, Stop> {
    let incidents = world.store.incidents(world.app(), 10).await?;
    let ours = |i: &Incident| i.closed.is_none() && i.release.as_ref() == Some(&release.id);
    Ok(incidents.into_iter().find(ours))
}

pub(crate) async fn acted_on(world: &World) -> Result<bool, Stop> {
    let runs = world.store.runs(world.app(), 10).await?;
    Ok(runs.iter().any(|row| !matches!(row.state, RunState::Ended(_))))
}

/// Whether the release needs a person: a run that waits for an answer or stands still.
async fn gone_wrong(desk: &Desk, release: &Release) -> Result<Option<Deployed>, Stop> {
    let world = &desk.world;
    let needs = |run: Option<RunId>, why: &str| {
        Some(Deployed::NeedsPerson { release: release.id.clone(), run, why: why.to_owned() })
    };
    for row in world.store.runs(world.app(), 5).await? {
        if row.proposed < release.at {
            continue;
        }
        match row.state {
            RunState::Waiting => return Ok(needs(Some(row.id), "a rollback is proposed and waits for approval")),
            RunState::Parked(_) => return Ok(needs(Some(row.id), "the rollback is parked")),
            _ => {}
        }
    }
    Ok(None)
}

/// Follows the run that took the deployment back, and the rungs after it, to their end.
async fn taken_back(desk: &Arc<Desk>, release: &ReleaseId) -> Result<Deployed, Stop> {
    let world = &desk.world;
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(200));
    let mut quiet_since: Option<Timestamp> = None;
    loop {
        tokio::select! {
            why = desk.stopped() => return Err(why),
            _ = ticks.tick() => {}
        }
        let runs = world.store.runs(world.app(), 10).await?;
        let Some(row) = runs.first() else { continue };
        match &row.state {
            RunState::Ended(End::Insufficient) => {
                // The office may be planning the next level: give it time to say so before calling people.
                let since = *quiet_since.get_or_insert(desk.now());
                if ripcord_core::between(since, desk.now()) > std::time::Duration::from_secs(10) {
                    let why = "the last level was insufficient: the symptom remains".to_owned();
                    return Ok(Deployed::NeedsPerson { release: release.clone(), run: Some(row.id.clone()), why });
                }
            }
            RunState::Ended(end) => {
                return Ok(Deployed::RolledBack { release: release.clone(), run: row.id.clone(), end: end.clone() });
            }
            RunState::Parked(why) => {
                let why = format!("the rollback is parked: {}", crate::parked(why));
                return Ok(Deployed::NeedsPerson { release: release.clone(), run: Some(row.id.clone()), why });
            }
            RunState::Waiting => {
                let why = "the next level waits for approval".to_owned();
                return Ok(Deployed::NeedsPerson { release: release.clone(), run: Some(row.id.clone()), why });
            }
            RunState::Approved | RunState::Running | RunState::Watching { .. } => quiet_since = None,
        }
    }
}

/// The bake is over: good if there was data since it began, and it was good.
pub(crate) async fn judge(desk: &Desk, board: &Board, release: &Release, since: Timestamp) -> Result<Deployed, Stop> {
    let application = &desk.world.application;
    let memories = board.memories();
    let judging = application.triggers.iter().filter(|(_, rule)| rule.follows != Follows::Shadow);
    let mut without = vec![];
    for (id, _) in judging.clone() {
        let state = memories.get(id).map(|memory| (&memory.state, memory.last_sample));
        match state {
            Some((TriggerState::Ok, Some(at))) if at > since => {}
            Some((TriggerState::Ok, _)) | None => without.push(format!("`{id}` has no data")),
            Some((state, _)) => without.push(format!("`{id}` is {}", state_in_words(state))),
        }
    }
    let wrong = verify(desk, board, release).await?;
    without.extend(wrong);
    if judging.count() == 0 && application.checks.is_empty() {
        without.push("no trigger and no check says anything about it".to_owned());
    }
    if !without.is_empty() {
        let what = format!("its bake is over and nobody can call it good: {}", without.join("; "));
        let message = crate::tell::about_release(&desk.world, &release.version, &what, desk.now());
        desk.write(|_, entry| {
            // That the bake came to its end is on the record, or the next holder would take it up again.
            let (release, verdict) = (release.id.clone(), Verdict::Undecided);
            entry.event(None, None, Body::Judged { release, verdict });
            entry.message(message);
        })
        .await?;
        return Ok(Deployed::Undecided { release: release.id.clone(), why: without.join("; ") });
    }
    let by = format!("its bake of {}", ripcord_core::human(application.policy.bake));
    desk.note(Body::Judged { release: release.id.clone(), verdict: Verdict::Good { by, at: desk.now() } }).await?;
    let message = crate::tell::about_release(&desk.world, &release.version, "baked to good", desk.now());
    desk.write(|_, entry| entry.message(message)).await?;
    Ok(Deployed::Good { release: release.id.clone() })
}

fn state_in_words(state: &TriggerState) -> String {
    match state {
        TriggerState::Ok => "ok".to_owned(),
        TriggerState::Pending { since } => format!("pending since {since}"),
        TriggerState::Breached { since } => format!("breached since {since}"),
        TriggerState::Recovering { since } => format!("recovering since {since}"),
        TriggerState::NoData { since } => format!("without data since {since}"),
        TriggerState::Error { why, .. } => format!("in error: {why}"),
    }
}
