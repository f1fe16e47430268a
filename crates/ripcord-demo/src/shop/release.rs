//! Release directories, and the switch between them.
//!
//! `current` is a symbolic link replaced by rename: there is no moment at which it points nowhere.
use super::{Layout, ShopError, layout::write_whole};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::Path,
    str::FromStr,
};

/// How a release misbehaves; part of what is shipped, as a bug would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    None,
    /// Most orders fail; switching FAST_CHECKOUT off halves that, only the former code ends it.
    Checkout,
    /// Orders are answered 201, and each one damages an earlier order.
    CorruptsData,
    /// One request in five takes more than two seconds.
    Slow,
    /// Ends while starting.
    Crash,
    /// Keeps memory for every order.
    Leak,
}

impl Fault {
    const ALL: [(&str, Self); 6] = [
        ("none", Self::None),
        ("checkout", Self::Checkout),
        ("corrupts-data", Self::CorruptsData),
        ("slow", Self::Slow),
        ("crash", Self::Crash),
        ("leak", Self::Leak),
    ];
}

impl FromStr for Fault {
    type Err = ShopError;
    fn from_str(word: &str) -> Result<Self, ShopError> {
        Self::ALL.iter().find(|(name, _)| *name == word).map(|(_, fault)| *fault).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
            ShopError::Usage { why: format!("`{word}` is not a fault; the faults are {}", names.join(", ")) }
        })
    }
}

/// What `release.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    pub version: String,
    pub fault: Fault,
}

/// Makes `into` a release: `release.json` and `static/index.html`, each replaced whole.
///
/// `into` may be there already (a git work tree, say); its other files are left alone.
/// # Errors
/// [`ShopError::BadVersion`] before anything is written; [`ShopError::File`].
pub fn write_release(into: &Path, version: &str, fault: Fault) -> Result<(), ShopError> {
    check_version(version)?;
    let pages = into.join("static");
    fs::create_dir_all(&pages).map_err(ShopError::file("create", &pages))?;
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>The shop</title></head>\n\
         <body><h1>The shop</h1><p>Release <b id=\"version\">{version}</b></p></body>\n</html>\n"
    );
    write_whole(&pages.join("index.html"), page.as_bytes(), 0o644)?;
    let path = into.join("release.json");
    let mut json = serde_json::to_string_pretty(&Release { version: version.to_owned(), fault })
        .map_err(|source| ShopError::BadRelease { path: path.clone(), source })?;
    json.push('\n');
    write_whole(&path, json.as_bytes(), 0o644)
}

/// Points `current` of the shop in `dir` at `releases/<version>`. A running server notices nothing until it is restarted.
/// # Errors
/// [`ShopError::NoRelease`] leaves `current` as it was.
pub fn switch(dir: &Path, version: &str) -> Result<(), ShopError> {
    check_version(version)?;
    let layout = Layout::new(dir);
    if !layout.releases().join(version).join("release.json").is_file() {
        return Err(ShopError::NoRelease { version: version.to_owned(), releases: layout.releases() });
    }
    let link = layout.current();
    let swap = || {
        // A folder of its own gives the new link a name nobody else is using, and removes it if the rename fails.
        let beside = tempfile::Builder::new().prefix(".switch-").tempdir_in(dir)?;
        let new = beside.path().join("current");
        symlink(Path::new("releases").join(version), &new)?;
        fs::rename(&new, &link)?;
        File::open(dir)?.sync_all()
    };
    swap().map_err(ShopError::file("switch", &link))
}

/// Reads the release in `dir`.
pub(super) fn read(dir: &Path) -> Result<Release, ShopError> {
    let path = dir.join("release.json");
    let bytes = fs::read(&path).map_err(ShopError::file("read", &path))?;
    let release: Release =
        serde_json::from_slice(&bytes).map_err(|source| ShopError::BadRelease { path: path.clone(), source })?;
    check_version(&release.version)?;
    Ok(release)
}

/// A version is part of a path and of a metric's label, so it is kept to what is harmless in both.
fn check_version(version: &str) -> Result<(), ShopError> {
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_');
    let fits = (1..=64).contains(&version.len()) && version.chars().all(harmless) && !version.starts_with(['.', '-']);
    if fits { Ok(()) } else { Err(ShopError::BadVersion { version: version.to_owned() }) }
}

/// The page of the release in `dir`.
pub(super) fn read_page(dir: &Path) -> Result<String, ShopError> {
    let path = dir.join("static/index.html");
    let read: io::Result<String> = fs::read_to_string(&path);
    read.map_err(ShopError::file("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_reads_back_as_written_and_shows_its_version() {
        let dir = tempfile::tempdir().unwrap();
        for (name, fault) in Fault::ALL {
            write_release(dir.path(), "v1.2.0-rc.1", fault).unwrap();
            assert_eq!(read(dir.path()).unwrap(), Release { version: "v1.2.0-rc.1".into(), fault });
            assert_eq!(name.parse::<Fault>().unwrap(), fault);
            let json = fs::read_to_string(dir.path().join("release.json")).unwrap();
            assert!(json.contains(&format!("\"{name}\"")), "the file and the command line use one name: {json}");
        }
        assert!(read_page(dir.path()).unwrap().contains(">v1.2.0-rc.1<"));
        assert!("tea".parse::<Fault>().unwrap_err().to_string().contains("corrupts-data"));
    }

    #[test]
    fn versions_that_would_leave_the_folder_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let long = "9".repeat(65);
        for version in ["", "..", "../v1", "a/b", ".hidden", "-rf", "v 1", "v\"1", "v1\n", long.as_str()] {
            assert!(matches!(write_release(dir.path(), version, Fault::None), Err(ShopError::BadVersion { .. })));
            assert!(matches!(switch(dir.path(), version), Err(ShopError::BadVersion { .. })), "{version}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was written");
    }

    #[test]
    fn the_switch_replaces_the_link_and_leaves_no_rubbish() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        for version in ["v1", "v2"] {
            write_release(&layout.releases().join(version), version, Fault::None).unwrap();
            switch(dir.path(), version).unwrap();
            assert_eq!(read(&layout.current()).unwrap().version, version);
        }
        assert!(matches!(switch(dir.path(), "v3"), Err(ShopError::NoRelease { .. })));
        assert_eq!(fs::read_link(layout.current()).unwrap(), Path::new("releases/v2"), "a refusal changes nothing");
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["current", "releases"]);
    }
}
