//! Signals: what is a value, what is no data, and what is a failure of the observer.

mod command;
mod host;
mod http;
mod log;
mod process;
mod prometheus;
mod scrape;
mod sql;
