//! What a working tree is at: a commit, and what differs from it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord_core::{Digest, Failure, Revision};

use super::client::{Git, With, bytes, entries, path};
use crate::components::files::{FileError, Trying, meta};
use crate::components::tree::Hashing;

/// A working tree as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) head: String,
    /// None where HEAD names a commit itself.
    pub(super) branch: Option<String>,
    /// Tracked paths that differ from the commit, and files git was never told of, relative to the tree.
    pub(super) changed: BTreeSet<PathBuf>,
    pub(super) untracked: BTreeSet<PathBuf>,
    /// What is ignored: a directory stands for all it holds.
    pub(super) ignored: BTreeSet<PathBuf>,
}

impl State {
    /// Looks at the tree. What `kept` names is nobody's change: it is declared to be data.
    pub(super) async fn of(
        git: &Git,
        tree: &Path,
        kept: &(dyn Fn(&Path) -> bool + Sync),
        limit: Duration,
    ) -> Result<Self, Failure> {
        let status =
            ["status", "--porcelain=v2", "-z", "--branch", "--untracked-files=all", "--ignored=matching", "--renames"];
        let said = git.ask(tree, &status, limit).await?;
        let mut state = parse(&said)?;
        state.untracked.retain(|path| !kept(path));
        Ok(state)
    }

    pub(super) fn is_clean(&self) -> bool {
        self.changed.is_empty() && self.untracked.is_empty()
    }

    /// Everything that is not as the commit has it.
    pub(super) fn dirty(&self) -> impl Iterator<Item = &PathBuf> {
        self.changed.union(&self.untracked)
    }

    /// The commit, and where the tree differs from it a digest of how.
    pub(super) fn revision(&self, tree: &Path) -> Result<Revision, FileError> {
        if self.is_clean() {
            return Ok(Revision::exact(self.head.clone()));
        }
        let mut seen = Vec::new();
        for path in self.dirty() {
            describe(tree, path, &mut seen)?;
        }
        Ok(Revision::exact(format!("{}+{}", self.head, Digest::of(&seen).hex())))
    }

    /// The first changed files in words.
    pub(super) fn changes(&self) -> String {
        const SHOWN: usize = 10;
        let all: Vec<_> = self.dirty().map(|path| path.display().to_string()).collect();
        match all.len().checked_sub(SHOWN) {
            None | Some(0) => all.join(", "),
            Some(more) => format!("{} and {more} more", all[..SHOWN].join(", ")),
        }
    }
}

/// The commit in a revision, and whether more than the commit is meant.
pub(super) fn commit_of(revision: &Revision) -> Option<(&str, bool)> {
    let Revision::Exact(id) = revision else { return None };
    let (commit, dirty) = id.0.split_once('+').map_or((id.0.as_str(), false), |(commit, _)| (commit, true));
    let named = matches!(commit.len(), 40 | 64) && commit.bytes().all(|b| b.is_ascii_hexdigit());
    named.then_some((commit, dirty))
}

/// Adds what a path is now: its kind, whether it may be run, and its content.
fn describe(tree: &Path, path: &Path, seen: &mut Vec<u8>) -> Result<(), FileError> {
    let at = tree.join(path);
    let (kind, content) = match meta(&at)? {
        None => ("absent", Digest::ZERO),
        Some(meta) if meta.is_symlink() => {
            ("link", Digest::of(bytes(&fs::read_link(&at).trying("read the link", &at)?)))
        }
        Some(meta) if meta.is_file() => {
            let mut hashing = Hashing::default();
            fs::File::open(&at).and_then(|mut file| std::io::copy(&mut file, &mut hashing)).trying("read", &at)?;
            (if meta.permissions().mode() & 0o100 != 0 { "program" } else { "file" }, hashing.digest())
        }
        Some(meta) if meta.is_dir() => {
            // A repository inside, which git lists as one path.
            let list = fs::read_dir(&at).and_then(|list| list.collect::<Result<Vec<_>, _>>()).trying("list", &at)?;
            let mut names: Vec<_> = list.into_iter().map(|entry| entry.file_name()).collect();
            names.sort();
            return names.iter().try_for_each(|name| describe(tree, &path.join(name), seen));
        }
        Some(_) => ("special", Digest::ZERO),
    };
    seen.extend_from_slice(bytes(path));
    seen.push(0);
    seen.extend_from_slice(kind.as_bytes());
    seen.extend_from_slice(content.to_string().as_bytes());
    seen.push(b'\n');
    Ok(())
}

