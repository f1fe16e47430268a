//! The engine against fakes that tell the truth about what was done to them.

mod run;
mod sim;
mod universe;
