//! The words after `shop`, parsed and carried out.
use super::{
    Fault, Instance, Layout, Program, ServeArgs, Session, ShopError, StartArgs, Started, Stopped, init_dir, observe,
    serve, start, stop, switch, write_release,
};
use crate::load::Load;
use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// How each command is written.
pub const USAGE: &str = "\
init      --dir DIR [--orders N]                 lay out a shop with N orders in it
release   --dir DIR --version V [--fault FAULT]  write releases/V (none, checkout, corrupts-data, slow, crash, leak)
switch    --dir DIR --version V                  point `current` at releases/V
start     --dir DIR --port P                     start the server (0: any port) and wait until it answers
stop      --dir DIR                              end the server; nothing to do is success
status    --dir DIR                              running or stopped
instance  --dir DIR                              identity of the running process; exit code 3 when stopped
serve     --dir DIR --port P [--detached]        be the server
load      --url URL --rate R --seconds S [--writes SHARE]
                                                 send R requests a second, SHARE (0 to 1) of them orders";

/// The exit code of `instance` when nothing runs: the one that init scripts use for "not running".
const STOPPED: u8 = 3;
const START_WITHIN: Duration = Duration::from_secs(15);
/// More than the server gives its last requests.
const STOP_GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub enum ShopCommand {
    Init { dir: PathBuf, orders: u32 },
    Release { dir: PathBuf, version: String, fault: Fault },
    Switch { dir: PathBuf, version: String },
    Start { dir: PathBuf, port: u16 },
    Stop { dir: PathBuf },
    Status { dir: PathBuf },
    Instance { dir: PathBuf },
    Serve(ServeArgs),
    Load(Load),
}

/// What a command has to say, and how its process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Without a final line break; empty when there is nothing to say.
    pub text: String,
    pub code: u8,
}

/// Understands the words after `shop`.
/// # Errors
/// [`ShopError::Usage`], to be shown with [`USAGE`].
pub fn parse(args: &[String]) -> Result<ShopCommand, ShopError> {
    let Some((command, rest)) = args.split_first() else {
        return Err(usage("a command is missing"));
    };
    let mut options = Options::read(rest)?;
    let parsed = match command.as_str() {
        "init" => ShopCommand::Init { dir: options.needed("dir")?, orders: options.optional("orders")?.unwrap_or(0) },
        "release" => ShopCommand::Release {
            dir: options.needed("dir")?,
            version: options.needed("version")?,
            fault: options.optional("fault")?.unwrap_or(Fault::None),
        },
        "switch" => ShopCommand::Switch { dir: options.needed("dir")?, version: options.needed("version")? },
        "start" => ShopCommand::Start { dir: options.needed("dir")?, port: options.needed("port")? },
        "stop" => ShopCommand::Stop { dir: options.needed("dir")? },
        "status" => ShopCommand::Status { dir: options.needed("dir")? },
        "instance" => ShopCommand::Instance { dir: options.needed("dir")? },
        "serve" => ShopCommand::Serve(ServeArgs {
            dir: options.needed("dir")?,
            port: options.needed("port")?,
            session: if options.switch("detached") { Session::Own } else { Session::Callers },
        }),
        "load" => ShopCommand::Load(Load {
            url: options.needed("url")?,
            rate_per_second: options.needed("rate")?,
            write_share: options.optional("writes")?.unwrap_or(0.5),
            at_most: Some(Duration::from_secs(options.needed("seconds")?)),
        }),
        other => return Err(usage(format!("`{other}` is not a command of the shop"))),
    };
    options.finish()?;
    Ok(parsed)
}

/// Carries out a command; `program` is how `start` runs `serve`.
pub async fn run(command: ShopCommand, program: Program) -> Result<Outcome, ShopError> {
    match command {
        ShopCommand::Serve(args) => serve(args).await.map(|()| said("")),
        ShopCommand::Load(load) => Ok(said(load.start()?.finished().await)),
        ShopCommand::Init { dir, orders } => blocking(move || laid_out(&dir, orders)).await,
        ShopCommand::Release { dir, version, fault } => blocking(move || released(&dir, &version, fault)).await,
        ShopCommand::Switch { dir, version } => blocking(move || switched(&dir, &version)).await,
        ShopCommand::Start { dir, port } => {
            let args = StartArgs { dir, port, program, at_most: START_WITHIN };
            blocking(move || start(&args).map(|started| said(was_started(&started)))).await
        }
        ShopCommand::Stop { dir } => blocking(move || Ok(said(was_stopped(&stop(&dir, STOP_GRACE)?)))).await,
        ShopCommand::Status { dir } => blocking(move || Ok(said(status(observe(&dir)?)))).await,
        ShopCommand::Instance { dir } => blocking(move || Ok(identity(observe(&dir)?))).await,
    }
}

/// For what waits for processes and files.
async fn blocking(act: impl FnOnce() -> Result<Outcome, ShopError> + Send + 'static) -> Result<Outcome, ShopError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(outcome) => outcome,
        Err(error) => Err(ShopError::Server { source: error.into() }),
    }
}

fn laid_out(dir: &Path, orders: u32) -> Result<Outcome, ShopError> {
    init_dir(dir, orders)?;
    Ok(said(format!("laid out a shop with {orders} orders in {}", dir.display())))
}

