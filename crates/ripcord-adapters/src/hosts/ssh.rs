//! Reaching a host by the `ssh` of this machine, and having the agent run there.
//!
//! The system's own program, so that what `~/.ssh/config` says of users, keys, agents and jump hosts holds here too; called with an
//! argument vector. Host keys are always checked and nobody is ever asked: a host that would need an answer is an error. One login
//! does all: a constant script looks whether the agent is there already, takes it from its standard input if not, compares its
//! digest, and becomes it. Nothing of the configuration gets into the script but a digest and a size.
//! Source: ssh(1) joins the words of a remote command and hands them to the login shell; ssh_config(5): the first value of an option counts.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ripcord_core::{Digest, HostId, Redactor};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use super::far::words::{GREETING, PROTOCOL};
use super::local::dies_with_us;

/// How long a login may stay silent.
const SILENCE: Duration = Duration::from_secs(30);
/// How long the last words of a program that ended are waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a connection that nobody needs may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(5);
/// What a login may print before the agent speaks.
const PREAMBLE: u64 = 256 << 10;
const SAID_LINES: usize = 20;
const LINE: usize = 500;

const HAVE: &str = "ripcord: have";
const NEED: &str = "ripcord: need";

/// `$1` is the digest of the agent and `$2` its size. One line and no single quote, whatever the login shell is. Sizes are compared
/// before a copy is used that was there: a machine that lost power may have a file without its content.
const SCRIPT: &str = concat!(
    "u=$(umask); umask 077; d=${XDG_CACHE_HOME:-$HOME/.cache}/ripcord; a=$d/agent-$1; ",
    r#"if test -x "$a" && test "$(wc -c < "$a")" -eq "$2"; then echo "ripcord: have"; touch "$a"; "#,
    r#"else mkdir -p "$d" || exit 73; t=$d/new-$1-$$; trap "rm -f \"\$t\"" EXIT; echo "ripcord: need"; "#,
    r#"head -c "$2" > "$t" || exit 74; "#,
    r#"test "$(sha256sum < "$t" | cut -c 1-64)" = "$1" || { echo "what arrived is not what was sent" >&2; exit 65; }; "#,
    r#"chmod 700 "$t" && { sync "$t" 2> /dev/null || sync; } && mv -f "$t" "$a" || exit 73; trap - EXIT; fi; "#,
    r#"ls -t "$d" | grep "^agent-" | tail -n +4 | while read -r f; do rm -f "$d/$f"; done; "#,
    r#"find "$d" -name "new-*" -mtime +1 -exec rm -f {} +; umask "$u"; exec "$a" agent"#,
);

/// How an agent is reached.
#[derive(Debug, Clone)]
pub enum Transport {
    Ssh(Ssh),
    /// A program on this machine that is the agent, or leads to one.
    Local {
        argv: Vec<String>,
    },
}

#[derive(Debug, Clone)]
pub struct Ssh {
    pub to: String,
    pub port: Option<u16>,
    pub config: Option<PathBuf>,
    pub options: Vec<String>,
    pub program: Program,
}

/// What is to run there.
#[derive(Debug, Clone)]
pub enum Program {
    /// This program.
    This,
    /// A file of this machine.
    File(PathBuf),
    /// A file that is there.
    Installed(PathBuf),
}

/// Why a host cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct LinkError {
    pub what: String,
    pub advice: Option<String>,
    /// Whether it stays so until somebody does something.
    pub lasting: bool,
}

impl LinkError {
    pub(crate) fn passing(what: impl Into<String>) -> Self {
        Self { what: what.into(), advice: None, lasting: false }
    }
    pub(crate) fn lasting(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), advice: Some(advice.into()), lasting: true }
    }
}

/// What the program said on standard error: its last lines, redacted.
#[derive(Clone)]
pub(crate) struct Said {
    lines: Arc<Mutex<VecDeque<String>>>,
    /// False once nothing more will be said.
    speaks: watch::Receiver<bool>,
}

impl Said {
    /// Listens until the end.
    fn of(from: impl AsyncRead + Send + Unpin + 'static, redactor: Redactor) -> Self {
        let (over, speaks) = watch::channel(true);
        let said = Self { lines: Arc::default(), speaks };
        let listening = said.clone();
        tokio::spawn(async move {
            listening.listen(from, redactor).await;
            over.send_replace(false);
        });
        said
    }

