//! Clearing: keys found and unlinked batch by batch, so that everybody else is served in between; or databases flushed.

use std::time::Duration;

use ripcord_core::{Action, Before, Cx, Failure, Proof, Revision, Step, Wanted};
use ripcord_vault::Source;
use serde_json::json;
use tokio::time::Instant;

use super::look::DONE;
use super::{Back, Cache, What};
use crate::components::files::captures;
use crate::components::files::{Stop, blocking, point};
use crate::redis::keys::{self, Walk};
use crate::redis::{About, Session, Trouble};

/// What was there, as it is written into a capture of what is only cleared.
const INVENTORY: &str = "inventory.json";

impl Cache {
    pub(super) async fn act(&self, cx: &Cx, step: &Step, before: &Before) -> Result<Proof, Stop> {
        let deadline = Instant::now() + cx.limit - cx.limit / 8;
        match &step.action {
            Action::Prove { revision, capture } => {
                let wanted = Wanted { revision: revision.clone(), capture: capture.clone() };
                Ok(self.prove(cx, &wanted).await?)
            }
            Action::Capture { .. } => match self.back {
                Back::Clear => Ok(self.inventory(cx, before, deadline).await?),
                Back::Restore => Ok(self.capture(cx, before).await?),
            },
            Action::Restore { to: Revision::Absent, .. } => {
                self.clear(cx, step, before, &self.patterns, self.what, deadline).await
            }
            Action::Restore { to, from } => self.restore(cx, before, to, from.as_ref(), deadline).await,
            Action::Set { values } => {
                let patterns: Vec<String> = values.keys().cloned().collect();
                self.clear(cx, step, before, &patterns, What::Unlink, deadline).await
            }
            other => Err(Failure::never(format!("a cache cannot do {other:?}")).into()),
        }
    }

    async fn prove(&self, cx: &Cx, wanted: &Wanted) -> Result<Proof, Failure> {
        let (mut session, about) = self.fit(cx).await?;
        let mut commands: Vec<redis::Cmd> = vec![redis::cmd("SET"), redis::cmd("SCAN")];
        commands[0].arg([keys::OURS, b"proof"].concat()).arg("").arg("EX").arg(1);
        commands[1].arg(0);
        for pattern in &self.patterns {
            let mut unlink = redis::cmd("UNLINK");
            unlink.arg(example(pattern));
            commands.push(unlink);
        }
        let mut found = "the server answers and would take the commands".to_owned();
        match (&wanted.revision, self.what) {
            (Revision::Exact(_), _) => {
                let held = self.read_back(self.recorded(wanted)?, &about).await?;
                let mut restore = redis::cmd("RESTORE");
                restore.arg(example(&self.patterns[0])).arg(0).arg("").arg("REPLACE").arg("ABSTTL");
                commands.push(restore);
                found = format!("the capture was read back, {} keys; {found}", held.len());
            }
            (Revision::Absent, What::Unlink) => {}
            (Revision::Absent, What::Flushdb) => commands.push(redis::cmd("FLUSHDB")),
            (Revision::Absent, What::Flushall) => commands.push(redis::cmd("FLUSHALL")),
        }
        would_take(&mut session, &commands).await?;
        Ok(Proof::of(found))
    }

    /// The record of what a rollback would clear: counts. What is cached is not kept.
    async fn inventory(&self, cx: &Cx, before: &Before, deadline: Instant) -> Result<Proof, Failure> {
        let (mut session, _) = self.fit(cx).await?;
        let counted = keys::count(&mut session, &self.patterns, deadline).await?;
        let about = json!({ "rollback": "clear", "keys": counted.json(), "counted to the end": counted.whole });
        let bytes = serde_json::to_vec_pretty(&about).map_err(|error| Failure::never(error.to_string()))?;
        let source = Source::Bytes { path: INVENTORY.to_owned(), bytes, mode: 0o600 };
        let (captures, cx, key) = (self.captures.clone(), cx.clone(), before.key.clone());
        let stored = blocking(move |_| captures.store(&cx, &key, "what a rollback clears", vec![source]));
        let manifest = stored.await??;
        let label = format!("{}, cleared on a rollback", counted.label());
        let made = captures::made(Revision::Absent, Some(label.clone()), &manifest)?;
        Ok(Proof { capture: Some(made), ..Proof::of(label) })
    }

