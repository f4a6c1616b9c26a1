-- give_back: returns jobs that a worker holds without knowing, because the answer to its claim was lost; burns no attempt
-- $1 bigint: worker   $2 bigint[]: the leases it knows   $3 float8: only leases older than this many seconds
-- locks: the leases, SKIP LOCKED; the jobs, in the order of their ids
with unknown as materialized (
    select l.id
    from pipeline.lease l
    where l.worker = $1 and l.id <> all($2::bigint[])
        and l.made_at <= (select pipeline.now()) - make_interval(secs => $3)
    for update skip locked
), freed as (
    delete from pipeline.lease l using unknown u where l.id = u.id returning l.ids
), theirs as materialized (
    select j.id from (select unnest(ids) as id from freed) f join pipeline.job j on j.id = f.id order by j.id for update of j
), placed as (
    update pipeline.job j set pos = nextval('pipeline.job_pos') from theirs t where j.id = t.id
    returning 1
)
select count(*) from placed
