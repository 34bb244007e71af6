-- Every row belongs to a log, and the key of every table begins with it. There is only log 0 now. SQLite cannot change
-- the key of a table, so each table is created again, with its rows.

-- The log's head: one row, which each write transaction takes first. The authority's id is created with it.
ALTER TABLE log_head RENAME TO old_log_head;
CREATE TABLE log_head (
    log INTEGER PRIMARY KEY,
    authority_id BLOB NOT NULL,
    revision INTEGER NOT NULL,
    horizon INTEGER NOT NULL
);
INSERT INTO log_head (
    log, authority_id, revision, horizon
)
SELECT
    0, authority_id, revision, horizon
FROM old_log_head;
DROP TABLE old_log_head;

-- Times are milliseconds since the Unix epoch. Of a token only SHA-256(secret) and its generation are stored.
-- due_at is the earlier of the two deadlines; purge_at is set when the session ends.
ALTER TABLE sessions RENAME TO old_sessions;
CREATE TABLE sessions (
    log INTEGER NOT NULL,
    session_id BLOB NOT NULL,
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
    purge_at INTEGER,
    persistent INTEGER NOT NULL,
    login_page INTEGER NOT NULL,
    elevation TEXT,
    must_authenticate INTEGER NOT NULL,
    old_token INTEGER,
    last_ip TEXT NOT NULL,
    last_agent TEXT NOT NULL,
    own_idle INTEGER,
    own_absolute INTEGER,
    labels TEXT,
    revision INTEGER NOT NULL,
    PRIMARY KEY (log, session_id)
) WITHOUT ROWID;
INSERT INTO sessions (
    log, session_id, application, subject, created_at, last_active, idle_deadline, absolute_deadline, due_at,
    generation, generation_began, digest, rolled_digest, rolled_at, auth_level, auth_methods, auth_at,
    ip_address, ip_key, user_agent, certificate, device_id, data_version, data_bytes, ended_at, end_kind,
    end_actor, end_reason, purge_at, persistent, login_page, elevation, must_authenticate, old_token, last_ip,
    last_agent, own_idle, own_absolute, labels, revision
)
SELECT
    0, session_id, application, subject, created_at, last_active, idle_deadline, absolute_deadline, due_at,
    generation, generation_began, digest, rolled_digest, rolled_at, auth_level, auth_methods, auth_at,
    ip_address, ip_key, user_agent, certificate, device_id, data_version, data_bytes, ended_at, end_kind,
    end_actor, end_reason, purge_at, persistent, login_page, elevation, must_authenticate, old_token, last_ip,
    last_agent, own_idle, own_absolute, labels, revision
FROM old_sessions;
DROP TABLE old_sessions;

-- The labels of sessions, from which sessions are found; `sessions.labels` has them as JSON.
ALTER TABLE session_labels RENAME TO old_session_labels;
CREATE TABLE session_labels (
    log INTEGER NOT NULL,
    session_id BLOB NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    application TEXT NOT NULL,
    PRIMARY KEY (log, session_id, key)
) WITHOUT ROWID;
INSERT INTO session_labels (
    log, session_id, key, value, application
)
SELECT
    0, session_id, key, value, application
FROM old_session_labels;
DROP TABLE old_session_labels;

-- Session data; `sealed` says whether a value is encrypted.
ALTER TABLE session_data RENAME TO old_session_data;
CREATE TABLE session_data (
    log INTEGER NOT NULL,
    session_id BLOB NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    sealed INTEGER NOT NULL,
    PRIMARY KEY (log, session_id, key)
) WITHOUT ROWID;
INSERT INTO session_data (
    log, session_id, key, value, sealed
)
SELECT
    0, session_id, key, value, sealed
FROM old_session_data;
DROP TABLE old_session_data;