    /// Waits for the last words, which may come after the end of everything else.
    pub(crate) async fn to_the_end(&self) {
        let mut speaks = self.speaks.clone();
        // What goes on holding its standard error open is not waited for.
        let _ = timeout(LAST_WORDS, speaks.wait_for(|speaks| !speaks)).await;
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last line that says something.
    pub(crate) fn last(&self) -> Option<String> {
        self.lines().back().cloned()
    }

    fn has(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }

    async fn listen(&self, from: impl AsyncRead + Unpin, redactor: Redactor) {
        let mut from = BufReader::new(from);
        let mut line = vec![];
        loop {
            line.clear();
            // A line without an end is taken in parts.
            let mut part = (&mut from).take(4 * LINE as u64);
            if !matches!(part.read_until(b'\n', &mut line).await, Ok(1..)) {
                return;
            }
            let text: String = redactor.clean(String::from_utf8_lossy(&line).trim()).chars().take(LINE).collect();
            if !text.is_empty() {
                let mut lines = self.lines();
                lines.push_back(text);
                if lines.len() > SAID_LINES {
                    lines.pop_front();
                }
            }
        }
    }
}

/// A program that leads to an agent, ended when nobody needs it.
pub(crate) struct Leading(Option<Child>);

impl Drop for Leading {
    fn drop(&mut self) {
        let (Some(mut child), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else { return };
        // It sees that its input ends, and ends itself; killed at once it might not pass that on.
        runtime.spawn(async move {
            let _ = timeout(FAREWELL, child.wait()).await;
            let _ = child.start_kill();
        });
    }
}

/// An agent that has greeted.
pub(crate) struct Dialled {
    pub(crate) leading: Leading,
    pub(crate) read: BufReader<ChildStdout>,
    pub(crate) write: ChildStdin,
    pub(crate) said: Said,
}

enum Word {
    Have,
    Need,
    Greeting(String),
    End,
}

impl Transport {
    /// Connects, sends the agent where it is not there, and waits until it speaks.
    pub(crate) async fn dial(&self, host: &HostId, redactor: &Redactor) -> Result<Dialled, LinkError> {
        let image = match self {
            Self::Ssh(Ssh { program: Program::This, .. }) => Some(Image::of(Path::new("/proc/self/exe")).await?),
            Self::Ssh(Ssh { program: Program::File(path), .. }) => Some(Image::of(path).await?),
            Self::Ssh(_) | Self::Local { .. } => None,
        };
        let argv = self.argv(image.as_ref());
        let mut dialled = spawn(&argv, redactor)?;
        loop {
            let word = timeout(SILENCE, next_word(&mut dialled.read)).await;
            let word = word.map_err(|_| {
                LinkError::passing(format!("`{host}` said nothing for {}", ripcord_core::human(SILENCE)))
            })?;
            match word {
                Word::Have => {}
                Word::Need => {
                    let sent = match &image {
                        Some(image) => image.send(&mut dialled.write).await,
                        None => Err(io::Error::other("it asks for an agent that is not to be sent")),
                    };
                    // Where the other side gave up, what it says about it is more than that it did.
                    if let Err(error) = sent {
                        tracing::debug!(%host, %error, "the agent could not be sent");
                    }
                }
                Word::Greeting(version) => {
                    suits(host, &version)?;
                    return Ok(dialled);
                }
                Word::End => return Err(self.ended(host, dialled).await),
            }
        }
    }

    fn argv(&self, image: Option<&Image>) -> Vec<String> {
        match self {
            Self::Local { argv } => argv.clone(),
            Self::Ssh(ssh) => ssh.argv(image),
        }
    }

