-- The statements of every engine, in SQL that both SQLite and Postgres accept, with :named parameters.
-- Each statement begins with its name and a sentence. The store replaces {braces} with text that it generates; {among}
-- compares with a list of keys.
-- Every row belongs to a log, and the key of every table begins with it. There is only log 0 now.

-- read_head
-- The log's newest revision and horizon, and the authority that owns the log.
SELECT authority_id, revision, horizon FROM log_head WHERE log = 0;

-- read_incarnations
-- The incarnations of the log, oldest first.
SELECT number, incarnation, first_revision FROM incarnations WHERE log = 0 ORDER BY number;

-- begin_incarnation
-- Record that a new incarnation of the log begins.
INSERT INTO incarnations (log, number, incarnation, first_revision)
VALUES (0, :number, :incarnation, :first_revision);

-- delete_incarnations
-- Delete the incarnations that ended before the horizon: none of their cursors can be resumed.
DELETE FROM incarnations WHERE log = 0 AND EXISTS (
    SELECT 1 FROM incarnations AS later
    WHERE later.log = 0 AND later.number > incarnations.number AND later.first_revision <= :horizon
);

-- read_sealing_key
-- The fingerprint of the key that seals new tokens.
SELECT fingerprint FROM keys WHERE log = 0 AND number = 0;

-- read_keys
-- The key ring, the sealing key first.
SELECT fingerprint, state, since, sealed_until, log_out, wrapped, moved FROM keys WHERE log = 0 ORDER BY number;

-- delete_keys
-- Delete the recorded key ring, before recording it again.
DELETE FROM keys WHERE log = 0;

-- put_key
-- Record one key of the ring.
INSERT INTO keys (log, number, fingerprint, state, since, sealed_until, log_out, wrapped, moved)
VALUES (0, :number, :fingerprint, :state, :since, :sealed_until, :log_out, :wrapped, :moved);

-- count_moved
-- Count values that a key had sealed, and that were sealed again.
UPDATE keys SET moved = moved + :count WHERE log = 0 AND fingerprint = :fingerprint;

-- read_callers
-- All callers, by name.
SELECT name, grants, credentials, created_at, revision FROM callers WHERE log = 0 ORDER BY name;

-- put_caller
-- Record a caller, whose former row was deleted.
INSERT INTO callers (log, name, grants, credentials, created_at, revision)
VALUES (0, :name, :grants, :credentials, :created_at, :revision);

-- delete_caller
-- Delete a caller, for good or before recording it again.
DELETE FROM callers WHERE log = 0 AND name = :name;

-- move_head
-- Record the newest revision; the row was locked at the beginning of the transaction.
UPDATE log_head SET revision = :revision WHERE log = 0;

-- move_horizon
-- Record that events up to this revision have been deleted.
UPDATE log_head SET horizon = :horizon WHERE log = 0 AND horizon < :horizon;

-- put_session
-- Insert a session, or update it to its new state. A session that has ended is never changed.
INSERT INTO sessions (
    log, session_id, application, subject, created_at, last_active, idle_deadline, absolute_deadline, due_at,
    generation, generation_began, digest, rolled_digest, rolled_at, auth_level, auth_methods, auth_at,
    ip_address, ip_key, user_agent, certificate, device_id, data_version, data_bytes,
    ended_at, end_kind, end_actor, end_reason, purge_at,
    persistent, login_page, elevation, must_authenticate,
    old_token, earlier_csrf, earlier_csrf_at, last_ip, last_agent, own_idle, own_absolute, labels, revision
) VALUES (
    0, :session_id, :application, :subject, :created_at, :last_active, :idle_deadline, :absolute_deadline, :due_at,
    :generation, :generation_began, :digest, :rolled_digest, :rolled_at, :auth_level, :auth_methods, :auth_at,
    :ip_address, :ip_key, :user_agent, :certificate, :device_id, :data_version, :data_bytes,
    :ended_at, :end_kind, :end_actor, :end_reason, :purge_at,
    :persistent, :login_page, :elevation, :must_authenticate,
    :old_token, :earlier_csrf, :earlier_csrf_at, :last_ip, :last_agent, :own_idle, :own_absolute, :labels, :revision
)
ON CONFLICT (log, session_id) DO UPDATE SET
    subject = excluded.subject, last_active = excluded.last_active, idle_deadline = excluded.idle_deadline,
    absolute_deadline = excluded.absolute_deadline, due_at = excluded.due_at, generation = excluded.generation,
    generation_began = excluded.generation_began, digest = excluded.digest, rolled_digest = excluded.rolled_digest,
    rolled_at = excluded.rolled_at, auth_level = excluded.auth_level, auth_methods = excluded.auth_methods,
    auth_at = excluded.auth_at, ip_address = excluded.ip_address, ip_key = excluded.ip_key,
    user_agent = excluded.user_agent, certificate = excluded.certificate, device_id = excluded.device_id,
    data_version = excluded.data_version, data_bytes = excluded.data_bytes, ended_at = excluded.ended_at,
    end_kind = excluded.end_kind, end_actor = excluded.end_actor, end_reason = excluded.end_reason,
    purge_at = excluded.purge_at, persistent = excluded.persistent, login_page = excluded.login_page,
    elevation = excluded.elevation, must_authenticate = excluded.must_authenticate,
    old_token = excluded.old_token, earlier_csrf = excluded.earlier_csrf,
    earlier_csrf_at = excluded.earlier_csrf_at, last_ip = excluded.last_ip, last_agent = excluded.last_agent,
    own_idle = excluded.own_idle, own_absolute = excluded.own_absolute, labels = excluded.labels,
    revision = excluded.revision
