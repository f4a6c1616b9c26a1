-- next_rolls: the earliest closed window of a level with rolls of the level below that are not rolled up, or none
-- $1 int: the level below, in seconds
-- $2 float8: the level, in seconds
-- $3 float8: how long after its end a window counts as closed, in seconds
-- locks: none
select extract(epoch from date_bin(make_interval(secs => $2), r.start, timestamptz 'epoch'))::float8 as start
from pipeline.timing_roll as r
where r.seconds = $1
  and not r.rolled
  and r.start < date_bin(make_interval(secs => $2), pipeline.now() - make_interval(secs => $3), timestamptz 'epoch')
order by r.start
limit 1
