//! How a trigger goes from one state to the next: a pure state machine; memory, reading and time in, memory out.
//!
//! What counts as a sample. One reading makes at most one verdict, at the time of its newest sample; where it has several
//! (series, providers) the worst decides. No part in the verdict have samples that are stale (older than two intervals), late
//! (older than the last one judged) or thin ([`Rule::at_least`]). Without any left, nothing is known for now, and after two
//! intervals the state is no data. A value that is no number, a sample from the future and a baseline that cannot be compared
//! with are errors, at once.
//!
//! Time is taken from the samples. A step of the clock backwards by less than an interval is time standing still; a longer one
//! starts every count anew and ends no breach. A step forwards is a gap.

use std::mem;
use std::time::Duration;

use jiff::Timestamp;

use crate::{Clear, Condition, Hold, Memory, Missing, Reading, Rule, Sample, TriggerState, between, human};

/// Moments are kept to the millisecond, so that five readings 200 ms apart may seem 999 ms apart: not a reason to wait for a sixth.
const RESOLUTION: Duration = Duration::from_millis(1);

/// Takes a reading in at `at`. Returns what to remember, and the new state where it changed.
pub fn advance(
    rule: &Rule,
    memory: &Memory,
    reading: &Reading,
    baseline: Option<f64>,
    at: Timestamp,
) -> (Memory, Option<TriggerState>) {
    let mut memory = memory.clone();
    let changed = advance_in_place(rule, &mut memory, reading, baseline, at);
    (memory, changed)
}

/// The same without copying the memory, for whoever has many triggers.
///
/// [`Rule::when`] is not judged here: it may need figures of other signals, which only the caller has.
pub fn advance_in_place(
    rule: &Rule,
    memory: &mut Memory,
    reading: &Reading,
    baseline: Option<f64>,
    at: Timestamp,
) -> Option<TriggerState> {
    let before = (mem::discriminant(&memory.state), memory.state.since());
    let at = memory.tell_time(rule, at);
    let baseline = baseline.filter(|baseline| baseline.is_finite());
    let unwatched = memory.last.is_some_and(|last| between(last, at) > rule.patience());
    memory.last = Some(at);
    match judge(rule, memory.last_sample, reading, baseline, at) {
        Judged::Verdict(verdict) => memory.sampled(rule, verdict, baseline, unwatched),
        Judged::Nothing => memory.found_nothing(rule, at),
        Judged::NoVerdict => memory.found_no_verdict(rule, at),
        Judged::Error(why) => memory.failed(rule, at, why),
    }
    (before != (mem::discriminant(&memory.state), memory.state.since())).then(|| memory.state.clone())
}

/// What people are to be told where the rule says that a blind monitor pages; none while it sees, or has been blind for no longer
/// than two intervals.
pub fn blind(rule: &Rule, memory: &Memory, at: Timestamp) -> Option<String> {
    let (policy, since, why) = match &memory.state {
        TriggerState::NoData { since } => (rule.missing, *since, None),
        TriggerState::Error { since, why } => (rule.errors, *since, Some(why)),
        _ => return None,
    };
    let dark = between(since, at);
    if policy != Missing::Page || dark <= rule.patience() {
        return None;
    }
    let (id, signal, dark) = (&rule.id, &rule.signal, human(dark));
    let breached = match memory.breached_since() {
        Some(onset) => format!("; it was breached when that began, since {onset}"),
        None => String::new(),
    };
    Some(match why {
        None => format!("`{id}` is blind: `{signal}` has given nothing to judge for {dark}{breached}"),
        Some(why) => format!("`{id}` is blind: `{signal}` cannot be judged for {dark}: {why}{breached}"),
    })
}

impl Rule {
    /// How long there may be no sample before that is no data.
    fn patience(&self) -> Duration {
        self.interval.saturating_mul(2)
    }

    /// How far back the hold looks.
    fn hold_length(&self) -> Duration {
        match self.hold {
            Hold::For { at_least } => at_least,
            Hold::Times { within, .. } => within,
            Hold::Of { n, .. } => self.interval.saturating_mul(n),
        }
    }
}

enum Judged {
    Verdict(Verdict),
    /// The observer is healthy, and there is nothing, or nothing newer than two intervals.
    Nothing,
    /// There is something, but nothing new or nothing to go by.
    NoVerdict,
    Error(String),
}

