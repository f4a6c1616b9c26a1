-- progress: says how far a job is, if the worker still holds it; null when not
-- $1 bigint: job   $2 bigint: lease   $3 bigint: worker   $4 float8: done   $5 float8: of how much, or null   $6 text: note
-- locks: the lease and the job, KEY SHARE, which a rescue and a cancel wait for or win against; the state's row
with held as materialized (
    select j.id
    from pipeline.lease l
    join pipeline.job j on j.id = $1
    where l.id = $2 and l.worker = $3 and $1 = any(l.ids)
    for key share
)
insert into pipeline.job_state (job, done, total, note, at)
select h.id, $4::float8, $5::float8, $6, pipeline.now() from held h
on conflict (job) do update set done = excluded.done, total = excluded.total, note = excluded.note, at = excluded.at
returning job
