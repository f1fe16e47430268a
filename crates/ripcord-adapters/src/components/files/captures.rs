//! Captures as the kinds of files use them: made under the component's name, found through the record, checked before use.

use std::fmt::Write as _;
use std::sync::Arc;

use ripcord_core::{
    Available, Before, CaptureId, CaptureRef, ComponentId, Cx, Digest, Failure, HeldIn, Key, Made, ProofLevel, Retry,
    Revision, Wanted, resolve,
};
use ripcord_vault::{Access, Label, Manifest, Source, VaultError};

use crate::BuildCx;

/// Up to here a survey reads a capture back; beyond, it looks whether the vault still lists it, and the plan's proof reads it.
const READ_IN_SURVEY: u64 = 256 << 20;

type Record = Arc<dyn Fn(&CaptureId) -> Option<Made> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Captures {
    component: ComponentId,
    vault: Option<Access>,
    record: Record,
}

pub(crate) fn vault_failure(error: &VaultError) -> Failure {
    let mut what = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let _ = write!(what, ": {cause}");
        source = cause.source();
    }
    let retry = if error.may_pass() { Retry::Later } else { Retry::Never };
    Failure { what, retry, advice: error.advice().map(str::to_owned), output: None }
}

impl Captures {
    pub(crate) fn new(component: &ComponentId, cx: &BuildCx) -> Self {
        Self { component: component.clone(), vault: cx.vault.clone(), record: Arc::clone(&cx.captures) }
    }

    pub(crate) fn component(&self) -> &ComponentId {
        &self.component
    }

    pub(crate) fn vault(&self) -> Result<&Access, Failure> {
        self.vault.as_ref().ok_or_else(|| {
            Failure::never("there is no vault to capture to and restore from")
                .advise("configure `vault:` and make a release, so that there is a capture to go back to")
        })
    }

    /// Stores a capture and returns what proves it: it was read back before this returns.
    pub(crate) fn store(&self, cx: &Cx, key: &Key, why: &str, sources: Vec<Source>) -> Result<Manifest, Failure> {
        let label = Label {
            app: cx.app.to_string(),
            capture: key.to_string(),
            component: self.component.to_string(),
            release: cx.version.clone(),
            why: why.to_owned(),
        };
        self.vault()?.capture(&label, sources).map_err(|error| vault_failure(&error))
    }

    /// The record of the capture a step restores from, if it holds `to`.
    pub(crate) fn find(
        &self,
        from: Option<&CaptureRef>,
        before: &Before,
        to: &Revision,
    ) -> Result<Option<Made>, Failure> {
        let Some(from) = from else { return Ok(None) };
        let id = resolve(from, before)
            .ok_or_else(|| Failure::never("the capture to restore from was never made: its step has no outcome"))?;
        self.recorded(&id, to).map(Some)
    }

    fn recorded(&self, id: &CaptureId, to: &Revision) -> Result<Made, Failure> {
        let made = (self.record)(id)
            .ok_or_else(|| Failure::never(format!("the record knows no capture `{id}`")).advise("choose another"))?;
        match made.revision == *to {
            true => Ok(made),
            false => Err(Failure::never(format!("capture `{id}` holds {}, not {}", made.revision.short(), to.short()))),
        }
    }

    /// The record of what a survey asks for.
    pub(crate) fn wanted(&self, wanted: &Wanted) -> Option<Result<Made, Failure>> {
        wanted.capture.as_ref().map(|id| self.recorded(id, &wanted.revision))
    }

    pub(crate) fn record(&self, id: &CaptureId) -> Option<Made> {
        (self.record)(id)
    }

    /// Whether a capture in the vault can be had.
    pub(crate) fn available(&self, wanted: &Wanted) -> Available {
        let missing = |why: String| Available::Missing { why };
        let Some(id) = &wanted.capture else { return missing("no capture of it was ever made".to_owned()) };
        match self.recorded(id, &wanted.revision).and_then(|made| self.look(&made)) {
            Ok(how) => Available::Here { how: format!("capture {id}, {how}") },
            Err(failure) => missing(failure.what),
        }
    }

    fn look(&self, made: &Made) -> Result<&'static str, Failure> {
        let manifest = manifest(made)?;
        if made.bytes <= READ_IN_SURVEY {
            self.verify(&manifest)?;
            return Ok("read back");
        }
        match self.vault()?.holds(&manifest.snapshot).map_err(|error| vault_failure(&error))? {
            true => Ok("listed by the vault"),
            false => Err(Failure::never("the vault does not hold it any more")),
        }
    }

    /// Reads a capture back, byte for byte.
    pub(crate) fn verify(&self, manifest: &Manifest) -> Result<(), Failure> {
        self.vault()?.verify(manifest).map_err(|error| vault_failure(&error))
    }

    /// The content of one entry in memory: for small files.
    pub(crate) fn bytes(&self, manifest: &Manifest, path: &str) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        self.vault()?.read(manifest, path, &mut bytes).map_err(|error| vault_failure(&error))?;
        Ok(bytes)
    }
}

/// The vault's manifest in a record.
/// # Errors
/// When the capture is held elsewhere, or the record was altered.
pub(crate) fn manifest(made: &Made) -> Result<Manifest, Failure> {
    let HeldIn::Vault { manifest } = &made.held else {
        return Err(Failure::never("the capture is not in the vault"));
    };
    let manifest: Manifest = serde_json::from_value(manifest.clone())
        .map_err(|error| Failure::never(format!("the record of the capture cannot be read: {error}")))?;
    match manifest.tree == made.content {
        true => Ok(manifest),
        false => Err(Failure::never("the record of the capture contradicts itself: its content has another digest")),
    }
}

/// The record of a capture in the vault, read back by it.
pub(crate) fn made(revision: Revision, label: Option<String>, manifest: &Manifest) -> Result<Made, Failure> {
    let held = serde_json::to_value(manifest)
        .map_err(|error| Failure::never(format!("the manifest cannot be written: {error}")))?;
    let content: Digest = manifest.tree;
    let held = HeldIn::Vault { manifest: held };
    Ok(Made { revision, label, held, bytes: manifest.bytes, proof: ProofLevel::ReadBack, content })
}
