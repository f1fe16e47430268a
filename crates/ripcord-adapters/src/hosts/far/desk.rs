//! What an agent may ask for: the secrets that settings of what is on its host name, captures that it was told of, and to have
//! captured what it has. A host that was broken into learns nothing of another's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ripcord_core::{AppId, ComponentId, Fut, HeldIn, HostId, Made, Redactor, SecretRef};
use ripcord_vault::{Contents, Found, Label, Manifest, Outfit, Reading, SnapshotId, Telling, Vault, VaultError};
use serde::Serialize;

use super::pair::{Answers, Peer, Said};
use super::vault::Offering;
use super::words::{Mark, ToController, pack};
use crate::secrets;

/// One connection's.
pub(crate) struct Desk {
    pub(crate) host: HostId,
    pub(crate) app: AppId,
    /// The directory of the configuration: secrets are found from there.
    pub(crate) base: PathBuf,
    pub(crate) redactor: Redactor,
    pub(crate) vault: Option<Vault>,
    pub(crate) secrets: BTreeSet<SecretRef>,
    /// What is on the host.
    pub(crate) components: BTreeSet<ComponentId>,
    pub(crate) handed: Mutex<BTreeMap<SnapshotId, Manifest>>,
    pub(crate) readings: Readings,
}

/// Captures that are being read, by number.
#[derive(Default)]
pub(crate) struct Readings {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Mutex<Reading>>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(what: impl Into<String>) -> VaultError {
    VaultError::Told(Telling { what: what.into(), advice: None, may_pass: false })
}

/// An answer that says how it went, in words that survive the connection.
fn told<T: Serialize>(went: Result<T, VaultError>) -> Result<Said, String> {
    let went = went.map_err(|error| error.tell());
    Ok((serde_json::to_value(&went).map_err(|error| error.to_string())?, vec![]))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(refused(format!("unexpected: {error}"))))
}

impl Answers for Desk {
    fn answer(self: Arc<Self>, peer: Peer, (body, _): Said) -> Fut<'static, Result<Said, String>> {
        Box::pin(async move {
            let ask = serde_json::from_value(body).map_err(|error| format!("it was not understood: {error}"))?;
            match ask {
                ToController::Secret { from } => {
                    let secret = self.secret(&from).await?;
                    Ok((serde_json::Value::String(secret), vec![]))
                }
                ToController::Capture { offer, label, outline } => {
                    let offering = Arc::new(Offering::new(peer, offer));
                    // Whose it is, is not for the host to say.
                    let label = Label { app: self.app.to_string(), ..label };
                    let desk = Arc::clone(&self);
                    let captured = blocking(move || {
                        let manifest = desk.vault()?.capture_offered(&label, outline, offering)?;
                        locked(&desk.handed).insert(manifest.snapshot.clone(), manifest.clone());
                        Ok(manifest)
                    });
                    told(captured.await)
                }
                ToController::Open { snapshot, file } => {
                    let opened = blocking(move || self.open(&snapshot, file.as_deref()));
                    told(opened.await)
                }
                ToController::Next { reading } => match blocking(move || self.next(reading)).await {
                    Ok((marks, bytes)) => {
                        let (body, _) = told(Ok(marks))?;
                        Ok((body, bytes))
                    }
                    Err(error) => told::<Vec<Mark>>(Err(error)),
                },
                ToController::Close { reading } => {
                    locked(&self.readings.open).remove(&reading);
                    told(Ok(()))
                }
                ToController::Verify { snapshot } => {
                    told(blocking(move || self.vault()?.verify(&self.manifest(&snapshot)?)).await)
                }
                ToController::Lists { snapshot } => {
                    let lists = blocking(move || {
                        let snapshot = self.manifest(&snapshot)?.snapshot;
                        Ok(self.vault()?.list()?.iter().any(|found| found.snapshot == snapshot))
                    });
                    told(lists.await)
                }
                ToController::List { component } => told(blocking(move || self.list(&component)).await),
            }
        })
    }
}

