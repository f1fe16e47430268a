//! Trees, vaults and what is compared.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ripcord_vault::{Label, Manifest, Source, Vault, VaultError, VaultKey};

/// A directory that goes away even when what is in it was made read-only.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    pub fn root(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut open = vec![self.0.path().to_owned()];
        while let Some(directory) = open.pop() {
            let _ = fs::set_permissions(&directory, fs::Permissions::from_mode(0o700));
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(entry.path());
                }
            }
        }
    }
}

pub fn key() -> VaultKey {
    VaultKey::from_text(KEY).unwrap()
}

pub const KEY: &str = "7f3a91c2d4e6b8057f3a91c2d4e6b8057f3a91c2d4e6b8057f3a91c2d4e6b805";

/// A vault in `vault/` of a new directory.
pub fn vault() -> (Scratch, Vault) {
    let scratch = Scratch::new();
    let vault = Vault::open_or_create(&scratch.path("vault"), &key()).unwrap();
    (scratch, vault)
}

pub fn label(capture: &str) -> Label {
    Label {
        app: "shop/prod".into(),
        capture: capture.into(),
        component: "files".into(),
        release: Some("rel-4".into()),
        why: "before the rollback".into(),
    }
}

pub fn bytes(path: &str, bytes: impl Into<Vec<u8>>) -> Source {
    Source::Bytes { path: path.into(), bytes: bytes.into(), mode: 0o640 }
}

pub fn tree(path: &str, root: &Path) -> Source {
    Source::Tree { path: path.into(), root: root.into(), except: Vec::new() }
}

pub fn read(vault: &Vault, manifest: &Manifest, path: &str) -> Result<Vec<u8>, VaultError> {
    let mut out = Vec::new();
    vault.read(manifest, path, &mut out).map(|size| {
        assert_eq!(size, out.len() as u64);
        out
    })
}

/// Bytes that do not compress and do not repeat, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    Noise::new(seed).read_exact(&mut out).unwrap();
    out
}

/// [`noise`] without an end.
pub struct Noise {
    seed: u64,
    at: u64,
}

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self { seed, at: 0 }
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            // splitmix64
            let mut x = (self.seed << 40).wrapping_add(self.at / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let word = (x ^ (x >> 31)).to_le_bytes();
            let part = &word[(self.at % 8) as usize..];
            let length = part.len().min(buffer.len() - filled);
            buffer[filled..filled + length].copy_from_slice(&part[..length]);
            filled += length;
            self.at += length as u64;
        }
        Ok(filled)
    }
}

/// All that can be seen of a tree, by other means than the vault's own: kind and content, mode, time.
///
/// The time of the tree itself is cut to milliseconds: a repository has no place for it, and a manifest not more.
pub fn seen(root: &Path) -> BTreeMap<Vec<u8>, (String, u32, i128)> {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = match () {
            () if meta.is_dir() => {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                "directory".to_owned()
            }
            () if meta.is_symlink() => format!("link {:?}", fs::read_link(&path).unwrap()),
            () => format!("file {}", ripcord_core::Digest::of(&fs::read(&path).unwrap())),
        };
        let time = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        let time = if path == root { time / 1_000_000 * 1_000_000 } else { time };
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_owned();
        all.insert(name, (kind, meta.mode() & 0o7777, time));
    }
    all
}

/// Every file of a kind in the repository.
pub fn files(vault: &Vault, kind: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![vault.repository().join(kind)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

/// The largest pack: the one with the data, not that with the names.
pub fn data_pack(vault: &Vault) -> PathBuf {
    files(vault, "data").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

pub fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}
