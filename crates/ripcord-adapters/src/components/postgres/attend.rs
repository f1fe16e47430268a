//! One work of ours on a database at a time, from wherever it is done: a lock on the server that ends with our session.
//!
//! It keeps our own works apart and nothing more; who may begin a step at all is the journal's to say.

use std::time::Duration;

use ripcord_core::Failure;
use tokio::time::Instant;

use super::Desk;

/// The first half of the lock's number: `ripc`.
const OURS: i32 = 0x7269_7063;

impl Desk {
    /// Waits until no other work of ours is under way on the database; it is ours until the desk is dropped.
    pub(super) async fn attend(&self, patience: Duration) -> Result<(), Failure> {
        let digest = ripcord_core::Digest::of(self.database().as_bytes());
        let number = u32::from_str_radix(&digest.hex()[..8], 16).unwrap_or_default().cast_signed();
        let (deadline, mut pause) = (Instant::now() + patience, Duration::from_millis(5));
        loop {
            let row = self.control.query_one("SELECT pg_try_advisory_lock($1, $2)", &[&OURS, &number]).await;
            if row.map_err(crate::postgres::PgError::from)?.get(0) {
                return Ok(());
            }
            if Instant::now() + pause >= deadline {
                return Err(Failure::later(format!(
                    "another work on the database `{}` is not done yet",
                    self.database()
                )));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }
}
