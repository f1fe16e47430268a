//! The vault as an agent uses it, and, on the side of the vault, the contents of what an agent has to be captured.
//!
//! All of it is called from threads that may block; the one before the last question is always asked ahead of its time, so that a
//! content goes by without a pause for the way there and back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use ripcord_vault::{
    Contents, Far, Found, Giver, Label, Manifest, Offer, Opened, Outfit, Piece, SnapshotId, Telling, VaultError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use super::pair::{Cut, Peer};
use super::words::{Mark, ToAgent, ToController, unpack};

/// Asks from a thread that may block. What is returned is asked for at once and waited for later.
#[derive(Clone)]
struct Asking {
    peer: Peer,
    runtime: Handle,
}

type Told<A> = Result<(A, Vec<u8>), VaultError>;

impl Asking {
    fn ask<A: DeserializeOwned + Send + 'static>(
        &self,
        ask: impl Serialize + Send + Sync + 'static,
    ) -> mpsc::Receiver<Told<A>> {
        let (tell, told) = mpsc::sync_channel(1);
        let peer = self.peer.clone();
        self.runtime.spawn(async move {
            let answer = peer.call::<Result<A, Telling>>(&ask, &[]).await;
            let answer = match answer {
                Ok((Ok(answer), bytes)) => Ok((answer, bytes)),
                Ok((Err(telling), _)) => Err(VaultError::Told(telling)),
                Err(cut) => Err(broken(&cut)),
            };
            // Nobody may want it any more.
            let _ = tell.send(answer);
        });
        told
    }

    fn asked<A: DeserializeOwned + Send + 'static>(&self, ask: impl Serialize + Send + Sync + 'static) -> Told<A> {
        heard(&self.ask(ask))
    }
}

fn heard<A>(told: &mpsc::Receiver<Told<A>>) -> Told<A> {
    told.recv().unwrap_or_else(|_| Err(broken(&Cut::Midway)))
}

fn broken(cut: &Cut) -> VaultError {
    let (what, may_pass) = match cut {
        Cut::Refused(why) => (why.clone(), false),
        Cut::Before | Cut::Midway => (format!("the vault cannot be reached: {cut}"), true),
    };
    VaultError::Told(Telling { what, advice: None, may_pass })
}

fn garbled() -> VaultError {
    VaultError::Told(Telling { what: "contents came garbled".to_owned(), advice: None, may_pass: false })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this agent has to be captured, by number, while it is being captured.
#[derive(Default)]
pub(crate) struct Offers {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Offer>>>,
}

impl Offers {
    pub(crate) fn find(&self, number: u64) -> Result<Arc<Offer>, String> {
        locked(&self.open).get(&number).cloned().ok_or_else(|| "nothing is offered under this number".to_owned())
    }
}

/// The controller's vault, from an agent.
pub(crate) struct Distant {
    asking: Asking,
    offers: Arc<Offers>,
}

impl Distant {
    /// Called within the runtime that the connection lives on.
    pub(crate) fn new(peer: Peer, offers: Arc<Offers>) -> Self {
        Self { asking: Asking { peer, runtime: Handle::current() }, offers }
    }
}

impl Far for Distant {
    fn capture(&self, label: &Label, offer: Offer) -> Result<Manifest, VaultError> {
        let number = self.offers.next.fetch_add(1, Ordering::Relaxed);
        let outline = offer.entries().to_vec();
        locked(&self.offers.open).insert(number, Arc::new(offer));
        let captured = self.asking.asked(ToController::Capture { offer: number, label: label.clone(), outline });
        locked(&self.offers.open).remove(&number);
        captured.map(|(manifest, _)| manifest)
    }

    fn open(&self, snapshot: &SnapshotId, file: Option<&str>) -> Result<Opened, VaultError> {
        let ask = ToController::Open { snapshot: snapshot.clone(), file: file.map(str::to_owned) };
        let ((reading, outfits), _) = self.asking.asked::<(u64, Vec<Outfit>)>(ask)?;
        let ahead = self.asking.ask(ToController::Next { reading });
        Ok((outfits, Box::new(Coming { asking: self.asking.clone(), reading, ahead })))
    }

    fn verify(&self, snapshot: &SnapshotId) -> Result<(), VaultError> {
        self.asking.asked(ToController::Verify { snapshot: snapshot.clone() }).map(|((), _)| ())
    }

    fn holds(&self, snapshot: &SnapshotId) -> Result<bool, VaultError> {
        self.asking.asked(ToController::Lists { snapshot: snapshot.clone() }).map(|(holds, _)| holds)
    }

    fn list(&self, component: &str) -> Result<Vec<Found>, VaultError> {
        self.asking.asked(ToController::List { component: component.to_owned() }).map(|(found, _)| found)
    }
}

/// A capture on its way here.
struct Coming {
    asking: Asking,
    reading: u64,
    ahead: mpsc::Receiver<Told<Vec<Mark>>>,
}

impl Contents for Coming {
    fn next(&mut self) -> Result<Vec<Piece>, VaultError> {
        let (marks, bytes) = heard(&self.ahead)?;
        if !marks.is_empty() {
            self.ahead = self.asking.ask(ToController::Next { reading: self.reading });
        }
        unpack(&marks, &bytes).ok_or_else(garbled)
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        let (peer, reading) = (self.asking.peer.clone(), self.reading);
        self.asking.runtime.spawn(async move { peer.tell(&ToController::Close { reading }).await });
    }
}

/// What an agent offers, as the vault asks for it.
pub(crate) struct Offering {
    asking: Asking,
    offer: u64,
    /// The next pieces of large contents.
    ahead: Mutex<HashMap<usize, mpsc::Receiver<Told<Vec<Mark>>>>>,
}

impl Offering {
    /// Called within the runtime that the connection lives on.
    pub(crate) fn new(peer: Peer, offer: u64) -> Self {
        Self { asking: Asking { peer, runtime: Handle::current() }, offer, ahead: Mutex::default() }
    }
}

impl Giver for Offering {
    fn give(&self, numbers: &[usize]) -> Result<Vec<Piece>, VaultError> {
        let ask = |numbers: &[usize]| self.asking.ask(ToAgent::Give { offer: self.offer, numbers: numbers.to_vec() });
        let ahead = match numbers {
            [one] => locked(&self.ahead).remove(one),
            _ => None,
        };
        let (marks, bytes) = heard(&ahead.unwrap_or_else(|| ask(numbers)))?;
        let pieces = unpack(&marks, &bytes).ok_or_else(garbled)?;
        if let ([one], [Piece { last: false, .. }]) = (numbers, pieces.as_slice()) {
            locked(&self.ahead).insert(*one, ask(&[*one]));
        }
        Ok(pieces)
    }

    fn settled(&self) -> Result<(), VaultError> {
        self.asking.asked(ToAgent::Settled { offer: self.offer }).map(|((), _)| ())
    }
}
