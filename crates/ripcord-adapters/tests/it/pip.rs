//! Environments that a stand-in for Python makes from an index in a file: see `fakes/python`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use ripcord_core::{Action, Available, CaptureId, CaptureRef, Made, Outcome, Revision, Seen, Want, Wanted, Wish};

use crate::contract::{Rig, Site, names, proposed, restore_step, run_cx, stage_step};
use crate::support::{inventory, place, proof, step};

const SETTINGS: &str = "venv: venv\npython: [sh, python]";

fn run(site: &Path, program: &str, words: &[&str]) {
    assert!(Command::new(program).args(words).current_dir(site).status().unwrap().success(), "{program} {words:?}");
}

fn index(site: &Path) {
    fs::write(site.join("python"), include_str!("fakes/python")).unwrap();
    fs::write(site.join("version"), "3.11.7\n").unwrap();
    fs::write(site.join("index"), "pip==23.2.1\nsetuptools==65.5.0\nshop-lib==1.0\nshop-lib==2.0\nnew==1\nbroken==1\n")
        .unwrap();
}

/// What a deployment does: installs in place.
fn install(site: &Path, lines: &[&str]) {
    fs::write(site.join("list"), format!("{}\n", lines.join("\n"))).unwrap();
    run(site, "venv/bin/python", &["-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-r", "list"]);
    fs::remove_file(site.join("list")).unwrap();
    let _ = fs::remove_file(site.join("installs"));
}

pub struct Linked;

impl Rig for Linked {
    const KIND: &'static str = "pip";
    /// The environments have a directory of their own; at their name only a link is written.
    const WRITES: bool = false;
    fn settings() -> String {
        SETTINGS.to_owned()
    }
    fn good(site: &Path) {
        index(site);
        fs::create_dir(site.join("venvs")).unwrap();
        run(site, "sh", &["python", "-m", "venv", "venvs/mine"]);
        symlink("venvs/mine", site.join("venv")).unwrap();
        install(site, &["shop-lib==1.0"]);
        run(
            site,
            "venv/bin/python",
            &["-m", "pip", "--disable-pip-version-check", "--no-input", "uninstall", "--yes", "setuptools"],
        );
    }
    fn bad(site: &Path) {
        // Not there after it was taken away.
        if !site.join("venv").exists() {
            symlink("venvs/mine", site.join("venv")).unwrap();
        }
        install(site, &["shop-lib==2.0", "new==1"]);
    }
    fn edit(site: &Path) {
        install(site, &["new==1"]);
    }
    fn content(site: &Path) -> String {
        fs::read_to_string(site.join("venv/installed")).map_or("absent".to_owned(), |text| {
            let mut lines: Vec<_> = text.lines().collect();
            lines.sort_unstable();
            lines.join("\n")
        })
    }
    fn between(site: &Path) -> bool {
        fs::remove_file(site.join("venv/pyvenv.cfg")).unwrap();
        true
    }
}

async fn site(settings: &str) -> (Site, CaptureId, Made) {
    let site = Site::new("pip", settings);
    Linked::good(&site.path());
    let (id, made) = site.capture(1).await;
    (site, id, made)
}

fn failed(outcome: Outcome) -> ripcord_core::Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn installs(site: &Site) -> usize {
    fs::read_to_string(site.at("installs")).map_or(0, |text| text.lines().count())
}

#[tokio::test]
async fn the_former_environment_stays_and_the_way_back_from_the_way_back_needs_no_index() {
    let (site, good_id, good) = site(SETTINGS).await;
    Linked::bad(&site.path());
    let (bad_id, bad) = site.capture(2).await;
    let done = site.restore(3, &good_id, &good).await;
    assert_eq!(done.set_aside, ["the former environment venvs/mine is left as it is"]);
    assert_eq!(installs(&site), 1, "what an environment comes with is not installed");
    let link = fs::read_link(site.at("venv")).unwrap();
    assert!(link.is_relative() && link.starts_with("venvs"), "{}", link.display());
    fs::remove_file(site.at("index")).unwrap();
    fs::remove_file(site.at("installs")).unwrap();
    symlink("venvs/mine", site.at("later")).unwrap();
    fs::rename(site.at("later"), site.at("venv")).unwrap();
    assert_eq!(site.seen().await, Seen::At(bad.revision.clone()));
    let done = site.restore(4, &good_id, &good).await;
    assert!(done.found.ends_with("which was kept"), "{}", done.found);
    assert_eq!(installs(&site), 0);
    // One that we did not make is not believed to be what it looks like.
    let failure = failed(site.apply(5, &restore_step(&bad_id, &bad)).await);
    assert!(failure.what.contains("index"), "{}", failure.what);
}

