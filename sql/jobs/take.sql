-- take: hands out stragglers as one lease
-- $1 text: queue   $2 smallint: priority   $3 bigint: worker   $4 bigint[]: what `look` found   $5 bigint: the lane's mark
-- Must follow `lock_lane` in the same transaction as a statement of its own: the lock sees the newest mark, and only
-- a snapshot taken after it sees every lease that belongs to that mark. In one statement jobs are handed out twice.
-- index: job_pkey
-- locks: none beyond the lane's
with named as materialized (
    select j.* from pipeline.job j where j.id = any($4::bigint[]) -- apart, or a planner misled would read the whole lane
), picked as materialized (
    select j.*
    from named j
    where j.queue = $1 and j.priority = $2 and j.pos <= $5
        and j.id not in (select unnest(e.ids) from pipeline.lease e where e.queue = $1 and e.priority = $2)
), leased as (
    insert into pipeline.lease (worker, queue, priority, made_at, ids)
    select $3, $1, $2, pipeline.now(), array_agg(p.id) from picked p having count(*) > 0
    returning id
)
select
    (select id from leased) as lease, p.id, p.task, p.args, p.queue, p.priority, p.attempt, p.max_attempts,
    extract(epoch from p.timeout)::float8 as timeout,
    extract(epoch from p.created_at)::float8 as created_at,
    extract(epoch from p.run_at)::float8 as run_at,
    extract(epoch from (select pipeline.now()) - p.run_at)::float8 as waited
from picked p
order by p.pos
