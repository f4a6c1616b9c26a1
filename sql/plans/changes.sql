-- changes: queries that got another plan, the newest first
-- $1 float8: over how many seconds
-- $2 int: how many at most
-- $3 text: of one query only; null: of all
-- locks: none
select extract(epoch from c.at)::float8 as at, c.changed as fingerprint, c.query, c.plan_before, c.plan_after,
    c.calls_before, c.p50_before as p50_ms_before, c.p95_before as p95_ms_before,
    c.calls_after, c.p50_after as p50_ms_after, c.p95_after as p95_ms_after
from pipeline.plan_changes(make_interval(secs => $1), $2, $3) as c
