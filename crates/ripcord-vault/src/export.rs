//! A capture as a tar stream, for whoever has neither Ripcord nor restic.
//!
//! POSIX.1-2001 (pax): what a header of 1988 has no room for, or cannot say exactly, goes into a record before it.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Trying, guarded};
use crate::held::{Held, matched};
use crate::vault::Vault;
use crate::{Entry, Manifest, VaultError, What, text};

const BLOCK: usize = 512;
/// Twelve octal digits less the terminator.
const LARGEST: u64 = 0o77_777_777_777;

impl Vault {
    /// Writes a capture as a tar archive. On an error what `out` got is void.
    pub fn export(&self, manifest: &Manifest, out: &mut dyn Write) -> Result<(), VaultError> {
        guarded(|| {
            manifest.check()?;
            let held = Held::open(self)?;
            let nodes = held.nodes(&manifest.snapshot, held.root(&manifest.snapshot)?)?;
            let (numbers, wanted): (Vec<_>, Vec<_>) = matched(manifest, &nodes)?.into_iter().unzip();
            let mut next = 0;
            let mut begun = None;
            held.contents(&manifest.snapshot, &wanted, |number, bytes| {
                let number = numbers[number];
                let entry = &manifest.entries[number];
                if begun != Some(number) {
                    // Everything before this file that is none itself, and then its own header.
                    headers(out, &manifest.entries[next..=number])?;
                    (next, begun) = (number + 1, Some(number));
                }
                match (bytes, &entry.what) {
                    (Some(bytes), _) => out.write_all(bytes).trying("export", Path::new(&entry.path)),
                    (None, What::File { size, .. }) => padding(out, *size).trying("export", Path::new(&entry.path)),
                    (None, _) => Ok(()),
                }
            })?;
            headers(out, &manifest.entries[next..])?;
            out.write_all(&[0; 2 * BLOCK]).and_then(|()| out.flush()).trying("export", Path::new(""))
        })
    }
}

fn headers(out: &mut dyn Write, entries: &[Entry]) -> Result<(), VaultError> {
    for entry in entries.iter().filter(|entry| !entry.path.is_empty()) {
        header(out, entry)?;
    }
    Ok(())
}

fn header(out: &mut dyn Write, entry: &Entry) -> Result<(), VaultError> {
    let mut path = text::inside(&entry.path)?.into_os_string();
    let (kind, size, target) = match &entry.what {
        What::File { size, .. } => (b'0', *size, None),
        What::Directory => (b'5', 0, None),
        What::Link { target } => (b'2', 0, text::name_of(target)),
    };
    if kind == b'5' {
        path.push("/");
    }
    let target = target.unwrap_or_default();
    let (path, target) = (path.as_bytes(), target.as_bytes());
    let milliseconds = entry.modified_ms.unwrap_or_default();
    let mut records = Vec::new();
    for (name, value) in [("path", path), ("linkpath", target)] {
        if value.len() > 100 || !value.is_ascii() {
            record(&mut records, name, value);
        }
    }
    if size > LARGEST {
        record(&mut records, "size", size.to_string().as_bytes());
    }
    if milliseconds % 1000 != 0 || milliseconds < 0 {
        let sign = if milliseconds < 0 { "-" } else { "" };
        let value = milliseconds.unsigned_abs();
        record(&mut records, "mtime", format!("{sign}{}.{:03}", value / 1000, value % 1000).as_bytes());
    }
    let seconds = u64::try_from(milliseconds / 1000).unwrap_or_default();
    let written = (|| {
        if !records.is_empty() {
            out.write_all(&block(b"pax", b"", b'x', records.len() as u64, 0o644, seconds))?;
            out.write_all(&records)?;
            padding(out, records.len() as u64)?;
        }
        out.write_all(&block(path, target, kind, size, entry.mode, seconds))
    })();
    written.trying("export", Path::new(&entry.path))
}

/// `<length> <name>=<value>\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, name: &str, value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {name}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn block(path: &[u8], target: &[u8], kind: u8, size: u64, mode: u32, seconds: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, room: usize, bytes: &[u8]| {
        let bytes = &bytes[..bytes.len().min(room)];
        block[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, 100, path);
    put(100, 8, format!("{mode:07o}").as_bytes());
    put(108, 8, b"0000000");
    put(116, 8, b"0000000");
    put(124, 12, format!("{:011o}", if size > LARGEST { 0 } else { size }).as_bytes());
    put(136, 12, format!("{:011o}", seconds.min(LARGEST)).as_bytes());
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, target);
    put(257, 8, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn padding(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let over = (size % BLOCK as u64) as usize;
    out.write_all(&[0; BLOCK][..(BLOCK - over) % BLOCK])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_digits() {
        for (length, total) in [(1, 9), (2, 11), (90, 100), (91, 101), (980, 991)] {
            let mut records = Vec::new();
            record(&mut records, "path", &vec![b'a'; length]);
            assert!(records.starts_with(format!("{} path=", records.len()).as_bytes()), "{length} {total}");
        }
    }

    #[test]
    fn a_header_sums_up() {
        let block = block(b"a", b"", b'0', 5, 0o4755, 1);
        let sum = u32::from_str_radix(std::str::from_utf8(&block[148..154]).unwrap(), 8).unwrap();
        let counted: u32 =
            block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
        assert_eq!(sum, counted);
        assert_eq!(&block[100..107], b"0004755");
        assert_eq!(&block[257..265], b"ustar\x0000");
    }
}
