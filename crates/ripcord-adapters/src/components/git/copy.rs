//! A second working tree made from the live one: its repository by hard links, what it must keep by hard links, files copied.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ripcord_core::Failure;

use crate::components::files::{FileError, Owner, Trying, meta, own, owner, point};

/// Copies the repository. Objects never change, so they are shared; everything else would.
pub(super) fn repository(from: &Path, to: &Path) -> Result<(), Failure> {
    point("copy repository");
    copy(from, to, Path::new(""), &|path| match path.extension() {
        // A lock belongs to a git that is at work in the live tree, not here.
        Some(extension) if extension == "lock" => How::Skip,
        // `info` holds lists that are written in place.
        _ if path.starts_with("objects") && !path.starts_with("objects/info") => How::Share,
        _ => How::Copy,
    })?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Skip,
    /// By a hard link: the same file under both names.
    Share,
    Copy,
}

/// Copies one file, link or directory of a working tree.
pub(super) fn path(from: &Path, to: &Path, path: &Path) -> Result<(), FileError> {
    if let Some(parent) = path.parent() {
        let target = to.join(parent);
        fs::create_dir_all(&target).trying("create", &target)?;
    }
    copy(from, to, path, &|_| How::Copy)
}

fn copy(from: &Path, to: &Path, path: &Path, how: &dyn Fn(&Path) -> How) -> Result<(), FileError> {
    let (source, target) = (from.join(path), to.join(path));
    let Some(is) = meta(&source)? else { return Ok(()) };
    if is.is_symlink() {
        let leads = fs::read_link(&source).trying("read the link", &source)?;
        std::os::unix::fs::symlink(leads, &target).trying("create", &target)?;
        return own(&target, owner(&is));
    }
    if is.is_file() {
        match how(path) {
            How::Skip => return Ok(()),
            How::Share => return fs::hard_link(&source, &target).trying("link", &source),
            How::Copy => fs::copy(&source, &target).trying("copy", &source)?,
        };
        return own(&target, owner(&is));
    }
    if !is.is_dir() {
        return Ok(());
    }
    if meta(&target)?.is_none() {
        fs::create_dir(&target).trying("create", &target)?;
        own(&target, owner(&is))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(is.mode() & 0o7777))
            .trying("set the mode of", &target)?;
    }
    let list = fs::read_dir(&source).and_then(|list| list.collect::<Result<Vec<_>, _>>()).trying("list", &source)?;
    list.iter().try_for_each(|entry| copy(from, to, &path.join(entry.file_name()), how))
}

/// Gives what was made here the owner of the live tree. What is shared with it by hard links has its own.
pub(super) fn own_all(root: &Path, to: Owner) -> Result<(), FileError> {
    let mut open = vec![root.to_owned()];
    own(root, to)?;
    while let Some(directory) = open.pop() {
        let list = fs::read_dir(&directory).and_then(|list| list.collect::<Result<Vec<_>, _>>());
        for entry in list.trying("list", &directory)? {
            let path = entry.path();
            let Some(is) = meta(&path)? else { continue };
            if is.is_dir() || is.nlink() == 1 {
                own(&path, to)?;
            }
            if is.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(())
}

/// All files at and below the paths, relative to `root`; for staging them.
pub(super) fn files(root: &Path, paths: impl Iterator<Item = PathBuf>) -> Result<Vec<PathBuf>, FileError> {
    let (mut found, mut open): (Vec<PathBuf>, Vec<PathBuf>) = (vec![], paths.collect());
    while let Some(path) = open.pop() {
        let at = root.join(&path);
        match meta(&at)? {
            None => {}
            Some(is) if is.is_dir() => {
                let list =
                    fs::read_dir(&at).and_then(|list| list.collect::<Result<Vec<_>, _>>()).trying("list", &at)?;
                open.extend(list.iter().map(|entry| path.join(entry.file_name())));
            }
            Some(_) => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}