struct Verdict {
    at: Timestamp,
    bad: bool,
    /// Whether it counts towards the end of a breach.
    clear: bool,
    value: f64,
    n: Option<f64>,
}

fn judge(
    rule: &Rule,
    last_sample: Option<Timestamp>,
    reading: &Reading,
    baseline: Option<f64>,
    at: Timestamp,
) -> Judged {
    let samples = match reading {
        Reading::Failed { why } => return Judged::Error(why.chars().take(LONGEST_WHY).collect()),
        Reading::Empty => return Judged::Nothing,
        Reading::Samples(samples) => samples,
    };
    if let Some(why) = no_measurement(samples) {
        return Judged::Error(why);
    }
    let mut worst: Option<&Sample> = None;
    let mut newest: Option<Timestamp> = None;
    let mut something = false;
    for sample in samples {
        if sample.at > at && between(at, sample.at) > rule.interval {
            let ahead = human(between(at, sample.at));
            return Judged::Error(format!("a sample is {ahead} ahead of our clock, so its age cannot be told"));
        }
        let taken = sample.at.min(at);
        if between(taken, at) > rule.patience() {
            continue;
        }
        something = true;
        if last_sample.is_some_and(|last| taken < last) {
            continue;
        }
        match (rule.at_least, sample.n) {
            (None, _) => {}
            (Some(least), Some(n)) if n >= least => {}
            (Some(_), Some(_)) => continue,
            (Some(least), None) => {
                return Judged::Error(format!(
                    "the sample does not say how many events it rests on, of which {least} are asked for"
                ));
            }
        }
        newest = newest.max(Some(taken));
        if worst.is_none_or(|worst| rule.condition.worse(sample.value, worst.value)) {
            worst = Some(sample);
        }
    }
    let (Some(sample), Some(newest)) = (worst, newest) else {
        return if something { Judged::NoVerdict } else { Judged::Nothing };
    };
    if last_sample.is_some_and(|last| newest <= last) {
        return Judged::NoVerdict;
    }
    match rule.condition.holds(sample.value, rule.clear, baseline) {
        Ok((bad, clear)) => Judged::Verdict(Verdict { at: newest, bad, clear, value: sample.value, n: sample.n }),
        Err(why) => Judged::Error(why),
    }
}

/// Why samples with a figure that is no number are a failure of the observer, whatever the others say.
pub(crate) fn no_measurement(samples: &[Sample]) -> Option<String> {
    let figures = samples.iter().flat_map(|sample| std::iter::once(sample.value).chain(sample.n));
    let odd = figures.into_iter().find(|figure| !figure.is_finite())?;
    Some(format!("the value is {odd}, which is no measurement"))
}

/// The longest reason kept in a memory; the whole of it is in the evidence.
const LONGEST_WHY: usize = 300;

impl Condition {
    fn worse(&self, value: f64, than: f64) -> bool {
        match self {
            Self::Above(_) | Self::AboveBaseline { .. } => value > than,
            Self::Below(_) | Self::BelowBaseline { .. } => value < than,
            Self::Absent => false,
        }
    }

    /// Whether `value` is bad, and whether it is good enough to end a breach; or why there is no telling.
    fn holds(&self, value: f64, clear: Option<Clear>, baseline: Option<f64>) -> Result<(bool, bool), String> {
        let above = |bad: f64, clear: f64| Ok((value > bad, value <= clear.min(bad)));
        let below = |bad: f64, clear: f64| Ok((value < bad, value >= clear.max(bad)));
        let clear = clear.map(|clear| clear.at);
        match *self {
            Self::Above(bad) => above(bad, clear.unwrap_or(bad)),
            Self::Below(bad) => below(bad, clear.unwrap_or(bad)),
            Self::AboveBaseline { times, floor } => match baseline.filter(|b| *b > 0.0) {
                Some(normal) => {
                    let bad = (times * normal).max(floor);
                    above(bad, clear.map_or(bad, |clear| (clear * normal).max(floor)))
                }
                // Not above the floor is not bad, whatever the baseline would have been.
                None if value <= floor => Ok((false, true)),
                None => Err(no_baseline(baseline)),
            },
            Self::BelowBaseline { times, floor } => match baseline.filter(|b| *b > floor.max(0.0)) {
                Some(normal) => below(times * normal, clear.unwrap_or(times) * normal),
                None => Err(no_baseline(baseline)),
            },
            Self::Absent => Ok((false, true)),
        }
    }
}