impl Desk {
    /// From now on the agent may have this capture.
    pub(crate) fn hand(&self, made: &Made) {
        if let HeldIn::Vault { manifest } = &made.held
            && let Ok(manifest) = serde_json::from_value::<Manifest>(manifest.clone())
        {
            locked(&self.handed).insert(manifest.snapshot.clone(), manifest);
        }
    }

    fn vault(&self) -> Result<&Vault, VaultError> {
        self.vault.as_ref().ok_or_else(|| refused("there is no vault to capture to and restore from"))
    }

    fn manifest(&self, snapshot: &SnapshotId) -> Result<Manifest, VaultError> {
        let found = locked(&self.handed).get(snapshot).cloned();
        found.ok_or_else(|| {
            tracing::warn!(host = %self.host, %snapshot, "a host asked for a capture that is none of its own");
            refused(format!("capture `{snapshot}` is not for `{}`", self.host))
        })
    }

    fn list(&self, component: &str) -> Result<Vec<Found>, VaultError> {
        match self.components.iter().any(|id| id.as_str() == component) {
            true => self.vault()?.list_of(component),
            false => Err(refused(format!("`{component}` is not on `{}`", self.host))),
        }
    }

    async fn secret(&self, from: &SecretRef) -> Result<String, String> {
        if !self.secrets.contains(from) {
            tracing::warn!(host = %self.host, "a host asked for a secret that none of its settings name");
            return Err(format!("no setting of what is on `{}` names this secret", self.host));
        }
        let secret = secrets::resolve(from, &self.base, &self.redactor).await;
        secret.map(|secret| secret.reveal().to_owned()).map_err(|error| secrets::chain(&error))
    }

    fn open(&self, snapshot: &SnapshotId, file: Option<&str>) -> Result<(u64, Vec<Outfit>), VaultError> {
        let (outfits, reading) = self.vault()?.reading(&self.manifest(snapshot)?, file)?;
        let number = self.readings.next.fetch_add(1, Ordering::Relaxed);
        locked(&self.readings.open).insert(number, Arc::new(Mutex::new(reading)));
        Ok((number, outfits))
    }

    fn next(&self, number: u64) -> Result<(Vec<Mark>, Vec<u8>), VaultError> {
        let reading = locked(&self.readings.open).get(&number).cloned();
        let reading = reading.ok_or_else(|| refused("nothing is read under this number"))?;
        let pieces = locked(&reading).next()?;
        Ok(pack(pieces))
    }
}

#[cfg(test)]
mod tests {
    use ripcord_core::{Digest, Name, ProofLevel, Revision};
    use ripcord_vault::{Source, VaultKey};
    use serde_json::Value;
    use tokio::io::duplex;

    use super::super::pair::{Cut, start};
    use super::*;

    const LONG: std::time::Duration = std::time::Duration::from_secs(60);

