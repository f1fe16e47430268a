//! The upkeep of what is kept: captures that somebody may have to go back to are read back every day, those that nothing needs are
//! forgotten, what was set aside long ago is tidied away.
//!
//! It yields: nothing of it is begun while a run is active or a deployment under way, and what is due is asked anew before each
//! capture and each place, so that a run that begins waits for one of them at most. What is due is derived from the record and the
//! time by one pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    Actor, Body, CaptureId, CaptureRow, HeldIn, Ledger, Place, Policy, ProofLevel, RunId, RunRow, RunState, Seq,
    Standing, between, retention,
};
use tokio::time::Instant;

use crate::desk::{Desk, Stop};
use crate::shelf::{Found, Shelf, ShelfError};
use crate::tell;

/// How often each thing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How long after the start the first of it may be done: what a holder was started for comes first.
    pub first: Duration,
    /// How often it is looked whether anything is due.
    pub look: Duration,
    /// How often a capture that is relied on is read back.
    pub prove: Duration,
    /// How often captures that may go are forgotten, at most.
    pub prune: Duration,
    /// How often each place is tidied.
    pub tidy: Duration,
    /// How long after a failure the same is tried again.
    pub again: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            first: minutes(3),
            look: minutes(1),
            prove: minutes(24 * 60),
            prune: minutes(60),
            tidy: minutes(24 * 60),
            again: minutes(60),
        }
    }
}

/// The vault gives the space of what was forgotten back in a pruning at least a day later.
const FREED: Duration = Duration::from_secs(25 * 3600);
/// How much of the journal is read for what was done before this process began: no more is ever asked of it.
const WINDOW: Duration = Duration::from_secs(50 * 3600);
/// The longest that tidying one place may take.
const TIDY: Duration = Duration::from_secs(600);
/// What an upkeep that failed is put on the record with.
const FAILED: &str = "upkeep failed: ";

/// One piece of upkeep: as much as is done without asking again whether something more important has come up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    Prove(CaptureId),
    Prune,
    Tidy(Place),
}

/// What was done, and when.
#[derive(Debug, Clone, Default, PartialEq)]
struct Done {
    /// When a capture was last shown to be whole.
    proven: BTreeMap<CaptureId, Timestamp>,
    pruned: Option<Timestamp>,
    /// Whether the vault holds space that the next pruning gives back.
    to_free: bool,
    tidied: BTreeMap<Place, Timestamp>,
    failed: BTreeMap<Job, Timestamp>,
}

/// What is known when it is asked what is due.
struct Known<'a> {
    rows: &'a [CaptureRow],
    ledger: &'a Ledger,
    runs: &'a [RunRow],
    places: &'a [Place],
    policy: &'a Policy,
    done: &'a Done,
}

/// What is to be done now, the most important first: what somebody may need soon, then what only takes room.
fn due(known: &Known<'_>, pace: &Pace, now: Timestamp) -> Option<Job> {
    let active = |row: &RunRow| matches!(row.state, RunState::Approved | RunState::Running | RunState::Watching { .. });
    let deploying = known.ledger.releases.iter().any(|release| release.standing == Standing::Deploying);
    if deploying || known.runs.iter().any(active) {
        return None;
    }
    // A moment in the future was written by a clock that has been set back since: nothing is known by it.
    let past = |at: Option<Timestamp>, every: Duration| at.is_none_or(|at| at > now || between(at, now) >= every);
    let may_be_tried = |job: &Job| past(known.done.failed.get(job).copied(), pace.again);
    let pinned = known.ledger.pinned(now);
    let relied_on = known.rows.iter().filter(|row| pinned.contains(&row.id) && to_be_read(row));
    let mut prove: Vec<(Option<Timestamp>, Job)> = relied_on
        .map(|row| {
            let made = (row.made.proof >= ProofLevel::ReadBack).then_some(row.at);
            (known.done.proven.get(&row.id).copied().max(made), Job::Prove(row.id.clone()))
        })
        .filter(|(last, job)| past(*last, pace.prove) && may_be_tried(job))
        .collect();
    prove.sort();
    if let Some((_, job)) = prove.into_iter().next() {
        return Some(job);
    }
    let open: BTreeSet<RunId> =
        known.runs.iter().filter(|row| !matches!(row.state, RunState::Ended(_))).map(|row| row.id.clone()).collect();
    if !open.is_empty() {
        return None; // It stands still, and whoever takes it further may need what lies around.
    }
    let in_vault = |row: &CaptureRow| matches!(row.made.held, HeldIn::Vault { .. });
    let may_go = || {
        let judged = retention(known.rows, known.ledger, &open, known.policy.keep_captures, now);
        judged.iter().any(|(row, kept)| kept.is_none() && in_vault(row))
    };
    let frees = known.done.to_free && known.done.pruned.is_some() && past(known.done.pruned, FREED);
    if may_be_tried(&Job::Prune) && (frees || past(known.done.pruned, pace.prune) && may_go()) {
        return Some(Job::Prune);
    }
    let tidy = known.places.iter().filter(|place| past(known.done.tidied.get(*place).copied(), pace.tidy));
    tidy.map(|place| Job::Tidy(place.clone())).find(may_be_tried)
}

