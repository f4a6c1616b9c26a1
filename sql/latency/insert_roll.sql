-- insert_roll: notes that a window was rolled up once more; returns the number of the roll
-- $1 int: the level, in seconds
-- $2 float8: the start of the window, in seconds since the epoch
-- locks: the new row only; lock_roll_up makes the number unique
insert into pipeline.timing_roll (seconds, start, part, made_at)
select $1, to_timestamp($2::float8), coalesce(max(r.part) + 1, 0), pipeline.now()
from pipeline.timing_roll as r
where r.seconds = $1 and r.start = to_timestamp($2::float8)
returning part
