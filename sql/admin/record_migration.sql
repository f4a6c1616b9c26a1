-- record_migration: notes that a file was applied; one that repeats replaces its row
-- $1 text: the file's name
-- $2 text: its sha256
-- $3 float8: how long it took, in milliseconds
-- locks: the row
insert into pipeline.migration (name, checksum, ms)
values ($1, $2, $3)
on conflict (name) do update set checksum = excluded.checksum, ms = excluded.ms, applied_at = now()