-- The log. `detail` is JSON: signals, reaction, source and labels of the events that have them.
ALTER TABLE events RENAME TO old_events;
CREATE TABLE events (
    log INTEGER NOT NULL,
    revision INTEGER NOT NULL,
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
    detail TEXT,
    PRIMARY KEY (log, revision)
) WITHOUT ROWID;
INSERT INTO events (
    log, revision, type, at, application, subject, session_id, cause_kind, cause_actor, cause_reason,
    ip_address, user_agent, certificate, device_id, generation, auth_level, auth_methods, auth_at, detail
)
SELECT
    0, revision, type, at, application, subject, session_id, cause_kind, cause_actor, cause_reason,
    ip_address, user_agent, certificate, device_id, generation, auth_level, auth_methods, auth_at, detail
FROM old_events;
DROP TABLE old_events;

-- Stored responses of calls that may be repeated. The key is a digest; the key of the encryption is not stored.
ALTER TABLE answers RENAME TO old_answers;
CREATE TABLE answers (
    log INTEGER NOT NULL,
    answer_key BLOB NOT NULL,
    parameters BLOB NOT NULL,
    sealed BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    session_id BLOB,
    generation INTEGER NOT NULL,
    PRIMARY KEY (log, answer_key)
) WITHOUT ROWID;
INSERT INTO answers (
    log, answer_key, parameters, sealed, expires_at, session_id, generation
)
SELECT
    0, answer_key, parameters, sealed, expires_at, session_id, generation
FROM old_answers;
DROP TABLE old_answers;

-- The incarnations of the log. A cursor from an incarnation that is missing here belongs to a lost log.
ALTER TABLE incarnations RENAME TO old_incarnations;
CREATE TABLE incarnations (
    log INTEGER NOT NULL,
    number INTEGER NOT NULL,
    incarnation BLOB NOT NULL,
    first_revision INTEGER NOT NULL,
    PRIMARY KEY (log, number)
) WITHOUT ROWID;
INSERT INTO incarnations (
    log, number, incarnation, first_revision
)
SELECT
    0, number, incarnation, first_revision
FROM old_incarnations;
DROP TABLE old_incarnations;

-- Fingerprints of the key ring, the sealing key's with number 0: keys and database belong together.
ALTER TABLE keys RENAME TO old_keys;
CREATE TABLE keys (
    log INTEGER NOT NULL,
    number INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    PRIMARY KEY (log, number)
) WITHOUT ROWID;
INSERT INTO keys (
    log, number, fingerprint
)
SELECT
    0, number, fingerprint
FROM old_keys;
DROP TABLE old_keys;

CREATE INDEX sessions_due ON sessions (log, due_at) WHERE ended_at IS NULL;
CREATE INDEX sessions_prunable ON sessions (log, purge_at) WHERE ended_at IS NOT NULL;
CREATE INDEX sessions_live ON sessions (log, application, session_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_by_subject ON sessions (log, application, subject, ended_at, session_id);
CREATE INDEX session_labels_by_value ON session_labels (log, application, key, value, session_id);
CREATE INDEX events_by_subject ON events (log, application, subject, revision) WHERE subject <> '';
CREATE INDEX answers_expired ON answers (log, expires_at);

-- Statistics of a store in use, as they are after many logins. Without them SQLite would take an index that begins with
-- `log` for selective, and would scan whole tables. We never run ANALYZE on the data, so these stay.
ANALYZE sqlite_schema;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('sessions', 'sessions', '1000000 1000000 1'),
    ('sessions', 'sessions_due', '100000 100000 1'),
    ('sessions', 'sessions_prunable', '900000 900000 1'),
    ('sessions', 'sessions_live', '100000 100000 50000 1'),
    ('sessions', 'sessions_by_subject', '1000000 1000000 500000 20 10 1'),
    ('session_labels', 'session_labels', '1000000 1000000 2 1'),
    ('session_labels', 'session_labels_by_value', '1000000 1000000 500000 300000 100 1'),
    ('session_data', 'session_data', '1000000 1000000 3 1'),
    ('events', 'events', '10000000 10000000 1'),
    ('events', 'events_by_subject', '10000000 10000000 5000000 50 1'),
    ('answers', 'answers', '100000 100000 1'),
    ('answers', 'answers_expired', '100000 100000 1');
ANALYZE sqlite_schema;
