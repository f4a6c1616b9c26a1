-- runs: the newest runs of a schedule, the newest first, and how each stands
-- $1 text: schedule   $2 bigint: how many
-- locks: none
select
    extract(epoch from r.at)::float8 as at,
    extract(epoch from r.made_at)::float8 as made_at,
    r.job,
    case
        when r.job is null then 'not added'
        when j.id is not null then 'waiting or running'
        else coalesce((select a.state from pipeline.job_archive as a where a.id = r.job limit 1), 'archived')
    end as state
from pipeline.schedule_run as r
left join pipeline.job as j on j.id = r.job
where r.name = $1
order by r.at desc
limit $2
