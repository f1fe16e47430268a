//! What is installed in an environment, as `pip freeze` lists it, and what of it has to be installed: pure.
//!
//! Source: pip manual, `pip freeze`, "Requirements File Format", "Hash-checking Mode"; PEP 503 (normalized names).

use std::collections::{BTreeMap, BTreeSet};

use ripcord_core::{Digest, Revision};
use serde::{Deserialize, Serialize};

/// An environment's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Frozen {
    /// Of the interpreter: `3.11.7`.
    pub(super) python: String,
    /// `name==version`, or a line that names something else by its place.
    pub(super) packages: BTreeSet<String>,
}

/// What is to be done to a new environment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Lines with hashes, all of which must hold.
    pub(super) hashed: Vec<String>,
    pub(super) plain: Vec<String>,
    /// Names that the environment came with.
    pub(super) gone: Vec<String>,
}

impl Frozen {
    /// Reads what `pip freeze` prints.
    pub(super) fn read(python: &str, printed: &str) -> Self {
        let lines = printed.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { python: python.to_owned(), packages: lines.map(str::to_owned).collect() }
    }

    /// Modules are built for one minor version of Python; the last number says nothing.
    pub(super) fn minor(&self) -> String {
        self.python.split('.').take(2).collect::<Vec<_>>().join(".")
    }

    pub(super) fn revision(&self) -> Revision {
        Revision::exact(Digest::of_value(&(self.minor(), &self.packages)).to_string())
    }

    /// Lines that do not name a version of an index, but a place whose content may be another by now.
    pub(super) fn direct(&self) -> Vec<&str> {
        self.packages.iter().map(String::as_str).filter(|line| pinned(line).is_none()).collect()
    }

    /// What takes an environment that came with `fresh` to this one. `hashes` is from the requirements that were captured.
    pub(super) fn work(&self, fresh: &Self, hashes: &BTreeMap<(String, String), Vec<String>>) -> Work {
        let mut work = Work::default();
        for line in self.packages.difference(&fresh.packages) {
            let known = pinned(line).and_then(|(name, version)| hashes.get(&(normal(name), version.to_owned())));
            match known {
                Some(known) => work.hashed.push(format!("{line} {}", known.join(" "))),
                None => work.plain.push(line.clone()),
            }
        }
        let names: BTreeSet<String> = self.packages.iter().filter_map(|line| Some(normal(named(line)?))).collect();
        let extra = fresh.packages.iter().filter_map(|line| named(line)).filter(|name| !names.contains(&normal(name)));
        work.gone = extra.map(str::to_owned).collect();
        work
    }

    /// In what another environment differs, in words; none where it is this one.
    pub(super) fn differs(&self, other: &Self) -> Option<String> {
        if self.minor() != other.minor() {
            return Some(format!("it is of Python {}, not {}", other.minor(), self.minor()));
        }
        let lacks = self.packages.difference(&other.packages).map(|line| format!("lacks {line}"));
        let has = other.packages.difference(&self.packages).map(|line| format!("has {line}"));
        let words: Vec<_> = lacks.chain(has).collect();
        match words.len() {
            0 => None,
            1..=4 => Some(words.join(", ")),
            n => Some(format!("{}, and {} more", words[..4].join(", "), n - 4)),
        }
    }
}

/// Name and version of a line that has both and nothing else.
fn pinned(line: &str) -> Option<(&str, &str)> {
    let (name, version) = line.split_once("==")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let good =
        !name.is_empty() && name.chars().all(plain) && !version.contains([' ', ';', '@']) && !version.starts_with('=');
    good.then_some((name, version))
}

fn named(line: &str) -> Option<&str> {
    let name = line.split_once(" @ ").map(|(name, _)| name.trim());
    name.or_else(|| pinned(line).map(|(name, _)| name))
}

fn normal(name: &str) -> String {
    let mut normal = String::new();
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            c => normal.push(c.to_ascii_lowercase()),
        }
    }
    normal
}

/// The hashes that a requirements file demands, by name and version.
pub(super) fn hashes(requirements: &str) -> BTreeMap<(String, String), Vec<String>> {
    let joined = requirements.replace("\\\r\n", " ").replace("\\\n", " ");
    let mut found = BTreeMap::new();
    for line in joined.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let Some((name, version)) = words.next().and_then(|first| pinned(first.trim_end_matches(';'))) else {
            continue;
        };
        let hashes: Vec<String> = words.filter(|word| word.starts_with("--hash=")).map(str::to_owned).collect();
        if !hashes.is_empty() {
            found.insert((normal(name), version.to_owned()), hashes);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frozen(lines: &str) -> Frozen {
        Frozen::read("3.11.7", &lines.replace(' ', "\n"))
    }

    #[test]
    fn order_and_the_last_number_of_python_say_nothing() {
        let one = Frozen::read("3.11.7", "b==2\na==1\n\n# Editable install with no version control (c==1)\n");
        assert_eq!(one.revision(), Frozen::read("3.11.9", "a==1\nb==2\n").revision());
        assert_ne!(one.revision(), Frozen::read("3.12.7", "a==1\nb==2\n").revision());
        assert_ne!(one.revision(), Frozen::read("3.11.7", "a==1\n").revision());
    }

    #[test]
    fn a_line_that_names_a_place_is_told() {
        let lines = "a==1.0+cu118\n-e git+https://x/y@abc#egg=b\nc @ file:///w/c-1.whl#sha256=00\n-e /srv/d\ne===1";
        let found = Frozen::read("3.11.7", lines);
        assert_eq!(
            found.direct(),
            ["-e /srv/d", "-e git+https://x/y@abc#egg=b", "c @ file:///w/c-1.whl#sha256=00", "e===1"]
        );
    }

    #[test]
    fn only_what_a_new_environment_lacks_is_installed() {
        let fresh = frozen("pip==23.2.1 setuptools==65.5.0");
        let to = frozen("pip==23.2.1 Shop_Lib==1.0 b==2");
        let hashes = hashes("# pinned\nshop.lib==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\nb>=1\n");
        let work = to.work(&fresh, &hashes);
        assert_eq!(work.hashed, ["Shop_Lib==1.0 --hash=sha256:aa --hash=sha256:bb"]);
        assert_eq!((work.plain, work.gone), (vec!["b==2".to_owned()], vec!["setuptools".to_owned()]));
        let newer = frozen("pip==24.0 setuptools==65.5.0").work(&fresh, &BTreeMap::new());
        assert_eq!((newer.plain, newer.gone), (vec!["pip==24.0".to_owned()], vec![]));
    }

    #[test]
    fn what_differs_is_said() {
        let is = frozen("a==1 b==2");
        assert_eq!(is.differs(&is), None);
        assert_eq!(is.differs(&frozen("a==1 b==3")).unwrap(), "lacks b==2, has b==3");
        assert_eq!(is.differs(&Frozen::read("3.12.0", "a==1\nb==2")).unwrap(), "it is of Python 3.12, not 3.11");
    }
}
