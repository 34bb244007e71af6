-- Every row belongs to a log, and the key of every table begins with it. There is only log 0 now. Texts sort by their
-- bytes, as in SQLite.

-- The log's head: one row, which each write transaction takes first. The authority's id is created with it.
-- incarnation is the number of the current one; lineage names the database server's history that it was begun on, and
-- replaced says whether it was begun because that history had changed.
CREATE TABLE log_head (
    log SMALLINT PRIMARY KEY,
    authority_id BYTEA NOT NULL,
    revision BIGINT NOT NULL,
    horizon BIGINT NOT NULL,
    incarnation BIGINT NOT NULL,
    lineage TEXT COLLATE "C" NOT NULL,
    incarnation_began TIMESTAMPTZ NOT NULL,
    replaced BOOLEAN NOT NULL
);

-- Times are milliseconds since the Unix epoch. Of a token only SHA-256(secret) and its generation are stored.
-- due_at is the earlier of the two deadlines; purge_at is set when the session ends.
CREATE TABLE sessions (
    log SMALLINT NOT NULL,
    session_id BYTEA NOT NULL,
    application TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    last_active BIGINT NOT NULL,
    idle_deadline BIGINT,
    absolute_deadline BIGINT,
    due_at BIGINT,
    generation BIGINT NOT NULL,
    generation_began BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    rolled_digest BYTEA,
    rolled_at BIGINT,
    auth_level BIGINT,
    auth_methods TEXT COLLATE "C",
    auth_at BIGINT,
    ip_address TEXT COLLATE "C" NOT NULL,
    ip_key TEXT COLLATE "C" NOT NULL,
    user_agent TEXT COLLATE "C" NOT NULL,
    certificate BYTEA NOT NULL,
    device_id TEXT COLLATE "C" NOT NULL,
    data_version BIGINT NOT NULL,
    data_bytes BIGINT NOT NULL,
    ended_at BIGINT,
    end_kind TEXT COLLATE "C",
    end_actor TEXT COLLATE "C",
    end_reason TEXT COLLATE "C",
    purge_at BIGINT,
    persistent BIGINT NOT NULL,
    login_page BIGINT NOT NULL,
    elevation TEXT COLLATE "C",
    must_authenticate BIGINT NOT NULL,
    old_token BIGINT,
    last_ip TEXT COLLATE "C" NOT NULL,
    last_agent TEXT COLLATE "C" NOT NULL,
    own_idle BIGINT,
    own_absolute BIGINT,
    labels TEXT COLLATE "C",
    revision BIGINT NOT NULL,
    PRIMARY KEY (log, session_id)
);

-- The labels of sessions, from which sessions are found; `sessions.labels` has them as JSON.
CREATE TABLE session_labels (
    log SMALLINT NOT NULL,
    session_id BYTEA NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    application TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (log, session_id, key)
);

-- Session data; `sealed` says whether a value is encrypted.
CREATE TABLE session_data (
    log SMALLINT NOT NULL,
    session_id BYTEA NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    value BYTEA NOT NULL,
    sealed BIGINT NOT NULL,
    PRIMARY KEY (log, session_id, key)
);

-- The log. `detail` is JSON: signals, reaction, source and labels of the events that have them.
CREATE TABLE events (
    log SMALLINT NOT NULL,
    revision BIGINT NOT NULL,
    type TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    application TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    session_id BYTEA,
    cause_kind TEXT COLLATE "C" NOT NULL,
    cause_actor TEXT COLLATE "C" NOT NULL,
    cause_reason TEXT COLLATE "C" NOT NULL,
    ip_address TEXT COLLATE "C" NOT NULL,
    user_agent TEXT COLLATE "C" NOT NULL,
    certificate BYTEA NOT NULL,
    device_id TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    auth_level BIGINT,
    auth_methods TEXT COLLATE "C",
    auth_at BIGINT,
    detail TEXT COLLATE "C",
    PRIMARY KEY (log, revision)
);

-- Stored responses of calls that may be repeated. The key is a digest; the key of the encryption is not stored.
CREATE TABLE answers (
    log SMALLINT NOT NULL,
    answer_key BYTEA NOT NULL,
    parameters BYTEA NOT NULL,
    sealed BYTEA NOT NULL,
    expires_at BIGINT NOT NULL,
    session_id BYTEA,
    generation BIGINT NOT NULL,
    PRIMARY KEY (log, answer_key)
);

-- The incarnations of the log. A cursor from an incarnation that is missing here belongs to a lost log.
CREATE TABLE incarnations (
    log SMALLINT NOT NULL,
    number BIGINT NOT NULL,
    incarnation BYTEA NOT NULL,
    first_revision BIGINT NOT NULL,
    PRIMARY KEY (log, number)
);

-- Fingerprints of the key ring, the sealing key's with number 0: keys and database belong together.
CREATE TABLE keys (
    log SMALLINT NOT NULL,
    number BIGINT NOT NULL,
    fingerprint BYTEA NOT NULL,
    PRIMARY KEY (log, number)
);

-- The replicas that share this store. `lease_until` is the time until which writers must count with a replica's cache.
CREATE TABLE replicas (
    log SMALLINT NOT NULL,
    replica BYTEA NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    lease_until TIMESTAMPTZ NOT NULL,
    acknowledged BIGINT NOT NULL,
    fingerprints BYTEA[] NOT NULL,
    policies TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (log, replica)
);

-- The mark of each replica's last commit: after a connection lost during COMMIT it shows whether that was committed.
CREATE TABLE commit_marks (
    log SMALLINT NOT NULL,
    replica BYTEA NOT NULL,
    mark BYTEA NOT NULL,
    PRIMARY KEY (log, replica)
);

CREATE INDEX sessions_due ON sessions (log, due_at) WHERE ended_at IS NULL;
CREATE INDEX sessions_prunable ON sessions (log, purge_at) WHERE ended_at IS NOT NULL;
CREATE INDEX sessions_live ON sessions (log, application, session_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_live_by_subject ON sessions (log, application, subject, session_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_ended_by_subject ON sessions (log, application, subject, session_id) WHERE ended_at IS NOT NULL;
CREATE INDEX session_labels_by_value ON session_labels (log, application, key, value, session_id);
CREATE INDEX events_by_subject ON events (log, application, subject, revision) WHERE subject <> '';
CREATE INDEX answers_expired ON answers (log, expires_at);
