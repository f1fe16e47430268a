//! The way back of a working tree: prepared beside, compared, exchanged in one instant.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use ripcord_core::{Before, CaptureRef, Cx, Failure, Proof, Revision};
use ripcord_vault::path_text;

use super::client::{With, bytes, entries, path};
use super::state::{self, State};
use super::{Checkout, copy, repository};
use crate::components::files::{Halt, Live, Stop, Trying, blocking, meta, owner, point, remove};
use crate::components::tree::switch::{Begun, Switch};
use crate::components::tree::{Carried, Kept, carry};

/// How the log of HEAD says that it was us.
const DETACHED: &str = "checkout: detached by ripcord";

impl Checkout {
    pub(super) async fn restore(
        &self,
        cx: &Cx,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: &Before,
    ) -> Result<Proof, Stop> {
        let live = Live::through(&self.path)?;
        let (locking, limit) = (live.clone(), cx.limit);
        // Held until the end of this function, wherever it is dropped: git ends with it.
        let _lock = blocking(move |halt: &Halt| locking.lock(limit, halt)).await??;
        let switch = Switch::new(live.clone(), before);
        if *to == Revision::Absent {
            let kept = switch.take_away()?;
            return Ok(said(format!("{} taken away", self.shown), kept));
        }
        repository(&live.path)?;
        unlocked(&live.path)?;
        let present = self.look(cx, &live.path).await?;
        let ready = match switch.ready()? {
            None => None,
            Some(path) => Some(self.look(cx, path).await.is_ok_and(|looked| looked.revision == *to)),
        };
        match switch.begin(present.revision == *to, ready)? {
            Begun::There => return Ok(said(format!("{} is at {}", self.shown, to.short()), switch.kept())),
            Begun::Exchanged => return self.finish(cx, &switch, &live).await,
            Begun::Ready | Begun::Prepare => {
                switch.discard()?;
                if let Err(failure) = self.prepare(cx, &switch, &live, &present.state, to, from, before).await {
                    switch.give_up();
                    return Err(failure.into());
                }
            }
        }
        unlocked(&live.path)?;
        if self.look(cx, &live.path).await?.state.head != present.state.head {
            return Err(Failure::later(format!("{} was taken to another commit meanwhile", self.shown)).into());
        }
        switch.exchange()?;
        self.finish(cx, &switch, &live).await
    }

    /// Checks the target out beside, before anything is stopped for it.
    pub(super) async fn stage(
        &self,
        cx: &Cx,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: &Before,
    ) -> Result<Proof, Failure> {
        let live = Live::through(&self.path)?;
        let (locking, limit) = (live.clone(), cx.limit);
        let _lock = blocking(move |halt: &Halt| locking.lock(limit, halt)).await??;
        let switch = Switch::staged(&live, to);
        if self.staged(cx, &live, to).await {
            switch.give_up();
            return Ok(Proof::of(format!("{} was ready", to.short())));
        }
        switch.clear()?;
        repository(&live.path)?;
        unlocked(&live.path)?;
        let present = self.look(cx, &live.path).await?;
        let laid_out = async {
            let new = switch.prepare()?;
            self.lay_out(cx, &live, &present.state, to, from, before, &new).await?;
            Ok(switch.prepared()?)
        };
        laid_out.await.inspect_err(|_: &Failure| switch.give_up())?;
        Ok(Proof::of(format!("{} checked out beside {}", to.short(), self.shown)))
    }

    /// Whether the target is checked out beside, with all that the live repository knows by name.
    pub(super) async fn staged(&self, cx: &Cx, live: &Live, to: &Revision) -> bool {
        let switch = Switch::staged(live, to);
        let Ok(Some(ready)) = switch.ready() else { return false };
        let there = self.look(cx, ready).await.is_ok_and(|looked| looked.revision == *to);
        there
            && match (self.names(cx, ready).await, self.names(cx, &live.path).await) {
                (Ok(ready), Ok(live)) => ready == live,
                _ => false,
            }
    }