/// Whether reading it back can say anything new.
fn to_be_read(row: &CaptureRow) -> bool {
    matches!(row.made.held, HeldIn::Vault { .. }) && !row.pruned && row.spoiled.is_none()
}

/// Does what is due until the desk stops.
pub(crate) async fn keep_up(desk: Arc<Desk>, shelf: Shelf, pace: Pace) -> Stop {
    let mut upkeep =
        Upkeep { desk: Arc::clone(&desk), shelf, pace, done: Done::default(), said: BTreeSet::new(), read: None };
    let mut next = Instant::now() + pace.first;
    loop {
        tokio::select! {
            why = desk.stopped() => return why,
            () = tokio::time::sleep_until(next) => {}
        }
        tokio::select! {
            why = desk.stopped() => return why,
            done = upkeep.round() => if let Err(why) = done {
                // A record that cannot be read for this is read again later; those who must have it say so themselves.
                tracing::warn!(error = %why, "upkeep was broken off");
            },
        }
        next = Instant::now() + pace.look;
    }
}

struct Upkeep {
    desk: Arc<Desk>,
    shelf: Shelf,
    pace: Pace,
    done: Done,
    /// What went wrong and was said, until the same goes well.
    said: BTreeSet<String>,
    /// How far the journal was read.
    read: Option<Seq>,
}

impl Upkeep {
    /// Everything that is due, one piece after the other.
    async fn round(&mut self) -> Result<(), Stop> {
        loop {
            self.read_on().await?;
            let world = &self.desk.world;
            let rows = world.store.captures(world.app()).await?;
            let ledger = world.store.ledger(world.app()).await?;
            let runs = world.store.runs(world.app(), usize::MAX >> 1).await?;
            let known = Known {
                rows: &rows,
                ledger: &ledger,
                runs: &runs,
                places: &world.application.places(),
                policy: &world.application.policy,
                done: &self.done,
            };
            match due(&known, &self.pace, self.desk.now()) {
                None => return Ok(()),
                Some(Job::Prove(capture)) => self.prove(&rows, &ledger, capture).await?,
                Some(Job::Prune) => self.prune().await?,
                Some(Job::Tidy(place)) => self.tidy(place).await?,
            }
        }
    }

    /// Takes in what was done before, by whomever.
    async fn read_on(&mut self) -> Result<(), Stop> {
        let mut after = match self.read {
            Some(after) => after,
            None => self.window().await?,
        };
        let world = &self.desk.world;
        loop {
            let page = world.store.read(world.app(), after, 1000).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for event in page {
                match event.body {
                    Body::Proven { capture, .. } => drop(self.done.proven.insert(capture, event.at)),
                    Body::Pruned { .. } => (self.done.pruned, self.done.to_free) = (Some(event.at), true),
                    Body::Noted { by: Actor::Policy, text } if text.starts_with(FAILED) => drop(self.said.insert(text)),
                    _ => {}
                }
            }
        }
        self.read = Some(after);
        Ok(())
    }

    /// Where the part of the journal begins that matters here.
    async fn window(&self) -> Result<Seq, Stop> {
        const PAGE: u64 = 1000;
        let world = &self.desk.world;
        let (head, _) = world.store.head(world.app()).await?;
        let mut from = Seq(head.0.saturating_sub(PAGE));
        while from > Seq(0) {
            let first = world.store.read(world.app(), from, 1).await?;
            if first.first().is_none_or(|event| between(event.at, self.desk.now()) > WINDOW) {
                break;
            }
            from = Seq(from.0.saturating_sub(PAGE));
        }
        Ok(from)
    }

