-- retry: holds jobs back until later, if the worker still holds their lease; returns how many
-- $1 bigint[]: jobs   $2 bigint[]: the lease of each   $3 bigint: worker   $4 float8[]: seconds to wait
-- $5 text[]: what went wrong   $6 bool[]: whether the run counts as an attempt
-- locks: the leases, NO KEY UPDATE; the jobs
with given as (
    select g.* from unnest($1::bigint[], $2::bigint[], $4::float8[], $5::text[], $6::bool[])
        as g (id, lease, delay, error, counts)
), held as materialized (
    select l.id, l.ids
    from pipeline.lease l
    where l.id = any($2::bigint[]) and l.worker = $3
    order by l.id
    for no key update
), mine as materialized (
    select g.* from given g join held h on h.id = g.lease where g.id = any(h.ids)
), held_back as (
    update pipeline.job j
    set attempt = j.attempt + m.counts::int, pos = null, error = coalesce(m.error, j.error),
        run_at = (select pipeline.now()) + make_interval(secs => m.delay)
    from mine m
    where j.id = m.id
    returning 1
), kept as (
    update pipeline.lease l
    set ids = array(select i from unnest(l.ids) i where i not in (select m.id from mine m))
    from held h
    where l.id = h.id
)
select count(*) from held_back
