//! The closed door: while maintenance is on, customers get 503 and nobody but the keeper of the token gets in.
//!
//! The state is a file, so that it outlives the process: a shop that is restarted during a rollback must not open its
//! doors by itself. Closing waits for the customers who are inside.
use super::{EnvFile, Layout, ShopError, layout::write_whole};
use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

/// An empty or trivial token would open the door to anybody who sends an empty header.
const TOKEN_AT_LEAST: usize = 16;

/// The admin token. It has no `Debug` and no `Display`: it is compared, never shown.
pub(super) struct Token(String);

impl Token {
    pub(super) fn from_env(env: &EnvFile, layout: &Layout) -> Result<Self, ShopError> {
        match env.value("ADMIN_TOKEN") {
            Some(token) if token.len() >= TOKEN_AT_LEAST => Ok(Self(token.to_owned())),
            _ => Err(ShopError::NoToken { path: layout.env(), at_least: TOKEN_AT_LEAST }),
        }
    }

    /// Takes the same time wherever the first difference is; only the length, which is no secret, shows.
    pub(super) fn is(&self, offered: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(offered).into()
    }
}

pub(super) struct Maintenance {
    marker: PathBuf,
    enabled: AtomicBool,
    inside: AtomicUsize,
}

/// A customer inside the shop.
pub(super) struct Visit<'a>(&'a Maintenance);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Maintenance {
    pub(super) fn new(marker: PathBuf) -> Self {
        let enabled = AtomicBool::new(marker.exists());
        Self { marker, enabled, inside: AtomicUsize::new(0) }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::SeqCst)
    }

    pub(super) fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }

    /// Lets a customer in, or not.
    pub(super) fn admit(&self) -> Option<Visit<'_>> {
        // Counted before the door is looked at: whoever closes it and then counts none inside cannot have missed one.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let visit = Visit(self);
        (!self.is_enabled()).then_some(visit)
    }

    /// Closes the door, durably first: a crash in between errs on the closed side.
    pub(super) fn enable(&self) -> Result<(), ShopError> {
        write_whole(&self.marker, b"on\n", 0o644)?;
        self.enabled.store(true, Ordering::SeqCst);
        Ok(())
    }

    pub(super) fn disable(&self) -> Result<(), ShopError> {
        let remove = || match fs::remove_file(&self.marker) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.marker.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()),
        };
        remove().map_err(ShopError::file("remove", &self.marker))?;
        self.enabled.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Waits until nobody is inside; says whether that came true in time.
    pub(super) async fn emptied(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        while self.inside() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_nothing_else() {
        let layout = Layout::new("/nowhere");
        let token = Token::from_env(&EnvFile::parse("ADMIN_TOKEN=0123456789abcdef"), &layout).ok().unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for other in ["", "0123456789abcdeF", "0123456789abcde", "0123456789abcdef0", " 0123456789abcdef"] {
            assert!(!token.is(other.as_bytes()), "{other:?}");
        }
        for unusable in ["", "ADMIN_TOKEN=", "ADMIN_TOKEN=short"] {
            assert!(matches!(Token::from_env(&EnvFile::parse(unusable), &layout), Err(ShopError::NoToken { .. })));
        }
    }

    #[tokio::test]
    async fn the_door_stays_closed_over_a_restart_and_waits_for_those_inside() {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("maintenance");
        let door = Maintenance::new(marker.clone());
        let visit = door.admit().unwrap();
        door.enable().unwrap();
        door.enable().unwrap();
        assert!(door.admit().is_none() && door.inside() == 1);
        assert!(!door.emptied(Duration::from_millis(20)).await, "somebody is inside");
        drop(visit);
        assert!(door.emptied(Duration::from_secs(10)).await);

        let restarted = Maintenance::new(marker.clone());
        assert!(restarted.admit().is_none() && restarted.inside() == 0);
        restarted.disable().unwrap();
        restarted.disable().unwrap();
        assert!(restarted.admit().is_some() && Maintenance::new(marker).admit().is_some());
    }
}
