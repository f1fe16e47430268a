//! A vault that is asked from another machine: the same answers, byte for byte. The machine is a pair of threads here.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use ripcord_vault::{
    Access, Contents, Far, Found, Giver, Label, Manifest, Offer, Opened, Piece, SnapshotId, Source, Vault, VaultError,
};

use crate::scratch::{Noise, Scratch, bytes, data_pack, files, is_empty, label, noise, seen, tree, vault};
use crate::trees::odd_tree;

/// What is between the machines: it may spoil what it carries.
struct Wire {
    vault: Vault,
    captured: Mutex<HashMap<SnapshotId, Manifest>>,
    spoil: fn(&mut Piece),
}

struct Asked(Offer);

impl Giver for Asked {
    fn give(&self, numbers: &[usize]) -> Result<Vec<Piece>, VaultError> {
        self.0.give(numbers).map_err(|error| VaultError::Told(error.tell()))
    }
    fn settled(&self) -> Result<(), VaultError> {
        self.0.settled().map_err(|error| VaultError::Told(error.tell()))
    }
}

struct Spoiled(Box<dyn Contents>, fn(&mut Piece));

impl Contents for Spoiled {
    fn next(&mut self) -> Result<Vec<Piece>, VaultError> {
        let mut pieces = self.0.next()?;
        pieces.iter_mut().for_each(self.1);
        Ok(pieces)
    }
}

impl Wire {
    fn manifest(&self, snapshot: &SnapshotId) -> Manifest {
        self.captured.lock().unwrap()[snapshot].clone()
    }
}

impl Far for Wire {
    fn capture(&self, label: &Label, offer: Offer) -> Result<Manifest, VaultError> {
        let outline = serde_json::to_string(offer.entries()).unwrap();
        let outline = serde_json::from_str(&outline).unwrap();
        let manifest = self.vault.capture_offered(label, outline, Arc::new(Asked(offer)))?;
        self.captured.lock().unwrap().insert(manifest.snapshot.clone(), manifest.clone());
        Ok(manifest)
    }
    fn open(&self, snapshot: &SnapshotId, file: Option<&str>) -> Result<Opened, VaultError> {
        let (outfits, reading) = self.vault.reading(&self.manifest(snapshot), file)?;
        Ok((outfits, Box::new(Spoiled(Box::new(reading), self.spoil))))
    }
    fn verify(&self, snapshot: &SnapshotId) -> Result<(), VaultError> {
        self.vault.verify(&self.manifest(snapshot))
    }
    fn holds(&self, snapshot: &SnapshotId) -> Result<bool, VaultError> {
        Ok(self.vault.list()?.iter().any(|found| found.snapshot == *snapshot))
    }
    fn list(&self, component: &str) -> Result<Vec<Found>, VaultError> {
        self.vault.list_of(component)
    }
}

fn far_spoiling(spoil: fn(&mut Piece)) -> (Scratch, Vault, Access) {
    let (scratch, vault) = vault();
    let far = Access::Far(Arc::new(Wire { vault: vault.clone(), captured: Mutex::default(), spoil }));
    (scratch, vault, far)
}

fn far() -> (Scratch, Vault, Access) {
    far_spoiling(|_| {})
}

/// Files of all sizes that make a difference on the way.
fn of_all_sizes(scratch: &Scratch) -> std::path::PathBuf {
    let root = scratch.path("tree");
    fs::create_dir(&root).unwrap();
    odd_tree(&root.join("odd"));
    for (n, size) in [0, 1, 64 << 10, (64 << 10) + 1, 512 << 10, (512 << 10) + 1, 3_000_000].into_iter().enumerate() {
        fs::write(root.join(format!("size-{size}")), noise(n as u64, size)).unwrap();
    }
    for n in 0..700 {
        fs::write(root.join(format!("small-{n}")), noise(n, 300)).unwrap();
    }
    root
}

#[test]
fn what_is_captured_and_restored_from_afar_is_what_it_would_be_from_near() {
    let (scratch, vault, far) = far();
    let root = of_all_sizes(&scratch);
    let near = vault.capture(&label("near"), vec![tree("", &root)]).unwrap();
    let manifest = far.capture(&label("far"), vec![tree("", &root)]).unwrap();
    assert_eq!((manifest.tree, &manifest.entries), (near.tree, &near.entries));
    far.verify(&manifest).unwrap();
    assert!(far.holds(&manifest.snapshot).unwrap());
    let there = scratch.path("there");
    far.restore(&manifest, &there).unwrap();
    assert_eq!(seen(&there), seen(&root));
    // And either way out gives the same.
    let here = scratch.path("here");
    vault.restore(&manifest, &here).unwrap();
    assert_eq!(seen(&here), seen(&there));
}

