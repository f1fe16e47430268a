//! What every kind promises, shown on real files: the same checks for all, each kind a [`Rig`].
//!
//! Kills are real: a child process runs the step and ends itself with SIGKILL at the n-th effect on the disk, for every n until it
//! gets through. Whatever it leaves, the live state is wholly old or wholly new, and the same key takes it to its end.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_adapters::{BuildCx, build_component};
use ripcord_core::{
    Action, Available, Before, CaptureId, CapturePurpose, CaptureRef, Component, Cx, Digest, Holds, Key, Made, Outcome,
    Proof, Redactor, Revision, RunId, Seen, Seq, Step, Want, Wanted, Wish,
};
use ripcord_vault::{Vault, VaultKey};

use crate::support::{app, component, cx_at, inventory, place, proof, step};

/// One kind, and how its world is moved without it.
pub trait Rig {
    const KIND: &'static str;
    /// Whether a restore writes content, and so needs room.
    const WRITES: bool = true;
    /// Whether it is on another host: everything goes through a link to an agent.
    const FAR: bool = false;
    /// Settings; paths are relative to `site/`.
    fn settings() -> String;
    /// Makes the state of the good release from nothing.
    fn good(site: &Path);
    /// What the bad release does to whatever is there.
    fn bad(site: &Path);
    /// A change made by hand, to be overridden.
    fn edit(site: &Path);
    /// What users of the system see: found without the crate.
    fn content(site: &Path) -> String;
    /// Takes the good state's artefacts away or damages them, the vault aside.
    fn damage(_site: &Path) {}
    /// Makes a state that is no revision, where the kind has one.
    fn between(_site: &Path) -> bool {
        false
    }
}

/// A directory with `site/` and `vault/`, and a kind in it. Everything a child needs is on the disk.
pub struct Site {
    pub dir: tempfile::TempDir,
    kind: &'static str,
    yaml: String,
    far: bool,
}

const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

pub fn vault(dir: &Path) -> Vault {
    Vault::open_or_create(&dir.join("vault"), &VaultKey::from_text(KEY).unwrap()).unwrap()
}

pub fn build_cx(dir: &Path) -> BuildCx {
    let record = dir.join("captures.json");
    BuildCx {
        base: dir.join("site"),
        redactor: Redactor::default(),
        vault: Some(vault(dir).into()),
        captures: Arc::new(move |id| {
            let record: BTreeMap<CaptureId, Made> = serde_json::from_slice(&fs::read(&record).ok()?).unwrap();
            record.get(id).cloned()
        }),
        revision_key: [7; 32],
        keep_aside: Duration::from_secs(3600),
        terminal: Arc::new(|_| Ok(())),
    }
}

fn built(dir: &Path, kind: &str, yaml: &str) -> Arc<dyn Component> {
    build_component(&place().component, &component(kind, yaml), &build_cx(dir)).unwrap()
}

pub fn run_cx(run: u64) -> Cx {
    Cx { run: Some(RunId::at(Seq(run))), ..cx_at(Timestamp::now(), Duration::from_secs(60)) }
}

pub fn before(run: u64, step: &Step, mark: Option<String>) -> Before {
    let key = Key::of(&app(), &RunId::at(Seq(run)), &step.id);
    // Distinct, however fast the test: the names of what is kept are made from it.
    let at = Timestamp::from_second(1_790_000_000 + i64::try_from(run).unwrap()).unwrap();
    Before { at, mark, key, captures: BTreeMap::new() }
}

impl Site {
    pub fn new(kind: &'static str, yaml: impl Into<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("site")).unwrap();
        Self { dir, kind, yaml: yaml.into(), far: false }
    }

    pub fn of<R: Rig>() -> Self {
        let site = Self { far: R::FAR, ..Self::new(R::KIND, R::settings()) };
        R::good(&site.path());
        site
    }

