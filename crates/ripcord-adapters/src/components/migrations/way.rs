//! From what was seen to what is wanted: whether the schema can stay, and where it cannot, the migrations between, one by one.

use std::collections::{BTreeMap, BTreeSet};

use ripcord_core::{
    Action, Available, CannotPlan, CaptureId, CaptureRef, Cx, Destroys, Draft, Failure, Inventory, Limits, Loss, Phase,
    Place, Redo, Revision, RowLoss, Seen, Shown, Survey, Want, Wanted, Wish,
};

use super::act::Move;
use super::capture::{About, DIRTY};
use super::classes::Judged;
use super::database::{DbError, Session, name};
use super::graph::{Between, Graph, between};
use super::record::Tool;
use super::schema::{Goes, Schema};
use super::{Inner, Looked, layout};
use crate::hosts::within;
use crate::postgres::quoted;

/// The files of what is there, as they are told by the capture of the release that made it, or by the disk.
pub(super) struct Here {
    pub(super) graph: Graph,
    pub(super) judged: BTreeMap<String, Judged>,
    pub(super) files: Option<CaptureId>,
}

impl Here {
    pub(super) fn of(about: &About, id: &CaptureId) -> Self {
        Self { graph: about.graph.clone(), judged: about.judged.clone(), files: Some(id.clone()) }
    }

    pub(super) fn on_disk(graph: Graph) -> Self {
        let judged = graph.0.iter().map(|(id, one)| (id.clone(), one.judged())).collect();
        Self { graph, judged, files: None }
    }

    fn words(&self, id: &str) -> String {
        let name = self.graph.0.get(id).map_or("", |one| one.name.as_str());
        if name.is_empty() || name == id { format!("`{id}`") } else { format!("`{id}` ({name})") }
    }
}

/// Where a schema is gone to, and what it is made from.
pub(super) struct There<'a> {
    pub(super) about: &'a About,
    pub(super) capture: &'a CaptureId,
}

/// The way from what is there to what is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) moves: Vec<Move>,
    pub(super) loss: Loss,
    /// Each migration between, with its class and the evidence.
    pub(super) between: Vec<(String, String)>,
    /// Why what is there serves as it stands.
    pub(super) serves: Option<String>,
    /// Why it cannot be gone.
    pub(super) closed: Option<String>,
}

/// The fact that holds the moves to a revision.
fn fact(revision: &Revision) -> String {
    match revision {
        Revision::Exact(id) => format!("way to {}", id.0),
        Revision::Absent => "way to nothing".to_owned(),
    }
}

impl Inner {
    pub(super) async fn survey(&self, cx: &Cx, place: &Place, wanted: &[Wanted]) -> Result<Survey, Failure> {
        let looked = self.look(&self.live).await?;
        let present = self.revision(&looked.record);
        let mut abouts: Vec<(&Wanted, Option<Result<About, Failure>>)> = vec![];
        for one in wanted {
            let about = match self.captures.wanted(one) {
                Some(Ok(made)) => Some(self.about_made(made).await),
                Some(Err(failure)) => Some(Err(failure)),
                None => None,
            };
            abouts.push((one, about));
        }
        let seen = seen(&looked, &present, &abouts);
        let mut survey = Survey::new(place.clone(), seen, looked.target.clone());
        survey.label = Some(self.tool.label(&looked.record.marks));
        survey.facts.insert("fingerprint".to_owned(), looked.schema.fingerprint().short());
        let own = abouts.iter().find_map(|(one, about)| match (about, &one.capture) {
            (Some(Ok(about)), Some(id)) if about.marks == looked.record.marks => Some(Here::of(about, id)),
            _ => None,
        });
        let here = match own {
            Some(here) => Ok(here),
            None => {
                let read = layout::graph(self.tool, &self.python, &self.directory, within(cx.limit) / 2).await;
                read.map(Here::on_disk).map_err(|failure| failure.what)
            }
        };
        for (one, about) in &abouts {
            let available = self.way_for(place, one, about.as_ref(), &looked, &here, &mut survey).await?;
            survey.available.push(((*one).clone(), available));
        }
        Ok(survey)
    }

