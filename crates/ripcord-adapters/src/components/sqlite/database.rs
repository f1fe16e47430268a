//! Speaks to SQLite; knows no rollback: opening, locking, the digest of what a database says.
//!
//! Source: SQLite documentation, "Write-Ahead Logging" (who holds which lock), "How To Corrupt An SQLite Database File",
//! "Uniform Resource Identifiers" (`immutable`), "PRAGMA table_list".

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord_core::{Failure, Revision};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use sha2::{Digest as _, Sha256};

use crate::components::files::point;

/// What can go wrong with a database.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    #[error("another connection holds a lock on the database: {0}")]
    Busy(rusqlite::Error),
    /// Not a database, or a malformed one.
    #[error("the database is damaged: {0}")]
    Damaged(rusqlite::Error),
    /// A writer died in the middle, and only one that may write can undo it.
    #[error("a writer died in the middle of a change; the next one to open the database undoes it")]
    Hot,
    #[error("no space for what SQLite has to write: {0}")]
    Full(rusqlite::Error),
    #[error("{0}")]
    Other(rusqlite::Error),
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        let Some(code) = error.sqlite_error() else { return Self::Other(error) };
        // SQLITE_READONLY_ROLLBACK and SQLITE_READONLY_RECOVERY.
        if matches!(code.extended_code, 776 | 264) {
            return Self::Hot;
        }
        match code.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Busy(error),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Damaged(error),
            ErrorCode::DiskFull => Self::Full(error),
            // SQLITE_IOERR_WRITE is what a limit on the size of a file looks like, SQLITE_IOERR_SHMSIZE a disk on which not even a
            // reader of a log can make what it needs.
            ErrorCode::SystemIoFailure if matches!(code.extended_code, 778 | 4874) => Self::Full(error),
            _ => Self::Other(error),
        }
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        let what = error.to_string();
        match error {
            SqlError::Busy(_) => Self::later(what).advise("stop what writes to the database, then retry"),
            SqlError::Full(_) => Self::never(what).advise("free space, then retry; the live database was not changed"),
            SqlError::Damaged(_) | SqlError::Hot | SqlError::Other(_) => Self::never(what),
        }
    }
}

/// How long another connection's lock is waited for where only a look is wanted.
const LOOK: Duration = Duration::from_secs(2);

/// For looking: as other readers do, with their locks.
///
/// Where the disk is full not even a reader can make what it shares with others in write-ahead mode. That it is not there yet says
/// that nobody has the database open, and with an empty log the one file is all of it: then it is read as it lies.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, SqlError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOOK)?;
    let [log, _, _] = beside(path);
    let asked = connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0)).map_err(SqlError::from);
    match asked {
        Err(SqlError::Full(_)) if std::fs::metadata(&log).map_or(0, |log| log.len()) == 0 => open_ours(path),
        Err(error) => Err(error),
        Ok(_) => Ok(connection),
    }
}

/// For acting: never makes a database.
pub(super) fn open_to_write(path: &Path, patience: Duration) -> Result<Connection, SqlError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri(path, "mode=rw"), flags)?;
    // The log of a damaged database may hold what is left of it: closing must not tidy it away.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(patience)?;
    Ok(connection)
}

/// For files of our own that nobody else opens: no lock, no log, nothing left beside them.
pub(super) fn open_ours(path: &Path) -> Result<Connection, SqlError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Ok(Connection::open_with_flags(uri(path, "immutable=1"), flags)?)
}

/// A path as SQLite takes it with parameters.
pub(super) fn uri(path: &Path, parameters: &str) -> String {
    let mut text = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' => text.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(*byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("{text}?{parameters}")
}

/// A name as SQL takes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table that holds rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) sql: String,
    pub(super) columns: Vec<Column>,
    pub(super) key: Key,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// Computed from others: read, never written.
    pub(super) generated: bool,
}

/// What tells rows apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Columns(Vec<String>),
    /// The hidden row number, by the name that no column took.
    Rowid(&'static str),
    /// A table whose columns took every name of it.
    None,
}

impl Table {
    /// The columns that are written.
    pub(super) fn stored(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().filter(|column| !column.generated).map(|column| column.name.as_str())
    }
}