    async fn clear(
        &self,
        cx: &Cx,
        step: &Step,
        before: &Before,
        patterns: &[String],
        what: What,
        deadline: Instant,
    ) -> Result<Proof, Stop> {
        // Until something is sent that changes something, nothing was done.
        let looked = async {
            let (mut session, about) = self.fit(cx).await?;
            let marked = self.marked(&mut session, before).await?;
            let counted = keys::count(&mut session, patterns, Instant::now() + cx.limit / 4).await?;
            Ok::<_, Trouble>((session, about, marked, counted))
        };
        let (mut session, about, marked, counted) = looked.await.map_err(Failure::from)?;
        if marked.as_deref() == Some(DONE) {
            return Ok(Proof::of("was cleared already by this step"));
        }
        let found = match what {
            What::Unlink => {
                let unlinked = self.unlink(&mut session, patterns, deadline).await?;
                point("mark");
                self.mark_done(&mut session, before, deadline).await?;
                let again = keys::count(&mut session, patterns, Instant::now() + cx.limit / 8).await?;
                let there = match again.total() {
                    0 => "none is left".to_owned(),
                    n => format!("{n} were written anew since"),
                };
                format!("unlinked {unlinked} keys: {}; {}; {there}", counted.patterns(), counted.types())
            }
            What::Flushdb | What::Flushall => {
                self.flush(&mut session, before, what, deadline).await?;
                format!("{}; flushed", everything_was(&about, what, session.database))
            }
        };
        // Told also where it is none: a step that does not tell is taken for one that was not counted.
        let lost = step.place.as_ref().map(|place| self.loss(place, &counted, &about, session.database));
        Ok(Proof { lost, ..Proof::of(self.server.redactor().clean(&found)) })
    }

    /// Unlinks what the patterns match; returns how many keys that were.
    async fn unlink(&self, session: &mut Session, patterns: &[String], deadline: Instant) -> Result<u64, Stop> {
        let mut unlinked: u64 = 0;
        for pattern in patterns {
            let mut walk = Walk::new(pattern);
            while let Some(keys) = walk.next(session).await? {
                if !keys.is_empty() {
                    point("unlink");
                    unlinked += session.ask::<u64>(redis::cmd("UNLINK").arg(keys)).await?;
                    point("unlinked");
                }
                if Instant::now() >= deadline {
                    let what = format!("{unlinked} keys were unlinked in the time there was, and others are left");
                    return Err(Failure::later(what).into());
                }
            }
        }
        Ok(unlinked)
    }

    /// One transaction with the marker: whether it was done is never in doubt.
    async fn flush(&self, session: &mut Session, before: &Before, what: What, deadline: Instant) -> Result<(), Stop> {
        let mut flush = redis::cmd(if what == What::Flushall { "FLUSHALL" } else { "FLUSHDB" });
        flush.arg("ASYNC");
        let mut both = redis::pipe();
        both.atomic();
        both.add_command(flush.clone());
        both.add_command(self.mark(before, DONE));
        point("flush");
        match session.ask_all::<()>(&both).await {
            // No room for the marker, so the server took neither: the room has to be made first.
            Err(trouble) if trouble.is_full() => {
                session.ask::<()>(&flush).await?;
                self.mark_done(session, before, deadline).await?;
            }
            flushed => flushed?,
        }
        point("flushed");
        Ok(())
    }

    /// Memory is given back in the background, so there may be no room for the marker at once.
    async fn mark_done(&self, session: &mut Session, before: &Before, deadline: Instant) -> Result<(), Stop> {
        let mark = self.mark(before, DONE);
        let mut pause = Duration::from_millis(5);
        loop {
            match session.ask::<()>(&mark).await {
                Err(trouble) if trouble.is_full() && Instant::now() + pause < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(500));
                }
                marked => return Ok(marked?),
            }
        }
    }
}

fn everything_was(about: &About, what: What, database: i64) -> String {
    let databases = about.databases();
    let of = databases.iter().filter(|(number, _)| what == What::Flushall || **number == database);
    let words: Vec<_> = of.map(|(number, keys)| format!("database {number} had {keys} keys")).collect();
    if words.is_empty() { "there was nothing".to_owned() } else { words.join(", ") }
}

/// Whether the server would take these commands from us: it judges rights and its own state when a command is queued, and what is queued
/// is then thrown away.
async fn would_take(session: &mut Session, commands: &[redis::Cmd]) -> Result<(), Trouble> {
    session.ask::<()>(&redis::cmd("MULTI")).await?;
    let mut refused = Ok(());
    for command in commands {
        match session.ask::<redis::Value>(command).await {
            Ok(_) => {}
            // A cache that is full is what clearing makes room in.
            Err(trouble) if trouble.is_full() => {}
            Err(trouble) => {
                refused = Err(trouble);
                break;
            }
        }
    }
    session.ask::<()>(&redis::cmd("DISCARD")).await?;
    refused
}

/// A name that the pattern matches.
fn example(pattern: &str) -> String {
    let mut name = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' => name.push('x'),
            '\\' => name.extend(chars.next()),
            '[' => {
                let class: Vec<char> = chars.by_ref().take_while(|c| *c != ']').collect();
                name.push(*class.iter().find(|c| **c != '^').unwrap_or(&'x'));
            }
            c => name.push(c),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_what_the_pattern_matches() {
        let check = |pattern: &str, name: &str| assert_eq!(example(pattern), name);
        check("shop:cache:*", "shop:cache:x");
        check("a?c[xy]z", "axcxz");
        check("literal\\*star", "literal*star");
    }
}
