-- rescue: takes the leases of workers that have not been seen for $1 seconds, and gives their jobs another attempt
-- $1 float8: seconds   $2 bigint: leases at most
-- locks: the leases, SKIP LOCKED: one that its worker is using this moment is left for the next time; the jobs
-- Jobs without attempts left go to the archive as failed. Returns how many were given back, and how many failed.
with dead as materialized (
    select l.id, l.ids, l.worker
    from pipeline.lease l
    where not exists (
        select from pipeline.worker w
        where w.id = l.worker and w.seen_at > (select pipeline.now()) - make_interval(secs => $1)
    )
    order by l.id
    limit $2
    for update skip locked
), freed as (
    delete from pipeline.lease l using dead d where l.id = d.id returning d.ids, d.worker
), lost as materialized (
    select j.id, f.worker, j.attempt >= j.max_attempts as last
    from (select unnest(ids) as id, worker from freed) f
    join pipeline.job j on j.id = f.id
), again as (
    update pipeline.job j
    set attempt = j.attempt + 1, pos = nextval('pipeline.job_pos'), run_at = (select pipeline.now()),
        error = 'worker ' || l.worker || ' was not seen any more while it held this job'
    from lost l
    where j.id = l.id and not l.last
    returning 1
), gone as (
    delete from pipeline.job j using lost l where j.id = l.id and l.last returning j.*, l.worker
), archived as (
    insert into pipeline.job_archive (
        id, queue, priority, task, args, state, attempt, max_attempts, created_at, run_at, finished_at, worker, error
    )
    select
        g.id, g.queue, g.priority, g.task, g.args, 'failed', g.attempt, g.max_attempts, g.created_at, g.run_at,
        (select pipeline.now()), g.worker, 'worker ' || g.worker || ' was not seen any more while it held this job'
    from gone g
    returning 1
)
select (select count(*) from again) as again, (select count(*) from archived) as failed