fn no_baseline(baseline: Option<f64>) -> String {
    match baseline {
        None => "there is no baseline to compare with".to_owned(),
        Some(baseline) => format!("the baseline is {baseline}, too little to compare with"),
    }
}

impl Memory {
    /// The onset of the breach that is open, also while it recovers or nothing is known.
    pub fn breached_since(&self) -> Option<Timestamp> {
        let live = if self.state.is_gap() { self.before_gap.as_deref()? } else { &self.state };
        match live {
            TriggerState::Breached { since } => Some(self.onset.unwrap_or(*since)),
            TriggerState::Recovering { since } => Some(self.onset.unwrap_or(*since)),
            _ => None,
        }
    }

    /// Time as it counts here: it never runs backwards, and what was counted by a clock since set back is counted anew.
    fn tell_time(&mut self, rule: &Rule, at: Timestamp) -> Timestamp {
        let Some(last) = self.last.filter(|last| at < *last) else { return at };
        if between(at, last) <= rule.interval {
            return last;
        }
        self.last = None;
        self.last_sample = None;
        self.absent = None;
        self.recent.clear();
        let onset = self.onset;
        let anew = |state: TriggerState| match state {
            TriggerState::Pending { .. } => TriggerState::Ok,
            TriggerState::Recovering { since } => TriggerState::Breached { since: onset.unwrap_or(since) },
            TriggerState::NoData { .. } => TriggerState::NoData { since: at },
            TriggerState::Error { why, .. } => TriggerState::Error { since: at, why },
            state @ (TriggerState::Ok | TriggerState::Breached { .. }) => state,
        };
        self.state = anew(mem::replace(&mut self.state, TriggerState::Ok));
        self.before_gap = self.before_gap.take().map(|state| Box::new(anew(*state)));
        if self.breached_since().is_none() {
            self.onset = None;
        }
        at
    }

    fn sampled(&mut self, rule: &Rule, verdict: Verdict, baseline: Option<f64>, unwatched: bool) {
        let base = self.resume(rule, verdict.at, unwatched);
        self.absent = None;
        self.last_sample = Some(verdict.at);
        (self.value, self.n, self.baseline) = (Some(verdict.value), verdict.n, baseline);
        self.note(rule, &verdict);
        self.state = match base {
            TriggerState::Breached { .. } | TriggerState::Recovering { .. } if !verdict.clear => {
                self.breached(verdict.at)
            }
            TriggerState::Breached { .. } => self.recovering(rule, verdict.at, verdict.at),
            TriggerState::Recovering { since } => self.recovering(rule, since, verdict.at),
            TriggerState::Pending { since } => self.holding(rule, &verdict, Some(since)),
            TriggerState::Ok | TriggerState::NoData { .. } | TriggerState::Error { .. } => {
                self.holding(rule, &verdict, None)
            }
        };
    }

    /// The state to go on from when a sample comes at `at`, after whatever gap there was.
    fn resume(&mut self, rule: &Rule, at: Timestamp, unwatched: bool) -> TriggerState {
        let state = mem::replace(&mut self.state, TriggerState::Ok);
        let was_gap = state.is_gap();
        let state = match (was_gap, self.before_gap.take()) {
            (false, _) => state,
            (true, before) => before.map_or(TriggerState::Ok, |before| *before),
        };
        let Some(pause) = self.last_sample.map(|last| between(last, at)).filter(|pause| *pause > rule.patience())
        else {
            return self.by_value(state);
        };
        // Bad samples within a window are facts whatever came between; "without one good sample" and "of the last" are not
        // known of a time without samples.
        if matches!(rule.hold, Hold::Times { .. }) {
            return match self.by_value(state) {
                TriggerState::Recovering { .. } => self.breached(at),
                state => state,
            };
        }
        match self.by_value(state) {
            TriggerState::Pending { since }
                if !was_gap && pause <= rule.hold_length() && (!unwatched || rule.missing == Missing::Hold) =>
            {
                TriggerState::Pending { since }
            }
            TriggerState::Breached { .. } | TriggerState::Recovering { .. } => {
                self.recent.clear();
                self.breached(at)
            }
            _ => {
                self.recent.clear();
                self.onset = None;
                TriggerState::Ok
            }
        }
    }

