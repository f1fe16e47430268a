//! How a bad release misbehaves, request by request.
//!
//! Chance is a function of the request's number, so that a share holds in any stretch of a few dozen requests and a
//! story told twice goes the same way twice.
use super::Fault;
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const FAILING_FAST: f64 = 0.6;
/// Without FAST_CHECKOUT fewer orders fail, but far more than any trigger tolerates: the toggle must not be enough.
const FAILING_SLOW: f64 = 0.3;
/// Well above one in twenty, so that the 95th percentile is a slow request.
const DAWDLING: f64 = 0.2;
const KEPT_PER_ORDER: usize = 256 * 1024;
/// The leak shows long before this, and the machine that runs the demonstration must survive it.
const KEPT_AT_MOST: usize = 512 * 1024 * 1024;

/// The misbehaviour of one server process.
pub(super) struct Mischief {
    fault: Fault,
    fast_checkout: bool,
    orders: AtomicU64,
    visits: AtomicU64,
    kept: Mutex<Vec<Vec<u8>>>,
}

/// What happens to one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checkout {
    Works,
    Fails,
    /// Works, and damages an earlier order in this way.
    Damages(Damage),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Total,
    Customer,
}

impl Mischief {
    pub(super) fn new(fault: Fault, fast_checkout: bool) -> Self {
        let (orders, visits, kept) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::default());
        Self { fault, fast_checkout, orders, visits, kept }
    }

    /// Decides on the next order.
    pub(super) fn checkout(&self) -> Checkout {
        let number = self.orders.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::Checkout if falls(number, if self.fast_checkout { FAILING_FAST } else { FAILING_SLOW }) => {
                Checkout::Fails
            }
            Fault::CorruptsData if number.is_multiple_of(2) => Checkout::Damages(Damage::Total),
            Fault::CorruptsData => Checkout::Damages(Damage::Customer),
            Fault::Leak => {
                self.keep();
                Checkout::Works
            }
            Fault::None | Fault::Checkout | Fault::Slow | Fault::Crash => Checkout::Works,
        }
    }

    /// How long the next request is held up before the shop looks at it.
    pub(super) fn delay(&self) -> Option<Duration> {
        if self.fault != Fault::Slow {
            return None;
        }
        let number = self.visits.fetch_add(1, Ordering::Relaxed);
        falls(number, DAWDLING).then(|| Duration::from_millis(2_100 + number % 8 * 50))
    }

    fn keep(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() * KEPT_PER_ORDER < KEPT_AT_MOST {
            // Not zero: pages that nobody wrote to are not resident.
            kept.push(vec![1; KEPT_PER_ORDER]);
        }
    }
}

/// Whether request `number` falls in `share` of all requests.
///
/// Multiples of the golden ratio, modulo one, spread more evenly than chance does (Knuth, The Art of Computer
/// Programming, 6.4), so the share holds over short stretches too.
fn falls(number: u64, share: f64) -> bool {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let spot = number.wrapping_mul(GOLDEN) as f64 / u64::MAX as f64;
    spot < share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_hold_over_any_short_stretch() {
        for share in [DAWDLING, FAILING_SLOW, FAILING_FAST] {
            for start in [0_u64, 17, 1_000_000] {
                let hits = (start..start + 50).filter(|number| falls(*number, share)).count() as f64;
                assert!((hits / 50.0 - share).abs() <= 0.06, "share {share} from {start}: {hits} of 50");
            }
        }
        assert!(!falls(5, 0.0));
    }

    #[test]
    fn each_fault_does_only_its_own_harm() {
        let count = |fault, fast, wanted| {
            let mischief = Mischief::new(fault, fast);
            (0..200).filter(|_| mischief.checkout() == wanted).count()
        };
        assert_eq!(count(Fault::None, true, Checkout::Works), 200);
        assert_eq!(count(Fault::Slow, true, Checkout::Works), 200);
        assert!((114..=126).contains(&count(Fault::Checkout, true, Checkout::Fails)));
        assert!((54..=66).contains(&count(Fault::Checkout, false, Checkout::Fails)));
        assert_eq!(count(Fault::CorruptsData, true, Checkout::Damages(Damage::Total)), 100);
        assert_eq!(count(Fault::CorruptsData, true, Checkout::Damages(Damage::Customer)), 100);
        assert_eq!(Mischief::new(Fault::Checkout, true).delay(), None);
        let slow = Mischief::new(Fault::Slow, true);
        let delays: Vec<_> = (0..200).filter_map(|_| slow.delay()).collect();
        assert!((34..=46).contains(&delays.len()) && delays.iter().all(|delay| delay.as_secs_f64() > 2.0));
    }
}
