//! The rows of one database that another does not have, or has otherwise: both read in the order of their keys, side by side.
//!
//! Two databases are never in one query, so each is asked for its rows in the same order, as the server prints them, and memory
//! holds a few thousand of them however large a table is. A table whose rows add up to the same sum of digests on both sides is
//! not read at all. Rows without a primary key that both sides know are compared whole, each as often as it is there.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use ripcord_core::{Digest, Failure, Loss, RowLoss};
use tokio_postgres::{IsolationLevel, Portal, Transaction};

use super::facts::About;
use super::restore::Job;
use super::salvage::{Change, Event, Salvage, Summary, Table};
use super::{Desk, Postgres, catalog};
use crate::components::files::{captures, point};
use crate::postgres::{PgError, quoted};

/// Rows asked for at once.
const ROWS: i32 = 1000;

/// What comparing found.
pub(super) struct Compared {
    pub(super) loss: Loss,
    /// The former database's state before its rows were read: if it is another one later, there are rows that were not.
    pub(super) state: Digest,
}

/// A table as one side has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    space: String,
    name: String,
    /// Columns, and whether they are computed from others.
    columns: Vec<(String, bool)>,
    /// The columns of the primary key, in its order.
    key: Vec<String>,
}

type Shapes = BTreeMap<(String, String), Shape>;

impl Postgres {
    /// Compares what `former` has with `restored`, and writes down what would be given up.
    pub(super) async fn compare(
        &self,
        desk: &Desk,
        job: Job<'_>,
        about: &About,
        restored: &str,
        former: &str,
        salvage: &Salvage,
    ) -> Result<Compared, PgError> {
        let made = self.captures.find(job.from, job.before, job.to)?;
        let since = made.and_then(|made| captures::manifest(&made).ok()).map(|manifest| manifest.at);
        let mut one = self.server.connect(&desk.way, former).await?;
        let mut other = self.server.connect(&desk.way, restored).await?;
        let state = catalog::state(&one).await?.digest();
        let (events, writing) = salvage.begin();
        let compared = async {
            let one = snapshot(&mut one).await?;
            let other = snapshot(&mut other).await?;
            differences(&one, &other, job.place, &events).await
        };
        let compared = compared.await;
        one.close().await;
        other.close().await;
        let (rows, mut others) = match compared {
            Ok(found) => found,
            Err(error) => {
                // Nothing is written where it does not end well: the thread sees that nobody says more.
                drop(events);
                let _ = writing.await;
                return Err(error);
            }
        };
        others.sort();
        let any = !rows.is_empty() || !others.is_empty();
        let loss = Loss {
            rows,
            since: since.filter(|_| any),
            other: others,
            how: Some("compared with the capture row by row".to_owned()),
        };
        let summary = Summary {
            version: 1,
            database: about.database.clone(),
            restored: job.to.clone(),
            key: job.key(),
            captured_at: since,
            at: Timestamp::now().max(job.cx.now),
            tables: vec![],
            loss: loss.clone(),
        };
        point("salvage");
        if events.send(Event::End(Box::new(summary))).await.is_err() {
            tracing::debug!("the writer of salvage ended first");
        }
        drop(events);
        writing
            .await
            .map_err(|error| Failure::never(format!("unexpected: writing salvage ended by itself ({error})")))??;
        Ok(Compared { loss, state })
    }
}

async fn snapshot(session: &mut crate::postgres::Session) -> Result<Transaction<'_>, PgError> {
    let begin = session.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    Ok(begin.start().await?)
}

