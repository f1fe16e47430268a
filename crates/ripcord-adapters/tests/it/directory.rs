//! Directories, release directories behind a link, single files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use ripcord_core::{Available, Holds, Outcome, Seen, Wanted};

use crate::contract::{Child, Rig, Site, listing, names, noise, proposed, restore_step, run_cx, stage_step};
use crate::support::proof;

/// The good release of a tree with everything a release can change.
pub fn good_tree(root: &Path) {
    fs::create_dir_all(root.join("lib/deep")).unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::write(root.join("run.sh"), "#!/bin/sh\necho good\n").unwrap();
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.join("lib/deep/big.bin"), noise(120_000)).unwrap();
    fs::write(root.join("gone-in-bad"), "here\n").unwrap();
    fs::write(root.join("renamed"), "same\n").unwrap();
    fs::write(root.join("becomes-directory"), "file\n").unwrap();
    fs::write(root.join("sp ace é"), "odd\n").unwrap();
    symlink("run.sh", root.join("link")).unwrap();
}

/// The bad release: adds, deletes, renames, changes a mode, replaces a file by a directory and a link by a file.
pub fn bad_tree(root: &Path) {
    let _ = fs::remove_file(root.join("gone-in-bad"));
    let _ = fs::remove_file(root.join("becomes-directory"));
    let _ = fs::remove_file(root.join("link"));
    if root.join("renamed").exists() {
        fs::rename(root.join("renamed"), root.join("renamed-2")).unwrap();
    }
    fs::create_dir_all(root.join("becomes-directory")).unwrap();
    fs::write(root.join("becomes-directory/inside"), "x\n").unwrap();
    fs::write(root.join("added"), "added by the bad release\n").unwrap();
    fs::write(root.join("link"), "a file now\n").unwrap();
    fs::write(root.join("run.sh"), "#!/bin/sh\necho bad\n").unwrap();
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o644)).unwrap();
}

pub struct Plain;

impl Rig for Plain {
    const KIND: &'static str = "directory";
    fn settings() -> String {
        "path: app".to_owned()
    }
    fn good(site: &Path) {
        good_tree(&site.join("app"));
    }
    fn bad(site: &Path) {
        bad_tree(&site.join("app"));
    }
    fn edit(site: &Path) {
        fs::write(site.join("app/run.sh"), "edited\n").unwrap();
    }
    fn content(site: &Path) -> String {
        listing(&site.join("app"))
    }
    fn between(site: &Path) -> bool {
        drop(std::os::unix::net::UnixListener::bind(site.join("app/socket")).unwrap());
        true
    }
}

pub struct Releases;

impl Rig for Releases {
    const KIND: &'static str = "directory";
    const WRITES: bool = false;
    fn settings() -> String {
        "path: current\nreleases: releases".to_owned()
    }
    fn good(site: &Path) {
        good_tree(&site.join("releases/v1"));
        symlink("releases/v1", site.join("current")).unwrap();
    }
    fn bad(site: &Path) {
        if !site.join("releases/v2").exists() {
            good_tree(&site.join("releases/v2"));
            bad_tree(&site.join("releases/v2"));
        }
        lead(site, "releases/v2");
    }
    fn edit(site: &Path) {
        let _ = fs::remove_dir_all(site.join("releases/v1"));
        fs::create_dir_all(site.join("releases/hand-made")).unwrap();
        lead(site, "releases/hand-made");
    }
    fn content(site: &Path) -> String {
        match fs::canonicalize(site.join("current")) {
            Ok(leads) => listing(&leads),
            Err(_) => "absent".to_owned(),
        }
    }
    fn damage(site: &Path) {
        fs::write(site.join("releases/v1/run.sh"), "tampered\n").unwrap();
    }
    fn between(site: &Path) -> bool {
        lead(site, "releases/nowhere");
        true
    }
}

/// The release directory of the good release was cleaned away.
pub struct Gone;

impl Rig for Gone {
    const KIND: &'static str = "directory";
    fn settings() -> String {
        Releases::settings()
    }
    fn good(site: &Path) {
        Releases::good(site);
    }
    fn bad(site: &Path) {
        Releases::bad(site);
        let _ = fs::remove_dir_all(site.join("releases/v1"));
    }
    fn edit(site: &Path) {
        Releases::edit(site);
    }
    fn content(site: &Path) -> String {
        Releases::content(site)
    }
}

fn lead(site: &Path, to: &str) {
    let _ = fs::remove_file(site.join("current"));
    symlink(to, site.join("current")).unwrap();
}

pub struct OneFile;

