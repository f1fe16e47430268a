//! The demonstration: a small shop to deploy, break and take back, the load that keeps it busy, and the story told with them.
pub mod demo; // the story, told by running the program itself
pub mod load; // bounded requests against a shop on this machine
pub mod shop; // the application itself: its releases, its server process, its commands
