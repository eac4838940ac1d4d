-- The whole database of a Cloakroom box, as it is today.
--
-- Instants are integers: milliseconds since 1970-01-01 UTC. JSON columns hold one JSON value
-- as text. A fresh database is this file plus `PRAGMA user_version`; older files climb the
-- steps in src/infra/db/steps. A table is touched only by the room that is named beside it.

-- Facts about the box itself, one row each (infra/db).
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- People and machines that may act (accounts).
CREATE TABLE user (
    id            INTEGER PRIMARY KEY,
    email         TEXT NOT NULL UNIQUE COLLATE NOCASE,
    access_id     TEXT NOT NULL UNIQUE,         -- public: names the signer in signed links
    first_name    TEXT NOT NULL DEFAULT '',
    last_name     TEXT NOT NULL DEFAULT '',
    role          INTEGER NOT NULL CHECK (role BETWEEN 1 AND 4),
    password_hash TEXT NOT NULL,                -- argon2id, PHC string
    enabled       INTEGER NOT NULL DEFAULT 1,
    token_epoch   INTEGER NOT NULL DEFAULT 0,   -- raised to revoke every token issued so far
    created_at    INTEGER NOT NULL
) STRICT;

-- API keys and upload keys (accounts). The text of an API key is also the key that signs
-- links, so it must be readable again: it is sealed, not hashed. It is found by a keyed hash.
CREATE TABLE credential (
    id         INTEGER PRIMARY KEY,
    user_id    INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    kind       TEXT NOT NULL CHECK (kind IN ('api', 'upload')),
    lookup     BLOB NOT NULL UNIQUE,            -- HMAC-SHA-256 of the key's text
    sealed     BLOB NOT NULL,                   -- AES-256-GCM: nonce, ciphertext, tag
    created_at INTEGER NOT NULL,
    expires_at INTEGER                          -- set when a newer key takes over
) STRICT;
CREATE INDEX credential_user ON credential (user_id, kind);

