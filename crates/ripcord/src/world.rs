//! The one place where a configuration becomes a world to act on: adapters built, record and vault opened.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use ripcord_adapters::hosts::far::{signal_on, spread};
use ripcord_adapters::hosts::{Home, Link, Links};
use ripcord_adapters::{BuildCx, build_channel, build_component, build_signal};
use ripcord_core::{Actor, AppId, CaptureId, Holder, Made, Parts, Seq, Store, StoreError};
use ripcord_engine::{Clock, Shelf, TTL, World};
use ripcord_store::{MemoryStore, SqliteStore};
use ripcord_vault::Vault;

use crate::args::Common;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::site::Site;

/// What a command works with.
pub struct Station {
    pub site: Site,
    pub store: Arc<SqliteStore>,
    pub world: World,
    pub vault: Option<Vault>,
    /// The hosts that components are on; nothing is connected before it is needed.
    pub links: Links,
    pub screen: Arc<Screen>,
    /// How long the lease lasts without being renewed.
    pub ttl: Duration,
}

/// What a command is about to do with what is out there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nothing but the record: no adapter is built, no vault opened.
    Record,
    /// It is looked at.
    Look,
    /// It may be changed.
    Act,
}

impl Station {
    /// Opens what `reach` needs; none where there is no record yet and nothing is going to be written.
    pub async fn open_if_there(
        common: &Common,
        screen: &Arc<Screen>,
        reach: Reach,
    ) -> Result<Result<Self, Site>, Problem> {
        let site = Site::find(common)?;
        let redactor = screen.redactor().clone();
        let store = match reach {
            Reach::Act => {
                site.make_state()?;
                SqliteStore::open(&site.state)?
            }
            Reach::Record | Reach::Look => match SqliteStore::open_to_read(&site.state)? {
                Some(store) => store,
                None => return Ok(Err(site)),
            },
        };
        let store = Arc::new(store.with_redactor(redactor.clone()));
        let application = Arc::new(site.loaded.application.clone());
        let vault = match reach {
            Reach::Record => None,
            Reach::Look if !site.vault_is_there() => None,
            Reach::Look | Reach::Act => Some(site.open_vault(&redactor).await?),
        };
        let (parts, links) = match reach {
            Reach::Record => (Parts::default(), Links::new()),
            Reach::Look | Reach::Act => {
                let captures = captures(Arc::clone(&store), application.id.clone());
                parts(&site, screen, vault.clone(), captures)?
            }
        };
        let world = World {
            application,
            parts,
            store: Arc::clone(&store) as Arc<dyn Store>,
            clock: Clock::System,
            redactor,
            holder: holder(),
        };
        let ttl = common.lease.unwrap_or(TTL);
        Ok(Ok(Self { site, store, world, vault, links, screen: Arc::clone(screen), ttl }))
    }

    /// As [`Self::open_if_there`], for commands that are about something on record.
    pub async fn open(common: &Common, screen: &Arc<Screen>, reach: Reach) -> Result<Self, Problem> {
        Self::open_if_there(common, screen, reach).await?.map_err(|site| {
            let app = &site.loaded.application.id;
            Problem::new(Exit::NothingToDo, format!("nothing is recorded of {app} yet"))
                .place(site.state.display().to_string())
                .help("`ripcord release record VERSION` records what is live, `ripcord deploy` what it deploys")
        })
    }

    pub fn app(&self) -> &AppId {
        self.world.app()
    }

    /// The captures in the vault, where one is open.
    pub fn shelf(&self) -> Option<Shelf> {
        let environments = self.site.loaded.environments.clone();
        Some(Shelf { vault: self.vault.clone()?, environments })
    }

    /// The world, to be held for `doing`.
    pub fn world_for(&self, doing: &str) -> World {
        let mut world = self.world.clone();
        world.holder.doing = doing.to_owned();
        world
    }
}

/// A world of which nothing was recorded yet: good for looking around.
pub fn unrecorded(site: &Site, screen: &Arc<Screen>, reach: Reach) -> Result<(World, Links), Problem> {
    let (parts, links) = match reach {
        Reach::Record => (Parts::default(), Links::new()),
        Reach::Look | Reach::Act => parts(site, screen, None, Arc::new(|_| None))?,
    };
    let world = World {
        application: Arc::new(site.loaded.application.clone()),
        parts,
        store: Arc::new(MemoryStore::new()),
        clock: Clock::System,
        redactor: screen.redactor().clone(),
        holder: holder(),
    };
    Ok((world, links))
}

