//! What is done to a service: proven, restored, taken away, stopped and started.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::{Action, Before, CapturePurpose, CaptureRef, Cx, Failure, Proof, Revision, Step, Wanted};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Compose;
use super::ask::{Ask, Does};
use super::cli::With;
use super::definition::revision;
use super::held::{Kept, replicas};
use super::sight::{Fares, RUN_LABEL, Replica, Sight};
use crate::components::files::{Live, Stop, blocking, point, remove_file, write_new};
use crate::components::ports;
use crate::docker::{Endpoint, EngineError};

/// What goes with the user's files to pin the image, and the env file that keeps Compose from reading another.
const PIN: &str = "pin.json";
const EMPTY: &str = "empty.env";
/// What the Engine's disk must have left for new containers; their content is the users' to grow.
const ROOM: u64 = 64 << 20;
/// Of a container that says nothing of its own.
const GRACE: Duration = Duration::from_secs(10);

/// What tells the states of a service apart, and whether it ran.
pub(super) fn mark(sight: &Sight, key: &[u8; 32]) -> String {
    let runs = if sight.runs() { RUNS } else { "stopped" };
    let one = |replica: &Replica| {
        let id = replica.id.get(..12).unwrap_or(&replica.id);
        format!("{id}={}", revision(&replica.image, &replica.definition, key).short())
    };
    let all: Vec<String> = sight.all.iter().map(one).collect();
    format!("{runs} {}", all.join(" "))
}

const RUNS: &str = "running";

pub(super) fn ran(mark: &str) -> bool {
    mark.starts_with(RUNS)
}

/// A place for what Compose must find in a file, none of it secret, and the lock of the service with it.
struct Desk {
    pin: PathBuf,
    empty: PathBuf,
    _lock: File,
}

impl Desk {
    fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
        remove_file(path)?;
        Ok(write_new(path, bytes, 0o600, None)?)
    }
}

