//! The life of the server process: from the lock on its directory to the last answer.
//!
//! Configuration and release are read once, here; only the flags are hot. The process file appears when the port is
//! bound, so that who reads it finds a server and not a hope. It ends on TERM and INT, and when its directory is gone: a
//! demonstration that was deleted must not leave a server behind.
use super::{
    EnvFile, Layout, ShopError,
    fault::Mischief,
    flags::FlagFile,
    log::Log,
    maintenance::{Maintenance, Token},
    metrics::Metrics,
    orders::Orders,
    process::{self, Instance},
    release::{self, Fault},
    routes::{self, Shop},
};
use axum::serve::ListenerExt;
use std::{
    fs::{self, File},
    future::IntoFuture,
    io,
    net::Ipv4Addr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

const LOCK_WITHIN: Duration = Duration::from_millis(300);
/// How long requests that are being served at the end may still take.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
const LOOK_FOR_DIRECTORY_EVERY: Duration = Duration::from_secs(1);

/// Whether the process leaves the terminal it was started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    Own,
    Callers,
}

#[derive(Clone, Debug)]
pub struct ServeArgs {
    pub dir: PathBuf,
    /// 0 lets the system choose; the process file says which it is.
    pub port: u16,
    pub session: Session,
}

/// Serves the shop in `args.dir` until the process is told to end.
/// # Errors
/// Whatever keeps the shop from starting, written to its log as well. [`ShopError::AlreadyRuns`] when another process
/// serves the same directory, whatever its port.
pub async fn serve(args: ServeArgs) -> Result<(), ShopError> {
    if args.session == Session::Own {
        // Refused only to the leader of a group, which then has no terminal to be cut off from by accident.
        let _ = rustix::process::setsid();
    }
    let layout = Layout::new(&args.dir);
    let log = Arc::new(Log::open(&layout.log())?);
    let served = serve_logged(&layout, args.port, &log).await;
    if let Err(error) = &served {
        log.error(&with_causes(error));
    }
    served
}

async fn serve_logged(layout: &Layout, port: u16, log: &Arc<Log>) -> Result<(), ShopError> {
    let lock = lock(layout).await?;
    let mut ends = Ends::watch(layout)?;
    let (shop, database_closed) = open_shop(layout, log)?;
    let version = shop.release.version.clone();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.map_err(|source| ShopError::Listen { port, source })?;
    let port = listener.local_addr().map_err(|source| ShopError::Listen { port, source })?.port();
    let instance = Instance::of_this_process(port)?;
    log.info(&format!("release {version} serves on 127.0.0.1:{port} as process {}", instance.pid));
    process::announce(layout, &instance)?;

    let (stop, stopped) = oneshot::channel::<()>();
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true); // a matter of speed only
    });
    let server = axum::serve(listener, routes::router(shop)).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let mut server = Box::pin(server.into_future());
    let why = tokio::select! {
        ended = &mut server => return ended.map_err(|source| ShopError::Server { source }),
        why = ends.wait(log) => why,
    };
    log.info(&format!("release {version} ends: {why}"));
    let _ = stop.send(());
    if timeout(FINISH_WITHIN, &mut server).await.is_err() {
        log.error("release ended with requests unanswered");
    }
    drop(server);
    // Closing takes the write-ahead log into the database, so that a stopped shop is one file. Not vital: SQLite
    // recovers an open one.
    let _ = timeout(CLOSE_WITHIN, database_closed).await;
    process::withdraw(layout);
    drop(lock);
    Ok(())
}

async fn lock(layout: &Layout) -> Result<File, ShopError> {
    let deadline = Instant::now() + LOCK_WITHIN;
    loop {
        match process::lock(layout) {
            Err(ShopError::AlreadyRuns { .. }) if Instant::now() < deadline => sleep(Duration::from_millis(5)).await,
            settled => return settled,
        }
    }
}

fn open_shop(layout: &Layout, log: &Arc<Log>) -> Result<(Arc<Shop>, oneshot::Receiver<()>), ShopError> {
    // Resolved once: a switch while the process runs must not mix two releases.
    let current = layout.current();
    let home = fs::canonicalize(&current).map_err(ShopError::file("follow", &current))?;
    let release = release::read(&home)?;
    let env = EnvFile::read(&layout.env())?;
    let token = Token::from_env(&env, layout)?;
    let flags = FlagFile::open(&layout.flags())?;
    if release.fault == Fault::Crash {
        return Err(ShopError::ReleaseCrashes { version: release.version });
    }
    let path = layout.database();
    let (orders, closed) = Orders::open(path.clone()).map_err(ShopError::file("start the thread for", path))?;
    let shop = Shop {
        page: release::read_page(&home)?,
        token,
        flags,
        orders,
        metrics: Metrics::new(&release.version),
        log: log.clone(),
        maintenance: Maintenance::new(layout.maintenance()),
        mischief: Mischief::new(release.fault, env.is_on("FAST_CHECKOUT")),
        release,
        env,
    };
    Ok((Arc::new(shop), closed))
}

/// What ends the process.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    dir: PathBuf,
    dir_id: (u64, u64),
}

impl Ends {
    /// From here on a signal is not lost; it is acted on in [`Ends::wait`].
    fn watch(layout: &Layout) -> Result<Self, ShopError> {
        let on = |kind| signal(kind).map_err(|source| ShopError::Server { source });
        let dir = layout.dir().to_owned();
        let dir_id = identity(&dir).map_err(ShopError::file("look at", &dir))?;
        let (terminate, interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hang_up: on(SignalKind::hangup())?, dir, dir_id })
    }

    async fn wait(&mut self, log: &Log) -> &'static str {
        let mut look = interval(LOOK_FOR_DIRECTORY_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "told to terminate",
                _ = self.interrupt.recv() => return "interrupted",
                _ = self.hang_up.recv() => log.reopen(),
                _ = look.tick() => if identity(&self.dir).ok() != Some(self.dir_id) {
                    return "its directory is gone";
                },
            }
        }
    }
}

fn identity(dir: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(dir).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn with_causes(error: &ShopError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
