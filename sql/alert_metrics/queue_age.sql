-- queue_age: how long the oldest job of each queue has waited that may run and was not handed out
-- locks: none
-- Two looks into an index for each lane. Jobs of queues that are paused may not run.
select jsonb_build_object('queue', l.queue) as labels,
    greatest(0, extract(epoch from max(pipeline.now() - j.run_at)))::float8 as value, count(*) as samples, '' as detail
from pipeline.lane as l
left join lateral (
    select s.mark from pipeline.lane_state as s
    where s.queue = l.queue and s.priority = l.priority and s.key = l.key
    order by s.n desc
    limit 1
) as s on true
left join lateral (
    select j.run_at from pipeline.job as j
    where j.queue = l.queue and j.priority = l.priority and j.key = l.key
      and j.pos > coalesce(s.mark, 0) and j.pos <= coalesce(l.last_pos, 9223372036854775807)
    order by j.pos
    limit 1
) as j on true
group by l.queue
