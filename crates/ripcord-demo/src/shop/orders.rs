//! The orders database: one connection on a thread of its own, jobs through a bounded queue.
//!
//! WAL with synchronous=FULL: an order that was answered 201 survives a power cut. The file is never created here, and it
//! is opened anew when the path leads to another file than the open one: after a restore by rename the shop must not go
//! on selling into the file that was moved away.
use super::fault::Damage;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// What the shop sells, with prices in cents.
pub const CATALOGUE: [(&str, i64); 5] =
    [("tea-green", 890), ("tea-black", 790), ("mug-blue", 1_450), ("kettle", 4_990), ("honey", 1_120)];

/// Counts the orders that cannot be right; nought in a sound shop.
pub const INTEGRITY_QUERY: &str = "SELECT count(*) FROM orders LEFT JOIN customers ON customers.name = orders.customer \
     WHERE orders.total_cents < 0 OR orders.quantity <= 0 OR customers.name IS NULL";

const SHIPPING_CENTS: i64 = 490;
const WAIT_FOR_LOCK: Duration = Duration::from_secs(2);
/// More than this waiting means that the database is stuck; further customers wait at the queue, not in memory.
const QUEUE: usize = 256;

const SCHEMA: &str = "
    CREATE TABLE customers (name TEXT PRIMARY KEY NOT NULL, since TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE orders (
        id INTEGER PRIMARY KEY,
        customer TEXT NOT NULL,
        sku TEXT NOT NULL,
        quantity INTEGER NOT NULL CHECK (quantity > 0),
        total_cents INTEGER NOT NULL,
        created_at TEXT NOT NULL
    );";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOrder {
    pub customer: String,
    pub sku: String,
    pub quantity: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Order {
    id: i64,
    customer: String,
    sku: String,
    quantity: i64,
    total_cents: i64,
    created_at: String,
}

impl NewOrder {
    /// The total, or why the shop does not take the order.
    pub(super) fn price(&self, max_quantity: u32, free_shipping: bool) -> Result<i64, String> {
        if self.customer.trim().is_empty() || self.customer.len() > 200 {
            return Err("customer: 1 to 200 bytes".into());
        }
        if !(1..=max_quantity).contains(&self.quantity) {
            return Err(format!("quantity: 1 to {max_quantity}"));
        }
        let Some((_, cents)) = CATALOGUE.iter().find(|(sku, _)| *sku == self.sku) else {
            return Err("sku: not in the catalogue".into());
        };
        Ok(cents * i64::from(self.quantity) + if free_shipping { 0 } else { SHIPPING_CENTS })
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum OrdersError {
    #[error("the database file cannot be reached: {0}")]
    Gone(io::Error),
    #[error("the database failed: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("the database has no table of orders")]
    NoTable,
    #[error("the database thread has ended")]
    Ended,
}

/// Creates the database at `path` with `orders` orders in it.
pub(super) fn create(path: &Path, orders: u32) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    settle(&connection)?;
    let write = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    write.execute_batch(SCHEMA)?;
    for (number, (sku, cents)) in (1..=orders).zip(CATALOGUE.iter().cycle()) {
        let quantity = 1 + number % 3;
        let order = NewOrder { customer: format!("regular-{}", number % 7), sku: (*sku).to_owned(), quantity };
        add(&write, &order, cents * i64::from(quantity) + SHIPPING_CENTS)?;
    }
    write.commit()
}

type Job = Box<dyn FnOnce(&mut Desk) + Send>;

/// The way to the database. The thread ends when the last of these is gone.
#[derive(Clone)]
pub(super) struct Orders {
    jobs: mpsc::Sender<Job>,
}

impl Orders {
    /// Starts the thread. The receiver completes when it has closed the database.
    pub(super) fn open(path: PathBuf) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let (closed, when_closed) = oneshot::channel();
        thread::Builder::new().name("orders".into()).spawn(move || {
            let mut desk = Desk { path, open: None };
            while let Some(job) = queue.blocking_recv() {
                job(&mut desk);
            }
            drop(desk);
            let _ = closed.send(());
        })?;
        Ok((Self { jobs }, when_closed))
    }

    /// Takes an order and returns its number; it is on disk then.
    pub(super) async fn take(&self, order: NewOrder, total: i64, damage: Option<Damage>) -> Result<i64, OrdersError> {
        self.ask(move |connection| {
            let write = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let id = add(&write, &order, total)?;
            if let Some(damage) = damage {
                harm(&write, id, damage)?;
            }
            write.commit()?;
            Ok(id)
        })
        .await
    }

    pub(super) async fn find(&self, id: i64) -> Result<Option<Order>, OrdersError> {
        self.ask(move |connection| {
            let mut select = connection.prepare_cached("SELECT * FROM orders WHERE id = ?1")?;
            Ok(select.query_row([id], order).optional()?)
        })
        .await
    }

    /// The newest orders, newest first.
    pub(super) async fn newest(&self, limit: u32) -> Result<Vec<Order>, OrdersError> {
        self.ask(move |connection| {
            let mut select = connection.prepare_cached("SELECT * FROM orders ORDER BY id DESC LIMIT ?1")?;
            select.query_map([limit], order)?.collect::<rusqlite::Result<_>>().map_err(OrdersError::from)
        })
        .await
    }

    /// Whether orders can be read. As jobs run one after another, all jobs asked for earlier are done when this is.
    pub(super) async fn check(&self) -> Result<(), OrdersError> {
        self.ask(|connection| {
            let table: Option<i64> = connection
                .query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'orders'", [], |row| row.get(0))
                .optional()?;
            table.map(|_| ()).ok_or(OrdersError::NoTable)?;
            // The schema alone may come from a page that is still whole.
            connection.query_row("SELECT max(id) FROM orders", [], |_| Ok(())).map_err(OrdersError::from)
        })
        .await
    }

    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, OrdersError> + Send + 'static,
    ) -> Result<T, OrdersError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |desk| {
            // Nobody waits any more when the customer hung up; the job was done all the same.
            let _ = answer.send(desk.connection().and_then(job));
        });
        self.jobs.send(job).await.map_err(|_| OrdersError::Ended)?;
        answered.await.map_err(|_| OrdersError::Ended)?
    }
}

