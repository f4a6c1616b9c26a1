-- next_rolls: the earliest closed window of a level with rolls of the level below that are to be rolled up, or none; late ones
-- wait for as long as a window of the level lasts
-- $1 int: the level below, in seconds
-- $2 float8: the level, in seconds
-- $3 float8: how long after its end a window counts as closed, in seconds
-- locks: none
select extract(epoch from date_bin(make_interval(secs => $2), r.start, timestamptz 'epoch'))::float8 as start
from pipeline.timing_roll as r
where r.seconds = $1
  and not r.rolled
  and r.start < date_bin(make_interval(secs => $2), pipeline.now() - make_interval(secs => $3), timestamptz 'epoch')
  and (
      r.made_at < pipeline.now() - make_interval(secs => $2)
      or not exists (
          select
          from pipeline.timing_roll as c
          where c.seconds = $2::int and c.start = date_bin(make_interval(secs => $2), r.start, timestamptz 'epoch')
      )
  )
order by r.start
limit 1
