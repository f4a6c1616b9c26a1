-- enqueue_many: adds many jobs of one task and wakes the workers once; returns the ids in the order of the arguments
-- $1 text: task   $2 jsonb[]: the arguments of each   $3 text: queue   $4 int: priority
-- $5 int: attempts at most   $6 float8: seconds one run may take, or null
-- locks: none
with at as materialized (
    select pipeline.now() as now, pg_current_xact_id() as xid
), made as (
    insert into pipeline.job (task, args, queue, priority, run_at, created_at, max_attempts, timeout)
    select $1, a.args, $3, $4::int, at.now, at.now, $5::int, make_interval(secs => $6::float8)
    from at, unnest($2::jsonb[]) with ordinality as a (args, n)
    order by a.n
    returning id
), told as materialized (
    select pipeline.request_lane($3, $4::int), pipeline.wake_workers($3) where exists (select from made)
)
select array_agg(id order by id) from made where (select count(*) from told) >= 0
