-- The whole database of a Cloakroom box, as it is today.
--
-- Instants are integers: milliseconds since 1970-01-01 UTC. JSON columns hold one JSON value
-- as text. A fresh database is this file plus `PRAGMA user_version`; older files climb the
-- steps in src/infra/db/steps. A table is written only by the room that is named beside it;
-- others may read it in a join.

-- Facts about the box itself, one row each (infra/db).
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- People and machines that may act (accounts).
CREATE TABLE user (
    -- AUTOINCREMENT: a number is never given twice, because tokens and assets name people who are gone.
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    email         TEXT NOT NULL UNIQUE COLLATE NOCASE,
    access_id     TEXT NOT NULL UNIQUE,         -- public: names the signer in signed links
    first_name    TEXT NOT NULL DEFAULT '',
    last_name     TEXT NOT NULL DEFAULT '',
    locale        TEXT NOT NULL DEFAULT 'en',
    role          INTEGER NOT NULL CHECK (role BETWEEN 1 AND 4),
    password_hash TEXT,                         -- argon2id, PHC string; absent until an invitation is accepted
    enabled       INTEGER NOT NULL DEFAULT 1,
    token_epoch   INTEGER NOT NULL DEFAULT 0,   -- raised to revoke every token issued so far
    created_at    INTEGER NOT NULL
) STRICT;

-- Links by which somebody becomes a user, one at a time for each (accounts).
CREATE TABLE invitation (
    user_id    INTEGER PRIMARY KEY REFERENCES user (id) ON DELETE CASCADE,
    lookup     BLOB NOT NULL UNIQUE,            -- HMAC-SHA-256 of the token in the link
    expires_at INTEGER NOT NULL
) STRICT;

-- One-time passwords beside the password (accounts).
CREATE TABLE second_factor (
    user_id      INTEGER PRIMARY KEY REFERENCES user (id) ON DELETE CASCADE,
    sealed       BLOB NOT NULL,                 -- the secret in base32, sealed like a key
    confirmed_at INTEGER,                       -- absent until a first code was right: not asked for before
    last_step    INTEGER NOT NULL DEFAULT 0     -- half minutes since 1970; a code of this one or before is not taken
) STRICT;

-- For who lost the device; each works once (accounts).
CREATE TABLE recovery_code (
    user_id INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    lookup  BLOB NOT NULL,                      -- HMAC-SHA-256 of user and code
    used_at INTEGER,
    PRIMARY KEY (user_id, lookup)
) STRICT, WITHOUT ROWID;

-- API keys, upload keys and tokens (accounts). The text of an API key is also the key that signs
-- links, so it must be readable again: it is sealed, not hashed. It is found by a keyed hash.
CREATE TABLE credential (
    id         INTEGER PRIMARY KEY,
    user_id    INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    kind       TEXT NOT NULL CHECK (kind IN ('api', 'upload', 'token')),
    lookup     BLOB NOT NULL UNIQUE,            -- HMAC-SHA-256 of the key's text
    sealed     BLOB NOT NULL,                   -- AES-256-GCM: nonce, ciphertext, tag
    created_at INTEGER NOT NULL,
    expires_at INTEGER,                         -- set when a newer key takes over
    label      TEXT,                            -- of a token: what it is for
    scopes     TEXT                             -- of a token: all that it may, words with spaces between them
) STRICT;
CREATE INDEX credential_user ON credential (user_id, kind);

