//! Modules that a stand-in for npm installs from a registry in a file: see `fakes/npm-ci`.

use std::fs;
use std::path::Path;

use ripcord_core::{Action, Available, CaptureId, Holds, Made, Outcome, Readers, Seen, Wanted};

use crate::contract::{Child, Rig, Site, before, capture_step, listing, proposed, restore_step, run_cx, stage_step};
use crate::support::{component, place, proof, step};

const SETTINGS: &str = "directory: app\ninstall: [sh, ../npm-ci]\nverify: []";
const KEPT: &str = "directory: app\ninstall: [sh, ../npm-ci]\noutputs: [node_modules, dist]\nverify: []";
const BUILT: &str = "directory: app\ninstall: [sh, ../npm-ci]\noutputs: [node_modules, dist]\nsources: [src]\n\
                     build: [sh, -c, 'mkdir dist && cat src/* node_modules/*/index.js > dist/app.js']\nverify: []";

fn lock(packages: &[(&str, &str)]) -> String {
    let line = |(name, version): &(&str, &str)| format!("\"node_modules/{name}\":{{\"version\":\"{version}\"}}");
    let lines: Vec<_> = packages.iter().map(line).collect();
    format!("{{\"lockfileVersion\":3,\"packages\":{{\"\":{{\"name\":\"shop\"}},\n{}\n}}}}\n", lines.join(",\n"))
}

/// What a deployment does: the files of the release, and an install in place.
fn deploy(site: &Path, version: &str, packages: &[(&str, &str)]) {
    let app = site.join("app");
    fs::create_dir_all(app.join("src")).unwrap();
    fs::write(app.join("package.json"), format!("{{\"name\":\"shop\",\"version\":\"{version}\"}}\n")).unwrap();
    fs::write(app.join("package-lock.json"), lock(packages)).unwrap();
    fs::write(app.join("src/main.js"), format!("// {version}\n")).unwrap();
    let status = std::process::Command::new("sh").arg("../npm-ci").current_dir(&app).status().unwrap();
    assert!(status.success());
    let _ = fs::remove_dir_all(app.join("dist"));
    fs::create_dir(app.join("dist")).unwrap();
    fs::write(app.join("dist/app.js"), format!("// {version}\nby the deployment\n")).unwrap();
    fs::remove_file(site.join("installs")).unwrap();
}

fn registry(site: &Path) {
    fs::write(site.join("npm-ci"), include_str!("fakes/npm-ci")).unwrap();
    fs::write(site.join("registry"), "left 1.0.0\nleft 2.0.0\nright 1.0.0\nnew 1.0.0\n").unwrap();
}

const GOOD: &[(&str, &str)] = &[("left", "1.0.0"), ("right", "1.0.0")];
const BAD: &[(&str, &str)] = &[("left", "2.0.0"), ("new", "1.0.0")];

pub struct Modules;

impl Rig for Modules {
    const KIND: &'static str = "npm";
    fn settings() -> String {
        SETTINGS.to_owned()
    }
    fn good(site: &Path) {
        registry(site);
        deploy(site, "1.0.0", GOOD);
    }
    fn bad(site: &Path) {
        deploy(site, "2.0.0", BAD);
    }
    fn edit(site: &Path) {
        deploy(site, "1.0.1", &[("left", "1.0.0")]);
    }
    /// What the application loads; what describes it follows in instants of its own.
    fn content(site: &Path) -> String {
        listing(&site.join("app/node_modules"))
    }
    fn between(site: &Path) -> bool {
        fs::remove_dir_all(site.join("app/node_modules/left")).unwrap();
        true
    }
}

async fn site(settings: &str) -> (Site, CaptureId, Made) {
    let site = Site::new("npm", settings);
    Modules::good(&site.path());
    let (id, made) = site.capture(1).await;
    (site, id, made)
}

fn installs(site: &Site) -> usize {
    fs::read_to_string(site.at("installs")).map_or(0, |text| text.lines().count())
}