    /// Pending for absence alone ends with the first sample, whatever that says.
    fn by_value(&self, state: TriggerState) -> TriggerState {
        match state {
            TriggerState::Pending { .. } if self.onset.is_none() => TriggerState::Ok,
            state => state,
        }
    }

    fn breached(&self, at: Timestamp) -> TriggerState {
        TriggerState::Breached { since: self.onset.unwrap_or(at) }
    }

    /// Keeps of the verdict what the hold looks back at, and no more.
    fn note(&mut self, rule: &Rule, verdict: &Verdict) {
        let most = match rule.hold {
            Hold::For { .. } => return,
            Hold::Times { count, within } => {
                while self.recent.front().is_some_and(|(first, _)| between(*first, verdict.at) > within) {
                    self.recent.pop_front();
                }
                if !verdict.bad {
                    return;
                }
                count
            }
            Hold::Of { n, .. } => n,
        };
        self.recent.push_back((verdict.at, verdict.bad));
        while self.recent.len() > most.max(1) as usize {
            self.recent.pop_front();
        }
    }

    /// Ok, pending or breached, by what the hold has seen up to this verdict.
    fn holding(&mut self, rule: &Rule, verdict: &Verdict, pending: Option<Timestamp>) -> TriggerState {
        let first_bad = || self.recent.iter().find(|(_, bad)| *bad).map(|(at, _)| *at);
        let (onset, full) = match rule.hold {
            Hold::For { at_least } => {
                let onset = verdict.bad.then(|| self.onset.unwrap_or(verdict.at));
                (onset, onset.is_some_and(|onset| between(onset, verdict.at) + RESOLUTION >= at_least))
            }
            Hold::Times { count, .. } => (first_bad(), self.recent.len() >= count.max(1) as usize),
            Hold::Of { k, .. } => {
                (first_bad(), self.recent.iter().filter(|(_, bad)| *bad).count() >= k.max(1) as usize)
            }
        };
        self.onset = onset;
        match onset {
            None => TriggerState::Ok,
            Some(since) if full => TriggerState::Breached { since },
            Some(onset) => TriggerState::Pending { since: pending.unwrap_or(onset) },
        }
    }

    fn recovering(&mut self, rule: &Rule, since: Timestamp, at: Timestamp) -> TriggerState {
        let good_for = between(since, at);
        let over = match (rule.clear, rule.hold) {
            (Some(clear), _) => good_for >= clear.at_least,
            (None, Hold::For { at_least }) => good_for >= at_least,
            (None, Hold::Times { within, .. }) => good_for >= within,
            (None, Hold::Of { n, .. }) => {
                self.recent.len() >= n.max(1) as usize && self.recent.iter().all(|(_, bad)| !bad)
            }
        };
        if !over {
            return TriggerState::Recovering { since };
        }
        self.recent.clear();
        self.onset = None;
        TriggerState::Ok
    }

    fn found_nothing(&mut self, rule: &Rule, at: Timestamp) {
        let (first, _) = *self.absent.insert(match self.absent {
            Some((first, last)) if between(last, at) <= rule.patience() => (first, at),
            _ => (at, at),
        });
        let Some(limit) = rule.absent_for else { return self.no_sample(rule, at) };
        if between(first, at) >= limit {
            if self.breached_since().is_none() {
                self.onset = Some(first);
                (self.value, self.n) = (None, None);
                self.recent.clear();
            }
            self.before_gap = None;
            self.state = self.breached(first);
            return;
        }
        let live = if self.state.is_gap() { self.before_gap.as_deref() } else { Some(&self.state) };
        match live {
            None | Some(TriggerState::Ok) => self.absence_pending(first),
            Some(TriggerState::Pending { .. }) if self.onset.is_none() => self.absence_pending(first),
            Some(_) => self.no_sample(rule, at),
        }
    }