    async fn prove(&mut self, rows: &[CaptureRow], ledger: &Ledger, capture: CaptureId) -> Result<(), Stop> {
        let Some(row) = rows.iter().find(|row| row.id == capture) else { return Ok(()) };
        let job = Job::Prove(capture);
        // Two captures of the same content are one thing in the vault: what is found of one is so of the other.
        let same = rows.iter().filter(|other| other.made.held == row.made.held && to_be_read(other));
        let same: Vec<CaptureId> = same.map(|row| row.id.clone()).collect();
        match self.shelf.read_back(row).await {
            Ok(Found::Whole) => {
                self.went_well(&job);
                let level = ProofLevel::ReadBack;
                self.write(same.into_iter().map(|capture| Body::Proven { capture, level }), None).await
            }
            Ok(Found::Spoiled { why }) => {
                self.went_well(&job);
                let needed = ledger.releases.iter().rev().filter(|release| {
                    release.map.values().any(|at| at.capture.as_ref().is_some_and(|capture| same.contains(capture)))
                });
                let needed: Vec<String> =
                    needed.map(|release| format!("{} ({})", release.version, release.id)).collect();
                let message = tell::spoiled(&self.desk.world, row, &why, &needed, self.desk.now());
                let bodies = same.into_iter().map(|capture| Body::Spoiled { capture, why: why.clone() });
                self.write(bodies, Some(message)).await
            }
            Err(error) => self.vault_failed(job, error).await,
        }
    }

    async fn prune(&mut self) -> Result<(), Stop> {
        match self.shelf.forget(&self.desk).await {
            Ok((_, marked)) => {
                self.went_well(&Job::Prune);
                self.read_on().await?;
                (self.done.pruned, self.done.to_free) = (Some(self.desk.now()), marked > 0);
                Ok(())
            }
            Err(error) => self.vault_failed(Job::Prune, error).await,
        }
    }

    async fn tidy(&mut self, place: Place) -> Result<(), Stop> {
        let world = self.desk.world.clone();
        let now = self.desk.now();
        self.done.tidied.insert(place.clone(), now);
        let Some(component) = world.parts.components.get(&place.component) else { return Ok(()) };
        let keep = jiff::SignedDuration::try_from(world.application.policy.keep_aside).unwrap_or_default();
        let Ok(before) = now.checked_sub(keep) else { return Ok(()) };
        let cx = world.cx(TIDY);
        let tidied = tokio::time::timeout(TIDY, component.tidy(&cx, &place, before)).await;
        let job = Job::Tidy(place.clone());
        match tidied {
            Ok(Ok(removed)) => {
                self.went_well(&job);
                if removed.is_empty() {
                    return Ok(());
                }
                let text = format!("`{place}`: removed what was set aside before {before}: {}", removed.join("; "));
                self.write([Body::Noted { by: Actor::Policy, text }], None).await
            }
            Ok(Err(failure)) => self.failed(job, failure.what).await,
            Err(_) => self.failed(job, format!("no end within {}", ripcord_core::human(TIDY))).await,
        }
    }

    async fn write(
        &self,
        bodies: impl IntoIterator<Item = Body>,
        message: Option<ripcord_core::Message>,
    ) -> Result<(), Stop> {
        self.desk
            .write(|_, entry| {
                bodies.into_iter().for_each(|body| entry.event(None, None, body));
                message.into_iter().for_each(|message| entry.message(message));
            })
            .await
            .map(drop)
    }

    fn went_well(&mut self, job: &Job) {
        self.done.failed.remove(job);
        let of_it = subject(job);
        self.said.retain(|text| !text.starts_with(&of_it));
    }

    async fn vault_failed(&mut self, job: Job, error: ShelfError) -> Result<(), Stop> {
        match error {
            ShelfError::Stopped(why) => Err(why),
            // That a capture is being taken meanwhile is nothing to call anybody for.
            ShelfError::Vault(error) if error.may_pass() => {
                self.done.failed.insert(job, self.desk.now());
                Ok(())
            }
            error => self.failed(job, crate::asks::said(&error)).await,
        }
    }