impl Compose {
    pub(super) async fn act(&self, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Stop> {
        match &step.action {
            Action::Prove { revision, capture } => {
                self.prove(cx, &Wanted { revision: revision.clone(), capture: capture.clone() }).await
            }
            Action::Capture { purpose: CapturePurpose::Protective } => self.capture(cx, before).await,
            Action::Capture { purpose: CapturePurpose::Evidence } => self.evidence(cx, before).await,
            Action::Restore { to: Revision::Absent, .. } => self.take_away(cx).await,
            Action::Restore { to, from } => self.restore(cx, before, to, from.as_ref()).await,
            Action::Stop => {
                // Its restore most often follows.
                self.keep_seat(Some(self.cli.seat(&self.project()?)?));
                let stopped = self.stop(cx).await;
                if stopped.is_err() {
                    self.keep_seat(None);
                }
                stopped
            }
            Action::Start => {
                self.keep_seat(None);
                self.start(cx, before).await
            }
            Action::Stage { .. }
            | Action::Pause
            | Action::Roll
            | Action::Resume
            | Action::Set { .. }
            | Action::Check { .. }
            | Action::Own { .. } => Err(Failure::never("a Compose service has no such step").into()),
        }
    }

    fn desk_of(&self, project: &str) -> PathBuf {
        self.state.join(format!("{project}.{}", self.service))
    }

    /// Locks the service against other works of ours.
    async fn desk(&self, project: &str, limit: Duration) -> Result<Desk, Stop> {
        let directory = self.desk_of(project);
        let lock = move |halt: &crate::components::files::Halt| -> Result<Desk, Failure> {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(|error| {
                Failure::never(format!("cannot create {}: {error}", directory.display()))
                    .advise("let this user write beside `ripcord.yaml`")
            })?;
            let live = Live::of(&directory.join(PIN))?;
            let lock = live.lock(limit / 2, halt)?;
            let desk = Desk { pin: live.path, empty: live.parent.join(EMPTY), _lock: lock };
            Desk::write(&desk.empty, b"")?;
            Ok(desk)
        };
        Ok(blocking(lock).await??)
    }

    fn labels(&self, cx: &Cx) -> BTreeMap<String, String> {
        BTreeMap::from([(RUN_LABEL.to_owned(), run_of(cx))])
    }

    /// The file for a restore.
    async fn rendered(&self, cx: &Cx, kept: &Kept, image: &str, deadline: Instant) -> Result<Value, Failure> {
        if let Some(what) = kept.definition.beyond_compose() {
            let advice = "restore this service by hand, from what the capture holds (`ripcord capture export`)";
            return Err(Failure::never(format!("it has {what}, which cannot be put back")).advise(advice));
        }
        let mut missing = BTreeSet::new();
        for (name, _) in kept.definition.networks() {
            if self.engine.network(name, deadline).await?.is_none() {
                missing.insert(name.to_owned());
            }
        }
        for name in kept.definition.volumes() {
            if self.engine.volume(name, deadline).await?.is_none() {
                return Err(Failure::never(format!("volume `{name}` is gone, and its data with it"))
                    .advise("restore its data first, or make it anew (`docker volume create`) where it may be empty"));
            }
        }
        Ok(kept.definition.render(&self.service, image, &kept.keys, &missing, &self.labels(cx)))
    }

    fn ask(&self, does: Does, file: Value, containers: usize, until: Instant) -> Ask {
        Ask { does, service: self.service.clone(), file, containers, until, alone: false }
    }

    /// What went wrong together, and is to show whose fault it is.
    async fn alone(&self, project: &str, ask: Ask, desk: &Desk) -> Result<String, Stop> {
        let said = self.cli.done(project, self.cli.seat(project)?, Ask { alone: true, ..ask }, &desk.empty).await;
        said.unwrap_or_else(|| Err(Stop::Unknown("Compose was called off".to_owned())))
    }

    /// All that a restore needs is there, and Compose takes what it would be given.
    async fn prove(&self, cx: &Cx, wanted: &Wanted) -> Result<Proof, Stop> {
        let deadline = Instant::now() + cx.limit - cx.limit / 10;
        let project = self.project()?;
        let seat = self.cli.seat(&project)?;
        let sight = self.look(deadline).await?;
        if wanted.revision == Revision::Absent {
            return Ok(Proof::of(format!("nothing is needed to take {} away", containers(sight.all.len()))));
        }
        let made = self.captures.wanted(wanted).ok_or_else(|| Failure::never("no capture of it was ever made"))??;
        let (captures, read) = (self.captures.clone(), made.clone());
        let verify = move || captures.verify(&crate::components::files::captures::manifest(&read)?);
        blocking(move |_| verify()).await??;
        let kept = self.kept(made, &wanted.revision).await?;
        let image = self.pinned(&kept, deadline).await?;
        let file = self.rendered(cx, &kept, &image, deadline).await?;
        self.room(deadline).await?;
        let own = if sight.runs() { sight.ports() } else { BTreeSet::new() };
        let ports: Vec<u16> = kept.definition.ports().into_iter().filter(|port| !own.contains(port)).collect();
        self.ports_are_free(ports, deadline).await?;
        let desk = self.desk(&project, deadline.saturating_duration_since(Instant::now())).await?;
        let ask = self.ask(Does::Check, file, 1, deadline);
        if self.cli.done(&project, seat, ask.clone(), &desk.empty).await.transpose()?.is_none() {
            self.alone(&project, ask, &desk).await?;
        }
        let name = kept.names.first().cloned().unwrap_or_else(|| image.clone());
        Ok(Proof::of(format!("image {name} is here, the capture was read back, and Compose takes it")))
    }

    /// Whether the disk the Engine writes to has any room, where that can be seen.
    async fn room(&self, deadline: Instant) -> Result<(), Failure> {
        let info = self.engine.info(deadline).await?;
        let (Endpoint::Socket(_), Some(root)) = (self.engine.endpoint(), info["DockerRootDir"].as_str()) else {
            return Ok(());
        };
        let Ok(disk) = rustix::fs::statvfs(root) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if disk.f_blocks == 0 || free >= ROOM {
            return Ok(());
        }
        let what = format!("the Engine's disk is full: {} MiB are free on {root}", free >> 20);
        Err(Failure::never(what).advise(
            "free space there (`docker system df`, `docker builder prune`); images under `ripcord/keep` are needed; nothing was changed",
        ))
    }

    /// Whether ports that it is to take are free; where one is not, who has it.
    async fn ports_are_free(&self, ports: Vec<u16>, deadline: Instant) -> Result<(), Failure> {
        match self.taken(ports, deadline).await? {
            None => Ok(()),
            Some(taken) => Err(Failure::later(taken).advise(PORT)),
        }
    }

    /// A port that somebody has, and who it is. Of an Engine on another machine, nobody here can tell.
    async fn taken(&self, ports: Vec<u16>, deadline: Instant) -> Result<Option<String>, Failure> {
        if ports.is_empty() || !matches!(self.engine.endpoint(), Endpoint::Socket(_)) {
            return Ok(None);
        }
        let asked = ports.clone();
        let found = blocking(move |_| ports::taken(&asked)).await??;
        // The Engine has a port by a process of its own, or by none where it lets the kernel do it.
        for port in ports.into_iter().filter(|port| found.as_ref().is_none_or(|taken| taken.port() == *port)) {
            if let Some(name) = self.engine.publishing(port, deadline).await?.first() {
                return Ok(Some(format!("port {port} is in use by container `{name}`")));
            }
        }
        Ok(found.map(|taken| taken.to_string()))
    }

    async fn restore(&self, cx: &Cx, before: &Before, to: &Revision, from: Option<&CaptureRef>) -> Result<Proof, Stop> {
        let deadline = Instant::now() + cx.limit - cx.limit / 20;
        let project = self.project()?;
        let seat = match self.keep_seat(None) {
            Some(seat) => seat,
            None => self.cli.seat(&project)?,
        };
        let made = self.captures.find(from, before, to)?;
        let made = made.ok_or_else(|| Failure::never("the step names no capture to restore from"))?;
        let kept = self.kept(made, to).await?;
        let image = self.pinned(&kept, deadline).await?;
        let file = self.rendered(cx, &kept, &image, deadline).await?;
        let desk = self.desk(&project, cx.limit).await?;
        let sight = self.look(deadline).await?;
        let ran = before.mark.as_deref().is_some_and(ran) || sight.runs();
        let count = replicas(&sight, &kept);
        let grace = self.grace(&sight);
        let ask = self.ask(Does::Recreate { grace }, file, count, deadline);
        let anew = self.is_to_be_made(&sight, to, count);
        let mut output = None;
        if anew {
            self.clear(&sight, deadline).await?;
            point("recreate");
            output = self.cli.done(&project, seat, ask.clone(), &desk.empty).await.transpose()?;
            if output.is_none() {
                // It went wrong for all together, which may have got as far as this service or not.
                let sight = self.look(deadline).await?;
                if self.is_to_be_made(&sight, to, count) {
                    self.clear(&sight, deadline).await?;
                    output = Some(self.alone(&project, ask, &desk).await?);
                }
            }
            point("recreated");
            self.settle(to, &kept, count, deadline).await?;
        } else {
            drop(seat);
        }
        drop(desk);
        if ran {
            let sight = self.look(deadline).await?;
            self.start_all(&sight, deadline).await?;
            self.until_well(deadline).await?;
        }
        let sight = self.look(deadline).await?;
        if !sight.is_at(to, &self.key) {
            let unlike =
                sight.counted().first().map(|one| one.definition.differing(&kept.definition)).unwrap_or_default();
            let what = format!("service `{}` is not as it was captured: {}", self.service, unlike.join(", "));
            return Err(Failure::never(what).advise("see who else changes it, then retry").into());
        }
        let (label, _) = self.label(&sight, deadline).await;
        let did = if anew { "recreated from" } else { "already from" };
        let runs = if ran { "and well" } else { "not started yet" };
        let found = format!("{} {did} {}, {runs}", containers(count), label.unwrap_or_else(|| to.short()));
        Ok(Proof { output: output.filter(|text| !text.is_empty()), ..Proof::of(found) })
    }

    fn is_to_be_made(&self, sight: &Sight, to: &Revision, count: usize) -> bool {
        !sight.is_at(to, &self.key) || !sight.is_whole() || sight.all.len() != count
    }

    /// How many seconds a container may take to end.
    fn grace(&self, sight: &Sight) -> u64 {
        let own = |one: &Replica| one.whole["Config"]["StopTimeout"].as_u64().map(Duration::from_secs);
        let own = sight.counted().first().and_then(|one| own(one)).unwrap_or(GRACE);
        let grace = self.settings.stop_grace.map_or(own, Duration::from);
        grace.as_secs() + u64::from(grace.subsec_nanos() > 0)
    }

    /// Before Compose: what it left when it was killed in the middle. It has the old container and the new one under two names then,
    /// and trips over them: a new one that was never started goes, and an old one where the new one runs.
    async fn clear(&self, sight: &Sight, deadline: Instant) -> Result<(), Stop> {
        for one in sight.left_by_a_kill() {
            point("clear");
            self.remove(one, deadline).await?;
        }
        Ok(())
    }

    async fn remove(&self, one: &Replica, deadline: Instant) -> Result<(), Stop> {
        match self.engine.remove(&one.id, deadline).await {
            Ok(()) | Err(EngineError::Missing { .. }) => Ok(()),
            Err(error) => Err(Failure::from(error).into()),
        }
    }

    /// After Compose: what it leaves undone until a start, and what a killed recreation left.
    async fn settle(&self, to: &Revision, kept: &Kept, count: usize, deadline: Instant) -> Result<(), Stop> {
        let sight = self.look(deadline).await?;
        let (new, old): (Vec<&Replica>, Vec<&Replica>) = sight.all.iter().partition(|one| one.image == kept.image);
        for one in &new {
            self.join_networks(one, kept, deadline).await?;
        }
        let good = self.look(deadline).await?;
        let good: BTreeSet<String> = good
            .all
            .iter()
            .filter(|one| revision(&one.image, &one.definition, &self.key) == *to)
            .map(|one| one.id.clone())
            .collect();
        if good.len() < count {
            return Ok(());
        }
        let spare = sight.all.iter().filter(|one| good.contains(&one.id)).skip(count);
        let of_same_image = new.iter().copied().filter(|one| !good.contains(&one.id));
        for one in old.into_iter().chain(of_same_image).chain(spare) {
            if one.runs() {
                self.engine
                    .stop(&one.id, self.settings.stop_grace.map(Duration::from), deadline)
                    .await
                    .map_err(gone_or)?;
            }
            self.remove(one, deadline).await?;
        }
        Ok(())
    }

    /// Compose 1.29 joins all networks but one when it starts a container, which here the Engine does.
    async fn join_networks(&self, one: &Replica, kept: &Kept, deadline: Instant) -> Result<(), Stop> {
        let joined: BTreeSet<&str> = one.definition.networks().map(|(name, _)| name).collect();
        for (name, how) in kept.definition.networks().filter(|(name, _)| !joined.contains(name)) {
            let mut aliases = vec![json!(self.service)];
            aliases.extend(how["aliases"].as_array().into_iter().flatten().cloned());
            let mut addresses = serde_json::Map::new();
            for (ours, theirs) in [("ipv4_address", "IPv4Address"), ("ipv6_address", "IPv6Address")] {
                addresses.extend(how.get(ours).map(|address| (theirs.to_owned(), address.clone())));
            }
            let endpoint = json!({ "Aliases": aliases, "IPAMConfig": addresses });
            let body = json!({ "Container": one.id, "EndpointConfig": endpoint });
            self.engine.connect(name, body, deadline).await.map_err(|error| Stop::from(Failure::from(error)))?;
        }
        Ok(())
    }

    async fn take_away(&self, cx: &Cx) -> Result<Proof, Stop> {
        let deadline = Instant::now() + cx.limit - cx.limit / 20;
        let _desk = self.desk(&self.project()?, cx.limit).await?;
        let sight = self.look(deadline).await?;
        self.stop_all(&sight, deadline).await?;
        for one in &sight.all {
            point("remove container");
            self.remove(one, deadline).await?;
        }
        let names: Vec<&str> = sight.all.iter().map(|one| one.name.as_str()).collect();
        Ok(Proof::of(match names.is_empty() {
            true => format!("service `{}` has no containers", self.service),
            false => format!("{} taken away; volumes stay", names.join(", ")),
        }))
    }

    async fn stop(&self, cx: &Cx) -> Result<Proof, Stop> {
        let deadline = Instant::now() + cx.limit - cx.limit / 20;
        let sight = self.look(deadline).await?;
        self.stop_all(&sight, deadline).await?;
        let after = self.look(deadline).await?;
        if let Some(one) = after.running().next() {
            let what = format!("`{}` was stopped, and {}", one.name, one.ails());
            return Err(Failure::never(what).advise("see who starts it again, then retry").into());
        }
        let killed = after.all.iter().filter(|one| one.whole["State"]["ExitCode"] == 137).map(|one| one.name.as_str());
        let killed: Vec<&str> = killed.collect();
        let mut found = format!("{} stopped", containers(sight.running().count()));
        if !killed.is_empty() {
            found.push_str(&format!("; {} did not end in time and was killed", killed.join(", ")));
        }
        Ok(Proof::of(found))
    }

    async fn stop_all(&self, sight: &Sight, deadline: Instant) -> Result<(), Stop> {
        let grace = self.settings.stop_grace.map(Duration::from);
        let mut stopping = JoinSet::new();
        for one in sight.running() {
            let (engine, id) = (Arc::clone(&self.engine), one.id.clone());
            stopping.spawn(async move { engine.stop(&id, grace, deadline).await });
        }
        while let Some(stopped) = stopping.join_next().await {
            stopped.map_err(|error| Stop::Unknown(error.to_string()))?.map_err(gone_or)?;
        }
        Ok(())
    }

    async fn start_all(&self, sight: &Sight, deadline: Instant) -> Result<(), Stop> {
        for one in sight.counted().into_iter().filter(|one| matches!(one.fares(), Fares::New | Fares::Ended)) {
            point("start");
            if let Err(error) = self.engine.start(&one.id, deadline).await {
                let ports = one.definition.ports();
                let taken = if is_of_a_port(&error) { self.taken(ports, deadline).await } else { Ok(None) };
                return Err(not_started(one, error, taken.ok().flatten()));
            }
        }
        Ok(())
    }

    async fn start(&self, cx: &Cx, before: &Before) -> Result<Proof, Stop> {
        let deadline = Instant::now() + cx.limit - cx.limit / 20;
        let mut sight = self.look(deadline).await?;
        if before.mark.is_some() && sight.instance() == before.mark {
            // What runs already began before what it is to take up.
            self.stop_all(&sight, deadline).await?;
            sight = self.look(deadline).await?;
        }
        let Some(first) = sight.counted().first().copied().cloned() else { return Err(self.missing_service().into()) };
        let says = |one: &&Replica| one.label(RUN_LABEL) == Some(run_of(cx).as_str());
        let made_by_this_run = cx.run.is_some() && sight.counted().iter().all(says);
        let mut how = "as restored".to_owned();
        if !made_by_this_run {
            how = self.take_up(&sight, &first, deadline).await?;
            sight = self.look(deadline).await?;
        }
        self.start_all(&sight, deadline).await?;
        // Until it is well there is time to read what the files come to now, which is looked at when all is done.
        let (project, left) = (self.project()?, deadline.saturating_duration_since(Instant::now()));
        // Nobody waits for that: it ends when the service is well.
        let mut well = std::pin::pin!(self.until_well(deadline));
        let sight = tokio::select! {
            biased;
            sight = &mut well => sight,
            _ = self.cli.on_disk(&project, left / 4) => well.await,
        }?;
        if let Some(other) = sight.counted().into_iter().find(|one| one.image != first.image) {
            let is = Revision::exact(&other.image).short();
            let what =
                format!("`{}` was started from {is}, not from {}", other.name, Revision::exact(&first.image).short());
            return Err(Failure::never(what).advise("see who else starts it; stop it, then retry").into());
        }
        let instance = sight.instance().unwrap_or_default();
        Ok(Proof::of(format!("{} started {how}, and well: {instance}", containers(sight.counted().len()))))
    }

    /// Makes the containers anew from the files on disk where what they read may have changed, with the image that is there.
    async fn take_up(&self, sight: &Sight, first: &Replica, deadline: Instant) -> Result<String, Stop> {
        let project = self.project()?;
        let left = || deadline.saturating_duration_since(Instant::now());
        let on_disk = self.cli.on_disk_now(&project, left()).await?;
        let service = on_disk.service(&self.service).cloned().ok_or_else(|| {
            Failure::never(format!("the Compose files on disk have no service `{}`", self.service))
                .advise("put the files of the wanted release there, or name the `profiles` it is in; then retry")
        })?;
        let same_image = match &service.image {
            Some(image) => self
                .engine
                .image(image, deadline)
                .await
                .map_err(Failure::from)?
                .is_some_and(|found| found["Id"] == first.image.as_str()),
            None => false,
        };
        if !same_image && first.label(RUN_LABEL).is_some() {
            // The files are those of the release that was rolled back: nothing of them may come in.
            let image = service.image.as_deref().unwrap_or("no image");
            return Ok(format!(
                "as an earlier run restored it (the files on disk name {image}, so nothing was taken up from them)"
            ));
        }
        let desk = self.desk(&project, left()).await?;
        let count = sight.counted().len();
        let (grace, scale) = (self.grace(sight).to_string(), format!("{}={count}", self.service));
        let mut words = vec!["up", "--detach", "--no-deps", "--no-build", "--timeout", &grace];
        if count != 1 {
            words.extend(["--scale", &scale]);
        }
        words.push(&self.service);
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        point("take up");
        if same_image {
            self.cli.run(&project, &With::Theirs, &words, left()).await?;
        } else {
            let pin = json!({ "services": { (self.service.as_str()): { "image": first.image } } });
            Desk::write(&desk.pin, pin.to_string().as_bytes())?;
            self.cli.run(&project, &With::TheirsAnd(&desk.pin), &words, left()).await?;
        }
        point("taken up");
        let after = self.look(deadline).await?;
        let unlike = after.counted().first().map(|one| one.definition.differing(&first.definition)).unwrap_or_default();
        Ok(match unlike.is_empty() {
            true => "as before".to_owned(),
            false => format!("with what the files on disk say now ({})", unlike.join(", ")),
        })
    }
}

fn containers(count: usize) -> String {
    if count == 1 { "1 container".to_owned() } else { format!("{count} containers") }
}

fn run_of(cx: &Cx) -> String {
    let run = cx.run.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{}/{run}", cx.app)
}

/// Stopping what is gone is done.
fn gone_or(error: EngineError) -> Stop {
    match error {
        EngineError::Slow { .. } => Stop::Unknown(error.to_string()),
        error => Failure::from(error).into(),
    }
}

const PORT: &str = "stop what has the port, then retry; the service was not started";

fn is_of_a_port(error: &EngineError) -> bool {
    let said = error.to_string();
    ["port is already allocated", "address already in use"].iter().any(|text| said.contains(text))
}

fn not_started(one: &Replica, error: EngineError, taken: Option<String>) -> Stop {
    let why = taken.unwrap_or_else(|| error.to_string());
    let what = format!("`{}` could not be started: {why}", one.name);
    if is_of_a_port(&error) {
        return Failure::later(what).advise(PORT).into();
    }
    match error {
        EngineError::Slow { .. } => Stop::Unknown(what),
        error => {
            let Failure { retry, advice, .. } = error.into();
            let advice = advice.unwrap_or_else(|| "see what the Engine says, put that right, then retry".to_owned());
            Failure { retry, ..Failure::never(what) }.advise(advice).into()
        }
    }
}
