//! Where the file is: a directory nobody else may write to, on a file system whose locks can be relied on.
//!
//! SQLite's write-ahead log keeps its index in shared memory, which two machines cannot share, and locks over a network are known to
//! lie ("WAL does not work over a network filesystem", sqlite.org/wal.html): such a place is refused, not warned about.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ripcord_core::StoreError;

pub(crate) const FILE: &str = "ripcord.db";

fn unavailable(why: String) -> StoreError {
    StoreError::Unavailable { why }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> StoreError {
    unavailable(format!("{what} `{}`: {error}", path.display()))
}

/// Makes sure of the directory and the file, and returns the file's path.
pub(crate) fn prepare(directory: &Path) -> Result<PathBuf, StoreError> {
    if !directory.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed("cannot create", directory, &error))?;
    }
    suits(directory)?;
    let path = directory.join(FILE);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(_) => File::open(directory).and_then(|directory| directory.sync_all()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => keep_private(&path),
        Err(error) => Err(error),
    }
    .map_err(|error| failed("cannot write", &path, &error))?;
    Ok(path)
}

/// The file of a store that is there; none where there is none.
pub(crate) fn find(directory: &Path) -> Result<Option<PathBuf>, StoreError> {
    let path = directory.join(FILE);
    match path.try_exists() {
        Ok(false) => Ok(None),
        Ok(true) => suits(directory).map(|()| Some(path)),
        Err(error) => Err(failed("cannot look for", &path, &error)),
    }
}

fn suits(directory: &Path) -> Result<(), StoreError> {
    let found = directory.metadata().map_err(|error| failed("cannot read", directory, &error))?;
    if !found.is_dir() {
        return Err(unavailable(format!("`{}` is not a directory", directory.display())));
    }
    // The file itself is private whatever the directory is, but who may write to the directory may put another in its place.
    if found.permissions().mode() & 0o022 != 0 {
        let path = directory.display();
        return Err(unavailable(format!("others may write to `{path}`: give it to one user with `chmod 700 {path}`")));
    }
    match network(directory) {
        Some(kind) => Err(unavailable(format!(
            "`{}` is on a network file system ({kind}), where locks cannot be relied on: choose a local directory with RIPCORD_STATE",
            directory.display()
        ))),
        None => Ok(()),
    }
}

fn keep_private(path: &Path) -> io::Result<()> {
    let mode = path.metadata()?.permissions().mode();
    match mode & 0o077 {
        0 => Ok(()),
        _ => std::fs::set_permissions(path, Permissions::from_mode(0o600)),
    }
}

/// What network file system a directory is on, where that can be told. Best effort: a kind nobody has heard of passes.
#[cfg(target_os = "linux")]
fn network(directory: &Path) -> Option<String> {
    let found = rustix::fs::statfs(directory).ok()?;
    // The field's type differs between architectures, its 32 bits do not.
    let magic = found.f_type as u32;
    if magic != FUSE {
        return by_magic(magic).map(str::to_owned);
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let kind = mounted(&mounts, &directory.canonicalize().ok()?)?;
    remote_fuse(kind).then(|| kind.to_owned())
}

#[cfg(not(target_os = "linux"))]
fn network(_: &Path) -> Option<String> {
    None
}

#[cfg(target_os = "linux")]
const FUSE: u32 = 0x6573_5546;

/// Source: statfs(2), and `include/uapi/linux/magic.h` of Linux.
#[cfg(target_os = "linux")]
fn by_magic(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "nfs",
        0x517b => "smb",
        0xfe53_4d42 => "smb2",
        0xff53_4d42 => "cifs",
        0x5346_414f | 0x6b41_4653 => "afs",
        0x7375_7245 => "coda",
        0x00c3_6400 => "ceph",
        0x0102_1997 => "9p",
        0x0bd0_0bd0 => "lustre",
        0x786f_4256 => "vboxsf",
        _ => return None,
    })
}

/// The kind of the innermost mount that holds `path`.
#[cfg(target_os = "linux")]
fn mounted<'a>(mountinfo: &'a str, path: &Path) -> Option<&'a str> {
    let of = |line: &'a str| {
        // "36 35 98:0 /root /mount/point options ... - kind source options": proc(5). Spaces in a path are `\040`.
        let (before, after) = line.split_once(" - ")?;
        let point = PathBuf::from(before.split(' ').nth(4)?.replace("\\040", " "));
        let kind = after.split(' ').next()?;
        path.starts_with(&point).then(|| (point.components().count(), kind))
    };
    // Later lines are mounted over earlier ones: of equals, `max_by_key` takes the last.
    mountinfo.lines().filter_map(of).max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

/// FUSE file systems that reach over a network. Others (ntfs-3g, encfs) are local.
#[cfg(target_os = "linux")]
fn remote_fuse(kind: &str) -> bool {
    let name = kind.strip_prefix("fuse.").unwrap_or(kind);
    ["sshfs", "s3fs", "rclone", "glusterfs", "goofys", "gcsfuse", "blobfuse", "ceph-fuse", "davfs", "juicefs", "cifs"]
        .iter()
        .any(|known| name.starts_with(known))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_number() {
        let names = [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997].map(by_magic);
        assert_eq!(names, [Some("nfs"), Some("cifs"), Some("smb2"), Some("9p")]);
        // ext4, tmpfs, btrfs, overlayfs, xfs
        assert_eq!([0xef53, 0x0102_1994, 0x9123_683e, 0x794c_7630, 0x5846_5342].map(by_magic), [None; 5]);
    }

    #[test]
    fn a_fuse_mount_is_judged_by_its_kind() {
        let mounts = "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            50 22 0:40 / /srv/my\\040disk rw - fuse.sshfs me@host:/x rw\n\
            51 50 0:41 / /srv/my\\040disk/local rw - fuse.ntfs-3g /dev/sdb rw\n";
        let kind = |path: &str| mounted(mounts, Path::new(path));
        assert_eq!(kind("/srv/my disk/state"), Some("fuse.sshfs"));
        assert_eq!(kind("/srv/my disk/local/state"), Some("fuse.ntfs-3g"));
        assert_eq!(kind("/srv/other"), Some("ext4"));
        assert!(remote_fuse("fuse.sshfs") && !remote_fuse("fuse.ntfs-3g") && !remote_fuse("fuseblk"));
    }
}
