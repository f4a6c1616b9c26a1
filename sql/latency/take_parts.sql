-- take_parts: the parts of a window whose rolls are not rolled up; from now on they count as rolled up
-- $1 int: their level, in seconds
-- $2 float8: the start of the window of the next level, in seconds since the epoch
-- $3 float8: its length, in seconds
-- locks: the rows of the rolls
with taken as (
    update pipeline.timing_roll as r
    set rolled = true
    where r.seconds = $1
      and not r.rolled
      and r.start >= to_timestamp($2::float8)
      and r.start < to_timestamp($2::float8 + $3::float8)
    returning r.start, r.part
)
select p.series, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count, p.centroids
from taken as t
join pipeline.timing_part as p on p.seconds = $1 and p.start = t.start and p.part = t.part
