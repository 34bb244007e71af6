-- Remembered sessions, sessions of login pages, and elevations (JSON: level, methods, at, until).
ALTER TABLE sessions ADD COLUMN persistent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN login_page INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN elevation TEXT;
-- Its token is not enough until the subject has authenticated.
ALTER TABLE sessions ADD COLUMN must_authenticate INTEGER NOT NULL DEFAULT 0;

-- First answers to calls that may be repeated. The key is a digest; the answer is sealed under a key that is not here.
CREATE TABLE answers (
    answer_key BLOB PRIMARY KEY,
    parameters BLOB NOT NULL,
    sealed BLOB NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX answers_expired ON answers (expires_at);

-- A subject's live sessions, for the limit of concurrent ones, without walking through its history.
DROP INDEX sessions_by_subject;
CREATE INDEX sessions_by_subject ON sessions (application, subject, ended_at, session_id);

-- Whether a value is sealed. A mark within the value could be taken for one by a plain value from before.
ALTER TABLE session_data ADD COLUMN sealed INTEGER NOT NULL DEFAULT 0;
