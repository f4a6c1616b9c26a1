-- take_rolls: the rolls of a level within one window of the next that are not rolled up; from now on they count as rolled up
-- $1 int: their level, in seconds
-- $2 float8: the start of the window of the next level, in seconds since the epoch
-- $3 float8: its length, in seconds
-- locks: the rows
update pipeline.timing_roll as r
set rolled = true
where r.seconds = $1
  and not r.rolled
  and r.start >= to_timestamp($2::float8)
  and r.start < to_timestamp($2::float8 + $3::float8)
returning r.start, r.part::int
