//! What is there, what going back would take along, and whether a step was done.

use std::collections::BTreeMap;

use ripcord_core::{
    Action, Available, Before, Cx, Failure, Holds, Loss, Made, Observation, Place, Revision, RowLoss, Seen, Step,
    Survey, TargetId, Wanted,
};
use tokio::time::Instant;

use super::{Back, Cache, What};
use crate::components::files::blocking;
use crate::redis::keys::{self, Counted};
use crate::redis::{About, Session, Trouble};

/// Facts of a survey, from which a plan's words are made.
pub(super) const QUEUES: &str = "may be queues";
pub(super) const EMPTY: &str = "nothing to clear";
pub(super) const COUNTED: &str = "by pattern and type";
pub(super) const EVERYTHING: &str = "everything";

/// What a marker says.
pub(super) const BEGUN: &str = "begun";
pub(super) const DONE: &str = "done";

impl Cache {
    pub(super) async fn survey(&self, cx: &Cx, place: &Place, wanted: &[Wanted]) -> Survey {
        let mut survey = match self.looked(cx, place, wanted).await {
            Ok(survey) => survey,
            Err(trouble) => {
                let target = TargetId(format!("redis:{}", self.server.shown()));
                Survey::new(place.clone(), Seen::Unreachable { why: trouble.why() }, target)
            }
        };
        for wanted in wanted {
            survey.available.push((wanted.clone(), self.available(wanted).await));
        }
        survey
    }

    async fn available(&self, wanted: &Wanted) -> Available {
        if wanted.revision == Revision::Absent {
            return Available::Here { how: "the keys are unlinked, and made again by who misses them".to_owned() };
        }
        let (captures, asked) = (self.captures.clone(), wanted.clone());
        let looked = blocking(move |_| captures.available(&asked)).await;
        looked.unwrap_or_else(|failure: Failure| Available::Missing { why: failure.what })
    }

    async fn looked(&self, cx: &Cx, place: &Place, wanted: &[Wanted]) -> Result<Survey, Trouble> {
        let deadline = Instant::now() + cx.limit / 3;
        let (mut session, about) = self.fit(cx).await?;
        let counted = keys::count(&mut session, &self.patterns, deadline).await?;
        let seen = match (counted.total(), counted.whole) {
            (0, true) => Revision::Absent,
            (total, _) => Revision::exact(format!("keys:{total}")),
        };
        let target = match self.what {
            What::Flushall => format!("redis:{}", session.address),
            What::Unlink | What::Flushdb => format!("redis:{}", session.name()),
        };
        let mut survey = Survey::new(place.clone(), Seen::At(seen), TargetId(target));
        survey.label = Some(counted.label());
        let clean = |words: String| self.server.redactor().clean(&words);
        let detail = format!("{}; {}", counted.patterns(), counted.types());
        survey.facts.insert(COUNTED.to_owned(), clean(detail));
        survey.facts.extend(counted.standing_out().map(|words| (QUEUES.to_owned(), clean(words))));
        if self.what != What::Unlink {
            survey.facts.insert(EVERYTHING.to_owned(), everything(&about, self.what, session.database));
        }
        if self.empty(&mut session, &about).await? {
            survey.facts.insert(EMPTY.to_owned(), "no key is there".to_owned());
        }
        let mut now = None;
        for one in wanted {
            let Some(id) = &one.capture else { continue };
            let loss = match &one.revision {
                Revision::Absent => self.loss(place, &counted, &about, session.database),
                Revision::Exact(_) => {
                    let deadline = deadline + cx.limit / 3;
                    self.loss_by_comparison(&mut session, &about, &mut now, (place, one), deadline).await
                }
            };
            survey.losses.push((id.clone(), loss));
        }
        // Measured: about 100,000 keys a second are found and unlinked.
        survey.reckoned = Some(std::time::Duration::from_millis(100 + counted.total() / 100));
        Ok(survey)
    }

    /// A session with a server that can be worked on, and what it says of itself.
    pub(super) async fn fit(&self, cx: &Cx) -> Result<(Session, About), Trouble> {
        let mut session = self.server.connect(cx.limit / 2).await?;
        let about = session.about().await?;
        match about.unfit() {
            Some(trouble) => Err(trouble),
            None => Ok((session, about)),
        }
    }