#[tokio::test]
async fn on_a_bare_machine_there_is_nothing_and_that_is_captured_too() {
    let (site, id, made) = site(SETTINGS).await;
    let environments = site.at("venvs");
    fs::rename(site.at("venv"), site.dir.path().join("venv")).unwrap();
    fs::rename(&environments, site.dir.path().join("venvs")).unwrap();
    let (bare_id, bare) = site.capture(2).await;
    assert_eq!(bare.revision, Revision::Absent);
    site.restore(3, &id, &made).await;
    assert_eq!(site.seen().await, Seen::At(made.revision));
    site.restore(4, &bare_id, &bare).await;
    assert_eq!(site.seen().await, Seen::At(Revision::Absent));
}

#[tokio::test]
async fn rf16_an_index_that_is_down_leaves_what_runs_untouched() {
    let (site, id, made) = site(SETTINGS).await;
    Linked::bad(&site.path());
    let (bad, link) = (Linked::content(&site.path()), fs::read_link(site.at("venv")).unwrap());
    fs::write(site.at("index"), "").unwrap();
    let failure = failed(site.apply(2, &restore_step(&id, &made)).await);
    assert!(failure.what.contains("No matching distribution found for shop-lib==1.0"), "{}", failure.what);
    assert!(failure.advice.is_some_and(|advice| advice.contains("not touched")));
    assert_eq!((Linked::content(&site.path()), fs::read_link(site.at("venv")).unwrap()), (bad, link));
    assert_eq!(names(&site.at("venvs")), ["mine"], "what could not be made leaves no trace");
    index(&site.path());
    site.restore(3, &id, &made).await;
}

#[tokio::test]
async fn rf16_another_interpreter_is_told_before_anything() {
    let (site, id, made) = site(SETTINGS).await;
    Linked::bad(&site.path());
    fs::write(site.at("version"), "3.12.1\n").unwrap();
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let Available::Missing { why } = site.available(wanted).await else { panic!() };
    assert_eq!(why, "its environment was of Python 3.11, and `python` is 3.12");
    let prove = step("prove", Action::Prove { revision: made.revision, capture: Some(id) });
    assert!(failed(site.apply(2, &prove).await).advice.is_some_and(|advice| advice.contains("[python3.11]")));
}

#[tokio::test]
async fn a_directory_becomes_a_link_and_is_kept() {
    let site = Site::new("pip", SETTINGS);
    index(&site.path());
    run(&site.path(), "sh", &["python", "-m", "venv", "venv"]);
    install(&site.path(), &["shop-lib==1.0"]);
    let (id, made) = site.capture(1).await;
    Linked::bad(&site.path());
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let survey = site.component().survey(&run_cx(1), &place(), &[wanted]).await;
    let want = Want::Revision { revision: made.revision.clone(), capture: Some(id.clone()) };
    let drafts = site.component().propose(&Wish { place: place(), want }, &inventory(survey)).unwrap();
    assert!(
        drafts[1].shown.words.ends_with("venv becomes a link, and the directory is kept beside"),
        "{:?}",
        drafts[1]
    );
    assert_eq!(
        drafts[1].action,
        Action::Restore { to: made.revision.clone(), from: Some(CaptureRef::Known(id.clone())) }
    );
    for at in 1.. {
        assert!(at < 60, "the child never gets through");
        let child = crate::contract::Child { kill_at: Some(at), ..Default::default() };
        let run_id = 100 + u64::from(at);
        let through = site.in_child(run_id, &restore_step(&id, &made), &child).is_some();
        let content = Linked::content(&site.path());
        assert!(content.contains("shop-lib==1.0") || content.contains("shop-lib==2.0"), "killed at {at}: {content}");
        let before = crate::contract::before(run_id, &restore_step(&id, &made), None);
        let done = proof(site.component().apply(&run_cx(run_id), &restore_step(&id, &made), &before).await);
        assert!(site.at("venv").is_symlink(), "killed at {at}: {done:?}");
        assert_eq!((site.seen().await, site.leftovers()), (Seen::At(made.revision.clone()), vec![]), "killed at {at}");
        let kept = names(&site.path()).into_iter().find(|name| name.starts_with("venv-failed-")).unwrap();
        assert!(fs::read_to_string(site.at(&kept).join("installed")).unwrap().contains("new==1"), "killed at {at}");
        if through {
            return;
        }
        // As it was before the first.
        fs::remove_file(site.at("venv")).unwrap();
        fs::rename(site.at(&kept), site.at("venv")).unwrap();
        if at % 2 == 0 {
            fs::remove_dir_all(site.at("venvs")).unwrap();
        }
    }
}