WHERE sessions.ended_at IS NULL;

-- put_label
-- Write one label of a session, so that the session can be found by it.
INSERT INTO session_labels (log, session_id, key, value, application)
VALUES (0, :session_id, :key, :value, :application)
ON CONFLICT (log, session_id, key) DO UPDATE SET value = excluded.value;

-- touch_session
-- Record activity. A session that has ended is never changed, and activity never moves backwards.
UPDATE sessions
SET last_active = :at,
    idle_deadline = CAST(:idle_deadline AS BIGINT),
    due_at = CASE
        WHEN CAST(:idle_deadline AS BIGINT) IS NULL THEN absolute_deadline
        WHEN absolute_deadline IS NOT NULL AND absolute_deadline < CAST(:idle_deadline AS BIGINT) THEN absolute_deadline
        ELSE CAST(:idle_deadline AS BIGINT)
    END,
    last_ip = COALESCE(:last_ip, last_ip),
    last_agent = COALESCE(:last_agent, last_agent)
WHERE log = 0 AND session_id = :session_id AND ended_at IS NULL AND last_active < :at;

-- get_sessions
-- The sessions with these ids.
SELECT * FROM sessions WHERE log = 0 AND session_id {among};

-- oldest_live_sessions
-- A subject's sessions that have not ended, oldest first.
SELECT * FROM sessions WHERE log = 0 AND application = :application AND subject = :subject AND ended_at IS NULL
ORDER BY session_id LIMIT :limit;

-- newest_live_sessions
-- A subject's sessions that have not ended, newest first.
SELECT * FROM sessions WHERE log = 0 AND application = :application AND subject = :subject AND ended_at IS NULL
ORDER BY session_id DESC LIMIT :limit;

-- count_live_sessions
-- The number of a subject's sessions that have not ended; the index alone answers this.
SELECT count(*) AS count FROM sessions
WHERE log = 0 AND application = :application AND subject = :subject AND ended_at IS NULL;

-- get_answers
-- The kept answers with these keys.
SELECT answer_key, parameters, sealed, expires_at, session_id, generation
FROM answers WHERE log = 0 AND answer_key {among};

-- keep_answer
-- Store a response that a retry may get again. An existing one with the same key has expired, and is replaced.
INSERT INTO answers (log, answer_key, parameters, sealed, expires_at, session_id, generation)
VALUES (0, :key, :parameters, :sealed, :expires, :session_id, :generation)
ON CONFLICT (log, answer_key) DO UPDATE SET
    parameters = excluded.parameters, sealed = excluded.sealed, expires_at = excluded.expires_at,
    session_id = excluded.session_id, generation = excluded.generation;

-- delete_expired_answers
-- Delete expired answers, a bounded number of them; returns the bytes of each.
DELETE FROM answers WHERE log = 0 AND answer_key IN (
    SELECT answer_key FROM answers WHERE log = 0 AND expires_at <= :now ORDER BY expires_at LIMIT :limit
) RETURNING length(sealed) AS size;

-- evict_answers
-- Delete answers before they expire, the earliest to expire first. Used tickets, which have no message, are kept.
DELETE FROM answers WHERE log = 0 AND answer_key IN (
    SELECT answer_key FROM answers WHERE log = 0 AND expires_at > :soon AND length(sealed) > 0
    ORDER BY expires_at LIMIT :limit
) RETURNING length(sealed) AS size;

-- measure_answers
-- The number of kept answers and their total size in bytes.
SELECT count(*) AS count, coalesce(sum(length(sealed)), 0) AS size FROM answers WHERE log = 0;

-- list_sessions
-- One page of an application's sessions, newest first: a UUIDv7 sorts by its time of creation.
SELECT * FROM sessions WHERE log = 0 AND application = :application AND {conditions}
ORDER BY session_id DESC LIMIT :limit;

-- walk_sessions
-- The same between two ids. {application} is an expression that keeps the planner on the primary key.
SELECT * FROM sessions WHERE log = 0 AND {application} = :application AND {conditions}
ORDER BY session_id DESC LIMIT :limit;

-- walk_end_of_live
-- The live session of an application that is :rows places after another, newest first.
SELECT session_id FROM sessions
WHERE log = 0 AND application = :application AND ended_at IS NULL AND session_id < :before
ORDER BY session_id DESC LIMIT 1 OFFSET :rows;

