-- Fingerprints of the key ring, the sealing key's with number 0: keys and database belong together.
CREATE TABLE keys (
    number INTEGER PRIMARY KEY,
    fingerprint BLOB NOT NULL
);