    fn absence_pending(&mut self, since: Timestamp) {
        self.before_gap = None;
        self.state = TriggerState::Pending { since };
    }

    /// Something is there, so nothing is absent; it only says nothing yet.
    fn found_no_verdict(&mut self, rule: &Rule, at: Timestamp) {
        self.absent = None;
        let state = mem::replace(&mut self.state, TriggerState::Ok);
        self.state = self.by_value(state);
        self.no_sample(rule, at);
    }

    fn no_sample(&mut self, rule: &Rule, at: Timestamp) {
        let since = match self.last_sample {
            Some(last) if between(last, at) <= rule.patience() => return,
            Some(last) => last,
            None => at,
        };
        match &self.state {
            TriggerState::NoData { .. } => {}
            TriggerState::Pending { .. }
                if rule.missing == Missing::Hold && between(since, at) <= rule.hold_length() => {}
            TriggerState::Error { .. } => self.state = TriggerState::NoData { since },
            _ => self.go_dark(TriggerState::NoData { since }),
        }
    }

    fn failed(&mut self, rule: &Rule, at: Timestamp, why: String) {
        let silent_for = self.last_sample.map_or(Duration::ZERO, |last| between(last, at));
        match &mut self.state {
            TriggerState::Error { why: known, .. } => *known = why,
            TriggerState::NoData { .. } => self.state = TriggerState::Error { since: at, why },
            TriggerState::Pending { .. } if rule.errors == Missing::Hold && silent_for <= rule.hold_length() => {}
            _ => self.go_dark(TriggerState::Error { since: at, why }),
        }
    }

    fn go_dark(&mut self, into: TriggerState) {
        let before = mem::replace(&mut self.state, into);
        self.before_gap = Some(Box::new(before));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Follows, Severity};

    const INTERVAL: i64 = 10;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn rule(condition: Condition, hold: Hold) -> Rule {
        Rule {
            id: "bad".parse().unwrap(),
            signal: "errors".parse().unwrap(),
            condition,
            hold,
            clear: None,
            at_least: None,
            missing: Missing::Ignore,
            errors: Missing::Ignore,
            absent_for: None,
            interval: secs(INTERVAL as u64),
            when: None,
            severity: Severity(1),
            issue: "errors".parse().unwrap(),
            follows: Follows::Decide,
            points_at: BTreeSet::new(),
            source: None,
        }
    }

    fn above(hold: u64) -> Rule {
        rule(Condition::Above(5.0), Hold::For { at_least: secs(hold) })
    }

    fn say(state: &TriggerState) -> String {
        let since = state.since().map(|since| since.as_second() - at(0).as_second());
        match (state, since) {
            (TriggerState::Ok, _) => "ok".to_owned(),
            (TriggerState::Pending { .. }, Some(since)) => format!("pending {since}"),
            (TriggerState::Breached { .. }, Some(since)) => format!("breached {since}"),
            (TriggerState::Recovering { .. }, Some(since)) => format!("recovering {since}"),
            (TriggerState::NoData { .. }, Some(since)) => format!("no data {since}"),
            (TriggerState::Error { why, .. }, Some(since)) => format!("error {since} ({why})"),
            _ => unreachable!(),
        }
    }

    /// Readings every ten seconds, one a word: a number is a value (`9/3` rests on three events, `9@5` was taken at second 5,
    /// `9,1` are two samples), `-` is empty, `!` a failure, `~` no reading at all, `*3` three times the word before it.
    fn run_from(rule: &Rule, memory: &mut Memory, start: i64, baseline: Option<f64>, script: &str) -> String {
        let mut words: Vec<&str> = vec![];
        for word in script.split_whitespace() {
            match word.strip_prefix('*').map(|times| times.parse::<usize>().unwrap()) {
                Some(times) => words.extend(vec![*words.last().unwrap(); times - 1]),
                None => words.push(word),
            }
        }
        let mut said = vec![];
        for (i, word) in words.iter().enumerate() {
            let now = start + i as i64 * INTERVAL;
            let sample = |text: &str| {
                let (text, taken) = text.split_once('@').map_or((text, now), |(t, s)| (t, s.parse().unwrap()));
                let (value, n) = text.split_once('/').map_or((text, None), |(v, n)| (v, Some(n.parse().unwrap())));
                Sample { n, ..Sample::new(at(taken), value.parse().unwrap()) }
            };
            let reading = match *word {
                "~" => continue,
                "-" => Reading::Empty,
                "!" => Reading::Failed { why: "refused".to_owned() },
                samples => Reading::Samples(samples.split(',').map(sample).collect()),
            };
            if let Some(state) = advance_in_place(rule, memory, &reading, baseline, at(now)) {
                said.push(format!("{now}: {}", say(&state)));
            }
        }
        said.join("; ")
    }

