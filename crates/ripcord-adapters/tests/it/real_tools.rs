//! The real npm, Python and pm2, as far as they are on the machine; without them the tests fail. What is installed comes from local
//! directories, and once from the index that this machine uses.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Action, CaptureId, Component, Cx, Holds, Made, Outcome, Proof, Seen};

use crate::contract::{Site, before, restore_step, run_cx};
use crate::support::{Bench, cx_at, proof, sample, step, survey};

#[track_caller]
fn run(directory: &Path, words: &[&str]) -> String {
    let [program, arguments @ ..] = words else { panic!("no program") };
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    let output = output.unwrap_or_else(|error| panic!("there is no `{program}`: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Installs take longer than the limit of other tests' calls.
async fn apply(site: &Site, number: u64, step: &ripcord_core::Step) -> Outcome {
    let (part, cx) = (site.component(), Cx { limit: Duration::from_secs(300), ..run_cx(number) });
    let mark = part.holds(&cx, step, None).await.mark;
    part.apply(&cx, step, &before(number, step, mark)).await
}

async fn restored(site: &Site, number: u64, id: &CaptureId, made: &Made) -> Proof {
    proof(apply(site, number, &restore_step(id, made)).await)
}

/// A package in a file, as `npm pack` makes it.
fn pack(site: &Path, name: &str, version: &str) -> String {
    let directory = site.join(format!("{name}-{version}"));
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("package.json"), format!("{{\"name\":\"{name}\",\"version\":\"{version}\"}}")).unwrap();
    fs::write(directory.join("index.js"), format!("module.exports = '{name} {version}'\n")).unwrap();
    run(&directory, &["npm", "pack", "--pack-destination", ".."]);
    format!("file:../{name}-{version}.tgz")
}

fn release(site: &Path, version: &str, dependencies: &[(&str, &str)]) {
    let app = site.join("app");
    fs::create_dir_all(&app).unwrap();
    let of = |(name, from): &(&str, &str)| format!("\"{name}\":\"{from}\"");
    let list: Vec<_> = dependencies.iter().map(of).collect();
    let package = format!("{{\"name\":\"shop\",\"version\":\"{version}\",\"dependencies\":{{{}}}}}", list.join(","));
    fs::write(app.join("package.json"), package).unwrap();
    let _ = fs::remove_file(app.join("package-lock.json"));
    run(&app, &["npm", "install", "--package-lock-only", "--no-audit", "--no-fund"]);
    run(&app, &["npm", "ci", "--no-audit", "--no-fund"]);
}

fn loaded(site: &Path, name: &str) -> String {
    let script = format!("try {{ console.log(require('{name}')) }} catch (e) {{ console.log(e.code) }}");
    run(&site.join("app"), &["node", "-e", &script]).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_s_modules_come_back_from_the_lock() {
    let site = Site::new("npm", "directory: app");
    let path = site.path();
    let (one, two, new) = (pack(&path, "left", "1.0.0"), pack(&path, "left", "2.0.0"), pack(&path, "new", "1.0.0"));
    release(&path, "1.0.0", &[("left", &one)]);
    let (id, made) = site.capture(1).await;
    assert_eq!(site.seen().await, Seen::At(made.revision.clone()));
    release(&path, "2.0.0", &[("left", &two), ("new", &new)]);
    assert_eq!((loaded(&path, "left").as_str(), loaded(&path, "new").as_str()), ("left 2.0.0", "new 1.0.0"));
    let (bad_id, bad) = site.capture(2).await;

    let done = restored(&site, 3, &id, &made).await;
    assert!(done.found.contains("installed anew"), "{}", done.found);
    assert_eq!(loaded(&path, "left"), "left 1.0.0");
    assert_eq!(loaded(&path, "new"), "MODULE_NOT_FOUND", "what the release added is gone");
    assert_eq!(site.seen().await, Seen::At(made.revision.clone()));
    run(&site.at("app"), &["npm", "ls", "--all"]);
    // Without what it was installed from: the modules themselves were kept.
    fs::remove_file(site.at("left-2.0.0.tgz")).unwrap();
    let done = restored(&site, 4, &bad_id, &bad).await;
    assert!(done.found.contains("kept from before"), "{}", done.found);
    assert_eq!(loaded(&path, "left"), "left 2.0.0");

    // A yanked package: the lock names what cannot be had, and what runs goes on.
    fs::remove_file(site.at("left-1.0.0.tgz")).unwrap();
    for name in crate::contract::names(&path).iter().filter(|name| name.starts_with("app-npm-failed-")) {
        fs::remove_dir_all(site.at(name)).unwrap();
    }
    run(&path, &["npm", "cache", "clean", "--force", "--cache", "cache"]);
    let site = site.with("directory: app\ninstall: [npm, ci, --cache, ../cache]");
    let outcome = apply(&site, 5, &restore_step(&id, &made)).await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert!(failure.what.contains("npm"), "{}", failure.what);
    assert_eq!((loaded(&site.path(), "left").as_str(), site.leftovers()), ("left 2.0.0", vec![]));
    assert_eq!(site.seen().await, Seen::At(bad.revision));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_s_modules_come_back_from_the_registry() {
    let site = Site::new("npm", "directory: app");
    release(&site.path(), "1.0.0", &[("is-number", "6.0.0")]);
    let (id, made) = site.capture(1).await;
    release(&site.path(), "2.0.0", &[("is-number", "7.0.0")]);
    restored(&site, 2, &id, &made).await;
    let version = "console.log(require('is-number/package.json').version)";
    assert_eq!(run(&site.at("app"), &["node", "-e", version]).trim(), "6.0.0");
    assert_eq!(site.seen().await, Seen::At(made.revision));
}

/// A wheel by hand: a zip with a module, its metadata, and a record.
fn wheel(site: &Path, name: &str, version: &str) {
    let script = "
import sys, zipfile
name, version = sys.argv[1:3]
info = f'{name}-{version}.dist-info'
with zipfile.ZipFile(f'wheels/{name}-{version}-py3-none-any.whl', 'w') as wheel:
    files = {f'{name}.py': f'version = {version!r}\\n', f'{info}/WHEEL': 'Wheel-Version: 1.0\\nGenerator: hand\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n',
             f'{info}/METADATA': f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n'}
    for path, text in files.items():
        wheel.writestr(path, text)
    wheel.writestr(f'{info}/RECORD', ''.join(f'{path},,\\n' for path in [*files, f'{info}/RECORD']))
";
    fs::create_dir_all(site.join("wheels")).unwrap();
    run(site, &["python3", "-c", script, name, version]);
}

fn imported(site: &Path, name: &str) -> String {
    let script = format!("try:\n import {name}; print({name}.version)\nexcept ImportError: print('none')");
    run(site, &["venv/bin/python", "-c", &script]).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_comes_back_from_wheels() {
    let options = "install-options: [--no-index, --find-links, wheels]";
    let site = Site::new("pip", format!("venv: venv\n{options}\nverify: [python, -c, 'import shop_lib']"));
    let path = site.path();
    for (name, version) in [("shop_lib", "1.0"), ("shop_lib", "2.0"), ("extra", "1.0")] {
        wheel(&path, name, version);
    }
    // A directory, as most have it; the release is installed in place.
    run(&path, &["python3", "-m", "venv", "venv"]);
    let install = |what: &[&str]| {
        let words = ["venv/bin/python", "-m", "pip", "install", "--no-index", "--find-links", "wheels"];
        run(&path, &[&words[..], what].concat());
    };
    install(&["shop_lib==1.0"]);
    let (id, made) = site.capture(1).await;
    install(&["shop_lib==2.0", "extra"]);
    let (bad_id, bad) = site.capture(2).await;
    assert_eq!(imported(&path, "shop_lib"), "2.0");

    // The index is down.
    fs::rename(site.at("wheels"), site.at("away")).unwrap();
    let outcome = apply(&site, 3, &restore_step(&id, &made)).await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert!(failure.what.contains("shop"), "{}", failure.what);
    assert_eq!((imported(&path, "shop_lib").as_str(), site.at("venv").is_symlink()), ("2.0", false));
    fs::rename(site.at("away"), site.at("wheels")).unwrap();

    restored(&site, 4, &id, &made).await;
    assert_eq!((imported(&path, "shop_lib").as_str(), imported(&path, "extra").as_str()), ("1.0", "none"));
    assert!(site.at("venv").is_symlink());
    assert_eq!(site.seen().await, Seen::At(made.revision.clone()));
    run(&path, &["venv/bin/pip", "check"]);
    restored(&site, 5, &bad_id, &bad).await;
    assert_eq!(imported(&path, "extra"), "1.0");
    // Both are kept now: the way back and forth needs no wheels.
    fs::remove_dir_all(site.at("wheels")).unwrap();
    let done = restored(&site, 6, &id, &made).await;
    assert!(done.found.ends_with("which was kept"), "{}", done.found);
    assert_eq!(imported(&path, "shop_lib"), "1.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_comes_back_from_the_index() {
    let site = Site::new("pip", "venv: venv\nrequirements: requirements.txt");
    let path = site.path();
    fs::create_dir(site.at("venvs")).unwrap();
    run(&path, &["python3", "-m", "venv", "venvs/first"]);
    symlink("venvs/first", site.at("venv")).unwrap();
    run(&path, &["venv/bin/pip", "install", "--no-deps", "six==1.16.0"]);
    let (id, made) = site.capture(1).await;
    run(&path, &["venv/bin/pip", "install", "--no-deps", "six==1.17.0"]);
    restored(&site, 2, &id, &made).await;
    let version = run(&path, &["venv/bin/python", "-c", "import six; print(six.__version__)"]);
    assert_eq!((version.trim(), site.seen().await), ("1.16.0", Seen::At(made.revision)));
}

/// The real pm2, installed once for all tests of this process, and a home of one's own.
struct Pm2 {
    bench: Bench,
    program: PathBuf,
}

static PM2: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();

impl Pm2 {
    fn new() -> Self {
        let place = PM2.get_or_init(|| {
            let place = tempfile::tempdir().unwrap();
            run(place.path(), &["npm", "install", "--no-audit", "--no-fund", "pm2"]);
            place
        });
        let bench = Bench::new();
        fs::create_dir(bench.path("home")).unwrap();
        let server = "require('http').createServer((q, r) => r.end(process.env.MODE + ' ' + process.env.CARGO_MANIFEST_DIR))\
                      .listen(process.env.PORT)\n";
        bench.write("app.js", server);
        bench.write("crash.js", "throw new Error('no such module')\n");
        Self { bench, program: place.path().join("node_modules/.bin/pm2") }
    }

    fn pm2(&self, words: &[&str]) {
        let mut command = Command::new(&self.program);
        command.args(words).current_dir(self.bench.dir.path()).env("PM2_HOME", self.bench.path("home"));
        // By hand, with an environment of one's own.
        let output = command.env("MODE", "first").env_remove("CARGO_MANIFEST_DIR").output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn settings(&self, more: &str) -> String {
        format!("app: shop\nhome: home\nprogram: ['{}']\n{more}", self.program.display())
    }

    fn component(&self, more: &str) -> Arc<dyn Component> {
        self.bench.component("pm2", &self.settings(&format!("settle: 1s\n{more}")))
    }
}

impl Drop for Pm2 {
    fn drop(&mut self) {
        let _ = Command::new(&self.program).arg("kill").env("PM2_HOME", self.bench.path("home")).output();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What the application answers, once it listens.
async fn ask(port: u16) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        let mut text = String::new();
        if let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            let _ = stream.read_to_string(&mut text).await;
        }
        if let Some((_, body)) = text.rsplit_once("\r\n\r\n") {
            return body.trim().to_owned();
        }
        assert!(tokio::time::Instant::now() < deadline, "the application does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn acted(part: &dyn Component, number: u64, name: &str, action: Action) -> Outcome {
    // Each word with pm2 starts a Node, which takes its time on a busy machine.
    let cx = cx_at(Timestamp::now(), Duration::from_secs(300));
    let step = step(name, action);
    let mark = part.holds(&cx, &step, None).await.mark;
    let before = before(number, &step, mark);
    let outcome = part.apply(&cx, &step, &before).await;
    if matches!(outcome, Outcome::Done(_)) {
        assert_eq!(part.holds(&cx, &step, Some(&before)).await.holds, Holds::Target, "{name}");
    }
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf18_pm2_s_application_has_the_env_file_s_values_after_a_start() {
    let pm2 = Pm2::new();
    let port = free_port();
    let ecosystem = format!(
        "module.exports = {{ apps: [{{ name: 'shop', script: 'app.js', instances: 2, exec_mode: 'cluster', env: {{ PORT: {port} }} }}] }}\n"
    );
    pm2.bench.write("ecosystem.config.js", &ecosystem);
    pm2.bench.write("app.env", "MODE=good\n");
    let part = pm2.component("ecosystem: ecosystem.config.js\nenv-file: app.env");
    assert_eq!(survey(&*part, &[]).await.running, Some(false));
    assert!(!pm2.bench.path("home/rpc.sock").exists(), "a look started pm2's daemon");
    let signal = pm2.bench.signal("pm2", &pm2.settings(""));
    assert_eq!(sample(crate::support::read(&*signal).await).value, 1.0);

    proof(acted(&*part, 1, "start", Action::Start).await);
    assert_eq!(ask(port).await, "good undefined");
    pm2.bench.write("app.env", "MODE=bad\n");
    assert!(survey(&*part, &[]).await.facts["not in force"].contains("MODE"));
    let done = proof(acted(&*part, 2, "start", Action::Start).await);
    assert!(done.found.starts_with("reloaded, 2 online"), "{}", done.found);
    assert_eq!(ask(port).await, "bad undefined");
    proof(acted(&*part, 3, "stop", Action::Stop).await);
    assert_eq!(survey(&*part, &[]).await.running, Some(false));
    pm2.bench.write("app.env", "MODE=good\n");
    proof(acted(&*part, 4, "start", Action::Start).await);
    assert_eq!(ask(port).await, "good undefined");
    assert_eq!(sample(crate::support::read(&*signal).await).value, 0.0);
    // The ecosystem file starts something else now, which does not run.
    let crashes = ecosystem.replace("app.js", "crash.js").replace("'cluster'", "'fork', max_restarts: 2");
    pm2.bench.write("ecosystem.config.js", &crashes);
    proof(acted(&*part, 5, "stop", Action::Stop).await);
    let outcome = acted(&*part, 6, "start", Action::Start).await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert!(failure.what.contains("does not stay up"), "{}", failure.what);
    assert!(failure.output.as_ref().is_some_and(|said| said.contains("no such module")), "{failure:?}");
}

/// Users, until the sender is dropped: how many were served, and what went wrong for the others.
async fn users(port: u16, mut until: tokio::sync::oneshot::Receiver<()>) -> (usize, Vec<String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut served, mut failed) = (0, vec![]);
    let request = async || -> std::io::Result<String> {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    };
    while until.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
        let answer = tokio::time::timeout(Duration::from_secs(20), request()).await;
        match answer.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(text) if text.starts_with("HTTP/1.1 200") => served += 1,
            other => failed.push(format!("{other:?}")),
        }
    }
    (served, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_variable_that_no_file_has_any_more_is_gone_and_users_do_not_notice() {
    let pm2 = Pm2::new();
    let port = free_port();
    let server = "const server = require('http').createServer((q, r) => r.end(process.env.MODE + ' ' + process.env.ENABLE_NEW))\n\
                  server.listen(process.env.PORT, () => process.send('ready'))\n\
                  process.on('SIGINT', () => require('cluster').worker.disconnect())\n";
    pm2.bench.write("app.js", server);
    let definition = format!("exec_mode: 'cluster', instances: 2, wait_ready: true, env: {{ PORT: {port} }}");
    pm2.bench.write(
        "ecosystem.config.js",
        &format!("module.exports = {{ apps: [{{ name: 'shop', script: 'app.js', {definition} }}] }}\n"),
    );
    pm2.bench.write("app.env", "MODE=bad\nENABLE_NEW=true\n");
    let files = "ecosystem: ecosystem.config.js\nenv-file: app.env";
    let part = pm2.component(&format!("{files}\nvariables: ['ENABLE_*']"));
    proof(acted(&*part, 1, "start", Action::Start).await);
    assert_eq!(ask(port).await, "bad true");
    assert!(survey(&*part, &[]).await.rolls);

    let (done, until) = tokio::sync::oneshot::channel();
    let users = tokio::spawn(users(port, until));
    pm2.bench.write("app.env", "MODE=good\n");
    // Without being told that it belongs to a release, pm2 keeps it.
    proof(acted(&*pm2.component(files), 2, "start", Action::Roll).await);
    assert_eq!(ask(port).await, "good true");
    let proof = proof(acted(&*part, 3, "start", Action::Roll).await);
    assert!(proof.found.starts_with("started anew beside, without ENABLE_NEW, 2 online"), "{}", proof.found);
    assert_eq!(ask(port).await, "good undefined");
    done.send(()).unwrap();
    let (served, failed) = users.await.unwrap();
    assert!(served > 50, "{served}");
    assert_eq!(failed, Vec::<String>::new());
    // What stood in is gone, and where one was left by a kill it goes with the next start.
    let stand_ins =
        || run(&pm2.bench.path("home"), &["sh", "-c", &format!("PM2_HOME=. '{}' jlist", pm2.program.display())]);
    assert!(!stand_ins().contains("shop.ripcord"));
    pm2.pm2(&["start", "app.js", "--name", "shop.ripcord", "-i", "1"]);
    assert!(stand_ins().contains("shop.ripcord"));
    let started = acted(&*part, 4, "start", Action::Roll).await;
    assert!(matches!(started, Outcome::Done(_)), "{started:?}");
    assert!(!stand_ins().contains("shop.ripcord"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_pm2_alone_knows_is_stopped_and_started() {
    let pm2 = Pm2::new();
    let port = free_port();
    pm2.bench.write("app.env", &format!("MODE=good\nPORT={port}\n"));
    pm2.pm2(&["start", "app.js", "--name", "shop"]);
    let part = pm2.component("env-file: app.env");
    proof(acted(&*part, 1, "stop", Action::Stop).await);
    proof(acted(&*part, 2, "start", Action::Start).await);
    assert_eq!(ask(port).await, "good undefined");
    pm2.bench.write("app.env", &format!("MODE=better\nPORT={port}\n"));
    proof(acted(&*part, 3, "start", Action::Start).await);
    assert_eq!(ask(port).await, "better undefined");
}
