-- read_parts: the parts of some rolls of one level, series by series
-- $1 int: the level, in seconds
-- $2 timestamptz[]: the starts of the rolls
-- $3 int[]: their numbers
-- locks: none
select p.series, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count, p.centroids
from unnest($2::timestamptz[], $3::int[]) as t (start, part)
join pipeline.timing_part as p on p.seconds = $1 and p.start = t.start and p.part = t.part
order by p.series