/// The tables of `schema` that hold rows of their own: no views, no virtual tables (whose rows lie in others), no statistics.
pub(super) fn tables(db: &Connection, schema: &str) -> Result<Vec<Table>, SqlError> {
    let list = format!(
        "SELECT l.name, l.wr, m.sql FROM pragma_table_list AS l JOIN {schema}.sqlite_master AS m ON m.type = 'table' AND m.name = l.name \
         WHERE l.schema = ?1 AND l.type IN ('table', 'shadow') AND l.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY l.name"
    );
    let mut statement = db.prepare(&list)?;
    let found = statement.query_map([schema], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, row.get::<_, Option<String>>(2)?.unwrap_or_default()))
    })?;
    let found = found.collect::<Result<Vec<_>, _>>()?;
    found.into_iter().map(|(name, without_rowid, sql)| table(db, schema, name, without_rowid, sql)).collect()
}

fn table(db: &Connection, schema: &str, name: String, without_rowid: bool, sql: String) -> Result<Table, SqlError> {
    struct Seen {
        name: String,
        kind: String,
        required: bool,
        key: u32,
        hidden: u32,
    }
    let mut statement =
        db.prepare("SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1, ?2) ORDER BY cid")?;
    let columns = statement.query_map([&name, schema], |row| {
        Ok(Seen { name: row.get(0)?, kind: row.get(1)?, required: row.get(2)?, key: row.get(3)?, hidden: row.get(4)? })
    })?;
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let mut keys: Vec<_> = columns.iter().filter(|column| column.key > 0).collect();
    keys.sort_by_key(|column| column.key);
    let alias = keys.len() == 1 && keys.iter().all(|column| column.kind.eq_ignore_ascii_case("integer"));
    // Elsewhere SQLite lets a primary key be null, any number of times: such a key tells nothing apart.
    let telling = !keys.is_empty() && (without_rowid || alias || keys.iter().all(|column| column.required));
    let key = match telling {
        true => Key::Columns(keys.iter().map(|column| column.name.clone()).collect()),
        false => {
            let free = |name: &&str| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
            ["rowid", "_rowid_", "oid"].into_iter().find(free).map_or(Key::None, Key::Rowid)
        }
    };
    let columns = columns.into_iter().map(|column| Column { name: column.name, generated: column.hidden > 1 });
    Ok(Table { name, sql, columns: columns.collect(), key })
}

/// What a database says: its schema and every row. The same however its pages lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) revision: Revision,
    pub(super) tables: usize,
    pub(super) rows: u64,
}

impl Content {
    pub(super) fn label(&self) -> String {
        format!("{} tables, {} rows", self.tables, self.rows)
    }
}

/// Reads all of a database, in one transaction.
pub(super) fn content(db: &Connection) -> Result<Content, SqlError> {
    let mut hashing = Sha256::new();
    let transaction = db.unchecked_transaction()?;
    for pragma in ["user_version", "application_id"] {
        let value: i64 = db.query_row(&format!("PRAGMA main.{pragma}"), [], |row| row.get(0))?;
        hashing.update(format!("{pragma} {value}\n"));
    }
    let mut schema = db.prepare(
        "SELECT type, name, tbl_name, sql FROM main.sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type, name",
    )?;
    hash_rows(&mut schema, &mut hashing)?;
    drop(schema);
    let tables = tables(db, "main")?;
    let mut rows = 0;
    for table in &tables {
        let stored = table.stored().map(quoted).collect::<Vec<_>>().join(", ");
        let order = match &table.key {
            Key::Columns(names) => {
                format!(" ORDER BY {}", names.iter().map(|n| quoted(n)).collect::<Vec<_>>().join(", "))
            }
            Key::Rowid(name) => format!(" ORDER BY {name}"),
            Key::None => String::new(),
        };
        hashing.update(format!("table {}\n", table.name));
        let mut statement = db.prepare(&format!("SELECT {stored} FROM main.{}{order}", quoted(&table.name)))?;
        rows += hash_rows(&mut statement, &mut hashing)?;
    }
    transaction.finish()?;
    let hex: String = hashing.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Content { revision: Revision::exact(format!("sqlite:{hex}")), tables: tables.len(), rows })
}