    /// The same place under other settings.
    pub fn with(self, yaml: &str) -> Self {
        Self { yaml: yaml.to_owned(), ..self }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("site")
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn component(&self) -> Arc<dyn Component> {
        match self.far {
            true => crate::far::component(self.dir.path(), self.kind, &self.yaml, &[]),
            false => built(self.dir.path(), self.kind, &self.yaml),
        }
    }

    pub async fn apply(&self, run: u64, step: &Step) -> Outcome {
        let (component, cx) = (self.component(), run_cx(run));
        let mark = component.holds(&cx, step, None).await.mark;
        component.apply(&cx, step, &before(run, step, mark)).await
    }

    /// Captures the present state and puts it on the record.
    pub async fn capture(&self, id: u64) -> (CaptureId, Made) {
        let proof = proof(self.apply(id, &capture_step(CapturePurpose::Protective)).await);
        let (id, made) = (CaptureId::at(Seq(id)), proof.capture.unwrap());
        let path = self.dir.path().join("captures.json");
        let mut record: BTreeMap<CaptureId, Made> =
            fs::read(&path).map_or_else(|_| BTreeMap::new(), |bytes| serde_json::from_slice(&bytes).unwrap());
        record.insert(id.clone(), made.clone());
        fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
        (id, made)
    }

    pub async fn restore(&self, run: u64, id: &CaptureId, made: &Made) -> Proof {
        proof(self.apply(run, &restore_step(id, made)).await)
    }

    pub async fn tidy(&self, before: &str) -> Vec<String> {
        self.component().tidy(&run_cx(1), &place(), before.parse().unwrap()).await.unwrap()
    }

    pub async fn seen(&self) -> Seen {
        self.component().survey(&run_cx(1), &place(), &[]).await.seen
    }

    pub async fn available(&self, wanted: Wanted) -> Available {
        let survey = self.component().survey(&run_cx(1), &place(), std::slice::from_ref(&wanted)).await;
        assert_eq!(survey.available[0].0, wanted);
        survey.available[0].1.clone()
    }

    /// Names of ours that are meant to be gone when a step has ended.
    pub fn leftovers(&self) -> Vec<String> {
        let releases = self.at("releases");
        let below = if releases.exists() { names(&releases) } else { vec![] };
        names(&self.path()).into_iter().chain(below).filter(|name| name.contains(".ripcord-")).collect()
    }

    /// Flips bytes of everything the vault holds.
    pub fn damage_vault(&self) {
        let mut open = vec![self.dir.path().join("vault/repository/data")];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let mut bytes = fs::read(&path).unwrap();
            let end = bytes.len().min(4000);
            bytes[..end].iter_mut().for_each(|byte| *byte ^= 0x55);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(&path, bytes).unwrap();
        }
    }

    /// Runs a step in a process of its own. None when it was killed on the way.
    pub fn in_child(&self, run: u64, step: &Step, with: &Child) -> Option<Outcome> {
        if self.far {
            return crate::far::in_agent(self.dir.path(), self.kind, &self.yaml, run, step, with);
        }
        let task = serde_json::json!({
            "dir": self.dir.path(), "kind": self.kind, "yaml": self.yaml, "run": run, "step": step,
        });
        let binary = std::env::current_exe().unwrap();
        let test = ["contract::child", "--exact", "--nocapture"];
        let mut command = match with.file_blocks {
            None => Command::new(binary),
            Some(blocks) => {
                // Ignoring the signal makes the write fail instead, as on a full disk.
                let mut command = Command::new("sh");
                command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]).arg(binary);
                command
            }
        };
        command.args(test).env("CONTRACT_CHILD", task.to_string()).stdin(Stdio::null());
        if let Some(at) = with.kill_at {
            command.env("RIPCORD_KILL_AT", at.to_string());
        }
        if with.unprivileged && rustix::process::geteuid().is_root() {
            use std::os::unix::process::CommandExt;
            command.uid(65534).gid(65534).env("TMPDIR", "/tmp").env("HOME", "/nonexistent");
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.split_once("OUTCOME ").map(|(_, json)| json.to_owned()));
        if line.is_none() {
            use std::os::unix::process::ExitStatusExt;
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.signal(), Some(9), "the child ended otherwise: {text}\n{errors}");
        }
        line.map(|json| serde_json::from_str(&json).unwrap())
    }
}

/// How a child is run.
#[derive(Default)]
pub struct Child {
    pub kill_at: Option<u32>,
    pub file_blocks: Option<u32>,
    pub unprivileged: bool,
}

#[derive(serde::Deserialize)]
struct Task {
    dir: PathBuf,
    kind: String,
    yaml: String,
    run: u64,
    step: Step,
}

