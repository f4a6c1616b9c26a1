-- insert: adds the parts of many windows; parts that are already there stay as they are
-- $1 int: the level, in seconds
-- $2 text: the writer
-- $3 bigint[]: the writer's numbers of the parts
-- $4 text[]: series
-- $5 float8[]: starts, in seconds since the epoch
-- $6 float8[]: sums
-- $7 float8[]: minima
-- $8 float8[]: maxima
-- $9 bigint[]: counts
-- $10 bigint[]: errors
-- $11 bigint[]: over the threshold
-- $12 int[]: how many centroids each part has
-- $13 float8[]: the means of all parts, one after the other
-- $14 float8[]: the weights of all parts, likewise
-- locks: the new rows only
insert into pipeline.latency_window (
    seconds, series, start, writer, part, count, sum, low, high, errors, over_count, means, weights
)
select $1::int, p.series, to_timestamp(p.start), $2::text, p.part, p.count, p.sum, p.low, p.high, p.errors, p.over_count,
    ($13::float8[])[p.upto - p.size + 1 : p.upto], ($14::float8[])[p.upto - p.size + 1 : p.upto]
from (
    select u.*, sum(u.size) over (order by u.place)::int as upto
    from unnest(
        $3::bigint[], $4::text[], $5::float8[], $6::float8[], $7::float8[], $8::float8[], $9::bigint[], $10::bigint[],
        $11::bigint[], $12::int[]
    ) with ordinality as u (part, series, start, sum, low, high, count, errors, over_count, size, place)
) as p
on conflict do nothing
