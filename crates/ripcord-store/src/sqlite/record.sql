-- What cannot be made again from anything else.
CREATE TABLE event (
    n INTEGER PRIMARY KEY,
    application TEXT NOT NULL,
    environment TEXT NOT NULL,
    seq INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    at TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    run TEXT,
    incident TEXT,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    prev TEXT NOT NULL,
    hash TEXT NOT NULL,
    UNIQUE (application, environment, seq)
) STRICT;
CREATE INDEX event_of_run ON event (application, environment, run, seq) WHERE run IS NOT NULL;

-- Apart from the events, so that a tail cut off is missed.
CREATE TABLE head (
    application TEXT NOT NULL,
    environment TEXT NOT NULL,
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (application, environment)
) STRICT, WITHOUT ROWID;

CREATE TABLE blob (digest TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;

-- Seconds of the store's clock.
CREATE TABLE lease (
    what TEXT PRIMARY KEY,
    holder TEXT,
    epoch INTEGER NOT NULL,
    expires REAL NOT NULL,
    ttl REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE request (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    application TEXT NOT NULL,
    environment TEXT NOT NULL,
    by_whom TEXT NOT NULL,
    at TEXT NOT NULL,
    ask TEXT NOT NULL,
    reply TEXT
) STRICT;
CREATE INDEX request_open ON request (application, environment, id) WHERE reply IS NULL;

-- `due` is in microseconds, rounded down.
CREATE TABLE outbox (
    n INTEGER PRIMARY KEY,
    application TEXT NOT NULL,
    environment TEXT NOT NULL,
    id TEXT NOT NULL,
    due INTEGER NOT NULL,
    outgoing TEXT NOT NULL,
    UNIQUE (application, environment, id)
) STRICT;

CREATE TABLE memory (
    application TEXT NOT NULL,
    environment TEXT NOT NULL,
    id TEXT NOT NULL,
    memory TEXT NOT NULL,
    PRIMARY KEY (application, environment, id)
) STRICT, WITHOUT ROWID;
