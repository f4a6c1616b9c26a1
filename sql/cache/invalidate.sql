-- invalidate: says to every cache that tags have changed; returns the transaction that says so
-- $1 text[]: the tags, or null
-- $2 text: what the tags begin with, or null
-- locks: none
select pg_current_xact_id()::text::bigint as xid, pipeline.invalidate($1, $2)
