-- hold: locks the leases and the jobs of a batch whose statements would else lock them in several orders
-- $1 bigint[]: leases   $2 bigint: worker   $3 bigint[]: jobs
-- locks: the worker's leases, NO KEY UPDATE, then the jobs; both in the order of their ids
with held as materialized (
    select l.id from pipeline.lease l where l.id = any($1::bigint[]) and l.worker = $2 order by l.id for no key update
)
select count(*) from (
    select from pipeline.job j
    where (select count(*) from held) >= 0 and j.id = any($3::bigint[])
    order by j.id for update
) j
