//! What counters did within a window, from pages read one after the other.
//!
//! Between two pages a counter grew by the difference; when it is lower than before, or the process began anew, it had started from
//! nothing, so all it shows is growth. A series that was not there before began at nothing too: that a first error is an error
//! must not depend on the error before it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{after, between};

use super::select::Selector;
use super::text::{Labels, Line};

/// One page, as far as it matters.
#[derive(Debug, Clone)]
struct Page {
    at: Timestamp,
    series: BTreeMap<(String, Labels), f64>,
    /// When the process began, where the page says so: a restart may leave every counter higher than before.
    began: Option<f64>,
}

/// The pages of the last window.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Page>);

/// How much every series grew, and over how long.
pub(super) struct Growth {
    pub by: BTreeMap<(String, Labels), f64>,
    pub over: Duration,
}

impl History {
    /// Takes a page in. Of what is older than the window only the page right before it stays: growth is counted from there.
    pub(super) fn push(&mut self, at: Timestamp, lines: Vec<Line>, keep: impl Fn(&Line) -> bool, window: Duration) {
        // A clock set back: what was remembered is of no known age.
        self.0.retain(|page| page.at < at);
        let began = lines.iter().find(|line| line.name == "process_start_time_seconds").map(|line| line.value);
        let kept = lines.into_iter().filter(|line| line.value.is_finite() && keep(line));
        let series = kept.map(|line| ((line.name, line.labels), line.value)).collect();
        self.0.push_back(Page { at, series, began });
        while self.0.get(1).is_some_and(|second| between(second.at, at) >= window) {
            self.0.pop_front();
        }
        // A gap longer than the window: growth over an hour is no answer about the last minute.
        while self.0.len() > 1 && self.0.front().is_some_and(|first| after(first.at, window.saturating_mul(2)) < at) {
            self.0.pop_front();
        }
    }

    /// None until there are two pages to compare.
    pub(super) fn growth(&self) -> Option<Growth> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        if self.0.len() < 2 {
            return None;
        }
        let mut by: BTreeMap<(String, Labels), f64> = last.series.keys().map(|key| (key.clone(), 0.0)).collect();
        for (before, now) in self.0.iter().zip(self.0.iter().skip(1)) {
            let anew = matches!((before.began, now.began), (Some(a), Some(b)) if a != b);
            for (key, value) in &now.series {
                let from = before.series.get(key).copied().filter(|from| !anew && from <= value).unwrap_or(0.0);
                *by.entry(key.clone()).or_default() += value - from;
            }
        }
        Some(Growth { by, over: between(first.at, last.at) })
    }
}

impl Growth {
    /// The growth of all selected series together; none where there is no such series.
    pub(super) fn sum(&self, selector: &Selector) -> Option<f64> {
        let mut selected = self.by.iter().filter(|((name, labels), _)| selector.matches(name, labels)).peekable();
        selected.peek()?;
        Some(selected.map(|(_, growth)| growth).sum())
    }

    /// The value below which a share `q` of what was observed lies, and how many that was; `buckets` selects `..._bucket` series.
    ///
    /// Interpolated within its bucket, as PromQL does. What lies beyond the last bound is known to be more than it: the smallest
    /// such number is returned, so that a threshold equal to the last bound is exceeded.
    pub(super) fn quantile(&self, buckets: &Selector, q: f64) -> Option<(f64, f64)> {
        let mut bounds: Vec<(f64, f64)> = vec![];
        for ((name, labels), growth) in &self.by {
            let Some(bound) = labels.get("le").filter(|_| buckets.matches(name, labels)) else { continue };
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            match bounds.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += growth,
                None => bounds.push((bound, *growth)),
            }
        }
        bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (_, total) = *bounds.last().filter(|(bound, _)| bound.is_infinite())?;
        if total <= 0.0 {
            return Some((0.0, 0.0));
        }
        let rank = q * total;
        let at = bounds.iter().position(|(_, count)| *count >= rank && *count > 0.0)?;
        let (upper, count) = bounds[at];
        let (lower, below) = match at.checked_sub(1) {
            Some(before) => bounds[before],
            None => (if upper > 0.0 { 0.0 } else { upper }, 0.0),
        };
        let value = match upper.is_infinite() {
            true => lower.next_up(),
            false => lower + (upper - lower) * ((rank - below) / (count - below)).clamp(0.0, 1.0),
        };
        Some((value, total))
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::page;
    use super::*;

