//! A throw-away server: a base backup copied to a place of its own, brought to a moment by the archive, dumped, and gone again.
//!
//! It is given a configuration of ours and none of the live server's: it listens on a socket in its own directory and nowhere else,
//! archives nothing, loads no libraries, and runs no subscriptions, so that nobody can take it for the live one and it acts on
//! nothing outside. Whoever starts it, it ends with them: it has the kernel send it SIGQUIT when Ripcord dies, which makes a server
//! end at once and leave no shared memory behind. All paths that it is given are relative to its directory, so that no name has to
//! be quoted in a setting or for the shell that runs `restore_command`.
//! Source: PostgreSQL manual, "Recovering Using a Continuous Archive Backup"; `xlogrecovery.c` (a position that is not included is
//! stopped at before whatever begins there); prctl(2), PR_SET_PDEATHSIG: cleared by a change of user, so `setpriv` sets it after.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ripcord_core::{Digest, Failure, Key};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::time::Instant;

use super::Desk;
use crate::components::files::{FileError, Halt, Owner, Trying, blocking, meta, own, owner, point, remove_file};

/// Its socket's number; nobody else is in its directory.
pub(super) const PORT: u16 = 5432;
/// The longest path of a socket, without the zero at its end, and what of it stands behind the directory `side`.
pub(super) const SOCKET: usize = 107;
pub(super) const BEHIND_SIDE: usize = "/ripcord-01234567-0123456789ab/.s.PGSQL.5432".len();
/// How long it may take to end once it was told to.
pub(super) const ENDING: Duration = Duration::from_secs(30);

/// A server that runs; it is gone, with its directory, when it is dropped.
pub(super) struct Side {
    pub(super) work: PathBuf,
    pub(super) server: Child,
}

/// The name of the directory of a step's server below `side`.
pub(super) fn name(desk: &Desk, key: &Key) -> String {
    let step = Digest::of(key.to_string().as_bytes()).hex();
    format!("{}{}", prefix(desk), &step[..12])
}

/// What the names of all of a database's begin with.
pub(super) fn prefix(desk: &Desk) -> String {
    format!("ripcord-{}-", &Digest::of(desk.target().0.as_bytes()).hex()[..8])
}

/// Whether it is a name that [`name`] makes.
pub(super) fn is_ours(prefix: &str, name: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.strip_prefix(prefix).is_some_and(|step| step.len() == 12 && step.bytes().all(hex))
}

impl Side {
    pub(super) fn has_ended(&mut self) -> bool {
        matches!(self.server.try_wait(), Ok(Some(_)))
    }

    /// Stops it and takes its directory away.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        point("side end");
        quit(&self.server);
        if waited(&mut self.server, ENDING).await.is_none() {
            tracing::warn!(work = %self.work.display(), "a server beside did not end when told to");
        }
        clear(&self.work).await
    }

    /// What it wrote before it ended, the last that was no mere notice.
    pub(super) fn said(&self) -> String {
        let log = fs::read(self.work.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let grave = |line: &&str| ["FATAL:", "PANIC:", "ERROR:"].iter().any(|grave| line.contains(grave));
        let line = log.lines().rfind(grave).or_else(|| log.lines().next_back()).unwrap_or("nothing was written");
        line.trim().to_owned()
    }
}

impl Drop for Side {
    /// Nobody waits any more, and here nothing can be awaited: a thread of its own sees it end.
    fn drop(&mut self) {
        let runs = matches!(self.server.try_wait(), Ok(None));
        if !runs && !self.work.exists() {
            return;
        }
        let (pid, work) = (Pid::from_raw(self.server.id().cast_signed()).filter(|_| runs), self.work.clone());
        if runs {
            quit(&self.server);
        }
        let ending = std::thread::Builder::new().name("ending a server".to_owned()).spawn(move || {
            let deadline = std::time::Instant::now() + ENDING;
            while let Some(pid) = pid
                && matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None))
                && std::time::Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            if let Err(error) = fs::remove_dir_all(&work) {
                tracing::debug!(work = %work.display(), %error, "what a recovery had begun stays for the next look");
            }
        });
        if let Err(error) = ending {
            tracing::warn!(%error, "a server beside is left to end by itself");
        }
    }
}

