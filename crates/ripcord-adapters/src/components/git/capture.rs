//! Captures of working trees: a commit is pinned where it is; what no commit holds goes to the vault.

use std::fs;
use std::path::{Path, PathBuf};

use ripcord_core::{Before, Cx, Digest, Failure, HeldIn, Made, Proof, ProofLevel, Revision};
use ripcord_vault::{Manifest, Source};

use super::client::bytes;
use super::state::{self, commit_of};
use super::{Checkout, Looked, copy};
use crate::components::files::captures::{self, vault_failure};
use crate::components::files::{FileError, Live, Trying, blocking, meta, point, remove};

/// In a capture: the changed files, the paths that are gone (each ended by a zero byte), and the changes for people to read.
const FILES: &str = "files";
const GONE: &str = "gone";
const PATCH: &str = "changes.patch";

impl Checkout {
    pub(super) async fn capture(&self, cx: &Cx, before: &Before) -> Result<Proof, Failure> {
        let live = Live::through(&self.path)?;
        if live.meta()?.is_none() {
            let absent = vec![Source::Bytes { path: "absent".to_owned(), bytes: vec![], mode: 0o600 }];
            let manifest = self.captures.store(cx, &before.key, "the present state", absent)?;
            let made = captures::made(Revision::Absent, None, &manifest)?;
            return Ok(Proof { capture: Some(made), ..Proof::of(format!("{} is absent", self.shown)) });
        }
        let looked = self.look(cx, &live.path).await?;
        let label = self.label(cx, &live, &looked.state).await;
        let (commit, whole) = self.pin(cx, &live, &looked).await?;
        let clean = match self.paths.is_empty() {
            true => looked.state.is_clean(),
            false => whole == looked.revision,
        };
        let made = match clean {
            true => self.held_by_git(cx, &live, &commit, looked.revision).await?,
            false => self.held_in_vault(cx, before, &live, looked).await?,
        };
        let found = match &made.held {
            HeldIn::System { .. } => format!("commit {} read, {} bytes, and pinned", &commit[..12], made.bytes),
            HeldIn::Vault { .. } => {
                format!("what differs from commit {} captured and read back, {} bytes", &commit[..12], made.bytes)
            }
        };
        Ok(Proof { capture: Some(Made { label: Some(label), ..made }), ..Proof::of(found) })
    }

    /// Keeps the commit from being collected as garbage, whatever becomes of its branch. Returns it, and the revision it would
    /// be without changes.
    async fn pin(&self, cx: &Cx, live: &Live, looked: &Looked) -> Result<(String, Revision), Failure> {
        let head = &looked.state.head;
        point("pin");
        self.git.ask(&live.path, &["update-ref", &format!("refs/ripcord/keep/{head}"), head], cx.limit).await?;
        let whole = match self.paths.is_empty() {
            true => Revision::exact(head.clone()),
            false => state::revision_of(&state::tracked(&self.git, &live.path, head, &self.paths, cx.limit).await?),
        };
        Ok((head.clone(), whole))
    }

    async fn held_by_git(&self, cx: &Cx, live: &Live, commit: &str, revision: Revision) -> Result<Made, Failure> {
        let mut read = 0;
        if let Some(why) = state::missing(&self.git, &live.path, commit, Some(&mut read), cx.limit).await? {
            return Err(Failure::never(why).advise("fetch the commit again, then capture"));
        }
        let content = self.tree_digest(cx, &live.path, commit).await?;
        let held = HeldIn::System { name: commit.to_owned() };
        Ok(Made { revision, label: None, held, bytes: read, proof: ProofLevel::ReadBack, content })
    }

    /// The content's address of a commit: of its tree's name, which is one itself.
    pub(super) async fn tree_digest(&self, cx: &Cx, tree: &Path, commit: &str) -> Result<Digest, Failure> {
        let name = self.git.line(tree, &["rev-parse", &format!("{commit}^{{tree}}")], cx.limit).await?;
        Ok(Digest::of(format!("git tree {name}").as_bytes()))
    }