async fn shapes(side: &Transaction<'_>) -> Result<Shapes, PgError> {
    let question = "SELECT n.nspname::text, c.relname::text, \
             ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                   ORDER BY a.attnum), \
             ARRAY(SELECT a.attgenerated <> '' FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                   ORDER BY a.attnum), \
             ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(n, o), pg_attribute a \
                   WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = k.n ORDER BY k.o) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
    let mut all = Shapes::new();
    for row in side.query(question, &[]).await? {
        let (space, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (columns, generated): (Vec<String>, Vec<bool>) = (row.try_get(2)?, row.try_get(3)?);
        let shape = Shape {
            space: space.clone(),
            name: name.clone(),
            columns: columns.into_iter().zip(generated).collect(),
            key: row.try_get(4)?,
        };
        all.insert((space, name), shape);
    }
    Ok(all)
}

type Differences = (BTreeMap<String, RowLoss>, Vec<String>);

async fn differences(
    former: &Transaction<'_>,
    restored: &Transaction<'_>,
    place: &str,
    events: &tokio::sync::mpsc::Sender<Event>,
) -> Result<Differences, PgError> {
    let (of_former, mut of_restored) = (shapes(former).await?, shapes(restored).await?);
    let (mut rows, mut others) = (BTreeMap::new(), vec![]);
    for (at, shape) in of_former {
        let other = of_restored.remove(&at);
        let named = format!("{place}.{}.{}", shape.space, shape.name);
        former.batch_execute("SAVEPOINT one_table").await?;
        restored.batch_execute("SAVEPOINT one_table").await?;
        let mut loss = RowLoss::default();
        match table(former, restored, &shape, other.as_ref(), events, &mut loss).await {
            Ok(()) => {}
            // A table that cannot be read is no reason to salvage nothing of the others.
            Err(error @ (PgError::Said { .. } | PgError::Odd { .. })) => {
                former.batch_execute("ROLLBACK TO SAVEPOINT one_table").await?;
                restored.batch_execute("ROLLBACK TO SAVEPOINT one_table").await?;
                others.push(format!("{named}: not all of its rows could be read: {error}"));
            }
            Err(error) => return Err(error),
        }
        if loss.total() > 0 {
            let _ = events.send(Event::TableEnd(loss)).await;
        }
        if loss.total() > 0 {
            rows.insert(named, loss);
        }
    }
    for shape in of_restored.into_values() {
        // The former had dropped it: going back brings its rows back, which gives nothing up but the dropping.
        let back = count(restored, &shape).await?;
        if back > 0 {
            others.push(format!("{place}.{}.{} comes back with {back} rows", shape.space, shape.name));
        }
    }
    if objects(former).await? != objects(restored).await? {
        others.push(format!("{place}: large objects differ, which are only in the database that is set aside"));
    }
    Ok((rows, others))
}

async fn count(side: &Transaction<'_>, shape: &Shape) -> Result<i64, PgError> {
    let question = format!("SELECT count(*) FROM ONLY {}", from(shape));
    Ok(side.query_one(&question, &[]).await?.try_get(0)?)
}

/// Large objects by number and content, where the role may read them.
async fn objects(side: &Transaction<'_>) -> Result<Option<String>, PgError> {
    let may: bool = side.query_one("SELECT has_table_privilege('pg_largeobject', 'SELECT')", &[]).await?.try_get(0)?;
    if !may {
        return Ok(None);
    }
    let question = "SELECT concat_ws(' ', (SELECT count(*) FROM pg_largeobject_metadata), \
         (SELECT sum(hashtextextended(concat_ws(' ', loid, pageno, md5(data)), 0)) FROM pg_largeobject))";
    Ok(Some(side.query_one(question, &[]).await?.try_get(0)?))
}

fn from(shape: &Shape) -> String {
    format!("{}.{}", quoted(&shape.space), quoted(&shape.name))
}

fn list(columns: &[String]) -> String {
    columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// What of a table's rows the former database has and the restored one lacks or has otherwise, and the other way round.
async fn table(
    former: &Transaction<'_>,
    restored: &Transaction<'_>,
    shape: &Shape,
    other: Option<&Shape>,
    events: &tokio::sync::mpsc::Sender<Event>,
    loss: &mut RowLoss,
) -> Result<(), PgError> {
    let all: Vec<String> = shape.columns.iter().map(|(name, _)| name.clone()).collect();
    let has = |name: &String| other.is_some_and(|other| other.columns.iter().any(|(known, _)| known == name));
    let (common, added): (Vec<String>, Vec<String>) = all.iter().cloned().partition(has);
    let by_key = other.is_some_and(|other| !shape.key.is_empty() && shape.key == other.key);
    if let Some(other) = other
        && added.is_empty()
        && sum(former, shape, &common).await? == sum(restored, other, &common).await?
    {
        return Ok(());
    }
    let key = if by_key { shape.key.clone() } else { common.clone() };
    let mut ours = Side::open(former, shape, &key, &common, &added).await?;
    let mut theirs = match other {
        Some(other) => Some(Side::open(restored, other, &key, &common, &[]).await?),
        None => None,
    };
    let stored = shape.columns.iter().filter(|(name, generated)| !generated && common.contains(name));
    let mut about = Some(Table {
        space: shape.space.clone(),
        name: shape.name.clone(),
        columns: common.iter().chain(&added).cloned().collect(),
        written: match other {
            Some(_) => stored.map(|(name, _)| name.clone()).collect(),
            None => shape.columns.iter().filter(|(_, generated)| !generated).map(|(name, _)| name.clone()).collect(),
        },
        key: if by_key { shape.key.clone() } else { vec![] },
        notes: notes(other.is_some(), by_key, &added),
    });
    loop {
        let (mine, its) = (
            ours.peek().await?,
            match &mut theirs {
                Some(theirs) => theirs.peek().await?,
                None => None,
            },
        );
        let order = match (&mine, &its) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(mine), Some(its)) => mine.key.cmp(&its.key),
        };
        let (mine, its) = match order {
            Ordering::Less => (ours.rows.pop_front(), None),
            Ordering::Greater => (None, theirs.as_mut().and_then(|theirs| theirs.rows.pop_front())),
            Ordering::Equal => (ours.rows.pop_front(), theirs.as_mut().and_then(|theirs| theirs.rows.pop_front())),
        };
        let (change, values) = match (mine, its) {
            (Some(mine), Some(its)) => {
                let same = mine.values[..common.len()] == its.values[..]
                    && mine.values[common.len()..].iter().all(Option::is_none);
                if same {
                    continue;
                }
                loss.updated += 1;
                (Change::Updated, mine.values)
            }
            (Some(mine), None) => {
                loss.inserted += 1;
                (Change::Inserted, mine.values)
            }
            (None, Some(its)) => {
                loss.deleted += 1;
                (Change::Deleted, its.values)
            }
            (None, None) => break,
        };
        if let Some(about) = about.take()
            && events.send(Event::Table(Box::new(about))).await.is_err()
        {
            break;
        }
        if events.send(Event::Row(change, values)).await.is_err() {
            // The writer failed, and says why when it is waited for.
            break;
        }
    }
    Ok(())
}