fn failed(outcome: Outcome) -> ripcord_core::Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn whole(site: &Site) -> String {
    listing(&site.at("app"))
}

#[tokio::test]
async fn the_lock_the_modules_and_what_was_built_come_back_together() {
    let (site, id, made) = site(KEPT).await;
    let good = fs::read_to_string(site.at("app/dist/app.js")).unwrap();
    Modules::bad(&site.path());
    fs::remove_dir_all(site.at("app/src")).unwrap();
    let done = site.restore(2, &id, &made).await;
    assert_eq!(fs::read_to_string(site.at("app/dist/app.js")).unwrap(), good, "as it was built then");
    assert_eq!(fs::read_to_string(site.at("app/package-lock.json")).unwrap(), lock(GOOD));
    assert!(site.at("app/node_modules/right").exists() && !site.at("app/node_modules/new").exists());
    let kept = Path::new(&done.set_aside[0]);
    assert_eq!(fs::read_to_string(kept.join("node_modules/left/index.js")).unwrap(), "left 2.0.0\n");
    assert_eq!(fs::read_to_string(kept.join("dist/app.js")).unwrap(), "// 2.0.0\nby the deployment\n");
    let names = crate::contract::names(&site.at("app"));
    assert_eq!(
        names,
        ["dist", "node_modules", "package-lock.json", "package.json"],
        "nothing is left in a working tree"
    );
}

#[tokio::test]
async fn rf16_a_failed_install_leaves_what_runs_untouched() {
    let (site, id, made) = site(KEPT).await;
    Modules::bad(&site.path());
    let before = whole(&site);
    // Yanked from the registry; the install forgets one; the check refuses them.
    fs::write(site.at("registry"), "left 1.0.0\n").unwrap();
    let failure = failed(site.apply(2, &restore_step(&id, &made)).await);
    assert!(failure.what.contains("right@1.0.0 is not in this registry"), "{}", failure.what);
    assert!(failure.advice.is_some_and(|advice| advice.starts_with("nothing live was touched")));
    assert_eq!((whole(&site), site.leftovers()), (before.clone(), vec![]));
    registry(&site.path());
    fs::write(site.at("forgets"), "").unwrap();
    let failure = failed(site.apply(3, &restore_step(&id, &made)).await);
    assert_eq!(failure.what, "the install ended well, but left is not there");
    fs::remove_file(site.at("forgets")).unwrap();
    let site = site.with(&KEPT.replace("verify: []", "verify: [sh, -c, 'echo no such module >&2; exit 7']"));
    let failure = failed(site.apply(4, &restore_step(&id, &made)).await);
    assert!(failure.what.contains("exit code 7: no such module"), "{}", failure.what);
    assert_eq!((whole(&site), site.leftovers()), (before, vec![]));
    let site = site.with(KEPT);
    site.restore(5, &id, &made).await;
}

#[tokio::test]
async fn modules_that_were_set_aside_are_used_again_without_an_install() {
    let (site, good_id, good) = site(KEPT).await;
    Modules::bad(&site.path());
    let (bad_id, bad) = site.capture(2).await;
    site.restore(3, &good_id, &good).await;
    assert_eq!(installs(&site), 1);
    // The registry is gone: undoing it needs none.
    fs::remove_file(site.at("registry")).unwrap();
    let prove = step("prove", Action::Prove { revision: bad.revision.clone(), capture: Some(bad_id.clone()) });
    assert!(proof(site.apply(4, &prove).await).found.ends_with("its modules are kept from before"));
    let done = site.restore(4, &bad_id, &bad).await;
    assert!(done.found.contains("kept from before"), "{}", done.found);
    assert_eq!((installs(&site), site.seen().await), (1, Seen::At(bad.revision.clone())));
    site.restore(5, &good_id, &good).await;
    assert_eq!((installs(&site), site.seen().await), (1, Seen::At(good.revision)));
}

