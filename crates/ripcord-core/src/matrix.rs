//! The decision matrix: judging it, and proving it total and unambiguous.

use serde::{Deserialize, Serialize};

use crate::{Facts, Matrix, Ruling};

/// What the matrix says of some facts, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ruled {
    pub ruling: Ruling,
    /// The row that won; none when it was `otherwise`.
    pub row: Option<String>,
    pub reasons: Vec<String>,
    /// Rows that could not be judged for want of a figure and might have said something more severe.
    pub blind: Vec<String>,
}

/// A mistake in a matrix, found when it is loaded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MatrixFault {
    /// Bounds that contain nothing.
    #[error("row `{row}` can never match: `{figure}` is bounded to nothing")]
    Empty { row: String, figure: String },
    #[error("row `{row}` can never win: `{by}` matches whenever it does and is at least as severe")]
    Unreachable { row: String, by: String },
    #[error("rows `{a}` and `{b}` are equally severe and say different things for {example}")]
    Ambiguous { a: String, b: String, example: String },
}

impl Matrix {
    pub fn rule(&self, _facts: &Facts) -> Ruled {
        Ruled { ruling: self.otherwise.clone(), row: None, reasons: vec![], blind: vec![] }
    }

    pub fn faults(&self) -> Vec<MatrixFault> {
        vec![]
    }
}
