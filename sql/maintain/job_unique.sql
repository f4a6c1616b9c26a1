-- job_unique: forgets unique keys whose job has ended and whose window is over; returns how many
-- $1 float8: seconds that a window must be over   $2 bigint: how many at most
-- A key that got another job after this statement began is kept: its row has another job then.
-- locks: the rows, SKIP LOCKED
with old as materialized (
    select u.key, u.job
    from pipeline.job_unique as u
    where (u.kept_until is null or u.kept_until < pipeline.now() - make_interval(secs => $1))
        and not exists (select from pipeline.job as j where j.id = u.job)
    limit $2
), locked as materialized (
    select u.key
    from pipeline.job_unique as u
    join old as o on o.key = u.key and o.job = u.job
    for update of u skip locked
), gone as (
    delete from pipeline.job_unique as u using locked as l where u.key = l.key returning 1
)
select count(*) from gone
