//! Sources that fail, and data that was damaged: notes on field failures, RF12, "Backups believed, not checked".

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use ripcord_vault::{Manifest, Source, Vault, VaultError, What};

use crate::scratch::*;

/// Gives `good` bytes, then fails; or ends, when `error` is none.
struct Failing {
    good: io::Take<Noise>,
    error: Option<&'static str>,
}

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.good.read(buffer)?, self.error) {
            (0, Some(error)) => Err(io::Error::other(error)),
            (read, _) => Ok(read),
        }
    }
}

fn stream(good: u64, error: Option<&'static str>) -> Box<dyn Read + Send> {
    Box::new(Failing { good: Noise::new(7).take(good), error })
}

fn producer(good: u64, status: Result<(), &'static str>) -> Source {
    let finish = Box::new(move || status.map_err(str::to_owned));
    Source::Producer { path: "db.dump".into(), mode: 0o600, reader: stream(good, None), finish }
}

/// Every way to fail leaves no capture, says which source failed and why, and harms no other.
fn check_fails(sources: Vec<Source>, why: &str) {
    let (_scratch, vault) = vault();
    let earlier = vault.capture(&label("cap-1"), vec![bytes("a", "1")]).unwrap();
    let error = vault.capture(&label("cap-2"), sources).unwrap_err();
    let VaultError::SourceFailed { path, source } = &error else { panic!("{error:?}") };
    assert_eq!((path.as_str(), source.to_string().as_str()), ("db.dump", why));
    assert_eq!(files(&vault, "snapshots").len(), 1);
    assert_eq!(vault.list().unwrap()[0].snapshot, earlier.snapshot);
    vault.verify(&earlier).unwrap();
}

#[test]
fn rf12_a_stream_that_fails_at_once_is_no_capture() {
    let source = Source::Stream { path: "db.dump".into(), mode: 0o600, reader: stream(0, Some("reset")) };
    check_fails(vec![bytes("other", "2"), source], "reset");
}

#[test]
fn rf12_a_stream_that_fails_half_way_is_no_capture() {
    let source = Source::Stream { path: "db.dump".into(), mode: 0o600, reader: stream(5_000_000, Some("reset")) };
    check_fails(vec![bytes("other", "2"), source], "reset");
}

#[test]
fn rf12_a_producer_that_fails_at_once_is_told_from_an_empty_one() {
    check_fails(vec![producer(0, Err("exit status 1: connection refused"))], "exit status 1: connection refused");
    let (_scratch, vault) = vault();
    let empty = vault.capture(&label("cap-1"), vec![producer(0, Ok(()))]).unwrap();
    assert!(matches!(empty.entry("db.dump").unwrap().what, What::File { size: 0, .. }));
}

#[test]
fn rf12_a_producer_that_fails_half_way_or_after_its_last_byte_is_no_capture() {
    check_fails(vec![producer(3_000_000, Err("exit status 1"))], "exit status 1");
    let (_scratch, vault) = vault();
    let whole = vault.capture(&label("cap-1"), vec![producer(3_000_000, Ok(()))]).unwrap();
    assert!(read(&vault, &whole, "db.dump").unwrap() == noise(7, 3_000_000));
}

#[test]
fn a_reader_that_panics_is_an_error() {
    struct Panicking;
    impl Read for Panicking {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("a bug in an adapter")
        }
    }
    let (_scratch, vault) = vault();
    let source = Source::Stream { path: "a".into(), mode: 0o600, reader: Box::new(Panicking) };
    assert!(matches!(vault.capture(&label("cap-1"), vec![source]), Err(VaultError::Internal { .. })));
    assert!(vault.list().unwrap().is_empty());
    vault.capture(&label("cap-1"), vec![bytes("a", "1")]).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let (scratch, vault) = vault();
    let gone = Source::File { path: "etc/env".into(), from: scratch.path("gone") };
    let error = vault.capture(&label("cap-1"), vec![gone]).unwrap_err().to_string();
    assert!(error.contains("gone"), "{error}");
}

