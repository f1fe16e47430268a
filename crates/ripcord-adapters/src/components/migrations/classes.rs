//! What each migration is to a rollback, with the evidence: read from its bodies, never taken from their presence.

use serde::{Deserialize, Serialize};

use super::sql::{Does, Effect};

/// One direction of a migration, as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Body {
    /// There is none.
    #[default]
    Missing,
    /// It is there and does nothing: `pass`, comments, no operations.
    Empty,
    /// It refuses to be run.
    Refuses(String),
    /// It says that it can be undone and undoes nothing (`RunPython.noop`).
    Noop(String),
    Does(Vec<Effect>),
}

impl Body {
    pub(super) fn of(effects: Vec<Effect>) -> Self {
        if effects.is_empty() { Self::Empty } else { Self::Does(effects) }
    }

    fn effects(&self) -> &[Effect] {
        match self {
            Self::Does(effects) => effects,
            _ => &[],
        }
    }

    fn nothing(&self) -> bool {
        matches!(self, Self::Empty) || matches!(self, Self::Does(effects) if effects.is_empty())
    }
}

/// The way back over one migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Back {
    /// Its way down was rehearsed on a copy.
    DownTested,
    /// Its way down was read and does something.
    Reversible,
    /// It changes rows only, and its way down changes them back.
    RowUndo,
    /// The schema can go back, what it took away cannot.
    PointInTimeOnly,
    OneWay,
}

impl Back {
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::DownTested | Self::Reversible | Self::RowUndo)
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::DownTested => "down-tested",
            Self::Reversible => "reversible",
            Self::RowUndo => "row undo",
            Self::PointInTimeOnly => "point in time only",
            Self::OneWay => "one way",
        }
    }
}

/// What was found of one migration, with the reasons in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Judged {
    /// Whether code written for the schema before it runs on the schema after it.
    pub(super) compatible: bool,
    pub(super) because: String,
    pub(super) way: Back,
    pub(super) evidence: String,
}

impl Judged {
    /// The class, and why, for a person.
    pub(super) fn words(&self) -> String {
        match self.compatible {
            true => format!("compatible ({}); back: {}, {}", self.because, self.way.words(), self.evidence),
            false => format!("{} ({}); {}", self.way.words(), self.evidence, self.because),
        }
    }

    pub(super) fn rehearsed(&mut self, outcome: Result<String, String>) {
        (self.way, self.evidence) = match outcome {
            Ok(how) => (Back::DownTested, how),
            Err(why) => (Back::OneWay, format!("its rehearsal failed: {why}")),
        };
    }
}

pub(super) fn judge(up: &Body, down: &Body) -> Judged {
    let (compatible, because) = compatible(up);
    let (way, evidence) = way(up, down);
    Judged { compatible, because, way, evidence }
}

fn list(effects: &[&Effect]) -> String {
    const SHOWN: usize = 4;
    let mut text = effects.iter().take(SHOWN).map(|effect| effect.what.as_str()).collect::<Vec<_>>().join(", ");
    if effects.len() > SHOWN {
        text.push_str(&format!(" and {} more", effects.len() - SHOWN));
    }
    text
}

fn compatible(up: &Body) -> (bool, String) {
    let all: Vec<&Effect> = up.effects().iter().collect();
    let harmful = |effect: &&Effect| !matches!(effect.does, Does::Adds | Does::Loosens);
    let against: Vec<&Effect> = all.iter().copied().filter(harmful).collect();
    match up {
        Body::Missing | Body::Refuses(_) => (false, "what it does cannot be read".to_owned()),
        Body::Noop(what) => (true, format!("it does nothing: {what}")),
        _ if up.nothing() => (true, "it does nothing".to_owned()),
        _ if against.is_empty() => (true, format!("it only adds or loosens: {}", list(&all))),
        _ => (false, format!("older code may not run on it: {}", described(&against))),
    }
}

