-- enqueue: adds one job, as any client would
-- $1 text: the task
-- $2 jsonb: its named arguments
-- $3 text: the queue
-- $4 int: priority; the lower number runs first
-- $5 float8: seconds from now, or null for at once
-- locks: none
select pipeline.enqueue(
    $1, $2::jsonb, queue => $3, priority => $4::int, run_at => pipeline.now() + make_interval(secs => $5::float8)
)