-- What came in by an upload key, so that the page which sent it may describe it for a while (accounts).
CREATE TABLE handed_in (
    asset_id      TEXT PRIMARY KEY,             -- no reference: written after the asset, and of no use without it
    credential_id INTEGER NOT NULL REFERENCES credential (id) ON DELETE CASCADE,
    at            INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX handed_in_credential ON handed_in (credential_id, at);

-- What an administrator chose while the box ran, a section in each row (settings).
CREATE TABLE setting (
    name       TEXT PRIMARY KEY,                -- auth, addons, images, videos, watermark, webhook
    value      TEXT NOT NULL,                   -- JSON
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Whatever was handed in (assets).
CREATE TABLE asset (
    -- AUTOINCREMENT: searches remember numbers, and one is never given twice.
    seq            INTEGER PRIMARY KEY AUTOINCREMENT, -- order of arrival; the cursor of listings
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
    data_conforms  INTEGER NOT NULL DEFAULT 1,  -- whether data is as its schema wants it: if not, its fields are not searched
    home           TEXT NOT NULL DEFAULT 'fs',  -- where its original is for good: fs, s3 or r2 ...
    bucket         TEXT NOT NULL DEFAULT '',    -- ... and in which bucket; as `object` has it, for those who only show it
    data           TEXT NOT NULL DEFAULT '{}',  -- what people write
    facts          TEXT NOT NULL DEFAULT '{}',  -- what was read out of the original
    errors         TEXT NOT NULL DEFAULT '{}'   -- content key or 'warning' -> sentence
) STRICT;
-- Listings walk the first; the second is the trash, with what it weighs; the others answer for spans of time and size, and for a schema.
CREATE INDEX asset_listed ON asset (seq) WHERE trashed_at IS NULL;
CREATE INDEX asset_trashed ON asset (trashed_at, size_bytes) WHERE trashed_at IS NOT NULL;
CREATE INDEX asset_uploaded ON asset (uploaded_at);
CREATE INDEX asset_size ON asset (size_bytes);
CREATE INDEX asset_schema_id ON asset (data_schema_id) WHERE data_schema_id <> 0;

-- How many assets are not in the trash, for each 1024 that arrived one after the other (assets). A million are
-- counted, and an offset into them is found, by adding up a thousand numbers. The triggers below keep it.
CREATE TABLE asset_block (
    block INTEGER PRIMARY KEY,                  -- seq / 1024
    live  INTEGER NOT NULL
) STRICT;
CREATE TRIGGER asset_came AFTER INSERT ON asset WHEN new.trashed_at IS NULL BEGIN
    INSERT INTO asset_block VALUES (new.seq >> 10, 1) ON CONFLICT (block) DO UPDATE SET live = live + 1;
END;
CREATE TRIGGER asset_went AFTER DELETE ON asset WHEN old.trashed_at IS NULL BEGIN
    UPDATE asset_block SET live = live - 1 WHERE block = old.seq >> 10;
END;
CREATE TRIGGER asset_moved AFTER UPDATE OF trashed_at ON asset WHEN (old.trashed_at IS NULL) <> (new.trashed_at IS NULL) BEGIN
    UPDATE asset_block SET live = live + iif(new.trashed_at IS NULL, 1, -1) WHERE block = new.seq >> 10;
END;

-- Whose content is the same: the beginning of the digest finds it (assets).
CREATE INDEX asset_content ON asset (substr(sha256, 1, 16)) WHERE sha256 <> '';

-- A file that is to be fetched from elsewhere, and how far that is (ingest).
CREATE TABLE fetch (
    asset_id    TEXT PRIMARY KEY REFERENCES asset (id) ON DELETE CASCADE,
    source      TEXT NOT NULL,                  -- the address; it may hold secrets, so it goes when the file has come
    validator   TEXT,                           -- what the source calls this content: a strong ETag, or a date
    total_bytes INTEGER,                        -- as the source says
    kept_bytes  INTEGER NOT NULL DEFAULT 0      -- flushed in staging: fetching goes on behind them
) STRICT, WITHOUT ROWID;

-- Leave to send one file straight to storage, under an id that is set aside for it (ingest).
CREATE TABLE voucher (
    asset_id     TEXT PRIMARY KEY,              -- no reference: the asset comes when the file is registered
    user_id      INTEGER NOT NULL,
    name         TEXT NOT NULL,
    object_key   TEXT NOT NULL,                 -- what the form has to say
    bucket       TEXT,                          -- the form leads into this one; absent: into this box
    expires_at   INTEGER NOT NULL,
    staged       TEXT,                          -- the name in staging of what was sent here last
    size_bytes   INTEGER,                       -- of what was sent here last, or registered in the bucket
    md5          TEXT,
    sha256       TEXT,
    content_type TEXT
) STRICT, WITHOUT ROWID;

-- What came of calls that brought an Idempotency-Key, for a day: the same call is answered the same (ingest).
CREATE TABLE repeatable (
    caller      TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint TEXT NOT NULL,                  -- of the request: another one with this key is refused
    assets      TEXT NOT NULL,                  -- JSON: the ids of what was made
    answer      TEXT,                           -- as it was given; absent when the process ended just then
    at          INTEGER NOT NULL,
    PRIMARY KEY (caller, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX repeatable_at ON repeatable (at);

-- What people's data may look like (schemas). Schema 0 is there from the start and never changes.
CREATE TABLE asset_schema (
    id         INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice: assets name it
    name       TEXT NOT NULL,                   -- JSON: language -> text
    status     TEXT NOT NULL CHECK (status IN ('ACTIVE', 'INACTIVE')),
    schema     TEXT NOT NULL,                   -- JSON Schema 2020-12, with filespin_properties
    version    INTEGER NOT NULL DEFAULT 1,      -- raised by each change of the schema: compiled ones are known by it
    creator_id INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;

-- The properties of a schema that can be searched (schemas), drawn from it when it is saved.
CREATE TABLE schema_field (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    schema_id INTEGER NOT NULL REFERENCES asset_schema (id) ON DELETE CASCADE,
    name      TEXT NOT NULL,
    path      TEXT NOT NULL,                    -- for json_extract: $."name"
    kind      TEXT NOT NULL CHECK (kind IN ('text', 'number', 'date', 'boolean')),
    keyword   INTEGER NOT NULL,                 -- its words are found by keyword
    slot      INTEGER,                          -- of searchable text: which column of search_text, 1 to 16
    ranged    INTEGER NOT NULL,                 -- searchable by number: what search_number is about
    UNIQUE (schema_id, name)
) STRICT;
CREATE INDEX schema_field_slot ON schema_field (schema_id, slot) WHERE slot IS NOT NULL;

INSERT INTO asset_schema (id, name, status, schema, creator_id, created_at, changed_at) VALUES (
    0, '{"en":"FileSpin Asset Schema"}', 'ACTIVE',
    '{"$schema":"https://json-schema.org/draft/2020-12/schema","$id":"/api/v1/json-schema/Asset.CustomMetadata.v1.schema.json","type":"object","properties":{"filespin_search_txt":{"type":"string","maxLength":200,"filespin_properties":{"title":{"en":"Search text"},"searchable":true,"keyword_searchable":true,"filterable":false,"facetable":false,"ui":{"order":1,"multiline":false,"readonly":false,"disabled":false,"hidden":false}}}}}',
    0, 0, 0);
INSERT INTO schema_field (schema_id, name, path, kind, keyword, slot, ranged)
VALUES (0, 'filespin_search_txt', '$."filespin_search_txt"', 'text', 1, 1, 0);

-- Stored derivatives of the present revision (assets).
CREATE TABLE conversion (
    asset_id         TEXT NOT NULL REFERENCES asset (id) ON DELETE CASCADE,
    key              TEXT NOT NULL,
    revision         INTEGER NOT NULL,
    extension        TEXT NOT NULL,
    round            INTEGER NOT NULL,          -- that made it, and names its files; 0: people handed it in, and ...
    handed           TEXT,                      -- ... these 16 hex digits name its file
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

-- What somebody said of one content of one asset: whether everybody may read it (assets). It outlives making the content
-- again, and goes when that content is deleted.
CREATE TABLE access_choice (
    asset_id TEXT NOT NULL REFERENCES asset (id) ON DELETE CASCADE,
    key      TEXT NOT NULL,                     -- of a conversion; the original has its own column
    public   INTEGER NOT NULL,
    PRIMARY KEY (asset_id, key)
) STRICT, WITHOUT ROWID;

-- Originals that are, or are to be, elsewhere than on this disk (homes). What has no row is here and stays.
CREATE TABLE object (
    asset_id    TEXT NOT NULL,                  -- no reference: an original outlives its asset until it is swept
    revision    INTEGER NOT NULL,
    size_bytes  INTEGER NOT NULL,
    sha256      TEXT NOT NULL,
    home        TEXT NOT NULL CHECK (home IN ('fs', 's3', 'r2')),
    bucket      TEXT NOT NULL,                  -- as the configuration calls it (storage.name); empty for fs
    goal        TEXT CHECK (goal IN ('fs', 's3', 'r2')), -- where it is to go; absent: it may stay
    goal_bucket TEXT NOT NULL DEFAULT '',
    by_hand     INTEGER NOT NULL DEFAULT 0,     -- moved by the command line, not by the server
    here        INTEGER NOT NULL,               -- a copy on this disk: 0 none, 1 one that may go, 2 one that stays
    since       INTEGER NOT NULL,               -- of that copy
    held        INTEGER NOT NULL DEFAULT 0,     -- 1: a mover is at it; 2: in vain, for it was removed there meanwhile
    turn        INTEGER NOT NULL DEFAULT 0,     -- whose move it is: another number when it is taken, or taken over
    tries       INTEGER NOT NULL DEFAULT 0,     -- to bring it to this goal; without any nothing can lie there
    next_at     INTEGER NOT NULL DEFAULT 0,     -- with a goal: not before this instant
    error       TEXT,                           -- what went wrong last
    PRIMARY KEY (asset_id, revision)
) STRICT, WITHOUT ROWID;
CREATE INDEX object_goal ON object (by_hand, held, next_at) WHERE goal IS NOT NULL;
CREATE INDEX object_copy ON object (since) WHERE here = 1 AND home <> 'fs' AND goal IS NULL;
CREATE INDEX object_failed ON object (next_at) WHERE goal IS NOT NULL AND error IS NOT NULL;

-- What lies in buckets and nobody needs any more (homes). An object is not sent where it still is to be removed, and not
-- removed from where it lies for good.
CREATE TABLE leftover (
    id       INTEGER PRIMARY KEY,
    home     TEXT NOT NULL,
    bucket   TEXT NOT NULL,
    asset_id TEXT NOT NULL,                     -- with the revision: its name
    revision INTEGER NOT NULL,
    next_at  INTEGER NOT NULL                   -- not before this instant; while it is being removed: a little later
) STRICT;
CREATE INDEX leftover_due ON leftover (bucket, next_at);
CREATE INDEX leftover_name ON leftover (asset_id, revision);

-- How many objects and leftovers there are of each sort, and their bytes (homes): what is asked for at every start
-- and at every look at how the box is. The triggers below keep it.
CREATE TABLE object_tally (
    home    TEXT NOT NULL,
    bucket  TEXT NOT NULL,
    what    TEXT NOT NULL,                      -- stays; waits, for the server; by_hand: waits for the command line; left
    here    INTEGER NOT NULL,                   -- as object has it
    objects INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    PRIMARY KEY (home, bucket, what, here)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER object_came AFTER INSERT ON object BEGIN
    INSERT INTO object_tally
    VALUES (new.home, new.bucket, CASE WHEN new.goal IS NULL THEN 'stays' WHEN new.by_hand THEN 'by_hand' ELSE 'waits' END,
            new.here, 1, new.size_bytes)
    ON CONFLICT DO UPDATE SET objects = objects + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER object_went AFTER DELETE ON object BEGIN
    UPDATE object_tally SET objects = objects - 1, bytes = bytes - old.size_bytes
     WHERE home = old.home AND bucket = old.bucket AND here = old.here
       AND what = CASE WHEN old.goal IS NULL THEN 'stays' WHEN old.by_hand THEN 'by_hand' ELSE 'waits' END;
END;
CREATE TRIGGER object_moved AFTER UPDATE OF home, bucket, goal, by_hand, here, size_bytes ON object
WHEN (old.home, old.bucket, old.goal IS NULL, old.by_hand, old.here, old.size_bytes)
  <> (new.home, new.bucket, new.goal IS NULL, new.by_hand, new.here, new.size_bytes) BEGIN
    UPDATE object_tally SET objects = objects - 1, bytes = bytes - old.size_bytes
     WHERE home = old.home AND bucket = old.bucket AND here = old.here
       AND what = CASE WHEN old.goal IS NULL THEN 'stays' WHEN old.by_hand THEN 'by_hand' ELSE 'waits' END;
    INSERT INTO object_tally
    VALUES (new.home, new.bucket, CASE WHEN new.goal IS NULL THEN 'stays' WHEN new.by_hand THEN 'by_hand' ELSE 'waits' END,
            new.here, 1, new.size_bytes)
    ON CONFLICT DO UPDATE SET objects = objects + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER leftover_came AFTER INSERT ON leftover BEGIN
    INSERT INTO object_tally VALUES (new.home, new.bucket, 'left', 0, 1, 0)
    ON CONFLICT DO UPDATE SET objects = objects + 1;
END;
CREATE TRIGGER leftover_went AFTER DELETE ON leftover BEGIN
    UPDATE object_tally SET objects = objects - 1
     WHERE home = old.home AND bucket = old.bucket AND what = 'left' AND here = 0;
END;

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
    event       TEXT NOT NULL,                  -- the notice's, so that the log can be walked by it
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
-- The log, as it is asked for: newest first, of one state, event or URL.
CREATE INDEX delivery_state ON delivery (state, seq);
CREATE INDEX delivery_event ON delivery (event, seq);
CREATE INDEX delivery_url ON delivery (url, seq);
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

-- What the API calls a job: one asked-for batch of work, on one asset or on many (processing).
CREATE TABLE round (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    asset_id     TEXT REFERENCES asset (id) ON DELETE CASCADE, -- NULL: it is about many
    revision     INTEGER,
    creator_id   INTEGER NOT NULL,
    kind         TEXT NOT NULL,                 -- IMAGE, VIDEO_TRANSCODE, BULK_DELETE, BULK_PROCESS, PURGE
    status       TEXT NOT NULL CHECK (status IN ('QUEUED', 'IN_PROGRESS', 'COMPLETED', 'ERROR')),
    requested_at INTEGER NOT NULL,
    completed_at INTEGER,
    input        TEXT NOT NULL DEFAULT '{}',    -- of one about many: what was asked for ...
    outcome      TEXT NOT NULL DEFAULT '{}'     -- ... and what has come of it so far; of one about an asset,
                                                -- what is said of it when it ended without file-processed
) STRICT;
CREATE INDEX round_asset ON round (asset_id);
CREATE INDEX round_creator ON round (creator_id, id);

-- The parts of a round: one for each processing key, or a single one (processing).
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

-- What is searched (search). Nobody writes here but the triggers on `asset`, so that no room has to know of it and
-- nothing is forgotten. An entry has its asset's seq as its key; in the trash, the same below zero: so neither is
-- ever in the other's way, and both are walked newest first.
--
-- The index holds words and not the texts themselves. `facets` are words of ours, each of letters and digits alone:
--   k… the family of the content type     t… the content type, in hex       c… the creator      s… the schema
--   d… e… h…  the day of the upload, since 1970, and the same without its last 5 and 10 bits: a span of time is a
--             handful of these
-- f1 to f16 are the searchable text properties of the asset's schema, by their slot.
CREATE VIRTUAL TABLE search_text USING fts5 (
    name, words, facets,
    f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16,
    content = '', contentless_delete = 1, prefix = '1 2 3', tokenize = 'unicode61 remove_diacritics 2'
);

-- Numbers, dates (as 20241231) and booleans of searchable properties (search).
CREATE TABLE search_number (
    field_id INTEGER NOT NULL,
    value    REAL NOT NULL,
    key      INTEGER NOT NULL,
    PRIMARY KEY (field_id, value, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX search_number_key ON search_number (key, field_id, value);

-- What the two above hold of an asset.
CREATE VIEW search_entry AS SELECT
        seq,
        iif(trashed_at IS NULL, seq, -seq) AS key,
        name,
        (SELECT group_concat(d.value, ' ') FROM json_each(asset.data) d
          WHERE d.type IN ('text', 'integer', 'real')
            AND (d.key = 'filespin_search_txt' OR (asset.data_conforms AND EXISTS (
                SELECT 1 FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.name = d.key AND f.keyword)))
        ) AS words,
        'k' || substr(content_type, 1, instr(content_type || '/', '/') - 1) || ' t' || hex(content_type)
            || ' c' || creator_id || ' s' || data_schema_id
            || ' d' || (max(uploaded_at, 0) / 86400000) || ' e' || (max(uploaded_at, 0) / 86400000 >> 5)
            || ' h' || (max(uploaded_at, 0) / 86400000 >> 10) AS facets,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 1
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f1,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 2
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f2,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 3
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f3,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 4
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f4,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 5
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f5,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 6
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f6,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 7
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f7,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 8
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f8,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 9
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f9,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 10
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f10,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 11
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f11,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 12
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f12,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 13
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f13,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 14
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f14,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 15
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f15,
        (SELECT json_extract(asset.data, f.path) FROM schema_field f WHERE f.schema_id = asset.data_schema_id AND f.slot = 16
          AND asset.data_conforms AND json_type(asset.data, f.path) = 'text') AS f16
    FROM asset;

CREATE VIEW search_entry_number AS
    SELECT asset.seq, f.id AS field_id, iif(asset.trashed_at IS NULL, asset.seq, -asset.seq) AS key,
           CASE f.kind WHEN 'date' THEN CAST(replace(json_extract(asset.data, f.path), '-', '') AS REAL)
                       ELSE CAST(json_extract(asset.data, f.path) AS REAL) END AS value
      FROM asset JOIN schema_field f ON f.schema_id = asset.data_schema_id AND f.ranged AND asset.data_conforms
     WHERE json_type(asset.data, f.path) IN ('integer', 'real', 'true', 'false')
        OR (f.kind = 'date' AND json_type(asset.data, f.path) = 'text');

CREATE TRIGGER search_came AFTER INSERT ON asset BEGIN
    INSERT INTO search_text (rowid, name, words, facets, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16)
    SELECT key, name, words, facets, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16 FROM search_entry WHERE seq = new.seq;
    INSERT INTO search_number (field_id, value, key)
    SELECT field_id, value, key FROM search_entry_number WHERE seq = new.seq;
END;
CREATE TRIGGER search_went AFTER DELETE ON asset BEGIN
    DELETE FROM search_text WHERE rowid = iif(old.trashed_at IS NULL, old.seq, -old.seq);
    DELETE FROM search_number WHERE key = iif(old.trashed_at IS NULL, old.seq, -old.seq);
END;
-- Also fires when such a column is set to what it was: that is how an entry is made anew.
CREATE TRIGGER search_changed AFTER UPDATE OF
    name, data, data_schema_id, data_conforms, trashed_at, content_type, creator_id, uploaded_at ON asset BEGIN
    DELETE FROM search_text WHERE rowid = iif(old.trashed_at IS NULL, old.seq, -old.seq);
    DELETE FROM search_number WHERE key = iif(old.trashed_at IS NULL, old.seq, -old.seq);
    INSERT INTO search_text (rowid, name, words, facets, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16)
    SELECT key, name, words, facets, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16 FROM search_entry WHERE seq = new.seq;
    INSERT INTO search_number (field_id, value, key)
    SELECT field_id, value, key FROM search_entry_number WHERE seq = new.seq;
END;

-- Searches of more than one page, so that the next page is of the same one also after a restart (search). The oldest go.
CREATE TABLE search (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,            -- 32 lower-case hex
    asked      TEXT NOT NULL,                   -- JSON: what was asked, and the newest asset of that moment
    created_at INTEGER NOT NULL
) STRICT;

-- Assets that somebody put together (collections).
CREATE TABLE collection (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id      INTEGER NOT NULL,
    name         TEXT NOT NULL,
    description  TEXT NOT NULL DEFAULT '',
    group_access INTEGER NOT NULL DEFAULT 0,    -- the others may see it and download it
    created_at   INTEGER NOT NULL,
    changed_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX collection_user ON collection (user_id);

CREATE TABLE collection_asset (
    collection_id INTEGER NOT NULL REFERENCES collection (id) ON DELETE CASCADE,
    position      INTEGER NOT NULL,             -- the order they were named in
    asset_id      TEXT NOT NULL REFERENCES asset (id) ON DELETE CASCADE,
    PRIMARY KEY (collection_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX collection_asset_asset ON collection_asset (asset_id);

-- CRC-32 of originals, which an archive says before their bytes (collections). Filled when it is first needed.
CREATE TABLE original_crc (
    asset_id   TEXT NOT NULL REFERENCES asset (id) ON DELETE CASCADE,
    revision   INTEGER NOT NULL,
    crc32      INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (asset_id, revision)
) STRICT, WITHOUT ROWID;

-- Uploads that come in pieces, by their addresses (ingest). What has come lies in staging; after the last piece it
-- becomes the asset of the same id. Those that are gone are remembered for a while.
CREATE TABLE resumable (
    id             TEXT PRIMARY KEY,
    user_id        INTEGER NOT NULL,
    upload_key_id  INTEGER,                     -- of the upload key by which it began: that may describe the asset
    kind           TEXT NOT NULL CHECK (kind IN ('whole', 'part', 'joined')),
    state          TEXT NOT NULL CHECK (state IN ('open', 'finished', 'gone')),
    length_bytes   INTEGER,                     -- absent until the sender knows
    offset_bytes   INTEGER NOT NULL DEFAULT 0,  -- so many are on the disk, flushed before this was written
    most_bytes     INTEGER NOT NULL,            -- the length may not be more
    name           TEXT NOT NULL,
    data           TEXT NOT NULL,               -- JSON
    data_schema_id INTEGER NOT NULL,
    source         TEXT,
    said           TEXT NOT NULL,               -- what the sender said about it, word for word
    parts          TEXT NOT NULL DEFAULT '[]',  -- JSON: what it is joined of
    parts_said     TEXT NOT NULL DEFAULT '',
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX resumable_expires ON resumable (expires_at);
CREATE INDEX resumable_joined ON resumable (user_id) WHERE kind = 'joined';
-- What people call an asset, beside the data that schemas judge (catalogue). Absent where nobody said anything.
CREATE TABLE caption (
    asset_id     TEXT PRIMARY KEY REFERENCES asset (id) ON DELETE CASCADE,
    name         TEXT,                          -- absent: the file's
    body         TEXT,
    author       TEXT,
    reference_id TEXT,                          -- what another system knows it by; not unique
    announced    INTEGER NOT NULL DEFAULT 0     -- its coming was told when it came, not when it was looked at
) STRICT, WITHOUT ROWID;
CREATE INDEX caption_reference ON caption (reference_id) WHERE reference_id IS NOT NULL;

-- Words under which assets are put (catalogue). One that is used for the first time is made.
CREATE TABLE tag (
    id         TEXT PRIMARY KEY,                -- 32 lower-case hex
    slug       TEXT NOT NULL UNIQUE,            -- the text in lower-case letters, digits and dashes: what makes two the same
    body       TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE asset_tag (
    asset_id TEXT NOT NULL REFERENCES asset (id) ON DELETE CASCADE,
    tag_id   TEXT NOT NULL REFERENCES tag (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    PRIMARY KEY (asset_id, tag_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX asset_tag_tag ON asset_tag (tag_id);

-- Assets put together without end, by everybody for everybody (catalogue).
CREATE TABLE album (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,            -- 32 lower-case hex
    body       TEXT NOT NULL,
    cover      TEXT REFERENCES asset (id) ON DELETE SET NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;
CREATE TABLE album_asset (
    album_id TEXT NOT NULL REFERENCES album (id) ON DELETE CASCADE,
    asset_id TEXT NOT NULL REFERENCES asset (id) ON DELETE CASCADE,
    PRIMARY KEY (album_id, asset_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX album_asset_asset ON album_asset (asset_id);
CREATE INDEX album_cover ON album (cover) WHERE cover IS NOT NULL;

-- What a listing of the catalogue is asked by (catalogue).
CREATE VIEW catalogue_entry AS
    SELECT asset.seq, asset.id, asset.uploaded_at AS created_at, asset.updated_at AS changed_at,
           iif(asset.content_type LIKE 'image/%', 'Photo', iif(asset.content_type LIKE 'video/%', 'Video',
               iif(asset.content_type LIKE 'audio/%', 'Audio', 'Document'))) AS kind,
           asset.name AS file_name, caption.name, caption.body, caption.author, caption.reference_id
      FROM asset LEFT JOIN caption ON caption.asset_id = asset.id
     WHERE asset.trashed_at IS NULL;

-- Uploads in phases: chunks that say no offset are put one after the other (ingest). The bytes lie in staging.
CREATE TABLE phased (
    id           TEXT PRIMARY KEY,              -- of the asset that it becomes
    user_id      INTEGER NOT NULL,
    size_bytes   INTEGER NOT NULL,              -- as declared
    offset_bytes INTEGER NOT NULL DEFAULT 0,    -- on the disk, flushed
    last_bytes   INTEGER NOT NULL DEFAULT 0,    -- of the last chunk ...
    last_sha256  TEXT NOT NULL DEFAULT '',      -- ... so that it is known when it comes again
    overflowed   INTEGER NOT NULL DEFAULT 0,    -- more came than was declared: a chunk may be in it twice
    name         TEXT,                          -- what its owner calls the file, once that was said
    label        TEXT,                          -- what was said it would be
    draft        TEXT NOT NULL,                 -- JSON: what was said about it
    created_at   INTEGER NOT NULL,
    touched_at   INTEGER NOT NULL               -- a while after this it is given up
) STRICT, WITHOUT ROWID;
