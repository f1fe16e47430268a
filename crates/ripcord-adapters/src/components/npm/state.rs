//! What is there, what a capture holds, and whether one is the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ripcord_core::{Digest, Failure, Made, Revision};
use ripcord_vault::{Manifest, Source};
use serde::{Deserialize, Serialize};

use super::lock::Lock;
use super::{Digests, MODULES};
use crate::components::files::captures::{self, Captures, vault_failure};
use crate::components::files::{FileError, Trying, meta};
use crate::components::tree;

/// Where things lie in a capture.
const PACKAGE: &str = "package.json";
const LOCK: &str = "lock.json";
const ABOUT: &str = "about.json";
const OUTPUTS: &str = "outputs";
/// What a restore leaves in modules it installed: the revision they and the outputs beside them are of.
const STAMP: &str = ".ripcord-revision";

/// What belongs to the component.
pub(super) struct Names {
    pub(super) directory: PathBuf,
    pub(super) lock: String,
    /// The outputs other than the modules.
    pub(super) built: Vec<String>,
    pub(super) sources: Vec<String>,
    /// Whether a restore builds those outputs; else the vault has them.
    pub(super) builds: bool,
    /// Whether packages for development are installed.
    pub(super) dev: bool,
}

pub(super) enum Present {
    Absent,
    At { revision: Revision, packages: usize },
    Between(String),
}

impl Present {
    pub(super) fn is(&self, revision: &Revision) -> bool {
        match self {
            Self::Absent => *revision == Revision::Absent,
            Self::At { revision: is, .. } => is == revision,
            Self::Between(_) => false,
        }
    }
}

/// All that makes a revision.
#[derive(Debug, Serialize)]
struct Identity {
    package: Digest,
    lock: Digest,
    outputs: Digests,
    sources: Digests,
}

impl Identity {
    fn revision(&self) -> Revision {
        Revision::exact(Digest::of_value(self).to_string())
    }
}

/// What a capture says beside its files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct About {
    node: Option<String>,
    sources: Digests,
    outputs: Digests,
}

/// What is to be there.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) revision: Revision,
    /// By name in the directory; none where nothing of that name is to be there.
    pub(super) files: BTreeMap<String, Option<Vec<u8>>>,
    pub(super) outputs: Digests,
    sources: Digests,
    lock: Option<Lock>,
    pub(super) packages: usize,
    pub(super) manifest: Option<Manifest>,
}

impl Names {
    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, FileError> {
        let path = self.at(name);
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).trying("read", &path),
        }
    }

    fn digests(&self, names: &[String]) -> Result<Digests, Failure> {
        let of = |name: &String| {
            let revision = tree::revision(&self.at(name), &[]).map_err(|error| vault_failure(&error))?;
            Ok((name.clone(), revision))
        };
        names.iter().map(of).collect()
    }

    /// The outputs whose content belongs to the revision.
    fn kept(&self) -> &[String] {
        if self.builds { &[] } else { &self.built }
    }

    fn identity(&self, package: &[u8], lock: &[u8]) -> Result<Identity, Failure> {
        Ok(Identity {
            package: Digest::of(package),
            lock: Digest::of(lock),
            outputs: self.digests(self.kept())?,
            sources: self.digests(&self.sources)?,
        })
    }

    pub(super) fn present(&self) -> Result<Present, Failure> {
        let (package, bytes) = match (self.read(PACKAGE)?, self.read(&self.lock)?) {
            (None, None) => return Ok(Present::Absent),
            (Some(package), Some(lock)) => (package, lock),
            (Some(_), None) => return Ok(Present::Between(format!("there is no {}", self.lock))),
            (None, Some(_)) => return Ok(Present::Between(format!("there is no {PACKAGE}"))),
        };
        let lock = match Lock::read(&bytes) {
            Ok(lock) => lock,
            Err(why) => return Ok(Present::Between(why)),
        };
        if let Some(why) = lock.differs(&self.at(MODULES), self.dev) {
            return Ok(Present::Between(why));
        }
        Ok(Present::At { revision: self.identity(&package, &bytes)?.revision(), packages: lock.len() })
    }

    /// Whether a restore of ours said that the modules and outputs are of this revision.
    pub(super) fn stamped(&self, revision: &Revision) -> bool {
        stamp(&self.at(MODULES)) == Some(revision.clone())
    }

    /// What a capture is made of.
    pub(super) fn sources(&self, node: Option<&str>) -> Result<Vec<Source>, Failure> {
        let about = About {
            node: node.map(str::to_owned),
            sources: self.digests(&self.sources)?,
            outputs: self.digests(self.kept())?,
        };
        let bytes = serde_json::to_vec(&about).map_err(|error| Failure::never(error.to_string()))?;
        let mut sources = vec![Source::Bytes { path: ABOUT.to_owned(), bytes, mode: 0o600 }];
        for (path, name) in [(PACKAGE, PACKAGE), (LOCK, self.lock.as_str())] {
            if let Some(is) = meta(&self.at(name))? {
                use std::os::unix::fs::MetadataExt;
                let bytes = self.read(name)?.unwrap_or_default();
                sources.push(Source::Bytes { path: path.to_owned(), bytes, mode: is.mode() & 0o7777 });
            }
        }
        for name in self.kept() {
            let (path, root) = (format!("{OUTPUTS}/{name}"), self.at(name));
            match meta(&root)? {
                None => {}
                Some(is) if is.is_file() => sources.push(Source::File { path, from: root }),
                Some(_) => sources.push(Source::Tree { path, root, except: vec![] }),
            }
        }
        Ok(sources)
    }

    pub(super) fn is_built(&self, name: &str) -> bool {
        self.built.iter().any(|built| built == name)
    }

    /// All names that are exchanged, the modules first: what reads them finds the rest by them.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        let built = self.built.iter().map(String::as_str);
        std::iter::once(MODULES).chain(built).chain([PACKAGE, self.lock.as_str()])
    }
}