    /// Why there is no agent, from what was said and how it ended.
    async fn ended(&self, host: &HostId, dialled: Dialled) -> LinkError {
        let Dialled { mut leading, read, write, said } = dialled;
        drop((read, write));
        let child = leading.0.take();
        let status = match child {
            Some(mut child) => timeout(LAST_WORDS, child.wait()).await.ok().and_then(Result::ok),
            None => None,
        };
        said.to_the_end().await;
        let code = status.and_then(|status| status.code());
        let last = said.last().unwrap_or_else(|| match code {
            Some(code) => format!("it ended with exit code {code}"),
            None => "it ended".to_owned(),
        });
        let to = match self {
            Self::Ssh(ssh) => ssh.to.clone(),
            Self::Local { .. } => host.to_string(),
        };
        let name = to.rsplit('@').next().unwrap_or(&to);
        if said.has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
            let advice = format!(
                "find out why before anything else: another machine answers, or it was set up anew; only then \
                 `ssh-keygen -R {name}`, and put its new key into `known_hosts`"
            );
            return LinkError::lasting(format!("the host key of `{to}` is not the one that is known"), advice);
        }
        if said.has("Host key verification failed") || said.has("host key is known for") {
            let advice = format!(
                "compare its key with its owner's (`ssh-keyscan {name}` shows it), then put it into `known_hosts`, or log in once \
                 by hand: `ssh {to}`"
            );
            return LinkError::lasting(format!("the host key of `{to}` is not known"), advice);
        }
        if said.has("Permission denied (") {
            let advice = format!(
                "`ssh -o BatchMode=yes {to} true` must work for this user: allow its key there, or start its agent"
            );
            return LinkError::lasting(format!("`{to}` does not let this user in: {last}"), advice);
        }
        let cannot_run = matches!(code, Some(126 | 127)) || said.has("GLIBC_") || said.has("Exec format error");
        if cannot_run {
            let advice = "name a build for that machine with `agent:` (a static one runs anywhere), or `installed:` where it has its own";
            return LinkError::lasting(format!("the agent does not run on `{host}`: {last}"), advice);
        }
        match (code, self) {
            (Some(65 | 73 | 74), _) => {
                let advice = "see that there is room in `~/.cache/ripcord` there, and that this user may write in it";
                LinkError {
                    advice: Some(advice.to_owned()),
                    ..LinkError::passing(format!("the agent could not be put on `{host}`: {last}"))
                }
            }
            (Some(255), Self::Ssh(_)) => LinkError::passing(format!("`ssh {to}` failed: {last}")),
            _ => LinkError::passing(format!("the agent on `{host}` ended before it spoke: {last}")),
        }
    }
}

impl Ssh {
    fn argv(&self, image: Option<&Image>) -> Vec<String> {
        let mut argv = vec!["ssh".to_owned(), "-T".to_owned()];
        let mut option = |option: &str| argv.extend(["-o".to_owned(), option.to_owned()]);
        // The first value counts: what the promises rest on stands first, what suits most hosts last.
        for ours in
            ["BatchMode=yes", "StrictHostKeyChecking=yes", "RequestTTY=no", "RemoteCommand=none", "ForwardAgent=no"]
        {
            option(ours);
        }
        self.options.iter().for_each(|theirs| option(theirs));
        for usual in [
            "ConnectTimeout=10",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            "ForwardX11=no",
            "ClearAllForwardings=yes",
        ] {
            option(usual);
        }
        if let Some(config) = &self.config {
            argv.extend(["-F".to_owned(), config.display().to_string()]);
        }
        if let Some(port) = self.port {
            argv.extend(["-p".to_owned(), port.to_string()]);
        }
        argv.extend(["--".to_owned(), self.to.clone()]);
        argv.push(match (&self.program, image) {
            (Program::Installed(path), _) => format!("exec {} agent", quoted(&path.display().to_string())),
            (_, Some(image)) => format!("exec sh -c '{SCRIPT}' ripcord {} {}", image.hex, image.size),
            // Without an image there is nothing that could be asked for.
            (_, None) => "exit 127".to_owned(),
        });
        argv
    }
}

/// One word for a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn spawn(argv: &[String], redactor: &Redactor) -> Result<Dialled, LinkError> {
    let [program, arguments @ ..] = argv else {
        return Err(LinkError::lasting("there is nothing to run", "name a program"));
    };
    let mut command = Command::new(program);
    // A group of its own: an interrupt at the keyboard is for us to answer, not for the connection.
    command.args(arguments).process_group(0).kill_on_drop(true);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RIPCORD_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    dies_with_us(&mut command);
    let mut child = command.spawn().map_err(|error| {
        LinkError::lasting(format!("`{program}` could not be started: {error}"), format!("install `{program}`"))
    })?;
    let (Some(stdout), Some(stderr), Some(write)) = (child.stdout.take(), child.stderr.take(), child.stdin.take())
    else {
        return Err(LinkError::passing(format!("`{program}` has no output")));
    };
    let said = Said::of(stderr, redactor.clone());
    Ok(Dialled { leading: Leading(Some(child)), read: BufReader::new(stdout), write, said })
}