-- What an administrator chose while the box ran, a section in each row (settings).
CREATE TABLE setting (
    name       TEXT PRIMARY KEY,                -- images, videos, watermark, webhook
    value      TEXT NOT NULL,                   -- JSON
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Whatever was handed in (assets).
CREATE TABLE asset (
    seq            INTEGER PRIMARY KEY,         -- order of arrival; the cursor of listings
    id             TEXT NOT NULL UNIQUE,        -- 32 lower-case hex: the ticket
    revision       INTEGER NOT NULL DEFAULT 1,  -- which content; replacing starts the next
    status         TEXT NOT NULL CHECK (status IN ('QUEUED', 'NOT_READY', 'OK', 'ERROR', 'ARCHIVED')),
    name           TEXT NOT NULL,               -- what its owner calls it; never a path
    size_bytes     INTEGER NOT NULL,
    md5            TEXT NOT NULL,               -- the contract's checksum
    sha256         TEXT NOT NULL,               -- ours: what integrity is judged by
    content_type   TEXT NOT NULL,               -- sniffed, not claimed
    public         INTEGER NOT NULL DEFAULT 0,  -- the original may be read by anyone
    on_demand      INTEGER NOT NULL DEFAULT 0,  -- smart imaging has run: images can be cut from it
    creator_id     INTEGER NOT NULL,
    updater_id     INTEGER NOT NULL,
    uploaded_at    INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    trashed_at     INTEGER,                     -- when its original was deleted; undeleting clears it
    upload_source  TEXT,
    data_schema_id INTEGER NOT NULL DEFAULT 0,
    data           TEXT NOT NULL DEFAULT '{}',  -- what people write
    facts          TEXT NOT NULL DEFAULT '{}',  -- what was read out of the original
    errors         TEXT NOT NULL DEFAULT '{}'   -- content key or 'warning' -> sentence
) STRICT;
CREATE INDEX asset_uploaded ON asset (uploaded_at);

-- Stored derivatives of the present revision (assets).
CREATE TABLE conversion (
    asset_id         TEXT NOT NULL REFERENCES asset (id) ON DELETE CASCADE,
    key              TEXT NOT NULL,
    revision         INTEGER NOT NULL,
    extension        TEXT NOT NULL,
    content_type     TEXT NOT NULL,
    width            INTEGER,
    height           INTEGER,
    duration_seconds REAL,
    size_bytes       INTEGER NOT NULL,
    public           INTEGER NOT NULL DEFAULT 0,
    watermarked      INTEGER NOT NULL DEFAULT 0,
    created_at       INTEGER NOT NULL,
    PRIMARY KEY (asset_id, key)
) STRICT, WITHOUT ROWID;

-- What happened to assets, in order (journal). Consumers keep a cursor on seq.
CREATE TABLE journal (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused, so a cursor never skips
    at       INTEGER NOT NULL,
    asset_id TEXT NOT NULL,                     -- no reference: the entry outlives its asset
    event    TEXT NOT NULL,                     -- file-saved, file-processed, file-data-updated, ...
    detail   TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX journal_asset ON journal (asset_id, seq);

-- How far each consumer has read (journal).
CREATE TABLE journal_cursor (
    consumer TEXT PRIMARY KEY,
    seq      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What receivers are told: the body of a callback, as it is sent every time (webhooks).
CREATE TABLE notice (
    id         INTEGER PRIMARY KEY,
    asset_id   TEXT,                            -- no reference: it outlives its asset; none for a test
    event      TEXT NOT NULL,
    body       TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX notice_asset ON notice (asset_id) WHERE asset_id IS NOT NULL;

-- A notice on its way to one URL (webhooks).
CREATE TABLE delivery (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,           -- 32 lower-case hex: what receivers know it by, the same every time
    notice_id   INTEGER NOT NULL REFERENCES notice (id),
    url         TEXT NOT NULL,
    -- WAITING → DELIVERED | FAILED (all tries used up, or told to stop) | DROPPED (nobody wants it any more).
    state       TEXT NOT NULL CHECK (state IN ('WAITING', 'DELIVERED', 'FAILED', 'DROPPED')),
    tries       INTEGER NOT NULL DEFAULT 0,     -- since it was last begun: the place in the schedule
    attempts    INTEGER NOT NULL DEFAULT 0,     -- in all
    next_at     INTEGER NOT NULL,               -- while waiting: not before this instant
    finished_at INTEGER                         -- when it stopped waiting
) STRICT;
-- The next delivery of a URL is the first entry.
CREATE INDEX delivery_waiting ON delivery (url, next_at, seq) WHERE state = 'WAITING';
CREATE INDEX delivery_state ON delivery (state, seq);
CREATE INDEX delivery_notice ON delivery (notice_id);
CREATE INDEX delivery_finished ON delivery (finished_at) WHERE finished_at IS NOT NULL;

-- What came of each attempt at a delivery (webhooks).
CREATE TABLE attempt (
    delivery_seq INTEGER NOT NULL REFERENCES delivery (seq) ON DELETE CASCADE,
    number       INTEGER NOT NULL,              -- from 1
    at           INTEGER NOT NULL,
    duration_ms  INTEGER NOT NULL,
    status       INTEGER,                       -- what was answered, if anything
    error        TEXT,                          -- why it does not count as delivered
    answer       TEXT NOT NULL,                 -- how the answer's body begins
    PRIMARY KEY (delivery_seq, number)
) STRICT, WITHOUT ROWID;

-- What the API calls a job: one asked-for batch of processing (processing).
CREATE TABLE round (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    asset_id     TEXT NOT NULL REFERENCES asset (id) ON DELETE CASCADE,
    revision     INTEGER NOT NULL,
    creator_id   INTEGER NOT NULL,
    kind         TEXT NOT NULL,                 -- IMAGE, VIDEO_TRANSCODE
    status       TEXT NOT NULL CHECK (status IN ('QUEUED', 'IN_PROGRESS', 'COMPLETED', 'ERROR')),
    requested_at INTEGER NOT NULL,
    completed_at INTEGER
) STRICT;
CREATE INDEX round_asset ON round (asset_id);
CREATE INDEX round_creator ON round (creator_id, id);

-- The parts of a round, one for each processing key (processing).
CREATE TABLE step (
    round_id    INTEGER NOT NULL REFERENCES round (id) ON DELETE CASCADE,
    key         TEXT NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('QUEUED', 'IN_PROGRESS', 'COMPLETED', 'ERROR')),
    percent     INTEGER NOT NULL DEFAULT 0,
    started_at  INTEGER,
    finished_at INTEGER,
    message     TEXT NOT NULL DEFAULT '',
    job_id      INTEGER,                        -- the owed job that does it, perhaps with others; it may be gone
    PRIMARY KEY (round_id, key)
) STRICT, WITHOUT ROWID;

-- Owed work (src/infra/jobs). A row is written in the transaction of the reason for it, and
-- deleted in the transaction of its effect: what is here is owed, is being done, or failed.
-- Completed jobs leave no row. Discarded and cancelled ones are kept for a week, to be looked
-- at and, if somebody wants, tried again.
CREATE TABLE job (
    -- AUTOINCREMENT: an id is never given twice, so who still holds an old one cancels nobody else's job.
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         TEXT    NOT NULL,              -- 'ingest.save': which runner, and the shape of args
    queue        TEXT    NOT NULL,              -- 'save', 'image', 'video', 'net', 'vision': which slots
    args         TEXT    NOT NULL,              -- JSON
    -- scheduled → available → running → (gone) | discarded | cancelled.
    -- 'scheduled' waits for run_at; the first claim after that makes it 'available'.
    state        TEXT    NOT NULL CHECK (state IN ('scheduled', 'available', 'running', 'discarded', 'cancelled')),
    priority     INTEGER NOT NULL DEFAULT 0,    -- higher goes first
    run_at       INTEGER NOT NULL,              -- not before this instant, in ms
    attempt      INTEGER NOT NULL DEFAULT 0,    -- attempts begun; with id it fences off a runner that was given up on
    percent      INTEGER NOT NULL DEFAULT 0,    -- of the attempt under way
    lease_until  INTEGER,                       -- while running: whoever finds it past may take the job back
    unique_key   TEXT,                          -- at most one waiting job per (kind, unique_key)
    error_code   TEXT,                          -- of the last attempt that failed: the wire word of its code …
    error        TEXT,                          -- … and its text, for the operator
    created_at   INTEGER NOT NULL,
    finished_at  INTEGER                        -- when discarded or cancelled
) STRICT;
-- The next job of a queue is the first entry of the first; the next to become due, of the second.
CREATE INDEX job_available ON job (queue, priority DESC, run_at, id) WHERE state = 'available';
CREATE INDEX job_scheduled ON job (queue, run_at) WHERE state = 'scheduled';
CREATE INDEX job_running ON job (lease_until) WHERE state = 'running';
CREATE INDEX job_finished ON job (finished_at) WHERE finished_at IS NOT NULL;
-- Only those that wait: a running one may have read its input before the new reason came.
CREATE UNIQUE INDEX job_unique ON job (kind, unique_key)
    WHERE unique_key IS NOT NULL AND state IN ('scheduled', 'available');