fn described(effects: &[&Effect]) -> String {
    let words = effects.iter().take(4).map(|effect| match effect.does {
        Does::Tightens => format!("{} is stricter", effect.what),
        Does::Unknown => format!("`{}` was not understood", effect.what),
        _ => effect.what.clone(),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn way(up: &Body, down: &Body) -> (Back, String) {
    let taken: Vec<&Effect> = up.effects().iter().filter(|effect| effect.does == Does::Destroys).collect();
    let rows = |body: &Body| {
        let dml = |effect: &Effect| {
            effect.does == Does::Rows
                || (effect.does == Does::Adds && effect.what.starts_with("rows in "))
                || (effect.does == Does::Destroys && effect.what.starts_with("deletes rows"))
        };
        !body.nothing() && body.effects().iter().all(dml)
    };
    match down {
        // A merge of branches, or a marker: there is nothing to take back.
        Body::Empty | Body::Missing | Body::Does(_) if up.nothing() => {
            (Back::Reversible, "there is nothing to undo".to_owned())
        }
        Body::Missing => (Back::OneWay, "it has no way down".to_owned()),
        Body::Refuses(why) => (Back::OneWay, format!("its way down refuses: {why}")),
        Body::Noop(what) => (Back::OneWay, format!("its way down is a no-op, which undoes nothing: {what}")),
        _ if down.nothing() => (Back::OneWay, "its way down is empty".to_owned()),
        _ if !taken.is_empty() => {
            (Back::PointInTimeOnly, format!("what it took away comes back from a restore point only: {}", list(&taken)))
        }
        _ if rows(up) && rows(down) => {
            let does: Vec<&Effect> = down.effects().iter().collect();
            (Back::RowUndo, format!("its way down was read: {}; not rehearsed", list(&does)))
        }
        _ => {
            let does: Vec<&Effect> = down.effects().iter().collect();
            (Back::Reversible, format!("its way down was read: {}; not rehearsed", list(&does)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sql::effects;
    use super::*;

    fn of(up: &str, down: Option<&str>) -> Judged {
        let body = |script: &str| Body::of(effects(script));
        judge(&body(up), &down.map_or(Body::Missing, body))
    }

    #[test]
    fn rf22_a_class_comes_from_what_was_read() {
        let check = |up: &str, down: Option<&str>, compatible: bool, way: Back| {
            let judged = of(up, down);
            assert_eq!((judged.compatible, judged.way), (compatible, way), "{up} / {down:?}: {}", judged.words());
        };
        check("CREATE TABLE a (x int)", Some("DROP TABLE a"), true, Back::Reversible);
        check("CREATE TABLE a (x int)", None, true, Back::OneWay);
        check("CREATE TABLE a (x int)", Some("-- nothing yet\n"), true, Back::OneWay);
        check("ALTER TABLE a DROP COLUMN b", Some("ALTER TABLE a ADD COLUMN b text"), false, Back::PointInTimeOnly);
        check("ALTER TABLE a ADD COLUMN b int NOT NULL", Some("ALTER TABLE a DROP COLUMN b"), false, Back::Reversible);
        check("UPDATE a SET b = b * 100", Some("UPDATE a SET b = b / 100"), false, Back::RowUndo);
        check("DO $$ begin end $$", Some("DROP TABLE a"), false, Back::Reversible);
        check("", Some(""), true, Back::Reversible);
    }

    #[test]
    fn a_way_down_that_undoes_nothing_is_no_way_down() {
        let up = Body::of(effects("CREATE TABLE a (x int)"));
        for down in [Body::Missing, Body::Empty, Body::Refuses("raise".into()), Body::Noop("RunPython.noop".into())] {
            assert_eq!(judge(&up, &down).way, Back::OneWay, "{down:?}");
        }
    }

    #[test]
    fn a_rehearsal_says_more_than_reading() {
        let mut judged = of("CREATE TABLE a (x int)", Some("DROP TABLE a"));
        judged.rehearsed(Ok("up, down, up".to_owned()));
        assert_eq!(judged.way, Back::DownTested);
        judged.rehearsed(Err("the table stays".to_owned()));
        assert!(!judged.way.is_open() && judged.words().contains("the table stays"));
    }
}
