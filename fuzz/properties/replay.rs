//! Replays what fuzzing kept: every file of a corpus, judged as the fuzzer judges it.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// The stack of a runtime's worker, where all of this is read in earnest.
const STACK: usize = 2 << 20;
/// Only whether it ends: what takes this long will not.
const FOREVER: Duration = Duration::from_secs(120);

/// Judges every file of `fuzz/corpus/<target>`, each on a thread of its own.
pub fn replay(target: &str, judge: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{} files in {}", files.len(), directory.display());
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let (over, ended) = mpsc::channel();
        let judging = std::thread::Builder::new().stack_size(STACK).spawn(move || {
            // Dropped when the thread ends, in whatever way.
            let _over: mpsc::Sender<()> = over;
            judge(&bytes);
        });
        let ends = ended.recv_timeout(FOREVER) == Err(mpsc::RecvTimeoutError::Disconnected);
        assert!(ends, "{} does not end", file.display());
        assert!(judging.unwrap().join().is_ok(), "{}", file.display());
    }
}
