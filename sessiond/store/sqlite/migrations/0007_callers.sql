-- The callers, their roles (JSON: pairs of application and role) and their credentials (JSON: id, kind, value in hex,
-- created, expires). Of a key only SHA-256 of its secret part is stored.
CREATE TABLE callers (
    log INTEGER NOT NULL,
    name TEXT NOT NULL,
    grants TEXT NOT NULL,
    credentials TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (log, name)
) WITHOUT ROWID;
