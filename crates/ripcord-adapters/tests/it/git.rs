//! Working trees of git, made and read by the git of this machine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use ripcord_core::{Action, Available, CapturePurpose, HeldIn, Holds, Outcome, Retry, Revision, Seen, Wanted};

use crate::contract::{Child, Rig, Site, capture_step, listing, names, proposed, restore_step, run_cx, stage_step};
use crate::directory::{bad_tree, good_tree};
use crate::support::{place, proof, step};

/// Runs git as the person who deploys would.
pub fn git(tree: &Path, arguments: &[&str]) -> String {
    let settings = [
        "user.name=Dev",
        "user.email=dev@example.org",
        "commit.gpgsign=false",
        "init.defaultBranch=main",
        "protocol.file.allow=always",
        "safe.directory=*",
    ];
    let mut command = Command::new("git");
    command.current_dir(tree).env("GIT_CONFIG_GLOBAL", "/dev/null");
    for setting in settings {
        command.args(["-c", setting]);
    }
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn commit(tree: &Path, message: &str) -> String {
    git(tree, &["add", "--all"]);
    git(tree, &["commit", "--quiet", "--allow-empty", "-m", message]);
    git(tree, &["rev-parse", "HEAD"])
}

fn begin(tree: &Path) {
    fs::create_dir(tree).unwrap();
    git(tree, &["init", "--quiet"]);
    good_tree(tree);
    // git keeps no empty directories.
    fs::remove_dir(tree.join("empty")).unwrap();
    fs::write(tree.join(".gitignore"), "/data/\n*.log\n").unwrap();
    commit(tree, "good");
    git(tree, &["tag", "v1.0.0"]);
    bad_tree(tree);
    commit(tree, "bad");
    git(tree, &["tag", "v1.1.0"]);
    go(tree, "v1.0.0");
}

/// Takes a tree to a tag by force, as a deployment does.
fn go(tree: &Path, to: &str) {
    let _ = fs::remove_file(tree.join(".git/index.lock"));
    git(tree, &["checkout", "--quiet", "--force", "-B", "main", to]);
    git(tree, &["clean", "--quiet", "-d", "--force"]);
}

pub struct Clone;

impl Rig for Clone {
    const KIND: &'static str = "git";
    fn settings() -> String {
        "path: app".to_owned()
    }
    fn good(site: &Path) {
        begin(&site.join("app"));
    }
    fn bad(site: &Path) {
        go(&site.join("app"), "v1.1.0");
    }
    fn edit(site: &Path) {
        fs::write(site.join("app/run.sh"), "edited\n").unwrap();
    }
    fn content(site: &Path) -> String {
        listing(&site.join("app"))
    }
    fn damage(site: &Path) {
        let tree = site.join("app");
        let blob = git(&tree, &["rev-parse", "v1.0.0:gone-in-bad"]);
        fs::remove_file(tree.join(format!(".git/objects/{}/{}", &blob[..2], &blob[2..]))).unwrap();
    }
    fn between(site: &Path) -> bool {
        fs::write(site.join("app/run.sh"), "half way\n").unwrap();
        true
    }
}

pub struct Paths;

impl Rig for Paths {
    const KIND: &'static str = "git";
    fn settings() -> String {
        "path: app\npaths: [run.sh, lib, becomes-directory, added, link]".to_owned()
    }
    fn good(site: &Path) {
        Clone::good(site);
    }
    fn bad(site: &Path) {
        Clone::bad(site);
        fs::write(site.join("app/others-work"), "not ours\n").unwrap();
    }
    fn edit(site: &Path) {
        let _ = fs::remove_file(site.join("app/run.sh"));
        fs::write(site.join("app/run.sh"), "edited\n").unwrap();
    }
    fn content(site: &Path) -> String {
        let ours = ["run.sh", "lib", "becomes-directory", "added", "link"];
        ours.map(|path| format!("{path}:\n{}", listing(&site.join("app").join(path)))).concat()
    }
    fn damage(site: &Path) {
        let tree = site.join("app");
        let blob = git(&tree, &["rev-parse", "v1.0.0:run.sh"]);
        fs::remove_file(tree.join(format!(".git/objects/{}/{}", &blob[..2], &blob[2..]))).unwrap();
    }
}

#[tokio::test]
async fn rf07_no_branch_is_moved_and_what_points_at_the_bad_version_is_said() {
    let site = Site::new("git", "path: app");
    let origin = site.at("origin.git");
    fs::create_dir(&origin).unwrap();
    git(&origin, &["init", "--quiet", "--bare"]);
    let tree = site.at("app");
    begin(&tree);
    git(&tree, &["remote", "add", "origin", origin.to_str().unwrap()]);
    let (id, made) = site.capture(1).await;
    // A release of three commits, pushed.
    for n in 1..=3 {
        fs::write(tree.join(format!("added-{n}")), "x").unwrap();
        commit(&tree, &format!("bad {n}"));
    }
    git(&tree, &["push", "--quiet", "origin", "main"]);
    git(&tree, &["branch", "--quiet", "--set-upstream-to=origin/main"]);
    let (bad, remote) = (git(&tree, &["rev-parse", "main"]), git(&origin, &["rev-parse", "main"]));
    let done = site.restore(2, &id, &made).await;
    assert_eq!(git(&tree, &["rev-parse", "HEAD^{tree}"]), git(&tree, &["rev-parse", "v1.0.0^{tree}"]));
    assert_eq!(git(&tree, &["status", "--porcelain"]), "");
    assert_eq!(git(&tree, &["rev-parse", "main"]), bad, "the branch lost no commit");
    assert_eq!(git(&origin, &["rev-parse", "main"]), remote, "nor did the remote one");
    assert!(
        done.found.contains("`main`") && done.found.contains("`origin/main`") && done.found.contains(&bad[..12]),
        "{}",
        done.found
    );
    // An automatic puller afterwards is refused by git itself, or seen.
    let pulled = Command::new("git").args(["-c", "safe.directory=*", "pull"]).current_dir(&tree).output().unwrap();
    let seen = site.seen().await;
    assert!(!pulled.status.success() || seen != Seen::At(made.revision.clone()), "{seen:?}");
}

#[tokio::test]
async fn rf06_the_target_is_the_recorded_commit_whatever_the_tags_say() {
    let site = Site::new("git", "path: app");
    let tree = site.at("app");
    begin(&tree);
    git(&tree, &["tag", "v1.9.0"]);
    let (id, made) = site.capture(1).await;
    let good = git(&tree, &["rev-parse", "HEAD"]);
    assert_eq!(made.revision, Revision::exact(good.clone()));
    // An untagged bad release, a misleading tag, then the good version's own tag moved to the bad commit.
    Clone::bad(&site.path());
    fs::write(tree.join("more"), "x").unwrap();
    commit(&tree, "untagged");
    for tag in ["v1.0.0", "v1.10.0", "backup-2", "v1.10.1-rc"] {
        git(&tree, &["tag", "--force", tag]);
    }
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let Available::Here { how } = site.available(wanted).await else { panic!() };
    assert!(how.contains(&good[..12]), "{how}");
    site.restore(2, &id, &made).await;
    assert_eq!(git(&tree, &["rev-parse", "HEAD"]), good);
    assert!(tree.join("gone-in-bad").exists() && !tree.join("added").exists());
}

#[tokio::test]
async fn rf13_a_dirty_tree_is_refused_or_part_of_the_record() {
    let site = Site::of::<Clone>();
    let tree = site.at("app");
    fs::write(tree.join("run.sh"), "#!/bin/sh\necho uncommitted\n").unwrap();
    fs::remove_file(tree.join("renamed")).unwrap();
    fs::write(tree.join("untracked file"), "u\n").unwrap();
    fs::create_dir(tree.join("data")).unwrap();
    fs::write(tree.join("data/x.db"), "data\n").unwrap();
    let Seen::Between { why } = site.seen().await else { panic!() };
    assert_eq!(why, "changed since the commit: renamed, run.sh, untracked file");
    let recording = site.with("path: app\ndirty: record");
    let dirty = listing(&tree);
    let (id, made) = recording.capture(1).await;
    assert!(matches!(made.held, HeldIn::Vault { .. }));
    assert_eq!(recording.seen().await, Seen::At(made.revision.clone()));
    git(&tree, &["checkout", "--quiet", "--force", "v1.1.0"]);
    fs::remove_file(tree.join("untracked file")).unwrap();
    recording.restore(2, &id, &made).await;
    assert_eq!(listing(&tree), dirty, "changes, deletions, untracked files and ignored data are as they were");
    assert_eq!(recording.seen().await, Seen::At(made.revision));
}

#[tokio::test]
async fn rf15_what_git_ignores_survives_and_what_was_dirty_is_kept() {
    let site = Site::of::<Clone>();
    let tree = site.at("app");
    let (id, made) = site.capture(1).await;
    Clone::bad(&site.path());
    // The bad release stops ignoring logs; the data stays ignored.
    fs::write(tree.join(".gitignore"), "/data/\n*.tmp\n").unwrap();
    commit(&tree, "ignores otherwise");
    fs::create_dir_all(tree.join("data/empty")).unwrap();
    fs::write(tree.join("data/shop.db"), "rows").unwrap();
    fs::write(tree.join("x.log"), "line").unwrap();
    fs::write(tree.join("y.tmp"), "scratch").unwrap();
    fs::write(tree.join("hand made"), "precious").unwrap();
    let inode = fs::metadata(tree.join("data/shop.db")).unwrap().ino();
    let protective = proof(site.apply(2, &capture_step(CapturePurpose::Protective)).await).capture.unwrap();
    assert!(matches!(protective.held, HeldIn::Vault { .. }), "the dirty part goes to the vault");
    let done = site.restore(3, &id, &made).await;
    assert_eq!(fs::metadata(tree.join("data/shop.db")).unwrap().ino(), inode, "the very same file");
    assert!(tree.join("data/empty").is_dir());
    assert_eq!(fs::read_to_string(tree.join("x.log")).unwrap(), "line");
    assert_eq!(fs::read_to_string(tree.join("y.tmp")).unwrap(), "scratch");
    assert!(!tree.join("hand made").exists());
    assert_eq!(fs::read_to_string(Path::new(&done.set_aside[0]).join("hand made")).unwrap(), "precious");
    assert_eq!(site.seen().await, Seen::At(made.revision), "what was carried over is nobody's change");
}

#[tokio::test]
async fn rf15_ignored_data_replaced_meanwhile_is_not_taken_back() {
    let site = Site::of::<Clone>();
    fs::create_dir(site.at("app/data")).unwrap();
    crate::contract::data_is_never_taken_back(&site, Clone::bad, "app/data/shop.db").await;
}

#[tokio::test]
async fn keep_names_what_survives() {
    let site = Site::new("git", "path: app\nkeep: [\"storage/**\", .env]");
    let tree = site.at("app");
    begin(&tree);
    let (id, made) = site.capture(1).await;
    Clone::bad(&site.path());
    fs::create_dir_all(tree.join("storage/a")).unwrap();
    fs::write(tree.join("storage/a/f"), "kept").unwrap();
    fs::write(tree.join(".env"), "KEY=1").unwrap();
    fs::write(tree.join("x.log"), "not named").unwrap();
    assert!(matches!(site.seen().await, Seen::At(_)), "declared data does not make a tree dirty");
    site.restore(2, &id, &made).await;
    assert_eq!(fs::read_to_string(tree.join("storage/a/f")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(tree.join(".env")).unwrap(), "KEY=1");
    assert!(!tree.join("x.log").exists());
    assert_eq!(site.seen().await, Seen::At(made.revision));
}

#[tokio::test]
async fn a_captured_commit_survives_a_collection_of_garbage() {
    let site = Site::of::<Clone>();
    let tree = site.at("app");
    fs::write(tree.join("only-here"), "x").unwrap();
    commit(&tree, "never pushed");
    let (id, made) = site.capture(1).await;
    Clone::bad(&site.path());
    git(&tree, &["reflog", "expire", "--expire=now", "--all"]);
    git(&tree, &["gc", "--quiet", "--prune=now"]);
    site.restore(2, &id, &made).await;
    assert_eq!(fs::read_to_string(tree.join("only-here")).unwrap(), "x");
}

#[tokio::test]
async fn paths_leave_the_rest_of_the_tree_as_it_is() {
    let site = Site::of::<Paths>();
    let tree = site.at("app");
    let (id, made) = site.capture(1).await;
    Paths::bad(&site.path());
    fs::write(tree.join("renamed-2"), "changed by somebody\n").unwrap();
    let branch = git(&tree, &["rev-parse", "--abbrev-ref", "HEAD"]);
    site.restore(2, &id, &made).await;
    assert_eq!(fs::read_to_string(tree.join("others-work")).unwrap(), "not ours\n");
    assert_eq!(fs::read_to_string(tree.join("renamed-2")).unwrap(), "changed by somebody\n");
    assert!(!tree.join("gone-in-bad").exists(), "not one of the paths");
    assert!(!tree.join("added").exists(), "the bad release's addition is");
    assert_eq!(git(&tree, &["rev-parse", "--abbrev-ref", "HEAD"]), branch);
    git(&tree, &["fsck", "--strict"]);
}

#[tokio::test]
async fn hooks_and_the_callers_git_variables_have_no_say() {
    let site = Site::of::<Clone>();
    let tree = site.at("app");
    let (id, made) = site.capture(1).await;
    Clone::bad(&site.path());
    for hook in ["post-checkout", "reference-transaction", "post-index-change"] {
        let path = tree.join(".git/hooks").join(hook);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\ntouch {}/hook-ran\n", site.path().display())).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    site.restore(2, &id, &made).await;
    assert!(!site.at("hook-ran").exists());
    assert!(tree.join(".git/hooks/post-checkout").exists(), "they stay where they are");
}

#[tokio::test]
async fn another_git_at_work_is_waited_for_by_trying_later() {
    let site = Site::of::<Clone>();
    let (id, made) = site.capture(1).await;
    Clone::bad(&site.path());
    fs::write(site.at("app/.git/index.lock"), "").unwrap();
    let Outcome::Failed(failure) = site.apply(2, &restore_step(&id, &made)).await else { panic!() };
    assert_eq!(failure.retry, Retry::Later);
    assert!(failure.what.contains("index.lock"), "{}", failure.what);
    fs::remove_file(site.at("app/.git/index.lock")).unwrap();
    site.restore(2, &id, &made).await;
}

#[tokio::test]
async fn what_is_no_clone_of_its_own_is_refused_in_words() {
    let site = Site::new("git", "path: app");
    let away = step("restore", Action::Restore { to: Revision::exact("a".repeat(40)), from: None });
    let said = async |expected: &str| {
        let Seen::Unreachable { why } = site.seen().await else { panic!() };
        assert!(why.contains(expected), "{why}");
        let Outcome::Failed(failure) = site.apply(1, &away).await else { panic!() };
        assert!(failure.what.contains(expected) && failure.advice.is_some(), "{failure:?}");
    };
    let tree = site.at("app");
    fs::create_dir(&tree).unwrap();
    said("is no git working tree").await;
    git(&tree, &["init", "--quiet", "--bare"]);
    said("is a bare repository").await;
    fs::remove_dir_all(&tree).unwrap();
    begin(&site.at("main-tree"));
    git(&site.at("main-tree"), &["worktree", "add", "--quiet", tree.to_str().unwrap()]);
    said("is a linked working tree or a submodule").await;
    assert_eq!(names(&site.path()), ["app", "main-tree"]);
}

#[tokio::test]
async fn a_commit_with_a_submodule_is_said_not_to_be_available() {
    let site = Site::new("git", "path: app");
    begin(&site.at("inner"));
    begin(&site.at("app"));
    let inner = site.at("inner");
    git(&site.at("app"), &["submodule", "--quiet", "add", inner.to_str().unwrap(), "vendor"]);
    let with = commit(&site.at("app"), "with a submodule");
    let Available::Missing { why } = site.available(Wanted { revision: Revision::exact(with), capture: None }).await
    else {
        panic!()
    };
    assert!(why.contains("submodule at vendor"), "{why}");
}

#[tokio::test]
async fn the_label_says_tag_branch_and_changes() {
    let site = Site::of::<Clone>();
    let survey = site.component().survey(&run_cx(1), &place(), &[]).await;
    let short = &git(&site.at("app"), &["rev-parse", "HEAD"])[..7];
    assert_eq!(survey.label.unwrap(), format!("v1.0.0 (main at {short})"));
    fs::write(site.at("app/run.sh"), "x").unwrap();
    let survey = site.component().survey(&run_cx(1), &place(), &[]).await;
    assert_eq!(survey.label.unwrap(), format!("v1.0.0 (main at {short}), 1 files modified"));
    assert_eq!(survey.facts["changed"], "run.sh");
}

#[tokio::test]
async fn a_former_tree_with_a_commit_of_its_own_stays() {
    let late = "2200-01-01T00:00:00Z";
    let site = Site::of::<Clone>();
    let (id, made) = site.capture(1).await;
    Clone::bad(&site.path());
    let done = site.restore(2, &id, &made).await;
    let former = Path::new(&done.set_aside[0]);
    // Somebody looked for the cause where it was kept, and found it.
    fs::write(former.join("fix"), "found\n").unwrap();
    let fix = commit(former, "the fix");
    assert_eq!(site.tidy(late).await, Vec::<String>::new());
    assert_eq!(git(former, &["rev-parse", "HEAD"]), fix);
    // Once the live repository has it, the former one is needed no more.
    git(&site.at("app"), &["fetch", "--quiet", former.to_str().unwrap(), "HEAD:refs/heads/fix"]);
    assert_eq!(site.tidy(late).await, [former.display().to_string()]);
    assert!(!former.exists());
    assert_eq!(git(&site.at("app"), &["rev-parse", "fix"]), fix);
}

#[tokio::test]
async fn the_only_repository_is_never_tidied_away() {
    let site = Site::of::<Clone>();
    site.capture(1).await;
    let away = step("restore", Action::Restore { to: Revision::Absent, from: None });
    let done = proof(site.apply(2, &away).await);
    assert_eq!(site.tidy("2200-01-01T00:00:00Z").await, Vec::<String>::new());
    assert!(Path::new(&done.set_aside[0]).join(".git").is_dir());
}

#[tokio::test]
async fn the_target_is_checked_out_beside_before_anything_stops() {
    let site = Site::of::<Clone>();
    let (id, made) = site.capture(1).await;
    let good = Clone::content(&site.path());
    Clone::bad(&site.path());
    let (bad, stage) = (Clone::content(&site.path()), stage_step(&id, &made));
    assert_eq!(proposed(&site, &id, &made).await, [stage.action.clone(), restore_step(&id, &made).action]);
    let mut at = 1;
    let done = loop {
        match site.in_child(2, &stage, &Child { kill_at: Some(at), ..Child::default() }) {
            Some(outcome) => break outcome,
            None => at += 1,
        }
        assert_eq!(Clone::content(&site.path()), bad, "what is live is not touched");
    };
    proof(done);
    assert!(at > 1, "it was killed at least once");
    assert_eq!(proof(site.apply(2, &stage).await).found, format!("{} was ready", made.revision.short()));
    assert_eq!(site.component().holds(&run_cx(2), &stage, None).await.holds, Holds::Target);
    site.restore(2, &id, &made).await;
    assert_eq!(Clone::content(&site.path()), good);
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_fetched_since_it_stood_ready_is_not_lost() {
    let site = Site::of::<Clone>();
    let (id, made) = site.capture(1).await;
    Clone::bad(&site.path());
    proof(site.apply(2, &stage_step(&id, &made)).await);
    let tree = site.at("app");
    git(&tree, &["tag", "fetched-meanwhile"]);
    assert_eq!(site.component().holds(&run_cx(2), &stage_step(&id, &made), None).await.holds, Holds::Origin);
    site.restore(2, &id, &made).await;
    assert_eq!(git(&tree, &["tag", "--list", "fetched-*"]), "fetched-meanwhile");
}

#[tokio::test]
async fn b11_a_branch_that_stays_at_the_bad_commit_is_told_before_and_after() {
    let site = Site::of::<Clone>();
    let (id, made) = site.capture(1).await;
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let puts_back = async |wanted: &[Wanted]| site.component().survey(&run_cx(1), &place(), wanted).await.puts_back;
    assert_eq!(puts_back(&[]).await, Vec::<String>::new());
    Clone::bad(&site.path());
    let bad = git(&site.at("app"), &["rev-parse", "--short=12", "HEAD"]);
    let told = [format!("`main` at {bad}: a pull or a deployment of it goes there")];
    assert_eq!(puts_back(std::slice::from_ref(&wanted)).await, told);
    assert_eq!(puts_back(&[]).await, Vec::<String>::new(), "nobody asked to leave it");
    site.restore(2, &id, &made).await;
    assert_eq!(puts_back(&[]).await, told);
    // Its owner takes it back too.
    git(&site.at("app"), &["branch", "--force", "main", "HEAD"]);
    assert_eq!(puts_back(&[]).await, Vec::<String>::new());
}