/// Not a test: what [`Site::in_child`] runs.
#[test]
fn child() {
    let Ok(task) = std::env::var("CONTRACT_CHILD") else { return };
    let task: Task = serde_json::from_str(&task).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let component = built(&task.dir, &task.kind, &task.yaml);
        let cx = run_cx(task.run);
        component.apply(&cx, &task.step, &before(task.run, &task.step, None)).await
    });
    println!("OUTCOME {}", serde_json::to_string(&outcome).unwrap());
}

pub fn capture_step(purpose: CapturePurpose) -> Step {
    step("capture", Action::Capture { purpose })
}

pub fn restore_step(id: &CaptureId, made: &Made) -> Step {
    let from = Some(CaptureRef::Known(id.clone()));
    step("restore", Action::Restore { to: made.revision.clone(), from })
}

pub fn stage_step(id: &CaptureId, made: &Made) -> Step {
    let from = Some(CaptureRef::Known(id.clone()));
    step("stage", Action::Stage { to: made.revision.clone(), from })
}

/// The actions that a component proposes for the way back to a capture.
pub async fn proposed(site: &Site, id: &CaptureId, made: &Made) -> Vec<Action> {
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let survey = site.component().survey(&run_cx(1), &place(), std::slice::from_ref(&wanted)).await;
    let want = Want::Revision { revision: wanted.revision, capture: wanted.capture };
    let drafts = site.component().propose(&Wish { place: place(), want }, &inventory(survey)).unwrap();
    drafts.into_iter().map(|draft| draft.action).collect()
}

pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().display().to_string()).collect();
    names.sort();
    names
}

/// Everything below a path as text: kinds, modes, contents; without `.git`.
pub fn listing(path: &Path) -> String {
    fn add(at: &Path, shown: &str, text: &mut String) {
        let Ok(meta) = fs::symlink_metadata(at) else { return text.push_str("absent\n") };
        let mode = meta.mode() & 0o7777;
        if meta.is_symlink() {
            text.push_str(&format!("{shown} -> {}\n", fs::read_link(at).unwrap().display()));
        } else if meta.is_dir() {
            text.push_str(&format!("{shown}/ {mode:o}\n"));
            for name in names(at).into_iter().filter(|name| name != ".git") {
                add(&at.join(&name), &format!("{shown}/{name}"), text);
            }
        } else {
            text.push_str(&format!("{shown} {mode:o} {}\n", Digest::of(&fs::read(at).unwrap()).short()));
        }
    }
    let mut text = String::new();
    add(path, "", &mut text);
    text
}

/// Bytes that do not compress, the same at each call.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut seed = 1_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

