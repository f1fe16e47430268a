//! Starting, stopping and finding the server process.
//!
//! A pid alone names whoever has it today, so the process file also holds the start time, and a signal goes through a
//! pidfd opened before the start time was compared: it reaches that very process or nobody.
//! Source: proc(5), /proc/pid/stat, fields 3, 20 and 22; pidfd_open(2).
use super::{Layout, ShopError, layout::write_whole};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::{
    ffi::OsString,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// One run of the server. Displayed as `<pid>-<start time>`, which no later process of this machine's uptime shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub pid: i32,
    /// In clock ticks since the machine started.
    pub started: u64,
    pub port: u16,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.started)
    }
}

impl Instance {
    pub(super) fn of_this_process(port: u16) -> Result<Self, ShopError> {
        let path = Path::new("/proc/self/stat");
        let text = fs::read_to_string(path).map_err(ShopError::file("read", path))?;
        let odd = || ShopError::file("understand", path)(io::ErrorKind::InvalidData.into());
        let started = Stat::parse(&text).ok_or_else(odd)?.started;
        let pid = i32::try_from(std::process::id()).map_err(|_| odd())?;
        Ok(Self { pid, started, port })
    }

    fn is_alive(&self) -> bool {
        let Ok(text) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else {
            return false;
        };
        Stat::parse(&text).is_some_and(|stat| stat.started == self.started && !stat.has_ended())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let pid = words.next()?.parse().ok().filter(|pid| *pid > 0)?;
        let instance = Self { pid, started: words.next()?.parse().ok()?, port: words.next()?.parse().ok()? };
        words.next().is_none().then_some(instance)
    }
}

/// What the kernel says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    threads: u32,
    started: u64,
}

impl Stat {
    /// The name of the program, field 2, may hold blanks and parentheses; the last one closes it.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        Some(Self { state, threads: fields.nth(16)?.parse().ok()?, started: fields.nth(1)?.parse().ok()? })
    }

    /// A zombie has ended, whatever its parent makes of it; but one with threads left is only losing its first, and
    /// still has port and database open.
    fn has_ended(&self) -> bool {
        matches!(self.state, 'X' | 'x') || (self.state == 'Z' && self.threads <= 1)
    }
}

/// How to run the shop's commands in another process.
#[derive(Clone, Debug)]
pub struct Program {
    /// An absolute path: the server runs in its own directory, with an empty environment.
    pub exe: PathBuf,
    /// What comes before the shop's own words: `shop`, where the shop is a subcommand.
    pub prefix: Vec<OsString>,
}

#[derive(Clone, Debug)]
pub struct StartArgs {
    pub dir: PathBuf,
    /// 0 lets the system choose.
    pub port: u16,
    pub program: Program,
    pub at_most: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    New(Instance),
    Already(Instance),
}

impl Started {
    pub fn instance(&self) -> &Instance {
        match self {
            Self::New(instance) | Self::Already(instance) => instance,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    Ended(Instance),
    /// It did not end when asked to, and was killed.
    Killed(Instance),
    WasNotRunning,
}

/// The server process of the shop in `dir`, if it runs.
pub fn observe(dir: &Path) -> Result<Option<Instance>, ShopError> {
    let path = Layout::new(dir).process();
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Instance::parse(&text).filter(Instance::is_alive)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ShopError::file("read", path)(error)),
    }
}

