-- insert_batch: adds what a process saw in one window of five seconds; a batch that is there already stays as it is
-- $1 text: the writer
-- $2 bigint: the writer's number of the batch
-- $3 float8: the start of the window, in seconds since the epoch
-- $4 int[]: series
-- $5 bigint[]: counts
-- $6 float8[]: sums
-- $7 float8[]: minima
-- $8 float8[]: maxima
-- $9 bigint[]: errors
-- $10 bigint[]: over the threshold
-- $11 bigint[]: rows
-- $12 int[]: how many numbers the centroids of each take
-- $13 smallint[]: the centroids of all, one after the other
-- locks: the new row only
select pipeline.write_timings(
    $1, $2, $3::float8, $4::int[], $5::bigint[], $6::float8[], $7::float8[], $8::float8[], $9::bigint[], $10::bigint[],
    $11::bigint[], $12::int[], $13::smallint[]
)