#[tokio::test]
async fn a_lock_that_was_put_back_by_others_is_not_yet_the_modules() {
    let (site, id, made) = site(SETTINGS).await;
    let files = ["package.json", "package-lock.json"].map(|name| (name, fs::read(site.at("app").join(name)).unwrap()));
    Modules::bad(&site.path());
    for (name, bytes) in files {
        fs::write(site.at("app").join(name), bytes).unwrap();
    }
    let Seen::Between { why } = site.seen().await else { panic!() };
    assert_eq!(why, "left is 2.0.0, and 1.0.0 in the lock");
    let holds = site.component().holds(&run_cx(2), &restore_step(&id, &made), None).await.holds;
    assert_eq!(holds, Holds::Origin);
    site.restore(2, &id, &made).await;
    assert_eq!(site.seen().await, Seen::At(made.revision));
}

#[tokio::test]
async fn with_a_build_the_sources_must_be_back_first_and_the_outputs_follow() {
    let (site, id, made) = site(BUILT).await;
    Modules::bad(&site.path());
    let before = whole(&site);
    let failure = failed(site.apply(2, &restore_step(&id, &made)).await);
    assert_eq!(failure.what, "`src` is not what it was in that release");
    assert_eq!(failure.retry, ripcord_core::Retry::Later);
    assert_eq!(whole(&site), before);
    fs::write(site.at("app/src/main.js"), "// 1.0.0\n").unwrap();
    site.restore(3, &id, &made).await;
    let built = fs::read_to_string(site.at("app/dist/app.js")).unwrap();
    assert_eq!(built, "// 1.0.0\nleft 1.0.0\nright 1.0.0\n", "built from the sources and the modules of the release");
    let holds = site.component().holds(&run_cx(3), &restore_step(&id, &made), None).await.holds;
    assert_eq!(holds, Holds::Target);
    // Only the sources differ: what is built is bad although the lock is not.
    fs::write(site.at("app/src/main.js"), "// 1.0.2\n").unwrap();
    assert!(matches!(site.seen().await, Seen::At(revision) if revision != made.revision));
    let site = site.with(&BUILT.replace("mkdir dist", "false"));
    fs::write(site.at("app/src/main.js"), "// 1.0.0\n").unwrap();
    Modules::edit(&site.path());
    fs::write(site.at("app/src/main.js"), "// 1.0.0\n").unwrap();
    let before = whole(&site);
    failed(site.apply(4, &restore_step(&id, &made)).await);
    assert_eq!(whole(&site), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf15_killed_anywhere_each_name_is_whole_and_all_converge() {
    for settings in [KEPT, BUILT] {
        let (site, id, made) = site(settings).await;
        let step = restore_step(&id, &made);
        let content = |name: &str| listing(&site.at("app").join(name));
        let names = ["node_modules", "package.json", "package-lock.json"];
        let good = names.map(content);
        for at in (1..8).chain((8..).step_by(3)) {
            assert!(at < 200, "the child never gets through");
            Modules::bad(&site.path());
            fs::write(site.at("app/src/main.js"), "// 1.0.0\n").unwrap();
            let bad = names.map(content);
            let run = 100 + u64::from(at);
            let through = site.in_child(run, &step, &Child { kill_at: Some(at), ..Child::default() }).is_some();
            let unstamped = |listing: String| {
                listing
                    .lines()
                    .filter(|line| !line.contains(".ripcord-revision"))
                    .map(|line| format!("{line}\n"))
                    .collect::<String>()
            };
            for (i, name) in names.iter().enumerate() {
                let found = unstamped(content(name));
                assert!(found == good[i] || found == bad[i], "killed at {at}: {name} is neither old nor new:\n{found}");
            }
            let (part, before) = (site.component(), before(run, &step, None));
            if !through {
                proof(part.apply(&run_cx(run), &step, &before).await);
            }
            assert_eq!(part.holds(&run_cx(run), &step, Some(&before)).await.holds, Holds::Target, "killed at {at}");
            assert_eq!(
                (site.leftovers(), names.map(|name| unstamped(content(name)))),
                (vec![], good.clone()),
                "killed at {at}"
            );
            assert!(
                fs::read_to_string(site.at("app/dist/app.js")).unwrap().starts_with("// 1.0.0\n"),
                "killed at {at}"
            );
            if through {
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_has_no_lock_is_at_no_revision() {
    let site = Site::new("npm", SETTINGS);
    Modules::good(&site.path());
    fs::remove_file(site.at("app/package-lock.json")).unwrap();
    let Seen::Between { why } = site.seen().await else { panic!() };
    assert_eq!(why, "there is no package-lock.json");
    let failure = failed(site.apply(1, &capture_step(ripcord_core::CapturePurpose::Protective)).await);
    assert!(failure.what.contains("no package-lock.json"));
}

#[tokio::test]
async fn a_capture_under_other_settings_is_told_at_once() {
    let (site, id, made) = site(SETTINGS).await;
    assert_eq!(site.component().capabilities().readers, Readers::Stop);
    Modules::bad(&site.path());
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    assert!(matches!(site.available(wanted).await, Available::Here { .. }));
    let survey = site.component().survey(&run_cx(1), &place(), &[]).await;
    assert!(survey.label.is_some_and(|label| label.starts_with("2 packages")));
}

#[test]
fn settings_that_could_not_work_are_refused() {
    use ripcord_adapters::{Adapters, ComponentSettings};
    use ripcord_config::Kinds;
    let mistakes = |yaml: &str| -> Vec<String> {
        let settings = ComponentSettings::Npm(serde_saphyr::from_str(yaml).unwrap());
        Adapters::check_component(&settings).into_iter().map(|mistake| mistake.what).collect()
    };
    assert_eq!(mistakes("directory: app\noutputs: [dist]"), ["`node_modules` is not among the outputs"]);
    assert_eq!(mistakes("directory: app\noutputs: [node_modules, ../x]").len(), 2);
    assert_eq!(mistakes("directory: app\nbuild: [npm, run, build]"), ["nobody could tell what was built"]);
    assert_eq!(mistakes("directory: app\ninstall: []"), ["`install` is no command"]);
    component("npm", SETTINGS);
}

#[tokio::test]
async fn modules_are_installed_before_anything_stops_unless_something_is_built_with_them() {
    let (site, id, made) = site(KEPT).await;
    let good = Modules::content(&site.path());
    Modules::bad(&site.path());
    let (bad, stage) = (whole(&site), stage_step(&id, &made));
    assert_eq!(proposed(&site, &id, &made).await, [stage.action.clone(), restore_step(&id, &made).action]);
    let mut at = 1;
    let done = loop {
        match site.in_child(2, &stage, &Child { kill_at: Some(at), ..Child::default() }) {
            Some(outcome) => break outcome,
            None => at += 1,
        }
        assert_eq!(whole(&site), bad, "what is live is not touched");
    };
    proof(done);
    assert!(at > 1, "it was killed at least once");
    assert_eq!(proof(site.apply(2, &stage).await).found, "its modules are there");
    let held = site.component().holds(&run_cx(2), &stage, Some(&before(2, &stage, None))).await;
    assert_eq!(held.holds, Holds::Target);
    fs::remove_file(site.at("registry")).unwrap();
    site.restore(2, &id, &made).await;
    assert_eq!((Modules::content(&site.path()), site.leftovers()), (good, vec![]));
    let built = site.with(BUILT);
    registry(&built.path());
    Modules::bad(&built.path());
    let (id, made) = built.capture(3).await;
    deploy(&built.path(), "3.0.0", GOOD);
    assert_eq!(proposed(&built, &id, &made).await, [restore_step(&id, &made).action]);
}
