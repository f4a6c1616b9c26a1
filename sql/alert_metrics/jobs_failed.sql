-- jobs_failed: how many jobs of each queue failed for good in a window
-- $1 float8: its end, in seconds since the epoch
-- $2 int: its length in seconds
-- locks: none
select jsonb_build_object('queue', a.queue) as labels, count(*)::float8 as value, count(*) as samples,
    format('the last one: job %s of %s', max(a.id), (array_agg(a.task order by a.id desc))[1]) as detail
from pipeline.job_archive as a
where a.state = 'failed'
  and a.finished_at >= to_timestamp($1::float8 - $2::int) and a.finished_at < to_timestamp($1::float8)
group by a.queue