    /// Everything that may fail, done to a copy.
    #[expect(clippy::too_many_arguments, reason = "one caller; the parts of one restore")]
    async fn prepare(
        &self,
        cx: &Cx,
        switch: &Switch,
        live: &Live,
        present: &State,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: &Before,
    ) -> Result<(), Failure> {
        let new = match self.paths.is_empty() && self.staged(cx, live, to).await {
            true => switch.adopt(&Switch::staged(live, to))?,
            false => {
                let new = switch.prepare()?;
                self.lay_out(cx, live, present, to, from, before, &new).await?;
                new
            }
        };
        let tree_owner = owner(&fs::symlink_metadata(&live.path).trying("look at", &live.path)?);
        let owned = new.clone();
        blocking(move |_| copy::own_all(&owned, tree_owner)).await??;
        self.compare(cx, &new, to).await?;
        let kept = self.kept_paths(cx, live, &new, present).await?;
        let carried = carry_over(live.path.clone(), new.clone(), kept).await?;
        if !carried.left.is_empty() {
            tracing::info!(paths = ?carried.left, "left in the former tree only");
        }
        self.ignore_what_is_new(cx, &new).await?;
        self.compare(cx, &new, to).await?;
        Ok(switch.prepared()?)
    }

    /// The target as it was recorded, at a name of its own.
    #[expect(clippy::too_many_arguments, reason = "the parts of one restore")]
    async fn lay_out(
        &self,
        cx: &Cx,
        live: &Live,
        present: &State,
        to: &Revision,
        from: Option<&CaptureRef>,
        before: &Before,
        new: &Path,
    ) -> Result<(), Failure> {
        let made = self.captures.find(from, before, to)?;
        let source = self.source(to, made.clone())?;
        if let Some(commit) = &source.commit {
            if let Some(why) = state::missing(&self.git, &live.path, commit, None, cx.limit).await? {
                return Err(Failure::never(why).advise("fetch it, or choose another release"));
            }
            let content = self.tree_digest(cx, &live.path, commit).await?;
            if source.beyond.is_none() && made.as_ref().is_some_and(|made| made.content != content) {
                return Err(Failure::never("the record of the capture has another tree than the commit"));
            }
        }
        self.begin_tree(live, new).await?;
        match self.paths.is_empty() {
            true => self.check_out(cx, new, source.commit.as_deref().unwrap_or(&present.head)).await?,
            false => self.check_out_paths(cx, live, new, present, source.commit.as_deref()).await?,
        }
        match &source.beyond {
            Some(beyond) => self.overlay(cx, beyond, new, new.with_extension("capture")).await,
            None => Ok(()),
        }
    }

    /// The root and the repository of the second working tree.
    async fn begin_tree(&self, live: &Live, new: &Path) -> Result<(), Failure> {
        let (from, to) = (live.path.clone(), new.to_owned());
        blocking(move |_| {
            let is = fs::symlink_metadata(&from).trying("look at", &from)?;
            fs::create_dir(&to).trying("create", &to)?;
            fs::set_permissions(&to, is.permissions()).trying("set the mode of", &to)?;
            copy::repository(&from.join(".git"), &to.join(".git"))
        })
        .await?
    }

    async fn check_out(&self, cx: &Cx, new: &Path, commit: &str) -> Result<(), Failure> {
        // The tree is empty and the copied index says otherwise: without it every file is written afresh.
        remove(&new.join(".git/index"))?;
        point("check out");
        self.git.ask(new, &["update-ref", "--no-deref", "-m", DETACHED, "HEAD", commit], cx.limit).await?;
        self.git.ask(new, &["read-tree", "-u", "--reset", commit], cx.limit).await?;
        Ok(())
    }

    /// The whole present tree, with only `paths` as they were.
    async fn check_out_paths(
        &self,
        cx: &Cx,
        live: &Live,
        new: &Path,
        present: &State,
        commit: Option<&str>,
    ) -> Result<(), Failure> {
        let listed = self.git.ask(&live.path, &["ls-files", "-z"], cx.limit).await?;
        let mut files: BTreeSet<PathBuf> = entries(&listed).map(path).collect();
        files.extend(present.untracked.iter().cloned());
        let (from, to) = (live.path.clone(), new.to_owned());
        point("copy tree");
        blocking(move |_| files.iter().try_for_each(|file| copy::path(&from, &to, file))).await??;
        let Some(commit) = commit else { return Ok(()) };
        // Ours are those of the target and nothing else: what was added since goes.
        for file in state::present(&self.git, new, &self.paths, cx.limit).await? {
            remove(&new.join(path(&file.path)))?;
        }
        let wanted = state::tracked(&self.git, new, commit, &self.paths, cx.limit).await?;
        let mut index: Vec<u8> = Vec::new();
        let listed = self
            .git
            .ask_with(new, &[&["ls-files", "-z", "--"][..], &self.refs()].concat(), With::default(), cx.limit)
            .await?;
        for gone in entries(&listed) {
            index.extend_from_slice(format!("0 {}\t", "0".repeat(commit.len())).as_bytes());
            index.extend_from_slice(gone);
            index.push(0);
        }
        for file in &wanted {
            index.extend_from_slice(format!("{} {}\t", file.mode, file.object).as_bytes());
            index.extend_from_slice(&file.path);
            index.push(0);
        }
        let with = With { input: Some(index), ..With::default() };
        self.git.ask_with(new, &["update-index", "-z", "--index-info"], with, cx.limit).await?;
        let names = wanted.iter().flat_map(|file| [file.path.as_slice(), &[0]]).flatten().copied().collect();
        let with = With { input: Some(names), ..With::default() };
        self.git.ask_with(new, &["checkout-index", "-f", "-z", "--stdin"], with, cx.limit).await?;
        Ok(())
    }

