//! restic and tar, without us: the way out on the day Ripcord is lost. A missing tool fails the test.

use std::fs;
use std::path::Path;
use std::process::Command;

use ripcord_vault::Source;

use crate::scratch::*;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", said(&output.stdout), said(&output.stderr));
    said(&output.stdout)
}

fn restic(repository: &Path) -> Command {
    let mut command = Command::new("restic");
    command.args(["--no-cache", "-r"]).arg(repository).env("RESTIC_PASSWORD", KEY);
    command
}

#[test]
fn restic_alone_gives_everything_back() {
    let (scratch, vault) = vault();
    let root = scratch.path("app");
    fs::create_dir_all(root.join("sub/empty")).unwrap();
    fs::write(root.join("sub/ünï\ncode \\ \"q\""), noise(1, 3_000_000)).unwrap();
    std::os::unix::fs::symlink("sub", root.join("link")).unwrap();
    fs::write(root.join("b"), "b").unwrap();
    let sources = vec![
        tree("app", &root),
        Source::Stream {
            path: "db.dump".into(),
            mode: 0o600,
            reader: Box::new(std::io::Cursor::new(noise(2, 2_500_000))),
        },
        bytes("flags/empty", ""),
    ];
    let manifest = vault.capture(&label("cap-1"), sources).unwrap();
    let repository = vault.repository();
    let snapshots = run(restic(&repository).args(["snapshots", "--json"]));
    assert!(snapshots.contains("capture:cap-1") && snapshots.contains(manifest.snapshot.as_str()), "{snapshots}");
    run(restic(&repository).args(["check", "--read-data"]));
    let to = scratch.path("to");
    run(restic(&repository).args(["restore", manifest.snapshot.as_str(), "--target"]).arg(&to));
    assert_eq!(seen(&to.join("app")), seen(&root));
    assert!(fs::read(to.join("db.dump")).unwrap() == noise(2, 2_500_000));
    assert_eq!(fs::read(to.join("flags/empty")).unwrap(), b"");
    // restic's own changes do not disturb us.
    run(restic(&repository).args(["backup", "--tag", "by-hand"]).arg(&root));
    vault.verify(&manifest).unwrap();
    let found = vault.list().unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found.iter().filter(|found| found.label.is_none()).count(), 1);
}

#[test]
fn tar_alone_gives_everything_back() {
    let (scratch, vault) = vault();
    let root = scratch.path("app");
    fs::create_dir_all(root.join("d".repeat(150)).join("empty")).unwrap();
    fs::write(root.join("d".repeat(150)).join("ünïcode"), noise(1, 100_000)).unwrap();
    fs::write(root.join("z"), "").unwrap();
    std::os::unix::fs::symlink("t".repeat(140), root.join("link")).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_000_000_000_250);
    fs::File::options().write(true).open(root.join("z")).unwrap().set_modified(old).unwrap();
    let manifest = vault.capture(&label("cap-1"), vec![tree("app", &root)]).unwrap();
    let archive = scratch.path("out.tar");
    vault.export(&manifest, &mut fs::File::create(&archive).unwrap()).unwrap();
    let to = scratch.path("to");
    fs::create_dir(&to).unwrap();
    run(Command::new("tar").arg("-xpf").arg(&archive).arg("-C").arg(&to));
    // Times come back to the millisecond: that is what a manifest has.
    let milliseconds = |tree: std::collections::BTreeMap<Vec<u8>, (String, u32, i128)>| {
        tree.into_iter().map(|(k, (kind, mode, time))| (k, (kind, mode, time / 1_000_000))).collect::<Vec<_>>()
    };
    assert_eq!(milliseconds(seen(&to.join("app"))), milliseconds(seen(&root)));
}
