-- take_batches: the batches of one minute that are not rolled up; from now on they count as rolled up
-- $1 float8: the start of the minute, in seconds since the epoch
-- locks: the rows
update pipeline.timing_batch as b
set rolled = true
where not b.rolled
  and b.start >= to_timestamp($1::float8)
  and b.start < to_timestamp($1::float8 + 60)
returning b.writer::text, b.number
