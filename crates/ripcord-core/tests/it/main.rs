//! What the rules promise, shown on whole stories and by properties.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod advice;
mod decide;
mod fuzz_corpus;
mod matrix;
mod reference;
mod shop;
mod timeline;
mod triggers;
