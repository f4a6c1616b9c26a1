-- release: gives jobs back to their lanes as if they had never been claimed, if the worker still holds their lease
-- $1 bigint[]: jobs   $2 bigint[]: the lease of each   $3 bigint: worker
-- locks: the leases, NO KEY UPDATE, which also gives the transaction its id before it draws positions; the jobs
with given as (
    select g.* from unnest($1::bigint[], $2::bigint[]) as g (id, lease)
), held as materialized (
    select l.id, l.ids
    from pipeline.lease l
    where l.id = any($2::bigint[]) and l.worker = $3
    order by l.id
    for no key update
), mine as materialized (
    select g.* from given g join held h on h.id = g.lease where g.id = any(h.ids)
), placed as (
    update pipeline.job j set pos = nextval('pipeline.job_pos') from mine m where j.id = m.id returning 1
), kept as (
    update pipeline.lease l
    set ids = array(select i from unnest(l.ids) i where i not in (select m.id from mine m))
    from held h
    where l.id = h.id
)
select count(*) from placed
