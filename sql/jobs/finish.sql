-- finish: moves ended jobs to the archive, but only those whose lease the worker still holds
-- $1 bigint[]: jobs   $2 bigint[]: the lease of each   $3 bigint: worker
-- $4 text[]: finished, failed, cancelled or expired
-- $5 jsonb[]: result or null   $6 text[]: error or null   $7 float8[]: seconds since the run began
-- $8 float8[]: how many milliseconds it took   $9 bigint[]: leases that hold nothing more after this
-- Returns how many ended in each state.
-- locks: the leases, KEY SHARE: a rescue that deletes one either comes first, and nothing is finished, or waits; the jobs
with given as (
    select g.*
    from unnest($1::bigint[], $2::bigint[], $4::text[], $5::jsonb[], $6::text[], $7::float8[], $8::float8[])
        as g (id, lease, state, result, error, ago, ms)
), held as materialized (
    select l.id, l.counted, l.ids from pipeline.lease l
    where l.id = any($2::bigint[]) and l.worker = $3
    order by l.id
    for key share
), gone as (
    delete from pipeline.job j
    using given g, held h
    where h.id = g.lease and j.id = g.id
        -- Not what was given back, or was cancelled and runs again under another lease. `is true` keeps it a hashed look:
        -- as a join it might read the list anew for every job (800,000 instructions each in place of 10,000).
        and ((g.lease, g.id) in (select m.id, unnest(m.ids) from held m)) is true
    returning
        j.id, j.queue, j.priority, j.task, j.args, g.state, j.attempt, j.max_attempts, j.created_at, j.run_at,
        j.key, j.lost, j.workflow, j.expires_at, j.timeout, g.ago, g.ms, g.result, g.error
), archived as (
    insert into pipeline.job_archive (
        id, queue, priority, task, args, state, attempt, max_attempts, created_at, run_at,
        key, lost, workflow, expires_at, timeout, started_at, finished_at, ms, worker, result, error
    )
    select
        g.id, g.queue, g.priority, g.task, g.args, g.state, g.attempt, g.max_attempts, g.created_at, g.run_at,
        g.key, g.lost, g.workflow, g.expires_at, g.timeout,
        -- as a subquery, or the function would be called for every job, which costs as much as the insert
        (select pipeline.now()) - make_interval(secs => g.ago), (select pipeline.now()), g.ms, $3, g.result, g.error
    from gone g
    returning state
), taken_off as (
    -- where limits count them, the others of the lease go on holding their places
    update pipeline.lease l
    set ids = array(select i from unnest(l.ids) i where i not in (select g.id from given g))
    from held h
    where l.id = h.id and h.counted and l.id <> all($9::bigint[])
), freed as (
    -- the count makes this wait for the rest: a lease deleted first could not be locked any more
    delete from pipeline.lease l where l.id = any($9::bigint[]) and l.worker = $3 and (select count(*) from archived) >= 0
)
select
    count(*) filter (where state = 'finished') as finished, count(*) filter (where state = 'failed') as failed,
    count(*) filter (where state = 'cancelled') as cancelled, count(*) filter (where state = 'expired') as expired
from archived
