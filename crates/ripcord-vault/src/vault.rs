//! Opening a vault.
//!
//! Layout: `repository/` is a restic repository and nothing else; `master.key` its master key, encrypted under the vault's;
//! `lock` says who may change it; `suspects` names packs that gave back something wrong.
//!
//! The repository has one password: the text of the vault's key. That takes a third of a second and 128 MB to stretch, so a
//! generated key, which needs no stretching, also opens the master key directly. A passphrase never gets that short cut.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustic_core::repofile::{IndexFile, IndexId, MasterKey};
use rustic_core::{
    ConfigOptions, Credentials, FileType, Id, IndexedFullStatus, IndexedIdsStatus, KeyOptions, OpenStatus, ReadBackend,
    Repository, RepositoryBackends, RepositoryOptions, RusticResult,
};
use zeroize::Zeroizing;

use crate::directory::Directory;
use crate::error::{Trying, guarded};
use crate::lock::{self, Lock, PATIENCE, Sharing};
use crate::{VaultError, VaultKey, place};

/// Captures of an application, safe in one directory. Cheap to clone; all calls block.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    master: MasterKey,
    /// Which packs each index file names, and how long they are. An index file never changes; it is read once.
    named: Mutex<HashMap<Id, Vec<(Id, u32)>>>,
}

/// Packs are written, fsynced and held in memory whole, several at a time: small ones keep memory flat, and do not grow with
/// the repository, as the library's would.
const PACK_SIZE: &str = "8 MiB";
/// Fast: what a capture costs in time, an incident pays; what it costs in space, deduplication mostly saves.
const COMPRESSION: i32 = 1;
const WRAPPED: &str = "master key";

impl Vault {
    /// Opens the vault at `directory`, or creates it where there is none.
    /// # Errors
    /// [`VaultError::WrongKey`]; [`VaultError::NotAVault`] when the directory holds something else.
    pub fn open_or_create(directory: &Path, key: &VaultKey) -> Result<Self, VaultError> {
        guarded(|| {
            if !is_created(directory)? {
                create(directory, key)?;
            }
            Self::open_created(directory, key)
        })
    }

    /// Opens the vault at `directory`.
    /// # Errors
    /// [`VaultError::WrongKey`]; [`VaultError::NotAVault`] when there is none.
    pub fn open(directory: &Path, key: &VaultKey) -> Result<Self, VaultError> {
        guarded(|| match is_created(directory)? {
            true => Self::open_created(directory, key),
            false => Err(VaultError::NotAVault { directory: directory.to_owned(), why: "it holds no repository" }),
        })
    }

    /// Where plain restic finds the repository: `restic -r <this> snapshots`, with the text of the key as password.
    pub fn repository(&self) -> PathBuf {
        repository(&self.0.directory)
    }

    fn open_created(directory: &Path, key: &VaultKey) -> Result<Self, VaultError> {
        let vault = |master| Self(Arc::new(Inner { directory: directory.to_owned(), master, named: Mutex::default() }));
        if let Some(vault) = wrapped(directory, key)?.map(vault)
            && vault.open_with(&Arc::new(vault.files())).is_ok()
        {
            return Ok(vault);
        }
        // No short cut, or a damaged or foreign one: the password decides.
        let files = Arc::new(Directory::new(repository(directory)));
        let opened = unopened(&files).and_then(|repository| repository.open(&Credentials::password(key.text())));
        let opened = opened.map_err(|error| match error.is_incorrect_password() {
            true => VaultError::WrongKey { directory: directory.to_owned() },
            false => files.explain(&error),
        })?;
        let master = opened.key();
        if key.is_generated()
            && let Err(error) = wrap(directory, key, &master)
        {
            tracing::debug!(%error, "the master key could not be kept for a faster opening");
        }
        Ok(vault(master))
    }

    pub(crate) fn files(&self) -> Directory {
        Directory::new(self.repository())
    }

    /// The repository through `files`, which remember what goes wrong.
    pub(crate) fn open_with(&self, files: &Arc<Directory>) -> Result<Repository<OpenStatus>, VaultError> {
        unopened(files)
            .and_then(|repository| repository.open(&Credentials::Masterkey(self.0.master.clone())))
            .map_err(|error| files.explain(&error))
    }

