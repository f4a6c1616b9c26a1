-- stage: where a job is that has not ended, and how far; no row when it has
-- $1 bigint: job
-- locks: none
select
    case
        when j.needs > 0 then 'blocked' when j.pos is null then 'delayed' when pipeline.is_held(j) then 'running' else 'ready'
    end as state,
    j.attempt, j.error, s.done, s.total, s.note
from pipeline.job j
left join pipeline.job_state s on s.job = j.id
where j.id = $1
