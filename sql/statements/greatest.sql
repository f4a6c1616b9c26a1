-- greatest: what pg_stat_statements counted over a while, the statements that took most time first
-- $1 float8: how long, in seconds
-- $2 int: how many at most
-- locks: none
select fingerprint, queryids, text as query, calls, total_ms, mean_ms, max_ms, rows, share, shared_hit, shared_read,
    shared_dirtied, shared_written, temp_read, temp_written, read_ms, write_ms, wal_bytes, plans, plan_ms, seconds, lost
from pipeline.statements(make_interval(secs => $1), $2)
