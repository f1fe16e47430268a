use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Reading, Signal};
use rusqlite::Connection;
use serde_json::json;

use crate::support::{Bench, cx_at, read, sample, why};

fn database(bench: &Bench) -> Connection {
    let db = Connection::open(bench.path("shop.db")).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode=WAL; CREATE TABLE orders(id INTEGER PRIMARY KEY, note TEXT, total REAL);
         INSERT INTO orders(note, total) VALUES ('a', 1.5), ('b', 2.5), (NULL, NULL);",
    )
    .unwrap();
    db
}

async fn reading(bench: &Bench, query: &str) -> Reading {
    read(&*bench.signal("sql", &format!("path: shop.db\nquery: \"{query}\""))).await
}

#[tokio::test]
async fn a_query_gives_one_number_and_its_rows() {
    let bench = Bench::new();
    let _writer = database(&bench);
    assert_eq!(sample(reading(&bench, "SELECT count(*) FROM orders").await).value, 3.0);
    let sum = sample(reading(&bench, "SELECT sum(total) AS sum, max(note) AS note FROM orders").await);
    assert_eq!((sum.value, &sum.fields["rows"]), (4.0, &json!([{"sum": 4.0, "note": "b"}])));
    assert_eq!(reading(&bench, "SELECT total FROM orders WHERE id = 3").await, Reading::Empty, "NULL is no number");
    assert_eq!(reading(&bench, "SELECT total FROM orders WHERE id = 9").await, Reading::Empty);
    let text = why(reading(&bench, "SELECT note FROM orders").await);
    assert!(text.contains("Invalid column type Text"), "{text}");
    assert!(why(reading(&bench, "SELECT * FROM none").await).contains("no such table: none"));
}

#[tokio::test]
async fn it_only_reads() {
    let bench = Bench::new();
    let writer = database(&bench);
    let text = why(reading(&bench, "DELETE FROM orders RETURNING id").await);
    assert!(text.contains("readonly"), "{text}");
    assert_eq!(writer.query_row("SELECT count(*) FROM orders", [], |row| row.get::<_, i64>(0)).unwrap(), 3);
    let absent = Bench::new();
    assert!(why(reading(&absent, "SELECT 1").await).contains("unable to open"));
    assert!(!absent.path("shop.db").exists(), "asking creates nothing");
}

#[tokio::test]
async fn a_writer_is_waited_for_and_an_endless_query_is_ended() {
    let bench = Bench::new();
    let writer = database(&bench);
    writer.execute_batch("PRAGMA journal_mode=DELETE; BEGIN EXCLUSIVE; DELETE FROM orders;").unwrap();
    let count = bench.signal("sql", "path: shop.db\nquery: SELECT count(*) FROM orders");
    let blocked = why(at_most(&*count, 300).await);
    assert!(blocked.contains("database is locked") || blocked.contains("no answer within"), "{blocked}");
    let waiting = tokio::spawn(async move { at_most(&*count, 20_000).await });
    writer.execute_batch("ROLLBACK").unwrap();
    assert_eq!(sample(waiting.await.unwrap()).value, 3.0);
    let endless =
        "path: shop.db\nquery: WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n";
    let endless = bench.signal("sql", endless);
    let ended = why(at_most(&*endless, 300).await);
    assert!(ended.contains("no answer within 270 ms"), "{ended}");
}

async fn at_most(signal: &dyn Signal, ms: u64) -> Reading {
    signal.read(&cx_at(Timestamp::now(), Duration::from_millis(ms))).await
}
