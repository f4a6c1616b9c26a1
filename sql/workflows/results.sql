-- results: how the jobs ended that a job has waited for, in the order in which they were added
-- $1 bigint: job
-- locks: none
select w.id, w.name, w.state, w.result
from pipeline.job_need n
join pipeline.workflow_job w on w.id = n.needed
where n.job = $1
order by w.id