pub fn hex_noise(bytes: usize) -> String {
    noise(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn observe_tells_what_was_restored<R: Rig>() {
    let site = Site::of::<R>();
    let good = R::content(&site.path());
    let (id, made) = site.capture(1).await;
    assert_eq!(site.seen().await, Seen::At(made.revision.clone()));
    R::bad(&site.path());
    let bad = R::content(&site.path());
    assert_ne!(bad, good, "the rig's bad release does something");
    assert_ne!(site.seen().await, Seen::At(made.revision.clone()));
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    assert!(matches!(site.available(wanted.clone()).await, Available::Here { .. }));
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    proof(site.apply(2, &prove).await);
    assert_eq!(R::content(&site.path()), bad, "looking and proving change nothing");

    let (component, cx, restore) = (site.component(), run_cx(2), restore_step(&id, &made));
    let looked = component.holds(&cx, &restore, None).await;
    assert_eq!(looked.holds, Holds::Origin);
    let before = before(2, &restore, looked.mark);
    assert_eq!(component.holds(&cx, &restore, Some(&before)).await.holds, Holds::Origin);
    let done = proof(component.apply(&cx, &restore, &before).await);
    assert!(!done.found.is_empty());
    assert_eq!(R::content(&site.path()), good);
    assert_eq!(component.holds(&cx, &restore, Some(&before)).await.holds, Holds::Target);
    assert_eq!(site.seen().await, Seen::At(made.revision));
    assert_eq!(site.leftovers(), Vec::<String>::new());
    assert!(!done.set_aside.is_empty(), "the former state is kept and said where");
    for place in done.set_aside.iter().filter(|place| place.starts_with('/')) {
        assert!(Path::new(place).exists(), "{place}");
    }
}

async fn rf09_restore_twice_is_restore_once<R: Rig>() {
    let site = Site::of::<R>();
    let good = R::content(&site.path());
    let (id, made) = site.capture(1).await;
    R::bad(&site.path());
    site.restore(2, &id, &made).await;
    // A reader of SQLite's own leaves its log's files there, empty.
    let names = |path: &Path| {
        names(path).into_iter().filter(|n| !n.ends_with("-wal") && !n.ends_with("-shm")).collect::<Vec<_>>()
    };
    let there = names(&site.path());
    // The same step again, another run's, and one from another place at once.
    site.restore(2, &id, &made).await;
    site.restore(3, &id, &made).await;
    assert_eq!(names(&site.path()), there, "nothing is set aside when nothing is done");
    R::edit(&site.path());
    assert_ne!(R::content(&site.path()), good, "the rig's edit does something");
    site.restore(4, &id, &made).await;
    assert_eq!(R::content(&site.path()), good);
}

async fn two_at_once_end_where_one_does<R: Rig>() {
    let site = Site::of::<R>();
    let good = R::content(&site.path());
    let (id, made) = site.capture(1).await;
    R::bad(&site.path());
    let step = restore_step(&id, &made);
    let (one, other) = tokio::join!(site.apply(2, &step), site.apply(3, &step));
    for outcome in [&one, &other] {
        let fine = match outcome {
            Outcome::Done(_) => true,
            Outcome::Failed(failure) => failure.retry == ripcord_core::Retry::Later,
            Outcome::Unknown { .. } => false,
        };
        assert!(fine, "{outcome:?}");
    }
    assert!(matches!(one, Outcome::Done(_)) || matches!(other, Outcome::Done(_)));
    assert_eq!(R::content(&site.path()), good);
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

async fn rf15_killed_anywhere_it_is_whole_and_converges<R: Rig>() {
    let site = Site::of::<R>();
    let good = R::content(&site.path());
    let (id, made) = site.capture(1).await;
    let step = restore_step(&id, &made);
    for at in 1.. {
        assert!(at < 400, "the child never gets through");
        let run = 100 + u64::from(at);
        R::bad(&site.path());
        let bad = R::content(&site.path());
        let outcome = site.in_child(run, &step, &Child { kill_at: Some(at), ..Child::default() });
        let found = R::content(&site.path());
        assert!(found == good || found == bad, "killed at {at}, live is neither old nor new:\n{found}");
        if let Some(outcome) = outcome {
            proof(outcome);
            assert_eq!(found, good);
            assert!(at > 2, "the step has places to be killed at");
            return;
        }
        let (component, cx) = (site.component(), run_cx(run));
        let before = before(run, &step, None);
        let holds = component.holds(&cx, &step, Some(&before)).await.holds;
        assert!(!matches!(holds, Holds::CannotTell { .. }), "killed at {at}: {holds:?}");
        if holds != Holds::Target {
            // Killed a second time, a little later, on the way to the end.
            site.in_child(run, &step, &Child { kill_at: Some(at / 2 + 1), ..Child::default() });
            let found = R::content(&site.path());
            assert!(found == good || found == bad, "killed at {at} and again, live is neither old nor new:\n{found}");
            proof(component.apply(&cx, &step, &before).await);
        }
        assert_eq!(R::content(&site.path()), good, "killed at {at}");
        assert_eq!(component.holds(&cx, &step, Some(&before)).await.holds, Holds::Target, "killed at {at}");
        assert_eq!(site.leftovers(), Vec::<String>::new(), "killed at {at}");
    }
}

async fn a_capture_killed_anywhere_is_made_again<R: Rig>() {
    let site = Site::of::<R>();
    let good = R::content(&site.path());
    let step = capture_step(CapturePurpose::Protective);
    for at in 1..100 {
        let run = 100 + u64::from(at);
        let outcome = site.in_child(run, &step, &Child { kill_at: Some(at), ..Child::default() });
        assert_eq!(R::content(&site.path()), good, "killed at {at}");
        let through = outcome.is_some();
        let made = proof(match outcome {
            Some(outcome) => outcome,
            None => site.apply(run, &step).await,
        });
        assert_eq!(site.seen().await, Seen::At(made.capture.unwrap().revision));
        assert_eq!(site.leftovers(), Vec::<String>::new(), "killed at {at}");
        if through {
            return;
        }
    }
    panic!("the child never got through");
}

async fn a_damaged_capture_is_refused_before_anything<R: Rig>() {
    let site = Site::of::<R>();
    let (id, made) = site.capture(1).await;
    R::bad(&site.path());
    site.damage_vault();
    R::damage(&site.path());
    let (bad, there) = (R::content(&site.path()), names(&site.path()));
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let available = site.available(wanted).await;
    assert!(matches!(available, Available::Missing { .. }), "{available:?}");
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    assert!(matches!(site.apply(2, &prove).await, Outcome::Failed(_)));
    let outcome = site.apply(2, &restore_step(&id, &made)).await;
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    assert_eq!(R::content(&site.path()), bad);
    assert_eq!(names(&site.path()), there, "nothing is left beside");
}

async fn what_is_missing_is_said<R: Rig>() {
    let site = Site::of::<R>();
    let (id, made) = site.capture(1).await;
    R::bad(&site.path());
    let never = Revision::exact("sha256:never-was");
    for capture in [None, Some(id.clone()), Some(CaptureId::at(Seq(99)))] {
        let available = site.available(Wanted { revision: never.clone(), capture }).await;
        assert!(matches!(available, Available::Missing { .. }), "{available:?}");
    }
    let bad = R::content(&site.path());
    let lying = Made { revision: never, ..made };
    let outcome = site.apply(2, &restore_step(&id, &lying)).await;
    assert!(matches!(outcome, Outcome::Failed(_)), "a capture of something else: {outcome:?}");
    assert_eq!(R::content(&site.path()), bad);
}

async fn between_states_are_told<R: Rig>() {
    let site = Site::of::<R>();
    let good = R::content(&site.path());
    let (id, made) = site.capture(1).await;
    if !R::between(&site.path()) {
        return;
    }
    let seen = site.seen().await;
    assert!(matches!(seen, Seen::Between { .. }), "{seen:?}");
    let captured = site.apply(3, &capture_step(CapturePurpose::Protective)).await;
    assert!(matches!(captured, Outcome::Done(_) | Outcome::Failed(_)), "{captured:?}");
    site.restore(2, &id, &made).await;
    assert_eq!(R::content(&site.path()), good);
}

async fn what_was_set_aside_goes_when_it_is_old<R: Rig>() {
    let site = Site::of::<R>();
    let good = R::content(&site.path());
    let (id, made) = site.capture(1).await;
    R::bad(&site.path());
    let done = site.restore(2, &id, &made).await;
    let beside: Vec<PathBuf> = done.set_aside.iter().map(PathBuf::from).filter(|path| path.is_absolute()).collect();
    assert!(beside.iter().all(|path| path.exists()), "{beside:?}");
    // What people called something like ours, and links under names of ours.
    let users =
        ["app-failed-notes", "shop.db.before-migration", ".ripcord-notes", "app.ripcord-old"].map(|n| site.at(n));
    users.iter().for_each(|path| fs::write(path, "theirs").unwrap());
    let links = ["app-failed-20200101T000000Z", "shop.db.before-run-1", ".ripcord-run-1-restore-part-0a1b2c3d"];
    let theirs = site.dir.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    links.iter().for_each(|name| std::os::unix::fs::symlink(&theirs, site.at(name)).unwrap());
    let there = names(&site.path());
    assert_eq!(site.tidy("2020-01-01T00:00:00Z").await, Vec::<String>::new(), "nothing is so old");
    assert_eq!(names(&site.path()), there);

    let removed = site.tidy("2200-01-01T00:00:00Z").await;
    let salvage = |path: &Path| path.display().to_string().contains(".salvage-");
    for path in &beside {
        assert_eq!(path.exists(), salvage(path), "{}", path.display());
        assert_eq!(removed.contains(&path.display().to_string()), !salvage(path), "{removed:?}");
    }
    assert!(users.iter().all(|path| path.exists()) && links.iter().all(|name| site.at(name).is_symlink()));
    assert!(theirs.exists());
    assert_eq!(R::content(&site.path()), good, "what is live is as it was");
    assert_eq!(site.tidy("2200-01-01T00:00:00Z").await, Vec::<String>::new(), "twice is once");
    // And the way back is as open as it was.
    R::bad(&site.path());
    site.restore(3, &id, &made).await;
    assert_eq!(R::content(&site.path()), good);
}

async fn rf15_what_a_kill_left_goes_when_it_is_old<R: Rig>() {
    let site = Site::of::<R>();
    let good = R::content(&site.path());
    let (id, made) = site.capture(1).await;
    let step = restore_step(&id, &made);
    let mut left = 0;
    for at in (1..8).chain((8..400).step_by(5)) {
        R::bad(&site.path());
        let bad = R::content(&site.path());
        let through =
            site.in_child(100 + u64::from(at), &step, &Child { kill_at: Some(at), ..Child::default() }).is_some();
        let removed = site.tidy("2200-01-01T00:00:00Z").await;
        left += removed.iter().filter(|path| path.contains(".ripcord-")).count();
        let links = |name: &String| site.at(name).is_symlink();
        assert!(site.leftovers().iter().all(links), "killed at {at}: {:?}", site.leftovers());
        let found = R::content(&site.path());
        assert!(found == good || found == bad, "killed at {at}, then tidied:\n{found}");
        if through {
            break;
        }
    }
    // Where only a link is written, only a link is left, and those stay.
    assert!(left > 0 || !R::WRITES, "some kill leaves something");
    site.restore(900, &id, &made).await;
    assert_eq!(R::content(&site.path()), good);
}

/// Gives the whole site to whom the child runs as.
fn give_away(path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::os::unix::fs::lchown(path, Some(65534), Some(65534)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_away(&entry.unwrap().path());
        }
    }
}

async fn a_directory_that_may_not_be_written_is_said<R: Rig>() {
    let site = Site::of::<R>();
    let (id, made) = site.capture(1).await;
    R::bad(&site.path());
    give_away(site.dir.path());
    let bad = R::content(&site.path());
    let mode = |mode| fs::set_permissions(site.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    let child = Child { unprivileged: true, ..Child::default() };
    let outcome = site.in_child(2, &restore_step(&id, &made), &child);
    mode(0o755);
    let Some(Outcome::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    assert!(failure.what.contains("ermission denied") || failure.what.contains("readonly"), "{failure:?}");
    assert_eq!(R::content(&site.path()), bad);
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

async fn a_full_disk_changes_nothing<R: Rig>() {
    if !R::WRITES {
        return;
    }
    let site = Site::of::<R>();
    let (id, made) = site.capture(1).await;
    R::bad(&site.path());
    let bad = R::content(&site.path());
    let child = Child { file_blocks: Some(100), ..Child::default() };
    let outcome = site.in_child(2, &restore_step(&id, &made), &child);
    let Some(Outcome::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    assert!(!failure.what.is_empty());
    assert_eq!(R::content(&site.path()), bad, "{failure:?}");
    assert_eq!(site.leftovers(), Vec::<String>::new(), "{failure:?}");
    // The same step once there is room.
    site.restore(2, &id, &made).await;
}

async fn what_was_absent_is_taken_away_and_comes_back<R: Rig>() {
    let site = Site::of::<R>();
    let good = R::content(&site.path());
    let (id, made) = site.capture(1).await;
    let away = step("restore", Action::Restore { to: Revision::Absent, from: None });
    proof(site.apply(2, &away).await);
    assert_eq!(site.seen().await, Seen::At(Revision::Absent));
    proof(site.apply(2, &away).await);
    if R::KIND != "git" {
        site.restore(3, &id, &made).await;
        assert_eq!(R::content(&site.path()), good);
    }
}

/// Data inside a tree that is replaced between a kill and the resumption: the newest is live in the end, whenever the kill was.
pub async fn data_is_never_taken_back(site: &Site, bad: fn(&Path), data: &str) {
    let (id, made) = site.capture(1).await;
    let step = restore_step(&id, &made);
    for at in 1..200 {
        let run = 100 + u64::from(at);
        bad(&site.path());
        let write = |text: String| {
            fs::write(site.at("written"), text).unwrap();
            fs::rename(site.at("written"), site.at(data)).unwrap();
        };
        write(format!("before {at}"));
        let through = site.in_child(run, &step, &Child { kill_at: Some(at), ..Child::default() }).is_some();
        let newest = if through { format!("before {at}") } else { format!("after {at}") };
        if !through {
            write(newest.clone());
            let before = before(run, &step, None);
            proof(site.component().apply(&run_cx(run), &step, &before).await);
        }
        assert_eq!(fs::read_to_string(site.at(data)).unwrap(), newest, "killed at {at}");
        assert_eq!(site.seen().await, Seen::At(made.revision.clone()), "killed at {at}");
        if through {
            return;
        }
    }
    panic!("the child never got through");
}

/// Every check of the contract for one rig, each a test of its own.
macro_rules! contract {
    ($module:ident, $rig:ty: $($check:ident)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                super::$check::<$rig>().await;
            })*
        }
    };
    ($module:ident, $rig:ty) => {
        contract!($module, $rig:
            observe_tells_what_was_restored
            rf09_restore_twice_is_restore_once
            two_at_once_end_where_one_does
            rf15_killed_anywhere_it_is_whole_and_converges
            a_capture_killed_anywhere_is_made_again
            a_damaged_capture_is_refused_before_anything
            what_is_missing_is_said
            between_states_are_told
            a_directory_that_may_not_be_written_is_said
            a_full_disk_changes_nothing
            what_was_set_aside_goes_when_it_is_old
            rf15_what_a_kill_left_goes_when_it_is_old
            what_was_absent_is_taken_away_and_comes_back
        );
    };
}

contract!(env_file, crate::env_file::Env);
contract!(json_file, crate::json_file::Flags);
contract!(directory, crate::directory::Plain);
contract!(directory_of_releases, crate::directory::Releases);
contract!(directory_of_releases_cleaned_away, crate::directory::Gone);
contract!(directory_of_one_file, crate::directory::OneFile);
contract!(git, crate::git::Clone);
contract!(git_paths, crate::git::Paths);
contract!(sqlite, crate::sqlite::Wal);
contract!(sqlite_with_a_journal, crate::sqlite::Journal);

// The kinds that a host most often has, through a link to its agent.
#[cfg(feature = "real")]
contract!(directory_on_a_host, crate::far::There<crate::directory::Plain>);
contract!(env_file_on_a_host, crate::far::There<crate::env_file::Env>);
#[cfg(feature = "real")]
contract!(git_on_a_host, crate::far::There<crate::git::Clone>);
#[cfg(feature = "real")]
contract!(sqlite_on_a_host, crate::far::There<crate::sqlite::Wal>);
#[cfg(feature = "real")]
contract!(postgres, crate::real_postgres::Database);
contract!(systemd, crate::systemd::Unit);
// All but what is asked as a user who may not enter another's namespaces.
#[cfg(feature = "real")]
contract!(systemd_itself, crate::real_systemd::Unit:
    observe_tells_what_was_restored
    rf09_restore_twice_is_restore_once
    two_at_once_end_where_one_does
    rf15_killed_anywhere_it_is_whole_and_converges
    a_capture_killed_anywhere_is_made_again
    a_damaged_capture_is_refused_before_anything
    what_is_missing_is_said
    between_states_are_told
    a_full_disk_changes_nothing
    what_was_set_aside_goes_when_it_is_old
    rf15_what_a_kill_left_goes_when_it_is_old
    what_was_absent_is_taken_away_and_comes_back
);
contract!(npm, crate::npm::Modules);
contract!(pip, crate::pip::Linked);
#[cfg(feature = "real")]
contract!(etcd, crate::real_etcd::Keys:
    observe_tells_what_was_restored
    rf09_restore_twice_is_restore_once
    two_at_once_end_where_one_does
    rf15_killed_anywhere_it_is_whole_and_converges
    a_capture_killed_anywhere_is_made_again
    a_damaged_capture_is_refused_before_anything
    what_is_missing_is_said
    what_was_absent_is_taken_away_and_comes_back
);
contract!(http_flags, crate::http_flags::Document:
    observe_tells_what_was_restored
    rf09_restore_twice_is_restore_once
    two_at_once_end_where_one_does
    rf15_killed_anywhere_it_is_whole_and_converges
    a_capture_killed_anywhere_is_made_again
    a_damaged_capture_is_refused_before_anything
    what_is_missing_is_said
);
