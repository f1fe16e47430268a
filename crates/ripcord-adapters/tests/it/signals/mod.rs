//! Signals: what is a value, what is no data, and what is a failure of the observer.

mod command;
mod host;
mod http;
mod log;
#[cfg(feature = "real")]
mod postgres;
mod process;
mod prometheus;
mod scrape;
mod sql;
