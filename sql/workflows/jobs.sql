-- jobs: the jobs of a workflow, in the order in which they were added; those that did not finish come first
-- $1 bigint: workflow   $2 bigint: how many at most
-- locks: none
with shown as materialized (
    select w.*
    from pipeline.workflow_job w
    where w.workflow = $1
    order by w.state is not distinct from 'finished', w.state is null, w.id
    limit $2
)
select
    s.id, s.name, s.task,
    coalesce(s.state, case
        when j.id is null then 'ended' -- a moment ago: its note has not been read
        when j.needs > 0 then 'waiting'
        when j.pos is null then 'delayed'
        when j.id in (select unnest(e.ids) from pipeline.lease e) then 'running'
        else 'ready'
    end) as state,
    coalesce(j.needs, 0) as needs,
    coalesce(j.error, a.error) as error
from shown s
left join pipeline.job j on j.id = s.id
left join lateral (
    select a.error from pipeline.job_archive a
    where a.id = s.id and a.finished_at = s.finished_at and s.state <> 'finished' limit 1
) a on true
order by s.state is not distinct from 'finished', s.state is null, s.id
