//! Why: the evidence a verdict was made from, and whether this engine comes to the same.

use jiff::Timestamp;
use ripcord_core::{Decision, ENGINE_VERSION, Evidence, Memory, Reading, TriggerId, human, rederive};
use serde::Serialize;

use crate::screen::{BAD, GOOD, View, paint, strong};
use crate::words;

#[derive(Debug, Serialize)]
pub struct Explained {
    /// What was asked about.
    pub what: String,
    pub verdicts: Vec<VerdictOf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// What there is to say beside them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One verdict of a trigger, with what it was made from.
#[derive(Debug, Serialize)]
pub struct VerdictOf {
    pub event: u64,
    pub at: Timestamp,
    pub trigger: TriggerId,
    /// None where the record has lost it.
    pub evidence: Option<Evidence>,
    pub agrees: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disagreement: Option<String>,
    pub this_engine: &'static str,
}

impl VerdictOf {
    pub fn of(event: u64, at: Timestamp, trigger: TriggerId, evidence: Option<Evidence>) -> Self {
        let disagreement = match &evidence {
            Some(evidence) => rederive(evidence).err().map(|disagrees| disagrees.to_string()),
            None => Some("the evidence is not in the record any more".to_owned()),
        };
        let agrees = disagreement.is_none();
        Self { event, at, trigger, evidence, agrees, disagreement, this_engine: ENGINE_VERSION }
    }

    fn in_lines(&self) -> Vec<String> {
        let head = format!("trigger {} at event {}, {}", self.trigger, self.event, words::when(self.at));
        let mut out = vec![strong(head)];
        if let Some(evidence) = &self.evidence {
            out.extend(said(evidence));
        }
        out.push(match &self.disagreement {
            None => format!("  derived   {} by engine {ENGINE_VERSION}: the same", paint(GOOD, "again")),
            Some(why) => format!("  derived   {}", paint(BAD, why)),
        });
        out
    }
}

fn said(evidence: &Evidence) -> Vec<String> {
    let Evidence { rule, memory_before, memory_after, baseline, at, .. } = evidence;
    let mut out = vec![
        format!("  verdict   {}, was {}", memory(memory_after), words::trigger_state(&memory_before.state, None)),
        format!(
            "  rule      bad is {}, {}; {}",
            words::condition(&rule.condition),
            words::hold(&rule.hold),
            words::follows(rule.follows)
        ),
        format!("  signal    {}, every {}", rule.signal, human(rule.interval)),
        format!("  query     {}", evidence.query.replace('\n', "\n            ")),
        format!("  answer    {}", words::reading(&evidence.reading, None, *at)),
    ];
    if let Reading::Samples(samples) = &evidence.reading {
        let n: Vec<_> = samples.iter().filter_map(|sample| sample.n).map(words::figure).collect();
        let needed =
            rule.at_least.map(|least| format!(", at least {} needed", words::figure(least))).unwrap_or_default();
        if !n.is_empty() || rule.at_least.is_some() {
            out.push(format!(
                "  rests on  {}{needed}",
                if n.is_empty() { "an unknown number".to_owned() } else { n.join("; ") }
            ));
        }
    }
    out.push(match baseline {
        Some(baseline) => format!("  baseline  {}", words::figure(*baseline)),
        None => "  baseline  none was known".to_owned(),
    });
    if let Some(source) = &rule.source {
        out.push(format!("  source    {source}"));
    }
    out.push(format!("  judged    by engine {} at {}", evidence.engine_version, words::when(*at)));
    out
}

/// What a trigger remembers, in a line.
pub fn memory(memory: &Memory) -> String {
    let value = memory.value.map(|value| format!(" at {}", words::figure(value))).unwrap_or_default();
    format!("{}{value}", words::trigger_state(&memory.state, None))
}

impl View for Explained {
    fn text(&self) -> String {
        let mut out = vec![self.what.clone()];
        if let Some(decision) = &self.decision {
            let automatic = if decision.automatic { "without asking" } else { "a person must agree" };
            out.push(String::new());
            out.push(strong(format!("decision: {}, {}; {automatic}", decision.call, decision.severity)));
            out.extend(decision.reasons.iter().map(|reason| format!("  {reason}")));
            for (name, value) in &decision.facts.figures {
                out.push(format!("  {name} was {}", words::figure(*value)));
            }
            if let Some(by) = decision.act_by {
                out.push(format!("  to be acted on by {}", words::when(by)));
            }
        }
        for verdict in &self.verdicts {
            out.push(String::new());
            out.extend(verdict.in_lines());
        }
        if !self.notes.is_empty() {
            out.push(String::new());
            out.extend(self.notes.iter().cloned());
        }
        out.join("\n")
    }
}
