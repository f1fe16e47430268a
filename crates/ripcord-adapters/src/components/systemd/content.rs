//! The files that make a unit what it is, as content: its own file and its drop-ins, where this machine's administrator keeps them.
//!
//! A unit file of a package is the package's: it is named, and neither captured nor written. A link is kept as the link it is: what
//! it leads to belongs to whoever put it there.
//! Source: systemd.unit(5), "Unit File Load Path"; drop-ins of a template serve its instances.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use ripcord_core::{Digest, Failure, Revision};
use ripcord_vault::{Manifest, Source};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::components::files::captures::Captures;
use crate::components::files::{FileError, Halt, Live, Trying, meta, point, remove_file, replace, sync};
use crate::systemd::Unit;

/// Where what a capture holds is listed.
const LIST: &str = "unit.json";

/// By path below the unit directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content(BTreeMap<String, Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    File { bytes: Vec<u8>, mode: u32 },
    Link(PathBuf),
}

/// How a part stands in a capture; the bytes of a file are an entry of their own.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Listed {
    File,
    Link(PathBuf),
}

/// The names below the unit directory where a unit's drop-ins lie.
fn drop_in_directories(unit: &str) -> Vec<String> {
    let mut names = vec![format!("{unit}.d")];
    if let (Some((stem, instance)), Some((_, kind))) = (unit.split_once('@'), unit.rsplit_once('.'))
        && !instance.starts_with('.')
    {
        names.push(format!("{stem}@.{kind}.d"));
    }
    names
}

/// The names a unit's own file may have.
fn fragments(unit: &str) -> Vec<String> {
    drop_in_directories(unit).into_iter().map(|name| name.trim_end_matches(".d").to_owned()).collect()
}

impl Content {
    pub(super) fn of(directory: &Path, unit: &str) -> Result<Self, FileError> {
        let mut parts = BTreeMap::new();
        for name in fragments(unit) {
            parts.extend(Part::of(&directory.join(&name))?.map(|part| (name, part)));
        }
        for name in drop_in_directories(unit) {
            let below = directory.join(&name);
            if !meta(&below)?.is_some_and(|meta| meta.is_dir()) {
                continue;
            }
            let names = fs::read_dir(&below).and_then(|list| list.map(|e| e.map(|e| e.file_name())).collect());
            let names: Vec<_> = names.trying("list", &below)?;
            for file in names.into_iter().filter_map(|name| name.into_string().ok()).filter(|name| is_drop_in(name)) {
                parts.extend(Part::of(&below.join(&file))?.map(|part| (format!("{name}/{file}"), part)));
            }
        }
        Ok(Self(parts))
    }