fn quit(server: &Child) {
    if let Some(pid) = Pid::from_raw(server.id().cast_signed()) {
        let _ = kill_process(pid, Signal::QUIT);
    }
}

pub(super) async fn waited(child: &mut Child, at_most: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + at_most;
    let mut pause = Duration::from_millis(5);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => {}
            Ok(None) | Err(_) => return None,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Whom a server beside runs as, where we are root.
pub(super) fn user(segment: &Path) -> Result<Option<Owner>, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let is = fs::metadata(segment).trying("look at", segment)?;
    match owner(&is) {
        (0, _) => Err(Failure::never(format!("{} belongs to root, whom a server does not run as", segment.display()))
            .advise("give the archive to the user that the server runs as")),
        user => Ok(Some(user)),
    }
}

/// A command that runs as `user`, and is told to end when the thread that started it does.
pub(super) fn as_user(user: Option<Owner>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some((uid, gid)) = user {
        command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
    }
    command.args(["--pdeathsig", "QUIT", "--"]);
    command
}

pub(super) fn configure(work: &Path, wal: &Path, config: &str, user: Option<Owner>) -> Result<(), FileError> {
    let link = work.join("wal");
    symlink(wal, &link).trying("create", &link)?;
    let files = [
        ("config", config),
        // Whoever can enter its directory: its own user.
        ("hba", "local all all trust\n"),
        ("ident", ""),
        // What ALTER SYSTEM said to the live server is not said to this one.
        ("data/postgresql.auto.conf", ""),
        ("data/recovery.signal", ""),
        ("log", ""),
    ];
    for (name, text) in files {
        let path = work.join(name);
        remove_file(&path)?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).trying("create", &path)?;
        file.write_all(text.as_bytes()).trying("write", &path)?;
        give(&path, user)?;
    }
    Ok(())
}

pub(super) fn start(work: &Path, postgres: &Path, user: Option<Owner>) -> Result<Child, Failure> {
    let (log, data) = (work.join("log"), work.join("data"));
    let log = OpenOptions::new().append(true).open(&log).trying("open", &log)?;
    let also = log.try_clone().trying("open", &work.join("log"))?;
    let mut command = as_user(user);
    command.arg(postgres).args(["-D", ".", "-c", "config_file=../config"]).current_dir(&data);
    // Nothing of what Ripcord was started with is the server's business.
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("LC_ALL", "C").stdin(Stdio::null()).stdout(also).stderr(log);
    command.spawn().map_err(|error| Failure::never(format!("the server beside cannot be started: {error}")))
}

fn give(path: &Path, user: Option<Owner>) -> Result<(), FileError> {
    user.map_or(Ok(()), |user| own(path, user))
}

pub(super) fn directory(path: &Path, user: Option<Owner>) -> Result<(), FileError> {
    fs::DirBuilder::new().mode(0o700).create(path).trying("create", path)?;
    give(path, user)
}

/// Copies a base backup. Its log is left out, since all of it comes from the archive.
pub(super) fn copy(from: &Path, to: &Path, user: Option<Owner>, halt: &Halt) -> Result<(), FileError> {
    directory(to, user)?;
    for entry in fs::read_dir(from).trying("list", from)? {
        halt.check()?;
        let entry = entry.trying("list", from)?;
        let (path, at) = (entry.path(), to.join(entry.file_name()));
        let sort = entry.file_type().trying("look at", &path)?;
        if entry.file_name() == "pg_wal" {
            directory(&at, user)?;
        } else if sort.is_dir() {
            copy(&path, &at, user, halt)?;
        } else if sort.is_file() {
            fs::copy(&path, &at).trying("copy", &path)?;
            give(&at, user)?;
        } else {
            return Err(FileError::io("copy", &path, std::io::Error::other("it is neither a file nor a directory")));
        }
    }
    Ok(())
}

