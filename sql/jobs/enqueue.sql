-- enqueue: adds one job through the same function that applications call; what is null comes from the task
-- $1 text: task   $2 jsonb: args   $3 text: queue   $4 int: priority, the lower number runs first
-- $5 float8: run at, Unix seconds   $6 int: attempts at most   $7 float8: seconds one run may take
-- $8 text: key   $9 float8: expires at, Unix seconds   $10 text: unique key   $11 float8: unique for seconds
-- $12 text[]: in which states of the other, or null   $13 text: on a clash skip, replace, reschedule or merge
-- locks: none; with a unique key, others that add the same key wait until the transaction ends
select pipeline.enqueue(
    $1, $2::jsonb, $3, $4::int, to_timestamp($5::float8), $6::int, make_interval(secs => $7::float8), $8,
    to_timestamp($9::float8), $10, make_interval(secs => $11::float8), $12::text[], $13
)