    /// The identity of the files together. A unit file may hold secrets (`Environment=`), so it is a keyed hash.
    pub(super) fn revision(&self, key: &[u8; 32]) -> Result<Revision, Failure> {
        if self.0.is_empty() {
            return Ok(Revision::Absent);
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| Failure::never(error.to_string()))?;
        let mut put = |bytes: &[u8]| {
            // Each with its length before it, so that no two lists of parts are one text.
            mac.update(&(bytes.len() as u64).to_be_bytes());
            mac.update(bytes);
        };
        for (path, part) in &self.0 {
            put(path.as_bytes());
            match part {
                Part::File { bytes, mode } => {
                    put(format!("{mode:o}").as_bytes());
                    put(bytes);
                }
                Part::Link(to) => put(to.as_os_str().as_encoded_bytes()),
            }
        }
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Revision::exact(format!("hmac:{hex}")))
    }

    /// Whether some of it was put there since systemd looked what there is, which its own `NeedDaemonReload` does not tell: that
    /// compares the times of the files it has read, and the first drop-in of a unit is not among them.
    pub(super) fn is_unread(&self, unit: &Unit) -> bool {
        if unit.load != "loaded" {
            return false;
        }
        // An empty file or a link to nothing takes another's place and need not be listed.
        let plain = |part: &Part| matches!(part, Part::File { bytes, .. } if !bytes.is_empty());
        let of_a_package = |path: &String| path.starts_with("/usr/") || path.starts_with("/lib/");
        self.0.iter().filter(|(_, part)| plain(part)).any(|(name, _)| match name.contains('/') {
            true => !unit.drop_ins.iter().any(|path| path.ends_with(&format!("/{name}"))),
            false => unit.fragment.as_ref().is_some_and(of_a_package),
        })
    }

    /// Whether a file of it came with the time it had elsewhere (`cp -p`, `rsync -t`), so that systemd, which compares times, may
    /// not see that it changed.
    pub(super) fn keeps_times(&self, directory: &Path) -> Result<bool, FileError> {
        for name in self.0.keys() {
            let came_later = |meta: fs::Metadata| meta.ctime() > meta.mtime() + 1;
            if meta(&directory.join(name))?.is_some_and(came_later) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The files by name, for people.
    pub(super) fn names(&self) -> String {
        match self.0.is_empty() {
            true => "no unit file".to_owned(),
            false => self.0.keys().cloned().collect::<Vec<_>>().join(", "),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn sources(&self) -> Result<Vec<Source>, Failure> {
        let listed = |part: &Part| match part {
            Part::File { .. } => Listed::File,
            Part::Link(to) => Listed::Link(to.clone()),
        };
        let list: BTreeMap<&String, Listed> = self.0.iter().map(|(path, part)| (path, listed(part))).collect();
        let bytes = serde_json::to_vec(&list).map_err(|error| Failure::never(error.to_string()))?;
        let files = self.0.iter().filter_map(|(path, part)| match part {
            Part::File { bytes, mode } => Some(Source::Bytes { path: entry(path), bytes: bytes.clone(), mode: *mode }),
            Part::Link(_) => None,
        });
        Ok(files.chain([Source::Bytes { path: LIST.to_owned(), bytes, mode: 0o600 }]).collect())
    }

    /// What a capture holds.
    pub(super) fn captured(captures: &Captures, manifest: &Manifest, unit: &str) -> Result<Self, Failure> {
        let list: BTreeMap<String, Listed> = serde_json::from_slice(&captures.bytes(manifest, LIST)?)
            .map_err(|error| Failure::never(format!("the capture cannot be read: {error}")))?;
        let ours = |path: &str| match path.split_once('/') {
            None => fragments(unit).iter().any(|name| name == path),
            Some((directory, name)) => {
                is_drop_in(name) && drop_in_directories(unit).iter().any(|known| known == directory)
            }
        };
        let mut parts = BTreeMap::new();
        for (path, listed) in list {
            if !ours(&path) {
                return Err(Failure::never(format!("the capture holds `{path}`, which is no file of `{unit}`")));
            }
            let part = match listed {
                Listed::Link(to) => Part::Link(to),
                Listed::File => {
                    let bytes = captures.bytes(manifest, &entry(&path))?;
                    Part::File { bytes, mode: manifest.entry(&entry(&path)).map_or(0o644, |entry| entry.mode) }
                }
            };
            parts.insert(path, part);
        }
        Ok(Self(parts))
    }

    /// Makes the files in the directory these. What is not among them goes; the caller has kept it.
    pub(super) fn put(&self, directory: &Path, unit: &str, key: &str, halt: &Halt) -> Result<(), FileError> {
        let now = Self::of(directory, unit)?;
        let temporary = format!(".ripcord-{key}");
        for (path, part) in &self.0 {
            halt.check()?;
            let at = directory.join(path);
            if let Some(parent) = at.parent()
                && meta(parent)?.is_none()
            {
                fs::create_dir(parent).trying("create", parent)?;
            }
            let live = Live::of(&at)?;
            let beside = live.parent.join(&temporary);
            remove_file(&beside)?;
            if now.0.get(path) == Some(part) {
                continue;
            }
            match part {
                Part::File { bytes, mode } => replace(&live, &beside, bytes, *mode, None)?,
                Part::Link(to) => {
                    std::os::unix::fs::symlink(to, &beside).trying("create", &beside)?;
                    point("replace");
                    fs::rename(&beside, &live.path).trying("replace", &live.path)?;
                    sync(&live.parent)?;
                }
            }
        }
        for path in now.0.keys().filter(|path| !self.0.contains_key(*path)) {
            let at = directory.join(path);
            remove_file(&at)?;
            if let Some(parent) = at.parent() {
                sync(parent)?;
            }
        }
        Ok(())
    }
}

/// Where a part's bytes lie in a capture: names of units hold what a path in a capture may not.
fn entry(path: &str) -> String {
    format!("file-{}", Digest::of(path.as_bytes()).short())
}

fn is_drop_in(name: &str) -> bool {
    name.ends_with(".conf") && !name.starts_with('.') && !name.contains('/')
}

impl Part {
    fn of(path: &Path) -> Result<Option<Self>, FileError> {
        let Some(is) = meta(path)? else { return Ok(None) };
        if is.is_symlink() {
            return Ok(Some(Self::Link(fs::read_link(path).trying("read the link", path)?)));
        }
        if !is.is_file() {
            return Err(FileError::io("read", path, std::io::Error::other("it is not a file")));
        }
        let bytes = fs::read(path).trying("read", path)?;
        Ok(Some(Self::File { bytes, mode: is.mode() & 0o7777 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_s_files_are_its_instance_s() {
        assert_eq!(drop_in_directories("shop.service"), ["shop.service.d"]);
        assert_eq!(fragments("shop@eu.service"), ["shop@eu.service", "shop@.service"]);
        assert_eq!(drop_in_directories("shop@.service"), ["shop@.service.d"]);
    }

    #[test]
    fn what_is_put_is_what_is_there_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("shop.service.d")).unwrap();
        fs::write(at("shop.service"), "[Service]\nExecStart=/good\n").unwrap();
        fs::write(at("shop.service.d/a.conf"), "[Service]\nEnvironment=A=1\n").unwrap();
        std::os::unix::fs::symlink("/dev/null", at("shop.service.d/b.conf")).unwrap();
        fs::write(at("shop.service.d/notes"), "not read by systemd").unwrap();
        fs::write(at("other.service"), "another's").unwrap();
        let good = Content::of(dir.path(), "shop.service").unwrap();
        assert_eq!(good.names(), "shop.service, shop.service.d/a.conf, shop.service.d/b.conf");
        let revision = good.revision(&[7; 32]).unwrap();
        assert_ne!(revision, good.revision(&[8; 32]).unwrap(), "without the key nobody can try a guess");

        fs::write(at("shop.service"), "[Service]\nExecStart=/bad\n").unwrap();
        fs::remove_file(at("shop.service.d/b.conf")).unwrap();
        fs::write(at("shop.service.d/c.conf"), "").unwrap();
        good.put(dir.path(), "shop.service", "k", &Halt::default()).unwrap();
        let now = Content::of(dir.path(), "shop.service").unwrap();
        assert_eq!(now.revision(&[7; 32]).unwrap(), revision);
        assert!(at("shop.service.d/notes").exists() && at("other.service").exists());
        Content::default().put(dir.path(), "shop.service", "k", &Halt::default()).unwrap();
        assert_eq!(Content::of(dir.path(), "shop.service").unwrap().revision(&[7; 32]).unwrap(), Revision::Absent);
    }
}