    /// Whether one of the wanted can be had; what is learnt of the way goes into the survey.
    async fn way_for(
        &self,
        place: &Place,
        one: &Wanted,
        about: Option<&Result<About, Failure>>,
        looked: &Looked,
        here: &Result<Here, String>,
        survey: &mut Survey,
    ) -> Result<Available, Failure> {
        let missing = |why: String| Ok(Available::Missing { why });
        match &survey.seen {
            Seen::At(present) if *present == one.revision => {
                return Ok(Available::Here { how: "the schema is there".to_owned() });
            }
            Seen::Between { why } | Seen::Unreachable { why } => return missing(why.clone()),
            Seen::At(_) => {}
        }
        let held = match self.available(one).await {
            Available::Here { how } => how,
            gone @ Available::Missing { .. } => return Ok(gone),
        };
        let (about, capture) = match (about, &one.capture) {
            (Some(Ok(about)), Some(capture)) => (about, capture),
            (Some(Err(failure)), _) => return missing(failure.what.clone()),
            _ => return missing("no capture of it was ever made".to_owned()),
        };
        let here = match here {
            Ok(here) => here,
            Err(why) => return missing(why.clone()),
        };
        let way = match self.way(&place.to_string(), looked, here, &There { about, capture }, self.leave).await {
            Ok(way) => way,
            Err(why) => return missing(why.what),
        };
        for (id, words) in way.between {
            survey.facts.insert(format!("between here and {}: {id}", one.revision.short()), words);
        }
        if let Some(why) = way.serves {
            survey.serves.push((one.revision.clone(), why.clone()));
            return Ok(Available::Here { how: format!("the schema stays as it is: {why}") });
        }
        if let Some(why) = way.closed {
            return missing(format!("{why}: fix forward, or restore the database to a point before it"));
        }
        let moves = serde_json::to_string(&way.moves).map_err(|error| Failure::never(error.to_string()))?;
        survey.facts.insert(fact(&one.revision), moves);
        if !way.loss.is_none() {
            survey.losses.push((capture.clone(), way.loss));
        }
        let files = match &here.files {
            Some(id) => format!("with the files of capture {id}"),
            None => "with the files on the disk".to_owned(),
        };
        Ok(Available::Here { how: format!("{} between, {files}; {held}", count(way.moves.len(), "migration")) })
    }

    /// What lies between, whether it has to be gone, and what that gives up; `leave` says whether a compatible schema may stay.
    pub(super) async fn way(
        &self,
        place: &str,
        looked: &Looked,
        here: &Here,
        there: &There<'_>,
        leave: bool,
    ) -> Result<Way, Failure> {
        let target = &there.about.marks;
        let found = between(self.tool, (&here.graph, &looked.record.marks), (&there.about.graph, target));
        let lies = found.map_err(|why| {
            Failure::never(why).advise("make a capture of the release while its migration files are there")
        })?;
        let judged = |id: &String| here.judged.get(id).or_else(|| there.about.judged.get(id));
        let words = |id: &String| judged(id).map_or("it was never looked at".to_owned(), Judged::words);
        let mut way = Way {
            between: lies.down.iter().chain(&lies.up).map(|id| (id.clone(), words(id))).collect(),
            ..Way::default()
        };
        let compatible = |id: &String| judged(id).is_some_and(|judged| judged.compatible);
        if leave && lies.up.is_empty() && !lies.down.is_empty() && lies.down.iter().all(compatible) {
            let each = lies.down.iter().map(|id| {
                let because = judged(id).map_or("", |judged| judged.because.as_str());
                format!("{}: {because}", here.words(id))
            });
            way.serves = Some(each.collect::<Vec<_>>().join("; "));
            return Ok(way);
        }
        let closed = lies.down.iter().find(|id| !judged(id).is_some_and(|judged| judged.way.is_open()));
        if let Some(id) = closed {
            let why = judged(id).map_or("it was never looked at", |judged| judged.evidence.as_str());
            way.closed = Some(format!("there is no way back over {}: {why}", here.words(id)));
            return Ok(way);
        }
        way.loss = self.loss(place, &looked.schema, &there.about.schema).await?;
        way.moves = self.moves(&lies, &looked.record.marks, here, there, &way.loss)?;
        Ok(way)
    }

    fn moves(
        &self,
        lies: &Between,
        present: &BTreeSet<String>,
        here: &Here,
        there: &There<'_>,
        loss: &Loss,
    ) -> Result<Vec<Move>, Failure> {
        let never = |why: String| Failure::never(why);
        let mut applied = here.graph.applied(self.tool, present).map_err(never)?;
        let mut marks = present.clone();
        let mut moves = vec![];
        let ways = lies.down.iter().map(|id| (false, id)).chain(lies.up.iter().map(|id| (true, id)));
        for (up, id) in ways {
            if up == applied.contains(id) {
                // Gone along with one that it builds on.
                continue;
            }
            let graph = if up { &there.about.graph } else { &here.graph };
            let gone = if up { [id.clone()].into() } else { self.taken(&here.graph, id, &applied) };
            if let Some(other) = gone.iter().find(|other| !up && !lies.down.contains(other)) {
                let what = format!("taking `{id}` back would take `{other}` along, which is to stay");
                return Err(Failure::never(what).advise("take it back by hand"));
            }
            for id in gone {
                if up {
                    applied.insert(id)
                } else {
                    applied.remove(&id)
                };
            }
            let from = self.tool.revision(&marks);
            marks = graph.marks(self.tool, &applied);
            let Some(one) = single(self.tool, graph, id, up, &from, &self.tool.revision(&marks)) else { continue };
            let files = if up { Some(there.capture.clone()) } else { here.files.clone() };
            moves.push(Move { files, towards: Some(there.capture.clone()), ..one });
        }
        // What is given up is named at the steps that may do it; where none shows it, at each of them.
        if !loss.is_none() {
            let may = |one: &Move| {
                let graph = if one.up { &there.about.graph } else { &here.graph };
                graph.0.get(&one.id).is_some_and(|migration| migration.may_destroy(one.up))
            };
            let any = moves.iter().any(may);
            for one in &mut moves {
                one.gives_up = !any || may(one);
            }
        }
        Ok(moves)
    }

