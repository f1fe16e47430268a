//! The way back: what differs, in transactions that count on what was read, until a look shows that nothing does.

use std::collections::BTreeMap;

use ripcord_core::{Before, Cx, Failure, Proof};
use tokio::time::Instant;

use super::EtcdKeys;
use super::content::{self, Content};
use crate::components::files::{Stop, point};
use crate::etcd::wire::Guarded;
use crate::etcd::{Ended, Snapshot};

/// How often what has a lease may come in between before that is said.
const TRIES: u32 = 8;

/// What is to be so afterwards.
pub(super) enum Goal<'a> {
    /// These keys and no others.
    Whole(&'a Content),
    /// These, whatever the others are.
    Single(&'a BTreeMap<Vec<u8>, Option<Vec<u8>>>),
}

impl Goal<'_> {
    fn differences(&self, now: &Snapshot) -> Vec<Guarded> {
        match self {
            Self::Whole(wanted) => content::differences(now, wanted),
            Self::Single(values) => content::settings(now, values),
        }
    }
}

impl EtcdKeys {
    pub(super) async fn restore(
        &self,
        cx: &Cx,
        before: &Before,
        goal: &Goal<'_>,
        deadline: Instant,
    ) -> Result<Proof, Stop> {
        // Where this fails nothing was written, and a look says so.
        let mut now = self.read(deadline).await.map_err(Failure::from)?;
        let changes = goal.differences(&now);
        if changes.is_empty() {
            return Ok(Proof::of(format!("nothing differs, so nothing was written: {}", content::label(&now))));
        }
        let mut set_aside = vec![];
        if self.captures.vault().is_ok() {
            let made = self.store(cx, before, "set aside", &now).await?;
            set_aside.push(format!("the former keys in the vault, content {}", made.content.short()));
        }
        let words = self.words(&changes);
        let mut written = 0;
        for _ in 0..TRIES {
            let changes = goal.differences(&now);
            self.write(&changes, goal, &now, &mut written, deadline).await?;
            let then = self.read(deadline).await.map_err(|trouble| Stop::Unknown(trouble.why()))?;
            if goal.differences(&then).is_empty() {
                let found = format!("{words}; read back: {}", content::label(&then));
                return Ok(Proof { set_aside, ..Proof::of(found) });
            }
            if let Some(key) = content::intruded(&now, &then, &changes, matches!(goal, Goal::Whole(_))) {
                return Err(self.somebody_else(&key, written).into());
            }
            now = then;
        }
        Err(Failure::later("keys of the prefix are changed by others all the time").into())
    }

    /// Sends the transactions one after the other, until a comparison does not hold: what became of it all is for a look to say.
    async fn write(
        &self,
        changes: &[Guarded],
        goal: &Goal<'_>,
        now: &Snapshot,
        written: &mut usize,
        deadline: Instant,
    ) -> Result<(), Stop> {
        let parts = content::transactions(changes, self.most);
        // Alone, it can count on the whole prefix too: a key that somebody adds in this moment is seen before anything is written. Of
        // several that would take reading the prefix for each; what was added is found by the look afterwards.
        let alone = parts.len() == 1 && changes.len() < self.most && matches!(goal, Goal::Whole(_));
        let whole = alone.then_some((self.prefix.as_bytes(), now.revision));
        for part in parts {
            point("transaction");
            let ended = self.etcd.change(part, whole, deadline).await?;
            point("transaction answered");
            match ended {
                Ended::At(_) => *written += part.len(),
                Ended::Overtaken => return Ok(()),
            }
        }
        Ok(())
    }

    fn somebody_else(&self, key: &[u8], written: usize) -> Failure {
        let name = content::name(self.prefix.as_bytes(), key);
        let state = match written {
            0 => "nothing was written".to_owned(),
            1 => "1 key was written before it".to_owned(),
            n => format!("{n} keys were written before it"),
        };
        let what = format!("`{name}` was changed by somebody else meanwhile; {state}");
        Failure::later(self.etcd.redactor().clean(&what))
            .advise("find out who writes to the prefix and why, then retry the step")
    }
}
