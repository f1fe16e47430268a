//! Real file systems that are full, and real mounts. The right to mount is needed: without it the tests fail.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ripcord_core::{Action, CapturePurpose, Holds, Outcome, Seen};

use crate::contract::{Rig, Site, capture_step, names, restore_step, run_cx};
use crate::support::{proof, step};

/// A small file system in memory, gone when dropped, whatever became of the test.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m,mode=0755", "tmpfs"]).arg(at);
        let output = mount.output().unwrap_or_else(|error| panic!("there is no `mount`: {error}"));
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "these tests mount a tmpfs, which is not permitted here: {why}");
        Self(at.to_owned())
    }

    /// Takes what is left; given back by removing the file that is returned.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        assert_eq!(disk.f_bavail, 0, "the disk is full");
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a file that is still open must not keep it.
        let ended = Command::new("umount").arg("-l").arg(&self.0).status();
        if !std::thread::panicking() {
            assert!(ended.unwrap().success(), "{} stays mounted", self.0.display());
        }
    }
}

fn failed(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) => {
            assert!(failure.advice.is_some(), "it says what to do: {failure:?}");
            failure.what
        }
        other => panic!("{other:?}"),
    }
}

/// A restore where the live state's own disk is full: refused by the proof, clear when it is met, and done once there is room.
async fn a_full_disk_under_the_live_state<R: Rig>() {
    let site = Site::new(R::KIND, R::settings());
    let small = Small::mount(&site.path());
    R::good(&site.path());
    let good = R::content(&site.path());
    let (id, made) = site.capture(1).await;
    R::bad(&site.path());
    let bad = R::content(&site.path());
    let filler = small.fill();
    // A reader of SQLite's own leaves its log's files there, empty.
    let beside = || {
        let names = names(&site.path()).into_iter();
        names.filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm")).collect::<Vec<_>>()
    };
    let there = beside();
    assert!(matches!(site.seen().await, Seen::At(_)), "a full disk can be looked at: {:?}", site.seen().await);

    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    let restore = restore_step(&id, &made);
    let refused = failed(site.apply(2, &prove).await);
    let place = site.path().display().to_string();
    assert!(refused.starts_with("the restore needs ") && refused.contains(&format!(" on {place}")), "{refused}");
    assert!(refused.ends_with(", 0 bytes are free"), "{refused}");

    let met = failed(site.apply(2, &restore).await);
    assert!(met.contains("no space") && met.contains(&place), "{met}");
    assert_eq!(site.leftovers(), Vec::<String>::new(), "{met}");
    assert_eq!(beside(), there, "{met}");

    fs::remove_file(filler).unwrap();
    assert_eq!(R::content(&site.path()), bad, "the live state is as it was");
    let holds = site.component().holds(&run_cx(2), &restore, None).await.holds;
    assert_eq!(holds, Holds::Origin);
    proof(site.apply(2, &prove).await);
    proof(site.apply(2, &restore).await);
    assert_eq!(R::content(&site.path()), good);
}

/// A capture where the vault's disk is full: no capture, and the live state and the other captures are whole.
async fn a_full_disk_under_the_vault<R: Rig>() {
    let site = Site::new(R::KIND, R::settings());
    let vault = site.dir.path().join("vault");
    let small = Small::mount(&vault);
    R::good(&site.path());
    let good = R::content(&site.path());
    let (id, made) = site.capture(1).await;
    R::bad(&site.path());
    let bad = R::content(&site.path());
    let filler = small.fill();

    let capture = capture_step(CapturePurpose::Protective);
    let met = failed(site.apply(2, &capture).await);
    assert!(met.contains("no space") && met.contains(&vault.display().to_string()), "{met}");
    assert_eq!(site.leftovers(), Vec::<String>::new(), "{met}");
    assert_eq!(R::content(&site.path()), bad);
    // What is in it can be had all the same: restoring writes nothing there that it needs.
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    proof(site.apply(2, &prove).await);

    fs::remove_file(filler).unwrap();
    assert!(proof(site.apply(2, &capture).await).capture.is_some(), "the same step, once there is room");
    site.restore(3, &id, &made).await;
    assert_eq!(R::content(&site.path()), good);
}

macro_rules! full {
    ($($module:ident = $rig:ty;)*) => {$(
        mod $module {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_full_disk_under_the_live_state() {
                super::a_full_disk_under_the_live_state::<$rig>().await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_full_disk_under_the_vault() {
                super::a_full_disk_under_the_vault::<$rig>().await;
            }
        }
    )*};
}

full! {
    directory = crate::directory::Plain;
    directory_of_one_file = crate::directory::OneFile;
    env_file = crate::env_file::Env;
    json_file = crate::json_file::Flags;
    sqlite = crate::sqlite::Wal;
    sqlite_with_a_journal = crate::sqlite::Journal;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_something_mounted_in_it_stays() {
    let site = Site::of::<crate::directory::Plain>();
    let (id, made) = site.capture(1).await;
    crate::directory::Plain::bad(&site.path());
    let done = site.restore(2, &id, &made).await;
    let kept = PathBuf::from(&done.set_aside[0]);
    {
        let uploads = Small::mount(&kept.join("uploads"));
        fs::write(uploads.0.join("1.jpg"), "a user's").unwrap();
        assert_eq!(site.tidy("2200-01-01T00:00:00Z").await, Vec::<String>::new());
        assert_eq!(fs::read_to_string(uploads.0.join("1.jpg")).unwrap(), "a user's");
    }
    assert_eq!(site.tidy("2200-01-01T00:00:00Z").await, [kept.display().to_string()]);
    assert!(!kept.exists());
}
