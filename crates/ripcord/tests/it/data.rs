//! What would be lost: counted, shown, and given up only with the words for it.

use crate::bed::{Bed, CONFIG};

fn with_orders() -> Bed {
    let config = CONFIG.replace("\nsignals:", "\n  orders: { sqlite: { path: orders.db } }\nsignals:")
        + "strategies:\n  standard:\n    - { level: 2, name: code, restore: versioned }\n    - { level: 3, name: everything, restore: [code, settings, flags, orders] }\n";
    let bed = Bed::with(&config);
    let database = rusqlite::Connection::open(bed.path("orders.db")).unwrap();
    database.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT); INSERT INTO orders (what) VALUES ('tea'), ('cake');").unwrap();
    drop(database);
    let bed = bed.with_two_releases();
    let database = rusqlite::Connection::open(bed.path("orders.db")).unwrap();
    database.execute_batch("INSERT INTO orders (what) VALUES ('jam'), ('milk'), ('salt');").unwrap();
    bed
}

fn orders(bed: &Bed) -> u32 {
    let database = rusqlite::Connection::open(bed.path("orders.db")).unwrap();
    database.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap()
}

#[test]
fn every_level_says_what_it_would_lose() {
    let bed = with_orders();
    let plan = bed.run(&["plan", "--level", "3"]);
    insta::assert_snapshot!(bed.masked(&plan));
}

#[test]
fn a_yes_alone_gives_nothing_up() {
    let bed = with_orders();
    let refused = bed.run(&["rollback", "--level", "3", "--yes"]);
    assert_eq!((refused.code, orders(&bed)), (Some(4), 5), "{refused:#?}");
    assert!(refused.err.contains("CONFIRM DATA LOSS"), "{refused:#?}");
    assert_eq!(bed.run(&["rollback", "--level", "3", "--yes", "--confirm", "yes"]).code, Some(2));
    let done = bed.run(&["rollback", "--level", "3", "--yes", "--confirm", "CONFIRM DATA LOSS"]);
    assert_eq!((done.code, orders(&bed)), (Some(0), 2), "{done:#?}");
    assert!(bed.ok(&["log"]).contains("with consent to the loss"));
}

#[test]
fn the_lower_level_leaves_data_alone() {
    let bed = with_orders();
    let done = bed.run(&["rollback", "--yes"]);
    assert_eq!((done.code, orders(&bed), bed.live().as_str()), (Some(0), 5, "1.0.0"), "{done:#?}");
}
