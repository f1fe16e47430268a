//! From breaches to a decision: the matrix, the severity table, blame and the ledger, put together.
//!
//! The matrix proposes a call. Where that is a rollback, each objection below makes it something less; the first that applies
//! names the call, and all of them are said. A call other than rollback stands as the matrix says it, and is never automatic.
//!
//! | objection | call | ladder offered |
//! |---|---|---|
//! | what is breached began before the release, or is nothing the release changed | do not roll back | none |
//! | no release is on record | investigate | toggles only |
//! | no last known good, and the release is the suspect | fix forward | toggles only |
//! | no last known good, and it is not | investigate | toggles only |
//! | the live release is too old to be suspected without a person | evaluate | all |
//! | a row of the matrix that matters, or a breached trigger, is without data | evaluate | all |
//! | an automatic attempt was made already, or the live state came from a rollback | evaluate | all |
//! | no strategy, or one without rungs | evaluate | none |
//! | the matrix or the severity leaves it to people | rollback, when they approve it | all |
//! | none of these | rollback, at once | all |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::{
    Application, Authority, Blame, Call, ComponentId, Decision, Digest, Facts, Incident, Ledger, Means, Memory, Origin,
    Release, Rung, Severity, TriggerId, TriggerState, Within, after, between, human,
};

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
///
/// It is the suspect when it went live no longer ago than the policy says and at least one of the breaches that the matrix's
/// ruling is about accuses it: one that began no earlier than the release, and that points at something the release changed (or at nothing in particular). What is
/// not known, the onset of a person's report or what was changed, speaks neither way.
pub fn blame(known: &Known<'_>, at: Timestamp) -> Blame {
    match suspicion(known, at) {
        Suspicion::Suspect { release, age } => Blame::Suspect {
            release: release.id.clone(),
            version: release.version.clone(),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        },
        Suspicion::NotIt { why } | Suspicion::TooOld { why } => Blame::Unlikely { why },
        Suspicion::NoRelease => Blame::NoRelease,
    }
}

/// What is to be done.
pub fn decide(known: &Known<'_>, at: Timestamp) -> Decision {
    let Known { application, facts, incident, .. } = known;
    let ruled = application.matrix.rule(facts);
    let severity = severest(&ruled.ruling.severity, facts, *incident);
    let mut reasons = ruled.reasons.clone();
    let authority = match application.severities.get(&severity) {
        Some(rule) => rule.authority.clone(),
        None => {
            reasons.push(format!("nobody is named for {severity}, so it escalates at once"));
            NOBODY
        }
    };
    let strategy = match (&ruled.ruling.strategy, ruled.ruling.call) {
        (Some(strategy), _) => Some(strategy.clone()),
        (None, Call::Rollback) => Some(application.default_strategy.clone()),
        (None, _) => None,
    };
    let rungs = strategy.as_ref().and_then(|name| application.strategies.get(name)).cloned().unwrap_or_default();
    let (call, ladder, automatic) = match ruled.ruling.call {
        Call::Rollback => {
            let objections = objections(known, &ruled, &authority, severity, &rungs, at);
            let call = objections.first().map_or(Call::Rollback, |(call, _)| *call);
            let automatic = objections.is_empty();
            reasons.extend(in_favour(known, at));
            reasons.extend(objections.into_iter().map(|(_, why)| why));
            (call, offered(call, rungs), automatic)
        }
        call => (call, rungs, false),
    };
    let act_by = match ruled.ruling.within {
        Within::Immediate => Some(at),
        Within::At { most } => Some(after(at, most)),
        Within::BestEffort => None,
    };
    Decision {
        incident: incident.map(|incident| incident.id.clone()),
        call,
        severity,
        reasons,
        act_by,
        strategy,
        ladder,
        authority,
        automatic,
        facts: (*facts).clone(),
        blame: blame(known, at),
        evidence: known.evidence,
    }
}

