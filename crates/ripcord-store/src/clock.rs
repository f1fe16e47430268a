//! The store's clock: seconds since 1970, by which leases expire and requests are dated.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Another clock than the host's: the simulator's.
pub type Clock = Arc<dyn Fn() -> f64 + Send + Sync>;

pub(crate) fn host() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// To the millisecond: a 64-bit float has no more to give that would mean anything.
pub(crate) fn timestamp(seconds: f64) -> Timestamp {
    // Saturates, which is the right answer for a clock that says nonsense.
    Timestamp::from_millisecond((seconds * 1000.0).round() as i64).unwrap_or(Timestamp::MAX)
}
