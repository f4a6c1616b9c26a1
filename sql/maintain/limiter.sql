-- limiter: forgets what was allowed so long ago that it counts no more; returns how many
-- $1 float8: seconds since the end of the window   $2 bigint: how many at most
-- locks: the rows, SKIP LOCKED
with old as materialized (
    select m.name
    from pipeline.limiter as m
    where (m.slot + 66) * m.slot_seconds < extract(epoch from pipeline.now())::float8 - $1
    limit $2
    for update skip locked
), gone as (
    delete from pipeline.limiter as m using old as o where m.name = o.name returning 1
)
select count(*) from gone
