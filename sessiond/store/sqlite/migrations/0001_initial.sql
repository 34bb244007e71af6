-- The log's head: one row, taken first by each write transaction. The authority's identity is made with the database.
CREATE TABLE log_head (
    log INTEGER PRIMARY KEY CHECK (log = 1),
    authority_id BLOB NOT NULL,
    revision INTEGER NOT NULL,
    horizon INTEGER NOT NULL
);
INSERT INTO log_head VALUES (1, randomblob(16), 0, 0);

-- Times are milliseconds since the Unix epoch. Of a token only SHA-256(secret) and its generation are kept.
-- due_at is the first of the two deadlines; purge_at is set with the ending.
CREATE TABLE sessions (
    session_id BLOB PRIMARY KEY,
    application TEXT NOT NULL,
    subject TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_active INTEGER NOT NULL,
    idle_deadline INTEGER,
    absolute_deadline INTEGER,
    due_at INTEGER,
    generation INTEGER NOT NULL,
    generation_began INTEGER NOT NULL,
    digest BLOB NOT NULL,
    rolled_digest BLOB,
    rolled_at INTEGER,
    auth_level INTEGER,
    auth_methods TEXT,
    auth_at INTEGER,
    ip_address TEXT NOT NULL,
    ip_key TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    certificate BLOB NOT NULL,
    device_id TEXT NOT NULL,
    data_version INTEGER NOT NULL,
    data_bytes INTEGER NOT NULL,
    ended_at INTEGER,
    end_kind TEXT,
    end_actor TEXT,
    end_reason TEXT,
    purge_at INTEGER
) WITHOUT ROWID;
CREATE INDEX sessions_due ON sessions (due_at) WHERE ended_at IS NULL;
CREATE INDEX sessions_prunable ON sessions (purge_at) WHERE ended_at IS NOT NULL;
CREATE INDEX sessions_by_subject ON sessions (application, subject, session_id);
CREATE INDEX sessions_live ON sessions (application, session_id) WHERE ended_at IS NULL;

CREATE TABLE session_data (
    session_id BLOB NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (session_id, key)
) WITHOUT ROWID;

-- The log. `detail` is JSON: signals, where an event has them.
CREATE TABLE events (
    revision INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    at INTEGER NOT NULL,
    application TEXT NOT NULL,
    subject TEXT NOT NULL,
    session_id BLOB,
    cause_kind TEXT NOT NULL,
    cause_actor TEXT NOT NULL,
    cause_reason TEXT NOT NULL,
    ip_address TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    certificate BLOB NOT NULL,
    device_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    auth_level INTEGER,
    auth_methods TEXT,
    auth_at INTEGER,
    detail TEXT
);
CREATE INDEX events_by_subject ON events (application, subject, revision) WHERE subject <> '';
