//! What only another process can show: killed, out of space, without permission.
//!
//! Each test starts this binary again, at [`as_told`], with its part in the environment.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ripcord_vault::{Source, Vault, VaultError};

use crate::scratch::*;

const PART: &str = "RIPCORD_VAULT_TEST_PART";
const PLACE: &str = "RIPCORD_VAULT_TEST_PLACE";
const NAME: &str = "child::as_told";
/// Enough for the library to have written several packs of 8 MB while it still waits for more.
const DUMP: usize = 60_000_000;

fn child(part: &str, scratch: &Scratch, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args([NAME, "--exact", "--include-ignored", "--nocapture"]);
    command.env(PART, part).env(PLACE, scratch.root());
    command
}

#[test]
#[ignore = "a part of the other tests here, in a process of its own"]
fn as_told() {
    let Some(place) = env::var_os(PLACE).map(PathBuf::from) else { return };
    let vault = Vault::open(&place.join("vault"), &key()).unwrap();
    match env::var(PART).unwrap().as_str() {
        "capture and hang" => {
            // After the data comes what never comes: the parent kills us while we wait for it.
            let reader = Noise::new(9).take(DUMP as u64).chain(io::stdin());
            let source = Source::Stream { path: "db".into(), mode: 0o600, reader: Box::new(reader) };
            vault.capture(&label("cap-2"), vec![source]).unwrap();
        }
        "capture without space" => {
            let error = vault.capture(&label("cap-2"), vec![bytes("db", noise(9, DUMP))]).unwrap_err();
            assert!(matches!(error, VaultError::NoSpace { .. }), "{error:?}");
            assert!(error.to_string().starts_with("no space left to write "), "{error}");
            let manifest = fs::read(place.join("large.json")).unwrap();
            let manifest = serde_json::from_slice(&manifest).unwrap();
            let error = vault.restore(&manifest, &place.join("to")).unwrap_err();
            assert!(matches!(error, VaultError::NoSpace { .. }), "{error:?}");
        }
        "use a read-only vault" => {
            let manifest = serde_json::from_slice(&fs::read(place.join("manifest.json")).unwrap()).unwrap();
            vault.verify(&manifest).unwrap();
            vault.restore(&manifest, &place.join("out/to")).unwrap();
            assert_eq!(fs::read(place.join("out/to/a")).unwrap(), b"1");
            assert_eq!(vault.list().unwrap().len(), 1);
            let error = vault.capture(&label("cap-2"), vec![bytes("b", "2")]).unwrap_err();
            let VaultError::Io { path, source, .. } = &error else { panic!("{error:?}") };
            assert_eq!(source.kind(), io::ErrorKind::PermissionDenied, "{}", path.display());
        }
        part => panic!("no part `{part}`"),
    }
}

fn exe() -> PathBuf {
    env::current_exe().unwrap()
}

#[test]
fn a_killed_capture_is_none_and_its_data_is_used_by_the_next() {
    let (scratch, vault) = vault();
    let earlier = vault.capture(&label("cap-1"), vec![bytes("a", "1")]).unwrap();
    let before = files(&vault, "data").len();
    let mut child = child("capture and hang", &scratch, &exe());
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while files(&vault, "data").iter().filter(|path| !path.to_string_lossy().contains("-tmp-")).count() < before + 4 {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "the child wrote nothing");
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    // What a kill in the middle of a write leaves.
    fs::write(vault.repository().join("data/00").join(format!("{}-tmp-1-1", "0".repeat(64))), "half").unwrap();
    let vault = Vault::open(&scratch.path("vault"), &key()).unwrap();
    assert_eq!(vault.list().unwrap().len(), 1);
    vault.verify(&earlier).unwrap();
    assert!(vault.repair().unwrap().unfinished >= 1);
    assert!(files(&vault, "data").iter().all(|path| !path.to_string_lossy().contains("-tmp-")));

    let stored = || files(&vault, "data").iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>();
    let left = stored();
    assert!(left > 30_000_000);
    let manifest = vault.capture(&label("cap-2"), vec![bytes("db", noise(9, DUMP))]).unwrap();
    assert!(stored() - left < 32_000_000, "{left} bytes were there, {} are", stored());
    vault.verify(&manifest).unwrap();
    vault.verify(&earlier).unwrap();
    vault.check(true).unwrap();
}

#[test]
fn a_killed_capture_may_be_tried_again_without_a_repair() {
    let (scratch, vault) = vault();
    let mut child = child("capture and hang", &scratch, &exe());
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while files(&vault, "data").is_empty() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "the child wrote nothing");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let manifest = vault.capture(&label("cap-2"), vec![bytes("db", noise(9, DUMP))]).unwrap();
    vault.verify(&manifest).unwrap();
    vault.check(true).unwrap();
}

#[test]
fn a_full_disk_counts_nothing_and_harms_nothing() {
    let (scratch, vault) = vault();
    let large = vault.capture(&label("cap-1"), vec![bytes("large", noise(1, 3_000_000))]).unwrap();
    fs::write(scratch.path("large.json"), serde_json::to_vec(&large).unwrap()).unwrap();
    let mut command = child("capture without space", &scratch, Path::new("sh"));
    // 2048 blocks of 512 bytes: a limit on the size of a file stops a write like a full disk does. Its signal would kill.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$@\"", "sh"]).arg(exe()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command = limited;
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(vault.list().unwrap().len(), 1);
    assert!(!scratch.path("to").exists());
    assert_eq!(fs::read_dir(scratch.root()).unwrap().count(), 2, "nothing is left behind");
    vault.verify(&large).unwrap();
    assert_eq!(vault.repair().unwrap().unfinished, 0);
    vault.capture(&label("cap-3"), vec![bytes("db", noise(9, DUMP))]).unwrap();
}

#[test]
fn a_read_only_vault_gives_back_and_takes_nothing() {
    let (scratch, vault) = vault();
    let manifest = vault.capture(&label("cap-1"), vec![bytes("a", "1")]).unwrap();
    fs::write(scratch.path("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    fs::create_dir(scratch.path("out")).unwrap();
    // A copy, because the user it may have to run as need not reach where this one lies.
    fs::copy(exe(), scratch.path("exe")).unwrap();
    let mut child = child("use a read-only vault", &scratch, &scratch.path("exe"));
    // Permissions do not hold root back: then the child is somebody else.
    let nobody = 65534;
    let root = rustix::process::geteuid().is_root();
    if root {
        child.uid(nobody).gid(nobody);
    }
    let mut open = vec![scratch.root().to_owned()];
    while let Some(path) = open.pop() {
        let directory = path.is_dir();
        if directory {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        if root {
            chown(&path, Some(nobody), Some(nobody)).unwrap();
        }
        if path.starts_with(scratch.path("vault")) {
            fs::set_permissions(&path, fs::Permissions::from_mode(if directory { 0o500 } else { 0o400 })).unwrap();
        }
    }
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