/// Starts the server as a process of its own and returns when it answers on its port.
///
/// A shop that runs already is left running, also when `current` has been switched since: a new release needs a stop.
/// # Errors
/// [`ShopError::RunsElsewhere`] when it runs on another port than asked for; [`ShopError::EndedAtStart`] with what this
/// start wrote to the log; [`ShopError::SilentAtStart`] after `at_most`, the process being killed then.
pub fn start(args: &StartArgs) -> Result<Started, ShopError> {
    let dir = std::path::absolute(&args.dir).map_err(ShopError::file("find", &args.dir))?;
    let layout = Layout::new(&dir);
    if let Some(running) = observe(&dir)? {
        return already(args, running);
    }
    let log_from = fs::metadata(layout.log()).map_or(0, |metadata| metadata.len());
    let mut child = spawn(args, &layout)?;
    let deadline = Instant::now() + args.at_most;
    let mut ended = None;
    let found = poll_until(deadline, || {
        let running = observe(&dir)?.filter(answers);
        if running.is_none() && ended.is_none() {
            ended = child.try_wait().map_err(ShopError::file("watch", &args.program.exe))?;
        }
        // Ended, but the lock is held: somebody else's start was faster and is still on its way.
        let hopeless = ended.is_some() && running.is_none() && lock(&layout).is_ok();
        Ok(if hopeless { Some(None) } else { running.map(Some) })
    });
    match found {
        Ok(Some(Some(instance))) if u32::try_from(instance.pid) == Ok(child.id()) => {
            // Whoever starts a shop and lives on must not keep its zombie.
            let _ = thread::Builder::new().spawn(move || child.wait());
            Ok(Started::New(instance))
        }
        Ok(Some(Some(instance))) => {
            give_up(&mut child);
            already(args, instance)
        }
        Ok(Some(None)) => Err(ended_at_start(&layout, ended, log_from)),
        Ok(None) => {
            give_up(&mut child);
            let said = last_words(&layout, log_from);
            Err(ShopError::SilentAtStart { dir, waited_ms: args.at_most.as_millis(), said })
        }
        Err(error) => {
            give_up(&mut child);
            Err(error)
        }
    }
}

fn already(args: &StartArgs, running: Instance) -> Result<Started, ShopError> {
    if args.port != 0 && args.port != running.port {
        return Err(ShopError::RunsElsewhere { dir: args.dir.clone(), runs_on: running.port, asked: args.port });
    }
    Ok(Started::Already(running))
}

fn spawn(args: &StartArgs, layout: &Layout) -> Result<Child, ShopError> {
    let output = |path: PathBuf| File::create(&path).map_err(ShopError::file("create", path));
    Command::new(&args.program.exe)
        .args(&args.program.prefix)
        .args(["serve", "--detached", "--port", &args.port.to_string(), "--dir"])
        .arg(layout.dir())
        .current_dir(layout.dir())
        // The shop's settings are in its files. What happens to be in the environment of whoever starts it, secrets
        // included, is not for it.
        .env_clear()
        .stdin(Stdio::null())
        .stdout(output(layout.stdout())?)
        .stderr(output(layout.stderr())?)
        .spawn()
        .map_err(ShopError::file("run", &args.program.exe))
}

fn give_up(child: &mut Child) {
    // Fails only when it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

fn answers(instance: &Instance) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, instance.port));
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

fn ended_at_start(layout: &Layout, status: Option<ExitStatus>, log_from: u64) -> ShopError {
    let status = status.map_or_else(|| "status unknown".to_owned(), |status| status.to_string());
    ShopError::EndedAtStart { dir: layout.dir().to_owned(), status, said: last_words(layout, log_from) }
}

/// The last lines that this start wrote: to the log, or else to its standard error. Older lines prove nothing.
fn last_words(layout: &Layout, log_from: u64) -> String {
    let logged = tail(&layout.log(), log_from);
    let words = if logged.is_empty() { tail(&layout.stderr(), 0) } else { logged };
    if words.is_empty() { "nothing".to_owned() } else { words }
}

