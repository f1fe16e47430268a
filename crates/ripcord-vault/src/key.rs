//! The vault's secret: never printed, never in clear in the vault.
//!
//! Its text is also the repository's restic password, so that the text alone is enough on the day Ripcord is lost.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use aes256ctr_poly1305aes::aead::Aead;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::VaultError;
use crate::error::Trying;
use crate::place;

const SHORTEST: usize = 16;
/// Digits of a generated key: 256 bits.
const GENERATED: usize = 64;
const NONCE: usize = 16;

/// Opens a vault. Printed as `[redacted]`, overwritten when dropped.
#[derive(Clone)]
pub struct VaultKey {
    text: String,
}

impl VaultKey {
    /// Takes a generated key (64 or more hexadecimal digits) or a passphrase of at least 16 characters.
    ///
    /// A passphrase is stretched each time a vault is opened, which takes about a third of a second and 128 MB.
    /// # Errors
    /// [`VaultError::BadKey`] when it is shorter, or has a line break or another control character in it, which restic's
    /// prompt could not take.
    pub fn from_text(text: &str) -> Result<Self, VaultError> {
        let bad = |why: &str| Err(VaultError::BadKey { why: why.to_owned() });
        if text.chars().count() < SHORTEST {
            return bad("it has fewer than 16 characters");
        }
        if text.chars().any(char::is_control) {
            return bad("it has a control character in it");
        }
        Ok(Self { text: text.to_owned() })
    }

    /// Makes a new key and leaves it in a file that only its owner can read.
    /// # Errors
    /// [`VaultError::Exists`] when there is such a file: a key is never overwritten.
    pub fn generate_file(path: &Path) -> Result<Self, VaultError> {
        let mut bytes = Zeroizing::new([0; GENERATED / 2]);
        let random = Path::new("/dev/urandom");
        File::open(random).and_then(|mut f| f.read_exact(&mut *bytes)).trying("read random bytes from", random)?;
        let mut text = String::with_capacity(GENERATED);
        bytes.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        let key = Self { text };
        place::new_file(path, 0o600, |file| {
            file.write_all(key.text.as_bytes()).and_then(|()| file.write_all(b"\n")).trying("write", path)
        })?;
        Ok(key)
    }

    /// Reads a key from the first line of a file.
    /// # Errors
    /// [`VaultError::BadKey`] when others than its owner may read the file.
    pub fn from_file(path: &Path) -> Result<Self, VaultError> {
        // Looked at through the open file, so that it cannot be another one than is read.
        let mut file = OpenOptions::new().read(true).custom_flags(nonblocking()).open(path).trying("open", path)?;
        let meta = file.metadata().trying("look at", path)?;
        if !meta.is_file() {
            return Err(VaultError::BadKey { why: format!("{} is not a file", path.display()) });
        }
        if meta.mode() & 0o077 != 0 {
            let why =
                format!("{} can be read by others (mode {:o}; it must be 600)", path.display(), meta.mode() & 0o777);
            return Err(VaultError::BadKey { why });
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).trying("read", path)?;
        Self::from_text(text.lines().next().unwrap_or_default())
    }

    /// The password restic takes.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether guessing it is hopeless without any stretching: only then may something cheap to try be encrypted under it.
    pub(crate) fn is_generated(&self) -> bool {
        let digits = self.text.as_bytes();
        let kinds = (0..=u8::MAX).filter(|b| digits.contains(b)).count();
        // 64 random digits use fewer than ten of the sixteen kinds about once in a billion keys; a typed pattern does easily.
        digits.len() >= GENERATED && digits.iter().all(u8::is_ascii_hexdigit) && kinds >= 10
    }