-- walk_end_of_all
-- The session, of any application and live or not, that is :rows places after another, newest first.
SELECT session_id FROM sessions WHERE log = 0 AND session_id < :before
ORDER BY session_id DESC LIMIT 1 OFFSET :rows;

-- due_sessions
-- Live sessions whose stored deadline has been reached, the longest overdue first.
SELECT session_id FROM sessions WHERE log = 0 AND ended_at IS NULL AND due_at <= :now ORDER BY due_at LIMIT :limit;

-- prunable_sessions
-- Ended sessions whose retention has passed, the longest overdue first.
SELECT session_id FROM sessions WHERE log = 0 AND ended_at IS NOT NULL AND purge_at <= :now
ORDER BY purge_at LIMIT :limit;

-- prune_sessions
-- Delete sessions that have ended.
DELETE FROM sessions WHERE log = 0 AND session_id {among} AND ended_at IS NOT NULL;

-- prune_labels
-- Delete the labels of sessions that have been deleted.
DELETE FROM session_labels
WHERE log = 0 AND session_id {among} AND NOT EXISTS (
    SELECT 1 FROM sessions WHERE sessions.log = 0 AND sessions.session_id = session_labels.session_id
);

-- read_data
-- One session's data and its version, in one consistent read.
SELECT sessions.data_version, session_data.key, session_data.value, session_data.sealed
FROM sessions LEFT JOIN session_data ON session_data.log = sessions.log AND session_data.session_id = sessions.session_id
WHERE sessions.log = 0 AND sessions.session_id = :session_id;

-- get_data
-- The data of the sessions with these ids.
SELECT session_id, key, value, sealed FROM session_data WHERE log = 0 AND session_id {among};

-- walk_data
-- Which key sealed each value after a place in the table, and how long it is.
SELECT session_id, key, sealed, substr(value, 1, 4) AS mark, length(value) AS size FROM session_data
WHERE log = 0 AND (session_id, key) > (:session_id, :key) ORDER BY session_id, key LIMIT :limit;

-- get_value
-- One value of a session's data.
SELECT key, value, sealed FROM session_data WHERE log = 0 AND session_id = :session_id AND key = :key;

-- reseal_data
-- Store a value again, encrypted under another key.
UPDATE session_data SET value = :value, sealed = :sealed
WHERE log = 0 AND session_id = :session_id AND key = :key;

-- walk_answers
-- The kept answers after a key.
SELECT answer_key, sealed FROM answers WHERE log = 0 AND answer_key > :after ORDER BY answer_key LIMIT :limit;

-- reseal_answer
-- Store a kept answer again, encrypted under another key.
UPDATE answers SET sealed = :sealed WHERE log = 0 AND answer_key = :key;

-- walk_tokens
-- When the current tokens of sessions were issued, between two ids. Sessions that have ended are among them, so that
-- the limit bounds the work.
SELECT session_id, ended_at, last_active, idle_deadline, absolute_deadline, generation_began, rolled_at
FROM sessions WHERE log = 0 AND session_id > :after AND session_id < :before ORDER BY session_id LIMIT :limit;

-- set_data
-- Set one key of a session's data.
INSERT INTO session_data (log, session_id, key, value, sealed) VALUES (0, :session_id, :key, :value, :sealed)
ON CONFLICT (log, session_id, key) DO UPDATE SET value = excluded.value, sealed = excluded.sealed;

-- delete_data
-- Delete one key of a session's data.
DELETE FROM session_data WHERE log = 0 AND session_id = :session_id AND key = :key;

-- delete_all_data
-- Delete all data of sessions that have ended.
DELETE FROM session_data WHERE log = 0 AND session_id {among};

-- append_event
-- Add one numbered event to the log.
INSERT INTO events (
    log, revision, type, at, application, subject, session_id, cause_kind, cause_actor, cause_reason,
    ip_address, user_agent, certificate, device_id, generation, auth_level, auth_methods, auth_at, detail
) VALUES (
    0, :revision, :type, :at, :application, :subject, :session_id, :cause_kind, :cause_actor, :cause_reason,
    :ip_address, :user_agent, :certificate, :device_id, :generation, :auth_level, :auth_methods, :auth_at, :detail
);

-- read_events
-- The events after a revision, in order.
SELECT * FROM events WHERE log = 0 AND revision > :after ORDER BY revision LIMIT :limit;

-- read_activity
-- A subject's events, newest first.
SELECT * FROM events
WHERE log = 0 AND application = :application AND subject = :subject AND revision < :before
ORDER BY revision DESC LIMIT :limit;

-- oldest_events
-- The revisions and times of the oldest events, from which a new horizon is chosen.
SELECT revision, at FROM events WHERE log = 0 ORDER BY revision LIMIT :limit;

-- delete_events
-- Delete the events up to the horizon.
DELETE FROM events WHERE log = 0 AND revision <= :horizon;
