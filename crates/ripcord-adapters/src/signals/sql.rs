//! One number from an SQLite database: the first column of the first row of a query.
//!
//! The connection can only read, waits for a writer no longer than the reading may take, and is interrupted when nobody waits for
//! the answer any more. No row, and a row of NULL, are no data; a database that cannot be opened is a failure of the observer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Redactor, Sample, Signal, SignalId, Unit};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, InterruptHandle, OpenFlags};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{UnitName, failed};
use crate::http::shorten;
use crate::{BuildCx, BuildError, SignalKind};

/// The most rows kept in a sample's fields.
const ROWS: usize = 100;

/// A query to an SQLite database.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub path: PathBuf,
    /// The value is the first column of the first row.
    pub query: String,
    #[serde(default)]
    pub unit: Option<UnitName>,
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "sql",
        summary: "One number from an SQLite database.",
        example: "\
path: data/shop.db
query: SELECT count(*) FROM orders WHERE customer_id NOT IN (SELECT id FROM customers)
",
        layer: Layer::Data,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        match self.query.trim().is_empty() {
            true => vec![Mistake::new("the query is empty").at("query")],
            false => vec![],
        }
    }

    fn unit(&self) -> Unit {
        self.unit.map_or(Unit::Number, Unit::from)
    }

    fn fields(&self) -> &'static [&'static str] {
        &["rows"]
    }

    fn build(&self, _: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let path = cx.base.join(&self.path);
        Ok(Arc::new(Sql { settings: self.clone(), path, redactor: cx.redactor.clone() }))
    }
}

struct Sql {
    settings: Settings,
    path: PathBuf,
    redactor: Redactor,
}

/// Stops a query that nobody waits for.
struct Interrupts(InterruptHandle);

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

/// The value, where there is one, and the rows.
pub(super) type Found = (Option<f64>, Vec<Value>);

/// Asks the database at `path`; the answer or the reason is there before `limit` is over.
pub(super) async fn ask(path: PathBuf, query: String, limit: Duration) -> Result<Found, String> {
    // A little less than the whole, so that the reason is still heard.
    let limit = limit - limit / 10;
    let (handles, mut handle) = tokio::sync::mpsc::channel(1);
    let asking = tokio::task::spawn_blocking(move || {
        // `NO_CREATE` is implied: that a database is missing must not be answered by an empty one.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(limit)?;
        let _ = handles.blocking_send(connection.get_interrupt_handle());
        drop(handles);
        select(&connection, &query)
    });
    let _interrupts = handle.recv().await.map(Interrupts);
    let answer = tokio::time::timeout(limit, asking).await;
    let answer = answer.map_err(|_| format!("no answer within {}", ripcord_core::human(limit)))?;
    answer.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn select(connection: &Connection, query: &str) -> rusqlite::Result<Found> {
    let mut statement = connection.prepare(query)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([])?;
    let (mut value, mut kept) = (None, vec![]);
    while let Some(row) = rows.next()? {
        if kept.is_empty() {
            value = match row.get_ref(0)? {
                ValueRef::Null => None,
                ValueRef::Integer(n) => Some(n as f64),
                ValueRef::Real(x) => Some(x),
                other => return Err(rusqlite::Error::InvalidColumnType(0, names[0].clone(), other.data_type())),
            };
        }
        let mut object = Map::new();
        for (at, name) in names.iter().enumerate() {
            object.insert(name.clone(), json(row.get_ref(at)?));
        }
        kept.push(Value::Object(object));
        if kept.len() == ROWS {
            break;
        }
    }
    Ok((value, kept))
}

fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => n.into(),
        ValueRef::Real(x) => x.into(),
        ValueRef::Text(text) => shorten(&String::from_utf8_lossy(text), 500).into(),
        ValueRef::Blob(bytes) => format!("({} bytes)", bytes.len()).into(),
    }
}

impl Signal for Sql {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move {
            match ask(self.path.clone(), self.settings.query.clone(), cx.limit).await {
                Err(why) => failed(self.redactor.clean(&format!("`{}`: {why}", self.path.display()))),
                Ok((None, _)) => Reading::Empty,
                Ok((Some(value), rows)) => {
                    let mut rows = Value::Array(rows);
                    self.redactor.clean_value(&mut rows);
                    Reading::of(Sample { fields: [("rows".to_owned(), rows)].into(), ..Sample::new(cx.now, value) })
                }
            }
        })
    }

    fn query(&self) -> String {
        self.redactor.clean(&format!("{} (in {})", self.settings.query.trim(), self.path.display()))
    }
}
