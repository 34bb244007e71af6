-- The revision of the session's last change: the newer one wins, whatever the order of arrival.
ALTER TABLE sessions ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
-- The generation of a token from before the last roll that came back before the new one was used.
ALTER TABLE sessions ADD COLUMN old_token INTEGER;
-- The client of the last recorded activity.
ALTER TABLE sessions ADD COLUMN last_ip TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN last_agent TEXT NOT NULL DEFAULT '';
UPDATE sessions SET last_ip = ip_address, last_agent = user_agent;
-- The session's own timeouts, in milliseconds; NULL: the policy's.
ALTER TABLE sessions ADD COLUMN own_idle INTEGER;
ALTER TABLE sessions ADD COLUMN own_absolute INTEGER;
-- Public key-value pairs as JSON; NULL: none. session_labels has them again, to be found by.
ALTER TABLE sessions ADD COLUMN labels TEXT;

CREATE TABLE session_labels (
    session_id BLOB NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    application TEXT NOT NULL,
    PRIMARY KEY (session_id, key)
) WITHOUT ROWID;
CREATE INDEX session_labels_by_value ON session_labels (application, key, value, session_id);

-- The runs of the log: one more at each start. A cursor from a run that is not here belongs to a log that was lost.
CREATE TABLE incarnations (
    number INTEGER PRIMARY KEY,
    incarnation BLOB NOT NULL,
    first_revision INTEGER NOT NULL
);

-- The session whose token a kept answer holds, if the answer counts only while that session is at this generation.
ALTER TABLE answers ADD COLUMN session_id BLOB;
ALTER TABLE answers ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
