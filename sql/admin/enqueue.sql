-- enqueue: adds one job, as any client would; what is null comes from the task
-- $1 text: the task   $2 jsonb: its named arguments   $3 text: the queue   $4 int: priority; the lower number runs first
-- $5 float8: seconds from now before which it does not run   $6 float8: or Unix seconds   $7 int: attempts at most
-- $8 float8: seconds one run may take   $9 text: key   $10 float8: seconds from then on within which it must begin
-- $11 text: unique key   $12 float8: unique for seconds   $13 text[]: in which states of the other, or null
-- $14 text: on a clash skip, replace, reschedule or merge
-- locks: none; with a unique key, others that add the same key wait until the transaction ends
select pipeline.enqueue(
    $1, $2::jsonb, $3, $4::int,
    coalesce(to_timestamp($6::float8), pipeline.now() + make_interval(secs => $5::float8)), $7::int,
    make_interval(secs => $8::float8), $9,
    greatest(pipeline.now(), coalesce(to_timestamp($6::float8), pipeline.now() + make_interval(secs => $5::float8)))
        + make_interval(secs => $10::float8),
    $11, make_interval(secs => $12::float8), $13::text[], $14
)
