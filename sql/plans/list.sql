-- list: the plans of a query, the newest first
-- $1 text: the fingerprint
-- $2 bigint: how many at most
-- locks: none
-- index: plan_fingerprint
select p.fingerprint, p.shape, p.summary, p.kind, p.plan::text as plan, p.settings::text as settings, p.times, p.slowest_ms,
    extract(epoch from p.first_at)::float8 as first_at, extract(epoch from p.last_at)::float8 as last_at
from pipeline.plan as p
where p.fingerprint = $1
order by p.first_at desc, p.id desc
limit $2
