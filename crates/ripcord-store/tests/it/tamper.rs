//! What verification finds: anything changed in a journal or in what is kept beside it.

use ripcord_core::*;
use ripcord_store::{SqliteStore, VerifyError};
use rusqlite::Connection;

use crate::sample::*;

struct Journal {
    directory: tempfile::TempDir,
    head: (Seq, Digest),
}

impl Journal {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path()).unwrap();
        let lease = store.acquire(&LeaseOn::App(app()), &holder("a"), TTL).await.unwrap();
        let plan = a_plan(2, None);
        let incident = Some(IncidentId::at(Seq(9)));
        let quarantine = Quarantine { version: "v1.1.0".into(), why: "errors".into(), at: at(1) };
        let events = [
            recorded(&release(1, "v1.0.0")),
            NewEvent { incident, ..of_run("proposed", 2, proposed(&plan, true)) },
            of_run("s", 2, Body::Started),
            of_run("i", 2, intent("stop")),
            of_run("a", 2, acted("stop", "done")),
            event("q", Body::Quarantined { quarantine }),
        ];
        let batch = Batch { blobs: vec![blob(&plan)], ..batch(events) };
        store.append(&lease, Seq(0), &batch).await.unwrap();
        let head = store.head(&app()).await.unwrap();
        let journal = Self { directory, head };
        drop(store);
        journal.verify(None).await.unwrap();
        journal
    }

    async fn verify(&self, remembered: Option<(Seq, Digest)>) -> Result<(), VerifyError> {
        let store = SqliteStore::open_to_read(self.directory.path()).unwrap().unwrap();
        store.verify_journal(&app(), remembered).await.map(|_| ())
    }

    fn sql(&self) -> Connection {
        Connection::open(self.directory.path().join("ripcord.db")).unwrap()
    }

    /// What is found at which event after `change`, which is taken back.
    async fn found(&self, change: &str) -> (u64, String) {
        let before = std::fs::read(self.directory.path().join("ripcord.db")).unwrap();
        self.sql().execute_batch(change).unwrap();
        let found = self.verify(None).await;
        std::fs::write(self.directory.path().join("ripcord.db"), before).unwrap();
        match found {
            Err(VerifyError::Tampered { at, why }) => (at.0, why),
            other => panic!("not found: {change}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn every_flipped_byte_of_an_event_is_found() {
    let journal = Journal::new().await;
    let sql = journal.sql();
    // One connection throughout: the readers see what it commits.
    let store = SqliteStore::open_to_read(journal.directory.path()).unwrap().unwrap();
    let mut flips = 0;
    for column in ["application", "environment", "at", "id", "run", "incident", "kind", "body", "prev", "hash"] {
        let read = format!("SELECT CAST({column} AS BLOB) FROM event WHERE seq = 2");
        let bytes: Vec<u8> = sql.query_row(&read, [], |row| row.get(0)).unwrap();
        let write = format!("UPDATE event SET {column} = CAST(?1 AS TEXT) WHERE n = 2");
        for i in 0..bytes.len() {
            // The lowest bit makes other text, the highest no text at all.
            for mask in [0x01, 0x80] {
                let mut flipped = bytes.clone();
                flipped[i] ^= mask;
                assert_eq!(sql.execute(&write, [&flipped]).unwrap(), 1);
                let found = store.verify_journal(&app(), None).await;
                assert!(matches!(found, Err(VerifyError::Tampered { at: Seq(2), .. })), "{column}[{i}]: {found:?}");
                flips += 1;
            }
        }
        sql.execute(&write, [&bytes]).unwrap();
    }
    assert!(flips > 500);
    store.verify_journal(&app(), None).await.unwrap();
}

#[tokio::test]
async fn every_changed_number_is_found() {
    let journal = Journal::new().await;
    for column in ["epoch", "version"] {
        for seq in 1..=6 {
            let (at, _) = journal.found(&format!("UPDATE event SET {column} = {column} + 1 WHERE seq = {seq}")).await;
            assert_eq!(at, seq);
        }
    }
    let (at, why) = journal.found("UPDATE event SET seq = 7 WHERE seq = 6").await;
    assert_eq!((at, why.as_str()), (6, "it is missing, the next one there is 7"));
    assert_eq!(journal.found("UPDATE event SET seq = -1 WHERE seq = 1").await.0, 1);
}

#[tokio::test]
async fn what_is_missing_is_found() {
    let journal = Journal::new().await;
    for seq in 1..=6 {
        assert_eq!(journal.found(&format!("DELETE FROM event WHERE seq = {seq}")).await.0, seq);
    }
    let (at, why) = journal.found("DELETE FROM event WHERE seq > 3").await;
    assert!(at == 4 && why.contains("the journal ends at 3"), "{at}: {why}");
    assert_eq!(journal.found("DELETE FROM event").await.0, 1);
    assert_eq!(journal.found("DELETE FROM head").await.0, 7);
    assert_eq!(journal.found("UPDATE head SET seq = 5").await.0, 7);
    // Two events that changed places.
    let swap = "UPDATE event SET seq = 40 WHERE seq = 4; UPDATE event SET seq = 4 WHERE seq = 5;
        UPDATE event SET seq = 5 WHERE seq = 40";
    assert_eq!(journal.found(swap).await.0, 4);
}

#[tokio::test]
async fn what_is_kept_beside_the_journal_is_compared_with_it() {
    let journal = Journal::new().await;
    for (change, words) in [
        ("UPDATE ledger SET kept = replace(kept, 'undecided', 'undecided') || ' ', id = 'rel-1'", ""),
        ("UPDATE ledger SET kept = replace(kept, 'v1.0.0', 'v1.0.1')", "the releases"),
        ("DELETE FROM ledger", "the releases"),
        ("UPDATE run SET level = NULL", "the runs"),
        ("UPDATE run SET kept = replace(kept, 'running', 'waiting')", "the runs"),
        ("DELETE FROM quarantine", "the quarantine"),
    ] {
        if words.is_empty() {
            // A space more says the same.
            journal.sql().execute_batch(change).unwrap();
            journal.verify(None).await.unwrap();
            continue;
        }
        let (_, why) = journal.found(change).await;
        assert!(why.starts_with(words), "{change}: {why}");
    }
}

#[tokio::test]
async fn a_journal_cut_short_together_with_its_head_is_found_by_what_was_remembered() {
    let journal = Journal::new().await;
    journal.verify(Some(journal.head)).await.unwrap();
    // Everything made consistent again by somebody who knows how: the last event never was.
    let cut = "DELETE FROM event WHERE seq = 6; DELETE FROM quarantine;
        UPDATE head SET seq = 5, hash = (SELECT hash FROM event WHERE seq = 5)";
    journal.sql().execute_batch(cut).unwrap();
    journal.verify(None).await.unwrap();
    assert!(matches!(journal.verify(Some(journal.head)).await, Err(VerifyError::Tampered { .. })));
}

#[tokio::test]
async fn a_changed_blob_is_found() {
    let journal = Journal::new().await;
    let store = SqliteStore::open_to_read(journal.directory.path()).unwrap().unwrap();
    assert_eq!(store.verify_blobs().await, Ok(1));
    journal
        .sql()
        .execute_batch("UPDATE blob SET bytes = CAST(replace(CAST(bytes AS TEXT), 'v1.0.0', 'v1.0.1') AS BLOB)")
        .unwrap();
    assert!(matches!(store.verify_blobs().await, Err(VerifyError::Tampered { .. })));
    let found = store.verify_journal(&app(), None).await;
    assert!(matches!(found, Err(VerifyError::Tampered { at: Seq(2), .. })), "{found:?}");
}

#[tokio::test]
async fn a_damaged_event_is_not_handed_out() {
    let journal = Journal::new().await;
    let sql = journal.sql();
    sql.execute_batch("UPDATE event SET body = replace(body, 'v1.0.0', 'v1.0.1') WHERE seq = 1").unwrap();
    let store = SqliteStore::open_to_read(journal.directory.path()).unwrap().unwrap();
    let read = store.read(&app(), Seq(0), 9).await;
    assert!(matches!(read, Err(StoreError::Damaged { at: Seq(1), .. })), "{read:?}");
    assert_eq!(store.read(&app(), Seq(1), 9).await.unwrap().len(), 5);
}

/// The chain needs nothing of ours to be followed.
#[tokio::test]
async fn an_auditor_recomputes_a_hash_with_sha256sum() {
    let journal = Journal::new().await;
    let store = SqliteStore::open_to_read(journal.directory.path()).unwrap().unwrap();
    let events = store.read(&app(), Seq(0), 9).await.unwrap();
    let script = r#"printf %s "$1" | sed 's/,"hash":"[^"]*"}$/}/' | tr -d '\n' | sha256sum"#;
    for event in &events {
        let line = serde_json::to_string(event).unwrap();
        let output = std::process::Command::new("sh").args(["-c", script, "sh", &line]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.split(' ').next(), Some(event.hash.hex().as_str()));
    }
    assert!(events.windows(2).all(|pair| pair[1].prev == pair[0].hash));
}