impl Rig for OneFile {
    const KIND: &'static str = "directory";
    fn settings() -> String {
        "path: shop.bin".to_owned()
    }
    fn good(site: &Path) {
        fs::write(site.join("shop.bin"), noise(120_000)).unwrap();
        fs::set_permissions(site.join("shop.bin"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fn bad(site: &Path) {
        let _ = fs::remove_file(site.join("shop.bin"));
        fs::write(site.join("shop.bin"), "bad\n").unwrap();
    }
    fn edit(site: &Path) {
        let _ = fs::remove_file(site.join("shop.bin"));
        fs::write(site.join("shop.bin"), "edited\n").unwrap();
    }
    fn content(site: &Path) -> String {
        listing(&site.join("shop.bin"))
    }
}

#[tokio::test]
async fn rf15_the_former_tree_is_kept_whole() {
    let site = Site::of::<Plain>();
    let (id, made) = site.capture(1).await;
    Plain::bad(&site.path());
    let bad = Plain::content(&site.path());
    let done = site.restore(2, &id, &made).await;
    let kept = Path::new(&done.set_aside[0]);
    assert!(kept.file_name().unwrap().to_str().unwrap().starts_with("app-failed-"), "{}", kept.display());
    assert_eq!(listing(kept), bad);
}

#[tokio::test]
async fn rf15_what_is_excepted_survives_as_the_same_files() {
    let site = Site::new("directory", "path: app\nexcept:\n  - uploads\n  - \"**/*.log\"");
    good_tree(&site.at("app"));
    fs::create_dir(site.at("app/uploads")).unwrap();
    fs::write(site.at("app/uploads/1.jpg"), "old").unwrap();
    let (id, made) = site.capture(1).await;
    fs::write(site.at("app/uploads/2.jpg"), "new").unwrap();
    fs::write(site.at("app/lib/x.log"), "line\n").unwrap();
    assert_eq!(site.seen().await, Seen::At(made.revision.clone()), "data is no part of the revision");
    bad_tree(&site.at("app"));
    let inode = fs::metadata(site.at("app/uploads/2.jpg")).unwrap().ino();
    site.restore(2, &id, &made).await;
    assert_eq!(names(&site.at("app/uploads")), ["1.jpg", "2.jpg"]);
    assert_eq!(fs::metadata(site.at("app/uploads/2.jpg")).unwrap().ino(), inode);
    assert_eq!(fs::read_to_string(site.at("app/lib/x.log")).unwrap(), "line\n");
    assert!(!site.at("app/added").exists());
}

#[tokio::test]
async fn rf15_excepted_data_replaced_meanwhile_is_not_taken_back() {
    let site = Site::new("directory", "path: app\nexcept: [uploads]");
    good_tree(&site.at("app"));
    fs::create_dir(site.at("app/uploads")).unwrap();
    crate::contract::data_is_never_taken_back(&site, Plain::bad, "app/uploads/1.jpg").await;
}

#[tokio::test]
async fn rf13_ten_bad_deployments_later_the_good_capture_restores() {
    let site = Site::of::<Plain>();
    let good = Plain::content(&site.path());
    let (id, made) = site.capture(1).await;
    for n in 2..12 {
        Plain::bad(&site.path());
        fs::write(site.at("app/version"), n.to_string()).unwrap();
        site.capture(n).await;
    }
    site.restore(20, &id, &made).await;
    assert_eq!(Plain::content(&site.path()), good);
}

#[tokio::test]
async fn a_release_directory_serves_without_its_capture() {
    let site = Site::of::<Releases>();
    let (id, made) = site.capture(1).await;
    Releases::bad(&site.path());
    site.damage_vault();
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let Available::Here { how } = site.available(wanted).await else { panic!() };
    assert_eq!(how, "release directory v1, compared file by file");
    let done = site.restore(2, &id, &made).await;
    assert_eq!(done.found, "current -> releases/v1");
    assert_eq!(fs::read_link(site.at("current")).unwrap(), Path::new("releases/v1"));
    assert_eq!(names(&site.at("releases")), ["v1", "v2"], "nothing was made or taken away");
}

#[tokio::test]
async fn a_deleted_release_directory_is_made_again() {
    let site = Site::of::<Releases>();
    let good = Releases::content(&site.path());
    let (id, made) = site.capture(1).await;
    Releases::bad(&site.path());
    fs::remove_dir_all(site.at("releases/v1")).unwrap();
    site.restore(2, &id, &made).await;
    assert_eq!(fs::read_link(site.at("current")).unwrap(), Path::new("releases/v1"));
    assert_eq!(Releases::content(&site.path()), good);
}

#[tokio::test]
async fn a_changed_release_directory_is_not_taken_for_the_release() {
    let site = Site::of::<Releases>();
    let good = Releases::content(&site.path());
    let (id, made) = site.capture(1).await;
    Releases::bad(&site.path());
    Releases::damage(&site.path());
    site.restore(2, &id, &made).await;
    assert_eq!(Releases::content(&site.path()), good);
    assert_eq!(fs::read_to_string(site.at("releases/v1/run.sh")).unwrap(), "tampered\n", "left for people");
}

#[tokio::test]
async fn a_directory_where_the_link_should_be_is_refused() {
    let site = Site::of::<Releases>();
    let (id, made) = site.capture(1).await;
    fs::remove_file(site.at("current")).unwrap();
    fs::create_dir(site.at("current")).unwrap();
    let Outcome::Failed(failure) = site.apply(2, &restore_step(&id, &made)).await else { panic!() };
    assert!(failure.what.contains("not a link"), "{}", failure.what);
    assert!(failure.advice.is_some());
}

#[tokio::test]
async fn what_was_made_ready_beside_is_switched_to_without_its_capture() {
    let site = Site::of::<Plain>();
    let good = Plain::content(&site.path());
    let (id, made) = site.capture(1).await;
    Plain::bad(&site.path());
    let bad = Plain::content(&site.path());
    assert_eq!(proposed(&site, &id, &made).await, [stage_step(&id, &made).action, restore_step(&id, &made).action]);
    // Killed at every instant and begun again, and once more when it is done.
    let stage = stage_step(&id, &made);
    let mut at = 1;
    let done = loop {
        match site.in_child(2, &stage, &Child { kill_at: Some(at), ..Child::default() }) {
            Some(outcome) => break outcome,
            None => at += 1,
        }
        assert_eq!(Plain::content(&site.path()), bad, "what is live is not touched");
    };
    proof(done);
    assert!(at > 1, "it was killed at least once");
    assert_eq!(proof(site.apply(2, &stage).await).found, format!("{} was ready", made.revision.short()));
    assert_eq!(site.component().holds(&run_cx(2), &stage, None).await.holds, Holds::Target);
    site.damage_vault();
    site.restore(2, &id, &made).await;
    assert_eq!(Plain::content(&site.path()), good);
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_made_ready_and_changed_since_is_not_trusted() {
    let site = Site::of::<Plain>();
    let good = Plain::content(&site.path());
    let (id, made) = site.capture(1).await;
    Plain::bad(&site.path());
    let stage = stage_step(&id, &made);
    proof(site.apply(2, &stage).await);
    let [ready] = site.leftovers().try_into().unwrap();
    fs::write(site.at(&ready).join("run.sh"), "tampered").unwrap();
    assert_eq!(site.component().holds(&run_cx(2), &stage, None).await.holds, Holds::Origin);
    site.restore(2, &id, &made).await;
    assert_eq!(Plain::content(&site.path()), good);
    // What no run came to switch to is tidied away.
    assert_eq!(site.leftovers(), std::slice::from_ref(&ready));
    assert_eq!(site.tidy("2020-01-01T00:00:00Z").await, Vec::<String>::new(), "nothing is so old");
    assert!(site.tidy("2200-01-01T00:00:00Z").await.iter().any(|gone| gone.ends_with(&ready)));
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_excepted_is_carried_over_at_the_switch_and_not_before() {
    let site = Site::new("directory", "path: app\nexcept: [uploads]");
    good_tree(&site.at("app"));
    let (id, made) = site.capture(1).await;
    bad_tree(&site.at("app"));
    proof(site.apply(2, &stage_step(&id, &made)).await);
    fs::create_dir(site.at("app/uploads")).unwrap();
    fs::write(site.at("app/uploads/1.jpg"), "written while it stood ready").unwrap();
    site.damage_vault();
    site.restore(2, &id, &made).await;
    assert_eq!(fs::read_to_string(site.at("app/uploads/1.jpg")).unwrap(), "written while it stood ready");
    assert!(!site.at("app/added").exists());
}

#[tokio::test]
async fn a_release_directory_is_made_again_before_the_link_moves() {
    let site = Site::of::<Releases>();
    let (id, made) = site.capture(1).await;
    Releases::bad(&site.path());
    assert_eq!(
        proposed(&site, &id, &made).await,
        [restore_step(&id, &made).action],
        "it is there: nothing to make ready"
    );
    fs::remove_dir_all(site.at("releases/v1")).unwrap();
    assert_eq!(proposed(&site, &id, &made).await, [stage_step(&id, &made).action, restore_step(&id, &made).action]);
    proof(site.apply(2, &stage_step(&id, &made)).await);
    assert_eq!(fs::read_link(site.at("current")).unwrap(), Path::new("releases/v2"));
    site.damage_vault();
    site.restore(2, &id, &made).await;
    assert_eq!(fs::read_link(site.at("current")).unwrap(), Path::new("releases/v1"));
}
