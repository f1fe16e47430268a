//! Several processes at once on one directory.

use std::sync::Arc;
use std::sync::mpsc;

use ripcord_core::*;
use ripcord_store::SqliteStore;
use rusqlite::Connection;

use crate::sample::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_want_a_lease_one_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut racers = tokio::task::JoinSet::new();
    for n in 0..6 {
        let store = SqliteStore::open(directory.path()).unwrap();
        racers.spawn(async move { store.acquire(&LeaseOn::App(app()), &holder(&n.to_string()), TTL).await });
    }
    let outcomes = racers.join_all().await;
    let won: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(won.len(), 1);
    let held = AcquireError::Held { by: Box::new(won[0].holder.clone()) };
    assert_eq!(outcomes.iter().filter(|outcome| outcome.as_ref().err() == Some(&held)).count(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_of_different_applications_wait_for_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for name in ["one", "two", "three"] {
        let store = SqliteStore::open(directory.path()).unwrap();
        let app = AppId { application: name.parse().unwrap(), ..app() };
        writers.spawn(async move {
            let lease = store.acquire(&LeaseOn::App(app.clone()), &holder(name), TTL * 10).await.unwrap();
            for n in 0..40 {
                store.append(&lease, Seq(n), &batch([note(&format!("{name} {n}"))])).await.unwrap();
                store.request(&app, &anna(), &Ask::Note { text: "x".into() }).await.unwrap();
            }
            assert_eq!(store.verify_journal(&app, None).await.unwrap().events, 40);
            assert_eq!(store.requests(&app).await.unwrap().len(), 40);
        });
    }
    writers.join_all().await;
}

#[tokio::test]
async fn a_write_waits_for_a_lock_and_reads_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(directory.path()).unwrap());
    let lease = store.acquire(&LeaseOn::App(app()), &holder("a"), TTL).await.unwrap();
    let (locked, is_locked) = mpsc::channel();
    let (let_go, may_let_go) = mpsc::channel::<()>();
    let path = directory.path().join("ripcord.db");
    let other = std::thread::spawn(move || {
        let sql = Connection::open(path).unwrap();
        sql.execute_batch("BEGIN IMMEDIATE").unwrap();
        locked.send(()).unwrap();
        may_let_go.recv().unwrap();
        sql.execute_batch("COMMIT").unwrap();
    });
    is_locked.recv().unwrap();
    let one = batch([note("one")]);
    let app = app();
    let mut append = store.append(&lease, Seq(0), &one);
    tokio::select! {
        biased;
        written = &mut append => panic!("it did not wait: {written:?}"),
        head = store.head(&app) => assert_eq!(head.unwrap().0, Seq(0)),
    }
    let_go.send(()).unwrap();
    assert_eq!(append.await.unwrap().len(), 1);
    other.join().unwrap();
}

#[tokio::test]
async fn an_append_nobody_waits_for_is_whole_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).unwrap();
    let lease = store.acquire(&LeaseOn::App(app()), &holder("a"), TTL).await.unwrap();
    let two = batch([note("one"), note("two")]);
    let mut append = store.append(&lease, Seq(0), &two);
    tokio::select! {
        biased;
        _ = &mut append => {}
        () = std::future::ready(()) => {}
    }
    drop(append);
    // Behind it in the same queue, and the same events: written before or written now, but once.
    assert_eq!(store.append(&lease, Seq(0), &two).await.unwrap().len(), 2);
    assert_eq!(store.head(&app()).await.unwrap().0, Seq(2));
}

/// Whatever a controller believes: the table itself does not take a second automatic attempt.
#[tokio::test]
async fn rf04_the_table_takes_one_automatic_attempt() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path()).unwrap();
    let lease = store.acquire(&LeaseOn::App(app()), &holder("a"), TTL).await.unwrap();
    let plan = a_plan(2, Some(5));
    let incident = Some(IncidentId::at(Seq(7)));
    let event = NewEvent { incident, ..of_run("p", 1, proposed(&plan, true)) };
    store.append(&lease, Seq(0), &Batch { blobs: vec![blob(&plan)], ..batch([event]) }).await.unwrap();
    let sql = Connection::open(directory.path().join("ripcord.db")).unwrap();
    let insert = |release: &str, incident: &str, level: u8| {
        sql.execute(
            "INSERT INTO run (application, environment, id, first, last, level, of_release, of_incident, kept)
             VALUES ('shop', 'production', ?1 || ?2 || ?3, 9, 9, ?3, ?1, ?2, '{}')",
            rusqlite::params![release, incident, level],
        )
    };
    assert!(insert("rel-5", "inc-8", 2).is_err());
    assert!(insert("rel-6", "inc-7", 2).is_err());
    assert!(insert("rel-5", "inc-7", 3).is_ok());
    assert!(insert("rel-6", "inc-8", 2).is_ok());
}