fn parse(said: &[u8]) -> Result<State, Failure> {
    let odd = |entry: &[u8]| Failure::never(format!("git's status cannot be read: {}", String::from_utf8_lossy(entry)));
    let (mut head, mut branch) = (String::new(), None);
    let (mut changed, mut untracked, mut ignored) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut list = entries(said);
    while let Some(entry) = list.next() {
        // Fields before the path, by kind of entry.
        let fields = match entry.first() {
            Some(b'#') => {
                let text = String::from_utf8_lossy(entry);
                if let Some(oid) = text.strip_prefix("# branch.oid ") {
                    oid.clone_into(&mut head);
                } else if let Some(name) = text.strip_prefix("# branch.head ") {
                    branch = (name != "(detached)").then(|| name.to_owned());
                }
                continue;
            }
            Some(b'1') => 8,
            Some(b'2') => 9,
            Some(b'u') => 10,
            Some(b'?' | b'!') => 1,
            _ => return Err(odd(entry)),
        };
        let name = entry.splitn(fields + 1, |byte| *byte == b' ').nth(fields).ok_or_else(|| odd(entry))?;
        match entry.first() {
            Some(b'?') => drop(untracked.insert(path(name))),
            Some(b'!') => drop(ignored.insert(path(name.strip_suffix(b"/").unwrap_or(name)))),
            _ => drop(changed.insert(path(name))),
        }
        if entry.first() == Some(&b'2') {
            changed.insert(path(list.next().ok_or_else(|| odd(entry))?));
        }
    }
    match commit_of(&Revision::exact(head.clone())) {
        Some(_) => Ok(State { head, branch, changed, untracked, ignored }),
        None => Err(Failure::never("the repository has no commit yet")),
    }
}

/// One file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tracked {
    pub(super) mode: String,
    pub(super) object: String,
    pub(super) path: Vec<u8>,
}

/// The files of a commit, all or below `paths`.
pub(super) async fn tracked(
    git: &Git,
    tree: &Path,
    commit: &str,
    paths: &[String],
    limit: Duration,
) -> Result<Vec<Tracked>, Failure> {
    let mut arguments = vec!["ls-tree", "-r", "-z", "--full-tree", commit];
    if !paths.is_empty() {
        arguments.push("--");
        arguments.extend(paths.iter().map(String::as_str));
    }
    let said = git.ask(tree, &arguments, limit).await?;
    // `mode type object<tab>path`
    entries(&said).map(|entry| of_list(entry, 2)).collect()
}

/// One entry of a list of files, in which the object is the field numbered `object`.
fn of_list(entry: &[u8], object: usize) -> Result<Tracked, Failure> {
    let odd = || Failure::never(format!("git's list cannot be read: {}", String::from_utf8_lossy(entry)));
    let tab = entry.iter().position(|byte| *byte == b'\t').ok_or_else(odd)?;
    let fields: Vec<_> =
        entry[..tab].split(|byte| *byte == b' ').map(|f| String::from_utf8_lossy(f).into_owned()).collect();
    match (fields.first(), fields.get(object)) {
        (Some(mode), Some(object)) => {
            Ok(Tracked { mode: mode.clone(), object: object.clone(), path: entry[tab + 1..].to_vec() })
        }
        _ => Err(odd()),
    }
}

/// The revision of a list of files: what they are called and what they hold.
pub(super) fn revision_of(files: &[Tracked]) -> Revision {
    let mut seen = Vec::new();
    for file in files {
        seen.extend_from_slice(format!("{} {}\t", file.mode, file.object).as_bytes());
        seen.extend_from_slice(&file.path);
        seen.push(0);
    }
    Revision::exact(format!("paths:{}", Digest::of(&seen).hex()))
}

