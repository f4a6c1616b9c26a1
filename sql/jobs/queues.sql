-- queues: every queue that has or had a job or a setting, with what is set for it
-- locks: none
-- Goes from name to name by the index, past however many lanes a queue has.
with recursive names as (
    (select l.queue from pipeline.lane l order by l.queue limit 1)
    union all
    select (select l.queue from pipeline.lane l where l.queue > n.queue order by l.queue limit 1)
    from names n where n.queue is not null
)
select
    n.queue, coalesce(q.state, 'running') as state, q.concurrency, q.rate, q.rate_seconds, q.slots,
    coalesce(q.weight, 1) as weight
from (select queue from names where queue is not null union select name from pipeline.queue) n
left join pipeline.queue q on q.name = n.queue
order by n.queue