    pub(crate) fn lock(&self, sharing: Sharing) -> Result<Lock, VaultError> {
        let patience = match sharing {
            Sharing::Shared => PATIENCE,
            Sharing::Alone => std::time::Duration::ZERO,
        };
        lock::take(&self.0.directory.join("lock"), sharing, patience)
    }

    /// What is needed to tell known blobs from new ones, counting on sound packs only.
    pub(crate) fn known(&self, files: Directory) -> Result<(Repository<IndexedIdsStatus>, Arc<Directory>), VaultError> {
        self.indexed(files, Repository::to_indexed_ids, Repository::to_indexed_ids_checked)
    }

    /// What is needed to read, counting on sound packs only.
    pub(crate) fn readable(&self) -> Result<(Repository<IndexedFullStatus>, Arc<Directory>), VaultError> {
        self.indexed(self.files(), Repository::to_indexed, Repository::to_indexed_checked)
    }

    /// What is needed to read, counting on every pack the index names.
    pub(crate) fn readable_at_all(&self) -> Result<(Repository<IndexedFullStatus>, Arc<Directory>), VaultError> {
        self.indexed_by(Arc::new(self.files()), Repository::to_indexed)
    }

    /// Where every pack is sound, the plain index serves. Where one is not, the library is shown the sound ones only: then new
    /// captures store again what the others held, and readers prefer the copy.
    fn indexed<S>(
        &self,
        files: Directory,
        plain: impl FnOnce(Repository<OpenStatus>) -> RusticResult<Repository<S>>,
        checked: impl FnOnce(Repository<OpenStatus>) -> RusticResult<Repository<S>>,
    ) -> Result<(Repository<S>, Arc<Directory>), VaultError> {
        match self.sound_packs()? {
            None => self.indexed_by(Arc::new(files), plain),
            Some(sound) => self.indexed_by(Arc::new(files.listing_only(sound)), checked),
        }
    }

    fn indexed_by<S>(
        &self,
        files: Arc<Directory>,
        index: impl FnOnce(Repository<OpenStatus>) -> RusticResult<Repository<S>>,
    ) -> Result<(Repository<S>, Arc<Directory>), VaultError> {
        let indexed = index(self.open_with(&files)?).map_err(|error| files.explain(&error))?;
        Ok((indexed, files))
    }

    /// The packs that are as long as the index says and not suspected; `None` when that is all of them.
    fn sound_packs(&self) -> Result<Option<BTreeSet<Id>>, VaultError> {
        let files = Arc::new(self.files());
        let explain = |error: Box<rustic_core::RusticError>| files.explain(&error);
        let suspects = self.suspects()?;
        let mut named = self.0.named.lock().unwrap_or_else(PoisonError::into_inner);
        let listed: BTreeSet<Id> = files.list(FileType::Index).map_err(explain)?.into_iter().collect();
        named.retain(|index, _| listed.contains(index));
        let new: Vec<&Id> = listed.iter().filter(|index| !named.contains_key(*index)).collect();
        if !new.is_empty() {
            let repository = self.open_with(&files)?;
            for id in new {
                let index: IndexFile = repository.get_file(&IndexId::from(*id)).map_err(explain)?;
                let packs = index.packs.iter().map(|pack| (pack.id.into_inner(), pack.pack_size())).collect();
                named.insert(*id, packs);
            }
        }
        let (mut sound, mut all) = (BTreeSet::new(), true);
        for (id, size) in named.values().flatten() {
            let there = files.pack_size(id).map_err(explain)? == Some(u64::from(*size));
            match there && !suspects.contains(id) {
                true => _ = sound.insert(*id),
                false => all = false,
            }
        }
        Ok((!all).then_some(sound))
    }

    /// Packs that gave back something wrong.
    pub(crate) fn suspects(&self) -> Result<BTreeSet<Id>, VaultError> {
        let path = self.suspects_path();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            text => text.trying("read", &path)?,
        };
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Notes a pack that gave back something wrong, so that nothing new counts on it.
    pub(crate) fn suspect(&self, pack: &Id) {
        let path = self.suspects_path();
        let line = format!("{}\n", pack.to_hex().as_str());
        let noted = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        // Where the vault cannot be written, nothing new can come to count on it either.
        match noted.and_then(|mut file| file.write_all(line.as_bytes()).and_then(|()| file.sync_all())) {
            Ok(()) => tracing::warn!(pack = pack.to_hex().as_str(), "a pack of the vault is damaged"),
            Err(error) => {
                tracing::warn!(pack = pack.to_hex().as_str(), %error, "a pack is damaged and could not be noted")
            }
        }
    }