    fn refs(&self) -> Vec<&str> {
        self.paths.iter().map(String::as_str).collect()
    }

    /// What was prepared is what is wanted, or it is not used.
    async fn compare(&self, cx: &Cx, new: &Path, to: &Revision) -> Result<(), Failure> {
        let looked = self.look(cx, new).await?;
        if looked.revision != *to {
            let found = looked.revision.short();
            let what = format!("what was checked out is {found}, not {}: {}", to.short(), looked.state.changes());
            return Err(Failure::never(what).advise("look at the filters and attributes of the repository"));
        }
        if self.paths.is_empty() && looked.state.is_clean() {
            let written = self.git.line(new, &["write-tree"], cx.limit).await?;
            let tree = self.git.line(new, &["rev-parse", "HEAD^{tree}"], cx.limit).await?;
            if written != tree {
                return Err(Failure::never(format!("what was checked out is tree {written}, not {tree}")));
            }
        }
        Ok(())
    }

    /// What is data: all that git ignores, by the present rules or by the target's, or what `keep` names.
    async fn kept_paths(
        &self,
        cx: &Cx,
        live: &Live,
        new: &Path,
        present: &State,
    ) -> Result<impl Fn(&str) -> Kept + Send + 'static + use<>, Failure> {
        let mut kept: BTreeSet<String> = BTreeSet::new();
        if self.keep.is_empty() {
            kept.extend(present.ignored.iter().map(|path| path_text(path)));
            let asked: Vec<u8> =
                present.untracked.iter().flat_map(|path| [bytes(path), &[0]]).flatten().copied().collect();
            if !asked.is_empty() {
                // This one question refuses to take paths literally, and takes them so all the same.
                let with = With { input: Some(asked), environment: vec![("GIT_LITERAL_PATHSPECS", "0".to_owned())] };
                let said = match self.git.ask_with(new, &["check-ignore", "-z", "--stdin"], with, cx.limit).await {
                    Ok(said) => said,
                    // It ends with 1 and says nothing when none is ignored.
                    Err(failure) if failure.output.as_deref() == Some("") => vec![],
                    Err(failure) => return Err(failure),
                };
                kept.extend(entries(&said).map(|entry| path_text(&path(entry))));
            }
        }
        let patterns = self.keep.clone();
        // A tracked file of either tree is a release's, never data.
        let mut tracked: BTreeSet<String> = BTreeSet::new();
        for tree in [&live.path, new] {
            let listed = self.git.ask(tree, &["ls-files", "-z"], cx.limit).await?;
            tracked.extend(entries(&listed).map(|entry| path_text(&path(entry))));
        }
        Ok(move |path: &str| match path {
            ".git" => Kept::Nothing,
            path if tracked.contains(path) => Kept::Nothing,
            path if kept.contains(path) => Kept::All,
            path => Kept::named(&patterns, path),
        })
    }

    /// What was carried over and is not ignored by the target's rules would look like somebody's change from now on.
    async fn ignore_what_is_new(&self, cx: &Cx, new: &Path) -> Result<(), Failure> {
        if !self.keep.is_empty() || !self.paths.is_empty() {
            return Ok(());
        }
        let found = State::of(&self.git, new, &|path| self.kept(path), cx.limit).await?;
        let tracked_before: BTreeSet<_> = found.untracked.iter().filter(|path| is_shared(&new.join(path))).collect();
        if tracked_before.is_empty() {
            return Ok(());
        }
        let info = new.join(".git/info");
        fs::create_dir_all(&info).trying("create", &info)?;
        let exclude = info.join("exclude");
        let mut file = OpenOptions::new().append(true).create(true).open(&exclude).trying("open", &exclude)?;
        for path in tracked_before {
            let mut line = b"\n/".to_vec();
            for byte in bytes(path) {
                if b"\\*?[ #!".contains(byte) {
                    line.push(b'\\');
                }
                line.push(*byte);
            }
            line.push(b'\n');
            file.write_all(&line).trying("write", &exclude)?;
        }
        Ok(())
    }

    /// After the exchange, where nothing can fail any more that would be said of the restore itself.
    async fn finish(&self, cx: &Cx, switch: &Switch, live: &Live) -> Result<Proof, Stop> {
        self.settle(cx, switch, live).await.map_err(|failure| Stop::Unknown(failure.what))
    }

    /// What came to the kept files meanwhile, the name for what was live, what still points at it.
    async fn settle(&self, cx: &Cx, switch: &Switch, live: &Live) -> Result<Proof, Failure> {
        let mut bad = None;
        if let Some(former) = switch.ready()?.map(Path::to_owned) {
            let state = State::of(&self.git, &former, &|path| self.kept(path), cx.limit).await?;
            bad = Some(state.head.clone());
            let was = Live::of(&former)?;
            let kept = self.kept_paths(cx, &was, &live.path, &state).await?;
            carry_over(former, live.path.clone(), kept).await?;
        }
        let kept = switch.keep()?;
        let head = self.git.line(&live.path, &["rev-parse", "HEAD"], cx.limit).await?;
        let mut words = match self.paths.is_empty() {
            true => format!("{} is detached at {}", self.shown, &head[..12.min(head.len())]),
            false => format!("{} of {} are as recorded", self.paths.join(", "), self.shown),
        };
        if let Some(bad) = bad.filter(|bad| *bad != head) {
            let pointing = self.pointing(cx, live, &bad).await?;
            if !pointing.is_empty() {
                words.push_str(&format!(
                    "; {} still at {}, where a pull or deploy would take it back",
                    pointing.join(", "),
                    &bad[..12]
                ));
            }
        }
        Ok(said(words, kept))
    }

    /// What names a commit that a pull or a deployment would go to.
    async fn pointing(&self, cx: &Cx, live: &Live, commit: &str) -> Result<Vec<String>, Failure> {
        let refs = ["for-each-ref", "--format=%(refname:short)", "--points-at", commit, "refs/heads", "refs/remotes"];
        let pointing = self.git.ask(&live.path, &refs, cx.limit).await?;
        Ok(String::from_utf8_lossy(&pointing).lines().map(|name| format!("`{name}`")).collect())
    }

    /// What would take the tree to what it was taken back from, or is to be: names that still stand for that (B11).
    pub(super) async fn puts_back(&self, cx: &Cx, live: &Live, state: &State, leaves: bool) -> Vec<String> {
        let ask = |words: &'static [&'static str]| self.git.line(&live.path, words, cx.limit);
        let was_ours = ask(&["log", "--walk-reflogs", "--max-count=1", "--format=%gs", "HEAD"]);
        let bad = match leaves {
            true => Ok(state.head.clone()),
            false if state.branch.is_none() && was_ours.await.is_ok_and(|said| said == DETACHED) => {
                ask(&["rev-parse", "--verify", "HEAD@{1}"]).await
            }
            false => return vec![],
        };
        let Ok(bad) = bad else { return vec![] };
        let pointing = self.pointing(cx, live, &bad).await.unwrap_or_default();
        let short = bad.get(..12).unwrap_or(&bad);
        match pointing.is_empty() || bad == state.head && !leaves {
            true => vec![],
            false => vec![format!("{} at {short}: a pull or a deployment of it goes there", pointing.join(", "))],
        }
    }
}

/// Made by a hard link from the former tree, so not by the checkout.
fn is_shared(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).is_ok_and(|meta| meta.nlink() > 1 || meta.is_symlink())
}

async fn carry_over(
    from: PathBuf,
    to: PathBuf,
    kept: impl Fn(&str) -> Kept + Send + 'static,
) -> Result<Carried, Failure> {
    blocking(move |_| carry(&from, &to, &kept)).await?
}

/// Another git at work there could change what is being copied.
fn unlocked(tree: &Path) -> Result<(), Failure> {
    for lock in [".git/index.lock", ".git/HEAD.lock"] {
        if meta(&tree.join(lock))?.is_some() {
            return Err(Failure::later(format!(
                "{} is there: another git is at work, or one died",
                tree.join(lock).display()
            ))
            .advise("look for the process; if there is none, remove the lock file"));
        }
    }
    Ok(())
}

fn said(found: String, kept: Option<PathBuf>) -> Proof {
    Proof { set_aside: kept.iter().map(|kept| kept.display().to_string()).collect(), ..Proof::of(found) }
}