/// An answer that cannot come is late at once.
const NOBODY: Authority =
    Authority { automatic: false, roles: BTreeSet::new(), quorum: 1, answer_within: Duration::ZERO };

fn severest(ruled: &Severity, facts: &Facts, incident: Option<&Incident>) -> Severity {
    let others = facts.severity.into_iter().chain(incident.map(|incident| incident.severity));
    others.fold(*ruled, Severity::min)
}

enum Suspicion<'a> {
    Suspect {
        release: &'a Release,
        age: Duration,
    },
    /// The evidence speaks against it.
    NotIt {
        why: String,
    },
    /// Nothing speaks against it but its age.
    TooOld {
        why: String,
    },
    NoRelease,
}

fn suspicion<'a>(known: &Known<'a>, at: Timestamp) -> Suspicion<'a> {
    let Some(release) = known.ledger.live() else { return Suspicion::NoRelease };
    let acquittals: Vec<Option<String>> =
        decisive(known).into_iter().map(|breach| acquits(known, release, breach)).collect();
    // One breach that accuses it is enough: others may have been there before.
    if !acquittals.is_empty() && acquittals.iter().all(Option::is_some) {
        let why: Vec<String> = acquittals.into_iter().flatten().collect();
        return Suspicion::NotIt { why: why.join("; ") };
    }
    let age = between(release.at, at);
    let suspect_for = known.application.policy.suspect_for;
    if age > suspect_for {
        let (version, age, most) = (&release.version, human(age), human(suspect_for));
        return Suspicion::TooOld {
            why: format!("{version} has been live for {age}, and a release is suspected for {most} only"),
        };
    }
    Suspicion::Suspect { release, age }
}

/// The breaches that the ruling is about: a lost database makes errors everywhere, and that the release changed where they show
/// does not make it the cause of the loss.
fn decisive<'a>(known: &Known<'a>) -> Vec<&'a TriggerId> {
    let (application, facts) = (known.application, known.facts);
    let winners = application.matrix.winners(facts);
    let any_issue = winners.iter().any(|row| row.issues.is_empty());
    let about = |breach: &&TriggerId| {
        let issue = application.triggers.get(*breach).map(|rule| &rule.issue);
        any_issue || issue.is_some_and(|issue| winners.iter().any(|row| row.issues.contains(issue)))
    };
    let about: Vec<&TriggerId> = facts.breaches.iter().filter(about).collect();
    match about.is_empty() {
        true => facts.breaches.iter().collect(),
        false => about,
    }
}

/// Why a breach cannot be this release's doing, where something shows that.
fn acquits(known: &Known<'_>, release: &Release, breach: &TriggerId) -> Option<String> {
    let version = &release.version;
    let onset = known.memories.get(breach).and_then(Memory::breached_since);
    if let Some(onset) = onset.filter(|onset| *onset < release.at) {
        let earlier = human(between(onset, release.at));
        return Some(format!("`{breach}` was bad {earlier} before {version} went live"));
    }
    let touched = known.touched?;
    if touched.is_empty() {
        return Some(format!("{version} changed nothing"));
    }
    let points_at = &known.application.triggers.get(breach)?.points_at;
    if points_at.is_empty() || !points_at.is_disjoint(touched) {
        return None;
    }
    Some(format!("`{breach}` points at {}, and {version} changed only {}", names(points_at), names(touched)))
}

fn names(components: &BTreeSet<ComponentId>) -> String {
    components.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
}

/// What speaks for going back.
fn in_favour(known: &Known<'_>, at: Timestamp) -> Vec<String> {
    let mut reasons = vec![];
    if let Suspicion::Suspect { release, age } = suspicion(known, at) {
        reasons.push(format!("{} is the suspect: it went live {} ago", release.version, human(age)));
    }
    if let Ok(target) = known.ledger.last_known_good(at) {
        reasons.push(format!("{} is the last known good", target.version));
    }
    reasons
}

