//! From breaches to a decision: the matrix, the severity table, blame and the ledger, put together.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{Application, Blame, ComponentId, Decision, Digest, Facts, Incident, Ledger, Memory, TriggerId};

/// Everything a decision is made from.
pub struct Known<'a> {
    pub application: &'a Application,
    pub ledger: &'a Ledger,
    pub incident: Option<&'a Incident>,
    pub memories: &'a BTreeMap<TriggerId, Memory>,
    pub facts: &'a Facts,
    /// The digest of the stored evidence the facts were read from.
    pub evidence: Digest,
    /// The components whose revision the live release changed; none when that is not known.
    pub touched: Option<&'a BTreeSet<ComponentId>>,
    /// Whether an automatic attempt was already made for this release or this incident.
    pub attempted: bool,
}

/// Whether the live release can be the cause of what is breached.
pub fn blame(_known: &Known<'_>, _at: Timestamp) -> Blame {
    Blame::NoRelease
}

/// What is to be done.
pub fn decide(known: &Known<'_>, at: Timestamp) -> Decision {
    let ruled = known.application.matrix.rule(known.facts);
    let severity = ruled.ruling.severity;
    Decision {
        incident: known.incident.map(|incident| incident.id.clone()),
        call: ruled.ruling.call,
        severity,
        reasons: ruled.reasons,
        act_by: None,
        strategy: ruled.ruling.strategy,
        ladder: vec![],
        authority: crate::Authority {
            automatic: false,
            roles: BTreeSet::new(),
            quorum: 1,
            answer_within: Default::default(),
        },
        automatic: false,
        facts: known.facts.clone(),
        blame: blame(known, at),
        evidence: known.evidence,
    }
}
