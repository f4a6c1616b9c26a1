-- recent: the parts of the last few minutes, for the status
-- $1 float8: how far back, in seconds
-- locks: none
-- index: latency_5s_start_idx
select series, extract(epoch from start)::float8 as start, sum, low, high, errors, over_count, means, weights
from pipeline.latency_window
where seconds = 5 and start > pipeline.now() - make_interval(secs => $1)
order by start desc
limit 20000
