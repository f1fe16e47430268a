//! From the record to documents: Markdown that a person finishes by hand. Pure: what is not on the record is `unknown`.

mod data_loss; // what was given up, and what a person must do about it
mod figures; // evidence, decision and comparison, as the report shows them
mod log_entry; // one row of the rollback log
mod markdown; // text that cannot break out of its place
mod moments; // one line for each event
mod record; // what a document is written from, and how it is found there
mod run_report; // the whole story of a run
mod steps; // what was done, step by step
mod words; // states and lengths as a person says them

pub use data_loss::data_loss_report;
pub use log_entry::rollback_log_entry;
pub use record::Record;
pub use run_report::run_report;