    fn run(rule: &Rule, script: &str) -> String {
        run_from(rule, &mut Memory::default(), 0, None, script)
    }

    #[test]
    fn sustained_means_without_one_good_sample() {
        let rule = above(30);
        insta::assert_snapshot!(run(&rule, "1 9 9 9 9 9"), @"10: pending 10; 40: breached 10");
        insta::assert_snapshot!(run(&rule, "9 9 9 1 9 9 9 1 9"), @"0: pending 0; 30: ok; 40: pending 40; 70: ok; 80: pending 80");
        insta::assert_snapshot!(run(&rule, "5 5 5 5 5"), @"");
        insta::assert_snapshot!(run(&above(0), "1 9 1"), @"10: breached 10; 20: ok");
    }

    #[test]
    fn a_breach_ends_as_it_began_and_a_relapse_is_the_same_breach() {
        insta::assert_snapshot!(run(&above(20), "9 *3 1 1 9 1 *3"), @"0: pending 0; 20: breached 0; 30: recovering 30; 50: breached 0; 60: recovering 60; 80: ok");
    }

    #[test]
    fn hysteresis_asks_for_more_than_not_bad() {
        let rule = Rule { clear: Some(Clear { at: 2.0, at_least: secs(20) }), ..above(0) };
        insta::assert_snapshot!(run(&rule, "9 4 4 2 4 2 2 2"), @"0: breached 0; 30: recovering 30; 40: breached 0; 50: recovering 50; 70: ok");
        let below = Rule { clear: Some(Clear { at: 8.0, at_least: secs(0) }), ..rule.clone() };
        let below = Rule { condition: Condition::Below(5.0), ..below };
        insta::assert_snapshot!(run(&below, "9 5 4 7 8"), @"20: breached 20; 40: ok");
    }

    #[test]
    fn occurrences_are_counted_within_the_window_whatever_comes_between() {
        let rule = rule(Condition::Above(0.0), Hold::Times { count: 2, within: secs(60) });
        insta::assert_snapshot!(run(&rule, "1 0 0 0 0 0 1"), @"0: pending 0; 60: breached 0");
        insta::assert_snapshot!(run(&rule, "1 0 0 0 0 0 0 1 0"), @"0: pending 0");
        insta::assert_snapshot!(run(&rule, "1 ~ ~ ~ 1 0 *8"), @"0: pending 0; 40: breached 0; 50: recovering 50; 110: ok");
    }

    #[test]
    fn k_of_n_looks_at_the_last_n() {
        let rule = rule(Condition::Above(5.0), Hold::Of { k: 3, n: 5 });
        insta::assert_snapshot!(run(&rule, "9 1 9 1 1 9 9 1 *5"), @"0: pending 0; 60: breached 20; 70: recovering 70; 110: ok");
        insta::assert_snapshot!(run(&rule, "9 9 ~ ~ 9 9 9"), @"0: pending 0; 40: pending 40; 60: breached 40");
    }

    #[test]
    fn no_data_neither_fires_nor_clears() {
        let rule = above(30);
        insta::assert_snapshot!(run(&rule, "9 9 - - - - - 9 9 9 9"), @"0: pending 0; 40: no data 10; 70: pending 70; 100: breached 70");
        insta::assert_snapshot!(run(&rule, "9 *4 - *4 1 1 - *4 1 *4"), @"0: pending 0; 30: breached 0; 60: no data 30; 80: recovering 80; 120: no data 90; 140: recovering 140; 170: ok");
        insta::assert_snapshot!(run(&rule, "- - 1"), @"0: no data 0; 20: ok");
        insta::assert_snapshot!(run(&rule, "9 9 - 9 9"), @"0: pending 0; 30: breached 0");
    }

