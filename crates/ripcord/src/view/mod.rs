//! What commands show: values that are text for people and JSON for programs, from the same fields.

pub mod captures; // what revisions can be restored from
pub mod check; // the configuration, and what can be seen of it
pub mod deployed; // how a deployment ended
pub mod explain; // verdicts derived again
pub mod incidents; // breaches and reports
pub mod log; // the journal
pub mod plan; // what would be done, at what price
pub mod releases; // the ledger
pub mod run; // how a run stands
pub mod said; // an answer in words
pub mod status; // everything at a glance
pub mod table; // columns
