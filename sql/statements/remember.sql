-- remember: stores the counters that have changed since the last look
-- $1 oid[]: userids
-- $2 bigint[]: queryids
-- $3 bool[]: whether at the top level
-- $4 float8[]: since when they count, as Unix seconds
-- $5 float8[]: the same of the maximum
-- $6 float8[]: the maximum
-- $7 float8[]: the counters of all, one after the other
-- $8 int: how many counters each has
-- locks: the rows
insert into pipeline.statement_seen (userid, queryid, toplevel, since, max_since, max_ms, counters)
select g.userid, g.queryid, g.toplevel, g.since, g.max_since, g.max_ms,
    ($7::float8[])[(g.n - 1) * $8::int + 1 : g.n * $8::int]
from unnest($1::oid[], $2::bigint[], $3::bool[], $4::float8[], $5::float8[], $6::float8[]) with ordinality
    as g (userid, queryid, toplevel, since, max_since, max_ms, n)
on conflict (queryid, userid, toplevel) do update
    set since = excluded.since, max_since = excluded.max_since, max_ms = excluded.max_ms,
        counters = excluded.counters