/// The processes that work in a server's data directory, which is theirs alone.
fn running_in(work: &Path) -> Vec<Pid> {
    let data = work.join("data");
    let Ok(list) = fs::read_dir("/proc") else { return vec![] };
    let numbers = list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let there = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data);
    numbers.filter(there).filter_map(Pid::from_raw).collect()
}

/// Ends whatever runs in a directory of ours, and removes it. It need not be there.
pub(super) async fn clear(work: &Path) -> Result<(), Failure> {
    if meta(work)?.is_none() {
        return Ok(());
    }
    let deadline = Instant::now() + ENDING;
    let mut pause = Duration::from_millis(10);
    loop {
        let running = running_in(work);
        if running.is_empty() {
            break;
        }
        let signal = if Instant::now() < deadline { Signal::QUIT } else { Signal::KILL };
        for pid in &running {
            let _ = kill_process(*pid, signal);
        }
        if Instant::now() >= deadline + ENDING {
            let what = format!("a server beside, in {}, does not end", work.display());
            return Err(Failure::later(what));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
    point("side clear");
    if let Ok(pid) = fs::read_to_string(work.join("data/postmaster.pid")) {
        forget_memory(&pid).await;
    }
    let path = work.to_owned();
    blocking(move |_| match fs::remove_dir_all(&path) {
        // Somebody else, who saw it end, was quicker.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.trying("remove", &path),
    })
    .await?
    .map_err(Failure::from)
}

/// Removes the piece of shared memory that a server leaves behind when it is killed and never started again; `pid` is the content
/// of its `postmaster.pid`, whose seventh line has the memory's key and number.
/// Source: PostgreSQL, `pidfile.h`; proc(5), `/proc/sysvipc/shm`: key, number, permissions, size, two processes, who is attached.
async fn forget_memory(pid: &str) {
    let mut words = pid.lines().nth(6).unwrap_or_default().split_whitespace();
    let (Some(key), Some(number)) = (words.next(), words.next()) else { return };
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let unused = table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // The key is printed with its sign in the one and without it in the other.
        let of = fields.first().and_then(|text| text.parse::<i32>().ok()).map(i32::cast_unsigned);
        of.is_some_and(|of| key.parse() == Ok(of)) && fields.get(1) == Some(&number) && fields.get(6) == Some(&"0")
    });
    if !unused {
        return;
    }
    let mut command = Command::new("ipcrm");
    command.args(["-m", number]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(mut child) = command.spawn()
        && waited(&mut child, ENDING).await.is_none()
    {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The directories of ours below `side`, and when each was last changed.
pub(super) fn left(side: &Path, prefix: &str) -> Result<Vec<(PathBuf, i64)>, FileError> {
    let mut left = vec![];
    if meta(side)?.is_none() {
        return Ok(left);
    }
    let side = &fs::canonicalize(side).trying("find", side)?;
    for entry in fs::read_dir(side).trying("list", side)? {
        let entry = entry.trying("list", side)?;
        let ours = entry.file_name().to_str().is_some_and(|name| is_ours(prefix, name));
        if let Some(is) = meta(&entry.path())?.filter(|is| ours && is.is_dir()) {
            left.push((entry.path(), is.ctime()));
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_ours_are_ours() {
        let prefix = "ripcord-01234567-";
        assert!(is_ours(prefix, "ripcord-01234567-0123456789ab"));
        for other in
            ["ripcord-01234567-", "ripcord-01234567-0123456789abc", "ripcord-76543210-0123456789ab", "ripcord", "notes"]
        {
            assert!(!is_ours(prefix, other), "{other}");
        }
        assert_eq!(BEHIND_SIDE, format!("/{prefix}0123456789ab/.s.PGSQL.{PORT}").len());
    }
}
