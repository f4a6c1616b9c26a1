-- take_unrolled: locks parts of one level whose coarser window has closed and that were not rolled up
-- $1 int: the level, in seconds
-- $2 float8: the coarser level, in seconds
-- $3 float8: how long after its end a window counts as closed, in seconds
-- $4 bigint: how many parts at most
-- locks: the rows, SKIP LOCKED, so that two roll-ups never take the same part
select series, extract(epoch from start)::float8 as start, writer, part, sum, low, high, errors, over_count, means, weights
from pipeline.latency_window as w
where w.seconds = $1
  and not w.rolled
  and w.start < date_bin(make_interval(secs => $2), pipeline.now() - make_interval(secs => $3), timestamptz 'epoch')
order by w.start
limit $4
for update of w skip locked
