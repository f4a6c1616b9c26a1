-- lane_missing: asks for lanes of jobs that have none; returns how many
-- $1 bigint: how many at most
-- A lane may be deleted while a transaction that saw it adds a job to it.
-- locks: none that anyone waits for
with lost as materialized (
    select j.queue, j.priority, j.key
    from pipeline.job as j
    where not exists (
        select from pipeline.lane as l where l.queue = j.queue and l.priority = j.priority and l.key = j.key
    )
    group by j.queue, j.priority, j.key
    limit $1
), asked as (
    insert into pipeline.lane_request (queue, priority, key) select l.queue, l.priority, l.key from lost as l
)
select count(*) from lost
