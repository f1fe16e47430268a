//! Working trees that were kept long enough.
//!
//! A former tree has a repository of its own beside its files. It goes only when the live one has every commit that it has: a
//! capture may be held by nothing but a commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use ripcord_core::{Cx, Failure, Place};

use super::{Checkout, repository};
use crate::components::files::{Halt, Live, blocking, meta};
use crate::components::tidy::{Names, Sweep, is_being_removed};

/// More than this many tips that the live tree does not have are not looked at one by one.
const MOST_TIPS: usize = 500;

impl Checkout {
    pub(super) async fn remove_old(&self, cx: &Cx, place: &Place, before: Timestamp) -> Result<Vec<String>, Failure> {
        let live = Live::through(&self.path)?;
        let (locking, limit) = (live.clone(), cx.limit);
        let _lock = blocking(move |halt: &Halt| locking.lock(limit, halt)).await??;
        let names = Names::new(&live, place);
        let mut sweep = Sweep::new(&live, before)?;
        let old = sweep.old(&live.parent, |name| names.switched(name))?;
        for path in old {
            if let Some(why) = self.needed(cx, &live, &path).await {
                tracing::warn!(path = %path.display(), why, "kept");
                continue;
            }
            sweep = blocking(move |_| {
                sweep.remove(&path);
                sweep
            })
            .await?;
        }
        sweep.done()
    }

    /// Why a former tree must stay.
    async fn needed(&self, cx: &Cx, live: &Live, former: &Path) -> Option<String> {
        if is_being_removed(former) || !meta(&former.join(".git")).is_ok_and(|git| git.is_some()) {
            return None;
        }
        if let Err(failure) = repository(&live.path) {
            return Some(format!("the live tree cannot take its place: {}", failure.what));
        }
        // What a repository borrows from another by path is gone with that.
        let borrowed = fs::read_to_string(live.path.join(".git/objects/info/alternates")).unwrap_or_default();
        if borrowed.lines().any(|path| Path::new(path).starts_with(former)) {
            return Some("the live tree borrows objects from it".to_owned());
        }
        match self.beyond(cx, live, former).await {
            Ok(None) => None,
            Ok(Some(commit)) => Some(format!("the live tree does not have its commit {commit}")),
            Err(failure) => Some(format!("whether the live tree has its commits is not known: {}", failure.what)),
        }
    }

    /// A commit that only the former tree has.
    async fn beyond(&self, cx: &Cx, live: &Live, former: &Path) -> Result<Option<String>, Failure> {
        let (has, is_in) = (self.tips(cx, former).await?, self.tips(cx, &live.path).await?);
        let tips: Vec<&str> = has.difference(&is_in).map(String::as_str).collect();
        match tips.as_slice() {
            [] => return Ok(None),
            [first, ..] if tips.len() > MOST_TIPS => return Ok(Some((*first).to_owned())),
            _ => {}
        }
        let question = [&["rev-list", "--max-count=1"][..], &tips, &["--not", "--all"]].concat();
        let found = self.git.ask(&live.path, &question, cx.limit).await?;
        let found = String::from_utf8_lossy(&found).trim().to_owned();
        Ok((!found.is_empty()).then_some(found))
    }

    /// What names of a repository point at, HEAD too.
    async fn tips(&self, cx: &Cx, tree: &Path) -> Result<BTreeSet<String>, Failure> {
        let head = self.git.line(tree, &["rev-parse", "HEAD"], cx.limit).await?;
        Ok(self.names(cx, tree).await?.into_values().chain([head]).collect())
    }

    /// The branches and tags of a repository, each with what it points at.
    pub(super) async fn names(&self, cx: &Cx, tree: &Path) -> Result<BTreeMap<String, String>, Failure> {
        let named = self.git.ask(tree, &["for-each-ref", "--format=%(objectname) %(refname)"], cx.limit).await?;
        let named = String::from_utf8_lossy(&named).into_owned();
        let pairs = named.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs.map(|(commit, name)| (name.to_owned(), commit.to_owned())).collect())
    }
}
