-- save: keeps what the next attempt of a job can go on from, if the worker still holds it; null when not
-- $1 bigint: job   $2 bigint: lease   $3 bigint: worker   $4 jsonb: the value
-- locks: the lease and the job, KEY SHARE, which a rescue and a cancel wait for or win against; the state's row
with held as materialized (
    select j.id
    from pipeline.lease l
    join pipeline.job j on j.id = $1
    where l.id = $2 and l.worker = $3 and $1 = any(l.ids)
    for key share
)
insert into pipeline.job_state (job, saved, at)
select h.id, $4::jsonb, pipeline.now() from held h
on conflict (job) do update set saved = excluded.saved, at = excluded.at
returning job
