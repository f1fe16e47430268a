//! Captures in the vault, as the record knows them: read back, and forgotten when nothing needs them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use ripcord_core::{AppId, Body, CaptureId, CaptureRow, HeldIn, Name, RunState, StoreError, retention};
use ripcord_vault::{Keep, Manifest, SnapshotId, Vault, VaultError};

use crate::World;
use crate::desk::{Desk, Stop};

/// The vault, and whose captures are in it.
#[derive(Clone)]
pub struct Shelf {
    pub vault: Vault,
    /// Every environment of the application: their captures lie in one vault.
    pub environments: Vec<Name>,
}

/// What reading a capture back has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Whole,
    Spoiled { why: String },
}

/// Which captures may go, and the snapshots that stay.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judged {
    pub go: Vec<CaptureRow>,
    pub stay: BTreeSet<SnapshotId>,
}

/// Why nothing can be said of a capture, or nothing be forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system itself keeps it, under this name.
    #[error("{capture} is not in the vault")]
    Elsewhere { capture: CaptureId, name: String },
    #[error("the record of {capture} cannot be read: {why}")]
    Unreadable { capture: CaptureId, why: String },
    #[error("the vault's work broke off: {why}")]
    Broke { why: String },
    #[error(transparent)]
    Stopped(#[from] Stop),
}

/// A capture that no journal knows may be on its way into one for this long.
const ON_ITS_WAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

impl Shelf {
    /// Reads a capture back, on a thread of its own that nobody has to wait for: reading changes nothing, so it may end with the
    /// process.
    pub async fn read_back(&self, row: &CaptureRow) -> Result<Found, ShelfError> {
        let (manifest, vault) = (manifest(row)?, self.vault.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        let reading = std::thread::Builder::new().name("ripcord-read-back".to_owned()).spawn(move || {
            // Nobody listens any more where whoever asked was stopped.
            let _ = tell.send(vault.verify(&manifest));
        });
        reading.map_err(|error| ShelfError::Broke { why: error.to_string() })?;
        match told.await.map_err(|_| ShelfError::Broke { why: "its thread has ended".to_owned() })? {
            Ok(()) => Ok(Found::Whole),
            // Only what is about the capture itself says anything about it.
            Err(error @ (VaultError::Damaged { .. } | VaultError::Missing { .. } | VaultError::BadManifest { .. })) => {
                Ok(Found::Spoiled { why: error.to_string() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What may go by the policy, and what stays: also what the other environments have in the same vault.
    pub async fn judged(&self, world: &World, now: Timestamp) -> Result<Judged, ShelfError> {
        let app = world.app();
        let rows = world.store.captures(app).await?;
        let ledger = world.store.ledger(app).await?;
        let runs = world.store.runs(app, usize::MAX >> 1).await?;
        let open = runs.into_iter().filter(|row| !matches!(row.state, RunState::Ended(_))).map(|row| row.id).collect();
        let keep = world.application.policy.keep_captures;
        let mut judged = Judged::default();
        for (row, kept) in retention(&rows, &ledger, &open, keep, now) {
            match (&row.made.held, kept) {
                (HeldIn::System { .. }, _) => {}
                (HeldIn::Vault { .. }, Some(_)) => drop(judged.stay.insert(manifest(row)?.snapshot)),
                (HeldIn::Vault { .. }, None) => judged.go.push(row.clone()),
            }
        }
        for environment in self.environments.iter().filter(|name| **name != app.environment) {
            let other = AppId { application: app.application.clone(), environment: environment.clone() };
            for row in world.store.captures(&other).await?.iter().filter(|row| !row.pruned) {
                if let HeldIn::Vault { .. } = row.made.held {
                    judged.stay.insert(manifest(row)?.snapshot);
                }
            }
        }
        Ok(judged)
    }

    /// Forgets what may go, and puts that on the record; also gives back the space of what was forgotten a day ago. Returns what
    /// went, and how many bytes a later call will give back.
    ///
    /// Under the lease: nobody may begin to need a capture meanwhile.
    pub async fn forget(&self, desk: &Desk) -> Result<(Vec<CaptureRow>, u64), ShelfError> {
        let began = desk.now();
        let Judged { go, mut stay } = self.judged(&desk.world, began).await?;
        let going = go.iter().map(|row| manifest(row).map(|it| it.snapshot)).collect::<Result<BTreeSet<_>, _>>()?;
        let vault = self.vault.clone();
        let pruning = tokio::task::spawn_blocking(move || {
            let on_its_way = |at: Timestamp| ripcord_core::between(at, began) < ON_ITS_WAY;
            let found = vault.list()?;
            stay.extend(
                found.into_iter().filter(|f| !going.contains(&f.snapshot) && on_its_way(f.at)).map(|f| f.snapshot),
            );
            // A capture begun since then is in no list, and is kept for its age.
            vault.prune(&Keep::AndSince(stay, began))
        });
        let pruned = pruning.await.map_err(|error| ShelfError::Broke { why: error.to_string() })??;
        let gone: Vec<CaptureId> = go.iter().map(|row| row.id.clone()).collect();
        desk.write(|_, entry| {
            for capture in gone {
                entry.event(None, None, Body::Pruned { capture });
            }
        })
        .await?;
        Ok((go, pruned.marked))
    }
}

/// What the vault knows a capture by.
pub fn manifest(row: &CaptureRow) -> Result<Manifest, ShelfError> {
    match &row.made.held {
        HeldIn::Vault { manifest } => serde_json::from_value(manifest.clone())
            .map_err(|error| ShelfError::Unreadable { capture: row.id.clone(), why: error.to_string() }),
        HeldIn::System { name } => Err(ShelfError::Elsewhere { capture: row.id.clone(), name: name.clone() }),
    }
}
