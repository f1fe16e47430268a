//! What has a revision or holds data: one file per kind, alphabetical. The registry is `kinds.rs`.

pub mod command; // anything that commands can observe, capture and restore
pub mod compose; // a service of a Docker Compose project
pub mod directory; // a directory of files
mod disk; // whether there is room
pub mod driver; // anything, through a program that speaks the driver protocol
pub mod env_file; // KEY=value files
pub mod etcd; // the keys of an etcd prefix
mod files; // what the kinds of files share
pub mod git; // a checkout
pub mod http_flags; // feature flags, by HTTP
pub mod http_switch; // maintenance mode, by HTTP
pub mod json_file; // flags and settings in JSON
pub mod migrations; // a database's schema, by its migrations
pub mod npm; // what npm installs, and what is built with it
pub mod pip; // a Python virtual environment
pub mod pm2; // an application under pm2
mod ports; // whether they are free
pub mod postgres; // a PostgreSQL database
pub mod redis; // the keys of a cache in Redis
pub mod sqlite; // an SQLite database
pub mod systemd; // a unit of systemd
mod tidy; // names of ours that are old
pub(crate) mod tool; // programs of the machine that kinds work through
mod tree; // what the kinds of trees share