    /// Encrypts `secret` so that it opens only with this key and only as `what`.
    pub(crate) fn wrap(&self, what: &str, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut wrapped = vec![0; NONCE];
        let random = Path::new("/dev/urandom");
        File::open(random).and_then(|mut f| f.read_exact(&mut wrapped)).trying("read random bytes from", random)?;
        let sealed = self
            .cipher(what)?
            .encrypt(Nonce::from_slice(&wrapped), secret)
            .map_err(|_| VaultError::Internal { what: "the master key could not be wrapped".to_owned() })?;
        wrapped.extend_from_slice(&sealed);
        Ok(wrapped)
    }

    /// The secret [`Self::wrap`] was given; `None` when the key, the purpose or a bit of it is another.
    pub(crate) fn unwrap(&self, what: &str, wrapped: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
        let Some((nonce, sealed)) = wrapped.split_at_checked(NONCE) else { return Ok(None) };
        Ok(self.cipher(what)?.decrypt(Nonce::from_slice(nonce), sealed).ok().map(Zeroizing::new))
    }

    fn cipher(&self, what: &str) -> Result<Aes256CtrPoly1305Aes, VaultError> {
        let mut key = Zeroizing::new([0; 64]);
        for (half, purpose) in key.chunks_exact_mut(32).zip(["encrypt", "authenticate"]) {
            let mut hmac = Hmac::<Sha256>::new_from_slice(self.text.as_bytes())
                .map_err(|_| VaultError::Internal { what: "a key of this length cannot be used".to_owned() })?;
            hmac.update(format!("ripcord vault: {what}: {purpose}").as_bytes());
            half.copy_from_slice(&hmac.finalize().into_bytes());
        }
        Ok(Aes256CtrPoly1305Aes::new(Key::from_slice(&*key)))
    }
}

/// Opening must not wait for a writer when somebody left a pipe at that place.
fn nonblocking() -> i32 {
    rustix::fs::OFlags::NONBLOCK.bits().cast_signed()
}

impl Drop for VaultKey {
    fn drop(&mut self) {
        self.text.zeroize();
    }
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_says_nothing() {
        let key = VaultKey::from_text("correct horse battery staple").unwrap();
        assert_eq!(format!("{key:?}"), "[redacted]");
    }

    #[test]
    fn weak_keys_are_refused_and_typed_ones_are_stretched() {
        assert!(matches!(VaultKey::from_text("fifteen letters"), Err(VaultError::BadKey { .. })));
        assert!(matches!(VaultKey::from_text("sixteen letters\n!"), Err(VaultError::BadKey { .. })));
        assert!(!VaultKey::from_text("correct horse battery staple").unwrap().is_generated());
        assert!(!VaultKey::from_text(&"0123".repeat(16)).unwrap().is_generated());
        assert!(VaultKey::from_text(&"0123456789abcdef".repeat(4)).unwrap().is_generated());
    }

    #[test]
    fn what_is_wrapped_opens_with_the_same_key_and_purpose_only() {
        let key = VaultKey::from_text("correct horse battery staple").unwrap();
        let other = VaultKey::from_text("correct horse battery stapler").unwrap();
        let mut wrapped = key.wrap("test", b"secret").unwrap();
        assert_ne!(wrapped, key.wrap("test", b"secret").unwrap());
        assert_eq!(key.unwrap("test", &wrapped).unwrap().as_deref().map(Vec::as_slice), Some(&b"secret"[..]));
        assert_eq!(other.unwrap("test", &wrapped).unwrap(), None);
        assert_eq!(key.unwrap("other", &wrapped).unwrap(), None);
        assert_eq!(key.unwrap("test", &wrapped[..7]).unwrap(), None);
        wrapped[20] ^= 1;
        assert_eq!(key.unwrap("test", &wrapped).unwrap(), None);
    }

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.key");
        let key = VaultKey::generate_file(&path).unwrap();
        assert!(key.is_generated());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(VaultKey::from_file(&path).unwrap().text(), key.text());
        assert!(matches!(VaultKey::generate_file(&path), Err(VaultError::Exists { .. })));
        assert_eq!(VaultKey::from_file(&path).unwrap().text(), key.text());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(VaultKey::from_file(&path).unwrap_err().to_string().contains("mode 640"));
    }
}
