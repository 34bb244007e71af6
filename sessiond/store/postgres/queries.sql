-- The statements that only Postgres needs, in the form of `../queries.sql`.

-- take_head
-- Lock the head for the rest of the transaction. `lineage_now` names the history of the server that runs this.
SELECT authority_id, revision, horizon, incarnation, incarnation_began, lineage, {lineage} AS lineage_now
FROM log_head WHERE log = 0 FOR UPDATE;

-- see_head
-- The same, without a lock.
SELECT authority_id, revision, horizon, incarnation, incarnation_began, lineage, {lineage} AS lineage_now
FROM log_head WHERE log = 0;

-- create_head
-- Create the head of a new store.
INSERT INTO log_head (log, authority_id, revision, horizon, incarnation, lineage, incarnation_began, replaced)
VALUES (0, :authority_id, 0, 0, 0, {lineage}, clock_timestamp(), FALSE);

-- copy_head
-- Create the head of a store that continues another one. Its first start begins a new incarnation.
INSERT INTO log_head (log, authority_id, revision, horizon, incarnation, lineage, incarnation_began, replaced)
VALUES (:log, :authority_id, :revision, :horizon, 0, {lineage}, clock_timestamp(), FALSE);

-- change_incarnation
-- Record the current incarnation, and the lineage that it was begun on. The database counts as replaced for the time of
-- a lease, also if another incarnation begins meanwhile.
UPDATE log_head SET incarnation = :number, lineage = {lineage}, incarnation_began = clock_timestamp(),
    replaced = lineage <> {lineage} OR CAST(:set_back AS BOOLEAN) OR (replaced AND
        incarnation_began > clock_timestamp() - CAST(:milliseconds AS BIGINT) * INTERVAL '1 millisecond')
WHERE log = 0;

-- mark_commit
-- Leave the mark of this commit.
INSERT INTO commit_marks (log, replica, mark) VALUES (0, :replica, :mark)
ON CONFLICT (log, replica) DO UPDATE SET mark = excluded.mark;

-- read_mark
-- The mark of a replica's last commit. The head is locked first: a commit that is still under way holds that lock.
SELECT commit_marks.mark FROM commit_marks WHERE log = 0 AND replica = :replica;

-- delete_mark
-- Delete the mark of a replica that stops.
DELETE FROM commit_marks WHERE log = 0 AND replica = :replica;

-- live_replicas
-- The replicas whose lease has not run out.
SELECT replica, name, fingerprints FROM replicas WHERE log = 0 AND lease_until > clock_timestamp();

-- register_replica
-- Record a replica that starts. It counts as running from now on, so that the next one to start compares its keys.
INSERT INTO replicas (log, replica, name, lease_until, acknowledged, fingerprints, policies)
VALUES (0, :replica, :name, clock_timestamp() + CAST(:milliseconds AS BIGINT) * INTERVAL '1 millisecond',
    0, :fingerprints, '');

-- forget_replica
-- Delete a replica that stops.
DELETE FROM replicas WHERE log = 0 AND replica = :replica;

-- forget_dead_replicas
-- Delete the replicas that have been gone for a day.
DELETE FROM replicas WHERE log = 0 AND lease_until < clock_timestamp() - INTERVAL '1 day';

-- forget_dead_marks
-- Delete the marks of replicas that were deleted.
DELETE FROM commit_marks WHERE log = 0 AND NOT EXISTS (
    SELECT 1 FROM replicas WHERE replicas.log = 0 AND replicas.replica = commit_marks.replica
);

-- renew_lease
-- Extend the lease of a replica. The lease of one that was deleted, because it was gone for long, begins again.
INSERT INTO replicas (log, replica, name, lease_until, acknowledged, fingerprints, policies)
VALUES (0, :replica, :name, clock_timestamp() + CAST(:milliseconds AS BIGINT) * INTERVAL '1 millisecond',
    :acknowledged, :fingerprints, :policies)
ON CONFLICT (log, replica) DO UPDATE SET
    lease_until = excluded.lease_until, acknowledged = excluded.acknowledged, fingerprints = excluded.fingerprints,
    policies = excluded.policies;

-- read_leases
-- Every replica, in the order of their ids. `version` changes with each renewal. After the database was replaced there is
-- one more for a while, because leases may have been lost with the end of the log.
SELECT replica, name, policies, acknowledged, fingerprints, CAST(lease_until AS TEXT) AS version
FROM replicas WHERE log = 0
UNION ALL
SELECT '', 'a replica from before the database was replaced', '', -1, CAST(ARRAY[] AS BYTEA[]),
    CAST(incarnation_began AS TEXT)
FROM log_head
WHERE log = 0 AND replaced
    AND incarnation_began > clock_timestamp() - CAST(:milliseconds AS BIGINT) * INTERVAL '1 millisecond'
ORDER BY replica;

-- acknowledge
-- Record the newest revision that a replica's cache includes.
UPDATE replicas SET acknowledged = :acknowledged
WHERE log = 0 AND replica = :replica AND acknowledged < CAST(:acknowledged AS BIGINT);

-- measure_database
-- How many bytes the whole database takes.
SELECT pg_database_size(current_database()) AS bytes;

-- look_at_server
-- What the server and its settings mean for a store. Settings may differ from one user or database to another.
SELECT current_setting('server_version') AS version, CAST(current_setting('server_version_num') AS INTEGER) AS number,
    current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync,
    CAST(current_setting('max_connections') AS INTEGER)
        - CAST(current_setting('superuser_reserved_connections') AS INTEGER) AS connections,
    CAST((SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS INTEGER) AS open_connections;

-- look_at_replicas
-- The replicas whose lease has not run out, and how far the cache of each is behind the log.
SELECT replicas.name, replicas.policies, replicas.fingerprints, log_head.revision - replicas.acknowledged AS behind
FROM replicas JOIN log_head ON log_head.log = replicas.log
WHERE replicas.log = 0 AND replicas.lease_until > clock_timestamp()
ORDER BY replicas.name;
