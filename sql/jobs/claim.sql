-- claim: hands out up to $2 jobs of a queue, from its first lane that has any, as one lease; writes no job row
-- $1 text: queue   $2 bigint: how many at most   $3 bigint: worker
-- locks: the lane's row, SKIP LOCKED: a lane that another claim holds is passed over
-- index: job_ready
with lane as materialized (
    select l.queue, l.priority, l.mark
    from pipeline.lane l
    where l.queue = $1
        and exists (
            select from pipeline.job j where j.queue = l.queue and j.priority = l.priority and j.pos > l.mark
        )
    order by l.priority
    limit 1
    for update skip locked
), picked as materialized (
    select j.*
    from lane
    cross join lateral (
        select j.*
        from pipeline.job j
        where j.queue = lane.queue and j.priority = lane.priority and j.pos > lane.mark
        order by j.pos
        limit $2
    ) j
), advanced as (
    update pipeline.lane l
    set mark = (select max(pos) from picked)
    from lane
    where l.queue = lane.queue and l.priority = lane.priority and exists (select from picked)
), leased as (
    insert into pipeline.lease (worker, queue, priority, made_at, ids)
    select $3, p.queue, p.priority, pipeline.now(), array_agg(p.id)
    from picked p
    group by p.queue, p.priority
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
