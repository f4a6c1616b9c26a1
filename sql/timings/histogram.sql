-- histogram: how the timings of a series are spread
-- $1 text: the series, bare or with braces
-- $2 float8: the span, in seconds
-- $3 text: labels as JSON, or null
-- locks: none
select h.above, h.upto, h.count, h.share
from pipeline.latency_histogram($1, make_interval(secs => $2), labels => $3::text::jsonb) as h