    async fn held_in_vault(&self, cx: &Cx, before: &Before, live: &Live, looked: Looked) -> Result<Made, Failure> {
        let patch = self.git.ask(&live.path, &["diff", "--binary", "HEAD"], cx.limit).await?;
        let paths: Vec<PathBuf> = match self.paths.is_empty() {
            true => looked.state.dirty().cloned().collect(),
            // The files git would record: what it ignores below the paths is data, and stays where it is.
            false => state::present(&self.git, &live.path, &self.paths, cx.limit)
                .await?
                .iter()
                .map(|file| super::client::path(&file.path))
                .collect(),
        };
        let (tree, captures, cx2, key) = (live.path.clone(), self.captures.clone(), cx.clone(), before.key.clone());
        let manifest = blocking(move |_| {
            let scratch =
                tempfile::tempdir().map_err(|error| Failure::never(format!("no temporary directory: {error}")))?;
            let gone = stage(&tree, paths, scratch.path())?;
            let sources = vec![
                Source::Tree { path: FILES.to_owned(), root: scratch.path().join(FILES), except: vec![] },
                Source::Bytes { path: GONE.to_owned(), bytes: gone, mode: 0o600 },
                Source::Bytes { path: PATCH.to_owned(), bytes: patch, mode: 0o600 },
            ];
            captures.store(&cx2, &key, "changes that no commit holds", sources)
        })
        .await??;
        // What was changed while it was copied would be recorded under the wrong name.
        match self.look(cx, &live.path).await?.revision == looked.revision {
            true => captures::made(looked.revision, None, &manifest),
            false => Err(Failure::later(format!("{} changed while it was captured", self.shown))),
        }
    }

    /// Puts into a working tree at the right commit what the vault holds beyond it.
    pub(super) async fn overlay(&self, cx: &Cx, made: &Made, tree: &Path, scratch: PathBuf) -> Result<(), Failure> {
        let manifest = captures::manifest(made)?;
        let below = match self.paths.is_empty() {
            true => vec![],
            false => {
                let present = state::present(&self.git, tree, &self.paths, cx.limit).await?;
                present.iter().map(|file| super::client::path(&file.path)).collect()
            }
        };
        let (captures, tree) = (self.captures.clone(), tree.to_owned());
        blocking(move |_| unpack(&captures, &manifest, &tree, &below, &scratch)).await?
    }
}

/// Copies the files that are there into `scratch`; returns those that are gone.
fn stage(tree: &Path, paths: Vec<PathBuf>, scratch: &Path) -> Result<Vec<u8>, FileError> {
    let files = scratch.join(FILES);
    fs::create_dir(&files).trying("create", &files)?;
    let mut gone = Vec::new();
    for path in &paths {
        if meta(&tree.join(path))?.is_none() {
            gone.extend_from_slice(bytes(path));
            gone.push(0);
        }
    }
    for file in copy::files(tree, paths.into_iter())? {
        copy::path(tree, &files, &file)?;
    }
    Ok(gone)
}

fn unpack(
    captures: &captures::Captures,
    manifest: &Manifest,
    tree: &Path,
    below: &[PathBuf],
    scratch: &Path,
) -> Result<(), Failure> {
    captures.vault()?.restore(manifest, scratch).map_err(|error| vault_failure(&error))?;
    let gone = fs::read(scratch.join(GONE)).trying("read", scratch)?;
    let gone = super::client::entries(&gone).map(super::client::path);
    for path in gone.chain(below.iter().cloned()) {
        remove(&tree.join(path))?;
    }
    let files = scratch.join(FILES);
    for file in copy::files(&files, std::iter::once(PathBuf::new()))? {
        remove(&tree.join(&file))?;
        copy::path(&files, tree, &file)?;
    }
    remove(scratch)?;
    Ok(())
}

/// What a revision is made from: a commit, and what the vault holds beyond it.
pub(super) struct MadeFrom {
    pub(super) commit: Option<String>,
    pub(super) beyond: Option<Made>,
}

impl Checkout {
    /// Finds what a revision is made from, checked as far as it can be without making it.
    pub(super) fn source(&self, to: &Revision, made: Option<Made>) -> Result<MadeFrom, Failure> {
        let commit = self.commit(to, made.as_ref())?;
        let in_vault = made.filter(|made| matches!(made.held, HeldIn::Vault { .. }));
        // A commit alone needs nothing of the vault, whatever the capture held beside it.
        let beyond = match commit_of(to) {
            Some((_, false)) => None,
            _ => in_vault,
        };
        Ok(MadeFrom { commit, beyond })
    }
}
