-- What is folded from the journal: dropped and folded anew when its shape changes.
DROP TABLE IF EXISTS ledger;
DROP TABLE IF EXISTS quarantine;
DROP TABLE IF EXISTS run;
DROP TABLE IF EXISTS incident;
DROP TABLE IF EXISTS capture;

CREATE TABLE ledger (
    application TEXT NOT NULL,
    environment TEXT NOT NULL,
    id TEXT NOT NULL,
    first INTEGER NOT NULL,
    kept TEXT NOT NULL,
    PRIMARY KEY (application, environment, id)
) STRICT, WITHOUT ROWID;

-- Of an application in all its environments.
CREATE TABLE quarantine (
    application TEXT NOT NULL,
    version TEXT NOT NULL,
    kept TEXT NOT NULL,
    PRIMARY KEY (application, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE run (
    application TEXT NOT NULL,
    environment TEXT NOT NULL,
    id TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    -- An automatic rollback that counts as an attempt: its level, release and incident. Otherwise the level is null.
    level INTEGER,
    of_release TEXT,
    of_incident TEXT,
    kept TEXT NOT NULL,
    PRIMARY KEY (application, environment, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_by_age ON run (application, environment, first);
-- One automatic attempt for a release and for an incident, whatever a controller believes.
CREATE UNIQUE INDEX run_attempt_release ON run (application, environment, of_release, level)
    WHERE level IS NOT NULL AND of_release IS NOT NULL;
CREATE UNIQUE INDEX run_attempt_incident ON run (application, environment, of_incident, level)
    WHERE level IS NOT NULL AND of_incident IS NOT NULL;

CREATE TABLE incident (
    application TEXT NOT NULL,
    environment TEXT NOT NULL,
    id TEXT NOT NULL,
    first INTEGER NOT NULL,
    kept TEXT NOT NULL,
    PRIMARY KEY (application, environment, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX incident_by_age ON incident (application, environment, first);

CREATE TABLE capture (
    application TEXT NOT NULL,
    environment TEXT NOT NULL,
    id TEXT NOT NULL,
    first INTEGER NOT NULL,
    kept TEXT NOT NULL,
    PRIMARY KEY (application, environment, id)
) STRICT, WITHOUT ROWID;