    #[test]
    fn an_error_says_why_at_once_and_counts_for_nothing() {
        let rule = above(30);
        insta::assert_snapshot!(run(&rule, "9 9 ! 9 9"), @"0: pending 0; 20: error 20 (refused); 30: breached 0");
        insta::assert_snapshot!(run(&rule, "9 ! ! ! 9 9 9 9"), @"0: pending 0; 10: error 10 (refused); 40: pending 40; 70: breached 40");
        insta::assert_snapshot!(run(&rule, "9 *4 ! ! ! ! 1 *4"), @"0: pending 0; 30: breached 0; 40: error 40 (refused); 80: recovering 80; 110: ok");
        insta::assert_snapshot!(run(&rule, "1 ! - - - 1"), @"10: error 10 (refused); 30: no data 0; 50: ok");
        insta::assert_snapshot!(run(&rule, "9,NaN"), @"0: error 0 (the value is NaN, which is no measurement)");
    }

    #[test]
    fn held_through_a_gap_as_long_as_the_hold_and_no_longer() {
        let hold = Rule { missing: Missing::Hold, errors: Missing::Hold, ..above(60) };
        insta::assert_snapshot!(run(&hold, "9 9 - ! - - 9"), @"0: pending 0; 60: breached 0");
        insta::assert_snapshot!(run(&hold, "9 9 - *7 9 9"), @"0: pending 0; 80: no data 10; 90: pending 90");
        insta::assert_snapshot!(run(&hold, "9 9 ~ ~ ~ ~ 9"), @"0: pending 0; 60: breached 0");
        insta::assert_snapshot!(run(&above(60), "9 9 ~ ~ ~ ~ 9"), @"0: pending 0; 60: pending 60");
    }

    #[test]
    fn few_events_are_no_verdict_and_not_a_pass() {
        let rule = Rule { at_least: Some(50.0), ..above(20) };
        insta::assert_snapshot!(run(&rule, "9/50 9/49 9/50 9/3 9/50"), @"0: pending 0; 20: breached 0");
        insta::assert_snapshot!(run(&rule, "9/50 1/49 1/49 1/49 1/49"), @"0: pending 0; 30: no data 0");
        insta::assert_snapshot!(run(&rule, "9"), @"0: error 0 (the sample does not say how many events it rests on, of which 50 are asked for)");
        insta::assert_snapshot!(run(&rule, "1/90,9/4 1/90,9/60"), @"10: pending 10");
    }

    #[test]
    fn the_worst_of_several_samples_decides() {
        let mut memory = Memory::default();
        insta::assert_snapshot!(run_from(&above(0), &mut memory, 0, None, "1,9,7"), @"0: breached 0");
        assert_eq!(memory.value, Some(9.0));
    }

    #[test]
    fn evidence_has_an_age() {
        let rule = above(0);
        insta::assert_snapshot!(run(&rule, "1 1 1 1 1@40 1@40 1@40 1@40"), @"70: no data 40");
        insta::assert_snapshot!(run(&rule, "1@-60"), @"0: no data 0");
        insta::assert_snapshot!(run(&rule, "1 1 1@20 9@5 1"), @"");
        insta::assert_snapshot!(run(&rule, "1 9@300 1"), @"10: error 10 (a sample is 4 min 50 s ahead of our clock, so its age cannot be told); 20: ok");
        insta::assert_snapshot!(run(&rule, "1 1@15 1@25"), @"");
    }

    #[test]
    fn absence_is_judged_only_where_it_is_asked_for_and_the_observer_is_healthy() {
        let silent = Rule { absent_for: Some(secs(40)), ..rule(Condition::Absent, Hold::For { at_least: secs(0) }) };
        insta::assert_snapshot!(run(&silent, "1 - - 1 - *8 1"), @"10: pending 10; 30: ok; 40: pending 40; 80: breached 40; 120: ok");
        insta::assert_snapshot!(run(&silent, "1 ! *9"), @"10: error 10 (refused)");
        insta::assert_snapshot!(run(&silent, "1 - - ! - - - "), @"10: pending 10; 30: error 30 (refused); 40: pending 10; 50: breached 10");
        insta::assert_snapshot!(run(&silent, "1 - - ! ! ! ! - - - - -"), @"10: pending 10; 30: error 30 (refused); 70: pending 70; 110: breached 70");
        insta::assert_snapshot!(run(&silent, "1 - ~ ~ ~ ~ ~ -"), @"10: pending 10; 70: pending 70");
        insta::assert_snapshot!(run(&Rule { absent_for: None, ..silent }, "1 - *9"), @"30: no data 0");
        let both = Rule { absent_for: Some(secs(60)), ..above(30) };
        insta::assert_snapshot!(run(&both, "9 9 - *9"), @"0: pending 0; 40: no data 10; 80: breached 20");
        insta::assert_snapshot!(run(&both, "9 *4 - *9"), @"0: pending 0; 30: breached 0; 60: no data 30; 100: breached 0");
    }