/// The thread's own: the connection, and which file it is to.
struct Desk {
    path: PathBuf,
    open: Option<(FileId, Connection)>,
}

type FileId = (u64, u64);

impl Desk {
    fn connection(&mut self) -> Result<&mut Connection, OrdersError> {
        let metadata = fs::metadata(&self.path).map_err(OrdersError::Gone)?;
        let now = (metadata.dev(), metadata.ino());
        let (_, connection) = match self.open.take() {
            Some((id, connection)) if id == now => self.open.insert((id, connection)),
            stale => {
                // SQLite sees that the file was moved, and leaves the write-ahead log that now has its log's name alone
                // (databaseIsUnmoved in pager.c).
                drop(stale);
                let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
                settle(&connection)?;
                self.open.insert((now, connection))
            }
        };
        Ok(connection)
    }
}

fn settle(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(WAIT_FOR_LOCK)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")
}

fn add(write: &Connection, order: &NewOrder, total_cents: i64) -> rusqlite::Result<i64> {
    let now = jiff::Timestamp::now().to_string();
    write
        .prepare_cached("INSERT INTO customers (name, since) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![order.customer, now])?;
    write
        .prepare_cached(
            "INSERT INTO orders (customer, sku, quantity, total_cents, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![order.customer, order.sku, order.quantity, total_cents, now])?;
    Ok(write.last_insert_rowid())
}

/// Damages the oldest order that is still whole, other than `id`.
///
/// The customer becomes empty, not NULL: the schema forbids NULL, and data that constraints cannot catch is what a
/// release really leaves behind.
fn harm(write: &Connection, id: i64, damage: Damage) -> rusqlite::Result<()> {
    let change = match damage {
        Damage::Total => "total_cents = -total_cents",
        Damage::Customer => "customer = ''",
    };
    let sql = format!(
        "UPDATE orders SET {change} WHERE id = \
         (SELECT id FROM orders WHERE id < ?1 AND total_cents > 0 AND customer <> '' ORDER BY id LIMIT 1)"
    );
    write.prepare_cached(&sql)?.execute([id]).map(|_| ())
}

fn order(row: &Row<'_>) -> rusqlite::Result<Order> {
    Ok(Order {
        id: row.get("id")?,
        customer: row.get("customer")?,
        sku: row.get("sku")?,
        quantity: row.get("quantity")?,
        total_cents: row.get("total_cents")?,
        created_at: row.get("created_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(customer: &str) -> NewOrder {
        NewOrder { customer: customer.into(), sku: "kettle".into(), quantity: 2 }
    }

    fn violations(path: &Path) -> i64 {
        Connection::open(path).unwrap().query_row(INTEGRITY_QUERY, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn prices_and_refusals() {
        assert_eq!(sample("ann").price(20, false), Ok(2 * 4_990 + 490));
        assert_eq!(sample("ann").price(20, true), Ok(2 * 4_990));
        assert!(sample("ann").price(1, true).unwrap_err().starts_with("quantity"));
        assert!(sample(" ").price(20, true).unwrap_err().starts_with("customer"));
        assert!(NewOrder { quantity: 0, ..sample("ann") }.price(20, true).unwrap_err().starts_with("quantity"));
        assert!(NewOrder { sku: "gold".into(), ..sample("ann") }.price(20, true).unwrap_err().starts_with("sku"));
    }

    #[tokio::test]
    async fn damage_shows_in_the_integrity_query_and_spares_the_order_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("orders.db");
        create(&path, 10).unwrap();
        assert_eq!(violations(&path), 0);
        let (orders, _closed) = Orders::open(path.clone()).unwrap();
        orders.take(sample("ann"), 100, None).await.unwrap();
        assert_eq!(violations(&path), 0);
        for (damage, expected) in [(Damage::Total, 1), (Damage::Customer, 2), (Damage::Total, 3)] {
            let id = orders.take(sample("ben"), 100, Some(damage)).await.unwrap();
            assert_eq!(violations(&path), expected);
            let own = orders.find(id).await.unwrap().unwrap();
            assert_eq!((own.customer.as_str(), own.total_cents), ("ben", 100));
        }
        assert_eq!(orders.find(1).await.unwrap().unwrap().total_cents, -(890 * 2 + 490));
        assert_eq!(orders.find(2).await.unwrap().unwrap().customer, "");
        assert!(orders.find(999).await.unwrap().is_none());
        assert_eq!(orders.newest(2).await.unwrap().iter().map(|order| order.id).collect::<Vec<_>>(), [14, 13]);
    }

    #[tokio::test]
    async fn a_replaced_database_is_the_one_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("orders.db"), dir.path().join("other.db"));
        create(&path, 1).unwrap();
        create(&other, 5).unwrap();
        let (orders, closed) = Orders::open(path.clone()).unwrap();
        assert_eq!(orders.take(sample("ann"), 100, None).await.unwrap(), 2);
        for suffix in ["", "-wal", "-shm"] {
            let aside = |name: &str| dir.path().join(format!("{name}{suffix}"));
            let _ = fs::rename(aside("orders.db"), aside("aside.db"));
        }
        assert!(matches!(orders.check().await, Err(OrdersError::Gone(_))));
        assert!(!path.exists(), "a missing database is not replaced by an empty one");
        fs::rename(&other, &path).unwrap();
        assert_eq!(orders.take(sample("ann"), 100, None).await.unwrap(), 6);

        // With rows that are so far only in the write-ahead log, which closing the former file must not remove.
        let third = dir.path().join("third.db");
        create(&third, 2).unwrap();
        let writer = Connection::open(&third).unwrap();
        add(&writer, &sample("cem"), 100).unwrap();
        let _ = fs::remove_file(dir.path().join("orders.db-shm"));
        for (from, to) in [("third.db-wal", "orders.db-wal"), ("third.db", "orders.db")] {
            let beside = dir.path().join("beside");
            fs::copy(dir.path().join(from), &beside).unwrap();
            fs::rename(&beside, dir.path().join(to)).unwrap();
        }
        assert_eq!(orders.take(sample("ann"), 100, None).await.unwrap(), 4);

        fs::write(dir.path().join("bad"), b"not a database, whatever its name says").unwrap();
        fs::rename(dir.path().join("bad"), &path).unwrap();
        assert!(matches!(orders.check().await, Err(OrdersError::Database(_))));
        drop(orders);
        closed.await.unwrap();
    }
}
