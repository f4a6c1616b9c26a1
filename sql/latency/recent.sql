-- recent: the parts of the last few minutes, for the status
-- $1 float8: how far back, in seconds
-- locks: none
select series, extract(epoch from start)::float8 as start, sum, low, high, errors, over_count, means, weights
from pipeline.latency_window as w
where w.seconds = 5 and w.start > pipeline.now() - make_interval(secs => $1)
order by w.start desc
limit 20000
