-- next_batches: the earliest closed minute that has batches which are not rolled up, or none
-- $1 float8: how long after its end a window counts as closed, in seconds
-- locks: none
select extract(epoch from date_bin(interval '1 minute', b.start, timestamptz 'epoch'))::float8 as start
from pipeline.timing_batch as b
where not b.rolled
  and b.start < date_bin(interval '1 minute', pipeline.now() - make_interval(secs => $1), timestamptz 'epoch')
order by b.start
limit 1
