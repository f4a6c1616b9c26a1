-- show: everything about one job, whether it has ended or not; no row when nothing is known of it (any more)
-- $1 bigint: job
-- locks: none
with found as (
    select
        j.id, null as ended, j.task, j.queue, j.priority, j.key, j.attempt, j.max_attempts, j.lost, j.needs, j.pos, j.args,
        j.created_at, j.run_at, j.expires_at, j.timeout, null::timestamptz as started_at, null::timestamptz as finished_at,
        null::float8 as ms, null::bigint as worker, null::jsonb as result, j.error, j.workflow
    from pipeline.job j where j.id = $1
    union all
    select
        a.id, a.state, a.task, a.queue, a.priority, a.key, a.attempt, a.max_attempts, a.lost, 0, null, a.args,
        a.created_at, a.run_at, a.expires_at, a.timeout, a.started_at, a.finished_at, a.ms, a.worker, a.result, a.error,
        a.workflow
    from pipeline.job_archive a where a.id = $1
)
select
    f.id,
    coalesce(f.ended, case
        when f.needs > 0 then 'blocked' when f.pos is null then 'delayed' when e.id is not null then 'running' else 'ready'
    end) as state,
    f.task, f.queue, f.priority, f.key, f.attempt, f.max_attempts, f.lost, f.needs, f.args::text as args, t.redact,
    extract(epoch from f.created_at)::float8 as created_at, extract(epoch from f.run_at)::float8 as run_at,
    extract(epoch from f.expires_at)::float8 as expires_at, extract(epoch from f.timeout)::float8 as timeout,
    extract(epoch from f.started_at)::float8 as started_at, extract(epoch from f.finished_at)::float8 as finished_at,
    f.ms, f.result::text as result, f.error, f.workflow, e.id as lease, w.name as worker,
    extract(epoch from pipeline.now() - w.seen_at)::float8 as worker_seen_ago,
    s.done, s.total, s.note
from found f
left join lateral (
    select l.id, l.worker from pipeline.lease l
    where f.ended is null and l.queue = f.queue and l.priority = f.priority and l.key = f.key and f.id = any(l.ids)
    limit 1
) e on true
left join pipeline.worker w on w.id = coalesce(f.worker, e.worker)
left join pipeline.job_state s on s.job = f.id
left join pipeline.task t on t.name = f.task
order by f.finished_at desc nulls first
limit 1