    /// Pages ten seconds apart, over a window of a minute.
    fn history(pages: &[&str]) -> History {
        let mut history = History::default();
        for (at, text) in (0..).step_by(10).zip(pages) {
            let at = Timestamp::from_second(1_700_000_000 + at).unwrap();
            history.push(at, page(text).unwrap(), |_| true, Duration::from_secs(60));
        }
        history
    }

    fn grown(pages: &[&str]) -> Option<f64> {
        history(pages).growth()?.sum(&Selector::parse("a").unwrap())
    }

    #[test]
    fn growth_is_what_was_added() {
        assert_eq!(grown(&["a 5"]), None, "one page says nothing about growth");
        assert_eq!(grown(&["a 5", "a 5"]), Some(0.0));
        assert_eq!(grown(&["a 5", "a 7", "a 9"]), Some(4.0));
        assert_eq!(grown(&["b 5", "b 7"]), None, "no such series is not nought");
        assert_eq!(grown(&["b 5", "b 7\na{s=\"500\"} 3"]), Some(3.0), "the first error counts");
    }

    #[test]
    fn rf03_a_reset_loses_nothing_after_it() {
        assert_eq!(grown(&["a 100", "a 104", "a 3"]), Some(7.0));
        let began = |t: u32, a: u32| format!("process_start_time_seconds {t}\na {a}");
        let pages = [began(1, 3), began(2, 3), began(2, 8)];
        let pages: Vec<&str> = pages.iter().map(String::as_str).collect();
        assert_eq!(grown(&pages), Some(8.0), "a restart that catches up with the former count is still one");
        assert_eq!(grown(&["a 100", "b 1", "a 3"]), Some(3.0), "gone and back");
    }

    #[test]
    fn only_the_window_counts() {
        let pages: Vec<String> = (0..20).map(|n| format!("a {}", n * n)).collect();
        let history = history(&pages.iter().map(String::as_str).collect::<Vec<_>>());
        let growth = history.growth().unwrap();
        assert_eq!(growth.over, Duration::from_secs(60));
        assert_eq!(growth.sum(&Selector::parse("a").unwrap()), Some(f64::from(19 * 19 - 13 * 13)));
    }

    #[test]
    fn a_gap_or_a_clock_set_back_begins_anew() {
        let mut history = history(&["a 1", "a 2"]);
        let mut push = |second: i64, text: &str| {
            let at = Timestamp::from_second(1_700_000_000 + second).unwrap();
            history.push(at, page(text).unwrap(), |_| true, Duration::from_secs(60));
            history.growth().map(|growth| growth.over)
        };
        assert_eq!(push(3_600, "a 500"), None);
        assert_eq!(push(3_610, "a 501"), Some(Duration::from_secs(10)));
        assert_eq!(push(100, "a 502"), None);
    }

    fn quantile(q: f64, counts: &[(&str, u32)]) -> Option<(f64, f64)> {
        let text: String = counts.iter().map(|(le, n)| format!("h_bucket{{le=\"{le}\"}} {n}\n")).collect();
        let zero: String = counts.iter().map(|(le, _)| format!("h_bucket{{le=\"{le}\"}} 0\n")).collect();
        history(&[&zero, &text]).growth()?.quantile(&Selector::parse("h_bucket").unwrap(), q)
    }

    #[test]
    fn quantiles_interpolate_within_their_bucket() {
        let counts = [("0.1", 50), ("0.5", 90), ("2", 100), ("+Inf", 100)];
        assert_eq!(quantile(0.5, &counts), Some((0.1, 100.0)));
        assert_eq!(quantile(0.95, &counts), Some((1.25, 100.0)));
        assert_eq!(quantile(0.25, &counts), Some((0.05, 100.0)));
        assert_eq!(quantile(1.0, &counts), Some((2.0, 100.0)));
    }

    #[test]
    fn beyond_the_last_bound_is_more_than_the_last_bound() {
        let (value, _) = quantile(0.95, &[("10", 1), ("+Inf", 100)]).unwrap();
        assert!(value > 10.0 && value < 10.001);
    }

    #[test]
    fn nothing_observed_is_no_quantile() {
        assert_eq!(quantile(0.95, &[("1", 0), ("+Inf", 0)]), Some((0.0, 0.0)));
        assert_eq!(quantile(0.95, &[("1", 5)]), None, "no histogram without its last bucket");
        assert_eq!(quantile(0.95, &[]), None);
    }
}
