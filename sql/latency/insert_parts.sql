-- insert_parts: adds the parts of one roll
-- $1 int: the level, in seconds
-- $2 float8: the start of the window, in seconds since the epoch
-- $3 int: the number of the roll
-- $4 int[]: series
-- $5 bigint[]: counts
-- $6 float8[]: sums
-- $7 float8[]: minima
-- $8 float8[]: maxima
-- $9 bigint[]: errors
-- $10 bigint[]: over the threshold
-- $11 bigint[]: rows
-- $12 int[]: how many numbers the centroids of each take
-- $13 smallint[]: the centroids of all, one after the other
-- locks: the new rows only
insert into pipeline.timing_part (
    seconds, series, start, count, sum, low, high, errors, over_count, row_count, part, centroids
)
select $1::int, d.series, to_timestamp($2::float8), d.count, d.sum, d.low, d.high, d.errors, d.over_count, d.row_count,
    $3::int, ($13::smallint[])[d.upto - d.size + 1 : d.upto]
from (
    select u.*, sum(u.size) over (order by u.place)::int as upto
    from unnest(
        $4::int[], $5::bigint[], $6::float8[], $7::float8[], $8::float8[], $9::bigint[], $10::bigint[], $11::bigint[],
        $12::int[]
    ) with ordinality as u (series, count, sum, low, high, errors, over_count, row_count, size, place)
) as d
