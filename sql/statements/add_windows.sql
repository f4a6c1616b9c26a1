-- add_windows: adds what statements did to their window of a minute
-- $1 float8: the start of the window, in Unix seconds
-- $2 oid[]: userids
-- $3 bigint[]: queryids
-- $4 bool[]: whether at the top level
-- $5 float8[]: low bounds of the longest call
-- $6 float8[]: high bounds of the longest call
-- $7 float8[]: the counters of all, one after the other
-- $8 int: how many counters each has
-- locks: the rows
insert into pipeline.statement_window as w (
    seconds, start, userid, queryid, toplevel, low_max, high_max, calls, total_ms, rows,
    shared_hit, shared_read, shared_dirtied, shared_written, temp_read, temp_written,
    read_ms, write_ms, wal_bytes, plans, plan_ms
)
select 60, to_timestamp($1::float8), g.userid, g.queryid, g.toplevel, g.low_max, g.high_max,
    c.c[1], c.c[2], c.c[3], c.c[4], c.c[5], c.c[6], c.c[7], c.c[8], c.c[9], c.c[10], c.c[11], c.c[12], c.c[13], c.c[14]
from unnest($2::oid[], $3::bigint[], $4::bool[], $5::float8[], $6::float8[]) with ordinality as g (userid, queryid, toplevel, low_max, high_max, n)
cross join lateral (select ($7::float8[])[(g.n - 1) * $8::int + 1 : g.n * $8::int] as c) as c
on conflict (seconds, start, queryid, userid, toplevel) do update
    set calls = w.calls + excluded.calls, total_ms = w.total_ms + excluded.total_ms,
        rows = w.rows + excluded.rows, shared_hit = w.shared_hit + excluded.shared_hit,
        shared_read = w.shared_read + excluded.shared_read,
        shared_dirtied = w.shared_dirtied + excluded.shared_dirtied,
        shared_written = w.shared_written + excluded.shared_written,
        temp_read = w.temp_read + excluded.temp_read, temp_written = w.temp_written + excluded.temp_written,
        read_ms = w.read_ms + excluded.read_ms, write_ms = w.write_ms + excluded.write_ms,
        wal_bytes = w.wal_bytes + excluded.wal_bytes, plans = w.plans + excluded.plans,
        plan_ms = w.plan_ms + excluded.plan_ms, low_max = greatest(w.low_max, excluded.low_max),
        high_max = greatest(w.high_max, excluded.high_max)
