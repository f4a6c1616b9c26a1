-- timings: every series of a rule in one window
-- $1 text: the series; with % in it a LIKE pattern
-- $2 jsonb: what its labels contain
-- $3 text[]: its sources; null for all
-- $4 float8: the start of the window, in seconds since the epoch
-- $5 int: its length in seconds
-- locks: none
select s.series, s.labels, s.count, s.errors, s.sum / s.count as mean, s.high as max,
    s.quantiles[1] as p50, s.quantiles[2] as p95, s.quantiles[3] as p99
from pipeline.alert_timings($1, $2, $3, to_timestamp($4::float8), $5) as s