/// Every component, signal and channel that is configured, as a live object, and the links to the hosts they are on.
fn parts(
    site: &Site,
    screen: &Arc<Screen>,
    vault: Option<Vault>,
    captures: Captures,
) -> Result<(Parts, Links), Problem> {
    let terminal = Arc::clone(screen);
    let revision_key = match site.state.exists() {
        true => site.revision_key()?,
        // Nothing was ever recorded by a key, so that any will do to look around.
        false => [0; 32],
    };
    let loaded = &site.loaded;
    let home = Home {
        app: loaded.application.id.clone(),
        config: loaded.text.clone(),
        config_name: crate::site::FILE.to_owned(),
        base: site.base.clone(),
        redactor: screen.redactor().clone(),
        vault: vault.clone(),
        revision_key,
    };
    let links: Links = loaded.hosts.iter().map(|(id, host)| (id.clone(), Link::new(id, host, &home))).collect();
    let cx = BuildCx {
        base: site.base.clone(),
        redactor: screen.redactor().clone(),
        vault: vault.map(Into::into),
        captures,
        revision_key,
        keep_aside: site.loaded.application.policy.keep_aside,
        terminal: Arc::new(move |text| {
            terminal.line(text.trim_end());
            io::Result::Ok(())
        }),
    };
    let mut parts = Parts::default();
    for (id, settings) in &loaded.components {
        let hosts = loaded.application.components.get(id).map_or(&[] as &[_], |spec| &spec.hosts);
        let component = match hosts {
            [] => build_component(id, settings, &cx)?,
            hosts => spread(id, settings, hosts, &links, &cx)?,
        };
        parts.components.insert(id.clone(), component);
    }
    for (id, settings) in &loaded.signals {
        let signal = match loaded.signal_hosts.get(id) {
            None => build_signal(id, settings, &cx)?,
            Some(host) => signal_on(id, settings, host, &links, &cx)?,
        };
        parts.signals.insert(id.clone(), signal);
    }
    for (id, settings) in &loaded.channels {
        parts.channels.insert(id.clone(), build_channel(id, settings, &cx)?);
    }
    Ok((parts, links))
}

/// The record's view of a capture, for adapters.
type Captures = Arc<dyn Fn(&CaptureId) -> Option<Made> + Send + Sync>;

/// What the record knows of a capture; nothing of one that is not to be relied on.
///
/// Adapters ask from wherever they are, also from within the runtime, so that this waits without it: the store's own thread
/// answers. What was read counts until the journal is longer.
fn captures(store: Arc<SqliteStore>, app: AppId) -> Captures {
    let known: Mutex<(Seq, BTreeMap<CaptureId, Made>)> = Mutex::default();
    let look =
        move |known: &mut (Seq, BTreeMap<CaptureId, Made>), id: &CaptureId| -> Result<Option<Made>, StoreError> {
            let (head, _) = wait(store.head(&app))?;
            if known.0 != head {
                let rows = wait(store.captures(&app))?.into_iter();
                let there = rows.filter(|row| row.spoiled.is_none() && !row.pruned).map(|row| (row.id, row.made));
                *known = (head, there.collect());
            }
            Ok(known.1.get(id).cloned())
        };
    Arc::new(move |id| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut known, id).unwrap_or_else(|error| {
            tracing::error!(%error, capture = %id, "the record of a capture cannot be read");
            None
        })
    })
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks this thread on a future that needs no runtime to end.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn holder() -> Holder {
    Holder {
        incarnation: uuid::Uuid::now_v7().to_string(),
        actor: actor(),
        pid: std::process::id(),
        doing: "ripcord".to_owned(),
    }
}

/// The person at this command line, as the operating system knows them. `$USER` can be set to anything, so it is not asked.
fn actor() -> Actor {
    let uid = rustix::process::getuid().as_raw();
    let known = std::fs::read_to_string("/etc/passwd").ok().and_then(|text| name_of(&text, uid));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Actor::Person { user: known.unwrap_or_else(|| format!("uid-{uid}")), host }
}

/// The name of a user in the text of passwd(5).
fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nops:x:1000:100::/home/ops:/bin/sh\n# x\n";
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("ops"));
        assert_eq!(name_of(passwd, 7), None);
    }

    #[test]
    fn waiting_needs_no_runtime() {
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || tell.send(7));
        assert_eq!(wait(told), Ok(7));
    }
}
