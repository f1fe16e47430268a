//! The one place the engine asks what time it is, so that a simulation can answer instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Wall time for the record; waiting always goes by the runtime's monotonic time.
#[derive(Debug, Clone)]
pub enum Clock {
    System,
    /// Wall time derived from the runtime's own, which a test may pause, plus a step that a test may change.
    Simulated {
        began: Timestamp,
        base: Instant,
        stepped_ms: Arc<AtomicI64>,
    },
}

impl Clock {
    pub fn simulated(began: Timestamp) -> Self {
        Self::Simulated { began, base: Instant::now(), stepped_ms: Arc::new(AtomicI64::new(0)) }
    }

    pub fn now(&self) -> Timestamp {
        match self {
            // Milliseconds are what the record keeps; finer digits would make equal moments unequal once read back.
            Self::System => to_ms(Timestamp::now()),
            Self::Simulated { began, base, stepped_ms } => {
                let step = jiff::SignedDuration::from_millis(stepped_ms.load(Ordering::SeqCst));
                to_ms(ripcord_core::after(*began, base.elapsed()).checked_add(step).unwrap_or(*began))
            }
        }
    }

    /// How long until `when`; nothing where it has passed.
    pub fn until(&self, when: Timestamp) -> Duration {
        ripcord_core::between(self.now(), when)
    }
}

fn to_ms(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}
