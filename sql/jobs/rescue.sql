-- rescue: takes the leases of workers that have not been seen for $1 seconds, and gives their jobs another attempt
-- $1 float8: seconds   $2 bigint: leases at most
-- A job that was never lost before may have run: it loses an attempt. One that was is begun alone and with a note (begin):
-- with the note it did run, without it nothing happens to it. The third loss ends a job, and so does one in its last
-- attempt, unless it is the first: then it is not known whether the job had begun at all.
-- Returns how many were given back, and how many failed.
-- locks: the leases, SKIP LOCKED: one that its worker is using this moment is left for the next time; the jobs,
-- in the order of their ids
with dead as materialized (
    select l.id, l.ids, l.started, l.worker
    from pipeline.lease l
    where not exists (
        select from pipeline.worker w
        where w.id = l.worker and w.seen_at > (select pipeline.now()) - make_interval(secs => $1)
    )
    order by l.id
    limit $2
    for update skip locked
), freed as (
    delete from pipeline.lease l using dead d where l.id = d.id returning d.ids, d.started, d.worker
), lost as materialized (
    select
        j.id, f.worker, (j.lost = 0 or j.id = any(f.started))::int as ran,
        case
            when j.lost = 0 or j.id = any(f.started) then
                case
                    when j.lost >= 2 then 'three workers vanished while they ran this job'
                    when j.attempt >= j.max_attempts and j.lost > 0 then 'the worker vanished in the last attempt'
                end
        end as end_of_it
    from (select unnest(ids) as id, started, worker from freed) f
    join pipeline.job j on j.id = f.id
    order by j.id for update of j -- as whoever cancels them does
), again as (
    update pipeline.job j
    set attempt = j.attempt + l.ran, lost = j.lost + l.ran, pos = nextval('pipeline.job_pos'),
        run_at = (select pipeline.now()),
        error = case when l.ran = 1 then 'worker ' || l.worker || ' was not seen any more while it held this job' else j.error end
    from lost l
    where j.id = l.id and l.end_of_it is null
    returning 1
), gone as (
    delete from pipeline.job j using lost l where j.id = l.id and l.end_of_it is not null returning j.*, l.worker, l.end_of_it
), archived as (
    insert into pipeline.job_archive (
        id, queue, priority, task, args, state, attempt, max_attempts, created_at, run_at, expires_at, timeout, key, lost,
        workflow, finished_at, worker, error
    )
    select
        g.id, g.queue, g.priority, g.task, g.args, 'failed', g.attempt, g.max_attempts, g.created_at, g.run_at,
        g.expires_at, g.timeout, g.key, g.lost + 1, g.workflow, (select pipeline.now()), g.worker,
        g.end_of_it || ': worker ' || g.worker || ' was not seen any more'
    from gone g
    returning 1
)
select (select count(*) from again) as again, (select count(*) from archived) as failed
