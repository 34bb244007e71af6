-- The callers, their roles (JSON: pairs of application and role) and their credentials (JSON: id, kind, value in hex,
-- created, expires). Of a key only SHA-256 of its secret part is stored.
CREATE TABLE callers (
    log SMALLINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    grants TEXT COLLATE "C" NOT NULL,
    credentials TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (log, name)
);
