-- job_state: forgets the progress and what was saved of jobs that have ended; returns how many
-- $1 float8: seconds since the last change   $2 bigint: how many at most
-- A job that ended keeps its id for ever, so none of these is written again.
-- locks: the rows, SKIP LOCKED
with old as materialized (
    select s.job
    from pipeline.job_state as s
    where s.at < pipeline.now() - make_interval(secs => $1)
        and not exists (select from pipeline.job as j where j.id = s.job)
    limit $2
    for update skip locked
), gone as (
    delete from pipeline.job_state as s using old as o where s.job = o.job returning 1
)
select count(*) from gone
