//! Killed at any instant, or out of disk: the journal is whole, and holds everything that was answered.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ripcord_core::*;
use ripcord_store::SqliteStore;

use crate::sample::*;

const DIRECTORY: &str = "RIPCORD_STORE_TEST_DIRECTORY";

/// Not a test of its own: the process that the others start. Appends for ever, saying how far it came.
#[tokio::test]
async fn writes_until_stopped() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let store = SqliteStore::open(Path::new(&directory)).unwrap();
    let lease = store.acquire(&LeaseOn::App(app()), &holder("child"), TTL * 100).await.unwrap();
    let (mut seq, _) = store.head(&app()).await.unwrap();
    loop {
        let events = (1..=3).map(|n| note(&format!("event {}", seq.0 + n)));
        match store.append(&lease, seq, &batch(events)).await {
            Ok(events) => seq = events.last().unwrap().seq,
            Err(error) => {
                println!("\nrefused {error}");
                return;
            }
        }
        println!("\nwritten {seq}");
    }
}

fn start(mut command: Command, directory: &Path) -> Child {
    command.env(DIRECTORY, directory).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn child() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::writes_until_stopped", "--nocapture"]);
    command
}

/// Reads what it says until `enough` or its end; returns the last number said to be written, and what it was refused.
fn listen(child: &mut Child, enough: u64) -> (u64, Option<String>) {
    let mut written = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(n) = line.strip_prefix("written ") {
            written = n.parse().unwrap();
        }
        if let Some(why) = line.strip_prefix("refused ") {
            return (written, Some(why.to_owned()));
        }
        if written >= enough {
            break;
        }
    }
    (written, None)
}

async fn whole(directory: &Path) -> u64 {
    let store = SqliteStore::open(directory).unwrap();
    store.verify_journal(&app(), None).await.unwrap().events
}

#[tokio::test]
async fn a_process_killed_while_writing_leaves_a_whole_journal() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 1..=4 {
        let mut child = start(child(), directory.path());
        let (written, refused) = listen(&mut child, before + 20 * round);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(refused, None);
        assert!(written > before);
        before = whole(directory.path()).await;
        assert!(before >= written, "{written} were answered, {before} are there");
        assert_eq!(before % 3, 0, "a batch is whole");
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(directory.path()).unwrap());
    // A limit on the size of files stands in for a full disk: the write fails, and with the signal ignored nobody is killed.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\""]);
    command.arg(child().get_program()).args(child().get_args());
    let mut child = start(command, directory.path());
    let (written, refused) = listen(&mut child, u64::MAX);
    child.wait().unwrap();
    let why = refused.expect("it went on writing");
    assert!(written > 0 && why.contains("disk"), "{written}: {why}");
    assert!(whole(directory.path()).await >= written);
}