/// The files below `paths` as they are in the tree now, committed or not, as git would record them. What that takes is written
/// to a directory of our own: the repository stays untouched.
pub(super) async fn present(
    git: &Git,
    tree: &Path,
    paths: &[String],
    limit: Duration,
) -> Result<Vec<Tracked>, Failure> {
    let scratch = tempfile::tempdir().map_err(|error| Failure::never(format!("no temporary directory: {error}")))?;
    let objects = scratch.path().join("objects");
    fs::create_dir(&objects).trying("create", &objects)?;
    let with = || With {
        environment: vec![
            ("GIT_INDEX_FILE", scratch.path().join("index").display().to_string()),
            ("GIT_OBJECT_DIRECTORY", objects.display().to_string()),
            ("GIT_ALTERNATE_OBJECT_DIRECTORIES", tree.join(".git/objects").display().to_string()),
        ],
        input: None,
    };
    git.ask_with(tree, &["read-tree", "HEAD"], with(), limit).await?;
    let mut there = Vec::new();
    for path in paths {
        let listed = git.ask_with(tree, &["ls-files", "-z", "--", path], with(), limit).await?;
        if !listed.is_empty() || meta(&tree.join(path))?.is_some() {
            there.push(path.as_str());
        }
    }
    if !there.is_empty() {
        let mut add = vec!["add", "--all", "--"];
        add.extend(&there);
        git.ask_with(tree, &add, with(), limit).await?;
    }
    let mut list = vec!["ls-files", "--stage", "-z", "--"];
    list.extend(paths.iter().map(String::as_str));
    let said = git.ask_with(tree, &list, with(), limit).await?;
    // `mode object stage<tab>path`
    entries(&said).map(|entry| of_list(entry, 1)).collect()
}

/// Whether every object of a commit is here; otherwise why not. `Some(read)` asks for their content too and counts its bytes.
pub(super) async fn missing(
    git: &Git,
    tree: &Path,
    commit: &str,
    read: Option<&mut u64>,
    limit: Duration,
) -> Result<Option<String>, Failure> {
    let short = &commit[..commit.len().min(12)];
    let exists = git.holds(tree, &["cat-file", "-e", &format!("{commit}^{{commit}}")], limit).await;
    if !exists {
        return Ok(Some(format!("commit {short} is not in the clone")));
    }
    let files = match tracked(git, tree, commit, &[], limit).await {
        Ok(files) => files,
        Err(failure) => return Ok(Some(format!("commit {short} is not whole: {}", failure.what))),
    };
    if let Some(inner) = files.iter().find(|file| file.mode == "160000") {
        let inner = String::from_utf8_lossy(&inner.path).into_owned();
        return Ok(Some(format!("commit {short} has a submodule at {inner}, which this kind cannot take back")));
    }
    let mut names: Vec<_> = files.iter().map(|file| file.object.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let input = names.iter().flat_map(|name| [name.as_bytes(), b"\n"]).flatten().copied().collect();
    let with = With { input: Some(input), ..With::default() };
    let Some(read) = read else {
        let said = git.ask_with(tree, &["cat-file", "--batch-check", "--buffer"], with, limit).await?;
        let said = String::from_utf8_lossy(&said);
        let gone = said.lines().filter(|line| line.ends_with(" missing")).count();
        return Ok((gone > 0).then(|| format!("{gone} files of commit {short} are not in the clone")));
    };
    let whole =
        git.stream(tree, &["cat-file", "--batch", "--buffer"], with, limit, |piece| *read += piece.len() as u64);
    match whole.await {
        Ok(()) => Ok(None),
        Err(failure) => Ok(Some(format!("commit {short} cannot be read: {}", failure.what))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_by_its_kinds() {
        let oid = "a".repeat(40);
        let said = format!(
            "# branch.oid {oid}\0# branch.head main\01 .M N... 100644 100644 100644 {oid} {oid} a b.txt\0\
             2 R. N... 100644 100644 100644 {oid} {oid} R100 new\0old name\0? un tracked\0! node_modules/\0! x.log\0"
        );
        let state = parse(said.as_bytes()).unwrap();
        let set = |names: &[&str]| names.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        assert_eq!(state.changed, set(&["a b.txt", "new", "old name"]));
        assert_eq!(state.untracked, set(&["un tracked"]));
        assert_eq!(state.ignored, set(&["node_modules", "x.log"]));
        assert_eq!(state.branch.as_deref(), Some("main"));
        assert!(parse(b"# branch.oid (initial)\0").is_err());
        assert!(parse(format!("# branch.oid {oid}\0x what\0").as_bytes()).is_err());
    }

    #[test]
    fn a_commit_is_told_from_other_revisions() {
        let oid = "b".repeat(40);
        assert_eq!(commit_of(&Revision::exact(oid.clone())), Some((oid.as_str(), false)));
        assert_eq!(commit_of(&Revision::exact(format!("{oid}+12"))), Some((oid.as_str(), true)));
        assert_eq!(commit_of(&Revision::exact("main")), None);
        assert_eq!(commit_of(&Revision::Absent), None);
    }
}