fn hash_rows(statement: &mut rusqlite::Statement<'_>, hashing: &mut Sha256) -> Result<u64, SqlError> {
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        for i in 0..columns {
            // A kind and a length before each value: no two rows have the same bytes.
            match row.get_ref(i)? {
                ValueRef::Null => hashing.update([0]),
                ValueRef::Integer(n) => {
                    hashing.update([1]);
                    hashing.update(n.to_be_bytes());
                }
                ValueRef::Real(x) => {
                    hashing.update([2]);
                    hashing.update(x.to_bits().to_be_bytes());
                }
                ValueRef::Text(bytes) => hash_bytes(hashing, 3, bytes),
                ValueRef::Blob(bytes) => hash_bytes(hashing, 4, bytes),
            }
        }
        hashing.update([9]);
    }
    Ok(count)
}

fn hash_bytes(hashing: &mut Sha256, kind: u8, bytes: &[u8]) {
    hashing.update([kind]);
    hashing.update((bytes.len() as u64).to_be_bytes());
    hashing.update(bytes);
}

/// What a database of ours says, once SQLite found no fault in it.
pub(super) fn sound(path: &Path) -> Result<Content, Failure> {
    let db = open_ours(path)?;
    let found: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(SqlError::from)?;
    if found != "ok" {
        return Err(Failure::never(format!("the copy is damaged: {found}")).advise("choose another capture"));
    }
    Ok(content(&db)?)
}

/// How many foreign keys lead nowhere: no fault of a copy that is equal to what was captured, but worth saying.
pub(super) fn dangling(path: &Path) -> Result<u64, SqlError> {
    let db = open_ours(path)?;
    let counted: i64 = db.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))?;
    Ok(counted.unsigned_abs())
}

/// Copies `from` over all that `to` holds, in one transaction of `to`: it has the old or the new, whatever happens.
pub(super) fn copy(from: &Connection, to: &mut Connection) -> Result<(), SqlError> {
    let backup = Backup::new(from, to)?;
    let mut patience = 200;
    loop {
        point("copy pages");
        match backup.step(1024)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ if patience > 0 => {
                patience -= 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            _ => return Err(SqlError::Busy(busy())),
        }
    }
}

fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None)
}

/// The live database with everybody else locked out until dropped.
pub(super) struct Exclusive {
    pub(super) connection: Connection,
    /// Whether it is to be in write-ahead mode again when nothing came of it.
    pub(super) wal: bool,
}

impl Exclusive {
    /// Takes every lock there is. The log is written into the database and gone, so that the one file is all of it.
    ///
    /// A connection in write-ahead mode keeps a lock as long as it is open, so that even an idle one is found here.
    pub(super) fn take(path: &Path, patience: Duration) -> Result<Self, SqlError> {
        let connection = open_to_write(path, patience)?;
        let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let now: String = connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
        if now != "delete" {
            return Err(SqlError::Busy(busy()));
        }
        let _: String = connection.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |row| row.get(0))?;
        connection.execute_batch("PRAGMA synchronous = FULL; BEGIN EXCLUSIVE; COMMIT")?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        Ok(Self { connection, wal: mode == "wal" })
    }

    /// Lets go after nothing was changed.
    pub(super) fn let_go(self) {
        if self.wal {
            let mode = self.connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
            if let Err(error) = mode {
                tracing::warn!(%error, "the database could not be put back into write-ahead mode");
            }
        }
    }
}

/// The files SQLite keeps beside a database.
pub(super) fn beside(path: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}

/// Other processes of this machine that have the file open, as far as we may see: `1234 (shop)`.
pub(super) fn opened_by(path: &Path) -> Vec<String> {
    let Ok(is) = std::fs::metadata(path) else { return vec![] };
    let Ok(processes) = std::fs::read_dir("/proc") else { return vec![] };
    let ours = std::process::id().to_string();
    let mut found = Vec::new();
    for process in processes.flatten() {
        let id = process.file_name().display().to_string();
        if id == ours || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let same = |meta: std::fs::Metadata| (meta.dev(), meta.ino()) == (is.dev(), is.ino());
        if files.flatten().any(|file| std::fs::metadata(file.path()).is_ok_and(same)) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("{id} ({})", name.trim()));
        }
    }
    found
}