fn released(dir: &Path, version: &str, fault: Fault) -> Result<Outcome, ShopError> {
    let into = Layout::new(dir).releases().join(version);
    write_release(&into, version, fault)?;
    Ok(said(format!("wrote release {version} to {}", into.display())))
}

fn switched(dir: &Path, version: &str) -> Result<Outcome, ShopError> {
    switch(dir, version)?;
    Ok(said(format!("current is {version}")))
}

fn was_started(started: &Started) -> String {
    let word = if matches!(started, Started::New(_)) { "started" } else { "already running" };
    let instance = started.instance();
    format!("{word}: {instance} on 127.0.0.1:{}", instance.port)
}

fn was_stopped(stopped: &Stopped) -> String {
    match stopped {
        Stopped::Ended(instance) => format!("stopped {instance}"),
        Stopped::Killed(instance) => format!("killed {instance}: it did not end when asked to"),
        Stopped::WasNotRunning => "was not running".to_owned(),
    }
}

fn status(running: Option<Instance>) -> String {
    match running {
        Some(instance) => format!("running: {instance} on 127.0.0.1:{}", instance.port),
        None => "stopped".to_owned(),
    }
}

fn identity(running: Option<Instance>) -> Outcome {
    running.map_or(Outcome { text: String::new(), code: STOPPED }, said)
}

fn said(text: impl Display) -> Outcome {
    Outcome { text: text.to_string(), code: 0 }
}

fn usage(why: impl Into<String>) -> ShopError {
    ShopError::Usage { why: why.into() }
}

/// `--name value`, `--name=value`, and the switches, which have no value.
struct Options(BTreeMap<String, Option<String>>);

impl Options {
    const SWITCHES: [&str; 1] = ["detached"];

    fn read(args: &[String]) -> Result<Self, ShopError> {
        let mut found = BTreeMap::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let option = arg.strip_prefix("--").ok_or_else(|| usage(format!("`{arg}` is not an option")))?;
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None if Self::SWITCHES.contains(&option) => (option, None),
                None => (option, args.next().cloned()),
            };
            if found.insert(name.to_owned(), value).is_some() {
                return Err(usage(format!("--{name} is given twice")));
            }
        }
        Ok(Self(found))
    }

    fn needed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<T, ShopError> {
        self.optional(name)?.ok_or_else(|| usage(format!("--{name} is missing")))
    }

    fn optional<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, ShopError> {
        let Some(value) = self.0.remove(name) else {
            return Ok(None);
        };
        let value = value.filter(|value| !value.is_empty()).ok_or_else(|| usage(format!("--{name} needs a value")))?;
        value.parse().map(Some).map_err(|error| usage(format!("--{name}: `{value}`: {error}")))
    }

    fn switch(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    fn finish(self) -> Result<(), ShopError> {
        self.0.keys().next().map_or(Ok(()), |name| Err(usage(format!("--{name} is not an option of this command"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<ShopCommand, ShopError> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn commands_are_understood() {
        let understood = |line: &str| format!("{:?}", words(line).unwrap());
        assert_eq!(understood("init --dir /d"), r#"Init { dir: "/d", orders: 0 }"#);
        assert_eq!(understood("init --orders=7 --dir=/d"), r#"Init { dir: "/d", orders: 7 }"#);
        assert_eq!(
            understood("release --dir d --version v1 --fault slow"),
            r#"Release { dir: "d", version: "v1", fault: Slow }"#
        );
        assert_eq!(understood("release --dir d --version v1"), r#"Release { dir: "d", version: "v1", fault: None }"#);
        assert_eq!(understood("switch --dir d --version v1"), r#"Switch { dir: "d", version: "v1" }"#);
        assert_eq!(understood("start --dir d --port 80"), r#"Start { dir: "d", port: 80 }"#);
        assert_eq!(
            understood("serve --detached --port 0 --dir d"),
            r#"Serve(ServeArgs { dir: "d", port: 0, session: Own })"#
        );
        assert_eq!(understood("serve --port 0 --dir d"), r#"Serve(ServeArgs { dir: "d", port: 0, session: Callers })"#);
        for command in ["stop", "status", "instance"] {
            assert!(understood(&format!("{command} --dir d")).to_lowercase().starts_with(command));
        }
        assert!(understood("load --url http://127.0.0.1:1 --rate 5 --seconds 2").contains("write_share: 0.5"));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let refused = |line: &str| words(line).unwrap_err().to_string();
        assert_eq!(parse(&[]).unwrap_err().to_string(), "a command is missing");
        assert_eq!(refused("sell"), "`sell` is not a command of the shop");
        assert_eq!(refused("stop"), "--dir is missing");
        assert_eq!(refused("stop --dir"), "--dir needs a value");
        assert_eq!(refused("stop --dir="), "--dir needs a value");
        assert_eq!(refused("stop d"), "`d` is not an option");
        assert_eq!(refused("stop --dir d --dir e"), "--dir is given twice");
        assert_eq!(refused("stop --dir d --port 1"), "--port is not an option of this command");
        assert!(refused("start --dir d --port 99999").starts_with("--port: `99999`: "));
        assert!(refused("release --dir d --version v --fault tea").starts_with("--fault: `tea`: `tea` is not a fault"));
    }
}
