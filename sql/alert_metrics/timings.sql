-- timings: every series of a rule in one window; pipeline/core/pooled.py reads the digests
-- $1 text: the series; with % in it a LIKE pattern
-- $2 jsonb: what its labels contain
-- $3 text[]: its sources; null for all
-- $4 float8: the start of the window, in seconds since the epoch
-- $5 int: its length in seconds
-- $6 bool: whether the digests are wanted; without, lows and all that follows is null
-- locks: none
select s.series, s.labels, s.count, s.errors, s.sum, s.low, s.high, s.lows, s.highs, s.sizes, s.centroids
from pipeline.alert_digests($1, $2, $3, to_timestamp($4::float8), $5, $6) as s
