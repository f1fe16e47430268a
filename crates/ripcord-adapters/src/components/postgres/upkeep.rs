//! Databases that were kept long enough, and what a killed call left on the server or beside `ripcord.yaml`.
//!
//! `<db>.salvage-<run>/` stays for ever: it holds rows of users that are nowhere else, and only a person can say that they are
//! brought back or not wanted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Cx, Failure, Place};

use super::catalog::Listed;
use super::{Desk, Postgres, catalog, names, side};
use crate::components::files::{Live, blocking, point};
use crate::components::tidy::{Names, Ours, Sweep};
use crate::postgres::{PgError, quoted};

impl Postgres {
    pub(super) async fn sweep(&self, cx: &Cx, place: &Place, before: Timestamp) -> Result<Vec<String>, Failure> {
        let desk = self.desk().await?;
        desk.attend(cx.limit.min(Duration::from_secs(30))).await?;
        let mut removed = self.sweep_files(cx, place, before, &desk).await?;
        removed.extend(self.sweep_servers(before, &desk).await?);
        let all = catalog::listed(&desk.control, desk.database(), names::prefix(desk.database())).await?;
        let mut failed = None;
        for one in all.iter().filter(|one| may_go(desk.database(), one, before)) {
            point("tidy");
            // Without force: one that somebody is looking at stays until they are done.
            match desk
                .control
                .batch_execute(&format!("DROP DATABASE {}", quoted(&one.name)))
                .await
                .map_err(PgError::from)
            {
                Ok(()) => removed.push(format!("database {}", quoted(&one.name))),
                Err(error) => {
                    tracing::warn!(database = one.name, %error, "what was set aside could not be removed");
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            Some(error) if removed.is_empty() => Err(error.into()),
            _ => Ok(removed),
        }
    }

    /// Servers beside that a killed call had made, which may still run where the machine could not tell them to end.
    async fn sweep_servers(&self, before: Timestamp, desk: &Desk) -> Result<Vec<String>, Failure> {
        let Some(archive) = &self.archive else { return Ok(vec![]) };
        let (side, prefix) = (archive.side.clone(), side::prefix(desk));
        let mut removed = vec![];
        for (path, changed) in blocking(move |_| side::left(&side, &prefix)).await?? {
            if Timestamp::new(changed, 0).is_ok_and(|changed| changed < before) {
                side::clear(&path).await?;
                removed.push(path.display().to_string());
            }
        }
        Ok(removed)
    }

    /// Captures that a killed call had unpacked.
    async fn sweep_files(
        &self,
        cx: &Cx,
        place: &Place,
        before: Timestamp,
        desk: &Desk,
    ) -> Result<Vec<String>, Failure> {
        let live = Live::of(&super::beside(&self.directory, desk.database(), ""))?;
        let (cx, place) = (cx.clone(), place.clone());
        let work = move |halt: &crate::components::files::Halt| -> Result<Vec<String>, Failure> {
            let _lock = live.lock(cx.limit, halt)?;
            let (names, mut sweep) = (Names::new(&live, &place), Sweep::new(&live, before)?);
            let old = sweep.old(&live.parent, |name| ours(&names, name))?;
            sweep.remove_all(old, halt);
            sweep.done()
        };
        blocking(work).await?
    }
}

fn ours(names: &Names, name: &OsStr) -> Option<Ours> {
    // What the vault was writing when it was killed has a dot before and its own ending.
    let bytes = name.as_bytes();
    let plain = match bytes.strip_prefix(b".") {
        Some(hidden) => {
            let text = std::str::from_utf8(hidden).ok()?;
            let (plain, numbers) = text.split_once("-tmp-")?;
            let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            numbers.split_once('-').filter(|(process, count)| number(process) && number(count))?;
            OsStr::new(plain)
        }
        None => name,
    };
    let key = names.suffix(plain)?.strip_prefix(".ripcord-")?;
    names.is_key(key.strip_suffix("-proof").unwrap_or(key)).then_some(Ours::FILE)
}

/// Only what bears our name and our mark, and is older.
fn may_go(live: &str, one: &Listed, before: Timestamp) -> bool {
    if names::is_aside(live, &one.name) {
        return one.aside().is_some_and(|aside| aside.of == live && aside.settled && aside.at < before);
    }
    if names::is_scratch(live, &one.name) {
        // Killed between making it and marking it: there is nothing in it, and nobody is at work here but us.
        return one.building().is_none_or(|building| building.at < before);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::components::postgres::catalog::{Aside, Building};

    fn listed(name: &str, marks: &[(&str, String)]) -> Listed {
        let marks = marks.iter().map(|(name, mark)| ((*name).to_owned(), mark.clone())).collect();
        Listed { oid: 1, name: name.to_owned(), allows: true, bytes: 0, marks }
    }

    #[test]
    fn only_what_is_ours_settled_and_old_goes() {
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
        let aside = |of: &str, settled| {
            let mark = Aside { version: 1, of: of.into(), key: "k".into(), at, state: None, settled };
            [(names::ASIDE, serde_json::to_string(&mark).unwrap())]
        };
        let goes = |one: &Listed| may_go("shop", one, later);
        assert!(goes(&listed("shop_before_run_1", &aside("shop", true))));
        assert!(!may_go("shop", &listed("shop_before_run_1", &aside("shop", true)), at), "not old enough");
        assert!(!goes(&listed("shop_before_run_1", &aside("shop", false))), "not looked after yet");
        assert!(!goes(&listed("shop_before_run_1", &aside("other", true))), "another's");
        assert!(!goes(&listed("shop_before_run_1", &[])), "a person's");
        let mark = Building { version: 1, key: "k".into(), at, ready: false };
        let mark = [(names::BUILDING, serde_json::to_string(&mark).unwrap())];
        assert!(goes(&listed("shop_ripcord_0123456789ab", &mark)));
        assert!(goes(&listed("shop_ripcord_0123456789ab", &[])));
        assert!(!goes(&listed("shop_ripcord_notes", &mark)));
        assert!(!goes(&listed("shop", &mark)), "the live one");
    }
}