    pub(crate) fn suspects_path(&self) -> PathBuf {
        self.0.directory.join("suspects")
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0.directory
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("directory", &self.0.directory).finish_non_exhaustive()
    }
}

fn repository(directory: &Path) -> PathBuf {
    directory.join("repository")
}

fn unopened(files: &Arc<Directory>) -> RusticResult<Repository<()>> {
    // Without a cache: it would be a second copy of our data outside the vault.
    let options = RepositoryOptions::default().no_cache(true);
    Repository::new(&options, &RepositoryBackends::new(Arc::clone(files) as _, None))
}

fn is_created(directory: &Path) -> Result<bool, VaultError> {
    let config = repository(directory).join("config");
    config.try_exists().trying("look at", &config)
}

/// The config is written last: without it there is no vault, and whatever an interrupted creation left is made anew.
fn create(directory: &Path, key: &VaultKey) -> Result<(), VaultError> {
    let refused = |why| Err(VaultError::NotAVault { directory: directory.to_owned(), why });
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).trying("create", directory)?;
    for entry in fs::read_dir(directory).trying("list", directory)? {
        let name = entry.trying("list", directory)?.file_name();
        if !["lock", "repository", "master.key"].iter().any(|ours| name == *ours) {
            return refused("it holds something else");
        }
    }
    rustix::fs::chmod(directory, rustix::fs::Mode::RWXU).trying("set the mode of", directory)?;
    let _lock = lock::take(&directory.join("lock"), Sharing::Alone, PATIENCE)?;
    if is_created(directory)? {
        return Ok(());
    }
    let at = repository(directory);
    if fs::read_dir(at.join("snapshots")).is_ok_and(|mut snapshots| snapshots.next().is_some()) {
        return refused("its repository has captures, but its `config` is gone");
    }
    if at.try_exists().trying("look at", &at)? {
        fs::remove_dir_all(&at).trying("remove", &at)?;
    }
    let files = Arc::new(Directory::new(at));
    let mut options = ConfigOptions::default().set_version(2_u32).set_compression(COMPRESSION);
    options = options.set_datapack_growfactor(0_u32);
    options.set_datapack_size = PACK_SIZE.parse().ok();
    let made = unopened(&files)
        .and_then(|repository| repository.init(&Credentials::password(key.text()), &KeyOptions::default(), &options));
    made.map_err(|error| files.explain(&error))?;
    place::sync_directory(directory)?;
    place::sync_directory(place::parent(directory))
}

/// The master key, when the vault's key opens it directly.
fn wrapped(directory: &Path, key: &VaultKey) -> Result<Option<MasterKey>, VaultError> {
    let path = directory.join("master.key");
    if !key.is_generated() {
        return Ok(None);
    }
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.trying("read", &path)?,
    };
    let opened = key.unwrap(WRAPPED, &bytes)?;
    Ok(opened.and_then(|json| serde_json::from_slice(&json).ok()))
}

fn wrap(directory: &Path, key: &VaultKey, master: &MasterKey) -> Result<(), VaultError> {
    let path = directory.join("master.key");
    let json = serde_json::to_vec(master).map(Zeroizing::new);
    let json = json.map_err(|error| VaultError::Internal { what: error.to_string() })?;
    let bytes = key.wrap(WRAPPED, &json)?;
    place::file(&path, 0o600, |file| file.write_all(&bytes).trying("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_is_shared_between_threads() {
        fn shared<T: Clone + Send + Sync + 'static>() {}
        shared::<Vault>();
    }

    #[test]
    fn an_opened_vault_shows_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let key = VaultKey::from_text(&"0123456789abcdef".repeat(4)).unwrap();
        let vault = Vault::open_or_create(dir.path(), &key).unwrap();
        assert_eq!(format!("{vault:?}"), format!("Vault {{ directory: {:?}, .. }}", dir.path()));
    }
}