    /// What goes when one migration is taken back: Django takes along what else follows the one before it.
    fn taken(&self, graph: &Graph, id: &str, applied: &BTreeSet<String>) -> BTreeSet<String> {
        let mut gone = BTreeSet::from([id.to_owned()]);
        if self.tool != Tool::Django {
            return gone;
        }
        let app = |id: &str| id.split_once('.').map(|(app, _)| app.to_owned());
        let before = graph.0.get(id).and_then(|migration| migration.along.first());
        let beside = applied.iter().filter(|other| {
            let follows = graph.0.get(*other).map(|migration| match before {
                Some(before) => migration.along.contains(before),
                None => true,
            });
            app(other) == app(id) && follows.unwrap_or(false)
        });
        gone.extend(beside.cloned());
        loop {
            let more: Vec<String> = applied
                .iter()
                .filter(|other| !gone.contains(*other))
                .filter(|other| {
                    graph
                        .0
                        .get(*other)
                        .is_some_and(|m| m.along.iter().chain(&m.needs).any(|before| gone.contains(before)))
                })
                .cloned()
                .collect();
            if more.is_empty() {
                return gone;
            }
            gone.extend(more);
        }
    }

    /// The values that go with what the target has no place for.
    pub(super) async fn loss(&self, place: &str, is: &Schema, target: &Schema) -> Result<Loss, DbError> {
        let goes = is.goes(target);
        if goes.is_empty() {
            return Ok(Loss::none());
        }
        let session = self.live.database.open(self.looking()).await?;
        let mut loss = Loss { how: Some("counted in what the target has no place for".to_owned()), ..Loss::none() };
        for one in goes {
            let shown = format!("{place}.{}", one.shown());
            match counted(&session, &one).await {
                Ok(0) => {}
                Ok(values) => drop(loss.rows.insert(shown, RowLoss { deleted: values, ..RowLoss::default() })),
                Err(error) if error.is_locked() => return Err(error),
                // What is too large to be counted in time is no less lost.
                Err(error) => loss.other.push(format!("{shown}, not counted: {error}")),
            }
        }
        Ok(if loss.is_none() { Loss::none() } else { loss })
    }

    pub(super) fn propose(&self, wish: &Wish, seen: &Inventory) -> Result<Vec<Draft>, CannotPlan> {
        let cannot = |why: &str| CannotPlan { place: wish.place.clone(), why: why.to_owned() };
        let survey = seen.surveys.get(&wish.place).ok_or_else(|| cannot("it was not surveyed"))?;
        let Want::Revision { revision, capture } = &wish.want else {
            return Err(cannot("a schema has no single values to set"));
        };
        if survey.seen.revision() == Some(revision) || survey.serves(revision).is_some() {
            return Ok(vec![]);
        }
        match survey.available(revision) {
            Some(Available::Here { .. }) => {}
            Some(Available::Missing { why }) => return Err(cannot(why)),
            None => return Err(cannot("nobody looked whether it can be had")),
        }
        let capture = capture.as_ref().ok_or_else(|| cannot("no capture holds it"))?;
        let text = survey.facts.get(&fact(revision)).ok_or_else(|| cannot("nobody looked for a way"))?;
        let moves: Vec<Move> = serde_json::from_str(text).map_err(|error| cannot(&error.to_string()))?;
        let loss = survey.losses.iter().find(|(of, _)| of == capture).map(|(_, loss)| loss.clone()).unwrap_or_default();
        let ceiling = loss.ceiling(seen.at);
        let drafts = moves.into_iter().map(|one| self.draft(Move { ceiling: ceiling.clone(), ..one }, &loss));
        let mut drafts = drafts.collect::<Result<Vec<_>, _>>().map_err(|failure| cannot(&failure.what))?;
        drafts.push(Draft {
            phase: Phase::Restore,
            action: Action::Restore { to: revision.clone(), from: Some(CaptureRef::Known(capture.clone())) },
            destroys: Destroys::Nothing,
            redo: Redo::Safe,
            limits: Limits::default(),
            shown: Shown {
                words: "see that the schema is the one recorded with the release".to_owned(),
                commands: vec![],
            },
        });
        Ok(drafts)
    }

