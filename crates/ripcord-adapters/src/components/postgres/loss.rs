//! What going back would lose, found fast whatever the size: by the counters of the server's statistics.
//!
//! They count changes, not rows: a row changed three times counts three times, and what was rolled back counts too. So they are a
//! ceiling of what was written, short by at most what sessions have not reported yet. The rows themselves are compared when
//! nobody writes any longer, as part of the restore.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ripcord_core::{CaptureId, Loss, RowLoss};

use super::catalog::{State, Tables};
use super::facts::About;
use super::{Found, Postgres};
use crate::components::files::captures;

/// What the counters are compared with.
struct Baseline {
    tables: Tables,
    /// Of the tables' files, where each table's own is not known.
    files: Option<ripcord_core::Digest>,
    reset: String,
}

/// A loss whose size nobody knows; that is never taken for none.
pub(super) fn uncounted(since: Option<Timestamp>, why: &str) -> Loss {
    let other = vec![format!("rows written since the capture, which cannot be counted: {why}")];
    Loss { since, other, how: Some("not comparable".to_owned()), ..Loss::none() }
}

impl Postgres {
    pub(super) fn loss(&self, place: &str, found: Option<&Found>, about: &About, id: &CaptureId) -> Loss {
        let since =
            self.captures.record(id).and_then(|made| captures::manifest(&made).ok()).map(|manifest| manifest.at);
        let Some(found) = found else {
            return Loss { how: Some("there is no database to lose".to_owned()), ..Loss::none() };
        };
        if found.revision() == Some(&about.revision) {
            return Loss { how: Some("nothing was written since".to_owned()), ..Loss::none() };
        }
        let state = match &found.state {
            Ok((state, _)) => state,
            Err(why) => return uncounted(since, why),
        };
        let restored = found.listed.restored().filter(|restored| restored.revision == about.revision);
        let (baseline, from) = match restored {
            Some(restored) if !restored.zeroed => {
                return uncounted(since, "it was restored by a role that may not set the counters to zero");
            }
            Some(restored) => {
                let baseline = Baseline { tables: Tables::new(), files: Some(restored.files), reset: restored.reset };
                (baseline, Some(restored.at))
            }
            None if about.state.oid == state.oid => {
                (Baseline { tables: about.state.tables.clone(), files: None, reset: about.state.reset.clone() }, since)
            }
            None => return uncounted(since, "another restore came in between"),
        };
        match counted(place, &baseline, state) {
            Ok(loss) => {
                let from = from.map_or("the capture".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
                let since = since.filter(|_| !loss.rows.is_empty() || !loss.other.is_empty());
                Loss { since, how: Some(format!("from the server's statistics since {from}")), ..loss }
            }
            Err(why) => uncounted(since, why),
        }
    }
}

fn counted(place: &str, baseline: &Baseline, state: &State) -> Result<Loss, &'static str> {
    if baseline.reset != state.reset {
        return Err("the server's statistics were reset since");
    }
    let (mut rows, mut other) = (BTreeMap::new(), vec![]);
    for (name, now) in &state.tables {
        let known = baseline.tables.get(name);
        let then = known.copied().unwrap_or_default();
        let grown =
            |now: i64, then: i64| u64::try_from(now - then).map_err(|_| "the server's statistics went backwards");
        let loss = RowLoss {
            inserted: grown(now.inserted, then.inserted)?,
            updated: grown(now.updated, then.updated)?,
            deleted: grown(now.deleted, then.deleted)?,
        };
        if known.is_some_and(|then| then.file != now.file) {
            other.push(format!("{place}.{name} was emptied or rewritten, which is not counted in rows"));
        }
        if loss.total() > 0 {
            rows.insert(format!("{place}.{name}"), loss);
        }
    }
    if baseline.files.is_some_and(|files| files != state.files()) {
        other.push("tables were made, emptied or rewritten, which is not counted in rows".to_owned());
    }
    Ok(Loss { rows, other, ..Loss::none() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::components::postgres::catalog::Counters;
    use ripcord_core::Digest;

    fn tables(of: &[(&str, i64, u32)]) -> Tables {
        of.iter()
            .map(|(name, inserted, file)| {
                ((*name).to_owned(), Counters { inserted: *inserted, file: *file, ..Counters::default() })
            })
            .collect()
    }

    fn state(of: &[(&str, i64, u32)]) -> State {
        let none = Digest::of(b"");
        State { oid: 1, reset: "r".into(), tables: tables(of), definitions: none, sequences: none, unsettled: None }
    }

    fn baseline(of: &[(&str, i64, u32)]) -> Baseline {
        Baseline { tables: tables(of), files: None, reset: "r".into() }
    }

    #[test]
    fn what_was_written_since_is_the_growth_of_the_counters() {
        let loss =
            counted("data", &baseline(&[("public.a", 5, 1)]), &state(&[("public.a", 8, 1), ("public.new", 2, 9)]))
                .unwrap();
        assert_eq!(loss.rows["data.public.a"].inserted, 3);
        assert_eq!(loss.rows["data.public.new"].inserted, 2, "a table the capture does not have is lost whole");
        assert!(loss.other.is_empty());
    }

    #[test]
    fn a_table_that_was_emptied_is_named() {
        let loss = counted("data", &baseline(&[("public.a", 5, 1)]), &state(&[("public.a", 5, 2)])).unwrap();
        assert_eq!(loss.other, ["data.public.a was emptied or rewritten, which is not counted in rows"]);
        let of_restored =
            Baseline { tables: Tables::new(), files: Some(state(&[("public.a", 0, 1)]).files()), reset: "r".into() };
        assert!(!counted("data", &of_restored, &state(&[("public.a", 0, 2)])).unwrap().is_none());
        assert!(counted("data", &of_restored, &state(&[("public.a", 0, 1)])).unwrap().is_none());
    }

    #[test]
    fn counters_that_were_set_back_count_nothing() {
        let of = [("public.a", 5, 1)];
        assert!(counted("data", &Baseline { reset: "other".into(), ..baseline(&of) }, &state(&of)).is_err());
        assert!(counted("data", &baseline(&of), &state(&[("public.a", 4, 1)])).is_err());
        let unknown = uncounted(None, "why");
        assert!(!unknown.is_none(), "what cannot be counted is not none");
    }
}
