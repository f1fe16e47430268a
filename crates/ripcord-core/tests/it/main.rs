//! What the rules promise, shown on whole stories and by properties.

mod decide;
mod matrix;
mod reference;
mod shop;
mod timeline;
mod triggers;
