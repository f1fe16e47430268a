//! The program as people and scripts meet it: the real binary, real files, and what it says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[cfg(feature = "real")]
mod agentic; // eleven services on a Docker Engine
#[cfg(feature = "real")]
mod agentic_data; // their data: PostgreSQL, migrations, Redis, etcd
#[cfg(feature = "real")]
mod agents_platform; // an API and a worker, with PostgreSQL and Redis
mod bed; // a small application to deploy and take back
mod crash; // killed and interrupted in the middle
mod data; // what would be lost
#[cfg(feature = "real")]
mod demo; // both stories of the demonstration, in real time
mod deploys; // deployments, good and bad
#[cfg(feature = "real")]
mod hosts; // many hosts, and what goes wrong between them
mod kills; // kill -9 at each event of a run
#[cfg(feature = "real")]
mod orchestration; // a service under systemd, on a machine reached over SSH
mod people; // approvals, watching, incidents
mod record; // the journal, captures, documents
mod rollbacks; // taken back by hand
mod shop; // a process that serves
#[cfg(feature = "real")]
mod spawn_upload; // an application under pm2
#[cfg(feature = "real")]
mod ssh; // places on hosts, through a real SSH server
mod usage; // help, mistakes, exit codes