    struct Nobody;
    impl Answers for Nobody {
        fn answer(self: Arc<Self>, _: Peer, _: Said) -> Fut<'static, Result<Said, String>> {
            Box::pin(async { Err("nobody".to_owned()) })
        }
    }

    /// A desk as one host's agent finds it, with captures of this host and of another in the vault.
    fn desk(dir: &std::path::Path) -> (Peer, Peer, Arc<Desk>, [Manifest; 2]) {
        let key = VaultKey::from_text(&"0123456789abcdef".repeat(4)).unwrap();
        let vault = Vault::open_or_create(&dir.join("vault"), &key).unwrap();
        let capture = |component: &str, text: &str| {
            let label = Label {
                app: "shop/test".into(),
                capture: "cap-1".into(),
                component: component.into(),
                release: None,
                why: String::new(),
            };
            let source = Source::Bytes { path: "file".into(), bytes: text.into(), mode: 0o600 };
            vault.capture(&label, vec![source]).unwrap()
        };
        let captures = [capture("code", "ours"), capture("orders", "theirs")];
        let name = |text: &str| Name::new(text).unwrap();
        let desk = Arc::new(Desk {
            host: "web1".parse().unwrap(),
            app: AppId { application: name("shop"), environment: name("test") },
            base: dir.to_owned(),
            redactor: Redactor::default(),
            vault: Some(vault),
            secrets: [SecretRef::Command(vec!["echo".into(), "swordfish".into()])].into(),
            components: ["code".parse().unwrap()].into(),
            handed: Mutex::default(),
            readings: Readings::default(),
        });
        let (here, there) = duplex(1 << 16);
        let (read, write) = tokio::io::split(here);
        let (near, _) = start(read, write, Arc::clone(&desk) as _, LONG);
        let (read, write) = tokio::io::split(there);
        let (agent, _) = start(read, write, Arc::new(Nobody), LONG);
        (near, agent, desk, captures)
    }

    async fn ask(agent: &Peer, ask: ToController) -> Result<Value, String> {
        let answer = agent.call::<Result<Value, Telling>>(&ask, &[]).await;
        answer.map_err(|cut| cut.to_string())?.0.map_err(|telling| telling.what)
    }

    #[tokio::test]
    async fn a_host_gets_the_secrets_its_settings_name_and_has_nothing_else_run() {
        let dir = tempfile::tempdir().unwrap();
        let (_near, agent, desk, _) = desk(dir.path());
        let secret = async |argv: &[&str]| {
            let from = SecretRef::Command(argv.iter().map(|word| (*word).to_owned()).collect());
            agent.call::<String>(&ToController::Secret { from }, &[]).await.map(|(secret, _)| secret)
        };
        assert_eq!(secret(&["echo", "swordfish"]).await, Ok("swordfish".to_owned()));
        assert_eq!(desk.redactor.clean("swordfish"), "[redacted]");
        let run = dir.path().join("run");
        let refused = secret(&["touch", &run.display().to_string()]).await;
        assert!(
            matches!(&refused, Err(Cut::Refused(why)) if why.contains("no setting of what is on `web1`")),
            "{refused:?}"
        );
        assert!(!run.exists());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_host_reads_the_captures_it_was_told_of_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let (_near, agent, desk, [ours, theirs]) = desk(dir.path());
        let open = |manifest: &Manifest| ToController::Open { snapshot: manifest.snapshot.clone(), file: None };
        let refused = |answer: Result<Value, String>| assert!(answer.unwrap_err().contains("is not for `web1`"));
        refused(ask(&agent, open(&ours)).await);
        let made = Made {
            revision: Revision::Absent,
            label: None,
            held: HeldIn::Vault { manifest: serde_json::to_value(&ours).unwrap() },
            bytes: ours.bytes,
            proof: ProofLevel::ReadBack,
            content: Digest::ZERO,
        };
        desk.hand(&made);
        let opened = ask(&agent, open(&ours)).await.unwrap();
        let reading = opened[0].as_u64().unwrap();
        let (marks, bytes) =
            agent.call::<Result<Vec<Mark>, Telling>>(&ToController::Next { reading }, &[]).await.unwrap();
        assert_eq!((marks.unwrap().len(), bytes.as_slice()), (1, &b"ours"[..]));
        for other in [
            open(&theirs),
            ToController::Verify { snapshot: theirs.snapshot.clone() },
            ToController::Lists { snapshot: theirs.snapshot.clone() },
        ] {
            refused(ask(&agent, other).await);
        }
        let list = async |component: &str| ask(&agent, ToController::List { component: component.into() }).await;
        assert_eq!(list("code").await.unwrap().as_array().unwrap().len(), 1);
        assert_eq!(list("orders").await.unwrap_err(), "`orders` is not on `web1`");
        assert!(ask(&agent, ToController::Next { reading: reading + 1 }).await.is_err());
    }
}
