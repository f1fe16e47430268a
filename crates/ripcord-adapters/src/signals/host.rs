//! The machine that Ripcord runs on: processor time, memory, disks, load average.
//!
//! What is measured is the machine as the kernel tells it, also inside a container: its processors, memory and load are the whole
//! machine's there, and a limit of the container's own (cgroup) is neither seen nor counted against. Only a file system is the
//! container's: the one that `path` is on as the container sees it. What one process takes is the kind `process`.
//! Source: proc(5), `/proc/stat`, `/proc/meminfo`, `/proc/loadavg`; statvfs(3); df(1) for what counts as used.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Redactor, Sample, Signal, SignalId, Unit};
use rustix::fs::{StatVfs, statvfs};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{failed, locked};
use crate::{BuildCx, BuildError, SignalKind};

/// The machine that Ripcord runs on. Inside a container too it is the whole machine that is measured, whatever the container's own
/// limits are; a disk is the one that the container sees.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub measure: Measure,
    /// With `disk` and `inodes`: a file or directory on the file system that is meant, relative to `ripcord.yaml`.
    #[serde(default)]
    pub path: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The share of all processors' time that was not idle since the last reading; waiting for a disk is idle. The first reading is
    /// empty: it takes two.
    Cpu,
    /// The share of memory that is not available to programs without swapping; what caches hold is available.
    Memory,
    /// The share of a file system's space that is used, as `df` says it: what is reserved for root is neither used nor free.
    Disk,
    /// The share of a file system's files (inodes) that are used. Empty where it makes them as they are needed.
    Inodes,
    /// How many processes ran or waited to run (or for a disk), on average over the last minute. Beside the number of processors,
    /// the field `processors`, it says how loaded the machine is.
    Load,
}

impl Measure {
    fn of_a_path(self) -> bool {
        matches!(self, Self::Disk | Self::Inodes)
    }
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "host",
        summary: "The machine Ripcord runs on: processor time, memory, disk space, inodes, load average.",
        example: "\
measure: disk
path: /var/lib
",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        match (self.measure.of_a_path(), &self.path) {
            (true, None) => {
                let help = "give `path`: any file or directory on it";
                vec![Mistake::new("it does not say which file system").at("measure").help(help)]
            }
            (false, Some(_)) => {
                let help = "take it out, or measure `disk` or `inodes`";
                vec![Mistake::new("this is measured for the whole machine, not for a path").at("path").help(help)]
            }
            _ => vec![],
        }
    }

    fn unit(&self) -> Unit {
        match self.measure {
            Measure::Load => Unit::Number,
            Measure::Cpu | Measure::Memory | Measure::Disk | Measure::Inodes => Unit::Ratio,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        match self.measure {
            Measure::Cpu => &[],
            Measure::Memory => &["available_bytes", "total_bytes"],
            Measure::Disk => &["free_bytes", "total_bytes"],
            Measure::Inodes => &["free", "total"],
            Measure::Load => &["five_minutes", "fifteen_minutes", "processors"],
        }
    }

    fn build(&self, _id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let watch = Watch {
            measure: self.measure,
            path: cx.base.join(self.path.as_deref().unwrap_or(Path::new(""))),
            before: Mutex::default(),
        };
        Ok(Arc::new(Machine { settings: self.clone(), watch: Arc::new(watch), redactor: cx.redactor.clone() }))
    }
}

struct Machine {
    settings: Settings,
    watch: Arc<Watch>,
    redactor: Redactor,
}

struct Watch {
    measure: Measure,
    path: PathBuf,
    /// The processors' time at the last reading.
    before: Mutex<Option<Ticks>>,
}

