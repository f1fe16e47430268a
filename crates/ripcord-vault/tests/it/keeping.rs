//! Captures stay what they were; keys, locks, pruning.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::channel;
use std::thread;

use ripcord_vault::{Keep, Source, Vault, VaultError, VaultKey};

use crate::scratch::*;

#[test]
fn rf13_ten_captures_later_the_first_is_what_it_was() {
    let (scratch, vault) = vault();
    let root = scratch.path("app");
    fs::create_dir(&root).unwrap();
    let write = |round: u64| {
        fs::write(root.join("version"), round.to_string()).unwrap();
        fs::write(root.join("common"), noise(0, 3_000_000)).unwrap();
        fs::write(root.join("data"), noise(round + 1, 500_000)).unwrap();
        fs::write(root.join(format!("only-{round}")), "x").unwrap();
    };
    write(0);
    let good = vault.capture(&label("cap-0"), vec![tree("", &root)]).unwrap();
    vault.restore(&good, &scratch.path("then")).unwrap();
    for round in 1..=10 {
        write(round);
        // The same name again and again: captures do not replace each other.
        vault.capture(&label("cap-0"), vec![tree("", &root)]).unwrap();
    }
    vault.restore(&good, &scratch.path("now")).unwrap();
    assert_eq!(seen(&scratch.path("now")), seen(&scratch.path("then")));
    assert!(!scratch.path("now/only-1").exists());
    let found = vault.list().unwrap();
    assert_eq!(found.len(), 11);
    assert_eq!((&found[0].snapshot, &found[0].label), (&good.snapshot, &Some(label("cap-0"))));
    let stored: u64 = files(&vault, "data").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(stored < 15_000_000, "what did not change is stored once, {stored} bytes are");
}

#[test]
fn only_the_key_opens_a_vault() {
    let (scratch, vault) = vault();
    let directory = scratch.path("vault");
    let manifest = vault.capture(&label("cap-1"), vec![bytes("a", "1")]).unwrap();
    let wrong = VaultKey::from_text(&KEY.replace('7', "8")).unwrap();
    let phrase = VaultKey::from_text("sixteen or more letters").unwrap();
    for wrong in [wrong, phrase] {
        assert!(matches!(Vault::open(&directory, &wrong), Err(VaultError::WrongKey { .. })));
        assert!(matches!(Vault::open_or_create(&directory, &wrong), Err(VaultError::WrongKey { .. })));
    }
    // Without the short cut, and with a broken one, the key still opens it, and the short cut comes back.
    let short_cut = directory.join("master.key");
    let whole = fs::read(&short_cut).unwrap();
    for broken in [None, Some(&b"nonsense"[..]), Some(&b""[..])] {
        match broken {
            None => fs::remove_file(&short_cut).unwrap(),
            Some(broken) => fs::write(&short_cut, broken).unwrap(),
        }
        Vault::open(&directory, &key()).unwrap().verify(&manifest).unwrap();
        assert_eq!(fs::read(&short_cut).unwrap().len(), whole.len());
    }
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn a_passphrase_opens_a_vault_and_leaves_no_short_cut() {
    let scratch = Scratch::new();
    let key = VaultKey::from_text("correct horse battery staple").unwrap();
    let vault = Vault::open_or_create(&scratch.path("vault"), &key).unwrap();
    let manifest = vault.capture(&label("cap-1"), vec![bytes("a", "1")]).unwrap();
    assert!(!scratch.path("vault/master.key").exists());
    Vault::open(&scratch.path("vault"), &key).unwrap().verify(&manifest).unwrap();
}

#[test]
fn a_vault_is_only_made_where_nothing_else_is() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("home")).unwrap();
    fs::write(scratch.path("home/thesis"), "").unwrap();
    assert!(matches!(Vault::open_or_create(&scratch.path("home"), &key()), Err(VaultError::NotAVault { .. })));
    assert!(matches!(Vault::open(&scratch.path("nowhere"), &key()), Err(VaultError::NotAVault { .. })));
    assert!(!scratch.path("nowhere").exists());
    // A creation that was interrupted before its end is done over; a repository that lost its head is left alone.
    let vault = Vault::open_or_create(&scratch.path("vault"), &key()).unwrap();
    fs::remove_file(vault.repository().join("config")).unwrap();
    let vault = Vault::open_or_create(&scratch.path("vault"), &key()).unwrap();
    vault.capture(&label("cap-1"), vec![bytes("a", "1")]).unwrap();
    fs::remove_file(vault.repository().join("config")).unwrap();
    assert!(matches!(Vault::open_or_create(&scratch.path("vault"), &key()), Err(VaultError::NotAVault { .. })));
    assert_eq!(files(&vault, "snapshots").len(), 1);
}

#[test]
fn one_vault_is_made_when_two_want_it() {
    let scratch = Scratch::new();
    let directory = scratch.path("vault");
    let captured = thread::scope(|scope| {
        let make = |name: &'static str| {
            let directory = &directory;
            scope.spawn(move || {
                let vault = Vault::open_or_create(directory, &key()).unwrap();
                vault.capture(&label(name), vec![bytes("a", name)]).unwrap()
            })
        };
        [make("cap-1"), make("cap-2")].map(|made| made.join().unwrap())
    });
    let vault = Vault::open(&directory, &key()).unwrap();
    captured.iter().for_each(|manifest| vault.verify(manifest).unwrap());
    assert_eq!(files(&vault, "keys").len(), 1);
}