fn notes(restored: bool, by_key: bool, added: &[String]) -> Vec<String> {
    let mut notes = vec![];
    if !restored {
        notes.push("the restored database does not have this table".to_owned());
    } else if !by_key {
        notes.push(
            "no key tells its rows apart, so that a changed row counts as one deleted and one inserted".to_owned(),
        );
    }
    if restored && !added.is_empty() {
        notes.push(format!("columns the restored table does not have: {}", added.join(", ")));
    }
    notes
}

/// How many rows there are, and the sum of their digests: equal where the rows are, whatever their order.
async fn sum(side: &Transaction<'_>, shape: &Shape, columns: &[String]) -> Result<String, PgError> {
    let question = format!(
        "SELECT concat_ws(' ', count(*), sum(hashtextextended(ROW({})::text, 0)::numeric)) FROM ONLY {}",
        list(columns),
        from(shape)
    );
    Ok(side.query_one(&question, &[]).await?.try_get(0)?)
}

#[derive(Debug)]
struct Read {
    key: Vec<u8>,
    values: Vec<Option<String>>,
}

/// One side's rows, in the order of their keys.
struct Side<'a> {
    side: &'a Transaction<'a>,
    portal: Portal,
    rows: VecDeque<Read>,
    ended: bool,
}

impl<'a> Side<'a> {
    async fn open(
        side: &'a Transaction<'a>,
        shape: &Shape,
        key: &[String],
        common: &[String],
        added: &[String],
    ) -> Result<Self, PgError> {
        let values = common.iter().chain(added).map(|name| format!("{}::text", quoted(name))).collect::<Vec<_>>();
        let mut shown = vec![format!("convert_to(ROW({})::text, 'UTF8')", list(key))];
        shown.extend(values);
        // The bytes' order is the same on every side, whatever the collations of the database are.
        let question = format!("SELECT {} FROM ONLY {} ORDER BY 1", shown.join(", "), from(shape));
        let portal = side.bind(&question, &[]).await?;
        Ok(Self { side, portal, rows: VecDeque::new(), ended: false })
    }

    async fn peek(&mut self) -> Result<Option<&Read>, PgError> {
        if self.rows.is_empty() && !self.ended {
            let rows = self.side.query_portal(&self.portal, ROWS).await?;
            self.ended = rows.len() < usize::try_from(ROWS).unwrap_or_default();
            for row in rows {
                let values = (1..row.len()).map(|at| row.try_get(at)).collect::<Result<_, _>>()?;
                self.rows.push_back(Read { key: row.try_get(0)?, values });
            }
        }
        Ok(self.rows.front())
    }
}