    #[test]
    fn a_ratio_has_a_baseline_and_a_floor() {
        let rule = rule(Condition::AboveBaseline { times: 3.0, floor: 0.01 }, Hold::For { at_least: secs(0) });
        let with = |baseline, script: &str| run_from(&rule, &mut Memory::default(), 0, baseline, script);
        insta::assert_snapshot!(with(Some(0.01), "0.03 0.031"), @"10: breached 10");
        insta::assert_snapshot!(with(Some(0.001), "0.009 0.011"), @"10: breached 10");
        insta::assert_snapshot!(with(None, "0.009 0.5"), @"10: error 10 (there is no baseline to compare with)");
        insta::assert_snapshot!(with(Some(0.0), "0.009 0.5"), @"10: error 10 (the baseline is 0, too little to compare with)");
        let below = Rule { condition: Condition::BelowBaseline { times: 0.5, floor: 10.0 }, ..rule.clone() };
        let with = |baseline, script: &str| run_from(&below, &mut Memory::default(), 0, baseline, script);
        insta::assert_snapshot!(with(Some(20.0), "10 9"), @"10: breached 10");
        insta::assert_snapshot!(with(Some(10.0), "9"), @"0: error 0 (the baseline is 10, too little to compare with)");
    }

    #[test]
    fn a_clock_set_back_starts_every_count_anew_and_ends_no_breach() {
        let rule = above(30);
        let back = |first: &str, start: i64, then: &str| {
            let mut memory = Memory::default();
            let before = run_from(&rule, &mut memory, 0, None, first);
            format!("{before} | {}", run_from(&rule, &mut memory, start, None, then))
        };
        insta::assert_snapshot!(back("9 9 9", -600, "9 9 9 9"), @"0: pending 0 | -600: pending -600; -570: breached -600");
        insta::assert_snapshot!(back("9 9 9 9", -600, "9 1 1 1 1"), @"0: pending 0; 30: breached 0 | -590: recovering -590; -560: ok");
        insta::assert_snapshot!(back("9 9 9", 15, "9 9 9"), @"0: pending 0 | 35: breached 0");
        insta::assert_snapshot!(back("9 9 9", 4_000, "9 9 9 9"), @"0: pending 0 | 4000: pending 4000; 4030: breached 4000");
    }

    #[test]
    fn blind_is_said_only_where_the_rule_pages_and_not_for_a_hiccup() {
        let page = Rule { missing: Missing::Page, errors: Missing::Page, ..above(30) };
        let told = |rule: &Rule, script: &str, now: i64| {
            let mut memory = Memory::default();
            run_from(rule, &mut memory, 0, None, script);
            blind(rule, &memory, at(now)).unwrap_or_else(|| "nothing".to_owned())
        };
        insta::assert_snapshot!(told(&page, "1 -", 10), @"nothing");
        insta::assert_snapshot!(told(&page, "1 - - - -", 40), @"`bad` is blind: `errors` has given nothing to judge for 40 s");
        insta::assert_snapshot!(told(&page, "1 !", 10), @"nothing");
        insta::assert_snapshot!(told(&page, "9 *4 ! *7", 100), @"`bad` is blind: `errors` cannot be judged for 1 min: refused; it was breached when that began, since 2027-01-15T08:00:00Z");
        insta::assert_snapshot!(told(&above(30), "1 - - - -", 40), @"nothing");
        insta::assert_snapshot!(told(&page, "- -", 10), @"nothing");
    }
}
