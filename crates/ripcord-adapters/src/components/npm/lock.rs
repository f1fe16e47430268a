//! Whether modules are what a lock says: by the record npm keeps of what it installed, and by what is there.
//!
//! Source: npm manual, package-lock.json, "Hidden Lockfiles": `node_modules/.package-lock.json` lists what is installed, in the same
//! form; it is written last.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// Where npm keeps its record.
const HIDDEN: &str = ".package-lock.json";

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Lock {
    /// By path from the directory; the empty one is the application itself. Locks of before npm 7 have none.
    packages: Option<BTreeMap<String, Package>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Package {
    version: Option<String>,
    integrity: Option<String>,
    /// For other machines, or wanted by nobody who must have it: it may be left out.
    optional: bool,
    dev: bool,
    dev_optional: bool,
    peer: bool,
}

impl Lock {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let lock: Self = serde_json::from_slice(bytes).map_err(|error| format!("the lock cannot be read: {error}"))?;
        match lock.packages {
            Some(_) => Ok(lock),
            None => Err("the lock is of a form that npm no longer writes: `npm install --package-lock-only` renews it"
                .to_owned()),
        }
    }

    fn packages(&self) -> impl Iterator<Item = (&String, &Package)> {
        self.packages.iter().flatten().filter(|(path, _)| !path.is_empty())
    }

    pub(super) fn len(&self) -> usize {
        self.packages().count()
    }

    /// In what the modules at `modules` differ from the lock; none where they are what it says. `dev` says whether packages for
    /// development are to be there too.
    pub(super) fn differs(&self, modules: &Path, dev: bool) -> Option<String> {
        let needed = |package: &Package| {
            let left_out = package.optional || package.dev_optional || package.peer || (package.dev && !dev);
            !left_out
        };
        let hidden = match std::fs::read(modules.join(HIDDEN)) {
            Ok(bytes) => match Self::read(&bytes) {
                Ok(hidden) => hidden,
                Err(why) => return Some(format!("what npm recorded of the modules: {why}")),
            },
            // Where nothing is needed npm leaves nothing behind.
            Err(_) if !self.packages().any(|(_, package)| needed(package)) => return None,
            Err(_) if !modules.is_dir() => return Some("the modules are not there".to_owned()),
            Err(_) => return Some("npm did not record what the modules are, or did not get to the end".to_owned()),
        };
        let locked: BTreeMap<_, _> = self.packages().collect();
        let there: BTreeMap<_, _> = hidden.packages().collect();
        for (path, is) in &there {
            let Some(package) = locked.get(path) else { return Some(format!("{} is not in the lock", name(path))) };
            if is.version != package.version {
                let version = |package: &Package| package.version.clone().unwrap_or_else(|| "(none)".to_owned());
                return Some(format!("{} is {}, and {} in the lock", name(path), version(is), version(package)));
            }
            let differs = is.integrity.is_some() && package.integrity.is_some() && is.integrity != package.integrity;
            if differs {
                return Some(format!("{} is another content than in the lock", name(path)));
            }
            let inside = path.strip_prefix("node_modules/").is_some_and(|inside| !modules.join(inside).exists());
            if inside {
                return Some(format!("{} is not there", name(path)));
            }
        }
        let missing = locked.iter().find(|(path, package)| needed(package) && !there.contains_key(*path));
        missing.map(|(path, _)| format!("{} is not installed", name(path)))
    }
}

/// The package's name, from its path.
fn name(path: &str) -> &str {
    path.rsplit_once("node_modules/").map_or(path, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"{"lockfileVersion":3,"packages":{"":{"name":"shop"},
        "node_modules/a":{"version":"1.0.0","integrity":"sha512-a"},
        "node_modules/a/node_modules/b":{"version":"2.0.0"},
        "node_modules/fsevents":{"version":"2.3.3","optional":true},
        "node_modules/tape":{"version":"5.0.0","dev":true}}}"#;

    #[track_caller]
    fn check(installed: &str, dev: bool, differs: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().join("node_modules");
        for path in ["a/node_modules/b", "tape", "c"] {
            std::fs::create_dir_all(modules.join(path)).unwrap();
        }
        std::fs::write(modules.join(HIDDEN), format!(r#"{{"lockfileVersion":3,"packages":{{{installed}}}}}"#)).unwrap();
        assert_eq!(Lock::read(LOCK.as_bytes()).unwrap().differs(&modules, dev).as_deref(), differs);
    }

    const A: &str = r#""node_modules/a":{"version":"1.0.0","integrity":"sha512-a"}"#;
    const B: &str = r#""node_modules/a/node_modules/b":{"version":"2.0.0"}"#;
    const TAPE: &str = r#""node_modules/tape":{"version":"5.0.0","dev":true}"#;

    #[test]
    fn modules_are_what_the_lock_says_or_it_is_said_in_what_not() {
        check(&format!("{A},{B},{TAPE}"), true, None);
        check(&format!("{A},{B}"), false, None);
        check(&format!("{A},{B}"), true, Some("tape is not installed"));
        check(A, false, Some("b is not installed"));
        check(&format!("{A},{B},{TAPE}").replace("2.0.0", "2.0.1"), true, Some("b is 2.0.1, and 2.0.0 in the lock"));
        check(
            &format!("{A},{B}").replace("sha512-a", "sha512-x"),
            false,
            Some("a is another content than in the lock"),
        );
        check(&format!(r#"{A},{B},"node_modules/c":{{"version":"1.0.0"}}"#), false, Some("c is not in the lock"));
        check(
            &format!(r#"{A},{B},"node_modules/fsevents":{{"version":"2.3.3"}}"#),
            false,
            Some("fsevents is not there"),
        );
    }

    #[test]
    fn without_npm_s_record_nothing_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::read(LOCK.as_bytes()).unwrap();
        assert_eq!(lock.differs(&dir.path().join("node_modules"), false).as_deref(), Some("the modules are not there"));
        assert!(lock.differs(dir.path(), false).unwrap().contains("did not get to the end"));
        let empty = Lock::read(br#"{"packages":{"":{}}}"#).unwrap();
        assert_eq!(empty.differs(&dir.path().join("node_modules"), true), None);
        assert!(Lock::read(br#"{"lockfileVersion":1,"dependencies":{}}"#).unwrap_err().contains("no longer writes"));
    }
}