    /// Whether nothing is there that clearing would take away.
    async fn empty(&self, session: &mut Session, about: &About) -> Result<bool, Trouble> {
        let all = ["*".to_owned()];
        let others = about.databases().keys().any(|database| *database != session.database);
        Ok(match self.what {
            What::Unlink => !keys::any(session, &self.patterns).await?,
            What::Flushdb => !keys::any(session, &all).await?,
            What::Flushall => !others && !keys::any(session, &all).await?,
        })
    }

    /// What clearing takes away that is no cache: keys of unexpected types, and everybody else's.
    pub(super) fn loss(&self, place: &Place, counted: &Counted, about: &About, database: i64) -> Loss {
        let gone = |count: u64| RowLoss { inserted: count, ..RowLoss::default() };
        let mut loss = Loss::none();
        let derived = |kind: &String| self.back == Back::Clear && self.types.contains(kind);
        for (kind, count) in counted.by_type.iter().filter(|(kind, _)| !derived(kind)) {
            loss.rows.insert(format!("{place}: keys of type {kind}"), gone(*count));
        }
        let databases = about.databases();
        let here = databases.get(&database).copied().unwrap_or(0).saturating_sub(counted.total());
        if self.what != What::Unlink && here > 0 {
            loss.rows.insert(format!("{place}: other keys of database {database}"), gone(here));
        }
        if self.what == What::Flushall {
            for (other, count) in databases.iter().filter(|(other, _)| **other != database) {
                loss.rows.insert(format!("{place}: all keys of database {other}"), gone(*count));
            }
        }
        if !counted.whole {
            loss.other.push(format!("keys of `{place}` that there was no time to look at"));
        }
        if !loss.is_none() {
            loss.how = Some("counted by walking through the keys".to_owned());
        }
        loss
    }

    /// The key of ours that says how far this very step has come.
    pub(super) fn marker(&self, before: &Before) -> Vec<u8> {
        [keys::OURS, format!("{}:{}", self.id, before.key.file_name()).as_bytes()].concat()
    }

    pub(super) async fn marked(&self, session: &mut Session, before: &Before) -> Result<Option<String>, Trouble> {
        session.ask(redis::cmd("GET").arg(self.marker(before))).await
    }

    /// The command that writes a marker; the server forgets it when what is set aside is forgotten.
    pub(super) fn mark(&self, before: &Before, what: &str) -> redis::Cmd {
        let mut command = redis::cmd("SET");
        command.arg(self.marker(before)).arg(what).arg("EX").arg(self.keep.as_secs().max(3600));
        command
    }

    pub(super) async fn observe(&self, cx: &Cx, step: &Step, before: Option<&Before>) -> Result<Observation, Trouble> {
        let (mut session, about) = self.fit(cx).await?;
        if let Some(before) = before {
            match self.marked(&mut session, before).await?.as_deref() {
                // Written to since, perhaps: that is what a cache is for.
                Some(DONE) => return Ok(Holds::Target.into()),
                Some(_) => return Ok(Holds::Neither { found: "it was begun and not finished".to_owned() }.into()),
                None => {}
            }
        }
        let reached = match &step.action {
            Action::Restore { to: Revision::Absent, .. } => self.empty(&mut session, &about).await?,
            Action::Restore { to, .. } => self.is_at(&mut session, to).await?,
            Action::Set { values } => {
                let patterns: Vec<String> = values.keys().cloned().collect();
                !keys::any(&mut session, &patterns).await?
            }
            _ => false,
        };
        Ok(if reached { Holds::Target } else { Holds::Origin }.into())
    }

    /// The capture that `wanted` names, on the record.
    pub(super) fn recorded(&self, wanted: &Wanted) -> Result<Made, Failure> {
        self.captures.wanted(wanted).unwrap_or_else(|| Err(Failure::never("no capture of it was ever made")))
    }
}

/// What flushing takes along, in words.
fn everything(about: &About, what: What, database: i64) -> String {
    let databases: BTreeMap<i64, u64> = about.databases();
    let named = databases.iter().filter(|(number, _)| what == What::Flushall || **number == database);
    let words: Vec<_> = named.map(|(number, keys)| format!("{keys} keys in database {number}")).collect();
    if words.is_empty() { "no keys".to_owned() } else { words.join(", ") }
}