/// What belongs to a value.
type Fields = Vec<(&'static str, Value)>;
/// A value and what belongs to it; none where there is nothing to take a share of.
type Measured = Option<(f64, Fields)>;

/// Processor time since the machine was started, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Watch {
    fn look(&self, at: Timestamp) -> Result<Reading, String> {
        let measured = match self.measure {
            Measure::Cpu => {
                let now = ticks(&text("/proc/stat")?).ok_or("`/proc/stat` has no line of all processors")?;
                let before = locked(&self.before).replace(now);
                before.and_then(|before| busy(before, now)).map(|share| (share, vec![]))
            }
            Measure::Memory => memory(&text("/proc/meminfo")?)?,
            Measure::Load => Some(load(&text("/proc/loadavg")?, &text("/proc/stat")?)?),
            Measure::Disk => space(&self.disk()?),
            Measure::Inodes => inodes(&self.disk()?),
        };
        let Some((value, fields)) = measured else { return Ok(Reading::Empty) };
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Reading::of(Sample { fields, ..Sample::new(at, value) }))
    }

    fn disk(&self) -> Result<StatVfs, String> {
        statvfs(&self.path).map_err(|error| format!("`{}` cannot be looked at: {error}", self.path.display()))
    }
}

fn text(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("`{path}` cannot be read: {error}"))
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn ticks(text: &str) -> Option<Ticks> {
    let numbers = text.lines().find_map(|line| line.strip_prefix("cpu "))?.split_ascii_whitespace();
    // The last two, guest and guest_nice, are in user and nice already.
    let numbers: Vec<u64> = numbers.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = numbers.get(3)? + numbers.get(4).unwrap_or(&0);
    Some(Ticks { idle, all: numbers.iter().sum() })
}

/// None where no time passed, and where the kernel's counters went back (processors were taken away).
fn busy(before: Ticks, now: Ticks) -> Option<f64> {
    let all = now.all.checked_sub(before.all).filter(|all| *all > 0)?;
    // It may go back by itself, a little: time that was counted as waiting is counted anew.
    let idle = now.idle.saturating_sub(before.idle).min(all);
    Some((all - idle) as f64 / all as f64)
}

fn memory(text: &str) -> Result<Measured, String> {
    let bytes = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| format!("`/proc/meminfo` has no `{name}`"))
    };
    let (total, available) = (bytes("MemTotal")?, bytes("MemAvailable")?);
    let fields = vec![("available_bytes", available.into()), ("total_bytes", total.into())];
    Ok(share(total.saturating_sub(available), total).map(|value| (value, fields)))
}

fn load(averages: &str, stat: &str) -> Result<(f64, Fields), String> {
    let mut words = averages.split_ascii_whitespace().map(|word| word.parse::<f64>().ok());
    let mut next = || words.next().flatten().ok_or("`/proc/loadavg` holds no three numbers");
    let (one, five, fifteen) = (next()?, next()?, next()?);
    let processors = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let fields =
        vec![("five_minutes", five.into()), ("fifteen_minutes", fifteen.into()), ("processors", processors.into())];
    Ok((one, fields))
}

fn space(disk: &StatVfs) -> Measured {
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    let bytes = |blocks: u64| Value::from(blocks.saturating_mul(disk.f_frsize));
    let fields = vec![("free_bytes", bytes(disk.f_bavail)), ("total_bytes", bytes(disk.f_blocks))];
    share(used, used + disk.f_bavail).map(|value| (value, fields))
}

