-- failed_lately: how many jobs of each queue have failed for good in the last 24 hours
-- locks: none
select a.queue, count(*) as failed
from pipeline.job_archive a
where a.state = 'failed' and a.finished_at > (select pipeline.now()) - interval '1 day'
group by a.queue
