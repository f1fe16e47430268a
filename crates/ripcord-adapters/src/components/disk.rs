//! Whether there is room for what is to be written: found out before anything is, and without writing.
//!
//! What others write meanwhile is not known, so a full disk can still be met later; but one that is full now is no surprise half
//! way. The vault's own file system is not asked: what a capture adds to it is what it does not hold already, which nobody knows
//! beforehand.
//! Source: statvfs(3); `f_bavail` is what users other than root may still take.

use std::path::Path;

use ripcord_core::Failure;
use rustix::fs::{Access, StatVfs, access, statvfs};

use super::files::Trying;

/// Refuses where `directory` may not be written, or cannot take so many bytes (and a twentieth more, for what every file costs
/// beyond them) and files. `what` is what needs them, for people.
pub(crate) fn room(directory: &Path, what: &str, bytes: u64, files: u64) -> Result<(), Failure> {
    access(directory, Access::WRITE_OK | Access::EXEC_OK).trying("write in", directory)?;
    let disk = statvfs(directory).trying("look at the disk of", directory)?;
    match lacking(&disk, bytes.saturating_add(bytes / 20), files) {
        None => Ok(()),
        Some((needs, has)) => {
            let what = format!("{what} needs {needs} on {}, {has}", directory.display());
            Err(Failure::never(what).advise("free space there, then retry; nothing was changed"))
        }
    }
}

/// What is needed, and what there is of it. None where there is enough, and where the file system does not count.
fn lacking(disk: &StatVfs, bytes: u64, files: u64) -> Option<(String, String)> {
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if disk.f_blocks > 0 && free < bytes {
        return Some((size(bytes, f64::ceil), format!("{} are free", size(free, f64::floor))));
    }
    if disk.f_files > 0 && disk.f_favail < files {
        return Some((format!("{files} files"), format!("{} more can be made (inodes)", disk.f_favail)));
    }
    None
}

/// A number of bytes with two or three digits. What is needed is rounded up and what is free down, so that they never look equal.
fn size(bytes: u64, round: fn(f64) -> f64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let Some((unit, name)) = units.into_iter().find(|(unit, _)| bytes as f64 >= *unit) else {
        return format!("{bytes} bytes");
    };
    let value = bytes as f64 / unit;
    match value < 10.0 {
        true => format!("{:.1} {name}", round(value * 10.0) / 10.0),
        false => format!("{:.0} {name}", round(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_never_looks_like_what_is_free() {
        assert_eq!((size(999, f64::ceil), size(1_000, f64::ceil)), ("999 bytes".into(), "1.0 kB".into()));
        assert_eq!(
            (size(1_234_567_890, f64::ceil), size(1_234_567_890, f64::floor)),
            ("1.3 GB".into(), "1.2 GB".into())
        );
        assert_eq!((size(300_000_001, f64::ceil), size(300_999_999, f64::floor)), ("301 MB".into(), "300 MB".into()));
    }

    #[test]
    fn more_than_there_is_is_refused_with_both_figures() {
        let dir = tempfile::tempdir().unwrap();
        room(dir.path(), "the restore", 1, 1).unwrap();
        let refused = room(dir.path(), "the restore", u64::MAX / 2, 1).unwrap_err();
        let beginning = format!("the restore needs 9684541 TB on {}, ", dir.path().display());
        assert!(refused.what.starts_with(&beginning) && refused.what.ends_with(" are free"), "{}", refused.what);
        assert_eq!(refused.retry, ripcord_core::Retry::Never);
        let gone = room(&dir.path().join("gone"), "the restore", 1, 1).unwrap_err();
        assert!(gone.what.contains("cannot write in"), "{}", gone.what);
    }

    #[test]
    fn files_can_run_out_before_bytes_do() {
        let mut disk = statvfs("/").unwrap();
        (disk.f_blocks, disk.f_bavail, disk.f_frsize, disk.f_files, disk.f_favail) = (100, 100, 4096, 10, 3);
        assert_eq!(lacking(&disk, 100 * 4096, 3), None);
        assert_eq!(lacking(&disk, 1, 4), Some(("4 files".into(), "3 more can be made (inodes)".into())));
        // Some file systems make files as they are needed, and some count nothing at all.
        disk.f_files = 0;
        assert_eq!(lacking(&disk, 1, 4), None);
        assert!(lacking(&disk, 101 * 4096, 0).is_some());
        disk.f_blocks = 0;
        assert_eq!(lacking(&disk, 101 * 4096, 0), None);
    }
}