#[test]
fn streams_and_single_files_come_and_go_from_afar() {
    let (scratch, _vault, far) = far();
    let reader = |length| -> Box<dyn Read + Send> { Box::new(Noise::new(5).take(length)) };
    let finish = Box::new(|| Ok(()));
    let sources = vec![
        Source::Stream { path: "dumps/a".into(), mode: 0o600, reader: reader(1_500_000) },
        Source::Producer { path: "dumps/b".into(), mode: 0o600, reader: reader(10), finish },
        bytes("c", "hello"),
    ];
    let manifest = far.capture(&label("cap"), sources).unwrap();
    let mut out = vec![];
    assert_eq!(far.read(&manifest, "dumps/a", &mut out).unwrap(), 1_500_000);
    assert_eq!(out, noise(5, 1_500_000));
    let to = scratch.path("c");
    far.restore_file(&manifest, "c", &to, Some(0o640)).unwrap();
    assert_eq!(fs::read_to_string(&to).unwrap(), "hello");
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(matches!(far.read(&manifest, "dumps", &mut out), Err(VaultError::NoEntry { .. })));
}

#[test]
fn rf12_a_producer_that_fails_afar_is_no_capture() {
    let (_scratch, vault, far) = far();
    let reader = Box::new(Noise::new(7).take(2_000_000));
    let finish = Box::new(|| Err("exit code 1".to_owned()));
    let source = Source::Producer { path: "db.dump".into(), mode: 0o600, reader, finish };
    let error = far.capture(&label("cap"), vec![source]).unwrap_err();
    assert_eq!(error.to_string(), "the source of `db.dump` failed: exit code 1");
    assert_eq!(files(&vault, "snapshots").len(), 0);
}

#[test]
fn a_tree_that_changes_while_it_is_read_afar_is_not_captured() {
    let (scratch, vault, far) = far();
    let root = scratch.path("tree");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), noise(1, 2_000_000)).unwrap();
    let late = root.join("late");
    let reader = Box::new(OnRead(Some(Box::new(move || fs::write(late, "x").unwrap()))));
    let touch = Source::Stream { path: "stream".into(), mode: 0o600, reader };
    let error = far.capture(&label("cap"), vec![tree("tree", &root), touch]).unwrap_err();
    assert!(error.may_pass() && error.to_string().contains("late` changed while it was read"), "{error}");
    assert_eq!(files(&vault, "snapshots").len(), 0);
}

struct OnRead(Option<Box<dyn FnOnce() + Send>>);

impl Read for OnRead {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        self.0.take().map_or(Ok(0), |act| {
            act();
            Ok(0)
        })
    }
}

#[test]
fn what_was_spoilt_on_the_way_never_takes_its_place() {
    let spoils: [fn(&mut Piece); 3] = [
        |piece| piece.bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1),
        |piece| piece.bytes.truncate(piece.bytes.len() / 2),
        |piece| piece.number += 1,
    ];
    for spoil in spoils {
        let (scratch, _vault, far) = far_spoiling(spoil);
        let root = of_all_sizes(&scratch);
        let manifest = far.capture(&label("cap"), vec![tree("", &root)]).unwrap();
        let out = scratch.path("out");
        fs::create_dir(&out).unwrap();
        let error = far.restore(&manifest, &out.join("tree")).unwrap_err();
        assert!(matches!(error, VaultError::Damaged { .. }), "{error:?}");
        let file = out.join("file");
        assert!(far.restore_file(&manifest, "size-3000000", &file, None).is_err());
        assert!(is_empty(&out), "nothing is left of it");
    }
}

#[test]
fn a_damaged_vault_is_told_afar() {
    let (scratch, vault, far) = far();
    let root = of_all_sizes(&scratch);
    let manifest = far.capture(&label("cap"), vec![tree("", &root)]).unwrap();
    let pack = data_pack(&vault);
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o644)).unwrap();
    let mut content = fs::read(&pack).unwrap();
    content.iter_mut().take(2000).for_each(|byte| *byte ^= 0x55);
    fs::write(&pack, content).unwrap();
    let there = scratch.path("there");
    let error = far.restore(&manifest, &there).unwrap_err();
    assert!(error.to_string().contains("is damaged at"), "{error}");
    assert!(!there.exists());
}
