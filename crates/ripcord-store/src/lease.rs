//! Leases: who may write, judged by the store's clock and fenced by an epoch.
//!
//! The epoch rises whenever the lease changes hands and is compared inside every append, so a holder that slept through its time
//! cannot write, whatever any clock says. The clock only decides when somebody else may take over:
//!
//! - a step forward ends a lease early; its holder is fenced, or renews if nobody came;
//! - a step back would keep a dead holder's lease for the length of the step. A lease that seems to have more than twice its time
//!   left is therefore free to be taken;
//! - an expiry that was acted on is written down, so that no step back brings the lease to life again.
//!
//! SQLite has no clock of its own: the store's clock there is the host's.

use std::time::Duration;

use ripcord_core::{Epoch, Holder, Lease, LeaseOn, Predecessor};
use serde::{Deserialize, Serialize};

/// A lease as stored. Times are seconds of the store's clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LeaseRow {
    pub holder: Option<Holder>,
    pub epoch: u64,
    pub expires: f64,
    pub ttl: f64,
}

/// Whether an append under a lease is let through.
#[derive(Debug, PartialEq)]
pub(crate) enum Admitted {
    Yes,
    No,
    /// Its time is over: to be written down as [`LeaseRow::lapsed`] before saying so.
    TooLate,
}

impl LeaseRow {
    /// The row after `holder` asked for the lease, and what is known of whoever had it; or whoever has it. `gone` says of a holder
    /// that it certainly lives no more: its lease is not waited out.
    pub fn take(
        row: Option<&Self>,
        holder: &Holder,
        ttl: Duration,
        now: f64,
        gone: impl FnOnce(&Holder) -> bool,
    ) -> Result<(Self, Predecessor), Holder> {
        let ttl = ttl.as_secs_f64();
        let (epoch, by) = row.map_or((0, None), |row| (row.epoch, row.holder.as_ref()));
        let (epoch, before) = match by {
            None => (epoch + 1, Predecessor::None),
            Some(by) if by.incarnation == holder.incarnation => (epoch, Predecessor::None),
            Some(by) if gone(by) => (epoch + 1, Predecessor::Gone(by.clone())),
            Some(by) if row.is_some_and(|row| row.stands(now)) => return Err(by.clone()),
            Some(by) => (epoch + 1, Predecessor::Lapsed(by.clone())),
        };
        Ok((Self { holder: Some(holder.clone()), epoch, expires: now + ttl, ttl }, before))
    }

    /// The row after a renewal; none when somebody else has it or it was let go. A lease that lapsed unnoticed is renewed: nobody
    /// came in between, or the epoch would differ.
    pub fn renewed(&self, lease: &Lease, now: f64) -> Option<Self> {
        let ttl = lease.ttl.as_secs_f64();
        self.is(lease).then(|| Self { expires: now + ttl, ttl, ..self.clone() })
    }

    /// The row after its holder let go; none when it is not the holder any more.
    pub fn released(&self, lease: &Lease) -> Option<Self> {
        self.is(lease).then(|| Self { holder: None, expires: 0.0, ..self.clone() })
    }

    pub fn lapsed(&self) -> Self {
        Self { expires: 0.0, ..self.clone() }
    }

    pub fn admits(&self, lease: &Lease, now: f64) -> Admitted {
        match self.is(lease) {
            false => Admitted::No,
            true if now < self.expires => Admitted::Yes,
            true => Admitted::TooLate,
        }
    }

    /// Whoever has it now.
    pub fn standing(&self, now: f64) -> Option<&Holder> {
        self.holder.as_ref().filter(|_| self.stands(now))
    }

    fn is(&self, lease: &Lease) -> bool {
        self.epoch == lease.epoch.0
            && self.holder.as_ref().is_some_and(|holder| holder.incarnation == lease.holder.incarnation)
    }

    fn stands(&self, now: f64) -> bool {
        now < self.expires && self.expires - now <= 2.0 * self.ttl
    }

    pub fn lease(&self, on: &LeaseOn, holder: &Holder, before: Predecessor) -> Lease {
        let ttl = Duration::try_from_secs_f64(self.ttl).unwrap_or_default();
        Lease { on: on.clone(), holder: holder.clone(), epoch: Epoch(self.epoch), ttl, before }
    }
}

#[cfg(test)]
mod tests {
    use ripcord_core::Actor;

    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    fn holder(incarnation: &str) -> Holder {
        Holder { incarnation: incarnation.into(), actor: Actor::Policy, pid: 1, doing: "ripcord watch".into() }
    }

    fn taken(row: Option<&LeaseRow>, by: &str, now: f64) -> LeaseRow {
        LeaseRow::take(row, &holder(by), TTL, now, |_| false).unwrap().0
    }

    /// Who keeps `b` out.
    fn refused(row: &LeaseRow, now: f64) -> Option<Holder> {
        LeaseRow::take(Some(row), &holder("b"), TTL, now, |_| false).err()
    }

    fn lease(row: &LeaseRow) -> Lease {
        row.lease(&LeaseOn::Vault("v".into()), row.holder.as_ref().unwrap(), Predecessor::None)
    }

    #[test]
    fn a_change_of_hands_raises_the_epoch_and_nothing_else_does() {
        let a = taken(None, "a", 100.0);
        assert_eq!(a.epoch, 1);
        assert_eq!(refused(&a, 114.9), Some(holder("a")));
        assert_eq!(taken(Some(&a), "a", 110.0).epoch, 1);
        assert_eq!(taken(Some(&a), "a", 200.0).epoch, 1, "nobody came in between");
        let b = taken(Some(&a), "b", 115.0);
        assert_eq!(b.epoch, 2);
        assert_eq!((b.admits(&lease(&a), 116.0), b.renewed(&lease(&a), 116.0)), (Admitted::No, None));
        let free = b.released(&lease(&b)).unwrap();
        assert_eq!(taken(Some(&free), "b", 117.0).epoch, 3);
    }

    #[test]
    fn a_step_back_of_the_clock_brings_no_lease_back_to_life() {
        let a = taken(None, "a", 100.0);
        assert_eq!(a.admits(&lease(&a), 116.0), Admitted::TooLate);
        let a = a.lapsed();
        assert_eq!(a.admits(&lease(&a), 90.0), Admitted::TooLate);
        assert_eq!(a.standing(90.0), None);
        assert_eq!(taken(Some(&a), "b", 90.0).epoch, 2);
    }

    #[test]
    fn a_step_back_of_the_clock_keeps_nobody_out() {
        let a = taken(None, "a", 10_000.0);
        assert!(refused(&a, 9_999.0).is_some(), "a small correction is no reason");
        assert_eq!(taken(Some(&a), "b", 5_000.0).epoch, 2);
        // Its holder goes on meanwhile, and the next renewal counts by the new time.
        assert_eq!(a.admits(&lease(&a), 5_000.0), Admitted::Yes);
        let a = a.renewed(&lease(&a), 5_000.0).unwrap();
        assert!(refused(&a, 5_001.0).is_some());
    }
}
