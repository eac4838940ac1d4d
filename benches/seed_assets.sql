-- Fills an empty archive with :count assets that are OK and have no files, for `first_thumbnail.py`.
--
-- It knows two tables of schema.sql, `asset` and `journal`, and no more than their columns. Ids and digests are
-- random, so that the indexes are as untidy as in life. Run with SQLite 3.37 or newer (STRICT tables).

WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :count)
INSERT INTO asset (id, status, name, size_bytes, md5, sha256, content_type, on_demand, creator_id, updater_id,
                   uploaded_at, updated_at, data, facts)
SELECT lower(hex(randomblob(16))), 'OK', printf('IMG_%06d.JPG', n), 3000000 + n, lower(hex(randomblob(16))),
       lower(hex(randomblob(32))), 'image/jpeg', 1, 1, 1, 1700000000000 + n * 1000, 1700000000000 + n * 1000,
       printf('{"project":"event %d"}', n / 500), '{"width":6000,"height":4000,"Make":"Canon","Model":"EOS R5"}'
FROM number;

INSERT INTO journal (at, asset_id, event)
SELECT updated_at, id, 'file-processed' FROM asset;
