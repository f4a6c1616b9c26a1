-- list: all schedules, or those of one name
-- $1 text: name, or null   $2 float8: seconds after which one that no daemon has in its code any more is stale
-- locks: none
select
    s.name, s.task, s.args::text as args, t.redact, s.queue, s.priority, s.cron, s.timezone, s.missed, s.max_missed,
    s.paused, s.source,
    extract(epoch from s.until)::float8 as until,
    extract(epoch from s.last_at)::float8 as last_at,
    extract(epoch from s.created_at)::float8 as created_at,
    s.skipped, s.problem,
    extract(epoch from s.forgotten)::float8 as forgotten,
    s.source = 'code' and s.seen_at <= pipeline.now() - make_interval(secs => $2) as stale,
    extract(epoch from pipeline.now())::float8 as now
from pipeline.schedule as s
left join pipeline.task as t on t.name = s.task
where $1::text is null or s.name = $1
order by s.name
