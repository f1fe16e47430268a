//! What lies where in a shop's directory, and laying a new one out.
//!
//! Files that others read while they change (`.env`, `flags.json`, a release's files, the process file) are written
//! beside and renamed, so that a reader sees the old or the new, never a part.
use super::{ShopError, orders};
use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The paths of one shop. Holds no open file and promises nothing about what exists.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    pub fn env(&self) -> PathBuf {
        self.dir.join(".env")
    }
    pub fn flags(&self) -> PathBuf {
        self.dir.join("flags.json")
    }
    pub fn database(&self) -> PathBuf {
        self.dir.join("orders.db")
    }
    pub fn releases(&self) -> PathBuf {
        self.dir.join("releases")
    }
    /// The symbolic link to the release that the next start will serve.
    pub fn current(&self) -> PathBuf {
        self.dir.join("current")
    }
    pub fn log(&self) -> PathBuf {
        self.dir.join("logs/shop.log")
    }
    /// Pid, start time and port of the server process.
    pub fn process(&self) -> PathBuf {
        self.dir.join("run/shop.pid")
    }
    /// Locked by the server process for as long as it lives.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("run/shop.lock")
    }
    /// Exists while maintenance is on.
    pub fn maintenance(&self) -> PathBuf {
        self.dir.join("run/maintenance")
    }
    pub fn stdout(&self) -> PathBuf {
        self.dir.join("run/shop.out")
    }
    pub fn stderr(&self) -> PathBuf {
        self.dir.join("run/shop.err")
    }
}

/// Lays out a shop in `dir`, with a new admin token and `orders` orders from before the story begins.
///
/// There is no release yet: see [`write_release`](super::write_release) and [`switch`](super::switch).
/// # Errors
/// [`ShopError::AlreadyLaidOut`] when settings or orders are there: neither is ever overwritten.
pub fn init_dir(dir: &Path, orders: u32) -> Result<Layout, ShopError> {
    let layout = Layout::new(dir);
    if layout.env().exists() || layout.database().exists() {
        return Err(ShopError::AlreadyLaidOut { dir: dir.to_owned() });
    }
    for folder in ["logs", "run", "releases"] {
        let path = dir.join(folder);
        fs::create_dir_all(&path).map_err(ShopError::file("create", &path))?;
    }
    write_whole(&layout.env(), env_text(&new_token()?).as_bytes(), 0o600)?;
    write_whole(&layout.flags(), b"{\n  \"max_quantity\": 20,\n  \"free_shipping\": false\n}\n", 0o644)?;
    let path = layout.database();
    orders::create(&path, orders).map_err(|source| ShopError::Database { path, source })?;
    Ok(layout)
}

fn env_text(token: &str) -> String {
    format!(
        "# Settings of the shop, read when it starts: a change is in force after a restart.\n\
         \n\
         # Opens /admin and, in the header X-Internal, the shop itself during maintenance.\n\
         ADMIN_TOKEN={token}\n\
         \n\
         # Takes payment and stock in one step. Switch off if checkout misbehaves.\n\
         FAST_CHECKOUT=true\n"
    )
}

fn new_token() -> Result<String, ShopError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 32];
    File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).map_err(ShopError::file("read", path))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Replaces `path` in one step, durably.
pub(super) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ShopError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        // The rename is in the folder, not in the file: only this makes it survive a power cut.
        File::open(folder)?.sync_all()
    };
    write().map_err(ShopError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shop_is_laid_out_once_and_its_token_is_its_own() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (root.path().join("one"), root.path().join("two"));
        let layout = init_dir(&one, 3).unwrap();
        init_dir(&two, 0).unwrap();
        let settings = fs::read_to_string(layout.env()).unwrap();
        assert_ne!(settings, fs::read_to_string(two.join(".env")).unwrap(), "two shops, two tokens");
        assert_eq!(fs::metadata(layout.env()).unwrap().permissions().mode() & 0o777, 0o600);

        assert!(matches!(init_dir(&one, 3), Err(ShopError::AlreadyLaidOut { .. })));
        assert_eq!(fs::read_to_string(layout.env()).unwrap(), settings, "refused means untouched");
    }
}
