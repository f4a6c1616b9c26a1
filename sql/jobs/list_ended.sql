-- list_ended: the newest jobs of a range of ids that have ended and that a filter means
-- $1 bigint: ids below this one   $2 text[]: states, or null   $3 text[]: queues, as patterns of LIKE, or null
-- $4 text[]: tasks, likewise   $5 text[]: keys, likewise   $6 text: part of the error in small letters, or null
-- $7 float8: ended within so many seconds, or null   $8 int: so many   $9 bool: without arguments
-- $10 bigint: ids from this one on
-- locks: none
-- Planned anew for each call, as list_live. A range of ids is found by block ranges, failed jobs by their own index, and
-- with a time the days before it are not read.
select
    a.id, a.state, a.task, a.queue, a.priority, a.key, a.attempt, a.max_attempts, a.error, t.redact,
    case when not $9 then a.args::text end as args,
    extract(epoch from a.created_at)::float8 as created_at, extract(epoch from a.run_at)::float8 as run_at,
    extract(epoch from a.finished_at)::float8 as finished_at, a.ms
from pipeline.job_archive a
left join pipeline.task t on t.name = a.task
where a.id < $1 and a.id >= $10
    and ($2::text[] is null or a.state = any($2::text[]))
    and ($3::text[] is null or a.queue like any($3::text[]))
    and ($4::text[] is null or a.task like any($4::text[]))
    and ($5::text[] is null or a.key like any($5::text[]))
    and ($6::text is null or position($6::text in lower(a.error)) > 0)
    and ($7::float8 is null or a.finished_at >= (select pipeline.now()) - make_interval(secs => $7::float8))
order by a.id desc
limit $8::int