/// Captures, damages, and looks at every way out.
fn check_damage(damage: fn(&Path)) -> (Scratch, Vault, Manifest) {
    let (scratch, vault) = vault();
    let whole = vault.capture(&label("cap-1"), vec![bytes("whole", noise(1, 2_000_000))]).unwrap();
    let before = files(&vault, "data");
    let sources = || vec![bytes("a", "1"), bytes("b/big", noise(2, 3_000_000)), bytes("c", "2")];
    let manifest = vault.capture(&label("cap-2"), sources()).unwrap();
    let new = files(&vault, "data").into_iter().filter(|path| !before.contains(path));
    damage(&new.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap());

    let is_named = |result: Result<(), VaultError>| match result.unwrap_err() {
        VaultError::Damaged { snapshot, path, .. } => {
            assert_eq!(snapshot, manifest.snapshot);
            path
        }
        other => panic!("{other:?}"),
    };
    assert!(manifest.entry(&is_named(vault.verify(&manifest))).is_some());
    is_named(vault.restore(&manifest, &scratch.path("to")));
    is_named(vault.export(&manifest, &mut io::sink()));
    fs::write(scratch.path("file"), "former").unwrap();
    assert_eq!(is_named(vault.restore_file(&manifest, "b/big", &scratch.path("file"), None)), "b/big");
    assert_eq!(fs::read(scratch.path("file")).unwrap(), b"former");
    assert_eq!(fs::read_dir(scratch.root()).unwrap().count(), 2, "nothing is left behind");
    vault.check(true).unwrap_err();
    vault.verify(&whole).unwrap();

    // The same content again: what is damaged is not counted on, and heals what counted on it.
    let again = vault.capture(&label("cap-3"), sources()).unwrap();
    vault.verify(&again).unwrap();
    vault.verify(&manifest).unwrap();
    vault.restore(&manifest, &scratch.path("to")).unwrap();
    assert!(fs::read(scratch.path("to/b/big")).unwrap() == noise(2, 3_000_000));
    (scratch, vault, manifest)
}

fn is_whole_after_repair(vault: &Vault, manifest: &Manifest) {
    let repaired = vault.repair().unwrap();
    assert_eq!(repaired.still_needed, Vec::<String>::new());
    vault.verify(manifest).unwrap();
    vault.check(true).unwrap();
    let keep = vault.list().unwrap().into_iter().map(|found| found.snapshot).collect();
    vault.prune(&ripcord_vault::Keep::Only(keep)).unwrap();
    vault.verify(manifest).unwrap();
    vault.check(true).unwrap();
}

#[test]
fn rf12_one_flipped_byte_is_found_and_healed() {
    let (_scratch, vault, manifest) = check_damage(|pack| {
        let mut bytes = fs::read(pack).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(pack, bytes).unwrap();
    });
    assert!(matches!(vault.prune(&ripcord_vault::Keep::Nothing), Err(VaultError::Broken { .. })));
    is_whole_after_repair(&vault, &manifest);
}

#[test]
fn rf12_a_truncated_pack_is_found_and_healed() {
    let (_scratch, vault, manifest) = check_damage(|pack| {
        let bytes = fs::read(pack).unwrap();
        fs::write(pack, &bytes[..bytes.len() / 2]).unwrap();
    });
    is_whole_after_repair(&vault, &manifest);
}

#[test]
fn rf12_a_deleted_pack_is_found_and_healed() {
    let (_scratch, vault, manifest) = check_damage(|pack| fs::remove_file(pack).unwrap());
    is_whole_after_repair(&vault, &manifest);
}

