-- list_live: the newest jobs that have not ended and that a filter means
-- $1 bigint: ids below this one   $2 text[]: states, or null   $3 text[]: queues, as patterns of LIKE, or null
-- $4 text[]: tasks, likewise   $5 text[]: keys, likewise   $6 text: part of the error in small letters, or null
-- $7 float8: added within so many seconds, or null   $8 int: so many   $9 bool: without arguments
-- locks: none
-- Planned anew for each call: then only the conditions that are given are left of it, and those for one state meet an index.
with leased as materialized (
    select unnest(e.ids) as id from pipeline.lease e
)
select
    j.id, s.state, j.task, j.queue, j.priority, j.key, j.attempt, j.max_attempts, j.error, t.redact,
    case when not $9 then j.args::text end as args,
    extract(epoch from j.created_at)::float8 as created_at, extract(epoch from j.run_at)::float8 as run_at
from pipeline.job j
cross join lateral (
    select case
        when j.needs > 0 then 'blocked' when j.pos is null then 'delayed'
        when j.id in (select l.id from leased l) then 'running' else 'ready'
    end as state
) s
left join pipeline.task t on t.name = j.task
where j.id < $1
    and ($2::text[] is null or s.state = any($2::text[]))
    and ($2::text[] is distinct from '{running}' or j.id = any(array(select l.id from leased l)))
    and ($2::text[] is distinct from '{delayed}' or j.pos is null and j.needs = 0)
    and ($3::text[] is null or j.queue like any($3::text[]))
    and ($4::text[] is null or j.task like any($4::text[]))
    and ($5::text[] is null or j.key like any($5::text[]))
    and ($6::text is null or position($6::text in lower(j.error)) > 0)
    and ($7::float8 is null or j.created_at >= (select pipeline.now()) - make_interval(secs => $7::float8))
order by j.id desc
limit $8::int