#[tokio::test]
async fn hashes_that_were_demanded_are_demanded_again() {
    let (site, ..) = site(SETTINGS).await;
    let site = site.with(&format!("{SETTINGS}\nrequirements: requirements.txt"));
    fs::write(site.at("requirements.txt"), "Shop_Lib==1.0 \\\n  --hash=sha256:other\n").unwrap();
    let (id, made) = site.capture(2).await;
    Linked::bad(&site.path());
    fs::write(site.at("requirements.txt"), "shop-lib\n").unwrap();
    let failure = failed(site.apply(3, &restore_step(&id, &made)).await);
    assert!(failure.what.contains("DO NOT MATCH THE HASHES"), "{}", failure.what);
    assert!(fs::read_to_string(site.at("installs")).unwrap().contains("--require-hashes"));
}

#[tokio::test]
async fn what_was_installed_from_a_place_is_refused_unless_allowed() {
    let (site, ..) = site(SETTINGS).await;
    let direct = "lib @ git+https://example.org/lib@0f1e";
    fs::write(site.at("venv/installed"), format!("pip==23.2.1\n{direct}\n")).unwrap();
    let survey = site.component().survey(&run_cx(1), &place(), &[]).await;
    assert_eq!(survey.facts["installed from places"], direct);
    let (id, made) = site.capture(2).await;
    Linked::bad(&site.path());
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let Available::Missing { why } = site.available(wanted.clone()).await else { panic!() };
    assert!(why.contains(direct), "{why}");
    let site = site.with(&format!("{SETTINGS}\nallow-direct: true"));
    assert!(matches!(site.available(wanted).await, Available::Here { .. }));
}

#[tokio::test]
async fn an_environment_that_never_went_together_may_come_back_and_one_that_did_must() {
    let (site, ..) = site(SETTINGS).await;
    install(&site.path(), &["broken==1"]);
    let (id, made) = site.capture(2).await;
    install(&site.path(), &["new==1"]);
    site.restore(3, &id, &made).await;
    // The check itself is the user's.
    let site = site.with(&format!("{SETTINGS}\nverify: [sh, -c, 'command -v python; exit 4']"));
    fs::remove_dir_all(site.at("venvs")).unwrap();
    run(&site.path(), "sh", &["python", "-m", "venv", "venvs/mine"]);
    fs::remove_file(site.at("venv")).unwrap();
    symlink("venvs/mine", site.at("venv")).unwrap();
    let failure = failed(site.apply(4, &restore_step(&id, &made)).await);
    assert!(failure.what.contains("exit code 4: ") && failure.what.contains("/bin/python"), "{}", failure.what);
    assert_ne!(site.seen().await, Seen::At(Revision::Absent));
}

#[tokio::test]
async fn an_environment_is_made_before_anything_stops_unless_a_check_has_to_see_the_code() {
    let (site, id, made) = site(SETTINGS).await;
    Linked::bad(&site.path());
    let bad = Linked::content(&site.path());
    let (stage, restore) = (stage_step(&id, &made), restore_step(&id, &made));
    assert_eq!(proposed(&site, &id, &made).await, [stage.action.clone(), restore.action.clone()]);
    proof(site.apply(2, &stage).await);
    assert_eq!(Linked::content(&site.path()), bad, "what is in use is not touched");
    fs::remove_file(site.at("index")).unwrap();
    assert!(site.restore(2, &id, &made).await.found.ends_with("which was kept"));
    // It is kept now: nothing is to be made.
    symlink("venvs/mine", site.at("later")).unwrap();
    fs::rename(site.at("later"), site.at("venv")).unwrap();
    assert_eq!(proposed(&site, &id, &made).await, std::slice::from_ref(&restore.action));
    index(&site.path());
    for kept in names(&site.at("venvs")).into_iter().filter(|name| name != "mine") {
        fs::remove_dir_all(site.at("venvs").join(kept)).unwrap();
    }
    let site = site.with(&format!("{SETTINGS}\nverify: [python, -c, 'import shop']"));
    assert_eq!(proposed(&site, &id, &made).await, [restore.action]);
}
