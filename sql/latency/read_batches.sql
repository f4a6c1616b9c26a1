-- read_batches: the digests of some batches, series by series
-- $1 text[]: their writers
-- $2 bigint[]: their numbers
-- locks: none
select d.series, d.count, d.sum, d.low, d.high, d.errors, d.over_count, d.row_count, d.centroids
from unnest($1::text[], $2::bigint[]) as t (writer, number)
join pipeline.timing_batch as b on b.writer = t.writer::uuid and b.number = t.number
cross join unnest(b.digests) as d
order by d.series
