-- status: how many jobs of each queue may run, wait for their time, and are held by a worker
-- locks: none
with leased as materialized (
    select unnest(e.ids) as id from pipeline.lease e
), jobs as (
    select j.queue, j.run_at, j.pos is null as delayed, j.id in (select l.id from leased l) as running from pipeline.job j
)
select
    q.queue,
    count(j.queue) filter (where not j.delayed and not j.running) as ready,
    count(j.queue) filter (where j.delayed) as delayed,
    count(j.queue) filter (where j.running) as running,
    extract(epoch from pipeline.now() - min(j.run_at) filter (where not j.delayed and not j.running))::float8 as oldest
from (select distinct l.queue from pipeline.lane l) q
left join jobs j on j.queue = q.queue
group by q.queue
order by q.queue
