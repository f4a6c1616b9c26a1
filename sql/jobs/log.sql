-- log: adds lines to the jobs' own logs, but only of jobs whose lease the worker still holds
-- $1 bigint[]: jobs   $2 bigint[]: the lease of each   $3 bigint: worker   $4 int[]: attempts   $5 float8[]: Unix seconds
-- $6 text[]: levels   $7 text[]: messages
-- locks: the leases, KEY SHARE
with held as materialized (
    select l.id, l.ids from pipeline.lease l where l.id = any($2::bigint[]) and l.worker = $3 order by l.id for key share
)
insert into pipeline.job_log (job, attempt, at, level, message)
select g.job, g.attempt, to_timestamp(g.at), g.level, g.message
from unnest($1::bigint[], $2::bigint[], $4::int[], $5::float8[], $6::text[], $7::text[])
    as g (job, lease, attempt, at, level, message)
join held h on h.id = g.lease and g.job = any(h.ids)
where exists (select from pipeline.job j where j.id = g.job)
