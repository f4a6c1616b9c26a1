-- next_batches: the earliest closed minute with batches that are to be rolled up, or none; late ones wait for a minute
-- $1 float8: how long after its end a window counts as closed, in seconds
-- locks: none
select extract(epoch from date_bin(interval '1 minute', b.start, timestamptz 'epoch'))::float8 as start
from pipeline.timing_batch as b
where not b.rolled
  and b.start < date_bin(interval '1 minute', pipeline.now() - make_interval(secs => $1), timestamptz 'epoch')
  and (
      b.written_at < pipeline.now() - interval '1 minute'
      or not exists (
          select
          from pipeline.timing_roll as r
          where r.seconds = 60 and r.start = date_bin(interval '1 minute', b.start, timestamptz 'epoch')
      )
  )
order by b.start
limit 1
