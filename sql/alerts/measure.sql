-- measure: every series of a rule in one window
-- $1 text: the series; with % in it a LIKE pattern
-- $2 float8: the start of the window, in seconds since the epoch
-- $3 int: its length in seconds; below a minute the parts of five seconds are read, else those of a minute
-- locks: none
select s.series, s.count, s.errors, s.sum / s.count as mean, s.high as max,
    s.quantiles[1] as p50, s.quantiles[2] as p95, s.quantiles[3] as p99
from pipeline.latency_summary(
    $1::text, strpos($1::text, '%') > 0, to_timestamp($2::float8), to_timestamp($2::float8 + $3::int),
    case when $3::int < 60 then 5 else 60 end, array[0.5, 0.95, 0.99]
) as s
