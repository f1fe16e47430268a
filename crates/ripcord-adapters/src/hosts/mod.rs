//! Where commands run.

pub mod far; // places on other hosts
mod local; // this machine
mod output; // what is kept of an output
mod ssh; // reaching other hosts

pub use far::{Home, Link, Links, Reached};
pub(crate) use local::{Input, Take};
pub use local::{Local, within};
pub use ssh::{LinkError, Program, Ssh, Transport};

use ripcord_core::HostError;

/// What a command that was ended at its limit, or lost, means to a reader: the error and the last it said.
pub(crate) fn said(error: &HostError) -> String {
    match error {
        HostError::TimedOut { so_far, .. } if !so_far.trim().is_empty() => {
            let last = so_far.trim_end().lines().next_back().unwrap_or_default();
            format!("{error}; the last it said: {last}")
        }
        _ => error.to_string(),
    }
}