fn inodes(disk: &StatVfs) -> Measured {
    let used = disk.f_files.saturating_sub(disk.f_ffree);
    let fields = vec![("free", disk.f_favail.into()), ("total", disk.f_files.into())];
    share(used, used + disk.f_favail).filter(|_| disk.f_files > 0).map(|value| (value, fields))
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Signal for Machine {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        let (watch, at) = (Arc::clone(&self.watch), cx.now);
        Box::pin(async move {
            // A file system that is mounted over a network can keep whoever asks waiting.
            match tokio::task::spawn_blocking(move || watch.look(at)).await {
                Ok(Ok(reading)) => reading,
                Ok(Err(why)) => failed(why),
                Err(error) => failed(format!("the machine could not be looked at: {error}")),
            }
        })
    }

    fn query(&self) -> String {
        let at = || self.settings.path.as_deref().unwrap_or(Path::new("")).display().to_string();
        let words = match self.settings.measure {
            Measure::Cpu => "share of this machine's processor time in use".to_owned(),
            Measure::Memory => "share of this machine's memory in use".to_owned(),
            Measure::Load => "load average of this machine over one minute".to_owned(),
            Measure::Disk => format!("share of the disk of {} in use", at()),
            Measure::Inodes => format!("share of the inodes of the disk of {} in use", at()),
        };
        self.redactor.clean(&words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(words: &str) -> Ticks {
        ticks(&format!("cpu  {words}\ncpu0 1 2 3\n")).unwrap()
    }

    #[test]
    fn processor_time_is_what_was_not_idle_between_two_looks() {
        let before = stat("100 0 100 700 100 0 0 0 50 50");
        assert_eq!(before, Ticks { idle: 800, all: 1000 }, "guests' time is in the users' already");
        assert_eq!(busy(before, stat("125 0 125 750 100 0 0 0 99 99")), Some(0.5));
        assert_eq!(busy(before, stat("100 0 100 700 200 0 0 0 0 0")), Some(0.0), "waiting for a disk is idle");
        assert_eq!(
            busy(before, stat("100 0 100 700 100 0 0 100 0 0")),
            Some(1.0),
            "stolen time is none of ours to use"
        );
        assert_eq!(busy(before, before), None);
        assert_eq!(busy(stat("200 0 200 700 100 0 0 0 0 0"), before), None, "the counters went back");
        assert_eq!(busy(before, stat("200 0 200 600 100 0 0 0 0 0")), Some(1.0));
        assert_eq!((ticks("cpu0 1 2 3 4"), ticks("cpu  1 2 3"), ticks("")), (None, None, None));
    }

    #[test]
    fn caches_are_available_memory() {
        let text = "MemTotal:       1000 kB\nMemFree:          10 kB\nMemAvailable:    250 kB\n";
        let (value, fields) = memory(text).unwrap().unwrap();
        assert_eq!((value, &fields[0].1, &fields[1].1), (0.75, &Value::from(256_000), &Value::from(1_024_000)));
        assert_eq!(memory("MemTotal: 1000 kB\n").unwrap_err(), "`/proc/meminfo` has no `MemAvailable`");
    }

    #[test]
    fn load_is_that_of_the_last_minute_with_the_processors_beside_it() {
        let (value, fields) = load("3.50 2.25 1.00 2/345 6789\n", "cpu  1\ncpu0 1\ncpu1 1\nintr 5\n").unwrap();
        assert_eq!(value, 3.5);
        assert_eq!(fields, [("five_minutes", 2.25.into()), ("fifteen_minutes", 1.0.into()), ("processors", 2.into())]);
        assert!(load("busy", "").is_err());
    }

    #[test]
    fn a_disk_is_used_as_df_says_it() {
        let mut disk = statvfs("/").unwrap();
        (disk.f_frsize, disk.f_blocks, disk.f_bfree, disk.f_bavail) = (4096, 100, 30, 10);
        (disk.f_files, disk.f_ffree, disk.f_favail) = (200, 50, 50);
        let (value, fields) = space(&disk).unwrap();
        assert_eq!((value, &fields[0].1), (70.0 / 80.0, &Value::from(10 * 4096)));
        assert_eq!(inodes(&disk).unwrap().0, 0.75);
        (disk.f_files, disk.f_ffree, disk.f_favail) = (0, 0, 0);
        assert_eq!(inodes(&disk), None);
        (disk.f_blocks, disk.f_bfree, disk.f_bavail) = (0, 0, 0);
        assert_eq!(space(&disk), None, "nothing of nothing");
    }
}