/// The next line that is ours. What a login prints before it is passed over.
async fn next_word(read: &mut BufReader<ChildStdout>) -> Word {
    let mut left = PREAMBLE;
    let mut line = vec![];
    loop {
        line.clear();
        match (&mut *read).take(left).read_until(b'\n', &mut line).await {
            Ok(n @ 1..) => left -= n as u64,
            Ok(0) | Err(_) => return Word::End,
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        // At the end of a line: what came before it may not have ended its own.
        if text.ends_with(HAVE) {
            return Word::Have;
        }
        if text.ends_with(NEED) {
            return Word::Need;
        }
        if let Some((_, version)) = text.rsplit_once(GREETING) {
            return Word::Greeting(version.to_owned());
        }
    }
}

fn suits(host: &HostId, version: &str) -> Result<(), LinkError> {
    let ours = format!("{PROTOCOL} {}", env!("CARGO_PKG_VERSION"));
    if version == ours {
        return Ok(());
    }
    let theirs = version.split_once(' ').map_or(version, |(_, version)| version);
    let what = format!("the agent on `{host}` is Ripcord {theirs}, and this is {}", env!("CARGO_PKG_VERSION"));
    Err(LinkError::lasting(
        what,
        "install the same version there, or leave `installed:` and `agent:` out: then this one is sent",
    ))
}

/// A program to be sent.
#[derive(Debug, Clone)]
struct Image {
    path: PathBuf,
    hex: String,
    size: u64,
}

/// Digests of what was sent before: the program does not change while it runs.
static IMAGES: Mutex<Option<HashMap<PathBuf, Image>>> = Mutex::new(None);

impl Image {
    async fn of(path: &Path) -> Result<Self, LinkError> {
        let (found, path) = (path.to_owned(), path.to_owned());
        let read = tokio::task::spawn_blocking(move || Self::read(&found)).await;
        read.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| {
            let what = format!("`{}` cannot be sent as the agent: {error}", path.display());
            LinkError::lasting(what, "name a file of this machine with `agent:`")
        })
    }

    fn read(path: &Path) -> io::Result<Self> {
        // Held while reading: hosts that are called together need it once.
        let mut images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
        let images = images.get_or_insert_default();
        if let Some(image) = images.get(path) {
            return Ok(image.clone());
        }
        let mut file = std::fs::File::open(path)?;
        let (mut hash, mut size) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => {
                    hash.update(&buffer[..n]);
                    size += n as u64;
                }
            }
        }
        let hex = Digest::from_bytes(hash.finalize().into()).hex();
        let image = Self { path: path.to_owned(), hex, size };
        images.insert(path.to_owned(), image.clone());
        Ok(image)
    }

    async fn send(&self, to: &mut ChildStdin) -> io::Result<()> {
        let mut file = tokio::fs::File::open(&self.path).await?.take(self.size);
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = file.read(&mut buffer).await?;
            if n == 0 {
                return to.flush().await;
            }
            let silent = |_| io::Error::from(io::ErrorKind::TimedOut);
            timeout(SILENCE, to.write_all(&buffer[..n])).await.map_err(silent)??;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh(program: Program) -> Ssh {
        let options = vec!["ProxyJump=bastion".to_owned(), "ConnectTimeout=3".to_owned()];
        Ssh { to: "deploy@web1".into(), port: Some(2222), config: Some("/etc/x".into()), options, program }
    }

    #[test]
    fn what_promises_rest_on_stands_before_the_users_options() {
        let argv = ssh(Program::Installed("/opt/rip cord's/ripcord".into())).argv(None);
        let at = |word: &str| argv.iter().position(|arg| arg == word).unwrap_or_else(|| panic!("{word} in {argv:?}"));
        assert!(at("StrictHostKeyChecking=yes") < at("ProxyJump=bastion"));
        assert!(at("BatchMode=yes") < at("ProxyJump=bastion"));
        assert!(at("ConnectTimeout=3") < at("ConnectTimeout=10"), "a limit is theirs to choose");
        let end: Vec<&str> = argv[argv.len() - 7..].iter().map(String::as_str).collect();
        assert_eq!(
            end,
            ["-F", "/etc/x", "-p", "2222", "--", "deploy@web1", r"exec '/opt/rip cord'\''s/ripcord' agent"]
        );
    }

    #[test]
    fn nothing_gets_into_the_script_but_a_digest_and_a_size() {
        assert!(!SCRIPT.contains('\'') && !SCRIPT.contains('\n'));
        let image = Image { path: "x".into(), hex: "ab".repeat(32), size: 42 };
        let argv = ssh(Program::This).argv(Some(&image));
        assert_eq!(argv.last().unwrap(), &format!("exec sh -c '{SCRIPT}' ripcord {} 42", "ab".repeat(32)));
    }

    /// Runs the script as a login shell would, with what it is to take; what it becomes is a script itself.
    fn bootstrapped(home: &Path, digest: &str, size: usize, input: &[u8]) -> (String, String, Option<i32>) {
        use std::io::Write;
        let command = format!("exec sh -c '{SCRIPT}' ripcord {digest} {size}");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command]).env("HOME", home).env_remove("XDG_CACHE_HOME");
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may not want it.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code())
    }

    fn agent(number: usize) -> (Vec<u8>, String) {
        let agent = format!("#!/bin/sh\necho agent {number} is $1 with umask $(umask)\n").into_bytes();
        let digest = Digest::of(&agent).hex();
        (agent, digest)
    }

    #[test]
    fn an_agent_is_taken_once_checked_and_kept_with_the_two_before_it() {
        let home = tempfile::tempdir().unwrap();
        let umask =
            String::from_utf8(std::process::Command::new("sh").args(["-c", "umask"]).output().unwrap().stdout).unwrap();
        let (first, digest) = agent(1);
        let (out, err, code) = bootstrapped(home.path(), &digest, first.len(), &first);
        assert_eq!(
            (out, err.as_str(), code),
            (format!("ripcord: need\nagent 1 is agent with umask {umask}"), "", Some(0))
        );
        let (out, ..) = bootstrapped(home.path(), &digest, first.len(), b"");
        assert_eq!(out, format!("ripcord: have\nagent 1 is agent with umask {umask}"));
        let cache = home.path().join(".cache/ripcord");
        let names = || {
            let mut names: Vec<_> =
                std::fs::read_dir(&cache).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(), [format!("agent-{digest}")]);

        // Something else arrives than was promised; or less.
        let (second, digest) = agent(2);
        for wrong in [[b"x", &second[1..]].concat(), second[..10].to_vec()] {
            let (out, err, code) = bootstrapped(home.path(), &digest, second.len(), &wrong);
            assert_eq!(
                (out.as_str(), err.as_str(), code),
                ("ripcord: need\n", "what arrived is not what was sent\n", Some(65))
            );
        }
        assert_eq!(names().len(), 1, "nothing is left of it");

        // A machine lost power: the name is there and the content is not.
        std::fs::write(cache.join(format!("agent-{digest}")), "").unwrap();
        assert!(bootstrapped(home.path(), &digest, second.len(), &second).0.contains("agent 2"));

        for number in 3..6 {
            let (agent, digest) = agent(number);
            // Times of files are compared in whole seconds by some: they are set apart here.
            for (age, name) in names().into_iter().enumerate() {
                let old = std::time::SystemTime::now() - Duration::from_secs(100 + age as u64);
                std::fs::File::open(cache.join(name)).unwrap().set_modified(old).unwrap();
            }
            assert!(bootstrapped(home.path(), &digest, agent.len(), &agent).0.contains(&format!("agent {number}")));
            assert!(names().len() <= 3 && names().contains(&format!("agent-{digest}")));
        }
    }
}