#[test]
fn two_captures_at_once_are_both_whole() {
    let (_scratch, vault) = vault();
    let content = noise(5, 4_000_000);
    let manifests = thread::scope(|scope| {
        let capture = |name: &'static str| {
            let (vault, content) = (vault.clone(), content.clone());
            scope.spawn(move || vault.capture(&label(name), vec![bytes("same", content), bytes(name, name)]).unwrap())
        };
        [capture("cap-1"), capture("cap-2"), capture("cap-3")].map(|done| done.join().unwrap())
    });
    for manifest in &manifests {
        vault.verify(manifest).unwrap();
        assert_eq!(read(&vault, manifest, "same").unwrap(), content);
    }
    vault.check(true).unwrap();
}

#[test]
fn pruning_keeps_what_is_named_and_forgets_the_rest() {
    let (scratch, vault) = vault();
    let captures: Vec<_> = (0..4)
        .map(|n| {
            vault
                .capture(&label("cap"), vec![bytes("common", noise(0, 900_000)), bytes("own", noise(n + 1, 900_000))])
                .unwrap()
        })
        .collect();
    let keep: BTreeSet<_> = [captures[1].snapshot.clone(), captures[3].snapshot.clone()].into();
    let pruned = vault.prune(&Keep::Only(keep.clone())).unwrap();
    assert_eq!((pruned.forgotten.len(), pruned.kept, pruned.freed), (2, 2, 0));
    for kept in [&captures[1], &captures[3]] {
        vault.verify(kept).unwrap();
    }
    assert!(matches!(vault.verify(&captures[0]), Err(VaultError::Missing { .. })));
    vault.check(true).unwrap();
    // Twice in a row, and with captures in between, nothing that is needed goes.
    vault.capture(&label("cap"), vec![bytes("own", noise(1, 900_000))]).unwrap();
    vault.prune(&Keep::AndSince(keep.clone(), captures[3].at)).unwrap();
    vault.restore(&captures[1], &scratch.path("to")).unwrap();
    assert!(fs::read(scratch.path("to/own")).unwrap() == noise(2, 900_000));
    assert_eq!(vault.list().unwrap().len(), 3);

    assert!(matches!(vault.prune(&Keep::Only(BTreeSet::new())), Err(VaultError::KeepsNothing { .. })));
    let elsewhere = [captures[0].snapshot.clone()].into();
    assert!(matches!(vault.prune(&Keep::Only(elsewhere)), Err(VaultError::Missing { .. })));
    assert_eq!(vault.list().unwrap().len(), 3);
    vault.prune(&Keep::Nothing).unwrap();
    assert!(vault.list().unwrap().is_empty());
}

#[test]
fn pruning_and_repair_keep_out_of_a_running_capture() {
    let (_scratch, vault) = vault();
    let earlier = vault.capture(&label("cap-1"), vec![bytes("a", "1")]).unwrap();
    let (running, is_running) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let source = Source::Producer {
        path: "db".into(),
        mode: 0o600,
        reader: Box::new(&b"dumped"[..]),
        finish: Box::new(move || {
            running.send(()).map_err(|e| e.to_string())?;
            may_go_on.recv().map_err(|e| e.to_string())
        }),
    };
    let captured = thread::scope(|scope| {
        let capture = scope.spawn(|| vault.capture(&label("cap-2"), vec![source]));
        is_running.recv().unwrap();
        assert!(matches!(vault.prune(&Keep::Nothing), Err(VaultError::Locked { .. })));
        assert!(matches!(vault.repair(), Err(VaultError::Locked { .. })));
        // Captures and readers do not wait for each other.
        vault.verify(&earlier).unwrap();
        vault.capture(&label("cap-3"), vec![bytes("b", "1")]).unwrap();
        go_on.send(()).unwrap();
        capture.join().unwrap().unwrap()
    });
    vault.verify(&captured).unwrap();
    vault.prune(&Keep::Only([captured.snapshot.clone()].into())).unwrap();
    vault.verify(&captured).unwrap();
}

#[test]
fn no_secret_is_in_clear_anywhere() {
    const CANARY: &str = "PASSWORD=canary-4711-canary";
    let (scratch, vault) = vault();
    let secret = bytes(".env", CANARY);
    assert!(!format!("{secret:?}{:?}{vault:?}", key()).contains("canary"));
    assert!(!format!("{:?}{vault:?}", key()).contains(&KEY[..16]));
    let manifest = vault.capture(&label("cap-1"), vec![secret]).unwrap();
    assert_eq!(read(&vault, &manifest, ".env").unwrap(), CANARY.as_bytes());
    let mut open = vec![scratch.path("vault")];
    let mut looked_at = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        looked_at += 1;
        let content = fs::read(&path).unwrap();
        let has = |text: &[u8]| content.windows(text.len()).any(|window| window == text);
        // The key, what it encrypts, and the master key's own JSON.
        assert!(!has(&KEY.as_bytes()[..16]) && !has(b"canary") && !has(b"\"encrypt\""), "{}", path.display());
        assert!(fs::metadata(&path).unwrap().permissions().mode() & 0o077 == 0, "{}", path.display());
    }
    assert!(looked_at >= 6, "{looked_at} files");
}
