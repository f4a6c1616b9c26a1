-- measure: every series of a rule in one window
-- $1 text: the series; with % in it a LIKE pattern
-- $2 float8: the start of the window, in seconds since the epoch
-- $3 int: its length in seconds; the coarsest parts that fit into it are read
-- locks: none
select s.series, m.count, m.errors, m.sum / m.count as mean, m.high as max,
    m.quantiles[1] as p50, m.quantiles[2] as p95, m.quantiles[3] as p99
from (
    select array_agg(k.id) as ids
    from pipeline.timing_series as k
    where k.last_at >= to_timestamp($2::float8) - interval '65 minutes'
      and (k.series = $1::text or (strpos($1::text, '%') > 0 and k.series like $1::text))
) as f
cross join lateral (
    select case when $3 % 3600 = 0 then 3600 when $3 % 300 = 0 then 300 when $3 % 60 = 0 then 60 else 5 end as level
) as l
cross join lateral pipeline.timing_summary(
    f.ids, f.ids, to_timestamp($2::float8), to_timestamp($2::float8 + $3::int), l.level, l.level, array[0.5, 0.95, 0.99]
) as m
join pipeline.timing_series as s on s.id = m.grp
