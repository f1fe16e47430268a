//! Where everything is: the configuration, the state beside it, and the keys that lie there.

use std::fs::{self, DirBuilder};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ripcord_adapters::{Adapters, secrets};
use ripcord_config::Loaded;
use ripcord_core::{Redactor, SecretRef};
use ripcord_vault::{Vault, VaultKey};

use crate::args::Common;
use crate::exit::Exit;
use crate::problem::Problem;

/// The name the configuration is looked for by.
pub const FILE: &str = "ripcord.yaml";
/// The directory of the record, beside the configuration unless said otherwise.
const STATE: &str = ".ripcord";

pub struct Site {
    /// The directory that paths in the configuration are relative to.
    pub base: PathBuf,
    pub state: PathBuf,
    pub loaded: Loaded<Adapters>,
}

impl Site {
    pub fn find(common: &Common) -> Result<Self, Problem> {
        let file = file(common)?;
        let loaded = ripcord_config::load::<Adapters>(&file, common.environment.as_deref())?;
        let base = std::path::absolute(&loaded.base).map_err(|error| Problem::io("find", &loaded.base, &error))?;
        let chosen = std::env::var_os("RIPCORD_STATE").filter(|state| !state.is_empty()).map(PathBuf::from);
        let state = match (chosen, &loaded.state) {
            (Some(state), _) => std::path::absolute(&state).map_err(|error| Problem::io("find", &state, &error))?,
            (None, Some(state)) => base.join(state),
            (None, None) => base.join(STATE),
        };
        Ok(Self { base, state, loaded })
    }

    /// A path of the configuration. What lies in `.ripcord` by default goes where the state goes.
    fn path(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(STATE) {
            Ok(inside) => self.state.join(inside),
            Err(_) => self.base.join(path),
        }
    }

    /// Makes the directory of the state, for this user alone, and keeps it out of version control.
    pub fn make_state(&self) -> Result<(), Problem> {
        if !self.state.exists() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.state);
            made.map_err(|error| Problem::io("create", &self.state, &error))?;
        }
        let ignore = self.state.join(".gitignore");
        if !ignore.exists() {
            // A checkout that is itself a component must not count as changed because the record lies in it.
            fs::write(&ignore, "*\n").map_err(|error| Problem::io("write", &ignore, &error))?;
        }
        Ok(())
    }

    /// The key of revisions of files that may hold secrets; made where there is none yet.
    pub fn revision_key(&self) -> Result<[u8; 32], Problem> {
        let path = self.state.join("revision.key");
        match fs::read(&path) {
            Ok(bytes) => bytes.try_into().map_err(|_| {
                let problem = Problem::new(Exit::Unavailable, format!("`{}` is not a key", path.display()));
                problem.help("put back the file it was: without it no revision of an env file can be recognised")
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => new_key(&path),
            Err(error) => Err(Problem::io("read", &path, &error)),
        }
    }

    /// Whether there is a vault yet.
    pub fn vault_is_there(&self) -> bool {
        self.vault_directory().join("repository").exists()
    }

    pub fn vault_directory(&self) -> PathBuf {
        self.path(&self.loaded.vault.directory)
    }

    /// Opens the vault; makes it, and a key where none is configured, when it is first needed.
    pub async fn open_vault(&self, redactor: &Redactor) -> Result<Vault, Problem> {
        let directory = self.vault_directory();
        let key = self.vault_key(redactor).await?;
        let opened = tokio::task::spawn_blocking(move || Vault::open_or_create(&directory, &key)).await;
        let opened = opened
            .map_err(|error| Problem::new(Exit::Internal, "the vault was not opened").cause(error.to_string()))?;
        Ok(opened?)
    }

    async fn vault_key(&self, redactor: &Redactor) -> Result<VaultKey, Problem> {
        let from = &self.loaded.vault.key;
        if let SecretRef::File(path) = from {
            let (ours, path) = (path.starts_with(STATE), self.path(path));
            // A key of ours is made once. Where a vault is there and its key is not, another key would open nothing.
            return match ours && !path.exists() && !self.vault_is_there() {
                true => Ok(VaultKey::generate_file(&path)?),
                false => Ok(VaultKey::from_file(&path)?),
            };
        }
        let secret = secrets::resolve(from, &self.base, redactor).await;
        let secret =
            secret.map_err(|error| Problem::from_error(Exit::Unavailable, "the vault's key cannot be had", &error))?;
        Ok(VaultKey::from_text(secret.reveal())?)
    }
}

/// The file named, or the nearest one upwards.
pub fn file(common: &Common) -> Result<PathBuf, Problem> {
    if let Some(file) = &common.file {
        return Ok(file.clone());
    }
    let here = std::env::current_dir()
        .map_err(|error| Problem::new(Exit::Usage, "this directory cannot be read").cause(error.to_string()))?;
    let found = here.ancestors().map(|directory| directory.join(FILE)).find(|file| file.is_file());
    found.ok_or_else(|| {
        Problem::new(Exit::Usage, format!("there is no `{FILE}` in this directory or above it"))
            .place(here.display().to_string())
            .help("`ripcord init` writes one; `--file` names another")
    })
}

fn new_key(path: &Path) -> Result<[u8; 32], Problem> {
    let mut key = [0; 32];
    let random = Path::new("/dev/urandom");
    fs::File::open(random)
        .and_then(|mut file| file.read_exact(&mut key))
        .map_err(|error| Problem::io("read", random, &error))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    // Whole or not there: half a key would make every later revision another one.
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&key)?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Ok(_) => fs::File::open(directory)?.sync_all().map(|()| key),
            // Another process was first: its key is the key.
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                let bytes = fs::read(path)?;
                bytes.try_into().map_err(|_| std::io::ErrorKind::InvalidData.into())
            }
            Err(error) => Err(error.error),
        }
    };
    write().map_err(|error| Problem::io("write", path, &error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_for_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revision.key");
        let key = new_key(&path).unwrap();
        assert_eq!(new_key(&path).unwrap(), key, "the second finds the first");
        assert_eq!(fs::read(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
