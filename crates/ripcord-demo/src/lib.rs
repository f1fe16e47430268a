//! The demonstration: a small shop to deploy, break and take back, and the load that keeps it busy.
pub mod load; // bounded requests against a shop on this machine
pub mod shop; // the application itself: its releases, its server process, its commands