/// What speaks against going back at once, gravest first, each with the call it leaves.
fn objections(
    known: &Known<'_>,
    ruled: &crate::Ruled,
    authority: &Authority,
    severity: Severity,
    rungs: &[Rung],
    at: Timestamp,
) -> Vec<(Call, String)> {
    let mut found = vec![];
    let suspicion = suspicion(known, at);
    match &suspicion {
        Suspicion::NotIt { why } => found.push((Call::DoNotRollBack, format!("it is not the release: {why}"))),
        Suspicion::NoRelease => {
            found.push((Call::Investigate, "no release is on record that could be the cause".to_owned()));
        }
        Suspicion::Suspect { .. } | Suspicion::TooOld { .. } => {}
    }
    if let Err(none) = known.ledger.last_known_good(at) {
        let call = match suspicion {
            Suspicion::Suspect { .. } => Call::FixForward,
            _ => Call::Investigate,
        };
        found.push((call, format!("there is nothing to go back to: {none}")));
    }
    if let Suspicion::TooOld { why } = &suspicion {
        found.push((Call::Evaluate, why.clone()));
    }
    if !ruled.blind.is_empty() {
        found.push((Call::Evaluate, "nothing is begun while part of the matrix is blind".to_owned()));
    }
    found.extend(dark(known).into_iter().map(|why| (Call::Evaluate, why)));
    if known.attempted {
        let why = "an automatic attempt was made for this release or incident, and there is one only".to_owned();
        found.push((Call::Evaluate, why));
    }
    if let Some(Origin::Restored { run }) = known.ledger.live().map(|live| &live.origin) {
        found.push((Call::Evaluate, format!("what is live was put there by {run}: no going back and forth")));
    }
    if rungs.is_empty() {
        found.push((Call::Evaluate, "the strategy has no rung to climb".to_owned()));
    }
    if !ruled.ruling.automatic {
        found.push((Call::Rollback, "the matrix leaves this case to people".to_owned()));
    }
    if !authority.automatic {
        found.push((Call::Rollback, format!("{severity} asks for {}", approval(authority))));
    }
    found
}

/// The breached triggers of which nothing is known now.
fn dark(known: &Known<'_>) -> Vec<String> {
    let joined = known.incident.into_iter().flat_map(|incident| &incident.triggers);
    let still_open = |id: &&TriggerId| known.memories.get(*id).is_some_and(|m| m.breached_since().is_some());
    let involved: BTreeSet<&TriggerId> = known.facts.breaches.iter().chain(joined.filter(still_open)).collect();
    let dark = |id: &TriggerId| match known.memories.get(id).map(|memory| &memory.state) {
        None => Some(format!("nothing is remembered of `{id}`")),
        Some(TriggerState::NoData { since }) => Some(format!("`{id}` has had no data since {since}")),
        Some(TriggerState::Error { since, why }) => Some(format!("`{id}` cannot be judged since {since}: {why}")),
        Some(_) => None,
    };
    involved.into_iter().filter_map(dark).collect()
}

fn approval(authority: &Authority) -> String {
    let roles: Vec<String> = authority.roles.iter().map(ToString::to_string).collect();
    let of = match roles.is_empty() {
        true => "a person".to_owned(),
        false => roles.join(" or "),
    };
    match authority.quorum {
        0 | 1 => format!("the approval of {of}"),
        n => format!("{n} approvals of {of}"),
    }
}

fn offered(call: Call, rungs: Vec<Rung>) -> Vec<Rung> {
    match call {
        Call::DoNotRollBack => vec![],
        // A toggle stays within the live release: it needs nothing to go back to.
        Call::Investigate | Call::FixForward => {
            rungs.into_iter().filter(|rung| matches!(rung.means, Means::Set { .. })).collect()
        }
        Call::Rollback | Call::Evaluate | Call::Monitor => rungs,
    }
}
