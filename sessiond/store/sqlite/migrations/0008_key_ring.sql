-- The key ring: for each key its fingerprint, its state, since when, when it stopped sealing, whether it is removed even
-- if that logs out sessions, the key itself encrypted under another key of the ring (replicas only; empty: none), and
-- how many values that it had sealed were sealed again. Before, only fingerprints were recorded; `since` is NULL for
-- those until the next start.
ALTER TABLE keys ADD COLUMN state TEXT NOT NULL DEFAULT 'opening';
ALTER TABLE keys ADD COLUMN since INTEGER;
ALTER TABLE keys ADD COLUMN sealed_until INTEGER;
ALTER TABLE keys ADD COLUMN log_out INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN wrapped BLOB NOT NULL DEFAULT x'';
ALTER TABLE keys ADD COLUMN moved INTEGER NOT NULL DEFAULT 0;
UPDATE keys SET state = 'sealing' WHERE number = 0;