fn tail(path: &Path, from: u64) -> String {
    const AT_MOST_BYTES: u64 = 4096;
    const AT_MOST_LINES: usize = 5;
    let read = || {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        // Shorter than before: the log was rotated, and all of it is new.
        let from = if end < from { 0 } else { from };
        file.seek(SeekFrom::Start(from.max(end.saturating_sub(AT_MOST_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(AT_MOST_BYTES).read_to_end(&mut bytes)?;
        io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(AT_MOST_LINES)..].join("\n")
}

/// Ends the server process: asks, waits for `grace`, then kills.
/// # Errors
/// [`ShopError::DoesNotEnd`] when the kernel keeps it even then.
pub fn stop(dir: &Path, grace: Duration) -> Result<Stopped, ShopError> {
    let Some(instance) = observe(dir)? else {
        return Ok(Stopped::WasNotRunning);
    };
    signal(&instance, Signal::TERM)?;
    if gone_by(&instance, Instant::now() + grace)? {
        return Ok(Stopped::Ended(instance));
    }
    signal(&instance, Signal::KILL)?;
    if gone_by(&instance, Instant::now() + Duration::from_secs(5))? {
        return Ok(Stopped::Killed(instance));
    }
    Err(ShopError::DoesNotEnd { dir: dir.to_owned(), pid: instance.pid })
}

fn signal(instance: &Instance, signal: Signal) -> Result<(), ShopError> {
    let failed = |error: Errno| ShopError::Signal { pid: instance.pid, source: error.into() };
    let pid = Pid::from_raw(instance.pid).ok_or_else(|| failed(Errno::SRCH))?;
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    // Alive now, so it had its pid all along, so the handle is to it.
    if !instance.is_alive() {
        return Ok(());
    }
    match pidfd_send_signal(handle, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn gone_by(instance: &Instance, deadline: Instant) -> Result<bool, ShopError> {
    Ok(poll_until(deadline, || Ok((!instance.is_alive()).then_some(())))?.is_some())
}

/// Asks until there is an answer; `None` at the deadline. It always asks at least once.
fn poll_until<T>(
    deadline: Instant,
    mut ask: impl FnMut() -> Result<Option<T>, ShopError>,
) -> Result<Option<T>, ShopError> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask()? {
            return Ok(Some(answer));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// A port that was free a moment ago. Where it can be had, port 0 is better: it leaves no moment.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Holds off every other server of the same directory until it is dropped or the process ends, however it ends.
///
/// [`start`] takes it for an instant to see whether anybody has it, so a server tries more than once.
pub(super) fn lock(layout: &Layout) -> Result<File, ShopError> {
    let path = layout.lock();
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(ShopError::file("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(ShopError::AlreadyRuns { dir: layout.dir().to_owned() }),
        Err(error) => Err(ShopError::file("lock", path)(error.into())),
    }
}

pub(super) fn announce(layout: &Layout, instance: &Instance) -> Result<(), ShopError> {
    let Instance { pid, started, port } = instance;
    write_whole(&layout.process(), format!("{pid} {started} {port}\n").as_bytes(), 0o644)
}

/// Only tidiness: a process file that is left behind names a process that is not there.
pub(super) fn withdraw(layout: &Layout) {
    let _ = fs::remove_file(layout.process());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another_with_its_pid() {
        let me = Instance::of_this_process(80).unwrap();
        assert!(me.is_alive());
        assert!(!Instance { started: me.started + 1, ..me.clone() }.is_alive());
        assert_eq!(Instance::parse(&format!("{} {} 80\n", me.pid, me.started)), Some(me));
        for bad in ["", "1", "1 2", "1 2 3 4", "-1 2 3", "0 2 3", "1 2 99999", "x 2 3"] {
            assert_eq!(Instance::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_start_time_is_found_behind_an_odd_name() {
        let fields = (4..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = Stat::parse(&format!("7 (a) S 1 (b)) Z {fields} 80284 9")).unwrap();
        assert_eq!(stat, Stat { state: 'Z', threads: 20, started: 80_284 });
        assert!(!stat.has_ended() && Stat { threads: 1, ..stat }.has_ended());
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn a_zombie_counts_as_ended() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let stat = || Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while stat().state != 'Z' {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
        assert!(!Instance { pid, started: stat().started, port: 1 }.is_alive());
        child.wait().unwrap();
    }
}