    fn draft(&self, one: Move, loss: &Loss) -> Result<Draft, Failure> {
        let (act, what) = if one.up { ("apply", "apply") } else { ("take back", "undo") };
        let gives: Vec<_> = loss.rows.iter().map(|(what, lost)| format!("{} values of {what}", lost.total())).collect();
        let gives: Vec<_> = gives.into_iter().chain(loss.other.iter().cloned()).collect();
        let price = match one.gives_up {
            true => format!("; on the way {} are given up", gives.join(", ")),
            false => String::new(),
        };
        let from = match &one.files {
            Some(id) => format!(", with the files of {id}"),
            None => String::new(),
        };
        let script =
            one.script.as_ref().filter(|_| self.tool.is_files()).map_or(String::new(), |file| format!(" by {file}"));
        let name = if one.name == one.id { String::new() } else { format!(" ({})", one.name) };
        let arguments: Vec<&str> = one.arguments.iter().map(String::as_str).collect();
        let commands = if self.tool.is_files() { vec![] } else { vec![self.live.program.shown(&arguments)] };
        let with = serde_json::to_value(&one).map_err(|error| Failure::never(error.to_string()))?;
        Ok(Draft {
            phase: Phase::Restore,
            action: Action::Own { what: format!("{what} migration {} of", one.id), with },
            destroys: if one.gives_up { Destroys::GivesUp } else { Destroys::Nothing },
            redo: Redo::Safe,
            limits: Limits {
                call: std::time::Duration::from_secs(900),
                total: std::time::Duration::from_secs(1800),
                tries: 3,
            },
            shown: Shown { words: format!("{act} migration {}{name}{script}{from}{price}", one.id), commands },
        })
    }
}

fn seen(looked: &Looked, present: &Revision, abouts: &[(&Wanted, Option<Result<About, Failure>>)]) -> Seen {
    if let Some(why) = &looked.record.dirty {
        return Seen::Between { why: format!("{why}; {DIRTY}") };
    }
    let recorded = abouts.iter().filter_map(|(_, about)| about.as_ref()?.as_ref().ok());
    let of_this: Vec<&About> = recorded.filter(|about| about.marks == looked.record.marks).collect();
    let differs: Vec<String> = of_this.iter().filter_map(|about| looked.schema.differs(&about.schema)).collect();
    match differs.first() {
        Some(first) if differs.len() == of_this.len() => Seen::Between {
            why: format!("the record says {}, and the schema is not the one recorded there: {first}", present.short()),
        },
        _ => Seen::At(present.clone()),
    }
}

async fn counted(session: &Session, goes: &Goes) -> Result<u64, DbError> {
    let asked = match goes {
        Goes::Table(table) => format!("SELECT count(*) FROM {}", name(table)),
        Goes::Column { table, column } => format!("SELECT count({}) FROM {}", quoted(column), name(table)),
    };
    Ok(session.one(&asked).await?.and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// One migration taken back or applied, with the files on the disk.
pub(super) fn single(tool: Tool, graph: &Graph, id: &str, up: bool, from: &Revision, to: &Revision) -> Option<Move> {
    let migration = graph.0.get(id)?;
    Some(Move {
        up,
        id: id.to_owned(),
        name: migration.name.clone(),
        from: from.clone(),
        to: to.clone(),
        files: None,
        arguments: if up { forward(tool, id) } else { backward(tool, graph, id) },
        script: if up { migration.file.clone() } else { migration.down_file.clone() },
        previous: migration.along.first().cloned(),
        towards: None,
        ceiling: Loss::none(),
        gives_up: false,
    })
}

fn forward(tool: Tool, id: &str) -> Vec<String> {
    match (tool, id.split_once('.')) {
        (Tool::Alembic, _) => vec!["upgrade".to_owned(), id.to_owned()],
        (Tool::Django, Some((app, name))) => django(app, name),
        _ => vec![],
    }
}

fn backward(tool: Tool, graph: &Graph, id: &str) -> Vec<String> {
    let before = graph.0.get(id).and_then(|migration| migration.along.first());
    match (tool, id.split_once('.')) {
        // `branch@revision`: of several that follow the same one only the one that `id` is of.
        (Tool::Alembic, _) => {
            vec!["downgrade".to_owned(), format!("{id}@{}", before.map_or("base", String::as_str))]
        }
        (Tool::Django, Some((app, _))) => {
            django(app, before.and_then(|before| before.split_once('.')).map_or("zero", |(_, name)| name))
        }
        _ => vec![],
    }
}

fn django(app: &str, name: &str) -> Vec<String> {
    ["migrate", app, name, "--no-input"].map(str::to_owned).to_vec()
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
