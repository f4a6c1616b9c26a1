-- declare: what a program has in its code; returns the names that SQL has taken already
-- $1 jsonb: schedules as a JSON array of {name, task, args, queue, priority, cron, timezone, missed, max_missed}
-- locks: the rows
with told as materialized (
    select t.*
    from jsonb_to_recordset($1) as t (
        name text, task text, args jsonb, queue text, priority smallint, cron text, timezone text, missed text, max_missed int
    )
    order by t.name
),
known as (
    insert into pipeline.schedule as s (
        name, task, args, queue, priority, cron, timezone, missed, max_missed, source, until, created_at, seen_at
    )
    select
        t.name, t.task, t.args, t.queue, t.priority, t.cron, t.timezone, t.missed, t.max_missed, 'code',
        pipeline.now(), pipeline.now(), pipeline.now()
    from told t
    on conflict (name) do update set
        task = excluded.task, args = excluded.args, queue = excluded.queue, priority = excluded.priority,
        cron = excluded.cron, timezone = excluded.timezone, missed = excluded.missed, max_missed = excluded.max_missed,
        seen_at = excluded.seen_at,
        until = case when (s.cron, s.timezone) = (excluded.cron, excluded.timezone) then s.until
                     else greatest(s.until, excluded.until) end,
        next_at = null, problem = null
    where s.source = 'code'
    returning s.name
)
select t.name from told t where t.name not in (select k.name from known k)
