-- shared_get: the row of a key; where there is none, the right to load it, or how long to wait for who has it
-- $1 bytea: the key
-- $2 text: the epoch
-- $3 bigint, $4 text: version and snapshot of a row that cannot be used; null for none
-- $5 bigint: who loads, if it comes to that
-- $6 float8: for how many seconds at most
-- locks: a row of pipeline.cache_lease
select version, snapshot, upper, tags, value, load_ms, left_s, wait_s
from pipeline.cache_get($1, $2, $3, $4, $5, $6)
