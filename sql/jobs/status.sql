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
    q.queue,
    count(j.queue) filter (where not j.delayed and not j.running) as ready,
    count(j.queue) filter (where j.delayed) as delayed,
    count(j.queue) filter (where j.running) as running,
    extract(epoch from pipeline.now() - min(j.run_at) filter (where not j.delayed and not j.running))::float8 as oldest
from names q
left join jobs j on j.queue = q.queue
where q.queue is not null
group by q.queue
order by q.queue
