-- take_batches: the batches of one minute that are not rolled up, digest by digest; from now on they count as rolled up
-- $1 float8: the start of the minute, in seconds since the epoch
-- locks: the rows
with taken as (
    update pipeline.timing_batch as b
    set rolled = true
    where not b.rolled
      and b.start >= to_timestamp($1::float8)
      and b.start < to_timestamp($1::float8 + 60)
    returning b.digests
)
select d.series, d.sum, d.low, d.high, d.errors, d.over_count, d.row_count, d.centroids
from taken as t
cross join unnest(t.digests) as d