#[test]
fn a_damaged_pack_that_is_still_needed_is_kept() {
    let (_scratch, vault) = vault();
    let manifest =
        vault.capture(&label("cap-1"), vec![bytes("a", noise(1, 900_000)), bytes("b", noise(2, 900_000))]).unwrap();
    let pack = data_pack(&vault);
    let mut stored = fs::read(&pack).unwrap();
    stored[100] ^= 1;
    fs::write(&pack, stored).unwrap();
    vault.verify(&manifest).unwrap_err();
    let repaired = vault.repair().unwrap();
    assert_eq!(repaired.still_needed.len(), 1);
    assert!(pack.exists());
    // One of the two lies where the byte was flipped; the other is read from the same pack.
    let read = ["a", "b"].map(|path| read(&vault, &manifest, path).is_ok());
    assert_eq!(read.iter().filter(|ok| **ok).count(), 1);
}

#[test]
fn a_lost_or_foreign_snapshot_is_told() {
    let (_scratch, vault) = vault();
    let one = vault.capture(&label("cap-1"), vec![bytes("a", "1")]).unwrap();
    let two = vault.capture(&label("cap-2"), vec![bytes("a", "2")]).unwrap();
    let path = |manifest: &Manifest| vault.repository().join("snapshots").join(manifest.snapshot.as_str());
    // A snapshot in the place of another opens well, and is not what the manifest says.
    fs::copy(path(&two), path(&one)).unwrap();
    assert!(matches!(vault.verify(&one), Err(VaultError::Damaged { .. })));
    fs::remove_file(path(&one)).unwrap();
    assert!(matches!(vault.verify(&one), Err(VaultError::Missing { .. })));
    fs::write(path(&two), "nonsense").unwrap();
    assert!(matches!(vault.verify(&two), Err(VaultError::Damaged { .. })));
}

#[test]
fn a_tampered_manifest_leads_nowhere() {
    let (scratch, vault) = vault();
    let manifest = vault.capture(&label("cap-1"), vec![bytes("dir/a", "1")]).unwrap();
    let tampered = |change: fn(&mut Manifest)| {
        let mut tampered = manifest.clone();
        change(&mut tampered);
        // What an attacker would not forget.
        let json = serde_json::to_value(&tampered.entries).unwrap();
        let covered: Vec<_> = json
            .as_array()
            .unwrap()
            .iter()
            .map(|e| format!("{{\"path\":{},\"what\":{},\"mode\":{}}}", e["path"], WhatText(&e["what"]), e["mode"]))
            .collect();
        tampered.tree = ripcord_core::Digest::of(format!("[{}]", covered.join(",")).as_bytes());
        tampered
    };
    assert_eq!(tampered(|_| ()), manifest, "the test forges what the vault would accept");
    let changes: [fn(&mut Manifest); 5] = [
        |m| m.entries[1].path = "dir/../../escaped".into(),
        |m| m.entries[1].path = "/tmp/escaped".into(),
        |m| m.entries[0].what = What::Link { target: "/tmp".into() },
        |m| m.entries[1].path = "dir/b".into(),
        |m| m.entries[1].mode = 0o4755,
    ];
    for change in changes {
        let tampered = tampered(change);
        for result in [vault.verify(&tampered), vault.restore(&tampered, &scratch.path("to"))] {
            let error = result.unwrap_err();
            let told = matches!(
                error,
                VaultError::BadPath { .. } | VaultError::BadManifest { .. } | VaultError::Damaged { .. }
            );
            assert!(told, "{error:?}");
        }
        assert_eq!(fs::read_dir(scratch.root()).unwrap().count(), 1);
    }
}

/// JSON of an entry's content in the order of the type, which a JSON value forgets.
struct WhatText<'a>(&'a serde_json::Value);

impl std::fmt::Display for WhatText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0["file"] {
            serde_json::Value::Null => write!(f, "{}", self.0),
            file => write!(f, "{{\"file\":{{\"size\":{},\"sha256\":{}}}}}", file["size"], file["sha256"]),
        }
    }
}
