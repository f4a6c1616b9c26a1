-- status: how many jobs of each queue may run, wait for their time, and are held by a worker
-- locks: none
with recursive leased as materialized (
    select unnest(e.ids) as id from pipeline.lease e
), jobs as (
    select j.queue, j.run_at, j.pos is null as delayed, j.id in (select l.id from leased l) as running from pipeline.job j
), names as (
    (select l.queue from pipeline.lane l order by l.queue limit 1)
    union all
    select (select l.queue from pipeline.lane l where l.queue > n.queue order by l.queue limit 1)
    from names n where n.queue is not null
)
select
    coalesce(q.queue, c.queue) as queue,
    coalesce(c.ready, 0) as ready, coalesce(c.delayed, 0) as delayed, coalesce(c.running, 0) as running,
    extract(epoch from pipeline.now() - c.first)::float8 as oldest
from (select queue from names where queue is not null) q
full join (
    -- also queues whose lane no worker has made yet
    select
        j.queue,
        count(*) filter (where not j.delayed and not j.running) as ready,
        count(*) filter (where j.delayed) as delayed,
        count(*) filter (where j.running) as running,
        min(j.run_at) filter (where not j.delayed and not j.running) as first
    from jobs j
    group by j.queue
) c on c.queue = q.queue
order by 1
