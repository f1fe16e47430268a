//! What a capture and a restore cost: megabytes per second and peak memory.
//!
//! `cargo bench -p ripcord-vault -- [megabytes]` makes data, captures it (reading every byte back), restores it, and prints
//! figures. `capture`, `restore` and `data` do one of these alone, for `vault-vs-restic.sh`. `stream` captures one stream of
//! unknown length in a process of its own, to see that memory stays flat.

#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use ripcord_vault::{Label, Manifest, Source, Vault, VaultKey};

type Outcome = Result<(), Box<dyn Error>>;

const SMALL_FILES: usize = 5_000;
const LARGE_FILES: usize = 4;

fn main() -> Outcome {
    // cargo adds `--bench`.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["data", directory, megabytes] => data(Path::new(directory), megabytes.parse()?),
        ["capture", vault, key, directory, manifest] => {
            let manifest_of = capture(vault, key, directory)?;
            Ok(fs::write(manifest, serde_json::to_vec(&manifest_of)?)?)
        }
        ["restore", vault, key, manifest, into] => restore(vault, key, manifest, into),
        ["stream", megabytes] => stream(megabytes.parse()?),
        [] => all(64),
        [megabytes] => all(megabytes.parse()?),
        _ => {
            Err("use: [megabytes] | data DIR MB | capture VAULT KEY DIR MANIFEST | restore VAULT KEY MANIFEST INTO"
                .into())
        }
    }
}

fn all(megabytes: usize) -> Outcome {
    let scratch = env::temp_dir().join(format!("ripcord-vault-bench-{}", std::process::id()));
    let place = |name: &str| scratch.join(name).display().to_string();
    let result = (|| {
        fs::create_dir(&scratch)?;
        VaultKey::generate_file(&scratch.join("key"))?;
        data(&scratch.join("data"), megabytes)?;
        let vault = Vault::open_or_create(&scratch.join("vault"), &VaultKey::from_file(&scratch.join("key"))?)?;
        let took = |what: &str, run: &mut dyn FnMut() -> Outcome| {
            let begun = Instant::now();
            run()?;
            let seconds = begun.elapsed().as_secs_f64();
            println!(
                "{what}: {seconds:.2} s, {:.0} MB/s, peak memory {} MB",
                megabytes as f64 / seconds,
                peak_megabytes()
            );
            Outcome::Ok(())
        };
        drop(vault);
        let mut manifest = None;
        took("capture, read back", &mut || {
            manifest = Some(capture(&place("vault"), &place("key"), &place("data"))?);
            Ok(())
        })?;
        took("capture, unchanged", &mut || capture(&place("vault"), &place("key"), &place("data")).map(drop))?;
        fs::write(scratch.join("manifest"), serde_json::to_vec(&manifest)?)?;
        took("restore", &mut || restore(&place("vault"), &place("key"), &place("manifest"), &place("to")))
    })();
    fs::remove_dir_all(&scratch)?;
    result
}

fn stream(megabytes: usize) -> Outcome {
    let scratch = env::temp_dir().join(format!("ripcord-vault-bench-{}", std::process::id()));
    let result = (|| {
        let vault = Vault::open_or_create(&scratch, &VaultKey::from_text(&"0123456789abcdef".repeat(4))?)?;
        println!("opened: peak memory {} MB", peak_megabytes());
        let reader = Box::new(Random(1).take(megabytes as u64 * 1_000_000));
        let begun = Instant::now();
        let manifest = vault.capture(&label(), vec![Source::Stream { path: "dump".into(), mode: 0o600, reader }])?;
        let seconds = begun.elapsed().as_secs_f64();
        println!("stream: {:.0} MB/s, peak memory {} MB", megabytes as f64 / seconds, peak_megabytes());
        let begun = Instant::now();
        vault.read(&manifest, "dump", &mut io::sink())?;
        let seconds = begun.elapsed().as_secs_f64();
        println!("read: {:.0} MB/s, peak memory {} MB", megabytes as f64 / seconds, peak_megabytes());
        Ok(())
    })();
    fs::remove_dir_all(&scratch)?;
    result
}

fn label() -> Label {
    Label {
        app: "bench".into(),
        capture: "bench".into(),
        component: "files".into(),
        release: None,
        why: "to see what it costs".into(),
    }
}

fn open(vault: &str, key: &str) -> Result<Vault, Box<dyn Error>> {
    Ok(Vault::open_or_create(Path::new(vault), &VaultKey::from_file(Path::new(key))?)?)
}

fn capture(vault: &str, key: &str, directory: &str) -> Result<Manifest, Box<dyn Error>> {
    let tree = Source::Tree { path: String::new(), root: PathBuf::from(directory), except: Vec::new() };
    Ok(open(vault, key)?.capture(&label(), vec![tree])?)
}

fn restore(vault: &str, key: &str, manifest: &str, into: &str) -> Outcome {
    let manifest: Manifest = serde_json::from_slice(&fs::read(manifest)?)?;
    Ok(open(vault, key)?.restore(&manifest, Path::new(into))?)
}

/// Half text that compresses like a dump, half noise, and small files besides.
fn data(directory: &Path, megabytes: usize) -> Outcome {
    fs::create_dir_all(directory)?;
    let mut random = Random(1);
    let each = megabytes * 1_000_000 / (2 * LARGE_FILES);
    for number in 0..LARGE_FILES {
        let mut out = BufWriter::new(File::create(directory.join(format!("noise-{number}")))?);
        for _ in 0..each / 8 {
            out.write_all(&random.next().to_le_bytes())?;
        }
        out.into_inner().map_err(|error| error.into_error())?;
        let mut out = BufWriter::new(File::create(directory.join(format!("text-{number}")))?);
        let mut written = 0;
        while written < each {
            let line = format!(
                "INSERT INTO orders VALUES ({}, 'customer-{:06}', '{:08x}', 'pending', {});\n",
                written,
                random.next() % 1_000_000,
                random.next() as u32,
                random.next() % 100_000
            );
            out.write_all(line.as_bytes())?;
            written += line.len();
        }
        out.into_inner().map_err(|error| error.into_error())?;
    }
    for number in 0..SMALL_FILES {
        let place = directory.join(format!("small/{:02}", number % 50));
        fs::create_dir_all(&place)?;
        let lines: String = (0..30).map(|line| format!("key_{line}: value-{:x}\n", random.next())).collect();
        fs::write(place.join(format!("{number}.yaml")), lines)?;
    }
    Ok(())
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

impl Read for Random {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(buffer.len())
    }
}

/// The most memory this process ever had: `VmHWM` of proc(5).
fn peak_megabytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() / 1000
}
