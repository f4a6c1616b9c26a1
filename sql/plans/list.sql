-- list: the plans of a query, the newest first
-- $1 text: the fingerprint
-- $2 int: how many at most
-- locks: none
select p.shape, p.summary, p.kind, p.plan::text as plan, p.settings::text as settings, p.times,
    p.slowest as slowest_ms, extract(epoch from p.first_at)::float8 as first_at,
    extract(epoch from p.last_at)::float8 as last_at
from pipeline.query_plans($1, $2) as p
