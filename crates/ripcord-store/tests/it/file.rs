//! Directory, permissions, versions: what is opened and what is refused.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ripcord_core::*;
use ripcord_store::SqliteStore;
use rusqlite::Connection;

use crate::sample::*;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn refused(directory: &Path) -> String {
    match SqliteStore::open(directory) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn everything_is_for_one_user_alone() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("state/of/ripcord");
    let store = SqliteStore::open(&directory).unwrap();
    store.request(&app(), &anna(), &Ask::Note { text: "x".into() }).await.unwrap();
    assert_eq!(mode(&directory), 0o700);
    let files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    files.iter().for_each(|file| assert_eq!(mode(file), 0o600, "{}", file.display()));
    drop(store);
    let file = directory.join("ripcord.db");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    SqliteStore::open(&directory).unwrap();
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn a_directory_others_may_write_to_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let why = refused(directory.path());
    assert!(why.contains("others may write") && why.contains("chmod 700"), "{why}");
}

#[test]
fn looking_creates_nothing() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("none");
    assert!(SqliteStore::open_to_read(&directory).unwrap().is_none());
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_store_opened_to_be_read_follows_but_does_not_write() {
    let directory = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(directory.path()).unwrap());
    let reader = SqliteStore::open_to_read(directory.path()).unwrap().unwrap();
    assert!(reader.ledger(&app()).await.unwrap().releases.is_empty());
    let writer = SqliteStore::open(directory.path()).unwrap();
    let lease = writer.acquire(&LeaseOn::App(app()), &holder("a"), TTL).await.unwrap();
    writer.append(&lease, Seq(0), &batch([recorded(&release(1, "v1"))])).await.unwrap();
    assert_eq!(reader.ledger(&app()).await.unwrap().releases.len(), 1);
    let error = reader.append(&lease, Seq(1), &batch([note("x")])).await.unwrap_err();
    assert!(error.to_string().contains("opened only to be read"), "{error}");
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(directory.path()).unwrap());
    let sql = Connection::open(directory.path().join("ripcord.db")).unwrap();
    sql.execute_batch("PRAGMA user_version = 99").unwrap();
    let known = match SqliteStore::open(directory.path()) {
        Err(StoreError::Newer { found: 99, known }) => known,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    };
    assert!(known < 99);
    assert!(matches!(SqliteStore::open_to_read(directory.path()), Err(StoreError::Newer { .. })));
}

#[test]
fn somebody_elses_file_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let sql = Connection::open(directory.path().join("ripcord.db")).unwrap();
    sql.execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(refused(directory.path()).contains("not one of Ripcord's"));
    let tables: i64 = sql.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn a_damaged_file_is_said_to_be_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ripcord.db");
    std::fs::write(&path, "this was never a database, and is long enough to be looked at as one".repeat(100)).unwrap();
    assert!(refused(directory.path()).contains("the file is damaged"));

    std::fs::remove_file(&path).unwrap();
    let store = SqliteStore::open(directory.path()).unwrap();
    let lease = store.acquire(&LeaseOn::App(app()), &holder("a"), TTL).await.unwrap();
    store.append(&lease, Seq(0), &batch((0..400).map(|n| note(&n.to_string())))).await.unwrap();
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let events = bytes.len() / 4 * 3;
    bytes[events..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let store = SqliteStore::open(directory.path()).unwrap();
    let error = store.read(&app(), Seq(0), 1000).await.unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
    assert!(store.verify_journal(&app(), None).await.is_err());
}

/// A file as version 1 wrote it: the record, and nothing folded beside it.
#[tokio::test]
async fn an_older_file_is_brought_up_to_this_version() {
    for open in [SqliteStore::open, |directory: &Path| Ok(SqliteStore::open_to_read(directory)?.unwrap())] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ripcord.db");
        Connection::open(&path).unwrap().execute_batch(include_str!("v1.sql")).unwrap();
        let store = open(directory.path()).unwrap();
        let verified = store.verify_journal(&app(), None).await.unwrap();
        assert_eq!(verified.events, 6);
        let ledger = store.ledger(&app()).await.unwrap();
        assert_eq!(ledger.releases, [release(1, "v1.0.0")]);
        assert_eq!(ledger.quarantined.keys().collect::<Vec<_>>(), ["v1.1.0"]);
        assert_eq!(store.runs(&app(), 9).await.unwrap()[0].state, RunState::Running);
        let lease = store.acquire(&LeaseOn::App(app()), &holder("b"), TTL).await.unwrap();
        assert_eq!(lease.epoch, Epoch(2), "the lease's history is kept");
        store.append(&lease, Seq(6), &batch([of_run("next", 2, intent("restore"))])).await.unwrap();
    }
}

#[tokio::test]
async fn two_that_open_it_at_once_both_can() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let path = directory.path().to_owned();
        std::thread::spawn(move || SqliteStore::open(&path).map(|_| ()))
    };
    let opened: Vec<_> = (0..8).map(|_| open()).collect();
    opened.into_iter().for_each(|opened| opened.join().unwrap().unwrap());
}
