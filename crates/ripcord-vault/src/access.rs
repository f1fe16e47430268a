//! A vault from wherever it is used: beside it, or from a machine that only may ask for what concerns it.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Trying, guarded};
use crate::reading::Distant;
use crate::restore::{self, Near};
use crate::{Contents, Found, Label, Manifest, Offer, Outfit, SnapshotId, Source, Vault, VaultError};

/// What a component needs of a vault. Cheap to clone; all calls block.
///
/// Promises are the same on both sides: a capture was read back before it counts, and what is restored was compared with its
/// manifest by the machine that writes it.
#[derive(Clone)]
pub enum Access {
    Here(Vault),
    Far(Arc<dyn Far>),
}

/// A capture opened from afar: an outfit for each entry but the root, and the contents of its files.
pub type Opened = (Vec<Outfit>, Box<dyn Contents>);

/// A vault that is elsewhere, and has the key there.
pub trait Far: Send + Sync {
    fn capture(&self, label: &Label, offer: Offer) -> Result<Manifest, VaultError>;
    /// A whole capture, or one of its files.
    fn open(&self, snapshot: &SnapshotId, file: Option<&str>) -> Result<Opened, VaultError>;
    fn verify(&self, snapshot: &SnapshotId) -> Result<(), VaultError>;
    fn holds(&self, snapshot: &SnapshotId) -> Result<bool, VaultError>;
    fn list(&self, component: &str) -> Result<Vec<Found>, VaultError>;
}

impl From<Vault> for Access {
    fn from(vault: Vault) -> Self {
        Self::Here(vault)
    }
}

impl Access {
    /// As [`Vault::capture`].
    pub fn capture(&self, label: &Label, sources: Vec<Source>) -> Result<Manifest, VaultError> {
        match self {
            Self::Here(vault) => vault.capture(label, sources),
            Self::Far(far) => far.capture(label, guarded(|| Offer::of(sources))?),
        }
    }

    /// As [`Vault::verify`]: read back by the vault, byte for byte.
    pub fn verify(&self, manifest: &Manifest) -> Result<(), VaultError> {
        match self {
            Self::Here(vault) => vault.verify(manifest),
            Self::Far(far) => far.verify(&manifest.snapshot),
        }
    }

    /// Whether the vault lists a capture; nothing is read of it.
    pub fn holds(&self, snapshot: &SnapshotId) -> Result<bool, VaultError> {
        match self {
            Self::Here(vault) => Ok(vault.list()?.iter().any(|found| found.snapshot == *snapshot)),
            Self::Far(far) => far.holds(snapshot),
        }
    }

    /// As [`Vault::list`], of one component.
    pub fn list(&self, component: &str) -> Result<Vec<Found>, VaultError> {
        match self {
            Self::Here(vault) => vault.list_of(component),
            Self::Far(far) => far.list(component),
        }
    }

    /// As [`Vault::restore`].
    pub fn restore(&self, manifest: &Manifest, into: &Path) -> Result<(), VaultError> {
        guarded(|| match self {
            Self::Here(vault) => restore::whole(manifest, into, || Near::whole(vault, manifest)),
            Self::Far(far) => {
                restore::whole(manifest, into, || Distant::whole(manifest, far.open(&manifest.snapshot, None)?))
            }
        })
    }

    /// As [`Vault::restore_file`].
    pub fn restore_file(
        &self,
        manifest: &Manifest,
        path: &str,
        to: &Path,
        mode: Option<u32>,
    ) -> Result<(), VaultError> {
        guarded(|| match self {
            Self::Here(vault) => restore::file(manifest, path, to, mode, || Near::one(vault, manifest, path)),
            Self::Far(far) => restore::file(manifest, path, to, mode, || {
                Distant::one(manifest, path, far.open(&manifest.snapshot, Some(path))?)
            }),
        })
    }

    /// As [`Vault::read`].
    pub fn read(&self, manifest: &Manifest, path: &str, out: &mut dyn Write) -> Result<u64, VaultError> {
        let pass = |bytes: &[u8]| out.write_all(bytes).trying("pass on", Path::new(path));
        guarded(|| match self {
            Self::Here(vault) => restore::bytes(manifest, || Near::one(vault, manifest, path), pass),
            Self::Far(far) => {
                let open = || Distant::one(manifest, path, far.open(&manifest.snapshot, Some(path))?);
                restore::bytes(manifest, open, pass)
            }
        })
    }
}