    /// Tried again after a while, and said once until it goes well.
    async fn failed(&mut self, job: Job, why: String) -> Result<(), Stop> {
        let text = format!("{}{why}", subject(&job));
        self.done.failed.insert(job, self.desk.now());
        if !self.said.insert(text.clone()) {
            return Ok(());
        }
        let message = tell::upkeep_failed(&self.desk.world, &text, self.desk.now());
        self.write([Body::Noted { by: Actor::Policy, text }], Some(message)).await
    }
}

/// How what is said of a job that failed begins. All captures are one matter: a vault that cannot be read is told once.
fn subject(job: &Job) -> String {
    match job {
        Job::Prove(_) => format!("{FAILED}captures cannot be read back: "),
        Job::Prune => format!("{FAILED}captures cannot be pruned: "),
        Job::Tidy(place) => format!("{FAILED}`{place}` cannot be tidied: "),
    }
}

#[cfg(test)]
mod tests {
    use ripcord_core::{CapturePurpose, Digest, Made, Origin, Recorded, Release, ReleaseId, Revision, Verdict};

    use super::*;

    const HOUR: i64 = 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// What a test changes of a quiet world: one good release before the live one, each with a capture of `db` taken on the first day.
    struct Quiet {
        rows: Vec<CaptureRow>,
        ledger: Ledger,
        runs: Vec<RunRow>,
        done: Done,
        policy: Policy,
    }

    fn place() -> Place {
        Place::local("db".parse().unwrap())
    }

    fn row(id: &str) -> CaptureRow {
        CaptureRow {
            id: CaptureId::typed(id),
            of: place(),
            purpose: CapturePurpose::Protective,
            release: None,
            run: None,
            at: at(0),
            made: Made {
                revision: Revision::exact(id),
                label: None,
                held: HeldIn::Vault { manifest: serde_json::json!(id) },
                bytes: 1,
                proof: ProofLevel::ReadBack,
                content: Digest::of(id.as_bytes()),
            },
            spoiled: None,
            pruned: false,
        }
    }

    fn release(id: &str, capture: &str, verdict: Verdict, standing: Standing) -> Release {
        let capture = Some(CaptureId::typed(capture));
        let recorded = Recorded { revision: Revision::exact(id), label: None, capture, flowing: true };
        Release {
            id: ReleaseId::typed(id),
            version: id.to_owned(),
            origin: Origin::Observed,
            map: BTreeMap::from([(place(), recorded)]),
            config: Digest::ZERO,
            verdict,
            standing,
            at: at(0),
        }
    }

    fn quiet() -> Quiet {
        let good = Verdict::Good { by: "bake".to_owned(), at: at(0) };
        let releases = vec![
            release("rel-1", "cap-1", good, Standing::Superseded),
            release("rel-2", "cap-2", Verdict::Undecided, Standing::Live),
        ];
        let done = Done { tidied: [(place(), at(0))].into(), ..Done::default() };
        let ledger = Ledger { releases, ..Ledger::default() };
        Quiet {
            rows: vec![row("cap-1"), row("cap-2"), row("cap-3")],
            ledger,
            runs: vec![],
            done,
            policy: Policy::default(),
        }
    }

    fn run(state: RunState) -> RunRow {
        RunRow {
            id: RunId::typed("run-9"),
            state,
            plan: Digest::ZERO,
            purpose: ripcord_core::Purpose::Rollback,
            first: Seq(9),
            proposed: at(0),
            ended: None,
            incident: None,
        }
    }

    impl Quiet {
        fn due(&self, second: i64) -> Option<Job> {
            let known = Known {
                rows: &self.rows,
                ledger: &self.ledger,
                runs: &self.runs,
                places: &[place()],
                policy: &self.policy,
                done: &self.done,
            };
            due(&known, &Pace::default(), at(second))
        }
    }

    fn prove(id: &str) -> Option<Job> {
        Some(Job::Prove(CaptureId::typed(id)))
    }

    #[test]
    fn what_is_relied_on_is_read_back_every_day_the_longest_unread_first() {
        let mut world = quiet();
        assert_eq!(world.due(23 * HOUR), None, "they were read back when they were made");
        assert_eq!(world.due(24 * HOUR), prove("cap-1"));
        world.done.proven.insert(CaptureId::typed("cap-1"), at(24 * HOUR));
        assert_eq!(world.due(24 * HOUR), prove("cap-2"));
        world.done.proven.insert(CaptureId::typed("cap-2"), at(24 * HOUR));
        world.done.tidied.insert(place(), at(24 * HOUR));
        assert_eq!(world.due(47 * HOUR), None, "nobody relies on the third");
        assert_eq!(world.due(48 * HOUR), prove("cap-1"));
    }

