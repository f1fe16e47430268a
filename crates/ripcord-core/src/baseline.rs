//! What was normal before a release.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A signal's value over the window before a release.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The median of the window's samples: one spike before the release must not excuse one after it.
    pub value: f64,
    pub samples: u32,
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Baseline {
    /// Over samples of a window, oldest first; none where there were fewer than `least`.
    pub fn of(samples: &[(Timestamp, f64)], least: usize) -> Option<Self> {
        let (first, last) = (samples.first()?, samples.last()?);
        if samples.len() < least.max(1) {
            return None;
        }
        let mut values: Vec<f64> = samples.iter().map(|(_, value)| *value).collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let value = match values.len() % 2 {
            1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        };
        Some(Self { value, samples: u32::try_from(samples.len()).unwrap_or(u32::MAX), from: first.0, to: last.0 })
    }
}
