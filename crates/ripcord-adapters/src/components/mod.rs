//! What has a revision or holds data: one file per kind, alphabetical. The registry is `kinds.rs`.

pub mod command; // anything that commands can observe, capture and restore
pub mod directory; // a directory of files
pub mod driver; // anything, through a program that speaks the driver protocol
pub mod env_file; // KEY=value files
mod files; // what the kinds of files share
pub mod git; // a checkout
pub mod http_switch; // maintenance mode, by HTTP
pub mod json_file; // flags and settings in JSON
pub mod sqlite; // an SQLite database
mod tree; // what the kinds of trees share
