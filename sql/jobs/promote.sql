-- promote: gives a position to delayed jobs that are due; says how many, and in how many seconds the next one is due
-- $1 text[]: queues   $2 bigint: jobs a queue at most
-- locks: the jobs, SKIP LOCKED, which also gives the transaction its id before it draws positions
-- index: job_delayed
with due as materialized (
    select j.id
    from unnest($1::text[]) q (queue)
    cross join lateral (
        select j.id
        from pipeline.job j
        where j.queue = q.queue and j.pos is null and j.needs = 0 and j.run_at <= (select pipeline.now())
        order by j.run_at
        limit $2
        for update skip locked
    ) j
), placed as (
    update pipeline.job j set pos = nextval('pipeline.job_pos') from due where j.id = due.id and j.pos is null and j.needs = 0 returning 1
)
select
    (select count(*) from placed) as promoted,
    (
        select extract(epoch from min(n.run_at) - pipeline.now())::float8
        from unnest($1::text[]) q (queue)
        cross join lateral (
            select j.run_at from pipeline.job j
            where j.queue = q.queue and j.pos is null and j.needs = 0 and j.run_at > (select pipeline.now())
            order by j.run_at
            limit 1
        ) n
    ) as next_in