    #[test]
    fn what_was_only_written_is_read_back_at_once_and_what_is_spoiled_no_more() {
        let mut world = quiet();
        world.rows[1].made.proof = ProofLevel::Written;
        assert_eq!(world.due(1), prove("cap-2"));
        world.rows[1].spoiled = Some("checksum".to_owned());
        assert_eq!(world.due(1), None);
        world.rows[1].spoiled = None;
        world.rows[1].made.held = HeldIn::System { name: "v2".to_owned() };
        assert_eq!(world.due(1), None, "what the system keeps is for a survey to see");
    }

    #[test]
    fn nothing_is_begun_while_a_run_is_active_or_a_deployment_under_way() {
        let mut world = quiet();
        for state in [RunState::Approved, RunState::Running, RunState::Watching { until: at(0) }] {
            world.runs = vec![run(state)];
            assert_eq!(world.due(30 * HOUR), None);
        }
        world.runs.clear();
        world.ledger.releases[1].standing = Standing::Deploying;
        assert_eq!(world.due(30 * HOUR), None);
    }

    #[test]
    fn while_a_run_stands_still_captures_are_read_back_and_nothing_is_removed() {
        let mut world = quiet();
        world.policy.keep_captures = Duration::from_secs(1);
        world.runs = vec![run(RunState::Waiting)];
        assert_eq!(world.due(30 * HOUR), prove("cap-1"));
        let lately = [("cap-1", at(30 * HOUR)), ("cap-2", at(30 * HOUR))];
        world.done.proven = lately.map(|(id, at)| (CaptureId::typed(id), at)).into();
        assert_eq!(world.due(30 * HOUR), None);
        world.runs = vec![run(RunState::Ended(ripcord_core::End::Declined))];
        assert_eq!(world.due(30 * HOUR), Some(Job::Prune));
    }

    #[test]
    fn what_may_go_goes_once_an_hour_and_its_space_a_day_later() {
        let mut world = quiet();
        world.policy.keep_captures = Duration::from_secs(1);
        assert_eq!(world.due(2), Some(Job::Prune));
        world.done.pruned = Some(at(2));
        assert_eq!(world.due(HOUR), None);
        assert_eq!(world.due(HOUR + 2), Some(Job::Prune));
        world.rows[2].pruned = true;
        assert_eq!(world.due(HOUR + 2), None, "nothing is left to go");
        world.done.to_free = true;
        world.done.proven =
            [("cap-1", at(26 * HOUR)), ("cap-2", at(26 * HOUR))].map(|(id, at)| (CaptureId::typed(id), at)).into();
        world.done.tidied.insert(place(), at(26 * HOUR));
        assert_eq!(world.due(26 * HOUR), Some(Job::Prune), "what was forgotten is given back");
    }

    #[test]
    fn each_place_is_tidied_every_day_after_everything_else() {
        let mut world = quiet();
        let lately = [("cap-1", at(23 * HOUR)), ("cap-2", at(23 * HOUR))];
        world.done.proven = lately.map(|(id, at)| (CaptureId::typed(id), at)).into();
        assert_eq!(world.due(24 * HOUR), Some(Job::Tidy(place())));
    }

    #[test]
    fn what_failed_waits_and_holds_up_nothing_else() {
        let mut world = quiet();
        world.done.failed.insert(Job::Prove(CaptureId::typed("cap-1")), at(30 * HOUR));
        assert_eq!(world.due(30 * HOUR), prove("cap-2"));
        world.done.proven.insert(CaptureId::typed("cap-2"), at(30 * HOUR));
        assert_eq!(world.due(30 * HOUR), Some(Job::Tidy(place())));
        assert_eq!(world.due(31 * HOUR), prove("cap-1"), "after an hour");
    }

    #[test]
    fn a_clock_set_back_puts_nothing_off() {
        let mut world = quiet();
        world.done.proven.insert(CaptureId::typed("cap-1"), at(1000 * HOUR));
        assert_eq!(world.due(HOUR), prove("cap-1"));
    }
}