fn stamp(modules: &Path) -> Option<Revision> {
    let text = fs::read_to_string(modules.join(STAMP)).ok()?;
    Some(Revision::exact(text.trim()))
}

impl Target {
    /// Nothing of it is to be there.
    pub(super) fn nothing() -> Self {
        Self {
            revision: Revision::Absent,
            files: BTreeMap::new(),
            outputs: BTreeMap::new(),
            sources: BTreeMap::new(),
            lock: None,
            packages: 0,
            manifest: None,
        }
    }

    /// What a capture holds, once it was shown to be what it is said to be.
    pub(super) fn captured(names: &Names, captures: &Captures, made: &Made) -> Result<Self, Failure> {
        let manifest = captures::manifest(made)?;
        let read = |path: &str| captures.bytes(&manifest, path);
        let about: About = serde_json::from_slice(&read(ABOUT)?)
            .map_err(|error| Failure::never(format!("the capture cannot be read: {error}")))?;
        let (package, bytes) = (read(PACKAGE)?, read(LOCK)?);
        let lock = Lock::read(&bytes).map_err(Failure::never)?;
        let (package_is, lock_is) = (Digest::of(&package), Digest::of(&bytes));
        let identity = Identity {
            package: package_is,
            lock: lock_is,
            outputs: about.outputs.clone(),
            sources: about.sources.clone(),
        };
        let is = identity.revision();
        if is != made.revision {
            let what = format!("the capture holds {}, not {}", is.short(), made.revision.short());
            return Err(
                Failure::never(what).advise("choose another capture; were `outputs` or `sources` changed since?")
            );
        }
        let packages = lock.len();
        let files = [(PACKAGE.to_owned(), Some(package)), (names.lock.clone(), Some(bytes))].into();
        Ok(Self {
            revision: is,
            files,
            outputs: about.outputs,
            sources: about.sources,
            lock: Some(lock),
            packages,
            manifest: Some(manifest),
        })
    }

    /// Refuses while what the install and the build read is not this revision's.
    pub(super) fn sources_are_there(&self, names: &Names) -> Result<(), Failure> {
        let now = names.digests(&names.sources)?;
        let other = self.sources.iter().find(|(name, is)| now.get(*name) != Some(is));
        match other {
            None => Ok(()),
            // Another component of the same plan may be about to put it there.
            Some((name, _)) => Err(Failure::later(format!("`{name}` is not what it was in that release"))
                .advise("put the code back first: the component that holds it must be among the `needs`")),
        }
    }

    /// Whether what lies at `path` is what this name is to be.
    pub(super) fn is(&self, names: &Names, name: &str, path: &Path) -> bool {
        if self.revision == Revision::Absent {
            return meta(path).is_ok_and(|meta| meta.is_none());
        }
        if name == MODULES {
            let installed = self.lock.as_ref().is_some_and(|lock| lock.differs(path, names.dev).is_none());
            let stamped = !names.builds || stamp(path).as_ref() == Some(&self.revision);
            return installed && stamped;
        }
        if let Some(bytes) = self.files.get(name) {
            return fs::read(path).ok() == *bytes;
        }
        match self.outputs.get(name) {
            Some(revision) => tree::revision(path, &[]).is_ok_and(|is| is == *revision),
            // What is to be built is not known before it is.
            None => false,
        }
    }

    /// In what modules that were just installed differ from the lock.
    pub(super) fn modules_differ(&self, names: &Names, modules: &Path) -> Option<String> {
        self.lock.as_ref().and_then(|lock| lock.differs(modules, names.dev))
    }

    pub(super) fn mode_of(&self, name: &str, names: &Names) -> u32 {
        let path = if name == names.lock { LOCK } else { name };
        self.manifest.as_ref().and_then(|manifest| manifest.entry(path)).map_or(0o644, |entry| entry.mode)
    }

    /// Says in modules that were installed what they and the outputs beside them are of.
    pub(super) fn stamp(&self, modules: &Path) -> Result<(), FileError> {
        let Revision::Exact(id) = &self.revision else { return Ok(()) };
        let path = modules.join(STAMP);
        fs::write(&path, format!("{}\n", id.0)).trying("write", &path)
    }

    /// Where an output lies in what the vault gives back, where it has it.
    pub(super) fn output_in(whole: &Path, name: &str) -> PathBuf {
        whole.join(OUTPUTS).join(name)
    }
}
