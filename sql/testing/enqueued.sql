-- enqueued: the jobs that have not ended, oldest first, for the assertions of a test
-- $1 text: task, or null for all of them   $2 text: queue, or null for all of them
-- locks: none
select
    j.id, j.task, j.args, j.queue, j.priority, j.attempt,
    extract(epoch from j.run_at)::float8 as run_at,
    extract(epoch from j.run_at - pipeline.now())::float8 as due_in
from pipeline.job j
where ($1::text is null or j.task = $1) and ($2::text is null or j.queue = $2)
order by j.id
